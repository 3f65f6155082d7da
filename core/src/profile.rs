//! The parameters of the systems we serve, as tables.
//!
//! A profile is such a table plus a codec ([`wire`](crate::wire)); adding one touches no machine.
//!
//! ```text
//!                       GONKA_API_NODE                GONKA_ML_NODE
//!  who dials            dials                         is dialled, by one client
//!  who sends            receives                      sends
//!  between attempts     3 s + U(0, 2 s), no growth    –
//!  1008 soon after open "not yet": wait               –
//!  unanswered           –                             45 s at first, then what the receiver needs; then HTTP, whatever
//!                                                     the budget says (F6)
//!  idle                 60 s without data, once data   a data frame every 25 s (L4): the peer's reads end after 60 s
//!                       was seen: made anew (L10)
//!
//!                       BETTENSOR_MINER
//!  who dials            dials a validator, and is ready when it is greeted
//!  who sends            both: predictions, which are confirmed or rejected, against updates
//!  between attempts     5 s doubling to 300 s, of which at least half
//!  unanswered           60 s at first, then what the validator needs; then HTTP (F3)
//!  idle                 a heartbeat every 60 s, to be answered in 90 s (L10); dead after 300 s
//!
//!                       VILLAGE_VIEWER
//!  who dials            dials AI Village's hub, and is ready when it is greeted
//!  who sends            the hub: events, which are not acknowledged
//!  between attempts     3 s + U(0, 2 s), no growth
//!  idle                 a ping of the wire's own every 30 s, which is all that keeps it, to be answered in 90 s (L10);
//!                       dead after 300 s
//!
//!                       NATIVE                        NATIVE_PEER
//!  who dials            dials a hub                   is dialled
//!  who sends            both, numbered, in order, marked, resumed; by HTTP and long polls where there is no WebSocket
//!  between attempts     0.1 s + U(0, 1 s doubling to 30 s)
//!  idle                 a ping every 20 s; dead after 45 s
//! ```
//!
//! Rules: B6, F1, F6, L4, L10, P1, T1, T7; values from section 4.14 of the rules and the peers' code.

use crate::backoff::{BackoffConfig, Jitter};
use crate::config::Config;
use crate::heartbeat::{HeartbeatConfig, ProgramLife};
use crate::inbox::{InboxConfig, OnReject};
use crate::link::{LinkConfig, Newcomer, Ready, Role};
use crate::outbox::{OutboxConfig, Proof};
use crate::reason::{CloseMatch, CloseRule, RetryClass};
use crate::route::{Hedge, RouteConfig};
use crate::rtt::AckWait;
use crate::session::NativeConfig;
use core::time::Duration;

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Gonka's receiver: it dials the ML node's WebSocket and serves the HTTP callbacks.
///
/// ```
/// assert!(bowline::GONKA_API_NODE.check().is_ok());
/// ```
pub const GONKA_API_NODE: Config = Config {
    link: LinkConfig {
        role: Role::Dialer,
        attempt: seconds(10),
        backoff: BackoffConfig::range(seconds(3), seconds(5)),
        // It keeps its 3 to 5 s even where something on the way blocks WebSockets (P1).
        blocked: seconds(2),
        // The ML node accepts first and closes then: "PoW is not running" (it will be), "another client" (it will go).
        rows: &[CloseRule(CloseMatch::Close(1008, 1008), RetryClass::Wait)],
        ..LinkConfig::DEFAULT
    },
    // The original client's read deadline, but not on a connection that never had data to bring (wire facts 1.5, 1.8.3).
    heartbeat: HeartbeatConfig { program: ProgramLife::Data(seconds(60)), ..HeartbeatConfig::DEFAULT },
    outbox: OutboxConfig::DEFAULT,
    // A sender of the original retries for as long as a phase lasts; the memory is for 58,254 batches, which is 16 a second
    // over the horizon.
    inbox: InboxConfig { bytes: 8 << 20, horizon: seconds(3600), peer_life: seconds(3600), ..InboxConfig::DEFAULT },
    route: RouteConfig::DEFAULT,
    native: None,
};

