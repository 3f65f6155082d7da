//! Plain words for what the nodes say.

use bowline::{Cause, State};
use bowline_cli::proxy::{Direction, Fault};
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
        Cause::Violation => "the peer broke the protocol".into(),
        Cause::Replaced => "a newer one took its place".into(),
        Cause::Ours => "closed by us".into(),
    }
}

/// Where a node stands.
pub(crate) const fn state(state: State) -> &'static str {
    match state {
        State::Idle => "waits",
        State::Waiting => "waits to retry",
        State::Connecting | State::Handshaking => "connects",
        State::Up => "up",
        State::Suspect => "suspects it",
        State::Degraded => "on HTTP",
        State::Suspended => "long outage",
        State::Closing => "closing",
        State::Failed => "failed",
        State::Closed => "closed",
    }
}

/// What a proxy does to what runs through it.
pub(crate) const fn fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Calm => "open",
        Fault::Reset => "was reset",
        Fault::Silence(Direction::ToServer) => "acks held back",
        Fault::Silence(_) => "silent",
        Fault::Slow { .. } => "slow",
        Fault::CloseEarly { .. } => "closes at once: 1008",
        Fault::Refuse => "refused",
        Fault::LoseAnswers => "answers lost",
    }
}
