//! Who may come in, whose session is whose, and how connections and sessions end.
//!
//! ```text
//!  connect ─▶ draining? full? address? rate? ─▶ Denied, with a time to come back that is nobody else's
//!     └─▶ Pending ─hello─▶ Verifying ─verified─▶ attach: its session, or a new one
//!                                                  ├─ nobody has it            ─▶ Attached, Welcome
//!                                                  ├─ another connection has it ─▶ by the policy: that one goes, or is
//!                                                  │                               probed, or this one is refused
//!                                                  ├─ too often, and it lived   ─▶ war: refused for a while
//!                                                  └─ a native peer of an older epoch ─▶ Fenced
//! ```
//!
//! Invariants: a session is tied to a connection in [`tie`](Hub::tie) and untied in [`untie`](Hub::untie), where the counts
//! change, and nowhere else; the end of a connection concerns the session only if that connection still has it (R7).
//! Rules: U1, U2, U8, U9, U11, L13, I3, R7, R8.

use super::peer::{Address, Conn, ConnState, Peer, Todo};
use super::replay::{Replay, Stamp};
use super::table::Key;
use super::{CloseReason, ConnId, DRAIN_STEP, Denied, Drain, Duplicate, Hub, Identity, Memory, SessionId, Verdict};
use crate::ids::{LinkId, Origin};
use crate::link::Accepted;
use crate::reason::{Reason, RetryHint};
use crate::resume::{Greeting, ResumeRefusal};
use crate::rng::SplitMix64;
use crate::session::{Session, State};
use crate::time::{Instant, Timer};
use core::time::Duration;

/// After a stall, what was nearly over gets this much longer (L5): as long as a probe.
pub(super) const GRACE: Duration = Duration::from_secs(3);

impl<P, M: Memory<P>> Hub<P, M> {
    /// A connection was made from this address (a number that stands for it). It may say who it is, or is to be turned
    /// away before anything is read from it.
    ///
    /// # Errors
    /// Why, and when to come back.
    pub fn connect(&mut self, now: Instant, address: u64) -> Result<ConnId, Denied> {
        self.enter(now, |hub| {
            let admitted = hub.on_connect(address);
            match admitted {
                Ok(_) => hub.stats.handshakes = hub.stats.handshakes.saturating_add(1),
                Err(_) => hub.count_refused(),
            }
            admitted
        })
    }

    /// A connection was made for which the adapter has no place: why it is turned away, and when to come back.
    pub fn full(&mut self, now: Instant) -> Denied {
        self.enter(now, |hub| {
            hub.count_refused();
            match hub.may_come(false) {
                Err(denied) => denied,
                Ok(()) => hub.denied(CloseReason::Full),
            }
        })
    }

    /// A request came in from this address, and nobody knows from whom: whether it is worth finding out.
    ///
    /// # Errors
    /// Why not, and when to come back.
    pub fn knock(&mut self, now: Instant, address: u64) -> Result<(), Denied> {
        self.enter(now, |hub| {
            let knocked = hub.on_knock(address);
            if knocked.is_err() {
                hub.count_refused();
            }
            knocked
        })
    }

    /// As [`knock`](Self::knock), for a request that may begin a session: it counts as a handshake, like a connection.
    ///
    /// # Errors
    /// Why not, and when to come back.
    pub fn shake(&mut self, now: Instant, address: u64) -> Result<(), Denied> {
        self.enter(now, |hub| {
            let shaken = hub.may_come(true).and_then(|()| hub.address(address)).and_then(|key| {
                let shaken = hub.on_shake(key);
                hub.release_address(key);
                shaken
            });
            match shaken {
                Ok(()) => hub.stats.handshakes = hub.stats.handshakes.saturating_add(1),
                Err(_) => hub.count_refused(),
            }
            shaken
        })
    }

    /// This connection says who it is; `wall` is our wall clock, in microseconds since the epoch, against which the stamp of
    /// what it said is held. False: it has said so before, or is over.
    pub fn hello(&mut self, now: Instant, wall: i64, conn: ConnId, identity: Identity, stamp: Option<Stamp>) -> bool {
        self.enter(now, |hub| hub.on_hello(wall, conn.0, identity, stamp))
    }

