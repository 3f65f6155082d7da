//! Plain words for what happens to connections and messages.

use bowline::{Cause, Outcome, Path};
use std::borrow::Cow;

/// How a connection, or the attempt at one, ended.
pub(crate) fn cause(cause: Cause) -> Cow<'static, str> {
    match cause {
        Cause::Refused => "refused".into(),
        Cause::Timeout => "no answer in time".into(),
        Cause::Closed(1005 | 1006) => "broken off".into(),
        Cause::Closed(code) => format!("closed with {code}").into(),
        Cause::Rejected(status) => format!("answered with {status}").into(),
        Cause::Dead => "nothing heard, so it is dead".into(),
        Cause::Stalled => "takes no more bytes".into(),
        Cause::Unanswered => "leaves a batch unanswered".into(),
        Cause::Violation => "the peer broke the protocol".into(),
        Cause::Replaced => "a newer one took its place".into(),
        Cause::Ours => "closed by us".into(),
    }
}

/// How a message ended, and by which path it was acknowledged.
pub(crate) const fn outcome(outcome: Outcome) -> (&'static str, Option<Path>) {
    match outcome {
        Outcome::Delivered { path } => ("delivered", Some(path)),
        Outcome::Rejected(_) => ("rejected", None),
        Outcome::Expired => ("expired", None),
        Outcome::Abandoned => ("abandoned", None),
    }
}
