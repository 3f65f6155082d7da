//! A blocking socket, plain or encrypted, that HTTP's futures can be driven with, on a thread of its own.
//!
//! ```text
//! block_on ─▶ future ─▶ poll_read ─▶ Pending, and asked for
//!     ▲                 poll_write ─▶ waits in the system, no longer than the Deadline ─▶ Ready
//!     ├─ somebody woke the future ─▶ poll it again
//!     ├─ else a read was asked for ─▶ poll it again, and now poll_read waits in the system, no longer than the Deadline
//!     └─ else ─▶ park the thread until somebody wakes the future
//! ```
//!
//! Decided here: that a read blocks only when nothing else in the future can go on. A read that blocked at once would
//! stop the rest of the future at the wrong moment: the code that reads a body first puts `100 Continue` into a buffer
//! and then reads, while the peer waits for just that (found with curl, which gives up waiting after 1 s); the code that
//! has an answer goes on to see whether the connection ends, and the answer would lie there until it does.
//!
//! Invariant: an operation never lasts longer than the deadline.

use bowline_transport::Channel;
use bowline_transport::http::Deadline;
use core::borrow::Borrow;
use core::cell::Cell;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use hyper::rt::{Read, ReadBufCursor, Write};
use std::io::{self, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::task::Wake;
use std::thread::{self, Thread};

/// How this thread's reads stand to the future that it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// No [`block_on`] here: a read has to block at once, as nobody would grant it later.
    Unasked,
    /// The future is being polled: a read has to ask.
    Asking,
    /// A read asked.
    Asked,
    /// Nothing else can go on: the next read blocks.
    Granted,
}

thread_local! {
    static READING: Cell<Reading> = const { Cell::new(Reading::Unasked) };
}

/// Runs a future on this thread until it is done. If nothing in it can go on, it waits for the [`BlockingIo`] that wants
/// to read, or, without one, parks the thread until the future is woken.
///
/// ```
/// use bowline_blocking::io::block_on;
/// assert_eq!(block_on(async { 7 }), 7);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let bell = Arc::new(Bell { thread: thread::current(), rung: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&bell));
    let mut cx = Context::from_waker(&waker);
    // One `block_on` inside another leaves the outer one as it found it.
    let _outer = Outer(READING.replace(Reading::Asking));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        let asked = READING.replace(Reading::Asking) == Reading::Asked;
        if bell.rung.swap(false, Ordering::Acquire) {
            continue;
        }
        if asked {
            READING.set(Reading::Granted);
            continue;
        }
        while !bell.rung.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }
}

/// Wakes the thread that runs the future.
struct Bell {
    thread: Thread,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Restores what was there, also if the future panics.
struct Outer(Reading);

impl Drop for Outer {
    fn drop(&mut self) {
        READING.set(self.0);
    }
}

/// As much as one read takes from the system, in bytes.
const PIECE: usize = 16 * 1024;

/// A blocking TCP socket, owned or shared (`TcpStream`, `&TcpStream`, `Arc<TcpStream>`), whose reads and writes fail
/// with [`ErrorKind::TimedOut`] once its [`Deadline`] has passed.
///
/// It is to be used under [`block_on`], one at a time: whatever else the future waits for has to wait while a read does.
/// Under another executor every read blocks at once. Another thread ends the waiting with [`TcpStream::shutdown`] on its
/// share of the socket; making that share non-blocking turns the waiting into spinning.
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
///     let routes = Routes { callbacks: GONKA_CALLBACKS, ..Routes::NONE };
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
pub struct BlockingIo<S: Borrow<TcpStream>> {
    channel: Channel<Socket<S>>,
    /// hyper's buffers can only be filled by copying, without unsafe code.
    buffer: Box<[u8]>,
}

impl<S: Borrow<TcpStream>> BlockingIo<S> {
    /// `stream` is made blocking, as one that was accepted by a non-blocking listener is not everywhere.
    ///
    /// # Errors
    ///
    /// The system's, if it cannot be made blocking.
    pub fn new(stream: S, deadline: Deadline) -> io::Result<Self> {
        Self::secured(stream, deadline, |socket| Ok(Channel::plain(socket)))
    }

    /// The same, with a say in how it is encrypted.
    pub(crate) fn secured(
        stream: S,
        deadline: Deadline,
        secure: impl FnOnce(Socket<S>) -> io::Result<Channel<Socket<S>>>,
    ) -> io::Result<Self> {
        stream.borrow().set_nonblocking(false)?;
        let channel = secure(Socket { stream, deadline: Some(deadline) })?;
        Ok(Self { channel, buffer: vec![0; PIECE].into_boxed_slice() })
    }

    /// Until whom we dialled is known to be who it should be; the deadline ends this, too.
    pub(crate) fn handshake(&mut self) -> io::Result<()> {
        self.channel.handshake()
    }

    /// What never waits again.
    pub(crate) fn into_nonblocking(mut self) -> io::Result<Channel<Socket<S>>> {
        let socket = self.channel.socket();
        socket.stream.borrow().set_nonblocking(true)?;
        socket.deadline = None;
        Ok(self.channel)
    }

