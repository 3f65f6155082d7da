//! The wire of Gonka: batches from an ML node to an API node, and their acknowledgements.
//!
//! It decides what a frame is, whether its batch is one that the API node's types take, and where in the frame the batch
//! lies; the batch itself goes on as the raw text that came. The ML node accepts, the API node dials [`PATH`]:
//!
//! ```text
//! ML node ── {"type":"generated","batch":{…},"id":"<uuid>"} ──▶ API node       text frames, kind in "type"
//!         ── {"type":"validated","batch":{…},"id":"<uuid>"} ──▶
//!         ── {"type":"keepalive"} ────────────────────────────▶                ours, logged there and nothing else
//!         ◀───────────────────── {"type":"ack","id":"<uuid>"} ──               after the batch was processed
//!
//!         ── POST {callback}/generated  {…} ──────────────────▶                the bare batch: no type, no id
//!         ── POST {callback}/validated  {…} ──────────────────▶
//! ```
//!
//! Invariants: no panic, no recursion and no copy of a payload, whatever the bytes; memory beyond the frame is of the
//! order of a byte for each level of nesting, plus one field name if it is escaped. It takes what the Go original takes,
//! except for what no original sends: we refuse a `null` batch, a known field twice, an id over 64 bytes and half a
//! surrogate pair in an id; Go refuses what is nested deeper than 10,000, and knows its fields in any letter case.
//!
//! Field facts and bugs this guards against:
//! * an ack may end in a newline inside its frame; ids, types and names may be written with `\u` escapes;
//! * the ML node drops the connection on a binary frame, even a valid ack, so what is encoded here is a `String`;
//! * the API node refuses `node_id: -1`, the ML node's default, in silence, and the ML node then repeats that batch for
//!   ever: check a batch with [`decode_body`] before it is accepted for sending;
//! * the API node ignores a frame of an unknown type but for a line in its log, and drops a connection on which it
//!   read no data frame for 60 s, whatever the pings: hence [`KEEPALIVE`];
//! * a type error that quotes what it found copies it, up to six times as long: types are told from the raw text here.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use core::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{MAX_ID, WHITE, escape, text};
use crate::MessageId;

/// The WebSocket endpoint of an ML node.
pub const PATH: &str = "/api/v1/pow/ws";
/// Where an API node takes batches by HTTP: `POST` to this, a slash and [`Kind::as_str`].
pub const CALLBACK: &str = "/v1/poc-batches";
/// The same routes by the other name an API node serves them under.
pub const CALLBACK_MLNODE: &str = "/mlnode/v1/poc-batches";

/// The longest frame an API node reads, 64 MiB: the read limit of its client in the G2 branch, the others have none.
pub const API_NODE_LIMIT: usize = 64 << 20;
/// The longest frame an ML node reads, 16 MiB: uvicorn's default; a longer one is closed on with 1009.
pub const ML_NODE_LIMIT: usize = 16 << 20;

/// The close code of an ML node that does not want this client; it comes *after* the upgrade, with one of the reasons
/// below.
pub const CLOSE_CODE: u16 = 1008;
/// The reason while no proof of work runs.
pub const CLOSE_NOT_RUNNING: &str = "PoW is not running";
/// The reason while the ML node is half started.
pub const CLOSE_NOT_READY: &str = "WebSocket infrastructure not initialized";
/// The reason for a second client: an ML node serves one.
pub const CLOSE_TAKEN: &str = "Another client is already connected";

/// A data frame that means nothing to either side, sent so that an idle API node's 60 s read deadline does not fire.
pub const KEEPALIVE: &str = r#"{"type":"keepalive"}"#;

const ACK: &str = "ack";
/// No type we know is longer; a longer one need not be read.
const MAX_TYPE: usize = 16;

/// What a batch is, in the frame's `type` and as the last segment of the HTTP path.
///
/// ```
/// use bowline::wire::gonka::Kind;
/// assert_eq!(Kind::parse("validated"), Some(Kind::Validated));
/// assert_eq!(Kind::Generated.as_str(), "generated");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Nonces an ML node found.
    Generated,
    /// The nonces of another participant, checked.
    Validated,
}

