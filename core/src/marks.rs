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
//! Invariants: rejected ⊆ done ⊆ arrived; kept ⊆ arrived, without done; full ⊆ nacks, without arrived; `base` only grows within one origin; a number is handed over at most once within
//! one origin, unless the application gave it back.
//! Rules: I3, S3, S4, S5, S6, S9, S10, S11, S16, R5.

use crate::ids::{Origin, Seq};
use crate::time::{Instant, Timer, Timers, Wake};
use core::time::Duration;

/// So many numbers from the sender's lowest unfinished one may be under way.
pub const WINDOW: u64 = 64;

/// So many arrivals and completions untold, a quarter of the window, and the report leaves at once (S5).
const HURRY: u8 = 16;

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
        /// The delay from now.
        after: Duration,
    },
    /// It could not be taken: again, after this.
    Busy {
        /// The delay from now.
        after: Duration,
    },
    /// It can never be processed. The words may be for people; that it is so, the reports say.
    Reject,
}

/// What a numbered message is to its receiver.
///
/// ```
/// # use bowline::marks::Came;
/// assert_ne!(Came::Fresh, Came::Copy);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Came {
    /// It was never here, and is not marked yet: see [`Marks::arrived`].
    Fresh,
    /// It is here and not completed.
    Copy,
    /// It is completed; or rejected.
    Done {
        /// Rejected.
        rejected: bool,
    },
    /// Too far ahead: no sender that keeps its window sends it.
    Beyond,
}

/// What the receiver of a numbered sender must do next.
///
/// ```
/// # use bowline::{Seq, marks::Step};
/// let step = Step::Turn(Seq::FIRST);
/// # let _ = step;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// It is the turn of this message, which came before one that was missing.
    Turn(Seq),
    /// Between these two, so many never came, and never will: they have ended at their sender.
    Gap {
        /// The first of them.
        from: Seq,
        /// The last.
        to: Seq,
        /// How many.
        count: u64,
    },
}

/// What one receiver has of one sender. See the module.
///
/// ```
/// use bowline::marks::{Came, Marks, Step};
/// use bowline::{Instant, Origin, Seq};
/// let now = Instant::ZERO;
/// let mut marks = Marks::new(true);
/// marks.begin(Origin::new(7, 1), Seq::FIRST, Seq::FIRST);
/// let (one, two) = (Seq::FIRST, Seq::FIRST.next());
/// assert_eq!(marks.look(two), Came::Fresh);
/// assert!(!marks.arrived(now, two), "not before the first");
/// assert!(marks.arrived(now, one));
/// assert_eq!(marks.step(), Some(Step::Turn(two)));
/// marks.completed(now, one, false);
/// assert_eq!(marks.report(62).cum(), one);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Marks {
    of: Option<Origin>,
    order: bool,
    base: Seq,
    arrived: u64,
    done: u64,
    rejected: u64,
    /// The first number that was neither handed over nor passed over.
    next: Seq,
    /// The sender's lowest that has not ended.
    una: Seq,
    /// What lies below may have been handled by a former self.
    doubt: Seq,
    /// Given back by the application and still called arrived, because nobody could be told when it is to come again (S16).
    kept: u64,
    /// Its sender is to be asked for it again and was not; of these, what there was no room for.
    nacks: u64,
    full: u64,
    /// Arrivals and completions not told.
    untold: u8,
    due: Timer,
    /// What will never come and was not reported.
    gap: Option<(Seq, Seq, u64)>,
}

impl Marks {
    /// Knows nobody yet.
    #[must_use]
    pub const fn new(order: bool) -> Self {
        Self {
            of: None,
            order,
            base: Seq::FIRST,
            arrived: 0,
            done: 0,
            rejected: 0,
            next: Seq::FIRST,
            una: Seq::FIRST,
            doubt: Seq::FIRST,
            kept: 0,
            nacks: 0,
            full: 0,
            untold: 0,
            due: Timer::disarmed(),
            gap: None,
        }
    }

    /// Whose messages these are.
    #[must_use]
    pub const fn of(&self) -> Option<Origin> {
        self.of
    }

    /// Whether they are handed over in the order of their numbers (S9).
    #[must_use]
    pub const fn order(&self) -> bool {
        self.order
    }

    /// Begins anew with a sender whose lowest unfinished message is `una`; what lies below `doubt` it has perhaps said
    /// before, to somebody who is not here any more.
    pub fn begin(&mut self, of: Origin, una: Seq, doubt: Seq) {
        let una = una.max(Seq::FIRST).min(Seq::LAST.next());
        *self = Self { of: Some(of), base: una, next: una, una, doubt, gap: self.gap, ..Self::new(self.order) };
    }

