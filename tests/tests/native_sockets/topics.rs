//! Topics, by whichever peer.

use super::*;
use bowline::wire::native::{Position, Since};
use bowline_cli::proxy::Fault;
use bowline_smol::Mail;
use bowline_smol::hub::Publish;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::TcpStream;
use tungstenite::{Message, WebSocket};

with_both! {
    a_topic_goes_on_where_it_was_after_every_cut,
    who_was_away_too_long_is_told_what_is_missed,
    a_wildcard_of_one_level_and_one_of_all,
    everybody_hears_a_broadcast_plain_or_native,
}

fn publish(house: &House, topic: &str, numbers: core::ops::RangeInclusive<u64>) {
    for i in numbers {
        house.hub.publish_topic(topic, "tick", &json!({"i": i}).to_string()).unwrap();
    }
}

/// The next event: its topic, and its number.
#[track_caller]
fn event(client: &Client) -> (String, u64) {
    match client.mail() {
        Mail::Event { topic, kind, data, .. } if kind == "tick" => {
            (topic, serde_json::from_slice::<Value>(&data).unwrap()["i"].as_u64().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

/// With these subscriptions in force at the hub.
#[track_caller]
fn subscribed(client: &Client, house: &House, filters: &[(&str, Option<Since>)]) {
    let asked = house.hub.counters().frames_in;
    for (filter, since) in filters {
        assert!(client.subscribe(filter, *since));
    }
    eventually("they are asked for", || house.hub.counters().frames_in >= asked + filters.len() as u64);
    // A message behind them has been handled.
    assert!(matches!(outcome(&send(client, "up", 0)), Outcome::Delivered { .. }));
}

/// U4.
fn a_topic_goes_on_where_it_was_after_every_cut(adapter: Adapter) {
    const ALL: u64 = 200;
    let (house, proxy, client) = through(adapter, |setup| setup);
    publish(&house, "news", 1..=5);
    subscribed(&client, &house, &[("news", Some(Since::Oldest))]);
    for n in 0..8 {
        let from = 6 + n * 20;
        publish(&house, "news", from..=from + 9);
        let again = resumed(&client);
        proxy.set(if n % 2 == 0 { Fault::Reset } else { Fault::Refuse });
        // While nobody is there, too.
        publish(&house, "news", from + 10..=from + 19);
        proxy.set(Fault::Calm);
        eventually("it is resumed", || resumed(&client) > again);
    }
    publish(&house, "news", 166..=ALL);
    for i in 1..=ALL {
        assert_eq!(event(&client), ("news".into(), i), "in its order, none twice, none missed");
    }
    assert!(client.unsubscribe("news") && !client.unsubscribe("news"));
    assert!(matches!(outcome(&send(&client, "up", 1)), Outcome::Delivered { .. }));
    assert_eq!(house.hub.publish_topic("news", "tick", "{}").unwrap().reached, 0);
    client.stop();
}

fn who_was_away_too_long_is_told_what_is_missed(adapter: Adapter) {
    let house = House::with(|setup| setup.configure(|config| config.topics.history = 8));
    let proxy = Proxy::start(house.address()).unwrap();
    let client = Client::start(adapter, plain(&format!("ws://{}", proxy.addr())));
    up(&client);
    subscribed(&client, &house, &[("news", None)]);
    publish(&house, "news", 1..=3);
    for i in 1..=3 {
        assert_eq!(event(&client), ("news".into(), i));
    }
    proxy.set(Fault::Refuse);
    eventually("it is down", || client.status().connection.is_none());
    publish(&house, "news", 4..=20);
    proxy.set(Fault::Calm);
    let Mail::Missed { topic, from: Position { offset, .. }, to } = client.mail() else { panic!("nothing is missed") };
    assert_eq!((topic.as_str(), offset, to), ("news", 4, 12));
    for i in 13..=20 {
        assert_eq!(event(&client), ("news".into(), i));
    }
    client.stop();
}

fn a_wildcard_of_one_level_and_one_of_all(adapter: Adapter) {
    let house = House::start();
    let [one, all] = ["one", "all"].map(|cid| {
        let setup = Setup::client(&house.url(), cid).unwrap().drain(DRAIN).configure(hasty);
        let client = Client::start(adapter, setup);
        up(&client);
        client
    });
    subscribed(&one, &house, &[("a.*", None)]);
    subscribed(&all, &house, &[("a.**", None)]);
    for (n, topic) in ["a", "a.b", "a.b.c", "b.c", "a.d"].into_iter().enumerate() {
        publish(&house, topic, n as u64..=n as u64);
    }
    let hears = |client: &Client, n: usize| (0..n).map(|_| event(client)).collect::<BTreeSet<_>>();
    let named = |named: &[(&str, u64)]| named.iter().map(|(topic, i)| ((*topic).to_owned(), *i)).collect();
    let both: BTreeSet<_> = named(&[("a.b", 1), ("a.d", 4)]);
    assert_eq!(hears(&one, 2), both);
    let mut deeper: BTreeSet<_> = named(&[("a.b.c", 2)]);
    deeper.extend(both);
    assert_eq!(hears(&all, 3), deeper);
    // Nothing else came.
    house.hub.publish("end", "{}", Publish::DEFAULT).unwrap();
    for client in [one, all] {
        assert!(matches!(client.mail(), Mail::Event { kind, .. } if kind == "end"));
        client.stop();
    }
}

/// A viewer of AI Village's, and nobody's library but tungstenite's.
fn viewer(house: &House) -> WebSocket<TcpStream> {
    let stream = TcpStream::connect(house.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    tungstenite::client(format!("{}/ws", house.url()), stream).unwrap().0
}

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

fn everybody_hears_a_broadcast_plain_or_native(adapter: Adapter) {
    let (house, _proxy, client) = through(adapter, |setup| setup);
    let mut plain = viewer(&house);
    next(&mut plain, "connection_established");
    subscribed(&client, &house, &[("training", None)]);
    let sent = house.hub.publish_topic("training", "training_progress", r#"{"progress":0.5}"#).unwrap();
    assert_eq!(sent.reached, 2);
    assert_eq!(next(&mut plain, "training_progress")["data"]["progress"], 0.5);
    let Mail::Event { topic, kind, data, at } = client.mail() else { panic!("no event") };
    assert_eq!(
        (topic.as_str(), kind.as_str(), &data[..]),
        ("training", "training_progress", &br#"{"progress":0.5}"#[..])
    );
    assert_eq!(at.offset, 1);
    assert_eq!(house.hub.publish("status_update", r#"{"status":"fine"}"#, Publish::DEFAULT).unwrap().reached, 2);
    assert_eq!(next(&mut plain, "status_update")["data"]["status"], "fine");
    let Mail::Event { topic, kind, .. } = client.mail() else { panic!("no event") };
    assert_eq!((topic.as_str(), kind.as_str()), ("*", "status_update"));
    client.stop();
}
