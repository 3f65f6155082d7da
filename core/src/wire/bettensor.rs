//! The wire of Bettensor: signed envelopes between miners and validators, and the confirmations of other dialects.
//!
//! It decides what a frame is, which bytes its signature is over, and where in the frame the data lies; the data itself
//! goes on as the raw text that came. Whether the signature holds, the nonce is new and the sender is who it should be is
//! for those who have keys, memory and a clock. The miner dials [`PATH`]:
//!
//! ```text
//! miner ── {"hotkey":…,"timestamp":…,"nonce":…,"signature":…} ──▶ validator     first frame; signed: all but the signature
//!       ◀── welcome, or {"status":"error","message":…} and 1008 ──
//!
//!       ── prediction ──────────────────────────────────────────▶             {"type":…,"sender":…,"data":{…},
//!       ◀───────── confirmation, success or error, by prediction_id ──            "timestamp":…,"nonce":…,"signature":…}
//!       ◀─────────────────────────────────────────── game_update ──
//!       ── heartbeat ───────────────────────────────────────────▶             signed: these five without the signature,
//!       ◀───────────────────────────────────────── heartbeat_ack ──           in the canonical form
//!       ◀───────────────────────────────────────────── heartbeat ──
//!       ── heartbeat_response ──────────────────────────────────▶             answered with an error by the original
//! ```
//!
//! Invariants: no panic and no recursion in decoding, whatever the bytes, and no copy of data; what is encoded decodes to
//! itself. It takes what the originals send and what they take, except for what none of them sends: we refuse a field
//! twice, names and nonces that are empty or over 64 bytes, an auth frame over 4 KiB, a timestamp without zone, and half
//! a surrogate pair in a text that is read. A field that is `null` is missing; fields nobody knows are ignored.
//!
//! Field facts and bugs this guards against:
//! * what is signed is not the frame: it is written anew by Python ([`canonical`]), so verify [`Envelope::signing_string`];
//! * both originals drop unknown fields of an envelope before they verify, but verify those of an auth frame: so do we;
//! * the miner verifies a signature only if there is one. A [`Frame::Confirmation`], a [`Frame::Error`] and an envelope
//!   without [`Seal`] are anyone's word: a profile takes them only if it was told to;
//! * confirmations lie under `data` or flat, in two documents of one project; [`Frame::confirmation`] reads all of them;
//! * the validator answers an unknown type with an error frame, so send it none; a binary frame makes it deaf, so what
//!   is encoded here is a `String`;
//! * a prediction without `prediction_id` is never confirmed: check data with [`prediction_id`] before it is accepted.

mod decode;
mod encode;

use alloc::borrow::Cow;
use alloc::string::String;

use super::KeyedHash;
use super::canonical::{self, Uncanonical};
use super::timestamp::Timestamp;
use crate::ContentKey;

pub use decode::{Malformed, decode, message, prediction_id};
pub use encode::{Stamp, Unsigned, encode_error, encode_member_error, encode_refusal};

/// The WebSocket endpoint of a validator, on the port of its axon.
pub const PATH: &str = "/ws";
/// Where a validator says by HTTP how many miners it serves.
pub const HEALTH_PATH: &str = "/ws/health";

/// The longest frame a validator reads, 16 MiB: uvicorn's default.
pub const VALIDATOR_LIMIT: usize = 16 << 20;
/// The longest frame a miner reads, 1 MiB: its library's default; a longer one is closed on with 1009.
pub const MINER_LIMIT: usize = 1 << 20;
/// The longest auth frame: it comes from anyone, and the originals' has 350 bytes.
pub const AUTH_LIMIT: usize = 4096;

