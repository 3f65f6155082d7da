//! What became of every message, in each direction, written down by both ends and judged at the end.
//!
//! ```text
//!  sender:    accepted (1, 2, 3 …) ──────────────▶ settled (outcome, path, took)
//!  receiver:            delivered (1, 2, 3 …)
//! ```
//!
//! Decided here: what counts as lost, as doubled and as out of order (G1, G2, S9). Messages are numbered from 1 by the
//! application; the receiver knows from a number, the seed and the direction what the message must say.

use super::super::ledger::percentile;
use super::{Both, Way};
use bowline::{Outcome, Path, SplitMix64};
use bowline_transport::Settlement;
use core::time::Duration;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most bytes that a message has besides its number.
const PADDING: u64 = 240;

/// So many offences are written down in words.
const WRITTEN: usize = 100;

/// One direction's books.
#[derive(Debug, Default)]
struct Page {
    accepted: u64,
    settled: u64,
    by_websocket: u64,
    by_http: u64,
    /// How often each was delivered, by number from 0.
    delivered: Vec<u8>,
    /// The highest that was.
    last: u64,
    distinct: u64,
    doubled: u64,
    disordered: u64,
    altered: u64,
    marked: u64,
    took: Vec<Duration>,
    /// What did not end well, and what it was; not what was interrupted.
    bad: BTreeMap<u64, String>,
}

impl Page {
    fn bad(&mut self, number: u64, why: String) {
        if self.bad.len() < WRITTEN {
            self.bad.entry(number).or_insert(why);
        }
    }
}

#[derive(Deserialize)]
struct Numbered {
    n: u64,
}

/// The books of both directions.
#[derive(Debug)]
pub(super) struct Ledger {
    seed: u64,
    pages: Mutex<Both<Page>>,
}

impl Ledger {
    /// With nothing in it.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, pages: Mutex::default() }
    }

    fn pages(&self) -> MutexGuard<'_, Both<Page>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the message of this number says.
    pub(super) fn message(&self, way: Way, number: u64) -> String {
        let mut rng = SplitMix64::for_identity(self.seed, number << 1 | u64::from(way == Way::ToHub));
        let length = usize::try_from(rng.up_to(PADDING)).unwrap_or_default();
        let mut padding = String::with_capacity(length + 16);
        while padding.len() < length {
            padding.push_str(&format!("{:016x}", rng.next_u64()));
        }
        padding.truncate(length);
        format!(r#"{{"n":{number},"padding":"{padding}"}}"#)
    }

    /// The sender's end has taken it.
    pub(super) fn accepted(&self, way: Way) {
        self.pages().of_mut(way).accepted += 1;
    }

    /// The sender was told its end.
    pub(super) fn settled(&self, way: Way, number: u64, settlement: Settlement) {
        let mut pages = self.pages();
        let page = pages.of_mut(way);
        page.settled += 1;
        match settlement.outcome {
            Outcome::Delivered { path } => {
                *(if path == Path::WebSocket { &mut page.by_websocket } else { &mut page.by_http }) += 1;
                page.took.push(settlement.took);
                let known = usize::try_from(number).ok().and_then(|place| page.delivered.get(place));
                if known.is_none_or(|times| *times == 0) {
                    page.bad(number, "acknowledged, but never delivered".into());
                }
            }
            outcome => page.bad(number, format!("ended as {outcome:?}")),
        }
    }

    /// The receiver's application was given this.
    pub(super) fn delivered(&self, way: Way, data: &[u8], maybe_dup: bool) {
        let number = serde_json::from_slice(data).map_or(0, |Numbered { n }| n);
        let as_sent = self.message(way, number).as_bytes() == data;
        let mut pages = self.pages();
        let page = pages.of_mut(way);
        page.marked += u64::from(maybe_dup);
        if !as_sent || number == 0 {
            page.altered += 1;
            page.bad(number, "arrived, but not as it was sent".into());
            return;
        }
        let Ok(place) = usize::try_from(number) else { return };
        if page.delivered.len() <= place {
            page.delivered.resize(place + 1, 0);
        }
        let Some(times) = page.delivered.get_mut(place) else { return };
        *times = times.saturating_add(1);
        if *times > 1 {
            page.doubled += 1;
            page.bad(number, "delivered again".into());
            return;
        }
        page.distinct += 1;
        if number != page.last + 1 {
            page.disordered += 1;
            let last = page.last;
            page.bad(number, format!("delivered after {last}"));
        }
        page.last = page.last.max(number);
    }

    /// How many were delivered, and how many have not ended.
    pub(super) fn progress(&self, way: Way) -> (u64, u64) {
        let pages = self.pages();
        let page = pages.of(way);
        (page.distinct, page.accepted - page.settled)
    }

    /// The verdict about one direction.
    pub(super) fn judge(&self, way: Way, interrupted: bool) -> Judgement {
        let pages = self.pages();
        let page = pages.of(way);
        let mut took = page.took.clone();
        took.sort_unstable();
        let missing = page.accepted.saturating_sub(page.distinct);
        let excused = |why: &str| interrupted && why.starts_with("ended as");
        let offences = page.bad.iter().filter(|(_, why)| !excused(why));
        let mut offences: Vec<_> = offences.map(|(number, why)| (way, *number, why.clone())).collect();
        if !interrupted {
            let seen = |number: u64| usize::try_from(number).ok().and_then(|place| page.delivered.get(place));
            let never = (1..=page.accepted).filter(|number| seen(*number).is_none_or(|times| *times == 0));
            let never = never.filter(|number| !page.bad.contains_key(number)).take(WRITTEN);
            offences.extend(never.map(|number| (way, number, "never delivered".into())));
            if page.settled < page.accepted {
                offences.push((way, page.accepted, format!("{} without an end", page.accepted - page.settled)));
            }
        }
        Judgement {
            accepted: page.accepted,
            by_websocket: page.by_websocket,
            by_http: page.by_http,
            unfinished: page.accepted - page.by_websocket - page.by_http,
            delivered: page.distinct,
            lost: if interrupted { 0 } else { missing },
            doubled: page.doubled,
            disordered: page.disordered,
            altered: page.altered,
            marked: page.marked,
            p50: percentile(&took, 50),
            p99: percentile(&took, 99),
            offences,
        }
    }
}

