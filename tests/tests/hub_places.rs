//! What one may take from the others: the places of a listener, and the room for messages; over sockets.

mod real;

use bowline_smol::Setup;
use bowline_smol::hub::{Admission, CloseReason, Event, Hub, HubSetup, Village};
use core::net::SocketAddr;
use core::time::Duration;
use real::*;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::channel;
use std::thread;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// A connection that asks for something and has not said what.
fn occupy(address: SocketAddr) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.write_all(b"GET /").unwrap();
    socket
}

/// Status, `Retry-After` and whether the connection ends after this.
fn answer(address: SocketAddr, asked: &str) -> (u16, Option<u64>, bool) {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.write_all(asked.as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let head = text.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
    let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let status = head.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {text:?}")).parse().unwrap();
    (status, value("retry-after: ").map(|after| after.parse().unwrap()), value("connection: ") == Some("close".into()))
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: us\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn posting(path: &str, bytes: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: us\r\nContent-Length: {bytes}\r\n\r\n{}", "x".repeat(bytes))
}

fn a_full_listener(adapter: Adapter) {
    for (setup, asked) in [
        (Setup::ml_node("127.0.0.1:0").unwrap(), upgrade("/api/v1/pow/ws")),
        (
            Setup::api_node("ws://127.0.0.1:1").unwrap().callbacks("127.0.0.1:0").unwrap(),
            // More than lies in any buffer: it is read and thrown away, or the answer would be lost.
            posting("/v1/poc-batches/generated", 3_000_000),
        ),
    ] {
        let node = Node::start(adapter, setup);
        let mut holders: Vec<TcpStream> = (0..64).map(|_| occupy(node.address())).collect();
        let is_full = || answer(node.address(), &asked).0 == 503;
        eventually("it is full", is_full);
        assert_eq!(answer(node.address(), &asked), (503, Some(1), true));
        // A place that is free is given.
        drop(holders.pop());
        eventually("there is a place", || {
            answer(node.address(), "GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n").0 == 404
        });
        drop(holders);
        node.stop();
    }
}

#[test]
fn u13_a_listener_without_a_place_says_so_to_upgrades_and_requests() {
    limited(|| BOTH.into_iter().for_each(a_full_listener));
}

fn village(configure: impl FnOnce(&mut bowline::hub::HubConfig)) -> Hub<Village> {
    let setup = HubSetup::village("127.0.0.1:0").unwrap().authorize(|_| Admission::accept());
    let setup = setup.native(|_| Admission::accept()).on("up", |_| async { Ok::<_, String>(()) });
    Hub::start(setup.configure(configure)).unwrap()
}

#[test]
fn u13_e4_a_hub_without_a_place_says_so_and_tells_of_it() {
    limited(|| {
        let hub = village(|_| {});
        let events = hub.events();
        let holders: Vec<TcpStream> = (0..256).map(|_| occupy(hub.address())).collect();
        eventually("it is full", || {
            answer(hub.address(), "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").0 == 503
        });
        for asked in [upgrade("/ws"), posting("/bowline/1/hello", 200_000)] {
            let (status, after, last) = answer(hub.address(), &asked);
            assert_eq!((status, last), (503, true));
            assert!((1..=60).contains(&after.unwrap()), "a time of its own: {after:?}");
        }
        let full = CloseReason::ALL.iter().position(|why| *why == CloseReason::Full).unwrap();
        assert!(hub.counters().refused[full] >= 3);
        let told = smol::stream::block_on(events).find_map(|event| match event {
            Event::TurnedAway { address, why, .. } => Some((address.unwrap().to_string(), why)),
            _ => None,
        });
        assert_eq!(told, Some(("127.0.0.1".into(), CloseReason::Full)));
        drop(holders);
        eventually("there is a place", || {
            answer(hub.address(), "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n").0 == 200
        });
        smol::block_on(hub.close());
    });
}

/// As many as may be connected are: the next is refused by an answer, too.
#[test]
fn u13_a_hub_without_a_place_for_a_websocket_says_so() {
    limited(|| {
        let hub = village(|config| config.connections = 1);
        let _first = Native::connect(hub.address(), "one", 1);
        let (status, after, _) = answer(hub.address(), &upgrade("/ws"));
        assert_eq!(status, 503);
        assert!(after.unwrap() >= 1);
        smol::block_on(hub.close());
    });
}

/// A native client that does what it likes.
struct Native(WebSocket<MaybeTlsStream<TcpStream>>);

impl Native {
    fn connect(address: SocketAddr, cid: &str, origin: u64) -> Self {
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "bowline.1".parse().unwrap());
        let (socket, _) = tungstenite::connect(request).unwrap();
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
        }
        let mut client = Self(socket);
        client.say(&json!({"type": "hello", "v": 1, "cid": cid, "origin": format!("{origin:012x}"), "epoch": 1,
            "resume": false, "tx": {"next": 1, "una": 1}, "win": 64, "max_life": 3_600_000, "order": true}));
        client.hears(|said| said["type"] == "welcome");
        client
    }

    fn say(&mut self, said: &Value) {
        self.0.send(Message::text(said.to_string())).unwrap();
    }

    fn data(&mut self, seq: u64, bytes: usize) {
        self.say(&json!({"type": "data", "seq": seq, "una": 1, "kind": "up", "data": "x".repeat(bytes)}));
    }

    /// The next of which this holds.
    fn hears(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Message::Text(text) = self.0.read().unwrap() {
                let said = serde_json::from_str(&text).unwrap();
                if wanted(&said) {
                    return said;
                }
            }
        }
    }

    /// Until this number and all below are completed.
    fn completed(&mut self, seq: u64) {
        self.hears(|said| said["type"] == "ack" && said["cum"].as_u64() >= Some(seq));
    }
}

