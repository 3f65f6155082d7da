use super::*;
use crate::reason::{CloseMatch, TlsFault};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn rng() -> SplitMix64 {
    SplitMix64::new(9)
}

fn dialer() -> Link {
    started(LinkConfig::DEFAULT)
}

fn started(config: LinkConfig) -> Link {
    let mut link = Link::new(config);
    link.start(at(0));
    link
}

fn acceptor() -> Link {
    started(LinkConfig { role: Role::Acceptor, ..LinkConfig::DEFAULT })
}

/// Dials when it is time to, and is open at once.
fn open(link: &mut Link, rng: &mut SplitMix64) -> (Instant, LinkId) {
    let mut now = Instant::ZERO;
    if link.state() == LinkState::Waiting {
        now = retry(link).unwrap();
        link.tick(now, rng);
    }
    let id = link.take_connect().unwrap();
    assert!(link.on_up(now, id));
    (now, id)
}

fn retry(link: &Link) -> Option<Instant> {
    if let Phase::Waiting { retry } = &link.phase { retry.at() } else { None }
}

fn blocked(link: &Link) -> bool {
    link.blocked_since().is_some()
}

/// Ends what there is and says how long it waits then; `None`: it has failed.
fn end(link: &mut Link, now: Instant, reason: Reason, rng: &mut SplitMix64) -> Option<Duration> {
    let held = link.held().unwrap();
    assert!(link.on_down(now, held, reason, RetryHint::NONE, rng));
    let waits = retry(link).map(|at| at.since(now));
    assert_eq!(waits.is_none(), link.state() == LinkState::Failed);
    waits
}

/// Opens and ends it by `reason`, so often as it takes to fail, ten times at most.
fn tries(config: LinkConfig, reason: Reason) -> usize {
    let (mut link, mut rng) = (started(config), rng());
    (1..=10)
        .find(|_| {
            let (now, _) = open(&mut link, &mut rng);
            end(&mut link, now, reason, &mut rng).is_none()
        })
        .unwrap_or(usize::MAX)
}

/// However the server goes: by a reset it takes all of its clients along, too.
#[test]
fn b2_the_window_spreads_the_first_attempt_after_a_restart_and_after_a_loss() {
    let hint = RetryHint { after: Duration::ZERO, window: 60 * SECOND };
    for reason in [Reason::Closed(1012), Reason::Closed(1006), Reason::Closed(1001)] {
        let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
        for seed in 0..200 {
            let (mut link, mut rng) = (dialer(), SplitMix64::new(seed));
            for delays in [&mut firsts, &mut seconds] {
                let (now, id) = open(&mut link, &mut rng);
                assert!(link.on_down(now, id, reason, hint, &mut rng));
                delays.push(retry(&link).unwrap().since(now));
            }
        }
        let tenths: std::collections::BTreeSet<_> = firsts.iter().map(|delay| delay.as_secs() / 6).collect();
        assert!(tenths.len() >= 10, "{reason:?}: {tenths:?}");
        assert!(seconds.iter().all(|delay| *delay <= 3 * SECOND), "{reason:?}: the second is the back-off's");
    }
}

#[test]
fn b3_open_alone_clears_nothing() {
    let (mut link, mut rng) = (dialer(), rng());
    for failures in 1..20 {
        let (now, _) = open(&mut link, &mut rng);
        let _ = end(&mut link, now.after(SECOND), Reason::Closed(1006), &mut rng);
        assert_eq!(link.backoff.failures(), failures, "opens, then dies");
    }
}

#[test]
fn b3_the_counter_is_cleared_by_useful_traffic_and_five_seconds_in_either_order() {
    for useful_first in [true, false] {
        let (mut link, mut rng) = (dialer(), rng());
        let _ = end(&mut link, at(0), Reason::PortClosed, &mut rng);
        let (now, _) = open(&mut link, &mut rng);
        if useful_first {
            link.on_useful();
            assert_eq!(link.backoff.failures(), 1, "useful, but too young");
        }
        link.tick(now.after(5 * SECOND), &mut rng);
        if !useful_first {
            assert_eq!(link.backoff.failures(), 1, "old, but of no use");
            link.on_useful();
        }
        assert_eq!(link.backoff.failures(), 0);
    }
}

#[test]
fn b3_it_must_have_lived_longer_than_the_last_delay() {
    let (mut link, mut rng) = (dialer(), rng());
    let hint = RetryHint::after(60 * SECOND);
    let id = link.take_connect().unwrap();
    assert!(link.on_down(at(0), id, Reason::Status(503), hint, &mut rng));
    let (now, _) = open(&mut link, &mut rng);
    link.on_useful();
    link.tick(now.after(59 * SECOND), &mut rng);
    assert_eq!(link.backoff.failures(), 1);
    link.tick(now.after(62 * SECOND), &mut rng);
    assert_eq!(link.backoff.failures(), 0);
}