    /// Everything below `una` has ended at its sender.
    pub fn advance(&mut self, now: Instant, una: Seq) {
        // What never comes is done with, which gives credit: its sender may have nothing to send before it hears so.
        if una > self.report(0).rcv().next() {
            self.tell(now, true);
        }
        self.una = self.una.max(una.min(Seq::LAST.next()));
        if self.order {
            self.give_up();
            // At once, as far as nothing waits for its turn: what comes next may lie a window behind the new lowest.
            if self.next < self.una && !self.here(self.next) {
                self.skip();
            }
        } else {
            self.pass();
        }
        self.forget();
    }

    /// What a number is, before it is taken.
    #[must_use]
    pub const fn look(&self, seq: Seq) -> Came {
        if seq.get() < self.base.get() {
            return Came::Done { rejected: false };
        }
        let Some(bit) = self.bit(seq) else { return Came::Beyond };
        if self.done & bit != 0 {
            Came::Done { rejected: self.rejected & bit != 0 }
        } else if self.arrived & bit != 0 {
            Came::Copy
        } else {
            Came::Fresh
        }
    }

    /// It may have been handled by a former self.
    #[must_use]
    pub const fn doubtful(&self, seq: Seq) -> bool {
        seq.get() < self.doubt.get()
    }

    /// A fresh one was taken. True: hand it over; false: keep it until it is its turn.
    pub fn arrived(&mut self, now: Instant, seq: Seq) -> bool {
        let Some(bit) = self.bit(seq) else { return false };
        self.arrived |= bit;
        for map in [&mut self.kept, &mut self.nacks, &mut self.full] {
            *map &= !bit;
        }
        let hole = self.arrived.trailing_ones() < u64::BITS.saturating_sub(self.arrived.leading_zeros());
        self.tell(now, hole);
        if !self.order || seq < self.next {
            return true;
        }
        // Before it is handed over, what is missing before it must be told.
        let turn = seq == self.next && self.gap.is_none();
        if turn {
            self.next = self.next.next();
            self.forget();
        }
        turn
    }

    /// A copy has come, or something that could not be taken: its sender should hear soon where we are.
    pub fn again(&mut self, now: Instant) {
        self.tell(now, true);
    }

    /// The application has decided.
    pub fn completed(&mut self, now: Instant, seq: Seq, rejected: bool) {
        let Some(bit) = self.bit(seq).filter(|bit| self.arrived & bit != 0) else { return };
        self.done |= bit;
        if rejected {
            self.rejected |= bit;
        }
        self.tell(now, false);
    }

    /// The application gives it back, or its time to come again has come: as if it had not come, and its sender is asked for
    /// it again.
    pub fn given_back(&mut self, now: Instant, seq: Seq) {
        let Some(bit) = self.bit(seq).filter(|bit| self.arrived & !self.done & bit != 0) else { return };
        self.arrived &= !bit;
        self.kept &= !bit;
        self.nacks |= bit;
        self.tell(now, true);
    }

    /// The application gives it back, or it has come again too soon, and there is no connection on which its sender could be
    /// told when to send it: for its sender it stays arrived, until [`given_back`](Self::given_back) says otherwise (S16).
    pub fn keep(&mut self, now: Instant, seq: Seq) {
        // What has not had its turn would be passed over.
        let Some(bit) = self.bit(seq).filter(|bit| !self.done & bit != 0 && (!self.order || seq < self.next)) else {
            return self.given_back(now, seq);
        };
        self.arrived |= bit;
        self.kept |= bit;
        for map in [&mut self.nacks, &mut self.full] {
            *map &= !bit;
        }
        self.tell(now, true);
    }

    /// Whether it was given back and its time to come again has not come, and its sender was not told so.
    #[must_use]
    pub const fn keeps(&self, seq: Seq) -> bool {
        match self.bit(seq) {
            Some(bit) => self.kept & bit != 0,
            None => false,
        }
    }

    /// It was not taken, because there was no room (`full`) or because it came too soon: its sender is asked for it again.
    pub fn refused(&mut self, now: Instant, seq: Seq, full: bool) {
        if let Some(bit) = self.bit(seq).filter(|bit| self.arrived & bit == 0) {
            self.nacks |= bit;
            if full {
                self.full |= bit;
            }
        }
        self.tell(now, true);
    }

    /// The next message whose sender is to be asked for it again, once; true: there was no room for it.
    pub fn take_nack(&mut self) -> Option<(Seq, bool)> {
        if self.nacks == 0 {
            return None;
        }
        let at = self.nacks.trailing_zeros();
        let rest = self.nacks & self.nacks.wrapping_sub(1);
        let full = self.full & self.nacks & !rest != 0;
        self.nacks = rest;
        self.full &= rest;
        Some((self.base.plus(u64::from(at)), full))
    }

    /// What is to be done next, until there is nothing.
    pub fn step(&mut self) -> Option<Step> {
        if let Some((from, to, count)) = self.gap.take() {
            return Some(Step::Gap { from, to, count });
        }
        if self.order && self.here(self.next) {
            let seq = self.next;
            self.next = seq.next();
            self.forget();
            return Some(Step::Turn(seq));
        }
        if self.order && self.next < self.una {
            self.skip();
            self.forget();
        }
        self.gap.take().map(|(from, to, count)| Step::Gap { from, to, count })
    }

