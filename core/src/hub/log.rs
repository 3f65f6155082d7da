//! The broadcast log: a message is encoded once, every connection keeps marks of what it has still to get, and nobody
//! waits for anybody.
//!
//! ```text
//!            first                       next            Log      numbers 1, 2, …; the oldest is forgotten by count,
//!  forgotten ┆ a  b  c  d  e  f  g  h  i ┆ to come                bytes or age, whether or not all have it
//!              ·  ▪  ·  ·  ▪  ▪  ·  ·  ▪                 Pending  a fast connection: few marks, all late
//!     ▪  ▪  ▪  ▪  ·  ▪  ▪  ▪  ▪  ▪  ▪  ▪                          a slow one: three lost when it is next touched
//! ```
//!
//! A mark is a bit at `number % 256`; `base` says which 256 numbers the bits mean, so marks are never mistaken for those
//! of later numbers, however long a connection was not touched. With up to 256 entries in the log a connection's share is
//! 40 bytes, and publishing to it, conflating, dropping and losing are a few operations on words.
//!
//! Order of calls: [`Log::publish`]; for each connection that wants it [`Pending::remove`] of what is superseded, if it
//! conflates, then [`Pending::add`]; when it can write, [`Pending::pop`] and [`Log::get`].
//!
//! Invariants: numbers only grow; the log never exceeds its limits, save for one entry larger than all; every number added
//! to a connection comes out exactly once: popped, removed, or counted as lost; in order.
//! Field bugs: one slow reader that blocks the broadcast; a queue per connection that holds a copy each; drops nobody is
//! told of.
//! Rules: U5, U6.

use crate::ring::{Ring, Slots};
use crate::time::{Instant, Timer, Timers, Wake};
use core::time::Duration;

/// The limits of the log (U6).
///
/// ```
/// # use bowline::hub::LogConfig;
/// assert!(LogConfig::DEFAULT.messages <= 256);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LogConfig {
    /// How many messages are held, at most 256; smaller storage limits further. Default 256.
    pub messages: usize,
    /// How many bytes they may have together; a larger message is held alone. Default 1 MiB.
    pub bytes: usize,
    /// How long a message is held. Default 30 s.
    pub age: Duration,
}

impl LogConfig {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self { messages: 256, bytes: 1 << 20, age: Duration::from_secs(30) };
}

/// One message of the log; what storage for a [`Log`] is made of.
///
/// ```
/// # use bowline::hub::{Entry, Log, LogConfig};
/// let inline: Log<u8, [Option<Entry<u8>>; 1]> = Log::new(LogConfig::DEFAULT, [None]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Entry<P> {
    payload: P,
    size: u32,
    key: Option<u64>,
    forget: Instant,
}

/// What publishing gave.
///
/// ```
/// # use bowline::hub::Published;
/// let first = Published { number: 1, superseded: None };
/// # let _ = first;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Published {
    /// The message's number: 1, 2, …, never reused.
    pub number: u64,
    /// The newest message before it with the same key, which a connection that conflates need not get any more. It may
    /// just have been forgotten to make room.
    pub superseded: Option<u64>,
}

/// The last messages broadcast, behind storage of the caller's choice.
///
/// ```
/// use bowline::Instant;
/// use bowline::hub::{Log, LogConfig, Pending};
/// let mut log = Log::new(LogConfig::DEFAULT, [None, None]);
/// let mut slow = Pending::new(log.next());
/// let mut lost = 0;
/// for text in ["one", "two", "three"] {
///     let published = log.publish(Instant::ZERO, text, 5, None);
///     lost += slow.add(published.number, log.first());
/// }
/// assert_eq!(lost, 1, "two places");
/// assert_eq!((log.first(), log.next(), log.get(1)), (2, 4, None));
/// let (number, _) = slow.pop(log.first());
/// assert_eq!(number.and_then(|number| log.get(number)), Some(&"two"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Log<P, S: Slots<Entry<P>> + ?Sized = [Option<Entry<P>>]> {
    config: LogConfig,
    next: u64,
    bytes: u64,
    /// When the oldest is too old.
    wake: Timer,
    ring: Ring<Entry<P>, S>,
}

