//! Is there a connection, and when to try for the next one?
//!
//! One machine for both roles: a dialer asks for connections, an acceptor is given them. *Open is not ready*: where the
//! profile has a greeting, traffic waits for it.
//!
//! ```text
//!            start          link_up            hello (or at once)
//!   Idle ──────────▶ Connecting ─────▶ Handshaking ─────▶ Up ──close──▶ Closing ──▶ Closed
//!                     ▲      │ one deadline over both │    │               │ 2 s
//!                     │      ▼                        ▼    ▼               ▼
//!                  Waiting ◀───────── by the class of the reason ───────▶ Failed: replaced, or given up
//!                     ├─ after 120 s without a connection: Suspended, which waits at the ceiling
//!                     └─ refused: blocked, which waits ever longer, and as long as `give_up` says
//!
//!   acceptor:  Idle ──accept──▶ (Handshaking ▶) Up;   a second accept while Up: the newcomer waits while the holder is
//!              probed for 2 s, then one of them is closed
//! ```
//!
//! Invariants: at most one current connection and one candidate; every connection has its own [`LinkId`], larger than all
//! before; a result for any other id changes nothing; every state but `Idle`, `Up`, `Failed`, `Closed` has a timer.
//! Field bugs: a hung handshake that never fails; 4xx taken as fatal; back-off reset by a connection that dies at once;
//! the network is back but the next try is a minute away; a zombie holds the only slot; a replaced connection's end
//! tears down its replacement; giving up without a word, or after two refusals by a proxy that was not ready yet.
//! Rules: B3, B7, B8, B10, F5, L8, L9, L10, L14, P1, P5, R7, R8, S7, the close and refusal table.

use crate::backoff::{Backoff, BackoffConfig};
use crate::ids::LinkId;
use crate::reason::{CloseRule, Reason, RetryClass, RetryHint, retry_class};
use crate::rng::SplitMix64;
use crate::time::{Instant, Timer, Timers, Wake};
use core::time::Duration;

/// Who makes the connection; who sends messages over it is another question.
///
/// ```
/// # use bowline::Role;
/// assert_ne!(Role::Dialer, Role::Acceptor);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// We dial, and dial again.
    Dialer,
    /// We are dialled by one peer at a time.
    Acceptor,
}

/// When an open connection may carry messages.
///
/// ```
/// # use bowline::{LinkConfig, Ready};
/// assert_eq!(LinkConfig::DEFAULT.ready, Ready::Open);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ready {
    /// As soon as it is open (Gonka).
    Open,
    /// After a greeting, which the profile recognises; it has the rest of the attempt's deadline (L9).
    Hello,
}

/// What becomes of a second connection of the same peer, where we are dialled (rule U2).
///
/// ```
/// # use bowline::{LinkConfig, Newcomer};
/// assert_eq!(LinkConfig::DEFAULT.newcomer, Newcomer::Probes);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Newcomer {
    /// It waits while the holder of the place is probed, and gets the place only if that one is dead (Gonka).
    Probes,
    /// It gets the place at once; the old connection is told so with 4003 (R8).
    Replaces,
    /// It is refused as long as there is a connection; the holder of the place is probed, so that a dead one goes.
    IsRefused,
}

/// When a refused path is given up, for an application that wants an end (rule B10): the session fails then, whether or not
/// HTTP carries. Refusals alone count ([`RetryClass::Refused`], and connections that are of no use, rule F5), from the first
/// one that no useful frame has followed; an outage without a refusal is waited out. An application that wants the end at
/// once, after a certain code or status, has a row of its own with [`RetryClass::Terminal`].
///
/// ```
/// use bowline::{GiveUp, LinkConfig};
/// use core::time::Duration;
/// assert_eq!(LinkConfig::DEFAULT.give_up, GiveUp::Never);
/// let patient = LinkConfig { give_up: GiveUp::After(Duration::from_secs(600)), ..LinkConfig::DEFAULT };
/// # let _ = patient;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum GiveUp {
    /// Never: the path is tried ever more slowly for as long as the session lives.
    Never,
    /// This long after the first refusal; an attempt under way then is waited for.
    After(Duration),
    /// With this refusal in a row.
    Refusals(u32),
}

/// The close code of a connection that another one of the same peer replaced; its owner must not come back (R8).
pub const REPLACED: u16 = 4003;

