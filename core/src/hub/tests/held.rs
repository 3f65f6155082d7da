//! U12: the bytes of peers' messages that the application has are shared by identity.

use super::*;
use crate::resume::Greeting;
use crate::{Answer, DeliveryId, Seq};

const LIMIT: u64 = 2000;

fn rig(change: impl FnOnce(&mut HubConfig)) -> Rig {
    Rig::new(|config| {
        config.held_bytes = LIMIT;
        config.native = Some(crate::NATIVE_PEER);
        change(config);
    })
}

impl Rig {
    /// Sends messages of this many bytes, each with an id of its own, until there is no room for one. The number of those that
    /// were taken.
    fn fill(&mut self, conn: ConnId, from: u128, bytes: u32) -> u64 {
        let message = |n: u128| Head::Data { id: Some(MessageId::from_bits(from + n)), key: None };
        for n in 0.. {
            match self.hub.received(self.now, 0, conn, message(n), bytes, None) {
                Heard::Arrival(..) => {}
                heard => {
                    assert_eq!(heard, Heard::NoRoom);
                    return n as u64;
                }
            }
        }
        0
    }

    /// Number `seq` of this native identity, by HTTP.
    fn post(&mut self, n: u64, seq: u64, bytes: u32) -> Result<(SessionId, Arrival), Denied> {
        self.asked += 1;
        let id = Some(native(n).message(Seq::from_number(seq)));
        self.hub.request(self.now, 0, who(n), RequestId(self.asked), id, None, bytes, None)
    }

    /// A native identity greets by HTTP.
    fn greet(&mut self, n: u64) -> SessionId {
        let greeting = Greeting {
            origin: native(n),
            resume: false,
            rx: None,
            next: Seq::FIRST,
            una: Seq::FIRST,
            win: 64,
            life: Duration::from_secs(3600),
            order: true,
        };
        self.hub.greet(self.now, who(n), &greeting, None).unwrap().0
    }

    fn gives_back(&mut self, session: SessionId) -> bool {
        self.drain().contains(&Said::Event(HubEvent::GiveBack { session }))
    }
}

fn native(n: u64) -> Origin {
    Origin::new(100 + n, 1)
}

fn ahead(taken: Result<(SessionId, Arrival), Denied>) -> DeliveryId {
    match taken {
        Ok((_, Arrival::Ahead { delivery, .. })) => delivery,
        other => panic!("it does not wait for its turn: {other:?}"),
    }
}

/// Each takes all it may: ever less beyond its equal part, but never less than that.
#[test]
fn u12_no_identity_takes_the_room_of_another() {
    let mut rig = rig(|config| {
        config.sessions = 20;
        config.session.inbox.held = 1000;
    });
    let mut taken = Vec::new();
    for n in 1..=20 {
        let (conn, session) = rig.join(n);
        taken.push(rig.fill(conn, u128::from(n) << 32, 10));
        assert_eq!(rig.hub.connection(session), Some(conn), "nobody is disconnected for it");
    }
    // An eighth of what it leaves of 1000; an equal part is a twentieth of the other 1000.
    assert_eq!(taken[..5], [11, 9, 8, 8, 7]);
    assert!(taken.iter().all(|messages| *messages >= 5) && taken.last() == Some(&5), "{taken:?}");
    let held = rig.hub.health().held_bytes;
    assert!(held == 10 * taken.iter().sum::<u64>() && held <= LIMIT);
    // What the application is done with is there for others, and for the same.
    let first = rig.hub.find(who(1)).unwrap();
    let (conn, before) = (rig.hub.connection(first).unwrap(), rig.hub.health().held_bytes);
    rig.hub.release(first, 110);
    assert_eq!(rig.hub.health().held_bytes, before - 110);
    assert_eq!(rig.fill(conn, 1 << 64, 10), 5, "the others have what it had beyond its part");
}

