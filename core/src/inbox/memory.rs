//! Where an inbox keeps its messages: places that are found by name in constant time, in lists.
//!
//! ```text
//!  places   [ a · b c · ]    a fixed number of them, or a vector that grows
//!   names     id, latest other id, content key, delivery ── SipHash-1-3 under the session's key ──▶ a chain through the places
//!   lists     Vacant ─▶ ·    Held ─▶ a ─▶ c    Completed ─▶ b      first in, first out, linked both ways
//!            Acks ─▶ b                                           a second one, if something is to be told
//! ```
//!
//! The index hangs on the places themselves: nothing is allocated beside them, and fixed and growing memory are the same
//! code. All places are looked at when the memory grows and when a numbered sender begins anew (`Inbox::disown`), all
//! messages when one that waited for its turn is then looked for (`first_stray`). A decision (`decided`) looks at the
//! messages of one id that wait behind it. A message is changed as a whole: taken out by `get`, put back by `put`, which
//! compares its names and its list with what they were.
//!
//! Invariants: the chains hold exactly the names of the messages; a place is in the lists that its message says, and in no
//! others; what is compared and hashed are the lists with what is in them, never where that lies.
//! Field bugs: a memory that is searched in a line, so that it must be kept small and forgets within the horizon; a table
//! whose buckets the peer can choose.
//! Rules: I6, S14, S15.

use super::{DedupBy, Inbound, OnReject, Seen};
use crate::ids::{ContentKey, DeliveryId, MessageId};
use crate::rng::SplitMix64;
use crate::time::{Instant, Timer};
use core::hash::Hasher as _;
use siphasher::sip::SipHasher13;

/// No place.
const NONE: u32 = u32::MAX;

/// No memory has more places: a link is the number of a place and which of its names is meant, in 32 bits.
const MOST: usize = 1 << 24;

/// Which list a place is in: one of the first seven, and, if something is to be told, one of the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum List {
    /// No message.
    Vacant,
    /// At the application, and no request waits for its answer.
    Held,
    /// At the application, and a request waits for its answer; earliest limit first.
    Waiting,
    /// Given back; what may come again first comes first (S16).
    GivenBack,
    /// Completed, but an earlier message of its id is not (I6).
    Behind,
    /// Completed; what is forgotten first comes first.
    Completed,
    /// Of no further use once what is to be told was told.
    Released,
    /// Its rejection is to be reported (S8).
    Reports,
    /// An answer is to be given.
    Answers,
    /// An acknowledgement is to be sent.
    Acks,
}

impl List {
    const COUNT: usize = 10;
    /// All messages are in these.
    const OCCUPIED: [Self; 6] =
        [Self::Held, Self::Waiting, Self::GivenBack, Self::Behind, Self::Completed, Self::Released];
    const DUE: [Self; 3] = [Self::Reports, Self::Answers, Self::Acks];

    /// Which of its two neighbourhoods this list uses in a place.
    const fn strand(self) -> usize {
        match self {
            Self::Vacant
            | Self::Held
            | Self::Waiting
            | Self::GivenBack
            | Self::Behind
            | Self::Completed
            | Self::Released => 0,
            Self::Reports | Self::Answers | Self::Acks => 1,
        }
    }
}

/// By what a message is found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Id(MessageId),
    Content(ContentKey),
    Delivery(DeliveryId),
}

/// How many completed messages are looked at for one that may be forgotten.
const OLDEST: usize = 16;

/// How many names a message has at the most.
pub(super) const NAMES: usize = 4;

/// What is known of a message that comes.
pub(super) enum Known {
    Nothing,
    At(u32, Inbound),
    /// Its id names another message (I5).
    Reused(u32, Inbound),
}

/// What belongs to a place, not to its message: its share of the index, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// The first link of the chain that begins here.
    bucket: u32,
    /// For each name of this message the next link in its chain.
    chains: [u32; NAMES],
    /// Its neighbours in each of its two lists.
    neighbours: [Neighbours; 2],
    /// The messages before and behind it that its sender calls by the same id, if it is behind or one is behind it (I6): which
    /// these are follows from what the messages are.
    queue: Neighbours,
}

