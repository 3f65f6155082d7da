//! `bowline connect`: one side of a session as a process, so that a program in any language can use it.
//!
//! ```text
//!  stdin  ─▶ {"type":"prediction","data":{…}} ─▶ session ═══ WebSocket, HTTP ═══ validator
//!  stdout ◀─ {"event":"confirmation",…}       ◀──┤
//!         ◀─ {"event":"message",…}            ◀──┘
//! ```
//!
//! Decided here: what the arguments may be, and what the exit status says.

mod run;

use crate::environment;
use crate::keys;
use crate::life::{Failure, seconds};
use crate::node::Adapter;
use crate::session::{self, Does, SessionFlags};
use crate::settings::Flags;
use crate::tls::Certificates;
use bowline::GiveUp;
use bowline_smol::{Hotkey, Settings, Setup};
use bowline_transport::{Tls, Wire};
use core::time::Duration;
use std::path::PathBuf;
use std::process::ExitCode;

const ABOUT: &str = "\
Keeps a session with one peer and speaks JSON lines: what is to be sent comes
in on stdin, what became of it and what the peer says goes out on stdout.

As a miner of Bettensor (the default) it dials the validator at URL, and posts
where there is no WebSocket. A line in:

  {\"type\":\"prediction\",\"data\":{\"prediction_id\":\"g1_17\",\"home_score\":3}}

`type` may be one of your own; `data` is an object with a `prediction_id`. For
every line exactly one line comes out, when its end is known:

  {\"event\":\"confirmation\",\"line\":1,\"prediction_id\":\"g1_17\",
   \"outcome\":\"delivered\",\"path\":\"websocket\",\"seconds\":0.012,
   \"message\":\"…\",\"miner_stats\":{…}}
  {\"event\":\"refused\",\"line\":2,\"prediction_id\":\"…\",\"why\":\"…\"}

`outcome` is delivered, rejected (the validator said no), expired or abandoned
(it ended first; the validator may or may not have it); with it may come why, as
in a down line. A refused line was never accepted. `line` counts the lines of
the input from 1. (Each event is one line; they are broken here to be read.)
Between them come

  {\"event\":\"start\",\"profile\":\"bettensor\",\"hotkey\":\"5…\",\"address\":null}
  {\"event\":\"message\",\"type\":\"game_update\",\"data\":{…},\"path\":\"websocket\"}
  {\"event\":\"waits\",\"line\":3,\"prediction_id\":\"…\"}   one of that id is under way
  {\"event\":\"state\",\"from\":\"handshaking\",\"to\":\"up\"}
  {\"event\":\"path\",\"from\":\"websocket\",\"to\":\"http\"}
  {\"event\":\"down\",\"reason\":\"the peer speaks TLS\",\"by\":\"peer\",
   \"said\":\"text/html: …\",\"advice\":\"use wss:// or https://\"}
  {\"event\":\"request_failed\",…}                 as down, of a request
  {\"event\":\"id_reused\",\"total\":1}   a batch under the id of another: refused
  {\"event\":\"complaint\",\"total\":1,\"message\":\"…\"}

`reason` says what happened and `by` whose word or doing it is: peer,
go-between, resolver, TLS, system, this side. `said` is what that one said: 256
bytes at most, secrets masked. `advice` is there where one is known; stderr has
it, too, once in ten minutes. The last line is

  {\"event\":\"end\",\"accepted\":9,\"delivered\":8,\"rejected\":1,\"expired\":0,
   \"abandoned\":0,\"refused\":0,\"messages\":3,\"completed\":2,\"declined\":0,
   \"given_back\":1}

in which accepted is the sum of the four columns behind it, and messages, those
that were handed out, of the last three.

A message that the peer marks so, or that an earlier run may have had, has
\"maybe_dup\":true. Input is read only as fast as it can be taken: when the
outbox is full, whoever writes to us waits. So read our output.";

const AFTER: &str = "\
The roles of Gonka speak the same way:
  gonka-ml-node   sends batches: it waits for the API node at --listen, and
                  posts to URL, if there is one. A line in is
                  {\"type\":\"generated\",\"data\":{…}}, or validated.
  gonka-api-node  receives them: it dials the ML node at URL, and takes
                  callbacks at --listen, if that is given. Messages come with
                  a \"delivery\"; you answer, in any order, with
                  {\"type\":\"complete\",\"delivery\":1}, or reject, or retry
                  (with \"after\" in seconds; default 1). If you know whether
                  proof of compute runs there, say so when it begins and ends:
                  {\"type\":\"expect\",\"data\":true}, or false; while it does a
                  connection that is mute for a minute is made anew. With
                  --accept each is complete when its line was written, and
                  stdin is not read.

The end of the input, Ctrl-C and SIGTERM end it: nothing more is accepted or
handed out, and what is under way has --drain seconds: a peer that is away may
come back meanwhile. What was handed out may still be answered after a signal;
at the end of the input it is given back, and the peer sends it again later. A
second Ctrl-C ends it at once.

Exit status:
    0  every line was accepted and came to its end
    1  it could not start, another connection has its place, or nobody read
       the output
    2  the arguments make no sense
    3  it ended before everything had come to its end: the lines say what
    4  given up: it was refused for as long as --give-up-after says
    5  lines were refused; everything that was accepted came to its end
  130  a second Ctrl-C

Examples:
  my-miner | bowline connect ws://validator:8091 --key hotkey | my-reader
  bowline connect validator:8091 --key hotkey --enabled false < predictions
  bowline connect --profile gonka-api-node ws://ml:8080 --accept";

/// Keeps a session with one peer; JSON lines on stdin and stdout
#[derive(Debug, clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub(crate) struct Args {
    /// The peer: ws[s]://host:port, or host:port; a gonka-ml-node posts there
    url: Option<String>,

    /// What to be
    #[arg(long, value_enum, hide_possible_values = true, default_value_t = Profile::Bettensor)]
    #[arg(value_name = "bettensor|gonka-api-node|gonka-ml-node")]
    profile: Profile,

    /// The miner's key: a hotkey file, or a seed in hexadecimal digits
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,

    /// Listens to this validator alone, whoever else may sign
    #[arg(long, value_name = "SS58")]
    validator: Option<Hotkey>,

    /// Where to take what the peer posts; for a gonka-ml-node its WebSocket
    ///
    /// A miner takes it from its --validator alone: that must be given, too.
    #[arg(long, visible_alias = "receiver", value_name = "ADDR", verbatim_doc_comment)]
    listen: Option<String>,

    /// What turns the session: tasks on smol's executor, or threads
    #[arg(long, value_enum, hide_possible_values = true, value_name = "smol|blocking")]
    #[arg(default_value_t = Adapter::Smol)]
    adapter: Adapter,

    /// For a gonka-api-node: every batch is complete when it was written
    #[arg(long)]
    accept: bool,

    /// How long the end may take to finish what is under way
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    drain: Duration,

    /// Ends when it has been refused for so long [default: never]
    ///
    /// A refusal is an answer that does not let us in, such as 401, or a
    /// certificate that does not fit; no answer is no refusal. Without it
    /// attempts go on ever more slowly (gonka-api-node: every 3 to 5 s).
    #[arg(long, value_name = "SECONDS", value_parser = seconds, verbatim_doc_comment)]
    give_up_after: Option<Duration>,

    #[command(flatten)]
    settings: Flags,

    #[command(flatten)]
    session: SessionFlags,

    #[command(flatten)]
    tls: Certificates,
}

/// What to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Profile {
    /// Bettensor's miner.
    Bettensor,
    /// Gonka's receiver.
    GonkaApiNode,
    /// Gonka's sender.
    GonkaMlNode,
}

impl Profile {
    const fn does(self) -> Does {
        match self {
            Self::Bettensor => Does { sends: true, dials: true, judges: false },
            Self::GonkaApiNode => Does { sends: false, dials: true, judges: true },
            Self::GonkaMlNode => Does { sends: true, dials: false, judges: false },
        }
    }

    /// The variables of the environment that it reads.
    fn variables(self) -> Vec<&'static str> {
        let own: &[&str] = if self == Self::Bettensor { &Settings::VARIABLES } else { &session::HEARTBEAT };
        own.iter().copied().chain(SessionFlags::variables(self.does())).collect()
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Bettensor => "bettensor",
            Self::GonkaApiNode => "gonka-api-node",
            Self::GonkaMlNode => "gonka-ml-node",
        }
    }
}

/// Runs until the end of the input, or an interruption.
pub(crate) fn run(args: &Args) -> ExitCode {
    begin(args).unwrap_or_else(|failure| {
        eprintln!("bowline: {failure}");
        failure.code()
    })
}

fn begin(args: &Args) -> Result<ExitCode, Failure> {
    let missing = |what: &str| Failure::Arguments(format!("{} needs {what}; see --help", args.profile.name()));
    let useless = |what: &str| Failure::Arguments(format!("{what} means nothing to {}", args.profile.name()));
    let miner = args.profile == Profile::Bettensor;
    for (given, is_for, what) in [
        (args.settings.beyond_heartbeat(), miner, "a setting of the miner's"),
        (args.key.is_some(), miner, "--key"),
        (args.validator.is_some(), miner, "--validator"),
        (args.accept, args.profile == Profile::GonkaApiNode, "--accept"),
        (args.give_up_after.is_some(), args.profile != Profile::GonkaMlNode, "--give-up-after"),
    ] {
        if given && !is_for {
            return Err(useless(what));
        }
    }
    if let Some(flag) = args.session.useless(args.profile.does()) {
        return Err(useless(flag));
    }
    environment::tell_unknown(&args.profile.variables());
    let tls = args.tls.tls()?;
    let url = args.url.as_deref();
    let listen = args.listen.as_deref();
    match args.profile {
        Profile::Bettensor => {
            let file = args.key.as_deref().ok_or_else(|| missing("--key"))?;
            if listen.is_some() && args.validator.is_none() {
                return Err(missing("--validator with --listen"));
            }
            let settings = args.settings.settings().map_err(Failure::Other)?;
            let keys = keys::read(file)?;
            let hotkey = keys.hotkey();
            let mut setup = Setup::miner(url.ok_or_else(|| missing("a URL"))?, keys)?.settings(&settings)?;
            setup = args.validator.into_iter().fold(setup, Setup::validator);
            if let Some(listen) = listen {
                setup = setup.receiver(listen)?;
            }
            run::run(args, finished(setup, args, tls.as_ref())?, Some(hotkey))
        }
        Profile::GonkaApiNode => {
            let mut setup = Setup::api_node(url.ok_or_else(|| missing("a URL"))?)?;
            if let Some(listen) = listen {
                setup = setup.callbacks(listen)?;
            }
            run::run(args, finished(setup, args, tls.as_ref())?, None)
        }
        Profile::GonkaMlNode => {
            let mut setup = Setup::ml_node(listen.ok_or_else(|| missing("--listen"))?)?;
            if let Some(url) = url {
                setup = setup.fallback(url)?;
            }
            run::run(args, finished(setup, args, tls.as_ref())?, None)
        }
    }
}

/// With what the profiles have in common.
fn finished<W: Wire>(setup: Setup<W>, args: &Args, tls: Option<&Tls>) -> Result<Setup<W>, Failure> {
    let session = args.session.with_environment(args.profile.does())?;
    let mut read = Ok(());
    let setup = setup.configure(|config| {
        if args.profile != Profile::Bettensor {
            read = session::heartbeat(&args.settings, config);
        }
        session.apply(config);
        config.link.give_up = args.give_up_after.map_or(config.link.give_up, GiveUp::After);
    });
    read?;
    match tls {
        Some(tls) => Ok(setup.tls(tls)?),
        None => Ok(setup),
    }
}
