//! The program `bowline`, run as its users run it. Whatever waits here has a limit.

use core::time::Duration;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

/// A run takes six seconds here; a machine that is busy with other tests may need more.
const LIMIT: Duration = Duration::from_secs(60);

const PHASES: [&str; 10] =
    ["calm", "reset", "silence", "healed", "slow", "turned-away", "refused", "all-down", "answers-lost", "all-back"];

fn bowline(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    // What is said to the tests is none of the program's business.
    for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BOWLINE_")) {
        command.env_remove(variable);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end, which must come in time.
fn run(args: &[&str]) -> Output {
    finished(bowline(args).spawn().unwrap())
}

fn finished(child: Child) -> Output {
    let id = child.id().to_string();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait_with_output()));
    told.recv_timeout(LIMIT)
        .unwrap_or_else(|_| {
            let _ = Command::new("kill").args(["-KILL", &id]).status();
            panic!("it hangs");
        })
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn number(line: &Value, field: &str) -> u64 {
    line[field].as_u64().unwrap_or_else(|| panic!("no number {field} in {line}"))
}

/// The whole script: nothing lost, nothing twice, and every fault has left its trace.
fn whole(adapter: &str) {
    let output = run(&["demo", "--json", "--time-scale", "0.05", "--adapter", adapter, "--seed", "1"]);
    let lines = lines(&output);
    let ledger = lines.last().unwrap();
    assert_eq!(output.status.code(), Some(0), "{ledger}\n{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");

    assert_eq!((&lines[0]["event"], &ledger["event"]), (&"start".into(), &"ledger".into()));
    assert_eq!((&ledger["kept"], &ledger["interrupted"]), (&true.into(), &false.into()), "{ledger}");
    assert_eq!((&ledger["adapter"], &ledger["closed_in_time"]), (&adapter.into(), &true.into()), "{ledger}");
    assert_eq!(ledger["offending"], Value::Array(Vec::new()));
    for (field, count) in [("accepted", 240), ("lost", 0), ("delivered_twice", 0), ("maybe_dup", 0), ("unfinished", 0)]
    {
        assert_eq!(number(ledger, field), count, "{field} in {ledger}");
    }
    for field in ["violations", "malformed", "ids_reused"] {
        assert_eq!(number(ledger, field), 0, "{field} in {ledger}");
    }
    let (by_websocket, by_http) = (number(ledger, "delivered_websocket"), number(ledger, "delivered_http"));
    assert_eq!(by_websocket + by_http, 240);
    assert!(by_websocket > 0 && by_http > 0, "{ledger}");
    assert!(number(ledger, "frames") + number(ledger, "requests") > 240, "some needed more than one try: {ledger}");
    assert!(number(ledger, "frames") >= by_websocket && number(ledger, "requests") > 0, "{ledger}");
    assert!(number(ledger, "duplicates_dropped") > 0, "{ledger}");
    assert!(number(ledger, "hedges") > 0, "the silence and the slow reader: {ledger}");
    assert!(number(ledger, "connections") >= 3, "reset, healed, all back: {ledger}");
    assert!(number(ledger, "connection_attempts") > number(ledger, "connections"), "{ledger}");
    assert!(ledger["longest_outage_seconds"].as_f64().unwrap() > 1.0, "refused for 26 s at a twentieth: {ledger}");
    assert!(ledger["p50_seconds"].as_f64() <= ledger["p99_seconds"].as_f64(), "{ledger}");

    let of = |kind: &str| lines.iter().filter(|line| line["event"] == kind).collect::<Vec<_>>();
    let names: Vec<&str> = of("phase").iter().filter_map(|line| line["phase"].as_str()).collect();
    assert_eq!(names, PHASES);
    let ends = of("phase_end");
    let end = |name: &str| *ends.iter().find(|line| line["phase"] == name).unwrap();
    assert!(number(end("calm"), "delivered_websocket") > 0, "{}", end("calm"));
    assert!(number(end("all-down"), "waiting") > 0, "{}", end("all-down"));
    assert!(number(end("answers-lost"), "requests") > 0, "{}", end("answers-lost"));
    assert_eq!(number(end("all-back"), "waiting"), 0, "{}", end("all-back"));

    let down =
        |node: &str, reason: &str| of("down").iter().any(|line| line["node"] == node && line["reason"] == reason);
    assert!(down("ml_node", "Closed(1006)"), "the reset");
    assert!(down("api_node", "Closed(1008)"), "turned away");
    assert!(down("api_node", "PortClosed"), "refused");
    let path = |to: &str| of("path").iter().any(|line| line["to"] == to);
    assert!(path("http") && path("websocket"));
}

