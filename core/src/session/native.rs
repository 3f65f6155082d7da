//! The numbered half of a session: what two native peers say to each other beyond what plain ones can.
//!
//! ```text
//!  greeting ─▶ who numbers, what each has ─▶ Marks begin, or go on        Outbox: what need not be sent again
//!  data     ─▶ Marks.look ─▶ Inbox: room?  ─▶ Deliver, or Ahead … Turn    marks ◀─ at most 25 ms later
//!  marks    ─▶ Outbox: ended, arrived, credit
//!  without a connection, client: Greet ─▶ Poll ─▶ Poll …      hub: a poll waits until there is something to carry
//! ```
//!
//! Invariants: one question by HTTP at a time ([`Output::Greet`](super::Output::Greet), [`Output::Poll`](super::Output::Poll));
//! one poll waits at a time, and the newest counts; what a poll carried is carried again until marks say that it arrived.
//! Rules: S4, S8–S11, R1–R7, L3, L7, H3.

use super::{Event, Heard, Next, Session};
use crate::cause::{Cause, HttpOutcome};
use crate::ids::{DeliveryId, LinkId, MessageId, RequestId, Seq};
use crate::inbox::{Answer, Arrival, Seen, Verdict};
use crate::marks::{Beat, Came, Marks, Nack, Report, Step};
use crate::outbox::{Ack, Outcome, Path, Slot};
use crate::resume::{Got, Greeting, Reason};
use crate::ring::Slots;
use crate::time::{Instant, Timer, Timers, Wake};
use core::time::Duration;

/// What only native peers have.
///
/// ```
/// use bowline::NativeConfig;
/// assert!(NativeConfig::DEFAULT.order);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NativeConfig {
    /// Messages are handed over in the order of their numbers (S9). Default true.
    pub order: bool,
    /// How long a poll may wait for something to be carried, at the hub and in what a client asks for; zero: a client does
    /// not poll. Default 25 s: proxies cut after 30.
    pub poll: Duration,
}

impl NativeConfig {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self { order: true, poll: Duration::from_secs(25) };
}

/// After a question by HTTP that failed, the next one.
const REST: Duration = Duration::from_secs(1);

/// A greeting is under way no longer than this (B7): what came by HTTP meanwhile may be younger than what it says.
const OVERTAKES: Duration = Duration::from_secs(10);

/// A learned interval is not shorter (L7).
const SHORTEST: Duration = Duration::from_secs(5);

/// What one native session remembers beyond a plain one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Native {
    config: NativeConfig,
    marks: Marks,
    /// The peer knows this session: it has been greeted, by whichever path.
    greeted: bool,
    /// The number of the last ping, and of the peer's that waits for its answer.
    beat: u64,
    pong: Option<u64>,
    /// A message has ended otherwise than by the peer's word: it should hear that it need not wait for it.
    announce: bool,
    talk: Talk,
    talks: u32,
    poll: Option<Waiting>,
    /// A poll that a newer one has replaced.
    superseded: Option<RequestId>,
    carrying: Option<Carrying>,
    /// How the last greeting ended, and what of the peer's is lost with its former epoch; for the application.
    told: Option<(bool, Option<Reason>)>,
    lost: Option<Seq>,
    /// The highest number that came by a frame; by a request, and when; and when marks last came by one.
    framed: Seq,
    posted: (Seq, Instant),
    polled: Instant,
    /// The silence after which the last idle connection died (L7).
    silence: Option<Duration>,
}

/// A client's one question by HTTP.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Talk {
    Ready,
    Underway { greet: bool },
    Rest { until: Timer },
}

/// A peer's poll.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Waiting {
    request: RequestId,
    until: Timer,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Carrying {
    request: RequestId,
    marks: bool,
    /// As much as one message may have, for all together.
    left: u32,
}

impl Native {
    pub(super) fn new(config: NativeConfig) -> Self {
        Self {
            config,
            marks: Marks::new(config.order),
            greeted: false,
            beat: 0,
            pong: None,
            announce: false,
            talk: Talk::Ready,
            talks: 0,
            poll: None,
            superseded: None,
            carrying: None,
            told: None,
            lost: None,
            framed: Seq::from_number(0),
            posted: (Seq::from_number(0), Instant::ZERO),
            polled: Instant::ZERO,
            silence: None,
        }
    }

    pub(super) const fn greeted(&self) -> bool {
        self.greeted
    }

