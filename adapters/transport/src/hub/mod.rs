//! Many peers on one port: the hub's machine, its sockets and its HTTP, for whatever adapter waits for them.
//!
//! ```text
//!            adapter                        Hub (shared)                      application
//!  GET /ws ─▶ request ──admit──▶ connect ─┐
//!  101     ─▶ accepted ─▶ Line            │ Engine, one mutex:
//!  readable ▶ readable(line) ─ read,      │ machine, lines by place,     handlers ─▶ desks ─▶ complete
//!               decode, verify, no lock ─▶│ confirmations, receipts      messages ◀─ Delivery
//!  writable ▶ writable(line) ────────────▶│                              send, publish ─▶
//!  POST    ─▶ request ─ verify ──────────▶│ drain, flush what was        events ◀─
//!  time    ─▶ turn ──────────────────────▶│ touched, once each (no lock)
//!                                         └─▶ Actions: Run, Watch, Post, Drop, Wake    after the lock is gone
//! ```
//!
//! Frames are read and what is signed in them is verified with the line's lock alone, and what they say is applied in one
//! step for all that one read brought; what has to be written to one line leaves in one write. A broadcast is encoded
//! once and copied into every line by the publisher; the adapter's next turn writes what was sent and published since
//! the last, each line once, and only a line that is full gets somebody who waits for it. What
//! frames say is the affair of a [`HubWire`]: [`Validator`](HubSetup::validator) is Bettensor's, with the feature
//! `sr25519`; [`Village`](HubSetup::village) is AI Village's.
//!
//! Invariants: the engine's lock is taken before a line's, and neither while anything of the application's runs; an
//! unauthenticated line is not read beyond its first frame; nothing waits without a limit; every request that was taken is
//! answered.
//! Field bugs (wire facts 2.10): confirmations that wait for a heartbeat (1), a burst that kills the sender (2), a
//! reconnect that unregisters (3), one result for many ids (6), replays (7), heartbeats answered by errors (8).

mod desk;
mod engine;
mod forgers;
mod line;
mod message;
mod metrics;
mod native;
mod questions;
mod request;
mod setup;
mod tell_limit;
mod types;
#[cfg(feature = "sr25519")]
mod validator;
mod village;
mod wire;

pub use line::{Line, Reading};
pub use message::{Delivery, Message};
pub use metrics::Counters;
pub use native::Caller;
pub use request::Visit;
pub use setup::{Admission, HubSetup};
pub use types::{Action, Event, Receipt, Refused, SessionInfo};
#[cfg(feature = "sr25519")]
pub use validator::{Confirmation, Proof, Validator};
pub use village::{EventFrames, Name, Village};
pub use wire::{Claim, Complaint, Content, Farewell, Gap, Heard, HubWire, Letter, Misread, Said, Text, Wish};

use crate::channel::Security;
use crate::clock::Clock;
use crate::http::{Limits, Posted, Target};
use crate::node::Stream;
use crate::setup::{SetupError, random_key};
use async_channel::{Receiver, Sender};
use async_lock::Semaphore;
use bowline::hub::{
    ConnId, Health, HubConfig, HubStats, Publish, Sent, SessionId, Start, TopicFilter, TopicHealth, TopicName,
};
use bowline::wire::KeyedHash;
use bowline::{Policy, PostId, Reason, Refusal};
use core::borrow::Borrow;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use desk::Desks;
use engine::{Effect, Engine, Parcel};
use forgers::Forgers;
use message::{Ticket, Verdict};
use native::Call;
use questions::Questions;
use request::Paths;
use setup::{Authorize, Handler};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// So many events wait for a reader; then the oldest are dropped.
const EVENTS: usize = 256;

/// So many messages without a handler wait for a reader; further ones are given back.
const MESSAGES: usize = 1024;

/// So many newcomers are at `authorize` at once, by whatever path they came, and as many who are known and asked about
/// again.
const DECIDING: usize = 64;

/// The longest type of a message.
const LONGEST_KIND: usize = bowline::wire::MAX_ID;

/// Both ends of a channel.
type Pipe<T> = (Sender<T>, Receiver<T>);

