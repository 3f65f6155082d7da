//! Gonka: batches from an ML node to an API node, acknowledged one by one.
//!
//! ```text
//! Send (ML node)       Batch ──▶ {"type":…,"batch":…,"id":…} ──▶ ack        or POST {callback}/{kind}: 2xx
//! Receive (API node)   frame or POST ──▶ Batch ──▶ ack by the id as it was spelled, or 200
//! ```
//!
//! Decided here: which frames of Gonka's are what to the session in either direction. Invariant: the spelling of an id
//! is kept until it is acknowledged, of so many ids at most.

use super::{Heard, Wire};
use crate::http::{Answer, Bytes, Callback, GONKA_CALLBACKS, HttpAnswer, Routes, Target};
use crate::node::Refused;
use bowline::wire::KeyedHash;
use bowline::wire::gonka::{self, Kind, Malformed};
use bowline::{Frame, Head, MessageId, Reason, Seq};
use std::collections::BTreeMap;

/// Bytes of the envelope around a batch: `{"type":"generated","batch":` … `,"id":"` 36 `"}`.
const ENVELOPE: usize = 80;

/// So many spellings are kept: far more than batches may be at the application, for whoever raises that limit.
const SPELLED: usize = 1 << 16;

/// The most bytes that are read of the answer to a batch; an original's error is one line.
const LONGEST_ANSWER: usize = 4096;

/// Who sends batches; who dials is another question ([`Role`](bowline::Role)).
///
/// ```
/// # use bowline_transport::Direction;
/// assert_ne!(Direction::Send, Direction::Receive);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Batches go out, acknowledgements come in (Gonka's ML node).
    Send,
    /// Batches come in, by frames and by callbacks, and are acknowledged (Gonka's API node).
    Receive,
}

/// One proof batch, as it lies on the wire.
///
/// ```
/// use bowline::wire::gonka::Kind;
/// use bowline_transport::{Batch, http::Bytes};
/// let batch = Batch { kind: Kind::Generated, id: None, json: Bytes::from_static(b"{}") };
/// assert_eq!(batch.kind.as_str(), "generated");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Generated or validated.
    pub kind: Kind,
    /// The id it came with, if any.
    pub id: Option<String>,
    /// The batch object, unparsed.
    pub json: Bytes,
}

/// Gonka's wire, in one direction.
///
/// ```
/// use bowline_transport::{Gonka, Wire};
/// assert!(!Gonka::ML_NODE.routes().websockets.is_empty());
/// assert!(Gonka::API_NODE.routes().websockets.is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct Gonka {
    direction: Direction,
    /// How ids that are no UUIDs were spelled, until they have been acknowledged.
    spelled: BTreeMap<MessageId, String>,
}

impl Gonka {
    /// The sender's.
    pub const ML_NODE: Self = Self { direction: Direction::Send, spelled: BTreeMap::new() };

    /// The receiver's.
    pub const API_NODE: Self = Self { direction: Direction::Receive, spelled: BTreeMap::new() };
}

impl Wire for Gonka {
    type Kind = Kind;
    type Outgoing = Batch;
    type Incoming = Batch;

    const TAKEN: (u16, &'static str) = (gonka::CLOSE_CODE, gonka::CLOSE_TAKEN);

    fn longest_frame(&self) -> usize {
        match self.direction {
            Direction::Send => gonka::ML_NODE_LIMIT,
            Direction::Receive => gonka::API_NODE_LIMIT,
        }
    }

    /// An original Go client reads both; an original ML node drops the connection on a binary frame.
    fn reads_binary(&self) -> bool {
        self.direction == Direction::Receive
    }

    fn routes(&self) -> Routes<'static> {
        match self.direction {
            Direction::Send => Routes { websockets: &[gonka::PATH], ..Routes::NONE },
            Direction::Receive => Routes { callbacks: GONKA_CALLBACKS, ..Routes::NONE },
        }
    }

    fn prepare(&mut self, kind: &Kind, json: &Bytes) -> Result<Batch, Refused> {
        if self.direction != Direction::Send {
            return Err(Refused::Direction);
        }
        // A batch that the peer can never take must not enter: it would be repeated for ever.
        gonka::decode_body(*kind, json).map_err(Refused::Malformed)?;
        Ok(Batch { kind: *kind, id: None, json: json.clone() })
    }

