//! Writing frames: compact JSON, with the keys in the original's order.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Dialect, Event, Malformed, Notice, Position, Since};
use crate::wire::WHITE;
use crate::wire::timestamp::Timestamp;

/// An event, written once for all who get it: in its envelope, where each gets its own `connection_id`, or flat, as the
/// siblings' interfaces read it.
///
/// Times are UTC, without a zone: the original writes its local time so, and its readers expect no zone.
///
/// ```
/// use bowline::wire::aivillage::{Event, Position, Unaddressed};
/// use bowline::wire::timestamp::Timestamp;
/// let now = Timestamp::from_unix_micros(1_743_422_400_500_000);
/// let pong = Unaddressed::new(now, &Event::Pong { server_time: now.naive().into() });
/// let said = r#"{"type":"pong","data":{"server_time":"2025-03-31T12:00:00.500000"},"timestamp":"2025-03-31T12:00:00.500000","#;
/// assert_eq!(pong.to("c-1"), [said, r#""connection_id":"c-1","target_connections":null}"#].concat());
/// let placed = pong.at(&Position { topic: "system".into(), epoch: 7, offset: 12 });
/// let position = r#""target_connections":null,"position":{"topic":"system","epoch":7,"offset":12}}"#;
/// assert_eq!(placed.to("c-1"), [said, r#""connection_id":"c-1","#, position].concat());
/// let flat = r#"{"type":"pong","server_time":"2025-03-31T12:00:00.500000","timestamp":"2025-03-31T12:00:00.500000"}"#;
/// assert_eq!(pong.flat(None), flat);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Unaddressed {
    /// All four are JSON.
    kind: String,
    data: String,
    timestamp: String,
    position: Option<String>,
}

