//! AI Village, the viewer's side: events by topics, never acknowledged, from a hub that forgets its clients.
//!
//! ```text
//!  greet  (nothing)                  ◀── connection_established: ready
//!  say    ── subscribe, since … ────▶                                 every topic, on every connection
//!                                    ◀── ping ── say pong             or the original hangs up after five minutes
//!  write  ── ping ──────────────────▶◀── pong: Pong
//!         ── custom, own types ─────▶                                 proved by the pong behind them
//!                                    ◀── events: messages; with a position a copy is known
//!
//!  cursor of a topic    12: delivered ──▶ 12       12 again: a copy       gap to 20 ──▶ 20
//!                       15: a hole ──▶ say subscribe since 12, once       13, 14 ──▶ 15       15 again: a copy
//! ```
//!
//! Decided here: what is an event and what is the wire's own talk, which event is a copy, and from where on a topic is
//! asked for. Invariants: a cursor passes an event only when it was delivered, is known to be lost, or did not come while
//! 256 later ones did; so many cursors at most; a hole is asked for once a connection; what is said without being asked by
//! the session is an answer to a frame, and short.
//! Field bugs: listeners that are cut off because nobody answered the application's ping; pages that come back and never
//! learn what they missed; subscriptions that end with the connection.

use super::{Heard, Wire};
use crate::http::{Bytes, HttpAnswer};
use crate::node::Refused;
use bowline::wire::KeyedHash;
use bowline::wire::aivillage::{
    self, Event, MAX_NAME, Malformed, Notice, ORIGINAL_LIMIT, PING, PONG, Position, Request, Since, encode_subscribe,
};
use bowline::{Frame, Head, MessageId};
use std::collections::{BTreeMap, BTreeSet};

/// So many topics are subscribed to, or followed by their positions.
pub(crate) const TOPICS: usize = 64;

/// So many events behind a hole are waited for, then it is given up.
const BEYOND: usize = 256;

/// Something the hub told: an event, in the words of the wire.
///
/// ```
/// use bowline::wire::aivillage::Event;
/// use bowline_transport::{News, http::Bytes};
/// let data = Bytes::from_static(br#"{"session_id":"sess-1","progress":0.5}"#);
/// let news = News { kind: "training_progress".into(), data, timestamp: None, position: None };
/// assert!(matches!(news.event()?, Event::TrainingProgress { progress: Some(0.5), .. }));
/// # Ok::<(), bowline::wire::aivillage::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct News {
    /// Its type.
    pub kind: String,
    /// Its data, a JSON object, unparsed; of the dialects that have no `data`, the whole frame.
    pub data: Bytes,
    /// When it was sent, as the hub wrote it: an original writes its local time, without a zone.
    pub timestamp: Option<String>,
    /// Where it stands in its topic's history, if the hub keeps one.
    pub position: Option<Position<'static>>,
}

impl News {
    /// What it tells; [`Event::Custom`] of a type that is the application's own.
    ///
    /// # Errors
    /// A key of the data occurs twice.
    pub fn event(&self) -> Result<Event<'_>, Malformed> {
        Event::read(&self.kind, core::str::from_utf8(&self.data).map_err(|_| Malformed::Json)?)
    }
}

/// How far a topic has been followed.
#[derive(Clone, Debug)]
struct Cursor {
    /// The last one before which nothing is missing; at first, what the application wants.
    since: Since,
    /// Delivered already, beyond a hole.
    beyond: BTreeSet<u64>,
    /// The hole has been asked for on this connection.
    asked: bool,
}

/// What a cursor says to an event.
#[derive(PartialEq, Eq, Debug)]
enum Place {
    Next,
    Copy,
    Beyond,
}

impl Cursor {
    const fn new(since: Since) -> Self {
        Self { since, beyond: BTreeSet::new(), asked: false }
    }

