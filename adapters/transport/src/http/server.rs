//! One accepted connection: callbacks that arrive as POSTs, and the upgrade to a WebSocket, on one port.
//!
//! ```text
//!          ┌─────────────────────────── keep-alive ───────────────────────────┐
//!          ▼                                                                   │
//! head (Limits::head) ─┬─ POST {callbacks} ─ body ─ handler ──────────────────┴─ answer
//!                      │      too large 413 · too slow 408 · broken off 400
//!                      ├─ GET {websocket} ─ 101 ─▶ Served::Upgraded, with every byte that came early
//!                      │      no upgrade 426 · wrong version 426 · wrong otherwise 400
//!                      ├─ another method 405 · another path 404
//!                      └─ too slow 408 · too large 431 · not HTTP, two Hosts 400
//!                                   ▼ after the last answer
//!                  hang up: end our half, throw away what still comes, Limits::linger
//! ```
//!
//! The handler runs undisturbed: nothing is read while it computes, so a peer that goes away cannot stop a message that
//! is being processed, and a blocking socket cannot wait for bytes that never come (`half_close`).
//!
//! Field bugs guarded against: an answer lost because the socket was closed with unread bytes in it (the peer sees a
//! reset, RFC 9112, section 9.6); memory reserved for the length that a head only claims; `Expect: 100-continue` left
//! unanswered; an idempotency key that fills a log; two `Host` headers, of which a proxy reads one and the server the
//! other (rule H11).

use super::answer::{HttpAnswer, MARK};
use super::slowest;
use super::{Bytes, Deadline, Whole};
use bowline::ConfigError;
use bowline::wire::native::CLIENT;
use core::convert::Infallible;
use core::fmt::Write as _;
use core::future::{poll_fn, ready};
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use hyper::body::{Body, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::rt::{Read, ReadBuf, Write};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode, Version};
use std::io;
use std::time::Instant;
use tungstenite::handshake::derive_accept_key;

/// Where Gonka's ML nodes post their batches, on both of the API node's routers.
pub const GONKA_CALLBACKS: &[&str] = &[
    "/v1/poc-batches/generated",
    "/v1/poc-batches/validated",
    "/mlnode/v1/poc-batches/generated",
    "/mlnode/v1/poc-batches/validated",
];

/// The longest idempotency key that is handed on, in bytes.
const LONGEST_KEY: usize = 64;

/// Bodies are read in pieces of at most this many bytes.
const PIECE: usize = 64 * 1024;

/// After its last answer a connection takes at most this many more bytes, to throw them away.
const FLOOD: usize = 64 * 1024 * 1024;

/// How long and how much a connection may take before it is a WebSocket.
///
/// ```
/// use bowline_transport::http::Limits;
/// let small = Limits { body_bytes: 4096, ..Limits::DEFAULT };
/// assert!(small.body_bytes < Limits::default().body_bytes);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// From the connection's start, or from an answer, to the end of the next request's head. 10 s, as long as an
    /// unauthenticated connection may live (rule L9).
    pub head: Duration,
    /// From the end of the head to the end of the body, and the time that the bytes which have come need at
    /// [`SLOWEST_BODY`](super::SLOWEST_BODY) (rule H10): so a large body on a slow link arrives, and one that stops does not
    /// hold its place. 30 s.
    pub body: Duration,
    /// From the last answer to the end of the connection, for peers that are still sending. 2 s, as long as a close
    /// handshake may take (rule L8).
    pub linger: Duration,
    /// The size of a request's head, in bytes. 16 KiB.
    pub head_bytes: usize,
    /// The size of a request's body, in bytes. 64 MiB, the read limit of Gonka's own client.
    pub body_bytes: u64,
}

impl Limits {
    /// The values named at each field.
    pub const DEFAULT: Self = Self {
        head: Duration::from_secs(10),
        body: Duration::from_secs(30),
        linger: Duration::from_secs(2),
        head_bytes: 16 * 1024,
        body_bytes: 64 * 1024 * 1024,
    };
}

