//! A protocol of one's own, on sockets: the wire of the example in both adapters, and by HTTP, for which it wrote nothing.

use bowline::{Config, OnReject, Outcome, Path, Role};
use bowline_transport::{Refused, Setup};
use core::time::Duration;

#[path = "../../adapters/smol/examples/device/wire.rs"]
mod device;

use device::{Reading, Thermometer};

const READING: Reading = Reading { sensor: 4, celsius: 21.5 };

fn json() -> Vec<u8> {
    serde_json::to_vec(&READING).unwrap()
}

#[test]
fn the_same_wire_on_threads_and_under_smol() {
    let gateway = Setup::acceptor("127.0.0.1:0", Config::DEFAULT, Thermometer).unwrap();
    assert_eq!(gateway.role(), Role::Acceptor);
    let gateway = bowline_blocking::Node::start(gateway).unwrap();
    let url = format!("ws://{}/device", gateway.address().unwrap());
    let device = bowline_smol::Node::start(Setup::dialer(&url, Config::DEFAULT, Thermometer).unwrap()).unwrap();

    let receipt = device.try_send((), json()).unwrap();
    let message = gateway.receive().unwrap();
    assert_eq!(message.content(), &READING);
    assert_eq!(receipt.try_settled(), None, "received is not done");
    assert!(message.complete());
    assert_eq!(receipt.wait().outcome, Outcome::Delivered { path: Path::WebSocket });

    // The other way, on the same connection.
    let receipt = gateway.send((), json()).unwrap();
    smol::block_on(async {
        assert!(device.receive().await.unwrap().complete());
        assert_eq!(receipt.settled().await.outcome, Outcome::Delivered { path: Path::WebSocket });
    });
}

#[test]
fn what_no_peer_could_take_is_handed_back_with_the_wire_s_own_reason() {
    let setup = Setup::dialer("127.0.0.1:1", Config::DEFAULT, Thermometer).unwrap();
    let device = bowline_blocking::Node::start(setup).unwrap();
    let error = device.send((), "no reading").unwrap_err();
    assert_eq!((error.why, &error.json[..]), (Refused::Invalid("no reading"), &b"no reading"[..]));
    assert_eq!(error.to_string(), "no reading");
}

/// A gateway, and a device that finds nobody at the WebSocket's address and posts.
fn by_http(gateway: Config) -> [bowline_blocking::Node<Thermometer>; 2] {
    let gateway = Setup::acceptor("127.0.0.1:0", gateway, Thermometer).unwrap();
    let gateway = bowline_blocking::Node::start(gateway).unwrap();
    let mut config = Config::DEFAULT;
    config.route.grace = Duration::ZERO;
    let device = Setup::dialer("ws://127.0.0.1:1/device", config, Thermometer).unwrap();
    let device = device.fallback(&format!("http://{}/device/readings", gateway.address().unwrap())).unwrap();
    [gateway, bowline_blocking::Node::start(device).unwrap()]
}

#[test]
fn a_post_is_the_frame_and_the_answer_its_acknowledgement() {
    let [gateway, device] = by_http(Config::DEFAULT);
    let receipt = device.send((), json()).unwrap();
    let message = gateway.receive().unwrap();
    assert_eq!((message.content(), message.path()), (&READING, Path::Http));
    assert!(message.complete());
    assert_eq!(receipt.wait().outcome, Outcome::Delivered { path: Path::Http });
}

#[test]
fn what_can_never_be_processed_ends_as_rejected_by_http() {
    let mut config = Config::DEFAULT;
    config.inbox.on_reject = OnReject::Silence;
    let [gateway, device] = by_http(config);
    let receipt = device.send((), json()).unwrap();
    assert!(gateway.receive().unwrap().reject());
    let outcome = receipt.wait().outcome;
    assert!(matches!(outcome, Outcome::Rejected { .. }), "{outcome:?}");
}
