//! Our hub and Bettensor's miner as Python plays it: `websockets`, sr25519, `json.dumps(sort_keys=True)`. Python verifies
//! every frame that the hub signs; each of the original validator's eleven faults (wire facts 2.10) is a test that it fails.

mod real;

#[path = "real/hub.rs"]
mod hub;

use bowline::Outcome;
use bowline::Path;
use bowline_smol::hub::{Admission, Duplicate, Event, Hub, HubConfig, HubSetup, Publish};
use core::time::Duration;
use hub::{Miners, Validator, keys, outcome};
use real::peer::Peer;
use real::{eventually, limited, millis, peer};
use serde_json::{Value, json as value};
use smol::channel::bounded;
use std::sync::{Arc, Mutex};

/// The keys of the miner that most tests have.
const MINER: u8 = 0x11;

/// A hub with its defaults and a miner that is let in.
fn one() -> Option<(Validator, Miners)> {
    one_with(|_| {}, value!({}))
}

fn one_with(configure: impl FnOnce(&mut HubConfig), more: Value) -> Option<(Validator, Miners)> {
    let mut miners = Miners::start()?;
    let validator = Validator::start(configure);
    miners.add_connected("m", validator.address(), MINER, more);
    Some((validator, miners))
}

fn games(n: u32) -> String {
    format!(r#"{{"games": [{{"game_id": "g{n}", "team": "Füchse 🦊", "odds": 1e-7}}], "timestamp": {n}.50}}"#)
}

#[test]
fn the_original_miner_is_let_in() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        let sum = miners.burst("m", 1, "g");
        assert_eq!((&sum["confirmed"], &sum["doubled"]), (&value!(1), &value!(0)));
        assert_eq!(validator.books.whose("g0_1"), Some(keys(MINER).hotkey()));
        miners.tell("m", "get", value!({}));
        let health = miners.saw("m", "got");
        let body: Value = serde_json::from_str(health["body"].as_str().unwrap()).unwrap();
        let said = ["status", "connections", "active_connections"].map(|name| &body[name]);
        assert_eq!(said, [&value!("online"), &value!(1), &value!(1)]);
        assert!(body["uptime"].as_f64().is_some(), "{body}");
        miners.tell("m", "close", value!({}));
        assert_eq!(miners.saw("m", "closed")["code"], 1000);
        eventually("it is not connected", || validator.hub.health().connections == 0);
    });
}

#[test]
fn who_is_not_wanted_is_told_so_as_by_the_original() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        let at = validator.address();
        let refused = |miners: &mut Miners, byte: u8, how: Value, message: &str, reason: &str| {
            miners.add("x", at, byte, value!({}));
            miners.tell("x", "connect", how);
            let denied = miners.saw("x", "denied");
            let said = |word: &Value| word.as_str().unwrap_or_default().to_owned();
            // Behind the original's words there may be more: how far a clock is off (U11).
            assert!(said(&denied["frame"]["message"]).starts_with(message), "{denied}");
            assert!(said(&denied["reason"]).starts_with(reason), "{denied}");
            assert_eq!((&denied["code"], &denied["frame"]["status"]), (&value!(1008), &value!("error")));
        };
        let (bad, unknown) = ("Invalid authentication", "Hotkey not registered in metagraph");
        refused(&mut miners, 0x12, value!({"signs": hub::seed(0x13)}), bad, bad);
        refused(&mut miners, 0x12, value!({"claims": keys(0x13).hotkey().to_string()}), bad, bad);
        let clock = "Invalid authentication: the timestamp is";
        refused(&mut miners, 0x12, value!({"age": 301}), clock, bad);
        refused(&mut miners, 0x12, value!({"age": -301}), clock, bad);
        refused(&mut miners, 0x12, value!({"text": "{}"}), bad, bad);
        refused(&mut miners, 0x12, value!({"text": "no JSON"}), bad, bad);
        refused(&mut miners, 0x99, value!({}), unknown, "Unregistered hotkey");
        miners.burst("m", 1, "after");
        assert_eq!(validator.hub.health().connections, 1);
    });
}

