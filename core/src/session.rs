//! One peer: connection, liveness, what is owed, what was seen, and by which path, under one
//! [`handle`](Session::handle), one [`poll`](Session::poll) and one [`deadline`](Session::deadline).
//!
//! ```text
//!                         handle(now, Input) ──▶ Reply
//!  ┌───────────────────────────┴────────────────────────────────────────────────┐
//!  │ clamp time → stall? → apply → fire due timers → settle the joint rules      │
//!  │                                                                             │
//!  │   Link ── current? ──▶ Live { Heartbeat, writable }   dropped whole with it │
//!  │   Route ── path ──▶ Outbox: frames and posts          Inbox: acks, answers  │
//!  └───────────────────────────┬────────────────────────────────────────────────┘
//!            poll() ──▶ Close, Refuse, Connect, Event, Respond, Carry, Frame, Greet, Poll, Post   (in that order)
//! ```
//!
//! States: `Idle → Connecting → Handshaking → Up ⇄ Suspect`, `Waiting`, `Degraded` (HTTP carries), `Suspended`, `Closing`,
//! and the final `Failed` and `Closed`.
//!
//! The six rules of the surface:
//!
//! 1. Any input at any time, in any order, in any state. A late or wrong one answers `Stale` and moves nothing but the
//!    clock.
//! 2. Only `handle` moves state. The list of `(now, input)`, with the number of polls between, *is* the execution.
//! 3. Undrained output is never lost and never invisible: `deadline()` is `Some(now)` until `poll()` returns `None`.
//! 4. Ticks are free: early, late, doubled and spurious ones are harmless.
//! 5. Time never goes backwards: `now` is clamped to the largest seen, and counted.
//! 6. After a full drain `deadline()` is `None` or later than `now`.
//!
//! Invariants: children return values and keep no queues; what belongs to one connection sits in `Live` and is dropped
//! whole; events are differences between what is and what was reported, so they cannot overflow.
//! Rules: S7, S8, F0–F7, L3, L5, L10–L14, R7, T4, T5, B8; those of numbered peers in `native.rs`.

use crate::config::Checked;
use crate::heartbeat::{DataWatch, Dead, Heartbeat, HeartbeatConfig, ProgramLife, Word};
use crate::ids::{ContentKey, DeliveryId, LinkId, MessageId, Origin, PostId, RequestId, Seq};
use crate::inbox::{Answer, Arrival, Inbox, Seen, Verdict};
use crate::link::{Accepted, Ending, Link, LinkState};
use crate::marks::{Beat, Nack, Report};
use crate::outbox::{Ack, Outbox, Outcome, Path, Policy, Proof, Settlement, Slot};
use crate::reason::{HttpClass, HttpOutcome, Reason, RetryHint};
use crate::resume::{Greeting, ResumeRefusal};
use crate::ring::Slots;
use crate::rng::SplitMix64;
use crate::route::{HttpTimeouts, RequestKind, Route};
use crate::store::{Fixed, Store};
use crate::time::{Instant, Timer, Timers, Wake};
use core::fmt;
use core::hash::{Hash, Hasher};
use core::time::Duration;
use native::{Ask, Carry, Native};

mod native;
pub use native::NativeConfig;

/// What a frame is, as far as a session needs to know; the payload stays with the adapter.
///
/// ```
/// # use bowline::{Head, MessageId};
/// let head = Head::Ack { id: MessageId::from_bits(1) };
/// # let _ = head;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Head {
    /// A message, with its id if it has one and its content key if its type is declared idempotent (I4).
    Data {
        /// As the wire names it; without one it cannot be acknowledged.
        id: Option<MessageId>,
        /// A keyed hash of what it says.
        key: Option<ContentKey>,
    },
    /// An acknowledgement by id.
    Ack {
        /// The id that was acknowledged.
        id: MessageId,
    },
    /// The peer will never take the message with this id (S8).
    Reject {
        /// The id that was rejected.
        id: MessageId,
    },
    /// A WebSocket pong: the transport's answer to a ping.
    Pong,
    /// A word of the wire's own that is no message, such as a heartbeat, a keep-alive or the answer to a subscription: the
    /// peer's program lives (L10).
    Word {
        /// Whether it answers a ping of ours.
        pong: bool,
    },
    /// A part of a frame that is still coming in: bytes move (L11).
    Part,
    /// The greeting that makes an open connection ready.
    Hello,
    /// The greeting of a native hub, and why it has not resumed if it was asked to (R1, R2).
    Welcome {
        /// What it says of itself.
        greeting: Greeting,
        /// Why not.
        refused: Option<ResumeRefusal>,
    },
    /// A numbered message.
    Numbered {
        /// Its number.
        seq: Seq,
        /// The sender's lowest that has not ended.
        una: Seq,
    },
    /// What the peer has, with its ping or pong if it is one (S4, L3).
    Marks {
        /// Of our messages.
        report: Report,
        /// Of its own: the lowest that has not ended.
        una: Seq,
        /// Whether it asks or answers.
        beat: Beat,
    },
    /// What the peer says of one message beside its marks (S8).
    Nack {
        /// Of ours.
        seq: Seq,
        /// Which message it asks for, and after what time.
        nack: Nack,
    },
    /// Understood, and of no consequence: a ping that the transport answers, a word that shows nothing of the peer's program.
    Other,
    /// Not understood. It is life all the same (L2), but sixteen on one connection end it.
    Malformed,
}

impl Head {
    /// What the frame shows of the peer's program: only the wire's own words count (L10).
    #[must_use]
    pub const fn word(&self) -> Option<Word> {
        match self {
            Self::Data { .. } | Self::Numbered { .. } | Self::Part => Some(Word::Data),
            Self::Ack { .. }
            | Self::Reject { .. }
            | Self::Word { .. }
            | Self::Hello
            | Self::Welcome { .. }
            | Self::Marks { .. }
            | Self::Nack { .. } => Some(Word::Other),
            Self::Pong | Self::Other | Self::Malformed => None,
        }
    }
}

/// Everything that can happen to a session; the recorded, replayed and fuzzed thing.
///
/// ```
/// # use bowline::Input;
/// let input: Input<u32> = Input::Tick;
/// # let _ = input;
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Input<P> {
    /// Time has passed.
    Tick,
    /// Begin, or begin again after a failure.
    Start,
    /// A peer has connected to us.
    Accept,
    /// The connection that was asked for is open.
    LinkUp {
        /// The attempt.
        link: LinkId,
    },
    /// A connection or an attempt ended.
    LinkDown {
        /// The connection or attempt.
        link: LinkId,
        /// Why it ended.
        reason: Reason,
        /// What the server said about coming back.
        hint: RetryHint,
    },
    /// A frame came in.
    Received {
        /// On which connection.
        link: LinkId,
        /// What it is.
        head: Head,
    },
    /// The connection takes frames, or does not at the moment.
    Writable {
        /// Which connection.
        link: LinkId,
        /// Whether it takes them.
        yes: bool,
    },
    /// A request of ours ended.
    Posted {
        /// The request.
        post: PostId,
        /// What was seen of it.
        outcome: HttpOutcome,
    },
    /// The peer sent a message by a request.
    Request {
        /// The adapter's number for it, which the answer carries.
        request: RequestId,
        /// As for [`Head::Data`].
        id: Option<MessageId>,
        /// As for [`Head::Data`].
        key: Option<ContentKey>,
    },
    /// The peer said by a request of its own, or in its answer to one of ours, what became of a message (S8).
    Confirmed {
        /// The message's id.
        id: MessageId,
        /// Delivered, or rejected.
        success: bool,
    },
    /// A native client has greeted us, before its connection is accepted or by HTTP: with the reason for which it cannot be
    /// resumed, if its hub knows one.
    Greeted {
        /// What it says of itself.
        greeting: Greeting,
        /// Why not.
        known: Option<ResumeRefusal>,
        /// By HTTP.
        http: bool,
    },
    /// A frame came in by HTTP: in the answer to a poll or to a post.
    Carried {
        /// What it is.
        head: Head,
    },
    /// A native peer polls (H3).
    Poll {
        /// The adapter's number for it, which the answer carries.
        request: RequestId,
        /// How long it may wait.
        wait: Duration,
        /// What it has of our messages.
        report: Report,
        /// Of its own: the lowest that has not ended.
        una: Seq,
    },
    /// A native peer said, with a message by a request, that all its messages below this one have ended.
    Advance {
        /// The lowest that has not.
        una: Seq,
    },
    /// A question of ours by HTTP ended ([`Output::Greet`], [`Output::Poll`]).
    Talked {
        /// The number of the greeting or poll.
        talk: u32,
        /// What was seen of it.
        outcome: HttpOutcome,
    },
    /// The peer gave up a request before it was answered.
    RequestGone {
        /// The peer's request.
        request: RequestId,
    },
    /// The application sends.
    Send {
        /// What; handed back if it is refused.
        payload: P,
        /// Its size in bytes, for the limits of the paths.
        size: u32,
        /// Its life.
        policy: Policy,
    },
    /// The application has decided about a message it was given.
    Complete {
        /// The delivery.
        delivery: DeliveryId,
        /// What the application says of it.
        verdict: Verdict,
    },
    /// Try now: a waiting attempt begins at once on either path, also after a failure, and what was learned is void (P5).
    /// For a network that has changed, for new credentials, and for a user who does not want to wait.
    RetryNow,
    /// Time stood still for this process, in a way that calls in time for a deadline do not show: its machine was suspended
    /// or restored, or it was stopped between two deadlines (L14). Nothing is concluded from the silence, and the peer is
    /// asked at once. An adapter finds it by comparing clocks.
    StoodStill {
        /// How much time the caller's count has missed, as far as another clock shows; zero: none. A waiting attempt to
        /// connect is made earlier by it, not before a delay of a first failure. Nothing else is shortened by it: the
        /// other clock may have been set.
        unseen: Duration,
    },
    /// There is an HTTP path from now on, or there is none any more; at first it is as the configuration says.
    Http {
        /// Whether there is one.
        yes: bool,
    },
    /// The application knows whether the peer has data to send from now on, on this connection and later ones; until it
    /// says so, the first data of the session decides ([`ProgramLife::Data`]).
    ExpectData {
        /// Whether it has.
        yes: bool,
    },
    /// End: accept nothing new, finish what is under way for so long at most (L13).
    Close {
        /// The longest time to finish.
        drain: Duration,
    },
}

