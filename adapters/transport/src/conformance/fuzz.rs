//! One input of a fuzzer, played on a wire.
//!
//! ```text
//! > frame            the receiver reads it, or the wire that is alone; so is every line that is none of the others
//! < frame            the sender reads it
//! + n json           the sender's application sends this, as the kind of the n-th sample; without JSON, that sample
//! @ n key body       a POST comes to the receiver, at the n-th of its paths
//! = status type body the answer to a POST of the sender's
//! # body             the answer to a greeting or a poll of the sender's
//! ~                  a connection begins
//! .                  ping, keepalive, room at the application
//! -                  the sender's oldest message has ended
//! ```
//!
//! A line is a step, and a vertical tab in it stands for a line break. So an input is text, and the file that a fuzzer leaves
//! is the script of what happened. Spaces after the first letter may be missing; any text means something.
//!
//! Invariants, whatever came before: no panic; what comes in costs no more than its length allows, in answers and in memory;
//! what the sender accepts is read by the receiver as the same message under the same id, and its acknowledgement as that to
//! the sender; a second copy of a wire reads the same.

use super::hostile::{acknowledgement, most, weigh, weight};
use super::{Conformance, STEPS, decides, fits, said, segment};
use crate::http::{Bytes, Callback, HttpAnswer, Target};
use crate::wire::{Heard, Wire};
use bowline::wire::KeyedHash;
use bowline::{Frame, Head, MessageId};
use serde_json::Value;
use std::collections::VecDeque;

/// The most messages of the sender's that are open at once.
const OPEN: usize = 16;

impl<S: Wire, R: Wire> Conformance<'_, S, R> {
    /// Plays one input of a fuzzer, or a script that one has left: text, a step a line, as the module
    /// [`fuzz`](crate::conformance#fuzzing) says. Any bytes are an input.
    ///
    /// # Panics
    /// Something does not hold; the message says what, and on which line.
    pub fn fuzz(&self, input: &[u8]) {
        let script = String::from_utf8_lossy(input);
        let mut play = Play {
            kit: self,
            sender: self.sender.clone(),
            receiver: self.receiver.as_ref().map(|(receiver, _)| receiver.clone()),
            last: 0,
            open: VecDeque::new(),
        };
        let before = play.weigh();
        for line in script.lines().take(STEPS) {
            let line = line.replace('\u{b}', "\n");
            if let Err(why) = play.step(&line) {
                panic!("{why}\n    on: {line}");
            }
        }
        let (after, bytes) = (play.weigh(), most(input.len()));
        let lasting = after.saturating_sub(before);
        assert!(lasting <= bytes, "{} bytes came in, and {lasting} are remembered", input.len());
    }
}

struct Play<'k, 'a, S: Wire, R: Wire> {
    kit: &'k Conformance<'a, S, R>,
    sender: S,
    receiver: Option<R>,
    /// The number of the sender's last message.
    last: u64,
    open: VecDeque<MessageId>,
}

impl<S: Wire, R: Wire> Play<'_, '_, S, R> {
    fn weigh(&self) -> usize {
        weigh(&self.sender).saturating_add(self.receiver.as_ref().map_or(0, weigh))
    }

    fn step(&mut self, line: &str) -> Result<(), String> {
        let first = line.chars().next().unwrap_or(' ');
        let rest = line.strip_prefix(first).unwrap_or_default();
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        let names = &self.kit.names;
        match first {
            '<' => read(&mut self.sender, names, rest),
            '+' => self.send(rest),
            '@' => match &mut self.receiver {
                Some(receiver) => request(receiver, names, rest),
                None => request(&mut self.sender, names, rest),
            },
            '=' => self.answered(rest),
            '#' => {
                let heard = self.sender.carried(&Bytes::copy_from_slice(rest.as_bytes()));
                heard.unwrap_or_default().iter().try_for_each(|heard| weight::<S>(heard, rest.len()))
            }
            '~' => {
                let hello = self.sender.hello(&bowline::Greeting::new(self.kit.origin));
                fits(hello.is_none_or(|hello| hello.len() <= most(0)), || "the first frame is a flood".into())
            }
            '.' => {
                let said = [self.sender.write(Frame::Ping), self.sender.write(Frame::Keepalive)];
                let asks = self.sender.room();
                let bytes = said.iter().flatten().chain(&asks).map(String::len).sum::<usize>();
                fits(bytes <= most(self.weigh()), || format!("a ping and what is asked for have {bytes} bytes"))
            }
            '-' => {
                if let Some(id) = self.open.pop_front() {
                    self.sender.settled(id);
                }
                Ok(())
            }
            _ => {
                let frame = if first == '>' { rest } else { line };
                match &mut self.receiver {
                    Some(receiver) => read(receiver, names, frame),
                    None => read(&mut self.sender, names, frame),
                }
            }
        }
    }

