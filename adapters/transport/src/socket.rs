//! A WebSocket on a socket that never blocks, and what its endings mean.
//!
//! Decided here: the limits of the codec, which close code and which [`Reason`] an error of its becomes, and when bytes
//! have moved. Nothing is retried and nothing waits.
//!
//! ```text
//! read()  ─▶ Text (binary frames too, where they are read) · Binary · Pong · Ping · Part · Nothing · Ended(Explanation, what the peer said about coming back)
//! write() ─▶ Done · Blocked · Ended(Explanation)  Blocked: it is queued, at most one data frame, until flush() says Done
//! ```

use crate::explanation::Explanation;
use crate::node::Stream;
use bowline::{LinkId, Reason};
use core::time::Duration;
use std::io::{self, Read, Write};
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tungstenite::{Error, Message, Utf8Bytes, WebSocket};

/// Read and cleared on every read call, so small; four of Ethernet's packets.
const READ_BUFFER: usize = 8 * 1024;

/// Bytes of a message that is not whole yet after which it is told that some have come: less than a second of the slowest
/// link, more than any control frame has.
const PART: u64 = 16 * 1024;

/// Written at once when so much is queued; a batch of small frames leaves together (corked).
const WRITE_BUFFER: usize = 16 * 1024;

/// Above the largest data frame: its envelope, and control frames.
const WRITE_SLACK: usize = 64 * 1024;

/// So much of what comes behind something that is no WebSocket is read to be thrown away: what is left of a frame that was
/// a little too long, whoever sent it, and not a flood.
#[cfg(feature = "hub")]
const WASTE: usize = 4 << 20;

pub(crate) enum Incoming {
    Text(Utf8Bytes),
    Binary,
    Ping,
    Pong,
    /// No whole message, but another part of one ([`PART`]).
    Part,
    /// Nothing more at the moment.
    Nothing,
    /// How, and after what time the peer may be dialled again.
    Ended(Explanation, Duration),
}

pub(crate) enum Wrote {
    Done,
    /// The system takes no more at the moment.
    Blocked,
    Ended(Explanation),
}

pub(crate) struct Socket {
    pub(crate) link: LinkId,
    /// The session was told that nothing can be written.
    pub(crate) blocked: bool,
    websocket: WebSocket<Counted>,
    written_before: u64,
    /// What had been read when a message was whole, or a part was told.
    read_before: u64,
    closed_with: Option<u16>,
    /// The close frame with which we answered what is no WebSocket, or too long; nothing more can be read.
    pub(crate) refused: Option<u16>,
    /// Bytes thrown away.
    #[cfg(feature = "hub")]
    waste: usize,
}

impl Socket {
    /// `limit` is for inbound messages; outbound ones are limited by the session.
    pub(crate) fn new(
        link: LinkId,
        stream: Box<dyn Stream>,
        early: &[u8],
        role: Role,
        limit: usize,
        longest: usize,
    ) -> Self {
        Self::sized(link, stream, early, role, limit, longest, READ_BUFFER)
    }

    /// As `new`, with a read buffer of this size.
    pub(crate) fn sized(
        link: LinkId,
        stream: Box<dyn Stream>,
        early: &[u8],
        role: Role,
        limit: usize,
        longest: usize,
        read_buffer: usize,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(read_buffer)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(longest.saturating_add(WRITE_SLACK))
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        let counted = Counted { stream, read: 0, written: 0, allowance: usize::MAX };
        let websocket = WebSocket::from_partially_read(counted, early.to_vec(), role, Some(config));
        Self {
            link,
            blocked: false,
            websocket,
            written_before: 0,
            read_before: 0,
            closed_with: None,
            refused: None,
            #[cfg(feature = "hub")]
            waste: 0,
        }
    }

    /// The next thing that came in. `binary`: text in a binary frame is read like text in a text frame.
    pub(crate) fn read(&mut self, binary: bool) -> Incoming {
        let incoming = self.next(binary);
        let read = self.websocket.get_ref().read;
        let incoming = match incoming {
            Incoming::Nothing if read.saturating_sub(self.read_before) < PART => return Incoming::Nothing,
            Incoming::Nothing => Incoming::Part,
            whole => whole,
        };
        self.read_before = read;
        incoming
    }

    fn next(&mut self, binary: bool) -> Incoming {
        match self.websocket.read() {
            Ok(Message::Text(text)) => Incoming::Text(text),
            Ok(Message::Binary(bytes)) if binary => Utf8Bytes::try_from(bytes).map_or(Incoming::Binary, Incoming::Text),
            Ok(Message::Binary(_) | Message::Frame(_)) => Incoming::Binary,
            Ok(Message::Ping(_)) => Incoming::Ping,
            Ok(Message::Pong(_)) => Incoming::Pong,
            Ok(Message::Close(frame)) => {
                // The answer is queued; nobody waits for the end of TCP (it may never come).
                let _ = self.websocket.flush();
                let (code, reason) =
                    frame.as_ref().map_or((1005, ""), |frame| (frame.code.into(), frame.reason.as_str()));
                Incoming::Ended(Explanation::with(Reason::Closed(code), reason), pause(code, reason))
            }
            Err(error) => self.ended(error).map_or(Incoming::Nothing, |why| Incoming::Ended(why, Duration::ZERO)),
        }
    }

    pub(crate) fn write(&mut self, message: Message) -> Wrote {
        match self.websocket.write(message) {
            Ok(()) => Wrote::Done,
            Err(error) => self.ended(error).map_or(Wrote::Blocked, Wrote::Ended),
        }
    }

    pub(crate) fn flush(&mut self) -> Wrote {
        match self.websocket.flush() {
            Ok(()) => Wrote::Done,
            Err(error) => self.ended(error).map_or(Wrote::Blocked, Wrote::Ended),
        }
    }

