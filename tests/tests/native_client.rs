//! The native client over real sockets, in both adapters, against a hub in Python that was written from PROTOCOL.md alone:
//! both directions, cuts in the middle of anything, HTTP alone, topics, refusals. See `real/peer.rs` for what happens
//! where Python is not installed.

#[macro_use]
mod real;

use bowline::wire::native::{Position, Refusal, Since};
use bowline::{Cause, Config, Event, Outcome, Path, Rejection, State};
use bowline_cli::proxy::Proxy;
use bowline_smol::{Mail, Native, Receipt, Setup, Status};
use bowline_transport::Message;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use real::peer::{self, Peer};
use real::*;
use serde_json::{Value, json as value};
use std::sync::{Arc, Mutex};

enum Either {
    Blocking(bowline_blocking::Client),
    Smol(bowline_smol::Client),
}

/// A client of either adapter, whose calls have a limit.
struct Client {
    either: Arc<Either>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Client {
    fn start(adapter: Adapter, setup: Setup<Native>) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let either = match adapter {
            Adapter::Blocking => {
                let client = bowline_blocking::Client::start(setup).unwrap();
                let all = client.events();
                begin("the end of events", move || all.for_each(|event| seen.lock().unwrap().push(event)));
                Either::Blocking(client)
            }
            Adapter::Smol => {
                let client = bowline_smol::Client::start(setup).unwrap();
                let all = ::smol::stream::block_on(client.events());
                begin("the end of events", move || all.for_each(|event| seen.lock().unwrap().push(event)));
                Either::Smol(client)
            }
        };
        Self { either: Arc::new(either), events }
    }

    #[track_caller]
    fn receive(&self) -> Message<Native> {
        let either = Arc::clone(&self.either);
        let received = begin("a message", move || match &*either {
            Either::Blocking(client) => client.receive(),
            Either::Smol(client) => ::smol::block_on(client.receive()),
        });
        received.wait().expect("the session has ended")
    }

    /// The next message or event, dealt with.
    #[track_caller]
    fn mail(&self) -> Mail {
        let message = self.receive();
        let mail = message.content().clone();
        assert!(message.complete());
        mail
    }

    /// The next message, dealt with.
    #[track_caller]
    fn message(&self, expected: &str) -> Value {
        let Mail::Message { kind, data } = self.mail() else { panic!("no message") };
        assert_eq!(kind, expected);
        serde_json::from_slice(&data).unwrap()
    }

    /// Waits for room.
    #[track_caller]
    fn send(&self, kind: &'static str, data: &Value) -> Receipt {
        let (either, data) = (Arc::clone(&self.either), data.to_string());
        let sent = begin("room", move || match &*either {
            Either::Blocking(client) => client.send(kind, data),
            Either::Smol(client) => ::smol::block_on(client.send(kind, data)),
        });
        sent.wait().unwrap()
    }

    fn subscribe(&self, filter: &str, since: Option<Since>) -> bool {
        match &*self.either {
            Either::Blocking(client) => client.subscribe(filter, since),
            Either::Smol(client) => client.subscribe(filter, since),
        }
    }

    fn unsubscribe(&self, filter: &str) -> bool {
        match &*self.either {
            Either::Blocking(client) => client.unsubscribe(filter),
            Either::Smol(client) => client.unsubscribe(filter),
        }
    }

    fn reauthenticate(&self, auth: &str) -> bool {
        match &*self.either {
            Either::Blocking(client) => client.reauthenticate(auth),
            Either::Smol(client) => client.reauthenticate(auth),
        }
    }

    fn refusal(&self) -> Option<Refusal> {
        match &*self.either {
            Either::Blocking(client) => client.refusal(),
            Either::Smol(client) => client.refusal(),
        }
    }

    fn status(&self) -> Status {
        match &*self.either {
            Either::Blocking(client) => client.status(),
            Either::Smol(client) => client.status(),
        }
    }

    fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| is(event)).count()
    }

    #[track_caller]
    fn stop(self) -> Status {
        let either = Arc::into_inner(self.either).expect("somebody still waits for this client");
        promptly("a client closes", move || match either {
            Either::Blocking(client) => client.close(DRAIN),
            Either::Smol(client) => ::smol::block_on(client.close(DRAIN)),
        })
    }
}

#[track_caller]
fn outcome(receipt: &Receipt) -> Outcome {
    let mut end = None;
    eventually("its end", || {
        end = receipt.try_settled();
        end.is_some()
    });
    end.unwrap().outcome
}

const SHORT: core::time::Duration = core::time::Duration::from_millis(1);
const BY_FRAME: Outcome = Outcome::Delivered { path: Path::WebSocket };
const BY_HTTP: Outcome = Outcome::Delivered { path: Path::Http };

