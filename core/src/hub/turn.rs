//! Who is next: each ready session in turn, so that nobody starves.
//!
//! ```text
//!  poll ─▶ events of the hub
//!       ─▶ connections to verify, greet, close, drop          control, never held back (U7)
//!       ─▶ the session whose turn it is: sixteen outputs of its own, then four of what many get
//! ```
//!
//! Invariants: a session that has something to say is in the ready ring or has its turn; after its turn it is in the heap
//! with its deadline; one that has left is taken out here, when nothing of it is left to report.
//! Rules: U4–U7.

use super::peer::{ConnState, Todo};
use super::table::Key;
use super::topics::Due;
use super::{CloseReason, ConnId, Counted, Hub, HubEvent, HubOutput, Memory, SessionId, Slow};
use crate::ids::{LinkId, MessageId, PostId, RequestId, Seq};
use crate::inbox::Answer;
use crate::link::Ending;
use crate::marks::{Beat, Report};
use crate::outbox::{Outcome, Path};
use crate::resume::ResumeRefusal;
use crate::route::HttpTimeouts;
use crate::session::{Event, Frame, Output};
use core::time::Duration;

/// Outputs of one session before the others get their turn, and what many get (broadcasts, items of topics) after them:
/// reliable traffic goes before bulk, four to one, but never instead of it.
const OUTPUTS: u8 = 16;
const BROADCASTS: u8 = 4;

/// The session that is served, and how much of its turn is left.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Turn {
    key: Key,
    outputs: u8,
    broadcasts: u8,
}

/// An output before its payload is borrowed.
enum Step {
    Verify(Key),
    Welcome(Key, SessionId, bool, Option<ResumeRefusal>),
    Close(Key, CloseReason, Duration),
    Drop(Key),
    Ack(Key, Key, MessageId),
    Ping(Key, Key),
    Keepalive(Key, Key),
    Data(Key, Key, Seq, MessageId, Seq),
    Marks(Key, Key, Report, Seq, Beat),
    Nack(Key, Key, Seq, Duration),
    CarryData(Key, RequestId, Seq, MessageId, Seq),
    CarryMarks(Key, RequestId, Report, Seq),
    Broadcast(Key, u64),
    Snapshot(Key),
    Topic(Key, Key, Due),
    Respond(Key, RequestId, Answer),
    Post(Key, PostId, MessageId, HttpTimeouts),
    Event(HubEvent),
}

/// A session's output, without what it borrows.
enum Said {
    Close(LinkId, Ending),
    Refuse(LinkId),
    Event(Event),
    Respond(RequestId, Answer),
    Ack(LinkId, MessageId),
    Ping(LinkId),
    Keepalive(LinkId),
    Data(LinkId, Seq, MessageId, Seq),
    Marks(LinkId, Report, Seq, Beat),
    Nack(LinkId, Seq, Duration),
    CarryData(RequestId, Seq, MessageId, Seq),
    CarryMarks(RequestId, Report, Seq),
    Post(PostId, MessageId, HttpTimeouts),
    /// A session of a hub's never dials.
    Nothing,
}

impl Said {
    fn of<P>(output: &Output<'_, P>) -> Self {
        match *output {
            Output::Close { link, ending } => Self::Close(link, ending),
            Output::Refuse { link } => Self::Refuse(link),
            Output::Connect { .. }
            | Output::Greet { .. }
            | Output::Poll { .. }
            | Output::Carry {
                frame: Frame::Ack { .. } | Frame::Ping | Frame::Keepalive | Frame::Nack { .. }, ..
            } => Self::Nothing,
            Output::Event(event) => Self::Event(event),
            Output::Respond { request, answer } => Self::Respond(request, answer),
            Output::Frame { link, frame: Frame::Ack { id } } => Self::Ack(link, id),
            // A hub's ping is the WebSocket's own.
            Output::Probe { link } | Output::Frame { link, frame: Frame::Ping } => Self::Ping(link),
            Output::Frame { link, frame: Frame::Keepalive } => Self::Keepalive(link),
            Output::Frame { link, frame: Frame::Data { seq, id, una, .. } } => Self::Data(link, seq, id, una),
            Output::Frame { link, frame: Frame::Marks { report, una, beat } } => Self::Marks(link, report, una, beat),
            Output::Frame { link, frame: Frame::Nack { seq, after } } => Self::Nack(link, seq, after),
            Output::Carry { request, frame: Frame::Data { seq, id, una, .. } } => {
                Self::CarryData(request, seq, id, una)
            }
            Output::Carry { request, frame: Frame::Marks { report, una, .. } } => {
                Self::CarryMarks(request, report, una)
            }
            Output::Post { post, id, timeouts, .. } => Self::Post(post, id, timeouts),
        }
    }
}