#[test]
fn what_a_miner_may_not_say_is_answered_and_ends_nothing() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        let other = keys(0x12).hotkey().to_string();
        for how in [value!({"signs": hub::seed(0x12)}), value!({"claims": other}), value!({"age": 301})] {
            miners.tell("m", "say", how);
            let complaint = miners.saw("m", "complaint");
            // Flat and unsigned, as the original says it.
            let frame = &complaint["frame"];
            assert!(
                frame["message"].as_str().unwrap().starts_with("Invalid message signature or structure"),
                "{frame}"
            );
            assert_eq!((&complaint["valid"], &frame["sender"]), (&Value::Null, &Value::Null));
        }
        miners.tell("m", "say", value!({"kind": "nonsense"}));
        let complaint = miners.saw("m", "complaint");
        assert_eq!(complaint["frame"]["data"]["message"], "Unknown message type: nonsense");
        assert_eq!(complaint["valid"], true);
        for (id, why) in [
            (value!(17), "a prediction_id that is not a string"),
            (value!("p".repeat(65)), "a prediction_id that is longer than 64 bytes"),
            (value!(""), "a prediction_id that is missing or empty"),
        ] {
            miners.tell("m", "say", value!({"kind": "prediction", "data": {"prediction_id": id, "game_id": "g"}}));
            let complaint = miners.saw("m", "complaint");
            assert_eq!(complaint["frame"]["data"]["message"], format!("Invalid message signature or structure: {why}"));
            miners.tell("m", "post_data", value!({"data": {"prediction_id": id, "game_id": "g"}}));
            let posted = miners.saw("m", "posted");
            assert_eq!((&posted["status"], &posted["frame"]), (&value!(400), &value!({"error": why})));
        }
        miners.tell("m", "raw", value!({"text": "no JSON"}));
        miners.saw("m", "complaint");
        // The original's handler dies of a binary frame, and the connection is mute for ever.
        miners.tell("m", "raw", value!({"binary": 10}));
        miners.saw("m", "complaint");
        miners.tell("m", "say", value!({"kind": "heartbeat"}));
        assert_eq!(miners.saw("m", "heartbeat_ack")["valid"], true);
        miners.burst("m", 3, "after");
        assert_eq!(miners.count("m", "closed"), 0);
        assert_eq!(validator.books.len(), 3);
    });
}

#[test]
fn a_message_by_post_is_answered_with_its_confirmation() {
    limited(|| {
        let Some(mut miners) = Miners::start() else { return };
        let validator = Validator::start(|_| {});
        miners.add("m", validator.address(), MINER, value!({}));
        // The same miner, when it does what it may not.
        miners.add("n", validator.address(), MINER, value!({}));
        let post = |miners: &mut Miners, how: Value| {
            let name = if how["id"] == "x_1" { "n" } else { "m" };
            miners.tell(name, "post", how);
            miners.saw(name, "posted")
        };
        for id in ["one_1", "two_1"] {
            let posted = post(&mut miners, value!({"id": id}));
            assert_eq!((&posted["status"], &posted["valid"]), (&value!(200), &value!(true)), "{posted}");
            let data = &posted["frame"]["data"];
            assert_eq!((&data["prediction_id"], &data["status"]), (&value!(id), &value!("success")));
        }
        let posted = post(&mut miners, value!({"id": "bad_1"}));
        assert_eq!(
            (&posted["valid"], &posted["frame"]["data"]["status"]),
            (&value!(true), &value!("error")),
            "{posted}"
        );
        // The same again, and who has no right to it.
        assert_eq!(post(&mut miners, value!({"id": "one_1", "again": true}))["status"], 401);
        assert_eq!(post(&mut miners, value!({"id": "x_1", "signs": hub::seed(0x12)}))["status"], 401);
        assert_eq!(post(&mut miners, value!({"id": "x_1", "age": 301}))["status"], 401);
        assert_eq!(post(&mut miners, value!({"id": "x_1", "body": "{}"}))["status"], 400);
        miners.add("x", validator.address(), 0x99, value!({}));
        miners.tell("x", "post", value!({"id": "x_1"}));
        assert_eq!(miners.saw("x", "posted")["status"], 403);
        // A new envelope with a known id is confirmed again and not handed over again.
        let again = post(&mut miners, value!({"id": "one_1"}));
        assert_eq!((&again["status"], &again["frame"]["data"]["status"]), (&value!(200), &value!("success")));
        assert_eq!(validator.books.len(), 2);
        validator.books.assert_once_each();
        // And so it is on a connection.
        miners.connect("m");
        miners.tell("m", "predict", value!({"ids": ["one_1", "three_1"]}));
        miners.collect("m");
        assert_eq!(validator.books.len(), 3);
        validator.books.assert_once_each();
    });
}

