//! A hub and its fleet: a thousand real sessions that dial, one real hub, and the network between them, in virtual time.
//!
//! ```text
//!  Client { Session } ──dial, hello, frames──▶ Wire ──▶ Hub ──▶ application: completes after a while
//!        ▲     └───────── posts ─────────────────────▶ │
//!        └──────── welcome, frames, broadcasts, close ─┘
//! ```
//!
//! Everybody is woken when something arrives or its deadline has come, and at no other time. Every delay on the way is a
//! function of the client, the direction and a count: what one client does moves no byte of another's.

use crate::sim::clock::{Agenda, ms, s};
use crate::sim::driver::Effect;
use bowline::hub::{
    CloseReason, ConnId, Denied, Grows, Heard, Hub, HubConfig, HubEvent, HubOutput, Identity, Publish, SessionId, Stamp,
};
use bowline::{
    AckWait, Answer, Arrival, BackoffConfig, Config, DeliveryId, Ending, Event, Frame, Head, HeapSession, HttpOutcome,
    Instant, Jitter, LinkId, MessageId, Origin, Outcome, Path, Policy, PostId, Ready, Reason, RequestId, RetryHint,
    SplitMix64, Verdict, hub,
};
use core::time::Duration;
use std::collections::BTreeMap;

/// A miner of Bettensor's: first delay 2.5 to 5 s, doubling to 300 s; a greeting; HTTP besides.
#[must_use]
pub fn miner() -> Config {
    let mut config = Config::DEFAULT;
    config.link.ready = Ready::Hello;
    config.link.backoff = BackoffConfig { floor: Duration::ZERO, base: s(5), cap: s(300), jitter: Jitter::Equal };
    (config.heartbeat.interval, config.heartbeat.dead) = (s(60), s(300));
    config.outbox.ack_wait = AckWait::Adaptive { first: s(3), least: ms(200), most: s(60) };
    config.route.http = true;
    config
}

/// What the clients of a test are.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    /// So many.
    pub clients: usize,
    /// Of each.
    pub client: Config,
    /// Of the hub.
    pub hub: HubConfig,
    /// Whether the hub's window is told with the welcome, and kept in mind.
    pub window: bool,
    /// Of all draws.
    pub seed: u64,
}

/// One that dials.
#[derive(Debug)]
struct Client {
    session: HeapSession<u32>,
    wake: Option<Instant>,
    wire: Option<u64>,
    window: Duration,
    sent: [u64; 2],
    reads: bool,
    up_since: Option<Instant>,
}

/// A connection, as the network sees it.
#[derive(Clone, Debug)]
struct Wire {
    client: usize,
    link: LinkId,
    conn: Option<ConnId>,
    /// Bytes vanish, and nobody is told.
    silent: bool,
    /// Ended at the client's side, at the hub's side.
    ended: [bool; 2],
    /// Nothing overtakes anything: the latest arrival of each direction.
    last: [Instant; 2],
}

/// On its way to the hub.
#[derive(Clone, Copy, Debug)]
enum Up {
    Dial,
    Hello,
    Frame(Head, u32),
    Ping,
    End(u16),
}

/// On its way to a client.
#[derive(Clone, Copy, Debug)]
enum Down {
    Open,
    Refused(Reason, Duration),
    Welcome(Duration),
    Data(MessageId, u32),
    Ack(MessageId),
    Ping,
    Pong,
    Broadcast(u32),
    End(u16, Duration),
}

#[derive(Clone, Debug)]
enum Due {
    Client(usize),
    Hub,
    Up(u64, Up),
    Down(u64, Down),
    Verified(u64),
    Post(usize, PostId, MessageId, u32),
    Posted(usize, PostId, HttpOutcome),
    Complete(u32, SessionId, DeliveryId, u32),
    Return,
}

/// How a message of a client's fared.
#[derive(Clone, Copy, Default, Debug)]
pub struct Fate {
    /// It ended so often, and how the last time.
    pub ended: u32,
    /// The path of its acknowledgement, if it was delivered.
    pub path: Option<Path>,
    /// Handed to the application, by the hub's lives.
    pub handed: u32,
    /// … of these more than once in one life although it was not given back.
    pub doubled: u32,
    /// Completed by the application, in any life.
    pub done: bool,
    /// The last life of the hub in which it was handed over.
    life: u32,
}

