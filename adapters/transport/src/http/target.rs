//! Where: the two kinds of URL a user writes down, taken apart once and checked, so that later nothing can be wrong.
//!
//! ```text
//! http[s]://host[:port][/base]                          ──http()──────▶ Target ──join("generated")──▶ /base/generated
//! host | ws[s]://… | http[s]://…  (path or default) ──websocket()─▶ Target
//! ```
//!
//! Decided here: a bare host is dialled without TLS, and without the feature `tls` a URL that asks for it is refused.

use core::error::Error;
use core::fmt::{self, Write as _};
use core::net::Ipv6Addr;
use hyper::Uri;

/// Longer URLs are refused: nobody writes them by hand, and every request carries its path.
const LONGEST: usize = 2048;

/// The address of a peer's endpoint, from a URL that was checked.
///
/// ```
/// use bowline_transport::http::{Target, TargetError};
///
/// let callback = Target::http("http://api:9100/v1/poc-batches")?.join("generated");
/// assert_eq!((callback.host(), callback.port()), ("api", 9100));
/// assert_eq!(callback.path(), "/v1/poc-batches/generated");
///
/// let node = Target::websocket("[::1]:8080", "/api/v1/pow/ws")?;
/// assert_eq!((node.host(), node.port()), ("::1", 8080));
/// assert_eq!(node.to_string(), "ws://[::1]:8080/api/v1/pow/ws");
///
/// # #[cfg(feature = "tls")] {
/// assert_eq!(Target::http("https://api/v1")?.port(), 443);
/// # }
/// # Ok::<(), TargetError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    scheme: &'static str,
    host: String,
    port: u16,
    path: String,
}

impl Target {
    /// The base of our POSTs: `http[s]://host[:port][/base]`, port 80 or 443 if none is given.
    ///
    /// # Errors
    ///
    /// What [`TargetError`] lists; no URL that is refused here could ever have worked.
    pub fn http(url: &str) -> Result<Self, TargetError> {
        let (scheme, rest) = url.split_once("://").ok_or(TargetError::Scheme)?;
        let target = Self::parse(chosen(scheme, &["http", "https"])?, rest)?;
        if target.path.contains('?') {
            return Err(TargetError::Query);
        }
        Ok(target)
    }

    /// The WebSocket to dial: a bare host, `ws[s]://…`, or `http[s]://…` (which means the same host by WebSocket). If the
    /// URL has no path, or only `/`, it is `default_path` (which starts with a slash); a query is kept.
    ///
    /// # Errors
    ///
    /// What [`TargetError`] lists, except that a query is allowed.
    pub fn websocket(url: &str, default_path: &str) -> Result<Self, TargetError> {
        let (scheme, rest) = match url.split_once("://") {
            None => ("ws", url),
            Some((scheme, rest)) => match chosen(scheme, &["ws", "wss", "http", "https"])? {
                "ws" | "http" => ("ws", rest),
                _ => ("wss", rest),
            },
        };
        let target = Self::parse(scheme, rest)?;
        let query = target.path.strip_prefix('/').filter(|rest| rest.is_empty() || rest.starts_with('?'));
        match query {
            None => Ok(target),
            // Through the same checks, so that the default can be trusted as little as the URL.
            Some(query) => Self::parse(scheme, &format!("{}{default_path}{query}", target.authority())),
        }
    }

    /// `rest` is everything after `scheme://`.
    fn parse(scheme: &'static str, rest: &str) -> Result<Self, TargetError> {
        if rest.len() > LONGEST {
            return Err(TargetError::TooLong);
        }
        if rest.contains('#') {
            return Err(TargetError::Query);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, _) = rest.split_at(end);
        if authority.contains('@') {
            return Err(TargetError::UserInfo);
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(literal) => {
                let (address, after) = literal.split_once(']').ok_or(TargetError::Invalid)?;
                let _: Ipv6Addr = address.parse().map_err(|_| TargetError::Invalid)?;
                match after.strip_prefix(':') {
                    None if after.is_empty() => (address, None),
                    None => return Err(TargetError::Invalid),
                    port => (address, port),
                }
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err(TargetError::NoHost);
        }
        let port = match port {
            None => default_port(scheme),
            // `u16` would take "+80".
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or(TargetError::Port)?
            }
            Some(_) => return Err(TargetError::Port),
        };
        // The characters of host and path are the library's business.
        let uri: Uri = format!("http://{rest}").parse().map_err(|_| TargetError::Invalid)?;
        let path = uri.path_and_query().map_or("/", |both| both.as_str());
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { scheme, host: host.to_owned(), port, path })
    }

    /// The same place, one path segment further down. Whatever a URL's path cannot hold is percent-encoded.
    #[must_use]
    pub fn join(&self, segment: &str) -> Self {
        let mut path = String::with_capacity(self.path.len() + 1 + segment.len());
        path.push_str(self.path.trim_end_matches('/'));
        path.push('/');
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(path, "%{byte:02X}");
            }
        }
        Self { path, ..self.clone() }
    }

    /// The host for a look-up: a name, an IPv4 address, or an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether what is sent there has to be encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        is_tls(self.scheme)
    }

    /// What a request's `Host` header says: brackets around IPv6, no port if it is the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default_port(self.scheme) { host } else { format!("{host}:{}", self.port) }
    }

    /// What a request asks for: the path, with the query if there is one. Starts with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority(), self.path)
    }
}

