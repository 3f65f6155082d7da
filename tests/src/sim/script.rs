//! What happens to one session, as bytes: one format for the fuzzer, for proptest and for a recording.
//!
//! ```text
//! script  = settings · seed · step*      one plain session, all by itself
//! step    = opcode · time to pass · arguments · polls
//! ```
//!
//! Those of native sessions are in `hostile`, those of two plain ones are [`Plan`](super::Plan)s.
//!
//! Every byte string means a script: a missing byte is zero, an unknown number is taken modulo what there is. What is
//! referred to (a connection, a request, a message) is named by its distance from the newest, so most references hit and
//! some are stale, of the future, or nonsense, as rule 1 of the surface allows. The encoding is spelled out here byte by
//! byte, so that a committed input keeps its meaning.
//!
//! [`plain`] drives the shipped [`InlineSession`] and checks after every step what must hold whatever happens: the six rules
//! of the surface, and the promises that one side can see (G1, G2, G3, G4, G6, G8, G9).

use crate::fuzz::trace;
use crate::sim::hostile;
use bowline::{
    Accepted, Arrival, Config, ContentKey, DeliveryId, Event, Frame, GONKA_API_NODE, GONKA_ML_NODE, Head, HttpOutcome,
    InlineSession, Input, Instant, LinkId, MessageId, OnNewLink, OnReject, Origin, Outcome, Output, Path, Policy,
    PostId, Ready, Reason, Reply, RequestId, RetryHint, Role, Seq, State, Verdict,
};
use core::hash::{Hash, Hasher};
use core::time::Duration;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};

/// Longer scripts are cut: the fuzzer gains nothing from them.
const STEPS: usize = 600;

const MESSAGES: usize = 4;
const REMEMBERED: usize = 4;

type Subject = InlineSession<u32, MESSAGES, REMEMBERED>;

/// Runs the script of a plain session twice and returns a digest of everything the session said.
///
/// # Panics
/// If something that must hold does not.
#[must_use]
pub fn plain(script: &[u8]) -> u64 {
    twice(|| Run::new(script).play())
}

/// The same of native ones: of one if the first byte is odd, of two in a world if it is even.
///
/// # Panics
/// If something that must hold does not.
#[must_use]
pub fn native(script: &[u8]) -> u64 {
    match script {
        [kind, rest @ ..] if kind % 2 == 0 => twice(|| hostile::pair(rest)),
        [_, rest @ ..] => twice(|| hostile::alone(rest)),
        [] => 0,
    }
}

fn twice(play: impl Fn() -> u64) -> u64 {
    let digest = play();
    assert_eq!(digest, play(), "G8: the same inputs gave other outputs");
    digest
}

pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Bytes<'_> {
    pub(super) fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Three bits of scale, five of number: 0, µs, ms, 100 ms, s, 10 s, min, h.
    pub(super) fn span(&mut self) -> Duration {
        let byte = self.next();
        let unit = [0, 1, 1_000, 100_000, 1_000_000, 10_000_000, 60_000_000, 3_600_000_000][usize::from(byte >> 5)];
        Duration::from_micros(unit * u64::from(byte & 31))
    }
}

/// What the model knows of an inbound message.
#[derive(Clone, Copy)]
struct Inbound {
    delivery: DeliveryId,
    open: bool,
    /// Completed, and when.
    done: Option<Instant>,
}

struct Run<'a> {
    bytes: Bytes<'a>,
    config: Config,
    origin: Origin,
    session: Subject,
    now: Instant,
    digest: DefaultHasher,
    newest_link: u64,
    posts: Vec<PostId>,
    underway: BTreeSet<PostId>,
    newest_request: u64,
    waiting: BTreeSet<RequestId>,
    accepted: BTreeSet<Seq>,
    settled: BTreeMap<Seq, Outcome>,
    acked: BTreeSet<Seq>,
    posted: BTreeSet<Seq>,
    on_link: BTreeSet<(LinkId, Seq)>,
    inbound: BTreeMap<u128, Inbound>,
    deliveries: Vec<(DeliveryId, Option<u128>)>,
    /// Names of a delivery: a copy may come under another id with the same content.
    completed: BTreeSet<u128>,
}