/// The world; see the module.
#[derive(Debug)]
pub struct World {
    fleet: Fleet,
    agenda: Agenda<Due>,
    hub: Option<Hub<u32, Grows>>,
    life: u32,
    hub_wake: Option<Instant>,
    clients: Vec<Client>,
    wires: BTreeMap<u64, Wire>,
    by_conn: BTreeMap<ConnId, u64>,
    requests: BTreeMap<RequestId, (usize, PostId)>,
    next: u64,
    nonce: u64,
    /// Dials that reached a hub, or the place where one should be, and whether they were let in.
    pub dials: Vec<(Instant, usize, bool)>,
    /// The first time each client was up.
    pub first_up: BTreeMap<usize, Instant>,
    /// Times at which clients came up.
    pub ups: Vec<(Instant, usize)>,
    /// Broadcasts as they arrived: client, payload, time.
    pub heard: Vec<(usize, u32, Instant)>,
    /// Messages of the clients.
    pub fates: BTreeMap<u32, Fate>,
    /// Messages of the hub's: how often each ended, and how often it was handed to the client.
    pub told: BTreeMap<u32, (u32, u32)>,
    hub_seqs: BTreeMap<(u32, SessionId, bowline::Seq), u32>,
    client_seqs: BTreeMap<(usize, bowline::Seq), u32>,
    /// Closes by the hub: when, why, and the time to come back.
    pub closes: Vec<(Instant, CloseReason, Duration)>,
    /// Told by a drain.
    pub drained: Vec<(Instant, u64)>,
    /// Wake-ups of the hub by its deadline.
    pub wakes: u64,
    payload: u32,
    /// After a drain a new hub comes so much later.
    pub successor: Option<Duration>,
}

impl World {
    /// Nobody has dialled yet.
    ///
    /// # Panics
    /// If a configuration is refused.
    #[must_use]
    pub fn new(fleet: Fleet) -> Self {
        let checked = fleet.client.check().expect("a client's configuration");
        let clients = (0..fleet.clients).map(|n| Client {
            session: HeapSession::heap(checked, fleet.seed, Origin::new(1 + n as u64, 1), Instant::ZERO),
            wake: None,
            wire: None,
            window: Duration::ZERO,
            sent: [0; 2],
            reads: true,
            up_since: None,
        });
        let mut world = Self {
            fleet,
            agenda: Agenda::new(),
            hub: None,
            life: 0,
            hub_wake: None,
            clients: clients.collect(),
            wires: BTreeMap::new(),
            by_conn: BTreeMap::new(),
            requests: BTreeMap::new(),
            next: 0,
            nonce: 0,
            dials: Vec::new(),
            first_up: BTreeMap::new(),
            ups: Vec::new(),
            heard: Vec::new(),
            fates: BTreeMap::new(),
            told: BTreeMap::new(),
            hub_seqs: BTreeMap::new(),
            client_seqs: BTreeMap::new(),
            closes: Vec::new(),
            drained: Vec::new(),
            wakes: 0,
            payload: 0,
            successor: None,
        };
        world.arise();
        world
    }

