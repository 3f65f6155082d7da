//! What the envelope holds: an event by its type, and its data as the original spells it.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use core::fmt;
use core::iter;

use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::notice::Notice;
use super::{CUSTOM, FEATURES, Malformed};
use crate::wire::WHITE;
use crate::wire::timestamp::Timestamp;

/// A value as it stands in the frame, or is to stand in one: JSON that nobody has taken apart.
///
/// ```
/// use bowline::wire::aivillage::Json;
/// assert_eq!(Json::parse(r#" {"lr": 3e-4} "#)?.as_str(), r#"{"lr": 3e-4}"#);
/// assert_eq!(Json::default().as_str(), "null");
/// assert!(Json::parse("{nope").is_err());
/// # Ok::<(), bowline::wire::aivillage::Malformed>(())
/// ```
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json<'a>(#[serde(borrow)] &'a RawValue);

impl<'a> Json<'a> {
    /// Takes one JSON value.
    ///
    /// # Errors
    ///
    /// [`Malformed::Json`]: it is none.
    pub fn parse(json: &'a str) -> Result<Self, Malformed> {
        serde_json::from_str(json).map(Self).map_err(|_| Malformed::Json)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.0.get()
    }
}

impl Default for Json<'_> {
    /// `null`.
    fn default() -> Self {
        Self(RawValue::NULL)
    }
}

