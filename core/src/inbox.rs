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
//! Invariants: at most `bytes` of memory and `held` deliveries; nothing held is ever forgotten; a copy is never delivered
//! while its first is remembered and is always answered with the known result; an entry forgotten before its time is
//! counted, and what arrives while that matters is marked `maybe_dup`.
//! Field bugs: no dedupe key at all, so that a slow handler doubles every message; the id-less HTTP copy of a WebSocket
//! message; duplicates not acknowledged again, so that the sender never stops; time windows that forget in silence; sixteen of
//! twenty messages that vanish as copies because their sender counts seconds.
//! Rules: I4, I5, I6, S3, S5, S6, S8, S11, S12, S14, S15, S16, H2, L13; the answer to a poison message.

mod memory;

use crate::ids::{ContentKey, DeliveryId, MessageId, RequestId};
use crate::store::{Fixed, Store};
use crate::time::{Instant, Timer, Timers, Wake};
use core::fmt;
use core::hash::{Hash, Hasher};
use core::time::Duration;
use memory::{Index, Known, Links, List, NAMES, Name};

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
    /// How many bytes remembered messages may take, [`Seen::BYTES`] each; fixed storage limits further. The memory is taken
    /// when it is needed. Default 1 MiB, which is enough for 7,281 messages within the horizon.
    pub bytes: usize,
    /// How many may be at the application at once; further ones are refused. One whose acknowledgement would wait for another
    /// (I6) is refused, too, if with those that wait so there are as many. Default 64.
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
        bytes: 1 << 20,
        held: 64,
        dedup: DedupBy::IdOrContent,
        horizon: Duration::from_secs(3600),
        peer_life: Duration::from_secs(3600),
        answer_wait: Duration::from_secs(4),
        on_reject: OnReject::Acknowledge,
        after_loss: false,
    };

    /// How many messages [`bytes`](Self::bytes) are enough for.
    #[must_use]
    pub const fn messages(&self) -> usize {
        self.bytes / Seen::BYTES
    }
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

/// One place of an inbox's memory; what storage for an [`Inbox`] is made of.
///
/// ```
/// use bowline::{Fixed, Seen};
/// let four: Fixed<Seen, 4> = Fixed::new();
/// assert!(size_of_val(&four) <= 4 * Seen::BYTES + 8);
/// ```
#[derive(Clone)]
pub struct Seen {
    inbound: Inbound,
    links: Links,
}

impl Seen {
    /// How many bytes one remembered message takes, its share of the index included: 144 where a pointer has 64 bits.
    pub const BYTES: usize = size_of::<Self>();

    const VACANT: Self = Self { inbound: Inbound::VACANT, links: Links::NONE };
}

/// Equal if the same is known of the same message, wherever it lies.
impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        self.inbound == other.inbound
    }
}

impl Eq for Seen {}

impl Hash for Seen {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inbound.hash(state);
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inbound.fmt(f)
    }
}

/// What is known of a message that came. Plain fields and no options: of these there are tens of thousands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Inbound {
    /// The id it first came with, and the latest other one: a peer that draws a new id for every try awaits an answer to
    /// the last, one that does not awaits it to the first.
    ids: [MessageId; 2],
    named: [Named; 2],
    /// Its content; where ids are used again, the id by which its sender calls it. Of no meaning unless `keyed`.
    key: ContentKey,
    keyed: bool,
    /// It is found by its key: where ids are used again, the latest of those that its sender calls so, otherwise where equal
    /// contents are the same message.
    found_by_key: bool,
    /// An earlier message that its sender calls by the same id is undecided: its acknowledgement waits (I6).
    behind: bool,
    delivery: DeliveryId,
    stage: Stage,
    /// Of no meaning unless somebody asks.
    request: RequestId,
    asks: Asks,
    /// In milliseconds from the answer on; of no meaning unless that is to come again.
    after_ms: u32,
    /// Rejected, acknowledged all the same, and not yet reported to the application (S8).
    report: bool,
    /// It is kept until it is its turn (S9).
    waits: bool,
    /// Its sender began anew: what comes under its number from now on is another message.
    stray: bool,
    /// Its sender asked for its result by a request, has not been told, and asks again (L13).
    untold: bool,
}

