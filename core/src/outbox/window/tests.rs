use super::*;
use crate::backoff::BackoffConfig;
use crate::ids::Origin;
use crate::outbox::{InlineOutbox, OutboxConfig, Policy, PostId, Settlement};
use crate::reason::{HttpOutcome, Reason};
use crate::rng::SplitMix64;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

const NOW: Instant = Instant::ZERO;
const ONE: LinkId = LinkId::from_number(1);

type Box8 = InlineOutbox<u32, 8>;

fn seq(n: u64) -> Seq {
    Seq::from_number(n)
}

fn take_post(outbox: &mut Box8, now: Instant, all: bool) -> Option<PostId> {
    outbox.take_post(now, all, true).map(|(post, _)| post)
}

/// A request ended; the next try needs no delay but the peer's own.
fn on_posted(outbox: &mut Box8, now: Instant, post: PostId, outcome: HttpOutcome) -> bool {
    let none = BackoffConfig::range(Duration::ZERO, Duration::ZERO);
    outbox.on_posted(now, post, outcome, &none, &mut SplitMix64::new(1))
}

/// Eight messages of ten bytes, and a peer that takes them all.
fn outbox() -> Box8 {
    let config = OutboxConfig { frame_limit: 100, post_limit: 1000, ..OutboxConfig::DEFAULT };
    let mut outbox = Box8::new(config, Origin::new(7, 1), [const { None }; 8]);
    outbox.no_credit();
    for n in 0..8 {
        outbox.push(NOW, n, 10, Policy::DEFAULT).unwrap();
    }
    assert_eq!(outbox.take_frame(NOW, ONE), None, "nobody takes anything yet");
    let _ = outbox.on_greeting(NOW, None, 64);
    outbox
}

fn frames(outbox: &mut Box8, link: LinkId) -> Vec<u64> {
    core::iter::from_fn(|| outbox.take_frame(NOW, link)).map(Seq::get).collect()
}

fn report(base: u64, arrived: u64, done: u64, win: u16) -> Report {
    Report { base: seq(base), arrived, done, rejected: 0, win }
}

#[test]
fn s10_no_number_above_the_credit_is_sent_on_any_path() {
    let mut outbox = outbox();
    let _ = outbox.on_greeting(NOW, None, 3);
    assert_eq!(frames(&mut outbox, ONE), [1, 2, 3]);
    assert_eq!(outbox.on_report(NOW, ONE, &report(1, 0b1, 0, 4), true), Ack::Settled);
    assert_eq!(frames(&mut outbox, ONE), [4, 5]);
    assert_eq!(take_post(&mut outbox, NOW, true), None, "arrived, awaited, or above");
    outbox.begin_poll();
    assert_eq!(outbox.take_polled(NOW, 1000), None);
    assert_eq!(outbox.on_report(NOW, ONE, &report(1, 0b1, 0, 0), true), Ack::Unknown);
    assert_eq!(outbox.allowed(), seq(1), "it takes no more");
    assert_eq!(outbox.on_report(NOW, ONE, &report(1, 0b1, 0, u16::MAX), true), Ack::Unknown);
    assert_eq!(outbox.allowed(), seq(64), "the window is the limit");
}

/// What came by HTTP may have been overtaken: it takes neither credit nor arrivals back, but what is completed counts.
#[test]
fn s4_marks_by_http_are_not_the_newest() {
    let mut outbox = outbox();
    assert_eq!(frames(&mut outbox, ONE).len(), 8);
    assert_eq!(outbox.on_report(NOW, ONE, &report(1, 0b11, 0, 20), true), Ack::Settled);
    assert_eq!(outbox.on_report(NOW, LinkId::NONE, &report(1, 0b101, 0b1, 1), false), Ack::Settled);
    assert_eq!((outbox.una(), outbox.allowed()), (seq(2), seq(22)));
    assert!(frames(&mut outbox, ONE).is_empty(), "2 is still there");
    assert_eq!(outbox.on_report(NOW, ONE, &report(1, 0b1, 0b1, 20), true), Ack::Unknown);
    assert_eq!(frames(&mut outbox, ONE), [2], "it was given back");
}

