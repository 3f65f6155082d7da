//! What is still owed to the peer: every message from its acceptance to its one end.
//!
//! ```text
//!           push                take_frame              no ack in time          take_post
//!  (caller) ────▶ Queued ─────────────────▶ Sent ──────────────────▶ late ─────────────────▶ Posting
//!                   ▲  │ a new link: sent again      ack │  (never again on the same link)     │
//!                   │  └──────── take_post ──────────────┼──────────────▶ Posting              │
//!                   └──── the connection ended ──────────┤        busy, unreached, unknown ◀────┤
//!                                                        ▼                                     ▼
//!                                Settled: Delivered · Rejected · Expired · Abandoned ──take_settled──▶ free
//! ```
//!
//! Each message has a place of its own: what becomes of one changes nothing for another. It is looked up by its number, its
//! place is free as soon as its end was reported and its request is over, and a request that failed delays it alone.
//!
//! ```text
//!  sent on one connection, in this order:   1 answered   2 Late   3 ◀ waits   4 ◀ waits   5 answered   6 ◀ waits   7 –
//!  a receiver reads in order: where 5 is answered, work on 3, 4 and 6 has begun, and their waits with it (T8)
//! ```
//!
//! Invariants: at most `capacity` messages, each settled exactly once and kept until that was reported; they lie in the
//! order of their numbers; a number and an id are bound to one payload for life; a message is sent at most once on a
//! connection and never while its request is under way; the waits that have begun are those of the messages sent first,
//! and if any acknowledgement is awaited, at least one has; the wake-up time is never later than the earliest thing due.
//! Field bugs: a new id on every try; queued messages sent again on the next connection after HTTP delivered them;
//! `pending.clear()` on reconnect; the oldest unacknowledged message dropped silently; resending on a live connection; one
//! message that its receiver refuses for good fills the ring, or is the only one ever posted; the last of 64 is late
//! because the receiver does one after the other.
//! Rules: I1, I7, S1, S2, S3, S7, S8, S13, F2, F4, H5, H7, T1–T8; those of numbered receivers, with their marks and credit, in
//! `window.rs`.

use crate::backoff::BackoffConfig;
use crate::ids::{LinkId, MessageId, Origin, PostId, Seq};
use crate::reason::{HttpClass, HttpOutcome, Reason, RetryHint};
use crate::ring::{Ring, Slots};
use crate::rng::SplitMix64;
use crate::rtt::{AckWait, Rtt, transfer_time};
use crate::time::{Instant, Timer, Timers, Wake};
use core::cmp::Ordering;
use core::time::Duration;

/// By which way a message went.
///
/// ```
/// # use bowline::Path;
/// assert_eq!(format!("{}", Path::WebSocket), "websocket");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Path {
    /// Over the connection.
    WebSocket,
    /// By a request.
    Http,
}

impl core::fmt::Display for Path {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::WebSocket => "websocket",
            Self::Http => "http",
        })
    }
}

/// What becomes of a message when a new connection comes up before it ended.
///
/// ```
/// # use bowline::{OnNewLink, Policy};
/// assert_eq!(Policy::DEFAULT.on_new_link, OnNewLink::Keep);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum OnNewLink {
    /// It is sent again, under the same id.
    Keep,
    /// It ends as abandoned: its meaning was tied to the connection it was accepted for.
    Drop,
}

/// What a message asks for.
///
/// ```
/// use bowline::Policy;
/// use core::time::Duration;
/// let policy = Policy { life: Some(Duration::from_secs(30)), ..Policy::DEFAULT };
/// # let _ = policy;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Policy {
    /// Time from acceptance to the end as expired; `None`: the session's default.
    pub life: Option<Duration>,
    /// Default [`OnNewLink::Keep`].
    pub on_new_link: OnNewLink,
    /// The message that must have ended before this one is sent, by whatever path (I7); [`Seq::NONE`], the default, and one
    /// that is not under way hold nothing back.
    pub after: Seq,
}

impl Policy {
    /// The session's life, kept across connections, after no other.
    pub const DEFAULT: Self = Self { life: None, on_new_link: OnNewLink::Keep, after: Seq::NONE };
}

/// Why a message was rejected.
///
/// ```
/// # use bowline::Rejection;
/// assert_ne!(Rejection::TooLarge, Rejection::Status(413));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rejection {
    /// Larger than any path takes, as far as is known (H5).
    TooLarge,
    /// The peer answered with this HTTP status: 400, 410, 413 or 422.
    Status(u16),
    /// The peer said so in its own words.
    ByPeer,
}

/// How a message ended; every accepted message ends exactly once (G1).
///
/// ```
/// # use bowline::{Outcome, Path};
/// assert_ne!(Outcome::Expired, Outcome::Delivered { path: Path::Http });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// The peer's application completed it; the acknowledgement came by this path.
    Delivered {
        /// The path of the acknowledgement.
        path: Path,
    },
    /// The peer will never take it.
    Rejected(Rejection),
    /// Its life was over.
    Expired,
    /// The session ended, or a new connection came up and the policy said so.
    Abandoned,
}

/// The end of one message, as it is told once (G1).
///
/// ```
/// use bowline::{Instant, LinkId, Origin, Outbox, OutboxConfig, Outcome, Policy, Reason, Timers};
/// let mut inline = Outbox::new(OutboxConfig::DEFAULT, Origin::new(1, 1), [None, None]);
/// let outbox: &mut Outbox<&str> = &mut inline;
/// outbox.push(Instant::ZERO, "batch", 5, Policy::DEFAULT).unwrap();
/// outbox.take_frame(Instant::ZERO, LinkId::NONE.next());
/// outbox.on_link_down(Some(Reason::Closed(1006)));
/// outbox.abandon(Instant::ZERO);
/// let end = outbox.take_settled().unwrap();
/// assert_eq!((end.outcome, end.reason), (Outcome::Abandoned, Some(Reason::Closed(1006))));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settlement {
    /// The number of the message.
    pub seq: Seq,
    /// How it ended.
    pub outcome: Outcome,
    /// The time from its acceptance to its end.
    pub took: Duration,
    /// What was last seen to go wrong with it: how its last request failed, how the connection ended that it was sent on,
    /// or that it was not acknowledged in time. `None` of a delivered message, and of one that the peer has rejected in
    /// its own words.
    pub reason: Option<Reason>,
}

