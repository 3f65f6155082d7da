//! What the machine says, done: frames into lines, effects for later, and every line that was touched flushed once.

use super::account::Asking;
use super::{BELIEVED, Effect, Engine};
use crate::http::Bytes;
use crate::hub::line::{self, Line, Stage};
use crate::hub::{Action, Event};
use crate::node::Settlement;
use crate::socket::Wrote;
use bowline::hub::{ConnId, HubEvent, HubOutput, SessionId, Why};
use bowline::wire::bettensor::{
    CLOSE_REPLACED, CLOSE_STOPPING, CLOSE_UNKNOWN, REFUSED, REFUSED_UNKNOWN, encode_refusal,
};
use bowline::{Cause, Event as Word, Frame, HttpOutcome};
use core::time::Duration;
use std::sync::Arc;
use tungstenite::Message as Text;

/// A close frame's reason, which may have 123 bytes.
const LONGEST_REASON: usize = 120;

impl Engine {
    /// Does what the machine says until it says nothing more, and flushes what was written.
    pub(in crate::hub) fn settle(&mut self) {
        loop {
            while self.step() {}
            if self.dirty.is_empty() {
                return;
            }
            let mut dirty = core::mem::take(&mut self.dirty);
            for line in dirty.drain(..) {
                self.flush(&line);
            }
            // Its memory is used again, unless flushing has made more to flush.
            if self.dirty.is_empty() {
                self.dirty = dirty;
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
            HubOutput::Welcome { conn, session, resumed, .. } => self.welcome(conn, session, resumed),
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
                Frame::Marks { .. } | Frame::Nack { .. } => {}
            },
            HubOutput::Carry { .. } => {}
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
        if let Some(account) = self.accounts.get_mut(session.place()).and_then(Option::as_mut) {
            account.believed = self.clock.now().after(BELIEVED);
        }
        line.enter(Stage::Open);
        let welcome = line::welcome(&self.signer);
        self.write(&line, welcome);
        self.effects.push(Effect::Tell(Event::Connected { hotkey, resumed }));
    }

    fn close(&mut self, conn: ConnId, why: Why, after: Duration) {
        let Some(line) = self.line(conn) else {
            // Let in, but not a WebSocket yet.
            self.counters.refuse(why);
            self.lost(conn, Cause::Closed(1006));
            return;
        };
        let mut state = line.lock();
        let known = state.stage == Stage::Open;
        let (refusal, reason): (Option<&str>, String) = match why {
            Why::Impostor | Why::Replayed if !known => (Some(REFUSED), REFUSED.into()),
            Why::Unknown if state.refusal == REFUSED_UNKNOWN => (Some(REFUSED_UNKNOWN), CLOSE_UNKNOWN.into()),
            Why::Unknown => (Some(&state.refusal), shortened(&state.refusal).into()),
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
    pub(super) fn reply(&mut self, line: &Arc<Line>, message: Text) {
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
    pub(in crate::hub) fn writable(&mut self, line: &Arc<Line>) -> bool {
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

/// As much of a reason as a close frame carries.
fn shortened(reason: &str) -> &str {
    let end = (0..=LONGEST_REASON).rev().find(|end| reason.is_char_boundary(*end));
    end.and_then(|end| reason.get(..end)).filter(|_| reason.len() > LONGEST_REASON).unwrap_or(reason)
}
