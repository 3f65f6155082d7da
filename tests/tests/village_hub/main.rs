//! AI Village's hub over real sockets: viewers of our own, Python's `websockets`, Node's `ws`. Each weakness of the original
//! (wire facts 3.3 and 3.6) has a test with its number.

#[path = "../real/mod.rs"]
mod real;
mod viewer;

use bowline::Reason;
use bowline::wire::aivillage::{Event, Json};
use bowline_smol::hub::{self, Hub, HubSetup, Name, Rate, Start, TopicFilter, Village};
use core::time::Duration;
use real::peer::{self, Peer};
use serde_json::{Value, json};
use smol::stream::StreamExt as _;
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tungstenite::{Bytes, Message};
use viewer::{LIMIT, Viewer};

fn hub() -> Hub<Village> {
    hub_with(|setup| setup)
}

fn hub_with(change: impl FnOnce(HubSetup<Village>) -> HubSetup<Village>) -> Hub<Village> {
    let setup = HubSetup::village("127.0.0.1:0").unwrap().configure(|config| {
        config.per_address.handshakes = Rate::UNLIMITED;
        config.handshakes = Rate::UNLIMITED;
    });
    Hub::start(change(setup)).unwrap()
}

/// Pings every tenth of a second, and who says nothing for so long is dead.
fn lively(setup: HubSetup<Village>, dead: Duration) -> HubSetup<Village> {
    setup.configure(|config| {
        config.session.heartbeat.interval = Duration::from_millis(100);
        config.session.heartbeat.dead = dead;
    })
}

fn progress(epoch: u64) -> Event<'static> {
    Event::TrainingProgress {
        session_id: "sess-1".into(),
        progress: Some(0.5),
        current_epoch: Some(epoch),
        loss: Some(0.0123),
        metrics: Json::parse(r#"{"accuracy":0.91}"#).unwrap(),
        estimated_time_remaining: Some(1.5),
    }
}

fn epochs(frames: &[Value]) -> Vec<u64> {
    let progress = frames.iter().filter(|frame| frame["type"] == "training_progress");
    progress.map(|frame| frame["data"]["current_epoch"].as_u64().unwrap()).collect()
}

fn block<T>(what: &str, future: impl Future<Output = T>) -> T {
    let late = async {
        smol::Timer::after(LIMIT).await;
        panic!("{what} did not come")
    };
    smol::block_on(smol::future::or(future, late))
}

/// Waits for what the hub does by itself.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

const KEYS: [&str; 5] = ["type", "data", "timestamp", "connection_id", "target_connections"];

/// The keys of a frame in the order in which they came.
fn keys(text: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(text).unwrap();
    let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    keys.sort_by_key(|key| text.rfind(&format!("\"{key}\":")));
    keys
}

#[test]
fn a_viewer_is_greeted_at_once_and_gets_the_topics_of_its_path() {
    let hub = hub();
    let mut viewer = Viewer::try_open(hub.address(), "/ws").unwrap();
    let greeting = viewer.next().unwrap();
    assert_eq!(keys(&greeting), [&KEYS[..], &["client_id"]].concat(), "the last is the siblings' (N3)");
    let greeting: Value = serde_json::from_str(&greeting).unwrap();
    let id = greeting["connection_id"].as_str().unwrap();
    assert_eq!((&greeting["type"], &greeting["data"]["connection_id"]), (&json!("connection_established"), &json!(id)));
    assert_eq!((id.len(), &greeting["target_connections"]), (36, &Value::Null));
    assert_eq!(greeting["data"]["features"].as_array().unwrap().len(), 6);

    let (mut fog, _) = Viewer::join(hub.address(), "/ws/p2p-fog");
    assert_eq!(hub.publish_event(&progress(1)).unwrap().reached, 1);
    assert_eq!(hub.publish_topic("fog", "fog_resources", r#"{"resources":{}}"#).unwrap().reached, 1);
    let said = viewer.next().unwrap();
    assert_eq!(keys(&said), KEYS, "who asked for no position gets none");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["type"], &said["connection_id"]), (&json!("training_progress"), &json!(id)));
    assert_eq!(said["data"]["metrics"], json!({"accuracy": 0.91}));
    assert_eq!(fog.frame()["type"], "fog_resources");
    assert_eq!((viewer.all().len(), fog.all().len()), (0, 0), "and nothing else");
}

