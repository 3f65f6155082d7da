//! The names a hub gives, its reasons, and what it says.

use super::replay::Replayed;
use super::table::Key;
use super::topics::{Position, TopicName};
use crate::ids::{MessageId, PostId, RequestId};
use crate::inbox::{Answer, Arrival};
use crate::resume::{Greeting, ResumeRefusal};
use crate::route::HttpTimeouts;
use crate::session::{Event, Frame};
use core::fmt;
use core::time::Duration;

/// Who a peer is, proved by its signature: a keyed hash of its name, so that nobody can make two fall together.
///
/// ```
/// use bowline::hub::Identity;
/// assert_eq!(Identity::from_bits(7).bits(), 7);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    high: u64,
    low: u64,
}

impl Identity {
    /// The identity with these bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self { high: (bits >> 64) as u64, low: bits as u64 }
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    pub(super) const fn hash(self) -> u64 {
        self.low
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.bits())
    }
}

/// A connection of a hub's, from its admission to its end; never given twice.
///
/// ```
/// # use bowline::hub::ConnId;
/// fn is_a_key<T: Ord + Copy>() {}
/// is_a_key::<ConnId>();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(super) Key);

impl ConnId {
    /// Its place, below the number of connections there may be: an adapter can keep its sockets in a vector.
    #[must_use]
    pub const fn place(self) -> usize {
        self.0.index() as usize
    }

    /// As a number, for logs.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.bits()
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn {:?}", self.0)
    }
}

/// A session of a hub's, from the first word of its identity to its end; never given twice.
///
/// ```
/// # use bowline::hub::SessionId;
/// fn is_a_key<T: Ord + Copy>() {}
/// is_a_key::<SessionId>();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) Key);

impl SessionId {
    /// Its place, below the number of sessions there may be.
    #[must_use]
    pub const fn place(self) -> usize {
        self.0.index() as usize
    }

    /// As a number, for logs.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.bits()
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {:?}", self.0)
    }
}

/// Why a hub refuses or ends a connection or a request.
///
/// ```
/// use bowline::hub::CloseReason;
/// assert_eq!((CloseReason::Draining.code(), CloseReason::Draining.status()), (1012, 503));
/// assert_eq!((CloseReason::Replaced.code(), CloseReason::Impostor.status()), (4003, 401));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseReason {
    /// There is no place for another one.
    Full,
    /// More at once, or in so short a time, than is allowed; come back later.
    Rate,
    /// More messages or bytes than are allowed, again and again.
    Flood,
    /// The hub is going down.
    Draining,
    /// It did not say who it is in time.
    Silent,
    /// It is not who it says it is.
    Impostor,
    /// Its word had been said before.
    Replayed,
    /// Its clock and ours are further apart than the tolerance.
    WrongClock,
    /// It said that before this hub, or its memory of nonces, began, so that nobody can tell whether it is a repetition; come
    /// back later.
    Unjudged,
    /// It is nobody the application knows.
    Unknown,
    /// The application cannot say yet; come back later.
    Later,
    /// Another connection of the same identity has its place.
    Replaced,
    /// Its identity is connected, and stays so.
    Duplicate,
    /// Two places fight for one identity.
    War,
    /// It reads too slowly.
    Slow,
    /// It breaks the protocol.
    Violation,
    /// A frame was longer than allowed.
    TooLarge,
    /// The application does not want it any more.
    Dismissed,
    /// Its session has ended.
    Expired,
    /// A later incarnation of it has been here (I3).
    Fenced,
}

impl CloseReason {
    /// Every reason there is.
    pub const ALL: [Self; 20] = [
        Self::Full,
        Self::Rate,
        Self::Flood,
        Self::Draining,
        Self::Silent,
        Self::Impostor,
        Self::Replayed,
        Self::WrongClock,
        Self::Unjudged,
        Self::Unknown,
        Self::Later,
        Self::Replaced,
        Self::Duplicate,
        Self::War,
        Self::Slow,
        Self::Violation,
        Self::TooLarge,
        Self::Dismissed,
        Self::Expired,
        Self::Fenced,
    ];

