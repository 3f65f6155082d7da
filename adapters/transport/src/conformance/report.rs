//! What was checked, and what did not hold.
//!
//! ```text
//! probe(check, frame, step) ──▶ cases + 1 ──▶ Ok │ Err(why) │ panic ──▶ Failure { check, why, frame }
//! ```
//!
//! Invariants: a panic in a step is a failure like any other; a check ends with its third failure; of each frame there are
//! its first three hundred characters, without anything that a terminal would obey.

use core::fmt;
use core::panic::AssertUnwindSafe;
use std::collections::BTreeMap;
use std::panic::catch_unwind;

/// After so many failures a check is over: the first says it, the others help to see what they have in common.
const KEPT: usize = 3;

/// So much of a frame is shown, in characters.
const SHOWN: usize = 300;

/// What is checked; there may be more with time.
///
/// ```
/// use bowline_transport::conformance::Check;
/// assert_eq!(Check::RoundTrip.to_string(), "round trip");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Check {
    /// Samples are accepted and become frames; what must be refused is.
    Prepare,
    /// `size` is never less than the frame.
    Size,
    /// A frame of our own that comes back acknowledges nothing.
    Mirror,
    /// What real peers sent is understood.
    Recorded,
    /// A frame of a later version has no effect and is no offence.
    Ignored,
    /// What is read is what was sent, under the same id.
    RoundTrip,
    /// A message that is written again is the same message, and different ids are different messages.
    Identity,
    /// The acknowledgement of a message names it to its sender.
    Acknowledge,
    /// An id of a peer's own spelling is acknowledged in that spelling, every time.
    Echo,
    /// Greeting, ping and keepalive are no message, no acknowledgement and no offence; answers to answers come to an end.
    Quiet,
    /// What the sender's settings let through is within what the receiver reads.
    Limit,
    /// White space and unknown fields change nothing.
    Tolerance,
    /// A message knows its sort and its size.
    Describe,
    /// A POST goes to a path that the receiver serves, and fits.
    HttpRoute,
    /// A POST says what the frame says: the same message, id and content key.
    HttpRoundTrip,
    /// The answer to a POST means to the sender what it meant to the receiver.
    HttpAnswer,
    /// No page of a portal or a proxy ends a message: the wire takes it for nobody's word (rule H8).
    HttpForeign,
    /// A POST that says nothing is refused with 4xx.
    HttpGarbage,
    /// No damaged frame causes a panic, or costs more than its length allows.
    Mutation,
    /// Garbage causes no panic and is no message.
    Garbage,
    /// What a wire remembers is bounded, and gone when a message has ended.
    Memory,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Size => "size",
            Self::Mirror => "mirror",
            Self::Recorded => "recorded",
            Self::Ignored => "ignored",
            Self::RoundTrip => "round trip",
            Self::Identity => "identity",
            Self::Acknowledge => "acknowledge",
            Self::Echo => "echo",
            Self::Quiet => "quiet",
            Self::Limit => "limit",
            Self::Tolerance => "tolerance",
            Self::Describe => "describe",
            Self::HttpRoute => "http route",
            Self::HttpRoundTrip => "http round trip",
            Self::HttpAnswer => "http answer",
            Self::HttpForeign => "http foreign",
            Self::HttpGarbage => "http garbage",
            Self::Mutation => "mutation",
            Self::Garbage => "garbage",
            Self::Memory => "memory",
        })
    }
}

/// What did not hold.
///
/// ```
/// use bowline_transport::conformance::{Check, Failure};
/// let failure = Failure { check: Check::Size, why: "size says 1 byte".into(), frame: "R 17 21.5".into() };
/// assert_eq!(failure.to_string(), "size: size says 1 byte\n    on: R 17 21.5");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Which check.
    pub check: Check,
    /// What was seen, in at most 600 characters and their escapes.
    pub why: String,
    /// The frame, body or sample it was seen on: its first 300 characters, those that do not print as escapes.
    pub frame: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    on: {}", self.check, self.why, self.frame)
    }
}

/// What a run of the checks found.
///
/// ```
/// use bowline_transport::Gonka;
/// use bowline_transport::conformance::{Check, Conformance};
/// let report = Conformance::alone(Gonka::ML_NODE).recorded("no frame").run();
/// assert!(!report.passed());
/// assert_eq!(report.failures()[0].check, Check::Recorded);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use]
pub struct Report {
    cases: BTreeMap<Check, usize>,
    failures: Vec<Failure>,
}

impl Report {
    /// Whether everything held.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// What did not, three of each check at most.
    #[must_use]
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// How many cases of a check there were; 0 if nothing was given that it could be made on.
    #[must_use]
    pub fn cases(&self, check: Check) -> usize {
        self.cases.get(&check).copied().unwrap_or_default()
    }

    /// For a test.
    ///
    /// # Panics
    /// Something did not hold; the message lists what.
    pub fn assert(&self) {
        assert!(self.passed(), "{self}");
    }

    /// Does one case, unless the check has failed often enough: a wire that panics at everything would fill the terminal.
    pub(super) fn probe(&mut self, check: Check, frame: &str, step: impl FnOnce() -> Result<(), String>) {
        if self.failures.iter().filter(|failure| failure.check == check).count() >= KEPT {
            return;
        }
        let cases = self.cases.entry(check).or_default();
        *cases = cases.saturating_add(1);
        // Every step works on copies of its own, or on what the caller throws away after a failure.
        let why = match catch_unwind(AssertUnwindSafe(step)) {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map(String::as_str);
                format!("panic: {}", said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without words"))
            }
        };
        self.failures.push(Failure { check, why: shown(&why, 2 * SHOWN), frame: shown(frame, SHOWN) });
    }
}

/// Its beginning, with nothing in it that a terminal would obey.
fn shown(text: &str, longest: usize) -> String {
    let mut shown = String::new();
    for letter in text.chars().take(longest) {
        match letter {
            '"' | '\'' | '\\' => shown.push(letter),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (checks, cases) = (self.cases.len(), self.cases.values().sum::<usize>());
        write!(f, "conformance: {checks} checks, {cases} cases, {} failures", self.failures.len())?;
        self.failures.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}