/// What the ledger says of one direction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Judgement {
    /// Messages the sender's end took.
    pub(super) accepted: u64,
    /// Of these, acknowledged over the WebSocket.
    pub(super) by_websocket: u64,
    /// Of these, acknowledged by HTTP.
    pub(super) by_http: u64,
    /// Of these, not acknowledged.
    pub(super) unfinished: u64,
    /// Of these, delivered.
    pub(super) delivered: u64,
    /// Of these, never delivered; unknown after an interruption.
    pub(super) lost: u64,
    /// Deliveries beyond the first of a message.
    pub(super) doubled: u64,
    /// Not delivered next after the one before.
    pub(super) disordered: u64,
    /// Not as they were sent.
    pub(super) altered: u64,
    /// Marked as perhaps seen before.
    pub(super) marked: u64,
    /// From acceptance to the end.
    pub(super) p50: Duration,
    /// From acceptance to the end.
    pub(super) p99: Duration,
    /// What is wrong, by number; of many the first.
    pub(super) offences: Vec<(Way, u64, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAY: Way = Way::ToHub;
    const END: Settlement =
        Settlement { outcome: Outcome::Delivered { path: Path::Http }, took: Duration::from_millis(5), reason: None };

    /// So many accepted, these delivered in this order, all settled.
    fn judged(accepted: u64, delivered: &[u64], interrupted: bool) -> Judgement {
        let ledger = Ledger::new(7);
        (0..accepted).for_each(|_| ledger.accepted(WAY));
        delivered.iter().for_each(|number| ledger.delivered(WAY, ledger.message(WAY, *number).as_bytes(), false));
        (1..=accepted).for_each(|number| ledger.settled(WAY, number, END));
        ledger.judge(WAY, interrupted)
    }

    #[test]
    fn what_came_once_and_in_order_is_in_order() {
        let all: Vec<u64> = (1..=300).collect();
        let judgement = judged(300, &all, false);
        assert_eq!((judgement.accepted, judgement.delivered, judgement.by_http), (300, 300, 300));
        assert_eq!((judgement.lost, judgement.doubled, judgement.disordered, judgement.unfinished), (0, 0, 0, 0));
        assert_eq!((judgement.offences, judgement.p99), (Vec::new(), Duration::from_millis(5)));
    }

    #[test]
    fn every_offence_is_found() {
        let of = |delivered: &[u64]| {
            let found = judged(3, delivered, false);
            (found.lost, found.doubled, found.disordered, !found.offences.is_empty())
        };
        assert_eq!(of(&[1, 2]), (1, 0, 0, true));
        assert_eq!(of(&[1, 2, 2, 3]), (0, 1, 0, true));
        assert_eq!(of(&[1, 3, 2]), (0, 0, 2, true));
        assert_eq!(of(&[2, 3]), (1, 0, 1, true));
        assert_eq!(of(&[1, 2, 3]), (0, 0, 0, false));
        let ledger = Ledger::new(7);
        ledger.accepted(WAY);
        ledger.delivered(WAY, br#"{"n":1,"padding":"no"}"#, true);
        ledger.settled(WAY, 1, Settlement { outcome: Outcome::Abandoned, took: Duration::ZERO, reason: None });
        let altered = ledger.judge(WAY, false);
        assert_eq!((altered.altered, altered.marked, altered.lost, altered.unfinished), (1, 1, 1, 1));
        assert!(!altered.offences.is_empty());
    }

    #[test]
    fn what_was_interrupted_is_unfinished_and_not_lost() {
        let ledger = Ledger::new(7);
        ledger.accepted(WAY);
        ledger.settled(WAY, 1, Settlement { outcome: Outcome::Abandoned, took: Duration::ZERO, reason: None });
        let judgement = ledger.judge(WAY, true);
        assert_eq!((judgement.lost, judgement.unfinished, judgement.offences.len()), (0, 1, 0));
    }

    #[test]
    fn messages_are_json_of_all_sizes_and_the_same_for_a_seed() {
        let ledger = Ledger::new(7);
        let lengths: std::collections::BTreeSet<usize> =
            (1..500).map(|number| ledger.message(WAY, number).len()).collect();
        assert!(lengths.len() > 100);
        assert_eq!(ledger.message(WAY, 9), Ledger::new(7).message(WAY, 9));
        assert_ne!(ledger.message(WAY, 9), ledger.message(Way::ToClient, 9));
        assert!(serde_json::from_str::<serde_json::Value>(&ledger.message(WAY, 9)).is_ok());
    }
}
