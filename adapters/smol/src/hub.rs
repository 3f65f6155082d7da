//! Many peers on one port: a hub under smol.
//!
//! ```text
//!  listener ─▶ a task per request's connection ─ /ws ─▶ a task per WebSocket: it reads, and waits to read again
//!  a task for time · one per peer with messages at handlers · one per newcomer to be verified (64 at once)
//!                  · one per WebSocket that is full · one per request of ours
//! ```
//!
//! Nothing is handed from task to task on a message's way in: the task that reads a message applies it. What is sent
//! and published leaves as soon as the task that did it lets others run: the task for time writes all of it then, each
//! line once. Invariants: connections that are not WebSockets are limited, together and for each address; when the hub
//! is closed its port is free and its tasks are over.
//!
//! ```no_run
//! use bowline_smol::hub::{Admission, Hub, HubSetup, Keypair, Publish};
//!
//! smol::block_on(async {
//!     let keys = Keypair::from_hotkey_file(&std::fs::read_to_string("hotkey")?)?;
//!     let setup = HubSetup::validator("0.0.0.0:8091", keys)?
//!         .authorize(|hotkey| async move {
//!             println!("{hotkey} wants to come in"); // look it up in the metagraph
//!             Admission::accept()
//!         })
//!         .on("prediction", |message| async move {
//!             println!("{}: {}", message.hotkey(), String::from_utf8_lossy(message.data()));
//!             Ok::<_, String>("stored") // only now is it confirmed
//!         });
//!     let hub = Hub::start(setup)?;
//!     hub.publish("game_update", r#"{"games":[]}"#, Publish { snapshot: true, ..Publish::DEFAULT })?;
//! #   hub.close().await;
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use bowline::hub::{
    BETTENSOR_HUB, BadTopic, Bulk, CloseReason, Duplicate, Health, HubConfig, HubStats, Limits, LogConfig, Position,
    Publish, Rate, Sent, Slow, Start, TopicFilter, TopicHealth, TopicName, TopicsConfig, TopicsFull, VILLAGE_HUB,
};
pub use bowline_transport::http::Target;
pub use bowline_transport::hub::{
    Admission, Claim, Complaint, Content, Counters, Delivery, Event, EventFrames, Farewell, Gap, Heard, HubSetup,
    HubWire, Letter, Message, Misread, Name, Receipt, Refused, Said, SessionInfo, Text, Village, Wish,
};
#[cfg(feature = "bettensor")]
pub use bowline_transport::hub::{Confirmation, Validator};
#[cfg(feature = "bettensor")]
pub use bowline_transport::{Hotkey, KeyError, Keypair};
pub use bowline_transport::{Settlement, SetupError};

use crate::io::{Io, Socket};
use crate::turn::{self, BREATH, lock};
use bowline::hub::ConnId;
use bowline_transport::http::{self, Answer, Callback, Deadline, Post, Served, Timed};
use bowline_transport::hub::{self, Action, Line, Reading, Visit};
use core::borrow::Borrow;
use core::future::pending;
use core::net::SocketAddr;
use core::time::Duration;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt as _;
use smol::stream::Stream;
use smol::{Async, Task, Timer};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// The most connections that are not WebSockets, together and from one address (of version 6: one network); a further
/// one is answered 503 (U13).
const VISITORS: usize = 2048;
const OF_ONE: usize = 256;

/// The most connections that are told at once that there is no place for them; a further one is closed unheard.
const REFUSED: usize = 64;

/// A hub and its tasks, on smol's global executor. Dropped, it is closed at once.
///
/// ```
/// use bowline_smol::hub::{Admission, Hub, HubSetup, Keypair, Publish};
/// # smol::block_on(async {
/// let keys = Keypair::from_seed_hex(&"07".repeat(32))?;
/// let setup = HubSetup::validator("127.0.0.1:0", keys)?
///     .authorize(|_| Admission::accept())
///     .on("prediction", |message| async move { message.json::<u32>().map(|_| "stored") });
/// let hub = Hub::start(setup)?;
/// assert_eq!(hub.publish("game_update", r#"{"games":[]}"#, Publish::DEFAULT)?.reached, 0, "nobody is here");
/// assert_eq!(hub.health().connections, 0);
/// hub.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With native clients beside those of its wire:
///
/// ```
/// use bowline::{Outcome, Path};
/// use bowline_smol::hub::{Admission, Hub, HubSetup};
/// use bowline_smol::{Client, Setup};
/// # smol::block_on(async {
/// let setup = HubSetup::village("127.0.0.1:0")?
///     .native(|caller| match caller.auth.as_deref() == Some("secret") {
///         true => Admission::accept(),
///         false => Admission::Refuse("who are you?".into()),
///     })
///     .on("load", |message| async move { message.json::<u32>().map(|percent| println!("{percent} %")) });
/// let hub = Hub::start(setup)?;
///
/// let url = format!("ws://{}", hub.address());
/// let client = Client::start(Setup::client(&url, "sensor-7")?.auth("secret")?.topic("alarm.*", None)?)?;
/// let receipt = client.send("load", "40").await?;
/// assert_eq!(receipt.settled().await.outcome, Outcome::Delivered { path: Path::WebSocket });
/// let refused = client.send("load", r#""forty""#).await?;
/// assert!(matches!(refused.settled().await.outcome, Outcome::Rejected(_)), "an error of the handler's");
/// hub.close().await;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Hub<W: HubWire> {
    shared: Arc<hub::Hub<W>>,
    world: Arc<World<W>>,
    address: SocketAddr,
    tasks: Vec<Task<()>>,
}

