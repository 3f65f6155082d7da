//! Two nodes of either adapter over real loopback sockets, with a fault proxy on each path.
//!
//! ```text
//!            ┌──────── ws: Proxy ◀── dials ──────┐
//!  sender ◀──┘                                   receiver       (Gonka's ML node)  (Gonka's API node)
//!         └──── posts ──▶ http: Proxy ───────────▶┘
//! ```
//!
//! Nothing here sleeps to synchronise: a condition is polled, with a limit; whatever may block runs on a thread of its
//! own, and whoever waits for it has a limit. The timers of the sessions are shrunk ([`quick`]); no test asserts a
//! time, except for generous upper limits.
#![allow(dead_code, reason = "every test program uses a part")]

pub(crate) mod ca;
pub(crate) mod client;
pub(crate) mod peer;

use bowline::{AckWait, BackoffConfig, Config, Event, Outcome, Path, Policy, Stats};
use bowline_cli::proxy::{Fault, Proxy};
use bowline_smol::{Explanation, Kind, Message, NodeEvent, Receipt, SendError, Settlement, Setup, Status};
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use socket2::{Domain, Socket, Type};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// The most that one step may take, however busy the machine is.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

/// The most that one test may take.
const WHOLE: Duration = Duration::from_secs(60);

/// How soon a node must have ended, whatever its peers do.
pub(crate) const PROMPT: Duration = Duration::from_secs(3);

/// How long a node that is closed or dropped may finish, where a test says nothing else.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

pub(crate) const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Runs a test with a limit on the whole of it.
#[track_caller]
pub(crate) fn limited(test: impl FnOnce() + Send + 'static) {
    begin("the test", test).wait_for(WHOLE);
}

/// Something that runs on a thread of its own.
pub(crate) struct Running<T> {
    what: &'static str,
    result: Receiver<T>,
    thread: JoinHandle<()>,
}

/// Begins something that may block.
pub(crate) fn begin<T: Send + 'static>(what: &'static str, run: impl FnOnce() -> T + Send + 'static) -> Running<T> {
    let (done, result) = mpsc::channel();
    let thread = thread::Builder::new().name(thread::current().name().unwrap_or("test").into());
    let run = move || {
        let result = run();
        let _ = done.send(result);
    };
    Running { what, result, thread: thread.spawn(run).unwrap() }
}

impl<T> Running<T> {
    /// Its result, within the limit of a step.
    #[track_caller]
    pub(crate) fn wait(self) -> T {
        self.wait_for(LIMIT)
    }

    /// Its result, within this limit. Its panic goes on here.
    #[track_caller]
    pub(crate) fn wait_for(self, limit: Duration) -> T {
        match self.result.recv_timeout(limit) {
            Ok(result) => {
                // It has let go of whatever it held.
                self.thread.join().unwrap();
                result
            }
            Err(RecvTimeoutError::Timeout) => panic!("still not, after {limit:?}: {}", self.what),
            Err(RecvTimeoutError::Disconnected) => match self.thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => unreachable!("it ends with a result or a panic"),
            },
        }
    }

    /// Whether it goes on.
    pub(crate) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }
}

/// Waits until it holds, within the limit of a step.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::sleep(millis(2));
    }
}

/// Runs something that must be over soon.
#[track_caller]
pub(crate) fn promptly<T: Send + 'static>(what: &'static str, run: impl FnOnce() -> T + Send + 'static) -> T {
    begin(what, run).wait_for(PROMPT)
}

/// Who turns a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Adapter {
    Blocking,
    Smol,
}

pub(crate) const BOTH: [Adapter; 2] = [Adapter::Blocking, Adapter::Smol];

enum Either {
    Blocking(bowline_blocking::Node),
    Smol(bowline_smol::Node),
}

/// A node of either adapter, whose calls have a limit.
pub(crate) struct Node {
    either: Arc<Either>,
    events: Arc<Mutex<Vec<NodeEvent>>>,
}

impl Node {
    pub(crate) fn start(adapter: Adapter, setup: Setup) -> Self {
        let node = Self::unwatched(adapter, setup);
        let (events, seen) = (Arc::clone(&node.events), node.event_stream());
        begin("the end of events", move || seen.for_each(|event| events.lock().unwrap().push(event)));
        node
    }

    /// Without the thread that collects its events.
    pub(crate) fn unwatched(adapter: Adapter, setup: Setup) -> Self {
        let either = match adapter {
            Adapter::Blocking => Either::Blocking(bowline_blocking::Node::start(setup).unwrap()),
            Adapter::Smol => Either::Smol(bowline_smol::Node::start(setup).unwrap()),
        };
        Self { either: Arc::new(either), events: Arc::default() }
    }

