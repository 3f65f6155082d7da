//! L13 over sockets: who closes × path × whether the peer is there, with both adapters. The whole table, with both kinds of
//! messages in one session, a close without a drain and a hub's sessions, is in virtual time beside `core/src/session.rs` and
//! `core/src/hub`; what only a socket can show is here: a listener that is dialled while it closes, a dialer that dials,
//! requests that are made and answered.

mod real;

use bowline::{Outcome, Path};
use bowline_cli::proxy::Fault;
use core::time::Duration;
use real::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Peer {
    There,
    Back,
    Away,
}

/// Who closes: the ML node listens and sends, the API node dials and receives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closes {
    Sender,
    Receiver,
}

/// Who closes, by which path the batch goes, where the other one is, and whether the batch is delivered.
const TABLE: [(Closes, Path, Peer, bool); 12] = [
    (Closes::Sender, Path::WebSocket, Peer::There, true),
    (Closes::Sender, Path::WebSocket, Peer::Back, true),
    (Closes::Sender, Path::WebSocket, Peer::Away, false),
    (Closes::Sender, Path::Http, Peer::There, true),
    (Closes::Sender, Path::Http, Peer::Back, true),
    (Closes::Sender, Path::Http, Peer::Away, false),
    (Closes::Receiver, Path::WebSocket, Peer::There, true),
    (Closes::Receiver, Path::WebSocket, Peer::Back, true),
    (Closes::Receiver, Path::WebSocket, Peer::Away, false),
    (Closes::Receiver, Path::Http, Peer::There, true),
    (Closes::Receiver, Path::Http, Peer::Back, true),
    (Closes::Receiver, Path::Http, Peer::Away, false),
];

#[test]
fn l13_over_sockets_what_was_accepted_is_finished_if_the_peer_comes_within_the_drain() {
    limited(|| at_once(|pair| TABLE.into_iter().for_each(|cell| closes(pair, cell))));
}

fn closes(pair: Pair, (who, path, peer, delivered): (Closes, Path, Peer, bool)) {
    let cell = format!("{pair:?}: {who:?} closes, {path:?}, {peer:?}");
    let world = World::start(pair);
    // One path alone, or the other one would carry.
    match path {
        Path::WebSocket => world.http.set(Fault::Refuse),
        Path::Http => world.use_path(Path::Http),
    }
    let first = world.sender.send(batch(1));
    let message = world.receiver.receive();
    let World { sender, receiver, ws, http, port } = world;
    let way = if path == Path::Http { &http } else { &ws };
    if peer != Peer::There {
        way.set(Fault::Refuse);
    }
    let drain = if peer == Peer::Away { Duration::from_millis(500) } else { LIMIT };
    match who {
        Closes::Sender => {
            let closing = sender.begin_close(drain);
            assert!(message.complete(), "{cell}");
            if peer == Peer::Back {
                way.set(Fault::Calm);
            }
            let outcome = settled(first).outcome;
            assert_eq!(outcome, if delivered { Outcome::Delivered { path } } else { Outcome::Abandoned }, "{cell}");
            assert_eq!(closing.wait().backlog, 0, "{cell}");
            receiver.stop();
        }
        Closes::Receiver => {
            let fresh = receiver.begin_all();
            let before = sender.stats();
            receiver.start_closing(drain);
            if peer == Peer::Back {
                let came = || receiver.stats().duplicates + receiver.stats().refused;
                let before = came();
                way.set(Fault::Calm);
                // A request that was cut may look as if it still waited: the next copy is told to come again.
                eventually("the sender asks again", || came() > before);
            }
            let second = sender.send(batch(2));
            if peer == Peer::There {
                let left = |stats: bowline::Stats| stats.frames > before.frames || stats.posts > before.posts;
                sender.until("the second batch has left", left);
            }
            assert!(message.complete(), "{cell}");
            if delivered {
                assert_eq!(settled(first).outcome, Outcome::Delivered { path }, "{cell}");
            }
            assert!(fresh.wait().is_empty(), "{cell}: something new was handed over");
            receiver.stop();
            sender.stop();
            assert_eq!(settled(second).outcome, Outcome::Abandoned, "{cell}");
        }
    }
    drop((ws, http, port));
}
