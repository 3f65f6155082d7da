//! Two parties, their applications, and the network between them.
//!
//! ```text
//!  application ── Send, Complete ──▶ Driver ── effects ──▶ ┌─ wires (WebSocket): bytes in order, held while silent ─┐
//!      ▲                               ▲                   │                                                      │
//!      └────────── deliveries ─────────┴──── inputs ────── └─ calls (HTTP): one answer, or none, or a late one ─────┘
//! ```
//!
//! Party 0 dials, party 1 accepts; both may send. A party is its driver, its sockets and its application, as an adapter
//! would hold them; while its process stands still, what arrives lies in the sockets' buffers, and is read first when it
//! wakes. Every effect is checked as it leaves, every promise is kept in the [`Ledger`].

use crate::sim::clock::{Agenda, s};
use crate::sim::driver::{Driver, Effect, Style};
use crate::sim::ledger::Ledger;
use crate::sim::network::{Dial, Http, Network};
use crate::sim::plan::{Change, Plan};
use bowline::{
    Accepted, Answer, Arrival, BETTENSOR_MINER, Config, ContentKey, DeliveryId, Ending, Event, GONKA_API_NODE,
    GONKA_ML_NODE, Head, HttpOutcome, HttpTimeouts, Input, Instant, LinkId, MessageId, OnReject, Origin, Outcome,
    Policy, PostId, ProgramLife, Proof, Ready, Reason, Refusal, Reply, RequestId, RetryHint, Role, Seen, Seq,
    SplitMix64, State, Verdict,
};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the two parties are.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Of the dialer, then of the acceptor.
    pub configs: [Config; 2],
    /// Message types are declared idempotent: they have content keys (I4).
    pub keys: bool,
    /// Requests carry the message's id (H1).
    pub http_ids: bool,
    /// How the drivers go about it.
    pub style: Style,
    /// Every draw in the world comes from it.
    pub seed: u64,
}

impl Setup {
    /// An API node that dials an ML node.
    pub const GONKA: Self =
        Self { configs: [GONKA_API_NODE, GONKA_ML_NODE], keys: true, http_ids: false, style: Style::Exact, seed: 1 };

    /// Two parties with the default of every field, without HTTP.
    pub const PLAIN: Self = {
        let mut acceptor = Config::DEFAULT;
        acceptor.link.role = Role::Acceptor;
        Self { configs: [Config::DEFAULT, acceptor], keys: false, http_ids: true, style: Style::Exact, seed: 1 }
    };

    /// A miner that dials a validator, without HTTP; the miner's ping is a message of the wire's own.
    pub const BETTENSOR: Self = {
        let mut setup = Self::PLAIN;
        setup.configs[0] = BETTENSOR_MINER;
        setup.configs[0].route.http = false;
        setup.configs[1].heartbeat.interval = s(60);
        setup.configs[1].heartbeat.dead = s(300);
        setup
    };

    /// The same with HTTP both ways.
    pub const BOTH: Self = {
        let mut setup = Self::PLAIN;
        setup.configs[0].route.http = true;
        setup.configs[1].route.http = true;
        setup
    };

    /// One of all kinds, by its number.
    #[must_use]
    pub fn any(seed: u64) -> Self {
        let mut setup = match seed % 6 {
            0 => Self::GONKA,
            1 => Self::PLAIN,
            _ => Self::BOTH,
        };
        for config in &mut setup.configs {
            match seed % 6 {
                3 => {
                    // Small everything, and open is not ready.
                    config.link.ready = Ready::Hello;
                    (config.outbox.capacity, config.inbox.bytes, config.inbox.held) = (4, 6 * Seen::BYTES, 3);
                }
                4 => {
                    config.inbox.on_reject = OnReject::Silence;
                    config.heartbeat.keepalive = s(25);
                    config.inbox.bytes = 64 * Seen::BYTES;
                }
                5 => (setup.keys, setup.http_ids) = (true, seed & 64 != 0),
                _ => {}
            }
        }
        Self { seed, ..setup }
    }

    /// The same with another seed.
    #[must_use]
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same under another style.
    #[must_use]
    pub const fn style(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

/// One effect: when, whose, what.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// When it left.
    pub at: Instant,
    /// Which party's.
    pub party: usize,
    /// The effect.
    pub effect: Effect,
}

/// What one application does with messages.
#[derive(Clone, Copy, Debug)]
struct App {
    least: Duration,
    most: Duration,
    rejects: u8,
    retries: u8,
}

const EAGER: App = App { least: Duration::from_millis(10), most: Duration::from_millis(20), rejects: 0, retries: 0 };

#[derive(Debug)]
struct Party {
    driver: Driver,
    config: Config,
    life: u32,
    asleep: Option<Instant>,
    slept: Instant,
    woke: Instant,
    /// Its program dies of two messages at once.
    frail: bool,
    /// The slept time was long enough to be noticed as a stall.
    stalled: bool,
    app: App,
    /// Every socket it holds, attempts included.
    sockets: BTreeMap<LinkId, usize>,
    /// As an adapter knows it: the one that may be read and written, and the one that knocks.
    current: Option<LinkId>,
    candidates: BTreeSet<LinkId>,
    told_full: bool,
    urged: bool,
    payloads: BTreeMap<DeliveryId, u32>,
    outbound: BTreeMap<Seq, u32>,
    accepted: u64,
    settled: u64,
}

/// What lies in a connection's pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cell {
    Data(MessageId, u32),
    Ack(MessageId),
    /// A ping of the wire's own and its answer.
    Ping,
    Pong,
    /// A WebSocket ping and its answer.
    Probe,
    Answer,
    Hello,
    Keepalive,
    Close(u16),
    Reset,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    /// Not open yet, or a stranger.
    Absent,
    Open(LinkId),
    Gone,
}