    /// All batches that come, until it has ended.
    pub(crate) fn begin_all(&self) -> Running<Vec<Message>> {
        let all: Box<dyn Iterator<Item = Message> + Send> = match &*self.either {
            Either::Blocking(node) => Box::new(node.messages()),
            Either::Smol(node) => Box::new(smol::stream::block_on(node.messages())),
        };
        begin("the end of batches", move || all.collect())
    }

    /// Waits until it has ended.
    pub(crate) fn begin_watch(&self) -> Running<()> {
        let events = self.event_stream();
        begin("the end of events", move || events.for_each(drop))
    }

    fn event_stream(&self) -> Box<dyn Iterator<Item = NodeEvent> + Send> {
        match &*self.either {
            Either::Blocking(node) => Box::new(node.events()),
            Either::Smol(node) => Box::new(smol::stream::block_on(node.events())),
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        match &*self.either {
            Either::Blocking(node) => node.address().unwrap(),
            Either::Smol(node) => node.address().unwrap(),
        }
    }

    pub(crate) fn try_send(&self, json: impl Into<String>) -> Result<Receipt, SendError> {
        self.try_send_as(Kind::Generated, json)
    }

    pub(crate) fn try_send_as(&self, kind: Kind, json: impl Into<String>) -> Result<Receipt, SendError> {
        match &*self.either {
            Either::Blocking(node) => node.try_send(kind, json.into()),
            Either::Smol(node) => node.try_send(kind, json.into()),
        }
    }

    /// There is room.
    #[track_caller]
    pub(crate) fn send(&self, json: impl Into<String>) -> Receipt {
        self.try_send(json).unwrap()
    }

    /// Waits for room, with a life of its own.
    pub(crate) fn begin_send(&self, json: impl Into<String>, policy: Policy) -> Running<Result<Receipt, SendError>> {
        let (either, json) = (Arc::clone(&self.either), json.into());
        begin("room for a batch", move || match &*either {
            Either::Blocking(node) => node.send_with(Kind::Generated, json, policy),
            Either::Smol(node) => smol::block_on(node.send_with(Kind::Generated, json, policy)),
        })
    }

    #[track_caller]
    pub(crate) fn receive(&self) -> Message {
        self.begin_receive().wait().expect("the session has ended")
    }

    /// `None` once the session has ended.
    pub(crate) fn begin_receive(&self) -> Running<Option<Message>> {
        let either = Arc::clone(&self.either);
        begin("a batch", move || match &*either {
            Either::Blocking(node) => node.receive(),
            Either::Smol(node) => smol::block_on(node.receive()),
        })
    }

    pub(crate) fn status(&self) -> Status {
        match &*self.either {
            Either::Blocking(node) => node.status(),
            Either::Smol(node) => node.status(),
        }
    }

    pub(crate) fn expect_data(&self, yes: bool) {
        match &*self.either {
            Either::Blocking(node) => node.expect_data(yes),
            Either::Smol(node) => node.expect_data(yes),
        }
    }

    pub(crate) fn retry_now(&self) {
        match &*self.either {
            Either::Blocking(node) => node.retry_now(),
            Either::Smol(node) => node.retry_now(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        self.status().stats
    }

    /// Waits until the counters are as wished.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn(Stats) -> bool) {
        eventually(what, || holds(self.stats()));
    }

    /// What has happened so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().iter().map(|told| told.event).collect()
    }

    /// Why its connections, attempts and requests have ended so far.
    pub(crate) fn explanations(&self) -> Vec<Explanation> {
        self.events.lock().unwrap().iter().filter_map(NodeEvent::explanation).collect()
    }

    /// Waits for an event.
    #[track_caller]
    pub(crate) fn until_event(&self, what: &str, wanted: impl Fn(&Event) -> bool) {
        eventually(what, || self.events.lock().unwrap().iter().any(|told| wanted(&told.event)));
    }

    #[track_caller]
    pub(crate) fn close(self, drain: Duration) -> Status {
        self.begin_close(drain).wait()
    }

    /// The node as the application holds it; nothing else of this test uses it any more.
    fn alone(self) -> Either {
        Arc::into_inner(self.either).expect("somebody still waits for this node")
    }

    /// Begins to close a node that is still looked at.
    pub(crate) fn start_closing(&self, drain: Duration) {
        match &*self.either {
            Either::Blocking(node) => node.begin_close(drain),
            Either::Smol(node) => node.begin_close(drain),
        }
    }

    pub(crate) fn begin_close(self, drain: Duration) -> Running<Status> {
        let either = self.alone();
        begin("a node closes", move || match either {
            Either::Blocking(node) => node.close(drain),
            Either::Smol(node) => smol::block_on(node.close(drain)),
        })
    }

    /// Ends it at once: nothing is finished first.
    #[track_caller]
    pub(crate) fn stop(self) -> Status {
        self.begin_close(Duration::ZERO).wait_for(PROMPT)
    }
}

/// The end of a message, within the limit of a step.
#[track_caller]
pub(crate) fn settled(receipt: Receipt) -> Settlement {
    begin("a message ends", move || receipt.wait()).wait()
}

/// It was delivered by this path.
#[track_caller]
pub(crate) fn assert_delivered(receipt: Receipt, path: Path) {
    assert_eq!(settled(receipt).outcome, Outcome::Delivered { path });
}

/// A batch that tells its number.
pub(crate) fn batch(n: u64) -> String {
    format!(
        r#"{{"public_key":"02a1","block_hash":"77","block_height":{n},"nonces":[3,13],"dist":[0.5,0.25],"node_id":3}}"#
    )
}

/// One of about so many bytes.
pub(crate) fn big_batch(n: u64, bytes: usize) -> String {
    batch(n).replacen("02a1", &"a".repeat(bytes), 1)
}

/// The JSON of a message.
pub(crate) fn json(message: &Message) -> &str {
    core::str::from_utf8(message.json()).unwrap()
}

/// Short timers, so that a test meets many of them; the wait for an acknowledgement stays at its 3 s, because a busy
/// machine is not an unanswering one.
pub(crate) fn quick(config: &mut Config) {
    config.link.backoff = BackoffConfig::range(millis(50), millis(100));
    config.link.closing = millis(500);
    config.link.knock = millis(300);
    config.route.backoff = BackoffConfig::range(millis(20), millis(60));
    config.route.stable = millis(50);
    config.route.stay = millis(200);
    (config.route.progress, config.route.thinking) = (Duration::from_secs(5), Duration::from_secs(5));
}

/// As [`quick`], for tests in which acknowledgements are missing on purpose.
pub(crate) fn impatient(config: &mut Config) {
    quick(config);
    config.outbox.ack_wait = AckWait::Fixed(millis(200));
    // A silence on purpose is no death.
    config.heartbeat.probe = LIMIT;
}

/// What a server said to a request.
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Posts as a plain HTTP client does, on a connection of its own.
pub(crate) fn post(address: SocketAddr, path: &str, headers: &[(&str, &str)], body: &str) -> Said {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Said { status, head: head.to_lowercase(), body: body.into() }
}

/// A port that is ours, though nobody listens yet.
pub(crate) struct Port {
    pub(crate) address: SocketAddr,
    _held: Socket,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // So that the listener to come, which sets the same, may have the address too.
        #[cfg(not(windows))]
        held.set_reuse_address(true).unwrap();
        held.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        Self { address: held.local_addr().unwrap().as_socket().unwrap(), _held: held }
    }
}

