//! The HTTP path: requests, their answers, and their copies.

use super::act::{Act, Said, Word};
use super::check::broken;
use super::moves::Move;
use super::state::{Asker, Call, Stage};
use super::world::{Result, World};

impl World<'_> {
    pub(super) fn arrive(&mut self, call: usize) -> Result {
        let message = self.call(call).message;
        let side = 1 - self.setup.sender(message.into());
        if self.machines.over(self.state.session[side]) {
            self.back(call, Word::Unreached);
            return Ok(());
        }
        if let Some(status) = self.setup.portal {
            self.back(call, Word::Foreign(status));
            return Ok(());
        }
        if self.poisonous(message) {
            if self.state.fair || self.state.left.poison > 0 {
                self.state.left.poison = self.state.left.poison.saturating_sub(1);
                self.back(call, Word::Poison);
            } else {
                // So that this ends: it waits for ever.
                self.state.calls[call] = None;
            }
            return Ok(());
        }
        let taken = |n: &u8| self.state.calls.iter().flatten().any(|call| call.stage == Stage::Waiting(*n));
        let request = (0..).find(|n| !taken(n)).expect("a number");
        self.call_mut(call).stage = Stage::Waiting(request);
        let step = self.take(side, Act::Request(request, self.name(message)))?;
        match step.said {
            Said::Deliver { maybe_dup } => self.delivered(message, maybe_dup)?,
            Said::Answered(word) => self.respond(side, request, word)?,
            Said::Known => {}
            said => unreachable!("{said:?} to a Request"),
        }
        self.carry_out(side, &step)
    }

    /// The message with which this move is an answered request.
    pub(super) fn asks(&self, what: Move) -> Option<usize> {
        let Move::Answered(call) = what else { return None };
        Some(self.call(call.into())).filter(Call::waits).map(|call| call.message.into())
    }

    pub(super) fn respond(&mut self, side: usize, request: u8, word: Word) -> Result {
        let is = |call: &Option<Call>| call.is_some_and(|call| call.stage == Stage::Waiting(request));
        let Some(call) = self.state.calls.iter().position(is) else {
            return Err(broken("G6", format!("an answer to request {request}, which nobody made")));
        };
        let message = self.call(call).message;
        assert_ne!(self.setup.sender(message.into()), side, "a request of the peer's");
        if word == Word::Done {
            self.acknowledges(message)?;
        }
        self.back(call, word);
        Ok(())
    }

    pub(super) fn answered(&mut self, call: usize, twice: bool) -> Result {
        let Call { message, attempt, asker, stage } = self.call(call);
        let Stage::Back(word) = stage else { unreachable!("an answer") };
        if twice {
            self.call_mut(call).asker = Asker::GaveUp;
        } else {
            self.state.calls[call] = None;
        }
        let side = self.setup.sender(message.into());
        if asker == Asker::Waits {
            return self.posted(message, attempt, word);
        }
        // It changes nothing.
        if asker == Asker::GaveUp {
            let said = self.tell(side, self.act_posted(message, attempt, word))?;
            if said != Said::Stale {
                return Err(broken("G6", format!("a late or doubled answer to message {message} is {said:?}")));
            }
        }
        Ok(())
    }

    pub(super) fn posted(&mut self, message: u8, attempt: u16, word: Word) -> Result {
        let side = self.setup.sender(message.into());
        match self.tell(side, self.act_posted(message, attempt, word))? {
            Said::Done => Ok(()),
            said => Err(broken("G6", format!("the answer to message {message} is {said:?}"))),
        }
    }

    pub(super) fn act_posted(&self, message: u8, attempt: u16, word: Word) -> Act {
        Act::Posted(self.state.messages[usize::from(message)].name.seq, attempt, word)
    }

    pub(super) fn lose(&mut self, call: usize) -> Result {
        let Call { message, stage, .. } = self.call(call);
        self.lose_at(call);
        if let Stage::Waiting(request) = stage {
            self.tell(1 - self.setup.sender(message.into()), Act::RequestGone(request))?;
        }
        Ok(())
    }

    pub(super) fn back(&mut self, call: usize, word: Word) {
        self.call_mut(call).stage = Stage::Back(word);
        self.drop_if_unheard(call);
    }

    pub(super) fn lose_at(&mut self, call: usize) {
        self.call_mut(call).stage = Stage::Lost;
        self.drop_if_unheard(call);
    }

    pub(super) fn drop_if_unheard(&mut self, call: usize) {
        let unheard = |call: &mut Call| match call.stage {
            Stage::Lost => !call.waits(),
            Stage::Back(_) => call.asker == Asker::Nobody,
            Stage::Going | Stage::Waiting(_) => false,
        };
        self.state.calls[call].take_if(unheard);
    }

    pub(super) fn poisonous(&self, message: u8) -> bool {
        self.setup.poison == Some(message)
    }

    pub(super) fn call(&self, call: usize) -> Call {
        self.state.calls[call].expect("a call")
    }

    pub(super) fn call_mut(&mut self, call: usize) -> &mut Call {
        self.state.calls[call].as_mut().expect("a call")
    }

    pub(super) fn add_call(&mut self, call: Call) {
        *self.state.calls.iter_mut().find(|slot| slot.is_none()).expect("a few at once") = Some(call);
    }
}
