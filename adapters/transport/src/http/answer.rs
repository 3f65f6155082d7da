//! What an answer says that is not the one that was wanted: for people, and about who gave it.
//!
//! ```text
//! io ─▶ Recorded: the first bytes ─▶ a TLS alert? ─▶ SpeaksTls
//! head, first bytes of the body ─▶ excerpt: type, target of a redirect, text
//!                              └─▶ of a go-between? ─▶ Foreign(status) instead of Status(status)
//! ```
//!
//! Field bugs: `http` to a TLS port, told as "refused"; a 403 whose body said why, and nobody read it.
//! Rules: E1, E2.

use crate::explanation::Excerpt;
use bowline::Reason;
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll};
use hyper::body::{Body, Bytes};
use hyper::header::{CONTENT_TYPE, HeaderMap, PROXY_AUTHENTICATE};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use std::io::{self, IoSlice};

/// As much is kept of what comes first on a connection, and is read of a body that is only shown: more than an excerpt has.
pub(super) const FIRST: usize = 512;

/// What servers say to plain HTTP on a TLS port: nginx, Apache, Go, HAProxy.
const SPEAK_TLS: [&str; 4] = [
    "plain HTTP request was sent to HTTPS port",
    "speaking plain HTTP to an SSL-enabled server port",
    "HTTP request to an HTTPS server",
    "sent to an SSL port",
];

/// A socket that remembers what came first.
pub(super) struct Recorded<I> {
    pub(super) io: I,
    first: Vec<u8>,
}

impl<I> Recorded<I> {
    pub(super) const fn new(io: I) -> Self {
        Self { io, first: Vec::new() }
    }

    /// What came first, if it is no HTTP: `None` if nothing came, or HTTP did.
    pub(super) fn not_http(&self) -> Option<(Reason, &[u8])> {
        match self.first.as_slice() {
            [] => None,
            // A record of TLS that is an alert, of any version.
            [0x15, 0x03, ..] => Some((Reason::SpeaksTls, &[])),
            first => {
                let http = b"HTTP/1.";
                let as_far = first.get(..http.len()).unwrap_or(first);
                (!http.starts_with(as_far)).then_some((Reason::NotWebSocket, first))
            }
        }
    }
}

impl<I: Read + Unpin> Read for Recorded<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let most = FIRST.saturating_sub(self.first.len()).min(buf.remaining());
        if most == 0 {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let mut space = [0; FIRST];
        let Some(space) = space.get_mut(..most) else { return Poll::Ready(Ok(())) };
        let mut read = ReadBuf::new(space);
        let done = Pin::new(&mut self.io).poll_read(cx, read.unfilled());
        if matches!(done, Poll::Ready(Ok(()))) {
            self.first.extend_from_slice(read.filled());
            buf.put_slice(read.filled());
        }
        done
    }
}

impl<I: Write + Unpin> Write for Recorded<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

/// The beginning of a body, whatever becomes of the rest; `drive` goes on with the connection and says whether it is open.
pub(super) async fn beginning<B>(body: B, mut drive: impl FnMut(&mut Context<'_>) -> bool) -> Vec<u8>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (mut body, mut first) = (body, Vec::new());
    poll_fn(|cx| {
        let open = drive(cx);
        loop {
            match Pin::new(&mut body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let data = frame.into_data().unwrap_or_default();
                    first.extend(data.iter().take(FIRST.saturating_sub(first.len())));
                    if first.len() >= FIRST {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending if open => return Poll::Pending,
                Poll::Pending => return Poll::Ready(()),
            }
        }
    })
    .await;
    first
}

/// The reason that an answer with this status is, in place of the wanted one.
pub(super) fn reason(status: u16, headers: &HeaderMap, first: &[u8]) -> Reason {
    if is_of_a_tls_port(first) {
        Reason::SpeaksTls
    } else if of_a_go_between(status, headers) {
        Reason::Foreign(status)
    } else {
        Reason::Status(status)
    }
}

/// Whether a body begins as that of a TLS port does which was spoken to in plain HTTP.
pub(super) fn is_of_a_tls_port(first: &[u8]) -> bool {
    let said = String::from_utf8_lossy(first.get(..FIRST).unwrap_or(first));
    SPEAK_TLS.iter().any(|words| said.contains(words))
}

/// Whether an answer shows that a go-between gave it: its status is one that only those give, or it is a page of HTML,
/// which none of the systems that are spoken to here has for a program.
pub(super) fn of_a_go_between(status: u16, headers: &HeaderMap) -> bool {
    let html = kind(headers).is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
    html || matches!(status, 407 | 502 | 504 | 511) || headers.contains_key(PROXY_AUTHENTICATE)
}

/// The type of the body, without its parameters.
pub(super) fn kind(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    value.split(';').next().map(str::trim).filter(|kind| !kind.is_empty())
}

/// What an answer says for people: where it sends us, of which type it is, and how it begins. Of a target the query is left
/// out: it is where secrets are.
pub(super) fn excerpt(location: Option<&[u8]>, kind: Option<&str>, first: &[u8]) -> Option<Excerpt> {
    let mut said = Vec::new();
    if let Some(target) = location {
        said.extend(b"to ");
        said.extend(target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default());
        said.extend(if first.is_empty() { &b""[..] } else { b"; " });
    }
    if let Some(kind) = kind.filter(|_| !first.is_empty()) {
        said.extend(kind.as_bytes());
        said.extend(b": ");
    }
    said.extend(first);
    Excerpt::new(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue, LOCATION};

    fn headers(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        given.iter().map(pair).collect()
    }

    #[test]
    fn e1_who_gave_an_answer() {
        let html = [("content-type", "text/HTML; charset=utf-8")];
        for (status, given, first, is) in [
            (403, &[][..], &b"{}"[..], Reason::Status(403)),
            (403, &html, b"<html>", Reason::Foreign(403)),
            (200, &html, b"<html>", Reason::Foreign(200)),
            (502, &[], b"", Reason::Foreign(502)),
            (407, &[], b"", Reason::Foreign(407)),
            (503, &[], b"", Reason::Status(503)),
            (400, &html, b"<center>The plain HTTP request was sent to HTTPS port</center>", Reason::SpeaksTls),
            (400, &[], b"Client sent an HTTP request to an HTTPS server.\n", Reason::SpeaksTls),
        ] {
            assert_eq!(reason(status, &headers(given), first), is, "{status} {given:?}");
        }
    }

    #[test]
    fn e2_an_answer_is_told_by_target_type_and_beginning() {
        let redirect = [("location", "https://login.example/in?state=secret#x"), ("content-type", "text/html")];
        for (given, first, said) in [
            (&redirect[..], &b""[..], Some("to https://login.example/in")),
            (&redirect, b"<html>", Some("to https://login.example/in; text/html: <html>")),
            (&[("content-type", "application/json")], b"{\"error\": 1}\n", Some("application/json: {\"error\": 1}")),
            (&[], b"no", Some("no")),
            (&[("content-type", "text/plain")], b"", None),
        ] {
            let given = headers(given);
            let location = given.get(LOCATION).map(HeaderValue::as_bytes);
            assert_eq!(excerpt(location, kind(&given), first).as_ref().map(Excerpt::as_str), said);
        }
    }
}