/// Whoever connects to it waits: its queue of connections is full, and the system drops what comes.
pub(crate) struct Deaf {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl Deaf {
    pub(crate) fn start() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let queue = core::iter::from_fn(|| TcpStream::connect_timeout(&address, millis(200)).ok());
        Self { address, _queue: queue.take(16).collect(), _listener: listener }
    }
}

/// Which adapter sends and which receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pair {
    pub(crate) sends: Adapter,
    pub(crate) receives: Adapter,
}

impl Pair {
    pub(crate) const BLOCKING_SENDS: Self = Self { sends: Adapter::Blocking, receives: Adapter::Smol };
    pub(crate) const SMOL_SENDS: Self = Self { sends: Adapter::Smol, receives: Adapter::Blocking };
}

/// A sender and a receiver with a proxy on each of their two paths.
pub(crate) struct World {
    pub(crate) sender: Node,
    pub(crate) receiver: Node,
    pub(crate) ws: Proxy,
    pub(crate) http: Proxy,
    pub(crate) port: Port,
}

/// A world whose receiver is gone.
pub(crate) struct Half {
    pub(crate) sender: Node,
    pub(crate) ws: Proxy,
    pub(crate) http: Proxy,
    pub(crate) port: Port,
}

impl Half {
    /// A new receiver in the place of the one that is gone.
    pub(crate) fn with_receiver(self, pair: Pair, receiver: impl FnOnce(&mut Config)) -> World {
        let Self { sender, ws, http, port } = self;
        let receiver = World::receiver(pair, &ws, &port, receiver);
        World { sender, receiver, ws, http, port }
    }
}

