//! The rules of the Bettensor wire, one by one, and what is written read back. (What the original systems sent is in
//! `bettensor_vectors`, and why its canonical form is right in `canonical`.)

use bowline::ContentKey;
use bowline::wire::MAX_ID;
use bowline::wire::bettensor::{
    self, AUTH_LIMIT, Auth, Confirmation, Dialect, Envelope, Frame, Kind, Malformed, Seal, Stamp, Unsigned, decode,
    encode_error, encode_refusal, prediction_id,
};
use bowline::wire::canonical::{self, MAX_DEPTH, Uncanonical};
use bowline::wire::timestamp::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

fn auth(frame: &str) -> Auth<'_> {
    let Ok(Frame::Auth(auth)) = decode(frame.as_bytes()) else { panic!("{frame}") };
    auth
}

fn envelope(frame: &str) -> Envelope<'_> {
    let Ok(Frame::Envelope(envelope)) = decode(frame.as_bytes()) else { panic!("{frame}") };
    envelope
}

const SIGNATURE: &str = concat!(
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "00112233445566778899AABBCCDDEEFF00112233445566778899aabbccddeeff"
);

/// A signed heartbeat with one field spelt otherwise, or left out.
fn heartbeat_with(field: &str, spelt: Option<&str>) -> String {
    let signature = format!("\"{SIGNATURE}\"");
    let fields = [
        ("type", r#""heartbeat""#),
        ("sender", r#""5Grw""#),
        ("data", "{}"),
        ("timestamp", r#""2025-03-31T12:00:00+00:00""#),
        ("nonce", r#""17""#),
        ("signature", &*signature),
    ];
    let spell = |(name, plain): &(&str, &str)| {
        let value = if *name == field { spelt? } else { *plain };
        Some(format!("\"{name}\":{value}"))
    };
    format!("{{{}}}", fields.iter().filter_map(spell).collect::<Vec<String>>().join(","))
}

/// What becomes of that heartbeat.
fn outcome(field: &str, spelt: Option<&str>) -> Result<(), Malformed> {
    match decode(heartbeat_with(field, spelt).as_bytes())? {
        Frame::Envelope(envelope) => assert!(envelope.seal.is_some(), "{field} {spelt:?}"),
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[test]
fn a_signed_frame_has_six_fields_of_their_types() {
    assert_eq!(outcome("", None), Ok(()));
    for (field, why) in
        [("sender", Malformed::Sender), ("timestamp", Malformed::Timestamp), ("nonce", Malformed::Nonce)]
    {
        for spelt in [None, Some("null"), Some("7"), Some("[]"), Some("\"\""), Some(r#""\ud800""#)] {
            assert_eq!(outcome(field, spelt), Err(why), "{field} {spelt:?}");
        }
    }
    for (field, why) in [("type", Malformed::Kind), ("sender", Malformed::Sender), ("nonce", Malformed::Nonce)] {
        for (piece, spelt) in [("a", "a"), ("a", "\\u0061"), ("é", "\\u00e9"), ("é", "é"), ("😀", "\\ud83d\\ude00")]
        {
            let fits = 64 / piece.len();
            assert_eq!(outcome(field, Some(&format!("\"{}\"", spelt.repeat(fits)))), Ok(()));
            assert_eq!(outcome(field, Some(&format!("\"{}\"", spelt.repeat(fits + 1)))), Err(why));
        }
    }
    for spelt in ["7", "[]", "\"\"", "true"] {
        assert_eq!(outcome("type", Some(spelt)), Err(Malformed::Kind));
        assert_eq!(outcome("data", Some(spelt)), Err(Malformed::Data));
    }
    for naive in ["2025-03-31T12:00:00", "2025-03-31T12:00:00.000000", "2025-02-30T12:00:00+00:00"] {
        assert_eq!(outcome("timestamp", Some(&format!("\"{naive}\""))), Err(Malformed::Timestamp));
    }
    assert_eq!(outcome("timestamp", Some(r#""2001-01-01 00:00:00Z""#)), Ok(()), "how old it may be is not for us");
}

#[test]
fn a_signature_is_128_hexadecimal_digits_of_either_case() {
    let with = |digits: &str| outcome("signature", Some(&format!("\"{digits}\"")));
    assert_eq!(with(&SIGNATURE.to_uppercase()), Ok(()));
    assert_eq!(with(&SIGNATURE.replace("aa", "\\u0061a")), Ok(()));
    let spaced = SIGNATURE.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap()).collect::<Vec<_>>().join(" ");
    for digits in [
        "",
        "00",
        &SIGNATURE[1..],
        &SIGNATURE[2..],
        &format!("{SIGNATURE}00"),
        &format!("0x{SIGNATURE}"),
        &format!("0x{}", &SIGNATURE[2..]),
        &format!("+1{}", &SIGNATURE[2..]),
        &format!("0g{}", &SIGNATURE[2..]),
        &format!("é{}", &SIGNATURE[2..]),
        &spaced,
    ] {
        assert_eq!(with(digits), Err(Malformed::Signature), "{digits}");
    }
    assert_eq!(outcome("signature", Some("7")), Err(Malformed::Signature));
    let expected: Vec<u8> = (0..64_u8).map(|i| (i % 16) * 0x11).collect();
    assert_eq!(envelope(&heartbeat_with("", None)).seal.unwrap().signature.as_slice(), expected);
    for unsigned in [None, Some("null")] {
        assert_eq!(envelope(&heartbeat_with("signature", unsigned)).seal, None);
    }
}

#[test]
fn an_auth_frame_has_all_four_fields_and_is_short() {
    let frame = |fields: &str| format!(r#"{{"hotkey":"5Grw","timestamp":"2025-03-31T12:00:00Z"{fields}}}"#);
    let rest = format!(r#","nonce":"1","signature":"{SIGNATURE}""#);
    assert_eq!(auth(&frame(&rest)).hotkey, "5Grw");
    assert_eq!(decode(frame(r#","nonce":"1""#).as_bytes()), Err(Malformed::Signature));
    assert_eq!(decode(frame(&rest.replace("nonce", "once")).as_bytes()), Err(Malformed::Nonce));
    assert_eq!(decode(frame(&rest).replace("12:00:00Z", "12:00:00").as_bytes()), Err(Malformed::Timestamp));
    assert_eq!(decode(frame(&rest).replace("\"5Grw\"", "7").as_bytes()), Err(Malformed::Sender));
    let padded = |pad: usize| frame(&format!("{rest},\"x\":\"{}\"", "y".repeat(pad)));
    let fits = AUTH_LIMIT - padded(0).len();
    assert_eq!(auth(&padded(fits)).hotkey, "5Grw");
    assert_eq!(decode(padded(fits + 1).as_bytes()), Err(Malformed::Long));
}

#[test]
fn unknown_fields_are_signed_in_an_auth_frame_and_nowhere_else() {
    let extra = r#","extra":{"b":1,"a":2}}"#;
    let frame = heartbeat_with("", None);
    let extended = frame[..frame.len() - 1].to_owned() + extra;
    assert_eq!(envelope(&extended).signing_string(), envelope(&frame).signing_string());
    let frame =
        format!(r#"{{"hotkey":"5Grw","timestamp":"2025-03-31T12:00:00Z","nonce":"1","signature":"{SIGNATURE}""#);
    let said = r#"{"extra": {"a": 2, "b": 1}, "hotkey": "5Grw", "nonce": "1", "timestamp": "2025-03-31T12:00:00Z"}"#;
    assert_eq!(auth(&(frame + extra)).signing_string().unwrap(), said);
}

#[test]
fn what_is_signed_is_the_text_that_came_not_our_spelling_of_it() {
    let frame = heartbeat_with("timestamp", Some(r#""2025-03-31 14:00:00.10+02:00""#)).replace("nonce", "n\\u006fnce");
    let said = r#"{"data": {}, "nonce": "17", "sender": "5Grw", "timestamp": "2025-03-31 14:00:00.10+02:00", "type": "heartbeat"}"#;
    assert_eq!(envelope(&frame).signing_string().unwrap(), said);
}

#[test]
fn a_field_that_is_read_must_not_occur_twice() {
    for field in ["type", "sender", "data", "timestamp", "nonce", "signature", "hotkey", "status", "message_type"] {
        let twice = format!(r#"{{"{field}":"a","{field}":"b"}}"#);
        assert_eq!(decode(twice.as_bytes()), Err(Malformed::Twice), "{field}");
    }
    assert_eq!(decode(br#"{"type":"x","\u0074ype":"x"}"#), Err(Malformed::Twice));
    for data in [r#"{"prediction_id":"a","prediction_id":"b"}"#, r#"{"status":"error","status":"success"}"#] {
        assert_eq!(prediction_id(data), Err(Malformed::Twice));
        assert_eq!(Confirmation::read(data), Err(Malformed::Twice));
    }
    // A field that is not read may, but then nothing was signed.
    let frame = heartbeat_with("data", Some(r#"{"a":[{"b":1,"b":2}]}"#));
    assert_eq!(envelope(&frame).signing_string(), Err(Uncanonical::Twice));
}

#[test]
fn a_confirmation_says_success_or_error_in_one_of_two_ways() {
    let read = |fields: &str| {
        let flat = format!(r#"{{"type":"confirmation","prediction_id":"p"{fields}}}"#);
        let nested = format!(r#"{{"type":"confirmation","sender":"v","data":{{"prediction_id":"p"{fields}}}}}"#);
        let [flat, nested] = [flat, nested].map(|frame| {
            let read = decode(frame.as_bytes()).and_then(Frame::confirmation);
            read.map(|found| found.map(|(dialect, read)| (dialect, read.success, read.message.into_owned())).unwrap())
        });
        assert_eq!(flat, nested);
        flat.map(|(dialect, success, message)| {
            assert_eq!((dialect, message), (Dialect::Docs, String::new()));
            success
        })
    };
    for (fields, success) in [
        (r#","status":"success""#, true),
        (r#","status":"error","message":null"#, false),
        (r#","success":true,"message":7"#, true),
        (r#","success":false,"miner_stats":null"#, false),
        (r#","success":false,"status":"error""#, false),
        (r#","success":null,"status":"succes\u0073""#, true),
    ] {
        assert_eq!(read(fields), Ok(success), "{fields}");
    }
    for fields in [
        "",
        r#","status":"ok""#,
        r#","status":"","success":true"#,
        r#","status":true"#,
        r#","success":"True""#,
        r#","success":1"#,
        r#","success":true,"status":"error""#,
    ] {
        assert_eq!(read(fields), Err(Malformed::Status), "{fields}");
    }
    for (id, why) in [
        ("", Malformed::Id),
        (r#","prediction_id":"""#, Malformed::Id),
        (r#","prediction_id":null"#, Malformed::Id),
        (r#","prediction_id":7"#, Malformed::IdType),
        (r#","prediction_id":["p"]"#, Malformed::IdType),
        (r#","prediction_id":"\ud800""#, Malformed::IdType),
    ] {
        assert_eq!(decode(format!(r#"{{"type":"confirmation","success":true{id}}}"#).as_bytes()), Err(why), "{id}");
        assert_eq!(why.member(), Some("prediction_id"));
    }
    let longest = format!(r#"{{"prediction_id":"{}"}}"#, "p".repeat(MAX_ID));
    assert_eq!(prediction_id(&longest).unwrap().len(), MAX_ID);
    assert_eq!(prediction_id(&longest.replace(":\"", ":\"p")), Err(Malformed::IdLong));
    assert_eq!(prediction_id(&longest.replace(":\"", ":\"\\u0070")), Err(Malformed::IdLong));
    assert_eq!(Malformed::IdLong.to_string(), "a prediction_id that is longer than 64 bytes");
    for data in ["", "[]", "null", "7", "{} {}", r#"["p"]"#] {
        assert_eq!(prediction_id(data), Err(Malformed::Json));
    }
}

#[test]
fn data_outranks_whatever_lies_beside_it() {
    let frame = r#"{"type":"confirmation","sender":"v","data":{"prediction_id":"a","success":true},
        "prediction_id":"b","status":"error","hotkey":"h","message_type":"confirmation"}"#;
    let (_, read) = decode(frame.as_bytes()).unwrap().confirmation().unwrap().unwrap();
    assert_eq!((&*read.prediction_id, read.success), ("a", true));
}

#[test]
fn an_object_that_is_not_ours_is_other_whatever_it_holds() {
    for json in [
        "{}",
        r#"{"type":null}"#,
        r#"{"type":"mystery"}"#,
        r#"{"type":"heartbeat","sender":"s","data":null}"#,
        r#"{"type":"error"}"#,
        r#"{"status":"success"}"#,
        r#"{"status":["error"],"message":"x"}"#,
        r#"{"message_type":"heartbeat"}"#,
        r#"{"type":"authentication","hotkey":"h","signature":"00"}"#,
    ] {
        assert_eq!(decode(json.as_bytes()), Ok(Frame::Other), "{json}");
    }
    assert_eq!(decode(br#"{"status":"error"}"#), Ok(Frame::Refusal { message: "".into() }));
    assert_eq!(decode(br#"{"type":"error","message":["x"]}"#), Ok(Frame::Error { message: "".into() }));
    assert_eq!(decode(br#"{"type":"error","message":"\u00e9\n"}"#), Ok(Frame::Error { message: "é\n".into() }));
}

#[test]
fn what_is_not_one_json_object_is_malformed() {
    let not_utf8 = b"{\"type\":\"x\",\"sender\":\"\xff\"}";
    let all: [&[u8]; 9] = [b"", b"\n", b"not json", b"[]", b"\"{}\"", b"null", b"{}{}", b"{\"type\":\"x\"", not_utf8];
    for bytes in all.into_iter().chain([b"{\"a\":NaN}".as_slice(), "\u{feff}{}".as_bytes(), b"{}\0", b"{'a':1}"]) {
        assert_eq!(decode(bytes), Err(Malformed::Json), "{bytes:?}");
    }
}

#[test]
fn g10_hostile_nesting_neither_overflows_nor_is_signed() {
    let deep = 100_000;
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
        let text = nested(MAX_DEPTH);
        assert_eq!(canonical::value(&text).unwrap(), text.replace(':', ": "));
        assert_eq!(canonical::value(&nested(MAX_DEPTH + 1)), Err(Uncanonical::Deep));
        assert_eq!(canonical::value(&nested(deep)), Err(Uncanonical::Deep));
        assert_eq!(canonical::value(&open.repeat(deep)), Err(Uncanonical::Json));
        let frame = heartbeat_with("data", Some(&format!(r#"{{"a":{}}}"#, nested(deep))));
        assert_eq!(envelope(&frame).signing_string(), Err(Uncanonical::Deep));
        for field in ["type", "sender", "nonce", "timestamp", "signature"] {
            assert!(outcome(field, Some(&nested(deep))).is_err());
        }
        assert_eq!(decode(nested(deep).as_bytes()).is_ok(), open != "[", "an object of nobody's");
    }
    let empties = |levels: usize| format!("{}{{}}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(canonical::value(&empties(MAX_DEPTH - 1)).is_ok());
    assert_eq!(canonical::value(&empties(MAX_DEPTH)), Err(Uncanonical::Deep));
}

#[test]
fn what_is_no_json_is_not_signed() {
    let stamp = Stamp { sender: "v", timestamp: Timestamp::from_unix_micros(0), nonce: "1" };
    for data in ["", "[]", "7", "{}{}", r#"{"a":1},"b":{"#, r#"{"a":NaN}"#] {
        assert_eq!(Unsigned::message(stamp, &Kind::Prediction, data), Err(Uncanonical::Json), "{data}");
    }
    assert_eq!(Unsigned::game_update(stamp, r#"[],"sender":"w""#), Err(Uncanonical::Json));
    let stats = Some(r#"{"rank":1,"rank":2}"#);
    let (prediction_id, message, content) = ("p".into(), "".into(), None);
    let confirmation = Confirmation { prediction_id, success: true, message, miner_stats: stats, content };
    assert_eq!(Unsigned::confirmation(stamp, &confirmation), Err(Uncanonical::Twice));
}

#[test]
fn g10_what_we_sign_is_not_too_deep_for_whoever_verifies() {
    let stamp = Stamp { sender: "v", timestamp: Timestamp::from_unix_micros(0), nonce: "1" };
    let list = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let with_stats = |stats: &str| {
        let (prediction_id, message) = ("p".into(), "".into());
        let confirmation =
            Confirmation { prediction_id, success: true, message, miner_stats: Some(stats), content: None };
        Unsigned::confirmation(stamp, &confirmation)
    };
    let message = |levels| Unsigned::message(stamp, &Kind::Error, &format!(r#"{{"a":{}}}"#, list(levels)));
    let update = |levels| Unsigned::game_update(stamp, &list(levels));
    let confirmation = |levels| with_stats(&list(levels));
    let most = MAX_DEPTH - 2;
    for frame in [message(most), update(most), confirmation(most)] {
        let frame = frame.unwrap();
        let said = frame.signing_string().to_owned();
        assert_eq!(envelope(&frame.signed(&[0; 64])).signing_string(), Ok(said));
    }
    for frame in [message(most + 1), update(most + 1), confirmation(most + 1)] {
        assert_eq!(frame, Err(Uncanonical::Deep));
    }
}

/// An object as somebody may spell it.
fn any_data() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        any::<i32>().prop_map(|n| format!("{}", f64::from(n) / 256.0)),
        Just(r#"[ -0,{"é":null, "a":1E+5}]"#.to_owned()),
    ];
    prop::collection::btree_map("[a-z]{0,3}", value, 0..4).prop_map(|fields| {
        let fields = fields.iter().rev().map(|(name, value)| format!("\t\"{name}\" :{value}"));
        format!("{{ {} }}", fields.collect::<Vec<String>>().join(","))
    })
}

fn any_kind() -> impl Strategy<Value = String> {
    let known = ["prediction", "confirmation", "game_update", "heartbeat_response", "error"].map(str::to_owned);
    prop_oneof![prop::sample::select(known.to_vec()), "(?s).{1,16}"]
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(
        sender in "(?s).{1,16}",
        nonce in "(?s).{1,16}",
        kind in any_kind(),
        micros in any::<i64>(),
        data in any_data(),
        signature in prop::collection::vec(any::<u8>(), 64),
    ) {
        let signature: [u8; 64] = signature.try_into().unwrap();
        let timestamp = Timestamp::from_unix_micros(micros);
        let stamp = Stamp { sender: &sender, timestamp, nonce: &nonce };
        let seal = Seal { timestamp, nonce: (&nonce).into(), signature };
                let kind = Kind::parse((&kind).into());
        let ours = Unsigned::message(stamp, &kind, &data).unwrap();
        let said = ours.signing_string().to_owned();
        let frame = ours.signed(&signature);
        let read = envelope(&frame);
        prop_assert_eq!((&read.kind, &*read.sender, read.seal.as_ref()), (&kind, &*sender, Some(&seal)));
        prop_assert_eq!(read.data, &canonical::value(&data).unwrap());
        prop_assert_eq!(read.signing_string().unwrap(), said);
        let ours = Unsigned::auth(stamp);
        let said = ours.signing_string().to_owned();
        let frame = ours.signed(&signature);
        let read = auth(&frame);
        prop_assert_eq!((&*read.hotkey, &read.seal), (&*sender, &seal));
        prop_assert_eq!(read.signing_string().unwrap(), said);
    }

    #[test]
    fn a_confirmation_decodes_to_itself(
        id in "(?s).{1,16}",
        success in any::<bool>(),
        message in any::<String>(),
        stats in prop::option::of(any_data()),
        content in prop::option::of(any::<u128>().prop_map(ContentKey::from_bits)),
    ) {
        let confirmation = Confirmation {
            prediction_id: (&id).into(),
            success,
            message: (&message).into(),
            miner_stats: stats.as_deref(),
            content,
        };
        let stamp = Stamp { sender: "v", timestamp: Timestamp::from_unix_micros(0), nonce: "1" };
        let frame = Unsigned::confirmation(stamp, &confirmation).unwrap().signed(&[7; 64]);
        let (dialect, read) = decode(frame.as_bytes()).unwrap().confirmation().unwrap().unwrap();
        prop_assert_eq!(dialect, Dialect::Signed);
        let stats = stats.as_ref().map(|stats| canonical::value(stats).unwrap());
        prop_assert_eq!(read, Confirmation { miner_stats: stats.as_deref(), ..confirmation });
    }

    #[test]
    fn words_for_people_decode_to_themselves(message in any::<String>()) {
        let timestamp = Timestamp::from_unix_micros(0);
        let refused = encode_refusal(&message);
        prop_assert_eq!(decode(refused.as_bytes()), Ok(Frame::Refusal { message: (&message).into() }));
        let frame = encode_error(&message, timestamp);
        prop_assert_eq!(decode(frame.as_bytes()), Ok(Frame::Error { message: (&message).into() }));
        let frame = Unsigned::error(Stamp { sender: "v", timestamp, nonce: "1" }, &message).signed(&[0; 64]);
        prop_assert_eq!(bettensor::message(envelope(&frame).data).unwrap(), message);
    }
}
