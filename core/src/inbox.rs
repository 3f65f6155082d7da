//! What was seen before, what the application holds, and who waits for its answer.
//!
//! A message is the same if its id is known, its content is, or both are ([`DedupBy`]), by whichever path it came. This is
//! decided here and nowhere else. Completion is the application's word and nothing else's.
//!
//! ```text
//!                 fresh                     complete(Done | Reject)             horizon over
//!  frame or ──────────────▶ Held ─────────────────────────────▶ Done ─────────────────────▶ forgotten
//!  request                   │ ▲ a copy: no second delivery,      │ ▲ a copy: its known
//!                            │ └ a request waits up to 4 s        │ └ result, at once
//!                            └── complete(Retry) ──▶ GivenBack ── until ──▶ forgotten: the next copy is delivered again
//!                                                     │ ▲ a copy: no second delivery, a request is told how long
//! ```
//!
//! Where a sender uses an id again for another message (I6), it is told of both by that id alone. So the acknowledgement of the
//! later one waits until the earlier one is decided, and they leave in the order in which the messages came:
//!
//! ```text
//!  x: A Held ◀─ follower ─ B Done, behind     complete(A)     x: A Done, B Done     ──▶ acknowledgement of A, then of B
//! ```
//!
//! What a numbered sender's application has completed is remembered by its number ([`Marks`](crate::marks::Marks)), not here.
//!
//! Invariants: at most `capacity` entries and `held` deliveries; nothing held is ever forgotten; a copy is never delivered
//! while its first is remembered and is always answered with the known result; an entry forgotten before its time is
//! counted, and what arrives while that matters is marked `maybe_dup`.
//! Field bugs: no dedupe key at all, so that a slow handler doubles every message; the id-less HTTP copy of a WebSocket
//! message; duplicates not acknowledged again, so that the sender never stops; time windows that forget in silence; sixteen of
//! twenty messages that vanish as copies because their sender counts seconds.
//! Rules: I4, I5, I6, S3, S5, S6, S8, S11, S12, S16, H2, L13; the answer to a poison message.

use crate::ids::{ContentKey, DeliveryId, MessageId, RequestId};
use crate::ring::Slots;
use crate::time::{Instant, Timer, Timers, Wake};
use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

/// What the application said about a message.
///
/// ```
/// # use bowline::Verdict;
/// assert_ne!(Verdict::Done, Verdict::Reject);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// Processed: acknowledge.
    Done,
    /// It can never be processed.
    Reject,
    /// Not now: its next copy is delivered again, but none before this time has passed, by whichever path it comes (S16).
    Retry {
        /// From now on; told to the peer where there is a way to. Zero is taken for a second, on every path.
        after: Duration,
    },
}

/// How a plain peer learns of a rejection, for which its protocol has no word (S8).
///
/// ```
/// # use bowline::{InboxConfig, OnReject};
/// assert_eq!(InboxConfig::DEFAULT.on_reject, OnReject::Acknowledge);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnReject {
    /// By an acknowledgement, over either path, and a local event: silence would make it repeat for ever what can never
    /// succeed.
    Acknowledge,
    /// By silence on the connection and 422 on a request, for peers that give up by themselves.
    Silence,
}

/// What makes two messages of a plain peer the same one.
///
/// ```
/// # use bowline::{DedupBy, InboxConfig};
/// assert_eq!(InboxConfig::DEFAULT.dedup, DedupBy::IdOrContent);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DedupBy {
    /// Its id or its content key: the sender may draw a new id for every try (I4). A known id with another content is refused
    /// (I5).
    IdOrContent,
    /// Its id: two equal messages may both be meant. A known id with another content is refused (I5).
    Id,
    /// Its id and its content key together: the sender may use an id again, and another content is another message (I6).
    IdAndContent,
}

impl DedupBy {
    /// Returns the id under which a message that came with `id` and `key` is known and acknowledged.
    #[must_use]
    pub const fn known_as(self, id: MessageId, key: Option<ContentKey>) -> MessageId {
        match (self, key) {
            (Self::IdAndContent, Some(key)) => id.with(key),
            (Self::IdOrContent | Self::Id | Self::IdAndContent, _) => id,
        }
    }
}

/// The answer to a request of the peer's; the adapter writes it as a status.
///
/// ```
/// use bowline::Answer;
/// assert_eq!(Answer::Done.status(), 200);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// 200: completed, now or earlier.
    Done,
    /// 422: it can never be processed.
    Rejected,
    /// 422: its id was used for another payload (I5).
    Reused,
    /// 404: nobody has greeted us whose message this could be; the peer says hello again.
    Unknown,
    /// 200: what the answer to a poll carries is complete (H3).
    Polled,
    /// 409 with `Retry-After`: this message alone is still at the application, or was given back (H2, S16).
    Again {
        /// The delay from now.
        after: Duration,
    },
    /// 503 with `Retry-After`: there is no room, for this message or another (H2).
    Busy {
        /// The delay from now.
        after: Duration,
    },
}

