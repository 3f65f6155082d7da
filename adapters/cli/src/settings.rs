//! The settings of a WebSocket under their customary names: flags over environment over file.
//!
//! Decided here: which of the three counts.

use crate::life::Failure;
use bowline_smol::{Settings, SetupError};
use core::time::Duration;
use std::path::{Path, PathBuf};

/// The settings, as flags.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Settings of the WebSocket")]
pub(crate) struct Flags {
    /// A JSON object with the settings below, with underscores for hyphens
    ///
    /// The environment comes before the file (BOWLINE_ENABLED,
    /// BOWLINE_HEARTBEAT_INTERVAL and so on), and flags come before both.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    config: Option<PathBuf>,

    /// Whether there is a WebSocket at all, or HTTP alone [default: true]
    #[arg(long, value_name = "true|false", hide_possible_values = true, action = clap::ArgAction::Set)]
    enabled: Option<bool>,

    /// Between heartbeats, in seconds; 0: never [default: 60; of Gonka: 20]
    #[arg(long, value_name = "SECONDS")]
    heartbeat_interval: Option<f64>,

    /// Silence after which a connection is dead [default: 300; of Gonka: 45]
    #[arg(long, value_name = "SECONDS")]
    connection_timeout: Option<f64>,

    /// The longest first delay before a miner connects again [default: 5]
    ///
    /// A hub refuses it: it waits for its miners.
    #[arg(long, value_name = "SECONDS")]
    reconnect_base_interval: Option<f64>,

    /// The longest delay, unless the peer asks for more [default: 300]
    ///
    /// A hub of ours spreads its miners' first attempts after a loss over
    /// 30 s, whatever this says. A hub refuses it, too.
    #[arg(long, value_name = "SECONDS", verbatim_doc_comment)]
    max_reconnect_interval: Option<f64>,
}

impl Flags {
    /// The settings as they are to be.
    pub(crate) fn settings(&self) -> Result<Settings, String> {
        let file = self.config.as_deref().map_or_else(|| Ok(Settings::default()), read)?;
        let set = file.with_environment().map_err(|error| error.to_string())?;
        Ok(self.over(set))
    }

    /// Whether one of those is given that only who dials can have.
    pub(crate) const fn dials(&self) -> bool {
        self.reconnect_base_interval.is_some() || self.max_reconnect_interval.is_some()
    }

    /// Whether one of those is given that only a miner or a hub has.
    pub(crate) const fn beyond_heartbeat(&self) -> bool {
        self.config.is_some() || self.enabled.is_some() || self.dials()
    }

    /// Between heartbeats, if it is given.
    pub(crate) fn interval(&self) -> Result<Option<Duration>, Failure> {
        self.heartbeat_interval.map(|seconds| span("--heartbeat-interval", seconds)).transpose()
    }

    /// The silence after which a connection is dead, if it is given.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, Failure> {
        self.connection_timeout.map(|seconds| span("--connection-timeout", seconds)).transpose()
    }

    fn over(&self, set: Settings) -> Settings {
        Settings {
            enabled: self.enabled.unwrap_or(set.enabled),
            heartbeat_interval: self.heartbeat_interval.unwrap_or(set.heartbeat_interval),
            connection_timeout: self.connection_timeout.unwrap_or(set.connection_timeout),
            reconnect_base_interval: self.reconnect_base_interval.unwrap_or(set.reconnect_base_interval),
            max_reconnect_interval: self.max_reconnect_interval.unwrap_or(set.max_reconnect_interval),
        }
    }
}

fn span(name: &str, seconds: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(seconds).map_err(|error| Failure::Other(format!("{name}: {error}")))
}

fn read(path: &Path) -> Result<Settings, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
    let settings = text.and_then(|text| Settings::from_json(&text).map_err(|error: SetupError| error.to_string()));
    settings.map_err(|why| format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_counts_more_than_what_was_set_before() {
        let none = Flags::default();
        let before = Settings { enabled: false, heartbeat_interval: 7.0, ..Settings::default() };
        assert_eq!((none.over(before), none.beyond_heartbeat(), none.dials()), (before, false, false));
        let all = Flags {
            config: None,
            enabled: Some(true),
            heartbeat_interval: Some(1.0),
            connection_timeout: Some(2.0),
            reconnect_base_interval: Some(3.0),
            max_reconnect_interval: Some(4.0),
        };
        let expected = Settings {
            enabled: true,
            heartbeat_interval: 1.0,
            connection_timeout: 2.0,
            reconnect_base_interval: 3.0,
            max_reconnect_interval: 4.0,
        };
        assert_eq!((all.over(before), all.beyond_heartbeat(), all.dials()), (expected, true, true));
        let spans = (all.interval().unwrap(), all.timeout().unwrap());
        assert_eq!(spans, (Some(Duration::from_secs(1)), Some(Duration::from_secs(2))));
    }
}
