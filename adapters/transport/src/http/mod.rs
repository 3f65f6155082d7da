//! HTTP/1.1 without a runtime: the same futures run under smol and on a thread of their own.
//!
//! Decided here: which URL is accepted, what one POST of ours means afterwards, which request of a peer's is a callback
//! and which an upgrade, and how long and how much any of it may take. Not decided here: what a message means, when to
//! send one, which socket to use.
//!
//! ```text
//!              Target ── where                        Deadline ── until when (shared with the socket)
//!                 │                                       │
//! post(io) ───────┴─▶ request ─▶ answer ─▶ HttpOutcome    │   io: Timed<…> under a runtime,
//!                                                         │       a blocking socket on a thread
//! serve(io) ──▶ head ─▶ body ─▶ handler ─▶ Answer ─▶ head … ─▶ Served::Done
//!                 └─▶ upgrade ─▶ 101 ───────────────────────▶ Served::Upgraded { io, read_buf }
//! ```
//!
//! Invariants: every wait ends with its deadline; every buffer has a limit; no bytes of a peer's can cause a panic; a
//! dropped future leaves nothing behind but a closed socket.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable, clippy::indexing_slicing)
)]

mod answer;
mod client;
mod deadline;
mod dial;
mod server;
mod target;

pub use answer::{HttpAnswer, retry_after};
pub use client::{Post, Posted, post};
pub use deadline::{Deadline, Timed};
pub use dial::dial;
/// The bytes of bodies: cheap to clone, so a message can be posted again without a copy.
pub use hyper::body::Bytes;
pub use server::{Answer, Callback, GONKA_CALLBACKS, Limits, Routes, Served, refuse, serve};
pub use target::{Target, TargetError};

use core::convert::Infallible;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use hyper::body::{Body, Frame, SizeHint};

/// The rate above which the body of a request is not too slow as a whole, as long as its bytes move: 16 kB/s, in bytes a
/// second (rule H10). A quarter of [`LOWEST_RATE`](bowline::LOWEST_RATE), because a request that is given up sends all of
/// its body anew: 3 MB may take three minutes, and a sender of single bytes is found all the same.
pub const SLOWEST_BODY: u64 = 16_000;

/// The time that this many bytes take at [`SLOWEST_BODY`].
fn slowest(bytes: usize) -> Duration {
    Duration::from_micros(u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000_000) / SLOWEST_BODY)
}

/// A body that is already there, sent in one piece.
struct Whole(Option<Bytes>);

impl Whole {
    fn new(bytes: Bytes) -> Self {
        Self((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX)))
    }
}
