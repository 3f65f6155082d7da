//! Every situation that two shipped plain sessions can come into, within a budget of faults.
//!
//! ```text
//!   application ─ Send, Complete, Close ─▶ Session ◀─ answers, ends, time ─┐       what may go wrong, each so many times:
//!        ▲          (dialer)                  │ frames, posts, attempts    │       cuts (seen by both or one), attempts that
//!        └─ deliveries ───────────────────────┤                            │       hang or are refused, acknowledgements and
//!                                             ▼                            │       answers lost, doubled, late, requests
//!                    ┌─ wires: cells in order, each way ───────────────────┤       doubled, a go-between's answer, restarts
//!                    └─ calls: going · waiting · back · lost ──────────────┤       with memory and without, a program that is
//!                                             ▲                            │       gone while its socket answers, slowness, a
//!        ┌─ deliveries ───────────────────────┤                            │       message that is refused for ever, closes
//!        ▼          (acceptor)                │ frames, posts              │
//!   application ─ Send, Complete, Close ─▶ Session ◀─ answers, ends, time ─┘
//! ```
//!
//! The sessions are the real ones (`InlineSession`), the world around them is small: `World` knows what can happen next,
//! the search visits every situation once, breadth first, so that what breaks a promise is shown by the shortest script.
//! From every situation it also lets everything go right from there on (the poison message excepted, which is
//! refused for ever): every other message must end, and both sides must be together again, within the set-up's bound.
//!
//! # Why equal hashes are equal situations
//! A situation is a hash of everything in it but:
//! - *The present.* A session adds spans to `now` and compares with `now`; moving all instants by a constant changes
//!   nothing. `#[derive(Hash)]` visits every field, and instants say what they are ([`HashTag`](bowline::HashTag)), so none is
//!   forgotten. What lies more than `PAST` back is one: no span that is added to an instant of the past is
//!   longer, the rest are reports. What lies beyond `FUTURE` is one: only the memory of completed
//!   messages does, and a first heartbeat, and no execution comes so far.
//! - *Chance.* Every delay is drawn from a range of one value; the state of the random numbers decides nothing.
//! - *Statistics.* No decision depends on them.
//! - *How many connections and deliveries there were.* Their numbers are compared and never computed with; their ages
//!   keep what is equal and what is newer.
//! - *The order of wires and of calls* in the world's tables.
//!
//! That is not only argued: in each of the first hundred thousand situations of a session that was reached twice, a second
//! session is kept (`Machines`), does every step too, and must say the same and come to the same situation. That any two of
//! 10⁸ situations have the same 128 bits has a probability of 10⁻²³.
//!
//! A session takes each step from each situation once, and the step is remembered; a situation of the world is found again
//! by its way. So a large world fits into a few GiB, and takes some microseconds a transition.
//!
//! # What is left out
//! Chance (delays of one length only), heartbeats by time (a question is asked only after silence), full sockets, stalls of
//! the process, messages that expire, are rejected or given back, sizes, acknowledgement waits that are learned. A go-between
//! answers before the peer hears of a request, or after its sender has given up, but does not hold two of them. A late
//! request or answer may come at any time, but a frame is late only within the budget of slowness. The simulator
//! ([`sim`](crate::sim)) has most of them, at random. Of the large worlds those that are cut off are explored up to the
//! depth that the report says: no fault that takes more moves is looked for there.

mod act;
mod applications;
mod calls;
mod check;
mod machine;
mod moves;
mod relative;
mod search;
mod setup;
mod state;
mod wires;
mod words;
mod world;
mod worlds;

pub use check::Broken;
pub use moves::Move;
pub use search::{Report, explore};
pub use setup::Setup;
pub use state::Budget;
pub use worlds::{LARGE, SMALL};
