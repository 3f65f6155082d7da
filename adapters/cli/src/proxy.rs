//! A TCP proxy that breaks real loopback connections on purpose, one [`Fault`] at a time.
//!
//! ```text
//!             knock (wakes, and marks who came before)
//!  set(fault) ───────────┐
//!      │            ┌────▼─────┐ one line a client, at most 64
//!      │  client ──►│ acceptor ├──────────────┐
//!      │            └──────────┘              ▼
//!      │                      ┌──────────────────────────────────┐
//!      └─────────────────────►│ peek ─► gate ─► read ─► write    │ ──► server
//!        wakes every gate,    │    write ◄─ read ◄─ gate ◄─ peek │ ◄──
//!        cuts lines (RST)     └──────────────────────────────────┘
//! ```
//!
//! A *line* is a client's socket, the socket to the server and a thread for each direction. A direction waits in a
//! blocking peek, which takes nothing; then the gate asks the fault how much of what was seen may pass; only that much
//! is read and written. So a held byte stays in the kernel, a held sender feels it, and a byte sent after
//! [`Proxy::set`] returned never slips through on an older fault. An end of stream passes the gate like a byte does and
//! becomes a half-close on the other side; an error on one side becomes a reset on both.
//!
//! Nothing polls at idle. Reads are woken by shutting down the reading half, which sends nothing to the peer; only a
//! write that is stuck looks up every 20 ms; the acceptor is woken by a connection of our own, the knock. Connections
//! are accepted in order, so whoever connected before the knock has a line once the knock was heard.

use core::net::{Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::Instant;

use socket2::{Domain, SockRef, Socket, Type};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::protocol::CloseFrame;

/// Lines at one time; a connection beyond them is reset.
const MAX_LINES: usize = 64;
/// What a direction moves at once.
const CHUNK: usize = 16 * 1024;
/// The kernel's receive buffer of every socket: fixed, so that a held sender feels it soon.
const KERNEL_BUFFER: usize = 64 * 1024;
const BACKLOG: i32 = 128;
/// How often a stuck write looks up, and how often what failed at the listening socket is tried again.
const LOOK_UP: Duration = Duration::from_millis(20);
/// The most that anything here waits for anybody else.
const LIMIT: Duration = Duration::from_secs(1);
/// A wait that only a notification ends.
const UNTIL_TOLD: Duration = Duration::from_secs(3600);

/// What the proxy does to the connections that run through it.
///
/// ```
/// use bowline_cli::proxy::Fault;
/// assert_eq!(Fault::default(), Fault::Calm);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Forwards both ways at once.
    #[default]
    Calm,
    /// Resets (RST) all connections there are; new ones pass.
    Reset,
    /// Holds the bytes of a direction on open and new connections. They wait in the kernel, and the next fault
    /// releases them: nothing is lost. The end of a stream is held as well, so a peer that leaves may go unnoticed
    /// until then, and counts towards the limit.
    Silence(Direction),
    /// Both directions of every connection at this rate: a slow reader. Zero holds both.
    Slow {
        /// The rate of each direction of each connection.
        bytes_per_second: u64,
    },
    /// Accepts a WebSocket ourselves, with the first subprotocol offered, and closes it at once: accept-then-1008. The
    /// server hears nothing of it. A connection that does not begin with a GET, such as an HTTP POST, is forwarded; a
    /// GET that is no WebSocket handshake is reset; so are existing connections.
    CloseEarly {
        /// The close code; 1008 is the one seen in the field.
        code: u16,
        /// The close reason, at most 123 bytes.
        reason: &'static str,
    },
    /// Answers every request of new connections with this HTTP status, as a login proxy does, and resets existing ones. The
    /// server hears nothing of it.
    Status(u16),
    /// Connection refused: nobody listens, though the port stays ours. Existing connections are reset. The next fault
    /// opens the same port again.
    Refuse,
    /// For connections made while it is set: forwards the request, swallows the answer, and resets both ends when its
    /// first byte (or the end of the stream) has arrived: an HTTP answer lost after the work was done.
    LoseAnswers,
}

/// The way bytes go.
///
/// ```
/// use bowline_cli::proxy::{Direction, Fault};
/// let mute_server = Fault::Silence(Direction::ToClient);
/// # let _ = mute_server;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
    /// Both ways.
    Both,
}

