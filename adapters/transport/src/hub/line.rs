//! One connection's socket, and what its frames say, found out before the hub's lock is taken.
//!
//! ```text
//!  First ── auth frame ──▶ Asked ── welcome ──▶ Open ── close ──▶ Closing ──▶ gone
//!    │ anything else         not read              │ at most 64 frames and 256 KiB a turn
//!    └──▶ Refused            meanwhile             └──▶ what is no WebSocket: closed, the rest thrown away
//! ```
//!
//! Decided here: whether a frame is an envelope that the authenticated hotkey has signed. Whether it is fresh, and what
//! follows from it, is the machine's.

use super::{Hub, sign::Signer};
use crate::http::Bytes;
use crate::keys::Hotkey;
use crate::node::Stream;
use crate::socket::{Incoming, Socket};
use bowline::hub::{ConnId, Stamp};
use bowline::wire::bettensor::{self, AUTH_LIMIT, BAD_MESSAGE, Envelope, Frame, Kind, MINER_LIMIT, REFUSED, Seal};
use bowline::wire::{KeyedHash, timestamp::Timestamp};
use bowline::{Cause, Head, MessageId};
use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tungstenite::protocol::Role as Side;
use tungstenite::{Message, Utf8Bytes};

/// The longest frame, and the longest body of a request: a prediction has half a kilobyte.
pub(super) const LONGEST_FRAME: usize = 64 * 1024;

/// Read at once, and kept for every connection.
const READ_BUFFER: usize = 2 * 1024;

/// So many frames, and so many bytes, are read in one turn before the others get theirs.
const FRAMES_A_TURN: usize = 64;
const BYTES_A_TURN: usize = 4 * LONGEST_FRAME;

/// A connection that was let in and became a WebSocket.
///
/// ```
/// fn its_name(line: &bowline_transport::hub::Line) -> u64 {
///     line.conn().get()
/// }
/// # let _ = its_name;
/// ```
#[derive(Debug)]
pub struct Line {
    conn: ConnId,
    state: Mutex<State>,
    /// Told when there is something to read for again.
    changed: event_listener::Event,
}

/// What a turn of reading came to.
///
/// ```
/// use bowline_transport::hub::Reading;
/// assert_ne!(Reading::Again, Reading::Over);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Nothing more at the moment: wait until the socket can be read.
    Empty,
    /// There may be more, but it is the turn of others.
    Again,
    /// Wait for [`Line::changed`]: it is being found out who this is.
    Held,
    /// It is over.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    First,
    Asked,
    Open,
    Closing,
    Gone,
}

pub(super) struct State {
    pub(super) socket: Socket,
    pub(super) stage: Stage,
    /// Something was written and not flushed.
    pub(super) dirty: bool,
    /// Who it says it is, or is.
    pub(super) who: Option<(Hotkey, Box<str>)>,
    pub(super) claim: Option<Claim>,
    /// Where it takes messages by HTTP, found out when it was let in.
    pub(super) receiver: Option<crate::http::Target>,
    /// What it is told when it is refused.
    pub(super) refusal: Cow<'static, str>,
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("State").field("stage", &self.stage).field("who", &self.who).finish_non_exhaustive()
    }
}

/// An auth frame's words and the signature they are said to have.
pub(super) struct Claim {
    said: String,
    signature: Box<[u8; 64]>,
}

impl Claim {
    pub(super) fn holds(&self, hotkey: &Hotkey) -> bool {
        hotkey.verify(self.said.as_bytes(), &self.signature)
    }
}

/// What came in, for the machine.
pub(super) enum Item {
    /// The first frame: who it says it is.
    Auth {
        address: Box<str>,
        stamp: Stamp,
    },
    /// The first frame is none of that.
    Stranger,
    Heard(Heard),
    /// What came is no WebSocket, or too long; the close frame has been sent.
    Broken {
        too_large: bool,
    },
    Ended(Cause),
}

/// A frame of an authenticated peer.
pub(super) struct Heard {
    pub(super) head: Head,
    pub(super) bytes: u32,
    pub(super) stamp: Option<Stamp>,
    /// What is answered if the machine understands it.
    pub(super) reply: Option<Utf8Bytes>,
    pub(super) content: Option<Content>,
}

impl Heard {
    const fn of(head: Head, bytes: u32) -> Self {
        Self { head, bytes, stamp: None, reply: None, content: None }
    }
}

/// A message for the application.
pub(super) struct Content {
    pub(super) kind: Cow<'static, str>,
    pub(super) data: Bytes,
    pub(super) id: Option<(MessageId, Box<str>)>,
}

