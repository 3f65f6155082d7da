//! Bettensor, the miner's side: every frame is signed, predictions are confirmed by their own ids.
//!
//! ```text
//!  greet ── signed auth ──▶          ◀── welcome, or anything but a refusal: ready
//!  write ── prediction ────▶          ◀── confirmation ── success: Ack · error: Reject     by prediction_id
//!        ── heartbeat ─────▶          ◀── heartbeat_ack: Pong
//!                                     ◀── game_update, custom types: messages              known by their content
//!                                     ◀── heartbeat: life, and never answered
//!  post  ── POST {fallback} ▶ 200     a signed confirmation, the same word
//!                                     ◀── POST /ws/messages: what a frame could say
//!
//!  who is believed     signed by the configured validator
//!                      without one: by whoever signed first on this connection, and until then unsigned dialects too
//!                      everything else is ignored; a signature that does not hold is malformed
//! ```
//!
//! Invariants: every frame of ours has a timestamp, a nonce and a signature of its own, also when it carries the same
//! prediction again; a nonce is used once in a process; two predictions of one id are never under way together (rule I7); a
//! prediction that was not sent yet cannot be confirmed, nor one by a word about another.
//! Field bugs: a heartbeat that is answered with a heartbeat_response, and that with an error, every minute for ever; a
//! signature that is verified only if there is one; a sender that is nobody's concern; nonces that collide under load.

use super::{Heard, Reply, Wire};
use crate::clock::apart;
use crate::http::{Answer, Bytes, Callback, HttpAnswer, Limits, Routes, Target};
use crate::keys::{Hotkey, Keypair, moment};
use crate::node::{Node, Refused};
use bowline::wire::KeyedHash;
use bowline::wire::bettensor::{
    self, Confirmation, Envelope, Kind, MINER_LIMIT, Seal, Stamp, Unsigned, VALIDATOR_LIMIT,
};
use bowline::wire::timestamp::Timestamp;
use bowline::{ContentKey, Frame, Head, MessageId, Seq};
use core::time::Duration;
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};

/// Where a receiver takes what a validator posts.
const RECEIVER: &[&str] = &["/ws/messages"];

/// The signature and its name in a frame.
const SIGNATURE: usize = 2 * 64 + 20;

/// The longest message a receiver takes: an original miner's longest frame, and so the longest a validator sends.
const LONGEST_POST: u64 = MINER_LIMIT as u64;

/// So much of the answer to a prediction is read.
const LONGEST_ANSWER: usize = 64 * 1024;

/// So far may the timestamp of a posted message differ from now, in microseconds: the validator's limit for miners.
const CLOCKS: u64 = 300_000_000;

/// The longest span over which a validator may spread its miners; the core cuts it to as much.
const LONGEST_WINDOW: f64 = 600.0;

/// The most messages sent on a connection and not confirmed there that are remembered: the outbox has 64 places, and
/// one that has ended by HTTP leaves its own.
const UNCONFIRMED: usize = 1024;

/// So much of a complaint is kept, in characters.
const LONGEST_COMPLAINT: usize = 200;

/// A validator's message for the application: a `game_update`, or a type of its own.
///
/// ```
/// use bowline_transport::{Update, http::Bytes};
/// let update = Update { kind: "game_update".into(), data: Bytes::from_static(br#"{"games":[]}"#) };
/// assert_eq!(update.kind, "game_update");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update {
    /// Its `type`.
    pub kind: String,
    /// Its `data`, a JSON object, unparsed.
    pub data: Bytes,
}

/// What a validator found wrong with us: its `error` frames and refusals.
///
/// ```
/// use bowline_transport::Complaints;
/// assert_eq!(Complaints::default(), Complaints { total: 0, last: None });
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Complaints {
    /// How many so far.
    pub total: u64,
    /// What the last one said, of which 200 characters are kept.
    pub last: Option<String>,
}

