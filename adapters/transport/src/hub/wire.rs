//! What the hub's engine does not know: who a peer is, what its frames say, and how ours are written.
//!
//! ```text
//!               HubWire                     engine                      HubWire
//!  connects ─▶ guest, or the first ──▶ hello ─▶ verify: holds, authorize ─▶ welcome ─▶
//!              frame: claim
//!  frame ────▶ read ─▶ Heard ────────▶ session ─▶ handler ─▶ verdict ─────▶ confirmation ─▶
//!  POST ─────▶ letter ─▶ Letter ─────▶ session ─▶ handler ─▶ verdict ─────▶ confirmation ─▶ 200
//!              encode ◀────────────── publish, send
//!              once for all            └── to each as fast as it reads ───▶ frame ─▶
//! ```
//!
//! A wire is a value that all lines share, and remembers nothing. Invariants: [`claim`](HubWire::claim),
//! [`holds`](HubWire::holds), [`read`](HubWire::read), [`letter`](HubWire::letter), [`encode`](HubWire::encode) and
//! [`confirmation`](HubWire::confirmation) may compute for a while: they are called without the hub's lock, but for an
//! encoded message that outlived its shelf life. All others are called under it.

use super::message::Ticket;
use crate::http::{Bytes, HttpAnswer, Routes};
use bowline::ContentKey;
use bowline::hub::{CloseReason, Position, Stamp, Start, TopicFilter, TopicName};
use bowline::wire::KeyedHash;
use core::fmt::{Debug, Display};
use core::time::Duration;
use std::borrow::Cow;
use tungstenite::Utf8Bytes;

/// A text frame, checked to be UTF-8 and shared without a copy.
pub type Text = Utf8Bytes;

