//! The promises, kept as books: G1, G2, G3 at every move, and how a situation is known in which everything is settled.

use super::act::Name;
use super::state::{Budget, End, Sent, State};
use super::world::World;
use bowline::Outcome;
use core::fmt;

/// A promise that was broken, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broken {
    /// The promise.
    pub promise: &'static str,
    /// How it was broken.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

pub(super) const fn broken(promise: &'static str, what: String) -> Broken {
    Broken { promise, what }
}

impl World<'_> {
    /// G1 and G3: an accepted message ends once, and as delivered only if its receiver's application completed it.
    pub(super) fn settled(&mut self, side: usize, message: u8, outcome: Outcome) -> Result<(), Broken> {
        let book = &mut self.state.messages[usize::from(message)];
        if book.sent != Sent::Accepted {
            return Err(broken("G1", format!("message {message} ends twice, now as {outcome:?}")));
        }
        book.sent = Sent::Ended;
        let told = match outcome {
            Outcome::Delivered { .. } => book.done,
            // The peer is gone for good, and this side ends too.
            Outcome::Abandoned => self.state.closing[side] && self.state.closing[1 - side],
            Outcome::Rejected(_) | Outcome::Expired => false,
        };
        let done = if self.state.messages[usize::from(message)].done { "completed" } else { "never completed" };
        if told { Ok(()) } else { Err(broken("G1", format!("message {message} was {done} and ends as {outcome:?}"))) }
    }

    /// G2: no second delivery, or marked where the receiver's memory was lost.
    pub(super) fn delivered(&mut self, message: u8, maybe_dup: bool) -> Result<(), Broken> {
        let book = &mut self.state.messages[usize::from(message)];
        if book.here {
            return Err(broken("G2", format!("message {message} is delivered twice")));
        }
        if book.ever && !maybe_dup {
            return Err(broken("G2", format!("message {message} is delivered again and not marked")));
        }
        (book.here, book.ever) = (true, true);
        let side = 1 - self.setup.sender(message.into());
        if self.at_work(side).is_none() {
            self.state.work[side] = self.setup.work;
        }
        self.state.messages[usize::from(message)].held = Some(0);
        Ok(())
    }

    /// G3: no acknowledgement before the application completed it.
    pub(super) fn acknowledges(&self, message: u8) -> Result<(), Broken> {
        if self.state.messages[usize::from(message)].done {
            return Ok(());
        }
        Err(broken("G3", format!("message {message} is acknowledged before it is completed")))
    }

    /// I1: a number stands for one payload.
    pub(super) fn names(&self, side: usize, seq: u8, message: u8) -> Result<(), Broken> {
        let book = &self.state.messages[usize::from(message)];
        let same = book.name == Name { side: side as u8, life: self.state.life[side], seq };
        if same && book.sent == Sent::Accepted {
            return Ok(());
        }
        Err(broken("I1", format!("message {message} goes under number {seq}")))
    }

    /// T8: where nothing goes wrong, nothing goes twice, however long an application works.
    pub(super) fn goes_again(&self, message: u8) -> Result<(), Broken> {
        if self.setup.work > 0 && self.setup.budget == Budget::NONE {
            return Err(broken("T8", format!("message {message} goes by HTTP, too, though nothing is wrong")));
        }
        Ok(())
    }

    /// Everything that can end has ended: every message but the poisonous one, and both sides are together on a WebSocket.
    pub(super) fn is_settled(&self) -> bool {
        let ended = (0..self.setup.messages()).all(|message| {
            let side = self.setup.sender(message.into());
            let sent = self.state.messages[usize::from(message)].sent;
            let State { closing, .. } = self.state;
            self.setup.poison == Some(message)
                || matches!(sent, Sent::Ended | Sent::Forgotten)
                || (sent == Sent::Not && closing[side])
                || closing[1 - side]
        });
        let together = |side: usize| self.machines.up(self.state.session[side]);
        let closed = |side: usize| self.machines.over(self.state.session[side]);
        // A side that asks nothing never learns that nothing comes through.
        let unknown = self.state.wires.iter().flatten().any(|wire| wire.silent || wire.ends.contains(&End::Mute));
        match self.state.closing {
            [false, false] => ended && (unknown || (together(0) && together(1))),
            // Neither takes anything new, so what is under way between them ends with the drains.
            [true, true] => closed(0) && closed(1),
            [one, _] => ended && closed(usize::from(!one)),
        }
    }
}
