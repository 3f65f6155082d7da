//! The promises as books: who accepted what, who was handed what, who said what about it.
//!
//! The world writes down what happens; a promise that is broken panics where it breaks, with its number. A message is its
//! payload here, a number that is never used twice, so that ids and keys are under test and not the means of it.

use bowline::{Config, DeliveryId, Instant, OnReject, Outcome, Rejection, Seq, Verdict};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One accepted message.
#[derive(Clone, Copy, Debug)]
struct Sent {
    by: usize,
    at: Instant,
    outcome: Option<Outcome>,
    /// Its sender lost its state: nobody is left to be told.
    orphan: bool,
}

/// What a receiver knows of one message.
#[derive(Clone, Copy, Debug)]
struct Got {
    life: u32,
    delivery: DeliveryId,
    verdict: Option<(Verdict, Instant)>,
    /// Some life of the receiver completed it.
    done: bool,
    /// Some life of the receiver rejected it.
    rejected: bool,
    times: u32,
}

/// The books.
#[derive(Debug, Default)]
pub struct Ledger {
    sent: BTreeMap<u32, Sent>,
    numbers: BTreeMap<(usize, u32, Seq), u32>,
    got: BTreeMap<(usize, u32), Got>,
    connects: [VecDeque<Instant>; 2],
    posts: BTreeMap<u32, VecDeque<Instant>>,
    waiting: [BTreeSet<u64>; 2],
    maybe_dups: u32,
}

/// Attempts in any minute, at most: with the steepest draw of every delay, and a few resets.
const ATTEMPTS: u128 = 30;

/// Posts of one message in any minute, at most: a peer may ask for it every second (409, 503).
const POSTS: usize = 61;

impl Ledger {
    /// `party`, in its life number `life`, accepted `payload` under `seq`; `open` of its messages had not ended, this one
    /// included.
    pub fn accepted(&mut self, now: Instant, party: usize, life: u32, seq: Seq, payload: u32) {
        let sent = Sent { by: party, at: now, outcome: None, orphan: false };
        assert!(self.sent.insert(payload, sent).is_none(), "the test uses a payload once");
        assert!(self.numbers.insert((party, life, seq), payload).is_none(), "I1: a number names one message: {seq}");
    }

    /// Its sender was told how the message with this number ended.
    pub fn settled(&mut self, now: Instant, party: usize, life: u32, seq: Seq, outcome: Outcome, took: Duration) {
        let payload = *self.numbers.get(&(party, life, seq)).unwrap_or_else(|| panic!("G1: {seq} was never accepted"));
        let sent = self.sent.get_mut(&payload).expect("accepted");
        assert!(sent.outcome.is_none(), "G1: {payload} ended twice: {:?}, then {outcome:?}", sent.outcome);
        sent.outcome = Some(outcome);
        assert!(took <= now.since(sent.at), "it cannot take longer than it took");
        let got = self.got.get(&(1 - party, payload));
        match outcome {
            Outcome::Delivered { .. } => {
                let answered = got.is_some_and(|got| got.done || got.rejected);
                assert!(answered, "G3: {payload} is acknowledged, but nobody completed it: {got:?}");
            }
            Outcome::Rejected(Rejection::TooLarge | Rejection::Status(_) | Rejection::ByPeer)
            | Outcome::Expired
            | Outcome::Abandoned => {}
        }
    }

    /// `party` was handed a message. `lossy`: its memory had to forget something before its time.
    pub fn delivered(
        &mut self,
        now: Instant,
        (party, life, config): (usize, u32, &Config),
        payload: u32,
        (delivery, maybe_dup): (DeliveryId, bool),
        lossy: bool,
    ) {
        self.maybe_dups += u32::from(maybe_dup);
        assert!(!maybe_dup || life > 0 || lossy, "G2: {payload} is fresh and nothing was forgotten: not a maybe_dup");
        let Some(got) = self.got.get_mut(&(party, payload)) else {
            let got = Got { life, delivery, verdict: None, done: false, rejected: false, times: 1 };
            self.got.insert((party, payload), got);
            return;
        };
        let released = matches!(got.verdict, Some((Verdict::Retry { .. }, _)));
        let forgotten = match got.verdict {
            Some((Verdict::Done | Verdict::Reject, at)) => now.since(at) >= config.inbox.horizon || lossy,
            Some((Verdict::Retry { .. }, _)) => true,
            None => false,
        };
        let same_life = got.life == life;
        assert!(!same_life || forgotten, "G2: {payload} is delivered again, {got:?}");
        let in_horizon = got.verdict.is_some_and(|(_, at)| now.since(at) < config.inbox.horizon);
        assert!(
            maybe_dup || released || (same_life && !in_horizon),
            "G2: a second delivery passed off as new: {got:?}"
        );
        *got = Got { life, delivery, verdict: None, times: got.times + 1, ..*got };
    }

