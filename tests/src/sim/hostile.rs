//! One native session and a peer that says anything at any time, as bytes; and two in a world that is made of bytes.
//!
//! ```text
//! script  = odd · settings · seed · step*      one native session, all by itself
//!         | even · settings · change*          two native sessions and the network between them ([`World`])
//! step    = opcode · time to pass · arguments · polls
//! change  = kind · time to pass · argument
//! ```
//!
//! The encoding is that of [`script`](super::script). Checked are the rules of the surface, and
//! what one side can see: G1, G2, S9, F2, I1, H3; in the world, its books.

use crate::fuzz::trace;
use crate::sim::clock::ms;
use crate::sim::native::{CLIENT, HUB, Setup, World};
use crate::sim::script::Bytes;
use bowline::marks::WINDOW;
use bowline::{
    Accepted, Arrival, Beat, DeliveryId, Event, Frame, Got, Greeting, Head, HttpOutcome, InlineSession, Input, Instant,
    LinkId, NATIVE, NATIVE_PEER, Nack, NativeConfig, Origin, Output, Policy, PostId, Reason, Reply, Report, RequestId,
    ResumeRefusal, RetryHint, Seq, State, Verdict,
};
use core::hash::{Hash, Hasher};
use core::time::Duration;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};

/// Longer scripts are cut.
const STEPS: usize = 400;

type Subject = InlineSession<u32, 6, 5>;

/// Runs the script of one session and returns a digest of everything it said.
pub(super) fn alone(script: &[u8]) -> u64 {
    Run::new(script).play()
}

/// Plays a world.
pub(super) fn pair(script: &[u8]) -> u64 {
    let mut bytes = Bytes(script);
    let (kind, apps, seed) = (bytes.next(), bytes.next(), u64::from(bytes.next()));
    let setup = Setup {
        order: kind & 1 == 0,
        held: if kind & 2 == 0 { 64 } else { 1 + usize::from(kind >> 6) },
        lossy: if kind & 4 == 0 { 0 } else { 20 },
        lag: if kind & 8 == 0 { ms(20) } else { ms(3000) },
        work: if kind & 16 == 0 { ms(30) } else { ms(2000) },
        give_back: if apps & 1 == 0 { 0 } else { 15 },
        reject: if apps & 2 == 0 { 0 } else { 15 },
        mortal: if apps & 4 == 0 { 0 } else { 25 },
        spurious: apps & 8 != 0,
    };
    trace(|| format!("seed {seed} {setup:?}"));
    let mut world = World::new(seed, setup);
    for _ in 0..60 {
        if bytes.0.is_empty() {
            break;
        }
        let (kind, span, arg) = (bytes.next(), bytes.span().min(ms(20_000)), bytes.next());
        let party = if arg & 1 == 0 { CLIENT } else { HUB };
        trace(|| {
            let what = ["cut", "block", "restart", "sleep", "send"][usize::from(kind % 8).min(4)];
            format!("{what} {party}, after {span:?}, argument {arg}; waited for: {}", kind & 8 != 0)
        });
        match kind % 8 {
            0 => world.cut_after(span),
            1 => world.block_after(span, ms(u64::from(arg) * 50)),
            2 => world.restart_after(span, party),
            3 => world.sleep_after(span, ms(u64::from(arg) * 20)),
            _ => (0..arg / 4).for_each(|n| world.send_after(span + ms(u64::from(n) * 3), party)),
        }
        if kind & 8 != 0 {
            world.run(world.now().after(span));
        }
    }
    world.run(world.now().after(ms(20_000)));
    world.heal();
    world.run(world.now().after(ms(400_000)));
    world.books();
    world.close();
    world.digest()
}

