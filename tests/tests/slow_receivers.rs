//! Slow and serial receivers get each message once, and one message never stops the others: an ML node of ours against a
//! receiver as the original Go client is one, in virtual time. It reads, works and acknowledges one message at a time,
//! knows no copy as one, and answers the callbacks by the same worker.
//!
//! Every scenario prints the largest delay from acceptance to the end, and asserts a bound for it.
//! Rules: S13, H7, F6, P3, T2, T7, T8.

use bowline::{
    Accepted, BETTENSOR_MINER, Config, Event, GONKA_ML_NODE, Head, HttpOutcome, Input, LinkId, MessageId, Origin,
    Outcome, Path, Policy, PostId, Reason, Reply, RetryHint, RouteConfig, Seq,
};
use bowline_tests::sim::{Agenda, Driver, Effect, at, ms, s};
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

/// How the receiver and the way to it are.
#[derive(Clone, Copy)]
struct Receiver {
    /// How long it works on each message.
    work: Duration,
    /// Bytes per second of the way there, in each connection; zero: as many as come.
    rate: u64,
    websocket: bool,
    /// These payloads are never acknowledged, and answered so by HTTP; 0: not at all.
    poison: (&'static [u32], u16),
    /// How long it works on these.
    slow: (&'static [u32], Duration),
    sender: Config,
    /// Each acknowledgement of this many is lost; zero: none.
    loses: u32,
}

const GOOD: Receiver = Receiver {
    work: ms(200),
    rate: 0,
    websocket: true,
    poison: (&[], 0),
    slow: (&[], Duration::ZERO),
    sender: GONKA_ML_NODE,
    loses: 0,
};

/// What these send with, on the connection of an ML node: the waits and the path of their profile.
const fn sends_as(profile: Config) -> Config {
    Config {
        link: GONKA_ML_NODE.link,
        heartbeat: GONKA_ML_NODE.heartbeat,
        route: RouteConfig { http: true, ..profile.route },
        ..profile
    }
}

const SENDERS: [(&str, Config); 3] = [
    ("a Gonka ML node", GONKA_ML_NODE),
    ("a plain peer", sends_as(Config::DEFAULT)),
    ("a Bettensor miner", sends_as(BETTENSOR_MINER)),
];

#[derive(Clone, Copy, Debug)]
enum Job {
    Frame(LinkId, MessageId, u32),
    Request(PostId, u32),
}

#[derive(Debug)]
enum Happening {
    Arrives(Job),
    Worked(Job),
    Told(Input<u32>),
}

struct World {
    receiver: Receiver,
    driver: Driver,
    agenda: Agenda<Happening>,
    /// When the last byte of each way has crossed: the WebSocket's, then that of the requests.
    crossed: [Duration; 2],
    queue: VecDeque<Job>,
    busy: bool,
    acks: u32,
    size: u32,
    offered: u32,
    waiting: VecDeque<u32>,
    payloads: BTreeMap<Seq, u32>,
    /// How often the receiver worked on it, and how it ended.
    taken: BTreeMap<u32, u32>,
    posted: BTreeMap<u32, u32>,
    ended: BTreeMap<u32, (Outcome, Duration)>,
    unacked: Vec<u32>,
}

const WAY: Duration = ms(20);

impl World {
    fn new(receiver: Receiver) -> Self {
        let mut world = Self {
            receiver,
            driver: Driver::new(receiver.sender, 1, Origin::new(3, 1), at(Duration::ZERO)),
            agenda: Agenda::new(),
            crossed: [Duration::ZERO; 2],
            queue: VecDeque::new(),
            busy: false,
            acks: 0,
            size: 1000,
            offered: 0,
            waiting: VecDeque::new(),
            payloads: BTreeMap::new(),
            taken: BTreeMap::new(),
            posted: BTreeMap::new(),
            ended: BTreeMap::new(),
            unacked: Vec::new(),
        };
        let _ = world.give(Input::Start);
        if receiver.websocket {
            assert!(matches!(world.give(Input::Accept), Reply::Accepted(Accepted::Open(_))));
        }
        world
    }

    /// Offers this number of messages: each is sent as soon as there is room.
    fn offers(receiver: Receiver, count: u32, size: u32) -> Self {
        let mut world = Self::new(receiver);
        world.size = size;
        world.offer(count);
        world
    }

    /// And so many more.
    fn offer(&mut self, count: u32) {
        self.waiting.extend(self.offered + 1..=self.offered + count);
        self.offered += count;
        self.send();
    }

    fn now(&self) -> Duration {
        self.agenda.now().since(at(Duration::ZERO))
    }

    fn send(&mut self) {
        while let Some(payload) = self.waiting.front().copied() {
            let input = Input::Send { payload, size: self.size, policy: Policy::DEFAULT };
            match self.give(input) {
                Reply::Queued(seq) => {
                    self.payloads.insert(seq, payload);
                    self.waiting.pop_front();
                }
                Reply::Refused(..) => break,
                other => panic!("{other:?}"),
            }
        }
    }

    /// When what begins to leave now has crossed.
    fn crosses(&mut self, way: usize, bytes: u32) -> Duration {
        let takes = (u64::from(bytes) * 1000).checked_div(self.receiver.rate).map_or(Duration::ZERO, ms);
        self.crossed[way] = self.crossed[way].max(self.now()) + takes;
        self.crossed[way] + WAY
    }

    fn give(&mut self, input: Input<u32>) -> Reply<u32> {
        let (reply, effects) = self.driver.handle(self.agenda.now(), input);
        for effect in effects {
            match effect {
                Effect::Data(link, _, id, payload) => {
                    let when = self.crosses(0, self.size);
                    self.agenda.put(at(when), Happening::Arrives(Job::Frame(link, id, payload)));
                }
                Effect::Ping(link) | Effect::Probe(link) => {
                    let when = self.crosses(0, 10) + WAY;
                    self.agenda.put(at(when), Happening::Told(Input::Received { link, head: Head::Pong }));
                }
                Effect::Post(post, _, payload, timeouts) => {
                    *self.posted.entry(payload).or_default() += 1;
                    let when = self.crosses(1, self.size);
                    self.agenda.put(at(when), Happening::Arrives(Job::Request(post, payload)));
                    // The bytes move; what may last too long is the peer's thinking (H10).
                    let outcome = HttpOutcome::Unknown(Reason::Timeout);
                    let late = Happening::Told(Input::Posted { post, outcome });
                    self.agenda.put(at(when + timeouts.thinking), late);
                }
                Effect::Event(Event::Settled { seq, outcome, took, .. }) => {
                    let before = self.ended.insert(self.payloads[&seq], (outcome, took));
                    assert_eq!(before, None, "G1");
                }
                Effect::Event(_) | Effect::Keepalive(_) => {}
                // A stuck message has had its patience (F2): the client comes again.
                Effect::Close(link, _) => {
                    let input = Input::LinkDown { link, reason: Reason::Ours, hint: RetryHint::NONE };
                    self.agenda.put_in(WAY, Happening::Told(input));
                    self.agenda.put_in(s(3), Happening::Told(Input::Accept));
                }
                other => panic!("nothing else is to be done: {other:?}"),
            }
        }
        reply
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Told(input) => {
                let _ = self.give(input);
            }
            Happening::Arrives(job) => self.queue.push_back(job),
            Happening::Worked(job) => {
                self.busy = false;
                let (Job::Frame(_, _, payload) | Job::Request(_, payload)) = job;
                let (poison, status) = self.receiver.poison;
                let poison = poison.contains(&payload).then_some(status);
                if poison.is_none() {
                    *self.taken.entry(payload).or_default() += 1;
                }
                match job {
                    Job::Frame(link, id, _) if poison.is_none() => {
                        self.acks += 1;
                        if self.receiver.loses > 0 && self.acks.is_multiple_of(self.receiver.loses) {
                            self.unacked.push(payload);
                        } else {
                            let input = Input::Received { link, head: Head::Ack { id } };
                            self.agenda.put_in(WAY, Happening::Told(input));
                        }
                    }
                    Job::Frame(..) => {}
                    Job::Request(..) if poison == Some(0) => {}
                    Job::Request(post, _) => {
                        let outcome = HttpOutcome::status(poison.unwrap_or(200));
                        self.agenda.put_in(WAY, Happening::Told(Input::Posted { post, outcome }));
                    }
                }
            }
        }
        if !self.busy
            && let Some(job) = self.queue.pop_front()
        {
            self.busy = true;
            let (Job::Frame(_, _, payload) | Job::Request(_, payload)) = job;
            let (slow, work) = self.receiver.slow;
            let work = if slow.contains(&payload) { work } else { self.receiver.work };
            self.agenda.put_in(work, Happening::Worked(job));
        }
        self.send();
    }

    fn run(&mut self, until: Duration) {
        loop {
            let next = self.driver.wake().into_iter().chain(self.agenda.next()).min();
            let Some(now) = next.filter(|now| *now <= at(until)) else { break };
            self.agenda.advance(now);
            match self.agenda.take() {
                Some(what) => self.happens(what),
                None => {
                    let _ = self.give(Input::Tick);
                    self.send();
                }
            }
        }
        self.agenda.advance(at(until));
    }

    /// All but the poison are delivered, and nothing twice unless its acknowledgement was lost. The largest delay.
    #[track_caller]
    fn all_delivered(&self, name: &str, bound: Duration) -> Duration {
        let good = (1..=self.offered).filter(|n| !self.receiver.poison.0.contains(n));
        let mut largest = Duration::ZERO;
        for payload in good {
            let Some((Outcome::Delivered { .. }, took)) = self.ended.get(&payload) else {
                panic!("{name}: {payload} is {:?} after {:?}", self.ended.get(&payload), self.now())
            };
            largest = largest.max(*took);
            let copies = self.taken[&payload];
            let allowed = 1 + u32::from(self.unacked.contains(&payload));
            assert!(copies <= allowed, "{name}: {payload} came {copies} times");
        }
        println!("{name}: the largest delay is {largest:?}, of at most {bound:?}");
        assert!(largest <= bound, "{name}: {largest:?}");
        largest
    }
}

/// Sends `count` messages of a thousand bytes to a receiver that works for `work` on each: by WebSocket, then by HTTP alone.
#[track_caller]
fn serial(work: Duration, count: u32, bound: Duration) {
    for websocket in [true, false] {
        let mut world = World::offers(Receiver { work, websocket, ..GOOD }, count, 1000);
        world.run(work * count + s(60));
        let by = if websocket { "WebSocket" } else { "HTTP alone" };
        world.all_delivered(&format!("{work:?} × {count}, {by}"), bound);
        assert_eq!(world.posted.is_empty(), websocket);
    }
}

#[test]
fn t8_sixty_four_at_once_to_a_receiver_that_takes_200_ms_each() {
    serial(ms(200), 64, s(15));
}

#[test]
fn t8_eight_of_a_second() {
    serial(s(1), 8, s(9));
}

#[test]
fn t7_three_of_twelve_seconds() {
    serial(s(12), 3, s(37));
}

#[test]
fn t7_three_of_thirty_seconds() {
    serial(s(30), 3, s(91));
}

#[test]
fn t7_ten_of_thirty_seconds() {
    serial(s(30), 10, s(301));
}

/// What quick ones have taught says nothing about the next.
#[test]
fn t7_after_twenty_quick_ones_three_of_twelve_seconds_and_one_of_thirty() {
    for (who, sender) in SENDERS {
        for (slow, work) in [(&[21, 22, 23][..], s(12)), (&[21][..], s(30))] {
            let mut world = World::offers(Receiver { sender, slow: (slow, work), ..GOOD }, 20, 1000);
            world.run(s(30));
            world.offer(3);
            world.run(s(120));
            world.all_delivered(&format!("{who}: 200 ms × 20, then {work:?} × {}", slow.len()), s(37));
            assert!(world.posted.is_empty(), "{:?}", world.posted);
        }
    }
}

/// Two that are never answered are no sign of a mute peer.
#[test]
fn p3_two_poison_messages_and_a_serial_receiver() {
    for (who, sender) in SENDERS {
        for status in [500, 0] {
            let receiver = Receiver { work: s(1), poison: (&[1, 2], status), sender, ..GOOD };
            let mut world = World::offers(receiver, 3, 1000);
            // Each time that a wait of theirs may run out, others are under way.
            for second in 1..300 {
                world.run(s(second));
                if second % 3 == 0 {
                    world.offer(1);
                }
            }
            world.run(s(320));
            world.all_delivered(&format!("{who}: two poison of {}, answered {status}", world.offered), s(8));
            // Where they hang by HTTP, too, they are stuck, and end a connection (F2): what comes within the stay (P4) goes
            // by HTTP.
            let others = world.posted.keys().filter(|payload| ![1, 2].contains(*payload)).count();
            assert!(others <= if status == 0 { 10 } else { 0 }, "{who}, {status}: {:?}", world.posted);
            assert_eq!(world.driver.session().path(), Path::WebSocket);
        }
    }
}

/// By HTTP alone, while one of them hangs for the thinking time, again and again.
#[test]
fn b11_h7_by_http_alone_one_that_hangs_delays_no_other() {
    for (who, sender) in SENDERS {
        let receiver = Receiver { work: ms(20), websocket: false, poison: (&[1], 0), sender, ..GOOD };
        let mut world = World::offers(receiver, 1, 1000);
        for second in 1..600 {
            world.run(s(second));
            if second % 7 == 0 {
                world.offer(1);
            }
        }
        world.run(s(700));
        world.all_delivered(&format!("{who}: {} by HTTP alone, the first hangs", world.offered), s(35));
        assert!(world.posted[&1] > 3, "it is tried for as long as it lives");
    }
}

#[test]
fn t7_three_megabytes_at_200_kilobytes_a_second() {
    for websocket in [true, false] {
        let receiver = Receiver { rate: 200_000, websocket, ..GOOD };
        let mut world = World::offers(receiver, 3, 3_000_000);
        world.run(s(120));
        let by = if websocket { "WebSocket" } else { "HTTP alone" };
        world.all_delivered(&format!("3 MB × 3 at 200 kB/s, {by}"), s(46));
    }
}

#[test]
fn s13_a_poison_message_and_a_serial_receiver() {
    for (websocket, bound) in [(true, s(15)), (false, s(20))] {
        let receiver = Receiver { poison: (&[1], 500), websocket, ..GOOD };
        let mut world = World::offers(receiver, 64, 1000);
        world.run(s(300));
        let by = if websocket { "WebSocket" } else { "HTTP alone" };
        world.all_delivered(&format!("poison and 63 of 200 ms, {by}"), bound);
        assert!(world.posted[&1] > 10, "it is tried for as long as it lives");
    }
}

#[test]
fn t8_a_tenth_of_the_acknowledgements_lost_and_a_serial_receiver() {
    let mut world = World::offers(Receiver { loses: 10, ..GOOD }, 64, 1000);
    world.run(s(300));
    world.all_delivered("a tenth of the acknowledgements lost, 64 of 200 ms", s(50));
    assert_eq!(world.unacked.len(), 6);
    assert!(world.unacked.iter().all(|lost| world.posted[lost] == 1), "each of these by HTTP, once");
    assert_eq!(world.posted.len(), 6, "and no other");
}

#[test]
fn s13_of_two_hundred_with_one_poison_199_are_delivered() {
    let receiver = Receiver { work: ms(20), poison: (&[1], 500), ..GOOD };
    let mut world = World::offers(receiver, 200, 1000);
    world.run(s(600));
    assert!(world.waiting.is_empty(), "send never waits for ever");
    world.all_delivered("200 with one poison", s(10));
    assert_eq!((world.ended.len(), world.driver.session().backlog()), (199, 1));
}

#[test]
fn h7_by_http_alone_one_that_is_refused_for_ever_delays_no_other() {
    for status in [500, 404] {
        let receiver = Receiver { work: ms(20), websocket: false, poison: (&[1], status), ..GOOD };
        let mut world = World::offers(receiver, 20, 1000);
        world.run(s(60));
        world.all_delivered(&format!("20 by HTTP alone, the first answered {status}"), s(10));
        let tries = world.posted[&1];
        assert!((5..=30).contains(&tries), "{tries} tries of the first in a minute");
        assert_eq!(world.posted.values().sum::<u32>(), tries + 19, "one request for each of the others");
    }
}

/// A receiver that never answers, while its library does: two waits, and then HTTP for everything (P3).
#[test]
fn p3_a_mute_receiver_costs_two_waits() {
    let mut world = World::offers(Receiver { loses: 1, ..GOOD }, 64, 1000);
    world.run(s(300));
    world.all_delivered("mute on the WebSocket", s(45 + 90 + 30));
}
