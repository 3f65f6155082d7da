//! Worlds full of faults, at random: every promise is kept at every step, and in the end everything is settled.
//!
//! More than the default: `SEEDS=100000 cargo test -p bowline-tests --release --test sim_promises`. One world, with what
//! left the sessions: `FROM=17 SEEDS=1 SHOW=1 cargo test … -- --nocapture`.

use bowline::{Event, Outcome, Path, Reason};
use bowline_tests::sim::{Effect, Plan, Style, World, seeds};
use std::collections::BTreeMap;
use std::panic::{catch_unwind, resume_unwind};

/// Plays a plan to a settled end.
fn settled(seed: u64, style: Style) -> World {
    let world = catch_unwind(|| {
        let mut world = World::play(&Plan::random(seed), style);
        world.finish();
        world
    });
    world.unwrap_or_else(|panic| {
        println!("seed {seed}: {:#?}", Plan::random(seed));
        resume_unwind(panic)
    })
}

/// G1 to G7 and G9: the ledger, the driver and the world assert them at every step.
#[test]
fn g1_to_g7_hold_in_any_weather_and_everything_ends() {
    for seed in seeds(1000) {
        let _ = settled(seed, Style::Exact);
    }
}

/// The same with drivers that come late and leave output undrained meanwhile (rules 3 and 4).
#[test]
fn g1_to_g7_hold_with_late_drivers() {
    for seed in seeds(500) {
        let _ = settled(seed, Style::Late);
    }
}

/// G8: the same inputs give the same outputs, and the same state behind them.
#[test]
fn g8_the_same_seed_is_the_same_execution() {
    for seed in seeds(100) {
        let (one, two) = (settled(seed, Style::Exact), settled(seed, Style::Exact));
        assert_eq!(one.log, two.log);
        assert_eq!(one.driver(0).digest(), two.driver(0).digest());
        assert_eq!(one.driver(1).digest(), two.driver(1).digest());
    }
}

/// A promise is not tested by weather in which nothing can break it.
#[test]
fn the_weather_is_bad_enough() {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut count = |what, times: u64| *seen.entry(what).or_default() += times;
    for seed in 0..300 {
        let world = settled(seed, Style::Exact);
        count("maybe_dup", world.ledger.maybe_dups().into());
        for party in [0, 1] {
            let stats = world.driver(party).session().stats();
            count("hedge", stats.hedges);
            count("duplicate", stats.duplicates);
            count("refused", stats.refused);
            count("stall", stats.stalls);
            count("stale", stats.stale);
            count("horizon short", stats.horizon_short);
            for (_, event) in world.events(party) {
                match event {
                    Event::Settled { outcome: Outcome::Delivered { path: Path::WebSocket }, .. } => count("by ws", 1),
                    Event::Settled { outcome: Outcome::Delivered { path: Path::Http }, .. } => count("by http", 1),
                    Event::Settled { outcome: Outcome::Rejected(_), .. } => count("rejected", 1),
                    Event::Settled { outcome: Outcome::Expired, .. } => count("expired", 1),
                    Event::Settled { outcome: Outcome::Abandoned, .. } => count("abandoned", 1),
                    Event::Down { reason: Reason::Dead, .. } => count("dead", 1),
                    Event::Down { reason: Reason::Stalled, .. } => count("stalled", 1),
                    Event::Down { reason: Reason::Timeout, .. } => count("timeout", 1),
                    Event::Down { reason: Reason::Replaced, .. } => count("replaced", 1),
                    Event::Down { reason: Reason::Closed(1009), .. } => count("too large", 1),
                    Event::Path { .. } => count("path", 1),
                    Event::RejectedButAcked { .. } => count("rejected but acked", 1),
                    _ => {}
                }
            }
            let refusals = world.count(party, |effect| matches!(effect, Effect::Refuse(_)));
            count("knock refused", refusals.try_into().unwrap());
        }
    }
    println!("{seen:#?}");
    assert!(seen.values().all(|times| *times >= 5), "{seen:#?}");
}