    /// Whether it is this number's turn: all below it were handed over, or passed over.
    pub(crate) fn is_next(&self, seq: Seq) -> bool {
        self.order && seq == self.next
    }

    /// Whether any number waits for its turn: it came, and one before it is missing.
    pub(crate) fn has_waiting(&self) -> bool {
        let over = u32::try_from(self.next.since(self.base)).unwrap_or(u32::MAX);
        self.order && self.arrived.checked_shr(over).unwrap_or_default() != 0
    }

    /// The report, for one who takes `room` messages more.
    #[must_use]
    pub fn report(&self, room: usize) -> Report {
        let report =
            Report { base: self.base, arrived: self.arrived, done: self.done, rejected: self.rejected, win: 0 };
        // What has come behind a hole takes no more room.
        let come = self.arrived.count_ones().saturating_sub(self.arrived.trailing_ones());
        // What is completed has ended at its sender as soon as that hears of it, and with the next number comes its word.
        let left = WINDOW.saturating_sub(report.rcv().since(report.cum()));
        let room = u64::try_from(room).unwrap_or(u64::MAX).saturating_add(u64::from(come)).min(left);
        Report { win: u16::try_from(room).unwrap_or(u16::MAX), ..report }
    }

    /// Whether the report should leave now.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        self.untold >= HURRY
    }

    /// Whether anything is untold.
    #[must_use]
    pub const fn owes(&self) -> bool {
        self.untold > 0 || self.nacks != 0
    }

    /// The report leaves.
    pub const fn told(&mut self) {
        self.untold = 0;
        self.due.disarm();
    }

    /// Fires what is due.
    pub fn tick(&mut self, now: Instant) {
        if self.due.fire(now) {
            self.untold = HURRY;
        }
    }

    fn tell(&mut self, now: Instant, hurry: bool) {
        self.untold = if hurry { HURRY } else { self.untold.saturating_add(1).min(HURRY) };
        if self.is_due() {
            self.due.disarm();
        } else {
            self.due.arm_by(now.after(DELAY));
        }
    }

    /// Where no order is kept, what the sender has passed is over, whether it came or not.
    fn pass(&mut self) {
        while self.next < self.una {
            if self.here(self.next) {
                self.next = self.next.next();
            } else {
                self.skip();
            }
        }
    }

    /// Passes over what never came, up to what did or to where the sender is.
    fn skip(&mut self) {
        let by = u32::try_from(self.next.since(self.base)).unwrap_or(u32::MAX);
        let ahead = self.come().checked_shr(by).unwrap_or_default();
        let missing = if ahead == 0 { u64::MAX } else { u64::from(ahead.trailing_zeros()) };
        let from = self.next;
        self.next = from.plus(missing).min(self.una);
        self.miss(from, Seq::from_number(self.next.get().saturating_sub(1)), self.next.since(from));
    }

    /// What was handed over and given back, and has ended at its sender before it came again.
    fn give_up(&mut self) {
        let handed = self.una.min(self.next).since(self.base).min(WINDOW);
        let all = u64::MAX.checked_shr(u32::try_from(WINDOW.saturating_sub(handed)).unwrap_or(u32::MAX)).unwrap_or(0);
        let missing = all & !self.come();
        if missing != 0 {
            let to = before(self.base, u64::BITS.saturating_sub(missing.leading_zeros()));
            let from = self.base.plus(u64::from(missing.trailing_zeros()));
            self.miss(from, to, u64::from(missing.count_ones()));
        }
    }

    fn miss(&mut self, from: Seq, to: Seq, count: u64) {
        self.gap = match self.gap {
            Some((first, _, before)) => Some((first, to, before.saturating_add(count))),
            None => Some((from, to, count)),
        };
    }

    /// Forgets what both sides have passed.
    fn forget(&mut self) {
        let base = self.una.min(self.next);
        let by = u32::try_from(base.since(self.base)).unwrap_or(u32::MAX);
        if by == 0 {
            return;
        }
        let Self { arrived, done, rejected, kept, nacks, full, .. } = self;
        for map in [arrived, done, rejected, kept, nacks, full] {
            *map = map.checked_shr(by).unwrap_or_default();
        }
        self.base = base;
    }

    const fn here(&self, seq: Seq) -> bool {
        match self.bit(seq) {
            Some(bit) => self.come() & bit != 0,
            None => false,
        }
    }

    /// What has come and was not given back.
    const fn come(&self) -> u64 {
        self.arrived & !self.kept
    }

    const fn bit(&self, seq: Seq) -> Option<u64> {
        let at = seq.since(self.base);
        let is_one = seq.get() >= self.base.get() && seq.get() <= Seq::LAST.get();
        if is_one && at < WINDOW { Some(1 << at) } else { None }
    }
}

impl Timers for Marks {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        see(Wake::Acknowledge, &self.due);
    }
}

#[cfg(test)]
mod tests;
