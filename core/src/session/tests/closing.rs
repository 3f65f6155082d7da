//! L13 cell by cell: role × path × close × peer × messages, and how each ends.
//!
//! A message leaves, and one comes and lies at the application; the connection breaks after 1 s unless the peer stays;
//! the close comes at 2 s, the application decides at 3 s, a peer that was away is back at 5 s.

use super::*;

const MS: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peer {
    There,
    Back,
    Away,
}
use Peer::{Away, Back, There};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Messages {
    None,
    Out,
    In,
    Both,
}
use Messages::{Both, In, Out};

impl Messages {
    fn go(self) -> bool {
        matches!(self, Out | Both)
    }

    fn come(self) -> bool {
        matches!(self, In | Both)
    }
}

/// What became of the message that left, and of the one that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// There was none.
    No,
    /// Delivered; or its sender was told.
    Finished,
    /// Abandoned; or its sender was told nothing.
    Unfinished,
}
use End::{Finished, No, Unfinished};

/// When the session was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    AtOnce,
    Decided,
    Returned,
    Limit,
}
use When::{AtOnce, Decided, Limit, Returned};

const NEVER: u64 = u64::MAX;
/// In milliseconds.
const BREAK: u64 = 1000;
const CLOSE: u64 = 2000;
const DECIDE: u64 = 3000;
const RETURN: u64 = 5000;
const DRAIN: u64 = 10_000;

/// Drain in seconds, peer, messages; what became of the one that left, of the one that came, and when it was closed. Who
/// dials and which path there is makes no difference.
const TABLE: [(u64, Peer, Messages, End, End, When); 24] = [
    (10, There, Messages::None, No, No, AtOnce),
    (10, There, Out, Finished, No, Decided),
    (10, There, In, No, Finished, Decided),
    (10, There, Both, Finished, Finished, Decided),
    (10, Back, Messages::None, No, No, AtOnce),
    (10, Back, Out, Finished, No, Returned),
    (10, Back, In, No, Finished, Returned),
    (10, Back, Both, Finished, Finished, Returned),
    (10, Away, Messages::None, No, No, AtOnce),
    (10, Away, Out, Unfinished, No, Limit),
    (10, Away, In, No, Unfinished, Limit),
    (10, Away, Both, Unfinished, Unfinished, Limit),
    (0, There, Messages::None, No, No, AtOnce),
    (0, There, Out, Unfinished, No, AtOnce),
    (0, There, In, No, Unfinished, AtOnce),
    (0, There, Both, Unfinished, Unfinished, AtOnce),
    (0, Back, Messages::None, No, No, AtOnce),
    (0, Back, Out, Unfinished, No, AtOnce),
    (0, Back, In, No, Unfinished, AtOnce),
    (0, Back, Both, Unfinished, Unfinished, AtOnce),
    (0, Away, Messages::None, No, No, AtOnce),
    (0, Away, Out, Unfinished, No, AtOnce),
    (0, Away, In, No, Unfinished, AtOnce),
    (0, Away, Both, Unfinished, Unfinished, AtOnce),
];

/// One cell: the session, and the peer that the script plays.
struct Cell {
    role: Role,
    http: bool,
    peer: Peer,
    messages: Messages,
    session: Small,
    now: u64,
    link: Option<LinkId>,
    /// Frames and posts of ours that it has and has not answered.
    unanswered: Vec<(LinkId, MessageId)>,
    unposted: Vec<PostId>,
    request: u64,
    delivery: Option<DeliveryId>,
    out: End,
    told: bool,
    closed: Option<u64>,
    /// What came after the close and was new: taken, turned away.
    fresh: (u32, u32),
    farewell: Option<Ending>,
}

impl Cell {
    fn new(role: Role, http: bool, peer: Peer, messages: Messages) -> Self {
        let mut config = if http { config() } else { only_websocket() };
        config.link.role = role;
        config.route.grace = Duration::ZERO;
        let pause = BackoffConfig::range(SECOND, 2 * SECOND);
        (config.link.backoff, config.route.backoff) = (pause, pause);
        Self {
            role,
            http,
            peer,
            messages,
            session: session(config),
            now: 0,
            link: None,
            unanswered: Vec::new(),
            unposted: Vec::new(),
            request: 0,
            delivery: None,
            out: if messages.go() { Unfinished } else { No },
            told: false,
            closed: None,
            fresh: (0, 0),
            farewell: None,
        }
    }

    fn at(&self) -> Instant {
        Instant::ZERO.after(MS * u32::try_from(self.now).unwrap())
    }

    /// Whether the peer can be reached now.
    fn here(&self) -> bool {
        match self.peer {
            There => true,
            Back => self.now < BREAK || self.now >= RETURN,
            Away => self.now < BREAK,
        }
    }

