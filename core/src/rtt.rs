//! How long to wait for an acknowledgement.
//!
//! ```text
//! estimate = srtt + max(4 · rttvar, 10 ms)        srtt += (sample − srtt) / 8      rttvar += (|sample − srtt| − rttvar) / 4
//! wait     = fixed                                 AckWait::Fixed
//!          = max(first, estimate) · 2^late, ≤ most  Adaptive, fewer than 8 samples
//!          = clamp(estimate · 2^late, least, most) Adaptive
//! ```
//!
//! RFC 6298 in integers of microseconds. A plain peer acknowledges completion, so here a sample is the time the peer's
//! application took (rule T2); `least` is the caller's budget and is never lowered by the estimate (rule T6).
//!
//! Invariants: a fixed wait stays what it is; a wait is never zero; the doubling ends with the next acknowledgement in
//! time, or with the connection.
//! Field bugs: a first wait of 3 s for a receiver whose work takes 12 s: seven copies, none delivered; a mean that falls
//! to zero because a receiver that works side by side answers all of a burst at once.
//! Rules: L11, T1, T2, T6, T7. T3, T5, T8 (which acknowledgements are samples, and when a wait begins) are the
//! [`Outbox`](crate::Outbox)'s.

use crate::time::micros;
use core::time::Duration;

/// The wait for an acknowledgement on a connection, before the message is thought unanswered.
///
/// ```
/// use bowline::AckWait;
/// use core::time::Duration;
/// assert_eq!(AckWait::ADAPTIVE.longest(), Duration::from_secs(120));
/// assert_eq!(AckWait::Fixed(Duration::from_secs(3)).longest(), Duration::from_secs(3));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AckWait {
    /// Always this.
    Fixed(Duration),
    /// `first`, or the estimate if that is longer, until eight samples exist; then the estimate between `least` and `most`.
    Adaptive {
        /// Before the estimate means anything.
        first: Duration,
        /// The caller's budget: the wait is never shorter.
        least: Duration,
        /// The wait is never longer.
        most: Duration,
    },
}

impl AckWait {
    /// For a peer that acknowledges completion: first 45 s, then 35 s to 120 s (rule T7). The first is longer than the work
    /// of any receiver we met (30 s) and shorter than the read deadline of the original Go client (60 s); so is the
    /// least, for quick answers do not say that the next one is quick, and a receiver may not know a copy; the most is a long
    /// outage.
    pub const ADAPTIVE: Self = Self::Adaptive {
        first: Duration::from_secs(45),
        least: Duration::from_secs(35),
        most: Duration::from_secs(120),
    };

    /// For a peer that answers at arrival, by marks or a pong: first 1 s, then 200 ms to 60 s (rule T7).
    pub const ARRIVAL: Self = Self::Adaptive {
        first: Duration::from_secs(1),
        least: Duration::from_millis(200),
        most: Duration::from_secs(60),
    };

    /// The longest wait this can come to.
    #[must_use]
    pub const fn longest(self) -> Duration {
        match self {
            Self::Fixed(wait) => wait,
            Self::Adaptive { most, .. } => most,
        }
    }
}

/// Estimates from samples.
///
/// ```
/// use bowline::{AckWait, Rtt};
/// use core::time::Duration;
/// let mut rtt = Rtt::new(AckWait::ARRIVAL);
/// assert_eq!(rtt.wait(), Duration::from_secs(1));
/// for _ in 0..8 {
///     rtt.sample(Duration::from_millis(400));
/// }
/// assert!(rtt.wait() < Duration::from_secs(1));
/// assert!(rtt.estimate() >= Some(Duration::from_millis(400)));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rtt {
    mode: AckWait,
    /// Smoothed time, in eighths of a microsecond.
    srtt8: u64,
    /// Smoothed deviation, in quarters of a microsecond.
    var4: u64,
    samples: u8,
    late: u8,
}

/// The lowest rate of a link that counts as a working one, in bytes per second: 64 kB/s, half a megabit (L11).
pub const LOWEST_RATE: u64 = 64_000;

/// The time that this many bytes may need at [`LOWEST_RATE`], in whole milliseconds (L11, T7).
pub(crate) const fn transfer_time(bytes: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000) / LOWEST_RATE)
}

/// Before so many samples the estimate means nothing (rule T1).
const ENOUGH: u8 = 8;

impl Rtt {
    /// An estimator without samples.
    #[must_use]
    pub const fn new(mode: AckWait) -> Self {
        Self { mode, srtt8: 0, var4: 0, samples: 0, late: 0 }
    }

    /// A message sent once on a live connection was acknowledged after this time.
    pub fn sample(&mut self, took: Duration) {
        // Longer than a day is a fault of somebody's; it must not overflow the scaled sums.
        let took = micros(took.min(Duration::from_secs(86_400)));
        if self.samples == 0 {
            self.srtt8 = took.saturating_mul(8);
            self.var4 = took.saturating_mul(2);
        } else {
            let off = (self.srtt8 / 8).abs_diff(took);
            self.var4 = self.var4.saturating_sub(self.var4 / 4).saturating_add(off);
            self.srtt8 = self.srtt8.saturating_sub(self.srtt8 / 8).saturating_add(took);
        }
        self.samples = self.samples.saturating_add(1);
        self.late = 0;
    }

    /// The peer took no less than `least` and no more than `most`: other messages were before this one, and when its work on
    /// it began is not known. What fits the mean best is the sample.
    pub fn sample_within(&mut self, least: Duration, most: Duration) {
        if self.samples > 0 {
            let mean = Duration::from_micros(self.srtt8 / 8);
            self.sample(mean.min(most).max(least));
        }
        self.late = 0;
    }

