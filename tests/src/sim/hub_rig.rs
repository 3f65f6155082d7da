//! The hub beside its model, driven by choices: the same inputs at the same times must come to the same decisions; and,
//! however it is polled, to no broken promise and nothing left over.
//!
//! ```text
//! Choices (a seed, or a fuzzer's bytes) ──▶ input ──▶ Hub   ──poll──▶ Book, Books
//!                                             └─────▶ Model ─────────▶ Book            equal after every step
//! ```

use crate::fuzz;
use crate::sim::hub_model::{Book, Control, Expect, Model, What};
use crate::sim::{Choices, ms, s};
use bowline::hub::{
    Bulk, CloseReason, ConnId, Duplicate, Grows, Heard, Hub, HubConfig, HubEvent, HubOutput, Identity, Limits,
    LogConfig, Publish, Rate, SessionId, Slow, Stamp, Verdict,
};
use bowline::{
    AckWait, Answer, Arrival, DeliveryId, Event, Frame, Head, Instant, MessageId, Origin, Outcome, Policy, Reason,
    RequestId, Seq,
};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

const WALL: i64 = 1_800_000_000_000_000;

/// A configuration by the number of its seed: every policy with every other.
#[must_use]
pub fn config(seed: u64) -> HubConfig {
    let mut config = HubConfig::DEFAULT;
    config.duplicate = match seed % 5 {
        0 | 1 => Duplicate::Replace,
        2 => Duplicate::ProbeThenReplace,
        3 => Duplicate::Refuse,
        _ => Duplicate::Allow(2),
    };
    let slow = [Slow::DropNewest, Slow::DropOldest, Slow::Conflate, Slow::Disconnect][(seed / 5 % 4) as usize];
    let messages = if slow == Slow::Disconnect || (seed / 20).is_multiple_of(2) { 256 } else { 4 };
    config.bulk = Bulk { slow, most: 3, log: LogConfig { messages, bytes: 1 << 20, age: s(10) } };
    let limited = seed / 40 % 2 == 1;
    let rate = |per_second, burst| if limited { Rate { per_second, burst } } else { Rate::UNLIMITED };
    (config.sessions, config.connections, config.pending) = (6, 12, 4);
    (config.addresses, config.per_address_connections) = (5, 4);
    config.handshakes = rate(2, 4);
    config.per_address = Limits { handshakes: rate(1, 3), messages: rate(5, 10), bytes: Rate::UNLIMITED };
    let of_identity = if config.duplicate == Duplicate::Allow(2) { Rate::UNLIMITED } else { rate(1, 3) };
    config.per_identity = Limits { handshakes: of_identity, messages: rate(2, 5), bytes: Rate::UNLIMITED };
    (config.ttl, config.tolerance, config.idle) = (s(30), s(10), s(5));
    if seed / 80 % 2 == 1 {
        config.held_bytes = 360;
    }
    config.war_most = 2;
    config.session.heartbeat.interval = Duration::ZERO;
    config.session.outbox.ack_wait = AckWait::Fixed(s(1_000_000));
    config.session.outbox.capacity = 4;
    config
}

/// What a hub said about messages, for the promises that no model is needed for.
#[derive(Default, Debug)]
pub struct Books {
    accepted: BTreeSet<(SessionId, Seq)>,
    settled: BTreeSet<(SessionId, Seq)>,
    /// Connections that are in.
    pub welcomed: BTreeSet<ConnId>,
    /// Connections whose close was said, or that have ended.
    pub over: BTreeSet<ConnId>,
    /// Connections that have ended.
    pub gone: BTreeSet<ConnId>,
    ended: BTreeSet<SessionId>,
    asked: BTreeSet<RequestId>,
    told: BTreeMap<SessionId, u32>,
    fleet: bool,
    /// A drain has ended, and has abandoned this number of messages.
    pub drained: Option<u64>,
    /// Messages that ended otherwise than delivered.
    pub abandoned: u64,
}

