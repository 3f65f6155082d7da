//! The applications and their processes: what is sent and completed, and what a restart leaves.

use super::act::{Act, Down, Name, Said, Word};
use super::check::broken;
use super::state::{Asker, Call, Cell, Sent, Stage};
use super::wires::age_of;
use super::world::{Result, World};

impl World<'_> {
    /// The next message that a side's application sends.
    pub(super) fn next_message(&self, side: usize) -> Option<u8> {
        let is = |message: &u8| {
            self.setup.sender((*message).into()) == side && self.state.messages[usize::from(*message)].sent == Sent::Not
        };
        (0..self.setup.messages()).find(is)
    }

    pub(super) fn send(&mut self, side: usize) -> Result {
        let message = self.next_message(side).expect("one is left");
        let step = self.take(side, Act::Send(message))?;
        match step.said {
            Said::Queued(seq) => {
                let book = &mut self.state.messages[usize::from(message)];
                book.name = Name { side: side as u8, life: self.state.life[side], seq };
                book.sent = Sent::Accepted;
            }
            Said::Refused => {}
            said => unreachable!("{said:?} to a Send"),
        }
        self.carry_out(side, &step)
    }

    /// Whether an application can complete a message: where it takes time, one after the other.
    pub(super) fn is_done_with(&self, message: u8) -> bool {
        let side = 1 - self.setup.sender(message.into());
        self.setup.work == 0 || (self.state.work[side] == 0 && self.at_work(side) == Some(message))
    }

    /// The message that a side's application was given first of those it has.
    pub(super) fn at_work(&self, side: usize) -> Option<u8> {
        let held = |message: u8| self.state.messages[usize::from(message)].held;
        let here = |message: &u8| self.setup.sender((*message).into()) != side && held(*message).is_some();
        (0..self.setup.messages()).filter(here).max_by_key(|message| held(*message))
    }

    pub(super) fn complete(&mut self, message: u8) -> Result {
        let side = 1 - self.setup.sender(message.into());
        let book = &mut self.state.messages[usize::from(message)];
        let delivery = book.held.take().expect("it is held");
        book.done = true;
        if self.at_work(side).is_some() {
            self.state.work[side] = self.setup.work;
        }
        match self.tell(side, Act::Complete(delivery))? {
            Said::Done => Ok(()),
            said => Err(broken("G2", format!("a delivery that was open is {said:?}"))),
        }
    }

    pub(super) fn restart_kept(&mut self, side: usize) -> Result {
        for wire in 0..self.state.wires.len() {
            if self.state.wires[wire].is_some_and(|wire| age_of(wire.ends[side]).is_some()) {
                self.wire(wire).put(1 - side, Cell::Reset);
                self.down(wire, side, Down::Closed(1006))?;
            }
        }
        self.forget_requests(side, true)?;
        for call in 0..self.state.calls.len() {
            if let Some(Call { message, attempt, asker: Asker::Waits, .. }) = self.state.calls[call]
                && self.setup.sender(message.into()) == side
            {
                self.call_mut(call).asker = Asker::GaveUp;
                self.drop_if_unheard(call);
                self.posted(message, attempt, Word::Unknown)?;
            }
        }
        Ok(())
    }

    pub(super) fn restart_lost(&mut self, side: usize) -> Result {
        for wire in self.state.wires.iter_mut().flatten() {
            if age_of(wire.ends[side]).is_some() {
                wire.put(1 - side, Cell::Reset);
                wire.leave(side);
            }
        }
        self.forget_requests(side, false)?;
        for call in 0..self.state.calls.len() {
            if self.state.calls[call].is_some_and(|call| self.setup.sender(call.message.into()) == side) {
                self.call_mut(call).asker = Asker::Nobody;
                self.drop_if_unheard(call);
            }
        }
        for message in 0..self.setup.messages() {
            let book = &mut self.state.messages[usize::from(message)];
            if self.setup.sender(message.into()) != side {
                (book.held, book.here) = (None, false);
            } else if book.sent == Sent::Accepted {
                book.sent = Sent::Forgotten;
            }
        }
        self.state.work[side] = 0;
        self.state.life[side] += 1;
        let life = self.state.life[side];
        self.state.session[side] = self.machines.begin(self.setup.config(side, life), Name::origin(side as u8, life));
        self.state.closing[side] = false;
        self.tell(side, Act::Start)?;
        Ok(())
    }

    /// The requests that wait for an answer of this process get none.
    pub(super) fn forget_requests(&mut self, side: usize, tell: bool) -> Result {
        for call in 0..self.state.calls.len() {
            if let Some(Call { message, stage: Stage::Waiting(request), .. }) = self.state.calls[call]
                && self.setup.sender(message.into()) != side
            {
                self.lose_at(call);
                if tell {
                    self.tell(side, Act::RequestGone(request))?;
                }
            }
        }
        Ok(())
    }
}
