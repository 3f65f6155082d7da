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
        if std::panic::catch_unwind(|| drop(World::play(&plan(seed), Style::Exact))).is_err() {
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
    let _ = World::play(&plan, Style::Exact);
}
