//! The broadcasts of the last moments, kept once for all, and what of them each connection has still to get.
//!
//! ```text
//!   log      first ▶ [ 41 42 43 44 45 ] ◀ next = 46      forgotten by number, by bytes, by age
//!   Pending  a     ·  ·  ·  ×  ×   ·                      a mark a broadcast: 40 bytes a connection
//!            b     ×  ·  ×  ×  ×   ·  slow: what the log forgets is lost to it, and counted
//! ```
//!
//! Whoever publishes marks the connections it is for; each takes its marks off as fast as it reads. Nobody waits for
//! anybody, nothing is copied, and a connection that nobody has looked at for long is put right when it is looked at.
//!
//! Invariants: at most `messages` entries of at most `bytes` in all (or one that is larger, alone), none older than `age`;
//! numbers grow by one; of every number that was marked, exactly one of got, lost and removed becomes true.
//! Rules: U5, U6.

use crate::ring::{Ring, Slots};
use crate::time::{Instant, Timer, Timers, Wake};
use core::time::Duration;

/// So many marks a connection has; the log is never longer.
const MARKS: u64 = 256;

/// The limits of the log (rule U6).
///
/// ```
/// # use bowline::hub::LogConfig;
/// assert_eq!(LogConfig::DEFAULT.messages, 256);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LogConfig {
    /// Entries; at most 256, smaller storage limits further. Default 256.
    pub messages: usize,
    /// Bytes of all together; one that is larger is kept alone. Default 1 MiB.
    pub bytes: usize,
    /// The oldest that is kept. Default 30 s.
    pub age: Duration,
}

impl LogConfig {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self { messages: 256, bytes: 1 << 20, age: Duration::from_secs(30) };
}

/// A broadcast that is kept; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry<P> {
    payload: P,
    size: u32,
    key: Option<u64>,
    published: Instant,
}

/// What became of a broadcast.
///
/// ```
/// # use bowline::hub::Published;
/// let first = Published { number: 1, superseded: None };
/// # let _ = first;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Published {
    /// Its number: 1, 2, 3 …
    pub number: u64,
    /// The newest one still kept with the same key.
    pub superseded: Option<u64>,
}

/// The log.
///
/// ```
/// use bowline::Instant;
/// use bowline::hub::{Log, LogConfig};
/// let mut log: Log<&str, _> = Log::new(LogConfig::DEFAULT, [None, None]);
/// let first = log.publish(Instant::ZERO, "kick-off", 8, Some(1));
/// let second = log.publish(Instant::ZERO, "1:0", 3, Some(1));
/// assert_eq!((first.number, second.superseded), (1, Some(1)));
/// log.publish(Instant::ZERO, "1:1", 3, None);
/// assert_eq!((log.get(1), log.get(2)), (None, Some(&"1:0")));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Log<P, S: Slots<Entry<P>>> {
    config: LogConfig,
    first: u64,
    bytes: usize,
    age: Timer,
    ring: Ring<Entry<P>, S>,
}

impl<P, S: Slots<Entry<P>>> Log<P, S> {
    /// An empty log on storage of the caller's.
    pub fn new(config: LogConfig, storage: S) -> Self {
        Self { config, first: 1, bytes: 0, age: Timer::disarmed(), ring: Ring::new(storage) }
    }

    /// Keeps one more, and forgets what there is no place for.
    pub fn publish(&mut self, now: Instant, payload: P, size: u32, key: Option<u64>) -> Published {
        self.tick(now);
        let most = self.config.messages.clamp(1, 256);
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        let number = self.next();
        let mut superseded = None;
        if key.is_some() {
            for (offset, entry) in (self.first..).zip(self.ring.iter()) {
                if entry.key == key {
                    superseded = Some(offset);
                }
            }
        }
        while self.ring.len() >= most || (!self.ring.is_empty() && self.bytes.saturating_add(bytes) > self.config.bytes)
        {
            self.forget();
        }
        self.ring.make_room(most);
        let entry = Entry { payload, size, key, published: now };
        if let Err(entry) = self.ring.push(entry) {
            // The storage is smaller than the limit.
            self.forget();
            let _ = self.ring.push(entry);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.rearm();
        Published { number, superseded: superseded.filter(|number| *number >= self.first) }
    }

    /// Forgets what is too old.
    pub fn tick(&mut self, now: Instant) {
        if !self.age.fire(now) {
            return;
        }
        while self.ring.get(0).is_some_and(|oldest| oldest.published.after(self.config.age) <= now) {
            self.forget();
        }
        self.rearm();
    }

    /// What it says, if it is still kept.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&P> {
        let offset = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.ring.get(offset).map(|entry| &entry.payload)
    }

