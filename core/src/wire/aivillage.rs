//! The wire of AI Village: events that a hub sends to browsers and viewers, by topics they subscribe to.
//!
//! It decides what a frame is, what its event says, and how both are written; whom a topic reaches and what its history
//! holds is for those who have memory. The client dials [`PATH`] or [`PATH_P2P_FOG`]:
//!
//! ```text
//! client                                                     hub
//!        ◀───── connection_established{connection_id, …} ──        at once; subscribed to the path's topics already
//!        ── {"type":"subscribe","topic":"models", …} ─────▶        or "channel"; "since" if it wants what it missed
//!        ◀── custom{"type":"subscription_response", …} ────        to "channel": subscription_confirmed
//!        ◀────────── training_progress, model_created, … ──        {"type":…,"data":{…},"timestamp":…,
//!        ◀────────────────────────────────── ping{…} ──────         "connection_id":…,"target_connections":null}
//!        ── {"type":"pong"} ──────────────────────────────▶
//!        ── {"type":"ping"} ──────────────────────────────▶
//!        ◀────────────────────────────────── pong{…} ──────
//!        ── what is no JSON ──────────────────────────────▶
//!        ◀──────────────── error{"error":"Invalid JSON"} ──        and the connection stays
//! ```
//!
//! Ours, and harmless to everybody else: a sixth key `"position":{"topic","epoch","offset"}` behind the five
//! ([`Position`]), `since` in a subscription ([`Since`]), and [`Notice::Gap`].
//!
//! Invariants: no panic and no recursion in decoding, whatever the bytes; data is not copied; names are bounded before they
//! are; what is encoded decodes to itself. Keys may come in any order, be unknown or missing; a key that is `null` is
//! missing, a key that we read and that occurs twice is refused. In an event's data whatever has a type that nobody
//! expects counts as missing: the raw text is there for those who know better.
//!
//! Field facts and bugs this guards against (numbers of wire facts, section 3):
//! * `subscribe` was looked up among the events, found missing, and dropped without a word (3.2): here it is a
//!   [`Request`] of its own;
//! * interfaces say `channel`, the service says `topic` (3.4): a client says both, and a hub takes either, and speaks from
//!   then on to each in its own words;
//! * a listener that answers only the WebSocket's own pings is closed after 357 s (3.3): answer [`PING`] with [`PONG`];
//! * an event with a date in it ended the connection of everybody who got it (3.6.3): an [`Event`] can always be written;
//! * Python writes `NaN`, which no browser reads: we write `null`, and refuse such a frame as no JSON.

mod decode;
mod encode;
mod event;
mod notice;

use alloc::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use decode::{Frame, Malformed, Request, decode, decode_request};
pub use encode::{
    Unaddressed, encode_answer, encode_greeting, encode_message, encode_refusal, encode_status, encode_subscribe,
    encode_unsubscribe,
};
pub use event::{Event, Json};
pub use notice::Notice;

/// The WebSocket endpoint for training and models.
pub const PATH: &str = "/ws";
/// The WebSocket endpoint for peers and fog.
pub const PATH_P2P_FOG: &str = "/ws/p2p-fog";
/// What whoever connects to [`PATH`] is subscribed to without asking.
pub const TOPICS: [&str; 3] = ["training", "models", "system"];
/// What whoever connects to [`PATH_P2P_FOG`] is subscribed to without asking.
pub const TOPICS_P2P_FOG: [&str; 2] = ["p2p", "fog"];

/// The longest frame that a hub should read by default, 64 KiB: clients send words about topics, and a request has a
/// hundred bytes.
pub const HUB_LIMIT: usize = 64 << 10;
/// The longest frame that the original service reads, 16 MiB (uvicorn's default); a viewer of ours reads as much.
pub const ORIGINAL_LIMIT: usize = 16 << 20;
/// The longest type and the longest name of a topic, in bytes.
pub const MAX_NAME: usize = super::MAX_ID;

