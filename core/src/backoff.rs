//! How long to wait before the next attempt.
//!
//! ```text
//! delay(n) = max(floor, hint) + draw        n = failures in a row, from 0
//! draw     = U(0, d)           Jitter::Full     d = min(cap, base · 2ⁿ), the cap before the draw
//!          = d/2 + U(0, d/2)   Jitter::Equal
//! n = 0:     U(0, window) where the window that the server announced is wider than d
//!
//! failing ──next()──▶ n + 1 ──next()──▶ n + 2 …      reset(): n = 0, earned by useful traffic and uptime
//! ```
//!
//! Invariants: the first delay is drawn too; at the cap the delays still spread; a server's hint is a lower bound and at
//! most ten minutes; equal seeds give equal schedules.
//! Field bugs: jitter applied before the cap (Socket.IO: no jitter at all from the fifth attempt), the first retry of a
//! fleet not spread, the counter reset on open although the server drops us at once (120 attempts a minute).
//! Rules: B1, B2, B4, B6, B9; B3 decides when to reset and lives in [`Link`](crate::Link).

use crate::reason::RetryHint;
use crate::rng::SplitMix64;
use crate::time::micros;
use core::time::Duration;

/// How the delay is drawn.
///
/// ```
/// # use bowline::{BackoffConfig, Jitter};
/// assert_eq!(BackoffConfig::DEFAULT.jitter, Jitter::Full);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Jitter {
    /// Anything from 0 to the bound: the widest first draw, which is what lowers the peak of a storm (rule B1).
    Full,
    /// The upper half: never much sooner than half the bound, for peers with a documented minimum (rule B6).
    Equal,
}

/// The shape of the delays.
///
/// ```
/// use bowline::BackoffConfig;
/// use core::time::Duration;
/// let gonka = BackoffConfig::range(Duration::from_secs(3), Duration::from_secs(5));
/// assert_eq!(gonka.floor, Duration::from_secs(3));
/// assert_eq!(gonka.cap, Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BackoffConfig {
    /// Added to every delay. Default 100 ms.
    pub floor: Duration,
    /// The bound of the first draw. Default 1 s.
    pub base: Duration,
    /// The bound that no draw exceeds. Default 30 s; the storm model shows that the cap decides the tail.
    pub cap: Duration,
    /// Default [`Jitter::Full`].
    pub jitter: Jitter,
}

impl BackoffConfig {
    /// `100 ms + U(0, min(30 s, 1 s · 2ⁿ))`, section 4.6 of the rules.
    pub const DEFAULT: Self = Self {
        floor: Duration::from_millis(100),
        base: Duration::from_secs(1),
        cap: Duration::from_secs(30),
        jitter: Jitter::Full,
    };

    /// A constant range: every delay lies between `from` and `to`, whatever came before (Gonka: 3 s to 5 s).
    #[must_use]
    pub const fn range(from: Duration, to: Duration) -> Self {
        let width = to.saturating_sub(from);
        Self { floor: from, base: width, cap: width, jitter: Jitter::Full }
    }

    /// The delay after this number of failures in a row; 0 is the first.
    pub(crate) fn draw(&self, failures: u32, hint: RetryHint, rng: &mut SplitMix64) -> Duration {
        let base = micros(self.base);
        let grown = if failures < u64::BITS { base.saturating_mul(1_u64 << failures) } else { u64::MAX };
        let bound = if base == 0 { 0 } else { grown.min(micros(self.cap)) };
        let window = if failures == 0 { micros(hint.window.min(LONGEST_HINT)) } else { 0 };
        let draw = match self.jitter {
            // All of the window, whatever the jitter: half of it would make the storm twice as high (B2).
            _ if window > bound => rng.up_to(window),
            Jitter::Full => rng.up_to(bound),
            Jitter::Equal => (bound / 2).saturating_add(rng.up_to(bound / 2)),
        };
        let floor = micros(self.floor.max(hint.after.min(LONGEST_HINT)));
        Duration::from_micros(floor.saturating_add(draw))
    }
}

/// Longer hints than this are cut to it (rule B4).
pub(crate) const LONGEST_HINT: Duration = Duration::from_secs(600);

