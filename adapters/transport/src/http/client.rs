//! One POST of ours on a fresh connection, and which of the outcomes it had (rules H1, H4, H6).
//!
//! ```text
//! connect fails ───────────────────────────────────────────▶ Unreached   (the adapter's part)
//! io ─▶ nothing left this process ─────────────────────────▶ Unreached
//!    ─▶ head and body ─▶ the answer's head ─▶ status, Retry-After ─▶ one of the other six
//!                     └▶ reset, end, nonsense, deadline ───▶ Unknown     (the one that makes duplicates)
//! ```
//!
//! Redirects are an answer like any other (`Gone`): a POST that is followed elsewhere may be done twice, or by a stranger.
//! The answer's body is read only where the profile says that it holds the peer's word: elsewhere nothing in it could
//! change the outcome, and a peer that sends it slowly would only delay the acknowledgement.
//!
//! Field bug: a peer that refuses a large body answers and closes without reading the rest, and the writer then sees
//! "connection reset" instead of the 413 that already lies in its receive buffer; it counts as *Unknown* and is sent
//! again for ever. Here a write that finds the peer deaf is not the end: the answer is still looked for.

use super::answer::{self, Recorded};
use super::dial::no_answer;
use super::{Bytes, Target, Whole};
use crate::explanation::{Excerpt, Explanation};
use bowline::{HttpClass, HttpOutcome, MessageId, Reason};
use core::fmt;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use core::time::Duration;
use hyper::body::Body as _;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Method, Request};
use std::io::{self, IoSlice};
use std::time::SystemTime;

/// An answer's head must fit in this many bytes; one that does not is *Unknown*.
const ANSWER_HEAD: usize = 64 * 1024;

/// What a server can ask for at most with `Retry-After`; the core cuts it further (rule B4).
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// One HTTP request of ours.
///
/// ```
/// use bowline::MessageId;
/// use bowline_transport::http::{Bytes, Post, Target, TargetError};
/// let target = Target::http("http://api:9100/v1/poc-batches")?.join("generated");
/// let post = Post { target: &target, id: MessageId::from_bits(7), body: Bytes::from_static(b"{}"), read: 0 };
/// assert_eq!(post.target.path(), "/v1/poc-batches/generated");
/// # Ok::<(), TargetError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Post<'a> {
    /// Where it goes; the same place that `io` is connected to.
    pub target: &'a Target,
    /// The message it carries, printed as the `Idempotency-Key` (rule H1), so a repetition is known as one.
    pub id: MessageId,
    /// The JSON, sent as it is.
    pub body: Bytes,
    /// So many bytes of the body are read where it may hold the peer's word, or none of a longer one: of an answer with 2xx,
    /// or that says what is wrong with the message or with us.
    pub read: usize,
}

/// One HTTP request of ours, with headers of its own.
///
/// ```
/// use bowline_transport::http::{Ask, Bytes, Target, TargetError};
/// let target = Target::http("http://hub:9100/bowline/1")?.join("poll");
/// let headers = &[("bowline-client", "sensor-7".to_owned())];
/// let ask = Ask { target: &target, headers, body: Bytes::from_static(b"{}"), read: 1 << 20 };
/// assert_eq!(ask.target.path(), "/bowline/1/poll");
/// # Ok::<(), TargetError>(())
/// ```
#[derive(Clone)]
pub struct Ask<'a> {
    /// Where it goes; the same place that `io` is connected to.
    pub target: &'a Target,
    /// Names in lower case, and values.
    pub headers: &'a [(&'static str, String)],
    /// The JSON, sent as it is.
    pub body: Bytes,
    /// As in [`Post::read`].
    pub read: usize,
}

impl fmt::Debug for Ask<'_> {
    /// Without the headers: one of them may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask").field("target", &self.target).field("body", &self.body.len()).finish_non_exhaustive()
    }
}

/// What came of a [`Post`].
///
/// ```
/// use bowline::{HttpOutcome, Reason};
/// use bowline_transport::http::Posted;
/// let unreached = Posted::unreached(Reason::PortClosed.into());
/// assert_eq!(unreached.outcome, HttpOutcome::Unreached(Reason::PortClosed));
/// assert!(unreached.body.is_empty());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Posted {
    /// What the status says, or why there is none.
    pub outcome: HttpOutcome,
    /// The body of the answer; empty if it was not to be read, is longer than that, or broke off.
    pub body: Bytes,
    /// What was said about a failure, for people.
    pub text: Option<Excerpt>,
}

impl From<HttpOutcome> for Posted {
    fn from(outcome: HttpOutcome) -> Self {
        Self { outcome, body: Bytes::new(), text: None }
    }
}

