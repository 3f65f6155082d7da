//! Worlds full of faults, at random: every promise is kept at every step, and in the end everything is settled.

use bowline::SplitMix64;
use bowline_tests::sim::{Plan, Style, World};

fn bytes(seed: u64) -> Vec<u8> {
    let mut rng = SplitMix64::new(seed);
    (0..2 + 3 * (8 + seed % 50)).map(|_| u8::try_from(rng.up_to(255)).unwrap()).collect()
}

fn plan(seed: u64) -> Plan {
    Plan { seed, ..Plan::decode(&bytes(seed)) }
}

#[test]
fn g1_to_g7_hold_in_any_weather_and_everything_ends() {
    let most = std::env::var("SEEDS").map_or(400, |text| text.parse().unwrap());
    let from = std::env::var("FROM").map_or(0, |text| text.parse().unwrap());
    let mut bad = 0;
    for seed in from..from + most {
        if std::panic::catch_unwind(|| World::play(&plan(seed), Style::Exact).finish()).is_err() {
            eprintln!("seed {seed} kind {}", seed % 6);
            bad += 1;
        }
    }
    assert_eq!(bad, 0);
}

#[test]
#[ignore = "prints one world"]
fn show() {
    let seed = std::env::var("SEED").unwrap().parse().unwrap();
    let plan = plan(seed);
    println!("{:#?}", bowline_tests::sim::Setup::any(plan.seed).configs[0].route);
    let mut when = std::time::Duration::ZERO;
    for (pause, change) in &plan.changes {
        when += *pause;
        println!("{when:?} {change:?}");
    }
    World::play(&plan, Style::Exact).finish();
}

fn same(seed: u64, style: Style) {
    let exact = World::play(&plan(seed), Style::Exact);
    let other = World::play(&plan(seed), style);
    for (one, two) in exact.log.iter().zip(&other.log) {
        assert_eq!(one, two, "seed {seed}");
    }
    assert_eq!(exact.log.len(), other.log.len());
}

fn each(seeds: u64, each: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let most = std::env::var("SEEDS").map_or(seeds, |text| text.parse().unwrap());
    let from = std::env::var("FROM").map_or(0, |text| text.parse().unwrap());
    let mut bad = 0;
    for seed in from..from + most {
        if std::panic::catch_unwind(|| each(seed)).is_err() {
            eprintln!("seed {seed} kind {}", seed % 6);
            bad += 1;
        }
    }
    assert_eq!(bad, 0);
}

#[test]
fn dense() {
    each(30, |seed| same(seed, Style::Dense));
}

#[test]
fn spurious() {
    each(300, |seed| same(seed, Style::Spurious));
}

#[test]
fn sips() {
    each(1000, |seed| same(seed, Style::Sips));
}

#[test]
fn late() {
    each(1000, |seed| World::play(&plan(seed), Style::Late).finish());
}
