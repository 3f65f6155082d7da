//! L13 of a hub, cell by cell: path × peer × messages while it goes down, and how each ends.
//!
//! One peer with a message each way, and one that is owed nothing. The connection breaks unless the peer stays, the hub
//! goes down for 10 s, the application decides after 1 s, and a peer that was away is back after 3 s. Posts are the
//! session's, whose own table has them.

use super::*;
use crate::{Answer, Refusal};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Whose {
    There,
    Back,
    Away,
}
use Whose::{Away, Back, There};

/// How the peer's own message comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Frame,
    Request,
}

type Row = (Whose, Option<By>, bool, Option<bool>, Option<bool>, [u32; 2]);

/// Peer, one of its own, a message for it; whether the message for it was finished, whether its own was, and within which
/// seconds the hub had drained. `None`: there was none.
const TABLE: [Row; 15] = [
    (There, None, false, None, None, [0, 1]),
    (There, None, true, Some(true), None, [1, 2]),
    (There, Some(By::Frame), false, None, Some(true), [1, 2]),
    (There, Some(By::Frame), true, Some(true), Some(true), [1, 2]),
    (There, Some(By::Request), false, None, Some(true), [1, 2]),
    (Back, None, false, None, None, [0, 1]),
    (Back, None, true, Some(true), None, [3, 4]),
    (Back, Some(By::Frame), false, None, Some(true), [3, 4]),
    (Back, Some(By::Frame), true, Some(true), Some(true), [3, 4]),
    (Back, Some(By::Request), false, None, Some(true), [3, 4]),
    (Away, None, false, None, None, [0, 1]),
    (Away, None, true, Some(false), None, [10, 11]),
    (Away, Some(By::Frame), false, None, Some(false), [10, 11]),
    (Away, Some(By::Frame), true, Some(false), Some(false), [10, 11]),
    (Away, Some(By::Request), false, None, Some(false), [10, 11]),
];

const MINE: u128 = 7;
const NEW: u128 = 9;

struct Cell {
    rig: Rig,
    requests: u64,
    /// The peer has heard what became of its message.
    told: bool,
    delivered: Option<bool>,
    drained: Option<Instant>,
}

impl Cell {
    fn new() -> Self {
        let rig = Rig::new(|config| config.session.outbox.proof = crate::Proof::Acknowledgement);
        Self { rig, requests: 0, told: false, delivered: None, drained: None }
    }

