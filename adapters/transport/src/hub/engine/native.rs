//! What the engine does for native peers beside all the others.

use super::account::{Account, Asking};
use super::{BELIEVED, Effect, Engine, Parcel};
use crate::http::Answer;
use crate::hub::line::{self, Line};
use crate::hub::message::{Message, Ticket};
use crate::hub::native::{self as hub, Hello, Pass};
use crate::hub::wire::{Content, Gap, HubWire, Text};
use crate::hub::{Admission, Event};
use async_channel::Receiver;
use bowline::hub::{CloseReason, ConnId, Denied, Position, SessionId, Start, TopicName};
use bowline::wire::native::{self, EVERYBODY, FRAME_LIMIT, Frame, Refusal};
use bowline::{Arrival, DeliveryId, MessageId, Nack, RequestId, ResumeRefusal, Seq, Verdict};
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;
use tungstenite::Message as Wire;

/// So many sessions that have ended are remembered, to tell `expired` from `unknown_session`.
const ENDED: usize = 1024;

/// A message that waits for its turn.
pub(super) type Ahead<P> = (Message<P>, Ticket);

type Waiting = (SessionId, RequestId, Receiver<Answer>);

impl<W: HubWire> Engine<W> {
    /// The application has said whether a native client may come in.
    pub(in crate::hub) fn called(
        &mut self,
        line: &Arc<Line<W>>,
        hello: &Hello,
        admission: Result<Admission, CloseReason>,
    ) {
        let vote = match admission {
            Ok(Admission::Accept { .. }) => match self.may(hello, line.peer()) {
                Ok(known) => {
                    line.lock().proven = hello.is_proven(known);
                    bowline::hub::Verdict::Greeted { greeting: hello.greeting, known }
                }
                Err(refusal) => {
                    line.lock().refused = Some(refusal);
                    bowline::hub::Verdict::Refuse(CloseReason::Impostor)
                }
            },
            Ok(Admission::Refuse(_)) => bowline::hub::Verdict::Refuse(CloseReason::Unknown),
            Ok(Admission::Later(after)) => bowline::hub::Verdict::Later(after),
            Err(why) => bowline::hub::Verdict::Refuse(why),
        };
        self.machine.verified(self.now(), line::wall(), line.conn(), vote);
    }

    /// Whether this hello can be answered by a welcome, and why its session does not go on if that is known already.
    fn may(&mut self, hello: &Hello, peer: Option<&W::Peer>) -> Result<Option<ResumeRefusal>, Refusal> {
        if hello.greeting.life > self.native_horizon {
            return Err(Refusal::Horizon);
        }
        let Some((sid, token)) = &hello.ticket else { return Ok(None) };
        let Some(session) = self.sids.get(sid).copied() else {
            let expired = self.ended.iter().any(|ended| ended == sid);
            return Ok(Some(if expired { ResumeRefusal::Expired } else { ResumeRefusal::UnknownSession }));
        };
        let names = self.names.clone();
        let account = self.accounts.get_mut(session.place()).and_then(Option::as_mut);
        let own = account.filter(|account| Some(&account.peer) == peer).and_then(|account| account.pass.as_mut());
        let admitted = own.is_some_and(|pass| pass.admits(&names, token));
        admitted.then_some(None).ok_or(Refusal::Resume(ResumeRefusal::Identity))
    }

    /// A hello by HTTP.
    pub(in crate::hub) fn greeted(&mut self, address: IpAddr, hello: &Hello, peer: &W::Peer) -> Answer {
        let known = match self.may(hello, Some(peer)) {
            Ok(known) => known,
            Err(refusal) => {
                self.turned_away(Some(address), Some(peer), CloseReason::Impostor, None);
                return hub::refused(refusal);
            }
        };
        let identity = self.identity(peer, true);
        match self.machine.greet(self.now(), identity, &hello.greeting, known) {
            Ok((session, reason)) => {
                self.note(session, peer, None);
                let resumed = hello.greeting.resume && reason.is_none();
                let proven = hello.is_proven(known);
                let welcome = self.native_welcome(session, resumed, reason, proven).unwrap_or_default();
                Answer { body: Some(("application/json", welcome.into())), ..Answer::OK }
            }
            Err(Denied { why, retry_after: after }) => {
                self.turned_away(Some(address), Some(peer), why, None);
                hub::refusal(why).map_or_else(|| super::denied(Denied { why, retry_after: after }), hub::refused)
            }
        }
    }