/// What has happened since the start.
///
/// ```
/// # use bowline_cli::proxy::Counts;
/// assert_eq!(Counts::default().accepted, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted, those over the limit included.
    pub accepted: u64,
    /// Connections open now.
    pub open: usize,
    /// Clients turned away because the server could not be reached; each counts as reset, too.
    pub refused_upstream: u64,
    /// Connections ended with a reset, by a fault or because one end failed.
    pub reset: u64,
    /// Bytes forwarded to the server.
    pub to_server: u64,
    /// Bytes forwarded to clients.
    pub to_client: u64,
}

/// Sees what a proxy passes on, before the receiver does. It is called on the threads of the connections, whose bytes wait
/// meanwhile.
///
/// ```
/// use bowline_cli::proxy::{Direction, Proxy, Tap};
/// use std::io::{Read as _, Write as _};
/// use std::net::{TcpListener, TcpStream};
/// use std::sync::{Arc, Mutex};
///
/// #[derive(Debug, Default)]
/// struct Bytes(Mutex<Vec<u8>>);
///
/// impl Tap for Bytes {
///     fn passes(&self, _line: u64, _way: Direction, bytes: &[u8]) {
///         self.0.lock().unwrap().extend(bytes);
///     }
///     fn over(&self, _line: u64) {}
/// }
///
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let seen = Arc::new(Bytes::default());
/// let proxy = Proxy::tapped(server.local_addr()?, Some(seen.clone()))?;
/// TcpStream::connect(proxy.addr())?.write_all(b"hello")?;
/// server.accept()?.0.read_exact(&mut [0; 5])?;
/// assert_eq!(*seen.0.lock().unwrap(), b"hello");
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Tap: core::fmt::Debug + Send + Sync {
    /// These bytes are about to be written, of this connection, [`Direction::ToServer`] or [`Direction::ToClient`].
    /// Connections are numbered from 0 as they are accepted.
    fn passes(&self, line: u64, way: Direction, bytes: &[u8]);

    /// This connection is over.
    fn over(&self, line: u64);
}

