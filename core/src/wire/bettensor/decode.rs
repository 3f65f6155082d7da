//! Reading frames: one pass over the flat object, everything in it raw until it is asked for.

use alloc::borrow::Cow;
use core::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{AUTH_LIMIT, Auth, Confirmation, Dialect, Envelope, Frame, Kind, MAX_NAME, Seal};
use crate::ContentKey;
use crate::wire::timestamp::Timestamp;
use crate::wire::{WHITE, text};

/// Why a frame or its data is not taken. No original closes on any of these: a validator answers with an error frame.
///
/// ```
/// use bowline::wire::bettensor::{Malformed, decode};
/// assert_eq!(decode(b"[]"), Err(Malformed::Json));
/// assert_eq!(decode(br#"{"type":"heartbeat","data":{}}"#), Err(Malformed::Sender));
/// assert_eq!(decode(br#"{"type":"x","sender":"5Grw","data":{},"signature":"00"}"#), Err(Malformed::Timestamp));
/// assert_eq!(Malformed::Data.to_string(), "data that is no JSON object");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Malformed {
    /// Not one JSON object in UTF-8.
    Json,
    /// A field we read occurs twice: readers would disagree on which one counts.
    Twice,
    /// An auth frame over [`AUTH_LIMIT`].
    Long,
    /// A type that is not a string of 1 to 64 bytes.
    Kind,
    /// A sender or hotkey that is not a string of 1 to 64 bytes.
    Sender,
    /// Data that is no JSON object.
    Data,
    /// A signed frame whose timestamp is missing or no instant.
    Timestamp,
    /// A signed frame whose nonce is not a string of 1 to 64 bytes.
    Nonce,
    /// A signature that is not 128 hexadecimal digits.
    Signature,
    /// A prediction or confirmation without an id, or with an empty one.
    Id,
    /// An id that is no string, such as a number.
    IdType,
    /// An id that is longer than 64 bytes.
    IdLong,
    /// A confirmation that does not say whether the prediction was accepted, or says both.
    Status,
}

impl Malformed {
    /// The member of the frame that is missing or wrong, by its name on the wire; `None` if it is the whole.
    #[must_use]
    pub const fn member(self) -> Option<&'static str> {
        match self {
            Self::Json | Self::Twice | Self::Long => None,
            Self::Kind => Some("type"),
            Self::Sender => Some("sender"),
            Self::Data => Some("data"),
            Self::Timestamp => Some("timestamp"),
            Self::Nonce => Some("nonce"),
            Self::Signature => Some("signature"),
            Self::Id | Self::IdType | Self::IdLong => Some("prediction_id"),
            Self::Status => Some("status"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "not one JSON object in UTF-8",
            Self::Twice => "a field that occurs twice",
            Self::Long => "an auth frame that is too long",
            Self::Kind => "a type that is not a string of 1 to 64 bytes",
            Self::Sender => "a sender that is missing or not a string of 1 to 64 bytes",
            Self::Data => "data that is no JSON object",
            Self::Timestamp => "a timestamp that is missing or not in ISO 8601 with a zone",
            Self::Nonce => "a nonce that is missing or not a string of 1 to 64 bytes",
            Self::Signature => "a signature that is missing or not 128 hexadecimal digits",
            Self::Id => "a prediction_id that is missing or empty",
            Self::IdType => "a prediction_id that is not a string",
            Self::IdLong => "a prediction_id that is longer than 64 bytes",
            Self::Status => "a confirmation that says neither success nor error, or both",
        })
    }
}

impl core::error::Error for Malformed {}

