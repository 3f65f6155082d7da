//! Topics: an item lies once in its topic's history, every subscription has a place in it, and nobody waits for anybody.
//!
//! ```text
//!  topic a.b     1 ┆ 2  3  4  5 ┆ 6 to come       history: the oldest goes by count, bytes or age
//!                ▲        ▲       ▲
//!             slow: gap   │       └ quick           a subscription is the offset its session gets next
//!              1, then 2  └ away: goes on here when it comes back
//!
//!  Topic ══ list of its Subscriptions ══ Member (a session) ══ list of those with something to get, in turn
//!    ╚════ list of its Items ════ all Items, oldest first           ╚══ list of its Wildcards
//! ```
//!
//! History is the buffer: a subscriber that is slow, or away, is behind in it, and what was forgotten meanwhile is told as a
//! gap. A subscription belongs to the session, survives its connections and ends with it. What is written to a connection
//! that breaks counts as given: whoever must have everything says by [`Start::After`] what it has when it comes back.
//!
//! Filters are applied when a topic is made and when a filter is added, never when an item is published: that looks at the
//! topic's own subscribers and at nobody else. A session that two filters bring to one topic is one subscriber.
//!
//! A topic without subscribers and history is forgotten. One that nobody has named is forgotten, the idlest first, when its
//! place is needed: if it has no subscribers, or, being there for wildcards only, neither history nor anyone behind.
//!
//! Invariants: offsets of a topic only grow, those it is forgotten with included; every offset after its cursor comes to a
//! subscription exactly once, as an item or in a gap, in order; `behind` counts the subscriptions that are in a ready list;
//! what is full says so before anything is changed.
//! Field bugs: subscriptions that die with the connection; an item copied into a queue per subscriber; a subscribe frame
//! that is answered and does nothing (wire facts 3.3); one busy topic that hides the others.
//! Rules: U4–U6.

mod hub;
mod list;
mod name;
mod types;

#[cfg(test)]
mod tests;

pub use name::{BadTopic, TopicFilter, TopicName};
pub use types::{Item, Member, Position, Start, Subscribed, Subscription, Topic, TopicHealth, TopicsFull, Wildcard};

use super::config::TopicsConfig;
use super::table::{Key, Table};
use super::{Memory, Sent};
use crate::rng::SplitMix64;
use crate::time::{Instant, Timer, Timers, Wake};
use list::{Links, List};

/// Of a session that has not subscribed to anything.
pub(super) const NOBODY: u32 = list::NONE;

/// What comes next to a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// This item of this topic.
    Item { topic: u32, item: u32, offset: u64 },
    /// What it has missed: from the first, if that is known, to the last.
    Gap { topic: u32, from: Option<u64>, to: u64 },
}

/// Somebody is subscribed to a topic now, or not any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Presence {
    pub(super) peer: Key,
    pub(super) topic: TopicName,
    pub(super) present: bool,
    pub(super) subscribers: u32,
}

/// All topics, their histories, and who is subscribed. See the module.
pub(super) struct Topics<P, M: Memory<P>> {
    config: TopicsConfig,
    epoch: u32,
    /// So that nobody outside knows which names fall together.
    seed: u64,
    /// Where a new topic begins: no forgotten one has been there.
    floor: u64,
    /// Items ever held: each is found by its number.
    made: u64,
    bytes: u64,
    /// Subscriptions that publishing has looked at.
    steps: u64,
    /// When the oldest item is too old.
    wake: Timer,
    topics: Table<Topic, M::Topics>,
    items: Table<Item<P>, M::Items>,
    subscriptions: Table<Subscription, M::Subscriptions>,
    wildcards: Table<Wildcard, M::Wildcards>,
    members: Table<Member, M::Members>,
    /// All items, in the order in which they came, which is that in which they go.
    oldest: List,
    /// Topics that may be forgotten, the idlest first.
    idle: List,
    /// Subscriptions whose beginning or end is to be told.
    untold: List,
}

impl<P, M: Memory<P>> Topics<P, M> {
    pub(super) fn new(config: TopicsConfig, sessions: usize, seed: u64, epoch: u32) -> Self {
        let (topics, items) = M::topics();
        let (subscriptions, wildcards, members) = M::subscribers();
        Self {
            config,
            epoch,
            seed,
            floor: 1,
            made: 0,
            bytes: 0,
            steps: 0,
            wake: Timer::disarmed(),
            topics: Table::new(config.topics, topics),
            items: Table::new(usize::MAX, items),
            subscriptions: Table::new(config.subscriptions, subscriptions),
            wildcards: Table::new(config.filters, wildcards),
            members: Table::new(sessions, members),
            oldest: List::EMPTY,
            idle: List::EMPTY,
            untold: List::EMPTY,
        }
    }

