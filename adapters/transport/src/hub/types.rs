//! What a hub asks of its adapter, and what it tells the application.

use super::Line;
use super::wire::HubWire;
use crate::explanation::Excerpt;
use crate::http::{Bytes, Target};
use crate::node::Settlement;
use async_channel::Receiver;
use bowline::hub::{BadTopic, CloseReason, ConnId, SessionId, TopicName, TopicsFull};
use bowline::{HttpTimeouts, MessageId, Outcome, PostId, Reason, Refusal};
use core::fmt;
use core::net::IpAddr;
use core::pin::Pin;
use core::time::Duration;
use std::borrow::Cow;
use std::sync::Arc;

/// What the adapter should do.
///
/// ```
/// use bowline_transport::hub::{Action, HubWire};
/// fn is_urgent<W: HubWire>(action: &Action<W>) -> bool {
///     matches!(action, Action::Wake)
/// }
/// ```
pub enum Action<W: HubWire> {
    /// Run this to its end, or until this time is over.
    Run {
        /// The work.
        job: Pin<Box<dyn Future<Output = ()> + Send>>,
        /// How long at most.
        limit: Option<Duration>,
    },
    /// Call [`Hub::writable`](super::Hub::writable) whenever this line can be written, until it says that it is enough.
    Watch(Arc<Line<W>>),
    /// Forget this connection and close its socket.
    Drop(ConnId),
    /// Post and report by [`Hub::posted`](super::Hub::posted).
    Post {
        /// Of this session.
        session: SessionId,
        /// Which try of which message.
        post: PostId,
        /// The `Idempotency-Key`.
        id: MessageId,
        /// Where to.
        target: Target,
        /// The body.
        body: Bytes,
        /// How long it may take (rule H10).
        timeouts: HttpTimeouts,
    },
    /// Call [`Hub::turn`](super::Hub::turn) as soon as the task that runs now has let others run: something is to be written,
    /// or its time is earlier than it said last.
    Wake,
}

/// Something the application may want to know.
///
/// ```
/// use bowline_transport::hub::Event;
/// assert_ne!(Event::<u32>::Fleet { http: true }, Event::Fleet { http: false });
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event<P> {
    /// A peer is connected and authenticated.
    Connected {
        /// The peer.
        peer: P,
        /// Its session was there before.
        resumed: bool,
    },
    /// A peer's connection has ended; its session goes on.
    Disconnected {
        /// The peer.
        peer: P,
        /// Why it ended.
        reason: Reason,
        /// What its close frame or the system said.
        text: Option<Excerpt>,
    },
    /// Broadcasts were lost to one that reads too slowly.
    Lost {
        /// The peer.
        peer: P,
        /// How many.
        count: u32,
    },
    /// Numbered messages of a native peer that will never come: they ended there, or its memory of them is lost.
    Gap {
        /// The peer.
        peer: P,
        /// The first.
        from: u64,
        /// The last; nobody knows it if the peer began anew.
        to: Option<u64>,
    },
    /// A peer has used the id of a message again for another one, which was not taken (rule I5).
    IdReused {
        /// The peer.
        peer: P,
        /// How many such messages its session has refused so far.
        total: u64,
    },
    /// Two places fight for one name; for a while nobody else may take it over.
    War {
        /// The peer.
        peer: P,
    },
    /// A session has ended; its messages were settled before.
    Ended {
        /// The peer.
        peer: P,
        /// The reason.
        why: CloseReason,
    },
    /// A peer is subscribed to a topic now, or not any more; only told if `topics.presence` is set.
    Presence {
        /// The peer.
        peer: P,
        /// To what.
        topic: TopicName,
        /// Whether it is.
        present: bool,
        /// How many are.
        subscribers: u32,
    },
    /// A connection or a request was turned away. Of one reason sixteen at once are told, then one a second; of one address
    /// four at once, then one in 16 s; each is counted by its reason in [`Counters`](super::Counters) (rule E4).
    TurnedAway {
        /// Where it came from, if that is known.
        address: Option<IpAddr>,
        /// Who it said it was, if it came so far; nothing proves it.
        peer: Option<P>,
        /// The reason.
        why: CloseReason,
        /// What the application said of it.
        text: Option<Excerpt>,
        /// How many more were turned away, without an event, since the last event.
        untold: u64,
    },
    /// So few are connected that those who are not are served by HTTP; or enough again (rule P8).
    Fleet {
        /// Whether HTTP is used.
        http: bool,
    },
    /// The drain is over.
    Drained {
        /// Messages that had not ended and were abandoned.
        abandoned: u64,
    },
}

/// Why a message for a peer was not accepted.
///
/// ```
/// use bowline_transport::hub::Refused;
/// assert_eq!(Refused::Unknown.to_string(), "this peer has no session");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// By the session: full, too large, closed.
    Session(Refusal),
    /// This peer has no session: it has never been connected, or its session has ended.
    Unknown,
    /// There is no place for another session, or the hub is going down.
    Full,
    /// A type of 1 to 64 bytes is needed.
    Kind,
    /// That is no topic's name, or no filter.
    Topic(BadTopic),
    /// There is no place for another subscription.
    Topics(TopicsFull),
    /// It is nothing that could be said on this wire, and why.
    Data(Cow<'static, str>),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(refusal) => refusal.fmt(f),
            Self::Unknown => f.write_str("this peer has no session"),
            Self::Full => f.write_str("no place for another session"),
            Self::Kind => f.write_str("no type of 1 to 64 bytes"),
            Self::Topic(why) => why.fmt(f),
            Self::Topics(why) => why.fmt(f),
            Self::Data(why) => f.write_str(why),
        }
    }
}

impl core::error::Error for Refused {}

/// Where the end of a message for one peer will be told.
///
/// ```
/// # use bowline_transport::hub::Receipt;
/// async fn arrived(receipt: Receipt) -> bool {
///     matches!(receipt.settled().await.outcome, bowline::Outcome::Delivered { .. })
/// }
/// # let _ = arrived;
/// ```
#[derive(Debug)]
pub struct Receipt(pub(super) Receiver<Settlement>);

impl Receipt {
    /// Waits for the end: a native peer's word, another's pong behind the message, its answer by HTTP, or no way to it
    /// any more.
    pub async fn settled(self) -> Settlement {
        self.0.recv().await.unwrap_or(Settlement {
            outcome: Outcome::Abandoned,
            took: Duration::ZERO,
            reason: Some(Reason::Ours),
        })
    }
}

/// A session, as the hub sees it.
///
/// ```
/// # use bowline_transport::hub::SessionInfo;
/// fn connected(sessions: &[SessionInfo<String>]) -> usize {
///     sessions.iter().filter(|session| session.connected).count()
/// }
/// # let _ = connected;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionInfo<P> {
    /// The peer.
    pub peer: P,
    /// Whether it has a connection.
    pub connected: bool,
    /// Whether it takes messages by HTTP.
    pub receiver: bool,
}
