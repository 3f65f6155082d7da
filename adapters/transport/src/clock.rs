//! Time for the machines: the system's monotonic clock, counted from a start of our own, and whether time stood still.
//!
//! Decided here: whether this process missed time, by comparing clocks. What follows from that is the session's. Field bug:
//! a monotonic clock that stands still while the machine is suspended, so that its peer, gone meanwhile, was missed for
//! five minutes. Rules: L6, L14.

use bowline::Instant;
use core::time::Duration;
use std::time::SystemTime;

/// A clock that began when it was made.
///
/// ```
/// use bowline_transport::Clock;
/// let clock = Clock::start();
/// let before = clock.now();
/// assert!(clock.now() >= before);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

impl Clock {
    /// Begins to count.
    #[must_use]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The time since the start, in whole microseconds.
    #[must_use]
    pub fn now(self) -> Instant {
        Instant::ZERO.after(self.0.elapsed())
    }

    /// A point of the machines' time as one of the system's, a microsecond late rather than early: a wait that ends
    /// before its deadline would spin.
    #[must_use]
    pub fn system(self, at: Instant) -> Option<std::time::Instant> {
        self.0.checked_add(at.since(Instant::ZERO) + Duration::from_micros(1))
    }
}

/// How far the time of something that was signed is from the time here, both in microseconds since the epoch, in words.
#[cfg(any(feature = "hub", feature = "sr25519"))]
pub(crate) fn apart(signed: i64, here: i64) -> String {
    let seconds = here.abs_diff(signed).saturating_add(500_000) / 1_000_000;
    if signed > here { format!("{seconds} s ahead of") } else { format!("{seconds} s behind") }
}

/// How often an adapter looks at its clocks at least. A timer of the system's stands still with the machine, so without
/// this the rest of a long wait would still be waited for after a suspension.
const LOOK: Duration = Duration::from_secs(5);

/// A smaller difference of the clocks is a delay of the system or a correction of a clock.
const GAP: Duration = Duration::from_secs(3);

/// What two clocks say in one moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Does not go back, and on most systems stands still while the machine is suspended.
    monotonic: std::time::Instant,
    /// Goes on meanwhile, and may be set.
    wall: SystemTime,
}

impl Reading {
    fn now() -> Self {
        Self { monotonic: std::time::Instant::now(), wall: SystemTime::now() }
    }
}

/// Finds out that time stood still for this process (L14): the wall clock has run on where the monotonic one has not, or
/// the adapter comes much later than it wanted to. What follows is the session's to decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standstill {
    last: Reading,
    /// When the adapter wanted to come again.
    planned: Option<std::time::Instant>,
}

impl Standstill {
    pub(crate) fn new() -> Self {
        Self { last: Reading::now(), planned: None }
    }

    /// `Some` if time stood still since the last look: how much of it the monotonic clock has not counted. A wall clock
    /// that was set looks the same, and costs one question.
    pub(crate) fn look(&mut self) -> Option<Duration> {
        self.compare(Reading::now())
    }

    fn compare(&mut self, now: Reading) -> Option<Duration> {
        let counted = now.monotonic.saturating_duration_since(self.last.monotonic);
        // What the wall clock has gained on the monotonic one, or lost.
        let (gained, lost) = match now.wall.duration_since(self.last.wall) {
            Ok(passed) => (passed.saturating_sub(counted), counted.saturating_sub(passed)),
            Err(back) => (Duration::ZERO, back.duration().saturating_add(counted)),
        };
        let late = self.planned.is_some_and(|planned| now.monotonic.saturating_duration_since(planned) > GAP);
        self.last = now;
        self.planned = None;
        let unseen = if gained > GAP { gained } else { Duration::ZERO };
        (gained.max(lost) > GAP || late).then_some(unseen)
    }

    /// When the adapter is to come again: at `due`, but soon enough to look at the clocks.
    pub(crate) fn plan(&mut self, due: Option<std::time::Instant>) -> Option<std::time::Instant> {
        let look = self.last.monotonic.checked_add(LOOK);
        self.planned = [due, look].into_iter().flatten().min();
        self.planned
    }

    /// For tests: as if the machine had been suspended for `span` since the last look.
    #[cfg(test)]
    pub(crate) fn suspended(&mut self, span: Duration) {
        self.last.wall -= span;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A watch that looked when both clocks said 0, and a function of what they say after a time.
    fn looked(due: Option<Duration>) -> (Standstill, impl Fn(Duration, i64) -> Reading) {
        let start = Reading { monotonic: std::time::Instant::now(), wall: SystemTime::UNIX_EPOCH + 1_000_000 * SECOND };
        let mut watch = Standstill { last: start, planned: None };
        watch.plan(due.map(|due| start.monotonic + due));
        let at = move |counted: Duration, gained: i64| {
            let wall = start.wall + counted;
            let gain = Duration::from_secs(gained.unsigned_abs());
            Reading { monotonic: start.monotonic + counted, wall: if gained < 0 { wall - gain } else { wall + gain } }
        };
        (watch, at)
    }

    #[test]
    fn l14_a_suspension_a_stop_and_a_restored_machine_are_found_and_nothing_else() {
        let found = |due, counted, gained| {
            let (mut watch, at) = looked(due);
            watch.compare(at(counted, gained))
        };
        assert_eq!(found(None, 5 * SECOND, 0), None, "in time");
        assert_eq!(found(None, 7 * SECOND, 0), None, "a slow system");
        assert_eq!(found(Some(SECOND), SECOND, 3), None, "a correction");
        assert_eq!(found(None, 5 * SECOND, 600), Some(600 * SECOND), "suspended for ten minutes");
        assert_eq!(found(None, Duration::ZERO, 86_400), Some(86_400 * SECOND));
        assert_eq!(found(None, 60 * SECOND, 0), Some(Duration::ZERO), "stopped, and both clocks went on");
        assert_eq!(found(Some(SECOND), 5 * SECOND, 0), Some(Duration::ZERO), "late for a deadline");
        assert_eq!(
            found(None, 5 * SECOND, -3600),
            Some(Duration::ZERO),
            "restored, or set back: asked, nothing shortened"
        );
        assert_eq!(found(None, 5 * SECOND, -30), Some(Duration::ZERO));
    }

    #[test]
    fn l14_a_gap_is_told_once_and_the_clocks_are_looked_at_every_five_seconds() {
        let (mut watch, at) = looked(Some(3600 * SECOND));
        let start = watch.last.monotonic;
        assert_eq!(watch.planned, Some(start + LOOK), "nothing is due for an hour");
        assert!(watch.compare(at(60 * SECOND, 600)).is_some());
        assert_eq!(watch.compare(at(61 * SECOND, 600)), None);
        assert_eq!(watch.plan(Some(start + 62 * SECOND)), Some(start + 62 * SECOND));
        assert_eq!(watch.plan(None), Some(start + 66 * SECOND));
    }
}
