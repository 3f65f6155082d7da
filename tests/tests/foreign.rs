//! Peers that are not ours, over real sockets: Python's `websockets` in the role of either original, `curl` as a client
//! of the callbacks, Node's `ws`. With both adapters; see `real/peer.rs` for what happens where a peer is not installed.

#[macro_use]
mod real;

use bowline::{AckWait, Config, Event, Outcome, Path, ProgramLife, Reason, State};
use bowline_smol::{Kind, Receipt, Setup};
use core::time::Duration;
use real::peer::{self, Curl, Peer};
use real::*;
use serde_json::{Value, json as value};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// As [`quick`], with so much time for an acknowledgement that its absence would fail the test.
fn patient(config: &mut Config) {
    quick(config);
    config.outbox.ack_wait = AckWait::Fixed(LIMIT);
}

fn is_down(event: &Event, reason: Reason) -> bool {
    matches!(event, Event::Down { reason: is, .. } if *is == reason)
}

mod ml_node {
    //! Our ML node; the API node that visits it is Python's.

    use super::*;

    with_both! {
        acknowledges_in_every_spelling,
        does_not_acknowledge,
        acknowledges_late,
        makes_noise,
        leaves_with_a_batch_in_flight,
        sends_too_much,
        reads_too_little,
        has_a_read_deadline,
        visits_what_is_taken_or_wrong,
        is_node_js,
    }

    fn start(adapter: Adapter, callbacks: u64, configure: fn(&mut Config)) -> (Node, String) {
        let setup = Setup::ml_node("127.0.0.1:0").unwrap().drain(DRAIN);
        let setup = setup.fallback(&format!("http://127.0.0.1:{callbacks}/v1/poc-batches")).unwrap();
        let node = Node::start(adapter, setup.configure(configure));
        let url = format!("ws://{}/api/v1/pow/ws", node.address());
        (node, url)
    }

    fn visited(adapter: Adapter, scenario: &str, configure: fn(&mut Config)) -> Option<(Node, Peer)> {
        let mut peer = peer::python("api_node.py", scenario)?;
        let (node, url) = start(adapter, peer.port("callbacks"), configure);
        peer.tell(url);
        open(&node, &mut peer);
        Some((node, peer))
    }

    fn open(node: &Node, peer: &mut Peer) {
        let open = peer.saw("open");
        assert_eq!((&open["extensions"], &open["subprotocol"]), (&value!([]), &Value::Null), "it offered both");
        eventually("it is connected", || node.status().state == State::Up);
    }

    /// It sees the batch as it was sent, in a text frame.
    #[track_caller]
    fn assert_saw(peer: &mut Peer, n: u64, receipt: &Receipt) {
        let seen = peer.saw("batch");
        assert_eq!((&seen["type"], &seen["text"]), (&value!("generated"), &value!(true)));
        assert_eq!((&seen["id"], &seen["batch"]), (&value!(receipt.id().to_string()), &parsed(&batch(n))));
    }

    fn acknowledges_in_every_spelling(adapter: Adapter) {
        let Some((node, mut peer)) = visited(adapter, "acks", patient) else { return };
        for n in 0..7 {
            let receipt = node.send(batch(n));
            assert_saw(&mut peer, n, &receipt);
            assert_delivered(receipt, Path::WebSocket);
        }
        let stats = node.stats();
        assert_eq!((stats.frames, stats.posts, stats.attempts), (7, 0, 1));
        assert_eq!((stats.violations, stats.malformed), (0, 0));
        node.stop();
        assert_eq!(peer.saw("closed")["code"], 1000);
    }

    fn does_not_acknowledge(adapter: Adapter) {
        let short = |config: &mut Config| {
            impatient(config);
            config.outbox.ack_wait = AckWait::Fixed(millis(500));
        };
        let Some((node, mut peer)) = visited(adapter, "silent", short) else { return };
        let receipt = node.send(batch(1));
        assert_saw(&mut peer, 1, &receipt);
        let post = peer.saw("post");
        assert_eq!((&post["path"], &post["body"]), (&value!("/v1/poc-batches/generated"), &value!(batch(1))));
        assert_eq!(post["content-type"], "application/json");
        assert_eq!(post["idempotency-key"], receipt.id().to_string());
        assert_eq!((&post["expect"], &post["transfer-encoding"]), (&Value::Null, &Value::Null));
        assert_delivered(receipt, Path::Http);
        // Its acknowledgement comes after all, and right before that of the next one.
        peer.tell("go on");
        let receipt = node.send(batch(2));
        assert!(matches!(settled(receipt).outcome, Outcome::Delivered { .. }));
        assert_eq!((node.stats().violations, node.stats().attempts), (0, 1));
        node.stop();
    }