    fn size(batch: &Batch) -> usize {
        batch.json.len().saturating_add(ENVELOPE)
    }

    fn read(&mut self, names: &KeyedHash, text: &str) -> Heard<Batch> {
        match (self.direction, gonka::decode(text.as_bytes())) {
            (Direction::Receive, Ok(gonka::Frame::Batch { kind, id, batch })) => {
                let known = id.as_deref().map(|id| names.id(id));
                let key = names.content(kind.as_str(), batch);
                let json = Bytes::copy_from_slice(batch.as_bytes());
                Heard::message(known, Some(key), Batch { kind, id: id.map(Into::into), json })
            }
            (Direction::Send, Ok(gonka::Frame::Ack { id })) => Heard::of(Head::Ack { id: names.id(&id) }),
            // No library writes JSON: a keep-alive, an unknown type and a batch that is refused are the program's.
            (_, Ok(_)) | (_, Err(Malformed::Batch)) => Heard::of(Head::Word { pong: false }),
            (_, Err(_)) => Heard::of(Head::Malformed),
        }
    }

    fn noted(&mut self, id: MessageId, batch: &Batch) {
        if let Some(spelled) = batch.id.as_ref().filter(|spelled| id.to_string() != **spelled) {
            if self.spelled.len() >= SPELLED {
                self.spelled.pop_first();
            }
            self.spelled.insert(id, spelled.clone());
        }
    }

    fn write(&mut self, frame: Frame<'_, Batch>) -> Option<String> {
        match frame {
            Frame::Ack { id } => {
                let spelled = self.spelled.remove(&id).unwrap_or_else(|| id.to_string());
                Some(gonka::encode_ack(&spelled))
            }
            // The last two are a native peer's alone.
            Frame::Ping | Frame::Marks { .. } | Frame::Nack { .. } => None,
            Frame::Keepalive => Some(gonka::KEEPALIVE.into()),
            Frame::Data { id, payload, .. } => {
                // Checked when it was accepted.
                let batch = core::str::from_utf8(&payload.json).unwrap_or_default();
                Some(gonka::encode_batch(payload.kind, id, batch))
            }
        }
    }

    fn request(&mut self, names: &KeyedHash, callback: &Callback) -> Result<Heard<Batch>, Answer> {
        let kind = Kind::parse(callback.segment).ok_or(Answer::status(404))?;
        if self.direction != Direction::Receive {
            return Err(Answer::error(404, "this node sends"));
        }
        let body = gonka::decode_body(kind, &callback.body).map_err(|malformed| {
            let member = gonka::wrong_member(kind, &callback.body);
            let why = member.map_or_else(|| malformed.to_string(), |member| Reason::Member(member).to_string());
            Answer::error(400, why)
        })?;
        let key = names.content(kind.as_str(), body);
        let id = callback.idempotency_key.as_deref().map(|id| names.id(id));
        let batch = Batch { kind, id: callback.idempotency_key.clone(), json: callback.body.clone() };
        Ok(Heard::message(id, Some(key), batch))
    }

    fn answer(&self, answer: bowline::Answer) -> Answer {
        let status = Answer::status(answer.status());
        match answer {
            bowline::Answer::Done | bowline::Answer::Unknown | bowline::Answer::Polled => status,
            bowline::Answer::Rejected => Answer { error: Some("this batch can never be processed".into()), ..status },
            bowline::Answer::Reused => Answer { error: Some("this id was used for another batch".into()), ..status },
            bowline::Answer::Again { after } | bowline::Answer::Busy { after } => {
                Answer { retry_after: Some(after), error: Some("this batch is not done yet".into()), ..status }
            }
        }
    }

    fn post(&mut self, fallback: &Target, _: Seq, _: Seq, _: MessageId, batch: &Batch) -> (Target, Bytes, usize) {
        (fallback.join(batch.kind.as_str()), batch.json.clone(), LONGEST_ANSWER)
    }

    /// An original's 200 is empty and unsigned, and its errors are JSON.
    fn is_peers(&self, _: MessageId, answer: &HttpAnswer) -> bool {
        answer.is_api_answer()
    }

    fn describe(batch: &Batch) -> (&str, usize) {
        (batch.kind.as_str(), batch.json.len())
    }
}
