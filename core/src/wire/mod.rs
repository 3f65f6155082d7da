//! The wires we speak: one module a profile, and what they share, the names of foreign messages.
//!
//! A codec turns a frame's bytes into a head for the machines and a raw slice for the application, and back. This file
//! decides by which 128 bits a foreign message is known (rule I2) and when two bodies say the same (rule I4):
//!
//! ```text
//! id on the wire                                   MessageId
//!   canonical lower-case UUID ───────────────────▶ its 128 bits, which print as they came
//!   any other text ─────── SipHash-2-4-128 ──────▶ variant bits 111, which no UUID of ours can have
//!
//! kind, JSON body ──────── SipHash-2-4-128 ──────▶ ContentKey, white space between the tokens left out
//! ```
//!
//! Invariants: no panic and no unbounded work for any bytes; an id of an [`Origin`](crate::Origin) is never the hash of
//! a text; equal names need the key or chance (2⁻¹²⁵ for ids, 2⁻¹²⁸ for contents).
//!
//! Field facts this guards against: the Gonka ML node sends one batch as `{"a":1}` in a frame (Starlette's spelling) and
//! 3 s later, under no id, as `{"a": 1}` by HTTP (that of `requests`), so a key of the plain bytes would see two
//! messages; and an id a peer may choose must not let it choose which other message is taken for a duplicate.

pub mod aivillage;
pub mod bettensor;
pub mod canonical;
pub mod gonka;
pub mod native;
pub mod timestamp;

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;
use core::fmt::Write as _;
use core::hash::Hasher;

use serde_json::value::RawValue;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::ids::VARIANT;
use crate::{ContentKey, MessageId};

/// The longest foreign id in bytes; a longer one is malformed (rule I2).
pub const MAX_ID: usize = 64;

/// JSON's white space (RFC 8259, section 2).
const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Ends a part of what is hashed, so that "a" of "bc" is not "ab" of "c": a byte that no UTF-8 text has.
const END: u8 = 0xff;

/// Names foreign messages with a secret key, so that a peer cannot make two of them fall together.
///
/// The key is drawn once a process, from the system's entropy; a receiver that keeps its memory over a restart keeps
/// the key with it.
///
/// ```
/// use bowline::wire::KeyedHash;
/// let names = KeyedHash::new([7; 16]);
/// let uuid = "d1d40c53-a972-4b83-8efe-0e939229ea87";
/// assert_eq!(names.id(uuid).to_string(), uuid);
/// assert_ne!(names.id("17"), names.id("18"));
/// assert_eq!(names.content("generated", r#"{"a":[1,2]}"#), names.content("generated", r#"{"a": [1, 2]}"#));
/// assert_ne!(names.content("generated", "{}"), names.content("validated", "{}"));
/// ```
#[derive(Clone)]
pub struct KeyedHash([u8; 16]);

impl KeyedHash {
    /// A hash under this key; what it gives is the same on every platform and in every patch release (promise G8).
    #[must_use]
    pub const fn new(key: [u8; 16]) -> Self {
        Self(key)
    }

    /// The name of the message that a peer calls `text`. Only a canonical UUID can be printed back from it: the
    /// acknowledgement of any other id must carry the text as it came.
    #[must_use]
    pub fn id(&self, text: &str) -> MessageId {
        MessageId::parse_uuid(text).unwrap_or_else(|| {
            let mut hasher = self.hasher(b"id");
            hasher.write(text.as_bytes());
            MessageId::from_bits(u128::from(hasher.finish128()) | VARIANT)
        })
    }

    /// What a message of this kind says. White space outside strings does not count; the order of fields and the
    /// spelling of numbers and strings do, being the same on both paths of the peers we know.
    #[must_use]
    pub fn content(&self, kind: &str, json: &str) -> ContentKey {
        let mut hasher = self.hasher(b"content");
        hasher.write(kind.as_bytes());
        hasher.write(&[END]);
        let (mut rest, mut string) = (json.as_bytes(), false);
        // From one byte that matters to the next, not byte by byte: a hub does this for every message.
        while let Some(at) = rest.iter().position(|&byte| match byte {
            b'"' => true,
            b'\\' => string,
            b' ' | b'\t' | b'\n' | b'\r' => !string,
            _ => false,
        }) {
            let (kept, left_out) = match rest.get(at) {
                Some(b'"') => (1, 0),
                // With what it escapes.
                Some(b'\\') => (2, 0),
                _ => (0, 1),
            };
            string ^= kept == 1;
            let end = at.saturating_add(kept);
            hasher.write(rest.get(..end).unwrap_or(rest));
            rest = rest.get(end.saturating_add(left_out)..).unwrap_or_default();
        }
        hasher.write(rest);
        ContentKey::from_bits(u128::from(hasher.finish128()))
    }

