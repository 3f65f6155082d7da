//! The codec of the Gonka wire against what the original systems sent and did (`vectors/gonka.jsonl`), against frames
//! written to hurt it, and against chance.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bowline::MessageId;
use bowline::wire::gonka::{self, Frame, KEEPALIVE, Kind, Malformed, decode, decode_body, encode_ack, encode_batch};
use bowline::wire::{KeyedHash, MAX_ID};
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

const VECTORS: &str = include_str!("../vectors/gonka.jsonl");

/// One recorded message and what is known about it.
struct Row {
    direction: String,
    kind: String,
    transport: String,
    /// What the original did with it, if it is an edge case.
    expect: String,
    /// The message as it was recorded: with Python's spelling of numbers, but spaced by whoever wrote the file.
    json: String,
    /// The frame's exact text, if the row has it.
    raw: Option<String>,
    http: Value,
}

impl Row {
    /// The frame as the original wrote it: the ML node's are compact.
    fn frame(&self) -> String {
        self.raw.clone().unwrap_or_else(|| compact(&self.json))
    }

    fn value(&self) -> Value {
        serde_json::from_str(&self.json).unwrap()
    }

    fn field(&self, name: &str) -> String {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(&self.json).unwrap();
        fields[name].get().to_owned()
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
            transport: text("transport").unwrap(),
            expect: text("expect_original").unwrap_or_default(),
            json: fields["json"].get().to_owned(),
            raw: text("raw"),
            http: value("http"),
        }
    };
    VECTORS.lines().map(row).collect()
}

/// Leaves out the white space between tokens, and nothing else.
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

/// A recorded frame with a batch, read, its batch taken apart, and written again.
fn check_batch(row: &Row, expected_id: Option<&str>) {
    let kind = Kind::parse(row.value()["type"].as_str().unwrap()).unwrap();
    for (frame, batch) in [(row.frame(), compact(&row.field("batch"))), (row.json.clone(), row.field("batch"))] {
        for end in ["", "\n", " \r\n"] {
            let frame = frame.clone() + end;
            let Ok(Frame::Batch { kind: k, id, batch: b }) = decode(frame.as_bytes()) else { panic!("{frame}") };
            assert_eq!((k, id.as_deref(), b), (kind, expected_id, batch.as_str()));
            assert!(frame.as_bytes().as_ptr_range().contains(&b.as_ptr()), "the batch was copied");
            assert!(!matches!(id, Some(Cow::Owned(_))), "the id was copied");
        }
    }
}

