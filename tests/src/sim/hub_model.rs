//! A second hub, written apart from the first: plain maps, looked through from end to end, with the decisions of rules U1
//! to U8 spelled out one after the other. It knows nothing of turns, rings, marks or heaps, and it is slow.
//!
//! ```text
//!  script ──input──▶ Hub   ──poll──▶ Book of what it said
//!     └─────input──▶ Model ────────▶ Book of what it should have said      equal after every step
//! ```
//!
//! A session is only as much of one as these decisions need: who is connected, what waits to be written, which ids are
//! known. There is no heartbeat and no HTTP path of the hub's in it, and an acknowledgement may take for ever.

use bowline::hub::{
    CloseReason, ConnId, Duplicate, Health, HubConfig, Identity, Publish, Rate, SessionId, Slow, Stamp,
};
use bowline::{DeliveryId, Instant, Reason, RequestId, Seq};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// What was said between two drains, by connection and by kind: the order between kinds is another test's.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Book {
    /// To each connection, the latest.
    pub control: BTreeMap<ConnId, Control>,
    /// To each connection, in order.
    pub broadcasts: BTreeMap<ConnId, Vec<u32>>,
    /// To each connection, in order.
    pub data: BTreeMap<ConnId, Vec<u32>>,
    /// To each connection.
    pub acks: BTreeMap<ConnId, BTreeSet<u128>>,
    /// To each connection.
    pub pings: BTreeMap<ConnId, u32>,
    /// Answers to requests; true: it is done.
    pub answers: BTreeMap<RequestId, bool>,
    /// Messages that ended; true: delivered.
    pub settled: BTreeMap<(SessionId, Seq), bool>,
    /// Sessions that ended.
    pub ended: BTreeMap<SessionId, CloseReason>,
    /// Wars told.
    pub wars: BTreeMap<SessionId, u32>,
}

/// What is said about a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Control {
    /// Find out who it is.
    Verify,
    /// It is in.
    Welcome(SessionId, bool),
    /// Close it.
    Close(CloseReason),
    /// Drop it.
    Drop,
}

/// A bucket of tokens, in millionths.
#[derive(Clone, Copy, Default, Debug)]
struct Bucket {
    used: u64,
    at: u64,
}

impl Bucket {
    fn now(&mut self, now: Instant, rate: Rate) -> u64 {
        let filled = (now.as_micros() - self.at).saturating_mul(rate.per_second.into());
        self.used = self.used.saturating_sub(filled);
        self.at = now.as_micros();
        self.used
    }

    fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let holds = u64::from(rate.burst.max(1)) * 1_000_000;
        if rate.per_second > 0 && self.now(now, rate) + 1_000_000 > holds {
            return false;
        }
        self.used += if rate.per_second > 0 { 1_000_000 } else { 0 };
        true
    }
}

#[derive(Clone, Default, Debug)]
struct Address {
    handshakes: Bucket,
    messages: Bucket,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    Pending,
    Verifying(Identity, Option<Stamp>),
    Knocking(SessionId),
    Attached(SessionId),
    /// One of the same address has replaced it in this session.
    Closing(Option<SessionId>),
}

#[derive(Clone, Debug)]
struct Conn {
    address: u64,
    state: State,
    until: Option<Instant>,
    writable: bool,
    waiting: Vec<u64>,
    snapshot: bool,
    strikes: u32,
    malformed: u32,
    heard: u64,
}

#[derive(Clone, Debug)]
struct Known {
    /// At the application, under this number; `None`: completed.
    held: Option<DeliveryId>,
    framed: bool,
    ack: bool,
    waiter: Option<(RequestId, Instant)>,
}

#[derive(Clone, Debug)]
struct Message {
    seq: Seq,
    payload: u32,
    sent_on: Option<ConnId>,
}

#[derive(Clone, Debug)]
struct Session {
    identity: Identity,
    conn: Option<ConnId>,
    knocker: Option<(ConnId, Instant)>,
    /// Its last connection is in a close handshake that the session waits for.
    closing: Option<(ConnId, Instant)>,
    leaving: Option<CloseReason>,
    ping: bool,
    answer: Option<Instant>,
    /// A ping is out, and nothing can be written: its time begins anew when bytes move (L11).
    held: bool,
    stall: Option<Instant>,
    expires: Option<Instant>,
    address: u64,
    takeovers: Vec<Instant>,
    war: Option<(Instant, bool)>,
    handshakes: Bucket,
    messages: Bucket,
    /// Of its messages that the application has.
    bytes: u64,
    nonces: BTreeSet<u64>,
    /// What was said before this may be in a memory that is lost.
    heard_from: i64,
    /// The least by which its words were behind our clock.
    behind: Option<i64>,
    inbox: BTreeMap<u128, Known>,
    /// Given back by the application, and until when its copies are not handed over (S16).
    given_back: BTreeMap<u128, Instant>,
    outbox: Vec<Message>,
    /// Broadcasts lost so far, and those of them that were lost with earlier connections: they must have been told.
    lost: u32,
    told: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Model {
    config: HubConfig,
    now: Instant,
    conns: BTreeMap<ConnId, Conn>,
    sessions: BTreeMap<SessionId, Session>,
    addresses: BTreeMap<u64, Address>,
    handshakes: Bucket,
    log: Vec<(u64, u32, u32, Option<u64>)>,
    published: u64,
    snapshot: Option<u32>,
    expected: Option<usize>,
    fleet: bool,
    /// The earliest reading of the wall clock, its last, and that at which nonces were lost before their time.
    began: i64,
    wall: i64,
    forgotten: i64,
    /// Whose they were, and how far behind, the latest first.
    dismissed: Vec<(Identity, Option<i64>)>,
    /// Of messages that the application has, also of sessions that have ended.
    bytes: u64,
    /// What should have been said since the last [`take`](Self::take).
    book: Book,
}

/// What a frame should come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Its connection is over.
    Stale,
    /// A limit refuses it.
    Limited,
    /// Its identity has as many bytes at the application as it may have.
    NoRoom,
    /// Its stamp is not fresh.
    Replayed,
    /// It is understood.
    Noted,
    /// It is new, for this session.
    Deliver(SessionId),
    /// It is known.
    Duplicate,
    /// It is answered at once; true: with done.
    Answer(bool),
    /// It is refused.
    Denied(CloseReason),
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// Data with this id.
    Data(u128),
    /// An acknowledgement of the message with this number.
    Ack(Seq),
    /// Something that only shows life.
    Life,
    /// Nonsense.
    Malformed,
}

