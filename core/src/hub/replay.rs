//! A signed frame counts once: it carries a nonce and the sender's time, and both are remembered here.
//!
//! ```text
//!                    too old ──────────────────────────────────▶ Old
//!  stamp, verified ─ too far ahead ────────────────────────────▶ Ahead
//!                    issued before this memory began, as far as
//!                      the signer's clock is known, or ≤ floor ─▶ Unjudged, until a later time of the signer's
//!                    nonce held ───────────────────────────────▶ Seen
//!                    else ───────────▶ accepted and held; if there is no place, the one issued first is given up for it,
//!                                      and floor = its time
//! ```
//!
//! Invariants: whatever was accepted is either held or was issued no later than the floor; the floor never falls. So
//! nothing is accepted twice, and that does not depend on any clock: the wall clock only bounds how old or how far ahead a
//! stamp may be at this moment. What is older than the tolerance is not forgotten by time but by need, being what was
//! issued first. Had it been forgotten by the clock, a clock that steps forward and back would let it in again; and were
//! every stamp measured by the largest wall time ever read, one wrong reading would close the door for ever. A step back
//! lets in nothing but what was never accepted before.
//!
//! A memory that begins (a restart, a session that was dismissed) does not know what the one before it accepted. What was
//! issued before its beginning is refused, but by the signer's clock and not by ours: the least by which a stamp was ever
//! behind our clock ([`Replay::behind`]) is how far the signer's clock is behind, and the way besides. So a signer whose
//! clock is wrong by less than the tolerance is accepted from the first moment; and what somebody else recorded before the
//! beginning passes only until the signer itself has been heard, each stamp once, and only while it is within the
//! tolerance.
//!
//! Two duties of the caller: the signature is verified first, or anybody fills the memory; one memory serves one signer, or
//! one that issues many stamps ahead of time raises the floor above the others'. Places for what one signer sends within
//! twice the tolerance suffice for none to be refused. A signer with several memories asks the others first ([`Replay::knows`]).
//! Field bugs: nonces forgotten by count alone, so that a flood of new ones opens the door to the old; a nonce kept
//! without its time, for ever; a fresh memory that refused for minutes every signer whose clock was behind.
//! Rules: S11 (bounded memory), S12 (nothing is forgotten in silence), U8, U11.

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
    /// Issued longer ago than the tolerance.
    Old,
    /// Issued further ahead of our clock than the tolerance.
    Ahead,
    /// The nonce was accepted before.
    Seen,
    /// Issued no later than what this memory has given up, or before it began: nobody can tell whether it was accepted.
    Unjudged {
        /// What the signer issues this much later can be judged.
        retry_after: Duration,
    },
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "issued too long ago",
            Self::Ahead => "issued in the future",
            Self::Seen => "nonce used before",
            Self::Unjudged { .. } => "issued before what is remembered",
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
    /// When it began, by our wall clock, if another one was lost before.
    began: Option<i64>,
    /// The least by which an accepted stamp was behind our wall clock: the signer's clock, and the way.
    behind: i64,
    item: PhantomData<Nonce>,
    slots: S,
}

impl<S: Slots<Nonce>> Replay<S> {
    /// An empty memory.
    pub fn new(mut slots: S) -> Self {
        for slot in slots.as_mut() {
            *slot = None;
        }
        Self { floor: None, began: None, behind: i64::MAX, item: PhantomData, slots }
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
        if stamp.issued < wall.saturating_sub(tolerance) {
            return Err(Replayed::Old);
        }
        if stamp.issued > wall.saturating_add(tolerance) {
            return Err(Replayed::Ahead);
        }
        let behind = self.behind.min(wall.saturating_sub(stamp.issued));
        // Of the signer's times, the first that can be judged.
        let given_up = self.floor.map(|floor| floor.saturating_add(1));
        let lost = self.began.map(|began| began.saturating_sub(behind));
        if let Some(first) = given_up.max(lost).filter(|first| stamp.issued < *first) {
            return Err(unjudged(stamp, first));
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
            Some(slot) => {
                let first = slot.as_ref().map_or(stamp.issued, |held| held.0.issued.saturating_add(1));
                return Err(unjudged(stamp, first));
            }
            None => Some(Nonce(stamp)),
        };
        self.behind = behind;
        // What is given up is above the floor, or it would not have been accepted after it: the floor never falls.
        if let Some(Nonce(stamp)) = given_up {
            self.floor = Some(stamp.issued);
        }
        Ok(())
    }

    /// This memory began when our wall clock said `wall`: what was issued before may have been accepted by one that is lost.
    pub const fn begins(&mut self, wall: i64) {
        self.began = Some(wall);
    }