impl<'a> Run<'a> {
    fn new(script: &'a [u8]) -> Self {
        let mut bytes = Bytes(script);
        let settings = bytes.next();
        let seed = u64::from(bytes.next());
        let mut config = match settings & 3 {
            0 => GONKA_API_NODE,
            1 => GONKA_ML_NODE,
            _ => Config::DEFAULT,
        };
        if settings & 4 != 0 {
            config.link.role = Role::Acceptor;
        }
        config.route.http |= settings & 8 != 0;
        if settings & 16 != 0 {
            config.link.ready = Ready::Hello;
        }
        if settings & 32 != 0 {
            config.inbox.on_reject = OnReject::Silence;
        }
        if settings & 64 != 0 {
            config.outbox.frame_limit = 1000;
            config.outbox.post_limit = 2000;
        }
        if settings & 128 != 0 {
            config.inbox.held = 2;
        }
        let origin = Origin::new(7, 3);
        let now = Instant::ZERO;
        let session = Subject::inline(config.check().expect("all of these make sense"), seed, origin, now);
        Self {
            bytes,
            config,
            origin,
            session,
            now,
            digest: DefaultHasher::new(),
            newest_link: 0,
            posts: Vec::new(),
            underway: BTreeSet::new(),
            newest_request: 0,
            waiting: BTreeSet::new(),
            accepted: BTreeSet::new(),
            settled: BTreeMap::new(),
            acked: BTreeSet::new(),
            posted: BTreeSet::new(),
            on_link: BTreeSet::new(),
            inbound: BTreeMap::new(),
            deliveries: Vec::new(),
            completed: BTreeSet::new(),
        }
    }

    fn play(mut self) -> u64 {
        for _ in 0..STEPS {
            if self.bytes.0.is_empty() {
                break;
            }
            self.step();
        }
        self.end();
        self.digest.finish()
    }

    fn step(&mut self) {
        let opcode = self.bytes.next() % 16;
        let span = self.bytes.span();
        let mut at = self.now.after(span);
        if opcode == 14
            && let Some(deadline) = self.session.deadline()
        {
            at = deadline;
        }
        if opcode == 15 {
            at = Instant::from_micros(self.now.as_micros().saturating_sub(span.as_micros() as u64));
        }
        let input = self.input(opcode);
        self.input_at(at, input);
        let polls = self.bytes.next();
        self.drain(if polls < 8 { usize::from(polls) } else { usize::MAX });
    }

    fn link(&mut self) -> LinkId {
        let byte = u64::from(self.bytes.next());
        // Mostly the newest, sometimes one of the last three, sometimes one that does not exist yet.
        LinkId::from_number(if byte >= 240 {
            self.newest_link + 1
        } else {
            self.newest_link.saturating_sub(if byte < 160 { 0 } else { byte % 4 })
        })
    }

