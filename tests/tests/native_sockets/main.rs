//! Our native client and our hub over real sockets, in both adapters: faults on the way, both paths, every way a session
//! ends or goes on, topics, limits.
//!
//! ```text
//!            ┌──────── ws: Proxy ◀── dials ──────┐
//!   House ◀──┤                                   Client
//!            └──────── http: Proxy ◀── posts ────┘
//! ```

#[macro_use]
#[path = "../real/mod.rs"]
mod real;
mod house;
mod limits;
mod paths;
mod sessions;
mod topics;

use bowline::{Config, Event, Outcome, Path, State};
use bowline_cli::proxy::Proxy;
use bowline_smol::{Native, Receipt, Setup};
use house::House;
use real::client::{Client, outcome};
use real::*;
use serde_json::json;

const BY_FRAME: Outcome = Outcome::Delivered { path: Path::WebSocket };
const BY_HTTP: Outcome = Outcome::Delivered { path: Path::Http };
const NAME: &str = "sensor-7";

/// Short timers; HTTP only where a test has no WebSocket.
fn hasty(config: &mut Config) {
    quick(config);
    config.route.grace = LIMIT;
    // Connections are short here.
    config.link.blocked = millis(100);
}

fn plain(url: &str) -> Setup<Native> {
    Setup::client(url, NAME).unwrap().drain(DRAIN).configure(hasty)
}

/// A hub, a proxy in front of it, and a client that is up.
fn through(adapter: Adapter, change: impl FnOnce(Setup<Native>) -> Setup<Native>) -> (House, Proxy, Client) {
    let house = House::start();
    let proxy = Proxy::start(house.address()).unwrap();
    let client = Client::start(adapter, change(plain(&format!("ws://{}", proxy.addr()))));
    up(&client);
    (house, proxy, client)
}

#[track_caller]
fn up(client: &Client) {
    eventually("it is up", || client.status().state == State::Up);
}

fn resumed(client: &Client) -> usize {
    client.count(|event| matches!(event, Event::Resumed { resumed: true, .. }))
}

fn begun_anew(client: &Client) -> usize {
    client.count(|event| matches!(event, Event::Resumed { resumed: false, .. } | Event::Gap { .. }))
}

fn downs(client: &Client) -> usize {
    client.count(|event| matches!(event, Event::Down { .. }))
}

fn send(client: &Client, kind: &'static str, i: u64) -> Receipt {
    client.send(kind, &json!({"i": i}))
}

/// The next message is this one.
#[track_caller]
fn gets(client: &Client, i: u64) {
    assert_eq!(client.message("down"), json!({"i": i}), "in their order, none twice");
}
