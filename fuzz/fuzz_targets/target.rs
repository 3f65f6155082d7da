//! Every target: what it does with its input is in `bowline_tests::fuzz`, under the name of the binary.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| bowline_tests::fuzz::target(env!("CARGO_BIN_NAME")).run(input));
