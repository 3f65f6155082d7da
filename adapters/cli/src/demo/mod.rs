//! `bowline demo`: two real nodes, two proxies that break what is between them, and a ledger of what became of each batch.
//!
//! ```text
//!  director ── every few ms ─▶ sends what is due ─▶ ML node ═══ proxy ═══ API node ─▶ four workers
//!     │ faults ──────────────────────────────────▶   └─ HTTP ─▶ proxy ─▶──┘             │
//!     │ receipts ◀─────────────────────────────────────┘                                │
//!     ├─▶ ledger ◀──────── every delivery, every completion ────────────────────────────┘
//!     └─▶ show: a live picture, plain lines, or JSON lines
//! ```
//!
//! Decided here: what the arguments may be, and what the exit status says.

mod batches;
mod director;
mod interrupt;
mod ledger;
mod live;
mod node;
mod note;
mod scale;
mod script;
mod show;
mod summary;
mod words;
mod world;

use scale::Scale;
use std::io::ErrorKind;
use std::process::ExitCode;

const ABOUT: &str = "\
Runs a Gonka ML node, which sends proof batches, and a Gonka API node, which
receives them, in this process, over real sockets on the loopback interface.
Two proxies stand between them, one before the ML node's WebSocket and one before
the API node's HTTP callbacks, and break what runs through them:

     1  nothing           every batch goes by WebSocket
     2  reset             the WebSocket is cut; HTTP carries until it has proven
                          itself again
     3  silence           it is open, but acknowledgements are held back
     4  healed            traffic returns to the WebSocket
     5  slow reader       it takes a third of what is sent
     6  turned away       the ML node accepts, then closes: 1008, PoW is not running
     7  refused           nobody listens at the WebSocket: HTTP alone
     8  nothing works     HTTP is refused as well: the backlog waits
     9  answers lost      HTTP works, but its answers never arrive
    10  all back          the backlog drains, the WebSocket returns

The receiving application works on each batch for a moment, on some for longer
than the sender waits, and hands some back once to have them again. A ledger notes
what happened to every batch, and the run ends with it.";

const AFTER: &str = "\
Exit status:
    0  every batch that was accepted was processed, exactly once
    1  one was not (the ledger says which), or the demo could not run
    2  the arguments make no sense
  130  interrupted: Ctrl-C stops sending, waits a while for what is under way and
       shows the ledger so far; a second Ctrl-C ends at once

Examples:
    bowline demo                                    half a minute
    bowline demo --time-scale 1                     at Gonka's own pace, two minutes
    bowline demo --adapter blocking --seed 7        threads, and other chances
    bowline demo --time-scale 0.05 --json | tail -1    the ledger, for a script";

/// Break a session in every way we know and count what arrives.
#[derive(Debug, clap::Args)]
#[command(long_about = ABOUT, after_help = AFTER)]
pub(crate) struct Args {
    /// What turns the nodes: smol's tasks, or threads.
    #[arg(long, value_enum, default_value_t = node::Adapter::Smol)]
    adapter: node::Adapter,

    /// How many batches, spread over the script: 20 to 2000.
    #[arg(long, value_name = "N", default_value_t = 240, value_parser = clap::value_parser!(u64).range(20..=2000))]
    batches: u64,

    /// Multiplies the script and every timer of both sessions, 0.02 to 1. At 1 they are Gonka's own, such as 3 s for an
    /// acknowledgement, 3 to 5 s between attempts to connect, at least 10 s on HTTP.
    #[arg(long, value_name = "X", default_value = "0.25", value_parser = Scale::parse)]
    time_scale: Scale,

    /// Drives all chance: the nodes' delays, and how long the application works on which batch.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Writes JSON lines: what happens, and the ledger last.
    #[arg(long)]
    json: bool,
}

/// Runs the script and says how it went.
pub(crate) fn run(args: &Args) -> ExitCode {
    match director::run(args) {
        Ok(code) => code,
        // Whoever read us has seen enough.
        Err(director::Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("bowline: {failure}");
            ExitCode::FAILURE
        }
    }
}
