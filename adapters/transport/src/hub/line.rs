//! One connection's socket, and what its frames say, found out before the hub's lock is taken.
//!
//! ```text
//!  First ── claim ──▶ Asked ── welcome ──▶ Open ── close ──▶ Closing ──▶ gone
//!    │ anything else    ▲ not read            │ at most 64 frames and 4 of the longest a turn
//!    └──▶ Refused       │ meanwhile           └──▶ what is no WebSocket: closed, the rest thrown away
//!                     guest
//! ```
//!
//! Decided here: how much is read at once, and of whom. What a frame says is its [`HubWire`]'s; what follows from it, the
//! machine's.

use super::Hub;
use super::native::{self, Hello};
use super::wire::{Claim, Complaint, Content, Heard, HubWire, Said, Text};
use crate::explanation::Explanation;
use crate::node::Stream;
use crate::socket::{Incoming, Socket, Wrote};
use bowline::hub::{ConnId, Stamp};
use bowline::wire::native::{FRAME_LIMIT, Refusal, SUBPROTOCOL};
use bowline::{ContentKey, Head, MessageId, Reason};
use core::net::IpAddr;
use core::panic::AssertUnwindSafe;
use core::sync::atomic::{AtomicBool, Ordering};
use std::borrow::Cow;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tungstenite::protocol::Role as Side;

/// Read at once, and kept for every connection.
const READ_BUFFER: usize = 2 * 1024;

/// A text of at most this length, in bytes, is copied out of the read buffer: as long as a text shares the buffer, the rest
/// of the buffer is all that can be read at once, down to a single frame. A longer one is worth a buffer of its own.
const COPIED: usize = 4 * 1024;

/// So many frames, and so many times the longest, are read in one turn before the others get theirs.
const FRAMES_A_TURN: usize = 64;
const LONGEST_A_TURN: usize = 4;

/// A connection that was let in and became a WebSocket.
///
/// ```
/// use bowline_transport::hub::{HubWire, Line};
/// fn its_name<W: HubWire>(line: &Line<W>) -> u64 {
///     line.conn().get()
/// }
/// ```
#[derive(Debug)]
pub struct Line<W: HubWire> {
    conn: ConnId,
    /// In microseconds since 1970.
    since: i64,
    /// The last part of the path at which it was asked for.
    path: &'static str,
    subprotocol: Option<&'static str>,
    /// It is ended when its connection ends: nobody could come back under that name.
    guest: AtomicBool,
    /// It keeps account of where it is in its topics.
    placed: AtomicBool,
    /// Who it says it is, or is.
    peer: OnceLock<W::Peer>,
    state: Mutex<State<W>>,
    /// Told when there is something to read for again.
    changed: event_listener::Event,
}

