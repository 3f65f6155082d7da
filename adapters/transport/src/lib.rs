//! What Bowline's adapters share: clock, sockets, WebSocket and HTTP, and the engine that both of them turn.
//!
//! Applications use `bowline-smol` or `bowline-blocking`, which re-export what they need of this crate. A third adapter,
//! for another runtime, would be written against [`Node`]: it waits for sockets and time, connects, and serves. The author
//! of a protocol of his own implements [`Wire`] and has it checked by [`conformance`].
//!
//! What a system's frames and requests say is its [`Wire`]'s: [`Gonka`]'s, [`Native`]'s, [`Village`]'s, or, with the
//! feature `sr25519`, that of Bettensor's miners.
//!
//! ```text
//! adapter ──▶ Node::turn ──▶ actions: dial, drop, post      http::dial, http::post, http::serve: futures without a runtime
//!    ▲            └────────▶ Wait: until, read, write
//!    └── sockets, timers, threads or tasks
//! ```

mod channel;
mod client;
mod clock;
pub mod conformance;
mod engine;
mod explanation;
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
#[cfg(feature = "tls")]
mod tls;
mod viewer;
mod wire;

pub use channel::{Channel, Security};
pub use clock::Clock;
pub use engine::{Action, Call, Wait};
pub use explanation::{Excerpt, Explanation};
#[cfg(feature = "sr25519")]
pub use keys::{Hotkey, KeyError, Keypair};
#[cfg(feature = "sr25519")]
pub use miner::Settings;
pub use node::{Message, Node, NodeEvent, PathReport, Receipt, Refused, SendError, Settlement, Status, Stream};
pub use setup::{Setup, SetupError, listen};
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
pub use wire::{Batch, Direction, Gonka, Heard, Mail, Native, News, Note, Question, Reply, Village, Wire};
#[cfg(feature = "sr25519")]
pub use wire::{Bettensor, Complaints, Prediction, Update};
