//! Why something ended, with what was said about it: a [`Reason`] that machines act on, and a text for people.
//!
//! ```text
//! resolver, system, TLS: io::Error ──┐
//! close frame: its text ─────────────┼─▶ Excerpt: escaped ─▶ secrets masked ─▶ at most 256 bytes ─▶ Explanation
//! HTTP: type, target, first bytes ───┘
//! ```
//!
//! Decided here: which error is which reason, and what of a foreign text is kept. Not decided here: what follows from a
//! reason; that is the core's.
//!
//! Invariants: a text has at most [`Excerpt::LONGEST`] bytes and no control characters; what this side shows to be let in
//! is not in it, also where a peer sends it back.
//! Field bugs: six causes of a failed dial told by one word; a close frame's text and a refusal's body thrown away.
//! Rules: E1, E2.

use bowline::{Reason, TlsFault};
use core::fmt::{self, Write as _};
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// Written in the place of a secret.
const MASK: &str = "***";

/// Written in the place of what was cut off.
const REST: &str = "…";

/// As much of a foreign text is looked at, in bytes: more than is kept, so that a secret that begins before the end of what
/// is kept is seen whole.
const LOOKED_AT: usize = 1024;

/// What follows one of these words and a colon or an equals sign is masked.
const SECRETS: [&str; 9] =
    ["authorization", "token", "password", "passwd", "secret", "signature", "api_key", "api-key", "cookie"];

/// A word of this many hexadecimal digits or more is masked: a signature of sr25519 has 128.
const HEX_SECRET: usize = 100;

/// A shorter secret is not looked for: it would be found in every other word.
const SHORTEST_SECRET: usize = 4;

/// A text that somebody else said, fit to be shown: one line of at most [`LONGEST`](Self::LONGEST) bytes, control characters
/// and invalid UTF-8 escaped, secrets masked, cut with `…`.
///
/// ```
/// use bowline_transport::Excerpt;
/// assert_eq!(Excerpt::new(b"no\r\n\x1b[2J\xff").unwrap().as_str(), r"no \u{1b}[2J\xff");
/// assert_eq!(Excerpt::new(b"Bearer abc is wrong").unwrap().as_str(), "Bearer *** is wrong");
/// assert_eq!(Excerpt::new(b" \n"), None);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Excerpt(Arc<str>);

impl Excerpt {
    /// The most bytes that one has: twice what a close frame can carry.
    pub const LONGEST: usize = 256;