/// The hub, shared by the application and the adapter that waits for its sockets.
///
/// Applications use the `Hub` of an adapter, which wraps this one.
pub struct Hub<W: HubWire> {
    engine: Mutex<Engine<W>>,
    clock: Clock,
    wire: Arc<W>,
    security: Security,
    names: KeyedHash,
    authorize: Authorize<W::Peer>,
    native: Option<Call>,
    routes: Paths,
    handlers: BTreeMap<String, Handler<W>>,
    desks: Desks<W>,
    forgers: Forgers,
    deciding: Semaphore,
    /// For whoever is known already: no newcomer is in its way.
    renewing: Semaphore,
    questions: Questions<W::Peer>,
    /// Somebody reads what no handler was named for.
    wanted: Arc<AtomicBool>,
    messages: Pipe<Delivery<W>>,
    events: Pipe<Event<W::Peer>>,
    act: Box<dyn Fn(Action<W>) + Send + Sync>,
    me: Weak<Self>,
    websocket: bool,
    over: AtomicBool,
    drained: event_listener::Event,
    most_hello: Duration,
    /// What peers are told to spread their return over.
    window: Duration,
    /// No frame is longer: a peer's library would end the connection.
    longest: usize,
    /// What a request may take; how long its body may be follows from the wire.
    http_limits: Limits,
    /// How long an answer may take.
    longest_answer: Duration,
}

impl<W: HubWire> Hub<W> {
    /// For the adapter: what to encrypt with.
    #[must_use]
    pub const fn security(&self) -> &Security {
        &self.security
    }

    /// A hub whose actions are done by `act`, which must not call it back from the same call.
    ///
    /// # Errors
    /// A setting makes no sense.
    pub fn new(setup: HubSetup<W>, act: impl Fn(Action<W>) + Send + Sync + 'static) -> Result<Arc<Self>, SetupError> {
        let authorize = setup.decider()?;
        let clock = Clock::start();
        let names = KeyedHash::new(random_key());
        let security = setup.security.clone();
        #[cfg(feature = "tls")]
        let security = security.for_any_target()?;
        Paths::check(&setup.wire.routes(), setup.websocket, setup.native.is_some())?;
        setup.http_limits.check()?;
        let routes = Paths::new(setup.wire.routes(), setup.pages, setup.native.is_some());
        let wire = Arc::new(setup.wire);
        let wanted = Arc::new(AtomicBool::new(false));
        let takes = {
            let (wanted, kinds) = (Arc::clone(&wanted), setup.handlers.keys().cloned().collect::<BTreeSet<_>>());
            Box::new(move |kind: &str| wanted.load(Ordering::Relaxed) || kinds.contains(kind))
        };
        let engine = Engine::new(
            setup.config,
            crate::setup::origin(setup.identity.as_deref(), setup.epoch),
            setup.seed,
            clock,
            Arc::clone(&wire),
            names.clone(),
            takes,
        )?;
        Ok(Arc::new_cyclic(|me| Self {
            engine: Mutex::new(engine),
            clock,
            wire,
            security,
            names,
            authorize,
            native: setup.native,
            routes,
            desks: Desks::new(setup.at_once),
            forgers: Forgers::default(),
            handlers: setup.handlers,
            deciding: Semaphore::new(DECIDING),
            renewing: Semaphore::new(DECIDING),
            questions: Questions::new(),
            wanted,
            messages: async_channel::bounded(MESSAGES),
            events: async_channel::bounded(EVENTS),
            act: Box::new(act),
            me: me.clone(),
            websocket: setup.websocket,
            over: AtomicBool::new(false),
            drained: event_listener::Event::new(),
            most_hello: setup.config.hello,
            window: setup.config.reconnect_window,
            longest: usize::try_from(setup.config.session.outbox.frame_limit).unwrap_or(usize::MAX),
            http_limits: setup.http_limits,
            longest_answer: longest_answer(&setup.config),
        }))
    }

    pub(self) fn wire(&self) -> &W {
        &self.wire
    }

    pub(self) const fn names(&self) -> &KeyedHash {
        &self.names
    }

    /// For the adapter: lets time pass. When to call again if nothing else happens.
    pub fn turn(&self) -> Option<std::time::Instant> {
        self.with(Engine::tick)
    }

    /// For the adapter: the connection that [`request`](Self::request) let in is a WebSocket now. `None`: it is not wanted
    /// any more.
    pub fn accepted(&self, conn: ConnId, stream: Box<dyn Stream>, early: &[u8]) -> Option<Arc<Line<W>>> {
        self.with(|engine| engine.accepted(conn, stream, early))
    }

