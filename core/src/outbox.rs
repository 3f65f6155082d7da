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
//! Invariants: at most `capacity` messages, each settled exactly once and kept until that was reported; a number and an id
//! are bound to one payload for life; a message is sent at most once on a connection and never while its request is
//! under way; the wake-up time is never later than the earliest thing due.
//! Field bugs: a new id on every try; queued messages sent again on the next connection after HTTP delivered them;
//! `pending.clear()` on reconnect; the oldest unacknowledged message dropped silently; resending on a live connection.
//! Rules: I1, S1, S2, S3, S7, S8, F2, F4, H5, T1–T6; those of numbered receivers, with their marks and credit, in
//! `window.rs`.

use crate::ids::{LinkId, MessageId, Origin, PostId, Seq};
use crate::reason::{HttpClass, HttpOutcome};
use crate::ring::{Ring, Slots};
use crate::rtt::{AckWait, Rtt};
use crate::time::{Instant, Timer, Timers, Wake};
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
}

impl Policy {
    /// The session's life, kept across connections.
    pub const DEFAULT: Self = Self { life: None, on_new_link: OnNewLink::Keep };
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
    /// How many messages may be under way; smaller storage limits further. Default 64 (section 4.14 of the rules).
    pub capacity: usize,
    /// How many bytes they may have together, of the sizes given to `send`, before no further one is accepted. Default
    /// 256 MiB: four of the largest.
    pub bytes: u64,
    /// Default [`Proof::Acknowledgement`].
    pub proof: Proof,
    /// How long to wait for an acknowledgement on a connection. Default adaptive, first 1 s (T1).
    pub ack_wait: AckWait,
    /// The life of a message whose policy names none; `None`: until it is delivered or the session ends. Default none.
    pub life: Option<Duration>,
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
        frame_limit: 16 << 20,
        post_limit: 64 << 20,
    };
}

/// One message under way; what storage for an [`Outbox`] is made of.
///
/// ```
/// # use bowline::{InlineOutbox, Outbox, OutboxConfig, Origin};
/// let inline: InlineOutbox<&str, 2> = Outbox::new(OutboxConfig::DEFAULT, Origin::new(1, 1), [None, None]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Slot<P> {
    payload: P,
    size: u32,
    accepted: Instant,
    expires: Timer,
    on_new_link: OnNewLink,
    /// The last connection it was sent on; on that one it is never sent again (F2).
    sent_on: LinkId,
    answer: Answer,
    post: Posting,
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
    /// Awaited until `due`; `since` is missing where a stall made the time worthless (T5).
    Awaited { since: Option<Instant>, due: Timer },
    /// Not come in time.
    Late,
    /// It has arrived, on whatever connection; its completion will be told ([`window`]).
    Arrived,
    /// The peer asked for it again, after this.
    Asked { from: Timer },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Posting {
    Never,
    Underway {
        attempt: u32,
    },
    /// Tried before; not again before this.
    Again {
        from: Timer,
    },
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
/// let (seq, outcome, _) = outbox.take_settled().unwrap();
/// assert_eq!((seq, outcome), (Seq::FIRST, Outcome::Delivered { path: Path::WebSocket }));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Outbox<P, S: Slots<Slot<P>> + ?Sized = [Option<Slot<P>>]> {
    config: OutboxConfig,
    origin: Origin,
    /// The number of the oldest slot.
    head: Seq,
    /// Of all that are in the ring.
    bytes: u64,
    rtt: Rtt,
    /// Never later than the earliest deadline of any slot; fired, it is computed anew.
    wake: Timer,
    /// No slot before these offsets can be sent or posted; lowered whenever one may have become ready.
    frame_from: usize,
    post_from: usize,
    unsettled: usize,
    unreported: usize,
    late: usize,
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
    /// The smallest payload that something on the way of HTTP called too large (F4).
    refused_post: u32,
    ring: Ring<Slot<P>, S>,
}