/// A connection that was let in, and its line as soon as it is a WebSocket.
pub(super) struct Door<W: HubWire> {
    pub(super) conn: ConnId,
    /// Where it comes from.
    pub(super) address: IpAddr,
    /// The last part of the path at which it was asked for.
    pub(super) path: &'static str,
    pub(super) subprotocol: Option<&'static str>,
    pub(super) line: Option<Arc<Line<W>>>,
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

pub(super) struct State<W: HubWire> {
    pub(super) socket: Socket,
    pub(super) stage: Stage,
    /// Something was written and not flushed.
    pub(super) dirty: bool,
    pub(super) proof: Option<W::Proof>,
    /// A native client's first frame, until it is found out who that is; and why it is refused.
    pub(super) hello: Option<Hello>,
    pub(super) refused: Option<Refusal>,
    /// Its first frame has shown its session's token.
    pub(super) proven: bool,
    /// What it shows anew.
    pub(super) reauth: native::Reauth,
    /// Where it takes messages by HTTP, found out when it was let in.
    pub(super) receiver: Option<crate::http::Target>,
    /// What the application said when it refused it.
    pub(super) refusal: Option<Cow<'static, str>>,
    /// When it says that it was signed, and when that came, both in microseconds since the epoch.
    pub(super) signed: Option<(i64, i64)>,
}

impl<W: HubWire> core::fmt::Debug for State<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("State").field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// What came in, for the machine.
pub(super) enum Item {
    /// The first frame says who it is: the line knows.
    Hello {
        stamp: Option<Stamp>,
    },
    /// The first frame is none of that.
    Stranger,
    Heard(Frame),
    /// More of a frame has come, and it is not whole.
    Part,
    /// A frame of a native peer; `takes`: somebody takes messages of its type.
    Native {
        heard: native::Heard,
        bytes: u32,
        takes: bool,
    },
    /// What came is no WebSocket, or too long; the close frame has been sent.
    Broken {
        too_large: bool,
    },
    Ended(Explanation),
}

/// A frame of a known peer.
pub(super) struct Frame {
    pub(super) heard: Heard,
    /// Its length; 0: it was no text.
    pub(super) bytes: u32,
    pub(super) names: Names,
}

/// By what a message is known again (rules I4 to I6): its id, and, if it has one, what it says.
#[derive(Clone, Copy, Default)]
pub(super) struct Names {
    pub(super) id: Option<MessageId>,
    pub(super) key: Option<ContentKey>,
}

impl<W: HubWire> Line<W> {
    pub(super) fn new(door: &Door<W>, stream: Box<dyn Stream>, early: &[u8]) -> Self {
        let native = door.subprotocol == Some(SUBPROTOCOL);
        let first = if native { native::LONGEST_HELLO } else { W::LONGEST_FIRST };
        let longest = if native { FRAME_LIMIT } else { W::LONGEST_SENT };
        let socket = Socket::sized(bowline::LinkId::NONE, stream, early, Side::Server, first, longest, READ_BUFFER);
        let state = State {
            socket,
            stage: Stage::First,
            dirty: false,
            proof: None,
            hello: None,
            refused: None,
            proven: false,
            reauth: native::Reauth::default(),
            receiver: None,
            refusal: None,
            signed: None,
        };
        Self {
            conn: door.conn,
            since: wall(),
            path: door.path,
            subprotocol: door.subprotocol,
            guest: AtomicBool::new(false),
            placed: AtomicBool::new(false),
            peer: OnceLock::new(),
            state: Mutex::new(state),
            changed: event_listener::Event::new(),
        }
    }

    pub(super) const fn since(&self) -> i64 {
        self.since
    }

    /// The subprotocol that was selected, if the client offered one that this hub speaks.
    #[must_use]
    pub const fn subprotocol(&self) -> Option<&'static str> {
        self.subprotocol
    }

    /// It speaks the native wire.
    pub(super) fn is_native(&self) -> bool {
        self.subprotocol == Some(SUBPROTOCOL)
    }

    /// Who a native peer says it is.
    pub(super) fn cid(&self) -> Option<String> {
        self.peer().map(ToString::to_string)
    }