/// See the module.
pub struct Rig {
    /// The hub under test.
    pub hub: Hub<u32, Grows>,
    model: Option<Model>,
    /// What it has said.
    pub books: Books,
    /// Virtual time.
    pub now: Instant,
    /// What happens next.
    pub choices: Choices,
    show: bool,
    /// The hub was told something in this step.
    told: bool,
    /// It is woken every 10 ms besides.
    pub dense: bool,
    /// What the hub said, and when, if that is wanted.
    pub log: Option<Vec<(Instant, String)>>,
    policy: Duplicate,
    small_log: bool,
    /// Messages are so large that there is not room for all.
    tight: bool,
    /// Which message a data frame was, by session and number.
    ids: BTreeMap<(SessionId, Seq), MessageId>,
    /// Every connection there was.
    pub conns: Vec<ConnId>,
    /// Those that have not ended.
    pub open: Vec<ConnId>,
    deliveries: Vec<(SessionId, DeliveryId)>,
    /// The bytes of those that were not completed.
    bytes: BTreeMap<(SessionId, DeliveryId), u32>,
    requests: Vec<(SessionId, RequestId)>,
    stamps: Vec<Stamp>,
    nonce: u64,
    payload: u32,
    asked: u64,
    /// Drains so far.
    pub steps: u64,
}

impl Rig {
    /// A hub of this seed's configuration, whose choices are the seed's; `exact`: beside its model.
    #[must_use]
    pub fn new(seed: u64, exact: bool) -> Self {
        Self::with(seed, Choices::seed(seed ^ 0x4b), exact)
    }

    /// The same with choices of their own.
    #[must_use]
    pub fn with(seed: u64, choices: Choices, exact: bool) -> Self {
        let config = config(seed);
        Self {
            hub: Hub::new(config.check().unwrap(), seed, Origin::new(1 << 32, 1), Instant::ZERO),
            model: exact.then(|| Model::new(config)),
            books: Books::default(),
            now: Instant::ZERO,
            choices,
            policy: config.duplicate,
            small_log: config.bulk.log.messages < 256,
            tight: config.held_bytes < HubConfig::DEFAULT.held_bytes,
            told: false,
            dense: false,
            log: None,
            show: fuzz::is_traced(),
            ids: BTreeMap::new(),
            conns: Vec::new(),
            open: Vec::new(),
            deliveries: Vec::new(),
            bytes: BTreeMap::new(),
            requests: Vec::new(),
            stamps: Vec::new(),
            nonce: 0,
            payload: 0,
            asked: 0,
            steps: 0,
        }
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let last = of.len().checked_sub(1)?;
        Some(of[usize::try_from(self.choices.up_to(last as u64)).unwrap()])
    }

