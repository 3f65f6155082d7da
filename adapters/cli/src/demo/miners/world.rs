//! The miners, the proxies before the validator, and its hub, which ends and begins anew.
//!
//! ```text
//!  12 miners ─▶ proxy ─┐
//!  12 miners ─▶ proxy ─┼─▶ hub, on one port for its whole life and those after it ─▶ handler ─▶ ledger
//!  …                   │
//!  receivers ◀─────────┘ updates by HTTP, while too few are connected
//! ```
//!
//! Decided here: who is started in which order, and what a hub is told when it begins anew.

use super::super::director::Failure;
use super::super::scale::Scale;
use super::ledger::{Id, Ledger, id, name};
use bowline::{AckWait, SplitMix64};
use bowline_cli::proxy::{Fault, Proxy};
use bowline_smol::hub::{Admission, Event, Hub, HubSetup, HubStats, Publish, Rate, Sent, Target, Validator};
use bowline_smol::{Hotkey, Keypair, Miner, Settings, Setup, SetupError};
use bowline_transport::{Receipt, SendError};
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use serde::Deserialize;
use serde_json::json;
use smol::stream::{self, StreamExt as _};
use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Miners behind one proxy, which takes 64 connections: each has one, and up to four requests.
const BEHIND_ONE: usize = 12;

/// One prediction in so many is one that the validator says no to.
const BAD: u64 = 30;

/// What an operator who wants to see something within two minutes would set, in seconds.
const SETTINGS: Settings = Settings {
    enabled: true,
    heartbeat_interval: 5.0,
    connection_timeout: 12.0,
    reconnect_base_interval: 5.0,
    max_reconnect_interval: 15.0,
};

/// Something that a hub told, and when.
pub(super) type Told = (Instant, Event<Hotkey>);

/// Everything that runs.
pub(super) struct World {
    scale: Scale,
    seed: u64,
    validator: Keypair,
    address: SocketAddr,
    hub: Option<Hub<Validator>>,
    /// It is ending, on a thread of its own.
    ending: Option<JoinHandle<(u64, HubStats)>>,
    /// How many hubs there have been.
    pub(super) hubs: u32,
    /// Of the hubs that have ended.
    pub(super) before: Sums,
    proxies: Vec<Proxy>,
    miners: Vec<Miner>,
    receivers: Arc<BTreeMap<Hotkey, Target>>,
    ledger: Arc<Ledger>,
    tell: mpsc::Sender<Told>,
    /// What the hubs told.
    pub(super) told: mpsc::Receiver<Told>,
    start: Instant,
}

/// What is added up over the hubs.
#[derive(Clone, Copy, Default)]
pub(super) struct Sums {
    /// Copies that the application never saw.
    pub(super) duplicates: u64,
    /// Connections refused.
    pub(super) refused: u64,
    /// Broadcasts lost to slow readers.
    pub(super) lost: u64,
    /// Messages abandoned by a drain.
    pub(super) abandoned: u64,
}

impl Sums {
    fn add(&mut self, stats: &HubStats) {
        self.duplicates += stats.duplicates;
        self.refused += stats.refused;
        self.lost += stats.lost;
    }
}

#[derive(Deserialize)]
struct Prediction<'a> {
    prediction_id: &'a str,
    home_score: i64,
}

#[derive(Deserialize)]
struct Update {
    number: u64,
    /// Microseconds since the demo began.
    at: u64,
}

fn keys(rng: &mut SplitMix64) -> Result<Keypair, Failure> {
    let seed: String = (0..4).map(|_| format!("{:016x}", rng.next_u64())).collect();
    Keypair::from_seed_hex(&seed).map_err(|error| Failure::Other(error.to_string()))
}

