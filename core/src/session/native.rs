//! The numbered half of a session: what two native peers say to each other beyond what plain ones can.
//!
//! ```text
//!  greeting ─▶ who numbers, what each has ─▶ Marks begin, or go on        Outbox: what need not be sent again
//!  data     ─▶ Marks.look ─▶ Inbox: room?  ─▶ Deliver, or Ahead … Turn    marks ◀─ at most 25 ms later
//!  marks    ─▶ Outbox: ended, arrived, credit
//!  without a connection, client: Greet ─▶ Poll ─▶ Poll …      hub: a poll waits until there is something to carry
//! ```
//!
//! Invariants: one question by HTTP at a time ([`Output::Greet`](super::Output::Greet), [`Output::Poll`](super::Output::Poll)),
//! and a second poll beside it when there are marks to be told, for the first one may wait long for something to carry;
//! one poll waits at a time, and the newest counts; what a poll carried is carried again until marks say that it arrived.
//! Rules: S4, S8–S11, S16, R1–R7, L3, L7, H3.

use super::{Event, Head, Heard, Next, Session};
use crate::ids::{ContentKey, DeliveryId, LinkId, MessageId, RequestId, Seq};
use crate::inbox::{Answer, Arrival, Seen, Verdict};
use crate::marks::{Beat, Came, Marks, Nack, Report, Step};
use crate::outbox::{Ack, Outcome, Path, Rejection, Slot};
use crate::reason::{HttpOutcome, Reason};
use crate::resume::{Got, Greeting, ResumeRefusal};
use crate::ring::Slots;
use crate::route::RequestKind;
use crate::store::Store;
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

/// Below the first number.
const NOTHING: Seq = Seq::from_number(0);

