//! What both ends of a wire must agree on.
//!
//! ```text
//!  sender: prepare ─▶ write ─▶ frame ─▶ receiver: read ─▶ noted ─▶ write ─▶ acknowledgement ─▶ sender: read
//!               └───▶ post ──▶ body ──▶ receiver: request ─▶ answer ─▶ sender: posted
//! ```
//!
//! Invariant: every case begins with fresh copies of both, so that no case depends on another.

use super::{Conformance, Content, Written, fits, said, segment, text};
use crate::conformance::{Check, Report};
use crate::http::{Bytes, Callback, Target};
use crate::wire::{Heard, Wire};
use bowline::{ContentKey, Frame, Head, HttpClass, MessageId, Seq};
use core::time::Duration;
use serde_json::Value;

/// Spellings of ids that are not ours; two that differ in the case of a letter, or in a zero, are two.
const FOREIGN: [&str; 6] = ["17", "017", "peer-a", "peer-A", "0", "x"];

/// Fields that nobody knows, for the beginning and the end of an object.
const UNKNOWN: &str = r#""x-unknown":{"a":[1,-2.5e3,{"b":null}],"c":"\"},{"},"x-other":[]"#;

/// A message as it was read: its id, its content key, itself.
type Got<T> = Result<(Option<MessageId>, Option<ContentKey>, T), String>;

pub(super) struct Pair<'k, 'a, S: Wire, R: Wire> {
    pub(super) kit: &'k Conformance<'a, S, R>,
    pub(super) receiver: &'k R,
    pub(super) content: &'k Content<'a, R::Incoming>,
}

