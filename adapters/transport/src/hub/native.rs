//! Native peers at a hub of whatever wire: on the same port, with the same handlers, topics and names (PROTOCOL.md,
//! section 8).
//!
//! ```text
//!  subprotocol bowline.1 ─▶ Line ─▶ hello ─▶ Verify ─▶ who may come in? ─▶ whose session is it? ─▶ welcome, or refused
//!                                └▶ heard: numbered messages, marks, wishes about topics, reauth
//!  POST hello, messages, poll ─▶ token ─▶ the same machine ─▶ welcome · marks · a batch
//! ```
//!
//! A native line is a line like any other; what differs is how its frames are read and written. What a peer of the hub's
//! own wire is told by its words, a native one is told by marks.
//!
//! Decided here: whether a token is a session's. Invariants: a token is compared without telling how much of it is right;
//! one that was used makes its predecessors worthless; no session is touched by whoever could not show that it is its own.
//! Rules: H1–H3, I3, R1–R3, R9, S8.

use super::engine::denied;
use super::line::Line;
use super::request::number;
use super::setup::Deciding;
use super::wire::{Content, HubWire, Text};
use super::{Admission, Hub};
use crate::explanation::Excerpt;
use crate::http::{Answer, Bytes, Callback};
use bowline::hub::{CloseReason, Denied, Start, TopicFilter};
use bowline::wire::KeyedHash;
use bowline::wire::native::{self, Frame, Refusal, Since};
use bowline::{Beat, Greeting, Head, MessageId, Nack, ResumeRefusal, Seq};
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

/// The longest first frame.
pub(super) const LONGEST_HELLO: usize = 16 * 1024;

/// A native client that wants to come in, as the application sees it.
///
/// ```
/// use bowline_transport::hub::Caller;
/// let caller = Caller { cid: "sensor-7".into(), auth: Some("a secret".into()) };
/// assert_eq!(caller.cid, "sensor-7");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it says it is: 1 to 64 visible characters.
    pub cid: String,
    /// What it shows for it, at most 4 KiB; the application knows what that should be.
    pub auth: Option<String>,
}

impl core::fmt::Debug for Caller {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Caller").field("cid", &self.cid).finish_non_exhaustive()
    }
}

/// Who decides about native clients.
pub(super) type Call = Arc<dyn Fn(Caller) -> Deciding + Send + Sync>;

/// A client's hello.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) caller: Caller,
    /// `sid` and token.
    pub(super) ticket: Option<(Box<str>, Box<str>)>,
    pub(super) greeting: Greeting,
}

impl Hello {
    /// Whether it has shown a session's own token; `known`: why that session does not go on.
    pub(super) const fn is_proven(&self, known: Option<ResumeRefusal>) -> bool {
        self.ticket.is_some() && known.is_none()
    }

    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let Ok(Frame::Hello(hello)) = native::decode(text) else { return None };
        Some(Self {
            caller: Caller { cid: hello.cid.into_owned(), auth: hello.auth.map(Into::into) },
            ticket: hello.ticket.map(|ticket| (ticket.sid.into(), ticket.token.into())),
            greeting: hello.greeting,
        })
    }
}

/// What a native session is shown for its own: its name and its token; and the one before, until this one was used.
pub(super) struct Pass {
    pub(super) sid: Box<str>,
    token: Box<str>,
    /// The one that was used last: that the client has for certain.
    before: Option<Box<str>>,
    suspended: bool,
}

impl Pass {
    pub(super) fn new() -> Self {
        Self { sid: word(), token: word(), before: None, suspended: false }
    }

    /// A new token, beside which no other counts.
    pub(super) fn begin(&mut self) {
        (self.token, self.before, self.suspended) = (word(), None, false);
    }

    /// A new token; the last one that was used counts until this one is, for the word of it may be lost (R9). While it is
    /// not, there is no newer one: however many welcomes are lost, the client has one of the two.
    pub(super) fn rotate(&mut self) {
        self.suspended = false;
        if self.before.is_none() {
            self.before = Some(core::mem::replace(&mut self.token, word()));
        }
    }