impl Answer {
    /// The HTTP status for a plain peer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Done | Self::Polled => 200,
            Self::Unknown => 404,
            Self::Again { .. } => 409,
            Self::Rejected | Self::Reused => 422,
            Self::Busy { .. } => 503,
        }
    }

    /// The time to wait before the same is asked again, for `Retry-After`; `None`: the answer is final.
    #[must_use]
    pub const fn after(self) -> Option<Duration> {
        match self {
            Self::Again { after } | Self::Busy { after } => Some(after),
            Self::Done | Self::Rejected | Self::Reused | Self::Unknown | Self::Polled => None,
        }
    }
}

/// The limits of the inbox.
///
/// ```
/// # use bowline::InboxConfig;
/// assert!(InboxConfig::DEFAULT.horizon >= InboxConfig::DEFAULT.peer_life);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct InboxConfig {
    /// How many messages are remembered; smaller storage limits further. Default 128.
    pub capacity: usize,
    /// How many may be at the application at once; further ones are refused. Default 64.
    pub held: usize,
    /// What makes two messages the same. Default [`DedupBy::IdOrContent`]; in a hub [`DedupBy::Id`].
    pub dedup: DedupBy,
    /// How long a completed message is remembered. Default 1 h.
    pub horizon: Duration,
    /// The longest span from a peer's first try of a message to its last; the horizon must cover it (S12). Default 1 h.
    pub peer_life: Duration,
    /// How long a request waits for the application before it is told to come again. Default 4 s (H2).
    pub answer_wait: Duration,
    /// Default [`OnReject::Acknowledge`].
    pub on_reject: OnReject,
    /// An earlier run of this receiver may have handled messages that this one cannot know: what arrives within the first
    /// horizon is marked `maybe_dup`. Default false.
    pub after_loss: bool,
}

impl InboxConfig {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self {
        capacity: 128,
        held: 64,
        dedup: DedupBy::IdOrContent,
        horizon: Duration::from_secs(3600),
        peer_life: Duration::from_secs(3600),
        answer_wait: Duration::from_secs(4),
        on_reject: OnReject::Acknowledge,
        after_loss: false,
    };
}

/// What the inbox said to a message.
///
/// ```
/// # use bowline::Arrival;
/// assert_ne!(Arrival::Duplicate, Arrival::Full);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arrival {
    /// Hand it to the application.
    Deliver {
        /// To be named when it completes.
        delivery: DeliveryId,
        /// It may have been handled by an earlier run, or beyond the horizon.
        maybe_dup: bool,
    },
    /// Seen before; a known result goes back as an acknowledgement, or as the answer when it is there.
    Duplicate,
    /// As `Deliver`, but keep it until it is its turn ([`Event::Turn`](crate::Event::Turn)): one before it is missing (S9).
    Ahead {
        /// To be named when it completes.
        delivery: DeliveryId,
        /// It may have been handled by an earlier run.
        maybe_dup: bool,
    },
    /// Answer the request at once.
    Answer(Answer),
    /// No room: do nothing, the peer will try again.
    Full,
    /// Its id was used for another payload: not delivered, not acknowledged (I5).
    Reused,
}

/// One remembered message; what storage for an [`Inbox`] is made of.
///
/// ```
/// # use bowline::{Inbox, InboxConfig, InlineInbox, Instant};
/// let inline: InlineInbox<1> = Inbox::new(InboxConfig::DEFAULT, Instant::ZERO, [None]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Seen {
    /// The id it first came with, and the latest other one: a peer that draws a new id for every try awaits an answer to
    /// the last, one that does not awaits it to the first.
    ids: [Option<Known>; 2],
    /// Its content; where ids are used again, the id by which its sender calls it.
    key: Option<ContentKey>,
    delivery: DeliveryId,
    /// The next message that its sender calls by the same id, if that one is behind it; none otherwise.
    follower: DeliveryId,
    stage: Stage,
    waiter: Option<Waiter>,
    /// Rejected, acknowledged all the same, and not yet reported to the application (S8).
    report: bool,
    /// It is kept until it is its turn (S9).
    waits: bool,
    /// Its sender began anew: what comes under its number from now on is another message.
    stray: bool,
    /// Its sender asked for its result by a request, has not been told, and asks again (L13).
    untold: bool,
    /// An earlier message that its sender calls by the same id is undecided: its acknowledgement waits (I6).
    behind: bool,
}

impl Seen {
    /// Whether its sender may be told of it on a connection.
    const fn answerable(&self, on_reject: OnReject) -> bool {
        match self.stage {
            Stage::Done { rejected, .. } => !self.behind && (!rejected || matches!(on_reject, OnReject::Acknowledge)),
            Stage::Held | Stage::GivenBack { .. } | Stage::Released => false,
        }
    }

