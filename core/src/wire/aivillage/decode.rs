//! Reading frames of either side: one pass over the flat object, everything in it raw until it is asked for.

use alloc::borrow::Cow;
use core::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::encode::members;
use super::{CUSTOM, Dialect, Event, MAX_NAME, Position, Since};
use crate::wire::{WHITE, text};

/// No `since` is longer, with room for white space and keys that nobody knows.
const MAX_SINCE: usize = 256;

/// Why a frame is not taken. The original answers what is no JSON with an `error` and drops the rest in silence; none of
/// these ends a connection.
///
/// ```
/// use bowline::wire::aivillage::{Malformed, decode_request};
/// assert_eq!(decode_request(b"{nope"), Err(Malformed::Json));
/// assert_eq!(decode_request(b"[]"), Err(Malformed::Object));
/// assert_eq!(decode_request(br#"{"type":"subscribe"}"#), Err(Malformed::Topic));
/// assert_eq!(Malformed::Topic.to_string(), "a topic that is missing or not a string of 1 to 64 bytes");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Malformed {
    /// Not one JSON value in UTF-8.
    Json,
    /// JSON, but no object.
    Object,
    /// A key that we read occurs twice: readers would disagree on which one counts.
    Twice,
    /// A type that is not a string of 1 to 64 bytes.
    Kind,
    /// A topic or channel that is missing or not a string of 1 to 64 bytes.
    Topic,
    /// A `since` that is neither `"now"`, `"oldest"` nor an epoch and an offset.
    Since,
    /// An event's data that is no JSON object.
    Data,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "not one JSON value in UTF-8",
            Self::Object => "not a JSON object",
            Self::Twice => "a key that occurs twice",
            Self::Kind => "a type that is not a string of 1 to 64 bytes",
            Self::Topic => "a topic that is missing or not a string of 1 to 64 bytes",
            Self::Since => "neither \"now\", \"oldest\" nor an epoch and an offset",
            Self::Data => "data that is no JSON object",
        })
    }
}

impl core::error::Error for Malformed {}

/// What a hub sends, of this system or one of its siblings. It borrows from the bytes it was decoded from.
///
/// ```
/// use bowline::wire::aivillage::{Dialect, Event, decode};
/// let frame = decode(br#"{"type":"pong","data":{"server_time":"now"},"timestamp":"2026-11-20T22:11:26.082867"}"#)?;
/// assert_eq!(frame.event()?, Event::Pong { server_time: "now".into() });
/// assert_eq!(frame.timestamp.as_deref(), Some("2026-11-20T22:11:26.082867"));
/// let frame = decode(br#"{"type":"phase_update","progress":0.25}"#)?;
/// assert_eq!((frame.dialect, frame.data), (Dialect::Flat, r#"{"type":"phase_update","progress":0.25}"#));
/// # Ok::<(), bowline::wire::aivillage::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// The type, 1 to 64 bytes; `custom` if it says none.
    pub kind: Cow<'a, str>,
    /// The JSON object as it came; in the flat dialects the whole frame.
    pub data: &'a str,
    /// When it was sent, as it stands there: the original writes its local time and no zone, so it is no instant. Nothing
    /// if it is neither a number nor a string of at most 64 bytes.
    pub timestamp: Option<Cow<'a, str>>,
    /// Ours on that side, if it is a string of at most 64 bytes.
    pub connection_id: Option<Cow<'a, str>>,
    /// Where in its topic's history it stands, if the hub is one of ours.
    pub position: Option<Position<'a>>,
    /// In an envelope or not.
    pub dialect: Dialect,
}

impl<'a> Frame<'a> {
    /// What it tells.
    ///
    /// # Errors
    ///
    /// [`Malformed::Twice`] if a key of the data occurs twice.
    pub fn event(&self) -> Result<Event<'a>, Malformed> {
        Event::of(self.kind.clone(), self.data)
    }
}

/// Reads a frame of a hub's.
///
/// An envelope has an object for `data` and a `connection_id`, or else no key beside its own: the siblings have frames with
/// `data` that say more beside it, such as `{"type":"model_update","event_type":"created","data":{…}}`.
///
/// # Errors
///
/// [`Malformed`] says what is wrong with it. What is no envelope is taken for a flat frame.
pub fn decode(frame: &[u8]) -> Result<Frame<'_>, Malformed> {
    let (json, fields) = object(frame)?;
    let enveloped = || fields.connection_id.is_some() || is_envelope(json);
    let data = fields.data.map(RawValue::get).filter(|data| data.starts_with('{') && enveloped());
    Ok(Frame {
        kind: kind(&fields)?,
        data: data.unwrap_or(json),
        timestamp: fields.timestamp.and_then(moment),
        connection_id: fields.connection_id.or(fields.client_id).and_then(|raw| text(raw, MAX_NAME)),
        position: fields.position.and_then(position),
        dialect: if data.is_some() { Dialect::Service } else { Dialect::Flat },
    })
}