impl<P, S: Slots<Slot<P>>> Outbox<P, S> {
    /// An empty outbox that numbers its messages from 1 under `origin`.
    pub fn new(config: OutboxConfig, origin: Origin, slots: S) -> Self {
        Self {
            config,
            origin,
            head: Seq::FIRST,
            bytes: 0,
            rtt: Rtt::new(config.ack_wait),
            wake: Timer::disarmed(),
            frame_from: 0,
            post_from: 0,
            unsettled: 0,
            unreported: 0,
            late: 0,
            posting: 0,
            posts: 0,
            unsent: Seq::FIRST,
            credit: window::BOUNDLESS,
            polls: 0,
            refused_size: u32::MAX,
            refused_post: u32::MAX,
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
        let seq = self.head.plus(as_u64(self.ring.len()));
        if !self.has_room() || seq > Seq::LAST {
            return Err(payload);
        }
        let mut expires = Timer::disarmed();
        if let Some(life) = policy.life.or(self.config.life) {
            expires.arm(now.after(life));
            self.wake.arm_by(now.after(life));
        }
        let slot = Slot {
            payload,
            size,
            accepted: now,
            expires,
            on_new_link: policy.on_new_link,
            sent_on: LinkId::NONE,
            answer: Answer::None,
            post: Posting::Never,
            by_http: size > self.frame_limit(),
            asked: false,
            polled: 0,
            end: End::Open,
        };
        self.ring.make_room(self.config.capacity);
        self.ring.push(slot).map_err(|slot| slot.payload)?;
        self.bytes = self.bytes.saturating_add(u64::from(size));
        self.unsettled = self.unsettled.saturating_add(1);
        Ok(seq)
    }

    /// The next message to send on `link`, marked as sent; its acknowledgement is awaited from now on (T1, T4).
    pub fn take_frame(&mut self, now: Instant, link: LinkId) -> Option<Seq> {
        let (wait, allowed) = (self.rtt.wait(), self.allowed());
        while self.frame_from < self.ring.len() {
            let offset = self.frame_from;
            if self.head.plus(as_u64(offset)) > allowed {
                return None;
            }
            self.frame_from = offset.saturating_add(1);
            let Some(slot) = self.ring.get_mut(offset) else { continue };
            let underway = matches!(slot.post, Posting::Underway { .. });
            let waits = match &slot.answer {
                Answer::Arrived => true,
                Answer::Asked { from } => from.at().is_some_and(|at| at > now),
                Answer::None | Answer::Awaited { .. } | Answer::Late => false,
            };
            if slot.end != End::Open || slot.by_http || underway || waits || slot.sent_on == link {
                continue;
            }
            let mut due = Timer::disarmed();
            due.arm(now.after(wait));
            // Sent on a connection before: its acknowledgement may be for that copy, and is no sample (T5).
            let since = (slot.sent_on == LinkId::NONE).then_some(now);
            slot.sent_on = link;
            slot.asked = false;
            slot.answer = Answer::Awaited { since, due };
            self.wake.arm_by(now.after(wait));
            let seq = self.head.plus(as_u64(offset));
            self.unsent = self.unsent.max(seq.next());
            return Some(seq);
        }
        None
    }

    /// The next message to post, marked as under way. `all`: traffic goes by HTTP at the moment; otherwise only what must
    /// go by HTTP. What may still be answered on the live connection is left alone.
    pub fn take_post(&mut self, now: Instant, all: bool) -> Option<PostId> {
        let (allowed, limit) = (self.allowed(), self.post_limit());
        while self.post_from < self.ring.len() {
            let offset = self.post_from;
            if self.head.plus(as_u64(offset)) > allowed {
                return None;
            }
            self.post_from = offset.saturating_add(1);
            let Some(slot) = self.ring.get_mut(offset) else { continue };
            let waits = match &slot.answer {
                Answer::Awaited { .. } | Answer::Arrived => true,
                Answer::Asked { from } => from.at().is_some_and(|at| at > now),
                Answer::None | Answer::Late => false,
            };
            let free = match &mut slot.post {
                Posting::Never => true,
                Posting::Underway { .. } => false,
                Posting::Again { from } => from.at().is_none_or(|at| at <= now),
            };
            let wanted = (all || slot.by_http) && slot.size <= limit;
            if slot.end != End::Open || waits || !free || !wanted {
                continue;
            }
            self.posts = self.posts.saturating_add(1);
            self.posting = self.posting.saturating_add(1);
            slot.post = Posting::Underway { attempt: self.posts };
            let seq = self.head.plus(as_u64(offset));
            self.unsent = self.unsent.max(seq.next());
            return Some(PostId { seq, attempt: self.posts });
        }
        None
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
        if seq < self.head {
            return Ack::Unknown;
        }
        let Some(slot) = self.slot_mut(seq) else { return Ack::NeverSent };
        if slot.end != End::Open {
            return Ack::Unknown;
        }
        if slot.sent_on == LinkId::NONE && slot.post == Posting::Never {
            return Ack::NeverSent;
        }
        // Karn's rule costs nothing: on one connection a message is sent once (T3). What was sent on two connections is no
        // sample (T5), nor is what also went by HTTP.
        let sample = match slot.answer {
            Answer::Awaited { since, .. } if slot.sent_on == link && slot.post == Posting::Never => since,
            Answer::Awaited { .. } | Answer::Late | Answer::None | Answer::Arrived | Answer::Asked { .. } => None,
        };
        self.settle(now, seq, outcome);
        if let Some(sent) = sample {
            self.rtt.sample(now.since(sent));
        }
        Ack::Settled
    }

    /// A request ended; false: none like it was under way, nothing changed.
    pub fn on_posted(&mut self, now: Instant, post: PostId, outcome: HttpOutcome) -> bool {
        let underway = Posting::Underway { attempt: post.attempt };
        let Some(slot) = self.slot_mut(post.seq).filter(|slot| slot.post == underway) else { return false };
        if slot.end != End::Open {
            // Its message has ended meanwhile; the request ends, and with it the place is free.
            slot.post = Posting::Again { from: Timer::disarmed() };
            self.posting = self.posting.saturating_sub(1);
            self.free();
            return true;
        }
        let class = outcome.class();
        let after = outcome.after().min(Duration::from_secs(600));
        let after = match class {
            // No sooner than in a second, or a peer that says so without a time is asked in a loop.
            HttpClass::DelayMessage | HttpClass::TooLarge => after.max(Duration::from_secs(1)),
            HttpClass::Delivered | HttpClass::Rejected | HttpClass::DelayPath => after,
        };
        let mut from = Timer::disarmed();
        if after > Duration::ZERO {
            from.arm(now.after(after));
        }
        slot.post = Posting::Again { from };
        self.posting = self.posting.saturating_sub(1);
        if after > Duration::ZERO {
            self.wake.arm_by(now.after(after));
        }
        self.rescan();
        match class {
            HttpClass::Delivered => self.settle(now, post.seq, Outcome::Delivered { path: Path::Http }),
            HttpClass::Rejected => {
                let why = if let HttpOutcome::Answered { status, .. } = outcome {
                    Rejection::Status(status)
                } else {
                    Rejection::ByPeer
                };
                self.settle(now, post.seq, Outcome::Rejected(why));
            }
            HttpClass::TooLarge => self.refused_by_http(post.seq),
            HttpClass::DelayMessage | HttpClass::DelayPath => {}
        }
        true
    }

    /// Something on the way of HTTP does not carry this message: it, and every later one of its size or above, goes over
    /// the connection, this one over the next if it is on the present one already (F4).
    fn refused_by_http(&mut self, seq: Seq) {
        let limit = self.frame_limit();
        if let Some(slot) = self.slot_mut(seq) {
            slot.by_http = slot.size > limit || slot.answer == Answer::Late;
            let size = slot.size;
            self.refused_post = self.refused_post.min(size);
        }
    }

    /// Try now: what was on the way of HTTP may be there no more (P5).
    pub const fn retry_now(&mut self) {
        self.refused_post = u32::MAX;
        self.rescan();
    }

    /// A connection came up: everything unfinished may be sent on it, and what was tied to an earlier one ends.
    pub fn on_link_up(&mut self, now: Instant) {
        for offset in 0..self.ring.len() {
            let seq = self.head.plus(as_u64(offset));
            if self.ring.get(offset).is_some_and(|slot| slot.on_new_link == OnNewLink::Drop) {
                self.settle(now, seq, Outcome::Abandoned);
            }
        }
        self.rescan();
    }

    /// The connection ended: nothing is awaited on it any more. `too_large`: it was closed with 1009, so the largest
    /// message in flight is the likely reason and goes by HTTP from now on (F4).
    pub fn on_link_down(&mut self, too_large: bool) {
        let in_flight =
            |slot: &Slot<P>| matches!(slot.answer, Answer::Awaited { .. } | Answer::Late).then_some(slot.size);
        if too_large && let Some(largest) = self.ring.iter().filter_map(in_flight).max() {
            self.refused_size = self.refused_size.min(largest);
        }
        let limit = self.frame_limit();
        for offset in 0..self.ring.len() {
            if let Some(slot) = self.ring.get_mut(offset) {
                if !matches!(slot.answer, Answer::Arrived | Answer::Asked { .. }) {
                    slot.answer = Answer::None;
                }
                slot.asked = false;
                // What was only late may go over the next connection; what is too large may not.
                slot.by_http = slot.size > limit;
            }
        }
        self.late = 0;
        self.rescan();
    }

    /// Whether an acknowledgement is awaited on the live connection and is not late.
    #[must_use]
    pub fn awaiting(&self) -> bool {
        self.ring.iter().any(|slot| slot.end == End::Open && matches!(slot.answer, Answer::Awaited { .. }))
    }

    /// Bytes sent on the live connection of which nothing is known to have arrived: they may be under way (L11).
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        let bytes = |slot: &Slot<P>| match slot.answer {
            Answer::Awaited { .. } | Answer::Late if slot.end == End::Open => u64::from(slot.size),
            Answer::Awaited { .. } | Answer::Late | Answer::None | Answer::Arrived | Answer::Asked { .. } => 0,
        };
        self.ring.iter().map(bytes).fold(0, u64::saturating_add)
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
                slot.asked |= slot.end == End::Open && slot.answer != Answer::None;
            }
        }
    }

    /// The answer to that ping has come. How many messages ended.
    pub fn proved(&mut self, now: Instant) -> usize {
        let before = self.unsettled;
        let since = |slot: &Slot<P>| match slot.answer {
            Answer::Awaited { since, .. } if slot.asked && slot.post == Posting::Never => since,
            Answer::Awaited { .. } | Answer::Late | Answer::None | Answer::Arrived | Answer::Asked { .. } => None,
        };
        let latest = self.ring.iter().filter_map(since).max();
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
            if let Some(slot) = self.ring.get_mut(offset)
                && slot.by_http
                && slot.end == End::Open
                && slot.size <= limit
            {
                slot.by_http = false;
                self.late = self.late.saturating_add(usize::from(slot.answer == Answer::Late));
            }
        }
        self.rescan();
    }

    /// The process stood still: answers may lie unread, so nothing awaited is late before `until` (L5, T5).
    pub fn stalled(&mut self, until: Instant) {
        for offset in 0..self.ring.len() {
            if let Some(slot) = self.ring.get_mut(offset)
                && let Answer::Awaited { since, due } = &mut slot.answer
            {
                *since = None;
                due.arm(due.at().map_or(until, |at| at.max(until)));
            }
        }
    }

    /// Ends everything unfinished.
    pub fn abandon(&mut self, now: Instant) {
        self.end_where(now, |_| Some(Outcome::Abandoned));
        self.wake.disarm();
    }

    /// Ends what no path carries, as far as is known now, with HTTP or without (F4, H5).
    pub fn reject_oversize(&mut self, now: Instant, http: bool) {
        let limit = self.limit(http);
        self.end_where(now, |slot| (slot.size > limit).then_some(Outcome::Rejected(Rejection::TooLarge)));
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
        if !self.wake.fire(now) {
            return 0;
        }
        self.end_where(now, |slot| slot.expires.fire(now).then_some(Outcome::Expired));
        let mut late = 0_u32;
        let mut next = Timer::disarmed();
        for offset in 0..self.ring.len() {
            let Some(slot) = self.ring.get_mut(offset) else { continue };
            if slot.end != End::Open {
                continue;
            }
            let mut due = None;
            if let Answer::Awaited { due: timer, .. } = &mut slot.answer {
                if timer.fire(now) {
                    slot.answer = Answer::Late;
                    late = late.saturating_add(1);
                } else {
                    due = timer.at();
                }
            }
            let from = match &mut slot.post {
                Posting::Again { from } => {
                    let _ = from.fire(now);
                    from.at()
                }
                Posting::Never | Posting::Underway { .. } => None,
            };
            let asked = match &mut slot.answer {
                Answer::Asked { from } => {
                    let _ = from.fire(now);
                    from.at()
                }
                Answer::None | Answer::Awaited { .. } | Answer::Late | Answer::Arrived => None,
            };
            for at in [due, slot.expires.at(), from, asked].into_iter().flatten() {
                next.arm_by(at);
            }
        }
        self.wake = next;
        if late > 0 {
            self.rtt.late();
            self.late = self.late.saturating_add(as_usize(late));
        }
        self.rescan();
        late
    }

    /// Messages on the live connection whose acknowledgement is late and which have not been sent by HTTP besides.
    #[must_use]
    pub const fn late(&self) -> usize {
        self.late
    }

    /// Lets the oldest late message go by HTTP besides; it keeps its id. False: there is none.
    pub fn hedge(&mut self) -> bool {
        for offset in 0..self.ring.len() {
            if let Some(slot) = self.ring.get_mut(offset)
                && slot.end == End::Open
                && slot.answer == Answer::Late
                && !slot.by_http
            {
                slot.by_http = true;
                self.late = self.late.saturating_sub(1);
                self.rescan();
                return true;
            }
        }
        false
    }

    /// Anything may have become ready: the path changed.
    pub const fn rescan(&mut self) {
        self.frame_from = 0;
        self.post_from = 0;
    }

    /// The oldest message that has ended and was not reported yet: its number, its end and the time from acceptance.
    /// Reported messages free their places in order of acceptance.
    pub fn take_settled(&mut self) -> Option<(Seq, Outcome, Duration)> {
        if self.unreported == 0 {
            return None;
        }
        let mut found = None;
        for offset in 0..self.ring.len() {
            if let Some(slot) = self.ring.get_mut(offset)
                && let End::Settled(outcome, took) = slot.end
            {
                slot.end = End::Reported;
                self.unreported = self.unreported.saturating_sub(1);
                found = Some((self.head.plus(as_u64(offset)), outcome, took));
                break;
            }
        }
        self.free();
        found
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

    fn offset(&self, seq: Seq) -> Option<usize> {
        (seq >= self.head).then(|| usize::try_from(seq.since(self.head)).ok()).flatten()
    }

    fn slot_mut(&mut self, seq: Seq) -> Option<&mut Slot<P>> {
        let offset = self.offset(seq)?;
        self.ring.get_mut(offset)
    }

    fn settle(&mut self, now: Instant, seq: Seq, outcome: Outcome) {
        let Some(slot) = self.slot_mut(seq) else { return };
        if slot.end != End::Open {
            return;
        }
        slot.end = End::Settled(outcome, now.since(slot.accepted));
        let was_late = slot.answer == Answer::Late && !slot.by_http;
        slot.answer = Answer::None;
        self.late = self.late.saturating_sub(usize::from(was_late));
        self.unsettled = self.unsettled.saturating_sub(1);
        self.unreported = self.unreported.saturating_add(1);
    }

    /// Frees the places of the oldest messages whose end was reported and whose requests have ended.
    fn free(&mut self) {
        let over = |slot: &Slot<P>| slot.end == End::Reported && !matches!(slot.post, Posting::Underway { .. });
        while self.ring.get(0).is_some_and(over) {
            let size = self.ring.pop().map_or(0, |slot| slot.size);
            self.bytes = self.bytes.saturating_sub(u64::from(size));
            self.head = self.head.next();
            self.frame_from = self.frame_from.saturating_sub(1);
            self.post_from = self.post_from.saturating_sub(1);
        }
    }

    fn end_where(&mut self, now: Instant, mut verdict: impl FnMut(&mut Slot<P>) -> Option<Outcome>) {
        for offset in 0..self.ring.len() {
            let seq = self.head.plus(as_u64(offset));
            let outcome = self.ring.get_mut(offset).filter(|slot| slot.end == End::Open).and_then(&mut verdict);
            if let Some(outcome) = outcome {
                self.settle(now, seq, outcome);
            }
        }
    }
}

impl<P, S: Slots<Slot<P>> + ?Sized> Timers for Outbox<P, S> {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        see(Wake::Message, &self.wake);
    }
}

/// Offsets and counts of a ring as numbers of the sequence space; a `usize` never exceeds it in practice.
fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn as_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

mod window;

#[cfg(test)]
mod tests;
