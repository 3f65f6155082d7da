//! Plain words for what happens to connections and messages.

use crate::pipe::Line;
use bowline::{Outcome, Path, Reason};
use bowline_transport::Excerpt;

/// How a message ended, and by which path it was acknowledged.
pub(crate) const fn outcome(outcome: Outcome) -> (&'static str, Option<Path>) {
    match outcome {
        Outcome::Delivered { path } => ("delivered", Some(path)),
        Outcome::Rejected(_) => ("rejected", None),
        Outcome::Expired => ("expired", None),
        Outcome::Abandoned => ("abandoned", None),
    }
}

/// The line with a reason: what, from whom, in whose words, and what to do where that is known.
pub(crate) fn explained(line: Line, reason: Reason, said: Option<&Excerpt>) -> Line {
    line.field("reason", reason.to_string())
        .field("by", reason.by().to_string())
        .maybe("said", said.map(Excerpt::as_str))
        .maybe("advice", reason.advice())
}
