//! The settings of a session that are no affair of one system's: flags over environment.
//!
//! Decided here: which of them mean something to which profile, and their names.

use crate::environment::variable;
use crate::life::{Failure, seconds};
use crate::settings::Flags;
use bowline::{AckWait, Config, OnReject};
use core::time::Duration;

/// The settings, as flags.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
#[command(next_help_heading = "Settings of the session")]
pub(crate) struct SessionFlags {
    /// How long a message may take until it expires [default: for ever]
    ///
    /// These, too, may be in the environment: BOWLINE_LIFE, BOWLINE_OUTBOX
    /// and so on; flags come before it.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, verbatim_doc_comment)]
    life: Option<Duration>,

    /// How many messages may be under way [default: 64]
    #[arg(long, value_name = "MESSAGES", value_parser = count)]
    outbox: Option<usize>,

    /// How many bytes they may have together [default: 268435456]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    outbox_bytes: Option<u64>,

    /// How long it may take to connect, from name to greeting [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    connect_timeout: Option<Duration>,

    /// How long a write may stand still [default: 5]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    write_timeout: Option<Duration>,

    /// How long a message may be late that only a new connection can bring
    ///
    /// Then its connection ends, and it goes over the next. [default: 120]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, verbatim_doc_comment)]
    patience: Option<Duration>,

    /// How long a request of ours may stand still [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    http_progress: Option<Duration>,

    /// How long its answer may take [default: 30; gonka-ml-node: 120]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    http_thinking: Option<Duration>,

    /// How the sender hears of a rejected batch [default: acknowledge]
    ///
    /// acknowledge: as of a completed one, so that it sends it no more;
    /// silence: not at all, by HTTP with 422.
    #[arg(long, value_name = "acknowledge|silence", value_parser = on_reject, verbatim_doc_comment)]
    on_reject: Option<OnReject>,

    /// Whether an earlier run may have had what comes now [default: false]
    ///
    /// Then messages have "maybe_dup":true for the first hour.
    #[arg(long, value_name = "true|false", hide_possible_values = true, action = clap::ArgAction::Set)]
    #[arg(verbatim_doc_comment)]
    state_lost: Option<bool>,
}

/// What a profile does, and so which settings mean something to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Does {
    pub(crate) sends: bool,
    pub(crate) dials: bool,
    /// It receives messages that are judged.
    pub(crate) judges: bool,
}

/// A setting's flag, its variable, and whether it means something to a profile.
type Row = (&'static str, &'static str, fn(Does) -> bool);

const LIFE: Row = ("--life", "BOWLINE_LIFE", |does| does.sends);
const OUTBOX: Row = ("--outbox", "BOWLINE_OUTBOX", |does| does.sends);
const OUTBOX_BYTES: Row = ("--outbox-bytes", "BOWLINE_OUTBOX_BYTES", |does| does.sends);
const CONNECT_TIMEOUT: Row = ("--connect-timeout", "BOWLINE_CONNECT_TIMEOUT", |does| does.dials);
const WRITE_TIMEOUT: Row = ("--write-timeout", "BOWLINE_WRITE_TIMEOUT", |_| true);
const PATIENCE: Row = ("--patience", "BOWLINE_PATIENCE", |does| does.sends);
const HTTP_PROGRESS: Row = ("--http-progress", "BOWLINE_HTTP_PROGRESS", |does| does.sends);
const HTTP_THINKING: Row = ("--http-thinking", "BOWLINE_HTTP_THINKING", |does| does.sends);
const ON_REJECT: Row = ("--on-reject", "BOWLINE_ON_REJECT", |does| does.judges);
const STATE_LOST: Row = ("--state-lost", "BOWLINE_STATE_LOST", |does| does.judges);

const ROWS: [Row; 10] = [
    LIFE,
    OUTBOX,
    OUTBOX_BYTES,
    CONNECT_TIMEOUT,
    WRITE_TIMEOUT,
    PATIENCE,
    HTTP_PROGRESS,
    HTTP_THINKING,
    ON_REJECT,
    STATE_LOST,
];

