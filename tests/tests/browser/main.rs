//! A page in a real browser follows the trainings of a hub of ours (the example `village`): it sees progress move, comes back
//! by its own means when it was cut off and when the hub was started anew, and misses nothing that history holds.
//!
//! ```text
//! Chromium ─ page.js ─▶ Proxy, which refuses when told ─▶ hub, and later another hub on the same port
//! ```
//!
//! Nothing is timed: a condition on the page is polled, with a limit.
#![cfg(target_os = "linux")]

mod chromium;
#[path = "../real/mod.rs"]
mod real;

use bowline::wire::aivillage::{Event, Json};
use bowline_cli::proxy::{Fault, Proxy};
use bowline_smol::hub::{Hub, HubSetup, Rate, Village};
use chromium::Chromium;
use core::net::SocketAddr;
use real::{LIMIT, eventually, limited, millis};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// So many events history holds here.
const HISTORY: u32 = 8;

fn hub(address: &str) -> Hub<Village> {
    let setup = HubSetup::village(address).unwrap().configure(|config| {
        config.topics.history = HISTORY;
        config.per_address.handshakes = Rate::UNLIMITED;
        config.session.heartbeat.interval = millis(200);
    });
    let setup =
        setup.page("/", "text/html; charset=utf-8", include_str!("../../../adapters/smol/examples/village/page.html"));
    let css = include_str!("../../../adapters/smol/examples/village/page.css");
    let setup = setup.unwrap().page("/page.css", "text/css; charset=utf-8", css);
    let js = include_str!("../../../adapters/smol/examples/village/page.js");
    Hub::start(setup.unwrap().page("/page.js", "text/javascript; charset=utf-8", js).unwrap()).unwrap()
}

/// The training in which everything happens.
const RUN: &str = "cognate-1";

fn started() -> Event<'static> {
    let parameters = Json::parse(r#"{"epochs":50}"#).unwrap();
    let model_type = Some("cognate".into());
    Event::TrainingStarted { session_id: RUN.into(), parameters, estimated_duration: Some(50.0), model_type }
}

fn step(n: u32) -> Event<'static> {
    Event::TrainingProgress {
        session_id: RUN.into(),
        progress: Some(f64::from(n) / 50.0),
        current_epoch: Some(n.into()),
        loss: Some(0.2 + 2.3 / f64::from(n)),
        metrics: Json::default(),
        estimated_time_remaining: Some(f64::from(50 - n)),
    }
}

fn publish(hub: &Hub<Village>, steps: impl IntoIterator<Item = u32>, reached: u32) {
    for n in steps {
        assert_eq!(hub.publish_event(&step(n)).unwrap().reached, reached, "step {n}");
    }
}

/// What the page was told of steps, in its order: epoch of the topic, offset, step.
fn steps(page: &mut Chromium) -> Vec<(u64, u64, u64)> {
    let told = page.value(
        "seen.events.filter(e => e.type === 'training_progress').map(e => [e.position.epoch, e.position.offset, e.data.current_epoch])",
    );
    serde_json::from_value(told).unwrap()
}

const SHOWN: &str = "document.querySelector('progress').value";

