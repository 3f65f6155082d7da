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
#[cfg(feature = "sr25519")]
mod keys;
mod node;
mod setup;
mod socket;

pub use clock::Clock;
pub use engine::{Action, Wait};
#[cfg(feature = "sr25519")]
pub use keys::{Hotkey, KeyError, Keypair};
pub use node::{Batch, Message, Node, Receipt, Refused, SendError, Settlement, Status, Stream};
pub use setup::{Direction, Setup, SetupError};
