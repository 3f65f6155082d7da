//! The native wire, the client's side: numbered messages in both directions, and topics.
//!
//! ```text
//!  hello  ── hello, with the ticket of the last welcome ──▶
//!  read   ◀── welcome: a new ticket ── say subscribe, since …           every filter, on every connection
//!         ◀── data: a message     ◀── ack, ping, pong, nack: the session's
//!         ◀── event, missed: for the application alone
//!  write  ── data, ack, ping, pong, nack ──▶
//!  ask, post, carried: the same frames by HTTP, with the ticket's token
//! ```
//!
//! Decided here: which ticket is shown, which event is a copy, from where on a topic is asked for. A subscription is asked
//! for on every connection, resumed or not: the hub goes on with what it has written to the last one, and nobody knows
//! what of that arrived. What the application asks for while the connection takes nothing is asked for again with the next
//! pong, until the hub has answered. A ticket that is refused as somebody else's is thrown away: the next hello begins anew.
//! Invariants: the events of a topic are delivered in order, and its cursor passes one only when it was delivered or the hub
//! does not have it; so many filters and so many followed topics at most; no token in `Debug`.
//! Rules: R9, S8, S10, H1, H3, U4.

use super::{Heard, Question, Reply, Wire};
use crate::http::{Bytes, HttpAnswer, Routes, Target};
use crate::node::{Node, Refused};
use bowline::hub::{TopicFilter, TopicName};
use bowline::wire::KeyedHash;
use bowline::wire::native::{
    self, EVERYBODY, Frame, Hello, MAX_NAME, Malformed, Poll, Position, Refusal, Since, Ticket,
};
use bowline::{Beat, Head, HttpClass, MessageId, Nack, ResumeRefusal, Seq};
use core::fmt;
use std::collections::{BTreeMap, BTreeSet};

/// So many filters may be subscribed to, and so many topics besides be followed by their positions.
const TOPICS: usize = 64;

/// So many topics are remembered whose end the hub has not answered; of a further one that is lost events may come.
const ENDING: usize = 256;

/// Of a data frame, beside kind and payload: `{"type":"data","seq":` … `,"una":` … `,"kind":"","data":}`.
const ENVELOPE: usize = 96;

/// A message for a native peer, checked.
///
/// ```
/// use bowline_transport::{Native, Wire, http::Bytes};
/// let mut wire = Native::client("sensor-7");
/// let note = wire.prepare("load", &Bytes::from_static(b" [1, 2]")).unwrap();
/// assert!(Native::size(&note) > "load[1, 2]".len());
/// assert!(wire.prepare("load", &Bytes::from_static(b"[1, 2")).is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    kind: String,
    data: Bytes,
}

/// What comes from a native hub.
///
/// ```
/// use bowline_transport::{Mail, http::Bytes};
/// let mail = Mail::Message { kind: "load".into(), data: Bytes::from_static(b"[1]") };
/// assert!(matches!(mail, Mail::Message { .. }));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mail {
    /// A message to us: it should be completed, rejected, or given back.
    Message {
        /// Of which sort it is.
        kind: String,
        /// JSON, unparsed.
        data: Bytes,
    },
    /// Something was published under a topic that we subscribe to, or to everybody: then the topic is `*`, and epoch and
    /// offset are 0. There is no verdict about it.
    Event {
        /// The topic.
        topic: String,
        /// Where in the topic's history.
        at: Position,
        /// Of which sort it is.
        kind: String,
        /// JSON, unparsed.
        data: Bytes,
    },
    /// Events that were published and will not come: the topic's history is shorter than we were away.
    Missed {
        /// The topic.
        topic: String,
        /// The first of them.
        from: Position,
        /// The offset of the last.
        to: u64,
    },
    /// The hub does not take this subscription; it is tried again on the next connection.
    Denied {
        /// The filter.
        topic: String,
    },
}

/// How far a topic has been followed. Its events are delivered in order: behind a hole nothing is, for the hub is asked for
/// all that is missing and sends it in order, or says that it is missed. What it still leaves out then, it does not have.
#[derive(Clone, Copy, Default, Debug)]
struct Cursor {
    /// The last event that was delivered, or is known to be lost.
    at: Option<Position>,
    /// What is missing was asked for, and the hub has not answered.
    asked: bool,
    /// It has answered, and sends what it has.
    answered: bool,
}