const PROBE: Duration = Duration::from_secs(3);

impl Model {
    /// An empty one.
    #[must_use]
    pub fn new(config: HubConfig) -> Self {
        Self {
            config,
            now: Instant::ZERO,
            conns: BTreeMap::new(),
            sessions: BTreeMap::new(),
            addresses: BTreeMap::new(),
            handshakes: Bucket::default(),
            log: Vec::new(),
            published: 0,
            snapshot: None,
            expected: None,
            fleet: false,
            began: i64::MAX,
            wall: i64::MIN,
            forgotten: i64::MIN,
            dismissed: Vec::new(),
            bytes: 0,
            book: Book::default(),
        }
    }

    /// Every session it knows.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    /// What should be said by now.
    pub fn take(&mut self) -> Book {
        self.flush();
        core::mem::take(&mut self.book)
    }

    /// Whether the fleet should use HTTP.
    #[must_use]
    pub const fn fleet(&self) -> bool {
        self.fleet
    }

    /// Losses of this session's connections that must have been told by now, at least and at most.
    #[must_use]
    pub fn lost(&self, session: SessionId) -> Option<(u32, u32)> {
        let s = self.sessions.get(&session)?;
        let Some(conn) = s.conn.map(|conn| &self.conns[&conn]) else { return Some((s.lost, s.lost)) };
        // What the log has forgotten may have been told already, or not yet.
        let more = purge(&mut conn.clone(), &self.log);
        Some((if conn.writable { s.lost } else { s.told }, s.lost + more))
    }

    /// The connection that should carry this session, and the session that should be carried by a connection.
    #[must_use]
    pub fn tied(&self, session: SessionId) -> Option<ConnId> {
        self.sessions.get(&session)?.conn
    }

    /// The counts, by looking at everything.
    #[must_use]
    pub fn health(&self) -> Health {
        let count = |is: &dyn Fn(&State) -> bool| self.conns.values().filter(|conn| is(&conn.state)).count();
        let connections = count(&|state| matches!(state, State::Attached(_)));
        let closing = count(&|state| matches!(state, State::Closing(_)));
        let span = self.span();
        let active = |conn: &&Conn| matches!(conn.state, State::Attached(_)) && conn.heard + 1 >= span;
        let sessions = self.sessions.values();
        Health {
            connections,
            active: self.conns.values().filter(active).count(),
            pending: self.conns.len() - connections - closing,
            closing,
            sessions: self.sessions.len(),
            suspended: self.sessions.len() - connections,
            backlog: sessions.clone().map(|s| s.outbox.len()).sum(),
            held: sessions.map(|s| s.inbox.values().filter(|known| known.held.is_some()).count()).sum(),
            held_bytes: self.bytes,
            fleet_http: self.fleet,
            draining: false,
        }
    }

