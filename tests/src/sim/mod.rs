//! A world in virtual time around the real machines; see the crate's documentation for its parts.

pub mod choices;
pub mod clock;
pub mod driver;
pub mod fleet;
mod hostile;
pub mod hub_model;
pub mod hub_rig;
pub mod ledger;
pub mod native;
pub mod network;
pub mod plan;
pub mod script;
pub mod world;

pub use choices::Choices;
pub use clock::{Agenda, at, ms, s};
pub use driver::{Driver, Effect, Style};
pub use ledger::Ledger;
pub use network::{Dial, Http, Network};
pub use plan::{Change, Plan, seeds};
pub use world::{Entry, Setup, World};