#[test]
fn the_topics_of_a_path_are_a_setting() {
    let filter = |text| TopicFilter::new(text).unwrap();
    let hub = hub_with(|setup| setup.auto_subscribe("/ws", [filter("training.*"), filter("models")]).unwrap());
    let (mut viewer, _) = Viewer::join(hub.address(), "/ws");
    hub.publish_topic("training", "custom", r#"{"n":1}"#).unwrap();
    hub.publish_topic("training.run-7", "custom", r#"{"n":2}"#).unwrap();
    let got = viewer.all();
    assert_eq!((got.len(), &got[0]["data"]["n"]), (1, &json!(2)));
    assert!(HubSetup::village("127.0.0.1:0").unwrap().auto_subscribe("/elsewhere", []).is_err());
}

#[test]
fn subscribe_and_unsubscribe_work_and_are_answered_in_the_words_they_came_in() {
    let hub = hub();
    let (mut viewer, id) = Viewer::join(hub.address(), "/ws");
    let said = viewer.ask(r#"{"type":"subscribe","topic":"fog"}"#, "custom");
    assert_eq!(said["data"], json!({"type": "subscription_response", "topic": "fog", "success": true}));
    assert_eq!(said["connection_id"], json!(id));
    let said = viewer.ask(r#"{"type":"subscribe","channel":"system_metrics"}"#, "subscription_confirmed");
    assert_eq!(said, json!({"type": "subscription_confirmed", "channel": "system_metrics"}));
    let sent = |topic| hub.publish_topic(topic, "custom", "{}").unwrap().reached;
    assert_eq!((sent("fog"), sent("system_metrics"), sent("p2p")), (1, 1, 0));
    assert_eq!(viewer.all().len(), 2);

    let said = viewer.ask(r#"{"type":"unsubscribe","topic":"fog"}"#, "custom");
    assert_eq!(said["data"], json!({"type": "unsubscription_response", "topic": "fog", "success": true}));
    let said = viewer.ask(r#"{"type":"unsubscribe","channel":"system_metrics"}"#, "unsubscription_confirmed");
    assert_eq!(said["channel"], "system_metrics");
    let said = viewer.ask(r#"{"type":"unsubscribe","topic":"fog"}"#, "custom");
    assert_eq!(said["data"]["success"], false, "it was not subscribed any more");
    assert_eq!((sent("fog"), sent("system_metrics")), (0, 0));
    // What it gets without asking it can do without, too.
    viewer.ask(r#"{"type":"unsubscribe","topic":"training"}"#, "custom");
    assert_eq!(hub.publish_event(&progress(1)).unwrap().reached, 0);

    let said = viewer.ask(r#"{"type":"subscribe","topic":"a..b"}"#, "custom");
    assert_eq!(said["data"]["success"], false, "no topic can have that name");
    let said = viewer.ask(r#"{"type":"subscribe","topic":"training.**"}"#, "custom");
    assert_eq!(said["data"]["success"], true);
    assert_eq!(sent("training.run-7.loss"), 1);
    assert_eq!(
        viewer.ask(r#"{"type":"subscribe"}"#, "error")["data"]["error"],
        "a topic that is missing or not a string of 1 to 64 bytes"
    );
}

#[test]
fn a_sibling_s_viewer_is_told_how_it_stands() {
    let hub = hub();
    let (mut viewer, id) = Viewer::join(hub.address(), "/ws");
    let _other = Viewer::join(hub.address(), "/ws/p2p-fog");
    viewer.ask(r#"{"type":"subscribe","channel":"system_metrics"}"#, "subscription_confirmed");
    viewer.ask(r#"{"type":"unsubscribe","channel":"models"}"#, "unsubscription_confirmed");
    let mut said = viewer.ask(r#"{"type":"get_status"}"#, "status");
    let since = said["connected_at"].take();
    assert_eq!(since.as_str().map(|since| &since[..2]), Some("20"), "{since}");
    let topics = ["system", "system_metrics", "training"];
    let expected = json!({
        "type": "status", "client_id": id, "subscriptions": topics, "connected_at": null, "total_clients": 2
    });
    assert_eq!(said, expected);
}

/// As `phase-monitor.js` and `AgentForgeControl.tsx` do: they subscribe to channels, and look at `type` and what lies beside
/// it. Whoever says `topic` gets envelopes at the same time, of the same events.
#[test]
fn n3_everybody_is_spoken_to_in_the_dialect_that_its_interface_reads() {
    let hub = hub();
    let mut interface = Viewer::try_open(hub.address(), "/ws").unwrap();
    let greeting = interface.frame();
    assert_eq!(greeting["client_id"], greeting["connection_id"], "before it says anything it is greeted in both");
    let (mut service, id) = Viewer::join(hub.address(), "/ws");
    for channel in ["agent_forge_phases", "system_metrics", "model_updates"] {
        let asked = json!({"type": "subscribe", "channel": channel}).to_string();
        let said = interface.ask(&asked, "subscription_confirmed");
        assert_eq!(said, json!({"type": "subscription_confirmed", "channel": channel}));
        service.ask(&json!({"type": "subscribe", "topic": channel}).to_string(), "custom");
    }
    let phase = json!({"phase_name": "EvoMerge", "status": "running", "progress": 0.25, "message": "m"});
    let update = json!({"model_id": "m-1", "event_type": "created", "data": {"size": 1}, "channel": "theirs"});
    let metrics = json!({"metrics": {"cpu_usage": 45.2}, "type": "of the data"});
    for (channel, kind, data) in [
        ("agent_forge_phases", "phase_update", &phase),
        ("model_updates", "model_update", &update),
        ("system_metrics", "system_metrics", &metrics),
    ] {
        assert_eq!(hub.publish_topic(channel, kind, &data.to_string()).unwrap().reached, 2);
        let mut expected = data.clone();
        expected["type"] = json!(kind);
        expected["channel"] = json!(channel);
        let mut said = interface.frame();
        assert!(said.as_object_mut().unwrap().remove("timestamp").is_some_and(|at| at.is_string()), "{said}");
        assert_eq!(said, expected);
        let said = service.frame();
        assert_eq!((&said["type"], &said["data"], &said["connection_id"]), (&json!(kind), data, &json!(id)));
    }
    let pong = interface.ask(r#"{"type":"ping"}"#, "pong");
    assert!(pong["timestamp"].is_string() && pong["data"].is_null(), "{pong}");
    assert_eq!(interface.ask("{nope", "error"), json!({"type": "error", "message": "Invalid JSON"}));
    let name: Name = greeting["client_id"].as_str().unwrap().parse().unwrap();
    hub.send(&name, "chat_response", r#"{"text":"hello"}"#).unwrap();
    assert_eq!(interface.expect("chat_response")["text"], "hello", "what is for it alone, too");
    // Both names are the service's word, because only our own viewer says both; a later word counts.
    let both = r#"{"type":"subscribe","topic":"fog","channel":"fog"}"#;
    assert_eq!(interface.ask(both, "custom")["data"]["success"], true);
    assert!(interface.ask(r#"{"type":"ping"}"#, "pong")["data"].is_object());
    // A word about how it stands is a sibling's.
    assert_eq!(service.ask(r#"{"type":"get_status"}"#, "status")["client_id"], json!(id));
    assert_eq!(service.ask("{nope", "error"), json!({"type": "error", "message": "Invalid JSON"}));
}

/// An interface may ask for what it missed like everybody else, and reads it as it reads the rest.
#[test]
fn n3_positions_and_gaps_are_flat_for_whoever_reads_flat_frames() {
    let hub = hub_with(|setup| setup.configure(|config| config.topics.history = 2));
    (1..=4).for_each(|n| {
        assert_eq!(hub.publish_topic("phases", "phase_update", &format!(r#"{{"n":{n}}}"#)).unwrap().refused, 0)
    });
    let (mut interface, _) = Viewer::join(hub.address(), "/ws");
    interface.ask(r#"{"type":"subscribe","channel":"phases","since":"oldest"}"#, "subscription_confirmed");
    let got = interface.all();
    let positions: Vec<_> =
        got.iter().map(|frame| (frame["n"].as_u64(), frame["position"]["offset"].as_u64())).collect();
    assert_eq!(positions, [(Some(3), Some(3)), (Some(4), Some(4))]);
    let since = json!({"epoch": got[0]["position"]["epoch"], "offset": 1});
    drop(interface);
    let (mut again, _) = Viewer::join(hub.address(), "/ws");
    let asked = json!({"type": "subscribe", "channel": "phases", "since": since});
    again.ask(&asked.to_string(), "subscription_confirmed");
    let gap = again.frame();
    assert_eq!(
        (&gap["type"], &gap["topic"], &gap["from"], &gap["to"]),
        (&json!("gap"), &json!("phases"), &json!(2), &json!(2))
    );
}

/// What the original answers to any `custom` message, made of the trainings that were published; it could not write the date.
#[test]
fn who_asks_how_the_trainings_stand_is_answered_as_by_the_original() {
    let hub = hub();
    let (mut viewer, id) = Viewer::join(hub.address(), "/ws");
    let ask = |viewer: &mut Viewer, frame: &str| {
        viewer.send(frame);
        loop {
            let said = viewer.frame();
            if said["type"] == "status_update" {
                return said;
            }
        }
    };
    let asked = r#"{"type":"custom","data":{"request":"training_status"}}"#;
    let said = ask(&mut viewer, asked);
    let nothing = json!({"type": "training_status", "active_sessions": [], "session_details": {}});
    assert_eq!((&said["data"], &said["connection_id"]), (&nothing, &json!(id)));
    let started = |name: &'static str| Event::TrainingStarted {
        session_id: name.into(),
        parameters: Json::parse(r#"{"epochs":10}"#).unwrap(),
        estimated_duration: None,
        model_type: None,
    };
    for name in ["sess-1", "sess-2"] {
        hub.publish_event(&started(name)).unwrap();
    }
    hub.publish_event(&progress(1)).unwrap();
    // Without a type it is one, too.
    let mut said = ask(&mut viewer, r#"{"data":{"x":1}}"#);
    let details = &mut said["data"]["session_details"];
    for name in ["sess-1", "sess-2"] {
        let at = details[name]["started_at"].take();
        assert!(at.as_str().is_some_and(|at| at.starts_with("20") && at.contains('T')), "{at}");
    }
    let detail = |progress: f64| json!({"started_at": null, "parameters": {"epochs": 10}, "progress": progress});
    assert_eq!(*details, json!({"sess-1": detail(0.5), "sess-2": detail(0.0)}));
    assert_eq!(said["data"]["active_sessions"], json!(["sess-1", "sess-2"]));
    let error = Event::TrainingError { session_id: "sess-1".into(), error: "".into(), traceback: None };
    hub.publish_event(&error).unwrap();
    // By whichever call it is published.
    hub.publish_topic("training", "training_completed", r#"{"session_id":"sess-2"}"#).unwrap();
    assert_eq!(ask(&mut viewer, asked)["data"], nothing);
    // However many there are, and whatever they begin with.
    let long = format!(r#"{{"x":"{}"}}"#, "x".repeat(8000));
    for n in 0..200 {
        let data = json!({"session_id": format!("t-{n}"), "parameters": serde_json::from_str::<Value>(&long).unwrap()});
        hub.publish_topic("elsewhere", "training_started", &data.to_string()).unwrap();
    }
    let said = ask(&mut viewer, asked);
    assert_eq!(said["data"]["active_sessions"].as_array().unwrap().len(), 64);
    assert_eq!(said["data"]["session_details"]["t-199"]["parameters"], Value::Null);
    assert_eq!(said["data"]["session_details"]["t-135"], Value::Null, "it began before the last 64");
    // In the words of whoever asks.
    viewer.ask(r#"{"type":"subscribe","channel":"training"}"#, "subscription_confirmed");
    viewer.send(asked);
    assert!(viewer.expect("training_status")["active_sessions"].is_array());
}

#[test]
fn subscriptions_are_bounded() {
    let hub = hub_with(|setup| setup.configure(|config| config.topics.per_session = 5));
    let (mut viewer, _) = Viewer::join(hub.address(), "/ws");
    let ask = |viewer: &mut Viewer, n: u32| {
        viewer.ask(&format!(r#"{{"type":"subscribe","topic":"t-{n}"}}"#), "custom")["data"]["success"].clone()
    };
    let granted: Vec<_> = (0..4).map(|n| ask(&mut viewer, n)).collect();
    assert_eq!(granted, [true, true, false, false], "three came with the path");
}

#[test]
fn ping_is_answered_and_what_nobody_knows_is_ignored() {
    let hub = hub();
    let (mut viewer, id) = Viewer::join(hub.address(), "/ws");
    let pong = viewer.ask(r#"{"type":"ping"}"#, "pong");
    assert!(pong["data"]["server_time"].is_string());
    assert_eq!(pong["connection_id"], json!(id));
    viewer.send(r#"{"type":"make_coffee"}"#);
    viewer.send(r#"{"type":"pong"}"#);
    viewer.send(r#"{"type":"authenticate","token":"x"}"#);
    viewer.send(r#"{"type":"status_update","data":{}}"#);
    assert_eq!(viewer.all(), [Value::Null; 0]);
}

#[test]
fn the_hub_pings_in_json_and_on_the_websocket() {
    let hub = hub_with(|setup| lively(setup, LIMIT));
    let mut viewer = Viewer::try_open(hub.address(), "/ws").unwrap();
    let (mut app, mut protocol) = (0, 0);
    while app < 2 || protocol < 2 {
        match viewer.socket.read().unwrap() {
            Message::Text(text) => {
                app += usize::from(text.as_str().starts_with(r#"{"type":"ping","data":{"server_time":""#))
            }
            Message::Ping(_) => protocol += 1,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn bad_json_is_answered_and_costs_the_connection_only_when_nothing_else_comes() {
    let hub = hub();
    let (mut viewer, _) = Viewer::join(hub.address(), "/ws");
    let mut messages = hub.messages();
    for _ in 0..3 {
        for _ in 0..15 {
            assert_eq!(viewer.ask("{nope", "error")["data"], json!({"error": "Invalid JSON"}));
        }
        viewer.send(r#"{"type":"start_training"}"#);
        assert!(block("the message", messages.next()).unwrap().confirm(()));
        assert_eq!(viewer.all(), [Value::Null; 0], "it stays");
    }
    for _ in 0..16 {
        viewer.send("{nope");
    }
    let closed = loop {
        if let Err(closed) = viewer.next() {
            break closed;
        }
    };
    assert_eq!(closed.code, 1002, "{closed:?}");
    assert_eq!(hub.counters().malformed, 45 + 16);
}

/// Wire facts 3.3: as many connections and messages as anybody likes, 16 MiB each, and every end is 1000 without a reason.
#[test]
fn w3_3_what_is_too_much_is_not_taken_and_the_end_says_why() {
    let hub = hub_with(|setup| {
        setup.configure(|config| {
            config.per_address_connections = 2;
            config.per_identity.messages = Rate { per_second: 1, burst: 20 };
        })
    });
    let (mut loud, _) = Viewer::join(hub.address(), "/ws");
    let (mut long, _) = Viewer::join(hub.address(), "/ws");
    let refused = Viewer::try_open(hub.address(), "/ws").err();
    assert!(matches!(refused, Some((429 | 503, Some(_)))), "{refused:?}");
    for _ in 0..30 {
        loud.send(r#"{"type":"ping"}"#);
    }
    assert_eq!(loud.expect("error")["data"]["error"], "Too many messages");
    long.send(&format!(r#"{{"type":"custom","data":{{"x":"{}"}}}}"#, "x".repeat(64 * 1024)));
    let closed = long.next().unwrap_err();
    assert_eq!((closed.code, closed.reason.is_empty()), (1009, false), "{closed:?}");
}

#[test]
fn weakness_1_what_was_missed_comes_from_history_or_a_gap_says_so() {
    let hub = hub_with(|setup| setup.configure(|config| config.topics.history = 8));
    let (mut first, _) = Viewer::join(hub.address(), "/ws");
    let said = first.ask(r#"{"type":"subscribe","topic":"training","since":"oldest"}"#, "custom");
    assert_eq!(said["data"]["success"], true);
    hub.publish_event(&progress(1)).unwrap();
    let last = first.frame();
    let at = last["position"].clone();
    assert_eq!((&at["topic"], &at["offset"]), (&json!("training"), &json!(1)));
    assert_eq!(last.as_object().unwrap().len(), 6, "the five keys and ours");
    drop(first);
    (2..=5).for_each(|n| assert_eq!(hub.publish_event(&progress(n)).unwrap().dropped, 0));

    // It comes back and says what it has.
    let since = json!({"epoch": at["epoch"], "offset": at["offset"]});
    let again = json!({"type": "subscribe", "topic": "training", "since": since}).to_string();
    let (mut second, _) = Viewer::join(hub.address(), "/ws");
    second.ask(&again, "custom");
    let got = second.all();
    assert_eq!(epochs(&got), [2, 3, 4, 5]);
    let offsets: Vec<_> = got.iter().filter_map(|frame| frame["position"]["offset"].as_u64()).collect();
    assert_eq!(offsets, [2, 3, 4, 5]);

    // More than history holds: what is gone is named, and the rest comes.
    drop(second);
    (6..=20).for_each(|n| assert_eq!(hub.publish_event(&progress(n)).unwrap().refused, 0));
    let (mut third, _) = Viewer::join(hub.address(), "/ws");
    third.ask(&again, "custom");
    let got = third.all();
    let gap = json!({"type": "gap", "topic": "training", "epoch": at["epoch"], "from": 2, "to": 12});
    assert_eq!(got[0]["data"], gap);
    assert_eq!(epochs(&got), (13..=20).collect::<Vec<_>>());

    // A position of another life of the hub: nobody can say how much is gone, and all there is comes.
    let (mut stranger, _) = Viewer::join(hub.address(), "/ws");
    stranger.ask(r#"{"type":"subscribe","topic":"training","since":{"epoch":1,"offset":999}}"#, "custom");
    let got = stranger.all();
    assert_eq!((&got[0]["data"]["type"], &got[0]["data"]["to"]), (&json!("gap"), &json!(12)));
    assert_eq!(epochs(&got), (13..=20).collect::<Vec<_>>());
    // Others keep getting what they always got.
    let (mut plain, _) = Viewer::join(hub.address(), "/ws");
    hub.publish_event(&progress(21)).unwrap();
    assert_eq!(plain.frame().as_object().unwrap().len(), 5);
}

#[test]
fn weakness_2_one_who_stops_reading_delays_nobody() {
    let hub = hub();
    let (_stopped, _) = Viewer::join(hub.address(), "/ws");
    let (mut reader, _) = Viewer::join(hub.address(), "/ws");
    let padding = "x".repeat(16 * 1024);
    // Far more than all buffers between the hub and the one that does not read.
    for n in 0..1024 {
        let sent = hub.publish_topic("training", "custom", &format!(r#"{{"n":{n},"padding":"{padding}"}}"#)).unwrap();
        assert_eq!(sent.reached, 2);
        assert_eq!(reader.expect("custom")["data"]["n"], n, "each at once, in order, none left out");
    }
    // Its share of memory is the history that all have in common.
    let held: u32 = hub.topics().iter().map(|topic| topic.held).sum();
    assert_eq!(held, 256);
}

#[test]
fn weakness_3_a_custom_message_in_an_active_training_is_answered_and_ends_nothing() {
    let place = Arc::new(Mutex::new(None::<Arc<Hub<Village>>>));
    let known = Arc::clone(&place);
    let hub = Arc::new(hub_with(|setup| {
        setup.on("custom", move |message| {
            let hub = known.lock().unwrap().clone().unwrap();
            // What the original could not write: the beginning of a session is a date.
            let status = r#"{"type":"training_status","active_sessions":["sess-1"],"session_details":{"sess-1":{"started_at":"2026-11-20T22:11:27"}}}"#;
            let sent = hub.send(message.peer(), "status_update", status).map(|_| ());
            async move { sent.map_err(|why| why.to_string()) }
        })
    }));
    *place.lock().unwrap() = Some(Arc::clone(&hub));
    let (mut viewer, _) = Viewer::join(hub.address(), "/ws");
    hub.publish_event(&progress(1)).unwrap();
    for asked in [r#"{"type":"custom","data":{"request":"training_status"}}"#, r#"{"data":{"x":1}}"#] {
        let status = viewer.ask(asked, "status_update");
        assert_eq!(status["data"]["active_sessions"], json!(["sess-1"]));
    }
    hub.publish_event(&progress(2)).unwrap();
    assert_eq!(epochs(&viewer.all()), [2]);
    place.lock().unwrap().take();
}

#[test]
fn weakness_4_a_binary_frame_is_answered_and_ends_nothing() {
    let hub = hub();
    let (mut viewer, _) = Viewer::join(hub.address(), "/ws");
    viewer.socket.send(Message::Binary(Bytes::from_static(br#"{"type":"ping"}"#))).unwrap();
    assert_eq!(viewer.expect("error")["data"]["error"], "Invalid JSON");
    hub.publish_event(&progress(1)).unwrap();
    assert_eq!(epochs(&viewer.all()), [1]);
    assert_eq!(hub.health().connections, 1);
}

#[test]
fn weakness_5_nothing_is_left_of_who_has_gone_however() {
    let hub = hub();
    for n in 0..60 {
        let (mut viewer, _) = Viewer::join(hub.address(), "/ws");
        match n % 5 {
            0 => viewer.socket.close(None).unwrap(),
            // With something unread: a reset.
            1 => hub.publish_event(&progress(n)).map(drop).unwrap(),
            2 => viewer.send("{nope"),
            3 => viewer.socket.get_mut().write_all(&[0xff; 64]).unwrap(),
            _ => viewer.socket.get_mut().write_all(&[0x81, 0xfe]).unwrap(),
        }
    }
    until("somebody is left", || hub.health().connections == 0 && hub.health().sessions == 0);
    let topics = hub.topics();
    assert_eq!(topics.iter().map(|topic| topic.subscribers).sum::<u32>(), 0, "{topics:?}");
    assert_eq!(hub.publish_event(&progress(1)).unwrap().reached, 0);
}

#[test]
fn weakness_6_a_dead_viewer_is_found_and_one_who_only_listens_stays() {
    let dead_after = Duration::from_millis(600);
    let hub = hub_with(|setup| lively(setup, dead_after));
    let mut events = hub.events();
    // It answers nothing, not even on the WebSocket.
    let (_dead, dead) = Viewer::join(hub.address(), "/ws");
    // It says nothing of its own; its library answers pings.
    let (mut listener, listens) = Viewer::join(hub.address(), "/ws");
    let started = Instant::now();
    let mut pings = 0;
    while started.elapsed() < 5 * dead_after {
        pings += u32::from(listener.frame()["type"] == "ping");
    }
    assert!(pings > 10, "{pings}");
    let gone = block("the end", async {
        loop {
            if let Some(hub::Event::Disconnected { peer, reason, .. }) = events.next().await {
                return (peer.to_string(), reason);
            }
        }
    });
    assert_eq!(gone, (dead, Reason::Dead));
    let stays: Vec<_> = hub.sessions().into_iter().map(|session| session.peer.to_string()).collect();
    assert_eq!(stays, [listens]);
}

#[test]
fn weakness_7_a_herd_is_told_to_spread_its_return() {
    let hub = hub();
    let mut viewers: Vec<_> = (0..20).map(|_| Viewer::join(hub.address(), "/ws").0).collect();
    let address = hub.address();
    let draining = std::thread::spawn(move || {
        let abandoned = smol::block_on(hub.drain(Duration::from_secs(20), LIMIT));
        (abandoned, hub)
    });
    let told: BTreeSet<String> = viewers
        .iter_mut()
        .map(|viewer| {
            loop {
                match viewer.next() {
                    Ok(_) => {}
                    Err(closed) => {
                        assert_eq!(closed.code, 1012);
                        break closed.reason;
                    }
                }
            }
        })
        .collect();
    assert!(told.iter().all(|reason| reason.starts_with("retry-after=")), "{told:?}");
    assert!(told.len() > 10, "{told:?}");
    let late: BTreeSet<_> = (0..3).filter_map(|_| Viewer::try_open(address, "/ws").err()).collect();
    assert!(late.iter().all(|(status, after)| *status == 503 && after.is_some()), "{late:?}");
    assert!(!late.is_empty());
    drop(viewers);
    let (abandoned, _hub) = draining.join().unwrap();
    assert_eq!(abandoned, 0);
}

#[test]
fn the_application_subscribes_whom_it_likes_and_is_told_who_is_there() {
    let hub = hub_with(|setup| setup.configure(|config| config.topics.presence = true));
    let mut events = hub.events();
    let (mut viewer, id) = Viewer::join(hub.address(), "/ws");
    let name: Name = id.parse().unwrap();
    assert_eq!(hub.subscribe(&name, "alerts", Start::Now), Ok(1));
    assert_eq!(hub.publish_topic("alerts", "status_update", "{}").unwrap().reached, 1);
    assert_eq!(viewer.frame()["type"], "status_update");
    assert!(hub.unsubscribe(&name, "alerts") && !hub.unsubscribe(&name, "alerts"));
    assert!(hub.subscribe("nobody".parse::<Name>().unwrap(), "alerts", Start::Now).is_err());
    let seen = block("presence", async {
        let mut seen = Vec::new();
        while seen.len() < 5 {
            if let Some(hub::Event::Presence { peer, topic, present, subscribers }) = events.next().await {
                assert_eq!(peer, name);
                seen.push((topic.as_str().to_owned(), present, subscribers));
            }
        }
        seen
    });
    let is = |topic: &str, present| (topic.to_owned(), present, u32::from(present));
    let mut expected =
        vec![is("models", true), is("system", true), is("training", true), is("alerts", true), is("alerts", false)];
    let mut sorted = seen.clone();
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected);
    drop(viewer);
    block("its end", async { while !matches!(events.next().await, Some(hub::Event::Ended { .. })) {} });
}

#[test]
fn what_nobody_handles_is_read_from_the_messages() {
    let hub = hub();
    let mut messages = hub.messages();
    let (mut viewer, id) = Viewer::join(hub.address(), "/ws");
    viewer.send(r#"{"type":"start_training","data":{"model":"cognate"}}"#);
    let delivery = block("the message", messages.next()).unwrap();
    assert_eq!((delivery.kind(), delivery.peer().as_str()), ("start_training", &*id));
    assert_eq!(delivery.json::<Value>().unwrap(), json!({"model": "cognate"}));
    assert!(delivery.confirm(()));
    assert_eq!(viewer.all(), [Value::Null; 0], "this wire confirms nothing");
}

#[test]
fn health_is_told_at_both_paths_and_no_post_is_taken() {
    let hub = hub();
    let (_viewer, _) = Viewer::join(hub.address(), "/ws");
    let ask = |head: &str| {
        let mut stream = TcpStream::connect(hub.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for path in ["/health", "/ws/health", "/stats"] {
        let answer = ask(&format!("GET {path}"));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["status"], &body["connections"]), (&json!("online"), &json!(1)));
        // As the siblings' interfaces know it.
        let known = (&body["service"], &body["connected_clients"], &body["active_channels"]);
        assert_eq!(known, (&json!("bowline"), &json!(1), &json!(3)));
    }
    assert!(ask("GET /metrics").contains("bowline_connections"));
    assert!(ask("POST /broadcast/training").starts_with("HTTP/1.1 404"));
}

#[test]
fn a_subprotocol_that_nobody_speaks_here_is_not_selected() {
    let hub = hub();
    let mut stream = TcpStream::connect(hub.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, superchat\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // It is served without one.
    while !String::from_utf8_lossy(&answer).contains("connection_established") {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..read]);
    }
    assert!(!String::from_utf8_lossy(&answer).to_lowercase().contains("sec-websocket-protocol"));
}

/// A Python viewer that does as this scenario says.
fn python(hub: &Hub<Village>, scenario: &str) -> Option<Peer> {
    let mut peer = peer::python("village_viewer.py", scenario)?;
    peer.tell(format!("ws://{}", hub.address()));
    Some(peer)
}

#[test]
fn python_looks_subscribes_and_comes_back() {
    let hub = hub();
    let Some(mut peer) = python(&hub, "looks") else { return };
    peer.saw("subscribed");
    (1..=3).for_each(|n| assert_eq!(hub.publish_event(&progress(n)).unwrap().reached, 1));
    assert_eq!(peer.saw("got")["epochs"], json!([1, 2, 3]));
    peer.saw("away");
    until("it has gone", || hub.health().connections == 0);
    (4..=6).for_each(|n| assert_eq!(hub.publish_event(&progress(n)).unwrap().refused, 0));
    peer.tell("come back");
    assert_eq!(peer.saw("got")["epochs"], json!([4, 5, 6]));
    peer.saw("end");
}

#[test]
fn python_only_listens_and_stays() {
    let hub = hub_with(|setup| lively(setup, Duration::from_millis(600)));
    let Some(mut peer) = python(&hub, "listens") else { return };
    // Ten spans of silence after which it would be dead.
    assert!(peer.saw("pings")["count"].as_u64().unwrap() >= 60);
    assert_eq!(hub.health().connections, 1);
    hub.publish_event(&progress(7)).unwrap();
    assert_eq!(peer.saw("got")["epochs"], json!([7]));
}

#[test]
fn node_looks_and_asks() {
    let hub = hub();
    let Some(mut peer) = peer::node("village_viewer.js", &format!("ws://{}/ws", hub.address())) else { return };
    assert_eq!(peer.saw("established")["keys"], json!([&KEYS[..], &["client_id"]].concat()));
    assert_eq!(peer.saw("answer")["success"], true);
    (1..=3).for_each(|n| assert_eq!(hub.publish_event(&progress(n)).unwrap().reached, 1));
    (1..=3).for_each(|n| assert_eq!(peer.saw("progress")["epoch"], n));
    peer.saw("pong");
    assert_eq!(peer.saw("complaint")["error"], "Invalid JSON");
}
