//! Is the peer alive?
//!
//! Only what comes in on this connection counts as life; what we send never does. A ping is a question with a deadline,
//! and the deadline starts when the adapter takes the ping, not when it became due: a socket that cannot be written says
//! nothing about the peer.
//!
//! ```text
//!            interval ± 10 %           taken by the adapter          nothing heard in time
//!  Quiet ───────────────────▶ ping due ─────────────────▶ Asked ──────────────────────────▶ Dead
//!    ▲ ▲        probe()─────────▲                           │
//!    │ └───────────────────────── anything heard ───────────┘
//!    └── outbound silence ──▶ keep-alive due ── any data frame sent ──┘   (rule L4, for peers with a read deadline)
//! ```
//!
//! Invariants: dead is declared only while a ping is unanswered; after a stall of the process a ping is asked first
//! (rule L5); one machine lives as long as one connection, so no timer runs across a reconnect.
//! Field bugs: heartbeat counted although the socket was not writable (healthy links cut); heartbeat suppressed by other
//! outbound traffic; own sends taken for life (the stale check that can never fire); interval running across reconnects.
//! Rules: L1, L2, L4, L5.

use crate::rng::SplitMix64;
use crate::time::{Instant, Timer, Timers, Wake, micros};
use core::time::Duration;

/// When to ask, and how long to wait.
///
/// ```
/// use bowline::HeartbeatConfig;
/// use core::time::Duration;
/// assert_eq!(HeartbeatConfig::DEFAULT.dead, Duration::from_secs(45));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HeartbeatConfig {
    /// Time between pings, ± 10 %, the first at a random point of it; zero: never. Default 20 s (L1).
    pub interval: Duration,
    /// Silence after which the peer is dead, counted from the last thing heard; at least twice the interval. Default
    /// 45 s (L1).
    pub dead: Duration,
    /// A data frame leaves at least this often, for peers whose read deadline pings do not extend; zero: never.
    /// Default never; Gonka 25 s against a deadline of 60 s (L4).
    pub keepalive: Duration,
    /// How long a probe may take: asked after a stall (L5) and on an unanswered message (F2). Default 3 s.
    pub probe: Duration,
}

impl HeartbeatConfig {
    /// 20 s, 45 s, no keep-alive, probes of 3 s.
    pub const DEFAULT: Self = Self {
        interval: Duration::from_secs(20),
        dead: Duration::from_secs(45),
        keepalive: Duration::ZERO,
        probe: Duration::from_secs(3),
    };
}

/// Asks, listens, and tells when the peer is dead; one per connection.
///
/// ```
/// use bowline::{Heartbeat, HeartbeatConfig, Instant, SplitMix64, Timers};
/// use core::time::Duration;
/// let mut rng = SplitMix64::new(1);
/// let mut beat = Heartbeat::start(HeartbeatConfig::DEFAULT, Instant::ZERO, &mut rng);
/// let (due, _) = beat.earliest().unwrap();
/// assert!(due <= Instant::ZERO.after(Duration::from_secs(20)), "the first is desynchronised");
/// assert!(!beat.tick(due, &mut rng), "alive");
/// assert!(beat.ping_due());
/// beat.ping_taken(due);
/// let (dead, _) = beat.earliest().unwrap();
/// assert!(beat.tick(due.after(Duration::from_secs(60)), &mut rng), "never answered: dead");
/// # let _ = dead;
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Heartbeat {
    config: HeartbeatConfig,
    next: Timer,
    answer: Timer,
    keepalive: Timer,
    ping: Option<Ask>,
    keepalive_due: bool,
    /// When something was heard last; at first, when the connection came up.
    last: Instant,
}

/// A ping that is due, by its urgency: how long its answer may take.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Ask {
    Probe,
    Beat,
}

