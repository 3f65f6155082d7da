//! A signed frame counts once: it carries a nonce and the sender's time, and both are remembered here.
//!
//! ```text
//!                    too old, or issued ≤ floor ──▶ Old
//!  stamp, verified ─ too far ahead ──────────────▶ Ahead
//!                    nonce held ─────────────────▶ Seen
//!                    else ───────────────────────▶ accepted and held; if there is no place, the one issued first is
//!                                                  given up for it, and floor = its time
//! ```
//!
//! Invariants: whatever was accepted is either held or was issued no later than the floor; the floor never falls. So
//! nothing is accepted twice, and that does not depend on any clock: the wall clock only bounds how old or how far ahead a
//! stamp may be at this moment. What is older than the tolerance is not forgotten by time but by need, being what was
//! issued first. Had it been forgotten by the clock, a clock that steps forward and back would let it in again; and were
//! every stamp measured by the largest wall time ever read, one wrong reading would close the door for ever. A step back
//! lets in nothing but what was never accepted before.
//!
//! Two duties of the caller: the signature is verified first, or anybody fills the memory; one memory serves one signer, or
//! one that issues many stamps ahead of time raises the floor above the others'. Places for what one signer sends within
//! twice the tolerance suffice for none to be refused. A signer with several memories asks the others first ([`Replay::knows`]).
//! A restart forgets: stamps of the tolerance before it are fresh again
//! unless the session's own dedupe still knows them.
//! Field bugs: nonces forgotten by count alone, so that a flood of new ones opens the door to the old; a nonce kept
//! without its time, for ever.
//! Rules: S11 (bounded memory), S12 (nothing is forgotten in silence).

use crate::ring::Slots;
use crate::time::micros;
use core::fmt;
use core::marker::PhantomData;
use core::time::Duration;

/// What a signed frame says of itself.
///
/// ```
/// use bowline::hub::Stamp;
/// let stamp = Stamp { nonce: 0x5eed, issued: 1_700_000_000_000_000 };
/// assert_ne!(stamp.nonce, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    /// A keyed hash of the nonce's text: with a key of our own nobody can choose two texts that collide.
    pub nonce: u64,
    /// The sender's wall clock, microseconds since the Unix epoch.
    pub issued: i64,
}

/// Why a stamp is not fresh.
///
/// ```
/// # use bowline::hub::Replayed;
/// assert_eq!(Replayed::Seen.to_string(), "nonce used before");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Replayed {
    /// Issued longer ago than the tolerance, or than what is remembered.
    Old,
    /// Issued further ahead of our clock than the tolerance.
    Ahead,
    /// The nonce was accepted before.
    Seen,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "issued too long ago",
            Self::Ahead => "issued in the future",
            Self::Seen => "nonce used before",
        })
    }
}

impl core::error::Error for Replayed {}

/// One remembered stamp; what storage for a [`Replay`] is made of.
///
/// ```
/// # use bowline::hub::{Nonce, Replay};
/// let inline: Replay<[Option<Nonce>; 1]> = Replay::new([None]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Nonce(Stamp);

/// Storage that grows does so up to here: it is searched in a line.
const MOST: usize = 256;

/// The memory of one signer's stamps, behind storage of the caller's choice; it is searched from end to end, so at most
/// a few hundred places.
///
/// ```
/// use bowline::hub::{Replay, Replayed, Stamp};
/// use core::time::Duration;
/// let tolerance = Duration::from_secs(60);
/// let wall = 1_700_000_000_000_000;
/// let stamp = Stamp { nonce: 7, issued: wall - 500_000 };
/// let mut replay = Replay::new([None, None]);
/// assert_eq!(replay.check(wall, tolerance, stamp), Ok(()));
/// assert_eq!(replay.check(wall, tolerance, stamp), Err(Replayed::Seen));
/// assert_eq!(replay.check(wall + 61_000_000, tolerance, stamp), Err(Replayed::Old));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Replay<S: Slots<Nonce> + ?Sized = [Option<Nonce>]> {
    /// What was issued by then may have been accepted and given up.
    floor: Option<i64>,
    item: PhantomData<Nonce>,
    slots: S,
}

impl<S: Slots<Nonce>> Replay<S> {
    /// An empty memory.
    pub fn new(mut slots: S) -> Self {
        for slot in slots.as_mut() {
            *slot = None;
        }
        Self { floor: None, item: PhantomData, slots }
    }
}