#[test]
fn b4_a_servers_hint_is_a_lower_bound_for_the_next_attempt() {
    let (mut link, mut rng) = (dialer(), rng());
    let id = link.take_connect().unwrap();
    assert!(link.on_down(at(0), id, Reason::Status(503), RetryHint::after(40 * SECOND), &mut rng));
    assert!(retry(&link) >= Some(at(40)));
}

/// The hub gives each refused dialer a slot of its own; the dialer's part is to come back in it and not before.
#[test]
fn b5_a_refused_dialer_comes_back_in_its_own_slot() {
    for (status, slot) in [(503, 4), (503, 9), (429, 30)] {
        let (mut link, mut rng) = (dialer(), rng());
        let attempt = link.take_connect().unwrap();
        let hint = RetryHint::after(SECOND * slot);
        assert!(link.on_down(at(0), attempt, Reason::Status(status), hint, &mut rng));
        let waits = retry(&link).unwrap().since(at(0));
        let spread = SECOND * if status == 429 { 4 } else { 1 };
        assert!(waits >= SECOND * slot && waits <= SECOND * slot + spread, "{waits:?}");
    }
}

#[test]
fn b6_gonkas_not_running_yet_is_a_wait_of_three_to_five_seconds_for_ever() {
    let (mut link, mut rng) = (started(crate::GONKA_API_NODE.link), rng());
    for _ in 0..200 {
        let (now, _) = open(&mut link, &mut rng);
        let waits = end(&mut link, now, Reason::Closed(1008), &mut rng).expect("it waits, it does not fail");
        assert!((3 * SECOND..=5 * SECOND).contains(&waits), "{waits:?}");
        assert!(!blocked(&link));
    }
    assert_eq!(link.backoff.failures(), 0, "nothing is wrong");
}

#[test]
fn b7_one_deadline_over_the_whole_attempt_greeting_included() {
    let (mut link, mut rng) = (started(LinkConfig { ready: Ready::Hello, ..LinkConfig::DEFAULT }), rng());
    let id = link.take_connect().unwrap();
    assert!(link.on_up(at(9), id));
    assert_eq!(link.state(), LinkState::Handshaking);
    assert_eq!((link.current(), link.listening()), (None, Some(id)), "open is not ready");
    link.tick(at(10), &mut rng);
    assert_eq!(link.take_ending(), Some((id, Ending::Drop)));
    assert_eq!(link.ended(), Some((id, Reason::Timeout)));
    assert_eq!(link.state(), LinkState::Waiting);
}

#[test]
fn b7_a_hung_attempt_ends_and_its_late_success_is_refused() {
    let (mut link, mut rng) = (dialer(), rng());
    let hung = link.take_connect().unwrap();
    assert_eq!(link.take_connect(), None, "one attempt at a time, asked for once");
    link.tick(at(10), &mut rng);
    assert_eq!(link.take_ending(), Some((hung, Ending::Drop)));
    assert!(!link.on_up(at(11), hung));
    let (_, next) = open(&mut link, &mut rng);
    assert!(next > hung);
}

#[test]
fn b8_after_two_minutes_it_is_suspended_and_tries_at_the_ceiling_for_ever() {
    let (mut link, mut rng) = (dialer(), rng());
    let mut longest = Duration::ZERO;
    let mut now = at(0);
    for _ in 0..500 {
        let waits = end(&mut link, now, Reason::PortClosed, &mut rng).expect("it never gives up");
        assert!(waits <= Duration::from_millis(30_100));
        longest = longest.max(waits);
        while link.state() == LinkState::Waiting {
            let (when, wake) = link.earliest().unwrap();
            now = when;
            link.tick(now, &mut rng);
            assert_eq!(link.suspended(), now >= at(120), "{now:?} {wake:?}");
        }
    }
    assert!(longest > 29 * SECOND);
    assert!(link.on_up(now, link.last));
    assert!(!link.suspended(), "a connection ends it");
}

#[test]
fn b8_an_outage_begins_with_the_end_of_the_connection() {
    let (mut link, mut rng) = (dialer(), rng());
    let _ = open(&mut link, &mut rng);
    link.tick(at(1000), &mut rng);
    assert!(!link.suspended());
    let _ = end(&mut link, at(1000), Reason::Closed(1006), &mut rng);
    assert_eq!(link.outage.at(), Some(at(1120)));
}

/// The tries of a test: more than any number that once was the end.
#[test]
fn b10_no_refusal_is_the_end_by_itself() {
    let closed = [1002, 1003, 1007, 1008, 1010, 3500, 4401, 4999].map(Reason::Closed);
    let answered = [200, 302, 400, 401, 403, 404, 407, 410, 426].map(Reason::Status);
    let others = [Reason::Violation, Reason::Subprotocol, Reason::Tls(TlsFault::Expired), Reason::Foreign(401)];
    for reason in closed.into_iter().chain(answered).chain(others) {
        assert_eq!(tries(LinkConfig::DEFAULT, reason), usize::MAX, "{reason:?}");
    }
}