/// What the outbox said to an acknowledgement.
///
/// ```
/// # use bowline::Ack;
/// assert_ne!(Ack::Settled, Ack::NeverSent);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ack {
    /// It settled a message.
    Settled,
    /// It is for nothing we know, or nothing any more: ignored.
    Unknown,
    /// It is for a number of ours that was never sent: a breach of protocol (S7).
    NeverSent,
}

/// What says that a message sent on a connection has arrived.
///
/// ```
/// # use bowline::{OutboxConfig, Proof};
/// assert_eq!(OutboxConfig::DEFAULT.proof, Proof::Acknowledgement);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Proof {
    /// The peer acknowledges it by its id.
    Acknowledgement,
    /// The peer knows no acknowledgement: the answer to a ping that was sent after the message. Frames keep their order, so
    /// what came before the ping has arrived; that the peer understood it, nobody says.
    Pong,
}

/// The limits of the outbox.
///
/// ```
/// # use bowline::OutboxConfig;
/// assert_eq!(OutboxConfig::DEFAULT.capacity, 64);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OutboxConfig {
    /// How many messages may be held, from acceptance to the report of their end; smaller storage limits further. Default
    /// 64 (section 4.14 of the rules).
    pub capacity: usize,
    /// How many bytes they may have together, of the sizes given to `send`, before no further one is accepted. Default
    /// 256 MiB: four of the largest.
    pub bytes: u64,
    /// Default [`Proof::Acknowledgement`].
    pub proof: Proof,
    /// How long to wait for an acknowledgement on a connection, from when its turn came (T8). Default
    /// [`AckWait::ADAPTIVE`].
    pub ack_wait: AckWait,
    /// The life of a message whose policy names none; `None`: until it is delivered or the session ends. Default none.
    pub life: Option<Duration>,
    /// How long a message may be late while nothing but a new connection can bring it to its peer, before its connection is
    /// ended for it (F2); twice as long for each connection that it has ended, up to 32 times. At least 1 µs, default 120 s:
    /// as long as a long outage.
    pub patience: Duration,
    /// Largest payload a frame may carry, in bytes of the size given to `send`; larger ones go by HTTP. Default 16 MiB,
    /// the common limit of the servers we met.
    pub frame_limit: u32,
    /// Largest payload a request may carry; larger ones are refused. Default 64 MiB.
    pub post_limit: u32,
}

impl OutboxConfig {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self {
        capacity: 64,
        bytes: 256 << 20,
        proof: Proof::Acknowledgement,
        ack_wait: AckWait::ADAPTIVE,
        life: None,
        patience: Duration::from_secs(120),
        frame_limit: 16 << 20,
        post_limit: 64 << 20,
    };
}

/// [`OutboxConfig::patience`] doubles this often, by default to 64 minutes: a message that its receiver never answers must
/// not end a connection every two.
const PATIENCE_DOUBLINGS: u8 = 5;

/// What something on the way of HTTP calls too large is tried again so much later (F4): the ceiling of the delays of a path
/// that is refused (B10).
const REFUSED_SIZE: Duration = Duration::from_secs(600);

/// One message under way; what storage for an [`Outbox`] is made of.
///
/// ```
/// # use bowline::{InlineOutbox, Outbox, OutboxConfig, Origin};
/// let inline: InlineOutbox<&str, 2> = Outbox::new(OutboxConfig::DEFAULT, Origin::new(1, 1), [None, None]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Slot<P> {
    seq: Seq,
    payload: P,
    size: u32,
    accepted: Instant,
    expires: Timer,
    on_new_link: OnNewLink,
    /// It waits for the end of this one (I7).
    after: Seq,
    /// The last connection it was sent on; on that one it is never sent again (F2).
    sent_on: LinkId,
    answer: Answer,
    post: Posting,
    /// Its requests that failed, as far as it may be the reason: the next delay grows with them (H7).
    failures: u8,
    /// How many connections have ended while it was stuck: its patience doubles with each.
    stuck: u8,
    /// What was last seen to go wrong with it.
    reason: Option<Reason>,
    /// It must go by HTTP, whatever the route says: unanswered, or too large for a frame.
    by_http: bool,
    /// A ping was sent after it on its connection, whose answer proves that it arrived.
    asked: bool,
    /// The last poll it was given to.
    polled: u32,
    end: End,
}

/// The acknowledgement of a message that was sent on the live connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Answer {
    /// Not sent, or the connection it was sent on has ended.
    None,
    /// Awaited.
    Awaited(Wait),
    /// Not come in time; armed while the message is stuck: when its connection ends.
    Late { patience: Timer },
    /// It has arrived, on whatever connection; its completion will be told ([`window`]).
    Arrived,
    /// The peer asked for it again, after this.
    Asked { from: Timer },
}

/// The wait for an acknowledgement.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Wait {
    /// When the message was sent.
    sent: Instant,
    /// When its wait began, if `due` is armed.
    begun: Instant,
    due: Timer,
    /// The time it takes says something: it was never sent before, and no stall came between (T5).
    clean: bool,
    /// Another one was acknowledged since it began, or one that was sent after it: that this one is not says nothing about
    /// the peer (P3).
    passed: bool,
}

/// The place of a message among those sent on one connection.
type Turn = (Instant, Seq);

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Posting {
    Never,
    Underway {
        attempt: u32,
        /// Whether it was posted before.
        again: bool,
    },
    /// Tried before; not again before this.
    Again {
        due: Instant,
    },
}

impl<P> Slot<P> {
    fn open(&self) -> bool {
        self.end == End::Open
    }