    /// Returns an excerpt of this text; `None` if it holds nothing but white space.
    #[must_use]
    pub fn new(text: impl AsRef<[u8]>) -> Option<Self> {
        let text = text.as_ref();
        let looked_at = text.get(..LOOKED_AT).unwrap_or(text);
        let line = masked_by_shape(&escaped(looked_at));
        let whole = looked_at.len() == text.len();
        (!line.is_empty()).then(|| Self(cut(&line, whole).into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the same without these secrets, or what is left of one at the end.
    #[must_use]
    pub(crate) fn without(self, secrets: &[String]) -> Self {
        let secrets =
            || secrets.iter().map(|secret| escaped(secret.as_bytes())).filter(|it| it.len() >= SHORTEST_SECRET);
        let mut text = self.0.to_string();
        for secret in secrets() {
            text = text.replace(&secret, MASK);
        }
        if let Some(kept) = text.strip_suffix(REST) {
            let begins = |secret: &String| {
                (1..secret.len())
                    .rev()
                    .filter_map(|end| secret.get(..end))
                    .find(|start| kept.ends_with(start))
                    .map(str::len)
            };
            if let Some(kept) =
                secrets().filter_map(|it| begins(&it)).max().and_then(|len| kept.get(..kept.len() - len))
            {
                text = format!("{kept}{MASK}{REST}");
            }
        }
        if *text == *self.0 { self } else { Self(cut(&text, true).into()) }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// One line: white space becomes single spaces, and other characters that cannot be seen are escaped.
fn escaped(text: &[u8]) -> String {
    let mut line = String::with_capacity(text.len());
    let mut space = false;
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_whitespace() {
                space = !line.is_empty();
                continue;
            }
            if core::mem::take(&mut space) {
                line.push(' ');
            }
            if c.is_control() || is_invisible(c) {
                line.extend(c.escape_unicode());
            } else {
                line.push(c);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
    line
}

/// Characters that change what stands around them, or that nobody sees.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Masks what looks like a secret: what follows `Bearer`, or a telling name and `:` or `=`, and very long words of digits.
fn masked_by_shape(line: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_+/.~%".contains(c);
    let mut masked = String::with_capacity(line.len());
    // The word before tells that a secret follows: at once, or behind a colon or an equals sign.
    let (mut follows, mut named) = (false, false);
    let mut rest = line;
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
        let (between, next) = behind.split_at(behind.find(is_word).unwrap_or(behind.len()));
        rest = next;
        let lower = word.to_ascii_lowercase();
        let scheme = matches!(lower.as_str(), "bearer" | "basic" | "digest");
        let long = word.len() >= HEX_SECRET && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let secret =
            !word.is_empty() && ((follows && !scheme) || long || (lower.starts_with("eyj") && word.len() > 40));
        masked.push_str(if secret { MASK } else { word });
        masked.push_str(between);
        let name = SECRETS.iter().any(|name| lower.ends_with(name));
        named = if word.is_empty() { named } else { name };
        let sign = between.contains([':', '=']) && !between.contains([',', ';', '&']);
        follows = lower == "bearer" || (scheme && follows) || (named && sign);
    }
    masked
}

/// At most [`Excerpt::LONGEST`] bytes of this line, which was whole, or is only a beginning.
fn cut(line: &str, whole: bool) -> String {
    if whole && line.len() <= Excerpt::LONGEST {
        return line.to_owned();
    }
    let most = Excerpt::LONGEST - REST.len();
    let end = (0..=most.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
    let kept = end.and_then(|end| line.get(..end)).unwrap_or_default();
    format!("{}{REST}", kept.strip_suffix(REST).unwrap_or(kept))
}

/// Why something ended, was refused, delayed or blocked, with what was said about it.
///
/// ```
/// use bowline::Reason;
/// use bowline_transport::Explanation;
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let explanation = Explanation::of_connection(&refused);
/// assert_eq!(explanation.reason, Reason::PortClosed);
/// assert_eq!(
///     Explanation::from(Reason::SpeaksTls).to_string(),
///     "the peer speaks TLS: use wss:// or https://",
/// );
/// assert_eq!(
///     Explanation::with(Reason::Closed(1008), "PoW is not running").to_string(),
///     "closed with 1008 (PoW is not running)",
/// );
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Explanation {
    /// What machines act on; [`Reason::by`] says who it comes from, [`Reason::advice`] what to do.
    pub reason: Reason,
    /// What the peer, the resolver, the system or TLS said.
    pub text: Option<Excerpt>,
}

impl Explanation {
    /// Returns this reason with what was said.
    #[must_use]
    pub fn with(reason: Reason, text: impl AsRef<[u8]>) -> Self {
        Self { reason, text: Excerpt::new(text) }
    }

    /// Returns what an error of the resolver means. The standard library tells it by the C library's words alone, in
    /// English as long as the process sets no locale.
    #[must_use]
    pub fn of_lookup(error: &io::Error) -> Self {
        let said = error.to_string();
        let for_now = ["emporary", "ry again", "System error", "os error"].iter().any(|word| said.contains(word));
        Self::with(if for_now { Reason::LookupFailed } else { Reason::NoSuchName }, said)
    }

    /// Returns what an error of a connection means: of making it, of TLS, or of what is inside.
    #[must_use]
    pub fn of_connection(error: &io::Error) -> Self {
        #[cfg(feature = "tls")]
        if let Some(fault) = crate::tls::fault(error) {
            return Self::with(Reason::Tls(fault), error.to_string());
        }
        let reason = match error.kind() {
            ErrorKind::ConnectionRefused => Reason::PortClosed,
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
            | ErrorKind::UnexpectedEof => Reason::Closed(1006),
            ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable => Reason::Unreachable,
            ErrorKind::TimedOut => Reason::Timeout,
            _ => Reason::System,
        };
        Self::with(reason, error.to_string())
    }

    /// Returns what an error of a TLS handshake means: one of the connection is one of TLS then, for TCP was there.
    #[must_use]
    pub fn of_handshake(error: &io::Error) -> Self {
        let explanation = Self::of_connection(error);
        match explanation.reason {
            Reason::Closed(_) => {
                Self::with(Reason::Tls(TlsFault::Other), format!("no answer to the handshake: {error}"))
            }
            _ => explanation,
        }
    }

    /// Returns the same with its text free of these secrets.
    #[must_use]
    pub(crate) fn without(self, secrets: &[String]) -> Self {
        Self { reason: self.reason, text: self.text.map(|text| text.without(secrets)) }
    }
}

impl From<Reason> for Explanation {
    fn from(reason: Reason) -> Self {
        Self { reason, text: None }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)?;
        if let Some(advice) = self.reason.advice() {
            write!(f, ": {advice}")?;
        }
        self.text.as_ref().map_or(Ok(()), |text| write!(f, " ({text})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(text: impl AsRef<[u8]>) -> String {
        Excerpt::new(text).map(|it| it.to_string()).unwrap_or_default()
    }

    #[test]
    fn e2_a_foreign_text_is_one_line_that_moves_no_cursor() {
        for (said, shown) in [
            (&b"PoW is not running"[..], "PoW is not running"),
            (b"  a\r\n\t b  ", "a b"),
            (b"\x1b[2J\x07", r"\u{1b}[2J\u{7}"),
            (b"\xc3\x28\xff", r"\xc3(\xff"),
            ("\u{202e}evil\u{feff}".as_bytes(), r"\u{202e}evil\u{feff}"),
            ("\u{85}\u{9b}31m".as_bytes(), r"\u{9b}31m"),
            ("schön".as_bytes(), "schön"),
        ] {
            assert_eq!(excerpt(said), shown);
        }
    }

    #[test]
    fn e2_a_foreign_text_is_never_longer_than_its_limit() {
        for said in [vec![b'x'; 100_000], vec![0xff; 100_000], "é".repeat(600).into_bytes(), vec![0x1b; 300]] {
            let shown = excerpt(&said);
            assert!(shown.len() <= Excerpt::LONGEST && shown.ends_with('…'), "{}", shown.len());
        }
        assert_eq!(excerpt("x".repeat(Excerpt::LONGEST)), "x".repeat(Excerpt::LONGEST));
        let secret = "s".repeat(4);
        let longer = Excerpt::new(format!("{secret} ").repeat(51)).unwrap().without(&[secret]);
        assert!(longer.as_str().len() <= Excerpt::LONGEST && !longer.as_str().contains('s'));
    }

    #[test]
    fn e2_what_lets_in_is_masked() {
        let signature = "0a".repeat(64);
        for (said, shown) in [
            ("Authorization: Bearer abc.def is old".to_owned(), "Authorization: Bearer *** is old"),
            ("authorization=Basic dXNlcjpwYXNz".into(), "authorization=Basic ***"),
            (r#"{"token":"t0k","why":"no"}"#.into(), r#"{"token":"***","why":"no"}"#),
            ("/ws?access_token=abc&x=1".into(), "/ws?access_token=***&x=1"),
            (format!("bad signature {signature}"), "bad signature ***"),
            ("Set-Cookie: id=7".into(), "Set-Cookie: ***=7"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc".into(), "***"),
            // No secrets.
            ("the token has expired".into(), "the token has expired"),
            ("signature of block 02a1633cafcc01ebfb6d78e39f687a1f0995c62fc95f51ead10a02ee0be551b5dc".into(), "="),
            ("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY is not registered".into(), "="),
        ] {
            assert_eq!(excerpt(&said), if shown == "=" { &said } else { shown });
        }
    }

    #[test]
    fn e2_what_this_side_shows_is_masked_wherever_it_comes_back_and_however_it_is_cut() {
        let secret = "correct horse".to_owned();
        for (said, shown) in [
            ("who is correct horse?", "who is ***?".to_owned()),
            ("correct horsecorrect horse", "******".into()),
            ("the correct way", "the correct way".into()),
        ] {
            assert_eq!(Excerpt::new(said).unwrap().without(core::slice::from_ref(&secret)).as_str(), shown);
        }
        for before in Excerpt::LONGEST - 30..Excerpt::LONGEST + 10 {
            let said = format!("{}{secret} and more, and more, and more", "x".repeat(before));
            let shown = Excerpt::new(said).unwrap().without(core::slice::from_ref(&secret));
            assert!(!shown.as_str().contains('c'), "{shown} {before}");
            assert!(shown.as_str().len() <= Excerpt::LONGEST);
        }
        assert_eq!(Excerpt::new("a b c").unwrap().without(&["a".into()]).as_str(), "a b c", "too short to look for");
    }

    #[test]
    fn e1_an_error_of_the_system_has_a_reason_of_its_own() {
        for (kind, reason) in [
            (ErrorKind::ConnectionRefused, Reason::PortClosed),
            (ErrorKind::ConnectionReset, Reason::Closed(1006)),
            (ErrorKind::UnexpectedEof, Reason::Closed(1006)),
            (ErrorKind::HostUnreachable, Reason::Unreachable),
            (ErrorKind::NetworkUnreachable, Reason::Unreachable),
            (ErrorKind::TimedOut, Reason::Timeout),
            (ErrorKind::PermissionDenied, Reason::System),
        ] {
            assert_eq!(Explanation::of_connection(&kind.into()).reason, reason, "{kind:?}");
        }
        let reset = Explanation::of_handshake(&ErrorKind::ConnectionReset.into());
        assert_eq!(
            reset.reason,
            Reason::Tls(TlsFault::Other),
            "there was a port, and it spoke no TLS that anybody heard"
        );
    }

    #[test]
    fn e1_the_resolver_s_no_is_not_its_silence() {
        let lookup = |said: &str| Explanation::of_lookup(&io::Error::other(said.to_owned())).reason;
        let said = "failed to lookup address information: Name or service not known";
        assert_eq!(lookup(said), Reason::NoSuchName);
        assert_eq!(
            lookup("failed to lookup address information: No address associated with hostname"),
            Reason::NoSuchName
        );
        let said = "failed to lookup address information: Temporary failure in name resolution";
        assert_eq!(lookup(said), Reason::LookupFailed);
        assert_eq!(lookup("failed to lookup address information: Try again"), Reason::LookupFailed);
    }
}
