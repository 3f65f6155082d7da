//! What an application sees of a node, with both adapters in both roles over real sockets: verdicts, limits, room,
//! cancelling, closing.

#[macro_use]
mod real;

use bowline::{Event, OnReject, Outcome, Path, Policy, Refusal, Rejection};
use bowline_smol::{Kind, Receipt, Refused, Setup};
use core::time::Duration;
use real::*;
use std::collections::BTreeSet;

scenarios! {
    a_batch_is_acknowledged_when_it_is_completed,
    a_rejected_batch_is_acknowledged_on_both_paths,
    a_rejection_that_is_told_ends_the_message,
    a_batch_that_is_retried_comes_again_on_both_paths,
    a_batch_that_is_dropped_comes_again_on_both_paths,
    a_full_outbox_hands_the_batch_back,
    a_full_inbox_loses_nothing,
    what_no_path_takes_is_refused,
    what_the_websocket_does_not_take_goes_by_http,
    a_batch_the_peer_could_never_take_is_refused,
    a_receiver_does_not_send,
    a_message_ends_with_its_life,
    close_finishes_what_is_under_way,
    close_is_bounded_and_settles_everything,
    a_receiver_that_closes_waits_for_the_verdict_and_gives_the_rest_back,
    a_receiver_that_closes_answers_what_was_posted,
    a_dropped_sender_delivers_in_the_background,
    a_dropped_receiver_acknowledges_in_the_background,
    a_message_outlives_its_node,
    whoever_waits_is_told_of_the_end,
    i5_an_id_that_names_another_batch_is_refused_and_told,
    stop_is_prompt_whatever_the_peer_does,
}

#[test]
fn every_pair_of_adapters_understands_each_other() {
    limited(|| {
        for (sends, receives) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            a_batch_is_acknowledged_when_it_is_completed(Pair { sends: BOTH[sends], receives: BOTH[receives] });
        }
    });
}

fn a_batch_is_acknowledged_when_it_is_completed(pair: Pair) {
    let world = World::start(pair);
    let receipt = world.sender.send(batch(1));
    let message = world.receiver.receive();
    assert_eq!(json(&message), batch(1));
    assert_eq!((message.kind(), message.path(), message.maybe_dup()), (Kind::Generated, Path::WebSocket, false));
    assert_eq!(message.id(), Some(receipt.id().to_string().as_str()));
    assert_eq!(receipt.try_settled(), None, "received is not done");
    assert!(message.complete());
    assert_delivered(receipt, Path::WebSocket);
    let (sent, received) = (world.sender.status(), world.receiver.status());
    assert_eq!((sent.backlog, sent.stats.accepted, sent.stats.delivered_websocket), (0, 1, 1));
    assert_eq!((sent.stats.frames, sent.stats.posts, sent.stats.hedges), (1, 0, 0));
    assert_eq!((received.held, received.stats.delivered, received.stats.duplicates), (0, 1, 0));
    world.stop();
}

/// The protocol knows no other word than an acknowledgement, and silence would make the peer repeat it for ever (S8).
fn a_rejected_batch_is_acknowledged_on_both_paths(pair: Pair) {
    let world = World::start(pair);
    for (n, path) in [(1, Path::WebSocket), (2, Path::Http)] {
        world.use_path(path);
        let receipt = world.sender.send(batch(n));
        let message = world.receiver.receive();
        assert_eq!(message.path(), path);
        assert!(message.reject());
        assert_delivered(receipt, path);
    }
    let rejected = |event: &&Event| matches!(event, Event::RejectedButAcked { .. });
    eventually("both are told of", || world.receiver.events().iter().filter(rejected).count() == 2);
    world.stop();
}