/// The limits of a connection's life.
///
/// ```
/// use bowline::LinkConfig;
/// use core::time::Duration;
/// assert_eq!(LinkConfig::DEFAULT.attempt, Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LinkConfig {
    /// Default [`Role::Dialer`].
    pub role: Role,
    /// Default [`Ready::Open`].
    pub ready: Ready,
    /// One deadline over the whole attempt: name look-up, TCP, TLS, upgrade, greeting. Default 10 s (B7, L9).
    pub attempt: Duration,
    /// Default [`Newcomer::Probes`].
    pub newcomer: Newcomer,
    /// How long the close handshake may take. Default 2 s (L8).
    pub closing: Duration,
    /// The code with which [`Link::close`] ends. Default 1000; a hub says 1012, never 1000 (U9).
    pub farewell: u16,
    /// How long the holder of the only place may take to answer when a newcomer knocks. Default 2 s.
    pub knock: Duration,
    /// A connection must have lived this long, and longer than the last delay, to clear the failures. Default 5 s: three
    /// projects arrived at it independently (B3).
    pub stable: Duration,
    /// Time without a connection after which the outage counts as a long one. Default 120 s (Ably; B8).
    pub suspend: Duration,
    /// The ceiling of the delays while the path is blocked: refused by the peer, or by something on the way. Default 10 min
    /// (F5, P1).
    pub blocked: Duration,
    /// When a refused path is given up. Default never (B10).
    pub give_up: GiveUp,
    /// The delays between attempts.
    pub backoff: BackoffConfig,
    /// How many connections in a row that open and die before a useful frame block the path. From 1, default 3 (F5).
    pub short_lives: u8,
    /// How long a write may stand still before the connection is dropped. At least 1 µs, default 5 s.
    pub write_timeout: Duration,
    /// How many frames that are not understood, with no useful one between, end the connection with 1002. From 1, default
    /// 16: bad input costs the peer, not us.
    pub malformed_limit: u8,
    /// Rows of the close and refusal table that differ from [`STANDARD`](crate::STANDARD). Default none.
    pub rows: &'static [CloseRule],
}

impl LinkConfig {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self {
        role: Role::Dialer,
        ready: Ready::Open,
        attempt: Duration::from_secs(10),
        newcomer: Newcomer::Probes,
        closing: Duration::from_secs(2),
        farewell: 1000,
        knock: Duration::from_secs(2),
        stable: Duration::from_secs(5),
        suspend: Duration::from_secs(120),
        blocked: Duration::from_secs(600),
        give_up: GiveUp::Never,
        backoff: BackoffConfig::DEFAULT,
        short_lives: 3,
        write_timeout: Duration::from_secs(5),
        malformed_limit: 16,
        rows: &[],
    };
}

/// What [`Link::accept`] decided about a newcomer.
///
/// ```
/// # use bowline::{Accepted, LinkId};
/// assert_ne!(Accepted::Refused, Accepted::Open(LinkId::NONE));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Accepted {
    /// It has the place, under this id.
    Open(LinkId),
    /// The place is taken; the holder is being probed. The newcomer waits under this id and must not be read yet.
    Probing(LinkId),
    /// Close it: another newcomer waits already, or the session is closing.
    Refused,
}

/// How a connection is to be ended.
///
/// ```
/// # use bowline::Ending;
/// assert_ne!(Ending::Drop, Ending::Code(1000));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Ending {
    /// Send a close frame with this code, wait for the peer's until told otherwise.
    Code(u16),
    /// Drop the transport now; nothing more needs to be said or awaited.
    Drop,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Idle,
    Waiting { retry: Timer },
    Connecting { link: LinkId, attempt: Timer, asked: bool },
    Handshaking { link: LinkId, attempt: Timer },
    Up { link: LinkId, stable: Timer, useful: bool },
    Closing { link: LinkId, limit: Timer, reason: Reason },
    Failed,
    Closed,
}

/// Where the connection stands, for people and logs.
///
/// ```
/// # use bowline::LinkState;
/// assert_eq!(format!("{:?}", LinkState::Up), "Up");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LinkState {
    /// Not started, or an acceptor without a peer.
    Idle,
    /// Between two attempts.
    Waiting,
    /// An attempt is under way.
    Connecting,
    /// Open, not ready.
    Handshaking,
    /// Ready.
    Up,
    /// The close handshake.
    Closing,
    /// Ended by a replacement, or given up; only the application can start it again.
    Failed,
    /// Ended by us.
    Closed,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Candidate {
    link: LinkId,
    verdict: Timer,
}

