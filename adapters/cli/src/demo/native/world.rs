//! The client, the hub, and the two proxies between them.
//!
//! ```text
//!  client ══ WebSocket ═▶ proxy ═▶ hub ─▶ handler ─▶ ledger
//!     │ └─── requests, polls ─▶ proxy ─▶ ┘
//!     └─▶ messages ─▶ ledger
//! ```
//!
//! Decided here: who is started and ended in which order, and that none of it takes longer than it may.

use super::super::director::Failure;
use super::super::scale::Scale;
use super::Way;
use super::ledger::Ledger;
use super::wire::Wire;
use bowline::{Path, Refusal};
use bowline_cli::proxy::Proxy;
use bowline_smol::hub::{self, Admission, Event, Hub, HubSetup, Name, Rate, Village};
use bowline_smol::{Client, Mail, Setup, SetupError};
use bowline_transport::{Refused, Settlement, Status};
use core::time::Duration;
use smol::stream::{self, StreamExt as _};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

/// Who the client is.
const CID: &str = "demo";

/// For the end of both, besides what they may take to finish.
const ENDING: Duration = Duration::from_secs(10);

/// For the first connection.
const SETTLING: Duration = Duration::from_secs(5);

/// A lost client may take so long until its first attempt to come back.
const RETURN: Duration = Duration::from_millis(500);

/// The longest delay between attempts while something seems to block WebSockets, and the longest time that a new one is
/// watched before traffic returns to it: with as many faults in a row as here they would be ten minutes and five.
const BLOCKED: Duration = Duration::from_secs(30);
const WATCHED: Duration = Duration::from_secs(10);

/// Something that one of both told.
#[derive(Debug)]
pub(super) enum Told {
    Client(bowline::Event),
    Hub(Event<Name>),
}

/// Everything that runs.
pub(super) struct World {
    pub(super) client: Client,
    hub: Hub<Village>,
    /// The client, as the hub knows it.
    name: Name,
    pub(super) websocket: Proxy,
    pub(super) http: Proxy,
    pub(super) told: mpsc::Receiver<Told>,
    ledger: Arc<Ledger>,
}

/// How it stood at the end.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) client: Status,
    pub(super) hub: hub::HubStats,
    /// Everything ended in time.
    pub(super) in_time: bool,
}

impl World {
    /// Starts everything.
    pub(super) fn start(scale: Scale, seed: u64, ledger: &Arc<Ledger>, wire: &Arc<Wire>) -> Result<Self, Failure> {
        let (tell, told) = mpsc::channel();
        let hub = Hub::start(hub_setup(scale, seed, ledger)?)?;
        let (events, telling) = (hub.events(), tell.clone());
        let listen = move || {
            let _ = stream::block_on(events).try_for_each(|event| telling.send(Told::Hub(event)));
        };
        thread::Builder::new().name("demo events".into()).spawn(listen).map_err(SetupError::Io)?;

        let proxy = |path| Proxy::tapped(hub.address(), Some(wire.tap(path))).map_err(SetupError::Io);
        let (websocket, http) = (proxy(Path::WebSocket)?, proxy(Path::Http)?);
        let client = Setup::client(&format!("ws://{}", websocket.addr()), CID)?
            .fallback(&format!("http://{}/bowline/1", http.addr()))?
            .configure(|config| {
                config.link.blocked = BLOCKED;
                config.route.stable_most = WATCHED;
                scale.apply(config);
            })
            .identity("demo client")
            .seed(seed);
        let client = Client::start(client)?;
        let events = client.events();
        let listen = move || {
            let _ = stream::block_on(events).try_for_each(|told| tell.send(Told::Client(told.event)));
        };
        thread::Builder::new().name("demo events".into()).spawn(listen).map_err(SetupError::Io)?;
        receive(&client, ledger);

        let name = connected(&told).ok_or_else(|| Failure::Other("the client did not connect".into()))?;
        Ok(Self { client, hub, name, websocket, http, told, ledger: Arc::clone(ledger) })
    }

