//! Plain words for what happens to connections and messages.

use bowline::{Outcome, Path};

/// How a message ended, and by which path it was acknowledged.
pub(crate) const fn outcome(outcome: Outcome) -> (&'static str, Option<Path>) {
    match outcome {
        Outcome::Delivered { path } => ("delivered", Some(path)),
        Outcome::Rejected(_) => ("rejected", None),
        Outcome::Expired => ("expired", None),
        Outcome::Abandoned => ("abandoned", None),
    }
}
