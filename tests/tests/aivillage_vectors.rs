//! The codec of AI Village against what the original systems sent and did (`vectors/aivillage.jsonl`), against frames
//! written to hurt it, and against chance. Names of tests carry the number of the fault in the wire facts they are about.

use bowline::wire::aivillage::{
    self, Dialect, Event, FEATURES, INVALID_JSON, Json, MAX_NAME, Malformed, Notice, PING, PONG, Position, Request,
    Since, Unaddressed, decode, decode_request, encode_answer, encode_message, encode_refusal, encode_status,
    encode_subscribe, encode_unsubscribe, topic_of,
};
use bowline::wire::timestamp::Timestamp;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

const VECTORS: &str = include_str!("../vectors/aivillage.jsonl");

/// One recorded message and what is known about it.
struct Row {
    direction: String,
    kind: String,
    variant: String,
    transport: String,
    expect: String,
    /// The frame as it was recorded: compact, if the file spells it otherwise.
    frame: String,
}

impl Row {
    fn value(&self) -> Value {
        serde_json::from_str(&self.frame).unwrap()
    }
}

fn rows() -> Vec<Row> {
    let row = |line: &str| {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).unwrap();
        let text = |name: &str| -> Option<String> { serde_json::from_str(fields.get(name)?.get()).unwrap() };
        Row {
            direction: text("direction").unwrap(),
            kind: text("kind").unwrap(),
            variant: text("variant").unwrap(),
            transport: text("transport").unwrap(),
            expect: text("expect_original").unwrap_or_default(),
            frame: text("raw").unwrap_or_else(|| compact(fields["json"].get())),
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

/// A naive time of the original's, as an instant.
fn instant(naive: &str) -> Timestamp {
    Timestamp::parse(&format!("{naive}+00:00")).unwrap()
}

/// A frame in the service's envelope, read, and written again byte by byte.
fn check_event(row: &Row) {
    let frame = decode(row.frame.as_bytes()).unwrap();
    let value = row.value();
    assert_eq!(frame.kind, value["type"].as_str().unwrap());
    assert_eq!(serde_json::from_str::<Value>(frame.data).unwrap(), value["data"]);
    assert!(row.frame.as_bytes().as_ptr_range().contains(&frame.data.as_ptr()), "the data was copied");
    assert_eq!((frame.dialect, &frame.position), (Dialect::Service, &None));
    let event = frame.event().unwrap();
    match (row.kind.as_str(), &event) {
        ("subscription_response", Event::Notice(Notice::SubscriptionResponse { topic, success: true }))
        | ("unsubscription_response", Event::Notice(Notice::UnsubscriptionResponse { topic, success: true })) => {
            assert_eq!(topic, "training");
        }
        (kind, Event::Notice(_) | Event::Custom { .. }) => panic!("{kind}: {event:?}"),
        (kind, event) => assert_eq!(event.kind(), kind),
    }
    let (now, connection) = (instant(&frame.timestamp.unwrap()), frame.connection_id.unwrap());
    let written = Unaddressed::new(now, &event).to(&connection);
    // Python had whole numbers where these are seconds or an amount; a reader of JSON sees no difference.
    let whole = |text: &str| text.replace(":3600.0", ":3600").replace(":128.0", ":128");
    assert_eq!(whole(&written), row.frame, "all five keys, in the original's order");
}

#[test]
fn every_recorded_message_is_taken_as_it_was_meant() {
    let rows = rows();
    for row in &rows {
        let (frame, request) = (decode(row.frame.as_bytes()), decode_request(row.frame.as_bytes()));
        let words = (row.direction.as_str(), row.variant.as_str(), row.transport.as_str(), row.kind.as_str());
        match words {
            ("server->client", "service", "ws-text", _) => check_event(row),
            ("server->client", "service", "ws-close", "close") => assert_eq!(row.value()["code"], 1000),
            ("client->server", "service", "ws-text", "ping") => {
                assert_eq!((request, row.frame.as_str()), (Ok(Request::Ping), PING));
            }
            ("client->server", "service", "ws-text", "pong") => {
                assert_eq!((request, row.frame.as_str()), (Ok(Request::Pong), PONG));
            }
            ("client->server", "service", "ws-text", "subscribe") => {
                let dialect = Dialect::Service;
                assert_eq!(request, Ok(Request::Subscribe { topic: "training".into(), dialect, since: None }));
                assert_eq!(encode_subscribe("training", None), both_names(&row.frame));
            }
            ("client->server", "service", "ws-text", "unsubscribe") => {
                let dialect = Dialect::Service;
                assert_eq!(request, Ok(Request::Unsubscribe { topic: "training".into(), dialect }));
                assert_eq!(encode_unsubscribe("training"), both_names(&row.frame));
            }
            ("client->server", "service", "ws-text", "custom") => {
                let data = r#"{"request":"training_status"}"#;
                assert_eq!(request, Ok(Request::Message { kind: "custom".into(), data }));
                assert_eq!(encode_message("custom", data).unwrap(), row.frame);
            }
            ("client->server", "service", "ws-text", "(none)") => {
                assert_eq!(request, Ok(Request::Message { kind: "custom".into(), data: r#"{"x":1}"# }));
            }
            ("client->server", "service", "ws-text", kind @ ("make_coffee" | "status_update")) => {
                assert_eq!(request, Ok(Request::Message { kind: kind.into(), data: "{}" }));
            }
            ("client->server", "service", "ws-text", "edge") => {
                assert_eq!((request, row.expect.ends_with(INVALID_JSON)), (Err(Malformed::Json), true));
            }
            // What was wrong with it was the opcode; we encode a `String` so as not to send such a one.
            ("client->server", "service", "ws-binary", "edge") => assert_eq!(request, Ok(Request::Ping)),
            ("client->server", "manager", "ws-text", kind) => check_flat_request(row, kind, &request.unwrap()),
            ("server->client", "manager" | "server", "ws-text", kind) => {
                let frame = frame.unwrap();
                assert_eq!((&*frame.kind, frame.dialect, frame.data), (kind, Dialect::Flat, row.frame.as_str()));
                check_flat(row, kind, &frame);
            }
            // Not frames; but if they were, they would do no harm.
            (_, "manager" | "server", "http", "http_health" | "http_broadcast") => {
                assert_eq!((frame.unwrap().dialect, request.is_ok()), (Dialect::Flat, true));
            }
            unknown => panic!("a row nobody has judged: {unknown:?}"),
        }
    }
    assert_eq!(rows.len(), 49);
}

/// We say it under the siblings' name besides (N3).
fn both_names(frame: &str) -> String {
    frame.replace(r#""topic":"training""#, r#""topic":"training","channel":"training""#)
}

/// A sibling's frame may have `data` beside what else it says; the service's always has a `connection_id`.
#[test]
fn n3_an_envelope_is_known_by_what_lies_beside_its_data() {
    let flat = r#"{"type":"model_update","model_id":"m-1","event_type":"created","data":{"size":1},"channel":"model_updates"}"#;
    let frame = decode(flat.as_bytes()).unwrap();
    assert_eq!((frame.dialect, frame.data), (Dialect::Flat, flat));
    for envelope in [
        r#"{"type":"x","data":{"size":1}}"#,
        r#"{"data":{"size":1},"type":"x","timestamp":1,"target_connections":null}"#,
        r#"{"type":"x","data":{"size":1},"connection_id":"c","of a later version":true}"#,
        r#"{"type":"x","data":{"size":1},"position":{"topic":"t","epoch":1,"offset":1}}"#,
    ] {
        let frame = decode(envelope.as_bytes()).unwrap();
        assert_eq!((frame.dialect, frame.data), (Dialect::Service, r#"{"size":1}"#), "{envelope}");
    }
}

#[test]
fn n3_a_flat_frame_says_the_same() {
    let now = Timestamp::from_unix_micros(0);
    let flat = |kind: &str, data: &str| Unaddressed::new(now, &Event::read(kind, data).unwrap()).flat(Some("c"));
    let end = r#","channel":"c","timestamp":"1970-01-01T00:00:00"}"#;
    for (kind, data, said) in [
        ("phase_update", r#"{"progress":0.25}"#, r#"{"type":"phase_update","progress":0.25"#),
        ("phase_update", "{}", r#"{"type":"phase_update""#),
        ("x", r#"{"type":"y","timestamp":1,"channel":2,"a":{"b":[1]}}"#, r#"{"type":"x","a":{"b":[1]}"#),
        ("custom", r#"{"type":"y","a":1}"#, r#"{"type":"y","a":1"#),
        ("custom", r#"{"type":7,"a":1}"#, r#"{"type":"custom","a":1"#),
        ("custom", r#"{"\u0074ype":"y","\u00e9":"\u00e9"}"#, r#"{"type":"y","é":"\u00e9""#),
    ] {
        assert_eq!(flat(kind, data), [said, end].concat());
    }
    let status = flat("status_update", r#"{"type":"training_status","active_sessions":[]}"#);
    assert!(status.starts_with(r#"{"type":"training_status","active_sessions":[],"#), "{status}");
}

fn check_flat_request(row: &Row, kind: &str, request: &Request<'_>) {
    let channel = row.value()["channel"].as_str().unwrap_or_default().to_owned();
    let topic = channel.clone().into();
    let meant = match kind {
        "subscribe" => Request::Subscribe { topic, dialect: Dialect::Flat, since: None },
        "unsubscribe" => Request::Unsubscribe { topic, dialect: Dialect::Flat },
        "ping" => Request::Ping,
        "get_status" => Request::GetStatus,
        unknown => panic!("{unknown}"),
    };
    assert_eq!(*request, meant);
}

fn check_flat(row: &Row, kind: &str, frame: &aivillage::Frame<'_>) {
    let value = row.value();
    let text = |name: &str| value[name].as_str().unwrap();
    let now = Timestamp::from_unix_micros(0);
    match (kind, frame.event().unwrap()) {
        ("connection_established", Event::ConnectionEstablished { connection_id, .. }) => {
            assert_eq!((&*connection_id, frame.connection_id.as_deref()), (text("client_id"), Some(text("client_id"))));
        }
        ("subscription_confirmed", Event::Custom { .. }) => {
            assert_eq!(encode_answer(Dialect::Flat, true, text("channel"), true, now, "c"), row.frame);
        }
        ("unsubscription_confirmed", Event::Custom { .. }) => {
            assert_eq!(encode_answer(Dialect::Flat, false, text("channel"), true, now, "c"), row.frame);
        }
        ("status", Event::Custom { .. }) => {
            let topics: Vec<&str> =
                value["subscriptions"].as_array().unwrap().iter().map(|topic| topic.as_str().unwrap()).collect();
            let clients = value["total_clients"].as_u64().unwrap().try_into().unwrap();
            assert_eq!(encode_status(text("client_id"), &topics, instant(text("connected_at")), clients), row.frame);
        }
        ("error", Event::Error { error }) => {
            assert_eq!((&*error, encode_refusal(&error)), (text("message"), row.frame.clone()));
        }
        ("pong", Event::Pong { .. })
        | ("phase_update" | "connection" | "heartbeat" | "system_metrics" | "echo", Event::Custom { .. }) => {}
        unknown => panic!("{unknown:?}"),
    }
}

#[test]
fn the_greeting_is_the_originals() {
    let rows = rows();
    let row = rows.iter().find(|row| row.kind == "connection_established" && row.variant == "service").unwrap();
    let value = row.value();
    let (id, time) = (value["connection_id"].as_str().unwrap(), value["data"]["server_time"].as_str().unwrap());
    let greeting = Event::connection_established(id, instant(time));
    assert_eq!(Unaddressed::new(instant(value["timestamp"].as_str().unwrap()), &greeting).to(id), row.frame);
    assert_eq!(serde_json::from_str::<Value>(FEATURES).unwrap(), value["data"]["features"]);
}

#[test]
fn every_typed_event_is_written_and_read_back() {
    let json = |text| Json::parse(text).unwrap();
    let topic = || "training".into();
    let events = [
        Event::connection_established("c-1", Timestamp::from_unix_micros(1)),
        Event::ConnectionClosed(json("{}")),
        Event::Ping { server_time: "t".into() },
        Event::Pong { server_time: "t".into() },
        Event::TrainingStarted {
            session_id: "s".into(),
            parameters: json(r#"{"a":[1,{"b":null}]}"#),
            estimated_duration: Some(0.1),
            model_type: None,
        },
        Event::TrainingProgress {
            session_id: "é\"\\\u{0}".into(),
            progress: Some(1.0),
            current_epoch: Some(u64::MAX),
            loss: Some(1e-300),
            metrics: json("{}"),
            estimated_time_remaining: Some(-0.0),
        },
        Event::TrainingCompleted {
            session_id: "s".into(),
            results: json("[]"),
            model_path: Some("models/m-1.pt".into()),
            final_metrics: json("null"),
        },
        Event::TrainingError { session_id: "s".into(), error: "CUDA".into(), traceback: Some("…".into()) },
        Event::ModelCreated { model_id: "m".into(), model_info: json("{}"), created_at: "t".into() },
        Event::ModelUpdated { model_id: "m".into(), updates: json("{}"), updated_at: "t".into() },
        Event::ModelDeleted { model_id: "m".into(), deleted_at: "t".into() },
        Event::StatusUpdate {
            of: "training_status".into(),
            active_sessions: json(r#"["s"]"#),
            session_details: json(r#"{"s":{}}"#),
        },
        Event::Error { error: INVALID_JSON.into() },
        Event::P2pStatus { status: json("{}"), peer_count: Some(8), network_health: Some("good".into()) },
        Event::P2pPeerUpdate(json(r#"{"peer":1}"#)),
        Event::FogResources { resources: json("{}"), available_nodes: Some(4), total_compute: Some(128.0) },
        Event::FogMarketplace(json("{}")),
        Event::Notice(Notice::SubscriptionResponse { topic: topic(), success: false }),
        Event::Notice(Notice::UnsubscriptionResponse { topic: topic(), success: true }),
        Event::Notice(Notice::Gap { topic: topic(), epoch: u32::MAX, from: 0, to: u64::MAX }),
        Event::Custom { kind: "custom".into(), data: json(r#"{"type":"gap","topic":"x"}"#) },
        Event::Custom { kind: "room.joined".into(), data: json(r#"{"x":1}"#) },
    ];
    let position = Position { topic: topic(), epoch: 7, offset: 12 };
    for event in events {
        let unaddressed = Unaddressed::new(Timestamp::from_unix_micros(0), &event).at(&position);
        let text = unaddressed.to("c-\"1");
        assert_eq!(unaddressed.size() + r#""c-\"1""#.len(), text.len());
        let frame = decode(text.as_bytes()).unwrap();
        assert_eq!((frame.event(), &*frame.kind), (Ok(event.clone()), event.kind()));
        assert_eq!((frame.connection_id.as_deref(), frame.position.as_ref()), (Some("c-\"1"), Some(&position)));
        assert_eq!(
            topic_of(event.kind()).is_some(),
            !matches!(
                event,
                Event::ConnectionEstablished { .. }
                    | Event::ConnectionClosed(_)
                    | Event::Ping { .. }
                    | Event::Pong { .. }
                    | Event::Error { .. }
                    | Event::Notice(_)
                    | Event::Custom { .. }
            )
        );
    }
}

#[test]
fn keys_may_come_in_any_order_be_unknown_missing_or_null() {
    let event = |frame: &str| decode(frame.as_bytes()).unwrap().event().map(|event| format!("{event:?}"));
    let plain = event(r#"{"type":"model_deleted","data":{"model_id":"m","deleted_at":"t"}}"#);
    for same in [
        " {\"data\" : {\"x\":[{}], \"deleted_at\":\"t\",\"model_id\":\"m\"} ,\"y\":null,\n\"type\":\"model_\\u0064eleted\"} ",
        r#"{"target_connections":["a"],"connection_id":7,"timestamp":{},"type":"model_deleted","data":{"model_id":"m","deleted_at":"t"}}"#,
    ] {
        assert_eq!(event(same), plain, "{same}");
    }
    let nothing = decode(br#"{"type":"training_progress","data":{}}"#).unwrap().event().unwrap();
    for other in [
        r#"{"progress":"half","loss":null,"session_id":null,"current_epoch":5.5}"#,
        r#"{"progress":[],"loss":{},"session_id":7,"current_epoch":-1,"estimated_time_remaining":"soon"}"#,
    ] {
        assert_eq!(Event::read("training_progress", other), Ok(nothing.clone()), "{other}");
    }
    assert_eq!(decode(b"{}").unwrap().kind, "custom");
    assert_eq!(decode(br#"{"type":null}"#).unwrap().kind, "custom");
}

#[test]
fn any_timestamp_of_json_is_taken() {
    let timestamp = |json: &str| {
        let frame = format!(r#"{{"type":"x","data":{{}},"timestamp":{json}}}"#);
        decode(frame.as_bytes()).unwrap().timestamp.map(|text| text.into_owned())
    };
    for (json, text) in [
        (r#""2026-11-20T22:11:25.776340""#, Some("2026-11-20T22:11:25.776340")),
        (r#""2026-11-20T22:11:25Z""#, Some("2026-11-20T22:11:25Z")),
        ("1795212930.576", Some("1795212930.576")),
        ("-1e9", Some("-1e9")),
        (r#""yesterday""#, Some("yesterday")),
        ("null", None),
        ("true", None),
        ("[1]", None),
    ] {
        assert_eq!(timestamp(json).as_deref(), text, "{json}");
    }
    assert_eq!(timestamp(&"1".repeat(65)), None);
    assert_eq!(timestamp(&format!("\"{}\"", "1".repeat(65))), None);
}

/// 3.2: in the original both words are missing in the enum that every frame is looked up in, so nobody ever subscribed.
#[test]
fn w3_2_subscriptions_are_requests_in_both_spellings() {
    fn of(frame: &str) -> Result<Request<'_>, Malformed> {
        decode_request(frame.as_bytes())
    }
    let subscribe =
        |topic: &'static str, dialect, since| Ok(Request::Subscribe { topic: topic.into(), dialect, since });
    let after = Some(Since::After { epoch: 7, offset: 12 });
    for (frame, meant) in [
        (r#"{"type":"subscribe","topic":"x"}"#, subscribe("x", Dialect::Service, None)),
        (r#"{"channel":"x","type":"subscribe"}"#, subscribe("x", Dialect::Flat, None)),
        (r#"{"type":"subscribe","channel":"y","topic":"x"}"#, subscribe("x", Dialect::Service, None)),
        (r#"{"type":"subscribe","channel":"x","topic":null,"since":null}"#, subscribe("x", Dialect::Flat, None)),
        (r#"{"type":"subscribe","topic":"x","since":"oldest"}"#, subscribe("x", Dialect::Service, Some(Since::Oldest))),
        (r#"{"type":"subscribe","topic":"x","since":"now"}"#, subscribe("x", Dialect::Service, Some(Since::Now))),
        (
            r#"{"type":"subscribe","topic":"x","since":{"offset":12,"epoch":7,"z":0}}"#,
            subscribe("x", Dialect::Service, after),
        ),
        (r#"{"type":"authenticate","token":"secret"}"#, Ok(Request::Authenticate)),
        (r#"{"type":"subscribe"}"#, Err(Malformed::Topic)),
        (r#"{"type":"subscribe","topic":""}"#, Err(Malformed::Topic)),
        (r#"{"type":"unsubscribe","topic":["x"]}"#, Err(Malformed::Topic)),
        (r#"{"type":"subscribe","topic":7,"channel":"x"}"#, Err(Malformed::Topic)),
        (r#"{"type":"subscribe","topic":"x","topic":"y"}"#, Err(Malformed::Twice)),
        (r#"{"type":7}"#, Err(Malformed::Kind)),
        (r#"{"type":""}"#, Err(Malformed::Kind)),
        ("[]", Err(Malformed::Object)),
        ("\"ping\"", Err(Malformed::Object)),
        ("null", Err(Malformed::Object)),
        ("[", Err(Malformed::Json)),
        ("", Err(Malformed::Json)),
        ("{} {}", Err(Malformed::Json)),
        (r#"{"x":NaN}"#, Err(Malformed::Json)),
    ] {
        assert_eq!(of(frame), meant, "{frame}");
    }
    assert_eq!(decode_request(b"{\"type\":\"\xff\"}"), Err(Malformed::Json));
    for since in [
        "7",
        r#""newest""#,
        "[7,12]",
        "{}",
        r#"{"epoch":-1,"offset":1}"#,
        r#"{"epoch":1.5,"offset":1}"#,
        r#"{"epoch":4294967296,"offset":1}"#,
    ] {
        assert_eq!(
            of(&format!(r#"{{"type":"subscribe","topic":"x","since":{since}}}"#)),
            Err(Malformed::Since),
            "{since}"
        );
    }
    let long = format!(r#"{{"epoch":1,"offset":1,"x":"{}"}}"#, "x".repeat(1000));
    assert_eq!(of(&format!(r#"{{"type":"subscribe","topic":"x","since":{long}}}"#)), Err(Malformed::Since));
}

#[test]
fn a_name_has_1_to_64_bytes_however_it_is_spelt() {
    for (piece, spelt) in [("a", "a"), ("a", "\\u0061"), ("é", "\\u00e9"), ("😀", "\\ud83d\\ude00")] {
        let fits = MAX_NAME / piece.len();
        for (count, whole) in [(fits, true), (fits + 1, false)] {
            let name = spelt.repeat(count);
            let subscribe = format!(r#"{{"type":"subscribe","topic":"{name}"}}"#);
            assert_eq!(decode_request(subscribe.as_bytes()).is_ok(), whole);
            assert_eq!(decode_request(format!(r#"{{"type":"{name}"}}"#).as_bytes()).is_ok(), whole);
            let position = format!(r#"{{"position":{{"topic":"{name}","epoch":1,"offset":1}}}}"#);
            assert_eq!(decode(position.as_bytes()).unwrap().position.is_some(), whole);
        }
    }
    for position in
        ["7", "{}", "[\"x\",1,1]", r#"{"topic":"","epoch":1,"offset":1}"#, r#"{"topic":"x","epoch":-1,"offset":1}"#]
    {
        assert_eq!(decode(format!(r#"{{"position":{position}}}"#).as_bytes()).unwrap().position, None, "{position}");
    }
}

/// 3.6.3: in the original a date in an event's data cannot be written, and the connection of whoever should get it ends.
#[test]
fn w3_6_3_an_event_can_always_be_written() {
    for number in [f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, -0.0] {
        let event =
            Event::FogResources { resources: Json::default(), available_nodes: None, total_compute: Some(number) };
        let data = event.data();
        let read = Event::read("fog_resources", &data).unwrap();
        let total_compute = Some(number).filter(|number| number.is_finite());
        assert_eq!(read, Event::FogResources { resources: Json::default(), available_nodes: None, total_compute });
    }
    assert!(Json::parse("NaN").is_err() && Json::parse("{} ,").is_err(), "and what is not JSON gets nowhere near it");
}

#[test]
fn hostile_nesting_and_keys_neither_overflow_nor_hide() {
    let deep = 100_000;
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let value = [&*open.repeat(deep), if close == "}" { "1" } else { "" }, &close.repeat(deep)].concat();
        for key in ["x", "timestamp", "connection_id", "position"] {
            let frame = format!(r#"{{"type":"ping","{key}":{value}}}"#);
            assert_eq!(decode(frame.as_bytes()).unwrap().kind, "ping", "{key}");
            assert_eq!(decode_request(frame.as_bytes()), Ok(Request::Ping), "{key}");
        }
        for (key, why) in [("topic", Malformed::Topic), ("since", Malformed::Since)] {
            let topic = if key == "topic" { "" } else { r#""topic":"x","# };
            let frame = format!(r#"{{"type":"subscribe",{topic}"{key}":{value}}}"#);
            assert_eq!(decode_request(frame.as_bytes()), Err(why));
        }
        for kind in ["custom", "training_progress", "p2p_peer_update", "training_started"] {
            let data = format!(r#"{{"type":{value},"metrics":{value},"parameters":{value},"session_id":{value}}}"#);
            let frame = format!(r#"{{"type":"{kind}","data":{data}}}"#);
            assert_eq!(decode(frame.as_bytes()).unwrap().event().map(|event| event.kind().to_owned()), Ok(kind.into()));
        }
    }
    for twice in [r#"{"type":"ping","type":"pong"}"#, r#"{"data":{},"d\u0061ta":{}}"#] {
        assert_eq!(
            (decode(twice.as_bytes()), decode_request(twice.as_bytes())),
            (Err(Malformed::Twice), Err(Malformed::Twice))
        );
    }
    assert_eq!(Event::read("model_deleted", r#"{"model_id":"a","model_id":"b"}"#), Err(Malformed::Twice));
    assert_eq!(Event::read("model_deleted", "[]"), Err(Malformed::Data));
    assert_eq!(Event::read("custom", "{"), Err(Malformed::Json));
}

/// A recorded frame with some of its bytes changed, taken away or doubled.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let frames: Vec<String> = rows().into_iter().map(|row| row.frame).collect();
    let change = (any::<prop::sample::Index>(), 0..4_u8, any::<u8>());
    (prop::sample::select(frames), prop::collection::vec(change, 0..6)).prop_map(|(frame, changes)| {
        let mut bytes = frame.into_bytes();
        for (at, how, byte) in changes {
            let at = at.index(bytes.len().max(1)).min(bytes.len());
            match how {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => drop(bytes.remove(at)),
                2 => bytes.insert(at, byte),
                _ => bytes.extend_from_within(at..),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic_and_what_is_read_can_be_written(bytes in prop_oneof![damaged(), any::<Vec<u8>>()]) {
        if let Ok(request) = decode_request(&bytes) {
            let again = match &request {
                Request::Subscribe { topic, since, .. } => encode_subscribe(topic, *since),
                Request::Unsubscribe { topic, .. } => encode_unsubscribe(topic),
                Request::Message { kind, data } => encode_message(kind, data).unwrap_or_else(|_| PING.into()),
                Request::Ping | Request::Pong | Request::Authenticate | Request::GetStatus => PING.into(),
            };
            prop_assert!(decode_request(again.as_bytes()).is_ok(), "{}", again);
        }
        let Ok(frame) = decode(&bytes) else { return Ok(()) };
        let Ok(event) = frame.event() else { return Ok(()) };
        let text = Unaddressed::new(Timestamp::from_unix_micros(0), &event).to("c");
        let again = decode(text.as_bytes()).unwrap();
        prop_assert_eq!(again.event().unwrap(), event);
    }

    #[test]
    fn any_names_numbers_and_positions_round_trip(
        topic in "\\PC{1,16}", kind in "[a-z_.]{1,64}", epoch in any::<u32>(), offset in any::<u64>(),
        loss in any::<f64>(), session in any::<String>(),
    ) {
        let since = Some(Since::After { epoch, offset });
        let subscribe = encode_subscribe(&topic, since);
        let dialect = Dialect::Service;
        prop_assert_eq!(decode_request(subscribe.as_bytes()), Ok(Request::Subscribe { topic: (&topic).into(), dialect, since }));
        let position = Position { topic: (&topic).into(), epoch, offset };
        let event = Event::TrainingProgress {
            session_id: (&session).into(),
            progress: None,
            current_epoch: Some(offset),
            loss: Some(loss).filter(|loss| loss.is_finite()),
            metrics: Json::default(),
            estimated_time_remaining: None,
        };
        let text = Unaddressed::new(Timestamp::from_unix_micros(0), &event).at(&position).to(&kind);
        let frame = decode(text.as_bytes()).unwrap();
        prop_assert_eq!(frame.event().unwrap(), event);
        prop_assert_eq!((frame.position, frame.connection_id.as_deref()), (Some(position), Some(&*kind)));
    }
}
