//! Many peers: who may come in, whose session is whose, and who gets what next.
//!
//! ```text
//!                    connect ─▶ hello ─▶ Verify … verified ─▶ Welcome
//!   address ─limits─▶ Conn ──────────────────────────────────▶ Peer { identity, Session, nonces, limits }
//!                      │ one cursor into the log                  │ outlives its connections by `ttl`
//!   publish ─▶ Log ────┘        subscribe, send, request ─────────┘
//!   publish_topic ─▶ Topics: a history each, and a cursor for each subscription
//!                                   │
//!   poll ─▶ events · connections to verify, greet, close · then each ready session in turn: sixteen of its frames, four
//!           broadcasts and items of topics, and the next one
//! ```
//!
//! Every peer has an ordinary [`Session`](crate::Session) in the acceptor's role; the hub adds what many have and one has
//! not: admission, identity, turns, broadcasts, a way to go down in order. It does no I/O and checks no signature: it asks
//! ([`HubOutput::Verify`]) and is told ([`Hub::verified`]).
//!
//! Its surface follows the six rules of a session's: any input at any time, only inputs move state, [`Hub::poll`] until
//! `None`, ticks are free, time never goes backwards, and after a drain [`Hub::deadline`] lies in the future.
//!
//! Invariants: a connection carries at most one session and a session at most one connection; nothing is looked up by
//! identity in order to end it; every table has a limit; only [`Hub::publish`] and the end of a drain look at all
//! connections, and a drain, batch by batch, and a standstill of time at all sessions; the counts of [`Hub::health`] change where a connection is
//! tied to a session or untied, and nowhere else.
//! Field bugs: a reconnect whose predecessor's clean-up removes it (wire facts 2.10, 3); confirmations that wait for the
//! next heartbeat (1) or kill the sender (2); messages that die with their connection (4); a newcomer who gets no game
//! update (5); nonces forgotten too soon (7); a herd after a restart (9); a broadcast that waits for its slowest reader (11).
//! Rules: U1–U12, R8, P8, L14.

mod admission;
mod config;
mod held;
mod limit;
mod log;
mod memory;
mod peer;
mod profile;
mod replay;
mod table;
mod topics;
mod traffic;
mod turn;
mod types;

pub use config::{Bulk, Duplicate, HubChecked, HubConfig, Limits, Slow, TopicsConfig};
pub use limit::{Gcra, Rate, Tickets};
pub use log::{Entry, Log, LogConfig, Pending, Published};
#[cfg(feature = "alloc")]
pub use memory::Grows;
pub use memory::{Inline, Memory};
pub use peer::{Address, Conn, Peer};
pub use profile::{BETTENSOR_HUB, VILLAGE_HUB};
pub use replay::{Nonce, Replay, Replayed, Stamp};
pub use table::Cell;
pub use topics::{
    BadTopic, Item, Member, Position, Start, Subscribed, Subscription, Topic, TopicFilter, TopicHealth, TopicName,
    TopicsFull, Wildcard,
};
pub use types::{
    CloseReason, ConnId, Denied, Health, Heard, HubEvent, HubOutput, HubStats, Identity, Publish, Sent, SessionId,
    Verdict,
};

use crate::ids::{MessageId, Origin, Seq};
use crate::marks::Report;
use crate::resume::Greeting;
use crate::time::{Instant, Timer, Timers};
use core::fmt;
use core::time::Duration;
use peer::ConnState;
use table::{Key, Table};

type PeerOf<P, M> = Peer<P, <M as Memory<P>>::Outbox, <M as Memory<P>>::Inbox, <M as Memory<P>>::Nonces>;