    /// As a close code (rules U8, U9, R8).
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Full | Self::Rate | Self::Unjudged | Self::Later | Self::Duplicate | Self::War | Self::Slow => 1013,
            Self::Draining | Self::Expired => 1012,
            Self::Silent
            | Self::Impostor
            | Self::Replayed
            | Self::WrongClock
            | Self::Unknown
            | Self::Flood
            | Self::Dismissed
            | Self::Fenced => 1008,
            Self::Replaced => crate::link::REPLACED,
            Self::Violation => 1002,
            Self::TooLarge => 1009,
        }
    }

    /// As the status of an answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Rate | Self::Flood => 429,
            Self::Full | Self::Draining | Self::Unjudged | Self::Later | Self::War | Self::Slow | Self::Expired => 503,
            Self::Silent => 408,
            Self::Impostor | Self::Replayed | Self::WrongClock => 401,
            Self::Unknown | Self::Dismissed => 403,
            Self::Replaced | Self::Duplicate | Self::Fenced => 409,
            Self::Violation => 400,
            Self::TooLarge => 413,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no place left",
            Self::Rate => "too many at once",
            Self::Flood => "too many messages",
            Self::Draining => "going down",
            Self::Silent => "no greeting in time",
            Self::Impostor => "not who it says it is",
            Self::Replayed => "said before",
            Self::WrongClock => "its clock is wrong",
            Self::Unjudged => "said before the memory of nonces began",
            Self::Unknown => "nobody known",
            Self::Later => "not yet",
            Self::Replaced => "another connection has its place",
            Self::Duplicate => "connected already",
            Self::War => "two places fight for one identity",
            Self::Slow => "reads too slowly",
            Self::Violation => "breaks the protocol",
            Self::TooLarge => "frame too long",
            Self::Dismissed => "not wanted any more",
            Self::Expired => "session ended",
            Self::Fenced => "an older self",
        })
    }
}

/// A refusal, and when it is worth coming back: every refused dialer gets a time of its own (rule U8).
///
/// ```
/// use bowline::hub::{Denied, CloseReason};
/// use core::time::Duration;
/// let denied = Denied { why: CloseReason::Full, retry_after: Duration::from_secs(3) };
/// assert_eq!(denied.why.status(), 503);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Denied {
    /// The reason.
    pub why: CloseReason,
    /// For `Retry-After`; zero: no advice.
    pub retry_after: Duration,
}

/// What the adapter and the application found out about a connection that says who it is.
///
/// ```
/// use bowline::hub::Verdict;
/// let ours = Verdict::Accept { http: false };
/// # let _ = ours;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// It is, and may come in.
    Accept {
        /// There is an address where it takes messages by HTTP.
        http: bool,
    },
    /// It is not, or may not: [`CloseReason::Impostor`], [`CloseReason::Unknown`] or another reason.
    Refuse(CloseReason),
    /// It is, and may come in, and it is a native peer that has greeted.
    Greeted {
        /// What it says of itself.
        greeting: Greeting,
        /// Why it cannot be resumed, if the adapter knows a reason: it names a session that nobody knows, or that has ended.
        known: Option<ResumeRefusal>,
    },
    /// Nobody can say at the moment; it should come back after this.
    Later(Duration),
}

/// What became of a frame that came in.
///
/// ```
/// # use bowline::hub::Heard;
/// assert_ne!(Heard::Stale, Heard::Noted);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use]
pub enum Heard {
    /// It is data; hand it to the application, or do not.
    Arrival(super::SessionId, Arrival),
    /// It is understood.
    Noted,
    /// It was not looked at: more than is allowed. The peer should be told, and after sixteen in a row it is closed.
    Limited,
    /// It is data, and its identity has as many bytes at the application as it may have (U12): it was not looked at. The peer
    /// sends it again; a native one should be told to.
    NoRoom,
    /// Its time or its nonce is wrong: it counts as malformed.
    Replayed(Replayed),
    /// Its connection is over, or not authenticated.
    Stale,
}

/// How many a broadcast, or an item of a topic, goes to.
///
/// ```
/// # use bowline::hub::Sent;
/// assert_eq!(Sent::default().reached, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Sent {
    /// It waits for so many connections, and will be written to each as fast as that one reads.
    pub reached: u32,
    /// So many subscribers will never get it. All of them, if there is no place for such an item at all or for its topic;
    /// else those whose filter matches a topic that began with it, and for whom no subscription was free. Subscribers who
    /// are away are neither reached nor refused: it waits for them in history. Always 0 for a broadcast.
    pub refused: u32,
    /// So many are so far behind that they lost this one or an earlier one by it.
    pub dropped: u32,
}