    /// For the adapter: a connection that was let in did not become a WebSocket.
    pub fn vanished(&self, conn: ConnId) {
        self.with(|engine| engine.lost(conn, Reason::Closed(1006).into()));
    }

    /// For the adapter: a line that was full can be written. False: nobody needs to wait for it any more.
    pub fn writable(&self, line: &Arc<Line<W>>) -> bool {
        self.with(|engine| engine.writable(line))
    }

    /// For the adapter: a request of ours ended.
    pub fn posted(&self, session: SessionId, post: PostId, posted: &Posted) {
        self.with(|engine| engine.posted(session, post, posted));
    }

    /// Sends a message to one peer, connected or not: it is kept for as long as the session lives, and posted if there is
    /// no connection and the peer takes messages by HTTP.
    ///
    /// # Errors
    /// Why not.
    pub fn send(&self, peer: impl Borrow<W::Peer>, kind: &str, data: &str) -> Result<Receipt, Refused> {
        let parcel = self.parcel(kind, data)?;
        self.with_turn(|engine| engine.send(peer.borrow(), parcel, Policy::DEFAULT)).map(Receipt)
    }

    /// Makes a session for a peer that is known by other means, so that messages can be sent to it before it has ever
    /// been connected.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn adopt(&self, peer: impl Borrow<W::Peer>, receiver: Option<Target>) -> Result<(), Refused> {
        self.with(|engine| engine.adopt(peer.borrow(), receiver)).map_err(|_| Refused::Full)
    }

    /// Sends to every connected peer; while too few are connected, also by HTTP to those that take it.
    ///
    /// # Errors
    /// Why not.
    pub fn publish(&self, kind: &str, data: &str, how: Publish) -> Result<Sent, Refused> {
        self.publish_to(kind, data, how, |_| true)
    }

    /// Sends to every peer for which `to` says so. It is asked under the hub's lock: it must not call the hub.
    ///
    /// # Errors
    /// Why not.
    pub fn publish_to(
        &self,
        kind: &str,
        data: &str,
        how: Publish,
        to: impl FnMut(&W::Peer) -> bool,
    ) -> Result<Sent, Refused> {
        let parcel = self.parcel(kind, data)?;
        if parcel.size() > self.longest {
            return Err(Refused::Session(Refusal::TooLarge));
        }
        Ok(self.with_turn(|engine| engine.publish(&parcel, how, to)))
    }

    /// Publishes on a topic: to every subscriber, and to its history for those who are behind, away, or come later and ask
    /// for it.
    ///
    /// # Errors
    /// Why not.
    pub fn publish_topic(&self, topic: &str, kind: &str, data: &str) -> Result<Sent, Refused> {
        let topic = TopicName::new(topic).map_err(Refused::Topic)?;
        let parcel = self.parcel(kind, data)?;
        if parcel.size() > self.longest {
            return Err(Refused::Session(Refusal::TooLarge));
        }
        self.wire().published(kind, data);
        Ok(self.with_turn(|engine| engine.publish_topic(&topic, parcel)))
    }

    /// Subscribes a peer that has a session to a topic, or with a wildcard to several, as it could itself. How many there
    /// are now.
    ///
    /// # Errors
    /// Why not.
    pub fn subscribe(&self, peer: impl Borrow<W::Peer>, topics: &str, start: Start) -> Result<u32, Refused> {
        let filter = TopicFilter::new(topics).map_err(Refused::Topic)?;
        self.with(|engine| engine.subscribe(peer.borrow(), &filter, start))
    }

    /// Takes such a subscription back. False: there was none.
    pub fn unsubscribe(&self, peer: impl Borrow<W::Peer>, topics: &str) -> bool {
        let Ok(filter) = TopicFilter::new(topics) else { return false };
        self.with(|engine| engine.unsubscribe(peer.borrow(), &filter))
    }

    /// Every topic there is.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicHealth> {
        self.lock().topics()
    }

    /// The messages of types without a handler. From the first call on they are taken; before, they are answered with
    /// an error.
    pub fn messages(&self) -> &Receiver<Delivery<W>> {
        self.wanted.store(true, Ordering::Relaxed);
        &self.messages.1
    }

    /// What happens. If nobody reads, the oldest of 256 are dropped.
    #[must_use]
    pub const fn events(&self) -> &Receiver<Event<W::Peer>> {
        &self.events.1
    }

    /// How it stands.
    #[must_use]
    pub fn health(&self) -> Health {
        self.lock().health()
    }

    /// The machine's counters.
    #[must_use]
    pub fn stats(&self) -> HubStats {
        self.lock().stats()
    }

    /// The adapter's counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.lock().counters.clone()
    }

    /// Everything that is counted, in the text format of Prometheus.
    #[must_use]
    pub fn metrics(&self) -> String {
        let engine = self.lock();
        metrics::text(&engine.health(), &engine.stats(), &engine.counters)
    }

    /// Every session there is.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo<W::Peer>> {
        self.lock().sessions()
    }

    /// Does not want this peer any more: its connection is closed with 1008, what it was to get is abandoned. False: it
    /// has no session. If `authorize` is being asked about it, what that answers does not count.
    pub fn dismiss(&self, peer: impl Borrow<W::Peer>) -> bool {
        let peer = peer.borrow();
        self.questions.fall(peer);
        self.with(|engine| engine.dismiss(peer))
    }

    /// So many peers are expected: the whole of which the connected share is taken (P8).
    pub fn expect(&self, peers: Option<usize>) {
        self.with(|engine| engine.expect(peers));
    }

    /// Begins to go down in order (U9): nothing new is taken, everybody new is told to come back within `window`,
    /// connections are closed in batches with 1012, and after `limit` at the latest everything has ended. Until then those
    /// may come back who are owed something (L13). What nobody has taken from [`messages`](Self::messages) is given back.
    pub fn drain(&self, window: Duration, limit: Duration) {
        self.with(|engine| engine.drain_all(window, limit));
        self.give_back();
    }

    fn give_back(&self) {
        while let Ok(delivery) = self.messages.1.try_recv() {
            drop(delivery);
        }
    }

    /// Waits for the end of a drain, or of the hub.
    pub async fn drained(&self) {
        loop {
            let drained = self.drained.listen();
            if self.over.load(Ordering::SeqCst) || self.lock().drained.is_some() {
                return;
            }
            drained.await;
        }
    }

    /// Messages that a drain has abandoned, once it is over.
    #[must_use]
    pub fn abandoned(&self) -> Option<u64> {
        self.lock().drained
    }

    /// For the adapter: it is over, whoever still waits for a word gets one.
    pub fn ended(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.with(Engine::abandon);
        self.messages.1.close();
        self.give_back();
        self.events.1.close();
        self.drained.notify(usize::MAX);
    }

    /// What handlers have ended together.
    fn complete(&self, ends: Vec<(Ticket, Verdict<W::Confirmation>)>) {
        // Encoded, and perhaps signed, before the lock.
        let ends: Vec<_> = ends.into_iter().map(|(ticket, verdict)| self.word(ticket, verdict)).collect();
        self.with(|engine| engine.complete(ends));
    }

    /// What the application has ended by itself. False: it came too late.
    fn end(&self, ticket: Ticket, verdict: Verdict<W::Confirmation>) -> bool {
        let end = self.word(ticket, verdict);
        self.with_turn(|engine| engine.complete(vec![end]))
    }

    fn parcel(&self, kind: &str, data: &str) -> Result<Arc<Parcel<W>>, Refused> {
        if kind.is_empty() || kind.len() > LONGEST_KIND {
            return Err(Refused::Kind);
        }
        let natives = self.native.is_some();
        if natives && native::check(data).is_err() {
            return Err(Refused::Data("no JSON, and there are native peers".into()));
        }
        let parcel = Parcel::new(&*self.wire, self.clock.now(), kind, data, natives).map_err(Refused::Data)?;
        // What a peer does not read ends its connection, and the next one, for as long as it lies in history.
        if !parcel.is_readable() {
            return Err(Refused::Session(Refusal::TooLarge));
        }
        Ok(Arc::new(parcel))
    }

    /// Whether messages of this type are taken.
    fn takes(&self, kind: &str) -> bool {
        self.wanted.load(Ordering::Relaxed) || self.handlers.contains_key(kind)
    }

    fn lock(&self) -> MutexGuard<'_, Engine<W>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies something and does what follows from it; what that wrote leaves at once.
    fn with<R>(&self, apply: impl FnOnce(&mut Engine<W>) -> R) -> R {
        let (answer, mut dirty) = self.step(apply, Engine::take_dirty);
        while !dirty.is_empty() {
            // Without the engine's lock: the system's part of a write takes longer than all of ours.
            let flush = |line: Arc<Line<W>>| line.flush().map(|wrote| (line, wrote));
            let unsent: Vec<_> = dirty.into_iter().filter_map(flush).collect();
            if unsent.is_empty() {
                break;
            }
            ((), dirty) = self.step(|engine| engine.unsent(unsent), Engine::take_dirty);
        }
        answer
    }

    /// The same for what the application sends and confirms; what that wrote leaves with the adapter's next turn, which is
    /// asked for at once: what is sent in one go leaves in one write.
    fn with_turn<R>(&self, apply: impl FnOnce(&mut Engine<W>) -> R) -> R {
        let (answer, wake) = self.step(apply, Engine::wants_turn);
        if wake {
            (self.act)(Action::Wake);
        }
        answer
    }

    /// Applies something, does what follows from it, and lets its effects out when the lock is gone. `last` is done before
    /// that.
    fn step<R, T>(&self, apply: impl FnOnce(&mut Engine<W>) -> R, last: impl FnOnce(&mut Engine<W>) -> T) -> (R, T) {
        let (mut later, mut unwanted) = (Vec::new(), Vec::new());
        let (answer, last, wake) = {
            let mut engine = self.lock();
            let answer = apply(&mut engine);
            engine.settle();
            for effect in core::mem::take(&mut engine.effects) {
                match effect {
                    // Under the lock, or another thread could put a peer's next message before this one (S9).
                    Effect::Deliver { message, ticket } => unwanted.extend(self.deliver(message, ticket)),
                    effect => later.push(effect),
                }
            }
            (answer, last(&mut engine), engine.sooner())
        };
        // Given back, which takes the lock.
        drop(unwanted);
        for effect in later {
            self.tell(effect);
        }
        if wake {
            (self.act)(Action::Wake);
        }
        (answer, last)
    }

    fn tell(&self, effect: Effect<W>) {
        match effect {
            Effect::Deliver { message, ticket } => drop(self.deliver(message, ticket)),
            Effect::Verify { line } => {
                let Some(hub) = self.me.upgrade() else { return };
                let job = Box::pin(async move { hub.verify(&line).await });
                (self.act)(Action::Run { job, limit: Some(self.most_hello) });
            }
            Effect::Reauth { line } => {
                let Some(hub) = self.me.upgrade() else { return };
                let job = Box::pin(async move { hub.reauth(&line).await });
                (self.act)(Action::Run { job, limit: Some(self.most_hello) });
            }
            Effect::Answer { request, answer } => {
                let _ = request.try_send(answer);
            }
            Effect::Settle { receipt, settlement } => {
                let _ = receipt.try_send(settlement);
            }
            Effect::Tell(event) => {
                if matches!(event, Event::Drained { .. }) {
                    self.drained.notify(usize::MAX);
                }
                let _ = self.events.0.force_send(event);
            }
            Effect::Act(action) => (self.act)(action),
        }
    }

    /// To its handler's desk, or to whoever reads. What comes back is refused: nobody reads fast enough.
    fn deliver(&self, message: Message<W::Peer>, ticket: Ticket) -> Option<Delivery<W>> {
        match self.handlers.get(message.kind()) {
            Some(handler) => {
                let hub = self.me.upgrade()?;
                let session = ticket.session;
                if self.desks.add(session, message, ticket, handler) {
                    let job = Box::pin(async move { hub.desks.run(&hub, session).await });
                    (self.act)(Action::Run { job, limit: None });
                }
                None
            }
            None => {
                let delivery = Delivery { message, ticket: Some(ticket), hub: self.me.clone() };
                self.messages.0.try_send(delivery).err().map(async_channel::TrySendError::into_inner)
            }
        }
    }
}

/// How long the answer to a request may take: as long as the application may take to say whom it is from, and then to handle
/// it.
fn longest_answer(config: &HubConfig) -> Duration {
    let handling = |session: &bowline::Config| session.inbox.answer_wait;
    let handling = handling(&config.session).max(config.native.as_ref().map_or(Duration::ZERO, handling));
    config.hello.saturating_add(handling).saturating_add(Duration::from_secs(1))
}

impl<W: HubWire> fmt::Debug for Hub<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("health", &self.health()).finish_non_exhaustive()
    }
}
