//! What a hub keeps of one identity, of one connection, of one address.
//!
//! ```text
//!  Conn   Pending ─hello─▶ Verifying ─accepted─▶ Attached ─────────────▶ Closing ─▶ gone
//!            │ 10 s             │ refused        (or Knocking, then one of the two)  ▲ 2 s at most
//!            └──────────────────┴────────────────────────────────────────────────────┘
//!  Peer   connected ⇄ suspended ─ttl─▶ leaving ─▶ gone
//! ```

use super::limit::{Gcra, Tickets};
use super::log::Pending;
use super::replay::{Replay, Stamp};
use super::table::Key;
use super::types::{CloseReason, Identity};
use crate::ids::LinkId;
use crate::inbox::Seen;
use crate::outbox::Slot;
use crate::resume::ResumeRefusal;
use crate::ring::Slots;
use crate::session::Session;
use crate::store::Store;
use crate::time::{Instant, Timer};
use core::time::Duration;

/// An identity's session and what outlives its connections; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Peer<P, O: Slots<Slot<P>>, I: Store<Seen>, N: Slots<super::replay::Nonce>> {
    pub(super) identity: Identity,
    /// The session may have something to say.
    pub(super) dirty: bool,
    pub(super) conn: Option<(LinkId, Key)>,
    /// Why its last greeting did not resume it, if it asked to.
    pub(super) reason: Option<ResumeRefusal>,
    /// Another connection, which waits for the verdict about the first.
    pub(super) knocking: Option<(LinkId, Key)>,
    /// Of its backlog and of its messages at the application, so many are in the sums of the hub.
    pub(super) counted: super::Counted,
    /// Bytes of its messages that are at the application or wait for their turn.
    pub(super) held_bytes: u64,
    /// Without a connection, until then what waits for its turn is kept; and it is to be given back.
    pub(super) turns: Timer,
    pub(super) give_back: bool,
    pub(super) expires: Timer,
    /// It ends, for this reason; its connection is told to come back so much later.
    pub(super) leaving: Option<(CloseReason, Duration)>,
    /// The application was told of it.
    pub(super) war_told: bool,
    /// Broadcasts lost to it that the application was not told of yet.
    pub(super) lost: u32,
    /// Where it is among those that are subscribed to topics.
    pub(super) member: u32,
    /// Replacements of a connection that lived, since the first of them (U2).
    pub(super) takeovers: u8,
    pub(super) takeovers_since: Instant,
    /// Until then nobody may take it over from elsewhere; nor from its own address, if that is where the other place is.
    pub(super) war_until: Instant,
    pub(super) war_here: bool,
    /// Where the last connection came from.
    pub(super) address: u64,
    pub(super) handshakes: Gcra,
    pub(super) messages: Gcra,
    pub(super) bytes: Gcra,
    /// What was said before this may be in a memory of nonces that is lost: our wall clock, in microseconds.
    pub(super) since: i64,
    pub(super) replay: Replay<N>,
    pub(super) session: Session<P, O, I>,
}

impl<P, O: Slots<Slot<P>>, I: Store<Seen>, N: Slots<super::replay::Nonce>> Peer<P, O, I, N> {
    /// How many replacements there were within this time.
    pub(super) fn takeovers(&mut self, now: Instant, within: Duration) -> u8 {
        if self.takeovers == 0 || now.since(self.takeovers_since) > within {
            self.takeovers_since = now;
            self.takeovers = 0;
        }
        self.takeovers
    }
}

/// A connection; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Conn {
    pub(super) state: ConnState,
    /// What the adapter is to be told about it; the latest counts.
    pub(super) todo: Option<Todo>,
    pub(super) writable: bool,
    /// It has still to get the last broadcast of those for newcomers.
    pub(super) snapshot: bool,
    /// Messages refused by a limit, without one accepted between.
    pub(super) strikes: u8,
    /// Broadcasts lost to it that its session does not know of yet.
    pub(super) lost: u32,
    /// The span of time in which it was last heard.
    pub(super) heard: u64,
    pub(super) identity: Identity,
    pub(super) pending: Pending,
    pub(super) address: Key,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum ConnState {
    /// Open; nobody knows who it is.
    Pending,
    /// It says who it is, and the adapter is asked whether that is so.
    Verifying { stamp: Option<Stamp> },
    /// It waits for the verdict about another connection of its identity.
    Knocking { peer: Key },
    /// It carries this session.
    Attached { peer: Key, link: LinkId },
    /// The close handshake. The session `of` it still waits for its end; or one of the same address has replaced it in this
    /// session, and if it answers, it lived (U2).
    Closing { of: Option<(Key, LinkId)>, replaced: Option<Key> },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Todo {
    Verify,
    Welcome { resumed: bool, reason: Option<ResumeRefusal> },
    Close { why: CloseReason, after: Duration },
    Drop,
}

/// An address and what it has used up; opaque, so that storage can be made of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Address {
    pub(super) address: u64,
    pub(super) connections: u32,
    pub(super) handshakes: Gcra,
    pub(super) tickets: Tickets,
    pub(super) messages: Gcra,
    pub(super) bytes: Gcra,
}

impl Address {
    pub(super) const fn new(address: u64) -> Self {
        Self {
            address,
            connections: 0,
            handshakes: Gcra::new(),
            tickets: Tickets::new(),
            messages: Gcra::new(),
            bytes: Gcra::new(),
        }
    }

    /// From when on nothing is known about it that matters.
    pub(super) fn idle_from(&self) -> Instant {
        self.handshakes.idle_from().max(self.messages.idle_from()).max(self.bytes.idle_from())
    }
}
