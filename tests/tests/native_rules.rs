//! Rules of numbered sessions, one side at a time: the other is the test, which says exactly what it wants.

use bowline::{
    Arrival, Beat, Config, DeliveryId, Event, Frame, Got, Greeting, Head, HeapSession, Instant, LinkId, NATIVE,
    NATIVE_PEER, Nack, Origin, Outcome, Output, Policy, Reason, Report, RequestId, ResumeRefusal, RetryHint, Seq,
    Verdict,
};
use core::time::Duration;

const OURS: Origin = Origin::new(7, 1);
const THEIRS: Origin = Origin::new(9, 1);
const SECOND: Duration = Duration::from_secs(1);

fn seq(n: u64) -> Seq {
    Seq::from_number(n)
}

/// One session and what it said.
struct Side {
    session: HeapSession<u32>,
    now: Instant,
    link: LinkId,
    sent: Vec<u64>,
    marks: Vec<(Report, Beat)>,
    nacks: Vec<u64>,
    events: Vec<Event>,
    connects: Vec<LinkId>,
    carried: Vec<u64>,
}

impl Side {
    fn new(config: Config) -> Self {
        let now = Instant::ZERO;
        let mut session = HeapSession::heap(config.check().unwrap(), 3, OURS, now);
        session.start(now);
        let lists = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (sent, marks, nacks, events, connects, carried) = lists;
        Self { session, now, link: LinkId::NONE, sent, marks, nacks, events, connects, carried }
    }

    /// A hub's side, which is greeted.
    fn hub(greeting: &Greeting) -> Self {
        let mut side = Self::new(NATIVE_PEER);
        side.come(greeting);
        side
    }

    fn come(&mut self, greeting: &Greeting) -> Option<ResumeRefusal> {
        let reason = self.session.greeted(self.now, greeting, None, false);
        let bowline::Accepted::Open(link) = self.session.accept(self.now) else { panic!("a newcomer replaces") };
        self.link = link;
        self.drain();
        reason
    }

    fn drain(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Frame { frame: Frame::Data { seq, .. }, .. } => self.sent.push(seq.get()),
                Output::Frame { frame: Frame::Marks { report, beat, .. }, .. } => self.marks.push((report, beat)),
                Output::Frame { frame: Frame::Nack { seq, .. }, .. } => self.nacks.push(seq.get()),
                Output::Carry { frame: Frame::Data { seq, .. }, .. } => self.carried.push(seq.get()),
                Output::Connect { link } => self.connects.push(link),
                Output::Event(event) => self.events.push(event),
                _ => {}
            }
        }
    }

    /// Lets time pass, woken only when it asks to be.
    fn later(&mut self, span: Duration) {
        let until = self.now.after(span);
        while let Some(at) = self.session.deadline().filter(|at| *at < until) {
            self.now = at;
            self.session.tick(at);
            self.drain();
        }
        self.now = until;
        self.session.tick(until);
        self.drain();
    }

    fn hear(&mut self, head: Head) -> Option<Arrival> {
        let arrival = self.session.received(self.now, self.link, head);
        self.drain();
        arrival
    }

    fn says(&mut self, n: u64) -> Option<Arrival> {
        self.hear(Head::Numbered { seq: seq(n), una: Seq::FIRST })
    }

    fn gets(&mut self, n: u64) -> DeliveryId {
        match self.says(n) {
            Some(Arrival::Deliver { delivery, .. } | Arrival::Ahead { delivery, .. }) => delivery,
            other => panic!("{n} was not taken: {other:?}"),
        }
    }

    fn marked(&mut self, report: Report) {
        self.hear(Head::Marks { report, una: Seq::FIRST, beat: Beat::None });
    }

    fn send(&mut self, messages: u32) {
        for n in 0..messages {
            self.session.send(self.now, n, 100, Policy::DEFAULT).unwrap();
        }
        self.drain();
    }

    fn complete(&mut self, delivery: DeliveryId, verdict: Verdict) {
        assert!(self.session.complete(self.now, delivery, verdict));
        self.drain();
    }
}

fn newcomer() -> Greeting {
    Greeting::new(THEIRS)
}

/// What arrived and what is completed are two things, each by the number up to which there is no hole and a map behind.
#[test]
fn s4_the_marks_say_what_arrived_and_what_is_completed() {
    let mut hub = Side::hub(&newcomer());
    let deliveries: Vec<_> = [1, 2, 3, 5].into_iter().map(|n| hub.gets(n)).collect();
    hub.complete(deliveries[0], Verdict::Done);
    hub.complete(deliveries[2], Verdict::Reject);
    hub.later(Duration::from_millis(26));
    let (report, beat) = hub.marks.pop().unwrap();
    assert_eq!(beat, Beat::None);
    assert_eq!((report.rcv(), report.cum(), report.top()), (seq(3), seq(1), seq(5)));
    assert_eq!((report.arrived, report.done, report.rejected), (0b10111, 0b101, 0b100));
    assert_eq!(report.limit(), seq(65), "one is completed, and 64 may be held");
}

