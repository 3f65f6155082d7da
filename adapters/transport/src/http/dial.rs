//! The client's half of a WebSocket handshake, over a connected socket.
//!
//! ```text
//! dial(io) ──GET, Upgrade──▶ 101, the right key, our subprotocol or none ──▶ Ok((io, what came right behind it))
//!                       └──▶ 101 without the subprotocol ──▶ Rejected(426)
//!                       └──▶ another status ──▶ Rejected(status), with its Retry-After
//!                       └──▶ anything else  ──▶ Refused
//! ```
//!
//! Decided here: that we offer no extension and at most one subprotocol, and take an answer that chooses what was not
//! offered for none (RFC 6455, section 4.1). A server that does not choose the one that was is no server of ours: as if it
//! had said 426, "upgrade required", so that it is tried seldom and HTTP carries (F5).
//! Invariants as for the whole folder; the deadline is the socket's.

use super::{Target, Whole, client::retry_after};
use bowline::{Reason, RetryHint};
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, HOST, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, StatusCode};
use tungstenite::handshake::{client::generate_key, derive_accept_key};

/// Turns the connected `io` into a WebSocket at `target`, of this subprotocol if there is to be one. The bytes that came
/// with the answer are the first of the first frames.
///
/// # Errors
///
/// How the attempt ended, and what the server said about coming back.
pub async fn dial<I>(
    io: I,
    target: &Target,
    subprotocol: Option<&'static str>,
) -> Result<(I, Bytes), (Reason, RetryHint)>
where
    I: Read + Write + Unpin,
{
    let refused = (Reason::PortClosed, RetryHint::NONE);
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
    let request = request.body(Whole::new(Bytes::new())).map_err(|_| refused)?;
    let (mut sender, mut connection) = http1::handshake(io).await.map_err(|_| refused)?;
    let answer = {
        let mut answer = pin!(sender.send_request(request));
        let mut open = true;
        poll_fn(|cx| {
            if open {
                open = connection.poll_without_shutdown(cx).is_pending();
            }
            match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(answer.ok()),
                Poll::Pending if !open => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    };
    let answer = answer.ok_or(refused)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let said = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(retry_after);
        return Err((Reason::Status(answer.status().as_u16()), said.map_or(RetryHint::NONE, RetryHint::after)));
    }
    if !agreed(&answer, &key) {
        return Err(refused);
    }
    let chosen = answer.headers().get(SEC_WEBSOCKET_PROTOCOL).map(hyper::header::HeaderValue::as_bytes);
    if chosen != subprotocol.map(str::as_bytes) {
        // One that was not offered is no agreement at all; none means that it speaks something else here.
        return Err(if chosen.is_some() { refused } else { (Reason::Status(426), RetryHint::NONE) });
    }
    let parts = connection.into_parts();
    Ok((parts.io, parts.read_buf))
}

fn agreed<B>(answer: &Response<B>, key: &str) -> bool {
    let says = |name, expected: &str| {
        answer
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|said| said.split(',').any(|token| token.trim().eq_ignore_ascii_case(expected)))
    };
    let accept = answer.headers().get(SEC_WEBSOCKET_ACCEPT).map(hyper::header::HeaderValue::as_bytes);
    says(UPGRADE, "websocket")
        && says(CONNECTION, "upgrade")
        && accept == Some(derive_accept_key(key.as_bytes()).as_bytes())
        && !answer.headers().contains_key(SEC_WEBSOCKET_EXTENSIONS)
}
