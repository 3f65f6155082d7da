//! What became of every prediction, written down by the miners and by the validator's application, and judged at the end.
//!
//! ```text
//!  miner:      accepted ─────────────────────────────────────▶ settled (outcome, path, took)
//!  validator:             handed out (by which hub, marked?)
//! ```
//!
//! Decided here: what counts as lost and what as doubled. A hub that was killed, or replaced, has lost its memory with
//! its process: what its miners had no confirmation of comes again, and the new hub cannot know. It says so, by the mark
//! `maybe_dup`, and an application looks into its own books. Handed out again with the mark is therefore *again*, and no
//! offence; without it, or twice by one hub, is *doubled*.

use bowline::{Outcome, Path};
use bowline_transport::Settlement;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::ledger::percentile;

/// Which prediction: of which miner, and its number.
pub(super) type Id = (usize, u32);

/// One hand-over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Handed {
    hub: u32,
    marked: bool,
}

/// The history of one prediction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Entry {
    accepted: bool,
    /// The validator will say no to it.
    bad: bool,
    settled: Option<Settlement>,
    handed: Vec<Handed>,
}

impl Entry {
    /// Handed out again by the same hub, or by a later one that passed it off as new.
    fn doubled(&self) -> bool {
        let later = self.handed.iter().zip(self.handed.iter().skip(1));
        let mut later = later.map(|(before, after)| (before.hub, after));
        later.any(|(before, after)| before == after.hub || !after.marked)
    }

    /// What is wrong with it, if anything is. What was interrupted may be unfinished.
    fn offence(&self, interrupted: bool) -> Option<String> {
        if self.doubled() {
            return Some(format!("handed out {} times", self.handed.len()));
        }
        if !self.accepted {
            return Some("handed out, but was never accepted".into());
        }
        match self.settled.map(|settlement| settlement.outcome) {
            Some(Outcome::Delivered { .. }) if self.handed.is_empty() => Some("confirmed, but never handed out".into()),
            Some(Outcome::Delivered { .. }) if self.bad => Some("confirmed, though the validator said no".into()),
            Some(Outcome::Rejected(_)) if !self.bad => Some("rejected, though the validator said yes".into()),
            Some(Outcome::Delivered { .. } | Outcome::Rejected(_)) => None,
            _ if interrupted => None,
            Some(outcome) => Some(format!("ended as {outcome:?}")),
            None => Some("never came to an end".into()),
        }
    }
}

#[derive(Debug, Default)]
struct Books {
    predictions: BTreeMap<Id, Entry>,
    /// Updates by miner, and how late each was.
    updates: BTreeSet<(usize, u64)>,
    updates_twice: u64,
    late: Vec<Duration>,
}

/// The histories of all predictions and updates.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Books>);

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The miner has taken it.
    pub(super) fn accepted(&self, id: Id, bad: bool) {
        let mut books = self.books();
        let entry = books.predictions.entry(id).or_default();
        (entry.accepted, entry.bad) = (true, bad);
    }

    /// The miner was told its end.
    pub(super) fn settled(&self, id: Id, settlement: Settlement) {
        self.books().predictions.entry(id).or_default().settled = Some(settlement);
    }

    /// The validator's application was given it, by this hub.
    pub(super) fn handed(&self, id: Id, hub: u32, marked: bool) {
        self.books().predictions.entry(id).or_default().handed.push(Handed { hub, marked });
    }

    /// A miner was given an update, so long after it was published.
    pub(super) fn updated(&self, miner: usize, number: u64, late: Duration) {
        let mut books = self.books();
        if books.updates.insert((miner, number)) {
            books.late.push(late);
        } else {
            books.updates_twice += 1;
        }
    }

    /// The verdict.
    pub(super) fn judge(&self, interrupted: bool) -> Judgement {
        let books = self.books();
        let entries = &books.predictions;
        let count = |holds: &dyn Fn(&Entry) -> bool| entries.values().filter(|entry| holds(entry)).count();
        let ended = |entry: &Entry| entry.settled.map(|settlement| settlement.outcome);
        let by = |path| count(&|entry| ended(entry) == Some(Outcome::Delivered { path }));
        let rejected = count(&|entry| matches!(ended(entry), Some(Outcome::Rejected(_))));
        let (by_websocket, by_http) = (by(Path::WebSocket), by(Path::Http));
        let accepted = count(&|entry| entry.accepted);
        let sorted = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times
        };
        let took = sorted(entries.values().filter_map(|entry| Some(entry.settled?.took)).collect());
        let late = sorted(books.late.clone());
        let offences = entries.iter().filter_map(|(id, entry)| Some((name(*id), entry.offence(interrupted)?)));
        Judgement {
            accepted,
            by_websocket,
            by_http,
            rejected,
            unfinished: accepted - by_websocket - by_http - rejected,
            handed: entries.values().map(|entry| entry.handed.len()).sum(),
            lost: if interrupted { 0 } else { count(&|entry| entry.accepted && entry.handed.is_empty()) },
            doubled: count(&Entry::doubled),
            again: count(&|entry| entry.handed.len() > 1 && !entry.doubled()),
            p50: percentile(&took, 50),
            p99: percentile(&took, 99),
            updates: books.updates.len(),
            updates_twice: books.updates_twice,
            updates_p50: percentile(&late, 50),
            offences: offences.collect(),
        }
    }
}

