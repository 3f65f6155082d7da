//! What an application holds of a session, the same in both adapters, and what an adapter needs to turn it.
//!
//! ```text
//!  application                         Node (shared, locked briefly)                 adapter
//!   send ──▶ Receipt ◀── Settlement ──┐                                  ┌── turn() ─▶ Wait, actions
//!   messages ◀── Message              ├── Engine (session and sockets) ──┤◀─ dialed, accepted, posted
//!     └ complete, reject, retry ─────▶│                                  │◀─ callback
//!   events ◀── Event, status ─────────┘                                  └── woken by every call above
//! ```
//!
//! Invariants: accepting a message is one locked step, so no cancelled future loses one; a message that is dropped
//! without a verdict is given back, and comes again when the peer sends it again; nothing is sent to a channel under the
//! lock; a node that is dropped finishes in the background, for a bounded time.

use crate::channel::Security;
use crate::engine::{ASIDE, Action, Call, Effect, Engine, Sent, Wait};
use crate::explanation::{Excerpt, Explanation};
use crate::http::{Answer, Bytes, Callback, Limits, Posted, Routes, Target};
use crate::setup::{Setup, SetupError};
use crate::wire::{Gonka, Reply, Wire};
use async_channel::{Receiver, Sender};
use bowline::wire::bettensor;
use bowline::wire::canonical::Uncanonical;
use bowline::wire::gonka::{Kind, Malformed};
use bowline::{
    ConfigError, DeliveryId, Event, LinkId, MessageId, Outcome, Path, Policy, Reason, Refusal, RequestId, RetryHint,
    Role, State, Stats, Verdict,
};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// A connected byte stream that never blocks: it answers `WouldBlock` instead.
///
/// ```
/// fn is_one(_: impl bowline_transport::Stream) {}
/// is_one(std::io::Cursor::new(Vec::new())); // anything that reads, writes and can be sent to another thread
/// ```
pub trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// So many events wait for a reader; then the oldest are dropped.
const EVENTS: usize = 256;

/// The end of a message that was accepted.
///
/// ```
/// use bowline::{Outcome, Path};
/// use bowline_transport::Settlement;
/// use core::time::Duration;
/// let took = Duration::from_secs(3);
/// let end = Settlement { outcome: Outcome::Delivered { path: Path::Http }, took, reason: None };
/// assert!(matches!(end.outcome, Outcome::Delivered { .. }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settlement {
    /// How it ended, and by which path.
    pub outcome: Outcome,
    /// Time from acceptance to the end.
    pub took: Duration,
    /// Why it was not delivered; `None` if it was, or nothing tells.
    pub reason: Option<Reason>,
}

/// Something that happened to a session, with what was said about it.
///
/// ```
/// use bowline::{Event, LinkId, Reason};
/// use bowline_transport::{Excerpt, NodeEvent};
/// let event = Event::Down { link: LinkId::NONE.next(), reason: Reason::Closed(1008) };
/// let told = NodeEvent { event, text: Excerpt::new("PoW is not running") };
/// assert_eq!(told.explanation().unwrap().to_string(), "closed with 1008 (PoW is not running)");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeEvent {
    /// What happened.
    pub event: Event,
    /// What the peer, the resolver, the system or TLS said, with [`Event::Down`] and [`Event::RequestFailed`].
    pub text: Option<Excerpt>,
}

impl NodeEvent {
    /// Returns why a connection, an attempt or a request has ended; `None` for every other event.
    #[must_use]
    pub fn explanation(&self) -> Option<Explanation> {
        match self.event {
            Event::Down { reason, .. } | Event::RequestFailed { reason, .. } => {
                Some(Explanation { reason, text: self.text.clone() })
            }
            _ => None,
        }
    }
}

/// The condition of one path: its last failure, its next attempt, and since when it has carried nothing.
///
/// ```
/// # use bowline_transport::{Node, Setup};
/// let http = Node::new(&Setup::ml_node("127.0.0.1:0")?, || ())?.status().http;
/// assert_eq!((http.last, http.next_attempt, http.failing_since), (None, None, None));
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PathReport {
    /// Why the last connection or attempt ended, or the last failed request failed; `None` before the first.
    pub last: Option<Explanation>,
    /// When the next attempt or request may begin; `None` if nothing waits.
    pub next_attempt: Option<std::time::Instant>,
    /// Since when the path has carried nothing although it was tried; `None` while it works, or was not tried.
    pub failing_since: Option<std::time::Instant>,
    /// Since when it is refused, by the peer or by something on the way (rules F5, B10); `None` if it is not.
    pub blocked_since: Option<std::time::Instant>,
    /// The smallest payload that it has called too large, in bytes: it, and what is larger, goes by the other path (rule F4).
    pub refused_size: Option<u32>,
}