/// A prediction, or another message with a `prediction_id`, on its way.
///
/// ```
/// # use bowline_transport::{Bettensor, Keypair, Wire, http::Bytes};
/// # let keys = Keypair::from_seed_hex(&"07".repeat(32))?;
/// let data = Bytes::from_static(br#"{"prediction_id":"game-1_17","home_score":3}"#);
/// let prediction: <Bettensor as Wire>::Outgoing = Bettensor::miner(keys).prepare("prediction", &data).unwrap();
/// assert!(Bettensor::size(&prediction) > data.len());
/// # Ok::<(), bowline_transport::KeyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Prediction {
    kind: String,
    data: Bytes,
    prediction_id: String,
    content: ContentKey,
    size: usize,
}

/// A message that was accepted and has not ended.
#[derive(Clone, Debug)]
struct Open {
    prediction_id: String,
    content: ContentKey,
    sent: bool,
}

/// A message that was sent on the present connection and not confirmed there, whether it has ended or not.
#[derive(Clone, Debug)]
struct Unconfirmed {
    id: MessageId,
    prediction_id: String,
    content: ContentKey,
}

/// Bettensor's wire, as a miner speaks it.
///
/// ```
/// use bowline_transport::{Bettensor, Keypair, Wire};
/// let miner = Bettensor::miner(Keypair::from_seed_hex(&"07".repeat(32))?);
/// assert_eq!(miner.routes().callbacks, ["/ws/messages"]);
/// # Ok::<(), bowline_transport::KeyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Bettensor {
    keys: Keypair,
    validator: Option<Hotkey>,
    /// Who signed first on this connection, where no validator is configured.
    pinned: Option<Hotkey>,
    ready: bool,
    open: BTreeMap<MessageId, Open>,
    /// In the order in which they were sent.
    unconfirmed: VecDeque<Unconfirmed>,
    complaints: Complaints,
}

/// How much a frame is worth.
enum Trust {
    /// It was signed by whom we listen to.
    Signed,
    /// It is unsigned, and nobody has signed anything yet.
    Unsigned,
    /// Somebody else's, or nobody's.
    Foreign,
    /// Another than the configured validator has signed it.
    Stranger(Hotkey),
    /// Its signature does not hold.
    Forged,
}

impl Bettensor {
    /// The wire of the miner with these keys, who listens to any validator that it dials.
    #[must_use]
    pub fn miner(keys: Keypair) -> Self {
        Self {
            keys,
            validator: None,
            pinned: None,
            ready: false,
            open: BTreeMap::new(),
            unconfirmed: VecDeque::new(),
            complaints: Complaints::default(),
        }
    }

    /// Listens to this validator alone.
    pub(crate) const fn trust(&mut self, validator: Hotkey) {
        self.validator = Some(validator);
    }

    fn message(&mut self, id: MessageId, prediction: &Prediction) -> String {
        if let Some(open) = self.open.get_mut(&id) {
            open.sent = true;
        }
        let data = core::str::from_utf8(&prediction.data).unwrap_or_default();
        let kind = Kind::parse(prediction.kind.as_str().into());
        // The data was checked when it was accepted; a heartbeat would be the harmless thing to say instead.
        self.keys.seal(|stamp| Unsigned::message(stamp, &kind, data).unwrap_or_else(|_| Unsigned::heartbeat(stamp)))
    }

    /// Whether the envelope is signed by `expected`, or by anybody but ourselves; whoever it is.
    fn signer(&self, envelope: &Envelope<'_>, expected: Option<Hotkey>) -> Result<Hotkey, Trust> {
        let Some(Seal { signature, .. }) = &envelope.seal else { return Err(Trust::Unsigned) };
        let sender: Hotkey = envelope.sender.parse().map_err(|_| Trust::Forged)?;
        let holds = || envelope.signing_string().is_ok_and(|said| sender.verify(said.as_bytes(), signature));
        // A frame of ours that comes back is not the validator's word.
        if sender == self.keys.hotkey() {
            return Err(Trust::Foreign);
        }
        if expected.is_some_and(|expected| expected != sender) {
            let stranger = self.validator.is_some() && !self.ready && holds();
            return Err(if stranger { Trust::Stranger(sender) } else { Trust::Foreign });
        }
        if holds() { Ok(sender) } else { Err(Trust::Forged) }
    }

