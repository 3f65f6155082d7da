//! The rules that only a socket can show: which connection a request uses, and what a ping is on the wire.

mod real;

use bowline::{Config, Path, Policy};
use bowline_cli::proxy::{Direction, Fault};
use bowline_smol::{Gonka, Setup};
use core::time::Duration;
use real::*;
use std::net::TcpStream;
use tungstenite::Message;

#[test]
fn h4_every_request_has_a_connection_of_its_own() {
    limited(|| at_once(requests_use_connections_of_their_own));
}

fn requests_use_connections_of_their_own(pair: Pair) {
    let world = World::start(pair);
    world.use_path(Path::Http);
    let before = world.http.counts().accepted;
    for n in 1..=5 {
        let receipt = world.sender.send(batch(n));
        assert!(world.receiver.receive().complete());
        assert_delivered(receipt, Path::Http);
    }
    assert_eq!(world.http.counts().accepted - before, 5);
    world.stop();
}

/// A message that was acknowledged while a request of it is under way keeps its place until that has ended: whoever waits
/// for room must hear of it then.
#[test]
fn g4_room_is_told_when_the_last_request_ends() {
    limited(|| at_once(room_is_told));
}

fn room_is_told(pair: Pair) {
    let sender = |config: &mut Config| {
        impatient(config);
        config.outbox.capacity = 1;
        (config.route.progress, config.route.thinking) = (Duration::from_secs(1), Duration::from_secs(1));
    };
    let world = World::with(pair, sender, quick);
    world.http.set(Fault::Silence(Direction::Both));
    let receipt = world.sender.send(batch(1));
    let message = world.receiver.receive();
    world.sender.until("it is posted besides", |stats| stats.posts == 1);
    assert!(message.complete());
    assert_delivered(receipt, Path::WebSocket);
    assert!(world.sender.begin_send(batch(2), Policy::DEFAULT).wait().is_ok());
    world.stop();
}

fn pings_are_control_frames(adapter: Adapter) {
    let setup = Setup::ml_node("127.0.0.1:0").unwrap().configure(|config| {
        config.heartbeat.interval = millis(50);
        config.heartbeat.dead = Duration::from_secs(60);
    });
    let node = Node::start(adapter, setup);
    let stream = TcpStream::connect(node.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let url = format!("ws://{}/api/v1/pow/ws", node.address());
    let (mut peer, _) = tungstenite::client(url, stream).unwrap();
    for _ in 0..3 {
        assert!(matches!(peer.read().unwrap(), Message::Ping(_)));
        // tungstenite has queued the pong; the next read sends it.
    }
    drop(peer);
    node.stop();
}

/// To a plain peer, a ping is the protocol's own control frame, which every WebSocket library answers by itself, and never
/// a message that the peer would have to know.
#[test]
fn l3_a_ping_is_a_control_frame() {
    limited(|| BOTH.into_iter().for_each(pings_are_control_frames));
}

/// A listener whose wire names no path for what it is there for would start and serve nobody.
#[test]
fn u14_a_listener_that_could_serve_nobody_does_not_start() {
    let posted = || {
        Setup::dialer("ws://127.0.0.1:1", Config::DEFAULT, Gonka::ML_NODE).unwrap().callbacks("127.0.0.1:0").unwrap()
    };
    let dialled = || Setup::acceptor("127.0.0.1:0", Config::DEFAULT, Gonka::API_NODE).unwrap();
    let late = || Setup::ml_node("127.0.0.1:0").unwrap().http_limits(|limits| limits.body = Duration::ZERO);
    for (setup, named) in [
        (posted as fn() -> Setup, "routes.callbacks: "),
        (dialled, "routes.websockets: "),
        (late, "http_limits.body: "),
    ] {
        let errors = [
            bowline_smol::Node::start(setup()).map(drop).unwrap_err().to_string(),
            bowline_blocking::Node::start(setup()).map(drop).unwrap_err().to_string(),
        ];
        assert!(errors.iter().all(|error| error.contains(named)), "{errors:?}");
    }
}

/// The adapters give an attempt as much time as its setting says, and a second more, so that the session's word comes first.
#[test]
fn b7_an_attempt_lasts_as_long_as_its_setting_says() {
    for seconds in [1, 10, 60] {
        let limit = Duration::from_secs(seconds);
        let setup = Setup::api_node("ws://127.0.0.1:1").unwrap().configure(|config| config.link.attempt = limit);
        let node = bowline_transport::Node::new(&setup, || ()).unwrap();
        assert_eq!(node.longest_attempt(), limit + Duration::from_secs(1));
    }
}
