//! One session and the one who calls it: when it is woken, how it is drained, and what must hold at every turn.
//!
//! The exact driver wakes a session at its `deadline()` or when something arrives, never otherwise: what a session forgets
//! to announce does not happen (field bug: an event loop that ticks all the time hides missing deadlines). The other styles
//! are everything a driver is allowed to do besides.

use bowline::{
    Answer, Config, Ending, Event, Frame, Head, HeapSession, HttpTimeouts, Input, Instant, LinkId, MessageId, Origin,
    Output, PostId, Reason, Reply, RequestId, RetryHint, Seq, SplitMix64,
};
use core::hash::{Hash, Hasher};
use core::time::Duration;
use std::collections::hash_map::DefaultHasher;

/// An [`Output`] that owns what it says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// [`Output::Close`].
    Close(LinkId, Ending),
    /// [`Output::Refuse`].
    Refuse(LinkId),
    /// [`Output::Connect`].
    Connect(LinkId),
    /// [`Output::Event`].
    Event(Event),
    /// [`Output::Respond`].
    Respond(RequestId, Answer),
    /// [`Frame::Ack`].
    Ack(LinkId, MessageId),
    /// [`Frame::Ping`].
    Ping(LinkId),
    /// [`Output::Probe`].
    Probe(LinkId),
    /// [`Frame::Keepalive`].
    Keepalive(LinkId),
    /// [`Frame::Data`]: number, id and payload.
    Data(LinkId, Seq, MessageId, u32),
    /// [`Output::Post`]: id, payload and how long it may take.
    Post(PostId, MessageId, u32, HttpTimeouts),
}

impl From<Output<'_, u32>> for Effect {
    fn from(output: Output<'_, u32>) -> Self {
        match output {
            Output::Close { link, ending } => Self::Close(link, ending),
            Output::Refuse { link } => Self::Refuse(link),
            Output::Connect { link } => Self::Connect(link),
            Output::Event(event) => Self::Event(event),
            Output::Respond { request, answer } => Self::Respond(request, answer),
            Output::Frame { link, frame: Frame::Ack { id } } => Self::Ack(link, id),
            Output::Probe { link } => Self::Probe(link),
            Output::Frame { link, frame: Frame::Ping } => Self::Ping(link),
            Output::Frame { link, frame: Frame::Keepalive } => Self::Keepalive(link),
            Output::Frame { link, frame: Frame::Data { seq, id, payload, .. } } => Self::Data(link, seq, id, *payload),
            Output::Post { post, id, payload, timeouts } => Self::Post(post, id, *payload, timeouts),
            output => panic!("only a native session says {output:?}"),
        }
    }
}

/// How a driver goes about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Woken at the deadline, drained to the end.
    Exact,
    /// Woken every millisecond besides.
    Dense,
    /// Woken at random besides, every tick doubled (rule 4).
    Spurious,
    /// As `Exact`, but polled a few times only, then ticked and polled again (rule 3).
    Sips,
    /// Up to 50 ms late with every wake-up, and up to 50 ms late with the rest of what it drains (rule 3).
    Late,
}

/// One session under one style.
#[derive(Clone, Debug)]
pub struct Driver {
    session: HeapSession<u32>,
    style: Style,
    rng: SplitMix64,
    /// Extra or delayed wake-up of the style.
    extra: Option<Instant>,
    /// Every connection up to this one has been reported as ended.
    over: LinkId,
}

impl Driver {
    /// A new session under the exact style.
    ///
    /// # Panics
    /// If the configuration is refused.
    #[must_use]
    pub fn new(config: Config, seed: u64, origin: Origin, now: Instant) -> Self {
        let session = HeapSession::heap(config.check().expect("a configuration that makes sense"), seed, origin, now);
        Self { session, style: Style::Exact, rng: SplitMix64::new(seed ^ 0x5717), extra: None, over: LinkId::NONE }
    }

    /// The same under another style.
    #[must_use]
    pub fn with(mut self, style: Style) -> Self {
        self.style = style;
        self.plan_extra();
        self
    }

    /// The session, to look at.
    #[must_use]
    pub const fn session(&self) -> &HeapSession<u32> {
        &self.session
    }