/// How a message came by an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Named {
    /// There is no such id.
    No,
    /// By requests alone: they are answered, and no acknowledgement is awaited.
    Posted,
    /// By a frame, so an acknowledgement is awaited on the connection.
    Framed,
    /// By a frame, and its acknowledgement is to be sent.
    Due,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// No message.
    Vacant,
    /// At the application; a request waits for it until then.
    Held {
        until: Instant,
    },
    Done {
        rejected: bool,
        forget: Instant,
    },
    /// Given back by the application, and not handed over again before this (S16).
    GivenBack {
        until: Instant,
    },
    /// Forgotten, or without a name; only its request's answer or its report is left.
    Released,
}

/// The request that asks for a message's result; one at a time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Asks {
    Nobody,
    Waits,
    /// To be answered so.
    Done,
    Rejected,
    Again,
}

impl Inbound {
    const VACANT: Self = Self {
        ids: [MessageId::from_bits(0); 2],
        named: [Named::No; 2],
        key: ContentKey::from_bits(0),
        keyed: false,
        found_by_key: false,
        behind: false,
        delivery: DeliveryId::NONE,
        stage: Stage::Vacant,
        request: RequestId(0),
        asks: Asks::Nobody,
        after_ms: 0,
        report: false,
        waits: false,
        stray: false,
        untold: false,
    };

    /// By what it is found. What has no result and is not at the application has no name.
    fn names(&self) -> [Option<Name>; NAMES] {
        let [first, latest] = self.ids;
        let [came, again] = self.named;
        [
            (came != Named::No).then_some(Name::Id(first)),
            (again != Named::No).then_some(Name::Id(latest)),
            self.found_by_key.then_some(Name::Content(self.key)),
            self.is_held().then_some(Name::Delivery(self.delivery)),
        ]
    }

    /// In which lists it is: where it stands, and what is to be told of it first.
    fn lists(&self) -> [Option<List>; 2] {
        let due = if self.report {
            Some(List::Reports)
        } else if self.answer().is_some() {
            Some(List::Answers)
        } else {
            self.is_owed().then_some(List::Acks)
        };
        let stands = match self.stage {
            Stage::Vacant => List::Vacant,
            Stage::Held { .. } if self.asks == Asks::Waits => List::Waiting,
            Stage::Held { .. } => List::Held,
            Stage::Done { .. } if self.behind => List::Behind,
            Stage::Done { .. } => List::Completed,
            Stage::GivenBack { .. } => List::GivenBack,
            Stage::Released => List::Released,
        };
        [Some(stands), due]
    }

    /// An acknowledgement of it is to be sent.
    fn is_owed(&self) -> bool {
        self.named.contains(&Named::Due)
    }

    const fn is_held(&self) -> bool {
        matches!(self.stage, Stage::Held { .. })
    }

    const fn key(&self) -> Option<ContentKey> {
        if self.keyed { Some(self.key) } else { None }
    }

    /// Whether it came by a frame under any id.
    fn is_framed(&self) -> bool {
        self.named.iter().any(|named| matches!(named, Named::Framed | Named::Due))
    }

    /// The ids it came with.
    fn ids(&self) -> impl Iterator<Item = MessageId> {
        self.ids.into_iter().zip(self.named).filter(|(_, named)| *named != Named::No).map(|(id, _)| id)
    }

    /// When it may be forgotten.
    const fn forget(&self) -> Instant {
        match self.stage {
            Stage::Done { forget, .. } => forget,
            Stage::Vacant | Stage::Held { .. } | Stage::GivenBack { .. } | Stage::Released => Instant::ZERO,
        }
    }

    /// Until when it rests (S16).
    const fn rests_until(&self) -> Option<Instant> {
        match self.stage {
            Stage::GivenBack { until } => Some(until),
            Stage::Vacant | Stage::Held { .. } | Stage::Done { .. } | Stage::Released => None,
        }
    }