    /// The socket, waiting without end again.
    ///
    /// # Errors
    ///
    /// The system's, if the time limits cannot be taken off.
    pub fn into_inner(self) -> io::Result<S> {
        // Encrypted ones do not leave this crate.
        let socket = self.channel.into_plain().ok_or(ErrorKind::Unsupported)?;
        let stream = socket.stream.borrow();
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        Ok(socket.stream)
    }
}

/// A TCP socket that waits until its deadline, or, without one, is non-blocking and never waits.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    stream: S,
    deadline: Option<Deadline>,
}

impl<S: Borrow<TcpStream>> Socket<S> {
    fn write_with(&self, mut write: impl FnMut(&mut &TcpStream) -> io::Result<usize>) -> io::Result<usize> {
        let mut stream: &TcpStream = self.stream.borrow();
        let Some(deadline) = &self.deadline else { return write(&mut stream) };
        patiently(deadline, |left| {
            stream.set_write_timeout(Some(left))?;
            write(&mut stream)
        })
    }
}

impl<S: Borrow<TcpStream>> io::Read for Socket<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream: &TcpStream = self.stream.borrow();
        let Some(deadline) = &self.deadline else { return stream.read(buffer) };
        patiently(deadline, |left| {
            stream.set_read_timeout(Some(left))?;
            stream.read(buffer)
        })
    }
}

impl<S: Borrow<TcpStream>> io::Write for Socket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_with(|stream| stream.write(bytes))
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_with(|stream| stream.write_vectored(pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        // A TCP socket keeps nothing back.
        Ok(())
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
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match READING.get() {
            Reading::Unasked => {}
            Reading::Granted => READING.set(Reading::Asking),
            Reading::Asking | Reading::Asked => {
                READING.set(Reading::Asked);
                return Poll::Pending;
            }
        }
        let room = buf.remaining().min(this.buffer.len());
        let (piece, _) = this.buffer.split_at_mut(room);
        let read = this.channel.read(piece)?;
        buf.put_slice(piece.get(..read).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: Borrow<TcpStream> + Unpin> Write for BlockingIo<S> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.get_mut().channel.write(buf))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().channel.flush())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let channel = &mut self.get_mut().channel;
        channel.close()?;
        Poll::Ready(match channel.socket().stream.borrow().shutdown(Shutdown::Write) {
            Err(e) if e.kind() == ErrorKind::NotConnected => Ok(()),
            done => done,
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(self: Pin<&mut Self>, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.get_mut().channel.write_vectored(bufs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::future::poll_fn;
    use core::time::Duration;
    use hyper::rt::ReadBuf;
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// One poll of a read, and how much came.
    fn read(io: &mut BlockingIo<TcpStream>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [0; 64];
        let mut buffer = ReadBuf::new(&mut space);
        Pin::new(io).poll_read(cx, buffer.unfilled()).map_ok(|()| buffer.filled().len())
    }

    #[test]
    fn a_read_waits_until_nothing_else_can_go_on() {
        let (near, far) = pair();
        let mut io = BlockingIo::new(near, Deadline::after(Duration::from_secs(10))).unwrap();
        let mut polls = 0;
        let got = block_on(poll_fn(|cx| {
            polls += 1;
            if polls <= 3 {
                // Twice in one turn, as hyper does; and there is more to do, so the peer is not waited for yet.
                assert!(read(&mut io, cx).is_pending());
                assert!(read(&mut io, cx).is_pending());
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if polls == 4 {
                assert!(read(&mut io, cx).is_pending());
                (&far).write_all(b"now").unwrap();
                return Poll::Pending;
            }
            read(&mut io, cx)
        }));
        assert_eq!((got.unwrap(), polls), (3, 5));
    }

    #[test]
    fn without_a_read_the_thread_parks_until_it_is_woken() {
        let (send, receive) = channel::<Waker>();
        let waker = thread::spawn(move || receive.recv().unwrap().wake());
        let mut asked = false;
        block_on(poll_fn(|cx| {
            if core::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            send.send(cx.waker().clone()).unwrap();
            Poll::Pending
        }));
        waker.join().unwrap();
    }

    #[test]
    fn one_future_inside_another_and_none_at_all() {
        let (near, far) = pair();
        let mut io = BlockingIo::new(near, Deadline::after(Duration::from_secs(10))).unwrap();
        (&far).write_all(b"12").unwrap();
        let got = block_on(async {
            block_on(async {});
            let mut first = true;
            poll_fn(|cx| {
                let got = read(&mut io, cx);
                assert_eq!(got.is_pending(), core::mem::take(&mut first), "it has to ask again");
                got
            })
            .await
        });
        assert_eq!(got.unwrap(), 2);
        (&far).write_all(b"345").unwrap();
        let Poll::Ready(got) = read(&mut io, &mut Context::from_waker(Waker::noop())) else { panic!("it would hang") };
        assert_eq!(got.unwrap(), 3);
    }
}
