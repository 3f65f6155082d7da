//! How a session goes on, begins anew, or is refused.

use super::*;
use bowline::wire::native::Refusal;
use bowline::{Reason, ResumeRefusal};
use bowline_cli::proxy::Fault;
use bowline_smol::hub::{self, CloseReason};
use core::time::Duration;
use house::{Application, Got};
use std::collections::BTreeMap;

with_both! {
    a_hub_that_has_lost_its_memory_begins_anew,
    a_client_that_has_lost_its_memory_begins_anew,
    an_older_self_is_refused,
    a_session_that_has_expired_begins_anew,
    whose_token_is_worthless_begins_anew,
    who_is_refused_may_show_something_else,
    a_connection_shows_again_who_it_is,
    the_newer_of_two_clients_of_one_name_stays,
    a_hub_goes_down_and_another_takes_its_place,
    a_hub_without_native_peers_is_waited_for,
}

fn reasons(client: &Client) -> Vec<(bool, Option<ResumeRefusal>)> {
    let mut reasons = Vec::new();
    client.each(|event| {
        if let Event::Resumed { resumed, reason } = event {
            reasons.push((*resumed, *reason));
        }
    });
    reasons
}

fn dups(got: &[Got]) -> BTreeMap<u64, Vec<bool>> {
    let mut dups = BTreeMap::<_, Vec<_>>::new();
    for got in got {
        dups.entry(got.i).or_default().push(got.maybe_dup);
    }
    dups
}

/// R2, R4, R5: what may have been handled is marked, what was never sent is not.
fn a_hub_that_has_lost_its_memory_begins_anew(adapter: Adapter) {
    let (house, proxy, client) = through(adapter, |setup| setup);
    house.begin_down(NAME, 1..=3).wait();
    (1..=3).for_each(|i| gets(&client, i));
    assert_eq!(outcome(&send(&client, "up", 1)), BY_FRAME);
    // Five are at the application, which never finishes; five more are accepted while there is nobody.
    let mut receipts: Vec<_> = (2..=6).map(|i| send(&client, "slow", i)).collect();
    eventually("they are at the application", || house.app.count() == 6);
    proxy.set(Fault::Refuse);
    eventually("it is down", || client.status().connection.is_none());
    receipts.extend((7..=11).map(|i| send(&client, "up", i)));
    let house = house.again();
    proxy.set(Fault::Calm);
    house.app.open();
    for receipt in &receipts {
        assert_eq!(outcome(receipt), BY_FRAME);
    }
    let expected = (1..=11).map(|i| {
        let times = match i {
            1 => vec![false],
            2..=6 => vec![false, true],
            _ => vec![false],
        };
        (i, times)
    });
    assert_eq!(dups(&house.app.got()), expected.collect());
    assert_eq!(reasons(&client), [(false, Some(ResumeRefusal::UnknownSession))]);
    let gap = Event::Gap { from: bowline::Seq::from_number(4), to: None, count: 0 };
    assert_eq!(client.count(|event| *event == gap), 1, "the hub's messages after the third are gone");
    house.begin_down(NAME, 1..=2).wait();
    (1..=2).for_each(|i| gets(&client, i));
    client.stop();
}

/// I3, R4: its session at the hub is there, and what was for its former self is for it.
fn a_client_that_has_lost_its_memory_begins_anew(adapter: Adapter) {
    let house = House::start();
    let of = |epoch| plain(&house.url()).identity("seven").epoch(epoch);
    let client = Client::start(adapter, of(1));
    up(&client);
    assert_eq!(outcome(&send(&client, "up", 1)), BY_FRAME);
    house.begin_down(NAME, 1..=2).wait();
    gets(&client, 1);
    let second = client.receive();
    client.stop();
    drop(second);
    eventually("it has left", || house.health().connections == 0);
    house.begin_down(NAME, 3..=3).wait();
    let client = Client::start(adapter, of(2));
    let message = client.receive();
    assert!(message.maybe_dup(), "its former self had it");
    assert!(message.complete());
    let message = client.receive();
    assert!(!message.maybe_dup(), "nobody had it");
    assert!(message.complete());
    assert_eq!(outcome(&send(&client, "up", 1)), BY_FRAME);
    assert_eq!(house.app.numbers(), [1, 1], "another message of another self");
    assert!(house.app.got().iter().all(|got| !got.maybe_dup));
    house.until_event("the hub is told of the gap", |event| matches!(event, hub::Event::Gap { from: 2, to: None, .. }));
    client.stop();
    house.assert_idle();
}

/// I3: and does not fight for its place.
fn an_older_self_is_refused(adapter: Adapter) {
    let house = House::start();
    let of = |epoch| plain(&house.url()).identity("seven").epoch(epoch);
    let newer = Client::start(adapter, of(2));
    up(&newer);
    let older = Client::start(adapter, of(1));
    eventually("it is refused", || older.refusal() == Some(Refusal::Resume(ResumeRefusal::Epoch)));
    eventually("it is told", || {
        older.count(|event| matches!(event, Event::Down { reason: Reason::Closed(1008), .. })) > 0
    });
    assert_ne!(older.status().state, State::Up);
    older.stop();
    assert_eq!((outcome(&send(&newer, "up", 1)), downs(&newer)), (BY_FRAME, 0));
    newer.stop();
}