    /// Whether it answers now what it has.
    fn answers(&self) -> bool {
        self.here() && self.now >= DECIDE
    }

    /// Its own message, new or for the second time, by the path there is.
    fn says(&mut self, n: u128) -> Arrival {
        let now = self.at();
        if self.http {
            self.request += 1;
            return self.session.request(now, RequestId(self.request), Some(foreign(n)), None);
        }
        self.session.received(now, self.link.unwrap(), data(n)).unwrap_or(Arrival::Full)
    }

    /// A connection is there.
    fn connected(&mut self, link: LinkId) {
        self.link = Some(link);
        self.arrives();
    }

    /// The peer is there, the first time or again: it says something new, and what it has not heard the end of.
    fn arrives(&mut self) {
        let again = self.now >= CLOSE;
        if again && self.session.state() == State::Closing {
            match self.says(99) {
                Arrival::Full | Arrival::Answer(Answer::Busy { .. }) => self.fresh.1 += 1,
                _ => self.fresh.0 += 1,
            }
        }
        if self.messages.come() && !self.told {
            match self.says(7) {
                Arrival::Deliver { delivery, .. } if !again => self.delivery = Some(delivery),
                Arrival::Answer(Answer::Done) => self.told = true,
                Arrival::Duplicate if again => {}
                Arrival::Answer(Answer::Busy { .. }) if self.closed.is_some() => {}
                arrival => panic!("{} ms: {arrival:?}", self.now),
            }
        }
    }

    fn broken(&mut self) {
        if let Some(link) = self.link.take() {
            self.unanswered.clear();
            self.session.link_down(self.at(), link, Reason::Closed(1006), RetryHint::NONE);
        }
        let unreached: Vec<_> = self.unposted.drain(..).collect();
        for post in unreached {
            self.session.posted(self.at(), post, HttpOutcome::Unreached(Reason::PortClosed));
        }
        if self.http && self.request > 0 {
            self.session.request_gone(self.at(), RequestId(self.request));
        }
    }

    fn drain(&mut self) {
        loop {
            let did = drain(&mut self.session);
            if did.is_empty() {
                return;
            }
            let now = self.at();
            for did in did {
                match did {
                    Did::Connect(link) if self.here() && !self.http => {
                        assert!(self.session.link_up(now, link));
                        self.connected(link);
                    }
                    Did::Connect(link) => self.session.link_down(now, link, Reason::PortClosed, RetryHint::NONE),
                    Did::Data(link, _, id, _) => self.unanswered.push((link, id)),
                    Did::Post(post, ..) if self.here() => self.unposted.push(post),
                    Did::Post(post, ..) => self.session.posted(now, post, HttpOutcome::Unreached(Reason::PortClosed)),
                    Did::Ping(link) | Did::Probe(link) => {
                        let _ = self.session.received(now, link, Head::Pong);
                    }
                    Did::Ack(_, 7) | Did::Respond(_, Answer::Done) => self.told = true,
                    Did::Close(link, ending) => {
                        self.farewell = Some(ending);
                        if self.link == Some(link) {
                            self.link = None;
                            self.session.link_down(now, link, Reason::Closed(1000), RetryHint::NONE);
                        }
                    }
                    Did::Event(Event::Settled { outcome, .. }) => {
                        let path = if self.http { Path::Http } else { Path::WebSocket };
                        self.out = match outcome {
                            Outcome::Delivered { path: by } if by == path => Finished,
                            Outcome::Abandoned => Unfinished,
                            outcome => panic!("{outcome:?}"),
                        };
                    }
                    Did::Event(_) | Did::Respond(..) | Did::Refuse(_) | Did::Keepalive(_) | Did::Ack(..) => {}
                }
            }
        }
    }

    /// From the start to half a minute later.
    fn run(&mut self, seconds: u64) {
        let decide = if self.messages.come() { DECIDE } else { NEVER };
        for now in (0..30_000).step_by(50) {
            self.now = now;
            self.session.tick(self.at());
            match now {
                0 => {
                    if self.messages.go() {
                        let now = self.at();
                        let _ = send(&mut self.session, now, 1);
                    }
                    if self.http {
                        self.arrives();
                    }
                }
                BREAK if !self.here() => self.broken(),
                CLOSE => {
                    self.session.close(self.at(), SECOND * u32::try_from(seconds).unwrap());
                    let (refusal, _) = self.session.send(self.at(), 2, 10, Policy::DEFAULT).unwrap_err();
                    assert_eq!(refusal, Refusal::Closed);
                }
                RETURN if self.peer == Back && self.http => self.arrives(),
                _ => {}
            }
            if now == decide {
                let open = self.session.complete(self.at(), self.delivery.unwrap(), Verdict::Done);
                assert!(open, "what was handed over is decided by the application, whenever");
            }
            // Whoever dials us tries twice a second.
            let dials = self.role == Role::Acceptor && !self.http && self.link.is_none() && now % 500 == 0;
            if dials
                && self.here()
                && self.closed.is_none()
                && let Accepted::Open(link) = self.session.accept(self.at())
            {
                self.connected(link);
            }
            if self.answers() {
                for (link, id) in core::mem::take(&mut self.unanswered) {
                    let _ = self.session.received(self.at(), link, Head::Ack { id });
                }
                for post in core::mem::take(&mut self.unposted) {
                    self.session.posted(self.at(), post, HttpOutcome::status(200));
                }
            }
            self.drain();
            if self.closed.is_none() && self.session.state() == State::Closed {
                self.closed = Some(now);
            }
        }
    }
}

