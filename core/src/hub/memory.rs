//! Where a hub keeps its tables: inside itself, for numbers known at compile time, or in vectors that grow to its limits.

use super::log::Entry;
use super::peer::{Address, Conn, Peer};
use super::replay::Nonce;
use super::table::Cell;
use super::topics::{Item, Member, Subscription, Topic, Wildcard};
use crate::inbox::Seen;
use crate::outbox::Slot;
use crate::ring::Slots;
use crate::store::{Fixed, Store};

/// The storage of a hub. [`Inline`] and, with the feature `alloc`, [`Grows`] are the two there are.
///
/// ```
/// use bowline::hub::{Hub, HubConfig, Inline};
/// use bowline::{Instant, Origin};
/// let hub: Hub<&str, Inline<4>> = Hub::new(HubConfig::DEFAULT.check()?, 42, Origin::new(7, 1), Instant::ZERO);
/// assert_eq!(hub.health().sessions, 0);
/// # Ok::<(), bowline::ConfigError>(())
/// ```
pub trait Memory<P>: Sized {
    /// Of a session's messages out.
    type Outbox: Slots<Slot<P>>;
    /// Of a session's memory of messages in.
    type Inbox: Store<Seen>;
    /// Of an identity's nonces.
    type Nonces: Slots<Nonce>;
    /// Of the sessions.
    type Peers: Slots<Cell<Peer<P, Self::Outbox, Self::Inbox, Self::Nonces>>>;
    /// Of the connections.
    type Conns: Slots<Cell<Conn>>;
    /// Of the addresses.
    type Addresses: Slots<Cell<Address>>;
    /// Of the broadcasts.
    type Log: Slots<Entry<P>>;
    /// Of the topics.
    type Topics: Slots<Cell<Topic>>;
    /// Of their histories.
    type Items: Slots<Cell<Item<P>>>;
    /// Of who is subscribed to which of them.
    type Subscriptions: Slots<Cell<Subscription>>;
    /// Of the filters with a wildcard.
    type Wildcards: Slots<Cell<Wildcard>>;
    /// Of the sessions that are subscribed to anything.
    type Members: Slots<Cell<Member>>;

    /// Empty storage for one session and its identity.
    fn session() -> (Self::Outbox, Self::Inbox, Self::Nonces);
    /// Empty storage for what every hub has.
    fn hub() -> (Self::Peers, Self::Conns, Self::Addresses, Self::Log);
    /// Empty storage for its topics.
    fn topics() -> (Self::Topics, Self::Items);
    /// Empty storage for who is subscribed to them.
    fn subscribers() -> (Self::Subscriptions, Self::Wildcards, Self::Members);
}

/// Fixed memory: so many sessions, connections and addresses each; messages out, remembered messages and nonces a session;
/// broadcasts; topics; items in all their histories together; subscriptions, and as many filters with wildcards and
/// sessions that have any. Unless it is said otherwise there are no topics, and they take no memory.
///
/// ```
/// use bowline::hub::{Hub, Inline};
/// assert!(size_of::<Hub<u32, Inline<2, 2, 4, 4, 4>>>() < 16 * 1024);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Inline<
    const SESSIONS: usize,
    const OUT: usize = 8,
    const IN: usize = 16,
    const NONCES: usize = 16,
    const LOG: usize = 16,
    const TOPICS: usize = 0,
    const ITEMS: usize = 0,
    const SUBSCRIPTIONS: usize = 0,
> {}

impl<
    P,
    const SESSIONS: usize,
    const OUT: usize,
    const IN: usize,
    const NONCES: usize,
    const LOG: usize,
    const TOPICS: usize,
    const ITEMS: usize,
    const SUBSCRIPTIONS: usize,
