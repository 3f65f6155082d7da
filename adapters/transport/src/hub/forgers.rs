//! Whoever posts what is not signed by whom it names is not verified again and again.
//!
//! ```text
//!  POST ─▶ its address has owed too much? ─ yes ─▶ 429, nothing verified
//!                     └─ no ─▶ verified ─ does not hold ─▶ 401, and its address owes one more
//! ```
//!
//! A signature takes fifty microseconds to verify, and a forged one costs its sender nothing. Invariants: so many addresses
//! are known at most, and none of them longer than its debt; whoever has forged nothing is never held up by these, but by
//! those behind the same address.
//! Rule: U8.

use bowline::Instant;
use bowline::hub::{Gcra, Rate};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Wrong signatures of one address: so many at once as a miner with a wrong key or clock needs to notice it, then one a
/// second.
const FORGERIES: Rate = Rate { per_second: 1, burst: 16 };

/// So many addresses are known. One that comes when all of them owe is not noted; the machine's limits for an address and
/// the number of connections hold for it all the same.
const ADDRESSES: usize = 4096;

#[derive(Default)]
pub(super) struct Forgers(Mutex<BTreeMap<u64, Gcra>>);

impl Forgers {
    /// Whether what comes from this address is worth verifying; if not, in how long it will be.
    pub(super) fn may(&self, now: Instant, address: u64) -> Result<(), Duration> {
        // Of a copy: only a wrong signature is paid for.
        let known = self.lock().get(&address).cloned();
        known.map_or(Ok(()), |mut owes| owes.take(now, FORGERIES, 1))
    }

    /// A signature from this address does not hold.
    pub(super) fn caught(&self, now: Instant, address: u64) {
        let mut known = self.lock();
        if known.len() >= ADDRESSES && !known.contains_key(&address) {
            known.retain(|_, owes| owes.idle_from() > now);
            if known.len() >= ADDRESSES {
                return;
            }
        }
        // Refused: it owes as much as it can already.
        let _ = known.entry(address).or_default().take(now, FORGERIES, 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Gcra>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn u8_after_sixteen_wrong_signatures_an_address_waits() {
        let (forgers, start) = (Forgers::default(), Instant::ZERO);
        for _ in 0..16 {
            assert_eq!(forgers.may(start, 1), Ok(()));
            forgers.caught(start, 1);
        }
        assert_eq!((forgers.may(start, 1), forgers.may(start, 2)), (Err(SECOND), Ok(())));
        assert_eq!(forgers.may(start.after(SECOND), 1), Ok(()), "to be asked costs nothing");
        assert_eq!(forgers.may(start.after(SECOND), 1), Ok(()));
        forgers.caught(start.after(SECOND), 1);
        assert_eq!(forgers.may(start.after(SECOND), 1), Err(SECOND));
    }

    #[test]
    fn u8_no_more_addresses_are_known_than_there_is_room_for_and_the_old_ones_go() {
        let forgers = Forgers::default();
        for address in 0..10_000 {
            forgers.caught(Instant::ZERO, address);
        }
        assert_eq!(forgers.lock().len(), ADDRESSES);
        forgers.caught(Instant::ZERO.after(2 * SECOND), 10_000);
        assert_eq!(forgers.lock().len(), 1);
    }
}