/// The failures that the back-off has counted, and the time that has passed, after this number of refusals in a row.
fn refuse(link: &mut Link, now: Instant, times: u32, rng: &mut SplitMix64) -> Instant {
    let mut now = now;
    for _ in 0..times {
        let _ = end(link, now, Reason::Status(401), rng).expect("not given up yet");
        while link.state() == LinkState::Waiting {
            now = link.earliest().unwrap().0;
            link.tick(now, rng);
        }
        if link.state() == LinkState::Failed {
            break;
        }
    }
    now
}

#[test]
fn b10_given_up_with_the_last_refusal_that_is_waited_for() {
    for most in [1, 2, 7] {
        let (mut link, mut rng) =
            (started(LinkConfig { give_up: GiveUp::Refusals(most), ..LinkConfig::DEFAULT }), rng());
        let now = refuse(&mut link, at(0), most - 1, &mut rng);
        assert_eq!(end(&mut link, now, Reason::Status(403), &mut rng), None, "{most}");
        assert_eq!(link.ended().map(|(_, reason)| reason), Some(Reason::Status(403)), "the reason can be read");
        assert_eq!((link.blocked_since().is_some(), link.earliest()), (true, None));
    }
}

#[test]
fn b10_given_up_when_the_time_is_over_and_not_before() {
    let config = LinkConfig { give_up: GiveUp::After(60 * SECOND), ..LinkConfig::DEFAULT };
    for seed in 0..50 {
        let (mut link, mut rng) = (started(config), SplitMix64::new(seed));
        // An outage is no refusal, however long.
        let _ = end(&mut link, at(0), Reason::PortClosed, &mut rng);
        while link.state() == LinkState::Waiting {
            let now = link.earliest().unwrap().0;
            link.tick(now, &mut rng);
        }
        let now = refuse(&mut link, at(1000), u32::MAX, &mut rng);
        assert_eq!((link.state(), now), (LinkState::Failed, at(1060)), "{seed}");
        assert_eq!((link.blocked_since(), link.earliest()), (Some(at(1000)), None));
    }
}

#[test]
fn b10_an_attempt_that_is_under_way_at_the_end_may_still_succeed() {
    let config = LinkConfig { give_up: GiveUp::After(60 * SECOND), attempt: 100 * SECOND, ..LinkConfig::DEFAULT };
    for useful in [true, false] {
        let (mut link, mut rng) = (started(config), rng());
        let _ = refuse(&mut link, at(0), 1, &mut rng);
        link.tick(at(60), &mut rng);
        assert_eq!(link.state(), LinkState::Connecting);
        if useful {
            let id = link.take_connect().unwrap();
            assert!(link.on_up(at(61), id));
            link.on_useful();
        }
        assert_eq!(end(&mut link, at(62), Reason::Timeout, &mut rng).is_some(), useful, "or in any way not");
    }
}

#[test]
fn l5_a_gap_is_no_time_in_which_anything_was_refused() {
    let (mut link, mut rng) =
        (started(LinkConfig { give_up: GiveUp::After(60 * SECOND), ..LinkConfig::DEFAULT }), rng());
    let _ = end(&mut link, at(0), Reason::Status(401), &mut rng);
    link.stalled(at(3600), 3 * SECOND);
    link.tick(at(3600), &mut rng);
    assert_eq!(link.state(), LinkState::Connecting);
}

#[test]
fn b10_only_refusals_in_a_row_count() {
    let config = LinkConfig { give_up: GiveUp::Refusals(3), ..LinkConfig::DEFAULT };
    for other in [Reason::PortClosed, Reason::Timeout, Reason::Status(503), Reason::Closed(1013)] {
        let (mut link, mut rng) = (started(config), rng());
        let mut now = at(0);
        for _ in 0..20 {
            assert!(end(&mut link, now, other, &mut rng).is_some(), "{other:?}");
            while link.state() == LinkState::Waiting {
                now = link.earliest().unwrap().0;
                link.tick(now, &mut rng);
            }
        }
    }
    let (mut link, mut rng) = (started(config), rng());
    for _ in 0..10 {
        let (now, _) = open(&mut link, &mut rng);
        link.on_useful();
        assert!(end(&mut link, now, Reason::Closed(1008), &mut rng).is_some(), "something useful came between them");
    }
}

#[test]
fn b10_an_application_that_wants_the_end_at_once_says_so_and_begins_anew_by_its_word() {
    const ROWS: &[CloseRule] = &[CloseRule(CloseMatch::Status(401, 401), RetryClass::Terminal)];
    let (mut link, mut rng) = (started(LinkConfig { rows: ROWS, ..LinkConfig::DEFAULT }), rng());
    assert!(end(&mut link, at(0), Reason::Status(403), &mut rng).is_some());
    link.retry_now(at(0));
    assert_eq!(end(&mut link, at(0), Reason::Status(401), &mut rng), None);
    for second in 0..1000 {
        link.tick(at(second), &mut rng);
    }
    assert_eq!((link.state(), link.take_connect()), (LinkState::Failed, None));
    link.start(at(1000));
    assert!(link.take_connect().is_some());
}