    /// The next instant at which something should happen by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let conns = self.conns.values().filter_map(|conn| conn.until);
        let sessions = self.sessions.values().flat_map(|s| {
            let waiters = s.inbox.values().filter_map(|known| known.waiter).map(|(_, until)| until);
            let knock = s.knocker.map(|(_, until)| until);
            let closing = s.closing.map(|(_, until)| until);
            [s.answer, s.stall, s.expires, knock, closing].into_iter().flatten().chain(waiters)
        });
        conns.chain(sessions).min()
    }

    fn span(&self) -> u64 {
        self.now.as_micros() / u64::try_from(self.config.idle.as_micros()).unwrap()
    }

    fn say(&mut self, conn: ConnId, what: Control) {
        // Of what was not said yet, the latest counts.
        self.book.control.insert(conn, what);
    }

    /// Time is now this; what is due happens with [`fire`](Self::fire), after the input.
    pub fn at(&mut self, now: Instant) {
        self.now = now;
    }

    /// Whether a connection from this address may come in.
    pub fn connect(&mut self, address: u64) -> Result<(), CloseReason> {
        let health = self.health();
        if self.conns.len() >= self.config.connections || health.pending >= self.config.pending {
            return Err(CloseReason::Full);
        }
        self.known(address)?;
        let here = self.conns.values().filter(|conn| conn.address == address).count();
        if here >= usize::try_from(self.config.per_address_connections).unwrap() {
            return Err(CloseReason::Rate);
        }
        let (now, own, all) = (self.now, self.config.per_address.handshakes, self.config.handshakes);
        let fits =
            self.addresses.get_mut(&address).unwrap().handshakes.take(now, own) && self.handshakes.take(now, all);
        if fits { Ok(()) } else { Err(CloseReason::Rate) }
    }

    /// It came in, under this name.
    pub fn connected(&mut self, conn: ConnId, address: u64) {
        let new = Conn {
            address,
            state: State::Pending,
            until: Some(self.now.after(self.config.hello)),
            writable: true,
            waiting: Vec::new(),
            snapshot: false,
            strikes: 0,
            malformed: 0,
            heard: 0,
        };
        assert!(self.conns.insert(conn, new).is_none(), "U1: {conn:?} is in use");
    }

    /// Whether a request from this address is looked at.
    pub fn knock(&mut self, address: u64) -> Result<(), CloseReason> {
        self.known(address)?;
        let rate = self.config.per_address.messages;
        let fits = self.addresses.get_mut(&address).unwrap().messages.take(self.now, rate);
        if fits { Ok(()) } else { Err(CloseReason::Rate) }
    }

    fn known(&mut self, address: u64) -> Result<(), CloseReason> {
        if !self.addresses.contains_key(&address) {
            if self.addresses.len() >= self.config.addresses {
                return Err(CloseReason::Full);
            }
            self.addresses.insert(address, Address::default());
        }
        Ok(())
    }

    /// The wall clock was read, if it was.
    const fn read_at(began: &mut i64, last: &mut i64, wall: Option<i64>) {
        if let Some(wall) = wall {
            *last = wall;
            if wall < *began {
                *began = wall;
            }
        }
    }

    /// A connection says who it is.
    pub fn hello(&mut self, wall: i64, conn: ConnId, identity: Identity, stamp: Option<Stamp>) -> bool {
        Self::read_at(&mut self.began, &mut self.wall, Some(wall));
        let tolerance = self.config.tolerance.as_micros();
        let Some(known) = self.conns.get_mut(&conn).filter(|known| known.state == State::Pending) else { return false };
        if stamp.is_some_and(|stamp| u128::from(wall.abs_diff(stamp.issued)) > tolerance) {
            self.end(conn, CloseReason::WrongClock);
        } else {
            known.state = State::Verifying(identity, stamp);
            self.say(conn, Control::Verify);
        }
        true
    }

    /// It is refused.
    pub fn refused(&mut self, conn: ConnId, why: CloseReason) -> bool {
        let verifying = self.conns.get(&conn).is_some_and(|conn| matches!(conn.state, State::Verifying(..)));
        if verifying {
            self.end(conn, why);
        }
        verifying
    }

    /// It is who it says it is. Where several sessions are allowed, `chosen` is the one that was taken; `made` is one that
    /// was made, if one was.
    pub fn accepted(&mut self, wall: i64, conn: ConnId, chosen: Option<SessionId>, made: Option<SessionId>) -> bool {
        let Some(State::Verifying(identity, stamp)) = self.conns.get(&conn).map(|conn| conn.state.clone()) else {
            assert_eq!(made, None, "U1: a session for a connection that is over");
            return false;
        };
        if let Err(why) = self.attach(wall, conn, identity, stamp, chosen, made) {
            self.end(conn, why);
        }
        true
    }

    fn attach(
        &mut self,
        wall: i64,
        conn: ConnId,
        identity: Identity,
        stamp: Option<Stamp>,
        chosen: Option<SessionId>,
        made: Option<SessionId>,
    ) -> Result<(), CloseReason> {
        let allow = matches!(self.config.duplicate, Duplicate::Allow(_));
        let fits = |s: &Session| s.identity == identity && s.leaving.is_none() && (!allow || s.conn.is_none());
        let there = match chosen {
            Some(id) if self.sessions.get(&id).is_some_and(fits) => Some(id),
            _ => self.sessions.iter().find(|(_, s)| fits(s)).map(|(id, _)| *id),
        };
        let resumed = there.is_some();
        let id = match there {
            Some(id) => {
                assert_eq!(made, None, "U1: a second session where there is one");
                id
            }
            None => self.session_for(identity, made)?,
        };
        let (now, config) = (self.now, self.config);
        let address = self.conns[&conn].address;
        Self::read_at(&mut self.began, &mut self.wall, stamp.map(|_| wall));
        let began = self.began;
        let s = self.sessions.get_mut(&id).unwrap();
        if let Some(stamp) = stamp {
            fresh(s, began, wall, config.tolerance, stamp)?;
        }
        if !s.handshakes.take(now, config.per_identity.handshakes) {
            return Err(CloseReason::Rate);
        }
        let here = s.address == address;
        if config.duplicate == Duplicate::Replace && s.conn.is_some() {
            if s.war.is_some_and(|(until, everywhere)| now < until && (everywhere || !here)) {
                return Err(CloseReason::War);
            }
            s.takeovers(now, config.war_within);
            let before = s.takeovers.len();
            if !here {
                s.takeover(now, config.war_within);
            }
            if before >= config.war_most.into() {
                s.takeovers.clear();
                s.war = Some((now.after(config.war_pause), here));
                *self.book.wars.entry(id).or_default() += 1;
                return Err(CloseReason::War);
            }
        }
        let (holder, closing, knocker) = (s.conn, s.closing.is_some(), s.knocker.is_some());
        match (config.duplicate, holder) {
            (Duplicate::Replace, Some(old)) => {
                self.untie(id);
                self.close(old, CloseReason::Replaced);
                if here {
                    self.conns.get_mut(&old).unwrap().state = State::Closing(Some(id));
                }
            }
            (Duplicate::Replace, None) => {}
            (Duplicate::ProbeThenReplace, Some(_)) if !knocker => {
                let known = self.conns.get_mut(&conn).unwrap();
                (known.state, known.until) = (State::Knocking(id), None);
                let s = self.sessions.get_mut(&id).unwrap();
                s.knocker = Some((conn, now.after(config.session.link.knock)));
                s.ping |= s.answer.is_none() && !s.held;
                return Ok(());
            }
            (Duplicate::Refuse, Some(_)) => {
                s.ping |= s.answer.is_none() && !s.held;
                return Err(CloseReason::Duplicate);
            }
            (_, Some(_)) => return Err(CloseReason::Duplicate),
            (_, None) if closing => return Err(CloseReason::Duplicate),
            (_, None) => {}
        }
        let s = self.sessions.get_mut(&id).unwrap();
        (s.address, s.closing) = (address, None);
        self.tie(id, conn, resumed);
        Ok(())
    }

    fn session_for(&mut self, identity: Identity, made: Option<SessionId>) -> Result<SessionId, CloseReason> {
        let of_it = self.sessions.values().filter(|s| s.identity == identity && s.leaving.is_none()).count();
        let why = match self.config.duplicate {
            Duplicate::Allow(most) if of_it >= most.into() => Some(CloseReason::Duplicate),
            _ if self.sessions.len() >= self.config.sessions => Some(CloseReason::Full),
            _ => None,
        };
        if let Some(why) = why {
            assert_eq!(made, None, "U1: {why:?}, and yet a session is made");
            return Err(why);
        }
        let id = made.expect("U1: there is a place, so a session is made");
        let new = Session {
            identity,
            heard_from: self.forgotten,
            behind: self.dismissed.iter().filter(|(whose, _)| *whose == identity).filter_map(|(_, by)| *by).min(),
            conn: None,
            knocker: None,
            closing: None,
            leaving: None,
            ping: false,
            answer: None,
            held: false,
            stall: None,
            expires: Some(self.now.after(self.config.ttl)),
            address: 0,
            takeovers: Vec::new(),
            war: None,
            handshakes: Bucket::default(),
            messages: Bucket::default(),
            bytes: 0,
            nonces: BTreeSet::new(),
            inbox: BTreeMap::new(),
            given_back: BTreeMap::new(),
            outbox: Vec::new(),
            lost: 0,
            told: 0,
        };
        assert!(self.sessions.insert(id, new).is_none());
        Ok(id)
    }

    /// The session of this identity, or a new one.
    pub fn adopt(
        &mut self,
        identity: Identity,
        got: Option<SessionId>,
        made: Option<SessionId>,
    ) -> Result<(), CloseReason> {
        let fits = |s: &&mut Session| s.identity == identity && s.leaving.is_none();
        if self.sessions.values_mut().any(|s| fits(&s)) {
            let its = got.and_then(|id| self.sessions.get_mut(&id)).filter(fits).expect("U1: its own session");
            its.expires = its.expires.map(|_| self.now.after(self.config.ttl));
            return Ok(());
        }
        let id = self.session_for(identity, made)?;
        assert_eq!(Some(id), got);
        Ok(())
    }

    fn tie(&mut self, id: SessionId, conn: ConnId, resumed: bool) {
        let span = self.span();
        let known = self.conns.get_mut(&conn).unwrap();
        known.state = State::Attached(id);
        known.until = None;
        known.heard = span;
        known.snapshot = self.snapshot.is_some();
        let s = self.sessions.get_mut(&id).unwrap();
        s.conn = Some(conn);
        s.expires = None;
        s.stall = (!known.writable).then(|| self.now.after(self.config.session.link.write_timeout));
        self.say(conn, Control::Welcome(id, resumed));
    }

    fn untie(&mut self, id: SessionId) {
        let s = self.sessions.get_mut(&id).unwrap();
        let waits = s.conn.and_then(|conn| self.conns.get_mut(&conn)).map(|conn| core::mem::take(&mut conn.waiting));
        (s.conn, s.ping, s.answer, s.held, s.stall) = (None, false, None, false, None);
        s.expires = Some(self.now.after(self.config.ttl));
        s.lost += waits.map_or(0, |waits| u32::try_from(waits.len()).unwrap());
        s.told = s.lost;
    }

    /// The session has lost its connection: whoever knocked has the place.
    fn vacant(&mut self, id: SessionId) {
        let s = self.sessions.get_mut(&id).unwrap();
        if let Some((conn, _)) = s.knocker.take() {
            self.tie(id, conn, true);
        }
    }

    fn close(&mut self, conn: ConnId, why: CloseReason) {
        let known = self.conns.get_mut(&conn).unwrap();
        known.state = State::Closing(None);
        known.until = Some(self.now.after(self.config.session.link.closing));
        self.say(conn, Control::Close(why));
    }

    /// The hub ends a connection.
    pub fn end(&mut self, conn: ConnId, why: CloseReason) {
        let Some(known) = self.conns.get(&conn) else { return };
        match known.state {
            State::Closing(_) => return,
            State::Attached(id) => {
                self.untie(id);
                self.close(conn, why);
                self.vacant(id);
                return;
            }
            State::Knocking(id) => self.sessions.get_mut(&id).unwrap().knocker = None,
            State::Pending | State::Verifying(..) => {}
        }
        self.close(conn, why);
    }

    fn drop_conn(&mut self, conn: ConnId) {
        self.conns.remove(&conn);
        self.say(conn, Control::Drop);
    }

    /// A connection has ended by itself.
    pub fn disconnected(&mut self, conn: ConnId, reason: Reason) {
        if let Some(State::Attached(id)) = self.conns.get(&conn).map(|known| known.state.clone()) {
            self.untie(id);
        }
        let Some(known) = self.conns.remove(&conn) else { return };
        match known.state {
            State::Attached(id) => {
                self.vacant(id);
            }
            State::Knocking(id) => self.sessions.get_mut(&id).unwrap().knocker = None,
            // It answered its close frame, so it had lived.
            State::Closing(Some(id)) if reason != Reason::Closed(1006) => {
                let (now, within) = (self.now, self.config.war_within);
                if let Some(s) = self.sessions.get_mut(&id) {
                    s.takeover(now, within);
                }
            }
            State::Closing(_) | State::Pending | State::Verifying(..) => {}
        }
        let waits = self.sessions.iter().find(|(_, s)| s.closing.is_some_and(|(of, _)| of == conn)).map(|(id, _)| *id);
        if let Some(id) = waits {
            self.closed(id);
        }
    }

    /// A session's nonces are lost before their time.
    fn forget(&mut self, gone: &Session) {
        self.forgotten = self.forgotten.max(self.wall);
        self.dismissed.insert(0, (gone.identity, gone.behind));
        self.dismissed.truncate(16);
    }

    /// A close handshake that a session waited for is over.
    fn closed(&mut self, id: SessionId) {
        let s = self.sessions.get_mut(&id).unwrap();
        s.closing = None;
        if let Some(why) = s.leaving {
            let gone = self.sessions.remove(&id).unwrap();
            if why != CloseReason::Expired {
                self.forget(&gone);
            }
            self.book.ended.insert(id, why);
        } else {
            self.vacant(id);
        }
    }

    /// A connection takes frames, or not.
    pub fn writable(&mut self, conn: ConnId, yes: bool) {
        let Some(known) = self.conns.get_mut(&conn) else { return };
        if let State::Attached(id) = known.state {
            let s = self.sessions.get_mut(&id).unwrap();
            if yes {
                s.stall = None;
                if core::mem::take(&mut s.held) {
                    s.answer = Some(self.now.after(PROBE));
                }
            } else {
                s.stall =
                    if known.writable { Some(self.now.after(self.config.session.link.write_timeout)) } else { s.stall };
                s.held |= s.answer.take().is_some();
            }
        }
        known.writable = yes;
    }

    /// Whether there is room for so many bytes more of this identity: in its equal part of one half, or, with eight times as
    /// much left for others, in the other half.
    fn room(&self, identity: Identity, bytes: u32) -> bool {
        let own = self.sessions.values().filter(|s| s.identity == identity).map(|s| s.bytes).sum::<u64>();
        let (own, all, half) = (own + u64::from(bytes), self.bytes + u64::from(bytes), self.config.held_bytes / 2);
        if own <= half / self.config.sessions as u64 { all <= 2 * half } else { all + 8 * own <= half }
    }

    /// The application has this number of bytes of this session's less.
    pub fn release(&mut self, session: SessionId, bytes: u32) {
        self.bytes -= u64::from(bytes);
        if let Some(s) = self.sessions.get_mut(&session) {
            s.bytes -= u64::from(bytes);
        }
    }

    /// A frame came in, of so many bytes; `delivery`: the number it was handed over under, if it was.
    pub fn received(
        &mut self,
        wall: i64,
        conn: ConnId,
        what: What,
        bytes: u32,
        stamp: Option<Stamp>,
        delivery: Option<DeliveryId>,
    ) -> Expect {
        let (now, config, span) = (self.now, self.config, self.span());
        let of = self.conns.get(&conn).and_then(|known| match known.state {
            State::Attached(id) => self.sessions.get(&id),
            _ => None,
        });
        let room = match (what, of) {
            (What::Data(message), Some(s)) => s.inbox.contains_key(&message) || self.room(s.identity, bytes),
            _ => true,
        };
        let Some(known) = self.conns.get_mut(&conn) else { return Expect::Stale };
        let State::Attached(id) = known.state else { return Expect::Stale };
        known.heard = span;
        let s = self.sessions.get_mut(&id).unwrap();
        let address = self.addresses.get_mut(&known.address).unwrap();
        if !s.messages.take(now, config.per_identity.messages)
            || !address.messages.take(now, config.per_address.messages)
        {
            known.strikes += 1;
            if known.strikes >= 16 {
                self.end(conn, CloseReason::Flood);
            }
            return Expect::Limited;
        }
        known.strikes = 0;
        (s.answer, s.held) = (None, false);
        let knocker = s.knocker.take();
        if !room {
            if let Some((knocker, _)) = knocker {
                self.close(knocker, CloseReason::Duplicate);
            }
            return Expect::NoRoom;
        }
        Self::read_at(&mut self.began, &mut self.wall, stamp.map(|_| wall));
        let began = self.began;
        let fresh = stamp.is_none_or(|stamp| fresh(s, began, wall, config.tolerance, stamp).is_ok());
        let what = if fresh { what } else { What::Malformed };
        let result = match what {
            What::Data(message) => {
                known.malformed = 0;
                match s.inbox.get_mut(&message) {
                    _ if s.given_back.get(&message).is_some_and(|until| *until > now) => Expect::Duplicate,
                    Some(seen) => {
                        seen.framed = true;
                        seen.ack |= seen.held.is_none();
                        Expect::Duplicate
                    }
                    None => {
                        let seen = Known { held: delivery, framed: true, ack: false, waiter: None };
                        s.inbox.insert(message, seen);
                        s.bytes += u64::from(bytes);
                        self.bytes += u64::from(bytes);
                        Expect::Deliver(id)
                    }
                }
            }
            What::Ack(seq) => {
                if settle(&mut self.book, id, s, seq) {
                    known.malformed = 0;
                }
                Expect::Noted
            }
            What::Life => Expect::Noted,
            What::Malformed => {
                known.malformed += 1;
                if known.malformed >= config.session.link.malformed_limit.into() {
                    s.closing = Some((conn, now.after(config.session.link.closing)));
                    self.untie(id);
                    self.close(conn, CloseReason::Violation);
                }
                if fresh { Expect::Noted } else { Expect::Replayed }
            }
        };
        if let Some((knocker, _)) = knocker {
            self.close(knocker, CloseReason::Duplicate);
        }
        result
    }

    /// A request came in. `got`: the session it was put to.
    #[expect(clippy::too_many_arguments, reason = "a request says all of this at once")]
    pub fn request(
        &mut self,
        wall: i64,
        identity: Identity,
        request: RequestId,
        message: u128,
        bytes: u32,
        stamp: Option<Stamp>,
        got: Option<(SessionId, Option<DeliveryId>)>,
        made: Option<SessionId>,
    ) -> Expect {
        let (now, config) = (self.now, self.config);
        let fits = |s: &Session| s.identity == identity && s.leaving.is_none();
        let chosen = got.map(|(id, _)| id).filter(|id| self.sessions.get(id).is_some_and(fits));
        let there = chosen.or_else(|| self.sessions.iter().find(|(_, s)| fits(s)).map(|(id, _)| *id));
        let id = match there {
            Some(id) => id,
            None => match self.session_for(identity, made) {
                Ok(id) => id,
                Err(why) => return Expect::Denied(why),
            },
        };
        let s = self.sessions.get_mut(&id).unwrap();
        if !s.messages.take(now, config.per_identity.messages) {
            return Expect::Denied(CloseReason::Rate);
        }
        // Where several are allowed, nobody says by which of them it was refused.
        let unknown = |s: &Session| fits(s) && !s.inbox.contains_key(&message);
        let refused = if got.is_some() { unknown(&self.sessions[&id]) } else { self.sessions.values().any(unknown) };
        if refused && !self.room(identity, bytes) {
            let tolerance = config.tolerance.as_micros();
            let s = self.sessions.get_mut(&id).unwrap();
            if s.conn.is_none() && stamp.is_none_or(|stamp| u128::from(wall.abs_diff(stamp.issued)) <= tolerance) {
                s.expires = Some(now.after(config.ttl));
            }
            return Expect::Denied(CloseReason::Full);
        }
        let s = self.sessions.get_mut(&id).unwrap();
        Self::read_at(&mut self.began, &mut self.wall, stamp.map(|_| wall));
        let began = self.began;
        if let Some(why) = stamp.and_then(|stamp| fresh(s, began, wall, config.tolerance, stamp).err()) {
            return Expect::Denied(why);
        }
        if s.conn.is_none() {
            s.expires = Some(now.after(config.ttl));
        }
        let waiter = Some((request, now.after(config.session.inbox.answer_wait)));
        match s.inbox.get_mut(&message) {
            _ if s.given_back.get(&message).is_some_and(|until| *until > now) => Expect::Answer(false),
            None => {
                let held = got.and_then(|(_, delivery)| delivery);
                s.inbox.insert(message, Known { held, framed: false, ack: false, waiter });
                s.bytes += u64::from(bytes);
                self.bytes += u64::from(bytes);
                Expect::Deliver(id)
            }
            Some(seen) if seen.held.is_none() => Expect::Answer(true),
            Some(seen) if seen.waiter.is_some() => Expect::Answer(false),
            Some(seen) => {
                seen.waiter = waiter;
                Expect::Duplicate
            }
        }
    }

    /// A peer gave up its request.
    pub fn request_gone(&mut self, session: SessionId, request: RequestId) {
        let Some(s) = self.sessions.get_mut(&session) else { return };
        for seen in s.inbox.values_mut() {
            seen.waiter.take_if(|(waits, _)| *waits == request);
        }
    }

    /// The application is done with a message, or gives it back for this time.
    pub fn complete(&mut self, session: SessionId, delivery: DeliveryId, given_back: Option<Duration>) -> bool {
        let (now, done) = (self.now, given_back.is_none());
        let Some(s) = self.sessions.get_mut(&session) else { return false };
        let Some((id, seen)) = s.inbox.iter_mut().find(|(_, seen)| seen.held == Some(delivery)) else { return false };
        if let Some((request, _)) = seen.waiter.take() {
            self.book.answers.insert(request, done);
        }
        let id = *id;
        match given_back {
            None => (seen.held, seen.ack) = (None, seen.framed),
            Some(after) => {
                s.inbox.remove(&id);
                s.given_back.insert(id, now.after(after));
            }
        }
        true
    }

    /// The application sends to one; `seq`: the number it was given.
    pub fn send(&mut self, session: SessionId, payload: u32, seq: Option<Seq>) -> bool {
        let Some(s) = self.sessions.get_mut(&session).filter(|s| s.leaving.is_none()) else { return false };
        let room = s.outbox.len() < self.config.session.outbox.capacity;
        if let (true, Some(seq)) = (room, seq) {
            s.outbox.push(Message { seq, payload, sent_on: None });
        }
        room
    }

    /// The application does not want a session any more.
    pub fn dismiss(&mut self, session: SessionId) -> bool {
        let there = self.sessions.get(&session).is_some_and(|s| s.leaving.is_none());
        if there {
            // What is due at the same instant counts: nobody says good-bye to a connection that is dead.
            self.fire_holder(session);
            self.leave(session, CloseReason::Dismissed);
        }
        there
    }

    fn leave(&mut self, id: SessionId, why: CloseReason) {
        let limit = self.now.after(self.config.session.link.closing);
        let s = self.sessions.get_mut(&id).unwrap();
        s.leaving = Some(why);
        let unsettled: Vec<Seq> = s.outbox.drain(..).map(|message| message.seq).collect();
        let waiters: Vec<_> = s.inbox.values_mut().filter_map(|seen| seen.waiter.take()).collect();
        for seq in unsettled {
            self.book.settled.insert((id, seq), false);
        }
        for (request, _) in waiters {
            self.book.answers.insert(request, false);
        }
        for seen in s.inbox.values_mut() {
            seen.ack = false;
        }
        let (conn, knocker) = (s.conn, s.knocker.take());
        if let Some((knocker, _)) = knocker {
            self.close(knocker, CloseReason::Duplicate);
        }
        match conn {
            Some(conn) => {
                self.sessions.get_mut(&id).unwrap().closing = Some((conn, limit));
                self.untie(id);
                self.close(conn, why);
            }
            None if self.sessions[&id].closing.is_none() => self.closed(id),
            None => {}
        }
    }

    /// A broadcast, to those with an even identity only if `even`; how many it should reach, and how many should lose by it.
    pub fn publish(&mut self, payload: u32, size: u32, how: Publish, even: bool) -> (u32, u32) {
        let (limits, most, slow) = (self.config.bulk.log, self.config.bulk.most, self.config.bulk.slow);
        self.published += 1;
        let number = self.published;
        let bytes = |log: &[(u64, u32, u32, Option<u64>)]| log.iter().map(|entry| entry.2 as usize).sum::<usize>();
        while !self.log.is_empty()
            && (self.log.len() >= limits.messages || bytes(&self.log) + size as usize > limits.bytes)
        {
            self.log.remove(0);
        }
        let same = |entry: &&(u64, u32, u32, Option<u64>)| how.key.is_some() && entry.3 == how.key;
        let older = self.log.iter().rfind(same).map(|entry| entry.0);
        self.log.push((number, payload, size, how.key));
        if how.snapshot {
            self.snapshot = Some(payload);
        }
        let (mut reached, mut dropped) = (0, 0);
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            let conn = self.conns.get_mut(&id).unwrap();
            let State::Attached(session) = conn.state else { continue };
            let s = self.sessions.get_mut(&session).unwrap();
            if even && s.identity.bits() % 2 == 1 {
                continue;
            }
            conn.snapshot &= !how.snapshot;
            let mut lost = purge(conn, &self.log);
            if slow == Slow::Conflate {
                conn.waiting.retain(|waits| Some(*waits) != older);
            }
            let full = conn.waiting.len() >= most as usize;
            match slow {
                Slow::DropNewest if full => lost += 1,
                Slow::Disconnect if full => {
                    s.lost += lost + 1;
                    // Whoever knocked has its place, and may still come in this round.
                    self.end(id, CloseReason::Slow);
                    dropped += 1;
                    continue;
                }
                Slow::DropOldest | Slow::Conflate if full => {
                    conn.waiting.remove(0);
                    lost += 1;
                }
                _ => {}
            }
            if !(full && slow == Slow::DropNewest) {
                conn.waiting.push(number);
                reached += 1;
            }
            s.lost += lost;
            dropped += u32::from(lost > 0);
        }
        (reached, dropped)
    }

    /// So many are expected.
    pub fn expect(&mut self, identities: Option<usize>) {
        self.expected = identities;
    }

    /// What is due now happens, and the fleet is weighed.
    pub fn fire(&mut self) {
        let now = self.now;
        let due: Vec<ConnId> =
            self.conns.iter().filter(|(_, conn)| conn.until.is_some_and(|at| at <= now)).map(|(id, _)| *id).collect();
        for conn in due {
            match self.conns[&conn].state {
                State::Pending => self.end(conn, CloseReason::Silent),
                State::Verifying(..) => self.end(conn, CloseReason::Later),
                State::Closing(_) => self.drop_conn(conn),
                State::Knocking(_) | State::Attached(_) => unreachable!("without a limit of their own"),
            }
        }
        for id in self.sessions() {
            self.fire_session(id);
        }
        let config = self.config;
        for known in self.addresses.values_mut() {
            known.handshakes.now(now, config.per_address.handshakes);
            known.messages.now(now, config.per_address.messages);
        }
        let conns = &self.conns;
        self.addresses.retain(|address, known| {
            known.handshakes.used + known.messages.used > 0 || conns.values().any(|conn| conn.address == *address)
        });
        self.weigh();
    }

    fn fire_session(&mut self, id: SessionId) {
        let now = self.now;
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let s = self.sessions.get_mut(&id).unwrap();
        for seen in s.inbox.values_mut() {
            if let Some((request, _)) = seen.waiter.take_if(|(_, until)| *until <= now) {
                self.book.answers.insert(request, false);
            }
        }
        if due(s.closing.map(|(_, until)| until)) {
            self.closed(id);
        }
        if !self.sessions.contains_key(&id) {
            return;
        }
        self.fire_holder(id);
        if due(self.sessions[&id].expires) && self.sessions[&id].leaving.is_none() {
            self.leave(id, CloseReason::Expired);
        }
    }

    /// Whoever has the place loses it, if its time is up.
    fn fire_holder(&mut self, id: SessionId) {
        let now = self.now;
        let s = &self.sessions[&id];
        let knocker = s.knocker.map(|(_, until)| until);
        if [knocker, s.answer, s.stall].into_iter().flatten().any(|at| at <= now) {
            if let Some(conn) = s.conn {
                self.untie(id);
                self.drop_conn(conn);
            }
            self.vacant(id);
        }
    }

    fn weigh(&mut self) {
        let live = self.sessions.values().filter(|s| s.conn.is_some()).count() * 100;
        let whole = self.expected.unwrap_or(self.sessions.len());
        if whole == 0 || live > whole * usize::from(self.config.fleet_high) {
            self.fleet = false;
        } else if live < whole * usize::from(self.config.fleet_low) {
            self.fleet = true;
        }
    }

    /// The hub weighs the fleet several times while it tells of several ends; between the marks both is right then.
    pub fn fleet_between(&mut self, book: &Book, http: bool) {
        let live = self.sessions.values().filter(|s| s.conn.is_some()).count() * 100;
        let whole = self.expected.unwrap_or(self.sessions.len());
        let marks = usize::from(self.config.fleet_low)..=usize::from(self.config.fleet_high);
        let ends = !book.ended.is_empty() || book.control.values().any(|control| *control == Control::Drop);
        if ends && whole > 0 && marks.contains(&live.div_ceil(whole)) {
            self.fleet = http;
        }
    }

    /// Everything that can be written is.
    fn flush(&mut self) {
        for s in self.sessions.values_mut() {
            let Some(conn) = s.conn else { continue };
            let known = self.conns.get_mut(&conn).unwrap();
            if !known.writable {
                continue;
            }
            for (message, seen) in &mut s.inbox {
                if core::mem::take(&mut seen.ack) {
                    self.book.acks.entry(conn).or_default().insert(*message);
                }
            }
            if core::mem::take(&mut s.ping) {
                s.answer = Some(s.answer.unwrap_or(self.now.after(PROBE)));
                *self.book.pings.entry(conn).or_default() += 1;
            }
            for message in &mut s.outbox {
                if message.sent_on != Some(conn) {
                    message.sent_on = Some(conn);
                    self.book.data.entry(conn).or_default().push(message.payload);
                }
            }
            s.lost += purge(known, &self.log);
            let snapshot = self.snapshot.filter(|_| core::mem::take(&mut known.snapshot));
            let numbers = core::mem::take(&mut known.waiting);
            let payload = |number: u64| self.log.iter().find(|entry| entry.0 == number).unwrap().1;
            let all: Vec<u32> = snapshot.into_iter().chain(numbers.into_iter().map(payload)).collect();
            if !all.is_empty() {
                self.book.broadcasts.entry(conn).or_default().extend(all);
            }
        }
    }
}