#[test]
fn every_recorded_message_is_taken_as_the_originals_take_it() {
    let rows = rows();
    for row in &rows {
        let frame = row.frame();
        let decoded = decode(frame.as_bytes());
        let name = row.value()["type"].as_str().map(str::to_owned);
        match (row.kind.as_str(), row.transport.as_str(), row.expect.as_str()) {
            ("generated" | "validated", "ws-text", "") => {
                let id = row.value()["id"].as_str().unwrap().to_owned();
                check_batch(row, Some(&id));
                let kind = Kind::parse(&row.kind).unwrap();
                let batch = compact(&row.field("batch"));
                assert_eq!(encode_batch(kind, MessageId::parse_uuid(&id).unwrap(), &batch), frame);
            }
            ("ack", "ws-text", "") => {
                let Ok(Frame::Ack { ref id }) = decoded else { panic!("{frame}") };
                assert_eq!(encode_ack(id), row.raw.clone().unwrap());
            }
            ("http_generated" | "http_validated", "http", "") => {
                let kind = Kind::parse(row.kind.strip_prefix("http_").unwrap()).unwrap();
                assert_eq!(row.http["example_path"], format!("{}/{}", gonka::CALLBACK, kind.as_str()));
                assert_eq!(decode_body(kind, row.json.as_bytes()), Ok(row.json.as_str()));
                assert_eq!(decode_body(kind, format!("\r\n{frame}\n").as_bytes()), Ok(frame.as_str()));
            }
            // Not frames; but if they were, they would do no harm.
            ("http_init_generate" | "http_init_generate_reply" | "http_status_reply", "http", "") => {
                assert_eq!(decoded, Ok(Frame::Other));
            }
            ("close", "ws-close", "") => {
                let (code, reason) = (row.value()["code"].clone(), row.value()["reason"].clone());
                if code == gonka::CLOSE_CODE {
                    let known = [gonka::CLOSE_NOT_RUNNING, gonka::CLOSE_NOT_READY, gonka::CLOSE_TAKEN];
                    assert!(known.iter().any(|known| reason == *known), "{reason}");
                } else {
                    assert_eq!(code, 1009);
                    assert_eq!(reason, format!("frame exceeds limit of {} bytes", gonka::ML_NODE_LIMIT));
                }
            }
            ("edge", "ws-text", "processed, no ack") => check_batch(row, None),
            ("edge", "ws-text", "processed, acked") => check_batch(row, row.value()["id"].as_str()),
            ("edge", "ws-text", "logged, no ack, socket stays open") if name.as_deref() == Some("mystery") => {
                assert_eq!(decoded, Ok(Frame::Other));
            }
            ("edge", "ws-text", "logged, no ack" | "logged, no ack, socket stays open") => {
                assert_eq!(decoded, Err(Malformed::Batch));
            }
            ("edge", "ws-text", "socket aborted without close frame (1006)") => {
                assert_eq!(decoded, Err(Malformed::Json));
            }
            // What was wrong with it was the opcode; we encode a `String` so as not to send such a one.
            ("edge", "ws-binary", expect) if expect.ends_with("ACKs must be text frames") => {
                assert_eq!(decoded, Ok(Frame::Ack { id: "x".into() }));
            }
            ("edge", "ws-text", "ignored (kept up to 2 x timeout, then dropped)") => {
                assert_eq!(decoded, Ok(Frame::Ack { id: "not-a-known-id".into() }));
            }
            unknown => panic!("a row nobody has judged: {unknown:?}"),
        }
        if row.direction == "api->mlnode" && row.transport.starts_with("ws") {
            assert!(!matches!(decoded, Ok(Frame::Batch { .. })), "an API node sends no batches");
        }
    }
    assert_eq!(rows.len(), 19);
}

#[test]
fn i4_a_batch_has_one_content_key_on_both_paths_and_each_batch_its_own() {
    let names = KeyedHash::new([3; 16]);
    let rows = rows();
    for row in rows.iter().filter(|row| row.http["example_path"].is_string()) {
        let kind = row.kind.strip_prefix("http_").unwrap();
        assert_ne!(row.json, row.frame(), "the file spells it as `requests` does, frames are compact");
        assert_eq!(names.content(kind, &row.json), names.content(kind, &row.frame()));
    }
    let [first, second] = ["generated", "http_generated"].map(|kind| rows.iter().find(|row| row.kind == kind).unwrap());
    assert_ne!(names.content("generated", &first.field("batch")), names.content("generated", &second.json));
}

