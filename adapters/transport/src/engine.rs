//! One session and its sockets, turned by whoever waits for them: everything that both adapters do, and nothing that
//! waits.
//!
//! ```text
//!               ┌────────────────────────── Engine ──────────────────────────┐
//!  application ─▶ send, complete                                              │
//!  adapter ─────▶ dialed, accepted, posted ──▶ Session ──▶ frames ──▶ Socket ─▶ network
//!  HTTP server ─▶ callback                        │                           │
//!               │         turn: read all, tick, drain, write once             │
//!               └──────────┬─────────────────────┬───────────────────────────┘
//!                      Action: Dial, Drop, Post   Effect: delivery, settlement, answer, event
//! ```
//!
//! It decides nothing about the session, and what frames say is the [`Wire`]'s. What it does decide: how many bytes may
//! wait at the application, and that what is told is told in its order, without waiting.
//!
//! Invariants: sockets are read before time moves; at most one data frame waits in a socket; every request that was taken
//! is answered; every accepted message's receipt is settled; nothing here blocks.

use crate::clock::{Clock, Standstill};
use crate::explanation::{Excerpt, Explanation};
use crate::http::{Answer, Bytes, Callback, HttpAnswer, Posted, Target};
use crate::node::{NodeEvent, PathReport, Refused, Settlement, Stream};
use crate::setup::{Setup, SetupError, random_key};
use crate::socket::{Incoming, Socket, Wrote};
use crate::wire::{Heard, Question, Reply, Wire};
use async_channel::{Receiver, Sender};
use bowline::wire::KeyedHash;
use bowline::{
    Accepted, Arrival, ConfigError, DeliveryId, Ending, Event, Head, HeapSession, HttpClass, HttpOutcome, HttpTimeouts,
    LinkId, MessageId, Origin, Outcome, Output, Path, Policy, PostId, Reason, Refusal, RequestId, RetryHint, Role, Seq,
    State, Stats, Verdict,
};
use core::fmt;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use tungstenite::Message;
use tungstenite::protocol::Role as Side;

/// So many frames are read in one turn before the others get theirs.
const FRAMES_A_TURN: usize = 64;

/// So many bytes, and the frame that exceeds them, are read in one turn: all is done under the lock.
const BYTES_A_TURN: usize = 1 << 20;

/// So many bytes of batches may be at the application, or on their way to it; further ones are refused as if the inbox
/// were full. Four of the largest.
const HELD_BYTES: usize = 256 << 20;

/// So many messages without a verdict may be at the application; further ones are not delivered.
pub(crate) const ASIDE: usize = 256;

/// HTTP is wanted, and no fallback URL is set.
const NO_FALLBACK: HttpOutcome = HttpOutcome::Unreached(Reason::Limit("setup.fallback"));

/// What the adapter should do.
///
/// ```
/// use bowline::LinkId;
/// use bowline_transport::Action;
/// let action = Action::Dial { link: LinkId::NONE.next() };
/// assert!(matches!(action, Action::Dial { .. }));
/// ```
pub enum Action {
    /// Connect to the peer and report by [`Node::dialed`](crate::Node::dialed).
    Dial {
        /// The attempt.
        link: LinkId,
    },
    /// Forget this attempt or connection.
    Drop {
        /// The connection or attempt.
        link: LinkId,
    },
    /// Post and report by [`Node::posted`](crate::Node::posted).
    Post {
        /// The call.
        call: Call,
        /// Where to.
        target: Target,
        /// Headers beside the usual ones: the `Idempotency-Key` of a message, and what the wire adds.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: Bytes,
        /// How many bytes of the answer's body may hold the peer's word.
        read: usize,
        /// How long it may take (rule H10).
        timeouts: HttpTimeouts,
    },
}

impl fmt::Debug for Action {
    /// Without the headers and the body: they hold tokens and what is nobody else's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial { link } => f.debug_struct("Dial").field("link", link).finish(),
            Self::Drop { link } => f.debug_struct("Drop").field("link", link).finish(),
            Self::Post { call, target, .. } => {
                f.debug_struct("Post").field("call", call).field("target", target).finish_non_exhaustive()
            }
        }
    }
}

/// A request of ours.
///
/// ```
/// use bowline_transport::Call;
/// assert_ne!(Call::Talk(1), Call::Talk(2));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Call {
    /// It carries a message.
    Message(PostId),
    /// A native session greets or polls.
    Talk(u32),
}