/// What waits and is not in the log any more is lost.
fn purge(conn: &mut Conn, log: &[(u64, u32, u32, Option<u64>)]) -> u32 {
    let before = conn.waiting.len();
    conn.waiting.retain(|number| log.iter().any(|entry| entry.0 == *number));
    u32::try_from(before - conn.waiting.len()).unwrap()
}

/// Why a stamp is not fresh: its clock is wrong, it is from before the hub or a memory that was lost by the clock of who
/// issued it, or it was used. From now on it is.
fn fresh(s: &mut Session, began: i64, wall: i64, tolerance: Duration, stamp: Stamp) -> Result<(), CloseReason> {
    let lag = 5_000_000;
    s.heard_from = s.heard_from.min(wall);
    let apart = wall - stamp.issued;
    let behind = s.behind.map_or(apart, |behind| behind.min(apart));
    if u128::from(apart.unsigned_abs()) > tolerance.as_micros() {
        return Err(CloseReason::WrongClock);
    }
    if stamp.issued + behind < began.max(s.heard_from).saturating_sub(lag) {
        return Err(CloseReason::Unjudged);
    }
    if !s.nonces.insert(stamp.nonce) {
        return Err(CloseReason::Replayed);
    }
    s.behind = Some(behind);
    Ok(())
}

impl Session {
    /// The replacements since the first of those within this time.
    fn takeovers(&mut self, now: Instant, within: Duration) {
        if self.takeovers.first().is_some_and(|first| now.since(*first) > within) {
            self.takeovers.clear();
        }
    }

    fn takeover(&mut self, now: Instant, within: Duration) {
        self.takeovers(now, within);
        self.takeovers.push(now);
    }
}

fn settle(book: &mut Book, id: SessionId, s: &mut Session, seq: Seq) -> bool {
    let Some(offset) = s.outbox.iter().position(|message| message.seq == seq) else { return false };
    s.outbox.remove(offset);
    book.settled.insert((id, seq), true);
    true
}
