//! The hub's machine and its lines: what both do to each other, under one lock.
//!
//! ```text
//!  input ─▶ machine ─▶ outputs ─▶ frames into the lines they are for ─▶ every line touched is flushed, once
//!                         └─▶ effects: deliveries, answers, settlements, actions        after the lock is gone
//! ```
//!
//! Invariants: the machine is drained after every input; a line is in its place exactly as long as its connection exists;
//! what a session was told of its messages is kept as long as the machine remembers them, and no longer.

mod account;
mod confirmations;
mod native;
mod output;

pub(super) use account::denied;

use super::line::{self, Door, Frame, Item, Line, Stage};
use super::message::{Message, Ticket};
use super::metrics::Counters;
use super::native::longest;
use super::request::number;
use super::tell_limit::TellLimit;
use super::wire::{Complaint, Farewell, HubWire, Said, Text, Wish};
use super::{Action, Admission, Event, Refused, SessionInfo};
use crate::clock::{Clock, Standstill, apart};
use crate::explanation::{Excerpt, Explanation};
use crate::http::{Answer, Posted, Target};
use crate::node::{Settlement, Stream};
use crate::setup::{SetupError, random};
use account::{Account, Asking};
use async_channel::{Receiver, Sender};
use bowline::hub::{
    CloseReason, ConnId, Denied, Grows, Health, Heard, HubConfig, HubStats, Identity, Position, Publish, Replayed,
    Sent, SessionId, Stamp, Start, TopicFilter, TopicHealth, TopicName,
};
use bowline::wire::KeyedHash;
use bowline::wire::native::FRAME_LIMIT;
use bowline::{
    Arrival, ConfigError, DedupBy, DeliveryId, Instant, Origin, Policy, PostId, RequestId, Seen, Seq, Verdict,
};
use confirmations::ConfirmationLog;
use core::net::IpAddr;
use core::time::Duration;
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What is sent to peers, encoded.
#[derive(Debug)]
pub(super) struct Parcel<W: HubWire> {
    size: usize,
    readable: bool,
    /// To encode it anew, where that is ever needed, and for native peers.
    source: Option<(Box<str>, Box<str>)>,
    /// As native peers get it.
    native: OnceLock<Text>,
    encoded: Mutex<(Instant, W::Encoded)>,
    /// With its place in its topic's stream, once somebody wants that; `None`: as without.
    placed: OnceLock<Option<W::Encoded>>,
}

impl<W: HubWire> Parcel<W> {
    /// `natives`: there are native peers.
    pub(super) fn new(
        wire: &W,
        now: Instant,
        kind: &str,
        data: &str,
        natives: bool,
    ) -> Result<Self, Cow<'static, str>> {
        let encoded = wire.encode(kind, data)?;
        let source = (natives || W::SHELF_LIFE.is_some()).then(|| (kind.into(), data.into()));
        let plain = W::size(&encoded);
        let native = if natives { longest(kind, data) } else { 0 };
        Ok(Self {
            size: plain.max(native),
            readable: plain <= W::LONGEST_SENT && native <= FRAME_LIMIT,
            source,
            native: OnceLock::new(),
            encoded: Mutex::new((now, encoded)),
            placed: OnceLock::new(),
        })
    }

    /// What `of` makes of it as it was encoded, anew when that was too long ago: once, for all who get it then.
    fn fresh<R>(&self, wire: &W, now: Instant, of: impl FnOnce(&W::Encoded) -> R) -> R {
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, last) = &mut *encoded;
        if let Some((kind, data)) = &self.source
            && W::SHELF_LIFE.is_some_and(|life| now.since(*since) > life)
        {
            // It could be encoded before, so it can be now.
            if let Ok(anew) = wire.encode(kind, data) {
                (*since, *last) = (now, anew);
            }
        }
        of(last)
    }

    fn frame(&self, wire: &W, now: Instant, to: &W::Peer) -> Text {
        self.fresh(wire, now, |encoded| wire.frame(encoded, to))
    }

    /// The same with its place; a parcel is published on one topic, once.
    fn placed(&self, wire: &W, now: Instant, to: &W::Peer, topic: &TopicName, at: Position) -> Text {
        let place = || self.fresh(wire, now, |encoded| wire.placed(encoded, topic, at));
        match self.placed.get_or_init(place) {
            Some(placed) => wire.item(placed, to, topic),
            None => self.item(wire, now, to, topic),
        }
    }

    fn item(&self, wire: &W, now: Instant, to: &W::Peer, topic: &TopicName) -> Text {
        self.fresh(wire, now, |encoded| wire.item(encoded, to, topic))
    }

    /// What it says.
    fn source(&self) -> Option<(&str, &str)> {
        self.source.as_ref().map(|(kind, data)| (&**kind, &**data))
    }

    /// Its length in bytes, for whomever it is the longest.
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Whether every peer reads frames of its length.
    pub(super) const fn is_readable(&self) -> bool {
        self.readable
    }
}

