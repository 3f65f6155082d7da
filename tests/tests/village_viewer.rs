//! AI Village's viewer over real sockets, in both adapters, against a hub of Python's that behaves as the original does; and
//! against one that keeps history. See `real/peer.rs` for what happens where Python is not installed.

#[macro_use]
mod real;

use bowline::wire::aivillage::{Event, Notice, Since};
use bowline::{AckWait, Config, Outcome, Path, Reason, State};
use bowline_smol::{News, Receipt, Setup, Status, Village};
use bowline_transport::Message;
use core::time::Duration;
use real::peer::{self, Peer};
use real::*;
use serde_json::{Value, json as value};
use std::sync::{Arc, Mutex};
use std::time::Instant;

enum Either {
    Blocking(bowline_blocking::Viewer),
    Smol(bowline_smol::Viewer),
}

/// A viewer of either adapter, whose calls have a limit.
struct Viewer {
    either: Arc<Either>,
    down: Arc<Mutex<Vec<Reason>>>,
}

impl Viewer {
    fn start(adapter: Adapter, setup: Setup<Village>) -> Self {
        let down = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&down);
        let mut note = move |told: bowline_transport::NodeEvent| {
            if let bowline::Event::Down { reason, .. } = told.event {
                seen.lock().unwrap().push(reason);
            }
        };
        let either = match adapter {
            Adapter::Blocking => {
                let viewer = bowline_blocking::Viewer::start(setup).unwrap();
                let all = viewer.events();
                begin("the end of events", move || all.for_each(&mut note));
                Either::Blocking(viewer)
            }
            Adapter::Smol => {
                let viewer = bowline_smol::Viewer::start(setup).unwrap();
                let all = smol::stream::block_on(viewer.events());
                begin("the end of events", move || all.for_each(&mut note));
                Either::Smol(viewer)
            }
        };
        Self { either: Arc::new(either), down }
    }

    fn begin_message(&self) -> Running<Option<Message<Village>>> {
        let either = Arc::clone(&self.either);
        begin("an event", move || match &*either {
            Either::Blocking(viewer) => viewer.receive(),
            Either::Smol(viewer) => smol::block_on(viewer.receive()),
        })
    }

    /// The next event, dealt with.
    #[track_caller]
    fn news(&self) -> News {
        let message = self.begin_message().wait().expect("the session has ended");
        let news = message.content().clone();
        assert!(message.complete());
        news
    }

    /// The next event: of which topic, and which of its numbers. A gap is its topic and the last one that is lost.
    #[track_caller]
    fn numbered(&self) -> (String, u64) {
        let news = self.news();
        match news.event().unwrap() {
            Event::TrainingProgress { current_epoch: Some(n), .. } => {
                let position = news.position.clone().unwrap();
                assert_eq!(position.offset, n);
                (position.topic.into_owned(), n)
            }
            Event::Notice(Notice::Gap { topic, to, .. }) => (format!("gap in {topic}"), to),
            other => panic!("{other:?}"),
        }
    }

    fn send(&self, kind: &str, data: &'static str) -> Receipt {
        match &*self.either {
            Either::Blocking(viewer) => viewer.try_send(kind, data).unwrap(),
            Either::Smol(viewer) => viewer.try_send(kind, data).unwrap(),
        }
    }

    fn status(&self) -> Status {
        match &*self.either {
            Either::Blocking(viewer) => viewer.status(),
            Either::Smol(viewer) => viewer.status(),
        }
    }

    #[track_caller]
    fn stop(self) -> Status {
        let either = Arc::into_inner(self.either).expect("somebody still waits for this viewer");
        promptly("a viewer closes", move || match either {
            Either::Blocking(viewer) => viewer.close(Duration::ZERO),
            Either::Smol(viewer) => smol::block_on(viewer.close(Duration::ZERO)),
        })
    }
}

fn viewing(
    adapter: Adapter,
    scenario: &str,
    setup: impl FnOnce(Setup<Village>) -> Setup<Village>,
) -> Option<(Peer, Viewer)> {
    let mut peer = peer::python("village.py", scenario)?;
    let url = format!("ws://127.0.0.1:{}", peer.port("listening"));
    let viewer = Viewer::start(adapter, setup(Setup::viewer(&url).unwrap().drain(DRAIN)));
    let open = peer.saw("open");
    assert_eq!((&open["path"], &open["extensions"]), (&value!("/ws"), &value!([])));
    eventually("it is greeted", || viewer.status().state == State::Up);
    Some((peer, viewer))
}

