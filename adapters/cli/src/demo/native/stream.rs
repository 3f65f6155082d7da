//! The bytes of one direction of one connection, taken apart: HTTP heads and bodies, and after an upgrade WebSocket
//! frames.
//!
//! ```text
//!  Head ─ content-length ─▶ Body ─▶ Head …
//!    └─ upgrade ─▶ Frames
//! ```
//!
//! Decided here: nothing of the demo's. It reads what our own client and hub write, neither compressed nor in parts; of
//! anything else it makes nothing.

/// What has not passed whole yet, and what it is.
#[derive(Debug, Default)]
pub(super) struct Stream {
    buffer: Vec<u8>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Head,
    Body(usize),
    Frames,
}

/// A text that has passed whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Passed {
    /// The body of a request or an answer.
    Body(Vec<u8>),
    /// A WebSocket text frame's payload, and the frame's bytes.
    Frame(Vec<u8>, usize),
}

impl Stream {
    /// Takes bytes in the order in which they pass.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Passed> {
        self.buffer.extend_from_slice(bytes);
        let mut passed = Vec::new();
        while let Some((taken, text)) = self.next() {
            self.buffer.drain(..taken);
            passed.extend(text);
        }
        passed
    }

    fn next(&mut self) -> Option<(usize, Option<Passed>)> {
        match self.stage {
            Stage::Head => {
                let end = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
                let head = String::from_utf8_lossy(self.buffer.get(..end)?).to_ascii_lowercase();
                let value =
                    |name| head.lines().find_map(|line| line.split_once(':').filter(|(known, _)| *known == name));
                let length = value("content-length").and_then(|(_, length)| length.trim().parse().ok());
                self.stage = match (value("upgrade"), length) {
                    (Some(_), _) => Stage::Frames,
                    (None, Some(length)) => Stage::Body(length),
                    (None, None) => Stage::Head,
                };
                Some((end, None))
            }
            Stage::Body(length) => {
                let body = self.buffer.get(..length)?.to_vec();
                self.stage = Stage::Head;
                Some((length, Some(Passed::Body(body))))
            }
            Stage::Frames => frame(&self.buffer),
        }
    }
}

/// The first frame, if it is whole: its length, and what it says if it is a text.
fn frame(bytes: &[u8]) -> Option<(usize, Option<Passed>)> {
    const TEXT: u8 = 1;
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let big = |bytes: &[u8]| bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
    let (length, mut at) = match second & 0x7f {
        126 => (big(bytes.get(2..4)?), 4),
        127 => (big(bytes.get(2..10)?), 10),
        short => (usize::from(short), 2),
    };
    let mut mask = [0; 4];
    if second & 0x80 != 0 {
        mask.copy_from_slice(bytes.get(at..at + 4)?);
        at += 4;
    }
    let payload = bytes.get(at..at + length)?;
    let clear = || payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    let whole = at + length;
    Some((whole, (first & 0x0f == TEXT).then(|| Passed::Frame(clear(), whole))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tungstenite::Message;
    use tungstenite::protocol::{Role, WebSocket};

    /// What tungstenite writes for these messages.
    fn written(role: Role, messages: &[Message]) -> Vec<u8> {
        let mut socket = WebSocket::from_raw_socket(std::io::Cursor::new(Vec::new()), role, None);
        for message in messages {
            socket.send(message.clone()).unwrap();
        }
        socket.get_ref().get_ref().clone()
    }

    #[test]
    fn frames_are_found_however_they_are_cut_masked_and_long() {
        let texts = ["", "short", &"m".repeat(300), &"l".repeat(70_000)];
        for role in [Role::Client, Role::Server] {
            let mut bytes = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n".to_vec();
            let mut messages: Vec<Message> = texts.iter().map(|text| Message::text(*text)).collect();
            messages.insert(1, Message::Ping("p".into()));
            bytes.extend(written(role, &messages));
            for size in [1, 7, 4096, bytes.len()] {
                let mut stream = Stream::default();
                let passed: Vec<Passed> = bytes.chunks(size).flat_map(|chunk| stream.take(chunk)).collect();
                assert_eq!(passed.len(), texts.len());
                for (passed, text) in passed.iter().zip(texts) {
                    let Passed::Frame(payload, whole) = passed else { panic!("{passed:?}") };
                    assert_eq!(payload, text.as_bytes());
                    assert!(*whole > text.len() && *whole <= text.len() + 14);
                }
                assert!(stream.buffer.is_empty());
            }
        }
    }

    #[test]
    fn bodies_are_found_one_after_the_other() {
        let bytes = b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No\r\n\r\nPOST / HTTP/1.1\r\ncontent-length:1\r\n\r\nd";
        for size in [1, 10, bytes.len()] {
            let mut stream = Stream::default();
            let passed: Vec<Passed> = bytes.chunks(size).flat_map(|chunk| stream.take(chunk)).collect();
            assert_eq!(passed, [Passed::Body(b"abc".to_vec()), Passed::Body(b"d".to_vec())]);
        }
    }
}
