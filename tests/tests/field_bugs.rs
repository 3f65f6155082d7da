//! What went wrong in the field, elsewhere, one test a bug, in virtual time: a session is woken when it asked for it or
//! when something arrives, never otherwise, and the rest of the world is a function from what it does to what follows.
//!
//! Most are from the history of Firezone's channel to its portal; the others from rumqtt, Phoenix, Streamlit, Teleport,
//! Rails and more. The comment says what is required, and where it is a rule of `PROTOCOL.md` its number. What only an
//! adapter can get wrong is proved over sockets elsewhere; the last test checks that those tests are there.

use bowline::{
    AckWait, Arrival, Config, ContentKey, Ending, Event, GONKA_API_NODE, GONKA_ML_NODE, Head, HeartbeatConfig,
    HttpOutcome, InlineSession, Input, Instant, Jitter, LinkId, MessageId, OnNewLink, Origin, Outcome, Path, Policy,
    Ready, Reason, Reply, RequestId, RetryHint, Role, Seen, State, Verdict, Wake,
};
use bowline_tests::sim::{Agenda, Driver, Effect, at, ms, s};
use core::time::Duration;
use std::collections::BTreeSet;

/// What follows an effect, and how much later.
type Follows = Vec<(Duration, Input<u32>)>;

/// The rest of the world.
type Others = Box<dyn Fn(Effect) -> Follows>;

/// One session, and all that happens to it.
struct Rig {
    driver: Driver,
    agenda: Agenda<Input<u32>>,
    others: Others,
    log: Vec<(Duration, Effect)>,
}

impl Rig {
    /// A session with this identity, started at 0 s.
    fn of(config: Config, identity: u64, others: impl Fn(Effect) -> Follows + 'static) -> Self {
        let driver = Driver::new(config, 42, Origin::new(identity, 1), Instant::ZERO);
        let mut rig = Self { driver, agenda: Agenda::new(), others: Box::new(others), log: Vec::new() };
        assert_eq!(rig.give(Input::Start), Reply::Done);
        rig
    }

    fn new(config: Config, others: impl Fn(Effect) -> Follows + 'static) -> Self {
        Self::of(config, 1, others)
    }

    fn now(&self) -> Duration {
        self.agenda.now().since(Instant::ZERO)
    }

    fn session(&self) -> &bowline::HeapSession<u32> {
        self.driver.session()
    }

    /// Gives an input now.
    fn give(&mut self, input: Input<u32>) -> Reply<u32> {
        let (reply, effects) = self.driver.handle(self.agenda.now(), input);
        self.follow(effects);
        reply
    }

    fn follow(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.log.push((self.now(), effect));
            for (after, input) in (self.others)(effect) {
                self.agenda.put_in(after, input);
            }
        }
    }

    /// Lets time pass for one happening, if there is one by then.
    fn step(&mut self, until: Duration) -> bool {
        let next = self.driver.wake().into_iter().chain(self.agenda.next()).min();
        let Some(next) = next.filter(|next| *next <= at(until)) else { return false };
        self.agenda.advance(next);
        match self.agenda.take() {
            Some(input) => drop(self.give(input)),
            None => {
                let effects = self.driver.tick(next);
                self.follow(effects);
            }
        }
        true
    }

    /// Lets time pass until then; what the session did meanwhile.
    fn run(&mut self, until: Duration) -> Vec<(Duration, Effect)> {
        let from = self.log.len();
        while self.step(until) {}
        self.agenda.advance(at(until));
        self.log[from..].to_vec()
    }

    /// Lets time pass until this holds.
    #[track_caller]
    fn run_until(&mut self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if holds(self) {
                return;
            }
            assert!(self.step(s(1 << 30)), "it never comes to that: {:?}", self.session());
        }
        panic!("it does not come to that: {:?}", self.session());
    }

    fn send(&mut self, payload: u32, policy: Policy) {
        let Reply::Queued(_) = self.give(Input::Send { payload, size: 10, policy }) else { panic!("there is room") };
    }

    /// The connection ends without a word.
    fn cut(&mut self) {
        let link = self.session().connection().expect("a connection");
        assert_eq!(self.give(down(link, Reason::Closed(1006))), Reply::Done);
    }

    fn times(&self, like: impl Fn(Effect) -> bool) -> Vec<Duration> {
        times(&self.log, like)
    }

    /// From the end of each attempt or connection to the next attempt.
    fn delays(&self) -> Vec<Duration> {
        let (connects, downs) = (self.times(connect), self.times(|effect| ended(effect).is_some()));
        connects[1..].iter().zip(downs).map(|(connect, down)| *connect - down).collect()
    }
}

fn times(log: &[(Duration, Effect)], like: impl Fn(Effect) -> bool) -> Vec<Duration> {
    log.iter().filter(|(_, effect)| like(*effect)).map(|(when, _)| *when).collect()
}

const fn down(link: LinkId, reason: Reason) -> Input<u32> {
    Input::LinkDown { link, reason, hint: RetryHint::NONE }
}

const fn connect(effect: Effect) -> bool {
    matches!(effect, Effect::Connect(_))
}

const fn ping(effect: Effect) -> bool {
    matches!(effect, Effect::Ping(_))
}

const fn ended(effect: Effect) -> Option<Reason> {
    if let Effect::Event(Event::Down { reason, .. }) = effect { Some(reason) } else { None }
}

