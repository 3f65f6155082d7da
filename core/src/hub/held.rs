//! The bytes that peers' messages take while the application has them, shared by identity.
//!
//! ```text
//!   held_bytes ├─── a ───┤── b ──┤──────── left ────────┤ half ├─ an equal part for every session there may be ─┤
//!                a message is taken if then   own ≤ left / 8   or   own ≤ the equal part
//! ```
//!
//! What is at the application is not asked back: it is the application's. What waits for its turn (S9) is, in two cases: if
//! there is no room for the message whose turn it is, which alone could end that wait; and if its session has had neither
//! connection nor request for as long as a silent peer takes to be dead, so that nobody is there to send that message.
//!
//! Invariants: no identity takes more than a ninth of what is left of the first half; one that has no more than its equal
//! part is never refused for what others have. A copy of what is remembered is no message: it is always looked at.
//! Field bug: sixteen identities of one address keep back number 1 and send what follows it, and no peer's message is taken
//! until the last of their sessions has expired, an hour later.
//! Rule: U12.

use super::table::Key;
use super::{Hub, HubConfig, Memory, SessionId};
use crate::ids::{ContentKey, MessageId, Seq};
use crate::inbox::Arrival;
use crate::session::Head;

/// Beyond its equal part an identity has at most one byte for every eight that are left then.
const SHARE: u64 = 8;

impl HubConfig {
    /// Returns the length of the largest message that is taken while nothing else is held, in bytes (U12): an eighteenth of
    /// [`held_bytes`](Self::held_bytes).
    ///
    /// ```
    /// # use bowline::hub::HubConfig;
    /// assert_eq!(HubConfig::DEFAULT.largest_message(), (256 << 20) / 18);
    /// ```
    #[must_use]
    pub const fn largest_message(&self) -> u64 {
        // With it the half has eight times as much left.
        const PARTS: u64 = SHARE + 1;
        self.held_bytes / 2 / PARTS
    }
}

impl<P, M: Memory<P>> Hub<P, M> {
    /// The application, or the keeper of messages until their turn, has `bytes` of this session's less: said once for
    /// each message that was handed over or kept ([`Arrival::Deliver`], [`Arrival::Ahead`]), with the bytes it came with, when
    /// it is completed or dropped; also if its session has ended before.
    ///
    /// ```
    /// use bowline::hub::{Hub, HubConfig, Identity, Inline};
    /// use bowline::{Arrival, Instant, MessageId, Origin, RequestId, Verdict};
    /// let now = Instant::ZERO;
    /// let mut hub: Hub<&str, Inline<4>> = Hub::new(HubConfig::DEFAULT.check()?, 42, Origin::new(7, 1), now);
    /// let (who, id) = (Identity::from_bits(1), Some(MessageId::from_bits(9)));
    /// let taken = hub.request(now, 0, who, RequestId(1), id, None, 500, None);
    /// let Ok((session, Arrival::Deliver { delivery, .. })) = taken else { panic!() };
    /// assert_eq!(hub.health().held_bytes, 500);
    /// hub.complete(now, session, delivery, Verdict::Done);
    /// hub.release(session, 500);
    /// assert_eq!(hub.health().held_bytes, 0);
    /// # Ok::<(), bowline::ConfigError>(())
    /// ```
    pub fn release(&mut self, session: SessionId, bytes: u32) {
        self.held_bytes = self.held_bytes.saturating_sub(bytes.into());
        if let Some(peer) = self.peers.get_mut(session.0) {
            peer.held_bytes = peer.held_bytes.saturating_sub(bytes.into());
        }
    }

    /// Whether a frame may be looked at: it is no message, or there is room for it, or it is a copy.
    pub(super) fn has_room(&mut self, key: Key, head: Head, bytes: u32) -> bool {
        match head {
            Head::Data { id, key: content } => self.has_room_for(key, None, id, content, bytes),
            Head::Numbered { seq, .. } => self.has_room_for(key, Some(seq), None, None, bytes),
            Head::Ack { .. }
            | Head::Reject { .. }
            | Head::Marks { .. }
            | Head::Nack { .. }
            | Head::Welcome { .. }
            | Head::Pong
            | Head::Word { .. }
            | Head::Part
            | Head::Hello
            | Head::Other
            | Head::Malformed => true,
        }
    }

    /// The same for a message by its number, or by its id and its content. If there is no room for the one whose turn it is,
    /// what waits behind it is to make room.
    pub(super) fn has_room_for(
        &mut self,
        key: Key,
        seq: Option<Seq>,
        id: Option<MessageId>,
        content: Option<ContentKey>,
        bytes: u32,
    ) -> bool {
        if self.fits(key, bytes) {
            return true;
        }
        let Some(peer) = self.peers.get_mut(key) else { return true };
        let Some(seq) = seq else { return peer.session.knows(self.now, id, content) };
        let copy = peer.session.has(self.now, seq);
        peer.give_back |= !copy && peer.session.is_next(seq) && peer.session.has_waiting();
        copy
    }

    /// Whether an identity that takes `bytes` more has no more than it may have.
    fn fits(&self, key: Key, bytes: u32) -> bool {
        let Some(identity) = self.peers.get(key).map(|peer| peer.identity) else { return true };
        let mut own = u64::from(bytes);
        // Where several sessions of one identity may live side by side, it has one share.
        let _ = self.peers.find(identity.hash(), |peer| {
            if peer.identity == identity {
                own = own.saturating_add(peer.held_bytes);
            }
            false
        });
        let (limit, taken) = (self.config.get().held_bytes, self.held_bytes.saturating_add(bytes.into()));
        let equal_part = u64::try_from(self.config.get().sessions).ok().and_then(|all| (limit / 2).checked_div(all));
        if equal_part.is_some_and(|part| own <= part) {
            return taken <= limit;
        }
        (limit / 2).checked_sub(taken).is_some_and(|left| own <= left / SHARE)
    }

    /// A message was taken.
    pub(super) fn hold(&mut self, key: Key, arrival: Arrival, bytes: u32) {
        if !matches!(arrival, Arrival::Deliver { .. } | Arrival::Ahead { .. }) {
            return;
        }
        self.held_bytes = self.held_bytes.saturating_add(bytes.into());
        if let Some(peer) = self.peers.get_mut(key) {
            peer.held_bytes = peer.held_bytes.saturating_add(bytes.into());
        }
    }

    /// Something of this session's may wait for its turn, and nobody may be there to bring what it waits for.
    pub(super) fn watch_turns(&mut self, key: Key) {
        let dead = self.config.get().native.map(|native| native.heartbeat.dead);
        let Some((peer, dead)) = self.peers.get_mut(key).zip(dead) else { return };
        if peer.conn.is_none() && peer.session.has_waiting() {
            peer.turns.arm(self.now.after(dead));
        } else {
            peer.turns.disarm();
        }
    }
}
