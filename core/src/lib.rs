#![doc = "bowline"]
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::float_arithmetic,
        clippy::arithmetic_side_effects,
        clippy::wildcard_enum_match_arm
    )
)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod cause;
mod ids;
mod rng;
mod time;
#[cfg(feature = "wire")]
pub mod wire;

pub use cause::{Cause, Class, Hint, HttpOutcome, On, Row, STANDARD, classify};
pub use ids::{ContentKey, DeliveryId, LinkId, MessageId, Origin, PostId, RequestId, Seq};
pub use rng::SplitMix64;
pub use time::{Instant, Timer, Timers, Wake};