    /// Appends an item to a topic. `tell` is called for every session that has something to get now, with how many it has
    /// just lost for good because there is no place for it among the topic's subscribers.
    pub(super) fn publish(
        &mut self,
        now: Instant,
        name: &TopicName,
        payload: P,
        size: u32,
        mut tell: impl FnMut(Key, u32),
    ) -> Sent {
        self.tick(now);
        let most = u64::try_from(self.config.bytes).unwrap_or(u64::MAX);
        let size_of = u64::from(size);
        let mut sent = Sent::default();
        let topic = match self.find(name) {
            // It would never be held: it is not published, and has no offset.
            topic if size_of > most || !self.items.has_place() => {
                let subscribers = topic.and_then(|topic| self.topics.at(topic)).map(|topic| topic.subscribers);
                sent.refused = subscribers.unwrap_or_else(|| self.would_match(name));
                return sent;
            }
            Some(topic) => topic,
            None => match self.make(name, |peer| {
                sent.refused = sent.refused.saturating_add(1);
                tell(peer, 1);
            }) {
                Some(topic) => topic,
                None => {
                    sent.refused = self.would_match(name);
                    return sent;
                }
            },
        };
        let before = self.topics.at(topic).map_or(0, Topic::first);
        while self.topics.at(topic).is_some_and(|topic| topic.held >= self.config.history) {
            self.forget(self.topics.at(topic).map_or(NOBODY, |topic| topic.items.first), topic);
        }
        while !self.oldest.is_empty() && (self.bytes.saturating_add(size_of) > most || !self.items.has_room()) {
            self.forget(self.oldest.first, topic);
        }
        self.append(now, topic, payload, size);
        sent = self.wake_subscribers(topic, before, sent, tell);
        self.settle(topic, true);
        sent
    }

    /// Forgets what is too old.
    pub(super) fn tick(&mut self, now: Instant) {
        while self.items.at(self.oldest.first).is_some_and(|oldest| oldest.forget <= now) {
            self.forget(self.oldest.first, NOBODY);
        }
    }

    /// Takes the next thing that a session is to get. The subscriptions of a session take turns.
    pub(super) fn next(&mut self, member: u32) -> Option<Due> {
        let index = self.members.at(member)?.ready.first;
        let subscription = self.subscriptions.at_mut(index)?;
        let topic = self.topics.at(subscription.topic)?;
        let (number, first, next) = (subscription.topic, topic.first(), topic.next);
        let due = if subscription.astray || subscription.cursor < first {
            let from = (!subscription.astray).then_some(subscription.cursor);
            subscription.astray = false;
            (subscription.cursor, subscription.at) = (first, topic.items.first);
            Due::Gap { topic: number, from, to: first.saturating_sub(1) }
        } else {
            let (item, offset) = (subscription.at, subscription.cursor);
            subscription.cursor = offset.saturating_add(1);
            subscription.at = self.items.at(item)?.of_topic.after;
            Due::Item { topic: number, item, offset }
        };
        let more = subscription.cursor < next;
        // After a gap comes at once what follows it; after an item, the next topic.
        if !(more && matches!(due, Due::Gap { .. })) {
            self.dequeue(index);
        }
        if more {
            self.enqueue(index);
        }
        self.settle(number, false);
        Some(due)
    }

    /// Whether there is something for this session.
    pub(super) fn waits_for(&self, member: u32) -> bool {
        self.members.at(member).is_some_and(|member| !member.ready.is_empty())
    }

    pub(super) fn connected(&mut self, member: u32, yes: bool) {
        if let Some(member) = self.members.at_mut(member) {
            member.connected = yes;
        }
    }

    pub(super) fn payload(&self, item: u32) -> Option<&P> {
        self.items.at(item).map(|item| &item.payload)
    }

    pub(super) fn name(&self, topic: u32) -> Option<&TopicName> {
        self.topics.at(topic).map(|topic| &topic.name)
    }

    pub(super) const fn at(&self, offset: u64) -> Position {
        Position { epoch: self.epoch, offset }
    }