    /// Its sender was told to come again, or went without an answer; returns how many more are untold by that.
    fn comes_again(&mut self) -> usize {
        usize::from(!core::mem::replace(&mut self.untold, true))
    }

    /// What came by a frame is acknowledged, if that may be; returns how many more acknowledgements wait to be sent.
    fn make_due(&mut self, on_reject: OnReject) -> usize {
        let mut more = 0_usize;
        let answerable = self.answerable(on_reject);
        for known in self.ids.iter_mut().flatten().filter(|known| answerable && known.framed && !known.ack_due) {
            known.ack_due = true;
            more = more.saturating_add(1);
        }
        more
    }

    /// Whether it was given back and its next copy is to be delivered (S16).
    fn may_return(&self, now: Instant) -> bool {
        matches!(self.stage, Stage::GivenBack { until } if until <= now)
    }

    /// Nothing is known by its names any more.
    fn forget_names(&mut self) {
        self.stage = Stage::Released;
        self.ids = [None, None];
        self.key = None;
    }

    /// How many acknowledgements wait to be sent for it.
    fn owed(&self) -> usize {
        self.ids.iter().flatten().filter(|known| known.ack_due).count()
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Known {
    id: MessageId,
    /// It came by a frame, so an acknowledgement is awaited on the connection.
    framed: bool,
    ack_due: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Held,
    Done {
        rejected: bool,
        forget: Instant,
    },
    /// Given back by the application, and not handed over again before this (S16).
    GivenBack {
        until: Instant,
    },
    /// Forgotten, or without a name; only its waiter's answer is left.
    Released,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Waiter {
    request: RequestId,
    until: Timer,
    word: Option<Word>,
}

/// What whoever waits is told; as little of an [`Answer`] as there can be, because every place has room for one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Word {
    Done,
    Rejected,
    Again(Duration),
}

impl Word {
    /// For a completed message.
    const fn of(rejected: bool, on_reject: OnReject) -> Self {
        match (rejected, on_reject) {
            (false, _) | (true, OnReject::Acknowledge) => Self::Done,
            (true, OnReject::Silence) => Self::Rejected,
        }
    }

    const fn answer(self) -> Answer {
        match self {
            Self::Done => Answer::Done,
            Self::Rejected => Answer::Rejected,
            Self::Again(after) => Answer::Again { after },
        }
    }
}

/// An inbox that lies inside its owner and remembers `M` messages.
///
/// ```
/// # use bowline::{Inbox, InboxConfig, InlineInbox, Instant};
/// let inbox: InlineInbox<2> = Inbox::new(InboxConfig::DEFAULT, Instant::ZERO, [None, None]);
/// assert_eq!(inbox.held(), 0);
/// ```
pub type InlineInbox<const M: usize> = Inbox<[Option<Seen>; M]>;

/// The memory of inbound messages, behind storage of the caller's choice.
///
/// ```
/// use bowline::{Arrival, Inbox, InboxConfig, Instant, MessageId, Verdict};
/// let now = Instant::ZERO;
/// let id = Some(MessageId::from_bits(7));
/// let mut inbox = Inbox::new(InboxConfig::DEFAULT, now, [None, None]);
/// let Arrival::Deliver { delivery, .. } = inbox.on_frame(now, id, None) else { panic!() };
/// assert_eq!(inbox.on_frame(now, id, None), Arrival::Duplicate);
/// assert_eq!(inbox.take_ack(), None, "not before the application completed it");
/// assert!(inbox.complete(now, delivery, Verdict::Done));
/// assert_eq!(inbox.take_ack(), id);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Inbox<S: Slots<Seen> + ?Sized = [Option<Seen>]> {
    config: InboxConfig,
    last: DeliveryId,
    /// Until then a fresh message may be one that was forgotten.
    doubt: Instant,
    /// Never later than the earliest waiter's limit.
    wake: Timer,
    held: usize,
    acks: usize,
    answers: usize,
    reports: usize,
    untold: usize,
    horizon_short: u64,
    /// Others remember by number what is completed; this remembers only what is not.
    numbered: bool,
    /// Of a numbered sender there are messages that were given back and may come again now.
    returns: bool,
    item: PhantomData<Seen>,
    slots: S,
}

impl<S: Slots<Seen>> Inbox<S> {
    /// An empty memory.
    pub fn new(config: InboxConfig, now: Instant, mut slots: S) -> Self {
        for slot in slots.as_mut() {
            *slot = None;
        }
        Self {
            config,
            last: DeliveryId::NONE,
            doubt: if config.after_loss { now.after(config.horizon) } else { Instant::ZERO },
            wake: Timer::disarmed(),
            held: 0,
            acks: 0,
            answers: 0,
            reports: 0,
            untold: 0,
            horizon_short: 0,
            numbered: false,
            returns: false,
            item: PhantomData,
            slots,
        }
    }
}

impl<S: Slots<Seen> + ?Sized> Inbox<S> {
    /// A message came by a frame. Without an id it cannot be acknowledged, without a key only its id tells it from others.
    pub fn on_frame(&mut self, now: Instant, id: Option<MessageId>, key: Option<ContentKey>) -> Arrival {
        let (id, key) = self.identify(id, key);
        let known = id.map(|id| Known { id, framed: true, ack_due: false });
        match self.find_now(now, id, key) {
            Find::Reused(_) => Arrival::Reused,
            Find::Nothing => self.admit(now, known, key, None),
            Find::At(at) => {
                if let Some(known) = known {
                    self.note(at, known);
                }
                Arrival::Duplicate
            }
        }
    }

