//! A blocking socket that HTTP's futures can be driven with, on a thread of its own.
//!
//! ```text
//! block_on ─▶ future ─▶ poll_read ─ first time ─▶ Pending, and woken at once: whatever else can go on goes on
//!     ▲                      └───── next time ──▶ waits in the system, no longer than the Deadline ─▶ Ready
//!     └──────────────────── woken ─────────────┘
//!                         poll_write ───────────▶ waits in the system, no longer than the Deadline ─▶ Ready
//! ```
//!
//! Decided here: that a read gives the rest of the future one turn before it blocks. The turn matters: the code that
//! reads a body first puts `100 Continue` into a buffer and then reads, and a read that blocked at once would keep the
//! buffer from being written, while the peer waits for just that (found with curl, which gives up waiting after 1 s).
//!
//! Invariants: an operation never lasts longer than the deadline; after a `Pending` the waker has been called, so no
//! executor can sleep on it.

use bowline_transport::http::Deadline;
use core::borrow::Borrow;
use core::pin::Pin;
use core::task::{Context, Poll};
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

/// Runs a future on this thread until it is done. Futures over a [`BlockingIo`] block in the system, all others park
/// the thread until they are woken.
pub use pollster::block_on;

/// As much as one read takes from the system, in bytes.
const PIECE: usize = 16 * 1024;

/// A blocking TCP socket, owned or shared (`TcpStream`, `&TcpStream`, `Arc<TcpStream>`), whose reads and writes fail
/// with [`ErrorKind::TimedOut`] once its [`Deadline`] has passed.
///
/// The future that uses it should be alone on its thread ([`block_on`]): whatever else it waits for has to wait while
/// a read does. Another thread ends the waiting with [`TcpStream::shutdown`] on its share of the socket.
///
/// ```
/// use bowline_blocking::io::{BlockingIo, block_on};
/// use bowline_transport::http::{Answer, Deadline, GONKA_CALLBACKS, Limits, Routes, Served, serve};
/// use std::io::{Read as _, Write as _};
/// use std::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut peer = TcpStream::connect(listener.local_addr()?)?;
/// peer.write_all(b"POST /v1/poc-batches/generated HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")?;
///
/// let thread = std::thread::spawn(move || -> std::io::Result<()> {
///     let (socket, _) = listener.accept()?;
///     let limits = Limits::default();
///     let deadline = Deadline::after(limits.head);
///     let routes = Routes { websocket: None, callbacks: GONKA_CALLBACKS };
///     let io = BlockingIo::new(socket, deadline.clone())?;
///     let served = block_on(serve(io, &deadline, &limits, &routes, async |_batch| Answer::OK));
///     assert!(matches!(served, Served::Done));
///     Ok(())
/// });
/// let mut answer = String::new();
/// peer.read_to_string(&mut answer)?;
/// assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
/// # drop(peer);
/// # thread.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct BlockingIo<S> {
    stream: S,
    deadline: Deadline,
    /// hyper's buffers can only be filled by copying, without unsafe code.
    buffer: Box<[u8]>,
    /// The last call was a read that gave up its turn.
    yielded: bool,
}

impl<S: Borrow<TcpStream>> BlockingIo<S> {
    /// `stream` is made blocking, as one that was accepted by a non-blocking listener is not everywhere.
    ///
    /// # Errors
    ///
    /// The system's, if it cannot be made blocking.
    pub fn new(stream: S, deadline: Deadline) -> io::Result<Self> {
        stream.borrow().set_nonblocking(false)?;
        Ok(Self { stream, deadline, buffer: vec![0; PIECE].into_boxed_slice(), yielded: false })
    }

    /// The socket, waiting without end again.
    ///
    /// # Errors
    ///
    /// The system's, if the time limits cannot be taken off.
    pub fn into_inner(self) -> io::Result<S> {
        let stream = self.stream.borrow();
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok(self.stream)
    }

    fn write_with(&mut self, mut write: impl FnMut(&mut &TcpStream) -> io::Result<usize>) -> Poll<io::Result<usize>> {
        self.yielded = false;
        let mut stream: &TcpStream = self.stream.borrow();
        Poll::Ready(patiently(&self.deadline, |left| {
            stream.set_write_timeout(Some(left))?;
            write(&mut stream)
        }))
    }
}

/// Repeats an operation that a signal interrupted, and gives the end of its time one name on every system.
fn patiently(
    deadline: &Deadline,
    mut operation: impl FnMut(core::time::Duration) -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match operation(deadline.check()?) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            // A limit may end a moment before the deadline does: then there is time for another try.
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            done => return done,
        }
    }
}

impl<S: Borrow<TcpStream> + Unpin> Read for BlockingIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.yielded {
            this.yielded = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.yielded = false;
        let room = buf.remaining().min(this.buffer.len());
        let (piece, _) = this.buffer.split_at_mut(room);
        let mut stream: &TcpStream = this.stream.borrow();
        let read = patiently(&this.deadline, |left| {
            stream.set_read_timeout(Some(left))?;
            stream.read(piece)
        })?;
        buf.put_slice(piece.get(..read).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: Borrow<TcpStream> + Unpin> Write for BlockingIo<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write_with(|stream| stream.write(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket keeps nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match self.stream.borrow().shutdown(Shutdown::Write) {
            Err(e) if e.kind() == ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(self: Pin<&mut Self>, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.get_mut().write_with(|stream| stream.write_vectored(bufs))
    }
}