    /// Whether it was given back and its next copy is to be delivered (S16).
    fn may_return(&self, now: Instant) -> bool {
        self.rests_until().is_some_and(|until| until <= now)
    }

    /// Nothing is known by its names any more.
    fn forget_names(&mut self) {
        self.stage = Stage::Released;
        (self.ids, self.named) = (Self::VACANT.ids, Self::VACANT.named);
        (self.key, self.keyed, self.found_by_key, self.behind) = (Self::VACANT.key, false, false, false);
    }

    /// Until when its request waits.
    const fn waits_until(&self) -> Instant {
        match self.stage {
            Stage::Held { until } => until,
            Stage::Vacant | Stage::Done { .. } | Stage::GivenBack { .. } | Stage::Released => Instant::ZERO,
        }
    }

    /// What its request is answered; `None` while it waits, or if there is none.
    fn answer(&self) -> Option<Answer> {
        match self.asks {
            Asks::Nobody | Asks::Waits => None,
            Asks::Done => Some(Answer::Done),
            Asks::Rejected => Some(Answer::Rejected),
            Asks::Again => Some(Answer::Again { after: Duration::from_millis(self.after_ms.into()) }),
        }
    }

    /// A message that has just come.
    fn new(delivery: DeliveryId, id: Option<MessageId>, key: Option<ContentKey>, by_frame: bool) -> Self {
        let mut inbound = Self { delivery, stage: Stage::Held { until: Instant::ZERO }, ..Self::VACANT };
        if let Some(id) = id {
            inbound.came(id, by_frame, OnReject::Silence);
        }
        if let Some(key) = key {
            (inbound.key, inbound.keyed) = (key, true);
        }
        inbound
    }

    /// Whether its sender may be told of it on a connection.
    fn is_answerable(&self, on_reject: OnReject) -> bool {
        match self.stage {
            Stage::Done { rejected, .. } => !self.behind && (!rejected || on_reject == OnReject::Acknowledge),
            Stage::Held { .. } | Stage::GivenBack { .. } | Stage::Released | Stage::Vacant => false,
        }
    }

    /// It came once more; if its result is known, an acknowledgement is due again (S6).
    fn came(&mut self, id: MessageId, by_frame: bool, on_reject: OnReject) {
        let answerable = self.is_answerable(on_reject);
        let [first, latest] = &mut self.ids;
        let [came, again] = &mut self.named;
        let (known, named) = if *came == Named::No || *first == id { (first, came) } else { (latest, again) };
        if *known != id || *named == Named::No {
            (*known, *named) = (id, Named::Posted);
        }
        if by_frame && *named != Named::Due {
            *named = if answerable { Named::Due } else { Named::Framed };
            // From now on its acknowledgement is what is owed.
            self.untold &= !answerable;
        }
    }

    /// A request asks for its result, and waits until `until`. `closed`: the answer is all that is owed to its sender.
    fn asked_by(
        &mut self,
        now: Instant,
        request: RequestId,
        until: Instant,
        closed: bool,
        on_reject: OnReject,
    ) -> Arrival {
        match self.stage {
            Stage::Done { rejected, .. } => {
                self.untold = false;
                if closed {
                    self.rename(Named::Due, Named::Framed);
                }
                Arrival::Answer(result(rejected, on_reject))
            }
            // One request waits at a time; a second copy of the same message is told to come again.
            Stage::Held { .. } if self.asks != Asks::Nobody => {
                self.untold = true;
                Arrival::Answer(Answer::Again { after: SOON })
            }
            Stage::GivenBack { until } => Arrival::Answer(Answer::Again { after: until.since(now) }),
            Stage::Held { .. } | Stage::Released | Stage::Vacant => {
                self.stage = Stage::Held { until };
                (self.request, self.asks, self.untold) = (request, Asks::Waits, false);
                Arrival::Duplicate
            }
        }
    }

