//! A hub and a native peer that was written in Python from PROTOCOL.md alone, over real sockets.

#[path = "real/mod.rs"]
mod real;

use bowline_smol::hub::{Admission, Event, Hub, HubSetup, Publish, Rate, Refused, Village};
use core::time::Duration;
use real::LIMIT;
use real::peer::{self, Peer};
use serde_json::{Value, json};
use smol::stream::StreamExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

/// What the application saw of one peer.
#[derive(Default)]
struct Saw {
    up: Vec<u64>,
    retried: BTreeSet<u64>,
    gaps: Vec<(u64, Option<u64>)>,
}

#[derive(Default)]
struct Application {
    hub: OnceLock<Weak<Hub<Village>>>,
    saw: Mutex<BTreeMap<String, Saw>>,
}

impl Application {
    fn hub(&self) -> Option<Arc<Hub<Village>>> {
        self.hub.get()?.upgrade()
    }

    fn stat(&self, peer: &str) -> Value {
        let mut saw = self.saw.lock().unwrap();
        let saw = saw.entry(peer.to_owned()).or_default();
        let once: BTreeSet<_> = saw.up.iter().collect();
        let disordered = saw.up.windows(2).filter(|pair| pair[0] > pair[1]).count();
        json!({"got": once.len(), "doubled": saw.up.len() - once.len(), "disordered": disordered, "gaps": saw.gaps})
    }
}

/// The hub of an application that does what `native.py` asks for; it has plain peers, too.
fn hub(change: impl FnOnce(HubSetup<Village>) -> HubSetup<Village>) -> (Arc<Hub<Village>>, Arc<Application>) {
    let application = Arc::new(Application::default());
    let app = || Arc::clone(&application);
    let (up, reject, retry, slow, ask, publish, stat) = (app(), app(), app(), app(), app(), app(), app());
    let number = |data: &Value, name: &str| data[name].as_u64().unwrap_or_default();
    let setup = HubSetup::village("127.0.0.1:0")
        .unwrap()
        .native(|caller| match caller.auth.as_deref() {
            Some("no") => Admission::Refuse("not you".into()),
            _ => Admission::accept(),
        })
        .configure(|config| {
            config.per_address.handshakes = Rate::UNLIMITED;
            config.per_address.messages = Rate::UNLIMITED;
            config.per_identity.handshakes = Rate::UNLIMITED;
            config.per_identity.messages = Rate::UNLIMITED;
            config.handshakes = Rate::UNLIMITED;
        })
        .on("up", move |message| {
            let i = number(&message.json::<Value>().unwrap(), "i");
            up.saw.lock().unwrap().entry(message.peer().to_string()).or_default().up.push(i);
            async { Ok::<_, String>(()) }
        })
        .on("reject", move |_| {
            let _ = &reject;
            async { Err::<(), _>("never") }
        })
        .on("slow", move |message| {
            let _ = &slow;
            let ms = number(&message.json::<Value>().unwrap(), "ms");
            async move {
                smol::Timer::after(Duration::from_millis(ms)).await;
                Ok::<_, String>(())
            }
        })
        .on("ask", move |message| {
            let (n, peer, hub) = (number(&message.json::<Value>().unwrap(), "n"), message.peer().clone(), ask.hub());
            async move {
                let hub = hub.ok_or("over")?;
                smol::spawn(async move {
                    for i in 1..=n {
                        let data = json!({"i": i}).to_string();
                        while let Err(why) = hub.send(&peer, "down", &data) {
                            assert_eq!(why, Refused::Session(bowline::Refusal::Full));
                            smol::Timer::after(Duration::from_millis(1)).await;
                        }
                    }
                })
                .detach();
                Ok::<_, String>(())
            }
        })
        .on("publish", move |message| {
            let (data, hub) = (message.json::<Value>().unwrap(), publish.hub());
            async move {
                let hub = hub.ok_or("over")?;
                let topic = data["topic"].as_str().ok_or("no topic")?;
                for i in 1..=number(&data, "n") {
                    hub.publish_topic(topic, "tick", &json!({"i": i}).to_string()).map_err(|_| "refused")?;
                }
                Ok::<_, &str>(())
            }
        })
        .on("stat", move |message| {
            let (peer, hub, app) = (message.peer().clone(), stat.hub(), Arc::clone(&stat));
            async move {
                let said = app.stat(peer.as_str()).to_string();
                hub.ok_or("over")?.send(&peer, "stat", &said).map_err(|why| why.to_string())?;
                Ok::<_, String>(())
            }
        });
    let hub = Arc::new(Hub::start(change(setup)).unwrap());
    application.hub.set(Arc::downgrade(&hub)).unwrap();
    // What is given back once comes by the stream, where it can be given back.
    let (mut messages, mut events) = (hub.messages(), hub.events());
    smol::spawn(async move {
        while let Some(delivery) = messages.next().await {
            let again = retry.saw.lock().unwrap().entry(delivery.peer().to_string()).or_default().retried.insert(0);
            if again {
                delivery.retry(Duration::from_millis(1));
            } else {
                delivery.confirm(());
            }
        }
    })
    .detach();
    let told = app();
    smol::spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::Gap { peer, from, to } = event {
                told.saw.lock().unwrap().entry(peer.to_string()).or_default().gaps.push((from, to));
            }
        }
    })
    .detach();
    (hub, application)
}

/// Runs a scenario to its end.
#[track_caller]
fn run(hub: &Hub<Village>, arguments: &[&str]) -> Option<Peer> {
    let mut peer = peer::python_at("native.py", hub.address().port(), arguments)?;
    peer.saw_within("end", 4 * LIMIT);
    Some(peer)
}