/// Published miners call a prediction by the game and the second. Of 20 different ones 16 vanished, and were told success.
#[test]
fn i6_twenty_predictions_of_one_second_are_all_handed_over_and_confirmed_in_their_order() {
    limited(|| {
        for by_post in [false, true] {
            let Some(mut miners) = Miners::start() else { return };
            let seen = Arc::new(Mutex::new(Vec::new()));
            let all = bounded::<()>(1);
            let (scores, waits) = (Arc::clone(&seen), all.1);
            let all = Mutex::new(Some(all.0));
            let setup = HubSetup::validator("127.0.0.1:0", keys(0x0b)).unwrap().authorize(|_| Admission::accept());
            let hub = Hub::start(setup.on("prediction", move |message| {
                let score = message.json::<Value>().unwrap()["home_score"].as_u64().unwrap();
                scores.lock().unwrap().push(score);
                if scores.lock().unwrap().len() == 20 {
                    all.lock().unwrap().take();
                }
                let waits = waits.clone();
                async move {
                    // The first of each game is done last.
                    if score < 4 && !by_post {
                        let _ = waits.recv().await;
                    }
                    if score == 7 { Err(format!("{score}")) } else { Ok(format!("{score}")) }
                }
            }))
            .unwrap();
            miners.add_connected("m", hub.address(), MINER, value!({}));
            miners.tell("m", "rapid", value!({"n": 20, "games": 4, "by_post": by_post}));
            if by_post {
                for score in 0..20 {
                    let posted = miners.saw("m", "posted");
                    assert_eq!((&posted["status"], &posted["valid"]), (&value!(200), &value!(true)), "{posted}");
                    assert_eq!(posted["frame"]["data"]["message"], score.to_string(), "its own confirmation");
                }
            }
            let said = &miners.saw("m", "confirmed")["said"];
            for game in 0..4 {
                let its: Vec<_> = (0..5).map(|n| (game + 4 * n).to_string()).collect();
                assert_eq!(said[format!("g{game}_1795213203")], value!(its));
            }
            let mut seen = seen.lock().unwrap().clone();
            seen.sort_unstable();
            assert_eq!(seen, (0..20).collect::<Vec<_>>(), "each once");
            assert_eq!((hub.stats().delivered, hub.stats().duplicates), (20, 0));
        }
    });
}

/// The original: confirmations lie in a queue that is looked at when a heartbeat has been sent. Up to 60 s, close to the
/// miner's own limit.
#[test]
fn fault_1_a_confirmation_does_not_wait_for_the_next_heartbeat() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        assert_eq!(validator.hub.health().connections, 1);
        for n in 0..5 {
            miners.burst("m", 1, &format!("g{n}x"));
        }
        // There is a minute between heartbeats, and all of this took less than a step may.
        assert!(miners.count("m", "heartbeat") <= 1);
    });
}

/// The original: two confirmations in the priority queue are compared, that raises, and the sender is dead. Not one of a
/// burst of three is confirmed, ever.
#[test]
fn fault_2_a_burst_of_a_hundred_is_confirmed_and_the_connection_lives() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        for n in 1..=3 {
            let sum = miners.burst("m", 100, &format!("b{n}x"));
            assert_eq!((&sum["confirmed"], &sum["doubled"]), (&value!(100 * n), &value!(0)));
        }
        miners.tell("m", "say", value!({}));
        assert_eq!(miners.saw("m", "heartbeat_ack")["valid"], true);
        assert_eq!(miners.count("m", "complaint"), 0);
        assert_eq!(validator.books.len(), 300);
        validator.books.assert_once_each();
    });
}