/// So long an answer of `authorize` holds for a peer's requests: it may have no connection that ends, and its session
/// lives on for hours. A minute is five blocks of the chain; registrations change no more often than that.
const BELIEVED: Duration = Duration::from_secs(60);

/// Of so many topics a peer is told that asks how it stands: an answer is not much longer than a question may be.
const TOLD: usize = 64;

/// What is known of whether a peer may come in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trust {
    /// Nothing.
    None,
    /// It might some time ago.
    Old,
    Fresh,
}

/// What is let out when the lock is gone.
pub(super) enum Effect<W: HubWire> {
    Deliver { message: Message<W::Peer>, ticket: Ticket },
    Verify { line: Arc<Line<W>> },
    Reauth { line: Arc<Line<W>> },
    Answer { request: Sender<Answer>, answer: Answer },
    Settle { receipt: Sender<Settlement>, settlement: Settlement },
    Tell(Event<W::Peer>),
    Act(Action<W>),
}

/// What a peer is told whose clock is wrong.
fn wrong_clock(signed: i64, here: i64) -> String {
    format!("the timestamp is {} the hub's clock", apart(signed, here))
}

pub(super) struct Engine<W: HubWire> {
    clock: Clock,
    standstill: Standstill,
    machine: bowline::hub::Hub<Arc<Parcel<W>>, Grows>,
    wire: Arc<W>,
    names: KeyedHash,
    /// By place.
    lines: Vec<Option<Door<W>>>,
    accounts: Vec<Option<Account<W>>>,
    /// Lines with something to flush; and the adapter was asked for a turn that flushes them.
    dirty: Vec<Arc<Line<W>>>,
    turn_asked: bool,
    requests: BTreeMap<RequestId, Asking>,
    last_request: u64,
    receipts: BTreeMap<(SessionId, Seq), Sender<Settlement>>,
    /// Native sessions by the name that is theirs alone, and those that have ended.
    sids: BTreeMap<Box<str>, SessionId>,
    ended: VecDeque<Box<str>>,
    /// Numbered messages that came before one that is missing.
    ahead: BTreeMap<(SessionId, DeliveryId), native::Ahead<W::Peer>>,
    native_horizon: Duration,
    native_beat: (Duration, Duration),
    /// Whether messages of this type are taken.
    takes: Box<dyn Fn(&str) -> bool + Send>,
    /// So many messages of a session are remembered.
    remembered: usize,
    dedup: DedupBy,
    /// When the adapter will call by itself.
    armed: Option<Instant>,
    pub(super) drained: Option<u64>,
    told: TellLimit,
    pub(super) counters: Counters,
    pub(super) effects: Vec<Effect<W>>,
}

