//! What breaks when, between a native client and its hub.
//!
//! Decided here: the faults and their order. Times are those of the native settings.

use super::super::script::{Phase, Strain};
use bowline_cli::proxy::{Direction, Fault};
use core::time::Duration;

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

const CALM: Strain = Strain::Fault(Fault::Calm);
const REFUSED: Strain = Strain::Fault(Fault::Refuse);

/// How a connection is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// In full traffic.
    Plain,
    /// After a while in which this direction was held: what went the other way arrived, and its sender does not know.
    Held(Direction),
    /// And the next one as soon as it is welcomed, when both send what has waited.
    Twice,
}

/// Where resets are the fault, there is one every so often: longer than it takes to come back, and to count as having
/// lived.
pub(super) const CUT_EVERY: Duration = seconds(8);

/// For so long before its cut a direction is held.
pub(super) const HOLD: Duration = Duration::from_millis(500);

/// One after the other.
pub(super) const CUTS: [Cut; 6] =
    [Cut::Plain, Cut::Twice, Cut::Held(Direction::ToClient), Cut::Plain, Cut::Held(Direction::ToServer), Cut::Twice];

/// The script: two and a half minutes.
pub(super) const SCRIPT: &[Phase] = &[
    Phase {
        name: "calm",
        broken: "nothing is broken",
        expected: "both directions by WebSocket",
        websocket: CALM,
        http: CALM,
        lasts: seconds(10),
        at_most: None,
    },
    Phase {
        name: "cuts",
        broken: "the WebSocket is reset, again and again",
        expected: "each new one resumes; only what was missing crosses again",
        websocket: Strain::Fault(Fault::Reset),
        http: CALM,
        lasts: seconds(52),
        at_most: None,
    },
    Phase {
        name: "slow",
        broken: "the WebSocket takes half of what is sent",
        expected: "both directions are held back; a slow connection is not a dead one",
        websocket: Strain::Half,
        http: CALM,
        lasts: seconds(12),
        at_most: None,
    },
    Phase {
        name: "silence",
        broken: "the WebSocket is open, but nothing crosses it",
        expected: "what is unanswered goes by HTTP too; the copies are dropped",
        websocket: Strain::Fault(Fault::Silence(Direction::Both)),
        http: CALM,
        lasts: seconds(12),
        at_most: None,
    },
    Phase {
        name: "healed",
        broken: "nothing is broken",
        expected: "traffic returns to the WebSocket",
        websocket: CALM,
        http: CALM,
        lasts: seconds(8),
        at_most: Some(seconds(30)),
    },
    Phase {
        name: "turned-away",
        broken: "every WebSocket is closed as soon as it is open",
        expected: "HTTP carries both ways: requests there, polls back",
        websocket: Strain::Fault(Fault::CloseEarly { code: 1011, reason: "no WebSockets today" }),
        http: CALM,
        lasts: seconds(10),
        at_most: None,
    },
    Phase {
        name: "refused",
        broken: "nobody listens at the WebSocket",
        expected: "HTTP carries both ways",
        websocket: REFUSED,
        http: CALM,
        lasts: seconds(10),
        at_most: None,
    },
    Phase {
        name: "all-down",
        broken: "WebSocket and HTTP are both refused",
        expected: "a window's worth is accepted and waits; no storm of attempts",
        websocket: REFUSED,
        http: REFUSED,
        lasts: seconds(8),
        at_most: None,
    },
    Phase {
        name: "answers-lost",
        broken: "HTTP is back, but its answers get lost",
        expected: "what comes again has the same number and is dropped; polls repeat",
        websocket: REFUSED,
        http: Strain::Fault(Fault::LoseAnswers),
        lasts: seconds(10),
        at_most: None,
    },
    Phase {
        name: "all-back",
        broken: "nothing is broken any more",
        expected: "the WebSocket returns, the rest goes, every message comes to its end",
        websocket: CALM,
        http: CALM,
        lasts: seconds(28),
        at_most: Some(seconds(60)),
    },
];

/// What is due is sent so often, and at once: then both directions are full.
pub(super) const BURST: Duration = seconds(2);

/// Messages are due until this long before the script's natural end.
const REST: Duration = seconds(8);

/// The script's length, if every phase lasts as long as it must and no longer.
pub(super) fn length() -> Duration {
    SCRIPT.iter().map(|phase| phase.lasts).sum()
}

/// When the last message is due.
pub(super) fn sending() -> Duration {
    length() - REST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_fit_on_a_line_and_there_is_time_for_every_cut() {
        for phase in SCRIPT {
            assert!(phase.name.len() + phase.broken.len() <= 80 - 17, "{}", phase.name);
            assert!(phase.expected.len() <= 78, "{}", phase.name);
            assert!(phase.at_most.is_none_or(|most| most > phase.lasts), "{}", phase.name);
        }
        let cuts: Vec<_> = SCRIPT.iter().filter(|phase| phase.websocket == Strain::Fault(Fault::Reset)).collect();
        assert_eq!(cuts.len(), 1);
        assert!(cuts[0].lasts > CUT_EVERY * u32::try_from(CUTS.len()).unwrap(), "there is time for each");
    }
}
