//! A session's life, told twice: step by step with every answer checked, then at random so that nothing of the core is
//! left out. The same file runs as a Linux program, on a Cortex-M3, and among the tests of the workspace.
//!
//! Inputs pass through `black_box`: the compiler may assume nothing about them, so no branch of the machines can be
//! removed as unreachable, and a panic symbol that is missing from the binary is missing for every input.

#[path = "hub.rs"]
mod hub;
#[path = "native.rs"]
mod native;

use bowline::{
    Accepted, AckWait, Answer, Arrival, Config, ContentKey, DeliveryId, Ending, Event, Frame, GONKA_API_NODE,
    GONKA_ML_NODE, Head, HttpOutcome, InlineSession, Input, Instant, LinkId, MessageId, OnNewLink, Origin, Outcome,
    Output, Path, Policy, PostId, Reason, Reply, RequestId, RetryHint, RouteConfig, Seq, SplitMix64, State, Timers,
    Verdict,
};
use core::hint::black_box;
use core::time::Duration;

type Payload = [u8; 16];
type Session = InlineSession<Payload, 8, 16>;

/// Runs everything, says how it went, and returns whether it went well.
pub(crate) fn run(print: fn(&[u8])) -> bool {
    match life().and_then(|()| random_walks()).and_then(|()| hub::walk()).and_then(|()| native::walk()) {
        Ok(()) => {
            print(b"every check passed; a session of 8 messages out and 16 remembered has ");
            print_number(print, size_of::<Session>());
            print(b" bytes, a native one ");
            print_number(print, native::SIZE);
            print(b", a hub of two small ones ");
            print_number(print, hub::SIZE);
            print(b"\n");
            true
        }
        Err(line) => {
            print(b"the check in scenario.rs, line ");
            print_number(print, line);
            print(b", failed\n");
            false
        }
    }
}

/// `core::fmt` would bring more code than the session.
fn print_number(print: fn(&[u8]), mut n: usize) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0'.wrapping_add(u8::try_from(n % 10).unwrap_or(0));
        n /= 10;
        used += 1;
        if n == 0 {
            break;
        }
    }
    print(digits.get(digits.len().saturating_sub(used)..).unwrap_or_default());
}

/// Leaves the caller with the number of the line unless the condition holds.
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            return Err(line!() as usize);
        }
    };
}

macro_rules! some {
    ($option:expr) => {
        match $option {
            Some(value) => value,
            None => return Err(line!() as usize),
        }
    };
}

/// What one drain gave: of each kind the last.
#[derive(Default)]
struct Drained {
    connect: Option<LinkId>,
    close: Option<(LinkId, Ending)>,
    refuse: Option<LinkId>,
    respond: Option<(RequestId, Answer)>,
    data: Option<(LinkId, MessageId, Payload)>,
    ack: Option<MessageId>,
    ping: Option<LinkId>,
    post: Option<(PostId, MessageId, Payload)>,
    settled: Option<(Seq, Outcome)>,
    ends: u64,
    down: Option<Reason>,
}

struct Shell {
    session: Session,
    now: Instant,
}

impl Shell {
    fn new(config: Config) -> Result<Self, usize> {
        let Ok(config) = black_box(config).check() else { return Err(line!() as usize) };
        let origin = Origin::new(black_box(0xb0_11e), black_box(3));
        let now = black_box(Instant::ZERO);
        Ok(Self { session: Session::inline(config, black_box(7), origin, now), now })
    }

    fn handle(&mut self, input: Input<Payload>) -> Reply<Payload> {
        self.session.handle(self.now, black_box(input))
    }

    fn send(&mut self, payload: Payload) -> Option<Seq> {
        match self.handle(Input::Send { payload, size: 16, policy: Policy::DEFAULT }) {
            Reply::Queued(seq) => Some(seq),
            _ => None,
        }
    }

    fn receive(&mut self, link: LinkId, head: Head) -> Reply<Payload> {
        self.handle(Input::Received { link, head })
    }

    fn post(&mut self, post: PostId, outcome: HttpOutcome) -> bool {
        self.handle(Input::Posted { post, outcome }) == Reply::Done
    }