/// The original: when the handler of the old connection ends, it removes whatever is registered under its hotkey. Every
/// second reconnect ends unregistered, without heartbeats and confirmations.
#[test]
fn fault_3_fifty_reconnects_never_lose_the_registration() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        for abruptly in [false, true] {
            miners.tell("m", "reconnect", value!({"times": 25, "n": 2, "abruptly": abruptly}));
            let done = miners.saw("m", "reconnected");
            assert_eq!((&done["good"], &done["missing"]), (&value!(25), &value!(0)));
        }
        let health = validator.hub.health();
        assert_eq!((health.connections, health.sessions), (1, 1));
        let reach = validator.hub.publish("game_update", &games(1), Publish::DEFAULT).unwrap();
        assert_eq!(reach.reached, 1);
        assert_eq!(miners.saw("m", "game_update")["valid"], true);
        validator.books.assert_once_each();
    });
}

/// As above, while the old connection still stands: the case in which the original's clean-up comes last. Twenty
/// replacements of a live connection would be a war (U2).
#[test]
fn fault_3_the_end_of_a_replaced_connection_takes_nothing_with_it() {
    limited(|| {
        let Some((validator, mut miners)) = one_with(|config| config.war_most = 20, value!({})) else { return };
        for n in 0..20 {
            let (old, new) = (["m", "n"][n % 2], ["n", "m"][n % 2]);
            if n == 0 {
                miners.add(new, validator.address(), MINER, value!({}));
            }
            miners.connect(new);
            assert_eq!(miners.saw(old, "closed")["code"], 4003);
            miners.burst(new, 1, &format!("t{n}x"));
        }
        assert_eq!((validator.hub.health().connections, validator.hub.stats().replaced), (1, 20));
    });
}

/// The original: a failed send is logged and the message is lost; queues die with their connection.
#[test]
fn fault_4_what_is_for_a_miner_survives_its_connection() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        let to = keys(MINER).hotkey();
        miners.tell("m", "predict", value!({"ids": ["slow_1", "quick_1"]}));
        eventually("one is at the application, the other through it", || {
            validator.books.len() == 1 && validator.hub.health().held == 1
        });
        miners.tell("m", "abort", value!({}));
        miners.saw("m", "closed");
        eventually("it is gone", || validator.hub.health().connections == 0);
        validator.books.go_on();
        let receipts: Vec<_> = (0..10).map(|n| validator.hub.send(to, "game_update", &games(n)).unwrap()).collect();
        miners.connect("m");
        for n in 0..10 {
            let update = miners.saw("m", "game_update");
            let expected: Value = serde_json::from_str(&games(n)).unwrap();
            assert_eq!((&update["data"], &update["valid"]), (&expected, &value!(true)), "in order");
        }
        for receipt in receipts {
            assert_eq!(outcome(receipt), Outcome::Delivered { path: Path::WebSocket });
        }
        // Asked again, the application is not: what it said is known.
        miners.tell("m", "predict", value!({"ids": ["slow_1", "quick_1"]}));
        miners.collect("m");
        validator.books.assert_once_each();
        assert_eq!(miners.count("m", "game_update"), 10, "nothing twice");
    });
}

/// The original: an update that equals the last broadcast is sent to nobody, and there is no snapshot; whoever has come
/// since has nothing.
#[test]
fn fault_5_a_newcomer_gets_the_last_game_update() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        let publish =
            || validator.hub.publish("game_update", &games(1), Publish { snapshot: true, ..Publish::DEFAULT });
        assert_eq!(publish().unwrap().reached, 1);
        miners.saw("m", "game_update");
        miners.add_connected("n", validator.address(), 0x12, value!({}));
        let update = miners.saw("n", "game_update");
        let expected: Value = serde_json::from_str(&games(1)).unwrap();
        assert_eq!((&update["data"], &update["valid"]), (&expected, &value!(true)));
        assert_eq!(publish().unwrap().reached, 2, "the same again");
        miners.saw("m", "game_update");
        miners.saw("n", "game_update");
        miners.burst("m", 1, "g");
        assert_eq!((miners.count("m", "game_update"), miners.count("n", "game_update")), (2, 2));
    });
}

