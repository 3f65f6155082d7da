//! Until when: one deadline for a connection, known to the socket that waits and to the code that knows what it waits for.
//!
//! ```text
//! serve() or the caller ──restart(span)──▶ Deadline ◀──at(), left()── Timed<io> (a runtime's timer)
//!                                                   ◀──at(), left()── a blocking socket (its timeouts)
//! ```
//!
//! Field bug: a timeout per read lets a peer that sends one byte at a time stay for ever ("slowloris"). A deadline is a
//! point in time, so many small reads cannot outlast it.

use core::pin::Pin;
use core::task::{Context, Poll, ready};
use core::time::Duration;
use hyper::rt::{Read, ReadBufCursor, Sleep, Timer, Write};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Longer than any process lives, and far from the end of every platform's clock.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The point in time after which a connection's reads and writes fail. Clones share it.
///
/// ```
/// use bowline_transport::http::Deadline;
/// use core::time::Duration;
///
/// let deadline = Deadline::after(Duration::ZERO);
/// assert!(deadline.left().is_zero());
/// deadline.clone().restart(Duration::from_secs(10));
/// assert!(deadline.left() > Duration::from_secs(9));
/// ```
#[derive(Clone, Debug)]
pub struct Deadline(Arc<Mutex<Instant>>);

impl Deadline {
    /// A deadline `span` from now; spans over ten years mean ten years.
    #[must_use]
    pub fn after(span: Duration) -> Self {
        Self(Arc::new(Mutex::new(from_now(span))))
    }

    /// Moves it to `span` from now, for every clone.
    pub fn restart(&self, span: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = from_now(span);
    }

    /// Moves it to `span` from now, but no later than `until`, for every clone.
    pub fn restart_until(&self, span: Duration, until: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = from_now(span).min(until);
    }

    /// The point in time.
    #[must_use]
    pub fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time that is left; zero once it has passed.
    #[must_use]
    pub fn left(&self) -> Duration {
        self.at().saturating_duration_since(Instant::now())
    }

    /// The time that is left, for a socket that is about to wait.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] if none is left.
    pub fn check(&self) -> io::Result<Duration> {
        let left = self.left();
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

pub(super) fn from_now(span: Duration) -> Instant {
    Instant::now() + span.min(FOR_EVER)
}

/// A runtime's socket whose reads and writes fail with [`io::ErrorKind::TimedOut`] once the [`Deadline`] has passed.
///
/// `io` must close its writing half on `poll_shutdown`, or a peer that waits for the end of the connection waits for
/// the socket to be dropped instead: with smol that means `FuturesIo<smol::net::TcpStream>`, not
/// `FuturesIo<Async<std::net::TcpStream>>`, whose shutdown does nothing.
///
/// ```
/// use bowline_transport::http::{Deadline, Timed};
/// use core::time::Duration;
/// let timed = Timed::new("a socket", "a timer", Deadline::after(Duration::from_secs(10)));
/// assert_eq!(timed.into_inner(), "a socket");
/// ```
pub struct Timed<I, T> {
    io: I,
    timer: T,
    deadline: Deadline,
    /// The timer that is running and the time it is set to.
    sleep: Option<(Instant, Pin<Box<dyn Sleep>>)>,
}

impl<I, T> Timed<I, T> {
    /// `timer` is the runtime's; it is started only when `io` has to wait.
    pub fn new(io: I, timer: T, deadline: Deadline) -> Self {
        Self { io, timer, deadline, sleep: None }
    }

    /// The socket, without the deadline.
    pub fn into_inner(self) -> I {
        self.io
    }
}

impl<I: Unpin, T: Timer + Unpin> Timed<I, T> {
    /// `io` has to wait: so does this, until the deadline, wherever that moves in the meantime.
    fn poll_late<O>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<O>> {
        loop {
            let at = self.deadline.at();
            let (set_to, sleep) = self.sleep.get_or_insert_with(|| (at, self.timer.sleep_until(at)));
            if *set_to != at {
                self.timer.reset(sleep, at);
                *set_to = at;
            }
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
            if let Err(late) = self.deadline.check() {
                return Poll::Ready(Err(late));
            }
        }
    }
}

impl<I: Read + Unpin, T: Timer + Unpin> Read for Timed<I, T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.deadline.check()?;
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Pending => self.poll_late(cx),
            done => done,
        }
    }
}

impl<I: Write + Unpin, T: Timer + Unpin> Write for Timed<I, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.deadline.check()?;
        match Pin::new(&mut self.io).poll_write(cx, buf) {
            Poll::Pending => self.poll_late(cx),
            done => done,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_flush(cx) {
            Poll::Pending => self.poll_late(cx),
            done => done,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_shutdown(cx) {
            Poll::Pending => self.poll_late(cx),
            done => done,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.deadline.check()?;
        match Pin::new(&mut self.io).poll_write_vectored(cx, bufs) {
            Poll::Pending => self.poll_late(cx),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_spans_do_not_overflow_the_clock() {
        assert!(Deadline::after(Duration::MAX).left() > Duration::from_secs(9 * 365 * 24 * 3600));
        assert!(Deadline::after(Duration::MAX).check().is_ok());
    }

    #[test]
    fn a_passed_deadline_is_a_timeout_until_it_is_moved() {
        let deadline = Deadline::after(Duration::ZERO);
        assert_eq!(deadline.check().unwrap_err().kind(), io::ErrorKind::TimedOut);
        deadline.restart(Duration::from_secs(1));
        assert!(deadline.check().is_ok());
    }
}