#[test]
fn r8_a_replaced_connection_is_not_dialled_again() {
    for reason in [Reason::Closed(4003), Reason::Closed(4409)] {
        assert_eq!(tries(LinkConfig::DEFAULT, reason), 1, "{reason:?}");
    }
}

#[test]
fn b_a_busy_server_counts_for_three() {
    let (mut link, mut rng) = (dialer(), rng());
    let _ = end(&mut link, at(0), Reason::Status(429), &mut rng);
    assert_eq!(link.backoff.failures(), 3);
}

#[test]
fn b_ordinary_endings_are_tried_again_for_ever() {
    for reason in [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 3000, 4000, 4499] {
        assert_eq!(tries(LinkConfig::DEFAULT, Reason::Closed(reason)), usize::MAX, "{reason}");
    }
}

#[test]
fn f4_a_message_too_large_is_not_the_connections_fault() {
    let (mut link, mut rng) = (dialer(), rng());
    for _ in 0..10 {
        let (now, _) = open(&mut link, &mut rng);
        link.on_useful();
        let waits = end(&mut link, now, Reason::Closed(1009), &mut rng).unwrap();
        assert!(waits <= Duration::from_millis(1_100), "{waits:?}");
    }
    assert_eq!(link.backoff.failures(), 0);
    assert!(!blocked(&link));
}

#[test]
fn f4_a_peer_that_calls_everything_too_large_is_not_dialled_without_end_at_once() {
    let (mut link, mut rng) = (dialer(), rng());
    for failures in 1..10 {
        let (now, _) = open(&mut link, &mut rng);
        let _ = end(&mut link, now, Reason::Closed(1009), &mut rng);
        assert_eq!(link.backoff.failures(), failures);
    }
}

#[test]
fn f5_a_refusal_blocks_the_path() {
    for status in [200, 302, 400, 401, 403, 404, 407, 426] {
        let (mut link, mut rng) = (dialer(), rng());
        assert!(end(&mut link, at(0), Reason::Status(status), &mut rng).is_some());
        assert!(blocked(&link), "{status}");
    }
    let down = [408, 409, 429, 500, 502, 503, 504].map(Reason::Status);
    for reason in down.into_iter().chain([Reason::PortClosed, Reason::Timeout, Reason::Closed(1006)]) {
        let (mut link, mut rng) = (dialer(), rng());
        let _ = end(&mut link, at(0), reason, &mut rng);
        assert!(!blocked(&link), "{reason:?} is only down");
    }
}

#[test]
fn f5_three_that_opened_and_died_before_a_useful_frame_block_the_path() {
    let with_greeting = LinkConfig { ready: Ready::Hello, ..LinkConfig::DEFAULT };
    for config in [LinkConfig::DEFAULT, with_greeting] {
        let (mut link, mut rng) = (started(config), rng());
        for life in 1..=3 {
            assert!(!blocked(&link));
            let (now, _) = open(&mut link, &mut rng);
            let _ = end(&mut link, now.after(SECOND), Reason::Closed(1006), &mut rng);
            assert_eq!(blocked(&link), life == 3, "{:?}: {life}", config.ready);
        }
    }
}

#[test]
fn u11_who_is_told_to_come_back_is_not_refused_however_often_and_never_gives_up() {
    for reason in [1012, 1013].map(Reason::Closed) {
        let mut link = started(LinkConfig { give_up: GiveUp::Refusals(2), ..LinkConfig::DEFAULT });
        let mut rng = rng();
        let mut waits = vec![];
        for _ in 0..20 {
            let (now, _) = open(&mut link, &mut rng);
            waits.push(end(&mut link, now, reason, &mut rng).expect("it has given up"));
        }
        assert!(!blocked(&link));
        assert!(waits[10..].iter().any(|wait| *wait > 15 * SECOND), "but ever more slowly: {waits:?}");
        // Refusals count as ever.
        let (now, _) = open(&mut link, &mut rng);
        assert!(end(&mut link, now, Reason::Closed(1008), &mut rng).is_some());
        let (now, _) = open(&mut link, &mut rng);
        assert_eq!(end(&mut link, now, Reason::Closed(1008), &mut rng), None);
    }
}

#[test]
fn f5_a_useful_frame_or_a_long_life_is_proof_that_nothing_blocks() {
    let (mut link, mut rng) = (dialer(), rng());
    for _ in 0..10 {
        let (now, _) = open(&mut link, &mut rng);
        link.on_useful();
        let _ = end(&mut link, now, Reason::Closed(1006), &mut rng);
        let (now, _) = open(&mut link, &mut rng);
        let long = now.after(40 * SECOND);
        link.tick(long, &mut rng);
        let _ = end(&mut link, long, Reason::Closed(1006), &mut rng);
    }
    assert!(!blocked(&link));
}

