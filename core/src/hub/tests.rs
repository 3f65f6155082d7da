use super::*;
use crate::session::{Event, Frame, Head, State};
use crate::{Arrival, LinkId, MessageId, Outcome, Path, Policy, Reason, RequestId};
use std::collections::BTreeSet;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

mod closing;
mod held;

const SECOND: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

fn who(n: u64) -> Identity {
    Identity::from_bits(u128::from(n) << 64 | u128::from(n))
}

/// A hub and what it said, in order.
struct Rig {
    hub: Hub<u32, Grows>,
    now: Instant,
    said: Vec<Said>,
    /// Requests so far, where a test numbers them so.
    asked: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Said {
    Verify(ConnId),
    Welcome(ConnId, SessionId, bool),
    Close(ConnId, CloseReason, Duration),
    Drop(ConnId),
    Ack(ConnId, MessageId),
    Ping(ConnId),
    Data(ConnId, u32),
    Broadcast(ConnId, u32),
    Topic(ConnId, u64, u32),
    Gap(ConnId, Option<u64>, u64),
    Respond(RequestId, crate::Answer),
    Post(SessionId, u32),
    Event(HubEvent),
}

impl Rig {
    fn new(change: impl FnOnce(&mut HubConfig)) -> Self {
        let mut config = HubConfig::DEFAULT;
        config.session.outbox.proof = crate::Proof::Pong;
        change(&mut config);
        let hub = Hub::new(config.check().unwrap(), 1, Origin::new(9, 1), Instant::ZERO);
        Self { hub, now: at(1), said: Vec::new(), asked: 0 }
    }

    /// Everything the hub has to say now.
    fn drain(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        while let Some(output) = self.hub.poll() {
            said.push(match output {
                HubOutput::Verify { conn, .. } => Said::Verify(conn),
                HubOutput::Welcome { conn, session, resumed, .. } => Said::Welcome(conn, session, resumed),
                HubOutput::Close { conn, why, after } => Said::Close(conn, why, after),
                HubOutput::Drop { conn } => Said::Drop(conn),
                HubOutput::Frame { conn, frame: Frame::Ack { id }, .. } => Said::Ack(conn, id),
                HubOutput::Frame { conn, frame: Frame::Ping | Frame::Keepalive, .. } => Said::Ping(conn),
                HubOutput::Frame { conn, frame: Frame::Data { payload, .. }, .. } => Said::Data(conn, *payload),
                HubOutput::Broadcast { conn, payload } => Said::Broadcast(conn, *payload),
                HubOutput::Topic { conn, position, payload, .. } => Said::Topic(conn, position.offset, *payload),
                HubOutput::Gap { conn, from, to, .. } => Said::Gap(conn, from, to),
                HubOutput::Respond { request, answer, .. } => Said::Respond(request, answer),
                HubOutput::Post { session, payload, .. } => Said::Post(session, *payload),
                HubOutput::Event(event) => Said::Event(event),
                output => panic!("only a native session says {output:?}"),
            });
        }
        assert!(self.hub.deadline().is_none_or(|at| at > self.hub.now()), "rule 6");
        self.check();
        self.said.extend(said.iter().cloned());
        said
    }

    /// The counts against a look at everything.
    fn check(&self) {
        let health = self.hub.health();
        let live: Vec<SessionId> = self.hub.sessions().filter(|(_, _, live)| *live).map(|(id, ..)| id).collect();
        assert_eq!(health.connections, live.len());
        assert_eq!(health.sessions, self.hub.sessions().count());
        assert_eq!(health.suspended, health.sessions - health.connections);
        assert!(health.active <= health.connections);
        for session in live {
            let conn = self.hub.connection(session).unwrap();
            assert_eq!(self.hub.session_of(conn), Some(session), "tied both ways");
        }
    }

    /// As a driver does that sleeps until the deadline and does nothing else.
    fn later(&mut self, span: Duration) -> Vec<Said> {
        let until = self.now.after(span);
        let mut said = Vec::new();
        while let Some(at) = self.hub.deadline().filter(|at| *at < until) {
            self.now = self.now.max(at);
            self.hub.tick(self.now);
            said.extend(self.drain());
        }
        self.now = until;
        self.hub.tick(self.now);
        said.extend(self.drain());
        said
    }

    /// The process stands still.
    fn freeze(&mut self, span: Duration) -> Vec<Said> {
        self.now = self.now.after(span);
        self.hub.tick(self.now);
        self.drain()
    }

    /// A connection from this address that says who it is and is believed.
    fn arrive(&mut self, identity: Identity, address: u64) -> ConnId {
        let conn = self.hub.connect(self.now, address).unwrap();
        assert!(self.hub.hello(self.now, 0, conn, identity, None));
        assert!(self.drain().contains(&Said::Verify(conn)));
        assert!(self.hub.verified(self.now, 0, conn, Verdict::Accept { http: false }));
        conn
    }

    fn join(&mut self, n: u64) -> (ConnId, SessionId) {
        let conn = self.arrive(who(n), n);
        let said = self.drain();
        let welcomed = |said: &Said| match said {
            Said::Welcome(to, session, _) if *to == conn => Some(*session),
            _ => None,
        };
        (conn, said.iter().find_map(welcomed).expect("welcome"))
    }

