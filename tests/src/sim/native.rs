//! Two native sessions over a network that cuts, delays, loses answers and blocks WebSockets, in virtual time.
//!
//! ```text
//!  client ═ link ═ hub      a link delivers in order, until it is cut: then both learn of it, at different times
//!    └──── HTTP ────┘       hello, posts and polls; each request or answer may be lost, requests may overtake each other
//! ```
//!
//! Either side may lose its memory: its next self numbers anew under a larger epoch. The applications complete, reject,
//! give back, and take their time; what they send may expire; the clock may stand still.
//!
//! Promises: nothing accepted is lost or ends twice (G1), nothing is handed over twice unless it is marked (G2, R4), in
//! order (S9), what is missing is told and counted (R5), and on one connection nothing goes twice (F2). Every world is a
//! seed, or a script of bytes.

use crate::sim::clock::{at, ms, s};
use bowline::{
    Accepted, Answer, Arrival, Beat, DeliveryId, Event, Frame, Greeting, Head, HeapSession, HttpOutcome, Instant,
    LinkId, MessageId, NATIVE, NATIVE_PEER, Nack, NativeConfig, Origin, Outcome, Output, Policy, PostId, Reason,
    Rejection, Report, RequestId, ResumeRefusal, RetryHint, Seq, SplitMix64, State, Verdict,
};
use core::hash::{Hash, Hasher};
use core::time::Duration;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What kind of world it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Both want order.
    pub order: bool,
    /// So many messages at each application.
    pub held: usize,
    /// So many of a hundred requests, and answers, are lost.
    pub lossy: u64,
    /// So many of a hundred messages are given back.
    pub give_back: u64,
    /// So many are rejected.
    pub reject: u64,
    /// So many live only for a few seconds.
    pub mortal: u64,
    /// The longest that an application takes for a message.
    pub work: Duration,
    /// The longest that a request takes on its way.
    pub lag: Duration,
    /// Both sides are called at any time besides.
    pub spurious: bool,
}