#[test]
fn p1_a_blocked_path_is_probed_more_and_more_seldom_up_to_ten_minutes() {
    let mut longest = Duration::ZERO;
    for seed in 0..50 {
        let (mut link, mut rng) = (dialer(), SplitMix64::new(seed));
        let mut now = at(0);
        for failures in 0..15_u32 {
            let waits = end(&mut link, now, Reason::Status(426), &mut rng).unwrap();
            let bound = Duration::from_secs(1 << failures.min(10)).min(600 * SECOND);
            assert!(waits <= bound + Duration::from_millis(100), "{failures}: {waits:?}");
            longest = longest.max(waits);
            now = retry(&link).unwrap();
            link.tick(now, &mut rng);
        }
    }
    assert!(longest > 500 * SECOND, "{longest:?}");
}

#[test]
fn p1_gonka_keeps_its_three_to_five_seconds_even_when_blocked() {
    let (mut link, mut rng) = (started(crate::GONKA_API_NODE.link), rng());
    let mut now = at(0);
    for _ in 0..100 {
        let waits = end(&mut link, now, Reason::Status(426), &mut rng).unwrap();
        assert!((3 * SECOND..=5 * SECOND).contains(&waits), "{waits:?}");
        now = retry(&link).unwrap();
        link.tick(now, &mut rng);
    }
}

#[test]
fn p5_the_word_to_try_now_ends_the_wait_and_forgets_what_was_learned() {
    let (mut link, mut rng) = (dialer(), rng());
    let mut now = at(0);
    while !link.suspended() {
        let _ = end(&mut link, now, Reason::Status(426), &mut rng);
        while link.state() == LinkState::Waiting {
            now = link.earliest().unwrap().0;
            link.tick(now, &mut rng);
        }
    }
    let _ = end(&mut link, now, Reason::Status(426), &mut rng);
    assert!(blocked(&link));
    link.retry_now(now);
    assert!(!blocked(&link) && !link.suspended());
    assert!(link.take_connect().is_some(), "at once");
    let waits = end(&mut link, now, Reason::PortClosed, &mut rng).unwrap();
    assert!(waits <= Duration::from_millis(1_100), "from the first delay again: {waits:?}");
    link.tick(now.after(119 * SECOND), &mut rng);
    assert!(!link.suspended());
    link.tick(now.after(120 * SECOND), &mut rng);
    assert!(link.suspended(), "but the outage is not forgotten for good");
}

#[test]
fn p5_an_operators_start_clears_the_same() {
    let (mut link, mut rng) = (dialer(), rng());
    link.tick(at(120), &mut rng);
    let _ = link.take_ending();
    assert!(link.suspended());
    link.tick(retry(&link).unwrap(), &mut rng);
    let now = at(300);
    assert_eq!(end(&mut link, now, Reason::Closed(4003), &mut rng), None);
    link.start(now);
    assert!(!link.suspended());
    assert!(end(&mut link, now, Reason::PortClosed, &mut rng).unwrap() <= Duration::from_millis(1_100));
}

#[test]
fn l8_the_close_handshake_takes_two_seconds_at_most() {
    let (mut link, mut rng) = (dialer(), rng());
    let (_, id) = open(&mut link, &mut rng);
    link.close(at(1));
    assert_eq!((link.state(), link.take_ending()), (LinkState::Closing, Some((id, Ending::Code(1000)))));
    link.tick(at(2), &mut rng);
    assert_eq!(link.state(), LinkState::Closing);
    link.tick(at(3), &mut rng);
    assert_eq!((link.state(), link.take_ending()), (LinkState::Closed, Some((id, Ending::Drop))));
    assert_eq!(link.ended(), Some((id, Reason::Ours)));
    assert_eq!(link.earliest(), None);
}

#[test]
fn l8_a_close_in_every_state_ends_closed_and_leaves_no_deadline() {
    let mut rng = rng();
    let idle = Link::new(LinkConfig::DEFAULT);
    let connecting = dialer();
    let mut waiting = dialer();
    let _ = end(&mut waiting, at(0), Reason::PortClosed, &mut rng);
    let mut failed = dialer();
    let _ = end(&mut failed, at(0), Reason::Closed(4003), &mut rng);
    let mut greeting = started(LinkConfig { ready: Ready::Hello, ..LinkConfig::DEFAULT });
    let _ = open(&mut greeting, &mut rng);
    let mut up = dialer();
    let _ = open(&mut up, &mut rng);
    let mut closing = up.clone();
    closing.close(at(0));
    let mut violated = up.clone();
    violated.abort(at(0), Reason::Violation, &mut rng);
    let mut knocked = acceptor();
    let _ = (knocked.accept(at(0)), knocked.accept(at(0)));
    for mut link in [idle, connecting, waiting, failed, greeting, up, closing, violated, knocked] {
        let before = link.state();
        link.close(at(1));
        link.tick(at(3), &mut rng);
        assert_eq!((link.state(), link.earliest()), (LinkState::Closed, None), "{before:?}");
        link.start(at(4));
        link.retry_now(at(4));
        assert_eq!((link.accept(at(4)), link.take_connect()), (Accepted::Refused, None), "closed is closed");
        assert_eq!((link.state(), link.earliest()), (LinkState::Closed, None), "{before:?}");
    }
}