/// One system's wire, as a hub speaks it. Methods with a body are for what not every wire has.
///
/// A whole system, in which a device says its name first and then what it measures:
///
/// ```
/// use bowline::wire::KeyedHash;
/// use bowline_transport::hub::{Admission, Claim, Complaint, Content, Heard, HubSetup, HubWire, Said, Text};
/// use bowline_transport::http::{Bytes, Routes};
/// use std::borrow::Cow;
///
/// #[derive(Debug)]
/// struct Lines;
///
/// impl HubWire for Lines {
///     type Peer = String;
///     type Proof = ();
///     type Confirmation = ();
///     type Encoded = String;
///
///     const LONGEST_FRAME: usize = 4096;
///
///     fn routes(&self) -> Routes<'static> {
///         Routes { websockets: &["/devices"], guarded: true, ..Routes::NONE }
///     }
///
///     fn claim(&self, _: &KeyedHash, text: &str) -> Option<Claim<Self>> {
///         let name = text.strip_prefix("I am ")?;
///         Some(Claim { peer: name.to_owned(), proof: (), stamp: None })
///     }
///
///     fn holds(&self, peer: &String, (): &()) -> bool {
///         !peer.is_empty()
///     }
///
///     fn read(&self, _: &KeyedHash, _: &String, text: &Bytes) -> Heard {
///         let content = Content { kind: "measured".into(), data: text.clone(), id: None };
///         Heard { said: Said::Message(content), ..Heard::OTHER }
///     }
///
///     fn encode(&self, kind: &str, data: &str) -> Result<String, Cow<'static, str>> {
///         Ok(format!("{kind} {data}"))
///     }
///
///     fn size(encoded: &String) -> usize {
///         encoded.len()
///     }
///
///     fn frame(&self, encoded: &String, _: &String) -> Text {
///         encoded.as_str().into()
///     }
///
///     fn complain(&self, _: &String, complaint: Complaint<'_>) -> Option<Text> {
///         Some(format!("error {complaint}").into())
///     }
/// }
///
/// let config = bowline::hub::HubConfig { ttl: core::time::Duration::from_secs(600), ..bowline::hub::HubConfig::DEFAULT };
/// let setup = HubSetup::with("127.0.0.1:0", Lines, config)?
///     .on("measured", |message| async move {
///         println!("{}: {} bytes", message.peer(), message.data().len());
///         Ok::<_, String>(())
///     })
///     .authorize(|_| Admission::accept());
/// # bowline_transport::hub::Hub::new(setup, |_| {})?; // it can be built
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait HubWire: Debug + Send + Sync + Sized + 'static {
    /// Who a peer is. Its text tells any two apart.
    type Peer: Clone + Ord + Display + Debug + Send + Sync + 'static;
    /// What a newcomer shows for being who it says it is.
    type Proof: Send + 'static;
    /// What the application says of a message that it has processed; `()` where there is nothing to say.
    type Confirmation: From<()> + PartialEq + Debug + Send + Sync + 'static;
    /// A message of ours, encoded for all who get it.
    type Encoded: Debug + Send + Sync + 'static;

    /// The longest frame that is read of a known peer, and the longest body of a request, in bytes.
    const LONGEST_FRAME: usize;

    /// The longest frame that is read of a newcomer.
    const LONGEST_FIRST: usize = Self::LONGEST_FRAME;

    /// The longest frame that is written, in bytes: what a peer reads. A longer message is refused when it is sent or
    /// published, and so is one that native peers could not read, if there may be any.
    const LONGEST_SENT: usize = 1 << 20;

    /// An encoded message that has waited longer than this is encoded anew: once, for all who get it then.
    const SHELF_LIFE: Option<Duration> = None;

    /// Whom monitors and interfaces that ask for the hub's health are told they talk to; with it come the numbers of
    /// `connected_clients` and `active_channels`, as they know them.
    const SERVICE: Option<&'static str> = None;

    /// Whether text in a binary frame is read like text in a text frame (rule N1): some libraries send binary frames unless
    /// they are told otherwise. Default true; false, where such a frame is malformed, for a system whose own hub takes none.
    const READS_BINARY: bool = true;

    /// What may be asked of the hub's listener. They must be [`guarded`](Routes::guarded): the hub decides about each
    /// connection before it becomes a WebSocket. Pages end with `health`, `stats` or `metrics`, and no path means two things.
    fn routes(&self) -> Routes<'static>;

    /// Who a newcomer is that has said nothing yet; `None`: its first frame says so, and it is not read beyond that.
    fn guest(&self) -> Option<Claim<Self>> {
        None
    }

    /// Who the first frame says its sender is; `None`: it says nothing of that kind, and its sender is turned away.
    fn claim(&self, names: &KeyedHash, text: &str) -> Option<Claim<Self>> {
        let _ = (names, text);
        None
    }

    /// Whether the peer is who it says it is. Only then the application is asked whether it may come in.
    fn holds(&self, peer: &Self::Peer, proof: &Self::Proof) -> bool;

    /// The peer that a native client of this name is (PROTOCOL.md, section 8); `None`: none can be. It has a session of its
    /// own, also where somebody on this wire has the same name.
    fn named(&self, cid: &str) -> Option<Self::Peer> {
        let _ = cid;
        None
    }

    /// What a text frame of this peer's says.
    fn read(&self, names: &KeyedHash, peer: &Self::Peer, text: &Bytes) -> Heard;

    /// What was posted to one of the callbacks, and by whom.
    ///
    /// # Errors
    /// What is wrong with it.
    fn letter(&self, names: &KeyedHash, body: &Bytes) -> Result<Letter<Self::Peer>, Misread> {
        let _ = (names, body);
        Err(Misread::Malformed("no such message".into()))
    }

    /// Whether the answer to a POST of a message to a peer is that peer's own word (rule H8; see
    /// [`Wire::is_peers`](crate::Wire::is_peers), and what goes wrong there). Default: it bears the mark of a Bowline.
    fn is_peers(&self, answer: &HttpAnswer) -> bool {
        answer.is_marked()
    }

    /// A message of the application's, for whoever gets it.
    ///
    /// # Errors
    /// Why it cannot be said on this wire.
    fn encode(&self, kind: &str, data: &str) -> Result<Self::Encoded, Cow<'static, str>>;

    /// The length of its frame in bytes, rather more than less.
    fn size(encoded: &Self::Encoded) -> usize;

    /// Its frame for this peer.
    fn frame(&self, encoded: &Self::Encoded, to: &Self::Peer) -> Text;

    /// Its frame for this peer as an item of this topic. Default: [`frame`](Self::frame).
    fn item(&self, encoded: &Self::Encoded, to: &Self::Peer, topic: &TopicName) -> Text {
        let _ = topic;
        self.frame(encoded, to)
    }

    /// A message of this kind was published on a topic: for a wire that answers by what it knows of them.
    fn published(&self, kind: &str, data: &str) {
        let _ = (kind, data);
    }

    /// What a peer is subscribed to without asking when it connects; `path` is the last part of where.
    fn topics(&self, path: &str) -> &[TopicFilter] {
        let _ = path;
        &[]
    }

    /// The same message with its place in a topic's stream, for subscribers who keep account of it: written once for all of
    /// them. `None`: nobody does on this wire.
    fn placed(&self, encoded: &Self::Encoded, topic: &TopicName, at: Position) -> Option<Self::Encoded> {
        let _ = (encoded, topic, at);
        None
    }

    /// What a subscriber who keeps account is told of what it has missed for good.
    fn gap(&self, peer: &Self::Peer, gap: &Gap) -> Option<Text> {
        let _ = (peer, gap);
        None
    }

    /// The first frame that a peer gets when it is let in. `window`: those who lose their connection should spread their
    /// return over this.
    fn welcome(&self, peer: &Self::Peer, window: Duration) -> Option<Text> {
        let _ = (peer, window);
        None
    }

    /// What a message that has an id says, for the rules I5 and I6. Default: the keyed hash of its type and data.
    fn content(&self, names: &KeyedHash, kind: &str, data: &str) -> ContentKey {
        names.content(kind, data)
    }

    /// What a peer is told of its message of this id and [content](Self::content): that it was processed, or why it never can
    /// be.
    fn confirmation(&self, id: &str, content: ContentKey, said: Result<&Self::Confirmation, &str>) -> Option<Text> {
        let _ = (id, content, said);
        None
    }

    /// What a peer is told about a frame of its that came to nothing.
    fn complain(&self, peer: &Self::Peer, complaint: Complaint<'_>) -> Option<Text> {
        let _ = (peer, complaint);
        None
    }

    /// Application-level ping frame, sent in addition to the WebSocket ping.
    fn ping(&self, peer: &Self::Peer) -> Option<Text> {
        let _ = peer;
        None
    }

    /// What a peer is told that asks how it stands: topics that it is subscribed to, 64 at most, since when it is connected
    /// (microseconds since 1970), and how many are.
    fn status(&self, peer: &Self::Peer, topics: &[&str], since: i64, connections: usize) -> Option<Text> {
        let _ = (peer, topics, since, connections);
        None
    }

    /// How a connection is ended. `said`: what the application said when it refused this peer.
    fn farewell(&self, why: CloseReason, said: Option<&str>) -> Farewell {
        Farewell { frame: None, reason: said.map_or_else(|| why.to_string(), str::to_owned).into() }
    }
}