impl Setup {
    /// Fast, faithful, in order.
    pub const CALM: Self = Self {
        order: true,
        held: 64,
        lossy: 0,
        give_back: 0,
        reject: 0,
        mortal: 0,
        work: ms(30),
        lag: ms(20),
        spurious: false,
    };
}
/// A frame on its way.
#[derive(Clone, Copy, Debug)]
enum Cell {
    Hello(Greeting),
    Head(Head, u32),
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
enum Happening {
    Frame {
        link: u64,
        to: usize,
        cell: Cell,
    },
    Up {
        link: LinkId,
    },
    Down {
        link: LinkId,
        to: usize,
        reason: Reason,
    },
    Done {
        party: usize,
        delivery: DeliveryId,
        payload: u32,
        myself: u32,
    },
    /// A POST arrives at the hub; its answer goes back.
    Post {
        post: PostId,
        id: MessageId,
        una: Seq,
        payload: u32,
        selves: Selves,
    },
    Posted {
        post: PostId,
        outcome: HttpOutcome,
        carried: Vec<(Head, u32)>,
    },
    Greet {
        talk: u32,
        greeting: Greeting,
        selves: Selves,
    },
    Poll {
        talk: u32,
        selves: Selves,
        wait: Duration,
        report: Report,
        una: Seq,
    },
    Talked {
        talk: u32,
        outcome: HttpOutcome,
        carried: Vec<(Head, u32)>,
    },
    Cut,
    Block(bool),
    Send {
        party: usize,
    },
    Restart {
        party: usize,
    },
    Sleep(Duration),
}

/// Which self of the client speaks to which self of the hub.
type Selves = [u32; 2];

/// What the hub owes to a request.
enum Owed {
    Post(PostId),
    Poll(u32, Vec<(Head, u32)>),
}

struct Party {
    session: HeapSession<u32>,
    /// How many selves before this one.
    myself: u32,
    /// Accepted by this self, by number; its end.
    sent: BTreeMap<Seq, (u32, Option<Outcome>)>,
    /// What it was to hand over, kept until its turn.
    ahead: BTreeMap<DeliveryId, (u32, bool)>,
    /// Handed over, in this order, to this self since its peer is who it is.
    got: Vec<u32>,
    /// Handed over to any self, and not given back.
    ever: BTreeMap<u32, u32>,
    /// Completed, and rejected, by any self.
    done: BTreeSet<u32>,
    rejected: BTreeSet<u32>,
    doubtful: usize,
    gaps: u64,
    lost: u32,
    next: u32,
    frames: u64,
    resumed: (u32, u32),
    reasons: BTreeSet<&'static str>,
    /// How often each was sent, on any path.
    emitted: BTreeMap<u32, u32>,
    on_link: BTreeSet<(u32, u64, Seq)>,
    copies: u64,
}

/// The world. See the module.
pub struct World {
    seed: u64,
    setup: Setup,
    now: Instant,
    rng: SplitMix64,
    agenda: BTreeMap<(Instant, u64), Happening>,
    count: u64,
    parties: [Party; 2],
    /// The live connection, as each side names it; per direction when the last frame arrives.
    wire: Option<(LinkId, Option<LinkId>, u64)>,
    wires: u64,
    last: [Instant; 2],
    blocked: bool,
    calm: bool,
    closing: bool,
    /// The self of the hub that the client knows.
    known: u32,
    owed: BTreeMap<RequestId, Owed>,
    requests: u64,
    again: SplitMix64,
    digest: DefaultHasher,
    log: VecDeque<String>,
}

/// Who dials.
pub const CLIENT: usize = 0;
/// Who is dialled.
pub const HUB: usize = 1;

impl World {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new(seed: u64, setup: Setup) -> Self {
        let now = Instant::ZERO;
        let parties = [CLIENT, HUB].map(|party| Party {
            session: session(party, seed, setup, 0, now),
            myself: 0,
            sent: BTreeMap::new(),
            ahead: BTreeMap::new(),
            got: Vec::new(),
            ever: BTreeMap::new(),
            done: BTreeSet::new(),
            rejected: BTreeSet::new(),
            doubtful: 0,
            gaps: 0,
            lost: 0,
            next: 0,
            frames: 0,
            resumed: (0, 0),
            reasons: BTreeSet::new(),
            emitted: BTreeMap::new(),
            on_link: BTreeSet::new(),
            copies: 0,
        });
        let mut world = Self {
            seed,
            setup,
            now,
            rng: SplitMix64::new(seed),
            agenda: BTreeMap::new(),
            count: 0,
            parties,
            wire: None,
            wires: 0,
            last: [now; 2],
            blocked: false,
            calm: false,
            closing: false,
            known: 0,
            owed: BTreeMap::new(),
            requests: 0,
            again: SplitMix64::new(seed ^ 0x5a5a),
            digest: DefaultHasher::new(),
            log: VecDeque::new(),
        };
        for party in [CLIENT, HUB] {
            world.parties[party].session.start(now);
            world.drain(party);
        }
        world
    }

    fn after(&mut self, delay: Duration, happening: Happening) {
        self.count += 1;
        self.agenda.insert((self.now.after(delay), self.count), happening);
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(1_000 + self.rng.up_to(20_000))
    }

    fn lag(&mut self) -> Duration {
        let most = if self.calm { ms(20) } else { self.setup.lag };
        Duration::from_micros(1_000 + self.rng.up_to(most.as_micros() as u64))
    }

    fn selves(&self) -> Selves {
        [self.parties[CLIENT].myself, self.known]
    }

    fn lost(&mut self) -> bool {
        !self.calm && self.setup.lossy > 0 && self.rng.up_to(99) < self.setup.lossy
    }

    fn note(&mut self, text: String) {
        if self.log.len() > 60 {
            self.log.pop_front();
        }
        self.log.push_back(format!("{} {text}", self.now.as_micros()));
    }

    fn send(&mut self, party: usize) {
        let payload = self.parties[party].next;
        let mortal = self.setup.mortal > 0 && self.rng.up_to(99) < self.setup.mortal;
        let life = mortal.then(|| ms(1000 + self.rng.up_to(9000)));
        let policy = Policy { life, ..Policy::DEFAULT };
        if let Ok(seq) = self.parties[party].session.send(self.now, payload, 100, policy) {
            self.parties[party].next += 1;
            self.parties[party].sent.insert(seq, (payload, None));
        }
        self.drain(party);
    }