impl Limits {
    /// Refuses what cannot work.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let rules = [
            (!self.head.is_zero(), "http_limits.head", "no head comes in no time"),
            (!self.body.is_zero(), "http_limits.body", "no body comes in no time"),
            (!self.linger.is_zero(), "http_limits.linger", "a peer that is still sending would not read its answer"),
            (self.head_bytes > 0, "http_limits.head_bytes", "no request has a head of no bytes"),
            (self.body_bytes > 0, "http_limits.body_bytes", "no message could be posted"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, why)) => Err(ConfigError { field, why }),
            None => Ok(()),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a connection may ask for; everything else is 404.
///
/// ```
/// use bowline_transport::http::{GONKA_CALLBACKS, Routes};
/// let api_node = Routes { callbacks: GONKA_CALLBACKS, ..Routes::NONE };
/// let ml_node = Routes { websockets: &["/api/v1/pow/ws"], ..Routes::NONE };
/// # let _ = (api_node, ml_node);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Routes<'a> {
    /// The paths at which a connection becomes a WebSocket.
    pub websockets: &'a [&'static str],
    /// The subprotocols that are spoken there, the best first. Of those that a client offers the best is selected; whoever
    /// offers none of them gets a WebSocket without.
    pub subprotocols: &'a [&'static str],
    /// The paths at which messages are received.
    pub callbacks: &'a [&'static str],
    /// The paths at which something can be read; the handler is called with an empty body.
    pub pages: &'a [&'static str],
    /// Whether the handler is asked before a connection becomes a WebSocket, with the last part of that path, the
    /// subprotocol and an empty body: 200 lets it, any other answer goes out instead.
    pub guarded: bool,
}

impl Routes<'_> {
    /// Nothing may be asked for.
    pub const NONE: Self = Self { websockets: &[], subprotocols: &[], callbacks: &[], pages: &[], guarded: false };
}

/// A message that a peer posted.
///
/// ```
/// use bowline_transport::http::{Bytes, Callback};
/// let posted = Callback { body: Bytes::from_static(b"{}"), ..Callback::empty("generated") };
/// assert_eq!(posted.segment, "generated");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Callback {
    /// What it was posted as, the last part of the path: `"generated"`, `"validated"`.
    pub segment: &'static str,
    /// The whole path.
    pub path: &'static str,
    /// The peer's `Idempotency-Key`: 1 to 64 visible ASCII characters, without the quotes that some senders add. A key
    /// that is anything else counts as none: the message is still recognised by its content, and losing it for a bad
    /// header would be worse.
    pub idempotency_key: Option<String>,
    /// Of a request for a WebSocket: the subprotocol that will be selected.
    pub subprotocol: Option<&'static str>,
    /// The credentials of `Authorization: Bearer`, of at most 64 visible characters.
    pub bearer: Option<String>,
    /// `Bowline-Client`: who a native peer is, of at most 64 visible characters.
    pub client: Option<String>,
    /// The body as it came, at most [`Limits::body_bytes`]; it may be no JSON at all.
    pub body: Bytes,
}

impl core::fmt::Debug for Callback {
    /// Logs are no place for a token.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (path, client, bytes) = (self.path, &self.client, self.body.len());
        f.debug_struct("Callback")
            .field("path", &path)
            .field("client", client)
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

impl Callback {
    /// Without a body.
    #[must_use]
    pub const fn empty(segment: &'static str) -> Self {
        Self {
            segment,
            path: segment,
            idempotency_key: None,
            subprotocol: None,
            bearer: None,
            client: None,
            body: Bytes::new(),
        }
    }
}

/// What the handler says to a [`Callback`].
///
/// ```
/// use bowline_transport::http::Answer;
/// use core::time::Duration;
/// let busy = Answer { retry_after: Some(Duration::from_secs(4)), ..Answer::status(503) };
/// let wrong = Answer::error(400, "no such field");
/// assert_eq!((busy.status, wrong.status, Answer::OK.status), (503, 400, 200));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// A final HTTP status, 200 to 999; any other number is sent as 500.
    pub status: u16,
    /// Sent as `Retry-After`, in whole seconds, rounded up.
    pub retry_after: Option<Duration>,
    /// Sent as `{"error":"…"}`; without it, and without [`body`](Self::body), the body is empty.
    pub error: Option<String>,
    /// The type of its content, and the body.
    pub body: Option<(&'static str, Bytes)>,
}

impl Answer {
    /// The message is done.
    pub const OK: Self = Self::status(200);