/// The close code of a validator that refuses a miner, after the [`Frame::Refusal`].
pub const CLOSE_CODE: u16 = 1008;
/// Message and reason of a refusal: fields, time or signature are wrong.
pub const REFUSED: &str = "Invalid authentication";
/// Message of a refusal: nobody of this name is in the metagraph.
pub const REFUSED_UNKNOWN: &str = "Hotkey not registered in metagraph";
/// The close reason that goes with [`REFUSED_UNKNOWN`].
pub const CLOSE_UNKNOWN: &str = "Unregistered hotkey";
/// The reason, with code 1000, when the same miner dials again.
pub const CLOSE_REPLACED: &str = "New connection established";
/// The reason, with code 1000, after five minutes of silence.
pub const CLOSE_SILENT: &str = "Connection timeout";
/// The reason, with code 1000, when the validator stops.
pub const CLOSE_STOPPING: &str = "Server shutting down";
/// What the unsigned error frame says: fields are missing, the signature does not hold, or the nonce was seen.
pub const BAD_MESSAGE: &str = "Invalid message signature or structure";

/// The longest type, name of a sender or nonce in bytes; and of an id, see [`MAX_ID`](super::MAX_ID).
const MAX_NAME: usize = super::MAX_ID;

/// What is in an envelope: its `type`.
///
/// ```
/// use bowline::wire::bettensor::Kind;
/// assert_eq!(Kind::parse("game_update".into()), Kind::GameUpdate);
/// assert_eq!(Kind::parse("odds".into()), Kind::Custom("odds".into()));
/// assert_eq!(Kind::HeartbeatAck.as_str(), "heartbeat_ack");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Kind<'a> {
    /// A miner's word; confirmed by its `prediction_id`.
    Prediction,
    /// The validator has dealt with a prediction.
    Confirmation,
    /// The games as the validator knows them.
    GameUpdate,
    /// From both sides every 60 s.
    Heartbeat,
    /// The validator's answer to a heartbeat.
    HeartbeatAck,
    /// The miner's answer to a heartbeat; the original validator answers it with an error.
    HeartbeatResponse,
    /// The miner is let in.
    Welcome,
    /// The validator makes nothing of a frame.
    Error,
    /// Any other type.
    Custom(Cow<'a, str>),
}

impl<'a> Kind<'a> {
    const KNOWN: [Self; 8] = [
        Self::Prediction,
        Self::Confirmation,
        Self::GameUpdate,
        Self::Heartbeat,
        Self::HeartbeatAck,
        Self::HeartbeatResponse,
        Self::Welcome,
        Self::Error,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Prediction => "prediction",
            Self::Confirmation => "confirmation",
            Self::GameUpdate => "game_update",
            Self::Heartbeat => "heartbeat",
            Self::HeartbeatAck => "heartbeat_ack",
            Self::HeartbeatResponse => "heartbeat_response",
            Self::Welcome => "welcome",
            Self::Error => "error",
            Self::Custom(name) => name,
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: Cow<'a, str>) -> Self {
        Self::KNOWN.into_iter().find(|kind| kind.as_str() == name).unwrap_or(Self::Custom(name))
    }
}

