//! What Bowline's adapters share: clock, sockets, WebSocket and HTTP, and the engine that both of them turn.
//!
//! Applications use `bowline-smol` or `bowline-blocking`, which re-export what they need of this crate. A third adapter,
//! for another runtime, would be written against [`Node`]: it waits for sockets and time, connects, and serves.
//!
//! ```text
//! adapter ──▶ Node::turn ──▶ actions: dial, drop, post      http::dial, http::post, http::serve: futures without a runtime
//!    ▲            └────────▶ Wait: until, read, write
//!    └── sockets, timers, threads or tasks
//! ```

mod clock;
mod engine;
pub mod http;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "sr25519")]
mod keys;
#[cfg(feature = "sr25519")]
mod miner;
mod node;
mod setup;
mod socket;
mod wire;

pub use clock::Clock;
pub use engine::{Action, Wait};
#[cfg(feature = "sr25519")]
pub use keys::{Hotkey, KeyError, Keypair};
#[cfg(feature = "sr25519")]
pub use miner::Settings;
pub use node::{Message, Node, Receipt, Refused, SendError, Settlement, Status, Stream};
pub use setup::{Setup, SetupError};
pub use wire::{Batch, Direction, Gonka, Heard, Reply, Wire};
#[cfg(feature = "sr25519")]
pub use wire::{Bettensor, Complaints, Prediction, Update};
