//! Two native sessions over a network that cuts, delays, loses answers and blocks WebSockets, in virtual time.
//!
//! ```text
//!  client ═ link ═ hub      a link delivers in order, until it is cut: then both learn of it, at different times
//!    └──── HTTP ────┘       hello, posts and polls; each request or answer may be lost, requests may overtake each other
//! ```
//!
//! Promises: nothing accepted is lost (G1), nothing is handed over twice (G2), in order (S9), and after a cut only what is
//! missing crosses again (R2). Every world is a seed.

use bowline::marks::WINDOW;
use bowline::{
    Answer, Arrival, Beat, Cause, DeliveryId, Event, Frame, Greeting, Head, HeapSession, Hint, HttpOutcome, Instant,
    LinkId, MessageId, NATIVE, NATIVE_PEER, NativeConfig, Origin, Outcome, Output, Policy, PostId, Report, RequestId,
    Seq, SplitMix64, Verdict,
};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
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
        cause: Cause,
    },
    Done {
        party: usize,
        delivery: DeliveryId,
        payload: u32,
    },
    /// A POST arrives at the hub; its answer goes back.
    Post {
        post: PostId,
        id: MessageId,
        una: Seq,
        payload: u32,
    },
    Posted {
        post: PostId,
        outcome: HttpOutcome,
        carried: Vec<(Head, u32)>,
    },
    Greet {
        talk: u32,
        greeting: Greeting,
    },
    Poll {
        talk: u32,
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
}

/// What the hub owes to a request.
enum Owed {
    Post(PostId),
    Poll(u32, Vec<(Head, u32)>),
}

struct Party {
    session: HeapSession<u32>,
    /// Accepted, by number; its end.
    sent: BTreeMap<Seq, (u32, Option<Outcome>)>,
    /// What it was to hand over, kept until its turn.
    ahead: BTreeMap<DeliveryId, u32>,
    got: Vec<u32>,
    doubtful: usize,
    gaps: u64,
    next: u32,
    frames: u64,
    resumed: (u32, u32),
}

struct World {
    now: Instant,
    rng: SplitMix64,
    agenda: BTreeMap<(Instant, u64), Happening>,
    count: u64,
    parties: [Party; 2],
    /// The live connection, as each side names it; per direction when the last frame arrives.
    wire: Option<(LinkId, Option<LinkId>, u64)>,
    wires: u64,
    ends: BTreeMap<u64, (LinkId, LinkId)>,
    last: [Instant; 2],
    blocked: bool,
    lossy: u64,
    owed: BTreeMap<RequestId, Owed>,
    requests: u64,
    give_back: u64,
    log: VecDeque<String>,
}

const CLIENT: usize = 0;
const HUB: usize = 1;