impl<S: Slots<Nonce> + ?Sized> Replay<S> {
    /// Accepts a verified stamp, once. `wall` is our wall clock, microseconds since the Unix epoch; `tolerance` is how far
    /// the sender's may be off, either way, transport included. Without any place, only ever later stamps are accepted.
    ///
    /// # Errors
    /// Why it is not fresh; nothing is remembered then.
    pub fn check(&mut self, wall: i64, tolerance: Duration, stamp: Stamp) -> Result<(), Replayed> {
        let tolerance = i64::try_from(micros(tolerance)).unwrap_or(i64::MAX);
        if stamp.issued < wall.saturating_sub(tolerance) || self.floor.is_some_and(|floor| stamp.issued <= floor) {
            return Err(Replayed::Old);
        }
        if stamp.issued > wall.saturating_add(tolerance) {
            return Err(Replayed::Ahead);
        }
        let slots = self.slots.as_ref();
        if slots.iter().flatten().any(|held| held.0.nonce == stamp.nonce) {
            return Err(Replayed::Seen);
        }
        // Before one that still counts is given up, more storage is taken, where there is more.
        let old = wall.saturating_sub(tolerance);
        if slots.iter().all(|slot| slot.as_ref().is_some_and(|held| held.0.issued >= old)) {
            self.slots.grow(MOST);
        }
        let slots = self.slots.as_mut();
        // An empty place comes before every held one: `None` is the least.
        let place = slots.iter_mut().min_by_key(|slot| slot.as_ref().map(|held| held.0.issued));
        let given_up = match place {
            // Newer than all that are held, or there is a place: nothing else may take one.
            Some(slot) if slot.as_ref().is_none_or(|held| held.0.issued < stamp.issued) => slot.replace(Nonce(stamp)),
            Some(_) => return Err(Replayed::Old),
            None => Some(Nonce(stamp)),
        };
        // What is given up is above the floor, or it would not have been accepted after it: the floor never falls.
        if let Some(Nonce(stamp)) = given_up {
            self.floor = Some(stamp.issued);
        }
        Ok(())
    }

    /// Whether it may have been accepted before: it is held, or was issued no later than what was given up. For a signer
    /// with several memories, of which none may accept what another one knows.
    #[must_use]
    pub fn knows(&self, stamp: Stamp) -> bool {
        self.floor.is_some_and(|floor| stamp.issued <= floor)
            || self.slots.as_ref().iter().flatten().any(|held| held.0.nonce == stamp.nonce)
    }
}

