//! The exported conformance kit: our own wires pass it, and wires that are broken in one place are caught by the check
//! for that place.

use bowline::wire::KeyedHash;
use bowline::wire::gonka::{self, Kind};
use bowline::{BETTENSOR_MINER, Config, Frame, GONKA_ML_NODE, Head, MessageId, NATIVE, Seq, VILLAGE_VIEWER};
use bowline_transport::conformance::{Check, Conformance, HubConformance, Report};
use bowline_transport::http::{Answer, Bytes, Callback, HttpAnswer, Limits, Routes, Target};
use bowline_transport::hub::{self, Claim, Content, HubSetup, HubWire, Letter, Misread, Said, Text};
use bowline_transport::{Bettensor, Gonka, Heard, Keypair, Native, Refused, Village, Wire};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

#[path = "../../adapters/smol/examples/device/wire.rs"]
mod device;

use device::Thermometer;

/// Frames of real peers that were recorded for this direction, as they came.
fn recorded(vectors: &str, direction: &str, kinds: &[&str]) -> Vec<String> {
    let rows = vectors.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rows = rows.filter(|row| row["direction"] == direction && kinds.iter().any(|kind| row["kind"] == *kind));
    let frames: Vec<String> =
        rows.map(|row| row["raw"].as_str().map_or_else(|| row["json"].to_string(), Into::into)).collect();
    assert!(frames.len() >= kinds.len(), "{direction} {kinds:?}: {}", frames.len());
    frames
}