    /// The application has decided. It is remembered until `forget`, unless others remember it (`numbered`).
    fn decided(&mut self, now: Instant, verdict: Verdict, forget: Instant, numbered: bool, on_reject: OnReject) {
        let mut after_ms = 0;
        let (answer, stage) = match verdict {
            Verdict::Done => (Asks::Done, Stage::Done { rejected: false, forget }),
            Verdict::Reject if on_reject == OnReject::Acknowledge => {
                (Asks::Done, Stage::Done { rejected: true, forget })
            }
            Verdict::Reject => (Asks::Rejected, Stage::Done { rejected: true, forget }),
            Verdict::Retry { after } => {
                let after = if after.is_zero() { SOON } else { after };
                after_ms = millis(after);
                (Asks::Again, Stage::GivenBack { until: now.after(after) })
            }
        };
        self.stage = stage;
        // Without a name there is nothing to know it by: it takes no place in the memory.
        let nameless = !self.keyed && self.named == Self::VACANT.named;
        let given_back = self.rests_until().is_some();
        if nameless || (numbered && !given_back) {
            self.forget_names();
        } else if given_back {
            // It comes again behind those that its sender calls by the same id.
            self.behind = false;
        }
        self.make_due(on_reject);
        self.report = verdict == Verdict::Reject && on_reject == OnReject::Acknowledge;
        if self.asks == Asks::Waits {
            (self.asks, self.after_ms) = (answer, after_ms);
        }
        // What is given back has no result, and what came by a frame is acknowledged.
        self.untold &= matches!(self.stage, Stage::Done { .. }) && !self.is_framed();
    }

    /// What came by a frame is acknowledged, if that may be.
    fn make_due(&mut self, on_reject: OnReject) {
        if self.is_answerable(on_reject) {
            self.rename(Named::Framed, Named::Due);
        }
    }

    /// What came before it under its id is decided (I6). It is remembered from now on.
    fn released(&mut self, now_forget: Instant, on_reject: OnReject) {
        self.behind = false;
        if let Stage::Done { forget, .. } = &mut self.stage {
            *forget = now_forget;
        }
        self.make_due(on_reject);
    }

    fn rename(&mut self, old: Named, new: Named) {
        for named in self.named.iter_mut().filter(|named| **named == old) {
            *named = new;
        }
    }

    /// The id whose acknowledgement is to be sent, once.
    fn take_ack(&mut self) -> Option<MessageId> {
        let (id, named) = self.ids.into_iter().zip(&mut self.named).find(|(_, named)| **named == Named::Due)?;
        *named = Named::Framed;
        Some(id)
    }

    /// Its request is told to come again.
    fn turn_away(&mut self) {
        (self.asks, self.after_ms) = (Asks::Again, SOON_MS);
        self.untold = true;
    }
}

/// An inbox that lies inside its owner and remembers `M` messages.
///
/// ```
/// # use bowline::{Fixed, Inbox, InboxConfig, InlineInbox, Instant};
/// let inbox: InlineInbox<2> = Inbox::new(InboxConfig::DEFAULT, 42, Instant::ZERO, Fixed::new());
/// assert_eq!(inbox.held(), 0);
/// ```
pub type InlineInbox<const M: usize> = Inbox<Fixed<Seen, M>>;

/// The memory of inbound messages, behind storage of the caller's choice.
///
/// Two inboxes are equal if they know the same of the same messages, in the same order, wherever these lie: storage and
/// seed make no difference.
///
/// ```
/// use bowline::{Arrival, Fixed, Inbox, InboxConfig, InlineInbox, Instant, MessageId, Verdict};
/// let now = Instant::ZERO;
/// let id = Some(MessageId::from_bits(7));
/// let mut inbox: InlineInbox<2> = Inbox::new(InboxConfig::DEFAULT, 42, now, Fixed::new());
/// let Arrival::Deliver { delivery, .. } = inbox.on_frame(now, id, None) else { panic!() };
/// assert_eq!(inbox.on_frame(now, id, None), Arrival::Duplicate);
/// assert_eq!(inbox.take_ack(), None, "not before the application completed it");
/// assert!(inbox.complete(now, delivery, Verdict::Done));
/// assert_eq!(inbox.take_ack(), id);
/// ```
#[derive(Clone)]
pub struct Inbox<S> {
    config: InboxConfig,
    last: DeliveryId,
    /// Until then a fresh message may be one that was forgotten.
    doubt: Instant,
    horizon_short: u64,
    /// Others remember by number what is completed; this remembers only what is not.
    numbered: bool,
    index: Index,
    places: S,
}