/// One WebSocket connection; index 0 is the dialer's side.
#[derive(Debug)]
struct Wire {
    sides: [Side; 2],
    /// What is on its way to each side.
    pipes: [VecDeque<(Instant, Cell)>; 2],
    heard: [Instant; 2],
    /// When a side last had an excuse for not being heard.
    excused: Instant,
    /// Whether a side's program is dead here, and how many messages it has not acknowledged here.
    mute: [bool; 2],
    unacknowledged: [usize; 2],
}

/// One HTTP request.
#[derive(Debug)]
struct Call {
    from: usize,
    life: u32,
    post: PostId,
    id: MessageId,
    payload: u32,
    open: bool,
    answer_lost: bool,
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Change(Change),
    Dialled { wire: usize, link: LinkId, life: u32, result: Option<(Reason, RetryHint)> },
    Knocks { wire: usize },
    Pump { wire: usize, to: usize },
    Request { call: usize, copy: u64 },
    GaveUp { call: usize },
    Answer { call: usize, outcome: HttpOutcome },
    Completed { party: usize, life: u32, delivery: DeliveryId, verdict: Verdict },
    Awake { party: usize },
}

/// The world.
#[derive(Debug)]
pub struct World {
    setup: Setup,
    agenda: Agenda<Happening>,
    rng: SplitMix64,
    /// The weather, to change at will.
    pub net: Network,
    parties: [Party; 2],
    wires: Vec<Wire>,
    calls: Vec<Call>,
    /// Every effect so far.
    pub log: Vec<Entry>,
    /// Effects are printed as they leave.
    pub show: bool,
    /// The books.
    pub ledger: Ledger,
    tries: SplitMix64,
    sends: u32,
    sizes: BTreeMap<u32, u32>,
}

