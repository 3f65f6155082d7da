//! The checks that our own wires pass, for the author of another.
//!
//! ```text
//!  samples ─▶ prepare ─▶ write ─▶ frame ──▶ read ─▶ content        the same message, id and all, by frame and by POST
//!                          ▲        │         └───▶ noted ─▶ write ─▶ acknowledgement ─▶ read ─▶ the sender's own id
//!                          │        ├── spelled otherwise, extended ─────────────▶ the same message, or none
//!                   each on a       └── bits flipped, cut, doubled, spliced ─────▶ no panic, nothing absurd
//!                   fresh copy     garbage, a million strangers ─────────────────▶ refused, and soon forgotten
//! ```
//!
//! It decides nothing about a wire's language: what has to be understood is written by the wire itself or given by its
//! author. Invariants: every run is the same, bit for bit; a panic of the wire's is a failure that names the frame, and
//! the checks go on; what a failure shows is bounded.
//!
//! # Fuzzing
//!
//! The same samples and the same two ends are a fuzz target as well: [`Conformance::fuzz`] plays an input, and
//! `HubConformance::fuzz` does for a hub's side. With [cargo-fuzz](https://rust-fuzz.github.io/book/) it is three lines:
//!
//! ```ignore
//! libfuzzer_sys::fuzz_target!(|input: &[u8]| {
//!     Conformance::pair(Thermometer, Thermometer, json).sample(&(), r#"{"sensor":4,"celsius":21.5}"#).fuzz(input);
//! });
//! ```
//!
//! An input is text, one step a line, so the file that the fuzzer leaves is a script to read; a test holds it as it is:
//!
//! ```
//! use bowline::wire::gonka::Kind;
//! use bowline_transport::Gonka;
//! use bowline_transport::conformance::Conformance;
//!
//! Conformance::pair(Gonka::ML_NODE, Gonka::API_NODE, |batch| batch.json.to_vec())
//!     .sample(&Kind::Generated, r#"{"nonces":[3,13],"node_id":3}"#)
//!     .fallback("http://api/v1/poc-batches")
//!     .fuzz(b"> {\"type\":\"generated\",\"id\":\"17\",\"nonces\":[]}\n+ 0\n= 502 text/html <h1>Bad Gateway</h1>\n- \n");
//! ```
//!
//! | a line begins with | what happens |
//! |---|---|
//! | `>`, or anything else | the receiver, or the wire that is alone, reads the rest as a frame |
//! | `<` | the sender reads it |
//! | `+` | the sender's application sends: the number of a sample, whose kind it is, and JSON, or the sample itself |
//! | `@` | a POST comes: the number of a path, its `Idempotency-Key`, its body |
//! | `=` | the answer to the sender's last POST: status, content type, body |
//! | `#` | the answer to a greeting or a poll of a native sender |
//! | `~`, `.`, `-` | a connection begins; a ping is due, and the application has room; the sender's oldest message has ended |
//!
//! Its limits: memory is seen through the wire's `Debug`, so what that hides is not measured; a stack that overflows ends
//! the process, as it would in service.

mod fuzz;
mod hostile;
#[cfg(feature = "hub")]
mod hub;
mod pair;
mod report;

#[cfg(feature = "hub")]
pub use hub::HubConformance;
pub use report::{Check, Failure, Report};

use crate::http::{Bytes, HttpAnswer};
use crate::node::Refused;
use crate::wire::{Heard, Wire};
use bowline::wire::KeyedHash;
use bowline::{Config, Frame, Head, MessageId, Origin, Seq};
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

/// A fuzzer's longer scripts are cut.
const STEPS: usize = 200;

/// After so many answers to answers it is a loop.
const ANSWERS: usize = 8;

/// The content of a message as JSON, for comparing.
type Content<'a, T> = Box<dyn Fn(&T) -> Vec<u8> + 'a>;

