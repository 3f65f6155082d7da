//! The outbox of a numbered sender: what the receiver's marks say, and how much it may still send.
//!
//! ```text
//!            una                    credit            next
//!  ended ──── ┆ ▪ arrived  ▫ sent … ┆ waits ………………… ┆
//!                 │            └─ arrived: no timer, no copy, on no connection
//!                 └─ completed: ended
//! ```
//!
//! Rules: F2, R6, S3, S4, S7, S8, S10, T2, H3.

use super::{Ack, Answer, Outbox, Outcome, Path, Posting, Rejection, Slot};
use crate::ids::{LinkId, Seq};
use crate::marks::{Report, WINDOW};
use crate::ring::Slots;
use crate::time::{Instant, Timer};
use core::time::Duration;

/// After a resume so many messages go before the first mark of the new connection (R6): a quarter of the window.
const BURST: u64 = 16;

/// No credit is asked for: the peer is plain.
pub(super) const BOUNDLESS: Seq = Seq::from_number(u64::MAX);

/// Stands for a connection on which the peer asked for a message again: it was sent, but on none that is left.
const ASKED_ON: LinkId = LinkId::from_number(u64::MAX);

impl<P, S: Slots<Slot<P>> + ?Sized> Outbox<P, S> {
    /// The lowest number that has not ended; that of the next message if all have.
    #[must_use]
    pub fn una(&self) -> Seq {
        self.ring.iter().find(|slot| slot.open()).map_or(self.next, |slot| slot.seq)
    }

    /// The number of the next message.
    #[must_use]
    pub const fn next(&self) -> Seq {
        self.next
    }

    /// The first number that was never sent, on any path.
    #[must_use]
    pub const fn unsent(&self) -> Seq {
        self.unsent
    }

    /// No number above this one may be sent (S10).
    pub(super) fn allowed(&self) -> Seq {
        if self.credit == BOUNDLESS { Seq::LAST } else { self.credit.min(self.una().plus(WINDOW.saturating_sub(1))) }
    }

    /// The receiver's marks have come, on `link` or by HTTP ([`LinkId::NONE`]). `newest`: they have overtaken none and
    /// were overtaken by none, so what they say of arrival is so; otherwise only what is completed counts, which stays so.
    pub fn on_report(&mut self, now: Instant, link: LinkId, report: &Report, newest: bool) -> Ack {
        if report.top() >= self.next() || report.base > self.next() {
            return Ack::NeverSent;
        }
        let never_sent =
            |slot: &Slot<P>| slot.sent_on == LinkId::NONE && slot.post == Posting::Never && slot.polled == 0;
        if self.ring.iter().any(|slot| slot.open() && never_sent(slot) && report.of(slot.seq).0) {
            return Ack::NeverSent;
        }
        let mut said = Ack::Unknown;
        let (mut latest, mut through) = (None, None);
        let limit = self.frame_limit();
        for offset in 0..self.ring.len() {
            let Some(slot) = self.ring.get_mut(offset).filter(|slot| slot.open()) else { continue };
            let (arrived, done, rejected) = report.of(slot.seq);
            if !arrived {
                // The newest marks are the whole truth: it was given back, and the word for that was lost with a connection.
                if newest && slot.answer == Answer::Arrived {
                    slot.answer = Answer::None;
                    slot.sent_on = ASKED_ON;
                    slot.polled = 0;
                }
                continue;
            }
            if slot.sent_on == link {
                through = through.max(slot.turn());
                // One sample a report: of what was sent last (T2). What went another way besides is none (T5).
                let sent = slot.wait().filter(|wait| wait.clean && slot.post == Posting::Never).map(|wait| wait.sent);
                latest = latest.max(sent);
            }
            if done {
                let path = if slot.post == Posting::Never && slot.polled == 0 { Path::WebSocket } else { Path::Http };
                let outcome = if rejected { Outcome::Rejected(Rejection::ByPeer) } else { Outcome::Delivered { path } };
                self.settle(now, offset, outcome);
                said = Ack::Settled;
            } else if newest && slot.answer != Answer::Arrived {
                self.change(offset, |slot| {
                    slot.answer = Answer::Arrived;
                    slot.by_http = slot.size > limit;
                });
                said = Ack::Settled;
            }
        }
        if let Some(sent) = latest {
            self.rtt.sample(now.since(sent));
        }
        self.begin_waits(now, through);
        // What came by HTTP may have been overtaken: it gives credit, and takes none back.
        let credit = report.limit();
        self.set_credit(if link == LinkId::NONE { credit.max(self.credit) } else { credit });
        said
    }