impl Heartbeat {
    /// Begins with a connection; the first ping falls at a random point of the interval.
    #[must_use]
    pub fn start(config: HeartbeatConfig, now: Instant, rng: &mut SplitMix64) -> Self {
        let mut beat = Self {
            config,
            next: Timer::disarmed(),
            answer: Timer::disarmed(),
            keepalive: Timer::disarmed(),
            ping: None,
            keepalive_due: false,
            last: now,
        };
        if beat.config.interval > Duration::ZERO {
            let first = rng.up_to(micros(beat.config.interval)).max(1);
            beat.next.arm(now.after(Duration::from_micros(first)));
        }
        beat.data_sent(now);
        beat
    }

    /// Fires what is due; true: the peer is dead.
    #[must_use]
    pub fn tick(&mut self, now: Instant, rng: &mut SplitMix64) -> bool {
        if self.next.fire(now) {
            self.ping.get_or_insert(Ask::Beat);
            let interval = micros(self.config.interval);
            let tenth = interval / 10;
            let spread = interval.saturating_sub(tenth).saturating_add(rng.up_to(tenth.saturating_mul(2)));
            self.next.arm(now.after(Duration::from_micros(spread.max(1))));
        }
        if self.keepalive.fire(now) {
            self.keepalive_due = true;
        }
        self.answer.fire(now)
    }

    /// Something arrived on this connection, decodable or not (L2).
    pub const fn heard(&mut self, now: Instant) {
        self.last = now;
        self.answer.disarm();
    }

    /// Asks for a ping when the next may leave, with the limit of an ordinary one.
    pub fn ask(&mut self) {
        self.ping.get_or_insert(Ask::Beat);
    }

    /// Asks now, with the short deadline: after a stall, for an unanswered message, or because a newcomer wants the
    /// place. A question that is already out is not asked twice, but its answer is awaited no longer than that.
    pub fn probe(&mut self, now: Instant) {
        if self.answer.is_armed() {
            self.answer.arm_by(now.after(self.config.probe));
        } else {
            self.ping = Some(Ask::Probe);
        }
    }

    /// The process stood still: nothing may be concluded from that silence, so the question is asked anew (L5).
    pub const fn stalled(&mut self) {
        self.answer.disarm();
        self.ping = Some(Ask::Probe);
    }

    /// Whether a ping waits to be sent.
    #[must_use]
    pub const fn ping_due(&self) -> bool {
        self.ping.is_some()
    }

    /// The adapter took the ping: its deadline starts now.
    pub fn ping_taken(&mut self, now: Instant) {
        let soonest = now.after(self.config.probe);
        let until = match self.ping.take() {
            Some(Ask::Beat) => soonest.max(self.last.after(self.config.dead)),
            Some(Ask::Probe) => soonest,
            None => return,
        };
        self.answer.arm_by(until);
    }

    /// Whether a question is out and not answered: the link is suspect.
    #[must_use]
    pub fn asking(&self) -> bool {
        self.answer.is_armed()
    }

    /// Whether a data frame is due although there is no data (L4).
    #[must_use]
    pub const fn keepalive_due(&self) -> bool {
        self.keepalive_due
    }

    /// A data frame left: the peer's read deadline starts anew.
    pub fn data_sent(&mut self, now: Instant) {
        self.keepalive_due = false;
        if self.config.keepalive > Duration::ZERO {
            self.keepalive.arm(now.after(self.config.keepalive));
        }
    }
}

