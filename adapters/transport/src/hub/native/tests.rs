//! Native peers by HTTP, against a hub without sockets.

use super::*;
use crate::http::Callback;
use crate::hub::{HubSetup, Name, Refused, Village, Visit};
use bowline::Origin;
use bowline::hub::Publish;
use core::net::IpAddr;
use std::sync::Mutex;

fn village(native: impl Fn(Caller) -> Admission + Send + Sync + 'static) -> Arc<Hub<Village>> {
    let setup = HubSetup::village("127.0.0.1:0").unwrap().native(native);
    Hub::new(setup, |_| {}).unwrap()
}

fn visit() -> Visit {
    Visit::new(IpAddr::from([127, 0, 0, 1]))
}

fn greeting(origin: Origin) -> Greeting {
    Greeting { win: 64, ..Greeting::new(origin) }
}

fn hello(hub: &Hub<Village>, greeting: Greeting, ticket: Option<native::Ticket<'_>>) -> (u16, String) {
    let greeting = Greeting { resume: ticket.is_some(), ..greeting };
    let body = Frame::Hello(native::Hello { cid: "sensor-7".into(), ticket, auth: None, greeting }).encode();
    let asked = Callback { body: body.into(), path: native::HELLO, ..Callback::empty("hello") };
    let answer = smol::block_on(hub.request(&visit(), asked));
    let body = answer.body.map(|(_, body)| String::from_utf8(body.to_vec()).unwrap());
    (answer.status, body.unwrap_or_default())
}

fn ticket(welcome: &str) -> native::Ticket<'_> {
    match native::decode(welcome.as_bytes()) {
        Ok(Frame::Welcome(welcome)) => welcome.ticket,
        other => panic!("{other:?}"),
    }
}

#[test]
fn r9_whatever_welcomes_are_lost_the_client_has_a_token_that_counts() {
    let names = KeyedHash::new([7; 16]);
    let mut pass = Pass::new();
    let first = pass.token.clone();
    let of = |pass: &Pass| pass.ticket().token.into_owned();
    for _ in 0..3 {
        pass.rotate();
        assert!(pass.admits(&names, &first), "it was never told of another");
    }
    let second = of(&pass);
    assert!(pass.admits(&names, &second), "or of the one that is newest");
    assert!(!pass.admits(&names, &first), "once that is used, the first is worth nothing");
    assert!(!pass.admits(&names, "") && !pass.admits(&names, &second[1..]));
    pass.rotate();
    assert_ne!(of(&pass), second);
    // On a live connection it has come: the next one is new, too.
    let third = of(&pass);
    pass.arrived();
    pass.rotate();
    assert!(of(&pass) != third && pass.admits(&names, &third) && !pass.admits(&names, &second));
    assert!(pass.is_enough(&names, &third));
    pass.suspend();
    assert!(!pass.is_enough(&names, &third), "who was refused is heard again only when the application was asked");
    assert!(pass.admits(&names, &third));
    pass.rotate();
    assert!(pass.is_enough(&names, &third));
}

#[test]
fn r8_who_was_replaced_by_one_without_its_token_is_not_heard_by_http() {
    let hub = village(|_| Admission::accept());
    let (_, first) = hello(&hub, greeting(Origin::new(7, 1)), None);
    let poll = |welcome: &str| {
        let report = bowline::Report { base: Seq::FIRST, arrived: 0, done: 0, rejected: 0, win: 64 };
        let poll = native::Poll { report, una: Seq::FIRST, wait: Duration::ZERO };
        let asked = Callback {
            body: Frame::Poll(poll).encode().into(),
            path: native::POLL,
            bearer: Some(ticket(welcome).token.into_owned()),
            client: Some("sensor-7".into()),
            ..Callback::empty("poll")
        };
        smol::block_on(hub.request(&visit(), asked)).status
    };
    assert_eq!(poll(&first), 200);
    let (_, resumed) = hello(&hub, greeting(Origin::new(7, 1)), Some(ticket(&first)));
    assert_eq!((poll(&first), poll(&resumed)), (200, 200), "both are its own");
    let (_, other) = hello(&hub, greeting(Origin::new(8, 1)), None);
    assert_eq!((poll(&resumed), poll(&other)), (401, 200));
}

