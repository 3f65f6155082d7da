//! Bettensor's validator: its miners' hotkeys, signatures and confirmations.
//!
//! ```text
//!  auth frame ─▶ claim ─▶ its signature holds ─▶ welcome        envelope ─▶ signed by that hotkey? ─▶ read
//!  every frame of ours: signed, with a timestamp and a nonce of its own
//! ```
//!
//! Decided here: whether a frame is an envelope that the authenticated hotkey has signed. Whether it is fresh, and what
//! follows from it, is the machine's.

use super::line::wall;
use super::message::Message;
use super::setup::HubSetup;
use super::wire::{Claim, Complaint, Content, Farewell, Heard, HubWire, Letter, Misread, Said, Text};
use super::{Admission, Hub};
use crate::http::{Bytes, HttpAnswer, Routes};
use crate::keys::{Hotkey, Keypair};
use crate::setup::SetupError;
use bowline::ContentKey;
use bowline::hub::{BETTENSOR_HUB, CloseReason, Stamp};
use bowline::wire::bettensor::{
    self, AUTH_LIMIT, BAD_MESSAGE, CLOSE_REPLACED, CLOSE_STOPPING, CLOSE_UNKNOWN, Envelope, Frame, Kind, MINER_LIMIT,
    Malformed, REFUSED, REFUSED_UNKNOWN, Seal, Unsigned,
};
use bowline::wire::{KeyedHash, timestamp::Timestamp};
use core::time::Duration;
use std::borrow::Cow;

/// Bettensor's side of the validator. Made by [`HubSetup::validator`].
///
/// ```
/// use bowline_transport::hub::{HubSetup, HubWire, Validator};
/// use bowline_transport::Keypair;
/// let setup: HubSetup<Validator> = HubSetup::validator("127.0.0.1:0", Keypair::from_seed_hex(&"07".repeat(32))?)?;
/// assert_eq!(Validator::LONGEST_FRAME, 64 * 1024);
/// # let _ = setup;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Validator {
    keys: Keypair,
    address: String,
}

/// An auth frame's words and the signature they are said to have.
///
/// ```
/// # use bowline_transport::hub::Proof;
/// fn is_opaque(proof: &Proof) -> String {
///     format!("{proof:?}")
/// }
/// # let _ = is_opaque;
/// ```
#[derive(Clone, Debug)]
pub struct Proof {
    said: String,
    signature: Box<[u8; 64]>,
}

impl Validator {
    /// With these keys.
    pub(super) fn new(keys: Keypair) -> Self {
        let address = keys.hotkey().to_string();
        Self { keys, address }
    }

    fn error(&self, message: &str) -> Text {
        self.keys.seal(|stamp| Unsigned::error(stamp, message)).into()
    }

    /// What a miner is told of a frame that is not what it should be: which member, of which prediction.
    fn malformed(member: Option<&str>, frame: &[u8]) -> Heard {
        let id = concerned(frame);
        let error = bettensor::encode_member_error(BAD_MESSAGE, member, id.as_deref(), now());
        Heard { reply: Some(error.into()), ..Heard::MALFORMED }
    }

    /// The message in an envelope, or what is wrong with it.
    fn content_in(envelope: &Envelope<'_>, whole: &Bytes) -> Result<Content, Malformed> {
        let id = match bettensor::prediction_id(envelope.data) {
            Ok(id) => Some(id),
            // A type without an id.
            Err(Malformed::Id) if envelope.kind != Kind::Prediction => None,
            Err(why) => return Err(why),
        };
        let kind = match &envelope.kind {
            Kind::Prediction => Cow::Borrowed("prediction"),
            other => Cow::Owned(other.as_str().to_owned()),
        };
        Ok(Content { kind, data: whole.slice_ref(envelope.data.as_bytes()), id: id.map(Into::into) })
    }
}

impl HubWire for Validator {
    type Peer = Hotkey;
    type Proof = Proof;
    type Confirmation = Confirmation;
    type Encoded = Text;

    /// A prediction has half a kilobyte.
    const LONGEST_FRAME: usize = 64 * 1024;
    const LONGEST_FIRST: usize = AUTH_LIMIT;
    const LONGEST_SENT: usize = MINER_LIMIT;
    /// The original's handler dies of one (wire facts 2.2).
    const READS_BINARY: bool = false;
    /// Receivers allow 300 s.
    const SHELF_LIFE: Option<Duration> = Some(Duration::from_secs(60));

