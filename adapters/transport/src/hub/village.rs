//! AI Village's hub: viewers whom nobody knows, and the topics they look at.
//!
//! ```text
//!  connects at /ws, /ws/p2p-fog ─▶ a guest of a new name ─▶ connection_established, subscribed to that path's topics
//!  subscribe, unsubscribe ─▶ answered      ping ─▶ pong      what is no JSON ─▶ error      custom ─▶ status_update
//!  publish_topic ─▶ written once, to each with its own connection_id; with its position to whoever asked for one
//!  channel, get_status ─▶ from then on everything flat, as the siblings' interfaces read it; topic ─▶ in the envelope (N3)
//! ```
//!
//! Every connection is a peer of its own, named by its `connection_id`, and ends with it: what a viewer missed it gets from
//! the history of the topics, if it says which event was its last (`since`). Other types than these are the application's:
//! with a handler, or read from the hub's messages; without either they are ignored, as the original does, but for
//! `custom`, which it answers with how the trainings stand: those that were published and have not ended.
//!
//! Field bugs (wire facts 3.6): a broadcast that waits for its slowest reader (2), a `custom` message that ends the
//! connection (3), a binary frame that leaks it (4); 3.2, subscriptions that were dropped without a word; and 3.4,
//! interfaces that read flat frames and were sent envelopes.

use super::line::wall;
use super::setup::{Admission, HubSetup};
use super::wire::{Claim, Complaint, Content, Gap, Heard, HubWire, Said, Text, Wish};
use super::{Hub, Refused};
use crate::http::{Bytes, Routes};
use crate::setup::{SetupError, random_key};
use bowline::ConfigError;
use bowline::hub::{Position, Sent, Start, TopicFilter, TopicName, VILLAGE_HUB};
use bowline::wire::KeyedHash;
use bowline::wire::aivillage::{
    self, Dialect, Event, HUB_LIMIT, INVALID_JSON, Json, MAX_NAME, Malformed, Notice, PATH, PATH_P2P_FOG, Request,
    Since, TOPICS, TOPICS_P2P_FOG, Unaddressed, encode_answer, encode_greeting, encode_refusal, encode_status,
};
use bowline::wire::timestamp::Timestamp;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::time::Duration;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The most trainings that are told of; the one that began first is forgotten for another one.
const TRAININGS: usize = 64;

/// What a training was started with is told up to this length in bytes, or the answer could be as long as anybody likes.
const LONGEST_PARAMETERS: usize = 4096;

