//! Three dozen ways to make a hub fall over, played by Python on bare sockets from another address, while a miner of the
//! ordinary kind goes on being confirmed. Each ends bounded: the attack is closed, or costs what one more idle miner
//! costs, and harms nobody.
//!
//! What each did and cost is a row: the attack; connections; frames and bytes sent; bytes received; how it ended and what
//! was heard; when the last one ended; the process's CPU time and growth meanwhile; what the ordinary miner got.
//! `cargo test -p bowline-tests --test attacks -- --nocapture --test-threads 1` is the table. The sources are other loopback
//! addresses, and the cost is that of the process: all of this is for Linux.
#![cfg(target_os = "linux")]

mod real;

#[path = "real/hub.rs"]
mod hub;

use bowline_smol::hub::HubConfig;
use core::time::Duration;
use hub::{Miners, Validator, keys, seed};
use real::{limited, millis, peer};
use serde_json::{Value, json as value};
use std::fs;
use std::sync::{Mutex, PoisonError};

/// Who is harmed by nothing.
const MINER: u8 = 0x11;

/// Registered hotkeys of the attackers.
const ATTACKERS: core::ops::Range<u8> = 0x21..0x26;

/// The longest attack there is, a minute with everything around it.
const PATIENCE: Duration = Duration::from_secs(40);

/// One attack at a time: the cost is that of the process.
static ALONE: Mutex<()> = Mutex::new(());

/// What the process has used: time, and memory in KiB.
fn used() -> (Duration, u64) {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap());
    let time = seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    (time, resident.trim().trim_end_matches(" kB").parse().unwrap())
}

/// What became of an attack.
struct Outcome {
    result: Value,
    validator: Validator,
    /// The two who were not to be harmed are there to the end.
    _miners: Miners,
}

impl Outcome {
    /// So many connections ended like this.
    fn ended(&self, how: &str) -> u64 {
        self.result["ends"][how].as_u64().unwrap_or_default()
    }

    /// So many frames of this kind came back.
    fn heard(&self, what: &str) -> u64 {
        self.result["heard"][what].as_u64().unwrap_or_default()
    }

    fn count(&self, what: &str) -> u64 {
        self.result[what].as_u64().unwrap()
    }

    /// All of them ended like this.
    #[track_caller]
    fn assert_all(&self, hows: &[&str]) {
        let ended: u64 = hows.iter().map(|how| self.ended(how)).sum();
        assert_eq!(ended, self.count("connections"), "{:#}", self.result);
    }
}

/// Plays an attack and draws the line under it; `None`: there is no such Python.
#[track_caller]
fn attacked(name: &str, more: Value) -> Option<Outcome> {
    // Shorter than in earnest, so that a test sees their ends.
    attacked_with(name, more, |config| {
        config.hello = millis(1500);
        config.session.heartbeat.interval = millis(500);
        config.session.heartbeat.dead = millis(1500);
    })
}

#[track_caller]
fn attacked_with(name: &str, more: Value, configure: impl FnOnce(&mut HubConfig)) -> Option<Outcome> {
    let mut miners = Miners::start()?;
    let validator = Validator::start(configure);
    let at = validator.address();
    miners.add_connected("good", at, MINER, value!({"heartbeat": 0.5}));
    miners.burst("good", 5, "before");
    miners.tell("good", "steady", value!({"n": 5}));

    let mut how = more;
    how["port"] = at.port().into();
    how["source"] = "127.0.0.2".into();
    how["victim"] = keys(MINER).hotkey().to_string().into();
    if how["seeds"].is_null() {
        how["seeds"] = ATTACKERS.map(seed).collect();
    }
    let mut attack = peer::signing_python("attack.py", name)?;
    let (time, memory) = used();
    attack.tell(how);
    let result = attack.saw_within("result", PATIENCE);
    let (time, memory) = (used().0 - time, used().1.saturating_sub(memory));

    // Nobody was harmed: it was confirmed all the time, a stranger to all of this may come in, and both are heard.
    miners.tell("good", "rest", value!({}));
    let rested = miners.saw("good", "rested");
    assert_eq!((&rested["missing"], &rested["invalid"]), (&value!(0), &value!(0)), "{rested}");
    assert!(rested["rounds"].as_u64().unwrap() >= 3, "{rested}");
    assert_eq!(miners.count("good", "closed"), 0);
    miners.add_connected("other", at, 0x12, value!({}));
    miners.burst("other", 5, "after");
    miners.burst("good", 5, "after all");

    assert!(memory < 64 << 10, "it has made the hub keep {memory} KiB");

    let slowest = rested["slowest"].as_f64().unwrap() * 1000.0;
    let ended: Vec<_> = ["ends", "heard"]
        .iter()
        .flat_map(|what| result[what].as_object().unwrap())
        .filter(|(what, _)| !what.starts_with("close "))
        .map(|(what, n)| format!("{n} {what}"))
        .collect();
    println!(
        "| {name} | {} | {} | {} | {} | {} | {} s | {} ms | {memory} KiB | {} × 5 in ≤ {slowest:.0} ms |",
        result["connections"],
        result["frames"],
        result["sent"],
        result["received"],
        ended.join(", "),
        result["seconds"],
        time.as_millis(),
        rested["rounds"],
    );
    Some(Outcome { result, validator, _miners: miners })
}