    /// A message came by a request, which is answered now or by [`take_answer`](Self::take_answer) later.
    pub fn on_request(
        &mut self,
        now: Instant,
        request: RequestId,
        id: Option<MessageId>,
        key: Option<ContentKey>,
    ) -> Arrival {
        let (id, key) = self.identify(id, key);
        let known = id.map(|id| Known { id, framed: false, ack_due: false });
        let mut until = Timer::disarmed();
        until.arm(now.after(self.config.answer_wait));
        let waiter = Waiter { request, until, word: None };
        let on_reject = self.config.on_reject;
        match self.find_now(now, id, key) {
            Find::Reused(_) => Arrival::Answer(Answer::Reused),
            Find::Nothing => match self.admit(now, known, key, Some(waiter)) {
                Arrival::Full => Arrival::Answer(Answer::Busy { after: SOON }),
                arrival @ (Arrival::Deliver { .. }
                | Arrival::Ahead { .. }
                | Arrival::Duplicate
                | Arrival::Answer(_)
                | Arrival::Reused) => arrival,
            },
            Find::At(at) => {
                if let Some(known) = known {
                    self.note(at, known);
                }
                self.told(at);
                let Some(seen) = self.seen_mut(at) else { return Arrival::Duplicate };
                match seen.stage {
                    Stage::Done { rejected, .. } => Arrival::Answer(Word::of(rejected, on_reject).answer()),
                    Stage::GivenBack { until } => Arrival::Answer(Answer::Again { after: until.since(now) }),
                    // One request waits at a time; a second copy of the same message is told to come again.
                    Stage::Held if seen.waiter.is_some() => {
                        let untold = seen.comes_again();
                        self.untold = self.untold.saturating_add(untold);
                        Arrival::Answer(Answer::Again { after: SOON })
                    }
                    Stage::Held | Stage::Released => {
                        let at = waiter.until.at();
                        seen.waiter = Some(waiter);
                        let untold = usize::from(core::mem::take(&mut seen.untold));
                        self.untold = self.untold.saturating_sub(untold);
                        if let Some(at) = at {
                            self.wake.arm_by(at);
                        }
                        Arrival::Duplicate
                    }
                }
            }
        }
    }

    /// The application has decided; false: that delivery is not open (any more).
    pub fn complete(&mut self, now: Instant, delivery: DeliveryId, verdict: Verdict) -> bool {
        let forget = now.after(self.config.horizon);
        let on_reject = self.config.on_reject;
        let held = |seen: &&mut Seen| seen.delivery == delivery && seen.stage == Stage::Held;
        let Some(seen) = self.slots.as_mut().iter_mut().flatten().find(held) else { return false };
        let was_untold = seen.untold;
        // Without a name there is nothing to know it by: it takes no place in the memory.
        let nameless = seen.key.is_none() && seen.ids.iter().all(Option::is_none);
        let (word, stage) = match verdict {
            Verdict::Done => (Word::Done, Stage::Done { rejected: false, forget }),
            Verdict::Reject => (Word::of(true, on_reject), Stage::Done { rejected: true, forget }),
            Verdict::Retry { after } => {
                let after = if after.is_zero() { SOON } else { after };
                (Word::Again(after), Stage::GivenBack { until: now.after(after) })
            }
        };
        seen.stage = if nameless { Stage::Released } else { stage };
        match seen.stage {
            Stage::Done { .. } if self.numbered => seen.forget_names(),
            Stage::GivenBack { until } if self.numbered => self.wake.arm_by(until),
            Stage::Done { .. } | Stage::GivenBack { .. } | Stage::Held | Stage::Released => {}
        }
        self.acks = self.acks.saturating_add(seen.make_due(on_reject));
        if verdict == Verdict::Reject && on_reject == OnReject::Acknowledge {
            seen.report = true;
            self.reports = self.reports.saturating_add(1);
        }
        if let Some(waiter) = seen.waiter.as_mut().filter(|waiter| waiter.word.is_none()) {
            waiter.word = Some(word);
            self.answers = self.answers.saturating_add(1);
        }
        // What is given back has no result, and what came by a frame is acknowledged.
        let framed = seen.ids.iter().flatten().any(|known| known.framed);
        seen.untold &= matches!(seen.stage, Stage::Done { .. }) && !framed;
        self.untold = self.untold.saturating_sub(usize::from(was_untold)).saturating_add(usize::from(seen.untold));
        self.held = self.held.saturating_sub(1);
        if !seen.behind {
            let follower = core::mem::replace(&mut seen.follower, DeliveryId::NONE);
            self.release(follower);
        } else if !matches!(seen.stage, Stage::Done { .. }) {
            // What is behind it is behind the one before it now.
            seen.behind = false;
            let follower = core::mem::replace(&mut seen.follower, DeliveryId::NONE);
            let before = |seen: &&mut Seen| seen.follower == delivery;
            if let Some(before) = self.slots.as_mut().iter_mut().flatten().find(before) {
                before.follower = follower;
            }
        }
        true
    }

