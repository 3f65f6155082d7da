//! Why something ended, was refused, delayed or blocked, and what each reason means for the next attempt: one type, and
//! the close and refusal table as data.
//!
//! ```text
//! Reason ──profile's rules──▶ STANDARD rules ──▶ RetryClass ──▶ Link: how long to wait
//!    └── by() ──▶ Party: who is to blame
//!
//! HttpOutcome ──class()──▶ HttpClass ──▶ Outbox: the message ended, waits, or goes the other way
//!                                  └──▶ Route: the path waits its back-off, or does not
//! ```
//!
//! Machines act on a class and never look at a code themselves. A profile puts its own rules before [`STANDARD`]; the first
//! that matches wins.
//!
//! Invariants: every reason has a party and a class; only the peer's own word ends a message (rule H8).
//! Field bugs: every 4xx taken as fatal; the page of a captive portal taken for a delivery; six causes of a failed dial
//! told by one word.
//! Rules: B4, H8, the close and refusal table, the HTTP outcomes.

use core::fmt;
use core::time::Duration;

/// Why something ended, was refused, delayed or blocked, as far as a number can say it. An adapter adds text: what the
/// peer, the resolver or TLS said.
///
/// ```
/// use bowline::{Party, Reason};
/// assert_eq!(Reason::Closed(1008).by(), Party::Peer);
/// assert_eq!(Reason::NoSuchName.to_string(), "no such name");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// The resolver says that the name does not exist or has no address.
    NoSuchName,
    /// The resolver gave no answer.
    LookupFailed,
    /// Nothing listens at the address: the connection was refused.
    PortClosed,
    /// There is no route to the address.
    Unreachable,
    /// The system refused something else: no descriptor left, no permission.
    System,
    /// TLS failed.
    Tls(TlsFault),
    /// The peer answered plain text with TLS: the URL should say `wss` or `https`.
    SpeaksTls,
    /// The peer's answer to the upgrade is no answer of a WebSocket server.
    NotWebSocket,
    /// The peer does not choose the subprotocol that the profile needs.
    Subprotocol,
    /// A deadline passed: of the attempt (rule B7), or of a request (rule H6).
    Timeout,
    /// A close frame with this code, or 1005 without one, or 1006 for a connection that ended without a close frame
    /// (RFC 6455, section 7.4.1), before an answer too.
    Closed(u16),
    /// This HTTP status, in answer to an upgrade or a request.
    Status(u16),
    /// This HTTP status, in an answer that shows that it is not the peer's: a page of a portal, a proxy's error.
    Foreign(u16),
    /// A frame or an answer was signed by another than the expected peer.
    Signer,
    /// Nothing was heard for too long (rule L1).
    Dead,
    /// The transport answers, but the program behind it has said nothing for too long (rule L10).
    Mute,
    /// A write did not move for the send deadline.
    Stalled,
    /// The peer broke the protocol, such as an acknowledgement of what was never sent (rule S7).
    Violation,
    /// A message was not acknowledged for too long.
    Unanswered,
    /// Another connection of the same peer took the place.
    Replaced,
    /// This side ended it.
    Ours,
    /// A setting forbids it; its name, as `machine.field`.
    Limit(&'static str),
    /// A member of a message is missing or wrong; its name.
    Member(&'static str),
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "peer",
            Self::GoBetween => "go-between",
            Self::Resolver => "resolver",
            Self::Tls => "TLS",
            Self::System => "system",
            Self::Us => "this side",
        })
    }
}

/// What went wrong with TLS.
///
/// ```
/// use bowline::{Reason, TlsFault};
/// assert_eq!(Reason::Tls(TlsFault::Expired).to_string(), "the peer's certificate has expired");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TlsFault {
    /// The peer's certificate has expired.
    Expired,
    /// The peer's certificate is not valid yet.
    NotYetValid,
    /// No trusted root has issued the peer's certificate.
    UnknownIssuer,
    /// The peer's certificate is for another name.
    WrongName,
    /// The peer does not speak TLS at this port.
    NotTls,
    /// The peer refused this side, for instance its certificate.
    Refused,
    /// Anything else.
    Other,
}

