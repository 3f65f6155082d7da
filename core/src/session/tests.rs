use super::*;
use crate::backoff::BackoffConfig;
use crate::config::Config;
use crate::link::{GiveUp, Newcomer, REPLACED, Role};
use crate::outbox::{OnNewLink, Rejection};
use crate::route::HttpTimeouts;
use crate::rtt::AckWait;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::format;
use std::hash::DefaultHasher;
use std::vec;
use std::vec::Vec;

mod closing;

const SECOND: Duration = Duration::from_secs(1);
const ORIGIN: Origin = Origin::new(3, 1);
const BY_WEBSOCKET: Outcome = Outcome::Delivered { path: Path::WebSocket };
const BY_HTTP: Outcome = Outcome::Delivered { path: Path::Http };

type Small = InlineSession<u32, 4, 8>;

/// An output, without what it borrows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Did {
    Close(LinkId, Ending),
    Refuse(LinkId),
    Connect(LinkId),
    Event(Event),
    Respond(u64, Answer),
    Ack(LinkId, u128),
    Ping(LinkId),
    Probe(LinkId),
    Keepalive(LinkId),
    Data(LinkId, Seq, MessageId, u32),
    Post(PostId, MessageId, u32, HttpTimeouts),
}

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn id(n: u64) -> MessageId {
    ORIGIN.message(Seq::from_number(n))
}

fn foreign(n: u128) -> MessageId {
    MessageId::from_bits(n)
}

fn data(n: u128) -> Head {
    Head::Data { id: Some(foreign(n)), key: None }
}

fn drain(session: &mut Small) -> Vec<Did> {
    let mut all = Vec::new();
    while let Some(output) = session.poll() {
        all.push(match output {
            Output::Close { link, ending } => Did::Close(link, ending),
            Output::Refuse { link } => Did::Refuse(link),
            Output::Connect { link } => Did::Connect(link),
            Output::Event(event) => Did::Event(event),
            Output::Respond { request, answer } => Did::Respond(request.0, answer),
            Output::Frame { link, frame: Frame::Ack { id } } => Did::Ack(link, id.bits()),
            Output::Probe { link } => Did::Probe(link),
            Output::Frame { link, frame: Frame::Ping } => Did::Ping(link),
            Output::Frame { link, frame: Frame::Keepalive } => Did::Keepalive(link),
            Output::Frame { link, frame: Frame::Data { seq, id, payload, .. } } => Did::Data(link, seq, id, *payload),
            Output::Post { post, id, payload, timeouts } => Did::Post(post, id, *payload, timeouts),
            output => panic!("only a native session says {output:?}"),
        });
        assert!(all.len() < 1000, "output without end: {all:?}");
    }
    assert!(session.deadline().is_none_or(|deadline| deadline > session.now()), "rule 6");
    all
}

/// With HTTP, a fixed wait of 3 s, and limits of 100 and 1000 bytes.
fn config() -> Config {
    let mut config = Config::DEFAULT;
    config.outbox.ack_wait = AckWait::Fixed(3 * SECOND);
    config.outbox.frame_limit = 100;
    config.outbox.post_limit = 1000;
    config.route.http = true;
    config
}

fn only_websocket() -> Config {
    let mut config = config();
    config.route.http = false;
    config
}

fn session(config: Config) -> Small {
    let mut session = Small::inline(config.check().unwrap(), 1, ORIGIN, at(0));
    session.start(at(0));
    session
}

fn connects(did: &[Did]) -> Option<LinkId> {
    did.iter().find_map(|did| if let Did::Connect(link) = did { Some(*link) } else { None })
}

/// Sleeps until its deadlines, as a driver does, until it has nothing to do before `until`; with all that it did. A ping
/// is answered unless `mute`.
fn run_until(session: &mut Small, until: Instant, mute: bool) -> Vec<Did> {
    let mut all = drain(session);
    let mut answered = 0;
    loop {
        while answered < all.len() {
            if let Did::Ping(link) = all[answered]
                && !mute
            {
                let _ = session.received(session.now(), link, Head::Pong);
            }
            answered += 1;
        }
        all.extend(drain(session));
        if answered < all.len() {
            continue;
        }
        match session.deadline() {
            Some(when) if when <= until => {
                let before = session.now();
                session.tick(when);
                assert!(session.now() > before, "time stands still");
                all.extend(drain(session));
            }
            Some(_) | None => {
                session.tick(until);
                all.extend(drain(session));
                return all;
            }
        }
    }
}

/// Connected, everything drained.
fn up(config: Config) -> (Small, LinkId) {
    let mut session = session(config);
    let link = if config.link.role == crate::Role::Acceptor {
        let Accepted::Open(link) = session.accept(at(0)) else { panic!() };
        link
    } else {
        let link = connects(&drain(&mut session)).unwrap();
        assert!(session.link_up(at(0), link));
        link
    };
    let _ = drain(&mut session);
    (session, link)
}

fn send(session: &mut Small, now: Instant, payload: u32) -> Seq {
    session.send(now, payload, 10, Policy::DEFAULT).unwrap()
}

fn ends(did: &[Did]) -> Vec<(u64, Outcome)> {
    let settled = |did: &Did| {
        if let Did::Event(Event::Settled { seq, outcome, .. }) = did { Some((seq.get(), *outcome)) } else { None }
    };
    did.iter().filter_map(settled).collect()
}

fn frames(did: &[Did]) -> Vec<(LinkId, u64)> {
    did.iter()
        .filter_map(|did| if let Did::Data(link, seq, ..) = did { Some((*link, seq.get())) } else { None })
        .collect()
}

fn posts(did: &[Did]) -> Vec<PostId> {
    did.iter().filter_map(|did| if let Did::Post(post, ..) = did { Some(*post) } else { None }).collect()
}

fn pings(did: &[Did]) -> usize {
    did.iter().filter(|did| matches!(did, Did::Ping(_))).count()
}

/// The connection ends; with what was done then.
fn down(session: &mut Small, now: Instant, link: LinkId, reason: Reason) -> Vec<Did> {
    session.link_down(now, link, reason, RetryHint::NONE);
    drain(session)
}

/// Waits for the next attempt and lets it succeed.
fn reconnect(session: &mut Small) -> (Instant, LinkId, Vec<Did>) {
    loop {
        let when = session.deadline().unwrap();
        session.tick(when);
        let mut did = drain(session);
        if let Some(link) = connects(&did) {
            assert!(session.link_up(when, link));
            did.extend(drain(session));
            return (when, link, did);
        }
    }
}

#[test]
fn n1_a_peer_is_told_nothing_it_did_not_ask_for() {
    let mut session = session(config());
    let link = connects(&drain(&mut session)).unwrap();
    assert!(session.link_up(at(0), link));
    let did = drain(&mut session);
    assert!(did.iter().all(|did| matches!(did, Did::Event(_))), "no greeting: {did:?}");
    for head in [Head::Hello, Head::Other, Head::Pong, Head::Malformed] {
        assert_eq!(session.received(at(0), link, head), None);
        assert!(drain(&mut session).is_empty(), "nor an answer to {head:?}");
    }
}

#[test]
fn n2_one_acknowledgement_for_each_id_and_no_other_word() {
    let (mut session, link) = up(config());
    for n in [7, 8, 9] {
        let Some(Arrival::Deliver { delivery, .. }) = session.received(at(0), link, data(n)) else { panic!() };
        assert!(session.complete(at(0), delivery, Verdict::Done));
    }
    assert_eq!(drain(&mut session), [7, 8, 9].map(|n| Did::Ack(link, n)));
    let Some(Arrival::Deliver { delivery, .. }) = session.received(at(0), link, data(10)) else { panic!() };
    assert!(session.complete(at(0), delivery, Verdict::Retry { after: SECOND }));
    assert!(drain(&mut session).is_empty(), "there is no word for it");
}

#[test]
fn i1_a_message_has_one_id_on_every_connection_and_path() {
    let (mut session, first) = up(config());
    let seq = send(&mut session, at(0), 42);
    assert_eq!(drain(&mut session), [Did::Data(first, seq, id(1), 42)]);
    let _ = down(&mut session, at(0), first, Reason::Closed(1006));
    let (_, second, did) = reconnect(&mut session);
    assert!(did.contains(&Did::Data(second, seq, id(1), 42)), "{did:?}");
    let now = session.now().after(SECOND);
    let _ = down(&mut session, now, second, Reason::Closed(1006));
    session.tick(now.after(2 * SECOND));
    let did = drain(&mut session);
    assert!(
        did.iter().any(|did| matches!(did, Did::Post(post, posted, 42, _) if post.seq == seq && *posted == id(1))),
        "{did:?}"
    );
}

#[test]
fn i3_an_acknowledgement_for_an_earlier_run_settles_nothing_and_is_no_breach() {
    let (mut session, link) = up(config());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    let earlier = Origin::new(3, 0).message(Seq::FIRST);
    let _ = session.received(at(0), link, Head::Ack { id: earlier });
    assert_eq!((session.backlog(), session.stats().violations), (1, 0));
}

#[test]
fn i5_a_reused_id_is_an_event_and_422() {
    let (mut session, link) = up(config());
    let say = |key| Head::Data { id: Some(foreign(1)), key: Some(ContentKey::from_bits(key)) };
    assert!(matches!(session.received(at(0), link, say(1)), Some(Arrival::Deliver { .. })));
    assert_eq!(session.received(at(0), link, say(2)), Some(Arrival::Reused));
    assert_eq!(drain(&mut session), [Did::Event(Event::IdReused { total: 1 })]);
    let request = session.request(at(0), RequestId(1), Some(foreign(1)), Some(ContentKey::from_bits(3)));
    assert_eq!(request, Arrival::Answer(Answer::Reused));
    assert_eq!(drain(&mut session), [Did::Event(Event::IdReused { total: 2 })]);
}

#[test]
fn i6_where_a_peer_uses_an_id_again_both_are_taken_and_acknowledged_in_their_order_by_either_path() {
    let mut config = crate::GONKA_API_NODE;
    config.inbox.dedup = crate::DedupBy::IdAndContent;
    let (mut session, link) = up(config);
    let key = |content| ContentKey::from_bits(content);
    let says = |content| Head::Data { id: Some(foreign(1)), key: Some(key(content)) };
    let known = |content| foreign(1).with(key(content)).bits();
    let Some(Arrival::Deliver { delivery: first, .. }) = session.received(at(0), link, says(1)) else { panic!() };
    let Some(Arrival::Deliver { delivery: second, .. }) = session.received(at(0), link, says(2)) else { panic!() };
    let third = session.request(at(0), RequestId(1), Some(foreign(1)), Some(key(3)));
    let Arrival::Deliver { delivery: third, .. } = third else { panic!("{third:?}") };
    for delivery in [third, second] {
        assert!(session.complete(at(1), delivery, Verdict::Done));
    }
    assert_eq!(drain(&mut session), [Did::Respond(1, Answer::Done)], "an answer is nobody else's");
    assert_eq!(session.received(at(1), link, says(2)), Some(Arrival::Duplicate));
    assert!(drain(&mut session).is_empty(), "the acknowledgement would be taken for the first one's");
    assert!(session.complete(at(2), first, Verdict::Done));
    assert_eq!(drain(&mut session), [Did::Ack(link, known(1)), Did::Ack(link, known(2))]);
    assert_eq!(session.stats().reused, 0);
}

#[test]
fn s1_acks_pings_and_keepalives_take_no_number() {
    let mut config = crate::GONKA_ML_NODE;
    config.heartbeat.keepalive = 2 * SECOND;
    let (mut session, link) = up(config);
    assert_eq!(send(&mut session, at(0), 1), Seq::FIRST);
    let _ = drain(&mut session);
    let Some(Arrival::Deliver { delivery, .. }) = session.received(at(0), link, data(7)) else { panic!() };
    assert!(session.complete(at(0), delivery, Verdict::Done));
    let _ = session.received(at(0), link, Head::Ack { id: id(1) });
    let did = run_until(&mut session, at(40), false);
    assert!(pings(&did) > 0 && did.contains(&Did::Keepalive(link)) && did.contains(&Did::Ack(link, 7)), "{did:?}");
    assert_eq!(send(&mut session, at(40), 2), Seq::FIRST.next());
}

#[test]
fn s3_delivered_means_acknowledged_and_acknowledged_means_completed() {
    let (mut sender, out) = up(only_websocket());
    let (mut receiver, inn) = up(only_websocket());
    let _ = send(&mut sender, at(0), 1);
    let did = drain(&mut sender);
    let Did::Data(_, _, id, _) = did[0] else { panic!("{did:?}") };
    let head = Head::Data { id: Some(id), key: None };
    let Some(Arrival::Deliver { delivery, .. }) = receiver.received(at(0), inn, head) else { panic!() };
    assert!(drain(&mut receiver).is_empty(), "arrived");
    assert_eq!(sender.backlog(), 1);
    assert!(receiver.complete(at(1), delivery, Verdict::Done));
    assert_eq!(drain(&mut receiver), [Did::Ack(inn, id.bits())]);
    let _ = sender.received(at(1), out, Head::Ack { id });
    assert_eq!(ends(&drain(&mut sender)), [(1, BY_WEBSOCKET)]);
}

#[test]
fn s5_acknowledgements_leave_before_pings_and_messages() {
    let (mut session, link) = up(config());
    let Some(Arrival::Deliver { delivery, .. }) = session.received(at(0), link, data(7)) else { panic!() };
    let _ = session.request(at(0), RequestId(5), Some(foreign(7)), None);
    let _ = send(&mut session, at(0), 1);
    session.retry_now(at(0));
    assert!(session.complete(at(0), delivery, Verdict::Done));
    let did = drain(&mut session);
    let answer = Did::Respond(5, Answer::Done);
    assert_eq!(did, [answer, Did::Ack(link, 7), Did::Ping(link), Did::Data(link, Seq::FIRST, id(1), 1)]);
}