    /// The messages before this one that its sender calls by the same id are decided: it may be acknowledged, and so may those
    /// behind it, up to the next that is undecided (I6).
    fn release(&mut self, mut next: DeliveryId) {
        let on_reject = self.config.on_reject;
        while next != DeliveryId::NONE {
            let is = |seen: &&mut Seen| seen.delivery == next;
            let Some(seen) = self.slots.as_mut().iter_mut().flatten().find(is) else { return };
            seen.behind = false;
            self.acks = self.acks.saturating_add(seen.make_due(on_reject));
            if seen.stage == Stage::Held {
                return;
            }
            next = core::mem::replace(&mut seen.follower, DeliveryId::NONE);
        }
    }

    /// The peer gave up its request; false: it did not wait.
    pub fn request_gone(&mut self, request: RequestId) -> bool {
        let waits = |seen: &&mut Seen| seen.waiter.as_ref().is_some_and(|waiter| waiter.request == request);
        let Some(seen) = self.slots.as_mut().iter_mut().flatten().find(waits) else { return false };
        if seen.waiter.take().is_some_and(|waiter| waiter.word.is_some()) {
            self.answers = self.answers.saturating_sub(1);
        }
        if matches!(seen.stage, Stage::Held | Stage::Done { .. }) {
            self.untold = self.untold.saturating_add(seen.comes_again());
        }
        true
    }

    /// The session ends: whoever waits is told to come again.
    pub fn release_waiters(&mut self) {
        for seen in self.slots.as_mut().iter_mut().flatten() {
            if let Some(waiter) = seen.waiter.as_mut().filter(|waiter| waiter.word.is_none()) {
                waiter.word = Some(Word::Again(SOON));
                self.answers = self.answers.saturating_add(1);
                self.untold = self.untold.saturating_add(seen.comes_again());
            }
        }
        self.wake.disarm();
    }

    /// What is completed is remembered elsewhere, by number.
    pub(crate) const fn set_numbered(&mut self) {
        self.numbered = true;
        // There is a word for it.
        self.config.on_reject = OnReject::Silence;
    }

    /// How many more may be at the application.
    pub(crate) fn room(&self) -> usize {
        self.config.held.min(self.config.capacity).min(self.slots.limit()).saturating_sub(self.held)
    }

    /// Whether a message is kept until it is its turn.
    pub(crate) fn waits(&self, delivery: DeliveryId) -> bool {
        self.slots
            .as_ref()
            .iter()
            .flatten()
            .any(|seen| seen.delivery == delivery && seen.stage == Stage::Held && seen.waits)
    }

    /// It is kept until it is its turn, or no longer.
    pub(crate) fn set_waits(&mut self, delivery: DeliveryId, waits: bool) {
        if let Some(seen) = self.slots.as_mut().iter_mut().flatten().find(|seen| seen.delivery == delivery) {
            seen.waits = waits;
        }
    }

    /// Whose messages these are began anew.
    pub(crate) fn disown(&mut self) {
        for seen in self.slots.as_mut().iter_mut().flatten() {
            seen.stray = true;
            if matches!(seen.stage, Stage::GivenBack { .. }) {
                seen.forget_names();
            }
        }
    }

    /// How long a message that was given back is still not to be handed over again (S16).
    pub(crate) fn rests(&self, now: Instant, id: MessageId) -> Option<Duration> {
        let Find::At(at) = self.find(Some(id), None) else { return None };
        match self.slots.as_ref().get(at)?.as_ref()?.stage {
            Stage::GivenBack { until } if until > now => Some(until.since(now)),
            Stage::GivenBack { .. } | Stage::Held | Stage::Done { .. } | Stage::Released => None,
        }
    }