    pub(super) const fn owes(&self) -> bool {
        self.marks.owes() || self.carrying.is_some()
    }

    /// A message has ended, and not by the peer's word.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        self.announce |= matches!(outcome, Outcome::Expired | Outcome::Abandoned);
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.marks.tick(now);
        if let Talk::Rest { until } = &mut self.talk
            && until.fire(now)
        {
            self.talk = Talk::Ready;
        }
        if let Some(waiting) = &mut self.poll {
            let _ = waiting.until.fire(now);
        }
    }

    /// A connection has died after this long without a word: twice about the same, and something on the way cuts what is
    /// idle (L7). The new interval, if there is one.
    fn died(&mut self, silence: Duration) -> Option<Duration> {
        let same = |before: Duration| silence.abs_diff(before).saturating_mul(4) <= silence.max(before);
        if self.silence.replace(silence).is_some_and(same) {
            self.silence = None;
            return Some(silence.saturating_mul(7).checked_div(10).unwrap_or_default().max(SHORTEST));
        }
        None
    }
}

impl Timers for Native {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        self.marks.timers(see);
        if let Talk::Rest { until } = &self.talk {
            see(Wake::Http, until);
        }
        if let Some(waiting) = &self.poll {
            see(Wake::Memory, &waiting.until);
        }
    }
}

/// What a client should ask by HTTP.
pub(super) enum Ask {
    Greet,
    Poll(Duration),
}

/// What goes into the answer to a poll.
pub(super) enum Carry {
    Data(Seq),
    Marks,
    End,
}

impl<P, O: Slots<Slot<P>>, I: Slots<Seen>> Session<P, O, I> {
    /// What is to be said of this side when a connection begins: of a client in `hello`, of a hub in `welcome`, with
    /// `resume` for whether it resumes.
    #[must_use]
    pub fn greeting(&self, resume: bool) -> Greeting {
        let native = self.native.as_ref();
        let of = native.and_then(|native| native.marks.of());
        let rx = of.map(|of| Got { of, report: self.report() });
        Greeting {
            origin: self.outbox.origin(),
            resume: resume && native.is_some_and(Native::greeted),
            rx,
            next: self.outbox.unsent().max(self.outbox.una()),
            una: self.outbox.una(),
            win: self.report().win,
            life: self.inbox.horizon(),
            order: native.is_some_and(|native| native.config.order),
        }
    }

    /// What this side has of the peer's messages; for what goes by HTTP, where the session does not write frames.
    #[must_use]
    pub fn report(&self) -> Report {
        let room = self.inbox.room();
        self.native.as_ref().map_or(Report::nothing(0), |native| native.marks.report(room))
    }

    pub(super) fn on_greeting(&mut self, greeting: &Greeting, known: Option<Reason>) -> Option<Reason> {
        let origin = self.outbox.origin();
        let (una, next) = (self.outbox.una(), self.outbox.next());
        let Some(native) = &mut self.native else { return known };
        let marks = &mut native.marks;
        let before = marks.of();
        if before.is_some_and(|of| of.identity() == greeting.origin.identity() && of.epoch() > greeting.origin.epoch())
        {
            return Some(Reason::Epoch);
        }
        let mine = marks.report(0);
        let same = before == Some(greeting.origin);
        // What came by frames came before this greeting. What came by HTTP may have overtaken it.
        let (posted, at) = native.posted;
        let old = |at: Instant| self.now.since(at) > OVERTAKES;
        let ahead_in = same && (native.framed >= greeting.next || (posted >= greeting.next && old(at)));
        let gap_in = same && greeting.una > mine.rcv().next();
        let got = greeting.rx.filter(|got| got.of == origin);
        let ahead_out = got.is_some_and(|got| got.report.top() >= next);
        let gap_out = match &got {
            Some(got) => got.report.cum().next() < una && (native.polled == Instant::ZERO || old(native.polled)),
            None => una > Seq::FIRST,
        };
        let reason = match known {
            Some(known) => Some(known),
            None if !same && before.is_some() => Some(Reason::Gap),
            None if !same || (greeting.rx.is_some() && got.is_none()) => Some(Reason::UnknownSession),
            None if ahead_in || ahead_out => Some(Reason::Ahead),
            None if gap_in || gap_out => Some(Reason::Gap),
            None => None,
        };
        if same && !ahead_in {
            marks.advance(greeting.una);
        } else {
            if before.is_some() {
                native.lost = Some(mine.rcv().next());
            }
            marks.begin(greeting.origin, greeting.una, greeting.next);
            native.framed = Seq::from_number(0);
            native.posted = (Seq::from_number(0), Instant::ZERO);
        }
        marks.told();
        native.greeted = true;
        let report = got.filter(|_| !ahead_out).map(|got| got.report);
        let _ = self.outbox.on_greeting(self.now, report.as_ref(), greeting.win);
        reason
    }

