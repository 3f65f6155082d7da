//! Everything a session can be told, with its defaults, and the check that refuses nonsense.
//!
//! ```text
//! Config ──check()──▶ Checked ──▶ Session::new
//!            └──▶ ConfigError { field, why }
//! ```
//!
//! Invariants: machines take only [`Checked`]; the check names the first field that makes no sense and says why.
//! Rules: S12 (the horizon contract), T4 (no deadline of zero), L1.

use crate::backoff::BackoffConfig;
use crate::heartbeat::{HeartbeatConfig, ProgramLife};
use crate::inbox::InboxConfig;
use crate::link::{GiveUp, LinkConfig};
use crate::outbox::OutboxConfig;
use crate::route::RouteConfig;
use crate::rtt::AckWait;
use crate::session::NativeConfig;
use core::fmt;
use core::time::Duration;

/// The settings of a session, machine by machine; every field has a documented default.
///
/// ```
/// use bowline::Config;
/// use core::time::Duration;
/// let mut config = Config::DEFAULT;
/// config.route.http = true;
/// assert!(config.check().is_ok());
/// config.inbox.horizon = Duration::from_secs(1);
/// let error = config.check().unwrap_err();
/// assert_eq!(error.field, "inbox.horizon");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// Connection: who dials, deadlines, delays, what endings mean.
    pub link: LinkConfig,
    /// Liveness.
    pub heartbeat: HeartbeatConfig,
    /// What we send.
    pub outbox: OutboxConfig,
    /// What we receive.
    pub inbox: InboxConfig,
    /// WebSocket or HTTP.
    pub route: RouteConfig,
    /// The peer is native: messages are numbered, marked, resumed (PROTOCOL.md, section 8). Default none.
    pub native: Option<NativeConfig>,
}

impl Config {
    /// The default of every machine.
    pub const DEFAULT: Self = Self {
        link: LinkConfig::DEFAULT,
        heartbeat: HeartbeatConfig::DEFAULT,
        outbox: OutboxConfig::DEFAULT,
        inbox: InboxConfig::DEFAULT,
        route: RouteConfig::DEFAULT,
        native: None,
    };

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// The first field that makes no sense, and why.
    pub fn check(self) -> Result<Checked, ConfigError> {
        let Self { link, heartbeat, outbox, inbox, route, native } = self;
        let rules = [
            (outbox.capacity > 0, "outbox.capacity", "nothing could be sent"),
            (inbox.messages() > 0, "inbox.bytes", "nothing could be received, or told from its copy"),
            (inbox.held > 0, "inbox.held", "nothing could be handed to the application"),
            (outbox.bytes > 0, "outbox.bytes", "only one message at a time could be under way"),
            (outbox.capacity <= MOST, "outbox.capacity", "more than a million messages under way"),
            (inbox.bytes <= MOST_BYTES, "inbox.bytes", "more than a gigabyte of messages remembered"),
            (inbox.held <= MOST, "inbox.held", "more than a million messages at the application"),
            (takes_time(link.attempt), "link.attempt", "no connection can come up in no time"),
            (takes_time(link.closing), "link.closing", "a close handshake takes time"),
            (takes_time(link.knock), "link.knock", "the holder of the place must have time to answer"),
            (lasts(link.give_up), "link.give_up", "given up before the first refusal"),
            (takes_time(link.suspend), "link.suspend", "every interruption would be a long outage"),
            (link.short_lives > 0, "link.short_lives", "every path would be blocked before its first connection"),
            (takes_time(link.write_timeout), "link.write_timeout", "no write moves in no time"),
            (link.malformed_limit > 0, "link.malformed_limit", "every connection would end before its first frame"),
            (moves(link.backoff), "link.backoff", "floor and base are zero: a refused connection would be a hot loop"),
            (ordered(link.backoff), "link.backoff.cap", "smaller than the base"),
            (takes_time(outbox.ack_wait.longest()), "outbox.ack_wait", "every message would be late at once"),
            (adaptive(outbox.ack_wait), "outbox.ack_wait", "least, first and most must be in that order and not zero"),
            (
                outbox.life.is_none_or(|life| outbox.ack_wait.longest() <= life),
                "outbox.ack_wait",
                "longer than a message's life: it would expire before it is ever found unanswered",
            ),
            (takes_time(outbox.patience), "outbox.patience", "every late message would end its connection at once"),
            (
                inbox.horizon >= inbox.peer_life,
                "inbox.horizon",
                "shorter than the sender's life: a late copy would be taken for a new message",
            ),
            (
                heartbeat.interval.is_zero() || heartbeat.dead >= heartbeat.interval.saturating_mul(2),
                "heartbeat.dead",
                "shorter than two intervals: one lost beat would be fatal",
            ),
            (whole(heartbeat.interval), "heartbeat.interval", "neither never nor a microsecond"),
            (whole(heartbeat.keepalive), "heartbeat.keepalive", "neither never nor a microsecond"),
            (takes_time(heartbeat.probe), "heartbeat.probe", "no peer answers in no time"),
            (watches(heartbeat.program), "heartbeat.program", "no program says a word in no time"),
            (whole(route.grace), "route.grace", "neither no time nor a microsecond"),
            (!route.http || route.posts > 0, "route.posts", "there is an HTTP path, but no request may use it"),
            (!route.http || takes_time(route.progress), "route.progress", "no byte moves in no time"),
            (!route.http || takes_time(route.thinking), "route.thinking", "no request is answered in no time"),
            (moves(route.backoff), "route.backoff", "floor and base are zero: a failing endpoint would be a hot loop"),
            (ordered(route.backoff), "route.backoff.cap", "smaller than the base"),
            (native.is_none_or(|native| whole(native.poll)), "native.poll", "neither never nor a microsecond"),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, why)) => Err(ConfigError { field, why }),
            None => Ok(Checked(self)),
        }
    }
}