    fn lose(&mut self, link: LinkId, reason: Reason) -> bool {
        self.handle(Input::LinkDown { link, reason, hint: RetryHint::NONE }) == Reply::Done
    }

    fn drain(&mut self) -> Drained {
        let mut all = Drained::default();
        while let Some(output) = black_box(self.session.poll()) {
            match output {
                Output::Close { link, ending } => all.close = Some((link, ending)),
                Output::Refuse { link } => all.refuse = Some(link),
                Output::Connect { link } => all.connect = Some(link),
                Output::Event(Event::Settled { seq, outcome, .. }) => {
                    all.settled = Some((seq, outcome));
                    all.ends += 1;
                }
                Output::Event(Event::Down { reason, .. }) => all.down = Some(reason),
                Output::Event(_) => {}
                Output::Respond { request, answer } => all.respond = Some((request, answer)),
                Output::Frame { link, frame: Frame::Data { id, payload, .. } } => all.data = Some((link, id, *payload)),
                Output::Frame { frame: Frame::Ack { id }, .. } => all.ack = Some(id),
                Output::Frame { link, frame: Frame::Ping } => all.ping = Some(link),
                Output::Frame { frame: Frame::Keepalive | Frame::Marks { .. } | Frame::Nack { .. }, .. }
                | Output::Carry { .. }
                | Output::Probe { .. }
                | Output::Greet { .. }
                | Output::Poll { .. } => {}
                Output::Post { post, id, payload, .. } => all.post = Some((post, id, *payload)),
            }
        }
        all
    }

    /// Sleeps until the deadline and drains: what a driver does when nothing happens.
    fn wait(&mut self) -> Drained {
        if let Some(at) = self.session.deadline() {
            self.now = self.now.max(at);
        }
        let _ = self.handle(Input::Tick);
        self.drain()
    }

    /// Waits, at most a hundred times, until the drain holds what is looked for. Pings are answered; attempts to connect
    /// fail unless they are what is looked for.
    fn wait_for<T>(&mut self, wanted: fn(&Drained) -> Option<T>) -> Option<T> {
        for _ in 0..100 {
            let all = self.wait();
            if let Some(link) = all.ping {
                let _ = self.receive(link, Head::Pong);
            }
            if let Some(found) = wanted(&all) {
                return Some(found);
            }
            if let Some(link) = all.connect {
                let _ = self.lose(link, Reason::PortClosed);
            }
        }
        None
    }
}

