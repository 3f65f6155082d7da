//! Everything a hub can be told, with its defaults, and the check that refuses nonsense.
//!
//! Invariants: a hub takes only [`HubChecked`]; the check names the first field that makes no sense and says why.
//! Rules: U1, U2, U4–U6, U8, U9, U12, P8; numbers from section 4.9 of the rules where nothing else is said.

use super::limit::Rate;
use super::log::LogConfig;
use crate::config::{Checked, Config, ConfigError};
use crate::inbox::{DedupBy, InboxConfig};
use crate::link::{LinkConfig, Newcomer, Ready, Role};
use core::time::Duration;

/// What becomes of a second connection of one identity (rule U2).
///
/// ```
/// # use bowline::hub::{Duplicate, HubConfig};
/// assert_eq!(HubConfig::DEFAULT.duplicate, Duplicate::Replace);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Duplicate {
    /// It gets the session at once; the old connection is told so with 4003 (R8).
    Replace,
    /// The old one is asked whether it lives and has `session.link.knock` to answer; only then one of them goes.
    ProbeThenReplace,
    /// It is refused while the old one stands; that one is asked whether it lives, so that a dead one goes.
    Refuse,
    /// So many connections of one identity may live side by side, each with a session of its own.
    Allow(u8),
}

/// What becomes of a broadcast for a connection that is too far behind (rule U6).
///
/// ```
/// # use bowline::hub::{Bulk, Slow};
/// assert_eq!(Bulk::DEFAULT.slow, Slow::DropOldest);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Slow {
    /// The new one is not sent to it.
    DropNewest,
    /// The oldest one that still waits is not sent to it.
    DropOldest,
    /// One with the same key that still waits is replaced by the new one; without one, as `DropOldest`.
    Conflate,
    /// It is disconnected with 1013.
    Disconnect,
}

/// The lane of broadcasts. Of the other two, control is never held back, and a full outbox hands the message back to whoever
/// sends it.
///
/// ```
/// # use bowline::hub::Bulk;
/// assert_eq!(Bulk::DEFAULT.most, 256);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Bulk {
    /// Default [`Slow::DropOldest`].
    pub slow: Slow,
    /// So many may wait for one connection. 1 to 256, default 256.
    pub most: u32,
    /// How much is kept for those that are behind; what is forgotten is lost to them.
    pub log: LogConfig,
}

impl Bulk {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self { slow: Slow::DropOldest, most: 256, log: LogConfig::DEFAULT };
}

/// The limits of topics (rules U4, U6).
///
/// ```
/// # use bowline::hub::{HubConfig, TopicsConfig};
/// let newest_only = TopicsConfig { history: 1, ..TopicsConfig::DEFAULT };
/// assert!(HubConfig { topics: newest_only, ..HubConfig::DEFAULT }.check().is_ok());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TopicsConfig {
    /// Topics at once; smaller storage limits further, as with all of these. Default 4,096.
    pub topics: usize,
    /// Subscriptions of all sessions to all topics. Default 65,536.
    pub subscriptions: usize,
    /// Of these, one session's. Default 1,024.
    pub per_session: u32,
    /// Filters with a wildcard, of all sessions: a new topic is held against each of them. Default 16,384.
    pub filters: usize,
    /// Of these, one session's. Default 16.
    pub filters_per_session: u32,
    /// Items of one topic that are held for those behind and those who come later. From 1, which holds the newest alone.
    /// Default 16.
    pub history: u32,
    /// Bytes of all items held. A larger item is refused. Default 16 MiB.
    pub bytes: usize,
    /// How long an item is held. Default 5 min.
    pub age: Duration,
    /// Whether the application is told who subscribes to what. Default no.
    pub presence: bool,
}

impl TopicsConfig {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self {
        topics: 4096,
        subscriptions: 65_536,
        per_session: 1024,
        filters: 16_384,
        filters_per_session: 16,
        history: 16,
        bytes: 16 << 20,
        age: Duration::from_secs(300),
        presence: false,
    };
}

/// How much one address or one identity may do (rule U8).
///
/// ```
/// # use bowline::hub::HubConfig;
/// assert_eq!(HubConfig::DEFAULT.per_identity.handshakes.burst, 60);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Limits {
    /// Connections, counted when they are made (address) or authenticated (identity).
    pub handshakes: Rate,
    /// Frames and requests.
    pub messages: Rate,
    /// Their bytes.
    pub bytes: Rate,
}

