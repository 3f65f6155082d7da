//! What a hostile or broken peer may do to either end of a wire, and what it remembers.
//!
//! ```text
//! frames of ours, recorded ones ─▶ flip, cut, double, splice, insert ─▶ read, noted, write(Ack), request
//! garbage ───────────────────────────────────────────────────────────▶ read
//! messages of very many ids ─▶ read, noted, never acknowledged ──────▶ the wire's Debug grows no more
//! messages that end ─────────▶ accepted, write, settled ─────────────▶ the wire's Debug is what it was
//! ```
//!
//! Invariant: the damage is drawn from a seed of its own, so every run does the same.

use super::{Conformance, Written, decides, fits, quietly, said, segment, text};
use crate::conformance::{Check, Report};
use crate::http::{Bytes, Callback};
use crate::wire::{Heard, Wire};
use bowline::wire::KeyedHash;
use bowline::{Frame, Head, SplitMix64};
use core::fmt;

/// So often is every frame damaged.
pub(super) const ROUNDS: usize = 500;

/// A damaged message may weigh so many times its frame, and so much more: no number in it may choose.
const WEIGHT: (usize, usize) = (64, 4096);

/// So many ids come in before a wire must have begun to forget: more than 65,536 of a peer's own spelling, which Gonka's
/// keeps, and a thousand times what an inbox holds unacknowledged by default.
const STRANGERS: u64 = 80_000;

/// … and so many before it is first looked at: a wire that keeps no more is done soon.
const FEW: u64 = 1_000;

/// So many messages live and end.
const LIVES: u64 = 300;

/// What JSON and lines are made of, and what breaks their readers.
const PIECES: [&str; 16] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\",
    "\0",
    "\\ud800",
    " ",
    "1e999",
    "-",
    "null",
    "\u{202e}",
    "99999999999999999999",
];

/// Bodies that no wire has a use for.
pub(super) const NO_MESSAGE: [&[u8]; 7] =
    [b"", b"\xff\xfe\xfd", b"{", b"[]", b"null", b"\0\0\0\0", b"no message at all"];

