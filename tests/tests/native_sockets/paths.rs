//! What goes over which path, whatever is done to it on the way.

use super::*;
use bowline::Rejection;
use bowline_cli::proxy::{Direction, Fault};
use core::ops::RangeInclusive;
use core::time::Duration;
use real::ca::{self, Authority};
use std::sync::Arc;

with_both! {
    both_ways_through_every_fault,
    http_is_a_full_second_path_and_back,
    a_hub_without_websockets_is_lived_with,
    every_end_a_message_can_have,
    encrypted_on_both_paths,
}

/// Sends and receives on threads of their own.
struct Load {
    down: Running<()>,
    up: Running<Vec<Receipt>>,
    received: Running<()>,
}

impl Load {
    /// These numbers each way.
    fn begin(house: &House, client: &Arc<Client>, numbers: RangeInclusive<u64>) -> Self {
        let down = house.begin_down(NAME, numbers.clone());
        let sent = numbers.clone();
        let (sender, receiver) = (Arc::clone(client), Arc::clone(client));
        let up = begin("all are accepted", move || sent.map(|i| send(&sender, "up", i)).collect());
        let received = begin("all are received", move || numbers.for_each(|i| gets(&receiver, i)));
        Self { down, up, received }
    }

    #[track_caller]
    fn end(self) -> Vec<Outcome> {
        self.down.wait_for(house::LONG);
        self.received.wait_for(house::LONG);
        self.up.wait_for(house::LONG).iter().map(outcome).collect()
    }
}

/// S9, R1, R2, S6: in order, none lost, none doubled; after each cut no more than a window crosses again.
fn both_ways_through_every_fault(adapter: Adapter) {
    const ALL: u64 = 1200;
    const FAULTS: [Fault; 9] = [
        Fault::Reset,
        Fault::Silence(Direction::Both),
        Fault::Slow { bytes_per_second: 20_000 },
        Fault::Reset,
        Fault::Refuse,
        Fault::Silence(Direction::ToClient),
        Fault::Silence(Direction::ToServer),
        Fault::CloseEarly { code: 1001, reason: "" },
        Fault::Reset,
    ];
    let (house, proxy, client) = through(adapter, |setup| {
        setup.configure(|config| {
            config.route.http = false;
            config.heartbeat.interval = millis(200);
            config.heartbeat.dead = millis(600);
            config.heartbeat.probe = millis(600);
        })
    });
    let client = Arc::new(client);
    let load = Load::begin(&house, &client, 1..=ALL);
    let mut cuts = 0;
    for (n, fault) in FAULTS.into_iter().enumerate() {
        let (next, last) = ((n as u64 + 1) * 100, house.app.count());
        eventually("it goes on", || house.app.count() >= next.max(last + 20).min(ALL));
        let (before, again) = (downs(&client), resumed(&client));
        proxy.set(fault);
        if matches!(fault, Fault::Slow { .. }) {
            let count = house.app.count();
            eventually("it goes on, slowly", || house.app.count() >= (count + 20).min(ALL));
            proxy.set(Fault::Calm);
            continue;
        }
        cuts += 1;
        eventually("it notices", || downs(&client) > before);
        proxy.set(Fault::Calm);
        eventually("it is resumed", || resumed(&client) > again);
    }
    for end in load.end() {
        assert_eq!(end, BY_FRAME);
    }
    assert_eq!(house.app.numbers(), (1..=ALL).collect::<Vec<_>>());
    assert_eq!(begun_anew(&client), 0);
    eventually("all have ended", || house.health().backlog == 0);
    let links = client.status().stats.attempts;
    let copies = (house.hub.stats().duplicates, client.status().stats.duplicates);
    // A window for each connection there was, and one for whatever was cut without our doing.
    assert!(copies.0 <= 64 * links && copies.1 <= 64 * links, "{copies:?} copies, {links} connections");
    assert!(resumed(&client) >= cuts);
    assert_eq!(house.app.got().iter().filter(|got| got.maybe_dup).count(), 0);
    let last = Arc::into_inner(client).unwrap().stop();
    assert_eq!((last.backlog, last.held, last.stats.accepted), (0, 0, ALL));
    house.assert_idle();
}