    /// Whether bytes have left since this was asked last: a slow reader is not a dead one.
    pub(crate) fn moved(&mut self) -> bool {
        let written = self.websocket.get_ref().written;
        core::mem::replace(&mut self.written_before, written) != written
    }

    /// From now on inbound messages may be as long as this.
    #[cfg(feature = "hub")]
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.websocket.set_config(|config| {
            config.max_message_size = Some(limit);
            config.max_frame_size = Some(limit);
        });
    }

    /// From now on so many bytes are read, and then there is nothing: a peer that sends as fast as it is read, and never
    /// ends a message, would keep its reader for ever.
    #[cfg(feature = "hub")]
    pub(crate) fn allow(&mut self, bytes: usize) {
        self.websocket.get_mut().allowance = bytes;
    }

    /// Whether all that was allowed has been read.
    #[cfg(feature = "hub")]
    pub(crate) fn exhausted(&self) -> bool {
        self.websocket.get_ref().allowance == 0
    }

    /// Throws away what came in behind something that is no WebSocket. True: the peer has ended the connection.
    #[cfg(feature = "hub")]
    pub(crate) fn discard(&mut self) -> bool {
        let mut waste = [0; 4096];
        while self.waste < WASTE {
            match self.websocket.get_mut().read(&mut waste) {
                Ok(0) => return true,
                Ok(read) => self.waste += read,
                Err(error) => return !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
            }
        }
        // A flood: enough.
        true
    }

    /// Whether the close handshake was begun from here.
    pub(crate) const fn closed(&self) -> bool {
        self.closed_with.is_some()
    }

    /// Begins the close handshake.
    pub(crate) fn close(&mut self, code: u16, reason: impl Into<Utf8Bytes>) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.closed_with = Some(code);
        let _ = self.websocket.close(Some(frame));
        let _ = self.websocket.flush();
    }

    /// Says why and goes: the close frame, then whatever came in is taken out of the system's buffer, or dropping the
    /// socket would reset the connection before the peer has read the frame.
    pub(crate) fn turn_away(mut self, code: u16, reason: &'static str) {
        self.close(code, reason);
        for _ in 0..64 {
            match self.read(false) {
                Incoming::Text(_) | Incoming::Binary | Incoming::Ping | Incoming::Pong => {}
                Incoming::Part | Incoming::Nothing | Incoming::Ended(..) => break,
            }
        }
    }

    /// `None`: it only has to wait.
    fn ended(&mut self, error: Error) -> Option<Explanation> {
        // First: every turn of reading ends so, and the text of an error costs more than a frame.
        if let Error::Io(error) = &error
            && matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        {
            return None;
        }
        let said = error.to_string();
        let code = match error {
            // Impossible by the limits above; treated as a connection that broke.
            Error::WriteBufferFull(_) => return Some(Reason::Stalled.into()),
            Error::ConnectionClosed | Error::AlreadyClosed => {
                return Some(Reason::Closed(self.closed_with.unwrap_or(1006)).into());
            }
            Error::Capacity(_) => self.refuse(1009, "too large"),
            Error::Utf8(_) => self.refuse(1007, "not UTF-8"),
            Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => None,
            Error::Protocol(_) | Error::AttackAttempt => self.refuse(1002, "not WebSocket"),
            Error::Io(_) | Error::Tls(_) | Error::Url(_) | Error::Http(_) | Error::HttpFormat(_) => None,
        };
        Some(Explanation::with(Reason::Closed(code.unwrap_or(1006)), said))
    }

    /// What the peer sent is refused by a close frame. For us the connection just ended: 1009 from us says nothing about
    /// the size of our messages.
    fn refuse(&mut self, code: u16, reason: &'static str) -> Option<u16> {
        self.refused = Some(code);
        if self.closed_with.is_none() {
            self.close(code, reason);
        }
        None
    }
}

/// How long a server that restarts or is full asks us to stay away: `retry-after=<seconds>` in the reason of its close
/// frame. The core cuts it (rule B4).
fn pause(code: u16, reason: &str) -> Duration {
    let seconds = reason.strip_prefix("retry-after=").filter(|_| matches!(code, 1012 | 1013));
    let plain = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    seconds
        .filter(plain)
        .and_then(|seconds| seconds.parse::<f64>().ok())
        .filter(|seconds| *seconds <= f64::from(u32::MAX))
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or_default()
}

/// Counts what comes and leaves, and lets in no more than is allowed at a time.
struct Counted {
    stream: Box<dyn Stream>,
    read: u64,
    written: u64,
    allowance: usize,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.allowance);
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let read = self.stream.read(buffer)?;
        self.allowance = self.allowance.saturating_sub(read);
        self.read = self.read.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(read)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.written = self.written.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b4_a_close_frame_may_say_when_to_come_back() {
        let seconds = Duration::from_secs;
        for (code, reason, after) in [
            (1012, "retry-after=7", seconds(7)),
            (1013, "retry-after=0", seconds(0)),
            (1013, "retry-after=4294967295", seconds(4_294_967_295)),
            (1013, "retry-after=4294967296", seconds(0)),
            (1013, "retry-after=-1", seconds(0)),
            (1012, "retry-after=2.5", Duration::from_millis(2500)),
            (1012, "retry-after=2.5.1", seconds(0)),
            (1013, "retry-after=1e9", seconds(0)),
            (1013, "retry-after=", seconds(0)),
            (1012, "Retry after 7", seconds(0)),
            (1000, "retry-after=7", seconds(0)),
            (1008, "retry-after=7", seconds(0)),
        ] {
            assert_eq!(pause(code, reason), after, "{code} {reason}");
        }
    }
}