/// What the adapter should wait for after a turn.
///
/// ```
/// # use bowline_transport::{Node, Setup};
/// let listening = Node::new(&Setup::ml_node("127.0.0.1:0")?, || ())?;
/// let wait = listening.turn(&mut Vec::new());
/// assert!(!wait.over && !wait.write);
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Turn again at this time at the latest; `None`: only an event can change anything.
    pub until: Option<std::time::Instant>,
    /// Turn again when this connection can be read.
    pub read: Option<LinkId>,
    /// … and when it can be written.
    pub write: bool,
    /// There will be no further turn: the session is closed.
    pub over: bool,
}

/// What the application or a peer is told, once the lock is gone.
pub(crate) enum Effect<T> {
    Deliver { delivery: DeliveryId, maybe_dup: bool, path: Path, message: T },
    Settle { receipt: Sender<Settlement>, settlement: Settlement },
    Answer { request: Sender<Answer>, answer: Answer },
    Tell(NodeEvent),
}

/// Who waits for the end of a message, and the peer's words about it.
struct Pending {
    end: Sender<Settlement>,
    reply: Arc<OnceLock<Reply>>,
}

/// A message that came before one that is missing (S9).
struct Waiting<T> {
    maybe_dup: bool,
    path: Path,
    message: T,
}

/// A message that was accepted: its id, that of the message it waits for, and where its end and the peer's words will be.
pub(crate) struct Sent {
    pub(crate) id: MessageId,
    pub(crate) after: Option<MessageId>,
    pub(crate) end: Receiver<Settlement>,
    pub(crate) reply: Arc<OnceLock<Reply>>,
}

/// What the adapter knows of a path beside the session.
#[derive(Default)]
struct PathRecord {
    /// What was said at its last end, until the session tells of that.
    said: Option<Explanation>,
    last: Option<Explanation>,
    failing_since: Option<std::time::Instant>,
}

impl PathRecord {
    /// The session tells why it failed; what was said then, if that is the reason.
    fn failed(&mut self, reason: Reason) -> Option<Excerpt> {
        let text = self.said.take().filter(|said| said.reason == reason).and_then(|said| said.text);
        self.last = Some(Explanation { reason, text: text.clone() });
        if reason != Reason::Ours {
            self.failing_since.get_or_insert_with(std::time::Instant::now);
        }
        text
    }
}

pub(crate) struct Engine<W: Wire> {
    clock: Clock,
    pub(crate) standstill: Standstill,
    session: HeapSession<W::Outgoing>,
    pub(crate) wire: W,
    names: KeyedHash,
    origin: Origin,
    fallback: Option<Target>,
    socket: Option<Socket>,
    /// A newcomer that waits for the verdict about the holder of the place; not read until it has it.
    candidate: Option<Socket>,
    /// Over which span this connection's peer wants its clients to come back.
    window: Duration,
    /// And how long they should wait before.
    after: Duration,
    receipts: BTreeMap<Seq, Pending>,
    requests: BTreeMap<RequestId, Sender<Answer>>,
    last_request: u64,
    held: BTreeMap<DeliveryId, usize>,
    held_bytes: usize,
    /// Messages that came before their turn.
    ahead: BTreeMap<DeliveryId, Waiting<W::Incoming>>,
    /// Deliveries that the session knows nothing of, and the number of the last.
    aside: BTreeSet<DeliveryId>,
    last_aside: u64,
    /// One of them could not be delivered, and the wire was not told that there is room again.
    crowded: bool,
    /// What a peer knows to say by HTTP what became of us is no word about the session while a connection holds.
    native: bool,
    websocket: PathRecord,
    http: PathRecord,
    /// The secrets of a URL: its query, and the values in it.
    url_secrets: Vec<String>,
    outbound_limit: usize,
    pub(crate) actions: Vec<Action>,
    pub(crate) effects: Vec<Effect<W::Incoming>>,
}