impl Kind {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Validated => "validated",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Generated, Self::Validated].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What a frame is. It borrows from the bytes it was decoded from.
///
/// ```
/// use bowline::wire::gonka::{self, Frame, Kind};
/// let frame = gonka::decode(br#"{"type":"generated","batch":{"nonces":[3, 13]},"id":"a-1"}"#)?;
/// let batch = r#"{"nonces":[3, 13]}"#;
/// assert_eq!(frame, Frame::Batch { kind: Kind::Generated, id: Some("a-1".into()), batch });
/// # Ok::<(), gonka::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// A batch, from an ML node.
    Batch {
        /// Which of the two.
        kind: Kind,
        /// 1 to 64 bytes; without one (missing, `null` or empty) the batch is processed and never acknowledged.
        id: Option<Cow<'a, str>>,
        /// The JSON object as it came.
        batch: &'a str,
    },
    /// An API node has processed the batch of this id.
    Ack {
        /// 1 to 64 bytes.
        id: Cow<'a, str>,
    },
    /// Any other JSON object: of a type unknown to us or none. The originals ignore it, and so must we.
    Other,
}

/// Why a frame or a body is not taken. Neither original closes on every one of these; count it, and do not acknowledge.
///
/// ```
/// use bowline::wire::gonka::{self, Kind, Malformed};
/// assert_eq!(gonka::decode(b"[]"), Err(Malformed::Json));
/// assert_eq!(gonka::decode(br#"{"type":"ack"}"#), Err(Malformed::Id));
/// assert_eq!(gonka::decode_body(Kind::Generated, br#"{"node_id":-1}"#), Err(Malformed::Batch));
/// assert_eq!(Malformed::Id.to_string(), "an id that is missing, not a string, or longer than 64 bytes");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Malformed {
    /// Not one JSON object in UTF-8.
    Json,
    /// `type`, `batch` or `id` occurs twice: readers would disagree on which one counts.
    Twice,
    /// An id that is not a string or longer than 64 bytes, or an ack without one.
    Id,
    /// No batch, or one that the receiver's types refuse.
    Batch,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "not one JSON object in UTF-8",
            Self::Twice => "a field that occurs twice",
            Self::Id => "an id that is missing, not a string, or longer than 64 bytes",
            Self::Batch => "a batch that is missing or has a field of the wrong type",
        })
    }
}

impl core::error::Error for Malformed {}

/// Reads a frame, text or binary, of either side.
///
/// # Errors
///
/// [`Malformed`] says what is wrong with it. An API node keeps the connection all the same.
pub fn decode(frame: &[u8]) -> Result<Frame<'_>, Malformed> {
    let head: Head<'_> = object(frame)?;
    let name = head.name.and_then(|raw| text(raw, MAX_TYPE)).unwrap_or_default();
    if name == ACK {
        let id = id(head.id)?.ok_or(Malformed::Id)?;
        return Ok(Frame::Ack { id });
    }
    match Kind::parse(&name) {
        Some(kind) => {
            Ok(Frame::Batch { kind, id: id(head.id)?, batch: batch(kind, head.batch.ok_or(Malformed::Batch)?)? })
        }
        None => Ok(Frame::Other),
    }
}

/// Reads the body of an HTTP request: the bare batch, given back without the white space around it. It also tells a
/// sender whether its batch can succeed.
///
/// ```
/// use bowline::wire::gonka::{Kind, decode_body};
/// assert_eq!(decode_body(Kind::Generated, b" {\"node_id\": 3}\n"), Ok("{\"node_id\": 3}"));
/// ```
///
/// # Errors
///
/// [`Malformed`] says what is wrong with it; the answer is a 400.
pub fn decode_body(kind: Kind, body: &[u8]) -> Result<&str, Malformed> {
    batch(kind, object(body)?)
}

/// Returns the first member of a batch that the receiver's types refuse, for the answer to a body that [`decode_body`] calls
/// [`Malformed::Batch`]; `None` if it is no object, or has a member twice.
///
/// ```
/// use bowline::wire::gonka::{Kind, wrong_member};
/// assert_eq!(wrong_member(Kind::Generated, br#"{"block_height":1,"node_id":-1}"#), Some("node_id"));
/// assert_eq!(wrong_member(Kind::Generated, br#"{"n_invalid":"0"}"#), None, "it belongs to the other kind");
/// ```
#[must_use]
pub fn wrong_member(kind: Kind, body: &[u8]) -> Option<&'static str> {
    object::<Fields<'_>>(body).ok()?.wrong(kind)
}