fn frame(kind: &str, batch: &str, id: &str) -> String {
    format!(r#"{{"type":{kind},"batch":{batch},"id":{id}}}"#)
}

#[test]
fn a_batch_that_is_no_object_is_refused() {
    for batch in ["null", "[]", r#"["a","b",1,[],[],3]"#, "\"{}\"", "1", "true"] {
        let bytes = frame(r#""generated""#, batch, r#""a""#);
        assert_eq!(decode(bytes.as_bytes()), Err(Malformed::Batch), "{batch}");
    }
    assert_eq!(decode(br#"{"type":"validated","id":"a"}"#), Err(Malformed::Batch));
}

#[test]
fn escapes_in_type_id_and_names_mean_what_they_spell() {
    let bytes = br#" {"\u0074ype":"gener\u0061ted", "b\u0061tch": {} , "id":"\u00e9\"\\\ud83d\ude00"} "#;
    let id = Some("é\"\\😀".into());
    assert_eq!(decode(bytes), Ok(Frame::Batch { kind: Kind::Generated, id, batch: "{}" }));
    let bytes = frame(r#""\u0067\u0065\u006e\u0065\u0072\u0061\u0074\u0065\u0064""#, "{}", "null");
    assert!(matches!(decode(bytes.as_bytes()), Ok(Frame::Batch { kind: Kind::Generated, id: None, .. })));
    assert_eq!(decode(br#"{"type":"\u0061ck","id":"\u0061"}"#), Ok(Frame::Ack { id: "a".into() }));
}

#[test]
fn i2_an_id_has_1_to_64_bytes_however_it_is_spelt() {
    let decoded = |id: &str| match decode(frame(r#""generated""#, "{}", id).as_bytes()) {
        Ok(Frame::Batch { id, .. }) => Ok(id.map(Cow::into_owned)),
        other => Err(other.unwrap_err()),
    };
    for (piece, spelt) in [("a", "a"), ("a", "\\u0061"), ("é", "\\u00e9"), ("é", "é"), ("😀", "\\ud83d\\ude00")] {
        let fits = MAX_ID / piece.len();
        assert_eq!(decoded(&format!("\"{}\"", spelt.repeat(fits))), Ok(Some(piece.repeat(fits))));
        assert_eq!(decoded(&format!("\"{}\"", spelt.repeat(fits + 1))), Err(Malformed::Id));
    }
    assert_eq!(decoded("\"\""), Ok(None));
    assert_eq!(decoded("null"), Ok(None));
    for id in ["7", "[]", "{}", "true", r#""\ud800""#] {
        assert_eq!(decoded(id), Err(Malformed::Id), "{id}");
        assert_eq!(decode(format!(r#"{{"type":"ack","id":{id}}}"#).as_bytes()), Err(Malformed::Id), "{id}");
    }
    assert_eq!(decode(br#"{"type":"ack","id":""}"#), Err(Malformed::Id));
    assert_eq!(decode(br#"{"type":"ack"}"#), Err(Malformed::Id));
}

#[test]
fn an_object_that_is_not_ours_is_other_whatever_it_holds() {
    for json in [
        "{}",
        r#"{"type":"mystery","batch":"oops","id":7}"#,
        r#"{"type":"Ack","id":"a"}"#,
        r#"{"type":null}"#,
        r#"{"type":5}"#,
        r#"{"type":["ack"],"id":"a"}"#,
        r#"{"type":"\ud800"}"#,
        KEEPALIVE,
    ] {
        assert_eq!(decode(json.as_bytes()), Ok(Frame::Other), "{json}");
    }
}

#[test]
fn what_is_not_one_json_object_is_malformed() {
    let not_utf8 = b"{\"type\":\"ack\",\"id\":\"\xff\"}";
    let nan = br#"{"type":"generated","batch":{"dist":[NaN]},"id":"a"}"#;
    let array = br#"["generated",{},"a"]"#;
    let all: [&[u8]; 10] =
        [b"", b"\n", b"not json", b"[]", b"\"{}\"", b"null", b"{}{}", b"{\"type\":\"ack\"", not_utf8, nan];
    for bytes in all.into_iter().chain([array.as_slice(), "\u{feff}{}".as_bytes(), b"{}\0"]) {
        assert_eq!(decode(bytes), Err(Malformed::Json), "{bytes:?}");
    }
}

#[test]
fn a_field_of_the_envelope_that_occurs_twice_is_refused() {
    for json in [r#"{"type":"ack","id":"a","id":"b"}"#, r#"{"type":"ack","\u0074ype":"x","id":"a"}"#] {
        assert_eq!(decode(json.as_bytes()), Err(Malformed::Twice), "{json}");
    }
    assert_eq!(decode(br#"{"extra":1,"extra":2}"#), Ok(Frame::Other));
}

#[test]
fn an_ack_is_tolerated_with_white_space_and_extra_fields() {
    for json in
        ["{\"type\":\"ack\",\"id\":\"a\"}\n", " \t{ \"id\" : \"a\", \"timestamp\": 1.5, \"type\" : \"ack\" }\r\n"]
    {
        assert_eq!(decode(json.as_bytes()), Ok(Frame::Ack { id: "a".into() }));
    }
}

#[test]
fn an_ack_echoes_any_id_byte_for_byte() {
    let ids: Vec<char> = (0..0x300).filter_map(char::from_u32).chain(['\u{2028}', '😀', '\u{10ffff}']).collect();
    for id in ids {
        let id = String::from(id);
        assert_eq!(decode(encode_ack(&id).as_bytes()), Ok(Frame::Ack { id: (&id).into() }));
    }
}

#[test]
fn g10_hostile_nesting_neither_overflows_nor_passes_as_a_batch() {
    let deep = 100_000;
    let (open, close) = ("[".repeat(deep), "]".repeat(deep));
    let (open_object, close_object) = (r#"{"a":"#.repeat(deep), "}".repeat(deep));
    for (value, closed) in [
        (open.clone() + &close, true),
        (format!("{open_object}1{close_object}"), true),
        (open.clone(), false),
        (open_object.clone(), false),
        (open.clone() + &close_object, false),
    ] {
        let unless_open = |outcome| if closed { outcome } else { Err(Malformed::Json) };
        let generated = r#""generated""#;
        assert_eq!(decode(frame(&value, "{}", r#""a""#).as_bytes()), unless_open(Ok(Frame::Other)));
        assert_eq!(decode(frame(generated, "{}", &value).as_bytes()), unless_open(Err(Malformed::Id)));
        for field in ["public_key", "block_height", "nonces", "dist", "node_id"] {
            let batch = format!(r#"{{"{field}":{value}}}"#);
            let frame = frame(generated, &batch, r#""a""#);
            assert_eq!(decode(frame.as_bytes()), unless_open(Err(Malformed::Batch)), "{field}");
        }
        let batch = format!(r#"{{"extra":{value}}}"#);
        let taken = Ok(Frame::Batch { kind: Kind::Generated, id: Some("a".into()), batch: &batch });
        assert_eq!(decode(frame(generated, &batch, r#""a""#).as_bytes()), unless_open(taken));
    }
    assert_eq!(decode(open.as_bytes()), Err(Malformed::Json));
}

#[test]
fn g4_the_longest_frame_of_the_wire_is_read_in_place() {
    let head = r#"{"type":"generated","id":"a","batch":{"nonces":[3"#;
    let tail = r#"],"dist":[1e-07]}}"#;
    let numbers = (gonka::API_NODE_LIMIT - head.len() - tail.len()) / 21;
    let frame = [head, &",-9223372036854775808".repeat(numbers), tail].concat();
    assert!(gonka::API_NODE_LIMIT - frame.len() < 21);
    let Ok(Frame::Batch { batch, .. }) = decode(frame.as_bytes()) else { panic!() };
    assert_eq!(batch.len(), frame.len() - r#"{"type":"generated","id":"a","batch":}"#.len());
    assert!(frame.as_bytes().as_ptr_range().contains(&batch.as_ptr()));
}

/// A batch as Python or Go may spell it, with fields missing, `null`, repeated numbers and fields of tomorrow.
fn any_batch() -> impl Strategy<Value = (Kind, String)> {
    let int = any::<i64>().prop_map(|n| n.to_string());
    let float = prop_oneof![
        any::<f64>().prop_filter("JSON has no such number", |x| x.is_finite()).prop_map(|x| format!("{x:?}")),
        int.clone(),
        (0..400).prop_map(|e| format!("1e-{e:02}")),
    ];
    let list = |item: BoxedStrategy<String>| {
        (prop::collection::vec(item, 0..5), prop_oneof![Just(","), Just(", ")])
            .prop_map(|(items, comma)| format!("[{}]", items.join(comma)))
            .boxed()
    };
    let text = any::<String>().prop_map(|text| Value::from(text).to_string());
    let field = |name: &'static str, value: BoxedStrategy<String>| {
        prop_oneof![
            1 => Just(None),
            1 => Just(Some(format!("\"{name}\": null"))),
            6 => value.prop_map(move |value| Some(format!("\"{name}\":{value}"))),
        ]
    };
    let proof = (
        field("public_key", text.clone().boxed()),
        field("block_hash", text.clone().boxed()),
        field("block_height", int.clone().boxed()),
        field("nonces", list(int.clone().boxed())),
        field("dist", list(float.clone().boxed())),
        field("node_id", any::<u64>().prop_map(|n| n.to_string()).boxed()),
        field("extra", text.prop_map(|text| format!(r#"{{"node_id":[-1,{text}]}}"#)).boxed()),
    );
    let verdict = (
        field("received_dist", list(float.clone().boxed())),
        field("r_target", float.clone().boxed()),
        field("fraud_threshold", float.clone().boxed()),
        field("n_invalid", int.boxed()),
        field("probability_honest", float.boxed()),
        field("fraud_detected", any::<bool>().prop_map(|yes| yes.to_string()).boxed()),
    );
    let kind = prop_oneof![Just(Kind::Generated), Just(Kind::Validated)];
    (kind, proof, verdict).prop_map(|(kind, (a, b, c, d, e, f, g), (h, i, j, k, l, m))| {
        let fields: Vec<String> = [a, b, c, d, e, f, g, h, i, j, k, l, m].into_iter().flatten().collect();
        (kind, format!("{{{}}}", fields.join(",")))
    })
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself((kind, batch) in any_batch(), id in any::<u128>()) {
        prop_assert_eq!(decode_body(kind, batch.as_bytes()), Ok(batch.as_str()));
        let id = MessageId::from_bits(id);
        let frame = encode_batch(kind, id, &batch);
        let text = id.to_string();
        prop_assert_eq!(decode(frame.as_bytes()), Ok(Frame::Batch { kind, id: Some((&text).into()), batch: &batch }));
        prop_assert_eq!(KeyedHash::new([0; 16]).id(&text), id);
    }

    #[test]
    fn an_ack_of_any_id_decodes_to_itself(id in "(?s).{1,16}") {
        prop_assert!((1..=MAX_ID).contains(&id.len()));
        let frame = encode_ack(&id);
        prop_assert_eq!(decode(frame.as_bytes()), Ok(Frame::Ack { id: (&id).into() }));
    }

    #[test]
    fn what_we_write_any_json_reader_reads((kind, batch) in any_batch(), id in any::<String>()) {
        let ack: Value = serde_json::from_str(&encode_ack(&id)).unwrap();
        prop_assert_eq!(ack, serde_json::json!({"type": "ack", "id": id}));
        let frame: Value = serde_json::from_str(&encode_batch(kind, MessageId::from_bits(1), &batch)).unwrap();
        let batch: Value = serde_json::from_str(&batch).unwrap();
        let id = "00000000-0000-0000-0000-000000000001";
        prop_assert_eq!(frame, serde_json::json!({"type": kind.as_str(), "batch": batch, "id": id}));
    }

    #[test]
    fn i4_spacing_never_changes_a_content_key((kind, batch) in any_batch()) {
        let names = KeyedHash::new([9; 16]);
        let pretty = compact(&batch).replace(':', " :").replace(',', "\n,\t");
        let spaced_in_strings = compact(&pretty) != compact(&batch);
        let same = names.content(kind.as_str(), &pretty) == names.content(kind.as_str(), &batch);
        prop_assert_eq!(same, !spaced_in_strings);
        prop_assert_eq!(names.content(kind.as_str(), &compact(&batch)), names.content(kind.as_str(), &batch));
    }

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
        row in 0..19_usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 1..8),
    ) {
        let mut bytes = rows()[row].frame().into_bytes();
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

/// Whatever the bytes: no panic, and what is taken lies in them and is what any JSON reader would make of it.
fn survives(bytes: &[u8]) {
    let taken = match decode(bytes) {
        Ok(Frame::Batch { kind, id, batch }) => {
            assert!(id.is_none_or(|id| (1..=MAX_ID).contains(&id.len())));
            Some((kind, batch))
        }
        Ok(Frame::Ack { id }) => {
            assert!((1..=MAX_ID).contains(&id.len()));
            None
        }
        Ok(Frame::Other) | Err(_) => None,
    };
    let bodies = [Kind::Generated, Kind::Validated].map(|kind| decode_body(kind, bytes).ok().map(|body| (kind, body)));
    for (kind, batch) in bodies.into_iter().flatten().chain(taken) {
        assert!(bytes.as_ptr_range().contains(&batch.as_ptr()));
        assert!(batch.starts_with('{') && batch.ends_with('}'));
        assert_eq!(decode_body(kind, batch.as_bytes()), Ok(batch), "what was taken once is taken again");
    }
}
