//! The hub's parameters for the systems we serve.

use super::config::{Duplicate, HubConfig, TopicsConfig};
use crate::config::Config;
use crate::heartbeat::HeartbeatConfig;
use crate::inbox::{DedupBy, InboxConfig};
use crate::outbox::{OutboxConfig, Proof};
use crate::rtt::AckWait;
use core::time::Duration;

/// Bettensor's validator: many miners, who prove by their hotkeys who they are, and confirm nothing; that a message has
/// arrived is known from the pong behind it.
///
/// ```
/// use bowline::Proof;
/// use bowline::hub::BETTENSOR_HUB;
/// assert!(BETTENSOR_HUB.check().is_ok());
/// assert_eq!(BETTENSOR_HUB.session.outbox.proof, Proof::Pong);
/// ```
pub const BETTENSOR_HUB: HubConfig = HubConfig {
    session: Config {
        // The validator's interval, and the silence after which it gives a miner up (wire facts 2.3).
        heartbeat: HeartbeatConfig {
            interval: Duration::from_secs(60),
            dead: Duration::from_secs(300),
            ..HeartbeatConfig::DEFAULT
        },
        outbox: OutboxConfig {
            // Four of the longest frames, or thousands of ordinary ones: what one miner that is away may cost.
            bytes: 4 << 20,
            proof: Proof::Pong,
            ack_wait: AckWait::Adaptive {
                first: Duration::from_secs(3),
                least: Duration::from_secs(3),
                most: Duration::from_secs(60),
            },
            // What a miner's library reads: a longer frame closes it with 1009.
            frame_limit: 1 << 20,
            post_limit: 1 << 20,
            ..OutboxConfig::DEFAULT
        },
        // A burst of a hundred predictions is ordinary.
        // What the hub before this one had completed may come again: its memory is lost, so that is said.
        // An original miner calls its predictions by the game and the second, and an original validator takes them all.
        inbox: InboxConfig {
            bytes: 512 << 10,
            held: 256,
            dedup: DedupBy::IdAndContent,
            after_loss: true,
            ..InboxConfig::DEFAULT
        },
        ..HubConfig::DEFAULT.session
    },
    ..HubConfig::DEFAULT
};

/// AI Village's hub: many viewers, whom nobody knows and who come back as somebody else; they confirm nothing, and what
/// they miss they get from the history of their topics, not from a session.
///
/// ```
/// use bowline::hub::{Duplicate, VILLAGE_HUB};
/// assert!(VILLAGE_HUB.check().is_ok());
/// assert!(matches!(VILLAGE_HUB.duplicate, Duplicate::Allow(_)), "one name may be looking from many places");
/// ```
pub const VILLAGE_HUB: HubConfig = HubConfig {
    session: Config {
        // The original's interval, and the silence after which it gives a client up (wire facts 3.3).
        heartbeat: HeartbeatConfig {
            interval: Duration::from_secs(30),
            dead: Duration::from_secs(300),
            ..HeartbeatConfig::DEFAULT
        },
        outbox: OutboxConfig {
            bytes: 1 << 20,
            proof: Proof::Pong,
            ack_wait: AckWait::ARRIVAL,
            ..OutboxConfig::DEFAULT
        },
        ..HubConfig::DEFAULT.session
    },
    // A user with many tabs, or everybody behind one name; the original asks nobody who he is.
    duplicate: Duplicate::Allow(255),
    // What nobody comes back for need not be kept; nonces, which ask for twice the tolerance, there are none.
    ttl: Duration::from_secs(60),
    tolerance: Duration::from_secs(30),
    // A viewer comes back after 3 to 5 s: of a training that tells ten times a second, nothing is lost to it.
    topics: TopicsConfig { history: 256, ..TopicsConfig::DEFAULT },
    ..HubConfig::DEFAULT
};