impl World {
    /// Starts everything.
    pub(super) fn start(miners: usize, scale: Scale, seed: u64, ledger: &Arc<Ledger>) -> Result<Self, Failure> {
        let mut rng = SplitMix64::new(seed);
        let (tell, told) = mpsc::channel();
        let mut world = Self {
            scale,
            seed,
            validator: keys(&mut rng)?,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            hub: None,
            ending: None,
            hubs: 0,
            before: Sums::default(),
            proxies: Vec::new(),
            miners: Vec::new(),
            receivers: Arc::default(),
            ledger: Arc::clone(ledger),
            tell,
            told,
            start: Instant::now(),
        };
        for _ in 0..miners.div_ceil(BEHIND_ONE) {
            world.proxies.push(Proxy::start(world.address).map_err(SetupError::Io)?);
        }
        let mut receivers = BTreeMap::new();
        for number in 0..miners {
            let keys = keys(&mut rng)?;
            let hotkey = keys.hotkey();
            let Some(proxy) = world.proxies.get(number / BEHIND_ONE) else { break };
            let setup = Setup::miner(&proxy.addr().to_string(), keys)?
                .validator(world.validator.hotkey())
                .receiver("127.0.0.1:0")?
                .settings(&SETTINGS)?
                .configure(|config| {
                    // This validator confirms within a second: a black hole is to be found within its phase.
                    config.outbox.ack_wait = AckWait::Adaptive {
                        first: Duration::from_secs(3),
                        least: Duration::from_secs(3),
                        most: Duration::from_secs(60),
                    };
                    scale.apply(config);
                })
                .seed(rng.next_u64());
            let miner = Miner::start(setup)?;
            if let Some(address) = miner.address() {
                let target = Target::http(&format!("http://{address}"));
                receivers.insert(hotkey, target.map_err(|error| Failure::Other(error.to_string()))?);
            }
            listen(&miner, number, &world.ledger, world.start);
            world.miners.push(miner);
        }
        world.receivers = Arc::new(receivers);
        world.begin()?;
        Ok(world)
    }

    /// A hub begins, on the port of those before it.
    pub(super) fn begin(&mut self) -> Result<(), Failure> {
        let (scale, ledger, receivers) = (self.scale, Arc::clone(&self.ledger), Arc::clone(&self.receivers));
        let (number, seed) = (self.hubs + 1, self.seed);
        let setup = HubSetup::validator(&self.address.to_string(), self.validator.clone())?
            .authorize(move |hotkey| match receivers.get(&hotkey) {
                Some(receiver) => Admission::Accept { receiver: Some(receiver.clone()) },
                None => Admission::unregistered(),
            })
            .on("prediction", move |message| {
                let (ledger, marked) = (Arc::clone(&ledger), message.maybe_dup());
                async move {
                    let Prediction { prediction_id, home_score } = message.json().map_err(|error| error.to_string())?;
                    let id = id(prediction_id).ok_or("no id of this demo's")?;
                    ledger.handed(id, number, marked);
                    smol::Timer::after(scale.of(Duration::from_millis(20 + work(seed, id)))).await;
                    if home_score < 0 { Err("a score below zero".to_owned()) } else { Ok("stored") }
                }
            })
            .configure(|config| {
                scale.apply(&mut config.session);
                // It cannot know what the one before it has handed out, and says so.
                config.session.inbox.after_loss = number > 1;
                config.reconnect_window = scale.of(config.reconnect_window);
                // Everybody has one address here.
                config.per_address.handshakes = Rate { per_second: 2000, burst: 4000 };
                config.per_address.messages = Rate { per_second: 20_000, burst: 40_000 };
                config.per_address_connections = 8192;
            })
            .seed(seed.wrapping_add(u64::from(number)));
        let hub = Hub::start(setup)?;
        self.address = hub.address();
        hub.expect(Some(self.miners.len()));
        for (hotkey, receiver) in &*self.receivers {
            hub.adopt(*hotkey, Some(receiver.clone())).map_err(|error| Failure::Other(error.to_string()))?;
        }
        let (events, tell) = (hub.events(), self.tell.clone());
        let listen = move || {
            let _ = stream::block_on(events).try_for_each(|event| tell.send((Instant::now(), event)));
        };
        thread::Builder::new().name("demo events".into()).spawn(listen).map_err(SetupError::Io)?;
        for proxy in &self.proxies {
            proxy.set_upstream(self.address);
        }
        self.hub = Some(hub);
        self.hubs = number;
        Ok(())
    }

    /// The hub ends without a word: its connections are reset first.
    pub(super) fn kill(&mut self) {
        self.way(Fault::Refuse);
        if let Some(hub) = self.hub.take() {
            self.before.add(&hub.stats());
            smol::block_on(hub.close());
        }
    }

    /// The hub begins to go down in order.
    pub(super) fn drain(&mut self, window: Duration, limit: Duration) -> Result<(), Failure> {
        if let Some(hub) = self.hub.take() {
            let end = move || {
                smol::block_on(async {
                    let abandoned = hub.drain(window, limit).await;
                    let stats = hub.stats();
                    hub.close().await;
                    (abandoned, stats)
                })
            };
            self.ending = Some(thread::Builder::new().name("demo drain".into()).spawn(end).map_err(SetupError::Io)?);
        }
        Ok(())
    }

