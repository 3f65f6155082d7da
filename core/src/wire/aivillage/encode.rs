//! Writing frames: compact JSON, with the keys in the original's order.

use alloc::string::{String, ToString};

use serde::Serialize;

use super::{Dialect, Event, Malformed, Notice, Position, Since};
use crate::wire::WHITE;
use crate::wire::timestamp::Timestamp;

/// An event in its envelope, written once for all who get it; each gets its own `connection_id`.
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
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Unaddressed {
    before: String,
    after: String,
}

impl Unaddressed {
    /// An event that is sent now.
    #[must_use]
    pub fn new(now: Timestamp, event: &Event<'_>) -> Self {
        let (kind, data, now) = (json(event.kind()), event.data(), json(&now.naive()));
        let before =
            [r#"{"type":"#, &kind, r#","data":"#, &data, r#","timestamp":"#, &now, r#","connection_id":"#].concat();
        Self { before, after: r#","target_connections":null}"#.to_string() }
    }

    /// With its place in a topic's history.
    #[must_use]
    pub fn at(&self, position: &Position<'_>) -> Self {
        let after = [r#","target_connections":null,"position":"#, &json(position), "}"].concat();
        Self { before: self.before.clone(), after }
    }

    /// The frame for this connection, to be sent as text.
    #[must_use]
    pub fn to(&self, connection_id: &str) -> String {
        [&*self.before, &json(connection_id), &self.after].concat()
    }

    /// Bytes of it, without the connection's id.
    #[must_use]
    pub fn size(&self) -> usize {
        self.before.len().saturating_add(self.after.len())
    }
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

/// A client's wish for a topic; `since` is ours, and ignored by everybody else.
#[must_use]
pub fn encode_subscribe(topic: &str, since: Option<Since>) -> String {
    json(&Words { kind: "subscribe", topic, since })
}

/// A client's wish to hear no more of a topic.
///
/// ```
/// assert_eq!(bowline::wire::aivillage::encode_unsubscribe("fog"), r#"{"type":"unsubscribe","topic":"fog"}"#);
/// ```
#[must_use]
pub fn encode_unsubscribe(topic: &str) -> String {
    json(&Words { kind: "unsubscribe", topic, since: None })
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