    /// The welcome of a session, with a token of its own (R9). Where its client has not `proven` that it is the one before,
    /// that one's tokens end: what it polls and posts would be taken for the other's.
    fn native_welcome(
        &mut self,
        session: SessionId,
        resumed: bool,
        reason: Option<ResumeRefusal>,
        proven: bool,
    ) -> Option<String> {
        let window = self.machine.reconnect_window();
        let (heartbeat, dead) = self.native_beat;
        let mut greeting = self.machine.greeting(session, true)?;
        greeting.resume = resumed;
        let account = self.accounts.get_mut(session.place())?.as_mut()?;
        match &mut account.pass {
            Some(pass) if proven => pass.rotate(),
            Some(pass) => pass.begin(),
            None => {
                let pass = Pass::new();
                self.sids.insert(pass.sid.clone(), session);
                account.pass = Some(pass);
            }
        }
        let ticket = account.pass.as_ref()?.ticket();
        let welcome = native::Welcome { ticket, reason, greeting, heartbeat, dead, window, frame: FRAME_LIMIT };
        Some(Frame::Welcome(welcome).encode())
    }

    /// A native connection carries its session now.
    pub(super) fn welcome_native(
        &mut self,
        line: &Arc<Line<W>>,
        session: SessionId,
        resumed: bool,
        reason: Option<ResumeRefusal>,
    ) {
        let Some(peer) = line.peer() else { return };
        self.note(session, peer, None);
        if let Some(account) = self.accounts.get_mut(session.place()).and_then(Option::as_mut) {
            account.believed = self.clock.now().after(BELIEVED);
        }
        line.enter(line::Stage::Open);
        let proven = line.lock().proven;
        if let Some(welcome) = self.native_welcome(session, resumed, reason, proven) {
            self.write(line, Wire::text(welcome));
        }
        self.effects.push(Effect::Tell(Event::Connected { peer: peer.clone(), resumed }));
    }

    /// What one native frame brought.
    pub(super) fn native_heard(&mut self, line: &Arc<Line<W>>, heard: hub::Heard, bytes: u32, takes: bool, wall: i64) {
        use bowline::hub::Heard;
        let (now, conn) = (self.now(), line.conn());
        self.counters.frames_in = self.counters.frames_in.saturating_add(u64::from(bytes > 0));
        match self.machine.received(now, wall, conn, heard.head(), bytes, None) {
            Heard::Limited | Heard::NoRoom => {
                if let hub::Heard::Message { seq, .. } = heard {
                    self.ask_again(line, seq);
                }
            }
            Heard::Arrival(session, arrival) => {
                if let hub::Heard::Message { seq, content, .. } = heard {
                    self.native_arrived(session, arrival, seq, content, bytes, takes);
                }
            }
            Heard::Noted | Heard::Replayed(_) => match heard {
                hub::Heard::Malformed => {
                    self.counters.misunderstood(now);
                    let error = hub::text(&Frame::Error { message: "not understood".into() });
                    self.reply(line, error);
                }
                hub::Heard::Wish { on, topic, since } => self.native_wish(line, on, &topic, since),
                hub::Heard::Reauth(auth) => {
                    // One after the other: whoever shows it a hundred times is not a hundred times at the application.
                    if line.lock().reauth.show(auth) {
                        self.effects.push(Effect::Reauth { line: Arc::clone(line) });
                    }
                }
                hub::Heard::Message { seq, .. } => self.ask_again(line, seq),
                hub::Heard::Head(_) => {}
            },
            Heard::Stale => {}
        }
    }

    /// It was not looked at: its sender is to come again with it.
    fn ask_again(&mut self, line: &Arc<Line<W>>, seq: Seq) {
        let nack = Nack::Busy { after: hub::AGAIN };
        self.reply(line, hub::text(&Frame::Nack { seq, nack, reason: "".into() }));
    }