impl Links {
    pub(super) const NONE: Self =
        Self { bucket: NONE, chains: [NONE; NAMES], neighbours: [Neighbours::NONE; 2], queue: Neighbours::NONE };
}

#[derive(Clone, Copy, Debug)]
struct Neighbours {
    before: u32,
    after: u32,
}

impl Neighbours {
    const NONE: Self = Self { before: NONE, after: NONE };
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
}

impl Ends {
    const NONE: Self = Self { first: NONE, last: NONE };
}

/// See the module. The places are given to each call: so there is one copy of this code for every storage.
#[derive(Clone, Debug)]
pub(super) struct Index {
    key: (u64, u64),
    dedup: DedupBy,
    /// What was given back is asked for when it may come again.
    returned: bool,
    lists: [Ends; List::COUNT],
    /// How many messages are at the application.
    pub(super) held: usize,
    /// How many completed messages are behind an undecided one (I6).
    pub(super) behind: usize,
    /// How many senders have asked for a result by a request, have not been told, and ask again (L13).
    pub(super) untold: usize,
    /// The limit of the request that has waited longest.
    pub(super) wake: Timer,
    /// Names looked at since the beginning: what a look-up costs, whatever the clock says.
    #[cfg(test)]
    pub(super) probes: Probes,
    /// Messages of lists looked at.
    #[cfg(test)]
    pub(super) steps: Probes,
}

/// A counter that looking up can move.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Probes(core::sync::atomic::AtomicU64);

#[cfg(test)]
impl Probes {
    const fn none() -> Self {
        Self(core::sync::atomic::AtomicU64::new(0))
    }

    fn one_more(&self) {
        self.0.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(core::sync::atomic::Ordering::Relaxed)
    }
}

#[cfg(test)]
impl Clone for Probes {
    fn clone(&self) -> Self {
        Self(self.get().into())
    }
}

impl Index {
    /// The index of no places. Names are found by hashes under a key that `seed` gives.
    pub(super) const fn new(seed: u64, dedup: DedupBy) -> Self {
        let mut keys = SplitMix64::new(seed);
        Self {
            key: (keys.next_u64(), keys.next_u64()),
            dedup,
            returned: false,
            lists: [Ends::NONE; List::COUNT],
            held: 0,
            behind: 0,
            untold: 0,
            wake: Timer::disarmed(),
            #[cfg(test)]
            probes: Probes::none(),
            #[cfg(test)]
            steps: Probes::none(),
        }
    }

    /// How many places it can have at the most.
    pub(super) fn most(places: usize) -> usize {
        places.min(MOST)
    }

    /// The message that has this name and for which `is` holds; of several the one that came last.
    pub(super) fn find(&self, places: &[Seen], name: Name, is: fn(&Inbound) -> bool) -> Option<(u32, Inbound)> {
        let mut found: Option<(u32, Inbound)> = None;
        let mut link = places.get(self.bucket(places, name)?)?.links.bucket;
        while let Some((at, which)) = parts(link) {
            self.probe();
            let inbound = places.get(at)?.inbound;
            // Never the first in the chain: which that is, is a matter of its history.
            if inbound.names().get(which) == Some(&Some(name))
                && is(&inbound)
                && found.is_none_or(|(_, other)| other.delivery < inbound.delivery)
            {
                found = Some((u32::try_from(at).ok()?, inbound));
            }
            link = follow(places, link);
        }
        found
    }

    /// The message that came under this id or, failing that, with this content.
    pub(super) fn known(&self, places: &[Seen], id: Option<MessageId>, key: Option<ContentKey>) -> Known {
        let named = |name| self.find(places, name, |inbound| !inbound.stray);
        if let Some((at, inbound)) = id.and_then(|id| named(Name::Id(id))) {
            let other = key.is_some() && inbound.keyed && key != inbound.key();
            return if other { Known::Reused(at, inbound) } else { Known::At(at, inbound) };
        }
        let key = key.filter(|_| self.dedup == DedupBy::IdOrContent);
        let known = key.and_then(|key| named(Name::Content(key)));
        known.map_or(Known::Nothing, |(at, inbound)| Known::At(at, inbound))
    }