/// A prediction's id on the wire.
pub(super) fn name((miner, number): Id) -> String {
    format!("m{miner}_{number}")
}

/// The prediction of this id.
pub(super) fn id(name: &str) -> Option<Id> {
    let (miner, number) = name.strip_prefix('m')?.split_once('_')?;
    Some((miner.parse().ok()?, number.parse().ok()?))
}

/// What the ledger says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Judgement {
    /// Predictions that miners took.
    pub(super) accepted: usize,
    /// Of these, confirmed over the WebSocket.
    pub(super) by_websocket: usize,
    /// Of these, confirmed by HTTP.
    pub(super) by_http: usize,
    /// Of these, rejected by the validator's application.
    pub(super) rejected: usize,
    /// Of these, without an end, or given up.
    pub(super) unfinished: usize,
    /// Hand-overs to the application.
    pub(super) handed: usize,
    /// Accepted and never handed out; unknown after an interruption.
    pub(super) lost: usize,
    /// Handed out again by one hub, or by a later one without the mark.
    pub(super) doubled: usize,
    /// Handed out again by a later hub, with the mark.
    pub(super) again: usize,
    /// From acceptance to the end.
    pub(super) p50: Duration,
    /// From acceptance to the end.
    pub(super) p99: Duration,
    /// Updates that arrived, each at one miner.
    pub(super) updates: usize,
    /// … more than once.
    pub(super) updates_twice: u64,
    /// From publishing to arrival.
    pub(super) updates_p50: Duration,
    /// What is wrong, by prediction.
    pub(super) offences: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::Rejection;

    fn end(outcome: Outcome) -> Settlement {
        Settlement { outcome, took: Duration::from_millis(5), reason: None }
    }

    const BY_HTTP: Outcome = Outcome::Delivered { path: Path::Http };

    fn judged(write: impl FnOnce(&Ledger)) -> Judgement {
        let ledger = Ledger::default();
        write(&ledger);
        ledger.judge(false)
    }

    #[test]
    fn what_a_new_hub_hands_out_again_is_no_offence_if_it_says_so() {
        let marked = |marked| {
            judged(|ledger| {
                ledger.handed((1, 2), 1, false);
                ledger.accepted((1, 2), false);
                ledger.handed((1, 2), 2, marked);
                ledger.settled((1, 2), end(BY_HTTP));
            })
        };
        let honest = marked(true);
        assert_eq!((honest.again, honest.doubled, honest.lost, honest.handed), (1, 0, 0, 2));
        assert_eq!((honest.offences.len(), honest.by_http, honest.unfinished), (0, 1, 0));
        let pretending = marked(false);
        assert_eq!((pretending.again, pretending.doubled, pretending.offences.len()), (0, 1, 1));
    }

    #[test]
    fn every_offence_is_found() {
        let good = |ledger: &Ledger| ledger.accepted((0, 0), false);
        type Write = Box<dyn FnOnce(&Ledger)>;
        let cases: [(&str, Write); 7] = [
            (
                "handed out 2 times",
                Box::new(move |ledger| {
                    good(ledger);
                    ledger.handed((0, 0), 1, false);
                    ledger.handed((0, 0), 1, true);
                    ledger.settled((0, 0), end(BY_HTTP));
                }),
            ),
            ("never came to an end", Box::new(good)),
            (
                "ended as Abandoned",
                Box::new(move |ledger| {
                    good(ledger);
                    ledger.settled((0, 0), end(Outcome::Abandoned));
                }),
            ),
            (
                "confirmed, but never",
                Box::new(move |ledger| {
                    good(ledger);
                    ledger.settled((0, 0), end(BY_HTTP));
                }),
            ),
            ("never accepted", Box::new(|ledger| ledger.handed((0, 0), 1, false))),
            (
                "said yes",
                Box::new(move |ledger| {
                    good(ledger);
                    ledger.handed((0, 0), 1, false);
                    ledger.settled((0, 0), end(Outcome::Rejected(Rejection::ByPeer)));
                }),
            ),
            (
                "said no",
                Box::new(|ledger| {
                    ledger.accepted((0, 0), true);
                    ledger.handed((0, 0), 1, false);
                    ledger.settled((0, 0), end(BY_HTTP));
                }),
            ),
        ];
        for (words, write) in cases {
            let judgement = judged(write);
            assert_eq!(judgement.offences.len(), 1, "{words}");
            assert!(judgement.offences[0].1.contains(words), "{words}: {:?}", judgement.offences);
        }
    }

    #[test]
    fn an_interruption_leaves_unfinished_and_not_lost_and_updates_are_counted_once() {
        let ledger = Ledger::default();
        ledger.accepted((3, 4), false);
        ledger.updated(1, 1, Duration::ZERO);
        ledger.updated(1, 1, Duration::ZERO);
        ledger.updated(2, 1, Duration::ZERO);
        let judgement = ledger.judge(true);
        assert_eq!((judgement.unfinished, judgement.lost, judgement.offences.len()), (1, 0, 0));
        assert_eq!((judgement.updates, judgement.updates_twice), (2, 1));
        assert_eq!((name((3, 4)), id("m3_4"), id("m3"), id("3_4")), ("m3_4".into(), Some((3, 4)), None, None));
    }
}
