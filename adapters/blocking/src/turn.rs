//! The session's thread, and the threads that wait for one thing each.
//!
//! Decided here: which thread waits for what, and how all of them end. Invariants: no thread waits without a limit; when
//! the session is over its thread has joined all others that wait on a socket, and those that still look up a name end
//! as soon as they have it.

use crate::io::{BlockingIo, block_on};
use bowline::{LinkId, Reason, RetryHint};
use bowline_transport::http::{self, Answer, Deadline, Post, Posted, Served, Target};
use bowline_transport::{Action, Explanation, Node, Setup, SetupError, Stream, Wire};
use core::net::SocketAddr;
use core::time::Duration;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

const WAKE: Token = Token(0);
const LISTENER: Token = Token(1);
const SOCKET: Token = Token(2);

/// How often a thread that connects looks whether it still should, on systems where nothing else wakes it.
const LOOK_UP: Duration = Duration::from_millis(250);

/// The most connections to our listener at once. Further ones are answered 503 (U13), at most this many at once.
const CONNECTIONS: usize = 64;

/// After the system refused a connection for want of something, such as file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// The node, where it listens, and its thread.
pub(crate) type Started<W> = (Arc<Node<W>>, Option<SocketAddr>, JoinHandle<()>);

pub(crate) fn start<W: Wire>(setup: &Setup<W>) -> Result<Started<W>, SetupError> {
    let poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), WAKE)?;
    let node = Node::new(setup, move || {
        // Full only if it has been woken already.
        let _ = waker.wake();
    })?;
    let listener = setup.listen_on().map(bowline_transport::listen).transpose()?;
    let address = listener.as_ref().map(TcpListener::local_addr).transpose()?;
    let mut listener = listener.map(listening).transpose()?;
    if let Some(listener) = &mut listener {
        poll.registry().register(listener, LISTENER, Interest::READABLE)?;
    }
    let turner = Turner {
        node: Arc::clone(&node),
        poll,
        listener,
        short: false,
        sockets: Arc::default(),
        watched: None,
        helpers: Vec::new(),
    };
    let thread = Builder::new().name("bowline".into()).spawn(move || turner.run())?;
    Ok((node, address, thread))
}

fn listening(listener: TcpListener) -> io::Result<mio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    Ok(mio::net::TcpListener::from_std(listener))
}

/// The sockets of attempts and connections; locked while the node learns of one, so that the session's thread finds
/// whatever the node tells it to watch.
type Sockets = Arc<Mutex<BTreeMap<LinkId, Arc<TcpStream>>>>;

/// A thread that waits for one thing.
struct Helper {
    thread: JoinHandle<()>,
    slot: Slot,
    work: Work,
}

/// What a thread waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// An attempt to connect, or a request of ours.
    Ours,
    /// A peer's request: its answer may still have to be written.
    Serve,
    /// A peer for which there is no place: its answer, too.
    Refuse,
}

/// Where a thread leaves the socket it waits on, so that others can end its wait.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    socket: Weak<TcpStream>,
    over: bool,
}

