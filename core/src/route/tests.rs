use super::*;
use crate::reason::{Reason, TlsFault};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const SECOND: Duration = Duration::from_secs(1);
const BUSY: HttpOutcome = HttpOutcome::status(503).with_after(Duration::ZERO);

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn rng() -> SplitMix64 {
    SplitMix64::new(4)
}

fn config() -> RouteConfig {
    RouteConfig { http: true, ..RouteConfig::DEFAULT }
}

fn started(config: RouteConfig) -> Route {
    let mut route = Route::new(config);
    route.start(at(0));
    route
}

/// The first connection came up at 0.
fn up(config: RouteConfig) -> Route {
    let mut route = started(config);
    assert!(!route.link_up(at(0)), "the first is not probed");
    route
}

/// It was lost at 100, and the grace is over: traffic on HTTP from 102 on.
fn on_http() -> Route {
    let mut route = up(config());
    route.link_down(at(100));
    route.tick(at(102));
    assert_eq!((route.path(), route.may_frame()), (Path::Http, false));
    route
}

/// Sends nothing but ticks, at every timer, until then.
fn run(route: &mut Route, until: Instant) {
    while let Some((when, _)) = route.earliest().filter(|(when, _)| *when <= until) {
        route.tick(when);
        assert!(route.earliest().is_none_or(|(next, _)| next > when), "T4");
    }
}

#[test]
fn f0_a_connection_carries() {
    let mut route = up(config());
    assert_eq!((route.path(), route.may_frame()), (Path::WebSocket, true));
    run(&mut route, at(10_000));
    assert_eq!(route.path(), Path::WebSocket);
}

#[test]
fn f1_without_a_connection_messages_wait_for_the_grace_and_go_by_http_then() {
    let mut route = started(config());
    route.tick(Instant::from_micros(1_999_999));
    assert_eq!(route.path(), Path::WebSocket);
    assert_eq!(route.earliest(), Some((at(2), Wake::Path)));
    route.tick(at(2));
    assert_eq!(route.path(), Path::Http);
    let mut again = up(config());
    again.link_down(at(50));
    assert_eq!(again.earliest(), Some((at(52), Wake::Path)), "and after a loss too");
}

#[test]
fn f1_a_connection_within_the_grace_keeps_the_path() {
    let mut route = up(config());
    for second in 50..60 {
        route.link_down(at(second));
        assert!(!route.link_up(at(second).after(SECOND / 2)));
        run(&mut route, at(second).after(SECOND / 2));
        assert_eq!(route.path(), Path::WebSocket);
    }
}

#[test]
fn f1_gonka_waits_for_nothing() {
    let mut route = up(crate::GONKA_ML_NODE.route);
    route.link_down(at(9));
    assert_eq!(route.path(), Path::Http);
}

#[test]
fn f1_a_second_start_does_not_prolong_the_grace() {
    let mut route = started(config());
    route.start(at(1));
    route.tick(at(2));
    assert_eq!(route.path(), Path::Http);
}

#[test]
fn f3_hedges_end_at_half_of_the_budget_and_successes_earn_them_back() {
    let mut route = up(config());
    assert_eq!((0..20).filter(|_| route.hedge(at(0))).count(), 5);
    for _ in 0..9 {
        route.answered(at(0));
    }
    assert_eq!((0..20).filter(|_| route.hedge(at(0))).count(), 1, "a tenth each, the ninth after the first above half");
    for _ in 0..1000 {
        route.posted(at(0), RequestKind::Message, HttpOutcome::status(200), &mut rng());
    }
    assert_eq!(route.budget(), BUDGET, "never more than at first");
}

#[test]
fn f3_a_message_that_nobody_answers_gets_its_hedge_in_time_even_from_an_empty_budget() {
    let mut route = up(config());
    while route.hedge(at(0)) {}
    let (when, wake) = route.earliest().unwrap();
    assert_eq!((when, wake), (at(10), Wake::Http));
    run(&mut route, when);
    assert!(route.hedge(when));
    assert!(!route.hedge(when), "one");
}

#[test]
fn f6_gonka_hedges_whatever_the_budget_says_and_only_reports_it() {
    let mut route = up(crate::GONKA_ML_NODE.route);
    assert!((0..1000).all(|_| route.hedge(at(0))));
    assert!(route.budget() <= HEDGE_FLOOR);
    assert_eq!(route.earliest(), None);
}

