//! What became of every batch, written down by both sides and judged at the end.
//!
//! ```text
//!  sender:    accepted ───────────────────────────────▶ settled (outcome, path, took)
//!  receiver:            delivered ─▶ returned ─▶ delivered ─▶ processed
//! ```
//!
//! Decided here: what counts as lost and what as delivered twice (promises G1 and G2).

use bowline::{Outcome, Path};
use bowline_transport::Settlement;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The history of one batch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Entry {
    accepted: bool,
    settled: Option<Settlement>,
    delivered: u32,
    maybe_dup: u32,
    altered: u32,
    returned: u32,
    processed: u32,
}

impl Entry {
    fn arrived(&self) -> bool {
        matches!(self.settled, Some(Settlement { outcome: Outcome::Delivered { .. }, .. }))
    }

    /// Given to the application again although it had not handed it back (G2).
    fn twice(&self) -> bool {
        self.delivered.saturating_sub(self.returned).saturating_sub(self.maybe_dup) > 1 || self.processed > 1
    }

    /// What is wrong with it, if anything is. What was interrupted may be unfinished.
    fn offence(&self, interrupted: bool) -> Option<String> {
        if self.twice() {
            return Some(format!("given to the application {} times, processed {}", self.delivered, self.processed));
        }
        if self.altered > 0 {
            return Some("arrived, but not as it was sent".into());
        }
        if !self.accepted {
            return Some("arrived, but was never accepted".into());
        }
        match self.settled.map(|settlement| settlement.outcome) {
            Some(Outcome::Delivered { .. }) if self.processed == 0 => Some("acknowledged, but never processed".into()),
            Some(Outcome::Delivered { .. }) => None,
            _ if interrupted => None,
            Some(outcome) => Some(format!("ended as {outcome:?}, {}", self.whether_processed())),
            None => Some(format!("never came to an end, {}", self.whether_processed())),
        }
    }

    const fn whether_processed(&self) -> &'static str {
        if self.processed > 0 { "though it was processed" } else { "and was not processed" }
    }
}

/// The histories of all batches, by height.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Mutex<BTreeMap<u64, Entry>>,
}

impl Ledger {
    /// The sender's node has taken it.
    pub(crate) fn accepted(&self, height: u64) {
        self.entry(height, |entry| entry.accepted = true);
    }

    /// The sender was told its end.
    pub(crate) fn settled(&self, height: u64, settlement: Settlement) {
        self.entry(height, |entry| entry.settled = Some(settlement));
    }

    /// The application was given it; true: for the first time.
    pub(crate) fn delivered(&self, height: u64, maybe_dup: bool, as_sent: bool) -> bool {
        self.entry(height, |entry| {
            entry.delivered += 1;
            entry.maybe_dup += u32::from(maybe_dup);
            entry.altered += u32::from(!as_sent);
            entry.delivered == 1
        })
    }

    /// The application handed it back.
    pub(crate) fn returned(&self, height: u64) {
        self.entry(height, |entry| entry.returned += 1);
    }

    /// The application has done its work.
    pub(crate) fn processed(&self, height: u64) {
        self.entry(height, |entry| entry.processed += 1);
    }

    /// The verdict.
    pub(crate) fn judge(&self, interrupted: bool) -> Judgement {
        let entries = self.lock();
        let count = |holds: &dyn Fn(&Entry) -> bool| entries.values().filter(|entry| holds(entry)).count();
        let by = |path| {
            let delivered = Outcome::Delivered { path };
            count(&|entry| entry.settled.is_some_and(|settlement| settlement.outcome == delivered))
        };
        let mut took: Vec<Duration> =
            entries.values().filter(|entry| entry.arrived()).filter_map(|entry| Some(entry.settled?.took)).collect();
        took.sort_unstable();
        let offences = entries.iter().filter_map(|(height, entry)| Some((*height, entry.offence(interrupted)?)));
        Judgement {
            accepted: count(&|entry| entry.accepted),
            by_websocket: by(Path::WebSocket),
            by_http: by(Path::Http),
            unfinished: count(&|entry| entry.accepted && !entry.arrived()),
            lost: if interrupted { 0 } else { count(&|entry| entry.accepted && entry.processed == 0) },
            twice: count(&Entry::twice),
            maybe_dup: count(&|entry| entry.maybe_dup > 0),
            returned: count(&|entry| entry.returned > 0),
            p50: percentile(&took, 50),
            p99: percentile(&took, 99),
            offences: offences.collect(),
        }
    }