    /// The answer to [`HubOutput::Verify`](super::HubOutput::Verify). False: that connection is over.
    pub fn verified(&mut self, now: Instant, wall: i64, conn: ConnId, verdict: Verdict) -> bool {
        self.enter(now, |hub| hub.on_verified(wall, conn.0, verdict))
    }

    /// Ends a connection for a reason of the adapter's: what came in was too long, or no frame at all.
    pub fn refuse(&mut self, now: Instant, conn: ConnId, why: CloseReason) {
        self.enter(now, |hub| hub.end(conn.0, why, Duration::ZERO));
    }

    /// A connection has ended.
    pub fn disconnected(&mut self, now: Instant, conn: ConnId, reason: Reason) {
        self.enter(now, |hub| hub.on_disconnected(conn.0, reason));
    }

    /// Makes a session for an identity that is known by other means, so that messages can be sent to it before it has
    /// connected. `http`: it takes messages by HTTP. The one it has, if it has one; without a connection, its time begins
    /// anew.
    ///
    /// # Errors
    /// There is no place, or the hub is going down.
    pub fn adopt(&mut self, now: Instant, identity: Identity, http: bool) -> Result<SessionId, Denied> {
        self.enter(now, |hub| {
            let key = hub.any_session_for(identity)?;
            hub.renew(key);
            hub.set_http(key, http);
            Ok(SessionId(key))
        })
    }

    /// A native peer greets by HTTP: its session, and why it does not go on if it was asked to.
    ///
    /// # Errors
    /// There is no place, it is going down, or an older self speaks.
    pub fn greet(
        &mut self,
        now: Instant,
        identity: Identity,
        greeting: &Greeting,
        known: Option<ResumeRefusal>,
    ) -> Result<(SessionId, Option<ResumeRefusal>), Denied> {
        self.enter(now, |hub| {
            let now = hub.now;
            let key = hub.session_for(identity, true)?;
            hub.renew(key);
            let full = Denied { why: CloseReason::Full, retry_after: Duration::ZERO };
            let peer = hub.peers.get_mut(key).ok_or(full)?;
            let rate = hub.config.get().per_identity.handshakes;
            peer.handshakes
                .take(now, rate, 1)
                .map_err(|after| Denied { why: CloseReason::Rate, retry_after: after })?;
            let reason = peer.session.greeted(now, greeting, known, true);
            hub.touched(key);
            match reason {
                Some(ResumeRefusal::Epoch) => Err(Denied { why: CloseReason::Fenced, retry_after: Duration::ZERO }),
                _ => Ok((SessionId(key), reason.filter(|_| greeting.resume))),
            }
        })
    }

    /// Does not want this session any more: its connection is closed with 1008, its messages are abandoned and reported.
    /// False: there is none. With the session its memory goes: if the identity is accepted again within twice the tolerance,
    /// what it said before may be taken for new until it has been heard again; not so for the last sixteen dismissed (U11).
    pub fn dismiss(&mut self, now: Instant, session: SessionId) -> bool {
        self.enter(now, |hub| hub.leave(session.0, CloseReason::Dismissed, Duration::ZERO, Duration::ZERO))
    }

    /// Goes down in order (U9): from now on nothing new is taken, from the peers or to be sent to one, everybody new is told
    /// to come back within `window`, and connections are closed in batches with 1012, each with a time of its own in that
    /// window. A session that owes its peer something stays, and its peer may come back for it (L13), until `limit`: by then
    /// every close has begun; a peer that does not answer its close frame is dropped `session.link.closing` later.
    pub fn drain(&mut self, now: Instant, window: Duration, limit: Duration) {
        self.enter(now, |hub| {
            if hub.drain.is_some() {
                return;
            }
            // The first half for closing, the second for what is still under way.
            let steps =
                limit.as_millis().checked_div(DRAIN_STEP.saturating_mul(2).as_millis()).unwrap_or_default().max(1);
            let span = usize::try_from(hub.peers.span()).unwrap_or(usize::MAX);
            let batch = span.div_ceil(usize::try_from(steps).unwrap_or(usize::MAX)).max(1);
            let mut step = Timer::disarmed();
            step.arm(now.after(Duration::from_micros(1)));
            hub.drain = Some(Drain {
                window,
                end: hub.now.after(limit),
                step,
                cursor: 0,
                batch: u32::try_from(batch).unwrap_or(u32::MAX),
                failed_before: hub.stats.failed,
                told: false,
            });
        });
    }

