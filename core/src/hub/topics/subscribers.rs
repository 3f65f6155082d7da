//! Who is subscribed to what, from where on, and who is to be told of it.
//!
//! ```text
//!   a name   ─▶ its topic, made if need be ─┐
//!   a filter ─▶ kept, for topics to come     ├─▶ attach: one Subscription for a session and a topic ─▶ place: its cursor
//!            └▶ all topics that match now ───┘        │ named, or matched by a filter, or both
//!                                                     └─ detach when neither holds any more, or the session is over
//! ```
//!
//! Invariants: a session has one subscription to a topic, however often it asked; a subscription is in the ready list of its
//! member while there is something for it, and `behind` of its topic counts that; the end of one whose beginning was told
//! keeps its place, and its topic, until it is told.
//! Rules: U4.

use super::list::{Links, List};
use super::{
    Member, NOBODY, Position, Presence, Start, Subscribed, Subscription, TopicFilter, TopicName, Topics, TopicsFull,
    Wildcard, mix,
};
use crate::hub::Memory;
use crate::hub::table::Key;

impl<P, M: Memory<P>> Topics<P, M> {
    pub(in crate::hub) fn connected(&mut self, member: u32, yes: bool) {
        if let Some(member) = self.members.at_mut(member) {
            member.connected = yes;
        }
    }

    /// Each topic that a session is subscribed to, and the last that was given to it or told as missed.
    pub(in crate::hub) fn subscriptions(&self, member: u32) -> impl Iterator<Item = (&TopicName, Position)> {
        let first = self.members.at(member).map_or(NOBODY, |member| member.subscriptions.first);
        self.of_member(first).filter_map(|(_, subscription)| {
            Some((self.name(subscription.topic)?, self.at(subscription.cursor.saturating_sub(1))))
        })
    }

    /// A session's filters with a wildcard.
    pub(in crate::hub) fn filters(&self, member: u32) -> impl Iterator<Item = &TopicFilter> {
        let first = self.members.at(member).map_or(NOBODY, |member| member.wildcards.first);
        let wildcards = core::iter::successors(self.wildcards.at(first), |one| self.wildcards.at(one.of_member.after));
        wildcards.map(|wildcard| &wildcard.filter)
    }

    pub(in crate::hub) const fn has_presence(&self) -> bool {
        !self.untold.is_empty()
    }

    /// The next change of who is subscribed to what.
    pub(in crate::hub) fn next_presence(&mut self) -> Option<Presence> {
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
    pub(in crate::hub) fn subscribe(
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
    pub(in crate::hub) fn unsubscribe(&mut self, member: &mut u32, filter: &TopicFilter) -> bool {
        let was = match filter.exact() {
            Some(name) => self.unsubscribe_from(*member, &name),
            None => self.unsubscribe_all(*member, filter),
        };
        self.release(member);
        was
    }

    /// A session is over, and with it all it was subscribed to.
    pub(in crate::hub) fn leave(&mut self, member: &mut u32) {
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
            let hash = self.hash(filter.as_bytes());
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
    pub(super) fn may_add(&self, member: u32, more: usize) -> Result<(), TopicsFull> {
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

    pub(super) fn subscription(&self, member: u32, topic: u32) -> Option<u32> {
        let is = |one: &Subscription| one.member == member && one.topic == topic && !one.over;
        self.subscriptions.find(pair(member, topic), is).map(Key::index)
    }

    fn wildcard(&self, member: u32, filter: &TopicFilter) -> Option<u32> {
        let is = |one: &Wildcard| one.member == member && one.filter == *filter;
        self.wildcards.find(self.hash(filter.as_bytes()), is).map(Key::index)
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

    pub(super) fn attach(&mut self, peer: Key, member: u32, topic: u32) -> Option<u32> {
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
    pub(super) fn detach(&mut self, index: u32, tell: bool) {
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
    pub(super) fn enqueue(&mut self, index: u32) {
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
    pub(super) fn dequeue(&mut self, index: u32) {
        let Some(subscription) = self.subscriptions.at(index).filter(|one| one.ready.is_in()) else { return };
        let (member, topic) = (subscription.member, subscription.topic);
        if let Some(topic) = self.topics.at_mut(topic) {
            topic.behind = topic.behind.saturating_sub(1);
        }
        if let Some(member) = self.members.at_mut(member) {
            member.ready.remove(&mut self.subscriptions, index, |one| &mut one.ready);
        }
    }
}

/// Where the subscription of a member to a topic is found.
fn pair(member: u32, topic: u32) -> u64 {
    mix(u64::from(member) << 32 | u64::from(topic))
}
