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
mod subscribers;
mod types;

#[cfg(test)]
mod tests;

pub use name::{BadTopic, TopicFilter, TopicName};
pub use types::{Item, Member, Position, Start, Subscribed, Subscription, Topic, TopicHealth, TopicsFull, Wildcard};

use super::config::TopicsConfig;
use super::table::{Key, Table};
use super::{Memory, Sent};
use crate::ids::Origin;
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

    pub(super) fn payload(&self, item: u32) -> Option<&P> {
        self.items.at(item).map(|item| &item.payload)
    }

    pub(super) fn name(&self, topic: u32) -> Option<&TopicName> {
        self.topics.at(topic).map(|topic| &topic.name)
    }

    pub(super) const fn at(&self, offset: u64) -> Position {
        Position { epoch: self.epoch, offset }
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

    fn hash(&self, text: &[u8]) -> u64 {
        text.iter().fold(self.seed, |hash, byte| mix(hash ^ u64::from(*byte)))
    }

    fn find(&self, name: &TopicName) -> Option<u32> {
        self.topics.find(self.hash(name.as_bytes()), |topic| topic.name == *name).map(Key::index)
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
        let topic = self.topics.insert(self.hash(name.as_bytes()), Topic::new(*name, self.floor)).ok()?.index();
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

    /// Cells looked at since the beginning.
    #[cfg(test)]
    pub(super) fn touched(&self) -> u64 {
        self.topics.touched.get()
            + self.items.touched.get()
            + self.subscriptions.touched.get()
            + self.wildcards.touched.get()
            + self.members.touched.get()
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

/// What tells this hub's offsets from another's. Not the origin's own epoch: that counts the starts of one sender, often in
/// seconds, and two hubs that start in the same one would take each other's positions for theirs.
pub(super) fn epoch(seed: u64, origin: Origin) -> u32 {
    let drawn = SplitMix64::for_identity(mix(seed) ^ u64::from(origin.epoch()), origin.identity()).next_u64();
    u32::try_from(drawn >> 32).unwrap_or_default()
}

const fn mix(bits: u64) -> u64 {
    SplitMix64::new(bits).next_u64()
}