/// Why a message was not accepted.
///
/// ```
/// use bowline::Refusal;
/// use bowline_transport::Refused;
/// assert_eq!(Refused::Session(Refusal::Full).to_string(), "the outbox is full");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// By the session: full, too large, closed.
    Session(Refusal),
    /// It is no batch that the peer could take.
    Malformed(Malformed),
    /// This node receives.
    Direction,
    /// It is no data that the validator could confirm: it must be an object with a `prediction_id`.
    Data(bettensor::Malformed),
    /// It is no data that could be signed.
    Uncanonical(Uncanonical),
    /// The type is one of the protocol's own, or no name.
    Kind,
    /// It is nothing that this wire could send, for a reason of its own.
    Invalid(&'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(refusal) => refusal.fmt(f),
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Direction => f.write_str("this node receives batches"),
            Self::Data(malformed) => malformed.fmt(f),
            Self::Uncanonical(why) => why.fmt(f),
            Self::Kind => f.write_str("a message type of the protocol's own, or none"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

/// A message that was not accepted, handed back.
///
/// ```
/// use bowline::wire::gonka::Kind;
/// use bowline::Policy;
/// use bowline_transport::{Node, Refused, Setup};
/// let node = Node::new(&Setup::ml_node("127.0.0.1:0")?, || ())?;
/// let error = node.try_send(&Kind::Generated, "no batch", Policy::DEFAULT).unwrap_err();
/// assert!(matches!(error.why, Refused::Malformed(_)));
/// assert_eq!(&error.json[..], b"no batch");
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SendError {
    /// Why it was not accepted.
    pub why: Refused,
    /// The message.
    pub json: Bytes,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl core::error::Error for SendError {}

/// Where the end of an accepted message will be told.
///
/// ```
/// # use bowline::{Outcome, Policy, wire::gonka::Kind};
/// # use bowline_transport::{Node, Setup};
/// let node = Node::new(&Setup::ml_node("127.0.0.1:0")?, || ())?;
/// let receipt = node.try_send(&Kind::Generated, r#"{"node_id":3}"#, Policy::DEFAULT).unwrap();
/// assert_eq!(receipt.try_settled(), None);
/// node.ended(); // nobody turns it any more
/// assert_eq!(receipt.wait().outcome, Outcome::Abandoned);
/// assert_eq!(receipt.wait().outcome, Outcome::Abandoned, "as often as it is asked");
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
#[derive(Debug)]
pub struct Receipt {
    id: MessageId,
    after: Option<MessageId>,
    end: Receiver<Settlement>,
    known: OnceLock<Settlement>,
    reply: Arc<OnceLock<Reply>>,
}

impl Receipt {
    /// The message's id, as every try on every path carries it.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        self.id
    }

    /// The message that was under way when this one was accepted, and after whose end this one is sent; `None`: it waits for no
    /// other. A miner's messages of one `prediction_id` go one after the other, because a confirmation names nothing else (rule
    /// I7).
    #[must_use]
    pub const fn after(&self) -> Option<MessageId> {
        self.after
    }

    /// Waits for the end without blocking the thread. Cancelling it loses nothing, and it may be asked again.
    pub async fn settled(&self) -> Settlement {
        match self.known.get() {
            Some(known) => *known,
            None => self.learn(self.end.recv().await.ok()),
        }
    }

    /// Waits for the end, blocking the thread.
    #[must_use]
    pub fn wait(&self) -> Settlement {
        match self.known.get() {
            Some(known) => *known,
            None => self.learn(self.end.recv_blocking().ok()),
        }
    }

    /// The end, if it has come.
    #[must_use]
    pub fn try_settled(&self) -> Option<Settlement> {
        if let Ok(settlement) = self.end.try_recv() {
            let _ = self.known.set(settlement);
        }
        self.known.get().copied()
    }

    /// What the peer said about the message, where its protocol has words for it: a confirmation of Bettensor's. It is
    /// there when the end is.
    #[must_use]
    pub fn reply(&self) -> Option<&Reply> {
        self.reply.get()
    }

    /// Without a word from the node it is gone, and nobody will send the message any more.
    fn learn(&self, told: Option<Settlement>) -> Settlement {
        const UNKNOWN: Settlement =
            Settlement { outcome: Outcome::Abandoned, took: Duration::ZERO, reason: Some(Reason::Ours) };
        if let Some(settlement) = told {
            let _ = self.known.set(settlement);
        }
        *self.known.get_or_init(|| UNKNOWN)
    }
}

/// A message for the application; it should end with [`complete`](Self::complete), [`reject`](Self::reject) or
/// [`retry`](Self::retry). Dropped without one of them it counts as `retry`: given back, it comes again when the peer
/// sends it again, at the latest on the next connection.
///
/// ```
/// # use bowline::wire::gonka::Kind;
/// # use bowline_transport::{Node, Setup, http::{Bytes, Callback}};
/// # smol::block_on(async {
/// let node = Node::new(&Setup::api_node("ml:8080")?.callbacks("127.0.0.1:0")?, || ())?;
/// let posted = Callback { body: Bytes::from_static(b"{\"node_id\":3}"), ..Callback::empty("generated") };
/// let answer = node.callback(posted);
/// let application = async {
///     let message = node.messages().recv().await.unwrap();
///     assert_eq!((message.kind(), &message.json()[..]), (Kind::Generated, &b"{\"node_id\":3}"[..]));
///     message.complete()
/// };
/// # let turning = async { loop { node.turn(&mut Vec::new()); smol::future::yield_now().await } };
/// let (answer, completed) = smol::future::or(async { smol::future::zip(answer, application).await }, turning).await;
/// assert!(completed);
/// assert_eq!(answer.status, 200);
/// # Ok::<(), bowline_transport::SetupError>(())
/// # })?;
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
#[must_use = "a batch that is dropped is given back"]
pub struct Message<W: Wire = Gonka> {
    content: W::Incoming,
    delivery: DeliveryId,
    maybe_dup: bool,
    path: Path,
    node: Weak<Node<W>>,
    open: bool,
}

impl Message {
    /// Generated or validated.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.content.kind
    }

    /// The id it came with, if any; for reference alone, an acknowledgement needs nothing of the application's.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.content.id.as_deref()
    }

    /// The batch object, unparsed JSON.
    #[must_use]
    pub const fn json(&self) -> &Bytes {
        &self.content.json
    }
}

