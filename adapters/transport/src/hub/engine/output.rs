//! What the machine says, done: frames into lines, which are flushed when the engine's lock is gone, and effects for later.

use super::account::Asking;
use super::{BELIEVED, Effect, Engine, Parcel, native, wrong_clock};
use crate::explanation::Excerpt;
use crate::http::Bytes;
use crate::hub::line::{Door, Line, Stage};
use crate::hub::native::AGAIN;
use crate::hub::wire::{Farewell, Gap, HubWire, Text};
use crate::hub::{Action, Event};
use crate::node::Settlement;
use crate::socket::Wrote;
use bowline::hub::{CloseReason, ConnId, HubEvent, HubOutput, Position, SessionId, Start, TopicName};
use bowline::wire::native::SUBPROTOCOL;
use bowline::{Frame, HttpOutcome, Instant, Reason};
use core::time::Duration;
use std::sync::Arc;
use tungstenite::Message as Wire;

/// A close frame's reason, which may have 123 bytes.
const LONGEST_REASON: usize = 120;

impl<W: HubWire> Engine<W> {
    /// Does what the machine says until it says nothing more. What is to be written lies in the lines then.
    pub(in crate::hub) fn settle(&mut self) {
        let now = self.now();
        while self.step(now) {}
    }

    /// The lines with something to flush, each once.
    pub(in crate::hub) fn take_dirty(&mut self) -> Vec<Arc<Line<W>>> {
        self.turn_asked = false;
        core::mem::take(&mut self.dirty)
    }

    /// True: there is something to flush, and nobody was asked for a turn yet.
    pub(in crate::hub) fn wants_turn(&mut self) -> bool {
        !self.dirty.is_empty() && !core::mem::replace(&mut self.turn_asked, true)
    }

    /// These lines were flushed, and not all of them has left.
    pub(in crate::hub) fn unsent(&mut self, lines: Vec<(Arc<Line<W>>, Wrote)>) {
        for (line, wrote) in lines {
            self.wrote(&line, wrote);
        }
    }

    fn step(&mut self, now: Instant) -> bool {
        let Some(output) = self.machine.poll() else { return false };
        match output {
            HubOutput::Verify { conn, .. } => {
                if let Some(line) = self.line(conn) {
                    self.effects.push(Effect::Verify { line });
                }
            }
            HubOutput::Welcome { conn, session, resumed, reason } => match self.line(conn) {
                Some(line) if line.is_native() => self.welcome_native(&line, session, resumed, reason),
                _ => self.welcome(conn, session, resumed),
            },
            HubOutput::Close { conn, why, after } => self.close(conn, why, after),
            HubOutput::Drop { conn } => {
                self.forget(conn);
            }
            HubOutput::Frame { conn, frame, .. } if is_native(&self.lines, conn) => {
                let frame = Self::native_frame(&frame);
                if let (Some(frame), Some(line)) = (frame, self.line(conn)) {
                    self.write(&line, Wire::Text(frame));
                }
            }
            HubOutput::Frame { conn, session, frame } => match frame {
                Frame::Data { payload, .. } => {
                    let parcel = Arc::clone(payload);
                    self.write_parcel(conn, &parcel, now, None);
                }
                Frame::Ack { id } => {
                    if let (Some(frame), Some(line)) = (self.confirmation(session, id), self.line(conn)) {
                        self.write(&line, Wire::Text(frame));
                    }
                }
                Frame::Ping | Frame::Keepalive => self.ping(conn),
                Frame::Marks { .. } | Frame::Nack { .. } => {}
            },
            HubOutput::Carry { request, frame, .. } => {
                if let Some(frame) = Self::native_frame(&frame) {
                    self.carry(request, frame.as_str().to_owned());
                }
            }
            HubOutput::Broadcast { conn, payload } => {
                let parcel = Arc::clone(payload);
                self.write_parcel(conn, &parcel, now, None);
            }
            HubOutput::Topic { conn, topic, position, payload, .. } => {
                let (topic, parcel) = (*topic, Arc::clone(payload));
                self.write_parcel(conn, &parcel, now, Some((&topic, position)));
            }
            HubOutput::Gap { conn, topic, epoch, from, to, .. } => {
                let gap = Gap { topic: *topic, epoch, from, to };
                self.write_gap(conn, &gap);
            }
            HubOutput::Respond { session, request, answer } => {
                if let Some(Asking { answer: waiting, id, seq, carried }) = self.requests.remove(&request) {
                    let native = self.accounts.get(session.place()).and_then(Option::as_ref);
                    let answer = if native.is_some_and(|account| account.pass.is_some()) {
                        self.native_answer(session, answer, seq, carried)
                    } else {
                        self.answer(session, id, answer)
                    };
                    self.effects.push(Effect::Answer { request: waiting, answer });
                }
            }
            HubOutput::Post { session, post, id, payload, timeouts } => {
                let account = self.accounts.get(session.place()).and_then(Option::as_ref);
                match account.and_then(|account| Some((account, account.receiver.as_ref()?))) {
                    Some((account, receiver)) => {
                        let body = payload.frame(&self.wire, now, &account.peer);
                        let target = receiver.join("ws").join("messages");
                        let post = Action::Post { session, post, id, target, body: body.into(), timeouts };
                        self.effects.push(Effect::Act(post));
                    }
                    None => self.machine.posted(now, session, post, HttpOutcome::status(302)),
                }
            }
            HubOutput::Event(event) => self.event(event),
        }
        true
    }