    fn place(&self, epoch: u32, offset: u64) -> Place {
        match self.since {
            Since::After { epoch: known, offset: last } if known == epoch => {
                if offset <= last || self.beyond.contains(&offset) {
                    Place::Copy
                } else if offset == last.saturating_add(1) {
                    Place::Next
                } else {
                    Place::Beyond
                }
            }
            // The first of its topic, or of another run: a hub that knew of a gap has said so before.
            Since::After { .. } | Since::Oldest | Since::Now => Place::Next,
        }
    }

    /// Up to this nothing is missing any more.
    fn reached(&mut self, epoch: u32, mut offset: u64) {
        match self.since {
            Since::After { epoch: known, offset: last } if known == epoch => offset = offset.max(last),
            Since::After { .. } | Since::Oldest | Since::Now => self.beyond.clear(),
        }
        self.beyond = self.beyond.split_off(&offset.saturating_add(1));
        while self.beyond.first() == Some(&offset.saturating_add(1)) {
            self.beyond.pop_first();
            offset = offset.saturating_add(1);
        }
        self.since = Since::After { epoch, offset };
        self.asked &= !self.beyond.is_empty();
    }
}

/// AI Village's wire, as a viewer speaks it.
///
/// ```
/// use bowline_transport::{Village, Wire};
/// assert_eq!(Village::viewer().longest_frame(), 16 << 20);
/// ```
#[derive(Clone, Debug)]
pub struct Village {
    topics: BTreeMap<String, Cursor>,
    ready: bool,
}

impl Village {
    /// The wire of a viewer of what its path stands for.
    #[must_use]
    pub const fn viewer() -> Self {
        Self { topics: BTreeMap::new(), ready: false }
    }

    /// Subscribes to this topic; false: it is no name, or there are too many.
    pub(crate) fn subscribe(&mut self, topic: &str, since: Since) -> bool {
        let takes =
            (1..=MAX_NAME).contains(&topic.len()) && (self.topics.len() < TOPICS || self.topics.contains_key(topic));
        if takes {
            self.topics.insert(topic.to_owned(), Cursor::new(since));
        }
        takes
    }

    /// What is asked for on every connection.
    fn subscriptions(&self) -> Vec<String> {
        self.topics.iter().map(|(topic, cursor)| encode_subscribe(topic, Some(cursor.since))).collect()
    }

    /// Everything up to this has been delivered, or is known to be lost.
    fn reached(&mut self, topic: &str, epoch: u32, offset: u64) {
        if let Some(known) = self.topics.get_mut(topic) {
            known.reached(epoch, offset);
        } else if self.topics.len() < TOPICS {
            self.topics.insert(topic.to_owned(), Cursor::new(Since::After { epoch, offset }));
        }
    }

    /// What a frame with an event says.
    fn news(&mut self, frame: &aivillage::Frame<'_>) -> Heard<News> {
        let mut say = Vec::new();
        if let Some(Position { topic, epoch, offset }) = &frame.position
            && let Some(cursor) = self.topics.get_mut(&**topic)
        {
            match cursor.place(*epoch, *offset) {
                Place::Copy => return Heard::of(Head::Word { pong: false }),
                Place::Beyond if !core::mem::replace(&mut cursor.asked, true) => {
                    say.push(encode_subscribe(topic, Some(cursor.since)));
                }
                Place::Next | Place::Beyond => {}
            }
        }
        let owned = |at: &Position<'_>| Position { topic: at.topic.to_string().into(), ..*at };
        let news = News {
            kind: frame.kind.to_string(),
            data: Bytes::copy_from_slice(frame.data.as_bytes()),
            timestamp: frame.timestamp.as_deref().map(Into::into),
            position: frame.position.as_ref().map(owned),
        };
        // Without a position nothing tells a copy: two events may well say the same.
        Heard { say, ..Heard::message(None, None, news) }
    }
}

impl Wire for Village {
    type Kind = str;
    /// Its frame.
    type Outgoing = String;
    type Incoming = News;

    fn longest_frame(&self) -> usize {
        ORIGINAL_LIMIT
    }

    fn greet(&mut self) -> Option<String> {
        self.ready = false;
        for cursor in self.topics.values_mut() {
            cursor.asked = false;
        }
        None
    }

