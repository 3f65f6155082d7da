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

mod channel;
mod clock;
mod engine;
pub mod http;
mod node;
mod setup;
mod socket;
#[cfg(feature = "tls")]
mod tls;

pub use channel::{Channel, Security};
pub use clock::Clock;
pub use engine::{Action, Wait};
pub use node::{Batch, Message, Node, Receipt, Refused, SendError, Settlement, Status, Stream};
pub use setup::{Direction, Setup, SetupError};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
