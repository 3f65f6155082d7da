//! Is the peer alive, and is the program behind it?
//!
//! Two things live at the other end. The *transport* lives as long as anything comes in: a WebSocket library answers
//! pings while its program is dead. The *program* lives as long as it says a word of the wire's own: data, an
//! acknowledgement, its heartbeat. What we send is evidence of neither. A ping is a question with a deadline, and the
//! deadline starts when the ping has left: a socket that takes no bytes, and bytes that are still under way, say nothing
//! about the peer. Where the ping is the wire's own, a probe goes to both: a WebSocket ping with 3 s for the transport, the
//! wire's ping with its own time for the program.
//!
//! ```text
//!            interval ± 10 %           taken by the adapter          nothing heard in time
//!  Quiet ───────────────────▶ ping due ─────────────────▶ Asked ──────────────────────────▶ Dead: the transport
//!    ▲ ▲        probe()─────────▲                          │ │
//!    │ └───────────────────────── anything heard ──────────┘ │ no word of the wire's own in time (ProgramLife::Answers)
//!    │                                                       └─────────────────────────────▶ Dead: the program
//!    └── outbound silence ──▶ keep-alive due ── any data frame sent ──┘   (rule L4, for peers with a read deadline)
//!
//!  data expected, or seen ── no word of the wire's own in time (ProgramLife::Data) ────────▶ Dead: the program
//! ```
//!
//! Invariants: dead is declared only while a ping is unanswered or data is overdue; while nothing can be written no
//! answer is overdue; after a stall of the process a ping is asked first (rule L5); one machine lives as long as one
//! connection, so no timer runs across a reconnect. What is known of the peer's data ([`DataWatch`]) lives as long as the
//! session.
//! Field bugs: heartbeat counted although the socket was not writable (healthy links cut); heartbeat suppressed by other
//! outbound traffic; own sends taken for life (the stale check that can never fire); interval running across reconnects;
//! a library's pongs taken for life of a program whose sender had died; a slow upload cut because the ping waited behind it;
//! a connection left mute a second time, on which no data had come yet; a peer that answers no ping while it works cut at
//! its work.
//! Rules: L1, L2, L4, L5, L10, L11.

use crate::rng::SplitMix64;
use crate::rtt::transfer_time;
use crate::time::{Instant, Timer, Timers, Wake, micros};
use core::time::Duration;

/// The most that lies unseen between us and the peer, in bytes: 4 MiB in our system and 6 MiB in the peer's, as Linux has
/// them at most (`tcp_wmem`, `tcp_rmem`). What was written before that has left.
const UNSEEN: u64 = 10 << 20;

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
    /// Silence after which the transport is dead, counted from the last thing heard; at least twice the interval. While an
    /// acknowledgement of a plain peer is awaited it is at least twice the wait for one. Default 45 s (L1).
    pub dead: Duration,
    /// A data frame leaves at least this often, for peers whose read deadline pings do not extend; zero: never.
    /// Default never; Gonka 25 s against a deadline of 60 s (L4).
    pub keepalive: Duration,
    /// How long a probe may take: asked after a stall (L5) and on an unanswered message (F2). Default 3 s.
    pub probe: Duration,
    /// What shows that the peer's program lives. Default [`ProgramLife::Unwatched`] (L10).
    pub program: ProgramLife,
}

impl HeartbeatConfig {
    /// 20 s, 45 s, no keep-alive, probes of 3 s, the program unwatched.
    pub const DEFAULT: Self = Self {
        interval: Duration::from_secs(20),
        dead: Duration::from_secs(45),
        keepalive: Duration::ZERO,
        probe: Duration::from_secs(3),
        program: ProgramLife::Unwatched,
    };
}