    /// It has not ended, and waits for no other to end.
    fn may_leave(&self) -> bool {
        self.open() && self.after == Seq::NONE
    }

    /// Not acknowledged in time on the live connection, on which it is never sent again (F2).
    fn is_late(&self) -> bool {
        self.open() && matches!(self.answer, Answer::Late { .. })
    }

    /// Late, and it may go by HTTP besides, which carries payloads up to `limit`.
    fn may_hedge(&self, limit: u32) -> bool {
        self.is_late() && !self.by_http && self.size <= limit
    }

    const fn wait(&self) -> Option<&Wait> {
        if let Answer::Awaited(wait) = &self.answer { Some(wait) } else { None }
    }

    const fn give_up_wait(&mut self) {
        self.answer = Answer::Late { patience: Timer::disarmed() };
        self.reason = Some(Reason::Unanswered);
    }

    fn turn(&self) -> Option<Turn> {
        self.wait().map(|wait| (wait.sent, self.seq))
    }

    const fn underway(&self) -> bool {
        matches!(self.post, Posting::Underway { .. })
    }

    /// Whether this request of it is under way.
    fn posts(&self, this: u32) -> bool {
        matches!(self.post, Posting::Underway { attempt, .. } if attempt == this)
    }

    /// Nothing holds its place any more.
    fn over(&self) -> bool {
        self.end == End::Reported && !self.underway()
    }