fn hasty(config: &mut Config) {
    quick(config);
    // Only where a test has no WebSocket.
    config.route.grace = LIMIT;
}

/// A hub, and a client of it.
fn with_hub(
    adapter: Adapter,
    scenario: &str,
    setup: impl FnOnce(Setup<Native>) -> Setup<Native>,
) -> Option<(Peer, Client)> {
    let mut hub = peer::python_as("native_hub.py", &scenario.split(' ').collect::<Vec<_>>(), &[])?;
    let url = format!("ws://127.0.0.1:{}", hub.port("listening"));
    let plain = Setup::client(&url, "sensor-7").unwrap().drain(DRAIN).configure(hasty);
    Some((hub, Client::start(adapter, setup(plain))))
}

with_both! {
    messages_go_both_ways_and_have_three_ends,
    whatever_is_cut_nothing_is_lost_doubled_or_out_of_order,
    without_order_nothing_waits,
    without_a_websocket_http_carries_both_ways,
    a_websocket_that_comes_back_takes_over_from_http,
    topics_go_on_after_every_cut,
    who_asks_too_late_is_told_what_is_missed,
    an_application_that_is_slow_misses_nothing_that_history_holds,
    a_refused_client_knows_why,
    a_token_is_renewed_on_a_live_connection,
    who_is_replaced_leaves_the_session_to_the_other,
    a_hub_of_another_protocol_is_none,
}

fn messages_go_both_ways_and_have_three_ends(adapter: Adapter) {
    let Some((_hub, client)) = with_hub(adapter, "port=0", |setup| setup) else { return };
    let receipts: Vec<Receipt> = (1..=200).map(|i| client.send("up", &value!({"i": i}))).collect();
    let rejected = client.send("reject", &value!({}));
    let again = client.send("retry", &value!(null));
    let _ = client.send("ask", &value!({"n": 200}));
    for receipt in &receipts {
        assert_eq!(outcome(receipt), BY_FRAME);
    }
    assert_eq!(outcome(&rejected), Outcome::Rejected(Rejection::ByPeer));
    assert_eq!(outcome(&again), BY_FRAME);
    // One is given back: it comes again, and the others in their order.
    let mut expected: Vec<u64> = (1..=200).collect();
    let mut given_back = false;
    while !expected.is_empty() {
        let message = client.receive();
        assert_eq!(message.path(), Path::WebSocket);
        let i = serde_json::from_str::<Value>(data(&message)).unwrap()["i"].as_u64().unwrap();
        if i == 100 && !core::mem::replace(&mut given_back, true) {
            assert!(message.retry(Duration::ZERO));
            continue;
        }
        let at = expected.iter().position(|n| *n == i).expect("once each");
        assert!(i == 100 || expected[..at] == [100] || at == 0, "{i} before {:?}", &expected[..at]);
        expected.remove(at);
        assert!(message.complete());
    }
    let last = client.stop();
    assert_eq!((last.backlog, last.stats.delivered_websocket, last.stats.rejected), (0, 202, 1));
}

fn data(message: &Message<Native>) -> &str {
    let Mail::Message { data, .. } = message.content() else { panic!("no message: {message:?}") };
    core::str::from_utf8(data).unwrap()
}

/// S9, R1, R2, S6, H3: both directions loaded, reset twenty times in the middle of whatever it is.
fn whatever_is_cut_nothing_is_lost_doubled_or_out_of_order(adapter: Adapter) {
    const ALL: u64 = 1000;
    let Some((mut hub, client)) = with_hub(adapter, "cut=15000 cuts=20 slow=3", |setup| setup) else { return };
    let _ = client.send("ask", &value!({"n": ALL}));
    let receipts: Vec<Receipt> = (1..=ALL)
        .map(|i| {
            let receipt = client.send("up", &value!({"i": i}));
            assert_eq!(client.message("down"), value!({"i": i}), "in their order, none twice");
            receipt
        })
        .collect();
    for receipt in &receipts {
        assert!(matches!(outcome(receipt), Outcome::Delivered { .. }));
    }
    let _ = client.send("stat", &value!({}));
    let stat = client.message("stat");
    assert_eq!(stat, value!({"got": ALL, "doubled": 0, "disordered": 0, "gaps": []}));
    let cuts = hub.count("cut");
    assert!(cuts > 5, "{cuts} cuts");
    let resumed = client.count(|event| matches!(event, Event::Resumed { resumed: true, reason: None }));
    assert!(resumed > 5, "{resumed} times");
    assert_eq!(client.count(|event| matches!(event, Event::Resumed { resumed: false, .. } | Event::Gap { .. })), 0);
    let last = client.stop();
    assert_eq!((last.backlog, last.stats.delivered), (0, ALL + 1));
}