impl Slot {
    /// Leaves a socket.
    ///
    /// # Errors
    /// The thread should end instead.
    fn hold(&self, socket: &Arc<TcpStream>) -> io::Result<()> {
        let mut waiting = lock(&self.0);
        waiting.socket = Arc::downgrade(socket);
        if waiting.over { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn over(&self) -> bool {
        lock(&self.0).over
    }

    /// Ends the wait, now or as soon as there is a socket; false: there is none yet.
    fn end(&self, how: Shutdown) -> bool {
        let mut waiting = lock(&self.0);
        waiting.over = true;
        let socket = waiting.socket.upgrade();
        socket.inspect(|socket| drop(socket.shutdown(how))).is_some()
    }
}

struct Turner<W: Wire> {
    node: Arc<Node<W>>,
    poll: Poll,
    listener: Option<mio::net::TcpListener>,
    /// Somebody waits there, but the system was short of something; it will not tell again.
    short: bool,
    sockets: Sockets,
    watched: Option<(LinkId, mio::net::TcpStream)>,
    helpers: Vec<Helper>,
}

impl<W: Wire> Turner<W> {
    fn run(mut self) {
        let mut events = Events::with_capacity(8);
        let mut actions = Vec::new();
        loop {
            let wait = self.node.turn(&mut actions);
            for action in actions.drain(..) {
                self.act(action);
            }
            if wait.over {
                break;
            }
            if !self.watch(wait.read) {
                continue;
            }
            let left = wait.until.map(|at| at.saturating_duration_since(Instant::now()));
            let left = if self.short { Some(left.map_or(BREATH, |left| left.min(BREATH))) } else { left };
            match self.poll.poll(&mut events, left) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Without its poll the thread could only spin; everybody is told that it ends.
                Err(_) => break,
            }
            if self.short || events.iter().any(|event| event.token() == LISTENER) {
                self.accept();
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Dial { link } => self.dial(link),
            Action::Drop { link } => {
                self.watched.take_if(|(watched, _)| *watched == link);
                if let Some(socket) = lock(&self.sockets).remove(&link) {
                    let _ = socket.shutdown(Shutdown::Both);
                }
            }
            Action::Post { call, target, headers, body, read, timeouts } => {
                let node = Arc::clone(&self.node);
                let unstarted = Arc::clone(&self.node);
                let spawned = self.help("bowline-post", Work::Ours, move |slot| {
                    let request = Post { target: &target, headers: &headers, body, read, timeouts };
                    node.posted(call, &post(&node, request, slot));
                });
                if !spawned {
                    unstarted.posted(call, &Posted::Unreached(Reason::System.into()));
                }
            }
        }
    }

    /// Watches the connection that the node reads; edge by edge, as the node always reads and writes all it can. False:
    /// it cannot be watched, so it was ended, and the node finds that end when it is turned next.
    fn watch(&mut self, read: Option<LinkId>) -> bool {
        if self.watched.as_ref().map(|(link, _)| *link) == read {
            return true;
        }
        self.watched = None;
        let Some(link) = read else { return true };
        let Some(socket) = lock(&self.sockets).get(&link).map(Arc::clone) else { return true };
        let watched = socket.try_clone().map(mio::net::TcpStream::from_std).and_then(|mut stream| {
            self.poll.registry().register(&mut stream, SOCKET, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match watched {
            Ok(stream) => self.watched = Some((link, stream)),
            Err(_) => {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        self.watched.is_some()
    }

    fn dial(&mut self, link: LinkId) {
        let Some(target) = self.node.url().cloned() else { return };
        let (node, sockets) = (Arc::clone(&self.node), Arc::clone(&self.sockets));
        let unstarted = Arc::clone(&self.node);
        let spawned = self.help("bowline-dial", Work::Ours, move |slot| {
            let deadline = Deadline::after(node.longest_attempt());
            let failed = |why| (why, RetryHint::NONE);
            let hold = |socket: &Arc<TcpStream>| {
                lock(&sockets).insert(link, Arc::clone(socket));
                slot.hold(socket)
            };
            let dialed = connect(&node, &target, &deadline, slot, hold).map_err(failed).and_then(|io| {
                let (io, early) = block_on(http::dial(io, &target, node.subprotocol(), &deadline))?;
                let channel = io.into_nonblocking().map_err(|error| failed(Explanation::of_connection(&error)))?;
                Ok((Box::new(channel) as Box<dyn Stream>, early))
            });
            if !node.dialed(link, dialed) {
                lock(&sockets).remove(&link);
            }
        });
        if !spawned {
            unstarted.dialed(link, Err((Reason::System.into(), RetryHint::NONE)));
        }
    }

    fn accept(&mut self) {
        self.short = false;
        loop {
            let Some(listener) = &self.listener else { return };
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // The peer is gone already.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
                Err(_) => {
                    self.short = true;
                    return;
                }
            };
            self.helpers.retain(|helper| !helper.thread.is_finished());
            let of = |work| self.helpers.iter().filter(|helper| helper.work == work).count();
            let work = match (of(Work::Serve), of(Work::Refuse)) {
                (..CONNECTIONS, _) => Work::Serve,
                (_, ..CONNECTIONS) => Work::Refuse,
                _ => continue,
            };
            let socket = Arc::new(TcpStream::from(socket));
            let (node, sockets) = (Arc::clone(&self.node), Arc::clone(&self.sockets));
            self.help("bowline-peer", work, move |slot| {
                if slot.hold(&socket).is_ok() {
                    match work {
                        Work::Refuse => refuse(&node, socket),
                        Work::Serve | Work::Ours => serve(&node, &sockets, socket),
                    }
                }
            });
        }
    }

    /// Runs something on a thread of its own, which leaves its socket in a slot so that the end of the session ends it.
    fn help(&mut self, name: &str, work: Work, run: impl FnOnce(&Slot) + Send + 'static) -> bool {
        self.helpers.retain(|helper| !helper.thread.is_finished());
        let slot = Slot::default();
        let own = slot.clone();
        match Builder::new().name(name.into()).spawn(move || run(&own)) {
            Ok(thread) => {
                self.helpers.push(Helper { thread, slot, work });
                true
            }
            Err(_) => false,
        }
    }
}

impl<W: Wire> Drop for Turner<W> {
    fn drop(&mut self) {
        self.node.ended();
        self.listener = None;
        // All of them first, or the end of each would wait for the end of the one before.
        self.helpers
            .retain(|helper| helper.slot.end(if helper.work == Work::Ours { Shutdown::Both } else { Shutdown::Read }));
        for helper in self.helpers.drain(..) {
            let _ = helper.thread.join();
        }
        for socket in lock(&self.sockets).values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Connects and posts.
fn post<W: Wire>(node: &Node<W>, request: Post<'_>, slot: &Slot) -> Posted {
    let deadline = Deadline::after(request.timeouts.progress);
    match connect(node, request.target, &deadline, slot, |socket| slot.hold(socket)) {
        Ok(io) => block_on(http::post(io, &deadline, request)),
        Err(why) => Posted::Unreached(why),
    }
}

/// Tells a connection that there is no place for it, and when to come back.
fn refuse<W: Wire>(node: &Node<W>, socket: Arc<TcpStream>) {
    let limits = *node.limits();
    let deadline = Deadline::after(limits.linger);
    let secure = |socket| node.security().accept(socket);
    if let Ok(io) = BlockingIo::secured(socket, deadline.clone(), secure) {
        block_on(http::refuse(io, &deadline, &limits, Answer::BUSY));
    }
}

fn serve<W: Wire>(node: &Arc<Node<W>>, sockets: &Sockets, socket: Arc<TcpStream>) {
    let limits = *node.limits();
    let deadline = Deadline::after(limits.head);
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let secure = |socket| node.security().accept(socket);
    let Ok(io) = BlockingIo::secured(Arc::clone(&socket), deadline.clone(), secure) else { return };
    let served = block_on(http::serve(io, &deadline, &limits, node.routes(), |callback| node.callback(callback)));
    if let Served::Upgraded { io, read_buf } = served
        && let Ok(channel) = io.into_nonblocking()
    {
        let mut sockets = lock(sockets);
        if let Some(link) = node.accepted(Box::new(channel), &read_buf) {
            sockets.insert(link, socket);
        }
    }
}

/// Looks the name up, tries every address of it in turn, then encrypts if the URL says so, all within the deadline; each
/// socket is held before anybody waits for it. The look-up itself has the system's own limit.
fn connect<W: Wire>(
    node: &Node<W>,
    target: &Target,
    deadline: &Deadline,
    slot: &Slot,
    hold: impl Fn(&Arc<TcpStream>) -> io::Result<()>,
) -> Result<BlockingIo<Arc<TcpStream>>, Explanation> {
    let addresses = (target.host(), target.port()).to_socket_addrs();
    let addresses = addresses.map_err(|error| Explanation::of_lookup(&error))?;
    let system = |error| Explanation::of_connection(&error);
    let socket = reach(addresses, deadline, slot, hold).ok_or(Reason::NoSuchName)?.map_err(system)?;
    let secure = |socket| node.security().dial(socket, target);
    let mut io = BlockingIo::secured(socket, deadline.clone(), secure).map_err(system)?;
    io.handshake().map_err(|error| Explanation::of_handshake(&error))?;
    Ok(io)
}

/// `None`: there is no address.
fn reach(
    addresses: impl Iterator<Item = SocketAddr>,
    deadline: &Deadline,
    slot: &Slot,
    hold: impl Fn(&Arc<TcpStream>) -> io::Result<()>,
) -> Option<io::Result<Arc<TcpStream>>> {
    let mut last = None;
    for address in addresses {
        let connected = mio::net::TcpStream::connect(address).map(TcpStream::from).and_then(|socket| {
            let socket = Arc::new(socket);
            hold(&socket)?;
            connected(&socket, deadline, slot)?;
            socket.set_nodelay(true)?;
            Ok(socket)
        });
        match connected {
            Err(error) if deadline.check().is_ok() && !slot.over() => last = Some(Err(error)),
            done => return Some(done),
        }
    }
    last
}

/// Waits until it is connected: not in `connect`, which nobody could interrupt.
fn connected(socket: &TcpStream, deadline: &Deadline, slot: &Slot) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1);
    let mut watched = mio::net::TcpStream::from_std(socket.try_clone()?);
    poll.registry().register(&mut watched, SOCKET, Interest::WRITABLE)?;
    loop {
        match poll.poll(&mut events, Some(deadline.check()?.min(LOOK_UP))) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ if slot.over() => return Err(ErrorKind::Interrupted.into()),
            _ => {}
        }
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Err(error) if error.kind() == ErrorKind::NotConnected => {}
            connected => return connected.map(drop),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
