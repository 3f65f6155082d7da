//! What a session's messages come to: delivered, decided, and what their sender is told of them, by either path.

use super::confirmations::{ConfirmationLog, Word};
use super::{BELIEVED, Effect, Engine, grow, wrong_clock};
use crate::explanation::{Excerpt, Explanation};
use crate::http::{Answer, Target};
use crate::hub::Hub;
use crate::hub::line::{self, Names};
use crate::hub::message::{Message, Name, Ticket, Verdict};
use crate::hub::native::Pass;
use crate::hub::wire::{Content, HubWire, Text};
use async_channel::{Receiver, Sender};
use bowline::hub::{CloseReason, Denied, SessionId, Stamp};
use bowline::{Arrival, Instant, MessageId, RequestId, Seq};
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

/// What is known of a session beside the machine.
pub(super) struct Account<W: HubWire> {
    pub(super) session: SessionId,
    pub(super) peer: W::Peer,
    pub(super) receiver: Option<Target>,
    /// It ends with its connection.
    pub(super) guest: bool,
    /// So long what `authorize` said last holds for requests.
    pub(super) believed: Instant,
    /// Of a native session.
    pub(super) pass: Option<Pass>,
    /// What was said at the end of its connection, until the machine tells of that.
    pub(super) said: Option<Explanation>,
    confirmations: ConfirmationLog<W::Confirmation>,
}

/// A request that waits for its answer.
pub(super) struct Asking {
    pub(super) answer: Sender<Answer>,
    pub(super) id: Option<MessageId>,
    /// Of a native message: its number, and the words if it is rejected.
    pub(super) seq: Option<(Seq, String)>,
    /// What goes into the answer to a poll.
    pub(super) carried: Vec<String>,
}

/// A verdict and its encoded form.
pub(in crate::hub) struct End<C> {
    ticket: Ticket,
    verdict: bowline::Verdict,
    word: Option<Word<C>>,
    frame: Option<Text>,
}

impl<W: HubWire> Hub<W> {
    /// What a verdict says, encoded.
    pub(in crate::hub) fn word(&self, ticket: Ticket, verdict: Verdict<W::Confirmation>) -> End<W::Confirmation> {
        let (verdict, word) = match verdict {
            Verdict::Confirmed(said) => (bowline::Verdict::Done, Some(Ok(said))),
            Verdict::Rejected(why) => (bowline::Verdict::Reject, Some(Err(why.into_boxed_str()))),
            Verdict::Retry(after) => (bowline::Verdict::Retry { after }, None),
        };
        let frame = ticket.name().zip(word.as_ref()).and_then(|((id, content), word): (_, &Word<W::Confirmation>)| {
            self.wire().confirmation(id, content, word.as_ref().map_err(|why| &**why))
        });
        End { ticket, verdict, word, frame }
    }
}

impl<W: HubWire> Engine<W> {
    /// Under which id the machine knows a message, and asks for its confirmation.
    fn known_as(&self, names: Names) -> Option<MessageId> {
        names.id.map(|id| self.dedup.known_as(id, names.key))
    }

    pub(super) fn arrived(&mut self, session: SessionId, arrival: Arrival, content: Content, names: Names, bytes: u32) {
        let Content { kind, data, id: name } = content;
        let name = name.zip(names.key).map(|(id, content)| Name { id, content });
        let id = self.known_as(names).zip(name);
        let Some(account) = self.accounts.get_mut(session.place()).and_then(Option::as_mut) else { return };
        if let Some((id, name)) = &id
            && matches!(arrival, Arrival::Deliver { .. } | Arrival::Duplicate | Arrival::Answer(_))
        {
            let machine = &self.machine;
            account.confirmations.note(*id, name, self.remembered, |id| machine.remembers(session, id));
        }
        if let Arrival::Deliver { delivery, maybe_dup } = arrival {
            let message = Message { peer: account.peer.clone(), kind, data, maybe_dup };
            let ticket = Ticket { session, delivery, id, seq: None, bytes, arrived: self.clock.now() };
            self.effects.push(Effect::Deliver { message, ticket });
        }
    }