struct Run<'a> {
    bytes: Bytes<'a>,
    session: Subject,
    now: Instant,
    digest: DefaultHasher,
    newest_link: u64,
    posts: Vec<PostId>,
    talk: u32,
    newest_request: u64,
    /// Requests without an answer; true: a poll.
    waiting: BTreeMap<RequestId, bool>,
    accepted: BTreeSet<Seq>,
    settled: BTreeSet<Seq>,
    on_link: BTreeSet<(LinkId, Seq)>,
    /// What it may send again on the same connection, because the peer asked.
    asked: bool,
    /// Who numbers what comes in.
    of: Option<Origin>,
    /// At the application or completed by it, of this origin.
    handed: BTreeSet<u64>,
    ahead: BTreeMap<DeliveryId, (u64, bool)>,
    open: Vec<(DeliveryId, u64)>,
    highest: u64,
    order: bool,
}

const ORIGIN: Origin = Origin::new(7, 3);

impl<'a> Run<'a> {
    fn new(script: &'a [u8]) -> Self {
        let mut bytes = Bytes(script);
        let settings = bytes.next();
        let seed = u64::from(bytes.next());
        let mut config = if settings & 1 == 0 { NATIVE } else { NATIVE_PEER };
        let order = settings & 2 == 0;
        let poll = if settings & 4 == 0 { ms(25_000) } else { Duration::ZERO };
        config.native = Some(NativeConfig { order, poll });
        if settings & 8 != 0 {
            config.inbox.held = 2;
        }
        if settings & 16 != 0 {
            config.route.http = !config.route.http;
        }
        if settings & 32 != 0 {
            config.outbox.frame_limit = 1000;
        }
        let now = Instant::ZERO;
        Self {
            bytes,
            session: Subject::inline(config.check().expect("all of these make sense"), seed, ORIGIN, now),
            now,
            digest: DefaultHasher::new(),
            newest_link: 0,
            posts: Vec::new(),
            talk: 0,
            newest_request: 0,
            waiting: BTreeMap::new(),
            accepted: BTreeSet::new(),
            settled: BTreeSet::new(),
            on_link: BTreeSet::new(),
            asked: false,
            of: None,
            handed: BTreeSet::new(),
            ahead: BTreeMap::new(),
            open: Vec::new(),
            highest: 0,
            order,
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
        let opcode = self.bytes.next() % 24;
        let span = self.bytes.span();
        let at = match self.session.deadline() {
            Some(deadline) if opcode == 23 => deadline,
            _ => self.now.after(span),
        };
        let input = self.input(opcode);
        self.input_at(at, input);
        let polls = self.bytes.next();
        self.drain(if polls < 8 { usize::from(polls) } else { usize::MAX });
    }

    fn link(&mut self) -> LinkId {
        let byte = u64::from(self.bytes.next());
        LinkId::from_number(if byte >= 240 {
            self.newest_link + 1
        } else {
            self.newest_link.saturating_sub(if byte < 200 { 0 } else { byte % 4 })
        })
    }

    /// A number: mostly small, sometimes absurd.
    fn seq(&mut self) -> Seq {
        let byte = self.bytes.next();
        Seq::from_number(match byte {
            255 => u64::MAX,
            254 => Seq::LAST.get(),
            253 => 0,
            200..=252 => u64::from(byte - 200) * 20,
            _ => u64::from(byte % 80),
        })
    }

    fn map(&mut self) -> u64 {
        let byte = self.bytes.next();
        if byte < 250 { u64::from(byte) } else { u64::MAX << (byte - 250) }
    }

    fn report(&mut self) -> Report {
        let (base, win) = (self.seq(), [64, 0, 1, 2, 16, u16::MAX][usize::from(self.bytes.next() % 6)]);
        let arrived = self.map();
        let done = arrived & self.map();
        Report { base, arrived, done, rejected: done & self.map(), win }
    }

    fn greeting(&mut self) -> Greeting {
        let bits = self.bytes.next();
        let report = self.report();
        Greeting {
            origin: Origin::new(9 + u64::from(bits & 1), 1 + u32::from(bits >> 6)),
            resume: bits & 2 != 0,
            rx: (bits & 4 != 0).then_some(Got { of: if bits & 8 == 0 { ORIGIN } else { Origin::new(1, 1) }, report }),
            next: self.seq(),
            una: self.seq(),
            win: report.win,
            life: if bits & 48 == 48 { Duration::ZERO } else { Duration::from_secs(3600) },
            order: bits & 1 == 0,
        }
    }

    fn head(&mut self) -> Head {
        match self.bytes.next() % 16 {
            0..=5 => {
                Head::Numbered { seq: self.seq(), una: if self.bytes.next() < 230 { Seq::FIRST } else { self.seq() } }
            }
            6..=8 => {
                let (report, n) = (self.report(), u64::from(self.bytes.next()));
                let beat = [Beat::None, Beat::Ping(n), Beat::Pong(n)][self.bytes.next() as usize % 3];
                Head::Marks { report, una: self.seq(), beat }
            }
            9 | 10 => {
                let after = self.bytes.span();
                let nack = [Nack::Retry { after }, Nack::Busy { after }, Nack::Reject][self.bytes.next() as usize % 3];
                Head::Nack { seq: self.seq(), nack }
            }
            11 | 12 => Head::Welcome { greeting: self.greeting(), refused: self.reason() },
            13 => Head::Hello,
            14 => Head::Other,
            _ => Head::Malformed,
        }
    }

    fn reason(&mut self) -> Option<ResumeRefusal> {
        ResumeRefusal::ALL.get(usize::from(self.bytes.next())).copied()
    }

    fn outcome(&mut self) -> HttpOutcome {
        let after = self.bytes.span();
        match self.bytes.next() % 8 {
            0 | 1 => HttpOutcome::status(200),
            2 => HttpOutcome::status(409).with_after(after),
            3 => HttpOutcome::status(422),
            4 => HttpOutcome::status(503).with_after(after),
            5 => HttpOutcome::status(401),
            6 => HttpOutcome::status(302),
            _ => HttpOutcome::Unknown(Reason::Timeout),
        }
    }

    fn request(&mut self) -> RequestId {
        self.newest_request += 1;
        RequestId(self.newest_request)
    }

    fn input(&mut self, opcode: u8) -> Input<u32> {
        match opcode {
            0 => Input::Start,
            1 => Input::Accept,
            2 => Input::LinkUp { link: self.link() },
            3 => {
                let link = self.link();
                let reason = match self.bytes.next() % 5 {
                    0 => Reason::PortClosed,
                    1 => Reason::Closed(1009),
                    2 => Reason::Closed(4003),
                    3 => Reason::Status(403),
                    _ => Reason::Closed(1006),
                };
                Input::LinkDown { link, reason, hint: RetryHint::NONE }
            }
            4..=9 => Input::Received { link: self.link(), head: self.head() },
            10 => Input::Carried { head: self.head() },
            11 => Input::Greeted { greeting: self.greeting(), known: self.reason(), http: self.bytes.next() & 1 == 0 },
            12 => {
                let (request, wait) = (self.request(), self.bytes.span());
                Input::Poll { request, wait, report: self.report(), una: self.seq() }
            }
            13 => Input::Advance { una: self.seq() },
            14 => Input::Talked {
                talk: self.talk.wrapping_sub(u32::from(self.bytes.next() / 250)),
                outcome: self.outcome(),
            },
            15 => {
                let back = usize::from(self.bytes.next() % 4);
                let post = self.posts.iter().rev().nth(back).copied().unwrap_or(PostId { seq: Seq::FIRST, attempt: 9 });
                Input::Posted { post, outcome: self.outcome() }
            }
            16 => {
                let (request, seq) = (self.request(), self.seq());
                let id = self.of.unwrap_or(Origin::new(9, 1)).message(seq);
                Input::Request { request, id: Some(id), key: None }
            }
            17 => {
                let back = u64::from(self.bytes.next() % 4);
                Input::RequestGone { request: RequestId(self.newest_request.saturating_sub(back)) }
            }
            18 | 19 => {
                let size = u32::from(self.bytes.next()) * 10;
                let bits = self.bytes.next();
                let life = (bits & 1 != 0).then(|| self.bytes.span());
                Input::Send { payload: u32::from(bits), size, policy: Policy { life, ..Policy::DEFAULT } }
            }
            20 => {
                let back = usize::from(self.bytes.next()) % self.open.len().max(1);
                let delivery = self.open.iter().rev().nth(back).map_or(DeliveryId::from_number(99), |(d, _)| *d);
                let verdict = match self.bytes.next() % 4 {
                    0 | 1 => Verdict::Done,
                    2 => Verdict::Reject,
                    _ => Verdict::Retry { after: self.bytes.span() },
                };
                Input::Complete { delivery, verdict }
            }
            21 => Input::Writable { link: self.link(), yes: self.bytes.next() & 1 == 0 },
            22 => {
                let byte = self.bytes.next();
                match byte {
                    240.. => Input::Close { drain: self.bytes.span().min(Duration::from_secs(60)) },
                    210.. => Input::RetryNow,
                    200.. => Input::StoodStill { unseen: self.bytes.span() },
                    180.. => Input::Http { yes: byte & 1 == 0 },
                    _ => Input::Tick,
                }
            }
            _ => Input::Tick,
        }
    }

    fn input_at(&mut self, at: Instant, input: Input<u32>) {
        trace(|| format!("{at:?} {input:?}"));
        match &input {
            Input::RequestGone { request } => {
                self.waiting.remove(request);
            }
            Input::Received { head: Head::Nack { .. } | Head::Marks { .. } | Head::Welcome { .. }, .. }
            | Input::Carried { .. }
            | Input::Poll { .. }
            | Input::Greeted { .. } => self.asked = true,
            _ => {}
        }
        let mut unmoved = self.session.clone();
        let stale = self.session.stats().stale;
        let reply = self.session.handle(at, input.clone());
        trace(|| format!("    {reply:?}"));
        if reply == Reply::Stale {
            let nothing = unmoved.handle(at, Input::LinkUp { link: LinkId::NONE });
            assert_eq!(nothing, Reply::Stale, "nobody ever dialled that");
            assert!(unmoved == self.session, "rule 1: {input:?} is stale, but something moved");
        }
        assert_eq!(self.session.stats().stale - stale, u64::from(reply == Reply::Stale), "rule 1: {input:?}");
        self.now = self.now.max(at);
        let of = self.session.greeting(true).rx.map(|got| got.of);
        if of != self.of {
            self.of = of;
            self.handed.clear();
            self.highest = 0;
        }
        if let (Reply::Queued(seq), _) = (&reply, ()) {
            assert!(self.accepted.insert(*seq), "I1: a number was given twice");
        }
        if let Reply::Accepted(Accepted::Open(link) | Accepted::Probing(link)) = reply {
            self.newest_link = link.get();
        }
        let number = match &input {
            Input::Received { head: Head::Numbered { seq, .. }, .. }
            | Input::Carried { head: Head::Numbered { seq, .. } } => seq.get(),
            Input::Request { id: Some(id), .. } => self.of.and_then(|of| of.seq_of(*id)).map_or(0, Seq::get),
            _ => 0,
        };
        let mut waits = false;
        if let Reply::Arrival(arrival) = reply {
            waits = !matches!(arrival, Arrival::Answer(_));
            match arrival {
                Arrival::Deliver { delivery, maybe_dup } => self.hand_over(delivery, number, maybe_dup),
                Arrival::Ahead { delivery, maybe_dup } => {
                    assert!(self.order && self.ahead.insert(delivery, (number, maybe_dup)).is_none(), "S9");
                }
                Arrival::Duplicate | Arrival::Answer(_) | Arrival::Full => {}
                Arrival::Reused => panic!("I5"),
            }
        }
        match &input {
            Input::Request { request, .. } if waits => drop(self.waiting.insert(*request, false)),
            Input::Poll { request, .. } if reply == Reply::Done => drop(self.waiting.insert(*request, true)),
            Input::Complete { delivery, verdict } if reply == Reply::Done => {
                let at = self.open.iter().position(|(open, _)| open == delivery).expect("it is open");
                let (_, number) = self.open.remove(at);
                if matches!(verdict, Verdict::Retry { .. }) {
                    self.handed.remove(&number);
                }
            }
            _ => {}
        }
        assert!(self.session.deadline().is_some_and(|at| at <= self.now), "rule 3");
        assert!(self.session.held() <= 5 && self.session.backlog() <= 6, "G4");
        reply.hash(&mut self.digest);
    }

    fn hand_over(&mut self, delivery: DeliveryId, number: u64, maybe_dup: bool) {
        // A peer that goes back on what it has said is told apart by the doubt alone (R4).
        assert!(self.handed.insert(number) || maybe_dup, "G2: {number} is handed over twice");
        self.open.push((delivery, number));
        self.highest = self.highest.max(number);
    }

    fn drain(&mut self, most: usize) {
        for turn in 0..most {
            assert!(turn < 10_000, "output without end");
            let una = self.session.outbox().una();
            let Some(output) = self.session.poll() else {
                let late = self.session.deadline().is_some_and(|at| at <= self.now);
                assert!(!late, "rule 6: {:?}", self.session.wake_reason());
                return self.tick_for_nothing();
            };
            output.hash(&mut self.digest);
            trace(|| format!("    {output:?}"));
            match output {
                Output::Connect { link } => self.newest_link = link.get(),
                Output::Event(Event::Settled { seq, .. }) => {
                    assert!(self.accepted.contains(&seq) && self.settled.insert(seq), "G1: ended twice");
                }
                Output::Event(Event::Turn { delivery }) => {
                    let (number, maybe_dup) = self.ahead.remove(&delivery).expect("it was ahead");
                    self.handed.remove(&number);
                    self.hand_over(delivery, number, maybe_dup);
                }
                Output::Event(Event::Gap { from, to, .. }) => assert!(to.is_none_or(|to| from <= to), "R5"),
                Output::Event(Event::RejectedButAcked { .. }) => panic!("S8: there is a word for it"),
                Output::Probe { .. } => panic!("a native peer is asked by its own ping"),
                Output::Frame { link, frame } => match frame {
                    Frame::Data { seq, id, .. } => {
                        assert!(self.on_link.insert((link, seq)) || self.asked, "F2: twice on one connection");
                        assert_eq!(id, ORIGIN.message(seq), "I1: another id");
                        assert!(seq.since(una) < WINDOW && !self.settled.contains(&seq), "S10: {seq} from {una}");
                    }
                    Frame::Marks { report, .. } => {
                        assert!(report.done & !report.arrived == 0 && report.rejected & !report.done == 0, "S3");
                    }
                    Frame::Nack { .. } => {}
                    Frame::Ack { .. } | Frame::Ping | Frame::Keepalive => panic!("a plain word: {frame:?}"),
                },
                Output::Post { post, id, .. } => {
                    assert_eq!(id, ORIGIN.message(post.seq), "I1: another id");
                    self.posts.push(post);
                }
                Output::Respond { request, .. } => assert!(self.waiting.remove(&request).is_some(), "to nobody"),
                Output::Carry { request, .. } => assert_eq!(self.waiting.get(&request), Some(&true), "to nobody"),
                Output::Greet { talk, .. } | Output::Poll { talk, .. } => {
                    assert!(talk > self.talk, "a question was numbered twice");
                    self.talk = talk;
                }
                Output::Event(_) | Output::Close { .. } | Output::Refuse { .. } => {}
            }
        }
    }

    /// Rule 4: before the deadline a tick asks for nothing and moves nothing but the clock.
    fn tick_for_nothing(&self) {
        let mut ticked = self.session.clone();
        let _ = ticked.handle(self.now, Input::Tick);
        assert_eq!(ticked.poll(), None, "rule 4: a spurious tick asks for something");
        assert!(ticked == self.session, "rule 4: a spurious tick moves something");
    }

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
        assert_eq!(self.settled, self.accepted, "G1: accepted, and never ended");
        assert!(self.waiting.is_empty(), "H3: requests without an answer: {:?}", self.waiting);
    }
}