#[test]
fn gonka_passes_in_both_directions() {
    let vectors = include_str!("../vectors/gonka.jsonl");
    let mut kit = Conformance::pair(Gonka::ML_NODE, Gonka::API_NODE, |batch| batch.json.to_vec())
        .sample(&Kind::Generated, r#"{"nonces":[3,13],"dist":[0.565750489,1e-7],"node_id":3}"#)
        .sample(&Kind::Validated, r#"{"public_key":"a\"b\\c\u00e9é","n":18446744073709551615,"deep":{"a":[[{}]]}}"#)
        .refused(&Kind::Generated, "no batch")
        .refused(&Kind::Validated, "[1]")
        .ignored(r#"{"type":"paused"}"#)
        .json()
        .settings(GONKA_ML_NODE)
        .fallback("http://api:9100/v1/poc-batches");
    for frame in recorded(vectors, "mlnode->api", &["generated", "validated"]) {
        kit = kit.recorded(frame);
    }
    for frame in recorded(vectors, "api->mlnode", &["ack"]) {
        kit = kit.recorded_answer(frame);
    }
    let report = kit.run();
    report.assert();
    for check in [Check::Tolerance, Check::HttpRoundTrip, Check::Mutation, Check::Recorded, Check::Limit] {
        assert!(report.cases(check) > 0, "{check}");
    }
}

#[test]
fn the_miner_of_bettensor_passes_from_its_side() {
    let keys = Keypair::from_seed_hex(&"07".repeat(32)).unwrap();
    let vectors = include_str!("../vectors/bettensor.jsonl");
    let mut kit = Conformance::alone(Bettensor::miner(keys))
        .sample("prediction", r#"{"prediction_id":"game-1_17","game_id":"game-1","home_score":3,"away_score":1}"#)
        .sample("own", r#"{"prediction_id":"é\"\\","value":-0.000123,"list":[true,null,{}]}"#)
        .refused("prediction", "{}")
        .refused("heartbeat", r#"{"prediction_id":"1"}"#)
        .refused("prediction", "no data")
        .settings(BETTENSOR_MINER);
    for frame in
        recorded(vectors, "validator->miner", &["welcome", "heartbeat_ack", "game_update", "confirmation_success"])
    {
        kit = kit.recorded(frame);
    }
    let report = kit.run();
    report.assert();
    for check in [Check::Size, Check::Mutation, Check::Garbage, Check::Memory, Check::Recorded, Check::HttpGarbage] {
        assert!(report.cases(check) > 0, "{check}");
    }
}

#[test]
fn the_viewer_of_ai_village_passes_from_its_side() {
    let vectors = include_str!("../vectors/aivillage.jsonl");
    let mut kit = Conformance::alone(Village::viewer())
        .sample("custom", r#"{"request":"training_status"}"#)
        .sample("é\"\\", r#" {"é😀":[1e-07,-0,{"x":null}]} "#)
        .refused("subscribe", r#"{"topic":"x"}"#)
        .refused("ping", "{}")
        .refused("", "{}")
        .refused("custom", "[]")
        .settings(VILLAGE_VIEWER);
    let kinds =
        ["connection_established", "pong", "training_progress", "subscription_response", "error", "phase_update"];
    for frame in recorded(vectors, "server->client", &kinds) {
        kit = kit.recorded(frame);
    }
    let report = kit.run();
    report.assert();
    for check in [Check::Size, Check::Mutation, Check::Garbage, Check::Memory, Check::Recorded] {
        assert!(report.cases(check) > 0, "{check}");
    }
}

#[test]
fn the_native_client_passes_from_its_side() {
    let rows = include_str!("../vectors/native.jsonl").lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let understood = ["welcome", "data", "ack", "ping", "pong", "nack", "event", "missed", "reconnect", "token"];
    let rows = rows.filter(|row| understood.iter().any(|kind| row["kind"] == *kind));
    let frames: Vec<_> = rows.map(|row| row["frame"].as_str().unwrap().to_owned()).collect();
    assert!(frames.len() >= understood.len());
    let longest = format!("\"{}\"", "x".repeat(10_000));
    let kind = "\u{1}".repeat(64);
    let mut kit = Conformance::alone(Native::client("sensor-7"))
        .sample("load", "[1, 2]")
        .sample("é\"\\", r#" {"é😀":[1e-07,-0,{"x":null}]} "#)
        .sample(&kind, "null")
        .sample("long", longest)
        .refused("load", "[1, 2")
        .refused("load", "1 2")
        .refused("", "{}")
        .refused("load", "")
        .ignored(r#"{"type":"of a later version","id":"1"}"#)
        .json()
        .settings(NATIVE)
        .fallback("http://hub:9000/bowline/1");
    for frame in frames {
        kit = kit.recorded(frame);
    }
    let report = kit.run();
    report.assert();
    for check in [Check::Size, Check::Mutation, Check::Garbage, Check::Memory, Check::Recorded] {
        assert!(report.cases(check) > 0, "{check}");
    }
}

#[test]
fn the_validator_of_bettensor_passes() {
    let vectors = include_str!("../vectors/bettensor.jsonl");
    let keys = Keypair::from_seed_hex(&"07".repeat(32)).unwrap();
    let setup = HubSetup::validator("127.0.0.1:0", keys).unwrap();
    // The miner that was recorded.
    let miner = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    let mut kit = HubConformance::new(setup.wire(), miner.parse().unwrap())
        .sample("game_update", r#"{"games":[{"game_id":"é\"\\","odds":1.95,"active":true}]}"#)
        .sample("own", "{}")
        .refused("game_update", "no data");
    for frame in recorded(vectors, "miner->validator", &["prediction", "heartbeat"]) {
        if frame.contains(miner) && frame.contains("signature") {
            kit = kit.recorded(frame);
        }
    }
    let report = kit.run();
    report.assert();
    assert!(report.cases(Check::Recorded) >= 2 && report.cases(Check::Size) == 2);
}

#[test]
fn the_hub_of_ai_village_passes() {
    let vectors = include_str!("../vectors/aivillage.jsonl");
    let setup = HubSetup::village("127.0.0.1:0").unwrap();
    let mut kit = HubConformance::new(setup.wire(), "a viewer".parse().unwrap())
        .sample("training_progress", r#"{"session_id":"é\"\\","progress":1e-300}"#)
        .sample("x", "{}")
        .refused("training_progress", "no data");
    for frame in
        recorded(vectors, "client->server", &["ping", "pong", "subscribe", "unsubscribe", "custom", "get_status"])
    {
        kit = kit.recorded(frame);
    }
    let report = kit.run();
    report.assert();
    assert!(report.cases(Check::Recorded) > 5 && report.cases(Check::Mutation) > 0);
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HubFault {
    None,
    Short,
    TakesAll,
    Deaf,
    Panics,
    Talkative,
    Trusting,
    TakesAnyLetter,
    BelievesAPage,
}

/// A hub to which a device says its name, and then what it measures.
#[derive(Debug)]
struct Lines(HubFault);

impl HubWire for Lines {
    type Peer = String;
    type Proof = ();
    type Confirmation = ();
    type Encoded = (usize, String);

    const LONGEST_FRAME: usize = 4096;

    fn routes(&self) -> Routes<'static> {
        Routes { websockets: &["/devices"], ..Routes::NONE }
    }

    fn claim(&self, _: &KeyedHash, text: &str) -> Option<Claim<Self>> {
        let name = text.strip_prefix("I am ").or((self.0 == HubFault::Trusting).then_some(text))?;
        Some(Claim { peer: name.to_owned(), proof: (), stamp: None })
    }

    fn holds(&self, _: &String, (): &()) -> bool {
        true
    }

    fn read(&self, _: &KeyedHash, _: &String, text: &Bytes) -> hub::Heard {
        let line = core::str::from_utf8(text).unwrap();
        if self.0 == HubFault::Panics && line.len() > 9 {
            let _ = &line[8..9];
        }
        let reply = (self.0 == HubFault::Talkative && line.len() < 1000).then(|| line.repeat(100).repeat(100).into());
        match line.strip_prefix("M ") {
            Some(_) if self.0 != HubFault::Deaf => {
                let content = Content { kind: "measured".into(), data: text.slice(2..), id: None };
                hub::Heard { said: Said::Message(content), reply, ..hub::Heard::OTHER }
            }
            _ => hub::Heard::MALFORMED,
        }
    }

    fn letter(&self, names: &KeyedHash, body: &Bytes) -> Result<Letter<String>, Misread> {
        let malformed = || Misread::Malformed("no line".into());
        core::str::from_utf8(body).map_err(|_| malformed())?;
        let heard = self.read(names, &String::new(), body);
        let takes = matches!(heard.said, Said::Message(_)) || self.0 == HubFault::TakesAnyLetter;
        if takes { Ok(Letter { peer: "post".into(), heard }) } else { Err(malformed()) }
    }

    fn is_peers(&self, answer: &HttpAnswer) -> bool {
        answer.is_marked() || self.0 == HubFault::BelievesAPage
    }

    fn encode(&self, kind: &str, data: &str) -> Result<Self::Encoded, Cow<'static, str>> {
        if data.contains('\n') && self.0 != HubFault::TakesAll {
            return Err("more than a line".into());
        }
        let line = format!("{kind} {data}");
        Ok((if self.0 == HubFault::Short { data.len() } else { line.len() }, line))
    }

    fn size((size, _): &Self::Encoded) -> usize {
        *size
    }

    fn frame(&self, (_, line): &Self::Encoded, _: &String) -> Text {
        line.as_str().into()
    }
}

#[test]
fn a_hub_s_wire_that_is_broken_in_one_place_fails_the_check_of_that_place() {
    for (fault, checks) in [
        (HubFault::None, &[][..]),
        (HubFault::Short, &[Check::Size]),
        (HubFault::TakesAll, &[Check::Prepare]),
        (HubFault::Deaf, &[Check::Recorded]),
        (HubFault::Panics, &[Check::Mutation, Check::Garbage]),
        (HubFault::Talkative, &[Check::Mutation]),
        (HubFault::Trusting, &[Check::Garbage]),
        (HubFault::TakesAnyLetter, &[Check::HttpGarbage]),
        (HubFault::BelievesAPage, &[Check::HttpForeign]),
    ] {
        let wire = Lines(fault);
        let report = HubConformance::new(&wire, "device".into())
            .sample("set", "21.5")
            .refused("set", "1\n2")
            .recorded("M 21.5 degrees")
            .run();
        let failed: BTreeSet<Check> = report.failures().iter().map(|failure| failure.check).collect();
        assert_eq!(failed, checks.iter().copied().collect(), "{fault:?}: {report}");
    }
}

#[test]
fn the_wire_of_the_example_passes() {
    let report = Conformance::pair(Thermometer, Thermometer, |reading| serde_json::to_vec(reading).unwrap())
        .sample(&(), r#"{"sensor":4,"celsius":21.5}"#)
        .sample(&(), r#"{"sensor":65535,"celsius":-1.7976931348623157e308}"#)
        .sample(&(), r#"{"sensor":0,"celsius":5e-324}"#)
        .refused(&(), r#"{"sensor":4}"#)
        .refused(&(), r#"{"sensor":4,"celsius":null}"#)
        .ignored("T 17")
        .recorded("R d1d40c53-a972-4b83-8efe-0e939229ea87 4 21.5")
        .recorded_answer("A d1d40c53-a972-4b83-8efe-0e939229ea87")
        .settings(Config::DEFAULT)
        .fallback("http://gateway/device/readings")
        .run();
    report.assert();
    assert!(report.cases(Check::HttpRoundTrip) > 0);
}

/// What is broken in a wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    TakesAll,
    Short,
    EchoIsAck,
    LateVersionIsAnOffence,
    Lossy,
    NewIdEveryTime,
    OneIdForTwo,
    WrongWord,
    ForgetsSpelling,
    KeepaliveIsAMessage,
    AnswersAnswers,
    TooLong,
    StrictFields,
    KeyOfBytes,
    Weightless,
    OtherPath,
    KeyInFramesOnly,
    BusyIsDone,
    OtherIsFine,
    BelievesAPage,
    BelievesNobody,
    Panics,
    BelievesLengths,
    EmptyIsAMessage,
    KeepsAll,
    NeverForgets,
}

/// A plain JSON wire: `{"type":"note","id":…,"text":…}`, `{"type":"ack","id":…}`, `{"type":"tick"}`.
#[derive(Clone, Debug)]
struct Notes {
    fault: Fault,
    spelled: BTreeMap<MessageId, String>,
    mine: BTreeSet<MessageId>,
    writes: u64,
}

#[derive(Clone)]
struct Note {
    id: String,
    json: Bytes,
    bytes: usize,
}

impl Notes {
    fn with(fault: Fault) -> Self {
        Self { fault, spelled: BTreeMap::new(), mine: BTreeSet::new(), writes: 0 }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn note(&self, names: &KeyedHash, frame: &Value, raw: &str) -> Option<Heard<Note>> {
        let id = frame["id"].as_str().filter(|id| id.len() <= 64)?;
        let text = frame["text"].as_str()?;
        let json = json!({ "text": text }).to_string();
        let known = if self.is(Fault::OneIdForTwo) { names.id(&id.to_lowercase()) } else { names.id(id) };
        let key = if self.is(Fault::KeyOfBytes) {
            KeyedHash::new([3; 16]).id(raw).bits()
        } else {
            names.content("note", &json).bits()
        };
        let bytes = match self.fault {
            Fault::Weightless => 0,
            Fault::BelievesLengths => frame["length"].as_u64().map_or(1, |length| length as usize),
            _ => json.len(),
        };
        let key = (!self.is(Fault::KeyInFramesOnly) || !raw.is_empty()).then_some(bowline::ContentKey::from_bits(key));
        Some(Heard::message(Some(known), key, Note { id: id.into(), json: json.into(), bytes }))
    }
}

impl Wire for Notes {
    type Kind = ();
    type Outgoing = String;
    type Incoming = Note;

    fn longest_frame(&self) -> usize {
        if self.is(Fault::TooLong) { 1 << 20 } else { 16 << 20 }
    }

    fn limits(&self) -> Limits {
        Limits::DEFAULT
    }

    fn routes(&self) -> Routes<'static> {
        Routes { callbacks: &["/notes"], ..Routes::NONE }
    }

    fn prepare(&mut self, (): &(), json: &Bytes) -> Result<String, Refused> {
        let body = serde_json::from_slice::<Value>(json).unwrap_or_default();
        match body["text"].as_str() {
            Some(text) => Ok(text.into()),
            None if self.is(Fault::TakesAll) => Ok(String::new()),
            None => Err(Refused::Invalid("no text")),
        }
    }

    fn size(text: &String) -> usize {
        // A text that begins so is the sample of the wire that errs; a static method cannot see the fault.
        if text.starts_with("short") { text.len() } else { 200 + 6 * text.len() }
    }

    fn accepted(&mut self, id: MessageId, _: &String) {
        self.mine.insert(id);
    }

    fn settled(&mut self, id: MessageId) {
        if !self.is(Fault::NeverForgets) {
            self.mine.remove(&id);
        }
    }

    fn read(&mut self, names: &KeyedHash, text: &str) -> Heard<Note> {
        if self.is(Fault::Panics) && text.len() > 1 && !text.contains("\"type\"") {
            let _ = &text[1..2];
        }
        if self.is(Fault::EmptyIsAMessage) && text.is_empty() {
            return Heard::message(None, None, Note { id: "".into(), json: Bytes::new(), bytes: 1 });
        }
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return Heard::of(Head::Malformed) };
        let known = ["type", "id", "text", "length"];
        let fields =
            frame.as_object().map_or(0, |fields| fields.keys().filter(|key| !known.contains(&&***key)).count());
        if self.is(Fault::StrictFields) && fields > 0 {
            return Heard::of(Head::Malformed);
        }
        let ack = || frame["id"].as_str().map(|id| Heard::of(Head::Ack { id: names.id(id) }));
        let heard = match frame["type"].as_str() {
            Some("note") if self.is(Fault::EchoIsAck) && self.mine.iter().any(|id| text.contains(&id.to_string())) => {
                ack()
            }
            Some("note") => self.note(names, &frame, text),
            Some("ack") => ack(),
            Some("tick") if self.is(Fault::KeepaliveIsAMessage) => {
                Some(Heard::message(None, None, Note { id: "".into(), json: Bytes::new(), bytes: 1 }))
            }
            Some("tick") if self.is(Fault::AnswersAnswers) => {
                Some(Heard { say: vec![text.into()], ..Heard::of(Head::Other) })
            }
            Some("tick") => Some(Heard::of(Head::Other)),
            Some(_) if self.is(Fault::LateVersionIsAnOffence) => None,
            Some(_) => Some(Heard::of(Head::Other)),
            None => None,
        };
        heard.unwrap_or(Heard::of(Head::Malformed))
    }

    fn noted(&mut self, id: MessageId, note: &Note) {
        if self.is(Fault::ForgetsSpelling) || note.id == id.to_string() {
            return;
        }
        if self.spelled.len() >= 1024 && !self.is(Fault::KeepsAll) {
            self.spelled.pop_first();
        }
        self.spelled.insert(id, note.id.clone());
    }

    fn write(&mut self, frame: Frame<'_, String>) -> Option<String> {
        match frame {
            Frame::Data { id, payload, .. } => {
                self.writes += 1;
                let again = self.is(Fault::NewIdEveryTime) && self.writes > 1;
                let id = if again { MessageId::from_bits(self.writes.into()) } else { id };
                let text = if self.is(Fault::Lossy) { payload.trim() } else { payload };
                Some(json!({"type": "note", "id": id.to_string(), "text": text, "length": text.len()}).to_string())
            }
            Frame::Ack { id } => {
                let spelled = self.spelled.remove(&id).unwrap_or_else(|| id.to_string());
                let word = if self.is(Fault::WrongWord) { "ok" } else { "ack" };
                Some(json!({"type": word, "id": spelled}).to_string())
            }
            Frame::Keepalive => Some(r#"{"type":"tick"}"#.into()),
            Frame::Ping | Frame::Marks { .. } | Frame::Nack { .. } => None,
        }
    }

    fn request(&mut self, names: &KeyedHash, callback: &Callback) -> Result<Heard<Note>, Answer> {
        let refused = || Answer::error(400, "no note");
        let other = || if self.is(Fault::OtherIsFine) { Ok(Heard::of(Head::Other)) } else { Err(refused()) };
        let Ok(frame) = serde_json::from_slice::<Value>(&callback.body) else { return other() };
        // Without the raw text: the fault of a key in frames only looks at it.
        let raw = if self.is(Fault::KeyInFramesOnly) { "" } else { core::str::from_utf8(&callback.body).unwrap() };
        self.note(names, &frame, raw).ok_or_else(refused)
    }

    fn answer(&self, answer: bowline::Answer) -> Answer {
        match answer {
            bowline::Answer::Busy { .. } if self.is(Fault::BusyIsDone) => Answer::marked(200, "done"),
            answer => Answer { retry_after: answer.after(), ..Answer::marked(answer.status(), "said") },
        }
    }

    fn post(&mut self, fallback: &Target, seq: Seq, _: Seq, id: MessageId, text: &String) -> (Target, Bytes, usize) {
        let target = if self.is(Fault::OtherPath) { fallback.join("note") } else { fallback.clone() };
        (target, self.write(Frame::Data { seq, id, una: seq, payload: text }).unwrap_or_default().into(), 0)
    }

    fn is_peers(&self, _: MessageId, answer: &HttpAnswer) -> bool {
        match self.fault {
            Fault::BelievesAPage => true,
            Fault::BelievesNobody => false,
            _ => answer.is_marked(),
        }
    }

    fn describe(note: &Note) -> (&str, usize) {
        ("note", note.bytes)
    }
}

fn checked(fault: Fault) -> Report {
    let wire = Notes::with(fault);
    let first = if fault == Fault::Short { "short" } else { "a note" };
    Conformance::pair(wire.clone(), wire, |note| note.json.to_vec())
        .sample(&(), json!({ "text": first }).to_string())
        .sample(&(), r#"{"text":"  \"\\ é\u0000 "}"#)
        .refused(&(), "{}")
        .ignored(r#"{"type":"of a later version"}"#)
        .json()
        .settings(Config::DEFAULT)
        .fallback("http://peer/notes")
        .run()
}

#[test]
fn a_wire_that_is_whole_passes() {
    let report = checked(Fault::None);
    report.assert();
    assert!(report.to_string().ends_with("0 failures"), "{report}");
}

#[test]
fn a_wire_that_is_broken_in_one_place_fails_the_check_of_that_place() {
    for (fault, checks) in [
        (Fault::TakesAll, &[Check::Prepare][..]),
        (Fault::Short, &[Check::Size, Check::HttpRoute, Check::HttpRoundTrip]),
        (Fault::EchoIsAck, &[Check::Mirror]),
        (Fault::LateVersionIsAnOffence, &[Check::Ignored]),
        (Fault::Lossy, &[Check::RoundTrip, Check::Tolerance, Check::HttpRoundTrip]),
        (Fault::NewIdEveryTime, &[Check::Identity, Check::HttpRoundTrip]),
        (Fault::OneIdForTwo, &[Check::Identity]),
        (Fault::WrongWord, &[Check::Acknowledge, Check::Tolerance]),
        (Fault::ForgetsSpelling, &[Check::Echo]),
        (Fault::KeepaliveIsAMessage, &[Check::Quiet]),
        (Fault::AnswersAnswers, &[Check::Quiet]),
        (Fault::TooLong, &[Check::Limit]),
        (Fault::StrictFields, &[Check::Tolerance]),
        (Fault::KeyOfBytes, &[Check::Tolerance]),
        (Fault::Weightless, &[Check::Describe]),
        (Fault::OtherPath, &[Check::HttpRoute, Check::HttpRoundTrip]),
        (Fault::KeyInFramesOnly, &[Check::HttpRoundTrip]),
        (Fault::BusyIsDone, &[Check::HttpAnswer]),
        (Fault::OtherIsFine, &[Check::HttpGarbage]),
        (Fault::BelievesAPage, &[Check::HttpForeign]),
        (Fault::BelievesNobody, &[Check::HttpAnswer]),
        (Fault::Panics, &[Check::Mutation, Check::Garbage]),
        (Fault::BelievesLengths, &[Check::Mutation]),
        (Fault::EmptyIsAMessage, &[Check::Garbage]),
        (Fault::KeepsAll, &[Check::Memory]),
        (Fault::NeverForgets, &[Check::Memory]),
    ] {
        let report = checked(fault);
        let failed: BTreeSet<Check> = report.failures().iter().map(|failure| failure.check).collect();
        assert_eq!(failed, checks.iter().copied().collect(), "{fault:?}: {report}");
    }
}

#[test]
fn a_failure_names_the_frame_and_shows_a_bounded_part_of_it() {
    let report = checked(Fault::Panics);
    let failure = report.failures().iter().find(|failure| failure.check == Check::Garbage).unwrap();
    assert!(failure.why.starts_with("panic: "), "{failure}");
    assert!(report.failures().iter().all(|failure| !failure.frame.is_empty() && failure.frame.len() <= 300 * 10));
    let of_one_check = report.failures().iter().filter(|failure| failure.check == Check::Mutation).count();
    assert!((1..=3).contains(&of_one_check));
    assert_eq!(report, checked(Fault::Panics), "every run is the same");
    let said = std::panic::catch_unwind(|| report.assert()).unwrap_err();
    assert!(said.downcast_ref::<String>().unwrap().contains("garbage: panic: "));
}

#[test]
fn gonka_s_sender_is_caught_with_settings_that_its_receiver_cannot_read() {
    let mut config = GONKA_ML_NODE;
    config.outbox.frame_limit = (gonka::API_NODE_LIMIT + 1) as u32;
    let report = Conformance::pair(Gonka::ML_NODE, Gonka::API_NODE, |batch| batch.json.to_vec()).settings(config).run();
    assert_eq!(report.failures().iter().map(|failure| failure.check).collect::<Vec<_>>(), [Check::Limit]);
}

/// The fuzzer's harness catches what the checks do, on an input that a test can hold.
#[test]
fn a_broken_wire_fails_on_a_script() {
    let play = |fault: Fault, script: &str| {
        let played = std::panic::catch_unwind(|| {
            Conformance::pair(Notes::with(fault), Notes::with(fault), |note| note.json.to_vec())
                .sample(&(), r#"{"text":"a"}"#)
                .fallback("http://peer/notes")
                .fuzz(script.as_bytes());
        });
        played.map_err(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default())
    };
    for (fault, script, why) in [
        (Fault::EchoIsAck, "+ 0", "sent back"),
        (Fault::Lossy, r#"+ 0 {"text":" a "}"#, "the receiver reads"),
        (Fault::WrongWord, "+ 0", "reads"),
        (Fault::OtherPath, "+ 0", "is not served"),
        (Fault::KeyInFramesOnly, "+ 0", "by HTTP it is"),
        (Fault::OtherIsFine, "@ 0 9 {", "is answered 2xx"),
        (Fault::BelievesLengths, r#"> {"type":"note","id":"1","text":"","length":99999999}"#, "became a message of"),
        (Fault::Panics, "> \u{e9}\u{e9}", "char boundary"),
    ] {
        let honest = play(Fault::None, &format!("~\n+ 0\n{script}\n. \n= 200 text/html Log in\n-\n> {script}"));
        assert_eq!(honest, Ok(()), "{fault:?}");
        let said = play(fault, script).expect_err("it passes");
        assert!(said.contains(why), "{fault:?}: {said}");
    }
}