    /// The present.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.agenda.now()
    }

    /// The hub.
    ///
    /// # Panics
    /// If it is dead.
    #[must_use]
    pub const fn hub(&self) -> &Hub<u32, Grows> {
        self.hub.as_ref().expect("the hub is there")
    }

    /// How many clients are up at this moment.
    #[must_use]
    pub fn up(&self) -> usize {
        self.clients.iter().filter(|client| client.up_since.is_some()).count()
    }

    /// A new hub that knows nothing.
    fn arise(&mut self) {
        self.life += 1;
        let origin = Origin::new(1 << 40, self.life);
        let config = self.fleet.hub.check().expect("the hub's configuration");
        self.hub = Some(Hub::new(config, self.fleet.seed ^ u64::from(self.life), origin, self.now()));
        self.hub_wake = None;
    }

    /// A delay on the way of client `n`, in direction `way`, like no other's.
    fn delay(&mut self, n: usize, way: usize) -> Duration {
        let client = &mut self.clients[n];
        client.sent[way] += 1;
        let mut rng = SplitMix64::for_identity(self.fleet.seed ^ client.sent[way] << 1 ^ way as u64, n as u64);
        Duration::from_micros(20_000 + rng.up_to(40_000))
    }

    fn send_up(&mut self, wire: u64, what: Up) {
        let Some(at) = self.arrival(wire, 0) else { return };
        self.agenda.put(at, Due::Up(wire, what));
    }

    fn send_down(&mut self, wire: u64, what: Down) {
        let Some(at) = self.arrival(wire, 1) else { return };
        self.agenda.put(at, Due::Down(wire, what));
    }

    fn arrival(&mut self, wire: u64, way: usize) -> Option<Instant> {
        let client = self.wires.get(&wire)?.client;
        let delay = self.delay(client, way);
        let now = self.now();
        let wire = self.wires.get_mut(&wire)?;
        let at = now.after(delay).max(wire.last[way].after(Duration::from_micros(1)));
        wire.last[way] = at;
        (!wire.silent).then_some(at)
    }

    /// Client `n` starts.
    pub fn start(&mut self, n: usize) {
        let now = self.now();
        self.clients[n].session.start(now);
        self.drain_client(n);
    }

    /// Client `n` predicts.
    ///
    /// # Panics
    /// If it is not accepted.
    pub fn predict(&mut self, n: usize) {
        self.payload += 1;
        let (now, payload) = (self.now(), self.payload);
        let seq = self.clients[n].session.send(now, payload, 100, Policy::DEFAULT).expect("there is room");
        self.client_seqs.insert((n, seq), payload);
        self.fates.insert(payload, Fate::default());
        self.drain_client(n);
    }

    /// The hub sends to client `n`.
    pub fn tell(&mut self, n: usize) {
        let now = self.now();
        let Some(hub) = &mut self.hub else { return };
        let Some(session) = hub.find(identity(n)) else { return };
        self.payload += 1;
        let Ok(seq) = hub.send(now, session, self.payload, 100, Policy::DEFAULT) else { return };
        self.told.insert(self.payload, (0, 0));
        self.hub_seqs.insert((self.life, session, seq), self.payload);
        self.drain_hub();
    }

    /// The hub sends to all.
    pub fn publish(&mut self) -> u32 {
        self.payload += 1;
        let (now, payload) = (self.now(), self.payload);
        if let Some(hub) = &mut self.hub {
            hub.publish(now, payload, 100, Publish::DEFAULT, |_, _| true);
            self.drain_hub();
        }
        payload
    }

    /// Client `n` reads nothing any more.
    pub fn stop_reading(&mut self, n: usize) {
        self.clients[n].reads = false;
    }

    /// The connection of client `n` is lost: told to both sides, or to none.
    pub fn lose(&mut self, n: usize, told: bool) {
        let Some(wire) = self.clients[n].wire else { return };
        if told {
            self.send_down(wire, Down::End(1006, Duration::ZERO));
            self.send_up(wire, Up::End(1006));
        }
        if let Some(wire) = self.wires.get_mut(&wire) {
            wire.silent = true;
        }
    }

    /// The hub's process dies; after this time there is a new one. The clients notice within a second.
    pub fn kill(&mut self, down: Duration) {
        self.bury(down);
        let wires: Vec<u64> = self.wires.iter().filter(|(_, wire)| !wire.ended[0]).map(|(id, _)| *id).collect();
        for id in wires {
            let n = self.wires[&id].client;
            let notice = SplitMix64::for_identity(self.fleet.seed, n as u64).up_to(1_000_000);
            let at = self.now().after(Duration::from_micros(notice));
            self.agenda.put(at, Due::Down(id, Down::End(1006, Duration::ZERO)));
        }
    }

    fn bury(&mut self, down: Duration) {
        self.hub = None;
        self.by_conn.clear();
        for wire in self.wires.values_mut() {
            (wire.conn, wire.ended[1]) = (None, true);
        }
        for (n, post) in core::mem::take(&mut self.requests).into_values() {
            let at = self.delay(n, 1);
            self.agenda.put_in(at, Due::Posted(n, post, HttpOutcome::Unknown(Reason::Timeout)));
        }
        self.agenda.put_in(down, Due::Return);
    }

    /// The hub goes down in order.
    pub fn drain(&mut self, window: Duration, limit: Duration) {
        let now = self.now();
        if let Some(hub) = &mut self.hub {
            hub.drain(now, window, limit);
        }
        self.drain_hub();
    }

    /// Time passes.
    pub fn run(&mut self, span: Duration) {
        let until = self.now().after(span);
        while let Some(at) = self.agenda.next().filter(|at| *at <= until) {
            self.agenda.advance(at);
            while let Some(due) = self.agenda.take() {
                self.happens(due);
            }
        }
        self.agenda.advance(until);
    }

    fn happens(&mut self, due: Due) {
        let now = self.now();
        match due {
            Due::Client(n) => {
                let client = &mut self.clients[n];
                if client.wake == Some(now) {
                    client.wake = None;
                    client.session.tick(now);
                    self.drain_client(n);
                }
            }
            Due::Hub => {
                if self.hub_wake == Some(now)
                    && let Some(hub) = &mut self.hub
                {
                    self.hub_wake = None;
                    self.wakes += 1;
                    hub.tick(now);
                    self.drain_hub();
                }
            }
            Due::Up(wire, what) => self.arrives_up(wire, what),
            Due::Down(wire, what) => self.arrives_down(wire, what),
            Due::Verified(wire) => {
                if let (Some(hub), Some(conn)) = (&mut self.hub, self.wires.get(&wire).and_then(|wire| wire.conn)) {
                    hub.verified(now, wall(now), conn, hub::Verdict::Accept { http: false });
                    self.drain_hub();
                }
            }
            Due::Post(n, post, id, payload) => self.asked(n, post, id, payload),
            Due::Posted(n, post, outcome) => {
                self.clients[n].session.posted(now, post, outcome);
                self.drain_client(n);
            }
            Due::Complete(life, session, delivery, payload) => {
                if life == self.life
                    && let Some(hub) = &mut self.hub
                {
                    let again = payload.is_multiple_of(17) && self.fates[&payload].handed == 1;
                    let verdict = if again { Verdict::Retry { after: s(1) } } else { Verdict::Done };
                    let open = hub.complete(now, session, delivery, verdict);
                    hub.release(session, 100);
                    let fate = self.fates.get_mut(&payload).expect("a message");
                    fate.done |= open && !again;
                    if again {
                        fate.life = 0;
                    }
                    self.drain_hub();
                }
            }
            Due::Return => self.arise(),
        }
    }

    fn arrives_up(&mut self, id: u64, what: Up) {
        let now = self.now();
        let Some(wire) = self.wires.get(&id).cloned() else { return };
        let n = wire.client;
        if let Up::Dial = what {
            let got = self.hub.as_mut().map(|hub| hub.connect(now, n as u64));
            self.dials.push((now, n, matches!(got, Some(Ok(_)))));
            match got {
                None => self.send_down(id, Down::Refused(Reason::PortClosed, Duration::ZERO)),
                Some(Err(Denied { why, retry_after: after })) => {
                    self.send_down(id, Down::Refused(Reason::Status(why.status()), after));
                }
                Some(Ok(conn)) => {
                    self.by_conn.insert(conn, id);
                    self.wires.get_mut(&id).expect("it is there").conn = Some(conn);
                    self.send_down(id, Down::Open);
                }
            }
            self.drain_hub();
            return;
        }
        let (Some(hub), Some(conn)) = (&mut self.hub, wire.conn) else { return };
        if wire.ended[1] {
            return;
        }
        match what {
            Up::Dial => {}
            Up::Hello => {
                self.nonce += 1;
                let stamp = Some(Stamp { nonce: self.nonce, issued: wall(now) });
                hub.hello(now, wall(now), conn, identity(n), stamp);
            }
            Up::Ping => {
                let _ = hub.received(now, wall(now), conn, Head::Other, 2, None);
                self.send_down(id, Down::Pong);
            }
            Up::Frame(head, payload) => {
                let data = matches!(head, Head::Data { .. });
                self.nonce += 1;
                let stamp = data.then_some(Stamp { nonce: self.nonce, issued: wall(now) });
                if let Heard::Arrival(session, arrival) = hub.received(now, wall(now), conn, head, 100, stamp) {
                    self.arrived(session, arrival, payload);
                }
            }
            Up::End(code) => {
                hub.disconnected(now, conn, Reason::Closed(code));
                self.by_conn.remove(&conn);
                self.wires.get_mut(&id).expect("it is there").ended[1] = true;
            }
        }
        self.drain_hub();
    }

    /// The hub's application is handed a message, or not.
    fn arrived(&mut self, session: SessionId, arrival: Arrival, payload: u32) {
        let Arrival::Deliver { delivery, .. } = arrival else { return };
        let fate = self.fates.get_mut(&payload).expect("a message of a client's");
        fate.handed += 1;
        fate.doubled += u32::from(fate.life == self.life);
        fate.life = self.life;
        let takes = SplitMix64::new(u64::from(payload) ^ self.fleet.seed).up_to(400);
        let takes = if payload.is_multiple_of(20) { takes * 15 } else { takes };
        self.agenda.put_in(ms(5 + takes), Due::Complete(self.life, session, delivery, payload));
    }

    fn asked(&mut self, n: usize, post: PostId, id: MessageId, payload: u32) {
        let now = self.now();
        let back = self.delay(n, 1);
        let Some(hub) = &mut self.hub else {
            self.agenda.put_in(back, Due::Posted(n, post, HttpOutcome::Unreached(Reason::PortClosed)));
            return;
        };
        self.next += 1;
        self.nonce += 1;
        let request = RequestId(self.next);
        let stamp = Some(Stamp { nonce: self.nonce, issued: wall(now) });
        let answer = match hub.request(now, wall(now), identity(n), request, Some(id), None, 100, stamp) {
            Ok((_, Arrival::Answer(answer))) => Some((answer.status(), Duration::ZERO)),
            Ok((session, arrival)) => {
                self.requests.insert(request, (n, post));
                self.arrived(session, arrival, payload);
                None
            }
            Err(denied) => Some((denied.why.status(), denied.retry_after)),
        };
        if let Some((status, after)) = answer {
            let outcome = HttpOutcome::status(status).with_after(after);
            self.agenda.put_in(back, Due::Posted(n, post, outcome));
        }
        self.drain_hub();
    }

    fn arrives_down(&mut self, id: u64, what: Down) {
        let now = self.now();
        let Some(wire) = self.wires.get(&id).cloned() else { return };
        let (n, link) = (wire.client, wire.link);
        if wire.ended[0] || !self.clients[n].reads {
            return;
        }
        let client = &mut self.clients[n];
        match what {
            Down::Open => {
                if client.session.link_up(now, link) {
                    self.send_up(id, Up::Hello);
                } else {
                    self.ends(id, 1006);
                }
            }
            Down::Refused(reason, after) => {
                self.wires.remove(&id);
                client.wire = None;
                client.session.link_down(now, link, reason, RetryHint::after(after));
            }
            Down::Welcome(window) => {
                client.window = if self.fleet.window { window } else { Duration::ZERO };
                let _ = client.session.received(now, link, Head::Hello);
                client.up_since = Some(now);
                self.first_up.entry(n).or_insert(now);
                self.ups.push((now, n));
            }
            Down::Data(message, payload) => {
                let head = Head::Data { id: Some(message), key: None };
                if let Some(Arrival::Deliver { delivery, .. }) = client.session.received(now, link, head) {
                    self.told.get_mut(&payload).expect("told").1 += 1;
                    client.session.complete(now, delivery, Verdict::Done);
                }
            }
            Down::Ack(message) => {
                let _ = client.session.received(now, link, Head::Ack { id: message });
            }
            Down::Ping => {
                let _ = client.session.received(now, link, Head::Other);
                self.send_up(id, Up::Frame(Head::Pong, 0));
            }
            Down::Pong => {
                let _ = client.session.received(now, link, Head::Pong);
            }
            Down::Broadcast(payload) => {
                let _ = client.session.received(now, link, Head::Other);
                self.heard.push((n, payload, now));
            }
            Down::End(code, after) => {
                // Whoever was given a time of its own needs no draw besides.
                let window = if after.is_zero() { client.window } else { Duration::ZERO };
                let hint = RetryHint { after, window };
                client.up_since = None;
                client.session.link_down(now, link, Reason::Closed(code), hint);
                self.ends(id, code);
            }
        }
        self.drain_client(n);
    }

    /// The client's end of a wire is gone, and the hub hears of it.
    fn ends(&mut self, id: u64, code: u16) {
        self.send_up(id, Up::End(code));
        let Some(wire) = self.wires.get_mut(&id) else { return };
        wire.ended[0] = true;
        let client = &mut self.clients[wire.client];
        if client.wire == Some(id) {
            (client.wire, client.up_since) = (None, None);
        }
    }

    fn drain_client(&mut self, n: usize) {
        let now = self.now();
        while let Some(effect) = self.clients[n].session.poll().map(Effect::from) {
            let wire = self.clients[n].wire;
            match effect {
                Effect::Connect(link) => {
                    self.next += 1;
                    let new = Wire { client: n, link, conn: None, silent: false, ended: [false; 2], last: [now; 2] };
                    self.wires.insert(self.next, new);
                    self.clients[n].wire = Some(self.next);
                    self.send_up(self.next, Up::Dial);
                }
                Effect::Close(link, ending) => {
                    if let Some(id) = wire.filter(|id| self.wires.get(id).is_some_and(|wire| wire.link <= link)) {
                        let code = if let Ending::Code(code) = ending { code } else { 1006 };
                        self.ends(id, code);
                        if matches!(ending, Ending::Code(_)) {
                            self.clients[n].session.link_down(now, link, Reason::Closed(code), RetryHint::NONE);
                        }
                    }
                }
                Effect::Data(_, _, id, payload) => {
                    let head = Head::Data { id: Some(id), key: None };
                    self.on_wire(wire, Up::Frame(head, payload));
                }
                Effect::Ack(_, id) => self.on_wire(wire, Up::Frame(Head::Ack { id }, 0)),
                Effect::Ping(_) | Effect::Probe(_) => self.on_wire(wire, Up::Ping),
                Effect::Keepalive(_) => self.on_wire(wire, Up::Frame(Head::Other, 0)),
                Effect::Post(post, id, payload, _) => {
                    let there = self.delay(n, 0);
                    self.agenda.put_in(there, Due::Post(n, post, id, payload));
                }
                Effect::Event(Event::Settled { seq, outcome, .. }) => {
                    let fate = self.fates.get_mut(&self.client_seqs[&(n, seq)]).expect("accepted");
                    fate.ended += 1;
                    if let Outcome::Delivered { path } = outcome {
                        fate.path = Some(path);
                    }
                }
                Effect::Event(_) | Effect::Refuse(_) | Effect::Respond(..) => {}
            }
        }
        let client = &mut self.clients[n];
        let due = client.session.deadline();
        assert!(due.is_none_or(|at| at > now), "rule 6");
        if client.wake != due {
            client.wake = due;
            if let Some(at) = due {
                self.agenda.put(at, Due::Client(n));
            }
        }
    }

    fn on_wire(&mut self, wire: Option<u64>, what: Up) {
        if let Some(wire) = wire {
            self.send_up(wire, what);
        }
    }

    fn drain_hub(&mut self) {
        let now = self.now();
        while let Some(said) = self.hub.as_mut().and_then(|hub| hub.poll().map(Said::from)) {
            self.hub_says(said);
        }
        let Some(hub) = &self.hub else { return };
        let due = hub.deadline();
        assert!(due.is_none_or(|at| at > now), "rule 6");
        if self.hub_wake != due {
            self.hub_wake = due;
            if let Some(at) = due {
                self.agenda.put(at, Due::Hub);
            }
        }
    }

    fn hub_says(&mut self, said: Said) {
        let now = self.now();
        match said {
            Said::Verify(conn) => {
                if let Some(wire) = self.by_conn.get(&conn) {
                    let took = SplitMix64::new(*wire ^ self.fleet.seed).up_to(30);
                    self.agenda.put_in(ms(2 + took), Due::Verified(*wire));
                }
            }
            Said::Down(conn, what) => {
                let Some(id) = self.by_conn.get(&conn).copied() else { return };
                if !self.clients[self.wires[&id].client].reads
                    && let Some(hub) = &mut self.hub
                {
                    // What is written stays where it is.
                    hub.writable(now, conn, false);
                    return;
                }
                let what = match what {
                    Down::Welcome(_) => Down::Welcome(self.hub().reconnect_window()),
                    other => other,
                };
                self.send_down(id, what);
            }
            Said::Close(conn, why, after) => {
                self.closes.push((now, why, after));
                if let Some(id) = self.by_conn.get(&conn).copied() {
                    self.send_down(id, Down::End(why.code(), after));
                }
            }
            Said::Drop(conn) => {
                if let Some(id) = self.by_conn.remove(&conn) {
                    self.send_down(id, Down::End(1006, Duration::ZERO));
                    self.wires.get_mut(&id).expect("it is there").ended[1] = true;
                }
            }
            Said::Respond(request, answer) => {
                let Some((n, post)) = self.requests.remove(&request) else { panic!("H2: {request:?} twice") };
                let back = self.delay(n, 1);
                let outcome = HttpOutcome::status(answer.status()).with_after(answer.after().unwrap_or_default());
                self.agenda.put_in(back, Due::Posted(n, post, outcome));
            }
            Said::Event(HubEvent::Session { session, event: Event::Settled { seq, .. } }) => {
                let payload = self.hub_seqs[&(self.life, session, seq)];
                self.told.get_mut(&payload).expect("accepted").0 += 1;
            }
            Said::Event(HubEvent::Drained { abandoned }) => {
                self.drained.push((now, abandoned));
                if let Some(down) = self.successor {
                    self.bury(down);
                }
            }
            Said::Event(_) => {}
        }
    }

    /// The most dials within 100 ms from then on.
    #[must_use]
    pub fn busiest(&self, from: Instant) -> usize {
        let times: Vec<Instant> = self.dials.iter().map(|(at, ..)| *at).filter(|at| *at >= from).collect();
        let within = |n: usize| times[n..].iter().take_while(|at| at.since(times[n]) < ms(100)).count();
        (0..times.len()).map(within).max().unwrap_or(0)
    }

    /// Who is not up.
    #[must_use]
    pub fn missing(&self) -> Vec<(usize, bowline::State)> {
        let clients = self.clients.iter().enumerate();
        clients.filter(|(_, c)| c.up_since.is_none()).map(|(n, c)| (n, c.session.state())).collect()
    }
}

