//! How two sides that knew each other go on: what each says of itself when a connection begins, and whether anything is
//! lost.
//!
//! ```text
//!  client ── Greeting { who sends, what I have of yours, what I still owe } ──▶ hub
//!  client ◀── Greeting { the same, of the hub } · resumed, or one of six reasons ── hub
//! ```
//!
//! A session is resumed only if nothing is missing in either direction: what one side says it has got must reach to what
//! the other has not forgotten (`gap`), and must not exceed what the other has ever sent (`ahead`). Whether it is asked for
//! is said, never inferred: who has sent and was never answered looks exactly like a newcomer (R3). Whether it is granted
//! or not, what has not ended keeps its number (R4).
//! Rules: I3, R1–R5, S12.

use crate::ids::{Origin, Seq};
use crate::marks::Report;
use core::fmt;
use core::time::Duration;

/// What one side says of itself when a connection begins (R1).
///
/// ```
/// use bowline::{Greeting, Origin};
/// let first = Greeting::new(Origin::new(7, 1));
/// assert!(!first.resume && first.rx.is_none() && first.una == first.next);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Greeting {
    /// Who the sender of its messages is, and in which epoch.
    pub origin: Origin,
    /// A client asks to resume; a hub says that it did.
    pub resume: bool,
    /// What it has of the other side's messages.
    pub rx: Option<Got>,
    /// The first number that it has never sent.
    pub next: Seq,
    /// Its lowest message that has not ended; the number of the next one if all have.
    pub una: Seq,
    /// How many messages behind those in order it takes.
    pub win: u16,
    /// The longest time from a message's first try to its last; of a hub: how long it remembers (S12).
    pub life: Duration,
    /// It wants the other's messages in order (S9).
    pub order: bool,
}

impl Greeting {
    /// Of one that has sent nothing and got nothing.
    #[must_use]
    pub const fn new(origin: Origin) -> Self {
        Self {
            origin,
            resume: false,
            rx: None,
            next: Seq::FIRST,
            una: Seq::FIRST,
            win: 64,
            life: Duration::from_secs(3600),
            order: true,
        }
    }
}

/// What a receiver has, and whose.
///
/// ```
/// use bowline::{Got, Origin, Report};
/// let got = Got { of: Origin::new(7, 1), report: Report::nothing(64) };
/// assert_eq!(got.report.cum().get(), 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Got {
    /// Whose messages it speaks of.
    pub of: Origin,
    /// Its marks.
    pub report: Report,
}

/// Why a session is not resumed although it was asked for, or, of an older self, not let in at all (R2, I3).
///
/// ```
/// use bowline::ResumeRefusal;
/// assert_eq!(ResumeRefusal::UnknownSession.as_str(), "unknown_session");
/// assert_eq!(ResumeRefusal::parse("gap"), Some(ResumeRefusal::Gap));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ResumeRefusal {
    /// The hub knows no such session.
    UnknownSession,
    /// It knew it, and its time has passed.
    Expired,
    /// In one direction something is gone.
    Gap,
    /// One side has more than the other knows to have sent.
    Ahead,
    /// A later incarnation of this client has been here.
    Epoch,
    /// The session is somebody else's.
    Identity,
}

impl ResumeRefusal {
    /// Every reason there is.
    pub const ALL: [Self; 6] =
        [Self::UnknownSession, Self::Expired, Self::Gap, Self::Ahead, Self::Epoch, Self::Identity];

    /// As the wire spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSession => "unknown_session",
            Self::Expired => "expired",
            Self::Gap => "gap",
            Self::Ahead => "ahead",
            Self::Epoch => "epoch",
            Self::Identity => "identity",
        }
    }

    /// From the wire's spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    /// Whether it ends the connection: a session of another identity, or one that has moved on, is not given away.
    #[must_use]
    pub const fn refuses(self) -> bool {
        matches!(self, Self::Epoch | Self::Identity)
    }
}

impl fmt::Display for ResumeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