impl<W: Wire> Engine<W> {
    pub(crate) fn new(setup: &Setup<W>) -> Result<Self, SetupError> {
        let config = setup.config.check()?;
        let needs = match setup.config.link.role {
            Role::Dialer => setup.url.is_some(),
            // One that has a URL all the same was told not to dial it.
            Role::Acceptor => setup.listen.is_some() || setup.url.is_some(),
        };
        if !needs {
            let why = "a dialer needs a URL, an acceptor an address to listen on";
            return Err(ConfigError { field: "link.role", why }.into());
        }
        let clock = Clock::start();
        let now = clock.now();
        let origin = setup.origin();
        let mut session = HeapSession::heap(config, setup.seed_or_random(), origin, now);
        session.start(now);
        Ok(Self {
            clock,
            standstill: Standstill::new(),
            session,
            names: KeyedHash::new(random_key()),
            wire: setup.wire.clone(),
            origin,
            fallback: setup.fallback.clone(),
            socket: None,
            candidate: None,
            window: Duration::ZERO,
            after: Duration::ZERO,
            receipts: BTreeMap::new(),
            requests: BTreeMap::new(),
            last_request: 0,
            held: BTreeMap::new(),
            held_bytes: 0,
            ahead: BTreeMap::new(),
            aside: BTreeSet::new(),
            last_aside: u64::MAX,
            crowded: false,
            native: setup.config.native.is_some(),
            websocket: PathRecord::default(),
            http: PathRecord::default(),
            url_secrets: setup.url.iter().flat_map(query_secrets).collect(),
            outbound_limit: usize::try_from(setup.config.outbox.frame_limit).unwrap_or(usize::MAX),
            actions: Vec::new(),
            effects: Vec::new(),
        })
    }

    /// Reads all there is, lets time pass, does all there is to do, writes once.
    pub(crate) fn turn(&mut self) -> Wait {
        let stood_still = self.standstill.look();
        let stalls = self.session.stats().stalls;
        let moving = self.resume();
        let more = self.read();
        match stood_still {
            // Unless the session has noticed it by what was read.
            Some(unseen) if self.session.stats().stalls == stalls => {
                self.session.stood_still(self.clock.now(), unseen);
            }
            Some(_) | None => self.session.tick(self.clock.now()),
        }
        if let Some(link) = moving {
            self.session.writable(self.clock.now(), link, false);
        }
        loop {
            self.drain();
            if !self.flush() {
                break;
            }
        }
        let over = self.session.state() == State::Closed;
        let due = if more { Some(self.session.now()) } else { self.session.deadline() };
        Wait {
            until: self.standstill.plan(due.and_then(|at| self.clock.system(at))),
            read: self.socket.as_ref().map(|socket| socket.link),
            write: self.socket.as_ref().is_some_and(|socket| socket.blocked),
            over,
        }
    }

    pub(crate) fn send(&mut self, kind: &W::Kind, body: Bytes, policy: Policy) -> Result<Sent, (Refused, Bytes)> {
        // Before the message is looked at: who waits for room asks again and again.
        if let Err(why) = self.session.accepts() {
            return Err((Refused::Session(why), body));
        }
        let outgoing = match self.wire.prepare(kind, &body) {
            Ok(outgoing) => outgoing,
            Err(why) => return Err((why, body)),
        };
        let size = u32::try_from(W::size(&outgoing)).unwrap_or(u32::MAX);
        let after = self.wire.after(&outgoing);
        let policy = Policy { after: after.and_then(|id| self.origin.seq_of(id)).unwrap_or(policy.after), ..policy };
        match self.session.send(self.clock.now(), outgoing, size, policy) {
            Ok(seq) => {
                let (end, receiver) = async_channel::bounded(1);
                let reply = Arc::<OnceLock<Reply>>::default();
                self.receipts.insert(seq, Pending { end, reply: Arc::clone(&reply) });
                let id = self.origin.message(seq);
                if let Some(outgoing) = self.session.outbox().payload(seq) {
                    self.wire.accepted(id, outgoing);
                }
                Ok(Sent { id, after, end: receiver, reply })
            }
            Err((why, _)) => Err((Refused::Session(why), body)),
        }
    }

    pub(crate) fn complete(&mut self, delivery: DeliveryId, verdict: Verdict) -> bool {
        if let Some(bytes) = self.held.remove(&delivery) {
            self.held_bytes = self.held_bytes.saturating_sub(bytes);
        }
        let over = self.session.state() == State::Closed;
        if self.aside.remove(&delivery) {
            if self.aside.len() <= ASIDE / 2 && core::mem::take(&mut self.crowded) {
                let said = self.wire.room();
                self.say(said);
            }
            return !over;
        }
        self.session.complete(self.clock.now(), delivery, verdict) && !over
    }

    /// True: the connection is wanted and will be read.
    pub(crate) fn dialed(
        &mut self,
        link: LinkId,
        dialed: Result<(Box<dyn Stream>, Bytes), (Explanation, RetryHint)>,
    ) -> bool {
        let now = self.clock.now();
        match dialed {
            Ok((stream, early)) => {
                let wanted = self.session.link_up(now, link);
                if wanted {
                    self.socket = Some(self.socket(link, stream, &early, Side::Client));
                    (self.window, self.after) = (Duration::ZERO, Duration::ZERO);
                    let greeting = self.session.greeting(true);
                    if let Some(first) = self.wire.hello(&greeting) {
                        self.write(Message::text(first));
                    }
                }
                wanted
            }
            Err((why, hint)) => {
                let reason = why.reason;
                self.websocket.said = Some(self.shown(why));
                self.session.link_down(now, link, reason, hint);
                false
            }
        }
    }

