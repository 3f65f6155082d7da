//! How much one identity or one address may use, and when the refused may come back.
//!
//! ```text
//! Gcra:     debt = tat − now     the time the uses so far still have to be paid with; never below zero
//!           price = cost / rate      window = burst / rate
//!           debt + min(price, window) ≤ window ──▶ allowed, tat = now + debt + price
//!                                     otherwise ──▶ refused until it is so; nothing is taken
//!
//! Tickets:  now ┆─1 ms─┆ 1st   2nd   3rd   …                ┆ now + most
//!                       ◀step▶                                step = 1 / rate
//!           full ──▶ around again, between the earlier ones   1st  n+1st  2nd …
//! ```
//!
//! The generic cell rate algorithm (ITU-T I.371) is a leaky bucket in one word: a table of addresses costs 8 bytes each.
//! Both count in nanoseconds, so a rate up to 10⁹ per second is kept; a price is rounded down, so that a whole burst of
//! single uses always fits, and the rate is exceeded by less than one nanosecond's worth per use.
//!
//! Invariants: what is refused takes nothing; the wait told is enough and no shorter one is, if nobody else comes; no cost
//! is refused for ever: what is more than the burst goes through when the debt is zero, and is paid for in full
//! afterwards. A ticket lies between 1 ms and `most` ahead; no two are the same until the window is full.
//! Field bugs: a limit that counts per window and lets the double through at its edge; refused dialers told the same
//! second, who come back as one.
//! Rules: U8, U9.

use crate::time::{Instant, micros};
use core::time::Duration;

/// A limit: so many per second in the long run, so many at once after a quiet time.
///
/// What is counted is the caller's: messages, bytes, handshakes.
///
/// ```
/// use bowline::hub::Rate;
/// let handshakes = Rate { per_second: 20, burst: 100 };
/// assert_ne!(handshakes, Rate::UNLIMITED);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    /// In the long run, per second; 0: no limit. Kept up to 10⁹.
    pub per_second: u32,
    /// At once, after a quiet time; 0 is 1.
    pub burst: u32,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { per_second: 0, burst: 0 };

    /// The time `count` uses are paid with, in nanoseconds; `None` without a limit. `u32::MAX · 10⁹` fits.
    fn price(self, count: u32) -> Option<u64> {
        u64::from(count).saturating_mul(1_000_000_000).checked_div(u64::from(self.per_second))
    }
}

/// One user's use of a [`Rate`], in one word.
///
/// The rate is not kept here: thousands of these share one.
///
/// ```
/// use bowline::Instant;
/// use bowline::hub::{Gcra, Rate};
/// use core::time::Duration;
/// let rate = Rate { per_second: 10, burst: 2 };
/// let mut user = Gcra::new();
/// assert_eq!(user.take(Instant::ZERO, rate, 1), Ok(()));
/// assert_eq!(user.take(Instant::ZERO, rate, 1), Ok(()));
/// assert_eq!(user.take(Instant::ZERO, rate, 1), Err(Duration::from_millis(100)));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Gcra {
    /// The theoretical arrival time: when everything used is paid for, in nanoseconds.
    tat: u64,
}

impl Gcra {
    /// A user who has used nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { tat: 0 }
    }

    /// Takes `cost` if it is allowed now. More than the burst is allowed when everything before is paid for, so the
    /// caller bounds the cost (a message's size) and with it the debt.
    ///
    /// # Errors
    /// How long until it would be allowed, in whole microseconds, rounded up; nothing is taken.
    pub fn take(&mut self, now: Instant, rate: Rate, cost: u32) -> Result<(), Duration> {
        let (Some(price), Some(window)) = (rate.price(cost), rate.price(rate.burst.max(1))) else { return Ok(()) };
        let now = nanos(now);
        let paid_at = self.tat.max(now);
        let over = paid_at.saturating_sub(now).saturating_add(price.min(window)).saturating_sub(window);
        if over > 0 {
            return Err(Duration::from_micros(over.div_ceil(1000)));
        }
        self.tat = paid_at.saturating_add(price);
        Ok(())
    }

    /// From then on it is as good as new and may be forgotten.
    #[must_use]
    pub const fn idle_from(&self) -> Instant {
        Instant::from_micros(self.tat.div_ceil(1000))
    }
}

/// Times to come back for those who were refused, a slot each (U8, and U9's slots).
///
/// ```
/// use bowline::Instant;
/// use bowline::hub::{Rate, Tickets};
/// use core::time::Duration;
/// let (rate, most) = (Rate { per_second: 10, burst: 5 }, Duration::from_secs(30));
/// let mut tickets = Tickets::new();
/// assert_eq!(tickets.take(Instant::ZERO, rate, most), Duration::from_millis(101));
/// assert_eq!(tickets.take(Instant::ZERO, rate, most), Duration::from_millis(201));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tickets {
    /// The slot after the last one given, in nanoseconds; one that is past means nothing.
    next: u64,
}