/// The answer to an input.
///
/// ```
/// # use bowline::Reply;
/// let reply: Reply<u32> = Reply::Stale;
/// assert_ne!(reply, Reply::Done);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[must_use]
pub enum Reply<P> {
    /// Taken.
    Done,
    /// It concerns something that is over, or not there: nothing changed but the clock. For `LinkUp`: drop that socket.
    Stale,
    /// A newcomer has the place, or waits for the verdict about its holder, or must be closed.
    Accepted(Accepted),
    /// The message is accepted; its end will be reported under this number.
    Queued(Seq),
    /// The message is not accepted.
    Refused(Refusal, P),
    /// Hand the message to the application, or do not, and so on.
    Arrival(Arrival),
    /// Whether a native peer's session goes on: without a reason it does, if it was asked for.
    Greeted(Option<ResumeRefusal>),
}

/// Why a message was not accepted; it comes back with the answer.
///
/// ```
/// # use bowline::Refusal;
/// assert_eq!(Refusal::Full.to_string(), "the outbox is full");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// As many messages are under way as may be; try again when one has ended.
    Full,
    /// No path carries so much (H5).
    TooLarge,
    /// The session is closing, closed or failed.
    Closed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the outbox is full",
            Self::TooLarge => "larger than any path takes",
            Self::Closed => "the session is closed",
        })
    }
}

impl core::error::Error for Refusal {}

/// A frame to send.
///
/// ```
/// # use bowline::Frame;
/// let frame: Frame<'_, u32> = Frame::Ping;
/// # let _ = frame;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Frame<'a, P> {
    /// Acknowledge the message with this id.
    Ack {
        /// As it came.
        id: MessageId,
    },
    /// Ask whether the peer is there, by the profile's own ping or the transport's (L3).
    Ping,
    /// A data frame that says nothing, for peers with a read deadline (L4).
    Keepalive,
    /// A message.
    Data {
        /// Its number here.
        seq: Seq,
        /// Its name everywhere.
        id: MessageId,
        /// The lowest number that has not ended.
        una: Seq,
        /// What it says.
        payload: &'a P,
    },
    /// What we have of a native peer's messages (S4), with our ping or pong (L3).
    Marks {
        /// This side's marks.
        report: Report,
        /// The lowest number of ours that has not ended.
        una: Seq,
        /// Whether it asks or answers.
        beat: Beat,
    },
    /// Ask a native peer for a message again (S8).
    Nack {
        /// The number of the message.
        seq: Seq,
        /// The delay from now.
        after: Duration,
    },
}

/// Something the adapter should do now.
///
/// ```
/// # use bowline::{LinkId, Output};
/// let output: Output<'_, u32> = Output::Connect { link: LinkId::NONE.next() };
/// # let _ = output;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use]
pub enum Output<'a, P> {
    /// End this connection or attempt, and every older one still held; by a code, report when it has ended.
    Close {
        /// The newest one meant.
        link: LinkId,
        /// How it is ended.
        ending: Ending,
    },
    /// Turn this newcomer away with 1008, and no other.
    Refuse {
        /// The newcomer.
        link: LinkId,
    },
    /// Dial.
    Connect {
        /// The attempt's number, which its result carries.
        link: LinkId,
    },
    /// Tell the application.
    Event(Event),
    /// Answer a request of the peer's.
    Respond {
        /// The peer's request.
        request: RequestId,
        /// The answer.
        answer: Answer,
    },
    /// Put a frame into the answer to this poll; what is complete is told by [`Answer::Polled`].
    Carry {
        /// The peer's request.
        request: RequestId,
        /// The frame.
        frame: Frame<'a, P>,
    },
    /// Say hello by HTTP and report by [`Input::Carried`] and [`Input::Talked`].
    Greet {
        /// The question's number, which its result carries.
        talk: u32,
        /// How long it may take (H10).
        timeouts: HttpTimeouts,
    },
    /// Poll by HTTP, with [`Session::report`] as it is now, and report by [`Input::Carried`] and [`Input::Talked`].
    Poll {
        /// The question's number, which its result carries.
        talk: u32,
        /// How long the peer may wait with its answer.
        wait: Duration,
        /// How long it may take, the wait included (H10).
        timeouts: HttpTimeouts,
    },
    /// Send a WebSocket ping, whatever the profile's ping is: it asks the transport, not the program (L3).
    Probe {
        /// On this connection; it is the current one.
        link: LinkId,
    },
    /// Send a frame.
    Frame {
        /// On this connection; it is the current one.
        link: LinkId,
        /// The frame.
        frame: Frame<'a, P>,
    },
    /// Post a message by HTTP.
    Post {
        /// Which try of which message; its result carries it.
        post: PostId,
        /// The id, for `Idempotency-Key` (H1).
        id: MessageId,
        /// What it says.
        payload: &'a P,
        /// How long the request may take (H10).
        timeouts: HttpTimeouts,
    },
}

/// Something the application may want to know.
///
/// ```
/// # use bowline::{Event, State};
/// let event = Event::State { from: State::Idle, to: State::Connecting };
/// # let _ = event;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    /// An accepted message has ended; once for each.
    Settled {
        /// The number of the message.
        seq: Seq,
        /// How it ended.
        outcome: Outcome,
        /// Time from acceptance.
        took: Duration,
        /// What was last seen to go wrong with it, if it was not delivered.
        reason: Option<Reason>,
    },
    /// A connection or an attempt has ended; the latest, if there were several since the last drain.
    Down {
        /// The connection or attempt.
        link: LinkId,
        /// Why it ended.
        reason: Reason,
    },
    /// A request of this side failed; the latest, if there were several since the last drain ([`Stats::requests_failed`]
    /// counts all).
    RequestFailed {
        /// The message it carried; `None`: it was a greeting or a poll.
        seq: Option<Seq>,
        /// Why it failed.
        reason: Reason,
    },
    /// The state is another one than was last reported.
    State {
        /// As reported.
        from: State,
        /// As it is.
        to: State,
    },
    /// Traffic goes another way than was last reported.
    Path {
        /// As reported.
        from: Path,
        /// As it is.
        to: Path,
    },
    /// A message was rejected by the application but acknowledged, because the peer knows no other word (S8).
    RejectedButAcked {
        /// Which delivery.
        delivery: DeliveryId,
    },
    /// Messages were forgotten before their time: the memory is too small for the horizon (S12).
    HorizonShort {
        /// How many so far.
        total: u64,
    },
    /// It is the turn of a message that came before one that was missing (S9).
    Turn {
        /// The delivery.
        delivery: DeliveryId,
    },
    /// The hub has said whether the session goes on (R2).
    Resumed {
        /// Nothing is lost.
        resumed: bool,
        /// Otherwise: why.
        reason: Option<ResumeRefusal>,
    },
    /// Messages of the peer's that will never come (R5): they ended there, or its memory is lost.
    Gap {
        /// The first.
        from: Seq,
        /// The last; nobody knows it if the peer began anew.
        to: Option<Seq>,
        /// How many; 0 if nobody knows.
        count: u64,
    },
    /// An id was used for another payload; the message was not delivered (I5).
    IdReused {
        /// How many so far.
        total: u64,
    },
}