    /// The connection's id, if it may stay.
    pub(crate) fn accepted(&mut self, stream: Box<dyn Stream>, early: &[u8]) -> Option<LinkId> {
        let accepted = self.session.accept(self.clock.now());
        match accepted {
            Accepted::Open(link) => {
                self.socket = Some(self.socket(link, stream, early, Side::Server));
                Some(link)
            }
            Accepted::Probing(link) => {
                self.candidate = Some(self.socket(link, stream, early, Side::Server));
                Some(link)
            }
            Accepted::Refused => {
                let socket = self.socket(LinkId::NONE, stream, early, Side::Server);
                let (code, reason) = W::TAKEN;
                socket.turn_away(code, reason);
                None
            }
        }
    }

    pub(crate) fn posted(&mut self, call: Call, posted: &Posted) {
        let outcome = match posted {
            // Its token may be an older one than that of the connection, which is there.
            Posted::Answered(answer)
                if self.native && self.session.connection().is_some() && answer.outcome(true).needs_handshake() =>
            {
                HttpOutcome::Unreached(answer.outcome(true).reason())
            }
            Posted::Answered(answer) => answer.outcome(match call {
                Call::Message(post) => self.is_peers(self.origin.message(post.seq), answer),
                // The body of a refusal says why.
                Call::Talk(_) => {
                    let seen = answer.outcome(true);
                    let word = seen.class() == HttpClass::Delivered || seen.needs_handshake();
                    word && self.carried(&answer.body)
                }
            }),
            Posted::Unreached(_) | Posted::Unknown(_) => posted.outcome(false),
        };
        if matches!(outcome.class(), HttpClass::Delivered | HttpClass::Rejected) {
            self.http.failing_since = None;
        } else {
            self.http.said = Some(self.shown(Explanation { reason: outcome.reason(), text: posted.text() }));
        }
        match call {
            Call::Message(post) => self.session.posted(self.clock.now(), post, outcome),
            Call::Talk(talk) => self.session.talked(self.clock.now(), talk, outcome),
        }
        // Each failure is told before the next, with its own text.
        self.drain();
    }

    /// The same explanation without secrets.
    fn shown(&self, why: Explanation) -> Explanation {
        if why.text.is_none() {
            return why;
        }
        let mut secrets = self.wire.secrets();
        secrets.extend_from_slice(&self.url_secrets);
        why.without(&secrets)
    }

    /// Whether the answer to a message's POST is the peer's own word (rule H8); if so, what it says besides is heard.
    fn is_peers(&mut self, id: MessageId, answer: &HttpAnswer) -> bool {
        if !self.wire.is_peers(id, answer) {
            return false;
        }
        if self.native && answer.outcome(true).class() == HttpClass::Delivered {
            self.carried(&answer.body);
        }
        if let Some(reply) = self.wire.posted(id, answer) {
            let success = reply.success;
            self.reply(id, reply);
            // A rejection by 200: the message ends by the word, the request by its status.
            if !success {
                self.session.confirmed(self.clock.now(), id, false);
            }
        }
        true
    }

    /// The answer, or the place where it will be.
    pub(crate) fn callback(&mut self, callback: &Callback) -> Result<(RequestId, Receiver<Answer>), Answer> {
        let heard = self.wire.request(&self.names, callback)?;
        let (id, key, message) = match (heard.head, heard.message) {
            (Some(Head::Data { id, key }), Some(message)) => (id, key, message),
            (Some(head @ (Head::Ack { id } | Head::Reject { id })), _) => {
                if let Some(reply) = heard.reply {
                    self.reply(id, reply);
                }
                self.session.confirmed(self.clock.now(), id, head == Head::Ack { id });
                return Err(self.wire.answer(bowline::Answer::Done));
            }
            _ => return Err(self.wire.answer(bowline::Answer::Done)),
        };
        if self.full(W::describe(&message).1) {
            return Err(self.wire.answer(bowline::Answer::Busy { after: Duration::from_secs(1) }));
        }
        self.last_request = self.last_request.saturating_add(1);
        let request = RequestId(self.last_request);
        match self.session.request(self.clock.now(), request, id, key) {
            Arrival::Answer(known) => return Err(self.wire.answer(known)),
            Arrival::Full | Arrival::Reused => return Err(Answer::BUSY),
            Arrival::Duplicate => {}
            Arrival::Deliver { delivery, maybe_dup } => self.deliver(delivery, maybe_dup, Path::Http, message),
            // Only numbered messages have a turn.
            Arrival::Ahead { .. } => return Err(Answer::BUSY),
        }
        let (sender, receiver) = async_channel::bounded(1);
        self.requests.insert(request, sender);
        Ok((request, receiver))
    }