    fn prepare(&mut self, kind: &str, json: &Bytes) -> Result<String, Refused> {
        let data = core::str::from_utf8(json).map_err(|_| Refused::Invalid("data that is no JSON object"))?;
        let frame =
            aivillage::encode_message(kind, data).map_err(|_| Refused::Invalid("data that is no JSON object"))?;
        // A word of the protocol's own would be taken for one.
        match aivillage::decode_request(frame.as_bytes()) {
            Ok(Request::Message { .. }) => Ok(frame),
            Ok(_) | Err(_) => Err(Refused::Kind),
        }
    }

    fn size(frame: &String) -> usize {
        frame.len()
    }

    fn read(&mut self, _: &KeyedHash, text: &str) -> Heard<News> {
        let Ok(frame) = aivillage::decode(text.as_bytes()) else { return Heard::of(Head::Malformed) };
        match &*frame.kind {
            // The second word is a sibling's.
            "connection_established" | "connection" => {
                let first = !core::mem::replace(&mut self.ready, true);
                let say = if first { self.subscriptions() } else { Vec::new() };
                Heard { greeting: first, say, ..Heard::of(Head::Word { pong: false }) }
            }
            "ping" => Heard { say: vec![PONG.into()], ..Heard::of(Head::Word { pong: false }) },
            "pong" => Heard::of(Head::Word { pong: true }),
            // The siblings' own talk.
            "heartbeat" | "subscription_confirmed" | "unsubscription_confirmed" | "echo" => {
                Heard::of(Head::Word { pong: false })
            }
            _ => {
                match frame.event() {
                    Ok(Event::Notice(Notice::SubscriptionResponse { success: true, .. })) => {
                        return Heard::of(Head::Word { pong: false });
                    }
                    Ok(Event::Notice(Notice::Gap { topic, epoch, to, .. })) => self.reached(&topic, epoch, to),
                    Ok(_) => {}
                    Err(_) => return Heard::of(Head::Malformed),
                }
                self.news(&frame)
            }
        }
    }

    fn delivered(&mut self, news: &News) {
        let Some(Position { topic, epoch, offset }) = &news.position else { return };
        let cursor = self.topics.get_mut(&**topic);
        match cursor.filter(|cursor| cursor.place(*epoch, *offset) == Place::Beyond) {
            Some(cursor) if cursor.beyond.len() < BEYOND => {
                cursor.beyond.insert(*offset);
            }
            _ => self.reached(topic, *epoch, *offset),
        }
    }

    fn write(&mut self, frame: Frame<'_, String>) -> Option<String> {
        Some(match frame {
            Frame::Data { payload, .. } => payload.clone(),
            Frame::Ping => PING.into(),
            // Nothing that comes in has an id, and there is no keep-alive in the profile: both would be life signs.
            Frame::Keepalive | Frame::Ack { .. } | Frame::Marks { .. } | Frame::Nack { .. } => PONG.into(),
        })
    }

    /// Nothing is posted.
    fn is_peers(&self, _: MessageId, _: &HttpAnswer) -> bool {
        false
    }

