//! What is said about topics, and what a hub keeps of each, of an item, of a subscription.

use super::list::{Links, List, NONE};
use super::{TopicFilter, TopicName};
use crate::hub::table::Key;
use crate::time::Instant;
use core::fmt;

/// A place in a topic's stream of items.
///
/// The epoch is drawn when the hub is made, from its origin and its seed: another hub, or the same one with another memory,
/// has another. It says nothing of which was first. Offsets of a topic only grow within an epoch, from 1, and none is given
/// twice. A topic that was forgotten and comes back begins where no
/// forgotten one had been, so that an old position never seems to be in its present stream.
///
/// ```
/// use bowline::hub::Position;
/// assert_ne!(Position { epoch: 1, offset: 9 }, Position { epoch: 2, offset: 9 });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// Of the hub's life; a number that it drew.
    pub epoch: u32,
    /// Of the item; 0 is before the first.
    pub offset: u64,
}

/// Where a subscription begins.
///
/// ```
/// use bowline::hub::{Position, Start};
/// let again = Start::After(Position { epoch: 1, offset: 41 });
/// # let _ = again;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Start {
    /// With what is published from now on. Whoever is subscribed already goes on where it is.
    Now,
    /// With everything that history holds, whatever it had before.
    Oldest,
    /// With what follows this, the last that it has. If that is of another epoch, or was never given, or was forgotten, it
    /// is told of the gap and gets everything that history holds. A position is one topic's: with a wildcard, `Oldest`.
    After(Position),
}

/// What subscribing gave.
///
/// ```
/// # use bowline::hub::Subscribed;
/// let quiet = Subscribed { added: true, topics: 0, newest: None };
/// # let _ = quiet;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Subscribed {
    /// It was not subscribed by this filter before.
    pub added: bool,
    /// So many topics match now. More may come.
    pub topics: u32,
    /// Of the one topic that the filter means, the newest item's place: with [`Start::Now`] what comes follows it.
    pub newest: Option<Position>,
}

/// Why a session cannot subscribe.
///
/// ```
/// use bowline::hub::TopicsFull;
/// assert_eq!(TopicsFull::Filters.to_string(), "no place for another wildcard filter");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TopicsFull {
    /// There is no such session, or it ends.
    NoSession,
    /// There is no place for another topic.
    Topics,
    /// There is no place for another subscription.
    Subscriptions,
    /// There is no place for another wildcard filter.
    Filters,
    /// This session has as many subscriptions or filters as one may have.
    Share,
}

impl fmt::Display for TopicsFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSession => "no such session",
            Self::Topics => "no place for another topic",
            Self::Subscriptions => "no place for another subscription",
            Self::Filters => "no place for another wildcard filter",
            Self::Share => "as many subscriptions as one session may have",
        })
    }
}

impl core::error::Error for TopicsFull {}

/// How a topic stands.
///
/// ```
/// # use bowline::hub::{Position, TopicHealth, TopicName};
/// let newest = Position { epoch: 1, offset: 7 };
/// let quiet = TopicHealth { name: TopicName::new("a.b")?, subscribers: 0, behind: 0, held: 0, newest };
/// # let _ = quiet;
/// # Ok::<(), bowline::hub::BadTopic>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TopicHealth {
    /// The topic's name.
    pub name: TopicName,
    /// Sessions subscribed, connected or not.
    pub subscribers: u32,
    /// Of these, so many have still something to get.
    pub behind: u32,
    /// Items that history holds.
    pub held: u32,
    /// The place of the newest item, whether it is held or not.
    pub newest: Position,
}

/// A topic; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Topic {
    pub(super) name: TopicName,
    /// The offset that the next item will get.
    pub(super) next: u64,
    /// Its items, oldest first, and how many.
    pub(super) items: List,
    pub(super) held: u32,
    pub(super) subscriptions: List,
    pub(super) subscribers: u32,
    /// Of the subscribers, those who named it.
    pub(super) named: u32,
    /// Of the subscribers, those with something to get.
    pub(super) behind: u32,
    /// Subscriptions that are over and whose end is still to be told.
    pub(super) leaving: u32,
    /// Among the topics that may be forgotten if the place is needed.
    pub(super) idle: Links,
}

impl Topic {
    pub(super) const fn new(name: TopicName, next: u64) -> Self {
        Self {
            name,
            next,
            items: List::EMPTY,
            held: 0,
            subscriptions: List::EMPTY,
            subscribers: 0,
            named: 0,
            behind: 0,
            leaving: 0,
            idle: Links::OUT,
        }
    }

    /// The offset of the oldest item held; `next` if none is.
    pub(super) fn first(&self) -> u64 {
        self.next.saturating_sub(u64::from(self.held))
    }
}

/// An item of a topic's history; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Item<P> {
    pub(super) payload: P,
    pub(super) size: u32,
    pub(super) topic: u32,
    pub(super) forget: Instant,
    /// Among all items, in the order in which they came.
    pub(super) of_all: Links,
    pub(super) of_topic: Links,
}

/// One session's place in one topic; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Subscription {
    pub(super) member: u32,
    pub(super) topic: u32,
    /// Whose, when there is no member any more.
    pub(super) peer: Key,
    /// The offset it gets next.
    pub(super) cursor: u64,
    /// That item, while it is held.
    pub(super) at: u32,
    pub(super) of_topic: Links,
    pub(super) of_member: Links,
    /// Among its member's subscriptions with something to get.
    pub(super) ready: Links,
    /// Among those whose beginning or end is to be told.
    pub(super) untold: Links,
    /// By the topic's name, whatever filters match besides.
    pub(super) named: bool,
    /// What it had is of another stream: nobody knows how much it misses.
    pub(super) astray: bool,
    /// The application was told that it is there.
    pub(super) told: bool,
    /// It is over; only that is to be told.
    pub(super) over: bool,
}

impl Subscription {
    pub(super) const fn new(member: u32, topic: u32, peer: Key, cursor: u64) -> Self {
        Self {
            member,
            topic,
            peer,
            cursor,
            at: NONE,
            of_topic: Links::OUT,
            of_member: Links::OUT,
            ready: Links::OUT,
            untold: Links::OUT,
            named: false,
            astray: false,
            told: false,
            over: false,
        }
    }
}

/// A session's filter with a wildcard; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Wildcard {
    pub(super) member: u32,
    pub(super) filter: TopicFilter,
    pub(super) of_member: Links,
}

/// A session that has subscribed to anything; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    pub(super) peer: Key,
    pub(super) connected: bool,
    pub(super) subscriptions: List,
    pub(super) subscribed: u32,
    pub(super) wildcards: List,
    pub(super) filters: u32,
    /// Subscriptions with something to get, in turn.
    pub(super) ready: List,
}