    pub(crate) fn request_gone(&mut self, request: RequestId) {
        if self.requests.remove(&request).is_some() {
            self.session.request_gone(self.clock.now(), request);
        }
    }

    pub(crate) fn expect_data(&mut self, yes: bool) {
        self.session.expect_data(self.clock.now(), yes);
    }

    pub(crate) fn retry_now(&mut self) {
        self.session.retry_now(self.clock.now());
    }

    /// Gives back what waits for its turn.
    fn let_go(&mut self) {
        for delivery in core::mem::take(&mut self.ahead).into_keys() {
            let _ = self.session.complete(self.clock.now(), delivery, Verdict::Retry { after: Duration::ZERO });
        }
    }

    pub(crate) fn close(&mut self, drain: Duration) {
        self.let_go();
        self.session.close(self.clock.now(), drain);
    }

    /// Tells the wire something of the application's, and sends what follows.
    pub(crate) fn talk(&mut self, change: impl FnOnce(&mut W) -> Option<Vec<String>>) -> bool {
        let said = change(&mut self.wire);
        let taken = said.is_some();
        self.say(said.unwrap_or_default());
        taken
    }

    /// Nobody will turn it any more: whoever still waits for a word gets one.
    pub(crate) fn abandon(&mut self) {
        // From now on everything is refused; whatever the session still has to say, nobody will do.
        self.session.close(self.clock.now(), Duration::ZERO);
        self.requests.clear();
        self.ahead.clear();
        let settlement = Settlement { outcome: Outcome::Abandoned, took: Duration::ZERO, reason: Some(Reason::Ours) };
        for pending in core::mem::take(&mut self.receipts).into_values() {
            self.effects.push(Effect::Settle { receipt: pending.end, settlement });
        }
    }

    /// Whether whoever waits for room would wait longer.
    pub(crate) fn full_up(&self) -> bool {
        self.session.accepts() == Err(Refusal::Full)
    }

    pub(crate) const fn stats(&self) -> Stats {
        self.session.stats()
    }

    pub(crate) fn state(&self) -> State {
        self.session.state()
    }

    pub(crate) const fn path(&self) -> Path {
        self.session.path()
    }

    pub(crate) const fn connection(&self) -> Option<LinkId> {
        self.session.connection()
    }

    pub(crate) const fn backlog(&self) -> usize {
        self.session.backlog()
    }

    pub(crate) const fn held(&self) -> usize {
        self.session.held()
    }

    fn socket(&self, link: LinkId, stream: Box<dyn Stream>, early: &[u8], side: Side) -> Socket {
        Socket::new(link, stream, early, side, self.wire.longest_frame(), self.outbound_limit)
    }

    /// Writes what waits, before time moves: the system calls a socket writable only when a good part of its buffer is
    /// free, which with a slow reader may take longer than a write may stand still. The connection that took bytes and
    /// has to wait again; its deadline is disarmed until the session is told so.
    fn resume(&mut self) -> Option<LinkId> {
        let socket = self.socket.as_mut().filter(|socket| socket.blocked)?;
        let wrote = socket.flush();
        let (link, moved) = (socket.link, socket.moved());
        match wrote {
            Wrote::Done => socket.blocked = false,
            Wrote::Blocked if moved => {}
            // What the peer said last may still lie there to be read.
            Wrote::Blocked | Wrote::Ended(_) => return None,
        }
        self.session.writable(self.session.now(), link, true);
        self.socket.as_ref().filter(|socket| socket.blocked).map(|socket| socket.link)
    }

    /// True: there may be more.
    fn read(&mut self) -> bool {
        let mut bytes = 0_usize;
        for _ in 0..FRAMES_A_TURN {
            if bytes > BYTES_A_TURN {
                return true;
            }
            let Some(socket) = &mut self.socket else { return false };
            let link = socket.link;
            let head = match socket.read(self.wire.reads_binary()) {
                Incoming::Text(text) => {
                    bytes = bytes.saturating_add(text.as_str().len());
                    self.text(link, text.as_str());
                    continue;
                }
                // No text, or of a wire that has none in binary frames.
                Incoming::Binary => Head::Malformed,
                Incoming::Ping => Head::Other,
                Incoming::Pong => Head::Pong,
                Incoming::Part => {
                    let _ = self.session.received(self.clock.now(), link, Head::Part);
                    return false;
                }
                Incoming::Nothing => return false,
                Incoming::Ended(why, after) => {
                    self.lost(why, after);
                    return false;
                }
            };
            let _ = self.session.received(self.clock.now(), link, head);
        }
        true
    }

