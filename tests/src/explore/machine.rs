//! The sessions of an exploration: each situation of one is kept once, and each step from it is taken once.
//!
//! ```text
//!  (situation, Act) ──known?──▶ Step { to, reply, outputs }
//!         │ no                     ▲
//!         ▼                        │
//!  clone the session, handle, drain, hash relative to its present, keep it if it is new
//! ```
//!
//! A world refers to a situation by its number, and to connections and deliveries by their age: how many were numbered
//! since. So any session of a situation can stand for all of them.
//! At each new situation the rules of the surface are tried, and G6: whatever comes from a connection that was reported as
//! ended answers `Stale` and leads nowhere.

use super::act::{Act, Age, Out, Said, aged, input, raw, said, small};
use super::relative::{FUTURE, Relative};
use bowline::{
    Config, Event, Head, InlineSession, Input, Instant, LinkId, MessageId, Origin, Output, Path, Reason, Reply,
    RetryHint, Seq,
};
use core::hash::{BuildHasherDefault, Hash, Hasher};
use std::collections::{HashMap, VecDeque};

/// What is explored: room for two messages each way.
pub(super) type Session = InlineSession<u8, 2, 2>;

/// When a session begins: late enough that the past of everything lies behind zero.
const BEGIN: Instant = Instant::from_micros(3_600_000_000);

/// The most sessions that are kept at once, of 3 KB each.
const KEPT: usize = 400_000;

/// The number of situations in which two sessions are kept and compared at every step: so it is tested that one can stand
/// for all.
const TWINS: u32 = 100_000;

/// No drain is longer: more would be a hot loop.
const MOST_OUTPUTS: usize = 16;

/// The result of an [`Act`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The next situation.
    pub(super) to: u32,
    /// How many connections were numbered in this step: all ages grow by it.
    pub(super) links: u8,
    /// How many deliveries were numbered in this step.
    pub(super) deliveries: u8,
    /// The answer.
    pub(super) said: Said,
    outs: (u32, u8),
}

/// What can be seen of a situation.
#[derive(Clone, Debug)]
struct Node {
    /// Not kept for ever: `from` leads to it again.
    session: Option<Box<Session>>,
    /// The situation before, and the step; none for a session that begins.
    from: Option<(u32, Act)>,
    /// Another session that came into this situation: it must do the same.
    twin: Option<Box<Session>>,
    /// The newest connection that was reported as ended.
    ended: Option<LinkId>,
    deadline: Option<u32>,
    /// The connection whose frames are listened to.
    listening: Option<Age>,
    /// Up, and traffic is on the WebSocket.
    up: bool,
    /// A message would be accepted.
    room: bool,
    over: bool,
}

/// All situations so far.
#[derive(Debug, Default)]
pub(super) struct Machines {
    nodes: Vec<Node>,
    /// Whose sessions are kept, the oldest first.
    kept: VecDeque<u32>,
    numbers: HashMap<u128, u32>,
    steps: HashMap<(u32, Act), Step, BuildHasherDefault<Quick>>,
    outs: Vec<Out>,
    broken: Option<String>,
}

impl Machines {
    /// The situation of a session that begins.
    pub(super) fn begin(&mut self, config: Config, origin: Origin) -> u32 {
        let config = config.check().expect("a configuration that makes sense");
        self.number(Session::inline(config, 1, origin, BEGIN), None, None)
    }

    /// How many situations of one session there are.
    pub(super) const fn situations(&self) -> usize {
        self.nodes.len()
    }

    /// How many steps were really taken.
    pub(super) fn taken(&self) -> usize {
        self.steps.len()
    }

    /// Milliseconds to the deadline.
    pub(super) fn deadline(&self, at: u32) -> Option<u32> {
        self.node(at).deadline
    }

    /// The connection whose frames are listened to.
    pub(super) fn listening(&self, at: u32) -> Option<Age> {
        self.node(at).listening
    }

    /// Whether traffic is on a WebSocket that is up.
    pub(super) fn up(&self, at: u32) -> bool {
        self.node(at).up
    }

    /// Whether a message would be accepted.
    pub(super) fn has_room(&self, at: u32) -> bool {
        self.node(at).room
    }

    /// Whether the session has ended.
    pub(super) fn over(&self, at: u32) -> bool {
        self.node(at).over
    }

    /// What a step asks for.
    pub(super) fn outputs(&self, step: &Step) -> &[Out] {
        let from = step.outs.0 as usize;
        &self.outs[from..from + usize::from(step.outs.1)]
    }