impl<S: Wire, R: Wire> Conformance<'_, S, R> {
    pub(super) fn hostile(&self, report: &mut Report) {
        let mut from_sender = self.recorded.clone();
        let mut from_receiver = self.answers.clone();
        // What neither writes has been found by other checks.
        for sample in &self.samples {
            let Ok(Written { frame, .. }) = quietly(|| self.written(sample, 1)) else { continue };
            if let Some((receiver, _)) = &self.receiver {
                let mut receiver = receiver.clone();
                from_receiver.extend(quietly(|| {
                    receiver
                        .read(&self.names, &frame)
                        .head
                        .and_then(|head| acknowledgement(&mut receiver, head))
                        .ok_or(String::new())
                }));
            }
            from_sender.push(frame);
        }
        let seed = 0x0c0f_fee0;
        match &self.receiver {
            Some((receiver, _)) => {
                end(receiver, &self.names, &from_sender, seed, report);
                end(&self.sender, &self.names, &from_receiver, seed, report);
                self.posts(receiver, &from_sender, report);
                report.probe(Check::Memory, "ids without end", || self.strangers(receiver));
            }
            None => {
                end(&self.sender, &self.names, &from_sender, seed, report);
                self.posts(&self.sender, &from_sender, report);
            }
        }
        for sample in &self.samples {
            report.probe(Check::Memory, &text(&sample.1), || self.lives(sample));
        }
    }

    /// Bodies that say nothing are refused; damaged ones cause no panic either.
    fn posts<W: Wire>(&self, wire: &W, frames: &[String], report: &mut Report) {
        let mut damage = Damage::new(0xbad_b0d1);
        for path in wire.routes().callbacks {
            let segment = segment(path);
            for body in NO_MESSAGE {
                let body = Bytes::from_static(body);
                report.probe(Check::HttpGarbage, &text(&body), || {
                    let callback = Callback { path, body: body.clone(), ..Callback::empty(segment) };
                    match wire.clone().request(&self.names, &callback) {
                        Ok(heard) => Err(format!("{path} takes it for {}, and answers 2xx", said(heard.head))),
                        Err(answer) => fits((400..500).contains(&answer.status), || {
                            format!("{path} answers {}, as if it were not the sender's fault", answer.status)
                        }),
                    }
                });
            }
            for frame in frames {
                for _ in 0..ROUNDS / 4 {
                    let body = damage.bytes(frame.as_bytes(), frames);
                    report.probe(Check::Mutation, &text(&body), || {
                        let key = Some(text(&body).chars().filter(char::is_ascii_graphic).take(64).collect());
                        let callback = Callback {
                            path,
                            idempotency_key: key,
                            body: Bytes::from(body.clone()),
                            ..Callback::empty(segment)
                        };
                        wire.clone()
                            .request(&self.names, &callback)
                            .map_or(Ok(()), |heard| weight::<W>(&heard, body.len()))
                    });
                }
            }
        }
    }

    /// Messages of ever new ids, in our spelling and in a peer's, that are delivered and not acknowledged yet.
    fn strangers(&self, receiver: &R) -> Result<(), String> {
        let mut receiver = receiver.clone();
        let Some(sample) = self.samples.first() else { return Ok(()) };
        let written = self.written(sample, 1)?;
        let ours = written.id.to_string();
        let (mut known, mut size, mut look) = (0, 0, FEW);
        for n in 0_u64.. {
            let other = if n % 8 == 0 { self.id(n).1.to_string() } else { format!("peer-{n:020}") };
            let heard = receiver.read(&self.names, &written.frame.replace(&ours, &other));
            if let (Some(Head::Data { id: Some(id), .. }), Some(message)) = (heard.head, &heard.message) {
                receiver.noted(id, message);
            }
            if n == look {
                (known, size) = (n, weigh(&receiver));
            }
            if n == look.saturating_add(look / 4) {
                let more = weigh(&receiver);
                if more <= size.saturating_add(size / 16).saturating_add(256) {
                    break;
                }
                let why = || format!("after {known} ids its Debug has {size} bytes, after {n} {more}");
                fits(known < STRANGERS, why)?;
                look = n.saturating_mul(4).min(STRANGERS);
            }
        }
        Ok(())
    }

    /// Messages that are accepted, written and end leave nothing behind.
    fn lives(&self, sample: &(&S::Kind, Bytes)) -> Result<(), String> {
        let (kind, json) = sample;
        let mut sender = self.sender.clone();
        let mut size = 0;
        for n in 1..=LIVES {
            let outgoing = sender.prepare(kind, json);
            let outgoing =
                outgoing.map_err(|why| format!("when message {n} begins, and all before have ended: {why}"))?;
            let (seq, id) = self.id(n);
            sender.accepted(id, &outgoing);
            let _ = sender.write(Frame::Data { seq, id, una: seq, payload: &outgoing });
            sender.settled(id);
            if n == 1 {
                size = weigh(&sender);
            }
        }
        let more = weigh(&sender);
        fits(more <= size.saturating_add(1024), || {
            format!("when one message has ended its Debug has {size} bytes, after {LIVES} {more}")
        })
    }
}

/// One end, and all that may come in there.
fn end<W: Wire>(wire: &W, names: &KeyedHash, frames: &[String], seed: u64, report: &mut Report) {
    let mut damage = Damage::new(seed);
    for frame in frames {
        // One copy lives through all of it, as a connection would, until it panics.
        let mut living = Some(wire.clone());
        for _ in 0..ROUNDS {
            let damaged = text(&damage.bytes(frame.as_bytes(), frames));
            let mut copy = living.take().unwrap_or_else(|| wire.clone());
            report.probe(Check::Mutation, &damaged, || {
                let heard = copy.read(names, &damaged);
                weight::<W>(&heard, damaged.len())?;
                if let Some(message) = &heard.message {
                    copy.delivered(message);
                }
                if let (Some(head @ Head::Data { id: Some(id), .. }), Some(message)) = (heard.head, &heard.message) {
                    copy.noted(id, message);
                    let ack = acknowledgement(&mut copy, head).unwrap_or_default();
                    fits(ack.len() <= most(damaged.len()), || format!("acknowledged by {} bytes", ack.len()))?;
                }
                living = Some(copy);
                Ok(())
            });
        }
    }
    for garbage in garbage(&mut damage) {
        report.probe(Check::Garbage, &garbage, || {
            let head = wire.clone().read(names, &garbage).head;
            let harmless = !decides(head) && !matches!(head, Some(Head::Data { .. }));
            fits(harmless, || format!("{} bytes of garbage are {}", garbage.len(), said(head)))
        });
    }
}