/// Who a [`Reason`] comes from.
///
/// ```
/// # use bowline::{Party, Reason};
/// assert_eq!(Reason::Foreign(200).by(), Party::GoBetween);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Party {
    /// The peer, or nothing tells that it was somebody else.
    Peer,
    /// A proxy, a portal, a balancer.
    GoBetween,
    /// The resolver of names.
    Resolver,
    /// TLS.
    Tls,
    /// The operating system or the network.
    System,
    /// This side.
    Us,
}

impl Reason {
    /// Who it comes from.
    #[must_use]
    pub const fn by(self) -> Party {
        match self {
            Self::NoSuchName | Self::LookupFailed => Party::Resolver,
            Self::PortClosed | Self::Unreachable | Self::System => Party::System,
            Self::Tls(_) => Party::Tls,
            Self::Foreign(_) => Party::GoBetween,
            Self::Ours | Self::Limit(_) | Self::Member(_) => Party::Us,
            Self::SpeaksTls
            | Self::NotWebSocket
            | Self::Subprotocol
            | Self::Timeout
            | Self::Closed(_)
            | Self::Status(_)
            | Self::Signer
            | Self::Dead
            | Self::Mute
            | Self::Stalled
            | Self::Violation
            | Self::Unanswered
            | Self::Replaced => Party::Peer,
        }
    }

    /// What to do about it, where the field's answer is known.
    #[must_use]
    pub const fn advice(self) -> Option<&'static str> {
        Some(match self {
            Self::SpeaksTls => "use wss:// or https://",
            Self::Tls(TlsFault::NotTls) => "use ws:// or http://",
            Self::Tls(TlsFault::UnknownIssuer) => "trust its root, or have the peer send its intermediate certificates",
            Self::Tls(TlsFault::Expired) => "renew the peer's certificate, or set this machine's clock",
            Self::Tls(TlsFault::NotYetValid) => "set this machine's clock",
            Self::Tls(TlsFault::WrongName) => "use a name that the certificate is for",
            Self::NoSuchName => "check the name in the URL",
            Self::PortClosed => "check the port, and that the peer runs",
            Self::Status(401 | 403) | Self::Foreign(401 | 403) => "check the credentials",
            Self::Status(407) | Self::Foreign(407) => "the proxy wants credentials",
            Self::Foreign(200..=299) => "something on the way answers in the peer's place: a portal, or a wrong route",
            Self::Subprotocol => "the peer does not speak bowline.1 here",
            Self::LookupFailed
            | Self::Unreachable
            | Self::System
            | Self::Tls(TlsFault::Refused | TlsFault::Other)
            | Self::NotWebSocket
            | Self::Timeout
            | Self::Closed(_)
            | Self::Status(_)
            | Self::Foreign(_)
            | Self::Signer
            | Self::Dead
            | Self::Mute
            | Self::Stalled
            | Self::Violation
            | Self::Unanswered
            | Self::Replaced
            | Self::Ours
            | Self::Limit(_)
            | Self::Member(_) => return None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchName => "no such name",
            Self::LookupFailed => "the name could not be looked up",
            Self::PortClosed => "nothing listens there",
            Self::Unreachable => "no route to the address",
            Self::System => "the system refuses",
            Self::Tls(fault) => return fault.fmt(f),
            Self::SpeaksTls => "the peer speaks TLS",
            Self::NotWebSocket => "the answer is not a WebSocket server's",
            Self::Subprotocol => "the peer does not choose the subprotocol",
            Self::Timeout => "no answer in time",
            Self::Closed(1005 | 1006) => "broken off",
            Self::Closed(code) => return write!(f, "closed with {code}"),
            Self::Status(status) => return write!(f, "answered with {status}"),
            Self::Foreign(status) => return write!(f, "answered with {status}, but not by the peer"),
            Self::Signer => "signed by another than the expected peer",
            Self::Dead => "nothing heard, so it is dead",
            Self::Mute => "the connection answers, the program does not",
            Self::Stalled => "takes no more bytes",
            Self::Violation => "the peer broke the protocol",
            Self::Unanswered => "leaves a message unanswered",
            Self::Replaced => "a newer connection took its place",
            Self::Ours => "closed by this side",
            Self::Limit(setting) => return write!(f, "limited by {setting}"),
            Self::Member(member) => return write!(f, "{member} is missing or wrong"),
        })
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the peer's certificate has expired",
            Self::NotYetValid => "the peer's certificate is not valid yet",
            Self::UnknownIssuer => "no trusted root has issued the peer's certificate",
            Self::WrongName => "the peer's certificate is for another name",
            Self::NotTls => "the peer does not speak TLS",
            Self::Refused => "the peer refuses this side's certificate",
            Self::Other => "TLS failed",
        })
    }
}