    /// The application sends something; what is accepted arrives.
    fn send(&mut self, what: &str) -> Result<(), String> {
        let (n, json) = number(what);
        let samples = &self.kit.samples;
        let Some((kind, sample)) = samples.get(n.checked_rem(samples.len()).unwrap_or_default()) else { return Ok(()) };
        let json = if json.is_empty() { sample.clone() } else { Bytes::copy_from_slice(json.as_bytes()) };
        let Ok(outgoing) = self.sender.prepare(kind, &json) else { return Ok(()) };
        self.last = self.last.saturating_add(1);
        let (seq, id) = self.kit.id(self.last);
        self.sender.accepted(id, &outgoing);
        if self.open.len() >= OPEN
            && let Some(oldest) = self.open.pop_front()
        {
            self.sender.settled(oldest);
        }
        self.open.push_back(id);
        let frame = self.sender.write(Frame::Data { seq, id, una: seq, payload: &outgoing });
        let frame = frame.ok_or("write makes the WebSocket's ping of a message")?;
        let size = S::size(&outgoing);
        fits(frame.len() <= size, || format!("size says {size} bytes, the frame has {}: {frame}", frame.len()))?;
        let names = &self.kit.names;
        let mirrored = self.sender.clone().read(names, &frame).head;
        fits(!decides(mirrored), || format!("the sender's own frame, sent back, is {}", said(mirrored)))?;
        let Some((receiver, (_, content))) = self.receiver.as_mut().zip(self.kit.receiver.as_ref()) else {
            return Ok(());
        };
        let Heard { head: Some(Head::Data { id: read, key }), message: Some(message), .. } =
            receiver.read(names, &frame)
        else {
            return Err(format!("the receiver does not take it for a message: {frame}"));
        };
        fits(read == Some(id), || format!("sent as {id}, read as {read:?}: {frame}"))?;
        let content = content(&message);
        let same = match (serde_json::from_slice::<Value>(&json), serde_json::from_slice::<Value>(&content)) {
            (Ok(sent), Ok(read)) => same(&sent, &read),
            _ => *json == *content,
        };
        fits(same, || format!("the receiver reads {}", String::from_utf8_lossy(&content)))?;
        receiver.noted(id, &message);
        let ack = receiver.write(Frame::Ack { id }).ok_or("an acknowledgement is written as a ping")?;
        let head = self.sender.read(names, &ack).head;
        fits(head == Some(Head::Ack { id }), || format!("the sender of {id} reads {ack} as {}", said(head)))?;
        let Some(fallback) = self.kit.fallback.as_deref().and_then(|url| Target::http(url).ok()) else { return Ok(()) };
        let (target, body, _) = self.sender.post(&fallback, seq, seq, id, &outgoing);
        let served = receiver.routes().callbacks.iter().find(|path| **path == target.path());
        let path = *served.ok_or_else(|| format!("{} is not served", target.path()))?;
        fits(body.len() <= size, || format!("size says {size} bytes, the body has {}", body.len()))?;
        let callback = Callback { path, idempotency_key: Some(id.to_string()), body, ..Callback::empty(segment(path)) };
        match receiver.request(names, &callback).map(|heard| heard.head) {
            Ok(Some(Head::Data { id: posted, key: same })) => fits(posted == Some(id) && same == key, || {
                format!("by HTTP it is {posted:?} {same:?}, not {id} {key:?}")
            }),
            Ok(head) => Err(format!("by HTTP it is {}", said(head))),
            Err(answer) => Err(format!("by HTTP it is refused with {}", answer.status)),
        }
    }