    /// The application of `party` spoke about a delivery.
    pub fn completed(
        &mut self,
        now: Instant,
        (party, life, config): (usize, u32, &Config),
        payload: u32,
        delivery: DeliveryId,
        verdict: Verdict,
    ) {
        let got = self.got.get_mut(&(party, payload)).expect("delivered");
        assert_eq!(
            (got.life, got.delivery, got.verdict),
            (life, delivery, None),
            "the latest delivery is the open one"
        );
        got.verdict = Some((verdict, now));
        got.done |= verdict == Verdict::Done;
        got.rejected |= verdict == Verdict::Reject && config.inbox.on_reject == OnReject::Acknowledge;
    }

    /// `party` lost its state.
    pub fn crashed(&mut self, party: usize) {
        for sent in self.sent.values_mut().filter(|sent| sent.by == party && sent.outcome.is_none()) {
            sent.orphan = true;
        }
        self.connects[party].clear();
        self.waiting[party].clear();
    }

    /// `party` dials; it waits `floor` at least between attempts. `urged`: it was told to, by the application or by a change
    /// of the network.
    pub fn connects(&mut self, now: Instant, party: usize, floor: Duration, urged: bool) {
        let recent = &mut self.connects[party];
        if urged {
            recent.clear();
        }
        recent.push_back(now);
        while recent.front().is_some_and(|first| now.since(*first) > Duration::from_secs(60)) {
            recent.pop_front();
        }
        let most = (60_000 / floor.as_millis().max(1) + 1).min(ATTEMPTS);
        assert!(recent.len() as u128 <= most, "G7: {} attempts in a minute", recent.len());
    }

    /// `payload` is posted.
    pub fn posts(&mut self, now: Instant, payload: u32) {
        let recent = self.posts.entry(payload).or_default();
        recent.push_back(now);
        while recent.front().is_some_and(|first| now.since(*first) > Duration::from_secs(60)) {
            recent.pop_front();
        }
        assert!(recent.len() <= POSTS, "G7: {payload} is posted {} times in a minute", recent.len());
    }

    /// A request waits for an answer of `party`'s.
    pub fn asked(&mut self, party: usize, request: u64) {
        assert!(self.waiting[party].insert(request), "the test numbers requests");
    }

    /// It got one, or does not need one any more.
    pub fn answered(&mut self, party: usize, request: u64) {
        assert!(self.waiting[party].remove(&request), "H2: request {request} is answered twice, or never waited");
    }

    /// Whether the request still waits.
    #[must_use]
    pub fn waits(&self, party: usize, request: u64) -> bool {
        self.waiting[party].contains(&request)
    }

    /// Everything was given time: nothing may be open, except what `lost` says was given up.
    pub fn closed(&self) {
        for (payload, sent) in &self.sent {
            assert!(sent.outcome.is_some() || sent.orphan, "G1: {payload} never ended: {sent:?}");
        }
        for waiting in &self.waiting {
            assert!(waiting.is_empty(), "H2: never answered: {waiting:?}");
        }
    }

    /// How a message ended, if it has.
    #[must_use]
    pub fn outcome(&self, payload: u32) -> Option<Outcome> {
        self.sent.get(&payload).and_then(|sent| sent.outcome)
    }

    /// How many times `party`'s application was handed a message.
    #[must_use]
    pub fn deliveries(&self, party: usize, payload: u32) -> u32 {
        self.got.get(&(party, payload)).map_or(0, |got| got.times)
    }

    /// How many hand-overs were marked as possible copies.
    #[must_use]
    pub const fn maybe_dups(&self) -> u32 {
        self.maybe_dups
    }
}