impl<S: Store<Seen>> Inbox<S> {
    /// An empty memory; whatever the storage held is dropped. `seed` keys the hashes by which messages are found: a peer that
    /// does not know it cannot choose ids that are slow to find (S14).
    pub fn new(config: InboxConfig, seed: u64, now: Instant, mut places: S) -> Self {
        places.clear();
        Self {
            config,
            last: DeliveryId::NONE,
            doubt: if config.after_loss { now.after(config.horizon) } else { Instant::ZERO },
            horizon_short: 0,
            numbered: false,
            index: Index::new(seed, config.dedup),
            places,
        }
    }

    /// A message came by a frame. Without an id it cannot be acknowledged, without a key only its id tells it from others.
    pub fn on_frame(&mut self, now: Instant, id: Option<MessageId>, key: Option<ContentKey>) -> Arrival {
        let (id, key) = self.identify(id, key);
        match self.index.known_now(self.places.as_mut(), now, id, key) {
            Known::Reused(..) => Arrival::Reused,
            Known::Nothing => self.admit(now, id, key, None),
            Known::At(at, mut inbound) => {
                if let Some(id) = id {
                    inbound.came(id, true, self.config.on_reject);
                    self.put(at, inbound);
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
        match self.index.known_now(self.places.as_mut(), now, id, key) {
            Known::Reused(..) => Arrival::Answer(Answer::Reused),
            Known::Nothing => match self.admit(now, id, key, Some(request)) {
                Arrival::Full => Arrival::Answer(Answer::Busy { after: SOON }),
                arrival @ (Arrival::Deliver { .. }
                | Arrival::Ahead { .. }
                | Arrival::Duplicate
                | Arrival::Answer(_)
                | Arrival::Reused) => arrival,
            },
            Known::At(at, mut inbound) => {
                let on_reject = self.config.on_reject;
                if let Some(id) = id {
                    inbound.came(id, false, on_reject);
                }
                let until = now.after(self.config.answer_wait);
                let arrival = inbound.asked_by(now, request, until, self.closed(), on_reject);
                self.put(at, inbound);
                arrival
            }
        }
    }

    /// The application has decided; false: that delivery is not open (any more).
    pub fn complete(&mut self, now: Instant, delivery: DeliveryId, verdict: Verdict) -> bool {
        let Some((at, mut inbound)) = self.open(delivery) else { return false };
        let forget = now.after(self.config.horizon);
        let on_reject = self.config.on_reject;
        inbound.decided(now, verdict, forget, self.numbered, on_reject);
        self.put(at, inbound);
        self.index.decided(self.places.as_mut(), at, forget, on_reject);
        true
    }

    /// The peer gave up its request; false: it did not wait.
    pub fn request_gone(&mut self, request: RequestId) -> bool {
        let Some((at, mut inbound)) = self.asked(request) else { return false };
        inbound.asks = Asks::Nobody;
        inbound.untold |= !matches!(inbound.stage, Stage::GivenBack { .. } | Stage::Released);
        self.put(at, inbound);
        true
    }

    /// The session ends: whoever waits is told to come again.
    pub fn release_waiters(&mut self) {
        while let Some((at, mut inbound)) = self.index.first(self.places.as_ref(), List::Waiting) {
            inbound.turn_away();
            self.put(at, inbound);
        }
    }

    /// What is completed is remembered elsewhere, by number.
    pub(crate) const fn set_numbered(&mut self) {
        self.numbered = true;
        self.index.wakes_returned();
        // There is a word for it.
        self.config.on_reject = OnReject::Silence;
    }

    /// How many more may be at the application.
    pub(crate) fn room(&self) -> usize {
        self.config.held.min(self.capacity()).saturating_sub(self.held())
    }

    /// How many messages are remembered at the most: as many as the storage holds and as [`InboxConfig::bytes`] are enough
    /// for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        Index::most(self.config.messages()).min(self.places.limit())
    }

    /// Whether a message of this id is remembered.
    #[must_use]
    pub fn remembers(&self, id: MessageId) -> bool {
        self.index.find(self.places.as_ref(), Name::Id(id), |_| true).is_some()
    }

    /// Whether a message is kept until it is its turn.
    pub(crate) fn waits(&self, delivery: DeliveryId) -> bool {
        self.open(delivery).is_some_and(|(_, inbound)| inbound.waits)
    }

    /// It is kept until it is its turn, or no longer.
    pub(crate) fn set_waits(&mut self, delivery: DeliveryId, waits: bool) {
        if let Some((at, mut inbound)) = self.open(delivery) {
            inbound.waits = waits;
            self.put(at, inbound);
        }
    }

    /// Whose messages these are began anew.
    pub(crate) fn disown(&mut self) {
        for place in self.places.as_mut() {
            place.inbound.stray = place.inbound.stage != Stage::Vacant;
        }
    }

    /// The next message that waited for its turn when its sender began anew, in the order of their numbers.
    pub(crate) fn take_stray(&mut self) -> Option<DeliveryId> {
        let (at, mut inbound) = self.index.first_stray(self.places.as_ref())?;
        inbound.waits = false;
        self.put(at, inbound);
        Some(inbound.delivery)
    }

    /// How long a message is remembered.
    pub(crate) const fn horizon(&self) -> Duration {
        self.config.horizon
    }

    /// The delivery of a message at the application, by its id.
    pub(crate) fn delivery(&self, id: MessageId) -> Option<DeliveryId> {
        let is = |inbound: &Inbound| inbound.is_held() && !inbound.stray;
        self.index.find(self.places.as_ref(), Name::Id(id), is).map(|(_, inbound)| inbound.delivery)
    }

    /// The id of a message at the application.
    pub(crate) fn id(&self, delivery: DeliveryId) -> Option<MessageId> {
        self.open(delivery).filter(|(_, inbound)| !inbound.stray)?.1.ids().next()
    }

    /// Whether this is a copy of a message that is remembered, and would not be handed over again (S16).
    pub(crate) fn knows(&self, now: Instant, id: Option<MessageId>, key: Option<ContentKey>) -> bool {
        let (id, key) = self.identify(id, key);
        match self.index.known(self.places.as_ref(), id, key) {
            Known::At(_, inbound) | Known::Reused(_, inbound) => !inbound.may_return(now),
            Known::Nothing => false,
        }
    }

    /// How long a message that was given back is still not to be handed over again (S16).
    pub(crate) fn rests(&self, now: Instant, id: MessageId) -> Option<Duration> {
        let known = self.index.known(self.places.as_ref(), Some(id), None);
        let until = if let Known::At(_, inbound) = known { inbound.rests_until() } else { None };
        until.filter(|until| *until > now).map(|until| until.since(now))
    }

    /// The next message of a numbered sender that was given back and may come again now, once. One without an id cannot be
    /// asked for, and is forgotten.
    pub(crate) fn take_returned(&mut self, now: Instant) -> Option<MessageId> {
        loop {
            let first = self.index.first(self.places.as_ref(), List::GivenBack);
            let (at, mut inbound) = first.filter(|(_, inbound)| self.numbered && inbound.may_return(now))?;
            let id = inbound.ids().next();
            inbound.forget_names();
            self.put(at, inbound);
            if id.is_some() {
                return id;
            }
        }
    }

    /// Takes nothing new from now on; copies are answered as before (S6).
    pub const fn close(&mut self) {
        self.config.held = 0;
    }

    const fn closed(&self) -> bool {
        self.config.held == 0
    }

    /// Fires what is due.
    pub fn tick(&mut self, now: Instant) {
        let first = |inbox: &Self| inbox.index.first(inbox.places.as_ref(), List::Waiting);
        while let Some((at, mut inbound)) = first(self).filter(|(_, inbound)| inbound.waits_until() <= now) {
            inbound.turn_away();
            self.put(at, inbound);
        }
    }

    /// The next acknowledgement to send, once; in the order in which they became due, or, where ids are used again,
    /// in the order in which the messages came.
    pub fn take_ack(&mut self) -> Option<MessageId> {
        let (at, mut inbound) = self.index.first_owed(self.places.as_ref())?;
        let id = inbound.take_ack();
        self.put(at, inbound);
        id
    }

    /// The next answer to a waiting request, once.
    pub fn take_answer(&mut self) -> Option<(RequestId, Answer)> {
        let answered = |inbound: &Inbound| inbound.answer().is_some();
        let (at, mut inbound) = self.index.search(self.places.as_ref(), &[List::Answers, List::Reports], &answered)?;
        let answer = inbound.answer()?;
        inbound.asks = Asks::Nobody;
        self.put(at, inbound);
        Some((inbound.request, answer))
    }

    /// The next message that was rejected but acknowledged, once (S8).
    pub fn take_rejected_but_acked(&mut self) -> Option<DeliveryId> {
        let (at, mut inbound) = self.index.first(self.places.as_ref(), List::Reports)?;
        inbound.report = false;
        self.put(at, inbound);
        Some(inbound.delivery)
    }

    /// How many messages are at the application.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.index.held
    }

    /// Whether a sender has still to hear of a result: an answer or an acknowledgement waits to be sent, or, after
    /// [`close`](Self::close), a result waits to be asked for by a sender that was told to come again, before or after.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.index.is_any_due() || (self.closed() && self.index.untold > 0)
    }