    /// A client was greeted, by frame or by HTTP; `resumed` is the hub's word. False: it says what cannot be.
    pub(super) fn on_welcome(&mut self, greeting: &Greeting, refused: Option<Reason>) -> bool {
        let asked = self.native.as_ref().is_some_and(Native::greeted);
        let lied =
            greeting.rx.is_some_and(|got| got.of == self.outbox.origin() && got.report.top() >= self.outbox.next());
        // Whoever remembers for a shorter time than we try would take a late copy for new (S12).
        let short = self.outbox.life().is_some_and(|life| greeting.life < life);
        if self.native.is_none() || lied || short {
            return false;
        }
        let own = self.on_greeting(greeting, None);
        if own == Some(Reason::Epoch) {
            return false;
        }
        if asked && let Some(native) = &mut self.native {
            native.told = Some((greeting.resume, refused));
        }
        true
    }

    /// A numbered message, by frame or by `request`.
    pub(super) fn on_numbered(&mut self, seq: Seq, request: Option<RequestId>) -> Arrival {
        let now = self.now;
        let busy = Answer::Busy { after: Duration::from_secs(1) };
        let Some(native) = &mut self.native else { return Arrival::Full };
        let Some(of) = native.marks.of() else { return Arrival::Answer(Answer::Unknown) };
        let id = Some(of.message(seq));
        let came = native.marks.look(seq);
        let arrival = match (came, request) {
            (Came::Beyond, _) => Arrival::Full,
            (Came::Done { rejected }, Some(_)) => {
                Arrival::Answer(if rejected { Answer::Rejected } else { Answer::Done })
            }
            (Came::Done { .. }, None) => Arrival::Duplicate,
            (Came::Fresh | Came::Copy, Some(request)) => self.inbox.on_request(now, request, id, None),
            (Came::Fresh | Came::Copy, None) => self.inbox.on_frame(now, id, None),
        };
        match request {
            Some(_) => native.posted = (native.posted.0.max(seq), now),
            None => native.framed = native.framed.max(seq),
        }
        match arrival {
            Arrival::Deliver { delivery, maybe_dup } => {
                let maybe_dup = maybe_dup || native.marks.doubtful(seq);
                if native.marks.arrived(now, seq) {
                    Arrival::Deliver { delivery, maybe_dup }
                } else {
                    Arrival::Ahead { delivery, maybe_dup }
                }
            }
            Arrival::Full if request.is_some() => Arrival::Answer(busy),
            Arrival::Duplicate | Arrival::Answer(_) | Arrival::Full | Arrival::Reused | Arrival::Ahead { .. } => {
                native.marks.again(now);
                arrival
            }
        }
    }

    /// What the peer has, and below what it need not wait. False: it has what was never sent.
    pub(super) fn on_marks(&mut self, link: LinkId, report: &Report, una: Seq) -> Ack {
        let now = self.now;
        let Some(native) = &mut self.native else { return Ack::Unknown };
        if link == LinkId::NONE {
            native.polled = now;
        }
        native.marks.advance(una);
        // What comes by HTTP while there is a connection may have been overtaken by what came on it.
        let newest = link != LinkId::NONE || self.live.is_none();
        self.outbox.on_report(self.now, link, report, newest)
    }

    pub(super) fn on_beat(&mut self, beat: Beat) -> bool {
        let Some(native) = &mut self.native else { return false };
        match beat {
            Beat::None => false,
            Beat::Ping(n) => {
                native.pong = Some(n);
                false
            }
            Beat::Pong(n) => n == native.beat,
        }
    }

    pub(super) fn on_nack(&mut self, seq: Seq, nack: Nack) -> Ack {
        if self.native.is_none() {
            return Ack::Unknown;
        }
        match nack {
            Nack::Retry { after } | Nack::Busy { after } => self.outbox.on_nack(self.now, seq, after),
            // The marks say so as well, and again.
            Nack::Reject => Ack::Unknown,
        }
    }