fn without_order_nothing_waits(adapter: Adapter) {
    let Some((_hub, client)) = with_hub(adapter, "cut=10000 cuts=5", Setup::unordered) else { return };
    let _ = client.send("ask", &value!({"n": 300}));
    let mut got: Vec<u64> = (0..300).map(|_| client.message("down")["i"].as_u64().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (1..=300).collect::<Vec<_>>());
    client.stop();
}

/// A hub whose WebSocket cannot be reached before the proxy is told where it is.
struct ByHttp {
    _hub: Peer,
    at: SocketAddr,
    client: Client,
    ws: Proxy,
    _dead: Port,
}

fn by_http(adapter: Adapter) -> Option<ByHttp> {
    let mut hub = peer::python("native_hub.py", "port=0")?;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(hub.port("listening")).unwrap()));
    let dead = Port::reserve();
    let ws = Proxy::start(dead.address).unwrap();
    let setup = Setup::client(&format!("ws://{}", ws.addr()), "sensor-7").unwrap().drain(DRAIN);
    let setup = setup.fallback(&format!("http://{at}/bowline/1")).unwrap().configure(quick);
    let client = Client::start(adapter, setup.configure(|config| config.route.grace = millis(100)));
    Some(ByHttp { _hub: hub, at, client, ws, _dead: dead })
}

/// H1, H2, H3.
fn without_a_websocket_http_carries_both_ways(adapter: Adapter) {
    let Some(ByHttp { client, _hub, ws: _ws, _dead, .. }) = by_http(adapter) else { return };
    let receipts: Vec<Receipt> = (1..=40).map(|i| client.send("up", &value!({"i": i}))).collect();
    let rejected = client.send("reject", &value!({}));
    let again = client.send("retry", &value!({}));
    let _ = client.send("ask", &value!({"n": 100}));
    for i in 1..=100 {
        let message = client.receive();
        assert_eq!(serde_json::from_str::<Value>(data(&message)).unwrap(), value!({"i": i}));
        assert_eq!(message.path(), Path::Http);
        assert!(message.complete());
    }
    for receipt in &receipts {
        assert_eq!(outcome(receipt), BY_HTTP);
    }
    assert!(matches!(outcome(&rejected), Outcome::Rejected(_)));
    assert_eq!(outcome(&again), BY_HTTP);
    let _ = client.send("stat", &value!({}));
    let stat = client.message("stat");
    assert_eq!((&stat["got"], &stat["doubled"]), (&value!(40), &value!(0)));
    client.stop();
}

/// P6: the session is the same on both paths.
fn a_websocket_that_comes_back_takes_over_from_http(adapter: Adapter) {
    let Some(ByHttp { client, _hub, ws, at, _dead }) = by_http(adapter) else { return };
    let first = client.send("up", &value!({"i": 1}));
    assert_eq!(outcome(&first), BY_HTTP);
    ws.set_upstream(at);
    eventually("it is connected", || client.status().state == State::Up && client.status().path == Path::WebSocket);
    let second = client.send("up", &value!({"i": 2}));
    assert_eq!(outcome(&second), BY_FRAME);
    let resumed = client.count(|event| matches!(event, Event::Resumed { resumed: true, .. }));
    assert!(resumed >= 1, "the session of HTTP goes on");
    let _ = client.send("stat", &value!({}));
    assert_eq!(client.message("stat")["got"], 2);
    client.stop();
}

/// Of an event: its topic, the number in it, and its place.
fn positioned(mail: Mail) -> (String, u64, u64) {
    match mail {
        Mail::Event { topic, at: Position { offset, .. }, kind, data } => {
            assert_eq!(kind, "tick");
            (topic, serde_json::from_slice::<Value>(&data).unwrap()["i"].as_u64().unwrap(), offset)
        }
        other => panic!("{other:?}"),
    }
}

/// U4: what history holds is not missed, whatever was cut, and nothing comes twice.
fn topics_go_on_after_every_cut(adapter: Adapter) {
    let topic = |setup: Setup<Native>| setup.topic("news", Some(Since::Oldest)).unwrap();
    let Some((mut hub, client)) = with_hub(adapter, "cut=6000 cuts=8 history=1000", topic) else { return };
    let _ = client.send("publish", &value!({"topic": "news", "n": 300}));
    for i in 1..=300 {
        assert_eq!(positioned(client.mail()), ("news".into(), i, i));
    }
    assert!(hub.count("cut") >= 2);
    client.stop();
}

