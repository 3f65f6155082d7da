//! The hub against its model, by random scripts ([`bowline_tests::sim::hub_rig`]).
//!
//! One script, with what led to a difference: `FROM=17 SEEDS=1 SHOW=1 cargo test -p bowline-tests --test hub_model -- --nocapture`.

use bowline::hub::{CloseReason, Hub, HubConfig, Identity};
use bowline::{AckWait, Instant, Origin, Reason};
use bowline_tests::sim::hub_model::Book;
use bowline_tests::sim::hub_rig::{Rig, config};
use bowline_tests::sim::{ms, s, seeds};
use core::time::Duration;

/// U1 to U8: every decision is the model's.
#[test]
fn u1_to_u8_the_hub_decides_as_its_model() {
    let mut steps = 0;
    for seed in seeds(300) {
        let script = std::panic::catch_unwind(|| {
            let mut rig = Rig::new(seed, true);
            for _ in 0..500 {
                let pause = rig.pause();
                rig.pass(pause);
                rig.step();
                rig.drain();
            }
            rig.steps
        });
        steps += script.unwrap_or_else(|panic| {
            println!("seed {seed}");
            std::panic::resume_unwind(panic)
        });
    }
    println!("{steps} steps");
}

/// A script without a model: polled a little, woken late, asleep now and then.
fn played(seed: u64) -> Rig {
    println!("seed {seed}");
    let mut rig = Rig::new(seed, false);
    for _ in 0..300 {
        match rig.choices.up_to(29) {
            0 => rig.now = rig.now.after(ms(rig.choices.up_to(20_000))),
            1..5 => rig.now = rig.now.after(ms(rig.choices.up_to(200))),
            _ => {
                let pause = rig.pause();
                rig.pass(pause);
            }
        }
        rig.step();
        match rig.choices.up_to(3) {
            0 => rig.drain(),
            1 => {}
            _ => {
                for _ in 0..rig.choices.up_to(6) {
                    let waits = rig.hub.deadline().is_some_and(|at| at <= rig.hub.now());
                    if !rig.poll(&mut Book::default()) {
                        break;
                    }
                    assert!(waits, "rule 3: what waits is announced");
                }
            }
        }
    }
    rig.drain();
    rig
}

/// G1, U1: whatever is told in whatever order, polled whenever: in the end everything has ended, once.
#[test]
fn u1_nothing_is_left_over_however_the_hub_is_polled() {
    for seed in seeds(200) {
        let mut rig = played(seed);
        // No peer ends its connection; each is ended for its silence, by its session's end or by the application.
        for (session, ..) in rig.hub.sessions().collect::<Vec<_>>() {
            if rig.one_in(2) {
                rig.hub.dismiss(rig.now, session);
                rig.drain();
            }
        }
        for conn in rig.open.clone() {
            if rig.hub.session_of(conn).is_some() {
                rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
                rig.drain();
            }
        }
        rig.pass(s(5));
        for conn in rig.open.clone() {
            rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
            rig.drain();
        }
        rig.pass(s(120));
        rig.nothing_left();
        for address in 100..105 {
            assert!(rig.hub.connect(rig.now, address).is_ok(), "U8: an address is never forgotten");
            rig.pass(s(5));
        }
    }
}

/// U9: a drain ends, at its limit at the latest (and the close handshakes after it), and counts what it abandoned.
#[test]
fn u9_a_drain_ends_whatever_it_finds() {
    for seed in seeds(200) {
        let mut rig = played(seed);
        let before = rig.books.abandoned;
        rig.hub.drain(rig.now, s(20), s(4));
        rig.drain();
        let asleep = rig.one_in(4);
        if asleep {
            let pause = ms(rig.choices.up_to(1000));
            rig.pass(pause);
            rig.now = rig.now.after(s(8));
        }
        for _ in 0..if asleep { 70 } else { 61 } {
            rig.pass(ms(100));
            rig.hub.tick(rig.now);
            let closed = rig.open.iter().filter(|conn| rig.books.over.contains(conn)).copied().collect::<Vec<_>>();
            for conn in closed {
                if rig.one_in(4) {
                    rig.hub.disconnected(rig.now, conn, Reason::Closed(1012));
                    rig.open.retain(|open| *open != conn);
                    rig.books.gone.insert(conn);
                }
            }
            rig.drain();
            // A peer that is owed nothing, and was let in because another is owed something, is closed when it has said its name.
            match rig.hub.connect(rig.now, 9) {
                Err(denied) => {
                    // At this door the limits hold as before.
                    let most = if denied.why == CloseReason::Draining { s(20) } else { s(60) };
                    assert!(
                        matches!(denied.why, CloseReason::Draining | CloseReason::Rate | CloseReason::Full),
                        "{denied:?}"
                    );
                    assert!(denied.retry_after > Duration::ZERO && denied.retry_after <= most, "{denied:?}");
                }
                Ok(conn) => {
                    rig.conns.push(conn);
                    rig.open.push(conn);
                    let wall = rig.wall();
                    assert!(rig.hub.hello(rig.now, wall, conn, Identity::from_bits(u128::MAX), None));
                    rig.drain();
                    assert!(rig.books.over.contains(&conn) && !rig.books.welcomed.contains(&conn), "L13: {conn:?}");
                }
            }
            rig.drain();
        }
        rig.nothing_left();
        assert_eq!(rig.books.drained, Some(rig.books.abandoned - before), "U9: what was abandoned is counted");
    }
}

/// G9: the hub does the same at the same time, woken at its deadlines only or every 10 ms besides.
#[test]
fn g9_sparse_equals_dense() {
    let played = |seed, dense| {
        let mut rig = Rig::new(seed, false);
        rig.hub = {
            let mut config = config(seed);
            // With everything that has a timer.
            config.session.heartbeat = HubConfig::DEFAULT.session.heartbeat;
            config.session.outbox.ack_wait = AckWait::ADAPTIVE;
            Hub::new(config.check().unwrap(), seed, Origin::new(1 << 32, 1), Instant::ZERO)
        };
        (rig.dense, rig.log) = (dense, Some(Vec::new()));
        for _ in 0..150 {
            let pause = rig.pause();
            rig.pass(pause);
            rig.step();
            rig.drain();
        }
        rig.hub.drain(rig.now, s(20), s(4));
        rig.drain();
        rig.pass(s(10));
        rig.log.unwrap_or_default()
    };
    for seed in seeds(40) {
        let (sparse, dense) = (played(seed, false), played(seed, true));
        for (one, two) in sparse.iter().zip(&dense) {
            assert_eq!(one, two, "seed {seed}");
        }
        assert_eq!(sparse.len(), dense.len(), "seed {seed}");
    }
}
