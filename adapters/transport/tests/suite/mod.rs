//! What HTTP must do over a real socket, whoever waits for that socket. Each adapter's way of waiting is a [`Driver`];
//! `run_with!` makes every scenario a test of it.
//!
//! No scenario sleeps: it waits for bytes, and every wait has an end.

use bowline::{HttpOutcome, HttpTimeouts, MessageId, Reason, RetryHint};
use bowline_transport::http::{
    Answer, Bytes, Callback, Deadline, GONKA_CALLBACKS, HttpAnswer, Limits, Post, Posted, Routes, Target,
};
use bowline_transport::{Excerpt, Explanation};
use core::future::{Future, poll_fn};
use core::marker::PhantomData;
use core::net::SocketAddr;
use core::task::{Poll, Waker};
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Nothing here takes this long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

const WEBSOCKET: &str = "/api/v1/pow/ws";
const ROUTES: Routes<'_> = Routes { websockets: &[WEBSOCKET], callbacks: GONKA_CALLBACKS, ..Routes::NONE };

/// The example of RFC 6455, section 1.3, offering what is never taken up.
const UPGRADE: &str = "GET /api/v1/pow/ws HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: chat, bowline.1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

/// How one adapter waits.
pub(crate) trait Driver: 'static {
    fn post(socket: TcpStream, request: Post<'_>) -> Posted;

    /// The socket and the early bytes if it is a WebSocket now.
    fn dial(
        socket: TcpStream,
        target: &Target,
        subprotocol: Option<&'static str>,
        deadline: Deadline,
    ) -> Result<(TcpStream, Bytes), (Explanation, RetryHint)>;

    /// Answers whatever is asked with this.
    fn refuse(socket: TcpStream, limits: &Limits, answer: Answer);

    /// The socket and the early bytes if it was upgraded.
    fn serve<H, F>(socket: TcpStream, limits: &Limits, routes: &Routes<'_>, handler: H) -> Option<(TcpStream, Bytes)>
    where
        H: Fn(Callback) -> F + Send + Sync,
        F: Future<Output = Answer> + Send;
}

macro_rules! run_with {
    ($driver:ty) => {
        run_with! { $driver:
            callbacks_arrive_with_their_key_and_body
            one_connection_carries_many_requests
            every_answer_of_the_handler
            what_is_refused_and_how
            h11_two_hosts_are_refused
            what_is_no_handshake
            an_upgrade_keeps_every_byte
            an_upgrade_can_come_second
            a_body_that_announces_too_much_is_refused_unread
            a_body_that_never_ends_is_refused
            a_refusal_reaches_a_peer_that_writes_first_and_reads_later
            the_handler_runs_undisturbed
            a_peer_that_has_finished_writing_is_answered
            the_end_of_a_connection_is_announced
            a_body_that_waits_to_be_asked_for
            curl_is_content
            a_slow_head_ends
            a_silent_peer_is_left_without_a_word
            a_slow_body_ends
            h10_a_body_that_goes_on_coming_arrives
            what_is_no_http
            a_head_has_a_limit
            any_bytes_at_all
            u13_who_finds_no_place_is_told_so_whatever_it_asks_for
            a_peer_that_leaves_in_the_middle
            the_request_is_what_the_rules_say
            every_answer_has_its_outcome
            what_is_no_answer_is_unknown
            h10_a_deadline_for_bytes_and_one_for_thinking
            h10_a_slow_upload_arrives
            a_body_of_the_answer_is_not_waited_for
            a_refusal_in_the_middle_of_a_large_body_is_heard
            what_one_side_posts_the_other_receives
            dialling_keeps_every_byte
            what_one_side_dials_the_other_upgrades
            every_refusal_of_a_dial_has_its_cause
            a_subprotocol_is_agreed_on_or_there_is_none
        }
    };
    ($driver:ty: $($scenario:ident)*) => {
        $(
            #[test]
            fn $scenario() {
                suite::$scenario::<$driver>();
            }
        )*
    };
}

// ---- a server under test

/// One connection being served in a thread, and the peer's end of it.
struct Served<D> {
    peer: TcpStream,
    seen: Receiver<Callback>,
    end: Receiver<Option<(TcpStream, Bytes)>>,
    driver: PhantomData<D>,
}

fn brisk() -> Limits {
    // Long enough that no test meets one by accident, and longer than `PATIENCE`, so that one which matters is noticed.
    let long = PATIENCE * 2;
    Limits { head: long, body: long, linger: long, ..Limits::DEFAULT }
}

fn serve<D: Driver>(limits: Limits) -> Served<D> {
    serve_with::<D, _, _>(limits, async |_| Answer::OK)
}

fn serve_with<D: Driver, H, F>(limits: Limits, handler: H) -> Served<D>
where
    H: Fn(Callback) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send,
{
    serve_routes::<D, _, _>(limits, ROUTES, handler)
}

fn serve_routes<D: Driver, H, F>(limits: Limits, routes: Routes<'static>, handler: H) -> Served<D>
where
    H: Fn(Callback) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send,
{
    let (peer, socket) = pair();
    let (saw, seen) = channel();
    let (ended, end) = channel();
    thread::spawn(move || {
        let result = D::serve(socket, &limits, &routes, |callback| {
            // The test may have what it wanted and be gone.
            let _ = saw.send(callback.clone());
            handler(callback)
        });
        let _ = ended.send(result);
    });
    Served { peer, seen, end, driver: PhantomData }
}

/// A connection for which there is no place.
fn refuse<D: Driver>(limits: Limits) -> Served<D> {
    let (peer, socket) = pair();
    let ((_, seen), (ended, end)) = (channel(), channel());
    thread::spawn(move || {
        D::refuse(socket, &limits, Answer::BUSY);
        let _ = ended.send(None);
    });
    Served { peer, seen, end, driver: PhantomData }
}

impl<D> Served<D> {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.peer.write_all(bytes.as_ref()).unwrap();
    }

    fn answer(&mut self) -> Reply {
        Reply::read(&mut self.peer)
    }

    fn seen(&self) -> Callback {
        self.seen.recv_timeout(PATIENCE).expect("the handler was not called")
    }

    /// It is over, and was not upgraded.
    fn done(self) {
        drop(self.peer);
        assert!(self.end.recv_timeout(PATIENCE).expect("serve() does not end").is_none());
        assert!(self.seen.try_recv().is_err(), "the handler was called once more than the test knows of");
    }

    fn upgraded(&self) -> (TcpStream, Bytes) {
        self.end.recv_timeout(PATIENCE).expect("serve() does not end").expect("it was not upgraded")
    }
}

#[derive(Debug)]
struct Reply {
    head: String,
    body: String,
}

impl Reply {
    /// The next final answer.
    fn read(peer: &mut TcpStream) -> Self {
        let head = read_head(peer);
        let mut reply = Self { head, body: String::new() };
        if let Some(length) = reply.header("content-length").filter(|_| reply.status() != 101) {
            let mut body = vec![0; length.parse().unwrap()];
            peer.read_exact(&mut body).unwrap();
            reply.body = String::from_utf8(body).unwrap();
        }
        reply
    }

    fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn read_head(peer: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(peer.read(&mut byte).expect("no answer"), 1, "ended after {:?}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn read_to_end(peer: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    peer.read_to_end(&mut rest).expect("the connection does not end");
    String::from_utf8_lossy(&rest).into_owned()
}

/// Two ends of a connection, neither of which waits for ever.
fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen();
    let near = TcpStream::connect(address).unwrap();
    let (far, _) = listener.accept().unwrap();
    for end in [&near, &far] {
        end.set_nodelay(true).unwrap();
        end.set_read_timeout(Some(PATIENCE)).unwrap();
        end.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    (near, far)
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn post_head(path: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}\r\n"
    )
}

const GENERATED: &str = "/v1/poc-batches/generated";

/// A gate that a handler waits at.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(bool, Option<Waker>)>>);

impl Gate {
    fn open(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }

    async fn pass(self) {
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            state.1 = Some(cx.waker().clone());
            if state.0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

// ---- the server's scenarios

pub(crate) fn callbacks_arrive_with_their_key_and_body<D: Driver>() {
    for prefix in ["/v1/poc-batches", "/mlnode/v1/poc-batches"] {
        for segment in ["generated", "validated"] {
            for (header, key) in [
                ("Idempotency-Key: 0123-abc\r\n", Some("0123-abc")),
                ("idempotency-key: \"quoted\"\r\n", Some("quoted")),
                ("Idempotency-Key: with space\r\n", None),
                ("", None),
            ] {
                let mut server = serve::<D>(brisk());
                let body = r#"{"nonces":[3,13]}"#;
                server.send(post_head(&format!("{prefix}/{segment}"), body.len(), header));
                server.send(body);
                let answer = server.answer();
                assert_eq!((answer.status(), answer.body.as_str()), (200, ""));
                let seen = server.seen();
                assert_eq!(
                    seen,
                    Callback {
                        idempotency_key: key.map(str::to_owned),
                        path: seen.path,
                        body: body.into(),
                        ..Callback::empty(seen.segment)
                    }
                );
                assert_eq!(seen.segment, segment);
                server.done();
            }
        }
    }
    // Chunked, and with the whole URL in the request line, as to a proxy.
    let mut server = serve::<D>(brisk());
    server.send(
        "POST http://api/v1/poc-batches/generated HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\nTrailer: x\r\n\r\n",
    );
    assert_eq!(server.answer().status(), 200);
    assert_eq!(server.seen().body, r#"{"a":1}"#);
    server.done();
}

pub(crate) fn one_connection_carries_many_requests<D: Driver>() {
    let mut server = serve::<D>(brisk());
    for body in ["1", "22", "333"] {
        server.send(post_head(GENERATED, body.len(), "") + body);
        assert_eq!(server.answer().status(), 200);
        assert_eq!(server.seen().body, body);
    }
    // Three at once, of which the second is wrong: three answers, in order.
    let get = format!("GET {GENERATED} HTTP/1.1\r\nHost: api\r\n\r\n");
    server.send(post_head(GENERATED, 1, "") + "a" + &get + &post_head(GENERATED, 1, "Connection: close\r\n") + "b");
    for status in [200, 405, 200] {
        assert_eq!(server.answer().status(), status);
    }
    assert_eq!(read_to_end(&mut server.peer), "");
    assert_eq!((&server.seen().body[..], &server.seen().body[..]), (&b"a"[..], &b"b"[..]));
    server.done();
}

pub(crate) fn every_answer_of_the_handler<D: Driver>() {
    let wait = Some(Duration::from_millis(3500));
    for (answer, status, retry_after, body) in [
        (Answer::OK, 200, None, ""),
        (Answer::status(204), 204, None, ""),
        (Answer { retry_after: wait, ..Answer::status(503) }, 503, Some("4"), ""),
        (Answer { retry_after: Some(Duration::ZERO), ..Answer::status(429) }, 429, Some("0"), ""),
        (Answer::error(400, "say \"what\"\n"), 400, None, r#"{"error":"say \"what\"\n"}"#),
        (Answer { retry_after: wait, ..Answer::error(500, "chain") }, 500, Some("4"), r#"{"error":"chain"}"#),
        (Answer::error(204, "no body here"), 204, None, ""),
        (Answer::status(101), 500, None, ""),
        (Answer::status(0), 500, None, ""),
    ] {
        let mut server = serve_with::<D, _, _>(brisk(), {
            let answer = answer.clone();
            move |_| core::future::ready(answer.clone())
        });
        for _ in 0..2 {
            server.send(post_head(GENERATED, 2, "") + "{}");
            let reply = server.answer();
            assert_eq!(reply.status(), status, "{answer:?}");
            assert_eq!(reply.header("retry-after"), retry_after, "{answer:?}");
            assert_eq!(reply.body, body, "{answer:?}");
            assert_eq!(reply.header("content-type"), (!body.is_empty()).then_some("application/json"));
            server.seen();
        }
        server.done();
    }
}

pub(crate) fn what_is_refused_and_how<D: Driver>() {
    for (request, status, allow) in [
        ("GET /v1/poc-batches/generated", 405, Some("POST")),
        ("PUT /mlnode/v1/poc-batches/validated", 405, Some("POST")),
        ("HEAD /v1/poc-batches/validated", 405, Some("POST")),
        ("POST /api/v1/pow/ws", 405, Some("GET")),
        ("HEAD /api/v1/pow/ws", 405, Some("GET")),
        ("GET /", 404, None),
        ("POST /v1/poc-batches", 404, None),
        ("POST /v1/poc-batches/", 404, None),
        ("POST /v1/poc-batches/generated/", 404, None),
        ("POST /v1/poc-batches/generatedx", 404, None),
        ("POST /v1/poc-batchesgenerated", 404, None),
        ("POST /v1/poc-batches//generated", 404, None),
        ("POST /v1/poc-batches/%67enerated", 404, None),
        ("POST /x/../v1/poc-batches/generated", 404, None),
        ("POST /mlnode/mlnode/v1/poc-batches/generated", 404, None),
        ("GET /api/v1/pow/ws/", 404, None),
        ("OPTIONS *", 404, None),
        ("CONNECT api:80", 404, None),
    ] {
        let mut server = serve::<D>(brisk());
        server.send(format!("{request} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n"));
        let all = read_to_end(&mut server.peer);
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        let reply = Reply { head: head.to_owned(), body: body.to_owned() };
        assert_eq!((reply.status(), reply.header("allow")), (status, allow), "{request}");
        assert_eq!(reply.body.is_empty(), request.starts_with("HEAD"), "{request}");
        server.done();
    }
    // A route that is switched off is not there.
    for request in [UPGRADE.to_owned(), post_head(GENERATED, 0, "")] {
        let mut server = serve_routes::<D, _, _>(brisk(), Routes::default(), async |_| Answer::OK);
        server.send(request);
        assert_eq!(server.answer().status(), 404);
        server.done();
    }
}

/// On every path, before anything else is looked at; and the connection ends, for what follows may be another's.
pub(crate) fn h11_two_hosts_are_refused<D: Driver>() {
    let twice = |request: &str| request.replacen("Host: ", "Host: other\r\nHost: ", 1);
    let same = |request: &str| request.replacen("Host: ", "Host: node\r\nhost: ", 1);
    let posted = post_head(GENERATED, 2, "") + "{}";
    let page = "GET /nothing HTTP/1.1\r\nHost: node\r\n\r\n".to_owned();
    for request in [UPGRADE.to_owned(), posted, page] {
        for request in [twice(&request), same(&request)] {
            assert!(request.to_lowercase().matches("host: ").count() == 2, "{request}");
            let mut server = serve::<D>(brisk());
            server.send(&request);
            let reply = server.answer();
            assert_eq!((reply.status(), reply.header("connection")), (400, Some("close")), "{request}");
            assert_eq!(reply.body, r#"{"error":"one Host is needed"}"#);
            assert_eq!(read_to_end(&mut server.peer), "");
            assert!(server.seen.try_recv().is_err(), "nobody was asked");
            server.done();
        }
    }
}

pub(crate) fn what_is_no_handshake<D: Driver>() {
    let without = |line: &str| {
        let rest: String = UPGRADE.split_inclusive("\r\n").filter(|given| !given.starts_with(line)).collect();
        assert_ne!(rest, UPGRADE);
        rest
    };
    let instead = |old: &str, new: &str| {
        assert!(UPGRADE.contains(old));
        UPGRADE.replace(old, new)
    };
    for (request, status, version) in [
        ("GET /api/v1/pow/ws HTTP/1.1\r\nHost: node\r\n\r\n".to_owned(), 426, None),
        (
            "GET /api/v1/pow/ws HTTP/1.1\r\nHost: node\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".to_owned(),
            426,
            None,
        ),
        (without("Upgrade:"), 426, None),
        (instead("HTTP/1.1", "HTTP/1.0"), 426, None),
        (instead("Version: 13", "Version: 8"), 426, Some("13")),
        (instead("Version: 13", "Version: 13, 8"), 426, Some("13")),
        (instead("Version: 13", "Version: "), 426, Some("13")),
        (without("Connection:"), 400, None),
        (without("Host:"), 400, None),
        (without("Sec-WebSocket-Version:"), 400, None),
        (without("Sec-WebSocket-Key:"), 400, None),
        (instead("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400, None),
        (instead("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"), 400, None),
        (instead("Host:", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost:"), 400, None),
        (instead("Host:", "Content-Length: 2\r\nHost:") + "\u{1}\u{2}", 400, None),
        (instead("Host:", "Transfer-Encoding: chunked\r\nHost:") + "0\r\n\r\n", 400, None),
    ] {
        let mut server = serve::<D>(brisk());
        server.send(&request);
        let reply = server.answer();
        assert_eq!(reply.status(), status, "{request}");
        assert_eq!(reply.header("upgrade"), (status == 426).then_some("websocket"), "{request}");
        assert_eq!(reply.header("sec-websocket-version"), version, "{request}");
        assert!(reply.body.starts_with(r#"{"error":""#), "{request}");
        server.done();
    }
}

pub(crate) fn an_upgrade_keeps_every_byte<D: Driver>() {
    let early = [0x81, 0x85, 1, 2, 3, 4, 0x69, 0x67, 0x6f, 0x68, 0x6e, 0x81, 0x80];
    for early in [&early[..], &[]] {
        let mut server = serve::<D>(brisk());
        // One write, one segment: request and first frames arrive together.
        server.send([UPGRADE.as_bytes(), early].concat());
        let reply = server.answer();
        assert_eq!(reply.status(), 101);
        assert_eq!(reply.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(reply.header("upgrade"), Some("websocket"));
        assert!(reply.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
        assert_eq!(reply.header("sec-websocket-protocol"), None, "no subprotocol is ever selected");
        assert_eq!(reply.header("sec-websocket-extensions"), None, "no extension is ever selected");

        let (mut socket, read_buf) = server.upgraded();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // More may have come with the request than was read with it.
        let mut got = read_buf.to_vec();
        let rest = early.len() - got.len();
        got.resize(early.len(), 0);
        socket.read_exact(&mut got[early.len() - rest..]).unwrap();
        assert_eq!(got, early);
        assert_eq!(read_buf, early, "what came in one segment is read in one piece");

        // And from here on it is a plain socket.
        server.send("to the server");
        let mut got = [0; 13];
        socket.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"to the server");
        socket.write_all(b"to the peer").unwrap();
        drop(socket);
        assert_eq!(read_to_end(&mut server.peer), "to the peer");
    }
}

pub(crate) fn an_upgrade_can_come_second<D: Driver>() {
    let mut server = serve::<D>(brisk());
    server.send(post_head(GENERATED, 2, "") + "{}" + UPGRADE + "early");
    assert_eq!(server.answer().status(), 200);
    assert_eq!(server.answer().status(), 101);
    let (_socket, read_buf) = server.upgraded();
    assert_eq!(read_buf, "early");
    // Tokens in lists, other spelling, several lines: as browsers and proxies write it.
    let mut server = serve::<D>(brisk());
    let lines = "Connection: keep-alive\r\nConnection: foo , UPGRADE";
    server.send(UPGRADE.replace("Connection: Upgrade", lines).replace("Upgrade: websocket", "uPGRADE: x, WebSocket"));
    assert_eq!(server.answer().status(), 101);
    server.upgraded();
}

pub(crate) fn a_body_that_announces_too_much_is_refused_unread<D: Driver>() {
    for more in ["", "Expect: 100-continue\r\n"] {
        let limits = Limits { body_bytes: 1000, ..brisk() };
        let mut server = serve::<D>(limits);
        // Only the head is ever sent.
        server.send(post_head(GENERATED, 1001, more));
        let reply = server.answer();
        assert_eq!((reply.status(), reply.header("connection")), (413, Some("close")));
        assert_eq!(reply.body, r#"{"error":"the body is too large"}"#);
        assert_eq!(read_to_end(&mut server.peer), "");
        server.done();

        let mut server = serve::<D>(limits);
        server.send(post_head(GENERATED, 1000, "") + &"x".repeat(1000));
        assert_eq!(server.answer().status(), 200, "the limit itself is allowed");
        assert_eq!(server.seen().body.len(), 1000);
        server.done();
    }
    // Numbers that cannot be.
    for length in ["18446744073709551615", "99999999999999999999", "-1", "1, 2", "0x10", ""] {
        let mut server = serve::<D>(brisk());
        server.send(format!("POST {GENERATED} HTTP/1.1\r\nHost: api\r\nContent-Length: {length}\r\n\r\n"));
        let status = server.answer().status();
        assert!([400, 413, 431].contains(&status), "{length}: {status}");
        server.done();
    }
}

pub(crate) fn a_body_that_never_ends_is_refused<D: Driver>() {
    let mut server = serve::<D>(Limits { body_bytes: 100_000, ..brisk() });
    server.send(format!("POST {GENERATED} HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n"));
    let mut peer = server.peer.try_clone().unwrap();
    // It stops when the server has thrown away enough and closes.
    let flood =
        thread::spawn(move || while peer.write_all(&[b"1000\r\n", &[b'x'; 0x1000][..], b"\r\n"].concat()).is_ok() {});
    assert_eq!(server.answer().status(), 413);
    flood.join().unwrap();
    server.done();
}

pub(crate) fn a_refusal_reaches_a_peer_that_writes_first_and_reads_later<D: Driver>() {
    // More than the system's buffers hold, so that closing early would reset the connection.
    let body = vec![b'x'; 16 * 1024 * 1024];
    for (path, status) in [(GENERATED, 413), ("/nowhere", 404), (WEBSOCKET, 405)] {
        let mut server = serve::<D>(Limits { body_bytes: 1000, ..brisk() });
        server.send(post_head(path, body.len(), ""));
        server.send(&body);
        let reply = server.answer();
        assert_eq!((reply.status(), reply.header("connection")), (status, Some("close")), "{path}");
        assert_eq!(read_to_end(&mut server.peer), "");
        server.done();
    }
}

pub(crate) fn u13_who_finds_no_place_is_told_so_whatever_it_asks_for<D: Driver>() {
    // More than the system's buffers hold: closed early, the answer would be lost.
    let body = "x".repeat(4 * 1024 * 1024);
    for asked in [UPGRADE.to_owned(), post_head(GENERATED, body.len(), "") + &body, "?\r\n\r\n".to_owned()] {
        let mut server = refuse::<D>(brisk());
        server.send(&asked);
        let reply = server.answer();
        if asked.starts_with('?') {
            assert_eq!(reply.status(), 400, "no HTTP");
        } else {
            let said = (reply.status(), reply.header("retry-after"), reply.header("connection"));
            assert_eq!(said, (503, Some("1"), Some("close")));
        }
        assert_eq!(read_to_end(&mut server.peer), "");
        server.done();
    }
    // Who asks for nothing is not waited for.
    let server = refuse::<D>(Limits { linger: Duration::from_millis(50), ..brisk() });
    server.done();
}

pub(crate) fn the_handler_runs_undisturbed<D: Driver>() {
    for pipelined in [false, true] {
        let gate = Gate::default();
        let at = gate.clone();
        let mut server = serve_with::<D, _, _>(brisk(), move |_| {
            let gate = at.clone();
            async move {
                gate.pass().await;
                Answer::OK
            }
        });
        server.send(post_head(GENERATED, 2, "") + "{}");
        if pipelined {
            server.send(post_head(GENERATED, 2, "") + "{}");
        }
        server.seen();
        // The peer is silent and stays: a server that read now would wait for it, not for the handler.
        let begun = Instant::now();
        gate.open();
        assert_eq!(server.answer().status(), 200);
        if pipelined {
            server.seen();
            assert_eq!(server.answer().status(), 200);
        }
        assert!(begun.elapsed() < PATIENCE);
        server.done();
    }
    // The peer goes away: the handler is not told, and finishes.
    let gate = Gate::default();
    let (finished, finish) = channel();
    let at = gate.clone();
    let server = serve_with::<D, _, _>(brisk(), move |_| {
        let (gate, finished) = (at.clone(), finished.clone());
        async move {
            gate.pass().await;
            finished.send(()).unwrap();
            Answer::OK
        }
    });
    (&server.peer).write_all((post_head(GENERATED, 2, "") + "{}").as_bytes()).unwrap();
    server.seen();
    let end = server.end;
    drop(server.peer);
    gate.open();
    finish.recv_timeout(PATIENCE).expect("the handler was stopped");
    assert!(end.recv_timeout(PATIENCE).expect("serve() does not end").is_none());
}

pub(crate) fn a_peer_that_has_finished_writing_is_answered<D: Driver>() {
    let mut server = serve::<D>(brisk());
    server.send(post_head(GENERATED, 2, "") + "{}");
    server.peer.shutdown(std::net::Shutdown::Write).unwrap();
    server.seen();
    assert!(read_to_end(&mut server.peer).starts_with("HTTP/1.1 200 OK\r\n"));
    server.done();
}

/// With a linger that is longer than the test's patience, the peer must learn of the end without it.
pub(crate) fn the_end_of_a_connection_is_announced<D: Driver>() {
    let mut server = serve::<D>(brisk());
    server.send(post_head(GENERATED, 2, "Connection: close\r\n") + "{}");
    assert_eq!(server.answer().status(), 200);
    assert_eq!(read_to_end(&mut server.peer), "");
    server.seen();
    server.done();

    // And a peer that never ends is let go after the linger.
    let mut server = serve::<D>(Limits { linger: Duration::from_millis(50), ..brisk() });
    server.send(post_head(GENERATED, 2, "Connection: close\r\n") + "{}");
    assert!(server.end.recv_timeout(PATIENCE).expect("serve() does not end").is_none());
}

pub(crate) fn a_body_that_waits_to_be_asked_for<D: Driver>() {
    let mut server = serve::<D>(brisk());
    server.send(post_head(GENERATED, 2, "Expect: 100-continue\r\n"));
    assert_eq!(read_head(&mut server.peer), "HTTP/1.1 100 Continue\r\n\r\n");
    server.send("{}");
    assert_eq!(server.answer().status(), 200);
    assert_eq!(server.seen().body, "{}");
    // Again on the same connection, and with a body that does not wait after all.
    server.send(post_head(GENERATED, 3, "Expect: 100-continue\r\n"));
    assert_eq!(read_head(&mut server.peer), "HTTP/1.1 100 Continue\r\n\r\n");
    server.send("[1]");
    assert_eq!(server.answer().status(), 200);
    assert_eq!(server.seen().body, "[1]");
    server.done();
    // A refusal is the answer to the question.
    let mut server = serve::<D>(brisk());
    server.send(post_head("/nowhere", 2, "Expect: 100-continue\r\n"));
    assert_eq!(server.answer().status(), 404);
    server.done();
}

pub(crate) fn curl_is_content<D: Driver>() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("curl is not installed: skipped");
        return;
    }
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let (saw, seen) = channel();
        let end = D::serve(socket, &brisk(), &ROUTES, |callback| {
            saw.send(callback.body.len()).unwrap();
            core::future::ready(Answer::OK)
        });
        assert!(end.is_none());
        seen.try_recv().unwrap()
    });
    // Over a megabyte, so curl asks first; it reads the body from its standard input.
    let mut curl = Command::new("curl")
        .args(["--noproxy", "*", "-sv", "--max-time", "10", "--data-binary", "@-", "-w", "%{http_code}"])
        .arg(format!("http://{address}{GENERATED}"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    curl.stdin.take().unwrap().write_all(&vec![b'x'; 2 << 20]).unwrap();
    let output = curl.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{log}");
    assert!(log.contains("100 Continue"), "{log}");
    assert!(!log.contains("Done waiting for 100-continue"), "{log}");
    assert_eq!(server.join().unwrap(), 2 << 20);
}

pub(crate) fn a_slow_head_ends<D: Driver>() {
    let limits = Limits { head: Duration::from_millis(300), ..brisk() };
    let mut server = serve::<D>(limits);
    let begun = Instant::now();
    // A byte now and then, which a timeout per read would put up with for ever.
    server.peer.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut drip = b"POST /".iter().chain(core::iter::repeat(&b'x'));
    let mut byte = [0];
    loop {
        server.send([*drip.next().unwrap()]);
        match server.peer.read(&mut byte) {
            Ok(read) => break assert_eq!((read, byte), (1, *b"H")),
            Err(e) => assert!(matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{e}"),
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    server.peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let rest = read_to_end(&mut server.peer);
    assert!(rest.starts_with("TTP/1.1 408 Request Timeout\r\n"), "{rest}");
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());
    server.done();
}

pub(crate) fn a_silent_peer_is_left_without_a_word<D: Driver>() {
    let limits = Limits { head: Duration::from_millis(100), ..brisk() };
    let mut server = serve::<D>(limits);
    assert_eq!(read_to_end(&mut server.peer), "");
    server.done();
    // After an answer too: a 408 now would be taken for the answer to the next request.
    for next in ["", "POST /v1"] {
        let mut server = serve::<D>(limits);
        server.send(post_head(GENERATED, 2, "") + "{}");
        assert_eq!(server.answer().status(), 200);
        server.seen();
        server.send(next);
        assert_eq!(read_to_end(&mut server.peer), "");
        server.done();
    }
}

pub(crate) fn a_slow_body_ends<D: Driver>() {
    let mut server = serve::<D>(Limits { body: Duration::from_millis(200), ..brisk() });
    server.send(post_head(GENERATED, 100, "") + "only this");
    let reply = server.answer();
    assert_eq!((reply.status(), reply.header("connection")), (408, Some("close")));
    assert_eq!(reply.body, r#"{"error":"the body took too long"}"#);
    assert_eq!(read_to_end(&mut server.peer), "");
    server.done();
}

/// The bytes that have come buy time: these, 4 s at the lowest rate.
pub(crate) fn h10_a_body_that_goes_on_coming_arrives<D: Driver>() {
    let mut server = serve::<D>(Limits { body: Duration::from_millis(500), ..brisk() });
    // What has come gives two seconds more, at 16 kB/s.
    let half = " ".repeat(32 << 10);
    server.send(post_head(GENERATED, 2 * half.len(), "") + &half);
    thread::sleep(Duration::from_millis(1500));
    server.send(&half);
    assert_eq!(server.seen().body.len(), 2 * half.len());
    assert_eq!(server.answer().status(), 200);
}

pub(crate) fn what_is_no_http<D: Driver>() {
    for junk in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a ClientHello of TLS\r\n\r\n"[..],
        b"hello\r\n\r\n",
        b"GET / HTTP/3.7\r\n\r\n",
        b"GET\x00/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad\x01Name: x\r\n\r\n",
        b"POST /v1/poc-batches/generated HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"\xff\xfe\xfd\xfc",
    ] {
        let mut server = serve::<D>(brisk());
        server.send(junk);
        let reply = server.answer();
        assert_eq!(reply.status(), 400, "{}", junk.escape_ascii());
        assert_eq!(read_to_end(&mut server.peer), "");
        server.done();
    }
    // A broken chunk, after the head was fine.
    for chunk in ["zz\r\n", "fffffffffffffffff\r\n", "2\r\n{}x", "-1\r\n"] {
        let mut server = serve::<D>(brisk());
        server.send(format!("POST {GENERATED} HTTP/1.1\r\nHost: api\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"));
        assert_eq!(server.answer().status(), 400, "{chunk}");
        server.done();
    }
    // HTTP/2 with prior knowledge is only hung up on.
    let mut server = serve::<D>(brisk());
    server.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    read_to_end(&mut server.peer);
    server.done();
}

pub(crate) fn a_head_has_a_limit<D: Driver>() {
    let limits = Limits { head_bytes: 2000, ..brisk() };
    for (size, status) in [(2000, 200), (2001, 431)] {
        let mut server = serve::<D>(limits);
        let bare = post_head(GENERATED, 0, "X: \r\n").len();
        server.send(post_head(GENERATED, 0, &format!("X: {}\r\n", "x".repeat(size - bare))));
        assert_eq!(server.answer().status(), status, "{size}");
        if status == 200 {
            server.seen();
        }
        server.done();
    }
    for (start, status) in [
        ("GET /".to_owned() + &"x".repeat(2000), 431),
        (format!("POST {GENERATED} HTTP/1.1\r\nX: {}", "x".repeat(2000)), 431),
        (format!("POST {GENERATED} HTTP/1.1\r\n{}\r\n", "a:\r\n".repeat(101)), 431),
    ] {
        let mut server = serve::<D>(limits);
        let mut peer = server.peer.try_clone().unwrap();
        // Answered although it never ends.
        let flood = thread::spawn(move || {
            let _ = peer.write_all(start.as_bytes());
            while peer.write_all(&[b'x'; 4096]).is_ok() {}
        });
        assert_eq!(server.answer().status(), status);
        flood.join().unwrap();
        server.done();
    }
}

/// Half HTTP, half noise, the same on every run: it must end, and without a panic.
pub(crate) fn any_bytes_at_all<D: Driver>() {
    let mut random = bowline::SplitMix64::new(1);
    let mut below = |n: usize| usize::try_from(random.next_u64() % u64::try_from(n).unwrap()).unwrap();
    let words: [&[u8]; 24] = [
        b"GET ",
        b"POST ",
        b"/v1/poc-batches/generated",
        b"/api/v1/pow/ws",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: upgrade\r\n",
        b"Sec-WebSocket-Version: 13\r\n",
        b"Sec-WebSocket-Key: ",
        b"Expect: 100-continue\r\n",
        b"\x00",
        b"\xff",
        b"Idempotency-Key: \x80\r\n",
        b": ",
    ];
    for round in 0..300 {
        let mut bytes = Vec::new();
        for _ in 0..below(30) {
            bytes.extend_from_slice(words[below(words.len())]);
        }
        if round % 3 == 0 && !bytes.is_empty() {
            let at = below(bytes.len());
            bytes[at] = u8::try_from(below(256)).unwrap();
        }
        let server = serve::<D>(brisk());
        let _ = (&server.peer).write_all(&bytes);
        let _ = server.peer.shutdown(std::net::Shutdown::Write);
        let _ = (&server.peer).read_to_end(&mut Vec::new());
        drop(server.peer);
        // The sender is gone without a word if the thread panicked.
        server.end.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("round {round}: {}", bytes.escape_ascii()));
    }
}

pub(crate) fn a_peer_that_leaves_in_the_middle<D: Driver>() {
    for sent in ["POST /v1/poc-", &post_head(GENERATED, 10, ""), &(post_head(GENERATED, 10, "") + "12345"), ""] {
        let mut server = serve::<D>(brisk());
        server.send(sent);
        server.done();
    }
    // Closing with unread bytes makes the system reset the connection.
    let mut server = serve::<D>(brisk());
    server.send(post_head(GENERATED, 10, "Expect: 100-continue\r\n"));
    assert_eq!(server.peer.peek(&mut [0]).unwrap(), 1);
    server.done();
}

// ---- the client's scenarios

const KEY: MessageId = MessageId::from_bits(0x0123_4567_89ab_8def_8123_4567_89ab_cdef);

/// A peer that answers the one request it gets with `script`'s bytes; yields the request's head.
fn peer<T: Send + 'static>(
    script: impl FnOnce(&mut TcpStream, &str) -> T + Send + 'static,
) -> (TcpStream, JoinHandle<T>) {
    let (near, mut far) = pair();
    let thread = thread::spawn(move || {
        let head = read_head(&mut far);
        script(&mut far, &head)
    });
    (near, thread)
}

fn read_body(socket: &mut TcpStream, head: &str) -> Vec<u8> {
    let length =
        Reply { head: head.to_owned(), body: String::new() }.header("content-length").unwrap().parse().unwrap();
    let mut body = vec![0; length];
    socket.read_exact(&mut body).unwrap();
    body
}

fn callback() -> Target {
    Target::http("http://api:9100/v1/poc-batches").unwrap().join("generated")
}

fn post<D: Driver>(socket: TcpStream, body: impl Into<Bytes>) -> Posted {
    post_within::<D>(socket, body, PATIENCE, PATIENCE)
}

fn post_within<D: Driver>(socket: TcpStream, body: impl Into<Bytes>, progress: Duration, thinking: Duration) -> Posted {
    let (target, headers) = (callback(), [("idempotency-key", KEY.to_string())]);
    let timeouts = HttpTimeouts { progress, thinking };
    D::post(socket, Post { target: &target, headers: &headers, body: body.into(), read: 0, timeouts })
}

/// An answer with an empty body.
fn bare(status: u16) -> HttpAnswer {
    HttpAnswer::new(status, "")
}

pub(crate) fn the_request_is_what_the_rules_say<D: Driver>() {
    let body = r#"{"dist":[1e-7],"text":"raw é, kept"}"#;
    let (socket, peer) = peer(|far, head| {
        let body = read_body(far, head);
        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        (head.to_owned(), body, read_to_end(far))
    });
    assert_eq!(post::<D>(socket, body), Posted::Answered(bare(200)));
    let (head, sent, rest) = peer.join().unwrap();
    assert_eq!((sent.as_slice(), rest.as_str()), (body.as_bytes(), ""), "the body as it is, once");
    let mut lines: Vec<_> = head.trim_end().lines().collect();
    assert_eq!(lines.remove(0), "POST /v1/poc-batches/generated HTTP/1.1");
    let mut lines: Vec<_> = lines.iter().map(|line| line.to_ascii_lowercase()).collect();
    lines.sort();
    assert_eq!(
        lines,
        [
            "connection: close".to_owned(),
            format!("content-length: {}", body.len()),
            "content-type: application/json".to_owned(),
            "host: api:9100".to_owned(),
            "idempotency-key: 01234567-89ab-8def-8123-456789abcdef".to_owned(),
            concat!("user-agent: bowline/", env!("CARGO_PKG_VERSION")).to_owned(),
        ]
    );
    // Nothing is still something.
    let (socket, peer) = self::peer(|far, head| {
        far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        head.to_ascii_lowercase().contains("content-length: 0\r\n")
    });
    assert_eq!(post::<D>(socket, ""), Posted::Answered(bare(200)));
    assert!(peer.join().unwrap());
}

pub(crate) fn every_answer_has_its_outcome<D: Driver>() {
    let after = |status, seconds| HttpAnswer { after: Duration::from_secs(seconds), ..bare(status) };
    let to = |status, target: &str| HttpAnswer { location: Some(target.into()), ..bare(status) };
    let of = |status, kind: &str, body: &'static str| HttpAnswer {
        content_type: Some(kind.into()),
        ..HttpAnswer::new(status, body)
    };
    for (answer, seen) in [
        ("200 OK\r\nContent-Length: 0\r\n\r\n", bare(200)),
        ("200 OK\r\nContent-Type: text/HTML; charset=utf-8\r\n\r\n<html>", of(200, "text/html", "<html>")),
        ("400 Bad\r\nContent-Type: application/json\r\n\r\n{}", of(400, "application/json", "{}")),
        ("204 No Content\r\n\r\n", bare(204)),
        ("299 Odd\r\nRetry-After: 7\r\n\r\n", after(299, 7)),
        ("409 Conflict\r\nRetry-After: 7\r\n\r\n", after(409, 7)),
        ("413 Too Large\r\n\r\n", bare(413)),
        ("429 Slow down\r\nRetry-After: 7\r\n\r\n", after(429, 7)),
        ("503 Busy\r\nretry-after:7\r\n\r\n", after(503, 7)),
        ("503 Busy\r\nRetry-After: 7\r\nRetry-After: 9\r\n\r\n", after(503, 7)),
        ("503 Busy\r\nRetry-After: -7\r\n\r\n", bare(503)),
        ("503 Busy\r\nRetry-After: \u{e9}\r\n\r\n", bare(503)),
        ("503 Busy\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n", bare(503)),
        ("503 Busy\r\nRetry-After: 999999999999999999999\r\n\r\n", after(503, 86400)),
        ("500 Error\r\n\r\n", bare(500)),
        ("401 Who?\r\n\r\n", bare(401)),
        ("404 Not Found\r\n\r\n", bare(404)),
        ("304 Not Modified\r\n\r\n", bare(304)),
        ("101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", bare(101)),
        ("302 Found\r\nLocation: http://elsewhere/\r\n\r\n", to(302, "http://elsewhere/")),
        ("308 Permanent Redirect\r\nLocation: /v2\r\n\r\n", to(308, "/v2")),
        ("999 What\r\n\r\n", bare(999)),
    ] {
        for before in
            ["HTTP/1.1 ", "HTTP/1.0 ", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 "]
        {
            let (socket, peer) = peer(move |far, head| {
                read_body(far, head);
                far.write_all(format!("{before}{answer}").as_bytes()).unwrap();
                far.shutdown(std::net::Shutdown::Write).unwrap();
                // Whatever it was, it is the end: nothing follows.
                read_to_end(far)
            });
            assert_eq!(post::<D>(socket, "{}"), Posted::Answered(seen.clone()), "{before}{answer}");
            assert_eq!(peer.join().unwrap(), "", "{answer}");
        }
    }
}

pub(crate) fn what_is_no_answer_is_unknown<D: Driver>() {
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(1000));
    const BROKEN_OFF: Reason = Reason::Closed(1006);
    for (answer, reason) in [
        ("", BROKEN_OFF),
        ("\r\n\r\n", Reason::Violation),
        ("HTTP/1.1 200", BROKEN_OFF),
        ("HTTP/1.1 200 OK\r\nContent-Le", BROKEN_OFF),
        ("200 OK\r\n\r\n", Reason::Violation),
        ("HTTP/2 200 OK\r\n\r\n", Reason::Violation),
        ("HTTP/1.1 20 OK\r\n\r\n", Reason::Violation),
        ("HTTP/1.1 2000 OK\r\n\r\n", Reason::Violation),
        ("HTTP/1.1 200 OK\r\nBad Name\u{1}: x\r\n\r\n", Reason::Violation),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Reason::Violation),
        ("SSH-2.0-OpenSSH\r\n\r\n", Reason::Violation),
        ("HTTP/1.1 100 Continue\r\n\r\n", BROKEN_OFF),
        (&huge, Reason::Violation),
        (&many, Reason::Violation),
    ] {
        let answer = answer.to_owned();
        let (socket, peer) = peer({
            let answer = answer.clone();
            move |far, head| {
                read_body(far, head);
                let _ = far.write_all(answer.as_bytes());
            }
        });
        assert_eq!(post::<D>(socket, "{}").outcome(false), HttpOutcome::Unknown(reason), "{answer:.60}");
        peer.join().unwrap();
    }
    // Reset: closed with the body unread.
    let (socket, reset) = peer(|far, _| assert_eq!(far.peek(&mut [0]).unwrap(), 1));
    assert_eq!(post::<D>(socket, "{}").outcome(false), HttpOutcome::Unknown(BROKEN_OFF));
    reset.join().unwrap();
    // A drip of an answer does not push the deadline on.
    let (socket, peer) = peer(|far, head| {
        read_body(far, head);
        far.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        let mut drip = b"HTTP/1.1 200 OK\r\n".iter().chain(b"X: y\r\n".iter().cycle());
        while far.write_all(&[*drip.next().unwrap()]).is_ok() {
            if far.read(&mut [0]).is_ok() {
                break;
            }
        }
    });
    let posted = post_within::<D>(socket, "{}", PATIENCE, Duration::from_secs(1));
    assert_eq!(posted.outcome(false), HttpOutcome::Unknown(Reason::Timeout));
    peer.join().unwrap();
}

/// A peer that takes nothing in ends by the time without progress, one that says nothing by its time to think; and each
/// has only its own.
pub(crate) fn h10_a_deadline_for_bytes_and_one_for_thinking<D: Driver>() {
    let second = Duration::from_secs(1);
    for (size, progress, thinking, why) in
        [(2, PATIENCE, second, Reason::Timeout), (32 << 20, second, PATIENCE, Reason::Stalled)]
    {
        let (near, far) = pair();
        let begun = Instant::now();
        let posted = post_within::<D>(near, vec![b'x'; size], progress, thinking);
        assert_eq!(posted.outcome(false), HttpOutcome::Unknown(why));
        assert!((Duration::from_millis(990)..PATIENCE).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        drop(far);
    }
}

/// An upload that takes several times as long as a byte may, and an answer that takes as long again.
pub(crate) fn h10_a_slow_upload_arrives<D: Driver>() {
    let (progress, thinking) = (Duration::from_millis(400), PATIENCE);
    // More than the system's buffers hold, taken in pieces with a pause of a quarter of the time that is allowed.
    let body = vec![b'x'; 24 << 20];
    let (socket, peer) = peer({
        let length = body.len();
        move |far, _| {
            let (mut left, mut piece, mut pauses) = (length, vec![0; 1 << 20], 0_u32);
            while left > 0 {
                let got = far.read(&mut piece).unwrap();
                assert!(got > 0, "{left} bytes are missing");
                left -= got;
                if left % 3 == 0 || pauses < 12 {
                    pauses += 1;
                    thread::sleep(progress / 4);
                }
            }
            thread::sleep(progress * 2);
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let begun = Instant::now();
    assert_eq!(post_within::<D>(socket, body, progress, thinking), Posted::Answered(bare(200)));
    assert!(begun.elapsed() > progress * 4, "it was not slow");
    peer.join().unwrap();
}

pub(crate) fn a_body_of_the_answer_is_not_waited_for<D: Driver>() {
    for answer in ["Content-Length: 1000000\r\n\r\nbegin", "Transfer-Encoding: chunked\r\n\r\n", "\r\n"] {
        let (socket, peer) = peer(move |far, head| {
            read_body(far, head);
            far.write_all(format!("HTTP/1.1 200 OK\r\n{answer}").as_bytes()).unwrap();
            // Not a byte more, and the connection stays open until the client ends it.
            let _ = far.read(&mut [0]);
        });
        let begun = Instant::now();
        let Posted::Answered(seen) = post::<D>(socket, "{}") else { panic!("{answer:?}") };
        assert_eq!((seen.status, seen.whole), (200, false));
        assert!(begun.elapsed() < PATIENCE / 2);
        peer.join().unwrap();
    }
}

/// Linux keeps what was received when a connection is reset; systems that do not may answer Unknown.
#[cfg(target_os = "linux")]
pub(crate) fn a_refusal_in_the_middle_of_a_large_body_is_heard<D: Driver>() {
    for _ in 0..10 {
        let (socket, peer) = peer(|far, _| {
            far.write_all(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
            // Closed with the body unread: a reset.
        });
        assert_eq!(post::<D>(socket, vec![b'x'; 32 << 20]), Posted::Answered(bare(413)));
        peer.join().unwrap();
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn a_refusal_in_the_middle_of_a_large_body_is_heard<D: Driver>() {}

pub(crate) fn what_one_side_posts_the_other_receives<D: Driver>() {
    let mut random = bowline::SplitMix64::new(7);
    for size in [0, 1, 8191, 8192, 65_536, 65_537, 5_000_000] {
        let body: Vec<u8> = core::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten().take(size).collect();
        let server = serve::<D>(brisk());
        let posted = post::<D>(server.peer.try_clone().unwrap(), body.clone());
        assert_eq!(posted, Posted::Answered(bare(200)));
        let seen = server.seen();
        assert!(seen.body == body, "{size}");
        assert_eq!(seen.idempotency_key, Some(KEY.to_string()));
        server.done();
    }
}

// ---- the client's handshake

fn node() -> Target {
    Target::websocket("node:8080", WEBSOCKET).unwrap()
}

fn dial<D: Driver>(socket: TcpStream) -> Result<(TcpStream, Bytes), (Explanation, RetryHint)> {
    D::dial(socket, &node(), None, Deadline::after(PATIENCE))
}

/// The key of a handshake's head, and the right answer to it.
fn accept_line(head: &str) -> String {
    let request = Reply { head: head.to_owned(), body: String::new() };
    let key = request.header("sec-websocket-key").unwrap();
    format!("Sec-WebSocket-Accept: {}\r\n", tungstenite::handshake::derive_accept_key(key.as_bytes()))
}

pub(crate) fn dialling_keeps_every_byte<D: Driver>() {
    let mut keys = Vec::new();
    for early in [&b"\x81\x05hello\x81\x00"[..], b""] {
        let (socket, peer) = peer(|far, head| {
            // Lower case and a list, as some servers write it.
            let upgrade =
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: keep-alive, upgrade\r\n";
            far.write_all(&[upgrade.as_bytes(), accept_line(head).as_bytes(), b"\r\n", early].concat()).unwrap();
            let mut got = [0; 7];
            far.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"to peer");
            far.write_all(b"and back").unwrap();
            head.to_owned()
        });
        let (mut socket, read_buf) = dial::<D>(socket).unwrap();
        assert_eq!(read_buf, early);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(b"to peer").unwrap();
        assert_eq!(read_to_end(&mut socket), "and back");

        let head = peer.join().unwrap();
        let request = Reply { head: head.clone(), body: String::new() };
        assert!(head.starts_with("GET /api/v1/pow/ws HTTP/1.1\r\n"), "{head}");
        assert_eq!(request.header("host"), Some("node:8080"));
        assert_eq!(request.header("sec-websocket-version"), Some("13"));
        assert_eq!(request.header("sec-websocket-protocol"), None);
        assert_eq!(request.header("sec-websocket-extensions"), None);
        keys.push(request.header("sec-websocket-key").unwrap().to_owned());
    }
    assert_ne!(keys[0], keys[1], "a key is drawn for every attempt");
}

pub(crate) fn what_one_side_dials_the_other_upgrades<D: Driver>() {
    let server = serve::<D>(brisk());
    let (mut near, _) = dial::<D>(server.peer.try_clone().unwrap()).unwrap();
    let (mut far, _) = server.upgraded();
    near.write_all(b"there").unwrap();
    let mut got = [0; 5];
    far.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"there");
    // And a refusal comes through as one.
    let server = serve_routes::<D, _, _>(brisk(), Routes::default(), async |_| Answer::OK);
    let begun = Instant::now();
    let refusal = dial::<D>(server.peer.try_clone().unwrap()).unwrap_err();
    let (why, hint) = refusal;
    assert_eq!((why.reason, hint), (Reason::Status(404), RetryHint::NONE));
    // The server keeps the connection open for another request, which is nothing to wait for.
    assert!(begun.elapsed() < PATIENCE / 2);
    server.done();
}

/// What was asked for must be chosen: nothing is another protocol, something else is no agreement.
pub(crate) fn a_subprotocol_is_agreed_on_or_there_is_none<D: Driver>() {
    let none = Reason::Subprotocol;
    let other = Reason::NotWebSocket;
    for (asked, chosen, refusal) in [
        (Some("bowline.1"), "Sec-WebSocket-Protocol: bowline.1\r\n", None),
        (Some("bowline.1"), "", Some(none)),
        (Some("bowline.1"), "Sec-WebSocket-Protocol: bowline.2\r\n", Some(other)),
        (Some("bowline.1"), "Sec-WebSocket-Protocol: bowline.1, bowline.2\r\n", Some(other)),
        (None, "Sec-WebSocket-Protocol: bowline.1\r\n", Some(other)),
    ] {
        let (socket, peer) = peer(move |far, head| {
            let request = Reply { head: head.to_owned(), body: String::new() };
            assert_eq!(request.header("sec-websocket-protocol"), asked);
            let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
            let answer = [upgrade, &accept_line(head), chosen, "\r\n"].concat();
            far.write_all(answer.as_bytes()).unwrap();
        });
        let dialled = D::dial(socket, &node(), asked, Deadline::after(PATIENCE));
        assert_eq!(dialled.err().map(|(why, _)| why.reason), refusal, "{chosen:?}");
        peer.join().unwrap();
    }
}

pub(crate) fn every_refusal_of_a_dial_has_its_cause<D: Driver>() {
    let seven = RetryHint::after(Duration::from_secs(7));
    let upgrade = "101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    let not_websocket = |text| (Reason::NotWebSocket, text, RetryHint::NONE);
    let status = |status, text| (Reason::Status(status), text, RetryHint::NONE);
    let wrong_accept = "the Sec-WebSocket-Accept header is missing or wrong";
    let no_upgrade = "101 without an upgrade to websocket";
    for (answer, refusal) in [
        ("200 OK\r\nContent-Length: 1000000\r\n\r\n<html>".to_owned(), status(200, "<html>")),
        (
            "200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Log\nin".to_owned(),
            (Reason::Foreign(200), "text/html: <p>Log in", RetryHint::NONE),
        ),
        ("302 Found\r\nLocation: /elsewhere?token=x\r\n\r\n".to_owned(), status(302, "to /elsewhere")),
        ("401 Who?\r\n\r\n".to_owned(), status(401, "")),
        ("403 No\r\nContent-Type: text/plain\r\n\r\nBearer t0k is old\x1b".to_owned(), {
            status(403, "text/plain: Bearer *** is old\\u{1b}")
        }),
        (
            "400 Bad Request\r\nContent-Type: text/html\r\n\r\n<h1>400</h1>The plain HTTP request was sent to HTTPS port"
                .to_owned(),
            (
                Reason::SpeaksTls,
                "text/html: <h1>400</h1>The plain HTTP request was sent to HTTPS port",
                RetryHint::NONE,
            ),
        ),
        ("426 Upgrade\r\nSec-WebSocket-Version: 8\r\n\r\n".to_owned(), status(426, "")),
        ("503 Busy\r\nRetry-After: 7\r\n\r\n".to_owned(), (Reason::Status(503), "", seven)),
        ("503 Busy\r\nRetry-After: -7\r\n\r\n".to_owned(), status(503, "")),
        (format!("{upgrade}\r\n"), not_websocket(wrong_accept)),
        (
            format!("{upgrade}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
            not_websocket(wrong_accept),
        ),
        (
            format!("{upgrade}ACCEPT;Sec-WebSocket-Protocol: chat\r\n\r\n"),
            not_websocket("it chooses the subprotocol chat"),
        ),
        (
            format!("{upgrade}ACCEPT;Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
            not_websocket("it chooses an extension that was not offered"),
        ),
        (
            "101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nACCEPT;\r\n".to_owned(),
            not_websocket(no_upgrade),
        ),
        (
            "101 Switching Protocols\r\nUpgrade: websocket\r\nACCEPT;\r\n".to_owned(),
            not_websocket(no_upgrade),
        ),
        ("101 Switching".to_owned(), {
            (Reason::Closed(1006), "the connection ended without an answer", RetryHint::NONE)
        }),
        ("999999 What\r\n\r\n".to_owned(), not_websocket("invalid HTTP status-code parsed")),
    ] {
        let (socket, peer) = peer({
            let answer = answer.clone();
            move |far, head| {
                let answer = answer.replace("ACCEPT;", &accept_line(head));
                far.write_all(format!("HTTP/1.1 {answer}").as_bytes()).unwrap();
            }
        });
        let (why, hint) = dial::<D>(socket).unwrap_err();
        let said = why.text.as_ref().map_or("", Excerpt::as_str);
        assert_eq!((why.reason, said, hint), refusal, "{answer}");
        peer.join().unwrap();
    }
    // What is no HTTP at all, and among it what a TLS port says.
    for (answer, refusal) in [
        (&b"\x15\x03\x01\x00\x02\x02\x46"[..], (Reason::SpeaksTls, "")),
        (b"SSH-2.0-OpenSSH\r\n", (Reason::NotWebSocket, "SSH-2.0-OpenSSH")),
        (b"", (Reason::Closed(1006), "the connection ended without an answer")),
    ] {
        let (socket, peer) = peer(|far, _| far.write_all(answer).unwrap());
        let (why, _) = dial::<D>(socket).unwrap_err();
        assert_eq!((why.reason, why.text.as_ref().map_or("", Excerpt::as_str)), refusal);
        peer.join().unwrap();
    }
    // A refusal whose body does not end is not waited for.
    let begun = Instant::now();
    let (socket, peer) = peer(|far, _| {
        far.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nno").unwrap();
        let _ = far.read(&mut [0]);
    });
    let (why, _) = dial::<D>(socket).unwrap_err();
    assert_eq!((why.reason, why.text.unwrap().as_str()), (Reason::Status(403), "no"));
    assert!(begun.elapsed() < PATIENCE / 2);
    peer.join().unwrap();
    // Silence ends with the deadline.
    let (near, _far) = pair();
    let begun = Instant::now();
    assert!(D::dial(near, &node(), None, Deadline::after(Duration::from_millis(200))).is_err());
    assert!(begun.elapsed() < PATIENCE);
}