    pub(super) const fn path(&self) -> &'static str {
        self.path
    }

    /// Who it is nobody needs to say, and nobody can say again.
    pub(super) fn welcome_guest(&self, claim: Claim<W>) -> Option<Stamp> {
        self.guest.store(true, Ordering::Relaxed);
        self.introduce(claim)
    }

    pub(super) fn is_guest(&self) -> bool {
        self.guest.load(Ordering::Relaxed)
    }

    /// From now on it gets what it is subscribed to with its place.
    pub(super) fn keep_account(&self) {
        self.placed.store(true, Ordering::Relaxed);
    }

    pub(super) fn keeps_account(&self) -> bool {
        self.placed.load(Ordering::Relaxed)
    }

    /// Who it is, or says it is, if it has said so.
    pub(super) fn peer(&self) -> Option<&W::Peer> {
        self.peer.get()
    }

    /// Who it says it is. From now on it is not read until that is found out.
    pub(super) fn introduce(&self, claim: Claim<W>) -> Option<Stamp> {
        let Claim { peer, proof, stamp } = claim;
        let mut state = self.lock();
        state.stage = Stage::Asked;
        state.proof = Some(proof);
        let _ = self.peer.set(peer);
        stamp
    }

    fn longest(&self) -> usize {
        if self.is_native() { FRAME_LIMIT } else { W::LONGEST_FRAME }
    }

    /// A native client has said who it is.
    fn introduce_native(&self, peer: W::Peer, hello: Hello) {
        let mut state = self.lock();
        state.stage = Stage::Asked;
        state.hello = Some(hello);
        let _ = self.peer.set(peer);
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

    pub(super) fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, stage: Stage) {
        let mut state = self.lock();
        if stage == Stage::Open {
            state.socket.set_limit(self.longest());
        }
        state.stage = stage;
        drop(state);
        self.changed.notify(usize::MAX);
    }

    /// Lets out what was written. `None`: it has left, or the task that waits for the socket lets it out.
    pub(super) fn flush(&self) -> Option<Wrote> {
        let mut state = self.lock();
        state.dirty = false;
        if state.stage == Stage::Gone || state.socket.blocked {
            return None;
        }
        Some(state.socket.flush()).filter(|wrote| !matches!(wrote, Wrote::Done))
    }

    /// Reads what there is, and finds out what it says.
    fn read(&self, hub: &Hub<W>) -> (Vec<Item>, Reading) {
        let mut items = Vec::new();
        let mut texts = Vec::new();
        let reading = {
            let mut state = self.lock();
            match state.stage {
                Stage::Gone => return (items, Reading::Over),
                Stage::Asked => return (items, Reading::Held),
                Stage::First | Stage::Open | Stage::Closing => {
                    let binary = W::READS_BINARY && !self.is_native();
                    state.pull(&mut texts, self.longest(), binary)
                }
            }
        };
        items.reserve_exact(texts.len());
        for pulled in texts {
            items.push(match pulled {
                Pulled::First(text) if self.is_native() => match Hello::read(text.as_bytes()) {
                    Some(hello) => match hub.wire().named(&hello.caller.cid) {
                        Some(peer) => {
                            self.introduce_native(peer, hello);
                            Item::Hello { stamp: None }
                        }
                        None => Item::Stranger,
                    },
                    None => Item::Stranger,
                },
                Pulled::Text(text) if self.is_native() => {
                    let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
                    let heard = native::read(&text.into());
                    let takes = match &heard {
                        native::Heard::Message { content, .. } => hub.takes(&content.kind),
                        _ => true,
                    };
                    Item::Native { heard, bytes, takes }
                }
                Pulled::First(text) => match hub.wire().claim(hub.names(), &text) {
                    Some(claim) => Item::Hello { stamp: self.introduce(claim) },
                    None => Item::Stranger,
                },
                Pulled::Text(text) => match self.peer() {
                    Some(peer) => Item::Heard(hub.hear(text, peer)),
                    None => Item::Stranger,
                },
                Pulled::Other(said) => {
                    Item::Heard(Frame { heard: Heard { said, ..Heard::OTHER }, bytes: 0, names: Names::default() })
                }
                Pulled::Part => Item::Part,
                Pulled::Broken { too_large } => Item::Broken { too_large },
                Pulled::Ended(reason) => Item::Ended(reason),
            });
        }
        (items, reading)
    }
}

enum Pulled {
    First(Text),
    Text(Text),
    Other(Said),
    Part,
    Broken { too_large: bool },
    Ended(Explanation),
}