/// A request that says two numbers is no message, and neither of the two counts as arrived.
#[test]
fn h1_a_key_and_a_number_that_disagree_are_refused() {
    let hub = village(|_| Admission::accept());
    let messages = hub.messages();
    let origin = Origin::new(7, 1);
    let (_, welcome) = hello(&hub, greeting(origin), None);
    let token = ticket(&welcome).token.into_owned();
    let post = |seq: u64, key: Option<String>| {
        let seq = Seq::from_number(seq);
        let body = Frame::Data { seq, una: Seq::FIRST, kind: "load".into(), data: "[1]" }.encode();
        let asked = Callback {
            body: body.into(),
            path: native::MESSAGES,
            idempotency_key: key,
            bearer: Some(token.clone()),
            client: Some("sensor-7".into()),
            ..Callback::empty("messages")
        };
        // One that is taken waits for the application.
        smol::block_on(smol::future::poll_once(hub.request(&visit(), asked))).map(|answer| answer.status)
    };
    let id = |origin: Origin, seq: u64| Some(origin.message(Seq::from_number(seq)).to_string());
    assert_eq!(post(1, id(origin, 2)), Some(400));
    assert_eq!(post(2, id(origin, 1)), Some(400));
    assert_eq!(post(1, id(Origin::new(7, 2), 1)), Some(404), "another self of its");
    assert_eq!(post(1, id(Origin::new(8, 1), 1)), Some(404), "another client");
    for none in [None, Some("1".into()), Some(String::new())] {
        assert_eq!(post(1, none), Some(400));
    }
    assert!(messages.try_recv().is_err(), "nothing was handed over");
    assert_eq!(post(1, id(origin, 1)), None);
    assert!(messages.try_recv().is_ok());
}

#[test]
fn what_waits_for_its_turn_is_let_go_of_when_its_sender_begins_anew() {
    let hub = village(|_| Admission::accept());
    let _messages = hub.messages();
    let held = || hub.lock().held_bytes();
    for epoch in 1..=40 {
        let origin = Origin::new(7, epoch);
        let (status, welcome) = hello(&hub, greeting(origin), None);
        assert_eq!(status, 200, "{welcome}");
        let token = ticket(&welcome).token.into_owned();
        // The first is missing.
        for seq in 2..10 {
            let seq = Seq::from_number(seq);
            let body = Frame::Data { seq, una: Seq::FIRST, kind: "load".into(), data: "[1,2,3]" }.encode();
            let asked = Callback {
                body: body.into(),
                path: native::MESSAGES,
                idempotency_key: Some(origin.message(seq).to_string()),
                bearer: Some(token.clone()),
                client: Some("sensor-7".into()),
                ..Callback::empty("messages")
            };
            // Nobody waits for its answer.
            let answer = smol::block_on(smol::future::poll_once(hub.request(&visit(), asked)));
            assert_eq!(answer, None, "epoch {epoch}: it was taken, and waits");
        }
        assert!(held() > 0);
        assert_eq!(hub.lock().ahead(), 8, "of this epoch alone");
    }
    assert!(hub.dismiss("sensor-7".parse::<Name>().unwrap()));
    assert_eq!((held(), hub.lock().ahead()), (0, 0));
}

#[test]
fn u8_who_is_refused_by_http_again_and_again_is_not_asked_about_any_more() {
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let hub = village(move |_| {
        *count.lock().unwrap() += 1;
        Admission::Refuse("who is that?".into())
    });
    let statuses: Vec<_> = (0..100).map(|_| hello(&hub, greeting(Origin::new(7, 1)), None).0).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 403).count(), *asked.lock().unwrap());
    assert!(*asked.lock().unwrap() < 40, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429));
}