    /// A message came by a request. The answer, or the place where it will be.
    pub(in crate::hub) fn request(
        &mut self,
        address: IpAddr,
        peer: W::Peer,
        receiver: Option<Target>,
        content: Content,
        (names, bytes): (Names, u32),
        stamp: Option<Stamp>,
    ) -> Result<(SessionId, RequestId, Receiver<Answer>), Answer> {
        let request = self.next_request();
        let (identity, wall) = (self.identity(&peer, false), line::wall());
        let (session, arrival) = self
            .machine
            .request(self.now(), wall, identity, request, names.id, names.key, bytes, stamp)
            .map_err(|refused| {
                let clock = stamp.filter(|_| refused.why == CloseReason::WrongClock);
                let said = clock.map(|stamp| wrong_clock(stamp.issued, wall));
                self.turned_away(Some(address), Some(&peer), refused.why, said.as_deref().and_then(Excerpt::new));
                match said {
                    Some(said) => Answer::error(refused.why.status(), said),
                    None => denied(refused),
                }
            })?;
        if receiver.is_some() {
            // Who has never been connected is posted to all the same.
            let _ = self.machine.adopt(self.now(), identity, true);
        }
        self.note(session, &peer, receiver);
        self.arrived(session, arrival, content, names, bytes);
        let id = self.known_as(names);
        match arrival {
            Arrival::Answer(said) => Err(self.answer(session, id, said)),
            Arrival::Full => {
                self.turned_away(Some(address), Some(&peer), CloseReason::Full, None);
                Err(denied(Denied { why: CloseReason::Full, retry_after: Duration::from_secs(1) }))
            }
            Arrival::Reused => Err(Answer::error(422, "this id was used for another message")),
            Arrival::Deliver { .. } | Arrival::Ahead { .. } | Arrival::Duplicate => {
                let (answer, answered) = async_channel::bounded(1);
                self.requests.insert(request, Asking { answer, id, seq: None, carried: Vec::new() });
                Ok((session, request, answered))
            }
        }
    }

    pub(in crate::hub) fn request_gone(&mut self, session: SessionId, request: RequestId) {
        if self.requests.remove(&request).is_some() {
            self.machine.request_gone(self.now(), session, request);
        }
    }

    pub(super) fn answer(&mut self, session: SessionId, id: Option<MessageId>, said: bowline::Answer) -> Answer {
        match said {
            bowline::Answer::Done | bowline::Answer::Rejected => match id.and_then(|id| self.confirmation(session, id))
            {
                Some(frame) => Answer { body: Some(("application/json", frame.into())), ..Answer::OK },
                None => Answer::marked(said.status(), "done"),
            },
            bowline::Answer::Reused => Answer::error(422, "this id was used for another message"),
            bowline::Answer::Unknown | bowline::Answer::Polled => Answer::status(said.status()),
            bowline::Answer::Again { after } => {
                Answer { retry_after: Some(after), ..Answer::error(409, "still at work") }
            }
            bowline::Answer::Busy { after } => Answer { retry_after: Some(after), ..Answer::error(503, "no room") },
        }
    }

    /// The confirmation of a message; none if the machine has outlived its name.
    pub(super) fn confirmation(&mut self, session: SessionId, id: MessageId) -> Option<Text> {
        let wire = Arc::clone(&self.wire);
        self.account(session)?.confirmations.frame(id, &*wire)
    }

    pub(in crate::hub) fn complete(&mut self, ends: Vec<End<W::Confirmation>>) -> bool {
        let (mut open, now) = (true, self.now());
        for End { ticket, verdict, word, frame } in ends {
            let Ticket { session, delivery, id, seq, bytes, arrived } = ticket;
            self.machine.release(session, bytes);
            let success = word.as_ref().map(Result::is_ok);
            if let (Some(seq), Some(Err(why))) = (seq, &word) {
                self.say_rejected(session, seq, why);
            }
            if let Some((id, _)) = id
                && let Some(account) = self.account(session)
            {
                match word {
                    Some(word) => account.confirmations.decide(id, word, frame),
                    None => account.confirmations.give_back(id),
                }
            }
            self.counters.handled(now, success, now.since(arrived));
            open &= self.machine.complete(now, session, delivery, verdict);
        }
        open
    }

    /// What is known of this session; another may have its place by now.
    fn account(&mut self, session: SessionId) -> Option<&mut Account<W>> {
        self.accounts.get_mut(session.place())?.as_mut().filter(|account| account.session == session)
    }

    /// Notes whose session this is, and where it takes messages by HTTP if that is known.
    pub(super) fn note(&mut self, session: SessionId, peer: &W::Peer, receiver: Option<Target>) {
        let believed = self.now().after(BELIEVED);
        grow(&mut self.accounts, session.place());
        let Some(slot) = self.accounts.get_mut(session.place()) else { return };
        slot.take_if(|account| account.session != session);
        let new = || Account {
            session,
            peer: peer.clone(),
            receiver: None,
            guest: false,
            believed,
            pass: None,
            said: None,
            confirmations: ConfirmationLog::default(),
        };
        let account = slot.get_or_insert_with(new);
        if receiver.is_some() {
            account.receiver = receiver;
        }
    }
}

/// A refusal as an answer.
pub(in crate::hub) fn denied(denied: Denied) -> Answer {
    let retry_after = Some(denied.retry_after).filter(|after| !after.is_zero());
    Answer { retry_after, ..Answer::error(denied.why.status(), denied.why.to_string()) }
}
