//! The hub's machine and its lines: what both do to each other, under one lock.
//!
//! ```text
//!  input ─▶ machine ─▶ outputs ─▶ frames into the lines they are for ─▶ every line touched is flushed, once
//!                         └─▶ effects: deliveries, answers, settlements, actions        after the lock is gone
//! ```
//!
//! Invariants: the machine is drained after every input; a line is in its place exactly as long as its connection exists;
//! what a session was told of its predictions is kept as long as the machine remembers them, and no longer.

use super::line::{self, Content, Heard, Item, LONGEST_FRAME, Line, Stage};
use super::message::{Message, Ticket, Verdict};
use super::metrics::Counters;
use super::setup::HubSetup;
use super::sign::Signer;
use super::{Action, Admission, Event, Hub, Refused, SessionInfo};
use crate::clock::Clock;
use crate::http::{Answer, Bytes, Target};
use crate::keys::Hotkey;
use crate::node::{Settlement, Stream};
use crate::setup::{SetupError, origin, random};
use crate::socket::Wrote;
use async_channel::{Receiver, Sender};
use bowline::hub::{
    ConnId, Denied, Grows, Health, Heard as Outcome, Hub as Machine, HubEvent, HubOutput, HubStats, Identity, Publish,
    Sent, SessionId, Stamp, Verdict as Vote, Why,
};
use bowline::wire::KeyedHash;
use bowline::wire::bettensor::{
    CLOSE_REPLACED, CLOSE_STOPPING, CLOSE_UNKNOWN, REFUSED, REFUSED_UNKNOWN, encode_refusal,
};
use bowline::{
    Answer as Said, Arrival, Cause, DeliveryId, Event as Word, Frame, HttpOutcome, Instant, MessageId, Policy, PostId,
    RequestId, Seq, Verdict as Decision,
};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tungstenite::{Message as Text, Utf8Bytes};

/// So many bytes of messages may be at the application; further ones are not taken.
const HELD_BYTES: usize = 256 << 20;

/// A signature is made anew for what was signed longer ago than this: receivers allow 300 s.
const FRESH: Duration = Duration::from_secs(60);

/// A close frame's reason, which may have 123 bytes.
const LONGEST_REASON: usize = 120;

/// What is sent to miners, and its signed form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Parcel {
    pub(super) kind: Box<str>,
    pub(super) data: Box<str>,
    pub(super) frame: Utf8Bytes,
    pub(super) signed: Instant,
}

impl Parcel {
    fn frame(&self, signer: &Signer, now: Instant) -> Utf8Bytes {
        if now.since(self.signed) <= FRESH {
            return self.frame.clone();
        }
        // It could be signed before, so it can be now.
        signer.message(&self.kind, &self.data).unwrap_or_else(|_| self.frame.clone())
    }
}

/// What is let out when the lock is gone.
pub(super) enum Effect {
    Deliver { message: Message, ticket: Ticket },
    Verify { line: Arc<Line> },
    Answer { request: Sender<Answer>, answer: Answer },
    Settle { receipt: Sender<Settlement>, settlement: Settlement },
    Tell(Event),
    Act(Action),
}

/// What a session was told of a prediction.
struct Told {
    id: MessageId,
    name: Box<str>,
    /// Success and words; until there are any, a plain word of reception.
    word: Option<(bool, Box<str>, Option<Box<str>>)>,
    /// Signed when it was decided, until it is sent.
    frame: Option<Utf8Bytes>,
}

impl Told {
    fn sign(&mut self, signer: &Signer) -> Utf8Bytes {
        if let Some(frame) = self.frame.take() {
            return frame;
        }
        match &self.word {
            Some((success, message, stats)) => signer.confirmation(&self.name, *success, message, stats.as_deref()),
            None => signer.confirmation(&self.name, true, "Prediction received", None),
        }
    }
}

/// What is known of a session beside the machine.
struct Account {
    session: SessionId,
    hotkey: Hotkey,
    receiver: Option<Target>,
    told: VecDeque<Told>,
}