    fn judge(&mut self, frame: &bettensor::Frame<'_>) -> Trust {
        let expected = self.validator.or(self.pinned);
        let unsigned = if expected.is_some() { Trust::Foreign } else { Trust::Unsigned };
        let bettensor::Frame::Envelope(envelope) = frame else { return unsigned };
        match self.signer(envelope, expected) {
            Ok(sender) => {
                self.pinned = Some(sender);
                Trust::Signed
            }
            Err(Trust::Unsigned) => unsigned,
            Err(trust) => trust,
        }
    }

    fn complain(&mut self, message: &str) {
        self.complaints.total = self.complaints.total.saturating_add(1);
        self.complaints.last = Some(message.chars().take(LONGEST_COMPLAINT).collect());
    }

    /// The word about a message of ours that was sent and has not ended. Of several of one id only one is under way, but the word
    /// may be about an earlier one, which has ended otherwise: a validator that tells the content says which; what an original
    /// confirms on a connection, it confirms in the order in which it came there.
    fn confirmed(&mut self, confirmation: &Confirmation<'_>) -> Heard<Update> {
        let is = |prediction_id: &str, content: ContentKey| {
            prediction_id == confirmation.prediction_id && confirmation.content.is_none_or(|said| said == content)
        };
        let here = self.unconfirmed.iter().position(|sent| is(&sent.prediction_id, sent.content));
        let id = match here.and_then(|at| self.unconfirmed.remove(at)) {
            Some(sent) => self.open.contains_key(&sent.id).then_some(sent.id),
            // It was sent on an earlier connection, or by HTTP.
            None => {
                let mut open = self.open.iter();
                open.find(|(_, open)| open.sent && is(&open.prediction_id, open.content)).map(|(id, _)| *id)
            }
        };
        let Some(id) = id else { return Heard::of(Head::Word { pong: false }) };
        let head = if confirmation.success { Head::Ack { id } } else { Head::Reject { id } };
        Heard { reply: Some(reply(confirmation)), ..Heard::of(head) }
    }

    /// What an envelope that is believed says.
    fn heed(&mut self, names: &KeyedHash, envelope: &Envelope<'_>) -> Heard<Update> {
        match &envelope.kind {
            Kind::Confirmation => match Confirmation::read(envelope.data) {
                Ok(confirmation) => self.confirmed(&confirmation),
                Err(_) => Heard::of(Head::Malformed),
            },
            // All that a validator signs leaves by its sender, and shows that it lives.
            Kind::HeartbeatAck => Heard::of(Head::Word { pong: true }),
            Kind::Welcome => Heard { window: window(envelope.data), ..Heard::of(Head::Word { pong: false }) },
            Kind::Error => {
                let message = bettensor::message(envelope.data).unwrap_or_default();
                self.complain(&message);
                Heard::of(Head::Word { pong: false })
            }
            Kind::GameUpdate | Kind::Custom(_) => {
                let kind = envelope.kind.as_str();
                let data = Bytes::copy_from_slice(envelope.data.as_bytes());
                let key = names.content(kind, envelope.data);
                Heard::message(None, Some(key), Update { kind: kind.into(), data })
            }
            Kind::Prediction | Kind::Heartbeat | Kind::HeartbeatResponse => Heard::of(Head::Word { pong: false }),
        }
    }
}

impl Wire for Bettensor {
    type Kind = str;
    type Outgoing = Prediction;
    type Incoming = Update;

    /// As much as a validator reads: an original miner, with 1 MiB, closes on a large game update.
    fn longest_frame(&self) -> usize {
        VALIDATOR_LIMIT
    }

