//! The members of a frame, raw until they are asked for, and the kinds of value they may have.

use alloc::borrow::Cow;
use core::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{MAX_AUTH, MAX_NAME, MAX_WORDS, Malformed};
use crate::ids::Seq;
use crate::wire::{WHITE, text};

/// A member's value as it stands in the frame; `null` counts as missing.
pub(super) type Raw<'a> = Option<&'a RawValue>;

/// Every member that is read, of a frame or of an object within.
#[derive(Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Raw<'a>,
    #[serde(borrow)]
    pub(super) seq: Raw<'a>,
    #[serde(borrow)]
    pub(super) una: Raw<'a>,
    #[serde(borrow, rename = "kind")]
    pub(super) name: Raw<'a>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    pub(super) data: Raw<'a>,
    #[serde(borrow)]
    pub(super) cum: Raw<'a>,
    #[serde(borrow)]
    pub(super) sack: Raw<'a>,
    #[serde(borrow)]
    pub(super) rcv: Raw<'a>,
    #[serde(borrow)]
    pub(super) rsack: Raw<'a>,
    #[serde(borrow)]
    pub(super) rej: Raw<'a>,
    #[serde(borrow)]
    pub(super) win: Raw<'a>,
    #[serde(borrow)]
    pub(super) n: Raw<'a>,
    #[serde(borrow)]
    pub(super) code: Raw<'a>,
    #[serde(borrow)]
    pub(super) after: Raw<'a>,
    #[serde(borrow)]
    pub(super) reason: Raw<'a>,
    #[serde(borrow)]
    pub(super) topic: Raw<'a>,
    #[serde(borrow)]
    pub(super) since: Raw<'a>,
    #[serde(borrow)]
    pub(super) ok: Raw<'a>,
    #[serde(borrow)]
    pub(super) epoch: Raw<'a>,
    #[serde(borrow)]
    pub(super) offset: Raw<'a>,
    #[serde(borrow)]
    pub(super) from: Raw<'a>,
    #[serde(borrow)]
    pub(super) to: Raw<'a>,
    #[serde(borrow)]
    pub(super) window: Raw<'a>,
    #[serde(borrow)]
    pub(super) auth: Raw<'a>,
    #[serde(borrow)]
    pub(super) token: Raw<'a>,
    #[serde(borrow)]
    pub(super) message: Raw<'a>,
    #[serde(borrow)]
    pub(super) frames: Raw<'a>,
    #[serde(borrow)]
    pub(super) wait: Raw<'a>,
    // Of hello and welcome.
    #[serde(borrow)]
    pub(super) v: Raw<'a>,
    #[serde(borrow)]
    pub(super) cid: Raw<'a>,
    #[serde(borrow)]
    pub(super) sid: Raw<'a>,
    #[serde(borrow)]
    pub(super) origin: Raw<'a>,
    #[serde(borrow)]
    pub(super) resume: Raw<'a>,
    #[serde(borrow)]
    pub(super) resumed: Raw<'a>,
    #[serde(borrow)]
    pub(super) rx: Raw<'a>,
    #[serde(borrow)]
    pub(super) tx: Raw<'a>,
    #[serde(borrow)]
    pub(super) next: Raw<'a>,
    #[serde(borrow)]
    pub(super) max_life: Raw<'a>,
    #[serde(borrow)]
    pub(super) dedupe_ttl: Raw<'a>,
    #[serde(borrow)]
    pub(super) order: Raw<'a>,
    #[serde(borrow)]
    pub(super) hb: Raw<'a>,
    #[serde(borrow)]
    pub(super) dead: Raw<'a>,
    #[serde(borrow)]
    pub(super) frame: Raw<'a>,
}

/// A payload may be `null`.
fn even_null<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Raw<'a>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// The members of one JSON object.
pub(super) fn object(json: &str) -> Result<Fields<'_>, Malformed> {
    // Without this an array would do: serde reads a struct from one too, field by field.
    if !json.trim_start_matches(WHITE).starts_with('{') {
        return Err(Malformed::Json);
    }
    // The members are raw, so the only thing a type can find wrong is one that occurs twice.
    serde_json::from_str(json).map_err(|e| if e.is_data() { Malformed::Twice } else { Malformed::Json })
}

/// The members of an object within a frame.
pub(super) fn inner<'a>(raw: Raw<'a>, name: &'static str) -> Result<Fields<'a>, Malformed> {
    raw.and_then(|raw| object(raw.get()).ok()).ok_or(Malformed::Member(name))
}

pub(super) fn number(raw: Raw<'_>, name: &'static str) -> Result<u64, Malformed> {
    let number = raw.and_then(|raw| raw.get().parse().ok());
    number.filter(|&number| number <= Seq::LAST.get()).ok_or(Malformed::Member(name))
}

pub(super) fn seq(raw: Raw<'_>, name: &'static str) -> Result<Seq, Malformed> {
    let seq = number(raw, name).map(Seq::from_number)?;
    if seq < Seq::FIRST { Err(Malformed::Member(name)) } else { Ok(seq) }
}

pub(super) fn span(raw: Raw<'_>, name: &'static str) -> Result<Duration, Malformed> {
    let millis = u32::try_from(number(raw, name)?).map_err(|_| Malformed::Member(name))?;
    Ok(Duration::from_millis(millis.into()))
}

pub(super) fn flag(raw: Raw<'_>, name: &'static str) -> Result<bool, Malformed> {
    raw.and_then(|raw| raw.get().parse().ok()).ok_or(Malformed::Member(name))
}

/// 1 to 16 hexadecimal digits; none if it is left out.
pub(super) fn map(raw: Raw<'_>, name: &'static str) -> Result<u64, Malformed> {
    let Some(raw) = raw else { return Ok(0) };
    text(raw, 16).and_then(|digits| hexadecimal(&digits)).ok_or(Malformed::Member(name))
}

/// Digits of either case and nothing else: `from_str_radix` would take a sign.
pub(super) fn hexadecimal(digits: &str) -> Option<u64> {
    let digits = Some(digits).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u64::from_str_radix(digits, 16).ok()
}

/// A string of 1 to 64 bytes.
pub(super) fn name<'a>(raw: Raw<'a>, name: &'static str) -> Result<Cow<'a, str>, Malformed> {
    raw.and_then(|raw| text(raw, MAX_NAME)).filter(|text| !text.is_empty()).ok_or(Malformed::Member(name))
}

/// One that may stand in a header, too.
pub(super) fn word<'a>(raw: Raw<'a>, name: &'static str) -> Result<Cow<'a, str>, Malformed> {
    let word = self::name(raw, name)?;
    if word.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(word) } else { Err(Malformed::Member(name)) }
}

pub(super) fn words<'a>(raw: Raw<'a>, name: &'static str) -> Result<Cow<'a, str>, Malformed> {
    raw.map_or(Some(Cow::Borrowed("")), |raw| text(raw, MAX_WORDS)).ok_or(Malformed::Member(name))
}

pub(super) fn auth(raw: &RawValue) -> Option<Cow<'_, str>> {
    text(raw, MAX_AUTH)
}
