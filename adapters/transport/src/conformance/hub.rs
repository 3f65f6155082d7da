//! The checks for a hub's side: what a [`HubWire`] writes for many, and what many may do to it.
//!
//! ```text
//!  samples ─▶ encode ─▶ size, frame ─▶ no longer than size says, and than peers read
//!                └────▶ placed ──────▶ the same
//!  recorded frames ─▶ read ─▶ understood
//!     └─ damaged, garbage ─▶ claim, holds, read, letter ─▶ no panic, nothing absurd; garbage is no letter and nobody's claim
//! ```
//!
//! Invariants: as of the other checks. Its limit: what the two ends make of each other is seen on a connection alone.

use super::hostile::{Damage, NO_MESSAGE, ROUNDS, garbage, most};
use super::{STEPS, fits, foreign, text};
use crate::conformance::{Check, Report};
use crate::http::Bytes;
use crate::hub::{Heard, HubWire, Said};
use bowline::hub::{Position, TopicName};
use bowline::wire::KeyedHash;

/// A hub's wire, and what its author knows about it.
///
/// ```
/// use bowline_transport::conformance::{Check, HubConformance};
/// use bowline_transport::hub::HubSetup;
///
/// let setup = HubSetup::village("127.0.0.1:0")?;
/// let report = HubConformance::new(setup.wire(), "a viewer".parse()?)
///     .sample("training_progress", r#"{"session_id":"sess-1","progress":0.5}"#)
///     .refused("training_progress", "no JSON")
///     .recorded(r#"{"type":"subscribe","topic":"training"}"#)
///     .run();
/// report.assert();
/// assert!(report.cases(Check::Mutation) > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is checked before it runs"]
pub struct HubConformance<'a, W: HubWire> {
    wire: &'a W,
    peer: W::Peer,
    samples: Vec<(&'a str, &'a str)>,
    refused: Vec<(&'a str, &'a str)>,
    recorded: Vec<String>,
    names: KeyedHash,
}

impl<'a, W: HubWire> HubConformance<'a, W> {
    /// The wire, and somebody it might speak with.
    pub fn new(wire: &'a W, peer: W::Peer) -> Self {
        let names = KeyedHash::new(*b"conformance kit.");
        Self { wire, peer, samples: Vec::new(), refused: Vec::new(), recorded: Vec::new(), names }
    }

    /// A message that the hub's application may publish: its kind and its data.
    pub fn sample(mut self, kind: &'a str, data: &'a str) -> Self {
        self.samples.push((kind, data));
        self
    }

    /// A message that must not be accepted.
    pub fn refused(mut self, kind: &'a str, data: &'a str) -> Self {
        self.refused.push((kind, data));
        self
    }

    /// A frame of a real peer's, after it was let in. It must be understood.
    pub fn recorded(mut self, frame: impl Into<String>) -> Self {
        self.recorded.push(frame.into());
        self
    }

    /// Runs all checks that apply.
    pub fn run(&self) -> Report {
        let mut report = Report::default();
        for (kind, data) in &self.samples {
            report.probe(Check::Prepare, data, || self.wire.encode(kind, data).map(drop).map_err(Into::into));
            report.probe(Check::Size, data, || self.encoded(&self.wire.encode(kind, data)?));
        }
        for (kind, data) in &self.refused {
            report.probe(Check::Prepare, data, || {
                fits(self.wire.encode(kind, data).is_err(), || "encode takes what no peer could".into())
            });
        }
        for frame in &self.recorded {
            report.probe(Check::Recorded, frame, || {
                let heard = self.read(frame);
                fits(!matches!(heard.said, Said::Malformed), || "what a real peer sent is malformed".into())
            });
        }
        self.hostile(&mut report);
        report
    }

