//! The names of things: connections, messages, deliveries, requests.
//!
//! Every effect that leaves a machine carries one of these, and the result brings it back; whatever belongs to
//! something that is over is recognised by its number alone and ignored (rule R7, promise G6).
//!
//! ```text
//! MessageId   one message for its whole life, on every path and every try   (rules I1, I2)
//!   = origin (48 bit) · epoch (26 bit) · seq (48 bit), printed as a UUIDv8, or a foreign id
//! LinkId      one connection attempt, the generation                          (R7)
//! PostId      one HTTP request of ours; RequestId: one HTTP request of the peer's
//! DeliveryId  one hand-over of an inbound message to the application
//! ```
//!
//! Invariants: an id is never reused within the life of the machine that gave it; ids only grow.

use crate::tag::HashTag;
use core::fmt;
use core::hash::{Hash, Hasher};

/// The generation of a connection: one per attempt, counted from 1, never reused (rule R7).
///
/// ```
/// use bowline::LinkId;
/// assert!(LinkId::NONE < LinkId::NONE.next());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LinkId(u64);

impl Hash for LinkId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        HashTag::Link.hash(self.0, state);
    }
}

impl LinkId {
    /// Stands for "no connection yet"; no machine ever gives it out.
    pub const NONE: Self = Self(0);

    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number, for logs and recordings.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The id with this number, for a recording that is played again.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}", self.0)
    }
}

/// The number of an outbound message, from 1, at most 2⁴⁸ − 1 (rules S1, I2).
///
/// ```
/// use bowline::Seq;
/// assert_eq!(Seq::FIRST.get(), 1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seq(u64);

impl Seq {
    /// Stands for "no message"; no outbox ever gives it out.
    pub const NONE: Self = Self(0);
    /// The first number of every epoch.
    pub const FIRST: Self = Self(1);
    /// The last one: 48 bits fit the printed id; a new epoch starts before it is reached (rule I2).
    pub const LAST: Self = Self((1 << 48) - 1);

    /// The number of the next message.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// This number moved on by `n`.
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        Self(self.0.saturating_add(n))
    }

    /// How many numbers lie between `earlier` and this one; 0 if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sequence number with this value, for a recording that is played again.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What a message is called on every wire, on every try and on every path: 128 bits (rules I1, I2).
///
/// Ours are `(origin, epoch, seq)` printed as a UUIDv8 (RFC 9562, section 5.8). Foreign UUIDs are kept as they are; any
/// other foreign id is kept as a keyed 128-bit hash, which the wire codec computes.
///
/// ```
/// use bowline::{MessageId, Origin, Seq};
/// let id = Origin::new(7, 1).message(Seq::FIRST);
/// assert_eq!(MessageId::parse_uuid(&id.to_string()), Some(id));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(Halves);

impl MessageId {
    /// An id from its 128 bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(Halves::of(bits))
    }

    /// Its 128 bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0.whole()
    }

    /// The id of the message that its peer calls this and that has this content, for peers that use an id again (rule I6). Two
    /// fall together by chance (2⁻¹²⁵), or where the peer makes them so, which confuses its own messages alone.
    ///
    /// ```
    /// use bowline::{ContentKey, MessageId};
    /// let id = MessageId::from_bits(7);
    /// assert_ne!(id.with(ContentKey::from_bits(1)), id.with(ContentKey::from_bits(2)));
    /// ```
    #[must_use]
    pub const fn with(self, key: ContentKey) -> Self {
        Self::from_bits(self.bits() ^ key.bits() | VARIANT)
    }

    /// Its 128 bits in two words, the higher one first.
    pub(crate) const fn halves(self) -> (u64, u64) {
        (self.0.high, self.0.low)
    }

    /// Reads the canonical form, hyphenated and in lower case; anything else is `None`, because the id is echoed byte for
    /// byte and these 128 bits print in no other way.
    #[must_use]
    pub fn parse_uuid(text: &str) -> Option<Self> {
        if text.len() != 36 {
            return None;
        }
        let mut bits: u128 = 0;
        for (at, byte) in text.bytes().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            let digit = if byte.is_ascii_uppercase() { None } else { char::from(byte).to_digit(16) }?;
            bits = (bits << 4) | u128::from(digit);
        }
        Some(Self::from_bits(bits))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let b = self.bits();
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            b >> 96,
            (b >> 80) & 0xffff,
            (b >> 64) & 0xffff,
            (b >> 48) & 0xffff,
            b & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The variant bits of a UUID (RFC 9562, section 4.1): all three set is "reserved", ours are `10x`. What is made of a keyed hash
/// has them set, and so never passes for an id of ours (rule I2).
pub(crate) const VARIANT: u128 = 0b111 << 61;

/// A 128-bit key of what a message *says*, for types whose repetition means the same message (rule I4).
///
/// ```
/// use bowline::ContentKey;
/// assert_ne!(ContentKey::from_bits(1), ContentKey::from_bits(2));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ContentKey(Halves);

impl ContentKey {
    /// A key from its 128 bits, normally a keyed hash of the payload.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(Halves::of(bits))
    }

    /// Its 128 bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0.whole()
    }

    /// Its 128 bits in two words, the higher one first.
    pub(crate) const fn halves(self) -> (u64, u64) {
        (self.0.high, self.0.low)
    }
}

/// 128 bits in two words: a `u128` asks for 16-byte places, which would leave holes in every table of ids.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Halves {
    high: u64,
    low: u64,
}

impl Halves {
    #[expect(clippy::cast_possible_truncation, reason = "each half keeps just its 64 bits")]
    const fn of(bits: u128) -> Self {
        Self { high: (bits >> 64) as u64, low: bits as u64 }
    }