#[cfg(feature = "sr25519")]
impl Message<crate::wire::Bettensor> {
    /// Its type: `game_update`, or one of the validator's own.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.content.kind
    }

    /// Its data, a JSON object, unparsed.
    #[must_use]
    pub const fn data(&self) -> &Bytes {
        &self.content.data
    }
}

impl<W: Wire> Message<W> {
    /// What the peer said, as its wire understands it.
    #[must_use]
    pub const fn content(&self) -> &W::Incoming {
        &self.content
    }

    /// By which path its first copy came.
    #[must_use]
    pub const fn path(&self) -> Path {
        self.path
    }

    /// It may have been handled before: by an earlier run, or so long ago that it was forgotten.
    #[must_use]
    pub const fn maybe_dup(&self) -> bool {
        self.maybe_dup
    }

    /// It is processed: acknowledge it. False: the session has ended meanwhile, and the peer may send it again.
    pub fn complete(mut self) -> bool {
        self.decide(Verdict::Done)
    }

    /// It can never be processed; the peer is told what its protocol can say (rule S8). False as for `complete`.
    pub fn reject(mut self) -> bool {
        self.decide(Verdict::Reject)
    }

    /// Not now: the peer may send it again after this, and then it comes again. False as for `complete`.
    pub fn retry(mut self, after: Duration) -> bool {
        self.decide(Verdict::Retry { after })
    }

    fn decide(&mut self, verdict: Verdict) -> bool {
        let open = core::mem::replace(&mut self.open, false);
        open && self.node.upgrade().is_some_and(|node| node.with(|engine| engine.complete(self.delivery, verdict)))
    }
}

impl<W: Wire> Drop for Message<W> {
    fn drop(&mut self) {
        self.decide(Verdict::Retry { after: Duration::ZERO });
    }
}

