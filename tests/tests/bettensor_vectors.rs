//! The codec of the Bettensor wire against what the original systems sent and signed (`vectors/bettensor.jsonl`), and
//! against chance.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bowline::wire::MAX_ID;
use bowline::wire::bettensor::{
    self, Auth, Confirmation, Dialect, Envelope, Frame, Kind, Malformed, Seal, Stamp, Unsigned, decode, encode_error,
    encode_refusal, prediction_id,
};
use bowline::wire::canonical;
use bowline::wire::timestamp::Timestamp;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

const VECTORS: &str = include_str!("../vectors/bettensor.jsonl");

/// One recorded message and what is known about it.
struct Row {
    direction: String,
    kind: String,
    variant: String,
    transport: String,
    /// The message as it was recorded, in Python's spelling: what the miner wrote, the validator's frames are compact.
    json: String,
    /// The frame's exact text, if the row has it.
    raw: Option<String>,
    /// What its signature is over; it was checked by the real implementation.
    signing_string: Option<String>,
    then_close: Value,
    http: Value,
}

impl Row {
    fn value(&self) -> Value {
        serde_json::from_str(&self.json).unwrap()
    }

    /// A field of the message.
    fn text(&self, name: &str) -> String {
        self.value()[name].as_str().unwrap().to_owned()
    }

    fn data(&self) -> String {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(&self.json).unwrap();
        fields["data"].get().to_owned()
    }

    fn signature(&self) -> [u8; 64] {
        let digits = self.text("signature");
        core::array::from_fn(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
    }
}

fn rows() -> Vec<Row> {
    let row = |line: &str| {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).unwrap();
        let value = |name: &str| fields.get(name).map_or(Value::Null, |raw| serde_json::from_str(raw.get()).unwrap());
        let text = |name: &str| value(name).as_str().map(str::to_owned);
        Row {
            direction: text("direction").unwrap(),
            kind: text("kind").unwrap(),
            variant: text("variant").unwrap(),
            transport: text("transport").unwrap(),
            json: fields["json"].get().to_owned(),
            raw: text("raw"),
            signing_string: text("signing_string"),
            then_close: value("then_close"),
            http: value("http"),
        }
    };
    VECTORS.lines().map(row).collect()
}

/// Leaves out the white space between tokens, and nothing else: a frame as Starlette would send it.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        if in_string {
            in_string = escaped || *c != '"';
            escaped = !escaped && *c == '\\';
            return true;
        }
        in_string = *c == '"';
        !c.is_ascii_whitespace()
    };
    json.chars().filter(keep).collect()
}

fn auth(frame: &str) -> Auth<'_> {
    let Ok(Frame::Auth(auth)) = decode(frame.as_bytes()) else { panic!("{frame}") };
    auth
}

fn envelope(frame: &str) -> Envelope<'_> {
    let Ok(Frame::Envelope(envelope)) = decode(frame.as_bytes()) else { panic!("{frame}") };
    envelope
}

/// The parts of a signed row, once it was read in every spacing and found to be signed over what Python signed.
struct Signed {
    sender: String,
    timestamp: Timestamp,
    nonce: String,
}

impl Signed {
    fn of(row: &Row, sender: &str) -> Self {
        let timestamp = row.text("timestamp");
        let parsed = Timestamp::parse(&timestamp).unwrap();
        assert_eq!(parsed.to_string(), timestamp);
        Self { sender: row.text(sender), timestamp: parsed, nonce: row.text("nonce") }
    }

    fn stamp(&self) -> Stamp<'_> {
        Stamp { sender: &self.sender, timestamp: self.timestamp, nonce: &self.nonce }
    }

    fn seal(&self, row: &Row) -> Seal<'_> {
        Seal { timestamp: self.timestamp, nonce: (&self.nonce).into(), signature: row.signature() }
    }
}