impl SessionFlags {
    /// The variables that a profile reads.
    pub(crate) fn variables(does: Does) -> impl Iterator<Item = &'static str> {
        ROWS.into_iter().filter(move |(.., means)| means(does)).map(|(_, variable, _)| variable)
    }

    /// The flag of a setting that was given although it means nothing to this profile.
    pub(crate) fn useless(&self, does: Does) -> Option<&'static str> {
        let given = [
            self.life.is_some(),
            self.outbox.is_some(),
            self.outbox_bytes.is_some(),
            self.connect_timeout.is_some(),
            self.write_timeout.is_some(),
            self.patience.is_some(),
            self.http_progress.is_some(),
            self.http_thinking.is_some(),
            self.on_reject.is_some(),
            self.state_lost.is_some(),
        ];
        let mut rows = ROWS.into_iter().zip(given);
        rows.find(|((.., means), given)| *given && !means(does)).map(|((flag, ..), _)| flag)
    }

    /// The settings as they are to be: what no flag says, the environment may say.
    pub(crate) fn with_environment(&self, does: Does) -> Result<Self, Failure> {
        self.with_variables(does, variable)
    }

    fn with_variables(&self, does: Does, variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let read = |(_, name, means): Row| variable(name).filter(|_| means(does)).map(|value| (name, value));
        Ok(Self {
            life: or(self.life, read(LIFE), seconds)?,
            outbox: or(self.outbox, read(OUTBOX), count)?,
            outbox_bytes: or(self.outbox_bytes, read(OUTBOX_BYTES), bytes)?,
            connect_timeout: or(self.connect_timeout, read(CONNECT_TIMEOUT), seconds)?,
            write_timeout: or(self.write_timeout, read(WRITE_TIMEOUT), seconds)?,
            patience: or(self.patience, read(PATIENCE), seconds)?,
            http_progress: or(self.http_progress, read(HTTP_PROGRESS), seconds)?,
            http_thinking: or(self.http_thinking, read(HTTP_THINKING), seconds)?,
            on_reject: or(self.on_reject, read(ON_REJECT), on_reject)?,
            state_lost: or(self.state_lost, read(STATE_LOST), truth)?,
        })
    }

    /// Applies the settings to a session's.
    pub(crate) fn apply(&self, config: &mut Config) {
        fn set<T: Copy>(field: &mut T, value: Option<T>) {
            *field = value.unwrap_or(*field);
        }
        if let Some(life) = self.life {
            config.outbox.life = Some(life);
            // Nothing is waited for longer than it lives.
            config.outbox.ack_wait = match config.outbox.ack_wait {
                AckWait::Adaptive { first, least, most } => {
                    AckWait::Adaptive { first: first.min(life), least: least.min(life), most: most.min(life) }
                }
                AckWait::Fixed(wait) => AckWait::Fixed(wait.min(life)),
            };
        }
        set(&mut config.outbox.capacity, self.outbox);
        set(&mut config.outbox.bytes, self.outbox_bytes);
        set(&mut config.link.attempt, self.connect_timeout);
        set(&mut config.link.write_timeout, self.write_timeout);
        set(&mut config.outbox.patience, self.patience);
        set(&mut config.route.progress, self.http_progress);
        set(&mut config.route.thinking, self.http_thinking);
        set(&mut config.inbox.on_reject, self.on_reject);
        set(&mut config.inbox.after_loss, self.state_lost);
    }
}

/// The heartbeat of a profile without settings of its own, from the miner's flags and variables of the same names.
pub(crate) fn heartbeat(flags: &Flags, config: &mut Config) -> Result<(), Failure> {
    let [interval, dead] = HEARTBEAT.map(|name| variable(name).map(|value| (name, value)));
    let (interval, dead) = (or(flags.interval()?, interval, seconds)?, or(flags.timeout()?, dead, seconds)?);
    config.heartbeat.interval = interval.unwrap_or(config.heartbeat.interval);
    config.heartbeat.dead = dead.unwrap_or(config.heartbeat.dead);
    Ok(())
}

/// The variables of [`heartbeat`].
pub(crate) const HEARTBEAT: [&str; 2] = ["BOWLINE_HEARTBEAT_INTERVAL", "BOWLINE_CONNECTION_TIMEOUT"];

/// What was given, or what a variable says.
fn or<T>(
    given: Option<T>,
    variable: Option<(&str, String)>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    match (given, variable) {
        (None, Some((name, value))) => {
            parse(value.trim()).map(Some).map_err(|why| Failure::Other(format!("{name}: {value:?}: {why}")))
        }
        (given, _) => Ok(given),
    }
}

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=1 << 20).contains(count));
    count.ok_or_else(|| "a number from 1 to 1048576 is needed".into())
}