    /// Its owner has the token: it speaks on the connection that brought it.
    pub(super) fn arrived(&mut self) {
        self.before = None;
    }

    /// From now on no token is enough by itself, until a hello has shown one: then the application is asked.
    pub(super) const fn suspend(&mut self) {
        self.suspended = true;
    }

    /// Whether this token is enough to be heard by HTTP.
    pub(super) fn is_enough(&mut self, names: &KeyedHash, token: &str) -> bool {
        !self.suspended && self.admits(names, token)
    }

    pub(super) fn ticket(&self) -> native::Ticket<'_> {
        native::Ticket { sid: (&*self.sid).into(), token: (&*self.token).into() }
    }

    /// Whether this is the token, or still the one before. Hashes are compared: how much of a guess is right nobody learns by
    /// how long it takes.
    pub(super) fn admits(&mut self, names: &KeyedHash, token: &str) -> bool {
        let hash = |token: &str| names.content("token", token);
        let shown = hash(token);
        if shown == hash(&self.token) {
            self.before = None;
            return true;
        }
        self.before.as_deref().is_some_and(|before| shown == hash(before))
    }
}

/// 128 bits that nobody guesses, as text.
fn word() -> Box<str> {
    format!("{:032x}", u128::from_be_bytes(crate::setup::random_key())).into()
}

/// What a native frame says.
pub(super) enum Heard {
    /// To the session alone.
    Head(Head),
    Message {
        seq: Seq,
        una: Seq,
        content: Content,
    },
    Wish {
        on: bool,
        topic: String,
        since: Option<Start>,
    },
    Reauth(String),
    Malformed,
}

impl Heard {
    pub(super) const fn head(&self) -> Head {
        match self {
            Self::Head(head) => *head,
            Self::Message { seq, una, .. } => Head::Numbered { seq: *seq, una: *una },
            Self::Wish { .. } | Self::Reauth(_) => Head::Other,
            Self::Malformed => Head::Malformed,
        }
    }
}

pub(super) fn read(text: &Bytes) -> Heard {
    match native::decode(text) {
        Ok(Frame::Data { seq, una, kind, data }) => Heard::Message { seq, una, content: content(text, &kind, data) },
        Ok(Frame::Marks { report, una, beat }) => Heard::Head(Head::Marks { report, una, beat }),
        Ok(Frame::Nack { seq, nack, .. }) => Heard::Head(Head::Nack { seq, nack }),
        Ok(Frame::Subscribe { topic, since }) => {
            let since = since.map(|since| match since {
                Since::Oldest => Start::Oldest,
                Since::After(at) => Start::After(bowline::hub::Position { epoch: at.epoch, offset: at.offset }),
            });
            Heard::Wish { on: true, topic: topic.into_owned(), since }
        }
        Ok(Frame::Unsubscribe { topic }) => Heard::Wish { on: false, topic: topic.into_owned(), since: None },
        Ok(Frame::Reauth { auth }) => Heard::Reauth(auth.into_owned()),
        // Of no consequence: an error is never answered, and everything else is a hub's word.
        Ok(_) => Heard::Head(Head::Other),
        Err(_) => Heard::Malformed,
    }
}

fn content(whole: &Bytes, kind: &str, data: &str) -> Content {
    Content { kind: kind.to_owned().into(), data: whole.slice_ref(data.as_bytes()), id: None }
}

/// What a native peer shows anew: the last counts, and the application is asked about one at a time.
#[derive(Default)]
pub(super) struct Reauth {
    next: Option<String>,
    asked: bool,
}

impl Reauth {
    /// True: somebody has to ask.
    pub(super) fn show(&mut self, auth: String) -> bool {
        self.next = Some(auth);
        !core::mem::replace(&mut self.asked, true)
    }