#[test]
fn l13_what_was_accepted_is_finished_if_the_peer_comes_and_nothing_new_is_taken() {
    let (mut returned, mut turned_away) = (0, 0);
    for (seconds, peer, messages, out, came, when) in TABLE {
        for (role, http) in [Role::Dialer, Role::Acceptor].into_iter().flat_map(|role| [(role, false), (role, true)]) {
            let cell = format!("{role:?}, HTTP {http}, {seconds} s, {peer:?}, {messages:?}");
            let mut found = Cell::new(role, http, peer, messages);
            found.run(seconds);
            let told = match (messages.come(), found.told) {
                (false, _) => No,
                (true, true) => Finished,
                (true, false) => Unfinished,
            };
            assert_eq!((found.out, told), (out, came), "{cell}: what left, what came");
            let closed = found.closed.unwrap_or(NEVER);
            let in_time = match when {
                AtOnce => closed == CLOSE,
                Decided => closed == DECIDE,
                // A dialer is back by its back-off.
                Returned => (RETURN..=RETURN + 2000).contains(&closed),
                Limit => closed == CLOSE + DRAIN,
            };
            assert!(in_time, "{cell}: closed at {closed} ms, and it should be {when:?}");
            assert_eq!(found.fresh.0, 0, "{cell}: something new was taken");
            assert_eq!(found.session.accept(found.at()), Accepted::Refused, "{cell}: it is over");
            let connected = !http && (peer == There || when == Returned);
            assert!(!connected || found.farewell == Some(Ending::Code(1000)), "{cell}: {:?}", found.farewell);
            returned += u32::from(when == Returned);
            turned_away += found.fresh.1;
        }
    }
    assert!(returned == 12 && turned_away >= returned, "whoever was back said something new: {turned_away}");
}

/// L13: a copy by a request is told to come again while the first one still waits, which may be dead: its sender is waited
/// for, and has its answer; and no longer than that.
#[test]
fn l13_who_was_told_to_come_again_is_waited_for() {
    for given_back in [false, true] {
        let mut session = session(only_websocket());
        let ask = |session: &mut Small, now, n| session.request(now, RequestId(n), Some(foreign(7)), None);
        let Arrival::Deliver { delivery, .. } = ask(&mut session, at(1), 1) else { panic!("not delivered") };
        session.close(at(1), 30 * SECOND);
        assert!(matches!(ask(&mut session, at(2), 2), Arrival::Answer(Answer::Again { .. })));
        let verdict = if given_back { Verdict::Retry { after: Duration::ZERO } } else { Verdict::Done };
        assert!(session.complete(at(3), delivery, verdict));
        let _ = drain(&mut session);
        if !given_back {
            assert_eq!(session.state(), State::Closing);
            assert_eq!(ask(&mut session, at(4), 3), Arrival::Answer(Answer::Done));
            let _ = drain(&mut session);
        }
        assert_eq!(session.state(), State::Closed);
    }
}

/// L13: a message came by a frame, and its sender asks for the word by a request: that is all that is owed to it.
#[test]
fn l13_the_answer_to_a_request_pays_for_the_acknowledgement() {
    let (mut session, link) = up(only_websocket());
    let Some(Arrival::Deliver { delivery, .. }) = session.received(at(1), link, data(7)) else {
        panic!("not delivered")
    };
    let _ = down(&mut session, at(1), link, Reason::Closed(1006));
    session.close(at(2), 30 * SECOND);
    assert!(session.complete(at(3), delivery, Verdict::Done));
    let _ = drain(&mut session);
    assert_eq!(session.state(), State::Closing, "it may come back by a connection or a request");
    let asked = session.request(at(4), RequestId(1), Some(foreign(7)), None);
    assert_eq!(asked, Arrival::Answer(Answer::Done));
    let _ = drain(&mut session);
    assert_eq!(session.state(), State::Closed);
}
