//! `bowline hub` with `bowline connect` as its miners, every one a process of its own.

use super::process::{LIMIT, Process, bowline, key, place};
use bowline::wire::bettensor::{Kind, Unsigned};
use bowline_transport::Keypair;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

const MINER: &str = "5EsNLFaGe9XK5LzWH3i6eC2Wqv6YqZS1442N1C4yeSdP6uxy"; // 07…

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// A hub and the address it listens on.
fn hub(place: &Path, args: &[&str]) -> (Process, String) {
    let key = key(place, "0b");
    let mut hub = Process::start(&[&["hub", "--listen", "127.0.0.1:0", "--key", &key], args].concat());
    let start = hub.next("start");
    let address = text(&start["address"]).to_owned();
    assert_eq!(text(&start["hotkey"]).len(), 48);
    (hub, address)
}

fn miner(place: &Path, byte: &str, address: &str, args: &[&str]) -> Process {
    let key = key(place, byte);
    Process::start(&[&["connect", address, "--key", &key, "--drain", "5"], args].concat())
}

fn prediction(id: &str) -> String {
    format!(r#"{{"type":"prediction","data":{{"prediction_id":"{id}","tie_odds":3.40,"home_score":1e0}}}}"#)
}

fn confirmation(message: &Value, status: &str) -> String {
    json!({"type": "confirmation", "prediction_id": message["prediction_id"], "hotkey": message["hotkey"],
        "status": status, "message": format!("Zürich says {status}"), "miner_stats": {"rank": 0.5}})
    .to_string()
}

#[test]
fn a_prediction_goes_out_its_answer_comes_back_and_so_do_updates() {
    let place = place("hub-answers");
    for adapter in ["smol", "blocking"] {
        let (mut hub, address) = hub(&place, &["--allow-any"]);
        let mut miner = miner(&place, "07", &address, &["--adapter", adapter]);
        assert_eq!(hub.next("connected")["hotkey"], MINER);
        miner.until(|line| line["to"] == "up");
        for (id, status, outcome) in [("a", "success", "delivered"), ("b", "error", "rejected")] {
            miner.say(&prediction(id));
            let message = hub.next("message");
            assert_eq!((text(&message["type"]), text(&message["hotkey"])), ("prediction", MINER));
            assert_eq!((text(&message["prediction_id"]), &message["data"]["tie_odds"]), (id, &json!(3.4)));
            hub.say(&confirmation(&message, status));
            let end = miner.next("confirmation");
            assert_eq!((text(&end["prediction_id"]), text(&end["outcome"])), (id, outcome), "{end}");
            assert_eq!(text(&end["message"]), format!("Zürich says {status}"));
        }
        hub.say(r#"{"type":"game_update","data":{"games":[1.50]}}"#);
        assert_eq!(hub.next("published")["reached"], 1);
        let update = miner.next("message");
        assert_eq!((text(&update["type"]), &update["data"]), ("game_update", &json!({"games": [1.5]})));
        hub.say(&json!({"type": "send", "to": MINER, "kind": "odds", "data": {"n": 1}}).to_string());
        assert_eq!(text(&miner.next("message")["type"]), "odds");
        let sent = hub.next("sent");
        assert_eq!((&sent["line"], text(&sent["outcome"]), text(&sent["path"])), (&json!(4), "delivered", "websocket"));
        for (line, word) in [
            ("?", "expected"),
            (r#"{"type":"game_update"}"#, "data"),
            (r#"{"type":"send","to":"5G","kind":"odds","data":{}}"#, "to:"),
            (&confirmation(&json!({"prediction_id": "a", "hotkey": MINER}), "success"), "no such prediction"),
            (&confirmation(&json!({"prediction_id": "a", "hotkey": MINER}), "perhaps"), "status"),
        ] {
            hub.say(line);
            let refused = hub.next("refused");
            assert!(text(&refused["why"]).contains(word), "{line}: {refused}");
        }
        miner.end_input();
        let (lines, code) = miner.end();
        let last = lines.last().unwrap();
        assert_eq!((code, &last["delivered"], &last["rejected"]), (Some(0), &json!(1), &json!(1)), "{lines:?}");
        hub.end_input();
        let (lines, code) = hub.end();
        let expected = json!({"event": "end", "messages": 2, "confirmed": 1, "rejected": 1, "given_back": 0, "sent": 1,
            "delivered": 1, "failed": 0, "abandoned": 0, "published": 1, "refused": 5});
        assert_eq!((code, lines.last().unwrap()), (Some(5), &expected), "lines were refused");
    }
}

/// A prediction under an id that others have as well, posted until it is answered; its confirmation.
fn post(address: &str, score: u32) -> JoinHandle<String> {
    let address = address.to_owned();
    let keys = Keypair::from_seed_hex(&"07".repeat(32)).unwrap();
    thread::spawn(move || {
        loop {
            let data = format!(r#"{{"prediction_id":"g_17","home_score":{score}}}"#);
            let body = keys.seal(|stamp| Unsigned::message(stamp, &Kind::Prediction, &data).unwrap());
            let mut socket = TcpStream::connect(&address).unwrap();
            let head = "POST /ws/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
            write!(socket, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).unwrap();
            // Still at work after 4 s.
            if !answer.starts_with("HTTP/1.1 503") {
                return answer;
            }
        }
    })
}

/// Published miners call a prediction by its game and its second.
#[test]
fn i6_of_two_predictions_of_one_id_each_has_its_own_answer() {
    let place = place("hub-one-id");
    let (mut hub, address) = hub(&place, &["--allow-any"]);
    let first = post(&address, 1);
    let one = hub.next("message");
    let second = post(&address, 2);
    let two = hub.next("message");
    assert_eq!([&one, &two].map(|message| &message["data"]["home_score"]), [&json!(1), &json!(2)]);
    hub.say(&confirmation(&one, "success"));
    hub.say(&confirmation(&two, "error"));
    assert!(first.join().unwrap().contains("Z\\u00fcrich says success"));
    assert!(second.join().unwrap().contains("Z\\u00fcrich says error"));
    hub.end_input();
    let (lines, _) = hub.end();
    let last = lines.last().unwrap();
    assert_eq!(["messages", "confirmed", "rejected"].map(|column| &last[column]), [&json!(2), &json!(1), &json!(1)]);
}

#[test]
fn two_processes_in_a_pipe_confirm_everything_by_either_path() {
    let place = place("hub-accept");
    let (mut hub, address) = hub(&place, &["--allow-any", "--accept"]);
    // Its input ends, and it goes on.
    hub.end_input();
    for (byte, enabled, path) in [("07", "true", "websocket"), ("08", "false", "http")] {
        let mut miner = miner(&place, byte, &address, &["--enabled", enabled]);
        if enabled == "true" {
            miner.until(|line| line["to"] == "up");
        }
        for n in 0..200 {
            miner.say(&prediction(&format!("{byte}_{n}")));
        }
        miner.end_input();
        let (lines, code) = miner.end();
        let ends: Vec<&Value> = lines.iter().filter(|line| line["event"] == "confirmation").collect();
        assert_eq!((code, ends.len()), (Some(0), 200), "{:?}", lines.last());
        assert!(ends.iter().all(|end| end["outcome"] == "delivered" && end["path"] == path), "{ends:?}");
        let mut seen: Vec<String> = (0..200).map(|_| text(&hub.next("message")["prediction_id"]).to_owned()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 200, "each once");
    }
    drop(hub);
}

#[test]
fn who_is_not_on_the_list_is_told_so() {
    let place = place("hub-allow");
    let list = place.join("list");
    std::fs::write(&list, format!("# the metagraph\n\n{MINER}\n")).unwrap();
    let (mut hub, address) = hub(&place, &["--allow", list.to_str().unwrap()]);
    let mut known = miner(&place, "07", &address, &[]);
    known.until(|line| line["to"] == "up");
    assert_eq!(hub.next("connected")["hotkey"], MINER);
    let mut stranger = miner(&place, "08", &address, &[]);
    let complaint = stranger.next("complaint");
    assert!(text(&complaint["message"]).contains("not registered"), "{complaint}");

    std::fs::write(&list, format!("{MINER}\n5G\n")).unwrap();
    let key = key(&place, "0b");
    let args = ["hub", "--listen", "127.0.0.1:0", "--key", &key, "--allow", list.to_str().unwrap()];
    let output = bowline(&args).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && words.contains("line 2"), "{words}");
}

#[test]
#[cfg(unix)]
fn a_hub_that_is_told_to_stop_finishes_what_is_under_way_and_says_how_far_it_is() {
    for signal in ["INT", "TERM"] {
        let place = place(&format!("hub-drain-{signal}"));
        let (mut hub, address) = hub(&place, &["--allow-any", "--drain", "20"]);
        let mut miner = miner(&place, "07", &address, &[]);
        miner.until(|line| line["to"] == "up");
        miner.say(&prediction("a"));
        let message = hub.next("message");
        hub.signal(signal);
        while !hub.error().contains("1 from miners under way") {}
        hub.say(&confirmation(&message, "success"));
        let (lines, code) = hub.end();
        assert_eq!((code, &lines.last().unwrap()["confirmed"]), (Some(0), &json!(1)), "{lines:?}");
        assert_eq!(text(&miner.next("confirmation")["outcome"]), "delivered");
    }
}

/// L13: nobody answers any more, so nothing is handed out, what was is given back, and the last line adds up.
#[test]
fn l13_after_the_end_of_its_input_a_hub_hands_nothing_out_and_its_last_line_adds_up() {
    let place = place("hub-input-ends");
    let (mut hub, address) = hub(&place, &["--allow-any", "--drain", "2"]);
    let mut gone = miner(&place, "08", &address, &[]);
    gone.until(|line| line["to"] == "up");
    let absent = text(&hub.next("connected")["hotkey"]).to_owned();
    drop(gone);
    hub.next("disconnected");
    let mut miner = miner(&place, "07", &address, &[]);
    miner.until(|line| line["to"] == "up");
    for (id, status) in [("a", Some("success")), ("b", Some("error")), ("c", None)] {
        miner.say(&prediction(id));
        let message = hub.next("message");
        if let Some(status) = status {
            hub.say(&confirmation(&message, status));
            miner.next("confirmation");
        }
    }
    for to in [MINER, &absent] {
        hub.say(&json!({"type": "send", "to": to, "kind": "odds", "data": {"n": 1}}).to_string());
    }
    assert_eq!(text(&hub.next("sent")["outcome"]), "delivered");
    hub.say("?");
    hub.next("refused");
    hub.end_input();
    while !hub.error().contains("draining") {}
    miner.say(&prediction("d"));
    let (lines, code) = hub.end();
    assert!(!lines.iter().any(|line| line["event"] == "message"), "handed out to nobody: {lines:?}");
    let expected = json!({"event": "end", "messages": 3, "confirmed": 1, "rejected": 1, "given_back": 1, "sent": 2,
        "delivered": 1, "failed": 0, "abandoned": 1, "published": 0, "refused": 1});
    assert_eq!((code, lines.last().unwrap()), (Some(3), &expected));
}

/// L13: nothing is waited for that nobody can answer.
#[test]
fn l13_what_nobody_can_answer_any_more_does_not_hold_up_the_end() {
    let place = place("hub-holds-nothing-up");
    let (mut hub, address) = hub(&place, &["--allow-any", "--drain", "3000"]);
    let mut miner = miner(&place, "07", &address, &[]);
    miner.until(|line| line["to"] == "up");
    miner.say(&prediction("a"));
    hub.next("message");
    hub.end_input();
    let (lines, code) = hub.end();
    let last = lines.last().unwrap();
    assert_eq!((code, &last["messages"], &last["given_back"]), (Some(0), &json!(1), &json!(1)), "{lines:?}");
}

/// L13: a hub that was told to end waits for the miner whose prediction the application has, and takes nobody else.
#[test]
#[cfg(unix)]
fn l13_a_miner_comes_back_for_its_answer_while_the_hub_goes_down() {
    let place = place("hub-comes-back");
    for enabled in ["true", "false"] {
        let (mut hub, address) = hub(&place, &["--allow-any", "--drain", "40"]);
        let args = ["--enabled", enabled];
        let mut first = miner(&place, "07", &address, &args);
        first.say(&prediction("a"));
        let message = hub.next("message");
        drop(first);
        hub.signal("TERM");
        while !hub.error().contains("1 from miners under way") {}
        let mut stranger = miner(&place, "08", &address, &[]);
        let why = stranger.next("down");
        assert!(text(&why["reason"]).contains("1012"), "{why}");
        let mut again = miner(&place, "07", &address, &args);
        again.say(&prediction("a"));
        if enabled == "true" {
            again.until(|line| line["to"] == "up");
        } else {
            // Its first request may still wait, as far as the hub knows: another one is told to come again.
            again.next("request_failed");
        }
        hub.say(&confirmation(&message, "success"));
        assert_eq!(text(&again.next("confirmation")["outcome"]), "delivered", "WebSocket {enabled}");
        let (lines, code) = hub.end();
        assert_eq!((code, &lines.last().unwrap()["confirmed"]), (Some(0), &json!(1)), "{lines:?}");
    }
}

#[test]
#[cfg(unix)]
fn a_second_signal_ends_a_hub_at_once() {
    let place = place("hub-twice");
    let (mut hub, address) = hub(&place, &["--allow-any", "--drain", "3000"]);
    let mut miner = miner(&place, "07", &address, &[]);
    miner.until(|line| line["to"] == "up");
    miner.say(&prediction("a"));
    hub.next("message");
    hub.signal("INT");
    while !hub.error().contains("draining") {}
    hub.signal("INT");
    assert_eq!(hub.end().1, Some(130));
}

#[test]
fn what_makes_no_sense_is_refused_and_said() {
    let place = place("hub-refused");
    let key = key(&place, "0b");
    let nobody = place.join("nobody");
    std::fs::write(&nobody, "# the metagraph\n").unwrap();
    let nobody = nobody.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--listen", "127.0.0.1:0", "--key", &key], 2, "--allow FILE"),
        (&["--listen", "127.0.0.1:0", "--key", &key], 2, "--allow-any"),
        (&["--listen", "127.0.0.1:0", "--key", &key, "--allow", nobody], 1, "nobody"),
        (&["--listen", "127.0.0.1:0", "--key", &key, "--allow", nobody], 1, "--allow-any"),
        (&["--listen", "127.0.0.1:0", "--allow-any"], 2, "--key"),
        (&["--listen", "nowhere", "--key", &key, "--allow-any"], 1, "nowhere"),
        (&["--listen", "127.0.0.1:0", "--key", &key, "--allow-any", "--max-sessions", "0"], 2, "max-sessions"),
        (&["--listen", "127.0.0.1:0", "--key", &key, "--allow-any", "--max-reconnect-interval", "9"], 2, "reconnect"),
        (&["--listen", "127.0.0.1:0", "--key", &key, "--allow-any", "--connection-timeout", "9"], 1, "heartbeat"),
    ];
    for (args, code, word) in cases {
        let output = bowline(&[&["hub"], args].concat()).output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{args:?}: {words}");
        assert!(words.contains(word), "{args:?}: {words}");
    }
}

/// A way to a hub that can be cut without a word: what is under way then goes nowhere, and neither end hears of it.
struct Road {
    address: String,
    /// Connections with a lower number are cut.
    open_from: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
}

impl Road {
    fn to(hub: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (open_from, made) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (from, count, hub) = (Arc::clone(&open_from), Arc::clone(&made), hub.to_owned());
        thread::spawn(move || {
            for near in listener.incoming() {
                let (near, far) = (near.unwrap(), TcpStream::connect(&hub).unwrap());
                let number = count.fetch_add(1, Ordering::SeqCst);
                for (mut from_one, mut to_other) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
                {
                    let open_from = Arc::clone(&from);
                    thread::spawn(move || {
                        let mut bytes = [0; 4096];
                        while let Ok(n @ 1..) = from_one.read(&mut bytes) {
                            if number < open_from.load(Ordering::SeqCst) {
                                // The sockets stay open, as if nothing were wrong.
                                thread::sleep(LIMIT);
                                return;
                            }
                            if to_other.write_all(&bytes[..n]).is_err() {
                                return;
                            }
                        }
                        let _ = to_other.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Self { address, open_from, made }
    }

    fn cut(&self) {
        self.open_from.store(self.made.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// By its heartbeat alone, which asks every 60 s and waits for 90, it would need minutes.
#[cfg(unix)]
#[test]
fn l14_a_miner_that_was_stopped_while_its_connection_was_lost_is_back_within_seconds() {
    let place = place("hub-stopped");
    let (mut hub, address) = hub(&place, &["--allow-any", "--accept"]);
    for (byte, adapter) in [("07", "smol"), ("08", "blocking")] {
        let road = Road::to(&address);
        let mut miner = miner(&place, byte, &road.address, &["--adapter", adapter]);
        hub.next("connected");
        miner.until(|line| line["to"] == "up");
        miner.signal("STOP");
        road.cut();
        // Longer than between two looks at the clocks, and what no system needs to wake a process.
        thread::sleep(Duration::from_secs(9));
        miner.signal("CONT");
        let woken = Instant::now();
        assert_eq!(text(&miner.next("down")["reason"]), "nothing heard, so it is dead");
        assert!(woken.elapsed() < Duration::from_secs(30), "{:?}", woken.elapsed());
        miner.until(|line| line["to"] == "up");
        miner.say(&prediction("after"));
        assert_eq!(miner.next("confirmation")["outcome"], "delivered");
    }
}

#[test]
fn s12_the_first_run_marks_nothing_as_a_copy_and_every_later_one_what_may_be_one() {
    let place = place("hub-first-run");
    let marker = place.join("ran").to_str().unwrap().to_owned();
    // One that could not start has not run.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (listen, key) in [(&*address, key(&place, "0b")), ("127.0.0.1:0", place.join("no-key").display().to_string())] {
        let args = ["hub", "--listen", listen, "--key", &key, "--allow-any", "--run-marker", &marker];
        assert_eq!(Process::start(&args).end().1, Some(1));
    }
    let runs: [&[&str]; 4] = [&["--run-marker", &marker], &["--run-marker", &marker], &["--run-marker", &marker], &[]];
    for (n, more) in (0..).zip(runs) {
        let (mut hub, address) = hub(&place, &[&["--allow-any", "--accept"], more].concat());
        let mut miner = miner(&place, "07", &address, &[]);
        miner.say(&prediction(&format!("p{n}")));
        assert_eq!(hub.next("message")["maybe_dup"] == true, n > 0, "run {n}");
        assert_eq!(miner.next("confirmation")["outcome"], "delivered");
    }
}
