//! Randomness that is the same for ever: SplitMix64, its stream frozen by published test vectors (promise G8).
//!
//! Own code on purpose: replay depends on the stream, and the well-known crates change theirs within a major version.
//! Not for secrets. The algorithm is Sebastiano Vigna's, as in `java.util.SplittableRandom` (Steele, Lea, Flood 2014).
//!
//! ```text
//! state ──+ golden gamma──▶ state      output = mix(state)
//! ```
//!
//! Invariants: no panic, no division; equal seeds give equal streams (rule B9).

use crate::tag::HashTag;
use core::hash::{Hash, Hasher};

/// A seeded generator of 64-bit numbers.
///
/// ```
/// use bowline::SplitMix64;
/// let mut rng = SplitMix64::new(1234567);
/// assert_eq!(rng.next_u64(), 6457827717110365317);
/// assert!(rng.up_to(10) <= 10);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SplitMix64(u64);

impl Hash for SplitMix64 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        HashTag::Random.hash(self.0, state);
    }
}

impl SplitMix64 {
    /// A generator; clients of one fleet must differ in their seeds, or they reconnect in step (rule B9).
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for one of many that share a seed: the identity is mixed in, so that a fleet started from one image
    /// still spreads (rule B9).
    #[must_use]
    pub const fn for_identity(seed: u64, identity: u64) -> Self {
        let mut of_identity = Self(identity);
        Self(seed ^ of_identity.next_u64())
    }

    /// The next number.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `max`, both included, by multiply and shift: no division, no rejection loop; the bias is below
    /// 2⁻⁴⁰ for every span of time used here.
    pub fn up_to(&mut self, max: u64) -> u64 {
        let wide = u128::from(self.next_u64()).wrapping_mul(u128::from(max).wrapping_add(1));
        u64::try_from(wide >> 64).unwrap_or(max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g8_published_vectors() {
        let mut rng = SplitMix64::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        for value in expected {
            assert_eq!(rng.next_u64(), value);
        }
    }

    #[test]
    fn up_to_reaches_both_ends_and_nothing_beyond() {
        let mut rng = SplitMix64::new(3);
        let mut seen = [false; 4];
        for _ in 0..200 {
            seen[usize::try_from(rng.up_to(3)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 4]);
        assert_eq!(rng.up_to(0), 0);
        let _ = rng.up_to(u64::MAX);
    }

    #[test]
    fn b9_one_image_many_clients_spread() {
        let mut one = SplitMix64::for_identity(42, 1);
        let mut two = SplitMix64::for_identity(42, 2);
        assert_ne!(one.next_u64(), two.next_u64());
        assert_eq!(SplitMix64::for_identity(42, 1), SplitMix64::for_identity(42, 1));
    }
}