    fn input(&mut self, opcode: u8) -> Input<u32> {
        match opcode {
            1 => Input::Start,
            2 => Input::Accept,
            3 => Input::LinkUp { link: self.link() },
            4 => {
                let link = self.link();
                let reason = match self.bytes.next() % 10 {
                    0 => Reason::PortClosed,
                    1 => Reason::Timeout,
                    2 => Reason::Closed(1008),
                    3 => Reason::Closed(1009),
                    4 => Reason::Closed(1000 + u16::from(self.bytes.next() % 16)),
                    5 => Reason::Closed(u16::from(self.bytes.next()) * 20),
                    6 => Reason::Status(u16::from(self.bytes.next()) * 2 + 200),
                    7 => Reason::Ours,
                    8 => Reason::Replaced,
                    _ => Reason::Closed(1006),
                };
                let hint = RetryHint { after: self.bytes.span(), window: self.bytes.span() };
                Input::LinkDown { link, reason, hint }
            }
            5 => {
                let link = self.link();
                let head = match self.bytes.next() % 8 {
                    0 | 1 => {
                        let (id, key) = self.message();
                        Head::Data { id, key }
                    }
                    2 => Head::Ack { id: self.ack() },
                    3 => Head::Reject { id: self.ack() },
                    4 => Head::Pong,
                    5 => Head::Hello,
                    6 => Head::Other,
                    _ => Head::Malformed,
                };
                Input::Received { link, head }
            }
            6 => Input::Writable { link: self.link(), yes: self.bytes.next() & 1 == 0 },
            7 => {
                let back = usize::from(self.bytes.next() % 8);
                let post = self.posts.iter().rev().nth(back).copied().unwrap_or(PostId { seq: Seq::FIRST, attempt: 9 });
                let after = self.bytes.span();
                let outcome = match self.bytes.next() % 8 {
                    0 => HttpOutcome::status(200),
                    1 => HttpOutcome::status(409).with_after(after),
                    2 => HttpOutcome::status(422),
                    3 => HttpOutcome::status(503).with_after(after),
                    4 => HttpOutcome::status(401),
                    5 => HttpOutcome::status(302),
                    6 => HttpOutcome::Unreached(Reason::PortClosed),
                    _ => HttpOutcome::Unknown(Reason::Timeout),
                };
                Input::Posted { post, outcome }
            }
            8 => {
                self.newest_request += 1;
                let (id, key) = self.message();
                Input::Request { request: RequestId(self.newest_request), id, key }
            }
            9 => Input::RequestGone {
                request: RequestId(self.newest_request.saturating_sub(u64::from(self.bytes.next() % 4))),
            },
            10 => {
                let size = u32::from(self.bytes.next()) * 10;
                let bits = self.bytes.next();
                let life = (bits & 1 != 0).then(|| self.bytes.span());
                let on_new_link = if bits & 2 != 0 { OnNewLink::Drop } else { OnNewLink::Keep };
                Input::Send { payload: u32::from(bits), size, policy: Policy { life, on_new_link, ..Policy::DEFAULT } }
            }
            11 => {
                let back = usize::from(self.bytes.next() % 8);
                let delivery = self.deliveries.iter().rev().nth(back).map_or(DeliveryId::from_number(99), |(d, _)| *d);
                let verdict = match self.bytes.next() % 4 {
                    0 | 1 => Verdict::Done,
                    2 => Verdict::Reject,
                    _ => Verdict::Retry { after: self.bytes.span() },
                };
                Input::Complete { delivery, verdict }
            }
            12 => Input::RetryNow,
            13 => {
                // Rare: a script that closes at once shows little.
                let byte = self.bytes.next();
                let drain = self.bytes.span().min(Duration::from_secs(60));
                match byte {
                    200.. => Input::Close { drain },
                    190.. => Input::StoodStill { unseen: self.bytes.span() },
                    100.. => Input::Confirmed { id: self.ack(), success: byte & 1 == 0 },
                    _ => Input::Tick,
                }
            }
            _ => Input::Tick,
        }
    }

    /// A message of the peer's: one of six ids or none, one of three contents or none.
    fn message(&mut self) -> (Option<MessageId>, Option<ContentKey>) {
        let byte = self.bytes.next();
        let id = (byte & 7 < 6).then(|| MessageId::from_bits(u128::from(byte & 7) + 1));
        let key = ((byte >> 3) & 3 < 3).then(|| ContentKey::from_bits(u128::from((byte >> 3) & 3) + 100));
        (id, key)
    }

    /// An id of ours: mostly of a message that exists, sometimes beyond, sometimes nobody's.
    fn ack(&mut self) -> MessageId {
        let byte = u64::from(self.bytes.next());
        let newest = self.accepted.last().map_or(0, |seq| seq.get());
        if byte >= 250 {
            return MessageId::from_bits(byte.into());
        }
        let seq = if byte >= 245 { newest + 1 } else { newest.saturating_sub(byte % 6) };
        self.origin.message(Seq::from_number(seq))
    }

