//! Bettensor's miner over real sockets, in both adapters: against a validator of the test's own, and against one of
//! Python's that behaves as the original does.

#[macro_use]
#[path = "../real/mod.rs"]
mod real;
mod validator;

use bowline::{Config, Event, GiveUp, Head, Outcome, Party, Path, ProgramLife, Reason, Rejection, State};
use bowline_smol::{Receipt, Reply, SendError, Settings, Setup, Status};
use bowline_transport::{Bettensor, Complaints, Message, Refused, http::Bytes};
use core::net::SocketAddr;
use core::time::Duration;
use real::*;
use serde_json::json as value;
use std::sync::{Arc, Mutex};
use validator::{Said, Validator, confirmation, frame, frame_at, keys};

enum Either {
    Blocking(bowline_blocking::Miner),
    Smol(bowline_smol::Miner),
}

/// A miner of either adapter, whose calls have a limit.
struct Miner {
    either: Arc<Either>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Miner {
    fn start(adapter: Adapter, setup: Setup<Bettensor>) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let either = match adapter {
            Adapter::Blocking => {
                let miner = bowline_blocking::Miner::start(setup).unwrap();
                let all = miner.events();
                begin("the end of events", move || all.for_each(|told| seen.lock().unwrap().push(told.event)));
                Either::Blocking(miner)
            }
            Adapter::Smol => {
                let miner = bowline_smol::Miner::start(setup).unwrap();
                let all = smol::stream::block_on(miner.events());
                begin("the end of events", move || all.for_each(|told| seen.lock().unwrap().push(told.event)));
                Either::Smol(miner)
            }
        };
        Self { either: Arc::new(either), events }
    }

    #[track_caller]
    fn predict(&self, data: impl Into<Bytes>) -> Receipt {
        let (either, data) = (Arc::clone(&self.either), data.into());
        let sent = begin("room for a prediction", move || match &*either {
            Either::Blocking(miner) => miner.predict(data),
            Either::Smol(miner) => smol::block_on(miner.predict(data)),
        });
        sent.wait().unwrap()
    }

    fn try_send(&self, kind: &str, data: impl Into<Bytes>) -> Result<Receipt, SendError> {
        match &*self.either {
            Either::Blocking(miner) => miner.try_send(kind, data),
            Either::Smol(miner) => miner.try_send(kind, data),
        }
    }

    #[track_caller]
    fn receive(&self) -> Message<Bettensor> {
        let either = Arc::clone(&self.either);
        let received = begin("a message", move || match &*either {
            Either::Blocking(miner) => miner.receive(),
            Either::Smol(miner) => smol::block_on(miner.receive()),
        });
        received.wait().expect("the session has ended")
    }

    fn status(&self) -> Status {
        match &*self.either {
            Either::Blocking(miner) => miner.status(),
            Either::Smol(miner) => miner.status(),
        }
    }

    fn complaints(&self) -> Complaints {
        match &*self.either {
            Either::Blocking(miner) => miner.complaints(),
            Either::Smol(miner) => miner.complaints(),
        }
    }

    fn address(&self) -> SocketAddr {
        match &*self.either {
            Either::Blocking(miner) => miner.address().unwrap(),
            Either::Smol(miner) => miner.address().unwrap(),
        }
    }

    #[track_caller]
    fn until_up(&self) {
        eventually("it is up", || self.status().state == State::Up);
    }

    #[track_caller]
    fn until_down(&self, reason: Reason) {
        eventually("a connection ended so", || {
            let down = |event: &Event| matches!(event, Event::Down { reason: is, .. } if *is == reason);
            self.events.lock().unwrap().iter().any(down)
        });
    }

    #[track_caller]
    fn stop(self) -> Status {
        let either = Arc::into_inner(self.either).expect("somebody still waits for this miner");
        promptly("a miner closes", move || match either {
            Either::Blocking(miner) => miner.close(Duration::ZERO),
            Either::Smol(miner) => smol::block_on(miner.close(Duration::ZERO)),
        })
    }
}