/// Where a session stands (section 4.10 of the rules).
///
/// ```
/// # use bowline::State;
/// assert_eq!(State::Up.to_string(), "up");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// Not started, or waiting to be dialled.
    Idle,
    /// Between two attempts, and HTTP does not carry ([`Degraded`](Self::Degraded)).
    Waiting,
    /// An attempt is under way.
    Connecting,
    /// Open, and not ready, or not shown to carry after an earlier one (P2).
    Handshaking,
    /// The connection carries.
    Up,
    /// Up, but a message was not answered in time and neither was anything heard since.
    Suspect,
    /// HTTP carries (F8): messages go by it, the peer has answered a request of this side since they do, and none has failed
    /// since. Until then, and where nothing was to be sent, the state is that of the connection.
    Degraded,
    /// No connection for the long-outage limit, and HTTP does not carry; still trying, slowly.
    Suspended,
    /// Finishing what is under way.
    Closing,
    /// Replaced by another connection (R8), or given up (B10); [`Session::path_status`] says why.
    Failed,
    /// Ended by us.
    Closed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Connecting => "connecting",
            Self::Handshaking => "handshaking",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Degraded => "degraded",
            Self::Suspended => "suspended",
            Self::Closing => "closing",
            Self::Failed => "failed",
            Self::Closed => "closed",
        })
    }
}

/// Counters since the session began; they only grow.
///
/// ```
/// # use bowline::Stats;
/// assert_eq!(Stats::default().accepted, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Messages accepted from the application.
    pub accepted: u64,
    /// Of these, ended by an acknowledgement on a connection.
    pub delivered_websocket: u64,
    /// Of these, ended by the answer to a request.
    pub delivered_http: u64,
    /// Of these, rejected by the peer or too large.
    pub rejected: u64,
    /// Of these, expired.
    pub expired: u64,
    /// Of these, abandoned.
    pub abandoned: u64,
    /// Data frames given to the adapter.
    pub frames: u64,
    /// Requests given to the adapter.
    pub posts: u64,
    /// Requests that failed, whether the message or the path was to blame.
    pub requests_failed: u64,
    /// Messages sent by HTTP because the connection did not answer in time (F3, F6).
    pub hedges: u64,
    /// Messages handed to the application.
    pub delivered: u64,
    /// Of these, marked `maybe_dup`.
    pub maybe_dup: u64,
    /// Copies that were not handed over.
    pub duplicates: u64,
    /// Messages refused because the inbox was full.
    pub refused: u64,
    /// Ids that came with another payload (I5).
    pub reused: u64,
    /// Frames that were not understood.
    pub malformed: u64,
    /// Acknowledgements of what was never sent (S7).
    pub violations: u64,
    /// Inputs that concerned something that was over.
    pub stale: u64,
    /// Calls with an earlier time than the one before (L6).
    pub clock_backwards: u64,
    /// Gaps in which the process or the machine stood still (L5).
    pub stalls: u64,
    /// Messages forgotten before their time (S12).
    pub horizon_short: u64,
    /// Connections and attempts.
    pub attempts: u64,
}

/// Only the counter that an event follows is hashed: on no other does anything that a session does depend
/// ([`tag`](crate::tag)).
impl Hash for Stats {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.reused.hash(state);
    }
}

/// What belongs to one connection, dropped whole with it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Live {
    link: LinkId,
    beat: Heartbeat,
    writable: bool,
    stall: Timer,
    malformed: u8,
    suspect: bool,
    /// A ping is not answered yet; with [`Proof::Pong`] it is the only one.
    asked: bool,
    /// When it was last heard.
    heard: Instant,
    /// Something was sent that no ping has asked about: the ping is its proof ([`Proof::Pong`]), or `alternates`.
    unasked: bool,
    /// The program died on the connection before this one: messages go one at a time (L12).
    alternates: bool,
}

impl Live {
    /// A ping leaves, and its answer will prove what was sent before. Where it is a proof, a second one never follows an
    /// unanswered first: a peer may answer the last of several alone (RFC 6455, 5.5.3), and nobody could tell which that
    /// was. The answer that is still due serves the second's question too.
    fn ping<P, S: Slots<Slot<P>>>(&mut self, now: Instant, work: Duration, outbox: &mut Outbox<P, S>) -> Option<Next> {
        self.beat.ping_taken(now, outbox.unanswered(), work);
        if self.asked && outbox.proof() == Proof::Pong {
            return None;
        }
        outbox.ask();
        self.unasked = false;
        self.asked = true;
        Some(Next::Ping)
    }
}

/// What the application was last told.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Reported {
    state: State,
    path: Path,
    ended: Option<LinkId>,
    horizon_short: u64,
    reused: u64,
}

/// What one path has to say of itself.
///
/// ```
/// use bowline::{Config, InlineSession, Instant, Origin, Path};
/// let session = InlineSession::<&str, 4>::inline(Config::DEFAULT.check()?, 42, Origin::new(7, 1), Instant::ZERO);
/// assert_eq!(session.path_status(Path::WebSocket).reason, None);
/// # Ok::<(), bowline::ConfigError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PathStatus {
    /// Why the last connection or attempt ended, or the last failed request failed; `None` before the first.
    pub reason: Option<Reason>,
    /// When the next attempt or request may begin; `None` if nothing waits.
    pub next_attempt: Option<Instant>,
    /// Since when the path is blocked: refused by the peer or by something on the way, with nothing useful since (F5, B10);
    /// `None` if it is not.
    pub blocked_since: Option<Instant>,
    /// The smallest payload that the path has called too large, in bytes: it, and what is larger, goes by the other one (F4);
    /// `None` if there is none, or if it is believed no more.
    pub refused_size: Option<u32>,
}

/// Called so much later than it asked for, the process or the machine stood still (L5). It is the lateness that counts, not
/// the gap between two calls, or a tick in between would hide a stall (rule 4).
const STALL: Duration = Duration::from_secs(3);

/// So many gaps in a row are forgiven.
const GAPS: u8 = 3;

/// A session whose storage lies inside it: `N` messages out, `M` remembered.
///
/// ```
/// use bowline::{Config, InlineSession, Instant, Origin};
/// let session = InlineSession::<&str, 4, 16>::inline(Config::DEFAULT.check()?, 42, Origin::new(7, 1), Instant::ZERO);
/// assert_eq!(session.backlog(), 0);
/// # Ok::<(), bowline::ConfigError>(())
/// ```
///
/// Without an allocator a payload of varying length is a `heapless::Vec`:
///
/// ```
/// use bowline::{Config, InlineSession, Instant, Origin, Policy};
/// type Payload = heapless::Vec<u8, 32>;
/// let now = Instant::ZERO;
/// let mut session = InlineSession::<Payload, 4, 16>::inline(Config::DEFAULT.check()?, 42, Origin::new(7, 1), now);
/// session.start(now);
/// let payload = Payload::from_slice(b"{\"nonces\":[3,13]}").unwrap();
/// let size = payload.len() as u32;
/// assert!(session.send(now, payload, size, Policy::DEFAULT).is_ok());
/// assert_eq!(session.backlog(), 1);
/// assert!(size_of_val(&session) < 8 * 1024, "all there is");
/// # Ok::<(), bowline::ConfigError>(())
/// ```
pub type InlineSession<P, const N: usize, const M: usize = 64> = Session<P, [Option<Slot<P>>; N], Fixed<Seen, M>>;

/// A session whose capacities are chosen at run time.
///
/// ```
/// use bowline::{Config, HeapSession, Instant, Origin};
/// let mut config = Config::DEFAULT;
/// config.outbox.capacity = 1000;
/// let session = HeapSession::<String>::heap(config.check()?, 42, Origin::new(7, 1), Instant::ZERO);
/// assert_eq!(session.deadline(), None);
/// # Ok::<(), bowline::ConfigError>(())
/// ```
#[cfg(feature = "alloc")]
pub type HeapSession<P> = Session<P, alloc::vec::Vec<Option<Slot<P>>>, alloc::vec::Vec<Seen>>;

