//! By which path: the WebSocket, or HTTP.
//!
//! ```text
//!                         no connection for the grace, or two unanswered waits in a row
//!            ┌───────────────────────────────────────────────────────────────────┐
//!            │                                                                   ▼
//!   traffic on WebSocket                                                  traffic on HTTP
//!            ▲                                                                   │
//!            └──────── connection up, heard, stable 2 s, and 10 s on HTTP ───────┘
//!                      (the first connection, or HTTP failing: at once)
//!
//!   HTTP:  good ──a request of any kind fails──▶ waits its back-off, one request at a time ──┐
//!            ▲                       └── refused: blocked, up to the blocked ceiling           │
//!            └───────── the peer has answered a request of each kind that failed ─────────────┘
//! ```
//!
//! Traffic stays on HTTP while the WebSocket is probed; a flap doubles the stability asked for, to five minutes. Because
//! ids are shared, the switch itself can neither lose nor double anything (P6).
//!
//! Invariants: without HTTP the path is the WebSocket; a path is never changed by time alone without a timer that says so;
//! the hedge budget never goes below zero; of what is not the first try of a message, no more leaves than the bucket holds.
//! Field bugs: one blip and the session stays on HTTP for good; fallback entered on the first error; a WebSocket that opens
//! and dies counted as good; a mute peer that costs the full wait for every message; greetings and polls outside of every
//! back-off; one kind of request that succeeds and has another, which is refused, asked again at once.
//! Rules: F0, F1, F3, F6, F7, F8, H9, P1–P6, B10, B11, the outcomes' effect on the path.

use crate::backoff::{Backoff, BackoffConfig, LONGEST_HINT};
use crate::outbox::Path;
use crate::reason::{HttpClass, HttpOutcome, RetryClass, RetryHint, retry_class};
use crate::rng::SplitMix64;
use crate::time::{Instant, Timer, Timers, Wake};
use core::time::Duration;

/// Whether a message that stays unanswered on a live connection is sent by HTTP besides.
///
/// ```
/// # use bowline::{Hedge, RouteConfig};
/// assert_eq!(RouteConfig::DEFAULT.hedge, Hedge::Budget);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Hedge {
    /// As long as the budget lasts: ten at first, a tenth back per success, none below half (gRPC's throttle; F3).
    Budget,
    /// Always, as Gonka's protocol requires; the budget is only reported (F6).
    Always,
}

/// How long one request may take (H10): the adapter measures it, as bytes move.
///
/// ```
/// use bowline::{HttpTimeouts, RouteConfig};
/// let RouteConfig { progress, thinking, .. } = RouteConfig::DEFAULT;
/// assert!(thinking > HttpTimeouts { progress, thinking }.progress, "completing a message takes longer than moving a byte");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HttpTimeouts {
    /// For connecting, and between one byte that leaves and the next.
    pub progress: Duration,
    /// From the last byte of the request to the head of the answer.
    pub thinking: Duration,
}

/// The limits of the route.
///
/// ```
/// # use bowline::RouteConfig;
/// assert!(!RouteConfig::DEFAULT.http, "there is none unless an address is known");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RouteConfig {
    /// Whether there is an HTTP path. Default false.
    pub http: bool,
    /// How long messages wait for a connection before they go by HTTP. Default 2 s; Gonka 0 (F1).
    pub grace: Duration,
    /// How long a connection must be up before traffic returns to it. Default 2 s (P3).
    pub stable: Duration,
    /// The longest that `stable` grows to by flapping. Default 5 min (P3).
    pub stable_most: Duration,
    /// A return followed by another loss within this is a flap. Default 60 s (P3).
    pub flap: Duration,
    /// Least stay on HTTP, unless it fails. Default 10 s (P4).
    pub stay: Duration,
    /// Requests under way at once. Default 4; one while HTTP fails, and a message's first one beside a repetition.
    pub posts: usize,
    /// Default [`Hedge::Budget`].
    pub hedge: Hedge,
    /// How long a request may stand still: for connecting, and then between one byte that leaves and the next. Default 10 s
    /// (H10).
    pub progress: Duration,
    /// How long the peer may think: from the last byte of a request to the head of its answer. Default 30 s; Gonka 120 s
    /// (H10).
    pub thinking: Duration,
    /// Delays between tries of a failing HTTP path. Default 100 ms + U(0, min(30 s, 1 s · 2ⁿ)).
    pub backoff: BackoffConfig,
    /// The ceiling of these delays while the path is refused. Default 10 min (B10).
    pub blocked: Duration,
}