/// A frame that finds no room is life and nothing else, also by HTTP; a copy of what is remembered is answered.
#[test]
fn u12_a_copy_needs_no_room_and_what_finds_none_is_told_to_come_again() {
    let mut rig = rig(|_| {});
    let (conn, session) = rig.join(1);
    let (_, delivery) = delivery(rig.predict(conn, 1));
    rig.hub.complete(rig.now, session, delivery, crate::Verdict::Done);
    assert_eq!(rig.drain(), [Said::Ack(conn, MessageId::from_bits(1))]);
    // The application keeps it.
    assert_eq!(rig.predict(conn, 6), Heard::NoRoom);
    assert_eq!(rig.drain(), [], "an acknowledgement would end it");
    assert_eq!(rig.predict(conn, 1), Heard::Arrival(session, Arrival::Duplicate));
    assert_eq!(rig.drain(), [Said::Ack(conn, MessageId::from_bits(1))]);
    let request = |rig: &mut Rig, n: u64, id| {
        let id = Some(MessageId::from_bits(id));
        rig.hub.request(rig.now, 0, who(1), RequestId(n), id, None, 100, None)
    };
    let full = request(&mut rig, 1, 6).unwrap_err();
    assert_eq!((full.why, full.why.status()), (CloseReason::Full, 503));
    assert!(full.retry_after >= SECOND);
    assert_eq!(request(&mut rig, 2, 1), Ok((session, Arrival::Answer(Answer::Done))));
    rig.hub.release(session, 100);
    assert!(matches!(rig.predict(conn, 6), Heard::Arrival(_, Arrival::Deliver { .. })), "it was not looked at before");
}

/// Several sessions of one identity have one share, and one that ends leaves what the application still has.
#[test]
fn u12_an_identity_has_one_share_however_many_sessions_it_has() {
    let mut rig = rig(|config| {
        config.duplicate = Duplicate::Allow(2);
        config.session.inbox.held = 1000;
    });
    let (one, session) = rig.join(1);
    let (two, _) = rig.join(1);
    assert_eq!((rig.fill(one, 1 << 32, 10), rig.fill(two, 2 << 32, 10)), (11, 0));
    assert!(rig.hub.dismiss(rig.now, session));
    rig.drain();
    rig.hub.disconnected(rig.now, one, Reason::Closed(1008));
    rig.drain();
    assert_eq!(rig.hub.find(who(1)).map(|left| left == session), Some(false));
    assert_eq!(rig.hub.health().held_bytes, 110, "it is in memory still");
    assert_eq!(rig.fill(two, 2 << 32, 10), 9);
    rig.hub.release(session, 110);
    assert_eq!(rig.hub.health().held_bytes, 90);
}

/// S9: what waits for its turn would wait for ever for a message that finds no room because of it.
#[test]
fn u12_what_waits_for_its_turn_makes_room_for_the_message_whose_turn_it_is() {
    let mut rig = rig(|_| {});
    let session = rig.greet(1);
    let waiting: Vec<DeliveryId> = (2..=6).map(|seq| ahead(rig.post(1, seq, 20))).collect();
    assert_eq!(rig.post(1, 7, 20).unwrap_err().why, CloseReason::Full);
    assert!(!rig.gives_back(session), "one that would wait, too, is only refused");
    assert_eq!(rig.post(1, 1, 20).unwrap_err().why, CloseReason::Full);
    assert!(rig.gives_back(session));
    for delivery in waiting {
        rig.hub.complete(rig.now, session, delivery, crate::Verdict::Retry { after: SECOND });
        rig.hub.release(session, 20);
    }
    rig.drain();
    let first = rig.post(1, 1, 20);
    assert!(matches!(first, Ok((_, Arrival::Deliver { .. }))), "{first:?}");
    // They come again when their time has come (S16), in order.
    rig.later(SECOND);
    let second = rig.post(1, 2, 20);
    assert!(matches!(second, Ok((_, Arrival::Deliver { .. }))), "{second:?}");
    let _ = ahead(rig.post(1, 4, 20));
}