fn dead(effect: Effect) -> bool {
    ended(effect) == Some(Reason::Dead)
}

fn becomes(state: State) -> impl Fn(Effect) -> bool {
    move |effect| matches!(effect, Effect::Event(Event::State { to, .. }) if to == state)
}

/// Nothing ever follows.
fn nobody(_: Effect) -> Follows {
    Vec::new()
}

/// Connections come up, and then nothing follows.
fn mute(effect: Effect) -> Follows {
    if let Effect::Connect(link) = effect { vec![(ms(20), Input::LinkUp { link })] } else { Vec::new() }
}

/// Connections come up, pings and messages are answered.
fn healthy(effect: Effect) -> Follows {
    match effect {
        Effect::Ping(link) => vec![(ms(20), Input::Received { link, head: Head::Pong })],
        Effect::Data(link, _, id, _) => vec![(ms(20), Input::Received { link, head: Head::Ack { id } })],
        _ => mute(effect),
    }
}

/// Every attempt fails at once, in this way.
fn fails(reason: Reason, hint: RetryHint) -> impl Fn(Effect) -> Follows {
    move |effect| match effect {
        Effect::Connect(link) => vec![(ms(1), Input::LinkDown { link, reason, hint })],
        _ => Vec::new(),
    }
}

fn refuses(effect: Effect) -> Follows {
    fails(Reason::PortClosed, RetryHint::NONE)(effect)
}

/// The most that the n-th delay may be, counted from 0 (B1).
fn most(n: usize) -> Duration {
    ms(100) + s(30).min(s(1) * (1 << n.min(5)))
}

/// The acceptor's end, with a connection.
fn accepted(config: Config, others: impl Fn(Effect) -> Follows + 'static) -> (Rig, LinkId) {
    let mut rig = Rig::new(config, others);
    let Reply::Accepted(bowline::Accepted::Open(link)) = rig.give(Input::Accept) else { panic!("there is room") };
    (rig, link)
}

/// Rules B7 and L9: one deadline over the whole attempt, and what hangs has failed: it is waited for after it, longer
/// every time, and counts for the long outage (B8). There, a handshake that hung never failed, so nothing was counted.
#[test]
fn b7_a_handshake_that_hangs_is_a_failed_attempt() {
    let mut rig = Rig::new(Config::DEFAULT, nobody);
    rig.run(s(300));
    let (begun, given_up) = (rig.times(connect), rig.times(|effect| matches!(effect, Effect::Close(_, Ending::Drop))));
    assert!(begun.len() > 10);
    for (begun, given_up) in begun.iter().zip(&given_up) {
        assert_eq!(*given_up - *begun, s(10));
    }
    assert_eq!(rig.times(|effect| ended(effect) == Some(Reason::Timeout)), given_up);
    let delays = rig.delays();
    assert!(delays.iter().enumerate().all(|(n, delay)| *delay <= most(n)), "{delays:?}");
    assert!(delays.iter().any(|delay| *delay > most(2)), "they grow: {delays:?}");
    assert_eq!(rig.times(becomes(State::Suspended)), [s(120)]);
}

/// Rule B8: what is counted is counted from the first failure of *this* outage. There, the budget ran from the
/// beginning of the process, and the first failure after a quarter of an hour was the last.
#[test]
fn b8_the_first_failure_after_a_long_uptime_is_a_first_failure() {
    let mut rig = Rig::new(Config::DEFAULT, refuses);
    rig.run(s(100));
    rig.others = Box::new(healthy);
    rig.run_until(|rig| rig.session().state() == State::Up);
    rig.run(s(1_000));
    rig.others = Box::new(refuses);
    rig.cut();
    let outage = rig.run(s(4_600));

    assert!(times(&outage, connect)[0] <= s(1_000) + most(0), "the delays begin anew");
    assert_eq!(times(&outage, becomes(State::Suspended)), [s(1_120)]);
    assert_eq!(times(&outage, becomes(State::Failed)), []);
    let mut last = s(1_000);
    for attempt in times(&outage, connect).into_iter().chain([s(4_600)]) {
        assert!(attempt - last <= most(5) + ms(1), "nobody gives up: {last:?}, {attempt:?}");
        last = attempt;
    }
}

/// Rule P5: an input says that the network changed; it ends the wait and voids what was learned, on both paths. There,
/// the network was back and the next try a minute away.
#[test]
fn p5_a_network_that_is_back_is_tried_at_once() {
    let mut config = Config::DEFAULT;
    config.route.http = true;
    let mut rig = Rig::new(config, |effect| match effect {
        Effect::Post(post, ..) => {
            vec![(ms(1), Input::Posted { post, outcome: HttpOutcome::Unreached(Reason::PortClosed) })]
        }
        _ => refuses(effect),
    });
    rig.send(1, Policy::DEFAULT);
    rig.run_until(|rig| rig.agenda.next().is_none() && rig.driver.wake().unwrap().since(at(rig.now())) > s(10));
    let (now, before) = (rig.now(), rig.log.len());
    assert_eq!(rig.give(Input::RetryNow), Reply::Done);
    let at_once = &rig.log[before..];
    assert!(at_once.iter().any(|(_, effect)| connect(*effect)), "{at_once:?}");
    assert!(at_once.iter().any(|(_, effect)| matches!(effect, Effect::Post(..))), "{at_once:?}");

    let next = rig.run(now + ms(1) + most(0));
    assert!(!times(&next, connect).is_empty(), "and the delays begin anew");
    assert!(!times(&next, |effect| matches!(effect, Effect::Post(..))).is_empty());
}

