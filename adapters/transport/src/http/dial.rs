//! The client's half of a WebSocket handshake, over a connected socket.
//!
//! ```text
//! dial(io) ──GET, Upgrade──▶ 101, the right key, our subprotocol or none ──▶ Ok((io, what came right behind it))
//!                       └──▶ 101 without the subprotocol ──▶ Subprotocol
//!                       └──▶ another status ──▶ Status or Foreign, with its Retry-After and its first words
//!                       └──▶ a TLS alert, or what servers say of plain HTTP on a TLS port ──▶ SpeaksTls
//!                       └──▶ anything else  ──▶ NotWebSocket, or how the connection ended
//! ```
//!
//! Decided here: that we offer no extension and at most one subprotocol, and take an answer that chooses what was not
//! offered for none (RFC 6455, section 4.1). A server that does not choose the one that was is no server of ours: it is
//! tried seldom, and HTTP carries (F5). The body of a refusal is read for one second at most.
//! Invariants as for the whole folder; the deadline is the socket's.
//! Rules: E1, E2.

use super::answer::{FIRST, HttpAnswer, Recorded};
use super::{Deadline, Target, Whole};
use crate::explanation::Explanation;
use bowline::{Reason, RetryHint};
use core::error::Error;
use core::future::poll_fn;
use core::pin::pin;
use core::task::{Context, Poll};
use core::time::Duration;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, HOST, HeaderMap, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use hyper::rt::{Read, Write};
use hyper::{Request, StatusCode};
use std::io;
use tungstenite::handshake::{client::generate_key, derive_accept_key};

/// The longest time for reading the body of a refusal: it is for people, and the next attempt waits for it.
const REFUSAL: Duration = Duration::from_secs(1);

/// How an attempt ended, and what the server said about coming back.
type Failed = (Explanation, RetryHint);

/// Turns the connected `io` into a WebSocket at `target`, of this subprotocol if there is to be one. The bytes that came
/// with the answer are the first of the first frames. `deadline` is that of `io`; it is moved nearer while the body of a
/// refusal is read.
///
/// # Errors
///
/// How the attempt ended, and what the server said about coming back.
pub async fn dial<I>(
    io: I,
    target: &Target,
    subprotocol: Option<&'static str>,
    deadline: &Deadline,
) -> Result<(I, Bytes), Failed>
where
    I: Read + Write + Unpin,
{
    let ours = || (Explanation::from(Reason::System), RetryHint::NONE);
    let key = generate_key();
    let mut request = Request::builder()
        .uri(target.path())
        .header(HOST, target.authority())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(USER_AGENT, concat!("bowline/", env!("CARGO_PKG_VERSION")));
    if let Some(subprotocol) = subprotocol {
        request = request.header(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    let request = request.body(Whole::new(Bytes::new())).map_err(|_| ours())?;
    let (mut sender, mut connection) = http1::handshake(Recorded::new(io)).await.map_err(|_| ours())?;
    let mut open = true;
    let answer = {
        let mut answer = pin!(sender.send_request(request));
        let mut failed = None;
        poll_fn(|cx| {
            if open && let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
                open = false;
                failed = ended.err();
            }
            match answer.as_mut().poll(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(Some(failed.take().unwrap_or(error)))),
                Poll::Ready(Ok(answer)) => Poll::Ready(Ok(answer)),
                Poll::Pending if !open => Poll::Ready(Err(failed.take())),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Err((no_answer(&connection.into_parts().io, error.as_ref()), RetryHint::NONE)),
    };
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        if deadline.left() > REFUSAL {
            deadline.restart(REFUSAL);
        }
        let drive = |cx: &mut Context<'_>| {
            open = open && connection.poll_without_shutdown(cx).is_pending();
            open
        };
        let answer = HttpAnswer::read(answer, FIRST, || (), drive).await;
        let explanation = Explanation { reason: answer.reason(), text: answer.excerpt() };
        return Err((explanation, RetryHint::after(answer.after)));
    }
    let headers = answer.headers();
    if let Err(what) = agreed(headers, &key) {
        return Err((Explanation::with(Reason::NotWebSocket, what), RetryHint::NONE));
    }
    let chosen = headers.get(SEC_WEBSOCKET_PROTOCOL).map(hyper::header::HeaderValue::as_bytes);
    if chosen != subprotocol.map(str::as_bytes) {
        // One that was not offered is no agreement at all; none means that it speaks something else here.
        let explanation = match chosen {
            Some(chosen) => {
                Explanation::with(Reason::NotWebSocket, [b"it chooses the subprotocol ".as_slice(), chosen].concat())
            }
            None => Reason::Subprotocol.into(),
        };
        return Err((explanation, RetryHint::NONE));
    }
    let parts = connection.into_parts();
    Ok((parts.io.io, parts.read_buf))
}

/// Why there is no answer that could be read.
pub(super) fn no_answer<I>(io: &Recorded<I>, error: Option<&hyper::Error>) -> Explanation {
    if let Some((reason, first)) = io.not_http() {
        return Explanation::with(reason, first);
    }
    let mut source: Option<&(dyn Error + 'static)> = error.and_then(Error::source);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Explanation::of_connection(error);
        }
        source = error.source();
    }
    match error {
        Some(error) if error.is_parse() => Explanation::with(Reason::NotWebSocket, error.to_string()),
        _ => Explanation::with(Reason::Closed(1006), "the connection ended without an answer"),
    }
}

/// What is wrong with an answer that says 101.
fn agreed(headers: &HeaderMap, key: &str) -> Result<(), &'static str> {
    let says = |name, expected: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|said| said.split(',').any(|token| token.trim().eq_ignore_ascii_case(expected)))
    };
    let accept = headers.get(SEC_WEBSOCKET_ACCEPT).map(hyper::header::HeaderValue::as_bytes);
    if !says(UPGRADE, "websocket") || !says(CONNECTION, "upgrade") {
        Err("101 without an upgrade to websocket")
    } else if accept != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        Err("the Sec-WebSocket-Accept header is missing or wrong")
    } else if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        Err("it chooses an extension that was not offered")
    } else {
        Ok(())
    }
}