    /// The next message of a numbered sender that was given back and may come again now, once.
    pub(crate) fn take_returned(&mut self, now: Instant) -> Option<MessageId> {
        if !self.returns {
            return None;
        }
        let seen = self.slots.as_mut().iter_mut().flatten().find(|seen| seen.may_return(now));
        let Some(seen) = seen else {
            self.returns = false;
            return None;
        };
        let id = seen.ids.iter().flatten().next().map(|known| known.id);
        seen.forget_names();
        id
    }

    /// The next message that waited for its turn when its sender began anew, in the order of their numbers.
    pub(crate) fn take_stray(&mut self) -> Option<DeliveryId> {
        let kept = |seen: &&mut Seen| seen.stage == Stage::Held && seen.stray && seen.waits;
        let first = |seen: &&mut Seen| seen.ids.iter().flatten().map(|known| known.id.bits()).min();
        let seen = self.slots.as_mut().iter_mut().flatten().filter(kept).min_by_key(first)?;
        seen.waits = false;
        Some(seen.delivery)
    }

    /// How long a message is remembered.
    pub(crate) const fn horizon(&self) -> Duration {
        self.config.horizon
    }

    /// The delivery of a message at the application, by its id.
    pub(crate) fn delivery(&self, id: MessageId) -> Option<DeliveryId> {
        let named = |seen: &Seen| seen.ids.iter().flatten().any(|known| known.id == id);
        let is = |seen: &&Seen| seen.stage == Stage::Held && !seen.stray && named(seen);
        self.slots.as_ref().iter().flatten().find(is).map(|seen| seen.delivery)
    }

    /// The id of a message at the application.
    pub(crate) fn id(&self, delivery: DeliveryId) -> Option<MessageId> {
        let is = |seen: &&Seen| seen.stage == Stage::Held && !seen.stray && seen.delivery == delivery;
        self.slots.as_ref().iter().flatten().find(is)?.ids.iter().flatten().next().map(|known| known.id)
    }

    /// Takes nothing new from now on; copies are answered as before (S6).
    pub const fn close(&mut self) {
        self.config.held = 0;
    }

    const fn closed(&self) -> bool {
        self.config.held == 0
    }

    /// A sender is told a result by the answer to its request; once the inbox is closed that is all that is owed to it.
    fn told(&mut self, at: usize) {
        let closed = self.closed();
        let Some(seen) = self.seen_mut(at).filter(|seen| matches!(seen.stage, Stage::Done { .. })) else { return };
        let untold = usize::from(core::mem::take(&mut seen.untold));
        let mut owed = 0;
        if closed {
            owed = seen.owed();
            for known in seen.ids.iter_mut().flatten() {
                known.ack_due = false;
            }
        }
        self.acks = self.acks.saturating_sub(owed);
        self.untold = self.untold.saturating_sub(untold);
    }

    /// Fires what is due.
    pub fn tick(&mut self, now: Instant) {
        if !self.wake.fire(now) {
            return;
        }
        for seen in self.slots.as_mut().iter_mut().flatten() {
            if let Stage::GivenBack { until } = seen.stage
                && self.numbered
            {
                if until <= now {
                    self.returns = true;
                } else {
                    self.wake.arm_by(until);
                }
            }
            let Some(waiter) = seen.waiter.as_mut().filter(|waiter| waiter.word.is_none()) else { continue };
            if waiter.until.fire(now) {
                waiter.word = Some(Word::Again(SOON));
                self.answers = self.answers.saturating_add(1);
                self.untold = self.untold.saturating_add(seen.comes_again());
            } else if let Some(at) = waiter.until.at() {
                self.wake.arm_by(at);
            }
        }
    }

    /// The next acknowledgement to send, once; in the order in which the messages came.
    pub fn take_ack(&mut self) -> Option<MessageId> {
        if self.acks == 0 {
            return None;
        }
        let owed = self.slots.as_mut().iter_mut().flatten().filter(|seen| seen.owed() > 0);
        let first = owed.min_by_key(|seen| seen.delivery)?;
        let due = first.ids.iter_mut().flatten().find(|known| known.ack_due)?;
        due.ack_due = false;
        self.acks = self.acks.saturating_sub(1);
        Some(due.id)
    }

    /// The next answer to a waiting request, once.
    pub fn take_answer(&mut self) -> Option<(RequestId, Answer)> {
        if self.answers == 0 {
            return None;
        }
        for seen in self.slots.as_mut().iter_mut().flatten() {
            if let Some((request, answer)) =
                seen.waiter.as_ref().and_then(|w| w.word.map(|word| (w.request, word.answer())))
            {
                seen.waiter = None;
                self.answers = self.answers.saturating_sub(1);
                return Some((request, answer));
            }
        }
        None
    }