/// Rule B3: open alone clears nothing, nor does a single frame; a connection must have lived as well. There, or so it
/// is in many a client, a server that accepts and closes is dialled twice a second for ever.
#[test]
fn b3_a_connection_that_dies_at_once_does_not_reset_the_back_off() {
    let flapping = |lives: Duration| {
        move |effect| match effect {
            Effect::Connect(link) => {
                let head = Head::Data { id: Some(MessageId::from_bits(7)), key: None };
                let over = down(link, Reason::Closed(1011));
                vec![(ms(20), Input::LinkUp { link }), (ms(40), Input::Received { link, head }), (lives, over)]
            }
            _ => Vec::new(),
        }
    };
    let mut rig = Rig::new(Config::DEFAULT, flapping(s(1)));
    rig.run(s(600));
    let attempts = rig.times(connect).len();
    assert!((20..80).contains(&attempts), "{attempts} in ten minutes");
    assert!(rig.delays().iter().any(|delay| *delay > most(3)), "{:?}", rig.delays());

    // One that lives longer than the last delay does.
    rig.others = Box::new(flapping(s(40)));
    let before = rig.delays().len();
    rig.run(s(1_200));
    let delays = &rig.delays()[before + 2..];
    assert!(delays.len() > 5 && delays.iter().all(|delay| *delay <= most(0)), "{delays:?}");
}

/// So many clients of one image: the same seed, another identity.
fn fleet(count: u64, run: impl Fn(u64) -> Duration) -> Vec<Duration> {
    let mut when: Vec<_> = (0..count).map(run).collect();
    when.sort_unstable();
    when
}

/// The largest number of them within one span.
fn peak(when: &[Duration], span: Duration) -> usize {
    when.iter().map(|from| when.iter().filter(|other| (*from..*from + span).contains(other)).count()).max().unwrap()
}

/// Rules B1 and B9: jitter is what one gets without asking, and the seed cannot be left out; with equal seeds the
/// identity still makes a difference. There, every client came back in the same second.
#[test]
fn b9_a_fleet_from_one_image_does_not_return_in_step() {
    assert_eq!(Config::DEFAULT.link.backoff.jitter, Jitter::Full);
    for config in [Config::DEFAULT, GONKA_API_NODE] {
        let third_attempt = |identity| {
            let mut rig = Rig::of(config, identity, refuses);
            rig.run_until(|rig| rig.times(connect).len() == 3);
            rig.now()
        };
        let when = fleet(200, third_attempt);
        assert_eq!(when.iter().collect::<BTreeSet<_>>().len(), 200, "no two at the same microsecond");
        assert!(peak(&when, ms(100)) < 40, "{when:?}");
        assert_eq!(third_attempt(7), third_attempt(7), "and every run can be repeated");
    }
}

/// Rule B1: the cap comes before the draw. There, it came after, so that at the cap all delays were the cap.
#[test]
fn b1_at_the_cap_the_delays_still_differ() {
    let tenth_delay = |identity| {
        let mut rig = Rig::of(Config::DEFAULT, identity, refuses);
        // Not yet a long outage, or one that has begun: the ceiling is the same.
        rig.run_until(|rig| rig.times(connect).len() == 11);
        rig.delays()[9]
    };
    let when = fleet(300, tenth_delay);
    assert!(when.iter().all(|delay| *delay >= ms(100) && *delay <= ms(30_100)));
    for from in [0, 10, 20] {
        let third = when.iter().filter(|delay| **delay >= s(from) && **delay < s(from + 10)).count();
        assert!((70..130).contains(&third), "{third} from {from} s");
    }
}

/// Rules B1 and B2: the very first delay is drawn too, and over the server's window where it names one. There, after a
/// mass disconnect, the second attempts were spread and the first were not.
#[test]
fn b2_the_first_retry_after_a_mass_disconnect_is_spread() {
    let back = |hint: RetryHint| {
        move |identity| {
            let mut rig = Rig::of(Config::DEFAULT, identity, healthy);
            rig.run(s(100));
            let link = rig.session().connection().unwrap();
            assert_eq!(rig.give(Input::LinkDown { link, reason: Reason::Closed(1012), hint }), Reply::Done);
            rig.run_until(|rig| rig.times(connect).len() == 2);
            rig.now() - s(100)
        }
    };
    let when = fleet(500, back(RetryHint::NONE));
    assert!(when[499] <= most(0) && peak(&when, ms(100)) < 85, "fifty are to be expected in 100 ms");
    let when = fleet(500, back(RetryHint { after: Duration::ZERO, window: s(30) }));
    assert!(when[499] > s(29) && when[499] <= ms(30_100), "{:?}", when[499]);
    assert!(peak(&when, s(3)) < 85, "fifty are to be expected in three seconds");
}