    /// As `known`; what was given back and may come again is forgotten when it is looked for (S16).
    pub(super) fn known_now(
        &mut self,
        places: &mut [Seen],
        now: Instant,
        id: Option<MessageId>,
        key: Option<ContentKey>,
    ) -> Known {
        loop {
            let found = self.known(places, id, key);
            let (Known::At(at, mut inbound) | Known::Reused(at, mut inbound)) = found else { return found };
            if !inbound.may_return(now) {
                return found;
            }
            inbound.forget_names();
            self.put(places, at, inbound);
        }
    }

    /// The message given back that may come again first, of those of which nothing is to be told.
    pub(super) fn first_resting(&self, places: &[Seen]) -> Option<(u32, Inbound)> {
        let mut resting = self.iter(places, List::GivenBack).take(OLDEST);
        resting.find(|(_, inbound)| inbound.lists().last() == Some(&None)).map(|(at, inbound)| (at, *inbound))
    }

    /// What was given back is asked for when it may come again.
    pub(super) const fn wakes_returned(&mut self) {
        self.returned = true;
    }

    /// The first message of a list.
    pub(super) fn first(&self, places: &[Seen], list: List) -> Option<(u32, Inbound)> {
        let at = self.ends(list).first;
        Some((at, get(places, at)?))
    }

    /// Whether anything is to be told.
    pub(super) fn is_any_due(&self) -> bool {
        List::DUE.into_iter().any(|list| self.ends(list).first != NONE)
    }

    /// The first message of these lists for which `is` holds.
    pub(super) fn search(
        &self,
        places: &[Seen],
        lists: &[List],
        is: &dyn Fn(&Inbound) -> bool,
    ) -> Option<(u32, Inbound)> {
        let mut messages = lists.iter().flat_map(|list| self.iter(places, *list));
        messages.find(|(_, inbound)| is(inbound)).map(|(at, inbound)| (at, *inbound))
    }

    /// The first message of which an acknowledgement is to be sent. Reports and answers are told before, so in their lists
    /// there is none once everything was taken.
    pub(super) fn first_owed(&self, places: &[Seen]) -> Option<(u32, Inbound)> {
        let owed = |list| self.search(places, &[list], &Inbound::is_owed);
        List::DUE.into_iter().filter_map(owed).min_by_key(|(_, inbound)| inbound.delivery)
    }

    /// The completed message that is forgotten first, and when. A frame can wait until what is owed on its connection was
    /// taken, so only the oldest few are looked at; a request comes because nobody takes it.
    pub(super) fn oldest(&self, places: &[Seen], by_request: bool) -> Option<(u32, Instant)> {
        let told = |due: Option<List>| {
            let mut oldest = self.iter(places, List::Completed).take(OLDEST);
            oldest.find(|(_, inbound)| inbound.lists().last() == Some(&due))
        };
        let found = told(None).or_else(|| told(Some(List::Acks)).filter(|_| by_request));
        found.map(|(at, inbound)| (at, inbound.forget()))
    }

    /// Of the messages that waited for their turn when their sender began anew, the one with the lowest number.
    pub(super) fn first_stray(&self, places: &[Seen]) -> Option<(u32, Inbound)> {
        let kept = |inbound: &Inbound| inbound.is_held() && inbound.stray && inbound.waits;
        let messages = self.messages(places).filter(|(_, inbound)| kept(inbound));
        messages.min_by_key(|(_, inbound)| inbound.ids().min()).map(|(at, inbound)| (at, *inbound))
    }