impl RouteConfig {
    /// The documented default of every field.
    pub const DEFAULT: Self = Self {
        http: false,
        grace: Duration::from_secs(2),
        stable: Duration::from_secs(2),
        stable_most: Duration::from_secs(300),
        flap: Duration::from_secs(60),
        stay: Duration::from_secs(10),
        posts: 4,
        hedge: Hedge::Budget,
        progress: Duration::from_secs(10),
        thinking: Duration::from_secs(30),
        backoff: BackoffConfig::DEFAULT,
        blocked: Duration::from_secs(600),
    };
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Side {
    Down,
    /// Up, but traffic is elsewhere; heard: the peer has answered on it.
    Probing {
        heard: bool,
    },
    Good,
}

/// In tenths: ten hedges, a tenth back per success, none below half.
const BUDGET: u8 = 100;
const HEDGE_COST: u8 = 10;
const HEDGE_FLOOR: u8 = 50;

/// An empty budget allows one hedge so much later.
const REFILL: Duration = Duration::from_secs(10);

/// So many waits in a row without an answer on a connection, and traffic goes elsewhere (P3).
const SOFT_FAILURES: u8 = 2;

/// The most repetitions that may leave at once: two rounds of the requests that may be under way together, so that an
/// answer that was lost with each of them is asked for again without delay.
const REPEATS: u32 = 8;

/// And one more each second: as often as one message by itself is tried at most. So a session whose messages all fail makes
/// no more requests than a session with one such message (H9).
const REPEAT_EVERY: Duration = Duration::from_secs(1);

/// What a request is for. That one kind succeeds says nothing about another one, which may go to another URL (B11).
///
/// ```
/// # use bowline::RequestKind;
/// assert_ne!(RequestKind::Message, RequestKind::Poll);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RequestKind {
    /// It carries a message.
    Message,
    /// It greets a native peer.
    Greeting,
    /// It asks a native peer for what there is.
    Poll,
}

impl RequestKind {
    const fn bit(self) -> u8 {
        match self {
            Self::Message => 1,
            Self::Greeting => 2,
            Self::Poll => 4,
        }
    }
}

/// Decides the path for everything that is sent.
///
/// ```
/// use bowline::{Instant, Path, Route, RouteConfig, SplitMix64, Timers};
/// use core::time::Duration;
/// let mut route = Route::new(RouteConfig { http: true, ..RouteConfig::DEFAULT });
/// route.start(Instant::ZERO);
/// assert_eq!(route.path(), Path::WebSocket);
/// let (grace, _) = route.earliest().unwrap();
/// route.tick(grace);
/// assert_eq!(route.path(), Path::Http, "no connection came within the grace");
/// route.link_up(grace);
/// assert_eq!(route.path(), Path::WebSocket, "the first connection wins at once");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    config: RouteConfig,
    path: Path,
    side: Side,
    /// Traffic has been on the WebSocket: from now on a return must be earned.
    used: bool,
    entered: Instant,
    grace: Timer,
    promote: Timer,
    flaps: u8,
    soft: u8,
    /// Traffic left this connection because it acknowledged nothing, and it has acknowledged nothing since.
    silent: bool,
    /// One message may be tried on it.
    trial: bool,
    budget: u8,
    /// A message waits for a hedge that the budget does not allow.
    refill: Timer,
    backoff: Backoff,
    retry: Timer,
    /// The kinds of requests that failed and have not succeeded since, a bit each.
    failing: u8,
    /// The peer has answered a request since traffic went to HTTP, and none has failed since (F8).
    carries: bool,
    /// Since when HTTP is refused.
    blocked: Option<Instant>,
    /// When the bucket of repetitions is full again; and, while it is empty, when it holds the next one.
    repeats_full: Instant,
    repeat: Timer,
}