/// What an answer means stands in one table, and none is the end: it may have been said by something on the way, and
/// consent comes back (rule B10). There, every 4xx was the end; here it was 401, said twice within a second.
#[test]
fn b10_no_answer_is_fatal() {
    for reason in (200..600).map(Reason::Status).chain([Reason::PortClosed, Reason::Timeout, Reason::Closed(1006)]) {
        let mut rig = Rig::new(Config::DEFAULT, fails(reason, RetryHint::NONE));
        rig.run_until(|rig| rig.times(connect).len() == 30 || rig.session().state() == State::Failed);
        assert_eq!(rig.times(connect).len(), 30, "{reason:?}");
    }

    // A posted message is not lost by it either: the request is, and it is made again (section "The HTTP outcomes").
    let mut config = Config::DEFAULT;
    config.route.http = true;
    for status in (200..600).filter(|status| !matches!(status, 200..=299 | 400 | 410 | 413 | 422)) {
        let mut rig = Rig::new(config, move |effect| match effect {
            Effect::Post(post, ..) => {
                vec![(ms(1), Input::Posted { post, outcome: HttpOutcome::status(status) })]
            }
            _ => refuses(effect),
        });
        rig.send(1, Policy::DEFAULT);
        rig.run_until(|rig| rig.times(|effect| matches!(effect, Effect::Post(..))).len() == 5);
        assert_eq!(rig.session().backlog(), 1, "{status}");
    }
}

/// Rule B4: the time that a server asks for is the least, the draw comes on top, and ten minutes are the most. There,
/// it was ignored.
#[test]
fn b4_retry_after_is_honoured() {
    for status in [503, 429] {
        let first_delay = |identity| {
            let mut rig = Rig::of(Config::DEFAULT, identity, fails(Reason::Status(status), RetryHint::after(s(7))));
            rig.run(s(200));
            assert!(rig.delays().iter().all(|delay| *delay >= s(7)), "{:?}", rig.delays());
            rig.delays()[0]
        };
        let when = fleet(100, first_delay);
        assert!(peak(&when, ms(10)) < 10, "not all at the seventh second: {when:?}");
    }
    let mut rig = Rig::new(Config::DEFAULT, fails(Reason::Status(503), RetryHint::after(s(36_000))));
    rig.run(s(6_000));
    assert!(rig.delays().iter().all(|delay| *delay >= s(600) && *delay <= s(600) + most(5)), "{:?}", rig.delays());

    // The same of an answer to a post.
    let mut config = Config::DEFAULT;
    config.route.http = true;
    let mut rig = Rig::new(config, |effect| match effect {
        Effect::Post(post, ..) => {
            vec![(Duration::ZERO, Input::Posted { post, outcome: HttpOutcome::status(503).with_after(s(7)) })]
        }
        _ => refuses(effect),
    });
    rig.send(1, Policy::DEFAULT);
    rig.run(s(300));
    let posts = rig.times(|effect| matches!(effect, Effect::Post(..)));
    assert!(posts.len() > 5 && posts.windows(2).all(|two| two[1] - two[0] >= s(7)), "{posts:?}");
}

/// Rule L2: the deadline of a ping starts when the adapter takes it, not when it became due. There, healthy links were
/// cut because our own socket could not be written.
#[test]
fn l2_a_ping_that_could_not_be_written_accuses_nobody() {
    let second = s(1);
    let heartbeat = HeartbeatConfig { interval: second, dead: second * 2, probe: second, ..HeartbeatConfig::DEFAULT };
    for answers in [true, false] {
        let mut rig = Rig::new(Config { heartbeat, ..Config::DEFAULT }, mute);
        rig.run(ms(20));
        let link = rig.session().connection().unwrap();
        assert_eq!(rig.give(Input::Writable { link, yes: false }), Reply::Done);
        // More than twice the time after which a silent peer is dead.
        let blocked = rig.run(ms(4_900));
        assert_eq!(blocked, [], "neither a ping nor a verdict");
        if answers {
            rig.others = Box::new(healthy);
        }
        assert_eq!(rig.give(Input::Writable { link, yes: true }), Reply::Done);
        assert_eq!(rig.times(ping), [ms(4_900)], "now it leaves");
        let later = rig.run(s(60));
        let verdicts = times(&later, dead);
        if answers {
            assert_eq!(verdicts, []);
        } else {
            assert_eq!(verdicts[0], ms(5_900), "the whole time for its answer, from then on");
        }
    }
}

/// Rules L1 and L2: what we send neither postpones a ping nor is life. There, a busy sender never sent one, and the
/// server cut the link; elsewhere, own sends kept the dead alive.
#[test]
fn l1_outbound_traffic_postpones_no_ping() {
    let sending = |wait, answers: fn(Effect) -> Vec<(Duration, Input<u32>)>| {
        let mut config = Config::DEFAULT;
        config.outbox.capacity = 2_000;
        config.outbox.ack_wait = AckWait::Fixed(wait);
        let mut rig = Rig::new(config, answers);
        for n in 1..1_500_u32 {
            rig.agenda.put(at(ms(500) * n), Input::Send { payload: n, size: 10, policy: Policy::DEFAULT });
        }
        rig
    };
    // Nothing is heard but the answers to pings.
    let only_pongs = |effect| if let Effect::Data(..) = effect { Vec::new() } else { healthy(effect) };
    let mut rig = sending(s(3_600), only_pongs);
    rig.run(s(600));
    let pings = rig.times(ping);
    let late: Vec<_> = pings.windows(2).filter(|two| two[1] - two[0] > s(22)).collect();
    assert!(pings[0] <= s(21) && pings[pings.len() - 1] >= s(578) && late.is_empty(), "{pings:?}");
    assert_eq!(rig.times(|effect| ended(effect).is_some()), []);

    // While an acknowledgement is awaited, silence is death after twice its wait at the earliest.
    let mut rig = sending(s(20), healthy);
    rig.run(s(600));
    rig.others = Box::new(mute);
    let frames = rig.run(s(660));
    assert!(times(&frames, |effect| matches!(effect, Effect::Data(..))).len() > 80, "it was sending all the time");
    assert!(times(&frames, dead)[0] <= s(653), "and found that nobody was there");
}

