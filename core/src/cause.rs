//! How connections end and requests are answered, and what each ending means: the close and refusal table as data.
//!
//! The table decides a [`Class`]; [`Link`](crate::Link) and [`Route`](crate::Route) act on the class and never look at a
//! code themselves. A profile puts its own rows before [`STANDARD`]; the first row that matches wins.
//!
//! ```text
//! Cause ──profile rows──▶ STANDARD rows ──▶ Class ──▶ Link: wait how long, or stop
//!                                               └──▶ Route: down, or blocked
//! ```
//!
//! Invariants: every cause has a class; only an explicit row is terminal, because infrastructure on the way returns
//! anything (field bug: every 4xx treated as fatal).

use core::time::Duration;

/// How a connection, or the attempt at one, ended.
///
/// ```
/// use bowline::{Cause, Class, classify};
/// assert_eq!(classify(&[], Cause::Closed(1012)), Class::Spread);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// No connection came about: refused, no route, no address, TLS failed.
    Refused,
    /// The attempt's deadline passed (rule B7).
    Timeout,
    /// A close frame with this code, or 1005 without one, or 1006 for a connection that ended without a close frame
    /// (RFC 6455, section 7.4.1).
    Closed(u16),
    /// The server answered the upgrade with this HTTP status instead of 101.
    Rejected(u16),
    /// Nothing was heard for too long (rule L1).
    Dead,
    /// A write did not move for the send deadline.
    Stalled,
    /// The peer broke the protocol, such as an acknowledgement of what was never sent (rule S7).
    Violation,
    /// A message was not acknowledged for too long, and there is no HTTP to send it by.
    Unanswered,
    /// A newcomer took the place of a connection that did not answer its probe.
    Replaced,
    /// We closed it.
    Ours,
}

/// What an ending means for the next attempt.
///
/// ```
/// use bowline::{Cause, Class, classify};
/// assert_eq!(classify(&[], Cause::Rejected(426)), Class::Blocked);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Wait the back-off, then try again.
    Retry,
    /// As `Retry`, drawn over the window that the server announced.
    Spread,
    /// The server is busy: the back-off counts two more failures, and its hint is honoured.
    Slow,
    /// The peer is not ready yet: the profile's ordinary delay, and nothing counts as a failure (Gonka's 1008).
    Wait,
    /// As `Retry` at the longest delay, and after this many in a row the link has failed.
    Few(u8),
    /// One message was too large: the connection is not blamed (rule F4).
    PerMessage,
    /// Credentials must be refreshed: tried once more, then failed.
    Refresh,
    /// Something on the way does not let WebSockets through (rule F5): probed seldom.
    Blocked,
    /// Another connection has our place: do not reconnect.
    Replaced,
    /// Never again, unless the application says so.
    Terminal,
}

/// Which causes a row of the table speaks of.
///
/// ```
/// use bowline::On;
/// let private = On::Close(4000, 4499);
/// # let _ = private;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum On {
    /// Close codes from the first to the last, both included.
    Close(u16, u16),
    /// HTTP statuses from the first to the last, both included.
    Status(u16, u16),
    /// This cause exactly.
    Is(Cause),
}

/// One row of the close and refusal table.
///
/// ```
/// use bowline::{Cause, Class, On, Row, classify};
/// const OURS: &[Row] = &[Row(On::Close(1008, 1008), Class::Wait)];
/// assert_eq!(classify(OURS, Cause::Closed(1008)), Class::Wait);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Row(pub On, pub Class);

/// The rows every profile ends with. Sources: RFC 6455 section 7.4, IANA's registry for 1012 to 1014, and the ranges
/// that Centrifugo and Pusher made customary (3000-3499 and 4000-4499 try again, 3500-3999 and 4500-4999 do not).
pub const STANDARD: &[Row] = &[
    Row(On::Close(1002, 1003), Class::Few(3)),
    Row(On::Close(1007, 1007), Class::Few(3)),
    Row(On::Close(1008, 1008), Class::Few(5)),
    Row(On::Close(1009, 1009), Class::PerMessage),
    Row(On::Close(1010, 1010), Class::Terminal),
    Row(On::Close(1012, 1012), Class::Spread),
    Row(On::Close(1013, 1013), Class::Slow),
    Row(On::Close(4003, 4003), Class::Replaced),
    Row(On::Close(4401, 4401), Class::Refresh),
    Row(On::Close(4409, 4409), Class::Replaced),
    Row(On::Close(3500, 3999), Class::Terminal),
    Row(On::Close(4500, 4999), Class::Terminal),
    Row(On::Status(200, 200), Class::Blocked),
    Row(On::Status(401, 401), Class::Refresh),
    // By a proxy as often as by the endpoint; only 401 is the endpoint's own word about us.
    Row(On::Status(403, 403), Class::Blocked),
    Row(On::Status(404, 404), Class::Blocked),
    Row(On::Status(407, 407), Class::Blocked),
    Row(On::Status(426, 426), Class::Blocked),
    Row(On::Status(429, 429), Class::Slow),
    Row(On::Status(503, 503), Class::Spread),
    // One fresh attempt after a violation, then the end (rule S7).
    Row(On::Is(Cause::Violation), Class::Few(2)),
    Row(On::Is(Cause::Replaced), Class::Replaced),
];

/// The class of `cause`: the first matching row of `own`, then of [`STANDARD`], then [`Class::Retry`].
#[must_use]
pub fn classify(own: &[Row], cause: Cause) -> Class {
    let matches = |on: On| match (on, cause) {
        (On::Close(first, last), Cause::Closed(code)) => (first..=last).contains(&code),
        (On::Status(first, last), Cause::Rejected(status)) => (first..=last).contains(&status),
        (On::Is(exact), cause) => exact == cause,
        (On::Close(..) | On::Status(..), _) => false,
    };
    own.iter().chain(STANDARD).find(|row| matches(row.0)).map_or(Class::Retry, |row| row.1)
}