/// What a frame is. It borrows from the bytes it was decoded from.
///
/// ```
/// use bowline::wire::bettensor::{self, Frame};
/// let refusal = bettensor::decode(br#"{"status": "error", "message": "Invalid authentication"}"#)?;
/// assert_eq!(refusal, Frame::Refusal { message: bettensor::REFUSED.into() });
/// assert_eq!(bettensor::decode(b"{}")?, Frame::Other);
/// # Ok::<(), bettensor::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// A miner's first.
    Auth(Auth<'a>),
    /// Everything else that is signed, and the documents' unsigned likeness of it.
    Envelope(Envelope<'a>),
    /// A confirmation of a dialect that has no `data`, and no signature.
    Confirmation(Dialect, Confirmation<'a>),
    /// The validator does not let the miner in, and closes.
    Refusal {
        /// [`REFUSED`], [`REFUSED_UNKNOWN`] or any other.
        message: Cow<'a, str>,
    },
    /// The validator refused a frame, unsigned: most often [`BAD_MESSAGE`].
    Error {
        /// The words of the validator.
        message: Cow<'a, str>,
    },
    /// Any other JSON object: another dialect's, or nobody's. A validator answers it with [`BAD_MESSAGE`].
    Other,
}

impl<'a> Frame<'a> {
    /// The confirmation in this frame, in whichever dialect it is spelt; `None` if the frame is something else.
    ///
    /// ```
    /// use bowline::wire::bettensor::{self, Dialect};
    /// let frame = br#"{"message_type":"confirmation","prediction_id":"p-1","success":false,"message":"Game not found"}"#;
    /// let (dialect, confirmation) = bettensor::decode(frame)?.confirmation()?.unwrap();
    /// assert_eq!((dialect, confirmation.success), (Dialect::Flat, false));
    /// assert_eq!((&*confirmation.prediction_id, &*confirmation.message), ("p-1", "Game not found"));
    /// # Ok::<(), bettensor::Malformed>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Malformed`] says what is wrong with the data of a confirmation.
    pub fn confirmation(self) -> Result<Option<(Dialect, Confirmation<'a>)>, Malformed> {
        match self {
            Self::Envelope(envelope) if envelope.kind == Kind::Confirmation => {
                Confirmation::read(envelope.data).map(|read| Some((envelope.dialect(), read)))
            }
            Self::Confirmation(dialect, confirmation) => Ok(Some((dialect, confirmation))),
            Self::Auth(_) | Self::Envelope(_) | Self::Refusal { .. } | Self::Error { .. } | Self::Other => Ok(None),
        }
    }
}

/// Who speaks like this.
///
/// ```
/// use bowline::wire::bettensor::{self, Dialect, Frame};
/// let frame = bettensor::decode(br#"{"type":"heartbeat","sender":"hotkey","data":{}}"#)?;
/// assert!(matches!(frame, Frame::Envelope(envelope) if envelope.dialect() == Dialect::Docs));
/// # Ok::<(), bettensor::Malformed>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// The validator, and the miner it understands.
    Signed,
    /// The documents: the same without timestamp, nonce and signature, sometimes without `data`.
    Docs,
    /// The miner's other client: `message_type`, `success`, everything at the top.
    Flat,
    /// The miner's third client: `prediction_confirmation`.
    Service,
}

/// A miner's first frame.
///
/// ```
/// use bowline::wire::bettensor::{self, Frame, Stamp, Unsigned};
/// use bowline::wire::timestamp::Timestamp;
/// let stamp = Stamp { sender: "5Grw", timestamp: Timestamp::from_unix_micros(0), nonce: "17" };
/// let unsigned = Unsigned::auth(stamp);
/// let said = unsigned.signing_string().to_owned();
/// let frame = unsigned.signed(&[7; 64]);
/// let Frame::Auth(auth) = bettensor::decode(frame.as_bytes())? else { unreachable!() };
/// assert_eq!((&*auth.hotkey, &*auth.seal.nonce, auth.seal.signature), ("5Grw", "17", [7; 64]));
/// assert_eq!(auth.signing_string(), Ok(said));
/// # Ok::<(), bettensor::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// Who it says it is, an SS58 address.
    pub hotkey: Cow<'a, str>,
    /// When and with what nonce it was signed, and the signature.
    pub seal: Seal<'a>,
    text: &'a str,
}

impl Auth<'_> {
    /// What the signature must be over: every field of the frame but the signature.
    ///
    /// # Errors
    ///
    /// [`Uncanonical`] if no Python could have signed it, or no two readers would agree on what.
    pub fn signing_string(&self) -> Result<String, Uncanonical> {
        canonical::without(self.text, &["signature"])
    }
}

/// A frame with data.
///
/// ```
/// use bowline::wire::bettensor::{self, Frame, Kind};
/// let frame = br#"{"type":"prediction","sender":"5Grw","data":{"prediction_id":"p-1","confidence":1.0}}"#;
/// let Frame::Envelope(envelope) = bettensor::decode(frame)? else { unreachable!() };
/// assert_eq!((envelope.kind, envelope.data), (Kind::Prediction, r#"{"prediction_id":"p-1","confidence":1.0}"#));
/// assert_eq!(bettensor::prediction_id(envelope.data)?, "p-1");
/// # Ok::<(), bettensor::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope<'a> {
    /// Its type.
    pub kind: Kind<'a>,
    /// Who it says it is from, an SS58 address.
    pub sender: Cow<'a, str>,
    /// The JSON object as it came.
    pub data: &'a str,
    /// Without one it is unsigned.
    pub seal: Option<Seal<'a>>,
    text: &'a str,
}

