//! A hub and a thousand clients: cold start, everyday, loss of the hub's state, drain, a reader that stopped.
//!
//! `FLEET=200` makes it so many clients.

use bowline::hub::{CloseReason, HubConfig, Rate};
use bowline::{Instant, Path, SplitMix64};
use bowline_tests::sim::fleet::{Fleet, World, miner};
use bowline_tests::sim::{ms, s};
use std::collections::BTreeMap;

/// So many clients.
fn many() -> usize {
    std::env::var("FLEET").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

fn fleet() -> Fleet {
    Fleet { clients: many(), client: miner(), hub: HubConfig::DEFAULT, window: true, seed: 7 }
}

/// All up.
fn settled(fleet: Fleet) -> World {
    let mut world = World::new(fleet);
    for n in 0..many() {
        world.start(n);
        world.run(ms(2));
    }
    world.run(s(60));
    assert_eq!(world.up(), many(), "{:?}", world.missing());
    world
}

/// (a) U8: everybody dials at once; nobody is let in faster than the rate, and nobody starves.
#[test]
fn u8_a_cold_start_lets_everybody_in_at_the_rate() {
    let mut fleet = fleet();
    fleet.hub.handshakes = Rate { per_second: 50, burst: 50 };
    let mut world = World::new(fleet);
    for n in 0..many() {
        world.start(n);
    }
    world.run(s(300));
    let in_time: Vec<Instant> = world.dials.iter().filter(|(.., admitted)| *admitted).map(|(at, ..)| *at).collect();
    for (n, at) in in_time.iter().enumerate() {
        let within = in_time[n..].iter().take_while(|later| later.since(*at) < s(1)).count();
        assert!(within <= 100, "burst and rate: {within} in a second");
    }
    let mut firsts: Vec<Instant> = world.first_up.values().copied().collect();
    firsts.sort_unstable();
    let last = firsts.last().map(|at| at.since(Instant::ZERO));
    let attempts = world.dials.len();
    println!(
        "{} in, half after {:?}, the last after {last:?}, {attempts} dials",
        firsts.len(),
        firsts[firsts.len() / 2]
    );
    assert_eq!(world.up(), many(), "{:?}", world.missing());
}

/// (b) G1, S6, U3: predictions, results, losses of connections told and untold, HTTP besides: nothing is lost, nothing is
/// doubled.
#[test]
fn g1_nothing_is_lost_and_nothing_doubled_on_both_paths() {
    let mut world = settled(fleet());
    let mut rng = SplitMix64::new(3);
    let mut any = |most: usize| rng.up_to(most as u64) as usize;
    for _ in 0..1500 {
        for _ in 0..2 {
            world.predict(any(many() - 1));
        }
        world.tell(any(many() - 1));
        if any(9) == 0 {
            let told = any(1) == 0;
            world.lose(any(many() - 1), told);
        }
        if any(499) == 0 {
            world.publish();
        }
        world.run(ms(20));
    }
    // As long as a half-open connection can last that nobody has anything to say on.
    world.run(s(400));
    let mut by_path: BTreeMap<&str, u32> = BTreeMap::new();
    for (payload, fate) in &world.fates {
        assert_eq!((fate.ended, fate.done, fate.doubled), (1, true, 0), "{payload}: {fate:?}");
        let path = match fate.path {
            Some(Path::WebSocket) => "by the connection",
            Some(Path::Http) => "by request",
            None => panic!("{payload} was not delivered: {fate:?}"),
        };
        *by_path.entry(path).or_default() += 1;
        *by_path.entry("given back").or_default() += u32::from(fate.handed > 1);
    }
    for (payload, told) in &world.told {
        assert_eq!(*told, (1, 1), "{payload} of the hub's");
    }
    println!("{by_path:?}, {} of the hub's, {} dials", world.told.len(), world.dials.len());
    assert!(by_path.len() == 3 && by_path.values().all(|count| *count >= 5));
    assert_eq!((world.up(), world.hub().health().backlog, world.hub().health().held), (many(), 0, 0));
    assert_eq!((world.hub().stats().replays, world.hub().stats().limited), (0, 0));
}

/// What comes back after the hub has lost its state: the busiest 100 ms, dials in all, and when the last was up.
fn after_a_kill(window: bool) -> (usize, usize, core::time::Duration) {
    let mut world = settled(Fleet { window, ..fleet() });
    for n in (0..many()).step_by(3) {
        world.predict(n);
    }
    world.run(ms(10));
    let from = world.now();
    let (dials, ups) = (world.dials.len(), world.ups.len());
    world.kill(s(2));
    world.run(s(300));
    assert_eq!(world.up(), many(), "{:?}", world.missing());
    for (payload, fate) in &world.fates {
        assert_eq!((fate.ended, fate.done, fate.doubled), (1, true, 0), "{payload}: {fate:?}");
    }
    let last = world.ups[ups..].iter().map(|(at, _)| at.since(from)).max().expect("they came back");
    (world.busiest(from), world.dials.len() - dials, last)
}

/// (c) B2: a window that was told while all were connected makes the return of a fleet at least three times flatter.
#[test]
fn b2_the_window_flattens_the_return_after_a_loss_of_state() {
    let (with, dials, last) = after_a_kill(true);
    println!("with the window: {with} in the busiest 100 ms, {dials} dials, the last up after {last:?}");
    let (without, dials, last) = after_a_kill(false);
    println!("without: {without} in the busiest 100 ms, {dials} dials, the last up after {last:?}");
    assert!(without >= 3 * with, "{without} without, {with} with");
}

/// (d) U9: batches and tickets; who comes back too early is given another time, and nobody comes in a herd.
#[test]
fn u9_a_fleet_that_is_drained_comes_back_one_after_the_other() {
    let mut world = settled(fleet());
    for n in (0..many()).step_by(3) {
        world.predict(n);
    }
    world.run(ms(10));
    let (from, dials, ups) = (world.now(), world.dials.len(), world.ups.len());
    world.successor = Some(ms(500));
    world.drain(s(30), s(10));
    world.run(s(300));
    let closes = &world.closes;
    assert_eq!(closes.len(), many());
    assert!(closes.iter().all(|(_, why, after)| *why == CloseReason::Draining && *after <= s(30)));
    let batch = (0..closes.len()).map(|n| closes[n..].iter().take_while(|close| close.0 == closes[n].0).count()).max();
    let step = many().div_ceil(50);
    assert!(batch.is_some_and(|batch| batch <= 2 * step), "in batches of about {step}: {batch:?}");
    let (drained, _) = world.drained[0];
    assert!(drained.since(from) <= s(12), "the limit, and a close handshake: {:?}", drained.since(from));
    assert_eq!(world.up(), many(), "{:?}", world.missing());
    for (payload, fate) in &world.fates {
        assert_eq!((fate.ended, fate.done, fate.doubled), (1, true, 0), "{payload}: {fate:?}");
    }
    let busiest = world.busiest(from);
    let refused = world.dials[dials..].iter().filter(|(.., admitted)| !admitted).count();
    let last = world.ups[ups..].iter().map(|(at, _)| at.since(from)).max();
    println!(
        "drained in {:?}: {busiest} in the busiest 100 ms, {} dials, {refused} refused, the last up after {last:?}",
        drained.since(from),
        world.dials.len() - dials,
    );
    assert!(busiest * 3 <= after_a_kill(false).0, "{busiest}");
}

/// (e) U5, U6: one that stopped reading moves nobody's broadcast by a microsecond, and is disconnected for it.
#[test]
fn u5_a_reader_that_stopped_delays_nobody() {
    let heard = |stops: bool| {
        let mut world = settled(fleet());
        let broken = many() / 2;
        if stops {
            world.stop_reading(broken);
        }
        for n in 0..40 {
            world.publish();
            world.tell(n % many());
            world.run(ms(500));
        }
        world.run(s(20));
        assert_eq!(world.hub().health().connections, many() - usize::from(stops));
        let mut heard = world.heard;
        heard.retain(|(n, ..)| *n != broken);
        heard
    };
    let (with, without) = (heard(true), heard(false));
    assert_eq!(with.len(), 40 * (many() - 1));
    assert!(with == without);
}