/// One peer's session. See the module for the rules of its surface.
///
/// ```
/// use bowline::{Config, Event, Frame, Head, InlineSession, Instant, Origin, Outcome, Output, Path, Policy};
///
/// let now = Instant::ZERO;
/// let mut session: InlineSession<&str, 4> =
///     InlineSession::inline(Config::DEFAULT.check()?, 42, Origin::new(7, 1), now);
/// session.start(now);
/// let seq = session.send(now, "batch", 5, Policy::DEFAULT).unwrap();
/// let mut sent = None;
/// while let Some(output) = session.poll() {
///     if let Output::Connect { link } = output {
///         sent = Some(link); // dial; then:
///     }
/// }
/// let link = sent.unwrap();
/// assert!(session.link_up(now, link));
/// let mut id_on_the_wire = None;
/// while let Some(output) = session.poll() {
///     if let Output::Frame { frame: Frame::Data { id, payload, .. }, .. } = output {
///         assert_eq!(*payload, "batch");
///         id_on_the_wire = Some(id);
///     }
/// }
/// session.received(now, link, Head::Ack { id: id_on_the_wire.unwrap() });
/// let delivered = Outcome::Delivered { path: Path::WebSocket };
/// let mut told = false;
/// while let Some(output) = session.poll() {
///     told |= matches!(output, Output::Event(Event::Settled { seq: s, outcome, .. }) if s == seq && outcome == delivered);
/// }
/// assert!(told);
/// # Ok::<(), bowline::ConfigError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Session<P, O: Slots<Slot<P>>, I: Store<Seen>> {
    /// For the next connection; the other settings lie with their machines.
    heartbeat: HeartbeatConfig,
    rng: SplitMix64,
    now: Instant,
    link: Link,
    live: Option<Live>,
    /// What is known of the peer's data while there is no connection; one that is live has its own.
    watch: DataWatch,
    /// The peer's program died on the last connection (L12).
    mute: bool,
    /// A connection that takes no frames although it is still greeting.
    full: Option<LinkId>,
    route: Route,
    outbox: Outbox<P, O>,
    inbox: Inbox<I>,
    native: Option<Native>,
    /// As it was before anything was learned (L7).
    interval: Duration,
    closing: bool,
    drain: Timer,
    drained: bool,
    /// Gaps in a row (L5).
    gaps: u8,
    /// The call that is at work came too late for a deadline; never between two calls.
    late: bool,
    /// The last failed request, until it was told.
    failed: Option<(Option<Seq>, Reason)>,
    /// Why the last failed request failed.
    http_reason: Option<Reason>,
    reported: Reported,
    stats: Stats,
}

impl<P, const N: usize, const M: usize> InlineSession<P, N, M> {
    /// A session with its storage inside. `seed` must differ from client to client; the origin is mixed into it (B9).
    pub fn inline(config: Checked, seed: u64, origin: Origin, now: Instant) -> Self {
        const { assert!(N > 0 && M > 0, "a session needs room for a message each way") };
        Self::new(config, seed, origin, now, [const { None }; N], Fixed::new())
    }
}

#[cfg(feature = "alloc")]
impl<P> HeapSession<P> {
    /// A session with the capacities of its configuration; its memory is taken when it is first needed. `seed` must differ
    /// from client to client; the origin is mixed into it (B9).
    #[must_use]
    pub fn heap(config: Checked, seed: u64, origin: Origin, now: Instant) -> Self {
        Self::new(config, seed, origin, now, alloc::vec::Vec::new(), alloc::vec::Vec::new())
    }
}

impl<P, O: Slots<Slot<P>>, I: Store<Seen>> Session<P, O, I> {
    /// A session on storage of the caller's; the smaller of storage and configured capacity counts.
    pub fn new(config: Checked, seed: u64, origin: Origin, now: Instant, outbox: O, inbox: I) -> Self {
        let settings = config.get();
        let names = SplitMix64::for_identity(!seed, origin.identity()).next_u64();
        let mut inbox = Inbox::new(settings.inbox, names, now, inbox);
        let mut outbox = Outbox::new(settings.outbox, origin, outbox);
        if settings.native.is_some() {
            inbox.set_numbered();
            outbox.no_credit();
        }
        Self {
            heartbeat: settings.heartbeat,
            rng: SplitMix64::for_identity(seed, origin.identity()),
            now,
            link: Link::new(settings.link),
            live: None,
            watch: DataWatch::default(),
            mute: false,
            full: None,
            route: Route::new(settings.route),
            outbox,
            inbox,
            native: settings.native.map(Native::new),
            interval: settings.heartbeat.interval,
            closing: false,
            drain: Timer::disarmed(),
            drained: true,
            gaps: 0,
            late: false,
            failed: None,
            http_reason: None,
            reported: Reported { state: State::Idle, path: Path::WebSocket, ended: None, horizon_short: 0, reused: 0 },
            stats: Stats::default(),
        }
    }

    /// Takes one input; the only place where state and time move. What the session wants done comes from
    /// [`poll`](Self::poll); `Reply` is the answer to this input alone.
    pub fn handle(&mut self, now: Instant, input: Input<P>) -> Reply<P> {
        self.enter(now, |session| session.apply(input))
    }