/// One test an attack; what follows the name is what must have become of it.
macro_rules! attacks {
    ($($name:ident: $attack:literal, $how:tt, $check:expr;)+) => {
        $(#[test]
        fn $name() {
            let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            limited(|| {
                let Some(outcome) = attacked($attack, value!($how)) else { return };
                let check: fn(&Outcome) = $check;
                check(&outcome);
            });
        })+
    };
}

/// The hub has let go of everything of the attacker's: nobody is left but the two miners.
#[track_caller]
fn assert_nothing_is_left(outcome: &Outcome) {
    real::eventually("nothing is left of it", || {
        let health = outcome.validator.hub.health();
        (health.connections, health.pending, health.closing) == (2, 0, 0)
    });
}

/// Everybody was sent away by the hub, with one of these ends; the attack is over with the last of them, its `seconds` are
/// what a busy machine may need.
macro_rules! sent_away {
    ($($how:literal),+) => {
        |outcome| {
            outcome.assert_all(&[$($how),+]);
            assert_nothing_is_left(outcome);
        }
    };
}

// A close frame that meets what is still being sent is lost with the connection: then it was "dropped".
attacks! {
    // What the miner who is not to be harmed costs alone, about.
    nothing: "nothing", {"n": 1, "seconds": 5}, |outcome| assert_eq!(outcome.count("connections"), 0);
    silent_connections: "silent connections", {"n": 250, "seconds": 30}, sent_away!("dropped", "HTTP 408");
    slow_head: "slow head", {"n": 50, "seconds": 30}, sent_away!("HTTP 408");
    slow_first_frame: "slow first frame", {"n": 50, "seconds": 30}, sent_away!("closed with 1008");
    endless_head: "endless head", {"n": 50, "seconds": 30}, sent_away!("dropped", "HTTP 431");
    silent_after_the_upgrade: "silent after the upgrade", {"n": 200, "seconds": 30}, sent_away!("closed with 1008");
    silent_after_authentication: "silent after authentication", {"seconds": 30}, sent_away!("dropped");
    never_reads: "never reads", {"seconds": 30, "narrow": true}, sent_away!("dropped");
    fragments_unauthenticated:
        "fragments, unauthenticated", {"n": 10, "seconds": 30}, sent_away!("closed with 1009", "dropped");
    fragments: "fragments", {"seconds": 30}, sent_away!("closed with 1009", "dropped");
    empty_fragments: "empty fragments", {"seconds": 30}, sent_away!("closed with 1002", "dropped");
    pings_unauthenticated: "pings, unauthenticated", {"n": 10, "seconds": 30}, sent_away!("closed with 1008");
    pings: "pings", {"seconds": 30}, sent_away!("closed with 1008");
    pings_unread: "pings, pongs unread", {"seconds": 30}, sent_away!("dropped");
    junk: "junk", {"n": 200, "seconds": 30}, sent_away!("HTTP 400");
    tls_on_a_plain_port: "TLS on a plain port", {"n": 200, "seconds": 30}, sent_away!("HTTP 400");
    declared_length_unauthenticated:
        "declared length 2^62, unauthenticated", {"n": 50, "seconds": 30}, sent_away!("closed with 1009");
    declared_length: "declared length 2^62", {"seconds": 30}, sent_away!("closed with 1009");
    huge_frame_unauthenticated:
        "200 MiB frame, unauthenticated", {"n": 20, "seconds": 30}, sent_away!("closed with 1009", "dropped");
    huge_frame: "200 MiB frame", {"seconds": 30}, sent_away!("closed with 1009", "dropped");
    huge_body: "200 MiB body", {"n": 20, "seconds": 30}, sent_away!("HTTP 413", "dropped");
    malformed_frames: "malformed frames", {"n": 40, "seconds": 30}, sent_away!("closed with 1002", "closed with 1007");
    deep_json_unauthenticated:
        "deep JSON, unauthenticated", {"n": 20, "seconds": 30}, sent_away!("closed with 1009", "dropped");
    deep_json: "deep JSON", {"seconds": 30}, sent_away!("closed with 1009", "dropped");
    deep_json_by_post: "deep JSON by POST", {"n": 20, "seconds": 30}, sent_away!("HTTP 413", "dropped");
    bad_signatures: "bad signatures", {"n": 400, "seconds": 5}, |outcome| {
        // An address has a limit of connections at once.
        outcome.assert_all(&["closed with 1008", "HTTP 429", "HTTP 503", "dropped"]);
        assert!(outcome.ended("closed with 1008") < 400, "its address is limited");
        assert_nothing_is_left(outcome);
    };
    bad_signatures_by_post: "bad signatures by POST", {"n": 20, "seconds": 5}, |outcome| {
        // An address has 4,000 requests at once and 2,000 a second.
        assert!((1..=4000 + 2000 * 10).contains(&outcome.heard("HTTP 401")), "{}", outcome.result);
        assert_nothing_is_left(outcome);
    };
    strangers: "strangers", {"n": 400, "seconds": 5}, |outcome| {
        outcome.assert_all(&["closed with 1008", "HTTP 429", "HTTP 503", "dropped"]);
        assert_eq!(outcome.validator.hub.health().sessions, 2, "they cost no session");
        assert_nothing_is_left(outcome);
    };
    stolen_identity: "stolen identity", {"n": 100, "seconds": 5}, |outcome| {
        outcome.assert_all(&["closed with 1008"]);
        assert_eq!(outcome.validator.hub.stats().replaced, 0);
        assert_nothing_is_left(outcome);
    };
    somebody_elses_sender: "somebody else's sender", {"seconds": 5}, |outcome| {
        outcome.assert_all(&["closed with 1002", "dropped"]);
        assert_eq!(outcome.validator.books.times("stolen0_1"), 0);
        assert_nothing_is_left(outcome);
    };
    replayed_auth: "replayed auth", {"n": 100, "seconds": 3}, |outcome| {
        assert_eq!((outcome.ended("closed with 1008"), outcome.ended("left open")), (100, 1), "its owner stays");
    };
    replayed_envelope: "replayed envelope", {"seeds": [seed(0x21)], "seconds": 5}, |outcome| {
        outcome.assert_all(&["closed with 1002", "dropped"]);
        assert_eq!(outcome.validator.books.times("again_1"), 1);
        assert_nothing_is_left(outcome);
    };
    old_timestamps: "old timestamps", {"seconds": 5}, |outcome| {
        outcome.assert_all(&["closed with 1002", "dropped"]);
        assert_eq!(outcome.validator.books.times("old0_1"), 0);
        assert_nothing_is_left(outcome);
    };
    // Of what is correct and too much, as much is taken as is allowed: 1,000 at once and 100 a second each.
    prediction_flood: "prediction flood", {"seconds": 5}, |outcome| {
        assert!((1000..=5 * (1000 + 100 * 10)).contains(&outcome.heard("confirmation")), "{}", outcome.result);
        assert_nothing_is_left(outcome);
    };
    forged_envelopes: "forged envelopes", {"seconds": 30}, sent_away!("closed with 1002", "dropped");
}

/// A body has half a minute: whoever uses all of it is one of 256 of this address, and gone then.
#[test]
fn slow_body() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    limited(|| {
        let patient = std::env::var_os("BOWLINE_SLOW").is_some_and(|slow| slow == "1");
        let seconds = if patient { 33 } else { 5 };
        let Some(outcome) = attacked("slow body", value!({"n": 50, "seconds": seconds})) else { return };
        outcome.assert_all(if patient { &["HTTP 408", "dropped"] } else { &["left open"] });
        assert_nothing_is_left(&outcome);
    });
}

/// More than one address may have at once: 256, and of these 20 a second after the first 256.
#[test]
fn thousands_of_connections_from_one_address() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    limited(|| {
        let Some(outcome) = attacked("silent after the upgrade", value!({"n": 3000, "seconds": 8})) else { return };
        let refused = outcome.ended("HTTP 429") + outcome.ended("HTTP 503") + outcome.ended("dropped");
        assert_eq!(refused + outcome.ended("closed with 1008"), 3000, "{}", outcome.result);
        assert!(outcome.ended("closed with 1008") < 256 + 20 * 10, "{}", outcome.result);
        assert_nothing_is_left(&outcome);
    });
}