    /// A hasher that has taken in its purpose, so that ids and contents are kept apart under one key.
    fn hasher(&self, purpose: &[u8]) -> SipHasher24 {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(purpose);
        hasher.write(&[END]);
        hasher
    }
}

impl fmt::Debug for KeyedHash {
    /// Without the key: logs are no place for it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyedHash")
    }
}

/// A string of at most `longest` bytes; copied only if it is written with escapes.
fn text(raw: &RawValue, longest: usize) -> Option<Cow<'_, str>> {
    // The longest spelling of a byte, \u0041, has six; so a long string is refused before it is unescaped.
    if raw.get().len() > longest.saturating_mul(6).saturating_add(2) {
        return None;
    }
    let plain = serde_json::from_str(raw.get()).map(Cow::Borrowed);
    let text: Cow<'_, str> = plain.or_else(|_| serde_json::from_str(raw.get()).map(Cow::Owned)).ok()?;
    (text.len() <= longest).then_some(text)
}

/// Writes a text as it stands between the quotes of a JSON string.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' => out.push_str(r#"\""#),
            '\\' => out.push_str(r"\\"),
            '\0'..='\u{1f}' => {
                // Writing to a `String` cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Origin, Seq};
    use std::format;
    use std::string::ToString;

    fn names() -> KeyedHash {
        KeyedHash::new(core::array::from_fn(|i| i as u8))
    }

    #[test]
    fn i2_a_canonical_uuid_is_kept_and_any_other_text_is_hashed() {
        let ours = Origin::new(0xabc, 6).message(Seq::FIRST);
        let text = ours.to_string();
        assert_eq!(names().id(&text), ours);
        for other in [text.to_uppercase(), text.replace('-', ""), "x".into(), "".into()] {
            assert_ne!(names().id(&other), ours, "{other}");
        }
    }

    #[test]
    fn i2_the_hash_of_a_text_is_never_an_id_of_ours() {
        let variant = |id: MessageId| (id.bits() >> 61) & 0b111;
        for n in 0..1000_u64 {
            assert_eq!(variant(names().id(&n.to_string())), 0b111);
            let ours = Origin::new(n << 40, u32::MAX).message(Seq::from_number(n << 44));
            assert_eq!(variant(ours) & 0b110, 0b100);
        }
    }

    #[test]
    fn i4_white_space_counts_inside_strings_only() {
        let say = |json| names().content("k", json);
        assert_eq!(say(r#"{"a":"b c","d":[1,2.0]}"#), say(" {\t\"a\" :\r\n \"b c\" , \"d\" : [ 1 , 2.0 ] } "));
        assert_ne!(say(r#"{"a":"b c"}"#), say(r#"{"a":"bc"}"#));
        assert_ne!(say(r#"{"a":"\" b"}"#), say(r#"{"a":"\"b"}"#));
        assert_eq!(say(r#"{"a":"\\" ,"b":1}"#), say(r#"{"a":"\\","b":1}"#));
        assert_ne!(say("[1,2]"), say("[12]"));
        assert_ne!(say("[1]"), say("[1.0]"));
    }

    #[test]
    fn kinds_keys_and_purposes_are_kept_apart() {
        assert_ne!(names().content("ab", "c"), names().content("a", "bc"));
        assert_ne!(names().id("x"), KeyedHash::new([1; 16]).id("x"));
    }

    #[test]
    fn g8_the_names_are_frozen() {
        // From an implementation of our own in another language, checked against the published SipHash-2-4-128 vectors.
        assert_eq!(names().id("id-7").to_string(), "bf978473-2f7e-1e87-fc3d-97b7ae1813f0");
        let key = ContentKey::from_bits(0x1520_b577_a0c2_222c_9d70_2940_3ab2_307d);
        assert_eq!(names().content("generated", "{\"a\": [1, 2]}\n"), key);
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", KeyedHash::new([7; 16])), "KeyedHash");
    }
}