    /// Not now: there is no place, or nobody to take it. In a second there may be.
    pub const BUSY: Self = Self { status: 503, retry_after: Some(Duration::from_secs(1)), error: None, body: None };

    /// An answer with an empty body.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self { status, retry_after: None, error: None, body: None }
    }

    /// An answer that another Bowline knows for one: its body is `{"bowline":"…"}`
    /// ([`HttpAnswer::is_marked`](super::HttpAnswer::is_marked)).
    ///
    /// ```
    /// # use bowline_transport::http::Answer;
    /// assert_eq!(Answer::marked(200, "done").body.unwrap().1, r#"{"bowline":"done"}"#);
    /// ```
    #[must_use]
    pub fn marked(status: u16, word: &str) -> Self {
        let body = serde_json::json!({ MARK: word }).to_string();
        Self { body: Some(("application/json", body.into())), ..Self::status(status) }
    }

    /// What the other side sees of it, up to what a proxy makes of it.
    pub(crate) fn seen(self) -> HttpAnswer {
        let (kind, body) = match (self.error, self.body) {
            (Some(why), _) => (Some("application/json"), error_body(&why)),
            (None, Some((kind, body))) => (Some(kind), body),
            (None, None) => (None, Bytes::new()),
        };
        let after = self.retry_after.unwrap_or_default();
        HttpAnswer { after, content_type: kind.map(Into::into), ..HttpAnswer::new(self.status, body) }
    }

    /// An answer that says why.
    #[must_use]
    pub fn error(status: u16, why: impl Into<String>) -> Self {
        Self { error: Some(why.into()), ..Self::status(status) }
    }
}

/// What is left of a connection after [`serve`].
///
/// ```
/// use bowline_transport::http::{Bytes, Served};
/// let served = Served::Upgraded { io: "a socket", read_buf: Bytes::new() };
/// assert!(matches!(served, Served::Upgraded { io: "a socket", .. }));
/// ```
#[derive(Debug)]
pub enum Served<I> {
    /// It is a WebSocket now: the subprotocol that the handler was told, no extension; the 101 is written.
    Upgraded {
        /// The socket; its [`Deadline`] is [`Limits::head`] after the 101.
        io: I,
        /// What the peer sent right behind its request: the first bytes of the first frames.
        read_buf: Bytes,
    },
    /// It is over, and the socket is closed.
    Done,
}

