//! How far a subscriber has followed a topic whose events have positions.
//!
//! ```text
//!  12: delivered ──▶ 12       12 again: a copy       gap to 20 ──▶ 20
//!  15: a hole, asked for since 12       13, 14 ──▶ 15       15 again: a copy
//! ```
//!
//! Invariants: it passes an event only when that was delivered, is known to be lost, or did not come while 256 later ones
//! did.

use bowline::wire::aivillage::Since;
use std::collections::BTreeSet;

/// So many events behind a hole are waited for, then it is given up.
pub(super) const BEYOND: usize = 256;

/// How far a topic has been followed.
#[derive(Clone, Debug)]
pub(super) struct Cursor {
    /// The last one before which nothing is missing; at first, what the application wants.
    pub(super) since: Since,
    /// Delivered already, beyond a hole.
    pub(super) beyond: BTreeSet<u64>,
    /// The hole has been asked for on this connection.
    pub(super) asked: bool,
}

/// What a cursor says to an event.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Place {
    Next,
    Copy,
    Beyond,
}

impl Cursor {
    pub(super) const fn new(since: Since) -> Self {
        Self { since, beyond: BTreeSet::new(), asked: false }
    }

    pub(super) fn place(&self, epoch: u32, offset: u64) -> Place {
        match self.since {
            Since::After { epoch: known, offset: last } if known == epoch => {
                if offset <= last || self.beyond.contains(&offset) {
                    Place::Copy
                } else if offset == last.saturating_add(1) {
                    Place::Next
                } else {
                    Place::Beyond
                }
            }
            // The first of its topic, or of another run: a hub that knew of a gap has said so before.
            Since::After { .. } | Since::Oldest | Since::Now => Place::Next,
        }
    }

    /// Up to this nothing is missing any more.
    pub(super) fn reached(&mut self, epoch: u32, mut offset: u64) {
        match self.since {
            Since::After { epoch: known, offset: last } if known == epoch => offset = offset.max(last),
            Since::After { .. } | Since::Oldest | Since::Now => self.beyond.clear(),
        }
        self.beyond = self.beyond.split_off(&offset.saturating_add(1));
        while self.beyond.first() == Some(&offset.saturating_add(1)) {
            self.beyond.pop_first();
            offset = offset.saturating_add(1);
        }
        self.since = Since::After { epoch, offset };
        self.asked &= !self.beyond.is_empty();
    }

    /// This one is the application's now, or was before.
    pub(super) fn delivered(&mut self, epoch: u32, offset: u64) {
        if self.place(epoch, offset) == Place::Beyond && self.beyond.len() < BEYOND {
            self.beyond.insert(offset);
        } else {
            self.reached(epoch, offset);
        }
    }
}