impl Line {
    pub(super) fn new(conn: ConnId, stream: Box<dyn Stream>, early: &[u8]) -> Self {
        let socket =
            Socket::sized(bowline::LinkId::NONE, stream, early, Side::Server, AUTH_LIMIT, MINER_LIMIT, READ_BUFFER);
        let state = State {
            socket,
            stage: Stage::First,
            dirty: false,
            who: None,
            claim: None,
            receiver: None,
            refusal: REFUSED.into(),
        };
        Self { conn, state: Mutex::new(state), changed: event_listener::Event::new() }
    }

    /// Its name.
    #[must_use]
    pub const fn conn(&self) -> ConnId {
        self.conn
    }

    /// Waits until a line that was [`Held`](Reading::Held) is worth reading again.
    pub async fn changed(&self) {
        loop {
            let changed = self.changed.listen();
            if self.lock().stage != Stage::Asked {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, stage: Stage) {
        let mut state = self.lock();
        if stage == Stage::Open {
            state.socket.set_limit(LONGEST_FRAME);
        }
        state.stage = stage;
        drop(state);
        self.changed.notify(usize::MAX);
    }

    /// Reads what there is, and finds out what it says.
    fn read(&self, hub: &Hub, names: &KeyedHash) -> (Vec<Item>, Reading) {
        let mut items = Vec::new();
        let mut texts = Vec::new();
        let (reading, who) = {
            let mut state = self.lock();
            match state.stage {
                Stage::Gone => return (items, Reading::Over),
                Stage::Asked => return (items, Reading::Held),
                Stage::First | Stage::Open | Stage::Closing => {}
            }
            let reading = state.pull(&mut texts);
            (reading, state.who.clone())
        };
        for pulled in texts {
            items.push(match pulled {
                Pulled::First(text) => self.first(&text, names),
                Pulled::Text(text) => match &who {
                    Some((hotkey, address)) => Item::Heard(hub.hear(text, hotkey, address, names)),
                    None => Item::Stranger,
                },
                Pulled::Other(head) => Item::Heard(Heard::of(head, 0)),
                Pulled::Broken { too_large } => Item::Broken { too_large },
                Pulled::Ended(cause) => Item::Ended(cause),
            });
        }
        (items, reading)
    }

    /// The first frame. Whether its signature holds is found out later, a few at a time.
    fn first(&self, text: &Utf8Bytes, names: &KeyedHash) -> Item {
        let Ok(Frame::Auth(auth)) = bettensor::decode(text.as_str().as_bytes()) else { return Item::Stranger };
        let (Ok(hotkey), Ok(said)) = (auth.hotkey.parse::<Hotkey>(), auth.signing_string()) else {
            return Item::Stranger;
        };
        // In the format of its own that messages must name as their sender, too.
        let address: Box<str> = auth.hotkey.into();
        let stamp = stamp(&auth.seal, names);
        let mut state = self.lock();
        state.who = Some((hotkey, address.clone()));
        state.claim = Some(Claim { said, signature: Box::new(auth.seal.signature) });
        Item::Auth { address: hotkey.to_string().into(), stamp }
    }
}

enum Pulled {
    First(Utf8Bytes),
    Text(Utf8Bytes),
    Other(Head),
    Broken { too_large: bool },
    Ended(Cause),
}

impl State {
    fn pull(&mut self, pulled: &mut Vec<Pulled>) -> Reading {
        self.socket.allow(BYTES_A_TURN);
        for _ in 0..FRAMES_A_TURN {
            if self.socket.refused.is_some() {
                // What still comes is thrown away: closing a socket with unread bytes would take the close frame back.
                if self.socket.discard() {
                    pulled.push(Pulled::Ended(Cause::Closed(1006)));
                    return Reading::Empty;
                }
                return Reading::Empty;
            }
            let closing = self.stage == Stage::Closing;
            match self.socket.read() {
                Incoming::Text(_) | Incoming::Binary | Incoming::Ping | Incoming::Pong if closing => {}
                Incoming::Text(text) if self.stage == Stage::First => {
                    self.stage = Stage::Asked;
                    pulled.push(Pulled::First(text));
                    return Reading::Held;
                }
                Incoming::Text(text) => pulled.push(Pulled::Text(text)),
                Incoming::Binary if self.stage == Stage::First => {
                    self.stage = Stage::Asked;
                    pulled.push(Pulled::First(Utf8Bytes::default()));
                    return Reading::Held;
                }
                Incoming::Binary => pulled.push(Pulled::Other(Head::Malformed)),
                Incoming::Ping => pulled.push(Pulled::Other(Head::Other)),
                Incoming::Pong => pulled.push(Pulled::Other(Head::Pong)),
                Incoming::Nothing if self.socket.exhausted() => {
                    // Four of the longest messages, and not one of them has ended: a flood of empty fragments.
                    if pulled.is_empty() {
                        pulled.push(Pulled::Other(Head::Malformed));
                    }
                    return self.enough(pulled);
                }
                Incoming::Nothing => return Reading::Empty,
                Incoming::Ended(cause, _) => match self.socket.refused {
                    Some(code) => pulled.push(Pulled::Broken { too_large: code == 1009 }),
                    None => {
                        pulled.push(Pulled::Ended(cause));
                        return Reading::Empty;
                    }
                },
            }
        }
        self.enough(pulled)
    }

    /// As much as is read in a turn. Whoever has so much to say before it says who it is will not say it any more.
    fn enough(&mut self, pulled: &mut Vec<Pulled>) -> Reading {
        if self.stage != Stage::First {
            return Reading::Again;
        }
        self.stage = Stage::Asked;
        pulled.push(Pulled::First(Utf8Bytes::default()));
        Reading::Held
    }
}

fn stamp(seal: &Seal<'_>, names: &KeyedHash) -> Stamp {
    let nonce = names.content("nonce", &seal.nonce).bits() & u128::from(u64::MAX);
    Stamp { nonce: u64::try_from(nonce).unwrap_or_default(), issued: seal.timestamp.unix_micros() }
}

/// Whether an envelope is one that `who` has signed, and its stamp.
pub(super) fn sealed(envelope: &Envelope<'_>, who: &Hotkey, names: &KeyedHash) -> Option<Stamp> {
    let seal = envelope.seal.as_ref()?;
    let said = envelope.signing_string().ok()?;
    who.verify(said.as_bytes(), &seal.signature).then(|| stamp(seal, names))
}

/// The unsigned word for what is not signed as it should be.
pub(super) fn bad_message() -> Utf8Bytes {
    bettensor::encode_error(BAD_MESSAGE, now()).into()
}

/// The unsigned word for what is more than is allowed.
pub(super) fn too_much() -> Message {
    Message::text(bettensor::encode_error("Too many messages", now()))
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_unix_micros(wall())
}

/// Our wall clock, in microseconds since the epoch.
pub(super) fn wall() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Hub {
    /// For the adapter: reads what there is on this line and applies it.
    pub fn readable(&self, line: &Arc<Line>) -> Reading {
        let names = &self.names;
        let (items, reading) = line.read(self, names);
        if items.is_empty() {
            return reading;
        }
        self.with(|engine| engine.apply(line, items));
        if line.lock().stage == Stage::Gone { Reading::Over } else { reading }
    }

    /// What a frame of this peer's says.
    fn hear(&self, text: Utf8Bytes, who: &Hotkey, address: &str, names: &KeyedHash) -> Heard {
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let whole: Bytes = text.into();
        let Ok(Frame::Envelope(envelope)) = bettensor::decode(&whole) else { return Heard::of(Head::Malformed, bytes) };
        let ours = *envelope.sender == *address || envelope.sender.parse::<Hotkey>().is_ok_and(|sender| sender == *who);
        let Some(stamp) = Some(()).filter(|()| ours).and_then(|()| sealed(&envelope, who, names)) else {
            return Heard::of(Head::Malformed, bytes);
        };
        let heard = Heard { stamp: Some(stamp), ..Heard::of(Head::Other, bytes) };
        match envelope.kind {
            Kind::Heartbeat => Heard { reply: Some(self.signer.heartbeat_ack()), ..heard },
            // Life, like a pong, but no proof that anything has arrived: it may be older than what was sent.
            Kind::HeartbeatResponse => heard,
            Kind::Confirmation | Kind::GameUpdate | Kind::HeartbeatAck | Kind::Welcome | Kind::Error => heard,
            Kind::Prediction | Kind::Custom(_) => match self.content(&envelope, &whole, names) {
                Ok(content) => {
                    let id = content.id.as_ref().map(|(id, _)| *id);
                    Heard { head: Head::Data { id, key: None }, content: Some(content), ..heard }
                }
                Err(why) => Heard { reply: Some(self.signer.error(&why)), ..heard },
            },
        }
    }

    /// The message in an envelope, or what is wrong with it.
    pub(super) fn content(&self, envelope: &Envelope<'_>, whole: &Bytes, names: &KeyedHash) -> Result<Content, String> {
        let id = bettensor::prediction_id(envelope.data).ok();
        if envelope.kind == Kind::Prediction && id.is_none() {
            return Err("A prediction needs a prediction_id".to_owned());
        }
        if !self.takes(&envelope.kind) {
            return Err(match &envelope.kind {
                Kind::Prediction => "No handler registered for predictions".to_owned(),
                other => format!("Unknown message type: {}", other.as_str()),
            });
        }
        let kind = match &envelope.kind {
            Kind::Prediction => Cow::Borrowed("prediction"),
            other => Cow::Owned(other.as_str().to_owned()),
        };
        let id = id.map(|id| (names.id(&id), id.into()));
        Ok(Content { kind, data: whole.slice_ref(envelope.data.as_bytes()), id })
    }
}

/// A line for a signer to greet on.
pub(super) fn welcome(signer: &Signer) -> Message {
    Message::Text(signer.welcome())
}