/// What could not be taken for lack of room is asked for again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// After a question by HTTP that failed, or that brought nothing at once, the next one.
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
    /// A poll that a newer one has replaced and that was not answered yet.
    older: Option<u32>,
    poll: Option<Waiting>,
    /// A poll that a newer one has replaced.
    superseded: Option<RequestId>,
    carrying: Option<Carrying>,
    /// How the last greeting ended, and what of the peer's is lost with its former epoch; for the application.
    told: Option<(bool, Option<ResumeRefusal>)>,
    /// Nobody has number 0: nothing is lost.
    lost: Seq,
    /// Something may have waited for its turn when the peer began anew.
    strays: bool,
    /// So long after the peer began anew something may still come from its former self; and the question that was under
    /// way then, whose answer is the former self's.
    former_until: Instant,
    former_talk: u32,
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
    /// `idle`: nothing has come by HTTP since.
    Underway {
        greet: bool,
        idle: bool,
    },
    Rest {
        until: Timer,
    },
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
            older: None,
            poll: None,
            superseded: None,
            carrying: None,
            told: None,
            lost: NOTHING,
            strays: false,
            former_until: Instant::ZERO,
            former_talk: 0,
            framed: NOTHING,
            posted: (NOTHING, Instant::ZERO),
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
        self.announce |= !matches!(outcome, Outcome::Delivered { .. } | Outcome::Rejected(Rejection::ByPeer));
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
        // In whole numbers: a `Duration` times a number can panic, as far as a compiler knows.
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let now = micros(silence);
        let same = |before: u64| now.abs_diff(before).saturating_mul(4) <= now.max(before);
        if self.silence.replace(silence).map(micros).is_some_and(same) {
            self.silence = None;
            return Some(Duration::from_micros(now.saturating_mul(7) / 10).max(SHORTEST));
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

impl<P, O: Slots<Slot<P>>, I: Store<Seen>> Session<P, O, I> {
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

    pub(crate) const fn is_native(&self) -> bool {
        self.native.is_some()
    }

    /// What this side has of the peer's messages; for what goes by HTTP, where the session does not write frames.
    #[must_use]
    pub fn report(&self) -> Report {
        let room = self.inbox.room();
        self.native.as_ref().map_or(Report::nothing(0), |native| native.marks.report(room))
    }

    pub(super) fn on_greeting(
        &mut self,
        greeting: &Greeting,
        known: Option<ResumeRefusal>,
        http: bool,
    ) -> Option<ResumeRefusal> {
        let origin = self.outbox.origin();
        let (una, next) = (self.outbox.una(), self.outbox.next());
        let Some(native) = &mut self.native else { return known };
        let marks = &mut native.marks;
        let before = marks.of();
        if before.is_some_and(|of| of.identity() == greeting.origin.identity() && of.epoch() > greeting.origin.epoch())
        {
            return Some(ResumeRefusal::Epoch);
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
            None if !same && before.is_some() => Some(ResumeRefusal::Gap),
            None if !same || (greeting.rx.is_some() && got.is_none()) => Some(ResumeRefusal::UnknownSession),
            None if ahead_in || ahead_out => Some(ResumeRefusal::Ahead),
            None if gap_in || gap_out => Some(ResumeRefusal::Gap),
            None => None,
        };
        // A connection may have overtaken it, and what came by that is no reason to forget what came before.
        if http && same && self.live.is_some() {
            return reason;
        }
        if same && !ahead_in {
            marks.advance(self.now, greeting.una);
        } else {
            if before.is_some() {
                native.lost = mine.rcv().next();
                native.strays = true;
                native.former_until = self.now.after(OVERTAKES);
                native.former_talk = native.talks;
                self.inbox.disown();
            }
            // Of one that says it has sent less than came, nothing that came before is new.
            let had = native.framed.max(posted).max(mine.top()).next();
            let doubt = if same { greeting.next.max(had) } else { greeting.next };
            marks.begin(greeting.origin, greeting.una, doubt);
            native.framed = NOTHING;
            native.posted = (NOTHING, Instant::ZERO);
        }
        marks.told();
        native.greeted = true;
        let report = got.filter(|_| !ahead_out).map(|got| got.report);
        let _ = self.outbox.on_greeting(self.now, report.as_ref(), greeting.win);
        reason
    }

    /// A client was greeted, by frame or by HTTP; `resumed` is the hub's word. False: it says what cannot be.
    pub(super) fn on_welcome(&mut self, greeting: &Greeting, refused: Option<ResumeRefusal>) -> bool {
        let asked = self.native.as_ref().is_some_and(Native::greeted);
        let lied =
            greeting.rx.is_some_and(|got| got.of == self.outbox.origin() && got.report.top() >= self.outbox.next());
        // Whoever remembers for a shorter time than we try would take a late copy for new (S12).
        let short = self.outbox.life().is_some_and(|life| greeting.life < life);
        if self.native.is_none() || lied || short {
            return false;
        }
        let own = self.on_greeting(greeting, None, false);
        if own == Some(ResumeRefusal::Epoch) {
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
        let busy = Answer::Busy { after: AGAIN };
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
                    self.inbox.set_waits(delivery, true);
                    Arrival::Ahead { delivery, maybe_dup }
                }
            }
            Arrival::Full if request.is_some() => Arrival::Answer(busy),
            Arrival::Full if !self.closing => {
                native.marks.refused(now, seq, true);
                arrival
            }
            // Given back, and too soon (S16).
            Arrival::Duplicate if came == Came::Fresh && request.is_none() => {
                if self.live.is_some() {
                    native.marks.refused(now, seq, false);
                } else {
                    native.marks.keep(now, seq);
                }
                arrival
            }
            Arrival::Duplicate | Arrival::Answer(_) | Arrival::Full | Arrival::Reused | Arrival::Ahead { .. } => {
                native.marks.again(now);
                arrival
            }
        }
    }

    /// What the peer has, and below what it need not wait.
    pub(super) fn on_marks(&mut self, link: LinkId, report: &Report, una: Seq) -> Ack {
        let now = self.now;
        let Some(native) = &mut self.native else { return Ack::Unknown };
        if link == LinkId::NONE {
            native.polled = now;
        }
        native.marks.advance(now, una);
        let said = self.outbox.on_report(now, link, report, link != LinkId::NONE || self.live.is_none());
        // It waits for what has ended here, and may give no credit for what comes behind that.
        native.announce |= said != Ack::NeverSent && self.outbox.una() > report.rcv().next();
        said
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
        // Who polls cannot say when, and is answered at once.
        let polls = self.live.is_none() && self.route.has_http();
        let Some(native) = &mut self.native else { return };
        let Some(seq) = id.zip(native.marks.of()).and_then(|(id, of)| of.seq_of(id)) else { return };
        match verdict {
            Verdict::Done => native.marks.completed(now, seq, false),
            Verdict::Reject => native.marks.completed(now, seq, true),
            Verdict::Retry { .. } if polls => native.marks.keep(now, seq),
            Verdict::Retry { .. } => native.marks.given_back(now, seq),
        }
    }

    /// What was given back without a word about the time, and whose time has come, is asked for now (S16).
    pub(super) fn ask_for_returned(&mut self) {
        let now = self.now;
        while let Some(id) = self.inbox.take_returned(now) {
            let seq = self.native_seq(Some(id));
            if let Some(native) = &mut self.native
                && let Some(seq) = seq.filter(|seq| native.marks.keeps(*seq))
            {
                native.marks.given_back(now, seq);
            }
        }
    }

    pub(super) fn on_poll(&mut self, request: RequestId, wait: Duration, report: &Report, una: Seq) -> bool {
        let now = self.now;
        // One that is replaced is answered, so it needs a place until it is.
        let taken = self.native.as_ref().is_some_and(|native| native.superseded.is_none());
        if self.taken(taken) && self.on_marks(LinkId::NONE, report, una) == Ack::NeverSent {
            self.stats.violations = self.stats.violations.saturating_add(1);
        }
        let Some(native) = self.native.as_mut().filter(|_| taken) else { return false };
        let mut until = Timer::disarmed();
        let wait = wait.min(native.config.poll);
        if !wait.is_zero() && self.live.is_none() && !self.closing {
            until.arm(now.after(wait));
        }
        native.superseded = native.poll.replace(Waiting { request, until }).map(|older| older.request);
        self.outbox.begin_poll();
        true
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
        let Some(native) = &mut self.native else { return false };
        if native.older.take_if(|older| *older == talk).is_some() {
            return true;
        }
        if native.talks != talk {
            return false;
        }
        let Talk::Underway { greet, idle } = native.talk else { return false };
        let known = if greet { native.greeted } else { !idle };
        let kind = if greet { RequestKind::Greeting } else { RequestKind::Poll };
        let live = self.live.is_some();
        native.talk = Talk::Ready;
        let mut rest = || {
            let mut until = Timer::disarmed();
            until.arm(now.after(REST));
            native.talk = Talk::Rest { until };
        };
        match outcome {
            // A greeting that says nothing we believe, or an answer without a word, as while the hub holds a connection for
            // alive: asked again at once, it would be a loop.
            HttpOutcome::Answered { status: 200..=299, by_peer: true, .. } => {
                if !known {
                    rest();
                }
            }
            HttpOutcome::Answered { .. } if outcome.needs_handshake() && !greet && !live => native.greeted = false,
            // Longer, if the answer says so, by the back-off of the path.
            HttpOutcome::Answered { .. } | HttpOutcome::Unreached(_) | HttpOutcome::Unknown(_) => rest(),
        }
        self.request_ended(None, outcome);
        if !finished {
            self.route.posted(now, kind, outcome, &mut self.rng);
        }
        true
    }

    /// A frame has come by HTTP: as it is to be understood, if it can be.
    pub(super) fn brought(&mut self, head: Head) -> Option<Head> {
        let (now, finished) = (self.now, self.finished());
        let native = self.native.as_mut()?;
        // What a former self of the peer numbered means something else to this one.
        let former = now < native.former_until;
        let underway = matches!(native.talk, Talk::Underway { .. });
        let (talk, older) = (native.former_talk, native.older);
        let asked = older == Some(talk) || (underway && native.talks == talk);
        let head = match (head, former) {
            (Head::Numbered { .. }, _) if finished => return None,
            (Head::Numbered { .. }, true) if asked => return None,
            (Head::Marks { report, beat, .. }, true) => Head::Marks { report, una: Seq::FIRST, beat },
            (Head::Numbered { .. } | Head::Marks { .. } | Head::Nack { .. } | Head::Welcome { .. }, _) => head,
            (
                Head::Data { .. }
                | Head::Ack { .. }
                | Head::Reject { .. }
                | Head::Pong
                | Head::Word { .. }
                | Head::Part
                | Head::Hello
                | Head::Other
                | Head::Malformed,
                _,
            ) => return None,
        };
        if let Talk::Underway { idle, .. } = &mut native.talk {
            *idle = false;
        }
        Some(head)
    }

    /// The peer does not know us any more: before anything else it must be greeted, and whatever it was asked before may wait
    /// for its answer as long as it likes.
    pub(super) const fn forgotten(&mut self) {
        if let Some(native) = &mut self.native {
            native.greeted = false;
            if matches!(native.talk, Talk::Underway { greet: false, .. }) {
                native.talk = Talk::Ready;
            }
        }
    }

    /// The next thing to ask by HTTP, marked as under way.
    pub(super) fn next_ask(&mut self) -> Option<(u32, Ask)> {
        let by_http = self.route.path() == Path::Http && self.live.is_none() && self.route.may_post(0);
        let dials = self.link.dials() && !self.failed();
        let closing = self.closing;
        let native = self.native.as_mut()?;
        let again = match native.talk {
            Talk::Ready => false,
            Talk::Underway { greet: false, .. } if native.older.is_none() && native.marks.is_due() => true,
            Talk::Underway { .. } | Talk::Rest { .. } => return None,
        };
        if !by_http || !dials || native.config.poll.is_zero() || (closing && native.greeted) {
            return None;
        }
        let greet = !native.greeted;
        if (greet || self.route.http_failing()) && !self.route.may_repeat(0) {
            return None;
        }
        if again {
            native.older = Some(native.talks);
        }
        if greet || self.route.http_failing() {
            self.route.repeats(self.now);
        }
        native.talk = Talk::Underway { greet, idle: true };
        native.talks = native.talks.saturating_add(1);
        if !greet {
            native.marks.told();
            native.announce = false;
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
            let worth = !live && (native.announce || native.marks.is_due() || self.outbox.has_polled(now));
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
            native.announce = false;
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
        if let Some((seq, full)) = native.marks.take_nack() {
            let id = native.marks.of().map(|of| of.message(seq));
            let left = id.and_then(|id| self.inbox.rests(self.now, id)).unwrap_or_default();
            return Some(Next::Nack(seq, if full { AGAIN } else { left }));
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
        if native.lost > NOTHING {
            let from = core::mem::replace(&mut native.lost, NOTHING);
            return Some(Event::Gap { from, to: None, count: 0 });
        }
        if native.strays {
            if let Some(delivery) = self.inbox.take_stray() {
                return Some(Event::Turn { delivery });
            }
            native.strays = false;
        }
        loop {
            match native.marks.step()? {
                Step::Gap { from, to, count } => return Some(Event::Gap { from, to: Some(to), count }),
                Step::Turn(seq) => {
                    let id = native.marks.of().map(|of| of.message(seq));
                    if let Some(delivery) = id.and_then(|id| self.inbox.delivery(id)) {
                        self.inbox.set_waits(delivery, false);
                        return Some(Event::Turn { delivery });
                    }
                }
            }
        }
    }

    /// A connection has ended, by this reason, and nothing was heard on it for so long (L7).
    pub(super) fn learn(&mut self, reason: Option<Reason>, silence: Duration) {
        let interval = self.heartbeat.interval;
        let Some(native) = self.native.as_mut() else { return };
        if !matches!(reason, Some(Reason::Dead | Reason::Closed(1006))) || silence < SHORTEST {
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
            if matches!(native.talk, Talk::Rest { .. }) {
                native.talk = Talk::Ready;
            }
            self.heartbeat.interval = interval;
        }
    }

    /// The peer's messages below `una` have ended.
    pub(super) fn passed(&mut self, una: Seq) {
        if let Some(native) = &mut self.native {
            native.marks.advance(self.now, una);
        }
    }

    /// The number of a message that came with this id, if it is the peer's.
    pub(crate) fn native_seq(&self, id: Option<MessageId>) -> Option<Seq> {
        self.native.as_ref().and_then(|native| native.marks.of()).zip(id).and_then(|(of, id)| of.seq_of(id))
    }

    /// Whether this number has arrived, now or earlier, and would not be handed over again by this time (S16).
    pub(crate) fn has(&self, now: Instant, seq: Seq) -> bool {
        self.native.as_ref().is_some_and(|native| match native.marks.look(seq) {
            Came::Done { .. } => true,
            Came::Copy => self.inbox.knows(now, native.marks.of().map(|of| of.message(seq)), None),
            Came::Fresh | Came::Beyond => false,
        })
    }

    /// Whether it is this number's turn (S9).
    pub(crate) fn is_next(&self, seq: Seq) -> bool {
        self.native.as_ref().is_some_and(|native| native.marks.is_next(seq))
    }

    /// Whether any message waits for its turn.
    pub(crate) fn has_waiting(&self) -> bool {
        self.native.as_ref().is_some_and(|native| native.marks.has_waiting())
    }

    /// Whether this is, by this time, a copy of a message that is remembered.
    pub(crate) fn knows(&self, now: Instant, id: Option<MessageId>, key: Option<ContentKey>) -> bool {
        self.inbox.knows(now, id, key)
    }

    /// A numbered message is frame or request alike to the counters.
    pub(super) fn heard_numbered(&mut self, seq: Seq, una: Seq) -> Heard {
        self.passed(una);
        let arrival = self.on_numbered(seq, None);
        Heard::Arrival(self.count(arrival))
    }

    /// Whether a message waits for its turn.
    #[must_use]
    pub fn waits(&self, delivery: DeliveryId) -> bool {
        self.inbox.waits(delivery)
    }
}

#[cfg(test)]
mod tests;
