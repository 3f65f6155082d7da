//! Writing frames: the canonical form that is signed, and behind its last field the signature.
//!
//! The originals' frames differ from these in the order of their fields and in white space, and from each other as well;
//! nobody can tell, since whoever verifies writes them anew. So what is sent is what was signed, and needs no second pass.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Write as _;

use super::{Confirmation, Kind};
use crate::wire::canonical::{self, Uncanonical, string};
use crate::wire::timestamp::Timestamp;

/// Who sends when, for each frame anew: a validator refuses a nonce that it has seen from this sender.
///
/// ```
/// use bowline::wire::bettensor::{Stamp, Unsigned};
/// use bowline::wire::timestamp::Timestamp;
/// let stamp = |nonce| Stamp { sender: "5Grw", timestamp: Timestamp::from_unix_micros(0), nonce };
/// assert_ne!(Unsigned::heartbeat(stamp("17")), Unsigned::heartbeat(stamp("18")));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp<'a> {
    /// The sender's hotkey, an SS58 address: 1 to 64 bytes, or no receiver of ours takes it.
    pub sender: &'a str,
    /// Now; the validator takes an auth frame that differs by at most 300 s.
    pub timestamp: Timestamp,
    /// Any text of 1 to 64 bytes that this sender never used before.
    pub nonce: &'a str,
}

/// A frame that waits for its signature.
///
/// ```
/// use bowline::wire::bettensor::{Stamp, Unsigned};
/// use bowline::wire::timestamp::Timestamp;
/// let stamp = Stamp { sender: "5Grw", timestamp: Timestamp::from_unix_micros(1_743_422_400_500_000), nonce: "17" };
/// let frame = Unsigned::auth(stamp);
/// let said = r#"{"hotkey": "5Grw", "nonce": "17", "timestamp": "2025-03-31T12:00:00.500000+00:00""#;
/// assert_eq!(frame.signing_string(), [said, "}"].concat());
/// assert_eq!(frame.signed(&[0xab; 64]), [said, r#", "signature": ""#, &"ab".repeat(64), r#""}"#].concat());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Unsigned(String);

impl Unsigned {
    /// A miner's first frame.
    #[must_use]
    pub fn auth(stamp: Stamp<'_>) -> Self {
        let (hotkey, nonce, timestamp) = stamp.fields();
        Self(object([("hotkey", &*hotkey), ("nonce", &nonce), ("timestamp", &timestamp)]))
    }

    /// An envelope of any kind around a JSON object; that of a prediction must have a
    /// [`prediction_id`](super::prediction_id).
    ///
    /// ```
    /// use bowline::wire::bettensor::{Kind, Stamp, Unsigned};
    /// use bowline::wire::timestamp::Timestamp;
    /// let stamp = Stamp { sender: "5Grw", timestamp: Timestamp::from_unix_micros(0), nonce: "17" };
    /// let frame = Unsigned::message(stamp, &Kind::Prediction, r#"{"prediction_id":"é-1","confidence":75e-2}"#)?;
    /// let said = r#"{"data": {"confidence": 0.75, "prediction_id": "\u00e9-1"}, "nonce": "17", "sender": "5Grw", "#;
    /// assert_eq!(frame.signing_string(), [said, r#""timestamp": "1970-01-01T00:00:00+00:00", "type": "prediction"}"#].concat());
    /// # Ok::<(), bowline::wire::canonical::Uncanonical>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Uncanonical`] says what is wrong with the data.
    pub fn message(stamp: Stamp<'_>, kind: &Kind<'_>, data: &str) -> Result<Self, Uncanonical> {
        canonical::inner_object(data, 1).map(|data| Self::envelope(stamp, kind, &data))
    }

