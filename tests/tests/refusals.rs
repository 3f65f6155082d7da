//! What is refused, or not answered, for an hour of virtual time: how many requests of each kind a session makes, and that it
//! never stops (rules B10, B11, H9).

use bowline::{
    AckWait, BETTENSOR_MINER, Config, Event, GONKA_API_NODE, Greeting, Head, HeapSession, HttpOutcome, Input, Instant,
    LinkId, NATIVE, Origin, Output, Policy, Reason, RetryHint, State, VILLAGE_VIEWER,
};
use core::time::Duration;
use std::collections::BTreeMap;

const HOUR: Duration = Duration::from_secs(3600);
const QUARTER: Duration = Duration::from_secs(900);
/// From a question to its answer.
const WAY: Duration = Duration::from_millis(20);
/// As many messages as wait by the default.
const MESSAGES: u32 = 64;

fn at(time: Duration) -> Instant {
    Instant::ZERO.after(time)
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Asked {
    Dial,
    Greeting,
    Poll,
    Message,
}

/// How the other side answers.
struct Others {
    /// `None`: the connection comes up, and answers pings.
    dial: Box<dyn Fn(Duration) -> Option<Reason>>,
    message: HttpOutcome,
    /// A native peer's; `None`: it succeeds.
    greeting: Option<HttpOutcome>,
    poll: Option<HttpOutcome>,
}

impl Others {
    fn refuse(reason: Reason) -> Self {
        let unreached = HttpOutcome::Unreached(Reason::PortClosed);
        Self { dial: Box::new(move |_| Some(reason)), message: unreached, greeting: None, poll: None }
    }
}

/// A session with so many messages to send, for so long; when it asked what, and how it ended.
fn run(config: Config, messages: u32, span: Duration, others: &Others) -> (BTreeMap<Asked, Vec<Duration>>, Vec<State>) {
    let config = config.check().unwrap();
    let mut session = HeapSession::<u32>::heap(config, 7, Origin::new(7, 1), Instant::ZERO);
    session.start(Instant::ZERO);
    for n in 0..messages {
        session.send(Instant::ZERO, n, 10, Policy::DEFAULT).unwrap();
    }
    let mut asked: BTreeMap<Asked, Vec<Duration>> = BTreeMap::new();
    let mut states = Vec::new();
    let mut agenda: Vec<(Instant, Input<u32>)> = Vec::new();
    let mut now = Instant::ZERO;
    loop {
        while let Some(output) = session.poll() {
            let time = now.since(Instant::ZERO);
            let then = now.after(WAY);
            let mut count = |what| asked.entry(what).or_default().push(time);
            match output {
                Output::Connect { link } => {
                    count(Asked::Dial);
                    agenda.push((then, answer_dial(link, (others.dial)(time))));
                }
                Output::Post { post, .. } => {
                    count(Asked::Message);
                    agenda.push((then, Input::Posted { post, outcome: others.message }));
                }
                Output::Greet { talk, .. } => {
                    count(Asked::Greeting);
                    if others.greeting.is_none() {
                        let greeting = Greeting::new(Origin::new(9, 1));
                        agenda.push((then, Input::Carried { head: Head::Welcome { greeting, refused: None } }));
                    }
                    let outcome = others.greeting.unwrap_or(HttpOutcome::status(200));
                    agenda.push((then, Input::Talked { talk, outcome }));
                }
                Output::Poll { talk, .. } => {
                    count(Asked::Poll);
                    let outcome = others.poll.unwrap_or(HttpOutcome::status(200));
                    agenda.push((then, Input::Talked { talk, outcome }));
                }
                Output::Frame { link, frame: bowline::Frame::Ping } => {
                    agenda.push((then, Input::Received { link, head: Head::Pong }));
                }
                Output::Event(Event::State { to, .. }) => states.push(to),
                Output::Event(_)
                | Output::Close { .. }
                | Output::Refuse { .. }
                | Output::Respond { .. }
                | Output::Carry { .. }
                | Output::Probe { .. }
                | Output::Frame { .. } => {}
            }
        }
        // Stable: what was asked first is answered first.
        agenda.sort_by_key(|(when, _)| *when);
        let first = agenda.first().map(|(when, _)| *when);
        let Some(next) = first.into_iter().chain(session.deadline()).min().filter(|next| *next <= at(span)) else {
            break;
        };
        now = next;
        if first == Some(next) {
            let (_, input) = agenda.remove(0);
            let _ = session.handle(now, input);
        } else {
            session.tick(now);
        }
    }
    (asked, states)
}

fn answer_dial(link: LinkId, refused: Option<Reason>) -> Input<u32> {
    match refused {
        Some(reason) => Input::LinkDown { link, reason, hint: RetryHint::NONE },
        None => Input::LinkUp { link },
    }
}

/// The answers of an hour, by name, and how many requests they may cause: a refusal leads to the blocked ceiling of 10 min,
/// everything else to 30 s.
fn answers() -> Vec<(String, HttpOutcome, usize)> {
    let refused = [301, 302, 401, 403, 407, 426];
    let busy = [408, 429, 502, 503, 504];
    let of = |status: u16, by_peer: bool, most| {
        let (who, outcome) = if by_peer {
            ("", HttpOutcome::status(status))
        } else {
            (", not by the peer", HttpOutcome::foreign(status))
        };
        (format!("{status}{who}"), outcome, most)
    };
    let mut all = vec![of(200, false, REFUSED)];
    for by_peer in [true, false] {
        all.extend(refused.map(|status| of(status, by_peer, REFUSED)));
        all.extend(busy.map(|status| of(status, by_peer, AWAY)));
    }
    let tls = Reason::Tls(bowline::TlsFault::Expired);
    all.push(("certificate expired".to_owned(), HttpOutcome::Unreached(tls), REFUSED));
    all.push(("no answer".to_owned(), HttpOutcome::Unknown(Reason::Timeout), AWAY));
    all.push(("nobody listens".to_owned(), HttpOutcome::Unreached(Reason::PortClosed), AWAY));
    all
}

/// Ten steps up to the ceiling, then 5 min on average.
const REFUSED: usize = 40;
/// Five steps up to 30 s, then 15 s on average.
const AWAY: usize = 320;

#[track_caller]
fn bounded(kind: &str, name: &str, times: &[Duration], most: usize) {
    let late = times.iter().filter(|time| **time >= HOUR - QUARTER).count();
    println!("| {kind} | {name} | {} | {late} | {most} |", times.len());
    assert!(times.len() <= most, "{kind}, {name}: {} requests, at most {most}", times.len());
    assert!(late >= 1, "{kind}, {name}: it has stopped");
}

#[test]
fn b10_b11_an_hour_of_every_answer_to_every_kind_of_request() {
    println!("| request | answer | in an hour | in its last quarter | at most |\n|---|---|---|---|---|");
    let mut posts = Config::DEFAULT;
    posts.route.http = true;
    posts.outbox.ack_wait = AckWait::Fixed(HOUR);
    let unreachable = || Others::refuse(Reason::PortClosed);
    for (name, outcome, most) in answers() {
        // The WebSocket.
        if let HttpOutcome::Answered { .. } = outcome {
            let (asked, states) = run(Config::DEFAULT, MESSAGES, HOUR, &Others::refuse(outcome.reason()));
            bounded("dial", &name, &asked[&Asked::Dial], most);
            assert!(!states.contains(&State::Failed));
        }
        // A message.
        let (asked, states) = run(posts, MESSAGES, HOUR, &Others { message: outcome, ..unreachable() });
        bounded("message", &name, &asked[&Asked::Message], most + 4);
        assert!(!states.contains(&State::Failed));
        // A native client's: greetings; polls after a greeting that succeeded; messages beside polls that succeed.
        let (asked, _) = run(NATIVE, MESSAGES, HOUR, &Others { greeting: Some(outcome), ..unreachable() });
        bounded("greeting", &name, &asked[&Asked::Greeting], most);
        let (asked, _) = run(NATIVE, 0, HOUR, &Others { poll: Some(outcome), ..unreachable() });
        bounded("poll", &name, &asked[&Asked::Poll], most);
        let greetings = asked[&Asked::Greeting].len();
        assert!(greetings <= most, "poll, {name}: {greetings} greetings");
    }
    // What delays one message alone: the session's rate bounds them all together (H9).
    for status in [400, 404, 409, 410, 413, 422, 500] {
        let name = format!("{status}, not by the peer");
        let outcome = HttpOutcome::foreign(status);
        let (asked, _) = run(posts, MESSAGES, HOUR, &Others { message: outcome, ..unreachable() });
        let most = usize::try_from(HOUR.as_secs()).unwrap() + 8 + 64;
        if status == 413 {
            // What is too large for this path waits for the other one (F4).
            assert!(asked[&Asked::Message].len() <= usize::try_from(MESSAGES).unwrap());
        } else {
            bounded("message", &name, &asked[&Asked::Message], most);
        }
        // A question is no message: it charges the path.
        let (asked, _) = run(NATIVE, 0, HOUR, &Others { poll: Some(outcome), ..unreachable() });
        bounded("poll", &name, &asked[&Asked::Poll], if status == 409 || status == 500 { AWAY } else { REFUSED });
    }
}

/// Field bug: a proxy that said 401 for 15 s, and the WebSocket was never dialled again.
#[test]
fn b10_who_is_refused_for_a_while_is_back_soon_after() {
    let refused_for = |span: Duration, reason: Reason| Others {
        dial: Box::new(move |time| (time < span).then_some(reason)),
        ..Others::refuse(reason)
    };
    let while_it_lasts = Duration::from_secs(15);
    for reason in [401, 403, 407, 302, 200].map(Reason::Status).into_iter().chain([Reason::Closed(1008)]) {
        for (name, config, latest) in [
            ("default", Config::DEFAULT, 32),
            ("Gonka's API node", GONKA_API_NODE, 5),
            ("Bettensor's miner", BETTENSOR_MINER, 41),
            ("AI Village's viewer", VILLAGE_VIEWER, 5),
        ] {
            let (asked, states) = run(config, 0, Duration::from_secs(120), &refused_for(while_it_lasts, reason));
            let back = asked[&Asked::Dial].iter().find(|time| **time >= while_it_lasts);
            let waited = *back.expect("it dials again") - while_it_lasts;
            assert!(waited <= Duration::from_secs(latest), "{name}, {reason}: {waited:?}");
            assert!(!states.contains(&State::Failed), "{name}, {reason}: {states:?}");
        }
    }
}

/// An API node keeps its 3 to 5 s, whatever it is refused with.
#[test]
fn b6_an_api_node_that_is_refused_dials_every_three_to_five_seconds() {
    for reason in [Reason::Status(401), Reason::Status(404), Reason::Closed(1002), Reason::Violation] {
        let (asked, _) = run(GONKA_API_NODE, 0, HOUR, &Others::refuse(reason));
        for two in asked[&Asked::Dial].windows(2) {
            let waited = two[1] - two[0] - WAY;
            assert!((Duration::from_secs(3)..=Duration::from_secs(5)).contains(&waited), "{reason}: {waited:?}");
        }
    }
}
