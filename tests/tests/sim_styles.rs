//! Ticks are free and deadlines are right: however a driver goes about it, the same leaves the sessions at the same time.
//!
//! A deadline that is checked but not announced shows up as soon as nobody calls in between; one that depends on how often
//! somebody called shows up as soon as somebody does.

use bowline_tests::sim::{Plan, Style, World, seeds};

fn same_as_exact(seed: u64, style: Style) {
    let plan = Plan::random(seed);
    let (exact, other) = (World::play(&plan, Style::Exact), World::play(&plan, style));
    for (one, two) in exact.log.iter().zip(&other.log) {
        assert_eq!(one, two, "seed {seed}, {style:?}: {plan:#?}");
    }
    assert_eq!(exact.log.len(), other.log.len(), "seed {seed}, {style:?}: {plan:#?}");
}

/// G9, rule 4: woken at the deadline only, or every millisecond besides.
#[test]
fn g9_sparse_equals_dense() {
    for seed in seeds(12) {
        same_as_exact(seed, Style::Dense);
    }
}

/// Rule 4: ticks at random, every one doubled.
#[test]
fn g9_spurious_ticks_change_nothing() {
    for seed in seeds(150) {
        same_as_exact(seed, Style::Spurious);
    }
}

/// Rule 3: polled a few times, ticked, polled again: nothing is lost and nothing is different.
#[test]
fn g9_sips_equal_a_drain() {
    for seed in seeds(600) {
        same_as_exact(seed, Style::Sips);
    }
}
