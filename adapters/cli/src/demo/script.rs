//! What breaks when: the phases of the demo, in Gonka's own time.
//!
//! Decided here: the faults, their order, and the words for them. A phase that is to show how traffic comes back ends
//! when it has, within a limit; all others last as long as they say.

use bowline_cli::proxy::{Direction, Fault};
use core::time::Duration;

/// One act of the script.
#[derive(Debug)]
pub(crate) struct Phase {
    /// A short name, for lines and for programs.
    pub(crate) name: &'static str,
    /// What is broken, in plain words.
    pub(crate) broken: &'static str,
    /// What should happen.
    pub(crate) expected: &'static str,
    /// Between API node and the ML node's WebSocket.
    pub(crate) websocket: Strain,
    /// Between ML node and the API node's callbacks.
    pub(crate) http: Strain,
    /// How long, at least.
    pub(crate) lasts: Duration,
    /// And then until traffic is on the WebSocket again, but no longer than this in all.
    pub(crate) at_most: Option<Duration>,
}

/// A fault whose size depends on the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Strain {
    /// This one.
    Fault(Fault),
    /// Half of the bytes that the batches need.
    Half,
}

impl Strain {
    /// The fault, when the batches need so many bytes per second.
    pub(crate) fn fault(self, need: u64) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::Half => Fault::Slow { bytes_per_second: (need / 2).max(1) },
        }
    }
}

const CALM: Strain = Strain::Fault(Fault::Calm);
const REFUSED: Strain = Strain::Fault(Fault::Refuse);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The script: about two and a half minutes.
pub(crate) const SCRIPT: &[Phase] = &[
    Phase {
        name: "calm",
        broken: "nothing is broken",
        expected: "every batch goes by WebSocket and is acknowledged once processed",
        websocket: CALM,
        http: CALM,
        lasts: seconds(10),
        at_most: None,
    },
    Phase {
        name: "reset",
        broken: "the WebSocket's connection is reset",
        expected: "HTTP takes over at once; the WebSocket returns when it has proven itself",
        websocket: Strain::Fault(Fault::Reset),
        http: CALM,
        lasts: seconds(12),
        at_most: Some(seconds(25)),
    },
    Phase {
        name: "silence",
        broken: "the WebSocket is open, but its acks are held back",
        expected: "unanswered for 35 s, the first batch goes by HTTP too; its copy is dropped",
        websocket: Strain::Fault(Fault::Silence(Direction::ToServer)),
        http: CALM,
        lasts: seconds(45),
        at_most: None,
    },
    Phase {
        name: "healed",
        broken: "nothing is broken",
        expected: "what was held back arrives; the WebSocket carries on",
        websocket: CALM,
        http: CALM,
        lasts: seconds(8),
        at_most: Some(seconds(30)),
    },
    Phase {
        name: "slow",
        broken: "the WebSocket takes half of what is sent",
        expected: "what is late goes by HTTP too; a slow connection is not a dead one",
        websocket: Strain::Half,
        http: CALM,
        lasts: seconds(12),
        at_most: None,
    },
    Phase {
        name: "turned-away",
        broken: "the WebSocket is accepted, then closed with 1008",
        expected: "PoW is not running yet: no error; the API node waits and tries again",
        websocket: Strain::Fault(Fault::CloseEarly { code: 1008, reason: "PoW is not running" }),
        http: CALM,
        lasts: seconds(8),
        at_most: None,
    },
    Phase {
        name: "refused",
        broken: "nobody listens at the WebSocket",
        expected: "HTTP carries everything; a connection is tried every 3 to 5 s",
        websocket: REFUSED,
        http: CALM,
        lasts: seconds(8),
        at_most: None,
    },
    Phase {
        name: "all-down",
        broken: "WebSocket and HTTP are both refused",
        expected: "batches are still accepted and wait; no storm of attempts",
        websocket: REFUSED,
        http: REFUSED,
        lasts: seconds(8),
        at_most: None,
    },
    Phase {
        name: "answers-lost",
        broken: "HTTP is back, but its answers get lost",
        expected: "the work was done: what comes again has the same id and is dropped",
        websocket: REFUSED,
        http: Strain::Fault(Fault::LoseAnswers),
        lasts: seconds(10),
        at_most: None,
    },
    Phase {
        name: "all-back",
        broken: "nothing is broken any more",
        expected: "the backlog drains, the WebSocket returns, every batch comes to its end",
        websocket: CALM,
        http: CALM,
        lasts: seconds(28),
        at_most: Some(seconds(45)),
    },
];

/// Batches are sent until this long before the script's natural end.
const REST: Duration = seconds(4);

/// The script's length, if every phase lasts as long as it must and no longer.
pub(crate) fn length() -> Duration {
    SCRIPT.iter().map(|phase| phase.lasts).sum()
}

/// When the last batch is due.
pub(crate) fn sending() -> Duration {
    length() - REST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_fit_on_a_line_and_the_script_into_two_and_a_half_minutes() {
        for phase in SCRIPT {
            // Behind the time and the number.
            assert!(phase.name.len() + phase.broken.len() <= 80 - 17, "{}", phase.name);
            assert!(phase.expected.len() <= 78, "{}", phase.name);
            assert!(phase.at_most.is_none_or(|most| most > phase.lasts), "{}", phase.name);
        }
        assert_eq!(length(), seconds(149));
    }

    #[test]
    fn a_half_is_never_nothing() {
        assert_eq!(Strain::Half.fault(0), Fault::Slow { bytes_per_second: 1 });
        assert_eq!(Strain::Half.fault(300), Fault::Slow { bytes_per_second: 150 });
    }
}
