//! What a process has more of when nodes have come and gone: nothing. And how its sockets are set. Linux only, whose
//! `/proc` tells.
#![cfg(target_os = "linux")]

mod real;

use bowline::Path;
use bowline_cli::proxy::{Direction, Fault, Proxy};
use bowline_smol::Setup;
use bowline_smol::hub::{Admission, Health, Hub, HubSetup};
use core::time::Duration;
use real::client::{Client, outcome};
use real::*;
use rustix::process::{
    PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getpid, getrlimit, pidfd_getfd, pidfd_open, setrlimit,
};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The tests of this program look at the whole process, so they run one after the other.
static ALONE: Mutex<()> = Mutex::new(());

fn alone(test: impl FnOnce() + Send + 'static) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    limited(test);
}

fn threads() -> Vec<String> {
    let name = |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.ok()?.path().join("comm")).ok();
    fs::read_dir("/proc/self/task").unwrap().filter_map(name).map(|name| name.trim().to_owned()).collect()
}

/// Numbers and what they are.
fn files() -> Vec<(i32, String)> {
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.ok()?.path();
        let number = path.file_name()?.to_str()?.parse().ok()?;
        Some((number, fs::read_link(path).ok()?.display().to_string()))
    };
    // Without the directory that is just being read.
    fs::read_dir("/proc/self/fd").unwrap().filter_map(file).filter(|(_, what)| !what.starts_with("/proc")).collect()
}

const PAIRS: [Pair; 2] = [Pair::BLOCKING_SENDS, Pair::SMOL_SENDS];

#[test]
fn nothing_is_left_behind() {
    alone(|| {
        // Smol's executor and its reactor stay for the life of the process.
        PAIRS.into_iter().for_each(come_and_go);
        let (threads_before, files_before) = at_rest();
        for _ in 0..3 {
            PAIRS.into_iter().for_each(come_and_go);
        }
        let (threads_after, files_after) = at_rest();
        assert!(threads_after.len() <= threads_before.len(), "{threads_before:?}, then {threads_after:?}");
        assert!(files_after.len() <= files_before.len(), "{files_before:?}, then {files_after:?}");
    });
}

/// A hub of ours with native clients of both adapters: connected, cut, by HTTP, turned away, one that never says a word, and
/// one that only connects.
#[test]
fn a_hub_and_its_native_clients_leave_nothing_behind() {
    alone(|| {
        clients_come_and_go();
        let (threads_before, files_before) = at_rest();
        for _ in 0..3 {
            clients_come_and_go();
        }
        let (threads_after, files_after) = at_rest();
        assert!(threads_after.len() <= threads_before.len(), "{threads_before:?}, then {threads_after:?}");
        assert!(files_after.len() <= files_before.len(), "{files_before:?}, then {files_after:?}");
    });
}

