//! The wire of two Bowlines, `bowline.1`: greetings, numbered messages, marks, topics.
//!
//! It decides what a frame is, whether every member that counts is within its range, and where in the frame the payload
//! lies; the payload itself goes on as the raw text that came. The client dials [`PATH`], or posts to [`HELLO`]:
//!
//! ```text
//! client ── {"type":"hello","v":1,"cid":…,"origin":…,"rx":{…},"tx":{…}} ──▶ hub     Frame::Hello
//!        ◀── {"type":"welcome","v":1,"sid":…,"token":…,"resumed":…} ──            Frame::Welcome, or Frame::Refused
//!        ◀─ {"type":"data","seq":…,"una":…,"kind":…,"data":…} ─▶                  Frame::Data
//!        ◀─ {"type":"ack","cum":…,"sack":…,"rcv":…,"rsack":…,"win":…,"una":…} ─▶  Frame::Marks, with ping and pong
//!        ◀─ {"type":"nack","seq":…,"code":…} ─▶                                  Frame::Nack
//!        ── subscribe ──▶  ◀── subscribed, event, missed ──
//!        ◀── reconnect, token ──   ── reauth ──▶   ◀─ error ─▶
//!        by HTTP:  ◀── {"type":"batch","frames":[…]} ──                           Frame::Batch
//! ```
//!
//! On the wire marks are said by the numbers up to which there is no hole, and maps behind; a [`Report`] has maps from a
//! common base. What is read has the lowest base that any of its members needs: it says the same of every number.
//!
//! Invariants: no panic, no recursion and no copy of a payload, whatever the bytes; memory beyond the frame is of the order
//! of a byte for each level of nesting, a batch's list of at most [`MAX_BATCH`] places, and a name if it is escaped.
//! What is encoded decodes to what it was, if its texts and numbers are within the ranges that decoding asks for. A
//! member that is `null` is left out, except for a payload; members nobody knows are ignored, a known one twice is
//! malformed.
//! Rules: I2, R1, R2, R9, S3, S8, S10, S12, B2.

mod decode;
mod encode;
mod fields;

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::ids::Seq;
use crate::marks::{Beat, Nack, Report};
use crate::resume::{Greeting, ResumeRefusal};

pub use decode::{Malformed, check, decode};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "bowline.1";
/// The WebSocket endpoint of a hub.
pub const PATH: &str = "/bowline/1/socket";
/// Where a session begins by HTTP.
pub const HELLO: &str = "/bowline/1/hello";
/// Where a message is taken by HTTP.
pub const MESSAGES: &str = "/bowline/1/messages";
/// Where a hub's frames are fetched by HTTP.
pub const POLL: &str = "/bowline/1/poll";
/// The header with the `cid` in requests other than [`HELLO`]'s.
pub const CLIENT: &str = "bowline-client";

/// The topic of an event that is for everybody: no topic has this name, and its place says nothing.
pub const EVERYBODY: &str = "*";

/// The longest frame, 1 MiB, unless a welcome says something else.
pub const FRAME_LIMIT: usize = 1 << 20;
/// By so much a batch may be longer than a frame.
pub const BATCH_ROOM: usize = 64 << 10;
/// The most frames of a batch.
pub const MAX_BATCH: usize = 1024;
/// The longest that a poll may wait for its answer.
pub const MAX_WAIT: Duration = Duration::from_secs(25);
/// The longest type, kind, topic, `cid`, `sid` and token in bytes.
pub const MAX_NAME: usize = super::MAX_ID;
/// The longest `auth` in bytes.
pub const MAX_AUTH: usize = 4096;
/// The longest words for people, in bytes.
pub const MAX_WORDS: usize = 1024;

/// The close code of a hub that refuses.
pub const CLOSE_REFUSED: u16 = 1008;