/// One peer's connection, attempt after attempt.
///
/// ```
/// use bowline::{Reason, RetryHint, Instant, Link, LinkConfig, LinkState, SplitMix64, Timers};
/// let mut rng = SplitMix64::new(1);
/// let mut link = Link::new(LinkConfig::DEFAULT);
/// link.start(Instant::ZERO);
/// let first = link.take_connect().unwrap();
/// assert!(link.on_down(Instant::ZERO, first, Reason::PortClosed, RetryHint::NONE, &mut rng));
/// let (retry, _) = link.earliest().unwrap();
/// link.tick(retry, &mut rng);
/// let second = link.take_connect().unwrap();
/// assert!(!link.on_up(retry, first), "too late: drop that socket");
/// assert!(link.on_up(retry, second));
/// assert_eq!(link.state(), LinkState::Up);
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Link {
    config: LinkConfig,
    phase: Phase,
    backoff: Backoff,
    last: LinkId,
    candidate: Option<Candidate>,
    /// The newest connection to end and how; it stands for all older ones too.
    ending: Option<(LinkId, Ending)>,
    refused: Option<LinkId>,
    ended: Option<(LinkId, Reason)>,
    outage: Timer,
    suspended: bool,
    /// The next attempt follows the end of this connection at once: the application said so while it closes (P5).
    urged: bool,
    /// Since when the path is blocked, how many refusals that were, and when it is given up.
    blocked: Option<Instant>,
    refusals: u32,
    give_up: Timer,
    short_lives: u8,
}

impl Link {
    /// A link that waits for [`start`](Self::start), or, as acceptor, for [`accept`](Self::accept).
    #[must_use]
    pub const fn new(config: LinkConfig) -> Self {
        Self {
            config,
            phase: Phase::Idle,
            backoff: Backoff::new(config.backoff),
            last: LinkId::NONE,
            candidate: None,
            ending: None,
            refused: None,
            ended: None,
            outage: Timer::disarmed(),
            suspended: false,
            urged: false,
            blocked: None,
            refusals: 0,
            give_up: Timer::disarmed(),
            short_lives: 0,
        }
    }

    /// Begins to dial, or begins anew after a failure: the application's word clears what was learned (P5). An acceptor only
    /// begins to count its outage.
    pub fn start(&mut self, now: Instant) {
        match self.phase {
            Phase::Idle | Phase::Failed => {
                self.forget_failures(now);
                self.outage_begins(now);
                if self.config.role == Role::Dialer {
                    self.connect(now);
                } else {
                    self.phase = Phase::Idle;
                }
            }
            Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Handshaking { .. }
            | Phase::Up { .. }
            | Phase::Closing { .. }
            | Phase::Closed => {}
        }
    }

    /// A peer has connected to us.
    pub fn accept(&mut self, now: Instant) -> Accepted {
        if self.config.role == Role::Dialer || self.candidate.is_some() || self.refused.is_some() {
            return Accepted::Refused;
        }
        match self.phase {
            Phase::Idle => {
                let link = self.generation();
                self.opened(now, link);
                Accepted::Open(link)
            }
            // Whoever is being closed for a fault of his own, or holds the place, makes room.
            Phase::Up { link: old, .. }
            | Phase::Handshaking { link: old, .. }
            | Phase::Closing { link: old, reason: Reason::Violation | Reason::Mute, .. }
                if self.config.newcomer == Newcomer::Replaces =>
            {
                self.ended = Some((old, Reason::Replaced));
                self.ending = Some((old, Ending::Code(REPLACED)));
                let link = self.generation();
                self.opened(now, link);
                Accepted::Open(link)
            }
            Phase::Up { .. } | Phase::Handshaking { .. } if self.config.newcomer == Newcomer::Probes => {
                let link = self.generation();
                let mut verdict = Timer::disarmed();
                verdict.arm(now.after(self.config.knock));
                self.candidate = Some(Candidate { link, verdict });
                Accepted::Probing(link)
            }
            Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Handshaking { .. }
            | Phase::Up { .. }
            | Phase::Closing { .. }
            | Phase::Failed
            | Phase::Closed => Accepted::Refused,
        }
    }