/// A running proxy.
///
/// ```
/// use bowline_cli::proxy::{Fault, Proxy};
/// use std::net::{TcpListener, TcpStream};
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let proxy = Proxy::start(server.local_addr()?)?;
/// let _client = TcpStream::connect(proxy.addr())?;
/// let _through = server.accept()?;
/// proxy.set(Fault::Refuse);
/// assert!(TcpStream::connect(proxy.addr()).is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Dropping it resets every connection, closes the port and joins every thread, within a second or so.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    /// One `set` at a time.
    turn: Mutex<()>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `upstream`, which need not be there yet.
    pub fn start(upstream: SocketAddr) -> io::Result<Self> {
        Self::tapped(upstream, None)
    }

    /// As [`start`](Self::start), and somebody sees everything that passes.
    pub fn tapped(upstream: SocketAddr, tap: Option<Arc<dyn Tap>>) -> io::Result<Self> {
        let listener = listen(bind((Ipv4Addr::LOCALHOST, 0).into())?)?;
        let addr = listener.local_addr()?;
        let state = Mutex::new(State {
            upstream,
            listening: true,
            fault: Fault::Calm,
            stop: false,
            knock: None,
            lines: BTreeMap::new(),
            counts: Counts::default(),
        });
        let shared = Arc::new(Shared { addr, tap, state, changed: Condvar::new() });
        let acceptor = shared.thread().spawn({
            let shared = shared.clone();
            move || shared.run(listener)
        })?;
        Ok(Self { shared, acceptor: Some(acceptor), turn: Mutex::new(()) })
    }

    /// Where clients connect; the same for the proxy's whole life.
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// Replaces the fault; on return (at most some seconds later) it is in effect, and what it resets or closes is gone.
    /// It rules every connection made before this call, every one made after it and every byte sent after it.
    pub fn set(&self, fault: Fault) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let refuse = fault == Fault::Refuse;
        let cuts = refuse || matches!(fault, Fault::Reset | Fault::CloseEarly { .. } | Fault::Status(_));
        self.shared.knock();
        self.shared.change(cuts, |state| state.fault = fault);
        self.shared.wait(|state| !cuts || state.lines.values().all(|line| !line.is_cut()));
        if refuse {
            self.shared.knock();
        }
        self.shared.wait(|state| state.listening != refuse);
    }

    /// Forwards the connections made from now on to another place: two nodes that need each other's address can then
    /// both begin behind a proxy.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.shared.lock().upstream = upstream;
    }

    /// The fault set last.
    pub fn fault(&self) -> Fault {
        self.shared.lock().fault
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        let state = self.shared.lock();
        Counts { open: state.lines.len(), ..state.counts }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.change(true, |state| state.stop = true);
        self.shared.wait(|state| state.lines.is_empty());
        self.shared.knock();
        // If the knock failed (no file descriptor left), the acceptor sleeps on and ends with the next connection.
        if let Some(acceptor) = self.acceptor.take().filter(|_| !self.shared.lock().listening) {
            let _ = acceptor.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    addr: SocketAddr,
    tap: Option<Arc<dyn Tap>>,
    state: Mutex<State>,
    /// Told of a new fault, a cut line, a line that left, a knock that was heard, a port opened or closed.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    fault: Fault,
    stop: bool,
    listening: bool,
    /// Where the knock on its way comes from.
    knock: Option<SocketAddr>,
    lines: BTreeMap<u64, Arc<Line>>,
    counts: Counts,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits, within the limit, until the state is as wished.
    fn wait(&self, wished: impl Fn(&State) -> bool) {
        drop(self.changed.wait_timeout_while(self.lock(), LIMIT, |state| !wished(state)));
    }

    /// Changes the state, cuts all lines if asked to, and wakes everybody who waits.
    fn change(&self, cut: bool, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        if cut {
            state.lines.values().for_each(|line| line.cut());
        }
        self.changed.notify_all();
    }

    /// Connects to ourselves and waits until the acceptor has heard it, or closed the port.
    fn knock(&self) {
        let mut state = self.lock();
        if !state.listening {
            return;
        }
        // Under the lock, so that the acceptor can't meet a knock it does not know yet.
        let Ok(knock) = TcpStream::connect_timeout(&self.addr, LIMIT) else { return };
        state.knock = knock.local_addr().ok();
        drop(state);
        self.wait(|state| state.knock.is_none() || !state.listening);
    }

    fn thread(&self) -> thread::Builder {
        thread::Builder::new().name(format!("proxy {}", self.addr.port()))
    }

    /// The acceptor's life. The scope's end joins the threads of all lines.
    fn run(&self, listener: TcpListener) {
        thread::scope(|scope| {
            let mut next = Some(listener);
            while let Some(listener) = next {
                self.accept(scope, &listener);
                drop(listener);
                next = self.reopen();
            }
        });
    }

    /// Gives every client a line, until the port has to close.
    fn accept<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, listener: &TcpListener) {
        loop {
            let accepted = listener.accept();
            let mut state = self.lock();
            if state.stop || state.fault == Fault::Refuse {
                return accepted.iter().for_each(|(client, _)| reset_at_close(client));
            }
            let Ok((client, from)) = accepted else {
                drop(self.sleep(state, LOOK_UP));
                continue;
            };
            if state.knock == Some(from) {
                state.knock = None;
                self.changed.notify_all();
                continue;
            }
            let (id, met) = (state.counts.accepted, state.fault);
            state.counts.accepted += 1;
            tune(&client);
            let line = Arc::new(Line { id, client, server: OnceLock::new(), cut: AtomicBool::new(false) });
            if state.lines.len() >= MAX_LINES {
                line.cut();
                state.counts.reset += 1;
                continue;
            }
            state.lines.insert(id, line.clone());
            drop(state);
            let life = move || {
                self.serve(&line, met);
                drop(line);
                self.leave(id);
            };
            if self.thread().spawn_scoped(scope, life).is_err() {
                self.leave(id);
            }
        }
    }

    /// Holds the port without listening, so that nobody else gets it, until clients may come again.
    fn reopen(&self) -> Option<TcpListener> {
        let mut held = bind(self.addr);
        let mut state = self.lock();
        (state.listening, state.knock) = (false, None);
        self.changed.notify_all();
        while !state.stop {
            if state.fault == Fault::Refuse {
                state = self.sleep(state, UNTIL_TOLD);
            } else if let Ok(listener) = held.and_then(listen) {
                state.listening = true;
                self.changed.notify_all();
                return Some(listener);
            } else {
                state = self.sleep(state, LOOK_UP);
                held = bind(self.addr);
            }
        }
        None
    }

    /// A line's whole life, by the fault it met at the door.
    fn serve(&self, line: &Line, met: Fault) {
        let orderly = match met {
            Fault::CloseEarly { code, reason } if begins_with_get(&line.client) => {
                close_early(&line.client, code, reason)
            }
            Fault::Status(status) => answer(&line.client, status),
            _ => self.connect(line).is_some_and(|server| self.relay(line, server, met == Fault::LoseAnswers)),
        };
        if !orderly {
            line.cut();
        }
    }

    /// The last owner of the line's sockets drops them here: this is where the RST or the last FIN goes out.
    fn leave(&self, id: u64) {
        if let Some(tap) = &self.tap {
            tap.over(id);
        }
        self.change(false, |state| {
            let reset = state.lines.remove(&id).is_some_and(|line| line.is_cut());
            state.counts.reset += u64::from(reset);
        });
    }

    fn connect<'a>(&self, line: &'a Line) -> Option<&'a TcpStream> {
        let upstream = self.lock().upstream;
        let connected = TcpStream::connect_timeout(&upstream, LIMIT);
        let mut state = self.lock();
        let Ok(server) = connected else {
            state.counts.refused_upstream += 1;
            return None;
        };
        tune(&server);
        // Lines are cut under the lock: a cut came before and shows here, or comes after and finds the server.
        (!line.is_cut()).then(|| line.server.get_or_init(|| server))
    }

    fn relay(&self, line: &Line, server: &TcpStream, lose: bool) -> bool {
        thread::scope(|scope| {
            let answers = self.thread().spawn_scoped(scope, || self.pump(line, server, Direction::ToClient, lose));
            answers.is_ok().then(|| self.pump(line, server, Direction::ToServer, false)).is_some()
        })
    }

    /// Serves one direction; its failure is the other one's end, too.
    fn pump(&self, line: &Line, server: &TcpStream, way: Direction, lose: bool) {
        if self.copy(line, server, way, lose).is_err() {
            self.change(false, |_| line.cut());
        }
    }

    /// Moves bytes until the end of the stream, and passes that on. An error means that the line is cut, or must be.
    fn copy(&self, line: &Line, server: &TcpStream, way: Direction, lose: bool) -> io::Result<()> {
        let client = &line.client;
        let (mut from, mut to) = if way == Direction::ToServer { (client, server) } else { (server, client) };
        let mut buffer = vec![0; CHUNK];
        let mut last = (Instant::now(), 0);
        loop {
            let seen = match from.peek(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                seen => seen?,
            };
            let share = self.gate(line, way, seen, &mut last)?;
            if lose {
                return Err(ErrorKind::ConnectionReset.into());
            }
            if seen == 0 {
                return to.shutdown(Shutdown::Write);
            }
            let read = from.read(&mut buffer[..share])?;
            let mut rest = &buffer[..read];
            if let Some(tap) = &self.tap {
                tap.passes(line.id, way, rest);
            }
            while !rest.is_empty() {
                match to.write(rest) {
                    _ if line.is_cut() => return Err(ErrorKind::ConnectionReset.into()),
                    Ok(written) => {
                        rest = &rest[written..];
                        self.lock().counts.add(way, written);
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Waits until the fault lets bytes through and says how many of those seen. `last` is when how many went slowly.
    fn gate(&self, line: &Line, way: Direction, seen: usize, last: &mut (Instant, u64)) -> io::Result<usize> {
        let mut state = self.lock();
        while !line.is_cut() {
            match state.fault.admits(way, seen, last.1, last.0.elapsed()) {
                Ok(share) => {
                    let slow = matches!(state.fault, Fault::Slow { .. });
                    *last = (Instant::now(), if slow { share as u64 } else { 0 });
                    return Ok(share);
                }
                Err(wait) => state = self.sleep(state, wait),
            }
        }
        Err(ErrorKind::ConnectionReset.into())
    }
}

impl Fault {
    /// How many of the bytes seen may pass this way, `elapsed` after the `last` ones; or how long to wait.
    fn admits(self, way: Direction, seen: usize, last: u64, elapsed: Duration) -> Result<usize, Duration> {
        match self {
            Self::Silence(held) if held == way || held == Direction::Both => Err(UNTIL_TOLD),
            Self::Slow { bytes_per_second: 0 } => Err(UNTIL_TOLD),
            Self::Slow { bytes_per_second } => {
                let portion = (bytes_per_second / 50).clamp(1, CHUNK as u64);
                let owed = Duration::from_nanos(last.min(portion) * 1_000_000_000 / bytes_per_second);
                let share = seen.min(usize::try_from(portion).unwrap_or(CHUNK));
                if elapsed < owed { Err(owed - elapsed) } else { Ok(share) }
            }
            _ => Ok(seen),
        }
    }
}

impl Counts {
    fn add(&mut self, way: Direction, bytes: usize) {
        let count = if way == Direction::ToServer { &mut self.to_server } else { &mut self.to_client };
        *count += bytes as u64;
    }
}

/// One client and its way to the server. Dropped whole; a reset if it was cut.
#[derive(Debug)]
struct Line {
    id: u64,
    client: TcpStream,
    server: OnceLock<TcpStream>,
    cut: AtomicBool,
}

impl Line {
    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Both sockets will close with a reset, and whoever reads one of them wakes now.
    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        for socket in [Some(&self.client), self.server.get()].into_iter().flatten() {
            reset_at_close(socket);
            let _ = socket.shutdown(Shutdown::Read);
        }
    }
}

/// Best effort: a socket whose peer is gone refuses options, and its next use says so.
fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = socket.set_write_timeout(Some(LOOK_UP));
    let _ = SockRef::from(socket).set_recv_buffer_size(KERNEL_BUFFER);
}

fn reset_at_close(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

fn bind(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // On Windows the option means another thing, and reopening a port needs none.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Waits for the first bytes and leaves them where they are.
fn begins_with_get(client: &TcpStream) -> bool {
    let mut first = [0; 4];
    client.peek(&mut first).is_ok_and(|seen| b"GET ".starts_with(&first[..seen]))
}

/// Reads the head of a request, answers with `status` and ends the stream. The rest of the request is thrown away: a socket
/// closed with bytes unread is reset, and the answer lost.
fn answer(mut client: &TcpStream, status: u16) -> bool {
    let deadline = Instant::now() + LIMIT;
    let _ = client.set_read_timeout(Some(LIMIT));
    let (mut head, mut chunk) = (Vec::new(), [0; CHUNK]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < CHUNK && Instant::now() < deadline {
        let Ok(read @ 1..) = client.read(&mut chunk) else { return false };
        head.extend_from_slice(&chunk[..read]);
    }
    let answer = format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let told = client.write_all(answer.as_bytes()).and_then(|()| client.shutdown(Shutdown::Write));
    while told.is_ok() && Instant::now() < deadline && client.read(&mut chunk).is_ok_and(|read| read > 0) {}
    told.is_ok()
}

/// Completes the handshake, closes, and waits a while for the answer; false if there was no handshake.
fn close_early(client: &TcpStream, code: u16, reason: &'static str) -> bool {
    let deadline = Instant::now() + LIMIT;
    let _ = client.set_read_timeout(Some(LIMIT));
    let Ok(mut socket) = tungstenite::accept_hdr(client, agree) else { return false };
    let closed = socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
    while closed.is_ok() && Instant::now() < deadline && socket.read().is_ok() {}
    closed.is_ok()
}

/// Picks the first subprotocol offered: a client that offered some and got none would call the handshake failed.
#[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    const NAME: &str = "Sec-WebSocket-Protocol";
    let offered =
        request.headers().get(NAME).and_then(|offered| offered.to_str().ok()?.split(',').next()?.trim().parse().ok());
    if let Some(first) = offered {
        response.headers_mut().insert(NAME, first);
    }
    Ok(response)
}