/// What a frame is. It borrows from the bytes it was decoded from.
///
/// ```
/// use bowline::Seq;
/// use bowline::wire::native::{Frame, decode};
/// let frame = Frame::Data { seq: Seq::from_number(5), una: Seq::from_number(3), kind: "load".into(), data: "[1, 2]" };
/// let text = frame.encode();
/// assert_eq!(text, r#"{"type":"data","seq":5,"una":3,"kind":"load","data":[1, 2]}"#);
/// assert_eq!(decode(text.as_bytes())?, frame);
/// # Ok::<(), bowline::wire::native::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// A client's first.
    Hello(Hello<'a>),
    /// The hub takes the client.
    Welcome(Welcome<'a>),
    /// The hub does not take the client, and closes with [`CLOSE_REFUSED`].
    Refused {
        /// Why not.
        reason: Refusal,
    },
    /// A message.
    Data {
        /// Its number, from 1.
        seq: Seq,
        /// The sender's lowest number that has not ended.
        una: Seq,
        /// 1 to 64 bytes.
        kind: Cow<'a, str>,
        /// JSON as it came.
        data: &'a str,
    },
    /// `ack`, `ping` and `pong`: what the other side's messages are to this receiver.
    Marks {
        /// What has come, what is completed, how much more may come.
        report: Report,
        /// Of the messages of whoever says this.
        una: Seq,
        /// Which of the three it is.
        beat: Beat,
    },
    /// A message is to be sent again, or never.
    Nack {
        /// The number of the message.
        seq: Seq,
        /// What is to become of it.
        nack: Nack,
        /// For people, at most 1 KiB; may be empty.
        reason: Cow<'a, str>,
    },
    /// The client wants a topic's events.
    Subscribe {
        /// A filter, 1 to 64 bytes.
        topic: Cow<'a, str>,
        /// From where on; `None`: from now.
        since: Option<Since>,
    },
    /// And wants them no longer.
    Unsubscribe {
        /// The filter it subscribed to.
        topic: Cow<'a, str>,
    },
    /// The answer to [`Subscribe`](Self::Subscribe).
    Subscribed {
        /// The filter.
        topic: Cow<'a, str>,
        /// Whether it is so now.
        ok: bool,
        /// Of the one topic that the filter means, if it means one: the newest event's place.
        at: Option<Position>,
    },
    /// The answer to [`Unsubscribe`](Self::Unsubscribe).
    Unsubscribed {
        /// The filter.
        topic: Cow<'a, str>,
        /// Whether there was one.
        ok: bool,
    },
    /// Something was published.
    Event {
        /// Under this topic.
        topic: Cow<'a, str>,
        /// Where in its history.
        at: Position,
        /// 1 to 64 bytes.
        kind: Cow<'a, str>,
        /// JSON as it came.
        data: &'a str,
    },
    /// Events that this subscriber does not get.
    Missed {
        /// Of this topic.
        topic: Cow<'a, str>,
        /// The first of them.
        from: Position,
        /// The offset of the last of them.
        to: u64,
    },
    /// The hub will close: come back after `after`, at a time drawn from `window`.
    Reconnect {
        /// At least so long.
        after: Duration,
        /// And up to so much more.
        window: Duration,
    },
    /// The client shows again who it is.
    Reauth {
        /// For the application, at most 4 KiB.
        auth: Cow<'a, str>,
    },
    /// The client's token from now on.
    Token {
        /// 1 to 64 characters as of a header.
        token: Cow<'a, str>,
    },
    /// A frame was malformed. Never answered, whatever is in it.
    Error {
        /// For people, at most 1 KiB; may be empty.
        message: Cow<'a, str>,
    },
    /// The answer to a [`Poll`]: frames to be decoded one by one, at most [`MAX_BATCH`]. One that holds a batch is nobody's.
    Batch(Vec<&'a str>),
    /// The body of a poll. As a frame, it is a [`Marks`](Self::Marks).
    Poll(Poll),
    /// A frame of another type, to be ignored.
    Other {
        /// Its type, 1 to 64 bytes.
        kind: Cow<'a, str>,
    },
}

/// What a client shows to go on with its session.
///
/// ```
/// use bowline::wire::native::Ticket;
/// let ticket = Ticket { sid: "s-1".into(), token: "t-1".into() };
/// assert_eq!(format!("{ticket:?}"), r#"Ticket { sid: "s-1", .. }"#, "logs are no place for a token");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Ticket<'a> {
    /// The session's name: 1 to 64 characters, as a header may have them (`!` to `~`).
    pub sid: Cow<'a, str>,
    /// Its secret, new in every welcome (R9): likewise.
    pub token: Cow<'a, str>,
}

impl fmt::Debug for Ticket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("sid", &self.sid).finish_non_exhaustive()
    }
}

/// A client's first frame.
///
/// ```
/// use bowline::{Greeting, Origin};
/// use bowline::wire::native::{Frame, Hello, decode};
/// let hello = Hello { cid: "sensor-7".into(), ticket: None, auth: None, greeting: Greeting::new(Origin::new(7, 1)) };
/// let text = Frame::Hello(hello.clone()).encode();
/// assert!(text.starts_with(r#"{"type":"hello","v":1,"cid":"sensor-7","origin":"000000000007","epoch":1,"resume":false"#));
/// assert_eq!(decode(text.as_bytes())?, Frame::Hello(hello));
/// # Ok::<(), bowline::wire::native::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello<'a> {
    /// Who it is: 1 to 64 characters, as a header may have them (`!` to `~`).
    pub cid: Cow<'a, str>,
    /// Of the session it wants to go on with; there is one if and only if the greeting asks to resume.
    pub ticket: Option<Ticket<'a>>,
    /// For the application, at most 4 KiB.
    pub auth: Option<Cow<'a, str>>,
    /// What it says of its own messages and of the hub's; `life` is `max_life`.
    pub greeting: Greeting,
}

