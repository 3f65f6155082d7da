//! The native client over real sockets, in both adapters, against a hub in Python that was written from PROTOCOL.md alone:
//! both directions, cuts in the middle of anything, HTTP alone, topics, refusals. See `real/peer.rs` for what happens
//! where Python is not installed.

#[macro_use]
mod real;

use bowline::wire::native::{Position, Refusal, Since};
use bowline::{Config, Event, Outcome, Path, Reason, Rejection, State};
use bowline_cli::proxy::Proxy;
use bowline_smol::{Mail, Native, Receipt, Setup};
use bowline_transport::Message;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use real::client::{Client, outcome};
use real::peer::{self, Peer};
use real::*;
use serde_json::{Value, json as value};
use std::net::{TcpListener, TcpStream};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message as Text, WebSocket};

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
    an_application_that_keeps_what_it_gets_gets_the_next_as_soon_as_there_is_room,
    a_refused_client_knows_why,
    a_token_is_renewed_on_a_live_connection,
    who_is_replaced_leaves_the_session_to_the_other,
    a_hub_of_another_protocol_is_none,
    s12_a_hub_that_forgets_too_soon_is_left,
    r8_who_is_replaced_does_not_come_back,
    s7_marks_of_what_was_never_sent_end_the_connection,
    what_is_no_frame_is_answered_and_sixteen_are_too_many,
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
    eventually("the session of HTTP goes on", || {
        client.count(|event| matches!(event, Event::Resumed { resumed: true, .. })) >= 1
    });
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
    // Whoever keeps more than half of them and waits gets the rest with the next pong.
    let topic = |setup: Setup<Native>| {
        let setup = setup.topic("news", Some(Since::Oldest)).unwrap();
        setup.configure(|config| config.heartbeat.interval = millis(500))
    };
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

/// Nor whoever keeps more than half of them and waits for the next one.
fn an_application_that_keeps_what_it_gets_gets_the_next_as_soon_as_there_is_room(adapter: Adapter) {
    let topic = |setup: Setup<Native>| {
        let setup = setup.topic("news", Some(Since::Oldest)).unwrap();
        setup.configure(|config| config.heartbeat.interval = millis(500))
    };
    let Some((_hub, client)) = with_hub(adapter, "history=10000", topic) else { return };
    assert_eq!(outcome(&client.send("publish", &value!({"topic": "news", "n": 300}))), BY_FRAME);
    let mut kept: Vec<_> = (0..256).map(|_| client.receive()).collect();
    kept.truncate(200);
    for i in 257..=300 {
        assert_eq!(positioned(client.mail()), ("news".into(), i, i));
    }
    drop(kept);
    client.stop();
}

fn a_refused_client_knows_why(adapter: Adapter) {
    let no = |setup: Setup<Native>| setup.auth("no").unwrap();
    let Some((_hub, client)) = with_hub(adapter, "port=0", no) else { return };
    eventually("it is refused", || client.refusal() == Some(Refusal::Auth));
    eventually("it is told of the close", || {
        client.count(|event| matches!(event, Event::Down { reason: Reason::Closed(1008), .. })) > 0
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
        client.count(|event| matches!(event, Event::Down { reason: Reason::Subprotocol, .. })) > 0
    });
    assert_ne!(client.status().state, State::Up);
    client.stop();
}

/// A hub that does what a test says.
struct Scripted {
    listener: TcpListener,
}

/// Its end of a connection.
type Line = WebSocket<TcpStream>;

impl Scripted {
    /// With a client of it, which tries again soon.
    fn start(adapter: Adapter) -> (Self, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let setup = Setup::client(&format!("ws://{}", listener.local_addr().unwrap()), "sensor-7").unwrap();
        let alone = |config: &mut Config| {
            hasty(config);
            config.route.http = false;
        };
        let client = Client::start(adapter, setup.drain(DRAIN).configure(alone));
        (Self { listener }, client)
    }

    /// The next connection, and its hello.
    fn accept(&self) -> (Line, Value) {
        let socket = self.listener.accept().unwrap().0;
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        #[expect(clippy::result_large_err, reason = "the library's type")]
        let choose = |request: &Request, mut response: Response| {
            let asked = request.headers()["sec-websocket-protocol"].clone();
            assert_eq!(asked, "bowline.1");
            response.headers_mut().insert("sec-websocket-protocol", asked);
            Ok(response)
        };
        let mut line = tungstenite::accept_hdr(socket, choose).unwrap();
        let hello = heard(&mut line);
        assert_eq!(hello["type"], "hello");
        (line, hello)
    }
}