/// How a broadcast is to be treated.
///
/// ```
/// # use bowline::hub::Publish;
/// assert!(!Publish::DEFAULT.snapshot);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Publish {
    /// A later one with the same key makes this one worthless ([`Slow::Conflate`](super::Slow::Conflate)). Default none.
    pub key: Option<u64>,
    /// Whoever connects later gets it too, if no newer one of this kind has been published; whoever that is: `to` is not
    /// asked again. Default false.
    pub snapshot: bool,
}

impl Publish {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self { key: None, snapshot: false };
}

/// Something the adapter should do now.
///
/// ```
/// # use bowline::hub::{Hub, HubOutput, Inline};
/// fn all(hub: &mut Hub<u32, Inline<4>>) -> usize {
///     let mut frames = 0;
///     while let Some(output) = hub.poll() {
///         frames += usize::from(matches!(output, HubOutput::Frame { .. } | HubOutput::Broadcast { .. }));
///     }
///     frames
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use]
pub enum HubOutput<'a, P> {
    /// Find out whether this connection is who it says it is, and report by [`Hub::verified`](super::Hub::verified).
    Verify {
        /// The connection.
        conn: ConnId,
        /// Who it says it is.
        identity: Identity,
    },
    /// It is in: greet it.
    Welcome {
        /// The connection.
        conn: ConnId,
        /// Its session.
        session: SessionId,
        /// The session was there before; a native peer's goes on without a loss, as it was asked to.
        resumed: bool,
        /// Why a native peer's does not.
        reason: Option<ResumeRefusal>,
    },
    /// Send a close frame and report when the connection has ended.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why; the code is [`CloseReason::code`].
        why: CloseReason,
        /// It should come back after this; zero: no advice.
        after: Duration,
    },
    /// Drop this connection now; nothing more is to be reported about it.
    Drop {
        /// The connection.
        conn: ConnId,
    },
    /// Send a frame.
    Frame {
        /// On this connection.
        conn: ConnId,
        /// Of this session.
        session: SessionId,
        /// The frame.
        frame: Frame<'a, P>,
    },
    /// Put a frame into the answer to this poll; [`Answer::Polled`] says that it is complete.
    Carry {
        /// Of this session.
        session: SessionId,
        /// The peer's request.
        request: RequestId,
        /// The frame.
        frame: Frame<'a, P>,
    },
    /// Send a broadcast: the same for everyone, so it can be encoded once.
    Broadcast {
        /// On this connection.
        conn: ConnId,
        /// The payload.
        payload: &'a P,
    },
    /// Send an item of a topic: the same for every subscriber, so it can be encoded once.
    Topic {
        /// On this connection.
        conn: ConnId,
        /// Of this session.
        session: SessionId,
        /// Which topic.
        topic: &'a TopicName,
        /// Its place there.
        position: Position,
        /// The payload.
        payload: &'a P,
    },
    /// Tell a subscriber what it has missed, before what follows.
    Gap {
        /// On this connection.
        conn: ConnId,
        /// Of this session.
        session: SessionId,
        /// Which topic.
        topic: &'a TopicName,
        /// Of the offsets.
        epoch: u32,
        /// The first missed. `None`: what it had is of another stream, so nobody knows how much it missed of that.
        from: Option<u64>,
        /// The last missed: the next item has the offset after it.
        to: u64,
    },
    /// Answer a request.
    Respond {
        /// Of this session.
        session: SessionId,
        /// The peer's request.
        request: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Post a message by HTTP and report by [`Hub::posted`](super::Hub::posted).
    Post {
        /// To this one.
        session: SessionId,
        /// Which try of which message.
        post: PostId,
        /// The id, for `Idempotency-Key`.
        id: MessageId,
        /// What it says.
        payload: &'a P,
        /// How long the request may take (H10).
        timeouts: HttpTimeouts,
    },
    /// Tell the application.
    Event(HubEvent),
}