impl Route {
    /// A route that prefers the WebSocket; [`start`](Self::start) begins the grace.
    #[must_use]
    pub const fn new(config: RouteConfig) -> Self {
        Self {
            config,
            path: Path::WebSocket,
            side: Side::Down,
            used: false,
            entered: Instant::ZERO,
            grace: Timer::disarmed(),
            promote: Timer::disarmed(),
            flaps: 0,
            soft: 0,
            silent: false,
            trial: false,
            budget: BUDGET,
            refill: Timer::disarmed(),
            backoff: Backoff::new(config.backoff),
            retry: Timer::disarmed(),
            failing: 0,
            carries: false,
            blocked: None,
            repeats_full: Instant::ZERO,
            repeat: Timer::disarmed(),
        }
    }

    /// There is an HTTP path from now on, or there is none any more.
    pub fn set_http(&mut self, now: Instant, yes: bool) {
        if self.config.http == yes {
            return;
        }
        self.config.http = yes;
        if yes {
            // Perhaps under another URL, of which nothing is known.
            self.forget_failures();
            self.start(now);
        } else {
            self.grace.disarm();
            self.refill.disarm();
            self.path = Path::WebSocket;
            if self.side != Side::Down {
                self.promoted(now);
            }
        }
    }

    /// There is no connection yet; the grace begins.
    pub fn start(&mut self, now: Instant) {
        if self.side == Side::Down {
            self.begin_grace(now);
        }
    }

    /// A connection is ready. True: traffic is not on it, so it should be probed.
    pub fn link_up(&mut self, now: Instant) -> bool {
        self.grace.disarm();
        self.soft = 0;
        (self.silent, self.trial) = (false, false);
        if self.path == Path::WebSocket || !self.used || self.http_waits() {
            self.promoted(now);
            return false;
        }
        self.begin_probing(now);
        true
    }

    /// The connection ended.
    pub fn link_down(&mut self, now: Instant) {
        self.promote.disarm();
        let was_good = self.side == Side::Good;
        self.side = Side::Down;
        self.trial = false;
        if was_good {
            self.count_flap(now);
            self.begin_grace(now);
        }
    }

    /// Something came in on the connection.
    pub fn heard(&mut self, now: Instant) {
        if let Side::Probing { heard } = &mut self.side {
            *heard = true;
            if !self.promote.is_armed() {
                self.proven(now);
            }
        }
    }

    /// An acknowledgement came in on the connection: it is useful.
    pub fn answered(&mut self, now: Instant) {
        self.spoken(now);
        self.budget = self.budget.saturating_add(1).min(BUDGET);
    }

    /// An acknowledgement of anything came in, be it of a message that has ended: the peer's program is at work.
    pub fn spoken(&mut self, now: Instant) {
        self.soft = 0;
        self.trial = false;
        if core::mem::take(&mut self.silent)
            && let Side::Probing { heard } = self.side
        {
            self.begin_probing(now);
            self.side = Side::Probing { heard };
        }
    }

    /// A wait on the live connection passed without an acknowledgement: a soft failure. True: traffic goes elsewhere now.
    #[must_use]
    pub fn unanswered(&mut self, now: Instant) -> bool {
        self.soft = self.soft.saturating_add(1);
        let leaves = self.soft >= SOFT_FAILURES && self.config.http && !self.http_waits() && self.side == Side::Good;
        if leaves {
            self.count_flap(now);
            self.demoted(now);
            self.silent = true;
            self.begin_probing(now);
        }
        leaves
    }

    /// A request ended. It shows that the path is good where the peer has answered it, and only of requests of its kind; a
    /// go-between's answer shows nothing. What delays one message alone is the outbox's business; a greeting or a poll is no
    /// message, so everything but a success is held against the path (B11).
    pub fn posted(&mut self, now: Instant, kind: RequestKind, outcome: HttpOutcome, rng: &mut SplitMix64) {
        let class = outcome.class();
        let message = kind == RequestKind::Message;
        if class == HttpClass::Delivered || (message && class != HttpClass::DelayPath) {
            if message && class == HttpClass::Delivered {
                self.budget = self.budget.saturating_add(1).min(BUDGET);
            }
            // The answer to a request that left before the path failed does not cut its wait short.
            if outcome.by_peer() && !self.http_waits() {
                self.carries = true;
                self.failing &= !kind.bit();
                if self.failing == 0 {
                    self.forget_failures();
                }
            }
            return;
        }
        self.failing |= kind.bit();
        self.carries = false;
        let hint = RetryHint::after(outcome.after());
        let refused = retry_class(&[], outcome.reason()) == RetryClass::Refused;
        if refused {
            self.blocked.get_or_insert(now);
        }
        let delay = if self.http_waits() {
            // Several that were under way together have failed once. The longest wait counts: `Retry-After` is a lower bound.
            hint.after.min(LONGEST_HINT)
        } else if refused {
            self.backoff.next_up_to(self.config.blocked, hint, rng)
        } else {
            self.backoff.next(hint, rng)
        };
        let until = now.after(delay.max(Duration::from_millis(1)));
        self.retry.arm(self.retry.at().map_or(until, |at| at.max(until)));
        if self.path == Path::Http && self.side != Side::Down {
            self.promoted(now);
        }
    }

