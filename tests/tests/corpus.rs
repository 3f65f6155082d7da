//! Replays the fuzzer's corpus, and a few thousand random scripts besides.

use bowline::SplitMix64;
use bowline_tests::sim::script;
use std::path::Path;

#[test]
fn the_committed_corpus_breaks_no_promise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/session");
    let mut scripts = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is committed") {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let _ = script::run(&bytes);
        scripts += 1;
    }
    assert!(scripts > 50, "{scripts} scripts in {}", folder.display());
}

#[test]
fn random_scripts_break_no_promise() {
    for seed in 0..3000 {
        let mut rng = SplitMix64::new(seed);
        let mut bytes = vec![script::FORMAT];
        let length = rng.up_to(1500);
        bytes.extend((0..length).map(|_| u8::try_from(rng.up_to(255)).unwrap()));
        let outcome = std::panic::catch_unwind(|| script::run(&bytes));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