    /// The least by which an accepted stamp was behind our wall clock, in microseconds; negative: it was ahead. The greatest
    /// number before the first.
    #[must_use]
    pub const fn behind(&self) -> i64 {
        self.behind
    }

    /// Another memory of this signer has accepted a stamp that was [`behind`](Self::behind) by this.
    pub fn is_behind(&mut self, behind: i64) {
        self.behind = self.behind.min(behind);
    }

    /// Whether it may have been accepted before: it is held, or was issued no later than what was given up. For a signer
    /// with several memories, of which none may accept what another one knows.
    #[must_use]
    pub fn knows(&self, stamp: Stamp) -> bool {
        self.floor.is_some_and(|floor| stamp.issued <= floor)
            || self.slots.as_ref().iter().flatten().any(|held| held.0.nonce == stamp.nonce)
    }
}

/// A stamp that cannot be judged, where one that was issued at `first` could.
fn unjudged(stamp: Stamp, first: i64) -> Replayed {
    let retry_after = u64::try_from(first.saturating_sub(stamp.issued)).unwrap_or_default();
    Replayed::Unjudged { retry_after: Duration::from_micros(retry_after) }
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
    use std::string::ToString as _;
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
                let text = outcome.map_err(|why| why.to_string());
                *outcomes.entry(std::format!("{text:?}")).or_insert(0) += 1;
                if outcome.is_ok() {
                    assert!(accepted.insert((nonce, issued)), "{nonce} twice, seed {seed}");
                    assert!((wall - issued).abs() <= 100);
                }
            }
        }
        assert!(outcomes.len() == 5 && outcomes.values().all(|&count| count > 1000), "{outcomes:?}");
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
        let unjudged = |micros| Err(Replayed::Unjudged { retry_after: Duration::from_micros(micros) });
        assert_eq!(replay.check(0, TOLERANCE, stamp(3, 10)), unjudged(1));
        assert_eq!(replay.check(0, TOLERANCE, stamp(2, 20)), Err(Replayed::Seen));
        assert_eq!(replay.check(0, TOLERANCE, stamp(3, 15)), Ok(()));
        assert_eq!(replay.check(0, TOLERANCE, stamp(1, 10)), unjudged(1));
        assert_eq!(replay.check(0, TOLERANCE, stamp(4, 11)), unjudged(5));
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
        let unjudged = |micros| Err(Replayed::Unjudged { retry_after: Duration::from_micros(micros) });
        assert_eq!(replay.check(0, Duration::MAX, stamp(1, 0)), unjudged(1));
        assert_eq!(replay.check(0, Duration::MAX, stamp(2, 0)), unjudged(1));
        assert_eq!(replay.check(0, Duration::MAX, stamp(3, i64::MAX)), Ok(()));
        assert!(matches!(replay.check(i64::MIN, Duration::MAX, stamp(4, i64::MIN)), Err(Replayed::Unjudged { .. })));
    }

    #[test]
    fn u11_a_new_memory_accepts_any_clock_within_the_tolerance_and_nothing_of_before_once_its_signer_was_heard() {
        // Our clock says 1000 when the memory begins; the signer's is off by this, and its words need 1 to reach us.
        for off in -99..=98 {
            let said = |nonce, at: i64| stamp(nonce, at + off);
            let mut replay = Replay::new(vec![None; 50]);
            replay.begins(1000);
            // Recorded from the memory before this one, and said again by somebody: nobody can tell.
            assert_eq!(replay.check(1000, TOLERANCE, said(1, 990)).is_ok(), off >= -90, "{off}");
            assert_eq!(replay.check(1001, TOLERANCE, said(2, 1000)), Ok(()), "{off}: the signer itself");
            assert_eq!(replay.behind(), 1 - off);
            for (nonce, at) in (3..).zip(905..999) {
                let again = replay.check(1001, TOLERANCE, said(nonce, at));
                let late = 1001 - (at + off) > 100;
                let unjudged = Replayed::Unjudged { retry_after: Duration::from_micros((999 - at) as u64) };
                assert_eq!(again, Err(if late { Replayed::Old } else { unjudged }), "{off} {at}");
            }
            // What it says from now on is accepted, in any order, and however long it needs within the tolerance.
            for (nonce, at) in (200..).zip([1040, 1003, 1020, 1002]) {
                assert_eq!(
                    replay.check(1041, TOLERANCE, said(nonce, at)).is_ok(),
                    1041 - (at + off) <= 100,
                    "{off} {at}"
                );
            }
        }
    }
}