    /// What a session rule says that was broken since the last call.
    pub(super) const fn take_broken(&mut self) -> Option<String> {
        self.broken.take()
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    /// Where an act leads from a situation.
    pub(super) fn step(&mut self, at: u32, act: Act) -> Step {
        if let Some(step) = self.steps.get(&(at, act)) {
            return *step;
        }
        let mut session = self.session(at);
        let Node { ended, twin, .. } = self.node(at);
        let (mut ended, twin) = (*ended, twin.clone());
        let before = session.stats();
        let (now, given) = input(&session, act);
        let said = said(session.handle(now, given));
        let mut outs = Vec::new();
        while let Some(output) = session.poll() {
            if let Output::Event(Event::Down { link, .. }) = output {
                ended = ended.max(Some(link));
            }
            let (link, out) = raw(output);
            if matches!(out, Out::Ack(..) | Out::Probe(_) | Out::Ping(_) | Out::Data(..))
                && session.connection() != link
            {
                self.broken = Some(format!("G6: {out:?} goes to a connection that is not the current one"));
            }
            outs.push((link, out));
            if outs.len() > MOST_OUTPUTS {
                self.broken = Some(format!("no hot loop: a drain without end: {outs:?}"));
                break;
            }
        }
        if session.deadline().is_some_and(|at| at <= session.now()) {
            self.broken = Some(format!("rule 6: drained, and still {:?}", session.wake_reason()));
        }
        let after = session.stats();
        let newest = after.attempts;
        let first = u32::try_from(self.outs.len()).expect("fewer than 2^32 outputs");
        let count = u8::try_from(outs.len()).expect("bounded above");
        self.outs.extend(outs.into_iter().map(|(link, out)| aged(newest, link, out)));
        if let Some(mut twin) = twin {
            let (now, given) = input(&twin, act);
            let same = self::said(twin.handle(now, given)) == said;
            let mut outs = Vec::new();
            while let Some(output) = twin.poll() {
                outs.push(raw(output));
            }
            let newest = twin.stats().attempts;
            let outs = outs.into_iter().map(|(link, out)| aged(newest, link, out));
            let same = same && outs.eq(self.outs[first as usize..].iter().copied());
            assert!(
                same && digest(&twin) == digest(&session),
                "one situation, two futures: {act:?} of {session:#?} and {twin:#?}"
            );
        }
        let (links, deliveries) = (newest - before.attempts, after.delivered - before.delivered);
        let to = self.number(session, ended, Some((at, act)));
        if said == Said::Stale && to != at {
            self.broken = Some(format!("G6: {act:?} is stale, and changed something"));
        }
        let step = Step { to, links: small(links), deliveries: small(deliveries), said, outs: (first, count) };
        self.steps.insert((at, act), step);
        step
    }

    /// The number of a situation, which is new or known.
    fn number(&mut self, session: Session, ended: Option<LinkId>, from: Option<(u32, Act)>) -> u32 {
        let digest = digest(&session);
        if let Some(number) = self.numbers.get(&digest) {
            let node = &mut self.nodes[*number as usize];
            let other = node.session.as_ref().is_some_and(|kept| **kept != session);
            if node.twin.is_none() && *number < TWINS && other {
                node.twin = Some(Box::new(session));
            }
            return *number;
        }
        let now = session.now();
        let age = |link: LinkId| u8::try_from(session.stats().attempts - link.get()).expect("a few at once");
        let state = session.state();
        let node = Node {
            deadline: session.deadline().and_then(|at| within(at.as_micros() - now.as_micros())),
            listening: session.connection().map(age),
            up: state == bowline::State::Up && session.path() == Path::WebSocket,
            room: session.accepts().is_ok(),
            over: state == bowline::State::Closed,
            session: None,
            from,
            ended,
            twin: None,
        };
        if let Some(what) = ended.and_then(|link| past_moves(&session, link, digest)) {
            self.broken = Some(what);
        }
        let number = u32::try_from(self.nodes.len()).expect("fewer than 2^32 situations");
        self.numbers.insert(digest, number);
        self.nodes.push(node);
        self.keep(number, session);
        number
    }

    /// The session of a situation, made anew if it is not kept any more.
    fn session(&mut self, at: u32) -> Session {
        let node = self.node(at);
        if let Some(session) = &node.session {
            return (**session).clone();
        }
        let (before, act) = node.from.expect("what begins is kept");
        let mut session = self.session(before);
        let (now, given) = input(&session, act);
        let _ = session.handle(now, given);
        while session.poll().is_some() {}
        self.keep(at, session.clone());
        session
    }

    fn keep(&mut self, at: u32, session: Session) {
        let node = &mut self.nodes[at as usize];
        node.session = Some(Box::new(session));
        if node.from.is_some() {
            self.kept.push_back(at);
        }
        if self.kept.len() > KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            self.nodes[oldest as usize].session = None;
        }
    }
}

/// G6 and rule 1, at a new situation: nothing is taken that comes from a connection which was reported as ended.
fn past_moves(session: &Session, link: LinkId, digest: u128) -> Option<String> {
    let mine = session.outbox().origin().message(Seq::FIRST);
    let heads = [
        Head::Data { id: Some(MessageId::from_bits(1)), key: None },
        Head::Ack { id: mine },
        Head::Reject { id: mine },
        Head::Pong,
        Head::Malformed,
    ];
    let broken = Input::LinkDown { link, reason: Reason::Closed(1006), hint: RetryHint::NONE };
    let ends = [Input::LinkUp { link }, broken];
    heads.into_iter().map(|head| Input::Received { link, head }).chain(ends).find_map(|input| {
        let mut moved = session.clone();
        let reply = moved.handle(session.now(), input.clone());
        while moved.poll().is_some() {}
        let taken = reply != Reply::Stale || self::digest(&moved) != digest;
        taken.then(|| format!("G6: {input:?} of an old connection is {reply:?}"))
    })
}

fn digest(session: &Session) -> u128 {
    let stats = session.stats();
    let mut relative = Relative::at(session.now().as_micros(), stats.attempts, stats.delivered);
    session.hash(&mut relative);
    relative.digest()
}

/// A span in milliseconds, if it is within what is explored.
fn within(micros: u64) -> Option<u32> {
    let near = i64::try_from(micros).is_ok_and(|micros| micros < FUTURE);
    assert!(!near || micros.is_multiple_of(1000), "every setting is in milliseconds: {micros}");
    near.then(|| u32::try_from(micros / 1000).expect("less than the future"))
}

/// A hasher for small keys of our own making.
#[derive(Debug, Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