    /// Since when it is its turn to be posted; `None` while its request is under way.
    const fn post_due(&self) -> Option<Instant> {
        match self.post {
            Posting::Never => Some(self.accepted),
            Posting::Underway { .. } => None,
            Posting::Again { due } => Some(due),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum End {
    Open,
    Settled(Outcome, Duration),
    Reported,
}

/// An outbox that lies inside its owner, for `N` messages.
///
/// ```
/// # use bowline::{InlineOutbox, Origin, Outbox, OutboxConfig};
/// let outbox: InlineOutbox<u32, 2> = Outbox::new(OutboxConfig::DEFAULT, Origin::new(1, 1), [None, None]);
/// assert!(outbox.has_room());
/// ```
pub type InlineOutbox<P, const N: usize> = Outbox<P, [Option<Slot<P>>; N]>;

/// The messages under way, behind storage of the caller's choice.
///
/// ```
/// use bowline::{Ack, Instant, LinkId, Origin, Outbox, OutboxConfig, Outcome, Path, Policy, Seq};
/// let origin = Origin::new(1, 1);
/// let mut inline = Outbox::new(OutboxConfig::DEFAULT, origin, [None, None]);
/// let outbox: &mut Outbox<&str> = &mut inline;
/// let link = LinkId::NONE.next();
/// assert_eq!(outbox.push(Instant::ZERO, "batch", 5, Policy::DEFAULT), Ok(Seq::FIRST));
/// assert_eq!(outbox.take_frame(Instant::ZERO, link), Some(Seq::FIRST));
/// assert_eq!(outbox.take_frame(Instant::ZERO, link), None, "once per connection");
/// assert_eq!(outbox.on_ack(Instant::ZERO, link, origin.message(Seq::FIRST)), Ack::Settled);
/// let end = outbox.take_settled().unwrap();
/// assert_eq!((end.seq, end.outcome), (Seq::FIRST, Outcome::Delivered { path: Path::WebSocket }));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Outbox<P, S: Slots<Slot<P>> + ?Sized = [Option<Slot<P>>]> {
    config: OutboxConfig,
    origin: Origin,
    /// The number of the next message.
    next: Seq,
    /// Of all that are in the ring.
    bytes: u64,
    rtt: Rtt,
    /// Never later than the earliest deadline of any slot; fired, it is computed anew.
    wake: Timer,
    /// When the first stuck message has had its patience.
    patience: Timer,
    /// One has had it.
    spent: bool,
    /// The last wait that ran out had seen no acknowledgement at all, and there has been none since.
    silent: bool,
    /// A message waits for the end of another one.
    follows: bool,
    /// No slot before these offsets can be sent or posted; lowered whenever one may have become ready.
    frame_from: usize,
    post_from: usize,
    unsettled: usize,
    unreported: usize,
    late: usize,
    awaited: usize,
    posting: usize,
    posts: u32,
    /// The first number that was never sent, on any path.
    unsent: Seq,
    /// No number above this one is sent: the peer's credit (S10). Plain peers have none to give.
    credit: Seq,
    /// How many polls have been answered; a message goes into each once.
    polls: u32,
    /// The smallest payload for which a connection was closed with 1009 (F4).
    refused_size: u32,
    /// The smallest payload that something on the way of HTTP called too large (F4), and until when that is believed.
    refused_post: u32,
    refused_until: Timer,
    ring: Ring<Slot<P>, S>,
}

impl<P, S: Slots<Slot<P>>> Outbox<P, S> {
    /// An empty outbox that numbers its messages from 1 under `origin`.
    pub fn new(config: OutboxConfig, origin: Origin, slots: S) -> Self {
        Self {
            config,
            origin,
            next: Seq::FIRST,
            bytes: 0,
            rtt: Rtt::new(config.ack_wait),
            wake: Timer::disarmed(),
            patience: Timer::disarmed(),
            spent: false,
            silent: false,
            follows: false,
            frame_from: 0,
            post_from: 0,
            unsettled: 0,
            unreported: 0,
            late: 0,
            awaited: 0,
            posting: 0,
            posts: 0,
            unsent: Seq::FIRST,
            credit: window::BOUNDLESS,
            polls: 0,
            refused_size: u32::MAX,
            refused_post: u32::MAX,
            refused_until: Timer::disarmed(),
            ring: Ring::new(slots),
        }
    }
}

impl<P, S: Slots<Slot<P>> + ?Sized> Outbox<P, S> {
    /// Accepts a message of `size` bytes, or hands it back because the outbox is full.
    ///
    /// # Errors
    /// The payload.
    pub fn push(&mut self, now: Instant, payload: P, size: u32, policy: Policy) -> Result<Seq, P> {
        let seq = self.next;
        if !self.has_room() || seq > Seq::LAST {
            return Err(payload);
        }
        let after = self.offset(policy.after).and_then(|offset| self.ring.get(offset));
        let after = after.filter(|slot| slot.open()).map_or(Seq::NONE, |slot| slot.seq);
        let mut expires = Timer::disarmed();
        if let Some(life) = policy.life.or(self.config.life) {
            expires.arm(now.after(life));
            self.wake.arm_by(now.after(life));
        }
        let slot = Slot {
            seq,
            payload,
            size,
            accepted: now,
            expires,
            on_new_link: policy.on_new_link,
            after,
            sent_on: LinkId::NONE,
            answer: Answer::None,
            post: Posting::Never,
            failures: 0,
            stuck: 0,
            reason: None,
            by_http: size > self.frame_limit(),
            asked: false,
            polled: 0,
            end: End::Open,
        };
        self.ring.make_room(self.config.capacity);
        self.ring.push(slot).map_err(|slot| slot.payload)?;
        self.follows |= after != Seq::NONE;
        self.next = seq.next();
        self.bytes = self.bytes.saturating_add(u64::from(size));
        self.unsettled = self.unsettled.saturating_add(1);
        Ok(seq)
    }

    /// The next message to send on `link`, marked as sent; its acknowledgement is awaited from now on (T1, T4).
    pub fn take_frame(&mut self, now: Instant, link: LinkId) -> Option<Seq> {
        let allowed = self.allowed();
        while self.frame_from < self.ring.len() {
            let offset = self.frame_from;
            let slot = self.ring.get(offset).filter(|slot| slot.seq <= allowed)?;
            self.frame_from = offset.saturating_add(1);
            let waits = match &slot.answer {
                Answer::Arrived => true,
                Answer::Asked { from } => from.at().is_some_and(|at| at > now),
                Answer::None | Answer::Awaited(_) | Answer::Late { .. } => false,
            };
            if !slot.may_leave() || slot.by_http || slot.underway() || waits || slot.sent_on == link {
                continue;
            }
            let seq = slot.seq;
            // Sent on a connection before: its acknowledgement may be for that copy, and is no sample (T5).
            let clean = slot.sent_on == LinkId::NONE;
            let wait = Wait { sent: now, begun: now, due: Timer::disarmed(), clean, passed: false };
            self.change(offset, |slot| {
                slot.sent_on = link;
                slot.asked = false;
                slot.answer = Answer::Awaited(wait);
            });
            if self.awaited == 1 {
                self.begin_waits(now, None);
            }
            self.unsent = self.unsent.max(seq.next());
            return Some(seq);
        }
        None
    }

    /// The next message to post, marked as under way: of all that may go, the one whose turn came first, so that tries go
    /// round (H7); and whether it was posted before. `all`: traffic goes by HTTP at the moment; otherwise only what must go
    /// by HTTP. `again`: what was posted before may go, too (H9). What may still be answered on the live connection is left
    /// alone.
    pub fn take_post(&mut self, now: Instant, all: bool, again: bool) -> Option<(PostId, bool)> {
        let (allowed, limit) = (self.allowed(), self.post_limit());
        let mut found: Option<(Instant, usize)> = None;
        for offset in self.post_from..self.ring.len() {
            let Some(slot) = self.ring.get(offset).filter(|slot| slot.seq <= allowed) else { break };
            let waits = match &slot.answer {
                Answer::Awaited { .. } | Answer::Arrived => true,
                Answer::Asked { from } => from.at().is_some_and(|at| at > now),
                Answer::None | Answer::Late { .. } => false,
            };
            let wanted = (all || slot.by_http) && (again || slot.post == Posting::Never);
            let wanted = wanted && slot.size <= limit;
            let due = slot.post_due().filter(|due| slot.may_leave() && !waits && wanted && *due <= now);
            match due {
                Some(due) if found.is_none_or(|(first, _)| due < first) => {
                    // Nothing before the first one that may go could: there it is looked for the next.
                    self.post_from = if found.is_none() { offset } else { self.post_from };
                    found = Some((due, offset));
                }
                None if found.is_none() => self.post_from = offset.saturating_add(1),
                Some(_) | None => {}
            }
        }
        let (_, offset) = found?;
        let attempt = self.posts.saturating_add(1);
        let slot = self.ring.get_mut(offset)?;
        let again = slot.post != Posting::Never;
        slot.post = Posting::Underway { attempt, again };
        let seq = slot.seq;
        self.posts = attempt;
        self.posting = self.posting.saturating_add(1);
        self.unsent = self.unsent.max(seq.next());
        Some((PostId { seq, attempt }, again))
    }

    /// An acknowledgement by `id` came in on `link`.
    pub fn on_ack(&mut self, now: Instant, link: LinkId, id: MessageId) -> Ack {
        self.on_answer(now, link, id, Outcome::Delivered { path: Path::WebSocket })
    }

    /// A rejection by `id` came in on `link`: an answer as good as an acknowledgement, and no less final (S8).
    pub fn on_reject(&mut self, now: Instant, link: LinkId, id: MessageId) -> Ack {
        self.on_answer(now, link, id, Outcome::Rejected(Rejection::ByPeer))
    }

    /// The peer said by HTTP what became of the message with this `id`.
    pub fn on_confirmed(&mut self, now: Instant, id: MessageId, success: bool) -> Ack {
        let delivered = Outcome::Delivered { path: Path::Http };
        self.on_answer(now, LinkId::NONE, id, if success { delivered } else { Outcome::Rejected(Rejection::ByPeer) })
    }

    fn on_answer(&mut self, now: Instant, link: LinkId, id: MessageId, outcome: Outcome) -> Ack {
        let Some(seq) = self.origin.seq_of(id) else { return Ack::Unknown };
        let Some(offset) = self.offset(seq) else { return self.unheld(seq) };
        let Some(slot) = self.ring.get(offset).filter(|slot| slot.open()) else { return Ack::Unknown };
        if slot.sent_on == LinkId::NONE && slot.post == Posting::Never {
            return Ack::NeverSent;
        }
        // Karn's rule costs nothing: on one connection a message is sent once (T3). What was sent on two connections is no
        // sample (T5), nor is what also went by HTTP.
        let here = slot.wait().filter(|_| slot.sent_on == link);
        let turn = slot.turn().filter(|_| here.is_some());
        let sample = here
            .filter(|wait| wait.clean && wait.due.is_armed() && slot.post == Posting::Never)
            .map(|wait| (wait.sent, wait.begun));
        let spoke = slot.sent_on == link;
        self.settle(now, offset, outcome);
        if spoke {
            self.pass(turn);
        }
        match sample {
            // Nothing was before it: this is what the peer's application took (T2).
            Some((sent, begun)) if begun == sent => self.rtt.sample(now.since(begun)),
            Some((sent, begun)) => self.rtt.sample_within(now.since(begun), now.since(sent)),
            None => {}
        }
        self.begin_waits(now, turn);
        Ack::Settled
    }

    /// The peer has acknowledged the one at this turn, or one that was late: whose waits have begun, and what was sent before
    /// it, is not unanswered because nobody is there.
    fn pass(&mut self, turn: Option<Turn>) {
        self.silent = false;
        for offset in 0..self.ring.len() {
            if let Some(slot) = self.ring.get_mut(offset)
                && let before = slot.turn() < turn
                && let Answer::Awaited(wait) = &mut slot.answer
            {
                wait.passed |= before || wait.due.is_armed();
            }
        }
    }

    /// What a word about a message means that is not held.
    fn unheld(&self, seq: Seq) -> Ack {
        if seq < self.next { Ack::Unknown } else { Ack::NeverSent }
    }

    /// A request ended; false: none like it was under way, nothing changed. `delays`: of a message whose requests fail.
    pub fn on_posted(
        &mut self,
        now: Instant,
        post: PostId,
        outcome: HttpOutcome,
        delays: &BackoffConfig,
        rng: &mut SplitMix64,
    ) -> bool {
        let Some(offset) = self.offset(post.seq) else { return false };
        let Some(slot) = self.ring.get_mut(offset).filter(|slot| slot.posts(post.attempt)) else { return false };
        self.posting = self.posting.saturating_sub(1);
        slot.post = Posting::Again { due: now };
        if !slot.open() {
            // Its message has ended meanwhile; the request ends, and with it the place is free.
            self.free(offset);
            return true;
        }
        let mut grown = |after: Duration, least: Duration| {
            let delay = delays.draw(u32::from(slot.failures), RetryHint::after(after), rng);
            slot.failures = slot.failures.saturating_add(1);
            delay.max(least)
        };
        slot.reason = Some(outcome.reason());
        let (class, after) = (outcome.class(), outcome.after().min(Duration::from_secs(600)));
        let delay = match (class, outcome) {
            // No sooner than in a second, or a peer that says so without a time is asked in a loop.
            (HttpClass::DelayMessage | HttpClass::TooLarge, _) => grown(after, Duration::from_secs(1)),
            // It may be this message that its receiver cannot answer.
            (HttpClass::DelayPath, HttpOutcome::Unknown(_)) => grown(after, Duration::ZERO),
            (HttpClass::DelayPath | HttpClass::Delivered | HttpClass::Rejected, _) => after,
        };
        let due = now.after(delay);
        slot.post = Posting::Again { due };
        if due > now {
            self.wake.arm_by(due);
        }
        self.rescan();
        match class {
            HttpClass::Delivered => {
                if self.ring.get(offset).is_some_and(|slot| slot.size >= self.refused_post) {
                    self.forget_refused_post();
                }
                self.settle(now, offset, Outcome::Delivered { path: Path::Http });
            }
            HttpClass::Rejected => {
                let why = if let HttpOutcome::Answered { status, .. } = outcome {
                    Rejection::Status(status)
                } else {
                    Rejection::ByPeer
                };
                self.settle(now, offset, Outcome::Rejected(why));
            }
            HttpClass::TooLarge => self.refused_by_http(now, offset),
            HttpClass::DelayMessage | HttpClass::DelayPath => {}
        }
        true
    }

    /// Something on the way of HTTP does not carry this message: it, and every later one of its size or above, goes over
    /// the connection, this one over the next if it is on the present one already (F4).
    fn refused_by_http(&mut self, now: Instant, offset: usize) {
        let limit = self.frame_limit();
        self.change(offset, |slot| slot.by_http = slot.size > limit);
        let size = self.ring.get(offset).map_or(u32::MAX, |slot| slot.size);
        self.refused_post = self.refused_post.min(size);
        self.refused_until.arm(now.after(REFUSED_SIZE));
    }

    /// Nothing is known of the way of HTTP any more: it may lead elsewhere, or its limit was no limit of size (F4).
    pub const fn forget_refused_post(&mut self) {
        self.refused_post = u32::MAX;
        self.refused_until.disarm();
        self.rescan();
    }

    /// The smallest payload that this path has called too large, if it is believed still: it, and what is larger, goes by the
    /// other one (F4).
    #[must_use]
    pub fn refused_size(&self, path: Path) -> Option<u32> {
        let size = match path {
            Path::WebSocket => self.refused_size,
            Path::Http => self.refused_post,
        };
        (size < u32::MAX).then_some(size)
    }

    /// Try now (P5): every message may be posted at once, and what was on the way of HTTP may be there no more.
    pub fn retry_now(&mut self, now: Instant) {
        self.forget_refused_post();
        for offset in 0..self.ring.len() {
            if let Some(slot) = self.ring.get_mut(offset) {
                slot.failures = 0;
                if let Posting::Again { due } = &mut slot.post {
                    *due = now.min(*due);
                }
            }
        }
        self.rescan();
    }

    /// A connection came up: everything unfinished may be sent on it, and what was tied to an earlier one ends.
    pub fn on_link_up(&mut self, now: Instant) {
        self.end_where(now, |slot| (slot.on_new_link == OnNewLink::Drop).then_some(Outcome::Abandoned));
        self.rescan();
    }

    /// Abandons the late message that was sent first, and returns whether there was one: its answer did not come in time,
    /// and the peer's program has said nothing since. On another connection it would silence that program again (L12).
    pub fn abandon_late(&mut self, now: Instant) -> bool {
        // Messages leave in the order of their numbers.
        let first = (0..self.ring.len()).find(|offset| self.ring.get(*offset).is_some_and(Slot::is_late));
        if let Some(offset) = first {
            self.settle(now, offset, Outcome::Abandoned);
            self.begin_waits(now, None);
        }
        first.is_some()
    }

    /// The connection ended, for this reason if it is known: nothing is awaited on it any more. If it was closed with
    /// 1009, the largest message in flight is the likely cause and goes by HTTP from now on (F4).
    pub fn on_link_down(&mut self, reason: Option<Reason>) {
        let in_flight =
            |slot: &Slot<P>| matches!(slot.answer, Answer::Awaited(_) | Answer::Late { .. }).then_some(slot.size);
        if reason == Some(Reason::Closed(1009))
            && let Some(largest) = self.ring.iter().filter_map(in_flight).max()
        {
            self.refused_size = self.refused_size.min(largest);
        }
        self.rtt.link_down();
        self.patience.disarm();
        (self.spent, self.silent) = (false, false);
        let limit = self.frame_limit();
        for offset in 0..self.ring.len() {
            self.change(offset, |slot| {
                if reason == Some(Reason::Unanswered)
                    && let Answer::Late { patience } = &slot.answer
                    && patience.is_armed()
                {
                    slot.stuck = slot.stuck.saturating_add(1).min(PATIENCE_DOUBLINGS);
                }
                if matches!(slot.answer, Answer::Awaited(_) | Answer::Late { .. }) {
                    slot.answer = Answer::None;
                    slot.reason = reason.or(slot.reason);
                }
                slot.asked = false;
                // What was only late may go over the next connection; what is too large may not.
                slot.by_http = slot.size > limit;
            });
        }
        self.rescan();
    }

    /// Whether an acknowledgement is awaited on the live connection and is not late.
    #[must_use]
    pub const fn awaiting(&self) -> bool {
        self.awaited > 0
    }

    /// Bytes sent on the live connection that may still be under way: what is late has had the time to cross (L11, T7).
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        let waits = |slot: &&Slot<P>| slot.open() && slot.wait().is_some();
        self.ring.iter().filter(waits).map(|slot| u64::from(slot.size)).fold(0, u64::saturating_add)
    }

    /// How long the peer may be at work and hear nothing meanwhile, if it reads a message, works and acknowledges, one after
    /// the other: twice the present wait, at most the longest. A wait that was passed has doubled by that (`late`). Zero for
    /// one that answers at arrival.
    #[must_use]
    pub fn work(&self, late: bool) -> Duration {
        let wait = match self.config.proof {
            Proof::Acknowledgement => self.rtt.wait(),
            Proof::Pong => Duration::ZERO,
        };
        let twice = if late { wait } else { wait.saturating_add(wait) };
        twice.min(self.config.ack_wait.longest())
    }

    /// What proves that a message arrived.
    #[must_use]
    pub const fn proof(&self) -> Proof {
        self.config.proof
    }

    /// A ping leaves on this connection: its answer will be the proof for all that was sent before ([`Proof::Pong`]).
    pub fn ask(&mut self) {
        if self.config.proof == Proof::Acknowledgement {
            return;
        }
        for offset in 0..self.ring.len() {
            if let Some(slot) = self.ring.get_mut(offset) {
                slot.asked |= slot.open() && slot.answer != Answer::None;
            }
        }
    }

    /// The answer to that ping has come. How many messages ended.
    pub fn proved(&mut self, now: Instant) -> usize {
        let before = self.unsettled;
        let sent = |slot: &Slot<P>| slot.wait().filter(|wait| wait.clean && slot.asked).map(|wait| wait.sent);
        let latest = self.ring.iter().filter(|slot| slot.post == Posting::Never).filter_map(sent).max();
        self.end_where(now, |slot| slot.asked.then_some(Outcome::Delivered { path: Path::WebSocket }));
        if let Some(sent) = latest {
            self.rtt.sample(now.since(sent));
        }
        before.saturating_sub(self.unsettled)
    }

    /// There is no HTTP any more: what was to go by it waits for the next connection.
    pub fn http_gone(&mut self) {
        let limit = self.frame_limit();
        for offset in 0..self.ring.len() {
            self.change(offset, |slot| slot.by_http &= slot.size > limit);
        }
        self.rescan();
    }

    /// The process stood still: answers may lie unread, so nothing awaited is late before `until` (L5, T5).
    pub fn stalled(&mut self, until: Instant) {
        for offset in 0..self.ring.len() {
            if let Some(slot) = self.ring.get_mut(offset)
                && let Answer::Awaited(Wait { due, clean, .. }) = &mut slot.answer
            {
                *clean = false;
                if let Some(at) = due.at() {
                    due.arm(at.max(until));
                }
            }
            if let Some(slot) = self.ring.get_mut(offset)
                && let Answer::Late { patience } = &mut slot.answer
                && let Some(at) = patience.at()
            {
                patience.arm(at.max(until));
            }
        }
    }

    /// Ends everything unfinished.
    pub fn abandon(&mut self, now: Instant) {
        self.end_where(now, |_| Some(Outcome::Abandoned));
        for timer in [&mut self.wake, &mut self.patience, &mut self.refused_until] {
            timer.disarm();
        }
    }

    /// Ends what no path carries, as far as is known now, with HTTP or without (F4, H5).
    pub fn reject_oversize(&mut self, now: Instant, http: bool) {
        let limit = self.limit(http);
        let setting = Reason::Limit(if http { "outbox.post_limit" } else { "outbox.frame_limit" });
        self.end_where(now, |slot| {
            (slot.size > limit).then(|| {
                slot.reason.get_or_insert(setting);
                Outcome::Rejected(Rejection::TooLarge)
            })
        });
    }

    /// Whether a payload of `size` bytes could be carried at all, with HTTP or without (H5).
    #[must_use]
    pub fn fits(&self, size: u32, http: bool) -> bool {
        size <= self.limit(http)
    }

    /// Fires what is due and returns how many acknowledgements have become late; each of those messages may now go by
    /// HTTP, if [`hedge`](Self::hedge) says so.
    #[must_use]
    pub fn tick(&mut self, now: Instant) -> u32 {
        if self.refused_until.fire(now) {
            self.forget_refused_post();
        }
        if !self.wake.fire(now) {
            return 0;
        }
        self.end_where(now, |slot| slot.expires.fire(now).then_some(Outcome::Expired));
        let mut late = 0_u32;
        let mut last = None;
        let mut silent = false;
        for offset in 0..self.ring.len() {
            let Some(slot) = self.ring.get_mut(offset) else { continue };
            let turn = slot.turn();
            if let Answer::Awaited(wait) = &mut slot.answer
                && wait.due.fire(now)
            {
                late = late.saturating_add(1);
                silent |= !wait.passed;
                last = last.max(turn);
                self.change(offset, Slot::give_up_wait);
            }
        }
        if late > 0 {
            self.silent = silent;
            self.rtt.late();
            self.begin_waits(now, last);
        }
        let mut next = Timer::disarmed();
        for offset in 0..self.ring.len() {
            let Some(slot) = self.ring.get_mut(offset).filter(|slot| slot.open()) else { continue };
            let due = match &mut slot.answer {
                Answer::Awaited(wait) => wait.due.at(),
                Answer::Asked { from } => {
                    let _ = from.fire(now);
                    from.at()
                }
                Answer::None | Answer::Late { .. } | Answer::Arrived => None,
            };
            let post = slot.post_due().filter(|due| *due > now);
            for at in [due, slot.expires.at(), post].into_iter().flatten() {
                next.arm_by(at);
            }
        }
        self.wake = next;
        self.rescan();
        late
    }

    /// Whether, of the waits that ran out last, one had seen nothing acknowledged, neither while it lasted nor of what was
    /// sent after its message, and nothing has been since: a sign that the peer's program is not there (P3).
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.silent
    }

