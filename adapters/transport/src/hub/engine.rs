//! The hub's machine and its lines: what both do to each other, under one lock.
//!
//! ```text
//!  input ─▶ machine ─▶ outputs ─▶ frames into the lines they are for ─▶ every line touched is flushed, once
//!                         └─▶ effects: deliveries, answers, settlements, actions        after the lock is gone
//! ```
//!
//! Invariants: the machine is drained after every input; a line is in its place exactly as long as its connection exists;
//! what a session was told of its predictions is kept as long as the machine remembers them, and no longer.

mod account;
mod output;

pub(super) use account::denied;

use super::line::{self, Heard, Item, Line, Stage};
use super::message::{Message, Ticket};
use super::metrics::Counters;
use super::setup::HubSetup;
use super::sign::Signer;
use super::{Action, Admission, Event, Refused, SessionInfo};
use crate::clock::Clock;
use crate::http::{Answer, Target};
use crate::keys::Hotkey;
use crate::node::{Settlement, Stream};
use crate::setup::{SetupError, origin, random};
use account::{Account, Asking};
use async_channel::{Receiver, Sender};
use bowline::hub::{
    ConnId, Denied, Grows, Health, Heard as Outcome, Hub as Machine, HubStats, Identity, Publish, Sent, SessionId,
    Verdict as Vote, Why,
};
use bowline::wire::KeyedHash;
use bowline::wire::bettensor::CLOSE_STOPPING;
use bowline::wire::canonical::Uncanonical;
use bowline::{Cause, HttpOutcome, Instant, Policy, PostId, RequestId, Seq};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tungstenite::{Message as Text, Utf8Bytes};

/// So many bytes of messages may be at the application; further ones are not taken.
const HELD_BYTES: usize = 256 << 20;

/// A signature is made anew for what was signed longer ago than this: receivers allow 300 s.
const FRESH: Duration = Duration::from_secs(60);

/// What is sent to miners, and its signed form.
#[derive(Debug)]
pub(super) struct Parcel {
    kind: Box<str>,
    data: Box<str>,
    sealed: Mutex<(Instant, Utf8Bytes)>,
}

impl Parcel {
    pub(super) fn new(signer: &Signer, now: Instant, kind: &str, data: &str) -> Result<Self, Uncanonical> {
        let frame = signer.message(kind, data)?;
        Ok(Self { kind: kind.into(), data: data.into(), sealed: Mutex::new((now, frame)) })
    }

    /// Its signed form, made anew when it has become too old: once, for all who get it then.
    fn frame(&self, signer: &Signer, now: Instant) -> Utf8Bytes {
        let mut sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        let (signed, frame) = &mut *sealed;
        if now.since(*signed) > FRESH {
            // It could be signed before, so it can be now.
            if let Ok(anew) = signer.message(&self.kind, &self.data) {
                (*signed, *frame) = (now, anew);
            }
        }
        frame.clone()
    }

    /// Its length, in bytes.
    pub(super) fn size(&self) -> usize {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).1.len()
    }
}

/// So long an answer of `authorize` holds for a miner's requests: it may have no connection that ends, and its session
/// lives on for hours. A minute is five blocks of the chain; registrations change no more often than that.
const BELIEVED: Duration = Duration::from_secs(60);