    fn input_at(&mut self, at: Instant, input: Input<u32>) {
        trace(|| format!("{at:?} {input:?}"));
        match &input {
            Input::Received { head: Head::Ack { id }, link } if Some(*link) == self.session.connection() => {
                self.acked.extend(self.origin.seq_of(*id));
            }
            Input::Confirmed { id, success: true } => self.posted.extend(self.origin.seq_of(*id)),
            Input::Posted { post, outcome } => {
                if *outcome == HttpOutcome::status(200) && self.underway.contains(post) {
                    self.posted.insert(post.seq);
                }
                self.underway.remove(post);
            }
            Input::RequestGone { request } => {
                self.waiting.remove(request);
            }
            _ => {}
        }
        let before = self.session.stats();
        let mut unmoved = self.session.clone();
        let name = name(&input);
        let reply = self.session.handle(at, input.clone());
        trace(|| format!("    {reply:?}"));
        if reply == Reply::Stale {
            let nothing = unmoved.handle(at, Input::LinkUp { link: LinkId::NONE });
            assert_eq!(nothing, Reply::Stale, "nobody ever dialled that");
            assert!(unmoved == self.session, "rule 1: {input:?} is stale, but something moved");
        }
        self.now = self.now.max(at);
        assert_eq!(self.session.now(), self.now, "rule 5: time is the largest seen");
        let stale = self.session.stats().stale - before.stale;
        assert_eq!(stale, u64::from(matches!(reply, Reply::Stale)), "rule 1: what is stale is counted");
        self.answered(&input, name, &reply);
        // The deadline is now until everything is drained (rule 3).
        assert!(self.session.deadline().is_some_and(|at| at <= self.now), "rule 3");
        self.bounds();
        reply.hash(&mut self.digest);
    }

    fn answered(&mut self, input: &Input<u32>, name: Option<u128>, reply: &Reply<u32>) {
        match reply {
            Reply::Queued(seq) => assert!(self.accepted.insert(*seq), "I1: a number was given twice"),
            Reply::Accepted(Accepted::Open(link) | Accepted::Probing(link)) => self.new_link(*link),
            Reply::Arrival(Arrival::Deliver { delivery, maybe_dup }) => {
                let unseen = self.deliveries.iter().all(|(other, _)| other != delivery);
                assert!(unseen, "a delivery number was given twice");
                self.deliveries.push((*delivery, name));
                if let Some(name) = name {
                    let fresh = Inbound { delivery: *delivery, open: true, done: None };
                    let horizon = self.config.inbox.horizon;
                    if let Some(before) = self.inbound.insert(name, fresh) {
                        assert!(!before.open, "G2: handed over twice while it is held");
                        let forgotten = before.done.is_none_or(|done| self.now >= done.after(horizon));
                        assert!(forgotten || *maybe_dup, "G2: handed over twice within the horizon");
                    }
                }
                if let Input::Request { request, .. } = input {
                    self.waiting.insert(*request);
                }
            }
            Reply::Arrival(Arrival::Duplicate) => {
                if let Input::Request { request, .. } = input {
                    self.waiting.insert(*request);
                }
            }
            Reply::Arrival(Arrival::Answer(_) | Arrival::Full | Arrival::Reused) | Reply::Done | Reply::Stale => {}
            Reply::Accepted(Accepted::Refused) | Reply::Refused(..) => {}
            Reply::Arrival(Arrival::Ahead { .. }) | Reply::Greeted(_) => panic!("N2: the peer is plain"),
        }
        if let (Input::Complete { delivery, verdict }, Reply::Done) = (input, reply) {
            let name = self.deliveries.iter().find(|(d, _)| d == delivery).and_then(|(_, name)| *name);
            if let Some(name) = name {
                let entry = self.inbound.get_mut(&name).filter(|entry| entry.delivery == *delivery);
                let entry = entry.expect("only what was handed over can be completed");
                assert!(entry.open, "completed twice");
                entry.open = false;
                entry.done = (!matches!(verdict, Verdict::Retry { .. })).then_some(self.now);
                if !matches!(verdict, Verdict::Retry { .. }) {
                    self.completed.insert(name);
                }
            }
        }
    }

    fn new_link(&mut self, link: LinkId) {
        assert!(link.get() > self.newest_link, "R7: a generation was given twice");
        self.newest_link = link.get();
    }