#[test]
fn s6_an_acknowledgement_lost_with_its_connection_is_given_again_on_the_next() {
    let (mut session, first) = up(config());
    let Some(Arrival::Deliver { delivery, .. }) = session.received(at(0), first, data(7)) else { panic!() };
    assert!(session.complete(at(0), delivery, Verdict::Done));
    assert_eq!(drain(&mut session), [Did::Ack(first, 7)]);
    let _ = down(&mut session, at(0), first, Reason::Closed(1006));
    let (now, second, _) = reconnect(&mut session);
    assert_eq!(session.received(now, second, data(7)), Some(Arrival::Duplicate));
    assert!(drain(&mut session).contains(&Did::Ack(second, 7)));
    assert_eq!(session.stats().duplicates, 1);
}

#[test]
fn s6_a_closing_session_still_answers_copies_and_takes_nothing_new() {
    let (mut session, link) = up(config());
    let _ = send(&mut session, at(0), 1);
    for (n, done) in [(7, true), (8, false)] {
        let Some(Arrival::Deliver { delivery, .. }) = session.received(at(0), link, data(n)) else { panic!() };
        assert!(!done || session.complete(at(0), delivery, Verdict::Done));
    }
    let _ = drain(&mut session);
    session.close(at(1), 30 * SECOND);
    assert_eq!(session.received(at(1), link, data(7)), Some(Arrival::Duplicate));
    assert!(drain(&mut session).contains(&Did::Ack(link, 7)));
    assert_eq!(session.received(at(1), link, data(9)), Some(Arrival::Full));
    assert_eq!(session.request(at(1), RequestId(1), Some(foreign(7)), None), Arrival::Answer(Answer::Done));
    assert_eq!(session.request(at(1), RequestId(2), Some(foreign(8)), None), Arrival::Duplicate);
    assert!(matches!(
        session.request(at(1), RequestId(3), Some(foreign(9)), None),
        Arrival::Answer(Answer::Busy { .. })
    ));
}

#[test]
fn s7_an_ack_of_what_was_never_sent_is_a_breach_that_is_tried_ever_more_slowly() {
    let mut config = only_websocket();
    config.link.give_up = GiveUp::Refusals(4);
    let (mut session, mut link) = up(config);
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    let mut now = at(1);
    for round in 1..=4 {
        let _ = session.received(now, link, Head::Ack { id: id(9) });
        let did = drain(&mut session);
        assert!(did.contains(&Did::Close(link, Ending::Code(1002))), "{did:?}");
        assert!(!did.iter().any(|did| matches!(did, Did::Data(..) | Did::Ack(..))), "nothing follows a close frame");
        let did = down(&mut session, now, link, Reason::Closed(1002));
        assert!(did.contains(&Did::Event(Event::Down { link, reason: Reason::Violation })), "{did:?}");
        assert_eq!(session.stats().violations, round);
        let status = session.path_status(Path::WebSocket);
        assert_eq!((status.reason, status.blocked_since), (Some(Reason::Violation), Some(at(1))));
        if round < 4 {
            assert_eq!(session.backlog(), 1, "the session is kept");
            let did;
            (now, link, did) = reconnect(&mut session);
            assert_eq!(frames(&did), [(link, 1)]);
        } else {
            assert_eq!((session.state(), ends(&did)), (State::Failed, vec![(1, Outcome::Abandoned)]));
        }
    }
    assert_eq!(session.send(now, 5, 10, Policy::DEFAULT), Err((Refusal::Closed, 5)));
    assert!(run_until(&mut session, at(9999), false).is_empty(), "failed is quiet");
    assert_eq!(session.deadline(), None);
}

#[test]
fn s7_an_acknowledgement_of_what_has_ended_is_ignored() {
    let (mut session, link) = up(config());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    for _ in 0..3 {
        let _ = session.received(at(1), link, Head::Ack { id: id(1) });
    }
    assert_eq!(ends(&drain(&mut session)), [(1, BY_WEBSOCKET)]);
    let _ = session.received(at(1), link, Head::Ack { id: id(1) });
    assert_eq!((session.stats().violations, session.state()), (0, State::Up));
}

#[test]
fn s8_a_rejected_message_is_acknowledged_and_told_here() {
    let (mut session, link) = up(config());
    let Some(Arrival::Deliver { delivery, .. }) = session.received(at(0), link, data(7)) else { panic!() };
    assert!(session.complete(at(0), delivery, Verdict::Reject));
    assert_eq!(drain(&mut session), [Did::Event(Event::RejectedButAcked { delivery }), Did::Ack(link, 7)]);
}

#[test]
fn s8_the_peers_rejection_is_the_end_and_evidence_of_life() {
    let (mut session, link) = up(only_websocket());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    let _ = session.received(at(1), link, Head::Reject { id: id(1) });
    assert_eq!(ends(&drain(&mut session)), [(1, Outcome::Rejected(Rejection::ByPeer))]);
    assert_eq!((session.stats().rejected, session.stats().violations), (1, 0));
    let _ = session.received(at(1), link, Head::Reject { id: id(2) });
    assert_eq!(session.stats().violations, 1, "of what was never sent it is a breach like an acknowledgement (S7)");
}

#[test]
fn s8_a_confirmation_needs_no_connection() {
    let (mut session, link) = up(config());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    let _ = down(&mut session, at(1), link, Reason::Closed(1006));
    assert!(session.confirmed(at(1), id(1), true));
    assert_eq!(ends(&drain(&mut session)), [(1, Outcome::Delivered { path: Path::Http })]);
    assert!(!session.confirmed(at(1), id(1), false), "once");
    assert!(!session.confirmed(at(1), id(2), true), "of nothing we sent: no breach, whoever posts may be late");
    assert_eq!(session.stats().violations, 0);
}

#[test]
fn s9_nothing_waits_for_an_earlier_message() {
    let (mut session, link) = up(config());
    for n in 1..=3 {
        let _ = send(&mut session, at(0), n);
    }
    let _ = drain(&mut session);
    for n in [3, 1, 2] {
        let _ = session.received(at(1), link, Head::Ack { id: id(n) });
        assert_eq!(ends(&drain(&mut session)), [(n, BY_WEBSOCKET)]);
    }
}

#[test]
fn s12_a_memory_that_is_too_small_says_so() {
    let (mut session, link) = up(config());
    for n in 0..9 {
        let Some(Arrival::Deliver { delivery, .. }) = session.received(at(1), link, data(n)) else { panic!() };
        assert!(session.complete(at(1), delivery, Verdict::Done));
        let did = drain(&mut session);
        assert_eq!(did.contains(&Did::Event(Event::HorizonShort { total: 1 })), n == 8, "{did:?}");
    }
    assert_eq!((session.stats().horizon_short, session.stats().maybe_dup), (1, 1));
}

/// All of it but the clock and what says that there was an input.
fn essence(session: &Small) -> Small {
    let mut essence = session.clone();
    essence.stats = Stats { stale: 0, ..essence.stats };
    essence.drained = true;
    essence
}

#[test]
fn r7_what_names_an_earlier_connection_moves_nothing_but_the_clock() {
    let (mut session, old) = up(config());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    let _ = down(&mut session, at(0), old, Reason::Closed(1006));
    let (now, new, _) = reconnect(&mut session);
    let before = essence(&session);
    let stale: [Input<u32>; 9] = [
        Input::LinkUp { link: old },
        Input::LinkUp { link: new },
        Input::LinkDown { link: old, reason: Reason::Closed(1010), hint: RetryHint::NONE },
        Input::Received { link: old, head: Head::Ack { id: id(1) } },
        Input::Received { link: old, head: data(3) },
        Input::Received { link: new.next(), head: Head::Pong },
        Input::Writable { link: old, yes: false },
        Input::Posted { post: PostId { seq: Seq::FIRST, attempt: 1 }, outcome: HttpOutcome::status(200) },
        Input::Complete { delivery: DeliveryId::from_number(9), verdict: Verdict::Done },
    ];
    for (count, input) in (1..).zip(stale) {
        let text = format!("{input:?}");
        assert_eq!(session.handle(now, input), Reply::Stale, "{text}");
        assert_eq!(session.stats().stale, count);
        assert_eq!(essence(&session), before, "{text}");
    }
    assert_eq!(session.handle(now, Input::RequestGone { request: RequestId(4) }), Reply::Stale);
    assert_eq!(drain(&mut session), []);
}

#[test]
fn r7_a_holder_that_greets_in_time_keeps_its_place() {
    let mut config = config();
    config.link.role = Role::Acceptor;
    config.link.ready = crate::Ready::Hello;
    let mut session = session(config);
    let Accepted::Open(holder) = session.accept(at(0)) else { panic!() };
    let Accepted::Probing(newcomer) = session.accept(at(1)) else { panic!() };
    let _ = session.received(at(2), holder, Head::Hello);
    assert!(drain(&mut session).contains(&Did::Refuse(newcomer)));
    session.tick(at(3));
    let _ = drain(&mut session);
    assert_eq!((session.connection(), session.state()), (Some(holder), State::Up));
}

#[test]
fn r7_an_old_connections_greeting_does_not_make_a_new_one_ready() {
    let mut config = config();
    config.link.ready = crate::Ready::Hello;
    let mut session = session(config);
    let old = connects(&drain(&mut session)).unwrap();
    session.link_down(at(0), old, Reason::PortClosed, RetryHint::NONE);
    let (now, _, _) = reconnect(&mut session);
    assert_eq!(session.handle(now, Input::Received { link: old, head: Head::Hello }), Reply::Stale);
    assert_eq!(session.state(), State::Handshaking);
}

#[test]
fn r7_a_newcomer_knocks_and_the_holder_is_asked() {
    let mut config = config();
    config.link.role = Role::Acceptor;
    for answers in [true, false] {
        let (mut session, holder) = up(config);
        let Accepted::Probing(newcomer) = session.accept(at(1)) else { panic!() };
        assert_eq!(pings(&drain(&mut session)), 1);
        assert_eq!(session.received(at(1), newcomer, data(1)), None, "not read yet");
        if answers {
            let _ = session.received(at(2), holder, Head::Pong);
            assert_eq!(drain(&mut session), [Did::Refuse(newcomer)]);
            assert_eq!(session.connection(), Some(holder));
        } else {
            session.tick(at(3));
            let did = drain(&mut session);
            assert!(did.contains(&Did::Close(holder, Ending::Drop)), "{did:?}");
            assert!(did.contains(&Did::Event(Event::Down { link: holder, reason: Reason::Replaced })));
            assert_eq!(session.connection(), Some(newcomer));
        }
    }
}

#[test]
fn h1_a_request_carries_the_id_and_h10_its_deadlines() {
    let mut session = session(config());
    let _ = drain(&mut session);
    let seq = send(&mut session, at(0), 42);
    session.tick(at(2));
    let did = drain(&mut session);
    let post = PostId { seq, attempt: 1 };
    let timeouts = HttpTimeouts { progress: 10 * SECOND, thinking: 30 * SECOND };
    assert!(did.contains(&Did::Post(post, id(1), 42, timeouts)), "{did:?}");
    session.posted(at(3), post, HttpOutcome::status(200));
    assert_eq!(ends(&drain(&mut session)), [(1, BY_HTTP)]);
}

#[test]
fn h2_both_copies_close_together_are_processed_once() {
    let (mut session, link) = up(config());
    let Arrival::Deliver { delivery, .. } = session.request(at(0), RequestId(1), Some(foreign(7)), None) else {
        panic!()
    };
    assert_eq!(session.received(at(0), link, data(7)), Some(Arrival::Duplicate));
    assert!(session.complete(at(1), delivery, Verdict::Done));
    assert_eq!(drain(&mut session), [Did::Respond(1, Answer::Done), Did::Ack(link, 7)]);
    assert_eq!(session.stats().delivered, 1);
}

#[test]
fn h2_a_request_waits_four_seconds_by_the_sessions_own_deadline() {
    let mut session = session(only_websocket());
    let _ = drain(&mut session);
    let Arrival::Deliver { .. } = session.request(at(0), RequestId(1), None, None) else { panic!() };
    let did = run_until(&mut session, at(4), false);
    assert!(did.contains(&Did::Respond(1, Answer::Again { after: SECOND })), "{did:?}");
}

/// What one message is told is nothing to another, on either side.
#[test]
fn s16_the_hint_of_one_message_delays_no_other() {
    let mut config = config();
    config.route.posts = 1;
    let mut session = session(config);
    for n in 0..3 {
        let _ = send(&mut session, at(0), n);
    }
    let did = run_until(&mut session, at(2), false);
    let [first] = posts(&did)[..] else { panic!("{did:?}") };
    let again = |after| HttpOutcome::status(Answer::Again { after }.status()).with_after(after);
    session.posted(at(2), first, again(60 * SECOND));
    let [second] = posts(&drain(&mut session))[..] else { panic!("the path waits for the first one's time") };
    session.posted(at(2), second, again(5 * SECOND));
    let [third] = posts(&drain(&mut session))[..] else { panic!() };
    session.posted(at(2), third, HttpOutcome::status(200));
    let did = run_until(&mut session, at(60), false);
    let [later] = posts(&did)[..] else { panic!("each in its own time: {did:?}") };
    assert_eq!((later.seq, later.attempt), (second.seq, 4));
    session.posted(at(60), later, HttpOutcome::status(200));
    let did = run_until(&mut session, at(70), false);
    assert_eq!(posts(&did).iter().map(|post| post.seq).collect::<Vec<_>>(), [first.seq], "{did:?}");
}