#[test]
fn g1_g2_under_smol() {
    whole("smol");
}

#[test]
fn g1_g2_on_threads() {
    whole("blocking");
}

#[test]
fn miners_and_a_hub_that_is_cut_off_killed_and_restarted_lose_nothing() {
    let output = run(&["demo", "--scene", "miners", "--miners", "24", "--time-scale", "0.05", "--seed", "1", "--json"]);
    let lines = lines(&output);
    let ledger = lines.last().unwrap();
    assert_eq!(output.status.code(), Some(0), "{ledger}\n{}", text(&output.stderr));
    assert_eq!((&ledger["event"], &ledger["kept"]), (&"ledger".into(), &true.into()), "{ledger}");
    for (field, count) in [("lost", 0), ("doubled", 0), ("unfinished", 0), ("updates_twice", 0), ("hubs", 3)] {
        assert_eq!(number(ledger, field), count, "{field} in {ledger}");
    }
    let ends = ["confirmed_websocket", "confirmed_http", "rejected"].map(|field| number(ledger, field));
    assert!(ends.iter().all(|count| *count > 0), "{ledger}");
    assert_eq!(ends.iter().sum::<u64>(), number(ledger, "accepted"), "{ledger}");
    assert!(number(ledger, "handed_out") >= number(ledger, "accepted"), "{ledger}");
    // Cut, killed, turned away, restarted.
    assert!(number(ledger, "connections") >= 4 * 24, "{ledger}");
    assert!((1..=24).contains(&number(ledger, "reconnections_busiest_100_ms")), "{ledger}");
    assert!(number(ledger, "updates_arrived") > number(ledger, "updates"), "{ledger}");
    let ends = lines.iter().filter(|line| line["event"] == "phase_end");
    let end = |name: &str| ends.clone().find(|line| line["phase"] == name).unwrap();
    assert!(number(end("black-hole"), "waiting") > 0, "{}", end("black-hole"));
    let (turned_away, healed) = (end("http-only"), end("healed"));
    assert!(number(turned_away, "ended") > 0 && number(turned_away, "connected") == 0, "{turned_away}");
    assert!(number(healed, "connected") > 0, "{healed}");
    assert_eq!((number(end("all-back"), "connected"), number(end("all-back"), "waiting")), (24, 0));
}

#[test]
fn s9_r9_a_native_session_is_cut_in_both_directions_and_only_what_was_missing_crosses_again() {
    let arguments = ["--scene", "native", "--messages", "5000", "--time-scale", "0.05", "--seed", "1", "--json"];
    // More than one thread for smol's tasks: what arrives must not be overtaken on its way to the application.
    let child = bowline(&[&["demo"][..], &arguments].concat()).env("SMOL_THREADS", "4").spawn().unwrap();
    let output = finished(child);
    let lines = lines(&output);
    let ledger = lines.last().unwrap();
    assert_eq!(output.status.code(), Some(0), "{ledger}\n{}", text(&output.stderr));
    assert_eq!((&ledger["event"], &ledger["kept"]), (&"ledger".into(), &true.into()), "{ledger}");
    let mut unanswered = 0;
    for way in ["to_hub", "to_client"] {
        let page = &ledger[way];
        for (field, count) in
            [("accepted", 5000), ("delivered", 5000), ("crossed", 5000), ("unfinished", 0), ("lost", 0)]
        {
            assert_eq!(number(page, field), count, "{way}: {field} in {ledger}");
        }
        for field in ["doubled", "out_of_order", "altered", "maybe_dup", "needless"] {
            assert_eq!(number(page, field), 0, "{way}: {field} in {ledger}");
        }
        let (by_websocket, by_http) = (number(page, "delivered_websocket"), number(page, "delivered_http"));
        assert!(by_websocket > 0 && by_http > 0 && by_websocket + by_http == 5000, "{ledger}");
        assert!(number(page, "again_most_after_one_cut") <= 64, "{ledger}");
        unanswered += number(page, "unanswered_at_cuts");
    }
    assert!(unanswered > 0, "the cuts came in full traffic: {ledger}");
    // Six cuts and the one that begins, two of them with a second one.
    assert!(number(ledger, "reconnections") >= 7, "{ledger}");
    assert_eq!(number(ledger, "resumed"), number(ledger, "reconnections"), "{ledger}");
    let connected = lines.iter().filter(|line| line["event"] == "connected");
    assert_eq!(connected.count() as u64, number(ledger, "connections"), "each is told of");
    let ends = lines.iter().filter(|line| line["event"] == "phase_end");
    let end = |name: &str| ends.clone().find(|line| line["phase"] == name).unwrap();
    let refused = end("refused");
    assert!(number(refused, "to_hub_http") > 0 && number(refused, "to_client_http") > 0, "{refused}");
}