    fn drain(&mut self, most: usize) {
        for _ in 0..most {
            let connection = self.session.connection();
            let Some(output) = self.session.poll() else {
                let late = self.session.deadline().is_some_and(|at| at <= self.now);
                assert!(!late, "rule 6: {:?}", self.session.wake_reason());
                return self.tick_for_nothing();
            };
            output.hash(&mut self.digest);
            trace(|| format!("    {output:?}"));
            match output {
                Output::Connect { link } => {
                    assert!(link.get() > self.newest_link, "R7: a generation was given twice");
                    self.newest_link = link.get();
                }
                Output::Event(Event::Settled { seq, outcome, .. }) => {
                    assert!(self.accepted.contains(&seq), "settled without being accepted");
                    assert_eq!(self.settled.insert(seq, outcome), None, "G1: ended twice");
                    match outcome {
                        Outcome::Delivered { path: Path::WebSocket } => {
                            assert!(self.acked.contains(&seq), "G3: nobody acknowledged it");
                        }
                        Outcome::Delivered { path: Path::Http } => {
                            assert!(self.posted.contains(&seq), "G3: no request was answered with 2xx");
                        }
                        Outcome::Rejected(_) | Outcome::Expired | Outcome::Abandoned => {}
                    }
                }
                Output::Probe { link } => assert_eq!(Some(link), connection, "G6: a probe of another connection"),
                Output::Frame { link, frame } => {
                    assert_eq!(Some(link), connection, "G6: a frame for another connection");
                    match frame {
                        Frame::Data { seq, id, .. } => {
                            assert!(self.on_link.insert((link, seq)), "F2: sent twice on one connection");
                            assert_eq!(id, self.origin.message(seq), "I1: another id");
                            assert!(!self.settled.contains_key(&seq), "sent after its end");
                        }
                        Frame::Ack { .. } | Frame::Ping | Frame::Keepalive => {}
                        Frame::Marks { .. } | Frame::Nack { .. } => panic!("N2: the peer is plain"),
                    }
                }
                Output::Post { post, id, .. } => {
                    assert_eq!(id, self.origin.message(post.seq), "I1: another id");
                    assert!(self.underway.insert(post), "a request was given twice");
                    assert!(self.underway.len() <= self.config.route.posts, "G4: too many requests");
                    self.posts.push(post);
                }
                Output::Respond { request, .. } => {
                    assert!(self.waiting.remove(&request), "an answer to nobody");
                }
                Output::Event(_) | Output::Close { .. } | Output::Refuse { .. } => {}
                Output::Carry { .. } | Output::Greet { .. } | Output::Poll { .. } => panic!("N2: the peer is plain"),
            }
        }
    }

    /// Rule 4: before the deadline a tick asks for nothing and moves nothing but the clock.
    fn tick_for_nothing(&self) {
        let mut ticked = self.session.clone();
        let _ = ticked.handle(self.now, Input::Tick);
        assert_eq!(ticked.poll(), None, "rule 4: a spurious tick asks for something");
        assert!(ticked == self.session, "rule 4: a spurious tick moves something");
        let early = ticked.deadline().map(|at| Instant::from_micros(at.as_micros() - 1));
        let _ = ticked.handle(early.unwrap_or(self.now), Input::Tick);
        assert_eq!(ticked.poll(), None, "rule 4: an early tick asks for something");
        assert_eq!(ticked.deadline(), self.session.deadline(), "rule 4: an early tick moves the deadline");
    }

    fn bounds(&self) {
        assert!(self.session.backlog() <= MESSAGES, "G4");
        assert!(self.session.held() <= REMEMBERED, "G4");
        let open = self.accepted.len() - self.settled.len();
        assert!(open >= self.session.backlog(), "G1: a message has ended without a word");
    }

    /// Closes with a bounded drain and lets time pass: everything must have ended, and nothing may be left to wait for.
    fn end(&mut self) {
        self.drain(usize::MAX);
        self.input_at(self.now, Input::Close { drain: Duration::from_secs(30) });
        self.drain(usize::MAX);
        for _ in 0..1000 {
            let Some(deadline) = self.session.deadline() else { break };
            self.input_at(deadline, Input::Tick);
            self.drain(usize::MAX);
        }
        assert_eq!(self.session.deadline(), None, "a closed session waits for {:?}", self.session.wake_reason());
        assert_eq!(self.session.state(), State::Closed, "a close that does not end");
        let ended: BTreeSet<Seq> = self.settled.keys().copied().collect();
        assert_eq!(ended, self.accepted, "G1: accepted, and never ended");
        assert!(self.waiting.is_empty(), "requests without an answer: {:?}", self.waiting);
        let copy = self.session.clone();
        assert_eq!(copy, self.session, "a clone is equal");
    }
}

/// What the message of an input is called, if its copies can be told: by its content, or by its id where it has none.
fn name(input: &Input<u32>) -> Option<u128> {
    match input {
        Input::Received { head: Head::Data { id, key }, .. } | Input::Request { id, key, .. } => {
            key.map(ContentKey::bits).or(id.map(MessageId::bits))
        }
        _ => None,
    }
}
