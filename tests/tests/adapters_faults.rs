//! What the network and a peer can do to a pair of nodes, with both adapters in both roles over real sockets.

#[macro_use]
mod real;

use bowline::{AckWait, Config, Event, Outcome, Path, ProgramLife, Reason, State};
use bowline_cli::proxy::{Direction, Fault};
use bowline_smol::{Receipt, Setup};
use core::time::Duration;
use real::*;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::TcpStream;
use std::time::Instant;
use tungstenite::{Message, WebSocket};

scenarios! {
    what_is_not_acknowledged_in_time_goes_by_http_and_is_delivered_once,
    a_late_acknowledgement_settles,
    a_batch_that_is_swallowed_goes_by_http_and_its_frame_is_a_duplicate,
    a_reset_with_batches_in_flight_loses_and_doubles_nothing,
    a_reset_without_an_http_path_loses_and_doubles_nothing,
    a_peer_that_falls_silent_is_found_by_both,
    accept_and_close_is_no_hot_loop,
    what_is_refused_goes_by_http_and_returns,
    an_answer_that_is_lost_is_asked_for_again_under_the_same_key,
    a_frame_and_a_post_of_the_same_batch_are_one,
    a_second_client_is_turned_away,
    a_client_that_does_not_answer_is_replaced,
    a_changed_network_is_tried_at_once,
    l11_a_slow_link_is_not_a_dead_one,
    l11_nor_is_one_that_takes_no_more_at_the_moment,
    b10_a_login_proxy_that_refuses_both_paths_for_a_while_is_outlived,
}

/// Field bug: after two refusals within a second the WebSocket was never dialled again, and the sender stayed on HTTP
/// without a word.
fn b10_a_login_proxy_that_refuses_both_paths_for_a_while_is_outlived(pair: Pair) {
    let lively = |config: &mut Config| {
        quick(config);
        (config.link.blocked, config.route.blocked) = (millis(200), millis(200));
    };
    for status in [401, 403, 302] {
        let world = World::with(pair, lively, lively);
        world.http.set(Fault::Status(status));
        world.ws.set(Fault::Status(status));
        let receipt = world.sender.send(batch(1));
        let (dials, posts) = (world.ws.counts().accepted, world.http.counts().accepted);
        eventually("both are refused, again and again", || {
            world.ws.counts().accepted >= dials + 5 && world.http.counts().accepted >= posts + 5
        });
        let (dialer, poster) = (world.receiver.status(), world.sender.status());
        assert_eq!(dialer.websocket.last.map(|last| last.reason), Some(Reason::Status(status)));
        assert!(dialer.websocket.blocked_since.is_some() && poster.http.blocked_since.is_some());
        assert_eq!(receipt.try_settled(), None);
        world.http.set(Fault::Calm);
        assert!(world.receiver.receive().complete());
        assert_delivered(receipt, Path::Http);
        world.ws.set(Fault::Calm);
        world.connected();
        let receipt = world.sender.send(batch(2));
        assert!(world.receiver.receive().complete());
        assert_delivered(receipt, Path::WebSocket);
        eventually("nothing is blocked any more", || {
            world.receiver.status().websocket.blocked_since.is_none()
                && world.sender.status().http.blocked_since.is_none()
        });
        world.stop();
    }
}

fn what_is_not_acknowledged_in_time_goes_by_http_and_is_delivered_once(pair: Pair) {
    let world = World::with(pair, impatient, quick);
    world.ws.set(Fault::Silence(Direction::ToServer));
    let receipt = world.sender.send(batch(1));
    let message = world.receiver.receive();
    assert_eq!(message.path(), Path::WebSocket);
    world.receiver.until("the copy has come by HTTP", |stats| stats.duplicates == 1);
    assert!(message.complete());
    assert_delivered(receipt, Path::Http);

    // The acknowledgement arrives after all, before that of the next batch, and offends nobody.
    world.ws.set(Fault::Calm);
    let next = world.sender.send(batch(2));
    assert!(world.receiver.receive().complete());
    assert_delivered(next, Path::WebSocket);
    let (sent, received) = (world.sender.stats(), world.receiver.stats());
    assert_eq!((sent.hedges, sent.posts, sent.violations, sent.attempts), (1, 1, 0, 1));
    assert_eq!((received.delivered, received.duplicates), (2, 1));
    world.stop();
}

