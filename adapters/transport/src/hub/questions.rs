//! What is being found out at `authorize`, so that a word that comes meanwhile is not lost.
//!
//! ```text
//!  open ─▶ authorize … ─▶ its answer, if the question still stands ─▶ applied under the engine's lock
//!             └─ dismiss: every question about this peer falls
//! ```
//!
//! Invariant: whoever dismisses makes questions fall before it takes the engine's lock, and whoever applies an answer asks
//! under that lock whether it stands; so of the two, the dismissal wins in every order.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The peers that are asked about, by question; as many as there are newcomers and requests, which are limited.
pub(super) struct Questions<P>(Mutex<Open<P>>);

struct Open<P> {
    last: u64,
    about: BTreeMap<u64, P>,
}

/// One question; over when it is dropped.
pub(super) struct Question<'a, P> {
    of: &'a Questions<P>,
    number: u64,
}

impl<P: PartialEq> Questions<P> {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Open { last: 0, about: BTreeMap::new() }))
    }

    pub(super) fn open(&self, peer: P) -> Question<'_, P> {
        let mut open = self.lock();
        open.last = open.last.saturating_add(1);
        let number = open.last;
        open.about.insert(number, peer);
        Question { of: self, number }
    }

    /// No answer about this peer counts that was asked for before.
    pub(super) fn fall(&self, peer: &P) {
        self.lock().about.retain(|_, about| about != peer);
    }
}

impl<P> Questions<P> {
    fn lock(&self) -> MutexGuard<'_, Open<P>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> Question<'_, P> {
    /// Whether its answer still counts.
    pub(super) fn stands(&self) -> bool {
        self.of.lock().about.contains_key(&self.number)
    }
}

impl<P> Drop for Question<'_, P> {
    fn drop(&mut self) {
        self.of.lock().about.remove(&self.number);
    }
}