#[test]
fn f8_degraded_means_that_http_carries() {
    let mut session = session(config());
    let did = run_until(&mut session, at(2), false);
    assert!(connects(&did).is_some() && session.path() == Path::Http);
    assert_eq!(session.state(), State::Connecting, "nobody has answered by HTTP yet");
    let _ = send(&mut session, at(3), 1);
    let _ = send(&mut session, at(3), 2);
    let [first, second] = posts(&drain(&mut session))[..] else { panic!() };
    assert_eq!(session.state(), State::Connecting, "it was asked, and has not answered");
    session.posted(at(4), first, HttpOutcome::foreign(404));
    assert_eq!(session.state(), State::Connecting, "a go-between's word");
    session.posted(at(4), second, HttpOutcome::status(200));
    assert_eq!(session.state(), State::Degraded);
    let states = |did: &[Did]| {
        let state = |did: &Did| if let Did::Event(Event::State { to, .. }) = did { Some(*to) } else { None };
        did.iter().filter_map(state).collect::<Vec<_>>()
    };
    assert_eq!(states(&drain(&mut session)), [State::Degraded]);
    let did = run_until(&mut session, at(9), false);
    let [again] = posts(&did)[..] else { panic!("{did:?}") };
    session.posted(at(9), again, HttpOutcome::status(200));
    let (now, link, _) = reconnect(&mut session);
    assert_eq!((session.path(), session.state()), (Path::WebSocket, State::Up), "the first connection carries at once");
    // The next time HTTP has to show it anew.
    let _ = down(&mut session, now, link, Reason::Closed(1006));
    let now = now.after(3 * SECOND);
    let _ = run_until(&mut session, now, false);
    assert_eq!(session.path(), Path::Http);
    assert_ne!(session.state(), State::Degraded, "that it carried before");
    for (outcome, carries) in [(HttpOutcome::status(500), true), (HttpOutcome::Unreached(Reason::PortClosed), false)] {
        let _ = send(&mut session, now, 3);
        let [post] = posts(&drain(&mut session))[..] else { panic!() };
        session.posted(now, post, outcome);
        assert_eq!(session.state() == State::Degraded, carries, "{outcome:?}");
    }
}

#[test]
fn h5_what_no_path_carries_comes_back_at_once() {
    let (mut both, _) = up(config());
    assert_eq!(both.send(at(0), 7, 1001, Policy::DEFAULT), Err((Refusal::TooLarge, 7)));
    let seq = both.send(at(0), 7, 101, Policy::DEFAULT).unwrap();
    let did = drain(&mut both);
    assert_eq!(posts(&did), [PostId { seq, attempt: 1 }], "larger than a frame takes, so by HTTP: {did:?}");
    let (mut one, _) = up(only_websocket());
    assert_eq!(one.send(at(0), 7, 101, Policy::DEFAULT), Err((Refusal::TooLarge, 7)));
}

#[test]
fn h6_so_many_requests_at_once_and_one_while_http_fails() {
    let mut config = config();
    config.route.posts = 2;
    let mut session = session(config);
    for n in 0..4 {
        let _ = send(&mut session, at(0), n);
    }
    let did = run_until(&mut session, at(2), false);
    let [first, second] = posts(&did)[..] else { panic!("{did:?}") };
    session.posted(at(3), first, HttpOutcome::Unreached(Reason::PortClosed));
    session.posted(at(3), second, HttpOutcome::Unreached(Reason::PortClosed));
    let did = run_until(&mut session, at(5), false);
    let [third] = posts(&did)[..] else { panic!("{did:?}") };
    session.posted(at(5), third, HttpOutcome::status(200));
    assert_eq!(posts(&drain(&mut session)).len(), 2);
}

#[test]
fn f0_while_a_connection_carries_nothing_is_posted() {
    let (mut session, link) = up(config());
    for n in 1..=4 {
        let _ = send(&mut session, at(0), n);
    }
    let did = drain(&mut session);
    assert_eq!((frames(&did).len(), posts(&did).len()), (4, 0));
    assert!(did.iter().all(|did| matches!(did, Did::Data(on, ..) if *on == link)));
}

#[test]
fn f1_what_was_passed_over_during_the_grace_goes_by_http_after_it() {
    let (mut session, link) = up(config());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    let _ = down(&mut session, at(10), link, Reason::Closed(1006));
    let _ = send(&mut session, at(10), 2);
    assert!(posts(&drain(&mut session)).is_empty(), "they wait");
    let did = run_until(&mut session, at(12), false);
    assert_eq!(posts(&did).iter().map(|post| post.seq.get()).collect::<Vec<_>>(), [1, 2], "{did:?}");
    assert!(did.contains(&Did::Event(Event::Path { from: Path::WebSocket, to: Path::Http })));
}

#[test]
fn f2_unanswered_asks_and_if_the_peer_is_mute_everything_moves_under_its_id() {
    let (mut session, first) = up(only_websocket());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    session.tick(at(3));
    let did = drain(&mut session);
    assert!(pings(&did) == 1 && frames(&did).is_empty(), "a question, not a copy: {did:?}");
    assert_eq!(session.state(), State::Suspect);
    // Its ten bytes have a moment to travel, too (L11).
    let did = run_until(&mut session, at(6).after(Duration::from_millis(1)), true);
    assert!(did.contains(&Did::Close(first, Ending::Drop)), "{did:?}");
    assert!(did.contains(&Did::Event(Event::Down { link: first, reason: Reason::Dead })));
    let (_, second, did) = reconnect(&mut session);
    assert!(did.contains(&Did::Data(second, Seq::FIRST, id(1), 1)), "{did:?}");
}

#[test]
fn f2_unanswered_asks_with_the_short_deadline_even_if_the_ordinary_ping_is_out() {
    let mut config = only_websocket();
    config.heartbeat.interval = SECOND;
    let (mut session, link) = up(config);
    // The ordinary ping goes out somewhere in the first second, with 45 s to be answered; a message right before.
    let when = session.deadline().unwrap();
    let _ = send(&mut session, when, 1);
    assert_eq!(pings(&drain(&mut session)), 1);
    let did = run_until(&mut session, when.after(6 * SECOND + Duration::from_millis(1)), true);
    assert!(
        did.contains(&Did::Event(Event::Down { link, reason: Reason::Dead })),
        "three to wait, three to ask: {did:?}"
    );
}

/// A receiver that is at work on the next message answers a ping after it; nothing is cut and sent again for that.
#[test]
fn f2_who_may_be_at_work_on_another_message_has_the_time_of_an_ordinary_ping() {
    let mut config = only_websocket();
    config.outbox.ack_wait = AckWait::Fixed(15 * SECOND);
    config.heartbeat.interval = Duration::ZERO;
    let (mut session, link) = up(config);
    for n in 1..=3 {
        let _ = send(&mut session, at(0), n);
    }
    // The first is never answered; of the others each takes its time, and the answer to the ping comes behind them.
    let did = run_until(&mut session, at(20), true);
    assert!(pings(&did) == 1 && session.state() == State::Suspect, "{did:?}");
    assert_eq!(session.connection(), Some(link), "{did:?}");
    let _ = session.received(at(20), link, Head::Ack { id: id(2) });
    let did = run_until(&mut session, at(34), true);
    assert_eq!((session.connection(), ends(&did)), (Some(link), vec![(2, BY_WEBSOCKET)]));
    let _ = session.received(at(34), link, Head::Ack { id: id(3) });
    let _ = session.received(at(34), link, Head::Pong);
    assert_eq!(ends(&drain(&mut session)), [(3, BY_WEBSOCKET)]);
    // And nothing at all is death, as ever.
    for n in 4..=5 {
        let _ = send(&mut session, at(34), n);
    }
    let did = run_until(&mut session, at(34 + 46), true);
    assert!(did.contains(&Did::Event(Event::Down { link, reason: Reason::Dead })), "{did:?}");
}

#[test]
fn f2_an_answered_probe_keeps_the_link_and_sends_nothing_twice() {
    let (mut session, link) = up(only_websocket());
    let _ = send(&mut session, at(0), 1);
    let did = run_until(&mut session, at(120), false);
    assert_eq!(frames(&did), [(link, 1)]);
    assert_eq!((session.connection(), session.backlog()), (Some(link), 1), "slow is not dead");
    let _ = session.received(at(120), link, Head::Ack { id: id(1) });
    assert_eq!(ends(&drain(&mut session)), [(1, BY_WEBSOCKET)]);
    let did = run_until(&mut session, at(600), false);
    assert!(!did.iter().any(|did| matches!(did, Did::Close(..))), "nothing is unanswered any more: {did:?}");
}

/// A plain peer has no word for "not now": what its application gave back is silence, and without another path it would
/// never see the message again.
#[test]
fn f2_without_http_what_stays_unanswered_goes_again_on_the_next_connection() {
    let (mut session, first) = up(only_websocket());
    let _ = send(&mut session, at(0), 1);
    let did = run_until(&mut session, at(124), false);
    assert!(did.contains(&Did::Event(Event::Down { link: first, reason: Reason::Unanswered })), "{did:?}");
    let (_, second, did) = reconnect(&mut session);
    assert_eq!(frames(&did), [(second, 1)], "the same message, under the same number");
}

/// One message each ten seconds, each acknowledged at once, as long as this connection lives; with what it did. Requests end
/// so.
fn goes_on(session: &mut Small, link: LinkId, until: u64, outcome: HttpOutcome) -> Vec<Did> {
    let mut all = Vec::new();
    while session.now() < at(until) && session.connection() == Some(link) {
        let now = session.now();
        let seq = send(session, now, 2);
        all.extend(drain(session));
        let _ = session.received(now, link, Head::Ack { id: ORIGIN.message(seq) });
        let mut did = run_until(session, now.after(10 * SECOND), false);
        for post in posts(&did) {
            session.posted(session.now(), post, outcome);
        }
        did.extend(drain(session));
        all.extend(did);
    }
    all
}

/// The path for which F2 has an exception: that there is HTTP helps nobody while it fails.
#[test]
fn f2_where_http_fails_what_stays_unanswered_goes_again_on_the_next_connection() {
    for outcome in [HttpOutcome::Unreached(Reason::PortClosed), HttpOutcome::foreign(401), HttpOutcome::foreign(200)] {
        let (mut session, first) = up(config());
        let _ = send(&mut session, at(0), 1);
        let _ = drain(&mut session);
        let did = goes_on(&mut session, first, 300, outcome);
        assert!(did.contains(&Did::Event(Event::Down { link: first, reason: Reason::Unanswered })), "{outcome:?}");
        assert!((120..=150).contains(&session.now().since(at(0)).as_secs()), "{:?}", session.now());
        let (_, second, did) = reconnect(&mut session);
        assert!(frames(&did).contains(&(second, 1)), "{did:?}");
    }
}

#[test]
fn f2_f4_what_http_calls_too_large_goes_again_on_the_next_connection_and_is_never_hedged() {
    let (mut session, first) = up(config());
    let _ = session.send(at(0), 1, 90, Policy::DEFAULT);
    let did = goes_on(&mut session, first, 10, HttpOutcome::foreign(413));
    assert_eq!((posts(&did).len(), session.stats().hedges), (1, 1));
    let _ = session.send(at(10), 1, 95, Policy::DEFAULT);
    let did = goes_on(&mut session, first, 300, HttpOutcome::foreign(413));
    assert!(did.contains(&Did::Event(Event::Down { link: first, reason: Reason::Unanswered })), "{did:?}");
    assert_eq!((posts(&did).len(), session.stats().hedges), (0, 1), "HTTP does not carry it: no hedge is spent on it");
    let (_, second, did) = reconnect(&mut session);
    assert_eq!(frames(&did).len(), 2, "both go on the next one: {second:?} {did:?}");
}

#[test]
fn f2_the_others_acknowledgements_change_nothing_for_a_stuck_message() {
    let (mut session, first) = up(only_websocket());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    let did = goes_on(&mut session, first, 300, HttpOutcome::status(200));
    assert!(did.contains(&Did::Event(Event::Down { link: first, reason: Reason::Unanswered })), "{did:?}");
}

#[test]
fn f2_a_message_that_is_never_answered_ends_connections_ever_more_rarely() {
    let (mut session, mut link) = up(only_websocket());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    let mut before = at(0);
    for lasts in [120, 240, 480, 960, 1920, 3840, 3840] {
        let _ = goes_on(&mut session, link, 100_000, HttpOutcome::status(200));
        let lasted = session.now().since(before).as_secs();
        assert!((lasts..=lasts + 20).contains(&lasted), "{lasted} instead of {lasts}");
        (before, link, _) = reconnect(&mut session);
    }
}

/// Two that are never answered, and the receiver is at work on others: no sign of a mute peer.
#[test]
fn p3_two_messages_that_are_never_answered_move_no_other() {
    let mut config = config();
    config.outbox.ack_wait = AckWait::Fixed(45 * SECOND);
    config.link.role = Role::Acceptor;
    let (mut session, link) = up(config);
    for n in 1..=3 {
        let _ = session.send(at(0), n, if n == 2 { 90 } else { 10 }, Policy::DEFAULT);
    }
    let _ = drain(&mut session);
    let _ = session.received(at(1), link, Head::Ack { id: id(3) });
    let _ = run_until(&mut session, at(44), false);
    let _ = send(&mut session, at(44), 4);
    let did = run_until(&mut session, at(60), false);
    let posted = posts(&did).iter().map(|post| post.seq.get()).collect::<Vec<_>>();
    assert_eq!((posted, session.path()), (vec![1, 2], Path::WebSocket), "both late, by HTTP besides; the fourth waits");
}

/// By HTTP alone: a message that hangs is asked for again and again, and has the failing path's only slot each time.
#[test]
fn b11_h7_a_message_that_hangs_by_http_does_not_hold_up_the_others() {
    let mut session = session(config());
    let _ = send(&mut session, at(0), 1);
    let did = run_until(&mut session, at(2), false);
    let [hangs] = posts(&did)[..] else { panic!("{did:?}") };
    session.posted(at(32), hangs, HttpOutcome::Unknown(Reason::Timeout));
    let did = run_until(&mut session, at(40), false);
    let [again] = posts(&did)[..] else { panic!("{did:?}") };
    assert_eq!(again.seq, hangs.seq);
    for n in 2..=3 {
        let _ = send(&mut session, at(41), n);
    }
    let did = drain(&mut session);
    let [second] = posts(&did)[..] else { panic!("one of them, beside the one that hangs: {did:?}") };
    session.posted(at(42), second, HttpOutcome::status(200));
    let did = drain(&mut session);
    assert_eq!((ends(&did), posts(&did).len()), (vec![(2, BY_HTTP)], 1), "the path is good: {did:?}");
}

