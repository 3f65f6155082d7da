//! What the tests of the machines share: a simulated world, and the format of recorded, fuzzed and random executions.
//!
//! ```text
//! sim::clock     an agenda in virtual microseconds
//! sim::driver    one session, woken only when it asked for it (or otherwise, on purpose), rules checked at every turn
//! sim::network   what the weather is on the WebSocket path and on the HTTP path
//! sim::ledger    the promises G1 to G10, kept as books over everything that happens
//! sim::world     two parties, their applications and the network between them
//! sim::plan      what happens in a world, from random bytes
//! sim::hub_model the hub's decisions once more, written apart from it
//! sim::hub_rig   the hub beside that model, driven by choices
//! sim::choices   what decides in a script: a seed or bytes
//! sim::fleet     a hub, a thousand sessions that dial it, and the network between them
//! sim::native    two native sessions, their applications and the network between them
//! sim::script    what happens to one session, as bytes: one format for the fuzzer, for proptest and for a recording
//! fuzz           the fuzz targets: the list of them, what each does, and how a failing input is shown
//! explore        every situation that two plain sessions can come into, within a budget of faults
//! ```
//!
//! Everything is deterministic: a world and a seed, or a script, *is* the execution.

pub mod explore;
pub mod fuzz;
pub mod sim;