#[test]
fn f7_with_both_paths_down_it_keeps_trying_http() {
    let (mut route, mut rng) = (on_http(), rng());
    let mut now = at(200);
    for _ in 0..50 {
        assert!(route.may_post(0));
        route.posted(now, RequestKind::Message, HttpOutcome::Unreached(Reason::PortClosed), &mut rng);
        assert_eq!((route.path(), route.http_failing(), route.may_post(0)), (Path::Http, true, false));
        let (when, wake) = route.earliest().unwrap();
        assert_eq!(wake, Wake::Http);
        assert!(when > now && when <= now.after(Duration::from_millis(30_100)));
        now = when;
        route.tick(now);
    }
}

#[test]
fn h_acked_in_progress_and_rejected_are_answers_the_path_is_good() {
    let answers = [HttpOutcome::status(200), HttpOutcome::status(409).with_after(SECOND), HttpOutcome::status(422)];
    for outcome in answers {
        let (mut route, mut rng) = (on_http(), rng());
        route.posted(at(200), RequestKind::Message, HttpOutcome::Unreached(Reason::PortClosed), &mut rng);
        run(&mut route, at(300));
        assert!(route.may_repeat(0) && !route.may_repeat(1), "one request at a time, until it is proven");
        assert!(route.may_post(1) && !route.may_post(2), "H7: but for a first try");
        route.posted(at(300), RequestKind::Message, outcome, &mut rng);
        assert!(!route.http_failing() && route.may_post(3) && !route.may_post(4), "{outcome:?}");
    }
}

#[test]
fn h_busy_unreached_and_unknown_wait_the_back_off() {
    for outcome in [BUSY, HttpOutcome::Unreached(Reason::PortClosed), HttpOutcome::Unknown(Reason::Timeout)] {
        let (mut route, mut rng) = (on_http(), rng());
        route.posted(at(200), RequestKind::Message, outcome, &mut rng);
        let (when, _) = route.earliest().unwrap();
        assert!(when <= at(200).after(Duration::from_millis(1_100)), "{outcome:?}: {when:?}");
    }
}

#[test]
fn h_requests_that_fail_together_count_as_one_failure() {
    for seed in 0..100 {
        let (mut route, mut rng) = (on_http(), SplitMix64::new(seed));
        for _ in 0..4 {
            route.posted(at(200), RequestKind::Message, HttpOutcome::Unknown(Reason::Timeout), &mut rng);
        }
        assert_eq!(route.backoff.failures(), 1);
        run(&mut route, at(202));
        assert!(route.may_post(0));
    }
}

#[test]
fn h_the_time_that_a_busy_peer_asks_for_is_a_lower_bound_whatever_the_other_requests_say() {
    let (mut route, mut rng) = (on_http(), rng());
    route.posted(at(200), RequestKind::Message, HttpOutcome::status(503).with_after(40 * SECOND), &mut rng);
    // These were under way already.
    route.posted(at(201), RequestKind::Message, HttpOutcome::Unreached(Reason::PortClosed), &mut rng);
    route.posted(at(202), RequestKind::Message, HttpOutcome::status(200), &mut rng);
    route.posted(at(203), RequestKind::Message, HttpOutcome::status(503).with_after(SECOND), &mut rng);
    route.posted(at(203), RequestKind::Message, HttpOutcome::status(401), &mut rng);
    run(&mut route, at(239));
    assert!(!route.may_post(0));
    run(&mut route, at(260));
    assert!(route.may_post(0));
    assert!(!route.may_repeat(1), "and then one at a time");
}

/// As the WebSocket's: see `b10_no_refusal_is_the_end_by_itself` there.
#[test]
fn b10_what_refuses_is_asked_ever_more_seldom_up_to_ten_minutes() {
    let tls = HttpOutcome::Unreached(Reason::Tls(TlsFault::Expired));
    let refusals = [401, 403, 407, 302].map(HttpOutcome::status).into_iter();
    for outcome in refusals.chain([HttpOutcome::foreign(200), HttpOutcome::foreign(401), tls]) {
        let (mut route, mut rng) = (on_http(), rng());
        let mut now = at(200);
        let mut waits = Vec::new();
        for _ in 0..200 {
            route.posted(now, RequestKind::Message, outcome, &mut rng);
            let (when, _) = route.earliest().unwrap();
            waits.push(when.since(now));
            now = when;
            route.tick(now);
        }
        assert!(waits[0] <= Duration::from_millis(1_100), "{outcome:?}: the first is soon");
        let longest = waits.into_iter().max().unwrap();
        assert!(longest > 550 * SECOND && longest <= Duration::from_millis(600_100), "{outcome:?}: {longest:?}");
        assert_eq!(route.blocked_since(), Some(at(200)));
    }
}

