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

/// Runs a session with this number of messages to send for this long; returns when it asked what, and its states.
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

/// What a status makes of a request of ours, as the page says it, written apart from the code.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Follows {
    /// The message ends.
    End,
    /// The message waits for the other path (F4).
    OtherPath,
    /// The message waits its own delay; the rate of the session bounds all of them together (H7, H9).
    OwnDelay,
    /// The path is blocked: its delays grow to 10 min (B10).
    Blocked,
    /// The path waits its back-off, up to 30 s.
    BackOff,
}

impl Follows {
    fn message(status: u16, by_peer: bool) -> Self {
        match (status, by_peer) {
            (200..=299 | 400 | 410 | 413 | 422, true) => Self::End,
            (413, false) => Self::OtherPath,
            (404 | 409 | 500, _) | (400 | 410 | 422, false) => Self::OwnDelay,
            _ => Self::path(status),
        }
    }

    /// Of a dial, and of a question, which is no message: each charges the path.
    fn path(status: u16) -> Self {
        match status {
            408 | 409 | 425 | 429 | 100..=199 | 500..=599 => Self::BackOff,
            _ => Self::Blocked,
        }
    }

    /// The most requests of an hour.
    fn most(self) -> usize {
        let messages = usize::try_from(MESSAGES).unwrap();
        match self {
            Self::End | Self::OtherPath => messages,
            Self::OwnDelay => usize::try_from(HOUR.as_secs()).unwrap() + 8 + messages,
            // Ten steps up to the ceiling, then 5 min on average; and as many as were under way at the first failure.
            Self::Blocked => 44,
            // Five steps up to 30 s, then 15 s on average; and as many as were under way at the first failure.
            Self::BackOff => 324,
        }
    }
}

/// What was counted, for all answers from which the same follows.
#[derive(Default)]
struct Row {
    answers: Vec<String>,
    statuses: Vec<u16>,
    requests: Vec<usize>,
    late: Vec<usize>,
}