/// No ticket is for sooner, in nanoseconds: a millisecond is the smallest wait a refusal can be told in.
const LEAST: u64 = 1_000_000;

impl Tickets {
    /// No slot is taken.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: 0 }
    }

    /// How long the next refused one is to wait: at least 1 ms, at most `most`, whole microseconds. Slots follow one
    /// another at `rate.per_second` (the burst is for those who were not refused); a quiet hub's first slot is one step
    /// ahead, when the next handshake will be allowed. With no limit, or with `most` of 1 ms or less, it is 1 ms.
    #[must_use]
    pub fn take(&mut self, now: Instant, rate: Rate, most: Duration) -> Duration {
        let least = Duration::from_nanos(LEAST);
        let Some(step) = rate.price(1) else { return least };
        let width = micros(most).saturating_mul(1000).saturating_sub(LEAST);
        let step = step.max(1).min(width);
        // A round is a whole number of steps less 0.382 of one, the golden section: each further round falls into the
        // widest gaps left by those before.
        let full = width.saturating_sub(width.checked_rem(step).unwrap_or(0));
        let round = full.saturating_sub(step.saturating_mul(381_966) / 1_000_000);
        let start = nanos(now).saturating_add(LEAST);
        let booked = self.next.saturating_sub(start);
        let Some(offset) = (if booked == 0 { step } else { booked }).checked_rem(round) else { return least };
        self.next = start.saturating_add(offset).saturating_add(step);
        Duration::from_micros(offset.saturating_add(LEAST) / 1000)
    }
}