pub(super) fn acknowledgement<W: Wire>(wire: &mut W, head: Head) -> Option<String> {
    match head {
        Head::Data { id: Some(id), .. } => wire.write(Frame::Ack { id }),
        _ => None,
    }
}

pub(super) const fn most(bytes: usize) -> usize {
    bytes.saturating_mul(WEIGHT.0).saturating_add(WEIGHT.1)
}

pub(super) fn weight<W: Wire>(heard: &Heard<W::Incoming>, bytes: usize) -> Result<(), String> {
    let weight = heard.message.as_ref().map_or(0, |message| W::describe(message).1);
    fits(weight <= most(bytes), || format!("{bytes} bytes of a peer's became a message of {weight}"))?;
    let said: usize = heard.say.iter().map(String::len).sum();
    fits(said <= most(bytes), || format!("{bytes} bytes of a peer's are answered with {said}"))
}

/// How much the wire shows of itself.
pub(super) fn weigh(wire: &impl fmt::Debug) -> usize {
    struct Count(usize);
    impl fmt::Write for Count {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 = self.0.saturating_add(text.len());
            Ok(())
        }
    }
    let mut count = Count(0);
    let _ = fmt::write(&mut count, format_args!("{wire:?}"));
    count.0
}

/// Texts that no wire has a use for.
pub(super) fn garbage(damage: &mut Damage) -> Vec<String> {
    let mut garbage: Vec<String> =
        ["", " ", "\0", "{", "}", "\"", "[]", "[[]]", "null", "-", "1e999", "\u{feff}{}", "\"\\ud800\""]
            .map(Into::into)
            .into();
    garbage.push("[".repeat(100_000));
    garbage.push("{\"a\":".repeat(50_000));
    garbage.push("9".repeat(1_000_000));
    garbage.push("é".repeat(500_000));
    garbage.push(format!("\"{}", "\\".repeat(1_000_001)));
    garbage.extend((0..ROUNDS).map(|_| {
        let bytes: Vec<u8> = (0..damage.below(200)).map(|_| damage.byte()).collect();
        text(&bytes)
    }));
    garbage
}

pub(super) struct Damage(SplitMix64);

impl Damage {
    pub(super) const fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        let most = u64::try_from(end).unwrap_or(u64::MAX).saturating_sub(1);
        usize::try_from(self.0.up_to(most)).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        self.0.next_u64().to_le_bytes()[0]
    }

    /// Two places in so many bytes, in order.
    fn range(&mut self, len: usize) -> core::ops::Range<usize> {
        let (one, two) = (self.below(len + 1), self.below(len + 1));
        one.min(two)..one.max(two)
    }

    /// The frame, damaged in one to four places.
    pub(super) fn bytes(&mut self, frame: &[u8], others: &[String]) -> Vec<u8> {
        let mut bytes = frame.to_vec();
        for _ in 0..=self.below(4) {
            let (at, range) = (self.below(bytes.len() + 1), self.range(bytes.len()));
            match self.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => drop(bytes.drain(range)),
                // Doubled, once: twice as long at most.
                3 => {
                    let part = bytes[range].to_vec();
                    bytes.splice(at..at, part);
                }
                4 => {
                    // A number that grows is what a reader that believes lengths falls for.
                    let digit = bytes[at..].iter().position(u8::is_ascii_digit).unwrap_or_default();
                    let grown = self.below(2) == 0;
                    let at = if grown { at + digit } else { at };
                    let piece = if grown { "99999999" } else { PIECES[self.below(PIECES.len())] };
                    bytes.splice(at..at, piece.bytes());
                }
                5 if !others.is_empty() => {
                    let other = others[self.below(others.len())].as_bytes();
                    let from = self.below(other.len() + 1);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
                _ => {
                    let byte = self.byte();
                    bytes.splice(at..at, [byte]);
                }
            }
        }
        bytes
    }
}