/// A frame with a batch, spelt as the original's; `batch` is a text that [`decode_body`] gave.
///
/// ```
/// use bowline::{Origin, Seq};
/// use bowline::wire::gonka::{Kind, encode_batch};
/// let id = Origin::new(7, 1).message(Seq::FIRST);
/// let frame = encode_batch(Kind::Generated, id, "{}");
/// assert_eq!(frame, r#"{"type":"generated","batch":{},"id":"00000000-0007-8000-8001-000000000001"}"#);
/// ```
#[must_use]
pub fn encode_batch(kind: Kind, id: MessageId, batch: &str) -> String {
    let id = id.to_string();
    [r#"{"type":""#, kind.as_str(), r#"","batch":"#, batch, r#","id":""#, &id, r#""}"#].concat()
}

/// The acknowledgement of the batch that came with this id.
///
/// ```
/// use bowline::wire::gonka::encode_ack;
/// assert_eq!(encode_ack("a-1"), r#"{"type":"ack","id":"a-1"}"#);
/// assert_eq!(encode_ack("\"\n"), r#"{"type":"ack","id":"\"\u000a"}"#);
/// ```
#[must_use]
pub fn encode_ack(id: &str) -> String {
    let mut frame = String::from(r#"{"type":"ack","id":""#);
    escape(&mut frame, id);
    frame.push_str(r#""}"#);
    frame
}

/// A field's value as it stands in the frame; `null` counts as missing, as in Go.
type Raw<'a> = Option<&'a RawValue>;

/// The envelope.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    name: Raw<'a>,
    #[serde(borrow)]
    batch: Raw<'a>,
    #[serde(borrow)]
    id: Raw<'a>,
}

/// The batch: `ProofBatch` and, below the line, what `ValidatedBatch` adds.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    public_key: Raw<'a>,
    #[serde(borrow)]
    block_hash: Raw<'a>,
    #[serde(borrow)]
    block_height: Raw<'a>,
    #[serde(borrow)]
    nonces: Raw<'a>,
    #[serde(borrow)]
    dist: Raw<'a>,
    #[serde(borrow)]
    node_id: Raw<'a>,
    // ----
    #[serde(borrow)]
    received_dist: Raw<'a>,
    #[serde(borrow)]
    r_target: Raw<'a>,
    #[serde(borrow)]
    fraud_threshold: Raw<'a>,
    #[serde(borrow)]
    n_invalid: Raw<'a>,
    #[serde(borrow)]
    probability_honest: Raw<'a>,
    #[serde(borrow)]
    fraud_detected: Raw<'a>,
}

/// One JSON object, by the type it is read as.
fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    let json = core::str::from_utf8(bytes).map_err(|_| Malformed::Json)?.trim_matches(WHITE);
    // Without this an array would do: serde reads a struct from one too, field by field.
    if !json.starts_with('{') {
        return Err(Malformed::Json);
    }
    // The fields are raw, so the only thing a type can find wrong is a field that occurs twice.
    serde_json::from_str(json).map_err(|e| if e.is_data() { Malformed::Twice } else { Malformed::Json })
}

/// The id, if there is one to acknowledge by.
fn id(raw: Raw<'_>) -> Result<Option<Cow<'_, str>>, Malformed> {
    let id = raw.map(|raw| text(raw, MAX_ID).ok_or(Malformed::Id)).transpose()?;
    Ok(id.filter(|id| !id.is_empty()))
}

/// The batch as it came, if the API node's types take it.
fn batch(kind: Kind, raw: &RawValue) -> Result<&str, Malformed> {
    let json = raw.get();
    let fields: Fields<'_> = object(json.as_bytes()).map_err(|_| Malformed::Batch)?;
    if fields.wrong(kind).is_none() { Ok(json) } else { Err(Malformed::Batch) }
}

impl Fields<'_> {
    /// The first field that the API node's types do not take.
    fn wrong(&self, kind: Kind) -> Option<&'static str> {
        let proof = [
            ("public_key", is(self.public_key, string)),
            ("block_hash", is(self.block_hash, string)),
            ("block_height", is(self.block_height, integer)),
            ("nonces", is(self.nonces, |json| list(json, integer))),
            ("dist", is(self.dist, |json| list(json, float))),
            ("node_id", is(self.node_id, unsigned)),
        ];
        let verdict = [
            ("received_dist", is(self.received_dist, |json| list(json, float))),
            ("r_target", is(self.r_target, float)),
            ("fraud_threshold", is(self.fraud_threshold, float)),
            ("n_invalid", is(self.n_invalid, integer)),
            ("probability_honest", is(self.probability_honest, float)),
            ("fraud_detected", is(self.fraud_detected, boolean)),
        ];
        let verdict = verdict.into_iter().filter(|_| kind == Kind::Validated);
        proof.into_iter().chain(verdict).find(|(_, taken)| !taken).map(|(name, _)| name)
    }
}

/// Whether a field, if it is there at all, has this type. What follows are Go's types, told from valid JSON.
fn is(field: Raw<'_>, has_type: fn(&str) -> bool) -> bool {
    field.is_none_or(|raw| has_type(raw.get()))
}