#[test]
fn more_batches_than_may_wait_are_held_back_and_arrive_all_the_same() {
    let output = run(&["demo", "--json", "--time-scale", "0.05", "--batches", "1000", "--seed", "2"]);
    let lines = lines(&output);
    let ledger = lines.last().unwrap();
    assert_eq!(output.status.code(), Some(0), "{ledger}");
    assert_eq!((number(ledger, "accepted"), number(ledger, "lost"), number(ledger, "delivered_twice")), (1000, 0, 0));
    assert!(lines.iter().any(|line| line["event"] == "refused"), "the outbox was full when everything was down");
}

#[test]
fn help_says_what_it_does_and_how_it_ends() {
    for (args, words) in [
        (&["--help"][..], &["bowline demo", "Usage"][..]),
        (&["demo", "--help"], &["--adapter", "--batches", "--time-scale", "--seed", "--json", "Exit status", "1008"]),
        (&["demo", "--help"], &["--scene", "--miners", "black-hole", "perhaps seen"]),
        (&["demo", "--help"], &["--messages", "native", "crossed again", "window"]),
        (
            &["connect", "--help"],
            &["--key", "--validator", "--receiver", "--enabled", "--heartbeat-interval", "game_update"],
        ),
        (&["hub", "--help"], &["--listen", "--allow", "--allow-any", "--accept", "--max-sessions", "confirmation"]),
        (&["key", "--help"], &["--new", "for trials"]),
        (&["help", "demo"], &["Examples"]),
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let help = text(&output.stdout);
        for word in words {
            assert!(help.contains(word), "{args:?} says nothing of {word}");
        }
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{args:?}: too long for a terminal: {line}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for args in [
        &[][..],
        &["dance"],
        &["demo", "--batches", "19"],
        &["demo", "--batches", "1001"],
        &["demo", "--time-scale", "0"],
        &["demo", "--time-scale", "2"],
        &["demo", "--adapter", "magic"],
        &["demo", "--seed", "-1"],
        &["demo", "again"],
        &["demo", "--scene", "other"],
        &["demo", "--scene", "miners", "--miners", "3"],
        &["demo", "--scene", "miners", "--batches", "30"],
        &["demo", "--miners", "30"],
        &["demo", "--scene", "native", "--messages", "999"],
        &["demo", "--scene", "native", "--miners", "30"],
        &["demo", "--scene", "native", "--adapter", "smol"],
        &["demo", "--messages", "5000"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

/// A run that has come to its first phases, and its output.
#[cfg(unix)]
fn begun(args: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let mut child = bowline(&[&["demo", "--seed", "3"], args].concat()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("nothing is broken") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "it ended early");
    }
    thread::sleep(Duration::from_millis(500));
    (child, out)
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

#[test]
#[cfg(unix)]
fn an_interruption_ends_with_the_ledger_so_far() {
    for args in [["--adapter", "smol"], ["--adapter", "blocking"], ["--scene", "miners"], ["--scene", "native"]] {
        let (child, mut out) = begun(&args);
        interrupt(&child);
        let output = finished(child);
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        assert_eq!(output.status.code(), Some(130), "{rest}");
        assert!(
            rest.contains("Ledger") && ["delivered twice", "doubled"].iter().any(|row| rest.contains(row)),
            "{rest}"
        );
        let words = ["exactly once", "handed out once", "once and in order", "still under way"];
        assert!(words.iter().any(|words| rest.contains(words)), "{rest}");
        assert!(!rest.contains('\x1b'), "no picture on a pipe");
    }
}

#[test]
#[cfg(unix)]
fn a_second_interruption_ends_at_once() {
    let (child, _out) = begun(&[]);
    interrupt(&child);
    interrupt(&child);
    assert_eq!(finished(child).status.code(), Some(130));
}