    /// What is to be asked about; `None`: nothing more.
    fn next(&mut self) -> Option<String> {
        let next = self.next.take();
        self.asked = next.is_some();
        next
    }
}

/// While the application is asked about what a native peer shows anew.
struct Asking<'a, W: HubWire> {
    line: &'a Line<W>,
    over: bool,
}

impl<W: HubWire> Drop for Asking<'_, W> {
    fn drop(&mut self) {
        // Given up in the middle: what it shows next is asked about again.
        if !self.over {
            self.line.lock().reauth = Reauth::default();
        }
    }
}

/// Whether a message can be said to native peers.
pub(super) fn check(data: &str) -> Result<&str, native::Malformed> {
    native::check(data)
}

/// Its longest frame, rather more than less: an event's, with kind and topic of characters that are written six times as
/// long.
pub(super) const fn longest(kind: &str, data: &str) -> usize {
    const ENVELOPE: usize = 128 + 6 * native::MAX_NAME;
    data.len().saturating_add(kind.len().saturating_mul(6)).saturating_add(ENVELOPE)
}

/// A frame of ours.
pub(super) fn text(frame: &Frame<'_>) -> Text {
    frame.encode().into()
}

/// A refusal, for a machine's reason.
pub(super) const fn refusal(why: CloseReason) -> Option<Refusal> {
    match why {
        CloseReason::Fenced => Some(Refusal::Resume(ResumeRefusal::Epoch)),
        CloseReason::Unknown => Some(Refusal::Auth),
        _ => None,
    }
}

/// A filter as a native peer spells it; the syntax is that of the hub's.
pub(super) fn filter(topic: &str) -> Option<TopicFilter> {
    TopicFilter::new(topic).ok()
}

/// What is asked of a native session by HTTP.
enum Request<'a> {
    Message { seq: Seq, una: Seq, id: MessageId, content: Content },
    Poll(&'a native::Poll),
}

impl<W: HubWire> Hub<W> {
    /// Finds out whether a native client may come in.
    pub(super) async fn verify_native(&self, line: &Arc<Line<W>>, hello: Hello) {
        let Some(peer) = line.peer() else { return };
        let question = self.questions.open(peer.clone());
        let admission = self.call(hello.caller.clone()).await;
        self.with(|engine| {
            let admission = if question.stands() { Ok(admission) } else { Err(CloseReason::Dismissed) };
            engine.called(line, &hello, admission);
        });
    }

    async fn call(&self, caller: Caller) -> Admission {
        match &self.native {
            Some(call) => self.calmly(|| call(caller), &self.deciding).await,
            None => Admission::Refuse("no native peers here".into()),
        }
    }

    /// A native peer shows again who it is (R9).
    pub(super) async fn reauth(&self, line: &Arc<Line<W>>) {
        let Some(cid) = line.cid() else { return };
        let mut asking = Asking { line, over: false };
        while let Some(auth) = { line.lock().reauth.next() } {
            let admission = self.call(Caller { cid: cid.clone(), auth: Some(auth) }).await;
            self.with(|engine| engine.reauthenticated(line, &admission));
        }
        asking.over = true;
    }

    /// For whatever is asked below `/bowline/1/`.
    pub(super) async fn native_request(&self, address: IpAddr, callback: Callback) -> Answer {
        if let Err(after) = self.forgers.may(self.clock.now(), number(address)) {
            return self.refuse(address, None, CloseReason::Rate, after);
        }
        match callback.path {
            native::HELLO => self.hello(address, &callback.body).await,
            native::MESSAGES => {
                let Ok(Frame::Data { seq, una, kind, data }) = native::decode(&callback.body) else {
                    return Answer::error(400, "no data frame");
                };
                let Some(id) = callback.idempotency_key.as_deref().and_then(MessageId::parse_uuid) else {
                    return Answer::error(400, "an Idempotency-Key is needed: the message's id");
                };
                let content = content(&callback.body, &kind, data);
                self.ask(address, &callback, Request::Message { seq, una, id, content }).await
            }
            _ => match native::Poll::decode(&callback.body) {
                Ok(poll) => self.ask(address, &callback, Request::Poll(&poll)).await,
                Err(why) => Answer::error(400, why.to_string()),
            },
        }
    }

