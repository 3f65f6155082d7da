//! What the engine does not know: what a system's frames and requests say, and what is answered.
//!
//! ```text
//!              application      Engine<W>          W: Wire                          peer
//!  send ──────▶ prepare ────────▶ session ──Frame──▶ write ──▶ text frame ─────────────▶
//!                                    └──── post ───▶ post ───▶ POST, is_peers ◀─ answer ──
//!  message ◀──────────────────── session ◀──Head─── read ◀──── text frame ──────────────
//!                                    └──── answer ◀── request ◀─ POST ───────────────────
//! ```
//!
//! A wire is a value: settings at first, and in a session what it must remember of it. It decides nothing about a
//! message's life; the session does. Invariants: nothing here blocks; what it remembers is bounded by the session.

#[cfg(feature = "sr25519")]
pub(crate) mod bettensor;
mod gonka;
pub(crate) mod native;
pub(crate) mod village;

#[cfg(feature = "sr25519")]
pub use bettensor::{Bettensor, Complaints, Prediction, Update};
pub use gonka::{Batch, Direction, Gonka};
pub use native::{Mail, Native, Note};
pub use village::{News, Village};

use crate::http::{Answer, Bytes, Callback, HttpAnswer, Limits, Routes, Target};
use crate::node::Refused;
use bowline::wire::KeyedHash;
use bowline::{ContentKey, Frame, Greeting, Head, MessageId, Report, Seq};
use core::fmt;
use core::time::Duration;

/// The longest frame that is read where a wire does not say otherwise: what a session sends by default
/// ([`OutboxConfig::frame_limit`](bowline::OutboxConfig)).
const LONGEST: usize = 16 << 20;