/// Connect, send, acknowledge, lose, fall back, return, receive, complete, hedge, die, close.
#[inline(never)]
fn life() -> Result<(), usize> {
    let route = RouteConfig { http: true, ..RouteConfig::DEFAULT };
    let mut shell = Shell::new(Config { route, ..Config::DEFAULT })?;

    // A connection, a message over it, its acknowledgement.
    check!(shell.handle(Input::Start) == Reply::Done);
    let first = some!(shell.drain().connect);
    check!(shell.handle(Input::LinkUp { link: first }) == Reply::Done);
    let _ = shell.drain();
    check!(shell.session.state() == State::Up);
    let seq = some!(shell.send([1; 16]));
    let (link, id, payload) = some!(shell.drain().data);
    check!(link == first && payload == [1; 16]);
    check!(shell.receive(first, Head::Ack { id }) == Reply::Done);
    check!(shell.drain().settled == Some((seq, Outcome::Delivered { path: Path::WebSocket })));

    // The connection breaks under the next one: after the grace it goes by HTTP, under the same id.
    let seq = some!(shell.send([2; 16]));
    let (_, id, _) = some!(shell.drain().data);
    check!(shell.lose(first, Reason::Closed(1006)));
    let (post, posted_id, payload) = some!(shell.wait_for(|all| all.post));
    check!(posted_id == id && payload == [2; 16]);
    check!(shell.session.path() == Path::Http);
    check!(shell.post(post, HttpOutcome::status(black_box(200))));
    check!(!shell.post(post, HttpOutcome::status(200)));
    check!(shell.drain().settled == Some((seq, Outcome::Delivered { path: Path::Http })));
    // What belongs to the old connection cannot touch anything now.
    check!(shell.receive(first, Head::Ack { id }) == Reply::Stale);
    check!(shell.handle(Input::LinkUp { link: first }) == Reply::Stale);

    // A new one comes up, is probed, and after its time carries again.
    let second = some!(shell.wait_for(|all| all.connect));
    check!(shell.handle(Input::LinkUp { link: second }) == Reply::Done);
    check!(shell.drain().ping == Some(second));
    check!(shell.receive(second, Head::Pong) == Reply::Done);
    for _ in 0..100 {
        if shell.session.path() == Path::Http {
            let _ = shell.wait();
        }
    }
    check!(shell.session.path() == Path::WebSocket);

    // A message comes in, twice by a frame and once more by a request without an id: it is delivered once.
    let (id, key) = (Some(MessageId::from_bits(9)), Some(ContentKey::from_bits(99)));
    let arrival = shell.receive(second, Head::Data { id, key });
    let Reply::Arrival(Arrival::Deliver { delivery, maybe_dup: false }) = arrival else {
        return Err(line!() as usize);
    };
    check!(shell.receive(second, Head::Data { id, key }) == Reply::Arrival(Arrival::Duplicate));
    check!(shell.drain().ack.is_none());
    let request = RequestId(1);
    check!(shell.handle(Input::Request { request, id: None, key }) == Reply::Arrival(Arrival::Duplicate));
    check!(shell.handle(Input::Complete { delivery, verdict: Verdict::Done }) == Reply::Done);
    let all = shell.drain();
    check!(all.ack == id && all.respond == Some((request, Answer::Done)));
    check!(shell.receive(second, Head::Data { id, key }) == Reply::Arrival(Arrival::Duplicate));
    check!(shell.drain().ack == id);
    let other = Some(ContentKey::from_bits(100));
    check!(shell.receive(second, Head::Data { id, key: other }) == Reply::Arrival(Arrival::Reused));

    // The peer is there but does not acknowledge: HTTP besides, and when that is busy, again later.
    let seq = some!(shell.send([3; 16]));
    let (_, id, _) = some!(shell.drain().data);
    let (post, hedged, _) = some!(shell.wait_for(|all| all.post));
    check!(hedged == id);
    check!(shell.post(post, HttpOutcome::status(black_box(503)).with_after(Duration::from_secs(7))));
    let busy = shell.now;
    let (post, again, _) = some!(shell.wait_for(|all| all.post));
    check!(again == id && shell.now.since(busy) >= Duration::from_secs(7));
    check!(shell.post(post, HttpOutcome::status(200)));
    check!(shell.drain().settled == Some((seq, Outcome::Delivered { path: Path::Http })));

    // Silence: the connection is dropped, and the next attempt is made.
    let mut dropped = None;
    for _ in 0..100 {
        let all = shell.wait();
        if let Some(close) = all.close {
            dropped = Some((close, all.down));
            break;
        }
    }
    check!(dropped == Some(((second, Ending::Drop), Some(Reason::Dead))));
    let third = some!(shell.wait_for(|all| all.connect));
    check!(shell.handle(Input::LinkUp { link: third }) == Reply::Done);
    let _ = shell.drain();

    // The end: what is unfinished is told, then the close handshake.
    let _ = some!(shell.send([4; 16]));
    check!(shell.handle(Input::Close { drain: Duration::from_secs(1) }) == Reply::Done);
    let all = some!(shell.wait_for(|all| all.close.map(|close| (close, all.settled))));
    check!(all.0 == (third, Ending::Code(1000)));
    check!(matches!(all.1, Some((_, Outcome::Abandoned))));
    check!(shell.lose(third, Reason::Closed(1000)));
    let _ = shell.drain();
    check!(shell.session.state() == State::Closed);
    let stats = shell.session.stats();
    check!(stats.accepted == 4 && stats.delivered_websocket == 1 && stats.delivered_http == 2 && stats.abandoned == 1);
    Ok(())
}