/// Reads a frame, text or binary, of either side.
///
/// # Errors
///
/// [`Malformed`] says what is wrong with it.
pub fn decode(frame: &[u8]) -> Result<Frame<'_>, Malformed> {
    let json = core::str::from_utf8(frame).map_err(|_| Malformed::Json)?;
    let fields: Fields<'_> = object(json)?;
    let Some(kind) = fields.kind else { return untyped(json, &fields) };
    let kind = Kind::parse(name(kind).ok_or(Malformed::Kind)?);
    if let Some(data) = fields.data.map(RawValue::get) {
        return Ok(Frame::Envelope(Envelope {
            kind,
            sender: fields.sender.and_then(name).ok_or(Malformed::Sender)?,
            data: data.starts_with('{').then_some(data).ok_or(Malformed::Data)?,
            seal: fields.signature.is_some().then(|| seal(&fields)).transpose()?,
            text: json,
        }));
    }
    match (kind.as_str(), fields.message) {
        ("confirmation", _) => confirmation(&fields).map(|read| Frame::Confirmation(Dialect::Docs, read)),
        ("prediction_confirmation", _) => confirmation(&fields).map(|read| Frame::Confirmation(Dialect::Service, read)),
        ("error", Some(why)) => Ok(Frame::Error { message: text(why, usize::MAX).unwrap_or_default() }),
        _ => Ok(Frame::Other),
    }
}

/// A frame without `type`.
fn untyped<'a>(json: &'a str, fields: &Fields<'a>) -> Result<Frame<'a>, Malformed> {
    let says = |field: Raw<'_>, word: &str| field.and_then(name).is_some_and(|name| name == word);
    if says(fields.message_type, Kind::Confirmation.as_str()) {
        return confirmation(fields).map(|read| Frame::Confirmation(Dialect::Flat, read));
    }
    if says(fields.status, "error") {
        return Ok(Frame::Refusal { message: said(fields) });
    }
    let Some(hotkey) = fields.hotkey else { return Ok(Frame::Other) };
    if json.len() > AUTH_LIMIT {
        return Err(Malformed::Long);
    }
    Ok(Frame::Auth(Auth { hotkey: name(hotkey).ok_or(Malformed::Sender)?, seal: seal(fields)?, text: json }))
}

/// The id in the data of a prediction. Without one no confirmation could ever be told to be its own: ask before such
/// data is accepted for sending.
///
/// ```
/// use bowline::wire::bettensor::{Malformed, prediction_id};
/// assert_eq!(prediction_id(r#"{"game_id":"game-1","prediction_id":"game-1_1795213203"}"#).as_deref(), Ok("game-1_1795213203"));
/// assert_eq!(prediction_id(r#"{"game_id":"game-1"}"#), Err(Malformed::Id));
/// assert_eq!(prediction_id(r#"{"prediction_id":17}"#), Err(Malformed::IdType));
/// ```
///
/// # Errors
///
/// [`Malformed`] if there is none, or the data is no JSON object.
pub fn prediction_id(data: &str) -> Result<Cow<'_, str>, Malformed> {
    id(object(data)?.prediction_id)
}

/// The id, or what is wrong with it.
fn id(raw: Raw<'_>) -> Result<Cow<'_, str>, Malformed> {
    let raw = raw.ok_or(Malformed::Id)?;
    match text(raw, MAX_NAME) {
        Some(id) if id.is_empty() => Err(Malformed::Id),
        Some(id) => Ok(id),
        // Half a surrogate pair is no string either.
        None if raw.get().starts_with('"') && raw.get().len() > MAX_NAME => Err(Malformed::IdLong),
        None => Err(Malformed::IdType),
    }
}

/// The `message` in the data of an [`Kind::Error`] or a [`Kind::Welcome`]; empty if there is none.
///
/// ```
/// use bowline::wire::bettensor::message;
/// assert_eq!(message(r#"{"message":"Unknown message type: odds"}"#).as_deref(), Ok("Unknown message type: odds"));
/// ```
///
/// # Errors
///
/// [`Malformed`] if the data is no JSON object.
pub fn message(data: &str) -> Result<Cow<'_, str>, Malformed> {
    object(data).map(|fields| said(&fields))
}

/// A field's value as it stands in the frame; `null` counts as missing.
type Raw<'a> = Option<&'a RawValue>;