#[test]
fn r1_r2_r9_a_session_is_resumed_and_only_what_is_missing_crosses_again() {
    let (hub, _) = hub(|setup| setup);
    let Some(mut peer) = run(&hub, &["resume"]) else { return };
    assert_eq!(peer.saw("replaced")["code"], 4003, "R8");
}

#[test]
fn r2_each_of_the_six_reasons() {
    let (hub, _) = hub(|setup| {
        setup.configure(|config| {
            config.tolerance = Duration::from_millis(100);
            config.ttl = Duration::from_millis(1500);
        })
    });
    let Some(mut peer) = run(&hub, &["refusals", "3000"]) else { return };
    let asked: Vec<_> = (0..9).map(|_| peer.saw("refusal")["reason"].as_str().unwrap().to_owned()).collect();
    let all = ["unknown_session", "expired", "gap", "ahead", "ahead", "epoch", "identity", "auth", "horizon"];
    assert_eq!(asked, all);
}

#[test]
fn r5_what_is_gone_is_told_with_its_numbers() {
    let (hub, _) = hub(|setup| setup);
    run(&hub, &["gap"]);
}

#[test]
fn s9_both_ways_over_twenty_cuts_in_order_none_lost_none_doubled() {
    let (hub, _) = hub(|setup| setup);
    let Some(mut peer) = run(&hub, &["both-ways", "1000", "20", "10"]) else { return };
    let saw = peer.saw("both-ways");
    assert_eq!((&saw["got"], &saw["reconnected"]), (&json!(1000), &json!(20)), "{saw}");
}

#[test]
fn h1_h2_h3_by_http_alone() {
    let (hub, _) = hub(|setup| setup);
    run(&hub, &["http", "20"]);
}

#[test]
fn u4_topics_with_their_history() {
    let (hub, _) = hub(|setup| setup);
    run(&hub, &["topics", "40"]);
}

#[test]
fn s7_hostile_peers_are_ended_and_others_served() {
    let (hub, _) = hub(|setup| setup);
    let Some(mut peer) = run(&hub, &["hostile"]) else { return };
    let mut ended = BTreeMap::new();
    for _ in 0..20 {
        let line = peer.saw("ended");
        ended.insert(line["attack"].as_str().unwrap().to_owned(), line["code"].as_u64());
    }
    let code = |attack: &str| ended[attack];
    for attack in ["no-hello", "no-version", "large-auth", "long-cid"] {
        assert_eq!(code(attack), Some(1008), "{attack}");
    }
    for attack in ["no-json", "binary", "an-array", "wrong-kinds", "maps", "deep"] {
        assert_eq!(code(attack), Some(1002), "{attack}: sixteen malformed frames");
    }
    for attack in ["never-sent-cum", "never-sent-sack", "never-sent-nack"] {
        assert_eq!(code(attack), Some(1002), "S7: {attack}");
    }
    assert_eq!(code("oversize"), Some(1009));
    assert_eq!(code("unknown-types"), None, "they are ignored");
}

/// A WebSocket of nobody's library but tungstenite's.
fn dial(hub: &Hub<Village>, path: &str, subprotocol: Option<&str>) -> WebSocket<TcpStream> {
    let mut request = format!("ws://{}{path}", hub.address()).into_client_request().unwrap();
    if let Some(subprotocol) = subprotocol {
        request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
    }
    let stream = TcpStream::connect(hub.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    tungstenite::client(request, stream).unwrap().0
}

/// The next frame of this type.
fn next(socket: &mut WebSocket<TcpStream>, kind: &str) -> Value {
    loop {
        if let Message::Text(text) = socket.read().unwrap() {
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] == kind {
                return frame;
            }
        }
    }
}

#[test]
fn n1_a_plain_peer_and_a_native_one_at_one_hub_hear_of_the_same_topic() {
    let (hub, _) = hub(|setup| setup);
    let mut plain = dial(&hub, "/ws", None);
    next(&mut plain, "connection_established");
    // On the plain peers' path, too: it is the subprotocol that says who is native.
    let mut native = dial(&hub, "/ws", Some("bowline.1"));
    let hello = r#"{"type":"hello","v":1,"cid":"seven","origin":"0000000009af","epoch":3,"resume":false,"tx":{"next":1,"una":1},"win":64,"max_life":1000,"order":true}"#;
    native.send(Message::text(hello)).unwrap();
    assert_eq!(next(&mut native, "welcome")["resumed"], false);
    native.send(Message::text(r#"{"type":"subscribe","topic":"training"}"#)).unwrap();
    assert_eq!(next(&mut native, "subscribed")["ok"], true);
    let sent = hub.publish_topic("training", "training_progress", r#"{"progress":0.5}"#).unwrap();
    assert_eq!(sent.reached, 2);
    let (one, other) = (next(&mut plain, "training_progress"), next(&mut native, "event"));
    assert_eq!(one["data"], other["data"]);
    assert_eq!(
        (&other["kind"], &other["topic"], &other["offset"]),
        (&json!("training_progress"), &json!("training"), &json!(1))
    );
    assert_eq!(one.as_object().unwrap().len(), 5, "a plain peer gets the five keys it knows");
    let everybody = hub.publish("status_update", r#"{"status":"fine"}"#, Publish::DEFAULT).unwrap();
    assert_eq!(everybody.reached, 2);
    assert_eq!(next(&mut plain, "status_update")["data"]["status"], "fine");
    assert_eq!(next(&mut native, "event")["topic"], "*", "a broadcast");
}
