//! What a person at the terminal is told of a peer that is not reached: the reason and what to do, on stderr.
//!
//! Decided here: how often. Invariant: however many attempts fail, there are at most `REASONS` lines in `QUIET`.

use bowline::Reason;
use bowline_transport::Explanation;
use core::time::Duration;
use std::collections::BTreeMap;
use std::time::Instant;

/// The time for which a reason that was told is not told again.
const QUIET: Duration = Duration::from_secs(600);

/// The most reasons that are told within that time.
const REASONS: usize = 8;

/// Writes to stderr why a peer is not reached.
#[derive(Debug)]
pub(crate) struct Advice {
    /// The peer's URL, without what may be secret in it.
    url: String,
    /// When each reason was told last.
    told: BTreeMap<String, Instant>,
}

impl Advice {
    /// Of the peer at this URL.
    pub(crate) fn new(url: Option<&str>) -> Self {
        let url = url.unwrap_or("the peer");
        Self { url: url.split(['?', '#']).next().unwrap_or_default().to_owned(), told: BTreeMap::new() }
    }

    /// Writes an explanation, unless it is an ordinary end or was written lately.
    pub(crate) fn give(&mut self, why: Option<Explanation>) {
        if let Some(line) = why.and_then(|why| self.line(&why, Instant::now())) {
            eprintln!("bowline: {line}");
        }
    }

    fn line(&mut self, why: &Explanation, now: Instant) -> Option<String> {
        self.told.retain(|_, told| now.saturating_duration_since(*told) < QUIET);
        let ordinary = matches!(why.reason, Reason::Ours | Reason::Closed(1000 | 1001 | 1005 | 1006 | 1012));
        let reason = why.reason.to_string();
        if ordinary || self.told.contains_key(&reason) || self.told.len() >= REASONS {
            return None;
        }
        self.told.insert(reason, now);
        Some(format!("{}: {why}", self.url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e3_a_reason_is_told_once_in_ten_minutes_and_eight_of_them_at_most() {
        let mut advice = Advice::new(Some("ws://peer:1/x?token=secret"));
        let start = Instant::now();
        let tls = Explanation::from(Reason::SpeaksTls);
        let line = advice.line(&tls, start).unwrap();
        assert_eq!(line, "ws://peer:1/x: the peer speaks TLS: use wss:// or https://");
        assert_eq!(advice.line(&tls, start + QUIET - Duration::from_secs(1)), None);
        let others = (500..600).filter_map(|status| advice.line(&Reason::Status(status).into(), start)).count();
        assert_eq!(others, REASONS - 1);
        assert!(advice.line(&tls, start + QUIET).is_some());
        let ordinary = Explanation::from(Reason::Closed(1006));
        assert_eq!(advice.line(&ordinary, start + QUIET), None, "a connection that ends is no fault of the settings");
    }
}