    /// The next message that was rejected but acknowledged, once (S8).
    pub fn take_rejected_but_acked(&mut self) -> Option<DeliveryId> {
        if self.reports == 0 {
            return None;
        }
        let seen = self.slots.as_mut().iter_mut().flatten().find(|seen| seen.report)?;
        seen.report = false;
        self.reports = self.reports.saturating_sub(1);
        Some(seen.delivery)
    }

    /// How many messages are at the application.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Whether a sender has still to hear of a result: an answer or an acknowledgement waits to be sent, or, after
    /// [`close`](Self::close), a result waits to be asked for by a sender that was told to come again, before or after.
    #[must_use]
    pub const fn owes(&self) -> bool {
        self.acks > 0 || self.answers > 0 || (self.closed() && self.untold > 0)
    }

    /// How often a message was forgotten before its time: the memory is too small for the horizon (S12).
    #[must_use]
    pub const fn horizon_short(&self) -> u64 {
        self.horizon_short
    }

    fn seen_mut(&mut self, at: usize) -> Option<&mut Seen> {
        self.slots.as_mut().get_mut(at)?.as_mut()
    }

    /// By what a message is known: where ids are used again, by its id and content together, and the key is the id by which its
    /// sender calls it.
    fn identify(&self, id: Option<MessageId>, key: Option<ContentKey>) -> (Option<MessageId>, Option<ContentKey>) {
        let by = self.config.dedup;
        let key_or_name = match by {
            DedupBy::IdOrContent | DedupBy::Id => key,
            DedupBy::IdAndContent => id.map(|id| ContentKey::from_bits(id.bits())),
        };
        (id.map(|id| by.known_as(id, key)), key_or_name)
    }

    /// Who was called this last, if it is undecided or behind one that is: the message with this delivery is behind it (I6).
    fn follow(&mut self, name: ContentKey, delivery: DeliveryId) -> bool {
        let called = self.slots.as_mut().iter_mut().flatten();
        let called = called.filter(|seen| seen.key == Some(name) && !matches!(seen.stage, Stage::GivenBack { .. }));
        let last = called.max_by_key(|seen| seen.delivery);
        let Some(last) = last.filter(|last| last.stage == Stage::Held || last.behind) else { return false };
        last.follower = delivery;
        true
    }

    fn find(&self, id: Option<MessageId>, key: Option<ContentKey>) -> Find {
        let mut by_key = Find::Nothing;
        for (at, slot) in self.slots.as_ref().iter().enumerate() {
            let Some(seen) = slot.as_ref().filter(|seen| !seen.stray) else { continue };
            if id.is_some() && seen.ids.iter().flatten().any(|known| Some(known.id) == id) {
                return if key.is_some() && seen.key.is_some() && key != seen.key {
                    Find::Reused(at)
                } else {
                    Find::At(at)
                };
            }
            if self.config.dedup == DedupBy::IdOrContent && key.is_some() && seen.key == key {
                by_key = Find::At(at);
            }
        }
        by_key
    }

    /// As `find`; what was given back and may come again is forgotten when it is looked for (S16).
    fn find_now(&mut self, now: Instant, id: Option<MessageId>, key: Option<ContentKey>) -> Find {
        loop {
            let found = self.find(id, key);
            let (Find::At(at) | Find::Reused(at)) = found else { return Find::Nothing };
            match self.seen_mut(at).filter(|seen| seen.may_return(now)) {
                Some(seen) => seen.forget_names(),
                None => return found,
            }
        }
    }

    /// Whether this is a copy of a message that is remembered, and would not be handed over again (S16).
    pub(crate) fn knows(&self, now: Instant, id: Option<MessageId>, key: Option<ContentKey>) -> bool {
        let (Find::At(at) | Find::Reused(at)) = self.find(id, key) else { return false };
        self.slots.as_ref().get(at).and_then(Option::as_ref).is_some_and(|seen| !seen.may_return(now))
    }

    /// Notes one more arrival of a message; if its result is known, an acknowledgement is due again (S6).
    fn note(&mut self, at: usize, new: Known) {
        let on_reject = self.config.on_reject;
        let Some(seen) = self.seen_mut(at) else { return };
        let answerable = seen.answerable(on_reject);
        let [first, second] = &mut seen.ids;
        let place = match (&first, &second) {
            (None, _) => first,
            (Some(known), _) if known.id == new.id => first,
            (Some(_), _) => second,
        };
        let mut delta_due = false;
        match place {
            Some(known) if known.id == new.id => {
                known.framed |= new.framed;
                if answerable && new.framed && !known.ack_due {
                    known.ack_due = true;
                    delta_due = true;
                }
            }
            place => {
                let was_due = place.as_ref().is_some_and(|known| known.ack_due);
                let due = answerable && new.framed;
                *place = Some(Known { ack_due: due, ..new });
                delta_due = due && !was_due;
                if was_due && !due {
                    self.acks = self.acks.saturating_sub(1);
                }
            }
        }
        if delta_due {
            self.acks = self.acks.saturating_add(1);
            // From now on its acknowledgement is what is owed.
            let untold = self.seen_mut(at).is_some_and(|seen| core::mem::take(&mut seen.untold));
            self.untold = self.untold.saturating_sub(usize::from(untold));
        }
    }

