//! What goes through: frames and requests in, messages and broadcasts out.
//!
//! ```text
//!  received ─▶ limits (address, identity) ─▶ time and nonce ─▶ Session ─▶ Arrival
//!  request  ─▶         the same, without a connection        ─▶ Session ─▶ Arrival
//!  send     ─▶ the session's outbox: it survives the connection, and full is an answer (U3)
//!  publish  ─▶ the log, and a mark at each connection it is for: nobody waits for anybody (U5, U6)
//! ```
//!
//! Invariants: a message is refused before it costs anything; a broadcast that a connection loses is counted and told.
//! Rules: U3, U5, U6, U8, U11, U12.

use super::peer::ConnState;
use super::replay::{Replayed, Stamp};
use super::table::Key;
use super::{CloseReason, ConnId, Denied, Heard, Hub, Identity, Memory, Publish, Sent, SessionId, Slow};
use crate::ids::{ContentKey, DeliveryId, MessageId, PostId, RequestId, Seq};
use crate::inbox::{Answer, Arrival, Verdict};
use crate::marks::Report;
use crate::outbox::Policy;
use crate::reason::{HttpClass, HttpOutcome};
use crate::session::{Head, Refusal};
use crate::time::Instant;
use core::time::Duration;

/// What was said at most this before the hub began, or before a session was dismissed, is accepted, in microseconds: a
/// request may be signed that long before it is connected.
const LAG: i64 = 5_000_000;

/// So many messages refused by a limit in a row, and the connection is closed (U8).
const STRIKES: u8 = 16;

/// Of a native peer's: a whole window may be under way before it hears that it is too much.
const NATIVE_STRIKES: u8 = 64 + STRIKES;

impl<P, M: Memory<P>> Hub<P, M> {
    /// A frame came in, of so many bytes; `stamp` if its kind is signed, checked against `wall`, our wall clock in
    /// microseconds since the epoch.
    pub fn received(
        &mut self,
        now: Instant,
        wall: i64,
        conn: ConnId,
        head: Head,
        bytes: u32,
        stamp: Option<Stamp>,
    ) -> Heard {
        self.enter(now, |hub| hub.on_received(wall, conn.0, head, bytes, stamp))
    }

    /// A connection takes frames, or does not at the moment.
    pub fn writable(&mut self, now: Instant, conn: ConnId, yes: bool) {
        self.enter(now, |hub| {
            let now = hub.now;
            let Some(conn) = hub.conns.get_mut(conn.0) else { return };
            conn.writable = yes;
            if let ConnState::Attached { peer: key, link } = conn.state
                && let Some(peer) = hub.peers.get_mut(key)
            {
                peer.session.writable(now, link, yes);
                hub.touched(key);
            }
        });
    }

    /// A message came by a request, of so many bytes, from whom the adapter has found out. Its session is made if there is
    /// none.
    ///
    /// # Errors
    /// It was not looked at: why, and when to come back.
    #[expect(clippy::too_many_arguments, reason = "a request says all of this at once")]
    pub fn request(
        &mut self,
        now: Instant,
        wall: i64,
        identity: Identity,
        request: RequestId,
        id: Option<MessageId>,
        key: Option<ContentKey>,
        bytes: u32,
        stamp: Option<Stamp>,
    ) -> Result<(SessionId, Arrival), Denied> {
        self.enter(now, |hub| {
            let taken = hub.on_request(wall, identity, request, id, key, bytes, stamp);
            if taken.is_err() {
                hub.count_refused();
            }
            taken
        })
    }

    /// A native peer polls (H3), from whom the adapter has found out; the answer comes as [`HubOutput::Carry`] and
    /// [`HubOutput::Respond`](super::HubOutput::Respond).
    ///
    /// # Errors
    /// It was not looked at: why, and when to come back.
    ///
    /// [`HubOutput::Carry`]: super::HubOutput::Carry
    pub fn polled(
        &mut self,
        now: Instant,
        session: SessionId,
        request: RequestId,
        wait: Duration,
        report: &Report,
        una: Seq,
    ) -> Result<(), Denied> {
        self.enter(now, |hub| {
            let (now, rate) = (hub.now, hub.config.get().per_identity.messages);
            let gone = Denied { why: CloseReason::Expired, retry_after: Duration::ZERO };
            let peer = hub.peers.get_mut(session.0).ok_or(gone)?;
            peer.messages.take(now, rate, 1).map_err(|after| Denied { why: CloseReason::Rate, retry_after: after })?;
            let taken = peer.session.polled(now, request, wait, report, una);
            hub.renew(session.0);
            hub.watch_turns(session.0);
            hub.touched(session.0);
            if taken { Ok(()) } else { Err(Denied { why: CloseReason::Rate, retry_after: Duration::from_secs(1) }) }
        })
    }