impl<P, S: Slots<Entry<P>>> Log<P, S> {
    /// An empty log; the first number is 1.
    pub fn new(config: LogConfig, storage: S) -> Self {
        Self { config, next: 1, bytes: 0, wake: Timer::disarmed(), ring: Ring::new(storage) }
    }
}

impl<P, S: Slots<Entry<P>> + ?Sized> Log<P, S> {
    /// Appends a message of `size` bytes and forgets the oldest until it has room. Without any place it is numbered, and
    /// forgotten at once.
    pub fn publish(&mut self, now: Instant, payload: P, size: u32, key: Option<u64>) -> Published {
        self.tick(now);
        let number = self.next;
        let superseded = key.and_then(|_| {
            let back =
                (0..self.ring.len()).rev().find(|&at| self.ring.get(at).is_some_and(|entry| entry.key == key))?;
            u64::try_from(back).ok().map(|back| self.first().saturating_add(back))
        });
        let most = self.config.messages.min(WIDTH).min(self.ring.limit());
        let bytes = u64::try_from(self.config.bytes).unwrap_or(u64::MAX);
        while !self.ring.is_empty() && (self.ring.len() >= most || self.bytes.saturating_add(u64::from(size)) > bytes) {
            self.forget();
        }
        let entry = Entry { payload, size, key, forget: now.after(self.config.age) };
        self.ring.make_room(most);
        if most > 0 && self.ring.push(entry).is_ok() {
            self.bytes = self.bytes.saturating_add(u64::from(size));
        }
        self.next = number.saturating_add(1);
        self.rearm();
        Published { number, superseded }
    }

    /// Forgets what is too old.
    pub fn tick(&mut self, now: Instant) {
        while self.ring.get(0).is_some_and(|oldest| oldest.forget <= now) {
            self.forget();
        }
        self.rearm();
    }

    /// The message with this number, if it is still held.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&P> {
        self.entry(number).map(|entry| &entry.payload)
    }

    /// Its size in bytes, as it was published.
    #[cfg(test)]
    fn size(&self, number: u64) -> Option<u32> {
        self.entry(number).map(|entry| entry.size)
    }

    /// The number of the oldest that is held; [`next`](Self::next) if none is.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.next.saturating_sub(u64::try_from(self.ring.len()).unwrap_or(u64::MAX))
    }

    /// The number the next message will get.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    fn entry(&self, number: u64) -> Option<&Entry<P>> {
        self.ring.get(usize::try_from(number.checked_sub(self.first())?).ok()?)
    }

    fn forget(&mut self) {
        if let Some(oldest) = self.ring.pop() {
            self.bytes = self.bytes.saturating_sub(u64::from(oldest.size));
        }
    }

    fn rearm(&mut self) {
        match self.ring.get(0) {
            Some(oldest) => self.wake.arm(oldest.forget),
            None => self.wake.disarm(),
        }
    }
}

impl<P, S: Slots<Entry<P>> + ?Sized> Timers for Log<P, S> {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        see(Wake::Memory, &self.wake);
    }
}

/// So many numbers a [`Pending`] can mark, and so many messages a [`Log`] holds at most.
const WIDTH: usize = 256;
/// The same, as a span of numbers.
const SPAN: u64 = WIDTH as u64;

/// Which of the last 256 messages one connection has still to get: its cursor, with the gaps that selection and
/// conflation make. 40 bytes.
///
/// ```
/// use bowline::hub::Pending;
/// let mut pending = Pending::new(1);
/// for number in [1, 2, 5] {
///     assert_eq!(pending.add(number, 1), 0);
/// }
/// assert!(pending.remove(2), "superseded");
/// assert_eq!(pending.pop(1), (Some(1), 0));
/// // Much later: 5 was forgotten by the log meanwhile.
/// assert_eq!(pending.add(10_000, 9_990), 1);
/// assert_eq!(pending.pop(9_990), (Some(10_000), 0));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pending {
    /// The mark of a number is bit `number % 256`.
    bits: [u64; 4],
    /// The marks are of numbers below this one, 256 at most.
    base: u64,
}

impl Pending {
    /// Nothing marked; `at` is the log's [`next`](Log::next), for a connection that gets what is published from now on.
    #[must_use]
    pub const fn new(at: u64) -> Self {
        Self { bits: [0; 4], base: at }
    }

