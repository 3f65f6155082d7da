//! The session's task, and the tasks that wait for one thing each.
//!
//! Decided here: which task waits for what, and how all of them end: they are held by the session's task and over before
//! it is, peers' requests after their answers are written. Invariants: no task waits without a limit; the socket is read
//! before anybody waits for it; when the session is over its port is free.

use crate::io::{Io, Socket};
use bowline::{LinkId, Reason, RetryHint};
use bowline_transport::http::{self, Answer, Deadline, Post, Posted, Served, Target, Timed};
use bowline_transport::{Action, Call, Explanation, Node, Security, Setup, SetupError, Stream, Wait, Wire};
use core::future::pending;
use core::net::SocketAddr;
use core::time::Duration;
use smol::future::FutureExt as _;
use smol::net::TcpStream;
use smol::{Async, Task, Timer};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use std::collections::BTreeMap;
use std::net::{Shutdown, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

/// The most connections to our listener at once. Further ones are answered 503 (U13), at most this many at once.
const CONNECTIONS: usize = 64;

/// After the system refused a connection for want of something, such as file descriptors.
pub(crate) const BREATH: Duration = Duration::from_millis(100);

/// For the answers that are left when the session is over, all of them together.
const ANSWERS: Duration = Duration::from_secs(2);

/// The sockets of connections; locked while the node learns of one, so that the session's task finds whatever the node
/// tells it to watch.
type Sockets = Arc<Mutex<BTreeMap<LinkId, Socket>>>;

/// Connections to our listener.
type Peers = Arc<Mutex<Vec<Peer>>>;

/// A connection to our listener: who serves it, and its socket, to tell that no further request is wanted. It is not kept open
/// for that.
struct Peer {
    task: Task<()>,
    socket: Weak<Async<std::net::TcpStream>>,
    /// There is no place for it, and it is told so.
    refused: bool,
}

/// The node, where it listens, and its task.
pub(crate) type Started<W> = (Arc<Node<W>>, Option<SocketAddr>, Task<()>);

pub(crate) fn start<W: Wire>(setup: &Setup<W>) -> Result<Started<W>, SetupError> {
    let called = Arc::new(event_listener::Event::new());
    let call = Arc::clone(&called);
    let node = Node::new(setup, move || {
        call.notify(1);
    })?;
    let listener = setup.listen_on().map(bowline_transport::listen).transpose()?;
    let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let listener = listener.map(Async::try_from).transpose()?;
    let sockets = Sockets::default();
    let peers = Peers::default();
    let listening = listener
        .map(|listener| smol::spawn(listen(Arc::clone(&node), Arc::clone(&sockets), Arc::clone(&peers), listener)));
    let turner =
        Turner { node: Arc::clone(&node), sockets, dials: BTreeMap::new(), posts: BTreeMap::new(), peers, listening };
    Ok((node, address, smol::spawn(turner.run(called))))
}

struct Turner<W: Wire> {
    node: Arc<Node<W>>,
    sockets: Sockets,
    dials: BTreeMap<LinkId, Task<()>>,
    posts: BTreeMap<Call, Task<()>>,
    peers: Peers,
    listening: Option<Task<()>>,
}

impl<W: Wire> Turner<W> {
    async fn run(mut self, called: Arc<event_listener::Event>) {
        let mut actions = Vec::new();
        loop {
            // Before the turn, or a call between the turn and the wait would be missed.
            let call = called.listen();
            let wait = self.node.turn(&mut actions);
            for action in actions.drain(..) {
                self.act(action);
            }
            if wait.over {
                return self.end().await;
            }
            let socket = wait.read.and_then(|link| lock(&self.sockets).get(&link).map(Arc::clone));
            call.or(time(wait)).or(readable(socket.as_ref())).or(writable(socket.as_ref(), wait.write)).await;
        }
    }

    /// Whoever waits for an answer gets one; everything else is over at once. A task that is only dropped would let go of
    /// its socket some time later.
    async fn end(mut self) {
        self.node.ended();
        let dials = core::mem::take(&mut self.dials).into_values();
        let posts = core::mem::take(&mut self.posts).into_values();
        for task in dials.chain(posts).chain(self.listening.take()) {
            task.cancel().await;
        }
        let peers = core::mem::take(&mut *lock(&self.peers));
        for socket in peers.iter().filter_map(|peer| peer.socket.upgrade()) {
            let _ = socket.get_ref().shutdown(Shutdown::Read);
        }
        let until = Instant::now() + ANSWERS;
        for Peer { mut task, .. } in peers {
            let late = async {
                Timer::at(until).await;
            };
            (&mut task).or(late).await;
            if !task.is_finished() {
                task.cancel().await;
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Dial { link } => {
                self.dials.retain(|_, task| !task.is_finished());
                let Some(target) = self.node.url().cloned() else { return };
                let dial = dial(Arc::clone(&self.node), Arc::clone(&self.sockets), target, link);
                self.dials.insert(link, smol::spawn(dial));
            }
            Action::Drop { link } => {
                // The task that dials may be the one that reported: it is done then, and dropping it changes nothing.
                self.dials.remove(&link);
                lock(&self.sockets).remove(&link);
            }
            Action::Post { call, target, headers, body, read, timeouts } => {
                self.posts.retain(|_, task| !task.is_finished());
                let node = Arc::clone(&self.node);
                let posting = async move {
                    let request = Post { target: &target, headers: &headers, body, read, timeouts };
                    let posted = post(node.security(), request).await;
                    node.posted(call, &posted);
                };
                self.posts.insert(call, smol::spawn(posting));
            }
        }
    }
}

impl<W: Wire> Drop for Turner<W> {
    fn drop(&mut self) {
        self.node.ended();
    }
}

async fn time(wait: Wait) {
    match wait.until {
        Some(at) => {
            Timer::at(at).await;
        }
        None => pending().await,
    }
}

async fn readable(socket: Option<&Socket>) {
    match socket {
        // An error is found by the node when it reads.
        Some(socket) => drop(socket.readable().await),
        None => pending().await,
    }
}

async fn writable(socket: Option<&Socket>, wanted: bool) {
    match socket.filter(|_| wanted) {
        Some(socket) => drop(socket.writable().await),
        None => pending().await,
    }
}

async fn dial<W: Wire>(node: Arc<Node<W>>, sockets: Sockets, target: Target, link: LinkId) {
    let failed = |why| (why, RetryHint::NONE);
    let dialed = async {
        let deadline = Deadline::after(node.longest_attempt());
        let (socket, io) = connect(node.security(), &target, &deadline).await.map_err(failed)?;
        let io = Timed::new(FuturesIo::new(io), SmolTimer::new(), deadline.clone());
        let (io, early) = http::dial(io, &target, node.subprotocol(), &deadline).await?;
        Ok((socket, io.into_inner().into_inner(), early))
    };
    let dialed = dialed.await;
    let mut sockets = lock(&sockets);
    let watched = dialed.as_ref().ok().map(|(socket, ..)| Arc::clone(socket));
    let dialed = dialed.map(|(_, io, early)| (Box::new(io.channel) as Box<dyn Stream>, early));
    if node.dialed(link, dialed)
        && let Some(socket) = watched
    {
        sockets.insert(link, socket);
    }
}

/// Connects and posts.
pub(crate) async fn post(security: &Security, request: Post<'_>) -> Posted {
    let deadline = Deadline::after(request.timeouts.progress);
    match connect(security, request.target, &deadline).await {
        Ok((_, io)) => {
            let io = Timed::new(FuturesIo::new(io), SmolTimer::new(), deadline.clone());
            http::post(io, &deadline, request).await
        }
        Err(why) => Posted::Unreached(why),
    }
}

/// Looks the name up, tries every address of it in turn, then encrypts if the URL says so, all within the deadline.
pub(crate) async fn connect(
    security: &Security,
    target: &Target,
    deadline: &Deadline,
) -> Result<(Socket, Io), Explanation> {
    let connected = async {
        let addresses = smol::net::resolve((target.host(), target.port())).await;
        let addresses = addresses.map_err(|error| Explanation::of_lookup(&error))?;
        if addresses.is_empty() {
            return Err(Reason::NoSuchName.into());
        }
        let system = |error| Explanation::of_connection(&error);
        let socket = TcpStream::connect(addresses.as_slice()).await.map_err(system)?;
        socket.set_nodelay(true).map_err(system)?;
        let socket = Socket::from(socket);
        let mut io = Io::new(Arc::clone(&socket), |socket| security.dial(socket, target)).map_err(system)?;
        io.handshake().await.map_err(|error| Explanation::of_handshake(&error))?;
        Ok((socket, io))
    };
    let late = async {
        Timer::at(deadline.at()).await;
        Err(Reason::Timeout.into())
    };
    connected.or(late).await
}

async fn listen<W: Wire>(node: Arc<Node<W>>, sockets: Sockets, peers: Peers, listener: Async<TcpListener>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let socket = Socket::new(socket);
                let mut peers = lock(&peers);
                peers.retain(|peer| !peer.task.is_finished());
                let refused = peers.iter().filter(|peer| peer.refused).count();
                let (node, open) = (Arc::clone(&node), Arc::downgrade(&socket));
                if peers.len() - refused < CONNECTIONS {
                    let task = smol::spawn(serve(node, Arc::clone(&sockets), socket));
                    peers.push(Peer { task, socket: open, refused: false });
                } else if refused < CONNECTIONS {
                    peers.push(Peer { task: smol::spawn(refuse(node, socket)), socket: open, refused: true });
                }
            }
            Err(_) => {
                Timer::after(BREATH).await;
            }
        }
    }
}