/// A miner without HTTP, and its ping the wire's own.
fn miner() -> Config {
    let mut config = only_websocket();
    config.heartbeat = HeartbeatConfig {
        interval: 60 * SECOND,
        dead: 300 * SECOND,
        program: ProgramLife::Answers(90 * SECOND),
        ..HeartbeatConfig::DEFAULT
    };
    config
}

/// As [`run_until`], but only the peer's library answers; its program is dead. With the time at which `until_did` was done.
fn library_alone(session: &mut Small, link: LinkId, last: u64, until_did: fn(&Did) -> bool) -> Option<(u64, Vec<Did>)> {
    let first = session.now().as_micros() / 1_000_000 + 1;
    for second in first..last {
        session.tick(at(second));
        let did = drain(session);
        if did.iter().any(until_did) {
            return Some((second, did));
        }
        for head in [Head::Pong, Head::Other] {
            let _ = session.received(at(second), link, head);
        }
        let _ = drain(session);
    }
    None
}

fn closes(did: &Did) -> bool {
    matches!(did, Did::Close(..))
}

#[test]
fn l10_a_program_that_is_dead_is_closed_and_dialled_anew_after_the_close() {
    let (mut session, link) = up(miner());
    let _ = session.received(at(0), link, Head::Word { pong: true });
    let (found, did) = library_alone(&mut session, link, 1000, closes).expect("found");
    assert!(found <= 66 + 91, "{found}");
    assert_eq!(
        did,
        [Did::Close(link, Ending::Code(1000)), Did::Event(Event::State { from: State::Up, to: State::Waiting })]
    );
    // Its end comes late, and nothing is dialled before it.
    session.tick(at(found + 1));
    assert_eq!(connects(&drain(&mut session)), None);
    let did = down(&mut session, at(found + 1), link, Reason::Closed(1000));
    assert_eq!(did, [Did::Event(Event::Down { link, reason: Reason::Mute })]);
    let (when, second, _) = reconnect(&mut session);
    assert!(when > at(found + 1) && second > link);
}

#[test]
fn l10_who_does_not_close_is_dropped_and_dialled_by_the_back_off() {
    let (mut session, link) = up(miner());
    let (found, _) = library_alone(&mut session, link, 1000, closes).expect("found");
    let did = run_until(&mut session, at(found + 2), true);
    assert!(did.contains(&Did::Close(link, Ending::Drop)) && connects(&did).is_none(), "{did:?}");
    let (_, second, _) = reconnect(&mut session);
    assert!(second > link);
}

#[test]
fn l10_a_library_proves_nothing_where_the_ping_is_the_wires_own() {
    let mut config = miner();
    config.outbox.proof = Proof::Pong;
    let (mut session, link) = up(config);
    let seq = send(&mut session, at(0), 1);
    assert_eq!(drain(&mut session), [Did::Data(link, seq, id(1), 1), Did::Ping(link)]);
    let _ = session.received(at(0), link, Head::Pong);
    assert!(ends(&drain(&mut session)).is_empty());
    let _ = session.received(at(0), link, Head::Word { pong: true });
    assert_eq!(ends(&drain(&mut session)), [(1, BY_WEBSOCKET)]);
}

/// As an original hub of AI Village's that cannot write its answer: it never says another word, and closes within a minute.
#[test]
fn l12_a_message_behind_which_the_program_fell_silent_is_not_sent_again() {
    let mut config = miner();
    config.outbox.proof = Proof::Pong;
    config.outbox.ack_wait = AckWait::Fixed(3 * SECOND);
    let again = |late: bool, reason| {
        let (mut session, link) = up(config);
        let _ = send(&mut session, at(0), 1);
        let _ = drain(&mut session);
        let when = at(if late { 4 } else { 1 });
        let _ = run_until(&mut session, when, true);
        let mut did = down(&mut session, when, link, reason);
        did.extend(reconnect(&mut session).2);
        let ends = ends(&did);
        assert!(ends.is_empty() || ends == [(1, Outcome::Abandoned)], "{ends:?}");
        (ends.is_empty(), did.iter().any(|did| matches!(did, Did::Data(..))))
    };
    assert_eq!(again(true, Reason::Closed(1000)), (false, false));
    assert_eq!(again(false, Reason::Closed(1000)), (true, true), "there was no time for an answer");
    for reason in [Reason::Closed(1006), Reason::Closed(1012), Reason::Dead] {
        assert_eq!(again(true, reason), (true, true), "{reason}: that says nothing about the message");
    }
    // The program is found dead.
    let (mut session, link) = up(config);
    let _ = send(&mut session, at(0), 1);
    let (found, _) = library_alone(&mut session, link, 1000, closes).expect("found");
    let mut did = down(&mut session, at(found), link, Reason::Closed(1000));
    did.extend(reconnect(&mut session).2);
    assert!(!did.iter().any(|did| matches!(did, Did::Data(..))), "{did:?}");
    assert_eq!((session.backlog(), session.stats().abandoned), (0, 1));
    // Of several the first is to blame; the others are sent again, one at a time, whatever ended the connection.
    for mute in [true, false] {
        let (mut session, link) = up(config);
        for payload in 1..=4 {
            let _ = send(&mut session, at(0), payload);
        }
        let now = if mute {
            at(library_alone(&mut session, link, 1000, closes).expect("found").0)
        } else {
            let _ = run_until(&mut session, at(4), true);
            at(4)
        };
        let mut did = down(&mut session, now, link, Reason::Closed(1000));
        did.extend(reconnect(&mut session).2);
        let sent = did.iter().filter(|did| matches!(did, Did::Data(..))).count();
        assert_eq!((session.backlog(), session.stats().abandoned, sent), (3, 1, 1), "{did:?}");
    }
    // Where a message is acknowledged it is kept, and sent alone.
    let (mut session, link) = up(miner());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    let now = at(60);
    session.tick(now);
    let did = down(&mut session, now, link, Reason::Closed(1000));
    assert!(ends(&did).is_empty());
    assert!(reconnect(&mut session).2.iter().any(|did| matches!(did, Did::Data(..))));
}

/// How often an API node dials in an hour in which the ML node's library answers and its program says nothing.
fn dials_in_an_hour(expects: Option<bool>, data_first: bool) -> usize {
    let mut session = session(crate::GONKA_API_NODE);
    if let Some(yes) = expects {
        session.expect_data(at(0), yes);
    }
    let (mut link, mut dials) = (None, 0);
    let mut did = drain(&mut session);
    for second in 0..3600 {
        for did in core::mem::take(&mut did) {
            match did {
                Did::Connect(next) => {
                    dials += 1;
                    assert!(session.link_up(at(second), next));
                    link = Some(next);
                    if data_first && dials == 1 {
                        let _ = session.received(at(second), next, data(1));
                    }
                }
                Did::Close(closed, _) => {
                    link = None;
                    session.link_down(at(second), closed, Reason::Closed(1000), RetryHint::NONE);
                }
                _ => {}
            }
        }
        if let Some(link) = link {
            let _ = session.received(at(second), link, Head::Pong);
        }
        session.tick(at(second));
        did = drain(&mut session);
    }
    dials
}

#[test]
fn l10_an_idle_hour_costs_no_more_dials_than_the_originals() {
    // The original client: 60 s, then 3 s and up to 2 s more, whatever the ML node has to do.
    let original = 3600 / (60 + 3) + 1;
    let cases = [(None, false), (None, true), (Some(false), true), (Some(true), false)];
    let dials = cases.map(|(expects, data_first)| dials_in_an_hour(expects, data_first));
    std::println!("dials in an idle hour: {dials:?}; the original: {}", original);
    assert_eq!((dials[0], dials[2]), (1, 1), "never");
    assert!((14..=18).contains(&dials[1]), "ever less often after the last data: {}", dials[1]);
    assert!((50..=original).contains(&dials[3]), "expected in vain: {}", dials[3]);
}

#[test]
fn l10_after_stop_and_init_an_api_node_comes_back_for_its_batches() {
    let (mut session, link) = up(crate::GONKA_API_NODE);
    let _ = session.received(at(1), link, data(1));
    let _ = drain(&mut session);
    let (found, did) = library_alone(&mut session, link, 1000, closes).expect("found");
    assert_eq!((found, did[0]), (61, Did::Close(link, Ending::Code(1000))));
    let _ = down(&mut session, at(62), link, Reason::Closed(1000));
    let (when, second, _) = reconnect(&mut session);
    assert!(when >= at(65) && when <= at(67), "{when:?}");
    assert!(matches!(session.received(when, second, data(2)), Some(Arrival::Deliver { .. })));
}

#[test]
fn l10_every_stop_and_init_is_survived_and_not_the_first_alone() {
    let (mut session, mut link) = up(crate::GONKA_API_NODE);
    let mut now = 0;
    for epoch in 1..=3 {
        let _ = session.received(at(now), link, data(epoch));
        let _ = drain(&mut session);
        // The proof of compute ends, and for an hour there is nothing: each connection is made anew now and then.
        let idle = now + 3600;
        while now < idle {
            let (found, did) = library_alone(&mut session, link, now + 300, closes).expect("made anew");
            assert_eq!(did[0], Did::Close(link, Ending::Code(1000)));
            let _ = down(&mut session, at(found + 1), link, Reason::Closed(1000));
            let (when, next, _) = reconnect(&mut session);
            (now, link) = (when.as_micros() / 1_000_000 + 1, next);
        }
        // Stop and init: the connection that is idle stays open and mute, and the next one brings the batches.
        let (found, _) = library_alone(&mut session, link, now + 300, closes).expect("found");
        let _ = down(&mut session, at(found + 1), link, Reason::Closed(1000));
        let (when, next, _) = reconnect(&mut session);
        (now, link) = (when.as_micros() / 1_000_000 + 1, next);
    }
}

#[test]
fn l1_a_serial_peer_is_not_dead_while_it_works() {
    let mut config = crate::GONKA_ML_NODE;
    config.route.http = false;
    let (mut session, link) = up(config);
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    // It reads nothing, not even a ping, until its submission has returned.
    let did = run_until(&mut session, at(85), true);
    assert!(!did.iter().any(closes), "{did:?}");
    let _ = session.received(at(85), link, Head::Ack { id: id(1) });
    assert_eq!(ends(&drain(&mut session)), [(1, BY_WEBSOCKET)]);
    // With nothing to work on 45 s are its death.
    let did = run_until(&mut session, at(85 + 46), true);
    assert!(did.contains(&Did::Close(link, Ending::Drop)), "{did:?}");
}

#[test]
fn l11_many_bytes_on_a_slow_link_are_no_silence() {
    let (mut session, link) = up(only_websocket_without_limits());
    let _ = session.send(at(0), 1, 900_000, Policy::DEFAULT).unwrap();
    assert_eq!(frames(&drain(&mut session)).len(), 1);
    // At 100 kB/s it needs 9 s, and nothing can be heard before.
    session.retry_now(at(3));
    let did = run_until(&mut session, at(9), true);
    assert!(pings(&did) > 0 && !did.iter().any(closes), "{did:?}");
    let _ = session.received(at(9), link, Head::Pong);
    assert_eq!((session.state(), session.connection()), (State::Up, Some(link)));
    let _ = session.received(at(10), link, Head::Ack { id: id(1) });
    assert_eq!(ends(&drain(&mut session)), [(1, BY_WEBSOCKET)]);
}

#[test]
fn l11_no_answer_is_late_while_its_question_cannot_leave_and_bytes_move() {
    let (mut session, link) = up(only_websocket());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    session.tick(at(3));
    assert_eq!(pings(&drain(&mut session)), 1);
    for second in 4..60 {
        // Bytes move, if slowly.
        session.writable(at(second), link, true);
        session.writable(at(second), link, false);
        assert!(!drain(&mut session).iter().any(closes));
    }
    session.writable(at(60), link, true);
    let did = run_until(&mut session, at(62), true);
    assert!(!did.iter().any(closes), "{did:?}");
    let did = run_until(&mut session, at(64), true);
    assert!(did.contains(&Did::Close(link, Ending::Drop)), "{did:?}");
}

#[test]
fn l11_a_frame_that_is_still_coming_in_is_life_and_data() {
    let (mut session, link) = up(crate::GONKA_API_NODE);
    session.expect_data(at(0), true);
    for second in 0..600 {
        session.tick(at(second));
        assert!(!drain(&mut session).iter().any(closes), "{second}");
        let _ = session.received(at(second), link, Head::Part);
    }
    let (found, did) = library_alone(&mut session, link, 1000, closes).expect("found");
    assert_eq!((found, did[0]), (659, Did::Close(link, Ending::Code(1000))));
}

fn only_websocket_without_limits() -> Config {
    let mut config = only_websocket();
    (config.outbox.frame_limit, config.outbox.post_limit) = (1 << 20, 1 << 20);
    config
}

#[test]
fn l12_after_a_dead_program_messages_go_one_at_a_time() {
    let (mut session, first) = up(miner());
    for payload in 1..=4 {
        let _ = send(&mut session, at(0), payload);
    }
    assert_eq!(frames(&drain(&mut session)).len(), 4, "at once");
    let (found, _) = library_alone(&mut session, first, 1000, closes).expect("found");
    let _ = down(&mut session, at(found), first, Reason::Closed(1000));
    let (when, link, did) = reconnect(&mut session);
    assert_eq!((frames(&did), pings(&did)), (vec![(link, 1)], 1), "one, and the question behind it");
    // The library says nothing of it; the answer to the question alone is not the answer to the message.
    for head in [Head::Pong, Head::Word { pong: true }] {
        let _ = session.received(when, link, head);
        assert!(frames(&drain(&mut session)).is_empty());
    }
    let _ = session.received(when, link, Head::Ack { id: id(1) });
    let did = drain(&mut session);
    assert_eq!((frames(&did), pings(&did)), (vec![(link, 2)], 1), "the next one");
    // Its wait runs out: the program is asked first, and the next follows when that has answered.
    let did = run_until(&mut session, when.after(4 * SECOND), true);
    assert!(frames(&did).is_empty() && did.contains(&Did::Probe(link)), "both lives are asked: {did:?}");
    let _ = session.received(when.after(4 * SECOND), link, Head::Word { pong: true });
    assert_eq!(frames(&drain(&mut session)), [(link, 3)]);
    // The next connection after that one is as any other, if it did not end so.
    let _ = down(&mut session, when.after(5 * SECOND), link, Reason::Closed(1006));
    let (_, third, did) = reconnect(&mut session);
    assert_eq!(frames(&did), [(third, 2), (third, 3), (third, 4)]);
}

