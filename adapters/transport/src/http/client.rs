//! One POST of this side's on a fresh connection, and what was seen of its answer (rules H1, H4, H8, H10).
//!
//! ```text
//! connect fails ───────────────────────────────────────────▶ Unreached   (the adapter's part)
//! io ─▶ nothing left this process ─────────────────────────▶ Unreached
//!    ─▶ head and body ─▶ the answer's head ─▶ its first bytes ─▶ Answered: status, type, target, body
//!         │ progress      │ thinking            │ a short limit
//!         └───────────────┴▶ reset, end, nonsense, too slow ─▶ Unknown    (the one that makes duplicates)
//! ```
//!
//! Decided here: how long each part may take, and how much of an answer is read. Not decided here: whether an answer is the
//! peer's own word; that is the wire's business, and what follows is the core's.
//!
//! Redirects are an answer like any other: a POST that is followed elsewhere may be done twice, or by a stranger.
//!
//! Field bugs: a peer that refuses a large body answers and closes without reading the rest, and the writer then sees
//! "connection reset" instead of the 413 that already lies in its receive buffer; it counts as *Unknown* and is sent
//! again for ever. Here a write that finds the peer deaf is not the end: the answer is still looked for. One deadline over
//! a whole upload: three megabytes over a slow link never arrive. A slow body that delays the status before it.

use super::answer::{FIRST, HttpAnswer, Recorded};
use super::deadline::from_now;
use super::dial::no_answer;
use super::{Bytes, Deadline, Target, Whole, slowest};
use crate::explanation::{Excerpt, Explanation};
use bowline::{HttpOutcome, HttpTimeouts, Reason};
use core::fmt;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};
use core::time::Duration;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Method, Request};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

/// An answer's head must fit in this many bytes; one that does not is *Unknown*.
const ANSWER_HEAD: usize = 64 * 1024;

/// For the body of an answer whose head is there, beside the time that its bytes need ([`slowest`]).
const ANSWER_REST: Duration = Duration::from_secs(2);

/// The longest write to a socket at once, so that a slow one is seen to move.
const PIECE: usize = 64 * 1024;

/// As many bytes may still lie in the system's buffer when the last one has left this process: Linux's default limit.
const SYSTEM_BUFFER: usize = 4 << 20;

/// One HTTP request of this side's.
///
/// ```
/// use bowline::{HttpTimeouts, RouteConfig};
/// use bowline_transport::http::{Bytes, Post, Target, TargetError};
/// let target = Target::http("http://api:9100/v1/poc-batches")?.join("generated");
/// let headers = &[("idempotency-key", "7".to_owned())];
/// let RouteConfig { progress, thinking, .. } = RouteConfig::DEFAULT;
/// let timeouts = HttpTimeouts { progress, thinking };
/// let post = Post { target: &target, headers, body: Bytes::from_static(b"{}"), read: 0, timeouts };
/// assert_eq!(post.target.path(), "/v1/poc-batches/generated");
/// # Ok::<(), TargetError>(())
/// ```
#[derive(Clone)]
pub struct Post<'a> {
    /// Where it goes; the same place that `io` is connected to.
    pub target: &'a Target,
    /// Names in lower case, and values. A message has its id as `idempotency-key` (rule H1).
    pub headers: &'a [(&'static str, String)],
    /// The JSON, sent as it is.
    pub body: Bytes,
    /// The most bytes of the answer's body that are read; at least 512.
    pub read: usize,
    /// How long it may take (rule H10).
    pub timeouts: HttpTimeouts,
}

impl fmt::Debug for Post<'_> {
    /// Without the headers: one of them may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("target", &self.target).field("body", &self.body.len()).finish_non_exhaustive()
    }
}

/// What came of a [`Post`].
///
/// ```
/// use bowline::{HttpOutcome, Reason};
/// use bowline_transport::http::{HttpAnswer, Posted};
/// let unreached = Posted::Unreached(Reason::PortClosed.into());
/// assert_eq!(unreached.outcome(false), HttpOutcome::Unreached(Reason::PortClosed));
/// assert_eq!(Posted::Answered(HttpAnswer::new(200, "")).outcome(false), HttpOutcome::foreign(200));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Posted {
    /// There was an answer.
    Answered(HttpAnswer),
    /// Nothing was sent, and why.
    Unreached(Explanation),
    /// The request may have been processed, but no answer came, and why.
    Unknown(Explanation),
}

impl Posted {
    /// Its outcome, for the core. `by_peer`: the answer, if there is one, is the peer's own word.
    #[must_use]
    pub fn outcome(&self, by_peer: bool) -> HttpOutcome {
        match self {
            Self::Answered(answer) => answer.outcome(by_peer),
            Self::Unreached(why) => HttpOutcome::Unreached(why.reason),
            Self::Unknown(why) => HttpOutcome::Unknown(why.reason),
        }
    }

    /// What was said about it, for people.
    #[must_use]
    pub fn text(&self) -> Option<Excerpt> {
        match self {
            Self::Answered(answer) => answer.excerpt(),
            Self::Unreached(why) | Self::Unknown(why) => why.text.clone(),
        }
    }
}