/// What shows that the program behind a connection lives, and not only its WebSocket library (L10).
///
/// ```
/// use bowline::{BETTENSOR_MINER, GONKA_API_NODE, ProgramLife};
/// use core::time::Duration;
/// assert_eq!(BETTENSOR_MINER.heartbeat.program, ProgramLife::Answers(Duration::from_secs(90)));
/// assert_eq!(GONKA_API_NODE.heartbeat.program, ProgramLife::Data(Duration::from_secs(60)));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProgramLife {
    /// The program is not watched, only the transport.
    Unwatched,
    /// The profile's ping is a message of the wire's own, and each asks for a word of the wire within this time.
    Answers(Duration),
    /// The wire has no ping: a word of the wire comes at least this often, from the first data of the session on, or as the
    /// application says ([`Input::ExpectData`](crate::Input)). After each cut on which no data followed the time doubles,
    /// to four times this at most, unless the application expects data.
    Data(Duration),
}

/// How often the time for data doubles: four times the first. An idle node is not cut each minute, and one that went mute
/// while it was idle is found within minutes.
const DATA_DOUBLINGS: u8 = 2;

/// What is known over all connections of a session about the data that the peer has ([`ProgramLife::Data`]).
///
/// ```
/// use bowline::{DataWatch, Heartbeat, HeartbeatConfig, Instant, ProgramLife, SplitMix64, Word};
/// use core::time::Duration;
/// let config = HeartbeatConfig { program: ProgramLife::Data(Duration::from_secs(60)), ..HeartbeatConfig::DEFAULT };
/// let mut rng = SplitMix64::new(1);
/// let mut beat = Heartbeat::start(config, DataWatch::default(), Instant::ZERO, &mut rng);
/// beat.spoke(Instant::ZERO, Word::Data);
/// assert_ne!(beat.data_watch(), DataWatch::default(), "data was seen, and the next connection is watched too");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct DataWatch {
    /// Data came on some connection.
    seen: bool,
    /// Whether data comes, if the application has said so.
    expected: Option<bool>,
    /// Cuts since data came last, at most [`DATA_DOUBLINGS`].
    cuts: u8,
}

impl DataWatch {
    /// Records what the application says about data from now on.
    pub const fn expect_data(&mut self, data: bool) {
        self.expected = Some(data);
    }

    /// How long the next word may take if `limit` is the profile's time; none: no word is overdue.
    fn limit(self, limit: Duration) -> Option<Duration> {
        let cuts = if self.expected.is_some() { 0 } else { self.cuts };
        self.expected.unwrap_or(self.seen).then(|| Duration::from_micros(micros(limit).saturating_mul(1 << cuts)))
    }
}

/// What was found dead.
///
/// ```
/// # use bowline::Dead;
/// assert_ne!(Dead::Transport, Dead::Program);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dead {
    /// Nothing was heard at all.
    Transport,
    /// Something was heard, but no word of the wire's own.
    Program,
}

/// A word of the wire's own that came in.
///
/// ```
/// # use bowline::Word;
/// assert_ne!(Word::Data, Word::Other);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Word {
    /// A message, or a part of one.
    Data,
    /// An acknowledgement, a heartbeat, the answer to one.
    Other,
}

/// A question that is out: its deadline, which stands still while nothing can be written.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Question {
    due: Timer,
    /// How long the answer may take.
    wait: Duration,
    /// It is out, but may lie in a socket that takes nothing.
    held: bool,
}

impl Question {
    const NONE: Self = Self { due: Timer::disarmed(), wait: Duration::ZERO, held: false };

    fn is_open(&self) -> bool {
        self.held || self.due.is_armed()
    }

    /// The question leaves; one that is out already keeps its deadline if that is sooner.
    fn ask(&mut self, now: Instant, wait: Duration) {
        if !self.held {
            self.due.arm_by(now.after(wait));
            self.wait = self.due.at().map_or(wait, |at| at.since(now));
        }
    }

    fn hurry(&mut self, now: Instant, wait: Duration) {
        self.wait = self.wait.min(wait);
        if self.due.is_armed() {
            self.due.arm_by(now.after(wait));
        }
    }

    const fn answered(&mut self) {
        self.due.disarm();
        self.held = false;
    }