impl<W: HubWire> Engine<W> {
    pub(super) fn new(
        mut config: HubConfig,
        origin: Origin,
        seed: Option<u64>,
        clock: Clock,
        wire: Arc<W>,
        names: KeyedHash,
        takes: Box<dyn Fn(&str) -> bool + Send>,
    ) -> Result<Self, SetupError> {
        // What is set aside for what peers were told of their messages is of the same bytes.
        let bytes = config.session.inbox.bytes;
        let remembered = ConfirmationLog::<W::Confirmation>::most(bytes);
        if remembered == 0 {
            return Err(ConfigError { field: "session.inbox.bytes", why: "nothing could be told from its copy" }.into());
        }
        config.session.inbox.bytes = remembered.saturating_mul(Seen::BYTES);
        let config = config.check()?;
        let native = config.get().native.map_or(0, |_| FRAME_LIMIT);
        let longest = u64::try_from(W::LONGEST_FRAME.max(native)).unwrap_or(u64::MAX);
        if longest > config.get().largest_message() {
            let why = "less than 18 of the longest frames of the wire: a message of that length could never be taken";
            return Err(ConfigError { field: "held_bytes", why }.into());
        }
        let native = config.get().native.unwrap_or(bowline::NATIVE_PEER);
        Ok(Self {
            clock,
            standstill: Standstill::new(),
            machine: bowline::hub::Hub::new(config, seed.unwrap_or_else(random), origin, clock.now()),
            wire,
            names,
            lines: Vec::new(),
            accounts: Vec::new(),
            dirty: Vec::new(),
            turn_asked: false,
            requests: BTreeMap::new(),
            last_request: 0,
            receipts: BTreeMap::new(),
            sids: BTreeMap::new(),
            ended: VecDeque::new(),
            ahead: BTreeMap::new(),
            native_horizon: native.inbox.horizon,
            native_beat: (native.heartbeat.interval, native.heartbeat.dead),
            takes,
            remembered,
            dedup: config.get().session.inbox.dedup,
            armed: None,
            drained: None,
            told: TellLimit::default(),
            counters: Counters::default(),
            effects: Vec::new(),
        })
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Whose session this is. A native peer has one of its own, also where one of the hub's own wire has its name: neither
    /// could make anything of the other's, and who may have the one need not be who may have the other.
    fn identity(&self, peer: &W::Peer, native: bool) -> Identity {
        let kind = if native { "native" } else { "peer" };
        Identity::from_bits(self.names.content(kind, &peer.to_string()).bits())
    }

    /// The session of who has this name: of two, the one that is connected.
    fn find(&self, peer: &W::Peer) -> Option<SessionId> {
        let of = |native| self.machine.find(self.identity(peer, native));
        match (of(false), of(true)) {
            (Some(plain), Some(native)) if self.machine.connection(plain).is_none() => Some(native),
            (plain, native) => plain.or(native),
        }
    }

    pub(super) fn tick(&mut self) -> Option<std::time::Instant> {
        match self.standstill.look() {
            Some(_) => self.machine.stood_still(self.now()),
            None => self.machine.tick(self.now()),
        }
        self.settle();
        self.armed = self.machine.deadline();
        self.standstill.plan(self.armed.and_then(|at| self.clock.system(at)))
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

    pub(super) fn connect(
        &mut self,
        address: IpAddr,
        path: &'static str,
        subprotocol: Option<&'static str>,
    ) -> Result<ConnId, Denied> {
        let admitted = self.machine.connect(self.now(), number(address));
        match admitted {
            Ok(conn) => {
                grow(&mut self.lines, conn.place());
                if let Some(slot) = self.lines.get_mut(conn.place()) {
                    *slot = Some(Door { conn, address, path, subprotocol, line: None });
                }
            }
            Err(denied) => self.turned_away(Some(address), None, denied.why, None),
        }
        admitted
    }

    /// There is no place for a connection from this address.
    pub(super) fn full(&mut self, address: IpAddr) -> Denied {
        let denied = self.machine.full(self.now());
        self.turned_away(Some(address), None, denied.why, None);
        denied
    }

    pub(super) fn knock(&mut self, address: IpAddr) -> Result<(), Denied> {
        let knocked = self.machine.knock(self.now(), number(address));
        if let Err(denied) = knocked {
            self.turned_away(Some(address), None, denied.why, None);
        }
        knocked
    }

    pub(super) fn shake(&mut self, address: IpAddr) -> Result<(), Denied> {
        let shaken = self.machine.shake(self.now(), number(address));
        if let Err(denied) = shaken {
            self.turned_away(Some(address), None, denied.why, None);
        }
        shaken
    }

    /// Counts whom the hub turned away, and tells the application of it unless it was told of others just now.
    pub(super) fn turned_away(
        &mut self,
        address: Option<IpAddr>,
        peer: Option<&W::Peer>,
        why: CloseReason,
        text: Option<Excerpt>,
    ) {
        self.counters.refuse(why);
        if let Some(untold) = self.told.next(self.clock.now(), address, why) {
            let event = Event::TurnedAway { address, peer: peer.cloned(), why, text, untold };
            self.effects.push(Effect::Tell(event));
        }
    }

    pub(super) fn accepted(&mut self, conn: ConnId, stream: Box<dyn Stream>, early: &[u8]) -> Option<Arc<Line<W>>> {
        let door = self.lines.get_mut(conn.place())?.as_mut().filter(|door| door.conn == conn)?;
        let line = Arc::new(Line::new(door, stream, early));
        door.line = Some(Arc::clone(&line));
        if let Some(guest) = self.wire.guest().filter(|_| !line.is_native()) {
            let stamp = line.welcome_guest(guest);
            self.hello(&line, stamp);
        }
        Some(line)
    }

    /// A connection has ended, however.
    pub(super) fn lost(&mut self, conn: ConnId, why: Explanation) {
        let line = self.line(conn);
        if self.forget(conn) {
            let reason = why.reason;
            let peer = line.as_ref().and_then(|line| Some((line.peer()?, line.is_native())));
            let session = peer.and_then(|(peer, native)| self.machine.find(self.identity(peer, native)));
            if let Some(session) = session
                && let Some(account) = self.accounts.get_mut(session.place()).and_then(Option::as_mut)
            {
                account.said = Some(why);
            }
            self.machine.disconnected(self.now(), conn, reason);
        }
    }

    /// Takes a connection out of its place. False: it was not there.
    fn forget(&mut self, conn: ConnId) -> bool {
        let Some(slot) = self.lines.get_mut(conn.place()) else { return false };
        let Some(door) = slot.take_if(|door| door.conn == conn) else { return false };
        if let Some(line) = door.line {
            line.enter(Stage::Gone);
            self.effects.push(Effect::Act(Action::Drop(conn)));
        }
        true
    }

    fn hello(&mut self, line: &Line<W>, stamp: Option<Stamp>) {
        if let Some(peer) = line.peer() {
            let (identity, wall) = (self.identity(peer, line.is_native()), line::wall());
            line.lock().signed = stamp.map(|stamp| (stamp.issued, wall));
            self.machine.hello(self.now(), wall, line.conn(), identity, stamp);
        }
    }

    fn line(&self, conn: ConnId) -> Option<Arc<Line<W>>> {
        let door = self.lines.get(conn.place())?.as_ref().filter(|door| door.conn == conn)?;
        door.line.as_ref().map(Arc::clone)
    }

    /// What one turn of reading has brought.
    pub(super) fn apply(&mut self, line: &Arc<Line<W>>, items: Vec<Item>) {
        let (now, wall, conn) = (self.now(), line::wall(), line.conn());
        for item in items {
            match item {
                Item::Hello { stamp } => self.hello(line, stamp),
                Item::Stranger => self.machine.refuse(now, conn, CloseReason::Impostor),
                Item::Heard(heard) => self.heard(line, heard, now, wall),
                Item::Part => {
                    let _ = self.machine.received(now, wall, conn, bowline::Head::Part, 0, None);
                }
                Item::Native { heard, bytes, takes } => self.native_heard(line, heard, bytes, takes, wall),
                Item::Broken { too_large } => {
                    let why = if too_large { CloseReason::TooLarge } else { CloseReason::Violation };
                    self.machine.refuse(now, conn, why);
                }
                Item::Ended(why) => self.lost(conn, why),
            }
        }
    }

    fn heard(&mut self, line: &Arc<Line<W>>, frame: Frame, now: Instant, wall: i64) {
        let conn = line.conn();
        let head = frame.head();
        let Frame { heard, bytes, names } = frame;
        let text = bytes > 0;
        self.counters.frames_in = self.counters.frames_in.saturating_add(u64::from(text));
        let (mut content, mut wish, mut asks) = (None, None, false);
        match heard.said {
            Said::Message(said) => content = Some(said),
            Said::Subscribe(said) => wish = Some((true, *said)),
            Said::Unsubscribe(said) => wish = Some((false, *said)),
            Said::Status => asks = true,
            Said::Other | Said::Malformed | Said::Pong => {}
        }
        let malformed = head == bowline::Head::Malformed;
        match self.machine.received(now, wall, conn, head, bytes, heard.stamp) {
            Heard::Noted | Heard::Replayed(_) if malformed => {
                self.misunderstood(line, heard.reply, Complaint::Malformed)
            }
            Heard::Noted => {
                let granted = wish.and_then(|(on, wish)| self.wish(line, on, wish));
                let status = if asks { self.status(line) } else { None };
                if let Some(reply) = heard.reply.or(granted).or(status) {
                    self.reply(line, reply);
                }
            }
            Heard::Replayed(why) => {
                let id = content.as_ref().and_then(|content| content.id.as_deref());
                let signed = heard.stamp.map_or(wall, |stamp| stamp.issued);
                let said = match why {
                    Replayed::Seen => None,
                    Replayed::Old | Replayed::Ahead => Some(wrong_clock(signed, wall)),
                    // Rounded up: what is signed then can be judged.
                    Replayed::Unjudged { retry_after } => {
                        let seconds = retry_after.as_secs().saturating_add(1);
                        Some(format!("the timestamp is from before the start; what is signed in {seconds} s is taken"))
                    }
                };
                let complaint = match &said {
                    Some(why) => Complaint::Timestamp { why, id },
                    None => Complaint::Member { member: "nonce", id },
                };
                self.misunderstood(line, None, complaint);
            }
            Heard::Limited => self.complain(line, Complaint::TooMuch),
            // As if the inbox were full: the peer sends it again.
            Heard::NoRoom => {}
            Heard::Arrival(session, arrival) => {
                if let Some(content) = content {
                    if arrival == Arrival::Reused {
                        self.complain(line, Complaint::Reused(content.id.as_deref().unwrap_or_default()));
                    }
                    self.arrived(session, arrival, content, names, bytes);
                }
            }
            Heard::Stale => {}
        }
    }

    /// A peer's wish about topics. What it is answered.
    fn wish(&mut self, line: &Line<W>, on: bool, wish: Wish) -> Option<Text> {
        let Wish { filter, since, yes, no } = wish;
        let session = self.machine.session_of(line.conn())?;
        let granted = if on {
            if since.is_some() {
                line.keep_account();
            }
            self.machine.subscribe(self.now(), session, &filter, since.unwrap_or(Start::Now)).is_ok()
        } else {
            self.machine.unsubscribe(self.now(), session, &filter)
        };
        if granted { yes } else { no }
    }

    fn status(&self, line: &Line<W>) -> Option<Text> {
        let subscriptions = self.machine.subscriptions(self.machine.session_of(line.conn())?);
        let mut topics: Vec<_> = subscriptions.map(|(topic, _)| topic.as_str()).take(TOLD).collect();
        topics.sort_unstable();
        self.wire.status(line.peer()?, &topics, line.since(), self.machine.health().connections)
    }

    fn misunderstood(&mut self, line: &Arc<Line<W>>, reply: Option<Text>, complaint: Complaint<'_>) {
        self.counters.misunderstood(self.clock.now());
        match reply {
            Some(reply) => self.reply(line, reply),
            None => self.complain(line, complaint),
        }
    }

    fn complain(&mut self, line: &Arc<Line<W>>, complaint: Complaint<'_>) {
        if let Some(text) = line.peer().and_then(|peer| self.wire.complain(peer, complaint)) {
            self.reply(line, text);
        }
    }

    pub(super) fn verified(&mut self, line: &Arc<Line<W>>, admission: Result<Admission, CloseReason>) {
        let vote = {
            let mut state = line.lock();
            match admission {
                Ok(Admission::Accept { receiver }) => {
                    let http = receiver.is_some();
                    state.receiver = receiver;
                    bowline::hub::Verdict::Accept { http }
                }
                Ok(Admission::Refuse(why)) => {
                    state.refusal = Some(why);
                    bowline::hub::Verdict::Refuse(CloseReason::Unknown)
                }
                Ok(Admission::Later(after)) => bowline::hub::Verdict::Later(after),
                Err(why) => bowline::hub::Verdict::Refuse(why),
            }
        };
        self.machine.verified(self.now(), line::wall(), line.conn(), vote);
    }

    /// How far this peer is believed to be welcome. Whoever is told that the answer is old asks again; meanwhile the
    /// others go by the old one.
    pub(super) fn trust(&mut self, peer: &W::Peer) -> Trust {
        let (now, session) = (self.now(), self.machine.find(self.identity(peer, false)));
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
        peer: &W::Peer,
        parcel: Arc<Parcel<W>>,
        policy: Policy,
    ) -> Result<Receiver<Settlement>, Refused> {
        let session = self.find(peer).ok_or(Refused::Unknown)?;
        let size = u32::try_from(parcel.size()).unwrap_or(u32::MAX);
        let sent = self.machine.send(self.now(), session, parcel, size, policy);
        let seq = sent.map_err(|(why, _)| Refused::Session(why))?;
        let (receipt, settled) = async_channel::bounded(1);
        self.receipts.insert((session, seq), receipt);
        Ok(settled)
    }

    pub(super) fn adopt(&mut self, peer: &W::Peer, receiver: Option<Target>) -> Result<(), Denied> {
        let identity = self.identity(peer, false);
        let session = self.machine.adopt(self.now(), identity, receiver.is_some())?;
        self.note(session, peer, receiver);
        Ok(())
    }

    pub(super) fn publish(
        &mut self,
        parcel: &Arc<Parcel<W>>,
        how: Publish,
        mut to: impl FnMut(&W::Peer) -> bool,
    ) -> Sent {
        let now = self.now();
        let size = u32::try_from(parcel.size()).unwrap_or(u32::MAX);
        let accounts = &self.accounts;
        let mut wanted = |session: SessionId| {
            accounts.get(session.place()).and_then(Option::as_ref).is_some_and(|account| to(&account.peer))
        };
        let mut sent = self.machine.publish(now, Arc::clone(parcel), size, how, |session, _| wanted(session));
        if self.machine.health().fleet_http {
            let absent = |account: &&Account<W>| {
                account.receiver.is_some() && self.machine.connection(account.session).is_none()
            };
            let absent: Vec<_> = accounts.iter().flatten().filter(absent).map(|account| account.session).collect();
            for session in absent.into_iter().filter(|session| wanted(*session)) {
                // Nobody waits for its end; a full outbox is the same as a reader that is too slow, and is told as such.
                let refused = self.machine.send(now, session, Arc::clone(parcel), size, Policy::DEFAULT).is_err();
                sent.dropped = sent.dropped.saturating_add(u32::from(refused));
            }
        }
        sent
    }

    pub(super) fn publish_topic(&mut self, topic: &TopicName, parcel: Arc<Parcel<W>>) -> Sent {
        let size = u32::try_from(parcel.size()).unwrap_or(u32::MAX);
        self.machine.publish_topic(self.now(), topic, parcel, size)
    }

    pub(super) fn subscribe(&mut self, peer: &W::Peer, filter: &TopicFilter, start: Start) -> Result<u32, Refused> {
        let session = self.find(peer).ok_or(Refused::Unknown)?;
        let subscribed = self.machine.subscribe(self.now(), session, filter, start).map_err(Refused::Topics)?;
        Ok(subscribed.topics)
    }

    pub(super) fn unsubscribe(&mut self, peer: &W::Peer, filter: &TopicFilter) -> bool {
        let session = self.find(peer);
        session.is_some_and(|session| self.machine.unsubscribe(self.now(), session, filter))
    }

    pub(super) fn topics(&self) -> Vec<TopicHealth> {
        self.machine.topics().collect()
    }

    pub(super) fn posted(&mut self, session: SessionId, post: PostId, posted: &Posted) {
        let by_peer = matches!(posted, Posted::Answered(answer) if self.wire.is_peers(answer));
        self.machine.posted(self.now(), session, post, posted.outcome(by_peer));
    }

    pub(super) fn dismiss(&mut self, peer: &W::Peer) -> bool {
        let mut known = false;
        // More than one, where several connections may live side by side.
        while let Some(session) = self.find(peer) {
            known = true;
            if !self.machine.dismiss(self.now(), session) {
                break;
            }
        }
        known
    }

    pub(super) fn expect(&mut self, peers: Option<usize>) {
        self.machine.expect(self.now(), peers);
    }

    pub(super) fn drain_all(&mut self, window: Duration, limit: Duration) {
        self.machine.drain(self.now(), window, limit);
        // What those wait for that came before their turn is not taken any more.
        for ((session, delivery), (_, ticket)) in core::mem::take(&mut self.ahead) {
            self.machine.release(session, ticket.bytes);
            let given_back = Verdict::Retry { after: Duration::ZERO };
            self.machine.complete(self.now(), session, delivery, given_back);
        }
    }

    pub(super) fn health(&self) -> Health {
        self.machine.health()
    }

    pub(super) const fn stats(&self) -> HubStats {
        self.machine.stats()
    }

    pub(super) fn sessions(&self) -> Vec<SessionInfo<W::Peer>> {
        let info = |account: &Account<W>| SessionInfo {
            peer: account.peer.clone(),
            connected: self.machine.connection(account.session).is_some(),
            receiver: account.receiver.is_some(),
        };
        self.accounts.iter().flatten().map(info).collect()
    }

    /// Nobody will turn it any more.
    pub(super) fn abandon(&mut self) {
        self.requests.clear();
        self.receipts.clear();
        let Farewell { reason, .. } = self.wire.farewell(CloseReason::Draining, None);
        let lines: Vec<_> = self.lines.iter().flatten().map(|door| door.conn).collect();
        for conn in lines {
            if let Some(line) = self.line(conn) {
                line.lock().socket.close(1012, reason.as_ref());
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

#[cfg(all(test, feature = "sr25519"))]
mod tests {
    use super::*;
    use crate::hub::Validator;
    use crate::keys::Keypair;
    use bowline::{ContentKey, MessageId};

    #[test]
    fn what_is_too_old_is_signed_anew_once_for_all() {
        const FRESH: Duration = Duration::from_secs(60);
        let keys = Keypair::from_seed_hex(&"07".repeat(32)).unwrap();
        let (to, wire) = (keys.hotkey(), Validator::new(keys));
        let parcel = Parcel::new(&wire, Instant::ZERO, "game_update", r#"{"games":[]}"#, false).unwrap();
        let at = |span: Duration| parcel.frame(&wire, Instant::ZERO.after(span), &to);
        let first = at(Duration::ZERO);
        assert_eq!(at(FRESH), first);
        let second = at(FRESH + Duration::from_secs(1));
        assert_ne!(second, first, "another moment, another signature");
        assert_eq!(at(2 * FRESH), second);
        assert_ne!(at(3 * FRESH), second);
    }

    /// The session of one miner is dismissed while the application has its prediction; another miner's session takes its
    /// place, and says the same.
    #[test]
    fn s6_a_late_word_about_a_session_that_has_ended_does_not_reach_the_next_in_its_place() {
        use crate::hub::message::Verdict;
        use crate::hub::{Confirmation, Content, Hub, HubSetup};

        let keys = |byte: &str| Keypair::from_seed_hex(&byte.repeat(32)).unwrap();
        for late in
            [Verdict::Confirmed("of another".into()), Verdict::Rejected("no".into()), Verdict::Retry(Duration::ZERO)]
        {
            let setup = HubSetup::validator("127.0.0.1:0", keys("07")).unwrap();
            let hub = Hub::new(setup.authorize(|_| Admission::accept()), |_| {}).unwrap();
            let mut engine = hub.lock();
            let names = line::Names { id: Some(MessageId::from_bits(1)), key: Some(ContentKey::from_bits(1)) };
            let taken = |engine: &mut Engine<Validator>, miner: &str| {
                let content =
                    Content { kind: "prediction".into(), data: crate::http::Bytes::new(), id: Some("p-1".into()) };
                let here = IpAddr::from([127, 0, 0, 1]);
                let asked = engine.request(here, keys(miner).hotkey(), None, content, (names, 100), None);
                assert!(asked.is_ok());
                match engine.effects.pop() {
                    Some(Effect::Deliver { ticket, .. }) => ticket,
                    _ => panic!("not handed over"),
                }
            };
            let old = taken(&mut engine, "01");
            let now = engine.now();
            assert!(engine.machine.dismiss(now, old.session));
            engine.settle();
            engine.effects.clear();
            let new = taken(&mut engine, "02");
            assert!(new.session != old.session && new.session.place() == old.session.place());
            let (session, id) = (new.session, new.id.as_ref().unwrap().0);
            let stored = hub.word(new, Verdict::Confirmed(Confirmation::from("stored")));
            // Nothing leaves in between.
            assert!(engine.complete(vec![stored]));
            assert!(!engine.complete(vec![hub.word(old.clone(), late)]), "it has ended");
            assert!(engine.confirmation(old.session, id).is_none(), "nor is there a word for it");
            let told = engine.confirmation(session, id).expect("its own word");
            assert!(told.as_str().contains("stored"), "{}", told.as_str());
        }
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
            let asked = Callback { body: Bytes::from(body), ..Callback::empty("messages") };
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