impl<W: HubWire> Hub<W> {
    /// Starts to listen.
    ///
    /// # Errors
    /// A setting makes no sense, or the system refuses a socket.
    pub fn start(setup: HubSetup<W>) -> Result<Self, SetupError> {
        let listener = bowline_transport::listen(setup.listen_on())?;
        let address = listener.local_addr()?;
        let listener = Async::try_from(listener)?;
        let world = Arc::new(World::new());
        let acting = Arc::clone(&world);
        let shared = hub::Hub::new(setup, move |action| acting.act(action))?;
        let _ = world.hub.set(Arc::downgrade(&shared));
        let listening = listen(Arc::clone(&shared), Arc::clone(&world), listener);
        let turning = turn(Arc::clone(&shared), Arc::clone(&world));
        Ok(Self { shared, world, address, tasks: vec![smol::spawn(listening), smol::spawn(turning)] })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a message to one peer, connected or not: it is kept for as long as the peer's session lives, and posted if
    /// there is no connection and the peer takes messages by HTTP.
    ///
    /// # Errors
    /// Why not.
    pub fn send(&self, peer: impl Borrow<W::Peer>, kind: &str, data: &str) -> Result<Receipt, Refused> {
        self.shared.send(peer, kind, data)
    }

    /// Makes a session for a peer that is known by other means, so that messages can be sent to it before it has ever
    /// been connected.
    ///
    /// # Errors
    /// There is no place for it.
    pub fn adopt(&self, peer: impl Borrow<W::Peer>, receiver: Option<Target>) -> Result<(), Refused> {
        self.shared.adopt(peer, receiver)
    }

    /// Sends to every connected peer; while too few are connected (P8), also by HTTP to those that take it.
    ///
    /// # Errors
    /// Why not.
    pub fn publish(&self, kind: &str, data: &str, how: Publish) -> Result<Sent, Refused> {
        self.shared.publish(kind, data, how)
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
        self.shared.publish_to(kind, data, how, to)
    }

    /// Publishes on a topic: to every subscriber, and to its history for those who are behind, away, or come later and ask
    /// for it.
    ///
    /// # Errors
    /// Why not.
    pub fn publish_topic(&self, topic: &str, kind: &str, data: &str) -> Result<Sent, Refused> {
        self.shared.publish_topic(topic, kind, data)
    }

    /// Subscribes a peer that has a session to a topic, or with a wildcard to several, as it could itself. How many there
    /// are now.
    ///
    /// # Errors
    /// Why not.
    pub fn subscribe(&self, peer: impl Borrow<W::Peer>, topics: &str, start: Start) -> Result<u32, Refused> {
        self.shared.subscribe(peer, topics, start)
    }

    /// Takes such a subscription back. False: there was none.
    pub fn unsubscribe(&self, peer: impl Borrow<W::Peer>, topics: &str) -> bool {
        self.shared.unsubscribe(peer, topics)
    }

    /// Every topic there is.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicHealth> {
        self.shared.topics()
    }