#[test]
fn b10_what_is_busy_or_away_is_asked_every_thirty_seconds_at_most_and_is_not_blocked() {
    let busy = [429, 500, 502, 503, 504].map(HttpOutcome::status).into_iter();
    for outcome in busy.chain([HttpOutcome::Unreached(Reason::PortClosed), HttpOutcome::Unknown(Reason::Timeout)]) {
        let (mut route, mut rng) = (on_http(), rng());
        let mut now = at(200);
        for _ in 0..200 {
            route.posted(now, RequestKind::Poll, outcome, &mut rng);
            let (when, _) = route.earliest().unwrap();
            assert!(when.since(now) <= Duration::from_millis(30_100), "{outcome:?}");
            now = when;
            route.tick(now);
        }
        assert_eq!(route.blocked_since(), None);
    }
}

/// Fails until a request may leave again, so many times; says how many failures are counted then.
fn failures(route: &mut Route, kind: RequestKind, outcome: HttpOutcome, times: u32) -> u32 {
    for _ in 0..times {
        let now = route.earliest().map_or(at(200), |(when, _)| when);
        route.tick(now);
        route.posted(now, kind, outcome, &mut rng());
    }
    route.backoff.failures()
}

#[test]
fn b11_every_kind_of_request_charges_the_one_back_off() {
    let mut route = on_http();
    for (n, kind) in (1..).zip([RequestKind::Greeting, RequestKind::Poll, RequestKind::Message]) {
        assert_eq!(failures(&mut route, kind, BUSY, 1), n, "{kind:?}");
    }
    // What delays one message, and no other, is a failure of a question.
    for status in [400, 404, 409, 410, 413, 422, 500] {
        for (kind, fails) in [(RequestKind::Message, 0), (RequestKind::Greeting, 1), (RequestKind::Poll, 1)] {
            let counted = failures(&mut on_http(), kind, HttpOutcome::status(status), 1);
            assert_eq!(counted, fails, "{status} {kind:?}");
        }
    }
}

#[test]
fn b11_the_success_of_another_kind_clears_nothing() {
    let mut route = on_http();
    assert_eq!(failures(&mut route, RequestKind::Message, HttpOutcome::status(401), 5), 5);
    let now = route.earliest().unwrap().0;
    route.posted(now, RequestKind::Poll, HttpOutcome::status(200), &mut rng());
    route.tick(now);
    for kind in [RequestKind::Poll, RequestKind::Greeting] {
        route.posted(now, kind, HttpOutcome::status(200), &mut rng());
        assert_eq!((route.backoff.failures(), route.http_failing(), route.blocked_since()), (5, true, Some(at(200))));
        assert!(!route.may_repeat(1), "one at a time");
    }
    route.posted(now, RequestKind::Message, HttpOutcome::status(404), &mut rng());
    assert_eq!((route.backoff.failures(), route.http_failing(), route.blocked_since()), (0, false, None));
}

#[test]
fn b11_no_more_leave_while_http_fails_than_at_any_other_time() {
    let mut route = Route::new(RouteConfig { http: true, posts: 1, ..RouteConfig::DEFAULT });
    assert!(route.may_post(0) && !route.may_post(1));
    route.posted(at(1), RequestKind::Message, BUSY, &mut rng());
    route.tick(route.earliest().unwrap().0);
    assert!(route.may_post(0) && !route.may_post(1));
}

#[test]
fn b11_a_go_betweens_answer_proves_nothing() {
    for status in [400, 404, 409, 410, 413, 422, 500] {
        let mut route = on_http();
        assert_eq!(failures(&mut route, RequestKind::Message, BUSY, 3), 3);
        let now = route.earliest().unwrap().0;
        route.tick(now);
        route.posted(now, RequestKind::Message, HttpOutcome::foreign(status), &mut rng());
        assert_eq!((route.backoff.failures(), route.http_failing()), (3, true), "{status}");
        assert!(route.may_post(0), "nor does it charge anything");
    }
}