    fn routes(&self) -> Routes<'static> {
        Routes { callbacks: RECEIVER, ..Routes::NONE }
    }

    /// A validator posts nothing that it could not send in a frame.
    fn limits(&self) -> Limits {
        Limits { body_bytes: LONGEST_POST, ..Limits::DEFAULT }
    }

    fn greet(&mut self) -> Option<String> {
        self.pinned = None;
        self.ready = false;
        self.unconfirmed.clear();
        Some(self.keys.seal(Unsigned::auth))
    }

    fn prepare(&mut self, kind: &str, json: &Bytes) -> Result<Prediction, Refused> {
        let data = core::str::from_utf8(json).map_err(|_| Refused::Data(bettensor::Malformed::Json))?;
        let known = Kind::parse(kind.into());
        if kind.is_empty() || kind.len() > bowline::wire::MAX_ID || !matches!(known, Kind::Prediction | Kind::Custom(_))
        {
            return Err(Refused::Kind);
        }
        let prediction_id = bettensor::prediction_id(data).map_err(Refused::Data)?.into_owned();
        let stamp = Stamp { sender: self.keys.address(), timestamp: Timestamp::MAX, nonce: "1795213203014.110" };
        let unsigned = Unsigned::message(stamp, &known, data).map_err(Refused::Uncanonical)?;
        let size = unsigned.signing_string().len().saturating_add(SIGNATURE);
        let content = bettensor::content_of(kind, data);
        Ok(Prediction { kind: kind.into(), data: json.clone(), prediction_id, content, size })
    }

    fn size(prediction: &Prediction) -> usize {
        prediction.size
    }

    /// A confirmation names its message by the `prediction_id` alone.
    fn after(&self, prediction: &Prediction) -> Option<MessageId> {
        let same = |(_, open): &(&MessageId, &Open)| open.prediction_id == prediction.prediction_id;
        self.open.iter().filter(same).map(|(id, _)| *id).next_back()
    }

    fn accepted(&mut self, id: MessageId, prediction: &Prediction) {
        let Prediction { prediction_id, content, .. } = prediction;
        let open = Open { prediction_id: prediction_id.clone(), content: *content, sent: false };
        self.open.insert(id, open);
    }

    fn settled(&mut self, id: MessageId) {
        self.open.remove(&id);
    }

    fn read(&mut self, names: &KeyedHash, text: &str) -> Heard<Update> {
        let Ok(frame) = bettensor::decode(text.as_bytes()) else { return Heard::of(Head::Malformed) };
        // Anyone may say that something is wrong: it is noted, and changes nothing.
        if let bettensor::Frame::Refusal { message } | bettensor::Frame::Error { message } = &frame {
            self.complain(message);
        }
        if let bettensor::Frame::Refusal { .. } = frame {
            return Heard::of(Head::Other);
        }
        match self.judge(&frame) {
            Trust::Signed | Trust::Unsigned => {}
            Trust::Foreign => return Heard::IGNORED,
            Trust::Stranger(signer) => return Heard { stranger: Some(signer.to_string()), ..Heard::IGNORED },
            Trust::Forged => return Heard::of(Head::Malformed),
        }
        let greeting = !core::mem::replace(&mut self.ready, true);
        let heard = match frame {
            bettensor::Frame::Envelope(envelope) => self.heed(names, &envelope),
            bettensor::Frame::Confirmation(_, confirmation) => self.confirmed(&confirmation),
            bettensor::Frame::Auth(_)
            | bettensor::Frame::Error { .. }
            | bettensor::Frame::Refusal { .. }
            | bettensor::Frame::Other => Heard::of(Head::Other),
        };
        Heard { greeting, ..heard }
    }

    fn write(&mut self, frame: Frame<'_, Prediction>) -> Option<String> {
        match frame {
            Frame::Data { id, payload, .. } => {
                let Prediction { prediction_id, content, .. } = payload;
                // Of two that say the same a word about the one is as good for the other.
                let same = |sent: &Unconfirmed| sent.prediction_id == *prediction_id && sent.content == *content;
                self.unconfirmed.retain(|sent| !same(sent));
                if self.unconfirmed.len() >= UNCONFIRMED {
                    self.unconfirmed.pop_front();
                }
                let sent = Unconfirmed { id, prediction_id: prediction_id.clone(), content: *content };
                self.unconfirmed.push_back(sent);
                Some(self.message(id, payload))
            }
            // Nothing that comes in has an id, and there is no keep-alive in the profile: both would be life signs.
            Frame::Ping | Frame::Keepalive | Frame::Ack { .. } | Frame::Marks { .. } | Frame::Nack { .. } => {
                Some(self.keys.seal(Unsigned::heartbeat))
            }
        }
    }

    fn request(&mut self, names: &KeyedHash, callback: &Callback) -> Result<Heard<Update>, Answer> {
        let refused = || Answer::error(401, "not signed by the validator");
        let frame = bettensor::decode(&callback.body).map_err(|why| Answer::error(400, why.to_string()))?;
        let bettensor::Frame::Envelope(envelope) = frame else { return Err(refused()) };
        let validator = self.validator.ok_or_else(refused)?;
        let (now, _) = moment();
        // On a connection a frame cannot be played again by a stranger; a request can.
        let signed = envelope.seal.as_ref().ok_or_else(refused)?.timestamp.unix_micros();
        if signed.abs_diff(now.unix_micros()) > CLOCKS {
            let apart = apart(signed, now.unix_micros());
            return Err(Answer::error(401, format!("the timestamp is {apart} the miner's clock")));
        }
        if self.signer(&envelope, Some(validator)).is_err() {
            return Err(refused());
        }
        let heard = self.heed(names, &envelope);
        if heard.head == Some(Head::Malformed) { Err(Answer::error(400, "no confirmation")) } else { Ok(heard) }
    }

    fn post(
        &mut self,
        fallback: &Target,
        _: Seq,
        _: Seq,
        id: MessageId,
        prediction: &Prediction,
    ) -> (Target, Bytes, usize) {
        (fallback.clone(), self.message(id, prediction).into(), LONGEST_ANSWER)
    }

    /// Only a confirmation that the validator has signed, of this prediction.
    fn is_peers(&self, id: MessageId, answer: &HttpAnswer) -> bool {
        answered(answer).is_some_and(|(envelope, confirmation)| {
            let about = |open: &Open| {
                open.prediction_id == confirmation.prediction_id
                    && confirmation.content.is_none_or(|content| content == open.content)
            };
            self.open.get(&id).is_none_or(about) && self.signer(&envelope, self.validator.or(self.pinned)).is_ok()
        })
    }

    fn posted(&mut self, _: MessageId, answer: &HttpAnswer) -> Option<Reply> {
        answered(answer).map(|(_, confirmation)| reply(&confirmation))
    }

    fn describe(update: &Update) -> (&str, usize) {
        (&update.kind, update.data.len())
    }
}