/// Who somebody says it is.
///
/// ```
/// use bowline_transport::hub::{Claim, HubWire};
/// fn name<W: HubWire>(claim: &Claim<W>) -> String {
///     claim.peer.to_string()
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Claim<W: HubWire> {
    /// The peer.
    pub peer: W::Peer,
    /// What it shows for it.
    pub proof: W::Proof,
    /// When it was said, if the wire has protection against replays.
    pub stamp: Option<Stamp>,
}

/// What a frame says.
///
/// ```
/// use bowline_transport::hub::{Heard, Said};
/// assert!(matches!(Heard::OTHER.said, Said::Other));
/// assert!(Heard::OTHER.reply.is_none());
/// ```
#[derive(Clone, Debug)]
pub struct Heard {
    /// What the frame says.
    pub said: Said,
    /// When, if the wire has protection against replays.
    pub stamp: Option<Stamp>,
    /// What is answered, unless it was too much or said before.
    pub reply: Option<Text>,
}

impl Heard {
    /// Life, and nothing else.
    pub const OTHER: Self = Self { said: Said::Other, stamp: None, reply: None };
    /// Not understood.
    pub const MALFORMED: Self = Self { said: Said::Malformed, stamp: None, reply: None };
}

/// The parts of what a frame may say that the engine acts upon.
///
/// ```
/// use bowline_transport::hub::Said;
/// assert!(!matches!(Said::Other, Said::Malformed));
/// ```
#[derive(Clone, Debug)]
pub enum Said {
    /// Nothing the engine has to do with; it is life.
    Other,
    /// It is not understood; sixteen of these without a message between them end the connection.
    Malformed,
    /// The answer to a ping: what was sent before that has arrived.
    Pong,
    /// It asks how it stands: the answer is [`status`](HubWire::status).
    Status,
    /// A message for the application.
    Message(Content),
    /// It wants to hear of a topic, or of several.
    Subscribe(Box<Wish>),
    /// It does not any more.
    Unsubscribe(Box<Wish>),
}

/// A peer's wish about topics, and what is said when it is granted or not.
///
/// ```
/// use bowline::hub::{Start, TopicFilter};
/// use bowline_transport::hub::Wish;
/// let all = Wish { filter: TopicFilter::new("training.**")?, since: Some(Start::Oldest), yes: None, no: None };
/// assert!(all.since.is_some());
/// # Ok::<(), bowline::hub::BadTopic>(())
/// ```
#[derive(Clone, Debug)]
pub struct Wish {
    /// The filter.
    pub filter: TopicFilter,
    /// From where on, for a subscriber who keeps account of where it is: from now on all it gets is
    /// [`placed`](HubWire::placed), and it is told of every [`gap`](HubWire::gap). `None`: it takes what comes.
    pub since: Option<Start>,
    /// The answer when it is granted.
    pub yes: Option<Text>,
    /// The answer when it is not.
    pub no: Option<Text>,
}

