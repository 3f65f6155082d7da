//! The wires of the three systems: each end by the kit that every wire is checked with
//! ([`Conformance::fuzz`]), and what our two ends make of each other where one of them is a hub.

use super::{canonical, trace};
use bowline::wire::KeyedHash;
use bowline::wire::gonka::Kind;
use bowline::{Frame, Head, MessageId, Origin, Seq};
use bowline_transport::conformance::{Conformance, HubConformance};
use bowline_transport::http::Bytes;
use bowline_transport::hub::{self, HubSetup, HubWire, Name, Said, Validator};
use bowline_transport::{Bettensor, Gonka, Keypair, Village, Wire};
use serde_json::Value;
use std::sync::LazyLock;

pub(super) fn gonka(input: &[u8]) {
    Conformance::pair(Gonka::ML_NODE, Gonka::API_NODE, |batch| batch.json.to_vec())
        .sample(&Kind::Generated, r#"{"nonces":[3,13],"dist":[0.565750489,1e-7],"node_id":3}"#)
        .sample(&Kind::Validated, r#"{"public_key":"a\"b\\c\u00e9é","n":18446744073709551615,"deep":{"a":[[{}]]}}"#)
        .fallback("http://api:9100/v1/poc-batches")
        .fuzz(input);
}

pub(super) fn bettensor(input: &[u8]) {
    static MINER: LazyLock<Keypair> = LazyLock::new(|| keys("07"));
    static VALIDATOR: LazyLock<HubSetup<Validator>> =
        LazyLock::new(|| HubSetup::validator("127.0.0.1:0", keys("08")).expect("an address"));
    let (miner, hub) = (Bettensor::miner(MINER.clone()), VALIDATOR.wire());
    Conformance::alone(miner.clone())
        .sample("prediction", r#"{"prediction_id":"game-1_17","home_score":3}"#)
        .sample("own", r#"{"prediction_id":"é\"\\","value":-0.000123,"list":[true,null,{}]}"#)
        .fuzz(input);
    HubConformance::new(hub, MINER.hotkey()).fuzz(input);
    agree(input, miner, "prediction", hub, &MINER.hotkey(), "game_update");
}

pub(super) fn aivillage(input: &[u8]) {
    static VILLAGE: LazyLock<HubSetup<hub::Village>> =
        LazyLock::new(|| HubSetup::village("127.0.0.1:0").expect("an address"));
    // A name remembers the dialect of its client.
    let viewer = || "a viewer".parse::<Name>().expect("a name");
    let hub = VILLAGE.wire();
    Conformance::alone(Village::viewer())
        .sample("custom", r#"{"request":"training_status"}"#)
        .sample("é\"\\", r#" {"é😀":[1e-07,-0,{"x":null}]} "#)
        .fuzz(input);
    HubConformance::new(hub, viewer()).fuzz(input);
    agree(input, Village::viewer(), "custom", hub, &viewer(), "training_progress");
}

fn keys(byte: &str) -> Keypair {
    Keypair::from_seed_hex(&byte.repeat(32)).expect("a seed")
}

/// What the client sends as `up` the hub reads as that, and what the hub publishes as `down` is a message to the client:
/// each line that begins with `+` is taken for the data of both.
fn agree<C: Wire<Kind = str>, H: HubWire>(input: &[u8], mut client: C, up: &str, hub: &H, peer: &H::Peer, down: &str) {
    let names = KeyedHash::new([7; 16]);
    for (n, line) in String::from_utf8_lossy(input).lines().enumerate().take(20) {
        let Some(json) = line.strip_prefix('+').and_then(|line| line.get(line.find('{')?..)) else { continue };
        trace(|| format!("both ends: {json}"));
        let seq = Seq::FIRST.max(Seq::from_number(u64::try_from(n).unwrap_or_default()));
        let id: MessageId = Origin::new(7, 1).message(seq);
        if let Ok(outgoing) = client.prepare(up, &Bytes::copy_from_slice(json.as_bytes())) {
            client.accepted(id, &outgoing);
            let frame = client.write(Frame::Data { seq, id, una: seq, payload: &outgoing }).expect("it is no ping");
            let frame = Bytes::from(frame);
            let heard = hub.read(&names, peer, &frame);
            let Said::Message(content) = heard.said else { panic!("the hub takes it for {:?}: {frame:?}", heard.said) };
            assert_eq!(content.kind, up, "{frame:?}");
            assert!(same(json.as_bytes(), &content.data), "the hub reads {:?}", content.data);
            client.settled(id);
        }
        if let Ok(encoded) = hub.encode(down, json) {
            let frame = hub.frame(&encoded, peer);
            let heard = client.read(&names, frame.as_str());
            let said = heard.message.as_ref().map(|message| C::describe(message).0.to_owned());
            assert!(matches!(heard.head, Some(Head::Data { .. })), "the client reads {:?}: {frame}", heard.head);
            assert_eq!(said.as_deref(), Some(down), "{frame}");
        }
    }
}

fn same(one: &[u8], two: &[u8]) -> bool {
    match (serde_json::from_slice::<Value>(one), serde_json::from_slice::<Value>(two)) {
        (Ok(one), Ok(two)) => canonical::same(&one, &two),
        _ => one == two,
    }
}