/// The one of these schemes that a URL names.
fn chosen(scheme: &str, known: &[&'static str]) -> Result<&'static str, TargetError> {
    let found = known.iter().find(|known| scheme.eq_ignore_ascii_case(known)).ok_or(TargetError::Scheme)?;
    if is_tls(found) && cfg!(not(feature = "tls")) { Err(TargetError::Tls) } else { Ok(found) }
}

fn is_tls(scheme: &str) -> bool {
    scheme.ends_with('s') && scheme != "ws"
}

fn default_port(scheme: &str) -> u16 {
    if is_tls(scheme) { 443 } else { 80 }
}

/// Why a URL was refused.
///
/// ```
/// use bowline_transport::http::{Target, TargetError};
/// assert_eq!(Target::http("http://user:secret@api/"), Err(TargetError::UserInfo));
/// assert_eq!(TargetError::NoHost.to_string(), "the URL names no host");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TargetError {
    /// It does not begin with `http://` or `https://`, or, for a WebSocket, with another scheme than these, `ws://` and
    /// `wss://`.
    Scheme,
    /// `https://` or `wss://`, and this program was built without the feature `tls`.
    Tls,
    /// There is nothing where the host should be.
    NoHost,
    /// The port is not a number from 1 to 65535.
    Port,
    /// There is a name or password before the host.
    UserInfo,
    /// There is a fragment, or a query where a path segment will be added.
    Query,
    /// It is longer than 2048 bytes.
    TooLong,
    /// There is a character or a bracket that no URL can have there.
    Invalid,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the URL must begin with http:// or https:// (for a WebSocket also ws:// or wss://)",
            Self::Tls => "https:// and wss:// need the feature `tls`, without which this program was built",
            Self::NoHost => "the URL names no host",
            Self::Port => "the port must be a number from 1 to 65535",
            Self::UserInfo => "the URL must not hold a user name or password",
            Self::Query => "the URL must not have a query or a fragment",
            Self::TooLong => "the URL is longer than 2048 bytes",
            Self::Invalid => "the URL has a character or bracket where none is allowed",
        })
    }
}

impl Error for TargetError {}

#[cfg(test)]
mod tests {
    use super::*;

    const POW: &str = "/api/v1/pow/ws";

    #[test]
    fn what_a_callback_url_becomes() {
        for (url, host, port, authority, path) in [
            ("http://api", "api", 80, "api", "/"),
            ("HTTP://api:80/", "api", 80, "api", "/"),
            ("http://10.0.0.1:9100/v1/poc-batches", "10.0.0.1", 9100, "10.0.0.1:9100", "/v1/poc-batches"),
            ("http://[::1]/x/", "::1", 80, "[::1]", "/x/"),
            ("http://[2001:db8::7]:81", "2001:db8::7", 81, "[2001:db8::7]:81", "/"),
            ("http://api/a%20b/@c", "api", 80, "api", "/a%20b/@c"),
        ] {
            let target = Target::http(url).unwrap();
            assert_eq!((target.host(), target.port()), (host, port), "{url}");
            assert_eq!(target.authority(), authority, "{url}");
            assert_eq!(target.path(), path, "{url}");
        }
    }

