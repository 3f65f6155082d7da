//! Virtual time: what is due when, in the order in which it was put down.

use bowline::Instant;
use core::time::Duration;
use std::collections::BTreeMap;

/// So many milliseconds.
#[must_use]
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// So many seconds.
#[must_use]
pub const fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The instant that lies `since_start` after the beginning of the world.
#[must_use]
pub fn at(since_start: Duration) -> Instant {
    Instant::ZERO.after(since_start)
}

/// A list of things to come; two for the same instant come in the order in which they were put down.
#[derive(Debug)]
pub struct Agenda<T> {
    now: Instant,
    next: u64,
    entries: BTreeMap<(Instant, u64), T>,
}

impl<T> Agenda<T> {
    /// An empty one at the beginning of time.
    #[must_use]
    pub const fn new() -> Self {
        Self { now: Instant::ZERO, next: 0, entries: BTreeMap::new() }
    }

    /// The present.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Moves the present.
    ///
    /// # Panics
    /// If something due would be passed over, or time would go backwards.
    pub fn advance(&mut self, to: Instant) {
        assert!(to >= self.now && self.next().is_none_or(|due| due >= to), "the world skips nothing");
        self.now = to;
    }

    /// Puts something down for an instant; what lies in the past is due now.
    pub fn put(&mut self, when: Instant, what: T) {
        self.entries.insert((when.max(self.now), self.next), what);
        self.next += 1;
    }

    /// Puts something down for so much later than now.
    pub fn put_in(&mut self, after: Duration, what: T) {
        self.put(self.now.after(after), what);
    }

    /// When the next thing is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|((when, _), _)| *when)
    }

    /// The next thing, if it is due now.
    pub fn take(&mut self) -> Option<T> {
        let entry = self.entries.first_entry().filter(|entry| entry.key().0 <= self.now)?;
        Some(entry.remove())
    }
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self::new()
    }
}