impl Node<Bettensor> {
    /// What the validator found wrong with us.
    #[must_use]
    pub fn complaints(&self) -> Complaints {
        self.wire(|wire| wire.complaints.clone())
    }
}

/// The confirmation in the answer to a POST; its signer is not looked at.
fn answered(answer: &HttpAnswer) -> Option<(Envelope<'_>, Confirmation<'_>)> {
    let Ok(bettensor::Frame::Envelope(envelope)) = bettensor::decode(&answer.body) else { return None };
    let is_one = answer.whole && envelope.kind == Kind::Confirmation;
    let confirmation = Some(envelope.data).filter(|_| is_one)?;
    let confirmation = Confirmation::read(confirmation).ok()?;
    Some((envelope, confirmation))
}

fn reply(confirmation: &Confirmation<'_>) -> Reply {
    Reply {
        success: confirmation.success,
        message: confirmation.message.as_ref().into(),
        miner_stats: confirmation.miner_stats.map(Into::into),
    }
}

/// Over how long a time the miners of this validator should come back, if its welcome says so.
fn window(data: &str) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Welcome {
        reconnect_window: f64,
    }
    let Welcome { reconnect_window } = serde_json::from_str(data).ok()?;
    let window = Some(reconnect_window).filter(|seconds| (0.0..=LONGEST_WINDOW).contains(seconds))?;
    Duration::try_from_secs_f64(window).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b2_a_window_is_a_number_of_seconds_up_to_ten_minutes() {
        let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
        for (data, spread) in [
            (r#"{"reconnect_window":60,"status":"success"}"#, seconds(60)),
            (r#"{"reconnect_window": 0}"#, seconds(0)),
            (r#"{"reconnect_window": 6e2}"#, seconds(600)),
            (r#"{"reconnect_window": 0.5}"#, Some(Duration::from_millis(500))),
            (r#"{"reconnect_window": 600.1}"#, None),
            (r#"{"reconnect_window": -1}"#, None),
            (r#"{"reconnect_window": 1e999}"#, None),
            (r#"{"reconnect_window": "60"}"#, None),
            (r#"{"reconnect_window": null}"#, None),
            ("{}", None),
        ] {
            assert_eq!(window(data), spread, "{data}");
        }
    }

    #[test]
    fn a_flood_of_complaints_costs_the_length_of_one() {
        let mut miner = Bettensor::miner(Keypair::from_seed_hex(&"07".repeat(32)).unwrap());
        let names = KeyedHash::new([1; 16]);
        for _ in 0..100 {
            let frame = bettensor::encode_refusal(&"é".repeat(10_000));
            assert_eq!(miner.read(&names, &frame), Heard::of(Head::Other));
        }
        assert_eq!(miner.complaints.total, 100);
        assert_eq!(miner.complaints.last, Some("é".repeat(200)));
    }

    /// A miner that listens to any signer, with these messages accepted; and their ids.
    fn with_messages(said: &[&'static str]) -> (Bettensor, Vec<(MessageId, Prediction)>) {
        let mut miner = Bettensor::miner(Keypair::from_seed_hex(&"07".repeat(32)).unwrap());
        let messages = said.iter().zip(1..).map(|(data, number)| {
            let id = MessageId::from_bits(number);
            let prediction = miner.prepare("prediction", &Bytes::from_static(data.as_bytes())).unwrap();
            miner.accepted(id, &prediction);
            (id, prediction)
        });
        let messages = messages.collect();
        (miner, messages)
    }

    fn send(miner: &mut Bettensor, (id, payload): &(MessageId, Prediction)) {
        miner.write(Frame::Data { seq: Seq::FIRST, id: *id, una: Seq::FIRST, payload }).unwrap();
    }

    /// What the validator's confirmation of `p` means.
    fn confirmed(miner: &mut Bettensor, content: Option<ContentKey>) -> Option<Head> {
        let validator = Keypair::from_seed_hex(&"0b".repeat(32)).unwrap();
        let (prediction_id, message) = ("p".into(), "".into());
        let said = Confirmation { prediction_id, success: true, message, miner_stats: None, content };
        let frame = validator.seal(|stamp| Unsigned::confirmation(stamp, &said).unwrap());
        miner.read(&KeyedHash::new([1; 16]), &frame).head
    }

    const NOTHING: Option<Head> = Some(Head::Word { pong: false });

    #[test]
    fn i7_the_second_of_one_id_waits_for_the_first_and_the_third_for_the_second() {
        let (mut miner, said) = with_messages(&[
            r#"{"prediction_id":"p","n":1}"#,
            r#"{"prediction_id":"q","n":1}"#,
            r#"{"prediction_id":"p","n":2}"#,
        ]);
        let next = miner.prepare("prediction", &Bytes::from_static(br#"{"prediction_id":"\u0070","n":3}"#)).unwrap();
        assert_eq!(miner.after(&next), Some(said[2].0));
        miner.settled(said[2].0);
        assert_eq!(miner.after(&next), Some(said[0].0));
        miner.settled(said[0].0);
        assert_eq!(miner.after(&next), None);
    }

    #[test]
    fn i7_a_late_word_of_an_original_is_for_the_message_that_it_was_sent_for() {
        let (mut miner, said) = with_messages(&[r#"{"prediction_id":"p","n":1}"#, r#"{"prediction_id":"p","n":2}"#]);
        send(&mut miner, &said[0]);
        miner.settled(said[0].0); // by HTTP
        send(&mut miner, &said[1]);
        assert_eq!(confirmed(&mut miner, None), NOTHING, "it is the first's");
        assert_eq!(confirmed(&mut miner, None), Some(Head::Ack { id: said[1].0 }));
        miner.greet();
        // Nothing was sent on this connection: the word is for what was sent before and is not decided.
        assert_eq!(confirmed(&mut miner, None), Some(Head::Ack { id: said[1].0 }));
        miner.settled(said[1].0);
        assert_eq!(confirmed(&mut miner, None), NOTHING);
    }

    #[test]
    fn i7_a_word_of_ours_is_for_the_content_that_it_names() {
        let (mut miner, said) = with_messages(&[r#"{"prediction_id":"p","n":1}"#, r#"{"prediction_id":"p","n":2}"#]);
        let [first, second] = [0, 1].map(|n: usize| said[n].1.content);
        send(&mut miner, &said[0]);
        miner.greet();
        send(&mut miner, &said[0]);
        assert_eq!(confirmed(&mut miner, Some(first)), Some(Head::Ack { id: said[0].0 }), "what the hub still owed it");
        miner.settled(said[0].0);
        send(&mut miner, &said[1]);
        assert_eq!(confirmed(&mut miner, Some(first)), NOTHING, "the answer to the copy");
        assert_eq!(confirmed(&mut miner, Some(second)), Some(Head::Ack { id: said[1].0 }));
    }

    #[test]
    fn i7_the_answer_to_a_request_is_for_its_content() {
        let (miner, said) = with_messages(&[r#"{"prediction_id":"p","n":1}"#, r#"{"prediction_id":"p","n":2}"#]);
        let validator = Keypair::from_seed_hex(&"0b".repeat(32)).unwrap();
        let answer = |content| {
            let (prediction_id, message) = ("p".into(), "".into());
            let said = Confirmation { prediction_id, success: true, message, miner_stats: None, content };
            HttpAnswer::new(200, validator.seal(|stamp| Unsigned::confirmation(stamp, &said).unwrap()))
        };
        assert!(
            miner.is_peers(said[1].0, &answer(None)) && miner.is_peers(said[1].0, &answer(Some(said[1].1.content)))
        );
        assert!(!miner.is_peers(said[1].0, &answer(Some(said[0].1.content))));
    }

    #[test]
    fn a_frame_is_signed_for_its_moment_and_a_nonce_looks_like_the_originals() {
        let mut miner = Bettensor::miner(Keypair::from_seed_hex(&"07".repeat(32)).unwrap());
        let [first, second] = [(); 2].map(|()| miner.greet().unwrap());
        assert_ne!(first, second);
        let Ok(bettensor::Frame::Auth(auth)) = bettensor::decode(first.as_bytes()) else { panic!("{first}") };
        let (whole, decimals) = auth.seal.nonce.split_once('.').unwrap();
        assert_eq!((whole.len(), decimals.len()), (13, 3), "milliseconds since 1970");
        let now = moment().0.unix_micros();
        assert!(now.abs_diff(auth.seal.timestamp.unix_micros()) < CLOCKS);
    }
}