/// Every field that is read, of a frame or of its data, in all dialects.
#[derive(Deserialize)]
pub(super) struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    sender: Raw<'a>,
    #[serde(borrow)]
    data: Raw<'a>,
    #[serde(borrow)]
    timestamp: Raw<'a>,
    #[serde(borrow)]
    nonce: Raw<'a>,
    #[serde(borrow)]
    signature: Raw<'a>,
    #[serde(borrow)]
    hotkey: Raw<'a>,
    #[serde(borrow)]
    message_type: Raw<'a>,
    #[serde(borrow)]
    prediction_id: Raw<'a>,
    #[serde(borrow)]
    status: Raw<'a>,
    #[serde(borrow)]
    success: Raw<'a>,
    #[serde(borrow)]
    message: Raw<'a>,
    #[serde(borrow)]
    miner_stats: Raw<'a>,
    #[serde(borrow)]
    content: Raw<'a>,
}

/// The fields of one JSON object.
pub(super) fn object(json: &str) -> Result<Fields<'_>, Malformed> {
    // Without this an array would do: serde reads a struct from one too, field by field.
    if !json.trim_start_matches(WHITE).starts_with('{') {
        return Err(Malformed::Json);
    }
    // The fields are raw, so the only thing a type can find wrong is a field that occurs twice.
    serde_json::from_str(json).map_err(|e| if e.is_data() { Malformed::Twice } else { Malformed::Json })
}

/// A confirmation from the fields of its data, or of a frame that has none.
pub(super) fn confirmation<'a>(fields: &Fields<'a>) -> Result<Confirmation<'a>, Malformed> {
    let by_status = match fields.status.map(|raw| name(raw).unwrap_or_default()).as_deref() {
        None => None,
        Some("success") => Some(true),
        Some("error") => Some(false),
        Some(_) => return Err(Malformed::Status),
    };
    let by_success = fields.success.map(|raw| raw.get().parse().map_err(|_| Malformed::Status)).transpose()?;
    let success = match (by_status, by_success) {
        (Some(one), Some(other)) if one != other => return Err(Malformed::Status),
        (one, other) => one.or(other).ok_or(Malformed::Status)?,
    };
    Ok(Confirmation {
        prediction_id: id(fields.prediction_id)?,
        success,
        message: said(fields),
        miner_stats: fields.miner_stats.map(RawValue::get),
        content: fields.content.and_then(name).and_then(|digits| digest(&digits)),
    })
}

/// 32 hexadecimal digits in lower case; anything else tells nothing.
fn digest(digits: &str) -> Option<ContentKey> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let whole = digits.len() == 32 && digits.bytes().all(is_digit);
    u128::from_str_radix(digits, 16).ok().filter(|_| whole).map(ContentKey::from_bits)
}

fn seal<'a>(fields: &Fields<'a>) -> Result<Seal<'a>, Malformed> {
    let timestamp = fields.timestamp.and_then(name).and_then(|text| Timestamp::parse(&text));
    Ok(Seal {
        timestamp: timestamp.ok_or(Malformed::Timestamp)?,
        nonce: fields.nonce.and_then(name).ok_or(Malformed::Nonce)?,
        signature: fields.signature.and_then(signature).ok_or(Malformed::Signature)?,
    })
}

/// 64 bytes in hexadecimal digits of either case. Python's reader takes spaces between the bytes, its writer makes none.
fn signature(raw: &RawValue) -> Option<[u8; 64]> {
    let mut bytes = [0; 64];
    let digits = text(raw, 128).filter(|digits| digits.len() == 128)?;
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

/// The words for people in a frame or its data.
fn said<'a>(fields: &Fields<'a>) -> Cow<'a, str> {
    fields.message.and_then(|raw| text(raw, usize::MAX)).unwrap_or_default()
}

/// A string of 1 to 64 bytes.
fn name(raw: &RawValue) -> Option<Cow<'_, str>> {
    text(raw, MAX_NAME).filter(|text| !text.is_empty())
}
