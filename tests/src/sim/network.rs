//! The weather: what the network does to a dial, to bytes on a connection, and to a request.
//!
//! Party 0 dials, party 1 accepts. A silent direction holds its bytes without an error, as a lost route does; when it is
//! lifted they arrive, unless the connection has ended meanwhile. Everything is what it is until it is changed.

use bowline::{HttpOutcome, Reason, RetryHint};
use core::time::Duration;

/// What becomes of a dial.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dial {
    /// It reaches the acceptor.
    Open,
    /// It fails at once, with this reason and hint.
    Fails(Reason, RetryHint),
    /// Nothing is ever heard of it.
    Hangs,
    /// Something opens it and closes it again with this code (1006: without a close frame).
    OpensThenCloses(u16),
}

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Http {
    /// It reaches the peer, and the answer comes back.
    Open,
    /// The peer gets it twice.
    Twice,
    /// The peer gets it, the answer is lost.
    LosesAnswer,
    /// Neither is known.
    LosesRequest,
    /// Nothing is ever heard of it: its own deadline ends it.
    Hangs,
    /// Something answers for the peer.
    Says(HttpOutcome),
}

/// The network between the two parties.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The least time a byte takes.
    pub delay: Duration,
    /// At most so much is added to it, drawn each time.
    pub jitter: Duration,
    /// For new connections.
    pub dial: Dial,
    /// Whether bytes from this party are held.
    pub silent: [bool; 2],
    /// Whether this party's socket takes no more bytes.
    pub full: [bool; 2],
    /// Whether greetings stay away.
    pub mute: bool,
    /// A larger data frame is answered with 1009.
    pub largest: u32,
    /// The bytes a second of each direction of each connection; `None`: any number.
    pub rate: Option<u32>,
    /// For new requests.
    pub http: Http,
}

impl Network {
    /// Everything works, in 20 to 30 ms.
    pub const FAIR: Self = Self {
        delay: Duration::from_millis(20),
        jitter: Duration::from_millis(10),
        dial: Dial::Open,
        silent: [false; 2],
        full: [false; 2],
        mute: false,
        largest: u32::MAX,
        rate: None,
        http: Http::Open,
    };

    /// Whether bytes are held in some direction: then a dial comes to nothing either.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.silent[0] || self.silent[1]
    }
}