/// The original: the confirmations of a batch all carry the result of its last prediction.
#[test]
fn fault_6_everybody_gets_the_result_of_their_own() {
    limited(|| {
        let Some((_validator, mut miners)) = one() else { return };
        let ids: Vec<_> = (0..40).map(|n| format!("{}{n}_1", if n % 3 == 0 { "bad" } else { "good" })).collect();
        miners.tell("m", "predict", value!({"ids": ids}));
        let sum = miners.collect("m");
        for id in ids {
            let expected = match id.starts_with("bad") {
                true => value!(["error", format!("{id} is bad")]),
                false => value!(["success", format!("{id} is stored")]),
            };
            assert_eq!(sum["said"][&id], expected);
        }
    });
}

/// The original: an auth frame opens as many connections as one likes for 300 s, nonces are forgotten when the miner has
/// been away for a minute, and no message's time is looked at.
#[test]
fn fault_7_nothing_is_taken_twice() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        miners.burst("m", 1, "g");
        let again = value!({"ids": ["g0_1"], "again": true});
        miners.tell("m", "predict", again.clone());
        miners.saw("m", "complaint");
        // Somebody else has read the auth frame, while its owner is there and when he is away.
        for _ in 0..2 {
            miners.tell("m", "connect", value!({"again": true}));
            let denied = miners.saw("m", "denied");
            assert_eq!((&denied["code"], &denied["reason"]), (&value!(1008), &value!("Invalid authentication")));
        }
        miners.connect("m");
        miners.tell("m", "predict", again);
        miners.saw("m", "complaint");
        miners.tell("m", "predict", value!({"ids": ["old_1"], "age": 301}));
        miners.saw("m", "complaint");
        assert_eq!((validator.books.len(), validator.books.times("g0_1")), (1, 1));
        assert!(validator.hub.stats().replays >= 5);
    });
}

/// The original: three frames a heartbeat, the third an error, and a warning in the log.
#[test]
fn fault_8_a_heartbeat_is_answered_and_that_is_all() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        for n in 1..=20 {
            miners.tell("m", "say", value!({"kind": "heartbeat"}));
            miners.tell("m", "say", value!({"kind": "heartbeat_response"}));
            assert_eq!(miners.saw("m", "heartbeat_ack")["valid"], true);
            miners.burst("m", 1, &format!("g{n}x"));
        }
        assert_eq!(miners.count("m", "heartbeat_ack"), 20);
        assert_eq!((miners.count("m", "complaint"), miners.count("m", "closed")), (0, 0));
        assert_eq!(validator.hub.counters().malformed, 0);
    });
}

/// The original: no jitter, so all miners of a validator that restarts are back in the same second, and are all let in at
/// once.
#[test]
fn fault_9_a_herd_is_spread_over_a_window() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        let names: Vec<_> = (0..16).map(|n| format!("h{n}")).collect();
        for (byte, name) in (0x20..).zip(&names) {
            miners.add_connected(name, validator.address(), byte, value!({}));
        }
        let Validator { hub, .. } = validator;
        let window = Duration::from_secs(60);
        let draining = real::begin("a drain", move || {
            let abandoned = smol::block_on(hub.drain(window, Duration::from_secs(5)));
            (hub, abandoned)
        });
        let mut times = Vec::new();
        for name in &names {
            let closed = miners.saw(name, "closed");
            assert_eq!(closed["code"], 1012, "{closed}");
            let reason = closed["reason"].as_str().unwrap();
            let after: f64 = reason.strip_prefix("retry-after=").expect(reason).parse().unwrap();
            assert!((0.0..=window.as_secs_f64() + 1.0).contains(&after), "{after}");
            times.push(after);
        }
        times.sort_by(f64::total_cmp);
        times.dedup();
        assert!(times.len() > names.len() / 2, "everybody has a time of their own: {times:?}");
        let (_hub, abandoned) = draining.wait();
        assert_eq!(abandoned, 0);
        // Whoever comes all the same is sent away, before a signature is looked at.
        miners.tell("m", "connect", value!({}));
        let refused = miners.saw("m", "refused");
        assert_eq!(refused["status"], 503);
        assert!(refused["after"].is_string(), "{refused}");
    });
}