    fn acknowledges_late(adapter: Adapter) {
        let Some((node, mut peer)) = visited(adapter, "late", impatient) else { return };
        let receipt = node.try_send_as(Kind::Validated, batch(1)).unwrap();
        assert_eq!(peer.saw("batch")["type"], "validated");
        assert_eq!(peer.saw("post")["path"], "/v1/poc-batches/validated");
        assert_delivered(receipt, Path::WebSocket);
        node.stop();
        assert_eq!(peer.count("batch"), 1, "never twice on one connection");
    }

    fn makes_noise(adapter: Adapter) {
        let Some((node, mut peer)) = visited(adapter, "noise", patient) else { return };
        let receipt = node.send(batch(1));
        peer.saw("pong");
        let stats = node.stats();
        assert_eq!((stats.malformed, stats.attempts, receipt.try_settled()), (8, 1, None));
        peer.tell("go on");
        assert_delivered(receipt, Path::WebSocket);
        node.stop();
        assert_eq!(peer.saw("closed")["code"], 1000);
    }

    fn leaves_with_a_batch_in_flight(adapter: Adapter) {
        let by_websocket = |config: &mut Config| {
            patient(config);
            config.route.http = false;
        };
        let Some((node, mut peer)) = visited(adapter, "flaky", by_websocket) else { return };
        let receipt = node.send(batch(1));
        for _ in 0..4 {
            assert_saw(&mut peer, 1, &receipt);
        }
        assert_delivered(receipt, Path::WebSocket);
        for code in [1008, 1006, 1000] {
            node.until_event("how it left", |event| is_down(event, Reason::Closed(code)));
        }
        node.stop();
    }

    fn sends_too_much(adapter: Adapter) {
        let Some((node, mut peer)) = visited(adapter, "huge", patient) else { return };
        assert_eq!(peer.saw("closed")["code"], 1009);
        peer.tell(format_args!("ws://{}/api/v1/pow/ws", node.address()));
        open(&node, &mut peer);
        // On HTTP it may stay a little while.
        eventually("traffic returns", || node.status().path == Path::WebSocket);
        let receipt = node.send(batch(1));
        assert_delivered(receipt, Path::WebSocket);
        node.stop();
    }

    fn reads_too_little(adapter: Adapter) {
        let Some((node, mut peer)) = visited(adapter, "narrow", patient) else { return };
        let receipt = node.send(big_batch(1, 2 << 20));
        assert_eq!(peer.saw("closed")["sent"], 1009);
        assert_eq!(peer.saw("post")["idempotency-key"], receipt.id().to_string());
        assert_delivered(receipt, Path::Http);
        open(&node, &mut peer);
        eventually("traffic returns", || node.status().path == Path::WebSocket);
        // What is as large goes by HTTP from now on, and takes no connection with it.
        let receipts = [node.send(big_batch(2, 2 << 20)), node.send(batch(3))];
        let paths = receipts.map(|receipt| settled(receipt).outcome);
        assert_eq!(paths, [Path::Http, Path::WebSocket].map(|path| Outcome::Delivered { path }));
        assert_eq!(node.stats().attempts, 2);
        node.stop();
    }

    /// Field bug: pings do not extend the read deadline of the original, so an idle connection ends every 60 s.
    fn has_a_read_deadline(adapter: Adapter) {
        let lively = |config: &mut Config| {
            patient(config);
            config.heartbeat.keepalive = millis(800);
        };
        idle(adapter, lively, 2);
    }

    #[test]
    fn has_a_read_deadline_of_a_minute() {
        let Some(()) = peer::need_time("more than a minute") else { return };
        let both = BOTH.map(|adapter| begin("a minute", move || idle(adapter, |_| {}, 60)));
        for adapter in both {
            adapter.wait_for(Duration::from_secs(100));
        }
    }