/// Something the application may want to know.
///
/// ```
/// # use bowline::hub::HubEvent;
/// let event = HubEvent::Fleet { http: true };
/// # let _ = event;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HubEvent {
    /// Something of one session.
    Session {
        /// The session.
        session: SessionId,
        /// What happened to it.
        event: Event,
    },
    /// Broadcasts were lost to one that reads too slowly, or whose connection ended while they waited for it; or a topic
    /// began that it has a filter for, and no subscription was free: it misses that topic until it subscribes again. (What
    /// a subscriber misses of a topic, it is told itself, in its place: [`HubOutput::Gap`].)
    Lost {
        /// The session.
        session: SessionId,
        /// How many.
        count: u32,
    },
    /// Two places fight for one identity; for a while nobody else may take it over.
    War {
        /// The session.
        session: SessionId,
    },
    /// What waits for its turn in this session ([`Arrival::Ahead`]) is to be given back: each is to be completed with
    /// [`Verdict::Retry`](crate::Verdict::Retry), and its sender sends it again. There is no room for the message whose turn
    /// it is, or the peer that could send it is gone (U12).
    GiveBack {
        /// The session.
        session: SessionId,
    },
    /// A session has ended; its messages were settled before.
    Ended {
        /// The session.
        session: SessionId,
        /// Its identity.
        identity: Identity,
        /// The reason.
        why: CloseReason,
    },
    /// A session is subscribed to a topic now, or not any more; only if the settings ask for it. One that is away stays
    /// subscribed. What was taken back before it was told is not told; what a topic that was forgotten in between began
    /// with is told again.
    Presence {
        /// The session.
        session: SessionId,
        /// To this one.
        topic: TopicName,
        /// Whether it is.
        present: bool,
        /// How many are, at the moment of telling.
        subscribers: u32,
    },
    /// So few are connected that those who are not should be served by HTTP; or enough again (rule P8).
    Fleet {
        /// Whether HTTP should be used.
        http: bool,
    },
    /// The drain is over.
    Drained {
        /// Messages that had not ended and were abandoned; each was reported.
        abandoned: u64,
    },
}

/// How a hub stands; the numbers belong to one moment.
///
/// ```
/// # use bowline::hub::Health;
/// let health = Health::default();
/// assert_eq!(health.connections, health.sessions - health.suspended);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Health {
    /// Authenticated connections.
    pub connections: usize,
    /// Of these, heard from within the last one to two spans of `idle`.
    pub active: usize,
    /// Connections that have not authenticated, or wait for the verdict about another.
    pub pending: usize,
    /// Connections in their close handshake.
    pub closing: usize,
    /// Identities known.
    pub sessions: usize,
    /// Of these, not connected.
    pub suspended: usize,
    /// Messages accepted for peers and not ended.
    pub backlog: usize,
    /// Messages at the application.
    pub held: usize,
    /// Their bytes, and those of messages whose session has ended while the application had them.
    pub held_bytes: u64,
    /// The fleet should use HTTP.
    pub fleet_http: bool,
    /// The hub is going down.
    pub draining: bool,
}

/// Counters since the hub began; they only grow.
///
/// ```
/// # use bowline::hub::HubStats;
/// assert_eq!(HubStats::default().admitted, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct HubStats {
    /// Connections let in to say who they are.
    pub handshakes: u64,
    /// Connections authenticated.
    pub admitted: u64,
    /// Of these, with a session that was there before.
    pub resumed: u64,
    /// Connections and requests refused, whatever the reason.
    pub refused: u64,
    /// Connections that another one of their identity replaced.
    pub replaced: u64,
    /// Wars.
    pub wars: u64,
    /// Messages handed to the application.
    pub delivered: u64,
    /// Of these, by HTTP.
    pub delivered_http: u64,
    /// Copies that were not handed over.
    pub duplicates: u64,
    /// Frames and requests refused by a limit.
    pub limited: u64,
    /// Frames and requests refused for their time or nonce.
    pub replays: u64,
    /// Messages for peers accepted.
    pub accepted: u64,
    /// Of these, settled as delivered on a connection.
    pub settled_websocket: u64,
    /// Of these, settled as delivered by HTTP.
    pub settled_http: u64,
    /// Of these, rejected, expired or abandoned.
    pub failed: u64,
    /// Broadcasts published.
    pub broadcasts: u64,
    /// Copies of them given to the adapter.
    pub broadcast_copies: u64,
    /// Copies lost to slow readers and with connections that ended.
    pub lost: u64,
    /// Copies that a newer broadcast made worthless.
    pub conflated: u64,
    /// Items of topics published, or refused for want of a place.
    pub published: u64,
    /// Copies of them given to the adapter.
    pub topic_copies: u64,
    /// Copies of them that their subscribers will never get: there was no place.
    pub refused_copies: u64,
    /// Gaps told to subscribers.
    pub gaps: u64,
}