impl<S: Slots<Nonce> + ?Sized> fmt::Debug for Replay<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.slots.as_ref().iter().flatten().count();
        f.debug_struct("Replay").field("floor", &self.floor).field("held", &held).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix64;
    use std::collections::{BTreeMap, BTreeSet};
    use std::vec;

    const TOLERANCE: Duration = Duration::from_micros(100);

    fn stamp(nonce: u64, issued: i64) -> Stamp {
        Stamp { nonce, issued }
    }

    #[test]
    fn s12_no_stamp_is_accepted_twice_in_any_order_and_by_any_clock() {
        let mut outcomes = BTreeMap::new();
        for seed in 0..600 {
            let mut rng = SplitMix64::new(seed);
            let mut replay = Replay::new(vec![None; rng.up_to(9) as usize]);
            let (mut accepted, mut made, mut wall) = (BTreeSet::new(), vec![], 1000_i64);
            for n in 0..400_u64 {
                wall = match rng.up_to(40) {
                    0 => wall + rng.up_to(2000) as i64,
                    1 => wall - rng.up_to(2000) as i64,
                    2 => 1000,
                    _ => wall + rng.up_to(20) as i64,
                };
                // A new one about now, or any that was made before.
                let (nonce, issued) = if rng.up_to(1) == 0 || made.is_empty() {
                    let new = (n, wall + rng.up_to(240) as i64 - 120);
                    made.push(new);
                    new
                } else {
                    made[made.len() - 1 - rng.up_to((made.len() - 1).min(60) as u64) as usize]
                };
                let outcome = replay.check(wall, TOLERANCE, stamp(nonce, issued));
                *outcomes.entry(std::format!("{outcome:?}")).or_insert(0) += 1;
                if outcome.is_ok() {
                    assert!(accepted.insert((nonce, issued)), "{nonce} twice, seed {seed}");
                    assert!((wall - issued).abs() <= 100);
                }
            }
        }
        assert!(outcomes.len() == 4 && outcomes.values().all(|&count| count > 1000), "{outcomes:?}");
    }

    #[test]
    fn s12_with_places_enough_each_nonce_within_the_tolerance_is_accepted_once() {
        let mut rng = SplitMix64::new(1);
        let mut replay = Replay::new(vec![None; 200]);
        for wall in 0..4000 {
            // About one new nonce per microsecond, so at most 200 or so matter at a time; some too old or too new.
            let new = stamp(wall as u64, wall + rng.up_to(180) as i64 - 90);
            assert_eq!(replay.check(wall, TOLERANCE, new), Ok(()));
            assert_eq!(replay.check(wall, TOLERANCE, new), Err(Replayed::Seen));
            assert_eq!(replay.check(wall, TOLERANCE, stamp(u64::MAX, wall - 101)), Err(Replayed::Old));
            assert_eq!(replay.check(wall, TOLERANCE, stamp(u64::MAX, wall + 101)), Err(Replayed::Ahead));
        }
    }

    #[test]
    fn s11_full_it_gives_up_what_was_issued_first_and_never_takes_it_again() {
        let mut replay = Replay::new([None, None]);
        assert_eq!(replay.check(0, TOLERANCE, stamp(1, 10)), Ok(()));
        assert_eq!(replay.check(0, TOLERANCE, stamp(2, 20)), Ok(()));
        // Full, and not newer than what is held: refused, and nothing is lost by it.
        assert_eq!(replay.check(0, TOLERANCE, stamp(3, 10)), Err(Replayed::Old));
        assert_eq!(replay.check(0, TOLERANCE, stamp(2, 20)), Err(Replayed::Seen));
        assert_eq!(replay.check(0, TOLERANCE, stamp(3, 15)), Ok(()));
        assert_eq!(replay.check(0, TOLERANCE, stamp(1, 10)), Err(Replayed::Old));
        assert_eq!(replay.check(0, TOLERANCE, stamp(4, 11)), Err(Replayed::Old));
        assert_eq!(std::format!("{replay:?}"), "Replay { floor: Some(10), held: 2 }");
        assert!([stamp(1, 10), stamp(2, 20), stamp(3, 15), stamp(9, 9)].into_iter().all(|old| replay.knows(old)));
        assert!(!replay.knows(stamp(4, 11)), "refused for want of a place, never accepted");
    }

    #[test]
    fn s12_one_wrong_reading_of_the_clock_neither_forgets_nor_closes() {
        let mut replay = Replay::new([None, None, None]);
        assert_eq!(replay.check(1000, TOLERANCE, stamp(1, 1000)), Ok(()));
        assert_eq!(replay.check(i64::MAX, TOLERANCE, stamp(2, 1000)), Err(Replayed::Old));
        assert_eq!(replay.check(i64::MIN, TOLERANCE, stamp(2, 1000)), Err(Replayed::Ahead));
        assert_eq!(replay.check(1001, TOLERANCE, stamp(1, 1000)), Err(Replayed::Seen));
        assert_eq!(replay.check(1001, TOLERANCE, stamp(2, 1000)), Ok(()));
        // Back by more than the tolerance: what was accepted before is known all the same.
        assert_eq!(replay.check(3000, TOLERANCE, stamp(3, 3000)), Ok(()));
        assert_eq!(replay.check(1000, TOLERANCE, stamp(2, 1000)), Err(Replayed::Seen));
    }

    #[test]
    fn s11_without_a_place_only_later_stamps_pass() {
        let mut replay = Replay::new([]);
        assert_eq!(replay.check(0, Duration::MAX, stamp(1, 0)), Ok(()));
        assert_eq!(replay.check(0, Duration::MAX, stamp(1, 0)), Err(Replayed::Old));
        assert_eq!(replay.check(0, Duration::MAX, stamp(2, 0)), Err(Replayed::Old));
        assert_eq!(replay.check(0, Duration::MAX, stamp(3, i64::MAX)), Ok(()));
        assert_eq!(replay.check(i64::MIN, Duration::MAX, stamp(4, i64::MIN)), Err(Replayed::Old));
    }
}