    /// True once in so many times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.choices.up_to(n - 1) == 0
    }

    /// The wall clock, in microseconds.
    #[must_use]
    pub fn wall(&self) -> i64 {
        WALL + i64::try_from(self.now.as_micros()).unwrap()
    }

    /// One output, into the books. False: there was none.
    pub fn poll(&mut self, book: &mut Book) -> bool {
        let books = &mut self.books;
        let Some(output) = self.hub.poll() else { return false };
        if self.show {
            eprintln!("    {output:?}");
        }
        if let Some(log) = &mut self.log {
            log.push((self.now, format!("{output:?}")));
        }
        let fine = |books: &Books, conn: ConnId| {
            assert!(books.welcomed.contains(&conn), "U7: {conn:?} gets something before its welcome");
            assert!(!books.over.contains(&conn), "U7: {conn:?} gets something after its close");
        };
        let mut control = |conn, what| {
            assert!(!books.gone.contains(&conn), "U1: {conn:?} is used after its end: {what:?}");
            let before = book.control.insert(conn, what);
            assert!(
                matches!(before, None | Some(Control::Verify | Control::Welcome(..))),
                "U7: {conn:?}: two words at once"
            );
        };
        match output {
            HubOutput::Verify { conn, .. } => control(conn, Control::Verify),
            HubOutput::Welcome { conn, session, resumed, .. } => {
                control(conn, Control::Welcome(session, resumed));
                assert!(books.welcomed.insert(conn), "U1: {conn:?} is welcomed twice");
            }
            HubOutput::Close { conn, why, after } => {
                assert!(after <= s(600), "a time to come back");
                control(conn, Control::Close(why));
                assert!(books.over.insert(conn), "U1: {conn:?} is closed twice");
            }
            HubOutput::Drop { conn } => {
                control(conn, Control::Drop);
                books.over.insert(conn);
                books.gone.insert(conn);
                self.open.retain(|open| *open != conn);
            }
            HubOutput::Frame { conn, session, frame } => {
                fine(books, conn);
                match frame {
                    Frame::Ack { id } => assert!(book.acks.entry(conn).or_default().insert(id.bits())),
                    Frame::Ping => *book.pings.entry(conn).or_default() += 1,
                    Frame::Keepalive => {}
                    Frame::Marks { .. } | Frame::Nack { .. } => panic!("N2: the peers are plain"),
                    Frame::Data { seq, id, payload, .. } => {
                        let before = self.ids.insert((session, seq), id);
                        assert!(before.is_none_or(|before| before == id), "I1: one name");
                        book.data.entry(conn).or_default().push(*payload);
                    }
                }
            }
            HubOutput::Broadcast { conn, payload } => {
                fine(books, conn);
                book.broadcasts.entry(conn).or_default().push(*payload);
            }
            HubOutput::Topic { .. } | HubOutput::Gap { .. } | HubOutput::Event(HubEvent::Presence { .. }) => {
                panic!("nobody subscribes here: see hub_topics")
            }
            HubOutput::Respond { request, answer, .. } => {
                assert!(books.asked.remove(&request), "H2: {request:?} is answered twice, or never waited");
                book.answers.insert(request, answer == Answer::Done);
            }
            HubOutput::Post { .. } | HubOutput::Carry { .. } => panic!("there is no HTTP path of the hub's here"),
            HubOutput::Event(HubEvent::Session { session, event: Event::Settled { seq, outcome, .. } }) => {
                assert!(books.settled.insert((session, seq)), "G1: {session:?} {seq} ends twice");
                assert!(books.accepted.contains(&(session, seq)), "G1: never accepted");
                let delivered = matches!(outcome, Outcome::Delivered { .. });
                books.abandoned += u64::from(!delivered);
                book.settled.insert((session, seq), delivered);
            }
            HubOutput::Event(HubEvent::Session { .. }) => {}
            HubOutput::Event(HubEvent::Lost { session, count }) => *books.told.entry(session).or_default() += count,
            HubOutput::Event(HubEvent::GiveBack { session }) => {
                panic!("N2: {session:?} is plain, and nothing has a turn")
            }
            HubOutput::Event(HubEvent::War { session }) => *book.wars.entry(session).or_default() += 1,
            HubOutput::Event(HubEvent::Ended { session, why, .. }) => {
                assert!(books.ended.insert(session), "U1: {session:?} ends twice");
                let open = |(of, _): &&(SessionId, Seq)| *of == session;
                let settled = books.settled.iter().filter(open).count();
                assert_eq!(settled, books.accepted.iter().filter(open).count(), "G1: settled before the end");
                book.ended.insert(session, why);
            }
            HubOutput::Event(HubEvent::Fleet { http }) => {
                assert_ne!(books.fleet, http, "P8: told when it changes");
                books.fleet = http;
            }
            HubOutput::Event(HubEvent::Drained { abandoned }) => {
                assert!(books.drained.replace(abandoned).is_none(), "U9: drained twice");
            }
        }
        true
    }

    /// Drains, and compares with the model if there is one.
    pub fn drain(&mut self) {
        self.steps += 1;
        let mut book = Book::default();
        let mut outputs = 0;
        while self.poll(&mut book) {
            outputs += 1;
            assert!(outputs < 10_000, "G7: endless output");
        }
        assert!(self.hub.deadline().is_none_or(|at| at > self.hub.now()), "rule 6");
        assert_eq!(self.hub.health().fleet_http, self.books.fleet, "P8: a change is told");
        self.recount();
        let Some(model) = &mut self.model else { return };
        model.fire();
        assert_eq!(book, model.take(), "what it said, and what it should have said");
        model.fleet_between(&book, self.hub.health().fleet_http);
        assert_eq!(self.hub.health(), model.health());
        assert!(
            model.deadline().is_none_or(|at| self.hub.deadline().is_some_and(|hub| hub <= at)),
            "G9: {:?} is due, {:?} is announced",
            model.deadline(),
            self.hub.deadline()
        );
        for session in model.sessions() {
            assert_eq!(self.hub.connection(session), model.tied(session));
            let told = self.books.told.get(&session).copied().unwrap_or_default();
            let (least, most) = model.lost(session).unwrap();
            assert!((least..=most).contains(&told), "U6: {told} told, {least} to {most} lost");
        }
    }

    /// Health against a look at everything.
    fn recount(&self) {
        let health = self.hub.health();
        let all: Vec<_> = self.hub.sessions().collect();
        assert_eq!(health.sessions, all.len());
        assert_eq!(health.connections, all.iter().filter(|(.., live)| *live).count());
        assert_eq!(health.suspended, health.sessions - health.connections);
        assert!(health.active <= health.connections);
        for (session, ..) in all.into_iter().filter(|(.., live)| *live) {
            let conn = self.hub.connection(session).unwrap();
            assert_eq!(self.hub.session_of(conn), Some(session), "tied both ways");
        }
        let at_application = self.bytes.values().copied().map(u64::from).sum::<u64>();
        assert_eq!(health.held_bytes, at_application, "U12: what the application has");
        let mine = self.books.accepted.iter().filter(|message| !self.books.settled.contains(message)).count();
        assert_eq!(health.backlog, mine, "G1: what is open");
    }

    /// When the hub is called next: when it asked for it, and at no other time; or, dense, every 10 ms besides.
    fn wake(&self) -> Option<Instant> {
        let dense = self.dense.then(|| Instant::from_micros((self.now.as_micros() / 10_000 + 1) * 10_000));
        self.hub.deadline().into_iter().chain(dense).min()
    }

    /// Time passes.
    pub fn pass(&mut self, span: Duration) {
        let until = self.now.after(span);
        while let Some(at) = self.wake().filter(|at| *at < until) {
            self.now = self.now.max(at);
            self.tell(format_args!("tick"));
            self.hub.tick(self.now);
            self.drain();
        }
        self.now = until;
        if let Some(model) = &mut self.model {
            model.at(until);
        }
    }

    /// What happens next.
    fn tell(&mut self, what: core::fmt::Arguments<'_>) {
        self.told = true;
        if self.show {
            eprintln!("{:>12} {what}", self.now.as_micros());
        }
        if let Some(model) = &mut self.model {
            model.at(self.now);
        }
    }

    fn identity(&mut self) -> Identity {
        let n = u128::from(self.choices.up_to(7));
        Identity::from_bits(n << 64 | n)
    }

    /// A stamp: mostly none, mostly good; sometimes one that was used.
    fn stamp(&mut self) -> Option<Stamp> {
        if self.one_in(3) || matches!(self.policy, Duplicate::Allow(_)) {
            return None;
        }
        if self.one_in(5) {
            let stamps = self.stamps.clone();
            return self.pick(&stamps);
        }
        self.nonce += 1;
        let far = if self.one_in(10) { 11_000_000 } else { 9_000_000 };
        let issued = self.wall() - far + i64::try_from(self.choices.up_to(2 * far as u64)).unwrap();
        let stamp = Stamp { nonce: self.nonce, issued };
        self.stamps.push(stamp);
        Some(stamp)
    }

    /// The session that was not there before.
    fn made(&self) -> Option<SessionId> {
        let known = self.model.as_ref()?.sessions();
        self.hub.sessions().map(|(id, ..)| id).find(|id| !known.contains(id))
    }

    fn connect(&mut self) {
        let address = self.choices.up_to(6);
        self.tell(format_args!("connect from {address}"));
        let got = self.hub.connect(self.now, address);
        if let Err(denied) = got {
            assert!(denied.retry_after > Duration::ZERO && denied.retry_after <= s(60), "U8: {denied:?}");
        }
        if let Some(model) = &mut self.model {
            assert_eq!(got.map(|_| ()).map_err(|denied| denied.why), model.connect(address));
            if let Ok(conn) = got {
                model.connected(conn, address);
            }
        }
        if let Ok(conn) = got {
            assert!(!self.conns.contains(&conn), "U1: {conn:?} is given twice");
            self.conns.push(conn);
            self.open.push(conn);
        }
    }

    fn hello(&mut self, conn: ConnId, identity: Identity) {
        let (stamp, wall) = (self.stamp(), self.wall());
        self.tell(format_args!("hello {conn:?} {identity:?} {stamp:?}"));
        let said = self.hub.hello(self.now, wall, conn, identity, stamp);
        if let Some(model) = &mut self.model {
            assert_eq!(said, model.hello(wall, conn, identity, stamp));
        }
    }

    fn verify(&mut self, conn: ConnId) {
        let wall = self.wall();
        if self.one_in(10) {
            self.tell(format_args!("refuse {conn:?}"));
            let refused = self.hub.verified(self.now, wall, conn, Verdict::Refuse(CloseReason::Impostor));
            if let Some(model) = &mut self.model {
                assert_eq!(refused, model.refused(conn, CloseReason::Impostor));
            }
            return;
        }
        self.tell(format_args!("accept {conn:?}"));
        let taken = self.hub.verified(self.now, wall, conn, Verdict::Accept { http: false });
        let (chosen, made) = (self.hub.session_of(conn), self.made());
        if let Some(model) = &mut self.model {
            assert_eq!(taken, model.accepted(wall, conn, chosen, made));
        }
    }

    fn writable(&mut self, conn: ConnId, yes: bool) {
        self.tell(format_args!("{conn:?} writable {yes}"));
        self.hub.writable(self.now, conn, yes);
        if let Some(model) = &mut self.model {
            model.writable(conn, yes);
        }
    }

    fn heard(&mut self, conn: ConnId) {
        let (wall, session) = (self.wall(), self.hub.session_of(conn));
        let open = session.map(|session| self.ids.range((session, Seq::FIRST)..=(session, Seq::LAST)));
        let sent: Vec<(Seq, MessageId)> = open.into_iter().flatten().map(|((_, seq), id)| (*seq, *id)).collect();
        let latest = sent.iter().rev().take(4).copied().collect::<Vec<_>>();
        let id = u128::from(1 + self.choices.up_to(11));
        let (what, head) = match (self.choices.up_to(9), self.pick(&latest)) {
            (0..4, _) => (What::Data(id), Head::Data { id: Some(MessageId::from_bits(id)), key: None }),
            (4..7, Some((seq, id))) => (What::Ack(seq), Head::Ack { id }),
            (7, _) => (What::Malformed, Head::Malformed),
            _ => (What::Life, Head::Pong),
        };
        let stamp = if self.one_in(4) { self.stamp() } else { None };
        for n in 0..if self.one_in(20) { 20 } else { 1 } {
            if n > 0 {
                self.drain();
            }
            let bytes = self.bytes_of_a_message();
            self.tell(format_args!("{conn:?} {what:?} {bytes} {stamp:?}"));
            let heard = self.hub.received(self.now, wall, conn, head, bytes, stamp);
            let delivery = match heard {
                Heard::Arrival(session, Arrival::Deliver { delivery, .. }) => Some((session, delivery)),
                _ => None,
            };
            self.deliveries.extend(delivery);
            self.bytes.extend(delivery.map(|delivery| (delivery, bytes)));
            let is = match heard {
                Heard::Arrival(session, Arrival::Deliver { .. }) => Expect::Deliver(session),
                Heard::Arrival(_, Arrival::Duplicate) => Expect::Duplicate,
                Heard::Arrival(_, other) => panic!("{other:?}"),
                Heard::Noted => Expect::Noted,
                Heard::Limited => Expect::Limited,
                Heard::NoRoom => Expect::NoRoom,
                Heard::Replayed(_) => Expect::Replayed,
                Heard::Stale => Expect::Stale,
            };
            if let Some(model) = &mut self.model {
                let expected = model.received(wall, conn, what, bytes, stamp, delivery.map(|(_, delivery)| delivery));
                assert_eq!(is, expected);
            }
        }
    }

    fn request(&mut self) {
        let (identity, wall, stamp) = (self.identity(), self.wall(), self.stamp());
        let id = u128::from(1 + self.choices.up_to(11));
        self.asked += 1;
        let (request, bytes) = (RequestId(self.asked), self.bytes_of_a_message());
        self.tell(format_args!("request {request:?} {identity:?} {id} {bytes} {stamp:?}"));
        // Of several sessions of one identity, the model is told which, also where its limit refuses the request.
        let mut to = self.hub.find(identity).map(|session| (session, None));
        let named = Some(MessageId::from_bits(id));
        let got = self.hub.request(self.now, wall, identity, request, named, None, bytes, stamp);
        let made = self.made();
        let is = match got {
            Ok((session, arrival)) => {
                to = Some((session, None));
                match arrival {
                    Arrival::Deliver { delivery, .. } => {
                        to = Some((session, Some(delivery)));
                        self.deliveries.push((session, delivery));
                        self.bytes.insert((session, delivery), bytes);
                        Expect::Deliver(session)
                    }
                    Arrival::Duplicate => Expect::Duplicate,
                    Arrival::Answer(answer) => Expect::Answer(answer == Answer::Done),
                    other => panic!("{other:?}"),
                }
            }
            Err(denied) => Expect::Denied(denied.why),
        };
        if let Some(model) = &mut self.model {
            assert_eq!(is, model.request(wall, identity, request, id, bytes, stamp, to, made));
        }
        if let (Expect::Deliver(_) | Expect::Duplicate, Some((session, _))) = (is, to) {
            self.books.asked.insert(request);
            self.requests.push((session, request));
        }
    }

    /// The application, or somebody from whom it has heard.
    fn app(&mut self) {
        let sessions: Vec<SessionId> = self.hub.sessions().map(|(id, ..)| id).collect();
        let picked = self.pick(&sessions);
        match (self.choices.up_to(19), picked) {
            (0..6, Some(session)) => {
                self.payload += 1;
                let payload = self.payload;
                self.tell(format_args!("send {payload} to {session:?}"));
                let sent = self.hub.send(self.now, session, payload, 1, Policy::DEFAULT).ok();
                if let Some(model) = &mut self.model {
                    assert_eq!(sent.is_some(), model.send(session, payload, sent), "U3: full is an answer");
                }
                self.books.accepted.extend(sent.map(|seq| (session, seq)));
            }
            (6, Some(session)) => {
                self.tell(format_args!("dismiss {session:?}"));
                let there = self.hub.dismiss(self.now, session);
                if let Some(model) = &mut self.model {
                    assert_eq!(there, model.dismiss(session));
                }
            }
            (7, _) => {
                let identity = self.identity();
                self.tell(format_args!("adopt {identity:?}"));
                let got = self.hub.adopt(self.now, identity, false).map_err(|denied| denied.why);
                let made = self.made();
                if let Some(model) = &mut self.model {
                    assert_eq!(got.map(|_| ()), model.adopt(identity, got.ok(), made));
                }
            }
            (8, _) => {
                let expected = (!self.one_in(2)).then(|| self.choices.up_to(6) as usize);
                self.tell(format_args!("expect {expected:?}"));
                self.hub.expect(self.now, expected);
                if let Some(model) = &mut self.model {
                    model.expect(expected);
                }
            }
            (9, _) => {
                let address = self.choices.up_to(6);
                self.tell(format_args!("knock {address}"));
                let got = self.hub.knock(self.now, address).map_err(|denied| denied.why);
                if let Some(model) = &mut self.model {
                    assert_eq!(got, model.knock(address));
                }
            }
            (10..16, _) => {
                // As many as make a reader slow, now and then.
                for n in 0..if self.one_in(3) { 8 } else { 1 } {
                    if n > 0 {
                        self.drain();
                    }
                    self.publish();
                }
            }
            _ => {
                let requests = self.requests.clone();
                let Some((session, request)) = self.pick(&requests) else { return };
                self.tell(format_args!("gone {request:?}"));
                self.hub.request_gone(self.now, session, request);
                self.books.asked.remove(&request);
                self.requests.retain(|(_, other)| *other != request);
                if let Some(model) = &mut self.model {
                    model.request_gone(session, request);
                }
            }
        }
    }

    fn publish(&mut self) {
        self.payload += 1;
        let key = (!self.one_in(3)).then(|| self.choices.up_to(2));
        let how = Publish { key, snapshot: self.one_in(4) };
        let (payload, even) = (self.payload, self.one_in(3));
        self.tell(format_args!("publish {payload} {how:?} even {even}"));
        let to = |_: SessionId, identity: Identity| !even || identity.bits().is_multiple_of(2);
        let sent = self.hub.publish(self.now, payload, 1, how, to);
        if let Some(model) = &mut self.model {
            let (reached, dropped) = model.publish(payload, 1, how, even);
            assert_eq!(sent.reached, reached);
            assert!(self.small_log || sent.dropped == dropped, "{sent:?} {dropped}");
        }
    }

    fn complete(&mut self) {
        let deliveries = self.deliveries.clone();
        let Some((session, delivery)) = self.pick(&deliveries) else { return };
        let done = !self.one_in(4);
        let given_back = (!done).then_some(s(5));
        let verdict = given_back.map_or(bowline::Verdict::Done, |after| bowline::Verdict::Retry { after });
        self.tell(format_args!("complete {session:?} {delivery:?} {done}"));
        let open = self.hub.complete(self.now, session, delivery, verdict);
        if let Some(model) = &mut self.model {
            assert_eq!(open, model.complete(session, delivery, given_back), "one completion a delivery");
        }
        self.release((session, delivery));
        if !self.one_in(10) {
            self.deliveries.retain(|other| *other != (session, delivery));
        }
    }

    fn bytes_of_a_message(&mut self) -> u32 {
        if self.tight { 1 + self.choices.up_to(24) as u32 } else { 1 }
    }

    /// The application has it no longer; said once.
    fn release(&mut self, delivery: (SessionId, DeliveryId)) {
        let Some(bytes) = self.bytes.remove(&delivery) else { return };
        self.hub.release(delivery.0, bytes);
        if let Some(model) = &mut self.model {
            model.release(delivery.0, bytes);
        }
    }

    /// Something happens.
    pub fn step(&mut self) {
        self.told = false;
        self.input();
        if !self.told {
            self.tell(format_args!("tick"));
            self.hub.tick(self.now);
        }
    }

    fn input(&mut self) {
        let (open, all) = (self.open.clone(), self.conns.clone());
        let conn = if self.one_in(10) { self.pick(&all) } else { self.pick(&open) };
        match (self.choices.up_to(35), conn) {
            (0..3, _) | (_, None) => self.connect(),
            (30.., _) => {
                self.connect();
                self.drain();
                let Some(conn) = self.open.last().copied() else { return };
                let identity = self.identity();
                self.hello(conn, identity);
                self.drain();
                if self.one_in(4) {
                    self.writable(conn, false);
                    self.drain();
                }
                self.verify(conn);
            }
            (3..6, Some(conn)) => {
                let identity = self.identity();
                self.hello(conn, identity);
            }
            (6..10, Some(conn)) => self.verify(conn),
            (10..16, Some(conn)) => self.heard(conn),
            (16 | 17, Some(conn)) => {
                let yes = !self.one_in(3);
                self.writable(conn, yes);
            }
            (18, Some(conn)) => {
                let reason = Reason::Closed(if conn.place() % 2 == 0 { 1000 } else { 1006 });
                self.tell(format_args!("{conn:?} ends: {reason}"));
                self.hub.disconnected(self.now, conn, reason);
                if let Some(model) = &mut self.model {
                    model.disconnected(conn, reason);
                }
                self.books.over.insert(conn);
                self.books.gone.insert(conn);
                self.open.retain(|open| *open != conn);
            }
            (19, Some(conn)) if self.choices.up_to(2) == 0 => {
                self.tell(format_args!("{conn:?} is too long"));
                self.hub.refuse(self.now, conn, CloseReason::TooLarge);
                if let Some(model) = &mut self.model {
                    model.end(conn, CloseReason::TooLarge);
                }
            }
            (19..22, _) => self.complete(),
            (22..24, _) => self.request(),
            (24..30, _) => self.app(),
        }
    }

    /// A pause: often none, mostly on a coarse grid, so that things fall together.
    pub fn pause(&mut self) -> Duration {
        match self.choices.up_to(9) {
            0..4 => Duration::ZERO,
            4..8 => ms(500 * self.choices.up_to(3)),
            8 => Duration::from_micros(self.choices.up_to(3_000_000)),
            _ => ms(1000 * self.choices.up_to(12)),
        }
    }

    /// Everybody leaves, and nobody decides anything any more: nothing may be left of anybody.
    pub fn all_leave(&mut self) {
        self.model = None;
        for (session, ..) in self.hub.sessions().collect::<Vec<_>>() {
            self.hub.dismiss(self.now, session);
            self.drain();
        }
        for conn in self.open.clone() {
            self.hub.disconnected(self.now, conn, Reason::Closed(1006));
            self.open.retain(|open| *open != conn);
            self.books.over.insert(conn);
            self.books.gone.insert(conn);
            self.drain();
        }
        self.pass(s(120));
        self.drain();
        self.nothing_left();
    }

    /// Nothing is left of anybody.
    pub fn nothing_left(&mut self) {
        for delivery in self.bytes.keys().copied().collect::<Vec<_>>() {
            self.release(delivery);
        }
        let (health, books) = (self.hub.health(), &self.books);
        let left = (health.connections, health.pending, health.closing, health.sessions, health.backlog, health.held);
        assert_eq!((left, health.held_bytes), ((0, 0, 0, 0, 0, 0), 0), "U1: something is left");
        assert_eq!(books.accepted, books.settled, "G1: each message ends once");
        assert!(books.asked.is_empty(), "H2: never answered: {:?}", books.asked);
    }
}