/// Rule L1: liveness is a question that must be answered, on by default, in every profile and both roles. There, nobody
/// looked at the answers for a year; then somebody did, for all peers at once.
#[test]
fn l1_the_answers_to_pings_are_looked_at() {
    for config in [Config::DEFAULT, GONKA_API_NODE, GONKA_ML_NODE] {
        let mut rig =
            if config.link.role == Role::Acceptor { accepted(config, healthy).0 } else { Rig::new(config, healthy) };
        let hour = rig.run(s(3_600));
        assert_eq!(times(&hour, |effect| ended(effect).is_some()), [], "who answers lives");
        let heard = times(&hour, ping).last().unwrap().saturating_add(ms(20));
        rig.others = Box::new(mute);
        let silence = rig.run(heard + s(53));
        assert_eq!(times(&silence, dead), [heard + s(45)], "who does not is dead, and not too soon");
    }
}

/// Rule R7: the heartbeat belongs to one connection and ends with it. There, the interval ran across reconnects; a ping
/// that was out on the old connection must not judge the new one either.
#[test]
fn r7_the_heartbeat_does_not_run_across_a_reconnect() {
    let mut undisturbed = Rig::new(Config::DEFAULT, healthy);
    undisturbed.run(s(120));
    // The same session, but a ping is out when the connection ends, 2 s before the verdict on it.
    let mut rig = Rig::new(Config::DEFAULT, mute);
    rig.run(s(43));
    assert!(!rig.times(ping).is_empty());
    rig.others = Box::new(healthy);
    rig.cut();
    assert_eq!(rig.session().wake_reason(), Wake::Retry, "nothing else is left to wait for");
    let later = rig.run(s(120));
    let up = times(&later, becomes(State::Up))[0];
    let first = times(&later, ping)[0];
    assert!(first > up && first <= up + s(20), "the new connection's own first ping: {first:?}");
    assert_eq!(times(&later, |effect| ended(effect) == Some(Reason::Dead)), []);
    let (old, new) = (undisturbed.times(ping), times(&later, ping));
    assert!(new.iter().all(|ping| !old.contains(ping)), "{old:?}, {new:?}");
    let newer = |effect| matches!(effect, Effect::Ping(link) if link > LinkId::from_number(1));
    assert_eq!(times(&later, newer), new);
}

/// A message says whether it outlives its connection, and for how long it is worth sending (rule F7). There, whatever
/// had been queued was sent after roaming, although it was about the old network.
#[test]
fn f7_what_is_stale_is_not_sent_on_the_next_connection() {
    let tied = Policy { on_new_link: OnNewLink::Drop, ..Policy::DEFAULT };
    let short = Policy { life: Some(s(2)), ..Policy::DEFAULT };
    let mut config = Config::DEFAULT;
    config.outbox.ack_wait = AckWait::Fixed(s(60));
    let mut rig = Rig::new(config, mute);
    rig.run(s(1));
    rig.send(1, tied);
    rig.send(2, Policy::DEFAULT);
    rig.others = Box::new(nobody);
    rig.cut();
    rig.send(3, tied);
    rig.send(4, Policy::DEFAULT);
    rig.send(5, short);
    // The first dial hangs, so the outage outlives a message.
    rig.run(s(11));
    rig.others = Box::new(healthy);
    rig.run(s(40));

    let sent = |on: fn(u64) -> bool| -> Vec<_> {
        let payload = |effect: &Effect| match effect {
            Effect::Data(link, _, _, payload) if on(link.get()) => Some(*payload),
            _ => None,
        };
        rig.log.iter().filter_map(|(_, effect)| payload(effect)).collect()
    };
    assert_eq!(sent(|link| link == 1), [1, 2]);
    assert_eq!(sent(|link| link > 1), [2, 4], "each once");
    let ids: BTreeSet<_> =
        rig.log.iter().filter_map(|(_, e)| if let Effect::Data(_, _, id, 2) = e { Some(id) } else { None }).collect();
    assert_eq!(ids.len(), 1, "and under the same name");
    let outcome = |n: u64| {
        let ends = rig.log.iter().filter_map(|(_, effect)| match effect {
            Effect::Event(Event::Settled { seq, outcome, .. }) if seq.get() == n => Some(*outcome),
            _ => None,
        });
        ends.collect::<Vec<_>>()
    };
    let delivered = Outcome::Delivered { path: Path::WebSocket };
    let (abandoned, expired) = (Outcome::Abandoned, Outcome::Expired);
    assert_eq!(
        [1, 2, 3, 4, 5].map(outcome),
        [abandoned, delivered, abandoned, delivered, expired].map(|end| vec![end])
    );
}

