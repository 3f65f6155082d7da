//! A validator for tests: WebSocket and HTTP on one port, and whoever visits is handed to the test.

use super::real::{LIMIT, begin};
use bowline::wire::bettensor::{self, Envelope, Frame, Kind, Stamp, Unsigned};
use bowline::wire::timestamp::Timestamp;
use bowline_transport::{Hotkey, Keypair};
use core::net::SocketAddr;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::SystemTime;
use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tungstenite::{Message, WebSocket};

pub(crate) fn keys(byte: &str) -> Keypair {
    Keypair::from_seed_hex(&byte.repeat(32)).unwrap()
}

fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_unix_micros(now.as_micros().try_into().unwrap())
}

/// A signed frame of this moment.
pub(crate) fn frame(keys: &Keypair, kind: &str, data: &str) -> String {
    keys.seal(|stamp| Unsigned::message(stamp, &Kind::parse(kind.into()), data).unwrap())
}

/// A signed frame of another moment.
pub(crate) fn frame_at(keys: &Keypair, kind: &str, data: &str, timestamp: Timestamp) -> String {
    let sender = keys.hotkey().to_string();
    let stamp = Stamp { sender: &sender, timestamp, nonce: "17" };
    let unsigned = Unsigned::message(stamp, &Kind::parse(kind.into()), data).unwrap();
    let signature = keys.sign(unsigned.signing_string().as_bytes());
    unsigned.signed(&signature)
}

pub(crate) fn confirmation(keys: &Keypair, id: &str, status: &str, message: &str) -> String {
    let data = format!(
        r#"{{"prediction_id":"{id}","status":"{status}","message":"{message}","miner_stats":{{"rank":0.50,"stake":1e3}}}}"#
    );
    frame(keys, "confirmation", &data)
}

/// A frame of the miner's, checked as the original does.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) kind: String,
    pub(crate) data: Value,
    pub(crate) nonce: String,
    /// Of its text, in bytes.
    pub(crate) length: usize,
}

impl Said {
    #[track_caller]
    pub(crate) fn check(miner: Hotkey, text: &str) -> Self {
        let Ok(Frame::Envelope(envelope)) = bettensor::decode(text.as_bytes()) else { panic!("no envelope: {text}") };
        let Envelope { kind, sender, data, seal: Some(seal), .. } = &envelope else { panic!("unsigned: {text}") };
        assert_eq!(sender.parse(), Ok(miner));
        assert!(miner.verify(envelope.signing_string().unwrap().as_bytes(), &seal.signature), "{text}");
        assert!(now().unix_micros().abs_diff(seal.timestamp.unix_micros()) < 60_000_000);
        let data = serde_json::from_str(data).unwrap();
        Self { kind: kind.as_str().into(), data, nonce: seal.nonce.to_string(), length: text.len() }
    }

    pub(crate) fn prediction_id(&self) -> &str {
        self.data["prediction_id"].as_str().unwrap()
    }
}

enum Visit {
    WebSocket(Box<WebSocket<TcpStream>>),
    Post(Post),
}

/// A POST that waits for its answer.
pub(crate) struct Post {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    stream: TcpStream,
}

impl Post {
    fn read(mut stream: TcpStream) -> Option<Self> {
        let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let n = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
            seen.extend_from_slice(&chunk[..n]);
            let text = core::str::from_utf8(&seen).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let mut lines = head.lines();
            let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
            let headers: BTreeMap<String, String> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            if body.len() >= headers["content-length"].parse().unwrap() {
                return Some(Self { path, headers, body: body.to_owned(), stream });
            }
        }
    }

    pub(crate) fn answer(mut self, status: u16, headers: &str, body: &str) {
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} Said\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        self.stream.write_all(answer.as_bytes()).unwrap();
    }
}

pub(crate) struct Validator {
    pub(crate) address: SocketAddr,
    pub(crate) keys: Keypair,
    pub(crate) miner: Hotkey,
    visits: Receiver<Visit>,
    posts: Vec<Post>,
    sockets: Vec<WebSocket<TcpStream>>,
}