    fn admit(
        &mut self,
        now: Instant,
        known: Option<Known>,
        key: Option<ContentKey>,
        waiter: Option<Waiter>,
    ) -> Arrival {
        let limit = self.config.capacity;
        if self.held >= self.config.held {
            return Arrival::Full;
        }
        let mut free = None;
        let mut oldest: Option<((bool, Rank, Instant), usize)> = None;
        for (at, slot) in self.slots.as_ref().iter().enumerate().take(limit) {
            let Some(seen) = slot else {
                free = Some(at);
                break;
            };
            // A frame can wait until what is owed on its connection was taken; a request comes because nobody takes it.
            let owed = seen.owed() > 0;
            if seen.waiter.is_some() || seen.report || seen.behind || (owed && waiter.is_none()) {
                continue;
            }
            let (rank, forget) = match seen.stage {
                Stage::Held => continue,
                Stage::GivenBack { until } if until > now => (Rank::GivenBack, until),
                Stage::GivenBack { .. } | Stage::Released => {
                    free = Some(at);
                    continue;
                }
                Stage::Done { forget, .. } if forget > now => (Rank::Done, forget),
                Stage::Done { forget, .. } => (Rank::Over, forget),
            };
            if oldest.is_none_or(|(best, _)| (owed, rank, forget) < best) {
                oldest = Some(((owed, rank, forget), at));
            }
        }
        let may_forget = oldest.is_some_and(|((_, rank, _), _)| rank == Rank::Over);
        if free.is_none() && !may_forget && self.slots.as_ref().len() < limit {
            let more = self.slots.as_ref().len();
            free = self.slots.grow(limit).then_some(more);
        }
        let at = match (free, oldest) {
            (Some(at), _) => at,
            (None, Some(((_, Rank::GivenBack, _), at))) if self.numbered => {
                // Its sender may count it as arrived: it is asked for now, and has left its place when this one comes again.
                if let Some(seen) = self.seen_mut(at) {
                    seen.stage = Stage::GivenBack { until: now };
                    self.returns = true;
                }
                return Arrival::Full;
            }
            (None, Some(((_, rank, forget), at))) => {
                if rank == Rank::Done {
                    self.horizon_short = self.horizon_short.saturating_add(1);
                    self.doubt = self.doubt.max(forget);
                }
                at
            }
            (None, None) => return Arrival::Full,
        };
        if let Some(until) = waiter.as_ref().and_then(|waiter| waiter.until.at()) {
            self.wake.arm_by(until);
        }
        self.last = self.last.next();
        let delivery = self.last;
        let ids = [known, None];
        let behind = self.config.dedup == DedupBy::IdAndContent && key.is_some_and(|name| self.follow(name, delivery));
        let (stage, report, waits, stray, untold) = (Stage::Held, false, false, false, false);
        let seen = Seen {
            ids,
            key,
            delivery,
            follower: DeliveryId::NONE,
            stage,
            waiter,
            report,
            waits,
            stray,
            untold,
            behind,
        };
        if let Some(slot) = self.slots.as_mut().get_mut(at) {
            let forgotten = slot.replace(seen);
            let (owed, untold) = forgotten.map_or((0, 0), |seen| (seen.owed(), usize::from(seen.untold)));
            self.acks = self.acks.saturating_sub(owed);
            self.untold = self.untold.saturating_sub(untold);
        }
        self.held = self.held.saturating_add(1);
        Arrival::Deliver { delivery, maybe_dup: now < self.doubt }
    }
}

/// When a peer that cannot be answered yet should come again: long enough not to spin, short against its patience.
const SOON: Duration = Duration::from_secs(1);

enum Find {
    Nothing,
    At(usize),
    Reused(usize),
}

/// What is forgotten first where a place is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Its horizon is over.
    Over,
    /// It is delivered again sooner than the application said, which nothing is lost by.
    GivenBack,
    /// Its copy would be delivered a second time.
    Done,
}

impl<S: Slots<Seen> + ?Sized> Timers for Inbox<S> {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        see(Wake::Memory, &self.wake);
    }
}

impl<S: Slots<Seen> + ?Sized> fmt::Debug for Inbox<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("held", &self.held)
            .field("acks", &self.acks)
            .field("answers", &self.answers)
            .field("wake", &self.wake)
            .field("seen", &Entries(self.slots.as_ref()))
            .finish_non_exhaustive()
    }
}

struct Entries<'a>(&'a [Option<Seen>]);

impl fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().flatten()).finish()
    }
}

#[cfg(test)]
mod tests;