    /// Whether the hub has just ended.
    pub(super) fn drained(&mut self) -> bool {
        let Some(ending) = self.ending.take_if(|ending| ending.is_finished()) else { return false };
        let (abandoned, stats) = ending.join().unwrap_or_default();
        self.before.abandoned += abandoned;
        self.before.add(&stats);
        true
    }

    /// Whether there is a hub that has not begun to end.
    pub(super) const fn serves(&self) -> bool {
        self.hub.is_some()
    }

    /// How many miners are connected, as the hub sees it.
    pub(super) fn connected(&self) -> usize {
        self.hub.as_ref().map_or(0, |hub| hub.health().connections)
    }

    /// What the hubs have counted so far.
    pub(super) fn sums(&self) -> Sums {
        let mut sums = self.before;
        if let Some(hub) = &self.hub {
            sums.add(&hub.stats());
        }
        sums
    }

    /// Predictions that have not ended.
    pub(super) fn backlog(&self) -> usize {
        self.miners.iter().map(|miner| miner.status().backlog).sum()
    }

    /// Everybody's way becomes so.
    pub(super) fn way(&self, fault: Fault) {
        self.proxies.iter().for_each(|proxy| proxy.set(fault));
    }

    /// Of every four ways, one becomes so.
    pub(super) fn some(&self, fault: Fault) {
        self.proxies.iter().step_by(4).for_each(|proxy| proxy.set(fault));
    }

    /// A miner predicts.
    pub(super) fn predict(&self, id: Id) -> Option<Result<(Receipt, bool), SendError>> {
        let mut rng = SplitMix64::for_identity(self.seed, name(id).bytes().fold(0, |h, b| h * 31 + u64::from(b)));
        let bad = rng.up_to(BAD - 1) == 0;
        let home_score = if bad { -1 } else { i64::try_from(rng.up_to(5)).unwrap_or_default() };
        let data = json!({
            "prediction_id": name(id),
            "game_id": format!("game-{}", rng.up_to(9)),
            "home_score": home_score,
            "away_score": rng.up_to(5),
        });
        let miner = self.miners.get(id.0)?;
        Some(miner.try_send("prediction", data.to_string()).map(|receipt| (receipt, bad)))
    }

    /// An update for everybody.
    pub(super) fn publish(&self, number: u64) -> Option<Sent> {
        let at = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let game = |n: u64| json!({"game_id": format!("game-{n}"), "team_a": "Zürich", "team_b": "Bern", "odds": 1.5});
        let data = json!({"number": number, "at": at, "games": (0..10).map(game).collect::<Vec<_>>()});
        let how = Publish { snapshot: true, ..Publish::DEFAULT };
        self.hub.as_ref()?.publish("game_update", &data.to_string(), how).ok()
    }

    /// Ends everything; false: not in time.
    pub(super) fn end(mut self, drain: Duration) -> bool {
        let (tell, told) = mpsc::channel();
        let ending = thread::Builder::new().name("demo end".into()).spawn(move || {
            smol::block_on(async {
                for miner in &self.miners {
                    miner.begin_close(drain);
                }
                for miner in core::mem::take(&mut self.miners) {
                    miner.close(drain).await;
                }
                if let Some(hub) = self.hub.take() {
                    hub.close().await;
                }
            });
            if let Some(ending) = self.ending.take() {
                let _ = ending.join();
            }
            drop(self);
            let _ = tell.send(());
        });
        ending.is_ok() && told.recv_timeout(drain + ENDING).is_ok()
    }
}

/// For the end of everything, besides what the miners may take to finish.
const ENDING: Duration = Duration::from_secs(15);

/// How long the application takes for a prediction, besides 20 ms.
fn work(seed: u64, (miner, number): Id) -> u64 {
    SplitMix64::for_identity(seed, (miner as u64) << 32 | u64::from(number)).up_to(80)
}

/// Writes down the updates that a miner gets, until its session ends.
fn listen(miner: &Miner, number: usize, ledger: &Arc<Ledger>, start: Instant) {
    let (mut messages, ledger) = (miner.messages(), Arc::clone(ledger));
    let listen = async move {
        while let Some(message) = messages.next().await {
            if let Ok(update) = serde_json::from_slice::<Update>(message.data()) {
                let late = start.elapsed().saturating_sub(Duration::from_micros(update.at));
                ledger.updated(number, update.number, late);
            }
            message.complete();
        }
    };
    smol::spawn(listen).detach();
}