    /// Plays one input of a fuzzer, or a script that one has left: text, a step a line. A line `+ kind data` is published
    /// by the hub's application, any other is a frame or a body of a peer's, which comes in by every way there is. A
    /// vertical tab stands for a line break inside a line. Any bytes are an input.
    ///
    /// ```
    /// use bowline_transport::conformance::HubConformance;
    /// use bowline_transport::hub::HubSetup;
    ///
    /// let setup = HubSetup::village("127.0.0.1:0")?;
    /// let kit = HubConformance::new(setup.wire(), "a viewer".parse()?);
    /// kit.fuzz(b"{\"type\":\"subscribe\",\"topic\":\"training\"}\n+ custom {\"n\":1}\n{\"type\":");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    /// Something does not hold; the message says what, and on which line.
    pub fn fuzz(&self, input: &[u8]) {
        for line in String::from_utf8_lossy(input).lines().take(STEPS) {
            let line = line.replace('\u{b}', "\n");
            let step = match line.strip_prefix('+') {
                Some(said) => {
                    let said = said.strip_prefix(' ').unwrap_or(said);
                    let (kind, data) = said.split_once(' ').unwrap_or((said, "{}"));
                    self.wire.encode(kind, data).map_or(Ok(()), |encoded| self.encoded(&encoded))
                }
                None => self.everything(&line),
            };
            if let Err(why) = step {
                panic!("{why}\n    on: {line}");
            }
        }
    }

    /// By itself and with a place in a topic, a message fits its size.
    fn encoded(&self, encoded: &W::Encoded) -> Result<(), String> {
        self.sized(encoded)?;
        let topic = TopicName::new("topic").map_err(|bad| format!("{bad:?}"))?;
        let at = Position { epoch: u32::MAX, offset: u64::MAX };
        self.wire.placed(encoded, &topic, at).map_or(Ok(()), |placed| self.sized(&placed))
    }

    fn read(&self, frame: &str) -> Heard {
        self.wire.read(&self.names, &self.peer, &Bytes::copy_from_slice(frame.as_bytes()))
    }

    fn sized(&self, encoded: &W::Encoded) -> Result<(), String> {
        let (size, long) = (W::size(encoded), self.wire.frame(encoded, &self.peer).as_str().len());
        fits(long <= size, || format!("size says {size} bytes, the frame has {long}"))
    }

    /// What came in, and was answered, weighs no more than so many bytes may.
    fn weighed(heard: &Heard, bytes: usize) -> Result<(), String> {
        let message = match &heard.said {
            Said::Message(content) => {
                let id = content.id.as_ref().map_or(0, |id| id.len());
                content.kind.len().saturating_add(content.data.len()).saturating_add(id)
            }
            Said::Subscribe(wish) | Said::Unsubscribe(wish) => {
                [&wish.yes, &wish.no].into_iter().flatten().map(|answer| answer.as_str().len()).sum()
            }
            Said::Other | Said::Malformed | Said::Pong | Said::Status => 0,
        };
        let weight = message.saturating_add(heard.reply.as_ref().map_or(0, |reply| reply.as_str().len()));
        fits(weight <= most(bytes), || format!("{bytes} bytes of a peer's became {weight}"))
    }

    fn hostile(&self, report: &mut Report) {
        let mut damage = Damage::new(0x0b0e_1190);
        for frame in &self.recorded {
            for _ in 0..ROUNDS {
                let damaged = text(&damage.bytes(frame.as_bytes(), &self.recorded));
                report.probe(Check::Mutation, &damaged, || self.everything(&damaged));
            }
        }
        for garbage in garbage(&mut damage) {
            report.probe(Check::Garbage, &garbage, || {
                self.everything(&garbage)?;
                let believed = self
                    .wire
                    .claim(&self.names, &garbage)
                    .is_some_and(|claim| self.wire.holds(&claim.peer, &claim.proof));
                fits(!believed, || "garbage proves who somebody is".into())
            });
        }
        for answer in foreign() {
            report.probe(Check::HttpForeign, &text(&answer.body), || {
                fits(!self.wire.is_peers(&answer), || format!("is_peers takes it for the peer's: {answer:?}"))
            });
        }
        for body in NO_MESSAGE {
            report.probe(Check::HttpGarbage, &text(body), || {
                let letter = self.wire.letter(&self.names, &Bytes::from_static(body));
                fits(letter.is_err(), || "it is taken for a letter".into())
            });
        }
    }

    /// By every way in.
    fn everything(&self, frame: &str) -> Result<(), String> {
        if let Some(claim) = self.wire.claim(&self.names, frame) {
            let _ = self.wire.holds(&claim.peer, &claim.proof);
        }
        Self::weighed(&self.read(frame), frame.len())?;
        let letter = self.wire.letter(&self.names, &Bytes::copy_from_slice(frame.as_bytes()));
        letter.map_or(Ok(()), |letter| Self::weighed(&letter.heard, frame.len()))
    }
}