/// An instant in nanoseconds; saturates after 584 years.
fn nanos(at: Instant) -> u64 {
    at.as_micros().saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix64;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const MS: Duration = Duration::from_millis(1);

    fn ms(n: u64) -> Instant {
        Instant::from_micros(n * 1000)
    }

    #[test]
    fn u8_a_burst_then_the_rate() {
        for (per_second, burst) in [(1, 1), (3, 3), (7, 50), (1000, 10), (999_999_999, 1000)] {
            let rate = Rate { per_second, burst };
            let mut user = Gcra::new();
            for _ in 0..burst {
                assert_eq!(user.take(ms(5), rate, 1), Ok(()), "{rate:?}");
            }
            let wait = user.take(ms(5), rate, 1).expect_err("the burst is used up");
            assert_eq!(user.take(ms(5).after(wait), rate, 1), Ok(()));
        }
    }

    #[test]
    fn u8_the_wait_told_is_enough_and_no_shorter_one_is_and_a_refusal_takes_nothing() {
        let mut rng = SplitMix64::new(8);
        for _ in 0..2000 {
            let rate = Rate { per_second: 1 + rng.up_to(5000) as u32, burst: rng.up_to(20) as u32 };
            let (mut user, mut now) = (Gcra::new(), Instant::ZERO);
            for _ in 0..20 {
                let (cost, before) = (rng.up_to(40) as u32, user.clone());
                if let Err(wait) = user.take(now, rate, cost) {
                    assert_eq!(user, before);
                    assert!(wait > Duration::ZERO);
                    let short = now.after(wait.saturating_sub(Duration::from_micros(1)));
                    assert!(user.clone().take(short, rate, cost).is_err());
                    now = now.after(wait);
                    assert_eq!(user.take(now, rate, cost), Ok(()));
                }
            }
        }
    }

    #[test]
    fn u8_no_window_of_any_length_lets_through_more_than_burst_and_rate() {
        let mut rng = SplitMix64::new(9);
        let rate = Rate { per_second: 50, burst: 7 };
        let (mut user, mut now, mut passed) = (Gcra::new(), Instant::ZERO, Vec::new());
        for _ in 0..3000 {
            now = now.after(Duration::from_micros(rng.up_to(20_000)));
            if user.take(now, rate, 1).is_ok() {
                passed.push(now);
            }
        }
        for first in 0..passed.len() {
            for last in first..passed.len().min(first + 100) {
                let allowed = 7 + passed[last].since(passed[first]).as_micros() * 50 / 1_000_000;
                assert!((last - first) as u128 <= allowed);
            }
        }
        assert!(passed.len() > 1000);
    }

    #[test]
    fn u8_a_cost_above_the_burst_passes_when_all_is_paid_and_is_paid_in_full() {
        let rate = Rate { per_second: 1000, burst: 10 };
        let mut user = Gcra::new();
        assert_eq!(user.take(ms(0), rate, 1), Ok(()));
        assert_eq!(user.take(ms(0), rate, 500), Err(MS));
        assert_eq!(user.take(ms(1), rate, 500), Ok(()));
        assert_eq!(user.idle_from(), ms(501));
        assert_eq!(user.take(ms(1), rate, 1), Err(491 * MS));
        let mut none = Gcra::new();
        assert_eq!(none.take(ms(0), Rate { per_second: 1000, burst: 0 }, 1), Ok(()));
    }

    #[test]
    fn u8_idle_means_as_good_as_new_and_no_limit_means_none() {
        let rate = Rate { per_second: 3, burst: 5 };
        let mut user = Gcra::new();
        assert_eq!(user.idle_from(), Instant::ZERO);
        assert_eq!(user.take(ms(0), rate, 4), Ok(()));
        let idle = user.idle_from();
        assert_eq!(user.take(idle, rate, 5), Ok(()));
        for _ in 0..100 {
            assert_eq!(user.take(idle, Rate::UNLIMITED, u32::MAX), Ok(()));
        }
        // Hostile numbers saturate.
        let end = Instant::from_micros(u64::MAX);
        for cost in [0, 1, u32::MAX] {
            let _ = user.take(end, Rate { per_second: 1, burst: u32::MAX }, cost);
            let _ = user.take(ms(0), Rate { per_second: u32::MAX, burst: 0 }, cost);
        }
    }

    #[test]
    fn u8_refused_dialers_come_back_one_after_the_other_at_the_rate() {
        let (rate, most) = (Rate { per_second: 20, burst: 100 }, Duration::from_secs(30));
        let mut tickets = Tickets::new();
        let waits: Vec<_> = (0..500).map(|_| tickets.take(ms(7), rate, most)).collect();
        assert_eq!(waits[0], 51 * MS);
        assert!(waits.windows(2).all(|two| two[1] - two[0] == 50 * MS));
        // Half of the slots are behind now: the next free one stays where it is.
        assert_eq!(tickets.take(ms(7 + 12_500), rate, most), waits[499] + 50 * MS - 12_500 * MS);
        // All are: the first is one step ahead again.
        assert_eq!(tickets.take(ms(60_000), rate, most), 51 * MS);
    }

    #[test]
    fn u8_those_who_return_at_their_ticket_are_let_in() {
        let (rate, most) = (Rate { per_second: 20, burst: 100 }, Duration::from_secs(30));
        let (mut door, mut tickets, mut back) = (Gcra::new(), Tickets::new(), Vec::new());
        for _ in 0..600 {
            if door.take(ms(0), rate, 1).is_err() {
                back.push(Instant::ZERO.after(tickets.take(ms(0), rate, most)));
            }
        }
        assert_eq!(back.len(), 500);
        assert!(back.into_iter().all(|at| door.take(at, rate, 1).is_ok()));
    }

    #[test]
    fn u8_beyond_the_window_they_are_spread_over_it_again() {
        // Also rates too slow for the window: one slot, or not even one, fits.
        for (per_second, most) in [(20, 30_000), (10, 10_001), (1, 2001), (1, 1001), (1, 300), (1, 2), (u32::MAX, 5)] {
            let (rate, most) = (Rate { per_second, burst: 1 }, Duration::from_millis(most));
            let mut tickets = Tickets::new();
            let waits: Vec<_> = (0..6000).map(|_| tickets.take(ms(3), rate, most)).collect();
            assert!(waits.iter().all(|wait| *wait >= MS && *wait <= most));
            if per_second < 1000 {
                let different: BTreeSet<_> = waits.iter().collect();
                assert!(different.len() > 500, "{rate:?} {most:?}: {}", different.len());
                // No tenth of what is used of the window has more than twice its share.
                let top = *waits.iter().max().expect("some");
                let mut tenths = [0; 11];
                for wait in &waits {
                    tenths[((*wait - MS).as_micros() * 10 / (top - MS).as_micros()) as usize] += 1;
                }
                assert!(tenths.iter().all(|&count| count < 1200), "{rate:?} {most:?} {tenths:?}");
                assert!(top > most / 2);
            }
        }
    }

    #[test]
    fn u8_tickets_never_fail_whatever_they_are_given() {
        let mut rng = SplitMix64::new(10);
        let mut tickets = Tickets::new();
        for _ in 0..20_000 {
            let any = |rng: &mut SplitMix64| rng.next_u64() >> rng.up_to(63);
            let most = Duration::from_micros(any(&mut rng));
            let rate = Rate { per_second: any(&mut rng) as u32, burst: any(&mut rng) as u32 };
            let wait = tickets.take(Instant::from_micros(any(&mut rng)), rate, most);
            assert!(wait >= MS && wait <= most.max(MS));
        }
        assert_eq!(Tickets::new().take(ms(0), Rate::UNLIMITED, Duration::from_secs(9)), MS);
    }
}