    /// Sends this message; false: there is no room for it now.
    pub(super) fn send(&self, way: Way, number: u64) -> Result<bool, Failure> {
        let message = self.ledger.message(way, number);
        match way {
            Way::ToHub => match self.client.try_send("up", message) {
                Ok(receipt) => self.settle(way, number, async move { receipt.settled().await }),
                Err(error) if error.why == Refused::Session(Refusal::Full) => return Ok(false),
                Err(error) => return Err(Failure::Other(format!("a message was refused: {error}"))),
            },
            Way::ToClient => match self.hub.send(&self.name, "down", &message) {
                Ok(receipt) => self.settle(way, number, receipt.settled()),
                Err(hub::Refused::Session(Refusal::Full)) => return Ok(false),
                Err(error) => return Err(Failure::Other(format!("a message was refused: {error}"))),
            },
        }
        Ok(true)
    }

    /// Writes down that it was accepted, and its end when that comes.
    fn settle(&self, way: Way, number: u64, end: impl Future<Output = Settlement> + Send + 'static) {
        self.ledger.accepted(way);
        let ledger = Arc::clone(&self.ledger);
        smol::spawn(async move { ledger.settled(way, number, end.await) }).detach();
    }

    /// What the hub has counted so far.
    pub(super) fn hub(&self) -> hub::HubStats {
        self.hub.stats()
    }

    /// Ends the client, then the hub, then the proxies.
    pub(super) fn end(self, drain: Duration) -> Ended {
        let Self { client, hub, websocket, http, .. } = self;
        let before = (client.status(), hub.stats());
        let (tell, told) = mpsc::channel();
        // On a thread of its own, as whatever may hang here must not keep the ledger from being shown.
        let ending = thread::Builder::new().name("demo end".into()).spawn(move || {
            smol::block_on(async {
                let client = client.close(drain).await;
                let stats = hub.stats();
                hub.close().await;
                let _ = tell.send((client, stats));
            });
        });
        let ended = ending.ok().and_then(|_| told.recv_timeout(drain + ENDING).ok());
        drop((websocket, http));
        let in_time = ended.is_some();
        let (client, hub) = ended.unwrap_or(before);
        Ended { client, hub, in_time }
    }
}

fn hub_setup(scale: Scale, seed: u64, ledger: &Arc<Ledger>) -> Result<HubSetup<Village>, SetupError> {
    let ledger = Arc::clone(ledger);
    let setup = HubSetup::village("127.0.0.1:0")?
        .native(|caller| if caller.cid == CID { Admission::accept() } else { Admission::Refuse("a stranger".into()) })
        .on("up", move |message| {
            ledger.delivered(Way::ToHub, message.data(), message.maybe_dup());
            async { Ok::<_, String>(()) }
        })
        .configure(|config| {
            if let Some(native) = &mut config.native {
                scale.apply(native);
            }
            // There is nobody else whose return would have to be spread.
            config.reconnect_window = scale.of(RETURN);
            // One peer has all the traffic here, and comes back more often than anybody.
            for limits in [&mut config.per_address, &mut config.per_identity] {
                (limits.handshakes, limits.messages, limits.bytes) =
                    (Rate::UNLIMITED, Rate::UNLIMITED, Rate::UNLIMITED);
            }
        })
        .seed(seed);
    Ok(setup)
}

/// Takes what comes to the client, until its session ends.
fn receive(client: &Client, ledger: &Arc<Ledger>) {
    let (mut messages, ledger) = (client.messages(), Arc::clone(ledger));
    let receive = async move {
        while let Some(message) = messages.next().await {
            if let Mail::Message { data, .. } = message.content() {
                ledger.delivered(Way::ToClient, data, message.maybe_dup());
            }
            message.complete();
        }
    };
    smol::spawn(receive).detach();
}

/// Waits for the first connection: whose it is.
fn connected(told: &mpsc::Receiver<Told>) -> Option<Name> {
    let until = Instant::now() + SETTLING;
    loop {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())).ok()? {
            Told::Hub(Event::Connected { peer, .. }) => return Some(peer),
            Told::Hub(_) | Told::Client(_) => {}
        }
    }
}