    fn routes(&self) -> Routes<'static> {
        Routes {
            websockets: &[bettensor::PATH],
            callbacks: &["/ws/messages"],
            pages: &[bettensor::HEALTH_PATH, "/metrics"],
            guarded: true,
            ..Routes::NONE
        }
    }

    fn claim(&self, names: &KeyedHash, text: &str) -> Option<Claim<Self>> {
        let Ok(Frame::Auth(auth)) = bettensor::decode(text.as_bytes()) else { return None };
        let (peer, said) = (auth.hotkey.parse().ok()?, auth.signing_string().ok()?);
        let stamp = Some(stamp(&auth.seal, names));
        Some(Claim { peer, proof: Proof { said, signature: Box::new(auth.seal.signature) }, stamp })
    }

    fn holds(&self, peer: &Hotkey, proof: &Proof) -> bool {
        peer.verify(proof.said.as_bytes(), &proof.signature)
    }

    fn read(&self, names: &KeyedHash, peer: &Hotkey, text: &Bytes) -> Heard {
        let envelope = match bettensor::decode(text) {
            Ok(Frame::Envelope(envelope)) => envelope,
            Ok(_) => return Self::malformed(None, text),
            Err(why) => return Self::malformed(why.member(), text),
        };
        if envelope.sender.parse::<Hotkey>().is_ok_and(|sender| sender != *peer) {
            return Self::malformed(Some("sender"), text);
        }
        let Some(stamp) = sealed(&envelope, peer, names) else { return Self::malformed(Some("signature"), text) };
        let heard = Heard { stamp: Some(stamp), ..Heard::OTHER };
        match envelope.kind {
            Kind::Heartbeat => Heard { reply: Some(self.keys.seal(Unsigned::heartbeat_ack).into()), ..heard },
            // Life, like a pong, but no proof that anything has arrived: it may be older than what was sent.
            Kind::HeartbeatResponse => heard,
            Kind::Confirmation | Kind::GameUpdate | Kind::HeartbeatAck | Kind::Welcome | Kind::Error => heard,
            Kind::Prediction | Kind::Custom(_) => match Self::content_in(&envelope, text) {
                Ok(content) => Heard { said: Said::Message(content), ..heard },
                Err(why) => Heard { reply: Some(self.error(&format!("{BAD_MESSAGE}: {why}"))), ..heard },
            },
        }
    }

    fn letter(&self, names: &KeyedHash, body: &Bytes) -> Result<Letter<Hotkey>, Misread> {
        let envelope = match bettensor::decode(body) {
            Ok(Frame::Envelope(envelope)) => envelope,
            Ok(_) => return Err(Misread::Malformed("not an envelope".into())),
            Err(why) => {
                let id = concerned(body).map(|id| format!(", in prediction {id}")).unwrap_or_default();
                return Err(Misread::Malformed(format!("{why}{id}").into()));
            }
        };
        let Ok(peer) = envelope.sender.parse::<Hotkey>() else {
            return Err(Misread::Malformed("the sender is no hotkey".into()));
        };
        let stamp = sealed(&envelope, &peer, names).ok_or(Misread::Forged)?;
        let content = Self::content_in(&envelope, body).map_err(|why| Misread::Malformed(why.to_string().into()))?;
        let heard = Heard { said: Said::Message(content), stamp: Some(stamp), reply: None };
        Ok(Letter { peer, heard })
    }

    /// A receiver signs nothing.
    fn is_peers(&self, answer: &HttpAnswer) -> bool {
        answer.is_api_answer()
    }

    fn encode(&self, kind: &str, data: &str) -> Result<Text, Cow<'static, str>> {
        let message = |stamp: bettensor::Stamp<'_>| Unsigned::message(stamp, &Kind::parse(Cow::Borrowed(kind)), data);
        self.keys.try_seal(message).map(Into::into).map_err(|why| why.to_string().into())
    }

    fn size(encoded: &Text) -> usize {
        encoded.len()
    }

    fn frame(&self, encoded: &Text, _: &Hotkey) -> Text {
        encoded.clone()
    }

    fn welcome(&self, _: &Hotkey, window: Duration) -> Option<Text> {
        let window = window.as_secs();
        let data = format!(r#"{{"message":"Connection established","reconnect_window":{window},"status":"success"}}"#);
        self.encode(Kind::Welcome.as_str(), &data).ok()
    }

    /// As both sides of the wire compute it: a confirmation repeats it.
    fn content(&self, _: &KeyedHash, kind: &str, data: &str) -> ContentKey {
        bettensor::content_of(kind, data)
    }

    /// Without the statistics if they cannot be signed.
    fn confirmation(&self, id: &str, content: ContentKey, said: Result<&Confirmation, &str>) -> Option<Text> {
        let (success, message, stats) = match said {
            Ok(said) => (true, &*said.message, said.miner_stats.as_deref()),
            Err(why) => (false, why, None),
        };
        let seal = |miner_stats| {
            let (prediction_id, message, content) = (id.into(), message.into(), Some(content));
            let said = bettensor::Confirmation { prediction_id, success, message, miner_stats, content };
            self.keys.try_seal(|stamp| Unsigned::confirmation(stamp, &said))
        };
        seal(stats).or_else(|_| seal(None)).ok().map(Into::into)
    }

    fn complain(&self, _: &Hotkey, complaint: Complaint<'_>) -> Option<Text> {
        Some(match complaint {
            // Unsigned: this is said under the hub's lock.
            Complaint::Malformed => bettensor::encode_error(BAD_MESSAGE, now()).into(),
            Complaint::Member { member, id } => {
                bettensor::encode_member_error(BAD_MESSAGE, Some(member), id, now()).into()
            }
            // Not on this wire: another content under a known id is another message.
            Complaint::Reused(id) => {
                bettensor::encode_member_error(BAD_MESSAGE, Some("prediction_id"), Some(id), now()).into()
            }
            Complaint::Timestamp { why, id } => {
                let message = format!("{BAD_MESSAGE}: {why}");
                bettensor::encode_member_error(&message, Some("timestamp"), id, now()).into()
            }
            Complaint::TooMuch => bettensor::encode_error("Too many messages", now()).into(),
            Complaint::Unhandled("prediction") => self.error("No handler registered for predictions"),
            Complaint::Unhandled(kind) => self.error(&format!("Unknown message type: {kind}")),
        })
    }

    fn farewell(&self, why: CloseReason, said: Option<&str>) -> Farewell {
        let refusal = |refusal: &str| Some(bettensor::encode_refusal(refusal).into());
        let said = said.unwrap_or(REFUSED);
        match why {
            CloseReason::Impostor | CloseReason::Replayed => {
                Farewell { frame: refusal(REFUSED), reason: REFUSED.into() }
            }
            // The words of the original, and what it never says.
            CloseReason::WrongClock => {
                let said = format!("{REFUSED}: {said}");
                Farewell { frame: refusal(&said), reason: said.into() }
            }
            CloseReason::Unknown if said == REFUSED_UNKNOWN => {
                Farewell { frame: refusal(said), reason: CLOSE_UNKNOWN.into() }
            }
            CloseReason::Unknown => Farewell { frame: refusal(said), reason: said.to_owned().into() },
            CloseReason::Replaced => Farewell { frame: None, reason: CLOSE_REPLACED.into() },
            CloseReason::Draining => Farewell { frame: None, reason: CLOSE_STOPPING.into() },
            _ => Farewell { frame: None, reason: why.to_string().into() },
        }
    }
}

