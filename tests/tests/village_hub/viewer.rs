//! A viewer for tests: a socket, and what the wire facts say.

use core::net::SocketAddr;
use core::time::Duration;
use serde_json::Value;
use std::net::TcpStream;
use std::time::Instant;
use tungstenite::{Error, Message, WebSocket};

/// For everything that is waited for.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Closed {
    pub(crate) code: u16,
    pub(crate) reason: String,
}

pub(crate) struct Viewer {
    pub(crate) socket: WebSocket<TcpStream>,
}

impl Viewer {
    /// At this path, and what the upgrade was refused with: the status, and the seconds of `Retry-After`.
    pub(crate) fn try_open(address: SocketAddr, path: &str) -> Result<Self, (u16, Option<u64>)> {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        match tungstenite::client(format!("ws://{address}{path}"), stream) {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => {
                let after = answer.headers().get("Retry-After").and_then(|after| after.to_str().ok()?.parse().ok());
                Err((answer.status().as_u16(), after))
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// At this path, greeted, with its `connection_id`.
    #[track_caller]
    pub(crate) fn join(address: SocketAddr, path: &str) -> (Self, String) {
        let mut viewer = Self::try_open(address, path).unwrap();
        let greeting = viewer.frame();
        assert_eq!(greeting["type"], "connection_established");
        let id = greeting["connection_id"].as_str().unwrap().to_owned();
        (viewer, id)
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    /// Asks for something, and is answered with this.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str, kind: &str) -> Value {
        self.send(text);
        self.expect(kind)
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
    pub(crate) fn frame(&mut self) -> Value {
        serde_json::from_str(&self.next().expect("the connection ended")).unwrap()
    }

    /// The next frame of this type, whatever comes between.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.frame();
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// Everything it has got, up to a pong that it asks for now.
    #[track_caller]
    pub(crate) fn all(&mut self) -> Vec<Value> {
        self.send(r#"{"type":"ping"}"#);
        let mut frames = Vec::new();
        loop {
            match self.frame() {
                frame if frame["type"] == "pong" => return frames,
                frame => frames.push(frame),
            }
        }
    }
}
