use super::*;
use crate::config::Config;
use crate::ids::{Origin, PostId};
use crate::inbox::InboxConfig;
use crate::outbox::Policy;
use crate::profile::{NATIVE, NATIVE_PEER};
use crate::reason::RetryHint;
use crate::session::{Frame, InlineSession, Output};
use std::vec::Vec;

type Small = InlineSession<u32, 4, 8>;

const OURS: Origin = Origin::new(7, 1);
const THEIRS: Origin = Origin::new(9, 1);
const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

fn seq(n: u64) -> Seq {
    Seq::from_number(n)
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Did {
    Connect(LinkId),
    Event(Event),
    Respond(u64, Answer),
    Carry(u64),
    Marks(Report, Seq),
    Nack(u64, Duration),
    Data(u64),
    Post(PostId),
    Greet(u32),
    Poll(u32),
    Close,
}

fn drain(session: &mut Small) -> Vec<Did> {
    let mut all = Vec::new();
    while let Some(output) = session.poll() {
        all.push(match output {
            Output::Connect { link } => Did::Connect(link),
            Output::Event(event) => Did::Event(event),
            Output::Respond { request, answer } => Did::Respond(request.0, answer),
            Output::Carry { request, .. } => Did::Carry(request.0),
            Output::Frame { frame: Frame::Marks { report, una, .. }, .. } => Did::Marks(report, una),
            Output::Frame { frame: Frame::Nack { seq, after }, .. } => Did::Nack(seq.get(), after),
            Output::Frame { frame: Frame::Data { seq, .. }, .. } => Did::Data(seq.get()),
            Output::Post { post, .. } => Did::Post(post),
            Output::Greet { talk, .. } => Did::Greet(talk),
            Output::Poll { talk, .. } => Did::Poll(talk),
            Output::Close { .. } | Output::Refuse { .. } => Did::Close,
            Output::Probe { .. } | Output::Frame { .. } => panic!("a plain word"),
        });
        assert!(all.len() < 1000, "output without end: {all:?}");
    }
    assert!(session.deadline().is_none_or(|deadline| deadline > session.now()), "rule 6");
    all
}

fn session(config: Config) -> Small {
    let mut session = Small::inline(config.check().unwrap(), 1, OURS, at(0));
    session.start(at(0));
    session
}

fn greeting(of: Origin, next: u64, una: u64) -> Greeting {
    Greeting { next: seq(next), una: seq(una), ..Greeting::new(of) }
}

/// A hub's session with a client that is connected.
fn hub() -> (Small, LinkId) {
    let mut hub = session(NATIVE_PEER);
    assert_eq!(hub.greeted(at(0), &greeting(THEIRS, 1, 1), None, false), Some(ResumeRefusal::UnknownSession));
    let crate::link::Accepted::Open(link) = hub.accept(at(0)) else { panic!() };
    let _ = drain(&mut hub);
    (hub, link)
}

/// A client without a connection, whose HTTP path carries; its first question is a greeting.
fn degraded() -> (Small, u32, Instant) {
    let mut client = session(NATIVE);
    for _ in 0..100 {
        for did in drain(&mut client) {
            match did {
                Did::Connect(link) => client.link_down(client.now(), link, Reason::PortClosed, RetryHint::NONE),
                Did::Greet(talk) => return (client, talk, at(0)),
                _ => {}
            }
        }
        let next = client.deadline().unwrap();
        client.tick(next);
    }
    panic!("it never asks");
}

fn numbered(n: u64) -> Head {
    Head::Numbered { seq: seq(n), una: Seq::FIRST }
}

fn turns(did: &[Did]) -> usize {
    did.iter().filter(|did| matches!(did, Did::Event(Event::Turn { .. }))).count()
}

/// Whoever has sent and was never answered looks like a newcomer, and says that it is one.
#[test]
fn r3_resume_is_said_and_never_inferred() {
    let mut client = session(NATIVE);
    client.send(at(0), 1, 10, Policy::DEFAULT).unwrap();
    assert!(!client.greeting(true).resume);
    let (client, ..) = degraded();
    assert!(!client.greeting(true).resume);
}

/// The storage is smaller than what the configuration would take: the peer is told what there is.
#[test]
fn s10_nobody_is_told_of_room_that_is_not_there() {
    let (mut hub, link) = hub();
    assert_eq!(hub.report().win, 8);
    for n in 1..=8 {
        assert!(matches!(hub.received(at(1), link, numbered(n)), Some(Arrival::Deliver { .. })));
        assert_eq!(hub.report().limit(), seq(8));
    }
    // A peer that sends more all the same is asked for it again.
    assert_eq!(hub.received(at(1), link, numbered(9)), Some(Arrival::Full));
    assert!(drain(&mut hub).contains(&Did::Nack(9, SECOND)));
}

#[test]
fn s8_a_rejection_is_no_delivery_whatever_the_inbox_is_told() {
    let mut hub = session(Config { inbox: InboxConfig::DEFAULT, ..NATIVE_PEER });
    let _ = hub.greeted(at(0), &greeting(THEIRS, 1, 1), None, true);
    let id = Some(THEIRS.message(seq(1)));
    let Arrival::Deliver { delivery, .. } = hub.request(at(0), RequestId(1), id, None) else { panic!() };
    assert!(hub.complete(at(0), delivery, Verdict::Reject));
    assert_eq!(drain(&mut hub), [Did::Respond(1, Answer::Rejected)]);
    assert_eq!(hub.request(at(0), RequestId(2), id, None), Arrival::Answer(Answer::Rejected));
}

#[test]
fn h3_of_many_polls_at_once_each_is_answered() {
    let mut hub = session(NATIVE_PEER);
    let _ = hub.greeted(at(0), &greeting(THEIRS, 1, 1), None, true);
    let nothing = Report::nothing(64);
    let mut poll = |n| hub.polled(at(0), RequestId(n), 25 * SECOND, &nothing, Seq::FIRST);
    assert_eq!([poll(1), poll(2), poll(3), poll(4)], [true, true, false, false], "no place for more before an answer");
    assert_eq!(drain(&mut hub), [Did::Respond(1, Answer::Polled)]);
    assert!(hub.polled(at(0), RequestId(5), 25 * SECOND, &nothing, Seq::FIRST));
    assert_eq!(drain(&mut hub), [Did::Respond(2, Answer::Polled)]);
    hub.tick(at(25_000));
    assert_eq!(drain(&mut hub), [Did::Carry(5), Did::Respond(5, Answer::Polled)]);
}

/// However long a client says that it can wait, the hub answers in time.
#[test]
fn h3_a_poll_waits_no_longer_than_the_hub_says() {
    for (asked, answered) in [(1, 1_000), (25, 25_000), (26, 25_000), (3_600, 25_000), (u64::MAX / 2, 25_000)] {
        let mut hub = session(NATIVE_PEER);
        let _ = hub.greeted(at(0), &greeting(THEIRS, 1, 1), None, true);
        let wait = Duration::from_secs(asked);
        assert!(hub.polled(at(0), RequestId(1), wait, &Report::nothing(64), Seq::FIRST));
        assert_eq!(drain(&mut hub), []);
        hub.tick(at(answered - 1));
        assert_eq!(drain(&mut hub), [], "{asked} s");
        hub.tick(at(answered));
        assert_eq!(drain(&mut hub), [Did::Carry(1), Did::Respond(1, Answer::Polled)], "{asked} s");
    }
}

/// A hub that says when to come back, to a greeting or to a poll, is not asked before, unless the application says so (P5).
#[test]
fn b4_the_answer_to_a_question_says_when_to_ask_again() {
    let asks = |client: &mut Small| {
        drain(client).into_iter().find_map(|did| match did {
            Did::Greet(talk) | Did::Poll(talk) => Some(talk),
            _ => None,
        })
    };
    for (status, after, rests) in [(503, 7, 7), (429, 90, 90), (409, 7, 7), (500, 0, 1), (503, 7_200, 600)] {
        for greets in [true, false] {
            let (mut client, mut talk, _) = degraded();
            if !greets {
                let now = client.now();
                client.carried(now, Head::Welcome { greeting: greeting(THEIRS, 1, 1), refused: None });
                client.talked(now, talk, HttpOutcome::status(200));
                talk = asks(&mut client).unwrap();
            }
            let answered = client.now();
            client.talked(answered, talk, HttpOutcome::status(status).with_after(after * SECOND));
            let mut urged = client.clone();
            assert_eq!(asks(&mut urged), None);
            urged.retry_now(answered);
            assert!(asks(&mut urged).is_some(), "P5: {status}, {after} s");
            let mut again = asks(&mut client);
            while again.is_none() {
                client.tick(client.deadline().unwrap());
                again = asks(&mut client);
            }
            let rested = client.now().since(answered);
            assert!(rested >= Duration::from_secs(rests), "{status}, {after} s: after {rested:?}");
        }
    }
}

/// An answer without a word, as while the hub holds a dead connection for alive, is no reason to ask at once.
#[test]
fn h3_empty_answers_are_no_loop() {
    let (mut client, talk, _) = degraded();
    let now = client.now();
    // A welcome that remembers for a shorter time than we try (S12).
    let short = Greeting { life: SECOND, ..greeting(THEIRS, 1, 1) };
    assert_eq!(client.carried(now, Head::Welcome { greeting: short, refused: None }), None);
    client.talked(now, talk, HttpOutcome::status(200));
    assert!(!drain(&mut client).iter().any(|did| matches!(did, Did::Greet(_) | Did::Poll(_))), "a rest first");
    client.tick(now.after(SECOND));
    let Some(Did::Greet(talk)) = drain(&mut client).into_iter().find(|did| matches!(did, Did::Greet(_))) else {
        panic!()
    };
    client.carried(client.now(), Head::Welcome { greeting: greeting(THEIRS, 1, 1), refused: None });
    client.talked(client.now(), talk, HttpOutcome::status(200));
    let Some(Did::Poll(talk)) = drain(&mut client).into_iter().find(|did| matches!(did, Did::Poll(_))) else {
        panic!()
    };
    client.talked(client.now(), talk, HttpOutcome::status(200));
    assert!(!drain(&mut client).iter().any(|did| matches!(did, Did::Poll(_))), "a rest first");
    let later = client.now().after(SECOND);
    client.tick(later);
    assert!(drain(&mut client).iter().any(|did| matches!(did, Did::Poll(_))));
}

/// What waited for its turn when the peer began anew is handed over, and its places are free again.
#[test]
fn r5_what_waited_for_a_former_self_is_not_kept_for_ever() {
    let (mut hub, link) = hub();
    for n in [4, 2] {
        assert!(matches!(hub.received(at(1), link, numbered(n)), Some(Arrival::Ahead { .. })));
    }
    assert_eq!(turns(&drain(&mut hub)), 0);
    let anew = Origin::new(9, 2);
    assert_eq!(hub.greeted(at(2), &greeting(anew, 1, 1), None, false), Some(ResumeRefusal::Gap));
    assert!(matches!(hub.accept(at(2)), crate::link::Accepted::Open(_)));
    let did = drain(&mut hub);
    let events: Vec<_> =
        did.iter().filter_map(|did| if let Did::Event(event) = did { Some(*event) } else { None }).collect();
    let gap = events.iter().position(|event| *event == Event::Gap { from: seq(1), to: None, count: 0 }).unwrap();
    let Event::Turn { delivery } = events[gap + 1] else { panic!("{events:?}") };
    assert!(hub.complete(at(3), delivery, Verdict::Done) && turns(&did) == 2);
    assert_eq!(hub.report(), Report { win: 7, ..Report::nothing(0) }, "it says nothing of what the new one numbers");
}

/// A peer that has lost its numbers and not its epoch breaks I3; what it had sent is in doubt, not new, and not a copy.
#[test]
fn r4_numbers_that_come_twice_are_in_doubt() {
    let (mut hub, link) = hub();
    let Some(Arrival::Deliver { delivery, .. }) = hub.received(at(1), link, numbered(1)) else { panic!() };
    assert_eq!(hub.greeted(at(2), &greeting(THEIRS, 1, 1), None, false), Some(ResumeRefusal::Ahead));
    let crate::link::Accepted::Open(link) = hub.accept(at(2)) else { panic!() };
    assert!(matches!(hub.received(at(3), link, numbered(1)), Some(Arrival::Deliver { maybe_dup: true, .. })));
    assert!(matches!(hub.received(at(3), link, numbered(2)), Some(Arrival::Deliver { maybe_dup: false, .. })));
    assert!(hub.complete(at(3), delivery, Verdict::Done));
    assert_eq!(hub.report().cum().get(), 0, "the former one was completed");
}

/// A greeting by HTTP that a connection has overtaken.
#[test]
fn r1_a_late_greeting_changes_nothing() {
    let (mut hub, link) = hub();
    let Some(Arrival::Deliver { delivery, .. }) = hub.received(at(1), link, numbered(1)) else { panic!() };
    assert!(hub.complete(at(1), delivery, Verdict::Done));
    let before = hub.report();
    assert_eq!(hub.greeted(at(2), &greeting(THEIRS, 1, 1), None, true), Some(ResumeRefusal::Ahead));
    assert_eq!(hub.report(), before);
    assert_eq!(hub.received(at(3), link, numbered(1)), Some(Arrival::Duplicate));
}

/// The answer to a question that was asked of a former self numbers by that one's epoch.
#[test]
fn r5_a_late_answer_of_a_former_self_is_not_the_new_ones() {
    let (mut client, talk, _) = degraded();
    let now = client.now();
    client.carried(now, Head::Welcome { greeting: greeting(THEIRS, 1, 1), refused: None });
    client.talked(now, talk, HttpOutcome::status(200));
    let Some(Did::Poll(talk)) = drain(&mut client).into_iter().find(|did| matches!(did, Did::Poll(_))) else {
        panic!()
    };
    let link = loop {
        client.tick(client.deadline().unwrap());
        if let Some(Did::Connect(link)) = drain(&mut client).into_iter().find(|did| matches!(did, Did::Connect(_))) {
            break link;
        }
    };
    let now = client.now();
    assert!(client.link_up(now, link));
    let anew =
        Head::Welcome { greeting: greeting(Origin::new(9, 2), 1, 1), refused: Some(ResumeRefusal::UnknownSession) };
    assert_eq!(client.received(now, link, anew), None);
    let _ = drain(&mut client);
    assert_eq!(client.carried(now, numbered(1)), None);
    let una = Head::Marks { report: Report::nothing(64), una: seq(50), beat: Beat::None };
    assert_eq!(client.carried(now, una), None);
    client.talked(now, talk, HttpOutcome::status(200));
    assert!(matches!(client.received(now, link, numbered(1)), Some(Arrival::Deliver { .. })));
}

/// What ends otherwise than by the peer's word is announced, or it waits for it for ever.
#[test]
fn r5_what_was_too_large_is_announced() {
    let (mut hub, link) = hub();
    hub.send(at(1), 1, 100, Policy::DEFAULT).unwrap();
    let _ = drain(&mut hub);
    // The connection ends because of it, and there is no other path.
    hub.link_down(at(2), link, Reason::Closed(1009), RetryHint::NONE);
    let _ = drain(&mut hub);
    let _ = hub.greeted(at(3), &greeting(THEIRS, 1, 1), None, false);
    assert!(matches!(hub.accept(at(3)), crate::link::Accepted::Open(_)));
    assert!(drain(&mut hub).iter().any(|did| matches!(did, Did::Marks(_, una) if *una == seq(2))));
}

/// A request under an old token fails while a connection carries: the session is known all the same.
#[test]
fn r9_an_old_token_is_not_a_lost_session() {
    let (mut client, talk, _) = degraded();
    let now = client.now();
    client.carried(now, Head::Welcome { greeting: greeting(THEIRS, 1, 1), refused: None });
    client.talked(now, talk, HttpOutcome::status(200));
    let Some(Did::Poll(talk)) = drain(&mut client).into_iter().find(|did| matches!(did, Did::Poll(_))) else {
        panic!()
    };
    let link = loop {
        client.tick(client.deadline().unwrap());
        if let Some(Did::Connect(link)) = drain(&mut client).into_iter().find(|did| matches!(did, Did::Connect(_))) {
            break link;
        }
    };
    let now = client.now();
    assert!(client.link_up(now, link));
    let welcome = Head::Welcome { greeting: greeting(THEIRS, 1, 1), refused: None };
    assert_eq!(client.received(now, link, welcome), None);
    client.talked(now, talk, HttpOutcome::status(401));
    assert!(client.greeting(true).resume, "it goes on");
}

#[test]
fn i3_an_older_epoch_is_refused() {
    let (mut hub, _) = hub();
    assert_eq!(hub.greeted(at(1), &greeting(Origin::new(9, 0), 1, 1), None, false), Some(ResumeRefusal::Epoch));
    assert_eq!(hub.greeting(true).rx.map(|got| got.of), Some(THEIRS));
}

/// What the greeting says has arrived does not cross again.
#[test]
fn r1_r2_what_a_greeting_names_is_not_sent_again() {
    let (mut hub, link) = hub();
    for n in 0..2 {
        hub.send(at(1), n, 10, Policy::DEFAULT).unwrap();
    }
    let _ = drain(&mut hub);
    hub.link_down(at(2), link, Reason::Closed(1006), RetryHint::NONE);
    let got = Got { of: OURS, report: Report { arrived: 0b10, ..Report::nothing(64) } };
    let again = Greeting { rx: Some(got), resume: true, ..greeting(THEIRS, 1, 1) };
    assert_eq!(hub.greeted(at(3), &again, None, false), None);
    assert!(matches!(hub.accept(at(3)), crate::link::Accepted::Open(_)));
    let sent: Vec<_> = drain(&mut hub).into_iter().filter(|did| matches!(did, Did::Data(_))).collect();
    assert_eq!(sent, [Did::Data(1)]);
}

/// Any number at all, at any time.
#[test]
fn g10_absurd_greetings() {
    for (next, una) in [(0, 0), (1, u64::MAX), (u64::MAX, 1), (u64::MAX, u64::MAX), (0, 1 << 48)] {
        let (mut hub, link) = hub();
        let report = Report { base: seq(una), arrived: u64::MAX, done: u64::MAX, rejected: u64::MAX, win: u16::MAX };
        let got = Some(Got { of: OURS, report });
        let absurd = Greeting { rx: got, resume: true, win: u16::MAX, ..greeting(THEIRS, next, una) };
        for _ in 0..3 {
            let _ = hub.greeted(at(1), &absurd, None, false);
            let _ = hub.received(at(1), link, numbered(una));
            let _ = hub.received(at(1), link, Head::Marks { report, una: seq(una), beat: Beat::Pong(u64::MAX) });
            hub.send(at(1), 1, 10, Policy::DEFAULT).unwrap();
            let _ = (drain(&mut hub), hub.greeting(true));
        }
    }
}

/// A message's request that is turned away is a failed request like any other.
#[test]
fn e3_a_message_that_is_turned_away_is_told_and_counted() {
    for status in [401, 403, 404, 410] {
        let (mut client, talk, _) = degraded();
        let now = client.now();
        client.carried(now, Head::Welcome { greeting: greeting(THEIRS, 1, 1), refused: None });
        client.talked(now, talk, HttpOutcome::status(200));
        let _ = client.send(now, 1, 10, Policy::DEFAULT).unwrap();
        let Some(Did::Post(post)) = drain(&mut client).into_iter().find(|did| matches!(did, Did::Post(_))) else {
            panic!()
        };
        let before = client.stats().requests_failed;
        client.posted(now, post, HttpOutcome::status(status));
        let failed = Event::RequestFailed { seq: Some(post.seq), reason: Reason::Status(status) };
        assert!(drain(&mut client).contains(&Did::Event(failed)), "{status}");
        assert_eq!(client.stats().requests_failed, before + 1, "{status}");
    }
}

/// A client without a connection that has been greeted by HTTP; its poll is under way.
fn polling() -> (Small, u32) {
    let (mut client, talk, _) = degraded();
    let now = client.now();
    client.carried(now, Head::Welcome { greeting: greeting(THEIRS, 1, 1), refused: None });
    client.talked(now, talk, HttpOutcome::status(200));
    let talk = polls(&drain(&mut client));
    (client, talk.expect("it asks"))
}

fn polls(did: &[Did]) -> Option<u32> {
    did.iter().find_map(|did| if let Did::Poll(talk) = did { Some(*talk) } else { None })
}

/// Its numbers 1 to `n`, at the application.
fn deliveries(session: &mut Small, link: LinkId, n: u64) -> Vec<DeliveryId> {
    let deliver = |n| match session.received(at(1), link, numbered(n)) {
        Some(Arrival::Deliver { delivery, .. }) => delivery,
        other => panic!("{other:?}"),
    };
    (1..=n).map(deliver).collect()
}

#[test]
fn s16_each_message_that_is_given_back_is_asked_for_after_its_own_time() {
    let (mut hub, link) = hub();
    let given_back = [60 * SECOND, Duration::from_millis(1), Duration::ZERO];
    for (delivery, after) in deliveries(&mut hub, link, 3).into_iter().zip(given_back) {
        assert!(hub.complete(at(2), delivery, Verdict::Retry { after }));
    }
    let asked = |did: &[Did]| {
        let nack = |did: &Did| if let Did::Nack(seq, after) = did { Some((*seq, *after)) } else { None };
        did.iter().filter_map(nack).collect::<Vec<_>>()
    };
    let did = drain(&mut hub);
    assert_eq!(asked(&did), [(1, 60 * SECOND), (2, Duration::from_millis(1)), (3, SECOND)], "zero is a second");
    // One that comes too soon is not handed over, and its sender is told what is left.
    assert_eq!(hub.received(at(10_002), link, numbered(1)), Some(Arrival::Duplicate));
    assert_eq!(asked(&drain(&mut hub)), [(1, 50 * SECOND)]);
    assert!(matches!(hub.received(at(10_002), link, numbered(2)), Some(Arrival::Deliver { .. })));
    assert!(matches!(hub.received(at(60_002), link, numbered(1)), Some(Arrival::Deliver { .. })));
}

#[test]
fn s16_a_request_for_what_was_given_back_is_told_how_long_it_takes() {
    let (mut hub, link) = hub();
    let [first, second] = deliveries(&mut hub, link, 2)[..] else { panic!() };
    hub.link_down(at(2), link, Reason::Closed(1006), RetryHint::NONE);
    let ask = |hub: &mut Small, ms, n| hub.request(at(ms), RequestId(ms), Some(THEIRS.message(seq(n))), None);
    assert_eq!(ask(&mut hub, 3, 1), Arrival::Duplicate);
    assert!(hub.complete(at(1000), first, Verdict::Retry { after: 60 * SECOND }));
    assert!(hub.complete(at(1000), second, Verdict::Retry { after: 5 * SECOND }));
    assert_eq!(drain(&mut hub).last(), Some(&Did::Respond(3, Answer::Again { after: 60 * SECOND })));
    assert_eq!(ask(&mut hub, 2000, 1), Arrival::Answer(Answer::Again { after: 59 * SECOND }));
    assert_eq!(ask(&mut hub, 2001, 2), Arrival::Answer(Answer::Again { after: Duration::from_millis(3999) }));
    assert!(matches!(ask(&mut hub, 6000, 2), Arrival::Deliver { .. }));
    assert!(matches!(ask(&mut hub, 61_000, 1), Arrival::Deliver { .. }));
}

/// The answer to a poll comes at once: a hub that was told that the message has not arrived would say it again and again.
#[test]
fn s16_who_polls_says_that_it_has_arrived_until_it_may_come_again() {
    let (mut client, mut talk) = polling();
    let began = client.now();
    let Some(Arrival::Deliver { delivery, .. }) = client.carried(began, numbered(1)) else { panic!() };
    client.talked(began, talk, HttpOutcome::status(200));
    let replaced = polls(&drain(&mut client)).unwrap();
    assert!(client.complete(began, delivery, Verdict::Retry { after: 60 * SECOND }));
    assert_eq!((client.report().rcv(), client.report().cum().get()), (seq(1), 0), "it need not be sent");
    talk = polls(&drain(&mut client)).unwrap();
    client.talked(began, replaced, HttpOutcome::status(200));
    // A hub that sends it all the same is told so again.
    assert_eq!(client.carried(began.after(SECOND), numbered(1)), Some(Arrival::Duplicate));
    client.talked(began.after(SECOND), talk, HttpOutcome::status(200));
    assert_eq!(client.report().rcv(), seq(1));
    let until = began.after(60 * SECOND);
    while let Some(next) = client.deadline().filter(|next| *next < until) {
        client.tick(next);
        for did in drain(&mut client) {
            match did {
                Did::Poll(asked) => talk = asked,
                Did::Connect(link) => client.link_down(next, link, Reason::PortClosed, RetryHint::NONE),
                _ => {}
            }
        }
        assert_eq!(client.report().rcv(), seq(1));
    }
    client.tick(until);
    assert_eq!(client.report().rcv().get(), 0, "now it may come");
    let did = drain(&mut client);
    let again = polls(&did);
    assert!(
        again.is_some_and(|again| again > talk),
        "and the hub is asked, beside the poll that waits: {did:?} {talk}"
    );
    assert!(matches!(client.carried(until, numbered(1)), Some(Arrival::Deliver { .. })));
    assert_eq!(client.report().rcv(), seq(1));
}

/// Two sessions, HTTP alone, and an application that gives back what it gets: it has it once in each of its times.
#[test]
fn s16_by_http_nothing_is_handed_over_again_in_no_time() {
    let mut hub = session(NATIVE_PEER);
    hub.send(at(0), 5, 10, Policy::DEFAULT).unwrap();
    let (mut client, talk) = polling();
    let mut now = client.now();
    let ours = hub.greeting(true).origin;
    assert_eq!(ours, OURS, "whom the client takes for itself, which changes nothing");
    let _ = hub.greeted(now, &greeting(THEIRS, 1, 1), None, true);
    let (mut waiting, mut handed, mut asked) = (Some(talk), Vec::new(), 0);
    let end = now.after(200 * SECOND);
    while now < end {
        // The hub answers what it is asked.
        if let Some(talk) = waiting.take() {
            asked += 1;
            let taken = hub.polled(now, RequestId(talk.into()), 25 * SECOND, &client.report(), client.outbox().una());
            assert!(taken);
        }
        let said = drain_carried(&mut hub);
        for (request, heads) in said {
            for head in heads {
                if let Some(Arrival::Deliver { delivery, .. }) = client.carried(now, head) {
                    handed.push(now);
                    assert!(client.complete(now, delivery, Verdict::Retry { after: 60 * SECOND }));
                }
            }
            client.talked(now, u32::try_from(request).unwrap(), HttpOutcome::status(200));
        }
        for did in drain(&mut client) {
            match did {
                Did::Poll(talk) => waiting = Some(talk),
                Did::Connect(link) => client.link_down(now, link, Reason::PortClosed, RetryHint::NONE),
                _ => {}
            }
        }
        if waiting.is_none() {
            now = [client.deadline(), hub.deadline()].into_iter().flatten().min().unwrap();
            client.tick(now);
            hub.tick(now);
        }
    }
    let spans: Vec<_> = handed.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert_eq!(handed.len(), 4, "{spans:?}");
    assert!(spans.iter().all(|span| (60 * SECOND..62 * SECOND).contains(span)), "{spans:?}");
    assert!(asked < 30, "{asked} polls");
}

/// What a hub says in its answers to polls.
fn drain_carried(hub: &mut Small) -> Vec<(u64, Vec<Head>)> {
    let (mut all, mut heads) = (Vec::new(), Vec::new());
    while let Some(output) = hub.poll() {
        match output {
            Output::Carry { frame: Frame::Data { seq, una, .. }, .. } => heads.push(Head::Numbered { seq, una }),
            Output::Carry { frame: Frame::Marks { report, una, beat }, .. } => {
                heads.push(Head::Marks { report, una, beat });
            }
            Output::Respond { request, .. } => all.push((request.0, core::mem::take(&mut heads))),
            _ => {}
        }
    }
    all
}