    fn hand_over(&mut self, party: usize, delivery: DeliveryId, payload: u32, maybe_dup: bool) {
        let sender = &self.parties[1 - party];
        let times = sender.emitted.get(&payload).copied().unwrap_or_default();
        let who = &mut self.parties[party];
        let before = who.ever.entry(payload).or_default();
        assert!(*before == 0 || maybe_dup, "G2: {party} gets {payload} twice, as new\n{}", self.log());
        assert!(!maybe_dup || times > 1, "R4: {payload} was sent once, and is in doubt\n{}", self.log());
        who.doubtful += usize::from(maybe_dup);
        // What is given back keeps the place it had.
        if !who.got.contains(&payload) {
            who.got.push(payload);
        }
        if self.setup.give_back > 0 && self.rng.up_to(99) < self.setup.give_back && !self.calm {
            let verdict = Verdict::Retry { after: ms(self.rng.up_to(50)) };
            assert!(who.session.complete(self.now, delivery, verdict));
            return;
        }
        *before += 1;
        let myself = who.myself;
        let work = Duration::from_micros(self.rng.up_to(self.setup.work.as_micros() as u64));
        self.after(work, Happening::Done { party, delivery, payload, myself });
    }

    fn arrived(&mut self, party: usize, arrival: Arrival, payload: u32) {
        match arrival {
            Arrival::Deliver { delivery, maybe_dup } => {
                assert!(!self.parties[party].session.waits(delivery));
                self.hand_over(party, delivery, payload, maybe_dup);
            }
            Arrival::Ahead { delivery, maybe_dup } => {
                assert!(self.parties[party].session.waits(delivery));
                self.parties[party].ahead.insert(delivery, (payload, maybe_dup));
            }
            Arrival::Duplicate | Arrival::Full | Arrival::Answer(_) => {}
            Arrival::Reused => panic!("I5"),
        }
    }

    fn to_head(frame: Frame<'_, u32>) -> (Head, u32) {
        match frame {
            Frame::Data { seq, una, payload, .. } => (Head::Numbered { seq, una }, *payload),
            Frame::Marks { report, una, beat } => (Head::Marks { report, una, beat }, 0),
            Frame::Nack { seq, after } => (Head::Nack { seq, nack: Nack::Retry { after } }, 0),
            Frame::Ack { .. } | Frame::Ping | Frame::Keepalive => panic!("a plain word to a native peer: {frame:?}"),
        }
    }

    fn drain(&mut self, party: usize) {
        for _ in 0..10_000 {
            let Some(output) = self.parties[party].session.poll() else {
                let session = &self.parties[party].session;
                let late = session.deadline().is_some_and(|at| at <= self.now);
                assert!(!late, "rule 6: {:?}\n{}", session.wake_reason(), self.log());
                return;
            };
            (self.now, party).hash(&mut self.digest);
            output.hash(&mut self.digest);
            match output {
                Output::Connect { link } => {
                    let blocked = self.blocked;
                    self.note(format!("dial {link} blocked {blocked}"));
                    let delay = self.delay();
                    if blocked {
                        self.after(delay, Happening::Down { link, to: CLIENT, reason: Reason::Status(403) });
                    } else {
                        self.after(delay, Happening::Up { link });
                    }
                }
                Output::Close { link, ending } => {
                    self.note(format!("{party} closes {link} {ending:?}"));
                    self.after(ms(1), Happening::Down { link, to: party, reason: Reason::Closed(1006) });
                    let mine = |(client, hub, _): &(LinkId, Option<LinkId>, u64)| {
                        if party == CLIENT { Some(*client) } else { *hub }
                    };
                    if self.wire.as_ref().and_then(mine) == Some(link) {
                        self.cut(party);
                    }
                }
                Output::Refuse { .. } => panic!("nobody is refused"),
                Output::Event(event) => self.event(party, event),
                Output::Respond { request, answer } => self.respond(request, answer),
                Output::Carry { request, frame } => {
                    let head = Self::to_head(frame);
                    if matches!(head.0, Head::Numbered { .. }) {
                        *self.parties[HUB].emitted.entry(head.1).or_default() += 1;
                    }
                    match self.owed.get_mut(&request) {
                        Some(Owed::Poll(_, frames)) => frames.push(head),
                        Some(Owed::Post(_)) | None => panic!("carried to nobody"),
                    }
                }
                Output::Greet { talk, .. } => {
                    let greeting = self.parties[CLIENT].session.greeting(true);
                    let selves = self.selves();
                    self.http(ms(10_000), Happening::Greet { talk, greeting, selves }, |outcome| Happening::Talked {
                        talk,
                        outcome,
                        carried: Vec::new(),
                    });
                }
                Output::Poll { talk, wait, timeouts } => {
                    let session = &self.parties[CLIENT].session;
                    let (report, una) = (session.report(), session.outbox().una());
                    let poll = Happening::Poll { talk, wait, report, una, selves: self.selves() };
                    self.http(timeouts.thinking, poll, |outcome| Happening::Talked {
                        talk,
                        outcome,
                        carried: Vec::new(),
                    });
                }
                Output::Post { post, id, payload, timeouts } => {
                    let payload = *payload;
                    let una = self.parties[CLIENT].session.outbox().una();
                    *self.parties[CLIENT].emitted.entry(payload).or_default() += 1;
                    let happening = Happening::Post { post, id, una, payload, selves: self.selves() };
                    self.http(timeouts.thinking, happening, |outcome| Happening::Posted {
                        post,
                        outcome,
                        carried: Vec::new(),
                    });
                }
                Output::Probe { .. } => panic!("a native peer is asked by its own ping"),
                Output::Frame { link, frame } => {
                    let (head, payload) = Self::to_head(frame);
                    let who = &mut self.parties[party];
                    if let Head::Numbered { seq, .. } = head {
                        who.frames += 1;
                        *who.emitted.entry(payload).or_default() += 1;
                        who.copies += u64::from(!who.on_link.insert((who.myself, link.get(), seq)));
                    }
                    self.put(party, link, Cell::Head(head, payload));
                }
            }
        }
        panic!("output without end");
    }