    /// Something leaves that is not the first try of a message: a message once more, a greeting, a poll after one that failed
    /// (H9).
    pub fn repeats(&mut self, now: Instant) {
        self.repeats_full = self.repeats_full.max(now).after(REPEAT_EVERY);
        let others = REPEAT_EVERY.saturating_mul(REPEATS.saturating_sub(1));
        let next = self.repeats_full.since(now).saturating_sub(others);
        if !next.is_zero() {
            self.repeat.arm(now.after(next));
        }
    }

    /// Try now: what was learned is void (P5).
    pub fn retry_now(&mut self, now: Instant) {
        self.flaps = 0;
        self.forget_failures();
        self.repeats_full = Instant::ZERO;
        self.repeat.disarm();
        if matches!(self.side, Side::Probing { .. }) {
            self.promote.arm_by(now.after(self.config.stable.max(Duration::from_millis(1))));
        }
    }

    /// The process stood still: neither the grace nor the time to be stable has passed before `until` (L5).
    pub fn stalled(&mut self, until: Instant) {
        for timer in [&mut self.grace, &mut self.promote] {
            if timer.at().is_some_and(|at| at < until) {
                timer.arm(until);
            }
        }
    }

    /// The session is over: nothing moves any more.
    pub const fn stop(&mut self) {
        self.side = Side::Down;
        self.trial = false;
        self.grace.disarm();
        self.promote.disarm();
        self.retry.disarm();
        self.repeat.disarm();
        self.refill.disarm();
    }

    /// Fires what is due.
    pub fn tick(&mut self, now: Instant) {
        if self.grace.fire(now) {
            self.demoted(now);
        }
        if self.promote.fire(now) && self.side == (Side::Probing { heard: true }) {
            self.proven(now);
        }
        if self.refill.fire(now) {
            self.budget = self.budget.max(HEDGE_FLOOR.saturating_add(1));
        }
        let _ = (self.retry.fire(now), self.repeat.fire(now));
    }

    /// Takes one hedge out of the budget; false: there is none left, or no HTTP to hedge with. One comes back in time, or a
    /// message that its receiver gave back in silence (S8) would wait for the next connection.
    #[must_use]
    pub fn hedge(&mut self, now: Instant) -> bool {
        if !self.config.http {
            return false;
        }
        let within = self.budget > HEDGE_FLOOR;
        if within {
            self.budget = self.budget.saturating_sub(HEDGE_COST);
        } else if self.config.hedge == Hedge::Budget && !self.refill.is_armed() {
            self.refill.arm(now.after(REFILL));
        }
        within || self.config.hedge == Hedge::Always
    }

    /// Whether messages may leave on the connection now.
    #[must_use]
    pub fn may_frame(&self) -> bool {
        self.side == Side::Good
    }

    /// Whether one message may be tried on a connection that acknowledged nothing.
    #[must_use]
    pub const fn may_try(&self) -> bool {
        self.trial
    }

    /// It was tried; the next one is after the longest time to be stable.
    pub fn tried(&mut self, now: Instant) {
        if core::mem::take(&mut self.trial) {
            self.promote.arm(now.after(self.config.stable_most));
        }
    }

    /// Whether a request may leave now, with so many under way. While HTTP fails there is one at a time, and the first try of
    /// a message beside a repetition: that may be of one which its receiver never answers, and must not hold up the others.
    #[must_use]
    pub fn may_post(&self, underway: usize) -> bool {
        let most = if self.http_failing() { self.config.posts.min(2) } else { self.config.posts };
        self.config.http && !self.http_waits() && underway < most
    }