    /// The transport that was asked for is open; false: it is not wanted any more, drop it.
    #[must_use]
    pub fn on_up(&mut self, now: Instant, link: LinkId) -> bool {
        match &self.phase {
            Phase::Connecting { link: current, .. } if *current == link => {
                self.opened(now, link);
                true
            }
            Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Handshaking { .. }
            | Phase::Up { .. }
            | Phase::Closing { .. }
            | Phase::Failed
            | Phase::Closed => false,
        }
    }

    /// The greeting was understood.
    pub fn on_ready(&mut self, now: Instant) {
        if let Phase::Handshaking { link, .. } = self.phase {
            self.up(now, link);
        }
    }

    /// A connection or an attempt ended; false: it was none of ours any more.
    #[must_use]
    pub fn on_down(
        &mut self,
        now: Instant,
        link: LinkId,
        reason: Reason,
        hint: RetryHint,
        rng: &mut SplitMix64,
    ) -> bool {
        if self.candidate.as_ref().is_some_and(|candidate| candidate.link == link) {
            self.candidate = None;
            return true;
        }
        if self.held() != Some(link) {
            return false;
        }
        // Only our own `close` ends for good, whatever the adapter calls the end of this connection.
        let reason = if reason == Reason::Ours { Reason::Closed(1006) } else { reason };
        let reason = if let Phase::Closing { reason, .. } = self.phase { reason } else { reason };
        self.lost(now, link, reason, hint, rng);
        true
    }

    /// Something arrived on the current connection: whoever knocks is refused.
    pub const fn on_heard(&mut self) {
        if let Some(candidate) = self.candidate.take() {
            self.refused = Some(candidate.link);
        }
    }

    /// A useful frame arrived: data, an acknowledgement, the answer to a ping (B3, F5).
    pub fn on_useful(&mut self) {
        if let Phase::Up { useful, stable, .. } = &mut self.phase {
            *useful = true;
            let proven = !stable.is_armed();
            self.unblock();
            if proven {
                self.backoff.reset();
            }
        }
    }

    /// Ends the current connection for a reason of our own, then goes on by the class of `reason`. A broken protocol is
    /// told to the peer with 1002, and a peer whose program is dead with the farewell's code: its library closes, and the
    /// next attempt waits for that, because the end of an old connection may undo the new one at the peer (L10). A dead or
    /// stalled transport is not spoken to: closing it can hang for minutes.
    pub fn abort(&mut self, now: Instant, reason: Reason, rng: &mut SplitMix64) {
        let Some(link) = self.held() else { return };
        if let Phase::Closing { reason, .. } = self.phase {
            self.ending = Some((link, Ending::Drop));
            self.lost(now, link, reason, RetryHint::NONE, rng);
        } else if reason == Reason::Violation {
            self.close_with(now, link, 1002, reason);
        } else if reason == Reason::Mute {
            self.close_with(now, link, self.config.farewell, reason);
        } else {
            self.ending = Some((link, Ending::Drop));
            self.lost(now, link, reason, RetryHint::NONE, rng);
        }
    }

    /// Ends for good: a close frame with the farewell's code if there is a connection, at most the close limit.
    pub fn close(&mut self, now: Instant) {
        if let Some(candidate) = self.candidate.take() {
            self.refused = Some(candidate.link);
        }
        self.outage.disarm();
        self.suspended = false;
        self.unblock();
        match self.phase {
            Phase::Up { link, .. } => self.close_with(now, link, self.config.farewell, Reason::Ours),
            Phase::Connecting { link, .. } | Phase::Handshaking { link, .. } => {
                self.ending = Some((link, Ending::Drop));
                self.phase = Phase::Closed;
            }
            Phase::Closing { ref mut reason, .. } => *reason = Reason::Ours,
            Phase::Idle | Phase::Waiting { .. } | Phase::Failed => self.phase = Phase::Closed,
            Phase::Closed => {}
        }
    }

    /// Try now: what was learned is void, and waiting ends, also after a failure (P5).
    pub fn retry_now(&mut self, now: Instant) {
        self.forget_failures(now);
        match self.phase {
            Phase::Waiting { .. } | Phase::Failed => self.connect(now),
            // The next attempt waits for this connection's end, and for nothing else.
            Phase::Closing { .. } => self.urged = self.config.role == Role::Dialer,
            Phase::Idle | Phase::Connecting { .. } | Phase::Handshaking { .. } | Phase::Up { .. } | Phase::Closed => {}
        }
    }