    fn predict(&mut self, conn: ConnId, id: u128) -> Heard {
        let head = Head::Data { id: Some(MessageId::from_bits(id)), key: None };
        self.hub.received(self.now, 0, conn, head, 100, None)
    }
}

fn delivery(heard: Heard) -> (SessionId, crate::DeliveryId) {
    match heard {
        Heard::Arrival(session, Arrival::Deliver { delivery, .. }) => (session, delivery),
        other => panic!("not delivered: {other:?}"),
    }
}

#[test]
fn u1_a_connection_authenticates_and_has_its_session() {
    let mut rig = Rig::new(|_| {});
    let (conn, session) = rig.join(1);
    assert_eq!(rig.hub.find(who(1)), Some(session));
    assert_eq!(rig.hub.identity(session), Some(who(1)));
    let (session_too, delivery) = delivery(rig.predict(conn, 5));
    assert_eq!(session_too, session);
    assert!(rig.drain().is_empty(), "an acknowledgement means done");
    assert!(rig.hub.complete(rig.now, session, delivery, crate::Verdict::Done));
    assert_eq!(rig.drain(), [Said::Ack(conn, MessageId::from_bits(5))], "at once, not with the next heartbeat");
}

#[test]
fn u1_whoever_does_not_say_who_it_is_goes_after_ten_seconds() {
    let mut rig = Rig::new(|_| {});
    let conn = rig.hub.connect(rig.now, 1).unwrap();
    assert!(rig.drain().is_empty());
    assert_eq!(rig.predict(conn, 1), Heard::Stale, "nothing it says counts");
    assert_eq!(rig.later(10 * SECOND), [Said::Close(conn, CloseReason::Silent, Duration::ZERO)]);
    assert_eq!(rig.hub.health().closing, 1);
    assert_eq!(rig.later(2 * SECOND), [Said::Drop(conn)], "the close handshake has a limit too");
    assert_eq!(rig.hub.health().closing, 0);
    assert!(!rig.hub.hello(rig.now, 0, conn, who(1), None));
}

#[test]
fn u1_a_slow_look_up_blocks_nobody_and_ends() {
    let mut rig = Rig::new(|_| {});
    let slow = rig.hub.connect(rig.now, 1).unwrap();
    rig.hub.hello(rig.now, 0, slow, who(1), None);
    assert_eq!(rig.drain(), [Said::Verify(slow)]);
    let (conn, _) = rig.join(2);
    let _ = delivery(rig.predict(conn, 1));
    let ends =
        |said: &Said| matches!(said, Said::Close(conn, CloseReason::Later, after) if *conn == slow && !after.is_zero());
    assert!(rig.later(10 * SECOND).iter().any(ends), "with a time of its own to come back");
    assert!(!rig.hub.verified(rig.now, 0, slow, Verdict::Accept { http: false }), "too late");
}

#[test]
fn u2_fifty_reconnects_never_lose_the_session() {
    let mut rig = Rig::new(|_| {});
    let (mut conn, session) = rig.join(1);
    for n in 0..50 {
        let next = rig.arrive(who(1), 1);
        let said = rig.drain();
        assert!(said.contains(&Said::Welcome(next, session, true)), "{n}: {said:?}");
        assert!(said.contains(&Said::Close(conn, CloseReason::Replaced, Duration::ZERO)));
        // The old handler's clean-up comes late and touches nothing.
        rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
        assert_eq!(rig.hub.connection(session), Some(next));
        conn = next;
        rig.later(30 * SECOND);
        let _ = rig.hub.received(rig.now, 0, conn, Head::Pong, 2, None);
    }
    assert_eq!((rig.hub.health().connections, rig.hub.stats().replaced), (1, 50));
}

#[test]
fn u2_a_war_is_damped_and_told() {
    let mut rig = Rig::new(|_| {});
    let (_, session) = rig.join(1);
    let mut last = None;
    for n in 0..3 {
        last = Some(rig.arrive(who(1), 100 + n));
        assert!(rig.drain().iter().any(|said| matches!(said, Said::Welcome(..))));
    }
    let fourth = rig.arrive(who(1), 200);
    let said = rig.drain();
    assert!(said.contains(&Said::Close(fourth, CloseReason::War, 30 * SECOND)), "{said:?}");
    assert!(said.contains(&Said::Event(HubEvent::War { session })));
    assert_eq!(rig.hub.connection(session), last, "the holder keeps its place");
    let holder = rig.arrive(who(1), 102);
    assert!(
        rig.drain().iter().any(|said| matches!(said, Said::Welcome(conn, ..) if *conn == holder)),
        "its own address"
    );
    rig.later(31 * SECOND);
    let late = rig.arrive(who(1), 200);
    assert!(rig.drain().iter().any(|said| matches!(said, Said::Welcome(conn, ..) if *conn == late)));
}

#[test]
fn u2_two_places_behind_one_address_are_a_war_and_a_peer_with_a_bad_network_is_none() {
    let mut rig = Rig::new(|_| {});
    let (mut holder, session) = rig.join(1);
    let mut welcomed = 0;
    // Two programs with one key on one machine, each of which dials again as soon as it has been replaced.
    for _ in 0..41 {
        let conn = rig.arrive(who(1), 1);
        let said = rig.drain();
        if said.iter().any(|said| matches!(said, Said::Welcome(to, ..) if *to == conn)) {
            assert!(said.contains(&Said::Close(holder, CloseReason::Replaced, Duration::ZERO)));
            rig.hub.disconnected(rig.now, holder, Reason::Closed(4003));
            holder = conn;
            welcomed += 1;
        } else {
            assert!(matches!(said[0], Said::Close(to, CloseReason::War, after) if to == conn && !after.is_zero()));
            rig.hub.disconnected(rig.now, conn, Reason::Closed(1013));
        }
        rig.later(Duration::from_millis(1100));
    }
    let wars = rig.said.iter().filter(|said| **said == Said::Event(HubEvent::War { session })).count();
    assert_eq!(
        (welcomed, wars, rig.hub.stats().wars),
        (6, 2, 2),
        "in 45 s three replacements, 30 s of peace, three more"
    );
    // One whose connections vanish, so that it comes back before they are found: nobody answers the close frames; or what
    // they were sent finds that they are gone.
    for (n, reason) in [(2, None), (3, Some(Reason::Closed(1006))), (4, Some(Reason::System))] {
        let (mut holder, session) = rig.join(n);
        for _ in 0..20 {
            let conn = rig.arrive(who(n), n);
            assert!(rig.drain().iter().any(|said| matches!(said, Said::Welcome(to, ..) if *to == conn)), "{reason:?}");
            if let Some(reason) = reason {
                rig.hub.disconnected(rig.now, holder, reason);
            }
            holder = conn;
            rig.later(3 * SECOND);
        }
        assert!(!rig.said.contains(&Said::Event(HubEvent::War { session })));
    }
}

#[test]
fn u2_a_probed_holder_that_answers_stays_and_one_that_does_not_goes() {
    let mut rig = Rig::new(|config| config.duplicate = Duplicate::ProbeThenReplace);
    let (first, session) = rig.join(1);
    let second = rig.arrive(who(1), 1);
    assert_eq!(rig.drain(), [Said::Ping(first)]);
    let _ = rig.hub.received(rig.now, 0, first, Head::Pong, 2, None);
    assert_eq!(rig.drain(), [Said::Close(second, CloseReason::Duplicate, Duration::ZERO)]);
    let third = rig.arrive(who(1), 1);
    assert_eq!(rig.drain(), [Said::Ping(first)]);
    let said = rig.later(2 * SECOND);
    assert!(said.contains(&Said::Drop(first)), "{said:?}");
    assert!(said.contains(&Said::Welcome(third, session, true)), "{said:?}");
    assert_eq!(rig.hub.connection(session), Some(third));
}

#[test]
fn u2_the_other_policies_do_as_they_say() {
    let mut rig = Rig::new(|config| config.duplicate = Duplicate::Refuse);
    let (first, session) = rig.join(1);
    let second = rig.arrive(who(1), 1);
    assert_eq!(rig.drain(), [Said::Close(second, CloseReason::Duplicate, Duration::ZERO), Said::Ping(first)]);
    assert_eq!(rig.hub.connection(session), Some(first));

    let mut rig = Rig::new(|config| config.duplicate = Duplicate::Allow(2));
    let (_, one) = rig.join(1);
    let (second, two) = rig.join(1);
    assert_ne!(one, two, "a session each");
    let third = rig.arrive(who(1), 1);
    assert_eq!(rig.drain(), [Said::Close(third, CloseReason::Duplicate, Duration::ZERO)]);
    rig.hub.disconnected(rig.now, second, Reason::Closed(1006));
    rig.drain();
    assert_eq!(rig.join(1).1, two, "whoever comes back has the session that nobody uses");
}

#[test]
fn u2_a_session_of_its_own_is_not_a_resumed_one() {
    let mut rig = Rig::new(|config| config.duplicate = Duplicate::Allow(2));
    let (first, _) = rig.join(1);
    let (second, session) = rig.join(1);
    assert!(rig.said.contains(&Said::Welcome(second, session, false)));
    assert_eq!(rig.hub.stats().resumed, 0);
    rig.hub.disconnected(rig.now, first, Reason::Closed(1006));
    rig.drain();
    rig.join(1);
    assert_eq!(rig.hub.stats().resumed, 1);
}

#[test]
fn u2_a_refused_newcomer_leaves_no_deadline_in_the_past() {
    let mut rig = Rig::new(|config| config.duplicate = Duplicate::Refuse);
    rig.join(1);
    rig.later(SECOND);
    rig.arrive(who(1), 1);
    rig.drain();
    // The drain looks at the deadline.
    rig.later(SECOND);
    rig.hub.publish(rig.now, 7, 1, Publish::DEFAULT, |_, _| true);
    rig.drain();
}

#[test]
fn u2_whoever_knocks_has_the_place_as_soon_as_it_is_free() {
    let mut rig = Rig::new(|config| config.duplicate = Duplicate::ProbeThenReplace);
    rig.hub.expect(rig.now, Some(1));
    let (first, session) = rig.join(1);
    let second = rig.arrive(who(1), 1);
    rig.drain();
    rig.said.clear();
    let third = rig.hub.connect(rig.now, 1).unwrap();
    rig.hub.hello(rig.now, 0, third, who(1), None);
    // Nobody polls between the end of the holder and the next one of the same identity.
    rig.hub.disconnected(rig.now, first, Reason::Closed(1006));
    rig.hub.verified(rig.now, 0, third, Verdict::Accept { http: false });
    let said = rig.drain();
    assert!(said.contains(&Said::Welcome(second, session, true)), "{said:?}");
    assert!(said.contains(&Said::Ping(second)), "and now it is asked for the third");
    let told = |said: &Said| matches!(said, Said::Event(HubEvent::Fleet { .. }));
    assert!(!said.iter().any(told), "P8: the identity was never gone");
    assert_eq!((rig.hub.health().connections, rig.hub.health().pending), (1, 1));
}

#[test]
fn u2_a_session_that_ends_as_its_holder_is_knocked_out_leaves_nobody_waiting() {
    let mut rig = Rig::new(|config| config.duplicate = Duplicate::ProbeThenReplace);
    let (first, session) = rig.join(1);
    let second = rig.arrive(who(1), 1);
    rig.drain();
    // The verdict and the application's word come in the same moment.
    rig.now = rig.now.after(2 * SECOND);
    rig.hub.dismiss(rig.now, session);
    let said = rig.drain();
    assert!(said.contains(&Said::Drop(first)), "{said:?}");
    assert!(said.contains(&Said::Close(second, CloseReason::Dismissed, Duration::ZERO)), "{said:?}");
    rig.later(5 * SECOND);
    let health = rig.hub.health();
    assert_eq!((health.pending, health.closing, health.sessions), (0, 0, 0));
}

#[test]
fn u2_three_in_a_minute_are_counted_from_the_first_of_them() {
    let mut rig = Rig::new(|config| config.session.heartbeat.interval = Duration::ZERO);
    rig.join(1);
    rig.later(59 * SECOND);
    for n in 0..3 {
        rig.arrive(who(1), 100 + n);
        rig.drain();
        rig.later(SECOND);
    }
    let fourth = rig.arrive(who(1), 200);
    assert!(rig.drain().contains(&Said::Close(fourth, CloseReason::War, 30 * SECOND)));
}

#[test]
fn u7_a_connection_that_takes_nothing_takes_nothing_after_its_welcome_either() {
    let mut rig = Rig::new(|_| {});
    let conn = rig.hub.connect(rig.now, 1).unwrap();
    rig.hub.hello(rig.now, 0, conn, who(1), None);
    rig.hub.writable(rig.now, conn, false);
    rig.hub.verified(rig.now, 0, conn, Verdict::Accept { http: false });
    rig.drain();
    let session = rig.hub.find(who(1)).unwrap();
    rig.hub.send(rig.now, session, 7, 1, Policy::DEFAULT).unwrap();
    assert!(rig.drain().is_empty());
    rig.hub.writable(rig.now, conn, true);
    assert_eq!(rig.drain()[..1], [Said::Data(conn, 7)]);
}

#[test]
fn u3_a_frame_of_the_peers_that_is_too_long_says_nothing_about_ours() {
    let mut rig = Rig::new(|_| {});
    let (conn, session) = rig.join(1);
    rig.hub.send(rig.now, session, 7, 100, Policy::DEFAULT).unwrap();
    rig.drain();
    rig.hub.refuse(rig.now, conn, CloseReason::TooLarge);
    assert!(rig.drain().contains(&Said::Close(conn, CloseReason::TooLarge, Duration::ZERO)));
    assert_eq!(rig.hub.health().backlog, 1, "it waits for the next connection");
    let (next, _) = rig.join(1);
    assert!(rig.said.contains(&Said::Data(next, 7)));
}

#[test]
fn u3_what_is_sent_to_one_survives_its_connection_and_its_absence() {
    let mut rig = Rig::new(|_| {});
    let (conn, session) = rig.join(1);
    rig.hub.send(rig.now, session, 7, 1, Policy::DEFAULT).unwrap();
    assert_eq!(rig.drain(), [Said::Data(conn, 7), Said::Ping(conn)]);
    rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
    rig.hub.send(rig.now, session, 8, 1, Policy::DEFAULT).unwrap();
    rig.later(60 * SECOND);
    assert_eq!(rig.hub.health().backlog, 2);
    let again = rig.arrive(who(1), 1);
    let said = rig.drain();
    assert!(said.contains(&Said::Data(again, 7)) && said.contains(&Said::Data(again, 8)), "{said:?}");
    let _ = rig.hub.received(rig.now, 0, again, Head::Pong, 2, None);
    let settled = rig
        .drain()
        .iter()
        .filter(|said| {
            matches!(
                said,
                Said::Event(HubEvent::Session {
                    event: Event::Settled { outcome: Outcome::Delivered { path: Path::WebSocket }, .. },
                    ..
                })
            )
        })
        .count();
    assert_eq!((settled, rig.hub.health().backlog), (2, 0));
}

#[test]
fn u3_a_session_ends_after_its_time_and_settles_what_it_owes() {
    let mut rig = Rig::new(|_| {});
    let (conn, session) = rig.join(1);
    rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
    rig.hub.send(rig.now, session, 8, 1, Policy::DEFAULT).unwrap();
    rig.drain();
    rig.said.clear();
    for _ in 0..61 {
        rig.later(60 * SECOND);
    }
    let abandoned = rig
        .said
        .iter()
        .filter(|said| {
            matches!(
                said,
                Said::Event(HubEvent::Session { event: Event::Settled { outcome: Outcome::Abandoned, .. }, .. })
            )
        })
        .count();
    assert_eq!(abandoned, 1, "none dropped silently");
    assert!(rig.said.contains(&Said::Event(HubEvent::Ended { session, identity: who(1), why: CloseReason::Expired })));
    assert_eq!((rig.hub.health().sessions, rig.hub.health().backlog), (0, 0));
    assert!(rig.hub.send(rig.now, session, 9, 1, Policy::DEFAULT).is_err());
}

#[test]
fn s6_a_prediction_on_both_paths_is_delivered_once_and_answered_on_both() {
    let mut rig = Rig::new(|_| {});
    let (conn, session) = rig.join(1);
    let id = MessageId::from_bits(5);
    let (_, delivery) = delivery(rig.predict(conn, 5));
    let copy = rig.hub.request(rig.now, 0, who(1), RequestId(1), Some(id), None, 100, None);
    assert_eq!(copy, Ok((session, Arrival::Duplicate)), "it waits for the result");
    rig.hub.complete(rig.now, session, delivery, crate::Verdict::Done);
    let said = rig.drain();
    assert!(said.contains(&Said::Respond(RequestId(1), crate::Answer::Done)) && said.contains(&Said::Ack(conn, id)));
    assert_eq!(rig.predict(conn, 5), Heard::Arrival(session, Arrival::Duplicate));
    assert_eq!(rig.drain(), [Said::Ack(conn, id)]);
    assert_eq!((rig.hub.stats().delivered, rig.hub.stats().duplicates), (1, 2));
}

#[test]
fn u5_a_broadcast_goes_to_whom_it_is_for_and_nobody_waits() {
    let mut rig = Rig::new(|_| {});
    let conns: Vec<_> = (1..=5).map(|n| rig.join(n)).collect();
    rig.hub.writable(rig.now, conns[0].0, false);
    rig.drain();
    let sent = rig.hub.publish(rig.now, 7, 1, Publish::DEFAULT, |session, _| session != conns[4].1);
    assert_eq!(sent, Sent { reached: 4, refused: 0, dropped: 0 });
    let got: Vec<Said> = rig.drain();
    let expected: Vec<Said> = (1..4).map(|n| Said::Broadcast(conns[n].0, 7)).collect();
    assert_eq!(got, expected, "not to the one that reads nothing, nor to the one it was not for");
    rig.hub.writable(rig.now, conns[0].0, true);
    assert_eq!(rig.drain(), [Said::Broadcast(conns[0].0, 7)]);
}

#[test]
fn u5_a_newcomer_gets_the_last_broadcast_once() {
    let mut rig = Rig::new(|_| {});
    let snapshot = Publish { snapshot: true, ..Publish::DEFAULT };
    rig.hub.publish(rig.now, 6, 1, snapshot, |_, _| true);
    rig.hub.publish(rig.now, 7, 1, snapshot, |_, _| true);
    rig.hub.publish(rig.now, 8, 1, Publish::DEFAULT, |_, _| true);
    rig.later(60 * SECOND);
    let conn = rig.arrive(who(1), 1);
    assert_eq!(
        rig.drain().iter().filter(|said| matches!(said, Said::Broadcast(..))).collect::<Vec<_>>(),
        [&Said::Broadcast(conn, 7)]
    );
    rig.hub.publish(rig.now, 9, 1, snapshot, |_, _| true);
    assert_eq!(rig.drain(), [Said::Broadcast(conn, 9)]);
}

#[test]
fn u6_each_policy_for_a_slow_reader() {
    let lag = |slow: Slow, keys: [Option<u64>; 5]| {
        let mut rig = Rig::new(|config| config.bulk = Bulk { slow, most: 3, ..Bulk::DEFAULT });
        let (conn, session) = rig.join(1);
        rig.hub.writable(rig.now, conn, false);
        rig.drain();
        for (n, key) in (0..5).zip(keys) {
            rig.hub.publish(rig.now, n, 1, Publish { key, snapshot: false }, |_, _| true);
        }
        rig.hub.writable(rig.now, conn, true);
        let said = rig.drain();
        let got: Vec<u32> =
            said.iter().filter_map(|said| if let Said::Broadcast(_, n) = said { Some(*n) } else { None }).collect();
        let lost: u32 = rig
            .said
            .iter()
            .filter_map(|said| {
                if let Said::Event(HubEvent::Lost { session: of, count }) = said {
                    assert_eq!(*of, session);
                    Some(*count)
                } else {
                    None
                }
            })
            .sum();
        let closed = rig.said.contains(&Said::Close(conn, CloseReason::Slow, Duration::ZERO));
        assert_eq!(u64::from(lost), rig.hub.stats().lost);
        (got, lost, closed)
    };
    assert_eq!(lag(Slow::DropNewest, [None; 5]), (vec![0, 1, 2], 2, false));
    assert_eq!(lag(Slow::DropOldest, [None; 5]), (vec![2, 3, 4], 2, false));
    assert_eq!(lag(Slow::Conflate, [Some(1), Some(2), Some(1), Some(2), Some(3)]), (vec![2, 3, 4], 0, false));
    assert!(lag(Slow::Disconnect, [None; 5]).2);
}

#[test]
fn u6_what_the_log_forgets_is_lost_to_the_slow_and_told() {
    let mut rig = Rig::new(|_| {});
    let (conn, session) = rig.join(1);
    rig.hub.writable(rig.now, conn, false);
    rig.drain();
    rig.hub.publish(rig.now, 1, 1, Publish::DEFAULT, |_, _| true);
    // It would be dead by then for want of moving bytes; the adapter says that some have moved.
    for _ in 0..31 {
        rig.hub.writable(rig.now, conn, true);
        rig.hub.writable(rig.now, conn, false);
        rig.later(SECOND);
        rig.said.retain(|said| !matches!(said, Said::Broadcast(..)));
    }
    let _ = (session, conn);
    assert_eq!(rig.hub.stats().broadcast_copies + rig.hub.stats().lost, 1, "sent or told, never neither");
}

#[test]
fn u7_control_goes_first_and_a_busy_session_lets_the_others_have_their_turn() {
    let mut rig = Rig::new(|config| config.session.outbox.capacity = 200);
    let (busy, busy_session) = rig.join(1);
    let (quiet, quiet_session) = rig.join(2);
    for n in 0..100 {
        rig.hub.send(rig.now, busy_session, n, 1, Policy::DEFAULT).unwrap();
    }
    rig.hub.publish(rig.now, 1000, 1, Publish::DEFAULT, |session, _| session == busy_session);
    rig.hub.send(rig.now, quiet_session, 7, 1, Policy::DEFAULT).unwrap();
    let conn = rig.hub.connect(rig.now, 5).unwrap();
    rig.hub.hello(rig.now, 0, conn, who(5), None);
    let said = rig.drain();
    let place = |what: &Said| said.iter().position(|said| said == what).unwrap();
    assert_eq!(place(&Said::Verify(conn)), 0, "control first");
    assert!(place(&Said::Data(quiet, 7)) <= 20, "sixteen, then the next");
    assert!(place(&Said::Broadcast(busy, 1000)) <= 18, "bulk is not starved by what is reliable");
    assert_eq!(said.iter().filter(|said| matches!(said, Said::Data(conn, _) if *conn == busy)).count(), 100);
}

#[test]
fn u8_each_refused_dialer_gets_a_time_of_its_own() {
    let mut rig = Rig::new(|config| {
        config.handshakes = Rate { per_second: 10, burst: 5 };
        config.per_address.handshakes = Rate::UNLIMITED;
    });
    let mut times = BTreeSet::new();
    let mut admitted = 0;
    for n in 0..105 {
        match rig.hub.connect(rig.now, n) {
            Ok(_) => admitted += 1,
            Err(Denied { why, retry_after: after }) => {
                assert_eq!(why, CloseReason::Rate);
                assert!(times.insert(after), "{after:?} twice");
            }
        }
    }
    assert_eq!((admitted, times.len()), (5, 100));
    let last = *times.last().unwrap();
    assert!((9 * SECOND..=11 * SECOND).contains(&last), "a hundred at ten a second: {last:?}");
}

#[test]
fn u8_dialers_of_one_address_get_times_of_their_own_too() {
    let mut rig = Rig::new(|config| config.per_address.handshakes = Rate { per_second: 10, burst: 5 });
    let refused = (0..55).filter_map(|_| rig.hub.connect(rig.now, 1).err());
    let times: BTreeSet<_> = refused.map(|denied| denied.retry_after).collect();
    assert_eq!(times.len(), 50);
}

#[test]
fn u8_an_address_that_was_refused_is_forgotten_too() {
    let mut rig = Rig::new(|config| {
        config.addresses = 3;
        config.handshakes = Rate { per_second: 1, burst: 1 };
    });
    let conn = rig.hub.connect(rig.now, 0).unwrap();
    for address in 1..3 {
        assert_eq!(rig.hub.connect(rig.now, address).unwrap_err().why, CloseReason::Rate);
    }
    assert_eq!(rig.hub.connect(rig.now, 3).unwrap_err().why, CloseReason::Full);
    rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
    rig.later(60 * SECOND);
    for address in 10..13 {
        assert!(rig.hub.connect(rig.now, address).is_ok());
        rig.later(SECOND);
    }
}

#[test]
fn u8_places_are_limited_by_kind_and_by_address() {
    let mut rig = Rig::new(|config| {
        config.pending = 3;
        config.per_address_connections = 2;
        config.sessions = 1;
    });
    let conns: Vec<ConnId> = [1, 1, 2].map(|address| rig.hub.connect(rig.now, address).unwrap()).to_vec();
    assert_eq!(rig.hub.connect(rig.now, 3).unwrap_err().why, CloseReason::Full);
    rig.hub.disconnected(rig.now, conns[2], Reason::Closed(1006));
    assert_eq!(rig.hub.connect(rig.now, 1).unwrap_err().why, CloseReason::Rate, "a third of one address");
    rig.hub.disconnected(rig.now, conns[0], Reason::Closed(1006));
    rig.hub.disconnected(rig.now, conns[1], Reason::Closed(1006));
    rig.drain();
    rig.join(1);
    let other = rig.arrive(who(2), 2);
    assert!(matches!(rig.drain()[..], [Said::Close(conn, CloseReason::Full, _)] if conn == other));
    assert_eq!(rig.hub.health().sessions, 1);
}

#[test]
fn u8_who_sends_too_much_is_told_and_then_closed() {
    let mut rig = Rig::new(|config| config.per_identity.messages = Rate { per_second: 1, burst: 10 });
    let (conn, _) = rig.join(1);
    for n in 0..10 {
        assert!(matches!(rig.predict(conn, n), Heard::Arrival(..)));
    }
    for n in 10..26 {
        assert_eq!(rig.predict(conn, n), Heard::Limited);
    }
    assert!(rig.drain().contains(&Said::Close(conn, CloseReason::Flood, Duration::ZERO)));
    assert_eq!((rig.hub.stats().delivered, rig.hub.stats().limited), (10, 16));
}

#[test]
fn u8_the_parts_of_a_frame_cost_no_message_and_are_life() {
    let mut rig = Rig::new(|config| config.per_identity.messages = Rate { per_second: 1, burst: 10 });
    let (conn, _) = rig.join(1);
    for _ in 0..1024 {
        assert_eq!(rig.hub.received(rig.now, 0, conn, Head::Part, 0, None), Heard::Noted);
    }
    for n in 0..10 {
        assert!(matches!(rig.predict(conn, n), Heard::Arrival(..)), "{n}");
    }
    // Nor do they hide that too much was said.
    for n in 10..26 {
        assert_eq!(rig.predict(conn, n), Heard::Limited);
        let _ = rig.hub.received(rig.now, 0, conn, Head::Part, 0, None);
    }
    assert!(rig.drain().contains(&Said::Close(conn, CloseReason::Flood, Duration::ZERO)));
    assert_eq!((rig.hub.stats().delivered, rig.hub.stats().limited), (10, 16));
}

#[test]
fn u8_a_word_counts_once_and_in_its_time() {
    let mut rig = Rig::new(|_| {});
    let wall = 1_800_000_000_000_000;
    let stamp = |nonce, issued| Some(Stamp { nonce, issued });
    let mut first = None;
    for n in 0..2 {
        let conn = rig.hub.connect(rig.now, 1).unwrap();
        rig.hub.hello(rig.now, wall, conn, who(1), stamp(7, wall));
        rig.drain();
        rig.hub.verified(rig.now, wall, conn, Verdict::Accept { http: false });
        let said = rig.drain();
        if n == 0 {
            first = Some(conn);
        } else {
            assert!(
                said.contains(&Said::Close(conn, CloseReason::Replayed, Duration::ZERO)),
                "the auth frame cannot be used twice"
            );
        }
    }
    let conn = first.unwrap();
    assert!(rig.hub.session_of(conn).is_some(), "and whoever tried it does not have the place");
    let head = Head::Data { id: Some(MessageId::from_bits(1)), key: None };
    assert!(matches!(rig.hub.received(rig.now, wall, conn, head, 1, stamp(8, wall)), Heard::Arrival(..)));
    assert!(matches!(rig.hub.received(rig.now, wall, conn, head, 1, stamp(8, wall)), Heard::Replayed(_)));
    assert!(
        matches!(rig.hub.received(rig.now, wall, conn, head, 1, stamp(9, 0)), Heard::Replayed(_)),
        "a year-2001 heartbeat"
    );
    let old = rig.hub.connect(rig.now, 1).unwrap();
    rig.hub.hello(rig.now, wall, old, who(1), stamp(10, wall - 301_000_000));
    assert!(rig.drain().contains(&Said::Close(old, CloseReason::WrongClock, Duration::ZERO)));
    // The nonces outlive the connection.
    rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
    rig.drain();
    let again = rig.arrive(who(1), 1);
    rig.drain();
    assert!(matches!(rig.hub.received(rig.now, wall, again, head, 1, stamp(8, wall)), Heard::Replayed(_)));
}

/// A greeting with this stamp: whether it was welcomed, and otherwise why not.
fn greet(rig: &mut Rig, wall: i64, n: u64, stamp: Stamp) -> Result<ConnId, (CloseReason, Duration)> {
    let conn = rig.hub.connect(rig.now, n).unwrap();
    rig.hub.hello(rig.now, wall, conn, who(n), Some(stamp));
    rig.drain();
    rig.hub.verified(rig.now, wall, conn, Verdict::Accept { http: false });
    let said = rig.drain();
    let seen = [said, rig.said.clone()].concat();
    let refused = |said: &Said| match said {
        Said::Close(to, why, after) if *to == conn => Some((*why, *after)),
        _ => None,
    };
    seen.iter().find_map(refused).map_or(Ok(conn), Err)
}

#[test]
fn u11_a_fresh_hub_lets_in_every_clock_within_the_tolerance_and_says_what_is_wrong_with_others() {
    let wall = 1_800_000_000_000_000;
    let second = 1_000_000;
    for off in [-301, -299, -66, -6, 0, 6, 299, 301] {
        let mut rig = Rig::new(|_| {});
        let first = greet(&mut rig, wall, 1, Stamp { nonce: 1, issued: wall + off * second });
        if off.abs() > 300 {
            assert_eq!(first, Err((CloseReason::WrongClock, Duration::ZERO)), "{off}");
            assert_eq!(CloseReason::WrongClock.code(), 1008);
            continue;
        }
        // Frames and requests too, from the first second on.
        let conn = first.unwrap_or_else(|why| panic!("{off}: {why:?}"));
        for n in 2..40 {
            let (wall, now) = (wall + n as i64 * second, rig.now.after(n as u32 * SECOND));
            let stamp = |nonce| Some(Stamp { nonce, issued: wall + off * second });
            let head = Head::Data { id: Some(MessageId::from_bits(u128::from(n))), key: None };
            assert!(matches!(rig.hub.received(now, wall, conn, head, 1, stamp(n)), Heard::Arrival(..)), "{off} {n}");
            let request = rig.hub.request(now, wall, who(2), RequestId(n), None, None, 1, stamp(n));
            assert!(request.is_ok(), "{off} {n}: {request:?}");
        }
    }
}

#[test]
fn u11_what_was_said_to_the_hub_before_ends_with_its_signers_first_word() {
    let wall = 1_800_000_000_000_000;
    let second = 1_000_000;
    // Its clock is a minute behind; somebody has recorded what it said in the last two minutes.
    let said = |nonce: u64, at: i64| Stamp { nonce, issued: wall + (at - 60) * second };
    let mut rig = Rig::new(|_| {});
    let thief = greet(&mut rig, wall, 1, said(1, -100)).expect("nobody can tell yet");
    assert_eq!(greet(&mut rig, wall, 1, said(1, -100)), Err((CloseReason::Replayed, Duration::ZERO)), "but once");
    let owner = greet(&mut rig, wall + second, 1, said(2, 1)).expect("it has its place");
    assert_eq!(rig.hub.session_of(thief), None);
    for (nonce, at) in (3..).zip(-110..-5) {
        let again = greet(&mut rig, wall + second, 1, said(nonce, at));
        let Err((CloseReason::Unjudged, after)) = again else { panic!("{at}: {again:?}") };
        // When its own clock has come to 5 s before the beginning, and a ticket.
        let least = Duration::from_secs((-5 - at) as u64);
        assert!(after > least && after <= least + 61 * SECOND, "{at}: {after:?}");
    }
    assert!(rig.hub.session_of(owner).is_some(), "nobody has taken it");
    let request = rig.hub.request(rig.now, wall + second, who(1), RequestId(1), None, None, 1, Some(said(500, -30)));
    let Err(Denied { why: CloseReason::Unjudged, retry_after }) = request else { panic!("{request:?}") };
    assert!(retry_after > 25 * SECOND);
    assert_eq!((CloseReason::Unjudged.code(), CloseReason::Unjudged.status()), (1013, 503), "neither ends a miner");
    let head = Head::Data { id: Some(MessageId::from_bits(1)), key: None };
    let frame = rig.hub.received(rig.now, wall + second, owner, head, 1, Some(said(501, -30)));
    assert!(matches!(frame, Heard::Replayed(Replayed::Unjudged { .. })), "{frame:?}");
}

#[test]
fn u11_a_stranger_is_not_refused_because_somebody_else_was_dismissed() {
    let wall = 1_800_000_000_000_000;
    let second = 1_000_000;
    let mut rig = Rig::new(|_| {});
    let (_, session) = rig.join(1);
    rig.hub.dismiss(rig.now, session);
    rig.later(10 * SECOND);
    let late = wall + 1000 * second;
    assert!(greet(&mut rig, late, 2, Stamp { nonce: 1, issued: late - 200 * second }).is_ok());
}

#[test]
fn l14_a_hub_whose_time_stood_still_asks_every_peer_at_once_and_gives_up_nobody() {
    let mut rig = Rig::new(|config| config.session.heartbeat.dead = 300 * SECOND);
    let conns: Vec<_> = (0..50).map(|n| rig.join(n).0).collect();
    let waiting = rig.hub.connect(rig.now, 99).unwrap();
    rig.drain();
    rig.now = rig.now.after(SECOND);
    rig.hub.stood_still(rig.now);
    let said = rig.drain();
    assert!(conns.iter().all(|conn| said.contains(&Said::Ping(*conn))), "{said:?}");
    assert!(!said.iter().any(|said| matches!(said, Said::Close(..) | Said::Drop(..))), "{said:?}");
    let _ = rig.hub.received(rig.now, 0, conns[0], Head::Pong, 2, None);
    let said = rig.later(4 * SECOND);
    assert_eq!(said.iter().filter(|said| matches!(said, Said::Drop(..))).count(), 49, "those that say nothing");
    assert!(!said.contains(&Said::Drop(conns[0])) && !said.contains(&Said::Drop(waiting)));
}

#[test]
fn u9_a_drain_refuses_with_tickets_closes_in_batches_and_counts_what_is_left() {
    let mut rig = Rig::new(|config| config.session.outbox.proof = crate::Proof::Acknowledgement);
    let conns: Vec<_> = (0..40).map(|n| rig.join(n)).collect();
    for (_, session) in &conns[..3] {
        rig.hub.send(rig.now, *session, 1, 1, Policy::DEFAULT).unwrap();
    }
    rig.drain();
    rig.said.clear();
    rig.hub.drain(rig.now, 20 * SECOND, 2 * SECOND);
    // Three are owed something, and it could be one of them.
    let stranger = rig.hub.connect(rig.now, 99).unwrap();
    assert!(rig.hub.hello(rig.now, 0, stranger, who(99), None));
    let said = rig.drain();
    assert!(
        matches!(said[..], [Said::Close(conn, CloseReason::Draining, after)] if conn == stranger && !after.is_zero())
    );
    rig.hub.disconnected(rig.now, stranger, Reason::Closed(1012));
    let mut batches = Vec::new();
    let mut afters = BTreeSet::new();
    for _ in 0..50 {
        let said = rig.later(Duration::from_millis(100));
        let closed: Vec<(ConnId, Duration)> = said
            .iter()
            .filter_map(|said| match said {
                Said::Close(conn, why, after) => {
                    assert_eq!((*why, why.code()), (CloseReason::Draining, 1012), "never 1000");
                    Some((*conn, *after))
                }
                _ => None,
            })
            .collect();
        for (conn, after) in &closed {
            assert!(*after <= 20 * SECOND);
            afters.insert(*after);
            rig.hub.disconnected(rig.now, *conn, Reason::Closed(1012));
        }
        batches.push(closed.len());
        rig.drain();
    }
    assert_eq!(batches.iter().sum::<usize>(), 40);
    assert!(batches.iter().all(|batch| *batch <= 4), "in batches: {batches:?}");
    assert!(afters.len() >= 35, "a time of its own each: {}", afters.len());
    assert!(rig.said.contains(&Said::Event(HubEvent::Drained { abandoned: 3 })), "unfinished messages are counted");
    let abandoned = rig
        .said
        .iter()
        .filter(|said| {
            matches!(
                said,
                Said::Event(HubEvent::Session { event: Event::Settled { outcome: Outcome::Abandoned, .. }, .. })
            )
        })
        .count();
    assert_eq!(abandoned, 3, "and each is reported");
    let denied = rig.hub.connect(rig.now, 99).unwrap_err();
    assert!(denied.why == CloseReason::Draining && denied.retry_after > Duration::ZERO);
    assert_eq!(
        rig.hub.health(),
        Health { draining: true, fleet_http: rig.hub.health().fleet_http, ..Health::default() }
    );
}

#[test]
fn u9_a_drain_that_was_slept_through_ends_when_it_wakes() {
    let mut rig = Rig::new(|_| {});
    for n in 0..20 {
        rig.join(n);
    }
    rig.hub.drain(rig.now, 20 * SECOND, 2 * SECOND);
    rig.later(Duration::from_millis(300));
    rig.freeze(10 * SECOND);
    rig.later(5 * SECOND);
    assert!(rig.said.contains(&Said::Event(HubEvent::Drained { abandoned: 0 })));
}

#[test]
fn u10_active_means_heard_from_not_registered() {
    let mut rig = Rig::new(|config| {
        config.session.heartbeat.interval = Duration::ZERO;
        config.idle = 60 * SECOND;
    });
    let (talks, _) = rig.join(1);
    rig.join(2);
    for _ in 0..5 {
        rig.later(30 * SECOND);
        let _ = rig.hub.received(rig.now, 0, talks, Head::Other, 1, None);
        rig.drain();
    }
    let health = rig.hub.health();
    assert_eq!((health.connections, health.active), (2, 1));
    rig.later(300 * SECOND);
    assert_eq!(rig.hub.health().active, 0);
}

#[test]
fn p8_the_fleet_uses_http_below_sixty_percent_until_above_eighty() {
    let mut rig = Rig::new(|_| {});
    rig.hub.expect(rig.now, Some(10));
    assert_eq!(rig.drain(), [Said::Event(HubEvent::Fleet { http: true })]);
    let conns: Vec<_> = (0..8).map(|n| rig.join(n).0).collect();
    assert!(rig.hub.health().fleet_http, "eighty is not above eighty");
    rig.said.clear();
    rig.join(8);
    assert!(rig.said.contains(&Said::Event(HubEvent::Fleet { http: false })));
    for conn in &conns[..3] {
        rig.hub.disconnected(rig.now, *conn, Reason::Closed(1006));
        rig.drain();
    }
    assert!(!rig.hub.health().fleet_http, "sixty is not below sixty");
    rig.hub.disconnected(rig.now, conns[3], Reason::Closed(1006));
    assert!(rig.drain().contains(&Said::Event(HubEvent::Fleet { http: true })));
}

#[test]
fn p8_a_replacement_is_no_loss_and_a_newcomer_no_absence() {
    let mut rig = Rig::new(|_| {});
    rig.hub.expect(rig.now, Some(5));
    let conns: Vec<_> = (0..5).map(|n| rig.join(n).0).collect();
    for conn in &conns[3..] {
        rig.hub.disconnected(rig.now, *conn, Reason::Closed(1006));
    }
    rig.drain();
    rig.said.clear();
    rig.join(0);
    assert!(!rig.hub.health().fleet_http, "three of five before and after");
    rig.hub.expect(rig.now, None);
    rig.join(9);
    let told = |said: &Said| matches!(said, Said::Event(HubEvent::Fleet { .. }));
    assert!(!rig.said.iter().any(told), "four of six, at no time three of six");
}

#[test]
fn g9_time_that_passes_between_an_input_and_the_poll_leaves_no_deadline_in_the_past() {
    let mut rig = Rig::new(|_| {});
    rig.arrive(who(1), 1);
    // Its session has never been polled, and its first deadlines pass.
    rig.now = rig.now.after(30 * SECOND);
    rig.hub.knock(rig.now, 5).unwrap();
    rig.drain();
}

#[test]
fn l5_a_hub_that_stood_still_judges_nobody_by_that() {
    let mut rig = Rig::new(|_| {});
    let conn = rig.hub.connect(rig.now, 1).unwrap();
    rig.drain();
    assert!(rig.freeze(100 * SECOND).is_empty(), "its greeting may lie unread");
    assert!(rig.hub.hello(rig.now, 0, conn, who(1), None));
    rig.drain();
    assert!(rig.hub.verified(rig.now, 0, conn, Verdict::Accept { http: false }));
}

#[test]
fn g4_a_hub_in_fixed_memory_serves_as_many_as_it_holds() {
    let mut hub: Hub<u32, Inline<2, 2, 4, 4, 4>> =
        Hub::new(HubConfig::DEFAULT.check().unwrap(), 1, Origin::new(1, 1), Instant::ZERO);
    let mut conns = Vec::new();
    for n in 0..2 {
        let conn = hub.connect(at(1), n).unwrap();
        hub.hello(at(1), 0, conn, who(n), None);
        hub.verified(at(1), 0, conn, Verdict::Accept { http: false });
        conns.push(conn);
    }
    assert_eq!(hub.connect(at(1), 7).unwrap_err().why, CloseReason::Full);
    for n in 0..9 {
        assert_eq!(hub.publish(at(1), n, 1, Publish::DEFAULT, |_, _| true).reached, 2);
    }
    let mut copies = 0;
    while let Some(output) = hub.poll() {
        copies += usize::from(matches!(output, HubOutput::Broadcast { .. }));
    }
    assert_eq!((copies as u64 + hub.stats().lost, hub.health().connections), (18, 2));
    let text: String = std::format!("{hub:?}");
    assert!(text.contains("connections: 2"));
    let _ = (State::Idle, LinkId::NONE);
}

#[test]
fn u8_a_word_counts_once_also_where_an_identity_has_several_sessions() {
    let mut rig = Rig::new(|config| config.duplicate = Duplicate::Allow(2));
    let wall = 1_800_000_000_000_000;
    let stamp = |nonce| Some(Stamp { nonce, issued: wall });
    let greet = |rig: &mut Rig, nonce, address| {
        let conn = rig.hub.connect(rig.now, address).unwrap();
        rig.hub.hello(rig.now, wall, conn, who(1), stamp(nonce));
        rig.drain();
        rig.hub.verified(rig.now, wall, conn, Verdict::Accept { http: false });
        (conn, rig.drain())
    };
    let (owner, _) = greet(&mut rig, 7, 1);
    // Somebody recorded the greeting and says it again: the place beside the owner's is not for him.
    let (thief, said) = greet(&mut rig, 7, 2);
    assert!(said.contains(&Said::Close(thief, CloseReason::Replayed, Duration::ZERO)), "{said:?}");
    let head = Head::Data { id: Some(MessageId::from_bits(1)), key: None };
    assert!(matches!(rig.hub.received(rig.now, wall, owner, head, 1, stamp(8)), Heard::Arrival(..)));
    let (second, _) = greet(&mut rig, 9, 1);
    assert!(matches!(rig.hub.received(rig.now, wall, second, head, 1, stamp(8)), Heard::Replayed(_)));
    for nonce in [7, 8, 9] {
        let request = RequestId(nonce);
        let again = rig.hub.request(rig.now, wall, who(1), request, None, None, 1, stamp(nonce));
        assert_eq!(again.map_err(|denied| denied.why), Err(CloseReason::Replayed));
    }
}

#[test]
fn u6_what_still_waited_for_a_connection_that_ends_is_counted_and_told() {
    for slow in [Slow::DropOldest, Slow::Disconnect] {
        let mut rig = Rig::new(|config| config.bulk = Bulk { slow, most: 3, ..Bulk::DEFAULT });
        let (conn, session) = rig.join(1);
        rig.hub.writable(rig.now, conn, false);
        rig.drain();
        let mut wanted = 0;
        for n in 0..4 {
            wanted += 1;
            rig.hub.publish(rig.now, n, 1, Publish::DEFAULT, |_, _| true);
        }
        rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
        rig.drain();
        let told = rig.said.iter().map(|said| match said {
            Said::Event(HubEvent::Lost { session: of, count }) if *of == session => *count,
            _ => 0,
        });
        assert_eq!(told.sum::<u32>(), wanted, "{slow:?}");
        assert_eq!(rig.hub.stats().lost, u64::from(wanted), "{slow:?}");
    }
}

#[test]
fn u8_who_finds_no_place_gets_a_time_of_its_own_whatever_is_full() {
    fn times(hub: &mut Hub<u32, impl Memory<u32>>, now: Instant) -> Vec<Duration> {
        (0..10).filter_map(|n| hub.connect(now, n).err()).map(|denied| denied.retry_after).collect()
    }
    let now = at(1);
    let small = HubConfig { addresses: 2, ..HubConfig::DEFAULT };
    let mut watched: Hub<u32, Grows> = Hub::new(small.check().unwrap(), 1, Origin::new(9, 1), now);
    let mut fixed: Hub<u32, Inline<2>> = Hub::new(HubConfig::DEFAULT.check().unwrap(), 1, Origin::new(9, 1), now);
    for times in [times(&mut watched, now), times(&mut fixed, now)] {
        assert_eq!(times.len(), 8);
        assert_eq!(times.iter().collect::<BTreeSet<_>>().len(), 8, "{times:?}");
    }
    // The same for sessions.
    let mut fixed: Hub<u32, Inline<2>> = Hub::new(HubConfig::DEFAULT.check().unwrap(), 1, Origin::new(9, 1), now);
    let times: Vec<_> = (0..5).filter_map(|n| fixed.adopt(now, who(n), false).err()).map(|no| no.retry_after).collect();
    assert_eq!(times.iter().collect::<BTreeSet<_>>().len(), 3, "{times:?}");
}

#[test]
fn u1_no_table_is_searched_from_end_to_end() {
    let mut rig = Rig::new(|config| config.per_address.handshakes = Rate::UNLIMITED);
    let conns: Vec<_> = (0..500_u64).map(|n| rig.hub.connect(rig.now, n << 32).unwrap()).collect();
    for conn in conns.iter().step_by(2) {
        rig.hub.disconnected(rig.now, *conn, Reason::Closed(1006));
    }
    for n in 0..250_u64 {
        rig.hub.connect(rig.now, n << 44).unwrap();
    }
    // The end of a connection, and every look at an address, go along one chain.
    assert!(rig.hub.conns.longest_chain() <= 16, "{}", rig.hub.conns.longest_chain());
    assert!(rig.hub.addresses.longest_chain() <= 16, "{}", rig.hub.addresses.longest_chain());
}

#[test]
fn u3_adopting_names_the_session_there_is_and_keeps_it() {
    let mut rig = Rig::new(|config| config.duplicate = Duplicate::Allow(1));
    let (conn, session) = rig.join(1);
    assert_eq!(rig.hub.adopt(rig.now, who(1), false), Ok(session), "the one it has");
    rig.drain();
    rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
    rig.drain();
    rig.later(3599 * SECOND);
    assert_eq!(rig.hub.adopt(rig.now, who(1), false), Ok(session));
    rig.drain();
    rig.later(2 * SECOND);
    assert_eq!(rig.hub.find(who(1)), Some(session), "it is wanted, so it lives as long as a new one");
}

#[test]
fn u2_a_zombie_cannot_hold_the_door_where_newcomers_are_refused() {
    let mut rig = Rig::new(|config| config.duplicate = Duplicate::Refuse);
    let (zombie, session) = rig.join(1);
    rig.later(SECOND);
    let second = rig.arrive(who(1), 1);
    let said = rig.drain();
    assert!(said.contains(&Said::Close(second, CloseReason::Duplicate, Duration::ZERO)));
    assert!(said.contains(&Said::Ping(zombie)), "it is asked, {said:?}");
    rig.later(4 * SECOND);
    let third = rig.arrive(who(1), 1);
    assert!(rig.drain().contains(&Said::Welcome(third, session, true)));
}

#[test]
fn u8_whoever_knocked_in_vain_is_counted_as_refused() {
    let mut rig = Rig::new(|config| config.duplicate = Duplicate::ProbeThenReplace);
    let (first, _) = rig.join(1);
    let _ = rig.arrive(who(1), 1);
    rig.drain();
    let _ = rig.hub.received(rig.now, 0, first, Head::Pong, 2, None);
    rig.drain();
    let stats = rig.hub.stats();
    assert_eq!((stats.handshakes, stats.admitted, stats.refused), (2, 1, 1));
    // So is a request that is turned away.
    rig.hub.drain(rig.now, SECOND, SECOND);
    assert!(rig.hub.request(rig.now, 0, who(2), RequestId(1), None, None, 1, None).is_err());
    assert_eq!(rig.hub.stats().refused, 2);
}

#[test]
fn u8_what_was_said_to_the_hub_before_this_one_counts_no_more() {
    let mut rig = Rig::new(|_| {});
    let wall = 1_800_000_000_000_000;
    let greet = |rig: &mut Rig, nonce, wall, issued| {
        let conn = rig.hub.connect(rig.now, 1).unwrap();
        rig.hub.hello(rig.now, wall, conn, who(nonce), Some(Stamp { nonce, issued }));
        rig.hub.verified(rig.now, wall, conn, Verdict::Accept { http: false });
        rig.drain().iter().any(|said| matches!(said, Said::Welcome(to, ..) if *to == conn))
    };
    assert!(greet(&mut rig, 1, wall, wall - 4_000_000), "a clock may be a little behind");
    let mut greet_again = |nonce, who_else, wall, issued| {
        let conn = rig.hub.connect(rig.now, 1).unwrap();
        rig.hub.hello(rig.now, wall, conn, who(who_else), Some(Stamp { nonce, issued }));
        rig.hub.verified(rig.now, wall, conn, Verdict::Accept { http: false });
        rig.drain().iter().any(|said| matches!(said, Said::Welcome(to, ..) if *to == conn))
    };
    assert!(!greet_again(2, 1, wall + 60_000_000, wall - 10_000_000), "recorded before this hub began");
    assert!(greet_again(3, 1, wall + 60_000_000, wall - 8_000_000), "within the tolerance, and to this hub");
    // Our clock is put right: it had been an hour ahead.
    assert!(greet(&mut rig, 4, wall - 3_600_000_000, wall - 3_600_000_000));
}

#[test]
fn s12_a_hub_that_follows_another_marks_what_that_one_may_have_completed() {
    let mut rig = Rig::new(|config| config.session.inbox.after_loss = true);
    let marked = |rig: &mut Rig, conn, id| match rig.predict(conn, id) {
        Heard::Arrival(_, Arrival::Deliver { maybe_dup, .. }) => maybe_dup,
        other => panic!("not delivered: {other:?}"),
    };
    let (conn, _) = rig.join(1);
    assert!(marked(&mut rig, conn, 1));
    rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
    rig.later(Duration::from_secs(3601));
    let (conn, _) = rig.join(2);
    assert!(!marked(&mut rig, conn, 2), "nobody repeats what is older than the horizon");
}

#[test]
fn u8_what_was_said_before_a_dismissal_counts_no_more() {
    let mut rig = Rig::new(|_| {});
    let wall = 1_800_000_000_000_000;
    let greet = |rig: &mut Rig, nonce, at: i64, issued| {
        let conn = rig.hub.connect(rig.now, 1).unwrap();
        rig.hub.hello(rig.now, at, conn, who(1), Some(Stamp { nonce, issued }));
        rig.hub.verified(rig.now, at, conn, Verdict::Accept { http: false });
        let said = rig.drain();
        said.iter().any(|said| matches!(said, Said::Welcome(to, ..) if *to == conn)).then_some(conn)
    };
    let conn = greet(&mut rig, 1, wall, wall).unwrap();
    assert!(rig.hub.dismiss(rig.now, rig.hub.session_of(conn).unwrap()));
    rig.drain();
    rig.hub.disconnected(rig.now, conn, Reason::Closed(1008));
    rig.drain();
    assert_eq!(rig.hub.health().sessions, 0);
    let later = wall + 60_000_000;
    let conn = greet(&mut rig, 2, later, later).unwrap();
    assert!(rig.hub.dismiss(rig.now, rig.hub.session_of(conn).unwrap()));
    rig.drain();
    rig.hub.disconnected(rig.now, conn, Reason::Closed(1008));
    rig.drain();
    assert!(greet(&mut rig, 1, later, wall).is_none(), "recorded before it was dismissed");
    assert!(greet(&mut rig, 3, later, later).is_some(), "and accepted again");
}

#[test]
fn u3_whoever_takes_what_is_posted_keeps_its_session() {
    let mut rig = Rig::new(|config| {
        config.session.route.http = true;
        config.session.route.grace = Duration::ZERO;
    });
    let session = rig.hub.adopt(rig.now, who(1), true).unwrap();
    for _ in 0..5 {
        rig.hub.send(rig.now, session, 7, 1, Policy::DEFAULT).unwrap();
        let mut posts = Vec::new();
        while let Some(output) = rig.hub.poll() {
            if let HubOutput::Post { post, .. } = output {
                posts.push(post);
            }
        }
        for post in posts {
            rig.hub.posted(rig.now, session, post, crate::HttpOutcome::status(200));
        }
        rig.later(Duration::from_secs(1800));
    }
    assert_eq!(rig.hub.find(who(1)), Some(session));
}

#[test]
fn u4_a_subscription_survives_the_connection_and_ends_with_the_session() {
    let mut rig = Rig::new(|config| {
        config.topics.history = 2;
        config.topics.presence = true;
    });
    let (topic, filter) = (TopicName::new("a.b").unwrap(), TopicFilter::new("a.*").unwrap());
    let presence =
        |session, present, subscribers| Said::Event(HubEvent::Presence { session, topic, present, subscribers });
    let (conn, session) = rig.join(1);
    assert!(rig.hub.subscribe(rig.now, session, &filter, Start::Now).unwrap().added);
    assert_eq!(rig.hub.subscribe(rig.now, session, &topic.into(), Start::Now).unwrap().topics, 1);
    assert_eq!(rig.drain(), [presence(session, true, 1)]);
    let sent = rig.hub.publish_topic(rig.now, &topic, 1, 1);
    assert_eq!(sent, Sent { reached: 1, refused: 0, dropped: 0 });
    assert_eq!(rig.drain(), [Said::Topic(conn, 1, 1)]);
    rig.hub.disconnected(rig.now, conn, Reason::Closed(1006));
    for n in 2..=4 {
        assert_eq!(rig.hub.publish_topic(rig.now, &topic, n, 1), Sent::default(), "it is away, not refused");
    }
    assert_eq!(rig.hub.subscribers(&topic), 1);
    rig.drain();
    let again = rig.arrive(who(1), 1);
    let came: Vec<Said> =
        rig.drain().into_iter().filter(|said| matches!(said, Said::Gap(..) | Said::Topic(..))).collect();
    assert_eq!(came, [Said::Gap(again, Some(2), 2), Said::Topic(again, 3, 3), Said::Topic(again, 4, 4)]);
    assert!(rig.hub.unsubscribe(rig.now, session, &topic.into()) && rig.hub.subscribers(&topic) == 1, "by the filter");
    assert!(rig.hub.dismiss(rig.now, session));
    rig.drain();
    rig.hub.disconnected(rig.now, again, Reason::Closed(1008));
    rig.drain();
    let ended = Said::Event(HubEvent::Ended { session, identity: who(1), why: CloseReason::Dismissed });
    let order: Vec<&Said> = rig
        .said
        .iter()
        .filter(|said| **said == ended || matches!(said, Said::Event(HubEvent::Presence { present: false, .. })))
        .collect();
    assert_eq!(order, [&presence(session, false, 0), &ended], "its end is told before the session's");
    assert_eq!(rig.hub.subscribe(rig.now, session, &filter, Start::Now), Err(TopicsFull::NoSession));
    // By its deadlines alone.
    while let Some(at) = rig.hub.deadline() {
        rig.hub.tick(at);
        rig.drain();
    }
    assert_eq!(rig.hub.topics().count(), 0, "nobody's, and empty: forgotten");
}

/// Cells of tables that a publication and its delivery look at, with so many receivers among so many sessions, each of
/// which is subscribed to something.
fn cells_touched(receivers: u64, sessions: u64) -> u64 {
    let mut config = HubConfig::DEFAULT;
    (config.sessions, config.connections, config.pending) = (20_000, 20_000, 20_000);
    (config.handshakes, config.addresses) = (Rate::UNLIMITED, 20_000);
    let mut hub: Hub<u32, Grows> = Hub::new(config.check().unwrap(), 1, Origin::new(9, 1), Instant::ZERO);
    let (now, topic) = (at(1), TopicName::new("news").unwrap());
    for n in 0..sessions {
        let conn = hub.connect(now, n).unwrap();
        assert!(hub.hello(now, 0, conn, who(n), None) && hub.verified(now, 0, conn, Verdict::Accept { http: false }));
        let session = hub.session_of(conn).unwrap();
        let other = TopicName::new(&std::format!("other.{}", n % 100)).unwrap();
        hub.subscribe(now, session, &other.into(), Start::Now).unwrap();
        if n % (sessions / receivers) == 0 {
            hub.subscribe(now, session, &topic.into(), Start::Now).unwrap();
        }
    }
    while hub.poll().is_some() {}
    let touched = |hub: &Hub<u32, Grows>| {
        hub.topics.touched() + hub.peers.touched.get() + hub.conns.touched.get() + hub.addresses.touched.get()
    };
    let before = touched(&hub);
    for n in 0..10 {
        assert_eq!(u64::from(hub.publish_topic(now, &topic, n, 1).reached), receivers);
        let mut came = 0;
        while let Some(output) = hub.poll() {
            came += u64::from(matches!(output, HubOutput::Topic { .. }));
        }
        assert_eq!(came, receivers);
    }
    touched(&hub) - before
}

#[test]
fn u4_publishing_costs_by_receivers_and_not_by_sessions() {
    let few = cells_touched(10, 100);
    for sessions in [1000, 10_000] {
        let many = cells_touched(10, sessions);
        assert!(many < few * 3 / 2, "ten receivers: {few} cells among 100 sessions, {many} among {sessions}");
    }
    let more = cells_touched(100, 1000);
    assert!(more > few * 5, "it does count: {few} {more}");
}

#[test]
fn u7_broadcasts_and_topics_take_turns_and_so_does_each_topic() {
    let mut rig = Rig::new(|_| {});
    let (conn, session) = rig.join(1);
    rig.hub.subscribe(rig.now, session, &TopicFilter::new("*").unwrap(), Start::Now).unwrap();
    for n in 0..3 {
        rig.hub.publish(rig.now, 100 + n, 1, Publish::DEFAULT, |_, _| true);
    }
    for (topic, n) in [("busy", 1), ("busy", 2), ("busy", 3), ("quiet", 1)] {
        rig.hub.publish_topic(rig.now, &TopicName::new(topic).unwrap(), n, 1);
    }
    let quiet = rig.hub.topics().find(|topic| topic.name.as_str() == "quiet").unwrap().newest.offset;
    let order = [
        Said::Broadcast(conn, 100),
        Said::Topic(conn, 1, 1),
        Said::Broadcast(conn, 101),
        Said::Topic(conn, quiet, 1),
        Said::Broadcast(conn, 102),
        Said::Topic(conn, 2, 2),
        Said::Topic(conn, 3, 3),
    ];
    assert_eq!(rig.drain(), order);
}

#[test]
fn u4_whoever_finds_no_place_at_a_new_topic_is_counted_and_told_of() {
    let mut rig = Rig::new(|config| config.topics.per_session = 1);
    let (conn, session) = rig.join(1);
    let [first, second] = ["first", "second"].map(|name| TopicName::new(name).unwrap());
    rig.hub.subscribe(rig.now, session, &TopicFilter::new("*").unwrap(), Start::Now).unwrap();
    assert_eq!(rig.hub.publish_topic(rig.now, &first, 1, 1), Sent { reached: 1, refused: 0, dropped: 0 });
    assert_eq!(rig.hub.publish_topic(rig.now, &second, 2, 1), Sent { reached: 0, refused: 1, dropped: 0 });
    let lost = Said::Event(HubEvent::Lost { session, count: 1 });
    assert_eq!(rig.drain(), [lost, Said::Topic(conn, 1, 1)]);
    assert_eq!(rig.hub.subscribe(rig.now, session, &second.into(), Start::Oldest), Err(TopicsFull::Share));
    // Longer than all that may be held: nobody gets it, and there is no hole.
    assert_eq!(rig.hub.publish_topic(rig.now, &first, 3, 17 << 20), Sent { reached: 0, refused: 1, dropped: 0 });
    assert_eq!(rig.hub.publish_topic(rig.now, &first, 4, 1).reached, 1);
    assert_eq!(rig.drain(), [Said::Topic(conn, 2, 4)]);
    assert_eq!(rig.hub.stats().refused_copies, 2);
}

/// It would otherwise be taken for its later self: its numbers for copies, and its messages lost in silence.
#[test]
fn i3_an_older_self_of_a_native_peer_is_refused_whether_or_not_it_asks_to_go_on() {
    let mut rig = Rig::new(|config| config.native = Some(crate::NATIVE_PEER));
    let mut come = |epoch, resume| {
        let conn = rig.hub.connect(rig.now, 1).unwrap();
        rig.hub.hello(rig.now, 0, conn, who(1), None);
        let greeting = Greeting { resume, ..Greeting::new(Origin::new(5, epoch)) };
        rig.hub.verified(rig.now, 0, conn, Verdict::Greeted { greeting, known: None });
        let by_http = rig.hub.greet(rig.now, who(1), &greeting, None).map_err(|denied| denied.why);
        let said = rig.drain();
        let refused = said.contains(&Said::Close(conn, CloseReason::Fenced, Duration::ZERO));
        assert_eq!(refused, by_http == Err(CloseReason::Fenced));
        refused
    };
    assert!(!come(3, false) && !come(3, true), "itself");
    assert!(come(2, true) && come(2, false));
    assert!(!come(4, false), "a later one");
}
