//! Time as the machines see it: a count handed in by the caller, and timers that disarm when they fire.
//!
//! There is no `now()` and no subtraction that could underflow; arithmetic saturates. A [`Timer`] is not `Copy` (it is
//! `Clone` only so that whole machines can be): it is armed, or not, and firing it disarms it, so no deadline can stay in
//! the past (rule T4, promise G9).
//!
//! ```text
//! Timer:  disarmed ──arm(at)──▶ armed ──fire(now ≥ at)──▶ disarmed
//!                       ▲           │ arm(at') moves it, disarm() ends it
//!                       └───────────┘
//! ```
//!
//! Invariants: a machine lists its timers in exactly one place ([`Timers::timers`]); what fires is what was listed.
//! Field bugs this guards against: a deadline that is checked but never reported (the caller sleeps for ever), and one
//! that is reported but never cleared (the caller spins).

use crate::tag::HashTag;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::time::Duration;

/// Microseconds since an epoch the caller chooses; monotonic (rule L6). Never read from a clock here.
///
/// ```
/// use bowline::Instant;
/// use core::time::Duration;
/// let later = Instant::ZERO.after(Duration::from_secs(3));
/// assert_eq!(later.since(Instant::ZERO), Duration::from_secs(3));
/// assert_eq!(Instant::ZERO.since(later), Duration::ZERO);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Hash for Instant {
    fn hash<H: Hasher>(&self, state: &mut H) {
        HashTag::Instant.hash(self.0, state);
    }
}

impl Instant {
    /// The epoch.
    pub const ZERO: Self = Self(0);
    /// Later than every instant a clock reports: "never".
    pub(crate) const NEVER: Self = Self(u64::MAX);

    /// An instant from its microseconds; `u64::MAX` is reserved and becomes one less (584,000 years).
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        if micros == u64::MAX { Self(u64::MAX - 1) } else { Self(micros) }
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This instant moved on by `span`; saturates.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(micros(span)))
    }

    /// The span since `earlier`; zero if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER { f.write_str("never") } else { fmt::Debug::fmt(&Duration::from_micros(self.0), f) }
    }
}

/// A span in whole microseconds, saturating: configuration may hold anything a `Duration` can.
pub(crate) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// A deadline that is armed or not; firing it disarms it.
///
/// ```
/// use bowline::{Instant, Timer};
/// let mut timer = Timer::disarmed();
/// timer.arm(Instant::from_micros(5));
/// assert!(!timer.fire(Instant::from_micros(4)));
/// assert!(timer.fire(Instant::from_micros(5)));
/// assert!(!timer.fire(Instant::from_micros(9)), "it fires once");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Timer(Instant);

impl Timer {
    /// A timer that will not fire.
    #[must_use]
    pub const fn disarmed() -> Self {
        Self(Instant::NEVER)
    }

    /// Sets or moves the deadline.
    pub const fn arm(&mut self, at: Instant) {
        self.0 = at;
    }

    /// Moves the deadline forward to `at` if it is armed for later or not at all.
    pub fn arm_by(&mut self, at: Instant) {
        self.0 = self.0.min(at);
    }

    /// Clears the deadline.
    pub const fn disarm(&mut self) {
        self.0 = Instant::NEVER;
    }

    /// When it will fire, if it is armed.
    #[must_use]
    pub fn at(&self) -> Option<Instant> {
        (self.0 != Instant::NEVER).then_some(self.0)
    }

    /// Whether it is armed.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.0 != Instant::NEVER
    }

    /// True once when the deadline has come; disarms.
    #[must_use]
    pub fn fire(&mut self, now: Instant) -> bool {
        let due = self.is_armed() && self.0 <= now;
        if due {
            self.disarm();
        }
        due
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A machine's timers, listed in one place, so that none can be checked without being reported.
///
/// ```
/// use bowline::{Backoff, Instant, Timer, Timers, Wake};
/// struct Two(Timer, Timer);
/// impl Timers for Two {
///     fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
///         see(Wake::Ping, &self.0);
///         see(Wake::Dead, &self.1);
///     }
/// }
/// let mut two = Two(Timer::disarmed(), Timer::disarmed());
/// assert_eq!(two.earliest(), None);
/// two.1.arm(Instant::from_micros(9));
/// assert_eq!(two.earliest(), Some((Instant::from_micros(9), Wake::Dead)));
/// ```
pub trait Timers {
    /// Shows every timer with the reason it would wake for.
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer));

    /// The earliest armed timer and its reason; of two at the same instant the one listed first.
    fn earliest(&self) -> Option<(Instant, Wake)> {
        let mut first: Option<(Instant, Wake)> = None;
        self.timers(&mut |wake, timer| {
            if let Some(at) = timer.at()
                && first.is_none_or(|(best, _)| at < best)
            {
                first = Some((at, wake));
            }
        });
        first
    }
}

/// Why a machine wants to be called at its deadline: for logs, and for tests that ask which timer was it.
///
/// ```
/// use bowline::Wake;
/// assert_eq!(format!("{:?}", Wake::Output), "Output");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wake {
    /// Nothing but an input can change anything.
    Input,
    /// Output is waiting to be drained: the deadline is now (rule 3 of the surface).
    Output,
    /// The connection attempt's one deadline (B7).
    Attempt,
    /// Time to dial again.
    Retry,
    /// The session's long-outage limit (B8).
    Suspend,
    /// A refused path is given up (B10).
    GiveUp,
    /// The connection has been up long enough to clear the back-off (B3).
    Stable,
    /// The close handshake's limit (L8).
    Closing,
    /// A write has not moved for its limit (F7's send deadline).
    Stall,
    /// The limit for a probed connection to answer a newcomer (U2's probe).
    Probe,
    /// A ping is due (L1).
    Ping,
    /// A data frame is due so that the peer's read deadline does not fire (L4).
    Keepalive,
    /// The peer is dead unless it is heard by then (L1).
    Dead,
    /// The peer's program is dead unless it says a word by then (L10).
    Program,
    /// An acknowledgement has waited long enough for company (S5).
    Acknowledge,
    /// A message waits for its acknowledgement, its next try or its end of life.
    Message,
    /// Something remembered may be forgotten, or a waiting request must be answered (S11, H2).
    Memory,
    /// The HTTP path may be tried again.
    Http,
    /// The grace before HTTP is over, or the WebSocket has been stable long enough (F1, P3).
    Path,
    /// The bounded drain of a close is over.
    Drain,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let end = Instant::from_micros(u64::MAX);
        assert_eq!(end.as_micros(), u64::MAX - 1);
        assert_eq!(end.after(Duration::MAX), end);
        assert_eq!(Instant::ZERO.since(end), Duration::ZERO);
        assert_ne!(end, Instant::NEVER);
    }

    #[test]
    fn t4_a_fired_timer_is_disarmed() {
        let mut timer = Timer::disarmed();
        assert!(!timer.fire(Instant::from_micros(u64::MAX)));
        timer.arm(Instant::ZERO);
        assert!(timer.fire(Instant::ZERO));
        assert_eq!(timer.at(), None);
    }

    #[test]
    fn arm_by_only_moves_forward() {
        let mut timer = Timer::disarmed();
        timer.arm_by(Instant::from_micros(9));
        timer.arm_by(Instant::from_micros(20));
        assert_eq!(timer.at(), Some(Instant::from_micros(9)));
        timer.arm_by(Instant::from_micros(3));
        assert_eq!(timer.at(), Some(Instant::from_micros(3)));
    }
}