    /// The peer answers nothing at all (P3): what is still awaited on the connection is late at once.
    pub fn give_up_waits(&mut self) {
        for offset in 0..self.ring.len() {
            self.change(offset, |slot| {
                if slot.wait().is_some() {
                    slot.give_up_wait();
                }
            });
        }
        self.rescan();
    }

    /// Whether a late message may go by HTTP besides.
    #[must_use]
    pub fn may_hedge(&self) -> bool {
        let limit = self.post_limit();
        self.late > 0 && self.ring.iter().any(|slot| slot.may_hedge(limit))
    }

    /// Lets the oldest late message that HTTP carries go by HTTP besides; it keeps its id. False: there is none.
    pub fn hedge(&mut self) -> bool {
        let limit = self.post_limit();
        let Some(offset) = self.ring.iter().position(|slot| slot.may_hedge(limit)) else { return false };
        self.change(offset, |slot| slot.by_http = true);
        self.rescan();
        true
    }

    /// Finds the stuck messages: late on the live connection, and HTTP cannot take them: it does not work at the moment
    /// (`http` is false), or the message is too large for it. Each is given a patience of two minutes, doubled for each
    /// connection that has ended while it was stuck, to 64 at most; what becomes of others changes nothing about it (F2).
    pub fn find_stuck(&mut self, now: Instant, http: bool) {
        self.spent = false;
        self.patience.disarm();
        if self.late == 0 {
            return;
        }
        let limit = self.post_limit();
        for offset in 0..self.ring.len() {
            let Some(slot) = self.ring.get_mut(offset).filter(|slot| slot.open()) else { continue };
            let Answer::Late { patience } = &mut slot.answer else { continue };
            if http && slot.size <= limit {
                patience.disarm();
            } else if !patience.is_armed() {
                let doublings = u32::from(slot.stuck.min(PATIENCE_DOUBLINGS));
                patience.arm(now.after(self.config.patience.saturating_mul(1 << doublings)));
            }
            match patience.at() {
                Some(at) if at <= now => self.spent = true,
                Some(at) => self.patience.arm_by(at),
                None => {}
            }
        }
    }