    /// The number of the oldest that is kept; of the next one, if there is none.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// The number of the next one.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.first.saturating_add(self.ring.len() as u64)
    }

    fn forget(&mut self) {
        if let Some(entry) = self.ring.pop() {
            self.bytes = self.bytes.saturating_sub(usize::try_from(entry.size).unwrap_or(usize::MAX));
            self.first = self.first.saturating_add(1);
        }
    }

    fn rearm(&mut self) {
        match self.ring.get(0) {
            Some(oldest) => self.age.arm(oldest.published.after(self.config.age)),
            None => self.age.disarm(),
        }
    }
}

impl<P, S: Slots<Entry<P>>> Timers for Log<P, S> {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        see(Wake::Memory, &self.age);
    }
}

/// Which of the last 256 numbers a connection has still to get.
///
/// ```
/// use bowline::hub::Pending;
/// let mut pending = Pending::new(1);
/// assert_eq!(pending.add(1, 1) + pending.add(2, 1), 0);
/// assert_eq!(pending.pop(1), (Some(1), 0));
/// assert_eq!(pending.pop(3), (None, 1), "the log has forgotten the second");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pending {
    /// Bit `n % 256` is the mark of number `n`, for `base - 256 <= n < base`.
    bits: [u64; 4],
    base: u64,
}

impl Pending {
    /// Without a mark; only numbers from `next` on will be marked.
    #[must_use]
    pub const fn new(next: u64) -> Self {
        Self { bits: [0; 4], base: next }
    }

    /// Marks a number, which is the log's newest. `first` is the log's oldest: what is marked below it is lost, and how
    /// many are is the answer.
    pub fn add(&mut self, number: u64, first: u64) -> u32 {
        let lost = self.lose(first);
        self.base = self.base.max(number.saturating_add(1));
        self.set(number, true);
        lost
    }

    /// Takes the mark off; false: there was none.
    pub fn remove(&mut self, number: u64) -> bool {
        let marked = self.marked(number);
        self.set(number, false);
        marked
    }

    /// Takes off the marks of everything below `first`; how many those were.
    pub fn lose(&mut self, first: u64) -> u32 {
        let before = self.len();
        let oldest = self.base.saturating_sub(MARKS);
        if first >= self.base {
            self.bits = [0; 4];
        } else {
            // From the oldest that can be marked to the first that is kept, a word at a time.
            let mut number = oldest;
            while number < first {
                let bit = number % 64;
                let count = (64_u64.saturating_sub(bit)).min(first.saturating_sub(number));
                let ones = if count >= 64 { u64::MAX } else { (1_u64 << count).saturating_sub(1) };
                if let Some(word) = self.word(number) {
                    *word &= !(ones << bit);
                }
                number = number.saturating_add(count);
            }
        }
        // The log never keeps more than there are marks: from here on every number below `first` is settled.
        self.base = self.base.max(first);
        before.saturating_sub(self.len())
    }

    /// The oldest mark, taken off, after those below `first` were lost; and how many those were.
    pub fn pop(&mut self, first: u64) -> (Option<u64>, u32) {
        let lost = self.lose(first);
        let mut number = self.base.saturating_sub(MARKS);
        while number < self.base {
            let bit = number % 64;
            let word = self.word(number).map_or(0, |word| *word >> bit);
            if word == 0 {
                number = number.saturating_add(64_u64.saturating_sub(bit));
                continue;
            }
            number = number.saturating_add(u64::from(word.trailing_zeros()));
            self.set(number, false);
            return (Some(number), lost);
        }
        (None, lost)
    }