    /// The application has decided about something; if it was numbered, the marks are to be told.
    pub(super) fn on_decided(&mut self, id: Option<MessageId>, verdict: Verdict) {
        let now = self.now;
        let Some(native) = &mut self.native else { return };
        let Some(seq) = id.zip(native.marks.of()).and_then(|(id, of)| of.seq_of(id)) else { return };
        match verdict {
            Verdict::Done => native.marks.completed(now, seq, false),
            Verdict::Reject => native.marks.completed(now, seq, true),
            Verdict::Retry { after } => native.marks.given_back(now, seq, after),
        }
    }

    pub(super) fn on_poll(&mut self, request: RequestId, wait: Duration, report: &Report, una: Seq) -> Ack {
        let now = self.now;
        let said = self.on_marks(LinkId::NONE, report, una);
        let Some(native) = &mut self.native else { return Ack::Unknown };
        let mut until = Timer::disarmed();
        let wait = wait.min(native.config.poll);
        if !wait.is_zero() && self.live.is_none() && !self.closing {
            until.arm(now.after(wait));
        }
        native.superseded = native.poll.replace(Waiting { request, until }).map(|older| older.request);
        self.outbox.begin_poll();
        said
    }

    /// Whether `request` was a poll, which waits no longer.
    pub(super) fn poll_gone(&mut self, request: RequestId) -> bool {
        let Some(native) = &mut self.native else { return false };
        let waited = native.poll.take_if(|poll| poll.request == request).is_some();
        let carried = native.carrying.take_if(|poll| poll.request == request).is_some();
        let old = native.superseded.take_if(|older| *older == request).is_some();
        waited || carried || old
    }

    /// A question of ours by HTTP was answered.
    pub(super) fn on_talked(&mut self, talk: u32, outcome: HttpOutcome) -> bool {
        let (now, finished) = (self.now, self.finished());
        let Some(native) = self.native.as_mut().filter(|native| native.talks == talk) else { return false };
        let Talk::Underway { greet } = native.talk else { return false };
        native.talk = Talk::Ready;
        let mut rest = |after: Duration| {
            let mut until = Timer::disarmed();
            until.arm(now.after(after.clamp(REST, Duration::from_secs(600))));
            native.talk = Talk::Rest { until };
        };
        match outcome {
            HttpOutcome::Acked => {}
            HttpOutcome::Auth | HttpOutcome::Gone if !greet => native.greeted = false,
            HttpOutcome::Busy { after } | HttpOutcome::InProgress { after } => rest(after),
            HttpOutcome::Rejected { .. }
            | HttpOutcome::Auth
            | HttpOutcome::Gone
            | HttpOutcome::Unreached
            | HttpOutcome::Unknown => rest(REST),
        }
        if !finished && !matches!(outcome, HttpOutcome::Auth | HttpOutcome::Gone) {
            self.route.posted(now, outcome, &mut self.rng);
        }
        true
    }

    /// The peer does not know us any more: before anything else it must be greeted.
    pub(super) const fn forgotten(&mut self) -> bool {
        match &mut self.native {
            Some(native) => {
                native.greeted = false;
                true
            }
            None => false,
        }
    }

    /// The next thing to ask by HTTP, marked as under way.
    pub(super) fn next_ask(&mut self) -> Option<(u32, Ask)> {
        let by_http = self.route.path() == Path::Http && self.live.is_none() && self.route.may_post(0);
        let dials = self.link.dials();
        let closing = self.closing;
        let native = self.native.as_mut().filter(|native| native.talk == Talk::Ready)?;
        if !by_http || !dials || native.config.poll.is_zero() || (closing && native.greeted) {
            return None;
        }
        let greet = !native.greeted;
        native.talk = Talk::Underway { greet };
        native.talks = native.talks.saturating_add(1);
        if !greet {
            native.marks.told();
        }
        Some((native.talks, if greet { Ask::Greet } else { Ask::Poll(native.config.poll) }))
    }