    /// A number that is the same if everything in the session is (promise G8).
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.session.hash(&mut hasher);
        hasher.finish()
    }

    /// When this driver calls again if nothing arrives.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        match (self.style, self.session.deadline(), self.extra) {
            (Style::Late, Some(at), Some(extra)) => Some(at.max(extra)),
            (Style::Late, at, _) => at,
            (_, Some(at), Some(extra)) => Some(at.min(extra)),
            (_, at, extra) => at.or(extra),
        }
    }

    /// Gives one input and drains as the style says.
    pub fn handle(&mut self, now: Instant, input: Input<u32>) -> (Reply<u32>, Vec<Effect>) {
        let reply = self.session.handle(now, input);
        let effects = self.drain(now);
        for effect in &effects {
            if let Effect::Event(Event::Down { link, .. }) = effect {
                self.over = self.over.max(*link);
            }
        }
        self.plan_extra();
        (reply, effects)
    }

    /// Promise G6 and rule 1: whatever comes from a connection that is over answers `Stale` and moves nothing but the
    /// clock. Tried on a copy.
    pub fn try_the_past(&mut self, now: Instant) {
        if self.over == LinkId::NONE {
            return;
        }
        let link = LinkId::from_number(1 + self.rng.up_to(self.over.get() - 1));
        let heads =
            [Head::Data { id: None, key: None }, Head::Ack { id: MessageId::from_bits(1) }, Head::Pong, Head::Hello];
        let reject = Head::Reject { id: MessageId::from_bits(1) };
        let heads =
            heads.into_iter().chain([reject, Head::Other, Head::Malformed]).map(|head| Input::Received { link, head });
        let yes = self.rng.up_to(1) == 0;
        let (reason, hint) = (Reason::Closed(1012), RetryHint::after(Duration::from_secs(9)));
        let rest = [Input::LinkUp { link }, Input::LinkDown { link, reason, hint }, Input::Writable { link, yes }];
        let mut unmoved = self.session.clone();
        let nothing = Input::LinkUp { link: LinkId::NONE };
        assert_eq!(unmoved.handle(now, nothing), Reply::Stale);
        for input in heads.chain(rest) {
            let mut moved = self.session.clone();
            assert_eq!(moved.handle(now, input.clone()), Reply::Stale, "G6: {input:?}");
            assert!(moved == unmoved, "G6, rule 1: {input:?} moved something");
        }
    }

    /// Time has come.
    pub fn tick(&mut self, now: Instant) -> Vec<Effect> {
        let (_, mut effects) = self.handle(now, Input::Tick);
        if self.style == Style::Spurious {
            let before = self.session.clone();
            let (_, more) = self.handle(now, Input::Tick);
            assert!(before == self.session, "rule 4: a doubled tick changes nothing");
            assert_eq!(more, [], "rule 4: a doubled tick asks for nothing");
            effects.extend(more);
        }
        effects
    }

    fn drain(&mut self, now: Instant) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut sips = if self.style == Style::Sips || self.style == Style::Late { self.sip() } else { u64::MAX };
        loop {
            assert_eq!(
                self.session.deadline(),
                Some(self.session.now()),
                "rule 3: output may be waiting, so it is now"
            );
            if sips == 0 {
                if self.style == Style::Late {
                    return effects;
                }
                let _ = self.session.handle(now, Input::Tick);
                sips = self.sip();
                continue;
            }
            sips -= 1;
            let Some(output) = self.session.poll() else { break };
            effects.push(output.into());
            assert!(effects.len() < 10_000, "G7: endless output: {:?}", &effects[9_990..]);
        }
        let deadline = self.session.deadline();
        assert!(deadline.is_none_or(|at| at > self.session.now()), "rule 6: {:?}", self.session.wake_reason());
        assert!(self.session.poll().is_none(), "drained is drained");
        effects
    }

    fn sip(&mut self) -> u64 {
        self.rng.up_to(3)
    }

    fn plan_extra(&mut self) {
        let now = self.session.now();
        self.extra = match self.style {
            Style::Exact | Style::Sips => None,
            Style::Dense => Some(Instant::from_micros((now.as_micros() / 1000 + 1) * 1000)),
            Style::Spurious => Some(now.after(Duration::from_micros(1 + self.rng.up_to(400_000)))),
            // Late only with timers; what arrives is handled at once.
            Style::Late => {
                let lag = Duration::from_micros(1 + self.rng.up_to(50_000));
                self.session.deadline().map(|at| at.after(lag))
            }
        };
    }
}