impl<W: Wire> fmt::Debug for Message<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, bytes) = W::describe(&self.content);
        f.debug_struct("Message")
            .field("kind", &kind)
            .field("bytes", &bytes)
            .field("path", &self.path)
            .field("maybe_dup", &self.maybe_dup)
            .finish_non_exhaustive()
    }
}

/// Where a node stands.
///
/// ```
/// # use bowline_transport::{Node, Setup};
/// let status = Node::new(&Setup::ml_node("127.0.0.1:0")?, || ())?.status();
/// assert_eq!((status.backlog, status.held, status.stats.accepted), (0, 0, 0));
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The session's state.
    pub state: State,
    /// Where traffic goes.
    pub path: Path,
    /// The connection there is, also while traffic goes elsewhere; every new one has a larger id.
    pub connection: Option<LinkId>,
    /// Messages accepted and not ended.
    pub backlog: usize,
    /// Messages at the application.
    pub held: usize,
    /// The condition of the WebSocket.
    pub websocket: PathReport,
    /// The condition of HTTP.
    pub http: PathReport,
    /// Counters since the start.
    pub stats: Stats,
}

/// One session, shared by the application, the adapter that turns it and the HTTP server beside it.
///
/// Applications use the `Node` of an adapter, which wraps this one. An adapter turns it:
///
/// ```
/// use bowline_transport::{Action, Node, Setup};
/// let node = Node::new(&Setup::api_node("127.0.0.1:1")?.seed(7), || { /* wake whoever turns */ })?;
/// let mut actions = Vec::new();
/// let wait = node.turn(&mut actions);
/// assert!(matches!(actions[..], [Action::Dial { .. }]), "and nothing else to do");
/// assert!(wait.until.is_some() && wait.read.is_none() && !wait.over, "an attempt has its deadline");
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
pub struct Node<W: Wire = Gonka> {
    engine: Mutex<Engine<W>>,
    wake: Box<dyn Fn() + Send + Sync>,
    room: event_listener::Event,
    messages: (Sender<Message<W>>, Receiver<Message<W>>),
    events: (Sender<NodeEvent>, Receiver<NodeEvent>),
    me: Weak<Self>,
    url: Option<Target>,
    subprotocol: Option<&'static str>,
    routes: Routes<'static>,
    limits: Limits,
    attempt: Duration,
    security: Security,
    drain: Duration,
    /// What the application has not taken yet is given back, and so is what was just on its way to it.
    closing: AtomicBool,
}

impl<W: Wire> Node<W> {
    /// A node that is turned by whoever `wake` wakes.
    ///
    /// # Errors
    /// A setting makes no sense.
    pub fn new(setup: &Setup<W>, wake: impl Fn() + Send + Sync + 'static) -> Result<Arc<Self>, SetupError> {
        let engine = Engine::new(setup)?;
        setup.http_limits.check()?;
        check_routes(&setup.wire.routes(), setup)?;
        let security = setup.security.clone().for_targets([setup.url.as_ref(), setup.fallback.as_ref()])?;
        // The session lets no more than this be at the application.
        let held = setup.config.inbox.held;
        Ok(Arc::new_cyclic(|me| Self {
            engine: Mutex::new(engine),
            wake: Box::new(wake),
            room: event_listener::Event::new(),
            messages: async_channel::bounded(held.saturating_add(ASIDE)),
            events: async_channel::bounded(EVENTS),
            me: me.clone(),
            url: setup.url.clone(),
            subprotocol: setup.wire.subprotocol(),
            routes: setup.wire.routes(),
            limits: setup.http_limits,
            attempt: setup.config.link.attempt,
            security,
            drain: setup.drain,
            closing: AtomicBool::new(false),
        }))
    }

    /// For the adapter: reads, lets time pass, writes; then the adapter does `actions` and waits.
    pub fn turn(&self, actions: &mut Vec<Action>) -> Wait {
        let wait = self.locked(|engine| {
            let wait = engine.turn();
            actions.append(&mut engine.actions);
            wait
        });
        if wait.over {
            self.messages.0.close();
            self.events.0.close();
            self.room.notify(usize::MAX);
        }
        wait
    }

    /// For the adapter: an attempt ended. True: the connection is wanted.
    pub fn dialed(&self, link: LinkId, dialed: Result<(Box<dyn Stream>, Bytes), (Explanation, RetryHint)>) -> bool {
        self.with(|engine| engine.dialed(link, dialed))
    }