/// What the validator or the miner sent, read in both spacings, and written again by hand of its parts.
fn check_signed(row: &Row, kind: &Kind<'_>) -> Signed {
    let signed = Signed::of(row, "sender");
    for end in ["", "\n"] {
        for frame in [compact(&row.json) + end, row.json.clone() + end] {
            let read = envelope(&frame);
            assert_eq!((&read.kind, read.dialect(), &*read.sender), (kind, Dialect::Signed, &*signed.sender));
            assert_eq!(read.seal, Some(signed.seal(row)));
            assert_eq!(compact(read.data), compact(&row.data()));
            assert!(frame.as_bytes().as_ptr_range().contains(&read.data.as_ptr()), "the data was copied");
            let seal = read.seal.as_ref().unwrap();
            assert!(matches!((&read.sender, &seal.nonce), (Cow::Borrowed(_), Cow::Borrowed(_))), "names were copied");
            if let Some(said) = &row.signing_string {
                assert_eq!(read.signing_string().as_ref(), Ok(said));
                assert_eq!(canonical::without(&frame, &["signature"]).as_ref(), Ok(said));
            }
        }
    }
    let ours = Unsigned::message(signed.stamp(), kind, &row.data()).unwrap();
    check_written(row, ours);
    signed
}

/// What we write instead of a recorded frame says the same, and reads back.
fn check_written(row: &Row, ours: Unsigned) {
    if let Some(said) = &row.signing_string {
        assert_eq!(ours.signing_string(), said);
    }
    let said = ours.signing_string().to_owned();
    let frame = ours.signed(&row.signature());
    let value: Value = serde_json::from_str(&frame).unwrap();
    assert_eq!(value, row.value());
    assert_eq!(canonical::without(&frame, &["signature"]), Ok(said));
}