/// What a subscriber has missed for good.
///
/// ```
/// use bowline::hub::TopicName;
/// use bowline_transport::hub::Gap;
/// let gap = Gap { topic: TopicName::new("training")?, epoch: 7, from: Some(3), to: 9 };
/// assert!(gap.from.is_some_and(|from| from <= gap.to));
/// # Ok::<(), bowline::hub::BadTopic>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gap {
    /// Of which topic.
    pub topic: TopicName,
    /// Of the stream that counts now.
    pub epoch: u32,
    /// The first that is missing; `None`: what it had is of another stream, nobody knows how much is missing.
    pub from: Option<u64>,
    /// The last that is missing; before `from` if nothing of this stream is.
    pub to: u64,
}

/// A message for the application.
///
/// ```
/// use bowline_transport::hub::Content;
/// let content = Content { kind: "ready".into(), data: "{}".into(), id: None };
/// assert_eq!(content.kind, "ready");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// Its type: handlers are named for it.
    pub kind: Cow<'static, str>,
    /// Its data, as it came.
    pub data: Bytes,
    /// By which it is confirmed, and known again if it comes twice.
    pub id: Option<Box<str>>,
}

/// What somebody posted.
///
/// ```
/// use bowline_transport::hub::{Heard, Letter};
/// let letter = Letter { peer: "device 7", heard: Heard::OTHER };
/// assert_eq!(letter.peer, "device 7");
/// ```
#[derive(Clone, Debug)]
pub struct Letter<P> {
    /// Who: that is proved.
    pub peer: P,
    /// What the frame says.
    pub heard: Heard,
}

/// Why what was posted is not looked at.
///
/// ```
/// use bowline_transport::hub::Misread;
/// assert_ne!(Misread::Malformed("not JSON".into()), Misread::Forged);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Misread {
    /// It is no message: answered with 400 and this.
    Malformed(Cow<'static, str>),
    /// It is not by whom it says it is: answered with 401, and its address is soon heard no more.
    Forged,
}

/// What is wrong with a frame.
///
/// ```
/// use bowline_transport::hub::Complaint;
/// assert_eq!(Complaint::Unhandled("tea").to_string(), "nobody takes messages of type tea");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Complaint<'a> {
    /// It is not understood, or was said before.
    Malformed,
    /// A member of a message is missing or wrong (rule E4).
    Member {
        /// Its name.
        member: &'static str,
        /// The message's id, if it has one.
        id: Option<&'a str>,
    },
    /// Its id, which is this, was used for another message before (rule I5).
    Reused(&'a str),
    /// The time at which it was signed is wrong, or cannot be judged (rule U11).
    Timestamp {
        /// What is wrong with it.
        why: &'a str,
        /// The message's id, if it has one.
        id: Option<&'a str>,
    },
    /// It is more than is allowed; it was not looked at.
    TooMuch,
    /// It is a message of a type that nobody takes.
    Unhandled(&'a str),
}

impl Display for Complaint<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Malformed => f.write_str("not understood"),
            Self::Member { member, id: None } => write!(f, "{member} is missing or wrong"),
            Self::Member { member, id: Some(id) } => write!(f, "{member} of {id} is missing or wrong"),
            Self::Reused(id) => write!(f, "the id {id} was used for another message"),
            Self::Timestamp { why, id: None } => f.write_str(why),
            Self::Timestamp { why, id: Some(id) } => write!(f, "{why}, in {id}"),
            Self::TooMuch => f.write_str("too much"),
            Self::Unhandled(kind) => write!(f, "nobody takes messages of type {kind}"),
        }
    }
}

/// The last words on a connection.
///
/// ```
/// use bowline_transport::hub::Farewell;
/// assert_eq!(Farewell::default().reason, "");
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Farewell {
    /// A frame before the close frame, for a peer that was not let in.
    pub frame: Option<Text>,
    /// The close frame's reason; what is beyond 120 bytes is left out.
    pub reason: Cow<'static, str>,
}

impl Ticket {
    /// The id by which its message is confirmed, and what it says.
    pub(super) fn name(&self) -> Option<(&str, ContentKey)> {
        self.id.as_ref().map(|(_, name)| (&*name.id, name.content))
    }
}
