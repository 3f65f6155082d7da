//! What breaks when, between the miners and their validator.
//!
//! Decided here: the faults, their order, and the words for them. Times are those of the miners' settings; a phase that is
//! to show how everybody comes back ends when everybody is, within a limit.

use bowline_cli::proxy::{Direction, Fault};
use core::time::Duration;

/// What happens when a phase begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// Everybody's way is so.
    Way(Fault),
    /// One proxy in four lets through less than is sent.
    SomeSlow,
    /// The hub ends without a word, and begins anew on the same port after this time.
    Kill(Duration),
    /// The hub goes down in order, and begins anew on the same port.
    Restart,
}

/// One act of the script.
#[derive(Debug)]
pub(super) struct Phase {
    /// A short name, for lines and for programs.
    pub(super) name: &'static str,
    /// What happens, in plain words.
    pub(super) broken: &'static str,
    /// What should come of it.
    pub(super) expected: &'static str,
    /// What happens.
    pub(super) act: Act,
    /// How long, at least.
    pub(super) lasts: Duration,
    /// And then until every miner is connected, but no longer than this in all.
    pub(super) at_most: Option<Duration>,
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Bytes per second that a slow way takes: an update every two seconds needs some more.
const SLOW: Fault = Fault::Slow { bytes_per_second: 1500 };

/// The slow way.
pub(super) const fn slow() -> Fault {
    SLOW
}

/// The script: two minutes, and the time until everybody is back.
pub(super) const SCRIPT: &[Phase] = &[
    Phase {
        name: "steady",
        broken: "nothing is broken",
        expected: "every prediction goes by WebSocket and is confirmed at once",
        act: Act::Way(Fault::Calm),
        lasts: seconds(16),
        at_most: None,
    },
    Phase {
        name: "cut",
        broken: "every connection is reset at the same moment",
        expected: "miners come back spread over seconds; predictions go by HTTP meanwhile",
        act: Act::Way(Fault::Reset),
        lasts: seconds(8),
        at_most: Some(seconds(28)),
    },
    Phase {
        name: "killed",
        broken: "the hub is killed; a new one, without memory, takes over",
        expected: "predictions wait; what is handed out again is marked as perhaps seen",
        act: Act::Kill(seconds(8)),
        lasts: seconds(16),
        at_most: Some(seconds(34)),
    },
    Phase {
        name: "black-hole",
        broken: "everything is taken, nothing arrives, nobody is told",
        expected: "silence is found out; predictions wait, and none is given up",
        act: Act::Way(Fault::Silence(Direction::Both)),
        lasts: seconds(20),
        at_most: None,
    },
    Phase {
        name: "http-only",
        broken: "every WebSocket is closed as soon as it is open",
        expected: "HTTP carries predictions, and updates to the miners' receivers",
        act: Act::Way(Fault::CloseEarly { code: 1011, reason: "no WebSockets today" }),
        lasts: seconds(20),
        at_most: None,
    },
    Phase {
        name: "healed",
        broken: "nothing is broken",
        expected: "everybody returns to the WebSocket",
        act: Act::Way(Fault::Calm),
        lasts: seconds(6),
        at_most: Some(seconds(28)),
    },
    Phase {
        name: "slow",
        broken: "a quarter of the miners read slowly",
        expected: "they are late; nobody else waits for them",
        act: Act::SomeSlow,
        lasts: seconds(16),
        at_most: None,
    },
    Phase {
        name: "restart",
        broken: "the hub goes down in order; a new one takes its port",
        expected: "miners are told when to come back, and nothing under way is lost",
        act: Act::Restart,
        lasts: seconds(12),
        at_most: Some(seconds(38)),
    },
    Phase {
        name: "all-back",
        broken: "nothing is broken any more",
        expected: "every prediction comes to its end",
        act: Act::Way(Fault::Calm),
        lasts: seconds(8),
        at_most: Some(seconds(36)),
    },
];

/// The script's length, if every phase lasts as long as it must and no longer.
pub(super) fn length() -> Duration {
    SCRIPT.iter().map(|phase| phase.lasts).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_fit_on_a_line_and_the_script_into_a_minute_at_a_quarter() {
        for phase in SCRIPT {
            assert!(phase.name.len() + phase.broken.len() <= 80 - 17, "{}", phase.name);
            assert!(phase.expected.len() <= 78, "{}", phase.name);
            assert!(phase.at_most.is_none_or(|most| most > phase.lasts), "{}", phase.name);
        }
        let most: Duration = SCRIPT.iter().map(|phase| phase.at_most.unwrap_or(phase.lasts)).sum();
        assert!(most <= 4 * seconds(60), "{most:?}");
        assert_eq!(length(), seconds(122));
    }
}