impl<'a, S: Wire, R: Wire> Pair<'_, 'a, S, R> {
    pub(super) fn run(&self, report: &mut Report) {
        for sample in &self.kit.samples {
            let name = text(&sample.1);
            for n in [Seq::FIRST, Seq::LAST].map(Seq::get) {
                report.probe(Check::RoundTrip, &name, || self.round_trip(sample, n));
            }
            report.probe(Check::Identity, &name, || self.again(sample));
            report.probe(Check::Identity, &name, || self.apart(sample));
            report.probe(Check::Acknowledge, &name, || self.acknowledge(sample));
            for foreign in FOREIGN {
                report.probe(Check::Echo, foreign, || self.echo(sample, foreign));
            }
            report.probe(Check::Describe, &name, || self.describe(sample));
            if self.kit.json {
                self.tolerance(sample, report);
            }
            if let Some(fallback) = &self.kit.fallback {
                report.probe(Check::HttpRoute, fallback, || self.callback(sample, fallback).map(drop));
                report.probe(Check::HttpRoundTrip, &name, || self.http_round_trip(sample, fallback));
                report.probe(Check::HttpAnswer, &name, || self.http_answer(sample));
            }
        }
        self.limits(report);
    }

    /// What the message is to the receiver: its id, its key, itself.
    fn message(heard: Heard<R::Incoming>) -> Got<R::Incoming> {
        match (heard.head, heard.message) {
            (Some(Head::Data { id, key }), Some(message)) => Ok((id, key, message)),
            (head, _) => Err(format!("the receiver takes it for {}", said(head))),
        }
    }

    fn read(&self, frame: &str) -> Got<R::Incoming> {
        Self::message(self.receiver.clone().read(&self.kit.names, frame))
    }

    fn same(&self, json: &Bytes, message: &R::Incoming) -> Result<(), String> {
        let content = (self.content)(message);
        let same = match (serde_json::from_slice::<Value>(json), serde_json::from_slice::<Value>(&content)) {
            (Ok(sent), Ok(read)) => sent == read,
            _ => **json == *content,
        };
        fits(same, || format!("the receiver reads {}", text(&content)))
    }

    fn round_trip(&self, sample: &(&S::Kind, Bytes), n: u64) -> Result<(), String> {
        let Written { id, frame, .. } = self.kit.written(sample, n)?;
        let (read, _, message) = self.read(&frame)?;
        fits(read == Some(id), || format!("sent as {id}, read as {read:?}: {frame}"))?;
        self.same(&sample.1, &message)
    }

    /// Written a second time, it is the same to a receiver that has seen the first.
    fn again(&self, sample: &(&S::Kind, Bytes)) -> Result<(), String> {
        let Written { mut sender, outgoing, seq, id, frame } = self.kit.written(sample, 1)?;
        let second =
            sender.write(Frame::Data { seq, id, una: seq, payload: &outgoing }).ok_or("the second write is a ping")?;
        let mut receiver = self.receiver.clone();
        let (first_id, first_key, message) = Self::message(receiver.read(&self.kit.names, &frame))?;
        if let Some(id) = first_id {
            receiver.noted(id, &message);
        }
        let (second_id, second_key, _) = Self::message(receiver.read(&self.kit.names, &second))?;
        fits((first_id, first_key) == (second_id, second_key), || {
            format!("first {first_id:?} {first_key:?}, then {second_id:?} {second_key:?}: {second}")
        })
    }

    /// Two messages that say the same have two ids, and so have two of a peer's whose spellings differ.
    fn apart(&self, sample: &(&S::Kind, Bytes)) -> Result<(), String> {
        let (one, two) = (self.kit.written(sample, 1)?, self.kit.written(sample, 2)?);
        let (first, second) = (self.read(&one.frame)?.0, self.read(&two.frame)?.0);
        fits(first != second, || format!("two messages are read as {first:?}: {}", two.frame))?;
        let mut seen = Vec::new();
        for foreign in FOREIGN {
            let Some(frame) = one.spelled(foreign) else { continue };
            let Ok((Some(id), ..)) = self.read(&frame) else { continue };
            fits(!seen.contains(&id), || format!("the id {foreign:?} is read as another's: {frame}"))?;
            seen.push(id);
        }
        Ok(())
    }

    /// The receiver's acknowledgement of a frame that it reads as a message with an id.
    fn acknowledged(&self, receiver: &mut R, frame: &str) -> Result<String, String> {
        let (id, _, message) = Self::message(receiver.read(&self.kit.names, frame))?;
        let id = id.ok_or("read without an id, it can never be acknowledged")?;
        receiver.noted(id, &message);
        receiver.write(Frame::Ack { id }).ok_or_else(|| "an acknowledgement is written as a ping".into())
    }

    fn acknowledge(&self, sample: &(&S::Kind, Bytes)) -> Result<(), String> {
        let Written { mut sender, id, frame, .. } = self.kit.written(sample, 1)?;
        let mut receiver = self.receiver.clone();
        // Twice: the first may have been lost with its connection.
        for _ in 0..2 {
            let ack = self.acknowledged(&mut receiver, &frame)?;
            let head = sender.read(&self.kit.names, &ack).head;
            fits(head == Some(Head::Ack { id }), || format!("the sender of {id} reads {ack} as {}", said(head)))?;
            let head = self.receiver.clone().read(&self.kit.names, &ack).head;
            fits(!matches!(head, Some(Head::Data { .. })), || format!("{ack} is a message to the receiver"))?;
        }
        Ok(())
    }

    fn echo(&self, sample: &(&S::Kind, Bytes), foreign: &str) -> Result<(), String> {
        let Some(frame) = self.kit.written(sample, 1)?.spelled(foreign) else { return Ok(()) };
        if !matches!(self.read(&frame), Ok((Some(_), ..))) {
            return Ok(()); // it takes ids of our own sort alone
        }
        let mut receiver = self.receiver.clone();
        for _ in 0..2 {
            let ack = self.acknowledged(&mut receiver, &frame)?;
            fits(ack.contains(foreign), || format!("{frame} is acknowledged by {ack}"))?;
        }
        Ok(())
    }

    fn describe(&self, sample: &(&S::Kind, Bytes)) -> Result<(), String> {
        let (.., message) = self.read(&self.kit.written(sample, 1)?.frame)?;
        let (sort, bytes) = R::describe(&message);
        fits(!sort.is_empty(), || "its sort has no name".into())?;
        fits(bytes > 0, || "without a size, any number of them may wait at the application".into())
    }

    fn tolerance(&self, sample: &(&S::Kind, Bytes), report: &mut Report) {
        let Ok(Written { frame, id, .. }) = self.kit.written(sample, 1) else { return };
        for other in variants(&frame) {
            report.probe(Check::Tolerance, &other, || {
                let ((one_id, one_key, _), (two_id, two_key, message)) = (self.read(&frame)?, self.read(&other)?);
                fits((one_id, one_key) == (two_id, two_key), || {
                    format!("plain it is {one_id:?} {one_key:?}, so {two_id:?} {two_key:?}")
                })?;
                self.same(&sample.1, &message)
            });
        }
        let Ok(ack) = self.acknowledged(&mut self.receiver.clone(), &frame) else { return };
        for other in variants(&ack) {
            report.probe(Check::Tolerance, &other, || {
                let Written { mut sender, .. } = self.kit.written(sample, 1)?;
                let head = sender.read(&self.kit.names, &other).head;
                fits(head == Some(Head::Ack { id }), || format!("the sender of {id} reads it as {}", said(head)))
            });
        }
    }

    fn limits(&self, report: &mut Report) {
        let Some(config) = self.kit.settings else { return };
        report.probe(Check::Limit, "the sender's settings", || {
            config.check().map_err(|error| error.to_string())?;
            let (sent, read) = (config.outbox.frame_limit, self.receiver.longest_frame());
            fits(usize::try_from(sent).is_ok_and(|sent| sent <= read), || {
                format!("outbox.frame_limit lets {sent} bytes through, the receiver reads frames of {read}")
            })?;
            let (posted, taken) = (config.outbox.post_limit, self.receiver.limits().body_bytes);
            fits(self.kit.fallback.is_none() || u64::from(posted) <= taken, || {
                format!("outbox.post_limit lets {posted} bytes through, the receiver takes bodies of {taken}")
            })
        });
    }

    /// The sample as it would arrive at the receiver by HTTP.
    fn callback(&self, sample: &(&S::Kind, Bytes), fallback: &str) -> Result<(Callback, MessageId), String> {
        let fallback = Target::http(fallback).map_err(|error| error.to_string())?;
        let Written { mut sender, outgoing, seq, id, .. } = self.kit.written(sample, 1)?;
        let (target, body, _) = sender.post(&fallback, seq, seq, id, &outgoing);
        let served = self.receiver.routes().callbacks;
        let route = served.iter().find(|path| **path == target.path());
        let route = route.ok_or_else(|| format!("posted to {}, served are {served:?}", target.path()))?;
        let size = S::size(&outgoing);
        fits(body.len() <= size, || format!("size says {size} bytes, the body has {}", body.len()))?;
        Ok((
            Callback { path: route, idempotency_key: Some(id.to_string()), body, ..Callback::empty(segment(route)) },
            id,
        ))
    }

    fn http_round_trip(&self, sample: &(&S::Kind, Bytes), fallback: &str) -> Result<(), String> {
        let (_, frame_key, _) = self.read(&self.kit.written(sample, 1)?.frame)?;
        let (callback, id) = self.callback(sample, fallback)?;
        let body = text(&callback.body);
        let heard = self.receiver.clone().request(&self.kit.names, &callback);
        let heard = heard.map_err(|answer| format!("refused with {}: {body}", answer.status))?;
        let (read, key, message) = Self::message(heard)?;
        fits(read == Some(id), || format!("posted as {id}, read as {read:?}: {body}"))?;
        fits(key == frame_key, || format!("its content key is {key:?}, that of the frame {frame_key:?}: {body}"))?;
        self.same(&sample.1, &message)
    }

    fn http_answer(&self, sample: &(&S::Kind, Bytes)) -> Result<(), String> {
        let after = Duration::from_secs(7);
        for answer in [
            bowline::Answer::Done,
            bowline::Answer::Again { after },
            bowline::Answer::Busy { after },
            bowline::Answer::Rejected,
            bowline::Answer::Reused,
        ] {
            let said = self.receiver.answer(answer);
            let Written { sender, id, .. } = self.kit.written(sample, 1)?;
            let seen = said.seen();
            let outcome = seen.outcome(sender.is_peers(id, &seen));
            let agreed = match answer {
                bowline::Answer::Done | bowline::Answer::Polled => outcome.class() == HttpClass::Delivered,
                bowline::Answer::Unknown => seen.status == 404,
                bowline::Answer::Again { after } => outcome.class() == HttpClass::DelayMessage && seen.after == after,
                bowline::Answer::Busy { after } => [409, 503].contains(&seen.status) && seen.after == after,
                bowline::Answer::Rejected | bowline::Answer::Reused => outcome.class() == HttpClass::Rejected,
            };
            fits(agreed, || format!("the receiver's {answer:?} is {}, to the sender {outcome:?}", seen.status))?;
        }
        Ok(())
    }
}