#[test]
fn s7_marks_of_what_was_never_sent_change_nothing() {
    let mut outbox = outbox();
    let _ = outbox.on_greeting(NOW, None, 2);
    assert_eq!(frames(&mut outbox, ONE), [1, 2]);
    let before = outbox.clone();
    for lie in [report(1, 0b100, 0, 1), report(4, 0, 0, 1), report(10, 0, 0, 1), report(u64::MAX, u64::MAX, 0, 9)] {
        assert_eq!(outbox.on_report(NOW, ONE, &lie, true), Ack::NeverSent);
        assert_eq!(outbox, before, "{lie:?}");
    }
    assert_eq!(outbox.on_nack(NOW, seq(3), Duration::ZERO), Ack::NeverSent);
    assert_eq!(outbox.on_nack(NOW, seq(u64::MAX), Duration::MAX), Ack::NeverSent);
    assert_eq!(outbox.on_nack(NOW, seq(0), Duration::ZERO), Ack::Unknown);
    assert_eq!(outbox, before);
}

/// A message too large for a frame that arrived by HTTP and is asked for again does not go by a frame.
#[test]
fn f4_what_is_too_large_stays_too_large() {
    let mut outbox =
        Box8::new(OutboxConfig { frame_limit: 100, ..OutboxConfig::DEFAULT }, Origin::new(7, 1), [const { None }; 8]);
    outbox.push(NOW, 1, 200, Policy::DEFAULT).unwrap();
    let _ = outbox.on_greeting(NOW, None, 64);
    assert_eq!(outbox.take_frame(NOW, ONE), None);
    let post = take_post(&mut outbox, NOW, false).unwrap();
    assert!(on_posted(&mut outbox, NOW, post, HttpOutcome::Unknown(Reason::Timeout)));
    assert_eq!(outbox.on_report(NOW, ONE, &report(1, 1, 0, 64), true), Ack::Settled);
    assert_eq!(outbox.on_nack(NOW, seq(1), Duration::ZERO), Ack::Settled);
    assert_eq!(outbox.take_frame(NOW, ONE), None);
    assert!(take_post(&mut outbox, NOW, false).is_some());
}

/// What was sent stays sent after it has ended: the other side has it, and would call us a liar.
#[test]
fn r1_what_was_posted_and_ended_was_sent() {
    let mut outbox = outbox();
    let posts: Vec<PostId> = core::iter::from_fn(|| take_post(&mut outbox, NOW, true)).collect();
    let _ = outbox.on_report(NOW, LinkId::NONE, &report(1, 0b1000_0000, 0b1000_0000, 64), true);
    assert!(outbox.take_settled().is_some());
    assert!(on_posted(&mut outbox, NOW, *posts.last().unwrap(), HttpOutcome::status(200)));
    assert_eq!((outbox.una(), outbox.unsent()), (seq(1), seq(9)));
}

#[test]
fn h3_what_a_poll_carried_is_carried_again_until_it_has_arrived() {
    let mut outbox = outbox();
    let carried = |outbox: &mut Box8| {
        outbox.begin_poll();
        let mut left = u32::MAX;
        let mut all = Vec::new();
        while let Some((seq, rest)) = outbox.take_polled(NOW, left) {
            left = rest;
            all.push(seq.get());
        }
        assert!(!outbox.has_polled(NOW) || left < 10);
        all
    };
    assert_eq!(carried(&mut outbox), [1, 2, 3, 4, 5, 6, 7, 8], "eighty bytes of a hundred");
    assert_eq!(outbox.on_report(NOW, LinkId::NONE, &report(1, 0b110, 0b10, 64), true), Ack::Settled);
    assert_eq!(carried(&mut outbox), [1, 4, 5, 6, 7, 8]);
    assert_eq!(outbox.on_nack(NOW, seq(3), Duration::from_secs(5)), Ack::Settled);
    assert_eq!(carried(&mut outbox), [1, 4, 5, 6, 7, 8], "not yet");
    let _ = outbox.tick(NOW.after(Duration::from_secs(5)));
    assert_eq!(carried(&mut outbox), [1, 3, 4, 5, 6, 7, 8]);
}