/// A hub with a proxy for each path, and its client.
fn two_paths(adapter: Adapter, websocket: Fault) -> (House, Proxy, Client) {
    let house = House::start();
    let ws = Proxy::start(house.address()).unwrap();
    ws.set(websocket);
    let setup = plain(&format!("ws://{}", ws.addr()));
    let setup = setup.fallback(&format!("http://{}/bowline/1", house.address())).unwrap();
    let client = Client::start(adapter, setup.configure(|config| config.route.grace = millis(50)));
    (house, ws, client)
}

/// H1–H3, P3, P6: the first word by HTTP, then each path twice; the path changes while both ways are loaded.
fn http_is_a_full_second_path_and_back(adapter: Adapter) {
    const EACH: u64 = 120;
    let (house, ws, client) = two_paths(adapter, Fault::Refuse);
    let client = Arc::new(client);
    assert_eq!(outcome(&send(&client, "up", 0)), BY_HTTP);
    assert_eq!((house.health().connections, house.health().sessions), (0, 1));
    let settled = |path| {
        let (hub, client) = (house.hub.stats(), client.status().stats);
        match path {
            Path::Http => (hub.settled_http, client.delivered_http),
            Path::WebSocket => (hub.settled_websocket, client.delivered_websocket),
        }
    };
    let mut receipts = Vec::new();
    let mut received: Option<Running<()>> = None;
    for (n, path) in (0..).zip([Path::Http, Path::WebSocket, Path::Http, Path::WebSocket]) {
        ws.set(if path == Path::Http { Fault::Refuse } else { Fault::Calm });
        eventually("the path is used", || client.status().path == path);
        // One reads at a time.
        received.into_iter().for_each(|received| received.wait_for(house::LONG));
        let before = settled(path);
        let load = Load::begin(&house, &client, n * EACH + 1..=(n + 1) * EACH);
        eventually("it carries both ways", || {
            let now = settled(path);
            now.0 > before.0 && now.1 > before.1
        });
        // The next path begins in the middle of it.
        load.down.wait_for(house::LONG);
        receipts.extend(load.up.wait_for(house::LONG));
        received = Some(load.received);
    }
    received.into_iter().for_each(|received| received.wait_for(house::LONG));
    assert!(receipts.iter().all(|receipt| [BY_FRAME, BY_HTTP].contains(&outcome(receipt))));
    assert_eq!(house.app.numbers(), (0..=4 * EACH).collect::<Vec<_>>(), "in their order, none twice");
    assert_eq!(begun_anew(&client), 0);
    eventually("the hub's have ended", || house.health().backlog == 0);
    Arc::into_inner(client).unwrap().stop();
    house.assert_idle();
}

fn a_hub_without_websockets_is_lived_with(adapter: Adapter) {
    let house = House::with(|setup| setup.enabled(false));
    let setup = plain(&house.url()).configure(|config| config.route.grace = millis(50));
    let client = Arc::new(Client::start(adapter, setup));
    assert_eq!(outcome(&send(&client, "up", 1)), BY_HTTP);
    let down = house.begin_down(NAME, 1..=100);
    for i in 1..=100 {
        gets(&client, i);
    }
    down.wait();
    let more: Vec<_> = (2..=40).map(|i| send(&client, "up", i)).collect();
    let rejected = client.send("reject", &json!({}));
    assert!(more.iter().all(|receipt| outcome(receipt) == BY_HTTP));
    assert_eq!(outcome(&rejected), Outcome::Rejected(Rejection::ByPeer));
    // The marks of a poll may come before the words.
    assert!(rejected.reply().is_none_or(|reply| reply.message == "never at all"), "{:?}", rejected.reply());
    let mut numbers = house.app.numbers();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    // It is looked for all the same.
    eventually("it is told", || {
        client.count(|event| matches!(event, Event::Down { reason: bowline::Reason::Status(404), .. })) > 0
    });
    eventually("the hub's have ended", || house.health().backlog == 0);
    Arc::into_inner(client).unwrap().stop();
}