impl World {
    /// Connected, with the timers of [`quick`].
    pub(crate) fn start(pair: Pair) -> Self {
        Self::with(pair, quick, quick)
    }

    /// Connected.
    pub(crate) fn with(pair: Pair, sender: impl FnOnce(&mut Config), receiver: impl FnOnce(&mut Config)) -> Self {
        let world = Self::unconnected(pair, sender, receiver);
        world.connected();
        world
    }

    /// Perhaps not connected yet.
    pub(crate) fn unconnected(
        pair: Pair,
        sender: impl FnOnce(&mut Config),
        receiver: impl FnOnce(&mut Config),
    ) -> Self {
        let port = Port::reserve();
        let http = Proxy::start(port.address).unwrap();
        let fallback = format!("http://{}/v1/poc-batches", http.addr());
        let setup = Setup::ml_node("127.0.0.1:0").unwrap().fallback(&fallback).unwrap();
        let sender = Node::start(pair.sends, setup.configure(sender).drain(DRAIN));
        let ws = Proxy::start(sender.address()).unwrap();
        let receiver = Self::receiver(pair, &ws, &port, receiver);
        Self { sender, receiver, ws, http, port }
    }

    fn receiver(pair: Pair, ws: &Proxy, port: &Port, configure: impl FnOnce(&mut Config)) -> Node {
        let setup = Setup::api_node(&ws.addr().to_string()).unwrap().callbacks(&port.address.to_string()).unwrap();
        Node::start(pair.receives, setup.configure(configure).drain(DRAIN))
    }

    /// The receiver, and the world without it.
    pub(crate) fn without_receiver(self) -> (Half, Node) {
        let Self { sender, receiver, ws, http, port } = self;
        (Half { sender, ws, http, port }, receiver)
    }

    /// Makes the sender use this path.
    #[track_caller]
    pub(crate) fn use_path(&self, path: Path) {
        self.ws.set(if path == Path::Http { Fault::Refuse } else { Fault::Calm });
        eventually("the sender uses the path", || self.sender.status().path == path);
    }

    /// Waits until traffic goes over the WebSocket.
    #[track_caller]
    pub(crate) fn connected(&self) {
        eventually("both nodes are up", || {
            [&self.sender, &self.receiver].iter().all(|node| node.status().state == bowline::State::Up)
        });
    }

    /// Ends both nodes at once.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.sender.stop();
        self.receiver.stop();
    }
}

/// Runs a scenario that mostly waits with both pairs at the same time.
#[track_caller]
pub(crate) fn at_once(scenario: fn(Pair)) {
    let pairs = [Pair::BLOCKING_SENDS, Pair::SMOL_SENDS].map(|pair| begin("the test", move || scenario(pair)));
    for pair in pairs {
        pair.wait_for(WHOLE);
    }
}

/// Runs a scenario that mostly waits with both adapters at the same time.
#[track_caller]
pub(crate) fn with_each(scenario: fn(Adapter)) {
    let both = BOTH.map(|adapter| begin("the test", move || scenario(adapter)));
    for adapter in both {
        adapter.wait_for(WHOLE);
    }
}

/// Runs each scenario twice: the blocking adapter sends to smol's, and the other way round.
#[allow(unused_macros, reason = "every test program uses a part")]
macro_rules! scenarios {
    ($($name:ident),+ $(,)?) => {
        mod blocking_sends {
            $(#[test]
            fn $name() {
                super::real::limited(|| super::$name(super::real::Pair::BLOCKING_SENDS));
            })+
        }
        mod smol_sends {
            $(#[test]
            fn $name() {
                super::real::limited(|| super::$name(super::real::Pair::SMOL_SENDS));
            })+
        }
    };
}

/// Runs each scenario with both adapters.
#[allow(unused_macros, reason = "every test program uses a part")]
macro_rules! with_both {
    ($($name:ident),+ $(,)?) => {
        mod blocking {
            $(#[test]
            fn $name() {
                super::real::limited(|| super::$name(super::real::Adapter::Blocking));
            })+
        }
        mod smol {
            $(#[test]
            fn $name() {
                super::real::limited(|| super::$name(super::real::Adapter::Smol));
            })+
        }
    };
}