    fn entry<R>(&self, height: u64, write: impl FnOnce(&mut Entry) -> R) -> R {
        write(self.lock().entry(height).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the ledger says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Judgement {
    /// Batches the sender's node took.
    pub(crate) accepted: usize,
    /// Of these, acknowledged over the WebSocket.
    pub(crate) by_websocket: usize,
    /// Of these, acknowledged by HTTP.
    pub(crate) by_http: usize,
    /// Of these, not acknowledged.
    pub(crate) unfinished: usize,
    /// Of these, never processed; unknown after an interruption.
    pub(crate) lost: usize,
    /// Given to the application more often than it asked for.
    pub(crate) twice: usize,
    /// Marked as perhaps seen before.
    pub(crate) maybe_dup: usize,
    /// Handed back by the application.
    pub(crate) returned: usize,
    /// From acceptance to the end.
    pub(crate) p50: Duration,
    /// From acceptance to the end.
    pub(crate) p99: Duration,
    /// What is wrong, by height.
    pub(crate) offences: Vec<(u64, String)>,
}

/// The smallest value that so many per cent do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BY_HTTP: Settlement =
        Settlement { outcome: Outcome::Delivered { path: Path::Http }, took: Duration::from_millis(5), reason: None };

    fn judged(write: impl FnOnce(&Ledger)) -> Judgement {
        let ledger = Ledger::default();
        write(&ledger);
        ledger.judge(false)
    }

    #[test]
    fn what_came_back_once_and_was_processed_once_is_in_order() {
        let judgement = judged(|ledger| {
            assert!(ledger.delivered(1, false, true), "it may overtake the sender's own note");
            ledger.accepted(1);
            ledger.returned(1);
            assert!(!ledger.delivered(1, false, true));
            ledger.processed(1);
            ledger.settled(1, BY_HTTP);
        });
        assert_eq!(judgement.offences, []);
        assert_eq!((judgement.accepted, judgement.by_http, judgement.returned), (1, 1, 1));
        assert_eq!((judgement.lost, judgement.twice, judgement.unfinished), (0, 0, 0));
        assert_eq!(judgement.p99, Duration::from_millis(5));
    }

    #[test]
    fn every_offence_is_found() {
        let twice = judged(|ledger| {
            ledger.accepted(1);
            ledger.delivered(1, false, true);
            ledger.delivered(1, false, true);
            ledger.processed(1);
            ledger.settled(1, BY_HTTP);
        });
        assert_eq!((twice.twice, twice.offences.len()), (1, 1));
        let lost = judged(|ledger| ledger.accepted(1));
        assert_eq!((lost.lost, lost.unfinished, lost.offences.len()), (1, 1, 1));
        let abandoned = judged(|ledger| {
            ledger.accepted(1);
            ledger.settled(1, Settlement { outcome: Outcome::Abandoned, took: Duration::ZERO, reason: None });
        });
        assert_eq!((abandoned.lost, abandoned.offences.len()), (1, 1));
        let unprocessed = judged(|ledger| {
            ledger.accepted(1);
            ledger.settled(1, BY_HTTP);
        });
        assert_eq!((unprocessed.lost, unprocessed.offences.len()), (1, 1));
        let altered = judged(|ledger| {
            ledger.accepted(1);
            ledger.delivered(1, false, false);
            ledger.processed(1);
            ledger.settled(1, BY_HTTP);
        });
        assert_eq!(altered.offences.len(), 1);
        let foreign = judged(|ledger| assert!(ledger.delivered(1, false, true)));
        assert_eq!(foreign.offences.len(), 1);
    }

    #[test]
    fn what_was_interrupted_is_unfinished_and_not_lost() {
        let ledger = Ledger::default();
        ledger.accepted(1);
        let judgement = ledger.judge(true);
        assert_eq!((judgement.lost, judgement.unfinished, judgement.offences.len()), (0, 1, 0));
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), Duration::from_millis(100));
        assert_eq!(percentile(&times, 99), Duration::from_millis(198));
        assert_eq!(percentile(&times[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