impl Posted {
    /// Nothing was sent, and why.
    #[must_use]
    pub fn unreached(why: Explanation) -> Self {
        Self { text: why.text, ..HttpOutcome::Unreached(why.reason).into() }
    }

    /// The request may have been processed, but there is no answer, and why.
    fn unknown(why: Explanation) -> Self {
        Self { text: why.text, ..HttpOutcome::Unknown(why.reason).into() }
    }
}

/// Sends `request` over the fresh connection `io` and says what became of it. It is done when the answer's head is
/// there, and as much of its body as is wanted; the connection is closed by dropping `io`.
///
/// The deadline is `io`'s (rule H6: 10 s unless configured, connecting included). Dropping the future closes the
/// connection and means [`HttpOutcome::Unknown`], as the request may have been on its way.
///
/// ```
/// # use bowline_transport::http::{Bytes, Deadline, Post, Target, Timed, post};
/// # use bowline::{HttpClass, HttpOutcome, MessageId, Reason};
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
///     let deadline = Deadline::after(Duration::from_secs(10));
///     let socket = smol::net::TcpStream::connect((target.host(), target.port())).await?;
///     let io = Timed::new(FuturesIo::new(socket), SmolTimer::new(), deadline);
///
///     let request = Post { target: &target, id: MessageId::from_bits(7), body: Bytes::from_static(b"{}"), read: 0 };
///     assert_eq!(post(io, request).await.outcome, HttpOutcome::status(503).with_after(Duration::from_secs(7)));
/// #   Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// # peer.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub async fn post<I>(io: I, request: Post<'_>) -> Posted
where
    I: Read + Write + Unpin,
{
    let Post { target, id, body, read } = request;
    ask(io, Ask { target, headers: &[("idempotency-key", id.to_string())], body, read }).await
}

/// As [`post`], with any headers. One that cannot be sent as a header is an [`HttpOutcome::Unreached`].
pub async fn ask<I>(io: I, request: Ask<'_>) -> Posted
where
    I: Read + Write + Unpin,
{
    let Ask { target, headers, body, read: longest } = request;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(target.path())
        .header(HOST, target.authority())
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, body.len())
        .header(USER_AGENT, concat!("bowline/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request.body(Whole::new(body));
    // Cannot fail with a checked target and checked headers; if it did, nothing would have been sent.
    let Ok(request) = request else { return HttpOutcome::Unreached(Reason::System).into() };

    // Both limits: the first alone is exceeded by what one read may bring. Head and body are written as they lie, not
    // copied together; the socket may join them.
    let handshake = http1::Builder::new()
        .max_buf_size(ANSWER_HEAD)
        .max_header_size(ANSWER_HEAD)
        .writev(true)
        .handshake(Recorded::new(Deaf { io, deaf: false }))
        .await;
    let Ok((mut sender, mut connection)) = handshake else { return HttpOutcome::Unreached(Reason::System).into() };
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
    match answer {
        Some(Ok(answer)) => {
            let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(retry_after);
            let outcome = HttpOutcome::status(answer.status().as_u16()).with_after(after.unwrap_or_default());
            let word = matches!(outcome.class(), HttpClass::Delivered | HttpClass::Rejected) || outcome.turned_away();
            if !word || longest == 0 {
                return Posted { text: answer::excerpt(answer.headers(), &[]), ..outcome.into() };
            }
            let mut body = answer.into_body();
            let mut read = Vec::new();
            let whole = poll_fn(|cx| {
                if open {
                    open = Pin::new(&mut connection).poll(cx).is_pending();
                }
                loop {
                    match Pin::new(&mut body).poll_frame(cx) {
                        Poll::Ready(Some(Ok(frame))) => {
                            let data = frame.into_data().unwrap_or_default();
                            if read.len().saturating_add(data.len()) > longest {
                                return Poll::Ready(false);
                            }
                            read.extend_from_slice(&data);
                        }
                        Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                        Poll::Ready(None) => return Poll::Ready(true),
                        Poll::Pending => return if open { Poll::Pending } else { Poll::Ready(false) },
                    }
                }
            })
            .await;
            Posted { body: if whole { read.into() } else { Bytes::new() }, ..outcome.into() }
        }
        // Handed back before its first byte was written.
        Some(Err(failure)) if failure.message().is_some() => {
            Posted::unreached(no_answer(&connection.into_parts().io, failed.as_ref().or(Some(failure.error()))))
        }
        failure => {
            let error = failure.and_then(Result::err).map(hyper::client::conn::TrySendError::into_error);
            let why = no_answer(&connection.into_parts().io, failed.as_ref().or(error.as_ref()));
            match why.reason {
                // Whoever answers so has processed nothing.
                Reason::SpeaksTls => Posted::unreached(why),
                Reason::Timeout => Posted::unknown(why),
                Reason::NotWebSocket => Posted::unknown(Explanation { reason: Reason::Violation, ..why }),
                _ => Posted::unknown(Explanation { reason: Reason::Closed(1006), ..why }),
            }
        }
    }
}

/// The value of a `Retry-After` header as a span from now, at most a day: seconds or a date (RFC 9110, section 10.2.3).
/// A date in the past is zero; anything else that is not a number of seconds, such as a negative one, is `None`.
///
/// ```
/// use bowline_transport::http::retry_after;
/// use core::time::Duration;
/// assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
/// assert_eq!(retry_after("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
/// assert_eq!(retry_after("-1"), None);
/// ```
#[must_use]
pub fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    let after = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are still "very long".
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO)
    };
    Some(after.min(LONGEST_PAUSE))
}

