//! Whether a signed word is fresh: said now, and not said before.
//!
//! ```text
//!            floor                wall − tolerance            wall          wall + tolerance
//!   ─────────┼────────────────────────┼─────────────────────────┼─────────────────┼──────▶ the sender's clock
//!      Old   │          Old           │   once each: else Seen   │   once each     │ Ahead
//! ```
//!
//! A nonce is remembered for as long as its timestamp would be accepted. The memory is bounded: when it is full, the place
//! with the oldest timestamp is given up, and nothing that old is accepted any more. So a burst costs a late straggler its
//! welcome, never a replay its refusal.
//!
//! Our clock may step back: places are kept until the largest time seen says that they are old, so no window opens twice;
//! a step forward only makes more of them old.
//!
//! Invariants: of two equal words at most one is accepted, whatever came between; `floor` never falls.
//! Field bugs: nonces forgotten within a minute of a disconnect; timestamps that nobody checks (wire facts 2.10, 7).

use crate::ring::Slots;
use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

/// What a signed word says about itself.
///
/// ```
/// # use bowline::hub::Stamp;
/// let stamp = Stamp { nonce: 7, issued: 1_800_000_000_000_000 };
/// # let _ = stamp;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    /// A keyed hash of its nonce.
    pub nonce: u64,
    /// When its sender says it said it: microseconds since the epoch.
    pub issued: i64,
}

/// Why a word is not fresh.
///
/// ```
/// # use bowline::hub::Replayed;
/// assert_eq!(Replayed::Seen.to_string(), "said before");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Replayed {
    /// Its time is past.
    Old,
    /// Its time is still to come.
    Ahead,
    /// Its nonce was used.
    Seen,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "too old",
            Self::Ahead => "ahead of time",
            Self::Seen => "said before",
        })
    }
}

/// A place of the memory; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Nonce(Stamp);

/// So many places at most, however far the storage could grow: it is searched in a line.
const MOST: usize = 256;

/// The memory of one sender's nonces.
///
/// ```
/// use bowline::hub::{Replay, Replayed, Stamp};
/// use core::time::Duration;
/// let mut replay = Replay::new([None, None]);
/// let (now, tolerance) = (1_000_000_000, Duration::from_secs(300));
/// let word = Stamp { nonce: 7, issued: now };
/// assert_eq!(replay.check(now, tolerance, word), Ok(()));
/// assert_eq!(replay.check(now, tolerance, word), Err(Replayed::Seen));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replay<S: Slots<Nonce>> {
    item: PhantomData<Nonce>,
    /// Nothing issued up to then is accepted.
    floor: i64,
    /// The largest time of ours.
    latest: i64,
    places: S,
}

impl<S: Slots<Nonce>> Replay<S> {
    /// An empty memory.
    pub fn new(mut storage: S) -> Self {
        for place in storage.as_mut() {
            *place = None;
        }
        Self { item: PhantomData, floor: i64::MIN, latest: i64::MIN, places: storage }
    }