/// The table that is printed: a row for each kind of request and what follows.
#[derive(Default)]
struct Counted(BTreeMap<(&'static str, Follows), Row>);

impl Counted {
    #[track_caller]
    fn add(&mut self, kind: &'static str, follows: Follows, answer: &str, status: Option<u16>, times: &[Duration]) {
        let late = times.iter().filter(|time| **time >= HOUR - QUARTER).count();
        let most = follows.most();
        assert!(times.len() <= most, "{kind}, {answer}: {} requests, at most {most}", times.len());
        match follows {
            Follows::End => assert_eq!((times.len(), late), (most, 0), "{kind}, {answer}: each message is posted once"),
            Follows::OtherPath => {}
            Follows::OwnDelay | Follows::Blocked | Follows::BackOff => {
                assert!(late >= 1, "{kind}, {answer}: it has stopped");
            }
        }
        let row = self.0.entry((kind, follows)).or_default();
        match status {
            Some(status) => row.statuses.push(status),
            None => row.answers.push(answer.to_owned()),
        }
        row.requests.push(times.len());
        row.late.push(late);
    }

    fn print(&self) {
        println!(
            "| request | answer | follows | in an hour | in its last quarter | at most |\n|---|---|---|---|---|---|"
        );
        let span = |counts: &[usize]| {
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            if least == most { least.to_string() } else { format!("{least}–{most}") }
        };
        for ((kind, follows), row) in &self.0 {
            let answers: Vec<String> = ranges(&row.statuses).into_iter().chain(row.answers.iter().cloned()).collect();
            let (requests, late) = (span(&row.requests), span(&row.late));
            println!("| {kind} | {} | {follows:?} | {requests} | {late} | {} |", answers.join(", "), follows.most());
        }
    }
}

/// Rising numbers, those that follow each other as `200–299`.
fn ranges(numbers: &[u16]) -> Vec<String> {
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    runs.map(|run| match run {
        [first, .., last] => format!("{first}–{last}"),
        _ => run[0].to_string(),
    })
    .collect()
}

fn posts() -> Config {
    let mut posts = Config::DEFAULT;
    posts.route.http = true;
    posts.outbox.ack_wait = AckWait::Fixed(HOUR);
    posts
}

fn unreachable() -> Others {
    Others::refuse(Reason::PortClosed)
}

#[test]
fn b10_an_hour_of_every_status_to_every_dial() {
    let mut counted = Counted::default();
    for status in 100..=599 {
        for (kind, reason) in [("dial", Reason::Status(status)), ("dial, go-between", Reason::Foreign(status))] {
            let (asked, states) = run(Config::DEFAULT, MESSAGES, HOUR, &Others::refuse(reason));
            counted.add(kind, Follows::path(status), &reason.to_string(), Some(status), &asked[&Asked::Dial]);
            assert!(!states.contains(&State::Failed), "{reason}");
        }
    }
    counted.print();
}

#[test]
fn b10_b11_h9_an_hour_of_every_status_to_every_message() {
    let mut counted = Counted::default();
    for status in 100..=599 {
        for (kind, message) in
            [("message", HttpOutcome::status(status)), ("message, go-between", HttpOutcome::foreign(status))]
        {
            let follows = Follows::message(status, message.by_peer());
            let (asked, states) = run(posts(), MESSAGES, HOUR, &Others { message, ..unreachable() });
            counted.add(kind, follows, &message.reason().to_string(), Some(status), &asked[&Asked::Message]);
            assert!(!states.contains(&State::Failed), "{}", message.reason());
        }
    }
    counted.print();
}

#[test]
fn b11_an_hour_of_every_status_to_every_question() {
    let mut counted = Counted::default();
    for status in 100..=599 {
        // What succeeds is no refusal.
        if !(200..=299).contains(&status) {
            let kinds = ["greeting", "poll"];
            questions(&mut counted, kinds, Follows::path(status), HttpOutcome::status(status), Some(status));
        }
        let kinds = ["greeting, go-between", "poll, go-between"];
        questions(&mut counted, kinds, Follows::path(status), HttpOutcome::foreign(status), Some(status));
    }
    counted.print();
}

/// A native client's greetings; and its polls, after a greeting that succeeded.
fn questions(
    counted: &mut Counted,
    [greeting, poll]: [&'static str; 2],
    follows: Follows,
    outcome: HttpOutcome,
    status: Option<u16>,
) {
    let answer = outcome.reason().to_string();
    let (asked, _) = run(NATIVE, MESSAGES, HOUR, &Others { greeting: Some(outcome), ..unreachable() });
    counted.add(greeting, follows, &answer, status, &asked[&Asked::Greeting]);
    let (asked, _) = run(NATIVE, 0, HOUR, &Others { poll: Some(outcome), ..unreachable() });
    counted.add(poll, follows, &answer, status, &asked[&Asked::Poll]);
    let greetings = asked[&Asked::Greeting].len();
    assert!(greetings <= follows.most(), "poll, {answer}: {greetings} greetings");
}

#[test]
fn b10_b11_an_hour_without_an_answer() {
    let mut counted = Counted::default();
    for (follows, outcome) in [
        (Follows::Blocked, HttpOutcome::Unreached(Reason::Tls(bowline::TlsFault::Expired))),
        (Follows::BackOff, HttpOutcome::Unknown(Reason::Timeout)),
        (Follows::BackOff, HttpOutcome::Unreached(Reason::PortClosed)),
    ] {
        let reason = outcome.reason();
        let (asked, states) = run(Config::DEFAULT, MESSAGES, HOUR, &Others::refuse(reason));
        counted.add("dial", follows, &reason.to_string(), None, &asked[&Asked::Dial]);
        assert!(!states.contains(&State::Failed), "{reason}");
        let (asked, states) = run(posts(), MESSAGES, HOUR, &Others { message: outcome, ..unreachable() });
        counted.add("message", follows, &reason.to_string(), None, &asked[&Asked::Message]);
        assert!(!states.contains(&State::Failed), "{reason}");
        questions(&mut counted, ["greeting", "poll"], follows, outcome, None);
    }
    counted.print();
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