/// A sender that doubts after 0.3 s, and gives the answer 0.3 s.
fn hasty(config: &mut Config) {
    quick(config);
    config.outbox.ack_wait = AckWait::Fixed(millis(300));
    config.heartbeat.probe = millis(300);
    config.route.http = false;
}

/// Rule L11: each batch needs a second to cross, the ping waits behind it, and the receiver has its data deadline.
fn l11_a_slow_link_is_not_a_dead_one(pair: Pair) {
    let watchful = |config: &mut Config| {
        quick(config);
        config.heartbeat.program = ProgramLife::Data(millis(700));
    };
    let world = World::with(pair, hasty, watchful);
    world.ws.set(Fault::Slow { bytes_per_second: 200_000 });
    world.receiver.expect_data(true);
    let receipts: Vec<_> = (0..3).map(|n| world.sender.send(big_batch(n, 200_000))).collect();
    for _ in 0..3 {
        assert!(world.receiver.receive().complete());
    }
    world.receiver.expect_data(false);
    for receipt in receipts {
        assert_delivered(receipt, Path::WebSocket);
    }
    assert_eq!((world.sender.stats().frames, world.sender.stats().attempts), (3, 1));
    assert_eq!((world.receiver.stats().attempts, world.receiver.stats().duplicates), (1, 0));
    world.stop();
}

/// Rule L11: more than all the systems between here and there hold, so the socket takes nothing for a while.
fn l11_nor_is_one_that_takes_no_more_at_the_moment(pair: Pair) {
    let world = World::with(pair, hasty, quick);
    world.ws.set(Fault::Slow { bytes_per_second: 4_000_000 });
    let receipt = world.sender.send(big_batch(1, 12 << 20));
    assert!(world.receiver.receive().complete());
    assert_delivered(receipt, Path::WebSocket);
    assert_eq!((world.sender.stats().frames, world.sender.stats().attempts), (1, 1));
    world.stop();
}

fn a_late_acknowledgement_settles(pair: Pair) {
    let world = World::with(pair, impatient, quick);
    world.http.set(Fault::Refuse);
    let receipt = world.sender.send(batch(1));
    let message = world.receiver.receive();
    world.sender.until("it was also tried by HTTP", |stats| stats.hedges == 1 && stats.posts > 0);
    assert_eq!(receipt.try_settled(), None);
    assert!(message.complete());
    assert_delivered(receipt, Path::WebSocket);
    assert_eq!((world.sender.stats().frames, world.sender.stats().attempts), (1, 1), "never again on one connection");
    world.stop();
}

fn a_batch_that_is_swallowed_goes_by_http_and_its_frame_is_a_duplicate(pair: Pair) {
    let world = World::with(pair, impatient, quick);
    world.ws.set(Fault::Silence(Direction::ToClient));
    let receipt = world.sender.send(batch(1));
    let message = world.receiver.receive();
    assert_eq!(message.path(), Path::Http);
    assert!(message.complete());
    assert_delivered(receipt, Path::Http);
    world.ws.set(Fault::Calm);
    world.receiver.until("the frame has come", |stats| stats.duplicates == 1);
    assert_eq!(world.receiver.stats().delivered, 1);
    world.stop();
}

fn a_reset_with_batches_in_flight_loses_and_doubles_nothing(pair: Pair) {
    resets(pair, quick);
}

fn a_reset_without_an_http_path_loses_and_doubles_nothing(pair: Pair) {
    resets(pair, |config| {
        quick(config);
        config.route.http = false;
    });
}