    fn idle(adapter: Adapter, configure: fn(&mut Config), seconds: u64) {
        let Some(mut peer) = peer::python("api_node.py", "deadline") else { return };
        let (node, url) = start(adapter, peer.port("callbacks"), configure);
        peer.tell(format_args!("{url} {seconds}"));
        open(&node, &mut peer);
        peer.saw_within("still open", Duration::from_secs(2 * seconds));
        assert!(peer.count("frame") >= 2, "keep-alives");
        let receipt = node.send(batch(1));
        assert_delivered(receipt, Path::WebSocket);
        assert_eq!(node.stats().attempts, 1);
        node.stop();
    }

    fn visits_what_is_taken_or_wrong(adapter: Adapter) {
        let polite = |config: &mut Config| {
            patient(config);
            config.link.knock = LIMIT;
        };
        let Some((node, mut peer)) = visited(adapter, "visitors", polite) else { return };
        let receipt = node.send(batch(1));
        assert_delivered(receipt, Path::WebSocket);
        let closed = peer.saw("closed");
        assert_eq!(
            (&closed["code"], &closed["reason"]),
            (&value!(1008), &value!("Another client is already connected"))
        );
        for _ in 0..2 {
            assert_eq!(peer.saw("refused")["status"], 404);
        }
        peer.saw("served");
        node.stop();
        assert_eq!(peer.saw("closed")["code"], 1000);
    }

    fn is_node_js(adapter: Adapter) {
        let (node, url) = start(adapter, 1, patient);
        let Some(mut peer) = peer::node("api_node.js", &url) else { return };
        let open = peer.saw("open");
        assert_eq!((&open["extensions"], &open["subprotocol"]), (&value!(""), &value!("")));
        eventually("it is connected", || node.status().state == State::Up);
        for n in 0..4 {
            let receipt = node.send(batch(n));
            assert_saw(&mut peer, n, &receipt);
            assert_delivered(receipt, Path::WebSocket);
        }
        eventually("the answer to its ping", || peer.count("pong") == 1);
        node.stop();
        assert_eq!(peer.saw("closed")["code"], 1000);
    }
}

mod api_node {
    //! Our API node; the ML node that it dials is Python's.

    use super::*;

    with_both! {
        spells_a_batch_in_every_way,
        repeats_itself,
        makes_noise,
        posts_what_is_not_acknowledged,
        accepts_and_closes,
        refuses_the_upgrade,
        sends_much_and_too_much,
        has_a_heartbeat,
        l10_leaves_its_connection_mute_after_stop_and_init,
    }

    fn dials(adapter: Adapter, scenario: &str) -> Option<(Node, Peer)> {
        dials_with(adapter, scenario, |_| {})
    }

    fn dials_with(adapter: Adapter, scenario: &str, configure: fn(&mut Config)) -> Option<(Node, Peer)> {
        let mut peer = peer::python("ml_node.py", scenario)?;
        let setup = Setup::api_node(&format!("127.0.0.1:{}", peer.port("listening"))).unwrap().drain(DRAIN);
        let setup = setup.callbacks("127.0.0.1:0").unwrap().configure(|config| {
            quick(config);
            config.link.blocked = millis(100);
            configure(config);
        });
        Some((Node::start(adapter, setup), peer))
    }

    /// The next batch has this number and this id, and is acknowledged under it.
    #[track_caller]
    fn assert_exchange(node: &Node, peer: &mut Peer, n: u64, id: &str) {
        assert_arrives(node, n, Some(id));
        assert_acked(peer, id);
    }

    #[track_caller]
    fn assert_arrives(node: &Node, n: u64, id: Option<&str>) {
        let message = node.receive();
        assert_eq!((message.id(), &parsed(json(&message))["block_height"]), (id, &value!(n)));
        assert!(message.complete());
    }

    #[track_caller]
    fn assert_acked(peer: &mut Peer, id: &str) {
        let ack = peer.saw("ack");
        assert_eq!(parsed(ack["raw"].as_str().expect("a text frame")), value!({"type": "ack", "id": id}));
    }