    /// Subscriptions that publishing has looked at.
    pub(super) const fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn subscribers(&self, name: &TopicName) -> usize {
        let subscribers = self.find(name).and_then(|topic| self.topics.at(topic)).map_or(0, |topic| topic.subscribers);
        usize::try_from(subscribers).unwrap_or(usize::MAX)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = TopicHealth> {
        (0..self.topics.span()).filter_map(|topic| {
            let Topic { name, next, held, subscribers, behind, .. } = *self.topics.at(topic)?;
            let newest = self.at(next.saturating_sub(1));
            Some(TopicHealth { name, subscribers, behind, held, newest })
        })
    }

    /// Each topic that a session is subscribed to, and the last that was given to it or told as missed.
    pub(super) fn subscriptions(&self, member: u32) -> impl Iterator<Item = (&TopicName, Position)> {
        let first = self.members.at(member).map_or(NOBODY, |member| member.subscriptions.first);
        self.of_member(first).filter_map(|(_, subscription)| {
            Some((self.name(subscription.topic)?, self.at(subscription.cursor.saturating_sub(1))))
        })
    }

    /// A session's filters with a wildcard.
    pub(super) fn filters(&self, member: u32) -> impl Iterator<Item = &TopicFilter> {
        let first = self.members.at(member).map_or(NOBODY, |member| member.wildcards.first);
        let wildcards = core::iter::successors(self.wildcards.at(first), |one| self.wildcards.at(one.of_member.after));
        wildcards.map(|wildcard| &wildcard.filter)
    }

    pub(super) const fn has_presence(&self) -> bool {
        !self.untold.is_empty()
    }

    /// The next change of who is subscribed to what.
    pub(super) fn next_presence(&mut self) -> Option<Presence> {
        let index = self.untold.first;
        self.untold.remove(&mut self.subscriptions, index, |one| &mut one.untold);
        let subscription = self.subscriptions.at_mut(index)?;
        let (peer, topic, present) = (subscription.peer, subscription.topic, !subscription.over);
        subscription.told = present;
        let about = self.topics.at_mut(topic)?;
        let (name, subscribers) = (about.name, about.subscribers);
        if !present {
            about.leaving = about.leaving.saturating_sub(1);
            self.drop_subscription(index);
            self.settle(topic, false);
        }
        Some(Presence { peer, topic: name, present, subscribers })
    }

    /// Subscribes a session; `member` is where it is known here, or [`NOBODY`] before and after.
    pub(super) fn subscribe(
        &mut self,
        peer: Key,
        connected: bool,
        member: &mut u32,
        filter: &TopicFilter,
        start: Start,
        lost: impl FnMut(Key),
    ) -> Result<Subscribed, TopicsFull> {
        if *member == NOBODY {
            let one = Member {
                peer,
                connected,
                subscriptions: List::EMPTY,
                subscribed: 0,
                wildcards: List::EMPTY,
                filters: 0,
                ready: List::EMPTY,
            };
            *member = self.members.insert(mix(peer.bits()), one).map_err(|_| TopicsFull::Subscriptions)?.index();
        }
        let subscribed = match filter.exact() {
            Some(name) => self.subscribe_to(peer, *member, &name, start, lost),
            None => self.subscribe_all(peer, *member, filter, start),
        };
        self.release(member);
        subscribed
    }

    /// False: it was not subscribed by this filter.
    pub(super) fn unsubscribe(&mut self, member: &mut u32, filter: &TopicFilter) -> bool {
        let was = match filter.exact() {
            Some(name) => self.unsubscribe_from(*member, &name),
            None => self.unsubscribe_all(*member, filter),
        };
        self.release(member);
        was
    }

    /// A session is over, and with it all it was subscribed to.
    pub(super) fn leave(&mut self, member: &mut u32) {
        while let Some(first) = self.members.at(*member).map(|member| member.wildcards.first)
            && first != NOBODY
        {
            self.drop_wildcard(*member, first);
        }
        while let Some(first) = self.members.at(*member).map(|member| member.subscriptions.first)
            && first != NOBODY
        {
            self.detach(first, true);
        }
        self.release(member);
    }

    fn subscribe_to(
        &mut self,
        peer: Key,
        member: u32,
        name: &TopicName,
        start: Start,
        lost: impl FnMut(Key),
    ) -> Result<Subscribed, TopicsFull> {
        let known = self.find(name).is_some_and(|topic| self.subscription(member, topic).is_some());
        if !known {
            self.may_add(member, 1)?;
        }
        let topic = self.find(name).or_else(|| self.make(name, lost)).ok_or(TopicsFull::Topics)?;
        let Some(index) = self.subscription(member, topic).or_else(|| self.attach(peer, member, topic)) else {
            // Others, whose filters match, took the last place.
            self.settle(topic, false);
            return Err(TopicsFull::Subscriptions);
        };
        let mut added = false;
        if let (Some(subscription), Some(topic)) = (self.subscriptions.at_mut(index), self.topics.at_mut(topic)) {
            added = !core::mem::replace(&mut subscription.named, true);
            topic.named = topic.named.saturating_add(u32::from(added));
        }
        self.place(index, start, known);
        self.settle(topic, false);
        let newest = self.topics.at(topic).map(|topic| self.at(topic.next.saturating_sub(1)));
        Ok(Subscribed { added, topics: 1, newest })
    }

    fn subscribe_all(
        &mut self,
        peer: Key,
        member: u32,
        filter: &TopicFilter,
        start: Start,
    ) -> Result<Subscribed, TopicsFull> {
        let added = self.wildcard(member, filter).is_none();
        if added {
            let more = self.matching(filter).filter(|topic| self.subscription(member, *topic).is_none()).count();
            self.may_add(member, more)?;
            if self.members.at(member).is_none_or(|member| member.filters >= self.config.filters_per_session) {
                return Err(TopicsFull::Share);
            }
            let one = Wildcard { member, filter: *filter, of_member: Links::OUT };
            let hash = self.hash(filter.as_str());
            let index = self.wildcards.insert(hash, one).map_err(|_| TopicsFull::Filters)?.index();
            if let Some(member) = self.members.at_mut(member) {
                member.filters = member.filters.saturating_add(1);
                member.wildcards.push(&mut self.wildcards, index, |one| &mut one.of_member);
            }
        }
        // A position is one topic's.
        let start = if start == Start::Now { start } else { Start::Oldest };
        let mut topics = 0_u32;
        for topic in 0..self.topics.span() {
            if !self.topics.at(topic).is_some_and(|topic| filter.matches(&topic.name)) {
                continue;
            }
            let known = self.subscription(member, topic);
            if let Some(index) = known.or_else(|| self.attach(peer, member, topic)) {
                self.place(index, start, known.is_some());
                topics = topics.saturating_add(1);
            }
            self.settle(topic, false);
        }
        Ok(Subscribed { added, topics, newest: None })
    }

    fn unsubscribe_from(&mut self, member: u32, name: &TopicName) -> bool {
        let Some(topic) = self.find(name) else { return false };
        let Some(index) = self.subscription(member, topic) else { return false };
        let (Some(subscription), Some(about)) = (self.subscriptions.at_mut(index), self.topics.at_mut(topic)) else {
            return false;
        };
        if !core::mem::replace(&mut subscription.named, false) {
            return false;
        }
        about.named = about.named.saturating_sub(1);
        self.detach_unwanted(member, index);
        self.settle(topic, false);
        true
    }

    fn unsubscribe_all(&mut self, member: u32, filter: &TopicFilter) -> bool {
        let Some(wildcard) = self.wildcard(member, filter) else { return false };
        self.drop_wildcard(member, wildcard);
        let mut next = self.members.at(member).map_or(NOBODY, |member| member.subscriptions.first);
        while let Some(subscription) = self.subscriptions.at(next) {
            let index = core::mem::replace(&mut next, subscription.of_member.after);
            if self.name(subscription.topic).is_some_and(|name| filter.matches(name)) {
                self.detach_unwanted(member, index);
            }
        }
        true
    }

    /// Whether a session may have so many subscriptions more.
    fn may_add(&self, member: u32, more: usize) -> Result<(), TopicsFull> {
        let has = self.members.at(member).map_or(u32::MAX, |member| member.subscribed);
        let room = self.subscriptions.room();
        let share = self.config.per_session.saturating_sub(has);
        if more > usize::try_from(share).unwrap_or(usize::MAX) {
            Err(TopicsFull::Share)
        } else if more > room {
            Err(TopicsFull::Subscriptions)
        } else {
            Ok(())
        }
    }

    fn hash(&self, text: &str) -> u64 {
        text.bytes().fold(self.seed, |hash, byte| mix(hash ^ u64::from(byte)))
    }

    fn find(&self, name: &TopicName) -> Option<u32> {
        self.topics.find(self.hash(name.as_str()), |topic| topic.name == *name).map(Key::index)
    }

    fn subscription(&self, member: u32, topic: u32) -> Option<u32> {
        let is = |one: &Subscription| one.member == member && one.topic == topic && !one.over;
        self.subscriptions.find(pair(member, topic), is).map(Key::index)
    }

    fn wildcard(&self, member: u32, filter: &TopicFilter) -> Option<u32> {
        let is = |one: &Wildcard| one.member == member && one.filter == *filter;
        self.wildcards.find(self.hash(filter.as_str()), is).map(Key::index)
    }

    /// The topics that a filter matches.
    fn matching(&self, filter: &TopicFilter) -> impl Iterator<Item = u32> {
        (0..self.topics.span())
            .filter(move |topic| self.topics.at(*topic).is_some_and(|topic| filter.matches(&topic.name)))
    }

    /// Whether a session has a filter that matches this topic.
    fn wants(&self, member: u32, topic: u32) -> bool {
        self.name(topic).is_some_and(|name| self.filters(member).any(|filter| filter.matches(name)))
    }

    /// A session's subscriptions from this one on.
    fn of_member(&self, first: u32) -> impl Iterator<Item = (u32, &Subscription)> {
        let at = |index: u32| self.subscriptions.at(index).map(|one| (index, one));
        core::iter::successors(at(first), move |(_, one)| at(one.of_member.after))
    }

    /// So many sessions have a filter that matches this name.
    fn would_match(&self, name: &TopicName) -> u32 {
        let wants = |member: &u32| self.filters(*member).any(|filter| filter.matches(name));
        u32::try_from((0..self.members.span()).filter(wants).count()).unwrap_or(u32::MAX)
    }

    /// A new topic, with everybody whose filter matches it; `lost` is called for those for whom there is no place.
    fn make(&mut self, name: &TopicName, mut lost: impl FnMut(Key)) -> Option<u32> {
        if !self.topics.has_room() {
            self.evict();
        }
        let topic = self.topics.insert(self.hash(name.as_str()), Topic::new(*name, self.floor)).ok()?.index();
        for wildcard in 0..self.wildcards.span() {
            let Some(member) = self.wildcards.at(wildcard).filter(|one| one.filter.matches(name)).map(|one| one.member)
            else {
                continue;
            };
            let Some(peer) = self.members.at(member).map(|member| member.peer) else { continue };
            if self.subscription(member, topic).is_some() {
                continue;
            }
            if self.may_add(member, 1).is_err() || self.attach(peer, member, topic).is_none() {
                lost(peer);
            }
        }
        self.settle(topic, true);
        Some(topic)
    }

    /// Forgets the idlest topic of those that may be forgotten.
    fn evict(&mut self) {
        let topic = self.idle.first;
        while let Some(first) = self.topics.at(topic).map(|topic| topic.subscriptions.first)
            && first != NOBODY
        {
            // Its sessions go on waiting for such a topic, so nothing is said of it.
            self.detach(first, false);
        }
        while let Some(first) = self.topics.at(topic).map(|topic| topic.items.first)
            && first != NOBODY
        {
            self.forget(first, topic);
        }
        self.settle(topic, false);
    }

    fn attach(&mut self, peer: Key, member: u32, topic: u32) -> Option<u32> {
        let next = self.topics.at(topic)?.next;
        let one = Subscription::new(member, topic, peer, next);
        let index = self.subscriptions.insert(pair(member, topic), one).ok()?.index();
        if let Some(topic) = self.topics.at_mut(topic) {
            topic.subscribers = topic.subscribers.saturating_add(1);
            topic.subscriptions.push(&mut self.subscriptions, index, |one| &mut one.of_topic);
        }
        if let Some(member) = self.members.at_mut(member) {
            member.subscribed = member.subscribed.saturating_add(1);
            member.subscriptions.push(&mut self.subscriptions, index, |one| &mut one.of_member);
        }
        if self.config.presence {
            self.untold.push(&mut self.subscriptions, index, |one| &mut one.untold);
        }
        Some(index)
    }

    /// Ends a subscription that neither its session's own word nor a filter of it holds.
    fn detach_unwanted(&mut self, member: u32, index: u32) {
        let Some(subscription) = self.subscriptions.at(index) else { return };
        if !subscription.named && !self.wants(member, subscription.topic) {
            self.detach(index, true);
        }
    }

    /// Ends a subscription; `tell`: if its beginning was told, so will its end.
    fn detach(&mut self, index: u32, tell: bool) {
        self.dequeue(index);
        let Some(&Subscription { member, topic, named, told, .. }) = self.subscriptions.at(index) else { return };
        let leaving = told && tell;
        if let Some(topic) = self.topics.at_mut(topic) {
            topic.subscribers = topic.subscribers.saturating_sub(1);
            topic.named = topic.named.saturating_sub(u32::from(named));
            topic.leaving = topic.leaving.saturating_add(u32::from(leaving));
            topic.subscriptions.remove(&mut self.subscriptions, index, |one| &mut one.of_topic);
        }
        if let Some(member) = self.members.at_mut(member) {
            member.subscribed = member.subscribed.saturating_sub(1);
            member.subscriptions.remove(&mut self.subscriptions, index, |one| &mut one.of_member);
        }
        if leaving {
            if let Some(subscription) = self.subscriptions.at_mut(index) {
                subscription.over = true;
            }
            self.untold.push(&mut self.subscriptions, index, |one| &mut one.untold);
        } else {
            self.untold.remove(&mut self.subscriptions, index, |one| &mut one.untold);
            self.drop_subscription(index);
        }
        self.settle(topic, false);
    }

    fn drop_subscription(&mut self, index: u32) {
        if let Some(key) = self.subscriptions.key(index) {
            self.subscriptions.remove(key);
        }
    }

    fn drop_wildcard(&mut self, member: u32, index: u32) {
        if let Some(member) = self.members.at_mut(member) {
            member.filters = member.filters.saturating_sub(1);
            member.wildcards.remove(&mut self.wildcards, index, |one| &mut one.of_member);
        }
        if let Some(key) = self.wildcards.key(index) {
            self.wildcards.remove(key);
        }
    }

    /// A session that is subscribed to nothing is nobody here.
    fn release(&mut self, member: &mut u32) {
        let done = self.members.at(*member).is_none_or(|one| one.subscriptions.is_empty() && one.wildcards.is_empty());
        if done {
            if let Some(key) = self.members.key(*member) {
                self.members.remove(key);
            }
            *member = NOBODY;
        }
    }

    /// Puts a subscription where it is to begin.
    fn place(&mut self, index: u32, start: Start, known: bool) {
        let Some(subscription) = self.subscriptions.at_mut(index) else { return };
        let Some(topic) = self.topics.at(subscription.topic) else { return };
        let (first, next) = (topic.first(), topic.next);
        let (cursor, astray) = match start {
            Start::Now if known => return,
            Start::Now => (next, false),
            Start::Oldest => (first, false),
            Start::After(Position { epoch, offset }) if epoch == self.epoch && offset < next => {
                (offset.saturating_add(1), false)
            }
            Start::After(_) => (first, true),
        };
        let mut at = topic.items.first;
        for _ in first..cursor {
            at = self.items.at(at).map_or(NOBODY, |item| item.of_topic.after);
        }
        (subscription.cursor, subscription.astray, subscription.at) = (cursor, astray, at);
        self.dequeue(index);
        if astray || cursor < next {
            self.enqueue(index);
        }
    }

    /// There is something for this subscription. True: there was not before.
    fn enqueue(&mut self, index: u32) {
        let Some(subscription) = self.subscriptions.at(index).filter(|one| !one.ready.is_in()) else { return };
        let (member, topic) = (subscription.member, subscription.topic);
        if let Some(topic) = self.topics.at_mut(topic) {
            topic.behind = topic.behind.saturating_add(1);
        }
        if let Some(member) = self.members.at_mut(member) {
            member.ready.push(&mut self.subscriptions, index, |one| &mut one.ready);
        }
    }

    /// There is nothing for it, or it is to stand at the end.
    fn dequeue(&mut self, index: u32) {
        let Some(subscription) = self.subscriptions.at(index).filter(|one| one.ready.is_in()) else { return };
        let (member, topic) = (subscription.member, subscription.topic);
        if let Some(topic) = self.topics.at_mut(topic) {
            topic.behind = topic.behind.saturating_sub(1);
        }
        if let Some(member) = self.members.at_mut(member) {
            member.ready.remove(&mut self.subscriptions, index, |one| &mut one.ready);
        }
    }

    fn append(&mut self, now: Instant, topic: u32, payload: P, size: u32) {
        let forget = now.after(self.config.age);
        let item = Item { payload, size, topic, forget, of_all: Links::OUT, of_topic: Links::OUT };
        self.made = self.made.saturating_add(1);
        let Ok(item) = self.items.insert(mix(self.made), item).map(Key::index) else { return };
        self.bytes = self.bytes.saturating_add(u64::from(size));
        self.oldest.push(&mut self.items, item, |one| &mut one.of_all);
        if let Some(topic) = self.topics.at_mut(topic) {
            topic.items.push(&mut self.items, item, |one| &mut one.of_topic);
            topic.held = topic.held.saturating_add(1);
            topic.next = topic.next.saturating_add(1);
        }
        self.rearm();
    }

    /// The topic has a new item, and what was from `before` on is forgotten up to its first.
    fn wake_subscribers(&mut self, topic: u32, before: u64, mut sent: Sent, mut tell: impl FnMut(Key, u32)) -> Sent {
        let Some(about) = self.topics.at(topic) else { return sent };
        let (first, newest, item) = (about.first(), about.next.saturating_sub(1), about.items.last);
        let mut next = about.subscriptions.first;
        while let Some(subscription) = self.subscriptions.at_mut(next) {
            let index = core::mem::replace(&mut next, subscription.of_topic.after);
            self.steps = self.steps.saturating_add(1);
            if subscription.cursor == newest {
                subscription.at = item;
            }
            let lost = subscription.cursor.max(before) < first;
            let member = subscription.member;
            self.enqueue(index);
            if let Some(member) = self.members.at(member).filter(|member| member.connected) {
                sent.reached = sent.reached.saturating_add(1);
                sent.dropped = sent.dropped.saturating_add(u32::from(lost));
                tell(member.peer, 0);
            }
        }
        sent
    }

    /// Forgets an item; the topic `but` is seen to by whoever asks.
    fn forget(&mut self, index: u32, but: u32) {
        let Some(topic) = self.items.at(index).map(|item| item.topic) else { return };
        self.oldest.remove(&mut self.items, index, |one| &mut one.of_all);
        if let Some(topic) = self.topics.at_mut(topic) {
            topic.items.remove(&mut self.items, index, |one| &mut one.of_topic);
            topic.held = topic.held.saturating_sub(1);
        }
        if let Some(item) = self.items.key(index).and_then(|key| self.items.remove(key)) {
            self.bytes = self.bytes.saturating_sub(u64::from(item.size));
        }
        self.rearm();
        if topic != but {
            self.settle(topic, false);
        }
    }

    /// Puts a topic where it belongs: out, if nothing of it is left; among those that may go; or not among them. `fresh`: as
    /// the last that is to go.
    fn settle(&mut self, index: u32, fresh: bool) {
        let Some(topic) = self.topics.at(index) else { return };
        let alone = topic.subscribers == 0 && topic.leaving == 0;
        let awaited = topic.named > 0 || topic.leaving > 0 || topic.held > 0 || topic.behind > 0;
        let over = alone && topic.held == 0 && !fresh;
        let may_go = alone || !awaited;
        if over || fresh || !may_go {
            self.idle.remove(&mut self.topics, index, |one| &mut one.idle);
        }
        if over {
            let Some(topic) = self.topics.key(index).and_then(|key| self.topics.remove(key)) else { return };
            self.floor = self.floor.max(topic.next);
        } else if may_go {
            self.idle.push(&mut self.topics, index, |one| &mut one.idle);
        }
    }

    fn rearm(&mut self) {
        match self.items.at(self.oldest.first) {
            Some(oldest) => self.wake.arm(oldest.forget),
            None => self.wake.disarm(),
        }
    }
}

impl<P, M: Memory<P>> Timers for Topics<P, M> {
    fn timers(&self, see: &mut dyn FnMut(Wake, &Timer)) {
        see(Wake::Memory, &self.wake);
    }
}

const fn mix(bits: u64) -> u64 {
    SplitMix64::new(bits).next_u64()
}

/// Where the subscription of a member to a topic is found.
fn pair(member: u32, topic: u32) -> u64 {
    mix(u64::from(member) << 32 | u64::from(topic))
}