/// The prediction that a frame is about, however wrong the frame is.
fn concerned(frame: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Whole<'a> {
        #[serde(borrow)]
        data: &'a serde_json::value::RawValue,
    }
    let Whole { data } = serde_json::from_slice(frame).ok()?;
    bettensor::prediction_id(data.get()).ok().map(Cow::into_owned)
}

fn stamp(seal: &Seal<'_>, names: &KeyedHash) -> Stamp {
    let nonce = names.content("nonce", &seal.nonce).bits() & u128::from(u64::MAX);
    Stamp { nonce: u64::try_from(nonce).unwrap_or_default(), issued: seal.timestamp.unix_micros() }
}

/// Whether an envelope is one that `who` has signed, and its stamp.
fn sealed(envelope: &Envelope<'_>, who: &Hotkey, names: &KeyedHash) -> Option<Stamp> {
    let seal = envelope.seal.as_ref()?;
    let said = envelope.signing_string().ok()?;
    who.verify(said.as_bytes(), &seal.signature).then(|| stamp(seal, names))
}

impl HubSetup<Validator> {
    /// Bettensor's validator, listening on `address` with these keys; port 0 lets the system choose.
    ///
    /// # Errors
    /// The address makes no sense, or its name is unknown.
    pub fn validator(address: &str, keys: Keypair) -> Result<Self, SetupError> {
        Self::with(address, Validator::new(keys), BETTENSOR_HUB)
    }
}

impl Hub<Validator> {
    /// The validator's hotkey, as an address.
    #[must_use]
    pub fn hotkey(&self) -> &str {
        &self.wire().address
    }
}

impl Message<Hotkey> {
    /// Who signed it.
    #[must_use]
    pub const fn hotkey(&self) -> Hotkey {
        self.peer
    }
}

impl Admission {
    /// It is not in the metagraph, said as the original says it.
    #[must_use]
    pub const fn unregistered() -> Self {
        Self::Refuse(Cow::Borrowed(REFUSED_UNKNOWN))
    }
}

/// What the confirmation of a message says.
///
/// ```
/// use bowline_transport::hub::Confirmation;
/// let confirmation = Confirmation::new("stored").miner_stats(r#"{"rank":0.5}"#);
/// assert_eq!(confirmation.message, "stored");
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Confirmation {
    /// For people.
    pub message: Cow<'static, str>,
    /// The miner's statistics, a JSON object; left out if it is no JSON that can be signed.
    pub miner_stats: Option<String>,
}

impl Confirmation {
    /// With these words.
    #[must_use]
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), miner_stats: None }
    }

    /// With statistics.
    #[must_use]
    pub fn miner_stats(mut self, json: impl Into<String>) -> Self {
        self.miner_stats = Some(json.into());
        self
    }
}

impl From<()> for Confirmation {
    fn from((): ()) -> Self {
        Self::new("Prediction received")
    }
}

impl From<&'static str> for Confirmation {
    fn from(message: &'static str) -> Self {
        Self::new(message)
    }
}

impl From<String> for Confirmation {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

fn now() -> Timestamp {
    Timestamp::from_unix_micros(wall())
}