fn prediction(id: &str) -> String {
    format!(r#"{{"game_id":"game-1","home_score":3,"confidence":0.750,"prediction_id":"{id}"}}"#)
}

/// As [`quick`], with so much time for a confirmation that its absence would fail the test.
fn patient(config: &mut Config) {
    quick(config);
    config.outbox.ack_wait = bowline::AckWait::Fixed(LIMIT);
    // The connection is what is tested.
    config.route.grace = LIMIT;
}

fn setup(validator: &Validator) -> Setup<Bettensor> {
    let setup = Setup::miner(&format!("ws://{}", validator.address), keys("07")).unwrap();
    setup.validator(validator.keys.hotkey()).drain(DRAIN).configure(patient)
}

fn world(adapter: Adapter) -> (Validator, Miner) {
    let validator = Validator::start(keys("07").hotkey());
    let miner = Miner::start(adapter, setup(&validator));
    (validator, miner)
}

fn on_http_alone(adapter: Adapter) -> (Validator, Miner) {
    let validator = Validator::start(keys("07").hotkey());
    let settings = Settings { enabled: false, ..Settings::default() };
    let setup = setup(&validator).settings(&settings).unwrap();
    // After the settings, which know nothing of tests.
    let miner = Miner::start(adapter, setup.configure(|config| config.route.backoff.floor = millis(20)));
    (validator, miner)
}

const DELIVERED: Outcome = Outcome::Delivered { path: Path::WebSocket };
const BY_HTTP: Outcome = Outcome::Delivered { path: Path::Http };
const REJECTED: Outcome = Outcome::Rejected(Rejection::ByPeer);

/// How it ended, and the peer's words.
#[track_caller]
fn ended(receipt: Receipt) -> (Outcome, Option<Reply>) {
    begin("a prediction ends", move || (receipt.wait().outcome, receipt.reply().cloned())).wait()
}

fn says(success: bool, message: &str) -> Option<Reply> {
    // As the validator's library wrote it.
    let stats = r#"{"rank": 0.5, "stake": 1000.0}"#.to_owned();
    Some(Reply { success, message: message.into(), miner_stats: Some(stats) })
}

mod with_a_validator {
    use super::*;

    with_both! {
        predicts_and_is_confirmed,
        speaks_only_when_it_was_greeted,
        n3_reads_json_in_binary_frames_and_sends_text,
        hears_why_a_prediction_is_rejected,
        keeps_predictions_of_one_id_apart,
        i7_takes_no_late_word_about_another_of_that_id,
        h5_sends_nothing_that_a_validator_does_not_read,
        sends_again_what_a_lost_connection_carried,
        runs_on_http_alone,
        goes_by_http_when_it_is_not_answered,
        believes_no_answer_that_is_not_signed,
        takes_updates_on_either_path_once,
        is_confirmed_by_its_receiver,
        takes_nothing_from_strangers_at_its_receiver,
        does_not_hear_strangers,
        e1_a_validator_with_another_key_is_told_by_its_address,
        listens_to_whoever_signed_first,
        gives_way_to_another_of_its_name,
        is_refused_and_says_why,
        u11_is_told_how_wrong_its_clock_is_and_gives_up_over_nothing_that_passes,
        comes_back_when_it_is_told_to,
        spreads_over_the_window_it_was_told,
        answers_no_heartbeat_and_sends_its_own,
        finds_a_silent_validator_dead,
    }

    fn predicts_and_is_confirmed(adapter: Adapter) {
        let (mut validator, miner) = world(adapter);
        let early = miner.predict(prediction("early"));
        let (mut visitor, _) = validator.welcome();
        let said = visitor.next();
        assert_eq!((said.kind.as_str(), said.prediction_id()), ("prediction", "early"));
        assert_eq!(said.data["confidence"], 0.75);
        visitor.confirm("early", "success", "Prediction for game game-1 accepted");
        assert_eq!(ended(early), (DELIVERED, says(true, "Prediction for game game-1 accepted")));

        let own = miner.try_send("odds", r#"{"prediction_id":"odds-1"}"#).unwrap();
        assert_eq!(visitor.next().kind, "odds");
        visitor.confirm("odds-1", "success", "");
        assert_eq!(ended(own), (DELIVERED, says(true, "")));
        let last = miner.stop();
        assert_eq!((last.stats.frames, last.stats.posts, last.stats.attempts), (2, 0, 1));
        assert_eq!((last.stats.malformed, last.stats.violations), (0, 0));
    }

    fn speaks_only_when_it_was_greeted(adapter: Adapter) {
        let (mut validator, miner) = world(adapter);
        let receipt = miner.predict(prediction("p"));
        let mut visitor = validator.visitor();
        visitor.auth();
        visitor.assert_quiet();
        assert_eq!(miner.status().state, State::Handshaking);
        // Any frame of the validator's is a greeting, as to the original.
        visitor.say("game_update", r#"{"games":[]}"#);
        assert_eq!(visitor.next().prediction_id(), "p");
        assert!(miner.receive().complete());
        visitor.confirm("p", "success", "");
        assert_eq!(ended(receipt).0, DELIVERED);
        miner.stop();
    }

    /// As the original does. Sixteen of them were malformed, and then the validator was refused for ever longer.
    fn n3_reads_json_in_binary_frames_and_sends_text(adapter: Adapter) {
        let (mut validator, miner) = world(adapter);
        let mut visitor = validator.visitor();
        visitor.auth();
        visitor.binary = true;
        visitor.say("welcome", "{}");
        for n in 0..20 {
            let receipt = miner.predict(prediction(&format!("p-{n}")));
            assert_eq!(visitor.next().prediction_id(), format!("p-{n}"));
            visitor.confirm(&format!("p-{n}"), "success", "");
            assert_eq!(ended(receipt).0, DELIVERED);
        }
        let last = miner.stop();
        assert_eq!((last.stats.malformed, last.stats.attempts), (0, 1));
    }

    fn hears_why_a_prediction_is_rejected(adapter: Adapter) {
        let (mut validator, miner) = world(adapter);
        let (mut visitor, _) = validator.welcome();
        let receipt = miner.predict(prediction("p"));
        visitor.next();
        visitor.confirm("p", "error", "Game closed-1 is not active");
        assert_eq!(ended(receipt), (REJECTED, says(false, "Game closed-1 is not active")));
        let last = miner.stop();
        assert_eq!((last.stats.rejected, last.stats.posts), (1, 0), "a word is an end, not a reason to try HTTP");
    }

    fn keeps_predictions_of_one_id_apart(adapter: Adapter) {
        let (mut validator, miner) = world(adapter);
        let (mut visitor, _) = validator.welcome();
        let first = miner.predict(prediction("p"));
        let second = miner.try_send("prediction", r#"{"prediction_id": "\u0070", "home_score": 4}"#).unwrap();
        let other = miner.predict(prediction("q"));
        assert_eq!([&first, &second, &other].map(Receipt::after), [None, Some(first.id()), None], "I7: it says so");
        let long = prediction(&"p".repeat(65));
        for (kind, data, why) in [
            ("prediction", r#"{"game_id":"game-1"}"#, "a prediction_id that is missing"),
            ("prediction", r#"{"prediction_id":17}"#, "a prediction_id that is not a string"),
            ("prediction", &long, "longer than 64 bytes"),
            ("prediction", "[]", "not one JSON object"),
            ("prediction", r#"{"prediction_id":"x","a":1,"a":2}"#, "occurs twice"),
            ("heartbeat", r#"{"prediction_id":"x"}"#, "the protocol's own"),
            ("", r#"{"prediction_id":"x"}"#, "the protocol's own"),
        ] {
            let refused = miner.try_send(kind, data.to_owned()).unwrap_err();
            assert!(refused.to_string().contains(why), "{kind} {data}: {refused}");
        }
        assert_eq!(visitor.next().data["home_score"], 3);
        assert_eq!(visitor.next().prediction_id(), "q");
        visitor.assert_quiet();
        // A word about what was never predicted, and one about what is: only that counts.
        visitor.confirm("r", "success", "");
        visitor.confirm("p", "success", "");
        assert_eq!((ended(first).0, second.try_settled()), (DELIVERED, None));
        assert_eq!(visitor.next().data["home_score"], 4);
        visitor.confirm("q", "success", "");
        visitor.confirm("p", "error", "Game over");
        assert_eq!((ended(second), ended(other).0), ((REJECTED, says(false, "Game over")), DELIVERED));
        let again = miner.predict(prediction("p"));
        assert_eq!(visitor.next().prediction_id(), "p");
        visitor.confirm("p", "error", "twice");
        assert_eq!(ended(again).0, REJECTED);
        assert_eq!(miner.stop().stats.violations, 0);
    }

    /// The first goes by HTTP at last, and the word about it on the connection comes when the second is under way.
    fn i7_takes_no_late_word_about_another_of_that_id(adapter: Adapter) {
        let mut validator = Validator::start(keys("07").hotkey());
        let miner = Miner::start(adapter, setup(&validator).configure(impatient));
        let (mut visitor, _) = validator.welcome();
        let first = miner.predict(prediction("p"));
        let second = miner.predict(prediction("p").replace("3", "4"));
        visitor.next();
        let (post, _) = validator.post();
        post.answer(200, "", &confirmation(&validator.keys, "p", "success", "by HTTP"));
        assert_eq!(ended(first).0, BY_HTTP);
        assert_eq!(visitor.next().data["home_score"], 4);
        visitor.confirm("p", "success", "the first");
        visitor.confirm("p", "error", "the second");
        assert_eq!(ended(second), (REJECTED, says(false, "the second")));
        miner.stop();
    }

    /// A validator of ours reads 64 KiB, and closes on more.
    fn h5_sends_nothing_that_a_validator_does_not_read(adapter: Adapter) {
        let (mut validator, miner) = world(adapter);
        let (mut visitor, _) = validator.welcome();
        let of = |length: usize| format!(r#"{{"prediction_id":"p","x":"{}"}}"#, "x".repeat(length));
        let refused = miner.try_send("prediction", of(64 << 10)).unwrap_err();
        assert_eq!(refused.why, Refused::Session(bowline::Refusal::TooLarge));
        let longest = (0..64 << 10).rev().find_map(|length| miner.try_send("prediction", of(length)).ok()).unwrap();
        assert!(visitor.next().length <= 64 << 10);
        visitor.confirm("p", "success", "");
        assert_eq!(ended(longest).0, DELIVERED);
        miner.stop();
    }

    fn sends_again_what_a_lost_connection_carried(adapter: Adapter) {
        let (mut validator, miner) = world(adapter);
        let receipts = ["a", "b"].map(|id| miner.predict(prediction(id)));
        let mut nonces = std::collections::BTreeSet::new();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (mut visitor, nonce) = validator.welcome();
            assert!(nonces.insert(nonce));
            for id in ["a", "b"] {
                let Said { data, nonce, .. } = visitor.next();
                assert_eq!(data["prediction_id"], id);
                assert!(nonces.insert(nonce), "a nonce is used once");
                seen.push(data);
            }
            // Dropped in the middle.
        }
        assert!(seen.chunks(2).all(|pair| pair == &seen[..2]), "the same data each time");
        let (mut visitor, _) = validator.welcome();
        for id in ["b", "a"] {
            visitor.next();
            visitor.confirm(id, "success", "");
        }
        for receipt in receipts {
            assert_eq!(ended(receipt).0, DELIVERED);
        }
        assert_eq!(miner.stop().stats.attempts, 4);
    }

    fn runs_on_http_alone(adapter: Adapter) {
        let (mut validator, miner) = on_http_alone(adapter);
        let receipt = miner.predict(prediction("p"));
        let (post, said) = validator.post();
        assert_eq!((said.kind.as_str(), said.prediction_id()), ("prediction", "p"));
        assert_eq!(post.headers["idempotency-key"], receipt.id().to_string());
        post.answer(200, "", &confirmation(&validator.keys, "p", "success", "fine"));
        assert_eq!(ended(receipt), (BY_HTTP, says(true, "fine")));

        let receipt = miner.predict(prediction("p"));
        validator.post().0.answer(200, "", &confirmation(&validator.keys, "p", "error", "too late"));
        assert_eq!(ended(receipt), (REJECTED, says(false, "too late")));

        let receipt = miner.predict(prediction("p"));
        // By itself a status is anyone's word (H8): the prediction comes again.
        validator.post().0.answer(422, "", "");
        validator.post().0.answer(422, "", &confirmation(&validator.keys, "p", "error", "used for something else"));
        assert_eq!(ended(receipt), (REJECTED, says(false, "used for something else")));

        // Busy, in whichever words: it comes again, as the same prediction under another signature.
        let receipt = miner.predict(prediction("p"));
        let mut nonces = std::collections::BTreeSet::new();
        for (status, headers) in [(503, "Retry-After: 0\r\n"), (429, ""), (500, ""), (404, ""), (200, "")] {
            let (post, said) = validator.post();
            assert_eq!((said.prediction_id(), &post.headers["idempotency-key"]), ("p", &receipt.id().to_string()));
            assert!(nonces.insert(said.nonce));
            let body = if status == 200 { confirmation(&validator.keys, "p", "success", "") } else { String::new() };
            post.answer(status, headers, &body);
        }
        assert_eq!(ended(receipt).0, BY_HTTP);
        let last = miner.stop();
        assert_eq!((last.stats.attempts, last.stats.frames), (0, 0), "it never dialled");
    }

    fn goes_by_http_when_it_is_not_answered(adapter: Adapter) {
        let mut validator = Validator::start(keys("07").hotkey());
        let miner = Miner::start(adapter, setup(&validator).configure(impatient));
        let (mut visitor, _) = validator.welcome();
        miner.until_up();
        let receipt = miner.predict(prediction("p"));
        let on_websocket = visitor.next();
        let (post, by_http) = validator.post();
        assert_eq!(on_websocket.data, by_http.data);
        assert_ne!(on_websocket.nonce, by_http.nonce);
        // The late word on the connection wins; that of the request comes to nothing.
        visitor.confirm("p", "success", "at last");
        assert_eq!(ended(receipt), (DELIVERED, says(true, "at last")));
        post.answer(200, "", &confirmation(&validator.keys, "p", "error", "twice"));
        visitor.confirm("p", "success", "again");
        visitor.assert_quiet();
        let last = miner.stop();
        assert_eq!((last.stats.violations, last.stats.rejected, last.stats.attempts), (0, 0, 1));
    }

    /// 200 is said by proxies and portals, too.
    fn believes_no_answer_that_is_not_signed(adapter: Adapter) {
        let (mut validator, miner) = on_http_alone(adapter);
        let receipt = miner.predict(prediction("p"));
        let unsigned = r#"{"type":"confirmation","prediction_id":"p","status":"success"}"#.to_owned();
        let right = confirmation(&validator.keys, "p", "success", "fine");
        for body in [
            String::new(),
            "<html>Welcome to the airport</html>".into(),
            unsigned,
            confirmation(&keys("0c"), "p", "success", "somebody else's"),
            confirmation(&validator.keys, "q", "success", "of another"),
            right.replace("fine", "f1ne"),
            format!("{right}{}", " ".repeat(64 * 1024)),
        ] {
            validator.post().0.answer(200, "", &body);
        }
        let (post, _) = validator.post();
        assert_eq!(receipt.try_settled(), None);
        post.answer(200, "", &right);
        assert_eq!(ended(receipt), (BY_HTTP, says(true, "fine")));
        miner.stop();
    }

    fn update(n: u32) -> String {
        format!(r#"{{"games":[{{"game_id":"game-{n}"}}],"timestamp":"2026-11-20T22:17:47.922667+00:00"}}"#)
    }

    fn listening(adapter: Adapter) -> (Validator, Miner) {
        let validator = Validator::start(keys("07").hotkey());
        let miner = Miner::start(adapter, setup(&validator).receiver("127.0.0.1:0").unwrap());
        (validator, miner)
    }

    fn takes_updates_on_either_path_once(adapter: Adapter) {
        let (mut validator, miner) = listening(adapter);
        let address = miner.address();
        let by = validator.keys.clone();
        let posted =
            begin("an answer", move || post(address, "/ws/messages", &[], &frame(&by, "game_update", &update(1))));
        let message = miner.receive();
        assert_eq!((message.kind(), message.path()), ("game_update", Path::Http));
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(message.data()).unwrap()["games"][0]["game_id"],
            "game-1"
        );
        assert!(posted.is_running(), "taken is not done");
        assert!(message.complete());
        assert_eq!(posted.wait().status, 200);

        let (mut visitor, _) = validator.welcome();
        // The same again, in another frame under another nonce; then others.
        visitor.say("game_update", &update(1));
        visitor.say("odds", &update(1));
        visitor.say("game_update", &update(2));
        let kinds = [miner.receive(), miner.receive()].map(|message| {
            let seen = (message.kind().to_owned(), message.path());
            assert!(message.complete());
            seen
        });
        assert_eq!(kinds, ["odds", "game_update"].map(|kind| (kind.to_owned(), Path::WebSocket)));
        let copy = post(address, "/ws/messages", &[], &frame(&validator.keys, "game_update", &update(2)));
        assert_eq!(copy.status, 200);
        let last = miner.stop();
        assert_eq!((last.stats.delivered, last.stats.duplicates), (3, 2));
    }

    fn is_confirmed_by_its_receiver(adapter: Adapter) {
        let (mut validator, miner) = listening(adapter);
        let (mut visitor, _) = validator.welcome();
        let receipts = ["a", "b"].map(|id| miner.predict(prediction(id)));
        visitor.next();
        visitor.next();
        drop(visitor);
        for (id, status) in [("a", "success"), ("b", "error"), ("a", "success"), ("unheard of", "success")] {
            let said =
                post(miner.address(), "/ws/messages", &[], &confirmation(&validator.keys, id, status, "by post"));
            assert_eq!((said.status, said.body.as_str()), (200, r#"{"bowline":"done"}"#));
        }
        let ends = receipts.map(ended);
        assert_eq!(ends, [(BY_HTTP, says(true, "by post")), (REJECTED, says(false, "by post"))]);
        miner.stop();
    }

    fn takes_nothing_from_strangers_at_its_receiver(adapter: Adapter) {
        let (validator, miner) = listening(adapter);
        let right = frame(&validator.keys, "game_update", &update(1));
        let old = bowline::wire::timestamp::Timestamp::parse("2026-01-01T00:00:00+00:00").unwrap();
        for (body, status) in [
            (frame(&keys("0c"), "game_update", &update(1)), 401),
            (frame(&keys("07"), "game_update", &update(1)), 401),
            (right.replace("game-1", "game-2"), 401),
            (format!(r#"{{"type":"game_update","sender":"{}","data":{{}}}}"#, validator.keys.hotkey()), 401),
            (frame_at(&validator.keys, "game_update", &update(1), old), 401),
            ("{}".into(), 401),
            ("[]".into(), 400),
            (frame(&validator.keys, "confirmation", "{}"), 400),
        ] {
            assert_eq!(post(miner.address(), "/ws/messages", &[], &body).status, status, "{body}");
        }
        let late =
            post(miner.address(), "/ws/messages", &[], &frame_at(&validator.keys, "game_update", &update(1), old));
        assert!(late.body.contains(" s behind the miner's clock"), "U11: {}", late.body);
        // A message as long as a frame may be is read; one byte more is not.
        let long = |bytes: usize| post(miner.address(), "/ws/messages", &[], &" ".repeat(bytes)).status;
        assert_eq!((long(1 << 20), long((1 << 20) + 1)), (400, 413));
        assert_eq!(post(miner.address(), "/ws", &[], &right).status, 404);
        assert_eq!(post(miner.address(), "/v1/poc-batches/generated", &[], &right).status, 404);
        assert_eq!(miner.stop().stats.delivered, 0);
        // Without a validator nobody is believed.
        let setup = Setup::miner(&validator.address.to_string(), keys("07")).unwrap().receiver("127.0.0.1:0").unwrap();
        let miner = Miner::start(adapter, setup.configure(patient));
        assert_eq!(post(miner.address(), "/ws/messages", &[], &right).status, 401);
        miner.stop();
    }

    fn does_not_hear_strangers(adapter: Adapter) {
        let (mut validator, miner) = world(adapter);
        let receipt = miner.predict(prediction("p"));
        let mut visitor = validator.visitor();
        visitor.auth();
        let stranger = keys("0c");
        visitor.raw(r#"{"type":"welcome","message":"unsigned"}"#);
        visitor.raw(frame(&keys("07"), "welcome", r#"{"of":"its own"}"#));
        visitor.assert_quiet();
        assert_eq!(miner.status().state, State::Handshaking, "no stranger greets");
        visitor.say("welcome", "{}");
        visitor.next();
        visitor.raw(confirmation(&stranger, "p", "success", ""));
        visitor.raw(r#"{"type":"confirmation","prediction_id":"p","status":"success"}"#);
        visitor.raw(frame(&stranger, "game_update", "{}"));
        let forged = frame(&validator.keys, "game_update", r#"{"a":1}"#).replace(r#""a": 1"#, r#""a": 2"#);
        visitor.raw(forged);
        visitor.assert_quiet();
        let stats = miner.status().stats;
        assert_eq!(
            (stats.malformed, stats.delivered, receipt.try_settled()),
            (1, 0, None),
            "what is forged is malformed"
        );
        visitor.confirm("p", "success", "");
        assert_eq!(ended(receipt).0, DELIVERED);
        miner.stop();
    }

    /// A peer that greets with another key is another validator: the attempt ends.
    fn e1_a_validator_with_another_key_is_told_by_its_address(adapter: Adapter) {
        let (mut validator, miner) = world(adapter);
        let mut visitor = validator.visitor();
        visitor.auth();
        let stranger = keys("0c");
        // Forged in the stranger's name: no proof that it is there.
        visitor.raw(frame(&stranger, "welcome", r#"{"a":1}"#).replace(r#""a": 1"#, r#""a": 2"#));
        visitor.assert_quiet();
        visitor.raw(frame(&stranger, "welcome", "{}"));
        miner.until_down(Reason::Signer);
        let last = miner.status().websocket.last.unwrap();
        assert_eq!((last.reason, last.text.unwrap().as_str()), (Reason::Signer, &*stranger.hotkey().to_string()));
        miner.stop();
    }

    fn listens_to_whoever_signed_first(adapter: Adapter) {
        let mut validator = Validator::start(keys("07").hotkey());
        let setup = Setup::miner(&validator.address.to_string(), keys("07")).unwrap().drain(DRAIN);
        let miner = Miner::start(adapter, setup.configure(patient));
        let receipts = ["a", "b"].map(|id| miner.predict(prediction(id)));
        // In the documents' dialect nobody signs.
        let mut visitor = validator.visitor();
        visitor.auth();
        // Neither a refusal nor its own frame come back is a greeting.
        visitor.raw(r#"{"status":"error","message":"no"}"#);
        visitor.raw(frame(&keys("07"), "welcome", "{}"));
        visitor.assert_quiet();
        visitor.raw(r#"{"message":"Connection established"}"#);
        visitor.next();
        visitor.next();
        visitor.raw(r#"{"type":"confirmation","status":"success","prediction_id":"a"}"#);
        let [first, second] = receipts;
        assert_eq!(ended(first).0, DELIVERED);
        // Once somebody signs, nobody else is heard on this connection.
        visitor.say("welcome", "{}");
        visitor.raw(r#"{"type":"confirmation","status":"success","prediction_id":"b"}"#);
        visitor.raw(confirmation(&keys("0c"), "b", "success", ""));
        visitor.assert_quiet();
        assert_eq!(second.try_settled(), None);
        drop(visitor);
        // On the next one it may be another.
        let mut visitor = validator.visitor();
        visitor.auth();
        visitor.raw(frame(&keys("0c"), "welcome", "{}"));
        assert_eq!(visitor.next().prediction_id(), "b");
        visitor.raw(confirmation(&keys("0c"), "b", "success", ""));
        assert_eq!(ended(second).0, DELIVERED);
        miner.stop();
    }

    fn gives_way_to_another_of_its_name(adapter: Adapter) {
        let mut validator = Validator::start(keys("07").hotkey());
        let miner = Miner::start(adapter, setup(&validator).configure(soon_by_http));
        let (visitor, _) = validator.welcome();
        miner.until_up();
        visitor.close(4003, "replaced");
        miner.until_down(Reason::Closed(4003));
        // It does not fight for the place, but what it has to say still goes by HTTP.
        let receipt = miner.predict(prediction("p"));
        miner.assert_not_dialled_again(receipt, &mut validator);
    }

    fn is_refused_and_says_why(adapter: Adapter) {
        let (mut validator, miner) = world(adapter);
        let mut visitor = validator.visitor();
        visitor.auth();
        visitor.raw(r#"{"status":"error","message":"Hotkey not registered in metagraph"}"#);
        visitor.close(1008, "Unregistered hotkey");
        miner.until_down(Reason::Closed(1008));
        let last = Some("Hotkey not registered in metagraph".into());
        assert_eq!(miner.complaints(), Complaints { total: 1, last });
        let (mut visitor, _) = validator.welcome();
        miner.until_up();
        visitor.raw(r#"{"type":"error","message":"Invalid message signature or structure","timestamp":"now"}"#);
        visitor.say("error", r#"{"message":"Unknown message type: odds"}"#);
        visitor.assert_quiet();
        let last = Some("Unknown message type: odds".into());
        assert_eq!(miner.complaints(), Complaints { total: 3, last });
        assert_eq!(miner.stop().stats.malformed, 0);
    }

    fn u11_is_told_how_wrong_its_clock_is_and_gives_up_over_nothing_that_passes(adapter: Adapter) {
        let impatient = |config: &mut Config| {
            (config.link.give_up, config.link.blocked) = (GiveUp::Refusals(2), millis(100));
        };
        let mut validator = Validator::start(keys("07").hotkey());
        let miner = Miner::start(adapter, setup(&validator).configure(impatient));
        // What a hub says that cannot judge yet passes by itself, however often it is said.
        for _ in 0..4 {
            let mut visitor = validator.visitor();
            visitor.auth();
            visitor.close(1013, "retry-after=0.1");
            miner.until_down(Reason::Closed(1013));
        }
        let said = "Invalid authentication: the timestamp is 372 s behind the hub's clock";
        for _ in 0..2 {
            let mut visitor = validator.visitor();
            visitor.auth();
            visitor.raw(format!(r#"{{"status":"error","message":"{said}"}}"#));
            visitor.close(1008, said);
            miner.until_down(Reason::Closed(1008));
        }
        assert_eq!(miner.complaints().last.as_deref(), Some(said));
        eventually("it gives up", || miner.status().state == State::Failed);
        let last = miner.status().websocket.last.unwrap();
        assert_eq!((last.reason, last.text.unwrap().as_str().to_owned()), (Reason::Closed(1008), said.to_owned()));
    }

    /// Longer than many attempts would take, and short for whoever waits.
    fn soon_by_http(config: &mut Config) {
        patient(config);
        config.route.grace = millis(700);
    }

    fn comes_back_when_it_is_told_to(adapter: Adapter) {
        let mut validator = Validator::start(keys("07").hotkey());
        let miner = Miner::start(adapter, setup(&validator).configure(soon_by_http));
        let (visitor, _) = validator.welcome();
        miner.until_up();
        visitor.close(1013, "retry-after=600");
        miner.until_down(Reason::Closed(1013));
        let receipt = miner.predict(prediction("p"));
        miner.assert_not_dialled_again(receipt, &mut validator);
    }

    fn spreads_over_the_window_it_was_told(adapter: Adapter) {
        let mut validator = Validator::start(keys("07").hotkey());
        let setup = setup(&validator).configure(soon_by_http).seed(1).identity("a miner").epoch(1);
        let miner = Miner::start(adapter, setup);
        let mut visitor = validator.visitor();
        visitor.auth();
        visitor.say("welcome", r#"{"status":"success","reconnect_window":600}"#);
        miner.until_up();
        visitor.close(1012, "");
        miner.until_down(Reason::Closed(1012));
        let receipt = miner.predict(prediction("p"));
        miner.assert_not_dialled_again(receipt, &mut validator);
    }

    impl Miner {
        /// The prediction goes by HTTP, and meanwhile it has not dialled again.
        #[track_caller]
        fn assert_not_dialled_again(self, receipt: Receipt, validator: &mut Validator) {
            let (post, said) = validator.post();
            let answer = confirmation(&validator.keys, said.prediction_id(), "success", "");
            post.answer(200, "", &answer);
            assert_eq!(ended(receipt).0, BY_HTTP);
            assert_eq!(self.stop().stats.attempts, 1);
        }
    }

    fn answers_no_heartbeat_and_sends_its_own(adapter: Adapter) {
        let mut validator = Validator::start(keys("07").hotkey());
        let lively = |config: &mut Config| {
            patient(config);
            config.heartbeat.interval = millis(40);
            config.heartbeat.dead = LIMIT;
        };
        let miner = Miner::start(adapter, setup(&validator).configure(lively));
        let (mut visitor, _) = validator.welcome();
        let mut nonces = std::collections::BTreeSet::new();
        for _ in 0..10 {
            visitor.say("heartbeat", "{}");
            let said = visitor.any();
            assert_eq!((said.kind.as_str(), &said.data), ("heartbeat", &value!({})));
            assert!(nonces.insert(said.nonce));
            visitor.say("heartbeat_ack", "{}");
        }
        visitor.assert_quiet();
        assert_eq!(miner.stop().stats.malformed, 0);
    }

    fn finds_a_silent_validator_dead(adapter: Adapter) {
        let mut validator = Validator::start(keys("07").hotkey());
        let lively = |config: &mut Config| {
            patient(config);
            config.heartbeat.interval = millis(50);
            config.heartbeat.dead = millis(300);
        };
        let miner = Miner::start(adapter, setup(&validator).configure(lively));
        let (silent, _) = validator.welcome();
        miner.until_down(Reason::Dead);
        let (visitor, _) = validator.welcome();
        miner.stop();
        drop((silent, visitor));
    }
}

mod with_pythons {
    //! The validator is Python's `websockets`, and behaves as the original.

    use super::*;
    use real::peer::{self, Peer};

    with_both! {
        works_with_it_as_it_is,
        i7_predicts_twenty_times_in_one_second,
        i6_posts_twenty_predictions_of_one_second,
        predicts_again_after_a_loss,
        is_not_registered,
        e1_has_another_key,
        l12_finds_a_dead_sender_and_does_not_kill_the_next,
        b10_outlives_a_login_proxy_and_gets_its_updates_again,
    }

    fn visiting(adapter: Adapter, scenario: &str, configure: fn(&mut Config)) -> Option<(Peer, Miner)> {
        visiting_with(adapter, scenario, configure, |_| {})
    }

    fn visiting_with(
        adapter: Adapter,
        scenario: &str,
        configure: fn(&mut Config),
        first: fn(&mut Peer),
    ) -> Option<(Peer, Miner)> {
        let mut peer = peer::signing_python("validator.py", scenario)?;
        first(&mut peer);
        let listening = peer.saw("listening");
        let url = format!("ws://127.0.0.1:{}", listening["port"]);
        let setup = Setup::miner(&url, keys("07")).unwrap().drain(DRAIN).configure(configure);
        let setup = setup.validator(listening["address"].as_str().unwrap().parse().unwrap());
        Some((peer, Miner::start(adapter, setup)))
    }

    fn scored(id: &str, score: i32) -> String {
        format!(
            r#"{{"prediction_id":"{id}","game_id":"Zürich","home_score":{score},"away_score":1,"confidence":1e-7,"x":7.50}}"#
        )
    }

    /// As the published miners call them: by the game and the second. It confirms with its next heartbeat.
    fn i7_predicts_twenty_times_in_one_second(adapter: Adapter) {
        let Some((mut peer, miner)) = visiting(adapter, "as it is", patient) else { return };
        let predict = |n: i32| miner.predict(scored(&format!("g{}_1795213203", n % 4), n));
        let receipts: Vec<_> = (0..20).map(predict).collect();
        let before: Vec<_> =
            receipts.iter().map(|receipt| receipts.iter().position(|of| Some(of.id()) == receipt.after())).collect();
        assert_eq!(before, (0..20).map(|n: usize| n.checked_sub(4)).collect::<Vec<_>>(), "whom it waits for");
        let mut scores = Vec::new();
        for _ in 0..20 {
            let seen = peer.saw("prediction");
            scores.push(seen["data"]["home_score"].as_i64().unwrap());
            let open = seen["open"].as_array().unwrap();
            assert!(!open.contains(&seen["data"]["prediction_id"]), "two open of one id: {seen}");
        }
        scores.sort_unstable();
        assert_eq!(scores, (0..20).collect::<Vec<_>>());
        for receipt in receipts {
            assert_eq!(ended(receipt).0, DELIVERED);
        }
        let last = miner.stop();
        assert_eq!((last.stats.frames, last.stats.posts), (20, 0));
    }

    /// The same by POST, to a validator of ours: each is handed over once, and each miner's receipt has its own words.
    fn i6_posts_twenty_predictions_of_one_second(adapter: Adapter) {
        let scores = Arc::new(Mutex::new(Vec::new()));
        let stored = Arc::clone(&scores);
        let hub = bowline_smol::hub::HubSetup::validator("127.0.0.1:0", keys("0b")).unwrap();
        let hub = hub.authorize(|_| bowline_smol::hub::Admission::accept()).on("prediction", move |message| {
            let score = message.json::<serde_json::Value>().unwrap()["home_score"].as_u64().unwrap();
            stored.lock().unwrap().push(score);
            async move { Ok::<_, String>(format!("{score}")) }
        });
        let hub = bowline_smol::hub::Hub::start(hub).unwrap();
        let settings = Settings { enabled: false, ..Settings::default() };
        let setup =
            Setup::miner(&format!("ws://{}", hub.address()), keys("07")).unwrap().validator(keys("0b").hotkey());
        let miner = Miner::start(adapter, setup.settings(&settings).unwrap().drain(DRAIN));
        let predict = |n: i32| miner.predict(scored(&format!("g{}_1795213203", n % 4), n));
        let receipts: Vec<_> = (0..20).map(predict).collect();
        for (n, receipt) in receipts.into_iter().enumerate() {
            let (outcome, reply) = ended(receipt);
            assert_eq!((outcome, reply.unwrap().message), (BY_HTTP, n.to_string()));
        }
        miner.stop();
        let mut scores = scores.lock().unwrap().clone();
        scores.sort_unstable();
        assert_eq!(scores, (0..20).collect::<Vec<_>>());
    }

    fn works_with_it_as_it_is(adapter: Adapter) {
        let lively = |config: &mut Config| {
            patient(config);
            config.heartbeat.interval = millis(100);
            config.heartbeat.dead = LIMIT;
        };
        let Some((mut peer, miner)) = visiting(adapter, "as it is", lively) else { return };
        let open = peer.saw("open");
        assert_eq!((&open["path"], &open["extensions"]), (&value!("/ws"), &value!([])));
        assert_eq!(peer.saw("auth")["hotkey"], keys("07").hotkey().to_string());
        for (id, score, outcome) in [("a", 3, DELIVERED), ("b", -1, REJECTED), (r"é\n", 0, DELIVERED)] {
            let receipt = miner.predict(scored(id, score));
            let seen = peer.saw("prediction");
            assert_eq!(seen["data"], serde_json::from_str::<serde_json::Value>(&scored(id, score)).unwrap());
            let (end, reply) = ended(receipt);
            assert_eq!(end, outcome);
            let reply = reply.unwrap();
            assert_eq!(reply.success, outcome == DELIVERED);
            assert!(reply.message.starts_with("Prediction for game Zürich "), "{reply:?}");
            assert_eq!(
                reply.miner_stats.as_deref(),
                Some(r#"{"stake":1000.0,"rank":0.5,"emission":1e-07,"name":"Zürich"}"#),
                "as it came"
            );
        }
        peer.tell("games");
        let games = miner.receive();
        assert_eq!((games.kind(), games.path()), ("game_update", Path::WebSocket));
        assert!(core::str::from_utf8(games.data()).unwrap().contains("Zürich 😀"));
        assert!(games.complete());
        for _ in 0..5 {
            peer.saw("heartbeat");
        }
        assert_eq!((peer.count("complaint"), miner.complaints().total), (0, 0), "it had nothing to complain of");
        let last = miner.stop();
        assert_eq!((last.stats.attempts, last.stats.posts, last.stats.malformed), (1, 0, 0));
        assert_eq!(peer.saw("closed")["code"], 1000);
    }

    fn predicts_again_after_a_loss(adapter: Adapter) {
        let Some((mut peer, miner)) = visiting(adapter, "as it is", impatient) else { return };
        let mut nonces = std::collections::BTreeSet::new();
        for (n, end) in ["drop", "stop"].into_iter().enumerate() {
            assert!(nonces.insert(peer.saw("auth")["nonce"].to_string()));
            miner.until_up();
            // Its confirmation would come with the next heartbeat; HTTP knows nothing of it.
            let receipt = miner.predict(scored(&n.to_string(), 1));
            let first = peer.saw("prediction");
            peer.tell(end);
            peer.saw("closed");
            eventually("it is there again, or confirmed", || {
                receipt.try_settled().is_some() || peer.count("prediction") >= 2
            });
            assert!(nonces.insert(first["nonce"].to_string()));
            assert_eq!(ended(receipt).0, DELIVERED);
        }
        peer.saw("auth");
        assert_eq!((peer.count("complaint"), miner.complaints().total), (0, 0));
        let last = miner.stop();
        assert_eq!((last.stats.violations, last.stats.delivered_websocket), (0, 2));
    }

    /// Field bug: after two refusals the WebSocket was never dialled again, so that no update came any more.
    fn b10_outlives_a_login_proxy_and_gets_its_updates_again(adapter: Adapter) {
        let Some(mut peer) = peer::signing_python("validator.py", "as it is") else { return };
        let listening = peer.saw("listening");
        let Some(mut between) = peer::python("go_between.py", "between") else { return };
        between.tell(&listening["port"]);
        between.tell("status 401");
        between.saw("mode");
        let setup = Setup::miner(&format!("ws://127.0.0.1:{}", between.port("listening")), keys("07")).unwrap();
        let setup = setup.validator(listening["address"].as_str().unwrap().parse().unwrap()).drain(DRAIN);
        let setup = setup.configure(|config| {
            patient(config);
            (config.link.blocked, config.route.blocked) = (millis(200), millis(200));
            config.route.grace = millis(100);
        });
        let miner = Miner::start(adapter, setup);
        let receipt = miner.predict(scored("a", 3));
        let refused: Vec<_> = (0..10).map(|_| between.saw("refused")["request"].to_string()).collect();
        assert!(
            ["\"GET /ws ", "\"POST "].iter().all(|way| refused.iter().any(|line| line.starts_with(way))),
            "{refused:?}"
        );
        let status = miner.status();
        assert_eq!(status.websocket.last.map(|last| last.reason), Some(Reason::Status(401)));
        assert!(status.websocket.blocked_since.is_some() && receipt.try_settled().is_none());
        between.tell("pass");
        miner.until_up();
        assert!(matches!(ended(receipt).0, Outcome::Delivered { .. }));
        peer.tell("games");
        let games = miner.receive();
        assert_eq!((games.kind(), games.path()), ("game_update", Path::WebSocket));
        assert!(games.complete());
        miner.stop();
    }

    /// Rules L10 and L12: the original's sender dies of two confirmations in one moment, and its library goes on answering
    /// pings. Ten predictions were stored there and none was confirmed.
    fn l12_finds_a_dead_sender_and_does_not_kill_the_next(adapter: Adapter) {
        let lively = |config: &mut Config| {
            patient(config);
            config.route.http = false;
            // The doubt asks both lives, and the library answers at once.
            config.outbox.ack_wait = bowline::AckWait::Fixed(millis(700));
            config.heartbeat.interval = millis(200);
            config.heartbeat.dead = LIMIT;
            config.heartbeat.program = ProgramLife::Answers(millis(4000));
        };
        let Some((mut peer, miner)) = visiting_with(adapter, "told", lively, |peer| {
            peer.tell(value!({"heartbeat": 0.3, "bursts_kill": true}));
        }) else {
            return;
        };
        miner.until_up();
        let receipts: Vec<_> = (0..10).map(|n| miner.predict(scored(&n.to_string(), 1))).collect();
        peer.saw("dead");
        assert!(receipts.iter().all(|receipt| receipt.try_settled().is_none()), "stored, and none confirmed");
        miner.until_down(Reason::Mute);
        assert_eq!(peer.saw("closed")["code"], 1000);
        for receipt in receipts {
            assert_eq!(ended(receipt).0, DELIVERED);
        }
        assert_eq!((peer.count("dead"), peer.count("complaint")), (1, 0), "a resend does not kill it again");
        let last = miner.stop();
        assert_eq!((last.stats.attempts, last.stats.violations), (2, 0));
    }

    /// Dialled by one who expects another: each attempt ends with the address of whoever greeted.
    fn e1_has_another_key(adapter: Adapter) {
        let Some(mut peer) = peer::signing_python("validator.py", "as it is") else { return };
        let listening = peer.saw("listening");
        let setup = Setup::miner(&format!("ws://127.0.0.1:{}", listening["port"]), keys("07")).unwrap();
        let setup = setup.validator(keys("0c").hotkey()).drain(DRAIN).configure(patient);
        let miner = Miner::start(adapter, setup);
        let receipt = miner.predict(scored("a", 3));
        for _ in 0..2 {
            peer.saw("closed");
        }
        miner.until_down(Reason::Signer);
        let last = miner.status().websocket.last.unwrap();
        assert_eq!((last.reason, last.reason.by()), (Reason::Signer, Party::Peer));
        assert_eq!(last.text.unwrap().as_str(), listening["address"]);
        assert_eq!((receipt.try_settled(), peer.count("prediction")), (None, 0), "it is told nothing");
        miner.stop();
    }

    fn is_not_registered(adapter: Adapter) {
        let Some((mut peer, miner)) = visiting(adapter, "unregistered", patient) else { return };
        assert_eq!(peer.saw("refused")["reason"], "Unregistered hotkey");
        miner.until_down(Reason::Closed(1008));
        assert_eq!(miner.complaints().last.as_deref(), Some("Hotkey not registered in metagraph"));
        // Five tries, at the longest delay; then it is left to HTTP.
        for _ in 1..5 {
            peer.saw("refused");
        }
        miner.stop();
        assert_eq!(peer.count("open"), 5);
    }
}

#[test]
fn a_confirmation_before_the_prediction_was_sent_is_no_breach() {
    use bowline::wire::KeyedHash;
    use bowline_transport::Wire as _;
    let mut wire = Bettensor::miner(keys("07"));
    let data = Bytes::from(prediction("p"));
    let outgoing = wire.prepare("prediction", &data).unwrap();
    let id = bowline::Origin::new(1, 1).message(bowline::Seq::FIRST);
    wire.accepted(id, &outgoing);
    let names = KeyedHash::new([1; 16]);
    let mut heard = || wire.read(&names, &confirmation(&keys("0b"), "p", "success", "")).head;
    // Of a run before this one, perhaps.
    assert_eq!(heard(), Some(Head::Word { pong: false }));
    let frame = wire
        .write(bowline::Frame::Data { seq: bowline::Seq::FIRST, id, una: bowline::Seq::FIRST, payload: &outgoing })
        .unwrap();
    assert_eq!(Said::check(keys("07").hotkey(), &frame).prediction_id(), "p");
    assert_eq!(wire.read(&names, &confirmation(&keys("0b"), "p", "success", "")).head, Some(Head::Ack { id }));
    wire.settled(id);
    assert_eq!(
        wire.read(&names, &confirmation(&keys("0b"), "p", "success", "")).head,
        Some(Head::Word { pong: false })
    );
}

#[test]
fn nonces_are_used_once_in_a_process() {
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(|| {
                use bowline_transport::Wire as _;
                let mut wire = Bettensor::miner(keys("07"));
                let nonce = |text: String| {
                    serde_json::from_str::<serde_json::Value>(&text).unwrap()["nonce"].as_str().unwrap().to_owned()
                };
                (0..200).map(|_| nonce(wire.greet().unwrap())).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    for nonce in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
        assert!(seen.insert(nonce.clone()), "twice: {nonce}");
    }
}