fn string(json: &str) -> bool {
    json.starts_with('"')
}

fn boolean(json: &str) -> bool {
    matches!(json, "true" | "false")
}

/// `int64`: Go takes no `1.0` and no `1e2` for it.
fn integer(json: &str) -> bool {
    json.parse::<i64>().is_ok()
}

/// `uint64`, of which Python's default of −1 is none.
fn unsigned(json: &str) -> bool {
    json.parse::<u64>().is_ok()
}

/// `float64`, also spelt `3` or `1e-07`. Rust's infinities and NaN cannot stand in JSON, but `1e999` can.
fn float(json: &str) -> bool {
    json.parse::<f64>().is_ok_and(f64::is_finite)
}

/// An array of numbers; a `null` among them is a zero to Go. In valid JSON whatever is not a number (a string, an array,
/// an object) leaves a piece between two commas that is none either, so no second parser is needed.
fn list(json: &str, number: fn(&str) -> bool) -> bool {
    let inside = json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|items| {
        let mut items = items.trim_matches(WHITE).split(',').map(|item| item.trim_matches(WHITE));
        items.clone().eq([""]) || items.all(|item| item == "null" || number(item))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    /// What becomes of a batch with this one field, as `generated` and as `validated`.
    fn taken(field: &str) -> (bool, bool) {
        let body = format!("{{{field}}}");
        let as_kind = |kind| match decode_body(kind, body.as_bytes()) {
            Ok(batch) => batch == body,
            Err(why) => {
                assert_eq!(why, Malformed::Batch, "{field}");
                false
            }
        };
        (as_kind(Kind::Generated), as_kind(Kind::Validated))
    }

    #[test]
    fn a_batch_has_the_types_of_the_api_node() {
        for field in [
            r#""public_key":"","block_hash":"\"\\\ud800","block_height":-9223372036854775808"#,
            r#""block_height":9223372036854775807,"node_id":18446744073709551615"#,
            r#""nonces":[],"dist":[ ]"#,
            r#""nonces":[-0],"dist":[-0]"#,
            "\"nonces\":[ 0 ,-1\t,\n12,null],\"dist\":[1.0, 1e-07,3,-0.5E+2,null]",
            r#""public_key":null,"block_hash":null,"block_height":null,"nonces":null,"dist":null,"node_id":null"#,
            r#""received_dist":[1],"r_target":1,"fraud_threshold":1e-07,"n_invalid":0,"probability_honest":1.0"#,
            r#""fraud_detected":true,"received_dist":null,"r_target":null"#,
            r#""extra":{"nonces":[["x"]]},"Node_Id":-1"#,
            r#""n\u006fnces":[1]"#,
            "",
        ] {
            assert_eq!(taken(field), (true, true), "{field}");
        }
        for field in [
            r#""public_key":1"#,
            r#""block_hash":["x"]"#,
            r#""block_height":1.0"#,
            r#""block_height":"1""#,
            r#""block_height":9223372036854775808"#,
            r#""nonces":7"#,
            r#""nonces":"[1]""#,
            r#""nonces":{}"#,
            r#""nonces":[1.5]"#,
            r#""nonces":[1e2]"#,
            r#""nonces":[true]"#,
            r#""nonces":["1"]"#,
            r#""nonces":["a,1,b"]"#,
            r#""nonces":[1,[2],3]"#,
            r#""nonces":[[]]"#,
            r#""nonces":[{}]"#,
            r#""dist":["inf"]"#,
            r#""dist":[1,"a,nan,b"]"#,
            r#""dist":[1e999]"#,
            r#""dist":1.0"#,
            r#""n\u006fnces":[""]"#,
            r#""node_id":-1"#,
            r#""node_id":-0"#,
            r#""node_id":3.0"#,
            r#""node_id":18446744073709551616"#,
            r#""node_id":1,"node_id":2"#,
        ] {
            assert_eq!(taken(field), (false, false), "{field}");
        }
        for field in [
            r#""received_dist":[null,"x"]"#,
            r#""r_target":"1""#,
            r#""fraud_threshold":true"#,
            r#""n_invalid":0.0"#,
            r#""probability_honest":[]"#,
            r#""fraud_detected":0"#,
        ] {
            assert_eq!(taken(field), (true, false), "{field}");
            let wrong = wrong_member(Kind::Validated, format!("{{{field}}}").as_bytes());
            assert_eq!(wrong, field.split('"').nth(1), "E4: the member by its name");
        }
    }
}