/// The documented pattern of the original: a task is made for the send, and true is returned before anything is sent.
#[test]
fn fault_10_success_is_reported_when_it_has_arrived() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        miners.add_connected("n", validator.address(), 0x12, value!({}));
        let send = |byte: u8, n| validator.hub.send(keys(byte).hotkey(), "game_update", &games(n)).unwrap();
        miners.tell("m", "pause", value!({}));
        miners.burst("n", 1, "g");
        // It is written to the one who does not read, and read by the other who was written to after it.
        let unread = send(MINER, 1);
        let unread = real::begin("the end of a message that nobody reads", move || outcome(unread));
        for n in 2..7 {
            assert_eq!(outcome(send(0x12, n)), Outcome::Delivered { path: Path::WebSocket });
        }
        assert!(unread.is_running(), "nobody has read it");
        miners.tell("m", "resume", value!({}));
        assert_eq!(unread.wait(), Outcome::Delivered { path: Path::WebSocket });
        assert_eq!(miners.saw("m", "game_update")["valid"], true);
        let stranger = validator.hub.send(keys(0x13).hotkey(), "game_update", &games(1));
        assert!(stranger.is_err(), "nobody is there");
    });
}

/// The original: a broadcast goes from one to the next and a send has no limit, so one that does not read stops it for
/// everybody. (Its other half, plain `ws://`, is not for this test.)
#[test]
fn fault_11_a_broadcast_does_not_wait_for_its_slowest_reader() {
    limited(|| {
        let few = |config: &mut HubConfig| config.bulk.most = 8;
        let Some((validator, mut miners)) = one_with(few, value!({})) else { return };
        miners.add_connected("n", validator.address(), 0x12, value!({}));
        miners.tell("m", "pause", value!({}));
        miners.burst("n", 1, "g");
        // More than all the sockets between here and there hold.
        let large = format!(r#"{{"games": ["{}"]}}"#, "a".repeat(200 << 10));
        const UPDATES: usize = 100;
        for n in 1..=UPDATES {
            validator.hub.publish("game_update", &large, Publish::DEFAULT).unwrap();
            // As fast as the other one reads.
            while miners.count("n", "game_update") + 5 < n {
                miners.saw("n", "game_update");
            }
        }
        eventually("the other one has everything", || miners.count("n", "game_update") == UPDATES);
        validator.until_event(
            "the slow one has lost something",
            |event| matches!(event, Event::Lost { peer: hotkey, .. } if *hotkey == keys(MINER).hotkey()),
        );
        miners.tell("m", "resume", value!({}));
        assert_eq!(miners.saw("m", "game_update")["valid"], true);
        eventually("the slow one has the last", || {
            let stats = validator.hub.stats();
            stats.broadcast_copies + stats.lost + stats.conflated == 2 * UPDATES as u64
        });
        let sum = miners.burst("m", 1, "g");
        assert_eq!(sum["missing"], value!([]));
    });
}

#[test]
fn a_second_connection_replaces_the_first_where_that_is_the_policy() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        miners.add_connected("n", validator.address(), MINER, value!({}));
        let closed = miners.saw("m", "closed");
        assert_eq!((&closed["code"], &closed["reason"]), (&value!(4003), &value!("New connection established")));
        miners.burst("n", 3, "g");
        assert_eq!(validator.hub.health().connections, 1);
    });
}

#[test]
fn a_second_connection_replaces_one_that_is_dead_where_that_is_the_policy() {
    limited(|| {
        let policy = |config: &mut HubConfig| {
            config.duplicate = Duplicate::ProbeThenReplace;
            config.session.link.knock = millis(700);
        };
        let Some((validator, mut miners)) = one_with(policy, value!({})) else { return };
        miners.burst("m", 1, "g");
        miners.add("n", validator.address(), MINER, value!({}));
        miners.tell("n", "connect", value!({}));
        assert_eq!(miners.saw("n", "denied")["code"], 1013, "the first one lives");
        miners.burst("m", 1, "h");
        // Now it does not answer any more.
        miners.tell("m", "pause", value!({}));
        miners.connect("n");
        miners.burst("n", 3, "i");
        assert_eq!(validator.hub.health().connections, 1);
    });
}