    /// The messages of types without a handler, until the hub is closed. From the first call on they are taken; before,
    /// they are answered with an error. Several tasks may take from it; each message goes to one of them.
    pub fn messages(&self) -> impl Stream<Item = Delivery<W>> + Send + Unpin + 'static {
        Box::pin(self.shared.messages().clone())
    }

    /// What happens, until the hub is closed. If nobody reads, the oldest of 256 are dropped.
    pub fn events(&self) -> impl Stream<Item = Event<W::Peer>> + Send + Unpin + 'static {
        Box::pin(self.shared.events().clone())
    }

    /// How it stands.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// The machine's counters.
    #[must_use]
    pub fn stats(&self) -> HubStats {
        self.shared.stats()
    }

    /// The other counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.counters()
    }

    /// Everything that is counted, as `GET /metrics` says it.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.shared.metrics()
    }

    /// Every session there is.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo<W::Peer>> {
        self.shared.sessions()
    }

    /// Does not want this peer any more: its connection is closed with 1008, what it was to get is abandoned. False: it
    /// has no session. If `authorize` is being asked about it, what that answers does not count.
    pub fn dismiss(&self, peer: impl Borrow<W::Peer>) -> bool {
        self.shared.dismiss(peer)
    }

    /// So many peers are expected: the whole of which the connected share is taken (P8).
    pub fn expect(&self, peers: Option<usize>) {
        self.shared.expect(peers);
    }

    /// Goes down in order (U9): nothing new is taken, everybody new is told to come back within `window`, connections are
    /// closed in batches with 1012, and after `limit` at the latest everything has ended. Until then those may come back who
    /// are owed something (L13). What nobody has taken from [`messages`](Self::messages) is given back. How many messages
    /// were abandoned. Cancelled, it goes on.
    pub async fn drain(&self, window: Duration, limit: Duration) -> u64 {
        self.shared.drain(window, limit);
        self.shared.drained().await;
        self.shared.abandoned().unwrap_or_default()
    }

    /// Ends everything at once; the port is free then.
    pub async fn close(mut self) {
        self.shared.ended();
        for task in core::mem::take(&mut self.tasks) {
            task.cancel().await;
        }
        for task in self.world.close() {
            task.cancel().await;
        }
    }
}

#[cfg(feature = "bettensor")]
impl Hub<Validator> {
    /// The validator's hotkey, as an address.
    #[must_use]
    pub fn hotkey(&self) -> &str {
        self.shared.hotkey()
    }
}

impl Hub<Village> {
    /// Publishes an event on the topic that the original has for its type; one of a type that it does not publish, on
    /// `system`.
    ///
    /// ```
    /// use bowline::wire::aivillage::{Event, Json};
    /// use bowline_smol::hub::{Hub, HubSetup};
    /// # smol::block_on(async {
    /// let hub = Hub::start(HubSetup::village("127.0.0.1:0")?)?;
    /// let started = Event::TrainingStarted {
    ///     session_id: "sess-1".into(),
    ///     parameters: Json::parse(r#"{"epochs":10}"#)?,
    ///     estimated_duration: Some(3600.0),
    ///     model_type: Some("cognate".into()),
    /// };
    /// assert_eq!(hub.publish_event(&started)?.reached, 0, "nobody is looking");
    /// hub.close().await;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Why not.
    pub fn publish_event(&self, event: &bowline::wire::aivillage::Event<'_>) -> Result<Sent, Refused> {
        self.shared.publish_event(event)
    }
}

impl<W: HubWire> Drop for Hub<W> {
    fn drop(&mut self) {
        self.shared.ended();
        self.tasks.clear();
        drop(self.world.close());
    }
}

/// A WebSocket: its socket, the task that reads it, and the one that waits until it can be written. They end with it: one
/// that waited on for a peer that takes nothing would hold the socket for as long as that peer likes.
struct Wired {
    conn: ConnId,
    socket: Socket,
    task: Task<()>,
    watch: Option<Task<()>>,
}

/// The tasks and sockets of a hub.
struct World<W: HubWire> {
    hub: OnceLock<Weak<hub::Hub<W>>>,
    /// Its time has changed.
    called: event_listener::Event,
    /// By place.
    wired: Mutex<Vec<Option<Wired>>>,
    visitors: Mutex<Visitors>,
    /// Closed when everything is over: every task ends then.
    over: (Sender<()>, Receiver<()>),
}

impl<W: HubWire> core::fmt::Debug for World<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Visitors {
    all: usize,
    /// Those that are told that there is no place; they are not among the others.
    refused: usize,
    /// By origin.
    of: BTreeMap<u64, usize>,
}

impl<W: HubWire> World<W> {
    fn new() -> Self {
        Self {
            hub: OnceLock::new(),
            called: event_listener::Event::new(),
            wired: Mutex::default(),
            visitors: Mutex::default(),
            over: smol::channel::bounded(1),
        }
    }