/// A delay the server asked for: `Retry-After`, or a reconnect window.
///
/// ```
/// use bowline::Hint;
/// use core::time::Duration;
/// let hint = Hint::after(Duration::from_secs(7));
/// assert_eq!(hint.window, Duration::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Hint {
    /// A lower bound on the delay, cut to ten minutes (rule B4).
    pub after: Duration,
    /// The span over which the clients of this server should spread their first attempt (rule B2).
    pub window: Duration,
}

impl Hint {
    /// No advice.
    pub const NONE: Self = Self { after: Duration::ZERO, window: Duration::ZERO };

    /// `Retry-After`.
    #[must_use]
    pub const fn after(after: Duration) -> Self {
        Self { after, window: Duration::ZERO }
    }
}

/// What became of one of our HTTP requests: eight outcomes, section 4.4 of the rules (H1–H6). The adapter decides which
/// one it was; the machines decide what follows.
///
/// ```
/// use bowline::HttpOutcome;
/// use core::time::Duration;
/// assert_eq!(HttpOutcome::from_status(204, None), HttpOutcome::Acked);
/// assert_eq!(HttpOutcome::from_status(302, None), HttpOutcome::Gone, "a redirected POST is not followed");
/// let seven = Some(Duration::from_secs(7));
/// assert_eq!(HttpOutcome::from_status(503, seven), HttpOutcome::Busy { after: Duration::from_secs(7) });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HttpOutcome {
    /// 2xx, and nothing else: the peer has completed the message.
    Acked,
    /// 409: the peer is at it; ask again after this.
    InProgress {
        /// `Retry-After`, zero if there was none.
        after: Duration,
    },
    /// The peer will never take this message: 400, 413, 422.
    Rejected {
        /// The HTTP status.
        status: u16,
    },
    /// The path must wait: 429, 503 and other 5xx.
    Busy {
        /// `Retry-After`, zero if there was none.
        after: Duration,
    },
    /// 401 or 403.
    Auth,
    /// The endpoint is not there: 404, 410, a redirect, any other answer that is none.
    Gone,
    /// Nothing was sent: refused, no address, TLS failed.
    Unreached,
    /// The request may have been processed: timeout or reset after it was sent.
    Unknown,
}

impl HttpOutcome {
    /// The outcome that an HTTP status and its `Retry-After` mean.
    #[must_use]
    pub fn from_status(status: u16, retry_after: Option<Duration>) -> Self {
        let after = retry_after.unwrap_or(Duration::ZERO);
        match status {
            200..=299 => Self::Acked,
            409 => Self::InProgress { after },
            400 | 413 | 422 => Self::Rejected { status },
            401 | 403 => Self::Auth,
            429 | 500..=599 => Self::Busy { after },
            _ => Self::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_every_row_of_the_close_and_refusal_table() {
        let expected = [
            (Cause::Closed(1000), Class::Retry),
            (Cause::Closed(1001), Class::Retry),
            (Cause::Closed(1005), Class::Retry),
            (Cause::Closed(1006), Class::Retry),
            (Cause::Closed(1011), Class::Retry),
            (Cause::Closed(1014), Class::Retry),
            (Cause::Closed(1015), Class::Retry),
            (Cause::Closed(3000), Class::Retry),
            (Cause::Closed(3499), Class::Retry),
            (Cause::Closed(4000), Class::Retry),
            (Cause::Closed(4499), Class::Retry),
            (Cause::Closed(1012), Class::Spread),
            (Cause::Rejected(503), Class::Spread),
            (Cause::Closed(1013), Class::Slow),
            (Cause::Rejected(429), Class::Slow),
            (Cause::Closed(1002), Class::Few(3)),
            (Cause::Closed(1003), Class::Few(3)),
            (Cause::Closed(1007), Class::Few(3)),
            (Cause::Closed(1008), Class::Few(5)),
            (Cause::Closed(1009), Class::PerMessage),
            (Cause::Rejected(401), Class::Refresh),
            (Cause::Closed(4401), Class::Refresh),
            (Cause::Closed(4003), Class::Replaced),
            (Cause::Closed(4409), Class::Replaced),
            (Cause::Closed(1010), Class::Terminal),
            (Cause::Rejected(403), Class::Blocked),
            (Cause::Closed(3500), Class::Terminal),
            (Cause::Closed(4999), Class::Terminal),
            (Cause::Rejected(426), Class::Blocked),
            (Cause::Rejected(404), Class::Blocked),
            (Cause::Rejected(200), Class::Blocked),
            (Cause::Rejected(407), Class::Blocked),
            (Cause::Rejected(500), Class::Retry),
            (Cause::Refused, Class::Retry),
            (Cause::Timeout, Class::Retry),
            (Cause::Dead, Class::Retry),
        ];
        for (cause, class) in expected {
            assert_eq!(classify(&[], cause), class, "{cause:?}");
        }
    }

    #[test]
    fn a_profiles_rows_come_first() {
        let own = [Row(On::Close(1008, 1008), Class::Wait)];
        assert_eq!(classify(&own, Cause::Closed(1008)), Class::Wait);
        assert_eq!(classify(&own, Cause::Closed(1009)), Class::PerMessage);
    }

    #[test]
    fn h_only_2xx_acknowledges() {
        for status in 0..1000 {
            let acked = HttpOutcome::from_status(status, None) == HttpOutcome::Acked;
            assert_eq!(acked, (200..300).contains(&status), "{status}");
        }
    }
}