    /// The messages of a list, from the first to the last, and where they are.
    pub(super) fn iter<'a>(&self, places: &'a [Seen], list: List) -> impl Iterator<Item = (u32, &'a Inbound)> {
        let place = move |at: u32| places.get(at as usize).map(|place| (at, place));
        let next = move |(_, before): &(u32, &Seen)| place(before.links.neighbours.get(list.strand())?.after);
        let messages = core::iter::successors(place(self.ends(list).first), next);
        messages.map(|(at, place)| (at, &place.inbound)).inspect(|_| self.step())
    }

    /// All messages, list by list, and where they are.
    pub(super) fn messages<'a>(&self, places: &'a [Seen]) -> impl Iterator<Item = (u32, &'a Inbound)> {
        List::OCCUPIED.into_iter().flat_map(move |list| self.iter(places, list))
    }

    /// Of what something is to be told, list by list.
    pub(super) fn due(&self, places: &[Seen]) -> impl Iterator<Item = DeliveryId> {
        List::DUE.into_iter().flat_map(move |list| self.iter(places, list)).map(|(_, inbound)| inbound.delivery)
    }

    /// Whether a message that its sender calls so would be behind an undecided one (I6).
    pub(super) fn has_undecided(&self, places: &[Seen], name: ContentKey) -> bool {
        let latest = self.find(places, Name::Content(name), |_| true);
        latest.is_some_and(|(_, inbound)| inbound.is_held() || inbound.behind)
    }

    /// A message that is about to be put into this place is behind the latest that its sender calls by the same id, if that is
    /// undecided or behind one that is (I6). From now on it is the latest.
    pub(super) fn follow(&mut self, places: &mut [Seen], at: u32, inbound: &mut Inbound) {
        let latest = inbound.key().and_then(|name| self.find(places, Name::Content(name), |_| true));
        let latest = latest.filter(|(latest, _)| *latest != at);
        let mut before = NONE;
        if let Some((latest, mut other)) = latest {
            inbound.behind = other.is_held() || other.behind;
            other.found_by_key = false;
            self.put(places, latest, other);
            if inbound.behind {
                before = latest;
                set_queue(places, latest, |queue| queue.after = at);
            }
        }
        inbound.found_by_key = inbound.keyed;
        set_queue(places, at, |queue| *queue = Neighbours { before, after: NONE });
    }

    /// The message in this place was decided, or given back: if nothing is undecided before it, those behind it may be
    /// acknowledged, up to the next that is undecided; if it is gone, they are behind the one before it (I6).
    pub(super) fn decided(&mut self, places: &mut [Seen], at: u32, forget: Instant, on_reject: OnReject) {
        let Some(Neighbours { before, mut after }) = places.get(at as usize).map(|place| place.links.queue) else {
            return;
        };
        let Some(mut inbound) = get(places, at).filter(|inbound| !inbound.behind) else { return };
        if self.dedup == DedupBy::IdAndContent && inbound.rests_until().is_some() {
            inbound.found_by_key = false;
            self.put(places, at, inbound);
        }
        set_queue(places, at, |queue| *queue = Neighbours::NONE);
        if before != NONE {
            set_queue(places, before, |queue| queue.after = after);
            match get(places, before).filter(|_| after == NONE) {
                Some(mut latest) => {
                    latest.found_by_key = true;
                    self.put(places, before, latest);
                }
                None => set_queue(places, after, |queue| queue.before = before),
            }
            return;
        }
        while let Some(mut next) = get(places, after) {
            next.released(forget, on_reject);
            self.put(places, after, next);
            if next.is_held() {
                return set_queue(places, after, |queue| queue.before = NONE);
            }
            let behind = places.get(after as usize).map_or(NONE, |place| place.links.queue.after);
            set_queue(places, after, |queue| *queue = Neighbours::NONE);
            after = behind;
        }
    }

    /// Puts a message, changed or another one, into a place.
    pub(super) fn put(&mut self, places: &mut [Seen], at: u32, mut inbound: Inbound) {
        let Some(old) = get(places, at) else { return };
        if matches!(inbound.lists(), [Some(List::Released), None]) {
            inbound = Inbound::VACANT;
        }
        let names = || inbound.names().into_iter().zip(old.names()).enumerate().filter(|(_, (name, had))| name != had);
        let lists = || inbound.lists().into_iter().zip(old.lists()).filter(|(list, had)| list != had);
        for (which, (_, had)) in names() {
            self.unchain(places, at, which, had);
        }
        for (_, had) in lists() {
            self.leave(places, at, had);
        }
        if let Some(place) = places.get_mut(at as usize) {
            place.inbound = inbound;
        }
        for (which, (name, _)) in names() {
            self.chain(places, at, which, name);
        }
        for (list, _) in lists() {
            self.join(places, at, list);
        }
        let changed = |sum: usize, was: bool, is: bool| sum.saturating_sub(was.into()).saturating_add(is.into());
        self.held = changed(self.held, old.is_held(), inbound.is_held());
        let is_behind = |inbound: &Inbound| inbound.lists().first() == Some(&Some(List::Behind));
        self.behind = changed(self.behind, is_behind(&old), is_behind(&inbound));
        self.untold = changed(self.untold, old.untold, inbound.untold);
        self.wake.disarm();
        if let Some((_, first)) = self.first(places, List::Waiting) {
            self.wake.arm(first.waits_until());
        }
        let returns = self.first(places, List::GivenBack).filter(|_| self.returned);
        if let Some(until) = returns.and_then(|(_, first)| first.rests_until()) {
            self.wake.arm_by(until);
        }
    }

    /// There are more places than before, from `before` on: they are vacant, and everything is chained anew.
    pub(super) fn grown(&mut self, places: &mut [Seen], before: usize) {
        for place in &mut *places {
            place.links.bucket = NONE;
        }
        for at in 0..places.len() {
            let Ok(at) = u32::try_from(at) else { return };
            if at as usize >= before {
                self.join(places, at, Some(List::Vacant));
            }
            let names = get(places, at).map_or([None; NAMES], |inbound| inbound.names());
            for (which, name) in names.into_iter().enumerate() {
                self.chain(places, at, which, name);
            }
        }
    }

    /// Where the chain of a name begins; `None` if there are no places.
    fn bucket(&self, places: &[Seen], name: Name) -> Option<usize> {
        let mut hasher = SipHasher13::new_with_keys(self.key.0, self.key.1);
        match name {
            Name::Id(id) => words(&mut hasher, id.halves()),
            Name::Content(key) => words(&mut hasher, key.halves()),
            Name::Delivery(delivery) => hasher.write_u64(delivery.get()),
        }
        // The upper half, so that the rest of a division is not needed: 64-bit ones are slow on small processors.
        let upper = hasher.finish() >> 32;
        let buckets = u64::try_from(places.len()).ok()?;
        usize::try_from(upper.saturating_mul(buckets) >> 32).ok()
    }

    fn chain(&self, places: &mut [Seen], at: u32, which: usize, name: Option<Name>) {
        let Some(bucket) = name.and_then(|name| self.bucket(places, name)) else { return };
        let Some(first) = places.get(bucket).map(|place| place.links.bucket) else { return };
        if let Some(link) = places.get_mut(at as usize).and_then(|place| place.links.chains.get_mut(which)) {
            *link = first;
        }
        if let Some(place) = places.get_mut(bucket) {
            place.links.bucket = link(at, which);
        }
    }

    fn unchain(&self, places: &mut [Seen], at: u32, which: usize, name: Option<Name>) {
        let Some(bucket) = name.and_then(|name| self.bucket(places, name)) else { return };
        let this = link(at, which);
        let next = follow(places, this);
        let mut before = None;
        let mut here = places.get(bucket).map_or(NONE, |place| place.links.bucket);
        while here != this {
            if here == NONE {
                return;
            }
            self.probe();
            before = parts(here);
            here = follow(places, here);
        }
        let place = match before {
            Some((at, which)) => places.get_mut(at).and_then(|place| place.links.chains.get_mut(which)),
            None => places.get_mut(bucket).map(|place| &mut place.links.bucket),
        };
        if let Some(place) = place {
            *place = next;
        }
    }

    /// A name was looked at.
    fn probe(&self) {
        #[cfg(test)]
        self.probes.one_more();
    }

    /// A message of a list was looked at.
    fn step(&self) {
        #[cfg(test)]
        self.steps.one_more();
    }

    fn join(&mut self, places: &mut [Seen], at: u32, list: Option<List>) {
        let Some(list) = list else { return };
        let (mut before, mut after) = (self.ends(list).last, NONE);
        // Few are overtaken: what is owed is taken in each turn, unless its connection is full, and what is given back mostly
        // rests for the same time.
        while self.overtakes(places, list, at, before) {
            self.step();
            (before, after) = (neighbours(places, before, list).map_or(NONE, |other| other.before), before);
        }
        if let Some(neighbours) = neighbours(places, at, list) {
            *neighbours = Neighbours { before, after };
        }
        match neighbours(places, before, list) {
            Some(neighbours) => neighbours.after = at,
            None => self.set_first(list, at),
        }
        match neighbours(places, after, list) {
            Some(neighbours) => neighbours.before = at,
            None => self.set_last(list, at),
        }
    }

    /// Whether a message that joins a list comes before this one of it.
    fn overtakes(&self, places: &[Seen], list: List, at: u32, other: u32) -> bool {
        let (Some(this), Some(other)) = (get(places, at), get(places, other)) else { return false };
        match list {
            // Only where ids are used again it matters who came first.
            List::Reports | List::Answers | List::Acks => {
                self.dedup == DedupBy::IdAndContent && this.delivery < other.delivery
            }
            List::GivenBack => this.rests_until() < other.rests_until(),
            List::Vacant | List::Held | List::Waiting | List::Behind | List::Completed | List::Released => false,
        }
    }

    fn leave(&mut self, places: &mut [Seen], at: u32, list: Option<List>) {
        let Some(list) = list else { return };
        let Some(Neighbours { before, after }) = neighbours(places, at, list).copied() else { return };
        match neighbours(places, before, list) {
            Some(neighbours) => neighbours.after = after,
            None => self.set_first(list, after),
        }
        match neighbours(places, after, list) {
            Some(neighbours) => neighbours.before = before,
            None => self.set_last(list, before),
        }
    }

    fn ends(&self, list: List) -> Ends {
        self.lists.get(list as usize).copied().unwrap_or(Ends::NONE)
    }

    fn set_first(&mut self, list: List, at: u32) {
        if let Some(ends) = self.lists.get_mut(list as usize) {
            ends.first = at;
        }
    }

    fn set_last(&mut self, list: List, at: u32) {
        if let Some(ends) = self.lists.get_mut(list as usize) {
            ends.last = at;
        }
    }
}