/// Serves `io` until it ends or becomes a WebSocket. `deadline` is the one that `io` obeys: it is moved from phase to
/// phase, so that no peer can hold the connection longer than `limits` say, except while `handler` computes; how long
/// that may take is the handler's own affair.
///
/// `handler` is called once for every callback whose body is complete, one after the other, and always runs to its end
/// unless the returned future is dropped. Under a runtime that moves tasks between threads, the future is `Send` if
/// `io`, `handler` and its future are (and `handler` is `Sync`).
///
/// ```
/// # use bowline_transport::http::{Answer, Deadline, GONKA_CALLBACKS, Limits, Routes, Served, Timed, serve};
/// # use smol_hyper::rt::{FuturesIo, SmolTimer};
/// # use std::io::{Read as _, Write as _};
/// # smol::block_on(async {
/// let listener = smol::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// # let peer = std::thread::spawn(move || {
/// #     let mut socket = std::net::TcpStream::connect(address).unwrap();
/// #     socket.write_all(b"POST /v1/poc-batches/generated HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}").unwrap();
/// #     let mut answer = String::new();
/// #     socket.read_to_string(&mut answer).unwrap();
/// #     answer
/// # });
/// let (socket, _) = listener.accept().await?;
/// let limits = Limits::default();
/// let deadline = Deadline::after(limits.head);
/// let io = Timed::new(FuturesIo::new(socket), SmolTimer::new(), deadline.clone());
///
/// let routes = Routes { callbacks: GONKA_CALLBACKS, ..Routes::NONE };
/// let served = serve(io, &deadline, &limits, &routes, async |batch| {
///     if batch.body.starts_with(b"{") { Answer::OK } else { Answer::error(400, "not an object") }
/// });
/// assert!(matches!(served.await, Served::Done));
/// # assert!(peer.join().unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn serve<I, H, F>(io: I, deadline: &Deadline, limits: &Limits, routes: &Routes<'_>, handler: H) -> Served<I>
where
    I: Read + Write + Unpin,
    H: Fn(Callback) -> F,
    F: Future<Output = Answer>,
{
    let desk =
        Desk { deadline, limits, routes, handler, asked: AtomicBool::new(false), upgraded: AtomicBool::new(false) };
    let desk = &desk;
    deadline.restart(limits.head);
    // Boxed because only an `Unpin` future lets the socket be taken back.
    let service = service_fn(|request| Box::pin(async { Ok::<_, Infallible>(desk.answer(request).await) }));
    let Ended { mut io, well, read_buf } = exchange(io, limits, service).await;

    if well && desk.upgraded.load(Ordering::Relaxed) {
        return Served::Upgraded { io, read_buf };
    }
    let timed_out = deadline.left().is_zero();
    deadline.restart(limits.linger);
    if timed_out && !read_buf.is_empty() && !desk.asked.load(Ordering::Relaxed) {
        // The library only closes. Nothing has been written yet, so an answer is still an answer.
        let _ =
            write_all(&mut io, b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    }
    let _ = hang_up(&mut io).await;
    Served::Done
}

/// Answers one request on `io` with `answer`, whatever it asks for, and ends the connection: for a listener that has no place
/// for it (rule U13). The head has [`Limits::linger`] to come, and so has the rest of the request to be thrown away.
///
/// ```
/// # use bowline_transport::http::{Answer, Deadline, Limits, Timed, refuse};
/// # use smol_hyper::rt::{FuturesIo, SmolTimer};
/// # use std::io::{Read as _, Write as _};
/// # smol::block_on(async {
/// let listener = smol::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// # let peer = std::thread::spawn(move || {
/// #     let mut socket = std::net::TcpStream::connect(address).unwrap();
/// #     socket.write_all(b"GET /ws HTTP/1.1\r\nHost: us\r\n\r\n").unwrap();
/// #     let mut answer = String::new();
/// #     socket.read_to_string(&mut answer).unwrap();
/// #     answer
/// # });
/// let (socket, _) = listener.accept().await?;
/// let limits = Limits::default();
/// let deadline = Deadline::after(limits.linger);
/// let io = Timed::new(FuturesIo::new(socket), SmolTimer::new(), deadline.clone());
/// refuse(io, &deadline, &limits, Answer::BUSY).await;
/// # let answer = peer.join().unwrap();
/// # assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1\r\n"), "{answer}");
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub async fn refuse<I: Read + Write + Unpin>(io: I, deadline: &Deadline, limits: &Limits, answer: Answer) {
    deadline.restart(limits.linger);
    let service = service_fn(|_: Request<Incoming>| ready(Ok::<_, Infallible>(last(reply(answer.clone())))));
    let Ended { mut io, .. } = exchange(io, limits, service).await;
    deadline.restart(limits.linger);
    let _ = hang_up(&mut io).await;
}

/// A connection whose requests are answered.
struct Ended<I> {
    io: I,
    /// It ended in order.
    well: bool,
    /// What came behind the last request.
    read_buf: Bytes,
}

/// Answers requests until the connection ends or becomes something else.
async fn exchange<I, S>(io: I, limits: &Limits, service: S) -> Ended<I>
where
    I: Read + Write + Unpin,
    S: Service<Request<Incoming>, Response = Response<Whole>, Error = Infallible> + Unpin,
    S::Future: Unpin,
{
    let mut connection = http1::Builder::new()
        .half_close(true)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(PIECE))
        .serve_connection(io, service);
    let well = poll_fn(|cx| connection.poll_without_shutdown(cx)).await.is_ok();
    let parts = connection.into_parts();
    Ended { io: parts.io, well, read_buf: parts.read_buf }
}

/// Ends our half of the connection and throws away what the peer still sends, until it ends too. Closing at once would
/// make its system discard the answer it has not read yet. The deadline ends this, and so does a flood.
async fn hang_up<I: Read + Write + Unpin>(io: &mut I) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *io).poll_shutdown(cx)).await?;
    let mut left = FLOOD;
    let mut waste = [0; 4096];
    loop {
        let mut buffer = ReadBuf::new(&mut waste);
        poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, buffer.unfilled())).await?;
        let read = buffer.filled().len();
        if read == 0 || read > left {
            return Ok(());
        }
        left -= read;
    }
}

