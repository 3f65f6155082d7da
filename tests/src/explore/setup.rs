//! Who is explored: two plain sessions with HTTP both ways, and what may go wrong.
//!
//! All delays of a session are constant here, so that chance decides nothing: a range from x to x draws x, whatever the
//! state of the random numbers is.

use super::state::Budget;
use bowline::{AckWait, BackoffConfig, Config, ProgramLife, Role, Seen};
use core::time::Duration;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Longer than every execution: what is due then is never due.
const BEYOND: Duration = s(1_000_000_000);

/// One exploration.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// For people.
    pub name: &'static str,
    /// How many messages each side sends.
    pub sends: [u8; 2],
    /// The message that its receiver never acknowledges and answers 500.
    pub poison: Option<u8>,
    /// The statuses that a go-between may answer with.
    pub go_between: &'static [u16],
    /// A go-between answers every request with this status, also when nothing else goes wrong any more.
    pub portal: Option<u16>,
    /// Which sides have an address to post to.
    pub http: [bool; 2],
    /// In seconds: the longest time from the last thing that goes wrong until everything has ended.
    pub bound: u32,
    /// In seconds: the longest time in which a closing side finishes what is under way.
    pub drain: u16,
    /// In milliseconds: how long an application works on each message, one after the other; nothing goes twice then, if
    /// nothing goes wrong. Zero: it completes them in any order, and promptly.
    pub work: u32,
    /// What may happen besides.
    pub budget: Budget,
}

impl Setup {
    /// The settings of a side in one of its lives.
    pub(super) fn config(&self, side: usize, life: u8) -> Config {
        let mut config = Config::DEFAULT;
        config.link.role = if side == 0 { Role::Dialer } else { Role::Acceptor };
        config.link.backoff = BackoffConfig::range(s(1), s(1));
        config.link.blocked = s(1);
        // Beats are drawn by chance, so none comes; a question is asked all the same where a message is not answered.
        config.heartbeat.interval = BEYOND;
        config.heartbeat.dead = s(2 * BEYOND.as_secs());
        config.heartbeat.program = ProgramLife::Answers(s(5));
        config.outbox.capacity = 2;
        config.outbox.ack_wait = AckWait::Fixed(s(5));
        config.inbox.bytes = 2 * Seen::BYTES;
        config.inbox.horizon = BEYOND;
        config.inbox.after_loss = life > 0;
        config.route.http = self.http[side];
        config.route.posts = 2;
        config.route.stay = s(2);
        config.route.flap = s(2);
        config.route.stable_most = s(4);
        config.route.backoff = BackoffConfig::range(s(1), s(1));
        config.route.blocked = s(1);
        config
    }

    /// How many messages there are.
    pub(super) const fn messages(&self) -> u8 {
        self.sends[0] + self.sends[1]
    }

    /// Who sends a message.
    pub(super) fn sender(&self, message: usize) -> usize {
        usize::from(message >= usize::from(self.sends[0]))
    }
}