    /// The next thing to do; drain it until `None`. Taking a frame or a post starts its deadlines.
    pub fn poll(&mut self) -> Option<Output<'_, P>> {
        // The last acknowledgement or answer has just been taken: no timer would tell.
        if self.idle() {
            self.finish();
            self.align();
        }
        if let Some((link, ending)) = self.link.take_ending() {
            return Some(Output::Close { link, ending });
        }
        if let Some(link) = self.link.take_refused() {
            return Some(Output::Refuse { link });
        }
        if let Some(link) = self.link.take_connect() {
            return Some(Output::Connect { link });
        }
        if let Some(event) = self.next_event() {
            return Some(Output::Event(event));
        }
        if let Some((request, answer)) = self.inbox.take_answer() {
            return Some(Output::Respond { request, answer });
        }
        if let Some((request, carry)) = self.next_carry() {
            let next = match carry {
                Carry::Data(seq) => Next::Data(seq),
                Carry::Marks => Next::Marks(Beat::None),
                Carry::End => return Some(Output::Respond { request, answer: Answer::Polled }),
            };
            return Some(Output::Carry { request, frame: self.frame(next)? });
        }
        if let Some((link, next)) = self.next_frame() {
            if let Next::Probe = next {
                return Some(Output::Probe { link });
            }
            return Some(Output::Frame { link, frame: self.frame(next)? });
        }
        if let Some((talk, ask)) = self.next_ask() {
            // Both are answered from memory: there is nothing to think about but the wait itself.
            let progress = self.route.timeouts().progress;
            let within = |thinking| HttpTimeouts { progress, thinking };
            return Some(match ask {
                Ask::Greet => Output::Greet { talk, timeouts: within(progress) },
                Ask::Poll(wait) => Output::Poll { talk, wait, timeouts: within(progress.saturating_add(wait)) },
            });
        }
        if self.native.as_ref().is_none_or(Native::greeted)
            && self.route.may_post(self.outbox.posting())
            && !(self.route.http_failing() && self.outbox.posting_first())
            && let all = self.route.path() == Path::Http
            && let Some((post, again)) =
                self.outbox.take_post(self.now, all, self.route.may_repeat(self.outbox.posting()))
        {
            if again {
                self.route.repeats(self.now);
            }
            self.stats.posts = self.stats.posts.saturating_add(1);
            let id = self.outbox.id(post.seq);
            let timeouts = self.route.timeouts();
            return Some(Output::Post { post, id, payload: self.outbox.payload(post.seq)?, timeouts });
        }
        self.drained = true;
        debug_assert!(self.earliest().is_none_or(|(at, _)| at > self.now), "rule 6: {:?}", self.earliest());
        None
    }

    /// When to call again if nothing else happens. `None`: only an input can change anything.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.drained { self.earliest().map(|(at, _)| at) } else { Some(self.now) }
    }

    /// What the deadline is for.
    #[must_use]
    pub fn wake_reason(&self) -> Wake {
        if self.drained { self.earliest().map_or(Wake::Input, |(_, wake)| wake) } else { Wake::Output }
    }

    /// [`Input::Start`].
    pub fn start(&mut self, now: Instant) {
        self.enter(now, Self::on_start);
    }

    /// [`Input::Tick`].
    pub fn tick(&mut self, now: Instant) {
        self.enter(now, |_| {});
    }

    /// [`Input::Accept`].
    pub fn accept(&mut self, now: Instant) -> Accepted {
        self.enter(now, Self::on_accept)
    }

    /// [`Input::LinkUp`]; false: the connection is not wanted any more, drop it.
    #[must_use]
    pub fn link_up(&mut self, now: Instant, link: LinkId) -> bool {
        self.enter(now, |session| session.on_link_up(link))
    }

    /// [`Input::LinkDown`].
    pub fn link_down(&mut self, now: Instant, link: LinkId, reason: Reason, hint: RetryHint) {
        self.enter(now, |session| session.on_link_down(link, reason, hint));
    }

    /// [`Input::Received`]; an arrival for data, `None` for everything else and for a connection that is over.
    pub fn received(&mut self, now: Instant, link: LinkId, head: Head) -> Option<Arrival> {
        match self.enter(now, |session| session.on_received(link, head)) {
            Heard::Arrival(arrival) => Some(arrival),
            Heard::Noted | Heard::Stale => None,
        }
    }

    /// [`Input::Writable`].
    pub fn writable(&mut self, now: Instant, link: LinkId, yes: bool) {
        self.enter(now, |session| session.on_writable(link, yes));
    }

    /// [`Input::Posted`].
    pub fn posted(&mut self, now: Instant, post: PostId, outcome: HttpOutcome) {
        self.enter(now, |session| session.on_posted(post, outcome));
    }

    /// [`Input::Request`].
    pub fn request(
        &mut self,
        now: Instant,
        request: RequestId,
        id: Option<MessageId>,
        key: Option<ContentKey>,
    ) -> Arrival {
        self.enter(now, |session| session.on_request(request, id, key))
    }

    /// [`Input::Confirmed`]; false: it is for nothing that waits for it.
    pub fn confirmed(&mut self, now: Instant, id: MessageId, success: bool) -> bool {
        self.enter(now, |session| session.on_confirmed(id, success))
    }

    /// [`Input::Greeted`].
    pub fn greeted(
        &mut self,
        now: Instant,
        greeting: &Greeting,
        known: Option<ResumeRefusal>,
        http: bool,
    ) -> Option<ResumeRefusal> {
        self.enter(now, |session| session.on_greeting(greeting, known, http))
    }

    /// [`Input::Carried`].
    pub fn carried(&mut self, now: Instant, head: Head) -> Option<Arrival> {
        match self.enter(now, |session| session.on_carried(head)) {
            Heard::Arrival(arrival) => Some(arrival),
            Heard::Noted | Heard::Stale => None,
        }
    }

    /// [`Input::Poll`]; false: too many at once, it is not answered by an output.
    #[must_use]
    pub fn polled(&mut self, now: Instant, request: RequestId, wait: Duration, report: &Report, una: Seq) -> bool {
        self.enter(now, |session| session.on_poll(request, wait, report, una))
    }

    /// [`Input::Advance`].
    pub fn advance(&mut self, now: Instant, una: Seq) {
        self.enter(now, |session| session.on_advance(una));
    }

    /// [`Input::Talked`].
    pub fn talked(&mut self, now: Instant, talk: u32, outcome: HttpOutcome) {
        self.enter(now, |session| {
            let taken = session.on_talked(talk, outcome);
            session.taken(taken)
        });
    }

    /// [`Input::RequestGone`].
    pub fn request_gone(&mut self, now: Instant, request: RequestId) {
        self.enter(now, |session| session.on_request_gone(request));
    }

    /// [`Input::Send`].
    ///
    /// # Errors
    /// Why not, and the payload.
    pub fn send(&mut self, now: Instant, payload: P, size: u32, policy: Policy) -> Result<Seq, (Refusal, P)> {
        self.enter(now, |session| session.on_send(payload, size, policy))
    }

    /// [`Input::Complete`]; false: the message was not open.
    pub fn complete(&mut self, now: Instant, delivery: DeliveryId, verdict: Verdict) -> bool {
        self.enter(now, |session| session.on_complete(delivery, verdict))
    }

    /// [`Input::RetryNow`].
    pub fn retry_now(&mut self, now: Instant) {
        self.enter(now, Self::on_retry_now);
    }

    /// [`Input::StoodStill`].
    pub fn stood_still(&mut self, now: Instant, unseen: Duration) {
        self.enter(now, |session| session.on_stood_still(unseen));
    }

    /// [`Input::Http`].
    pub fn set_http(&mut self, now: Instant, yes: bool) {
        self.enter(now, |session| session.on_http(yes));
    }

    /// [`Input::ExpectData`].
    pub fn expect_data(&mut self, now: Instant, yes: bool) {
        self.enter(now, |session| session.on_expect_data(yes));
    }

    /// [`Input::Close`].
    pub fn close(&mut self, now: Instant, drain: Duration) {
        self.enter(now, |session| session.on_close(drain));
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        match self.link.state() {
            LinkState::Closed => State::Closed,
            LinkState::Failed if self.failed() => State::Failed,
            _ if self.closing => State::Closing,
            LinkState::Up if self.live.as_ref().is_some_and(|live| live.suspect) => State::Suspect,
            LinkState::Up if self.route.may_frame() => State::Up,
            _ if self.route.http_carries() => State::Degraded,
            _ if self.link.suspended() => State::Suspended,
            LinkState::Idle => State::Idle,
            LinkState::Waiting | LinkState::Closing | LinkState::Failed => State::Waiting,
            LinkState::Connecting => State::Connecting,
            LinkState::Handshaking | LinkState::Up => State::Handshaking,
        }
    }

    /// The connection whose frames are listened to.
    #[must_use]
    pub const fn connection(&self) -> Option<LinkId> {
        self.link.listening()
    }

    /// Where traffic goes.
    #[must_use]
    pub const fn path(&self) -> Path {
        self.route.path()
    }

    /// What a path has to say of itself: the last reason, and when it is tried next.
    #[must_use]
    pub fn path_status(&self, path: Path) -> PathStatus {
        match path {
            Path::WebSocket => PathStatus {
                reason: self.link.ended().map(|(_, reason)| reason),
                next_attempt: self.link.next_attempt(),
                blocked_since: self.link.blocked_since(),
                refused_size: self.outbox.refused_size(path),
            },
            Path::Http => PathStatus {
                reason: self.http_reason,
                next_attempt: self.route.next_attempt(),
                blocked_since: self.route.blocked_since(),
                refused_size: self.outbox.refused_size(path),
            },
        }
    }

    /// Messages accepted and not ended.
    #[must_use]
    pub const fn backlog(&self) -> usize {
        self.outbox.backlog()
    }

    /// Whether a message of a fitting size would be accepted now.
    ///
    /// # Errors
    /// Why not.
    pub fn accepts(&self) -> Result<(), Refusal> {
        if self.over() {
            Err(Refusal::Closed)
        } else if self.outbox.has_room() {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    /// Messages at the application.
    #[must_use]
    pub const fn held(&self) -> usize {
        self.inbox.held()
    }

    /// Whether a message that came under this id is remembered, at the application or completed (S11).
    #[must_use]
    pub fn remembers(&self, id: MessageId) -> bool {
        self.inbox.remembers(id)
    }

    /// The counters.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        Stats { attempts: self.link.attempts(), horizon_short: self.inbox.horizon_short(), ..self.stats }
    }

    /// The outbox, to look at.
    #[must_use]
    pub const fn outbox(&self) -> &Outbox<P, O> {
        &self.outbox
    }

    /// The largest time seen.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// What surrounds every input: clamp time, look for a stall, apply, fire, settle. The input comes before the timers:
    /// an answer that arrives together with its deadline is in time.
    fn enter<R>(&mut self, now: Instant, apply: impl FnOnce(&mut Self) -> R) -> R {
        if now < self.now {
            self.stats.clock_backwards = self.stats.clock_backwards.saturating_add(1);
        }
        let now = now.max(self.now);
        let (stalls, due) = (self.stats.stalls, self.earliest().map(|(at, _)| at).filter(|at| *at <= now));
        if due.is_some_and(|at| now.since(at) > STALL) {
            self.late = true;
            self.stalled(now);
        }
        self.now = now;
        let open = (self.route.path(), self.route.may_repeat(self.outbox.posting()));
        let answer = apply(self);
        self.late = false;
        // In time for a deadline, and no gap that another clock shows; a call in between proves nothing.
        if due.is_some() && self.stats.stalls == stalls {
            self.gaps = 0;
        }
        self.fire();
        self.settle();
        // Whatever changed it, the input or a timer: what was passed over on the old path is looked at again.
        if (self.route.path(), self.route.may_repeat(self.outbox.posting())) != open {
            self.outbox.rescan();
        }
        self.drained = false;
        answer
    }

    fn apply(&mut self, input: Input<P>) -> Reply<P> {
        match input {
            Input::Tick => Reply::Done,
            Input::Start => done(self.on_start()),
            Input::Accept => Reply::Accepted(self.on_accept()),
            Input::LinkUp { link } => done(self.on_link_up(link)),
            Input::LinkDown { link, reason, hint } => done(self.on_link_down(link, reason, hint)),
            Input::Received { link, head } => match self.on_received(link, head) {
                Heard::Arrival(arrival) => Reply::Arrival(arrival),
                Heard::Noted => Reply::Done,
                Heard::Stale => Reply::Stale,
            },
            Input::Writable { link, yes } => done(self.on_writable(link, yes)),
            Input::Posted { post, outcome } => done(self.on_posted(post, outcome)),
            Input::Request { request, id, key } => Reply::Arrival(self.on_request(request, id, key)),
            Input::Confirmed { id, success } => done(self.on_confirmed(id, success)),
            Input::Greeted { greeting, known, http } => Reply::Greeted(self.on_greeting(&greeting, known, http)),
            Input::Carried { head } => match self.on_carried(head) {
                Heard::Arrival(arrival) => Reply::Arrival(arrival),
                Heard::Noted => Reply::Done,
                Heard::Stale => Reply::Stale,
            },
            Input::Poll { request, wait, report, una } => done(self.on_poll(request, wait, &report, una)),
            Input::Advance { una } => {
                self.on_advance(una);
                Reply::Done
            }
            Input::Talked { talk, outcome } => {
                let taken = self.on_talked(talk, outcome);
                done(self.taken(taken))
            }
            Input::RequestGone { request } => done(self.on_request_gone(request)),
            Input::Send { payload, size, policy } => match self.on_send(payload, size, policy) {
                Ok(seq) => Reply::Queued(seq),
                Err((why, payload)) => Reply::Refused(why, payload),
            },
            Input::Complete { delivery, verdict } => done(self.on_complete(delivery, verdict)),
            Input::RetryNow => {
                self.on_retry_now();
                Reply::Done
            }
            Input::StoodStill { unseen } => {
                self.on_stood_still(unseen);
                Reply::Done
            }
            Input::Http { yes } => {
                self.on_http(yes);
                Reply::Done
            }
            Input::ExpectData { yes } => {
                self.on_expect_data(yes);
                Reply::Done
            }
            Input::Close { drain } => done(self.on_close(drain)),
        }
    }

    fn on_start(&mut self) -> bool {
        if !self.closing {
            self.link.start(self.now);
            self.route.start(self.now);
        }
        self.taken(!self.closing)
    }

    fn on_accept(&mut self) -> Accepted {
        // A session that closes and owes something waits for this very peer (L13).
        let accepted = if self.finished() { Accepted::Refused } else { self.link.accept(self.now) };
        // A dead one must not hold the door: the next newcomer may find it open (U2).
        if accepted == Accepted::Refused
            && let Some(live) = &mut self.live
        {
            live.beat.probe(self.now, self.outbox.unanswered());
        }
        accepted
    }

    fn on_link_up(&mut self, link: LinkId) -> bool {
        let taken = self.link.on_up(self.now, link);
        self.taken(taken)
    }

    fn on_link_down(&mut self, link: LinkId, reason: Reason, hint: RetryHint) -> bool {
        let taken = self.link.on_down(self.now, link, reason, hint, &mut self.rng);
        self.taken(taken)
    }

    fn on_posted(&mut self, post: PostId, outcome: HttpOutcome) -> bool {
        // A native peer that does not know us is greeted first, but not in a loop (B11); on a connection it has been greeted.
        if outcome.needs_handshake() && self.native.is_some() && self.live.is_none() {
            let outcome = HttpOutcome::Unreached(outcome.reason());
            let taken = self.outbox_posted(post, outcome);
            if taken {
                self.request_ended(Some(post.seq), outcome);
                self.forgotten();
                self.route.posted(self.now, RequestKind::Message, outcome, &mut self.rng);
            }
            return self.taken(taken);
        }
        let taken = self.outbox_posted(post, outcome);
        if taken {
            self.request_ended(Some(post.seq), outcome);
        }
        if taken && !self.finished() {
            self.route.posted(self.now, RequestKind::Message, outcome, &mut self.rng);
            if outcome.class() == HttpClass::TooLarge {
                self.outbox.reject_oversize(self.now, self.route.has_http());
            }
        }
        self.taken(taken)
    }

    /// Keeps why a request failed.
    fn request_ended(&mut self, seq: Option<Seq>, outcome: HttpOutcome) {
        if !self.finished() && !matches!(outcome.class(), HttpClass::Delivered | HttpClass::Rejected) {
            self.stats.requests_failed = self.stats.requests_failed.saturating_add(1);
            self.http_reason = Some(outcome.reason());
            self.failed = Some((seq, outcome.reason()));
        }
    }

    fn outbox_posted(&mut self, post: PostId, outcome: HttpOutcome) -> bool {
        self.outbox.on_posted(self.now, post, outcome, self.route.delays(), &mut self.rng)
    }

    fn on_request(&mut self, request: RequestId, id: Option<MessageId>, key: Option<ContentKey>) -> Arrival {
        // While it finishes, copies of what it has are answered (S6); afterwards nobody is left to wait for.
        let arrival = if self.finished() {
            Arrival::Answer(Answer::Busy { after: Duration::from_secs(1) })
        } else if self.native.is_some() {
            match self.native_seq(id) {
                Some(seq) => self.on_numbered(seq, Some(request)),
                None => Arrival::Answer(Answer::Unknown),
            }
        } else {
            self.inbox.on_request(self.now, request, id, key)
        };
        self.count(arrival)
    }

    fn on_confirmed(&mut self, id: MessageId, success: bool) -> bool {
        let taken = self.outbox.on_confirmed(self.now, id, success) == Ack::Settled;
        self.taken(taken)
    }

    fn on_request_gone(&mut self, request: RequestId) -> bool {
        let taken = self.inbox.request_gone(request) || self.poll_gone(request);
        self.taken(taken)
    }

    fn on_complete(&mut self, delivery: DeliveryId, verdict: Verdict) -> bool {
        let id = self.native.as_ref().and_then(|_| self.inbox.id(delivery));
        let taken = self.inbox.complete(self.now, delivery, verdict);
        if taken {
            self.on_decided(id, verdict);
        }
        self.taken(taken)
    }

    fn on_stood_still(&mut self, unseen: Duration) {
        if !self.late {
            self.stalled(self.now);
        }
        self.link.stood_still(self.now, unseen, &mut self.rng);
    }

    fn on_retry_now(&mut self) {
        self.unlearn(self.interval);
        self.link.retry_now(self.now);
        self.route.retry_now(self.now);
        self.outbox.retry_now(self.now);
        if let Some(live) = &mut self.live {
            live.beat.probe(self.now, self.outbox.unanswered());
        }
    }

    fn on_http(&mut self, yes: bool) {
        self.route.set_http(self.now, yes);
        if yes {
            // Perhaps under another URL, of which nothing is known.
            self.outbox.forget_refused_post();
        } else {
            self.outbox.http_gone();
            self.outbox.reject_oversize(self.now, false);
        }
        self.outbox.rescan();
    }

    fn on_expect_data(&mut self, yes: bool) {
        self.watch.expect_data(yes);
        if let Some(live) = &mut self.live {
            live.beat.expect_data(self.now, yes);
        }
    }

    fn on_close(&mut self, drain: Duration) -> bool {
        let first = !self.closing;
        if first {
            self.closing = true;
            self.inbox.close();
            self.drain.arm(self.now.after(drain));
        }
        self.taken(first)
    }

    fn on_send(&mut self, payload: P, size: u32, policy: Policy) -> Result<Seq, (Refusal, P)> {
        if self.over() {
            return Err((Refusal::Closed, payload));
        }
        if !self.outbox.fits(size, self.route.has_http()) {
            return Err((Refusal::TooLarge, payload));
        }
        let seq = self.outbox.push(self.now, payload, size, policy).map_err(|payload| (Refusal::Full, payload))?;
        self.stats.accepted = self.stats.accepted.saturating_add(1);
        Ok(seq)
    }

    fn on_received(&mut self, link: LinkId, head: Head) -> Heard {
        let now = self.now;
        if self.link.listening() != Some(link) {
            self.taken(false);
            return Heard::Stale;
        }
        let Some(live) = self.live.as_mut().filter(|live| live.link == link) else {
            // Open, but not ready: nothing but the greeting means anything.
            let ready = match head {
                Head::Hello => self.native.is_none(),
                Head::Welcome { greeting, refused } => {
                    if !self.on_welcome(&greeting, refused) {
                        self.breach();
                        return Heard::Noted;
                    }
                    true
                }
                Head::Data { .. }
                | Head::Ack { .. }
                | Head::Reject { .. }
                | Head::Pong
                | Head::Word { .. }
                | Head::Part
                | Head::Numbered { .. }
                | Head::Marks { .. }
                | Head::Nack { .. }
                | Head::Other
                | Head::Malformed => false,
            };
            if ready {
                self.link.on_ready(now);
                // Whoever greets is there: a newcomer that knocked meanwhile is refused.
                self.link.on_heard();
                return Heard::Noted;
            }
            self.taken(false);
            return Heard::Stale;
        };
        live.beat.heard(now);
        if let Some(word) = head.word() {
            live.beat.spoke(now, word);
        }
        live.heard = now;
        live.suspect = false;
        self.link.on_heard();
        self.route.heard(now);
        match head {
            Head::Data { id, key } => {
                self.link.on_useful();
                live.malformed = 0;
                let arrival = self.inbox.on_frame(now, id, key);
                Heard::Arrival(self.count(arrival))
            }
            Head::Ack { id } | Head::Reject { id } => {
                let said = if head == (Head::Reject { id }) {
                    self.outbox.on_reject(now, link, id)
                } else {
                    self.outbox.on_ack(now, link, id)
                };
                match said {
                    Ack::Settled => {
                        self.link.on_useful();
                        live.malformed = 0;
                        self.route.answered(now);
                    }
                    Ack::Unknown => self.route.spoken(now),
                    Ack::NeverSent => self.breach(),
                }
                Heard::Noted
            }
            Head::Numbered { seq, una } => {
                self.link.on_useful();
                live.malformed = 0;
                self.heard_numbered(seq, una)
            }
            Head::Marks { report, una, beat } => {
                let said = self.on_marks(link, &report, una);
                let answered = self.on_beat(beat);
                self.useful(said, answered);
                Heard::Noted
            }
            Head::Nack { seq, nack } => {
                let said = self.on_nack(seq, nack);
                self.useful(said, false);
                Heard::Noted
            }
            // Where the ping is the wire's own, a WebSocket pong answers nothing of ours.
            Head::Pong if matches!(self.heartbeat.program, ProgramLife::Answers(_)) => Heard::Noted,
            Head::Pong | Head::Word { pong: true } => {
                self.link.on_useful();
                if core::mem::take(&mut live.asked) && self.outbox.proved(now) > 0 {
                    self.route.answered(now);
                }
                Heard::Noted
            }
            Head::Word { pong: false } | Head::Part | Head::Hello | Head::Welcome { .. } | Head::Other => Heard::Noted,
            Head::Malformed => {
                self.stats.malformed = self.stats.malformed.saturating_add(1);
                live.malformed = live.malformed.saturating_add(1);
                if live.malformed >= self.link.malformed_limit() {
                    self.link.abort(now, Reason::Violation, &mut self.rng);
                }
                Heard::Noted
            }
        }
    }

    /// A frame came in by HTTP; it is life of no connection.
    fn on_carried(&mut self, head: Head) -> Heard {
        match self.brought(head) {
            Some(Head::Numbered { seq, una }) => self.heard_numbered(seq, una),
            Some(Head::Marks { report, una, .. }) => {
                if self.on_marks(LinkId::NONE, &report, una) == Ack::NeverSent {
                    self.stats.violations = self.stats.violations.saturating_add(1);
                }
                Heard::Noted
            }
            Some(Head::Nack { seq, nack }) => {
                let _ = self.on_nack(seq, nack);
                Heard::Noted
            }
            Some(Head::Welcome { greeting, refused }) => {
                // A connection has its own greeting, which counts.
                if self.live.is_none() && !self.on_welcome(&greeting, refused) {
                    self.stats.violations = self.stats.violations.saturating_add(1);
                }
                Heard::Noted
            }
            Some(_) | None => {
                self.taken(false);
                Heard::Stale
            }
        }
    }

    fn on_advance(&mut self, una: Seq) {
        if self.native.is_some() {
            self.passed(una);
        }
    }

    /// What a native peer's marks came to.
    fn useful(&mut self, said: Ack, answered: bool) {
        match said {
            Ack::Settled => {
                self.link.on_useful();
                if let Some(live) = &mut self.live {
                    live.malformed = 0;
                }
                self.route.answered(self.now);
            }
            Ack::Unknown if answered => self.link.on_useful(),
            Ack::Unknown => {}
            Ack::NeverSent => self.breach(),
        }
    }

    /// The peer has said what cannot be (S7).
    fn breach(&mut self) {
        self.stats.violations = self.stats.violations.saturating_add(1);
        self.link.abort(self.now, Reason::Violation, &mut self.rng);
    }

    fn on_writable(&mut self, link: LinkId, yes: bool) -> bool {
        let Some(live) = self.live.as_mut().filter(|live| live.link == link) else {
            let greeting = self.link.listening() == Some(link);
            if greeting {
                self.full = (!yes).then_some(link);
            }
            return self.taken(greeting);
        };
        if live.writable && !yes {
            live.stall.arm(self.now.after(self.link.write_timeout()));
        } else if yes {
            live.stall.disarm();
        }
        live.beat.writable(self.now, yes);
        live.writable = yes;
        true
    }

    /// Counts what concerned something that was over.
    const fn taken(&mut self, taken: bool) -> bool {
        if !taken {
            self.stats.stale = self.stats.stale.saturating_add(1);
        }
        taken
    }

    fn count(&mut self, arrival: Arrival) -> Arrival {
        let counter = match arrival {
            Arrival::Deliver { maybe_dup, .. } | Arrival::Ahead { maybe_dup, .. } => {
                self.stats.maybe_dup = self.stats.maybe_dup.saturating_add(u64::from(maybe_dup));
                &mut self.stats.delivered
            }
            Arrival::Duplicate | Arrival::Answer(Answer::Done | Answer::Rejected) => &mut self.stats.duplicates,
            Arrival::Answer(Answer::Again { .. } | Answer::Busy { .. } | Answer::Unknown | Answer::Polled)
            | Arrival::Full => &mut self.stats.refused,
            Arrival::Reused | Arrival::Answer(Answer::Reused) => &mut self.stats.reused,
        };
        *counter = counter.saturating_add(1);
        arrival
    }

    /// The process or the machine stood still: no limit may be passed by that gap (L5).
    fn stalled(&mut self, now: Instant) {
        self.stats.stalls = self.stats.stalls.saturating_add(1);
        // But a driver that is late every time is slow, not asleep: it would never find a dead peer, nor end a close.
        self.gaps = self.gaps.saturating_add(1);
        if self.gaps > GAPS {
            return;
        }
        let grace = self.heartbeat.probe;
        let until = now.after(grace);
        self.link.stalled(now, grace);
        self.outbox.stalled(until);
        self.route.stalled(until);
        if let Some(at) = self.drain.at() {
            self.drain.arm(at.max(until));
        }
        if let Some(live) = &mut self.live {
            live.beat.stalled(until);
            if live.stall.is_armed() {
                live.stall.arm(now.after(self.link.write_timeout()));
            }
        }
    }

    fn fire(&mut self) {
        let now = self.now;
        self.link.tick(now, &mut self.rng);
        // The second connection may have the place now; the deadlines of the first one are not its own.
        self.align();
        if let Some(live) = &mut self.live {
            let dead = live.beat.tick(now, &mut self.rng);
            let stalled = live.stall.fire(now);
            let reason = match (dead, stalled) {
                (Some(Dead::Transport), _) => Some(Reason::Dead),
                (_, true) => Some(Reason::Stalled),
                (Some(Dead::Program), _) => Some(Reason::Mute),
                (None, false) => None,
            };
            if let Some(reason) = reason {
                self.mute = reason == Reason::Mute;
                self.link.abort(now, reason, &mut self.rng);
            }
        }
        if self.outbox.tick(now) > 0
            && let Some(live) = &mut self.live
        {
            live.suspect = true;
            // A plain peer that reads in order may be at work on another one, or on this one for longer than its silence is
            // no death, and answers a ping after that.
            let longer = self.outbox.work(true) > self.heartbeat.dead;
            if self.native.is_none() && (self.outbox.awaiting() || longer) {
                live.beat.doubt(now, self.outbox.unanswered());
            } else {
                live.beat.probe(now, self.outbox.unanswered());
            }
            if self.outbox.is_silent() && self.route.unanswered(now) {
                self.outbox.give_up_waits();
            }
        }
        self.inbox.tick(now);
        self.ask_for_returned();
        self.route.tick(now);
        if let Some(native) = &mut self.native {
            native.tick(now);
        }
        if self.drain.fire(now) {
            self.finish();
        }
    }

    /// What belongs to a connection goes and comes with it.
    fn align(&mut self) {
        let now = self.now;
        let current = self.link.current();
        if let Some(live) = &self.live
            && Some(live.link) != current
        {
            let reason = self.link.ended().filter(|(ended, _)| *ended == live.link).map(|(_, reason)| reason);
            let silence = now.since(live.heard);
            self.watch = live.beat.data_watch();
            self.live = None;
            self.learn(reason, silence);
            // Where the ping asks the program, and its answer is all the answer that a message gets, the first message behind
            // which the program fell silent is to blame, however it ends its connection then. The others leave one at a time.
            let fell_silent = self.mute || reason == Some(Reason::Closed(1000));
            let asks = matches!(self.heartbeat.program, ProgramLife::Answers(_)) && self.outbox.proof() == Proof::Pong;
            if fell_silent && asks {
                self.mute |= self.outbox.abandon_late(now);
            }
            self.outbox.on_link_down(reason);
            self.route.link_down(now);
            self.outbox.reject_oversize(now, self.route.has_http());
        }
        if let Some(link) = current
            && self.live.is_none()
        {
            let mut beat = Heartbeat::start(self.heartbeat, self.watch, now, &mut self.rng);
            self.outbox.on_link_up(now);
            if self.route.link_up(now) {
                beat.probe(now, 0);
            }
            let mut stall = Timer::disarmed();
            let writable = self.full.take() != Some(link);
            if !writable {
                beat.writable(now, false);
                stall.arm(now.after(self.link.write_timeout()));
            }
            self.live = Some(Live {
                link,
                beat,
                writable,
                stall,
                malformed: 0,
                suspect: false,
                asked: false,
                heard: now,
                unasked: false,
                alternates: core::mem::take(&mut self.mute),
            });
        }
    }

    /// Brings the machines to agree with each other.
    fn settle(&mut self) {
        let now = self.now;
        self.align();
        if self.link.knocked()
            && let Some(live) = &mut self.live
        {
            live.beat.probe(now, self.outbox.unanswered());
        }
        while self.outbox.may_hedge() && self.route.hedge(now) {
            if !self.outbox.hedge() {
                break;
            }
            self.stats.hedges = self.stats.hedges.saturating_add(1);
        }
        self.outbox.find_stuck(now, self.route.has_http() && !self.route.http_failing());
        // What is awaited would arrive twice: it is waited for, unless nobody answers.
        if self.outbox.out_of_patience() && (!self.outbox.awaiting() || self.outbox.is_silent()) {
            self.link.abort(now, Reason::Unanswered, &mut self.rng);
            self.align();
        }
        if self.failed() {
            self.outbox.abandon(now);
        }
        if self.idle() {
            self.finish();
        }
        self.align();
    }

    /// Whether a close has nothing to wait for any more.
    fn idle(&self) -> bool {
        self.drain.is_armed() && !self.owes()
    }

    /// Whether something that was accepted has not ended: a message of ours, one of the peer's at the application, or the
    /// word about one that is still to be sent (L13).
    pub(crate) fn owes(&self) -> bool {
        self.outbox.backlog() > 0
            || self.inbox.held() > 0
            || self.inbox.owes()
            || self.native.as_ref().is_some_and(Native::owes)
    }

    /// Whether it owes something and its peer may still come for it.
    pub(crate) fn awaits_peer(&self) -> bool {
        self.owes() && !self.finished() && !self.failed()
    }

    /// Takes no new message of the peer's from now on; copies are answered as before (S6, L13).
    pub(crate) const fn take_nothing_new(&mut self) {
        self.inbox.close();
    }

    /// The bounded end of a close: what is unfinished ends, the connection with it.
    fn finish(&mut self) {
        self.drain.disarm();
        self.outbox.abandon(self.now);
        self.inbox.release_waiters();
        self.route.stop();
        self.link.close(self.now);
    }

    /// The close has done what it could; only the close handshake is left, if anything.
    fn finished(&self) -> bool {
        self.closing && !self.drain.is_armed()
    }

    fn over(&self) -> bool {
        self.closing || self.failed()
    }

    /// The connection was given up (B10), or another one has its place (R8): then a plain session goes on by HTTP; a native
    /// one would take the session from that other one.
    fn failed(&self) -> bool {
        let goes_on = self.route.has_http() && self.native.is_none() && self.link.replaced();
        self.link.state() == LinkState::Failed && !goes_on
    }

    /// A frame with what it says.
    fn frame(&self, next: Next) -> Option<Frame<'_, P>> {
        let una = self.outbox.una();
        Some(match next {
            Next::Ack(id) => Frame::Ack { id },
            Next::Ping | Next::Probe => Frame::Ping,
            Next::Keepalive => Frame::Keepalive,
            Next::Data(seq) => Frame::Data { seq, id: self.outbox.id(seq), una, payload: self.outbox.payload(seq)? },
            Next::Marks(beat) => Frame::Marks { report: self.report(), una, beat },
            Next::Nack(seq, after) => Frame::Nack { seq, after },
        })
    }

    fn next_event(&mut self) -> Option<Event> {
        if let Some(Settlement { seq, outcome, took, reason }) = self.outbox.take_settled() {
            let stats = &mut self.stats;
            let counter = match outcome {
                Outcome::Delivered { path: Path::WebSocket } => &mut stats.delivered_websocket,
                Outcome::Delivered { path: Path::Http } => &mut stats.delivered_http,
                Outcome::Rejected(_) => &mut stats.rejected,
                Outcome::Expired => &mut stats.expired,
                Outcome::Abandoned => &mut stats.abandoned,
            };
            *counter = counter.saturating_add(1);
            if let Some(native) = &mut self.native {
                native.ended(outcome);
            }
            return Some(Event::Settled { seq, outcome, took, reason });
        }
        if let Some((link, reason)) = self.link.ended()
            && self.reported.ended != Some(link)
        {
            self.reported.ended = Some(link);
            return Some(Event::Down { link, reason });
        }
        if let Some((seq, reason)) = self.failed.take() {
            return Some(Event::RequestFailed { seq, reason });
        }
        let (from, to) = (self.reported.state, self.state());
        if from != to {
            self.reported.state = to;
            return Some(Event::State { from, to });
        }
        let (from, to) = (self.reported.path, self.route.path());
        if from != to {
            self.reported.path = to;
            return Some(Event::Path { from, to });
        }
        if let Some(event) = self.native_event() {
            return Some(event);
        }
        if let Some(delivery) = self.inbox.take_rejected_but_acked() {
            return Some(Event::RejectedButAcked { delivery });
        }
        let total = self.inbox.horizon_short();
        if self.reported.horizon_short != total {
            self.reported.horizon_short = total;
            return Some(Event::HorizonShort { total });
        }
        let total = self.stats.reused;
        if self.reported.reused != total {
            self.reported.reused = total;
            return Some(Event::IdReused { total });
        }
        None
    }

    fn next_frame(&mut self) -> Option<(LinkId, Next)> {
        let now = self.now;
        let live = self.live.as_mut().filter(|live| live.writable)?;
        // The close handshake has begun: nothing follows a close frame.
        if self.link.current() != Some(live.link) {
            return None;
        }
        if let Some(id) = self.inbox.take_ack() {
            live.beat.data_sent(now);
            return Some((live.link, Next::Ack(id)));
        }
        let link = live.link;
        if let Some(next) = self.next_native() {
            return Some((link, next));
        }
        let live = self.live.as_mut()?;
        if live.beat.probe_due() {
            live.beat.probe_taken(now, self.outbox.unanswered());
            return Some((link, Next::Probe));
        }
        // A native peer reads on while its application works.
        let works = self.native.is_none() && (live.suspect || self.outbox.awaiting());
        let work = if works { self.outbox.work(live.suspect) } else { Duration::ZERO };
        if live.beat.ping_due()
            && let Some(ping) = live.ping(now, work, &mut self.outbox)
        {
            return Some((link, self.next_beat().unwrap_or(ping)));
        }
        // What killed the program once must not do it again: the next message leaves when the last is answered or late, and
        // the program has shown that it lives.
        let holds = live.alternates && (live.beat.asking_program() || self.outbox.awaiting());
        let holds = holds || self.outbox.out_of_patience();
        if (self.route.may_frame() || self.route.may_try())
            && !holds
            && let Some(seq) = self.outbox.take_frame(now, live.link)
        {
            self.route.tried(now);
            live.beat.data_sent(now);
            live.unasked = self.outbox.proof() == Proof::Pong || live.alternates;
            self.stats.frames = self.stats.frames.saturating_add(1);
            return Some((live.link, Next::Data(seq)));
        }
        // One ping asks about all that was sent before it.
        if live.unasked && !live.asked {
            live.beat.ask();
            return live.ping(now, work, &mut self.outbox).map(|ping| (live.link, ping));
        }
        if live.beat.keepalive_due() {
            live.beat.data_sent(now);
            return Some((live.link, Next::Keepalive));
        }
        None
    }
}

/// What became of a frame that came in.
enum Heard {
    Arrival(Arrival),
    Noted,
    Stale,
}

/// A frame before its payload is borrowed.
enum Next {
    Ack(MessageId),
    Ping,
    Probe,
    Keepalive,
    Data(Seq),
    Marks(Beat),
    Nack(Seq, Duration),
}

const fn done<P>(taken: bool) -> Reply<P> {
    if taken { Reply::Done } else { Reply::Stale }
}

impl<P, O: Slots<Slot<P>>, I: Store<Seen>> Timers for Session<P, O, I> {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        self.link.timers(see);
        if let Some(live) = &self.live {
            live.beat.timers(see);
            see(Wake::Stall, &live.stall);
        }
        self.outbox.timers(see);
        self.inbox.timers(see);
        self.route.timers(see);
        if let Some(native) = &self.native {
            native.timers(see);
        }
        see(Wake::Drain, &self.drain);
    }
}

#[cfg(test)]
mod tests;