    /// The process stood still: no limit may be passed by that gap, so each gets a grace (L5).
    pub fn stalled(&mut self, now: Instant, grace: Duration) {
        let until = now.after(grace);
        let extend = |timer: &mut Timer| {
            if timer.at().is_some_and(|at| at < until) {
                timer.arm(until);
            }
        };
        match &mut self.phase {
            Phase::Connecting { attempt, .. } | Phase::Handshaking { attempt, .. } => extend(attempt),
            Phase::Closing { limit, .. } => extend(limit),
            Phase::Idle | Phase::Waiting { .. } | Phase::Up { .. } | Phase::Failed | Phase::Closed => {}
        }
        if let Some(candidate) = &mut self.candidate {
            extend(&mut candidate.verdict);
        }
        extend(&mut self.outage);
        extend(&mut self.give_up);
    }

    /// The time `unseen` has passed, and `now` does not show it: a waiting attempt is made earlier by it, but a drawn
    /// delay after now at the soonest, or all that were suspended together would dial together (L14).
    pub fn stood_still(&mut self, now: Instant, unseen: Duration, rng: &mut SplitMix64) {
        if let Phase::Waiting { retry } = &mut self.phase
            && let Some(at) = retry.at()
            && !unseen.is_zero()
        {
            let soonest = self.config.backoff.draw(0, RetryHint::NONE, rng);
            retry.arm_by(now.after(at.since(now).saturating_sub(unseen).max(soonest)));
        }
    }

    /// Fires what is due.
    pub fn tick(&mut self, now: Instant, rng: &mut SplitMix64) {
        if self.outage.fire(now) {
            self.suspended = true;
        }
        let knocked_out = self.candidate.as_mut().is_some_and(|candidate| candidate.verdict.fire(now));
        if knocked_out && let Some(link) = self.held() {
            self.ending = Some((link, Ending::Drop));
            self.lost(now, link, Reason::Replaced, RetryHint::NONE, rng);
        }
        let _ = self.give_up.fire(now);
        let gives_up = self.gives_up();
        match &mut self.phase {
            Phase::Waiting { retry } => {
                if gives_up {
                    self.fail();
                } else if retry.fire(now) {
                    self.connect(now);
                }
            }
            Phase::Connecting { link, attempt, .. } | Phase::Handshaking { link, attempt } => {
                let link = *link;
                if attempt.fire(now) {
                    self.ending = Some((link, Ending::Drop));
                    self.lost(now, link, Reason::Timeout, RetryHint::NONE, rng);
                }
            }
            Phase::Up { stable, useful, .. } => {
                if stable.fire(now) && *useful {
                    self.backoff.reset();
                }
            }
            Phase::Closing { link, limit, reason } => {
                let (link, reason) = (*link, *reason);
                if limit.fire(now) {
                    self.ending = Some((link, Ending::Drop));
                    self.lost(now, link, reason, RetryHint::NONE, rng);
                }
            }
            Phase::Idle | Phase::Failed | Phase::Closed => {}
        }
    }

    /// The attempt that the adapter should begin now, once.
    #[must_use]
    pub const fn take_connect(&mut self) -> Option<LinkId> {
        if let Phase::Connecting { link, asked, .. } = &mut self.phase
            && !*asked
        {
            *asked = true;
            return Some(*link);
        }
        None
    }

    /// The connection that the adapter should end now, once, with every older one it still holds.
    #[must_use]
    pub const fn take_ending(&mut self) -> Option<(LinkId, Ending)> {
        self.ending.take()
    }

    /// The newcomer that the adapter should turn away now, once, and no other connection with it.
    #[must_use]
    pub const fn take_refused(&mut self) -> Option<LinkId> {
        self.refused.take()
    }

    /// The connection that may carry messages.
    #[must_use]
    pub const fn current(&self) -> Option<LinkId> {
        if let Phase::Up { link, .. } = self.phase { Some(link) } else { None }
    }

    /// The connection whose frames are listened to: the current one, or the one that is greeting.
    #[must_use]
    pub const fn listening(&self) -> Option<LinkId> {
        match self.phase {
            Phase::Up { link, .. } | Phase::Handshaking { link, .. } => Some(link),
            Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Closing { .. }
            | Phase::Failed
            | Phase::Closed => None,
        }
    }

    /// The last connection or attempt that ended, and why.
    #[must_use]
    pub const fn ended(&self) -> Option<(LinkId, Reason)> {
        self.ended
    }