#[test]
fn f2_a_peer_that_is_slow_but_answers_one_after_the_other_keeps_its_connection() {
    let (mut session, link) = up(only_websocket());
    for n in 1..=100 {
        let now = session.now();
        while session.accepts().is_ok() {
            let _ = send(&mut session, now, 1);
        }
        let _ = run_until(&mut session, now.after(10 * SECOND), false);
        let _ = session.received(session.now(), link, Head::Ack { id: id(n) });
        let _ = drain(&mut session);
        assert_eq!(session.connection(), Some(link), "{n}: there is always one late, but never the same");
    }
}

#[test]
fn f3_a_slow_receiver_is_not_handed_every_message_twice() {
    let mut config = config();
    // Nothing but the hedge brings HTTP into play.
    config.route.posts = 100;
    let (mut session, link) = up(config);
    let mut now = at(0);
    for _ in 0..30 {
        let seq = send(&mut session, now, 1);
        let did = run_until(&mut session, now.after(3 * SECOND).after(Duration::from_millis(1)), false);
        now = session.now();
        for post in posts(&did) {
            session.posted(now, post, HttpOutcome::status(409).with_after(100 * SECOND));
        }
        let _ = session.received(now, link, Head::Ack { id: ORIGIN.message(seq) });
        let _ = drain(&mut session);
    }
    assert!(session.stats().hedges < 20, "{}", session.stats().hedges);
    assert_eq!(session.stats().delivered_websocket, 30);
}

#[test]
fn f4_1009_sends_the_large_one_by_http_and_blames_nobody() {
    let (mut session, link) = up(config());
    let big = session.send(at(0), 1, 90, Policy::DEFAULT).unwrap();
    let _ = send(&mut session, at(0), 2);
    let _ = drain(&mut session);
    let did = down(&mut session, at(1), link, Reason::Closed(1009));
    assert_eq!(posts(&did), [PostId { seq: big, attempt: 1 }], "at once: {did:?}");
    let (_, second, did) = reconnect(&mut session);
    assert_eq!(frames(&did), [(second, 2)]);
    session.posted(session.now(), PostId { seq: big, attempt: 1 }, HttpOutcome::status(200));
    assert_eq!(ends(&drain(&mut session)), [(1, BY_HTTP)]);
}

#[test]
fn f4_413_without_a_mark_sends_the_large_one_over_the_next_connection() {
    let mut session = session(config());
    let _ = drain(&mut session);
    let _ = session.send(at(0), 1, 90, Policy::DEFAULT).unwrap();
    session.tick(at(2));
    let [post] = posts(&drain(&mut session))[..] else { panic!("one request") };
    session.posted(at(3), post, HttpOutcome::foreign(413));
    let did = drain(&mut session);
    assert_eq!((ends(&did), posts(&did)), (vec![], vec![]));
    session.tick(at(100));
    assert_eq!(posts(&drain(&mut session)), [], "once is enough");
    let (_, link, did) = reconnect(&mut session);
    assert_eq!(frames(&did), [(link, 1)]);
    let _ = session.received(session.now(), link, Head::Ack { id: id(1) });
    assert_eq!(ends(&drain(&mut session)), [(1, BY_WEBSOCKET)]);
    // Larger than any frame: nothing is left that could carry it.
    assert_eq!(session.send(session.now(), 2, 500, Policy::DEFAULT), Err((Refusal::TooLarge, 2)));
    session.retry_now(session.now());
    let big = session.send(session.now(), 2, 500, Policy::DEFAULT).unwrap();
    let [post] = posts(&drain(&mut session))[..] else { panic!("one request") };
    assert_eq!(post.seq, big);
    session.posted(session.now(), post, HttpOutcome::foreign(413));
    assert_eq!(ends(&drain(&mut session)), [(2, Outcome::Rejected(Rejection::TooLarge))]);
}

#[test]
fn f4_1009_without_http_ends_the_large_one() {
    let (mut session, link) = up(only_websocket());
    let _ = session.send(at(0), 1, 90, Policy::DEFAULT).unwrap();
    let _ = send(&mut session, at(0), 2);
    let _ = drain(&mut session);
    let did = down(&mut session, at(1), link, Reason::Closed(1009));
    assert_eq!(ends(&did), [(1, Outcome::Rejected(Rejection::TooLarge))]);
    assert_eq!(session.backlog(), 1);
}

#[test]
fn f6_gonkas_unanswered_batch_goes_by_http_after_its_wait_under_its_id_whatever_the_budget() {
    let mut config = crate::GONKA_ML_NODE;
    config.heartbeat.interval = Duration::ZERO;
    let (mut session, link) = up(config);
    for n in 1..=20 {
        let now = session.now();
        let seq = send(&mut session, now, n);
        let wait = if n == 1 { 45 * SECOND } else { 120 * SECOND };
        let did = run_until(&mut session, now.after(wait), false);
        let [post] = posts(&did)[..] else { panic!("{n}: {did:?}") };
        assert_eq!(post.seq, seq);
        session.posted(session.now(), post, HttpOutcome::status(200));
        assert_eq!(ends(&drain(&mut session)), [(u64::from(n), BY_HTTP)]);
        // It is merely slow: the answer comes all the same.
        let _ = session.received(session.now(), link, Head::Ack { id: ORIGIN.message(seq) });
    }
    assert_eq!(session.stats().violations, 0);
}

#[test]
fn f7_both_paths_down_nothing_is_dropped_and_the_state_says_so() {
    let mut session = session(config());
    for n in 0..4 {
        let _ = send(&mut session, at(0), n);
    }
    assert_eq!(session.send(at(0), 9, 10, Policy::DEFAULT), Err((Refusal::Full, 9)));
    let mut states = BTreeSet::new();
    let mut did = drain(&mut session);
    while session.now() < at(600) {
        for did in core::mem::take(&mut did) {
            match did {
                Did::Connect(link) => session.link_down(session.now(), link, Reason::PortClosed, RetryHint::NONE),
                Did::Post(post, ..) => session.posted(session.now(), post, HttpOutcome::Unreached(Reason::PortClosed)),
                Did::Event(Event::State { to, .. }) => {
                    let _ = states.insert(format!("{to}"));
                }
                _ => {}
            }
        }
        did = drain(&mut session);
        if did.is_empty() {
            let when = session.deadline().unwrap();
            session.tick(when);
            did = drain(&mut session);
        }
    }
    assert_eq!((session.backlog(), session.state()), (4, State::Suspended));
    assert!(states.contains("suspended") && states.contains("waiting"), "{states:?}");
    assert!(session.stats().attempts < 100 && session.stats().posts < 150, "{:?}", session.stats());
}

#[test]
fn f7_a_write_that_does_not_move_ends_the_connection_after_five_seconds() {
    let (mut session, link) = up(config());
    session.writable(at(1), link, false);
    let _ = send(&mut session, at(1), 1);
    assert!(drain(&mut session).is_empty(), "nothing for a full socket");
    session.writable(at(2), link, false);
    let did = run_until(&mut session, at(6), true);
    assert!(did.contains(&Did::Event(Event::Down { link, reason: Reason::Stalled })), "{did:?}");
    let (mut moving, link) = up(config());
    for second in 1..100 {
        moving.writable(at(second), link, second % 2 == 0);
        let _ = moving.received(at(second), link, Head::Other);
        let _ = drain(&mut moving);
    }
    assert_eq!(moving.connection(), Some(link), "slowly is not never");
}

#[test]
fn p2_a_new_connection_is_asked_and_dropped_if_it_is_mute() {
    let mut config = config();
    config.route.grace = Duration::ZERO;
    let (mut session, link) = up(config);
    let _ = down(&mut session, at(100), link, Reason::Closed(1006));
    let _ = send(&mut session, at(100), 1);
    let [post] = posts(&drain(&mut session))[..] else { panic!() };
    let (now, second, did) = reconnect(&mut session);
    assert!(pings(&did) == 1 && frames(&did).is_empty(), "{did:?}");
    session.posted(now, post, HttpOutcome::status(200));
    assert_eq!(session.state(), State::Degraded);
    let did = run_until(&mut session, now.after(3 * SECOND), true);
    assert!(did.contains(&Did::Event(Event::Down { link: second, reason: Reason::Dead })), "{did:?}");
    assert_eq!(session.path(), Path::Http);
}

#[test]
fn p5_the_word_to_try_now_dials_at_once_and_asks_a_connection_that_is_up() {
    let (mut session, link) = up(config());
    session.retry_now(at(1));
    assert_eq!(pings(&drain(&mut session)), 1);
    let _ = session.received(at(1), link, Head::Pong);
    session.link_down(at(2), link, Reason::Status(426), RetryHint::after(300 * SECOND));
    assert_eq!(connects(&drain(&mut session)), None);
    session.retry_now(at(3));
    assert!(connects(&drain(&mut session)).is_some());
}

#[test]
fn p5_the_word_to_try_now_counts_while_a_mute_connection_closes() {
    let (mut session, link) = up(crate::GONKA_API_NODE);
    let _ = session.received(at(1), link, data(1));
    let _ = drain(&mut session);
    let (found, _) = library_alone(&mut session, link, 1000, closes).expect("found");
    session.retry_now(at(found));
    assert_eq!(connects(&drain(&mut session)), None, "the close is waited for");
    let _ = down(&mut session, at(found + 1), link, Reason::Closed(1000));
    let (when, ..) = reconnect(&mut session);
    assert!(when < at(found + 1).after(SECOND / 10), "and no back-off: {when:?}");
}

/// Of one that was given up and of one that goes on by HTTP after another connection has taken its place.
#[test]
fn p5_the_word_to_try_now_revives_both_paths_also_after_a_failure() {
    for (reason, ends) in [(Reason::Status(401), State::Failed), (Reason::Closed(4003), State::Waiting)] {
        let mut config = config();
        config.link.give_up = GiveUp::Refusals(1);
        let (mut session, link) = up(config);
        let _ = down(&mut session, at(1), link, reason);
        assert_eq!(session.state(), ends);
        if ends == State::Waiting {
            // HTTP is refused as well, and waits.
            let _ = send(&mut session, at(1), 1);
            let did = run_until(&mut session, at(4), false);
            let [post] = posts(&did)[..] else { panic!("{did:?}") };
            session.posted(at(4), post, HttpOutcome::status(401));
            assert!(posts(&drain(&mut session)).is_empty());
        }
        session.retry_now(at(4));
        let did = drain(&mut session);
        assert!(connects(&did).is_some(), "{did:?}");
        assert_eq!(posts(&did).len(), session.backlog(), "{did:?}");
        for path in [Path::WebSocket, Path::Http] {
            let status = session.path_status(path);
            assert_eq!((status.blocked_since, status.next_attempt), (None, None), "{path}");
        }
    }
}

#[test]
fn b10_a_path_that_was_given_up_is_the_end_of_the_session_even_if_http_carries() {
    let mut config = config();
    config.link.give_up = GiveUp::After(30 * SECOND);
    let mut session = session(config);
    let first = connects(&drain(&mut session)).unwrap();
    let _ = send(&mut session, at(0), 1);
    let mut did = down(&mut session, at(0), first, Reason::Status(403));
    let mut blocked = Some(at(0));
    while session.state() != State::Failed {
        let when = session.deadline().unwrap();
        session.tick(when);
        let now = drain(&mut session);
        blocked = session.path_status(Path::WebSocket).blocked_since;
        for post in posts(&now) {
            session.posted(when, post, HttpOutcome::status(404));
        }
        if let Some(link) = connects(&now) {
            session.link_down(when, link, Reason::Status(403), RetryHint::NONE);
        }
        did.extend(now);
        did.extend(drain(&mut session));
    }
    assert_eq!((session.now(), blocked), (at(30), Some(at(0))));
    assert!(posts(&did).len() > 1, "HTTP carries, and is answered by the peer");
    assert_eq!(ends(&did), [(1, Outcome::Abandoned)]);
    assert_eq!(session.path_status(Path::WebSocket).reason, Some(Reason::Status(403)));
}

#[test]
fn p6_a_change_of_path_in_the_middle_neither_loses_nor_doubles() {
    let mut config = config();
    config.route.grace = Duration::ZERO;
    let (mut session, first) = up(config);
    for n in 1..=3 {
        let _ = send(&mut session, at(0), n);
    }
    assert_eq!(frames(&drain(&mut session)).len(), 3);
    let _ = session.received(at(1), first, Head::Ack { id: id(2) });
    let did = down(&mut session, at(1), first, Reason::Closed(1006));
    let [one, three] = posts(&did)[..] else { panic!("{did:?}") };
    assert_eq!((one.seq.get(), three.seq.get()), (1, 3));
    // It comes back while both requests are under way: they are not sent as frames besides.
    let (now, second, did) = reconnect(&mut session);
    assert!(frames(&did).is_empty(), "{did:?}");
    session.posted(now, one, HttpOutcome::status(200));
    session.posted(now, three, HttpOutcome::Unknown(Reason::Timeout));
    let mut did = run_until(&mut session, now.after(15 * SECOND), false);
    assert_eq!(session.path(), Path::WebSocket);
    assert_eq!(frames(&did), [(second, 3)], "the one of which nothing is known");
    let _ = session.received(session.now(), second, Head::Ack { id: id(3) });
    let _ = session.received(session.now(), second, Head::Ack { id: id(1) });
    did.extend(drain(&mut session));
    assert_eq!(ends(&did), [(1, BY_HTTP), (3, BY_WEBSOCKET)]);
    assert_eq!(session.stats().violations, 0);
}