    fn on_connect(&mut self, address: u64) -> Result<ConnId, Denied> {
        self.may_come(self.conns.has_room() && self.health().pending < self.config.get().pending)?;
        let key = self.address(address)?;
        let admitted = self.admit(key);
        // Let in or not: what is known of an address without a connection is forgotten in time.
        self.release_address(key);
        admitted
    }

    fn admit(&mut self, key: Key) -> Result<ConnId, Denied> {
        let (now, config) = (self.now, *self.config.get());
        if self.addresses.get(key).is_some_and(|address| address.connections >= config.per_address_connections) {
            return Err(self.denied(CloseReason::Rate));
        }
        self.on_shake(key)?;
        let conn = Conn {
            state: ConnState::Pending,
            todo: None,
            writable: true,
            snapshot: false,
            strikes: 0,
            lost: 0,
            heard: 0,
            identity: Identity::from_bits(0),
            pending: super::Pending::new(self.log.next()),
            address: key,
        };
        // Nobody looks for one by a hash, but each is found in its chain when it ends: consecutive numbers lie apart.
        let conn = self.conns.insert(self.stats.handshakes, conn).map_err(|_| self.denied(CloseReason::Full))?;
        self.conns.set_deadline(conn, Some(now.after(config.hello)));
        self.addresses.set_deadline(key, None);
        if let Some(address) = self.addresses.get_mut(key) {
            address.connections = address.connections.saturating_add(1);
        }
        Ok(ConnId(conn))
    }

    fn on_shake(&mut self, key: Key) -> Result<(), Denied> {
        let (now, config) = (self.now, *self.config.get());
        if let Some(address) = self.addresses.get_mut(key) {
            let rate = config.per_address.handshakes;
            if address.handshakes.take(now, rate, 1).is_err() {
                // Many may dial from one address: each of them has a time of its own too.
                return Err(Denied {
                    why: CloseReason::Rate,
                    retry_after: address.tickets.take(now, rate, config.ticket_most),
                });
            }
        }
        self.handshakes.take(now, config.handshakes, 1).map_err(|_| self.denied(CloseReason::Rate))
    }

    fn on_knock(&mut self, address: u64) -> Result<(), Denied> {
        self.may_come(true)?;
        let (now, rate) = (self.now, self.config.get().per_address.messages);
        let key = self.address(address)?;
        let taken = self.addresses.get_mut(key).map_or(Ok(()), |address| address.messages.take(now, rate, 1));
        // Heard or not: what is known of an address without a connection is forgotten in time.
        self.release_address(key);
        taken.map_err(|after| Denied { why: CloseReason::Rate, retry_after: after })
    }

    /// Lets a connection in if there is a place; while the hub goes down, only as long as a session owes its peer something,
    /// because it may be that peer's (L13).
    fn may_come(&mut self, place: bool) -> Result<(), Denied> {
        if self.drain.is_some() && self.owing == 0 {
            return Err(self.going_down());
        }
        if place { Ok(()) } else { Err(self.denied(CloseReason::Full)) }
    }

    /// The refusal of a peer that is owed nothing while the hub goes down, with a time within the announced window.
    pub(super) fn going_down(&mut self) -> Denied {
        let (now, rate) = (self.now, self.config.get().handshakes);
        let window = self.drain.as_ref().map_or(Duration::ZERO, |drain| drain.window);
        Denied {
            why: CloseReason::Draining,
            retry_after: self.tickets.take(now, rate, window.max(Duration::from_secs(1))),
        }
    }

    /// Whether a session of this identity owes its peer something.
    fn awaits(&self, identity: Identity) -> bool {
        let owes = |peer: &super::PeerOf<P, M>| peer.identity == identity && peer.session.awaits_peer();
        self.peers.find(identity.hash(), owes).is_some()
    }