#[test]
fn a_second_connection_is_refused_where_that_is_the_policy() {
    limited(|| {
        let policy = |config: &mut HubConfig| config.duplicate = Duplicate::Refuse;
        let Some((validator, mut miners)) = one_with(policy, value!({})) else { return };
        miners.add("n", validator.address(), MINER, value!({}));
        miners.tell("n", "connect", value!({}));
        assert_eq!(miners.saw("n", "denied")["code"], 1013);
        miners.burst("m", 3, "g");
        miners.tell("m", "close", value!({}));
        eventually("the first one is gone", || validator.hub.health().connections == 0);
        miners.connect("n");
        miners.burst("n", 3, "h");
    });
}

#[test]
fn so_many_connections_of_one_hotkey_live_side_by_side_where_that_is_the_policy() {
    limited(|| {
        let policy = |config: &mut HubConfig| config.duplicate = Duplicate::Allow(2);
        let Some((validator, mut miners)) = one_with(policy, value!({})) else { return };
        miners.add_connected("n", validator.address(), MINER, value!({}));
        miners.add("o", validator.address(), MINER, value!({}));
        miners.tell("o", "connect", value!({}));
        assert_eq!(miners.saw("o", "denied")["code"], 1013);
        miners.burst("m", 3, "g");
        miners.burst("n", 3, "h");
        assert_eq!(validator.hub.health().connections, 2);
        assert_eq!(validator.hub.publish("game_update", &games(1), Publish::DEFAULT).unwrap().reached, 2);
        miners.saw("m", "game_update");
        miners.saw("n", "game_update");
    });
}

/// Two machines have the same hotkey, and each comes back as soon as the other has replaced it.
#[test]
fn two_places_that_fight_for_a_hotkey_are_parted() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        miners.add("n", validator.address(), MINER, value!({"source": "127.0.0.3"}));
        let names = ["n", "m"];
        for turn in 0..3 {
            miners.connect(names[turn % 2]);
            assert_eq!(miners.saw(names[(turn + 1) % 2], "closed")["code"], 4003);
        }
        // Once more is once too often: whoever is there stays.
        miners.tell("m", "connect", value!({}));
        assert_eq!(miners.saw("m", "denied")["code"], 1013);
        validator.until_event("it is told", |event| matches!(event, Event::War { .. }));
        miners.burst("n", 3, "g");
        assert_eq!((validator.hub.stats().wars, validator.hub.health().connections), (1, 1));
    });
}

