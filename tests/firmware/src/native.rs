//! A native session in fixed memory, at random: every word there is, sensible or not, by frame and by HTTP.

use super::Payload;
use bowline::{
    Accepted, Arrival, Beat, DeliveryId, Event, Got, Greeting, Head, HttpOutcome, InlineSession, Input, Instant,
    LinkId, NATIVE, NATIVE_PEER, Nack, Origin, Output, Policy, PostId, Reason, Reply, Report, RequestId, ResumeRefusal,
    RetryHint, Seq, SplitMix64, Verdict,
};
use core::hint::black_box;
use core::time::Duration;

// Of the scenario's own type, so that the image has a session's code once beside the hub's.
type Session = InlineSession<Payload, 8, 16>;

const OURS: Origin = Origin::new(1, 1);

/// What the last outputs named.
struct Seen {
    link: LinkId,
    post: PostId,
    talk: u32,
    delivery: DeliveryId,
    ends: u64,
}

/// In each role: every accepted message ends once, and no deadline lies in the past.
// Not inlined, or all walks would be on the stack at once: a Cortex-M3 of 64 KiB has not so much.
#[inline(never)]
pub(crate) fn walk() -> Result<(), usize> {
    for config in [NATIVE, NATIVE_PEER] {
        let Ok(config) = config.check() else { return Err(line!() as usize) };
        let mut session = Session::inline(config, black_box(7), OURS, Instant::ZERO);
        let mut rng = SplitMix64::new(black_box(5));
        let (mut now, mut accepted) = (Instant::ZERO, 0_u64);
        let post = PostId { seq: Seq::FIRST, attempt: 1 };
        let mut seen = Seen { link: LinkId::NONE, post, talk: 0, delivery: DeliveryId::from_number(1), ends: 0 };
        session.start(now);
        for step in 0..black_box(4000_u32) {
            drain(&mut session, &mut seen);
            if session.deadline().is_some_and(|at| at <= now) {
                return Err(line!() as usize);
            }
            now = now.after(Duration::from_millis(rng.up_to(300)));
            let input = input(&mut rng, step, &seen);
            match session.handle(now, black_box(input)) {
                Reply::Queued(_) => accepted += 1,
                Reply::Accepted(Accepted::Open(link)) => seen.link = link,
                Reply::Arrival(Arrival::Deliver { delivery, .. } | Arrival::Ahead { delivery, .. }) => {
                    seen.delivery = delivery;
                }
                _ => {}
            }
        }
        session.close(now, Duration::ZERO);
        drain(&mut session, &mut seen);
        if accepted == 0 || accepted != seen.ends || session.stats().delivered == 0 {
            return Err(line!() as usize);
        }
    }
    Ok(())
}

pub(crate) const SIZE: usize = size_of::<Session>();

fn drain(session: &mut Session, seen: &mut Seen) {
    while let Some(output) = black_box(session.poll()) {
        match output {
            Output::Connect { link } => seen.link = link,
            Output::Event(Event::Settled { .. }) => seen.ends += 1,
            Output::Event(Event::Turn { delivery }) => seen.delivery = delivery,
            Output::Post { post, .. } => seen.post = post,
            Output::Greet { talk, .. } | Output::Poll { talk, .. } => seen.talk = talk,
            Output::Event(_)
            | Output::Close { .. }
            | Output::Refuse { .. }
            | Output::Respond { .. }
            | Output::Carry { .. }
            | Output::Probe { .. }
            | Output::Frame { .. } => {}
        }
    }
}

fn seq(rng: &mut SplitMix64) -> Seq {
    match rng.up_to(30) {
        0 => Seq::from_number(rng.next_u64()),
        n => Seq::from_number(n + rng.up_to(3)),
    }
}

fn report(rng: &mut SplitMix64) -> Report {
    let (arrived, done) = (rng.up_to(15), rng.next_u64());
    let rejected = rng.next_u64() & arrived & done;
    Report { base: seq(rng), arrived, done: arrived & done, rejected, win: if done & 3 == 0 { 2 } else { 64 } }
}

fn greeting(rng: &mut SplitMix64) -> Greeting {
    let bits = rng.next_u64();
    let got = Got { of: OURS, report: report(rng) };
    Greeting {
        resume: bits & 1 == 0,
        rx: (bits & 2 == 0).then_some(got),
        next: seq(rng),
        una: if bits & 60 == 0 { seq(rng) } else { Seq::FIRST },
        ..Greeting::new(Origin::new(9, u32::from(bits & 0xf000 == 0) + 1))
    }
}

fn head(rng: &mut SplitMix64) -> Head {
    match rng.up_to(9) {
        0..=4 => Head::Numbered { seq: seq(rng), una: if rng.up_to(9) == 0 { seq(rng) } else { Seq::FIRST } },
        5 | 6 => {
            let beat = match rng.up_to(2) {
                0 => Beat::None,
                1 => Beat::Ping(rng.up_to(5)),
                _ => Beat::Pong(rng.up_to(5)),
            };
            Head::Marks { report: report(rng), una: Seq::FIRST, beat }
        }
        7 => {
            let after = Duration::from_millis(rng.up_to(2000));
            let nack = if after.is_zero() { Nack::Reject } else { Nack::Retry { after } };
            Head::Nack { seq: seq(rng), nack }
        }
        _ => Head::Welcome { greeting: greeting(rng), refused: (rng.up_to(3) == 0).then_some(ResumeRefusal::Expired) },
    }
}

fn input(rng: &mut SplitMix64, step: u32, seen: &Seen) -> Input<Payload> {
    let (link, request) = (seen.link, RequestId(u64::from(step)));
    let outcome = match rng.up_to(5) {
        0 => HttpOutcome::status(302),
        1 => HttpOutcome::Unknown(Reason::Timeout),
        2 => HttpOutcome::status(409).with_after(Duration::from_millis(rng.up_to(3000))),
        _ => HttpOutcome::status(200),
    };
    match rng.up_to(19) {
        0 => Input::Accept,
        1 | 2 => Input::LinkUp { link },
        3 if rng.up_to(3) == 0 => Input::LinkDown { link, reason: Reason::Closed(1006), hint: RetryHint::NONE },
        3..=7 => Input::Received { link, head: head(rng) },
        8 => Input::Carried { head: head(rng) },
        9 => Input::Greeted { greeting: greeting(rng), known: None, http: rng.up_to(1) == 0 },
        10 => {
            let wait = Duration::from_millis(rng.up_to(3000));
            Input::Poll { request, wait, report: report(rng), una: Seq::FIRST }
        }
        11 => Input::Advance { una: if rng.up_to(5) == 0 { seq(rng) } else { Seq::FIRST } },
        12 => Input::Talked { talk: seen.talk, outcome },
        13 => Input::Posted { post: seen.post, outcome },
        14 => Input::Request { request, id: Some(Origin::new(9, 1).message(seq(rng))), key: None },
        15 | 16 => {
            let life = (rng.up_to(3) == 0).then_some(Duration::from_secs(2));
            Input::Send { payload: [1; 16], size: 16, policy: Policy { life, ..Policy::DEFAULT } }
        }
        17 | 18 => {
            let verdict = match rng.up_to(3) {
                0 => Verdict::Reject,
                1 => Verdict::Retry { after: Duration::from_millis(rng.up_to(500)) },
                _ => Verdict::Done,
            };
            Input::Complete { delivery: seen.delivery, verdict }
        }
        _ => Input::Tick,
    }
}