fn resets(pair: Pair, sender: fn(&mut Config)) {
    const EACH: u64 = 10;
    const ROUNDS: u64 = 3;
    let world = World::with(pair, sender, quick);
    let mut seen = BTreeSet::new();
    for round in 0..ROUNDS {
        let receipts: Vec<Receipt> = (0..EACH).map(|n| world.sender.send(batch(round * EACH + n))).collect();
        let first = world.receiver.receive();
        let before = world.receiver.status().connection;
        world.ws.set(Fault::Reset);
        eventually("a new connection", || {
            let now = world.receiver.status().connection;
            now.is_some() && now > before
        });
        let rest = (1..EACH).map(|_| world.receiver.receive());
        for message in core::iter::once(first).chain(rest) {
            assert!(seen.insert(json(&message).to_owned()), "twice: {message:?}");
            assert!(message.complete());
        }
        for receipt in receipts {
            assert!(matches!(settled(receipt).outcome, Outcome::Delivered { .. }));
        }
    }
    assert_eq!(seen, (0..EACH * ROUNDS).map(batch).collect());
    assert_eq!(world.receiver.stats().delivered, EACH * ROUNDS);
    world.stop();
}

/// TCP alone would not notice for a quarter of an hour.
fn a_peer_that_falls_silent_is_found_by_both(pair: Pair) {
    let lively = |config: &mut Config| {
        quick(config);
        config.heartbeat.interval = millis(300);
        config.heartbeat.dead = millis(900);
        config.link.attempt = Duration::from_secs(1);
    };
    let world = World::with(pair, lively, lively);
    world.ws.set(Fault::Silence(Direction::Both));
    for node in [&world.sender, &world.receiver] {
        node.until_event("the peer is dead", |event| matches!(event, Event::Down { reason: Reason::Dead, .. }));
    }
    eventually("traffic goes by HTTP", || world.sender.status().path == Path::Http);
    assert_ne!(world.sender.status().state, State::Degraded, "which nobody has answered by yet (F8)");
    let receipt = world.sender.send(batch(1));
    assert!(world.receiver.receive().complete());
    assert_delivered(receipt, Path::Http);
    assert_eq!(world.sender.status().state, State::Degraded, "HTTP carries");
    world.ws.set(Fault::Calm);
    world.connected();
    let receipt = world.sender.send(batch(2));
    assert!(world.receiver.receive().complete());
    assert_delivered(receipt, Path::WebSocket);
    world.stop();
}

/// More than the system's buffers take, so that the write has to wait for the reader.
const BIG: usize = 12 << 20;

#[test]
fn a_slow_reader_is_not_killed() {
    at_once(slow_reader);
}

#[test]
fn a_reader_that_stopped_is_ended_after_the_send_deadline() {
    at_once(stopped_reader);
}

