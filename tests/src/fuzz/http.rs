//! What comes over an HTTP connection, at either end of it.
//!
//! ```text
//! gonka      the answer to a POST of a batch            bytes ─▶ post ─▶ is_peers ─▶ HttpOutcome ─▶ a session
//! bettensor  … of a prediction
//! plain      … of a wire with marked answers
//! dial       the answer to an upgrade                   bytes ─▶ dial ─▶ a reason and a hint
//! serve      requests to a listener                     bytes ─▶ serve ─▶ callbacks, answers
//! ```
//!
//! The first line says which; what follows is what comes, as it is. Checked is H8 above all: what ends a message bears the
//! peer's mark, as a reader sees it who knows no HTTP.

use super::trace;
use bowline::{
    Config, Event, GONKA_ML_NODE, HttpClass, HttpOutcome, HttpTimeouts, InlineSession, Input, Instant, MessageId,
    Origin, Outcome, Output, Policy, PostId, Reason,
};
use bowline_transport::http::{
    Answer, Bytes, Deadline, HttpAnswer, Limits, Post, Posted, Routes, Served, Target, dial, post, serve,
};
use bowline_transport::{Gonka, Wire};
use core::cell::RefCell;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use std::io;

pub(super) fn run(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (which, comes) = (&input[..end], input.get(end + 1..).unwrap_or_default());
    match which.first() {
        Some(b'g') => posted(comes, |id, answer| Gonka::ML_NODE.is_peers(id, answer), GONKA_ML_NODE),
        Some(b'd') => dialled(comes),
        Some(b's') => served(comes),
        _ => posted(comes, |_, answer| answer.is_marked(), Config { route: GONKA_ML_NODE.route, ..Config::DEFAULT }),
    }
}

/// A socket in memory, on which nobody has to wait: what comes in, what of it was read, what went out.
struct Socket<'a> {
    comes: &'a [u8],
    said: &'a RefCell<Vec<u8>>,
}

impl hyper::rt::Read for Socket<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let (now, later) = self.comes.split_at(self.comes.len().min(buf.remaining()));
        buf.put_slice(now);
        self.comes = later;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Socket<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.said.borrow_mut().extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The result of a future that has nothing to wait for.
fn done<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
            return result;
        }
    }
    panic!("H6: it waits, and there is nothing to wait for");
}

const PROGRESS: Duration = Duration::from_secs(10);

/// The answer to a POST, and what a session makes of it.
fn posted(comes: &[u8], is_peers: impl Fn(MessageId, &HttpAnswer) -> bool, config: Config) {
    let id = Origin::new(7, 1).message(bowline::Seq::FIRST);
    let target = Target::http("http://api:9100/v1/poc-batches/generated").expect("it is a URL");
    let headers = [("idempotency-key", id.to_string())];
    let timeouts = HttpTimeouts { progress: PROGRESS, thinking: PROGRESS };
    let request = Post { target: &target, headers: &headers, body: Bytes::from_static(b"{}"), read: 0, timeouts };
    let said = RefCell::new(Vec::new());
    let posted = done(post(Socket { comes, said: &said }, &Deadline::after(PROGRESS), request));
    trace(|| format!("{posted:?}"));
    let by_peer = matches!(&posted, Posted::Answered(answer) if is_peers(id, answer));
    let outcome = posted.outcome(by_peer);
    if let Posted::Answered(answer) = &posted {
        assert!((200..1000).contains(&answer.status), "an answer that is none: {answer:?}");
        let digits = answer.status.to_string();
        assert!(comes.windows(3).any(|three| three == digits.as_bytes()), "nobody said {digits}");
        assert!(answer.after <= Duration::from_secs(24 * 3600), "B4: {:?}", answer.after);
        assert!(answer.body.len() <= 512, "more than was asked for");
    }
    if let Some(text) = posted.text() {
        let text = text.to_string();
        assert!(text.len() <= 256 && !text.chars().any(char::is_control), "E2: {text:?}");
    }
    if by_peer {
        let Posted::Answered(answer) = &posted else { unreachable!("it is the peer's answer") };
        let marked =
            |mark: &[u8]| answer.body.windows(mark.len()).any(|part| part == mark) || answer.body.contains(&b'\\');
        let seen = if (200..300).contains(&answer.status) {
            marked(b"\"bowline\"") || answer.body.is_empty()
        } else {
            marked(b"\"error\"") || marked(b"\"bowline\"")
        };
        assert!(seen && answer.whole, "H8: it bears no mark: {answer:?}");
    }
    session(config, outcome);
}