    fn spells_a_batch_in_every_way(adapter: Adapter) {
        let Some((node, mut peer)) = dials(adapter, "acks") else { return };
        let open = peer.saw("open");
        assert_eq!((&open["path"], &open["extensions"]), (&value!("/api/v1/pow/ws"), &value!([])));
        let headers = open["headers"].as_array().unwrap();
        assert!(!headers.iter().any(|name| name == "sec-websocket-extensions" || name == "sec-websocket-protocol"));

        let uuids = ["00000000-0007-4000-8001-00000000000A", "00000000-0007-4000-8001-00000000000b"];
        let ids = uuids.into_iter().chain(["a-1", "\u{e4} \"q\"", "7"]);
        for (n, id) in (1..).zip(ids) {
            assert_exchange(&node, &mut peer, n, id);
        }
        let validated = node.receive();
        assert_eq!(validated.kind(), Kind::Validated);
        assert!(validated.complete());
        assert_acked(&mut peer, "v");
        for (n, id) in [(7, "more"), (8, "spaced"), (9, "fragments")] {
            assert_exchange(&node, &mut peer, n, id);
        }
        assert_arrives(&node, 10, None);
        assert_exchange(&node, &mut peer, 11, "last");
        assert_eq!(node.stats().attempts, 1);
        node.stop();
        assert_eq!(peer.saw("closed")["code"], 1000);
    }

    fn repeats_itself(adapter: Adapter) {
        let Some((node, mut peer)) = dials(adapter, "duplicates") else { return };
        let message = node.receive();
        node.until("the copies have come", |stats| stats.duplicates == 2);
        peer.tell("go on");
        assert!(message.complete());
        for id in ["first", "second", "first", "third"] {
            assert_acked(&mut peer, id);
        }
        assert_exchange(&node, &mut peer, 3, "end");
        assert_eq!((node.stats().delivered, node.stats().reused), (2, 1));
        node.stop();
    }

    fn makes_noise(adapter: Adapter) {
        let Some((node, mut peer)) = dials(adapter, "noise") else { return };
        peer.saw("pong");
        // Nothing is wrong with JSON in a binary frame (N3); an original reads it, too.
        assert_exchange(&node, &mut peer, 1, "binary");
        assert_exchange(&node, &mut peer, 2, "good");
        let stats = node.stats();
        assert_eq!((stats.malformed, stats.delivered, stats.attempts), (3, 2, 1));
        node.stop();
    }

    fn posts_what_is_not_acknowledged(adapter: Adapter) {
        let Some((node, mut peer)) = dials(adapter, "unanswered") else { return };
        peer.tell(format_args!("http://{}/mlnode/v1/poc-batches", node.address()));
        let message = node.receive();
        peer.tell("it takes too long");
        node.until("the post has come", |stats| stats.duplicates == 1);
        assert!(message.complete());
        assert_eq!(peer.saw("answer")["status"], 200);
        assert_acked(&mut peer, "one");

        let message = node.receive();
        assert_eq!((message.path(), message.id()), (Path::Http, None));
        assert!(message.complete());
        assert_eq!(peer.saw("answer")["status"], 200);
        assert_acked(&mut peer, "two");
        assert_eq!((node.stats().delivered, node.stats().duplicates), (2, 2));
        node.stop();
    }

    fn accepts_and_closes(adapter: Adapter) {
        let Some((node, mut peer)) = dials(adapter, "flaky") else { return };
        let message = node.receive();
        for code in [1008, 1006, 1000] {
            node.until_event("how it closed", |event| is_down(event, Reason::Closed(code)));
        }
        peer.tell("go on");
        node.until("the same batch came under another id", |stats| stats.duplicates == 1);
        assert!(message.complete());
        while parsed(peer.saw("ack")["raw"].as_str().unwrap())["id"] != "another" {}
        assert_eq!((peer.count("open"), node.stats().attempts, node.stats().delivered), (7, 7, 1));
        node.stop();
    }

    fn refuses_the_upgrade(adapter: Adapter) {
        let since = std::time::Instant::now();
        let Some((node, mut peer)) = dials(adapter, "refusing") else { return };
        assert_exchange(&node, &mut peer, 1, "one");
        assert!(since.elapsed() >= Duration::from_secs(1), "Retry-After");
        for status in [503, 404, 500, 200] {
            node.until_event("how it refused", |event| is_down(event, Reason::Status(status)));
        }
        assert_eq!((peer.count("refuses"), node.stats().attempts), (4, 5));
        node.stop();
    }

