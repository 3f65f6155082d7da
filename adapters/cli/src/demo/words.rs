//! Plain words for what the nodes say.
//!
//! Decided here: what of it people are told, and what programs alone.

use super::note::Note;
use super::world::Who;
use bowline::{Event, Path, Reason, State};
use bowline_cli::proxy::{Direction, Fault};
use std::collections::BTreeSet;

/// Something that a node told. Attempts to connect fail again and again: `said` holds what need not be said again.
pub(crate) fn event(who: Who, event: Event, said: &mut BTreeSet<String>) -> Note {
    let node = match who {
        Who::MlNode => "ml_node",
        Who::ApiNode => "api_node",
    };
    match event {
        Event::State { from, to } => {
            Note::new("state").field("node", node).field("from", from.to_string()).field("to", to.to_string())
        }
        Event::Path { to, .. } => {
            let words = match to {
                Path::WebSocket => "the ML node sends by WebSocket",
                Path::Http => "the ML node sends by HTTP",
            };
            Note::new("path").words(words).field("node", node).field("to", to.to_string())
        }
        Event::Down { reason: why, .. } => {
            let note = Note::new("down").field("node", node).field("reason", format!("{why:?}"));
            match (who, why) {
                (Who::MlNode, _) => note.words(format!("WebSocket lost: {}", why)),
                (Who::ApiNode, Reason::Closed(1008) | Reason::PortClosed | Reason::Timeout) => {
                    let words = format!("the API node's attempt: {}", why);
                    if said.insert(words.clone()) { note.words(words) } else { note }
                }
                // The other end of what the ML node tells.
                (Who::ApiNode, _) => note,
            }
        }
        Event::Settled { .. }
        | Event::RejectedButAcked { .. }
        | Event::HorizonShort { .. }
        | Event::RequestFailed { .. }
        | Event::IdReused { .. }
        | Event::Turn { .. }
        | Event::Resumed { .. }
        | Event::Gap { .. } => Note::new("other").field("node", node).field("what", format!("{event:?}")),
    }
}

/// Where a node stands.
pub(crate) const fn state(state: State) -> &'static str {
    match state {
        State::Idle => "waits",
        State::Waiting => "waits to retry",
        State::Connecting | State::Handshaking => "connects",
        State::Up => "up",
        State::Suspect => "unanswered",
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
        Fault::Status(_) => "refuses every request",
        Fault::Refuse => "refused",
        Fault::LoseAnswers => "answers lost",
    }
}
