//! A miner for tests: a socket, keys, and what the wire facts say, nothing of ours beside the codec.

use bowline::wire::bettensor::{self, Confirmation, Envelope, Frame, Kind, Stamp, Unsigned};
use bowline::wire::timestamp::Timestamp;
use bowline_transport::Keypair;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Instant, SystemTime};
use tungstenite::{Error, Message, WebSocket};

/// For everything that is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The keys of the `n`th miner.
pub(crate) fn keys(n: u32) -> Keypair {
    Keypair::from_seed_hex(&format!("{n:064x}")).unwrap()
}

pub(crate) fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now.as_micros().try_into().unwrap()
}

pub(crate) fn nonce() -> String {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    NONCE.fetch_add(1, Ordering::Relaxed).to_string()
}

/// Signs whatever is said with a stamp of this moment.
pub(crate) fn signed(keys: &Keypair, sender: &str, say: impl FnOnce(Stamp<'_>) -> Unsigned) -> String {
    signed_by(0, keys, sender, say)
}

/// The same by a clock that is so many seconds ahead.
pub(crate) fn signed_by(ahead: i64, keys: &Keypair, sender: &str, say: impl FnOnce(Stamp<'_>) -> Unsigned) -> String {
    let nonce = nonce();
    let timestamp = Timestamp::from_unix_micros(now() + ahead * 1_000_000);
    let unsigned = say(Stamp { sender, timestamp, nonce: &nonce });
    let signature = keys.sign(unsigned.signing_string().as_bytes());
    unsigned.signed(&signature)
}

pub(crate) fn auth(keys: &Keypair) -> String {
    signed(keys, &keys.hotkey().to_string(), Unsigned::auth)
}

pub(crate) fn message(keys: &Keypair, kind: &str, data: &str) -> String {
    let say = |stamp: Stamp<'_>| Unsigned::message(stamp, &Kind::parse(kind.into()), data).unwrap();
    signed(keys, &keys.hotkey().to_string(), say)
}

/// A prediction by a clock that is so many seconds ahead.
pub(crate) fn prediction_by(ahead: i64, keys: &Keypair, id: &str) -> String {
    let data = format!(r#"{{"prediction_id":"{id}","game_id":"g","home_score":3,"away_score":1}}"#);
    let say = |stamp: Stamp<'_>| Unsigned::message(stamp, &Kind::Prediction, &data).unwrap();
    signed_by(ahead, keys, &keys.hotkey().to_string(), say)
}

pub(crate) fn prediction(keys: &Keypair, id: &str) -> String {
    message(keys, "prediction", &format!(r#"{{"prediction_id":"{id}","game_id":"g","home_score":3,"away_score":1}}"#))
}

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Closed {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

pub(crate) struct Client {
    pub(crate) keys: Keypair,
    pub(crate) socket: WebSocket<TcpStream>,
}

impl Client {
    /// The upgrade alone.
    pub(crate) fn open(address: SocketAddr, keys: Keypair) -> Self {
        Self::try_open(address, keys).unwrap_or_else(|status| panic!("the upgrade was answered with {status}"))
    }

    /// The status with which the upgrade was refused.
    pub(crate) fn try_open(address: SocketAddr, keys: Keypair) -> Result<Self, u16> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        match tungstenite::client(format!("ws://{address}/ws"), stream) {
            Ok((socket, _)) => Ok(Self { keys, socket }),
            Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => Err(answer.status().as_u16()),
            Err(other) => panic!("{other}"),
        }
    }

    /// Connected, authenticated, welcomed.
    #[track_caller]
    pub(crate) fn join(address: SocketAddr, n: u32) -> Self {
        let mut client = Self::open(address, keys(n));
        let auth = auth(&client.keys);
        client.send(auth);
        let welcome = client.envelope();
        assert_eq!(welcome.kind, "welcome", "{welcome:?}");
        client
    }

    pub(crate) fn send(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).unwrap();
    }

    /// The next text frame, or how it ended.
    pub(crate) fn next(&mut self) -> Result<String, Closed> {
        let until = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < until, "nothing came");
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(text.as_str().to_owned()),
                Ok(Message::Close(frame)) => {
                    let _ = self.socket.flush();
                    let (code, reason) = frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
                    return Err(Closed { code, reason });
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("nothing came"),
                Err(_) => return Err(Closed { code: 1006, reason: String::new() }),
            }
        }
    }

    #[track_caller]
    pub(crate) fn text(&mut self) -> String {
        self.next().expect("the connection ended")
    }

    #[track_caller]
    pub(crate) fn envelope(&mut self) -> Said {
        Said::read(&self.text())
    }

    /// The next envelope of this type, whatever comes between.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: &str) -> Said {
        loop {
            let said = self.envelope();
            if said.kind == kind {
                return said;
            }
        }
    }

    #[track_caller]
    pub(crate) fn closed(&mut self) -> Closed {
        loop {
            if let Err(closed) = self.next() {
                return closed;
            }
        }
    }

    /// Predicts and waits for the confirmation.
    #[track_caller]
    pub(crate) fn predict(&mut self, id: &str) -> Said {
        let text = prediction(&self.keys, id);
        self.send(text);
        let said = self.expect("confirmation");
        assert_eq!(said.data["prediction_id"], id);
        said
    }

    /// Ends the TCP connection without a word.
    pub(crate) fn cut(self) {
        drop(self);
    }
}

/// A frame of the validator's, its signature checked if it has one.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) kind: String,
    pub(crate) data: Value,
    pub(crate) sender: String,
}

impl Said {
    #[track_caller]
    pub(crate) fn read(text: &str) -> Self {
        let Ok(Frame::Envelope(envelope)) = bettensor::decode(text.as_bytes()) else { panic!("no envelope: {text}") };
        let Envelope { kind, sender, data, seal: Some(seal), .. } = &envelope else { panic!("unsigned: {text}") };
        let validator: bowline_transport::Hotkey = sender.parse().unwrap();
        assert!(validator.verify(envelope.signing_string().unwrap().as_bytes(), &seal.signature), "{text}");
        Self { kind: kind.as_str().into(), data: serde_json::from_str(data).unwrap(), sender: sender.to_string() }
    }

    pub(crate) fn success(&self) -> bool {
        Confirmation::read(&self.data.to_string()).unwrap().success
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: v\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

pub(crate) fn post(address: SocketAddr, body: &str) -> Answer {
    http(address, "POST", "/ws/messages", body)
}

/// Waits until this holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}