/// The last number there is can be sent.
#[test]
fn i2_the_last_number_is_no_other() {
    let mut outbox = outbox();
    outbox.renumber(seq(Seq::LAST.get() - 7));
    let _ = outbox.on_greeting(NOW, None, 64);
    let sent = frames(&mut outbox, ONE);
    assert_eq!(sent.last(), Some(&Seq::LAST.get()));
    let _ = outbox.on_report(NOW, ONE, &report(Seq::LAST.get() - 7, 0b1111_1111, 0b0111_1111, u16::MAX), true);
    assert_eq!((outbox.una(), outbox.allowed()), (Seq::LAST, Seq::LAST));
}

/// Any peer: whatever it says, nothing ends twice, nothing is sent above the limit, and on one connection twice only what
/// was asked for again.
#[test]
fn s4_s7_s8_s10_whatever_the_peer_says() {
    for seed in 0..300 {
        let mut rng = SplitMix64::new(seed);
        let mut outbox = outbox();
        let (mut link, mut ended, mut sent) = (ONE, BTreeSet::new(), BTreeMap::new());
        let mut again = BTreeSet::new();
        for _ in 0..200 {
            match rng.up_to(6) {
                0 => {
                    let _ = outbox.push(NOW, 0, 10, Policy::DEFAULT);
                }
                1 => {
                    while let Some(n) = outbox.take_frame(NOW, link) {
                        assert!(n <= outbox.allowed() && n.since(outbox.una()) < WINDOW, "S10: seed {seed}");
                        let before = sent.insert((link, n), ()).is_some();
                        assert!(!before || again.remove(&n), "F2: seed {seed}: {n}");
                        assert!(!ended.contains(&n), "seed {seed}");
                    }
                }
                2 | 3 => {
                    let base = outbox.una().get().saturating_sub(2) + rng.up_to(4);
                    let arrived = rng.next_u64() & 0xff;
                    let done = arrived & rng.next_u64();
                    let before = outbox.clone();
                    let told = Report { base: seq(base), arrived, done, rejected: done & rng.next_u64(), win: 40 };
                    let never = (0..70)
                        .map(|n| outbox.una().plus(n))
                        .any(|n| told.of(n).0 && !ended.contains(&n) && !sent.keys().any(|(_, sent)| *sent == n));
                    let said = outbox.on_report(NOW, link, &told, true);
                    assert_eq!(said == Ack::NeverSent, never || told.base > before.next(), "S7: seed {seed}: {told:?}");
                    assert!(said != Ack::NeverSent || outbox == before, "S7: seed {seed}");
                    if said != Ack::NeverSent {
                        again.extend((0..64).map(|n| before.una().plus(n)).filter(|n| !told.of(*n).0));
                    }
                }
                4 => {
                    let n = outbox.una().plus(rng.up_to(9));
                    if outbox.on_nack(NOW, n, Duration::ZERO) == Ack::Settled {
                        again.insert(n);
                    }
                }
                5 if rng.up_to(3) == 0 => {
                    outbox.on_link_down(None);
                    link = LinkId::from_number(link.get() + 1);
                    let _ = outbox.on_greeting(NOW, None, 20);
                    again.clear();
                }
                _ => {
                    while let Some(Settlement { seq: n, .. }) = outbox.take_settled() {
                        assert!(ended.insert(n), "G1: seed {seed}");
                    }
                }
            }
        }
    }
}