#[test]
fn b3_a_server_that_accepts_and_closes_is_dialled_less_and_less() {
    let (mut session, mut link) = up(config());
    let mut now = at(0);
    while now < at(600) {
        let _ = down(&mut session, now, link, Reason::Closed(1006));
        (now, link, _) = reconnect(&mut session);
    }
    assert!(session.stats().attempts < 60, "{} in ten minutes", session.stats().attempts);
}

#[test]
fn b7_a_dial_that_hangs_is_given_up_and_its_late_success_dropped() {
    let mut session = session(only_websocket());
    let hung = connects(&drain(&mut session)).unwrap();
    let did = run_until(&mut session, at(10), false);
    assert!(did.contains(&Did::Close(hung, Ending::Drop)), "{did:?}");
    assert!(!session.link_up(at(10), hung));
}

#[test]
fn l1_a_mute_peer_is_found_by_the_sessions_own_deadlines() {
    let (mut session, link) = up(config());
    let did = run_until(&mut session, at(46), true);
    assert!(did.contains(&Did::Event(Event::Down { link, reason: Reason::Dead })), "{did:?}");
    let (mut session, link) = up(config());
    let _ = run_until(&mut session, at(3600), false);
    assert_eq!(session.connection(), Some(link), "one that answers is kept");
}

#[test]
fn l2_nothing_before_the_greeting_is_life_or_a_message() {
    let mut config = only_websocket();
    config.link.ready = crate::Ready::Hello;
    let mut session = session(config);
    let link = connects(&drain(&mut session)).unwrap();
    assert!(session.link_up(at(1), link));
    for head in [data(1), Head::Pong, Head::Ack { id: id(1) }, Head::Malformed] {
        assert_eq!(session.handle(at(1), Input::Received { link, head }), Reply::Stale);
    }
    assert_eq!(session.state(), State::Handshaking);
    let _ = session.received(at(2), link, Head::Hello);
    assert_eq!(session.state(), State::Up);
    assert!(matches!(session.received(at(2), link, data(1)), Some(Arrival::Deliver { .. })));
}

#[test]
fn l2_sixteen_frames_that_are_not_understood_end_the_connection() {
    let (mut session, link) = up(config());
    for n in 1..=16 {
        assert_eq!(session.state(), State::Up, "{n}");
        let _ = session.received(at(1), link, Head::Malformed);
    }
    assert!(drain(&mut session).contains(&Did::Close(link, Ending::Code(1002))));
}

#[test]
fn l3_a_ping_is_answered_by_anything_at_all() {
    for head in [Head::Pong, Head::Other, Head::Hello, Head::Malformed, data(1), Head::Ack { id: foreign(1) }] {
        let (mut session, link) = up(config());
        session.retry_now(at(1));
        assert_eq!(drain(&mut session), [Did::Ping(link)]);
        let _ = session.received(at(2), link, head);
        let _ = run_until(&mut session, at(5), true);
        assert_eq!(session.connection(), Some(link), "{head:?}");
    }
}

#[test]
fn l4_gonkas_idle_connection_carries_a_data_frame_every_25_s() {
    let (mut session, link) = up(crate::GONKA_ML_NODE);
    let did = run_until(&mut session, at(251), false);
    assert_eq!(did.iter().filter(|did| **did == Did::Keepalive(link)).count(), 10);
}

#[test]
fn l5_after_a_gap_the_peer_is_asked_before_anything_is_concluded() {
    let (mut session, link) = up(config());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    session.tick(at(3600));
    let did = drain(&mut session);
    assert_eq!(did, [Did::Ping(link)], "no verdict, no hedge, one question");
    assert_eq!((session.stats().stalls, session.state()), (1, State::Up));
    let _ = session.received(at(3601), link, Head::Ack { id: id(1) });
    assert_eq!(ends(&drain(&mut session)), [(1, BY_WEBSOCKET)]);
    session.tick(at(7200));
    let _ = drain(&mut session);
    let did = run_until(&mut session, at(7203), true);
    assert!(did.contains(&Did::Event(Event::Down { link, reason: Reason::Dead })), "but soon: {did:?}");
}

#[test]
fn l5_a_ping_that_was_out_when_the_gap_came_condemns_nobody() {
    let (mut session, link) = up(config());
    session.retry_now(at(1));
    assert_eq!(drain(&mut session), [Did::Ping(link)]);
    session.tick(at(3600));
    assert_eq!(drain(&mut session), [Did::Ping(link)], "asked anew");
    assert_eq!(session.connection(), Some(link));
}

/// Connected and greeted, everything drained.
fn greeted(config: Config) -> (Small, LinkId) {
    let mut session = session(config);
    let link = connects(&drain(&mut session)).unwrap();
    let _ = session.link_up(at(0), link);
    let _ = session.received(at(0), link, Head::Hello);
    let _ = drain(&mut session);
    (session, link)
}

#[test]
fn l14_whoever_stood_still_asks_at_once_and_finds_a_peer_that_is_gone() {
    for profile in [crate::BETTENSOR_MINER, crate::VILLAGE_VIEWER, crate::GONKA_API_NODE, config()] {
        // Its clock stood still, too: nothing is late, and by the heartbeat alone it would take minutes.
        let (mut session, link) = greeted(profile);
        session.stood_still(at(1), 600 * SECOND);
        let asked = drain(&mut session);
        assert!(asked.iter().any(|did| matches!(did, Did::Ping(to) | Did::Probe(to) if *to == link)), "{asked:?}");
        let did = run_until(&mut session, at(4), true);
        assert!(did.contains(&Did::Event(Event::Down { link, reason: Reason::Dead })), "{did:?}");
        // One that is there answers, and nothing else follows.
        let (mut session, link) = greeted(profile);
        session.stood_still(at(1), 600 * SECOND);
        let _ = drain(&mut session);
        let _ = session.received(at(2), link, Head::Pong);
        let did = run_until(&mut session, at(10), true);
        assert_eq!(session.connection(), Some(link), "{did:?}");
    }
}

#[test]
fn l14_a_standstill_is_one_gap_whoever_notices_it() {
    let (mut session, link) = up(config());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    // Its own deadlines have passed as well.
    session.stood_still(at(3600), Duration::ZERO);
    assert_eq!(session.stats().stalls, 1);
    assert_eq!(drain(&mut session), [Did::Ping(link)], "no verdict, no hedge, one question");
    // And none that it could notice has.
    let _ = session.received(at(3600), link, Head::Ack { id: id(1) });
    let _ = drain(&mut session);
    session.stood_still(at(3601), Duration::ZERO);
    assert_eq!(session.stats().stalls, 2);
    // Whose clock jumps all the time is not asleep: a peer that is gone is found all the same.
    for second in 3602..3700 {
        session.stood_still(at(second), Duration::ZERO);
        let _ = drain(&mut session);
    }
    assert_ne!(session.connection(), Some(link));
}

#[test]
fn l14_a_waiting_attempt_is_made_earlier_by_what_was_missed_but_not_at_once_by_all() {
    let mut at_once = BTreeSet::new();
    for seed in 0..50 {
        let mut session = Small::inline(only_websocket().check().unwrap(), seed, ORIGIN, at(0));
        session.start(at(0));
        let link = connects(&drain(&mut session)).unwrap();
        let hint = RetryHint { after: 300 * SECOND, window: Duration::ZERO };
        session.link_down(at(0), link, Reason::Status(503), hint);
        let _ = drain(&mut session);
        let due = session.path_status(Path::WebSocket).next_attempt.unwrap();
        assert!(due >= at(300), "as the server said");
        session.stood_still(at(1), 100 * SECOND);
        let moved = session.path_status(Path::WebSocket).next_attempt.unwrap();
        assert_eq!(due.since(moved), 100 * SECOND);
        session.stood_still(at(2), Duration::ZERO);
        assert_eq!(session.path_status(Path::WebSocket).next_attempt, Some(moved), "it missed nothing");
        session.stood_still(at(3), 86_400 * SECOND);
        let soon = session.path_status(Path::WebSocket).next_attempt.unwrap();
        assert!(soon > at(3) && soon <= at(3).after(Duration::from_millis(1100)), "{soon:?}");
        at_once.insert(soon);
    }
    assert!(at_once.len() > 40, "not all in the same moment");
}

#[test]
fn l5_a_gap_ends_neither_a_drain_nor_the_grace_before_http() {
    let (mut closing, link) = up(config());
    let _ = send(&mut closing, at(0), 1);
    closing.close(at(0), 10 * SECOND);
    let _ = drain(&mut closing);
    closing.tick(at(3600));
    assert!(ends(&drain(&mut closing)).is_empty(), "the answer may lie unread");
    let _ = closing.received(at(3601), link, Head::Ack { id: id(1) });
    assert_eq!(ends(&drain(&mut closing)), [(1, BY_WEBSOCKET)]);
    let (mut waiting, link) = up(config());
    let _ = down(&mut waiting, at(1), link, Reason::Closed(1006));
    waiting.tick(at(3600));
    let _ = drain(&mut waiting);
    assert_eq!(waiting.path(), Path::WebSocket);
}

#[test]
fn l5_a_gap_does_not_use_up_the_patience_with_an_unanswered_message() {
    let (mut session, link) = up(only_websocket());
    let _ = send(&mut session, at(0), 1);
    let _ = run_until(&mut session, at(60), false);
    session.tick(at(3600));
    let _ = drain(&mut session);
    assert_eq!(session.connection(), Some(link), "the answer may lie unread");
    let _ = session.received(at(3601), link, Head::Ack { id: id(1) });
    assert_eq!(ends(&drain(&mut session)), [(1, BY_WEBSOCKET)]);
}

#[test]
fn l5_a_driver_that_is_late_every_time_still_finds_the_dead_and_ends_a_close() {
    let (mut session, link) = up(only_websocket());
    let mut now = at(0);
    let mut dead = false;
    for _ in 0..20 {
        now = now.after(60 * SECOND);
        session.tick(now);
        dead |= drain(&mut session).contains(&Did::Event(Event::Down { link, reason: Reason::Dead }));
    }
    assert!(dead, "late is not asleep");
    let (mut session, _) = up(only_websocket());
    let _ = send(&mut session, at(0), 1);
    session.close(at(0), 30 * SECOND);
    let _ = drain(&mut session);
    let mut now = at(0);
    for _ in 0..10 {
        now = now.after(100 * SECOND);
        session.tick(now);
        let _ = drain(&mut session);
    }
    assert_eq!((session.state(), session.deadline()), (State::Closed, None));
}

#[test]
fn l6_an_earlier_time_is_taken_as_the_latest_and_counted() {
    let (mut session, link) = up(config());
    session.tick(at(5));
    let _ = session.received(at(1), link, Head::Other);
    session.tick(at(4));
    assert_eq!((session.now(), session.stats().clock_backwards), (at(5), 2));
    let _ = drain(&mut session);
}

#[test]
fn l8_a_close_with_nothing_to_do_is_a_close_frame_at_once() {
    let (mut session, link) = up(config());
    session.close(at(1), 30 * SECOND);
    let did = drain(&mut session);
    assert!(did.contains(&Did::Close(link, Ending::Code(1000))), "{did:?}");
    let did = down(&mut session, at(1), link, Reason::Closed(1000));
    assert!(did.contains(&Did::Event(Event::Down { link, reason: Reason::Ours })), "{did:?}");
    assert_eq!((session.state(), session.deadline()), (State::Closed, None));
}

#[test]
fn l8_a_close_finishes_what_is_under_way_and_takes_nothing_new() {
    let (mut session, link) = up(config());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    session.close(at(1), 30 * SECOND);
    assert_eq!(session.send(at(1), 2, 10, Policy::DEFAULT), Err((Refusal::Closed, 2)));
    assert!(!drain(&mut session).contains(&Did::Close(link, Ending::Code(1000))));
    assert_eq!(session.state(), State::Closing);
    let _ = session.received(at(2), link, Head::Ack { id: id(1) });
    let did = drain(&mut session);
    assert_eq!(ends(&did), [(1, BY_WEBSOCKET)]);
    assert!(did.contains(&Did::Close(link, Ending::Code(1000))), "at once: {did:?}");
}

#[test]
fn l8_a_close_ends_as_soon_as_the_last_words_have_left_not_when_its_time_is_over() {
    for by_frame in [true, false] {
        let (mut session, link) = up(config());
        if !by_frame {
            let _ = down(&mut session, at(0), link, Reason::Closed(1006));
        }
        let arrival = if by_frame {
            session.received(at(0), link, data(7)).unwrap()
        } else {
            session.request(at(0), RequestId(7), Some(foreign(7)), None)
        };
        let Arrival::Deliver { delivery, .. } = arrival else { panic!() };
        session.close(at(0), 60 * SECOND);
        let _ = drain(&mut session);
        assert!(session.complete(at(1), delivery, Verdict::Done));
        let did = run_until(&mut session, at(4), false);
        let word = if by_frame { Did::Ack(link, 7) } else { Did::Respond(7, Answer::Done) };
        assert!(did.contains(&word), "{did:?}");
        assert_eq!((session.state(), session.deadline()), (State::Closed, None));
    }
}