#[test]
fn a_page_sees_progress_comes_back_by_itself_and_misses_nothing_that_history_holds() {
    limited(|| {
        let first = hub("127.0.0.1:0");
        let address = first.address();
        let proxy = Proxy::start(address).unwrap();
        let Some(mut page) = Chromium::open(&format!("http://{}/?retry=20-60", proxy.addr())) else { return };
        page.until("seen.state", &json!("live"));

        // Progress moves: each step is seen on the bar before the next is published.
        first.publish_event(&started()).unwrap();
        for n in 1..=5 {
            publish(&first, [n], 1);
            page.until(SHOWN, &json!(2 * n));
        }
        // What a page need not know does it no harm.
        first.publish_topic("training", "training_paused", r#"{"by":["nobody"]}"#).unwrap();
        page.until("seen.unknown", &json!(1));
        page.until("seen.pings > 0", &json!(true));
        let before = steps(&mut page);
        let epoch = before[0].0;
        assert_eq!(before, (1..=5).map(|n| (epoch, n + 1, n)).collect::<Vec<_>>());

        // It is cut off: it comes back, and gets what it missed.
        let away = |page: &mut Chromium, hub: &Hub<Village>| {
            proxy.set(Fault::Refuse);
            page.until("seen.state === 'live'", &json!(false));
            eventually("the hub knows that it is gone", || hub.health().connections == 0);
        };
        away(&mut page, &first);
        publish(&first, 6..=10, 0);
        assert_eq!(page.value(SHOWN), json!(10));
        page.picture("browser-away.png", "light");
        proxy.set(Fault::Calm);
        page.until(SHOWN, &json!(20));
        page.until("seen.state", &json!("live"));
        assert_eq!(steps(&mut page)[5..], (6..=10).map(|n| (epoch, n + 2, n)).collect::<Vec<_>>());
        assert_eq!(page.value("[seen.gaps.length, seen.connections]"), json!([0, 2]));

        // The hub ends, and another begins on the same port: its history is its own, and that is told.
        smol::block_on(first.close());
        page.until("seen.state === 'live'", &json!(false));
        proxy.set(Fault::Refuse);
        let second = hub(&address.to_string());
        publish(&second, 11..=14, 0);
        proxy.set(Fault::Calm);
        page.until(SHOWN, &json!(28));
        let told = steps(&mut page);
        let anew = told[10].0;
        assert_ne!(anew, epoch);
        assert_eq!(told[10..], (11..=14).map(|n| (anew, n - 10, n)).collect::<Vec<_>>());
        let gap = json!({"topic": "training", "epoch": anew, "from": 1, "to": 0, "restarted": true});
        page.until("seen.gaps.filter(gap => gap.topic === 'training')", &json!([gap]));
        let words = page.value("document.getElementById('missed').innerText");
        assert!(words.as_str().unwrap().contains("started anew"), "{words}");

        // More than history holds: the page says how much is missing, and has the rest.
        page.until("seen.state", &json!("live"));
        away(&mut page, &second);
        publish(&second, 15..=34, 0);
        proxy.set(Fault::Calm);
        page.until(SHOWN, &json!(68));
        assert_eq!(steps(&mut page)[14..], (27..=34).map(|n| (anew, n - 10, n)).collect::<Vec<_>>());
        let gap = json!({"topic": "training", "epoch": anew, "from": 5, "to": 16, "restarted": false});
        assert_eq!(page.value("seen.gaps.at(-1)"), gap);
        assert_eq!(
            page.value("document.getElementById('missed').innerText"),
            json!("training: 12 events missed (5 to 16)")
        );
        page.until("seen.state", &json!("live"));
        page.picture("browser-light.png", "light");
        page.picture("browser-dark.png", "dark");

        // And it goes on to the end.
        publish(&second, 35..=50, 1);
        let results = Json::parse(r#"{"loss":0.246}"#).unwrap();
        let done = Event::TrainingCompleted {
            session_id: RUN.into(),
            results,
            model_path: Some("models/cognate-1.pt".into()),
            final_metrics: Json::default(),
        };
        second.publish_event(&done).unwrap();
        page.until("document.querySelector('.training').dataset.phase", &json!("completed"));
        assert_eq!(steps(&mut page)[22..], (35..=50).map(|n| (anew, n - 10, n)).collect::<Vec<_>>());
        page.picture("browser-done.png", "light");

        // Nothing twice, not even to be thrown away, and nothing went wrong on the page.
        assert_eq!(page.value("[seen.copies, seen.missed, seen.unknown, seen.errors]"), json!([0, 12, 1, []]));
        drop(page);
        smol::block_on(second.close());
    });
}

/// The head and the body of the answer to this request.
fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[test]
fn a_page_of_the_applications_is_served_as_it_is() {
    let hub = hub("127.0.0.1:0");
    let (head, body) = ask(hub.address(), "GET /?retry=1-2");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/html; charset=utf-8"), "{head}");
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    assert!(body.starts_with("<!doctype html>") && body.ends_with("</html>\n"));
    let (head, nothing) = ask(hub.address(), "HEAD /");
    assert!(head.starts_with("http/1.1 200") && head.contains(&format!("content-length: {}", body.len())), "{head}");
    assert_eq!(nothing, "");
    assert!(ask(hub.address(), "POST /page.js").0.starts_with("http/1.1 405"));
    assert!(ask(hub.address(), "GET /page.txt").0.starts_with("http/1.1 404"));
    assert!(ask(hub.address(), "GET /health").0.starts_with("http/1.1 200"), "the hub's own are still there");
    let health: Value = serde_json::from_str(&ask(hub.address(), "GET /stats").1).unwrap();
    assert_eq!(health["status"], "online");
}

#[test]
fn a_page_counts_as_a_request_of_its_address() {
    let setup = HubSetup::village("127.0.0.1:0").unwrap().page("/", "text/plain", "hello").unwrap();
    let few =
        |config: &mut bowline_smol::hub::HubConfig| config.per_address.messages = Rate { per_second: 1, burst: 3 };
    let hub = Hub::start(setup.configure(few)).unwrap();
    let refused = (0..20).map(|_| ask(hub.address(), "GET /").0).find(|head| !head.starts_with("http/1.1 200"));
    let refused = refused.expect("none of twenty");
    assert!(refused.starts_with("http/1.1 429") && refused.contains("retry-after"), "{refused}");
}

#[test]
fn a_page_takes_no_place_of_the_hubs_own() {
    let setup = HubSetup::village("127.0.0.1:0").unwrap().page("/ours", "text/plain", "").unwrap();
    let big = vec![0; (1 << 20) + 1];
    for path in [
        "/ws",
        "/ws/p2p-fog",
        "/health",
        "/bowline/1/socket",
        "/bowline/1/messages",
        "/ours",
        "",
        "ours",
        "/a b",
        "/a?b",
    ] {
        assert!(setup.clone().page(path, "text/plain", "").is_err(), "{path}");
    }
    assert!(setup.clone().page("/a", "", "").is_err() && setup.clone().page("/a", "text/plain\r\n", "").is_err());
    assert!(setup.clone().page("/a", "text/plain", big).is_err());
    assert!(setup.page("/a", "text/plain", "").is_ok());
}