    /// The answer to the POST of the newest message.
    fn answered(&mut self, what: &str) -> Result<(), String> {
        let (status, rest) = number(what);
        let (kind, body) = rest.split_once(' ').unwrap_or((rest, ""));
        let answer = HttpAnswer {
            content_type: Some(kind.to_ascii_lowercase()).filter(|kind| !kind.is_empty()),
            ..HttpAnswer::new(u16::try_from(status).unwrap_or(599).clamp(100, 999), body.to_owned())
        };
        let (_, id) = self.kit.id(self.last.max(1));
        let whole = self.sender.is_peers(id, &answer);
        fits(self.sender.is_peers(id, &answer) == whole, || "is_peers says another thing of the same answer".into())?;
        if !whole {
            return Ok(());
        }
        let words = self.sender.posted(id, &answer);
        let bytes = words.map_or(0, |words| words.message.len() + words.miner_stats.map_or(0, |stats| stats.len()));
        fits(bytes <= most(what.len()), || format!("{} bytes of a peer's became {bytes}", what.len()))
    }
}

/// One frame of a peer's, and what follows for the wire that reads it.
fn read<W: Wire>(wire: &mut W, names: &KeyedHash, frame: &str) -> Result<(), String> {
    let head = wire.clone().read(names, frame).head;
    let heard = wire.read(names, frame);
    fits(heard.head == head, || format!("a copy of the wire reads {}, the wire {}", said(head), said(heard.head)))?;
    weight::<W>(&heard, frame.len())?;
    let Some(message) = &heard.message else {
        return fits(!matches!(heard.head, Some(Head::Data { .. })), || "a message without a message".into());
    };
    fits(!W::describe(message).0.is_empty(), || "its sort has no name".into())?;
    wire.delivered(message);
    if let Some(head @ Head::Data { id: Some(id), .. }) = heard.head {
        wire.noted(id, message);
        let ack = acknowledgement(wire, head).unwrap_or_default();
        fits(ack.len() <= most(frame.len()), || format!("acknowledged by {} bytes", ack.len()))?;
    }
    Ok(())
}

/// One POST of a peer's.
fn request<W: Wire>(wire: &mut W, names: &KeyedHash, what: &str) -> Result<(), String> {
    let (n, rest) = number(what);
    let (key, body) = rest.split_once(' ').unwrap_or(("", rest));
    let paths = wire.routes().callbacks;
    let Some(path) = paths.get(n.checked_rem(paths.len()).unwrap_or_default()) else { return Ok(()) };
    // As the server hands them on.
    let key =
        Some(key.to_owned()).filter(|key| (1..=64).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()));
    let body = Bytes::copy_from_slice(body.as_bytes());
    let bytes = body.len();
    let callback = Callback { path, idempotency_key: key, body, ..Callback::empty(segment(path)) };
    match wire.request(names, &callback) {
        Ok(heard) => {
            let is_message = matches!(heard.head, Some(Head::Data { .. } | Head::Numbered { .. }));
            fits(is_message && heard.message.is_some(), || format!("{} is answered 2xx", said(heard.head)))?;
            weight::<W>(&heard, bytes)
        }
        Err(answer) => fits((400..600).contains(&answer.status), || format!("refused with {}", answer.status)),
    }
}

/// Equal but for the last bit of a float, which a reader may get wrong.
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Number(a), Value::Number(b)) => {
            let near = |(a, b): (f64, f64)| (a - b).abs() <= a.abs().max(b.abs()) * 4.0 * f64::EPSILON;
            a == b || a.as_f64().zip(b.as_f64()).is_some_and(near)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => one == two,
    }
}

/// The number with which a text begins, and what follows it and a space.
fn number(text: &str) -> (usize, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.parse().unwrap_or_default(), rest.strip_prefix(' ').unwrap_or(rest))
}