/// Counts failures and draws delays.
///
/// ```
/// use bowline::{Backoff, BackoffConfig, RetryHint, SplitMix64};
/// use core::time::Duration;
/// let mut rng = SplitMix64::new(7);
/// let mut backoff = Backoff::new(BackoffConfig::DEFAULT);
/// let first = backoff.next(RetryHint::NONE, &mut rng);
/// assert!(first <= Duration::from_millis(1_100));
/// assert_eq!(backoff.failures(), 1);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Backoff {
    config: BackoffConfig,
    failures: u32,
    last: Duration,
}

impl Backoff {
    /// A counter at zero.
    #[must_use]
    pub const fn new(config: BackoffConfig) -> Self {
        Self { config, failures: 0, last: Duration::ZERO }
    }

    /// Draws the next delay and counts one failure.
    pub fn next(&mut self, hint: RetryHint, rng: &mut SplitMix64) -> Duration {
        let delay = self.draw(self.failures, self.config.cap, hint, rng);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Draws as `next` does, with another ceiling: a blocked path is probed more and more seldom (rule P1).
    pub fn next_up_to(&mut self, cap: Duration, hint: RetryHint, rng: &mut SplitMix64) -> Duration {
        let delay = self.draw(self.failures, cap, hint, rng);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Draws the delay of a first failure and counts nothing: the peer is not ready, but nothing is wrong.
    pub fn wait(&mut self, hint: RetryHint, rng: &mut SplitMix64) -> Duration {
        self.draw(0, self.config.cap, hint, rng)
    }

    /// Draws at the ceiling, for a long outage or a peer that allows few tries; counts one failure.
    pub fn slowest(&mut self, hint: RetryHint, rng: &mut SplitMix64) -> Duration {
        let delay = self.draw(u32::MAX, self.config.cap, hint, rng);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// Counts further failures without a delay: a busy server asks for more patience.
    pub const fn penalize(&mut self, failures: u32) {
        self.failures = self.failures.saturating_add(failures);
    }

    /// Forgets the failures.
    pub const fn reset(&mut self) {
        self.failures = 0;
        self.last = Duration::ZERO;
    }

    /// Failures since the last reset.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// The last delay drawn: a connection must have lived longer than this to earn a reset (rule B3).
    #[must_use]
    pub const fn last(&self) -> Duration {
        self.last
    }

    fn draw(&mut self, failures: u32, cap: Duration, hint: RetryHint, rng: &mut SplitMix64) -> Duration {
        self.last = BackoffConfig { cap, ..self.config }.draw(failures, hint, rng);
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(config: BackoffConfig, count: usize) -> std::vec::Vec<Duration> {
        let mut rng = SplitMix64::new(1);
        let mut backoff = Backoff::new(config);
        (0..count).map(|_| backoff.next(RetryHint::NONE, &mut rng)).collect()
    }

    #[test]
    fn b1_capped_before_the_draw_so_the_fleet_still_spreads_at_the_cap() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let mut rng = SplitMix64::new(seed);
            let mut backoff = Backoff::new(BackoffConfig::DEFAULT);
            backoff.penalize(50);
            let delay = backoff.next(RetryHint::NONE, &mut rng);
            assert!(delay <= Duration::from_millis(30_100));
            seen.insert(delay.as_secs());
        }
        assert!(seen.len() >= 30, "all of the range is used: {seen:?}");
    }

    #[test]
    fn b1_the_first_delay_is_drawn_too() {
        let first = |seed| Backoff::new(BackoffConfig::DEFAULT).next(RetryHint::NONE, &mut SplitMix64::new(seed));
        let spread: std::collections::BTreeSet<_> = (0..100).map(|seed| first(seed).as_millis() / 100).collect();
        assert!(spread.len() >= 9, "{spread:?}");
    }

    #[test]
    fn b2_the_servers_window_spreads_the_first_attempt_only() {
        let hint = RetryHint { after: Duration::ZERO, window: Duration::from_secs(25) };
        let mut widest = Duration::ZERO;
        for seed in 0..200 {
            let mut rng = SplitMix64::new(seed);
            let mut backoff = Backoff::new(BackoffConfig::DEFAULT);
            widest = widest.max(backoff.next(hint, &mut rng));
            assert!(backoff.next(hint, &mut rng) <= Duration::from_millis(2_100));
        }
        assert!(widest > Duration::from_secs(24));
        assert!(widest <= Duration::from_millis(25_100));
    }

    #[test]
    fn b2_the_servers_window_is_used_whole_by_every_jitter() {
        let equal = BackoffConfig {
            floor: Duration::ZERO,
            base: Duration::from_secs(5),
            jitter: Jitter::Equal,
            ..BackoffConfig::DEFAULT
        };
        let hint = RetryHint { after: Duration::ZERO, window: Duration::from_secs(60) };
        let first = |seed| Backoff::new(equal).next(hint, &mut SplitMix64::new(seed)).as_secs() / 6;
        let tenths: std::collections::BTreeSet<_> = (0..300).map(first).collect();
        assert_eq!(tenths.len(), 10, "{tenths:?}");
        // A window that is narrower than the first draw anyway changes nothing.
        let hint = RetryHint { window: Duration::from_secs(1), ..hint };
        let delay = Backoff::new(equal).next(hint, &mut SplitMix64::new(1));
        assert!(delay >= Duration::from_millis(2_500), "{delay:?}");
    }

    #[test]
    fn b4_a_hint_is_a_lower_bound_and_at_most_ten_minutes() {
        let mut rng = SplitMix64::new(3);
        let mut backoff = Backoff::new(BackoffConfig::DEFAULT);
        let delay = backoff.next(RetryHint::after(Duration::from_secs(7)), &mut rng);
        assert!(delay >= Duration::from_secs(7) && delay <= Duration::from_secs(8));
        let mut backoff = Backoff::new(BackoffConfig::DEFAULT);
        let delay = backoff.next(RetryHint::after(Duration::MAX), &mut rng);
        assert!(delay >= LONGEST_HINT && delay <= LONGEST_HINT + Duration::from_secs(1));
    }

    /// The larger of both would do for each client, and bring all of them back in one moment.
    #[test]
    fn b4_the_draw_comes_on_top_of_the_hint() {
        let fleet = |hint: RetryHint, failures: u32| {
            let back = (0..200).map(|seed| {
                let mut backoff = Backoff::new(BackoffConfig::DEFAULT);
                backoff.penalize(failures);
                (backoff.next(hint, &mut SplitMix64::new(seed)) - hint.after).as_millis() / 100
            });
            back.collect::<std::collections::BTreeSet<_>>()
        };
        for after in [1, 7, 60, 600] {
            let hint = RetryHint::after(Duration::from_secs(after));
            assert_eq!(fleet(hint, 0).len(), 10, "the first draw is up to 1 s, after {after} s");
            assert!(fleet(hint, 5).len() > 100, "a later one up to 30 s, after {after} s");
            let spread = RetryHint { window: Duration::from_secs(30), ..hint };
            assert!(fleet(spread, 0).len() > 100, "B2: the window begins when the hint is over, after {after} s");
        }
    }

    #[test]
    fn b6_gonkas_range_never_grows() {
        let range = BackoffConfig::range(Duration::from_secs(3), Duration::from_secs(5));
        for delay in delays(range, 100) {
            assert!((Duration::from_secs(3)..=Duration::from_secs(5)).contains(&delay), "{delay:?}");
        }
    }

    #[test]
    fn b6_equal_jitter_stays_in_the_upper_half() {
        let equal = BackoffConfig {
            floor: Duration::ZERO,
            base: Duration::from_secs(5),
            cap: Duration::from_secs(300),
            jitter: Jitter::Equal,
        };
        for (n, delay) in delays(equal, 12).into_iter().enumerate() {
            let bound = Duration::from_secs((5 << n).min(300));
            assert!(delay >= bound / 2 && delay <= bound, "{n}: {delay:?}");
        }
    }

    #[test]
    fn b9_equal_seeds_give_equal_schedules() {
        assert_eq!(delays(BackoffConfig::DEFAULT, 50), delays(BackoffConfig::DEFAULT, 50));
    }

    #[test]
    fn extreme_configurations_saturate() {
        let wild =
            BackoffConfig { floor: Duration::MAX, base: Duration::MAX, cap: Duration::MAX, jitter: Jitter::Full };
        let mut rng = SplitMix64::new(1);
        let mut backoff = Backoff::new(wild);
        backoff.penalize(u32::MAX);
        let _ = backoff.next(RetryHint { after: Duration::MAX, window: Duration::MAX }, &mut rng);
        assert_eq!(backoff.failures(), u32::MAX);
    }
}