/// Tells a connection that there is no place for it, and when to come back.
async fn refuse<W: Wire>(node: Arc<Node<W>>, socket: Socket) {
    let limits = *node.limits();
    let deadline = Deadline::after(limits.linger);
    let Ok(io) = Io::new(socket, |socket| node.security().accept(socket)) else { return };
    let io = Timed::new(FuturesIo::new(io), SmolTimer::new(), deadline.clone());
    http::refuse(io, &deadline, &limits, Answer::BUSY).await;
}

async fn serve<W: Wire>(node: Arc<Node<W>>, sockets: Sockets, socket: Socket) {
    let limits = *node.limits();
    let deadline = Deadline::after(limits.head);
    if socket.get_ref().set_nodelay(true).is_err() {
        return;
    }
    let Ok(io) = Io::new(Arc::clone(&socket), |socket| node.security().accept(socket)) else { return };
    let io = Timed::new(FuturesIo::new(io), SmolTimer::new(), deadline.clone());
    let served = http::serve(io, &deadline, &limits, node.routes(), |callback| node.callback(callback)).await;
    if let Served::Upgraded { io, read_buf } = served {
        let mut sockets = lock(&sockets);
        if let Some(link) = node.accepted(Box::new(io.into_inner().into_inner().channel), &read_buf) {
            sockets.insert(link, socket);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