    /// For the adapter: a peer's request became a WebSocket. The id under which it stays, if it does.
    pub fn accepted(&self, stream: Box<dyn Stream>, early: &[u8]) -> Option<LinkId> {
        self.with(|engine| engine.accepted(stream, early))
    }

    /// For the adapter: a request of ours ended.
    pub fn posted(&self, call: Call, posted: &Posted) {
        self.with(|engine| engine.posted(call, posted));
    }

    /// For the adapter: a peer posted a message. The answer comes when the application has decided, or sooner if it is
    /// known or takes too long (rule H2).
    pub async fn callback(&self, callback: Callback) -> Answer {
        let taken = self.with(|engine| engine.callback(&callback));
        drop(callback);
        match taken {
            Err(answer) => answer,
            Ok((request, answer)) => {
                let _gone = Gone { node: self, request };
                answer.recv().await.unwrap_or(Answer::BUSY)
            }
        }
    }

    /// The WebSocket subprotocol to agree on, if there is one.
    #[must_use]
    pub const fn subprotocol(&self) -> Option<&'static str> {
        self.subprotocol
    }

    /// Where to dial, if we do.
    #[must_use]
    pub const fn url(&self) -> Option<&Target> {
        self.url.as_ref()
    }

    /// What to encrypt with.
    #[must_use]
    pub const fn security(&self) -> &Security {
        &self.security
    }

    /// For the adapter: for an attempt to connect, from the name to the upgrade, if the session does not drop it sooner; a
    /// little more than its own limit, so that the session's word comes first.
    #[must_use]
    pub const fn longest_attempt(&self) -> Duration {
        self.attempt.saturating_add(Duration::from_secs(1))
    }

    /// What peers may ask of our listener.
    #[must_use]
    pub const fn routes(&self) -> &Routes<'static> {
        &self.routes
    }

    /// What a visitor of our listener may cost before it is a WebSocket.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Accepts a message, or hands it back at once.
    ///
    /// # Errors
    /// Why not, and the message.
    pub fn try_send(&self, kind: &W::Kind, json: impl Into<Bytes>, policy: Policy) -> Result<Receipt, SendError> {
        let sent = self.with(|engine| engine.send(kind, json.into(), policy));
        sent.map(|Sent { id, after, end, reply }| Receipt { id, after, end, known: OnceLock::new(), reply })
            .map_err(|(why, json)| SendError { why, json })
    }

    /// Accepts a message, waiting for room without blocking the thread. Cancelled before it is accepted, nothing has
    /// happened.
    ///
    /// # Errors
    /// Why it can never be accepted, and the message.
    pub async fn send(&self, kind: &W::Kind, json: impl Into<Bytes>, policy: Policy) -> Result<Receipt, SendError> {
        let mut json = json.into();
        loop {
            let room = self.room.listen();
            match self.try_send(kind, json, policy) {
                Err(SendError { why: Refused::Session(Refusal::Full), json: back }) => json = back,
                sent => return sent,
            }
            room.await;
        }
    }

    /// Accepts a message, blocking the thread until there is room.
    ///
    /// # Errors
    /// Why it can never be accepted, and the message.
    pub fn send_blocking(&self, kind: &W::Kind, json: impl Into<Bytes>, policy: Policy) -> Result<Receipt, SendError> {
        use event_listener::Listener as _;
        let mut json = json.into();
        loop {
            let room = self.room.listen();
            match self.try_send(kind, json, policy) {
                Err(SendError { why: Refused::Session(Refusal::Full), json: back }) => json = back,
                sent => return sent,
            }
            room.wait();
        }
    }

    /// The messages that come in; it ends when the session has ended.
    #[must_use]
    pub const fn messages(&self) -> &Receiver<Message<W>> {
        &self.messages.1
    }

    /// What happens: states, paths, ends of connections. If nobody reads, the oldest of 256 are dropped.
    #[must_use]
    pub const fn events(&self) -> &Receiver<NodeEvent> {
        &self.events.1
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let engine = self.lock();
        Status {
            state: engine.state(),
            path: engine.path(),
            connection: engine.connection(),
            backlog: engine.backlog(),
            held: engine.held(),
            websocket: engine.path_report(Path::WebSocket),
            http: engine.path_report(Path::Http),
            stats: engine.stats(),
        }
    }

    /// Tries now: a waiting attempt begins at once on either path, also after a failure, and what was learned is void (P5).
    /// For a network that has changed, for new credentials, and for a user who does not want to wait.
    pub fn retry_now(&self) {
        self.with(Engine::retry_now);
    }

    /// Tells the session whether the peer has data to send from now on, such as whether proof of compute runs at an ML node.
    /// If it has, a connection that brings no word of the peer's for the profile's limit (Gonka's API node: 60 s) is closed
    /// and dialled again; if it has not, an idle connection stays. Before the first call the first data of the session
    /// decides (rule L10). Profiles without such a limit ignore the call.
    pub fn expect_data(&self, yes: bool) {
        self.with(|engine| engine.expect_data(yes));
    }

    /// Accepts nothing more and finishes what is under way, for `drain` at most; then a close handshake of two seconds at
    /// most. Batches that the application has not taken yet are given back.
    pub fn close(&self, drain: Duration) {
        self.closing.store(true, Ordering::SeqCst);
        self.with(|engine| engine.close(drain));
        self.give_back();
    }

    /// For the adapter: its handle was dropped.
    pub fn dropped(&self) {
        self.close(self.drain);
    }

    /// For the adapter: it turns no more. Whoever still waits for a word gets one.
    pub fn ended(&self) {
        self.locked(Engine::abandon);
        self.messages.0.close();
        self.events.0.close();
        self.give_back();
        self.room.notify(usize::MAX);
    }

    fn give_back(&self) {
        while let Ok(message) = self.messages.1.try_recv() {
            drop(message);
        }
    }

    pub(crate) fn talk(&self, change: impl FnOnce(&mut W) -> Option<Vec<String>>) -> bool {
        self.with(|engine| engine.talk(change))
    }

    pub(crate) fn wire<R>(&self, look: impl FnOnce(&W) -> R) -> R {
        look(&self.lock().wire)
    }

    fn lock(&self) -> MutexGuard<'_, Engine<W>> {
        // A panic under the lock would be ours, in one call; the session itself is never left half-changed.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `step` under the lock, tells its effects without it, and wakes whoever turns.
    fn with<R>(&self, step: impl FnOnce(&mut Engine<W>) -> R) -> R {
        let answer = self.locked(step);
        (self.wake)();
        answer
    }

    fn locked<R>(&self, step: impl FnOnce(&mut Engine<W>) -> R) -> R {
        let mut engine = self.lock();
        let was_full = engine.full_up();
        let answer = step(&mut engine);
        let room = was_full && !engine.full_up();
        // Under the lock, or another thread's next message could overtake this one's (S9). Nothing here waits.
        let effects = core::mem::take(&mut engine.effects);
        let delivers = effects.iter().any(|effect| matches!(effect, Effect::Deliver { .. }));
        let unwanted: Vec<_> = effects.into_iter().filter_map(|effect| self.tell(effect)).collect();
        drop(engine);
        if room {
            self.room.notify(usize::MAX);
        }
        // Dropping it gives it back, which takes the lock.
        drop(unwanted);
        if delivers && self.closing.load(Ordering::SeqCst) {
            self.give_back();
        }
        answer
    }

    /// A message that nobody will read any more comes back.
    fn tell(&self, effect: Effect<W::Incoming>) -> Option<Message<W>> {
        match effect {
            Effect::Deliver { delivery, maybe_dup, path, message: content } => {
                let message = Message { content, delivery, maybe_dup, path, node: self.me.clone(), open: true };
                return self.messages.0.try_send(message).err().map(async_channel::TrySendError::into_inner);
            }
            Effect::Settle { receipt, settlement } => {
                let _ = receipt.try_send(settlement);
            }
            Effect::Answer { request, answer } => {
                let _ = request.try_send(answer);
            }
            Effect::Tell(event) => {
                let _ = self.events.0.force_send(event);
            }
        }
        None
    }
}