/// A thousand inputs of every kind in each role: every accepted message ends once, and no deadline lies in the past.
#[inline(never)]
fn random_walks() -> Result<(), usize> {
    let adaptive = AckWait::ADAPTIVE;
    let mut native = Config::DEFAULT;
    native.route.http = true;
    native.outbox.ack_wait = adaptive;
    for config in [native, GONKA_API_NODE, GONKA_ML_NODE] {
        let mut shell = Shell::new(config)?;
        let mut rng = SplitMix64::new(black_box(11));
        let mut seen = Drained::default();
        let (mut delivery, mut ends) = (DeliveryId::from_number(0), 0_u64);
        let _ = shell.handle(Input::Start);
        for step in 0..black_box(1000_u32) {
            shell.now = shell.now.after(Duration::from_millis(rng.up_to(900)));
            let input = any_input(&mut rng, step, &seen, delivery);
            match shell.handle(input) {
                Reply::Arrival(Arrival::Deliver { delivery: new, .. }) => delivery = new,
                Reply::Accepted(Accepted::Open(link)) => seen.connect = Some(link),
                _ => {}
            }
            let all = shell.drain();
            check!(shell.session.deadline().is_none_or(|at| at > shell.now));
            check!(shell.session.earliest().map(|(at, _)| at) == shell.session.deadline());
            ends += all.ends;
            seen = Drained {
                connect: all.connect.or(seen.connect),
                post: all.post.or(seen.post),
                data: all.data.or(seen.data),
                respond: all.respond.or(seen.respond),
                ..all
            };
        }
        let _ = shell.handle(Input::Close { drain: Duration::ZERO });
        ends += shell.drain().ends;
        let stats = shell.session.stats();
        check!(stats.accepted == ends && shell.session.backlog() == 0);
        check!(stats.accepted > 0 && stats.delivered > 0);
    }
    Ok(())
}

fn any_input(rng: &mut SplitMix64, step: u32, seen: &Drained, delivery: DeliveryId) -> Input<Payload> {
    let link = seen.connect.unwrap_or(LinkId::NONE);
    let small = rng.up_to(40);
    let status = u16::try_from(rng.up_to(999)).unwrap_or(0);
    let id = Some(MessageId::from_bits(u128::from(small)));
    let key = (small > 9).then(|| ContentKey::from_bits(u128::from(small)));
    let request = RequestId(u64::from(step));
    let span = Duration::from_millis(rng.up_to(20_000));
    match rng.up_to(23) {
        0 => Input::Start,
        1 => Input::Accept,
        2..=5 => Input::LinkUp { link },
        6 => {
            let hint = RetryHint { after: span, window: span };
            let reason = match small % 4 {
                0 => Reason::Closed(1000 + status % 20),
                1 => Reason::Status(status),
                2 => Reason::Stalled,
                _ => Reason::PortClosed,
            };
            Input::LinkDown { link, reason, hint }
        }
        7..=9 => Input::Received { link, head: Head::Data { id, key } },
        10 | 11 => Input::Received { link, head: Head::Ack { id: seen.data.map_or(MessageId::from_bits(0), |d| d.1) } },
        12 => Input::Received { link, head: Head::Pong },
        13 => Input::Received { link, head: if small < 2 { Head::Malformed } else { Head::Hello } },
        14 => Input::Writable { link, yes: small > 9 },
        15 | 16 => {
            let post = seen.post.map_or(PostId { seq: Seq::FIRST, attempt: 1 }, |post| post.0);
            let outcome = match small {
                0 => HttpOutcome::Unknown(Reason::Timeout),
                1 => HttpOutcome::Unreached(Reason::PortClosed),
                _ => HttpOutcome::status(status).with_after(span),
            };
            Input::Posted { post, outcome }
        }
        17 => Input::Request { request, id, key },
        18 => Input::RequestGone { request: seen.respond.map_or(request, |respond| respond.0) },
        19 | 20 => {
            let on_new_link = if small == 0 { OnNewLink::Drop } else { OnNewLink::Keep };
            let policy = Policy { life: (small < 9).then_some(span), on_new_link, ..Policy::DEFAULT };
            let size = if small == 1 { u32::MAX } else { 16 << small.min(24) };
            Input::Send { payload: [step.to_le_bytes()[0]; 16], size, policy }
        }
        21 => {
            let verdict = match small % 3 {
                0 => Verdict::Done,
                1 => Verdict::Reject,
                _ => Verdict::Retry { after: span },
            };
            Input::Complete { delivery, verdict }
        }
        22 if small == 0 => Input::StoodStill { unseen: span },
        22 => Input::RetryNow,
        _ => Input::Tick,
    }
}