    fn writable(&mut self, now: Instant, yes: bool) {
        if !yes && self.due.is_armed() {
            self.due.disarm();
            self.held = true;
        } else if yes && core::mem::take(&mut self.held) {
            self.due.arm(now.after(self.wait));
        }
    }
}

/// Asks, listens, and tells when the peer is dead; one per connection.
///
/// ```
/// use bowline::{DataWatch, Dead, Heartbeat, HeartbeatConfig, Instant, SplitMix64, Timers};
/// use core::time::Duration;
/// let mut rng = SplitMix64::new(1);
/// let mut beat = Heartbeat::start(HeartbeatConfig::DEFAULT, DataWatch::default(), Instant::ZERO, &mut rng);
/// let (due, _) = beat.earliest().unwrap();
/// assert!(due <= Instant::ZERO.after(Duration::from_secs(20)), "the first is desynchronised");
/// assert_eq!(beat.tick(due, &mut rng), None, "alive");
/// assert!(beat.ping_due());
/// beat.ping_taken(due, 0, Duration::ZERO);
/// let late = due.after(Duration::from_secs(60));
/// assert_eq!(beat.tick(late, &mut rng), Some(Dead::Transport), "never answered");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Heartbeat {
    config: HeartbeatConfig,
    next: Timer,
    answer: Question,
    /// The wire's own word that a ping of the wire's own asks for ([`ProgramLife::Answers`]).
    word: Question,
    /// The next word of the wire ([`ProgramLife::Data`]).
    data: Timer,
    watch: DataWatch,
    keepalive: Timer,
    ping: Option<Ask>,
    /// A ping of the transport's own is due, or out, beside the wire's ([`ProgramLife::Answers`]).
    probe_due: bool,
    probing: bool,
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
    /// Begins with a connection; the first ping falls at a random point of the interval. `watch` is what earlier connections
    /// have shown ([`data_watch`](Self::data_watch)).
    #[must_use]
    pub fn start(config: HeartbeatConfig, watch: DataWatch, now: Instant, rng: &mut SplitMix64) -> Self {
        let mut beat = Self {
            config,
            next: Timer::disarmed(),
            answer: Question::NONE,
            word: Question::NONE,
            data: Timer::disarmed(),
            watch,
            keepalive: Timer::disarmed(),
            ping: None,
            probe_due: false,
            probing: false,
            keepalive_due: false,
            last: now,
        };
        if beat.config.interval > Duration::ZERO {
            let first = rng.up_to(micros(beat.config.interval)).max(1);
            beat.next.arm(now.after(Duration::from_micros(first)));
        }
        beat.data_sent(now);
        beat.await_data(now);
        beat
    }

    /// What this connection and those before it have shown of the peer's data: the next one starts with it.
    #[must_use]
    pub const fn data_watch(&self) -> DataWatch {
        self.watch
    }

    /// The next word of the wire has its time from now on, if one is awaited.
    fn await_data(&mut self, now: Instant) {
        let ProgramLife::Data(limit) = self.config.program else { return };
        match self.watch.limit(limit) {
            Some(limit) => self.data.arm(now.after(limit)),
            None => self.data.disarm(),
        }
    }

    /// Fires what is due and returns what is dead.
    #[must_use]
    pub fn tick(&mut self, now: Instant, rng: &mut SplitMix64) -> Option<Dead> {
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
        let transport = self.answer.due.fire(now);
        let mute = self.data.fire(now);
        if mute {
            self.watch.cuts = self.watch.cuts.saturating_add(1).min(DATA_DOUBLINGS);
        }
        let program = self.word.due.fire(now) || mute;
        if transport { Some(Dead::Transport) } else { program.then_some(Dead::Program) }
    }

    /// Something arrived on this connection, decodable or not: the transport lives (L2).
    pub const fn heard(&mut self, now: Instant) {
        self.last = now;
        self.probing = false;
        self.answer.answered();
    }

    /// The peer's program said a word of the wire's own (L10).
    pub fn spoke(&mut self, now: Instant, word: Word) {
        self.word.answered();
        if word == Word::Data {
            self.watch.seen = true;
            self.watch.cuts = 0;
        }
        self.await_data(now);
    }

    /// The application says whether data comes from now on ([`ProgramLife::Data`]); before it has, the first data of the
    /// session decides.
    pub fn expect_data(&mut self, now: Instant, data: bool) {
        if self.watch.expected != Some(data) {
            let due = self.data.at();
            self.watch.expect_data(data);
            self.await_data(now);
            // What is overdue soon stays so.
            if let Some(due) = due.filter(|_| data) {
                self.data.arm_by(due);
            }
        }
    }

    /// The connection takes bytes, or takes none at the moment: until then no answer is overdue, and each sign that bytes
    /// move begins its time anew (L11).
    pub fn writable(&mut self, now: Instant, yes: bool) {
        self.answer.writable(now, yes);
        self.word.writable(now, yes);
    }

    /// Asks for a ping when the next may leave, with the limit of an ordinary one.
    pub fn ask(&mut self) {
        self.ping.get_or_insert(Ask::Beat);
    }

    /// Asks now, with the short deadline: after a stall, for an unanswered message, or because a newcomer wants the
    /// place. A question that is already out is not asked twice, but its answer is awaited no longer than that; `ahead` is
    /// the number of bytes that were sent before and are unanswered. Where the ping is the wire's own it asks the program,
    /// which has more time, and the transport is asked by a ping of its own.
    pub fn probe(&mut self, now: Instant, ahead: u64) {
        let both = matches!(self.config.program, ProgramLife::Answers(_));
        if if both { self.probing } else { self.answer.is_open() } {
            self.answer.hurry(now, self.config.probe.saturating_add(transfer_time(ahead.min(UNSEEN))));
        } else if both {
            self.probe_due = true;
        } else {
            self.ping = Some(Ask::Probe);
        }
        if both && !self.word.is_open() {
            self.ask();
        }
    }

    /// Asks for an unanswered message while others are awaited: the peer may be at work on one of them, and its answer has as
    /// long as that to an ordinary ping, from the last thing heard (F2). Where the ping is the wire's own, as
    /// [`probe`](Self::probe).
    pub fn doubt(&mut self, now: Instant, ahead: u64) {
        if matches!(self.config.program, ProgramLife::Answers(_)) {
            self.probe(now, ahead);
        } else if !self.answer.is_open() {
            self.ask();
        }
    }

    /// Whether a ping of the transport's own waits to be sent.
    #[must_use]
    pub const fn probe_due(&self) -> bool {
        self.probe_due
    }

    /// The adapter took the transport's own ping: its deadline starts now, as [`ping_taken`](Self::ping_taken) says.
    pub fn probe_taken(&mut self, now: Instant, ahead: u64) {
        self.probe_due = false;
        self.probing = true;
        self.answer.ask(now, self.config.probe.saturating_add(transfer_time(ahead.min(UNSEEN))));
    }

    /// The process stood still: nothing may be concluded from that silence, so the question is asked anew, and data has
    /// until `until` at least (L5).
    pub fn stalled(&mut self, until: Instant) {
        self.answer.answered();
        self.word.answered();
        self.probing = false;
        self.probe_due = matches!(self.config.program, ProgramLife::Answers(_));
        self.ping = Some(if self.probe_due { Ask::Beat } else { Ask::Probe });
        if let Some(at) = self.data.at() {
            self.data.arm(at.max(until));
        }
    }

    /// Whether a ping waits to be sent.
    #[must_use]
    pub const fn ping_due(&self) -> bool {
        self.ping.is_some()
    }

    /// The adapter took the ping: its deadline starts now, and allows for the `ahead` bytes that were sent before and are
    /// unanswered (L11). The silence of an ordinary ping is no death before `work` has passed: so long the peer may be at
    /// work on what was sent before, and answer no ping (L1).
    pub fn ping_taken(&mut self, now: Instant, ahead: u64, work: Duration) {
        let travel = transfer_time(ahead.min(UNSEEN));
        let soonest = now.after(self.config.probe.saturating_add(travel));
        let until = match self.ping.take() {
            Some(Ask::Beat) => soonest.max(self.last.after(self.config.dead.max(work))),
            Some(Ask::Probe) => soonest,
            None => return,
        };
        self.answer.ask(now, until.since(now));
        if let ProgramLife::Answers(limit) = self.config.program {
            self.word.ask(now, limit.saturating_add(travel));
        }
    }

    /// Whether a question is out and not answered: the link is suspect.
    #[must_use]
    pub fn asking(&self) -> bool {
        self.answer.is_open()
    }

    /// Whether the program was asked for a word of the wire's own and has not said one.
    #[must_use]
    pub fn asking_program(&self) -> bool {
        self.word.is_open()
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
        see(Wake::Dead, &self.answer.due);
        see(Wake::Program, &self.word.due);
        see(Wake::Program, &self.data);
        see(Wake::Keepalive, &self.keepalive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn beat(keepalive: u64) -> (Heartbeat, SplitMix64) {
        let mut rng = SplitMix64::new(5);
        let config =
            HeartbeatConfig { keepalive: SECOND * u32::try_from(keepalive).unwrap(), ..HeartbeatConfig::DEFAULT };
        (Heartbeat::start(config, DataWatch::default(), Instant::ZERO, &mut rng), rng)
    }

    #[test]
    fn l1_first_beat_is_spread_over_the_interval() {
        let first = |seed| {
            let mut rng = SplitMix64::new(seed);
            Heartbeat::start(HeartbeatConfig::DEFAULT, DataWatch::default(), Instant::ZERO, &mut rng)
                .earliest()
                .unwrap()
                .0
        };
        let seconds: std::collections::BTreeSet<_> = (0..400).map(|s| first(s).as_micros() / 1_000_000).collect();
        assert!(seconds.len() >= 19, "{seconds:?}");
    }

    #[test]
    fn l1_later_beats_lie_within_ten_percent() {
        let (mut beat, mut rng) = beat(0);
        let mut last = beat.earliest().unwrap().0;
        assert_eq!(beat.tick(last, &mut rng), None);
        for _ in 0..200 {
            let next = beat.next.at().unwrap();
            let gap = next.since(last);
            assert!(gap >= SECOND * 18 && gap <= SECOND * 22, "{gap:?}");
            last = next;
            assert_eq!(beat.tick(next, &mut rng), None);
        }
    }

    #[test]
    fn l1_silence_for_45_s_is_death() {
        let (mut beat, mut rng) = beat(0);
        let mut dead = None;
        for second in 0..100 {
            if beat.tick(at(second), &mut rng).is_some() {
                dead = Some(second);
                break;
            }
            if beat.ping_due() {
                beat.ping_taken(at(second), 0, Duration::ZERO);
            }
        }
        let dead = dead.expect("a mute peer is found");
        assert_eq!(dead, 45);
    }

    #[test]
    fn l2_anything_heard_is_life_own_sends_are_not() {
        let (mut beat, mut rng) = beat(1);
        for second in 0..1000 {
            assert_eq!(beat.tick(at(second), &mut rng), None);
            if beat.ping_due() {
                beat.ping_taken(at(second), 0, Duration::ZERO);
            }
            beat.heard(at(second));
        }
        let mut died = false;
        for second in 1000..1060 {
            died |= beat.tick(at(second), &mut rng) == Some(Dead::Transport);
            if beat.ping_due() {
                beat.ping_taken(at(second), 0, Duration::ZERO);
            }
            beat.data_sent(at(second));
        }
        assert!(died, "own sends must not keep a dead peer alive");
    }

    #[test]
    fn field_bug_a_ping_that_could_not_be_written_accuses_nobody() {
        let (mut beat, mut rng) = beat(0);
        for second in 0..1000 {
            assert_eq!(beat.tick(at(second), &mut rng), None, "never taken, never judged");
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
                beat.ping_taken(at(second), 0, Duration::ZERO);
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
        beat.probe(at(1), 0);
        beat.ping_taken(at(1), 0, Duration::ZERO);
        beat.stalled(at(1));
        assert_eq!(beat.tick(at(4000), &mut rng), None, "no verdict from that gap");
        assert!(beat.ping_due());
        beat.ping_taken(at(4000), 0, Duration::ZERO);
        assert_eq!(beat.tick(at(4002), &mut rng), None);
        assert_eq!(beat.tick(at(4003), &mut rng), Some(Dead::Transport), "one probe of 3 s, then the verdict");
    }

    #[test]
    fn a_probe_shortens_the_wait_and_an_asked_question_is_not_repeated() {
        let (mut beat, mut rng) = beat(0);
        beat.probe(at(1), 0);
        beat.ping_taken(at(1), 0, Duration::ZERO);
        beat.probe(at(1), 0);
        assert!(!beat.ping_due());
        assert!(beat.asking());
        assert_eq!(beat.tick(at(4), &mut rng), Some(Dead::Transport));
    }

    fn watched(program: ProgramLife) -> (Heartbeat, SplitMix64) {
        let mut rng = SplitMix64::new(5);
        (
            Heartbeat::start(
                HeartbeatConfig { program, ..HeartbeatConfig::DEFAULT },
                DataWatch::default(),
                Instant::ZERO,
                &mut rng,
            ),
            rng,
        )
    }

    /// The second at which it is found dead, if frames that are no words come all the time; `words` are said before.
    fn found(beat: &mut Heartbeat, rng: &mut SplitMix64, words: u64, until: u64) -> Option<u64> {
        (0..until).find(|second| {
            let dead = beat.tick(at(*second), rng);
            if beat.ping_due() {
                beat.ping_taken(at(*second), 0, Duration::ZERO);
            }
            beat.heard(at(*second));
            if *second <= words {
                beat.spoke(at(*second), Word::Data);
            }
            dead == Some(Dead::Program)
        })
    }

    #[test]
    fn l10_a_library_that_answers_for_a_dead_program_is_found() {
        let (mut beat, mut rng) = watched(ProgramLife::Answers(90 * SECOND));
        let found = found(&mut beat, &mut rng, 100, 1000).expect("found");
        assert!((190..=100 + 22 + 91).contains(&found), "{found}: asked within an interval, and 90 s for the word");
        let (mut beat, mut rng) = watched(ProgramLife::Unwatched);
        assert_eq!(self::found(&mut beat, &mut rng, 0, 1000), None);
    }

    #[test]
    fn l10_data_is_awaited_from_the_first_on_or_as_the_application_says() {
        let minute = ProgramLife::Data(60 * SECOND);
        let never_seen = |expect: Option<bool>, words: Option<u64>| {
            let (mut beat, mut rng) = watched(minute);
            if let Some(data) = expect {
                beat.expect_data(at(0), data);
            }
            beat.spoke(at(0), Word::Other);
            match words {
                Some(words) => found(&mut beat, &mut rng, words, 3600),
                None => (1..3600).find(|second| beat.tick(at(*second), &mut rng) == Some(Dead::Program)),
            }
        };
        assert_eq!(never_seen(None, None), None, "an idle hour");
        assert_eq!(never_seen(None, Some(100)), Some(160), "data was seen");
        assert_eq!(never_seen(Some(true), None), Some(60), "data is expected");
        assert_eq!(never_seen(Some(false), Some(100)), None, "the application knows better");
    }

    #[test]
    fn l10_what_was_seen_belongs_to_the_session_and_each_idle_cut_doubles_the_time_for_data() {
        let config = HeartbeatConfig { program: ProgramLife::Data(60 * SECOND), ..HeartbeatConfig::DEFAULT };
        let mut rng = SplitMix64::new(5);
        let mut watch = DataWatch::default();
        let mut lives = |watch: &mut DataWatch, words: Option<u64>| {
            let mut beat = Heartbeat::start(config, *watch, Instant::ZERO, &mut rng);
            let dead = match words {
                Some(words) => found(&mut beat, &mut rng, words, 3600),
                None => (1..3600).find(|second| beat.tick(at(*second), &mut rng) == Some(Dead::Program)),
            };
            *watch = beat.data_watch();
            dead
        };
        assert_eq!(lives(&mut watch, None), None, "nothing was ever seen");
        for epoch in 0..3 {
            assert_eq!(lives(&mut watch, Some(10)), Some(70), "epoch {epoch}: the first cut after data");
            let idle: Vec<_> = (0..4).map(|_| lives(&mut watch, None)).collect();
            assert_eq!(idle, [Some(120), Some(240), Some(240), Some(240)], "epoch {epoch}");
        }
        watch.expect_data(true);
        assert_eq!(lives(&mut watch, None), Some(60), "data is expected: no cut makes that longer");
        watch.expect_data(false);
        assert_eq!(lives(&mut watch, Some(10)), None, "the application knows better");
    }

    #[test]
    fn l1_a_peer_at_work_answers_no_ping_and_has_the_time_of_its_work() {
        let (mut beat, mut rng) = beat(0);
        beat.heard(at(10));
        beat.ask();
        beat.ping_taken(at(20), 0, 120 * SECOND);
        assert_eq!(beat.tick(at(129), &mut rng), None, "longer than 45 s");
        assert_eq!(beat.tick(at(130), &mut rng), Some(Dead::Transport), "from the last thing heard");
        // A probe is asked where there is no time, and of a peer without work the silence is 45 s.
        beat.probe(at(140), 0);
        beat.ping_taken(at(140), 0, 120 * SECOND);
        assert_eq!(beat.tick(at(143), &mut rng), Some(Dead::Transport));
    }

    #[test]
    fn l10_another_word_is_a_sign_of_life_too() {
        let (mut beat, mut rng) = watched(ProgramLife::Data(60 * SECOND));
        beat.spoke(at(0), Word::Data);
        for second in 1..3600 {
            assert_eq!(beat.tick(at(second), &mut rng), None);
            if second % 25 == 0 {
                beat.spoke(at(second), Word::Other);
            }
        }
    }

    #[test]
    fn l11_the_deadline_stands_still_while_nothing_can_be_written() {
        let (mut beat, mut rng) = beat(0);
        beat.probe(at(0), 0);
        beat.ping_taken(at(0), 0, Duration::ZERO);
        beat.writable(at(1), false);
        for second in 1..100 {
            assert_eq!(beat.tick(at(second), &mut rng), None, "it has not left");
            assert!(beat.asking());
        }
        // Bytes moved: the time begins anew, each time.
        for second in [100, 102, 104] {
            beat.writable(at(second), true);
            assert_eq!(beat.tick(at(second + 2), &mut rng), None);
            beat.writable(at(second + 2), false);
        }
        beat.writable(at(106), true);
        assert_eq!(beat.tick(at(108), &mut rng), None);
        assert_eq!(beat.tick(at(109), &mut rng), Some(Dead::Transport));
    }

    #[test]
    fn l11_a_ping_behind_many_bytes_has_the_time_that_they_need() {
        let (mut beat, mut rng) = beat(0);
        beat.probe(at(0), 0);
        beat.ping_taken(at(0), 900_000, Duration::ZERO);
        assert_eq!(beat.tick(at(17), &mut rng), None, "900 KB at 64 KB/s are 14.1 s");
        assert_eq!(beat.tick(at(18), &mut rng), Some(Dead::Transport));
        // What cannot be under way any more is no excuse.
        let (mut beat, mut rng) = self::beat(0);
        beat.probe(at(0), 0);
        beat.ping_taken(at(0), u64::MAX, Duration::ZERO);
        assert_eq!(beat.tick(at(170), &mut rng), Some(Dead::Transport));
    }
}