impl<W: HubWire> State<W> {
    fn pull(&mut self, pulled: &mut Vec<Pulled>, longest: usize, binary: bool) -> Reading {
        self.socket.allow(LONGEST_A_TURN * longest);
        for _ in 0..FRAMES_A_TURN {
            if self.socket.refused.is_some() {
                // What still comes is thrown away: closing a socket with unread bytes would take the close frame back.
                if self.socket.discard() {
                    pulled.push(Pulled::Ended(Reason::Closed(1006).into()));
                    return Reading::Empty;
                }
                return Reading::Empty;
            }
            let closing = self.stage == Stage::Closing;
            match self.socket.read(binary) {
                Incoming::Text(_) | Incoming::Binary | Incoming::Ping | Incoming::Pong | Incoming::Part if closing => {}
                Incoming::Text(text) if self.stage == Stage::First => {
                    self.stage = Stage::Asked;
                    pulled.push(Pulled::First(text));
                    return Reading::Held;
                }
                Incoming::Text(text) if text.len() <= COPIED => pulled.push(Pulled::Text(text.as_str().into())),
                Incoming::Text(text) => pulled.push(Pulled::Text(text)),
                Incoming::Binary if self.stage == Stage::First => {
                    self.stage = Stage::Asked;
                    pulled.push(Pulled::First(Text::default()));
                    return Reading::Held;
                }
                Incoming::Binary => pulled.push(Pulled::Other(Said::Malformed)),
                Incoming::Ping => pulled.push(Pulled::Other(Said::Other)),
                Incoming::Pong => pulled.push(Pulled::Other(Said::Pong)),
                Incoming::Part | Incoming::Nothing if self.socket.exhausted() => {
                    // Four of the longest messages, and not one of them has ended: a flood of empty fragments.
                    if pulled.is_empty() {
                        pulled.push(Pulled::Other(Said::Malformed));
                    }
                    return self.enough(pulled);
                }
                Incoming::Part => {
                    pulled.push(Pulled::Part);
                    return Reading::Empty;
                }
                Incoming::Nothing => return Reading::Empty,
                Incoming::Ended(reason, _) => match self.socket.refused {
                    Some(code) => pulled.push(Pulled::Broken { too_large: code == 1009 }),
                    None => {
                        pulled.push(Pulled::Ended(reason));
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
        pulled.push(Pulled::First(Text::default()));
        Reading::Held
    }
}

/// Our wall clock, in microseconds since the epoch.
pub(super) fn wall() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl<W: HubWire> Hub<W> {
    /// For the adapter: reads what there is on this line and applies it.
    pub fn readable(&self, line: &Arc<Line<W>>) -> Reading {
        let (items, reading) = line.read(self);
        if items.is_empty() {
            return reading;
        }
        self.with(|engine| engine.apply(line, items));
        if line.lock().stage == Stage::Gone { Reading::Over } else { reading }
    }

    /// What a frame of this peer's says.
    fn hear(&self, text: Text, peer: &W::Peer) -> Frame {
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        // What is wrong with a wire, or with who made it stumble, costs this frame and no line.
        let read = || self.wire().read(self.names(), peer, &text.into());
        let mut heard = catch_unwind(AssertUnwindSafe(read)).unwrap_or(Heard::MALFORMED);
        if let Said::Message(content) = &heard.said
            && !self.takes(&content.kind)
        {
            heard.reply = self.wire().complain(peer, Complaint::Unhandled(&content.kind));
            heard.said = Said::Other;
        }
        let names = match &heard.said {
            Said::Message(content) => self.names_of(content),
            Said::Other | Said::Malformed | Said::Pong | Said::Status | Said::Subscribe(_) | Said::Unsubscribe(_) => {
                Names::default()
            }
        };
        Frame { heard, bytes, names }
    }

    /// By what this message is known again, by whichever path it came.
    pub(super) fn names_of(&self, content: &Content) -> Names {
        let Some(id) = content.id.as_deref() else { return Names::default() };
        // It was text as it came.
        let data = core::str::from_utf8(&content.data).unwrap_or_default();
        Names { id: Some(self.names().id(id)), key: Some(self.wire().content(self.names(), &content.kind, data)) }
    }
}

impl Frame {
    /// What the machine is told of it.
    pub(super) const fn head(&self) -> Head {
        match self.heard.said {
            Said::Other | Said::Status | Said::Subscribe(_) | Said::Unsubscribe(_) => Head::Other,
            Said::Malformed => Head::Malformed,
            Said::Pong => Head::Pong,
            Said::Message(_) => Head::Data { id: self.names.id, key: self.names.key },
        }
    }
}
