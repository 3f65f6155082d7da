//! `bowline connect` and `bowline key`, run as their users run them.

use super::process::{LIMIT, Process, begin, bowline, key, place};
use bowline_cli::proxy::{Fault, Proxy};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

/// Runs it to its end: exit status, output, words for people.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = bowline(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// An ML node and an API node, connected.
fn gonka(adapter: &str, api: &[&str]) -> (Process, Process) {
    let ml = ["connect", "--profile", "gonka-ml-node", "--listen", "127.0.0.1:0", "--adapter", adapter];
    let mut ml = Process::start(&ml);
    let address = ml.next("start")["address"].as_str().unwrap().to_owned();
    let mut args = vec!["connect", "--profile", "gonka-api-node", &address, "--adapter", adapter];
    args.extend(api);
    let mut api = Process::start(&args);
    assert_eq!(api.next("start")["profile"], "gonka-api-node");
    (ml, api)
}

fn batch(n: u32) -> String {
    // The number keeps its spelling.
    format!(r#"{{"type":"generated","data":{{"node_id":3,"block_height":{n},"dist":[1.50e0]}}}}"#)
}

#[test]
fn a_batch_goes_from_one_process_to_another_and_is_acknowledged_when_it_was_judged() {
    for adapter in ["smol", "blocking"] {
        let (mut ml, mut api) = gonka(adapter, &[]);
        ml.say(&batch(1));
        let message = api.next("message");
        assert_eq!((&message["type"], &message["path"]), (&json!("generated"), &json!("websocket")));
        assert_eq!(message["data"]["block_height"], 1);
        let complete = json!({"type": "complete", "delivery": message["delivery"]}).to_string();
        api.say(&complete.replace("complete", "maybe"));
        assert_eq!(api.next("refused")["line"], 1);
        // It knows whether proof of compute runs (L10).
        api.say(r#"{"type":"expect","data":true}"#);
        api.say(r#"{"type":"expect","data":"true"}"#);
        assert_eq!(api.next("refused")["line"], 3);
        api.say(&complete);
        api.say(&complete);
        let refused = api.next("refused");
        let why = json!("no such delivery, or its end was told before");
        assert_eq!((&refused["line"], &refused["why"]), (&json!(5), &why));
        let confirmation = ml.next("confirmation");
        assert_eq!((&confirmation["line"], &confirmation["outcome"]), (&json!(1), &json!("delivered")));
        ml.end_input();
        let (lines, code) = ml.end();
        assert_eq!((code, &lines.last().unwrap()["delivered"]), (Some(0), &json!(1)), "{lines:?}");
        api.end_input();
        assert_eq!(api.end().1, Some(5), "lines were refused");
    }
}

#[test]
fn every_line_has_its_answer_also_when_there_are_more_than_fit() {
    let (mut ml, mut api) = gonka("smol", &["--accept"]);
    for n in 1..=500 {
        ml.say(&batch(n));
    }
    ml.say("no json");
    ml.say(r#"{"type":"generated"}"#);
    ml.say(r#"{"type":"heartbeat","data":{}}"#);
    ml.say(r#"{"type":"generated","data":{},"dat":{}}"#);
    ml.end_input();
    let (lines, code) = ml.end();
    assert_eq!(code, Some(5), "lines were refused");
    let mut numbers: Vec<u64> = lines.iter().filter_map(|line| line["line"].as_u64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=504).collect::<Vec<_>>(), "each exactly once");
    let last = lines.last().unwrap();
    let expected = json!({"event": "end", "accepted": 500, "delivered": 500, "rejected": 0, "expired": 0,
        "abandoned": 0, "refused": 4, "messages": 0, "completed": 0, "declined": 0, "given_back": 0});
    assert_eq!(last, &expected);
    let heights: Vec<u64> = (0..500).map(|_| api.next("message")["data"]["block_height"].as_u64().unwrap()).collect();
    assert_eq!(heights, (1..=500).collect::<Vec<_>>());
    #[cfg(unix)]
    {
        api.signal("TERM");
        assert_eq!(api.end().1, Some(0), "its input was never read, so its end is a signal");
    }
}

/// L13: role, and whether the peer was there before; it comes while the other one closes.
#[test]
fn l13_who_closes_waits_for_the_peer_of_what_it_has_accepted() {
    for (adapter, before) in [("smol", false), ("smol", true), ("blocking", false), ("blocking", true)] {
        let ml = ["connect", "--profile", "gonka-ml-node", "--listen", "127.0.0.1:0", "--adapter", adapter];
        let mut ml = Process::start(&[&ml[..], &["--drain", "30"]].concat());
        let address = ml.next("start")["address"].as_str().unwrap().to_owned();
        let args = ["connect", "--profile", "gonka-api-node", &address, "--adapter", adapter];
        if before {
            let mut api = Process::start(&args);
            ml.say(&batch(1));
            assert_eq!(api.next("message")["data"]["block_height"], 1);
            drop(api);
            ml.next("down");
        } else {
            ml.say(&batch(1));
        }
        ml.end_input();
        ml.until(|line| line["to"] == "closing");
        let mut api = Process::start(&[&args[..], &["--accept"]].concat());
        assert_eq!(api.next("message")["data"]["block_height"], 1);
        let (lines, code) = ml.end();
        let last = lines.last().unwrap();
        let columns = (&last["accepted"], &last["delivered"], &last["abandoned"]);
        assert_eq!((code, columns), (Some(0), (&json!(1), &json!(1), &json!(0))), "{adapter} {before}: {lines:?}");
    }
}

/// L13: nobody judges any more, so what was handed out is given back at once, and the last line adds up.
#[test]
fn l13_the_end_of_the_input_gives_back_what_was_not_judged() {
    for adapter in ["smol", "blocking"] {
        let (mut ml, mut api) = gonka(adapter, &["--drain", "3000"]);
        for (n, verdict) in [(1, Some("complete")), (2, Some("reject")), (3, None)] {
            ml.say(&batch(n));
            let delivery = api.next("message")["delivery"].clone();
            if let Some(verdict) = verdict {
                api.say(&json!({"type": verdict, "delivery": delivery}).to_string());
                ml.next("confirmation");
            }
        }
        api.end_input();
        let (lines, code) = api.end();
        let expected = json!({"event": "end", "accepted": 0, "delivered": 0, "rejected": 0, "expired": 0, "abandoned": 0,
            "refused": 0, "messages": 3, "completed": 1, "declined": 1, "given_back": 1});
        assert_eq!((code, lines.last().unwrap()), (Some(0), &expected), "{adapter}");
    }
}

#[test]
#[cfg(unix)]
fn an_interruption_tells_of_what_did_not_come_to_its_end_and_a_second_one_ends_at_once() {
    let args = ["connect", "--profile", "gonka-ml-node", "--listen", "127.0.0.1:0", "--drain", "0.1"];
    let mut ml = Process::start(&args);
    ml.next("start");
    ml.say(&batch(1));
    ml.say("?");
    ml.next("refused");
    ml.signal("INT");
    let (lines, code) = ml.end();
    assert_eq!(code, Some(3));
    let outcome: Vec<&Value> = lines.iter().filter(|line| line["event"] == "confirmation").collect();
    assert_eq!((outcome.len(), &outcome[0]["outcome"]), (1, &json!("abandoned")), "{lines:?}");
    assert_eq!(lines.last().unwrap()["abandoned"], 1);

    let mut ml = Process::start(&args[..5]);
    ml.next("start");
    ml.say(&batch(1));
    ml.say("?");
    ml.next("refused");
    ml.signal("INT");
    ml.until(|line| line["to"] == "closing");
    ml.signal("INT");
    assert_eq!(ml.end().1, Some(130), "it would have had 30 s");
}

#[test]
fn an_output_that_nobody_reads_ends_it() {
    let mut command = bowline(&["connect", "--profile", "gonka-ml-node", "--listen", "127.0.0.1:0"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    // Refused lines are answered.
    while writeln!(stdin, "?").is_ok() {}
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

/// What a miner with these settings does first: `GET` a WebSocket, or `POST` a prediction.
fn first(name: &str, file: Option<&str>, environment: Option<&str>, flag: Option<&str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = listener.local_addr().unwrap().to_string();
    let place = place(name);
    let (key, config) = (key(&place, "07"), place.join("config"));
    let mut command = bowline(&["connect", &url, "--key", &key, "--drain", "0"]);
    if let Some(enabled) = file {
        std::fs::write(&config, format!(r#"{{"enabled": {enabled}}}"#)).unwrap();
        command.arg("--config").arg(&config);
    }
    command.envs(environment.map(|enabled| ("BOWLINE_ENABLED", enabled)));
    command.args(flag.map(|enabled| ["--enabled", enabled]).into_iter().flatten());
    let mut miner = Process::spawn(&mut command);
    let start = miner.next("start");
    assert_eq!(start["hotkey"].as_str().unwrap().len(), 48);
    miner.say(r#"{"type":"prediction","data":{"prediction_id":"a"}}"#);
    let mut stream = begin(move || listener.accept().unwrap().0).recv_timeout(LIMIT).expect("nobody came");
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut word = [0; 4];
    stream.read_exact(&mut word).unwrap();
    String::from_utf8(word.to_vec()).unwrap()
}

#[test]
fn flags_count_more_than_the_environment_and_that_more_than_the_file() {
    let cases = [
        (None, None, None, "GET "),
        (Some("false"), None, None, "POST"),
        (Some("false"), Some("true"), None, "GET "),
        (Some("true"), Some("0"), None, "POST"),
        (Some("true"), Some("true"), Some("false"), "POST"),
        (Some("false"), Some("false"), Some("true"), "GET "),
    ];
    for (file, environment, flag, expected) in cases {
        let found = first("precedence", file, environment, flag);
        assert_eq!(found, expected, "file {file:?}, environment {environment:?}, flag {flag:?}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_said() {
    let place = place("refused");
    let key = key(&place, "07");
    let file = place.join("config");
    std::fs::write(&file, r#"{"heartbeat": 3}"#).unwrap();
    let config = file.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 24] = [
        (&[], 2, "--key"),
        (&["--key", &key], 2, "URL"),
        (&["ws://v", "--key", "/nowhere/at/all"], 1, "/nowhere/at/all"),
        (&["ws://v", "--key", config], 1, "seed"),
        (&["ws://v", "--key", &key, "--listen", "127.0.0.1:0"], 2, "--validator"),
        (&["ws://v", "--key", &key, "--validator", "5G"], 2, "address"),
        (&["ws://v", "--key", &key, "--config", config], 1, "heartbeat"),
        (&["ws://v", "--key", &key, "--connection-timeout", "-1"], 2, "-1"),
        (&["ws://v", "--key", &key, "--connection-timeout", "1"], 1, "heartbeat.dead"),
        (&["ftp://v", "--key", &key], 1, "URL"),
        (&["ws://v", "--key", &key, "--accept"], 2, "--accept"),
        (&["wss://v", "--key", &key, "--tls-key", config], 2, "--tls-certificate"),
        (&["wss://v", "--key", &key, "--tls-roots", config], 1, config),
        (&["ws://v", "--profile", "gonka-api-node", "--enabled", "true"], 2, "setting"),
        (&["ws://v", "--profile", "gonka-ml-node"], 2, "--listen"),
        (&["ws://v", "--profile", "gonka-ml-node", "--give-up-after", "9"], 2, "--give-up-after"),
        (&["ws://v", "--profile", "gonka-ml-node", "--on-reject", "silence"], 2, "--on-reject"),
        (&["ws://v", "--profile", "gonka-api-node", "--life", "9"], 2, "--life"),
        (&["ws://v", "--key", &key, "--state-lost", "true"], 2, "--state-lost"),
        (&["ws://v", "--profile", "gonka-api-node", "--on-reject", "never"], 2, "silence"),
        (&["ws://v", "--profile", "gonka-api-node", "--connect-timeout", "-1"], 2, "-1"),
        (&["ws://v", "--profile", "gonka-api-node", "--connect-timeout", "0"], 1, "link.attempt"),
        (&["ws://v", "--profile", "gonka-api-node", "--connection-timeout", "9"], 1, "heartbeat.dead"),
        (&["ws://v", "--key", &key, "--outbox", "0"], 2, "1048576"),
    ];
    for (args, code, word) in cases {
        let (found, out, words) = run(&[&["connect"], args].concat());
        assert_eq!((found, out.as_str()), (Some(code), ""), "{args:?}: {words}");
        assert!(words.contains(word), "{args:?}: {words}");
    }
}

#[test]
fn b10_what_is_refused_for_as_long_as_it_says_ends_with_a_status_of_its_own_and_the_reason() {
    let proxy = Proxy::start(([127, 0, 0, 1], 1).into()).unwrap();
    proxy.set(Fault::Status(401));
    let (url, key) = (proxy.addr().to_string(), key(&place("given-up"), "07"));
    let miner = ["--key", &key];
    let api: &[&str] = &["--profile", "gonka-api-node", "--accept"];
    for (role, adapter) in [(&miner[..], "smol"), (api, "blocking")] {
        let args = ["connect", &url, "--give-up-after", "0.3", "--adapter", adapter];
        let mut refused = Process::start(&[&args, role].concat());
        refused.until(|line| line["to"] == "failed");
        let mut said = refused.error();
        while !said.contains("given up") {
            said = refused.error();
        }
        assert!(said.contains("401"), "{said}");
        assert_eq!(refused.end().1, Some(4), "{said}");
    }
}

#[test]
fn a_key_is_made_once_marked_and_read_again() {
    let place = place("key");
    let path = place.join("trial").to_str().unwrap().to_owned();
    let (code, made, words) = run(&["key", "--new", &path]);
    assert_eq!((code, made.trim().len()), (Some(0), 48), "{words}");
    assert!(words.contains("for trials only"), "{words}");
    assert_eq!(run(&["key", &path]), (Some(0), made, String::new()));
    let content = std::fs::read_to_string(&path).unwrap();
    assert!(content.contains("for trials only"));
    #[cfg(unix)]
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777,
        0o600
    );
    let (code, out, _) = run(&["key", "--new", &path]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "a key is never overwritten");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
}

/// An ML node on an address that may be taken.
fn ml_node<'a>(address: &'a str, adapter: &'a str) -> [&'a str; 7] {
    ["connect", "--profile", "gonka-ml-node", "--listen", address, "--adapter", adapter]
}

#[test]
fn an_address_in_use_is_named() {
    let place = place("in-use");
    let (key, validator) = (key(&place, "07"), "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let miner = ["connect", "ws://v", "--key", &key, "--validator", validator, "--listen", &taken];
    let api = ["connect", "ws://v", "--profile", "gonka-api-node", "--listen", &taken];
    let hub = ["hub", "--listen", &taken, "--key", &key, "--allow-any"];
    for args in [&ml_node(&taken, "smol")[..], &ml_node(&taken, "blocking"), &miner, &api, &hub] {
        let (code, out, words) = run(args);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {words}");
        assert!(words.contains(&format!("cannot listen on {taken}: ")), "{args:?}: {words}");
    }
}

/// What a command says on stderr when it starts with these variables.
fn told(args: &[&str], variables: &[(&str, &str)]) -> String {
    let mut command = bowline(args);
    command.envs(variables.iter().copied()).env_remove("BOWLINE_REQUIRE_PEERS").env_remove("BOWLINE_PYTHON");
    let output = command.output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_misspelt_variable_is_told_with_the_nearest_one_and_so_is_one_of_another_profile() {
    let key = key(&place("misspelt"), "07");
    // Each ends at once, for its URL, its address, its key: after the variables were read.
    let miner = ["connect", "ftp://v", "--key", &key];
    let api = ["connect", "ftp://v", "--profile", "gonka-api-node"];
    let hub = ["hub", "--listen", "nowhere", "--key", &key, "--allow-any"];
    let near = |name: &str, near: &str| format!("the variable {name} means nothing here; is {near} meant?");
    for (args, variable, expected) in [
        (&miner[..], "BOWLINE_HEARTBEAT_INTERVALL", near("BOWLINE_HEARTBEAT_INTERVALL", "BOWLINE_HEARTBEAT_INTERVAL")),
        (&miner, "BOWLINE_LIVE", near("BOWLINE_LIVE", "BOWLINE_LIFE")),
        (&api, "BOWLINE_STATELOST", near("BOWLINE_STATELOST", "BOWLINE_STATE_LOST")),
        (&api, "BOWLINE_MAX_RECONNECT_INTERVAL", "BOWLINE_MAX_RECONNECT_INTERVAL means nothing here".into()),
        (&hub, "BOWLINE_ENABLE", near("BOWLINE_ENABLE", "BOWLINE_ENABLED")),
        (&hub, "BOWLINE_LIFE", "BOWLINE_LIFE means nothing here".into()),
    ] {
        let words = told(args, &[(variable, "1")]);
        assert!(words.contains(&expected), "{args:?}: {words}");
    }
    for (args, variable) in [(&miner[..], "BOWLINE_LIFE"), (&api, "BOWLINE_STATE_LOST"), (&hub, "BOWLINE_ENABLED")] {
        let words = told(args, &[(variable, "true")]);
        assert!(!words.contains("means nothing"), "{args:?}: {words}");
    }
    let words = told(&api, &[("BOWLINE_STATE_LOST", "perhaps")]);
    assert!(words.contains("URL"), "the first error is told: {words}");
    let api = ["connect", "ws://v", "--profile", "gonka-api-node"];
    let words = told(&api, &[("BOWLINE_STATE_LOST", "perhaps")]);
    assert!(words.contains("BOWLINE_STATE_LOST") && words.contains("perhaps"), "{words}");
}

/// With no receiver there: what becomes of a batch is for the sender's own settings to say.
#[test]
fn a_message_of_gonkas_expires_when_its_life_says_so_by_flag_or_by_variable() {
    for (adapter, variable) in [("smol", false), ("blocking", true)] {
        let mut command = bowline(&ml_node("127.0.0.1:0", adapter));
        if variable {
            command.env("BOWLINE_LIFE", "0.3");
        } else {
            command.args(["--life", "0.3"]);
        }
        let mut ml = Process::spawn(&mut command);
        ml.next("start");
        ml.say(&batch(1));
        assert_eq!(ml.next("confirmation")["outcome"], "expired", "{adapter}");
        ml.end_input();
        assert_eq!(ml.end().1, Some(3), "{adapter}");
    }
}

/// S8, S12: what a receiver of Gonka's is told of its own peers.
#[test]
fn s8_s12_a_receiver_of_gonkas_says_how_it_rejects_and_that_its_state_is_lost() {
    for adapter in ["smol", "blocking"] {
        let (mut ml, mut api) = gonka(adapter, &["--state-lost", "true", "--on-reject", "silence"]);
        ml.say(&batch(1));
        let message = api.next("message");
        assert_eq!(message["maybe_dup"], true, "{adapter}");
        api.say(&json!({"type": "reject", "delivery": message["delivery"]}).to_string());
        ml.say(&batch(2));
        let message = api.next("message");
        api.say(&json!({"type": "complete", "delivery": message["delivery"]}).to_string());
        let first = ml.next("confirmation");
        assert_eq!((&first["line"], &first["outcome"]), (&json!(2), &json!("delivered")), "{adapter}: silence about 1");
    }
    let (mut ml, mut api) = gonka("smol", &[]);
    ml.say(&batch(1));
    let message = api.next("message");
    assert_eq!(message["maybe_dup"], Value::Null);
    api.say(&json!({"type": "reject", "delivery": message["delivery"]}).to_string());
    assert_eq!(ml.next("confirmation")["line"], 1, "as by default: acknowledged");
}

#[test]
#[cfg(unix)]
fn an_outbox_takes_as_many_as_it_was_told_to() {
    let mut ml = Process::start(&[&ml_node("127.0.0.1:0", "smol")[..], &["--outbox", "2", "--drain", "0"]].concat());
    ml.next("start");
    ml.say(&batch(1));
    ml.say(&batch(2));
    ml.say("?");
    ml.next("refused");
    // The third waits for room, and the rest for the third.
    for n in 3..=5 {
        ml.say(&batch(n));
    }
    ml.signal("INT");
    let (lines, code) = ml.end();
    assert_eq!((code, &lines.last().unwrap()["accepted"]), (Some(3), &json!(2)), "{lines:?}");
}

#[test]
fn every_setting_of_a_session_is_in_the_help_with_its_default() {
    let (code, help, _) = run(&["connect", "--help"]);
    assert_eq!(code, Some(0));
    for (flag, default) in [
        ("--life", "for ever"),
        ("--outbox", "64"),
        ("--outbox-bytes", "268435456"),
        ("--connect-timeout", "10"),
        ("--write-timeout", "5"),
        ("--patience", "120"),
        ("--http-progress", "10"),
        ("--http-thinking", "30; gonka-ml-node: 120"),
        ("--on-reject", "acknowledge"),
        ("--state-lost", "false"),
        ("--heartbeat-interval", "60; of Gonka: 20"),
        ("--connection-timeout", "300; of Gonka: 45"),
    ] {
        let about = help.split(&format!("{flag} <")).nth(1).unwrap_or_else(|| panic!("no {flag} in {help}"));
        let about = about.split("\n      --").next().unwrap();
        assert!(about.contains(&format!("[default: {default}]")), "{flag}: {about}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 80), "it fits a terminal");
}