fn who_asks_too_late_is_told_what_is_missed(adapter: Adapter) {
    let Some((_hub, client)) = with_hub(adapter, "history=8", |setup| setup) else { return };
    assert_eq!(outcome(&client.send("publish", &value!({"topic": "news", "n": 20}))), BY_FRAME);
    assert!(client.subscribe("news", Some(Since::After(Position { epoch: 1, offset: 3 }))));
    let missed = Mail::Missed { topic: "news".into(), from: Position { epoch: 1, offset: 4 }, to: 12 };
    assert_eq!(client.mail(), missed);
    for i in 13..=20 {
        assert_eq!(positioned(client.mail()), ("news".into(), i, i));
    }
    assert!(client.unsubscribe("news") && !client.unsubscribe("news"));
    assert!(!client.subscribe("", None) && !client.subscribe(&"x".repeat(65), None));
    client.stop();
}

/// 256 events are at the application at most; what came besides is asked for when it has taken half of them.
fn an_application_that_is_slow_misses_nothing_that_history_holds(adapter: Adapter) {
    let topic = |setup: Setup<Native>| setup.topic("news", Some(Since::Oldest)).unwrap();
    let Some((_hub, client)) = with_hub(adapter, "history=10000", topic) else { return };
    for _ in 0..4 {
        assert_eq!(outcome(&client.send("publish", &value!({"topic": "news", "n": 250}))), BY_FRAME);
    }
    let mut kept = Vec::new();
    for i in 1..=1000 {
        let message = client.receive();
        assert_eq!(positioned(message.content().clone()), ("news".into(), (i - 1) % 250 + 1, i));
        kept.push(message);
        if kept.len() == 200 {
            kept.clear();
        }
    }
    client.stop();
}

fn a_refused_client_knows_why(adapter: Adapter) {
    let no = |setup: Setup<Native>| setup.auth("no").unwrap();
    let Some((_hub, client)) = with_hub(adapter, "port=0", no) else { return };
    eventually("it is refused", || client.refusal() == Some(Refusal::Auth));
    eventually("it is told of the close", || {
        client.count(|event| matches!(event, Event::Down { cause: Cause::Closed(1008), .. })) > 0
    });
    // With what is taken it comes in.
    assert!(client.reauthenticate("yes") && !client.reauthenticate(&"a".repeat(4097)));
    eventually("it is let in", || client.status().state == State::Up && client.refusal().is_none());
    client.stop();
}

/// R9.
fn a_token_is_renewed_on_a_live_connection(adapter: Adapter) {
    let Some((_hub, client)) = with_hub(adapter, "cut=3000 cuts=3", |setup| setup) else { return };
    for i in 1..=60 {
        assert!(client.reauthenticate("yes"));
        assert!(matches!(outcome(&client.send("up", &value!({"i": i}))), Outcome::Delivered { .. }));
    }
    assert_eq!(client.refusal(), None);
    assert_eq!(client.count(|event| matches!(event, Event::Resumed { resumed: false, .. })), 0);
    client.stop();
}

/// R8: not by HTTP either.
fn who_is_replaced_leaves_the_session_to_the_other(adapter: Adapter) {
    let village = bowline_smol::hub::HubSetup::village("127.0.0.1:0").unwrap();
    let hub = bowline_smol::hub::Hub::start(village.native(|_| bowline_smol::hub::Admission::accept())).unwrap();
    let client = || {
        let setup = Setup::client(&format!("ws://{}", hub.address()), "sensor-7").unwrap().drain(DRAIN);
        let client = Client::start(adapter, setup.configure(quick).configure(|config| config.route.grace = SHORT));
        eventually("it is up", || client.status().state == State::Up);
        client
    };
    let (first, second) = (client(), client());
    eventually("the first has ended", || first.status().state == State::Failed);
    let name: bowline_smol::hub::Name = "sensor-7".parse().unwrap();
    let receipt = hub.send(&name, "custom", r#"{"n":1}"#).unwrap();
    assert!(matches!(second.mail(), Mail::Message { .. }));
    drop(receipt);
    assert_eq!((first.status().state, second.status().state), (State::Failed, State::Up));
    second.stop();
    first.stop();
    ::smol::block_on(hub.close());
}

/// A server that upgrades and does not speak the protocol: as if it had no WebSocket for us.
fn a_hub_of_another_protocol_is_none(adapter: Adapter) {
    let other = Node::start(adapter, bowline_smol::Setup::ml_node("127.0.0.1:0").unwrap());
    let url = format!("ws://{}/api/v1/pow/ws", other.address());
    let client = Client::start(adapter, Setup::client(&url, "c").unwrap().configure(hasty));
    eventually("it is told", || {
        client.count(|event| matches!(event, Event::Down { cause: Cause::Rejected(426), .. })) > 0
    });
    assert_ne!(client.status().state, State::Up);
    client.stop();
}