/// The original sends what its own miner cannot read, 1 MiB by the default of `websockets`, and is left with 1009.
#[test]
fn nothing_is_sent_that_the_miner_cannot_read() {
    limited(|| {
        let Some((validator, mut miners)) = one() else { return };
        let large = format!(r#"{{"games": ["{}"]}}"#, "a".repeat(1 << 20));
        assert!(validator.hub.send(keys(MINER).hotkey(), "game_update", &large).is_err());
        assert!(validator.hub.publish("game_update", &large, Publish::DEFAULT).is_err());
        let fits = format!(r#"{{"games": ["{}"]}}"#, "a".repeat((1 << 20) - 400));
        assert_eq!(validator.hub.publish("game_update", &fits, Publish::DEFAULT).unwrap().reached, 1);
        assert_eq!(miners.saw("m", "game_update")["valid"], true);
        miners.burst("m", 1, "g");
        assert_eq!((miners.count("m", "closed"), miners.count("m", "game_update")), (0, 1));
    });
}

/// The miner comes back with the original's back-off and, unlike it, says again what was not confirmed.
#[test]
fn a_hub_that_is_killed_and_restarted_loses_and_doubles_nothing() {
    limited(|| {
        let Some(mut miners) = Miners::start() else { return };
        let mut validator = Validator::start(|_| {});
        let at = validator.address();
        miners.add("m", at, MINER, value!({"base": 0.05, "resends": true}));
        miners.tell("m", "stay", value!({}));
        miners.welcome("m");
        for n in 0..3 {
            miners.tell("m", "burst", value!({"n": 100, "name": format!("k{n}x")}));
            eventually("in the middle", || validator.books.len() > 100 * n + 20);
            let (_, books) = validator.kill();
            miners.saw("m", "closed");
            // The application is told what an earlier hub may have handed to it; its books say whether it did.
            validator = Validator::at(&at.to_string(), books, |config| config.session.inbox.after_loss = true);
            miners.welcome("m");
            let sum = miners.collect("m");
            assert_eq!(sum["confirmed"], 100 * (n + 1));
            assert_eq!(validator.books.len(), 100 * (n + 1));
        }
        validator.books.assert_once_each();
    });
}

/// What the hub's tests above would say of the original: Python plays it with its faults, and the miner suffers from each.
mod the_original {
    use super::*;

    /// Its own heartbeat once at the start and then a long time not.
    const RARELY: u64 = 1000;

    fn plays(faults: Value) -> Option<(Peer, Miners)> {
        let mut validator = peer::signing_python("validator.py", "told")?;
        validator.tell(faults);
        let at = ([127, 0, 0, 1], validator.port("listening").try_into().unwrap()).into();
        let mut miners = Miners::start()?;
        miners.add_connected("m", at, MINER, value!({}));
        validator.saw("auth");
        Some((validator, miners))
    }

    fn missing(miners: &mut Miners, n: u32) -> usize {
        miners.tell("m", "burst", value!({"n": n}));
        miners.tell("m", "collect", value!({"seconds": 1}));
        miners.saw("m", "collected")["missing"].as_array().unwrap().len()
    }

    #[test]
    fn confirms_with_the_next_heartbeat_and_not_at_all_after_a_burst() {
        limited(|| {
            let Some((_validator, mut miners)) = plays(value!({"heartbeat": RARELY})) else { return };
            assert_eq!(missing(&mut miners, 1), 1);
            let Some((_validator, mut miners)) = plays(value!({"heartbeat": 0.2})) else { return };
            assert_eq!(missing(&mut miners, 1), 0);
            let Some((mut validator, mut miners)) = plays(value!({"heartbeat": 0.2, "bursts_kill": true})) else {
                return;
            };
            assert_eq!(missing(&mut miners, 3), 3);
            validator.saw("dead");
        });
    }

    #[test]
    fn forgets_who_reconnects_and_believes_what_is_repeated() {
        limited(|| {
            let Some((mut validator, mut miners)) = plays(value!({"heartbeat": 0.1, "forgets": true})) else { return };
            miners.tell("m", "connect", value!({}));
            miners.welcome("m");
            validator.saw("auth");
            validator.saw("closed");
            assert_eq!(missing(&mut miners, 1), 1, "its end has taken the new one with it");
            miners.tell("m", "connect", value!({"again": true}));
            miners.welcome("m");
            miners.tell("m", "connect", value!({"again": true}));
            miners.welcome("m");
        });
    }

    #[test]
    fn answers_the_answer_to_its_heartbeat_with_an_error() {
        limited(|| {
            let Some((_validator, mut miners)) = plays(value!({"heartbeat": 0.2})) else { return };
            let complaint = miners.saw("m", "complaint");
            assert_eq!(complaint["frame"]["data"]["message"], "Unknown message type: heartbeat_response");
        });
    }

    #[test]
    fn sends_no_update_twice_and_none_to_newcomers() {
        limited(|| {
            let Some((mut validator, mut miners)) = plays(value!({"prompt": true, "repeats": false})) else { return };
            validator.tell("games");
            miners.saw("m", "game_update");
            miners.tell("m", "close", value!({}));
            miners.connect("m");
            validator.saw("auth");
            validator.tell("games");
            assert_eq!(missing(&mut miners, 1), 0);
            assert_eq!(miners.count("m", "game_update"), 1);
        });
    }
}