/// No memory of messages is larger.
const MOST_BYTES: usize = 1 << 30;

/// No table is longer: it is searched in a line, and its memory is taken at once.
const MOST: usize = 1 << 20;

/// At least a microsecond, the machines' unit: less is nothing to them.
fn takes_time(span: Duration) -> bool {
    span >= Duration::from_micros(1)
}

/// Nothing, or something to the machines too.
fn whole(span: Duration) -> bool {
    span.is_zero() || takes_time(span)
}

fn watches(program: ProgramLife) -> bool {
    match program {
        ProgramLife::Unwatched => true,
        ProgramLife::Answers(limit) | ProgramLife::Data(limit) => takes_time(limit),
    }
}

fn moves(backoff: BackoffConfig) -> bool {
    takes_time(backoff.floor) || takes_time(backoff.base.min(backoff.cap))
}

fn ordered(backoff: BackoffConfig) -> bool {
    backoff.base <= backoff.cap
}

fn lasts(give_up: GiveUp) -> bool {
    match give_up {
        GiveUp::Never => true,
        GiveUp::After(span) => takes_time(span),
        GiveUp::Refusals(most) => most > 0,
    }
}

fn adaptive(wait: AckWait) -> bool {
    match wait {
        AckWait::Fixed(_) => true,
        AckWait::Adaptive { first, least, most } => takes_time(least) && least <= first && first <= most,
    }
}

/// Settings that passed the check.
///
/// ```
/// # use bowline::Config;
/// let checked = Config::DEFAULT.check()?;
/// assert_eq!(*checked.get(), Config::DEFAULT);
/// # Ok::<(), bowline::ConfigError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Checked(Config);

impl Checked {
    /// The settings.
    #[must_use]
    pub const fn get(&self) -> &Config {
        &self.0
    }
}

/// A setting that makes no sense.
///
/// ```
/// use bowline::Config;
/// let mut config = Config::DEFAULT;
/// config.outbox.capacity = 0;
/// assert_eq!(config.check().unwrap_err().to_string(), "outbox.capacity: nothing could be sent");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConfigError {
    /// Which one, as `machine.field`.
    pub field: &'static str,
    /// What would go wrong.
    pub why: &'static str,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.why)
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::Seen;
    use std::string::String;

    #[test]
    fn s12_nonsense_is_refused_by_name() {
        type Change = fn(&mut Config);
        let cases: [(&str, Change); 31] = [
            ("outbox.capacity", |c| c.outbox.capacity = 0),
            ("outbox.bytes", |c| c.outbox.bytes = 0),
            ("inbox.bytes", |c| c.inbox.bytes = Seen::BYTES - 1),
            ("inbox.held", |c| c.inbox.held = 0),
            ("link.attempt", |c| c.link.attempt = Duration::ZERO),
            ("link.closing", |c| c.link.closing = Duration::ZERO),
            ("link.knock", |c| c.link.knock = Duration::ZERO),
            ("link.give_up", |c| c.link.give_up = GiveUp::After(Duration::ZERO)),
            ("link.give_up", |c| c.link.give_up = GiveUp::Refusals(0)),
            ("link.suspend", |c| c.link.suspend = Duration::ZERO),
            ("link.short_lives", |c| c.link.short_lives = 0),
            ("link.write_timeout", |c| c.link.write_timeout = Duration::ZERO),
            ("link.malformed_limit", |c| c.link.malformed_limit = 0),
            ("outbox.patience", |c| c.outbox.patience = Duration::ZERO),
            ("link.backoff", |c| c.link.backoff = BackoffConfig::range(Duration::ZERO, Duration::ZERO)),
            ("link.backoff.cap", |c| c.link.backoff.cap = Duration::from_millis(1)),
            ("outbox.ack_wait", |c| c.outbox.ack_wait = AckWait::Fixed(Duration::ZERO)),
            ("outbox.ack_wait", |c| c.outbox.life = Some(Duration::from_secs(59))),
            ("inbox.horizon", |c| c.inbox.peer_life = Duration::from_secs(3601)),
            ("heartbeat.dead", |c| c.heartbeat.dead = Duration::from_secs(39)),
            ("heartbeat.probe", |c| c.heartbeat.probe = Duration::ZERO),
            ("heartbeat.program", |c| c.heartbeat.program = ProgramLife::Data(Duration::ZERO)),
            ("heartbeat.program", |c| c.heartbeat.program = ProgramLife::Answers(Duration::ZERO)),
            ("outbox.ack_wait", |c| c.outbox.ack_wait = AckWait::Fixed(Duration::from_nanos(999))),
            ("heartbeat.interval", |c| c.heartbeat.interval = Duration::from_nanos(1)),
            ("heartbeat.keepalive", |c| c.heartbeat.keepalive = Duration::from_nanos(1)),
            ("route.grace", |c| c.route.grace = Duration::from_nanos(1)),
            ("route.posts", |c| (c.route.http, c.route.posts) = (true, 0)),
            ("route.progress", |c| (c.route.http, c.route.progress) = (true, Duration::ZERO)),
            ("route.thinking", |c| (c.route.http, c.route.thinking) = (true, Duration::ZERO)),
            ("route.backoff", |c| c.route.backoff = BackoffConfig::range(Duration::ZERO, Duration::ZERO)),
        ];
        for (field, change) in cases {
            let mut config = Config::DEFAULT;
            change(&mut config);
            let named: Result<(), String> = config.check().map(drop).map_err(|error| error.field.into());
            assert_eq!(named, Err(field.into()));
        }
        assert!(Config::DEFAULT.check().is_ok());
    }
}