/// S8.
fn every_end_a_message_can_have(adapter: Adapter) {
    let (house, _proxy, client) = through(adapter, |setup| setup);
    let rejected = [("reject", "never at all"), ("panic", ""), ("nobody's", "")];
    let receipts: Vec<_> = rejected.iter().map(|(kind, _)| client.send(kind, &json!({}))).collect();
    for (receipt, (kind, words)) in receipts.iter().zip(rejected) {
        assert_eq!(outcome(receipt), Outcome::Rejected(Rejection::ByPeer), "{kind}");
        let reply = receipt.reply().unwrap();
        assert!(!reply.success && reply.message.contains(words) && !reply.message.is_empty(), "{kind}: {reply:?}");
    }
    assert_eq!(outcome(&send(&client, "up", 1)), BY_FRAME, "the others go on");
    // From now on somebody takes what has no handler.
    let mut deliveries = ::smol::stream::block_on(house.hub.messages());
    let given_back = client.send("nobody's", &json!([1]));
    for again in [false, true] {
        let mut delivery = None;
        let mut take = begin("a delivery", move || (deliveries.next(), deliveries)).wait();
        core::mem::swap(&mut delivery, &mut take.0);
        deliveries = take.1;
        let delivery = delivery.unwrap();
        assert_eq!((delivery.kind(), &delivery.data()[..], delivery.maybe_dup()), ("nobody's", &b"[1]"[..], false));
        assert!(if again { delivery.confirm(()) } else { delivery.retry(Duration::from_millis(1)) });
    }
    assert_eq!(outcome(&given_back), BY_FRAME);
    // And what the client may say to the hub.
    let receipt = house.hub.send(NAME.parse::<bowline_smol::hub::Name>().unwrap(), "down", "{}").unwrap();
    assert!(client.receive().reject());
    let ended = begin("its end", move || ::smol::block_on(receipt.settled())).wait();
    assert_eq!(ended.outcome, Outcome::Rejected(Rejection::ByPeer));
    let receipt = house.hub.send(NAME.parse::<bowline_smol::hub::Name>().unwrap(), "down", "{}").unwrap();
    assert!(client.receive().retry(millis(5)));
    assert!(client.receive().complete());
    let ended = begin("its end", move || ::smol::block_on(receipt.settled())).wait();
    assert_eq!(ended.outcome, BY_FRAME);
    client.stop();
}

fn encrypted_on_both_paths(adapter: Adapter) {
    let authority = Authority::new();
    let serves = ca::serve(ca::trust(&authority), &authority.here());
    let house = House::with(|setup| setup.tls(&serves).unwrap());
    let ws = Proxy::start(house.address()).unwrap();
    let setup = plain(&format!("wss://localhost:{}", ws.addr().port())).tls(&ca::trust(&authority)).unwrap();
    let setup = setup.fallback(&format!("https://localhost:{}/bowline/1", house.address().port())).unwrap();
    let client = Client::start(adapter, setup.configure(|config| config.route.grace = millis(50)));
    up(&client);
    assert_eq!(outcome(&send(&client, "up", 1)), BY_FRAME);
    ws.set(Fault::Refuse);
    eventually("HTTP is used", || client.status().path == Path::Http);
    assert_eq!(outcome(&send(&client, "up", 2)), BY_HTTP);
    let down = house.begin_down(NAME, 1..=1);
    gets(&client, 1);
    down.wait();
    assert_eq!((house.app.numbers(), begun_anew(&client)), (vec![1, 2], 0));
    client.stop();
    // Whoever trusts somebody else sends nothing.
    let stranger = Setup::client(&format!("wss://localhost:{}", house.address().port()), "stranger").unwrap();
    let stranger = stranger.tls(&ca::trust(&Authority::new())).unwrap().configure(quick).drain(DRAIN);
    let stranger = Client::start(adapter, stranger);
    eventually("it is refused", || downs(&stranger) > 0);
    assert!(!house.hub.sessions().iter().any(|session| session.peer.as_str() == "stranger"));
    stranger.stop();
}