    /// How often a message was forgotten before its time: the memory is too small for the horizon (S12).
    #[must_use]
    pub const fn horizon_short(&self) -> u64 {
        self.horizon_short
    }

    /// A message at the application.
    fn open(&self, delivery: DeliveryId) -> Option<(u32, Inbound)> {
        self.index.find(self.places.as_ref(), Name::Delivery(delivery), Inbound::is_held)
    }

    /// The message for which this request waits, or whose answer is still to be taken.
    fn asked(&self, request: RequestId) -> Option<(u32, Inbound)> {
        let is = |inbound: &Inbound| inbound.asks != Asks::Nobody && inbound.request == request;
        self.index.search(self.places.as_ref(), &[List::Waiting, List::Answers, List::Reports], &is)
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

    fn admit(
        &mut self,
        now: Instant,
        id: Option<MessageId>,
        key: Option<ContentKey>,
        request: Option<RequestId>,
    ) -> Arrival {
        // What would be behind an undecided one may not be forgotten before that is decided.
        let is_behind = |name| self.index.has_undecided(self.places.as_ref(), name);
        let behind = match key.filter(|_| self.config.dedup == DedupBy::IdAndContent) {
            Some(name) if is_behind(name) => self.index.behind,
            _ => 0,
        };
        if self.held().saturating_add(behind) >= self.config.held {
            return Arrival::Full;
        }
        let Some(at) = self.make_place(now, request.is_some()) else { return Arrival::Full };
        self.last = self.last.next();
        let mut inbound = Inbound::new(self.last, id, key, request.is_none());
        if let Some(request) = request {
            let until = now.after(self.config.answer_wait);
            let _ = inbound.asked_by(now, request, until, false, OnReject::Silence);
        }
        match self.config.dedup {
            DedupBy::IdOrContent => inbound.found_by_key = inbound.keyed,
            DedupBy::Id => {}
            DedupBy::IdAndContent => self.index.follow(self.places.as_mut(), at, &mut inbound),
        }
        self.put(at, inbound);
        Arrival::Deliver { delivery: self.last, maybe_dup: now < self.doubt }
    }

    /// A place for a new message: a vacant one, that of a message whose time is over, a new one, or, before its time, that of
    /// one that was given back or of the oldest completed one.
    fn make_place(&mut self, now: Instant, by_request: bool) -> Option<u32> {
        let vacant = |inbox: &Self| inbox.index.first(inbox.places.as_ref(), List::Vacant).map(|(at, _)| at);
        let rests = self.index.first_resting(self.places.as_ref());
        let oldest = self.index.oldest(self.places.as_ref(), by_request);
        let over = rests.filter(|(_, inbound)| inbound.may_return(now)).map(|(at, _)| at);
        let over = over.or(oldest.filter(|(_, forget)| *forget <= now).map(|(at, _)| at));
        if vacant(self).is_none() && over.is_none() {
            self.grow();
        }
        if let Some(at) = vacant(self).or(over) {
            return Some(at);
        }
        if let Some((at, mut inbound)) = rests {
            if !self.numbered {
                return Some(at);
            }
            // Its sender may count it as arrived: it is asked for now, and has left its place when this one comes again.
            inbound.stage = Stage::GivenBack { until: now };
            self.put(at, inbound);
            return None;
        }
        let (at, forget) = oldest?;
        self.horizon_short = self.horizon_short.saturating_add(1);
        self.doubt = self.doubt.max(forget);
        Some(at)
    }

    fn grow(&mut self) {
        let (before, most) = (self.places.as_ref().len(), self.capacity());
        if before < most && self.places.grow(most, || Seen::VACANT) {
            self.index.grown(self.places.as_mut(), before);
        }
    }

    fn put(&mut self, at: u32, inbound: Inbound) {
        self.index.put(self.places.as_mut(), at, inbound);
    }
}

/// When a peer that cannot be answered yet should come again: long enough not to spin, short against its patience.
const SOON: Duration = Duration::from_secs(1);
const SOON_MS: u32 = 1000;

/// Whole milliseconds, rounded up; at the most 49 days.
fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

/// The answer for a completed message.
const fn result(rejected: bool, on_reject: OnReject) -> Answer {
    match (rejected, on_reject) {
        (false, _) | (true, OnReject::Acknowledge) => Answer::Done,
        (true, OnReject::Silence) => Answer::Rejected,
    }
}

impl<S: Store<Seen>> Timers for Inbox<S> {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        see(Wake::Memory, &self.index.wake);
    }
}