#[test]
fn l8_the_drain_is_bounded_and_what_is_unfinished_is_abandoned() {
    for mut config in [config(), only_websocket(), crate::GONKA_ML_NODE, crate::GONKA_API_NODE] {
        config.heartbeat.interval = Duration::ZERO;
        let (mut session, link) = up(config);
        let _ = send(&mut session, at(0), 1);
        assert!(matches!(session.received(at(0), link, data(7)), Some(Arrival::Deliver { .. })), "and never completed");
        let _ = session.request(at(0), RequestId(1), Some(foreign(7)), None);
        session.close(at(0), 2 * SECOND);
        let did = run_until(&mut session, at(4), true);
        assert_eq!(ends(&did), [(1, Outcome::Abandoned)]);
        assert!(did.contains(&Did::Respond(1, Answer::Again { after: SECOND })), "{did:?}");
        assert_eq!((session.state(), session.deadline()), (State::Closed, None));
        let quiet = run_until(&mut session, at(9999), false);
        assert!(quiet.is_empty(), "closed is quiet: {quiet:?}");
        assert!(matches!(
            session.request(at(9999), RequestId(2), Some(foreign(7)), None),
            Arrival::Answer(Answer::Busy { .. })
        ));
        let _ = drain(&mut session);
        assert_eq!(session.deadline(), None);
    }
}

#[test]
fn l8_a_connection_that_dies_during_our_close_is_not_dialled_again() {
    let mut config = config();
    config.heartbeat.probe = SECOND;
    let (mut session, link) = up(config);
    session.retry_now(at(0));
    assert_eq!(pings(&drain(&mut session)), 1);
    let Some(Arrival::Deliver { .. }) = session.received(at(0), link, data(1)) else { panic!() };
    session.retry_now(at(0));
    let _ = drain(&mut session);
    session.close(at(0), Duration::ZERO);
    let did = run_until(&mut session, at(100), true);
    assert_eq!(connects(&did), None, "{did:?}");
    assert_eq!(session.state(), State::Closed);
}

#[test]
fn l8_the_result_of_a_request_that_comes_after_the_end_moves_nothing() {
    let (mut session, link) = up(config());
    let _ = session.send(at(0), 1, 101, Policy::DEFAULT).unwrap();
    let [post] = posts(&drain(&mut session))[..] else { panic!() };
    session.close(at(0), Duration::ZERO);
    let _ = drain(&mut session);
    let _ = down(&mut session, at(1), link, Reason::Closed(1000));
    session.posted(at(2), post, HttpOutcome::status(302));
    assert_eq!(drain(&mut session), []);
    assert_eq!((session.state(), session.deadline()), (State::Closed, None));
}

#[test]
fn l8_messages_of_a_session_that_is_closing_go_by_http_if_the_connection_is_lost() {
    let (mut session, link) = up(config());
    let _ = send(&mut session, at(0), 1);
    let _ = drain(&mut session);
    session.close(at(0), 30 * SECOND);
    let _ = down(&mut session, at(1), link, Reason::Closed(1006));
    let did = run_until(&mut session, at(3), false);
    let [post] = posts(&did)[..] else { panic!("{did:?}") };
    session.posted(at(4), post, HttpOutcome::status(200));
    let did = drain(&mut session);
    assert_eq!((ends(&did), session.state()), (vec![(1, BY_HTTP)], State::Closed));
    assert_eq!(session.deadline(), None);
}

#[test]
fn g3_events_are_differences_and_say_each_thing_once() {
    let mut session = session(only_websocket());
    let first = connects(&drain(&mut session)).unwrap();
    let _ = session.link_up(at(0), first);
    session.link_down(at(0), first, Reason::Closed(1006), RetryHint::NONE);
    let did = drain(&mut session);
    let state = Did::Event(Event::State { from: State::Connecting, to: State::Waiting });
    assert_eq!(did, [Did::Event(Event::Down { link: first, reason: Reason::Closed(1006) }), state]);
    session.tick(at(0));
    assert!(drain(&mut session).is_empty());
}

#[test]
fn g1_a_message_tied_to_its_connection_ends_with_the_next_one() {
    let (mut session, link) = up(only_websocket());
    let tied = Policy { on_new_link: OnNewLink::Drop, ..Policy::DEFAULT };
    let _ = session.send(at(0), 1, 10, tied).unwrap();
    let _ = drain(&mut session);
    let _ = down(&mut session, at(0), link, Reason::Closed(1006));
    let (_, _, did) = reconnect(&mut session);
    assert_eq!((ends(&did), frames(&did)), (vec![(1, Outcome::Abandoned)], vec![]));
}

#[test]
fn a_session_is_a_value() {
    fn value<T: Clone + Eq + core::hash::Hash + fmt::Debug + Send + Sync + 'static>(_: &T) {}
    let (one, _) = up(config());
    let two = one.clone();
    value(&one);
    let hash = |session: &Small| {
        let mut hasher = DefaultHasher::new();
        core::hash::Hash::hash(session, &mut hasher);
        hasher.finish()
    };
    assert_eq!((&one, hash(&one)), (&two, hash(&two)));
    let mut other = one.clone();
    let _ = send(&mut other, at(0), 1);
    assert_ne!(one, other);
}

#[test]
fn a_session_prints_readably() {
    let (mut session, link) = up(config());
    let empty = format!("{session:?}");
    assert!(!empty.contains("None, None"), "{empty}");
    assert!(empty.len() < 4500, "{}: {empty}", empty.len());
    let _ = send(&mut session, at(0), 424_242);
    let _ = session.received(at(0), link, data(7));
    let text = format!("{session:?}");
    assert!(text.contains("payload: 424242") && text.contains("Held"), "{text}");
    assert_eq!(format!("{:?}", foreign(7)), "00000000-0000-0000-0000-000000000007");
}

#[test]
#[cfg(target_pointer_width = "64")]
fn sizes_stay_what_they_are() {
    assert!(size_of::<InlineSession<u32, 8>>() <= 12_960, "{}", size_of::<InlineSession<u32, 8>>());
    assert!(size_of::<Slot<u32>>() <= 160, "{}", size_of::<Slot<u32>>());
    assert!(size_of::<Seen>() <= 144, "{}", size_of::<Seen>());
    assert!(size_of::<Output<'_, u32>>() <= 80, "{}", size_of::<Output<'_, u32>>());
    assert!(size_of::<Input<u32>>() <= 136, "{}", size_of::<Input<u32>>());
    assert!(size_of::<Reply<u32>>() <= 24, "{}", size_of::<Reply<u32>>());
}

#[derive(Clone, Debug)]
enum Do {
    Start,
    Accept,
    LinkUp,
    LinkDown(Reason),
    StaleDown,
    Data(u128),
    Ack(u64),
    Head(Head),
    Writable(bool),
    Posted(usize, u8),
    Request(u128),
    Gone(u64),
    Send { size: u32, life: bool },
    Complete(usize, u8),
    Network,
    Wait(u64),
    Sleep,
    Drain,
}

fn reason() -> impl Strategy<Value = Reason> {
    proptest::sample::select(vec![
        Reason::Closed(1006),
        Reason::Closed(1006),
        Reason::Closed(1008),
        Reason::Closed(1009),
        Reason::Closed(1010),
        Reason::Status(426),
        Reason::PortClosed,
        Reason::Ours,
    ])
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        1 => Just(Do::Start),
        1 => Just(Do::Accept),
        8 => Just(Do::LinkUp),
        2 => reason().prop_map(Do::LinkDown),
        1 => Just(Do::StaleDown),
        4 => (0..5_u128).prop_map(Do::Data),
        6 => (0..5_u64).prop_map(Do::Ack),
        3 => proptest::sample::select(vec![Head::Pong, Head::Hello, Head::Other, Head::Malformed]).prop_map(Do::Head),
        2 => proptest::bool::weighted(0.7).prop_map(Do::Writable),
        6 => (0..6_usize, 0..8_u8).prop_map(|(which, outcome)| Do::Posted(which, outcome)),
        3 => (0..5_u128).prop_map(Do::Request),
        1 => (0..20_u64).prop_map(Do::Gone),
        6 => (0..150_u32, proptest::bool::weighted(0.2)).prop_map(|(size, life)| Do::Send { size, life }),
        5 => (0..6_usize, 0..4_u8).prop_map(|(which, verdict)| Do::Complete(which, verdict)),
        1 => Just(Do::Network),
        6 => (1..4000_u64).prop_map(Do::Wait),
        6 => Just(Do::Sleep),
        10 => Just(Do::Drain),
    ]
}

fn outcome(n: u8) -> HttpOutcome {
    match n {
        0 => HttpOutcome::status(200),
        1 => HttpOutcome::status(409).with_after(SECOND),
        2 => HttpOutcome::status(413),
        3 => HttpOutcome::status(503).with_after(2 * SECOND),
        4 => HttpOutcome::status(401),
        5 => HttpOutcome::status(302),
        6 => HttpOutcome::Unreached(Reason::PortClosed),
        _ => HttpOutcome::Unknown(Reason::Timeout),
    }
}

/// Plays a script, keeps the books, and returns all that was done and the end of every message.
struct Play {
    session: Small,
    now: Instant,
    all: Vec<Did>,
    links: Vec<LinkId>,
    asked: Vec<PostId>,
    outstanding: BTreeSet<PostId>,
    open: Vec<DeliveryId>,
    requests: u64,
    accepted: u64,
    ended: BTreeMap<u64, Outcome>,
    framed: BTreeSet<(LinkId, u64)>,
}

impl Play {
    fn new(config: Config) -> Self {
        Self {
            session: Small::inline(config.check().unwrap(), 1, ORIGIN, at(0)),
            now: at(0),
            all: Vec::new(),
            links: Vec::new(),
            asked: Vec::new(),
            outstanding: BTreeSet::new(),
            open: Vec::new(),
            requests: 0,
            accepted: 0,
            ended: BTreeMap::new(),
            framed: BTreeSet::new(),
        }
    }

    fn drain(&mut self) {
        for did in drain(&mut self.session) {
            match did {
                Did::Connect(link) => self.links.push(link),
                Did::Data(link, seq, id, _) => {
                    assert_eq!(id, ORIGIN.message(seq), "I1");
                    assert_eq!(Some(link), self.session.connection(), "a frame for another connection");
                    assert!(self.framed.insert((link, seq.get())), "F2: {seq} twice on {link}");
                    assert!(!self.ended.contains_key(&seq.get()), "{seq} has ended");
                    assert!(!self.outstanding.iter().any(|post| post.seq == seq), "{seq} is being posted");
                }
                Did::Post(post, id, ..) => {
                    assert_eq!(id, ORIGIN.message(post.seq), "I1");
                    assert!(!self.ended.contains_key(&post.seq.get()));
                    assert!(self.outstanding.insert(post));
                    assert!(self.outstanding.len() <= 4, "H6: {:?}", self.outstanding);
                    self.asked.push(post);
                }
                Did::Event(Event::Settled { seq, outcome, .. }) => {
                    assert!(self.ended.insert(seq.get(), outcome).is_none(), "G1: {seq} ended twice");
                }
                _ => {}
            }
            self.all.push(did);
        }
        let stats = self.session.stats();
        let ends = [stats.delivered_websocket, stats.delivered_http, stats.rejected, stats.expired, stats.abandoned];
        assert_eq!(stats.accepted, self.accepted);
        assert_eq!(ends.iter().sum::<u64>(), self.ended.len() as u64);
        assert_eq!(stats.accepted, self.ended.len() as u64 + self.session.backlog() as u64, "G1");
    }

    fn step(&mut self, step: &Do) {
        let (session, now) = (&mut self.session, self.now);
        let link = session.connection().or(self.links.last().copied()).unwrap_or(LinkId::NONE);
        match *step {
            Do::Start => session.start(now),
            Do::Accept => {
                let _ = session.accept(now);
            }
            Do::LinkUp => {
                let _ = session.link_up(now, link);
            }
            Do::LinkDown(reason) => session.link_down(now, link, reason, RetryHint::NONE),
            Do::StaleDown => {
                let stale = LinkId::from_number(link.get().saturating_sub(1));
                session.link_down(now, stale, Reason::Closed(1010), RetryHint::NONE);
            }
            Do::Data(n) => {
                if let Some(Arrival::Deliver { delivery, .. }) = session.received(now, link, data(n)) {
                    self.open.push(delivery);
                }
            }
            Do::Ack(back) => {
                let id = id(self.accepted.saturating_sub(back) + 1);
                let _ = session.received(now, link, Head::Ack { id });
            }
            Do::Head(head) => {
                let _ = session.received(now, link, head);
            }
            Do::Writable(yes) => session.writable(now, link, yes),
            Do::Posted(which, n) => {
                if let Some(post) = self.asked.get(which).copied() {
                    self.outstanding.remove(&post);
                    self.asked.remove(which);
                    session.posted(now, post, outcome(n));
                }
            }
            Do::Request(n) => {
                self.requests += 1;
                let arrival = session.request(now, RequestId(self.requests), Some(foreign(n)), None);
                if let Arrival::Deliver { delivery, .. } = arrival {
                    self.open.push(delivery);
                }
            }
            Do::Gone(n) => session.request_gone(now, RequestId(n)),
            Do::Send { size, life } => {
                let policy = Policy { life: life.then_some(8 * SECOND), ..Policy::DEFAULT };
                self.accepted += u64::from(session.send(now, 0, size, policy).is_ok());
            }
            Do::Complete(which, n) => {
                if which < self.open.len() {
                    let verdict = match n {
                        0 => Verdict::Retry { after: SECOND },
                        1 => Verdict::Reject,
                        _ => Verdict::Done,
                    };
                    assert!(session.complete(now, self.open.remove(which), verdict));
                }
            }
            Do::Network => session.retry_now(now),
            Do::Wait(millis) => {
                self.now = now.after(Duration::from_millis(millis));
                session.tick(self.now);
            }
            Do::Sleep => {
                self.now = now.max(session.deadline().unwrap_or(now));
                session.tick(self.now);
            }
            Do::Drain => self.drain(),
        }
    }
}

