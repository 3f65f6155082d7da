//! What the engine does not know: what a system's frames and requests say, and what is answered.
//!
//! ```text
//!              application      Engine<W>          W: Wire                          peer
//!  send ──────▶ prepare ────────▶ session ──Frame──▶ write ──▶ text frame ─────────────▶
//!                                    └──── post ───▶ post ───▶ POST, posted ◀── answer ──
//!  message ◀──────────────────── session ◀──Head─── read ◀──── text frame ──────────────
//!                                    └──── answer ◀── request ◀─ POST ───────────────────
//! ```
//!
//! A wire is a value: settings at first, and in a session what it must remember of it. It decides nothing about a
//! message's life; the session does. Invariants: nothing here blocks; what it remembers is bounded by the session.

#[cfg(feature = "sr25519")]
pub(crate) mod bettensor;
mod gonka;

#[cfg(feature = "sr25519")]
pub use bettensor::{Bettensor, Complaints, Prediction, Update};
pub use gonka::{Batch, Direction, Gonka};

use crate::http::{Answer, Bytes, Callback, Limits, Routes, Target};
use crate::node::Refused;
use bowline::wire::KeyedHash;
use bowline::{ContentKey, Frame, Head, HttpOutcome, MessageId};
use core::fmt;
use core::time::Duration;

/// One system's wire, as a session speaks it.
///
/// The engine calls it under the session's lock. Methods with a body are for what not every wire has.
///
/// ```
/// use bowline_transport::{Gonka, Wire};
/// fn longest<W: Wire>(wire: &W) -> usize {
///     wire.longest_frame()
/// }
/// assert_eq!(longest(&Gonka::API_NODE), 64 << 20);
/// ```
pub trait Wire: Clone + fmt::Debug + Send + 'static {
    /// What tells one sort of message from another.
    type Kind: ?Sized;
    /// A message of ours, ready to be sent as often as it takes.
    type Outgoing: Send;
    /// A message for the application.
    type Incoming: Send;

    /// Close code and reason for a newcomer when the only place is taken.
    const TAKEN: (u16, &'static str) = (1008, "taken");

    /// The longest frame that is read, in bytes.
    fn longest_frame(&self) -> usize;

    /// What peers may ask of our listener.
    fn routes(&self) -> Routes<'static>;

    /// What a visitor of our listener may cost before it is a WebSocket.
    fn limits(&self) -> Limits {
        Limits::DEFAULT
    }

    /// A connection that we dialled begins: the first frame, if the wire has one that comes before all others.
    fn greet(&mut self) -> Option<String> {
        None
    }

    /// A message of the application's, checked: what the peer could never take must not enter.
    ///
    /// # Errors
    /// Why it is refused.
    fn prepare(&mut self, kind: &Self::Kind, json: &Bytes) -> Result<Self::Outgoing, Refused>;

    /// Its size in a frame, in bytes; rather more than less.
    fn size(outgoing: &Self::Outgoing) -> usize;

    /// The session has accepted it under this id.
    fn accepted(&mut self, id: MessageId, outgoing: &Self::Outgoing) {
        let _ = (id, outgoing);
    }

    /// Its end was reported.
    fn settled(&mut self, id: MessageId) {
        let _ = id;
    }

    /// What a text frame says.
    fn read(&mut self, names: &KeyedHash, text: &str) -> Heard<Self::Incoming>;

    /// A message with this id was delivered or was a copy: it will be acknowledged.
    fn noted(&mut self, id: MessageId, incoming: &Self::Incoming) {
        let _ = (id, incoming);
    }

    /// A frame as text; `None`: it is the WebSocket's own ping.
    fn write(&mut self, frame: Frame<'_, Self::Outgoing>) -> Option<String>;

    /// What a peer's POST says.
    ///
    /// # Errors
    /// The answer to what is no message.
    fn request(&mut self, names: &KeyedHash, callback: &Callback) -> Result<Heard<Self::Incoming>, Answer>;

    /// The session's answer to a POST as this wire says it.
    fn answer(&self, answer: bowline::Answer) -> Answer;

    /// A message as a POST: where below the fallback, what, and how many bytes of the answer matter.
    fn post(&mut self, fallback: &Target, outgoing: &Self::Outgoing) -> (Target, Bytes, usize);

    /// What the answer to the POST of this message means.
    fn posted(&mut self, id: MessageId, outcome: HttpOutcome, body: &Bytes) -> (HttpOutcome, Option<Reply>) {
        let _ = (id, body);
        (outcome, None)
    }

    /// Its sort and its bytes, for logs and for the limit of what waits at the application.
    fn describe(incoming: &Self::Incoming) -> (&str, usize);
}

/// What a frame or a POST says to the session.
///
/// ```
/// use bowline::Head;
/// use bowline_transport::Heard;
/// let pong: Heard<()> = Heard::of(Head::Pong);
/// assert!(pong.message.is_none() && !pong.greeting);
/// assert_eq!(Heard::<()>::IGNORED.head, None);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heard<T> {
    /// It makes the connection ready, before anything else.
    pub greeting: bool,
    /// `None`: nobody's; it is not even life.
    pub head: Option<Head>,
    /// With [`Head::Data`].
    pub message: Option<T>,
    /// With [`Head::Ack`] or [`Head::Reject`], where the peer uses words.
    pub reply: Option<Reply>,
    /// The span over which the peer's clients should spread their next first attempt, if it says so (rule B2).
    pub window: Option<Duration>,
}

impl<T> Heard<T> {
    /// Not for us.
    pub const IGNORED: Self = Self { greeting: false, head: None, message: None, reply: None, window: None };

    /// This and nothing more.
    #[must_use]
    pub fn of(head: Head) -> Self {
        Self { head: Some(head), ..Self::IGNORED }
    }

    /// A message.
    #[must_use]
    pub fn message(id: Option<MessageId>, key: Option<ContentKey>, message: T) -> Self {
        Self { message: Some(message), ..Self::of(Head::Data { id, key }) }
    }
}

/// What a peer said about a message of ours, in its own words.
///
/// ```
/// use bowline_transport::Reply;
/// let reply = Reply { success: false, message: "Game closed-1 is not active".into(), miner_stats: None };
/// assert!(!reply.success);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// Whether it was accepted.
    pub success: bool,
    /// For people; may be empty.
    pub message: String,
    /// A JSON object as it came, if any did.
    pub miner_stats: Option<String>,
}