/// What an ending means for the next attempt.
///
/// ```
/// use bowline::{Reason, RetryClass, retry_class};
/// assert_eq!(retry_class(&[], Reason::Status(401)), RetryClass::Refused);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RetryClass {
    /// Wait the back-off, then try again.
    Retry,
    /// As `Retry`, drawn over the window that the server announced.
    Spread,
    /// The server is busy: the back-off counts two more failures, and its hint is honoured.
    Slow,
    /// The peer is not ready yet: the profile's ordinary delay, and nothing counts as a failure (Gonka's 1008).
    Wait,
    /// One message was too large: the connection is not blamed (rule F4).
    PerMessage,
    /// A refusal, by the peer or by something on the way: the path is blocked (rule F5), and tried ever more slowly as long
    /// as [`GiveUp`](crate::GiveUp) allows (rule B10).
    Refused,
    /// Another connection has this side's place: do not reconnect (rule R8).
    Replaced,
    /// The end of the session. No row of [`STANDARD`] says so, but one of an application's own may (rule B10).
    Terminal,
}

/// Which causes a row of the table speaks of.
///
/// ```
/// use bowline::CloseMatch;
/// let private = CloseMatch::Close(4000, 4499);
/// # let _ = private;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseMatch {
    /// Close codes from the first to the last, both included.
    Close(u16, u16),
    /// HTTP statuses from the first to the last, both included.
    Status(u16, u16),
    /// This reason exactly.
    Is(Reason),
}

/// One row of the close and refusal table.
///
/// ```
/// use bowline::{Reason, RetryClass, CloseMatch, CloseRule, retry_class};
/// const OURS: &[CloseRule] = &[CloseRule(CloseMatch::Close(1008, 1008), RetryClass::Wait)];
/// assert_eq!(retry_class(OURS, Reason::Closed(1008)), RetryClass::Wait);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CloseRule(pub CloseMatch, pub RetryClass);