fn bytes(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|bytes| *bytes > 0).ok_or_else(|| "a number of bytes from 1 is needed".into())
}

fn on_reject(text: &str) -> Result<OnReject, String> {
    match text {
        "acknowledge" => Ok(OnReject::Acknowledge),
        "silence" => Ok(OnReject::Silence),
        _ => Err("acknowledge or silence is needed".into()),
    }
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err("true or false is needed".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::{BETTENSOR_MINER, GONKA_API_NODE, GONKA_ML_NODE};

    const API_NODE: Does = Does { sends: false, dials: true, judges: true };
    const ML_NODE: Does = Does { sends: true, dials: false, judges: false };

    fn all() -> SessionFlags {
        let seconds = |n| Some(Duration::from_secs(n));
        SessionFlags {
            life: seconds(60),
            outbox: Some(7),
            outbox_bytes: Some(8),
            connect_timeout: seconds(9),
            write_timeout: seconds(10),
            patience: seconds(11),
            http_progress: seconds(12),
            http_thinking: seconds(13),
            on_reject: Some(OnReject::Silence),
            state_lost: Some(true),
        }
    }

    fn value(name: &str) -> Option<String> {
        let value = match name {
            "BOWLINE_LIFE" => "60",
            "BOWLINE_OUTBOX" => "7",
            "BOWLINE_OUTBOX_BYTES" => "8",
            "BOWLINE_CONNECT_TIMEOUT" => "9",
            "BOWLINE_WRITE_TIMEOUT" => "10",
            "BOWLINE_PATIENCE" => " 11 ",
            "BOWLINE_HTTP_PROGRESS" => "12",
            "BOWLINE_HTTP_THINKING" => "13.0",
            "BOWLINE_ON_REJECT" => "silence",
            "BOWLINE_STATE_LOST" => "yes",
            _ => return None,
        };
        Some(value.into())
    }

    #[test]
    fn every_setting_has_a_flag_and_a_variable_and_reaches_the_session() {
        let everything = Does { sends: true, dials: true, judges: true };
        let read = SessionFlags::default().with_variables(everything, value).unwrap();
        assert_eq!(read, all());
        let other = |name: &str| value(name).map(|value| value.replace('1', "2"));
        assert_eq!(all().with_variables(everything, other).unwrap(), all(), "flags count more");
        let mut config = GONKA_ML_NODE;
        all().apply(&mut config);
        assert!(config.check().is_ok(), "no wait is longer than a life of a minute");
        let (outbox, link, route, inbox) = (config.outbox, config.link, config.route, config.inbox);
        assert_eq!((outbox.life.unwrap().as_secs(), outbox.capacity, outbox.bytes), (60, 7, 8));
        let times = [link.attempt, link.write_timeout, outbox.patience, route.progress, route.thinking];
        assert_eq!(times.map(|time| time.as_secs()), [9, 10, 11, 12, 13]);
        assert_eq!((inbox.on_reject, inbox.after_loss), (OnReject::Silence, true));
        for mut config in [GONKA_API_NODE, GONKA_ML_NODE, BETTENSOR_MINER] {
            let before = config;
            SessionFlags::default().apply(&mut config);
            assert_eq!(config, before, "nothing is said");
        }
    }

    #[test]
    fn what_means_nothing_to_a_profile_is_refused_as_a_flag_and_not_read() {
        assert_eq!(all().useless(ML_NODE), Some("--connect-timeout"));
        assert_eq!(all().useless(API_NODE), Some("--life"));
        let read = SessionFlags::default().with_variables(API_NODE, value).unwrap();
        assert_eq!((read.useless(API_NODE), read.life, read.state_lost), (None, None, Some(true)));
        assert!(SessionFlags::variables(API_NODE).eq([
            "BOWLINE_CONNECT_TIMEOUT",
            "BOWLINE_WRITE_TIMEOUT",
            "BOWLINE_ON_REJECT",
            "BOWLINE_STATE_LOST"
        ]));
        for (name, _) in ROWS.map(|(_, name, _)| (name, ())) {
            let nonsense = |asked: &str| (asked == name).then(|| "?".into());
            let everything = Does { sends: true, dials: true, judges: true };
            let failure = SessionFlags::default().with_variables(everything, nonsense).unwrap_err();
            assert!(failure.to_string().contains(name), "{failure}");
        }
    }
}