/// What is known of a hotkey's registration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trust {
    /// Nothing.
    None,
    /// It was registered some time ago.
    Old,
    Fresh,
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
        self.counters.misunderstood(self.clock.now());
        self.reply(line, Text::Text(line::bad_message()));
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

    /// How far this hotkey is believed to be registered. Whoever is told that the answer is old asks again; meanwhile the
    /// others go by the old one.
    pub(super) fn trust(&mut self, hotkey: &Hotkey) -> Trust {
        let (now, session) = (self.now(), self.machine.find(self.identity(hotkey)));
        let account = session.and_then(|session| self.accounts.get_mut(session.place())?.as_mut());
        match account {
            None => Trust::None,
            Some(account) if now <= account.believed => Trust::Fresh,
            Some(account) => {
                account.believed = now.after(BELIEVED);
                Trust::Old
            }
        }
    }

    pub(super) fn send(
        &mut self,
        hotkey: Hotkey,
        parcel: Arc<Parcel>,
        policy: Policy,
    ) -> Result<Receiver<Settlement>, Refused> {
        let session = self.machine.find(self.identity(&hotkey)).ok_or(Refused::Unknown)?;
        let size = u32::try_from(parcel.size()).unwrap_or(u32::MAX);
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
        let size = u32::try_from(parcel.size()).unwrap_or(u32::MAX);
        let accounts = &self.accounts;
        let mut wanted = |session: SessionId| {
            accounts.get(session.place()).and_then(Option::as_ref).is_some_and(|account| to(&account.hotkey))
        };
        let mut sent = self.machine.publish(now, Arc::clone(parcel), size, how, |session, _| wanted(session));
        if self.machine.health().fleet_http {
            let absent =
                |account: &&Account| account.receiver.is_some() && self.machine.connection(account.session).is_none();
            let absent: Vec<_> = accounts.iter().flatten().filter(absent).map(|account| account.session).collect();
            for session in absent.into_iter().filter(|session| wanted(*session)) {
                // Nobody waits for its end; a full outbox is the same as a reader that is too slow, and is told as such.
                let refused = self.machine.send(now, session, Arc::clone(parcel), size, Policy::DEFAULT).is_err();
                sent.dropped = sent.dropped.saturating_add(u32::from(refused));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Keypair;

    #[test]
    fn what_is_too_old_is_signed_anew_once_for_all() {
        let signer = Signer::new(Keypair::from_seed_hex(&"07".repeat(32)).unwrap(), Duration::ZERO);
        let parcel = Parcel::new(&signer, Instant::ZERO, "game_update", r#"{"games":[]}"#).unwrap();
        let at = |span: Duration| parcel.frame(&signer, Instant::ZERO.after(span));
        let first = at(Duration::ZERO);
        assert_eq!(at(FRESH), first);
        let second = at(FRESH + Duration::from_secs(1));
        assert_ne!(second, first, "another moment, another signature");
        assert_eq!(at(2 * FRESH), second);
        assert_ne!(at(3 * FRESH), second);
    }

    #[test]
    fn who_only_posts_is_asked_about_again_when_the_answer_is_old() {
        use crate::http::{Bytes, Callback};
        use crate::hub::{Hub, HubSetup, Visit};
        use bowline::wire::bettensor::{Kind, Unsigned};
        use core::net::IpAddr;
        use core::sync::atomic::{AtomicUsize, Ordering};

        let keys = |byte: &str| Keypair::from_seed_hex(&byte.repeat(32)).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let setup = HubSetup::validator("127.0.0.1:0", keys("07")).unwrap();
        let setup = setup.authorize(move |_| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Admission::accept(),
            1 => Admission::Later(Duration::from_secs(5)),
            _ => Admission::unregistered(),
        });
        let hub = Hub::new(setup, |_| {}).unwrap();
        let (miner, visit) = (keys("01"), Visit::new(IpAddr::from([127, 0, 0, 1])));
        let messages = hub.messages().clone();
        let post = |id: &str| {
            let data = format!(r#"{{"prediction_id":"{id}"}}"#);
            let body = miner.seal(|stamp| Unsigned::message(stamp, &Kind::Prediction, &data).unwrap());
            let asked = Callback { segment: "messages", idempotency_key: None, body: Bytes::from(body) };
            let taking = async {
                while let Ok(delivery) = messages.recv().await {
                    delivery.confirm("stored");
                }
                core::future::pending().await
            };
            smol::block_on(smol::future::or(hub.request(&visit, asked), taking)).status
        };
        let grow_old = || {
            for account in hub.lock().accounts.iter_mut().flatten() {
                account.believed = Instant::ZERO;
            }
        };
        assert_eq!((post("p-1"), post("p-2"), asked.load(Ordering::Relaxed)), (200, 200, 1));
        grow_old();
        assert_eq!((post("p-3"), post("p-4"), asked.load(Ordering::Relaxed)), (200, 200, 2), "what was said holds");
        grow_old();
        assert_eq!((post("p-5"), asked.load(Ordering::Relaxed)), (403, 3));
        assert_eq!(hub.health().sessions, 0, "it is dismissed");
        assert_eq!((post("p-6"), asked.load(Ordering::Relaxed)), (403, 4));
    }
}