/// What is below the sender's `una` is forgotten, and nothing else is, however long it takes.
#[test]
fn s11_una_forgets_exactly() {
    let mut hub = Side::hub(&newcomer());
    for n in 1..=3 {
        let delivery = hub.gets(n);
        hub.complete(delivery, Verdict::Done);
    }
    hub.later(Duration::from_secs(7200));
    assert_eq!(hub.come(&Greeting { resume: true, next: seq(4), ..newcomer() }), None);
    assert_eq!(hub.says(2), Some(Arrival::Duplicate), "still known");
    hub.hear(Head::Marks { report: Report::nothing(64), una: seq(4), beat: Beat::None });
    assert_eq!(hub.session.report().base, seq(4), "and now there is nothing left to know it by");
    assert_eq!(hub.says(2), Some(Arrival::Duplicate), "nor to take it for");
}

/// One that has sent and was never answered says the same numbers as one that begins: only the flag tells them apart.
#[test]
fn r3_resume_is_said_and_never_inferred() {
    let client = Side::new(NATIVE);
    assert!(!client.session.greeting(true).resume, "there is nothing to go on with");
    let mut hub = Side::hub(&newcomer());
    hub.gets(1);
    let again = Greeting { next: seq(2), ..newcomer() };
    assert_eq!(hub.come(&Greeting { resume: true, ..again }), None, "it goes on before anything was acknowledged");
    assert_eq!(hub.says(1), Some(Arrival::Duplicate));
}

/// The hub is a new one and knows nothing: under the same numbers all comes again, and is marked.
#[test]
fn r4_what_is_unfinished_keeps_its_number_and_is_marked_where_it_may_be_a_copy() {
    let mut hub = Side::new(NATIVE_PEER);
    let greeting = Greeting { resume: true, next: seq(18), una: seq(15), ..newcomer() };
    assert_eq!(hub.come(&greeting), Some(ResumeRefusal::UnknownSession));
    for (n, doubtful) in [(15, true), (16, true), (17, true), (18, false)] {
        match hub.hear(Head::Numbered { seq: seq(n), una: seq(15) }) {
            Some(Arrival::Deliver { maybe_dup, .. }) => assert_eq!(maybe_dup, doubtful, "{n}"),
            other => panic!("{n} is the next: {other:?}"),
        }
    }
    // And the other way: to a client that has forgotten everything the hub says what it said before.
    hub.send(2);
    hub.marked(Report::nothing(64));
    assert_eq!(hub.sent, [1, 2]);
    let forgetful = Greeting { resume: true, ..newcomer() };
    hub.come(&Greeting { next: seq(18), una: seq(18), ..forgetful });
    assert_eq!(hub.sent, [1, 2, 1, 2]);
}

#[test]
fn r5_what_has_ended_at_its_sender_is_a_gap_with_its_numbers() {
    let mut hub = Side::hub(&newcomer());
    hub.gets(1);
    hub.hear(Head::Numbered { seq: seq(5), una: seq(4) });
    let gap = hub.events.iter().find_map(|event| match event {
        Event::Gap { from, to, count } => Some((*from, *to, *count)),
        _ => None,
    });
    assert_eq!(gap, Some((seq(2), Some(seq(3)), 2)));
}

/// Sixteen, a quarter of the window, until the peer has said something: after every greeting.
#[test]
fn r6_after_a_greeting_a_few_messages_must_do() {
    let mut hub = Side::hub(&newcomer());
    hub.send(40);
    assert_eq!(hub.sent.len(), 16);
    hub.marked(Report::nothing(64));
    assert_eq!(hub.sent.len(), 40, "it has said how much it takes");
    hub.sent.clear();
    hub.come(&Greeting { resume: true, ..newcomer() });
    assert_eq!(hub.sent, (1..=16).collect::<Vec<_>>());
    let got = Got { of: OURS, report: Report { arrived: 0b1111, ..Report::nothing(64) } };
    hub.sent.clear();
    hub.come(&Greeting { resume: true, rx: Some(got), ..newcomer() });
    assert_eq!(hub.sent, (5..=16).collect::<Vec<_>>(), "what has arrived is not among them");
}

#[test]
fn s10_credit_is_kept_to_and_more_is_no_error() {
    let mut hub = Side::hub(&newcomer());
    hub.send(40);
    hub.marked(Report::nothing(20));
    assert_eq!(hub.sent.len(), 20);
    assert_eq!((hub.session.backlog(), hub.session.stats().refused), (40, 0), "the rest waits");
}

/// Numbers beyond the window come from no sender that keeps to it: they are not taken, and not marked.
#[test]
fn s10_what_lies_beyond_the_window_is_not_taken() {
    let mut hub = Side::hub(&newcomer());
    assert_eq!(hub.says(65), Some(Arrival::Full));
    assert_eq!(hub.session.report().top(), seq(0));
}

