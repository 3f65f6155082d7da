//! Nobody has more than is allowed, and nobody waits for anybody else.

use super::*;
use bowline::Refusal;
use bowline::hub::Rate;
use bowline::wire::native::Since;
use bowline_smol::{Mail, Refused};
use serde_json::Value;
use std::net::TcpStream;
use std::sync::Arc;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

with_both! {
    who_sends_too_much_waits_and_loses_nothing,
    what_is_too_long_is_refused_at_once,
    a_slow_application_makes_its_sender_wait,
}

/// U8: busy, and then everything arrives.
fn who_sends_too_much_waits_and_loses_nothing(adapter: Adapter) {
    const ALL: u64 = 80;
    let house = House::with(|setup| {
        setup.configure(|config| config.per_identity.messages = Rate { per_second: 50, burst: 40 })
    });
    let client = Client::start(adapter, plain(&house.url()));
    up(&client);
    let receipts: Vec<_> = (1..=ALL).map(|i| send(&client, "up", i)).collect();
    for receipt in &receipts {
        assert_eq!(outcome(receipt), BY_FRAME);
    }
    assert!(house.hub.stats().limited > 0);
    assert_eq!(house.app.numbers(), (1..=ALL).collect::<Vec<_>>());
    assert_eq!((downs(&client), begun_anew(&client)), (0, 0));
    client.stop();
}

/// H5, F4.
fn what_is_too_long_is_refused_at_once(adapter: Adapter) {
    let (house, _proxy, client) = through(adapter, |setup| setup);
    let long = format!("\"{}\"", "x".repeat(1 << 20));
    let refused = client.try_send("up", &long).unwrap_err();
    assert_eq!(refused.why, Refused::Session(Refusal::TooLarge));
    assert_eq!(refused.json.len(), long.len(), "it is handed back");
    // One that just goes through does, by either path; a stranger's longer one does not.
    let most = json!({"i": 1, "x": "x".repeat((1 << 20) - 500)});
    assert_eq!(outcome(&client.send("up", &most)), BY_FRAME);
    let said = post(house.address(), "/bowline/1/messages", &[], &"x".repeat((1 << 20) + 1));
    assert_eq!(said.status, 413);
    assert_eq!((downs(&client), client.status().backlog), (0, 0));
    client.stop();
}

/// S10: no more than a window is at the hub, however much is sent.
fn a_slow_application_makes_its_sender_wait(adapter: Adapter) {
    let house = House::start();
    let setup = plain(&house.url()).configure(|config| config.outbox.capacity = 100);
    let client = Arc::new(Client::start(adapter, setup));
    up(&client);
    let sender = Arc::clone(&client);
    let sending = begin("all are accepted", move || (1..=400).map(|i| send(&sender, "slow", i)).collect::<Vec<_>>());
    eventually("the window is full", || house.health().held == 64);
    eventually("the sender waits", || client.status().backlog == 100);
    // A round trip that depends on the peer alone: it is alive, and nothing more has come.
    house.begin_down(NAME, 1..=20).wait();
    (1..=20).for_each(|i| gets(&client, i));
    assert!(sending.is_running());
    assert_eq!((house.health().held, client.status().backlog), (64, 100));
    house.app.open();
    for receipt in sending.wait() {
        assert_eq!(outcome(&receipt), BY_FRAME);
    }
    assert_eq!(house.app.numbers(), (1..=400).collect::<Vec<_>>());
    assert_eq!(house.hub.stats().duplicates, 0);
    Arc::into_inner(client).unwrap().stop();
}

/// A native peer of nobody's library but tungstenite's.
fn stranger(house: &House, cid: &str) -> WebSocket<TcpStream> {
    let mut request = format!("{}/bowline/1/socket", house.url()).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "bowline.1".parse().unwrap());
    let stream = TcpStream::connect(house.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut socket = tungstenite::client(request, stream).unwrap().0;
    let hello = json!({"type": "hello", "v": 1, "cid": cid, "origin": "0000000009af", "epoch": 3, "resume": false,
        "tx": {"next": 1, "una": 1}, "win": 64, "max_life": 1000, "order": true});
    socket.send(Message::text(hello.to_string())).unwrap();
    let welcome: Value = serde_json::from_str(socket.read().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(welcome["type"], "welcome");
    socket
}

/// U5, U6, U3: neither what is published nor what is for it alone makes anybody else wait.
#[test]
fn who_stops_reading_delays_nobody() {
    limited(|| {
        let house = House::start();
        let mut mute = stranger(&house, "mute");
        mute.send(Message::text(r#"{"type":"subscribe","topic":"big"}"#)).unwrap();
        assert!(mute.read().unwrap().to_text().unwrap().contains("subscribed"));
        let clients = BOTH.map(|adapter| {
            let cid = format!("{adapter:?}");
            let setup = Setup::client(&house.url(), &cid).unwrap().drain(DRAIN).configure(hasty);
            let client = Client::start(adapter, setup.topic("big", Some(Since::Oldest)).unwrap());
            up(&client);
            client
        });
        let big = "x".repeat(200_000);
        let peer: bowline_smol::hub::Name = "mute".parse().unwrap();
        let mut refused = 0;
        for i in 0..60 {
            let data = json!({"i": i, "x": big}).to_string();
            house.hub.publish_topic("big", "tick", &data).unwrap();
            refused += usize::from(house.hub.send(&peer, "down", &data).is_err());
            for client in &clients {
                let Mail::Event { data, .. } = client.mail() else { panic!("no event") };
                assert_eq!(serde_json::from_slice::<Value>(&data).unwrap()["i"], i);
            }
        }
        assert!(house.health().backlog <= 64 && refused <= 60, "{refused}");
        for client in clients {
            assert_eq!(downs(&client), 0);
            client.stop();
        }
        drop(mute);
        eventually("it has gone", || house.health().connections == 0);
    });
}