/// Sends `request` over the fresh connection `io` and says what became of it. It is done when the answer's head is
/// there, and as much of its body as is wanted or comes soon; the connection is closed by dropping `io`. A header that
/// cannot be sent is [`Posted::Unreached`].
///
/// `deadline` is the one that `io` obeys. It is moved here as bytes move (rule H10): each byte that leaves gives
/// `timeouts.progress` anew, the last one gives `timeouts.thinking` for the head of the answer, and that 2 s for the first
/// bytes of its body. All of it ends in time: sending takes at most `progress` and what the body takes at
/// [`SLOWEST_BODY`](super::SLOWEST_BODY), and so on for what the system's own buffer may hold and for the body of the answer.
/// Dropping the future closes the connection and leaves it unknown what became of the request.
///
/// ```
/// # use bowline_transport::http::{Bytes, Deadline, HttpAnswer, Post, Posted, Target, Timed, post};
/// # use bowline::HttpTimeouts;
/// # use core::time::Duration;
/// # use smol_hyper::rt::{FuturesIo, SmolTimer};
/// # use std::io::{Read as _, Write as _};
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let port = listener.local_addr()?.port();
/// # let peer = std::thread::spawn(move || {
/// #     let mut socket = listener.accept().unwrap().0;
/// #     let (mut seen, mut chunk) = (Vec::new(), [0; 512]);
/// #     while !seen.ends_with(b"{}") {
/// #         let n = socket.read(&mut chunk).unwrap();
/// #         seen.extend_from_slice(&chunk[..n]);
/// #     }
/// #     socket.write_all(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n").unwrap();
/// # });
/// smol::block_on(async {
///     let target = Target::http(&format!("http://127.0.0.1:{port}/v1/poc-batches"))?.join("generated");
///     let timeouts = HttpTimeouts { progress: Duration::from_secs(10), thinking: Duration::from_secs(30) };
///     let deadline = Deadline::after(timeouts.progress);
///     let socket = smol::net::TcpStream::connect((target.host(), target.port())).await?;
///     let io = Timed::new(FuturesIo::new(socket), SmolTimer::new(), deadline.clone());
///
///     let request = Post { target: &target, headers: &[], body: Bytes::from_static(b"{}"), read: 0, timeouts };
///     let busy = HttpAnswer { after: Duration::from_secs(7), ..HttpAnswer::new(503, "") };
///     assert_eq!(post(io, &deadline, request).await, Posted::Answered(busy));
/// #   Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # peer.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn post<I>(io: I, deadline: &Deadline, request: Post<'_>) -> Posted
where
    I: Read + Write + Unpin,
{
    let Post { target, headers, body, read, timeouts } = request;
    let length = body.len();
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(target.path())
        .header(HOST, target.authority())
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, length)
        .header(USER_AGENT, concat!("bowline/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Whole::new(body));
    // Cannot fail with a checked target and checked headers; if it did, nothing would have been sent.
    let Ok(request) = request else { return Posted::Unreached(Reason::System.into()) };

    let asked = Arc::<AtomicBool>::default();
    let until = from_now(timeouts.progress.saturating_add(slowest(length)));
    let io = Sending { io, deaf: false, deadline, timeouts, length, sent: 0, until, asked: Arc::clone(&asked) };
    // Both limits: the first alone is exceeded by what one read may bring. Head and body are written as they lie, not
    // copied together; the socket may join them.
    let handshake = http1::Builder::new()
        .max_buf_size(ANSWER_HEAD)
        .max_header_size(ANSWER_HEAD)
        .writev(true)
        .handshake(Recorded::new(io))
        .await;
    let Ok((mut sender, mut connection)) = handshake else { return Posted::Unreached(Reason::System.into()) };
    let mut answer = pin!(sender.try_send_request(request));
    let (mut open, mut failed) = (true, None);
    let answer = poll_fn(|cx| {
        if open && let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            open = false;
            failed = ended.err();
        }
        match answer.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if !open => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    let answer = match answer {
        Some(Ok(answer)) => answer,
        // Handed back before its first byte was written.
        Some(Err(failure)) if failure.message().is_some() => {
            let error = failed.as_ref().or(Some(failure.error()));
            return Posted::Unreached(no_answer(&connection.into_parts().io, error));
        }
        failure => {
            let error = failure.and_then(Result::err).map(hyper::client::conn::TrySendError::into_error);
            let why = no_answer(&connection.into_parts().io, failed.as_ref().or(error.as_ref()));
            let reason = match why.reason {
                // A TLS server has processed nothing.
                Reason::SpeaksTls => return Posted::Unreached(why),
                Reason::Timeout if !asked.load(Ordering::Relaxed) => Reason::Stalled,
                Reason::NotWebSocket => Reason::Violation,
                reason => reason,
            };
            return Posted::Unknown(Explanation { reason, ..why });
        }
    };
    let longest = read.max(FIRST);
    let until = from_now(ANSWER_REST.saturating_add(slowest(longest)));
    let moved = || deadline.restart_until(timeouts.progress, until);
    let drive = |cx: &mut Context<'_>| {
        open = open && Pin::new(&mut connection).poll(cx).is_pending();
        open
    };
    Posted::Answered(HttpAnswer::read(answer, longest, moved, drive).await)
}

/// A socket on which a request leaves: it moves the deadline as bytes move, and where the peer stops reading, what is
/// written from then on is thrown away and reading goes on.
struct Sending<'a, I> {
    io: I,
    deaf: bool,
    deadline: &'a Deadline,
    timeouts: HttpTimeouts,
    /// The length of the request's body.
    length: usize,
    sent: usize,
    /// By then all must have left.
    until: Instant,
    /// All has left.
    asked: Arc<AtomicBool>,
}