    /// Whether a stuck message has had its patience: the connection is to be ended, and the message goes again on the next.
    /// Until then nothing more is sent on it.
    #[must_use]
    pub const fn out_of_patience(&self) -> bool {
        self.spent
    }

    /// Anything may have become ready: the path changed.
    pub const fn rescan(&mut self) {
        self.frame_from = 0;
        self.post_from = 0;
    }

    /// The end of the oldest message that has ended and was not reported yet. Its place is free from now on, or when its
    /// request is over (S13).
    pub fn take_settled(&mut self) -> Option<Settlement> {
        if self.unreported == 0 {
            return None;
        }
        let offset = self.ring.iter().position(|slot| matches!(slot.end, End::Settled(..)))?;
        let slot = self.ring.get_mut(offset)?;
        let End::Settled(outcome, took) = core::mem::replace(&mut slot.end, End::Reported) else { return None };
        let settlement = Settlement { seq: slot.seq, outcome, took, reason: slot.reason };
        self.unreported = self.unreported.saturating_sub(1);
        self.free(offset);
        Some(settlement)
    }

    /// Who numbers its messages.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// How long a message lives that says nothing else.
    #[must_use]
    pub const fn life(&self) -> Option<Duration> {
        self.config.life
    }

    /// The payload of a message that has not been reported as ended.
    #[must_use]
    pub fn payload(&self, seq: Seq) -> Option<&P> {
        self.ring.get(self.offset(seq)?).map(|slot| &slot.payload)
    }