    /// A request leaves, or is lost and known to be after its deadline.
    fn http(&mut self, deadline: Duration, happening: Happening, lost: impl FnOnce(HttpOutcome) -> Happening) {
        if self.lost() {
            self.after(deadline, lost(HttpOutcome::Unknown(Reason::Timeout)));
        } else {
            let lag = self.lag();
            self.after(lag, happening);
        }
    }

    fn answer(&mut self, lost: Happening, deadline: Duration, answer: Happening) {
        if self.lost() {
            self.after(deadline, lost);
        } else {
            let lag = self.lag();
            self.after(lag, answer);
        }
    }

    fn respond(&mut self, request: RequestId, answer: Answer) {
        let status = if answer.after().is_some() { 409 } else { answer.status() };
        let outcome = HttpOutcome::status(status).with_after(answer.after().unwrap_or_default());
        match self.owed.remove(&request).expect("an answer to nobody") {
            Owed::Post(post) => {
                let session = &self.parties[HUB].session;
                let marks = Head::Marks { report: session.report(), una: session.outbox().una(), beat: Beat::None };
                let lost =
                    Happening::Posted { post, outcome: HttpOutcome::Unknown(Reason::Timeout), carried: Vec::new() };
                self.answer(lost, ms(10_000), Happening::Posted { post, outcome, carried: vec![(marks, 0)] });
            }
            Owed::Poll(talk, carried) => {
                let lost =
                    Happening::Talked { talk, outcome: HttpOutcome::Unknown(Reason::Timeout), carried: Vec::new() };
                self.answer(lost, ms(20_000), Happening::Talked { talk, outcome, carried });
            }
        }
    }

    fn put(&mut self, from: usize, link: LinkId, cell: Cell) {
        let Some((client, hub, wire)) = self.wire else { return };
        let current = if from == CLIENT { Some(client) } else { hub };
        if current != Some(link) {
            return;
        }
        let delay = self.delay();
        let at = self.now.after(delay).max(self.last[1 - from]);
        self.last[1 - from] = at;
        self.count += 1;
        self.agenda.insert((at, self.count), Happening::Frame { link: wire, to: 1 - from, cell });
    }

    fn event(&mut self, party: usize, event: Event) {
        let who = &mut self.parties[party];
        match event {
            Event::Settled { seq, outcome, .. } => {
                let (_, end) = who.sent.get_mut(&seq).expect("accepted");
                assert_eq!(end.replace(outcome), None, "G1: ends twice");
                let payload = who.sent[&seq].0;
                let other = &self.parties[1 - party];
                match outcome {
                    Outcome::Delivered { .. } => {
                        assert!(other.done.contains(&payload), "G3: nobody completed it\n{}", self.log())
                    }
                    Outcome::Rejected(Rejection::ByPeer | Rejection::Status(422)) => {
                        assert!(other.rejected.contains(&payload), "S8: nobody rejected it");
                    }
                    Outcome::Expired => assert!(self.setup.mortal > 0),
                    Outcome::Abandoned if self.closing => {}
                    Outcome::Rejected(_) | Outcome::Abandoned => panic!("{seq} {outcome:?}"),
                }
            }
            Event::Turn { delivery } => {
                let (payload, maybe_dup) = who.ahead.remove(&delivery).expect("kept");
                assert!(!who.session.waits(delivery));
                self.hand_over(party, delivery, payload, maybe_dup);
            }
            Event::Gap { count, to, .. } => {
                who.gaps += count;
                who.lost += u32::from(to.is_none());
                self.note(format!("{party} {event:?}"));
            }
            Event::Resumed { resumed, reason } => {
                who.reasons.extend(reason.map(ResumeRefusal::as_str));
                if resumed {
                    who.resumed.0 += 1;
                } else {
                    who.resumed.1 += 1;
                }
            }
            Event::State { .. } | Event::Path { .. } | Event::Down { .. } | Event::RequestFailed { .. } => {
                self.note(format!("{party} {event:?}"));
            }
            Event::RejectedButAcked { .. } | Event::HorizonShort { .. } | Event::IdReused { .. } => {
                panic!("{event:?} of a native session")
            }
        }
    }