    #[test]
    fn why_a_callback_url_is_refused() {
        for (url, why) in [
            ("", TargetError::Scheme),
            ("api:9100/v1", TargetError::Scheme),
            ("ws://api/", TargetError::Scheme),
            ("ftp://api/", TargetError::Scheme),
            ("wss://api/", TargetError::Scheme),
            ("http://", TargetError::NoHost),
            ("http:///v1", TargetError::NoHost),
            ("http://:80/", TargetError::NoHost),
            ("http://?x", TargetError::NoHost),
            ("http://api:/", TargetError::Port),
            ("http://api:0/", TargetError::Port),
            ("http://api:65536/", TargetError::Port),
            ("http://api:+80/", TargetError::Port),
            ("http://[::1]:x/", TargetError::Port),
            ("http://::1/", TargetError::NoHost),
            ("http://1::1/", TargetError::Port),
            ("http://user@api/", TargetError::UserInfo),
            ("http://user:pass@api/", TargetError::UserInfo),
            ("http://@/", TargetError::UserInfo),
            ("http://api/v1?x=1", TargetError::Query),
            ("http://api?x=1", TargetError::Query),
            ("http://api/v1#x", TargetError::Query),
            ("http://api#x", TargetError::Query),
            ("http://[::1/", TargetError::Invalid),
            ("http://[::1]x/", TargetError::Invalid),
            ("http://[api]/", TargetError::Invalid),
            ("http://a b/", TargetError::Invalid),
            ("http://api/a b", TargetError::Invalid),
            ("http://api\r\nX/", TargetError::Invalid),
            ("http://api/\r\nX: y", TargetError::Invalid),
            ("http://api/\0", TargetError::Invalid),
            ("http://bücher/", TargetError::Invalid),
        ] {
            assert_eq!(Target::http(url), Err(why), "{url}");
        }
        assert_eq!(Target::http(&format!("http://api/{}", "x".repeat(3000))), Err(TargetError::TooLong));
    }

    /// Section 1.1 of the wire facts: how the API node makes a WebSocket address of what its operator wrote.
    #[test]
    fn what_a_websocket_url_becomes() {
        for (url, dialled) in [
            ("node", "ws://node/api/v1/pow/ws"),
            ("node:8080", "ws://node:8080/api/v1/pow/ws"),
            ("node:8080/", "ws://node:8080/api/v1/pow/ws"),
            ("http://node:8080", "ws://node:8080/api/v1/pow/ws"),
            ("ws://node:8080/", "ws://node:8080/api/v1/pow/ws"),
            ("WS://node/v3/api/v1/pow/ws", "ws://node/v3/api/v1/pow/ws"),
            ("http://node/own", "ws://node/own"),
            ("[::1]:8080", "ws://[::1]:8080/api/v1/pow/ws"),
            ("[::1]", "ws://[::1]/api/v1/pow/ws"),
            ("ws://node/?token=a/b", "ws://node/api/v1/pow/ws?token=a/b"),
            ("ws://node?token=x", "ws://node/api/v1/pow/ws?token=x"),
            ("ws://node/own?token=x", "ws://node/own?token=x"),
        ] {
            assert_eq!(Target::websocket(url, POW).unwrap().to_string(), dialled, "{url}");
        }
        for (url, why) in [
            ("", TargetError::NoHost),
            ("/path", TargetError::NoHost),
            ("unix://node", TargetError::Scheme),
            ("user@node", TargetError::UserInfo),
            ("node:http", TargetError::Port),
            ("ws://node/#x", TargetError::Query),
        ] {
            assert_eq!(Target::websocket(url, POW), Err(why), "{url}");
        }
        assert_eq!(Target::websocket("node", "/a b"), Err(TargetError::Invalid));
    }

    #[test]
    fn tls_is_another_scheme_and_another_port() {
        for (url, dialled, port) in [
            ("wss://node", "wss://node/api/v1/pow/ws", 443),
            ("https://node:443/own", "wss://node/own", 443),
            ("WSS://[::1]:8443/?token=x", "wss://[::1]:8443/api/v1/pow/ws?token=x", 8443),
            ("wss://node:80", "wss://node:80/api/v1/pow/ws", 80),
            ("ws://node:443", "ws://node:443/api/v1/pow/ws", 443),
        ] {
            let target = Target::websocket(url, POW);
            if url.starts_with("ws:") || cfg!(feature = "tls") {
                let target = target.unwrap();
                assert_eq!((target.to_string().as_str(), target.port()), (dialled, port), "{url}");
                assert_eq!(target.is_tls(), dialled.starts_with("wss:"), "{url}");
            } else {
                assert_eq!(target, Err(TargetError::Tls), "{url}");
            }
        }
        let base = Target::http("HTTPS://api/v1");
        if cfg!(feature = "tls") {
            let joined = base.unwrap().join("generated");
            assert_eq!((joined.to_string().as_str(), joined.port()), ("https://api/v1/generated", 443));
            assert!(joined.is_tls());
        } else {
            assert_eq!(base, Err(TargetError::Tls));
        }
    }

    #[test]
    fn joining_adds_one_segment_whatever_it_holds() {
        for (base, segment, path) in [
            ("http://api", "generated", "/generated"),
            ("http://api/", "generated", "/generated"),
            ("http://api/v1/poc-batches/", "validated", "/v1/poc-batches/validated"),
            ("http://api/v1", "a/b?c#d é", "/v1/a%2Fb%3Fc%23d%20%C3%A9"),
        ] {
            let joined = Target::http(base).unwrap().join(segment);
            assert_eq!(joined.path(), path);
            assert!(joined.path().parse::<Uri>().is_ok());
        }
    }
}