/// Rule R7: what belongs to a connection lies in one place and is dropped as a whole. There, one field of it after
/// another was found to have been forgotten.
#[test]
fn r7_nothing_of_a_connection_outlives_it() {
    let mut config = Config::DEFAULT;
    config.outbox.ack_wait = AckWait::Fixed(s(1));
    let mut rig = Rig::new(config, mute);
    rig.run(ms(20));
    let nonsense = |rig: &mut Rig, times: u32| {
        let link = rig.session().connection().unwrap();
        for _ in 0..times {
            assert_eq!(rig.give(Input::Received { link, head: Head::Malformed }), Reply::Done);
        }
    };
    nonsense(&mut rig, 15);
    // A message that the application has done, but whose acknowledgement cannot leave; one that is not answered; a ping
    // that is out; a socket that takes nothing.
    let link = rig.session().connection().unwrap();
    rig.send(1, Policy::DEFAULT);
    rig.run(s(2));
    assert_eq!(rig.session().state(), State::Suspect);
    let head = Head::Data { id: Some(MessageId::from_bits(9)), key: None };
    let Reply::Arrival(Arrival::Deliver { delivery, .. }) = rig.give(Input::Received { link, head }) else { panic!() };
    assert_eq!(rig.give(Input::Writable { link, yes: false }), Reply::Done);
    assert_eq!(rig.give(Input::Complete { delivery, verdict: Verdict::Done }), Reply::Done);
    rig.cut();
    rig.run_until(|rig| rig.session().state() == State::Up);

    let second = rig.session().connection().unwrap();
    assert!(second > link);
    let sent = |effect| matches!(effect, Effect::Data(on, .., 1) if on == second);
    assert_eq!(rig.times(sent), [rig.now()], "it is writable and sends at once");
    nonsense(&mut rig, 15);
    rig.others = Box::new(healthy);
    rig.run(s(60));
    assert_eq!(rig.times(|effect| matches!(effect, Effect::Close(..))), [], "no limit of the old one strikes");
    assert_eq!(rig.session().connection(), Some(second));
    nonsense(&mut rig, 1);
    let closed = |effect| effect == Effect::Close(second, Ending::Code(1002));
    assert_eq!(rig.times(closed), [s(60)], "its own count was at fifteen");
}

/// A profile that begins with a greeting.
fn greeting() -> Config {
    let mut config = Config::DEFAULT;
    config.link.ready = Ready::Hello;
    config.heartbeat =
        HeartbeatConfig { interval: s(1), dead: s(2), keepalive: s(1), probe: s(1), ..HeartbeatConfig::DEFAULT };
    config
}

const fn framed(effect: Effect) -> bool {
    matches!(effect, Effect::Data(..) | Effect::Ack(..) | Effect::Ping(_) | Effect::Keepalive(_))
}

/// Rule L9: until the greeting nothing leaves and nothing counts. There, messages went out behind a join that was not
/// accepted yet, and were lost.
#[test]
fn l9_nothing_leaves_before_the_greeting() {
    let mut rig = Rig::new(greeting(), |effect| match effect {
        Effect::Connect(link) => vec![
            (ms(20), Input::LinkUp { link }),
            (s(2), Input::Received { link, head: Head::Data { id: Some(MessageId::from_bits(1)), key: None } }),
            (s(3), Input::Received { link, head: Head::Pong }),
            (s(9), Input::Received { link, head: Head::Hello }),
        ],
        _ => Vec::new(),
    });
    for n in 1..=3 {
        rig.send(n, Policy::DEFAULT);
    }
    rig.run(s(1));
    assert_eq!(rig.give(Input::RetryNow), Reply::Done);
    let before = rig.run(ms(8_999));
    assert_eq!(rig.session().state(), State::Handshaking);
    assert_eq!(times(&before, framed), []);
    assert_eq!((rig.session().held(), rig.session().stats().stale), (0, 2), "what came too soon is not taken");
    let after = rig.run(s(9));
    let sent = |effect| matches!(effect, Effect::Data(..));
    assert_eq!(times(&after, sent), [s(9); 3], "and then at once");
}

/// Rules B7 and L9: the greeting has what is left of the attempt's time. There, a join that was not answered was waited
/// for without end.
#[test]
fn l9_a_greeting_that_never_comes_ends_the_attempt() {
    let others = |effect| match effect {
        Effect::Connect(link) => {
            vec![(s(4), Input::LinkUp { link }), (s(11), Input::Received { link, head: Head::Hello })]
        }
        _ => Vec::new(),
    };
    let mut rig = Rig::new(greeting(), others);
    rig.send(1, Policy::DEFAULT);
    rig.run(s(10));
    let link = LinkId::from_number(1);
    assert_eq!(rig.times(|effect| effect == Effect::Close(link, Ending::Drop)), [s(10)]);
    assert_eq!(rig.times(|effect| ended(effect) == Some(Reason::Timeout)), [s(10)]);
    // Its greeting comes too late for it, and is not one of the next attempt's.
    let later = rig.run(s(60));
    assert!(times(&later, connect).len() >= 2, "it is tried again");
    assert_eq!(rig.times(framed), []);
    assert_eq!(rig.times(becomes(State::Up)), []);
}