    /// The connection breaks; both learn of it some time, or never do.
    fn cut(&mut self, known: usize) {
        let Some((client, hub, _)) = self.wire.take() else { return };
        self.note(format!("cut of {client} {hub:?}"));
        let reason = Reason::Closed(1006);
        let delay = ms(self.rng.up_to(3000));
        if known != CLIENT {
            self.after(delay, Happening::Down { link: client, to: CLIENT, reason });
        }
        let delay = ms(self.rng.up_to(3000));
        if let Some(hub) = hub.filter(|_| known != HUB) {
            self.after(delay, Happening::Down { link: hub, to: HUB, reason });
        }
    }

    /// The hub hears a greeting; `None`: it is refused.
    fn greeted(&mut self, greeting: &Greeting, knows: u32, http: bool) -> Option<Option<ResumeRefusal>> {
        let hub = &mut self.parties[HUB];
        let known = (greeting.resume && knows != hub.myself).then_some(ResumeRefusal::UnknownSession);
        let before = hub.session.greeting(true).rx.map(|got| got.of);
        let reason = hub.session.greeted(self.now, greeting, known, http);
        if before.is_some_and(|of| of != greeting.origin) && reason != Some(ResumeRefusal::Epoch) {
            hub.got.clear();
        }
        (reason != Some(ResumeRefusal::Epoch)).then(|| reason.filter(|_| greeting.resume))
    }

    fn welcome(&self, greeting: &Greeting, reason: Option<ResumeRefusal>) -> Head {
        let mut welcome = self.parties[HUB].session.greeting(true);
        welcome.resume = greeting.resume && reason.is_none();
        Head::Welcome { greeting: welcome, refused: reason }
    }

    /// The client has heard a welcome, of the hub as it is now.
    fn welcomed(&mut self, of: Origin) {
        let epoch = of.epoch() - 1;
        if self.known != epoch {
            self.known = epoch;
            self.parties[CLIENT].got.clear();
        }
    }

    /// One side loses its memory, and with it whatever it was about.
    fn restart(&mut self, party: usize) {
        self.note(format!("{party} restarts"));
        self.cut(party);
        let who = &mut self.parties[party];
        who.myself += 1;
        let seed = self.rng.next_u64();
        who.session = session(party, seed, self.setup, who.myself, self.now);
        who.sent.clear();
        who.ahead.clear();
        who.got.clear();
        who.gaps = 0;
        self.agenda.retain(|_, happening| match happening {
            Happening::Up { .. } | Happening::Posted { .. } | Happening::Talked { .. } => party != CLIENT,
            Happening::Down { to, .. } => *to != party,
            _ => true,
        });
        for (request, owed) in core::mem::take(&mut self.owed) {
            if party == CLIENT {
                self.parties[HUB].session.request_gone(self.now, request);
                continue;
            }
            let (outcome, carried) = (HttpOutcome::Unknown(Reason::Timeout), Vec::new());
            self.after(
                ms(9),
                match owed {
                    Owed::Post(post) => Happening::Posted { post, outcome, carried },
                    Owed::Poll(talk, _) => Happening::Talked { talk, outcome, carried },
                },
            );
        }
        if party == CLIENT {
            self.known = u32::MAX;
            self.parties[HUB].session.tick(self.now);
            self.drain(HUB);
        }
        self.parties[party].session.start(self.now);
        self.drain(party);
    }