    fn native_wish(&mut self, line: &Arc<Line<W>>, on: bool, topic: &str, since: Option<Start>) {
        let Some(session) = self.machine.session_of(line.conn()) else { return };
        let filter = hub::filter(topic);
        let now = self.now();
        let topic = topic.into();
        let answer = if on {
            let start = since.unwrap_or(Start::Now);
            let subscribed = filter.and_then(|filter| self.machine.subscribe(now, session, &filter, start).ok());
            let newest = subscribed.and_then(|subscribed| subscribed.newest);
            let at = newest.map(|at| native::Position { epoch: at.epoch, offset: at.offset });
            Frame::Subscribed { topic, ok: subscribed.is_some(), at }
        } else {
            let ok = filter.is_some_and(|filter| self.machine.unsubscribe(now, session, &filter));
            Frame::Unsubscribed { topic, ok }
        };
        let text = hub::text(&answer);
        self.reply(line, text);
    }

    /// A numbered message was taken, or was not.
    fn native_arrived(
        &mut self,
        session: SessionId,
        arrival: Arrival,
        seq: Seq,
        content: Content,
        bytes: u32,
        takes: bool,
    ) {
        let (delivery, maybe_dup, ahead) = match arrival {
            Arrival::Deliver { delivery, maybe_dup } => (delivery, maybe_dup, false),
            Arrival::Ahead { delivery, maybe_dup } => (delivery, maybe_dup, true),
            Arrival::Duplicate | Arrival::Answer(_) | Arrival::Full | Arrival::Reused => return,
        };
        let Some(account) = self.accounts.get(session.place()).and_then(Option::as_ref) else { return };
        if !takes {
            let why = super::Complaint::Unhandled(&content.kind).to_string();
            self.say_rejected(session, seq, &why);
            self.machine.complete(self.now(), session, delivery, Verdict::Reject);
            self.machine.release(session, bytes);
            return;
        }
        let Content { kind, data, .. } = content;
        let message = Message { peer: account.peer.clone(), kind, data, maybe_dup };
        let ticket = Ticket { session, delivery, id: None, seq: Some(seq), bytes, arrived: self.clock.now() };
        if ahead {
            self.ahead.insert((session, delivery), (message, ticket));
        } else {
            self.effects.push(Effect::Deliver { message, ticket });
        }
    }

    /// It is the turn of a message that came before one that was missing.
    pub(super) fn turn(&mut self, session: SessionId, delivery: DeliveryId) {
        if let Some((message, ticket)) = self.ahead.remove(&(session, delivery)) {
            self.effects.push(Effect::Deliver { message, ticket });
        }
    }

    /// The words of a rejection; that it is one, the marks say.
    pub(super) fn say_rejected(&mut self, session: SessionId, seq: Seq, why: &str) {
        if let Some(line) = self.machine.connection(session).and_then(|conn| self.line(conn)) {
            self.reply(&line, hub::rejected(seq, why).into());
        }
        let of = self.machine.greeting(session, true).and_then(|greeting| greeting.rx).map(|got| got.of);
        let id = of.map(|of| of.message(seq));
        let asking = self.requests.values_mut().filter(|asking| asking.id == id);
        for (_, words) in asking.filter_map(|asking| asking.seq.as_mut()) {
            why.clone_into(words);
        }
    }

    /// Who shows this token, by its session. Otherwise the status of the answer.
    pub(in crate::hub) fn shown(&mut self, peer: &W::Peer, token: &str) -> Result<SessionId, u16> {
        let session = self.machine.find(self.identity(peer, true)).ok_or(404_u16)?;
        let names = self.names.clone();
        let account = self.accounts.get_mut(session.place()).and_then(Option::as_mut);
        let pass = account.and_then(|account| account.pass.as_mut()).ok_or(404_u16)?;
        if pass.is_enough(&names, token) { Ok(session) } else { Err(401) }
    }