    /// What was said; closes are answered, as peers do.
    fn note(&mut self, said: Vec<Said>) {
        for said in said {
            match said {
                Said::Close(conn, why, after) => {
                    assert_eq!(
                        (why, after.is_zero()),
                        (CloseReason::Draining, false),
                        "never without a time to come back"
                    );
                    self.rig.hub.disconnected(self.rig.now, conn, Reason::Closed(1012));
                    let more = self.rig.drain();
                    self.note(more);
                }
                Said::Ack(_, id) => self.told |= id == MessageId::from_bits(MINE),
                Said::Respond(_, Answer::Done) => self.told = true,
                Said::Event(HubEvent::Session { event: Event::Settled { outcome, .. }, .. }) => {
                    self.delivered = Some(outcome == Outcome::Delivered { path: Path::WebSocket });
                }
                Said::Event(HubEvent::Drained { .. }) => self.drained = Some(self.rig.now),
                _ => {}
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis / 100 {
            let said = self.rig.later(Duration::from_millis(100));
            self.note(said);
        }
    }

    fn request(&mut self, id: u128) -> Result<Arrival, Denied> {
        self.requests += 1;
        let (now, id, request) = (self.rig.now, Some(MessageId::from_bits(id)), RequestId(self.requests));
        let asked = self.rig.hub.request(now, 0, who(1), request, id, None, 100, None);
        asked.map(|(_, arrival)| arrival)
    }

    /// It dials again.
    fn dials(&mut self, n: u64) -> ConnId {
        let conn = self.rig.hub.connect(self.rig.now, n).expect("somebody is owed something");
        assert!(self.rig.hub.hello(self.rig.now, 0, conn, who(n), None));
        let said = self.rig.drain();
        if said.contains(&Said::Verify(conn)) {
            assert!(self.rig.hub.verified(self.rig.now, 0, conn, Verdict::Accept { http: false }));
        }
        self.note(said);
        conn
    }

    /// It acknowledges what is for it.
    fn acknowledges(&mut self, conn: ConnId) {
        let origin = Origin::new(10, 1);
        let head = Head::Ack { id: origin.message(Seq::FIRST) };
        let _ = self.rig.hub.received(self.rig.now, 0, conn, head, 10, None);
    }

    fn returns(&mut self, own: Option<By>) {
        if own == Some(By::Request) {
            let fresh = self.request(NEW);
            assert!(matches!(fresh, Ok(Arrival::Answer(Answer::Busy { .. }))), "{fresh:?}");
            self.told |= self.request(MINE) == Ok(Arrival::Answer(Answer::Done));
            return;
        }
        let conn = self.dials(1);
        let fresh = self.rig.predict(conn, NEW);
        assert!(matches!(fresh, Heard::Arrival(_, Arrival::Full)), "nothing new is taken: {fresh:?}");
        if own.is_some() {
            let copy = self.rig.predict(conn, MINE);
            assert!(matches!(copy, Heard::Arrival(_, Arrival::Duplicate)), "{copy:?}");
        }
        let said = self.rig.drain();
        let data = said.iter().any(|said| matches!(said, Said::Data(..)));
        self.note(said);
        if data {
            self.acknowledges(conn);
        }
    }

    fn run(&mut self, whose: Whose, own: Option<By>, out: bool) -> Duration {
        let (conn, session) = self.rig.join(1);
        let (idle, _) = self.rig.join(2);
        if out {
            self.rig.hub.send(self.rig.now, session, 1, 1, Policy::DEFAULT).unwrap();
        }
        let held = own.map(|by| match by {
            By::Frame => delivery(self.rig.predict(conn, MINE)).1,
            By::Request => match self.request(MINE) {
                Ok(Arrival::Deliver { delivery, .. }) => delivery,
                other => panic!("{other:?}"),
            },
        });
        self.pass(100);
        if whose != There {
            self.rig.hub.disconnected(self.rig.now, conn, Reason::Closed(1006));
            if own == Some(By::Request) {
                self.rig.hub.request_gone(self.rig.now, session, RequestId(self.requests));
            }
        }
        let from = self.rig.now;
        self.rig.hub.drain(from, 20 * SECOND, 10 * SECOND);
        let refused = self.rig.hub.send(from, session, 2, 1, Policy::DEFAULT).unwrap_err().0;
        assert_eq!(refused, Refusal::Closed, "nothing new is taken");
        let fresh = self.rig.predict(idle, NEW);
        assert!(matches!(fresh, Heard::Arrival(_, Arrival::Full)), "nor of one that is not closed yet: {fresh:?}");
        self.pass(1000);
        if out || own.is_some() {
            let stranger = self.dials(3);
            assert_eq!(self.rig.hub.session_of(stranger), None, "nobody new comes in");
        } else {
            assert_eq!(self.rig.hub.connect(from, 3).unwrap_err().why, CloseReason::Draining, "nobody is waited for");
        }
        if let Some(delivery) = held {
            assert!(self.rig.hub.complete(self.rig.now, session, delivery, crate::Verdict::Done));
        }
        if out && whose == There {
            self.acknowledges(conn);
        }
        self.pass(2000);
        if whose == Back && (out || own.is_some()) {
            self.returns(own);
        }
        self.pass(12_000);
        self.drained.expect("it has drained").since(from)
    }
}

#[test]
fn l13_who_is_owed_something_comes_back_while_the_hub_goes_down_and_nobody_else() {
    for (whose, own, out, delivered, told, [from, to]) in TABLE {
        let cell = format!("{whose:?}, own {own:?}, for it {out}");
        let mut found = Cell::new();
        let took = found.run(whose, own, out);
        assert_eq!((found.delivered, own.map(|_| found.told)), (delivered, told), "{cell}");
        assert!(took >= SECOND * from && took < SECOND * to, "{cell}: {took:?}");
    }
}

/// L13: the door is open for as long as somebody is owed something, and no longer.
#[test]
fn l13_the_door_closes_with_the_last_acknowledgement() {
    let mut rig = Rig::new(|_| {});
    let conns: Vec<_> = (0..40).map(|n| rig.join(n)).collect();
    // Of the last batch: it is not closed yet.
    let (conn, session) = conns[39];
    let (_, held) = delivery(rig.predict(conn, MINE));
    rig.hub.drain(rig.now, 20 * SECOND, 10 * SECOND);
    rig.drain();
    assert!(rig.hub.connect(rig.now, 99).is_ok());
    assert!(rig.hub.complete(rig.now, session, held, crate::Verdict::Done));
    assert!(rig.drain().contains(&Said::Ack(conn, MessageId::from_bits(MINE))));
    assert_eq!(rig.hub.connection(session), Some(conn), "its batch has not come");
    assert_eq!(rig.hub.connect(rig.now, 98).unwrap_err().why, CloseReason::Draining);
}