    /// How many marks there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.bits.iter().map(|word| word.count_ones()).fold(0, u32::saturating_add)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits == [0; 4]
    }

    fn marked(&mut self, number: u64) -> bool {
        self.holds(number) && self.word(number).is_some_and(|word| *word & (1 << (number % 64)) != 0)
    }

    fn set(&mut self, number: u64, marked: bool) {
        if !self.holds(number) {
            return;
        }
        if let Some(word) = self.word(number) {
            let bit = 1 << (number % 64);
            if marked {
                *word |= bit;
            } else {
                *word &= !bit;
            }
        }
    }

    const fn holds(&self, number: u64) -> bool {
        number < self.base && number.saturating_add(MARKS) >= self.base
    }

    fn word(&mut self, number: u64) -> Option<&mut u64> {
        let at = usize::try_from(number / 64 % 4).ok()?;
        self.bits.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix64;
    use std::collections::{BTreeSet, VecDeque};
    use std::vec::Vec;

    #[test]
    fn u5_marks_behave_as_a_set_of_numbers() {
        for seed in 0..100 {
            let mut rng = SplitMix64::new(seed);
            let mut pending = Pending::new(1);
            let mut model = BTreeSet::new();
            let (mut next, mut first) = (1_u64, 1_u64);
            for _ in 0..2000 {
                match rng.up_to(6) {
                    0..=2 => {
                        // Others are published too, sometimes very many.
                        next += if rng.up_to(50) == 0 { rng.up_to(2000) } else { rng.up_to(3) };
                        first = first.max((next + 1).saturating_sub(rng.up_to(256)).max(1));
                        first = first.max((next + 1).saturating_sub(256)).min(next);
                        let gone = model.iter().filter(|number| **number < first).count();
                        model.retain(|number| *number >= first);
                        model.insert(next);
                        assert_eq!(pending.add(next, first) as usize, gone);
                        next += 1;
                    }
                    3 => {
                        let number = next.saturating_sub(rng.up_to(300));
                        assert_eq!(pending.remove(number), model.remove(&number), "{number}");
                    }
                    4 => {
                        let gone = model.iter().filter(|number| **number < first).count();
                        model.retain(|number| *number >= first);
                        assert_eq!(pending.lose(first) as usize, gone);
                    }
                    _ => {
                        let gone = model.iter().filter(|number| **number < first).count();
                        model.retain(|number| *number >= first);
                        assert_eq!(pending.pop(first), (model.pop_first(), gone as u32));
                    }
                }
                assert_eq!((pending.len() as usize, pending.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }

    #[test]
    fn u6_the_log_keeps_what_its_limits_say() {
        for seed in 0..50 {
            let mut rng = SplitMix64::new(seed);
            let config =
                LogConfig { messages: 1 + rng.up_to(9) as usize, bytes: 100, age: Duration::from_micros(1000) };
            let storage = 1 + rng.up_to(9) as usize;
            let mut log = Log::new(config, (0..storage).map(|_| None).collect::<Vec<_>>());
            let limit = config.messages;
            let mut model: VecDeque<(u64, u32, Option<u64>, u64)> = VecDeque::new();
            let (mut now, mut number) = (0, 0);
            for _ in 0..1000 {
                now += rng.up_to(300);
                let at = Instant::from_micros(now);
                model.retain(|(.., published)| published + 1000 > now);
                if rng.up_to(3) > 0 {
                    let (size, key) = (rng.up_to(120) as u32, (rng.up_to(1) == 0).then(|| rng.up_to(3)));
                    number += 1;
                    let held =
                        |model: &VecDeque<(u64, u32, Option<u64>, u64)>| model.iter().map(|entry| entry.1).sum::<u32>();
                    let newest = model.iter().rev().find(|entry| key.is_some() && entry.2 == key).map(|entry| entry.0);
                    while model.len() >= limit || (!model.is_empty() && held(&model) + size > 100) {
                        model.pop_front();
                    }
                    let superseded = newest.filter(|number| model.iter().any(|entry| entry.0 == *number));
                    model.push_back((number, size, key, now));
                    assert_eq!(log.publish(at, number, size, key), Published { number, superseded });
                } else {
                    log.tick(at);
                }
                assert_eq!(log.next(), number + 1);
                assert_eq!(log.first(), model.front().map_or(number + 1, |entry| entry.0));
                for n in 0..=number + 1 {
                    assert_eq!(log.get(n), model.iter().find(|entry| entry.0 == n).map(|entry| &entry.0));
                }
                let due = model.front().map(|entry| Instant::from_micros(entry.3 + 1000));
                assert_eq!(log.earliest().map(|(at, _)| at), due, "never later, never in the past");
            }
        }
    }

    #[test]
    fn g4_a_log_in_small_storage_keeps_as_much_as_that_holds() {
        let mut log = Log::new(LogConfig::DEFAULT, [None, None]);
        for n in 1..=5_u64 {
            assert_eq!(log.publish(Instant::ZERO, n, 1, None).number, n);
        }
        assert_eq!((log.first(), log.next(), log.get(4), log.get(5)), (4, 6, Some(&4), Some(&5)));
    }
}