#[test]
fn every_recorded_message_is_taken_as_it_was_meant() {
    let rows = rows();
    for row in &rows {
        if let Some(raw) = &row.raw {
            assert_eq!(raw, &row.json, "the file keeps Python's spelling");
        }
        let decoded = decode(row.json.as_bytes());
        match (row.variant.as_str(), row.kind.as_str(), row.transport.as_str()) {
            ("signed", "auth", "ws-text") => {
                let signed = Signed::of(row, "hotkey");
                for frame in [row.json.clone(), compact(&row.json)] {
                    let read = auth(&frame);
                    assert_eq!((&*read.hotkey, &read.seal), (&*signed.sender, &signed.seal(row)));
                    assert_eq!(read.signing_string().as_ref(), Ok(row.signing_string.as_ref().unwrap()));
                }
                check_written(row, Unsigned::auth(signed.stamp()));
            }
            ("signed", "welcome", "ws-text") => {
                check_written(row, Unsigned::welcome(check_signed(row, &Kind::Welcome).stamp()));
            }
            ("signed", "heartbeat", "ws-text") => {
                check_written(row, Unsigned::heartbeat(check_signed(row, &Kind::Heartbeat).stamp()));
            }
            ("signed", "heartbeat_ack", "ws-text") => {
                check_written(row, Unsigned::heartbeat_ack(check_signed(row, &Kind::HeartbeatAck).stamp()));
            }
            ("signed", "heartbeat_response", "ws-text") => {
                let signed = check_signed(row, &Kind::HeartbeatResponse);
                check_written(row, Unsigned::heartbeat_response(signed.stamp()));
            }
            ("signed", "confirmation_success" | "confirmation_error", "ws-text") => {
                let signed = check_signed(row, &Kind::Confirmation);
                let (dialect, read) = decoded.unwrap().confirmation().unwrap().unwrap();
                assert_eq!((dialect, read.success), (Dialect::Signed, row.kind == "confirmation_success"));
                let data = &row.value()["data"];
                assert_eq!(data["prediction_id"], *read.prediction_id);
                assert_eq!(data["message"], *read.message);
                assert_eq!(data["miner_stats"], serde_json::from_str::<Value>(read.miner_stats.unwrap()).unwrap());
                // The original looks at the clock twice, we once.
                let [inner, outer] = [data, &row.value()].map(|at| at["timestamp"].as_str().unwrap().to_owned());
                let said = row.signing_string.as_ref().unwrap().replace(&inner, &outer);
                assert_eq!(Unsigned::confirmation(signed.stamp(), &read).unwrap().signing_string(), said);
            }
            ("signed", "game_update", "ws-text") => {
                let signed = check_signed(row, &Kind::GameUpdate);
                let data: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&row.data()).unwrap();
                let [inner, outer] = [&row.value()["data"], &row.value()].map(|at| at["timestamp"].to_string());
                let said = row.signing_string.as_ref().unwrap().replace(&inner, &outer);
                assert_eq!(Unsigned::game_update(signed.stamp(), data["games"].get()).unwrap().signing_string(), said);
            }
            ("signed", "error_unknown_type" | "error_invalid_json", "ws-text") => {
                let signed = check_signed(row, &Kind::Error);
                let message = bettensor::message(&row.data()).unwrap().into_owned();
                assert_eq!(row.value()["data"]["message"], message);
                check_written(row, Unsigned::error(signed.stamp(), &message));
            }
            ("signed", "prediction", "ws-text") => {
                check_signed(row, &Kind::Prediction);
                assert_eq!(row.value()["data"]["prediction_id"], *prediction_id(&row.data()).unwrap());
            }
            ("signed", "canonical_form" | "bad_signature", "ws-text") => {
                check_signed(row, &Kind::Prediction);
                assert_eq!(prediction_id(&row.data()), Err(Malformed::Id));
            }
            ("signed", "error_bad_message", "ws-text") => {
                assert_eq!(decoded, Ok(Frame::Error { message: bettensor::BAD_MESSAGE.into() }));
                let ours = encode_error(bettensor::BAD_MESSAGE, Timestamp::parse(&row.text("timestamp")).unwrap());
                assert_eq!(serde_json::from_str::<Value>(&ours).unwrap(), row.value());
            }
            ("signed", "auth_refused", "ws-text") => {
                assert_eq!(decoded, Ok(Frame::Refusal { message: bettensor::REFUSED.into() }));
                assert_eq!(serde_json::from_str::<Value>(&encode_refusal(bettensor::REFUSED)).unwrap(), row.value());
                assert_eq!(row.then_close["code"], bettensor::CLOSE_CODE);
                assert_eq!(row.then_close["reason"], bettensor::REFUSED);
            }
            ("signed", "close", "ws-close") => {
                let reasons = [bettensor::CLOSE_REPLACED, bettensor::CLOSE_STOPPING];
                assert!(row.value()["code"] == 1000 && reasons.contains(&&*row.text("reason")));
            }
            ("signed", "http_health", "http") => {
                assert_eq!(row.http["path"], bettensor::HEALTH_PATH);
                assert_eq!(decoded, Ok(Frame::Other));
            }
            ("flat", "confirmation_success" | "confirmation_error", "ws-text") => {
                let Ok(Frame::Confirmation(Dialect::Flat, read)) = decoded else { panic!() };
                check_loose(row, &read, row.kind == "confirmation_success");
            }
            ("service", "prediction_confirmation", "ws-text") => {
                let Ok(Frame::Confirmation(Dialect::Service, read)) = decoded else { panic!() };
                check_loose(row, &read, true);
            }
            ("docs", "confirmation", "ws-text") if row.value()["data"].is_null() => {
                let (dialect, read) = decoded.unwrap().confirmation().unwrap().unwrap();
                assert_eq!(dialect, Dialect::Docs);
                check_loose(row, &read, true);
            }
            ("docs", "confirmation", "ws-text") => {
                let (dialect, read) = decoded.unwrap().confirmation().unwrap().unwrap();
                let whole = Confirmation {
                    prediction_id: "test_id".into(),
                    success: true,
                    message: "".into(),
                    miner_stats: None,
                    content: None,
                };
                assert_eq!((dialect, read), (Dialect::Docs, whole));
            }
            ("docs", "game_update" | "heartbeat", "ws-text") => {
                let read = envelope(&row.json);
                assert_eq!(
                    (read.kind.as_str(), read.dialect(), read.seal.is_none()),
                    (&*row.kind, Dialect::Docs, true)
                );
                assert_eq!((&*read.sender, read.data), (&*row.text("sender"), &*row.data()));
            }
            // What else the dialects say we do not speak.
            ("flat", "handshake" | "prediction" | "heartbeat" | "game_update" | "handshake_response", "ws-text")
            | ("service", "authentication" | "prediction" | "heartbeat" | "game_update", "ws-text")
            | ("docs", "http_health", "http")
            | ("http", "http_game_data" | "http_confirmation", "http") => assert_eq!(decoded, Ok(Frame::Other)),
            unknown => panic!("a row nobody has judged: {unknown:?}"),
        }
        assert!(["miner->validator", "validator->miner", "validator->any", "either"].contains(&&*row.direction));
    }
    assert_eq!(rows.len(), 42);
    assert_eq!(rows.iter().filter(|row| row.signing_string.is_some()).count(), 15);
}