    fn act(self: &Arc<Self>, action: Action<W>) {
        match action {
            Action::Wake => {
                self.called.notify(1);
            }
            Action::Run { job, limit } => self.spawn(job.or(late(limit))),
            Action::Drop(conn) => {
                let mut wired = lock(&self.wired);
                let gone = wired.get_mut(conn.place()).and_then(|slot| slot.take_if(|known| known.conn == conn));
                drop(wired);
                drop(gone);
            }
            Action::Watch(line) => {
                let conn = line.conn();
                let mut wired = lock(&self.wired);
                let known = wired.get_mut(conn.place()).and_then(Option::as_mut).filter(|known| known.conn == conn);
                let before = if let (Some(known), Some(hub)) = (known, self.hub()) {
                    known.watch.replace(smol::spawn(watch(hub, line, Arc::clone(&known.socket))))
                } else {
                    None
                };
                drop(wired);
                drop(before);
            }
            Action::Post { session, post, id, target, body, timeouts } => {
                let Some(hub) = self.hub() else { return };
                self.spawn(async move {
                    let headers = [("idempotency-key", id.to_string())];
                    let request = Post { target: &target, headers: &headers, body, read: 0, timeouts };
                    let posted = turn::post(hub.security(), request).await;
                    hub.posted(session, post, &posted);
                });
            }
        }
    }

    fn hub(&self) -> Option<Arc<hub::Hub<W>>> {
        self.hub.get()?.upgrade()
    }

    /// Runs a task until it or the hub is over.
    fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        let over = self.over.1.clone();
        let over = async move {
            let _ = over.recv().await;
        };
        smol::spawn(job.or(over)).detach();
    }

    /// Ends every task that ends by itself then; those that are left.
    fn close(&self) -> Vec<Task<()>> {
        self.over.0.close();
        let wired = core::mem::take(&mut *lock(&self.wired));
        wired.into_iter().flatten().flat_map(|wired| [Some(wired.task), wired.watch]).flatten().collect()
    }
}

async fn late(limit: Option<Duration>) {
    match limit {
        Some(limit) => {
            Timer::after(limit).await;
        }
        None => pending().await,
    }
}

async fn turn<W: HubWire>(hub: Arc<hub::Hub<W>>, world: Arc<World<W>>) {
    loop {
        // Before the turn, or a call between the turn and the wait would be missed.
        let call = world.called.listen();
        let time = match hub.turn() {
            Some(at) => Timer::at(at),
            None => Timer::never(),
        };
        let time = async {
            time.await;
        };
        call.or(time).await;
    }
}

async fn listen<W: HubWire>(hub: Arc<hub::Hub<W>>, world: Arc<World<W>>, listener: Async<TcpListener>) {
    loop {
        match listener.accept().await {
            Ok((socket, from)) => {
                let (hub, socket) = (Arc::clone(&hub), Socket::new(socket));
                match Visitor::enter(&world, Visit::new(from.ip())) {
                    Some(visitor) if visitor.refused => world.spawn(refuse(hub, visitor, socket)),
                    Some(visitor) => world.spawn(serve(hub, visitor, socket)),
                    None => drop(hub.full(&Visit::new(from.ip()))),
                }
            }
            Err(_) => {
                Timer::after(BREATH).await;
            }
        }
    }
}

/// A connection that is no WebSocket yet, until it is dropped.
struct Visitor<W: HubWire> {
    world: Arc<World<W>>,
    visit: Visit,
    /// There is no place for it, and it is told so.
    refused: bool,
}

impl<W: HubWire> Visitor<W> {
    /// None: there are too many of those that are told that there is no place.
    fn enter(world: &Arc<World<W>>, visit: Visit) -> Option<Self> {
        let mut visitors = lock(&world.visitors);
        let of_one = visitors.of.get(&visit.origin()).copied().unwrap_or_default();
        let refused = visitors.all >= VISITORS || of_one >= OF_ONE;
        if !refused {
            visitors.all += 1;
            visitors.of.insert(visit.origin(), of_one + 1);
        } else if visitors.refused < REFUSED {
            visitors.refused += 1;
        } else {
            return None;
        }
        drop(visitors);
        Some(Self { world: Arc::clone(world), visit, refused })
    }
}

impl<W: HubWire> Drop for Visitor<W> {
    fn drop(&mut self) {
        let mut visitors = lock(&self.world.visitors);
        if self.refused {
            visitors.refused -= 1;
            return;
        }
        visitors.all -= 1;
        if let Some(count) = visitors.of.get_mut(&self.visit.origin()) {
            *count -= 1;
            if *count == 0 {
                visitors.of.remove(&self.visit.origin());
            }
        }
    }
}