> Memory<P> for Inline<SESSIONS, OUT, IN, NONCES, LOG, TOPICS, ITEMS, SUBSCRIPTIONS>
{
    type Outbox = [Option<Slot<P>>; OUT];
    type Inbox = Fixed<Seen, IN>;
    type Nonces = [Option<Nonce>; NONCES];
    type Peers = [Option<Cell<Peer<P, Self::Outbox, Self::Inbox, Self::Nonces>>>; SESSIONS];
    type Conns = [Option<Cell<Conn>>; SESSIONS];
    type Addresses = [Option<Cell<Address>>; SESSIONS];
    type Log = [Option<Entry<P>>; LOG];
    type Topics = [Option<Cell<Topic>>; TOPICS];
    type Items = [Option<Cell<Item<P>>>; ITEMS];
    type Subscriptions = [Option<Cell<Subscription>>; SUBSCRIPTIONS];
    type Wildcards = [Option<Cell<Wildcard>>; SUBSCRIPTIONS];
    type Members = [Option<Cell<Member>>; SUBSCRIPTIONS];

    fn session() -> (Self::Outbox, Self::Inbox, Self::Nonces) {
        const { assert!(OUT > 0 && IN > 0 && NONCES > 0, "a session needs room for a message each way and a nonce") };
        ([const { None }; OUT], Fixed::new(), [const { None }; NONCES])
    }

    fn hub() -> (Self::Peers, Self::Conns, Self::Addresses, Self::Log) {
        const { assert!(SESSIONS > 0 && LOG > 0, "a hub needs room for a session and a broadcast") };
        ([const { None }; SESSIONS], [const { None }; SESSIONS], [const { None }; SESSIONS], [const { None }; LOG])
    }

    fn topics() -> (Self::Topics, Self::Items) {
        ([const { None }; TOPICS], [const { None }; ITEMS])
    }

    fn subscribers() -> (Self::Subscriptions, Self::Wildcards, Self::Members) {
        ([const { None }; SUBSCRIPTIONS], [const { None }; SUBSCRIPTIONS], [const { None }; SUBSCRIPTIONS])
    }
}

/// Memory that is taken when it is first needed, up to the limits of the configuration.
///
/// ```
/// use bowline::hub::{Grows, Hub, HubConfig};
/// use bowline::{Instant, Origin};
/// let hub: Hub<String, Grows> = Hub::new(HubConfig::DEFAULT.check()?, 42, Origin::new(7, 1), Instant::ZERO);
/// assert_eq!(hub.deadline(), None);
/// # Ok::<(), bowline::ConfigError>(())
/// ```
#[cfg(feature = "alloc")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Grows {}

#[cfg(feature = "alloc")]
impl<P> Memory<P> for Grows {
    type Outbox = alloc::vec::Vec<Option<Slot<P>>>;
    type Inbox = alloc::vec::Vec<Seen>;
    type Nonces = alloc::vec::Vec<Option<Nonce>>;
    type Peers = alloc::vec::Vec<Option<Cell<Peer<P, Self::Outbox, Self::Inbox, Self::Nonces>>>>;
    type Conns = alloc::vec::Vec<Option<Cell<Conn>>>;
    type Addresses = alloc::vec::Vec<Option<Cell<Address>>>;
    type Log = alloc::vec::Vec<Option<Entry<P>>>;
    type Topics = alloc::vec::Vec<Option<Cell<Topic>>>;
    type Items = alloc::vec::Vec<Option<Cell<Item<P>>>>;
    type Subscriptions = alloc::vec::Vec<Option<Cell<Subscription>>>;
    type Wildcards = alloc::vec::Vec<Option<Cell<Wildcard>>>;
    type Members = alloc::vec::Vec<Option<Cell<Member>>>;

    fn session() -> (Self::Outbox, Self::Inbox, Self::Nonces) {
        Default::default()
    }

    fn hub() -> (Self::Peers, Self::Conns, Self::Addresses, Self::Log) {
        Default::default()
    }

    fn topics() -> (Self::Topics, Self::Items) {
        Default::default()
    }

    fn subscribers() -> (Self::Subscriptions, Self::Wildcards, Self::Members) {
        Default::default()
    }
}