    fn text(&mut self, link: LinkId, text: &str) {
        let Heard { greeting, head, message, reply, say, after, window, stranger } = self.wire.read(&self.names, text);
        let now = self.clock.now();
        if let Some(signer) = stranger {
            if let Some(socket) = &mut self.socket {
                socket.close(1008, "signed by another than expected");
            }
            return self.lost(Explanation::with(Reason::Signer, signer), Duration::ZERO);
        }
        if greeting {
            let _ = self.session.received(now, link, Head::Hello);
        }
        self.window = window.unwrap_or(self.window);
        self.after = after.unwrap_or(self.after);
        self.say(say);
        match (head, message) {
            (Some(head @ Head::Numbered { .. }), Some(message)) => {
                let arrival = self.session.received(now, link, head);
                self.arrived(arrival, Path::WebSocket, message);
            }
            (Some(head @ Head::Data { id, .. }), Some(message)) if !self.full(W::describe(&message).1) => {
                let arrival = self.session.received(now, link, head);
                if let (Some(Arrival::Deliver { .. } | Arrival::Duplicate), Some(id)) = (arrival, id) {
                    self.wire.noted(id, &message);
                }
                if let Some(Arrival::Deliver { .. } | Arrival::Duplicate) = arrival {
                    self.wire.delivered(&message);
                }
                if let Some(Arrival::Deliver { delivery, maybe_dup }) = arrival {
                    self.deliver(delivery, maybe_dup, Path::WebSocket, message);
                }
            }
            // There is no room for it; it is the peer's word all the same.
            (Some(Head::Data { .. }), _) => {
                let _ = self.session.received(now, link, Head::Word { pong: false });
            }
            (Some(head), Some(message)) => {
                let _ = self.session.received(now, link, head);
                self.deliver_aside(message);
            }
            (Some(head), None) => {
                match (head, reply) {
                    (Head::Ack { id } | Head::Reject { id }, Some(reply)) => self.reply(id, reply),
                    (Head::Nack { seq, .. }, Some(reply)) => self.reply(self.origin.message(seq), reply),
                    _ => {}
                }
                let _ = self.session.received(now, link, head);
                // An application that keeps more than half and waits for the next one would wait for ever.
                let pong = matches!(head, Head::Word { pong: true } | Head::Marks { beat: bowline::Beat::Pong(_), .. });
                if pong && self.aside.len() < ASIDE && core::mem::take(&mut self.crowded) {
                    let said = self.wire.room();
                    self.say(said);
                }
            }
            (None, _) => {}
        }
    }

    /// Keeps the peer's words for whoever holds the receipt; the first ones stay.
    fn reply(&mut self, id: MessageId, reply: Reply) {
        if let Some(pending) = self.origin.seq_of(id).and_then(|seq| self.receipts.get(&seq)) {
            let _ = pending.reply.set(reply);
        }
    }

    /// What the frames in the answer to a request say. False: it is no such answer.
    fn carried(&mut self, body: &Bytes) -> bool {
        let Some(heard) = self.wire.carried(body) else { return false };
        for Heard { head, message, .. } in heard {
            let now = self.clock.now();
            let arrival = head.and_then(|head| self.session.carried(now, head));
            match (head, message) {
                (Some(Head::Numbered { .. }), Some(message)) => self.arrived(arrival, Path::Http, message),
                (_, Some(message)) => self.deliver_aside(message),
                (_, None) => {}
            }
        }
        true
    }

    /// A numbered message is the application's now, or when it is its turn, or it is a copy.
    fn arrived(&mut self, arrival: Option<Arrival>, path: Path, message: W::Incoming) {
        match arrival {
            Some(Arrival::Deliver { delivery, maybe_dup }) => self.deliver(delivery, maybe_dup, path, message),
            Some(Arrival::Ahead { delivery, maybe_dup }) => {
                self.ahead.insert(delivery, Waiting { maybe_dup, path, message });
            }
            Some(Arrival::Duplicate | Arrival::Answer(_) | Arrival::Full | Arrival::Reused) | None => {}
        }
    }