/// Many peers' sessions. See the module for the rules of its surface.
///
/// ```
/// use bowline::hub::{Hub, HubConfig, HubOutput, Identity, Inline, Publish, Verdict};
/// use bowline::{Instant, Origin};
///
/// let now = Instant::ZERO;
/// let mut hub: Hub<&str, Inline<4>> = Hub::new(HubConfig::DEFAULT.check()?, 42, Origin::new(7, 1), now);
/// let conn = hub.connect(now, 0x7f00_0001).unwrap(); // a socket was accepted: from this address
/// hub.hello(now, 0, conn, Identity::from_bits(1), None); // its first frame says who it is
/// while let Some(output) = hub.poll() {
///     assert!(matches!(output, HubOutput::Verify { .. }));
/// }
/// hub.verified(now, 0, conn, Verdict::Accept { http: false }); // the signature holds, and it is known
/// let sent = hub.publish(now, "kick-off", 8, Publish::DEFAULT, |_, _| true);
/// assert_eq!(sent.reached, 1);
/// let mut seen = Vec::new();
/// while let Some(output) = hub.poll() {
///     match output {
///         HubOutput::Welcome { .. } => seen.push("welcome"),
///         HubOutput::Broadcast { payload, .. } => seen.push(payload),
///         _ => {}
///     }
/// }
/// assert_eq!(seen, ["welcome", "kick-off"]);
/// assert_eq!(hub.health().connections, 1);
/// # Ok::<(), bowline::ConfigError>(())
/// ```
pub struct Hub<P, M: Memory<P>> {
    config: HubChecked,
    seed: u64,
    origin: Origin,
    /// Sessions made so far: each is a sender of its own.
    made: u64,
    started: Instant,
    /// The earliest our wall clock has been, in microseconds since the epoch.
    began: i64,
    /// Its last reading, and that at which the nonces of a session were lost that could be its identity's again.
    wall: i64,
    forgotten: i64,
    /// Whose they were, and how far each was behind our clock ([`Replay::behind`]): the latest first.
    dismissed: [(Identity, i64); DISMISSED],
    now: Instant,
    peers: Table<PeerOf<P, M>, M::Peers>,
    conns: Table<Conn, M::Conns>,
    addresses: Table<Address, M::Addresses>,
    log: Log<P, M::Log>,
    topics: topics::Topics<P, M>,
    /// The last broadcast that newcomers get.
    snapshot: Option<P>,
    handshakes: Gcra,
    tickets: Tickets,
    /// Connections that carry a session.
    live: usize,
    /// Connections in their close handshake.
    closing: usize,
    backlog: usize,
    held: usize,
    /// Bytes of messages that are at the application or wait for their turn, also of sessions that have ended.
    held_bytes: u64,
    /// Sessions that owe their peer something (L13).
    owing: usize,
    activity: Activity,
    /// How many the application expects; without a word, as many as there are sessions.
    expected: Option<usize>,
    fleet_http: bool,
    fleet_told: bool,
    drain: Option<Drain>,
    turn: Option<turn::Turn>,
    /// The process stood still: what would have been too late in that gap is not (L5).
    stalled: bool,
    stats: HubStats,
}

/// How far a drain is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Drain {
    window: Duration,
    end: Instant,
    step: Timer,
    /// The next session to look at, and how many in a step.
    cursor: u32,
    batch: u32,
    failed_before: u64,
    told: bool,
}

/// Which connections were heard from lately, without looking at them: a count for this span of time and one for those
/// heard in the last span but not in this.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Activity {
    span: u64,
    now: usize,
    before: usize,
}

impl Activity {
    fn at(&self, now: Instant, idle: Duration) -> u64 {
        let idle = u64::try_from(idle.as_micros()).unwrap_or(u64::MAX);
        now.as_micros().checked_div(idle).unwrap_or_default()
    }

    /// The counts for the present span, from those of the last.
    fn counts(&self, span: u64) -> (usize, usize) {
        match span.saturating_sub(self.span) {
            0 => (self.now, self.before),
            1 => (0, self.now),
            _ => (0, 0),
        }
    }

    fn roll(&mut self, span: u64) {
        (self.now, self.before) = self.counts(span);
        self.span = self.span.max(span);
    }

    /// Takes one that was last heard in span `heard` out of the counts.
    fn leave(&mut self, span: u64, heard: u64) {
        self.roll(span);
        if heard == self.span {
            self.now = self.now.saturating_sub(1);
        } else if heard.saturating_add(1) == self.span {
            self.before = self.before.saturating_sub(1);
        }
    }

    fn enter(&mut self, span: u64) -> u64 {
        self.roll(span);
        self.now = self.now.saturating_add(1);
        self.span
    }
}

/// What of one session is counted for all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Counted {
    backlog: usize,
    held: usize,
    owing: bool,
}

/// Called so much later than it asked for, the process stood still (L5).
const STALL: Duration = Duration::from_secs(3);

/// The number of dismissed sessions of which it is known how far their peers' clocks were behind; an older one's peer
/// is heard as if for the first time.
const DISMISSED: usize = 16;

/// Between two batches of connections that are closed in a drain.
const DRAIN_STEP: Duration = Duration::from_millis(100);