    /// A native peer said with a request that all its messages below this one have ended.
    pub fn advance(&mut self, now: Instant, session: SessionId, una: Seq) {
        self.enter(now, |hub| {
            let now = hub.now;
            if let Some(peer) = hub.peers.get_mut(session.0) {
                peer.session.advance(now, una);
                hub.touched(session.0);
            }
        });
    }

    /// The peer gave up a request before it was answered.
    pub fn request_gone(&mut self, now: Instant, session: SessionId, request: RequestId) {
        self.enter(now, |hub| {
            let now = hub.now;
            if let Some(peer) = hub.peers.get_mut(session.0) {
                peer.session.request_gone(now, request);
                hub.touched(session.0);
            }
        });
    }

    /// The application has decided about a message; false: it was not open.
    pub fn complete(&mut self, now: Instant, session: SessionId, delivery: DeliveryId, verdict: Verdict) -> bool {
        self.enter(now, |hub| {
            let now = hub.now;
            let draining = hub.drain.is_some();
            let Some(peer) = hub.peers.get_mut(session.0) else { return false };
            if draining {
                peer.session.take_nothing_new();
            }
            let open = peer.session.complete(now, delivery, verdict);
            hub.touched(session.0);
            open
        })
    }

    /// A request of ours ended.
    pub fn posted(&mut self, now: Instant, session: SessionId, post: PostId, outcome: HttpOutcome) {
        self.enter(now, |hub| {
            let now = hub.now;
            if let Some(peer) = hub.peers.get_mut(session.0) {
                peer.session.posted(now, post, outcome);
                hub.touched(session.0);
                // Whoever takes what is posted is there.
                if outcome.class() == HttpClass::Delivered {
                    hub.renew(session.0);
                }
            }
        });
    }

    /// Sends a message to one, connected or not: it waits in the session for as long as that lives (U3). While the hub goes
    /// down nothing is taken (L13).
    ///
    /// # Errors
    /// Why not, and the message.
    pub fn send(
        &mut self,
        now: Instant,
        session: SessionId,
        payload: P,
        size: u32,
        policy: Policy,
    ) -> Result<Seq, (Refusal, P)> {
        self.enter(now, |hub| {
            let now = hub.now;
            let open = hub.drain.is_none();
            let Some(peer) = hub.peers.get_mut(session.0).filter(|_| open) else {
                return Err((Refusal::Closed, payload));
            };
            let sent = peer.session.send(now, payload, size, policy);
            if sent.is_ok() {
                hub.stats.accepted = hub.stats.accepted.saturating_add(1);
            }
            hub.touched(session.0);
            sent
        })
    }

    /// Sends to every connection for which `to` says so. It is encoded once and written to each as fast as that one reads;
    /// whoever is too far behind loses by the policy of the lane, and is told of by an event.
    pub fn publish(
        &mut self,
        now: Instant,
        payload: P,
        size: u32,
        how: Publish,
        to: impl FnMut(SessionId, Identity) -> bool,
    ) -> Sent
    where
        P: Clone,
    {
        self.enter(now, |hub| hub.on_publish(payload, size, how, to))
    }