impl Envelope<'_> {
    /// What the signature must be over: of the fields of the frame these five. No other is read.
    ///
    /// # Errors
    ///
    /// [`Uncanonical`] if no Python could have signed it, or no two readers would agree on what.
    pub fn signing_string(&self) -> Result<String, Uncanonical> {
        canonical::only(self.text, &["type", "sender", "data", "timestamp", "nonce"])
    }

    /// Signed, or as in the documents.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        if self.seal.is_some() { Dialect::Signed } else { Dialect::Docs }
    }
}

/// What makes a frame one that was signed, once.
///
/// ```
/// use bowline::wire::bettensor::{self, Frame, Stamp, Unsigned};
/// use bowline::wire::timestamp::Timestamp;
/// let stamp = Stamp { sender: "5Grw", timestamp: Timestamp::from_unix_micros(5), nonce: "18" };
/// let frame = Unsigned::heartbeat(stamp).signed(&[7; 64]);
/// let Frame::Envelope(heartbeat) = bettensor::decode(frame.as_bytes())? else { unreachable!() };
/// assert_eq!(heartbeat.seal.map(|seal| (seal.timestamp.unix_micros(), seal.signature)), Some((5, [7; 64])));
/// # Ok::<(), bettensor::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seal<'a> {
    /// When; the original validator looks at it in the auth frame only, where it allows 300 s.
    pub timestamp: Timestamp,
    /// 1 to 64 bytes, new for every frame of a sender; the originals count milliseconds.
    pub nonce: Cow<'a, str>,
    /// By sr25519.
    pub signature: [u8; 64],
}

/// What became of a prediction.
///
/// ```
/// use bowline::wire::bettensor::Confirmation;
/// let read = Confirmation::read(r#"{"prediction_id":"p-1","status":"success","message":"ok","miner_stats":{"rank":1}}"#)?;
/// assert_eq!((read.success, read.miner_stats), (true, Some(r#"{"rank":1}"#)));
/// # Ok::<(), bowline::wire::bettensor::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Confirmation<'a> {
    /// 1 to 64 bytes.
    pub prediction_id: Cow<'a, str>,
    /// Whether it was accepted.
    pub success: bool,
    /// For people; may be empty.
    pub message: Cow<'a, str>,
    /// JSON as it came, if any did.
    pub miner_stats: Option<&'a str>,
    /// What the message says that it is about ([`content_of`]), if the validator tells: a Bowline does, an original does not.
    pub content: Option<ContentKey>,
}

/// Returns the digest of what a message says, by which a validator tells messages of one id apart (rule I6) and which its
/// confirmation repeats: of the type and the data without the members that are new each time it is said (`timestamp`, `nonce`,
/// `signature`), in the canonical form.
///
/// The hash has no secret key, since both sides compute it: a miner that makes two messages of one digest confuses its own.
///
/// ```
/// use bowline::wire::bettensor::content_of;
/// let first = content_of("prediction", r#"{"prediction_id":"game-1_17","score":1,"timestamp":"12:00"}"#);
/// assert_eq!(content_of("prediction", r#"{"score": 1, "timestamp": "12:01", "prediction_id": "game-1_17"}"#), first);
/// assert_ne!(content_of("prediction", r#"{"prediction_id":"game-1_17","score":2,"timestamp":"12:00"}"#), first);
/// ```
#[must_use]
pub fn content_of(kind: &str, data: &str) -> ContentKey {
    let said = canonical::without(data, &["timestamp", "nonce", "signature"]);
    KeyedHash::new([0; 16]).content(kind, said.as_deref().unwrap_or(data))
}

impl<'a> Confirmation<'a> {
    /// Reads the data of a confirmation: `status` or, as other dialects have it, `success`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] says what is wrong with it.
    pub fn read(data: &'a str) -> Result<Self, Malformed> {
        decode::confirmation(&decode::object(data)?)
    }
}
