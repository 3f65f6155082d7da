#![doc = "bowline"]
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::float_arithmetic,
        clippy::arithmetic_side_effects,
        clippy::wildcard_enum_match_arm
    )
)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod backoff;
mod cause;
mod config;
mod heartbeat;
mod ids;
mod inbox;
mod link;
mod outbox;
mod ring;
mod rng;
mod route;
mod rtt;
mod session;
mod time;
#[cfg(feature = "wire")]
pub mod wire;

pub use backoff::{Backoff, BackoffConfig, Jitter};
pub use cause::{Cause, Class, Hint, HttpOutcome, On, Row, STANDARD, classify};
pub use config::{Checked, Config, ConfigError};
pub use heartbeat::{Heartbeat, HeartbeatConfig};
pub use ids::{ContentKey, DeliveryId, LinkId, MessageId, Origin, PostId, RequestId, Seq};
pub use inbox::{Answer, Arrival, Inbox, InboxConfig, InlineInbox, OnReject, Seen, Verdict};
pub use link::{Accepted, Ending, Link, LinkConfig, LinkState, Ready, Role};
pub use outbox::{Ack, InlineOutbox, OnNewLink, Outbox, OutboxConfig, Outcome, Path, Policy, Rejection, Slot};
pub use ring::{Ring, Slots};
pub use rng::SplitMix64;
pub use route::{Hedge, Route, RouteConfig};
pub use rtt::{AckWait, Rtt};
#[cfg(feature = "alloc")]
pub use session::HeapSession;
pub use session::{Event, Frame, Head, InlineSession, Input, Output, Refusal, Reply, Session, State, Stats};
pub use time::{Instant, Timer, Timers, Wake};