    /// Whether a word is fresh; from now on it is not. `wall` is our own clock, in microseconds since the epoch.
    ///
    /// # Errors
    /// Why not; nothing is remembered then.
    pub fn check(&mut self, wall: i64, tolerance: Duration, stamp: Stamp) -> Result<(), Replayed> {
        let tolerance = i64::try_from(tolerance.as_micros()).unwrap_or(i64::MAX);
        self.latest = self.latest.max(wall);
        if stamp.issued <= self.floor || stamp.issued < wall.saturating_sub(tolerance) {
            return Err(Replayed::Old);
        }
        if stamp.issued > wall.saturating_add(tolerance) {
            return Err(Replayed::Ahead);
        }
        // What is older than this is refused for its age, unless the clock steps back: then it is refused for the floor.
        let old = self.latest.saturating_sub(tolerance);
        let mut free = None;
        let mut oldest: Option<(i64, usize)> = None;
        for (at, place) in self.places.as_ref().iter().enumerate().take(MOST) {
            match place {
                Some(Nonce(known)) if known.nonce == stamp.nonce => return Err(Replayed::Seen),
                Some(Nonce(known)) => {
                    if oldest.is_none_or(|(issued, _)| known.issued < issued) {
                        oldest = Some((known.issued, at));
                    }
                }
                None => free = free.or(Some(at)),
            }
        }
        let forgets = oldest.is_some_and(|(issued, _)| issued < old);
        if free.is_none() && !forgets {
            let more = self.places.as_ref().len();
            free = self.places.grow(MOST).then_some(more);
        }
        let at = match (free, oldest) {
            (Some(at), _) => at,
            (None, Some((issued, at))) => {
                // Whatever is as old as what is given up could be a replay of it.
                self.floor = self.floor.max(issued);
                if stamp.issued <= issued {
                    return Err(Replayed::Old);
                }
                at
            }
            (None, None) => return Err(Replayed::Old),
        };
        if let Some(place) = self.places.as_mut().get_mut(at) {
            *place = Some(Nonce(stamp));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix64;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const TOLERANCE: Duration = Duration::from_micros(300);

    fn stamp(nonce: u64, issued: i64) -> Stamp {
        Stamp { nonce, issued }
    }

    #[test]
    fn u8_a_word_counts_once_within_its_time() {
        let mut replay = Replay::new([const { None }; 4]);
        assert_eq!(replay.check(1000, TOLERANCE, stamp(1, 699)), Err(Replayed::Old));
        assert_eq!(replay.check(1000, TOLERANCE, stamp(1, 1301)), Err(Replayed::Ahead));
        assert_eq!(replay.check(1000, TOLERANCE, stamp(1, 700)), Ok(()));
        assert_eq!(replay.check(1000, TOLERANCE, stamp(2, 1300)), Ok(()));
        for word in [stamp(1, 700), stamp(1, 1000), stamp(2, 1300)] {
            assert_eq!(replay.check(1000, TOLERANCE, word), Err(Replayed::Seen), "one nonce, one word");
        }
    }

    #[test]
    fn u8_a_full_memory_gives_up_the_oldest_and_everything_as_old_with_it() {
        let mut replay = Replay::new([None, None]);
        assert_eq!(replay.check(1000, TOLERANCE, stamp(1, 1000)), Ok(()));
        assert_eq!(replay.check(1000, TOLERANCE, stamp(2, 1010)), Ok(()));
        assert_eq!(replay.check(1000, TOLERANCE, stamp(3, 990)), Err(Replayed::Old), "older than all that is kept");
        assert_eq!(replay.check(1000, TOLERANCE, stamp(4, 1020)), Ok(()));
        assert_eq!(replay.check(1000, TOLERANCE, stamp(1, 1000)), Err(Replayed::Old), "given up, and yet refused");
        assert_eq!(replay.check(1000, TOLERANCE, stamp(2, 1010)), Err(Replayed::Seen));
    }

    #[test]
    fn u8_a_burst_in_the_order_of_its_clock_passes_however_small_the_memory() {
        let mut replay = Replay::new([None]);
        for n in 0..1000_u64 {
            assert_eq!(replay.check(1000, TOLERANCE, stamp(n, 800 + n as i64 / 4 * 4 + n as i64 % 4)), Ok(()), "{n}");
            if n >= 499 {
                break;
            }
        }
    }

    #[test]
    fn u8_nothing_is_accepted_twice_whatever_the_clocks_do() {
        for seed in 0..200 {
            let mut rng = SplitMix64::new(seed);
            let most = 1 + rng.up_to(12) as usize;
            let mut replay = Replay::new((0..most).map(|_| None).collect::<Vec<_>>());
            let mut accepted = BTreeSet::new();
            let mut wall = 1000_i64;
            for _ in 0..2000 {
                // Mostly forward, now and then a leap either way.
                wall += match rng.up_to(20) {
                    0 => -(rng.up_to(1000) as i64),
                    1 => rng.up_to(1000) as i64,
                    _ => rng.up_to(20) as i64,
                };
                let issued = wall - 400 + rng.up_to(800) as i64;
                let nonce = rng.up_to(40);
                let word = stamp(nonce, issued - issued % 7);
                if replay.check(wall, TOLERANCE, word).is_ok() {
                    assert!(accepted.insert((word.nonce, word.issued)), "{word:?} twice");
                }
            }
            assert!(!accepted.is_empty());
        }
    }

    #[test]
    fn g4_the_memory_grows_to_its_limit_and_no_further() {
        let mut replay = Replay::new(Vec::new());
        for n in 0..1000 {
            assert_eq!(replay.check(1000, Duration::from_secs(1), stamp(n, 1000 + n as i64)), Ok(()));
        }
        assert_eq!(replay.places.len(), MOST);
    }
}