fn a_session_that_has_expired_begins_anew(adapter: Adapter) {
    let house = House::with(|setup| {
        setup.configure(|config| {
            config.tolerance = millis(50);
            config.ttl = millis(100);
        })
    });
    let proxy = Proxy::start(house.address()).unwrap();
    let client = Client::start(adapter, plain(&format!("ws://{}", proxy.addr())));
    up(&client);
    assert_eq!(outcome(&send(&client, "up", 1)), BY_FRAME);
    proxy.set(Fault::Refuse);
    house.until_event("it expires", |event| matches!(event, hub::Event::Ended { why: CloseReason::Expired, .. }));
    let waits = send(&client, "up", 2);
    proxy.set(Fault::Calm);
    assert_eq!(outcome(&waits), BY_FRAME);
    assert_eq!(reasons(&client), [(false, Some(ResumeRefusal::Expired))]);
    assert_eq!(dups(&house.app.got()), BTreeMap::from([(1, vec![false]), (2, vec![false])]));
    client.stop();
}

/// R9, and the row of 8.6: somebody of its name has been there, twice; by HTTP nobody tells it.
fn whose_token_is_worthless_begins_anew(adapter: Adapter) {
    let house = House::start();
    let ws = Proxy::start(house.address()).unwrap();
    ws.set(Fault::Refuse);
    let setup = plain(&format!("ws://{}", ws.addr())).configure(|config| config.route.grace = millis(50));
    let setup = setup.fallback(&format!("http://{}/bowline/1", house.address())).unwrap();
    let client = Client::start(adapter, setup.identity("seven").epoch(3));
    assert_eq!(outcome(&send(&client, "up", 1)), BY_HTTP);
    let hello = r#"{"type":"hello","v":1,"cid":"sensor-7","origin":"0000000009af","epoch":3,"resume":false,"tx":{"next":1,"una":1},"win":64,"max_life":1000,"order":true}"#;
    for _ in 0..2 {
        let said = post(house.address(), "/bowline/1/hello", &[], hello);
        assert_eq!(said.status, 200, "{}", said.body);
    }
    let next = send(&client, "up", 2);
    assert_eq!(outcome(&next), BY_HTTP);
    let numbers: Vec<_> = house.app.got().iter().map(|got| got.i).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(client.refusal(), None);
    client.stop();
}

fn who_is_refused_may_show_something_else(adapter: Adapter) {
    refused_and_let_in(adapter, true);
    refused_and_let_in(adapter, false);
}

fn refused_and_let_in(adapter: Adapter, websocket: bool) {
    let house = House::with(|setup| setup.enabled(websocket));
    let setup = plain(&house.url()).auth("no").unwrap();
    let grace = if websocket { LIMIT } else { millis(50) };
    let client = Client::start(adapter, setup.configure(|config| config.route.grace = grace));
    eventually("it is refused", || client.refusal() == Some(Refusal::Auth));
    assert_eq!(house.health().sessions, 0);
    let waits = send(&client, "up", 1);
    assert!(client.reauthenticate("yes"));
    let by = if websocket { BY_FRAME } else { BY_HTTP };
    assert_eq!((outcome(&waits), client.refusal()), (by, None));
    client.stop();
}

/// R9.
fn a_connection_shows_again_who_it_is(adapter: Adapter) {
    let (house, proxy, client) = through(adapter, |setup| setup);
    for i in 1..=20 {
        assert!(client.reauthenticate(format!("word {i}").as_str()));
        assert_eq!(outcome(&send(&client, "up", i)), BY_FRAME);
    }
    assert_eq!(downs(&client), 0);
    proxy.set(Fault::Reset);
    eventually("the newest token is its own", || resumed(&client) == 1);
    assert!(client.reauthenticate("no"));
    eventually("it is refused", || client.refusal() == Some(Refusal::Auth));
    eventually("its connection ends", || {
        client.count(|event| matches!(event, Event::Down { reason: Reason::Closed(1008), .. })) > 0
    });
    assert!(client.reauthenticate("yes"));
    eventually("it goes on", || resumed(&client) >= 2);
    assert_eq!((outcome(&send(&client, "up", 21)), begun_anew(&client)), (BY_FRAME, 0));
    assert_eq!(house.app.numbers(), (1..=21).collect::<Vec<_>>());
    client.stop();
}