/// One system's wire, as a session speaks it: the seam where a protocol of one's own begins.
///
/// A profile is a wire and a table of settings ([`Config`](bowline::Config)); [`Setup::dialer`](crate::Setup::dialer) and
/// [`Setup::acceptor`](crate::Setup::acceptor) make a session of them. Nine items have no default: three types,
/// [`prepare`](Self::prepare) and [`size`](Self::size) for what goes out, [`read`](Self::read), [`write`](Self::write),
/// [`describe`](Self::describe), and [`is_peers`](Self::is_peers) for the answers to POSTs. The rest is for what not every
/// wire has.
///
/// What a wire decides: which text is a message, an acknowledgement, or nothing, and by which id. What it must not: when
/// something is sent, sent again, given up or handed to the application. The rules:
///
/// - The same message is written with the same id every time. The easiest id is the session's own, as it prints: nothing
///   needs to be remembered, and it stays unique over restarts, which a counter does not.
/// - The id that [`read`](Self::read) names is the peer's: [`KeyedHash::id`] of its text. If an acknowledgement has to
///   repeat a text that is no UUID, [`noted`](Self::noted) is the place to keep it, up to a limit.
/// - Any text may come in. It costs at most what its length suggests, and never a panic. What is not understood is
///   [`Head::Other`], if it might be of a later version, or [`Head::Malformed`].
/// - A word of the peer's program that is no message, such as its heartbeat, is [`Head::Word`], and the answer to a ping
///   that [`write`](Self::write) has a text for is one with `pong`. A profile with such a ping can watch the program by it
///   ([`ProgramLife::Answers`](bowline::ProgramLife), rule L10).
/// - A POST carries the text of the frame, unless the wire says otherwise, and only an answer that
///   [is the peer's](Self::is_peers) ends its message.
///
/// The engine calls it under the session's lock: it must not block. [`conformance`](crate::conformance) checks all this;
/// `adapters/smol/examples/device.rs` lets the wire below lose its connection, and no reading.
///
/// ```
/// use bowline::wire::KeyedHash;
/// use bowline::{Frame, Head, MessageId};
/// use bowline_transport::http::{Bytes, HttpAnswer};
/// use bowline_transport::{Heard, Refused, Wire};
/// use serde::{Deserialize, Serialize};
///
/// /// The application's own message.
/// #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
/// struct Reading {
///     sensor: u16,
///     celsius: f64,
/// }
///
/// /// `R <id> <sensor> <celsius>` is a reading, `A <id>` its acknowledgement, `K` says nothing.
/// #[derive(Clone, Debug)]
/// struct Thermometer;
///
/// impl Thermometer {
///     fn parse(line: &str) -> Option<Heard<Reading>> {
///         let mut words = line.split(' ');
///         let heard = match (words.next()?, words.next().map(MessageId::parse_uuid)) {
///             ("R", Some(Some(id))) => {
///                 let (sensor, celsius) = (words.next()?.parse().ok()?, words.next()?.parse::<f64>().ok()?);
///                 Heard::message(Some(id), None, Reading { sensor, celsius: Some(celsius).filter(|it| it.is_finite())? })
///             }
///             ("A", Some(Some(id))) => Heard::of(Head::Ack { id }),
///             ("R" | "A", _) => return None,
///             _ => return Some(Heard::of(Head::Other)), // of a later version
///         };
///         words.next().is_none().then_some(heard)
///     }
/// }
///
/// impl Wire for Thermometer {
///     type Kind = ();
///     type Outgoing = Reading;
///     type Incoming = Reading;
///
///     fn prepare(&mut self, (): &(), json: &Bytes) -> Result<Reading, Refused> {
///         serde_json::from_slice(json).map_err(|_| Refused::Invalid("no reading"))
///     }
///
///     fn size(Reading { sensor, celsius }: &Reading) -> usize {
///         39 + format!("{sensor} {celsius}").len() // some numbers have three hundred digits
///     }
///
///     fn read(&mut self, _: &KeyedHash, line: &str) -> Heard<Reading> {
///         Self::parse(line).unwrap_or(Heard::of(Head::Malformed))
///     }
///
///     fn write(&mut self, frame: Frame<'_, Reading>) -> Option<String> {
///         match frame {
///             Frame::Data { id, payload, .. } => Some(format!("R {id} {} {}", payload.sensor, payload.celsius)),
///             Frame::Ack { id } => Some(format!("A {id}")),
///             Frame::Keepalive => Some("K".into()),
///             // The WebSocket's own; the others are for numbered peers.
///             Frame::Ping | Frame::Marks { .. } | Frame::Nack { .. } => None,
///         }
///     }
///
///     fn is_peers(&self, _: MessageId, answer: &HttpAnswer) -> bool {
///         answer.is_marked() // the peer is a Bowline as well, with the default of `answer`
///     }
///
///     fn describe(_: &Reading) -> (&str, usize) {
///         ("reading", size_of::<Reading>())
///     }
/// }
///
/// // Both ends agree, and nothing that comes in does harm: the same checks that our own wires pass.
/// use bowline_transport::conformance::Conformance;
/// Conformance::pair(Thermometer, Thermometer, |reading| serde_json::to_vec(reading).unwrap())
///     .sample(&(), r#"{"sensor":4,"celsius":21.5}"#)
///     .sample(&(), r#"{"sensor":65535,"celsius":-1.7976931348623157e308}"#)
///     .refused(&(), r#"{"sensor":4}"#)
///     .run()
///     .assert();
/// ```
pub trait Wire: Clone + fmt::Debug + Send + 'static {
    /// What tells one sort of message from another; `()` where there is one sort.
    type Kind: ?Sized;
    /// A message of ours, ready to be sent as often as it takes; any type.
    type Outgoing: Send;
    /// A message for the application, which sees it as [`Message::content`](crate::Message::content); any type.
    type Incoming: Send;

    /// Close code and reason for a newcomer when the only place is taken.
    const TAKEN: (u16, &'static str) = (1008, "taken");

    /// The longest frame that is read, in bytes. Default 16 MiB.
    fn longest_frame(&self) -> usize {
        LONGEST
    }

    /// Whether text in a binary frame is read like text in a text frame (rule N1): some libraries send binary frames unless
    /// they are told otherwise. What is written is always text. Default true; false, where such a frame is malformed, for a
    /// system whose own programs take none.
    fn reads_binary(&self) -> bool {
        true
    }

    /// What peers may ask of our listener. Default: a WebSocket at `/`.
    fn routes(&self) -> Routes<'static> {
        Routes { websockets: &["/"], ..Routes::NONE }
    }

    /// What a visitor of our listener may cost before it is a WebSocket.
    fn limits(&self) -> Limits {
        Limits::DEFAULT
    }

    /// A connection that we dialled begins: the first frame, if the wire has one that comes before all others.
    fn greet(&mut self) -> Option<String> {
        None
    }

    /// The WebSocket subprotocol that is asked for where we dial; a peer that does not choose it is none of ours.
    fn subprotocol(&self) -> Option<&'static str> {
        None
    }

    /// As [`greet`](Self::greet), with what a native session has to say of itself.
    fn hello(&mut self, greeting: &Greeting) -> Option<String> {
        let _ = greeting;
        self.greet()
    }

    /// A message of the application's, checked: what the peer could never take must not enter, for it would be repeated
    /// until its life ends.
    ///
    /// # Errors
    /// Why it is refused; [`Refused::Invalid`] has room for a wire's own reasons.
    fn prepare(&mut self, kind: &Self::Kind, json: &Bytes) -> Result<Self::Outgoing, Refused>;

    /// Its size in a frame, in bytes; rather more than less.
    fn size(outgoing: &Self::Outgoing) -> usize;

    /// The message that must have ended before this one is sent, where the peer could not tell them apart (rule I7).
    fn after(&self, outgoing: &Self::Outgoing) -> Option<MessageId> {
        let _ = outgoing;
        None
    }

    /// The session has accepted it under this id.
    fn accepted(&mut self, id: MessageId, outgoing: &Self::Outgoing) {
        let _ = (id, outgoing);
    }

    /// Its end was reported: what was remembered of it can go.
    fn settled(&mut self, id: MessageId) {
        let _ = id;
    }

    /// What a text frame says.
    fn read(&mut self, names: &KeyedHash, text: &str) -> Heard<Self::Incoming>;

    /// A message with this id was delivered or was a copy: it will be acknowledged.
    fn noted(&mut self, id: MessageId, incoming: &Self::Incoming) {
        let _ = (id, incoming);
    }

    /// A message from a frame is the application's now, or is known from an earlier copy; one that there was no place for
    /// is not.
    fn delivered(&mut self, incoming: &Self::Incoming) {
        let _ = incoming;
    }

    /// A frame as text; `None`: it is the WebSocket's own ping.
    fn write(&mut self, frame: Frame<'_, Self::Outgoing>) -> Option<String>;

    /// What a peer's POST says. Default: what its body would say as a frame, if that is a message; one that has no id there
    /// has the `Idempotency-Key`.
    ///
    /// # Errors
    /// The answer to what is no message. Whatever is answered by 2xx counts as delivered.
    fn request(&mut self, names: &KeyedHash, callback: &Callback) -> Result<Heard<Self::Incoming>, Answer> {
        let text = core::str::from_utf8(&callback.body).map_err(|why| Answer::marked(400, &why.to_string()))?;
        let heard = self.read(names, text);
        let Some(Head::Data { id, key }) = heard.head else { return Err(Answer::marked(400, "no message")) };
        let id = id.or_else(|| callback.idempotency_key.as_deref().map(|id| names.id(id)));
        Ok(Heard { head: Some(Head::Data { id, key }), ..heard })
    }

    /// The session's answer to a POST as this wire says it. Default: its status, `Retry-After`, and a body that says whose
    /// it is, such as `{"bowline":"done"}`: [`HttpAnswer::is_marked`] knows it at the other end.
    fn answer(&self, answer: bowline::Answer) -> Answer {
        let status = answer.status();
        match answer {
            bowline::Answer::Done => Answer::marked(status, "done"),
            bowline::Answer::Rejected => Answer::marked(status, "rejected"),
            bowline::Answer::Reused => Answer::marked(status, "this id was used for another message"),
            bowline::Answer::Unknown => Answer::marked(status, "unknown"),
            bowline::Answer::Polled => Answer::marked(status, "polled"),
            bowline::Answer::Again { after } => Answer { retry_after: Some(after), ..Answer::marked(status, "again") },
            bowline::Answer::Busy { after } => Answer { retry_after: Some(after), ..Answer::marked(status, "busy") },
        }
    }

    /// A message as a POST, which has its id as `Idempotency-Key` in any case: where below the fallback, what, and how many
    /// bytes of the answer may hold the peer's word, at least 512; all of ours below `una` have ended. Default: the text of
    /// its frame, to the fallback itself, and no more than these.
    fn post(
        &mut self,
        fallback: &Target,
        seq: Seq,
        una: Seq,
        id: MessageId,
        outgoing: &Self::Outgoing,
    ) -> (Target, Bytes, usize) {
        let frame = self.write(Frame::Data { seq, id, una, payload: outgoing });
        (fallback.clone(), frame.unwrap_or_default().into(), 0)
    }

    /// Headers of every POST of ours, beside a message's `Idempotency-Key`.
    fn headers(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What this side shows to be let in and a peer could send back: it is masked in every text that is told. Default none.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// A native session greets or polls by HTTP: where below the fallback, what, and how many bytes of the answer matter;
    /// `None`: this wire cannot.
    fn ask(&mut self, fallback: &Target, question: Question) -> Option<(Target, Bytes, usize)> {
        let _ = (fallback, question);
        None
    }

    /// What the frames in the answer to a native session's POST say; `None`: it is no such answer.
    fn carried(&mut self, body: &Bytes) -> Option<Vec<Heard<Self::Incoming>>> {
        let _ = body;
        None
    }

    /// The application takes messages again after one that was for it alone could not be given to it: frames to be sent.
    fn room(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Whether the answer to the POST of this message is the peer's own word, and not that of something on the way: by a
    /// signature, by the wire's own JSON, or, where the peer is a Bowline, by [`HttpAnswer::is_marked`]. Only then 2xx
    /// means delivered, and 400, 410, 413 and 422 rejected; all else is tried again (rule H8).
    ///
    /// There is no default, because the simplest one loses messages. With `true`, the login page of a captive portal, which
    /// comes with 200, is a delivery, and the message is gone although nobody has seen it; and the 413 of a proxy that takes
    /// one megabyte rejects for good what the peer would have taken. With `false`, what was delivered by HTTP is posted
    /// again until it expires. Where a peer neither signs nor marks its answers, see [`HttpAnswer::is_api_answer`].
    fn is_peers(&self, id: MessageId, answer: &HttpAnswer) -> bool;

    /// The peer's words in the answer to the POST of this message, of which [`is_peers`](Self::is_peers) said that it is the
    /// peer's.
    fn posted(&mut self, id: MessageId, answer: &HttpAnswer) -> Option<Reply> {
        let _ = (id, answer);
        None
    }

    /// Its sort, for logs, and the bytes it takes in memory, for the limit of what waits at the application.
    fn describe(incoming: &Self::Incoming) -> (&str, usize);
}

/// What a native session asks by HTTP.
///
/// ```
/// use bowline::{Greeting, Origin};
/// use bowline_transport::Question;
/// let question = Question::Greet(Greeting::new(Origin::new(7, 1)));
/// assert!(matches!(question, Question::Greet(greeting) if !greeting.resume));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Who it is, and what of the session the peer still has.
    Greet(Greeting),
    /// Whether there is something for it.
    Poll {
        /// What has come of the peer's messages.
        report: Report,
        /// The lowest of its own that has not ended.
        una: Seq,
        /// How long the peer may wait with its answer.
        wait: Duration,
    },
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
    /// With [`Head::Data`] or [`Head::Numbered`]; with any other head it is for the application alone, and no verdict is
    /// told to anybody.
    pub message: Option<T>,
    /// With [`Head::Ack`] or [`Head::Reject`], where the peer uses words.
    pub reply: Option<Reply>,
    /// Frames that answer it at once: the wire's own talk, that the session knows nothing of. While the connection takes
    /// nothing they are not sent.
    pub say: Vec<String>,
    /// How long to wait before the next connection, if the peer says so.
    pub after: Option<Duration>,
    /// The span over which the peer's clients should spread their next first attempt, if it says so (rule B2).
    pub window: Option<Duration>,
    /// Who has signed it, where that is not the expected peer and the connection is of no use for that: it ends, and this is
    /// told (rule E2).
    pub stranger: Option<String>,
}

impl<T> Heard<T> {
    /// Not for us.
    pub const IGNORED: Self = Self {
        greeting: false,
        head: None,
        message: None,
        reply: None,
        say: Vec::new(),
        after: None,
        window: None,
        stranger: None,
    };

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