    fn welcome(&mut self, conn: ConnId, session: SessionId, resumed: bool) {
        let Some(line) = self.line(conn) else { return };
        let receiver = line.lock().receiver.take();
        let Some(peer) = line.peer() else { return };
        self.note(session, peer, receiver);
        if let Some(account) = self.accounts.get_mut(session.place()).and_then(Option::as_mut) {
            account.believed = self.clock.now().after(BELIEVED);
        }
        line.enter(Stage::Open);
        let guest = line.is_guest();
        if let Some(account) = self.accounts.get_mut(session.place()).and_then(Option::as_mut) {
            account.guest = guest;
        }
        if let Some(welcome) = self.wire.welcome(peer, self.machine.reconnect_window()) {
            self.write(&line, Wire::Text(welcome));
        }
        let wire = Arc::clone(&self.wire);
        for topic in wire.topics(line.path()) {
            // Full is what somebody who asks is told; who does not ask looks at what it gets.
            let _ = self.machine.subscribe(self.now(), session, topic, Start::Now);
        }
        self.effects.push(Effect::Tell(Event::Connected { peer: peer.clone(), resumed }));
    }

    fn close(&mut self, conn: ConnId, why: CloseReason, after: Duration) {
        let door = self.lines.get(conn.place()).and_then(Option::as_ref).filter(|door| door.conn == conn);
        let address = door.map(|door| door.address);
        let Some(line) = self.line(conn) else {
            // Let in, but not a WebSocket yet.
            self.turned_away(address, None, why, None);
            self.lost(conn, Reason::Closed(1006).into());
            return;
        };
        let mut state = line.lock();
        let known = state.stage == Stage::Open;
        let said = match (why, state.signed) {
            (CloseReason::WrongClock, Some((signed, came))) => Some(wrong_clock(signed, came).into()),
            _ => state.refusal.clone(),
        };
        let Farewell { mut frame, reason } = self.wire.farewell(why, said.as_deref());
        if line.is_native() {
            let window = self.machine.reconnect_window();
            frame = native::farewell(why, after, state.refused, known, window);
            if let Some(frame) = frame.take_if(|_| known)
                && !state.socket.closed()
            {
                let _ = state.socket.write(Wire::Text(frame));
            }
        }
        if !state.socket.closed() {
            if let Some(frame) = frame.filter(|_| !known) {
                let _ = state.socket.write(Wire::Text(frame));
            }
            let reason = match after.is_zero() {
                true => shortened(&reason).to_owned(),
                false => format!("retry-after={:.1}", after.as_secs_f64()),
            };
            state.socket.close(why.code(), reason);
        }
        let said = said.as_deref().and_then(Excerpt::new);
        drop(state);
        if !known {
            self.turned_away(address, line.peer(), why, said);
        }
        line.enter(Stage::Closing);
    }

    fn event(&mut self, event: HubEvent) {
        match event {
            // The turn of a former sender's messages never comes.
            HubEvent::Session { session, event: bowline::Event::Gap { to: None, .. } } => {
                self.give_back(session, Duration::ZERO);
            }
            // After the one whose turn it is, which was told to come again, too.
            HubEvent::GiveBack { session } => self.give_back(session, 2 * AGAIN),
            _ => {}
        }
        let whose = |session: SessionId| {
            self.accounts.get(session.place()).and_then(Option::as_ref).map(|account| account.peer.clone())
        };
        let told = match event {
            HubEvent::Session { session, event: bowline::Event::Settled { seq, outcome, took, reason } } => {
                if let Some(receipt) = self.receipts.remove(&(session, seq)) {
                    self.effects.push(Effect::Settle { receipt, settlement: Settlement { outcome, took, reason } });
                }
                None
            }
            HubEvent::Session { session, event: bowline::Event::Down { reason, .. } } => {
                let account = self.accounts.get(session.place()).and_then(Option::as_ref);
                if account.is_some_and(|account| account.guest && account.session == session) {
                    // Nobody can come back under that name.
                    self.machine.dismiss(self.clock.now(), session);
                }
                let slot = self.accounts.get_mut(session.place()).and_then(Option::as_mut);
                let account = slot.filter(|account| account.session == session);
                account.map(|account| {
                    let said = account.said.take().filter(|said| said.reason == reason);
                    Event::Disconnected { peer: account.peer.clone(), reason, text: said.and_then(|said| said.text) }
                })
            }
            HubEvent::Session { session, event: bowline::Event::Turn { delivery } } => {
                self.turn(session, delivery);
                None
            }
            HubEvent::Session { session, event: bowline::Event::Gap { from, to, .. } } => {
                whose(session).map(|peer| Event::Gap { peer, from: from.get(), to: to.map(bowline::Seq::get) })
            }
            HubEvent::Session { session, event: bowline::Event::IdReused { total } } => {
                whose(session).map(|peer| Event::IdReused { peer, total })
            }
            HubEvent::Session { .. } | HubEvent::GiveBack { .. } => None,
            HubEvent::Lost { session, count } => whose(session).map(|peer| Event::Lost { peer, count }),
            HubEvent::Presence { session, topic, present, subscribers } => {
                whose(session).map(|peer| Event::Presence { peer, topic, present, subscribers })
            }
            HubEvent::War { session } => whose(session).map(|peer| Event::War { peer }),
            HubEvent::Ended { session, why, .. } => {
                let account = self.accounts.get(session.place()).and_then(Option::as_ref);
                // A guest was dismissed for having gone.
                let why = if account.is_some_and(|account| account.guest) && why == CloseReason::Dismissed {
                    CloseReason::Expired
                } else {
                    why
                };
                let peer = whose(session);
                let slot = self.accounts.get_mut(session.place());
                if let Some(account) = slot.and_then(|slot| slot.take_if(|account| account.session == session)) {
                    self.forget_native(session, &account);
                }
                peer.map(|peer| Event::Ended { peer, why })
            }
            HubEvent::Fleet { http } => Some(Event::Fleet { http }),
            HubEvent::Drained { abandoned } => {
                self.drained = Some(abandoned);
                Some(Event::Drained { abandoned })
            }
        };
        self.effects.extend(told.map(Effect::Tell));
    }