    /// When the next attempt begins, while one is waited for.
    #[must_use]
    pub fn next_attempt(&self) -> Option<Instant> {
        if let Phase::Waiting { retry } = &self.phase { retry.at() } else { None }
    }

    /// Whether a newcomer waits for the verdict about the holder of the place.
    #[must_use]
    pub const fn knocked(&self) -> bool {
        self.candidate.is_some()
    }

    /// Since when the path is blocked: refused by the peer, or by something on the way (F5, B10).
    #[must_use]
    pub const fn blocked_since(&self) -> Option<Instant> {
        self.blocked
    }

    /// Whether there has been no connection for the long-outage limit (B8).
    #[must_use]
    pub const fn suspended(&self) -> bool {
        self.suspended
    }

    /// Whether the last connection was ended for another one of the same name.
    pub(crate) fn replaced(&self) -> bool {
        self.ended.is_some_and(|(_, reason)| retry_class(self.config.rows, reason) == RetryClass::Replaced)
    }

    pub(crate) const fn dials(&self) -> bool {
        matches!(self.config.role, Role::Dialer)
    }

    /// How long a write may stand still.
    pub(crate) const fn write_timeout(&self) -> Duration {
        self.config.write_timeout
    }

    /// How many frames that are not understood end a connection.
    pub(crate) const fn malformed_limit(&self) -> u8 {
        self.config.malformed_limit
    }