    pub(in crate::hub) fn native_message(
        &mut self,
        address: IpAddr,
        session: SessionId,
        peer: &W::Peer,
        (seq, una, id): (Seq, Seq, MessageId),
        content: Content,
        bytes: u32,
    ) -> Result<Waiting, Answer> {
        let of = self.machine.greeting(session, true).and_then(|greeting| greeting.rx).map(|got| got.of);
        match of.and_then(|of| of.seq_of(id)) {
            Some(number) if number == seq => {}
            Some(_) => return Err(Answer::error(400, "the Idempotency-Key is not the id of this number")),
            // Another self of this client has been here: it has to say hello again before it is listened to.
            None => return Err(Answer::status(404)),
        }
        let takes = (self.takes)(&content.kind);
        let now = self.now();
        self.machine.advance(now, session, una);
        let request = self.next_request();
        let identity = self.identity(peer, true);
        let asked = self.machine.request(now, line::wall(), identity, request, Some(id), None, bytes, None);
        let (session, arrival) = asked.map_err(|refused| {
            self.turned_away(Some(address), Some(peer), refused.why, None);
            super::denied(refused)
        })?;
        let why = super::Complaint::Unhandled(&content.kind).to_string();
        let held = matches!(arrival, Arrival::Deliver { .. } | Arrival::Ahead { .. } | Arrival::Duplicate);
        let (answer, answered) = async_channel::bounded(1);
        if held {
            self.requests.insert(request, Asking { answer, id: Some(id), seq: Some((seq, why)), carried: Vec::new() });
        }
        self.native_arrived(session, arrival, seq, content, bytes, takes);
        match arrival {
            Arrival::Answer(said) => Err(self.native_answer(session, said, Some((seq, String::new())), Vec::new())),
            Arrival::Deliver { .. } | Arrival::Ahead { .. } | Arrival::Duplicate => Ok((session, request, answered)),
            Arrival::Full | Arrival::Reused => Err(Answer::BUSY),
        }
    }

    pub(in crate::hub) fn native_poll(&mut self, session: SessionId, poll: &native::Poll) -> Result<Waiting, Answer> {
        let request = self.next_request();
        let (answer, answered) = async_channel::bounded(1);
        self.requests.insert(request, Asking { answer, id: None, seq: None, carried: Vec::new() });
        match self.machine.polled(self.now(), session, request, poll.wait, &poll.report, poll.una) {
            Ok(()) => Ok((session, request, answered)),
            Err(refused) => {
                self.requests.remove(&request);
                Err(super::denied(refused))
            }
        }
    }

    pub(super) fn next_request(&mut self) -> RequestId {
        self.last_request = self.last_request.saturating_add(1);
        RequestId(self.last_request)
    }

    /// What goes into the answer to a poll.
    pub(super) fn carry(&mut self, request: RequestId, frame: String) {
        if let Some(asking) = self.requests.get_mut(&request) {
            asking.carried.push(frame);
        }
    }

    /// The answer to a native request.
    pub(super) fn native_answer(
        &mut self,
        session: SessionId,
        said: bowline::Answer,
        of: Option<(Seq, String)>,
        carried: Vec<String>,
    ) -> Answer {
        let json = |body: String| Some(("application/json", body.into()));
        match said {
            bowline::Answer::Polled => {
                let frames = carried.iter().map(String::as_str).collect();
                Answer { body: json(Frame::Batch(frames).encode()), ..Answer::OK }
            }
            bowline::Answer::Done => {
                let marks = self.machine.marks(session).map(|(report, una)| hub::marks(report, una));
                Answer { body: marks.and_then(json), ..Answer::OK }
            }
            bowline::Answer::Rejected | bowline::Answer::Reused => {
                let body = of.map(|(seq, why)| hub::rejected(seq, &why));
                Answer { body: body.and_then(json), ..Answer::status(422) }
            }
            bowline::Answer::Unknown => Answer::status(404),
            bowline::Answer::Again { after } | bowline::Answer::Busy { after } => {
                Answer { retry_after: Some(after), ..Answer::error(409, "still at work") }
            }
        }
    }

    /// A native peer has shown again who it is.
    pub(in crate::hub) fn reauthenticated(&mut self, line: &Arc<Line<W>>, admission: &Admission) {
        let Some(session) = self.machine.session_of(line.conn()) else { return };
        match admission {
            Admission::Accept { .. } => {
                let Some(account) = self.accounts.get_mut(session.place()).and_then(Option::as_mut) else { return };
                let Some(pass) = &mut account.pass else { return };
                pass.arrived();
                pass.rotate();
                let text = hub::text(&Frame::Token { token: pass.ticket().token });
                self.write(line, Wire::Text(text));
            }
            Admission::Refuse(_) => {
                // By HTTP it would go on without being asked.
                let account = self.accounts.get_mut(session.place()).and_then(Option::as_mut);
                if let Some(pass) = account.and_then(|account| account.pass.as_mut()) {
                    pass.suspend();
                }
                let text = hub::text(&Frame::Refused { reason: Refusal::Auth });
                self.write(line, Wire::Text(text));
                self.machine.refuse(self.now(), line.conn(), CloseReason::Unknown);
            }
            // It goes on as it was, and asks again when it likes.
            Admission::Later(_) => {}
        }
    }