    fn on_received(&mut self, wall: i64, key: Key, head: Head, bytes: u32, stamp: Option<Stamp>) -> Heard {
        let (now, config) = (self.now, *self.config.get());
        let span = self.activity.at(now, config.idle);
        let Some(conn) = self.conns.get_mut(key) else { return Heard::Stale };
        let ConnState::Attached { peer: peer_key, link } = conn.state else { return Heard::Stale };
        let address = conn.address;
        // Moves it from the span it was last heard in to this one.
        let heard = conn.heard;
        if heard != span {
            conn.heard = span;
            self.activity.leave(span, heard);
            self.activity.enter(span);
        }
        let Some(peer) = self.peers.get_mut(peer_key) else { return Heard::Stale };
        // What is not whole yet is life, and no message: its bytes are charged when it is.
        if head == Head::Part {
            let _ = peer.session.received(now, link, head);
            self.touched(peer_key);
            return Heard::Noted;
        }
        let mut allowed = peer.messages.take(now, config.per_identity.messages, 1).is_ok()
            && peer.bytes.take(now, config.per_identity.bytes, bytes).is_ok();
        if allowed && let Some(address) = self.addresses.get_mut(address) {
            allowed = address.messages.take(now, config.per_address.messages, 1).is_ok()
                && address.bytes.take(now, config.per_address.bytes, bytes).is_ok();
        }
        if !allowed {
            self.stats.limited = self.stats.limited.saturating_add(1);
            conn.strikes = conn.strikes.saturating_add(1);
            if conn.strikes >= if peer.session.is_native() { NATIVE_STRIKES } else { STRIKES } {
                self.end(key, CloseReason::Flood, Duration::ZERO);
            }
            return Heard::Limited;
        }
        conn.strikes = 0;
        if !self.has_room(peer_key, head, bytes) {
            if let Some(peer) = self.peers.get_mut(peer_key) {
                // It is life all the same.
                let _ = peer.session.received(now, link, Head::Other);
            }
            self.touched(peer_key);
            return Heard::NoRoom;
        }
        let fresh = self.fresh(wall, peer_key, stamp);
        let head = if fresh.is_ok() { head } else { Head::Malformed };
        let draining = self.drain.is_some();
        let Some(peer) = self.peers.get_mut(peer_key) else { return Heard::Stale };
        if draining {
            peer.session.take_nothing_new();
        }
        let arrival = peer.session.received(now, link, head);
        self.touched(peer_key);
        if let Err(why) = fresh {
            return Heard::Replayed(why);
        }
        match arrival {
            Some(arrival) => {
                self.count(arrival, false);
                self.hold(peer_key, arrival, bytes);
                Heard::Arrival(SessionId(peer_key), arrival)
            }
            None => Heard::Noted,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a request says all of this at once")]
    fn on_request(
        &mut self,
        wall: i64,
        identity: Identity,
        request: RequestId,
        id: Option<MessageId>,
        content: Option<ContentKey>,
        bytes: u32,
        stamp: Option<Stamp>,
    ) -> Result<(SessionId, Arrival), Denied> {
        let (now, config) = (self.now, *self.config.get());
        // With several, what came by one is known by another only to the application.
        let key = self.any_session_for(identity)?;
        let Some(peer) = self.peers.get_mut(key) else {
            return Err(Denied { why: CloseReason::Full, retry_after: Duration::ZERO });
        };
        let limited = peer
            .messages
            .take(now, config.per_identity.messages, 1)
            .and_then(|()| peer.bytes.take(now, config.per_identity.bytes, bytes));
        if let Err(after) = limited {
            self.stats.limited = self.stats.limited.saturating_add(1);
            return Err(Denied { why: CloseReason::Rate, retry_after: after });
        }
        let seq = self.peers.get(key).and_then(|peer| peer.session.native_seq(id));
        if !self.has_room_for(key, seq, id, content, bytes) {
            // It is life all the same, but for what was recorded long ago: nothing is remembered of it.
            if stamp.is_none_or(|stamp| u128::from(wall.abs_diff(stamp.issued)) <= config.tolerance.as_micros()) {
                self.renew(key);
                self.watch_turns(key);
            }
            self.touched(key);
            return Err(Denied { why: CloseReason::Full, retry_after: Duration::from_secs(1) });
        }
        self.fresh(wall, key, stamp).map_err(|why| self.denied_stamp(why))?;
        self.renew(key);
        let draining = self.drain.is_some();
        let Some(peer) = self.peers.get_mut(key) else {
            return Err(Denied { why: CloseReason::Full, retry_after: Duration::ZERO });
        };
        if draining {
            peer.session.take_nothing_new();
        }
        let arrival = peer.session.request(now, request, id, content);
        let owed = peer.session.awaits_peer();
        self.touched(key);
        if draining && !owed && matches!(arrival, Arrival::Answer(Answer::Busy { .. })) {
            return Err(self.going_down());
        }
        self.count(arrival, true);
        self.hold(key, arrival, bytes);
        self.watch_turns(key);
        Ok((SessionId(key), arrival))
    }

    /// Whether what says this of itself counts, and from now on no more: neither in this session nor in another one of its
    /// identity, of which each has its own memory.
    pub(super) fn fresh(&mut self, wall: i64, key: Key, stamp: Option<Stamp>) -> Result<(), Replayed> {
        let Some(stamp) = stamp else { return Ok(()) };
        let began = self.began(wall);
        let Some(own) = self.peers.get_mut(key) else { return Ok(()) };
        own.since = own.since.min(wall);
        own.replay.begins(own.since.max(began).saturating_sub(LAG));
        let Some(own) = self.peers.get(key) else { return Ok(()) };
        let identity = own.identity;
        let mut behind = i64::MAX;
        let elsewhere = |peer: &super::PeerOf<P, M>| {
            if peer.identity != identity {
                return false;
            }
            behind = behind.min(peer.replay.behind());
            !core::ptr::eq(peer, own) && peer.replay.knows(stamp)
        };
        let known = self.peers.find(identity.hash(), elsewhere).is_some();
        let tolerance = self.config.get().tolerance;
        let fresh = match self.peers.get_mut(key) {
            Some(own) if !known => {
                own.replay.is_behind(behind);
                own.replay.check(wall, tolerance, stamp)
            }
            Some(_) | None => Err(Replayed::Seen),
        };
        self.stats.replays = self.stats.replays.saturating_add(u64::from(fresh.is_err()));
        fresh
    }

    /// The refusal of what is not fresh; where that passes by itself, with a time to come back (U11).
    pub(super) fn denied_stamp(&mut self, why: Replayed) -> Denied {
        let (why, after) = match why {
            Replayed::Old | Replayed::Ahead => (CloseReason::WrongClock, None),
            Replayed::Seen => (CloseReason::Replayed, None),
            Replayed::Unjudged { retry_after } => (CloseReason::Unjudged, Some(retry_after)),
        };
        let ticket = |after: Duration| after.saturating_add(self.denied(why).retry_after);
        Denied { why, retry_after: after.map_or(Duration::ZERO, ticket) }
    }

    /// The earliest our wall clock has been: when this hub began, unless the clock was put back since.
    pub(super) fn began(&mut self, wall: i64) -> i64 {
        self.wall = wall;
        self.began = self.began.min(wall);
        self.began
    }

    const fn count(&mut self, arrival: Arrival, http: bool) {
        let stats = &mut self.stats;
        match arrival {
            Arrival::Deliver { .. } | Arrival::Ahead { .. } => {
                stats.delivered = stats.delivered.saturating_add(1);
                stats.delivered_http = stats.delivered_http.saturating_add(http as u64);
            }
            Arrival::Duplicate | Arrival::Answer(Answer::Done | Answer::Rejected) => {
                stats.duplicates = stats.duplicates.saturating_add(1);
            }
            Arrival::Full
            | Arrival::Reused
            | Arrival::Answer(
                Answer::Again { .. } | Answer::Busy { .. } | Answer::Reused | Answer::Unknown | Answer::Polled,
            ) => {}
        }
    }

    fn on_publish(
        &mut self,
        payload: P,
        size: u32,
        how: Publish,
        mut to: impl FnMut(SessionId, Identity) -> bool,
    ) -> Sent
    where
        P: Clone,
    {
        let bulk = self.config.get().bulk;
        let kept = how.snapshot.then(|| payload.clone());
        let published = self.log.publish(self.now, payload, size, how.key);
        let (number, first) = (published.number, self.log.first());
        if let Some(payload) = kept {
            self.snapshot = Some(payload);
        }
        self.stats.broadcasts = self.stats.broadcasts.saturating_add(1);
        let mut sent = Sent::default();
        for n in 0..self.conns.span() {
            let Some(key) = self.conns.key(n) else { continue };
            let Some(conn) = self.conns.get_mut(key) else { continue };
            let ConnState::Attached { peer, .. } = conn.state else { continue };
            if !to(SessionId(peer), conn.identity) {
                continue;
            }
            conn.snapshot &= !how.snapshot;
            let mut lost = conn.pending.lose(first);
            let mut wanted = true;
            if let Some(old) = published.superseded.filter(|_| bulk.slow == Slow::Conflate)
                && conn.pending.remove(old)
            {
                self.stats.conflated = self.stats.conflated.saturating_add(1);
            }
            if conn.pending.len() >= bulk.most {
                lost = lost.saturating_add(1);
                match bulk.slow {
                    Slow::DropNewest => wanted = false,
                    Slow::DropOldest | Slow::Conflate => {
                        let _ = conn.pending.pop(first);
                    }
                    Slow::Disconnect => {
                        sent.dropped = sent.dropped.saturating_add(1);
                        conn.lost = conn.lost.saturating_add(lost);
                        self.stats.lost = self.stats.lost.saturating_add(u64::from(lost));
                        self.end(key, CloseReason::Slow, Duration::ZERO);
                        continue;
                    }
                }
            }
            if wanted {
                lost = lost.saturating_add(conn.pending.add(number, first));
                sent.reached = sent.reached.saturating_add(1);
            }
            if lost > 0 {
                conn.lost = conn.lost.saturating_add(lost);
                sent.dropped = sent.dropped.saturating_add(1);
                self.stats.lost = self.stats.lost.saturating_add(u64::from(lost));
            }
            self.peers.make_ready(peer);
        }
        sent
    }
}