impl World {
    fn new(seed: u64, order: bool) -> Self {
        let now = Instant::ZERO;
        let session = |mut config: bowline::Config, identity| {
            config.native = Some(NativeConfig { order, ..NativeConfig::DEFAULT });
            config.outbox.capacity = 100;
            HeapSession::heap(config.check().unwrap(), seed, Origin::new(identity, 1), now)
        };
        let party = |session| Party {
            session,
            sent: BTreeMap::new(),
            ahead: BTreeMap::new(),
            got: Vec::new(),
            doubtful: 0,
            gaps: 0,
            next: 0,
            frames: 0,
            resumed: (0, 0),
        };
        let mut world = Self {
            now,
            rng: SplitMix64::new(seed),
            agenda: BTreeMap::new(),
            count: 0,
            parties: [party(session(NATIVE, 7)), party(session(NATIVE_PEER, 9))],
            wire: None,
            wires: 0,
            ends: BTreeMap::new(),
            last: [now; 2],
            blocked: false,
            lossy: 0,
            owed: BTreeMap::new(),
            requests: 0,
            give_back: 0,
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

    fn lost(&mut self) -> bool {
        self.lossy > 0 && self.rng.up_to(99) < self.lossy
    }

    fn note(&mut self, text: String) {
        if self.log.len() > 60 {
            self.log.pop_front();
        }
        self.log.push_back(format!("{} {text}", self.now.as_micros()));
    }

    fn send(&mut self, party: usize) {
        let payload = self.parties[party].next;
        if let Ok(seq) = self.parties[party].session.send(self.now, payload, 100, Policy::DEFAULT) {
            self.parties[party].next += 1;
            self.parties[party].sent.insert(seq, (payload, None));
        }
        self.drain(party);
    }

    fn hand_over(&mut self, party: usize, delivery: DeliveryId, payload: u32) {
        if self.give_back > 0 && self.rng.up_to(99) < self.give_back {
            let verdict = Verdict::Retry { after: ms(self.rng.up_to(50)) };
            assert!(self.parties[party].session.complete(self.now, delivery, verdict));
            return;
        }
        self.parties[party].got.push(payload);
        let work = ms(self.rng.up_to(30));
        self.after(work, Happening::Done { party, delivery, payload });
    }

    fn arrived(&mut self, party: usize, arrival: Arrival, payload: u32) {
        match arrival {
            Arrival::Deliver { delivery, maybe_dup } => {
                self.parties[party].doubtful += usize::from(maybe_dup);
                self.hand_over(party, delivery, payload);
            }
            Arrival::Ahead { delivery, .. } => {
                self.parties[party].ahead.insert(delivery, payload);
            }
            Arrival::Duplicate | Arrival::Full | Arrival::Answer(_) => {}
            Arrival::Reused => panic!("I5"),
        }
    }

    fn to_head(frame: Frame<'_, u32>) -> (Head, u32) {
        match frame {
            Frame::Data { seq, una, payload, .. } => (Head::Numbered { seq, una }, *payload),
            Frame::Marks { report, una, beat } => (Head::Marks { report, una, beat }, 0),
            Frame::Nack { seq, after } => (Head::Nack { seq, nack: bowline::Nack::Retry { after } }, 0),
            Frame::Ack { .. } | Frame::Ping | Frame::Keepalive => panic!("a plain word to a native peer: {frame:?}"),
        }
    }

    fn drain(&mut self, party: usize) {
        for _ in 0..10_000 {
            let Some(output) = self.parties[party].session.poll() else {
                let session = &self.parties[party].session;
                assert!(session.deadline().is_none_or(|at| at > self.now), "rule 6");
                return;
            };
            match output {
                Output::Connect { link } => {
                    let blocked = self.blocked;
                    self.note(format!("dial {link} blocked {blocked}"));
                    let delay = self.delay();
                    if blocked {
                        self.after(delay, Happening::Down { link, to: CLIENT, cause: Cause::Rejected(403) });
                    } else {
                        self.after(delay, Happening::Up { link });
                    }
                }
                Output::Close { link, ending } => {
                    self.note(format!("{party} closes {link} {ending:?}"));
                    self.after(ms(1), Happening::Down { link, to: party, cause: Cause::Closed(1006) });
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
                    let Some(Owed::Poll(_, frames)) = self.owed.get_mut(&request) else { panic!("carried to nobody") };
                    frames.push(head);
                }
                Output::Greet { talk, .. } => {
                    let greeting = self.parties[CLIENT].session.greeting(true);
                    self.http(ms(10_000), Happening::Greet { talk, greeting }, |outcome| Happening::Talked {
                        talk,
                        outcome,
                        carried: Vec::new(),
                    });
                }
                Output::Poll { talk, wait, deadline } => {
                    let session = &self.parties[CLIENT].session;
                    let (report, una) = (session.report(), session.outbox().una());
                    let poll = Happening::Poll { talk, wait, report, una };
                    self.http(deadline, poll, |outcome| Happening::Talked { talk, outcome, carried: Vec::new() });
                }
                Output::Post { post, id, payload, deadline } => {
                    let payload = *payload;
                    let una = self.parties[CLIENT].session.outbox().una();
                    let happening = Happening::Post { post, id, una, payload };
                    self.http(deadline, happening, |outcome| Happening::Posted { post, outcome, carried: Vec::new() });
                }
                Output::Frame { link, frame } => {
                    let (head, payload) = Self::to_head(frame);
                    self.parties[party].frames += u64::from(matches!(head, Head::Numbered { .. }));
                    self.put(party, link, Cell::Head(head, payload));
                }
            }
        }
        panic!("output without end");
    }

    /// A request leaves, or is lost and known to be after its deadline.
    fn http(&mut self, deadline: Duration, happening: Happening, lost: impl FnOnce(HttpOutcome) -> Happening) {
        if self.lost() {
            self.after(deadline, lost(HttpOutcome::Unknown));
        } else {
            let delay = self.delay();
            self.after(delay, happening);
        }
    }

    fn answer(&mut self, lost: Happening, deadline: Duration, answer: Happening) {
        if self.lost() {
            self.after(deadline, lost);
        } else {
            let delay = self.delay();
            self.after(delay, answer);
        }
    }

    fn respond(&mut self, request: RequestId, answer: Answer) {
        let after = if let Answer::Busy { after } = answer { Some(after) } else { None };
        let outcome = match answer {
            Answer::Busy { after } => HttpOutcome::InProgress { after },
            _ => HttpOutcome::from_status(answer.status(), after),
        };
        match self.owed.remove(&request).expect("an answer to nobody") {
            Owed::Post(post) => {
                let session = &self.parties[HUB].session;
                let marks = Head::Marks { report: session.report(), una: session.outbox().una(), beat: Beat::None };
                let lost = Happening::Posted { post, outcome: HttpOutcome::Unknown, carried: Vec::new() };
                self.answer(lost, ms(10_000), Happening::Posted { post, outcome, carried: vec![(marks, 0)] });
            }
            Owed::Poll(talk, carried) => {
                let lost = Happening::Talked { talk, outcome: HttpOutcome::Unknown, carried: Vec::new() };
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
                if matches!(outcome, Outcome::Delivered { .. }) {
                    let payload = who.sent[&seq].0;
                    assert!(self.parties[1 - party].got.contains(&payload), "G3: delivered, but nobody has it");
                }
            }
            Event::Turn { delivery } => {
                let payload = who.ahead.remove(&delivery).expect("kept");
                self.hand_over(party, delivery, payload);
            }
            Event::Gap { count, .. } => {
                who.gaps += count;
                self.note(format!("{party} {event:?}"));
            }
            Event::Resumed { resumed, .. } => {
                if resumed {
                    who.resumed.0 += 1;
                } else {
                    who.resumed.1 += 1;
                }
            }
            Event::State { .. } | Event::Path { .. } | Event::Down { .. } => {
                self.note(format!("{party} {event:?}"));
            }
            Event::RejectedButAcked { .. } | Event::HorizonShort { .. } | Event::IdReused { .. } => {
                panic!("{event:?} of a native session")
            }
        }
    }

    /// The connection breaks; both learn of it some time, or never do.
    fn cut(&mut self, known: usize) {
        let Some((client, hub, wire)) = self.wire.take() else { return };
        self.note(format!("cut of {client} {hub:?}"));
        self.ends.remove(&wire);
        let cause = Cause::Closed(1006);
        let delay = ms(self.rng.up_to(3000));
        if known != CLIENT {
            self.after(delay, Happening::Down { link: client, to: CLIENT, cause });
        }
        let delay = ms(self.rng.up_to(3000));
        if let Some(hub) = hub.filter(|_| known != HUB) {
            self.after(delay, Happening::Down { link: hub, to: HUB, cause });
        }
    }

    fn frame(&mut self, wire: u64, to: usize, cell: Cell) {
        let Some((client, hub, current)) = self.wire else { return };
        if current != wire {
            return;
        }
        let now = self.now;
        match cell {
            Cell::Hello(greeting) => {
                let reason = self.parties[HUB].session.greeted(now, &greeting, None).filter(|_| greeting.resume);
                let bowline::Accepted::Open(link) = self.parties[HUB].session.accept(now) else { panic!("replaces") };
                self.wire = Some((client, Some(link), wire));
                let resumed = greeting.resume && reason.is_none();
                let mut welcome = self.parties[HUB].session.greeting(true);
                welcome.resume = resumed;
                let head = Head::Welcome { greeting: welcome, refused: reason };
                self.put(HUB, link, Cell::Head(head, 0));
                self.drain(HUB);
            }
            Cell::Head(head, payload) => {
                let Some(link) = (if to == CLIENT { Some(client) } else { hub }) else { return };
                if let Some(arrival) = self.parties[to].session.received(now, link, head) {
                    self.arrived(to, arrival, payload);
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
                    let cause = Cause::Refused;
                    self.after(ms(1), Happening::Down { link, to: CLIENT, cause });
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
            Happening::Down { link, to, cause } => {
                self.parties[to].session.link_down(now, link, cause, Hint::NONE);
                self.drain(to);
            }
            Happening::Done { party, delivery, payload } => {
                let _ = payload;
                self.parties[party].session.complete(now, delivery, Verdict::Done);
                self.drain(party);
            }
            Happening::Post { post, id, una, payload } => {
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
            Happening::Greet { talk, greeting } => {
                let reason = self.parties[HUB].session.greeted(now, &greeting, None).filter(|_| greeting.resume);
                let mut welcome = self.parties[HUB].session.greeting(true);
                welcome.resume = greeting.resume && reason.is_none();
                self.drain(HUB);
                let head = Head::Welcome { greeting: welcome, refused: reason };
                let lost = Happening::Talked { talk, outcome: HttpOutcome::Unknown, carried: Vec::new() };
                let answer = Happening::Talked { talk, outcome: HttpOutcome::Acked, carried: vec![(head, 0)] };
                self.answer(lost, ms(10_000), answer);
            }
            Happening::Poll { talk, wait, report, una } => {
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
        }
    }

    fn carry(&mut self, carried: Vec<(Head, u32)>) {
        for (head, payload) in carried {
            if let Some(arrival) = self.parties[CLIENT].session.carried(self.now, head) {
                self.arrived(CLIENT, arrival, payload);
            }
        }
    }

    /// Lets time pass until nothing is left to happen before `until`.
    fn run(&mut self, until: Instant) {
        loop {
            let due = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let deadlines = self.parties.iter().filter_map(|party| party.session.deadline());
            let Some(at) = deadlines.chain(due).min().filter(|at| *at <= until) else {
                self.now = until;
                return;
            };
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

    fn books(&self, order: bool, seed: u64) {
        for party in [CLIENT, HUB] {
            let (me, other) = (&self.parties[party], &self.parties[1 - party]);
            let log = || self.log.iter().cloned().collect::<Vec<_>>().join("\n");
            for (seq, (payload, end)) in &me.sent {
                let end = end.unwrap_or_else(|| {
                    panic!("seed {seed}: G1: {party}'s {seq} has no end; {:?}\n{}", me.session, log())
                });
                assert!(matches!(end, Outcome::Delivered { .. }), "seed {seed}: {seq} {end:?}");
                assert!(other.got.contains(payload), "seed {seed}: G1: lost");
            }
            let once: BTreeSet<_> = other.got.iter().collect();
            assert_eq!(once.len(), other.got.len(), "seed {seed}: G2: twice");
            assert_eq!(other.got.len(), me.sent.len(), "seed {seed}: G1");
            assert!(!order || other.got.is_sorted(), "seed {seed}: S9: {:?}", other.got);
            assert_eq!(other.gaps, 0, "seed {seed}: R5: nothing is missing\n{}", log());
        }
    }
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

/// A world with cuts, blocked WebSockets and lost answers, in the first minute; then all is well.
fn stormy(seed: u64, order: bool) -> World {
    let mut world = World::new(seed, order);
    world.lossy = seed % 4 * 10;
    let mut rng = SplitMix64::new(seed ^ 0xabcd);
    for _ in 0..rng.up_to(8) {
        let when = ms(rng.up_to(60_000));
        world.after(when, Happening::Cut);
    }
    for _ in 0..rng.up_to(3) {
        let (when, span) = (ms(rng.up_to(40_000)), ms(rng.up_to(20_000)));
        world.after(when, Happening::Block(true));
        world.after(when + span, Happening::Block(false));
    }
    for party in [CLIENT, HUB] {
        for _ in 0..200 {
            let when = ms(rng.up_to(60_000));
            world.after(when, Happening::Send { party });
        }
    }
    world.run(at(61_000));
    world.lossy = 0;
    world.blocked = false;
    world.run(at(61_000 + 240_000));
    world
}

#[test]
fn s9_g1_g2_over_cuts_and_both_paths_everything_arrives_once_and_in_order() {
    let worlds = std::env::var("BOWLINE_WORLDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let (mut by_http, mut resumed) = (0, 0);
    for seed in 0..worlds {
        let world = stormy(seed, true);
        world.books(true, seed);
        by_http += world.parties[CLIENT].session.stats().delivered_http;
        resumed += world.parties[CLIENT].resumed.0;
        assert_eq!(world.parties[CLIENT].resumed.1, 0, "seed {seed}: R2: nothing was lost, so it goes on");
        assert_eq!(world.parties.iter().map(|p| p.session.stats().violations).sum::<u64>(), 0, "seed {seed}");
        assert_eq!(world.parties.iter().map(|p| p.doubtful).sum::<usize>(), 0, "seed {seed}: I1: nobody lost a memory");
    }
    assert!(by_http > worlds && resumed > 0, "H3, R2: {by_http} by HTTP, {resumed} resumed");
}

#[test]
fn s9_without_order_everything_arrives_once() {
    for seed in 0..100 {
        stormy(seed, false).books(false, seed);
    }
}

#[test]
fn s8_what_is_given_back_comes_again() {
    for seed in 0..40 {
        let mut world = World::new(seed, false);
        world.give_back = 20;
        for n in 0..100 {
            world.after(ms(n * 20), Happening::Send { party: (n % 2) as usize });
        }
        world.after(ms(1000), Happening::Cut);
        world.run(at(120_000));
        world.books(false, seed);
    }
}

#[test]
fn r2_after_a_cut_only_what_is_missing_crosses_again() {
    let mut world = World::new(5, true);
    for n in 0..500 {
        world.after(ms(100 + n * 2), Happening::Send { party: CLIENT });
    }
    world.after(ms(600), Happening::Cut);
    world.run(at(60_000));
    world.books(true, 5);
    let client = &world.parties[CLIENT];
    let again = client.frames - client.sent.len() as u64;
    assert!(again <= WINDOW, "{again} frames more than messages");
    assert_eq!(client.resumed, (1, 0));
}

#[test]
fn s10_nobody_sends_more_than_the_other_takes() {
    let mut world = World::new(6, true);
    for n in 0..100 {
        world.after(ms(n), Happening::Send { party: CLIENT });
    }
    // Nothing is completed: the hub's application sits on all of it.
    while let Some((at, _)) = world.agenda.first_key_value().map(|(key, _)| *key).filter(|(at, _)| *at < self::at(5000))
    {
        world.run(at);
        world.agenda.retain(|_, happening| !matches!(happening, Happening::Done { party: HUB, .. }));
    }
    let done = world.parties[CLIENT].session.stats().delivered_websocket;
    assert_eq!(world.parties[HUB].session.held() as u64, world.parties[CLIENT].frames - done);
    assert_eq!(world.parties[CLIENT].session.backlog(), 100 - done as usize);
    assert!(world.parties[CLIENT].frames <= WINDOW + done, "{}", world.parties[CLIENT].frames);
}