fn clients_come_and_go() {
    let setup = HubSetup::village("127.0.0.1:0").unwrap();
    let setup = setup
        .native(|caller| match caller.auth {
            Some(_) => Admission::Refuse("not you".into()),
            None => Admission::accept(),
        })
        .configure(|config| {
            // Who has left is soon forgotten.
            (config.tolerance, config.ttl) = (millis(50), millis(100));
        })
        .on("up", |_| async { Ok::<_, String>(()) });
    let hub = Hub::start(setup).unwrap();
    let proxy = Proxy::start(hub.address()).unwrap();
    let mut strangers = vec![TcpStream::connect(hub.address()).unwrap()];
    let mut mute = TcpStream::connect(hub.address()).unwrap();
    let upgrade = "GET /bowline/1/socket HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: bowline.1\r\n\r\n";
    mute.write_all(upgrade.as_bytes()).unwrap();
    strangers.push(mute);
    let clients: Vec<Client> = BOTH
        .into_iter()
        .flat_map(|adapter| {
            let start = |cid: &str, url: String, auth: Option<&str>| {
                let setup = Setup::client(&url, &format!("{cid}-{adapter:?}")).unwrap().drain(DRAIN);
                let setup = match auth {
                    Some(auth) => setup.auth(auth).unwrap(),
                    None => setup,
                };
                Client::start(adapter, setup.configure(quick).configure(|config| config.route.grace = millis(50)))
            };
            let through = format!("ws://{}", proxy.addr());
            // There is no such path, so it lives on HTTP.
            let by_http = Setup::client("ws://127.0.0.1:9", &format!("http-{adapter:?}")).unwrap();
            let by_http = by_http.fallback(&format!("http://{}/bowline/1", hub.address())).unwrap();
            let by_http = by_http.configure(quick).configure(|config| config.route.grace = millis(50));
            [
                start("cut", through.clone(), None),
                start("refused", through, Some("no")),
                Client::start(adapter, by_http.drain(DRAIN)),
            ]
        })
        .collect();
    let served: Vec<&Client> = clients.iter().step_by(3).chain(clients.iter().skip(2).step_by(3)).collect();
    for fault in [Fault::Reset, Fault::Refuse, Fault::Calm] {
        let receipts: Vec<_> = served.iter().map(|client| client.send("up", &serde_json::json!({}))).collect();
        proxy.set(fault);
        proxy.set(Fault::Calm);
        for receipt in receipts {
            assert!(matches!(outcome(&receipt), bowline::Outcome::Delivered { .. }));
        }
    }
    eventually("who is refused is refused", || hub.stats().refused >= 2);
    for client in clients {
        client.stop();
    }
    drop(strangers);
    let none = |health: Health| {
        let Health { connections, pending, closing, sessions, backlog, held, .. } = health;
        [connections, pending, closing, sessions, backlog, held] == [0; 6]
    };
    eventually("the hub knows nobody", || none(hub.health()));
    begin("the hub is closed", move || smol::block_on(hub.close())).wait();
}

/// Threads and files, once there have been no others for longer than smol's pool keeps an idle thread (500 ms).
fn at_rest() -> (Vec<String>, Vec<(i32, String)>) {
    let (mut now, mut since) = ((threads(), files()), Instant::now());
    let begin = since;
    while since.elapsed() < millis(700) {
        assert!(begin.elapsed() < LIMIT, "no rest: {now:?}");
        std::thread::sleep(millis(20));
        let next = (threads(), files());
        if next != now {
            (now, since) = (next, Instant::now());
        }
    }
    now
}

/// Everything that makes a node begin something, ended by dropping the nodes in the middle of it.
fn come_and_go(pair: Pair) {
    let soon = |config: &mut bowline::Config| {
        impatient(config);
        config.link.attempt = Duration::from_secs(1);
        (config.route.progress, config.route.thinking) = (Duration::from_secs(1), Duration::from_secs(1));
    };
    // Delivered, lost, reset and turned away; a batch at the application and a request that waits for it.
    let world = World::with(pair, soon, soon);
    let receipt = world.sender.send(batch(1));
    assert!(world.receiver.receive().complete());
    assert_delivered(receipt, Path::WebSocket);
    for fault in [Fault::Reset, Fault::CloseEarly { code: 1008, reason: "" }, Fault::Refuse, Fault::Calm] {
        let attempts = world.receiver.stats().attempts;
        world.ws.set(fault);
        world.receiver.until("another attempt", |stats| stats.attempts > attempts || fault == Fault::Calm);
    }
    world.connected();
    world.ws.set(Fault::Silence(Direction::Both));
    let swallowed = world.sender.send(batch(2));
    let message = world.receiver.receive();
    let clients =
        [world.sender.address(), world.receiver.address()].map(|address| TcpStream::connect(address).unwrap());
    drop(world);
    drop((message, swallowed, clients));

    // Attempts and requests that never get an answer.
    let deaf = Deaf::start();
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for peer in [deaf.address, mute.local_addr().unwrap()] {
        let setup = Setup::api_node(&peer.to_string()).unwrap().callbacks("127.0.0.1:0").unwrap();
        let receiver = Node::unwatched(pair.receives, setup.configure(soon).drain(millis(100)));
        let setup = Setup::ml_node("127.0.0.1:0").unwrap().fallback(&format!("http://{peer}/v1/poc-batches")).unwrap();
        let sender = Node::unwatched(pair.sends, setup.configure(soon).drain(millis(100)));
        let _receipt = sender.send(batch(1));
        sender.until("a request is under way", |stats| stats.posts == 1);
        receiver.until("an attempt is under way", |stats| stats.attempts == 1);
    }
}