#[test]
fn l8_whatever_ends_a_connection_that_we_are_closing_we_closed_it() {
    for reason in [Reason::Closed(1006), Reason::Dead, Reason::Stalled, Reason::Violation] {
        for by_abort in [true, false] {
            let (mut link, mut rng) = (dialer(), rng());
            let (_, id) = open(&mut link, &mut rng);
            link.close(at(1));
            if by_abort {
                link.abort(at(2), reason, &mut rng);
                link.tick(at(4), &mut rng);
            } else {
                assert!(link.on_down(at(2), id, reason, RetryHint::NONE, &mut rng));
            }
            assert_eq!(link.state(), LinkState::Closed, "never dialled again after a close: {reason:?}");
            assert_eq!(link.ended(), Some((id, Reason::Ours)));
        }
    }
}

#[test]
fn l9_a_peer_that_does_not_greet_lives_ten_seconds_at_most() {
    let config = LinkConfig { role: Role::Acceptor, ready: Ready::Hello, ..LinkConfig::DEFAULT };
    let (mut link, mut rng) = (started(config), rng());
    let Accepted::Open(mute) = link.accept(at(5)) else { panic!() };
    link.tick(at(14), &mut rng);
    assert_eq!(link.state(), LinkState::Handshaking);
    link.tick(at(15), &mut rng);
    assert_eq!((link.state(), link.take_ending()), (LinkState::Idle, Some((mute, Ending::Drop))));
    let Accepted::Open(second) = link.accept(at(16)) else { panic!() };
    link.on_ready(at(17));
    assert_eq!(link.current(), Some(second));
    link.tick(at(60), &mut rng);
    assert_eq!(link.current(), Some(second));
}

#[test]
fn l5_a_gap_passes_no_limit() {
    let mut rng = rng();
    let connecting = dialer();
    let mut closing = dialer();
    let _ = open(&mut closing, &mut rng);
    closing.close(at(0));
    let mut knocked = acceptor();
    let _ = (knocked.accept(at(0)), knocked.accept(at(0)));
    for mut link in [connecting, closing, knocked] {
        let before = link.state();
        link.stalled(at(3600), 3 * SECOND);
        link.tick(at(3600), &mut rng);
        assert_eq!(
            (link.state(), link.take_ending().map(|(_, how)| how)),
            (before, if before == LinkState::Closing { Some(Ending::Code(1000)) } else { None })
        );
        assert!(!link.suspended(), "{before:?}: nor is it a long outage");
        link.tick(at(3603), &mut rng);
        assert!(link.take_ending().is_some(), "{before:?}: but the grace is short");
    }
}

#[test]
fn r7_what_belongs_to_an_earlier_connection_changes_nothing() {
    let (mut link, mut rng) = (dialer(), rng());
    let (_, first) = open(&mut link, &mut rng);
    let _ = end(&mut link, at(0), Reason::Closed(1006), &mut rng);
    let (now, second) = open(&mut link, &mut rng);
    let before = link.clone();
    assert!(!link.on_down(now, first, Reason::Closed(1010), RetryHint::NONE, &mut rng));
    assert!(!link.on_up(now, first));
    assert!(!link.on_up(now, second), "nor twice");
    assert_eq!(link, before);
    assert_eq!(link.current(), Some(second));
}

#[test]
fn r7_the_adapters_word_that_it_closed_a_connection_does_not_close_the_session() {
    let (mut link, mut rng) = (dialer(), rng());
    let _ = open(&mut link, &mut rng);
    assert!(end(&mut link, at(0), Reason::Ours, &mut rng).is_some(), "only our own close ends for good");
}

#[test]
fn r7_a_knock_does_not_cost_a_living_holder_its_place() {
    let (mut link, mut rng) = (acceptor(), rng());
    let Accepted::Open(holder) = link.accept(at(0)) else { panic!() };
    let Accepted::Probing(newcomer) = link.accept(at(1)) else { panic!() };
    assert!(link.knocked());
    assert_eq!(link.accept(at(1)), Accepted::Refused, "one knocks at a time");
    link.on_heard();
    assert_eq!(link.take_refused(), Some(newcomer));
    link.tick(at(9), &mut rng);
    assert_eq!(link.current(), Some(holder));
    assert_eq!(link.take_ending(), None);
    assert!(!link.on_down(at(9), newcomer, Reason::Closed(1006), RetryHint::NONE, &mut rng));
    assert_eq!(link.current(), Some(holder));
}