    /// Marks a number, normally the newest; `first` is the log's. Returns how many were lost: marked, and forgotten by
    /// the log since (this number too, if it is below `first`).
    #[must_use = "what is lost must be told"]
    pub fn add(&mut self, number: u64, first: u64) -> u32 {
        let end = number.saturating_add(1);
        // Only then do all marks and the new one lie within one span.
        let mut lost = self.lose(end.saturating_sub(SPAN));
        self.base = self.base.max(end);
        if number < self.low() {
            lost = lost.saturating_add(1);
        } else if let Some((word, bit)) = self.place(number) {
            *word |= bit;
        }
        lost.saturating_add(self.lose(first))
    }

    /// Takes a mark back: the message was superseded. True if it was marked.
    pub fn remove(&mut self, number: u64) -> bool {
        let marks = number >= self.low() && number < self.base;
        match self.place(number) {
            Some((word, bit)) if marks && *word & bit != 0 => {
                *word &= !bit;
                true
            }
            _ => false,
        }
    }

    /// Forgets the marks of numbers below `first`, the log's; returns how many there were.
    #[must_use = "what is lost must be told"]
    pub fn lose(&mut self, first: u64) -> u32 {
        let low = self.low();
        if first <= low {
            return 0;
        }
        if first >= self.base {
            return self.clear();
        }
        // From the place of `low` up to that of `first`, around the end; the two differ, being less than a span apart.
        let (from, to) = (below(index(low)), below(index(first)));
        let around = index(first) < index(low);
        let mut lost = 0_u32;
        for (word, (from, to)) in self.bits.iter_mut().zip(from.into_iter().zip(to)) {
            let range = if around { !from | to } else { !from & to };
            lost = lost.saturating_add((*word & range).count_ones());
            *word &= !range;
        }
        lost
    }

    /// Takes the oldest mark, after losing what is below `first`, the log's: the next to be written, or the one to be
    /// dropped for a newer. With it, how many were lost before.
    #[must_use = "what is lost must be told"]
    pub fn pop(&mut self, first: u64) -> (Option<u64>, u32) {
        let lost = self.lose(first);
        let low = self.low();
        let start = index(low);
        let from = below(start);
        let later = self.bits.into_iter().zip(from).map(|(word, from)| word & !from);
        let found = lowest(later).or_else(|| lowest(self.bits));
        // The distance from the place of `low`, around the end.
        let number = found.map(|at| low.saturating_add(u64::from(at.wrapping_sub(start))));
        if let Some(number) = number {
            self.remove(number);
        }
        (number, lost)
    }

    /// How many are marked, those included that the log may have forgotten meanwhile.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.bits.iter().fold(0, |sum, word| sum.saturating_add(word.count_ones()))
    }

    /// Whether none is marked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bits == [0; 4]
    }

    /// Forgets all marks; returns how many there were.
    pub fn clear(&mut self) -> u32 {
        let all = self.len();
        self.bits = [0; 4];
        all
    }

    /// No mark is of a lower number.
    const fn low(&self) -> u64 {
        self.base.saturating_sub(SPAN)
    }

    fn place(&mut self, number: u64) -> Option<(&mut u64, u64)> {
        let at = index(number);
        let bit = 1_u64.wrapping_shl(u32::from(at));
        self.bits.get_mut(usize::from(at >> 6)).map(|word| (word, bit))
    }
}

/// `number % 256`.
const fn index(number: u64) -> u8 {
    let [lowest, ..] = number.to_le_bytes();
    lowest
}

/// All places below this one.
fn below(at: u8) -> [u64; 4] {
    [0_u8, 64, 128, 192].map(|start| match at.checked_sub(start) {
        None => 0,
        Some(bits @ 0..64) => 1_u64.wrapping_shl(u32::from(bits)).wrapping_sub(1),
        Some(64..) => u64::MAX,
    })
}

/// The lowest place that is marked.
fn lowest(words: impl IntoIterator<Item = u64>) -> Option<u8> {
    let (start, word) = [0_u8, 64, 128, 192].into_iter().zip(words).find(|(_, word)| *word != 0)?;
    u8::try_from(word.trailing_zeros()).ok()?.checked_add(start)
}

#[cfg(test)]
mod tests;