/// Gonka's sender: it accepts one client and posts to the callbacks when that client is not there or does not answer.
///
/// ```
/// use bowline::GONKA_ML_NODE;
/// use core::time::Duration;
/// assert!(GONKA_ML_NODE.check().is_ok());
/// assert_eq!(GONKA_ML_NODE.outbox.ack_wait.longest(), Duration::from_secs(120));
/// ```
pub const GONKA_ML_NODE: Config = Config {
    link: LinkConfig { role: Role::Acceptor, ..LinkConfig::DEFAULT },
    heartbeat: HeartbeatConfig { keepalive: seconds(25), ..HeartbeatConfig::DEFAULT },
    outbox: OutboxConfig {
        // The original waits 3 s and posts a second copy of every batch whose submission takes longer, which becomes a
        // second record on the chain. The original Go client reads, submits and acknowledges one at a time, and takes 12
        // to 30 s at times: longer than that, shorter than its read deadline of 60 s. Nor does what is learned from quick
        // ones say anything about the next: it knows no copy, so a wait is never shorter than 35 s.
        ack_wait: AckWait::Adaptive { first: seconds(45), least: seconds(35), most: seconds(120) },
        // The read limit of the newest Go client.
        frame_limit: 64 << 20,
        ..OutboxConfig::DEFAULT
    },
    inbox: InboxConfig::DEFAULT,
    route: RouteConfig {
        http: true,
        grace: Duration::ZERO,
        hedge: Hedge::Always,
        // An API node answers when its chain call has returned, and an original ML node waits for that without any limit:
        // twice as long as the original client's longest wait, its read deadline of 60 s.
        thinking: seconds(120),
        // It may submit one after the other: two that take a minute each are answered in that time.
        posts: 2,
        // The original comes back every 5 s.
        backoff: BackoffConfig { cap: seconds(5), ..BackoffConfig::DEFAULT },
        ..RouteConfig::DEFAULT
    },
    native: None,
};

/// Bettensor's miner: it dials a validator's WebSocket, signs its first frame, and posts predictions where there is no
/// WebSocket. Its heartbeat is a message of the wire's own.
///
/// ```
/// use bowline::{BETTENSOR_MINER, Ready};
/// assert!(BETTENSOR_MINER.check().is_ok());
/// assert_eq!(BETTENSOR_MINER.link.ready, Ready::Hello);
/// ```
pub const BETTENSOR_MINER: Config = Config {
    link: LinkConfig {
        role: Role::Dialer,
        ready: Ready::Hello,
        // Between the constructor's 30 s for the upgrade and no limit at all for the greeting.
        attempt: seconds(10),
        backoff: BackoffConfig { floor: Duration::ZERO, base: seconds(5), cap: seconds(300), jitter: Jitter::Equal },
        blocked: seconds(300),
        // None of its own: an original validator closes with 1000 when the same miner dials again, as it does when it
        // stops, so that code cannot mean "replaced"; 4003 does.
        ..LinkConfig::DEFAULT
    },
    // An original's sender says something every 60 s (wire facts 2.3), and half of that again.
    heartbeat: HeartbeatConfig {
        interval: seconds(60),
        dead: seconds(300),
        program: ProgramLife::Answers(seconds(90)),
        ..HeartbeatConfig::DEFAULT
    },
    outbox: OutboxConfig {
        // The original's miner waits 60 s for a confirmation; its validator stores a copy a second time (wire facts 2.5).
        ack_wait: AckWait::Adaptive { first: seconds(60), least: seconds(35), most: seconds(90) },
        // What a validator of ours reads, and no prediction needs: an original reads 16 MiB.
        frame_limit: 64 << 10,
        post_limit: 64 << 10,
        ..OutboxConfig::DEFAULT
    },
    inbox: InboxConfig::DEFAULT,
    route: RouteConfig { http: true, ..RouteConfig::DEFAULT },
    native: None,
};