impl Validator {
    pub(crate) fn start(miner: Hotkey) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (visited, visits) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, visited) = (stream.unwrap(), visited.clone());
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                thread::spawn(move || {
                    let mut first = [0];
                    if stream.peek(&mut first).is_err() {
                        return;
                    }
                    let visit = if first == *b"P" {
                        Post::read(stream).map(Visit::Post)
                    } else {
                        tungstenite::accept(stream).ok().map(|socket| Visit::WebSocket(Box::new(socket)))
                    };
                    // Nobody listens when the test is over.
                    let _ = visit.map(|visit| visited.send(visit));
                });
            }
        });
        Self { address, keys: keys("0b"), miner, visits, posts: Vec::new(), sockets: Vec::new() }
    }

    #[track_caller]
    fn wait(&mut self) {
        match self.visits.recv_timeout(LIMIT).expect("nobody came") {
            Visit::WebSocket(socket) => self.sockets.push(*socket),
            Visit::Post(post) => self.posts.push(post),
        }
    }

    /// The next POST, whose message is checked.
    #[track_caller]
    pub(crate) fn post(&mut self) -> (Post, Said) {
        while self.posts.is_empty() {
            self.wait();
        }
        let post = self.posts.remove(0);
        assert_eq!((post.path.as_str(), post.headers["content-type"].as_str()), ("/ws/messages", "application/json"));
        let said = Said::check(self.miner, &post.body);
        (post, said)
    }

    /// The next connection, before anything was said.
    #[track_caller]
    pub(crate) fn visitor(&mut self) -> Visitor {
        while self.sockets.is_empty() {
            self.wait();
        }
        Visitor { socket: self.sockets.remove(0), keys: self.keys.clone(), miner: self.miner, binary: false }
    }

    /// The next connection, authenticated and welcome, and the nonce of its first frame.
    #[track_caller]
    pub(crate) fn welcome(&mut self) -> (Visitor, String) {
        let mut visitor = self.visitor();
        let nonce = visitor.auth();
        visitor.say("welcome", r#"{"message":"Connection established","status":"success"}"#);
        (visitor, nonce)
    }
}

pub(crate) struct Visitor {
    socket: WebSocket<TcpStream>,
    keys: Keypair,
    miner: Hotkey,
    /// It sends its JSON in binary frames.
    pub(crate) binary: bool,
}

impl Visitor {
    #[track_caller]
    pub(crate) fn text(&mut self) -> String {
        loop {
            match self.socket.read().expect("it went away") {
                Message::Text(text) => return text.as_str().into(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("not text: {other:?}"),
            }
        }
    }

    /// The first frame, checked as the original does; its nonce.
    #[track_caller]
    pub(crate) fn auth(&mut self) -> String {
        let text = self.text();
        let Ok(Frame::Auth(auth)) = bettensor::decode(text.as_bytes()) else { panic!("no auth: {text}") };
        let fields: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["hotkey", "nonce", "signature", "timestamp"]);
        assert_eq!(auth.hotkey.parse(), Ok(self.miner));
        assert!(self.miner.verify(auth.signing_string().unwrap().as_bytes(), &auth.seal.signature));
        assert!(auth.seal.nonce.parse::<f64>().is_ok(), "it looks like the originals'");
        auth.seal.nonce.to_string()
    }

    /// The next frame that is no heartbeat.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Said {
        loop {
            let said = self.any();
            if said.kind != "heartbeat" {
                return said;
            }
        }
    }

    #[track_caller]
    pub(crate) fn any(&mut self) -> Said {
        let text = self.text();
        Said::check(self.miner, &text)
    }

    pub(crate) fn say(&mut self, kind: &str, data: &str) {
        let frame = frame(&self.keys, kind, data);
        self.raw(frame);
    }

    pub(crate) fn confirm(&mut self, id: &str, status: &str, message: &str) {
        let frame = confirmation(&self.keys, id, status, message);
        self.raw(frame);
    }

    pub(crate) fn raw(&mut self, text: impl Into<String>) {
        let text = text.into();
        let frame = if self.binary { Message::binary(text.into_bytes()) } else { Message::text(text) };
        self.socket.send(frame).unwrap();
    }

    /// Pings and waits for the answer: whatever was said before has been read, and nothing but heartbeats came meanwhile.
    #[track_caller]
    pub(crate) fn assert_quiet(&mut self) {
        self.socket.send(Message::Ping(b"quiet"[..].into())).unwrap();
        loop {
            match self.socket.read().expect("it went away") {
                Message::Pong(_) => return,
                Message::Ping(_) => {}
                Message::Text(text) => assert_eq!(Said::check(self.miner, &text).kind, "heartbeat", "{text}"),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.socket.close(Some(frame)).unwrap();
        begin("the close handshake", move || while self.socket.read().is_ok() {}).wait();
    }
}