async fn write_all<I: Write + Unpin>(io: &mut I, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, rest)).await?;
        rest = match rest.get(written..) {
            Some(after) if written > 0 => after,
            _ => return Err(io::ErrorKind::WriteZero.into()),
        };
    }
    Ok(())
}

/// Where the requests of one connection are answered.
struct Desk<'a, H> {
    deadline: &'a Deadline,
    limits: &'a Limits,
    routes: &'a Routes<'a>,
    handler: H,
    /// A whole head has come.
    asked: AtomicBool,
    /// A 101 was answered, and it is the last answer.
    upgraded: AtomicBool,
}

impl<H, F> Desk<'_, H>
where
    H: Fn(Callback) -> F,
    F: Future<Output = Answer>,
{
    async fn answer(&self, request: Request<Incoming>) -> Response<Whole> {
        self.asked.store(true, Ordering::Relaxed);
        self.deadline.restart(self.limits.body);
        let response = self.route(request).await;
        self.deadline.restart(self.limits.head);
        response
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Whole> {
        let path = request.uri().path();
        // A refusal leaves the body unread, and then the connection cannot go on.
        let whole = request.body().is_end_stream();
        let refused = |response| if whole { response } else { last(response) };
        // What is on the way may have read the other one: then nothing that follows is what it let through.
        if request.headers().get_all(HOST).iter().nth(1).is_some() {
            return last(refusal(StatusCode::BAD_REQUEST, "one Host is needed"));
        }
        if let Some((path, segment)) = segment(self.routes.websockets, path) {
            if *request.method() != Method::GET {
                return refused(with(refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET, to upgrade"), ALLOW, "GET"));
            }
            return refused(self.upgrade(&request, self.routes.guarded.then_some((path, segment))).await);
        }
        if let Some(page) = segment(self.routes.pages, path) {
            return refused(match *request.method() {
                Method::GET | Method::HEAD => self.read(page).await,
                _ => with(refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET"), ALLOW, "GET, HEAD"),
            });
        }
        match segment(self.routes.callbacks, path) {
            Some(named) if request.method() == Method::POST => self.receive(named, request).await,
            Some(_) => refused(with(refusal(StatusCode::METHOD_NOT_ALLOWED, "only POST"), ALLOW, "POST")),
            None => refused(refusal(StatusCode::NOT_FOUND, "no such path")),
        }
    }

    /// The whole body, if it is no longer than the limit; nothing is read of one whose head already says that it is. Memory
    /// and time grow with what has come, not with what was announced.
    async fn collect(&self, mut body: Incoming, room: &mut Room) -> Result<Bytes, Unread> {
        let limit = self.limits.body_bytes;
        if body.size_hint().lower() > limit {
            return Err(Unread::TooLarge);
        }
        let begun = Instant::now();
        let mut whole = Bytes::new();
        let mut joined = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { return Err(Unread::Broken) };
            let Ok(piece) = frame.into_data() else { continue };
            let length = whole.len() + joined.len() + piece.len();
            if u64::try_from(length).unwrap_or(u64::MAX) > limit {
                return Err(Unread::TooLarge);
            }
            if !room.take(piece.len()) {
                return Err(Unread::NoRoom);
            }
            let allowed = self.limits.body.saturating_add(slowest(length));
            self.deadline.restart(allowed.saturating_sub(begun.elapsed()));
            if whole.is_empty() && joined.is_empty() {
                // Most bodies come in one piece, which needs no copy.
                whole = piece;
            } else {
                joined.extend_from_slice(&core::mem::take(&mut whole));
                joined.extend_from_slice(&piece);
            }
        }
        // What the application does with it has the time that every request has.
        self.deadline.restart(self.limits.body);
        Ok(if joined.is_empty() { whole } else { joined.into() })
    }

    async fn read(&self, (path, segment): (&'static str, &'static str)) -> Response<Whole> {
        reply((self.handler)(Callback { path, ..Callback::empty(segment) }).await)
    }

    async fn receive(
        &self,
        (path, segment): (&'static str, &'static str),
        request: Request<Incoming>,
    ) -> Response<Whole> {
        let idempotency_key = match idempotency_key(request.headers()) {
            Ok(key) => key,
            Err(why) => return reply(Answer::error(400, why)),
        };
        let bearer =
            word(request.headers(), &AUTHORIZATION).and_then(|said| said.strip_prefix("Bearer ").map(Into::into));
        let client = word(request.headers(), &HeaderName::from_static(CLIENT)).map(Into::into);
        // Held until the answer is there: by then the body is the application's or gone.
        let mut room = Room(0);
        match self.collect(request.into_body(), &mut room).await {
            Ok(body) => {
                let callback = Callback { path, idempotency_key, bearer, client, body, ..Callback::empty(segment) };
                reply((self.handler)(callback).await)
            }
            Err(Unread::NoRoom) => {
                let busy = Answer { retry_after: Some(Duration::from_secs(1)), ..Answer::error(503, "no room") };
                last(reply(busy))
            }
            Err(Unread::TooLarge) => last(refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")),
            Err(Unread::Broken) if self.deadline.left().is_zero() => {
                last(refusal(StatusCode::REQUEST_TIMEOUT, "the body took too long"))
            }
            Err(Unread::Broken) => last(refusal(StatusCode::BAD_REQUEST, "the body is not what its head promised")),
        }
    }

    async fn upgrade(&self, request: &Request<Incoming>, ask: Option<(&'static str, &'static str)>) -> Response<Whole> {
        match accept_key(request) {
            Ok(accept) => {
                let subprotocol = offered(request.headers(), self.routes.subprotocols);
                if let Some((path, segment)) = ask {
                    let answer = (self.handler)(Callback { path, subprotocol, ..Callback::empty(segment) }).await;
                    if answer.status != 200 {
                        // Whoever wanted a WebSocket has nothing more to ask, and its place is wanted.
                        return last(reply(answer));
                    }
                }
                self.upgraded.store(true, Ordering::Relaxed);
                let mut response = upgradable(response(StatusCode::SWITCHING_PROTOCOLS, Bytes::new()));
                response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
                if let Some(selected) = subprotocol {
                    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(selected));
                }
                response
            }
            Err(Misfit::NotAsked) => upgradable(refusal(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket")),
            Err(Misfit::Version) => {
                let refusal = upgradable(refusal(StatusCode::UPGRADE_REQUIRED, "only version 13 is spoken"));
                with(refusal, SEC_WEBSOCKET_VERSION, "13")
            }
            Err(Misfit::Bad(why)) => refusal(StatusCode::BAD_REQUEST, why),
        }
    }
}

/// `path` and its last part, if it is one of these.
fn segment(paths: &[&'static str], path: &str) -> Option<(&'static str, &'static str)> {
    let known = paths.iter().find(|known| **known == path)?;
    Some((known, known.rsplit('/').next()?))
}

/// A header that occurs once and has at most 80 visible characters.
fn word<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    only(headers, name)?.to_str().ok().filter(|text| text.len() <= 80)
}

/// Why a request is no handshake.
enum Misfit {
    NotAsked,
    Version,
    Bad(&'static str),
}

/// The handshake of RFC 6455, section 4.2: what goes into `Sec-WebSocket-Accept`.
fn accept_key(request: &Request<Incoming>) -> Result<HeaderValue, Misfit> {
    let headers = request.headers();
    // An upgrade in an HTTP/1.0 request is to be ignored (RFC 9110, section 7.8).
    if request.version() < Version::HTTP_11 || !has_token(headers, &UPGRADE, "websocket") {
        return Err(Misfit::NotAsked);
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err(Misfit::Bad("Connection: Upgrade is missing"));
    }
    if !headers.contains_key(HOST) {
        return Err(Misfit::Bad("Host is missing"));
    }
    // The body would be read as the first frame.
    if !request.body().is_end_stream() {
        return Err(Misfit::Bad("an upgrade has no body"));
    }
    match only(headers, &SEC_WEBSOCKET_VERSION) {
        Some(version) if version == "13" => {}
        Some(_) => return Err(Misfit::Version),
        None => return Err(Misfit::Bad("one Sec-WebSocket-Version is needed")),
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY).filter(|key| is_nonce(key.as_bytes()));
    let accept = key.and_then(|key| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok());
    accept.ok_or(Misfit::Bad("one Sec-WebSocket-Key of 16 bytes in base64 is needed"))
}

/// So many bytes of bodies are in memory at once, over all connections of the process: four of the largest.
const BODIES: u64 = 256 * 1024 * 1024;

/// The bytes of bodies that are in memory.
static IN_MEMORY: AtomicU64 = AtomicU64::new(0);

/// One request's share of [`BODIES`], given back when it is dropped.
struct Room(u64);

impl Room {
    /// Takes room for `more` bytes; false: there is none.
    fn take(&mut self, more: usize) -> bool {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        let fits = |taken: u64| taken.checked_add(more).filter(|taken| *taken <= BODIES);
        let taken = IN_MEMORY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        self.0 += if taken { more } else { 0 };
        taken
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        IN_MEMORY.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// Why there is no body.
enum Unread {
    TooLarge,
    /// All bodies together are.
    NoRoom,
    /// Late, reset, ended early, or chunked wrongly.
    Broken,
}

/// The key, if there is one that can name a message.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let value = only(headers, &HeaderName::from_static("idempotency-key")).and_then(|value| value.to_str().ok());
    let bare = value.map(|value| value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value));
    // Without it the message would be another one by each path.
    if bare.is_some_and(|bare| bare.len() > LONGEST_KEY) {
        return Err("an Idempotency-Key longer than 64 bytes");
    }
    let fits = |bare: &&str| !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_graphic());
    Ok(bare.filter(fits).map(str::to_owned))
}

/// The value of a header that occurs exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether a header that is a list, in one line or several, names `token`.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let mut lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.any(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
}

/// The first of these subprotocols that the client offers. Their names are compared byte by byte.
fn offered(headers: &HeaderMap, known: &[&'static str]) -> Option<&'static str> {
    let is_offered = |known: &&&str| {
        let mut lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
        lists.any(|list| list.split(',').any(|item| item.trim() == **known))
    };
    known.iter().find(is_offered).copied()
}

/// Whether this is the base64 of 16 bytes.
fn is_nonce(key: &[u8]) -> bool {
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.strip_suffix(b"==").is_some_and(|digits| digits.iter().all(alphabet))
}

fn response(status: StatusCode, body: Bytes) -> Response<Whole> {
    let mut response = Response::new(Whole::new(body));
    *response.status_mut() = status;
    response
}

fn refusal(status: StatusCode, why: &str) -> Response<Whole> {
    with(response(status, error_body(why)), CONTENT_TYPE, "application/json")
}

fn reply(answer: Answer) -> Response<Whole> {
    let status = StatusCode::from_u16(answer.status).ok().filter(|status| !status.is_informational());
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match answer.error {
        Some(why) if status != StatusCode::NO_CONTENT && status != StatusCode::NOT_MODIFIED => refusal(status, &why),
        _ => match answer.body {
            // What it is said to be, not what a browser makes of it.
            Some((kind, body)) => {
                with(with(response(status, body), CONTENT_TYPE, kind), X_CONTENT_TYPE_OPTIONS, "nosniff")
            }
            None => response(status, Bytes::new()),
        },
    };
    if let Some(after) = answer.retry_after {
        let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn with(mut response: Response<Whole>, name: HeaderName, value: &'static str) -> Response<Whole> {
    response.headers_mut().append(name, HeaderValue::from_static(value));
    response
}

/// With the headers that every 101 and 426 must have.
fn upgradable(response: Response<Whole>) -> Response<Whole> {
    with(with(response, UPGRADE, "websocket"), CONNECTION, "Upgrade")
}

/// With the announcement that the connection ends after it.
fn last(response: Response<Whole>) -> Response<Whole> {
    with(response, CONNECTION, "close")
}

/// `{"error":"…"}` (RFC 8259, section 7: what must be escaped, and nothing else).
fn error_body(why: &str) -> Bytes {
    let mut json = String::with_capacity(why.len() + 12);
    json.push_str("{\"error\":\"");
    for c in why.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\n' => json.push_str("\\n"),
            // Writing to a string cannot fail.
            c if c < ' ' => drop(write!(json, "\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push_str("\"}");
    json.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::task::{Context, Poll};
    use hyper::rt::ReadBufCursor;

    #[test]
    fn an_error_is_always_json() {
        for (why, json) in [
            ("plain", r#"{"error":"plain"}"#),
            ("", r#"{"error":""}"#),
            ("say \"no\" \\ \n\r\t\0\u{1f}", r#"{"error":"say \"no\" \\ \n\u000d\u0009\u0000\u001f"}"#),
            ("é \u{1f600} \u{7f}", "{\"error\":\"é \u{1f600} \u{7f}\"}"),
        ] {
            assert_eq!(error_body(why), json);
        }
    }

    #[test]
    fn h1_which_idempotency_keys_are_handed_on() {
        let key = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", HeaderValue::from_bytes(value).unwrap());
            }
            idempotency_key(&headers)
        };
        assert_eq!(key(&[b"abc-1"]), Ok(Some("abc-1".into())));
        assert_eq!(key(&[b"\"abc-1\""]), Ok(Some("abc-1".into())));
        assert_eq!(key(&[&[b'x'; 64]]), Ok(Some("x".repeat(64))));
        assert_eq!(key(&[&[b'x'; 65]]), Err("an Idempotency-Key longer than 64 bytes"));
        for none in [&[] as &[&[u8]], &[b""], &[b"\"\""], &[b"a b"], &[b"\xc3\xa9"], &[b"a", b"a"]] {
            assert_eq!(key(none), Ok(None), "{none:?}");
        }
    }

    #[test]
    fn which_keys_are_sixteen_bytes() {
        assert!(is_nonce(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for key in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=a", "dGhlIHNhbXBsZSBub25j-Q=="] {
            assert!(!is_nonce(key.as_bytes()), "{key}");
        }
    }

    /// A socket in memory: what comes in, how much of it was read, and what went out.
    struct Socket {
        comes: Vec<u8>,
        read: usize,
        said: Vec<u8>,
    }

    impl Socket {
        const fn new(comes: Vec<u8>) -> Self {
            Self { comes, read: 0, said: Vec::new() }
        }
    }

    impl Read for Socket {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            mut buf: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            let end = self.comes.len().min(self.read.saturating_add(buf.remaining()));
            buf.put_slice(&self.comes[self.read..end]);
            self.read = end;
            Poll::Ready(Ok(()))
        }
    }

    impl Write for Socket {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.said.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// What comes after the last answer is thrown away, but not without end.
    #[test]
    fn h6_a_flood_after_the_last_answer_has_an_end() {
        let mut flood = Socket::new(vec![0; 2 * FLOOD]);
        smol::block_on(hang_up(&mut flood)).unwrap();
        assert!(flood.read.abs_diff(FLOOD) <= 4096, "{} bytes were read", flood.read);
    }

    #[test]
    fn h11_two_hosts_are_one_too_many() {
        let answered = |hosts: &str| {
            let request = format!("POST /batch HTTP/1.1\r\n{hosts}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}");
            let mut socket = Socket::new(request.into());
            let routes = Routes { callbacks: &["/batch"], ..Routes::NONE };
            let (limits, deadline) = (Limits::DEFAULT, Deadline::after(Limits::DEFAULT.head));
            smol::block_on(serve(&mut socket, &deadline, &limits, &routes, async |_| Answer::OK));
            socket.said.get(9..12).map(|status| String::from_utf8_lossy(status).into_owned())
        };
        for (hosts, status) in [
            ("", "200"),
            ("Host: a\r\n", "200"),
            ("Host: a\r\nHost: b\r\n", "400"),
            ("Host: a\r\nhOST: a\r\n", "400"),
            ("Host: a\r\nHost: \r\nHost: a\r\n", "400"),
        ] {
            assert_eq!(answered(hosts).as_deref(), Some(status), "{hosts:?}");
        }
    }

    #[test]
    fn only_a_final_status_is_sent() {
        for (asked, sent) in
            [(200, 200), (204, 204), (503, 503), (999, 999), (0, 500), (101, 500), (100, 500), (1000, 500)]
        {
            assert_eq!(reply(Answer::status(asked)).status().as_u16(), sent);
        }
        let answer = Answer { retry_after: Some(Duration::from_millis(3001)), ..Answer::status(503) };
        assert_eq!(reply(answer).headers()[RETRY_AFTER], "4");
    }
}