/// A viewer of AI Village's events: it dials the hub, and what it sends is proved by the answer to the ping behind it.
///
/// ```
/// use bowline::{Proof, Ready, VILLAGE_VIEWER};
/// assert!(VILLAGE_VIEWER.check().is_ok());
/// assert_eq!((VILLAGE_VIEWER.link.ready, VILLAGE_VIEWER.outbox.proof), (Ready::Hello, Proof::Pong));
/// ```
pub const VILLAGE_VIEWER: Config = Config {
    link: LinkConfig {
        role: Role::Dialer,
        ready: Ready::Hello,
        attempt: seconds(10),
        // What the original's pages do, 3 s or 5 s, but not all in the same moment (wire facts 3.4, 3.6.7).
        backoff: BackoffConfig::range(seconds(3), seconds(5)),
        // It keeps its 3 to 5 s, blocked or not: a page that somebody looks at should not be ten minutes late.
        blocked: seconds(2),
        // None of its own: the original closes with 1000 whatever the reason, and that is an ordinary end.
        ..LinkConfig::DEFAULT
    },
    // The hub's own interval, and the silence after which it gives a client up (wire facts 3.3).
    heartbeat: HeartbeatConfig {
        interval: seconds(30),
        dead: seconds(300),
        program: ProgramLife::Answers(seconds(90)),
        ..HeartbeatConfig::DEFAULT
    },
    outbox: OutboxConfig {
        proof: Proof::Pong,
        ack_wait: AckWait::ARRIVAL,
        // The original never answers again where a training goes on (wire facts 3.6.3): what it is asked then would be
        // asked anew on every connection, and end it.
        life: Some(seconds(60)),
        // What a hub of ours reads from a client: 64 KiB.
        frame_limit: 64 << 10,
        post_limit: 64 << 10,
        bytes: 1 << 20,
        ..OutboxConfig::DEFAULT
    },
    // Events come in bursts, and are lost while as many are at the application: history is sent in one piece.
    inbox: InboxConfig { held: 1024, ..InboxConfig::DEFAULT },
    route: RouteConfig::DEFAULT,
    native: None,
};

/// A native client: it dials a hub, numbers what it sends and resumes (PROTOCOL.md, section 8).
///
/// ```
/// assert!(bowline::NATIVE.check().is_ok());
/// ```
pub const NATIVE: Config = Config {
    link: LinkConfig { role: Role::Dialer, ready: Ready::Hello, ..LinkConfig::DEFAULT },
    heartbeat: HeartbeatConfig::DEFAULT,
    outbox: OutboxConfig {
        ack_wait: AckWait::ARRIVAL,
        life: Some(seconds(3600)),
        frame_limit: 1 << 20,
        post_limit: 1 << 20,
        ..OutboxConfig::DEFAULT
    },
    // There is a word for it.
    inbox: InboxConfig { on_reject: OnReject::Silence, ..InboxConfig::DEFAULT },
    // A hub answers a message after 4 s at the latest (H2).
    route: RouteConfig { http: true, grace: seconds(2), thinking: seconds(10), ..RouteConfig::DEFAULT },
    native: Some(NativeConfig::DEFAULT),
};