fn configs() -> impl Strategy<Value = Config> {
    (any::<bool>(), any::<bool>(), any::<bool>(), 0..3_u8).prop_map(|(http, acceptor, greets, base)| {
        let mut config = match base {
            0 => crate::GONKA_ML_NODE,
            1 => crate::GONKA_API_NODE,
            _ => Config::DEFAULT,
        };
        config.outbox.frame_limit = 100;
        config.outbox.post_limit = 120;
        config.route.http = http;
        config.link.role = if acceptor { crate::Role::Acceptor } else { crate::Role::Dialer };
        config.link.ready = if greets { crate::Ready::Hello } else { crate::Ready::Open };
        config.heartbeat.keepalive = if greets { 7 * SECOND } else { Duration::ZERO };
        config
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// G1, F2, H6, I1, L8, T4 and the surface's rules 1 to 6, over any inputs in any order.
    #[test]
    fn l8_after_any_inputs_a_close_ends_in_time_with_every_message_ended(
        config in configs(),
        steps in proptest::collection::vec(step(), 1..120),
        patience in 0..20_u64,
    ) {
        let mut play = Play::new(config);
        play.session.start(at(0));
        for step in &steps {
            play.step(step);
        }
        play.drain();
        play.session.close(play.now, Duration::from_secs(patience));
        play.drain();
        // The drain and the close handshake, which has three seconds if it stood still meanwhile (L5).
        let limit = play.now.after(Duration::from_secs(patience + 3));
        while let Some(when) = play.session.deadline().filter(|when| *when <= limit) {
            prop_assert!(when > play.session.now());
            play.session.tick(when);
            play.drain();
        }
        prop_assert_eq!(play.session.state(), State::Closed);
        prop_assert_eq!(play.session.deadline(), None, "G9");
        prop_assert_eq!(play.ended.len() as u64, play.accepted, "G1");
        prop_assert_eq!(play.session.backlog(), 0);
        // What was still outside comes back; nobody minds.
        let now = play.session.now();
        play.session.retry_now(now);
        for post in core::mem::take(&mut play.outstanding) {
            play.session.posted(now, post, HttpOutcome::Unreached(Reason::PortClosed));
        }
        for delivery in core::mem::take(&mut play.open) {
            let _ = play.session.complete(now, delivery, Verdict::Done);
        }
        play.drain();
        prop_assert_eq!(play.session.deadline(), None, "closed, and something would still happen");
    }

    /// G8: the list of inputs is the execution.
    #[test]
    fn b9_equal_seeds_and_inputs_give_equal_outputs_and_states(
        config in configs(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let (mut one, mut two) = (Play::new(config), Play::new(config));
        for step in &steps {
            one.step(step);
            two.step(step);
        }
        one.drain();
        two.drain();
        prop_assert_eq!(one.all, two.all);
        prop_assert_eq!(one.session, two.session);
    }

    /// F1, F7, P6: with either path working, every message is delivered.
    #[test]
    fn p6_if_a_path_works_in_the_end_every_message_gets_through(
        steps in proptest::collection::vec(step(), 1..100),
        websocket in any::<bool>(),
    ) {
        let mut config = config();
        config.link.backoff = BackoffConfig::range(SECOND, 2 * SECOND);
        config.route.backoff = BackoffConfig::range(SECOND, 2 * SECOND);
        config.route.blocked = 2 * SECOND;
        config.link.blocked = SECOND;
        let mut play = Play::new(config);
        play.session.start(at(0));
        // Not what only HTTP could carry.
        let large = |step: &&Do| matches!(step, Do::Send { size: 101.., .. } | Do::LinkDown(Reason::Closed(1009)));
        for step in steps.iter().filter(|step| !large(step)) {
            play.step(step);
        }
        play.drain();
        // From here on the world is friendly, on one of the paths.
        let end = play.now.after(2000 * SECOND);
        let mut next = 0;
        let mut outstanding = core::mem::take(&mut play.asked);
        while play.session.now() < end && play.session.backlog() > 0 {
            let now = play.session.now();
            for post in outstanding.drain(..) {
                play.outstanding.remove(&post);
                let said = if websocket { HttpOutcome::Unreached(Reason::PortClosed) } else { HttpOutcome::status(200) };
                play.session.posted(now, post, said);
            }
            if let Some(link) = play.session.connection() {
                play.session.writable(now, link, true);
            }
            while next < play.all.len() {
                match play.all[next] {
                    Did::Connect(link) if websocket => {
                        let _ = play.session.link_up(now, link);
                    }
                    Did::Connect(link) => play.session.link_down(now, link, Reason::PortClosed, RetryHint::NONE),
                    Did::Data(link, _, id, _) if websocket => {
                        let _ = play.session.received(now, link, Head::Ack { id });
                    }
                    Did::Ping(link) if websocket => {
                        let _ = play.session.received(now, link, Head::Pong);
                    }
                    Did::Close(link, Ending::Code(_)) => {
                        play.session.link_down(now, link, Reason::Closed(1006), RetryHint::NONE);
                    }
                    _ => {}
                }
                next += 1;
            }
            play.drain();
            outstanding = core::mem::take(&mut play.asked);
            if outstanding.is_empty() && next == play.all.len() {
                if let Some(when) = play.session.deadline() {
                    play.session.tick(when);
                }
                play.drain();
                outstanding = core::mem::take(&mut play.asked);
            }
        }
        prop_assert!(play.session.backlog() == 0, "{:?}", play.session);
    }
}

/// A session as a hub has it, for a peer that knows no acknowledgements.
fn proved_by_pong() -> (InlineSession<&'static str, 4>, LinkId) {
    let mut config = Config::DEFAULT;
    config.link.role = Role::Acceptor;
    config.link.newcomer = Newcomer::Replaces;
    config.outbox.proof = Proof::Pong;
    let mut session = InlineSession::inline(config.check().unwrap(), 1, Origin::new(1, 1), Instant::ZERO);
    let Accepted::Open(link) = session.accept(Instant::ZERO) else { panic!("refused") };
    (session, link)
}

fn settled<const N: usize>(session: &mut InlineSession<&'static str, N>) -> (std::vec::Vec<Seq>, u32, u32) {
    let (mut ended, mut pings, mut data) = (std::vec::Vec::new(), 0, 0);
    while let Some(output) = session.poll() {
        match output {
            Output::Event(Event::Settled { seq, outcome, .. }) => {
                assert_eq!(outcome, Outcome::Delivered { path: Path::WebSocket });
                ended.push(seq);
            }
            Output::Frame { frame: Frame::Ping, .. } => pings += 1,
            Output::Frame { frame: Frame::Data { .. }, .. } => data += 1,
            _ => {}
        }
    }
    (ended, pings, data)
}

#[test]
fn u3_what_was_sent_before_a_ping_has_arrived_when_its_answer_comes() {
    let (mut session, link) = proved_by_pong();
    let first = session.send(Instant::ZERO, "a", 1, Policy::DEFAULT).unwrap();
    assert_eq!(settled(&mut session), (std::vec![], 1, 1), "the message, then the ping that asks about it");
    let second = session.send(Instant::ZERO, "b", 1, Policy::DEFAULT).unwrap();
    assert_eq!(settled(&mut session), (std::vec![], 0, 1), "one ping at a time");
    let _ = session.received(Instant::ZERO, link, Head::Pong);
    assert_eq!(settled(&mut session), (std::vec![first], 1, 0), "the second was sent after that ping");
    let _ = session.received(Instant::ZERO, link, Head::Pong);
    assert_eq!(settled(&mut session), (std::vec![second], 0, 0));
    let _ = session.received(Instant::ZERO, link, Head::Pong);
    assert_eq!(settled(&mut session), (std::vec![], 0, 0), "nobody asked for this one");
}

#[test]
fn u3_what_no_ping_proved_goes_again_on_the_next_connection() {
    let (mut session, link) = proved_by_pong();
    let first = session.send(Instant::ZERO, "a", 1, Policy::DEFAULT).unwrap();
    assert_eq!(settled(&mut session).2, 1);
    session.link_down(Instant::ZERO, link, Reason::Closed(1006), RetryHint::NONE);
    let Accepted::Open(next) = session.accept(Instant::ZERO) else { panic!("refused") };
    assert_eq!(settled(&mut session), (std::vec![], 1, 1));
    assert_eq!(session.received(Instant::ZERO, link, Head::Pong), None, "the old connection proves nothing");
    assert!(settled(&mut session).0.is_empty());
    let _ = session.received(Instant::ZERO, next, Head::Pong);
    assert_eq!(settled(&mut session).0, [first]);
}

#[test]
fn r8_a_newcomer_that_replaces_has_the_place_at_once() {
    let (mut session, old) = proved_by_pong();
    let _ = settled(&mut session);
    let Accepted::Open(new) = session.accept(Instant::ZERO) else { panic!("refused") };
    assert!(matches!(session.poll(), Some(Output::Close { link, ending: Ending::Code(REPLACED) }) if link == old));
    assert_eq!(session.connection(), Some(new));
    assert!(
        matches!(session.poll(), Some(Output::Event(Event::Down { link, reason: Reason::Replaced })) if link == old)
    );
    session.link_down(Instant::ZERO, old, Reason::Closed(4003), RetryHint::NONE);
    assert_eq!(session.connection(), Some(new), "the end of the old one is none of the new one's business");
}

#[test]
fn u2_a_newcomer_is_refused_where_the_setting_says_so() {
    let mut config = Config::DEFAULT;
    config.link.role = Role::Acceptor;
    config.link.newcomer = Newcomer::IsRefused;
    let mut session: InlineSession<&str, 4> =
        InlineSession::inline(config.check().unwrap(), 1, Origin::new(1, 1), Instant::ZERO);
    assert!(matches!(session.accept(Instant::ZERO), Accepted::Open(_)));
    assert_eq!(session.accept(Instant::ZERO), Accepted::Refused);
}

#[test]
fn f7_a_path_that_is_taken_away_takes_no_message_with_it() {
    let mut config = Config::DEFAULT;
    config.route.http = true;
    config.route.grace = Duration::ZERO;
    let mut session: InlineSession<&str, 4> =
        InlineSession::inline(config.check().unwrap(), 1, Origin::new(1, 1), Instant::ZERO);
    session.start(Instant::ZERO);
    assert_eq!(session.path(), Path::Http);
    session.set_http(Instant::ZERO, false);
    let _ = session.send(Instant::ZERO, "a", 1, Policy::DEFAULT).unwrap();
    while let Some(output) = session.poll() {
        assert!(!matches!(output, Output::Post { .. }), "there is no HTTP path");
    }
    session.set_http(Instant::ZERO, true);
    let mut posted = 0;
    while let Some(output) = session.poll() {
        posted += u32::from(matches!(output, Output::Post { .. }));
    }
    assert_eq!(posted, 1);
}

#[test]
fn u2_a_newcomer_does_not_pay_for_its_predecessor() {
    let mut config = Config::DEFAULT;
    config.link.role = Role::Acceptor;
    let ms = |n: u64| Instant::from_micros(n * 1000);
    let mut session = HeapSession::<u32>::heap(config.check().unwrap(), 1, Origin::new(1, 1), Instant::ZERO);
    session.start(ms(0));
    let Accepted::Open(holder) = session.accept(ms(0)) else { panic!("the place is free") };
    session.writable(ms(0), holder, false);
    let Accepted::Probing(newcomer) = session.accept(ms(3000)) else { panic!("the holder is asked") };
    // Both limits have passed when it is called: the holder's for its writes, and the one for its answer.
    session.tick(ms(5010));
    assert_eq!(session.connection(), Some(newcomer));
}

#[test]
fn u3_two_pings_that_are_answered_by_one_pong_leave_nothing_unproved() {
    let (mut session, link) = proved_by_pong();
    let ms = |n: u64| Instant::from_micros(n * 1000);
    let first = session.send(ms(0), "a", 1, Policy::DEFAULT).unwrap();
    assert_eq!(settled(&mut session), (std::vec![], 1, 1));
    // It says something, its pong is not out yet, and the message becomes late: it is probed. RFC 6455, 5.5.3: of several
    // pings it may answer the last alone.
    let _ = session.received(ms(10), link, Head::Other);
    session.tick(ms(2500));
    let _ = settled(&mut session);
    let _ = session.received(ms(2600), link, Head::Pong);
    assert_eq!(settled(&mut session).0, [first]);
    let second = session.send(ms(2700), "b", 1, Policy::DEFAULT).unwrap();
    assert_eq!(settled(&mut session), (std::vec![], 1, 1), "it is asked about too");
    let _ = session.received(ms(2800), link, Head::Pong);
    assert_eq!(settled(&mut session).0, [second]);
}

/// What a hub says on `link` until it has nothing to say: the numbers of its messages.
fn said(hub: &mut InlineSession<u32, 4, 64>) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(output) = hub.poll() {
        if let Output::Frame { frame: Frame::Data { seq, .. }, .. } = output {
            numbers.push(seq.get());
        }
    }
    numbers
}

#[test]
fn h3_a_poll_that_a_connection_has_overtaken_takes_nothing_back() {
    let mut hub = InlineSession::<u32, 4, 64>::inline(crate::NATIVE_PEER.check().unwrap(), 1, ORIGIN, at(0));
    hub.start(at(0));
    let Accepted::Open(link) = hub.accept(at(0)) else { panic!("refused") };
    let client = Greeting::new(Origin::new(9, 1));
    let _ = hub.greeted(at(0), &client, None, false);
    (0..2).for_each(|n| assert!(hub.send(at(0), n, 1, Policy::DEFAULT).is_ok()));
    let _ = said(&mut hub);
    let _ = hub.received(at(0), link, Head::Welcome { greeting: client, refused: None });
    let nothing = Report::nothing(64);
    let marks = |report| Head::Marks { report, una: Seq::FIRST, beat: Beat::None };
    let _ = hub.received(at(0), link, marks(Report { arrived: 0b11, ..nothing }));
    let _ = said(&mut hub);
    // The client asked before its WebSocket was welcomed, and the request was slower.
    assert!(hub.polled(at(0), RequestId(1), Duration::ZERO, &nothing, Seq::FIRST));
    assert!(said(&mut hub).is_empty(), "both have arrived");
    // On the connection it is the truth: they were given back, and the word for that was lost.
    let _ = hub.received(at(0), link, marks(nothing));
    assert_eq!(said(&mut hub), [1, 2]);
}