/// The rows every profile ends with. Sources: RFC 6455 section 7.4, IANA's registry for 1012 to 1014, and the ranges
/// that Centrifugo and Pusher made customary (3000-3499 and 4000-4499 try again, 3500-3999 and 4500-4999 do not).
pub const STANDARD: &[CloseRule] = &[
    CloseRule(CloseMatch::Close(1002, 1003), RetryClass::Refused),
    CloseRule(CloseMatch::Close(1007, 1008), RetryClass::Refused),
    CloseRule(CloseMatch::Close(1009, 1009), RetryClass::PerMessage),
    CloseRule(CloseMatch::Close(1010, 1010), RetryClass::Refused),
    CloseRule(CloseMatch::Close(1012, 1012), RetryClass::Spread),
    CloseRule(CloseMatch::Close(1013, 1013), RetryClass::Slow),
    CloseRule(CloseMatch::Close(3500, 3999), RetryClass::Refused),
    CloseRule(CloseMatch::Close(4003, 4003), RetryClass::Replaced),
    CloseRule(CloseMatch::Close(4401, 4401), RetryClass::Refused),
    CloseRule(CloseMatch::Close(4409, 4409), RetryClass::Replaced),
    CloseRule(CloseMatch::Close(4500, 4999), RetryClass::Refused),
    // By the endpoint or by a proxy, for as long as that lasts: all but what is told to pass (408, 409, 425, 429).
    CloseRule(CloseMatch::Status(200, 407), RetryClass::Refused),
    CloseRule(CloseMatch::Status(410, 424), RetryClass::Refused),
    CloseRule(CloseMatch::Status(426, 428), RetryClass::Refused),
    CloseRule(CloseMatch::Status(429, 429), RetryClass::Slow),
    CloseRule(CloseMatch::Status(430, 499), RetryClass::Refused),
    CloseRule(CloseMatch::Status(503, 503), RetryClass::Spread),
    // Something answers there, and it is not what was asked for: a portal, another program, another certificate.
    CloseRule(CloseMatch::Is(Reason::Subprotocol), RetryClass::Refused),
    CloseRule(CloseMatch::Is(Reason::NotWebSocket), RetryClass::Refused),
    CloseRule(CloseMatch::Is(Reason::SpeaksTls), RetryClass::Refused),
    CloseRule(CloseMatch::Is(Reason::Signer), RetryClass::Refused),
    CloseRule(CloseMatch::Is(Reason::Tls(TlsFault::Expired)), RetryClass::Refused),
    CloseRule(CloseMatch::Is(Reason::Tls(TlsFault::NotYetValid)), RetryClass::Refused),
    CloseRule(CloseMatch::Is(Reason::Tls(TlsFault::UnknownIssuer)), RetryClass::Refused),
    CloseRule(CloseMatch::Is(Reason::Tls(TlsFault::WrongName)), RetryClass::Refused),
    CloseRule(CloseMatch::Is(Reason::Tls(TlsFault::NotTls)), RetryClass::Refused),
    CloseRule(CloseMatch::Is(Reason::Tls(TlsFault::Refused)), RetryClass::Refused),
    // This side refuses such a peer (rule S7).
    CloseRule(CloseMatch::Is(Reason::Violation), RetryClass::Refused),
    CloseRule(CloseMatch::Is(Reason::Replaced), RetryClass::Replaced),
];

/// The class of `reason`: the first matching row of `own`, then of [`STANDARD`], then [`RetryClass::Retry`].
#[must_use]
pub fn retry_class(own: &[CloseRule], reason: Reason) -> RetryClass {
    let matches = |on: CloseMatch| match (on, reason) {
        (CloseMatch::Close(first, last), Reason::Closed(code)) => (first..=last).contains(&code),
        (CloseMatch::Status(first, last), Reason::Status(status) | Reason::Foreign(status)) => {
            (first..=last).contains(&status)
        }
        (CloseMatch::Is(exact), reason) => exact == reason,
        (CloseMatch::Close(..) | CloseMatch::Status(..), _) => false,
    };
    own.iter().chain(STANDARD).find(|row| matches(row.0)).map_or(RetryClass::Retry, |row| row.1)
}

/// A delay the server asked for: `Retry-After`, or a reconnect window.
///
/// ```
/// use bowline::RetryHint;
/// use core::time::Duration;
/// let hint = RetryHint::after(Duration::from_secs(7));
/// assert_eq!(hint.window, Duration::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct RetryHint {
    /// A lower bound on the delay, cut to ten minutes (rule B4).
    pub after: Duration,
    /// The span over which the clients of this server should spread their first attempt (rule B2).
    pub window: Duration,
}

impl RetryHint {
    /// No advice.
    pub const NONE: Self = Self { after: Duration::ZERO, window: Duration::ZERO };

    /// `Retry-After`.
    #[must_use]
    pub const fn after(after: Duration) -> Self {
        Self { after, window: Duration::ZERO }
    }
}

/// What became of one of this side's HTTP requests, as seen; [`class`](Self::class) says what it means.
///
/// ```
/// use bowline::{HttpClass, HttpOutcome, Reason};
/// assert_eq!(HttpOutcome::status(204).class(), HttpClass::Delivered);
/// assert_eq!(HttpOutcome::foreign(200).class(), HttpClass::DelayPath, "a portal's page is nobody's word");
/// assert_eq!(HttpOutcome::Unknown(Reason::Timeout).reason(), Reason::Timeout);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HttpOutcome {
    /// There was an answer.
    Answered {
        /// Its HTTP status.
        status: u16,
        /// Its `Retry-After`, zero if there was none.
        after: Duration,
        /// It bears a mark of the peer, so that it is not a go-between's; the wire knows by what (rule H8).
        by_peer: bool,
    },
    /// Nothing was sent: no address, no connection, TLS failed.
    Unreached(Reason),
    /// The request may have been processed, but no answer came: a timeout or a reset after it was sent.
    Unknown(Reason),
}