    /// The id of this outbox's message `seq`, on every path (I1).
    #[must_use]
    pub fn id(&self, seq: Seq) -> MessageId {
        self.origin.message(seq)
    }

    /// Messages that have not ended.
    #[must_use]
    pub const fn backlog(&self) -> usize {
        self.unsettled
    }

    /// Requests under way, those of messages that have ended meanwhile included: each ends with its result.
    #[must_use]
    pub const fn posting(&self) -> usize {
        self.posting
    }

    /// Whether a first request of a message is under way.
    #[must_use]
    pub fn posting_first(&self) -> bool {
        self.posting > 0 && self.ring.iter().any(|slot| matches!(slot.post, Posting::Underway { again: false, .. }))
    }

    /// Whether a message can be accepted.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.bytes < self.config.bytes && self.ring.len() < self.config.capacity.min(self.ring.limit())
    }

    /// The acknowledgement wait in force, and what the estimator says by itself (T6).
    #[must_use]
    pub const fn rtt(&self) -> &Rtt {
        &self.rtt
    }

    fn frame_limit(&self) -> u32 {
        self.config.frame_limit.min(self.refused_size.saturating_sub(1))
    }

    /// The largest payload that any path carries.
    fn limit(&self, http: bool) -> u32 {
        self.frame_limit().max(if http { self.post_limit() } else { 0 })
    }

    fn post_limit(&self) -> u32 {
        self.config.post_limit.min(self.refused_post.saturating_sub(1))
    }

    /// Where the message with this number lies.
    fn offset(&self, seq: Seq) -> Option<usize> {
        let (mut from, mut to) = (0, self.ring.len());
        while from < to {
            let middle = from.midpoint(to);
            match self.ring.get(middle)?.seq.cmp(&seq) {
                Ordering::Less => from = middle.saturating_add(1),
                Ordering::Equal => return Some(middle),
                Ordering::Greater => to = middle,
            }
        }
        None
    }

    /// Changes a message; what is counted of all follows.
    fn change(&mut self, offset: usize, change: impl FnOnce(&mut Slot<P>)) {
        let Some(slot) = self.ring.get_mut(offset) else { return };
        let counts = |slot: &Slot<P>| (usize::from(slot.is_late()), usize::from(slot.wait().is_some()));
        let before = counts(slot);
        change(slot);
        let after = counts(slot);
        self.late = self.late.saturating_add(after.0).saturating_sub(before.0);
        self.awaited = self.awaited.saturating_add(after.1).saturating_sub(before.1);
    }

    /// Begins the waits that have not: of the first message sent on the connection, and where the peer is `through` with
    /// one, of all sent before that one and of the one sent next: it reads in order, so it is at work on those (T8).
    fn begin_waits(&mut self, now: Instant, through: Option<Turn>) {
        if self.awaited == 0 {
            return;
        }
        let behind = |turn: &Turn| through.is_none_or(|through| *turn > through);
        let last = self.ring.iter().filter_map(Slot::turn).filter(behind).min().or(through);
        let wait = self.rtt.wait();
        for offset in 0..self.ring.len() {
            if let Some(slot) = self.ring.get_mut(offset)
                && slot.turn() <= last
                && let Answer::Awaited(Wait { begun, due, .. }) = &mut slot.answer
                && !due.is_armed()
            {
                let at = now.after(wait).after(transfer_time(u64::from(slot.size)));
                *begun = now;
                due.arm(at);
                self.wake.arm_by(at);
            }
        }
    }

    fn settle(&mut self, now: Instant, offset: usize, outcome: Outcome) {
        self.change(offset, |slot| {
            slot.end = End::Settled(outcome, now.since(slot.accepted));
            slot.answer = Answer::None;
            if matches!(outcome, Outcome::Delivered { .. } | Outcome::Rejected(Rejection::ByPeer)) {
                slot.reason = None;
            }
        });
        self.unsettled = self.unsettled.saturating_sub(1);
        self.unreported = self.unreported.saturating_add(1);
        self.let_follow(offset);
    }

    /// A message has ended: what waited for it may leave, or waits for the one that this one waited for (I7).
    fn let_follow(&mut self, offset: usize) {
        if !self.follows {
            return;
        }
        let Some((ended, after)) = self.ring.get(offset).map(|slot| (slot.seq, slot.after)) else { return };
        self.follows = false;
        for offset in 0..self.ring.len() {
            let Some(slot) = self.ring.get_mut(offset).filter(|slot| slot.open()) else { continue };
            if slot.after == ended {
                slot.after = after;
            }
            self.follows |= slot.after != Seq::NONE;
        }
        self.rescan();
    }

    /// Frees the place of a message whose end was reported and whose request has ended (S13).
    fn free(&mut self, offset: usize) {
        if self.ring.get(offset).is_some_and(Slot::over) {
            let size = self.ring.remove(offset).map_or(0, |slot| slot.size);
            self.bytes = self.bytes.saturating_sub(u64::from(size));
            for cursor in [&mut self.frame_from, &mut self.post_from] {
                *cursor = cursor.saturating_sub(usize::from(offset < *cursor));
            }
        }
    }

    fn end_where(&mut self, now: Instant, mut verdict: impl FnMut(&mut Slot<P>) -> Option<Outcome>) {
        for offset in 0..self.ring.len() {
            let outcome = self.ring.get_mut(offset).filter(|slot| slot.open()).and_then(&mut verdict);
            if let Some(outcome) = outcome {
                self.settle(now, offset, outcome);
            }
        }
        self.begin_waits(now, None);
    }
}

impl<P, S: Slots<Slot<P>> + ?Sized> Timers for Outbox<P, S> {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        see(Wake::Message, &self.wake);
        see(Wake::Message, &self.patience);
        see(Wake::Http, &self.refused_until);
    }
}

mod window;

#[cfg(test)]
mod tests;