/// The system says that a socket can be written only when a good part of its buffer is free: with this reader that
/// takes longer than a write may stand still (5 s).
fn slow_reader(pair: Pair) {
    let setup = Setup::ml_node("127.0.0.1:0").unwrap().configure(|config| {
        quick(config);
        config.outbox.ack_wait = AckWait::Fixed(LIMIT * 4);
        // Nothing else wakes the session meanwhile, and nothing follows the frame.
        config.heartbeat.interval = Duration::ZERO;
        config.link.stable = millis(1);
    });
    let sender = Node::start(pair.sends, setup.drain(DRAIN));
    let mut client = client(sender.address());
    let receipt = sender.send(big_batch(1, BIG));
    let mut slow = Vec::new();
    let since = Instant::now();
    // Not a synchronisation: this is the reader's speed.
    while since.elapsed() < millis(6_500) {
        let taken = slow.len();
        slow.resize(taken + 5_000, 0);
        client.get_mut().read_exact(&mut slow[taken..]).unwrap();
        std::thread::sleep(millis(50));
    }
    assert_eq!(sender.status().state, State::Up, "{:?}", sender.events());
    let end = format!(r#","id":"{}"}}"#, receipt.id());
    let mut chunk = vec![0; 1 << 20];
    while !slow.ends_with(end.as_bytes()) {
        let read = client.get_mut().read(&mut chunk).unwrap();
        slow.extend_from_slice(&chunk[..read]);
    }
    client.send(Message::text(format!(r#"{{"type":"ack","id":"{}"}}"#, receipt.id()))).unwrap();
    assert_delivered(receipt, Path::WebSocket);
    assert_eq!((sender.stats().attempts, sender.stats().frames), (1, 1));
    sender.stop();
}

fn stopped_reader(pair: Pair) {
    let patient = |config: &mut Config| {
        quick(config);
        config.outbox.ack_wait = AckWait::Fixed(LIMIT * 4);
    };
    let world = World::with(pair, patient, quick);
    world.ws.set(Fault::Silence(Direction::ToClient));
    let receipt = world.sender.send(big_batch(1, BIG));
    world
        .sender
        .until_event("the write is given up", |event| matches!(event, Event::Down { reason: Reason::Stalled, .. }));
    // It goes by HTTP.
    let message = world.receiver.receive();
    assert_eq!(message.path(), Path::Http);
    assert!(message.complete());
    assert_delivered(receipt, Path::Http);
    world.ws.set(Fault::Reset);
    world.connected();
    assert_eq!(world.receiver.stats().delivered, 1);
    world.stop();
}

/// Field bug: 7,918 connections in 9 s.
fn accept_and_close_is_no_hot_loop(pair: Pair) {
    const FLOOR: Duration = millis(50);
    let world = World::start(pair);
    world.ws.set(Fault::CloseEarly { code: 1008, reason: "PoW is not running" });
    let (before, since) = (world.ws.counts().accepted, Instant::now());
    eventually("it tries again and again", || world.ws.counts().accepted >= before + 8);
    let (tried, took) = (world.ws.counts().accepted - before, since.elapsed());
    assert!(FLOOR * u32::try_from(tried - 1).unwrap() <= took, "{tried} attempts in {took:?}");
    world
        .receiver
        .until_event("a close with 1008", |event| matches!(event, Event::Down { reason: Reason::Closed(1008), .. }));
    world.ws.set(Fault::Calm);
    world.connected();
    let receipt = world.sender.send(batch(1));
    assert!(world.receiver.receive().complete());
    assert_delivered(receipt, Path::WebSocket);
    world.stop();
}

fn what_is_refused_goes_by_http_and_returns(pair: Pair) {
    let world = World::start(pair);
    for round in 0..3 {
        for (n, path) in [(1, Path::Http), (2, Path::WebSocket)] {
            world.use_path(path);
            let receipt = world.sender.send(batch(10 * round + n));
            let message = world.receiver.receive();
            assert_eq!(message.path(), path);
            assert!(message.complete());
            assert_delivered(receipt, path);
        }
    }
    assert_eq!((world.receiver.stats().delivered, world.receiver.stats().duplicates), (6, 0));
    world.stop();
}

fn an_answer_that_is_lost_is_asked_for_again_under_the_same_key(pair: Pair) {
    let world = World::start(pair);
    world.use_path(Path::Http);
    world.http.set(Fault::LoseAnswers);
    let receipt = world.sender.send(batch(1));
    let message = world.receiver.receive();
    assert_eq!((message.path(), message.id()), (Path::Http, Some(receipt.id().to_string().as_str())));
    assert!(message.complete());
    world.sender.until("it is asked again", |stats| stats.posts > 1);
    assert_eq!(receipt.try_settled(), None, "nothing is known");
    world.http.set(Fault::Calm);
    assert_delivered(receipt, Path::Http);
    let received = world.receiver.stats();
    assert_eq!(received.delivered, 1);
    assert!(received.duplicates > 0);
    world.stop();
}

/// The original has no id in a post, and spells JSON as its library does.
fn a_frame_and_a_post_of_the_same_batch_are_one(pair: Pair) {
    const SPACED: &str = r#" {"block_height": 7, "nonces": [3, 13],  "dist" : [0.5, 0.25], "node_id": 3}
"#;
    const COMPACT: &str = r#"{"block_height":7,"nonces":[3,13],"dist":[0.5,0.25],"node_id":3}"#;
    let callback = "/v1/poc-batches/generated";

    // The frame first: the post waits for the same verdict.
    let world = World::start(pair);
    let receipt = world.sender.send(COMPACT);
    let message = world.receiver.receive();
    let address = world.receiver.address();
    let posting = begin("an answer", move || post(address, callback, &[], SPACED));
    world.receiver.until("the post has come", |stats| stats.duplicates == 1);
    assert!(message.complete());
    assert_eq!(posting.wait().status, 200);
    assert_delivered(receipt, Path::WebSocket);
    assert_eq!(post(address, callback, &[], COMPACT).status, 200, "known");
    assert_eq!(world.receiver.stats().delivered, 1);
    world.stop();

    // The post first: the frame is acknowledged with it. As the other kind of batch it would be another one.
    let world = World::start(pair);
    let address = world.receiver.address();
    let posting = begin("an answer", move || post(address, callback, &[], SPACED));
    let message = world.receiver.receive();
    assert_eq!((message.path(), message.id(), json(&message)), (Path::Http, None, SPACED));
    let receipt = world.sender.send(COMPACT);
    world.receiver.until("the frame has come", |stats| stats.duplicates == 1);
    assert!(message.complete());
    assert_eq!(posting.wait().status, 200);
    assert_delivered(receipt, Path::WebSocket);
    let validated = begin("an answer", move || post(address, "/mlnode/v1/poc-batches/validated", &[], COMPACT));
    assert!(world.receiver.receive().complete());
    assert_eq!(validated.wait().status, 200);
    assert_eq!(world.receiver.stats().delivered, 2);
    world.stop();
}

fn client(address: core::net::SocketAddr) -> WebSocket<TcpStream> {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    tungstenite::client(format!("ws://{address}/api/v1/pow/ws"), socket).unwrap().0
}

fn a_second_client_is_turned_away(pair: Pair) {
    let patient = |config: &mut Config| {
        quick(config);
        config.link.knock = LIMIT;
    };
    let world = World::with(pair, patient, quick);
    for _ in 0..3 {
        let mut second = client(world.sender.address());
        let Message::Close(Some(close)) = second.read().unwrap() else { panic!("no close frame") };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (1008, "Another client is already connected"));
        assert!(second.read().is_err(), "and then it ends");
    }
    let receipt = world.sender.send(batch(1));
    assert!(world.receiver.receive().complete());
    assert_delivered(receipt, Path::WebSocket);
    assert_eq!(world.receiver.stats().attempts, 1, "the first client noticed nothing");
    world.stop();
}

/// A zombie: it neither reads nor answers, and holds the only place.
fn a_client_that_does_not_answer_is_replaced(pair: Pair) {
    let setup = Setup::ml_node("127.0.0.1:0").unwrap().configure(quick).drain(DRAIN);
    let sender = Node::start(pair.sends, setup);
    let mut zombie = client(sender.address()).get_ref().try_clone().unwrap();
    eventually("the zombie has the place", || sender.status().state == State::Up);
    let receipt = sender.send(batch(1));
    sender.until("it was sent to the zombie", |stats| stats.frames == 1);

    let setup = Setup::api_node(&sender.address().to_string()).unwrap().configure(quick).drain(DRAIN);
    let receiver = Node::start(pair.receives, setup);
    assert!(receiver.receive().complete());
    assert_delivered(receipt, Path::WebSocket);
    sender.until_event("the zombie is replaced", |event| matches!(event, Event::Down { reason: Reason::Replaced, .. }));
    assert_eq!(receiver.stats().attempts, 1, "the newcomer waited for the verdict");
    zombie.set_read_timeout(Some(LIMIT)).unwrap();
    let mut left = Vec::new();
    let ended = zombie.read_to_end(&mut left);
    assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "its socket is closed");
    receiver.stop();
    sender.stop();
}

fn a_changed_network_is_tried_at_once(pair: Pair) {
    let world = World::with(pair, quick, |config| {
        quick(config);
        config.link.backoff = bowline::BackoffConfig::range(LIMIT * 4, LIMIT * 8);
    });
    world.ws.set(Fault::Reset);
    eventually("it waits", || world.receiver.status().state == State::Waiting);
    world.receiver.retry_now();
    eventually("a connection", || world.receiver.status().state == State::Up);
    world.stop();
}