/// With the limits as they are, 10 s and more: it is the end of the session that ends whoever waits for a peer.
#[test]
fn a_node_that_has_closed_has_no_threads() {
    alone(|| {
        let deaf = Deaf::start();
        let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for peer in [deaf.address, mute.local_addr().unwrap()] {
            let setup = Setup::api_node(&peer.to_string()).unwrap().callbacks("127.0.0.1:0").unwrap();
            let receiver = Node::unwatched(Adapter::Blocking, setup);
            let setup = Setup::ml_node("127.0.0.1:0").unwrap();
            let setup = setup.fallback(&format!("http://{peer}/v1/poc-batches")).unwrap();
            let sender = Node::unwatched(Adapter::Blocking, setup);
            let clients = [&receiver, &sender].map(|node| TcpStream::connect(node.address()).unwrap());
            let _receipt = sender.send(batch(1));
            let here = |name: &str| threads().iter().any(|thread| thread == name);
            for name in ["bowline", "bowline-dial", "bowline-post", "bowline-peer"] {
                eventually(name, || here(name));
            }
            receiver.stop();
            sender.stop();
            // Joined; the system may list a thread for a moment longer.
            let since = Instant::now();
            eventually("no threads", || !threads().iter().any(|name| name.starts_with("bowline")));
            assert!(since.elapsed() < PROMPT);
            drop(clients);
        }
    });
}

/// Whoever connects while the process has no file descriptor left is served once there is one.
#[test]
fn a_shortage_of_files_passes() {
    alone(|| {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..limit }).unwrap();
        for adapter in BOTH {
            let node = Node::unwatched(adapter, Setup::ml_node("127.0.0.1:0").unwrap());
            let address = node.address();
            let mut all: Vec<_> = core::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
            drop(all.pop());
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"GET /nowhere HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
            client.set_read_timeout(Some(millis(300))).unwrap();
            client.read_exact(&mut [0]).expect_err("nobody can be served");
            drop(all);
            client.set_read_timeout(Some(LIMIT)).unwrap();
            let mut said = [0; 12];
            client.read_exact(&mut said).unwrap();
            assert_eq!(&said, b"HTTP/1.1 404");
            node.stop();
        }
        setrlimit(Resource::Nofile, limit).unwrap();
    });
}

/// Small frames must not wait for the acknowledgement of the ones before: 40 ms for each, with Nagle's algorithm.
#[test]
fn every_connection_has_nodelay() {
    alone(|| {
        let me = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let connections = || {
            let socket = |(number, what): (i32, String)| {
                what.starts_with("socket:").then(|| pidfd_getfd(&me, number, PidfdGetfdFlags::empty()).ok()).flatten()
            };
            let sockets = files().into_iter().filter_map(socket).map(TcpStream::from);
            sockets.filter(|socket| socket.peer_addr().is_ok_and(|peer| peer.ip().is_loopback())).collect::<Vec<_>>()
        };
        for pair in PAIRS {
            assert!(connections().is_empty());
            let port = Port::reserve();
            let setup = Setup::ml_node("127.0.0.1:0").unwrap();
            let setup = setup.fallback(&format!("http://{}/v1/poc-batches", port.address)).unwrap();
            let sender = Node::start(
                pair.sends,
                setup.drain(DRAIN).configure(|config| {
                    quick(config);
                    config.outbox.frame_limit = 10_000;
                }),
            );
            let setup = Setup::api_node(&sender.address().to_string()).unwrap();
            let setup = setup.callbacks(&port.address.to_string()).unwrap();
            let receiver = Node::start(pair.receives, setup.drain(DRAIN).configure(quick));
            eventually("a connection", || receiver.status().connection.is_some());
            let posted = sender.send(big_batch(1, 10_000));
            let message = receiver.receive();
            assert_eq!(message.path(), Path::Http);

            let found = connections();
            let ends: BTreeSet<_> =
                found.iter().map(|socket| (socket.local_addr().unwrap(), socket.peer_addr().unwrap())).collect();
            assert_eq!(ends.len(), 4, "both ends of both connections: {found:?}");
            for connection in &found {
                assert!(connection.nodelay().unwrap(), "{connection:?}");
            }
            drop(found);
            assert!(message.complete());
            assert_delivered(posted, Path::Http);
            receiver.stop();
            sender.stop();
            eventually("all are closed", || connections().is_empty());
        }
    });
}
