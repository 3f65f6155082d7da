//! Numbers that a machine only compares: how their hashes let two equal situations be recognised.
//!
//! Two sessions that differ by a constant in all their instants, or in all their connection numbers, behave alike. A search
//! that visits each situation once, or a cache of results, needs a hash that is the same for both. `Session: Hash` visits
//! every field; the types that only count say what they are before they say their number, so that a [`Hasher`] can replace
//! the number by its distance to the present one. Other hashers see one byte more.
//!
//! ```text
//! Instant, LinkId, DeliveryId, SplitMix64 ──hash──▶ write_i8(tag) · write_u64(number)
//! ```
//!
//! Invariants: nothing else in a session is hashed by `write_i8`; of the statistics only that is hashed on which
//! something depends.

use core::hash::Hasher;

/// Kind of a number that means something only relative to others of its kind.
///
/// ```
/// use bowline::{HashTag, Instant};
/// use core::hash::{Hash, Hasher};
///
/// /// Sees the distance of instants to `now`, and nothing else.
/// struct Distances { now: u64, tag: Option<HashTag>, seen: Vec<u64> }
/// impl Hasher for Distances {
///     fn write_i8(&mut self, tag: i8) {
///         self.tag = HashTag::from_byte(tag);
///     }
///     fn write_u64(&mut self, number: u64) {
///         if self.tag.take() == Some(HashTag::Instant) {
///             self.seen.push(number.wrapping_sub(self.now));
///         }
///     }
///     fn write(&mut self, _: &[u8]) {}
///     fn finish(&self) -> u64 {
///         0
///     }
/// }
/// let mut distances = Distances { now: 40, tag: None, seen: Vec::new() };
/// Instant::from_micros(42).hash(&mut distances);
/// assert_eq!(distances.seen, [2]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HashTag {
    /// Microseconds of an [`Instant`](crate::Instant); `u64::MAX` is a timer that is not armed.
    Instant,
    /// Number of a [`LinkId`](crate::LinkId); 0 is none.
    Link,
    /// Number of a [`DeliveryId`](crate::DeliveryId); 0 is none.
    Delivery,
    /// State of a [`SplitMix64`](crate::SplitMix64).
    Random,
}

impl HashTag {
    /// The tag that was given to [`Hasher::write_i8`], if it is one.
    #[must_use]
    pub const fn from_byte(byte: i8) -> Option<Self> {
        match byte {
            1 => Some(Self::Instant),
            2 => Some(Self::Link),
            3 => Some(Self::Delivery),
            4 => Some(Self::Random),
            _ => None,
        }
    }

    const fn byte(self) -> i8 {
        match self {
            Self::Instant => 1,
            Self::Link => 2,
            Self::Delivery => 3,
            Self::Random => 4,
        }
    }

    pub(crate) fn hash<H: Hasher>(self, number: u64, state: &mut H) {
        state.write_i8(self.byte());
        state.write_u64(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_is_read_as_it_was_written() {
        for tag in [HashTag::Instant, HashTag::Link, HashTag::Delivery, HashTag::Random] {
            assert_eq!(HashTag::from_byte(tag.byte()), Some(tag));
        }
        assert_eq!(HashTag::from_byte(0), None);
    }
}