/// Rule T4: one timer, one arming: what was renewed is not ended by what it was before. Here: the wait of a request
/// that was given up and came again (rule H2). There, a renewed entry was evicted by its old bucket.
#[test]
fn t4_a_request_that_came_again_has_its_whole_time() {
    let (mut rig, _) = accepted(GONKA_ML_NODE, healthy);
    let key = Some(ContentKey::from_bits(5));
    let request = |number| Input::Request { request: RequestId(number), id: None, key };
    let Reply::Arrival(Arrival::Deliver { .. }) = rig.give(request(1)) else { panic!() };
    rig.run(s(2));
    assert_eq!(rig.give(Input::RequestGone { request: RequestId(1) }), Reply::Done);
    rig.run(s(3));
    assert_eq!(rig.give(request(2)), Reply::Arrival(Arrival::Duplicate));
    rig.run(s(10));
    assert_eq!(rig.times(|effect| matches!(effect, Effect::Respond(RequestId(2), _))), [s(7)]);
    assert_eq!(rig.times(|effect| matches!(effect, Effect::Respond(RequestId(1), _))), []);
}

/// The same of a knock: its holder is judged 2 s after *this* knock, not after an earlier one that went away (rule R7).
#[test]
fn t4_a_second_knock_has_its_own_verdict() {
    let (mut rig, holder) = accepted(GONKA_ML_NODE, mute);
    let probing = |reply| if let Reply::Accepted(bowline::Accepted::Probing(link)) = reply { link } else { panic!() };
    let first = probing(rig.give(Input::Accept));
    rig.run(ms(500));
    assert_eq!(rig.give(down(first, Reason::Closed(1006))), Reply::Done);
    rig.run(ms(900));
    let second = probing(rig.give(Input::Accept));
    rig.run(ms(2_899));
    assert_eq!(rig.session().connection(), Some(holder));
    rig.run(ms(2_900));
    assert_eq!(rig.session().connection(), Some(second));
    assert_eq!(rig.times(|effect| ended(effect) == Some(Reason::Replaced)), [ms(2_900)]);
}

/// The same of the memory: what was given back and came again is remembered from its own completion (rule S11), and of
/// the verdict on a peer that was heard meanwhile (rule L1).
#[test]
fn t4_what_was_renewed_is_not_ended_by_what_it_was() {
    let mut config = Config::DEFAULT;
    (config.inbox.bytes, config.inbox.horizon, config.inbox.peer_life) = (2 * Seen::BYTES, s(10), s(10));
    let mut rig = Rig::new(config, healthy);
    rig.run(s(1));
    let link = rig.session().connection().unwrap();
    let data = |id| Input::Received { link, head: Head::Data { id: Some(MessageId::from_bits(id)), key: None } };
    let deliver = |rig: &mut Rig, id, verdict| {
        let Reply::Arrival(Arrival::Deliver { delivery, maybe_dup: false }) = rig.give(data(id)) else {
            panic!("{id}")
        };
        assert_eq!(rig.give(Input::Complete { delivery, verdict }), Reply::Done);
    };
    deliver(&mut rig, 1, Verdict::Done);
    deliver(&mut rig, 2, Verdict::Retry { after: Duration::ZERO });
    rig.run(s(9));
    deliver(&mut rig, 2, Verdict::Done);
    rig.run(s(12));
    // The first has had its horizon, so its place is taken, and not that of the one that came again.
    deliver(&mut rig, 3, Verdict::Done);
    rig.run(s(18));
    assert_eq!(rig.give(data(2)), Reply::Arrival(Arrival::Duplicate));
    assert_eq!(rig.session().stats().horizon_short, 0);

    // Two unanswered pings, then life, then silence: 45 s from the life.
    let mut rig = Rig::new(Config::DEFAULT, mute);
    rig.run_until(|rig| rig.times(ping).len() == 2);
    rig.run(s(44));
    let link = rig.session().connection().unwrap();
    assert_eq!(rig.give(Input::Received { link, head: Head::Other }), Reply::Done);
    rig.run(s(100));
    assert_eq!(rig.times(dead), [s(89)]);
}