    /// The peer asks for a message again, after this (S8): it has not arrived, whatever was said before.
    pub fn on_nack(&mut self, now: Instant, seq: Seq, after: Duration) -> Ack {
        let Some(offset) = self.offset(seq) else { return self.unheld(seq) };
        let Some(slot) = self.ring.get(offset).filter(|slot| slot.open()) else { return Ack::Unknown };
        if slot.sent_on == LinkId::NONE && slot.post == Posting::Never && slot.polled == 0 {
            return Ack::NeverSent;
        }
        let mut from = Timer::disarmed();
        let at = now.after(after.min(LONGEST));
        if at > now {
            from.arm(at);
            self.wake.arm_by(at);
        }
        self.change(offset, |slot| {
            slot.answer = Answer::Asked { from };
            slot.sent_on = ASKED_ON;
            slot.polled = 0;
        });
        self.begin_waits(now, None);
        self.rescan();
        Ack::Settled
    }

    /// A connection begins, or HTTP without one: what the receiver has is what its marks say and nothing else; and until
    /// its first marks a few messages must do (R6).
    pub fn on_greeting(&mut self, now: Instant, report: Option<&Report>, win: u16) -> Ack {
        for offset in 0..self.ring.len() {
            if let Some(slot) = self.ring.get_mut(offset)
                && slot.answer == Answer::Arrived
            {
                slot.answer = Answer::None;
            }
        }
        let said = report.map_or(Ack::Unknown, |report| self.on_report(now, LinkId::NONE, report, true));
        let una = self.una();
        let first = una.plus(BURST.min(u64::from(win))).get().saturating_sub(1);
        self.set_credit(Seq::from_number(first));
        said
    }

    /// A poll has come: what is given from now on goes into its answer (H3).
    pub const fn begin_poll(&mut self) {
        self.polls = self.polls.saturating_add(1);
        self.post_from = 0;
    }

    /// The next message for the answer to the poll, and how many bytes are left then: together they are no longer than the
    /// longest message.
    pub fn take_polled(&mut self, now: Instant, left: u32) -> Option<(Seq, u32)> {
        let allowed = self.allowed();
        let (polls, limit) = (self.polls, self.frame_limit());
        for offset in 0..self.ring.len() {
            let slot = self.ring.get_mut(offset).filter(|slot| slot.seq <= allowed)?;
            let waits = match &slot.answer {
                Answer::Arrived | Answer::Awaited { .. } => true,
                Answer::Asked { from } => from.at().is_some_and(|at| at > now),
                Answer::None | Answer::Late { .. } => false,
            };
            if slot.may_leave() && !waits && slot.polled != polls && slot.size <= limit {
                let left = left.min(limit).checked_sub(slot.size)?;
                slot.polled = polls;
                let seq = slot.seq;
                self.unsent = self.unsent.max(seq.next());
                return Some((seq, left));
            }
        }
        None
    }

    /// Whether [`take_polled`](Self::take_polled) would give one.
    #[must_use]
    pub fn has_polled(&self, now: Instant) -> bool {
        let allowed = self.allowed();
        self.ring.iter().any(|slot| {
            let waits = match &slot.answer {
                Answer::Arrived | Answer::Awaited { .. } => true,
                Answer::Asked { from } => from.at().is_some_and(|at| at > now),
                Answer::None | Answer::Late { .. } => false,
            };
            let ready = slot.may_leave() && !waits && slot.polled != self.polls;
            ready && slot.seq <= allowed && slot.size <= self.frame_limit()
        })
    }

    /// Sends nothing until somebody is there who says how much he takes.
    pub const fn no_credit(&mut self) {
        self.credit = Seq::from_number(0);
    }

    fn set_credit(&mut self, limit: Seq) {
        self.credit = limit.min(Seq::LAST);
        self.rescan();
    }
}

/// Nobody is asked to wait longer (B4).
const LONGEST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
