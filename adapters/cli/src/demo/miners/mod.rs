//! `bowline demo --scene miners`: one validator, its hub, and many miners, with proxies between them that break what runs
//! through, and a ledger of what became of each prediction.
//!
//! ```text
//!  director ── every few ms ─▶ predicts what is due ─▶ miners ═══ proxies ═══ hub ─▶ application
//!     │ faults, kill, restart ──────────────────────────▶  ═════════════════════ ▶     │
//!     │ receipts ◀───────────────────────────────────────┘                            │
//!     ├─▶ ledger ◀──────────────── every hand-over, every update ──────────────────────┘
//!     └─▶ show: a live picture, plain lines, or JSON lines
//! ```

mod director;
mod ledger;
mod peak;
mod picture;
mod script;
mod summary;
mod world;

pub(super) use director::run;