/// What a session does with the outcome of its message's first request.
fn session(config: Config, outcome: HttpOutcome) {
    let mut session = InlineSession::<u32, 2, 2>::inline(
        config.check().expect("settings of ours"),
        1,
        Origin::new(7, 1),
        Instant::ZERO,
    );
    let mut now = Instant::ZERO;
    let _ = session.handle(now, Input::Start);
    let _ = session.handle(now, Input::Send { payload: 1, size: 100, policy: Policy::DEFAULT });
    let (mut first, mut ended) = (None::<PostId>, None);
    for _ in 0..200 {
        while let Some(output) = session.poll() {
            match output {
                Output::Connect { link } => {
                    let hint = bowline::RetryHint::NONE;
                    let _ = session.handle(now, Input::LinkDown { link, reason: Reason::PortClosed, hint });
                }
                Output::Post { post, .. } if first.is_none() => {
                    first = Some(post);
                    let _ = session.handle(now, Input::Posted { post, outcome });
                }
                Output::Event(Event::Settled { outcome, .. }) => ended = Some(outcome),
                _ => {}
            }
        }
        if first.is_some() {
            break;
        }
        let Some(next) = session.deadline() else { break };
        now = next;
        let _ = session.handle(now, Input::Tick);
    }
    assert!(first.is_some(), "P1: without a connection it goes by HTTP");
    let class = outcome.class();
    match ended {
        Some(Outcome::Delivered { .. }) => assert_eq!(class, HttpClass::Delivered, "G3: {outcome:?}"),
        Some(Outcome::Rejected(_)) => {
            let ends = matches!(class, HttpClass::Rejected | HttpClass::TooLarge);
            assert!(ends, "H8: {outcome:?} rejects");
        }
        Some(other) => panic!("G1: {outcome:?} ends it as {other:?}"),
        None => {
            assert!(!matches!(class, HttpClass::Delivered | HttpClass::Rejected), "G1: {outcome:?} ends nothing");
            assert_eq!(session.backlog(), 1, "G1: it is kept");
        }
    }
}

fn dialled(comes: &[u8]) {
    let target = Target::http("http://validator:8091/ws").expect("it is a URL");
    let said = RefCell::new(Vec::new());
    let dialled = done(dial(Socket { comes, said: &said }, &target, None, &Deadline::after(PROGRESS)));
    // The key is drawn anew each time: nobody knows its answer beforehand.
    let Err((why, hint)) = dialled else { panic!("an upgrade that nobody agreed to") };
    trace(|| format!("{why:?} {hint:?}"));
    assert!(hint.after <= Duration::from_secs(24 * 3600), "B4: {hint:?}");
    if let Some(text) = &why.text {
        let text = text.to_string();
        assert!(text.len() <= 256 && !text.chars().any(char::is_control), "E2: {text:?}");
    }
}

const ROUTES: Routes<'static> = Routes {
    websockets: &["/ws"],
    subprotocols: &["bowline.1"],
    callbacks: &["/batch", "/bowline/1/messages"],
    pages: &["/health"],
    guarded: true,
};

fn served(comes: &[u8]) {
    let limits = Limits { body_bytes: 4096, ..Limits::DEFAULT };
    let (said, asked) = (RefCell::new(Vec::new()), RefCell::new(0_usize));
    let served =
        done(serve(Socket { comes, said: &said }, &Deadline::after(limits.head), &limits, &ROUTES, async |callback| {
            trace(|| format!("{callback:?}"));
            *asked.borrow_mut() += 1;
            let path = callback.path;
            assert!(ROUTES.callbacks.contains(&path) || ["/ws", "/health"].contains(&path), "nobody serves {path}");
            assert!(callback.body.len() <= 4096, "a body that is too long");
            let words = [&callback.idempotency_key, &callback.bearer, &callback.client];
            for word in words.into_iter().flatten() {
                assert!(
                    word.len() <= 80 && word.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()),
                    "{word:?}"
                );
            }
            Answer::OK
        }));
    let said = said.borrow().clone();
    trace(|| said.escape_ascii().to_string());
    let answers = said.windows(9).filter(|part| *part == b"HTTP/1.1 ").count();
    // One is interim for each request that asks whether it may go on.
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 ") || said.starts_with(b"HTTP/1.0 "), "no answer");
    assert!(*asked.borrow() <= answers + 1, "a request without an answer");
    let lines = comes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let head = lines.skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty());
    let hosts = head.skip(1).filter(|line| line.to_ascii_lowercase().starts_with(b"host:")).count();
    if hosts > 1 {
        assert_eq!(*asked.borrow(), 0, "H11: two hosts in the first request");
    }
    if let Served::Upgraded { .. } = served {
        assert!(said.windows(12).any(|part| part == b"HTTP/1.1 101"), "an upgrade without a word");
    }
}