    const fn whole(self) -> u128 {
        ((self.high as u128) << 64) | self.low as u128
    }
}

/// Who numbers the messages: 48 bits of identity and an epoch of 26 bits that grows whenever the counters may have
/// been lost (rule I3).
///
/// ```
/// use bowline::{Origin, Seq};
/// let before = Origin::new(0xabcdef, 1);
/// let after = Origin::new(0xabcdef, 2);
/// assert_ne!(before.message(Seq::FIRST), after.message(Seq::FIRST));
/// assert_eq!(before.seq_of(before.message(Seq::FIRST)), Some(Seq::FIRST));
/// assert_eq!(after.seq_of(before.message(Seq::FIRST)), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    identity: u64,
    epoch: u32,
}

impl Origin {
    /// `identity` is cut to 48 bits (hash a name to get one), `epoch` to 26 bits: with a start every second it lasts
    /// two years, so seconds since a date of the deployment's own make a good epoch where nothing durable exists.
    #[must_use]
    pub const fn new(identity: u64, epoch: u32) -> Self {
        Self { identity: identity & 0xffff_ffff_ffff, epoch: epoch & 0x03ff_ffff }
    }

    /// The 48 bits of identity.
    #[must_use]
    pub const fn identity(self) -> u64 {
        self.identity
    }

    /// The 26 bits of epoch.
    #[must_use]
    pub const fn epoch(self) -> u32 {
        self.epoch
    }

    /// The id of this origin's message `seq`: 48 bits of identity, version 8, 12 + 14 bits of epoch around the variant,
    /// 48 bits of sequence number.
    #[must_use]
    pub fn message(self, seq: Seq) -> MessageId {
        let epoch = u128::from(self.epoch);
        MessageId::from_bits(
            (u128::from(self.identity) << 80)
                | (0x8 << 76)
                | ((epoch >> 14) << 64)
                | (0b10 << 62)
                | ((epoch & 0x3fff) << 48)
                | u128::from(seq.get() & 0xffff_ffff_ffff),
        )
    }

    /// The number of the message with this id, if it is one of this origin and epoch.
    #[must_use]
    pub fn seq_of(self, id: MessageId) -> Option<Seq> {
        let low = u64::try_from(id.bits() & 0xffff_ffff_ffff).ok()?;
        let seq = Seq(low);
        (seq >= Seq::FIRST && self.message(seq) == id).then_some(seq)
    }
}

/// One HTTP request of ours: which message and which try.
///
/// ```
/// # use bowline::{PostId, Seq};
/// let first = PostId { seq: Seq::FIRST, attempt: 1 };
/// assert!(first < PostId { seq: Seq::FIRST, attempt: 2 });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PostId {
    /// The message it carries.
    pub seq: Seq,
    /// Counted over the session from 1, so a late answer to an earlier request is recognised.
    pub attempt: u32,
}

/// One HTTP request of the peer's, numbered by the adapter as it likes; it must not reuse a number that still waits
/// for its answer.
///
/// ```
/// # use bowline::RequestId;
/// assert_eq!(RequestId(3), RequestId(3));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// One hand-over of an inbound message to the application, named again when the application completes it.
///
/// ```
/// # use bowline::DeliveryId;
/// assert_eq!(DeliveryId::from_number(3).get(), 3);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DeliveryId(u64);

impl Hash for DeliveryId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        HashTag::Delivery.hash(self.0, state);
    }
}

impl DeliveryId {
    /// Stands for "no delivery"; no machine ever gives it out.
    pub const NONE: Self = Self(0);

    /// The delivery with this number, for a recording that is played again.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Counted over the session from 1.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The delivery after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn i2_printed_form_is_a_uuid_of_version_8() {
        let text = Origin::new(u64::MAX, u32::MAX).message(Seq::LAST).to_string();
        assert_eq!(text, "ffffffff-ffff-8fff-bfff-ffffffffffff");
        let text = Origin::new(0, 0).message(Seq::FIRST).to_string();
        assert_eq!(text, "00000000-0000-8000-8000-000000000001");
    }

    #[test]
    fn i2_an_ack_maps_back_to_its_number_without_a_table() {
        let origin = Origin::new(0x1234_5678_9abc, 0x2ab_cdef);
        for n in [1, 2, 0xffff, (1 << 48) - 1] {
            let id = origin.message(Seq(n));
            assert_eq!(origin.seq_of(MessageId::parse_uuid(&id.to_string()).unwrap()), Some(Seq(n)));
        }
        assert_eq!(origin.seq_of(origin.message(Seq(0))), None);
        assert_eq!(origin.seq_of(MessageId::from_bits(5)), None);
    }

    #[test]
    fn i3_an_older_epoch_is_somebody_else() {
        let old = Origin::new(9, 4).message(Seq(3));
        assert_eq!(Origin::new(9, 5).seq_of(old), None);
    }

    #[test]
    fn foreign_text_is_never_a_uuid_by_accident() {
        for text in [
            "",
            "x",
            "00000000-0000-8000-8000-00000000000g",
            "00000000_0000-8000-8000-000000000001",
            "0000000A-0000-8000-8000-000000000001",
            "00000000-0000-8000-8000-00000000000F",
            "０0000000-0000-8000-8000-00000000",
        ] {
            assert_eq!(MessageId::parse_uuid(text), None);
        }
    }

    #[test]
    fn a_parsed_uuid_prints_as_it_came() {
        for text in ["d1d40c53-a972-4b83-8efe-0e939229ea87", "00000000-0000-0000-0000-000000000000"] {
            assert_eq!(MessageId::parse_uuid(text).unwrap().to_string(), text);
        }
    }
}
