//! Peers that are not ours, as processes: what they see comes as one JSON object a line.
//!
//! Where such a peer is not installed its tests say so on the standard error and pass, unless the environment has
//! `BOWLINE_REQUIRE_PEERS=1`. There `BOWLINE_PYTHON` names the interpreter that has the package `websockets` (otherwise
//! `python3`), and `BOWLINE_NODE_PATH` the `node_modules` with the package `ws`; without it nobody expects a `node`.

use super::LIMIT;
use core::fmt;
use core::time::Duration;
use serde_json::Value;
use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// Says that a test is skipped, or fails it where it must not be.
#[track_caller]
pub(crate) fn missing<T>(what: impl fmt::Display) -> Option<T> {
    assert!(env::var_os("BOWLINE_REQUIRE_PEERS").is_none_or(|required| required != "1"), "needed here: {what}");
    eprintln!("skipped: {what}");
    None
}

/// `None`: nobody said that tests may take so long, with `BOWLINE_SLOW=1`.
pub(crate) fn need_time(how_long: &str) -> Option<()> {
    if env::var_os("BOWLINE_SLOW").is_some_and(|slow| slow == "1") {
        return Some(());
    }
    eprintln!("skipped: it takes {how_long}; BOWLINE_SLOW=1 runs it");
    None
}

/// Whether this command succeeds; asked once.
pub(crate) fn works(known: &OnceLock<bool>, command: &mut Command) -> bool {
    *known.get_or_init(|| command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success()))
}

/// A script in this folder's `peers`.
fn script(name: &str) -> String {
    format!("{}/peers/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A Python peer, if there can be one.
#[track_caller]
pub(crate) fn python(name: &str, scenario: &str) -> Option<Peer> {
    python_with(name, scenario, &[])
}

/// A Python peer that reads a port and a scenario of its arguments.
#[track_caller]
pub(crate) fn python_at(name: &str, port: u16, arguments: &[&str]) -> Option<Peer> {
    // Whether there is a Python at all is asked by the one that waits for its first line.
    let python = env::var("BOWLINE_PYTHON").unwrap_or_else(|_| "python3".into());
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if !works(&KNOWN, Command::new(&python).args(["-c", "import websockets.asyncio.client"])) {
        return missing(format!("{python} with the package websockets, 13 or newer"));
    }
    let port = port.to_string();
    Some(Peer::start(Command::new(python).args(["-B", &script(name), &port]).args(arguments)))
}

/// With something in its environment.
#[track_caller]
pub(crate) fn python_with(name: &str, scenario: &str, environment: &[(&str, &str)]) -> Option<Peer> {
    python_as(name, &[scenario], environment)
}

/// With these arguments.
#[track_caller]
pub(crate) fn python_as(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Option<Peer> {
    let python = env::var("BOWLINE_PYTHON").unwrap_or_else(|_| "python3".into());
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if !works(&KNOWN, Command::new(&python).args(["-c", "import websockets.asyncio.client, websockets.asyncio.server"]))
    {
        return missing(format!("{python} with the package websockets, 13 or newer"));
    }
    // No bytecode beside the sources.
    let command = &mut Command::new(python);
    Some(Peer::start(command.args(["-B", &script(name)]).args(arguments).envs(environment.iter().copied())))
}

/// A Python peer that signs, if there can be one.
#[track_caller]
pub(crate) fn signing_python(name: &str, scenario: &str) -> Option<Peer> {
    let python = env::var("BOWLINE_PYTHON").unwrap_or_else(|_| "python3".into());
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if !works(&KNOWN, Command::new(&python).args(["-c", "import sr25519, websockets.asyncio.server"])) {
        return missing(format!("{python} with the packages websockets, 13 or newer, and py-sr25519-bindings"));
    }
    Some(Peer::start(Command::new(python).args(["-B", &script(name), scenario])))
}

/// A Node peer, if there can be one.
#[track_caller]
pub(crate) fn node(name: &str, argument: &str) -> Option<Peer> {
    let Ok(modules) = env::var("BOWLINE_NODE_PATH") else {
        eprintln!("skipped: BOWLINE_NODE_PATH names no folder with the package ws");
        return None;
    };
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if !works(&KNOWN, Command::new("node").env("NODE_PATH", &modules).args(["-e", "require('ws')"])) {
        return missing("node with the package ws");
    }
    Some(Peer::start(Command::new("node").env("NODE_PATH", modules).args([&script(name), argument])))
}

/// `None`: there is no curl.
#[track_caller]
pub(crate) fn need_curl() -> Option<()> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    if works(&KNOWN, Command::new("curl").arg("--version")) { Some(()) } else { missing("curl") }
}

/// What curl sees with these arguments, within the limit of a step.
pub(crate) fn curl(arguments: &[&str]) -> Curl {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--verbose", "--noproxy", "*"]);
    command.args(["--max-time", &LIMIT.as_secs().to_string(), "--write-out", "\n%{http_code}"]).args(arguments);
    Curl::read(command.stdin(Stdio::null()).output().unwrap())
}

/// What curl saw.
#[derive(Debug)]
pub(crate) struct Curl {
    /// The last status, 0 for none.
    pub(crate) status: u16,
    /// The bodies.
    pub(crate) body: String,
    /// What went over the wire besides bodies.
    pub(crate) log: String,
}

impl Curl {
    fn read(output: Output) -> Self {
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        let log = String::from_utf8_lossy(&output.stderr).to_lowercase();
        Self { status: status.parse().unwrap(), body: body.into(), log }
    }
}

/// A running peer; it ends when this is dropped.
pub(crate) struct Peer {
    child: Child,
    lines: Receiver<Value>,
    log: Vec<Value>,
    /// Of each name, how much of the log a test has been told.
    told: BTreeMap<String, usize>,
}

impl Peer {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (seen, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str(&line) else { panic!("not JSON: {line}") };
                if seen.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, log: Vec::new(), told: BTreeMap::new() }
    }

    /// Tells it something: the next line of its input.
    pub(crate) fn tell(&mut self, line: impl fmt::Display) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{line}").unwrap();
    }

    /// The next thing of this name that it saw; the order among things of different names is not looked at.
    #[track_caller]
    pub(crate) fn saw(&mut self, what: &str) -> Value {
        self.saw_within(what, LIMIT)
    }

    /// The same with a limit of its own for each thing it sees.
    #[track_caller]
    pub(crate) fn saw_within(&mut self, what: &str, limit: Duration) -> Value {
        let mut next = self.told.get(what).copied().unwrap_or_default();
        loop {
            if let Some(at) = self.log.iter().skip(next).position(|line| line["saw"] == what) {
                self.told.insert(what.to_owned(), next + at + 1);
                return self.log[next + at].clone();
            }
            next = self.log.len();
            let Ok(line) = self.lines.recv_timeout(limit) else { panic!("it never saw {what}, but {:#?}", self.log) };
            assert_ne!(line["saw"], "error", "{}", line["what"].as_str().unwrap_or_default());
            self.log.push(line);
        }
    }

    /// How often it has seen this so far.
    pub(crate) fn count(&mut self, what: &str) -> usize {
        self.log.extend(self.lines.try_iter());
        self.log.iter().filter(|line| line["saw"] == what).count()
    }

    /// A port it told.
    #[track_caller]
    pub(crate) fn port(&mut self, what: &str) -> u64 {
        self.saw(what)["port"].as_u64().unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