    /// A message that the session knows nothing of.
    fn deliver_aside(&mut self, message: W::Incoming) {
        if self.aside.len() >= ASIDE || self.full(W::describe(&message).1) {
            self.crowded = true;
            return;
        }
        self.wire.delivered(&message);
        let delivery = DeliveryId::from_number(self.last_aside);
        self.last_aside = self.last_aside.saturating_sub(1);
        self.aside.insert(delivery);
        self.deliver(delivery, false, Path::WebSocket, message);
    }

    /// A peer that asks and does not read gets no answers, and nothing piles up.
    fn say(&mut self, said: Vec<String>) {
        for text in said {
            if self.socket.as_ref().is_some_and(|socket| !socket.blocked && !socket.closed()) {
                self.write(Message::text(text));
            }
        }
    }

    fn deliver(&mut self, delivery: DeliveryId, maybe_dup: bool, path: Path, message: W::Incoming) {
        let bytes = W::describe(&message).1;
        self.held_bytes = self.held_bytes.saturating_add(bytes);
        self.held.insert(delivery, bytes);
        self.effects.push(Effect::Deliver { delivery, maybe_dup, path, message });
    }

    fn full(&self, more: usize) -> bool {
        self.held_bytes.saturating_add(more) > HELD_BYTES
    }

    fn lost(&mut self, why: Explanation, after: Duration) {
        if let Some(socket) = self.socket.take() {
            let reason = why.reason;
            self.websocket.said = Some(self.shown(why));
            self.actions.push(Action::Drop { link: socket.link });
            self.session.link_down(
                self.clock.now(),
                socket.link,
                reason,
                RetryHint { after: after.max(self.after), window: self.window },
            );
        }
    }

    fn drain(&mut self) {
        loop {
            // A newcomer whose holder did not answer has the place now.
            if self.candidate.as_ref().is_some_and(|candidate| Some(candidate.link) == self.session.connection()) {
                self.socket = self.candidate.take();
            }
            let una = if self.native { self.session.outbox().una() } else { Seq::FIRST };
            let Some(output) = self.session.poll() else { return };
            let message = match output {
                Output::Close { link, ending } => {
                    self.end(link, ending);
                    continue;
                }
                Output::Refuse { link } => {
                    if let Some(candidate) = self.candidate.take_if(|candidate| candidate.link == link) {
                        let (code, reason) = W::TAKEN;
                        candidate.turn_away(code, reason);
                        self.actions.push(Action::Drop { link });
                    }
                    continue;
                }
                Output::Connect { link } => {
                    self.actions.push(Action::Dial { link });
                    continue;
                }
                Output::Event(event) => {
                    self.event(event);
                    continue;
                }
                Output::Respond { request, answer: said } => {
                    if let Some(request) = self.requests.remove(&request) {
                        self.effects.push(Effect::Answer { request, answer: self.wire.answer(said) });
                    }
                    continue;
                }
                Output::Post { post, id, payload, timeouts } => {
                    match &self.fallback {
                        Some(fallback) => {
                            let (target, body, read) = self.wire.post(fallback, post.seq, una, id, payload);
                            let mut headers = self.wire.headers();
                            headers.push(("idempotency-key", id.to_string()));
                            let call = Call::Message(post);
                            self.actions.push(Action::Post { call, target, headers, body, read, timeouts });
                        }
                        None => self.session.posted(self.clock.now(), post, NO_FALLBACK),
                    }
                    continue;
                }
                Output::Greet { talk, timeouts } => {
                    let greeting = self.session.greeting(true);
                    self.ask(talk, Question::Greet(greeting), timeouts);
                    continue;
                }
                Output::Poll { talk, wait, timeouts } => {
                    let report = self.session.report();
                    self.ask(talk, Question::Poll { report, una, wait }, timeouts);
                    continue;
                }
                // Only a hub is polled.
                Output::Carry { .. } => continue,
                Output::Probe { .. } => Message::Ping(Bytes::new()),
                Output::Frame { frame, .. } => match self.wire.write(frame) {
                    Some(text) => Message::text(text),
                    None => Message::Ping(Bytes::new()),
                },
            };
            self.write(message);
        }
    }

    /// A question of the session's by HTTP; where there is nobody to be asked it has its answer at once.
    fn ask(&mut self, talk: u32, question: Question, timeouts: HttpTimeouts) {
        let call = Call::Talk(talk);
        match self.fallback.as_ref().and_then(|fallback| self.wire.ask(fallback, question)) {
            Some((target, body, read)) => {
                // A greeting shows its token itself, and needs none to be let in.
                let headers = if matches!(question, Question::Greet(_)) { Vec::new() } else { self.wire.headers() };
                self.actions.push(Action::Post { call, target, headers, body, read, timeouts });
            }
            None => self.session.talked(self.clock.now(), talk, NO_FALLBACK),
        }
    }