/// What a hub has for each native client: as [`NATIVE`], but it is dialled, and what has no connection waits to be polled.
///
/// ```
/// use bowline::hub::HubConfig;
/// let hub = HubConfig { native: Some(bowline::NATIVE_PEER), ..HubConfig::DEFAULT };
/// assert!(hub.check().is_ok());
/// ```
pub const NATIVE_PEER: Config = Config {
    link: LinkConfig { role: Role::Acceptor, newcomer: Newcomer::Replaces, farewell: 1012, ..LinkConfig::DEFAULT },
    route: RouteConfig::DEFAULT,
    ..NATIVE
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backoff::Backoff;
    use crate::reason::{Reason, RetryHint, retry_class};
    use crate::rng::SplitMix64;

    #[test]
    fn b6_an_api_node_and_a_viewer_dial_every_three_to_five_seconds_blocked_or_not() {
        for link in [GONKA_API_NODE.link, VILLAGE_VIEWER.link] {
            assert_eq!((link.role, link.backoff.jitter), (Role::Dialer, Jitter::Full));
            let (mut backoff, mut rng) = (Backoff::new(link.backoff), SplitMix64::new(1));
            for _ in 0..100 {
                let ordinary = backoff.next(RetryHint::NONE, &mut rng);
                let blocked = backoff.next_up_to(link.blocked, RetryHint::NONE, &mut rng);
                let suspended = backoff.slowest(RetryHint::NONE, &mut rng);
                for delay in [ordinary, blocked, suspended] {
                    assert!((seconds(3)..=seconds(5)).contains(&delay), "{delay:?}");
                }
            }
        }
    }

    #[test]
    fn l1_a_viewer_speaks_well_before_the_original_gives_it_up() {
        let heartbeat = VILLAGE_VIEWER.heartbeat;
        assert!(heartbeat.interval * 2 < heartbeat.dead && heartbeat.dead == seconds(300));
        assert_eq!(retry_class(VILLAGE_VIEWER.link.rows, Reason::Closed(1000)), RetryClass::Retry);
    }

    #[test]
    fn b_1008_means_not_yet_to_an_api_node_and_nothing_else_is_different() {
        for code in 1000..5000 {
            let (own, standard) =
                (retry_class(GONKA_API_NODE.link.rows, Reason::Closed(code)), retry_class(&[], Reason::Closed(code)));
            assert_eq!(own, if code == 1008 { RetryClass::Wait } else { standard }, "{code}");
        }
    }

    #[test]
    fn f6_an_ml_node_falls_back_at_once_and_always() {
        let route = GONKA_ML_NODE.route;
        assert!(route.http && route.grace.is_zero());
        assert_eq!((route.hedge, GONKA_ML_NODE.link.role), (Hedge::Always, Role::Acceptor));
    }

    #[test]
    fn l4_an_ml_node_speaks_well_before_its_peers_read_deadline() {
        assert!(GONKA_ML_NODE.heartbeat.keepalive * 2 < seconds(60));
    }

    #[test]
    fn s12_the_profiles_pass_the_check() {
        for profile in [GONKA_API_NODE, GONKA_ML_NODE, BETTENSOR_MINER, VILLAGE_VIEWER] {
            assert!(profile.check().is_ok());
            assert!(profile.inbox.horizon >= profile.inbox.peer_life);
        }
    }

    #[test]
    fn b6_a_miner_waits_five_seconds_at_most_first_and_never_above_five_minutes() {
        let (mut backoff, mut rng) = (Backoff::new(BETTENSOR_MINER.link.backoff), SplitMix64::new(1));
        for n in 0..20_u32 {
            let bound = seconds(5 << n.min(6)).min(seconds(300));
            let delay = backoff.next(RetryHint::NONE, &mut rng);
            assert!(delay >= bound / 2 && delay <= bound, "{n}: {delay:?}");
        }
    }

    #[test]
    fn b_to_a_miner_1000_says_nothing_and_1008_is_a_refusal() {
        let rows = BETTENSOR_MINER.link.rows;
        assert_eq!(
            retry_class(rows, Reason::Closed(1000)),
            RetryClass::Retry,
            "\"New connection established\", or it stops"
        );
        assert_eq!(retry_class(rows, Reason::Closed(1008)), RetryClass::Refused, "not in the metagraph");
        assert_eq!(retry_class(rows, Reason::Closed(4003)), RetryClass::Replaced);
    }

    #[test]
    fn t7_a_miner_waits_at_first_as_long_as_the_original() {
        let AckWait::Adaptive { first, least, .. } = BETTENSOR_MINER.outbox.ack_wait else { panic!() };
        assert_eq!((first, least), (seconds(60), seconds(35)));
    }

    #[test]
    fn t7_an_ml_node_waits_longer_than_a_slow_submission_and_shorter_than_the_originals_read_deadline() {
        let AckWait::Adaptive { first, least, .. } = GONKA_ML_NODE.outbox.ack_wait else { panic!() };
        assert!(first > seconds(30) && first < seconds(60));
        assert_eq!(least, seconds(35));
    }
}