/// Refuses routes with which a listener of one peer's could not do its work.
fn check_routes<W: Wire>(routes: &Routes<'_>, setup: &Setup<W>) -> Result<(), ConfigError> {
    let listens = setup.listen.is_some();
    let accepts = setup.config.link.role == Role::Acceptor && setup.url.is_none();
    let rules = [
        (
            !listens || !accepts || !routes.websockets.is_empty(),
            "routes.websockets",
            "nobody could connect to the listener: the wire names no path",
        ),
        (
            !listens || accepts || !routes.callbacks.is_empty(),
            "routes.callbacks",
            "nothing could be posted to the listener: the wire names no path",
        ),
        (!listens || !routes.guarded, "routes.guarded", "only a hub decides before a connection becomes a WebSocket"),
    ];
    match rules.into_iter().find(|(holds, ..)| !holds) {
        Some((_, field, why)) => Err(ConfigError { field, why }),
        None => Ok(()),
    }
}

impl<W: Wire> fmt::Debug for Node<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// A peer's request whose waiting is cancelled leaves the session.
struct Gone<'a, W: Wire> {
    node: &'a Node<W>,
    request: RequestId,
}

impl<W: Wire> Drop for Gone<'_, W> {
    fn drop(&mut self) {
        self.node.with(|engine| engine.request_gone(self.request));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Excerpt;
    use crate::http::HttpAnswer;

    /// A wire whose message is the number of mebibytes that it weighs.
    #[derive(Clone, Debug)]
    struct Heavy;

    impl Wire for Heavy {
        type Kind = ();
        type Outgoing = ();
        type Incoming = usize;

        fn prepare(&mut self, (): &(), _: &Bytes) -> Result<(), Refused> {
            Err(Refused::Kind)
        }

        fn size((): &()) -> usize {
            0
        }

        fn read(&mut self, _: &bowline::wire::KeyedHash, text: &str) -> crate::Heard<usize> {
            crate::Heard::message(None, None, text.parse().unwrap())
        }

        fn write(&mut self, _: bowline::Frame<'_, ()>) -> Option<String> {
            None
        }

        fn is_peers(&self, _: MessageId, answer: &HttpAnswer) -> bool {
            answer.is_marked()
        }

        fn describe(mebibytes: &usize) -> (&str, usize) {
            ("heavy", mebibytes << 20)
        }
    }

    /// What has no room is not looked at, and its sender is to come again; each completion makes room.
    #[test]
    fn g4_so_many_bytes_wait_at_the_application_at_most() {
        let setup = Setup::acceptor("127.0.0.1:0", bowline::Config::DEFAULT, Heavy).unwrap();
        let node = Node::new(&setup, || ()).unwrap();
        let mut posts = 0;
        let mut post = |mebibytes: usize| {
            posts += 1;
            let body = mebibytes.to_string().into();
            let callback = Callback { idempotency_key: Some(posts.to_string()), body, ..Callback::empty("heavy") };
            // One that is taken waits for the application.
            let answer = smol::block_on(smol::future::poll_once(node.callback(callback)));
            answer.map(|answer| (answer.status, answer.retry_after))
        };
        let busy = Some((503, Some(Duration::from_secs(1))));
        assert_eq!([post(257), post(100), post(100), post(57)], [busy, None, None, busy]);
        assert_eq!([post(56), post(1)], [None, busy], "256 MiB are the most");
        let held: Vec<_> = core::iter::from_fn(|| node.messages().try_recv().ok()).collect();
        assert_eq!(held.iter().map(Message::content).copied().collect::<Vec<_>>(), [100, 100, 56]);
        for message in held {
            message.complete();
        }
        assert_eq!([post(256), post(1)], [None, busy]);
    }

    #[test]
    fn e3_what_was_said_comes_with_the_event_and_stays_in_the_status() {
        let setup = Setup::api_node("ws://127.0.0.1:1/?token=open-sesame").unwrap().seed(7);
        let node = Node::new(&setup, || ()).unwrap();
        let mut actions = Vec::new();
        node.turn(&mut actions);
        let Some(Action::Dial { link }) = actions.pop() else { panic!("it dials") };
        let said = Explanation::with(Reason::Status(403), "no open-sesame here");
        node.dialed(link, Err((said, RetryHint::NONE)));
        node.turn(&mut actions);
        let told = core::iter::from_fn(|| node.events().try_recv().ok()).find_map(|told| told.explanation()).unwrap();
        assert_eq!((told.reason, told.text.as_ref().unwrap().as_str()), (Reason::Status(403), "no *** here"));
        let status = node.status().websocket;
        assert_eq!(status.last, Some(told));
        assert!(status.failing_since.is_some() && status.next_attempt.is_some());
    }

    #[cfg(unix)]
    #[test]
    fn l14_a_machine_that_was_suspended_asks_with_its_next_turn_and_looks_at_its_clocks_soon() {
        use std::io::Read as _;
        let node = Node::new(&Setup::api_node("ws://127.0.0.1:1").unwrap().seed(7), || ()).unwrap();
        let mut actions = Vec::new();
        node.turn(&mut actions);
        let Some(Action::Dial { link }) = actions.pop() else { panic!("it dials") };
        let (ours, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
        for socket in [&ours, &peer] {
            socket.set_nonblocking(true).unwrap();
        }
        assert!(node.dialed(link, Ok((Box::new(ours), Bytes::new()))));
        let wait = node.turn(&mut actions);
        let soon = std::time::Instant::now() + Duration::from_secs(5);
        assert!(wait.until.is_some_and(|until| until <= soon), "whatever is due later");
        let mut bytes = [0; 64];
        assert!(peer.read(&mut bytes).is_err(), "its first ping comes within 20 s");
        node.with(|engine| engine.standstill.suspended(Duration::from_secs(600)));
        node.turn(&mut actions);
        assert_eq!((peer.read(&mut bytes).unwrap(), bytes[0]), (6, 0x89), "a ping");
        assert_eq!(node.status().stats.stalls, 1);
        node.turn(&mut actions);
        assert!(peer.read(&mut bytes).is_err(), "once");
    }

    #[test]
    fn e3_a_failed_request_is_told_and_a_message_that_was_abandoned_says_why() {
        let setup = Setup::ml_node("127.0.0.1:0").unwrap().fallback("http://127.0.0.1:1").unwrap();
        let node = Node::new(&setup.configure(|config| config.route.grace = Duration::ZERO), || ()).unwrap();
        let receipt = node.try_send(&Kind::Generated, r#"{"node_id":3}"#, Policy::DEFAULT).unwrap();
        let mut actions = Vec::new();
        while actions.is_empty() {
            node.turn(&mut actions);
        }
        let Some(Action::Post { call, .. }) = actions.pop() else { panic!("it posts") };
        node.posted(call, &Posted::Unreached(Explanation::with(Reason::NoSuchName, "no such host")));
        node.turn(&mut actions);
        let told = core::iter::from_fn(|| node.events().try_recv().ok()).find_map(|told| told.explanation()).unwrap();
        assert_eq!(told.to_string(), "no such name: check the name in the URL (no such host)");
        assert_eq!(node.status().http.last, Some(told));
        node.close(Duration::ZERO);
        node.turn(&mut actions);
        assert_eq!(receipt.wait().reason, Some(Reason::NoSuchName));
    }

    #[test]
    fn e3_each_failed_request_is_told_with_its_own_text_and_no_success_takes_that_away() {
        let setup = Setup::ml_node("127.0.0.1:0").unwrap().fallback("http://127.0.0.1:1").unwrap();
        let setup = setup.configure(|config| {
            config.route.grace = Duration::ZERO;
            config.route.posts = 4;
        });
        let node = Node::new(&setup, || ()).unwrap();
        for n in 0..4 {
            node.try_send(&Kind::Generated, format!(r#"{{"node_id":{n}}}"#), Policy::DEFAULT).unwrap();
        }
        let mut actions = Vec::new();
        while actions.len() < 4 {
            node.turn(&mut actions);
        }
        let mut calls = actions.drain(..).map(|action| {
            let Action::Post { call, .. } = action else { panic!("it posts") };
            call
        });
        let answer = |status, body: &str| Posted::Answered(HttpAnswer::new(status, body.to_owned()));
        // All within one turn: two with the same status, and a success between and behind.
        for (status, body) in [(403, "the first"), (200, ""), (403, "the second"), (200, "")] {
            node.posted(calls.next().unwrap(), &answer(status, body));
        }
        node.turn(&mut Vec::new());
        let told: Vec<_> = core::iter::from_fn(|| node.events().try_recv().ok())
            .filter(|told| matches!(told.event, Event::RequestFailed { .. }))
            .map(|told| told.explanation().unwrap())
            .collect();
        let texts: Vec<_> = told.iter().filter_map(|why| why.text.as_ref()).map(Excerpt::as_str).collect();
        assert_eq!(texts, ["the first", "the second"]);
        assert_eq!((told.len(), node.status().http.last.as_ref()), (2, told.last()));
    }
}