/// Eight identities of one address keep back number 1 and send what follows it: each finds its share, and so does
/// everybody else; and what they have sent is kept as long as one of them may send number 1, and no longer.
#[test]
fn u12_identities_that_keep_back_a_message_do_not_take_the_room_of_others() {
    const LIMIT_BYTES: u64 = 18 << 20;
    limited(|| {
        let hub = village(|config| {
            config.held_bytes = LIMIT_BYTES;
            let native = config.native.as_mut().unwrap();
            // Nobody is asked whether it lives; without a connection it is taken for dead after a second.
            (native.heartbeat.interval, native.heartbeat.dead) = (Duration::ZERO, Duration::from_secs(1));
        });
        let address = hub.address();
        let mut before = Native::connect(address, "before", 0x77);
        before.data(1, 20_000);
        before.completed(1);
        let (tell, told) = channel();
        let hogs: Vec<_> = (0..8)
            .map(|n| {
                let tell = tell.clone();
                thread::spawn(move || {
                    let mut hog = Native::connect(address, &format!("hog-{n}"), 0x1000 + n);
                    for seq in 2..=45 {
                        hog.data(seq, 30_000);
                    }
                    // It found no room for all of them.
                    hog.hears(|said| said["type"] == "nack" && said["code"] == "busy");
                    tell.send(()).unwrap();
                    hog
                })
            })
            .collect();
        for _ in 0..8 {
            told.recv_timeout(LIMIT).expect("a hog finds its limit");
        }
        assert!(hub.health().held_bytes > LIMIT_BYTES / 4, "{:?}", hub.health());
        for (name, origin) in [("after", 0x78), ("and-another", 0x79)] {
            let mut victim = Native::connect(address, name, origin);
            victim.data(1, 300_000);
            victim.completed(1);
        }
        assert!(hub.health().held_bytes <= LIMIT_BYTES);
        // One of them sends number 1 after all: what waits behind it makes room.
        let mut hogs: Vec<Native> = hogs.into_iter().map(|hog| hog.join().unwrap()).collect();
        let mut honest = hogs.pop().unwrap();
        honest.data(1, 30_000);
        honest.hears(|said| said["type"] == "nack" && said["seq"] == 1 && said["code"] == "busy");
        honest.data(1, 30_000);
        honest.completed(1);
        drop(honest);
        drop(hogs);
        eventually("what waited for number 1 is given back", || hub.health().held_bytes == 0);
        assert!(hub.health().sessions >= 8, "their sessions live on");
        smol::block_on(hub.close());
    });
}