/// A hub's settings.
///
/// ```
/// use bowline::hub::HubConfig;
/// let mut config = HubConfig::DEFAULT;
/// config.sessions = 500;
/// assert!(config.check().is_ok());
/// config.fleet_low = 90;
/// assert_eq!(config.check().unwrap_err().field, "fleet_low");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HubConfig {
    /// Of every session. The role must be acceptor and a connection ready when it is open: the hub itself sees to the
    /// greeting. `link.newcomer` follows from [`duplicate`](Self::duplicate).
    pub session: Config,
    /// Of every session with a native peer; none: there are no native peers. As for [`session`](Self::session); a newcomer
    /// always replaces (R8). Default none.
    pub native: Option<Config>,
    /// Bytes of all peers' messages that are at the application or wait for their turn. Half of them is kept for equal parts,
    /// one for each of [`sessions`](Self::sessions); of the other half an identity may have an eighth of what it leaves (U12).
    /// At least 18, default 256 MiB.
    pub held_bytes: u64,
    /// Identities known at once, connected or not; smaller storage limits further. Default 4,096.
    pub sessions: usize,
    /// Connections at once, of every kind. Default 8,192.
    pub connections: usize,
    /// Of these, not authenticated yet. Default 1,024.
    pub pending: usize,
    /// Addresses watched at once. Default 4,096; one more than these is refused while none is idle.
    pub addresses: usize,
    /// Connections of one address at once. Default 256: a site behind one router.
    pub per_address_connections: u32,
    /// Default [`Duplicate::Replace`].
    pub duplicate: Duplicate,
    /// Until a connection has authenticated. Default 10 s (L9).
    pub hello: Duration,
    /// How long a session outlives its last connection. Default 1 h; at least twice the tolerance, so that no nonce can
    /// come back with a new session.
    pub ttl: Duration,
    /// Handshakes of all together. Default 500 a second, 1,000 at once.
    pub handshakes: Rate,
    /// The longest wait a refused dialer is told. Default 60 s.
    pub ticket_most: Duration,
    /// Default 20 handshakes a second (256 at once), 2,000 messages (4,000), 16 MiB (64).
    pub per_address: Limits,
    /// Default 1 handshake a second (60 at once), 100 messages (1,000), 1 MiB (16).
    pub per_identity: Limits,
    /// How far a signed frame's time may be from ours. Default 300 s (Bettensor).
    pub tolerance: Duration,
    /// Broadcasts.
    pub bulk: Bulk,
    /// Topics.
    pub topics: TopicsConfig,
    /// More replacements of one identity than this within [`war_within`](Self::war_within) are a war: those from another
    /// address, and those of a connection that lived. Default 3 (U2).
    pub war_most: u8,
    /// Default 60 s (U2).
    pub war_within: Duration,
    /// For so long nobody else may take that session over. Default 30 s (U2).
    pub war_pause: Duration,
    /// Connected share, in percent, below which the fleet is to use HTTP. Default 60 (P8).
    pub fleet_low: u8,
    /// … and above which it is to stop. Default 80 (P8).
    pub fleet_high: u8,
    /// Whoever was heard from within this, or within the one before, is active. Default 60 s.
    pub idle: Duration,
    /// The window over which clients are asked to spread their return after a loss (B2). Default 30 s.
    pub reconnect_window: Duration,
}

impl HubConfig {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self {
        session: Config {
            link: LinkConfig {
                role: Role::Acceptor,
                newcomer: Newcomer::Replaces,
                farewell: 1012,
                ..LinkConfig::DEFAULT
            },
            // A key comes with every id, and of two messages with equal contents both may be meant.
            // The memory is that of each of thousands.
            inbox: InboxConfig { bytes: 64 << 10, dedup: DedupBy::Id, ..InboxConfig::DEFAULT },
            ..Config::DEFAULT
        },
        native: None,
        held_bytes: 256 << 20,
        sessions: 4096,
        connections: 8192,
        pending: 1024,
        addresses: 4096,
        per_address_connections: 256,
        duplicate: Duplicate::Replace,
        hello: Duration::from_secs(10),
        ttl: Duration::from_secs(3600),
        handshakes: Rate { per_second: 500, burst: 1000 },
        ticket_most: Duration::from_secs(60),
        per_address: Limits {
            handshakes: Rate { per_second: 20, burst: 256 },
            messages: Rate { per_second: 2000, burst: 4000 },
            bytes: Rate { per_second: 16 << 20, burst: 64 << 20 },
        },
        per_identity: Limits {
            handshakes: Rate { per_second: 1, burst: 60 },
            messages: Rate { per_second: 100, burst: 1000 },
            bytes: Rate { per_second: 1 << 20, burst: 16 << 20 },
        },
        tolerance: Duration::from_secs(300),
        bulk: Bulk::DEFAULT,
        topics: TopicsConfig::DEFAULT,
        war_most: 3,
        war_within: Duration::from_secs(60),
        war_pause: Duration::from_secs(30),
        fleet_low: 60,
        fleet_high: 80,
        idle: Duration::from_secs(60),
        reconnect_window: Duration::from_secs(30),
    };

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// The first field that makes no sense, and why.
    pub fn check(mut self) -> Result<HubChecked, ConfigError> {
        let none = Duration::ZERO;
        let link = self.session.link;
        let rules = [
            (link.role == Role::Acceptor, "session.link.role", "a hub is dialled"),
            (link.ready == Ready::Open, "session.link.ready", "the hub sees to the greeting itself"),
            (self.largest_message() > 0, "held_bytes", "no message could be taken"),
            (self.sessions > 0, "sessions", "nobody could be served"),
            (self.connections > 0, "connections", "nobody could connect"),
            (self.pending > 0, "pending", "nobody could authenticate"),
            (self.addresses > 0, "addresses", "nobody could connect"),
            (self.per_address_connections > 0, "per_address_connections", "nobody could connect"),
            (self.duplicate != Duplicate::Allow(0), "duplicate", "nobody could connect"),
            (self.hello > none, "hello", "nobody authenticates in no time"),
            (
                self.ttl >= self.tolerance.saturating_mul(2),
                "ttl",
                "shorter than twice the tolerance: a nonce could be used again",
            ),
            (self.ticket_most >= Duration::from_secs(1), "ticket_most", "everybody would come back at once"),
            ((1..=256).contains(&self.bulk.most), "bulk.most", "from 1 to 256"),
            (self.topics.history > 0, "topics.history", "nobody would get anything"),
            (self.topics.bytes > 0, "topics.bytes", "nobody would get anything"),
            (self.topics.age > none, "topics.age", "nobody would get anything"),
            (self.fleet_low <= self.fleet_high, "fleet_low", "above the high mark: it would oscillate"),
            (self.fleet_high <= 100, "fleet_high", "more than all"),
            (self.idle > none, "idle", "nobody is heard in no time"),
        ];
        if let Some((_, field, why)) = rules.into_iter().find(|(holds, ..)| !holds) {
            return Err(ConfigError { field, why });
        }
        self.session.link.newcomer = match self.duplicate {
            Duplicate::Replace => Newcomer::Replaces,
            Duplicate::ProbeThenReplace => Newcomer::Probes,
            Duplicate::Refuse | Duplicate::Allow(_) => Newcomer::IsRefused,
        };
        let session = self.session.check()?;
        let native = match self.native {
            Some(native) if native.native.is_none() => {
                return Err(ConfigError { field: "native.native", why: "a native peer is numbered" });
            }
            Some(native) if native.link.role != Role::Acceptor || native.link.ready != Ready::Open => {
                return Err(ConfigError { field: "native.link", why: "a hub is dialled, and greets by itself" });
            }
            Some(native) => {
                Some(Config { link: LinkConfig { newcomer: Newcomer::Replaces, ..native.link }, ..native }.check()?)
            }
            None => None,
        };
        let later =
            Config { inbox: InboxConfig { after_loss: false, ..self.session.inbox }, ..self.session }.check()?;
        Ok(HubChecked { hub: self, session, later, native })
    }
}