/// There is no await in the core, and what has been polled is done: whoever is cancelled between two polls goes on
/// later and misses nothing (rule 3 of the surface). There, a keep-alive that was cancelled half-way was a panic.
#[test]
fn l4_an_adapter_may_be_cancelled_between_any_two_polls() {
    type Small = InlineSession<u32, 8, 8>;
    let mut config = Config::DEFAULT;
    config.heartbeat = HeartbeatConfig { keepalive: s(2), ..config.heartbeat };
    let poll = |session: &mut Small| -> Option<Effect> { session.poll().map(Effect::from) };
    // A minute with everything in it; after each poll the driver is cancelled, and calls anew.
    let minute = |cancelled: bool| {
        let checked = config.check().unwrap();
        let mut session = Small::inline(checked, 1, Origin::new(1, 1), Instant::ZERO);
        let mut log = Vec::new();
        session.start(Instant::ZERO);
        for half in 0..120_u32 {
            let now = at(ms(500) * half);
            while let Some(due) = session.deadline().filter(|due| *due <= now) {
                session.tick(due);
                while let Some(effect) = poll(&mut session) {
                    match effect {
                        Effect::Connect(link) => assert!(session.link_up(due, link)),
                        Effect::Ping(link) => assert_eq!(session.received(due, link, Head::Pong), None),
                        _ => {}
                    }
                    log.push((due, effect));
                    if cancelled {
                        session.tick(due);
                    }
                }
            }
            let Some(link) = session.connection() else { continue };
            if half % 20 == 5 {
                // Everything at once, behind a socket that takes nothing for a moment.
                session.writable(now, link, false);
                let head = Head::Data { id: Some(MessageId::from_bits(half.into())), key: None };
                let Some(Arrival::Deliver { delivery, .. }) = session.received(now, link, head) else { panic!() };
                assert!(session.complete(now, delivery, Verdict::Done));
                session.send(now, half, 10, Policy::DEFAULT).unwrap();
                session.retry_now(now);
                session.writable(now, link, true);
            } else {
                session.tick(now);
            }
            while let Some(effect) = poll(&mut session) {
                log.push((now, effect));
                if let Effect::Data(_, _, id, _) = effect {
                    assert_eq!(session.received(now, link, Head::Ack { id }), None);
                }
                if cancelled {
                    session.tick(now);
                }
            }
        }
        (log, session)
    };
    let ((whole, one), (cancelled, other)) = (minute(false), minute(true));
    assert_eq!(whole, cancelled);
    assert_eq!(one, other);
    for kind in
        [framed, ping, |effect| matches!(effect, Effect::Keepalive(_)), |effect| matches!(effect, Effect::Ack(..))]
    {
        assert!(whole.iter().any(|(_, effect)| kind(*effect)));
    }
}

/// Rule L5: a gap in our own time is not the peer's silence. What lies in the socket is read first, and even if it is
/// not, the peer is asked before it is judged. There, live links were declared dead after a suspend.
#[test]
fn l5_a_process_that_stood_still_accuses_nobody() {
    // The peer is healthy; what it says until we sleep is heard, and a ping is out when we do.
    let asleep = |config: Config| {
        let mut rig = Rig::new(config, mute);
        rig.run_until(|rig| rig.times(ping).len() == 1);
        rig.agenda.advance(at(s(600)));
        rig
    };
    let link = LinkId::from_number(1);
    let alive = |mut rig: Rig| {
        rig.others = Box::new(healthy);
        assert_eq!(rig.give(Input::Received { link, head: Head::Pong }), Reply::Done);
        rig.run(s(900));
        assert_eq!(rig.times(|effect| ended(effect).is_some()), []);
    };

    // Sockets first: the answer was there all the time.
    alive(asleep(Config::DEFAULT));

    // The clock first: it is asked again, and has three seconds.
    for (answers, mut rig) in [(true, asleep(Config::DEFAULT)), (false, asleep(Config::DEFAULT))] {
        assert_eq!(rig.give(Input::Tick), Reply::Done);
        assert_eq!(rig.times(ping).last(), Some(&s(600)));
        rig.run(ms(602_999));
        assert_eq!(rig.times(|effect| ended(effect).is_some()), []);
        assert_eq!(rig.session().stats().stalls, 1);
        if answers {
            alive(rig);
        } else {
            rig.run(s(604));
            assert_eq!(rig.times(dead), [s(603)], "but nobody is spared who is gone");
        }
    }

    // Nor is an attempt that came up meanwhile thrown away for it.
    let mut rig = Rig::new(Config::DEFAULT, nobody);
    rig.agenda.advance(at(s(600)));
    assert_eq!(rig.give(Input::Tick), Reply::Done);
    assert_eq!(rig.give(Input::LinkUp { link }), Reply::Done);
    assert_eq!(rig.session().state(), State::Up);
}

/// What only an adapter can get wrong: a future that is dropped, the order of reading and ticking, a socket that cannot
/// be written, an attempt that hangs in a real dial. Their tests are where the sockets are.
#[test]
fn what_only_adapters_can_get_wrong_is_tested_there() {
    let application = include_str!("adapters.rs");
    let faults = include_str!("adapters_faults.rs");
    let leaks = include_str!("adapters_leaks.rs");
    for (file, test) in [
        (application, "a_send_that_waits_for_room_leaves_nothing_behind"),
        (application, "a_receive_that_is_cancelled_leaves_the_batch"),
        (application, "a_wait_for_the_end_can_be_taken_up_again"),
        (application, "a_close_that_is_cancelled_goes_on"),
        (faults, "a_slow_reader_is_not_killed"),
        (faults, "a_reader_that_stopped_is_ended_after_the_send_deadline"),
        (faults, "a_peer_that_falls_silent_is_found_by_both"),
        (faults, "a_changed_network_is_tried_at_once"),
        (faults, "accept_and_close_is_no_hot_loop"),
        (leaks, "nothing_is_left_behind"),
    ] {
        assert!(file.contains(&format!("fn {test}(")), "{test} is gone");
    }
    // Sockets first, then the clock: both adapters take their turns here (rule L5).
    let engine = include_str!("../../adapters/transport/src/engine.rs");
    let (_, turn) = engine.split_once("fn turn(").expect("the turn");
    let place = |what| turn.find(what).unwrap_or_else(|| panic!("a turn without {what}"));
    assert!(place("self.read()") < place("self.session.tick("), "the clock before the sockets");
}