/// A confirmation that has its fields at the top.
fn check_loose(row: &Row, read: &Confirmation<'_>, success: bool) {
    assert_eq!((&*read.prediction_id, read.success), (&*row.text("prediction_id"), success));
    assert_eq!(row.value()["message"].as_str().unwrap_or_default(), read.message);
    let stats = read.miner_stats.map(|stats| serde_json::from_str(stats).unwrap());
    assert_eq!(row.value()["miner_stats"], stats.unwrap_or(Value::Null));
}

proptest! {
    #[test]
    fn g10_arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>(), text in any::<String>()) {
        survives(&bytes);
        survives(text.as_bytes());
    }

    #[test]
    fn g10_arbitrary_json_like_text_never_panics(text in r#"[{}\[\]",:\\ a-z0-9.eE+-]{0,64}"#) {
        survives(text.as_bytes());
    }

    #[test]
    fn g10_no_mutation_of_a_recorded_message_panics(
        row in 0..42_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 1..8),
    ) {
        let mut bytes = rows()[row].json.clone().into_bytes();
        for (at, edit, byte) in edits {
            let at = at.index(bytes.len() + 1);
            let syntax = b"{}[]\",:\\0-";
            match edit {
                0 => bytes.insert(at, byte),
                1 => bytes.insert(at, syntax[usize::from(byte) % syntax.len()]),
                2 => bytes.truncate(at),
                _ => drop(bytes.drain(at..(at + usize::from(byte)).min(bytes.len()))),
            }
        }
        survives(&bytes);
    }
}

/// Whatever the bytes: no panic, what is taken lies in them, and what could be signed reads as the same frame.
fn survives(bytes: &[u8]) {
    let names = |name: &str| (1..=MAX_ID).contains(&name.len());
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = (prediction_id(text), bettensor::message(text), Confirmation::read(text));
        if let Ok(form) = canonical::value(text) {
            assert_eq!(canonical::value(&form).as_ref(), Ok(&form));
            assert_eq!(decode(text.as_bytes()).is_ok(), decode(form.as_bytes()).is_ok());
        }
    }
    let Ok(frame) = decode(bytes) else { return };
    match &frame {
        Frame::Envelope(read) => {
            assert!(bytes.as_ptr_range().contains(&read.data.as_ptr()));
            assert!(read.data.starts_with('{') && read.data.ends_with('}'));
            assert!(names(read.kind.as_str()) && names(&read.sender));
            assert!(read.seal.as_ref().is_none_or(|seal| names(&seal.nonce)));
            if let Ok(said) = read.signing_string() {
                let again = envelope(&said);
                assert_eq!((&again.kind, &again.sender, again.seal.is_none()), (&read.kind, &read.sender, true));
                assert_eq!(again.signing_string().as_ref(), Ok(&said));
            }
        }
        Frame::Auth(read) => {
            assert!(names(&read.hotkey) && names(&read.seal.nonce));
            let _ = read.signing_string();
        }
        Frame::Confirmation(_, read) => assert!(names(&read.prediction_id)),
        Frame::Refusal { .. } | Frame::Error { .. } | Frame::Other => {}
    }
    if let Ok(Some((_, read))) = frame.confirmation() {
        assert!(names(&read.prediction_id));
    }
}
