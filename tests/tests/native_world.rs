//! Two native sessions in worlds of every kind; see `bowline_tests::sim::native` for what is promised there. `SEEDS` says
//! how many worlds of each kind, `FROM` the first.

use bowline::marks::WINDOW;
use bowline_tests::sim::native::{CLIENT, HUB, Setup, World, stormy};
use bowline_tests::sim::{at, ms, s, seeds};

/// What may go wrong on the way, by seed.
fn weather(seed: u64) -> Setup {
    Setup { lossy: seed % 4 * 10, lag: if seed.is_multiple_of(3) { ms(3000) } else { ms(20) }, ..Setup::CALM }
}

#[test]
fn s9_g1_g2_over_cuts_and_both_paths_everything_arrives_once_and_in_order() {
    let (mut by_http, mut resumed, mut worlds) = (0, 0, 0);
    for seed in seeds(100) {
        let world = stormy(seed, weather(seed), 0);
        world.books();
        by_http += world.session(CLIENT).stats().delivered_http;
        resumed += world.resumed().0;
        worlds += 1;
    }
    assert!(by_http > worlds && resumed > 0, "H3, R2: {by_http} by HTTP, {resumed} resumed");
}

#[test]
fn s9_without_order_everything_arrives_once() {
    for seed in seeds(50) {
        stormy(seed, Setup { order: false, ..weather(seed) }, 0).books();
    }
}

/// What expires while the other side is away is told as a gap, by its numbers, and what comes behind it is handed over.
#[test]
fn r5_what_expires_on_the_way_is_told_and_counted() {
    let mut missed = 0;
    for seed in seeds(80) {
        let world = stormy(seed, Setup { order: seed % 2 == 0, mortal: 30, work: ms(500), ..weather(seed) }, 0);
        world.books();
        missed += world.told(CLIENT).0 + world.told(HUB).0;
    }
    assert!(missed > 0);
}

#[test]
fn s8_what_is_rejected_or_given_back_ends_so_in_order_or_not() {
    for seed in seeds(80) {
        let setup = Setup { order: seed % 2 == 0, give_back: 20, reject: 10, ..weather(seed) };
        stormy(seed, setup, 0).books();
    }
}

/// Whoever takes one or two at a time gets everything, late.
#[test]
fn s10_a_small_receiver_is_never_stuck() {
    for seed in seeds(80) {
        let held = 1 + (seed % 5) as usize;
        let give_back = seed % 7;
        let setup = Setup { order: seed % 2 == 0, held, work: ms(200), give_back, ..weather(seed) };
        stormy(seed, setup, 0).books();
    }
}

/// With a memory goes what only it knew, and nothing else: nothing is passed off as new, and the loss is told.
#[test]
fn r4_r5_whoever_loses_its_memory_is_not_believed_to_be_who_it_was() {
    let (mut doubtful, mut lost, mut reasons) = (0, 0, std::collections::BTreeSet::new());
    for seed in seeds(150) {
        let mut setup = Setup { order: seed % 2 == 0, work: ms(300), ..weather(seed) };
        if seed % 5 == 0 {
            setup = Setup { mortal: 20, give_back: 5, reject: 5, held: 3, ..setup };
        }
        let world = stormy(seed, setup, 1 + seed % 3);
        world.books();
        for party in [CLIENT, HUB] {
            lost += world.told(party).1;
            doubtful += world.told(party).2;
        }
        reasons.extend(world.reasons().clone());
    }
    assert!(doubtful > 0 && lost > 0 && reasons.contains("unknown_session"), "{doubtful} {lost} {reasons:?}");
}

#[test]
fn l8_a_close_ends_whatever_is_under_way() {
    for seed in seeds(60) {
        let mut world = World::new(seed, Setup { work: s(2), lossy: 10, ..weather(seed) });
        for n in 0..100 {
            world.send_after(ms(n * 20), (n % 2) as usize);
        }
        if seed % 2 == 0 {
            world.block_after(ms(500), s(20));
        }
        world.run(at(ms(1000 + seed % 10 * 200)));
        world.close();
    }
}

/// G9, rule 4: called at the deadlines only, or at any time besides.
#[test]
fn g9_sparse_equals_dense() {
    for seed in seeds(30) {
        let setup = Setup { mortal: 10, give_back: 5, reject: 5, ..weather(seed) };
        let digest = |spurious| stormy(seed, Setup { spurious, ..setup }, seed % 2).digest();
        assert_eq!(digest(false), digest(true), "seed {seed}");
    }
}

#[test]
fn r2_after_a_cut_only_what_is_missing_crosses_again() {
    let mut world = World::new(5, Setup::CALM);
    for n in 0..500 {
        world.send_after(ms(100 + n * 2), CLIENT);
    }
    world.cut_after(ms(600));
    world.run(at(s(60)));
    world.books();
    let (frames, messages) = world.frames(CLIENT);
    assert!(frames - messages <= WINDOW, "{} frames more than messages", frames - messages);
    assert_eq!(world.resumed(), (1, 0));
}

#[test]
fn s10_nobody_sends_more_than_the_other_takes() {
    let mut world = World::new(6, Setup { work: s(10_000), ..Setup::CALM });
    for n in 0..100 {
        world.send_after(ms(n), CLIENT);
    }
    // As good as nothing is completed: the hub's application sits on all of it.
    world.run(at(s(5)));
    let done = world.session(CLIENT).stats().delivered_websocket;
    let (frames, _) = world.frames(CLIENT);
    assert_eq!(world.session(HUB).held() as u64, frames - done);
    assert_eq!(world.session(CLIENT).backlog(), 100 - done as usize);
    assert!(frames <= WINDOW + done, "{frames}");
}
