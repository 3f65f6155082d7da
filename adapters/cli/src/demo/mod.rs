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
mod ledger;
mod live;
mod miners;
mod native;
mod note;
mod scale;
mod script;
mod show;
mod summary;
mod watch;
mod words;
mod world;

use crate::node;
use scale::Scale;
use std::io::ErrorKind;
use std::process::ExitCode;

const ABOUT: &str = "\
Runs a Gonka ML node, which sends proof batches, and a Gonka API node, which
receives them, in this process, over real sockets on the loopback interface.
Two proxies stand between them, one before the ML node's WebSocket, one before
the API node's HTTP callbacks, and break what runs through them:

  calm          nothing is broken: every batch goes by WebSocket
  reset         the WebSocket is cut; HTTP carries until a new one has proven
                itself
  silence       the WebSocket is open, but acknowledgements are held back
  healed        they arrive, and the WebSocket carries on
  slow          the WebSocket takes half of what is sent
  turned-away   it is accepted, then closed: 1008, PoW is not running
  refused       nobody listens at the WebSocket: HTTP alone
  all-down      HTTP is refused as well: the backlog waits
  answers-lost  HTTP is back, but its answers never arrive
  all-back      the backlog drains, the WebSocket returns

The application that receives works on each batch for a moment, on some for
longer than an original waits, and hands some back once, to have them again. The
ledger at the end says what became of every batch. On a terminal you see a
picture; on a pipe a line for each phase and each change.

With --scene miners it runs a Bettensor validator, a hub, and its miners, each
with keys of its own, behind proxies that break what runs through them. Miners
predict at random, the validator confirms and broadcasts updates:

  steady        nothing is broken
  cut           every connection is reset at the same moment
  killed        the hub ends without a word; a new one takes its port
  black-hole    everything is taken, nothing arrives
  http-only     every WebSocket is closed as soon as it is open
  healed        nothing is broken
  slow          a quarter of the miners read slowly
  restart       the hub goes down in order; a new one takes its port
  all-back      every prediction comes to its end

A hub that was killed has lost its memory. What it had handed out and its miner
had no confirmation of comes again, and the new hub marks it as perhaps seen
before; the ledger counts that, and as doubled what was not marked.

With --scene native it runs a client and a hub that speak Bowline's own
protocol and load both directions. The WebSocket is cut again and again, made
silent, slow, closed at once and refused; then HTTP is refused and loses its
answers. The proxies look into what crosses: after each cut a line says whether
the session was resumed, and how many messages and bytes crossed again; that
must be no more than the window, and nothing that the receiver had. The hub is
not killed here, since its memory of the session would be gone with it.";

const AFTER: &str = "\
Exit status:
    0  every batch that was accepted was processed, exactly once; every
       prediction was handed out and confirmed, and none doubled; every
       message arrived once and in order, and nothing crossed again needlessly
    1  one was not (the ledger says which), or the demo could not run
    2  the arguments make no sense
  130  interrupted: Ctrl-C stops sending, gives what is under way a few seconds
       and shows the ledger so far; a second Ctrl-C ends at once

Examples:
  bowline demo                                     half a minute
  bowline demo --time-scale 1                      Gonka's own pace: 2.5 minutes
  bowline demo --adapter blocking --seed 7         threads, and other chances
  bowline demo --time-scale 0.05 --json | tail -1  the ledger, for a script
  bowline demo --scene miners                      a validator and 200 miners
  bowline demo --scene native                      200000 messages, and cuts";

/// Breaks a session in every way we know and counts what arrives
#[derive(Debug, clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub(crate) struct Args {
    /// Which one: Gonka's two nodes, Bettensor's validator and miners, or a
    /// native client and its hub
    #[arg(long, value_enum, hide_possible_values = true, value_name = "gonka|miners|native", verbatim_doc_comment)]
    #[arg(default_value_t = Scene::Gonka)]
    scene: Scene,

    /// How many miners: 4 to 500 [default: 200]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(4..=500))]
    miners: Option<u16>,

    /// How many messages of the native scene each way: 1000 to 1000000
    /// [default: 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1000..=1_000_000), verbatim_doc_comment)]
    messages: Option<u64>,

    /// What turns Gonka's nodes: tasks on smol's executor, or threads
    /// [default: smol]
    #[arg(long, value_enum, hide_possible_values = true, value_name = "smol|blocking", verbatim_doc_comment)]
    adapter: Option<node::Adapter>,

    // No more than the receiver remembers (1024): beyond that it could only say that a batch may have been seen before.
    /// How many of Gonka's batches: 20 to 1000 [default: 240]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(20..=1000))]
    batches: Option<u64>,

    /// Multiplies the script and the sessions' timers: 0.02 to 1
    ///
    /// At 1 the timers are those of the Gonka profiles, such as 45 s for the
    /// first acknowledgement, 3 to 5 s between attempts to connect, and at
    /// least 10 s on HTTP before the WebSocket is trusted again.
    #[arg(long, value_name = "X", default_value = "0.25", value_parser = Scale::parse, verbatim_doc_comment)]
    time_scale: Scale,

    /// Drives all chance: the sessions' delays and the application's pace
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Writes JSON lines: what happens, and the ledger last
    #[arg(long)]
    json: bool,
}

/// Which demo.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Scene {
    /// An ML node and an API node.
    Gonka,
    /// A validator and its miners.
    Miners,
    /// A native client and its hub.
    Native,
}

impl Args {
    fn adapter(&self) -> node::Adapter {
        self.adapter.unwrap_or(node::Adapter::Smol)
    }

    fn batches(&self) -> u64 {
        self.batches.unwrap_or(240)
    }

    fn miners(&self) -> u16 {
        self.miners.unwrap_or(200)
    }

    fn messages(&self) -> u64 {
        self.messages.unwrap_or(100_000)
    }

    /// What is given and means nothing to the scene.
    fn useless(&self) -> Option<&'static str> {
        let given = [
            (self.miners.is_some(), Scene::Miners, "--miners"),
            (self.batches.is_some(), Scene::Gonka, "--batches"),
            (self.adapter.is_some(), Scene::Gonka, "--adapter"),
            (self.messages.is_some(), Scene::Native, "--messages"),
        ];
        given.into_iter().find_map(|(given, scene, name)| (given && scene != self.scene).then_some(name))
    }
}

/// Runs the script and says how it went.
pub(crate) fn run(args: &Args) -> ExitCode {
    if let Some(name) = args.useless() {
        eprintln!("bowline: {name} means nothing to this scene; see --help");
        return ExitCode::from(2);
    }
    let ran = match args.scene {
        Scene::Gonka => director::run(args),
        Scene::Miners => miners::run(args),
        Scene::Native => native::run(args),
    };
    match ran {
        Ok(code) => code,
        // Whoever read us has seen enough.
        Err(director::Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("bowline: {failure}");
            ExitCode::FAILURE
        }
    }
}