#[test]
fn h9_repetitions_leave_at_a_limited_rate() {
    let mut route = on_http();
    let repeat = |route: &mut Route, now| {
        let mut left = 0;
        while route.may_repeat(0) {
            route.repeats(now);
            left += 1;
        }
        left
    };
    assert_eq!(repeat(&mut route, at(200)), 8, "a burst");
    assert_eq!(route.earliest(), Some((at(201), Wake::Http)), "and it is told when there is another one");
    for second in 201..300 {
        route.tick(at(second));
        assert_eq!(repeat(&mut route, at(second)), 1, "then one a second");
    }
    route.tick(at(303));
    assert_eq!(repeat(&mut route, at(303)), 4);
    route.tick(at(400));
    assert_eq!(repeat(&mut route, at(400)), 8, "and no more than at first, however long it rested");
    route.retry_now(at(400));
    assert!(route.may_repeat(0) && route.earliest().is_none());
}

#[test]
fn p1_while_http_carries_nothing_but_a_connection_brings_traffic_back() {
    let mut route = on_http();
    run(&mut route, at(100_000));
    assert_eq!(route.path(), Path::Http);
}

#[test]
fn p2_a_new_connection_is_probed_and_traffic_stays_until_it_was_heard() {
    let mut route = on_http();
    assert!(route.link_up(at(200)), "ask it");
    run(&mut route, at(1000));
    assert_eq!((route.path(), route.may_frame()), (Path::Http, false), "open, and mute");
    route.heard(at(1001));
    assert_eq!((route.path(), route.may_frame()), (Path::WebSocket, true), "it has been up long enough");
}

#[test]
fn p3_back_after_two_stable_seconds() {
    let mut route = on_http();
    let _ = route.link_up(at(200));
    route.heard(at(200));
    assert_eq!(route.earliest(), Some((at(202), Wake::Path)));
    assert_eq!(route.path(), Path::Http);
    route.tick(at(202));
    assert_eq!(route.path(), Path::WebSocket);
}

#[test]
fn p3_a_connection_that_dies_while_it_is_probed_changes_nothing() {
    let mut route = on_http();
    for second in 200..300 {
        assert!(route.link_up(at(second)));
        route.heard(at(second));
        route.link_down(at(second).after(SECOND));
        run(&mut route, at(second).after(SECOND));
        assert_eq!(route.path(), Path::Http);
    }
    assert_eq!(route.flaps, 0, "it never carried");
}

/// Promotes at `now` as soon as it may; says how long that took.
fn promote(route: &mut Route, now: Instant) -> Duration {
    let _ = route.link_up(now);
    route.heard(now);
    while route.path() == Path::Http {
        let (when, _) = route.earliest().unwrap();
        route.tick(when);
        if route.path() == Path::WebSocket {
            return when.since(now);
        }
    }
    Duration::ZERO
}

