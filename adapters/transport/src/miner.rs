//! What a miner is told before it starts.
//!
//! ```text
//! Setup::miner(url, keys) ── validator, receiver ── settings(JSON, environment) ──▶ Setup<Bettensor>
//! ```
//!
//! Decided here: where predictions are posted, and what the settings' customary names mean.

use crate::http::Target;
use crate::keys::{Hotkey, Keypair};
use crate::setup::{Setup, SetupError, resolve};
use crate::wire::Bettensor;
use bowline::wire::bettensor;
use bowline::{BETTENSOR_MINER, ConfigError, Role};
use core::time::Duration;
use serde::Deserialize;

impl Setup<Bettensor> {
    /// Bettensor's miner with these keys: it dials the validator at `url` (`ws://host:port`, `http://…` or a bare
    /// `host:port`; without a path it is `/ws`), and where there is no WebSocket it posts to `/messages` below that.
    ///
    /// ```
    /// use bowline_transport::{Keypair, Settings, Setup};
    /// let keys = Keypair::from_seed_hex(&"07".repeat(32))?;
    /// let miner = Setup::miner("ws://validator:8091", keys)?
    ///     .validator("5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty".parse()?)
    ///     .receiver("127.0.0.1:0")?
    ///     .settings(&Settings { heartbeat_interval: 30.0, ..Settings::default() })?;
    /// # let _ = miner;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The URL makes no sense.
    pub fn miner(url: &str, keys: Keypair) -> Result<Self, SetupError> {
        let url = Target::websocket(url, bettensor::PATH)?;
        let spelled = url.to_string();
        // A query is the WebSocket's own affair.
        let place = spelled.split('?').next().unwrap_or_default().replacen("ws", "http", 1);
        let fallback = Target::http(&place)?.join("messages");
        let mut setup = Self::with(BETTENSOR_MINER, Bettensor::miner(keys));
        setup.url = Some(url);
        setup.fallback = Some(fallback);
        Ok(setup)
    }

    /// Listens to this validator alone. Without it, to whoever signs first on a connection; and nothing that is posted to
    /// a [`receiver`](Self::receiver) is taken.
    #[must_use]
    pub const fn validator(mut self, validator: Hotkey) -> Self {
        self.wire.trust(validator);
        self
    }

    /// Takes what the validator posts to `/ws/messages` on `address`; port 0 lets the system choose.
    ///
    /// # Errors
    /// The address makes no sense, or its name is unknown.
    pub fn receiver(mut self, address: &str) -> Result<Self, SetupError> {
        self.listen = Some(resolve(address)?);
        Ok(self)
    }

    /// Applies the settings by their customary names.
    ///
    /// # Errors
    /// A number makes no sense as seconds.
    pub fn settings(mut self, settings: &Settings) -> Result<Self, SetupError> {
        let Settings {
            enabled,
            heartbeat_interval,
            connection_timeout,
            reconnect_base_interval,
            max_reconnect_interval,
        } = *settings;
        let config = &mut self.config;
        config.heartbeat.interval = seconds("heartbeat_interval", heartbeat_interval)?;
        config.heartbeat.dead = seconds("connection_timeout", connection_timeout)?;
        config.link.backoff.base = seconds("reconnect_base_interval", reconnect_base_interval)?;
        config.link.backoff.cap = seconds("max_reconnect_interval", max_reconnect_interval)?;
        config.link.blocked = config.link.backoff.cap;
        if enabled {
            config.link.role = Role::Dialer;
            config.route.grace = BETTENSOR_MINER.route.grace;
        } else {
            // It waits to be dialled, and nobody can: HTTP alone is left, from the first moment on.
            config.link.role = Role::Acceptor;
            config.route.grace = Duration::ZERO;
        }
        Ok(self)
    }
}

fn seconds(field: &'static str, seconds: f64) -> Result<Duration, SetupError> {
    let why = "neither zero nor a number of seconds";
    Duration::try_from_secs_f64(seconds).map_err(|_| ConfigError { field, why }.into())
}

/// The settings of a miner's WebSocket under the names that its operators know, in seconds.
///
/// ```
/// use bowline_transport::Settings;
/// let settings = Settings::from_json(r#"{"heartbeat_interval": 30, "max_reconnect_interval": 120.5}"#)?;
/// assert_eq!((settings.heartbeat_interval, settings.max_reconnect_interval), (30.0, 120.5));
/// assert_eq!(settings.connection_timeout, 300.0);
/// assert!(Settings::from_json(r#"{"heartbeat": 30}"#).is_err(), "a misspelled setting is no default");
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether there is a WebSocket at all; without it predictions go by HTTP alone. Default true.
    pub enabled: bool,
    /// Between heartbeats; 0: never. Default 60.
    pub heartbeat_interval: f64,
    /// Silence after which a connection is dead, at least two intervals. Default 300.
    pub connection_timeout: f64,
    /// The longest first delay before a connection is tried again. Default 5.
    pub reconnect_base_interval: f64,
    /// The longest delay of all. Default 300.
    pub max_reconnect_interval: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            heartbeat_interval: 60.0,
            connection_timeout: 300.0,
            reconnect_base_interval: 5.0,
            max_reconnect_interval: 300.0,
        }
    }
}