/// Settings that passed the check.
///
/// ```
/// # use bowline::hub::HubConfig;
/// let checked = HubConfig::DEFAULT.check()?;
/// assert_eq!(checked.get().sessions, 4096);
/// # Ok::<(), bowline::ConfigError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HubChecked {
    hub: HubConfig,
    session: Checked,
    later: Checked,
    native: Option<Checked>,
}

impl HubChecked {
    /// The settings.
    #[must_use]
    pub const fn get(&self) -> &HubConfig {
        &self.hub
    }

    /// For a session that begins so long after the hub: what an earlier hub had completed can only come again within the
    /// horizon.
    ///
    /// A native peer's says itself what it has sent before; `None`: there are no native peers here.
    pub(super) fn session(&self, since: Duration, native: bool) -> Option<Checked> {
        if native {
            return self.native;
        }
        Some(if since < self.hub.session.inbox.horizon { self.session } else { self.later })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u1_nonsense_is_refused_by_name() {
        type Change = fn(&mut HubConfig);
        let cases: [(&str, Change); 14] = [
            ("session.link.role", |c| c.session.link.role = Role::Dialer),
            ("session.link.ready", |c| c.session.link.ready = Ready::Hello),
            ("held_bytes", |c| c.held_bytes = 17),
            ("sessions", |c| c.sessions = 0),
            ("duplicate", |c| c.duplicate = Duplicate::Allow(0)),
            ("hello", |c| c.hello = Duration::ZERO),
            ("ttl", |c| c.ttl = Duration::from_secs(599)),
            ("bulk.most", |c| c.bulk.most = 257),
            ("topics.history", |c| c.topics.history = 0),
            ("topics.bytes", |c| c.topics.bytes = 0),
            ("topics.age", |c| c.topics.age = Duration::ZERO),
            ("fleet_low", |c| c.fleet_low = 81),
            ("fleet_high", |c| c.fleet_high = 101),
            ("outbox.capacity", |c| c.session.outbox.capacity = 0),
        ];
        for (field, change) in cases {
            let mut config = HubConfig::DEFAULT;
            change(&mut config);
            assert_eq!(config.check().unwrap_err().field, field);
        }
    }

    #[test]
    fn u2_the_policy_decides_what_becomes_of_a_newcomer() {
        let newcomer = |duplicate| {
            let checked = HubConfig { duplicate, ..HubConfig::DEFAULT }.check().unwrap();
            checked.session(Duration::ZERO, false).unwrap().get().link.newcomer
        };
        assert_eq!(newcomer(Duplicate::Replace), Newcomer::Replaces);
        assert_eq!(newcomer(Duplicate::ProbeThenReplace), Newcomer::Probes);
        assert_eq!(newcomer(Duplicate::Refuse), Newcomer::IsRefused);
        assert_eq!(newcomer(Duplicate::Allow(2)), Newcomer::IsRefused);
    }
}