#[test]
fn r7_a_zombie_loses_its_place_after_two_seconds_and_its_end_touches_nobody() {
    let (mut link, mut rng) = (acceptor(), rng());
    let Accepted::Open(zombie) = link.accept(at(0)) else { panic!() };
    let Accepted::Probing(newcomer) = link.accept(at(1)) else { panic!() };
    assert_eq!(link.earliest(), Some((at(3), Wake::Probe)));
    link.tick(at(3), &mut rng);
    assert_eq!(link.take_ending(), Some((zombie, Ending::Drop)));
    assert_eq!((link.current(), link.ended()), (Some(newcomer), Some((zombie, Reason::Replaced))));
    assert!(!link.on_down(at(4), zombie, Reason::Closed(1006), RetryHint::NONE, &mut rng));
    assert_eq!(link.current(), Some(newcomer));
}

#[test]
fn r7_a_newcomer_gets_the_place_when_its_holder_ends_by_itself_and_not_when_it_left_first() {
    let (mut link, mut rng) = (acceptor(), rng());
    let Accepted::Open(holder) = link.accept(at(0)) else { panic!() };
    let Accepted::Probing(newcomer) = link.accept(at(1)) else { panic!() };
    let mut left = link.clone();
    assert!(link.on_down(at(2), holder, Reason::Closed(1001), RetryHint::NONE, &mut rng));
    assert_eq!((link.current(), link.knocked()), (Some(newcomer), false));
    assert!(left.on_down(at(2), newcomer, Reason::Closed(1001), RetryHint::NONE, &mut rng));
    left.tick(at(9), &mut rng);
    assert_eq!((left.current(), left.take_ending()), (Some(holder), None), "nobody knocks any more");
}

#[test]
fn r7_an_acceptor_takes_the_next_peer_after_it_threw_one_out() {
    let (mut link, mut rng) = (acceptor(), rng());
    let Accepted::Open(first) = link.accept(at(0)) else { panic!() };
    link.abort(at(1), Reason::Violation, &mut rng);
    assert_eq!(link.take_ending(), Some((first, Ending::Code(1002))));
    assert_eq!(link.accept(at(1)), Accepted::Refused, "the place is not free yet");
    link.tick(at(3), &mut rng);
    assert_eq!(link.state(), LinkState::Idle);
    assert!(matches!(link.accept(at(3)), Accepted::Open(_)));
}

#[test]
fn r7_a_knock_while_the_holder_is_being_closed_is_let_in_afterwards() {
    let (mut link, mut rng) = (acceptor(), rng());
    let Accepted::Open(holder) = link.accept(at(0)) else { panic!() };
    let Accepted::Probing(newcomer) = link.accept(at(0)) else { panic!() };
    link.abort(at(1), Reason::Violation, &mut rng);
    assert!(link.on_down(at(1), holder, Reason::Closed(1002), RetryHint::NONE, &mut rng));
    assert_eq!(link.current(), Some(newcomer));
    assert_eq!(link.ended(), Some((holder, Reason::Violation)));
}

#[test]
fn s7_after_a_violation_ever_more_slowly() {
    let mut longest = Duration::ZERO;
    for seed in 0..30 {
        let (mut link, mut rng) = (dialer(), SplitMix64::new(seed));
        for failures in 1..15 {
            let (now, id) = open(&mut link, &mut rng);
            link.abort(now, Reason::Violation, &mut rng);
            assert_eq!(link.take_ending(), Some((id, Ending::Code(1002))));
            let waits = end(&mut link, now, Reason::Closed(1002), &mut rng).expect("nobody gives up");
            assert_eq!(link.ended(), Some((id, Reason::Violation)), "our reason, not the echo of it");
            assert_eq!((link.backoff.failures(), blocked(&link)), (failures, true));
            longest = longest.max(waits);
        }
    }
    assert!(longest > 500 * SECOND, "{longest:?}");
}

#[test]
fn t4_even_with_no_delays_at_all_a_deadline_lies_in_the_future() {
    let hasty = LinkConfig {
        stable: Duration::ZERO,
        backoff: BackoffConfig::range(Duration::ZERO, Duration::ZERO),
        ..LinkConfig::DEFAULT
    };
    let (mut link, mut rng) = (started(hasty), rng());
    for _ in 0..10 {
        let (now, _) = open(&mut link, &mut rng);
        assert!(link.earliest().unwrap().0 > now);
        assert!(end(&mut link, now, Reason::PortClosed, &mut rng).unwrap() > Duration::ZERO);
    }
}

#[test]
fn b_a_profiles_own_rows_decide_first() {
    const ROWS: &[CloseRule] = &[CloseRule(CloseMatch::Close(1006, 1006), RetryClass::Terminal)];
    assert_eq!(tries(LinkConfig { rows: ROWS, ..LinkConfig::DEFAULT }, Reason::Closed(1006)), 1);
}

