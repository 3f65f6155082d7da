//! A limit on the events that strangers can cause: how often the application is told of them.
//!
//! Each reason has a limit of its own, and each address a share that is smaller: a flood from one address, or for one reason,
//! does not hide an honest peer that is turned away from another address or for another reason.
//!
//! Invariants: what is not told is counted, and the next that is told says how many there were; the memory is bounded.
//! Rule: E4.

use bowline::Instant;
use bowline::hub::{CloseReason, Gcra, Rate};
use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;

/// For one reason: sixteen at once, which a person can read, then one a second.
const REASON: Rate = Rate { per_second: 1, burst: 16 };

/// From one address: four at once, then one in 16 s, at a cost of 16 each.
const ADDRESS: Rate = Rate { per_second: 1, burst: 64 };
const COST: u32 = 16;

/// The most addresses that are remembered; then they are all forgotten, and the limits of the reasons remain.
const ADDRESSES: usize = 1024;

/// A limit of what is told.
#[derive(Debug, Default)]
pub(super) struct TellLimit {
    reasons: [Gcra; CloseReason::ALL.len()],
    addresses: BTreeMap<Option<IpAddr>, Gcra>,
    untold: u64,
}

impl TellLimit {
    /// One more happened. How many were not told since the last that was, if this one is to be told.
    pub(super) fn next(&mut self, now: Instant, address: Option<IpAddr>, why: CloseReason) -> Option<u64> {
        let address = address.map(network);
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&address) {
            self.addresses.clear();
        }
        let share = self.addresses.entry(address).or_default();
        let reason = CloseReason::ALL.iter().zip(&mut self.reasons).find(|(reason, _)| **reason == why);
        let told = share.take(now, ADDRESS, COST).is_ok()
            && reason.is_some_and(|(_, reason)| reason.take(now, REASON, 1).is_ok());
        if told {
            return Some(core::mem::take(&mut self.untold));
        }
        self.untold = self.untold.saturating_add(1);
        None
    }
}

/// An IPv4 address, or the 64 bits of an IPv6 address that name a site: the others are the site's own choice.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO.after(Duration::from_secs(seconds))
    }

    fn address(n: u16) -> Option<IpAddr> {
        Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0, 1)))
    }

    #[test]
    fn e4_what_is_not_told_is_counted() {
        let mut limit = TellLimit::default();
        let told: Vec<_> = (0..1000).filter_map(|n| limit.next(at(0), address(n), CloseReason::Unknown)).collect();
        assert_eq!(told, [0; 16]);
        assert_eq!(limit.next(at(1), address(0), CloseReason::Unknown), Some(984));
        assert_eq!(limit.next(at(1), address(1), CloseReason::Unknown), None);
        assert_eq!(limit.next(at(3600), address(1), CloseReason::Unknown), Some(1));
    }

    #[test]
    fn e4_a_flood_from_one_address_hides_nobody_else() {
        let mut limit = TellLimit::default();
        let mut told = 0;
        for second in 0..3600 {
            for n in 0..100 {
                // Each from another address of its own site.
                let bits = 0x2001_0db8_u128 << 96 | n;
                let here = Some(IpAddr::V6(Ipv6Addr::from_bits(bits)));
                told += u32::from(limit.next(at(second), here, CloseReason::Unknown).is_some());
            }
            if second % 600 == 599 {
                assert!(limit.next(at(second), address(7), CloseReason::Unknown).is_some(), "{second}: an honest one");
            }
        }
        assert!((200..=4 + 3600 / 16).contains(&told), "{told}");
    }

    #[test]
    fn e4_a_flood_from_everywhere_hides_no_other_reason() {
        let mut limit = TellLimit::default();
        for n in 0..u16::MAX {
            let _ = limit.next(at(0), address(n), CloseReason::Rate);
        }
        assert!(limit.next(at(0), address(7), CloseReason::Unknown).is_some());
        assert!(limit.addresses.len() <= ADDRESSES);
    }
}