    /// Whether, of those that may leave, one that is not the first try of a message may, with so many under way (H9, B11).
    #[must_use]
    pub fn may_repeat(&self, underway: usize) -> bool {
        !self.repeat.is_armed() && (underway == 0 || !self.http_failing())
    }

    /// When the next request may leave, while the path waits.
    #[must_use]
    pub fn next_attempt(&self) -> Option<Instant> {
        self.retry.at()
    }

    /// Whether there is an HTTP path at all.
    #[must_use]
    pub const fn has_http(&self) -> bool {
        self.config.http
    }

    /// The delays between tries, of the path and of each message (H7).
    #[must_use]
    pub const fn delays(&self) -> &BackoffConfig {
        &self.config.backoff
    }

    /// How long a request may take (H10).
    #[must_use]
    pub const fn timeouts(&self) -> HttpTimeouts {
        HttpTimeouts { progress: self.config.progress, thinking: self.config.thinking }
    }

    /// Where traffic goes.
    #[must_use]
    pub const fn path(&self) -> Path {
        self.path
    }

    /// Whether the HTTP path is failing at the moment.
    #[must_use]
    pub const fn http_failing(&self) -> bool {
        self.failing != 0
    }

    /// Whether messages go by HTTP and it works (F8): the peer has answered a request since traffic went there, and none has
    /// failed since.
    #[must_use]
    pub const fn http_carries(&self) -> bool {
        self.carries && !self.http_failing() && matches!(self.path, Path::Http)
    }

    /// Since when HTTP is blocked: refused by the peer, or by something on the way (B10).
    #[must_use]
    pub const fn blocked_since(&self) -> Option<Instant> {
        self.blocked
    }

    /// Hedges left in the budget, in tenths (F3).
    #[must_use]
    pub const fn budget(&self) -> u8 {
        self.budget
    }

    fn http_waits(&self) -> bool {
        self.retry.is_armed()
    }

    const fn forget_failures(&mut self) {
        self.backoff.reset();
        self.retry.disarm();
        self.failing = 0;
        self.blocked = None;
    }

    fn begin_grace(&mut self, now: Instant) {
        if !self.config.http || self.path == Path::Http {
            return;
        }
        if self.config.grace.is_zero() {
            self.demoted(now);
        } else {
            // A second start does not prolong it.
            self.grace.arm_by(now.after(self.config.grace));
        }
    }

    fn begin_probing(&mut self, now: Instant) {
        self.side = Side::Probing { heard: false };
        let doublings = u32::from(self.flaps.min(16));
        let grown = self.config.stable.saturating_mul(1_u32 << doublings).min(self.config.stable_most);
        let stable = if self.silent { self.config.stable_most } else { grown };
        let stable = stable.max(Duration::from_millis(1));
        self.promote.arm(now.after(stable).max(self.entered.after(self.config.stay)));
    }

    const fn demoted(&mut self, now: Instant) {
        self.path = Path::Http;
        self.carries = false;
        self.entered = now;
    }

    fn promoted(&mut self, now: Instant) {
        self.promote.disarm();
        self.grace.disarm();
        if self.path == Path::Http || !self.used {
            self.entered = now;
        }
        self.path = Path::WebSocket;
        self.side = Side::Good;
        self.used = true;
        self.soft = 0;
        (self.silent, self.trial) = (false, false);
    }

    /// The connection was heard and is stable.
    fn proven(&mut self, now: Instant) {
        if self.silent {
            self.trial = true;
        } else {
            self.promoted(now);
        }
    }

    fn count_flap(&mut self, now: Instant) {
        if now.since(self.entered) < self.config.flap {
            self.flaps = self.flaps.saturating_add(1);
        } else {
            self.flaps = 0;
        }
    }
}

impl Timers for Route {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        see(Wake::Path, &self.grace);
        see(Wake::Path, &self.promote);
        see(Wake::Http, &self.retry);
        see(Wake::Http, &self.repeat);
        see(Wake::Http, &self.refill);
    }
}

#[cfg(test)]
mod tests;