#[derive(Clone, Debug)]
enum Do {
    Start,
    Accept,
    Up(u64),
    Ready,
    Down(u64, Reason),
    Heard,
    Useful,
    Abort(Reason),
    Network,
    Stalled,
    Drain,
    Wake,
    Wait(u64),
}

fn reason() -> impl Strategy<Value = Reason> {
    prop_oneof![
        3 => prop_oneof![1000..1016_u16, 3000..5000_u16].prop_map(Reason::Closed),
        1 => proptest::sample::select(vec![200, 401, 403, 404, 426, 429, 500, 503]).prop_map(Reason::Status),
        2 => proptest::sample::select(vec![Reason::PortClosed, Reason::Timeout, Reason::Dead, Reason::Violation, Reason::Ours]),
    ]
}

fn step() -> impl Strategy<Value = Do> {
    let abort = proptest::sample::select(vec![Reason::Dead, Reason::Stalled, Reason::Violation]);
    prop_oneof![
        1 => Just(Do::Start),
        3 => Just(Do::Accept),
        6 => (0..3_u64).prop_map(Do::Up),
        2 => Just(Do::Ready),
        4 => (0..4_u64, reason()).prop_map(|(back, reason)| Do::Down(back, reason)),
        1 => Just(Do::Heard),
        2 => Just(Do::Useful),
        1 => abort.prop_map(Do::Abort),
        1 => Just(Do::Network),
        1 => Just(Do::Stalled),
        4 => Just(Do::Drain),
        6 => Just(Do::Wake),
        2 => (1..8_u64).prop_map(Do::Wait),
    ]
}

/// R7, T4 and the header's invariants.
fn check(link: &Link, now: Instant) {
    let idle = matches!(link.state(), LinkState::Idle | LinkState::Up | LinkState::Failed | LinkState::Closed);
    assert!(idle || link.earliest().is_some(), "{:?} without a timer", link.phase);
    if link.state() == LinkState::Closed {
        assert_eq!((link.earliest(), link.held()), (None, None));
    }
    if let Some(candidate) = &link.candidate {
        assert!(link.held().is_some_and(|held| held < candidate.link), "whom does it wait for?");
        assert!(link.refused.is_none());
    }
    assert!(link.held() <= Some(link.last));
    assert!(!link.suspended || link.current().is_none());
    let _ = now;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn l8_after_anything_at_all_a_close_ends_within_its_bound(
        acceptor in any::<bool>(),
        greets in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..60),
        closes in 1..3,
    ) {
        let role = if acceptor { Role::Acceptor } else { Role::Dialer };
        let ready = if greets { Ready::Hello } else { Ready::Open };
        let mut link = Link::new(LinkConfig { role, ready, ..LinkConfig::DEFAULT });
        let mut rng = rng();
        let mut now = at(0);
        let mut connects: Vec<LinkId> = Vec::new();
        let back = |link: &Link, back: u64| LinkId::from_number(link.last.get().saturating_sub(back));
        for step in steps {
            match step {
                Do::Start => link.start(now),
                Do::Accept => {
                    let _ = link.accept(now);
                }
                Do::Up(n) => {
                    let id = back(&link, n);
                    let expected = matches!(link.phase, Phase::Connecting { link, .. } if link == id);
                    prop_assert_eq!(link.on_up(now, id), expected);
                }
                Do::Ready => link.on_ready(now),
                Do::Down(n, reason) => {
                    let (id, before) = (back(&link, n), link.clone());
                    if link.on_down(now, id, reason, RetryHint::NONE, &mut rng) {
                        prop_assert!(link.held() != Some(id));
                    } else {
                        prop_assert_eq!(&link, &before, "R7: a stale result moved something");
                    }
                }
                Do::Heard => link.on_heard(),
                Do::Useful => link.on_useful(),
                Do::Abort(reason) => link.abort(now, reason, &mut rng),
                Do::Network => link.retry_now(now),
                Do::Stalled => {
                    now = now.after(100 * SECOND);
                    link.stalled(now, 3 * SECOND);
                }
                Do::Drain => {
                    let _ = (link.take_ending(), link.take_refused());
                    if let Some(id) = link.take_connect() {
                        prop_assert!(connects.last().is_none_or(|last| *last < id));
                        connects.push(id);
                    }
                }
                Do::Wake => {
                    if let Some((when, _)) = link.earliest() {
                        now = now.max(when);
                        link.tick(now, &mut rng);
                        prop_assert!(link.earliest().is_none_or(|(next, _)| next > now), "T4");
                    }
                }
                Do::Wait(seconds) => {
                    now = now.after(Duration::from_secs(seconds));
                    link.tick(now, &mut rng);
                }
            }
            check(&link, now);
        }
        for _ in 0..closes {
            link.close(now);
            check(&link, now);
        }
        // Two seconds; three, if it stood still while it was closing (L5).
        link.tick(now.after(3 * SECOND), &mut rng);
        check(&link, now);
        prop_assert_eq!(link.state(), LinkState::Closed);
    }
}