    /// The next thing for the answer to a poll.
    pub(super) fn next_carry(&mut self) -> Option<(RequestId, Carry)> {
        let now = self.now;
        let (live, closing) = (self.live.is_some(), self.closing);
        let native = self.native.as_mut()?;
        if let Some(request) = native.superseded.take() {
            return Some((request, Carry::End));
        }
        if native.carrying.is_none() {
            let waiting = native.poll.as_ref()?;
            let due = !waiting.until.is_armed();
            let worth = !live && (native.marks.is_due() || self.outbox.has_polled(now));
            if !due && !worth && !live && !closing {
                return None;
            }
            let request = native.poll.take()?.request;
            native.carrying = Some(Carrying { request, marks: !live, left: u32::MAX });
        }
        let carrying = native.carrying.as_mut()?;
        let request = carrying.request;
        if !live && let Some((seq, left)) = self.outbox.take_polled(now, carrying.left) {
            carrying.left = left;
            self.stats.frames = self.stats.frames.saturating_add(1);
            return Some((request, Carry::Data(seq)));
        }
        if core::mem::take(&mut carrying.marks) {
            native.marks.told();
            return Some((request, Carry::Marks));
        }
        native.carrying = None;
        Some((request, Carry::End))
    }

    /// The next frame that only native peers have; `ping`: one is due.
    pub(super) fn next_native(&mut self) -> Option<Next> {
        let native = self.native.as_mut()?;
        if let Some(n) = native.pong.take() {
            native.marks.told();
            native.announce = false;
            return Some(Next::Marks(Beat::Pong(n)));
        }
        if let Some((seq, after)) = native.marks.take_nack() {
            return Some(Next::Nack(seq, after));
        }
        if native.marks.is_due() || core::mem::take(&mut native.announce) {
            native.marks.told();
            native.announce = false;
            return Some(Next::Marks(Beat::None));
        }
        None
    }

    /// A ping of the profile's own (L3), if this session has one.
    pub(super) fn next_beat(&mut self) -> Option<Next> {
        let native = self.native.as_mut()?;
        native.beat = native.beat.saturating_add(1);
        native.marks.told();
        native.announce = false;
        Some(Next::Marks(Beat::Ping(native.beat)))
    }

    /// What the application is to be told that only native peers know.
    pub(super) fn native_event(&mut self) -> Option<Event> {
        let native = self.native.as_mut()?;
        if let Some((resumed, reason)) = native.told.take() {
            return Some(Event::Resumed { resumed, reason });
        }
        if let Some(from) = native.lost.take() {
            return Some(Event::Gap { from, to: None, count: 0 });
        }
        loop {
            match native.marks.step()? {
                Step::Gap { from, to, count } => return Some(Event::Gap { from, to: Some(to), count }),
                Step::Turn(seq) => {
                    let id = native.marks.of().map(|of| of.message(seq));
                    if let Some(delivery) = id.and_then(|id| self.inbox.delivery(id)) {
                        return Some(Event::Turn { delivery });
                    }
                }
            }
        }
    }

    /// A connection has ended, by this cause, and nothing was heard on it for so long (L7).
    pub(super) fn learn(&mut self, cause: Option<Cause>, silence: Duration) {
        let interval = self.heartbeat.interval;
        let Some(native) = self.native.as_mut() else { return };
        if !matches!(cause, Some(Cause::Dead | Cause::Closed(1006))) || silence < SHORTEST {
            return;
        }
        if let Some(shorter) = native.died(silence.min(interval)) {
            self.heartbeat.interval = shorter.min(interval);
        }
    }

    /// The network is another one: what was learned of the last is void (P5, L7).
    pub(super) fn unlearn(&mut self, interval: Duration) {
        if let Some(native) = &mut self.native {
            native.silence = None;
            self.heartbeat.interval = interval;
        }
    }

    /// The peer's messages below `una` have ended.
    pub(super) fn passed(&mut self, una: Seq) {
        if let Some(native) = &mut self.native {
            native.marks.advance(una);
        }
    }

    /// The number of a message that came with this id, if it is the peer's.
    pub(super) fn native_seq(&self, id: Option<MessageId>) -> Option<Seq> {
        self.native.as_ref().and_then(|native| native.marks.of()).zip(id).and_then(|(of, id)| of.seq_of(id))
    }

    /// A numbered message is frame or request alike to the counters.
    pub(super) fn heard_numbered(&mut self, seq: Seq, una: Seq) -> Heard {
        self.passed(una);
        let arrival = self.on_numbered(seq, None);
        Heard::Arrival(self.count(arrival))
    }

    /// The delivery of a message that waits for its turn.
    #[must_use]
    pub fn waits(&self, delivery: DeliveryId) -> bool {
        let Some(native) = &self.native else { return false };
        let seq = self.inbox.id(delivery).zip(native.marks.of()).and_then(|(id, of)| of.seq_of(id));
        native.config.order && seq.is_some_and(|seq| native.marks.ahead(seq))
    }
}