/// The message in a place.
pub(super) fn get(places: &[Seen], at: u32) -> Option<Inbound> {
    places.get(at as usize).map(|place| place.inbound)
}

/// The neighbours of a place in a list.
fn neighbours(places: &mut [Seen], at: u32, list: List) -> Option<&mut Neighbours> {
    places.get_mut(at as usize)?.links.neighbours.get_mut(list.strand())
}

fn set_queue(places: &mut [Seen], at: u32, set: impl FnOnce(&mut Neighbours)) {
    if let Some(place) = places.get_mut(at as usize) {
        set(&mut place.links.queue);
    }
}

fn words(hasher: &mut SipHasher13, (high, low): (u64, u64)) {
    hasher.write_u64(high);
    hasher.write_u64(low);
}

/// The next link in the chain.
fn follow(places: &[Seen], link: u32) -> u32 {
    let next = |(at, which): (usize, usize)| places.get(at)?.links.chains.get(which).copied();
    parts(link).and_then(next).unwrap_or(NONE)
}

/// A name of a place, in one number.
const fn link(at: u32, which: usize) -> u32 {
    at << 2 | which as u32 & 3
}

/// The place and which of its names; `None` at the end of a chain.
const fn parts(link: u32) -> Option<(usize, usize)> {
    if link == NONE { None } else { Some(((link >> 2) as usize, (link & 3) as usize)) }
}