    async fn hello(&self, address: IpAddr, body: &Bytes) -> Answer {
        let Some(hello) = Hello::read(body) else { return Answer::error(400, "no hello") };
        let Some(peer) = self.wire().named(&hello.caller.cid) else {
            self.with(|engine| engine.turned_away(Some(address), None, CloseReason::Unknown, None));
            return refused(Refusal::Auth);
        };
        let question = self.questions.open(peer.clone());
        let answer = match self.call(hello.caller.clone()).await {
            Admission::Accept { .. } => self.with(|engine| match question.stands() {
                true => engine.greeted(address, &hello, &peer),
                false => {
                    engine.turned_away(Some(address), Some(&peer), CloseReason::Dismissed, None);
                    denied(Denied { why: CloseReason::Dismissed, retry_after: Duration::ZERO })
                }
            }),
            Admission::Refuse(why) => {
                let said = Excerpt::new(&*why);
                self.with(|engine| engine.turned_away(Some(address), Some(&peer), CloseReason::Unknown, said));
                refused(Refusal::Auth)
            }
            Admission::Later(after) => self.refuse(address, Some(&peer), CloseReason::Later, after),
        };
        if answer.status == 403 {
            // A secret, or a token, that nobody knows: guessed, perhaps.
            self.forgers.caught(self.clock.now(), number(address));
        }
        answer
    }

    async fn ask(&self, address: IpAddr, callback: &Callback, asked: Request<'_>) -> Answer {
        let (Some(cid), Some(token)) = (&callback.client, &callback.bearer) else {
            return Answer::error(401, "Bowline-Client and a token are needed");
        };
        let Some(peer) = self.wire().named(cid) else { return Answer::status(404) };
        let bytes = u32::try_from(callback.body.len()).unwrap_or(u32::MAX);
        let taken = self.with(|engine| {
            let session = match engine.shown(&peer, token) {
                Ok(session) => session,
                Err(status) => return Err((status == 401, Answer::status(status))),
            };
            let asked = match asked {
                Request::Message { seq, una, id, content } => {
                    engine.native_message(address, session, &peer, (seq, una, id), content, bytes)
                }
                Request::Poll(poll) => engine.native_poll(session, poll),
            };
            asked.map_err(|answer| (false, answer))
        });
        match taken {
            Ok((session, request, answered)) => {
                let _gone = super::request::Gone { hub: self, session, request };
                answered.recv().await.unwrap_or(Answer::BUSY)
            }
            Err((forged, answer)) => {
                if forged {
                    self.forgers.caught(self.clock.now(), number(address));
                    self.with(|engine| engine.turned_away(Some(address), Some(&peer), CloseReason::Impostor, None));
                }
                answer
            }
        }
    }
}

/// Not let in, and why.
pub(super) fn refused(reason: Refusal) -> Answer {
    let body = Frame::Refused { reason }.encode();
    Answer { body: Some(("application/json", body.into())), ..Answer::status(403) }
}

/// The marks of a session, as the body of an answer.
pub(super) fn marks(report: bowline::Report, una: Seq) -> String {
    Frame::Marks { report, una, beat: Beat::None }.encode()
}

/// Nobody takes this message.
pub(super) fn rejected(seq: Seq, why: &str) -> String {
    Frame::Nack { seq, nack: Nack::Reject, reason: short(why).into() }.encode()
}

/// As much of words as a frame carries.
fn short(words: &str) -> &str {
    let end = (0..=native::MAX_WORDS.min(words.len())).rev().find(|end| words.is_char_boundary(*end));
    end.and_then(|end| words.get(..end)).unwrap_or_default()
}

/// What was not looked at may come again after this.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