/// An output that owns what it says.
enum Said {
    Verify(ConnId),
    Down(ConnId, Down),
    Close(ConnId, CloseReason, Duration),
    Drop(ConnId),
    Respond(RequestId, Answer),
    Event(HubEvent),
}

impl From<HubOutput<'_, u32>> for Said {
    fn from(output: HubOutput<'_, u32>) -> Self {
        match output {
            HubOutput::Verify { conn, .. } => Self::Verify(conn),
            HubOutput::Welcome { conn, .. } => Self::Down(conn, Down::Welcome(Duration::ZERO)),
            HubOutput::Close { conn, why, after } => Self::Close(conn, why, after),
            HubOutput::Drop { conn } => Self::Drop(conn),
            HubOutput::Frame { conn, frame, .. } => Self::Down(
                conn,
                match frame {
                    Frame::Ack { id } => Down::Ack(id),
                    Frame::Ping | Frame::Keepalive => Down::Ping,
                    Frame::Data { id, payload, .. } => Down::Data(id, *payload),
                    Frame::Marks { .. } | Frame::Nack { .. } => unreachable!("no native peers here"),
                },
            ),
            HubOutput::Broadcast { conn, payload } => Self::Down(conn, Down::Broadcast(*payload)),
            HubOutput::Topic { .. } | HubOutput::Gap { .. } => unreachable!("nobody subscribes here"),
            HubOutput::Respond { request, answer, .. } => Self::Respond(request, answer),
            HubOutput::Post { .. } | HubOutput::Carry { .. } => {
                unreachable!("the hub has no HTTP path to its clients here")
            }
            HubOutput::Event(event) => Self::Event(event),
        }
    }
}

/// Who client `n` is.
#[must_use]
pub fn identity(n: usize) -> Identity {
    let mut rng = SplitMix64::new(n as u64);
    Identity::from_bits(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()))
}

/// The wall clock, in microseconds since the epoch.
fn wall(now: Instant) -> i64 {
    1_800_000_000_000_000 + i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