/// A socket whose peer may stop reading: what is written from then on is thrown away, and reading goes on.
struct Deaf<I> {
    io: I,
    deaf: bool,
}

impl<I> Deaf<I> {
    /// The result of writing `len` bytes.
    fn written(&mut self, result: Poll<io::Result<usize>>, len: usize) -> Poll<io::Result<usize>> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        match result {
            Poll::Ready(Err(e)) if matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) => {
                self.deaf = true;
                Poll::Ready(Ok(len))
            }
            other => other,
        }
    }
}

impl<I: Read + Unpin> Read for Deaf<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<I: Write + Unpin> Write for Deaf<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.written(result, buf.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf { Poll::Ready(Ok(())) } else { Pin::new(&mut self.io).poll_flush(cx) }
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

    #[test]
    fn h_what_was_never_written_is_unreached() {
        let target = Target::http("http://api/").unwrap();
        let request = Post { target: &target, id: MessageId::from_bits(1), body: Bytes::from_static(b"{}"), read: 9 };
        assert_eq!(smol::block_on(post(Gone, request)).outcome, HttpOutcome::Unreached(Reason::PortClosed));
    }

    #[test]
    fn as_much_of_an_answer_is_read_as_is_wanted() {
        use smol_hyper::rt::FuturesIo;
        use std::io::{Read as _, Write as _};
        let head = "HTTP/1.1 200 OK\r\n";
        for (answer, read, body) in [
            ("Content-Length: 5\r\n\r\nhello", 5, "hello"),
            ("Content-Length: 5\r\n\r\nhello", 4, ""),
            ("Content-Length: 5\r\n\r\nhello", 0, ""),
            ("Content-Length: 5\r\n\r\nhell", 64, ""),
            ("Content-Length: 0\r\n\r\n", 64, ""),
            ("Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 5, "hello"),
            ("Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n", 64, ""),
            ("Transfer-Encoding: chunked\r\n\r\nffffffff\r\nhello", 64, ""),
            // Until the connection ends.
            ("\r\nhello", 64, "hello"),
        ] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let peer = std::thread::spawn(move || {
                let mut far = listener.accept().unwrap().0;
                let _ = far.read(&mut [0; 4096]).unwrap();
                far.write_all([head, answer].concat().as_bytes()).unwrap();
            });
            let target = Target::http("http://api/").unwrap();
            let request = Post { target: &target, id: MessageId::from_bits(1), body: Bytes::from_static(b"{}"), read };
            let posted = smol::block_on(async {
                let io = FuturesIo::new(smol::net::TcpStream::from(smol::Async::new(near).unwrap()));
                post(io, request).await
            });
            let expected = Posted { body: body.into(), ..HttpOutcome::status(200).into() };
            assert_eq!(posted, expected, "{answer:?}, {read}");
            peer.join().unwrap();
        }
    }

    #[test]
    fn b4_retry_after_in_seconds() {
        for (value, seconds) in [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("86401", Some(86400)),
            ("99999999999999999999", Some(86400)),
        ] {
            assert_eq!(retry_after(value), seconds.map(Duration::from_secs), "{value}");
        }
        for value in ["", " ", "-1", "+1", "1.5", "1s", "1,2", "soon", "0x10", "١"] {
            assert_eq!(retry_after(value), None, "{value}");
        }
    }

    #[test]
    fn b4_retry_after_as_a_date() {
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(90));
        let after = retry_after(&soon).unwrap();
        assert!((Duration::from_secs(80)..=Duration::from_secs(90)).contains(&after), "{after:?}");
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("Sunday, 06-Nov-94 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LONGEST_PAUSE));
        assert_eq!(retry_after("Fri, 99 Dec 9999 23:59:59 GMT"), None);
    }
}
