//! What an answer says: to the wire, about who gave it, and for people.
//!
//! ```text
//! io ─▶ Recorded: the first bytes ─▶ a TLS alert? ─▶ SpeaksTls
//! head, first bytes of the body ─▶ HttpAnswer ─▶ Wire::is_peers ─▶ HttpOutcome       of a POST
//!                                       └─▶ reason: SpeaksTls, Foreign or Status    of an upgrade
//!                                       └─▶ excerpt: type, target of a redirect, text
//! ```
//!
//! Field bugs: `http` to a TLS port, told as "refused"; a 403 whose body said why, and nobody read it.
//! Rules: B4, E1, E2, H8.

use crate::explanation::Excerpt;
use bowline::{HttpOutcome, Reason};
use core::future::poll_fn;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use hyper::Response;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use serde_json::Value;
use std::io::{self, IoSlice};
use std::time::SystemTime;

/// As much is kept of what comes first on a connection, and is read of a body that is only shown: more than an excerpt has.
pub(super) const FIRST: usize = 512;

/// As many characters of a content type or of a redirect's target are kept.
const LONGEST_HEADER: usize = 200;

/// What a server can ask for at most with `Retry-After`; the core cuts it further (rule B4).
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

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

/// The answer to one of this side's requests, as far as it was looked at. Whether it is the peer's own word, its wire
/// decides: [`Wire::is_peers`](crate::Wire::is_peers).
///
/// ```
/// use bowline_transport::http::HttpAnswer;
/// let page = HttpAnswer { content_type: Some("text/html".into()), ..HttpAnswer::new(200, "<html>Log in</html>") };
/// assert!(!page.is_marked() && !page.is_api_answer());
/// assert!(HttpAnswer::new(200, r#"{"bowline":"done"}"#).is_marked());
/// assert!(HttpAnswer::new(200, "").is_api_answer());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    /// Its HTTP status.
    pub status: u16,
    /// Its `Retry-After`, zero if there was none.
    pub after: Duration,
    /// Its `Content-Type` in lower case, without parameters such as the character set; at most 200 characters.
    pub content_type: Option<String>,
    /// Its `Location`, at most 200 characters: where a redirect leads to, which is never followed.
    pub location: Option<String>,
    /// The first bytes of its body: as many as were wanted, at least 512.
    pub body: Bytes,
    /// There is no more of the body than that.
    pub whole: bool,
}

impl HttpAnswer {
    /// An answer with this whole body, and without headers.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self { status, after: Duration::ZERO, content_type: None, location: None, body, whole: true }
    }

    /// Reads an answer: what its head says, and up to `longest` bytes of its body. `moved` is told when bytes come; `drive`
    /// goes on with the connection and says whether it is open.
    pub(super) async fn read(
        answer: Response<Incoming>,
        longest: usize,
        mut moved: impl FnMut(),
        mut drive: impl FnMut(&mut Context<'_>) -> bool,
    ) -> Self {
        let (head, mut body) = answer.into_parts();
        let mut read = Vec::new();
        moved();
        let whole = poll_fn(|cx| {
            let open = drive(cx);
            loop {
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        moved();
                        let data = frame.into_data().unwrap_or_default();
                        let fits = longest.saturating_sub(read.len());
                        read.extend(data.iter().take(fits));
                        if data.len() > fits {
                            return Poll::Ready(false);
                        }
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                    Poll::Ready(None) => return Poll::Ready(true),
                    Poll::Pending => return if open { Poll::Pending } else { Poll::Ready(false) },
                }
            }
        })
        .await;
        Self { body: read.into(), whole, ..Self::of_head(head.status.as_u16(), &head.headers) }
    }

    /// What the head of an answer says.
    fn of_head(status: u16, headers: &HeaderMap) -> Self {
        let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(retry_after);
        let content_type = text(headers, &CONTENT_TYPE).map(|kind| {
            let kind = kind.split(';').next().unwrap_or_default();
            kind.trim().to_ascii_lowercase()
        });
        let location = text(headers, &LOCATION);
        Self { after: after.unwrap_or_default(), content_type, location, ..Self::new(status, Bytes::new()) }
    }

    /// The reason that it is, in the place of the answer that was wanted.
    pub(super) fn reason(&self) -> Reason {
        if self.is_of_a_tls_port() {
            Reason::SpeaksTls
        } else if self.is_of_a_go_between() {
            Reason::Foreign(self.status)
        } else {
            Reason::Status(self.status)
        }
    }

    /// Whether its body begins as that of a TLS port does which was spoken to in plain HTTP.
    fn is_of_a_tls_port(&self) -> bool {
        let said = String::from_utf8_lossy(self.first());
        SPEAK_TLS.iter().any(|words| said.contains(words))
    }

    /// Whether it shows that a go-between gave it: its status is one that only those give, or it is a page of HTML, which
    /// none of the systems that are spoken to here has for a program.
    fn is_of_a_go_between(&self) -> bool {
        self.content_type.as_deref() == Some("text/html") || matches!(self.status, 407 | 502 | 504 | 511)
    }

    fn first(&self) -> &[u8] {
        self.body.get(..FIRST).unwrap_or(&self.body)
    }

    /// Its outcome, for the core. `by_peer`: it is the peer's own word. If it is not, and says that plain HTTP came to a TLS
    /// port, nobody was reached.
    #[must_use]
    pub fn outcome(&self, by_peer: bool) -> HttpOutcome {
        if !by_peer && self.is_of_a_tls_port() {
            return HttpOutcome::Unreached(Reason::SpeaksTls);
        }
        HttpOutcome::Answered { status: self.status, after: self.after, by_peer }
    }

    /// What it says for people: where it sends us, of which type it is, and how it begins. Of a target the query is left
    /// out: it is where secrets are.
    #[must_use]
    pub fn excerpt(&self) -> Option<Excerpt> {
        let first = self.first();
        let mut said = Vec::new();
        if let Some(target) = &self.location {
            said.extend(b"to ");
            said.extend(target.split(['?', '#']).next().unwrap_or_default().as_bytes());
            said.extend(if first.is_empty() { &b""[..] } else { b"; " });
        }
        if let Some(kind) = self.content_type.as_ref().filter(|_| !first.is_empty()) {
            said.extend(kind.as_bytes());
            said.extend(b": ");
        }
        said.extend(first);
        Excerpt::new(said)
    }

    /// Its body, if that is whole and JSON, and is not said to be anything else.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        if self.whole && self.is_said_to_be_json() { serde_json::from_slice(&self.body).ok() } else { None }
    }

    /// Whether it bears the mark of another Bowline: a JSON body with the member `bowline`, as the default of
    /// [`Wire::answer`](crate::Wire::answer) makes it.
    #[must_use]
    pub fn is_marked(&self) -> bool {
        self.json().is_some_and(|json| json.get(MARK).is_some())
    }

    /// Whether it is what Gonka's original answers, which neither signs nor marks its answers, or what a Bowline in its
    /// place does. 2xx: the body is empty, or bears the mark of a Bowline ([`is_marked`](Self::is_marked)). Any other status
    /// but a redirect: a JSON object whose only member is `error`. And the content type says nothing else. A page for people
    /// is none of this, and neither is another program's JSON: portals, gateways and wrong addresses answer so. A proxy in
    /// front of the peer passes on what the peer said.
    #[must_use]
    pub fn is_api_answer(&self) -> bool {
        match self.status {
            200..=299 if self.body.is_empty() => self.whole && self.is_said_to_be_json(),
            200..=299 => self.is_marked(),
            300..=399 => false,
            _ => self
                .json()
                .is_some_and(|said| said.as_object().is_some_and(|said| said.len() == 1 && said.contains_key("error"))),
        }
    }

    fn is_said_to_be_json(&self) -> bool {
        self.content_type.as_deref().is_none_or(|kind| kind == "application/json" || kind.ends_with("+json"))
    }
}