    /// A wait passed without an acknowledgement: the next ones are twice as long.
    pub const fn late(&mut self) {
        self.late = self.late.saturating_add(1);
    }

    /// The connection ended: the next one's peer has been late with nothing.
    pub const fn link_down(&mut self) {
        self.late = 0;
    }

    /// The wait in force.
    #[must_use]
    pub fn wait(&self) -> Duration {
        match self.mode {
            AckWait::Fixed(wait) => wait,
            AckWait::Adaptive { first, least, most } => {
                let start = match self.estimate() {
                    Some(estimate) if self.samples >= ENOUGH => estimate,
                    // Few say little of how fast the peer is, but that it is slow.
                    Some(estimate) => estimate.max(first),
                    None => first,
                };
                // In microseconds: `Duration`'s own arithmetic and `clamp` leave panic branches in the binary (G10).
                let factor = 1_u64.checked_shl(u32::from(self.late)).unwrap_or(u64::MAX);
                Duration::from_micros(micros(start).saturating_mul(factor)).max(least).min(most)
            }
        }
    }

    /// What the samples say by themselves, whatever is in force; `None` without samples (rule T6).
    #[must_use]
    pub fn estimate(&self) -> Option<Duration> {
        let four_var = self.var4.max(10_000);
        (self.samples > 0).then(|| Duration::from_micros((self.srtt8 / 8).saturating_add(four_var)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn t1_a_steady_peer_narrows_the_wait_to_its_time_and_ten_milliseconds() {
        let mut rtt = Rtt::new(AckWait::ARRIVAL);
        for _ in 0..100 {
            rtt.sample(500 * MS);
        }
        assert!(rtt.wait() >= 510 * MS && rtt.wait() < 520 * MS, "{:?}", rtt.wait());
    }

    #[test]
    fn t1_each_expiry_doubles_and_a_sample_ends_it() {
        let mut rtt = Rtt::new(AckWait::ARRIVAL);
        rtt.late();
        assert_eq!(rtt.wait(), Duration::from_secs(2));
        for _ in 0..60 {
            rtt.late();
        }
        assert_eq!(rtt.wait(), Duration::from_secs(60));
        rtt.sample(MS);
        assert_eq!(rtt.wait(), Duration::from_secs(1));
    }

    #[test]
    fn t1_nothing_is_concluded_from_fewer_than_eight_samples() {
        let mut rtt = Rtt::new(AckWait::ARRIVAL);
        for _ in 0..7 {
            rtt.sample(300 * MS);
            assert_eq!(rtt.wait(), Duration::from_secs(1));
        }
        rtt.sample(300 * MS);
        assert_ne!(rtt.wait(), Duration::from_secs(1));
    }

    #[test]
    fn t1_a_peer_slower_than_the_first_wait_is_believed_at_once() {
        let mut rtt = Rtt::new(AckWait::ADAPTIVE);
        rtt.late();
        rtt.sample(Duration::from_secs(50));
        assert!(rtt.wait() > Duration::from_secs(60), "{:?}", rtt.wait());
    }

    #[test]
    fn t1_the_doubling_does_not_outlive_the_connection() {
        let mut rtt = Rtt::new(AckWait::ADAPTIVE);
        rtt.late();
        rtt.link_down();
        assert_eq!(rtt.wait(), Duration::from_secs(45));
    }

    #[test]
    fn t6_a_callers_budget_is_never_lowered_and_both_are_reported() {
        let least = Duration::from_secs(3);
        let mut rtt = Rtt::new(AckWait::Adaptive { first: least, least, most: Duration::from_secs(30) });
        for _ in 0..50 {
            rtt.sample(10 * MS);
        }
        assert_eq!(rtt.wait(), least);
        assert!(rtt.estimate().unwrap() < 50 * MS);
        let mut fixed = Rtt::new(AckWait::Fixed(least));
        fixed.sample(Duration::MAX);
        fixed.late();
        assert_eq!(fixed.wait(), least);
    }

    #[test]
    fn t1_a_slow_and_uneven_peer_widens_the_wait() {
        let mut rtt = Rtt::new(AckWait::ARRIVAL);
        for n in 0..100_u32 {
            rtt.sample((1 + n % 2 * 4) * 1000 * MS);
        }
        assert!(rtt.wait() > Duration::from_secs(5), "{:?}", rtt.wait());
    }

    #[test]
    fn t2_a_burst_answered_at_once_does_not_lower_the_mean() {
        let mut rtt = Rtt::new(AckWait::ARRIVAL);
        rtt.sample_within(Duration::ZERO, 500 * MS);
        assert_eq!(rtt.estimate(), None, "with nothing to compare it with");
        rtt.sample(500 * MS);
        rtt.late();
        for _ in 0..63 {
            rtt.sample_within(Duration::ZERO, 500 * MS);
        }
        assert!(rtt.wait() >= 500 * MS && rtt.wait() < 520 * MS, "{:?}", rtt.wait());
        rtt.sample_within(2000 * MS, 3000 * MS);
        assert!(rtt.wait() > 1000 * MS, "it is slower than it was");
        for _ in 0..63 {
            rtt.sample_within(Duration::ZERO, 100 * MS);
        }
        assert!(rtt.estimate() < Some(150 * MS), "or faster: {:?}", rtt.estimate());
    }

    #[test]
    fn l11_t7_bytes_are_given_the_time_of_the_slowest_link() {
        assert_eq!(transfer_time(0), Duration::ZERO);
        assert_eq!(transfer_time(3 << 20), Duration::from_millis(49_152));
        assert!(transfer_time(u64::MAX) > transfer_time(1 << 40));
    }
}