/// A wire, or both ends of one, and what its author knows about it.
///
/// Every check starts from a copy of the wire as it was given: one that wants a greeting before anything else is given when
/// it has had it.
///
/// ```
/// use bowline::GONKA_ML_NODE;
/// use bowline::wire::gonka::Kind;
/// use bowline_transport::Gonka;
/// use bowline_transport::conformance::{Check, Conformance};
///
/// let report = Conformance::pair(Gonka::ML_NODE, Gonka::API_NODE, |batch| batch.json.to_vec())
///     .sample(&Kind::Generated, r#"{"nonces":[3,13],"dist":[0.5,0.6],"node_id":3}"#)
///     .refused(&Kind::Validated, "no batch")
///     .ignored(r#"{"type":"of a later version","id":"1"}"#)
///     .json()
///     .settings(GONKA_ML_NODE)
///     .fallback("http://api/v1/poc-batches")
///     .run();
/// report.assert();
/// assert!(report.cases(Check::Mutation) > 0);
/// ```
#[must_use = "nothing is checked before it runs"]
pub struct Conformance<'a, S: Wire, R: Wire = S> {
    sender: S,
    receiver: Option<(R, Content<'a, R::Incoming>)>,
    samples: Vec<(&'a S::Kind, Bytes)>,
    refused: Vec<(&'a S::Kind, Bytes)>,
    recorded: Vec<String>,
    answers: Vec<String>,
    ignored: Vec<String>,
    json: bool,
    settings: Option<Config>,
    fallback: Option<String>,
    names: KeyedHash,
    origin: Origin,
}

impl<'a, S: Wire> Conformance<'a, S> {
    /// One end, where the other is no [`Wire`]: what it writes is checked for its size and its memory, what it reads for
    /// everything that can be seen from one side.
    pub fn alone(wire: S) -> Self {
        Self::of(wire, None)
    }
}

impl<'a, S: Wire, R: Wire> Conformance<'a, S, R> {
    /// Whoever sends and whoever receives and acknowledges, which may be the same wire twice. `content` gives what the
    /// application would read of a message, as JSON, for comparing with the sample.
    pub fn pair(sender: S, receiver: R, content: impl Fn(&R::Incoming) -> Vec<u8> + 'a) -> Self {
        Self::of(sender, Some((receiver, Box::new(content))))
    }

    fn of(sender: S, receiver: Option<(R, Content<'a, R::Incoming>)>) -> Self {
        Self {
            sender,
            receiver,
            samples: Vec::new(),
            refused: Vec::new(),
            recorded: Vec::new(),
            answers: Vec::new(),
            ignored: Vec::new(),
            json: false,
            settings: None,
            fallback: None,
            // No secret: a run must be the same every time.
            names: KeyedHash::new(*b"conformance kit."),
            origin: Origin::new(0xb0b1_17e5, 7),
        }
    }

    /// A message that the sender's application may send. Give one of each kind, and the extremes: the shortest, the
    /// longest, quotes, backslashes, letters beyond ASCII, numbers at the end of their range.
    pub fn sample(mut self, kind: &'a S::Kind, json: impl Into<Bytes>) -> Self {
        self.samples.push((kind, json.into()));
        self
    }

    /// A message that must not be accepted.
    pub fn refused(mut self, kind: &'a S::Kind, json: impl Into<Bytes>) -> Self {
        self.refused.push((kind, json.into()));
        self
    }

    /// A frame of a real peer's, for the receiver, or for the wire that is alone. It must be understood.
    pub fn recorded(mut self, frame: impl Into<String>) -> Self {
        self.recorded.push(frame.into());
        self
    }

    /// A frame of a real peer's, for the sender. It must be understood.
    pub fn recorded_answer(mut self, frame: impl Into<String>) -> Self {
        self.answers.push(frame.into());
        self
    }

    /// A frame that must be no message and no acknowledgement to either end, and no offence: of a type that a later
    /// version may have.
    pub fn ignored(mut self, frame: impl Into<String>) -> Self {
        self.ignored.push(frame.into());
        self
    }

    /// Frames are JSON objects: other white space, and fields that nobody knows, must change nothing.
    pub fn json(mut self) -> Self {
        self.json = true;
        self
    }

    /// The settings of the sender's session: what they let through must be within what the receiver reads.
    pub fn settings(mut self, config: Config) -> Self {
        self.settings = Some(config);
        self
    }

    /// Where the sender posts, with the receiver's base path: the HTTP side is checked, too.
    pub fn fallback(mut self, url: impl Into<String>) -> Self {
        self.fallback = Some(url.into());
        self
    }

    /// Runs all checks that apply; a few seconds at most without optimisation.
    pub fn run(&self) -> Report {
        let mut report = Report::default();
        self.outgoing(&mut report);
        self.understood(&mut report);
        self.quiet(&mut report);
        if let Some((receiver, content)) = &self.receiver {
            pair::Pair { kit: self, receiver, content }.run(&mut report);
        }
        self.hostile(&mut report);
        report
    }

    /// The id of the n-th message.
    fn id(&self, n: u64) -> (Seq, MessageId) {
        let seq = Seq::from_number(n);
        (seq, self.origin.message(seq))
    }

    /// A fresh sender that has accepted the message as its n-th and written it.
    fn written(&self, (kind, json): &(&S::Kind, Bytes), n: u64) -> Result<Written<S>, String> {
        let mut sender = self.sender.clone();
        let outgoing = sender.prepare(kind, json).map_err(|why| format!("prepare refuses the sample: {why}"))?;
        let (seq, id) = self.id(n);
        sender.accepted(id, &outgoing);
        let frame = sender.write(Frame::Data { seq, id, una: seq, payload: &outgoing });
        let frame = frame.ok_or("write makes the WebSocket's ping of a message")?;
        Ok(Written { sender, outgoing, seq, id, frame })
    }

    /// What the sender says by itself: what it takes, how long it is, what it keeps.
    fn outgoing(&self, report: &mut Report) {
        for sample in &self.samples {
            let name = text(&sample.1);
            report.probe(Check::Prepare, &name, || self.written(sample, 1).map(drop));
            for n in [Seq::FIRST, Seq::LAST].map(Seq::get) {
                report.probe(Check::Size, &name, || {
                    let Written { outgoing, frame, .. } = self.written(sample, n)?;
                    let size = S::size(&outgoing);
                    fits(frame.len() <= size, || format!("size says {size} bytes, the frame has {}", frame.len()))
                });
            }
            for answer in foreign() {
                report.probe(Check::HttpForeign, &text(&answer.body), || {
                    let Written { sender, id, .. } = self.written(sample, 1)?;
                    fits(!sender.is_peers(id, &answer), || format!("is_peers takes it for the peer's: {answer:?}"))
                });
            }
            report.probe(Check::Mirror, &name, || {
                let Written { mut sender, frame, .. } = self.written(sample, 1)?;
                let head = sender.read(&self.names, &frame).head;
                fits(!decides(head), || format!("the sender's own frame, sent back, is {}", said(head)))
            });
        }
        for (kind, json) in &self.refused {
            report.probe(Check::Prepare, &text(json), || {
                let prepared: Result<S::Outgoing, Refused> = self.sender.clone().prepare(kind, json);
                fits(prepared.is_err(), || "prepare takes what the peer could never take".into())
            });
        }
    }

    /// What an end says that is no message: it means nothing of the kind to the other, and answers to it come to an end. A
    /// peer that sends back what it gets must not keep a wire talking either.
    fn quiet(&self, report: &mut Report) {
        let names = &self.names;
        let samples = self.samples.iter().filter_map(|sample| quietly(|| self.written(sample, 1)).ok());
        let known = self.recorded.iter().chain(&self.answers).chain(&self.ignored).cloned();
        for frame in samples.map(|written| written.frame).chain(known) {
            report.probe(Check::Quiet, &frame, || silence(names, &self.sender, &self.sender, &frame));
            if let Some((receiver, _)) = &self.receiver {
                report.probe(Check::Quiet, &frame, || silence(names, &self.sender, receiver, &frame));
                report.probe(Check::Quiet, &frame, || silence(names, receiver, receiver, &frame));
            }
        }
        for frame in asides(&self.sender) {
            report.probe(Check::Quiet, &frame, || silence(names, &self.sender, &self.sender, &frame));
            if let Some((receiver, _)) = &self.receiver {
                report.probe(Check::Quiet, &frame, || nothing(&receiver.clone().read(names, &frame)));
                report.probe(Check::Quiet, &frame, || silence(names, &self.sender, receiver, &frame));
            }
        }
        if let Some((receiver, _)) = &self.receiver {
            for frame in asides(receiver) {
                report.probe(Check::Quiet, &frame, || nothing(&self.sender.clone().read(names, &frame)));
                report.probe(Check::Quiet, &frame, || silence(names, receiver, &self.sender, &frame));
            }
        }
    }

    /// Frames that the author knows.
    fn understood(&self, report: &mut Report) {
        let names = &self.names;
        for frame in &self.recorded {
            report.probe(Check::Recorded, frame, || match &self.receiver {
                Some((receiver, _)) => known(receiver.clone().read(names, frame).head),
                None => known(self.sender.clone().read(names, frame).head),
            });
        }
        for frame in &self.answers {
            report.probe(Check::Recorded, frame, || known(self.sender.clone().read(names, frame).head));
        }
        for frame in &self.ignored {
            report.probe(Check::Ignored, frame, || nothing(&self.sender.clone().read(names, frame)));
            if let Some((receiver, _)) = &self.receiver {
                report.probe(Check::Ignored, frame, || nothing(&receiver.clone().read(names, frame)));
            }
        }
    }
}

/// What the ends say to each other unasked after this first frame, which the second end reads: it must come to an end.
fn silence<A: Wire, B: Wire>(names: &KeyedHash, one: &A, other: &B, first: &str) -> Result<(), String> {
    let (mut one, mut other) = (one.clone(), other.clone());
    let mut frames = vec![first.to_owned()];
    let mut last = String::new();
    for _ in 0..ANSWERS {
        let answers: Vec<String> = frames.iter().flat_map(|frame| other.read(names, frame).say).collect();
        frames = answers.iter().flat_map(|frame| one.read(names, frame).say).take(ANSWERS).collect();
        let Some(said) = frames.last().or(answers.last()) else { return Ok(()) };
        last.clone_from(said);
    }
    Err(format!("answers are answered without end: {last}"))
}

/// A message on its way, and the sender that remembers it.
struct Written<S: Wire> {
    sender: S,
    outgoing: S::Outgoing,
    seq: Seq,
    id: MessageId,
    frame: String,
}

/// Answers of what lies between the two ends, as seen in the field.
fn foreign() -> Vec<HttpAnswer> {
    const PORTAL: &str = "<html><body>Log in to the network</body></html>";
    const NGINX: &str = "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n\
        <center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n";
    let said = |status, kind: &str, body: &'static str| HttpAnswer {
        content_type: Some(kind.into()).filter(|kind: &String| !kind.is_empty()),
        ..HttpAnswer::new(status, body)
    };
    vec![
        said(200, "text/html", PORTAL),
        said(200, "", PORTAL),
        said(200, "application/json", PORTAL),
        said(200, "text/html", ""),
        said(200, "text/plain", "OK"),
        said(200, "application/json", r#"{"error":"no such service"}"#),
        // It is cut off: nobody knows what it is.
        HttpAnswer { whole: false, ..said(200, "application/json", r#"{"status":"#) },
        HttpAnswer { location: Some("http://portal.example/login".into()), ..said(302, "", "") },
        said(400, "text/html", "<center>The plain HTTP request was sent to HTTPS port</center>"),
        said(410, "text/html", PORTAL),
        said(413, "text/html", NGINX),
        said(422, "text/plain", "Unprocessable"),
        said(400, "", ""),
        said(413, "", ""),
    ]
}

fn fits(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// It is the peer's word about a message of ours.
const fn decides(head: Option<Head>) -> bool {
    matches!(head, Some(Head::Ack { .. } | Head::Reject { .. }))
}

fn said(head: Option<Head>) -> String {
    head.map_or_else(|| "nobody's".into(), |head| format!("{head:?}"))
}

fn known(head: Option<Head>) -> Result<(), String> {
    let understood = !matches!(head, None | Some(Head::Malformed));
    fits(understood, || format!("what a real peer sent is {}", said(head)))
}

fn nothing<T>(heard: &Heard<T>) -> Result<(), String> {
    let head = heard.head;
    let nothing = !decides(head) && !matches!(head, Some(Head::Data { .. } | Head::Malformed));
    fits(nothing && heard.message.is_none(), || format!("it should say nothing, and is {}", said(head)))
}

/// What a wire says beside messages and their acknowledgements.
fn asides<W: Wire>(wire: &W) -> Vec<String> {
    let mut wire = wire.clone();
    [wire.greet(), wire.write(Frame::Ping), wire.write(Frame::Keepalive)].into_iter().flatten().collect()
}

/// A panic here has been found and named by another check.
fn quietly<T>(step: impl FnOnce() -> Result<T, String>) -> Result<T, ()> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or(Err(String::new())).map_err(drop)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last part of a path.
fn segment(path: &'static str) -> &'static str {
    path.rsplit('/').next().unwrap_or_default()
}