impl<S: Wire> Written<S> {
    /// The frame, had a peer of another sort chosen the id; `None` where it is not spelled in it.
    fn spelled(&self, foreign: &str) -> Option<String> {
        let ours = self.id.to_string();
        self.frame.contains(&ours).then(|| self.frame.replace(&ours, foreign))
    }
}

/// The same JSON object, spelled otherwise: with white space, with fields that nobody knows.
fn variants(frame: &str) -> Vec<String> {
    let Some(inside) = frame.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return Vec::new();
    };
    let spaced = spaced(frame);
    let comma = if inside.trim().is_empty() { "" } else { "," };
    vec![
        format!("\r\n\t {frame} \n"),
        format!("{{{UNKNOWN}{comma}{inside}}}"),
        format!("{{{inside}{comma}{UNKNOWN}}}"),
        spaced,
    ]
}

/// White space around every token.
fn spaced(frame: &str) -> String {
    let mut spaced = String::with_capacity(frame.len().saturating_mul(2));
    let (mut inside, mut escaped) = (false, false);
    for letter in frame.chars() {
        let structure = !inside && "{}[],:".contains(letter);
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = inside,
            '"' => inside = !inside,
            _ => {}
        }
        if structure {
            spaced.extend([' ', letter, '\n']);
        } else {
            spaced.push(letter);
        }
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_says_the_same_and_nothing_but_what_was_added() {
        let frame = r#"{"a":"b\\\",{c","d":[1,{}],"e":-1.5}"#;
        let plain: Value = serde_json::from_str(frame).unwrap();
        let [outside, first, last, spaced] = variants(frame).try_into().unwrap();
        for same in [outside, spaced] {
            assert_ne!(same, frame);
            assert_eq!(serde_json::from_str::<Value>(&same).unwrap(), plain);
        }
        for more in [first, last] {
            let mut more: Value = serde_json::from_str(&more).unwrap();
            let fields = more.as_object_mut().unwrap();
            assert!(fields.remove("x-unknown").is_some() && fields.remove("x-other").is_some());
            assert_eq!(more, plain);
        }
        assert!(variants("A 17").is_empty());
        assert_eq!(variants("{}").len(), 4);
    }
}