impl<I> Sending<'_, I> {
    /// The result of writing `len` bytes.
    fn written(&mut self, result: Poll<io::Result<usize>>, len: usize) -> Poll<io::Result<usize>> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match result {
            Poll::Ready(Err(e)) if matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) => {
                self.deaf = true;
                Poll::Ready(Ok(len))
            }
            Poll::Ready(Ok(written)) if written > 0 => {
                self.sent = self.sent.saturating_add(written);
                self.deadline.restart_until(self.timeouts.progress, self.until);
                Poll::Ready(Ok(written))
            }
            other => other,
        }
    }

    /// Everything that was written has left this process: the peer may think, if that was all of the request.
    fn flushed(&self, cx: &Context<'_>) {
        if self.sent > self.length && !self.asked.swap(true, Ordering::Relaxed) {
            self.deadline.restart(self.timeouts.thinking.saturating_add(slowest(self.length.min(SYSTEM_BUFFER))));
            // A read that waits already waits until the former deadline, which may have been a later one.
            cx.waker().wake_by_ref();
        }
    }
}

impl<I: Read + Unpin> Read for Sending<'_, I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: Write + Unpin> Write for Sending<'_, I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let (piece, _) = buf.split_at(buf.len().min(PIECE));
        let result = Pin::new(&mut self.io).poll_write(cx, piece);
        self.written(result, buf.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            self.flushed(cx);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf { Poll::Ready(Ok(())) } else { Pin::new(&mut self.io).poll_shutdown(cx) }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(len));
        }
        if len > PIECE
            && let Some(first) = bufs.iter().find(|buf| !buf.is_empty())
        {
            return self.poll_write(cx, first);
        }
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.written(result, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket whose peer is gone before anything is written.
    struct Gone;

    impl Read for Gone {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Write for Gone {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            panic!("nobody listens");
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn request(target: &Target, read: usize) -> Post<'_> {
        let timeouts = HttpTimeouts { progress: Duration::from_secs(10), thinking: Duration::from_secs(10) };
        Post { target, headers: &[], body: Bytes::from_static(b"{}"), read, timeouts }
    }

    #[test]
    fn h_what_was_never_written_is_unreached() {
        let (target, deadline) = (Target::http("http://api/").unwrap(), Deadline::after(Duration::from_secs(10)));
        let posted = smol::block_on(post(Gone, &deadline, request(&target, 9)));
        assert_eq!(posted.outcome(false), HttpOutcome::Unreached(Reason::Closed(1006)));
    }

    #[test]
    fn as_much_of_an_answer_is_read_as_is_wanted() {
        use smol_hyper::rt::FuturesIo;
        use std::io::{Read as _, Write as _};
        let head = "HTTP/1.1 200 OK\r\n";
        let long = format!("Content-Length: 600\r\n\r\n{}", "x".repeat(600));
        for (answer, read, body, whole) in [
            ("Content-Length: 5\r\n\r\nhello", 5, "hello", true),
            ("Content-Length: 5\r\n\r\nhello", 0, "hello", true),
            ("Content-Length: 5\r\n\r\nhell", 64, "hell", false),
            ("Content-Length: 0\r\n\r\n", 64, "", true),
            ("Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 5, "hello", true),
            ("Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n", 64, "hello", false),
            ("Transfer-Encoding: chunked\r\n\r\nffffffff\r\nhello", 64, "hello", false),
            // Until the connection ends.
            ("\r\nhello", 64, "hello", true),
            (&long, 0, &"x".repeat(512), false),
            (&long, 599, &"x".repeat(599), false),
            (&long, 600, &"x".repeat(600), true),
        ] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let answer = answer.to_owned();
            let peer = std::thread::spawn({
                let answer = answer.clone();
                move || {
                    let mut far = listener.accept().unwrap().0;
                    let _ = far.read(&mut [0; 4096]).unwrap();
                    far.write_all([head, &answer].concat().as_bytes()).unwrap();
                }
            });
            let (target, deadline) = (Target::http("http://api/").unwrap(), Deadline::after(Duration::from_secs(10)));
            let posted = smol::block_on(async {
                let io = FuturesIo::new(smol::net::TcpStream::from(smol::Async::new(near).unwrap()));
                post(io, &deadline, request(&target, read)).await
            });
            let seen = HttpAnswer { whole, ..HttpAnswer::new(200, body.to_owned()) };
            assert_eq!(posted, Posted::Answered(seen), "{answer:?}, {read}");
            peer.join().unwrap();
        }
    }
}