/// Nobody is there who could bring the message before them: the dead limit after the last word of its peer they are given
/// back, and a request in between begins it anew.
#[test]
fn u12_what_waits_for_its_turn_waits_no_longer_than_somebody_may_bring_what_it_waits_for() {
    let dead = crate::NATIVE_PEER.heartbeat.dead;
    let mut rig = rig(|_| {});
    let session = rig.greet(1);
    let _ = ahead(rig.post(1, 3, 20));
    let given_back = |said: &[Said]| said.contains(&Said::Event(HubEvent::GiveBack { session }));
    let said = rig.later(dead - SECOND);
    assert!(!given_back(&said));
    let _ = ahead(rig.post(1, 2, 20));
    let said = rig.later(dead - SECOND);
    assert!(!given_back(&said), "it was heard from");
    let said = rig.later(2 * SECOND);
    assert!(given_back(&said));
    assert!(rig.hub.find(who(1)).is_some(), "the session lives on");
    // One that has nothing that waits is not looked at.
    rig.greet(2);
    let said = rig.later(2 * dead);
    assert!(!said.iter().any(|said| matches!(said, Said::Event(HubEvent::GiveBack { session: of }) if *of != session)));
}

/// Neither its session nor what waits for its turn ends while its peer asks again as it is told to.
#[test]
fn u12_a_request_that_finds_no_room_is_life() {
    let mut rig = rig(|config| (config.ttl, config.tolerance) = (60 * SECOND, 20 * SECOND));
    let request = |rig: &mut Rig, id, stamp| {
        rig.asked += 1;
        let id = Some(MessageId::from_bits(id));
        rig.hub.request(rig.now, 0, who(1), RequestId(rig.asked), id, None, 100, stamp)
    };
    let (session, _) = request(&mut rig, 1, None).unwrap();
    for issued in [None, Some(0), None] {
        rig.later(40 * SECOND);
        let stamp = issued.map(|issued| Stamp { issued, nonce: 7 });
        assert_eq!(request(&mut rig, 2, stamp).unwrap_err().why, CloseReason::Full);
    }
    assert_eq!(rig.hub.find(who(1)), Some(session));
    // What was signed a day ago was recorded.
    rig.later(40 * SECOND);
    let recorded = Some(Stamp { issued: -86_400_000_000, nonce: 8 });
    assert_eq!(request(&mut rig, 3, recorded).unwrap_err().why, CloseReason::Full);
    rig.later(40 * SECOND);
    assert_eq!(rig.hub.find(who(1)), None);

    let dead = crate::NATIVE_PEER.heartbeat.dead;
    let mut rig = self::rig(|_| {});
    let session = rig.greet(1);
    let _ = ahead(rig.post(1, 3, 100));
    for _ in 0..3 {
        rig.later(dead - SECOND);
        assert_eq!(rig.post(1, 2, 100).unwrap_err().why, CloseReason::Full);
    }
    let given_back = Said::Event(HubEvent::GiveBack { session });
    assert!(!rig.said.contains(&given_back));
    assert!(rig.later(dead + SECOND).contains(&given_back));
}

/// S16: of one who polls, what was given back is called arrived until it may come again; then it is a new message.
#[test]
fn u12_what_was_given_back_and_may_come_again_needs_room() {
    let mut rig = rig(|_| {});
    let session = rig.greet(1);
    rig.hub.adopt(rig.now, who(1), true).unwrap();
    let Ok((_, Arrival::Deliver { delivery, .. })) = rig.post(1, 1, 20) else { panic!() };
    rig.hub.complete(rig.now, session, delivery, crate::Verdict::Retry { after: 5 * SECOND });
    rig.hub.release(session, 20);
    rig.drain();
    for seq in 2..=6 {
        let taken = rig.post(1, seq, 20);
        assert!(matches!(taken, Ok((_, Arrival::Deliver { .. }))), "{taken:?}");
    }
    rig.now = rig.now.after(4 * SECOND);
    let copy = rig.post(1, 1, 20);
    assert!(matches!(copy, Ok((_, Arrival::Answer(Answer::Again { .. })))), "{copy:?}");
    rig.now = rig.now.after(2 * SECOND);
    assert_eq!(rig.post(1, 1, 20).unwrap_err().why, CloseReason::Full);
}