impl<P, M: Memory<P>> Hub<P, M> {
    /// The next thing to do; drain it until `None`.
    pub fn poll(&mut self) -> Option<HubOutput<'_, P>> {
        let step = match self.next_event() {
            Some(event) => Step::Event(event),
            None => {
                let step = self.step();
                self.weigh_fleet();
                step.or_else(|| self.next_event().map(Step::Event))?
            }
        };
        Some(match step {
            Step::Event(event) => HubOutput::Event(event),
            Step::Verify(conn) => HubOutput::Verify { conn: ConnId(conn), identity: self.conns.get(conn)?.identity },
            Step::Welcome(conn, session, resumed, reason) => {
                HubOutput::Welcome { conn: ConnId(conn), session, resumed, reason }
            }
            Step::Close(conn, why, after) => HubOutput::Close { conn: ConnId(conn), why, after },
            Step::Drop(conn) => HubOutput::Drop { conn: ConnId(conn) },
            Step::Ack(conn, key, id) => self.frame(conn, key, Frame::Ack { id }),
            Step::Ping(conn, key) => self.frame(conn, key, Frame::Ping),
            Step::Keepalive(conn, key) => self.frame(conn, key, Frame::Keepalive),
            Step::Data(conn, key, seq, id, una) => {
                let payload = self.peers.get(key)?.session.outbox().payload(seq)?;
                self.frame(conn, key, Frame::Data { seq, id, una, payload })
            }
            Step::Marks(conn, key, report, una, beat) => self.frame(conn, key, Frame::Marks { report, una, beat }),
            Step::Nack(conn, key, seq, after) => self.frame(conn, key, Frame::Nack { seq, after }),
            Step::CarryData(key, request, seq, id, una) => {
                let payload = self.peers.get(key)?.session.outbox().payload(seq)?;
                HubOutput::Carry { session: SessionId(key), request, frame: Frame::Data { seq, id, una, payload } }
            }
            Step::CarryMarks(key, request, report, una) => {
                let frame = Frame::Marks { report, una, beat: Beat::None };
                HubOutput::Carry { session: SessionId(key), request, frame }
            }
            Step::Broadcast(conn, number) => {
                HubOutput::Broadcast { conn: ConnId(conn), payload: self.log.get(number)? }
            }
            Step::Snapshot(conn) => HubOutput::Broadcast { conn: ConnId(conn), payload: self.snapshot.as_ref()? },
            Step::Topic(conn, key, due) => self.topic_output(conn, key, due)?,
            Step::Respond(key, request, answer) => HubOutput::Respond { session: SessionId(key), request, answer },
            Step::Post(key, post, id, timeouts) => {
                let payload = self.peers.get(key)?.session.outbox().payload(post.seq)?;
                HubOutput::Post { session: SessionId(key), post, id, payload, timeouts }
            }
        })
    }

    fn frame<'a>(&self, conn: Key, key: Key, frame: Frame<'a, P>) -> HubOutput<'a, P> {
        HubOutput::Frame { conn: ConnId(conn), session: SessionId(key), frame }
    }

    pub(super) fn has_event(&self) -> bool {
        self.fleet_told != self.fleet_http || self.topics.has_presence() || self.drained()
    }

    fn drained(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| !drain.told && drain.cursor >= self.peers.span())
            && self.peers.len() == 0
            && self.conns.len() == 0
    }

    fn next_event(&mut self) -> Option<HubEvent> {
        if self.fleet_told != self.fleet_http {
            self.fleet_told = self.fleet_http;
            return Some(HubEvent::Fleet { http: self.fleet_http });
        }
        if let Some(event) = self.next_presence() {
            return Some(event);
        }
        if self.drained()
            && let Some(drain) = &mut self.drain
        {
            drain.told = true;
            drain.step.disarm();
            return Some(HubEvent::Drained { abandoned: self.stats.failed.saturating_sub(drain.failed_before) });
        }
        None
    }

    fn step(&mut self) -> Option<Step> {
        loop {
            if let Some(conn) = self.conns.next_ready() {
                match self.control(conn) {
                    Some(step) => return Some(step),
                    None => continue,
                }
            }
            let turn = match self.turn.take() {
                Some(turn) => turn,
                None => Turn { key: self.peers.next_ready()?, outputs: OUTPUTS, broadcasts: BROADCASTS },
            };
            self.turn = Some(turn);
            if let Some(step) = self.serve(turn) {
                return Some(step);
            }
        }
    }

    /// What is to be said about a connection.
    fn control(&mut self, conn: Key) -> Option<Step> {
        let state = self.conns.get_mut(conn)?;
        match state.todo.take()? {
            Todo::Verify => Some(Step::Verify(conn)),
            Todo::Welcome { resumed, reason } => match state.state {
                ConnState::Attached { peer, .. } => Some(Step::Welcome(conn, SessionId(peer), resumed, reason)),
                ConnState::Pending
                | ConnState::Verifying { .. }
                | ConnState::Knocking { .. }
                | ConnState::Closing { .. } => None,
            },
            Todo::Close { why, after } => Some(Step::Close(conn, why, after)),
            Todo::Drop => {
                self.forget(conn);
                Some(Step::Drop(conn))
            }
        }
    }

    /// The next output of the session whose turn it is; `None`: its turn is over, or there was nothing to say about what
    /// it said.
    fn serve(&mut self, turn: Turn) -> Option<Step> {
        let key = turn.key;
        let Some(peer) = self.peers.get_mut(key) else {
            self.turn = None;
            return None;
        };
        if !peer.war_told {
            peer.war_told = true;
            return Some(Step::Event(HubEvent::War { session: SessionId(key) }));
        }
        if core::mem::take(&mut peer.give_back) {
            return Some(Step::Event(HubEvent::GiveBack { session: SessionId(key) }));
        }
        let count = core::mem::take(&mut peer.lost);
        if count > 0 {
            return Some(Step::Event(HubEvent::Lost { session: SessionId(key), count }));
        }
        if turn.outputs > 0 && peer.dirty {
            let said = match peer.session.poll() {
                Some(output) => Said::of(&output),
                None => {
                    peer.dirty = false;
                    return None;
                }
            };
            self.turn = Some(Turn { outputs: turn.outputs.saturating_sub(1), ..turn });
            return self.translate(key, said);
        }
        if turn.broadcasts > 0
            && let Some((_, conn)) = peer.conn
            && let Some(step) = self.shared(key, conn, turn)
        {
            self.turn = Some(Turn { broadcasts: turn.broadcasts.saturating_sub(1), ..turn });
            return Some(step);
        }
        self.turn = None;
        self.turn_over(key)
    }

    /// Puts the session where it belongs after its turn: at the end of the ring, into the heap, or out.
    fn turn_over(&mut self, key: Key) -> Option<Step> {
        // The last acknowledgement may have been taken.
        self.count_session(key);
        let peer = self.peers.get(key)?;
        let more = peer.conn.and_then(|(_, conn)| self.conns.get(conn)).is_some_and(|conn| {
            conn.writable && (conn.snapshot || !conn.pending.is_empty() || self.topics.waits_for(peer.member))
        });
        if peer.dirty || more {
            self.peers.make_ready(key);
            return None;
        }
        if Self::has_left(peer) {
            self.member_leaves(key);
            if let Some(event) = self.next_presence() {
                // Whoever was told that it is there is told first that it is not.
                self.peers.make_ready(key);
                return Some(Step::Event(event));
            }
            let peer = self.peers.get(key)?;
            let (identity, (why, _), behind) = (peer.identity, peer.leaving?, peer.replay.behind());
            self.recount(peer.counted, Counted::default());
            self.peers.remove(key);
            self.drain_sooner();
            // One that expires has forgotten long before; of another one the nonces are lost before their time.
            if why != CloseReason::Expired {
                self.forgotten = self.forgotten.max(self.wall);
                self.dismissed.rotate_right(1);
                if let Some(first) = self.dismissed.first_mut() {
                    *first = (identity, behind);
                }
            }
            return Some(Step::Event(HubEvent::Ended { session: SessionId(key), identity, why }));
        }
        let due = [peer.session.deadline(), peer.expires.at(), peer.turns.at()].into_iter().flatten().min();
        if due.is_some_and(|at| at <= self.now) {
            // Time passed while it waited for its turn, and it was not in the heap yet.
            self.peer_due(key);
        } else {
            self.peers.set_deadline(key, due);
        }
        None
    }

    /// The next of what others get too: a broadcast, an item of a topic. They take turns.
    fn shared(&mut self, key: Key, conn: Key, turn: Turn) -> Option<Step> {
        if turn.broadcasts.is_multiple_of(2) {
            self.bulk(key, conn).or_else(|| self.topic(key, conn))
        } else {
            self.topic(key, conn).or_else(|| self.bulk(key, conn))
        }
    }

    /// The next item of a topic, or the word that some were missed.
    fn topic(&mut self, key: Key, conn: Key) -> Option<Step> {
        // Its connection may have just been closed for being slow.
        let attached = |state: &ConnState| matches!(state, ConnState::Attached { .. });
        self.conns.get(conn).filter(|conn| conn.writable && attached(&conn.state))?;
        self.topical(key).map(|due| Step::Topic(conn, key, due))
    }

    /// The next broadcast for a connection, or the word that some were lost.
    fn bulk(&mut self, key: Key, conn_key: Key) -> Option<Step> {
        let first = self.log.first();
        let disconnect = self.config.get().bulk.slow == Slow::Disconnect;
        let conn = self.conns.get_mut(conn_key)?;
        let lost = conn.pending.lose(first);
        conn.lost = conn.lost.saturating_add(lost);
        self.stats.lost = self.stats.lost.saturating_add(u64::from(lost));
        if conn.lost > 0 {
            let mut count = core::mem::take(&mut conn.lost);
            if disconnect {
                // What still waited for it is lost with it.
                self.end(conn_key, CloseReason::Slow, Duration::ZERO);
                count = count.saturating_add(core::mem::take(&mut self.peers.get_mut(key)?.lost));
            }
            return Some(Step::Event(HubEvent::Lost { session: SessionId(key), count }));
        }
        if !conn.writable {
            return None;
        }
        let step = if core::mem::take(&mut conn.snapshot) {
            Step::Snapshot(conn_key)
        } else {
            Step::Broadcast(conn_key, conn.pending.pop(first).0?)
        };
        self.stats.broadcast_copies = self.stats.broadcast_copies.saturating_add(1);
        Some(step)
    }

    fn translate(&mut self, key: Key, said: Said) -> Option<Step> {
        let current = self.peers.get(key)?.conn;
        let conn_of = |link: LinkId| current.filter(|(current, _)| *current == link).map(|(_, conn)| conn);
        match said {
            Said::Nothing => None,
            Said::Close(link, ending) => {
                self.session_closes(key, link, ending);
                None
            }
            Said::Refuse(link) => {
                let peer = self.peers.get_mut(key)?;
                let (_, conn) = peer.knocking.take_if(|(knocking, _)| *knocking == link)?;
                self.count_refused();
                self.close(conn, CloseReason::Duplicate, Duration::ZERO, None);
                None
            }
            Said::Event(event) => {
                self.count_event(&event);
                Some(Step::Event(HubEvent::Session { session: SessionId(key), event }))
            }
            Said::Respond(request, answer) => Some(Step::Respond(key, request, answer)),
            Said::Ack(link, id) => Some(Step::Ack(conn_of(link)?, key, id)),
            Said::Ping(link) => Some(Step::Ping(conn_of(link)?, key)),
            Said::Keepalive(link) => Some(Step::Keepalive(conn_of(link)?, key)),
            Said::Data(link, seq, id, una) => Some(Step::Data(conn_of(link)?, key, seq, id, una)),
            Said::Marks(link, report, una, beat) => Some(Step::Marks(conn_of(link)?, key, report, una, beat)),
            Said::Nack(link, seq, after) => Some(Step::Nack(conn_of(link)?, key, seq, after)),
            Said::CarryData(request, seq, id, una) => Some(Step::CarryData(key, request, seq, id, una)),
            Said::CarryMarks(request, report, una) => Some(Step::CarryMarks(key, request, report, una)),
            Said::Post(post, id, timeouts) => Some(Step::Post(key, post, id, timeouts)),
        }
    }

    /// The session ends its connection: one that it has, or one that waited for it and lost.
    fn session_closes(&mut self, key: Key, link: LinkId, ending: Ending) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let leaving = peer.leaving;
        // The second connection may have had the place for that one moment.
        let knocking = peer.knocking.take_if(|(knocking, _)| *knocking <= link);
        let has = peer.conn.is_some_and(|(current, _)| current <= link);
        let holder = if has { self.untie(key) } else { None };
        for (held, conn) in holder.into_iter().chain(knocking) {
            match ending {
                Ending::Code(1002) if held == link => {
                    self.close(conn, CloseReason::Violation, Duration::ZERO, Some((key, link)))
                }
                Ending::Code(_) if held == link => {
                    let (why, after) = leaving.unwrap_or((CloseReason::Replaced, Duration::ZERO));
                    self.close(conn, why, after, Some((key, link)));
                }
                // The word is for the newest; an older one is over.
                Ending::Code(_) | Ending::Drop => self.drop_conn(conn),
            }
        }
    }

    /// Gives the place to the second connection as soon as the session says so: its holder is gone, or did not answer.
    pub(super) fn promote(&mut self, key: Key) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let connection = peer.session.connection();
        if let Some((link, conn)) = peer.knocking.take_if(|(link, _)| Some(*link) == connection) {
            if let Some((_, old)) = self.untie(key) {
                self.drop_conn(old);
            }
            self.tie(key, conn, link, true);
        }
    }

    fn count_event(&mut self, event: &Event) {
        let Event::Settled { outcome, .. } = event else { return };
        let counter = match outcome {
            Outcome::Delivered { path: Path::WebSocket } => &mut self.stats.settled_websocket,
            Outcome::Delivered { path: Path::Http } => &mut self.stats.settled_http,
            Outcome::Rejected(_) | Outcome::Expired | Outcome::Abandoned => &mut self.stats.failed,
        };
        *counter = counter.saturating_add(1);
    }
}
