//! What is being found out at `authorize`, so that a word that comes meanwhile is not lost.
//!
//! ```text
//!  open ─▶ authorize … ─▶ its answer, if the question still stands ─▶ applied under the engine's lock
//!             └─ dismiss: every question about this hotkey falls
//! ```
//!
//! Invariant: whoever dismisses makes questions fall before it takes the engine's lock, and whoever applies an answer asks
//! under that lock whether it stands; so of the two, the dismissal wins in every order.

use crate::keys::Hotkey;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The hotkeys that are asked about, by question; as many as there are newcomers and requests, which are limited.
#[derive(Default)]
pub(super) struct Questions(Mutex<Open>);

#[derive(Default)]
struct Open {
    last: u64,
    about: BTreeMap<u64, Hotkey>,
}

/// One question; over when it is dropped.
pub(super) struct Question<'a> {
    of: &'a Questions,
    number: u64,
}

impl Questions {
    pub(super) fn open(&self, hotkey: Hotkey) -> Question<'_> {
        let mut open = self.lock();
        open.last = open.last.saturating_add(1);
        let number = open.last;
        open.about.insert(number, hotkey);
        Question { of: self, number }
    }

    /// No answer about this hotkey counts that was asked for before.
    pub(super) fn fall(&self, hotkey: Hotkey) {
        self.lock().about.retain(|_, about| *about != hotkey);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question<'_> {
    /// Whether its answer still counts.
    pub(super) fn stands(&self) -> bool {
        self.of.lock().about.contains_key(&self.number)
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.of.lock().about.remove(&self.number);
    }
}