/// A request that waits for its answer.
struct Asking {
    answer: Sender<Answer>,
    id: Option<MessageId>,
}

/// A verdict and its signed form.
pub(super) struct End {
    ticket: Ticket,
    verdict: Decision,
    word: Option<(bool, Box<str>, Option<Box<str>>)>,
    frame: Option<Utf8Bytes>,
}

impl Hub {
    /// What a verdict says, signed.
    pub(super) fn word(&self, ticket: Ticket, verdict: Verdict) -> End {
        let (verdict, word) = match verdict {
            Verdict::Confirmed(said) => {
                (Decision::Done, Some((true, said.message.into(), said.miner_stats.map(Into::into))))
            }
            Verdict::Rejected(why) => (Decision::Reject, Some((false, why.into(), None))),
            Verdict::Retry => (Decision::Retry { after: Duration::ZERO }, None),
        };
        let word: Option<(bool, Box<str>, Option<Box<str>>)> = word;
        let frame = ticket.id.as_ref().zip(word.as_ref()).map(|((_, id), (success, message, stats))| {
            self.signer.confirmation(id, *success, message, stats.as_deref())
        });
        End { ticket, verdict, word, frame }
    }
}

pub(super) struct Engine {
    clock: Clock,
    machine: Machine<Arc<Parcel>, Grows>,
    signer: Arc<Signer>,
    names: KeyedHash,
    /// By place. Without a line it was let in and is not a WebSocket yet.
    lines: Vec<Option<(ConnId, Option<Arc<Line>>)>>,
    accounts: Vec<Option<Account>>,
    /// Lines with something to flush.
    dirty: Vec<Arc<Line>>,
    requests: BTreeMap<RequestId, Asking>,
    last_request: u64,
    receipts: BTreeMap<(SessionId, Seq), Sender<Settlement>>,
    held_bytes: usize,
    /// So many predictions of a session are remembered.
    remembered: usize,
    /// When the adapter will call by itself.
    armed: Option<Instant>,
    websocket: bool,
    pub(super) drained: Option<u64>,
    pub(super) counters: Counters,
    pub(super) effects: Vec<Effect>,
}

