//! Topics at the hub's surface: who may subscribe, what publishing does, and a session's turn.

use super::{Due, NOBODY, Position, Presence, Start, Subscribed, TopicFilter, TopicHealth, TopicName, TopicsFull};
use crate::hub::table::Key;
use crate::hub::{Hub, HubEvent, HubOutput, Memory, Sent, SessionId};
use crate::time::Instant;

impl<P, M: Memory<P>> Hub<P, M> {
    /// Subscribes a session, connected or not, to a topic or to all that a filter matches, now and later. Saying it again
    /// changes nothing but the place, where `start` asks for one. A topic that is named need not exist: it does then.
    ///
    /// # Errors
    /// There is no place, or no such session; nothing was changed.
    pub fn subscribe(
        &mut self,
        now: Instant,
        session: SessionId,
        filter: &TopicFilter,
        start: Start,
    ) -> Result<Subscribed, TopicsFull> {
        self.enter(now, |hub| {
            let Some(peer) = hub.peers.get(session.0).filter(|peer| peer.leaving.is_none()) else {
                return Err(TopicsFull::NoSession);
            };
            let (mut member, connected) = (peer.member, peer.conn.is_some());
            let peers = &mut hub.peers;
            let unserved = |key| {
                if let Some(peer) = peers.get_mut(key) {
                    peer.lost = peer.lost.saturating_add(1);
                    peers.make_ready(key);
                }
            };
            let subscribed = hub.topics.subscribe(session.0, connected, &mut member, filter, start, unserved);
            hub.set_member(session.0, member);
            hub.peers.make_ready(session.0);
            subscribed
        })
    }

    /// Ends what [`subscribe`](Self::subscribe) with the same filter began; a topic that another filter of the session
    /// matches goes on. False: it was not subscribed so.
    pub fn unsubscribe(&mut self, now: Instant, session: SessionId, filter: &TopicFilter) -> bool {
        self.enter(now, |hub| {
            let Some(mut member) = hub.peers.get(session.0).map(|peer| peer.member) else { return false };
            let was = hub.topics.unsubscribe(&mut member, filter);
            hub.set_member(session.0, member);
            was
        })
    }

    /// Appends an item to a topic, which need not exist: it lies in the topic's history once, and every subscriber gets it
    /// as fast as it reads. Whoever is behind by more than history holds is told of a gap; whoever is away goes on where it
    /// was when it comes back. What could never be held ([`Sent::refused`]) is not published and has no place.
    ///
    /// ```
    /// use bowline::hub::{Hub, HubConfig, HubOutput, Identity, Inline, Start, TopicName};
    /// use bowline::{Instant, Origin};
    ///
    /// // Room for two sessions, and for two topics with four items and four subscriptions.
    /// type Small = Hub<&'static str, Inline<2, 8, 16, 16, 16, 2, 4, 4>>;
    /// let now = Instant::ZERO;
    /// let mut hub = Small::new(HubConfig::DEFAULT.check()?, 42, Origin::new(7, 1), now);
    /// let session = hub.adopt(now, Identity::from_bits(1), false).unwrap(); // or one that has connected
    /// hub.subscribe(now, session, &"training.*".parse()?, Start::Now)?;
    /// let progress: TopicName = "training.progress".parse()?;
    /// let sent = hub.publish_topic(now, &progress, "12 %", 4);
    /// assert_eq!((sent.reached, sent.refused), (0, 0), "it is away: that waits for it");
    /// assert_eq!(hub.subscribers(&progress), 1);
    /// # Ok::<(), Box<dyn core::error::Error>>(())
    /// ```
    pub fn publish_topic(&mut self, now: Instant, topic: &TopicName, payload: P, size: u32) -> Sent {
        self.enter(now, |hub| {
            let peers = &mut hub.peers;
            let tell = |key, lost| {
                if let Some(peer) = peers.get_mut(key) {
                    peer.lost = peer.lost.saturating_add(lost);
                    peers.make_ready(key);
                }
            };
            let sent = hub.topics.publish(hub.now, topic, payload, size, tell);
            hub.stats.published = hub.stats.published.saturating_add(1);
            hub.stats.refused_copies = hub.stats.refused_copies.saturating_add(u64::from(sent.refused));
            sent
        })
    }

    /// How many sessions are subscribed to a topic, connected or not.
    #[must_use]
    pub fn subscribers(&self, topic: &TopicName) -> usize {
        self.topics.subscribers(topic)
    }

    /// The topics that a session is subscribed to, by name or by a filter, and of each the last item that was given to it
    /// or that it was told it missed.
    pub fn subscriptions(&self, session: SessionId) -> impl Iterator<Item = (&TopicName, Position)> {
        self.topics.subscriptions(self.member(session.0))
    }

    /// A session's filters with a wildcard.
    pub fn filters(&self, session: SessionId) -> impl Iterator<Item = &TopicFilter> {
        self.topics.filters(self.member(session.0))
    }

    /// Every topic there is, and how it stands.
    pub fn topics(&self) -> impl Iterator<Item = TopicHealth> {
        self.topics.all()
    }

    fn member(&self, key: Key) -> u32 {
        self.peers.get(key).map_or(NOBODY, |peer| peer.member)
    }

    fn set_member(&mut self, key: Key, member: u32) {
        if let Some(peer) = self.peers.get_mut(key) {
            peer.member = member;
        }
    }

    /// Its session has a connection now, or none.
    pub(in crate::hub) fn member_connected(&mut self, key: Key, yes: bool) {
        self.topics.connected(self.member(key), yes);
    }

    /// Its session is over.
    pub(in crate::hub) fn member_leaves(&mut self, key: Key) {
        let mut member = self.member(key);
        self.topics.leave(&mut member);
        self.set_member(key, member);
    }

    /// What comes next to a session from its topics.
    pub(in crate::hub) fn topical(&mut self, key: Key) -> Option<Due> {
        let due = self.topics.next(self.member(key))?;
        let stats = &mut self.stats;
        match due {
            Due::Item { .. } => stats.topic_copies = stats.topic_copies.saturating_add(1),
            Due::Gap { .. } => stats.gaps = stats.gaps.saturating_add(1),
        }
        Some(due)
    }

    /// The same, with what it borrows.
    pub(in crate::hub) fn topic_output(&self, conn: Key, session: Key, due: Due) -> Option<HubOutput<'_, P>> {
        let (conn, session) = (crate::hub::ConnId(conn), SessionId(session));
        Some(match due {
            Due::Item { topic, item, offset } => HubOutput::Topic {
                conn,
                session,
                topic: self.topics.name(topic)?,
                position: self.topics.at(offset),
                payload: self.topics.payload(item)?,
            },
            Due::Gap { topic, from, to } => {
                let Position { epoch, .. } = self.topics.at(to);
                HubOutput::Gap { conn, session, topic: self.topics.name(topic)?, epoch, from, to }
            }
        })
    }

    pub(in crate::hub) fn next_presence(&mut self) -> Option<HubEvent> {
        let Presence { peer, topic, present, subscribers } = self.topics.next_presence()?;
        Some(HubEvent::Presence { session: SessionId(peer), topic, present, subscribers })
    }
}
