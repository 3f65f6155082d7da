//! A hub with an application that keeps books, and Python's miners around it.
//!
//! Every hotkey with a seed of one repeated byte below 0x80 is registered. The application stores a prediction under its
//! id, rejects those whose id begins with "bad", and lets those wait whose id begins with "slow" until it is told to go on.
#![allow(dead_code, reason = "every test program uses a part")]

use crate::real::peer::{self, Peer};
use crate::real::{LIMIT, begin, eventually};
use bowline::Outcome;
use bowline_smol::hub::{Admission, Event, Hotkey, Hub, HubConfig, HubSetup, Keypair, Message, Receipt};
use core::net::SocketAddr;
use serde_json::{Value, json as value};
use smol::channel::{Receiver, Sender, bounded};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex};

/// The keys of this byte.
pub(crate) fn keys(byte: u8) -> Keypair {
    Keypair::from_seed_hex(&seed(byte)).unwrap()
}

/// The seed of this byte, as a peer is told it.
pub(crate) fn seed(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

static REGISTERED: LazyLock<BTreeSet<Hotkey>> = LazyLock::new(|| (0..0x80).map(|byte| keys(byte).hotkey()).collect());

/// What the application has stored: by id, how often it was handed over, not counting what was announced as perhaps known.
#[derive(Clone)]
pub(crate) struct Books {
    stored: Arc<Mutex<BTreeMap<String, (u32, Hotkey)>>>,
    /// Closed when the slow ones may end.
    wait: (Sender<()>, Receiver<()>),
}

impl Default for Books {
    fn default() -> Self {
        Self { stored: Arc::default(), wait: bounded(1) }
    }
}

impl Books {
    async fn keep(self, message: Message<Hotkey>) -> Result<String, String> {
        let data: Value = message.json().map_err(|_| "no object".to_owned())?;
        let id = data["prediction_id"].as_str().ok_or("no id")?.to_owned();
        if id.starts_with("bad") {
            return Err(format!("{id} is bad"));
        }
        if id.starts_with("slow") {
            let _ = self.wait.1.recv().await;
        }
        let mut stored = self.stored.lock().unwrap();
        let (times, _) = stored.entry(id.clone()).or_insert_with(|| (0, message.hotkey()));
        if *times == 0 || !message.maybe_dup() {
            *times += 1;
        }
        Ok(format!("{id} is stored"))
    }

    /// The slow ones may end.
    pub(crate) fn go_on(&self) {
        self.wait.0.close();
    }

    /// How many ids are stored.
    pub(crate) fn len(&self) -> usize {
        self.stored.lock().unwrap().len()
    }

    /// How often this one came.
    pub(crate) fn times(&self, id: &str) -> u32 {
        self.stored.lock().unwrap().get(id).map_or(0, |(times, _)| *times)
    }

    /// Whose it is.
    pub(crate) fn whose(&self, id: &str) -> Option<Hotkey> {
        self.stored.lock().unwrap().get(id).map(|(_, hotkey)| *hotkey)
    }

    #[track_caller]
    pub(crate) fn assert_once_each(&self) {
        let stored = self.stored.lock().unwrap();
        let twice: Vec<_> = stored.iter().filter(|(_, (times, _))| *times != 1).collect();
        assert!(twice.is_empty(), "handed over more than once: {twice:?}");
    }
}

/// The hub, what it told, and its application.
pub(crate) struct Validator {
    pub(crate) hub: Hub<bowline_smol::hub::Validator>,
    pub(crate) books: Books,
    pub(crate) events: Arc<Mutex<Vec<Event<Hotkey>>>>,
}

impl Validator {
    pub(crate) fn start(configure: impl FnOnce(&mut HubConfig)) -> Self {
        Self::at("127.0.0.1:0", Books::default(), configure)
    }

    /// On this address, with an application that has seen something before.
    pub(crate) fn at(address: &str, books: Books, configure: impl FnOnce(&mut HubConfig)) -> Self {
        let keeping = books.clone();
        let setup = HubSetup::validator(address, keys(0x0b))
            .unwrap()
            .authorize(
                |hotkey| {
                    if REGISTERED.contains(&hotkey) { Admission::accept() } else { Admission::unregistered() }
                },
            )
            .on("prediction", move |message| keeping.clone().keep(message))
            .configure(configure);
        let hub = Hub::start(setup).unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let (seen, stream) = (Arc::clone(&events), hub.events());
        begin("the end of events", move || {
            smol::stream::block_on(stream).for_each(|event| seen.lock().unwrap().push(event));
        });
        Self { hub, books, events }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.hub.address()
    }

    #[track_caller]
    pub(crate) fn until_event(&self, what: &str, wanted: impl Fn(&Event<Hotkey>) -> bool) {
        eventually(what, || self.events.lock().unwrap().iter().any(&wanted));
    }

    /// Ends it at once, as if the process were killed, but for the port being free.
    #[track_caller]
    pub(crate) fn kill(self) -> (SocketAddr, Books) {
        let address = self.address();
        let Self { hub, books, .. } = self;
        begin("the hub is closed", move || smol::block_on(hub.close())).wait();
        (address, books)
    }
}

/// How a message for one miner ended.
#[track_caller]
pub(crate) fn outcome(receipt: Receipt) -> Outcome {
    begin("a message ends", move || smol::block_on(receipt.settled()).outcome).wait()
}

/// Python's miners, in one process.
pub(crate) struct Miners(pub(crate) Peer);

impl Miners {
    /// `None`: there is no such Python.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        peer::signing_python("bettensor_miner.py", "commands").map(Self)
    }

    /// Tells one of them to do something.
    pub(crate) fn tell(&mut self, name: &str, deed: &str, how: Value) {
        let mut line = how;
        line["do"] = deed.into();
        line["as"] = name.into();
        self.0.tell(line);
    }

    /// One more of them, with the keys of this byte.
    pub(crate) fn add(&mut self, name: &str, at: SocketAddr, byte: u8, more: Value) {
        let mut how = more;
        how["port"] = at.port().into();
        how["seed"] = seed(byte).into();
        self.tell(name, "miner", how);
        assert_eq!(self.0.saw("ready")["address"], keys(byte).hotkey().to_string());
    }

    /// One more of them, which is let in.
    #[track_caller]
    pub(crate) fn add_connected(&mut self, name: &str, at: SocketAddr, byte: u8, more: Value) {
        self.add(name, at, byte, more);
        self.connect(name);
    }

    /// It is let in, by a welcome that Python verifies.
    #[track_caller]
    pub(crate) fn connect(&mut self, name: &str) -> Value {
        self.tell(name, "connect", value!({}));
        self.welcome(name)
    }

    #[track_caller]
    pub(crate) fn welcome(&mut self, name: &str) -> Value {
        let welcome = self.saw(name, "welcome");
        assert_eq!((&welcome["valid"], &welcome["text"]), (&value!(true), &value!(true)), "{welcome}");
        assert_eq!(welcome["frame"]["sender"], keys(0x0b).hotkey().to_string());
        welcome
    }

    /// The next thing of this name that this one saw.
    #[track_caller]
    pub(crate) fn saw(&mut self, name: &str, what: &str) -> Value {
        self.0.saw(&format!("{name}: {what}"))
    }

    /// How often this one has seen this so far.
    pub(crate) fn count(&mut self, name: &str, what: &str) -> usize {
        self.0.count(&format!("{name}: {what}"))
    }

    /// Everything that this one sent is confirmed, by somebody whom Python believes; the sum.
    #[track_caller]
    pub(crate) fn collect(&mut self, name: &str) -> Value {
        self.tell(name, "collect", value!({"seconds": LIMIT.as_secs() - 5}));
        let sum = self.saw(name, "collected");
        let faults: Vec<_> = ["invalid", "unsigned", "foreign", "unknown"].iter().map(|what| &sum[what]).collect();
        assert_eq!((&sum["missing"], faults), (&value!([]), vec![&value!(0); 4]), "{sum}");
        sum
    }

    /// So many predictions at once, all confirmed.
    #[track_caller]
    pub(crate) fn burst(&mut self, name: &str, n: u32, prefix: &str) -> Value {
        self.tell(name, "burst", value!({"n": n, "name": prefix}));
        self.collect(name)
    }
}
