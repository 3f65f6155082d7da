//! What a hub asks of its adapter, and what it tells the application.

use super::Line;
use crate::http::{Bytes, Target};
use crate::keys::Hotkey;
use crate::node::Settlement;
use async_channel::Receiver;
use bowline::hub::{ConnId, SessionId, Why};
use bowline::wire::canonical::Uncanonical;
use bowline::{Cause, MessageId, Outcome, PostId, Refusal};
use core::fmt;
use core::pin::Pin;
use core::time::Duration;
use std::sync::Arc;

/// What the adapter should do.
///
/// ```
/// use bowline_transport::hub::Action;
/// assert!(matches!(Action::Wake, Action::Wake));
/// ```
pub enum Action {
    /// Run this to its end, or until this time is over.
    Run {
        /// What.
        job: Pin<Box<dyn Future<Output = ()> + Send>>,
        /// How long at most.
        limit: Option<Duration>,
    },
    /// Call [`Hub::writable`](super::Hub::writable) whenever this line can be written, until it says that it is enough.
    Watch(Arc<Line>),
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
        /// For connecting, sending and the answer together.
        deadline: Duration,
    },
    /// Call [`Hub::turn`](super::Hub::turn): its time is earlier than it said last.
    Wake,
}

/// Something the application may want to know.
///
/// ```
/// use bowline_transport::hub::Event;
/// assert_ne!(Event::Fleet { http: true }, Event::Fleet { http: false });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A miner is connected and authenticated.
    Connected {
        /// Which.
        hotkey: Hotkey,
        /// Its session was there before.
        resumed: bool,
    },
    /// A miner's connection has ended; its session goes on.
    Disconnected {
        /// Which.
        hotkey: Hotkey,
        /// Why.
        cause: Cause,
    },
    /// Broadcasts were lost to one that reads too slowly.
    Lost {
        /// Which.
        hotkey: Hotkey,
        /// How many.
        count: u32,
    },
    /// Two places fight for one hotkey; for a while nobody else may take it over.
    War {
        /// Which.
        hotkey: Hotkey,
    },
    /// A session has ended; its messages were settled before.
    Ended {
        /// Whose.
        hotkey: Hotkey,
        /// Why.
        why: Why,
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

/// Why a message for a miner was not accepted.
///
/// ```
/// use bowline_transport::hub::Refused;
/// assert_eq!(Refused::Unknown.to_string(), "this hotkey has no session");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// By the session: full, too large, closed.
    Session(Refusal),
    /// This hotkey has no session: it has never been connected, or its session has ended.
    Unknown,
    /// There is no place for another session, or the hub is going down.
    Full,
    /// A type of 1 to 64 bytes is needed.
    Kind,
    /// It is no data that could be signed.
    Data(Uncanonical),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(refusal) => refusal.fmt(f),
            Self::Unknown => f.write_str("this hotkey has no session"),
            Self::Full => f.write_str("no place for another session"),
            Self::Kind => f.write_str("no type of 1 to 64 bytes"),
            Self::Data(why) => why.fmt(f),
        }
    }
}

impl core::error::Error for Refused {}

/// Where the end of a message for one miner will be told.
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
    /// Waits for the end: a miner's pong behind the message, its answer by HTTP, or no way to it any more.
    pub async fn settled(self) -> Settlement {
        self.0.recv().await.unwrap_or(Settlement { outcome: Outcome::Abandoned, took: Duration::ZERO })
    }
}

/// A session, as the hub sees it.
///
/// ```
/// # use bowline_transport::hub::SessionInfo;
/// fn connected(sessions: &[SessionInfo]) -> usize {
///     sessions.iter().filter(|session| session.connected).count()
/// }
/// # let _ = connected;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionInfo {
    /// Whose.
    pub hotkey: Hotkey,
    /// Whether it has a connection.
    pub connected: bool,
    /// Whether it takes messages by HTTP.
    pub receiver: bool,
}