    /// The last session is gone: no other peer is waited for.
    pub(super) fn drain_sooner(&mut self) {
        if self.peers.len() == 0
            && let Some(drain) = self.drain.as_mut().filter(|drain| drain.step.is_armed())
        {
            drain.step.arm(self.now.after(Duration::from_micros(1)));
        }
    }

    /// A refusal with a time to come back that is nobody else's.
    pub(super) fn denied(&mut self, why: CloseReason) -> Denied {
        let config = self.config.get();
        Denied { why, retry_after: self.tickets.take(self.now, config.handshakes, config.ticket_most) }
    }

    /// What is known of this address; in the last place, of the first that has become idle.
    fn address(&mut self, address: u64) -> Result<Key, Denied> {
        // Whoever has many addresses may choose them; where they lie in the table he must not.
        let hash = SplitMix64::new(self.seed ^ address).next_u64();
        if let Some(key) = self.addresses.find(hash, |known| known.address == address) {
            return Ok(key);
        }
        self.addresses.insert(hash, Address::new(address)).map_err(|_| self.denied(CloseReason::Full))
    }

    /// Forgets an address of which there is nothing left to know, or looks again when that may be so.
    pub(super) fn release_address(&mut self, key: Key) {
        let Some(address) = self.addresses.get(key) else { return };
        if address.connections > 0 {
            return;
        }
        let idle = address.idle_from();
        if idle <= self.now {
            self.addresses.remove(key);
        } else {
            self.addresses.set_deadline(key, Some(idle));
        }
    }