#[test]
fn s8_a_message_is_sent_again_on_the_same_connection_if_the_peer_asks_for_it() {
    let mut hub = Side::hub(&newcomer());
    hub.send(2);
    hub.hear(Head::Nack { seq: seq(1), nack: Nack::Retry { after: SECOND } });
    assert_eq!(hub.sent, [1, 2]);
    hub.later(SECOND);
    assert_eq!(hub.sent, [1, 2, 1]);
    // What is given back here is asked for there.
    let delivery = hub.gets(1);
    hub.complete(delivery, Verdict::Retry { after: Duration::ZERO });
    assert_eq!(hub.nacks, [1]);
}

/// Marks, or a `nack`, for what was never sent.
#[test]
fn s7_marks_must_be_of_something_sent() {
    for head in [
        Head::Marks { report: Report { arrived: 1 << 20, ..Report::nothing(64) }, una: Seq::FIRST, beat: Beat::None },
        Head::Nack { seq: seq(30), nack: Nack::Busy { after: SECOND } },
    ] {
        let mut hub = Side::hub(&newcomer());
        hub.send(20);
        hub.hear(head);
        assert_eq!(hub.session.stats().violations, 1, "{head:?}");
    }
}

/// What a poll carried is carried again until it is confirmed, and then not.
#[test]
fn h3_what_a_poll_carried_is_kept_until_marks_confirm_it() {
    let mut hub = Side::new(NATIVE_PEER);
    let _ = hub.session.greeted(hub.now, &newcomer(), None, true);
    hub.send(3);
    let mut poll = |n, report: Report| {
        assert!(hub.session.polled(hub.now, RequestId(n), Duration::ZERO, &report, Seq::FIRST));
        hub.drain();
        core::mem::take(&mut hub.carried)
    };
    assert_eq!(poll(1, Report::nothing(64)), [1, 2, 3]);
    assert_eq!(poll(2, Report::nothing(64)), [1, 2, 3], "the answer was lost");
    assert_eq!(poll(3, Report { arrived: 0b11, ..Report::nothing(64) }), [3], "two have arrived");
    assert_eq!(poll(4, Report { arrived: 0b111, done: 0b111, ..Report::nothing(64) }), Vec::<u64>::new());
    let done = |event: &&Event| matches!(event, Event::Settled { outcome: Outcome::Delivered { .. }, .. });
    assert_eq!(hub.events.iter().filter(done).count(), 3);
}

/// A ping is a frame of ours, with the marks, and a number that its answer must repeat.
#[test]
fn l3_a_ping_carries_the_marks_and_is_answered_with_them() {
    let mut hub = Side::hub(&newcomer());
    hub.gets(1);
    hub.hear(Head::Marks { report: Report::nothing(64), una: Seq::FIRST, beat: Beat::Ping(41) });
    let (report, beat) = hub.marks.pop().unwrap();
    assert_eq!((report.rcv(), beat), (seq(1), Beat::Pong(41)), "at once, and with what it owed");
    hub.later(Duration::from_secs(23));
    assert!(hub.marks.iter().any(|(_, beat)| matches!(beat, Beat::Ping(_))), "every 20 s");
}

/// Something on the way cuts what is silent for 12 s: after the second time the session asks more often than that.
#[test]
fn l7_an_idle_connection_that_dies_twice_after_the_same_silence_is_asked_sooner() {
    let silence = Duration::from_secs(12);
    let mut client = Side::new(Config { route: bowline::RouteConfig { http: false, ..NATIVE.route }, ..NATIVE });
    let mut last = LinkId::NONE;
    let mut connect = |client: &mut Side| {
        client.drain();
        while client.connects.last().is_none_or(|link| *link == last) {
            client.later(SECOND);
        }
        last = *client.connects.last().unwrap();
        client.link = last;
        assert!(client.session.link_up(client.now, last));
        client.hear(Head::Welcome { greeting: newcomer(), refused: None });
        client.marks.clear();
    };
    let pings = |client: &Side| client.marks.iter().filter(|(_, beat)| matches!(beat, Beat::Ping(_))).count();
    for _ in 0..2 {
        connect(&mut client);
        // The peer answers at once, then nothing for 12 s: the last word is what the silence is counted from.
        client.later(SECOND);
        client.hear(Head::Marks { report: Report::nothing(64), una: Seq::FIRST, beat: Beat::None });
        client.later(silence);
        client.session.link_down(client.now, client.link, Reason::Closed(1006), RetryHint::NONE);
    }
    connect(&mut client);
    // The first comes at a random time; of the next interval, ± 10 % of 8.4 s, each must be seen.
    let mut times = Vec::new();
    for _ in 0..400 {
        let before = pings(&client);
        client.later(Duration::from_millis(100));
        if pings(&client) > before {
            times.push(client.now);
            let Some((_, Beat::Ping(n))) = client.marks.last().copied() else { panic!("the last is the ping") };
            client.hear(Head::Marks { report: Report::nothing(64), una: Seq::FIRST, beat: Beat::Pong(n) });
        }
    }
    assert!(times.len() >= 3, "{times:?}");
    for pair in times.windows(2) {
        let between = pair[1].since(pair[0]);
        assert!(between > Duration::from_secs(7) && between < Duration::from_millis(9500), "{between:?}");
    }
}