    fn sends_much_and_too_much(adapter: Adapter) {
        let Some((node, mut peer)) = dials(adapter, "large") else { return };
        let message = node.receive();
        assert!(message.json().len() > 17 << 20);
        assert!(message.complete());
        assert_acked(&mut peer, "large");
        assert_eq!(peer.saw("closed")["code"], 1009);
        node.stop();
    }

    /// Rule L10: the original stays open and mute after stop and init, and serves a new connection only if the old one has
    /// ended first.
    fn l10_leaves_its_connection_mute_after_stop_and_init(adapter: Adapter) {
        let watchful = |config: &mut Config| {
            config.heartbeat.interval = millis(200);
            config.heartbeat.program = ProgramLife::Data(millis(1000));
        };
        let Some((node, mut peer)) = dials_with(adapter, "stopped", watchful) else { return };
        for n in 1..=2 {
            assert_exchange(&node, &mut peer, n, &format!("batch {n}"));
        }
        peer.tell("stop and init");
        node.until_event("its program is found dead", |event| is_down(event, Reason::Mute));
        assert_eq!(peer.saw("closed")["code"], 1000);
        assert_exchange(&node, &mut peer, 3, "batch 3");
        assert_eq!((peer.count("open"), node.stats().attempts), (2, 2));
        // Idle for a while by the application's word, and nothing is cut.
        node.expect_data(false);
        peer.tell("stop and init");
        peer.saw("still here");
        assert_eq!(node.stats().attempts, 2);
        node.stop();
    }

    fn has_a_heartbeat(adapter: Adapter) {
        let Some((node, mut peer)) = dials(adapter, "pings") else { return };
        peer.saw("pongs");
        assert_exchange(&node, &mut peer, 1, "one");
        assert_eq!(node.stats().attempts, 1);
        node.stop();
    }
}

mod callbacks {
    //! Our API node's callbacks, called by curl.

    use super::*;

    with_both! {
        a_batch_is_answered_when_it_is_completed,
        another_spelling_is_the_same_batch,
        nonsense_is_refused,
        a_large_body_is_asked_for,
        what_is_too_large_is_refused,
        of_two_at_once_one_is_delivered,
        a_slow_application_is_asked_again,
    }

    fn start(adapter: Adapter) -> Option<(Node, String)> {
        peer::need_curl()?;
        // It dials where nobody listens.
        let nobody = Port::reserve();
        let setup = Setup::api_node(&nobody.address.to_string()).unwrap().callbacks("127.0.0.1:0").unwrap();
        let node = Node::start(
            adapter,
            setup.drain(DRAIN).configure(|config| {
                quick(config);
                config.inbox.answer_wait = millis(500);
            }),
        );
        let url = format!("http://{}/v1/poc-batches/generated", node.address());
        Some((node, url))
    }

    fn begin_post(url: &str, body: &str) -> Running<Curl> {
        let (url, body) = (url.to_owned(), body.to_owned());
        begin("curl", move || peer::curl(&["--data-binary", &body, "-H", "Content-Type: application/json", &url]))
    }

    fn a_batch_is_answered_when_it_is_completed(adapter: Adapter) {
        let Some((node, url)) = start(adapter) else { return };
        let curl = begin_post(&url, &batch(1));
        let message = node.receive();
        assert_eq!((message.path(), message.id(), json(&message)), (Path::Http, None, batch(1).as_str()));
        assert!(message.complete());
        let said = curl.wait();
        assert_eq!((said.status, said.body.as_str()), (200, ""));
        // The same again: known. Twice, on one connection.
        let again = peer::curl(&["--data-binary", &batch(1), &url, &url]);
        assert_eq!(again.status, 200);
        assert!(again.log.contains("re-using existing connection"), "{}", again.log);
        assert_eq!((node.stats().delivered, node.stats().duplicates), (1, 2));
        node.stop();
    }

    fn another_spelling_is_the_same_batch(adapter: Adapter) {
        let Some((node, url)) = start(adapter) else { return };
        let spaced = batch(1).replace(':', " : ").replace(',', ",\n  ");
        let curl = begin_post(&url, &spaced);
        let message = node.receive();
        assert_eq!(json(&message), spaced);
        assert!(message.complete());
        assert_eq!(curl.wait().status, 200);
        assert_eq!(begin_post(&url, &batch(1)).wait().status, 200);
        assert_eq!((node.stats().delivered, node.stats().duplicates), (1, 1));
        node.stop();
    }

