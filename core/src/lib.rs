//! **Bowline keeps a message session alive over a WebSocket that breaks, and over HTTP when there is no WebSocket.**
//!
//! This crate decides when to connect, when to wait, when a peer is dead, what to send again, what was a duplicate, and
//! when to change path. It does no I/O, reads no clock, allocates nothing (without features) and never panics: a set of
//! deterministic state machines that take `(now, input)` and answer with outputs.
//!
//! ```text
//!             ┌──────────────── Session ────────────────┐
//!  (now, ─────▶ Link · Heartbeat · Outbox · Inbox · Route ├──▶ Close, Connect, Event, Respond, Frame, Post …
//!  input)     └─────────────────────────────────────────┘
//! ```
//!
//! Start with [`session`], which states the six rules of the surface; every machine is public, usable alone, and drawn in
//! its module. Everything is also named at the root.
//! The adapters `bowline-smol` and `bowline-blocking` bring sockets. The rules named in comments and tests (S6, F2 …) are
//! those of `PROTOCOL.md`; promises (G1 …) and reasons are in `ARCHITECTURE.md`.
//!
//! Features: `alloc` ([`HeapSession`], capacities chosen at run time), `wire` (the JSON codecs). None changes behaviour.
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

pub mod backoff;
pub mod config;
pub mod heartbeat;
pub mod hub;
pub mod ids;
pub mod inbox;
pub mod link;
pub mod marks;
pub mod outbox;
pub mod profile;
pub mod reason;
pub mod resume;
pub mod ring;
pub mod rng;
pub mod route;
pub mod rtt;
pub mod session;
pub mod store;
pub mod tag;
pub mod time;
#[cfg(feature = "wire")]
pub mod wire;

pub use backoff::{Backoff, BackoffConfig, Jitter};
pub use config::{Checked, Config, ConfigError};
pub use heartbeat::{DataWatch, Dead, Heartbeat, HeartbeatConfig, ProgramLife, Word};
pub use ids::{ContentKey, DeliveryId, LinkId, MessageId, Origin, PostId, RequestId, Seq};
pub use inbox::{Answer, Arrival, DedupBy, Inbox, InboxConfig, InlineInbox, OnReject, Seen, Verdict};
pub use link::{Accepted, Ending, GiveUp, Link, LinkConfig, LinkState, Newcomer, REPLACED, Ready, Role};
pub use marks::{Beat, Nack, Report};
pub use outbox::{
    Ack, InlineOutbox, OnNewLink, Outbox, OutboxConfig, Outcome, Path, Policy, Proof, Rejection, Settlement, Slot,
};
pub use profile::{BETTENSOR_MINER, GONKA_API_NODE, GONKA_ML_NODE, NATIVE, NATIVE_PEER, VILLAGE_VIEWER};
pub use reason::{
    CloseMatch, CloseRule, HttpClass, HttpOutcome, Party, Reason, RetryClass, RetryHint, STANDARD, TlsFault,
    retry_class,
};
pub use resume::{Got, Greeting, ResumeRefusal};
pub use ring::{Ring, Slots};
pub use rng::SplitMix64;
pub use route::{Hedge, HttpTimeouts, RequestKind, Route, RouteConfig};
pub use rtt::{AckWait, LOWEST_RATE, Rtt};
#[cfg(feature = "alloc")]
pub use session::HeapSession;
pub use session::{
    Event, Frame, Head, InlineSession, Input, NativeConfig, Output, PathStatus, Refusal, Reply, Session, State, Stats,
};
pub use store::{Fixed, Store};
pub use tag::HashTag;
pub use time::{Instant, Timer, Timers, Wake};