    /// A validator's answer to an auth frame that it takes. The original miner takes anything for one that is an object
    /// without `status: "error"`.
    #[must_use]
    pub fn welcome(stamp: Stamp<'_>) -> Self {
        Self::envelope(stamp, &Kind::Welcome, r#"{"message": "Connection established", "status": "success"}"#)
    }

    /// What became of a prediction.
    ///
    /// ```
    /// use bowline::wire::bettensor::{Confirmation, Stamp, Unsigned};
    /// use bowline::wire::timestamp::Timestamp;
    /// let stamp = Stamp { sender: "5Grw", timestamp: Timestamp::from_unix_micros(0), nonce: "17" };
    /// let stats = Some(r#"{"rank":5E-1}"#);
    /// let confirmation = Confirmation { prediction_id: "p-1".into(), success: true, message: "".into(), miner_stats: stats,
    ///     content: None };
    /// let frame = Unsigned::confirmation(stamp, &confirmation)?;
    /// let data = r#"{"data": {"message": "", "miner_stats": {"rank": 0.5}, "prediction_id": "p-1", "status": "success", "#;
    /// assert!(frame.signing_string().starts_with(data));
    /// # Ok::<(), bowline::wire::canonical::Uncanonical>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Uncanonical`] says what is wrong with the miner's statistics.
    pub fn confirmation(stamp: Stamp<'_>, confirmation: &Confirmation<'_>) -> Result<Self, Uncanonical> {
        let stats = confirmation.miner_stats.map(|stats| canonical::inner(stats, 2)).transpose()?;
        let (message, id) = (string(&confirmation.message), string(&confirmation.prediction_id));
        let status = if confirmation.success { r#""success""# } else { r#""error""# };
        let (_, _, timestamp) = stamp.fields();
        let stats = stats.as_deref().map(|stats| ("miner_stats", stats));
        let content = confirmation.content.map(|content| format!(r#""{:032x}""#, content.bits()));
        let content = content.as_deref().map(|content| ("content", content));
        let before = content.into_iter().chain([("message", message.as_str())]).chain(stats);
        let after = [("prediction_id", id.as_str()), ("status", status), ("timestamp", &timestamp)];
        Ok(Self::envelope(stamp, &Kind::Confirmation, &object(before.chain(after))))
    }

    /// The games: a JSON array.
    ///
    /// # Errors
    ///
    /// [`Uncanonical`] says what is wrong with the games.
    pub fn game_update(stamp: Stamp<'_>, games: &str) -> Result<Self, Uncanonical> {
        let games = canonical::inner(games, 2)?;
        let (_, _, timestamp) = stamp.fields();
        Ok(Self::envelope(stamp, &Kind::GameUpdate, &object([("games", &*games), ("timestamp", &timestamp)])))
    }

    /// To be answered with a [`heartbeat_ack`](Self::heartbeat_ack) by a validator, and with a
    /// [`heartbeat_response`](Self::heartbeat_response) by a miner.
    #[must_use]
    pub fn heartbeat(stamp: Stamp<'_>) -> Self {
        Self::envelope(stamp, &Kind::Heartbeat, "{}")
    }

    /// A validator's answer to a heartbeat.
    #[must_use]
    pub fn heartbeat_ack(stamp: Stamp<'_>) -> Self {
        Self::envelope(stamp, &Kind::HeartbeatAck, "{}")
    }

    /// A miner's answer to a heartbeat; the original validator answers it with an error, and is none the worse for it.
    #[must_use]
    pub fn heartbeat_response(stamp: Stamp<'_>) -> Self {
        Self::envelope(stamp, &Kind::HeartbeatResponse, "{}")
    }

    /// A validator can make nothing of a frame that was signed as it should be. If it was not, [`encode_error`].
    #[must_use]
    pub fn error(stamp: Stamp<'_>, message: &str) -> Self {
        Self::envelope(stamp, &Kind::Error, &object([("message", &*string(message))]))
    }

    /// What to sign: the canonical form, in UTF-8.
    #[must_use]
    pub fn signing_string(&self) -> &str {
        &self.0
    }

    /// The frame, to be sent as text.
    #[must_use]
    pub fn signed(self, signature: &[u8; 64]) -> String {
        let Self(mut text) = self;
        text.pop();
        text.push_str(r#", "signature": ""#);
        for byte in signature {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.push_str(r#""}"#);
        text
    }

    fn envelope(stamp: Stamp<'_>, kind: &Kind<'_>, data: &str) -> Self {
        let (sender, nonce, timestamp) = stamp.fields();
        let kind = string(kind.as_str());
        let fields =
            [("data", data), ("nonce", &nonce), ("sender", &sender), ("timestamp", &timestamp), ("type", &kind)];
        Self(object(fields))
    }
}

impl Stamp<'_> {
    /// Sender, nonce and timestamp as JSON.
    fn fields(&self) -> (String, String, String) {
        (string(self.sender), string(self.nonce), string(&self.timestamp.to_string()))
    }
}

/// Tells a miner that it is not let in, before the close with [`CLOSE_CODE`](super::CLOSE_CODE).
///
/// ```
/// use bowline::wire::bettensor::{REFUSED, encode_refusal};
/// assert_eq!(encode_refusal(REFUSED), r#"{"message": "Invalid authentication", "status": "error"}"#);
/// ```
#[must_use]
pub fn encode_refusal(message: &str) -> String {
    object([("message", &*string(message)), ("status", r#""error""#)])
}

/// Tells a miner that its frame was not what it should be, most often by [`BAD_MESSAGE`](super::BAD_MESSAGE); unsigned.
///
/// ```
/// use bowline::wire::bettensor::{BAD_MESSAGE, encode_error};
/// use bowline::wire::timestamp::Timestamp;
/// let frame = encode_error(BAD_MESSAGE, Timestamp::from_unix_micros(0));
/// let said = r#"{"message": "Invalid message signature or structure", "timestamp": "1970-01-01T00:00:00+00:00", "#;
/// assert_eq!(frame, [said, r#""type": "error"}"#].concat());
/// ```
#[must_use]
pub fn encode_error(message: &str, timestamp: Timestamp) -> String {
    let timestamp = string(&timestamp.to_string());
    object([("message", &*string(message)), ("timestamp", &timestamp), ("type", r#""error""#)])
}

/// As [`encode_error`], with the member that is missing or wrong and the prediction it concerns, where they are known
/// (rule E4). An original reads the message alone.
///
/// ```
/// use bowline::wire::bettensor::{BAD_MESSAGE, encode_member_error};
/// use bowline::wire::timestamp::Timestamp;
/// let frame = encode_member_error(BAD_MESSAGE, Some("nonce"), Some("g1_17"), Timestamp::from_unix_micros(0));
/// assert!(frame.starts_with(r#"{"member": "nonce", "message": "#) && frame.contains(r#""prediction_id": "g1_17""#));
/// ```
#[must_use]
pub fn encode_member_error(
    message: &str,
    member: Option<&str>,
    prediction_id: Option<&str>,
    timestamp: Timestamp,
) -> String {
    let [message, timestamp] = [message, &timestamp.to_string()].map(string);
    let (member, id) = (member.map(string), prediction_id.map(string));
    let fields = [
        member.as_deref().map(|member| ("member", member)),
        Some(("message", &*message)),
        id.as_deref().map(|id| ("prediction_id", id)),
        Some(("timestamp", &*timestamp)),
        Some(("type", r#""error""#)),
    ];
    object(fields.into_iter().flatten())
}

/// An object in canonical form, from fields in the order of their names, and values that are in it.
fn object<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::from("{");
    for (name, value) in fields {
        out.push_str(if out.len() == 1 { "\"" } else { ", \"" });
        out.push_str(name);
        out.push_str("\": ");
        out.push_str(value);
    }
    out.push('}');
    out
}