    fn nonsense_is_refused(adapter: Adapter) {
        let Some((node, url)) = start(adapter) else { return };
        let other = url.replace("generated", "rejected");
        let good = batch(1);
        for (status, arguments) in [
            (400, ["--data-binary", "{", &url]),
            (400, ["--data-binary", "[]", &url]),
            (400, ["--data-binary", r#"{"node_id":-1}"#, &url]),
            (400, ["--data-binary", "", &url]),
            (404, ["--data-binary", &good, &other]),
            (405, ["--request", "PUT", &url]),
        ] {
            let said = peer::curl(&arguments);
            assert_eq!(said.status, status, "{arguments:?}");
            assert!(parsed(&said.body)["error"].is_string(), "{arguments:?}: {}", said.body);
        }
        let said = peer::curl(&["--data-binary", r#"{"node_id":-1}"#, &url]);
        assert_eq!(parsed(&said.body)["error"], "node_id is missing or wrong", "E4: the member by its name");
        assert_eq!((node.stats().delivered, node.status().held), (0, 0));
        node.stop();
    }

    /// curl sends a body of more than a megabyte only when it is told to go on, or after a second.
    fn a_large_body_is_asked_for(adapter: Adapter) {
        let Some((node, url)) = start(adapter) else { return };
        let body = big_batch(1, 2 << 20);
        let large = File::with("large", body.len(), &body);
        let path = large.argument();
        let curl = begin("curl", move || {
            let wait = LIMIT.as_secs().to_string();
            peer::curl(&["--expect100-timeout", &wait, "-H", "Expect: 100-continue", "--data-binary", &path, &url])
        });
        let message = node.receive();
        assert!(message.json().len() > 2 << 20);
        assert!(message.complete());
        let said = curl.wait();
        assert_eq!(said.status, 200);
        assert!(said.log.contains("< http/1.1 100 continue"), "{}", said.log);
        node.stop();
    }

    fn what_is_too_large_is_refused(adapter: Adapter) {
        let Some((node, url)) = start(adapter) else { return };
        let large = File::with("too_large", (64 << 20) + 1, "");
        let said = peer::curl(&["--data-binary", &large.argument(), &url]);
        assert_eq!(said.status, 413);
        assert_eq!(node.stats().delivered, 0);
        node.stop();
    }

    fn of_two_at_once_one_is_delivered(adapter: Adapter) {
        let Some((node, url)) = start(adapter) else { return };
        let first = begin_post(&url, &batch(1));
        let message = node.receive();
        let second = begin_post(&url, &batch(1)).wait();
        assert_eq!(second.status, 409, "one waits already");
        assert!(second.log.contains("< retry-after: 1"), "{}", second.log);
        assert!(message.complete());
        assert!([200, 409].contains(&first.wait().status), "409 if it was slow");
        assert_eq!(begin_post(&url, &batch(1)).wait().status, 200);
        assert_eq!(node.stats().delivered, 1);
        node.stop();
    }

    fn a_slow_application_is_asked_again(adapter: Adapter) {
        let Some((node, url)) = start(adapter) else { return };
        let curl = begin_post(&url, &batch(1));
        let message = node.receive();
        let said = curl.wait();
        assert_eq!(said.status, 409);
        assert!(said.log.contains("< retry-after: "), "{}", said.log);
        assert!(message.complete(), "the work goes on");
        assert_eq!(begin_post(&url, &batch(1)).wait().status, 200);
        assert_eq!(node.stats().delivered, 1);
        node.stop();
    }

    /// A file for one test, gone with it.
    struct File(std::path::PathBuf);

    impl File {
        /// So long, and beginning with this.
        fn with(name: &str, length: usize, text: &str) -> Self {
            static NUMBER: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
            let path = folder.join(format!("{name}-{}-{number}.json", std::process::id()));
            std::fs::write(&path, text).unwrap();
            std::fs::File::options().write(true).open(&path).unwrap().set_len(u64::try_from(length).unwrap()).unwrap();
            Self(path)
        }

        fn argument(&self) -> String {
            format!("@{}", self.0.display())
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