impl Engine {
    pub(super) fn new(
        setup: &HubSetup,
        clock: Clock,
        signer: Arc<Signer>,
        names: KeyedHash,
    ) -> Result<Self, SetupError> {
        let config = setup.config.check()?;
        let origin = origin(setup.identity.as_deref(), setup.epoch);
        Ok(Self {
            clock,
            machine: Machine::new(config, setup.seed.unwrap_or_else(random), origin, clock.now()),
            signer,
            names,
            lines: Vec::new(),
            accounts: Vec::new(),
            dirty: Vec::new(),
            requests: BTreeMap::new(),
            last_request: 0,
            receipts: BTreeMap::new(),
            held_bytes: 0,
            remembered: config.get().session.inbox.capacity,
            armed: None,
            websocket: setup.websocket,
            drained: None,
            counters: Counters::default(),
            effects: Vec::new(),
        })
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn identity(&self, hotkey: &Hotkey) -> Identity {
        identity(&self.names, &hotkey.to_string())
    }

    pub(super) fn tick(&mut self) -> Option<std::time::Instant> {
        self.machine.tick(self.now());
        self.settle();
        self.armed = self.machine.deadline();
        self.armed.and_then(|at| self.clock.system(at))
    }

    /// True: the machine wants to be called before the adapter will by itself.
    pub(super) fn sooner(&mut self) -> bool {
        let deadline = self.machine.deadline();
        let sooner = deadline.is_some_and(|at| self.armed.is_none_or(|armed| at < armed));
        if sooner {
            self.armed = deadline;
        }
        sooner
    }

    pub(super) fn connect(&mut self, address: u64) -> Result<ConnId, Denied> {
        if !self.websocket {
            return Err(Denied { why: Why::Unknown, after: Duration::ZERO });
        }
        let admitted = self.machine.connect(self.now(), address);
        match admitted {
            Ok(conn) => {
                grow(&mut self.lines, conn.place());
                if let Some(slot) = self.lines.get_mut(conn.place()) {
                    *slot = Some((conn, None));
                }
            }
            Err(denied) => self.counters.refuse(denied.why),
        }
        admitted
    }

    pub(super) fn knock(&mut self, address: u64) -> Result<(), Denied> {
        let knocked = self.machine.knock(self.now(), address);
        if let Err(denied) = knocked {
            self.counters.refuse(denied.why);
        }
        knocked
    }

    pub(super) fn accepted(&mut self, conn: ConnId, stream: Box<dyn Stream>, early: &[u8]) -> Option<Arc<Line>> {
        let (known, slot) = self.lines.get_mut(conn.place())?.as_mut()?;
        if *known != conn {
            return None;
        }
        let line = Arc::new(Line::new(conn, stream, early));
        *slot = Some(Arc::clone(&line));
        Some(line)
    }

    /// A connection has ended, however.
    pub(super) fn lost(&mut self, conn: ConnId, cause: Cause) {
        if self.forget(conn) {
            self.machine.disconnected(self.now(), conn, cause);
        }
    }

    /// Takes a connection out of its place. False: it was not there.
    fn forget(&mut self, conn: ConnId) -> bool {
        let Some(slot) = self.lines.get_mut(conn.place()) else { return false };
        let Some((_, line)) = slot.take_if(|(known, _)| *known == conn) else { return false };
        if let Some(line) = line {
            line.enter(Stage::Gone);
            self.effects.push(Effect::Act(Action::Drop(conn)));
        }
        true
    }

    fn line(&self, conn: ConnId) -> Option<Arc<Line>> {
        let (known, line) = self.lines.get(conn.place())?.as_ref()?;
        line.as_ref().filter(|_| *known == conn).map(Arc::clone)
    }

    /// What one turn of reading has brought.
    pub(super) fn apply(&mut self, line: &Arc<Line>, items: Vec<Item>) {
        let (wall, conn) = (line::wall(), line.conn());
        for item in items {
            let now = self.now();
            match item {
                Item::Auth { address, stamp } => {
                    let identity = identity(&self.names, &address);
                    self.machine.hello(now, wall, conn, identity, Some(stamp));
                }
                Item::Stranger => self.machine.refuse(now, conn, Why::Impostor),
                Item::Heard(heard) => self.heard(line, heard, wall),
                Item::Broken { too_large } => {
                    let why = if too_large { Why::TooLarge } else { Why::Violation };
                    self.machine.refuse(now, conn, why);
                }
                Item::Ended(cause) => self.lost(conn, cause),
            }
        }
    }

    fn heard(&mut self, line: &Arc<Line>, heard: Heard, wall: i64) {
        let (now, conn) = (self.now(), line.conn());
        let Heard { mut head, bytes, stamp, reply, mut content } = heard;
        let text = bytes > 0;
        self.counters.frames_in = self.counters.frames_in.saturating_add(u64::from(text));
        if content.is_some() && self.held_bytes > HELD_BYTES {
            // As if the inbox were full: the miner sends it again.
            (head, content) = (bowline::Head::Other, None);
        }
        let malformed = head == bowline::Head::Malformed;
        match self.machine.received(now, wall, conn, head, bytes, stamp) {
            Outcome::Noted | Outcome::Replayed(_) if malformed => self.misunderstood(line),
            Outcome::Noted => {
                if let Some(reply) = reply {
                    self.reply(line, Text::Text(reply));
                }
            }
            Outcome::Replayed(_) => self.misunderstood(line),
            Outcome::Limited => self.reply(line, line::too_much()),
            Outcome::Arrival(session, arrival) => {
                if let Some(content) = content {
                    self.arrived(session, arrival, content, bytes);
                }
            }
            Outcome::Stale => {}
        }
    }

    fn misunderstood(&mut self, line: &Arc<Line>) {
        self.counters.malformed = self.counters.malformed.saturating_add(1);
        self.reply(line, Text::Text(line::bad_message()));
    }

    fn arrived(&mut self, session: SessionId, arrival: Arrival, content: Content, bytes: u32) {
        let Content { kind, data, id } = content;
        let Some(account) = self.accounts.get_mut(session.place()).and_then(Option::as_mut) else { return };
        if let Some((id, name)) = &id
            && matches!(arrival, Arrival::Deliver { .. } | Arrival::Duplicate | Arrival::Answer(_))
            && !account.told.iter().any(|told| told.id == *id)
        {
            if account.told.len() >= self.remembered {
                account.told.pop_front();
            }
            account.told.push_back(Told { id: *id, name: name.clone(), word: None, frame: None });
        }
        if let Arrival::Deliver { delivery, maybe_dup } = arrival {
            let message = Message { hotkey: account.hotkey, kind, data, maybe_dup };
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            let ticket = Ticket { session, delivery, id, bytes, arrived: self.clock.now() };
            self.held_bytes = self.held_bytes.saturating_add(bytes);
            self.effects.push(Effect::Deliver { message, ticket });
        }
    }

    /// A message came by a request. The answer, or the place where it will be.
    pub(super) fn request(
        &mut self,
        hotkey: Hotkey,
        receiver: Option<Target>,
        content: Content,
        bytes: u32,
        stamp: Stamp,
    ) -> Result<(SessionId, RequestId, Receiver<Answer>), Answer> {
        if self.held_bytes > HELD_BYTES {
            return Err(denied(Denied { why: Why::Full, after: Duration::from_secs(1) }));
        }
        self.last_request = self.last_request.saturating_add(1);
        let request = RequestId(self.last_request);
        let id = content.id.as_ref().map(|(id, _)| *id);
        let identity = self.identity(&hotkey);
        let (session, arrival) = self
            .machine
            .request(self.now(), line::wall(), identity, request, id, None, bytes, Some(stamp))
            .map_err(|refused| {
                self.counters.refuse(refused.why);
                denied(refused)
            })?;
        self.note(session, hotkey, receiver);
        self.arrived(session, arrival, content, bytes);
        match arrival {
            Arrival::Answer(said) => Err(self.answer(session, id, said)),
            Arrival::Full => Err(denied(Denied { why: Why::Full, after: Duration::from_secs(1) })),
            Arrival::Reused => Err(Answer::error(422, "this id was used for another message")),
            Arrival::Deliver { .. } | Arrival::Duplicate => {
                let (answer, answered) = async_channel::bounded(1);
                self.requests.insert(request, Asking { answer, id });
                Ok((session, request, answered))
            }
        }
    }

    pub(super) fn request_gone(&mut self, session: SessionId, request: RequestId) {
        if self.requests.remove(&request).is_some() {
            self.machine.request_gone(self.now(), session, request);
        }
    }

    fn answer(&mut self, session: SessionId, id: Option<MessageId>, said: Said) -> Answer {
        match said {
            Said::Done | Said::Rejected => match id.and_then(|id| self.confirmation(session, id)) {
                Some(frame) => Answer { body: Some(("application/json", frame.into())), ..Answer::OK },
                None => Answer::status(said.status()),
            },
            Said::Reused => Answer::error(422, "this id was used for another message"),
            Said::Busy { after } => Answer { retry_after: Some(after), ..Answer::error(503, "still at work") },
        }
    }

    /// The signed confirmation of a prediction; none if the machine has outlived its name.
    fn confirmation(&mut self, session: SessionId, id: MessageId) -> Option<Utf8Bytes> {
        let account = self.accounts.get_mut(session.place())?.as_mut()?;
        let told = account.told.iter_mut().find(|told| told.id == id)?;
        Some(told.sign(&self.signer))
    }

    pub(super) fn complete(&mut self, ends: Vec<End>) -> bool {
        let mut open = true;
        for End { ticket, verdict, word, frame } in ends {
            let now = self.now();
            let Ticket { session, delivery, id, bytes, arrived } = ticket;
            self.held_bytes = self.held_bytes.saturating_sub(bytes);
            let success = word.as_ref().map(|(success, ..)| *success);
            if let Some((id, _)) = id
                && let Some(account) = self.accounts.get_mut(session.place()).and_then(Option::as_mut)
                && let Some(told) = account.told.iter_mut().find(|told| told.id == id)
            {
                (told.word, told.frame) = (word, frame);
            }
            self.counters.handled(success, now.since(arrived));
            open &= self.decide(now, session, delivery, verdict);
        }
        open
    }

    fn decide(&mut self, now: Instant, session: SessionId, delivery: DeliveryId, verdict: Decision) -> bool {
        self.machine.complete(now, session, delivery, verdict)
    }

    pub(super) fn verified(&mut self, line: &Arc<Line>, admission: Result<Admission, Why>) {
        let vote = {
            let mut state = line.lock();
            match admission {
                Ok(Admission::Accept { receiver }) => {
                    let http = receiver.is_some();
                    state.receiver = receiver;
                    Vote::Accept { http }
                }
                Ok(Admission::Refuse(why)) => {
                    state.refusal = why;
                    Vote::Refuse(Why::Unknown)
                }
                Ok(Admission::Later(after)) => Vote::Later(after),
                Err(why) => Vote::Refuse(why),
            }
        };
        self.machine.verified(self.now(), line::wall(), line.conn(), vote);
    }

    /// Whether this hotkey was let in before and its session still lives.
    pub(super) fn knows(&self, hotkey: &Hotkey) -> bool {
        self.machine.find(self.identity(hotkey)).is_some()
    }

    pub(super) fn send(
        &mut self,
        hotkey: Hotkey,
        parcel: Arc<Parcel>,
        policy: Policy,
    ) -> Result<Receiver<Settlement>, Refused> {
        let session = self.machine.find(self.identity(&hotkey)).ok_or(Refused::Unknown)?;
        let size = u32::try_from(parcel.frame.len()).unwrap_or(u32::MAX);
        let sent = self.machine.send(self.now(), session, parcel, size, policy);
        let seq = sent.map_err(|(why, _)| Refused::Session(why))?;
        let (receipt, settled) = async_channel::bounded(1);
        self.receipts.insert((session, seq), receipt);
        Ok(settled)
    }

    pub(super) fn adopt(&mut self, hotkey: Hotkey, receiver: Option<Target>) -> Result<(), Denied> {
        let identity = self.identity(&hotkey);
        let session = self.machine.adopt(self.now(), identity, receiver.is_some())?;
        self.note(session, hotkey, receiver);
        Ok(())
    }

    pub(super) fn publish(&mut self, parcel: &Arc<Parcel>, how: Publish, mut to: impl FnMut(&Hotkey) -> bool) -> Sent {
        let now = self.now();
        let size = u32::try_from(parcel.frame.len()).unwrap_or(u32::MAX);
        let accounts = &self.accounts;
        let mut wanted = |session: SessionId| {
            accounts.get(session.place()).and_then(Option::as_ref).is_some_and(|account| to(&account.hotkey))
        };
        let sent = self.machine.publish(now, Arc::clone(parcel), size, how, |session, _| wanted(session));
        if self.machine.health().fleet_http {
            let absent =
                |account: &&Account| account.receiver.is_some() && self.machine.connection(account.session).is_none();
            let absent: Vec<_> = accounts.iter().flatten().filter(absent).map(|account| account.session).collect();
            for session in absent.into_iter().filter(|session| wanted(*session)) {
                // Nobody waits for its end; a full outbox is the same as a reader that is too slow.
                let _ = self.machine.send(now, session, Arc::clone(parcel), size, Policy::DEFAULT);
            }
        }
        sent
    }

    pub(super) fn posted(&mut self, session: SessionId, post: PostId, outcome: HttpOutcome) {
        self.machine.posted(self.now(), session, post, outcome);
    }

    pub(super) fn dismiss(&mut self, hotkey: Hotkey) -> bool {
        let identity = self.identity(&hotkey);
        let mut known = false;
        // More than one, where several connections may live side by side.
        while let Some(session) = self.machine.find(identity) {
            known = true;
            if !self.machine.dismiss(self.now(), session) {
                break;
            }
        }
        known
    }

    pub(super) fn expect(&mut self, miners: Option<usize>) {
        self.machine.expect(self.now(), miners);
    }

    pub(super) fn drain_all(&mut self, window: Duration, limit: Duration) {
        self.machine.drain(self.now(), window, limit);
    }

    pub(super) fn health(&self) -> Health {
        self.machine.health()
    }

    pub(super) const fn stats(&self) -> HubStats {
        self.machine.stats()
    }

    pub(super) fn sessions(&self) -> Vec<SessionInfo> {
        let info = |account: &Account| SessionInfo {
            hotkey: account.hotkey,
            connected: self.machine.connection(account.session).is_some(),
            receiver: account.receiver.is_some(),
        };
        self.accounts.iter().flatten().map(info).collect()
    }

    /// Nobody will turn it any more.
    pub(super) fn abandon(&mut self) {
        self.requests.clear();
        self.receipts.clear();
        let lines: Vec<_> = self.lines.iter().flatten().map(|(conn, _)| *conn).collect();
        for conn in lines {
            if let Some(line) = self.line(conn) {
                line.lock().socket.close(1012, CLOSE_STOPPING);
            }
            self.forget(conn);
        }
    }

    /// Notes whose session this is, and where it takes messages by HTTP if that is known.
    fn note(&mut self, session: SessionId, hotkey: Hotkey, receiver: Option<Target>) {
        grow(&mut self.accounts, session.place());
        let Some(slot) = self.accounts.get_mut(session.place()) else { return };
        slot.take_if(|account| account.session != session);
        let account = slot.get_or_insert_with(|| Account { session, hotkey, receiver: None, told: VecDeque::new() });
        if receiver.is_some() {
            account.receiver = receiver;
        }
    }

    /// Does what the machine says until it says nothing more, and flushes what was written.
    pub(super) fn settle(&mut self) {
        loop {
            while self.step() {}
            let dirty = core::mem::take(&mut self.dirty);
            if dirty.is_empty() {
                return;
            }
            for line in dirty {
                self.flush(&line);
            }
        }
    }

    fn step(&mut self) -> bool {
        let now = self.clock.now();
        let Some(output) = self.machine.poll() else { return false };
        match output {
            HubOutput::Verify { conn, .. } => {
                if let Some(line) = self.line(conn) {
                    self.effects.push(Effect::Verify { line });
                }
            }
            HubOutput::Welcome { conn, session, resumed } => self.welcome(conn, session, resumed),
            HubOutput::Close { conn, why, after } => self.close(conn, why, after),
            HubOutput::Drop { conn } => {
                self.forget(conn);
            }
            HubOutput::Frame { conn, session, frame } => match frame {
                Frame::Data { payload, .. } => {
                    let text = Text::Text(payload.frame(&self.signer, now));
                    self.write_to(conn, text);
                }
                Frame::Ack { id } => {
                    if let Some(frame) = self.confirmation(session, id) {
                        self.write_to(conn, Text::Text(frame));
                    }
                }
                Frame::Ping | Frame::Keepalive => self.write_to(conn, Text::Ping(Bytes::new())),
            },
            HubOutput::Broadcast { conn, payload } => {
                let text = Text::Text(payload.frame(&self.signer, now));
                self.write_to(conn, text);
            }
            HubOutput::Respond { session, request, answer } => {
                if let Some(Asking { answer: waiting, id }) = self.requests.remove(&request) {
                    let answer = self.answer(session, id, answer);
                    self.effects.push(Effect::Answer { request: waiting, answer });
                }
            }
            HubOutput::Post { session, post, id, payload, deadline } => {
                let body = payload.frame(&self.signer, now);
                let account = self.accounts.get(session.place()).and_then(Option::as_ref);
                match account.and_then(|account| account.receiver.as_ref()) {
                    Some(receiver) => {
                        let target = receiver.join("ws").join("messages");
                        let post = Action::Post { session, post, id, target, body: body.into(), deadline };
                        self.effects.push(Effect::Act(post));
                    }
                    None => self.machine.posted(now, session, post, HttpOutcome::Gone),
                }
            }
            HubOutput::Event(event) => self.event(event),
        }
        true
    }

    fn welcome(&mut self, conn: ConnId, session: SessionId, resumed: bool) {
        let Some(line) = self.line(conn) else { return };
        let (who, receiver) = {
            let mut state = line.lock();
            (state.who.as_ref().map(|(hotkey, _)| *hotkey), state.receiver.take())
        };
        let Some(hotkey) = who else { return };
        self.note(session, hotkey, receiver);
        line.enter(Stage::Open);
        let welcome = line::welcome(&self.signer);
        self.write(&line, welcome);
        self.effects.push(Effect::Tell(Event::Connected { hotkey, resumed }));
    }

    fn close(&mut self, conn: ConnId, why: Why, after: Duration) {
        let Some(line) = self.line(conn) else {
            // Let in, but not a WebSocket yet.
            self.lost(conn, Cause::Closed(1006));
            return;
        };
        let mut state = line.lock();
        let known = state.stage == Stage::Open;
        let (refusal, reason): (Option<&str>, String) = match why {
            Why::Impostor | Why::Replayed if !known => (Some(REFUSED), REFUSED.into()),
            Why::Unknown if state.refusal == REFUSED_UNKNOWN => (Some(REFUSED_UNKNOWN), CLOSE_UNKNOWN.into()),
            Why::Unknown => (Some(&state.refusal), state.refusal.chars().take(LONGEST_REASON / 4).collect()),
            Why::Replaced => (None, CLOSE_REPLACED.into()),
            Why::Draining => (None, CLOSE_STOPPING.into()),
            _ => (None, why.to_string()),
        };
        let refusal = refusal.filter(|_| !known).map(|refusal| Text::text(encode_refusal(refusal)));
        if !state.socket.closed() {
            if let Some(refusal) = refusal {
                let _ = state.socket.write(refusal);
            }
            let reason = if after.is_zero() { reason } else { format!("retry-after={:.1}", after.as_secs_f64()) };
            state.socket.close(why.code(), reason);
        }
        drop(state);
        if !known {
            self.counters.refuse(why);
        }
        line.enter(Stage::Closing);
    }

    fn event(&mut self, event: HubEvent) {
        let whose = |session: SessionId| {
            self.accounts.get(session.place()).and_then(Option::as_ref).map(|account| account.hotkey)
        };
        let told = match event {
            HubEvent::Session { session, event: Word::Settled { seq, outcome, took } } => {
                if let Some(receipt) = self.receipts.remove(&(session, seq)) {
                    self.effects.push(Effect::Settle { receipt, settlement: Settlement { outcome, took } });
                }
                None
            }
            HubEvent::Session { session, event: Word::Down { cause, .. } } => {
                whose(session).map(|hotkey| Event::Disconnected { hotkey, cause })
            }
            HubEvent::Session { .. } => None,
            HubEvent::Lost { session, count } => whose(session).map(|hotkey| Event::Lost { hotkey, count }),
            HubEvent::War { session } => whose(session).map(|hotkey| Event::War { hotkey }),
            HubEvent::Ended { session, why, .. } => {
                let hotkey = whose(session);
                if let Some(slot) = self.accounts.get_mut(session.place()) {
                    slot.take_if(|account| account.session == session);
                }
                hotkey.map(|hotkey| Event::Ended { hotkey, why })
            }
            HubEvent::Fleet { http } => Some(Event::Fleet { http }),
            HubEvent::Drained { abandoned } => {
                self.drained = Some(abandoned);
                Some(Event::Drained { abandoned })
            }
        };
        self.effects.extend(told.map(Effect::Tell));
    }

    fn write_to(&mut self, conn: ConnId, message: Text) {
        if let Some(line) = self.line(conn) {
            self.write(&line, message);
        }
    }

    /// Answers what came in, unless the line is full: whoever does not read does not get to fill our memory.
    fn reply(&mut self, line: &Arc<Line>, message: Text) {
        let full = line.lock().socket.blocked;
        if !full {
            self.write(line, message);
        }
    }

    /// Puts a frame into a line; it leaves when the line is flushed, or when there is much of it.
    fn write(&mut self, line: &Arc<Line>, message: Text) {
        let mut state = line.lock();
        if matches!(state.stage, Stage::Closing | Stage::Gone) {
            return;
        }
        self.counters.frames_out = self.counters.frames_out.saturating_add(u64::from(message.is_text()));
        let wrote = state.socket.write(message);
        let dirty = core::mem::replace(&mut state.dirty, true);
        drop(state);
        if !dirty {
            self.dirty.push(Arc::clone(line));
        }
        match wrote {
            Wrote::Done => {}
            Wrote::Blocked => self.blocked(line),
            Wrote::Ended(cause) => self.lost(line.conn(), cause),
        }
    }

    fn flush(&mut self, line: &Arc<Line>) {
        let mut state = line.lock();
        state.dirty = false;
        if state.stage == Stage::Gone || state.socket.blocked {
            return;
        }
        let wrote = state.socket.flush();
        drop(state);
        match wrote {
            Wrote::Done => {}
            Wrote::Blocked => self.blocked(line),
            Wrote::Ended(cause) => self.lost(line.conn(), cause),
        }
    }

    fn blocked(&mut self, line: &Arc<Line>) {
        let was = core::mem::replace(&mut line.lock().socket.blocked, true);
        if !was {
            self.machine.writable(self.now(), line.conn(), false);
            self.effects.push(Effect::Act(Action::Watch(Arc::clone(line))));
        }
    }

    /// A line that was full can be written. True: it is full again.
    pub(super) fn writable(&mut self, line: &Arc<Line>) -> bool {
        let mut state = line.lock();
        if state.stage == Stage::Gone {
            return false;
        }
        let wrote = state.socket.flush();
        let moved = state.socket.moved();
        state.socket.blocked = matches!(wrote, Wrote::Blocked);
        drop(state);
        let (now, conn) = (self.now(), line.conn());
        match wrote {
            Wrote::Done => {
                self.machine.writable(now, conn, true);
                false
            }
            Wrote::Blocked => {
                if moved {
                    // It takes bytes, if slowly: the deadline of the write begins anew.
                    self.machine.writable(now, conn, true);
                    self.machine.writable(now, conn, false);
                }
                true
            }
            Wrote::Ended(cause) => {
                self.lost(conn, cause);
                false
            }
        }
    }
}

/// A table as long as it takes to have this place; the machine limits how long that is.
fn grow<T>(table: &mut Vec<Option<T>>, place: usize) {
    if table.len() <= place {
        table.resize_with(place.saturating_add(1), || None);
    }
}

/// Who has this address.
fn identity(names: &KeyedHash, address: &str) -> Identity {
    Identity::from_bits(names.content("hotkey", address).bits())
}

/// A refusal as an answer.
pub(super) fn denied(denied: Denied) -> Answer {
    let retry_after = Some(denied.after).filter(|after| !after.is_zero());
    Answer { retry_after, ..Answer::error(denied.why.status(), denied.why.to_string()) }
}

const _: () = assert!(LONGEST_FRAME < HELD_BYTES);