/// What an [`HttpOutcome`] means for the message and for the path.
///
/// ```
/// # use bowline::{HttpClass, HttpOutcome};
/// assert_eq!(HttpOutcome::status(500).class(), HttpClass::DelayMessage);
/// assert_eq!(HttpOutcome::status(503).class(), HttpClass::DelayPath);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HttpClass {
    /// The peer has completed the message: its 2xx.
    Delivered,
    /// The peer will never take the message: its 400, 410, 413 or 422.
    Rejected,
    /// Something on the way does not carry so large a message: 413 without the peer's mark, the mirror of close code 1009
    /// (rule F4).
    TooLarge,
    /// This message waits, no other does: 404, 409, 500; 400, 410 and 422 without the peer's mark.
    DelayMessage,
    /// Every request waits: 401, 403, 407, 429, 502, 503, 504 and every other status, 2xx without the peer's mark, and no
    /// answer.
    DelayPath,
}

impl HttpOutcome {
    /// An answer of the peer's with this status, without `Retry-After`.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::Answered { status, after: Duration::ZERO, by_peer: true }
    }

    /// An answer with this status that does not bear the peer's mark, without `Retry-After`.
    #[must_use]
    pub const fn foreign(status: u16) -> Self {
        Self::Answered { status, after: Duration::ZERO, by_peer: false }
    }

    /// The same answer with this `Retry-After`.
    #[must_use]
    pub const fn with_after(self, after: Duration) -> Self {
        match self {
            Self::Answered { status, by_peer, .. } => Self::Answered { status, after, by_peer },
            Self::Unreached(_) | Self::Unknown(_) => self,
        }
    }

    /// The same answer without the peer's mark.
    #[must_use]
    pub const fn unmarked(self) -> Self {
        match self {
            Self::Answered { status, after, .. } => Self::Answered { status, after, by_peer: false },
            Self::Unreached(_) | Self::Unknown(_) => self,
        }
    }

    /// What it means.
    #[must_use]
    pub const fn class(self) -> HttpClass {
        let Self::Answered { status, by_peer, .. } = self else { return HttpClass::DelayPath };
        match (status, by_peer) {
            (200..=299, true) => HttpClass::Delivered,
            (400 | 410 | 413 | 422, true) => HttpClass::Rejected,
            (413, false) => HttpClass::TooLarge,
            (400 | 404 | 409 | 410 | 422 | 500, _) => HttpClass::DelayMessage,
            _ => HttpClass::DelayPath,
        }
    }

    /// Its `Retry-After`; zero if there was none.
    #[must_use]
    pub const fn after(self) -> Duration {
        match self {
            Self::Answered { after, .. } => after,
            Self::Unreached(_) | Self::Unknown(_) => Duration::ZERO,
        }
    }

    /// The same as a reason.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Answered { status, by_peer: true, .. } => Reason::Status(status),
            Self::Answered { status, by_peer: false, .. } => Reason::Foreign(status),
            Self::Unreached(reason) | Self::Unknown(reason) => reason,
        }
    }

    /// Whether the peer has answered, and not something on the way in its place.
    #[must_use]
    pub const fn by_peer(self) -> bool {
        matches!(self, Self::Answered { by_peer: true, .. })
    }

    /// Whether a native client greets anew after this answer: the endpoint does not know the session or does not let it in
    /// (401, 403, 404 or 410).
    #[must_use]
    pub const fn needs_handshake(self) -> bool {
        matches!(self, Self::Answered { status: 401 | 403 | 404 | 410, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_every_row_of_the_close_and_refusal_table() {
        let expected = [
            (Reason::Closed(1000), RetryClass::Retry),
            (Reason::Closed(1001), RetryClass::Retry),
            (Reason::Closed(1005), RetryClass::Retry),
            (Reason::Closed(1006), RetryClass::Retry),
            (Reason::Closed(1011), RetryClass::Retry),
            (Reason::Closed(1014), RetryClass::Retry),
            (Reason::Closed(1015), RetryClass::Retry),
            (Reason::Closed(3000), RetryClass::Retry),
            (Reason::Closed(3499), RetryClass::Retry),
            (Reason::Closed(4000), RetryClass::Retry),
            (Reason::Closed(4499), RetryClass::Retry),
            (Reason::Closed(1012), RetryClass::Spread),
            (Reason::Status(503), RetryClass::Spread),
            (Reason::Closed(1013), RetryClass::Slow),
            (Reason::Status(429), RetryClass::Slow),
            (Reason::Closed(1002), RetryClass::Refused),
            (Reason::Closed(1003), RetryClass::Refused),
            (Reason::Closed(1007), RetryClass::Refused),
            (Reason::Closed(1008), RetryClass::Refused),
            (Reason::Closed(1009), RetryClass::PerMessage),
            (Reason::Status(401), RetryClass::Refused),
            (Reason::Closed(4401), RetryClass::Refused),
            (Reason::Closed(4003), RetryClass::Replaced),
            (Reason::Closed(4409), RetryClass::Replaced),
            (Reason::Closed(1010), RetryClass::Refused),
            (Reason::Status(403), RetryClass::Refused),
            (Reason::Closed(3500), RetryClass::Refused),
            (Reason::Closed(4999), RetryClass::Refused),
            (Reason::Status(426), RetryClass::Refused),
            (Reason::Status(404), RetryClass::Refused),
            (Reason::Status(200), RetryClass::Refused),
            (Reason::Status(407), RetryClass::Refused),
            (Reason::Status(500), RetryClass::Retry),
            (Reason::PortClosed, RetryClass::Retry),
            (Reason::NoSuchName, RetryClass::Retry),
            (Reason::Tls(TlsFault::Expired), RetryClass::Refused),
            (Reason::Tls(TlsFault::Other), RetryClass::Retry),
            (Reason::SpeaksTls, RetryClass::Refused),
            (Reason::Status(302), RetryClass::Refused),
            (Reason::Status(400), RetryClass::Refused),
            (Reason::Status(408), RetryClass::Retry),
            (Reason::Status(409), RetryClass::Retry),
            (Reason::Status(425), RetryClass::Retry),
            (Reason::Status(502), RetryClass::Retry),
            (Reason::Foreign(401), RetryClass::Refused),
            (Reason::Mute, RetryClass::Retry),
            (Reason::Timeout, RetryClass::Retry),
            (Reason::Dead, RetryClass::Retry),
        ];
        for (reason, class) in expected {
            assert_eq!(retry_class(&[], reason), class, "{reason:?}");
        }
    }

    #[test]
    fn a_profiles_rows_come_first() {
        let own = [CloseRule(CloseMatch::Close(1008, 1008), RetryClass::Wait)];
        assert_eq!(retry_class(&own, Reason::Closed(1008)), RetryClass::Wait);
        assert_eq!(retry_class(&own, Reason::Closed(1009)), RetryClass::PerMessage);
    }

    #[test]
    fn h8_only_the_peers_own_word_ends_a_message() {
        for status in 0..1000 {
            let class = HttpOutcome::status(status).class();
            assert_eq!(class == HttpClass::Delivered, (200..300).contains(&status), "{status}");
            assert_eq!(class == HttpClass::Rejected, [400, 410, 413, 422].contains(&status), "{status}");
            let foreign = HttpOutcome::foreign(status).class();
            assert!(!matches!(foreign, HttpClass::Delivered | HttpClass::Rejected), "{status}: {foreign:?}");
            assert_eq!(foreign == HttpClass::TooLarge, status == 413, "{status}");
        }
    }

    #[test]
    fn h7_a_status_that_concerns_one_message_delays_no_other() {
        for status in 0..1000 {
            let one = [400, 404, 409, 410, 422, 500].contains(&status);
            assert_eq!(HttpOutcome::foreign(status).class() == HttpClass::DelayMessage, one, "{status}");
        }
    }
}