/// AI Village's side of the hub. Made by [`HubSetup::village`].
///
/// ```
/// use bowline_transport::hub::{HubSetup, HubWire, Village};
/// let setup: HubSetup<Village> = HubSetup::village("127.0.0.1:0")?;
/// assert_eq!(Village::LONGEST_FRAME, 64 * 1024);
/// # let _ = setup;
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Village {
    /// What whoever connects is subscribed to, by path.
    topics: [(&'static str, Vec<TopicFilter>); 2],
    trainings: Arc<Mutex<Trainings>>,
}

/// The trainings that were published and have not ended, by their names.
#[derive(Default, Debug)]
struct Trainings {
    last: u64,
    active: BTreeMap<String, Training>,
}

/// What the original tells of a training.
#[derive(Debug)]
struct Training {
    /// Its place in the order of beginnings.
    number: u64,
    started_at: Timestamp,
    /// JSON.
    parameters: String,
    progress: f64,
}

impl Trainings {
    fn note(&mut self, now: Timestamp, event: &Event<'_>) {
        match event {
            Event::TrainingStarted { session_id, parameters, .. } if session_id.len() <= MAX_NAME => {
                let first =
                    self.active.iter().min_by_key(|(_, training)| training.number).map(|(name, _)| name.clone());
                if self.active.len() >= TRAININGS
                    && !self.active.contains_key(&**session_id)
                    && let Some(first) = first
                {
                    self.active.remove(&first);
                }
                self.last = self.last.saturating_add(1);
                let known = Some(parameters.as_str()).filter(|json| json.len() <= LONGEST_PARAMETERS);
                let parameters = known.unwrap_or("null").to_owned();
                let training = Training { number: self.last, started_at: now, parameters, progress: 0.0 };
                self.active.insert(session_id.to_string(), training);
            }
            Event::TrainingProgress { session_id, progress: Some(progress), .. } => {
                if let Some(training) = self.active.get_mut(&**session_id) {
                    training.progress = *progress;
                }
            }
            Event::TrainingCompleted { session_id, .. } | Event::TrainingError { session_id, .. } => {
                self.active.remove(&**session_id);
            }
            _ => {}
        }
    }

    /// The original's answer to a `custom` message, but for the date with which that cannot be written (wire facts 3.6.3).
    fn status(&self) -> (String, String) {
        let name = |name: &str| serde_json::Value::from(name).to_string();
        let names: Vec<_> = self.active.keys().map(|key| name(key)).collect();
        let detail = |(key, training): (&String, &Training)| {
            let Training { started_at, parameters, progress, .. } = training;
            let (key, started_at, progress) =
                (name(key), name(&started_at.naive()), serde_json::Value::from(*progress));
            format!(r#"{key}:{{"started_at":{started_at},"parameters":{parameters},"progress":{progress}}}"#)
        };
        let details: Vec<_> = self.active.iter().map(detail).collect();
        (format!("[{}]", names.join(",")), format!("{{{}}}", details.join(",")))
    }
}

/// Who somebody is at a hub of AI Village's: 1 to 64 bytes of text.
///
/// ```
/// use bowline_transport::hub::Name;
/// let name: Name = "viewer-7".parse()?;
/// assert_eq!(name.as_str(), "viewer-7");
/// assert!("".parse::<Name>().is_err());
/// # Ok::<(), &str>(())
/// ```
#[derive(Clone)]
pub struct Name(Arc<Known>);

/// What is known of a viewer.
struct Known {
    text: Box<str>,
    /// Its interface reads flat frames, to judge by its last word about a topic (N3).
    flat: AtomicBool,
}

impl Name {
    /// A name that nobody has.
    fn new() -> Self {
        // As the original spells it: a UUID of version 4.
        let bits = u128::from_be_bytes(random_key()) & !(0xf << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62;
        let hex = format!("{bits:032x}");
        let part = |range: core::ops::Range<usize>| hex.get(range).unwrap_or_default();
        Self::of(&[part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-"))
    }

    fn of(text: &str) -> Self {
        Self(Arc::new(Known { text: text.into(), flat: AtomicBool::new(false) }))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// From now on it is spoken to so.
    fn speaks(&self, dialect: Dialect) {
        self.0.flat.store(dialect == Dialect::Flat, Relaxed);
    }

    fn is_flat(&self) -> bool {
        self.0.flat.load(Relaxed)
    }
}

/// By its text alone.
impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl core::str::FromStr for Name {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, &'static str> {
        match name.len() {
            1..=MAX_NAME => Ok(Self::of(name)),
            _ => Err("a name has 1 to 64 bytes"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An event for all who get it, in both dialects; what a hub of AI Village's makes of what is published.
///
/// ```
/// use bowline_transport::hub::{EventFrames, HubWire, Village};
/// fn is_one<W: HubWire<Encoded = EventFrames>>() {}
/// is_one::<Village>();
/// ```
#[derive(Debug)]
pub struct EventFrames {
    event: Unaddressed,
    /// The same for everybody: written when somebody wants it.
    flat: OnceLock<Text>,
}

impl EventFrames {
    const fn new(event: Unaddressed) -> Self {
        Self { event, flat: OnceLock::new() }
    }

    /// Of one event there is one topic, or none.
    fn to(&self, peer: &Name, channel: Option<&str>) -> Text {
        if peer.is_flat() {
            self.flat.get_or_init(|| self.event.flat(channel).into()).clone()
        } else {
            self.event.to(peer.as_str()).into()
        }
    }
}

impl HubWire for Village {
    type Peer = Name;
    type Proof = ();
    type Confirmation = ();
    type Encoded = EventFrames;

    const LONGEST_FRAME: usize = HUB_LIMIT;
    const SERVICE: Option<&'static str> = Some("bowline");
    /// The original's handler dies of one (wire facts 3.6.4).
    const READS_BINARY: bool = false;

    fn routes(&self) -> Routes<'static> {
        Routes {
            websockets: &[PATH, PATH_P2P_FOG],
            pages: &["/health", "/ws/health", "/stats", "/metrics"],
            guarded: true,
            ..Routes::NONE
        }
    }

    fn guest(&self) -> Option<Claim<Self>> {
        Some(Claim { peer: Name::new(), proof: (), stamp: None })
    }

    fn holds(&self, _: &Name, (): &()) -> bool {
        true
    }

    fn topics(&self, path: &str) -> &[TopicFilter] {
        self.topics.iter().find(|(known, _)| is_last(known, path)).map_or(&[], |(_, topics)| topics)
    }

    fn named(&self, cid: &str) -> Option<Name> {
        Some(Name::of(cid))
    }

    fn read(&self, _: &KeyedHash, peer: &Name, text: &Bytes) -> Heard {
        let request = match aivillage::decode_request(text) {
            Ok(request) => request,
            Err(why) => return Heard { reply: Some(misread(peer, why)), ..Heard::MALFORMED },
        };
        match &request {
            Request::Subscribe { dialect, .. } | Request::Unsubscribe { dialect, .. } => peer.speaks(*dialect),
            // A word of the siblings'.
            Request::GetStatus => peer.speaks(Dialect::Flat),
            Request::Ping | Request::Pong | Request::Authenticate | Request::Message { .. } => {}
        }
        let answer = |on, topic: &str, dialect, success| {
            Some(encode_answer(dialect, on, topic, success, now(), peer.as_str()).into())
        };
        match request {
            Request::Ping => {
                let pong = to(peer, &Event::Pong { server_time: now().naive().into() });
                Heard { reply: Some(pong), ..Heard::OTHER }
            }
            // Life, but no proof that anything has arrived: it may be older than what was sent.
            Request::Pong | Request::Authenticate => Heard::OTHER,
            Request::GetStatus => Heard { said: Said::Status, ..Heard::OTHER },
            Request::Subscribe { topic, dialect, since } => match TopicFilter::new(&topic) {
                Ok(filter) => {
                    let since = since.map(|since| match since {
                        Since::Now => Start::Now,
                        Since::Oldest => Start::Oldest,
                        Since::After { epoch, offset } => Start::After(Position { epoch, offset }),
                    });
                    let (yes, no) = (answer(true, &topic, dialect, true), answer(true, &topic, dialect, false));
                    Heard { said: Said::Subscribe(Box::new(Wish { filter, since, yes, no })), ..Heard::OTHER }
                }
                Err(_) => Heard { reply: answer(true, &topic, dialect, false), ..Heard::OTHER },
            },
            Request::Unsubscribe { topic, dialect } => match TopicFilter::new(&topic) {
                Ok(filter) => {
                    let (yes, no) = (answer(false, &topic, dialect, true), answer(false, &topic, dialect, false));
                    Heard { said: Said::Unsubscribe(Box::new(Wish { filter, since: None, yes, no })), ..Heard::OTHER }
                }
                Err(_) => Heard { reply: answer(false, &topic, dialect, false), ..Heard::OTHER },
            },
            Request::Message { kind, data } => {
                // Without data it is the codec's own `{}`, which lies in no frame.
                let data = match data {
                    "{}" => Bytes::from_static(b"{}"),
                    data => text.slice_ref(data.as_bytes()),
                };
                let content = Content { kind: kind.into_owned().into(), data, id: None };
                Heard { said: Said::Message(content), ..Heard::OTHER }
            }
        }
    }

    fn encode(&self, kind: &str, data: &str) -> Result<EventFrames, Cow<'static, str>> {
        if !(1..=MAX_NAME).contains(&kind.len()) {
            return Err("a type has 1 to 64 bytes".into());
        }
        // A viewer of ours looks for the keys of its type, and takes what has one twice for malformed.
        Event::read(kind, data).map_err(|why| why.to_string())?;
        let data = Json::parse(data).map_err(|why| why.to_string())?;
        Ok(EventFrames::new(Unaddressed::new(now(), &Event::Custom { kind: kind.into(), data })))
    }

    fn size(encoded: &EventFrames) -> usize {
        encoded.event.size().saturating_add(MAX_NAME)
    }

    fn frame(&self, encoded: &EventFrames, to: &Name) -> Text {
        encoded.to(to, None)
    }

    fn item(&self, encoded: &EventFrames, to: &Name, topic: &TopicName) -> Text {
        encoded.to(to, Some(topic.as_str()))
    }

    fn published(&self, kind: &str, data: &str) {
        if kind.starts_with("training_")
            && let Ok(event) = Event::read(kind, data)
        {
            self.trainings.lock().unwrap_or_else(PoisonError::into_inner).note(now(), &event);
        }
    }

    fn placed(&self, encoded: &EventFrames, topic: &TopicName, at: Position) -> Option<EventFrames> {
        let Position { epoch, offset } = at;
        let at = aivillage::Position { topic: topic.as_str().into(), epoch, offset };
        Some(EventFrames::new(encoded.event.at(&at)))
    }

    fn gap(&self, peer: &Name, gap: &Gap) -> Option<Text> {
        let Gap { topic, epoch, from, to: last } = gap;
        let gap = Notice::Gap { topic: topic.as_str().into(), epoch: *epoch, from: from.unwrap_or(1), to: *last };
        Some(to(peer, &Event::Notice(gap)))
    }

    fn welcome(&self, peer: &Name, _: Duration) -> Option<Text> {
        Some(encode_greeting(peer.as_str(), now()).into())
    }

    fn complain(&self, peer: &Name, complaint: Complaint<'_>) -> Option<Text> {
        match complaint {
            Complaint::Malformed => Some(error(peer, INVALID_JSON)),
            Complaint::Member { .. } | Complaint::Timestamp { .. } | Complaint::Reused(_) => {
                Some(error(peer, &complaint.to_string()))
            }
            Complaint::TooMuch => Some(error(peer, "Too many messages")),
            // The application does not want it, so it is answered as the original does.
            Complaint::Unhandled("custom") => {
                let (active, details) = self.trainings.lock().unwrap_or_else(PoisonError::into_inner).status();
                let active_sessions = Json::parse(&active).unwrap_or_default();
                let session_details = Json::parse(&details).unwrap_or_default();
                let of = "training_status".into();
                Some(to(peer, &Event::StatusUpdate { of, active_sessions, session_details }))
            }
            Complaint::Unhandled(_) => None,
        }
    }

    fn status(&self, peer: &Name, topics: &[&str], since: i64, connections: usize) -> Option<Text> {
        let since = Timestamp::from_unix_micros(since);
        Some(encode_status(peer.as_str(), topics, since, connections).into())
    }

    fn ping(&self, peer: &Name) -> Option<Text> {
        Some(to(peer, &Event::Ping { server_time: now().naive().into() }))
    }
}

fn now() -> Timestamp {
    Timestamp::from_unix_micros(wall())
}

fn to(peer: &Name, event: &Event<'_>) -> Text {
    let event = Unaddressed::new(now(), event);
    if peer.is_flat() { event.flat(None).into() } else { event.to(peer.as_str()).into() }
}

fn error(peer: &Name, why: &str) -> Text {
    if peer.is_flat() { encode_refusal(why).into() } else { to(peer, &Event::Error { error: why.into() }) }
}

fn misread(peer: &Name, why: Malformed) -> Text {
    match why {
        Malformed::Json | Malformed::Object => error(peer, INVALID_JSON),
        Malformed::Twice | Malformed::Kind | Malformed::Topic | Malformed::Since | Malformed::Data => {
            error(peer, &why.to_string())
        }
    }
}

/// Whether this is the last part of the path.
fn is_last(path: &str, part: &str) -> bool {
    path.rsplit('/').next() == Some(part)
}

impl HubSetup<Village> {
    /// AI Village's hub, listening on `address`; port 0 lets the system choose. Everybody may come in, unless
    /// [`authorize`](Self::authorize) says otherwise.
    ///
    /// ```
    /// use bowline_transport::hub::HubSetup;
    /// let setup = HubSetup::village("127.0.0.1:0")?
    ///     .on("custom", |message| async move {
    ///         println!("{} says {}", message.peer(), String::from_utf8_lossy(message.data()));
    ///         Ok::<_, String>(())
    ///     });
    /// # let _ = setup;
    /// # Ok::<(), bowline_transport::SetupError>(())
    /// ```
    ///
    /// # Errors
    /// The address makes no sense, or its name is unknown.
    pub fn village(address: &str) -> Result<Self, SetupError> {
        let topics = |names: &[&str]| names.iter().filter_map(|name| TopicFilter::new(name).ok()).collect();
        let topics = [(PATH, topics(&TOPICS)), (PATH_P2P_FOG, topics(&TOPICS_P2P_FOG))];
        let trainings = Arc::default();
        Ok(Self::with(address, Village { topics, trainings }, VILLAGE_HUB)?.authorize(|_| Admission::accept()))
    }

    /// What whoever connects at this path is subscribed to without asking. Default: `training`, `models` and `system` at
    /// `/ws`, `p2p` and `fog` at `/ws/p2p-fog`.
    ///
    /// # Errors
    /// There is no such path.
    pub fn auto_subscribe(
        mut self,
        path: &str,
        topics: impl IntoIterator<Item = TopicFilter>,
    ) -> Result<Self, SetupError> {
        let known = self.wire.topics.iter_mut().find(|(known, _)| *known == path);
        let why = ConfigError { field: "auto_subscribe", why: "neither /ws nor /ws/p2p-fog" };
        known.ok_or(why)?.1 = topics.into_iter().collect();
        Ok(self)
    }
}

impl Hub<Village> {
    /// Publishes an event on the topic that the original has for its type; one of a type that it does not publish, on
    /// `system`.
    ///
    /// # Errors
    /// Why not.
    pub fn publish_event(&self, event: &Event<'_>) -> Result<Sent, Refused> {
        self.publish_topic(aivillage::topic_of(event.kind()).unwrap_or("system"), event.kind(), &event.data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_a_name_like_that_of_the_original() {
        let name = Name::new();
        assert_ne!(name, Name::new());
        let places: Vec<_> = name.as_str().match_indices('-').map(|(at, _)| at).collect();
        assert_eq!((name.as_str().len(), places), (36, vec![8, 13, 18, 23]));
        assert_eq!(name.as_str().as_bytes().get(14), Some(&b'4'));
        assert!(matches!(name.as_str().as_bytes().get(19), Some(b'8' | b'9' | b'a' | b'b')));
    }

    #[test]
    fn a_training_that_begins_again_takes_the_place_of_no_other() {
        let mut trainings = Trainings::default();
        let mut begin = |name: usize| {
            let event = format!(r#"{{"session_id":"{name}","parameters":{{}}}}"#);
            let event = Event::read("training_started", &event).unwrap();
            trainings.note(now(), &event);
            trainings.active.keys().map(|name| name.parse().unwrap()).collect::<std::collections::BTreeSet<usize>>()
        };
        for name in 0..TRAININGS {
            assert_eq!(begin(name).len(), name + 1);
        }
        assert_eq!(begin(5).len(), TRAININGS);
        let others = begin(TRAININGS);
        assert!(others.len() == TRAININGS && !others.contains(&0), "the one that began first is forgotten");
    }

    #[test]
    fn what_our_own_viewer_could_not_read_is_not_published() {
        let setup = HubSetup::village("127.0.0.1:0").unwrap();
        let takes = |kind: &str, data: &str| setup.wire.encode(kind, data).is_ok();
        assert!(takes("training_progress", r#" {"session_id":"1","x":1,"x":2} "#), "of no concern to a reader");
        for data in [r#"{"session_id":1,"session_id":2}"#, "[]", "{", "", "{} {}"] {
            assert!(!takes("training_progress", data), "{data}");
        }
        assert!(takes("of ours", r#"{"session_id":1,"session_id":2}"#), "nobody looks into it");
        assert!(!takes("", "{}") && !takes(&"é".repeat(33), "{}") && takes(&"é".repeat(32), "{}"));
    }

    #[test]
    fn a_topic_is_where_its_path_says() {
        let setup = HubSetup::village("127.0.0.1:0").unwrap();
        let names = |part: &str| setup.wire.topics(part).iter().map(TopicFilter::to_string).collect::<Vec<_>>();
        assert_eq!(names("ws"), ["training", "models", "system"]);
        assert_eq!(names("p2p-fog"), ["p2p", "fog"]);
        assert_eq!(names("elsewhere"), [""; 0]);
    }
}
