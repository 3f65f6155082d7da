//! The hub over real sockets on loopback, against miners that know nothing of ours but the codec.
//!
//! No timing is asserted: only counts and orders, with a generous limit on everything that waits. The numbers in the names
//! are those of the faults in the original (wire facts 2.10) and of the rules.

#[path = "../real/ca.rs"]
#[expect(dead_code, reason = "every test program uses a part")]
mod ca;
mod client;

use bowline::Outcome;
use bowline::wire::bettensor;
use bowline_smol::hub::{
    Admission, CloseReason, Confirmation, Duplicate, Event, Hotkey, Hub, HubSetup, Publish, Rate, Target, Validator,
};
use client::*;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use serde_json::Value;
use smol::stream::StreamExt as _;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use tungstenite::{Bytes, Message};

/// What came to the handler of predictions, by id.
type Seen = Arc<Mutex<Vec<String>>>;

fn setup() -> HubSetup<Validator> {
    HubSetup::validator("127.0.0.1:0", keys(999_999)).unwrap().authorize(|_| Admission::accept())
}

/// A hub that notes and confirms every prediction.
fn hub() -> (Hub<Validator>, Seen) {
    hub_with(|setup| setup)
}

fn hub_with(change: impl FnOnce(HubSetup<Validator>) -> HubSetup<Validator>) -> (Hub<Validator>, Seen) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    let setup = setup().on("prediction", move |message| {
        let data: Value = message.json().unwrap();
        noted.lock().unwrap().push(data["prediction_id"].as_str().unwrap().to_owned());
        async { Ok::<_, String>(Confirmation::new("stored").miner_stats(r#"{"rank":0.50}"#)) }
    });
    (Hub::start(change(setup)).unwrap(), seen)
}

fn block<T>(what: &str, future: impl Future<Output = T>) -> T {
    let late = async {
        smol::Timer::after(LIMIT).await;
        panic!("{what} did not come")
    };
    smol::block_on(smol::future::or(future, late))
}

#[test]
fn a_miner_is_welcomed_and_its_prediction_confirmed() {
    let (hub, seen) = hub();
    let mut miner = Client::open(hub.address(), keys(1));
    let auth = auth(&miner.keys);
    miner.send(auth);
    let welcome = miner.envelope();
    assert_eq!((welcome.kind.as_str(), welcome.sender.as_str()), ("welcome", hub.hotkey()));
    assert_eq!(welcome.data["message"], "Connection established");
    assert_eq!((&welcome.data["status"], &welcome.data["reconnect_window"]), (&"success".into(), &30.into()));
    let said = miner.predict("p-1");
    assert_eq!((said.success(), &said.data["message"]), (true, &"stored".into()));
    assert_eq!(said.data["miner_stats"]["rank"], 0.5);
    assert_eq!(*seen.lock().unwrap(), ["p-1"]);
    let again = miner.predict("p-1");
    assert_eq!(again.data["message"], "stored", "the stored result, and no second delivery");
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn fault_1_2_a_burst_of_a_hundred_is_confirmed_without_a_heartbeat() {
    let (hub, seen) = hub();
    let mut miner = Client::join(hub.address(), 1);
    let all: BTreeSet<String> = (0..100).map(|n| format!("p-{n}")).collect();
    for id in &all {
        let text = prediction(&miner.keys, id);
        miner.socket.write(Message::text(text)).unwrap();
    }
    miner.socket.flush().unwrap();
    let mut confirmed = BTreeSet::new();
    while confirmed.len() < 100 {
        let said = miner.expect("confirmation");
        assert!(confirmed.insert(said.data["prediction_id"].as_str().unwrap().to_owned()), "confirmed twice: {said:?}");
    }
    assert_eq!(confirmed, all);
    assert_eq!(seen.lock().unwrap().len(), 100);
    assert_eq!(hub.stats().delivered, 100);
}

#[test]
fn fault_3_fifty_reconnects_with_one_key_never_lose_the_registration() {
    let (hub, seen) = hub();
    let mut old = Vec::new();
    for round in 0..50 {
        let mut miner = Client::join(hub.address(), 1);
        assert!(miner.predict(&format!("p-{round}")).success());
        assert_eq!(hub.health().connections, 1, "in round {round}");
        // Every second one is cut, the others are replaced by the next.
        if round % 2 == 0 { miner.cut() } else { old.push(miner) }
    }
    assert_eq!(seen.lock().unwrap().len(), 50);
    let update = hub.publish("game_update", r#"{"games":[]}"#, Publish::DEFAULT).unwrap();
    assert!(update.reached <= 1);
    for mut miner in old.into_iter().rev().skip(1) {
        let closed = miner.closed();
        assert_eq!((closed.code, closed.reason.as_str()), (4003, "New connection established"));
    }
    assert_eq!(hub.sessions().len(), 1);
}

#[test]
fn u2_two_clients_with_one_key_behave_as_the_policy_says() {
    for (policy, first_stays, second_comes) in
        [(Duplicate::Replace, false, true), (Duplicate::Refuse, true, false), (Duplicate::Allow(2), true, true)]
    {
        let (hub, _) = hub_with(|setup| setup.configure(|config| config.duplicate = policy));
        let mut first = Client::join(hub.address(), 1);
        let mut second = Client::open(hub.address(), keys(1));
        let auth = auth(&second.keys);
        second.send(auth);
        if second_comes {
            assert_eq!(second.envelope().kind, "welcome", "{policy:?}");
        } else {
            let closed = second.closed();
            assert_eq!(closed.code, 1013, "{policy:?} {closed:?}");
        }
        if first_stays {
            assert!(first.predict("p").success(), "{policy:?}");
        } else {
            assert_eq!(first.closed().code, 4003, "{policy:?}");
        }
    }
}

#[test]
fn a_wrong_signature_an_unknown_hotkey_and_a_replayed_auth_are_refused_as_the_original_does() {
    let stranger = keys(2).hotkey();
    let decide =
        move |hotkey| async move { if hotkey == stranger { Admission::unregistered() } else { Admission::accept() } };
    let (hub, _) = hub_with(|setup| setup.authorize(decide));
    let refused = |auth: String, message: &str, reason: &str| {
        let mut miner = Client::open(hub.address(), keys(1));
        miner.send(auth);
        let said: Value = serde_json::from_str(&miner.text()).unwrap();
        assert_eq!((&said["status"], &said["message"]), (&"error".into(), &message.into()));
        let closed = miner.closed();
        assert_eq!((closed.code, closed.reason.as_str()), (1008, reason));
    };
    let bad = "Invalid authentication";
    let foreign = signed(&keys(1), &keys(3).hotkey().to_string(), bettensor::Unsigned::auth);
    refused(foreign, bad, bad);
    refused(auth(&keys(2)), "Hotkey not registered in metagraph", "Unregistered hotkey");
    refused("{}".into(), bad, bad);
    refused("no json".into(), bad, bad);
    refused(prediction(&keys(1), "p"), bad, bad);
    let once = auth(&keys(1));
    let mut miner = Client::open(hub.address(), keys(1));
    miner.send(once.clone());
    assert_eq!(miner.envelope().kind, "welcome");
    refused(once, bad, bad);
    assert!(miner.predict("p").success(), "the one who was there is not disturbed");
    assert_eq!(hub.health().connections, 1);
}

#[test]
fn fault_7_replayed_nonces_stolen_identities_and_forged_messages_are_told_and_not_delivered() {
    let (hub, seen) = hub();
    let mut miner = Client::join(hub.address(), 1);
    let first = prediction(&miner.keys, "p-1");
    miner.send(first.clone());
    assert!(miner.expect("confirmation").success());
    let stolen = prediction(&keys(2), "p-2");
    let (mine, other) = (keys(1).hotkey().to_string(), keys(2).hotkey().to_string());
    let forged = prediction(&keys(1), "p-3").replace("p-3", "p-4");
    let pretended = prediction(&keys(2), "p-5").replace(&other, &mine);
    // Signed by the one who is here, as if it were from another.
    let posed = signed(&keys(1), &other, |stamp| {
        bettensor::Unsigned::message(stamp, &bettensor::Kind::Prediction, r#"{"prediction_id":"p-8"}"#).unwrap()
    });
    let unsigned = r#"{"type":"prediction","sender":"5Grw","data":{"prediction_id":"p-6"}}"#.to_owned();
    for (bad, member, id) in [
        (first, "nonce", "p-1"),
        (stolen, "sender", "p-2"),
        (forged, "signature", "p-4"),
        (pretended, "signature", "p-5"),
        (posed, "sender", "p-8"),
        (unsigned, "signature", "p-6"),
        (r#"{"type":"prediction","data":{"prediction_id":"p-9"}}"#.into(), "sender", "p-9"),
        ("[]".into(), "", ""),
        ("no json".into(), "", ""),
    ] {
        miner.send(bad.clone());
        let said: Value = serde_json::from_str(&miner.text()).unwrap();
        assert_eq!((&said["type"], said["signature"].is_null()), (&"error".into(), true), "{bad}");
        assert_eq!(said["message"], "Invalid message signature or structure", "{bad}");
        let named = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        assert_eq!((named("member").as_str(), named("prediction_id").as_str()), (member, id), "E4: {bad}");
    }
    assert!(miner.predict("p-7").success(), "the connection lives");
    assert_eq!(*seen.lock().unwrap(), ["p-1", "p-7"]);
    assert_eq!((hub.counters().malformed, hub.stats().replays), (9, 1));
}

#[test]
fn a_handler_that_panics_or_errs_answers_with_an_error_and_harms_nobody() {
    let setup = setup().on("prediction", |message| {
        let id = message.json::<Value>().unwrap()["prediction_id"].as_str().unwrap().to_owned();
        assert_ne!(id, "at once");
        async move {
            match id.as_str() {
                "later" => panic!("on purpose"),
                "wrong" => Err("Game not found"),
                _ => Ok("stored"),
            }
        }
    });
    let hub = Hub::start(setup).unwrap();
    let (mut miner, mut other) = (Client::join(hub.address(), 1), Client::join(hub.address(), 2));
    for (id, message) in [("at once", "Internal error"), ("later", "Internal error"), ("wrong", "Game not found")] {
        let said = miner.predict(id);
        assert_eq!((said.success(), &said.data["message"]), (false, &message.into()), "{id}");
    }
    assert_eq!(miner.predict("wrong").data["message"], "Game not found", "the same answer to the same prediction");
    assert!(miner.predict("fine").success());
    assert!(other.predict("fine").success());
    assert_eq!((hub.counters().confirmed, hub.counters().rejected), (2, 3));
}

#[test]
fn a_slow_handler_delays_no_other_miner() {
    let (go, wait) = smol::channel::bounded::<()>(1);
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    // Two places for each miner, sixteen for all.
    let setup = setup().handle_at_once(16).on("prediction", move |message| {
        let (slow, wait, count) = (message.hotkey() == keys(1).hotkey(), wait.clone(), Arc::clone(&count));
        async move {
            if slow {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = wait.recv().await;
            }
            Ok::<_, String>("stored")
        }
    });
    let hub = Hub::start(setup).unwrap();
    let (mut slow, mut fast) = (Client::join(hub.address(), 1), Client::join(hub.address(), 2));
    for n in 0..40 {
        let text = prediction(&slow.keys, &format!("s-{n}"));
        slow.send(text);
    }
    until("the slow ones", || hub.health().held == 40);
    for n in 0..20 {
        assert!(fast.predict(&format!("f-{n}")).success());
    }
    assert_eq!((hub.health().held, begun.load(Ordering::Relaxed)), (40, 2));
    go.close();
    for _ in 0..40 {
        assert!(slow.expect("confirmation").success());
    }
}

#[test]
fn fault_11_a_reader_that_stopped_delays_no_broadcast() {
    let (hub, _) = hub();
    let stopped = Client::join(hub.address(), 1);
    socket2::SockRef::from(stopped.socket.get_ref()).set_recv_buffer_size(4096).unwrap();
    let mut others: Vec<_> = (2..12).map(|n| Client::join(hub.address(), n)).collect();
    let data = format!(r#"{{"games":["{}"]}}"#, "x".repeat(32 * 1024));
    // Far more than the system takes for one that does not read.
    for round in 0..400 {
        let sent = hub.publish("game_update", &data, Publish::DEFAULT).unwrap();
        // On a slow machine the one that moves no byte is found stalled meanwhile, and closed.
        assert!(sent.reached >= 10);
        if round % 40 == 39 {
            for other in &mut others {
                for _ in 0..40 {
                    assert!(other.text().len() > 32 * 1024);
                }
            }
        }
    }
    assert!(hub.health().connections >= 10);
    let closed = hub.health().connections == 10;
    assert!(closed || hub.stats().lost > 0, "it lost something, and it is counted");
    drop(stopped);
}

#[test]
fn fault_5_whoever_comes_later_gets_the_last_update() {
    let (hub, _) = hub();
    let how = Publish { snapshot: true, ..Publish::DEFAULT };
    assert_eq!(hub.publish("game_update", r#"{"games":[1]}"#, how).unwrap().reached, 0);
    hub.publish("game_update", r#"{"games":[2]}"#, how).unwrap();
    let mut miner = Client::join(hub.address(), 1);
    assert_eq!(miner.expect("game_update").data["games"][0], 2);
    let sent = hub.publish_to("odds", r#"{"a":1}"#, Publish::DEFAULT, |hotkey| *hotkey == keys(2).hotkey()).unwrap();
    assert_eq!(sent.reached, 0, "not for this one");
    hub.publish("game_update", r#"{"games":[3]}"#, how).unwrap();
    assert_eq!(miner.envelope().data["games"][0], 3);
}

#[test]
fn one_prediction_by_both_paths_is_delivered_once_and_confirmed_twice() {
    let (hub, seen) = hub();
    let mut miner = Client::join(hub.address(), 1);
    assert!(miner.predict("p-1").success());
    let answer = post(hub.address(), &prediction(&miner.keys, "p-1"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let said = Said::read(&answer.body);
    assert_eq!((said.kind.as_str(), &said.data["message"], said.success()), ("confirmation", &"stored".into(), true));
    // … and the other way round, by one who was never connected.
    let answer = post(hub.address(), &prediction(&keys(2), "p-2"));
    assert!(Said::read(&answer.body).success());
    let mut late = Client::join(hub.address(), 2);
    assert!(late.predict("p-2").success());
    assert_eq!(*seen.lock().unwrap(), ["p-1", "p-2"]);
    assert_eq!((hub.stats().delivered_http, hub.stats().duplicates), (1, 2));
}

#[test]
fn a_post_is_held_against_the_same_checks_as_a_frame() {
    let stranger = keys(2).hotkey();
    let decide = move |hotkey| match hotkey == stranger {
        true => Admission::unregistered(),
        false if hotkey == keys(3).hotkey() => Admission::Later(Duration::from_secs(7)),
        false => Admission::accept(),
    };
    let (hub, seen) = hub_with(|setup| setup.authorize(decide));
    let at = hub.address();
    let once = prediction(&keys(1), "p-1");
    assert_eq!(post(at, &once).status, 200);
    let forged = prediction(&keys(1), "p-2").replace("p-2", "p-3");
    let unknown = message(&keys(1), "odds", r#"{"prediction_id":"o-1"}"#);
    for (body, status) in [
        (once, 401),
        (forged, 401),
        (prediction(&keys(2), "p-4"), 403),
        (prediction(&keys(3), "p-5"), 503),
        (unknown, 400),
        (auth(&keys(1)), 400),
        ("[]".into(), 400),
        ("x".repeat(70_000), 413),
    ] {
        let answer = post(at, &body);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(status != 503 || answer.head.contains("retry-after: 7"), "{answer:?}");
        assert!(serde_json::from_str::<Value>(&answer.body).is_ok(), "{answer:?}");
    }
    assert_eq!(*seen.lock().unwrap(), ["p-1"]);
}

#[test]
fn health_has_the_originals_fields_first_and_metrics_can_be_read() {
    let (hub, _) = hub();
    let mut miner = Client::join(hub.address(), 1);
    miner.predict("p-1");
    miner.predict("p-1");
    assert_eq!(post(hub.address(), &prediction(&keys(1), "p-2")).status, 200);
    miner.send("{}");
    assert!(miner.text().contains("Invalid message"));
    let health = http(hub.address(), "GET", "/ws/health", "");
    assert_eq!(health.status, 200);
    assert!(
        health.body.starts_with(r#"{"status":"online","connections":1,"active_connections":1,"uptime":"#),
        "{health:?}"
    );
    let fields: Value = serde_json::from_str(&health.body).unwrap();
    for (field, value) in [
        ("suspended", 0),
        ("sessions", 1),
        ("pending", 0),
        ("closing", 0),
        ("backlog", 0),
        ("held", 0),
        ("reconnect_window", 30),
        ("handshakes", 1),
        ("refused", 0),
        ("dedupe_hits", 1),
        ("limited", 0),
        ("replays", 0),
        ("errors_per_minute", 1),
    ] {
        assert_eq!(fields[field], value, "{field}");
    }
    assert_eq!((&fields["draining"], &fields["fleet_http"]), (&false.into(), &false.into()));
    assert_eq!(fields["fallback_rate"], 0.5);
    let metrics = http(hub.address(), "GET", "/metrics", "");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"));
    let mut families = BTreeSet::new();
    for line in metrics.body.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert!(families.insert(name), "twice: {name}");
            assert!(["counter", "gauge", "histogram"].contains(&kind));
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            assert!(families.iter().any(|family| name.starts_with(family)), "{line}");
        }
    }
    for said in [
        r#"bowline_connections{state="authenticated"} 1"#,
        r#"bowline_messages_in_total{path="websocket"} 1"#,
        r#"bowline_messages_in_total{path="http"} 1"#,
        r#"bowline_handling_seconds_bucket{le="+Inf"} 2"#,
        "bowline_handling_seconds_count 2",
        "bowline_backlog 0",
    ] {
        assert!(metrics.body.lines().any(|line| line == said), "{said} is not in\n{}", metrics.body);
    }
    assert_eq!(http(hub.address(), "POST", "/metrics", "").status, 405);
    assert_eq!(http(hub.address(), "GET", "/else", "").status, 404);
}

#[test]
fn fault_8_heartbeats_are_answered_and_their_answers_are_not() {
    let (_hub, mut miner) = {
        let (hub, _) = hub();
        let miner = Client::join(hub.address(), 1);
        (hub, miner)
    };
    let response = message(&miner.keys, "heartbeat_response", "{}");
    miner.send(response);
    let beat = message(&miner.keys, "heartbeat", "{}");
    miner.send(beat);
    assert_eq!(miner.envelope().kind, "heartbeat_ack", "and nothing before it");
    let odd = message(&miner.keys, "odds", "{}");
    miner.send(odd);
    let said = miner.envelope();
    assert_eq!((said.kind.as_str(), &said.data["message"]), ("error", &"Unknown message type: odds".into()));
    let without = message(&miner.keys, "prediction", r#"{"game_id":"g"}"#);
    miner.send(without);
    assert_eq!(miner.envelope().kind, "error");
}

#[test]
fn types_without_a_handler_go_to_whoever_reads_them() {
    let (hub, _) = hub();
    let mut messages = hub.messages();
    let mut miner = Client::join(hub.address(), 1);
    let odds = message(&miner.keys, "odds", r#"{"prediction_id":"o-1","of":[1,2]}"#);
    miner.send(odds);
    let delivery = block("the odds", messages.next()).unwrap();
    assert_eq!((delivery.kind(), delivery.hotkey()), ("odds", miner.keys.hotkey()));
    assert_eq!(delivery.data(), r#"{"of": [1, 2], "prediction_id": "o-1"}"#);
    assert!(delivery.confirm("noted"));
    let said = miner.expect("confirmation");
    assert_eq!((&said.data["prediction_id"], &said.data["message"]), (&"o-1".into(), &"noted".into()));
    // Without an id there is nothing to confirm; given back, one with an id comes again, and not before its time (S16).
    let chat = message(&miner.keys, "chat", r#"{"text":"hello"}"#);
    miner.send(chat);
    assert!(block("the chat", messages.next()).unwrap().confirm(()));
    let odds = |miner: &Client| message(&miner.keys, "odds", r#"{"prediction_id":"o-2"}"#);
    miner.send(odds(&miner));
    let given_back = std::time::Instant::now();
    assert!(block("the odds", messages.next()).unwrap().retry(Duration::from_millis(300)));
    let again = loop {
        let copy = odds(&miner);
        miner.send(copy);
        let heartbeat = message(&miner.keys, "heartbeat", "{}");
        miner.send(heartbeat);
        miner.expect("heartbeat_ack");
        if let Some(delivery) = smol::block_on(smol::future::poll_once(messages.next())) {
            break delivery.unwrap();
        }
    };
    assert!(given_back.elapsed() >= Duration::from_millis(300), "by no copy sooner");
    assert!(again.reject("too late"));
    assert!(!miner.expect("confirmation").success());
    // A copy by HTTP is told what is left.
    let other = message(&miner.keys, "odds", r#"{"prediction_id":"o-3"}"#);
    miner.send(other);
    assert!(block("the odds", messages.next()).unwrap().retry(Duration::from_secs(3600)));
    let copy = message(&miner.keys, "odds", r#"{"prediction_id":"o-3"}"#);
    let answer = post(hub.address(), &copy);
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(answer.head.contains("retry-after: 3600") || answer.head.contains("retry-after: 35"), "{answer:?}");
}

#[test]
fn a_frame_that_is_too_long_or_binary_or_nonsense_ends_or_does_not_end_its_own_connection() {
    let (hub, _) = hub();
    let mut miner = Client::join(hub.address(), 1);
    // The original went deaf on this.
    miner.socket.send(Message::Binary(Bytes::from_static(b"\x00\x01"))).unwrap();
    assert!(miner.text().contains("Invalid message signature or structure"));
    assert!(miner.predict("p-1").success());
    let long =
        message(&miner.keys, "prediction", &format!(r#"{{"prediction_id":"p-2","x":"{}"}}"#, "x".repeat(70_000)));
    miner.send(long);
    assert_eq!(miner.closed().code, 1009);
    let mut stranger = Client::open(hub.address(), keys(2));
    stranger.send("x".repeat(5_000));
    assert_eq!(stranger.closed().code, 1009, "before it has authenticated, four kilobytes are enough");
    let mut other = Client::join(hub.address(), 3);
    other.socket.get_mut().write_all(&[0xff; 64]).unwrap();
    assert_eq!(other.closed().code, 1002);
    let mut flood = Client::join(hub.address(), 4);
    for _ in 0..20 {
        if flood.socket.send(Message::text("[]")).is_err() {
            break;
        }
    }
    assert_eq!(flood.closed().code, 1002, "sixteen malformed ones in a row");
    until("the end of all", || hub.health().connections == 0);
    assert!(Client::join(hub.address(), 1).predict("p-3").success());
}

#[test]
fn u8_an_address_with_many_wrong_signatures_is_not_verified_any_more() {
    let (hub, seen) = hub();
    let mut known = Client::join(hub.address(), 1);
    let forged = prediction(&keys(1), "p-1").replace("p-1", "p-2");
    // On a slow machine the one a second comes on top.
    let answers: Vec<_> =
        (0..100).map(|_| post(hub.address(), &forged)).take_while(|answer| answer.status == 401).collect();
    assert!((16..100).contains(&answers.len()), "{}", answers.len());
    let refused = (0..100).map(|_| post(hub.address(), &forged)).find(|answer| answer.status == 429).unwrap();
    assert!(refused.head.contains("retry-after: 1"), "{refused:?}");
    assert!(hub.metrics().contains(r#"bowline_refused_total{reason="Rate"} "#));
    assert!(known.predict("p-3").success(), "a connection is not held up");
    let honest = prediction(&keys(1), "p-4");
    until("the time when it is listened to again", || post(hub.address(), &honest).status == 200);
    assert_eq!(*seen.lock().unwrap(), ["p-3", "p-4"]);
}

/// Asks for a WebSocket and reads until the hub ends the connection.
fn upgrade_to_the_end(hub: &Hub<Validator>) -> String {
    let upgrade = "GET /ws HTTP/1.1\r\nHost: v\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stream = TcpStream::connect(hub.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(upgrade.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.to_lowercase()
}

#[test]
fn u11_a_hub_that_has_just_begun_takes_any_clock_within_the_tolerance_and_says_by_how_much_another_is_wrong() {
    let greets = |hub: &Hub<Validator>, n: u32, ahead: i64| {
        let mut miner = Client::open(hub.address(), keys(n));
        let said = signed_by(ahead, &miner.keys, &miner.keys.hotkey().to_string(), bettensor::Unsigned::auth);
        miner.send(said);
        miner
    };
    // About a number of seconds, give or take what a busy machine needs.
    let says = |text: &str, start: &str, end: &str| {
        let seconds =
            text.strip_prefix(start).and_then(|text| text.strip_suffix(end)).unwrap_or_else(|| panic!("{text}"));
        let seconds: u64 = seconds.parse().unwrap_or_else(|_| panic!("{text}"));
        assert!((360..=420).contains(&seconds), "{text}");
    };
    let (hub, seen) = hub();
    for (n, ahead) in (1..).zip([-290, -60, -6, 60, 290]) {
        let mut miner = greets(&hub, n, ahead);
        assert_eq!(miner.envelope().kind, "welcome", "{ahead}");
        let said = prediction_by(ahead, &miner.keys, &format!("p{n}"));
        miner.send(said);
        assert!(miner.expect("confirmation").success(), "{ahead}");
        let posted = post(hub.address(), &prediction_by(ahead, &keys(10 + n), "q"));
        assert_eq!(posted.status, 200, "{ahead}: {}", posted.body);
    }
    assert_eq!(seen.lock().unwrap().len(), 10);
    let mut events = hub.events();
    let mut told = || loop {
        if let Event::TurnedAway { why, text, .. } = block("somebody turned away", events.next()).unwrap() {
            return (why, text.map(|text| text.as_str().to_owned()).unwrap_or_default());
        }
    };
    for (ahead, word) in [(-390, "s behind the hub's clock"), (400, "s ahead of the hub's clock")] {
        let mut miner = greets(&hub, 30, ahead);
        let said: Value = serde_json::from_str(&miner.text()).unwrap();
        assert_eq!(said["status"], "error");
        let start = "Invalid authentication: the timestamp is ";
        says(said["message"].as_str().unwrap(), start, &format!(" {word}"));
        let closed = miner.closed();
        assert_eq!(closed.code, 1008);
        says(&closed.reason, start, &format!(" {word}"));
        let (why, text) = told();
        assert_eq!(why, CloseReason::WrongClock);
        says(&text, "the timestamp is ", &format!(" {word}"));
        let posted = post(hub.address(), &prediction_by(ahead, &keys(31), "q"));
        assert_eq!(posted.status, 401);
        let said: Value = serde_json::from_str(&posted.body).unwrap();
        says(said["error"].as_str().unwrap(), "the timestamp is ", &format!(" {word}"));
        assert_eq!(told().0, CloseReason::WrongClock);
    }
    let mut miner = Client::join(hub.address(), 40);
    let late = prediction_by(-390, &miner.keys, "late");
    miner.send(late);
    let said: Value = serde_json::from_str(&miner.text()).unwrap();
    assert_eq!(
        (&said["type"], &said["member"], &said["prediction_id"]),
        (&"error".into(), &"timestamp".into(), &"late".into())
    );
    let start = "Invalid message signature or structure: the timestamp is ";
    says(said["message"].as_str().unwrap(), start, " s behind the hub's clock");
    assert!(miner.predict("in time").success());
}

#[test]
fn u11_what_was_recorded_before_a_restart_counts_no_more_once_its_miner_is_back() {
    let (hub, seen) = hub();
    let recorded = |n: i64| prediction_by(-n, &keys(1), &format!("recorded {n}"));
    // Nobody can tell: its miner has not been heard by this hub.
    assert_eq!(post(hub.address(), &recorded(200)).status, 200);
    let mut miner = Client::join(hub.address(), 1);
    assert!(miner.predict("p").success());
    for n in [199, 100, 60] {
        let answer = post(hub.address(), &recorded(n));
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.head.to_lowercase().contains("retry-after: "), "{}", answer.head);
        let again = recorded(n);
        miner.send(again);
        let said: Value = serde_json::from_str(&miner.text()).unwrap();
        assert_eq!((&said["type"], &said["member"]), (&"error".into(), &"timestamp".into()));
    }
    assert_eq!(*seen.lock().unwrap(), ["recorded 200", "p"]);
}

#[test]
fn u2_two_programs_with_one_key_behind_one_address_are_parted_and_it_is_told() {
    let (hub, _) = hub();
    let mut events = hub.events();
    let mut holder = Client::join(hub.address(), 1);
    for _ in 0..3 {
        let next = Client::join(hub.address(), 1);
        assert_eq!(holder.closed().code, 4003);
        // It has answered the close frame, and lets go.
        holder.cut();
        until("it is gone", || hub.health().closing == 0);
        holder = next;
    }
    let mut fourth = Client::open(hub.address(), keys(1));
    let said = auth(&fourth.keys);
    fourth.send(said);
    let closed = fourth.closed();
    assert_eq!((closed.code, closed.reason.starts_with("retry-after=")), (1013, true), "{closed:?}");
    assert!(holder.predict("p").success(), "whoever is there stays");
    let war = |event: &Event<Hotkey>| matches!(event, Event::War { .. });
    assert!(block("a war", events.find(war)).is_some());
}

#[test]
fn u8_limits_refuse_before_the_upgrade_and_say_when_to_come_back() {
    let (hub, _) = hub_with(|setup| setup.configure(|config| config.pending = 2));
    let _one = Client::open(hub.address(), keys(1));
    let _two = Client::open(hub.address(), keys(2));
    assert_eq!(Client::try_open(hub.address(), keys(3)).err(), Some(503));
    let answer = upgrade_to_the_end(&hub);
    assert!(answer.starts_with("http/1.1 503") && answer.contains("retry-after: "), "{answer}");
    assert!(answer.contains(r#"{"error":"no place left"}"#), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "it keeps no place: {answer}");
    assert!(hub.metrics().contains(r#"bowline_refused_total{reason="Full"} 2"#));
}

#[test]
fn l9_whoever_says_nothing_or_half_of_it_is_sent_away_and_takes_nobodys_place() {
    let (hub, _) = hub_with(|setup| setup.configure(|config| config.hello = Duration::from_millis(300)));
    let mut silent = Client::open(hub.address(), keys(1));
    let closed = silent.closed();
    assert_eq!((closed.code, closed.reason.as_str()), (1008, "no greeting in time"));
    // Half a head, junk, a head that is too large: none of them comes near the hub.
    let visitors: Vec<_> =
        ["GET /ws HT", "\x16\x03\x01\x02\x00", &["GET / HTTP/1.1\r\nX: ", &"x".repeat(40_000)].concat()]
            .iter()
            .map(|said| {
                let mut stream = TcpStream::connect(hub.address()).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                let _ = stream.write_all(said.as_bytes());
                stream
            })
            .collect();
    // More than one address may have open.
    let crowd: Vec<_> = (0..300).map(|_| TcpStream::connect(hub.address()).unwrap()).collect();
    drop(crowd);
    drop(visitors);
    until("room", || {
        TcpStream::connect(hub.address()).is_ok_and(|mut stream| {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.write_all(b"GET /ws/health HTTP/1.1\r\nHost: v\r\nConnection: close\r\n\r\n").is_ok()
                && matches!(stream.read(&mut [0; 12]), Ok(12))
        })
    });
    assert!(Client::join(hub.address(), 2).predict("p").success());
    assert_eq!(hub.health().pending, 0);
}

#[test]
fn floods_of_pings_fragments_and_heartbeats_end_their_own_connection() {
    let (hub, _) = hub();
    let mut quiet = Client::join(hub.address(), 9);
    // A fragment of a text, then empty continuations without end, masked as a client's must be.
    let empty: Vec<u8> = [0x00, 0x80, 1, 2, 3, 4].repeat(4096);
    let mut miner = Client::join(hub.address(), 1);
    miner.socket.get_mut().write_all(&[0x01, 0x80, 1, 2, 3, 4]).unwrap();
    let mut writer = miner.socket.get_mut().try_clone().unwrap();
    let flood = std::thread::spawn(move || (0..10_000).find(|_| writer.write_all(&empty).is_err()));
    assert!(matches!(miner.closed().code, 1002 | 1006));
    assert!(flood.join().unwrap().is_some(), "it was cut off");
    let ping: Vec<u8> = [0x89, 0x80, 1, 2, 3, 4].repeat(4096);
    let mut miner = Client::join(hub.address(), 2);
    let mut writer = miner.socket.get_mut().try_clone().unwrap();
    let flood = std::thread::spawn(move || (0..10_000).find(|_| writer.write_all(&ping).is_err()));
    assert!(matches!(miner.closed().code, 1008 | 1006));
    assert!(flood.join().unwrap().is_some(), "it was cut off");
    let mut stranger = Client::open(hub.address(), keys(3));
    stranger.socket.get_mut().write_all(&[0x89, 0x80, 1, 2, 3, 4].repeat(1000)).unwrap();
    assert_eq!(stranger.closed().code, 1008, "so many pings, and not a word about who it is");
    let mut stranger = Client::open(hub.address(), keys(4));
    let mut writer = stranger.socket.get_mut().try_clone().unwrap();
    writer.write_all(&[0x01, 0x80, 1, 2, 3, 4]).unwrap();
    let empty: Vec<u8> = [0x00, 0x80, 1, 2, 3, 4].repeat(4096);
    let flood = std::thread::spawn(move || (0..10_000).find(|_| writer.write_all(&empty).is_err()));
    assert!(matches!(stranger.closed().code, 1008 | 1006), "nor one in so many fragments");
    assert!(flood.join().unwrap().is_some(), "it was cut off");
    assert!(
        hub.metrics().contains(r#"bowline_refused_total{reason="Impostor"} 2"#),
        "not for their silence in the end"
    );
    assert!(quiet.predict("p").success());
    until("the end of both", || hub.health().connections == 1);
}

#[test]
fn two_hundred_miners_come_back_to_a_hub_that_was_killed() {
    let many = |setup: HubSetup<Validator>| {
        setup.authorize(|_| Admission::accept()).configure(|config| {
            config.per_address_connections = 1000;
            config.per_address.handshakes = Rate::UNLIMITED;
        })
    };
    let (hub, _) = hub_with(many);
    let address = hub.address();
    let mut miners: Vec<_> = (0..200).map(|n| Client::join(address, n + 1)).collect();
    assert_eq!(hub.publish("game_update", r#"{"games":[1]}"#, Publish::DEFAULT).unwrap().reached, 200);
    for miner in &mut miners {
        assert_eq!(miner.envelope().data["games"][0], 1);
    }
    drop(hub);
    for miner in &mut miners {
        assert!(matches!(miner.closed().code, 1012 | 1006));
    }
    let mut again = None;
    until("the port", || {
        let setup = many(HubSetup::validator(&address.to_string(), keys(999_999)).unwrap());
        again = Hub::start(setup.on("prediction", |_| async { Ok::<_, String>("stored") })).ok();
        again.is_some()
    });
    let hub = again.unwrap();
    let mut miners: Vec<_> = (0..200).map(|n| Client::join(address, n + 1)).collect();
    for (n, miner) in miners.iter_mut().enumerate() {
        assert!(miner.predict(&format!("p-{n}")).success());
    }
    assert_eq!((hub.health().connections, hub.stats().delivered), (200, 200));
}

#[test]
fn u2_a_holder_who_does_not_answer_loses_its_place_and_one_who_does_keeps_it() {
    let (hub, _) = hub_with(|setup| {
        setup.configure(|config| {
            config.duplicate = Duplicate::ProbeThenReplace;
            config.session.link.knock = Duration::from_millis(500);
        })
    });
    // It does not read, so it does not answer.
    let _deaf = Client::join(hub.address(), 1);
    let mut second = Client::join(hub.address(), 1);
    assert!(second.predict("p-1").success());
    let mut third = Client::open(hub.address(), keys(1));
    let said = auth(&third.keys);
    third.send(said);
    let reader = std::thread::spawn(move || {
        let _ = second.next();
        second
    });
    assert_eq!(third.closed().code, 1013);
    let notice = hub.send(keys(1).hotkey(), "notice", "{}").unwrap();
    let mut second = reader.join().unwrap();
    assert!(second.predict("p-2").success());
    drop(notice);
}

#[test]
fn p8_while_too_few_are_connected_updates_go_to_the_others_by_http() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = Target::http(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (hub, _) = hub_with(|setup| setup.authorize(move |_| Admission::Accept { receiver: Some(receiver.clone()) }));
    hub.expect(Some(4));
    let mut one = Client::join(hub.address(), 1);
    Client::join(hub.address(), 2).cut();
    until("the end of a connection", || hub.health().connections == 1);
    assert!(hub.health().fleet_http);
    assert_eq!(hub.publish("game_update", r#"{"games":[5]}"#, Publish::DEFAULT).unwrap().reached, 1);
    assert_eq!(one.expect("game_update").data["games"][0], 5);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut first = [0; 17];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"POST /ws/messages");
}

#[test]
fn u3_a_message_for_one_waits_for_its_connection_and_a_pong_proves_it() {
    let (hub, _) = hub();
    let one = keys(1).hotkey();
    assert_eq!(hub.send(one, "notice", "{}").unwrap_err(), bowline_smol::hub::Refused::Unknown);
    Client::join(hub.address(), 1).cut();
    until("the end of the connection", || hub.health().connections == 0);
    let receipt = hub.send(one, "notice", r#"{"n":1}"#).unwrap();
    let mut miner = Client::join(hub.address(), 1);
    assert_eq!(miner.expect("notice").data["n"], 1);
    // Its library answers the ping behind the message while it reads.
    let reader = std::thread::spawn(move || {
        let _ = miner.next();
    });
    let end = block("the settlement", receipt.settled());
    assert_eq!(end.outcome, Outcome::Delivered { path: bowline::Path::WebSocket });
    assert!(hub.dismiss(one));
    reader.join().unwrap();
    assert!(!hub.dismiss(keys(2).hotkey()));
}

/// The first message that is posted to a receiver, not answered yet.
fn posted(listener: &TcpListener) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let n = stream.read(&mut chunk).unwrap();
        assert!(n > 0);
        seen.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8(seen.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.ends_with("\"}")
        {
            assert!(head.starts_with("POST /ws/messages HTTP/1.1"), "{head}");
            let body = body.to_owned();
            return (stream, body);
        }
    }
}

#[test]
fn a_miner_without_a_connection_gets_its_messages_by_http() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = Target::http(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (hub, _) = hub_with(|setup| setup.enabled(false));
    hub.adopt(keys(1).hotkey(), Some(receiver)).unwrap();
    let receipt = hub.send(keys(1).hotkey(), "game_update", r#"{"games":[7]}"#).unwrap();
    let (mut stream, body) = posted(&listener);
    assert_eq!(Said::read(&body).data["games"][0], 7);
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    let end = block("the settlement", receipt.settled());
    assert_eq!(end.outcome, Outcome::Delivered { path: bowline::Path::Http });
    // Switched off, there are no WebSockets, and predictions come by HTTP.
    assert_eq!(Client::try_open(hub.address(), keys(1)).err(), Some(404));
    assert!(upgrade_to_the_end(&hub).contains("connection: close\r\n"));
    assert_eq!(post(hub.address(), &prediction(&keys(1), "p-1")).status, 200);
    assert!(http(hub.address(), "GET", "/ws/health", "").body.starts_with(r#"{"status":"disabled","connections":0,"#));
}

#[test]
fn u9_a_drain_confirms_what_was_begun_refuses_who_is_new_and_tells_when_to_return() {
    let (hub, _) = hub();
    let mut miners: Vec<_> = (1..9).map(|n| Client::join(hub.address(), n)).collect();
    for (n, miner) in miners.iter_mut().enumerate() {
        assert!(miner.predict(&format!("p-{n}")).success());
    }
    let hub = Arc::new(hub);
    let draining = Arc::clone(&hub);
    let drained = std::thread::spawn(move || {
        block("the end of the drain", draining.drain(Duration::from_secs(20), Duration::from_secs(4)))
    });
    for miner in &mut miners {
        let closed = miner.closed();
        assert_eq!(closed.code, 1012);
        let after = closed.reason.strip_prefix("retry-after=").unwrap().parse::<f64>().unwrap();
        assert!((0.0..=20.0).contains(&after));
    }
    assert_eq!(Client::try_open(hub.address(), keys(99)).err(), Some(503));
    let refused = hub.stats().refused;
    for _ in 0..3 {
        assert_eq!(http(hub.address(), "GET", "/ws/health", "").status, 200);
    }
    assert_eq!(hub.stats().refused, refused, "to ask how it stands is no try to come in");
    assert_eq!(hub.counters().refused.iter().sum::<u64>(), refused);
    assert_eq!(drained.join().unwrap(), 0);
    assert_eq!((hub.health().connections, hub.health().sessions), (0, 0));
    assert!(http(hub.address(), "GET", "/ws/health", "").body.starts_with(r#"{"status":"offline","connections":0,"#));
    assert_eq!(post(hub.address(), &prediction(&keys(1), "p")).status, 503);
}

#[test]
fn a_hub_can_be_closed_and_started_again_on_the_same_port() {
    let (hub, _) = hub();
    let address = hub.address();
    let mut miner = Client::join(address, 1);
    block("the end of the hub", hub.close());
    assert!(matches!(miner.closed().code, 1012 | 1006));
    for _ in 0..3 {
        let again = HubSetup::validator(&address.to_string(), keys(999_999)).unwrap();
        let hub = Hub::start(again.authorize(|_| Admission::accept())).unwrap();
        Client::join(address, 1).cut();
        block("the end of the hub", hub.close());
    }
    drop(hub_with(|setup| setup).0);
}

#[test]
fn events_say_who_came_and_went() {
    let (hub, _) = hub();
    let mut events = hub.events();
    let hotkey = keys(1).hotkey();
    for resumed in [false, true] {
        let miner = Client::join(hub.address(), 1);
        let came = |event: &Event<Hotkey>| matches!(event, Event::Connected { .. });
        assert_eq!(block("the connection", events.find(came)), Some(Event::Connected { peer: hotkey, resumed }));
        miner.cut();
        let gone = |event: &Event<Hotkey>| matches!(event, Event::Disconnected { peer: whose, .. } if *whose == hotkey);
        assert!(block("its end", events.find(gone)).is_some());
    }
}

/// Every connection that is turned away is counted, and told up to a limit, with its address and the name it gave.
#[test]
fn e4_the_application_is_told_whom_the_hub_turned_away_and_why() {
    let (hub, _) = hub_with(|setup| setup.authorize(|_| Admission::unregistered()));
    let mut events = hub.events();
    let mut next = || {
        let turned_away = |event: &Event<Hotkey>| matches!(event, Event::TurnedAway { .. });
        block("somebody turned away", events.find(turned_away)).unwrap()
    };
    let here = Some(core::net::IpAddr::from([127, 0, 0, 1]));
    let hotkey = keys(1).hotkey();
    assert_eq!(post(hub.address(), &prediction(&keys(1), "p-1")).status, 403);
    let Event::TurnedAway { address, peer, why, text, untold } = next() else { unreachable!() };
    assert_eq!((address, peer, why, untold), (here, Some(hotkey), CloseReason::Unknown, 0));
    assert!(text.is_some(), "what the application said of it");
    let forged = prediction(&keys(1), "p-3").replace("p-3", "p-4");
    assert_eq!(post(hub.address(), &forged).status, 401);
    let Event::TurnedAway { address, why, .. } = next() else { unreachable!() };
    assert_eq!((address, why), (here, CloseReason::Impostor));
    let mut miner = Client::open(hub.address(), keys(1));
    miner.send(auth(&keys(1)));
    let refusal = miner.text();
    assert!(refusal.contains("error"), "{refusal}");
    assert_eq!(miner.closed().code, 1008);
    let Event::TurnedAway { address, peer, why, .. } = next() else { unreachable!() };
    assert_eq!((address, peer, why), (here, Some(hotkey), CloseReason::Unknown));
    // Many more: not all are told, but all are counted.
    let before: u64 = hub.counters().refused.iter().sum();
    for n in 0..60 {
        let status = post(hub.address(), &prediction(&keys(1), &format!("q-{n}"))).status;
        assert!(matches!(status, 403 | 429), "{status}");
    }
    assert_eq!(hub.counters().refused.iter().sum::<u64>(), before + 60);
    let mut told = 0;
    while let Some(Some(event)) = block("one told", smol::future::poll_once(events.next())) {
        told += u64::from(matches!(event, Event::TurnedAway { .. }));
    }
    assert!((1..50).contains(&told), "limited in rate: {told}");
}

#[test]
fn a_slow_or_failing_authorize_holds_up_nobody_else() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (hub, _) = hub_with(|setup| {
        setup.authorize(move |hotkey| {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                assert_ne!(hotkey, keys(2).hotkey(), "on purpose");
                if hotkey == keys(1).hotkey() {
                    core::future::pending::<()>().await;
                }
                Admission::accept()
            }
        })
    });
    let mut slow = Client::open(hub.address(), keys(1));
    let said = auth(&slow.keys);
    slow.send(said);
    until("the question", || asked.load(Ordering::Relaxed) == 1);
    assert!(Client::join(hub.address(), 3).predict("p").success());
    let mut failing = Client::open(hub.address(), keys(2));
    let said = auth(&failing.keys);
    failing.send(said);
    let closed = failing.closed();
    assert_eq!((closed.code, closed.reason.as_str()), (1013, "retry-after=5.0"));
    assert_eq!(slow.closed().code, 1013, "ten seconds later");
}

#[test]
fn our_own_miner_and_our_own_hub_understand_each_other() {
    let (hub, seen) = hub();
    let url = format!("ws://{}", hub.address());
    let miner = bowline_smol::Miner::start(bowline_smol::Setup::miner(&url, keys(1)).unwrap()).unwrap();
    let data = r#"{"prediction_id":"p-1","game_id":"g","home_score":3,"away_score":1}"#;
    let receipt = block("room", miner.predict(data)).unwrap();
    let end = block("the confirmation", receipt.settled());
    assert_eq!(end.outcome, Outcome::Delivered { path: bowline::Path::WebSocket });
    assert_eq!(receipt.reply().unwrap().message, "stored");
    until("the miner", || hub.health().connections == 1);
    hub.publish("game_update", r#"{"games":[1]}"#, Publish::DEFAULT).unwrap();
    let update = block("the update", miner.receive()).unwrap();
    assert_eq!(update.kind(), "game_update");
    update.complete();
    assert_eq!(*seen.lock().unwrap(), ["p-1"]);
    assert_eq!(miner.complaints().total, 0);
}

#[test]
fn encrypted_the_hub_is_the_same() {
    let authority = ca::Authority::new();
    let tls = ca::serve(ca::trust(&authority), &authority.here());
    let (hub, seen) = hub_with(|setup| setup.tls(&tls).unwrap());
    let start = |url: String, n| {
        let setup = bowline_smol::Setup::miner(&url, keys(n)).unwrap();
        bowline_smol::Miner::start(setup.tls(&ca::trust(&authority)).unwrap()).unwrap()
    };
    let miner = start(format!("wss://localhost:{}", hub.address().port()), 1);
    let receipts: Vec<_> =
        (0..20).map(|n| block("room", miner.predict(format!(r#"{{"prediction_id":"p-{n}"}}"#))).unwrap()).collect();
    for receipt in receipts {
        let end = block("the confirmation", receipt.settled());
        assert_eq!(end.outcome, Outcome::Delivered { path: bowline::Path::WebSocket });
    }
    assert_eq!(seen.lock().unwrap().len(), 20);
    until("the miner", || hub.health().connections == 1);
    let data = format!(r#"{{"games":["{}"]}}"#, "x".repeat(200_000));
    hub.publish("game_update", &data, Publish::DEFAULT).unwrap();
    assert!(block("the update", miner.receive()).unwrap().data().len() > 200_000);
    let plain = TcpStream::connect(hub.address()).unwrap();
    plain.set_read_timeout(Some(LIMIT)).unwrap();
    assert!(tungstenite::client(format!("ws://{}/ws", hub.address()), plain).is_err(), "not in the clear");
}

/// Whether the hub's end of a connection still belongs to a process; Linux tells.
#[cfg(target_os = "linux")]
fn is_open(hub: &Hub<Validator>, miner: &TcpStream) -> bool {
    let (local, remote) = (hub.address().port(), miner.local_addr().unwrap().port());
    let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
    std::fs::read_to_string("/proc/net/tcp").unwrap().lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].ends_with(&local) && fields[2].ends_with(&remote) && fields[9] != "0"
    })
}

#[test]
#[cfg(target_os = "linux")]
fn a_reader_that_stopped_holds_no_socket_once_its_connection_is_over() {
    let (hub, _) = hub();
    let stopped = Client::join(hub.address(), 1);
    socket2::SockRef::from(stopped.socket.get_ref()).set_recv_buffer_size(4096).unwrap();
    let data = format!(r#"{{"games":["{}"]}}"#, "x".repeat(256 * 1024));
    for _ in 0..40 {
        hub.publish("game_update", &data, Publish::DEFAULT).unwrap();
    }
    assert!(is_open(&hub, stopped.socket.get_ref()));
    hub.dismiss(keys(1).hotkey());
    until("the end of the connection", || hub.health().connections + hub.health().closing == 0);
    until("the end of the socket", || !is_open(&hub, stopped.socket.get_ref()));
}

#[test]
fn newcomers_at_a_slow_authorize_hold_up_no_request_of_whoever_is_known() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (hub, _) = hub_with(|setup| {
        setup.configure(|config| config.hello = Duration::from_secs(25)).authorize(move |hotkey| {
            count.fetch_add(1, Ordering::Relaxed);
            async move {
                if hotkey != keys(1).hotkey() {
                    core::future::pending::<()>().await;
                }
                Admission::accept()
            }
        })
    });
    let mut known = Client::join(hub.address(), 1);
    let newcomers: Vec<_> = (2..102)
        .map(|n| {
            let mut newcomer = Client::open(hub.address(), keys(n));
            let said = auth(&newcomer.keys);
            newcomer.send(said);
            newcomer
        })
        .collect();
    until("the questions", || asked.load(Ordering::Relaxed) == 65);
    assert_eq!(post(hub.address(), &prediction(&known.keys, "p-1")).status, 200);
    assert!(known.predict("p-2").success());
    // By whatever path they come, no more than 64 are asked about at once.
    let strangers: Vec<_> = (102..106)
        .map(|n| {
            let body = prediction(&keys(n), "p");
            let mut stream = TcpStream::connect(hub.address()).unwrap();
            let head = format!("POST /ws/messages HTTP/1.1\r\nHost: v\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert!(known.predict("p-3").success());
    assert_eq!(post(hub.address(), &prediction(&known.keys, "p-4")).status, 200);
    assert_eq!(asked.load(Ordering::Relaxed), 65);
    drop((newcomers, strangers));
}

/// Closed, it lets everybody go on.
fn gate() -> (smol::channel::Sender<()>, smol::channel::Receiver<()>) {
    smol::channel::bounded(1)
}

#[test]
fn a_place_that_others_leave_is_for_whoever_waits_also_behind_its_own_slow_message() {
    let (first, last) = (gate(), gate());
    let waits = [first.1, last.1];
    let (hub, seen) = hub_with(|setup| {
        setup.handle_at_once(16).on("odds", move |message| {
            let [first, last] = waits.clone();
            let kind: Value = message.json().unwrap();
            async move {
                match kind["wait"].as_str() {
                    Some("first") => drop(first.recv().await),
                    Some("last") => drop(last.recv().await),
                    _ => {}
                }
                Ok::<_, String>("stored")
            }
        })
    });
    let mut miners: Vec<_> = (1..10).map(|n| Client::join(hub.address(), n)).collect();
    let mut begun = 0;
    for (n, miner) in miners.iter_mut().enumerate() {
        let waits: &[_] = if n < 7 { &["first", "first"] } else { &["last"] };
        for (of, wait) in waits.iter().enumerate() {
            let odds = message(&miner.keys, "odds", &format!(r#"{{"prediction_id":"{of}","wait":"{wait}"}}"#));
            miner.send(odds);
            begun += 1;
        }
    }
    assert_eq!(begun, 16, "as many as there are places");
    until("all of them", || hub.health().held == 16);
    let one = &mut miners[8];
    let quick = prediction(&one.keys, "quick");
    one.send(quick);
    until("the one more", || hub.health().held == 17);
    assert!(seen.lock().unwrap().is_empty(), "there is no place");
    first.0.close();
    assert_eq!(one.expect("confirmation").data["prediction_id"], "quick");
    last.0.close();
    assert_eq!(one.expect("confirmation").data["prediction_id"], "0");
}

#[test]
fn a_miner_that_was_never_connected_gets_its_messages_where_authorize_says() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let receiver = Target::http(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let (hub, _) = hub_with(|setup| setup.authorize(move |_| Admission::Accept { receiver: Some(receiver.clone()) }));
    assert_eq!(post(hub.address(), &prediction(&keys(1), "p-1")).status, 200);
    let receipt = hub.send(keys(1).hotkey(), "game_update", r#"{"games":[7]}"#).unwrap();
    let (mut stream, body) = posted(&listener);
    assert_eq!(Said::read(&body).data["games"][0], 7);
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    let end = block("the settlement", receipt.settled());
    assert_eq!(end.outcome, Outcome::Delivered { path: bowline::Path::Http });
}

#[test]
fn a_slow_prediction_is_confirmed_however_many_come_and_go_meanwhile() {
    let go = Arc::new(gate());
    let waits = Arc::clone(&go);
    let (hub, _) = hub_with(|setup| {
        let setup = setup.configure(|config| {
            // Of 336 bytes each.
            config.session.inbox.bytes = 8 * 336;
            config.session.inbox.held = 4;
        });
        setup.on("prediction", move |message| {
            let data: Value = message.json().unwrap();
            let id = data["prediction_id"].as_str().unwrap().to_owned();
            let waits = Arc::clone(&waits);
            async move {
                if id == "slow" {
                    let _ = waits.1.recv().await;
                }
                if id.starts_with("bad") { Err("no such game") } else { Ok("stored") }
            }
        })
    });
    let mut miner = Client::join(hub.address(), 1);
    let slow = prediction(&miner.keys, "slow");
    miner.send(slow);
    for n in 0..20 {
        assert!(miner.predict(&format!("quick-{n}")).success());
    }
    assert!(!miner.predict("bad").success());
    go.0.close();
    let said = miner.expect("confirmation");
    assert_eq!((&said.data["prediction_id"], said.success()), (&"slow".into(), true));
    assert!(!miner.predict("bad").success(), "the same word again");
}

#[test]
fn a_reason_is_told_as_far_as_a_close_frame_reaches() {
    let (hub, _) = hub_with(|setup| setup.authorize(|_| Admission::Refuse("é-".repeat(100).into())));
    let mut miner = Client::open(hub.address(), keys(1));
    let said = auth(&miner.keys);
    miner.send(said);
    let refusal: Value = serde_json::from_str(&miner.text()).unwrap();
    assert_eq!(refusal["message"], "é-".repeat(100));
    let closed = miner.closed();
    assert_eq!((closed.code, closed.reason), (1008, "é-".repeat(40)));
}

#[test]
fn whoever_is_dismissed_while_authorize_is_asked_about_it_does_not_come_in() {
    let go = Arc::new(gate());
    let (waits, asked) = (Arc::clone(&go), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let (hub, seen) = hub_with(|setup| {
        setup.authorize(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            let waits = Arc::clone(&waits);
            async move {
                let _ = waits.1.recv().await;
                Admission::accept()
            }
        })
    });
    let mut miner = Client::open(hub.address(), keys(1));
    let said = auth(&miner.keys);
    miner.send(said);
    let (at, body) = (hub.address(), prediction(&keys(2), "p-1"));
    let poster = std::thread::spawn(move || post(at, &body));
    let mut other = Client::open(hub.address(), keys(3));
    let said = auth(&other.keys);
    other.send(said);
    until("the questions", || asked.load(Ordering::Relaxed) == 3);
    assert!(!hub.dismiss(keys(1).hotkey()) && !hub.dismiss(keys(2).hotkey()), "they have no sessions yet");
    go.0.close();
    assert_eq!(miner.closed().code, 1008);
    assert_eq!(poster.join().unwrap().status, 403);
    assert_eq!(other.envelope().kind, "welcome", "the others come in");
    assert_eq!((hub.health().sessions, seen.lock().unwrap().len()), (1, 0));
    // What was said before does not count for what is asked later.
    assert_eq!(post(hub.address(), &prediction(&keys(2), "p-2")).status, 200);
}