    /// A message, with its place if it is an item of a topic.
    fn write_parcel(&mut self, conn: ConnId, parcel: &Parcel<W>, now: Instant, at: Option<(&TopicName, Position)>) {
        let Some(line) = self.line(conn) else { return };
        let Some(peer) = line.peer() else { return };
        if line.is_native() {
            self.write(&line, Wire::Text(parcel.event(at)));
            return;
        }
        let frame = match at {
            Some((topic, position)) if line.keeps_account() => parcel.placed(&self.wire, now, peer, topic, position),
            Some((topic, _)) => parcel.item(&self.wire, now, peer, topic),
            None => parcel.frame(&self.wire, now, peer),
        };
        self.write(&line, Wire::Text(frame));
    }

    /// Whoever does not keep account could make nothing of it.
    fn write_gap(&mut self, conn: ConnId, gap: &Gap) {
        if is_native(&self.lines, conn) {
            return self.native_gap(conn, gap);
        }
        let Some(line) = self.line(conn).filter(|line| line.keeps_account()) else { return };
        if let Some(frame) = line.peer().and_then(|peer| self.wire.gap(peer, gap)) {
            self.write(&line, Wire::Text(frame));
        }
    }

    fn ping(&mut self, conn: ConnId) {
        let Some(line) = self.line(conn) else { return };
        if let Some(ping) = line.peer().and_then(|peer| self.wire.ping(peer)) {
            self.write(&line, Wire::Text(ping));
        }
        self.write(&line, Wire::Ping(Bytes::new()));
    }

    /// Answers what came in, unless the line is full: whoever does not read does not get to fill our memory.
    pub(super) fn reply(&mut self, line: &Arc<Line<W>>, text: Text) {
        let full = line.lock().socket.blocked;
        if !full {
            self.write(line, Wire::Text(text));
        }
    }

    /// Puts a frame into a line; it leaves when the line is flushed, or when there is much of it.
    pub(super) fn write(&mut self, line: &Arc<Line<W>>, message: Wire) {
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
        self.wrote(line, wrote);
    }

    fn wrote(&mut self, line: &Arc<Line<W>>, wrote: Wrote) {
        match wrote {
            Wrote::Done => {}
            Wrote::Blocked => self.blocked(line),
            Wrote::Ended(why) => self.lost(line.conn(), why),
        }
    }

    fn blocked(&mut self, line: &Arc<Line<W>>) {
        let was = core::mem::replace(&mut line.lock().socket.blocked, true);
        if !was {
            self.machine.writable(self.now(), line.conn(), false);
            self.effects.push(Effect::Act(Action::Watch(Arc::clone(line))));
        }
    }

    /// A line that was full can be written. True: it is full again.
    pub(in crate::hub) fn writable(&mut self, line: &Arc<Line<W>>) -> bool {
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
            Wrote::Ended(why) => {
                self.lost(conn, why);
                false
            }
        }
    }
}

/// Whether a native peer is at the other end.
fn is_native<W: HubWire>(lines: &[Option<Door<W>>], conn: ConnId) -> bool {
    let door = lines.get(conn.place()).and_then(Option::as_ref).filter(|door| door.conn == conn);
    door.is_some_and(|door| door.subprotocol == Some(SUBPROTOCOL))
}

/// As much of a reason as a close frame carries.
fn shortened(reason: &str) -> &str {
    let end = (0..=LONGEST_REASON).rev().find(|end| reason.is_char_boundary(*end));
    end.and_then(|end| reason.get(..end)).filter(|_| reason.len() > LONGEST_REASON).unwrap_or(reason)
}
