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
//!  unanswered           –                             3 s, then HTTP, whatever the budget says (F6)
//!  idle                 –                             a data frame every 25 s (L4): the peer's reads end after 60 s
//! ```
//!
//! Rules: B6, F1, F6, L4, P1, T1; values from section 4.14 of the rules and the peers' code.

use crate::backoff::BackoffConfig;
use crate::cause::{Class, On, Row};
use crate::config::Config;
use crate::heartbeat::HeartbeatConfig;
use crate::inbox::InboxConfig;
use crate::link::{LinkConfig, Role};
use crate::outbox::OutboxConfig;
use crate::route::{Hedge, RouteConfig};
use crate::rtt::AckWait;
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
        rows: &[Row(On::Close(1008, 1008), Class::Wait)],
        ..LinkConfig::DEFAULT
    },
    heartbeat: HeartbeatConfig::DEFAULT,
    outbox: OutboxConfig::DEFAULT,
    // A sender of the original retries for as long as a phase lasts; the memory is for a batch every 4 s over the horizon.
    inbox: InboxConfig { capacity: 1024, horizon: seconds(3600), peer_life: seconds(3600), ..InboxConfig::DEFAULT },
    route: RouteConfig::DEFAULT,
};

/// Gonka's sender: it accepts one client and posts to the callbacks when that client is not there or does not answer.
///
/// ```
/// use bowline::{AckWait, GONKA_ML_NODE};
/// use core::time::Duration;
/// assert!(GONKA_ML_NODE.check().is_ok());
/// assert_eq!(GONKA_ML_NODE.outbox.ack_wait, AckWait::Fixed(Duration::from_secs(3)));
/// ```
pub const GONKA_ML_NODE: Config = Config {
    link: LinkConfig { role: Role::Acceptor, ..LinkConfig::DEFAULT },
    heartbeat: HeartbeatConfig { keepalive: seconds(25), ..HeartbeatConfig::DEFAULT },
    outbox: OutboxConfig {
        ack_wait: AckWait::Fixed(seconds(3)),
        // The read limit of the newest Go client.
        frame_limit: 64 << 20,
        ..OutboxConfig::DEFAULT
    },
    inbox: InboxConfig::DEFAULT,
    route: RouteConfig {
        http: true,
        grace: Duration::ZERO,
        hedge: Hedge::Always,
        // The original comes back every 5 s.
        backoff: BackoffConfig { cap: seconds(5), ..BackoffConfig::DEFAULT },
        ..RouteConfig::DEFAULT
    },
};