/// Tells a connection that there is no place for it, and when to come back.
async fn refuse<W: HubWire>(hub: Arc<hub::Hub<W>>, visitor: Visitor<W>, socket: Socket) {
    let limits = hub.limits();
    let deadline = Deadline::after(limits.linger);
    let answer = hub.full(&visitor.visit);
    let Ok(io) = Io::new(socket, |socket| hub.security().accept(socket)) else { return };
    let io = Timed::new(FuturesIo::new(io), SmolTimer::new(), deadline.clone());
    http::refuse(io, &deadline, &limits, answer).await;
}

async fn serve<W: HubWire>(hub: Arc<hub::Hub<W>>, visitor: Visitor<W>, socket: Socket) {
    let limits = hub.limits();
    let deadline = Deadline::after(limits.head);
    if socket.get_ref().set_nodelay(true).is_err() {
        return;
    }
    let Ok(io) = Io::new(Arc::clone(&socket), |socket| hub.security().accept(socket)) else { return };
    let visit = &visitor.visit;
    let io = Timed::new(FuturesIo::new(io), SmolTimer::new(), deadline.clone());
    let answer = |callback: Callback| {
        let patience = hub.patience(callback.path);
        let busy = async move {
            Timer::after(patience).await;
            Answer { retry_after: Some(Duration::from_secs(5)), ..Answer::error(503, "it takes too long") }
        };
        hub.request(visit, callback).or(busy)
    };
    let served = http::serve(io, &deadline, &limits, &hub.routes(), answer).await;
    let Some(conn) = visit.admitted() else { return };
    if let Served::Upgraded { io, read_buf } = served {
        let channel = io.into_inner().into_inner().channel;
        if let Some(line) = hub.accepted(conn, Box::new(channel), &read_buf) {
            wire(&hub, &visitor.world, line, socket);
        }
    } else {
        hub.vanished(conn);
    }
}

/// From now on this line has a task that reads it.
fn wire<W: HubWire>(hub: &Arc<hub::Hub<W>>, world: &World<W>, line: Arc<Line<W>>, socket: Socket) {
    let conn = line.conn();
    let mut wired = lock(&world.wired);
    if wired.len() <= conn.place() {
        wired.resize_with(conn.place() + 1, || None);
    }
    let task = smol::spawn(read(Arc::clone(hub), line, Arc::clone(&socket)));
    if let Some(slot) = wired.get_mut(conn.place()) {
        *slot = Some(Wired { conn, socket, task, watch: None });
    }
}

async fn read<W: HubWire>(hub: Arc<hub::Hub<W>>, line: Arc<Line<W>>, socket: Socket) {
    loop {
        match hub.readable(&line) {
            // An error is found when it is read again.
            Reading::Empty => drop(socket.readable().await),
            Reading::Again => smol::future::yield_now().await,
            Reading::Held => line.changed().await,
            Reading::Over => return,
        }
    }
}

async fn watch<W: HubWire>(hub: Arc<hub::Hub<W>>, line: Arc<Line<W>>, socket: Socket) {
    loop {
        drop(socket.writable().await);
        if !hub.writable(&line) {
            return;
        }
    }
}

#[cfg(all(test, feature = "bettensor"))]
mod tests {
    use super::*;

    #[test]
    fn u8_an_address_has_so_many_visitors_and_all_have_so_many() {
        let world = Arc::new(World::<Validator>::new());
        let from = |n: u8| Visit::new(core::net::IpAddr::from([192, 0, 2, n]));
        let enter = |visit| Visitor::enter(&world, visit).filter(|visitor| !visitor.refused);
        let mut visitors: Vec<_> = (0..OF_ONE).map_while(|_| enter(from(1))).collect();
        assert_eq!(visitors.len(), OF_ONE);
        assert!(enter(from(1)).is_none());
        assert!(enter(from(2)).is_some(), "others come in");
        let network = |host: u16| Visit::new(core::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]));
        let neighbours: Vec<_> = (0..1000).map_while(|host| enter(network(host))).collect();
        assert_eq!(neighbours.len(), OF_ONE, "a network of version 6 counts as one");
        drop(neighbours);
        drop(visitors.pop());
        assert!(enter(from(1)).is_some(), "a place is given back");
        let crowd: Vec<_> = (0..VISITORS).map_while(|n| enter(from((n / 100) as u8 + 2))).collect();
        assert_eq!(visitors.len() + crowd.len(), VISITORS);
        let told: Vec<_> = (0..100).map_while(|_| Visitor::enter(&world, from(1))).collect();
        assert_eq!(told.len(), REFUSED, "so many are told that there is no place, beside those that have one");
        drop((visitors, crowd, told));
        let left = lock(&world.visitors);
        assert!(left.of.is_empty() && (left.all, left.refused) == (0, 0), "nothing is kept of those who left");
    }
}
