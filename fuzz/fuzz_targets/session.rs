//! A session under any script; see `bowline_tests::sim::script` for the format and for what is checked.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    let _ = bowline_tests::sim::script::run(script);
});