    /// How many attempts and connections there have been.
    #[must_use]
    pub const fn attempts(&self) -> u64 {
        self.last.get()
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> LinkState {
        match self.phase {
            Phase::Idle => LinkState::Idle,
            Phase::Waiting { .. } => LinkState::Waiting,
            Phase::Connecting { .. } => LinkState::Connecting,
            Phase::Handshaking { .. } => LinkState::Handshaking,
            Phase::Up { .. } => LinkState::Up,
            Phase::Closing { .. } => LinkState::Closing,
            Phase::Failed => LinkState::Failed,
            Phase::Closed => LinkState::Closed,
        }
    }

    /// The connection or attempt that exists in any form.
    const fn held(&self) -> Option<LinkId> {
        match self.phase {
            Phase::Connecting { link, .. }
            | Phase::Handshaking { link, .. }
            | Phase::Up { link, .. }
            | Phase::Closing { link, .. } => Some(link),
            Phase::Idle | Phase::Waiting { .. } | Phase::Failed | Phase::Closed => None,
        }
    }

    const fn generation(&mut self) -> LinkId {
        self.last = self.last.next();
        self.last
    }

    fn connect(&mut self, now: Instant) {
        let link = self.generation();
        let mut attempt = Timer::disarmed();
        attempt.arm(now.after(self.config.attempt));
        self.phase = Phase::Connecting { link, attempt, asked: false };
    }

    fn opened(&mut self, now: Instant, link: LinkId) {
        match self.config.ready {
            Ready::Open => self.up(now, link),
            Ready::Hello => {
                let mut attempt = Timer::disarmed();
                let left = match &self.phase {
                    Phase::Connecting { attempt, .. } => attempt.at(),
                    Phase::Idle
                    | Phase::Waiting { .. }
                    | Phase::Handshaking { .. }
                    | Phase::Up { .. }
                    | Phase::Closing { .. }
                    | Phase::Failed
                    | Phase::Closed => None,
                };
                attempt.arm(left.unwrap_or(now.after(self.config.attempt)));
                self.phase = Phase::Handshaking { link, attempt };
            }
        }
    }

    fn up(&mut self, now: Instant, link: LinkId) {
        let mut stable = Timer::disarmed();
        // Strictly later, as every deadline (T4).
        stable.arm(now.after(self.config.stable.max(self.backoff.last()).max(Duration::from_millis(1))));
        self.phase = Phase::Up { link, stable, useful: false };
        self.outage.disarm();
        self.suspended = false;
    }

    fn close_with(&mut self, now: Instant, link: LinkId, code: u16, reason: Reason) {
        let mut limit = Timer::disarmed();
        limit.arm(now.after(self.config.closing));
        self.ending = Some((link, Ending::Code(code)));
        self.phase = Phase::Closing { link, limit, reason };
    }

    fn lost(&mut self, now: Instant, link: LinkId, reason: Reason, hint: RetryHint, rng: &mut SplitMix64) {
        self.ended = Some((link, reason));
        if reason == Reason::Ours {
            self.phase = Phase::Closed;
            return;
        }
        self.outage_begins(now);
        let urged = core::mem::take(&mut self.urged);
        let class = retry_class(self.config.rows, reason);
        let opened = matches!(self.phase, Phase::Handshaking { .. } | Phase::Up { .. });
        let earned = matches!(&self.phase, Phase::Up { stable, useful, .. } if *useful || !stable.is_armed());
        // Who is told to come back is not refused, however often (U11): the back-off grows all the same.
        let passes = matches!(class, RetryClass::Wait | RetryClass::Spread | RetryClass::Slow);
        let short = opened && !earned && !passes;
        self.short_lives = self.short_lives.saturating_add(u8::from(short));
        if self.config.role == Role::Acceptor {
            self.phase = Phase::Idle;
            if let Some(candidate) = self.candidate.take() {
                self.opened(now, candidate.link);
            }
            return;
        }
        // One message is to blame (F4); but a peer that ends every connection so is not asked once a second for ever.
        let class = if class == RetryClass::PerMessage && !earned { RetryClass::Retry } else { class };
        if class == RetryClass::Refused || (short && self.short_lives >= self.config.short_lives) {
            self.refused(now);
        }
        if self.gives_up() {
            return self.fail();
        }
        let delay = match class {
            _ if urged => Duration::ZERO,
            RetryClass::Terminal | RetryClass::Replaced => return self.fail(),
            RetryClass::Wait | RetryClass::PerMessage => self.backoff.wait(hint, rng),
            RetryClass::Retry | RetryClass::Spread | RetryClass::Slow | RetryClass::Refused => {
                if class == RetryClass::Slow {
                    self.backoff.penalize(2);
                }
                if self.blocked.is_some() {
                    self.backoff.next_up_to(self.config.blocked, hint, rng)
                } else if self.suspended {
                    self.backoff.slowest(hint, rng)
                } else {
                    self.backoff.next(hint, rng)
                }
            }
        };
        let mut retry = Timer::disarmed();
        // Strictly later, whatever the configuration says: an attempt that fails at once must not spin (T4).
        retry.arm(now.after(delay.max(Duration::from_millis(1))));
        self.phase = Phase::Waiting { retry };
    }

    /// Counts a refusal; the first one blocks the path.
    fn refused(&mut self, now: Instant) {
        self.refusals = self.refusals.saturating_add(1);
        if self.blocked.is_none() {
            self.blocked = Some(now);
            if let GiveUp::After(span) = self.config.give_up {
                self.give_up.arm(now.after(span));
            }
        }
    }

    /// Whether the path is blocked and not waited for any longer (B10).
    fn gives_up(&self) -> bool {
        match self.config.give_up {
            GiveUp::Never => false,
            GiveUp::After(_) => self.blocked.is_some() && !self.give_up.is_armed(),
            GiveUp::Refusals(most) => self.refusals >= most,
        }
    }

    /// Ends for as long as the application says nothing. What it was refused with can still be read.
    const fn fail(&mut self) {
        self.give_up.disarm();
        self.outage.disarm();
        self.phase = Phase::Failed;
    }

    const fn unblock(&mut self) {
        self.blocked = None;
        self.refusals = 0;
        self.give_up.disarm();
        self.short_lives = 0;
    }

    fn outage_begins(&mut self, now: Instant) {
        if !self.outage.is_armed() && !self.suspended {
            self.outage.arm(now.after(self.config.suspend));
        }
    }

    fn forget_failures(&mut self, now: Instant) {
        if self.suspended {
            self.suspended = false;
            self.outage_begins(now);
        }
        self.backoff.reset();
        self.unblock();
    }
}

impl Timers for Link {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        match &self.phase {
            Phase::Waiting { retry } => see(Wake::Retry, retry),
            Phase::Connecting { attempt, .. } | Phase::Handshaking { attempt, .. } => see(Wake::Attempt, attempt),
            Phase::Up { stable, .. } => see(Wake::Stable, stable),
            Phase::Closing { limit, .. } => see(Wake::Closing, limit),
            Phase::Idle | Phase::Failed | Phase::Closed => {}
        }
        if let Some(candidate) = &self.candidate {
            see(Wake::Probe, &candidate.verdict);
        }
        see(Wake::Suspend, &self.outage);
        see(Wake::GiveUp, &self.give_up);
    }
}

#[cfg(test)]
mod tests;