    fn on_hello(&mut self, wall: i64, key: Key, identity: Identity, stamp: Option<Stamp>) -> bool {
        self.began(wall);
        let tolerance = i64::try_from(self.config.get().tolerance.as_micros()).unwrap_or(i64::MAX);
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.state == ConnState::Pending) else { return false };
        let apart = stamp.map_or(0, |stamp| wall.saturating_sub(stamp.issued).saturating_abs());
        if apart > tolerance {
            self.stats.replays = self.stats.replays.saturating_add(1);
            self.end(key, CloseReason::WrongClock, Duration::ZERO);
            return true;
        }
        conn.identity = identity;
        // Before anybody is asked who it is.
        if self.drain.is_some() && !self.awaits(identity) {
            let Denied { why, retry_after: after } = self.going_down();
            self.end(key, why, after);
            return true;
        }
        let Some(conn) = self.conns.get_mut(key) else { return false };
        conn.state = ConnState::Verifying { stamp };
        self.ask(key, Todo::Verify);
        true
    }

    fn on_verified(&mut self, wall: i64, key: Key, verdict: Verdict) -> bool {
        let Some(conn) = self.conns.get(key) else { return false };
        let ConnState::Verifying { stamp } = conn.state else { return false };
        match verdict {
            Verdict::Refuse(why) => self.end(key, why, Duration::ZERO),
            Verdict::Later(after) => {
                let after = after.saturating_add(self.denied(CloseReason::Later).retry_after);
                self.end(key, CloseReason::Later, after);
            }
            Verdict::Accept { http } => {
                if let Err(Denied { why, retry_after: after }) =
                    self.attach(wall, key, conn.identity, stamp, http, None)
                {
                    self.end(key, why, after);
                }
            }
            Verdict::Greeted { greeting, known } => {
                let greeted = Some((&greeting, known));
                if let Err(Denied { why, retry_after: after }) =
                    self.attach(wall, key, conn.identity, stamp, false, greeted)
                {
                    self.end(key, why, after);
                }
            }
        }
        true
    }

    fn attach(
        &mut self,
        wall: i64,
        conn: Key,
        identity: Identity,
        stamp: Option<Stamp>,
        http: bool,
        greeted: Option<(&Greeting, Option<ResumeRefusal>)>,
    ) -> Result<(), Denied> {
        let config = *self.config.get();
        let now = self.now;
        let made = self.made;
        let key = self.session_for(identity, greeted.is_some())?;
        let mut resumed = self.made == made;
        let address = self.conns.get(conn).and_then(|conn| self.addresses.get(conn.address)).map_or(0, |a| a.address);
        self.fresh(wall, key, stamp).map_err(|why| self.denied_stamp(why))?;
        let Some(peer) = self.peers.get_mut(key) else {
            return Err(Denied { why: CloseReason::Full, retry_after: Duration::ZERO });
        };
        peer.handshakes
            .take(now, config.per_identity.handshakes, 1)
            .map_err(|after| Denied { why: CloseReason::Rate, retry_after: after })?;
        let here = peer.address == address;
        if peer.conn.is_some() && config.duplicate == Duplicate::Replace {
            if now < peer.war_until && (!here || peer.war_here) {
                return Err(Denied { why: CloseReason::War, retry_after: peer.war_until.since(now) });
            }
            // One from elsewhere counts at once; one from here, if the connection that it replaces turns out to live.
            let takeovers = peer.takeovers(now, config.war_within).saturating_add(1);
            if !here {
                peer.takeovers = takeovers;
            }
            if takeovers > config.war_most {
                peer.war_until = now.after(config.war_pause);
                peer.war_here = here;
                peer.takeovers = 0;
                peer.war_told = false;
                self.stats.wars = self.stats.wars.saturating_add(1);
                self.touched(key);
                return Err(Denied { why: CloseReason::War, retry_after: config.war_pause });
            }
        }
        if let Some((greeting, known)) = greeted {
            let reason = peer.session.greeted(now, greeting, known, false);
            // An older self has nothing to ask for, so it does not matter whether it asks.
            if reason == Some(ResumeRefusal::Epoch) {
                return Err(Denied { why: CloseReason::Fenced, retry_after: Duration::ZERO });
            }
            resumed = greeting.resume && reason.is_none();
            peer.reason = reason.filter(|_| greeting.resume);
        }
        match peer.session.accept(now) {
            Accepted::Open(link) => {
                peer.address = address;
                let old = peer.conn;
                self.set_http(key, http);
                if let Some((_, old)) = old {
                    self.untie(key);
                    self.stats.replaced = self.stats.replaced.saturating_add(1);
                    self.close(old, CloseReason::Replaced, Duration::ZERO, None);
                    if let Some(ConnState::Closing { replaced, .. }) =
                        self.conns.get_mut(old).filter(|_| here).map(|old| &mut old.state)
                    {
                        *replaced = Some(key);
                    }
                }
                self.tie(key, conn, link, resumed);
            }
            Accepted::Probing(link) => {
                peer.knocking = Some((link, conn));
                if let Some(conn) = self.conns.get_mut(conn) {
                    conn.state = ConnState::Knocking { peer: key };
                }
                // The session decides within its own time.
                self.conns.set_deadline(conn, None);
            }
            Accepted::Refused => {
                let why = if peer.leaving.is_some() { CloseReason::Later } else { CloseReason::Duplicate };
                // It was asked, so it has to be polled (rule 3).
                self.touched(key);
                return Err(Denied { why, retry_after: Duration::ZERO });
            }
        }
        self.touched(key);
        Ok(())
    }

    /// The session of this identity, or a new one; of several, any: for what does not come by a connection.
    pub(super) fn any_session_for(&mut self, identity: Identity) -> Result<Key, Denied> {
        self.find(identity).map_or_else(|| self.session_for(identity, false), |session| Ok(session.0))
    }

    /// Without a connection, its time begins anew.
    pub(super) fn renew(&mut self, key: Key) {
        let until = self.now.after(self.config.get().ttl);
        if let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.conn.is_none()) {
            peer.expires.arm(until);
        }
    }

    /// The session of this identity, or a new one. Where several are allowed, one that nobody is connected to.
    pub(super) fn session_for(&mut self, identity: Identity, native: bool) -> Result<Key, Denied> {
        let config = *self.config.get();
        let mut known = 0_u8;
        let draining = self.drain.is_some();
        let free = self.peers.find(identity.hash(), |peer| {
            let open = if draining { peer.session.awaits_peer() } else { peer.leaving.is_none() };
            let same = peer.identity == identity && open;
            known = known.saturating_add(u8::from(same));
            same && (peer.conn.is_none() || native || !matches!(config.duplicate, Duplicate::Allow(_)))
        });
        if let Some(key) = free {
            return Ok(key);
        }
        if let Duplicate::Allow(most) = config.duplicate
            && known >= most
        {
            return Err(Denied { why: CloseReason::Duplicate, retry_after: Duration::ZERO });
        }
        if draining {
            return Err(self.going_down());
        }
        self.may_come(self.peers.has_room())?;
        let (outbox, inbox, nonces) = M::session();
        // Two sessions never give two messages the same name.
        self.made = self.made.saturating_add(1);
        let origin = Origin::new(self.origin.identity().wrapping_add(self.made), self.origin.epoch());
        let settings = self.config.session(self.now.since(self.started), native);
        let settings = settings.ok_or(Denied { why: CloseReason::Violation, retry_after: Duration::ZERO })?;
        let mut session = Session::new(settings, self.seed, origin, self.now, outbox, inbox);
        session.start(self.now);
        let mut expires = Timer::disarmed();
        expires.arm(self.now.after(config.ttl));
        let mut peer = Peer {
            identity,
            dirty: false,
            conn: None,
            reason: None,
            knocking: None,
            counted: super::Counted::default(),
            held_bytes: 0,
            turns: Timer::disarmed(),
            give_back: false,
            expires,
            leaving: None,
            since: self.forgotten,
            war_told: true,
            lost: 0,
            member: super::topics::NOBODY,
            takeovers: 0,
            takeovers_since: Instant::ZERO,
            war_until: Instant::ZERO,
            war_here: false,
            address: 0,
            handshakes: super::Gcra::new(),
            messages: super::Gcra::new(),
            bytes: super::Gcra::new(),
            replay: Replay::new(nonces),
            session,
        };
        for (_, behind) in self.dismissed.iter().filter(|(whose, _)| *whose == identity) {
            peer.replay.is_behind(*behind);
        }
        let key = self.peers.insert(identity.hash(), peer).map_err(|_| self.denied(CloseReason::Full))?;
        self.touched(key);
        Ok(key)
    }

    pub(super) fn set_http(&mut self, key: Key, yes: bool) {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(key) {
            peer.session.set_http(now, yes);
            self.touched(key);
        }
    }

    /// From now on this connection carries this session.
    pub(super) fn tie(&mut self, key: Key, conn: Key, link: LinkId, resumed: bool) {
        let span = self.activity.at(self.now, self.config.get().idle);
        let heard = self.activity.enter(span);
        if let Some(peer) = self.peers.get_mut(key) {
            peer.conn = Some((link, conn));
            peer.expires.disarm();
            peer.turns.disarm();
        }
        let (now, next) = (self.now, self.log.next());
        if let Some(conn) = self.conns.get_mut(conn) {
            conn.state = ConnState::Attached { peer: key, link };
            conn.heard = heard;
            conn.pending = super::Pending::new(next);
            conn.snapshot = self.snapshot.is_some();
            if !conn.writable
                && let Some(peer) = self.peers.get_mut(key)
            {
                // Its session hears only now that there is such a connection.
                peer.session.writable(now, link, false);
            }
        }
        self.member_connected(key, true);
        self.touched(key);
        self.conns.set_deadline(conn, None);
        let reason = self.peers.get(key).and_then(|peer| peer.reason);
        self.ask(conn, Todo::Welcome { resumed, reason });
        self.live = self.live.saturating_add(1);
        self.stats.admitted = self.stats.admitted.saturating_add(1);
        self.stats.resumed = self.stats.resumed.saturating_add(u64::from(resumed));
    }

    /// From now on this session has no connection. The one it had is still to be ended.
    pub(super) fn untie(&mut self, key: Key) -> Option<(LinkId, Key)> {
        let until = self.now.after(self.config.get().ttl);
        let span = self.activity.at(self.now, self.config.get().idle);
        let peer = self.peers.get_mut(key)?;
        let (link, conn) = peer.conn.take()?;
        peer.expires.arm(until);
        if let Some(conn) = self.conns.get_mut(conn) {
            self.activity.leave(span, conn.heard);
            // The next connection begins with what is published from then on.
            let waited = conn.pending.clear();
            self.stats.lost = self.stats.lost.saturating_add(u64::from(waited));
            peer.lost = peer.lost.saturating_add(core::mem::take(&mut conn.lost)).saturating_add(waited);
        }
        self.member_connected(key, false);
        self.live = self.live.saturating_sub(1);
        self.watch_turns(key);
        Some((link, conn))
    }

    /// Ends a connection, whatever it is, and tells its session.
    pub(super) fn end(&mut self, key: Key, why: CloseReason, after: Duration) {
        let now = self.now;
        let Some(state) = self.conns.get(key).map(|conn| conn.state.clone()) else { return };
        match state {
            ConnState::Attached { peer, link } => {
                self.untie(peer);
                // From the peer 1009 is about a message of ours; from us, about one of its own.
                let reason = if why == CloseReason::TooLarge { Reason::Violation } else { Reason::Closed(why.code()) };
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.session.link_down(now, link, reason, RetryHint::NONE);
                }
                self.touched(peer);
            }
            ConnState::Knocking { peer } => self.unknock(peer, key),
            ConnState::Pending | ConnState::Verifying { .. } => self.count_refused(),
            ConnState::Closing { .. } => return,
        }
        self.close(key, why, after, None);
    }

    /// Whoever waited for the verdict about another connection is gone.
    fn unknock(&mut self, peer_key: Key, conn: Key) {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(peer_key)
            && let Some((link, _)) = peer.knocking.take_if(|(_, knocking)| *knocking == conn)
        {
            peer.session.link_down(now, link, Reason::Closed(1006), RetryHint::NONE);
        }
        self.touched(peer_key);
    }

    /// Begins the close handshake of a connection that carries nothing any more; `of`: the session that waits for its end.
    pub(super) fn close(&mut self, key: Key, why: CloseReason, after: Duration, of: Option<(Key, LinkId)>) {
        let until = self.now.after(self.config.get().session.link.closing);
        let Some(conn) = self.conns.get_mut(key) else { return };
        if matches!(conn.state, ConnState::Closing { .. }) {
            return;
        }
        conn.state = ConnState::Closing { of, replaced: None };
        self.closing = self.closing.saturating_add(1);
        self.conns.set_deadline(key, Some(until));
        self.ask(key, Todo::Close { why, after });
    }

    /// Drops a connection without a word.
    pub(super) fn drop_conn(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !matches!(conn.state, ConnState::Closing { .. }) {
            conn.state = ConnState::Closing { of: None, replaced: None };
            self.closing = self.closing.saturating_add(1);
        }
        self.conns.set_deadline(key, None);
        self.ask(key, Todo::Drop);
    }

    /// What the adapter is to be told about a connection; the latest counts.
    fn ask(&mut self, key: Key, todo: Todo) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.todo = Some(todo);
            self.conns.make_ready(key);
        }
    }

    /// Takes a connection out of the books.
    pub(super) fn forget(&mut self, key: Key) {
        let Some(conn) = self.conns.remove(key) else { return };
        if matches!(conn.state, ConnState::Closing { .. }) {
            self.closing = self.closing.saturating_sub(1);
        }
        if let Some(address) = self.addresses.get_mut(conn.address) {
            address.connections = address.connections.saturating_sub(1);
        }
        self.release_address(conn.address);
    }

    fn on_disconnected(&mut self, key: Key, reason: Reason) {
        let now = self.now;
        let Some(state) = self.conns.get(key).map(|conn| conn.state.clone()) else { return };
        match state {
            // A peer that answers a close frame lives, and was not lost to the one that came in its place.
            ConnState::Closing { of: None, replaced: Some(peer) } if matches!(reason, Reason::Closed(code) if code != 1006) =>
            {
                let within = self.config.get().war_within;
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.takeovers = peer.takeovers(now, within).saturating_add(1);
                }
            }
            ConnState::Pending | ConnState::Verifying { .. } | ConnState::Closing { of: None, .. } => {}
            ConnState::Knocking { peer } => self.unknock(peer, key),
            ConnState::Attached { peer, link } | ConnState::Closing { of: Some((peer, link)), .. } => {
                if matches!(state, ConnState::Attached { .. }) {
                    self.untie(peer);
                }
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.session.link_down(now, link, reason, RetryHint::NONE);
                }
                self.touched(peer);
            }
        }
        self.forget(key);
    }

    /// A connection's time is up: it has not said who it is, or does not end its close handshake.
    pub(super) fn conn_due(&mut self, key: Key) {
        let Some(conn) = self.conns.get(key) else { return };
        match conn.state {
            // The process stood still: its word may lie unread.
            ConnState::Pending | ConnState::Verifying { .. } if self.stalled => {
                self.conns.set_deadline(key, Some(self.now.after(GRACE)));
            }
            ConnState::Pending => self.end(key, CloseReason::Silent, Duration::ZERO),
            // Nobody could say in time who it is.
            ConnState::Verifying { .. } => {
                let Denied { retry_after: after, .. } = self.denied(CloseReason::Later);
                self.end(key, CloseReason::Later, after);
            }
            ConnState::Closing { .. } => self.drop_conn(key),
            ConnState::Knocking { .. } | ConnState::Attached { .. } => {}
        }
    }

    /// Ends a session: what is under way has `drain` to finish.
    fn leave(&mut self, key: Key, why: CloseReason, after: Duration, drain: Duration) -> bool {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(key) else { return false };
        if peer.leaving.is_some() {
            return false;
        }
        peer.leaving = Some((why, after));
        peer.session.close(now, drain);
        self.touched(key);
        true
    }

    /// The next batch of a drain.
    pub(super) fn drain_step(&mut self) {
        let Some(drain) = self.drain.clone() else { return };
        let over = self.now >= drain.end || self.peers.len() == 0;
        // Called late, as by a process that stood still: at the end there is no batch but the rest.
        let batch = if over { u32::MAX } else { drain.batch };
        let last = drain.cursor.saturating_add(batch).min(self.peers.span());
        for n in drain.cursor..last {
            let Some(key) = self.peers.key(n) else { continue };
            let after = self.tickets.take(self.now, self.rate_of(drain.window), drain.window.max(DRAIN_STEP));
            self.leave(key, CloseReason::Draining, after, drain.end.since(self.now));
        }
        if over {
            let late = self.now >= drain.end;
            // Whoever has not said who it is by now; the sessions end by themselves.
            for n in 0..self.conns.span() {
                let Some(key) = self.conns.key(n) else { continue };
                match self.conns.get(key).map(|conn| conn.state.clone()) {
                    Some(ConnState::Pending | ConnState::Verifying { .. }) if late => self.drop_conn(key),
                    Some(ConnState::Pending | ConnState::Verifying { .. }) => {
                        let Denied { why, retry_after: after } = self.going_down();
                        self.end(key, why, after);
                    }
                    Some(ConnState::Knocking { peer }) => {
                        self.unknock(peer, key);
                        self.drop_conn(key);
                    }
                    Some(ConnState::Attached { .. } | ConnState::Closing { .. }) | None => {}
                }
            }
        }
        if let Some(drain) = &mut self.drain {
            drain.cursor = last;
            if over {
                drain.step.disarm();
            } else {
                let next = self.now.after(DRAIN_STEP);
                drain.step.arm(if last >= self.peers.span() { drain.end.max(next) } else { next });
            }
        }
    }

    /// So many a second that all who are here come back within the window.
    fn rate_of(&self, window: Duration) -> super::Rate {
        let seconds = usize::try_from(window.as_secs().max(1)).unwrap_or(usize::MAX);
        let each = self.peers.len().checked_div(seconds).unwrap_or_default().saturating_add(1);
        super::Rate { per_second: u32::try_from(each).unwrap_or(u32::MAX), burst: 1 }
    }

    /// Whether a session that is leaving has left.
    pub(super) fn has_left(peer: &super::PeerOf<P, M>) -> bool {
        peer.leaving.is_some() && peer.conn.is_none() && peer.session.state() == State::Closed && !peer.dirty
    }

    pub(super) fn count_refused(&mut self) {
        self.stats.refused = self.stats.refused.saturating_add(1);
    }
}
