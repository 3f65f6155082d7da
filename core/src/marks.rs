//! What a receiver has of a numbered sender's messages, and how it says so.
//!
//! ```text
//!                    base = the sender's lowest that has not ended (`una`)
//!  forgotten, exactly ┆ 1 1 0 1 0 0 0 …  arrived     64 numbers from base; nothing above may be sent
//!                     ┆ 1 0 0 1 0 0 0 …  done        ⊆ arrived
//!                     ┆ 0 0 0 1 0 0 0 …  rejected    ⊆ done
//!                            ┆ next: the first that may not be handed over yet, where order is kept
//! ```
//!
//! A mark is set until the sender's `una` has passed it, so every report repeats all that matters, a lost one is made good
//! by the next, and forgetting is exact: what lies below `base` has ended at its sender, who will never send it again.
//!
//! Invariants: rejected ⊆ done ⊆ arrived; `base` only grows within one origin; a number is handed over at most once within
//! one origin, unless the application gave it back.
//! Rules: I3, S3, S4, S5, S6, S9, S10, S11, R5.

use crate::ids::{Origin, Seq};
use crate::time::{Instant, Timer, Timers, Wake};
use core::time::Duration;

/// So many numbers from the sender's lowest unfinished one may be under way.
pub const WINDOW: u64 = 64;

/// An acknowledgement that nothing hurries leaves so much later (S5).
const DELAY: Duration = Duration::from_millis(25);

/// What a receiver says about its sender's messages; bit `i` of each map is the number `base + i`.
///
/// Everything below `base` is done with.
///
/// ```
/// use bowline::{Report, Seq};
/// let report = Report { base: Seq::FIRST, arrived: 0b1011, done: 0b0011, rejected: 0b0010, win: 60 };
/// assert_eq!(report.cum().get(), 2, "1 and 2 are completed, one of them rejected");
/// assert_eq!(report.rcv().get(), 2, "3 is missing");
/// assert_eq!(report.limit().get(), 62);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Report {
    /// The first number that the maps speak of.
    pub base: Seq,
    /// What need not be sent again.
    pub arrived: u64,
    /// Of these, what the application has completed.
    pub done: u64,
    /// Of these, what it has rejected.
    pub rejected: u64,
    /// How many numbers behind [`rcv`](Self::rcv) it takes (S10).
    pub win: u16,
}

impl Report {
    /// Nothing has come, and `win` messages may.
    #[must_use]
    pub const fn nothing(win: u16) -> Self {
        Self { base: Seq::FIRST, arrived: 0, done: 0, rejected: 0, win }
    }

    /// All numbers up to this one are completed.
    #[must_use]
    pub const fn cum(&self) -> Seq {
        before(self.base, self.done.trailing_ones())
    }

    /// All numbers up to this one have arrived.
    #[must_use]
    pub const fn rcv(&self) -> Seq {
        before(self.base, self.arrived.trailing_ones())
    }

    /// No number above this one may be sent (S10).
    #[must_use]
    pub const fn limit(&self) -> Seq {
        self.rcv().plus(self.win as u64)
    }

    /// The highest number it speaks of.
    #[must_use]
    pub const fn top(&self) -> Seq {
        before(self.base, u64::BITS.saturating_sub(self.arrived.leading_zeros()))
    }

    /// What it says of one number: arrived, completed, rejected.
    #[must_use]
    pub const fn of(&self, seq: Seq) -> (bool, bool, bool) {
        if seq.get() < self.base.get() {
            return (true, true, false);
        }
        let at = seq.since(self.base);
        if at >= WINDOW {
            return (false, false, false);
        }
        let bit = 1_u64 << at;
        (self.arrived & bit != 0, self.done & bit != 0, self.rejected & bit != 0)
    }
}

/// The number `n` behind the one before `base`.
const fn before(base: Seq, n: u32) -> Seq {
    Seq::from_number(base.get().saturating_sub(1).saturating_add(n as u64))
}

/// With which question or answer a report goes.
///
/// ```
/// # use bowline::Beat;
/// assert_ne!(Beat::Ping(1), Beat::Pong(1));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Beat {
    /// It is an acknowledgement and nothing more.
    None,
    /// Are you there? With a number that grows.
    Ping(u64),
    /// The answer, with the number of the question.
    Pong(u64),
}

/// What a receiver says of one message beside its reports (S8).
///
/// ```
/// # use bowline::Nack;
/// # use core::time::Duration;
/// let again = Nack::Retry { after: Duration::ZERO };
/// # let _ = again;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Nack {
    /// The application gave it back: again, after this.
    Retry {
        /// When.
        after: Duration,
    },
    /// It could not be taken: again, after this.
    Busy {
        /// When.
        after: Duration,
    },
    /// It can never be processed. The words may be for people; that it is so, the reports say.
    Reject,
}