    fn describe(news: &News) -> (&str, usize) {
        let position = news.position.as_ref().map_or(0, |position| position.topic.len());
        (&news.kind, size_of::<News>() + news.kind.len() + news.data.len() + position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::wire::timestamp::Timestamp;

    fn wire() -> Village {
        let mut wire = Village::viewer();
        assert!(wire.subscribe("training", Since::Now));
        wire
    }

    fn read(wire: &mut Village, text: &str) -> Heard<News> {
        wire.read(&KeyedHash::new([7; 16]), text)
    }

    fn sent(event: &Event<'_>, position: Option<(&str, u32, u64)>) -> String {
        let unaddressed = aivillage::Unaddressed::new(Timestamp::from_unix_micros(0), event);
        match position {
            Some((topic, epoch, offset)) => {
                unaddressed.at(&Position { topic: topic.into(), epoch, offset }).to("connection")
            }
            None => unaddressed.to("connection"),
        }
    }

    fn greeting() -> String {
        sent(&Event::connection_established("connection", Timestamp::from_unix_micros(0)), None)
    }

    /// What becomes of an event: whether it is a message, and what is said to it. It is delivered.
    fn event(wire: &mut Village, topic: &str, epoch: u32, offset: u64) -> (bool, Vec<String>) {
        let frame = sent(&Event::Ping { server_time: "".into() }, Some((topic, epoch, offset)));
        let heard = read(wire, &frame.replace("ping", "model_created"));
        if let Some(news) = &heard.message {
            assert_eq!(news.position, Some(Position { topic: topic.to_owned().into(), epoch, offset }));
            wire.delivered(news);
        }
        (heard.message.is_some(), heard.say)
    }

    fn since(offset: u64) -> String {
        encode_subscribe("training", Some(Since::After { epoch: 7, offset }))
    }

    #[test]
    fn it_is_ready_when_greeted_and_subscribes_on_every_connection() {
        let mut wire = wire();
        for (said, asked) in [(encode_subscribe("training", Some(Since::Now)), 12), (since(12), 13)] {
            assert_eq!(wire.greet(), None);
            let heard = read(&mut wire, &greeting());
            assert!(heard.greeting && heard.message.is_none());
            assert_eq!(heard.say, [said]);
            let again = read(&mut wire, &greeting());
            assert!(!again.greeting && again.say.is_empty(), "once a connection");
            assert_eq!(event(&mut wire, "training", 7, asked), (true, vec![]));
        }
        for greeting in [r#"{"type":"connection_established","client_id":"x"}"#, r#"{"type":"connection"}"#] {
            assert_eq!(wire.greet(), None);
            assert!(read(&mut wire, greeting).greeting, "a sibling's: {greeting}");
        }
    }

    #[test]
    fn pings_are_answered_and_pongs_are_life() {
        let mut wire = wire();
        for ping in [sent(&Event::Ping { server_time: "now".into() }, None), r#"{"type":"ping"}"#.into()] {
            let heard = read(&mut wire, &ping);
            assert_eq!(
                (heard.head, heard.say, heard.message),
                (Some(Head::Word { pong: false }), vec![PONG.to_owned()], None)
            );
        }
        assert_eq!(
            read(&mut wire, &sent(&Event::Pong { server_time: "".into() }, None)),
            Heard::of(Head::Word { pong: true })
        );
        assert_eq!(read(&mut wire, r#"{"type":"pong"}"#), Heard::of(Head::Word { pong: true }));
        assert_eq!(wire.write(Frame::Ping).as_deref(), Some(PING));
    }

    #[test]
    fn a_copy_is_known_by_its_position_and_a_hole_is_asked_for_once() {
        let mut wire = wire();
        assert_eq!(event(&mut wire, "training", 7, 12), (true, vec![]));
        assert_eq!(event(&mut wire, "training", 7, 12), (false, vec![]));
        assert_eq!(event(&mut wire, "training", 7, 3), (false, vec![]));
        assert_eq!(event(&mut wire, "training", 7, 15), (true, vec![since(12)]));
        assert_eq!(event(&mut wire, "training", 7, 17), (true, vec![]));
        assert_eq!(wire.subscriptions(), [since(12)], "13 is still missing");
        for (offset, news) in [(13, true), (14, true), (15, false), (16, true), (17, false)] {
            assert_eq!(event(&mut wire, "training", 7, offset), (news, vec![]), "{offset}");
        }
        assert_eq!(wire.subscriptions(), [since(17)]);
        assert_eq!(event(&mut wire, "training", 7, 19), (true, vec![since(17)]), "another hole");
    }

    #[test]
    fn what_there_was_no_place_for_is_asked_for_again() {
        let mut wire = wire();
        assert_eq!(event(&mut wire, "training", 7, 12), (true, vec![]));
        let frame = sent(&Event::P2pPeerUpdate(aivillage::Json::default()), Some(("training", 7, 13)));
        let frame = frame.replace("null,\"timestamp", "{},\"timestamp");
        assert!(read(&mut wire, &frame).message.is_some(), "and the session has no place for it");
        assert_eq!(wire.subscriptions(), [since(12)]);
        assert_eq!(event(&mut wire, "training", 7, 14), (true, vec![since(12)]));
    }

    #[test]
    fn a_gap_is_told_and_passed() {
        let mut wire = wire();
        let gap =
            |epoch, from, to| sent(&Event::Notice(Notice::Gap { topic: "training".into(), epoch, from, to }), None);
        assert_eq!(event(&mut wire, "training", 7, 12), (true, vec![]));
        let heard = read(&mut wire, &gap(7, 13, 20));
        let news = heard.message.unwrap();
        assert!(matches!(news.event(), Ok(Event::Notice(Notice::Gap { from: 13, to: 20, .. }))));
        assert_eq!(event(&mut wire, "training", 7, 21), (true, vec![]));
        assert!(read(&mut wire, &gap(7, 1, 2)).message.is_some());
        assert_eq!(wire.subscriptions(), [since(21)], "never back");
        // Another run, of which nothing is lost.
        assert!(read(&mut wire, &gap(8, 5, 4)).message.is_some());
        assert_eq!(event(&mut wire, "training", 8, 5), (true, vec![]));
        assert_eq!(wire.subscriptions(), [encode_subscribe("training", Some(Since::After { epoch: 8, offset: 5 }))]);
    }

    #[test]
    fn a_hub_of_any_kind_costs_so_much_and_no_more() {
        let mut wire = wire();
        for n in 0..1000 {
            assert_eq!(event(&mut wire, &format!("room.{n}"), 1, u64::MAX), (true, vec![]));
        }
        assert_eq!(wire.subscriptions().len(), TOPICS);
        assert_eq!(event(&mut wire, "training", 7, 1), (true, vec![]));
        for n in 0..1000 {
            event(&mut wire, "training", 7, 3 + 2 * n);
        }
        assert!(wire.topics["training"].beyond.len() <= BEYOND);
        assert_ne!(wire.topics["training"].since, Since::After { epoch: 7, offset: 1 }, "the hole is given up");
    }

    #[test]
    fn subscriptions_that_worked_are_no_news_and_failures_are() {
        let mut wire = wire();
        let answer = |success| {
            let topic = "training".into();
            sent(&Event::Notice(Notice::SubscriptionResponse { topic, success }), None)
        };
        assert_eq!(read(&mut wire, &answer(true)), Heard::of(Head::Word { pong: false }));
        assert!(read(&mut wire, &answer(false)).message.is_some());
        for sibling in ["heartbeat", "subscription_confirmed", "unsubscription_confirmed", "echo"] {
            assert_eq!(read(&mut wire, &format!(r#"{{"type":"{sibling}"}}"#)), Heard::of(Head::Word { pong: false }));
        }
        for junk in
            ["", "[]", "{nope", r#"{"type":5}"#, r#"{"type":"model_deleted","data":{"model_id":1,"model_id":1}}"#]
        {
            assert_eq!(read(&mut wire, junk), Heard::of(Head::Malformed), "{junk}");
        }
    }

    #[test]
    fn an_applications_words_are_none_of_the_protocols() {
        let mut wire = wire();
        let data = Bytes::from_static(br#" {"request":"training_status"}"#);
        let frame = wire.prepare("custom", &data).unwrap();
        assert_eq!(frame, r#"{"type":"custom","data":{"request":"training_status"}}"#);
        assert!(Village::size(&frame) >= frame.len());
        for kind in ["ping", "pong", "subscribe", "unsubscribe", "authenticate", "get_status", "", &"x".repeat(65)] {
            assert_eq!(wire.prepare(kind, &data), Err(Refused::Kind), "{kind}");
        }
        for data in [&b"[]"[..], b"", b"\xff{}", b"{} {}", b"{nope"] {
            assert!(matches!(wire.prepare("custom", &Bytes::from_static(data)), Err(Refused::Invalid(_))), "{data:?}");
        }
    }
}