impl<S: Store<Seen>> PartialEq for Inbox<S> {
    fn eq(&self, other: &Self) -> bool {
        let (places, others) = (self.places.as_ref(), other.places.as_ref());
        (self.config, self.last, self.doubt, self.horizon_short, self.numbered)
            == (other.config, other.last, other.doubt, other.horizon_short, other.numbered)
            && self.index.messages(places).map(message).eq(other.index.messages(others).map(message))
            && self.index.due(places).eq(other.index.due(others))
    }
}

fn message((_, inbound): (u32, &Inbound)) -> &Inbound {
    inbound
}

impl<S: Store<Seen>> Eq for Inbox<S> {}

impl<S: Store<Seen>> Hash for Inbox<S> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.config, self.last, self.doubt, self.horizon_short, self.numbered).hash(state);
        // In which lists a message is follows from what it is, and so do the sums.
        for (_, inbound) in self.index.messages(self.places.as_ref()) {
            inbound.hash(state);
        }
        for delivery in self.index.due(self.places.as_ref()) {
            delivery.hash(state);
        }
    }
}

impl<S: Store<Seen>> fmt::Debug for Inbox<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("held", &self.held())
            .field("wake", &self.index.wake)
            .field("messages", &Messages(&self.index, self.places.as_ref()))
            .finish_non_exhaustive()
    }
}

struct Messages<'a>(&'a Index, &'a [Seen]);

impl fmt::Debug for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.messages(self.1).map(message)).finish()
    }
}

#[cfg(test)]
mod tests;