/// What a client sends. It borrows from the bytes it was decoded from.
///
/// ```
/// use bowline::wire::aivillage::{Dialect, Request, Since, decode_request};
/// let frame = br#"{"type":"subscribe","topic":"training","since":{"epoch":7,"offset":12}}"#;
/// let since = Some(Since::After { epoch: 7, offset: 12 });
/// let subscribe = Request::Subscribe { topic: "training".into(), dialect: Dialect::Service, since };
/// assert_eq!(decode_request(frame)?, subscribe);
/// assert_eq!(decode_request(br#"{"data":{"x":1}}"#)?, Request::Message { kind: "custom".into(), data: r#"{"x":1}"# });
/// # Ok::<(), bowline::wire::aivillage::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// To be answered with a `pong`.
    Ping,
    /// The answer to a `ping`.
    Pong,
    /// To be answered by [`encode_answer`](super::encode_answer).
    Subscribe {
        /// 1 to 64 bytes.
        topic: Cow<'a, str>,
        /// In which words to answer: it said `topic` or, if not, `channel`.
        dialect: Dialect,
        /// What it wants of the past; nothing if it does not say.
        since: Option<Since>,
    },
    /// To be answered by [`encode_answer`](super::encode_answer).
    Unsubscribe {
        /// 1 to 64 bytes.
        topic: Cow<'a, str>,
        /// In which words to answer.
        dialect: Dialect,
    },
    /// The first word of one of the interfaces, with a token that nobody asks for; no sibling knows it, so it is ignored.
    Authenticate,
    /// To be answered by [`encode_status`](super::encode_status).
    GetStatus,
    /// Anything else: `custom`, the name of an event, or a type of the application's own.
    Message {
        /// 1 to 64 bytes; `custom` if it says none.
        kind: Cow<'a, str>,
        /// JSON as it came; `{}` if there is none.
        data: &'a str,
    },
}

/// Reads a frame of a client's, text or binary.
///
/// # Errors
///
/// [`Malformed`] says what is wrong with it; the answer to any is an [`Event::Error`].
pub fn decode_request(frame: &[u8]) -> Result<Request<'_>, Malformed> {
    let (_, fields) = object(frame)?;
    let kind = kind(&fields)?;
    Ok(match &*kind {
        "ping" => Request::Ping,
        "pong" => Request::Pong,
        "subscribe" => {
            let (topic, dialect) = topic(&fields)?;
            Request::Subscribe { topic, dialect, since: fields.since.map(since).transpose()? }
        }
        "unsubscribe" => {
            let (topic, dialect) = topic(&fields)?;
            Request::Unsubscribe { topic, dialect }
        }
        "authenticate" => Request::Authenticate,
        "get_status" => Request::GetStatus,
        _ => Request::Message { kind, data: fields.data.map_or("{}", RawValue::get) },
    })
}

/// A key's value as it stands in the frame; `null` counts as missing.
type Raw<'a> = Option<&'a RawValue>;

/// Every key that is read, of both sides.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    #[serde(borrow)]
    data: Raw<'a>,
    #[serde(borrow)]
    timestamp: Raw<'a>,
    #[serde(borrow)]
    connection_id: Raw<'a>,
    #[serde(borrow)]
    client_id: Raw<'a>,
    #[serde(borrow)]
    position: Raw<'a>,
    #[serde(borrow)]
    topic: Raw<'a>,
    #[serde(borrow)]
    channel: Raw<'a>,
    #[serde(borrow)]
    since: Raw<'a>,
}

/// Whether an object has nothing beside an envelope's keys.
fn is_envelope(json: &str) -> bool {
    let known = ["type", "data", "timestamp", "connection_id", "target_connections", "position"];
    members(json).iter().all(|(key, value)| known.contains(&&**key) || value.get() == "null")
}

/// The text of one JSON object, and its keys.
fn object(frame: &[u8]) -> Result<(&str, Fields<'_>), Malformed> {
    let json = core::str::from_utf8(frame).map_err(|_| Malformed::Json)?.trim_matches(WHITE);
    // Without this an array would do: serde reads a struct from one too, key by key.
    if !json.starts_with('{') {
        let value: Result<&RawValue, _> = serde_json::from_str(json);
        return Err(value.map_or(Malformed::Json, |_| Malformed::Object));
    }
    // The keys are raw, so the only thing a type can find wrong is a key that occurs twice.
    let fields = serde_json::from_str(json);
    fields.map(|fields| (json, fields)).map_err(|e| if e.is_data() { Malformed::Twice } else { Malformed::Json })
}

fn kind<'a>(fields: &Fields<'a>) -> Result<Cow<'a, str>, Malformed> {
    fields.kind.map_or(Ok(Cow::Borrowed(CUSTOM)), |raw| name(raw).ok_or(Malformed::Kind))
}

fn topic<'a>(fields: &Fields<'a>) -> Result<(Cow<'a, str>, Dialect), Malformed> {
    let topic = fields.topic.map(|raw| (raw, Dialect::Service));
    let (raw, dialect) = topic.or(fields.channel.map(|raw| (raw, Dialect::Flat))).ok_or(Malformed::Topic)?;
    Ok((name(raw).ok_or(Malformed::Topic)?, dialect))
}

fn since(raw: &RawValue) -> Result<Since, Malformed> {
    // An array is no pair of ours, and what is long is no pair either.
    let spelt = raw.get().starts_with(['"', '{']) && raw.get().len() <= MAX_SINCE;
    spelt.then(|| serde_json::from_str(raw.get()).ok()).flatten().ok_or(Malformed::Since)
}

/// Somebody else's key of that name is none of our business.
fn position(raw: &RawValue) -> Option<Position<'_>> {
    let position: Position<'_> = serde_json::from_str(raw.get()).ok().filter(|_| raw.get().starts_with('{'))?;
    (1..=MAX_NAME).contains(&position.topic.len()).then_some(position)
}

/// A timestamp of whatever kind.
fn moment(raw: &RawValue) -> Option<Cow<'_, str>> {
    let number = raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()) && raw.get().len() <= MAX_NAME;
    if number { Some(Cow::Borrowed(raw.get())) } else { text(raw, MAX_NAME) }
}

/// A string of 1 to 64 bytes.
fn name(raw: &RawValue) -> Option<Cow<'_, str>> {
    text(raw, MAX_NAME).filter(|text| !text.is_empty())
}