/// What stands in an envelope before its type, data, timestamp and connection, and behind these.
const ENVELOPE: [&str; 5] =
    [r#"{"type":"#, r#","data":"#, r#","timestamp":"#, r#","connection_id":"#, r#","target_connections":null"#];

/// What stands before a position.
const POSITION: &str = r#","position":"#;

impl Unaddressed {
    /// An event that is sent now.
    #[must_use]
    pub fn new(now: Timestamp, event: &Event<'_>) -> Self {
        Self { kind: json(event.kind()), data: event.data(), timestamp: json(&now.naive()), position: None }
    }

    /// With its place in a topic's history.
    #[must_use]
    pub fn at(&self, position: &Position<'_>) -> Self {
        Self { position: Some(json(position)), ..self.clone() }
    }

    /// The frame for this connection in its envelope, to be sent as text.
    #[must_use]
    pub fn to(&self, connection_id: &str) -> String {
        let [kind, data, timestamp, connection, rest] = ENVELOPE;
        let (at, position) = self.place();
        let id = json(connection_id);
        let said = [kind, &self.kind, data, &self.data, timestamp, &self.timestamp];
        [said.concat().as_str(), connection, &id, rest, at, position, "}"].concat()
    }

    /// The flat frame, to be sent as text: what `data` holds lies at the top. `channel`: the topic on which it is published.
    ///
    /// The data's own `type` gives way to the event's, but for `custom` and `status_update`, of which it is the type that
    /// matters; its `channel` and `timestamp` give way, too.
    ///
    /// ```
    /// use bowline::wire::aivillage::{Event, Json, Unaddressed};
    /// use bowline::wire::timestamp::Timestamp;
    /// let data = Json::parse(r#"{"phase_name":"EvoMerge","progress":0.25}"#)?;
    /// let event = Event::Custom { kind: "phase_update".into(), data };
    /// let frame = Unaddressed::new(Timestamp::from_unix_micros(0), &event).flat(Some("agent_forge_phases"));
    /// let said = r#"{"type":"phase_update","phase_name":"EvoMerge","progress":0.25,"channel":"agent_forge_phases","#;
    /// assert_eq!(frame, [said, r#""timestamp":"1970-01-01T00:00:00"}"#].concat());
    /// # Ok::<(), bowline::wire::aivillage::Malformed>(())
    /// ```
    #[must_use]
    pub fn flat(&self, channel: Option<&str>) -> String {
        let members = members(&self.data);
        let own = members.iter().find(|(key, _)| key == "type").map(|(_, value)| value.get());
        let of_data = [r#""custom""#, r#""status_update""#].contains(&&*self.kind);
        let kind = own.filter(|own| of_data && own.starts_with('"')).unwrap_or(&self.kind);
        let mut frame = [r#"{"type":"#, kind].concat();
        for (key, value) in members.iter().filter(|(key, _)| !["type", "channel", "timestamp"].contains(&&**key)) {
            frame.push_str(&[",", &json(&**key), ":", value.get()].concat());
        }
        if let Some(channel) = channel {
            frame.push_str(&[r#","channel":"#, &json(channel)].concat());
        }
        let (at, position) = self.place();
        [&frame, r#","timestamp":"#, &self.timestamp, at, position, "}"].concat()
    }

    fn place(&self) -> (&'static str, &str) {
        self.position.as_deref().map_or(("", ""), |position| (POSITION, position))
    }

    /// Bytes of it in its envelope, without the connection's id.
    #[must_use]
    pub fn size(&self) -> usize {
        let (at, position) = self.place();
        let said = [&*self.kind, &self.data, &self.timestamp, at, position, "}"];
        ENVELOPE.iter().chain(&said).map(|part| part.len()).fold(0, usize::saturating_add)
    }
}

/// The members of a JSON object in their order; none of what is no object.
pub(super) fn members(object: &str) -> Vec<(Cow<'_, str>, &RawValue)> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(Key(key)) = map.next_key()? {
                members.push((key, map.next_value()?));
            }
            Ok(members)
        }
    }

    /// Borrowed unless it is escaped.
    #[derive(Deserialize)]
    struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

    serde_json::Deserializer::from_str(object).deserialize_map(Members).unwrap_or_default()
}

/// The greeting, first on every connection. Nobody has said yet how it reads, so it is for both: in the service's envelope,
/// and with the siblings' `client_id` behind it.
///
/// ```
/// use bowline::wire::aivillage::{Dialect, decode, encode_greeting};
/// use bowline::wire::timestamp::Timestamp;
/// let greeting = encode_greeting("c-1", Timestamp::from_unix_micros(0));
/// assert!(greeting.ends_with(r#""connection_id":"c-1","target_connections":null,"client_id":"c-1"}"#));
/// assert_eq!(decode(greeting.as_bytes())?.dialect, Dialect::Service);
/// # Ok::<(), bowline::wire::aivillage::Malformed>(())
/// ```
#[must_use]
pub fn encode_greeting(connection_id: &str, now: Timestamp) -> String {
    let mut greeting = Unaddressed::new(now, &Event::connection_established(connection_id, now)).to(connection_id);
    greeting.pop();
    greeting.push_str(&[r#","client_id":"#, &json(connection_id), "}"].concat());
    greeting
}

/// The answer to `subscribe` (`on`) or `unsubscribe` in the words of whoever asked. The flat dialects have none for a
/// failure, so it is an `error` of theirs.
///
/// ```
/// use bowline::wire::aivillage::{Dialect, encode_answer};
/// use bowline::wire::timestamp::Timestamp;
/// let now = Timestamp::from_unix_micros(0);
/// let flat = encode_answer(Dialect::Flat, true, "metrics", true, now, "c-1");
/// assert_eq!(flat, r#"{"type":"subscription_confirmed","channel":"metrics"}"#);
/// let service = encode_answer(Dialect::Service, false, "training", true, now, "c-1");
/// assert!(service.starts_with(r#"{"type":"custom","data":{"type":"unsubscription_response","topic":"training","success":true},"#));
/// ```
#[must_use]
pub fn encode_answer(
    dialect: Dialect,
    on: bool,
    topic: &str,
    success: bool,
    now: Timestamp,
    connection_id: &str,
) -> String {
    match (dialect, on) {
        (Dialect::Service, on) => {
            let topic = topic.into();
            let notice = if on {
                Notice::SubscriptionResponse { topic, success }
            } else {
                Notice::UnsubscriptionResponse { topic, success }
            };
            Unaddressed::new(now, &Event::Notice(notice)).to(connection_id)
        }
        (Dialect::Flat, _) if !success => encode_refusal(&[topic, ": not possible"].concat()),
        (Dialect::Flat, true) => [r#"{"type":"subscription_confirmed","channel":"#, &json(topic), "}"].concat(),
        (Dialect::Flat, false) => [r#"{"type":"unsubscription_confirmed","channel":"#, &json(topic), "}"].concat(),
    }
}

/// An `error` as the siblings spell it.
///
/// ```
/// assert_eq!(bowline::wire::aivillage::encode_refusal("no"), r#"{"type":"error","message":"no"}"#);
/// ```
#[must_use]
pub fn encode_refusal(message: &str) -> String {
    [r#"{"type":"error","message":"#, &json(message), "}"].concat()
}

/// The answer to `get_status`, a word of the flat dialects.
///
/// ```
/// use bowline::wire::aivillage::encode_status;
/// use bowline::wire::timestamp::Timestamp;
/// let since = Timestamp::from_unix_micros(1);
/// let status = r#"{"type":"status","client_id":"c-1","subscriptions":["system"],"connected_at":"1970-01-01T00:00:00.000001","total_clients":1}"#;
/// assert_eq!(encode_status("c-1", &["system"], since, 1), status);
/// ```
#[must_use]
pub fn encode_status(connection_id: &str, topics: &[&str], connected_at: Timestamp, clients: usize) -> String {
    json(&Status {
        kind: "status",
        client_id: connection_id,
        subscriptions: topics,
        connected_at: connected_at.naive(),
        total_clients: clients,
    })
}

/// A client's wish for a topic, under both names that hubs know it by: the service reads `topic`, its siblings `channel`.
/// `since` is ours, and ignored by everybody else.
#[must_use]
pub fn encode_subscribe(topic: &str, since: Option<Since>) -> String {
    json(&Words { kind: "subscribe", topic, channel: topic, since })
}

/// A client's wish to hear no more of a topic.
///
/// ```
/// let frame = bowline::wire::aivillage::encode_unsubscribe("fog");
/// assert_eq!(frame, r#"{"type":"unsubscribe","topic":"fog","channel":"fog"}"#);
/// ```
#[must_use]
pub fn encode_unsubscribe(topic: &str) -> String {
    json(&Words { kind: "unsubscribe", topic, channel: topic, since: None })
}

/// A client's message: `custom`, or a type of the application's own, around a JSON object.
///
/// ```
/// use bowline::wire::aivillage::{Malformed, encode_message};
/// assert_eq!(encode_message("custom", r#"{"request":"training_status"}"#)?, r#"{"type":"custom","data":{"request":"training_status"}}"#);
/// assert_eq!(encode_message("custom", "[]"), Err(Malformed::Data));
/// # Ok::<(), Malformed>(())
/// ```
///
/// # Errors
///
/// [`Malformed::Data`] if it is no JSON object.
pub fn encode_message(kind: &str, data: &str) -> Result<String, Malformed> {
    let data = super::Json::parse(data).map_err(|_| Malformed::Data)?.as_str().trim_matches(WHITE);
    if !data.starts_with('{') {
        return Err(Malformed::Data);
    }
    Ok([r#"{"type":"#, &json(kind), r#","data":"#, data, "}"].concat())
}

#[derive(Serialize)]
struct Words<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Since>,
}

#[derive(Serialize)]
struct Status<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    client_id: &'a str,
    subscriptions: &'a [&'a str],
    connected_at: String,
    total_clients: usize,
}

/// Strings and numbers can always be written.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