impl Cursor {
    /// Up to this nothing is missing any more.
    fn reached(&mut self, to: Position) {
        self.at = Some(self.at.filter(|at| *at > to && at.epoch == to.epoch).unwrap_or(to));
        self.answered = false;
    }

    /// Whether an event follows what was delivered, is a copy, or lies behind a hole.
    fn place(&self, event: Position) -> Place {
        match self.at {
            Some(at) if at.epoch != event.epoch => Place::Next,
            Some(at) if event.offset <= at.offset => Place::Copy,
            Some(at) if event.offset > at.offset.saturating_add(1) => Place::Beyond,
            // The first of its topic, too: a hub that knew of a gap has said so before.
            Some(_) | None => Place::Next,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Next,
    Copy,
    Beyond,
}

/// The native wire, as a client speaks it.
///
/// ```
/// use bowline_transport::{Native, Wire};
/// assert_eq!(Native::client("sensor-7").subprotocol(), Some("bowline.1"));
/// ```
#[derive(Clone)]
pub struct Native {
    cid: String,
    auth: Option<String>,
    ticket: Option<Ticket<'static>>,
    refusal: Option<Refusal>,
    /// What the application subscribes to, and from where on the first time.
    filters: BTreeMap<String, Option<Since>>,
    /// How far each topic has come.
    cursors: BTreeMap<String, Cursor>,
    /// Of what an event or a gap was read that is not delivered yet, or never will be.
    offered: Option<String>,
    /// Topics of which an event could not be delivered.
    behind: Vec<String>,
    /// Filters that the hub has answered on this connection.
    answered: BTreeSet<String>,
    /// Topics that are not wanted any more, until the hub has said so.
    ending: BTreeSet<String>,
    /// The hub has not answered what was shown to it last.
    showing: bool,
    /// This connection has had its welcome.
    ready: bool,
    /// The longest frame that the hub takes, by its last welcome.
    longest: usize,
}

impl fmt::Debug for Native {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Native").field("cid", &self.cid).field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl Native {
    /// The wire of the client of this name: 1 to 64 characters from `!` to `~`, or no hub takes it.
    #[must_use]
    pub fn client(cid: impl Into<String>) -> Self {
        Self {
            cid: cid.into(),
            auth: None,
            ticket: None,
            refusal: None,
            filters: BTreeMap::new(),
            cursors: BTreeMap::new(),
            offered: None,
            behind: Vec::new(),
            answered: BTreeSet::new(),
            ending: BTreeSet::new(),
            showing: false,
            ready: false,
            longest: native::FRAME_LIMIT,
        }
    }

    pub(crate) fn show(&mut self, auth: String) {
        self.auth = Some(auth);
    }

    /// The frame that asks for this subscription; `None`: it is no filter, or there are too many.
    pub(crate) fn subscribe(&mut self, filter: &str, since: Option<Since>) -> Option<String> {
        let known = self.filters.contains_key(filter);
        if !(1..=MAX_NAME).contains(&filter.len()) || (self.filters.len() >= TOPICS && !known) {
            return None;
        }
        if !known || since.is_some() {
            self.cursors.remove(filter);
        }
        self.answered.remove(filter);
        self.ending.retain(|topic| !brings(filter, topic));
        self.filters.insert(filter.to_owned(), since);
        Some(self.asking(filter))
    }

    /// The frames that end this subscription; `None`: there is none.
    pub(crate) fn unsubscribe(&mut self, filter: &str) -> Option<Vec<String>> {
        self.filters.remove(filter)?;
        // What was followed for the sake of this wildcard alone was perhaps asked for by its name.
        let mut ended = vec![filter.to_owned()];
        let filters = &self.filters;
        self.cursors.retain(|topic, _| {
            let over = brings(filter, topic) && !filters.keys().any(|filter| brings(filter, topic));
            if over && topic != filter {
                ended.push(topic.clone());
            }
            !over
        });
        let frames = ended.iter().map(|topic| Frame::Unsubscribe { topic: topic.as_str().into() }.encode()).collect();
        let room = ENDING.saturating_sub(self.ending.len());
        self.ending.extend(ended.into_iter().take(room));
        Some(frames)
    }

    fn asking(&self, topic: &str) -> String {
        let reached = self.cursors.get(topic).and_then(|cursor| cursor.at);
        let since = reached.map(Since::After).or_else(|| self.filters.get(topic).copied().flatten());
        Frame::Subscribe { topic: topic.into(), since }.encode()
    }

    /// What is asked for on every connection: all filters, and what was followed for their sake.
    fn subscriptions(&mut self) -> Vec<String> {
        self.behind.clear();
        self.answered.clear();
        self.showing = false;
        for cursor in self.cursors.values_mut() {
            (cursor.asked, cursor.answered) = (true, false);
        }
        let followed = self.cursors.keys().filter(|topic| !self.filters.contains_key(*topic));
        let wanted = self.filters.keys().chain(followed).map(|topic| self.asking(topic));
        wanted.chain(self.endings()).collect()
    }

    fn endings(&self) -> impl Iterator<Item = String> {
        self.ending.iter().map(|topic| Frame::Unsubscribe { topic: topic.as_str().into() }.encode())
    }

    /// What the hub has not answered.
    fn unanswered(&self) -> Vec<String> {
        let filters = self.filters.keys().filter(|filter| !self.answered.contains(*filter));
        let behind = self.cursors.iter().filter(|(topic, cursor)| cursor.asked && self.answered.contains(*topic));
        let followed = self.cursors.iter().filter(|(topic, cursor)| cursor.asked && !self.filters.contains_key(*topic));
        let topics = filters.chain(behind.chain(followed).map(|(topic, _)| topic));
        let asked = topics.map(|topic| self.asking(topic)).chain(self.endings());
        asked.chain(self.auth.as_deref().filter(|_| self.showing).map(showing)).collect()
    }

    /// How far this topic has come, if it is or can be followed.
    fn cursor(&mut self, topic: &str) -> Option<&mut Cursor> {
        if topic == EVERYBODY {
            return None;
        }
        if !self.cursors.contains_key(topic) {
            if self.cursors.len() >= TOPICS.saturating_mul(2) {
                return None;
            }
            self.cursors.insert(topic.to_owned(), Cursor::default());
        }
        self.cursors.get_mut(topic)
    }

    fn event(&mut self, topic: &str, at: Position, kind: &str, data: &str) -> Heard<Mail> {
        if self.ending.contains(topic) {
            return Heard::of(Head::Other);
        }
        let data = Bytes::copy_from_slice(data.as_bytes());
        let mail = Mail::Event { topic: topic.to_owned(), at, kind: kind.to_owned(), data };
        // To everybody: of no topic, and nothing holds it.
        if at.offset == 0 {
            return aside(mail);
        }
        if let Some(cursor) = self.cursors.get_mut(topic) {
            match cursor.place(at) {
                Place::Copy => return Heard::of(Head::Other),
                // It comes again, with what lies before it.
                Place::Beyond if cursor.asked || self.behind.iter().any(|behind| behind == topic) => {
                    return Heard::of(Head::Other);
                }
                Place::Beyond if !cursor.answered => {
                    cursor.asked = true;
                    return Heard { say: vec![self.asking(topic)], ..Heard::of(Head::Other) };
                }
                Place::Next | Place::Beyond => {}
            }
        }
        self.offered = Some(topic.to_owned());
        aside(mail)
    }

    /// What is to be known of the last event before the next frame is looked at.
    fn settle(&mut self) {
        if let Some(topic) = self.offered.take()
            && !self.behind.contains(&topic)
            && self.behind.len() < TOPICS.saturating_mul(2)
        {
            self.behind.push(topic);
        }
    }

    fn hear(&mut self, frame: Frame<'_>) -> Heard<Mail> {
        match frame {
            Frame::Welcome(welcome) if !self.ready => {
                let Ticket { sid, token } = welcome.ticket;
                self.ticket = Some(Ticket { sid: sid.into_owned().into(), token: token.into_owned().into() });
                self.refusal = None;
                self.longest = welcome.frame;
                let head = Head::Welcome { greeting: welcome.greeting, refused: welcome.reason };
                Heard { window: Some(welcome.window), ..Heard::of(head) }
            }
            Frame::Refused { reason } => {
                self.refusal = Some(reason);
                self.showing = false;
                if reason == Refusal::Resume(ResumeRefusal::Identity) {
                    self.ticket = None;
                }
                Heard::of(Head::Other)
            }
            Frame::Data { seq, una, kind, data } => {
                let data = Bytes::copy_from_slice(data.as_bytes());
                let message = Some(Mail::Message { kind: kind.into_owned(), data });
                Heard { message, ..Heard::of(Head::Numbered { seq, una }) }
            }
            Frame::Marks { report, una, beat } => {
                let say = if matches!(beat, Beat::Pong(_)) { self.unanswered() } else { Vec::new() };
                Heard { say, ..Heard::of(Head::Marks { report, una, beat }) }
            }
            Frame::Nack { seq, nack, reason } => {
                let words = (nack == Nack::Reject).then(|| rejection(&reason));
                Heard { reply: words, ..Heard::of(Head::Nack { seq, nack }) }
            }
            Frame::Subscribed { topic, ok, at } => {
                if let Some(cursor) = self.cursors.get_mut(&*topic) {
                    (cursor.asked, cursor.answered) = (false, cursor.asked);
                }
                let wanted = self.filters.contains_key(&*topic);
                if wanted {
                    self.answered.insert(topic.as_ref().to_owned());
                }
                if !ok {
                    let denied = aside(Mail::Denied { topic: topic.into_owned() });
                    return if wanted { denied } else { Heard::of(Head::Other) };
                }
                // From now on means from there on, also if the connection ends before the first event.
                let now = at.filter(|_| self.filters.get(&*topic) == Some(&None));
                if now.is_some()
                    && let Some(cursor) = self.cursor(&topic).filter(|cursor| cursor.at.is_none())
                {
                    cursor.at = now;
                }
                Heard::of(Head::Other)
            }
            Frame::Event { topic, at, kind, data } => self.event(&topic, at, &kind, data),
            Frame::Missed { topic, from, to } => {
                // A history forgets its oldest first: what lies before this, and did not come, is missed as well.
                let at = self.cursors.get(&*topic).and_then(|cursor| cursor.at).filter(|at| at.epoch == from.epoch);
                if at.is_some_and(|at| to <= at.offset) {
                    return Heard::of(Head::Other);
                }
                let from = at.map_or(from, |at| Position { offset: at.offset.saturating_add(1), ..from });
                self.offered = Some(topic.as_ref().to_owned());
                aside(Mail::Missed { topic: topic.into_owned(), from, to })
            }
            Frame::Reconnect { after, window } => {
                Heard { after: Some(after), window: Some(window), ..Heard::of(Head::Other) }
            }
            Frame::Unsubscribed { topic, .. } => {
                self.ending.remove(&*topic);
                Heard::of(Head::Other)
            }
            Frame::Token { token } => {
                self.showing = false;
                if let Some(ticket) = &mut self.ticket {
                    ticket.token = token.into_owned().into();
                }
                Heard::of(Head::Other)
            }
            // The last are a client's own, or answers to requests.
            Frame::Welcome(_)
            | Frame::Error { .. }
            | Frame::Other { .. }
            | Frame::Hello(_)
            | Frame::Subscribe { .. }
            | Frame::Unsubscribe { .. }
            | Frame::Reauth { .. }
            | Frame::Batch(_)
            | Frame::Poll(_) => Heard::of(Head::Other),
        }
    }

    fn greeting(&self, greeting: &bowline::Greeting) -> String {
        let resume = greeting.resume && self.ticket.is_some();
        Frame::Hello(Hello {
            cid: self.cid.as_str().into(),
            ticket: self.ticket.clone().filter(|_| resume),
            auth: self.auth.as_deref().map(Into::into),
            greeting: bowline::Greeting { resume, ..*greeting },
        })
        .encode()
    }
}

/// Whether the events of this topic come by this filter.
fn brings(filter: &str, topic: &str) -> bool {
    let name = TopicName::new(topic);
    filter == topic || TopicFilter::new(filter).is_ok_and(|filter| name.is_ok_and(|name| filter.matches(&name)))
}

fn showing(auth: &str) -> String {
    Frame::Reauth { auth: auth.into() }.encode()
}

/// For the application, and no business of the session's.
fn aside(mail: Mail) -> Heard<Mail> {
    Heard { message: Some(mail), ..Heard::of(Head::Other) }
}

impl Wire for Native {
    type Kind = str;
    type Outgoing = Note;
    type Incoming = Mail;

    fn longest_frame(&self) -> usize {
        native::FRAME_LIMIT
    }

    /// Nobody dials a client.
    fn routes(&self) -> Routes<'static> {
        Routes::NONE
    }

    /// A frame is text (PROTOCOL.md, 8.1).
    fn reads_binary(&self) -> bool {
        false
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some(native::SUBPROTOCOL)
    }

    fn hello(&mut self, greeting: &bowline::Greeting) -> Option<String> {
        self.ready = false;
        Some(self.greeting(greeting))
    }

    fn prepare(&mut self, kind: &str, json: &Bytes) -> Result<Note, Refused> {
        const NO_JSON: Refused = Refused::Invalid("data that is no JSON");
        if !(1..=MAX_NAME).contains(&kind.len()) {
            return Err(Refused::Kind);
        }
        let text = core::str::from_utf8(json).map_err(|_| NO_JSON)?;
        let data = native::check(text).map_err(|_| NO_JSON)?;
        let note = Note { kind: kind.to_owned(), data: json.slice_ref(data.as_bytes()) };
        // Known to be longer than the hub takes (H5).
        if Self::size(&note) > self.longest { Err(Refused::Session(bowline::Refusal::TooLarge)) } else { Ok(note) }
    }

    fn size(note: &Note) -> usize {
        // A kind of control characters is written six times as long.
        note.data.len().saturating_add(note.kind.len().saturating_mul(6)).saturating_add(ENVELOPE)
    }

    fn read(&mut self, _: &KeyedHash, text: &str) -> Heard<Mail> {
        self.settle();
        match native::decode(text.as_bytes()) {
            Ok(frame) => {
                let mut heard = self.hear(frame);
                if matches!(heard.head, Some(Head::Welcome { .. })) {
                    self.ready = true;
                    heard.say = self.subscriptions();
                }
                heard
            }
            Err(why) => malformed(why),
        }
    }

    fn delivered(&mut self, mail: &Mail) {
        let (topic, reached) = match mail {
            Mail::Event { topic, at, .. } if at.offset > 0 => (topic, *at),
            Mail::Missed { topic, from, to } => (topic, Position { offset: *to, ..*from }),
            Mail::Event { .. } | Mail::Message { .. } | Mail::Denied { .. } => return,
        };
        self.offered = None;
        if let Some(cursor) = self.cursor(topic) {
            cursor.reached(reached);
        }
    }

    fn room(&mut self) -> Vec<String> {
        self.settle();
        let behind = core::mem::take(&mut self.behind);
        if !self.ready {
            return Vec::new();
        }
        for topic in &behind {
            if let Some(cursor) = self.cursors.get_mut(topic) {
                (cursor.asked, cursor.answered) = (true, false);
            }
        }
        behind.iter().map(|topic| self.asking(topic)).collect()
    }

    fn write(&mut self, frame: bowline::Frame<'_, Note>) -> Option<String> {
        Some(match frame {
            bowline::Frame::Data { seq, una, payload, .. } => data(seq, una, payload),
            bowline::Frame::Marks { report, una, beat } => Frame::Marks { report, una, beat }.encode(),
            bowline::Frame::Nack { seq, after } => {
                Frame::Nack { seq, nack: Nack::Retry { after }, reason: "".into() }.encode()
            }
            // A native session has marks instead.
            bowline::Frame::Ping | bowline::Frame::Keepalive | bowline::Frame::Ack { .. } => return None,
        })
    }

    fn secrets(&self) -> Vec<String> {
        let token = self.ticket.as_ref().map(|ticket| ticket.token.to_string());
        self.auth.clone().into_iter().chain(token).collect()
    }

    fn headers(&self) -> Vec<(&'static str, String)> {
        let token = self.ticket.as_ref().map(|ticket| ("authorization", format!("Bearer {}", ticket.token)));
        token.into_iter().chain([(native::CLIENT, self.cid.clone())]).collect()
    }

    fn ask(&mut self, fallback: &Target, question: Question) -> Option<(Target, Bytes, usize)> {
        let (segment, body, read) = match question {
            Question::Greet(greeting) => ("hello", self.greeting(&greeting), native::FRAME_LIMIT),
            Question::Poll { report, una, wait } => {
                let poll = Frame::Poll(Poll { report, una, wait: wait.min(native::MAX_WAIT) });
                ("poll", poll.encode(), native::FRAME_LIMIT.saturating_add(native::BATCH_ROOM))
            }
        };
        Some((fallback.join(segment), body.into(), read))
    }

    fn carried(&mut self, body: &Bytes) -> Option<Vec<Heard<Mail>>> {
        match native::decode(body).ok()? {
            // What is malformed in a batch is as good as not sent: there is nobody to be told.
            Frame::Batch(frames) => {
                let frames = frames.into_iter().filter_map(|frame| native::decode(frame.as_bytes()).ok());
                Some(frames.map(|frame| self.hear(frame)).collect())
            }
            // A connection's own welcome counts, but by HTTP there may be another, with a newer token.
            Frame::Welcome(welcome) => {
                let ready = core::mem::replace(&mut self.ready, false);
                let heard = self.hear(Frame::Welcome(welcome));
                self.ready = ready;
                Some(vec![heard])
            }
            frame => Some(vec![self.hear(frame)]),
        }
    }

    fn post(&mut self, fallback: &Target, seq: Seq, una: Seq, _: MessageId, note: &Note) -> (Target, Bytes, usize) {
        (fallback.join("messages"), data(seq, una, note).into(), native::FRAME_LIMIT)
    }

    /// A frame of the wire's own.
    fn is_peers(&self, _: MessageId, answer: &HttpAnswer) -> bool {
        answer.whole && native::decode(&answer.body).is_ok()
    }

    fn posted(&mut self, _: MessageId, answer: &HttpAnswer) -> Option<Reply> {
        match native::decode(&answer.body) {
            Ok(Frame::Nack { nack: Nack::Reject, reason, .. })
                if answer.outcome(true).class() == HttpClass::Rejected =>
            {
                Some(rejection(&reason))
            }
            _ => None,
        }
    }

    fn describe(mail: &Mail) -> (&str, usize) {
        let overhead = size_of::<Mail>();
        match mail {
            Mail::Message { kind, data } => (kind, overhead + kind.len() + data.len()),
            Mail::Event { topic, kind, data, .. } => (kind, overhead + topic.len() + kind.len() + data.len()),
            Mail::Missed { topic, .. } => ("missed", overhead + topic.len()),
            Mail::Denied { topic } => ("denied", overhead + topic.len()),
        }
    }
}

/// A hub's words about what it can never process; that it is so, the marks say.
fn rejection(words: &str) -> Reply {
    Reply { success: false, message: words.to_owned(), miner_stats: None }
}

fn data(seq: Seq, una: Seq, note: &Note) -> String {
    // Checked when it was accepted.
    let data = core::str::from_utf8(&note.data).unwrap_or("null");
    Frame::Data { seq, una, kind: note.kind.as_str().into(), data }.encode()
}

fn malformed(why: Malformed) -> Heard<Mail> {
    let error = Frame::Error { message: why.to_string().into() }.encode();
    Heard { say: vec![error], ..Heard::of(Head::Malformed) }
}

impl Node<Native> {
    /// Subscribes to the topics of this filter, 1 to 64 bytes, from `since` on or from now on; also on every later
    /// connection, from where the last one ended. False: it is no filter, or there are 64 already.
    pub fn subscribe(&self, filter: &str, since: Option<Since>) -> bool {
        self.say(|wire| wire.subscribe(filter, since).map(|frame| vec![frame]))
    }

    /// Ends this subscription. False: there is none.
    pub fn unsubscribe(&self, filter: &str) -> bool {
        self.say(|wire| wire.unsubscribe(filter))
    }

    /// Shows the hub this from now on, at once if there is a connection; at most 4 KiB. False: it is longer.
    pub fn reauthenticate(&self, auth: impl Into<String>) -> bool {
        let auth = auth.into();
        if auth.len() > native::MAX_AUTH {
            return false;
        }
        self.say(|wire| {
            let frame = showing(&auth);
            wire.show(auth);
            wire.showing = true;
            Some(vec![frame])
        })
    }

    /// Why the hub has refused us, if that was its last word.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.wire(|wire| wire.refusal)
    }

    /// The frames leave if there is a connection that has been welcomed; a later one asks by itself.
    fn say(&self, change: impl FnOnce(&mut Native) -> Option<Vec<String>>) -> bool {
        self.talk(|wire| {
            let frames = change(wire);
            let ready = wire.ready;
            frames.map(|frames| if ready { frames } else { Vec::new() })
        })
    }
}

#[cfg(test)]
mod tests;
