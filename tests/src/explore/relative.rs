//! The hash under which two situations are one: 128 bits, with every number that only counts taken relative to the present.
//!
//! ```text
//! Instant     t − now, cut to −PAST … +FUTURE; a timer that is not armed stays apart
//! LinkId      newest − n                        DeliveryId   newest − n
//! SplitMix64  not at all
//! ```

use bowline::HashTag;
use core::hash::{Hash, Hasher};
use siphasher::sip128::{Hasher128, SipHasher13};

/// In microseconds: no setting of an explored session that is added to an instant in the past is longer, and which of two
/// instants was earlier is asked only of messages that are waited for, which takes less.
pub(super) const PAST: i64 = 30_000_000;

/// In microseconds: every timer but the memory for completed messages, which outlasts every execution, is due sooner.
pub(super) const FUTURE: i64 = 1_000_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Relative {
    sip: SipHasher13,
    now: u64,
    links: u64,
    deliveries: u64,
    tag: Option<HashTag>,
}

impl Relative {
    /// Hashes what holds at `now`, when these many connections and deliveries have been numbered.
    #[must_use]
    pub(super) fn at(now: u64, links: u64, deliveries: u64) -> Self {
        Self { sip: SipHasher13::new(), now, links, deliveries, tag: None }
    }

    /// The 128 bits.
    #[must_use]
    pub(super) fn digest(&self) -> u128 {
        self.sip.finish128().as_u128()
    }
}

/// The 128 bits of something in which nothing is relative any more.
#[must_use]
pub(super) fn digest(of: &impl Hash) -> u128 {
    let mut sip = SipHasher13::new();
    of.hash(&mut sip);
    sip.finish128().as_u128()
}

/// The distance of an instant to the present.
fn distance(instant: u64, now: u64) -> i64 {
    if instant == u64::MAX {
        return i64::MAX;
    }
    let distance = i64::try_from(i128::from(instant) - i128::from(now)).expect("centuries are not explored");
    distance.clamp(-PAST, FUTURE)
}

impl Hasher for Relative {
    fn write_i8(&mut self, byte: i8) {
        assert!(self.tag.is_none(), "a tag is followed by its number");
        self.tag = HashTag::from_byte(byte);
        assert!(self.tag.is_some(), "only tags are hashed as this type");
    }

    fn write_u64(&mut self, number: u64) {
        match self.tag.take() {
            None => self.sip.write_u64(number),
            Some(HashTag::Instant) => self.sip.write_i64(distance(number, self.now)),
            Some(HashTag::Link) => self.sip.write_u64(if number == 0 { u64::MAX } else { self.links - number }),
            Some(HashTag::Delivery) => {
                self.sip.write_u64(if number == 0 { u64::MAX } else { self.deliveries - number })
            }
            Some(HashTag::Random) => {}
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.sip.write(bytes);
    }

    fn finish(&self) -> u64 {
        self.sip.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::{Instant, LinkId, SplitMix64};

    fn hash(of: impl Hash, now: u64, links: u64) -> u128 {
        let mut relative = Relative::at(now, links, 0);
        of.hash(&mut relative);
        relative.digest()
    }

    #[test]
    fn what_differs_by_a_constant_is_the_same() {
        let (early, late) = (Instant::from_micros(7), Instant::from_micros(107));
        assert_eq!(hash(early, 5, 0), hash(late, 105, 0));
        assert_ne!(hash(early, 5, 0), hash(early, 6, 0));
        let link = LinkId::from_number;
        assert_eq!(hash(link(1), 0, 2), hash(link(4), 0, 5));
        assert_ne!(hash(LinkId::NONE, 0, 2), hash(link(2), 0, 2));
        assert_eq!(hash(SplitMix64::new(1), 0, 0), hash(SplitMix64::new(2), 0, 0));
    }

    #[test]
    fn the_far_past_is_one_and_the_far_future_is_not_never() {
        let second = 1_000_000;
        let at = |seconds: u64| Instant::from_micros(seconds * second);
        assert_eq!(hash(at(1), 100 * second, 0), hash(at(60), 100 * second, 0));
        assert_ne!(hash(at(1), 100 * second, 0), hash(at(95), 100 * second, 0));
        let mut armed = bowline::Timer::disarmed();
        let never = hash(armed.clone(), 0, 0);
        armed.arm(at(1_000_000));
        assert_ne!(hash(armed, 0, 0), never);
    }
}
