//! A hub of ours with native peers, and an application that keeps what it gets.

use super::real::*;
use bowline::hub::Rate;
use bowline_smol::hub::{Admission, Event, Health, Hub, HubConfig, HubSetup, Name, Refused, Village};
use core::net::SocketAddr;
use core::time::Duration;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// What the application was given.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Got {
    pub(crate) peer: String,
    pub(crate) i: u64,
    pub(crate) maybe_dup: bool,
}

/// What outlives a hub.
#[derive(Clone)]
pub(crate) struct Application {
    got: Arc<Mutex<Vec<Got>>>,
    /// Closed when the slow ones may end.
    gate: (smol::channel::Sender<()>, smol::channel::Receiver<()>),
}

impl Application {
    pub(crate) fn new() -> Self {
        Self { got: Arc::default(), gate: smol::channel::bounded(1) }
    }

    fn keep(&self, message: &bowline_smol::hub::Message<Name>) {
        let i = message.json::<Value>().unwrap()["i"].as_u64().unwrap();
        let (peer, maybe_dup) = (message.peer().to_string(), message.maybe_dup());
        self.got.lock().unwrap().push(Got { peer, i, maybe_dup });
    }

    pub(crate) fn open(&self) {
        self.gate.0.close();
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.got.lock().unwrap().len() as u64
    }

    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.got.lock().unwrap().iter().map(|got| got.i).collect()
    }
}

pub(crate) struct House {
    pub(crate) hub: Arc<Hub<Village>>,
    pub(crate) app: Application,
    pub(crate) events: Arc<Mutex<Vec<Event<Name>>>>,
}

/// Nobody is limited, and whoever has to come back comes soon.
pub(crate) fn unlimited(config: &mut HubConfig) {
    for limits in [&mut config.per_address, &mut config.per_identity] {
        (limits.handshakes, limits.messages, limits.bytes) = (Rate::UNLIMITED, Rate::UNLIMITED, Rate::UNLIMITED);
    }
    config.handshakes = Rate::UNLIMITED;
    config.per_address_connections = 1000;
    config.reconnect_window = millis(100);
    config.topics.history = 1000;
}

impl House {
    pub(crate) fn start() -> Self {
        Self::with(|setup| setup)
    }

    pub(crate) fn with(change: impl FnOnce(HubSetup<Village>) -> HubSetup<Village>) -> Self {
        Self::at("127.0.0.1:0", Application::new(), change)
    }

    /// On this address, for an application that has seen something before.
    pub(crate) fn at(
        address: &str,
        app: Application,
        change: impl FnOnce(HubSetup<Village>) -> HubSetup<Village>,
    ) -> Self {
        let (up, slow) = (app.clone(), app.clone());
        let setup = HubSetup::village(address)
            .unwrap()
            .native(|caller| match caller.auth.as_deref() {
                Some("no") => Admission::Refuse("not you".into()),
                _ => Admission::accept(),
            })
            .configure(unlimited)
            .on("up", move |message| {
                up.keep(&message);
                async { Ok::<_, String>(()) }
            })
            .on("slow", move |message| {
                slow.keep(&message);
                let gate = slow.gate.1.clone();
                async move {
                    let _ = gate.recv().await;
                    Ok::<_, String>(())
                }
            })
            .on("reject", |_| async { Err::<(), _>("never at all") })
            .on("panic", |message| async move {
                assert!(message.data().is_empty(), "a handler that panics, on purpose");
                Ok::<_, String>(())
            });
        let hub = Arc::new(Hub::start(change(setup)).unwrap());
        let events = Arc::new(Mutex::new(Vec::new()));
        let (seen, all) = (Arc::clone(&events), smol::stream::block_on(hub.events()));
        begin("the end of events", move || all.for_each(|event| seen.lock().unwrap().push(event)));
        Self { hub, app, events }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.hub.address()
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address())
    }

    pub(crate) fn health(&self) -> Health {
        self.hub.health()
    }

    /// Sends so many, `from` first, waiting for room; on a thread of its own.
    pub(crate) fn begin_down(&self, peer: &str, numbers: core::ops::RangeInclusive<u64>) -> Running<()> {
        let (hub, peer): (_, Name) = (Arc::clone(&self.hub), peer.parse().unwrap());
        begin("all are accepted", move || {
            for i in numbers {
                let data = json!({"i": i}).to_string();
                eventually("room", || match hub.send(&peer, "down", &data) {
                    Ok(_) => true,
                    Err(Refused::Session(bowline::Refusal::Full)) => false,
                    Err(why) => panic!("{why}"),
                });
            }
        })
    }

    #[track_caller]
    pub(crate) fn until_event(&self, what: &str, wanted: impl Fn(&Event<Name>) -> bool) {
        eventually(what, || self.count(&wanted) > 0);
    }

    pub(crate) fn count(&self, is: impl Fn(&Event<Name>) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| is(event)).count()
    }

    /// Ends it at once, as if it were killed, but for the port being free. What its application had outlives it.
    #[track_caller]
    pub(crate) fn kill(self) -> (String, Application) {
        let (address, app) = (self.address().to_string(), self.app.clone());
        let Self { hub, .. } = self;
        let hub = Arc::into_inner(hub).expect("somebody still has this hub");
        begin("the hub is closed", move || smol::block_on(hub.close())).wait();
        (address, app)
    }

    /// Kills it, and starts one that remembers nothing in its place.
    #[track_caller]
    pub(crate) fn again(self) -> Self {
        let (address, app) = self.kill();
        Self::at(&address, app, |setup| setup)
    }

    /// Everybody has left, and nothing is held for anybody.
    #[track_caller]
    pub(crate) fn assert_idle(&self) {
        eventually("nobody is here", || {
            let Health { connections, pending, closing, backlog, held, .. } = self.health();
            (connections, pending, closing, backlog, held) == (0, 0, 0, 0, 0)
        });
    }

    /// All messages, each handed over once or marked as what may be a copy.
    #[track_caller]
    pub(crate) fn assert_all_once(&self, all: u64) {
        let got = self.app.got();
        let mut once = BTreeSet::new();
        for Got { peer, i, maybe_dup } in &got {
            assert!(once.insert((peer, i)) || *maybe_dup, "{peer}'s {i} came again: {got:?}");
        }
        assert_eq!(once.len() as u64, all);
    }
}

/// For how long a test waits for what takes many steps.
pub(crate) const LONG: Duration = Duration::from_secs(40);