impl World {
    /// Two fresh parties, not started.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            agenda: Agenda::new(),
            rng: SplitMix64::new(setup.seed),
            net: Network::FAIR,
            parties: [Party::new(&setup, 0, 0, Instant::ZERO), Party::new(&setup, 1, 0, Instant::ZERO)],
            wires: Vec::new(),
            calls: Vec::new(),
            log: Vec::new(),
            show: crate::fuzz::is_traced(),
            ledger: Ledger::default(),
            tries: SplitMix64::new(!setup.seed),
            sends: 0,
            sizes: BTreeMap::new(),
        }
    }

    /// Two parties, started, and up if the network lets them.
    #[must_use]
    pub fn started(setup: Setup) -> Self {
        let mut world = Self::new(setup);
        world.change(Change::Start(1));
        world.change(Change::Start(0));
        world
    }

    /// A world from a plan, played to its end.
    #[must_use]
    pub fn play(plan: &Plan, style: Style) -> Self {
        let mut world = Self::started(Setup::any(plan.seed).style(style));
        let mut when = Instant::ZERO;
        for (pause, change) in &plan.changes {
            when = when.after(*pause);
            world.agenda.put(when, Happening::Change(*change));
        }
        world.run_until(when.after(s(1)));
        world
    }

    /// The present.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.agenda.now()
    }

    /// A party's driver, to look at.
    #[must_use]
    pub const fn driver(&self, party: usize) -> &Driver {
        &self.parties[party].driver
    }

    /// Where a party's session stands.
    #[must_use]
    pub fn state(&self, party: usize) -> State {
        self.driver(party).session().state()
    }

    /// What a party's session reported.
    pub fn events(&self, party: usize) -> impl Iterator<Item = (Instant, Event)> {
        self.log.iter().filter(move |entry| entry.party == party).filter_map(|entry| match entry.effect {
            Effect::Event(event) => Some((entry.at, event)),
            _ => None,
        })
    }

    /// How often a party's effect was like this.
    pub fn count(&self, party: usize, like: impl Fn(&Effect) -> bool) -> usize {
        self.log.iter().filter(|entry| entry.party == party && like(&entry.effect)).count()
    }

    /// A party's application sends a message; its payload, if it was accepted.
    pub fn send(&mut self, party: usize, size: u32, policy: Policy) -> Option<u32> {
        self.sends += 1;
        let payload = self.sends;
        self.sizes.insert(payload, size);
        match self.handle(party, Input::Send { payload, size, policy }) {
            Reply::Queued(_) => Some(payload),
            Reply::Refused(refusal, back) => {
                assert_eq!(back, payload, "G4: a refusal hands the message back");
                let session = self.driver(party).session();
                match refusal {
                    Refusal::Full => assert!(!session.outbox().has_room(), "G4: full is full"),
                    Refusal::TooLarge => assert!(size >= 100, "H5"),
                    Refusal::Closed => {
                        assert!(matches!(session.state(), State::Closing | State::Closed | State::Failed));
                    }
                }
                None
            }
            other => panic!("{other:?} to a Send"),
        }
    }

    /// Sends with the default policy a small message that must be accepted.
    pub fn send_one(&mut self, party: usize) -> u32 {
        self.send(party, 100, Policy::DEFAULT).expect("room")
    }

    /// Changes the world now.
    pub fn change(&mut self, change: Change) {
        match change {
            Change::Send(party, size, policy) => {
                if self.awake(party) {
                    let _ = self.send(party, size, policy);
                }
            }
            Change::Dial(dial) => self.net.dial = dial,
            Change::Http(http) => self.net.http = http,
            Change::Silent(party, yes) => {
                self.net.silent[party] = yes;
                self.excuse_all();
                self.pump_all();
            }
            Change::Full(party, yes) => {
                self.net.full[party] = yes;
                self.excuse_all();
                self.tell_full(party);
                self.pump_all();
            }
            Change::Mute(yes) => self.net.mute = yes,
            Change::Largest(size) => self.net.largest = size,
            Change::Rate(rate) => self.net.rate = Some(rate),
            Change::Dies(party) => {
                for wire in self.parties[party].sockets.values() {
                    self.wires[*wire].mute[party] = true;
                }
            }
            Change::Frail(party) => self.parties[party].frail = true,
            Change::ExpectData(party, yes) => self.tell(party, Input::ExpectData { yes }),
            Change::Delay(delay, jitter) => (self.net.delay, self.net.jitter) = (delay, jitter),
            Change::Reset => self.break_all(Cell::Reset),
            Change::CloseAll(code) => self.break_all(Cell::Close(code)),
            Change::App(party, least, most, rejects, retries) => {
                self.parties[party].app = App { least, most, rejects, retries };
            }
            Change::Sleep(party, span) => self.sleep(party, span),
            Change::Crash(party) => self.crash(party),
            Change::RetryNow(party) => {
                self.parties[party].urged = true;
                self.tell(party, Input::RetryNow);
            }
            Change::Start(party) => {
                self.parties[party].urged = true;
                self.tell(party, Input::Start);
            }
            Change::Knock => {
                let wire = self.wire();
                self.agenda.put_in(self.net.delay, Happening::Knocks { wire });
            }
            Change::Close(party, drain) => {
                self.tell(party, Input::Close { drain });
            }
            Change::Calm => self.calm(),
        }
    }

    /// Everything works from now on, at both ends too.
    pub fn calm(&mut self) {
        self.net = Network::FAIR;
        for party in [0, 1] {
            self.parties[party].app = EAGER;
            self.tell_full(party);
        }
        self.excuse_all();
        self.pump_all();
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Duration) {
        self.run_until(self.now().after(span));
    }

    /// Lets time pass until then.
    pub fn run_until(&mut self, end: Instant) {
        loop {
            let wakes = [0, 1].map(|party| self.wakes(party));
            let next = wakes.into_iter().chain([self.agenda.next()]).flatten().min();
            let Some(now) = next.filter(|now| *now <= end) else { break };
            self.agenda.advance(now.max(self.now()));
            self.instant();
        }
        self.agenda.advance(end);
        self.check();
    }

    /// Lets time pass until this holds, at most so long.
    pub fn run_while(&mut self, most: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now().after(most);
        while holds(self) && self.now() < end {
            let wakes = [0, 1].map(|party| self.wakes(party));
            let Some(now) = wakes.into_iter().chain([self.agenda.next()]).flatten().min() else { break };
            if now > end {
                break;
            }
            self.agenda.advance(now.max(self.now()));
            self.instant();
        }
        self.check();
        !holds(self)
    }

    /// The network finally works, both processes too: everything accepted must end, within a bound. Then both are closed,
    /// which must end within its bound too. Where both parties have HTTP, that must do: every other seed never gets a
    /// WebSocket again.
    pub fn finish(&mut self) {
        self.calm();
        if self.setup.seed % 2 == 1 && self.setup.configs.iter().all(|config| config.route.http) {
            self.net.dial = Dial::Hangs;
            self.change(Change::Reset);
        }
        self.run_while(s(60), |world| world.parties.iter().any(|party| party.asleep.is_some()));
        // What was on its way while it was bad is over by now. After a terminal word only the application can go on.
        self.run(s(15));
        self.change(Change::Start(0));
        self.change(Change::Start(1));
        // Without a peer nothing can be settled: then the close below does it.
        let over = |world: &Self| [0, 1].iter().any(|p| matches!(world.state(*p), State::Closed | State::Closing));
        let backlog = |world: &Self| world.parties.iter().any(|party| party.driver.session().backlog() > 0);
        let open = |world: &Self| !over(world) && backlog(world);
        // Ten minutes is the longest that a path may be left alone (P1).
        if !self.run_while(s(660), open) {
            // Silence about a message is final on a connection (S8, F2): where there is no HTTP, only a new one brings it
            // again.
            assert!(
                self.setup.configs.iter().any(|config| !config.route.http),
                "G1: the network works: {:#?}",
                self.parties
            );
            self.change(Change::Reset);
            assert!(self.run_while(s(660), open), "G1: the network works: {:#?}", self.parties);
        }
        for party in [0, 1] {
            self.change(Change::Close(party, s(10)));
        }
        let closing = |world: &Self| [0, 1].iter().any(|party| world.state(*party) != State::Closed);
        assert!(self.run_while(s(13), closing), "L8: a close is bounded");
        self.run(s(60));
        self.ledger.closed();
        for party in &self.parties {
            assert_eq!(party.accepted, party.settled, "G1: every end is told");
        }
    }

    /// Everything due in the present instant.
    fn instant(&mut self) {
        for _ in 0..10_000 {
            if let Some(happening) = self.agenda.take() {
                self.happen(happening);
                self.check();
                if self.tries.up_to(15) == 0 {
                    let party = usize::from(self.tries.up_to(1) == 0);
                    self.parties[party].driver.try_the_past(self.agenda.now());
                }
                continue;
            }
            let now = self.now();
            let due = |party: &usize| self.wakes(*party).is_some_and(|at| at <= now);
            let Some(party) = [0, 1].into_iter().find(due) else { return };
            let effects = self.parties[party].driver.tick(now);
            self.carry_out(party, effects);
            self.check();
        }
        panic!("G7, G9: the world does not get past {:?}", self.now());
    }

    fn wakes(&self, party: usize) -> Option<Instant> {
        let party = &self.parties[party];
        if party.asleep.is_some() { None } else { party.driver.wake() }
    }

    fn awake(&self, party: usize) -> bool {
        self.parties[party].asleep.is_none()
    }

    fn happen(&mut self, happening: Happening) {
        // What concerns a process that stands still waits for it.
        let concerns = match happening {
            Happening::Change(Change::RetryNow(party) | Change::Start(party) | Change::Close(party, _))
            | Happening::Completed { party, .. } => Some(party),
            Happening::Dialled { .. } => Some(0),
            Happening::Knocks { .. } => Some(1),
            Happening::Answer { call, .. } => Some(self.calls[call].from),
            Happening::Request { call, .. } | Happening::GaveUp { call } => Some(1 - self.calls[call].from),
            Happening::Change(_) | Happening::Pump { .. } | Happening::Awake { .. } => None,
        };
        if let Some(until) = concerns.and_then(|party| self.parties[party].asleep) {
            self.agenda.put(until, happening);
            return;
        }
        match happening {
            Happening::Change(change) => self.change(change),
            Happening::Dialled { wire, link, life, result } => self.dialled(wire, link, life, result),
            Happening::Knocks { wire } => self.knocks(wire),
            Happening::Pump { wire, to } => self.pump(wire, to),
            Happening::Request { call, copy } => self.request(call, copy),
            Happening::GaveUp { call } => self.gave_up(call),
            Happening::Answer { call, outcome } => self.answer(call, outcome),
            Happening::Completed { party, life, delivery, verdict } => self.completed(party, life, delivery, verdict),
            Happening::Awake { party } => self.wake_up(party),
        }
    }

    /// Gives a party an input and carries out what it asks for.
    fn handle(&mut self, party: usize, input: Input<u32>) -> Reply<u32> {
        let now = self.now();
        let sent = if let Input::Send { payload, .. } = &input { Some(*payload) } else { None };
        let (reply, effects) = self.parties[party].driver.handle(now, input);
        if let (Reply::Queued(seq), Some(payload)) = (&reply, sent) {
            let who = &mut self.parties[party];
            who.accepted += 1;
            who.outbound.insert(*seq, payload);
            self.ledger.accepted(now, party, who.life, *seq, payload);
        }
        self.carry_out(party, effects);
        reply
    }

    /// Gives a party an input whose reply is of no consequence.
    fn tell(&mut self, party: usize, input: Input<u32>) {
        let _ = self.handle(party, input);
    }

    fn carry_out(&mut self, party: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.log.push(Entry { at: self.now(), party, effect });
            if self.show {
                eprintln!("{:>14?} {party} {effect:?}", self.now());
            }
            match effect {
                Effect::Close(link, ending) => self.close(party, link, ending),
                Effect::Refuse(link) => {
                    self.parties[party].candidates.remove(&link);
                    self.say_close(party, link, 1008);
                }
                Effect::Connect(link) => self.connect(party, link),
                Effect::Event(event) => self.event(party, event),
                Effect::Respond(request, answer) => {
                    self.ledger.answered(party, request.0);
                    self.respond(request, answer);
                }
                Effect::Ack(link, id) => self.write(party, link, Cell::Ack(id)),
                Effect::Probe(link) => self.write(party, link, Cell::Probe),
                Effect::Ping(link) if self.asks_the_program(party) => self.write(party, link, Cell::Ping),
                Effect::Ping(link) => self.write(party, link, Cell::Probe),
                Effect::Keepalive(link) => self.write(party, link, Cell::Keepalive),
                Effect::Data(link, seq, id, payload) => {
                    assert_eq!(self.parties[party].outbound.get(&seq), Some(&payload), "I1: {seq}");
                    self.write(party, link, Cell::Data(id, payload));
                }
                Effect::Post(post, id, payload, timeouts) => self.post(party, post, id, payload, timeouts),
            }
        }
    }

    // ---- the WebSocket path ----

    fn wire(&mut self) -> usize {
        let now = self.now();
        let pipes = [VecDeque::new(), VecDeque::new()];
        self.wires.push(Wire {
            sides: [Side::Absent; 2],
            pipes,
            heard: [now; 2],
            excused: now,
            mute: [false; 2],
            unacknowledged: [0; 2],
        });
        self.wires.len() - 1
    }

    fn delay(&mut self) -> Duration {
        let jitter = u64::try_from(self.net.jitter.as_micros()).unwrap();
        self.net.delay + Duration::from_micros(1 + self.rng.up_to(jitter))
    }

    fn connect(&mut self, party: usize, link: LinkId) {
        let who = &mut self.parties[party];
        assert_eq!(who.config.link.role, Role::Dialer, "only a dialer dials");
        assert!(who.sockets.is_empty(), "B7, G6: one attempt at a time, nothing leaked: {:?}", who.sockets);
        let (life, urged) = (who.life, core::mem::take(&mut who.urged));
        let floor = who.config.link.backoff.floor;
        self.ledger.connects(self.agenda.now(), party, floor, urged);
        let wire = self.wire();
        self.parties[party].sockets.insert(link, wire);
        let delay = self.delay();
        if self.net.is_silent() {
            return;
        }
        match self.net.dial {
            Dial::Open => self.agenda.put_in(delay, Happening::Knocks { wire }),
            Dial::Hangs => {}
            Dial::Fails(reason, hint) => {
                self.agenda.put_in(delay, Happening::Dialled { wire, link, life, result: Some((reason, hint)) });
            }
            Dial::OpensThenCloses(code) => {
                self.agenda.put_in(delay, Happening::Dialled { wire, link, life, result: None });
                self.wires[wire].sides[1] = Side::Gone;
                let later = delay + self.delay();
                self.put(wire, 0, later, if code == 1006 { Cell::Reset } else { Cell::Close(code) });
            }
        }
    }

    fn knocks(&mut self, wire: usize) {
        let now = self.now();
        let (reply, effects) = self.parties[1].driver.handle(now, Input::Accept);
        let Reply::Accepted(accepted) = reply else { panic!("{reply:?} to an Accept") };
        let delay = self.delay();
        let dialer = self.parties[0].sockets.iter().find(|(_, held)| **held == wire).map(|(link, _)| *link);
        if let Some(link) = dialer {
            let life = self.parties[0].life;
            self.agenda.put_in(delay, Happening::Dialled { wire, link, life, result: None });
        } else {
            self.wires[wire].sides[0] = Side::Gone;
        }
        let who = &mut self.parties[1];
        match accepted {
            Accepted::Open(link) | Accepted::Probing(link) => {
                if matches!(accepted, Accepted::Open(_)) {
                    who.current = Some(link);
                } else {
                    who.candidates.insert(link);
                }
                who.sockets.insert(link, wire);
                self.wires[wire].sides[1] = Side::Open(link);
            }
            Accepted::Refused => {
                self.wires[wire].sides[1] = Side::Gone;
                let later = delay + self.delay();
                self.put(wire, 0, later, Cell::Close(1008));
            }
        }
        self.carry_out(1, effects);
        if accepted != Accepted::Refused {
            self.opened(wire, 1);
        }
    }

    fn dialled(&mut self, wire: usize, link: LinkId, life: u32, result: Option<(Reason, RetryHint)>) {
        let who = &mut self.parties[0];
        let wanted = who.life == life && who.sockets.get(&link) == Some(&wire);
        if let Some((reason, hint)) = result {
            if wanted {
                who.sockets.remove(&link);
                self.tell(0, Input::LinkDown { link, reason, hint });
            }
            return;
        }
        self.wires[wire].sides[0] = Side::Open(link);
        if !wanted {
            // Given up meanwhile, by a close or a crash; the session says the same if it is asked.
            if life == self.parties[0].life {
                assert_eq!(self.handle(0, Input::LinkUp { link }), Reply::Stale, "G6: a late winner is not wanted");
            }
            self.hang_up(wire, 0);
            return;
        }
        self.parties[0].current = Some(link);
        if self.handle(0, Input::LinkUp { link }) == Reply::Stale {
            assert_eq!(
                self.setup.style,
                Style::Late,
                "nobody gave this attempt up, or a late driver has not heard yet"
            );
            return;
        }
        self.opened(wire, 0);
    }

    /// A side of a connection has opened.
    fn opened(&mut self, wire: usize, party: usize) {
        self.wires[wire].heard[party] = self.now();
        if self.parties[1 - party].config.link.ready == Ready::Hello && !self.net.mute {
            let delay = self.delay();
            self.put(wire, 1 - party, delay, Cell::Hello);
        }
        self.parties[party].told_full = false;
        self.tell_full(party);
        self.pump(wire, party);
    }

    fn tell_full(&mut self, party: usize) {
        let full = self.net.full[party];
        let who = &mut self.parties[party];
        if let Some(link) = who.current.filter(|_| who.told_full != full && who.asleep.is_none()) {
            who.told_full = full;
            self.tell(party, Input::Writable { link, yes: !full });
        }
    }

    fn write(&mut self, party: usize, link: LinkId, cell: Cell) {
        let who = &self.parties[party];
        assert_eq!(who.current, Some(link), "G6: frames go to the current connection");
        assert!(!who.told_full, "nothing is written where nothing can be");
        let wire = who.sockets[&link];
        assert_eq!(self.wires[wire].sides[party], Side::Open(link), "G6: an open one");
        if self.wires[wire].mute[party] && cell != Cell::Probe {
            return;
        }
        if let Cell::Ack(_) = cell {
            let unacknowledged = &mut self.wires[wire].unacknowledged[party];
            *unacknowledged = unacknowledged.saturating_sub(1);
        }
        let delay = self.delay();
        if self.net.full[party] {
            // Not told yet: it lies in the adapter's buffer and moves when the socket does.
            self.put(wire, 1 - party, delay, cell);
            return;
        }
        self.put(wire, 1 - party, delay, cell);
    }

    fn put(&mut self, wire: usize, to: usize, delay: Duration, cell: Cell) {
        let pipe = &mut self.wires[wire].pipes[to];
        let size = if let Cell::Data(_, payload) = cell { u64::from(self.sizes[&payload]) } else { 50 };
        let travels = self.net.rate.map_or(0, |rate| size * 1_000_000 / u64::from(rate));
        let free = pipe.back().map_or(Instant::ZERO, |(when, _)| *when);
        let when = self.agenda.now().after(delay).max(free).after(Duration::from_micros(travels));
        pipe.push_back((when, cell));
        self.agenda.put(when, Happening::Pump { wire, to });
    }

    /// Hands over what has arrived, in order.
    fn pump(&mut self, wire: usize, to: usize) {
        loop {
            let Side::Open(link) = self.wires[wire].sides[to] else { return };
            let who = &self.parties[to];
            let held = self.net.silent[1 - to] || self.net.full[1 - to];
            if who.asleep.is_some() || held || who.candidates.contains(&link) {
                return;
            }
            let now = self.now();
            let pipe = &mut self.wires[wire].pipes[to];
            let Some((_, cell)) = pipe.front().copied().filter(|(when, _)| *when <= now) else { return };
            pipe.pop_front();
            self.read(wire, to, link, cell);
        }
    }

    fn read(&mut self, wire: usize, to: usize, link: LinkId, cell: Cell) {
        self.wires[wire].heard[to] = self.now();
        let key = |payload: u32| self.setup.keys.then(|| ContentKey::from_bits(payload.into()));
        let head = match cell {
            Cell::Data(_, payload) if self.sizes[&payload] > self.net.largest => {
                self.wires[wire].pipes[to].clear();
                self.say_close(to, link, 1009);
                return;
            }
            Cell::Data(id, payload) => Head::Data { id: Some(id), key: key(payload) },
            Cell::Ack(id) => Head::Ack { id },
            Cell::Ping | Cell::Keepalive => Head::Word { pong: false },
            Cell::Pong => Head::Word { pong: true },
            Cell::Probe => Head::Other,
            Cell::Answer => Head::Pong,
            Cell::Hello => Head::Hello,
            Cell::Close(code) => {
                // The peer's close, or its answer to ours: it is echoed and over.
                if self.wires[wire].sides[1 - to] != Side::Gone {
                    let delay = self.delay();
                    self.put(wire, 1 - to, delay, Cell::Close(code));
                }
                return self.down(wire, to, link, Reason::Closed(code));
            }
            Cell::Reset => return self.down(wire, to, link, Reason::Closed(1006)),
        };
        if let Cell::Data(..) = cell {
            let (frail, wire) = (self.parties[to].frail, &mut self.wires[wire]);
            wire.mute[to] |= frail && wire.unacknowledged[to] > 0;
            wire.unacknowledged[to] += 1;
        }
        let reply = self.handle(to, Input::Received { link, head });
        if let (Reply::Arrival(arrival), Cell::Data(_, payload)) = (&reply, cell) {
            match arrival {
                Arrival::Deliver { delivery, maybe_dup } => self.deliver(to, payload, *delivery, *maybe_dup),
                Arrival::Duplicate | Arrival::Full => {}
                Arrival::Answer(_) | Arrival::Reused | Arrival::Ahead { .. } => panic!("{arrival:?} to a frame"),
            }
        }
        let answer = match cell {
            Cell::Ping if !self.wires[wire].mute[to] => Cell::Pong,
            Cell::Probe => Cell::Answer,
            _ => return,
        };
        if self.wires[wire].sides[to] == Side::Open(link) {
            let delay = self.delay();
            self.put(wire, 1 - to, delay, answer);
        }
    }

    /// Whether this party's ping is a message of the wire's own, which a library does not answer.
    fn asks_the_program(&self, party: usize) -> bool {
        matches!(self.parties[party].config.heartbeat.program, ProgramLife::Answers(_))
    }

    /// A side learns that a connection is over.
    fn down(&mut self, wire: usize, party: usize, link: LinkId, reason: Reason) {
        self.wires[wire].sides[party] = Side::Gone;
        self.forget(party, link);
        self.tell(party, Input::LinkDown { link, reason, hint: RetryHint::NONE });
        self.promote(party);
    }

    fn forget(&mut self, party: usize, link: LinkId) {
        let who = &mut self.parties[party];
        who.sockets.remove(&link);
        who.candidates.remove(&link);
        if who.current == Some(link) {
            who.current = who.candidates.pop_first();
            who.told_full = false;
        }
    }

    /// The newcomer has the place: it is read from now on.
    fn promote(&mut self, party: usize) {
        self.tell_full(party);
        if let Some(wire) = self.parties[party].current.and_then(|link| self.parties[party].sockets.get(&link)) {
            self.pump(*wire, party);
        }
    }

    /// A side lets go without a word that anybody would wait for.
    fn hang_up(&mut self, wire: usize, party: usize) {
        self.wires[wire].sides[party] = Side::Gone;
        if self.wires[wire].sides[1 - party] != Side::Gone {
            let delay = self.delay();
            self.put(wire, 1 - party, delay, Cell::Reset);
        }
    }

    /// A side begins the close handshake.
    fn say_close(&mut self, party: usize, link: LinkId, code: u16) {
        let Some(wire) = self.parties[party].sockets.get(&link).copied() else { return };
        let delay = self.delay();
        if self.wires[wire].sides[1 - party] == Side::Gone {
            self.put(wire, party, delay, Cell::Reset);
        } else {
            self.put(wire, 1 - party, delay, Cell::Close(code));
        }
    }

    fn close(&mut self, party: usize, newest: LinkId, ending: Ending) {
        let meant: Vec<_> = self.parties[party].sockets.range(..=newest).map(|(link, wire)| (*link, *wire)).collect();
        for (link, wire) in meant {
            match ending {
                Ending::Code(code) if link == newest => self.say_close(party, link, code),
                Ending::Code(_) | Ending::Drop => {
                    self.forget(party, link);
                    // An attempt that has not come up is aborted when it does.
                    if self.wires[wire].sides[party] != Side::Absent {
                        self.hang_up(wire, party);
                    }
                }
            }
        }
        if ending == Ending::Drop {
            let wire = self.parties[party].current.and_then(|link| self.parties[party].sockets.get(&link)).copied();
            if let Some(wire) = wire {
                self.agenda.put(self.agenda.now(), Happening::Pump { wire, to: party });
            }
        }
    }

    fn break_all(&mut self, cell: Cell) {
        for wire in 0..self.wires.len() {
            for to in [0, 1] {
                if let Side::Open(_) = self.wires[wire].sides[to] {
                    self.wires[wire].pipes[to].clear();
                    let delay = self.delay();
                    self.put(wire, to, delay, cell);
                }
            }
        }
    }

    fn pump_all(&mut self) {
        for wire in 0..self.wires.len() {
            self.pump(wire, 0);
            self.pump(wire, 1);
        }
    }

    fn excuse_all(&mut self) {
        let now = self.now();
        for wire in &mut self.wires {
            wire.excused = now;
        }
    }

    // ---- the HTTP path ----

    fn post(&mut self, party: usize, post: PostId, id: MessageId, payload: u32, timeouts: HttpTimeouts) {
        let who = &self.parties[party];
        assert!(who.config.route.http, "there is an address");
        assert_eq!(who.outbound.get(&post.seq), Some(&payload), "I1: {post:?}");
        self.ledger.posts(self.agenda.now(), payload);
        let call = self.calls.len();
        let (life, to, fro) = (who.life, self.delay(), self.delay());
        let mut made = Call { from: party, life, post, id, payload, open: true, answer_lost: false };
        let reaches = |copy| Happening::Request { call, copy };
        match if self.net.is_silent() { Http::Hangs } else { self.net.http } {
            Http::Open => self.agenda.put_in(to, reaches(0)),
            Http::Twice => {
                self.agenda.put_in(to, reaches(0));
                self.agenda.put_in(fro * 2, reaches(1));
            }
            Http::LosesAnswer => {
                made.answer_lost = true;
                self.agenda.put_in(to, reaches(0));
                self.agenda
                    .put_in(to + fro, Happening::Answer { call, outcome: HttpOutcome::Unknown(Reason::Timeout) });
            }
            Http::LosesRequest => {
                self.agenda.put_in(to + fro, Happening::Answer { call, outcome: HttpOutcome::Unknown(Reason::Timeout) })
            }
            Http::Hangs => {}
            Http::Says(outcome) => self.agenda.put_in(to + fro, Happening::Answer { call, outcome }),
        }
        // A request of the simulator's is sent at once: what is lost is known when the peer has had its time to think.
        self.agenda
            .put_in(timeouts.thinking, Happening::Answer { call, outcome: HttpOutcome::Unknown(Reason::Timeout) });
        self.calls.push(made);
    }

    fn request(&mut self, call: usize, copy: u64) {
        let Call { from, id, payload, open, .. } = self.calls[call];
        if !open {
            return;
        }
        let number = call as u64 * 2 + copy;
        let (to, request) = (1 - from, RequestId(number));
        let id = self.setup.http_ids.then_some(id);
        let key = self.setup.keys.then(|| ContentKey::from_bits(payload.into()));
        self.ledger.asked(to, number);
        let Reply::Arrival(arrival) = self.handle(to, Input::Request { request, id, key }) else {
            panic!("an arrival")
        };
        match arrival {
            Arrival::Deliver { delivery, maybe_dup } => self.deliver(to, payload, delivery, maybe_dup),
            Arrival::Duplicate => {}
            Arrival::Answer(answer) => {
                self.ledger.answered(to, number);
                self.respond(request, answer);
            }
            Arrival::Full | Arrival::Reused | Arrival::Ahead { .. } => panic!("{arrival:?} to a request"),
        }
    }

    fn respond(&mut self, request: RequestId, answer: Answer) {
        let (call, copy) = (usize::try_from(request.0 / 2).unwrap(), request.0 % 2);
        if copy == 1 || self.calls[call].answer_lost {
            return;
        }
        let outcome = HttpOutcome::status(answer.status()).with_after(answer.after().unwrap_or_default());
        let delay = self.delay();
        self.agenda.put_in(delay, Happening::Answer { call, outcome });
    }

    fn answer(&mut self, call: usize, outcome: HttpOutcome) {
        let Call { from, life, post, open, .. } = self.calls[call];
        if !open || (self.net.is_silent() && outcome != HttpOutcome::Unknown(Reason::Timeout)) {
            return;
        }
        self.calls[call].open = false;
        if self.parties[from].life == life {
            self.tell(from, Input::Posted { post, outcome });
        }
        let delay = self.delay();
        self.agenda.put_in(delay, Happening::GaveUp { call });
    }

    fn gave_up(&mut self, call: usize) {
        let to = 1 - self.calls[call].from;
        for copy in [0, 1] {
            let number = call as u64 * 2 + copy;
            if self.ledger.waits(to, number) {
                self.ledger.answered(to, number);
                let reply = self.handle(to, Input::RequestGone { request: RequestId(number) });
                assert_eq!(reply, Reply::Done, "it waited");
            }
        }
    }

    // ---- the applications and their processes ----

    fn deliver(&mut self, party: usize, payload: u32, delivery: DeliveryId, maybe_dup: bool) {
        let who = &mut self.parties[party];
        let lossy = who.driver.session().stats().horizon_short > 0;
        self.ledger.delivered(self.agenda.now(), (party, who.life, &who.config), payload, (delivery, maybe_dup), lossy);
        who.payloads.insert(delivery, payload);
        let App { least, most, rejects, retries } = who.app;
        let life = who.life;
        let span = u64::try_from(most.saturating_sub(least).as_micros()).unwrap();
        let takes = least + Duration::from_micros(self.rng.up_to(span));
        let luck = self.rng.up_to(99);
        let verdict = if luck < u64::from(rejects) {
            Verdict::Reject
        } else if luck < u64::from(rejects) + u64::from(retries) {
            Verdict::Retry { after: Duration::ZERO }
        } else {
            Verdict::Done
        };
        self.agenda.put_in(takes, Happening::Completed { party, life, delivery, verdict });
    }

    fn completed(&mut self, party: usize, life: u32, delivery: DeliveryId, verdict: Verdict) {
        let who = &self.parties[party];
        if who.life != life {
            return;
        }
        let payload = who.payloads[&delivery];
        self.ledger.completed(self.agenda.now(), (party, life, &who.config), payload, delivery, verdict);
        assert_eq!(self.handle(party, Input::Complete { delivery, verdict }), Reply::Done, "it was open");
    }

    fn event(&mut self, party: usize, event: Event) {
        let now = self.now();
        let who = &mut self.parties[party];
        match event {
            Event::Settled { seq, outcome, took, .. } => {
                who.settled += 1;
                self.ledger.settled(now, party, who.life, seq, outcome, took);
            }
            Event::Down { link, reason: Reason::Dead } => self.died(party, link),
            Event::Down { link, reason: Reason::Mute } if self.asks_the_program(party) => {
                let mute = self.parties[party].sockets.get(&link).is_none_or(|wire| self.wires[*wire].mute[1 - party]);
                assert!(mute || self.net.rate.is_some(), "L10: a program that lives is declared dead");
            }
            Event::State { from, to } => assert_ne!(from, to, "a state changes to another one"),
            Event::Path { from, to } => assert_ne!(from, to, "a path changes to another one"),
            Event::Down { .. }
            | Event::RequestFailed { .. }
            | Event::RejectedButAcked { .. }
            | Event::HorizonShort { .. } => {}
            Event::IdReused { .. } => panic!("I5: no id is used twice here"),
            Event::Turn { .. } | Event::Resumed { .. } | Event::Gap { .. } => panic!("N2: the peers are plain"),
        }
    }

    /// G5: who is declared dead had been silent for three seconds at least, was asked, and had an excuse.
    fn died(&self, party: usize, link: LinkId) {
        let who = &self.parties[party];
        let is_it = |wire: &&Wire| wire.sides[party] == Side::Open(link) || wire.sides[party] == Side::Gone;
        let Some(wire) = who.sockets.get(&link).map(|wire| &self.wires[*wire]).filter(is_it) else { return };
        let now = self.now();
        let silence = now.since(wire.heard[party]);
        assert!(silence >= s(3), "G5: dead after {silence:?}");
        assert!(!who.stalled || now.since(who.woke) >= s(3), "L5: a verdict out of a stall");
        let slow = self.net.delay >= s(1);
        let fault = self.net.is_silent() || self.net.full != [false; 2] || now.since(wire.excused) < s(60);
        assert!(fault || slow, "G5: a healthy peer is declared dead after {silence:?}");
    }

    fn sleep(&mut self, party: usize, span: Duration) {
        if self.parties[party].asleep.is_some() {
            return;
        }
        let until = self.now().after(span);
        self.parties[party].asleep = Some(until);
        self.parties[party].slept = self.now();
        self.agenda.put(until, Happening::Awake { party });
        self.excuse_all();
    }

    fn wake_up(&mut self, party: usize) {
        let now = self.now();
        let who = &mut self.parties[party];
        let Some(_) = who.asleep.take_if(|until| *until <= now) else { return };
        let span = now.since(who.slept);
        who.woke = now;
        who.stalled = who.driver.session().deadline().is_some_and(|at| now.since(at) > s(5));
        self.excuse_all();
        // Sockets first, then the clock.
        self.tell_full(party);
        for wire in 0..self.wires.len() {
            self.pump(wire, party);
        }
        // An adapter looks at its clocks every few seconds, and finds every longer gap (L14).
        if span >= s(8) {
            self.tell(party, Input::StoodStill { unseen: Duration::ZERO });
        }
    }

    fn crash(&mut self, party: usize) {
        let life = self.parties[party].life + 1;
        self.ledger.crashed(party);
        let sockets = core::mem::take(&mut self.parties[party].sockets);
        for wire in sockets.into_values() {
            if self.wires[wire].sides[party] == Side::Absent {
                continue;
            }
            self.hang_up(wire, party);
            if self.net.silent[party] {
                // Nobody is left to send it again: the other side has a zombie.
                self.wires[wire].pipes[1 - party].clear();
                self.wires[wire].excused = self.now();
            }
        }
        self.parties[party] = Party::new(&self.setup, party, life, self.agenda.now());
        self.parties[party].urged = true;
        self.tell(party, Input::Start);
    }

    // ---- the promises that can be seen at any instant ----

    fn check(&self) {
        let now = self.now();
        for (party, who) in self.parties.iter().enumerate() {
            let session = who.driver.session();
            let Config { outbox, inbox, route, .. } = who.config;
            assert!(session.backlog() <= outbox.capacity, "G4: outbox");
            assert!(session.held() <= inbox.held, "G4: inbox");
            assert!(session.outbox().posting() <= route.posts, "G4: requests");
            assert!(who.accepted - who.settled <= outbox.capacity as u64, "G4: accepted and not told");
            if let Some(wire) = who.current.and_then(|link| who.sockets.get(&link)).map(|wire| &self.wires[*wire]) {
                let up = matches!(session.state(), State::Up | State::Suspect);
                let quiet = now.since(wire.heard[party].max(who.woke));
                // A plain peer may be at work for as long as an acknowledgement takes at most.
                let plain = who.config.native.is_none() && outbox.proof == Proof::Acknowledgement;
                let work = if plain { outbox.ack_wait.longest() } else { Duration::ZERO };
                let found = who.config.heartbeat.dead.max(work) + s(8);
                assert!(!up || who.asleep.is_some() || quiet <= found, "G5: silent for {quiet:?} and not found");
            }
        }
    }

    /// How a message ended, if it has.
    #[must_use]
    pub fn outcome(&self, payload: u32) -> Option<Outcome> {
        self.ledger.outcome(payload)
    }
}

impl Party {
    fn new(setup: &Setup, party: usize, life: u32, now: Instant) -> Self {
        let mut config = setup.configs[party];
        config.inbox.after_loss |= life > 0;
        let origin = Origin::new(party as u64 + 1, life + 1);
        let driver = Driver::new(config, setup.seed ^ u64::from(life), origin, now).with(setup.style);
        Self {
            driver,
            config,
            life,
            asleep: None,
            slept: Instant::ZERO,
            woke: now,
            frail: false,
            stalled: false,
            app: EAGER,
            sockets: BTreeMap::new(),
            current: None,
            candidates: BTreeSet::new(),
            told_full: false,
            urged: false,
            payloads: BTreeMap::new(),
            outbound: BTreeMap::new(),
            accepted: 0,
            settled: 0,
        }
    }
}