impl Timers for Heartbeat {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        see(Wake::Ping, &self.next);
        see(Wake::Dead, &self.answer);
        see(Wake::Keepalive, &self.keepalive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn beat(keepalive: u64) -> (Heartbeat, SplitMix64) {
        let mut rng = SplitMix64::new(5);
        let config =
            HeartbeatConfig { keepalive: SECOND * u32::try_from(keepalive).unwrap(), ..HeartbeatConfig::DEFAULT };
        (Heartbeat::start(config, Instant::ZERO, &mut rng), rng)
    }

    #[test]
    fn l1_first_beat_is_spread_over_the_interval() {
        let first = |seed| {
            let mut rng = SplitMix64::new(seed);
            Heartbeat::start(HeartbeatConfig::DEFAULT, Instant::ZERO, &mut rng).earliest().unwrap().0
        };
        let seconds: std::collections::BTreeSet<_> = (0..400).map(|s| first(s).as_micros() / 1_000_000).collect();
        assert!(seconds.len() >= 19, "{seconds:?}");
    }

    #[test]
    fn l1_later_beats_lie_within_ten_percent() {
        let (mut beat, mut rng) = beat(0);
        let mut last = beat.earliest().unwrap().0;
        assert!(!beat.tick(last, &mut rng));
        for _ in 0..200 {
            let next = beat.next.at().unwrap();
            let gap = next.since(last);
            assert!(gap >= SECOND * 18 && gap <= SECOND * 22, "{gap:?}");
            last = next;
            assert!(!beat.tick(next, &mut rng));
        }
    }

    #[test]
    fn l1_silence_for_45_s_is_death() {
        let (mut beat, mut rng) = beat(0);
        let mut dead = None;
        for second in 0..100 {
            if beat.tick(at(second), &mut rng) {
                dead = Some(second);
                break;
            }
            if beat.ping_due() {
                beat.ping_taken(at(second));
            }
        }
        let dead = dead.expect("a mute peer is found");
        assert_eq!(dead, 45);
    }

    #[test]
    fn l2_anything_heard_is_life_own_sends_are_not() {
        let (mut beat, mut rng) = beat(1);
        for second in 0..1000 {
            assert!(!beat.tick(at(second), &mut rng));
            if beat.ping_due() {
                beat.ping_taken(at(second));
            }
            beat.heard(at(second));
        }
        let mut died = false;
        for second in 1000..1060 {
            died |= beat.tick(at(second), &mut rng);
            if beat.ping_due() {
                beat.ping_taken(at(second));
            }
            beat.data_sent(at(second));
        }
        assert!(died, "own sends must not keep a dead peer alive");
    }

    #[test]
    fn field_bug_a_ping_that_could_not_be_written_accuses_nobody() {
        let (mut beat, mut rng) = beat(0);
        for second in 0..1000 {
            assert!(!beat.tick(at(second), &mut rng), "never taken, never judged");
        }
        assert!(beat.ping_due());
    }

    #[test]
    fn field_bug_outbound_traffic_does_not_postpone_a_ping() {
        let (mut beat, mut rng) = beat(0);
        let mut pings = 0;
        for second in 0..200 {
            let _ = beat.tick(at(second), &mut rng);
            beat.data_sent(at(second));
            if beat.ping_due() {
                beat.ping_taken(at(second));
                beat.heard(at(second));
                pings += 1;
            }
        }
        assert!(pings >= 9, "{pings}");
    }

    #[test]
    fn l4_a_data_frame_leaves_before_the_peers_read_deadline() {
        let (mut beat, mut rng) = beat(25);
        let mut last = 0;
        for second in 0..300 {
            let _ = beat.tick(at(second), &mut rng);
            beat.heard(at(second));
            if beat.keepalive_due() {
                beat.data_sent(at(second));
                assert_eq!(second - last, 25);
                last = second;
            }
        }
        assert!(last >= 275);
    }

    #[test]
    fn l5_after_a_stall_the_question_is_asked_anew() {
        let (mut beat, mut rng) = beat(0);
        beat.probe(at(1));
        beat.ping_taken(at(1));
        beat.stalled();
        assert!(!beat.tick(at(4000), &mut rng), "no verdict from that gap");
        assert!(beat.ping_due());
        beat.ping_taken(at(4000));
        assert!(!beat.tick(at(4002), &mut rng));
        assert!(beat.tick(at(4003), &mut rng), "one probe of 3 s, then the verdict");
    }

    #[test]
    fn a_probe_shortens_the_wait_and_an_asked_question_is_not_repeated() {
        let (mut beat, mut rng) = beat(0);
        beat.probe(at(1));
        beat.ping_taken(at(1));
        beat.probe(at(1));
        assert!(!beat.ping_due());
        assert!(beat.asking());
        assert!(beat.tick(at(4), &mut rng));
    }
}