impl<P, M: Memory<P>> Hub<P, M> {
    /// A hub without peers. `seed` must differ from process to process; the origin names the hub as the sender of messages.
    pub fn new(config: HubChecked, seed: u64, origin: Origin, now: Instant) -> Self {
        let settings = config.get();
        let (peers, conns, addresses, log) = M::hub();
        Self {
            config,
            seed,
            origin,
            made: 0,
            started: now,
            began: i64::MAX,
            wall: i64::MIN,
            forgotten: i64::MIN,
            dismissed: [(Identity::from_bits(0), i64::MAX); DISMISSED],
            now,
            peers: Table::new(settings.sessions, peers),
            conns: Table::new(settings.connections, conns),
            addresses: Table::new(settings.addresses, addresses),
            log: Log::new(settings.bulk.log, log),
            topics: topics::Topics::new(settings.topics, settings.sessions, seed, topics::epoch(seed, origin)),
            snapshot: None,
            handshakes: Gcra::new(),
            tickets: Tickets::new(),
            live: 0,
            closing: 0,
            backlog: 0,
            held: 0,
            held_bytes: 0,
            owing: 0,
            activity: Activity::default(),
            expected: None,
            fleet_http: false,
            fleet_told: false,
            drain: None,
            turn: None,
            stalled: false,
            stats: HubStats::default(),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.enter(now, |_| {});
    }

    /// Time stood still for this process ([`Input::StoodStill`](crate::Input)): every peer is asked at once whether it is
    /// still there, and what would have been too late in that time is not (L14). Looks at all sessions.
    pub fn stood_still(&mut self, now: Instant) {
        self.enter(now, |hub| {
            hub.stalled = true;
            let now = hub.now;
            for n in 0..hub.peers.span() {
                let Some(key) = hub.peers.key(n) else { continue };
                if let Some(peer) = hub.peers.get_mut(key) {
                    peer.session.stood_still(now, Duration::ZERO);
                    hub.touched(key);
                }
            }
        });
    }

    /// When to call again if nothing else happens. `None`: only an input can change anything.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.turn.is_some() || self.peers.any_ready() || self.conns.any_ready() || self.has_event() {
            return Some(self.now);
        }
        let log = self.log.earliest().map(|(at, _)| at);
        let topics = self.topics.earliest().map(|(at, _)| at);
        let drain = self.drain.as_ref().and_then(|drain| drain.step.at());
        [self.peers.deadline(), self.conns.deadline(), self.addresses.deadline(), log, topics, drain]
            .into_iter()
            .flatten()
            .min()
    }

    /// How it stands. Costs the same however many there are.
    #[must_use]
    pub fn health(&self) -> Health {
        let span = self.activity.at(self.now, self.config.get().idle);
        let (now, before) = self.activity.counts(span);
        Health {
            connections: self.live,
            active: now.saturating_add(before),
            pending: self.conns.len().saturating_sub(self.live).saturating_sub(self.closing),
            closing: self.closing,
            sessions: self.peers.len(),
            suspended: self.peers.len().saturating_sub(self.live),
            backlog: self.backlog,
            held: self.held,
            held_bytes: self.held_bytes,
            fleet_http: self.fleet_http,
            draining: self.drain.is_some(),
        }
    }

    /// The counters.
    #[must_use]
    pub const fn stats(&self) -> HubStats {
        self.stats
    }

    /// The largest time seen.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// The window over which clients are asked to spread their return, to be told when they are greeted (B2).
    #[must_use]
    pub const fn reconnect_window(&self) -> Duration {
        self.config.get().reconnect_window
    }

    /// The session of this identity; of several ([`Duplicate::Allow`]), any.
    #[must_use]
    pub fn find(&self, identity: Identity) -> Option<SessionId> {
        let stays = |peer: &PeerOf<P, M>| peer.leaving.is_none_or(|(why, _)| why == CloseReason::Draining);
        let is = |peer: &PeerOf<P, M>| peer.identity == identity && stays(peer);
        self.peers.find(identity.hash(), is).map(SessionId)
    }

    /// Whose session it is, while it exists.
    #[must_use]
    pub fn identity(&self, session: SessionId) -> Option<Identity> {
        self.peers.get(session.0).map(|peer| peer.identity)
    }

    /// What a native peer is told of this session: its numbers, what it has; with `resume` for whether it goes on.
    #[must_use]
    pub fn greeting(&self, session: SessionId, resume: bool) -> Option<Greeting> {
        self.peers.get(session.0).map(|peer| peer.session.greeting(resume))
    }

    /// What this session has of a native peer's messages, and the lowest of its own that has not ended.
    #[must_use]
    pub fn marks(&self, session: SessionId) -> Option<(Report, Seq)> {
        self.peers.get(session.0).map(|peer| (peer.session.report(), peer.session.outbox().una()))
    }

    /// Whether this session remembers a message that came under this id (rule S11).
    #[must_use]
    pub fn remembers(&self, session: SessionId, id: MessageId) -> bool {
        self.peers.get(session.0).is_some_and(|peer| peer.session.remembers(id))
    }

    /// The connection of this session, if there is one.
    #[must_use]
    pub fn connection(&self, session: SessionId) -> Option<ConnId> {
        self.peers.get(session.0)?.conn.map(|(_, conn)| ConnId(conn))
    }

    /// The session that this connection carries.
    #[must_use]
    pub fn session_of(&self, conn: ConnId) -> Option<SessionId> {
        match self.conns.get(conn.0)?.state {
            ConnState::Attached { peer, .. } => Some(SessionId(peer)),
            ConnState::Pending
            | ConnState::Verifying { .. }
            | ConnState::Knocking { .. }
            | ConnState::Closing { .. } => None,
        }
    }

    /// Every session there is, connected or not. The one thing that looks at all of them; for the application.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, Identity, bool)> {
        (0..self.peers.span()).filter_map(|n| {
            let key = self.peers.key(n)?;
            self.peers.get(key).map(|peer| (SessionId(key), peer.identity, peer.conn.is_some()))
        })
    }

    /// So many identities are expected: the whole of which the connected share is taken (P8). `None`: as many as are known.
    pub fn expect(&mut self, now: Instant, identities: Option<usize>) {
        self.enter(now, |hub| hub.expected = identities);
    }

    /// What surrounds every input: the input comes before the timers, so an answer that arrives with its deadline is in
    /// time.
    fn enter<R>(&mut self, now: Instant, apply: impl FnOnce(&mut Self) -> R) -> R {
        let now = now.max(self.now);
        self.stalled = self.deadline().is_some_and(|at| now.since(at) > STALL);
        self.now = now;
        let answer = apply(self);
        self.fire();
        self.weigh_fleet();
        answer
    }

    fn fire(&mut self) {
        let now = self.now;
        while let Some(key) = self.conns.next_due(now) {
            self.conn_due(key);
        }
        while let Some(key) = self.peers.next_due(now) {
            self.peer_due(key);
        }
        while let Some(key) = self.addresses.next_due(now) {
            self.release_address(key);
        }
        self.log.tick(now);
        self.topics.tick(now);
        if self.drain.as_mut().is_some_and(|drain| drain.step.fire(now)) {
            self.drain_step();
        }
        self.stalled = false;
    }

    fn peer_due(&mut self, key: Key) {
        let now = self.now;
        let stalled = self.stalled;
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.turns.fire(now) {
            if stalled {
                // The process stood still: what the peer asked by HTTP may lie unread.
                peer.turns.arm(now.after(admission::GRACE));
            } else {
                peer.give_back = peer.session.has_waiting();
            }
        }
        if peer.expires.fire(now) {
            peer.leaving.get_or_insert((CloseReason::Expired, Duration::ZERO));
            peer.session.close(now, Duration::ZERO);
        } else {
            peer.session.tick(now);
        }
        self.touched(key);
    }

    /// Something was told to this session: it may have something to say, or another connection.
    fn touched(&mut self, key: Key) {
        self.promote(key);
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.dirty = true;
        self.count_session(key);
        self.peers.make_ready(key);
    }

    /// Brings what is counted of all sessions up to date with this one.
    fn count_session(&mut self, key: Key) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let session = &peer.session;
        let now = Counted { backlog: session.backlog(), held: session.held(), owing: session.awaits_peer() };
        let before = core::mem::replace(&mut peer.counted, now);
        self.recount(before, now);
    }

    fn recount(&mut self, before: Counted, now: Counted) {
        self.backlog = self.backlog.saturating_sub(before.backlog).saturating_add(now.backlog);
        self.held = self.held.saturating_sub(before.held).saturating_add(now.held);
        self.owing = self.owing.saturating_sub(usize::from(before.owing)).saturating_add(usize::from(now.owing));
    }

    /// The share of the fleet that is connected, against the two marks (P8). Weighed when an input or an output is over and
    /// never in between: a connection that replaces another is no loss, and a newcomer is not absent before it is there.
    fn weigh_fleet(&mut self) {
        let expected = self.expected.unwrap_or(self.peers.len());
        let config = self.config.get();
        let share = self.live.saturating_mul(100);
        if expected == 0 || share > expected.saturating_mul(usize::from(config.fleet_high)) {
            self.fleet_http = false;
        } else if share < expected.saturating_mul(usize::from(config.fleet_low)) {
            self.fleet_http = true;
        }
    }
}

impl<P, M: Memory<P>> fmt::Debug for Hub<P, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("now", &self.now).field("health", &self.health()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