    /// What a session's end leaves.
    pub(super) fn forget_native(&mut self, session: SessionId, account: &Account<W>) {
        if let Some(pass) = &account.pass {
            self.sids.remove(&pass.sid);
            if self.ended.len() >= ENDED {
                self.ended.pop_front();
            }
            self.ended.push_back(pass.sid.clone());
        }
        let _ = self.let_go(session);
    }

    #[cfg(test)]
    pub(in crate::hub) fn ahead(&self) -> usize {
        self.ahead.len()
    }

    #[cfg(test)]
    pub(in crate::hub) fn held_bytes(&self) -> u64 {
        self.machine.health().held_bytes
    }

    /// Gives back what waits for its turn in this session, to be sent again after this.
    pub(super) fn give_back(&mut self, session: SessionId, after: Duration) {
        for delivery in self.let_go(session) {
            self.machine.complete(self.now(), session, delivery, Verdict::Retry { after });
        }
    }

    /// What this session has that waits for its turn, let go of.
    pub(super) fn let_go(&mut self, session: SessionId) -> Vec<DeliveryId> {
        let of_it = (session, DeliveryId::from_number(0))..=(session, DeliveryId::from_number(u64::MAX));
        let kept: Vec<_> = self.ahead.range(of_it).map(|((_, delivery), _)| *delivery).collect();
        for delivery in &kept {
            if let Some((_, ticket)) = self.ahead.remove(&(session, *delivery)) {
                self.machine.release(session, ticket.bytes);
            }
        }
        kept
    }

    /// A frame of the session's own, as a native peer reads it; `None`: it is for plain ones.
    pub(super) fn native_frame(frame: &bowline::Frame<'_, Arc<Parcel<W>>>) -> Option<Text> {
        Some(match frame {
            bowline::Frame::Data { seq, una, payload, .. } => {
                let (kind, data) = payload.source()?;
                hub::text(&Frame::Data { seq: *seq, una: *una, kind: kind.into(), data })
            }
            bowline::Frame::Marks { report, una, beat } => {
                hub::text(&Frame::Marks { report: *report, una: *una, beat: *beat })
            }
            bowline::Frame::Nack { seq, after } => {
                let nack = Nack::Retry { after: *after };
                hub::text(&Frame::Nack { seq: *seq, nack, reason: "".into() })
            }
            bowline::Frame::Ack { .. } | bowline::Frame::Ping | bowline::Frame::Keepalive => return None,
        })
    }

    pub(super) fn native_gap(&mut self, conn: ConnId, gap: &Gap) {
        let from = native::Position { epoch: gap.epoch, offset: gap.from.unwrap_or(1) };
        let text = hub::text(&Frame::Missed { topic: gap.topic.as_str().into(), from, to: gap.to });
        if let Some(line) = self.line(conn) {
            self.write(&line, Wire::Text(text));
        }
    }
}

impl<W: HubWire> Parcel<W> {
    /// As native peers get it, with its place or as a broadcast; written once for all of them.
    pub(super) fn event(&self, at: Option<(&TopicName, Position)>) -> Text {
        let write = || {
            let (kind, data) = self.source().unwrap_or_default();
            let (topic, epoch, offset) = match &at {
                Some((topic, at)) => (topic.as_str(), at.epoch, at.offset),
                None => (EVERYBODY, 0, 0),
            };
            let at = native::Position { epoch, offset };
            hub::text(&Frame::Event { topic: topic.into(), at, kind: kind.into(), data })
        };
        self.native.get_or_init(write).clone()
    }
}

/// The last word to a native peer before its close frame.
pub(super) fn farewell(
    why: CloseReason,
    after: Duration,
    refused: Option<Refusal>,
    known: bool,
    window: Duration,
) -> Option<Text> {
    let refusal = refused.or_else(|| hub::refusal(why));
    match refusal {
        Some(reason) if !known => Some(hub::text(&Frame::Refused { reason })),
        _ if why == CloseReason::Draining => Some(hub::text(&Frame::Reconnect { after, window })),
        _ => None,
    }
}
