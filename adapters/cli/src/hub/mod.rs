//! `bowline hub`: Bettensor's validator as a process, so that a program in any language can be one.
//!
//! ```text
//!  miners ═══ WebSocket, HTTP ═══ hub ─▶ {"event":"message","type":"prediction",…}    stdout
//!                                  ◀──── {"type":"confirmation",…}                     stdin
//! ```
//!
//! Decided here: what the arguments may be, and what the exit status says.

mod run;

use crate::environment;
use crate::keys;
use crate::life::{Failure, seconds};
use crate::settings::Flags;
use crate::tls::Certificates;
use bowline_smol::hub::{Admission, HubSetup};
use bowline_smol::{Hotkey, Settings};
use core::time::Duration;
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

const ABOUT: &str = "\
Serves the miners of Bettensor on one port, by WebSocket at /ws and by HTTP, and
speaks JSON lines: what miners say goes out on stdout, the answers and what is
to be sent come in on stdin. GET /ws/health and /metrics say how it stands.

What goes out (each event is one line; they are broken here to be read):

  {\"event\":\"start\",\"hotkey\":\"5…\",\"address\":\"0.0.0.0:8091\"}
  {\"event\":\"message\",\"type\":\"prediction\",\"hotkey\":\"5…\",
   \"prediction_id\":\"g1_17\",\"data\":{…}}
  {\"event\":\"connected\",\"hotkey\":\"5…\",\"resumed\":false}
  {\"event\":\"disconnected\",\"hotkey\":\"5…\",\"reason\":\"closed with 1001\",
   \"by\":\"peer\",\"said\":\"…\"}
  {\"event\":\"turned_away\",\"address\":\"192.0.2.7\",\"hotkey\":\"5…\" or null,
   \"reason\":\"nobody known\",\"said\":\"…\",\"untold\":0}      sixteen at once of
      one reason, then one a second, four from one address, then one in 16 s;
      untold: how many more there were since the last
  {\"event\":\"lost\",\"hotkey\":\"5…\",\"count\":3}      broadcasts, to a slow reader
  {\"event\":\"war\",\"hotkey\":\"5…\"}                 two places fight for one key
  {\"event\":\"ended\",\"hotkey\":\"5…\",\"why\":\"…\"}     a session is forgotten
  {\"event\":\"fleet\",\"http\":true}                 too few are connected

What comes in:

  {\"type\":\"confirmation\",\"prediction_id\":\"g1_17\",\"hotkey\":\"5…\",
   \"status\":\"success\",\"message\":\"stored\",\"miner_stats\":{…}}
      the end of a prediction; a status of error rejects it, and one of retry
      gives it back, so that it comes again (\"after\" in seconds; default 1).
      Its miner has each confirmation at once, by the way the prediction came.
      A miner may use a prediction_id again; of several that wait under one, the
      first that was handed out ends.
  {\"type\":\"send\",\"to\":\"5…\",\"kind\":\"odds\",\"data\":{…}}
      for one miner, connected or not. Its end comes out as
      {\"event\":\"sent\",\"line\":7,\"to\":\"5…\",\"outcome\":\"delivered\",
       \"path\":\"websocket\",\"seconds\":0.012}
  {\"type\":\"game_update\",\"data\":{…},\"snapshot\":true}
      for everybody who is connected, as is every other type; with snapshot
      also for who connects later, until there is a newer one. Answered by
      {\"event\":\"published\",\"line\":8,\"reached\":200,\"dropped\":0}

A line that cannot be taken is answered by
  {\"event\":\"refused\",\"line\":9,\"why\":\"…\"}
and the last line is
  {\"event\":\"end\",\"messages\":9,\"confirmed\":7,\"rejected\":1,\"given_back\":1,
   \"sent\":2,\"delivered\":1,\"failed\":0,\"abandoned\":1,\"published\":1,\"refused\":0}
in which messages is the sum of the three columns behind it, and sent is that
of its three (failed: rejected or expired).

A prediction is handed out once; one that an earlier run may have had comes with
\"maybe_dup\":true. That is so for everything in the first hour, but in a run that
--run-marker shows to be the first. A message without a prediction_id needs no
answer. While nobody reads the output nothing is lost: miners keep what is not
confirmed.";

const AFTER: &str = "\
The end of the input (without --accept), Ctrl-C and SIGTERM end it in order:
newcomers are told when to come back, connections are closed in batches, and
what is under way is finished, for --drain seconds at most: who is owed
something may come back for it. No message is handed out any more. What was
handed out may still be answered after a signal; at the end of the input it is
given back, and its miner sends it again later. stderr says how far it is. A
second Ctrl-C ends it at once.

Exit status:
    0  it ended, and nothing accepted was abandoned
    1  it could not start, or nobody read the output
    2  the arguments make no sense
    3  messages for miners were abandoned
    5  lines of the input were refused; nothing accepted was abandoned
  130  a second Ctrl-C

Examples:
  bowline hub --listen 127.0.0.1:8091 --key hotkey --allow-any --accept
  coproc bowline hub --listen 0.0.0.0:8091 --key hotkey --allow metagraph";

/// Serves many miners on one port; JSON lines on stdin and stdout
#[derive(Debug, clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub(crate) struct Args {
    /// Where to listen; port 0 lets the system choose
    #[arg(long, value_name = "ADDR")]
    listen: String,

    /// The validator's key: a hotkey file, or a seed in hexadecimal digits
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// Who may come in: a file with SS58 addresses, one a line
    ///
    /// This or --allow-any must be given.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    allow: Option<PathBuf>,

    /// Everybody who has a key may come in: for trials
    #[arg(long, conflicts_with = "allow")]
    allow_any: bool,

    /// Confirms every message as soon as its line was written
    #[arg(long)]
    accept: bool,

    /// How many miners it may know at one time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    #[arg(default_value_t = 4096)]
    max_sessions: u32,

    /// A file that notes that this hub has run
    ///
    /// Where there is none, this run is the first: it makes the file, and
    /// marks nothing maybe_dup.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    run_marker: Option<PathBuf>,

    /// How long the end may take to finish what is under way
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    drain: Duration,

    #[command(flatten)]
    settings: Flags,

    #[command(flatten)]
    tls: Certificates,
}

/// The variables of the environment that it reads: the reconnect intervals are for its miners.
const VARIABLES: [&str; 3] = [Settings::VARIABLES[0], Settings::VARIABLES[1], Settings::VARIABLES[2]];

/// Runs until the end of the input, or an interruption.
pub(crate) fn run(args: &Args) -> ExitCode {
    begin(args).unwrap_or_else(|failure| {
        eprintln!("bowline: {failure}");
        failure.code()
    })
}

fn begin(args: &Args) -> Result<ExitCode, Failure> {
    if args.settings.dials() {
        return Err(Failure::Arguments("a hub waits for its miners: the reconnect intervals are theirs".into()));
    }
    if args.allow.is_none() && !args.allow_any {
        let why = "nobody may come in: name them with --allow FILE, or let everybody in with --allow-any";
        return Err(Failure::Arguments(why.into()));
    }
    environment::tell_unknown(&VARIABLES);
    let settings = args.settings.settings().map_err(Failure::Other)?;
    let span = |name: &str, seconds| {
        Duration::try_from_secs_f64(seconds).map_err(|error| Failure::Other(format!("{name}: {error}")))
    };
    let interval = span("heartbeat_interval", settings.heartbeat_interval)?;
    let dead = span("connection_timeout", settings.connection_timeout)?;
    // Without a marker nobody knows of an earlier run, and there may have been one.
    let ran_before = match args.run_marker.as_deref() {
        Some(path) => path.try_exists().map_err(|error| Failure::Other(format!("{}: {error}", path.display())))?,
        None => true,
    };
    let setup =
        HubSetup::validator(&args.listen, keys::read(&args.key)?)?.enabled(settings.enabled).configure(|config| {
            config.sessions = usize::try_from(args.max_sessions).unwrap_or(usize::MAX);
            // Room for a reconnect of everybody while the old connections have not ended.
            config.connections = config.connections.max(config.sessions.saturating_mul(2));
            config.session.heartbeat.interval = interval;
            config.session.heartbeat.dead = dead;
            config.session.inbox.after_loss = ran_before;
        });
    let setup = match args.allow.as_deref().map(allowed).transpose()? {
        None => setup.authorize(|_| Admission::accept()),
        Some(known) => {
            let known = Arc::new(known);
            setup.authorize(move |hotkey| match known.contains(&hotkey) {
                true => Admission::accept(),
                false => Admission::unregistered(),
            })
        }
    };
    let setup = match args.tls.tls()? {
        Some(tls) => setup.tls(&tls)?,
        None => setup,
    };
    run::run(args, setup)
}

/// Notes in this file that this hub has run, if that is not noted: before anything is handed out, and not before it
/// listens.
fn mark(path: &Path) -> Result<(), Failure> {
    match OpenOptions::new().write(true).create_new(true).open(path).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(Failure::Other(format!("{}: {error}", path.display())))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The addresses in this file; empty lines and those that begin with `#` are passed over.
fn allowed(path: &Path) -> Result<BTreeSet<Hotkey>, Failure> {
    let why = |why: &dyn core::fmt::Display| Failure::Other(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| why(&error))?;
    let lines = text.lines().zip(1..).map(|(line, number)| (line.trim(), number));
    let known = lines
        .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, number)| line.parse().map_err(|error| why(&format_args!("line {number}: {error}"))))
        .collect::<Result<BTreeSet<_>, _>>()?;
    match known.is_empty() {
        true => Err(why(&"it names nobody, so nobody may come in; --allow-any lets everybody in")),
        false => Ok(known),
    }
}