#[test]
fn p3_each_flap_doubles_the_stability_up_to_five_minutes() {
    let mut route = on_http();
    let mut now = at(200);
    let mut waits = Vec::new();
    for _ in 0..10 {
        let waited = promote(&mut route, now);
        waits.push(waited.as_secs());
        now = now.after(waited).after(20 * SECOND);
        route.link_down(now);
        now = now.after(20 * SECOND);
        run(&mut route, now);
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    let waited = promote(&mut route, now);
    now = now.after(waited).after(61 * SECOND);
    route.link_down(now);
    run(&mut route, now.after(20 * SECOND));
    assert_eq!(promote(&mut route, now.after(20 * SECOND)), 2 * SECOND, "a minute on the path ends it");
}

#[test]
fn p3_two_unanswered_waits_in_a_row_move_traffic_away_one_does_not() {
    let mut route = up(config());
    assert!(!route.unanswered(at(100)));
    route.answered(at(100));
    assert!(!route.unanswered(at(101)));
    assert_eq!(route.path(), Path::WebSocket);
    assert!(route.unanswered(at(102)));
    assert_eq!((route.path(), route.may_frame()), (Path::Http, false));
    route.heard(at(103));
    route.spoken(at(104));
    run(&mut route, at(112));
    assert_eq!(route.path(), Path::WebSocket, "and it comes back, if something is acknowledged");
    assert!(!route.unanswered(at(113)), "two in a row again");
}

/// A connection whose peer answers pings and acknowledges nothing costs a wait every five minutes, not every other minute.
#[test]
fn p3_to_a_mute_connection_traffic_returns_seldom_and_on_trial() {
    let mut route = up(config());
    let _ = route.unanswered(at(100));
    assert!(route.unanswered(at(102)));
    for second in 103..402 {
        route.heard(at(second));
        route.tick(at(second));
        assert_eq!(route.path(), Path::Http, "{second}: a pong says nothing about the program");
    }
    assert!(!route.may_try());
    for second in [402, 750] {
        run(&mut route, at(second));
        assert!(route.may_try() && !route.may_frame(), "one message, while the others go by HTTP");
        route.tried(at(second));
        assert!(!route.may_try() && !route.unanswered(at(second + 45)));
        assert_eq!(route.path(), Path::Http);
    }
    let mut answers = route.clone();
    answers.spoken(at(800));
    run(&mut answers, at(803));
    assert_eq!(answers.path(), Path::WebSocket, "it was answered");
    route.link_down(at(804));
    let _ = route.link_up(at(805));
    route.heard(at(805));
    run(&mut route, at(820));
    assert_eq!(route.path(), Path::WebSocket, "another connection begins anew");
}

#[test]
fn p3_without_http_there_is_nowhere_to_go() {
    let mut route = up(RouteConfig::DEFAULT);
    for second in 0..100 {
        assert!(!route.unanswered(at(second)));
        assert!(!route.hedge(at(second)) && !route.may_post(0));
    }
    route.link_down(at(100));
    assert_eq!((route.path(), route.earliest()), (Path::WebSocket, None));
    assert!(!route.link_up(at(101)));
    assert!(route.may_frame());
}

#[test]
fn p3_away_from_a_mute_connection_only_if_http_is_not_failing() {
    let (mut route, mut rng) = (up(config()), rng());
    route.posted(at(100), RequestKind::Message, HttpOutcome::status(503).with_after(60 * SECOND), &mut rng);
    for second in 100..110 {
        assert!(!route.unanswered(at(second)));
    }
    assert_eq!(route.path(), Path::WebSocket);
}

#[test]
fn p4_at_least_ten_seconds_on_http() {
    let mut route = on_http();
    let _ = route.link_up(at(103));
    route.heard(at(103));
    run(&mut route, at(111));
    assert_eq!(route.path(), Path::Http, "since 102");
    run(&mut route, at(112));
    assert_eq!(route.path(), Path::WebSocket);
}

#[test]
fn p4_unless_http_fails() {
    let (mut route, mut rng) = (on_http(), rng());
    let _ = route.link_up(at(103));
    route.posted(at(104), RequestKind::Message, HttpOutcome::Unreached(Reason::PortClosed), &mut rng);
    assert_eq!((route.path(), route.may_frame()), (Path::WebSocket, true), "heard or not: there is nothing better");
    let mut down = on_http();
    down.posted(at(103), RequestKind::Message, HttpOutcome::Unreached(Reason::PortClosed), &mut rng);
    assert!(!down.link_up(at(103)), "the same if it comes while HTTP waits");
    assert_eq!(down.path(), Path::WebSocket);
}

#[test]
fn p5_the_word_to_try_now_clears_delays_and_flaps() {
    let (mut route, mut rng) = (on_http(), rng());
    let mut now = at(200);
    for _ in 0..6 {
        let waited = promote(&mut route, now);
        route.link_down(now.after(waited).after(SECOND));
        now = now.after(waited).after(30 * SECOND);
        run(&mut route, now);
    }
    for _ in 0..20 {
        route.posted(now, RequestKind::Message, HttpOutcome::status(401), &mut rng);
    }
    assert!(!route.may_post(0));
    route.retry_now(now);
    assert!(route.may_post(3) && !route.http_failing());
    route.posted(now, RequestKind::Message, HttpOutcome::status(401), &mut rng);
    assert!(route.retry.at() <= Some(now.after(Duration::from_millis(1_100))), "the first refusal again");
    route.retry_now(now);
    assert_eq!(promote(&mut route, now), 2 * SECOND);
}

#[test]
fn l5_a_gap_is_no_verdict_about_the_path() {
    let mut waiting = up(config());
    waiting.link_down(at(100));
    waiting.stalled(at(3603));
    waiting.tick(at(3600));
    assert_eq!(waiting.path(), Path::WebSocket, "there was no time to come back");
    waiting.tick(at(3603));
    assert_eq!(waiting.path(), Path::Http);
    let mut probing = on_http();
    let _ = probing.link_up(at(200));
    probing.heard(at(200));
    probing.stalled(at(3603));
    probing.tick(at(3600));
    assert_eq!(probing.path(), Path::Http, "nor was it stable");
    probing.tick(at(3603));
    assert_eq!(probing.path(), Path::WebSocket);
}

#[test]
fn l8_stopped_it_moves_nothing_and_leaves_no_deadline() {
    let (mut probing, mut rng) = (on_http(), rng());
    let _ = probing.link_up(at(200));
    let mut failing = on_http();
    failing.posted(at(200), RequestKind::Message, HttpOutcome::status(302), &mut rng);
    let mut waiting = up(config());
    waiting.link_down(at(100));
    let mut spent = up(config());
    while spent.hedge(at(0)) {}
    while spent.may_repeat(0) {
        spent.repeats(at(0));
    }
    for mut route in [probing, failing, waiting, spent, up(config()), started(config())] {
        let path = route.path();
        route.stop();
        assert_eq!(route.earliest(), None);
        route.link_down(at(300));
        route.tick(at(400));
        assert_eq!((route.path(), route.earliest()), (path, None));
    }
}

#[derive(Clone, Debug)]
enum Do {
    Up,
    Down,
    Heard,
    Answered,
    Unanswered,
    Posted(u8),
    Network,
    Hedge,
    Stall,
    Start,
    Wake,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => Just(Do::Up),
        3 => Just(Do::Down),
        3 => Just(Do::Heard),
        2 => Just(Do::Answered),
        2 => Just(Do::Unanswered),
        4 => (0..8_u8).prop_map(Do::Posted),
        1 => Just(Do::Network),
        2 => Just(Do::Hedge),
        1 => Just(Do::Stall),
        1 => Just(Do::Start),
        4 => Just(Do::Wake),
        2 => (1..30_u64).prop_map(Do::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// F0, F1, P3, T4: a way is always there or on its way, and only where there is one.
    #[test]
    fn p6_traffic_always_has_a_way_or_a_timer_that_will_find_one(
        http in any::<bool>(),
        gonka in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let config = if gonka { crate::GONKA_ML_NODE.route } else { RouteConfig::DEFAULT };
        let mut route = started(RouteConfig { http, ..config });
        let (mut now, mut rng, mut connected) = (at(0), rng(), false);
        for step in steps {
            match step {
                Do::Up if !connected => {
                    connected = true;
                    let probe = route.link_up(now);
                    prop_assert_eq!(probe, !route.may_frame(), "whoever does not carry is probed");
                }
                Do::Down if connected => {
                    connected = false;
                    route.link_down(now);
                }
                Do::Heard if connected => route.heard(now),
                Do::Answered if connected => route.answered(now),
                Do::Unanswered if connected => drop(route.unanswered(now)),
                Do::Posted(n) if http => {
                    let outcome = match n {
                        0 | 1 => HttpOutcome::status(200),
                        2 => BUSY,
                        3 => HttpOutcome::status(503).with_after(20 * SECOND),
                        4 => HttpOutcome::status(401),
                        5 => HttpOutcome::status(302),
                        6 => HttpOutcome::Unknown(Reason::Timeout),
                        _ => HttpOutcome::Unreached(Reason::PortClosed),
                    };
                    route.posted(now, RequestKind::Message, outcome, &mut rng);
                }
                Do::Network => route.retry_now(now),
                Do::Hedge => {
                    let _ = route.hedge(now);
                }
                Do::Stall => {
                    now = now.after(100 * SECOND);
                    route.stalled(now.after(3 * SECOND));
                    route.tick(now);
                }
                Do::Start => route.start(now),
                Do::Wake => {
                    if let Some((when, _)) = route.earliest() {
                        now = now.max(when);
                        route.tick(now);
                        prop_assert!(route.earliest().is_none_or(|(next, _)| next > now), "T4");
                    }
                }
                Do::Wait(seconds) => {
                    now = now.after(Duration::from_secs(seconds));
                    route.tick(now);
                }
                _ => {}
            }
            prop_assert_eq!(route.side == Side::Down, !connected);
            prop_assert!(!route.may_frame() || route.path() == Path::WebSocket);
            prop_assert!(!connected || route.may_frame() || route.path() == Path::Http, "connected, and nothing carries");
            prop_assert!(http || route.path() == Path::WebSocket && !route.may_post(0));
            prop_assert!(!http || route.path() == Path::Http || connected || route.grace.is_armed(), "F1");
            prop_assert!(!http || route.may_post(0) || route.retry.is_armed(), "a request may leave, now or later");
            if let Side::Probing { heard } = route.side {
                prop_assert!(route.promote.is_armed() || route.trial || !heard, "heard, and never promoted");
            }
        }
    }
}
