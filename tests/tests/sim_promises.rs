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
    for seed in from..from + most {
        eprintln!("seed {seed}");
        let _ = World::play(&plan(seed), Style::Exact);
    }
}