    fn frame(&mut self, wire: u64, to: usize, cell: Cell) {
        let Some((client, hub, current)) = self.wire else { return };
        if current != wire {
            return;
        }
        let now = self.now;
        match cell {
            Cell::Hello(greeting) => {
                let Some(reason) = self.greeted(&greeting, self.known, false) else { return self.cut(2) };
                let Accepted::Open(link) = self.parties[HUB].session.accept(now) else {
                    assert!(self.closing, "a newcomer replaces");
                    return self.cut(2);
                };
                self.wire = Some((client, Some(link), wire));
                let head = self.welcome(&greeting, reason);
                self.put(HUB, link, Cell::Head(head, 0));
                self.drain(HUB);
            }
            Cell::Head(head, payload) => {
                let Some(link) = (if to == CLIENT { Some(client) } else { hub }) else { return };
                if let Some(arrival) = self.parties[to].session.received(now, link, head) {
                    self.arrived(to, arrival, payload);
                }
                if let Head::Welcome { greeting, .. } = head {
                    self.welcomed(greeting.origin);
                }
                self.drain(to);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Frame { link, to, cell } => self.frame(link, to, cell),
            Happening::Up { link } => {
                if self.blocked || !self.parties[CLIENT].session.link_up(now, link) {
                    let reason = Reason::PortClosed;
                    self.after(ms(1), Happening::Down { link, to: CLIENT, reason });
                    return;
                }
                self.cut(CLIENT);
                self.wires += 1;
                self.wire = Some((link, None, self.wires));
                self.last = [now; 2];
                let greeting = self.parties[CLIENT].session.greeting(true);
                self.put(CLIENT, link, Cell::Hello(greeting));
                self.drain(CLIENT);
            }
            Happening::Down { link, to, reason } => {
                self.parties[to].session.link_down(now, link, reason, RetryHint::NONE);
                self.drain(to);
            }
            Happening::Done { party, delivery, payload, myself } => {
                let reject = self.setup.reject > 0 && self.rng.up_to(99) < self.setup.reject;
                let who = &mut self.parties[party];
                if who.myself != myself {
                    return;
                }
                if reject {
                    who.rejected.insert(payload)
                } else {
                    who.done.insert(payload)
                };
                let verdict = if reject { Verdict::Reject } else { Verdict::Done };
                assert!(who.session.complete(now, delivery, verdict), "it was open");
                self.drain(party);
            }
            Happening::Post { post, id, una, payload, selves } => {
                let refused = if selves[CLIENT] != self.parties[CLIENT].myself {
                    return;
                } else if selves[HUB] != self.parties[HUB].myself {
                    Some(HttpOutcome::status(302))
                } else {
                    let of = self.parties[HUB].session.greeting(true).rx.map(|got| got.of);
                    let its = of.is_some_and(|of| of.seq_of(id).is_some());
                    (!its).then_some(HttpOutcome::status(400))
                };
                if let Some(outcome) = refused {
                    let lag = self.lag();
                    return self.after(lag, Happening::Posted { post, outcome, carried: Vec::new() });
                }
                self.parties[HUB].session.advance(now, una);
                self.requests += 1;
                let request = RequestId(self.requests);
                self.owed.insert(request, Owed::Post(post));
                let arrival = self.parties[HUB].session.request(now, request, Some(id), None);
                if let Arrival::Answer(answer) = arrival {
                    self.respond(request, answer);
                }
                self.arrived(HUB, arrival, payload);
                self.drain(HUB);
            }
            Happening::Posted { post, outcome, carried } => {
                self.carry(carried);
                self.parties[CLIENT].session.posted(now, post, outcome);
                self.drain(CLIENT);
            }
            Happening::Greet { talk, greeting, selves } => {
                let knows = selves[HUB];
                let reason = self.greeted(&greeting, knows, true);
                self.drain(HUB);
                if selves[CLIENT] != self.parties[CLIENT].myself {
                    return;
                }
                let lost =
                    Happening::Talked { talk, outcome: HttpOutcome::Unknown(Reason::Timeout), carried: Vec::new() };
                let answer = match reason {
                    Some(reason) => {
                        let carried = vec![(self.welcome(&greeting, reason), 0)];
                        Happening::Talked { talk, outcome: HttpOutcome::status(200), carried }
                    }
                    None => Happening::Talked { talk, outcome: HttpOutcome::status(401), carried: Vec::new() },
                };
                self.answer(lost, ms(10_000), answer);
            }
            Happening::Poll { talk, wait, report, una, selves } => {
                if selves[CLIENT] != self.parties[CLIENT].myself {
                    return;
                }
                if selves[HUB] != self.parties[HUB].myself {
                    let lag = self.lag();
                    let outcome = HttpOutcome::status(302);
                    return self.after(lag, Happening::Talked { talk, outcome, carried: Vec::new() });
                }
                self.requests += 1;
                let request = RequestId(self.requests);
                self.owed.insert(request, Owed::Poll(talk, Vec::new()));
                assert!(self.parties[HUB].session.polled(now, request, wait, &report, una), "one at a time");
                self.drain(HUB);
            }
            Happening::Talked { talk, outcome, carried } => {
                self.carry(carried);
                self.parties[CLIENT].session.talked(now, talk, outcome);
                self.drain(CLIENT);
            }
            Happening::Cut => self.cut(2),
            Happening::Block(blocked) => {
                self.blocked = blocked;
                if blocked {
                    self.cut(2);
                }
            }
            Happening::Send { party } => self.send(party),
            Happening::Restart { party } => self.restart(party),
            Happening::Sleep(span) => self.now = now.after(span),
        }
    }

    fn carry(&mut self, carried: Vec<(Head, u32)>) {
        for (head, payload) in carried {
            if let Some(arrival) = self.parties[CLIENT].session.carried(self.now, head) {
                self.arrived(CLIENT, arrival, payload);
            }
            if let Head::Welcome { greeting, .. } = head {
                self.welcomed(greeting.origin);
            }
        }
    }

    fn log(&self) -> String {
        let log: Vec<_> = self.log.iter().cloned().collect();
        format!("seed {}, {:?}\n{}", self.seed, self.setup, log.join("\n"))
    }

    /// Lets time pass until nothing is left to happen before `until`.
    pub fn run(&mut self, until: Instant) {
        loop {
            let due = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let deadlines = self.parties.iter().filter_map(|party| party.session.deadline());
            let Some(at) = deadlines.chain(due).min().filter(|at| *at <= until) else {
                self.now = until;
                return;
            };
            if self.setup.spurious && at > self.now {
                for _ in 0..3 {
                    let span = at.since(self.now).as_micros() as u64;
                    self.now = self.now.after(Duration::from_micros(self.again.up_to(span.saturating_sub(1))));
                    for party in &mut self.parties {
                        party.session.tick(self.now);
                        assert_eq!(party.session.poll(), None, "rule 4: a spurious tick asks for something");
                    }
                }
            }
            self.now = at.max(self.now);
            if due.is_some_and(|due| due <= self.now) {
                let (_, happening) = self.agenda.pop_first().unwrap();
                self.happen(happening);
            } else {
                for party in [CLIENT, HUB] {
                    if self.parties[party].session.deadline().is_some_and(|at| at <= self.now) {
                        self.parties[party].session.tick(self.now);
                        self.drain(party);
                    }
                }
            }
        }
    }

    /// What everybody may expect when the network has been well for long enough.
    ///
    /// # Panics
    /// If a promise is broken.
    pub fn books(&self) {
        for party in [CLIENT, HUB] {
            let (me, other) = (&self.parties[party], &self.parties[1 - party]);
            let mut missing = 0;
            for (seq, (payload, end)) in &me.sent {
                let end = end.unwrap_or_else(|| {
                    panic!("G1: {party}'s {seq} has no end\n{:#?}\n{:#?}\n{}", me.session, other.session, self.log())
                });
                let handed = other.ever.get(payload).is_some_and(|times| *times > 0);
                assert!(handed || end == Outcome::Expired, "G1: {seq} is lost");
                missing += u64::from(!handed);
            }
            assert!(!self.setup.order || other.got.is_sorted(), "S9: {:?}", other.got);
            if me.myself == 0 && other.myself == 0 {
                assert_eq!(other.gaps, missing, "R5: {party}\n{}", self.log());
                assert_eq!(other.lost, 0, "R5: nobody lost a memory\n{}", self.log());
                // Whose first welcome was lost cannot know that it is its first self: what was sent with that is in doubt.
                assert!(self.setup.mortal > 0 || self.parties[CLIENT].resumed.1 == 0, "R2: nothing was lost");
            }
            assert_eq!(me.session.stats().violations, 0, "S7\n{}", self.log());
            // Whoever is given back a message, or has no room for it, asks for it again.
            if self.setup.give_back == 0 && self.setup.held == 64 {
                assert_eq!(me.copies, 0, "F2: {party} sends twice on one connection\n{}", self.log());
            }
        }
    }

    /// Both end, in their own time.
    ///
    /// # Panics
    /// If they do not.
    pub fn close(&mut self) {
        self.closing = true;
        for party in [CLIENT, HUB] {
            self.parties[party].session.close(self.now, ms(30_000));
            self.drain(party);
        }
        self.run(self.now.after(ms(120_000)));
        for party in &self.parties {
            assert_eq!((party.session.state(), party.session.deadline()), (State::Closed, None), "L8: {}", self.log());
            assert!(party.sent.values().all(|(_, end)| end.is_some()), "G1");
        }
        let owed: Vec<_> = self.owed.keys().collect();
        assert!(owed.is_empty(), "H3: {owed:?} without an answer\n{}", self.log());
    }

    /// From now on everything arrives.
    pub fn heal(&mut self) {
        self.calm = true;
        self.blocked = false;
    }

    /// What time it is.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Everything that both sides have done.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// One side's session.
    #[must_use]
    pub fn session(&self, party: usize) -> &HeapSession<u32> {
        &self.parties[party].session
    }

    /// How often it was told that it goes on, and that it does not.
    #[must_use]
    pub fn resumed(&self) -> (u32, u32) {
        self.parties[CLIENT].resumed
    }

    /// How many frames with messages a side has written, and how many messages it has accepted.
    #[must_use]
    pub fn frames(&self, party: usize) -> (u64, u64) {
        (self.parties[party].frames, self.parties[party].sent.len() as u64)
    }

    /// What a side was told is lost: by numbers, and with a former self; and how many came in doubt.
    #[must_use]
    pub fn told(&self, party: usize) -> (u64, u32, usize) {
        let party = &self.parties[party];
        (party.gaps, party.lost, party.doubtful)
    }

    /// Why sessions did not go on.
    #[must_use]
    pub fn reasons(&self) -> &BTreeSet<&'static str> {
        &self.parties[CLIENT].reasons
    }