fn hasty(config: &mut Config) {
    quick(config);
    config.heartbeat.interval = millis(200);
    config.heartbeat.dead = LIMIT;
}

fn publish(peer: &mut Peer, topic: &str, kind: &str, data: Value) {
    peer.tell(value!(["publish", topic, kind, data]));
}

fn progress(n: u64) -> Value {
    value!({"session_id": "sess-1", "progress": 0.5, "current_epoch": n, "loss": 0.25, "metrics": {"lr": 3e-4}})
}

/// The next time that this topic is subscribed to: since when.
#[track_caller]
fn asked(peer: &mut Peer, topic: &str) -> Value {
    loop {
        let message = peer.saw("subscribe")["message"].clone();
        if message["topic"] == topic {
            return message["since"].clone();
        }
    }
}

/// In topic "training".
fn step(peer: &mut Peer, n: u64) {
    publish(peer, "training", "training_progress", progress(n));
}

mod of_the_original {
    use super::*;

    with_both! {
        sees_events_and_answers_pings,
        comes_back_after_three_to_five_seconds,
        stays_whatever_it_is_sent,
        outlives_what_makes_its_hub_mute,
        l12_does_not_say_again_what_made_its_hub_mute,
        n3_reads_json_in_binary_frames,
    }

    fn sees_events_and_answers_pings(adapter: Adapter) {
        // With its own heartbeat, whose interval is 30 s: the answers alone keep it.
        let setup = |setup: Setup<Village>| setup.configure(quick);
        let Some((mut peer, viewer)) = viewing(adapter, "as it is", setup) else { return };
        // Which the original drops; the path's own topics come all the same.
        for topic in ["models", "system", "training"] {
            assert_eq!(
                peer.saw("subscribe")["message"],
                value!({"type": "subscribe", "topic": topic, "channel": topic, "since": "now"})
            );
        }
        step(&mut peer, 5);
        let news = viewer.news();
        assert_eq!((&*news.kind, &news.position, news.timestamp.is_some()), ("training_progress", &None, true));
        let Event::TrainingProgress { session_id, progress, current_epoch, loss, metrics, .. } = news.event().unwrap()
        else {
            panic!("{news:?}")
        };
        assert_eq!((&*session_id, progress, current_epoch, loss), ("sess-1", Some(0.5), Some(5), Some(0.25)));
        assert_eq!(metrics.as_str(), r#"{"lr":0.0003}"#);
        // The same again is another event: nothing here says that it is a copy.
        for _ in 0..2 {
            publish(&mut peer, "models", "model_created", value!({"model_id": "é", "model_info": {}}));
            assert!(matches!(viewer.news().event(), Ok(Event::ModelCreated { model_id, .. }) if model_id == "é"));
        }
        publish(&mut peer, "system", "weather", value!({"rain": true}));
        let news = viewer.news();
        let data = news.event().unwrap();
        assert!(
            matches!(data, Event::Custom { kind, data } if kind == "weather" && data.as_str() == r#"{"rain":true}"#)
        );

        // It gives up after ten pings whoever answers none of them.
        for _ in 0..13 {
            peer.saw("pong");
        }
        let receipt = viewer.send("custom", r#"{"request":"training_status"}"#);
        assert_eq!(peer.saw("custom")["message"]["data"], value!({"request": "training_status"}));
        peer.saw("ping");
        let delivered = Outcome::Delivered { path: Path::WebSocket };
        assert_eq!(begin("the pong behind it", move || receipt.wait().outcome).wait(), delivered);
        assert!(matches!(viewer.news().event(), Ok(Event::StatusUpdate { of, .. }) if of == "training_status"));

        let last = viewer.stop();
        assert_eq!((last.stats.attempts, last.stats.malformed), (1, 0));
        assert_eq!(peer.saw("closed")["code"], 1000);
    }

    fn comes_back_after_three_to_five_seconds(adapter: Adapter) {
        let Some((mut peer, viewer)) = viewing(adapter, "as it is", |setup| setup) else { return };
        asked(&mut peer, "training");
        let since = Instant::now();
        peer.tell(value!(["close"]));
        assert_eq!(peer.saw("closed")["code"], 1000);
        peer.saw("open");
        assert!(since.elapsed() >= Duration::from_secs(3), "{:?}", since.elapsed());
        asked(&mut peer, "training");
        step(&mut peer, 1);
        viewer.news();
        assert_eq!(*viewer.down.lock().unwrap(), [Reason::Closed(1000)]);
        assert_eq!(viewer.stop().stats.attempts, 2);
    }

    fn stays_whatever_it_is_sent(adapter: Adapter) {
        let Some((mut peer, viewer)) = viewing(adapter, "as it is", |setup| setup.configure(hasty)) else { return };
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        for raw in [
            "{nope",
            "[]",
            r#"{"type":"training_progress","data":{"loss":NaN}}"#,
            r#"{"type":5}"#,
            r#"{"type":"model_deleted","data":{"model_id":"a","model_id":"b"}}"#,
            r#"{"type":"heartbeat","timestamp":"2026-11-20T22:40:08.648087","connections":1}"#,
            r#"{"type":"subscription_confirmed","channel":"metrics"}"#,
            r#"{"type":"connection","status":"connected","client_id":"x","message":"Welcome"}"#,
            r#"{"type":"ping"}"#,
        ] {
            peer.tell(value!(["raw", raw]));
        }
        let sibling =
            r#"{"type":"phase_update","phase_name":"EvoMerge","progress":0.25,"channel":"agent_forge_phases"}"#;
        peer.tell(value!(["raw", sibling]));
        peer.tell(value!(["raw", format!(r#"{{"type":"x","data":{{"deep":{deep}}}}}"#)]));
        peer.tell(value!(["raw", r#"{"type":"training_progress","data":{"progress":"half"},"timestamp":17}"#]));
        let news = viewer.news();
        assert_eq!((&*news.kind, &news.data[..]), ("phase_update", sibling.as_bytes()));
        assert_eq!(viewer.news().kind, "x");
        let news = viewer.news();
        assert!(matches!(news.event(), Ok(Event::TrainingProgress { progress: None, .. })));
        assert_eq!(news.timestamp.as_deref(), Some("17"));
        let last = viewer.stop();
        assert_eq!((last.stats.attempts, last.stats.malformed), (1, 5));
    }

    /// Its fault 3.6.3: a message while a training goes on, and it never says another word to whoever sent it; on the next
    /// connection the same message does the same. So a message ends some time.
    fn outlives_what_makes_its_hub_mute(adapter: Adapter) {
        let brief = |config: &mut Config| {
            hasty(config);
            config.outbox.ack_wait = AckWait::Fixed(millis(500));
            config.outbox.life = Some(millis(1500));
        };
        let Some((mut peer, viewer)) = viewing(adapter, "as it is", |setup| setup.configure(brief)) else { return };
        peer.tell(value!(["train"]));
        peer.saw("training");
        let receipt = viewer.send("custom", r#"{"request":"training_status"}"#);
        assert_eq!(peer.saw("mute")["why"], "TypeError");
        assert_eq!(begin("its end", move || receipt.wait().outcome).wait(), Outcome::Expired);
        let received = viewer.begin_message();
        eventually("an event", || {
            step(&mut peer, 1);
            !received.is_running()
        });
        assert!(received.wait().is_some_and(Message::complete));
        viewer.stop();
    }

    /// The original would be mute again on the next connection, and on the one after that.
    fn l12_does_not_say_again_what_made_its_hub_mute(adapter: Adapter) {
        let brief = |config: &mut Config| {
            hasty(config);
            config.outbox.ack_wait = AckWait::Fixed(millis(20));
            config.outbox.life = None;
        };
        let Some((mut peer, viewer)) = viewing(adapter, "as it is", |setup| setup.configure(brief)) else { return };
        peer.tell(value!(["train"]));
        peer.saw("training");
        let receipt = viewer.send("custom", r#"{"request":"training_status"}"#);
        let end = begin("its end", move || receipt.wait()).wait();
        assert_eq!((end.outcome, end.reason), (Outcome::Abandoned, Some(Reason::Unanswered)));
        let received = viewer.begin_message();
        eventually("an event", || {
            step(&mut peer, 1);
            !received.is_running()
        });
        assert!(received.wait().is_some_and(Message::complete));
        // Twice, where the original closed the connection before the pong was late.
        assert!(peer.count("custom") <= 2, "{}", peer.count("custom"));
        viewer.stop();
    }

    /// Sixteen frames that are not understood end a connection, and then it is refused for ever longer.
    fn n3_reads_json_in_binary_frames(adapter: Adapter) {
        let Some((mut peer, viewer)) = viewing(adapter, "binary", |setup| setup.configure(hasty)) else { return };
        for n in 0..40 {
            step(&mut peer, n);
            let Event::TrainingProgress { current_epoch, .. } = viewer.news().event().unwrap() else { panic!() };
            assert_eq!(current_epoch, Some(n));
        }
        let last = viewer.stop();
        assert_eq!((last.stats.attempts, last.stats.malformed), (1, 0));
    }
}

mod of_a_sibling {
    use super::*;

    with_both! {
        n3_looks_at_the_channels_of_a_sibling,
    }

    /// It reads `channel` and nothing else, and its frames have no envelope: `data` may be one member of several.
    fn n3_looks_at_the_channels_of_a_sibling(adapter: Adapter) {
        let setup = |setup: Setup<Village>| {
            setup
                .topic("agent_forge_phases", Since::Now)
                .unwrap()
                .topic("model_updates", Since::Now)
                .unwrap()
                .configure(hasty)
        };
        let Some((mut peer, viewer)) = viewing(adapter, "sibling", setup) else { return };
        while peer.saw("subscribe")["message"]["channel"] != "training" {}
        publish(&mut peer, "agent_forge_phases", "phase_update", value!({"phase_name": "EvoMerge", "progress": 0.25}));
        let news = viewer.news();
        let said: Value = serde_json::from_slice(&news.data).unwrap();
        assert_eq!(
            (&*news.kind, &said["phase_name"], &said["progress"]),
            ("phase_update", &value!("EvoMerge"), &value!(0.25))
        );
        assert_eq!((&said["channel"], news.timestamp.is_some()), (&value!("agent_forge_phases"), true));
        publish(
            &mut peer,
            "model_updates",
            "model_update",
            value!({"model_id": "m-1", "event_type": "created", "data": {}}),
        );
        let said: Value = serde_json::from_slice(&viewer.news().data).unwrap();
        assert_eq!((&said["model_id"], &said["event_type"]), (&value!("m-1"), &value!("created")), "beside its data");
        // Its pong is one, whatever it says beside.
        let receipt = viewer.send("custom", "{}");
        let delivered = Outcome::Delivered { path: Path::WebSocket };
        assert_eq!(begin("the pong behind it", move || receipt.wait().outcome).wait(), delivered);
        let last = viewer.stop();
        assert_eq!((last.stats.attempts, last.stats.malformed), (1, 0));
    }
}

mod of_a_hub_with_history {
    use super::*;

    with_both! {
        misses_nothing_that_history_holds,
        asks_for_what_was_lost_on_the_way,
        begins_with_the_oldest_if_it_wants_so,
    }

    fn training(setup: Setup<Village>) -> Setup<Village> {
        setup.configure(hasty)
    }

    #[track_caller]
    fn expect(viewer: &Viewer, numbers: impl IntoIterator<Item = u64>) {
        for n in numbers {
            assert_eq!(viewer.numbered(), ("training".to_owned(), n));
        }
    }

    fn misses_nothing_that_history_holds(adapter: Adapter) {
        let Some((mut peer, viewer)) = viewing(adapter, "history", training) else { return };
        asked(&mut peer, "training");
        (1..=5).for_each(|n| step(&mut peer, n));
        expect(&viewer, 1..=5);
        let meanwhile = |numbers: core::ops::RangeInclusive<u64>, forgotten: u64| {
            let events: Vec<Value> = numbers.map(|n| value!(["training_progress", progress(n)])).collect();
            value!(["away", "training", events, forgotten])
        };
        peer.tell(meanwhile(6..=8, 0));
        assert_eq!(asked(&mut peer, "training"), value!({"epoch": 7, "offset": 5}));
        expect(&viewer, 6..=8);

        // Away for longer than history holds.
        peer.tell(meanwhile(9..=20, 15));
        assert_eq!(viewer.numbered(), ("gap in training".to_owned(), 15));
        expect(&viewer, 16..=20);
        step(&mut peer, 21);
        expect(&viewer, [21]);
        viewer.stop();
    }

    fn asks_for_what_was_lost_on_the_way(adapter: Adapter) {
        let Some((mut peer, viewer)) = viewing(adapter, "history", training) else { return };
        assert_eq!(asked(&mut peer, "training"), "now");
        step(&mut peer, 1);
        peer.tell(value!(["unheard", "training", "training_progress", progress(2)]));
        (3..=4).for_each(|n| step(&mut peer, n));
        expect(&viewer, [1, 3]);
        assert_eq!(asked(&mut peer, "training"), value!({"epoch": 7, "offset": 1}));
        let mut rest = [viewer.numbered().1, viewer.numbered().1];
        rest.sort_unstable();
        assert_eq!(rest, [2, 4]);
        // Of the copies that came with it nothing is seen.
        step(&mut peer, 5);
        expect(&viewer, [5]);
        assert_eq!(peer.count("subscribe"), 3 + 1);
        viewer.stop();
    }

    fn begins_with_the_oldest_if_it_wants_so(adapter: Adapter) {
        let setup = |setup: Setup<Village>| setup.topic("rooms.7", Since::Oldest).unwrap().configure(hasty);
        let Some((mut peer, viewer)) = viewing(adapter, "history", setup) else { return };
        assert_eq!(asked(&mut peer, "rooms.7"), "oldest");
        publish(&mut peer, "rooms.7", "training_progress", progress(1));
        assert_eq!(viewer.numbered(), ("rooms.7".to_owned(), 1));
        publish(&mut peer, "training", "training_progress", progress(1));
        assert_eq!(viewer.numbered(), ("training".to_owned(), 1));
        peer.tell(value!(["drop"]));
        for (topic, since) in [
            ("models", value!("now")),
            ("rooms.7", value!({"epoch": 7, "offset": 1})),
            ("system", value!("now")),
            ("training", value!({"epoch": 7, "offset": 1})),
        ] {
            assert_eq!(asked(&mut peer, topic), since);
        }
        viewer.stop();
    }
}

mod of_ours {
    use super::*;
    use bowline_cli::proxy::{Fault, Proxy};
    use bowline_smol::hub::{Hub, HubSetup};

    with_both! {
        misses_nothing_and_is_told_what_it_does,
    }

    fn misses_nothing_and_is_told_what_it_does(adapter: Adapter) {
        let setup = HubSetup::village("127.0.0.1:0").unwrap().configure(|config| config.topics.history = 16);
        let hub = Hub::start(setup).unwrap();
        let proxy = Proxy::start(hub.address()).unwrap();
        let setup = Setup::viewer(&proxy.addr().to_string()).unwrap().drain(DRAIN).configure(hasty);
        let viewer = Viewer::start(adapter, setup);
        eventually("it is greeted", || viewer.status().state == State::Up);
        // What is proved was said behind its subscriptions.
        let receipt = viewer.send("hello", "{}");
        let delivered = Outcome::Delivered { path: Path::WebSocket };
        assert_eq!(begin("the pong behind it", move || receipt.wait().outcome).wait(), delivered);
        let publish = |numbers: core::ops::RangeInclusive<u64>| {
            for n in numbers {
                hub.publish_topic("training", "training_progress", &progress(n).to_string()).unwrap();
            }
        };
        let expect = |numbers: core::ops::RangeInclusive<u64>| {
            for n in numbers {
                assert_eq!(viewer.numbered(), ("training".to_owned(), n));
            }
        };
        publish(1..=3);
        expect(1..=3);
        proxy.set(Fault::Refuse);
        publish(4..=6);
        proxy.set(Fault::Calm);
        expect(4..=6);
        publish(7..=7);
        expect(7..=7);
        // History holds sixteen.
        proxy.set(Fault::Refuse);
        publish(8..=37);
        proxy.set(Fault::Calm);
        assert_eq!(viewer.numbered(), ("gap in training".to_owned(), 21));
        expect(22..=37);
        let last = viewer.stop();
        assert_eq!((last.stats.malformed, last.stats.violations), (0, 0));
        drop(proxy);
    }
}