impl PartialEq for Json<'_> {
    /// Byte by byte.
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a frame of the hub's tells. The variants are the types of the wire, in `snake_case`, and their fields the keys of
/// its `data` in the original's order; a number that is missing or not finite is `None`.
///
/// ```
/// use bowline::wire::aivillage::{Event, Json};
/// let event = Event::TrainingProgress {
///     session_id: "sess-1".into(),
///     progress: Some(0.5),
///     current_epoch: Some(5),
///     loss: Some(f64::NAN),
///     metrics: Json::parse(r#"{"lr": 3e-4}"#)?,
///     estimated_time_remaining: None,
/// };
/// assert_eq!(event.kind(), "training_progress");
/// let data = event.data();
/// let said = r#"{"session_id":"sess-1","progress":0.5,"current_epoch":5,"loss":null,"metrics":{"lr": 3e-4},"#;
/// assert_eq!(data, [said, r#""estimated_time_remaining":null}"#].concat());
/// assert!(matches!(Event::read("training_progress", &data)?, Event::TrainingProgress { progress: Some(0.5), .. }));
/// # Ok::<(), bowline::wire::aivillage::Malformed>(())
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", bound(deserialize = "'de: 'a"))]
pub enum Event<'a> {
    /// The greeting, first on every connection.
    ConnectionEstablished {
        /// New for every connection; the siblings' `client_id`.
        #[serde(default, deserialize_with = "lenient", alias = "client_id")]
        connection_id: Cow<'a, str>,
        /// The hub's clock.
        #[serde(default, deserialize_with = "lenient")]
        server_time: Cow<'a, str>,
        /// An array of names: [`FEATURES`](super::FEATURES).
        #[serde(default)]
        features: Json<'a>,
    },
    /// Declared by the original, and never sent.
    ConnectionClosed(Json<'a>),
    /// To be answered with [`PONG`](super::PONG).
    Ping {
        /// The hub's clock.
        #[serde(default, deserialize_with = "lenient")]
        server_time: Cow<'a, str>,
    },
    /// The answer to [`PING`](super::PING).
    Pong {
        /// The hub's clock.
        #[serde(default, deserialize_with = "lenient")]
        server_time: Cow<'a, str>,
    },
    /// A training has begun.
    TrainingStarted {
        /// The name of the training.
        #[serde(default, deserialize_with = "lenient")]
        session_id: Cow<'a, str>,
        /// As they were given.
        #[serde(default)]
        parameters: Json<'a>,
        /// Seconds.
        #[serde(default, deserialize_with = "number")]
        estimated_duration: Option<f64>,
        /// Of what is trained.
        #[serde(default, deserialize_with = "lenient")]
        model_type: Option<Cow<'a, str>>,
    },
    /// A training goes on.
    TrainingProgress {
        /// The name of the training.
        #[serde(default, deserialize_with = "lenient")]
        session_id: Cow<'a, str>,
        /// 0 to 1.
        #[serde(default, deserialize_with = "number")]
        progress: Option<f64>,
        /// The pass over the data.
        #[serde(default, deserialize_with = "lenient")]
        current_epoch: Option<u64>,
        /// As it is measured.
        #[serde(default, deserialize_with = "number")]
        loss: Option<f64>,
        /// Whatever else is measured.
        #[serde(default)]
        metrics: Json<'a>,
        /// Seconds.
        #[serde(default, deserialize_with = "number")]
        estimated_time_remaining: Option<f64>,
    },
    /// A training is done.
    TrainingCompleted {
        /// The name of the training.
        #[serde(default, deserialize_with = "lenient")]
        session_id: Cow<'a, str>,
        /// All there is to say.
        #[serde(default)]
        results: Json<'a>,
        /// Where the model lies.
        #[serde(default, deserialize_with = "lenient")]
        model_path: Option<Cow<'a, str>>,
        /// The last ones measured.
        #[serde(default)]
        final_metrics: Json<'a>,
    },
    /// A training has failed.
    TrainingError {
        /// The name of the training.
        #[serde(default, deserialize_with = "lenient")]
        session_id: Cow<'a, str>,
        /// What went wrong.
        #[serde(default, deserialize_with = "lenient")]
        error: Cow<'a, str>,
        /// Where it went wrong.
        #[serde(default, deserialize_with = "lenient")]
        traceback: Option<Cow<'a, str>>,
    },
    /// There is a new model.
    ModelCreated {
        /// The name of the model.
        #[serde(default, deserialize_with = "lenient")]
        model_id: Cow<'a, str>,
        /// What is known of it.
        #[serde(default)]
        model_info: Json<'a>,
        /// When it was created.
        #[serde(default, deserialize_with = "lenient")]
        created_at: Cow<'a, str>,
    },
    /// Something about a model has changed.
    ModelUpdated {
        /// The name of the model.
        #[serde(default, deserialize_with = "lenient")]
        model_id: Cow<'a, str>,
        /// What has changed.
        #[serde(default)]
        updates: Json<'a>,
        /// When it was changed.
        #[serde(default, deserialize_with = "lenient")]
        updated_at: Cow<'a, str>,
    },
    /// A model is gone.
    ModelDeleted {
        /// The name of the model.
        #[serde(default, deserialize_with = "lenient")]
        model_id: Cow<'a, str>,
        /// When it was deleted.
        #[serde(default, deserialize_with = "lenient")]
        deleted_at: Cow<'a, str>,
    },
    /// How things stand: `training_status`, the answer to a client's `custom`.
    StatusUpdate {
        /// Of what.
        #[serde(default, deserialize_with = "lenient", rename = "type")]
        of: Cow<'a, str>,
        /// An array: the names of the trainings that run.
        #[serde(default)]
        active_sessions: Json<'a>,
        /// By these names.
        #[serde(default)]
        session_details: Json<'a>,
    },
    /// The hub makes nothing of a frame: [`INVALID_JSON`](super::INVALID_JSON). The siblings say `message`.
    Error {
        /// What went wrong.
        #[serde(default, deserialize_with = "lenient", alias = "message")]
        error: Cow<'a, str>,
    },
    /// The network of peers.
    P2pStatus {
        /// All there is to say.
        #[serde(default)]
        status: Json<'a>,
        /// How many.
        #[serde(default, deserialize_with = "lenient")]
        peer_count: Option<u64>,
        /// In a word.
        #[serde(default, deserialize_with = "lenient")]
        network_health: Option<Cow<'a, str>>,
    },
    /// Declared by the original, and never sent.
    P2pPeerUpdate(Json<'a>),
    /// The fog's machines.
    FogResources {
        /// All there is to say.
        #[serde(default)]
        resources: Json<'a>,
        /// How many.
        #[serde(default, deserialize_with = "lenient")]
        available_nodes: Option<u64>,
        /// In the application's unit.
        #[serde(default, deserialize_with = "number")]
        total_compute: Option<f64>,
    },
    /// Declared by the original, and never sent.
    FogMarketplace(Json<'a>),
    /// About a subscription: in a `custom` frame, known by its `data.type`.
    #[serde(skip)]
    Notice(Notice<'a>),
    /// `custom`, or a type of the application's own.
    #[serde(skip)]
    Custom {
        /// 1 to 64 bytes, or no receiver of ours takes it.
        kind: Cow<'a, str>,
        /// A JSON object.
        data: Json<'a>,
    },
}

impl<'a> Event<'a> {
    /// The greeting of a hub with this clock.
    #[must_use]
    pub fn connection_established(connection_id: &'a str, server_time: Timestamp) -> Self {
        let features = Json::parse(FEATURES).unwrap_or_default();
        Self::ConnectionEstablished {
            connection_id: connection_id.into(),
            server_time: server_time.naive().into(),
            features,
        }
    }

    /// What an event of this type says.
    ///
    /// # Errors
    ///
    /// [`Malformed`]: the data is no JSON object, or has a key twice.
    pub fn read(kind: &'a str, data: &'a str) -> Result<Self, Malformed> {
        Self::of(Cow::Borrowed(kind), data)
    }

    pub(super) fn of(kind: Cow<'a, str>, data: &'a str) -> Result<Self, Malformed> {
        if !data.trim_start_matches(WHITE).starts_with('{') {
            return Err(Malformed::Data);
        }
        let data = Json::parse(data)?;
        if kind == CUSTOM {
            return Ok(Notice::read(data).map_or(Self::Custom { kind, data }, Self::Notice));
        }
        if !KNOWN.contains(&&*kind) {
            return Ok(Self::Custom { kind, data });
        }
        let pair = MapDeserializer::new(iter::once((&*kind, data.0)));
        // Types are no matter, so what is wrong can only be a key that occurs twice.
        Self::deserialize(MapAccessDeserializer::new(pair)).map_err(|_: serde_json::Error| Malformed::Twice)
    }

    /// Its type, as the envelope has it.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::ConnectionEstablished { .. } => "connection_established",
            Self::ConnectionClosed(_) => "connection_closed",
            Self::Ping { .. } => "ping",
            Self::Pong { .. } => "pong",
            Self::TrainingStarted { .. } => "training_started",
            Self::TrainingProgress { .. } => "training_progress",
            Self::TrainingCompleted { .. } => "training_completed",
            Self::TrainingError { .. } => "training_error",
            Self::ModelCreated { .. } => "model_created",
            Self::ModelUpdated { .. } => "model_updated",
            Self::ModelDeleted { .. } => "model_deleted",
            Self::StatusUpdate { .. } => "status_update",
            Self::Error { .. } => "error",
            Self::P2pStatus { .. } => "p2p_status",
            Self::P2pPeerUpdate(_) => "p2p_peer_update",
            Self::FogResources { .. } => "fog_resources",
            Self::FogMarketplace(_) => "fog_marketplace",
            Self::Notice(_) => CUSTOM,
            Self::Custom { kind, .. } => kind,
        }
    }

    /// Its data, as the envelope has it: a JSON object.
    #[must_use]
    pub fn data(&self) -> String {
        if let Self::Custom { data, .. } = self {
            return data.as_str().to_string();
        }
        let text = if let Self::Notice(notice) = self {
            serde_json::to_string(notice)
        } else {
            // `{"the_type":{…}}`
            let data =
                |pair: &str| pair.split_once(':').and_then(|(_, rest)| rest.strip_suffix('}')).map(str::to_string);
            serde_json::to_string(self).map(|pair| data(&pair).unwrap_or_default())
        };
        // Strings, numbers and JSON: there is nothing in them that could not be written.
        text.unwrap_or_else(|_| "{}".to_string())
    }
}

/// The types that have a variant.
const KNOWN: [&str; 17] = [
    "connection_established",
    "connection_closed",
    "ping",
    "pong",
    "training_started",
    "training_progress",
    "training_completed",
    "training_error",
    "model_created",
    "model_updated",
    "model_deleted",
    "status_update",
    "error",
    "p2p_status",
    "p2p_peer_update",
    "fog_resources",
    "fog_marketplace",
];

/// A value of another type than expected counts as missing.
fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}

/// A finite number, rounded as it should be: the library's own reader may miss the last bit.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(raw.get().parse().ok().filter(|number: &f64| number.is_finite()))
}
