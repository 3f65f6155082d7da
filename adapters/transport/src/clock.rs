//! Time for the machines: the system's monotonic clock, counted from a start of our own.

use bowline::Instant;
use core::time::Duration;

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