    fn write(&mut self, message: Message) {
        let Some(socket) = &mut self.socket else { return };
        match socket.write(message) {
            Wrote::Done => {}
            Wrote::Blocked => self.blocked(),
            Wrote::Ended(why) => self.lost(why, Duration::ZERO),
        }
    }

    /// True: the session may have more to say now.
    fn flush(&mut self) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        match socket.flush() {
            Wrote::Done => {
                let was_blocked = core::mem::replace(&mut socket.blocked, false);
                if was_blocked {
                    let link = socket.link;
                    self.session.writable(self.clock.now(), link, true);
                }
                was_blocked
            }
            Wrote::Blocked => {
                let moved = socket.moved();
                let (link, was_blocked) = (socket.link, socket.blocked);
                if was_blocked && moved {
                    // It takes bytes, if slowly: the deadline of the write begins anew.
                    self.session.writable(self.clock.now(), link, true);
                    self.session.writable(self.clock.now(), link, false);
                }
                self.blocked();
                !was_blocked || moved
            }
            Wrote::Ended(why) => {
                self.lost(why, Duration::ZERO);
                true
            }
        }
    }

    fn blocked(&mut self) {
        if let Some(socket) = &mut self.socket
            && !socket.blocked
        {
            socket.blocked = true;
            let link = socket.link;
            self.session.writable(self.clock.now(), link, false);
        }
    }

    fn end(&mut self, link: LinkId, ending: Ending) {
        match ending {
            Ending::Code(code) => {
                if let Some(socket) = self.socket.as_mut().filter(|socket| socket.link <= link) {
                    socket.close(code, "");
                }
            }
            Ending::Drop => {
                for held in [&mut self.socket, &mut self.candidate] {
                    if let Some(socket) = held.take_if(|socket| socket.link < link) {
                        self.actions.push(Action::Drop { link: socket.link });
                    }
                    held.take_if(|socket| socket.link == link);
                }
                self.actions.push(Action::Drop { link });
            }
        }
    }

    fn event(&mut self, event: Event) {
        if let Event::Settled { seq, outcome, took, reason } = event {
            self.wire.settled(self.origin.message(seq));
            if let Some(Pending { end: receipt, .. }) = self.receipts.remove(&seq) {
                let reason = reason.or_else(|| self.reason_of(outcome));
                self.effects.push(Effect::Settle { receipt, settlement: Settlement { outcome, took, reason } });
            }
        } else if let Event::Turn { delivery } = event {
            if let Some(Waiting { maybe_dup, path, message }) = self.ahead.remove(&delivery) {
                self.deliver(delivery, maybe_dup, path, message);
            }
        } else {
            if let Event::Gap { to: None, .. } = event {
                // The turn of a former sender's messages never comes.
                self.let_go();
            }
            let text = match event {
                Event::Down { reason, .. } => self.websocket.failed(reason),
                Event::RequestFailed { reason, .. } => self.http.failed(reason),
                Event::State { to: State::Up, .. } => {
                    self.websocket.failing_since = None;
                    None
                }
                _ => None,
            };
            self.effects.push(Effect::Tell(NodeEvent { event, text }));
        }
    }

    /// Why a message that was never tried ended so, as far as its path tells.
    fn reason_of(&self, outcome: Outcome) -> Option<Reason> {
        let path = |path| self.session.path_status(path).reason;
        match outcome {
            Outcome::Delivered { .. } | Outcome::Rejected(_) => None,
            Outcome::Expired | Outcome::Abandoned => path(self.session.path()).or_else(|| path(Path::WebSocket)),
        }
    }

    /// The report of one path.
    pub(crate) fn path_report(&self, path: Path) -> PathReport {
        let record = match path {
            Path::WebSocket => &self.websocket,
            Path::Http => &self.http,
        };
        let status = self.session.path_status(path);
        // The event that clears it may still be under way.
        let works = path == Path::WebSocket && self.session.state() == State::Up;
        PathReport {
            last: record.last.clone(),
            next_attempt: status.next_attempt.and_then(|at| self.clock.system(at)),
            failing_since: record.failing_since.filter(|_| !works),
            blocked_since: status.blocked_since.and_then(|at| self.clock.system(at)),
            refused_size: status.refused_size,
        }
    }
}

/// The query of a URL, and the values in it.
fn query_secrets(url: &Target) -> Vec<String> {
    let query = url.path().split_once('?').map_or("", |(_, query)| query);
    let values = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value);
    values.chain([query]).map(str::to_owned).collect()
}