#[test]
fn u8_as_many_come_by_http_from_one_address_as_by_connections() {
    let hub = village(|_| Admission::accept());
    let come = |n: usize| {
        let cid = format!("sensor-{n}");
        let body = native::Hello { cid: cid.into(), ticket: None, auth: None, greeting: greeting(Origin::new(7, 1)) };
        let body = Frame::Hello(body).encode();
        let asked = Callback { body: body.into(), path: native::HELLO, ..Callback::empty("hello") };
        smol::block_on(hub.request(&visit(), asked)).status
    };
    let let_in = (0..2000).filter(|n| come(*n) == 200).count();
    assert!((256..1000).contains(&let_in), "{let_in} of one address");
    assert_eq!(hub.health().sessions, let_in);
}

#[test]
fn a_dismissal_that_comes_while_a_hello_is_decided_counts() {
    let known = Arc::new(Mutex::new(None::<Arc<Hub<Village>>>));
    let dismissing = Arc::clone(&known);
    let hub = village(move |caller| {
        if let Some(hub) = &*dismissing.lock().unwrap() {
            hub.dismiss(caller.cid.parse::<Name>().unwrap());
        }
        Admission::accept()
    });
    *known.lock().unwrap() = Some(Arc::clone(&hub));
    assert_eq!(hello(&hub, greeting(Origin::new(7, 1)), None).0, 403);
    assert_eq!(hub.health().sessions, 0);
    *known.lock().unwrap() = None;
    assert_eq!(hello(&hub, greeting(Origin::new(7, 1)), None).0, 200);
}

#[test]
fn a_native_peer_of_a_guests_name_has_a_session_of_its_own() {
    let hub = village(|_| Admission::accept());
    let name: Name = "sensor-7".parse().unwrap();
    hub.adopt(&name, None).unwrap();
    assert_eq!(hello(&hub, greeting(Origin::new(7, 1)), None).0, 200, "the other one is none of its");
    assert_eq!(hub.sessions().iter().filter(|session| session.peer == name).count(), 2);
    assert!(hub.dismiss(&name));
    assert_eq!(hub.health().sessions, 0, "both");
}

#[test]
fn what_some_peer_could_not_read_is_not_published() {
    let hub = village(|_| Admission::accept());
    let long = |bytes: usize| format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes));
    let too_large = Refused::Session(bowline::Refusal::TooLarge);
    for bytes in [FRAME, FRAME + 1, 4 * FRAME] {
        assert_eq!(hub.publish("custom", &long(bytes), Publish::DEFAULT), Err(too_large.clone()), "{bytes}");
        assert_eq!(hub.publish_topic("training", "custom", &long(bytes)), Err(too_large.clone()), "{bytes}");
    }
    assert!(hub.publish_topic("training", "custom", &long(FRAME - 1024)).is_ok());
    for data in ["{}\n,{}", "{nope"] {
        assert!(matches!(hub.publish("custom", data, Publish::DEFAULT), Err(Refused::Data(_))), "{data}");
    }
    let plain = Hub::new(HubSetup::village("127.0.0.1:0").unwrap(), |_| {}).unwrap();
    assert_eq!(plain.publish_topic("training", "custom", &long(4 * FRAME)), Err(too_large), "nor by a viewer");
    assert!(plain.publish_topic("training", "custom", &long(FRAME - 1024)).is_ok());
}

const FRAME: usize = native::FRAME_LIMIT;

#[test]
fn what_is_shown_anew_is_asked_about_one_at_a_time() {
    let mut reauth = Reauth::default();
    assert!(reauth.show("a".into()));
    assert_eq!(reauth.next().as_deref(), Some("a"));
    assert!(!reauth.show("b".into()) && !reauth.show("c".into()), "somebody asks already");
    assert_eq!(reauth.next().as_deref(), Some("c"), "the last counts");
    assert_eq!(reauth.next(), None);
    assert!(reauth.show("d".into()), "and nobody any more");
}