    /// A message, after this.
    pub fn send_after(&mut self, delay: Duration, party: usize) {
        self.after(delay, Happening::Send { party });
    }

    /// A cut of the connection, after this.
    pub fn cut_after(&mut self, delay: Duration) {
        self.after(delay, Happening::Cut);
    }

    /// No WebSocket comes up, after this, for so long.
    pub fn block_after(&mut self, delay: Duration, span: Duration) {
        self.after(delay, Happening::Block(true));
        self.after(delay + span, Happening::Block(false));
    }

    /// A side loses its memory, after this.
    pub fn restart_after(&mut self, delay: Duration, party: usize) {
        self.after(delay, Happening::Restart { party });
    }

    /// The clock stands still, after this, for so long.
    pub fn sleep_after(&mut self, delay: Duration, span: Duration) {
        self.after(delay, Happening::Sleep(span));
    }
}

fn session(party: usize, seed: u64, setup: Setup, myself: u32, now: Instant) -> HeapSession<u32> {
    let (mut config, identity) = if party == CLIENT { (NATIVE, 7) } else { (NATIVE_PEER, 9) };
    config.native = Some(NativeConfig { order: setup.order, ..NativeConfig::DEFAULT });
    config.outbox.capacity = 100;
    config.inbox.held = setup.held;
    HeapSession::heap(config.check().expect("it makes sense"), seed, Origin::new(identity, 1 + myself), now)
}

/// A world with cuts, blocked WebSockets and lost answers, in the first minute; then all is well.
#[must_use]
pub fn stormy(seed: u64, setup: Setup, restarts: u64) -> World {
    let mut world = World::new(seed, setup);
    let mut rng = SplitMix64::new(seed ^ 0xabcd);
    for _ in 0..rng.up_to(8) {
        let when = ms(rng.up_to(60_000));
        world.cut_after(when);
    }
    for _ in 0..rng.up_to(3) {
        let (when, span) = (ms(rng.up_to(40_000)), ms(rng.up_to(20_000)));
        world.block_after(when, span);
    }
    for _ in 0..restarts {
        let (when, party) = (ms(5_000 + rng.up_to(50_000)), rng.up_to(1) as usize);
        world.restart_after(when, party);
    }
    if rng.up_to(3) == 0 {
        world.sleep_after(ms(rng.up_to(50_000)), ms(rng.up_to(8_000)));
    }
    for party in [CLIENT, HUB] {
        for _ in 0..200 {
            let when = ms(rng.up_to(60_000));
            world.send_after(when, party);
        }
    }
    world.run(at(s(61)));
    world.heal();
    world.run(world.now.after(ms(400_000)));
    world
}