/// The member by which an answer of Bowline's is known.
pub(super) const MARK: &str = "bowline";

/// The beginning of a header's value.
fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = String::from_utf8_lossy(headers.get(name)?.as_bytes());
    Some(value.chars().take(LONGEST_HEADER).collect())
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

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{HeaderName, HeaderValue};

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static [u8]) -> HttpAnswer {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        HttpAnswer { body: body.into(), ..HttpAnswer::of_head(status, &headers.iter().map(pair).collect()) }
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
            assert_eq!(answer(status, given, first).reason(), is, "{status} {given:?}");
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
            assert_eq!(answer(302, given, first).excerpt().as_ref().map(Excerpt::as_str), said);
        }
    }

    #[test]
    fn h8_the_original_answers_with_nothing_or_with_an_error_and_no_gateway_does() {
        let json = Some("application/json");
        for (status, kind, body, is) in [
            // The original and our own.
            (200, None, "", true),
            (204, None, "", true),
            (200, json, "", true),
            (200, json, r#"{"bowline":"done"}"#, true),
            (400, json, r#"{"error":"code=400, message=Syntax error"}"#, true),
            (410, json, r#"{"error":"too late"}"#, true),
            (413, json, r#"{"error":"too large"}"#, true),
            (422, json, r#"{"error":"no"}"#, true),
            (500, json, r#"{"error":"chain"}"#, true),
            (500, Some("application/problem+json"), r#"{"error":"chain"}"#, true),
            // Another program at that address, such as the ML node's own interface.
            (200, json, r#"{"status":"OK"}"#, false),
            (200, json, r#"{"status":"OK","pow_status":{"status":"GENERATING"}}"#, false),
            (200, json, "{}", false),
            (200, json, "[]", false),
            (200, json, r#""ok""#, false),
            (200, json, "null", false),
            (200, json, "true", false),
            (200, json, r#"{"error":"no such service"}"#, false),
            // A gateway that speaks JSON: Kong's, APISIX's and AWS's words.
            (400, json, r#"{"message":"Bad request"}"#, false),
            (413, json, r#"{"message":"Request Entity Too Large"}"#, false),
            (413, json, r#"{"message":"Request size limit exceeded","request_id":"5e1b"}"#, false),
            (422, json, r#"{"detail":"Unprocessable Entity"}"#, false),
            (400, json, r#"{"timestamp":1,"status":400,"error":"Bad Request","path":"/generated"}"#, false),
            (413, json, r#"{"error_msg":"too large"}"#, false),
            (400, json, r#"["error"]"#, false),
            (400, json, r#""error""#, false),
            // Pages, and what is no JSON.
            (200, json, "<html>", false),
            (200, None, "OK", false),
            (200, Some("text/html"), "", false),
            (200, Some("application/octet-stream"), "", false),
            (302, None, "", false),
            (302, json, r#"{"error":"elsewhere"}"#, false),
            (400, None, "", false),
            (400, json, "{}", false),
            (413, Some("text/html"), "<html>", false),
        ] {
            let answer = HttpAnswer { content_type: kind.map(Into::into), ..HttpAnswer::new(status, body) };
            assert_eq!(answer.is_api_answer(), is, "{answer:?}");
            let cut = HttpAnswer { whole: false, ..answer };
            assert!(!cut.is_api_answer(), "{cut:?}");
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
