//! A limit on the events that strangers can cause: how often the application is told of them.
//!
//! Invariant: what is not told is counted, and the next that is told says how many there were. Rule: E4.

use bowline::Instant;
use bowline::hub::{Gcra, Rate};

/// Sixteen at once, which a person can read, then one a second.
const TOLD: Rate = Rate { per_second: 1, burst: 16 };

/// A limit of what is told.
#[derive(Debug, Default)]
pub(super) struct TellLimit {
    told: Gcra,
    untold: u64,
}

impl TellLimit {
    /// One more happened. How many were not told since the last that was, if this one is to be told.
    pub(super) fn next(&mut self, now: Instant) -> Option<u64> {
        if self.told.take(now, TOLD, 1).is_ok() {
            return Some(core::mem::take(&mut self.untold));
        }
        self.untold = self.untold.saturating_add(1);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn e4_what_is_not_told_is_counted() {
        let (mut limit, start) = (TellLimit::default(), Instant::ZERO);
        let told: Vec<_> = (0..1000).filter_map(|_| limit.next(start)).collect();
        assert_eq!(told, [0; 16]);
        assert_eq!(limit.next(start.after(Duration::from_secs(1))), Some(984));
        assert_eq!(limit.next(start.after(Duration::from_secs(1))), None);
        assert_eq!(limit.next(start.after(Duration::from_secs(3600))), Some(1));
    }
}