/// A client's question whether the hub is there.
pub const PING: &str = r#"{"type":"ping"}"#;
/// A client's answer to the hub's `ping`.
pub const PONG: &str = r#"{"type":"pong"}"#;
/// What an [`Event::Error`] says about a frame that is no JSON object; the original's words.
pub const INVALID_JSON: &str = "Invalid JSON";
/// What the greeting lists, a JSON array; nobody looks at it.
pub const FEATURES: &str = concat!(
    r#"["real_time_training_updates","model_lifecycle_events","p2p_network_status","#,
    r#""fog_computing_metrics","topic_subscriptions","connection_health_monitoring"]"#,
);

/// The type of what says none, and of what has no better one.
const CUSTOM: &str = "custom";

/// The topic on which the original publishes an event of this type; `None` for what goes to one client, and for types of
/// the application's own.
///
/// ```
/// use bowline::wire::aivillage::topic_of;
/// assert_eq!(topic_of("training_progress"), Some("training"));
/// assert_eq!(topic_of("pong"), None);
/// ```
#[must_use]
pub fn topic_of(kind: &str) -> Option<&'static str> {
    match kind {
        "training_started" | "training_progress" | "training_completed" | "training_error" => Some("training"),
        "model_created" | "model_updated" | "model_deleted" => Some("models"),
        "status_update" => Some("system"),
        "p2p_status" | "p2p_peer_update" => Some("p2p"),
        "fog_resources" | "fog_marketplace" => Some("fog"),
        _ => None,
    }
}

/// Whose words a peer uses.
///
/// ```
/// use bowline::wire::aivillage::{Dialect, Request, decode_request};
/// let request = decode_request(br#"{"type":"subscribe","channel":"training_metrics"}"#)?;
/// assert!(matches!(request, Request::Subscribe { dialect: Dialect::Flat, .. }));
/// # Ok::<(), bowline::wire::aivillage::Malformed>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// The service's: events in the envelope, `topic`.
    Service,
    /// Its siblings': everything at the top, `channel`.
    Flat,
}

/// Where in a topic's history an event stands: ours, behind the five keys of the envelope.
///
/// ```
/// use bowline::wire::aivillage::decode;
/// let frame = decode(br#"{"type":"x","data":{},"position":{"topic":"training","epoch":7,"offset":12}}"#)?;
/// let position = frame.position.unwrap();
/// assert_eq!((&*position.topic, position.epoch, position.offset), ("training", 7, 12));
/// # Ok::<(), bowline::wire::aivillage::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Position<'a> {
    /// The topic it was published on, 1 to 64 bytes.
    #[serde(borrow)]
    pub topic: Cow<'a, str>,
    /// Of this run of the topic's history: another one begins to count anew.
    pub epoch: u32,
    /// Grows by one with every event of the topic.
    pub offset: u64,
}

/// From where on a subscriber wants a topic's history: ours. Whoever says it keeps account of where it is, and is told.
///
/// ```
/// use bowline::wire::aivillage::{Since, encode_subscribe};
/// let frame = encode_subscribe("training", Some(Since::After { epoch: 7, offset: 12 }));
/// let names = r#"{"type":"subscribe","topic":"training","channel":"training","since":"#;
/// assert_eq!(frame, [names, r#"{"epoch":7,"offset":12}}"#].concat());
/// assert_eq!(encode_subscribe("training", Some(Since::Now)), [names, r#""now"}"#].concat());
/// assert_eq!(encode_subscribe("training", Some(Since::Oldest)), [names, r#""oldest"}"#].concat());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    /// Nothing of it; but whoever says so is told positions and gaps from now on.
    Now,
    /// All that history holds.
    Oldest,
    /// What came after this one, the last that was received.
    #[serde(untagged)]
    After {
        /// Of its [`Position`].
        epoch: u32,
        /// Of its [`Position`].
        offset: u64,
    },
}