/// A hub's answer to a hello that it takes.
///
/// ```
/// use bowline::{Greeting, Origin, ResumeRefusal};
/// use bowline::wire::native::{FRAME_LIMIT, Frame, Ticket, Welcome, decode};
/// use core::time::Duration;
/// let welcome = Welcome {
///     ticket: Ticket { sid: "s-1".into(), token: "t-1".into() },
///     reason: Some(ResumeRefusal::Expired),
///     greeting: Greeting::new(Origin::new(9, 4)),
///     heartbeat: Duration::from_secs(20),
///     dead: Duration::from_secs(45),
///     window: Duration::from_secs(5),
///     frame: FRAME_LIMIT,
/// };
/// let text = Frame::Welcome(welcome.clone()).encode();
/// assert!(text.contains(r#""resumed":false,"reason":"expired""#));
/// assert_eq!(decode(text.as_bytes())?, Frame::Welcome(welcome));
/// # Ok::<(), bowline::wire::native::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Welcome<'a> {
    /// For the next hello.
    pub ticket: Ticket<'a>,
    /// Why it was not resumed, if that was asked for.
    pub reason: Option<ResumeRefusal>,
    /// What it says of its own messages and of the client's; `resume` is `resumed`, `life` is `dedupe_ttl`.
    pub greeting: Greeting,
    /// How often it pings.
    pub heartbeat: Duration,
    /// After what silence it ends a connection.
    pub dead: Duration,
    /// Over what span to spread a reconnect (B2).
    pub window: Duration,
    /// The longest frame that it takes, in bytes.
    pub frame: usize,
}

/// Why a hub does not take a client.
///
/// ```
/// use bowline::ResumeRefusal;
/// use bowline::wire::native::Refusal;
/// assert_eq!(Refusal::parse("epoch"), Some(Refusal::Resume(ResumeRefusal::Epoch)));
/// assert_eq!(Refusal::Horizon.as_str(), "horizon");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// Of the session it asked for: in practice [`ResumeRefusal::Epoch`] and [`ResumeRefusal::Identity`].
    Resume(ResumeRefusal),
    /// The application does not know it.
    Auth,
    /// It may repeat a message for longer than the hub remembers one (S12).
    Horizon,
}

impl Refusal {
    /// As the wire spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resume(reason) => reason.as_str(),
            Self::Auth => "auth",
            Self::Horizon => "horizon",
        }
    }

    /// From the wire's spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let own = [Self::Auth, Self::Horizon].into_iter().find(|refusal| refusal.as_str() == text);
        own.or_else(|| ResumeRefusal::parse(text).map(Self::Resume))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// From where on a subscriber wants a topic's events.
///
/// ```
/// use bowline::wire::native::{Frame, Position, Since};
/// let since = Some(Since::After(Position { epoch: 3, offset: 17 }));
/// let frame = Frame::Subscribe { topic: "training.*".into(), since };
/// assert_eq!(frame.encode(), r#"{"type":"subscribe","topic":"training.*","since":{"epoch":3,"offset":17}}"#);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Since {
    /// From the oldest one that is kept.
    Oldest,
    /// From the one behind this, which it has.
    After(Position),
}

/// A place in the history of a topic.
///
/// ```
/// use bowline::wire::native::Position;
/// assert!(Position { epoch: 1, offset: 9 } < Position { epoch: 2, offset: 1 });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// Which history: it grows when one begins anew.
    pub epoch: u32,
    /// Which event in it.
    pub offset: u64,
}

/// The body of a poll: marks, and for how long it may be kept waiting.
///
/// ```
/// use bowline::{Report, Seq};
/// use bowline::wire::native::{Frame, Malformed, Poll};
/// use core::time::Duration;
/// let poll = Poll { report: Report::nothing(64), una: Seq::FIRST, wait: Duration::from_secs(20) };
/// let text = Frame::Poll(poll).encode();
/// assert_eq!(text, r#"{"type":"ping","n":0,"cum":0,"rcv":0,"win":64,"una":1,"wait":20000}"#);
/// assert_eq!(Poll::decode(text.as_bytes())?, poll);
/// # Ok::<(), Malformed>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Poll {
    /// What has come of the hub's messages.
    pub report: Report,
    /// Of the client's own messages.
    pub una: Seq,
    /// At most [`MAX_WAIT`].
    pub wait: Duration,
}
