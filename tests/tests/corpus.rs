//! Replays the fuzzer's inputs on every target (`bowline_tests::fuzz`), and random scripts besides: the same ones each time,
//! others with `SEED=2`.
//!
//! What one input does: `TARGET=hub INPUT=file cargo test -p bowline-tests --test corpus shown -- --nocapture`.

use bowline_tests::fuzz::{self, TARGETS};
use bowline_tests::sim::script;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::path::{Path, PathBuf};

/// The most inputs of a target, and their bytes.
const MOST: (usize, u64) = (300, 1 << 20);

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

#[test]
fn the_committed_inputs_break_no_promise() {
    for target in TARGETS {
        let folder = corpus().join(target.name);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
        let (mut inputs, mut bytes) = (0, 0);
        for file in files {
            let input = std::fs::read(file.unwrap().path()).unwrap();
            target.run(&input);
            inputs += 1;
            bytes += u64::try_from(input.len()).unwrap();
        }
        let fits = (10..=MOST.0).contains(&inputs) && bytes <= MOST.1;
        assert!(fits, "{}: {inputs} inputs of {bytes} bytes; `cargo fuzz cmin` makes fewer", target.name);
    }
}

#[cfg(feature = "adapters")]
#[test]
fn the_fuzzer_has_these_targets_and_no_other() {
    let names: std::collections::BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let manifest = std::fs::read_to_string(corpus().join("../Cargo.toml")).unwrap();
    let bins = manifest.split("[[bin]]\nname = \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    assert_eq!(bins.collect::<std::collections::BTreeSet<_>>(), names);
    let folders = std::fs::read_dir(corpus()).unwrap().map(|folder| folder.unwrap().file_name().into_string().unwrap());
    assert_eq!(folders.collect::<std::collections::BTreeSet<_>>(), names);
}

/// Does nothing without `TARGET` and `INPUT`.
#[test]
fn shown() {
    let (Ok(name), Ok(input)) = (std::env::var("TARGET"), std::env::var("INPUT")) else { return };
    // From the repository's root, where `cargo` was called, or from here.
    let file =
        [Path::new("..").join(&input), input.into()].into_iter().find(|file| file.exists()).expect("no such file");
    let (target, input) = (fuzz::target(&name), std::fs::read(file).unwrap());
    target.show(&input);
    target.run(&input);
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
        let _ = script::plain(&tail);
    }

    #[test]
    fn random_native_scripts_break_no_promise(tail in vec(any::<u8>(), 0..1500)) {
        let _ = script::native(&[&[1], &tail[..]].concat());
    }

    /// Of every target but that of native sessions, whose own issue is open.
    #[test]
    fn any_bytes_are_an_input(bytes in vec(any::<u8>(), 0..64), at in 0..TARGETS.len()) {
        if TARGETS[at].name != "native" {
            TARGETS[at].run(&bytes);
        }
    }
}