#[track_caller]
fn heard(line: &mut Line) -> Value {
    serde_json::from_str(line.read().unwrap().to_text().unwrap()).unwrap()
}

/// The next frame of this type.
#[track_caller]
fn heard_of(line: &mut Line, kind: &str) -> Value {
    loop {
        let frame = heard(line);
        if frame["type"] == kind {
            return frame;
        }
    }
}

fn say(line: &mut Line, frame: &Value) {
    line.send(Text::text(frame.to_string())).unwrap();
}

fn welcome() -> Value {
    value!({
        "type": "welcome", "v": 1, "sid": "s", "token": "t", "resumed": false, "origin": "00000000c0de", "epoch": 8,
        "tx": {"next": 1, "una": 1}, "win": 64, "hb": 20000, "dead": 45000, "window": 0, "dedupe_ttl": 3_600_000,
        "frame": 1 << 20, "order": true
    })
}

/// With which code it closes.
#[track_caller]
fn closed(line: &mut Line) -> u16 {
    loop {
        match line.read().unwrap() {
            Text::Close(Some(close)) => return close.code.into(),
            Text::Close(None) => panic!("without a code"),
            _ => {}
        }
    }
}

fn s12_a_hub_that_forgets_too_soon_is_left(adapter: Adapter) {
    let (hub, client) = Scripted::start(adapter);
    let (mut line, hello) = hub.accept();
    assert_eq!(hello["max_life"], 3_600_000);
    let mut short = welcome();
    short["dedupe_ttl"] = value!(3_599_999);
    say(&mut line, &short);
    assert_eq!(closed(&mut line), 1002);
    assert_ne!(client.status().state, State::Up);
    client.stop();
}

fn r8_who_is_replaced_does_not_come_back(adapter: Adapter) {
    let (hub, client) = Scripted::start(adapter);
    let (mut line, _) = hub.accept();
    say(&mut line, &welcome());
    eventually("it is welcome", || client.status().state == State::Up);
    let code = tungstenite::protocol::frame::coding::CloseCode::Library(4003);
    line.close(Some(tungstenite::protocol::CloseFrame { code, reason: "another connection has its place".into() }))
        .unwrap();
    eventually("it gives up", || client.status().state == State::Failed);
    client.stop();
}

/// And what was said before is said again on the next connection, with the ticket.
fn s7_marks_of_what_was_never_sent_end_the_connection(adapter: Adapter) {
    let (hub, client) = Scripted::start(adapter);
    let receipt = client.send("up", &value!({}));
    let (mut line, hello) = hub.accept();
    assert_eq!((&hello["resume"], &hello["tx"]), (&value!(false), &value!({"next": 1, "una": 1})));
    say(&mut line, &welcome());
    assert_eq!(heard_of(&mut line, "data")["seq"], 1);
    say(&mut line, &value!({"type": "ack", "cum": 2, "rcv": 2, "win": 64, "una": 1}));
    assert_eq!(closed(&mut line), 1002);
    drop(line);
    let (mut line, hello) = hub.accept();
    assert_eq!((&hello["resume"], &hello["sid"], &hello["token"]), (&value!(true), &value!("s"), &value!("t")));
    assert_eq!(hello["tx"], value!({"next": 2, "una": 1}));
    let mut resumed = welcome();
    resumed["resumed"] = value!(true);
    say(&mut line, &resumed);
    assert_eq!(heard_of(&mut line, "data")["data"], value!({}));
    say(&mut line, &value!({"type": "ack", "cum": 1, "rcv": 1, "win": 64, "una": 1}));
    assert_eq!(outcome(&receipt), BY_FRAME);
    eventually("it is told", || client.count(|event| matches!(event, Event::Resumed { resumed: true, .. })) == 1);
    client.stop();
}

fn what_is_no_frame_is_answered_and_sixteen_are_too_many(adapter: Adapter) {
    let (hub, client) = Scripted::start(adapter);
    let (mut line, _) = hub.accept();
    say(&mut line, &welcome());
    for n in 1..=16 {
        say(&mut line, &value!({"type": "data", "seq": "one"}));
        if n < 16 {
            assert_eq!(heard_of(&mut line, "error")["message"], "`seq` is missing, of a wrong kind or out of range");
        }
    }
    assert_eq!(closed(&mut line), 1002);
    client.stop();
}