impl Settings {
    /// The variables that [`with_environment`](Self::with_environment) reads.
    pub const VARIABLES: [&str; 5] = [
        "BOWLINE_ENABLED",
        "BOWLINE_HEARTBEAT_INTERVAL",
        "BOWLINE_CONNECTION_TIMEOUT",
        "BOWLINE_RECONNECT_BASE_INTERVAL",
        "BOWLINE_MAX_RECONNECT_INTERVAL",
    ];

    /// Reads a JSON object; what it does not name has its default.
    ///
    /// # Errors
    /// It is none, or names what is no setting.
    pub fn from_json(json: &str) -> Result<Self, SetupError> {
        // The library would take an array, too, field by field.
        if !json.trim_start().starts_with('{') {
            return Err(SetupError::Settings("not a JSON object".into()));
        }
        serde_json::from_str(json).map_err(|error| SetupError::Settings(error.to_string()))
    }

    /// Reads `BOWLINE_ENABLED`, `BOWLINE_HEARTBEAT_INTERVAL` and so on over these settings, from the environment of the
    /// process.
    ///
    /// # Errors
    /// One of them is not what it should be.
    pub fn with_environment(self) -> Result<Self, SetupError> {
        // One that is no text is not what it should be, and is told by what can be read of it.
        self.with_variables(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    fn with_variables(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Self, SetupError> {
        let wrong = |name: &str, value: &str| SetupError::Settings(format!("{name}: {value:?}"));
        let [enabled, times @ ..] = Self::VARIABLES;
        if let Some(value) = variable(enabled) {
            self.enabled = match value.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => true,
                "false" | "0" | "no" => false,
                _ => return Err(wrong(enabled, &value)),
            };
        }
        let fields = [
            &mut self.heartbeat_interval,
            &mut self.connection_timeout,
            &mut self.reconnect_base_interval,
            &mut self.max_reconnect_interval,
        ];
        for (name, field) in times.into_iter().zip(fields) {
            if let Some(value) = variable(name) {
                *field = value.trim().parse().map_err(|_| wrong(name, &value))?;
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn miner(url: &str) -> Setup<Bettensor> {
        Setup::miner(url, Keypair::from_seed_hex(&"07".repeat(32)).unwrap()).unwrap()
    }

    #[test]
    fn where_a_miner_dials_and_posts() {
        for (url, dials, posts) in [
            ("validator:8091", "ws://validator:8091/ws", "http://validator:8091/ws/messages"),
            ("ws://ws.example/?token=ws", "ws://ws.example/ws?token=ws", "http://ws.example/ws/messages"),
            ("http://[::1]:80/own/ws", "ws://[::1]/own/ws", "http://[::1]/own/ws/messages"),
        ] {
            let setup = miner(url);
            assert_eq!(setup.url.unwrap().to_string(), dials);
            assert_eq!(setup.fallback.unwrap().to_string(), posts);
        }
    }

    #[test]
    fn the_default_settings_are_the_profile() {
        let setup = miner("validator").settings(&Settings::default()).unwrap();
        assert_eq!(setup.config, BETTENSOR_MINER);
    }

    #[test]
    fn settings_from_json_and_the_environment() {
        let json = r#"{"enabled": false, "heartbeat_interval": 15, "connection_timeout": 40.5}"#;
        let variable = |name: &str| match name {
            "BOWLINE_CONNECTION_TIMEOUT" => Some(" 50 ".into()),
            "BOWLINE_RECONNECT_BASE_INTERVAL" => Some("0.5".into()),
            "BOWLINE_MAX_RECONNECT_INTERVAL" => Some("20".into()),
            _ => None,
        };
        let settings = Settings::from_json(json).unwrap().with_variables(variable).unwrap();
        let config = miner("validator").settings(&settings).unwrap().config;
        assert_eq!((config.link.role, config.route.grace), (Role::Acceptor, Duration::ZERO));
        assert_eq!((config.heartbeat.interval.as_secs(), config.heartbeat.dead.as_secs()), (15, 50));
        assert_eq!((config.link.backoff.base.as_millis(), config.link.backoff.cap.as_secs()), (500, 20));
        assert!(config.check().is_ok());
        let on = |value: &str| {
            settings.with_variables(|name| (name == "BOWLINE_ENABLED").then(|| value.into())).map(|it| it.enabled)
        };
        assert!(on("True").unwrap() && on("1").unwrap() && !on("no").unwrap());
        assert!(on("maybe").is_err());
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_by_name() {
        for json in ["[]", "", r#"{"enabled": 1}"#, r#"{"heartbeat_interval": "60"}"#, r#"{"interval": 60}"#] {
            assert!(Settings::from_json(json).is_err(), "{json}");
        }
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            let settings = Settings { connection_timeout: bad, ..Settings::default() };
            let error = miner("validator").settings(&settings).unwrap_err();
            assert!(error.to_string().contains("connection_timeout"), "{error}");
        }
        // The session's own check names the field.
        let settings = Settings { connection_timeout: 60.0, ..Settings::default() };
        assert_eq!(miner("validator").settings(&settings).unwrap().config.check().unwrap_err().field, "heartbeat.dead");
    }
}