/// A sender that was told 200 has had its batch handed over, by whichever path the first of that id came.
fn i5_an_id_that_names_another_batch_is_refused_and_told(pair: Pair) {
    let world = World::start(pair);
    let (address, callback) = (world.receiver.address(), "/v1/poc-batches/generated");
    let receipt = world.sender.send(batch(1));
    assert!(world.receiver.receive().complete());
    let id = receipt.id().to_string();
    let key = [("Idempotency-Key", id.as_str())];
    assert_delivered(receipt, Path::WebSocket);
    let refused = post(address, callback, &key, &batch(2));
    assert_eq!((refused.status, &*refused.body), (422, r#"{"error":"this id was used for another batch"}"#));
    assert_eq!(post(address, callback, &key, &batch(1)).status, 200, "a copy is none");
    let reused = |event: &Event| matches!(event, Event::IdReused { total: 1 });
    eventually("it is told", || world.receiver.events().iter().any(reused));
    assert_eq!(world.receiver.stats().delivered, 1);
    let long = post(address, callback, &[("Idempotency-Key", &"x".repeat(65))], &batch(3));
    assert_eq!((long.status, &*long.body), (400, r#"{"error":"an Idempotency-Key longer than 64 bytes"}"#));
    world.stop();
}

fn a_rejection_that_is_told_ends_the_message(pair: Pair) {
    let world = World::with(pair, impatient, |config| {
        quick(config);
        config.inbox.on_reject = OnReject::Silence;
    });
    let receipt = world.sender.send(batch(1));
    assert!(world.receiver.receive().reject());
    // Silence on the connection; the copy by HTTP is told.
    assert_eq!(settled(receipt).outcome, Outcome::Rejected(Rejection::Status(422)));
    assert_eq!(world.receiver.stats().delivered, 1);
    world.stop();
}

fn a_batch_that_is_retried_comes_again_on_both_paths(pair: Pair) {
    comes_again(pair, |message| assert!(message.retry(millis(10))));
}

fn a_batch_that_is_dropped_comes_again_on_both_paths(pair: Pair) {
    comes_again(pair, drop);
}

/// Given back on either path, a batch comes once more.
fn comes_again(pair: Pair, give_back: impl Fn(bowline_smol::Message)) {
    let world = World::with(pair, impatient, quick);
    for (n, first) in [(1, Path::WebSocket), (2, Path::Http)] {
        world.use_path(first);
        let receipt = world.sender.send(batch(n));
        let message = world.receiver.receive();
        assert_eq!(message.path(), first);
        give_back(message);
        assert_eq!(receipt.try_settled(), None);
        // On one connection it is never sent twice, so the second copy comes by HTTP.
        let again = world.receiver.receive();
        assert_eq!((again.path(), json(&again)), (Path::Http, batch(n).as_str()));
        assert_eq!(again.id(), Some(receipt.id().to_string().as_str()));
        assert!(again.complete());
        assert_delivered(receipt, Path::Http);
    }
    world.stop();
}

fn a_full_outbox_hands_the_batch_back(pair: Pair) {
    let world = World::with(
        pair,
        |config| {
            quick(config);
            config.outbox.capacity = 2;
        },
        quick,
    );
    let first = world.sender.send(batch(1));
    let second = world.sender.send(batch(2));
    let refused = world.sender.try_send(batch(3)).unwrap_err();
    assert_eq!((refused.why, &refused.json[..]), (Refused::Session(Refusal::Full), batch(3).as_bytes()));

    let waiting = [3, 4, 5].map(|n| world.sender.begin_send(batch(n), Policy::DEFAULT));
    assert_eq!(world.sender.stats().accepted, 2, "they wait for room");
    let mut seen = BTreeSet::new();
    for _ in 1..=5 {
        let message = world.receiver.receive();
        assert!(seen.insert(json(&message).to_owned()), "twice: {message:?}");
        assert!(message.complete());
    }
    assert_eq!(seen, (1..=5).map(batch).collect());
    for receipt in [first, second].into_iter().chain(waiting.map(|waiting| waiting.wait().unwrap())) {
        assert_delivered(receipt, Path::WebSocket);
    }
    world.stop();
}

/// What finds no place at the application is not acknowledged, so it comes again until it does.
fn a_full_inbox_loses_nothing(pair: Pair) {
    let world = World::with(pair, impatient, |config| {
        quick(config);
        config.inbox.held = 2;
    });
    let receipts: Vec<Receipt> = (0..6).map(|n| world.sender.send(batch(n))).collect();
    world.receiver.until("some are refused", |stats| stats.refused > 0);
    assert_eq!(world.receiver.status().held, 2);
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        let message = world.receiver.receive();
        assert!(seen.insert(json(&message).to_owned()), "twice: {message:?}");
        assert!(message.complete());
    }
    for receipt in receipts {
        assert!(matches!(settled(receipt).outcome, Outcome::Delivered { .. }));
    }
    assert_eq!(world.receiver.stats().delivered, 6);
    world.stop();
}

fn what_no_path_takes_is_refused(pair: Pair) {
    let world = World::with(
        pair,
        |config| {
            quick(config);
            config.outbox.frame_limit = 10_000;
            config.outbox.post_limit = 100_000;
        },
        quick,
    );
    let json = big_batch(1, 100_000);
    let refused = world.sender.try_send(json.clone()).unwrap_err();
    assert_eq!((refused.why, &refused.json[..]), (Refused::Session(Refusal::TooLarge), json.as_bytes()));
    let waiting = world.sender.begin_send(json, Policy::DEFAULT).wait().unwrap_err();
    assert_eq!(waiting.why, Refused::Session(Refusal::TooLarge), "waiting for room would not help");
    assert_eq!(world.sender.status().backlog, 0);
    world.stop();
}

fn what_the_websocket_does_not_take_goes_by_http(pair: Pair) {
    let world = World::with(
        pair,
        |config| {
            quick(config);
            config.outbox.frame_limit = 10_000;
        },
        quick,
    );
    let large = world.sender.send(big_batch(1, 10_000));
    let small = world.sender.send(batch(2));
    for _ in 0..2 {
        let message = world.receiver.receive();
        let expected = if json(&message) == batch(2) { Path::WebSocket } else { Path::Http };
        assert_eq!(message.path(), expected);
        assert!(message.complete());
    }
    assert_delivered(large, Path::Http);
    assert_delivered(small, Path::WebSocket);
    world.stop();
}

/// The peer would drop it in silence, and it would be repeated for ever (field bug).
fn a_batch_the_peer_could_never_take_is_refused(pair: Pair) {
    let world = World::start(pair);
    for json in [r#"{"node_id":-1}"#, "[]", "", "{", r#"{"nonces":"3"}"#, "\u{feff}{}"] {
        let refused = world.sender.try_send(json).unwrap_err();
        assert!(matches!(refused.why, Refused::Malformed(_)), "{json}: {refused}");
        assert_eq!(&refused.json[..], json.as_bytes());
    }
    assert_eq!((world.sender.stats().accepted, world.sender.status().backlog), (0, 0));
    world.stop();
}

fn a_receiver_does_not_send(pair: Pair) {
    let world = World::start(pair);
    assert_eq!(world.receiver.try_send(batch(1)).unwrap_err().why, Refused::Direction);
    let waiting = world.receiver.begin_send(batch(1), Policy::DEFAULT).wait();
    assert_eq!(waiting.unwrap_err().why, Refused::Direction);
    world.stop();
}

fn a_message_ends_with_its_life(pair: Pair) {
    let world = World::start(pair);
    let short = Policy { life: Some(millis(150)), ..Policy::DEFAULT };
    let receipt = world.sender.begin_send(batch(1), short).wait().unwrap();
    let message = world.receiver.receive();
    assert_eq!(settled(receipt).outcome, Outcome::Expired);
    // The late acknowledgement is no offence.
    assert!(message.complete());
    let next = world.sender.send(batch(2));
    assert!(world.receiver.receive().complete());
    assert_delivered(next, Path::WebSocket);
    assert_eq!((world.sender.stats().violations, world.sender.stats().attempts), (0, 1));
    world.stop();
}

fn close_finishes_what_is_under_way(pair: Pair) {
    let World { sender, receiver, ws, http, port } = World::start(pair);
    let receipts = [1, 2, 3].map(|n| sender.send(batch(n)));
    let messages = [1, 2, 3].map(|_| receiver.receive());
    let closing = sender.begin_close(LIMIT);
    receiver.until("nothing", |_| closing.is_running());
    for message in messages {
        assert!(message.complete());
    }
    let last = closing.wait();
    assert_eq!((last.backlog, last.stats.delivered_websocket, last.stats.abandoned), (0, 3, 0));
    for receipt in receipts {
        assert_eq!(receipt.try_settled().unwrap().outcome, Outcome::Delivered { path: Path::WebSocket });
    }
    receiver.until_event("a close with 1000", |event| {
        matches!(event, Event::Down { reason: bowline::Reason::Closed(1000), .. })
    });
    receiver.stop();
    drop((ws, http, port));
}

fn close_is_bounded_and_settles_everything(pair: Pair) {
    let World { sender, receiver, ws, http, port } = World::start(pair);
    let receipts = [1, 2, 3].map(|n| sender.send(batch(n)));
    let message = receiver.receive();
    let last = sender.begin_close(millis(200)).wait_for(PROMPT);
    assert_eq!((last.backlog, last.stats.abandoned), (0, 3));
    for receipt in receipts {
        assert_eq!(receipt.try_settled().unwrap().outcome, Outcome::Abandoned);
    }
    drop(message);
    receiver.stop();
    drop((ws, http, port));
}

/// And whoever comes after it gets the rest.
fn a_receiver_that_closes_waits_for_the_verdict_and_gives_the_rest_back(pair: Pair) {
    let world = World::start(pair);
    let receipts = [1, 2, 3].map(|n| world.sender.send(batch(n)));
    let first = world.receiver.receive();
    world.receiver.until("all have arrived", |stats| stats.delivered == 3);
    let (world, receiver) = world.without_receiver();
    let closing = receiver.begin_close(LIMIT);
    assert!(first.complete());
    let last = closing.wait();
    assert_eq!((last.held, last.stats.delivered), (0, 3));
    let [first, rest @ ..] = receipts;
    assert_delivered(first, Path::WebSocket);
    assert_eq!(world.sender.status().backlog, 2);

    let world = world.with_receiver(pair, quick);
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let message = world.receiver.receive();
        seen.insert(json(&message).to_owned());
        assert!(message.complete());
    }
    assert_eq!(seen, [2, 3].map(batch).into());
    for receipt in rest {
        assert!(matches!(settled(receipt).outcome, Outcome::Delivered { .. }));
    }
    world.stop();
}

/// An answer that is lost with the receiver would bring the batch to the next one again.
fn a_receiver_that_closes_answers_what_was_posted(pair: Pair) {
    for finished in [true, false] {
        let world = World::start(pair);
        world.use_path(Path::Http);
        let receipt = world.sender.send(batch(1));
        let message = world.receiver.receive();
        assert_eq!(message.path(), Path::Http);
        // One connection more, which has nothing to say.
        let idle = std::net::TcpStream::connect(world.receiver.address()).unwrap();
        let (world, receiver) = world.without_receiver();
        let closing = receiver.begin_close(if finished { LIMIT } else { millis(50) });
        if finished {
            assert!(message.complete());
            assert_delivered(receipt, Path::Http);
            closing.wait_for(PROMPT);
        } else {
            closing.wait_for(PROMPT);
            drop(message);
            // It was told to come again, and does: there is a new receiver in that place.
            let world = world.with_receiver(pair, quick);
            assert!(world.receiver.receive().complete());
            assert!(matches!(settled(receipt).outcome, Outcome::Delivered { .. }));
            world.receiver.stop();
        }
        drop(idle);
    }
}

fn a_dropped_sender_delivers_in_the_background(pair: Pair) {
    let World { sender, receiver, ws, http, port } = World::start(pair);
    let receipts = [1, 2, 3].map(|n| sender.send(batch(n)));
    promptly("a sender is dropped", move || drop(sender));
    for _ in 0..3 {
        assert!(receiver.receive().complete());
    }
    for receipt in receipts {
        assert_delivered(receipt, Path::WebSocket);
    }
    receiver.stop();
    drop((ws, http, port));
}

fn a_dropped_receiver_acknowledges_in_the_background(pair: Pair) {
    let World { sender, receiver, ws, http, port } = World::start(pair);
    let receipt = sender.send(batch(1));
    let message = receiver.receive();
    promptly("a receiver is dropped", move || drop(receiver));
    assert!(message.complete(), "it still has the time to acknowledge");
    assert_delivered(receipt, Path::WebSocket);
    sender.stop();
    drop((ws, http, port));
}

fn a_message_outlives_its_node(pair: Pair) {
    let World { sender, receiver, ws, http, port } = World::start(pair);
    let receipt = sender.send(batch(1));
    let message = receiver.receive();
    receiver.stop();
    assert!(!message.complete(), "nobody can acknowledge it any more");
    sender.stop();
    assert_eq!(receipt.try_settled().unwrap().outcome, Outcome::Abandoned);
    assert_eq!(receipt.wait().outcome, Outcome::Abandoned, "asked again, nothing is known, but it does not hang");
    drop((ws, http, port));
}

/// Nobody waits for ever, neither for a batch nor for an event.
fn whoever_waits_is_told_of_the_end(pair: Pair) {
    let World { sender, receiver, ws, http, port } = World::start(pair);
    let receipt = sender.send(batch(1));
    let taken = receiver.receive();
    let (all, events) = (receiver.begin_all(), [&sender, &receiver].map(Node::begin_watch));
    receiver.stop();
    sender.stop();
    assert_eq!(all.wait().len(), 0);
    for end in events {
        end.wait();
    }
    assert_eq!(settled(receipt).outcome, Outcome::Abandoned);
    drop((taken, ws, http, port));
}

/// Connecting, shaking hands, posting or serving: nothing that a peer does not do holds up the end.
fn stop_is_prompt_whatever_the_peer_does(pair: Pair) {
    let deaf = Deaf::start();
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for peer in [deaf.address, mute.local_addr().unwrap()] {
        let setup = Setup::api_node(&peer.to_string()).unwrap().callbacks("127.0.0.1:0").unwrap().configure(quick);
        let receiver = Node::start(pair.receives, setup);
        let client = std::net::TcpStream::connect(receiver.address()).unwrap();
        receiver.until("an attempt is under way", |stats| stats.attempts == 1);

        let fallback = format!("http://{peer}/v1/poc-batches");
        let setup = Setup::ml_node("127.0.0.1:0").unwrap().fallback(&fallback).unwrap().configure(quick);
        let sender = Node::start(pair.sends, setup);
        let receipt = sender.send(batch(1));
        sender.until("a request is under way", |stats| stats.posts == 1);

        receiver.stop();
        sender.stop();
        assert_eq!(receipt.try_settled().unwrap().outcome, Outcome::Abandoned);
        drop(client);
    }
}

mod cancelling {
    //! Every future of smol's adapter may be dropped at any await.

    use super::*;
    use bowline_smol::Node;
    use smol::future::{FutureExt as _, poll_once, yield_now};
    use smol::{Timer, block_on};

    fn pair(capacity: usize) -> (Node, Node) {
        let setup = Setup::ml_node("127.0.0.1:0").unwrap().configure(quick).drain(DRAIN);
        let sender = Node::start(setup.configure(|config| config.outbox.capacity = capacity)).unwrap();
        let address = sender.address().unwrap().to_string();
        let receiver = Node::start(Setup::api_node(&address).unwrap().configure(quick).drain(DRAIN)).unwrap();
        (sender, receiver)
    }

    #[test]
    fn a_send_that_waits_for_room_leaves_nothing_behind() {
        limited(|| {
            block_on(async {
                let (sender, receiver) = pair(1);
                let first = sender.send(Kind::Generated, batch(1)).await.unwrap();
                for _ in 0..10 {
                    assert!(poll_once(sender.send(Kind::Generated, batch(2))).await.is_none(), "there is no room");
                }
                assert!(receiver.receive().await.unwrap().complete());
                assert_eq!(first.settled().await.outcome, Outcome::Delivered { path: Path::WebSocket });
                let third = sender.send(Kind::Generated, batch(3)).await.unwrap();
                let message = receiver.receive().await.unwrap();
                assert_eq!(json(&message), batch(3), "what was cancelled was never sent");
                assert!(message.complete());
                third.settled().await;
                assert_eq!(sender.status().stats.accepted, 2);
            });
        });
    }

    #[test]
    fn a_receive_that_is_cancelled_leaves_the_batch() {
        limited(|| {
            block_on(async {
                const COUNT: u64 = 200;
                let (sender, receiver) = pair(8);
                let task = smol::spawn(async move {
                    for n in 0..COUNT {
                        let receipt = sender.send(Kind::Generated, batch(n)).await.unwrap();
                        if n % 8 == 7 {
                            receipt.settled().await;
                        }
                    }
                    sender
                });
                let (mut seen, mut cancelled) = (Vec::new(), 0);
                while seen.len() < usize::try_from(COUNT).unwrap() {
                    let impatient = async {
                        yield_now().await;
                        None
                    };
                    match receiver.receive().or(impatient).await {
                        Some(message) => {
                            seen.push(json(&message).to_owned());
                            assert!(message.complete());
                        }
                        None => {
                            cancelled += 1;
                            Timer::after(Duration::from_micros(50)).await;
                        }
                    }
                }
                assert_eq!(seen, (0..COUNT).map(batch).collect::<Vec<_>>());
                assert!(cancelled > 0);
                drop(task.await);
            });
        });
    }

    #[test]
    fn a_wait_for_the_end_can_be_taken_up_again() {
        limited(|| {
            block_on(async {
                let (sender, receiver) = pair(1);
                let receipt = sender.send(Kind::Generated, batch(1)).await.unwrap();
                for _ in 0..10 {
                    assert!(poll_once(receipt.settled()).await.is_none());
                }
                assert!(receiver.receive().await.unwrap().complete());
                assert_eq!(receipt.settled().await.outcome, Outcome::Delivered { path: Path::WebSocket });
            });
        });
    }

    #[test]
    fn a_close_that_is_cancelled_goes_on() {
        limited(|| {
            block_on(async {
                let (sender, receiver) = pair(4);
                let receipt = sender.send(Kind::Generated, batch(1)).await.unwrap();
                let message = receiver.receive().await.unwrap();
                assert!(poll_once(sender.close(LIMIT)).await.is_none(), "it waits for the acknowledgement");
                assert!(message.complete());
                assert_eq!(receipt.settled().await.outcome, Outcome::Delivered { path: Path::WebSocket });
            });
        });
    }
}
