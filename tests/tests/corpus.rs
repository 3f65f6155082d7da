//! Replays the fuzzer's corpus, and random scripts besides: the same ones each time, others with `SEED=2`.

use bowline_tests::sim::script;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::path::Path;

#[test]
fn the_committed_corpus_breaks_no_promise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/session");
    let (mut scripts, mut pairs, mut native) = (0, 0, 0);
    for entry in std::fs::read_dir(&folder).expect("the corpus is committed") {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        let _ = script::run(&bytes);
        scripts += usize::from(bytes.first() == Some(&script::FORMAT));
        pairs += usize::from(bytes.first() == Some(&script::PAIR));
        native += usize::from(matches!(bytes.first(), Some(&(script::NATIVE | script::NATIVE_PAIR))));
    }
    assert!(scripts > 50 && pairs > 20 && native > 20, "{scripts}, {pairs} and {native} in {}", folder.display());
}

fn scripts() -> ProptestConfig {
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().expect("SEED is a number"));
    let rng_seed = RngSeed::Fixed(seed);
    ProptestConfig { cases: 2000, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(scripts())]

    #[test]
    fn random_scripts_break_no_promise(tail in vec(any::<u8>(), 0..1500)) {
        let _ = script::run(&[&[script::FORMAT], &tail[..]].concat());
    }

    #[test]
    fn random_native_scripts_break_no_promise(tail in vec(any::<u8>(), 0..1500)) {
        let _ = script::run(&[&[script::NATIVE], &tail[..]].concat());
    }

    #[test]
    fn random_bytes_are_a_script(bytes in vec(any::<u8>(), 0..64)) {
        let _ = script::run(&bytes);
    }
}