/// R8: no ping-pong.
fn the_newer_of_two_clients_of_one_name_stays(adapter: Adapter) {
    let house = House::start();
    let old = Client::start(adapter, plain(&house.url()).identity("one").epoch(1));
    up(&old);
    let new = Client::start(adapter, plain(&house.url()).identity("other").epoch(1));
    up(&new);
    eventually("the older has failed", || old.status().state == State::Failed);
    eventually("it is told", || {
        old.count(|event| matches!(event, Event::Down { reason: Reason::Closed(4003), .. })) == 1
    });
    for i in 1..=20 {
        assert_eq!(outcome(&send(&new, "up", i)), BY_FRAME);
    }
    let stats = house.hub.stats();
    assert_eq!((stats.admitted, stats.replaced, stats.wars), (2, 1, 0));
    assert_eq!((old.status().stats.attempts, downs(&new)), (1, 0));
    old.stop();
    new.stop();
}

/// U9, B2: it is told when to come back, and finds another hub there.
fn a_hub_goes_down_and_another_takes_its_place(adapter: Adapter) {
    let (house, proxy, client) = through(adapter, |setup| setup);
    let under_way = send(&client, "slow", 1);
    eventually("it is at the application", || house.app.count() == 1);
    let hub = house.hub.clone();
    let drained = begin("the drain", move || ::smol::block_on(hub.drain(millis(200), Duration::from_secs(2))));
    eventually("it goes down", || house.health().draining);
    house.app.open();
    assert_eq!(outcome(&under_way), BY_FRAME, "what is under way is finished");
    assert_eq!(drained.wait(), 0, "nothing is abandoned");
    eventually("it is told", || {
        client.count(|event| matches!(event, Event::Down { reason: Reason::Closed(1012), .. })) > 0
    });
    let (waits, house) = (send(&client, "up", 2), house.again());
    assert_eq!(outcome(&waits), BY_FRAME);
    assert_eq!(house.app.numbers(), [1, 2]);
    assert_eq!(reasons(&client), [(false, Some(ResumeRefusal::UnknownSession))]);
    drop(proxy);
    client.stop();
}

/// P1, B8: nothing is lost, and it looks again.
fn a_hub_without_native_peers_is_waited_for(adapter: Adapter) {
    let without = bowline_smol::hub::HubSetup::village("127.0.0.1:0").unwrap();
    let without = bowline_smol::hub::Hub::start(without.configure(house::unlimited)).unwrap();
    let address = without.address().to_string();
    let setup = plain(&format!("ws://{address}")).configure(|config| config.route.grace = millis(50));
    let client = Client::start(adapter, setup);
    let waits = send(&client, "up", 1);
    eventually("it is told", || {
        client.count(|event| matches!(event, Event::Down { reason: Reason::Status(404), .. })) > 1
    });
    assert!(![State::Up, State::Failed].contains(&client.status().state) && waits.try_settled().is_none());
    // On the path of another wire there is no native hub either.
    let other = Setup::client(&format!("ws://{address}/ws"), "other").unwrap().configure(quick).drain(DRAIN);
    let other = Client::start(adapter, other);
    eventually("it is told", || downs(&other) > 1);
    assert_ne!(other.status().state, State::Up);
    other.stop();
    begin("the hub is closed", move || ::smol::block_on(without.close())).wait();
    let house = House::at(&address, Application::new(), |setup| setup);
    assert!(matches!(outcome(&waits), Outcome::Delivered { .. }));
    assert_eq!(house.app.numbers(), [1]);
    client.stop();
}

/// Many come back to a hub that knows nobody: all messages end, none twice unless marked.
#[test]
fn many_clients_come_back_to_a_hub_that_knows_nobody() {
    limited(|| {
        const CLIENTS: usize = 300;
        const EACH: u64 = 8;
        let house = House::start();
        let url = house.url();
        let setup = |n: usize| Setup::client(&url, &format!("client-{n}")).unwrap().drain(DRAIN).configure(hasty);
        let clients: Vec<_> = (0..CLIENTS).map(|n| bowline_smol::Client::start(setup(n)).unwrap()).collect();
        let send = |from: u64, to: u64| -> Vec<Receipt> {
            let each = |client: &bowline_smol::Client| {
                (from..to).map(|i| client.try_send("up", json!({"i": i}).to_string()).unwrap()).collect::<Vec<_>>()
            };
            clients.iter().flat_map(each).collect()
        };
        let first = send(0, EACH / 2);
        eventually("half of them are there", || house.health().connections >= CLIENTS / 2);
        let house = house.again();
        let second = send(EACH / 2, EACH);
        for receipt in first.iter().chain(&second) {
            assert_eq!(outcome(receipt), BY_FRAME);
        }
        house.assert_all_once(CLIENTS as u64 * EACH);
        eventually("all are there", || house.health().connections == CLIENTS);
        let stopped = begin("all have ended", move || {
            ::smol::block_on(async {
                let closing: Vec<_> = clients.into_iter().map(|client| ::smol::spawn(client.close(DRAIN))).collect();
                for closed in closing {
                    assert_eq!(closed.await.backlog, 0);
                }
            });
        });
        stopped.wait_for(house::LONG);
        house.assert_idle();
        assert!(house.count(|event| matches!(event, hub::Event::War { .. })) == 0);
    });
}
