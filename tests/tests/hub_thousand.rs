//! A thousand miners of ours and one hub over real sockets, and the hub is killed in the middle.

use bowline::hub::{Publish, Rate};
use bowline::{Outcome, Path};
use bowline_smol::hub::{Admission, Hotkey, Hub, HubSetup, Validator};
use bowline_smol::{Keypair, Miner, Settings, Setup};
use bowline_transport::hub::Message;
use core::net::SocketAddr;
use core::time::Duration;
use smol::Timer;
use smol::future::FutureExt as _;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

const MINERS: u32 = 1000;

/// For everything together; it takes a tenth of it.
const LIMIT: Duration = Duration::from_secs(120);

fn keys(n: u32) -> Keypair {
    Keypair::from_seed_hex(&format!("{:064x}", u64::from(n) + 1)).unwrap()
}

/// How often each prediction was handed to the application, over all lives of the hub.
type Ledger = Arc<Mutex<HashMap<String, u32>>>;

fn hub(address: &str, ledger: &Ledger) -> Hub<Validator> {
    let ledger = Arc::clone(ledger);
    let store = move |message: Message<Hotkey>| {
        let ledger = Arc::clone(&ledger);
        async move {
            let data: serde_json::Value = message.json().map_err(|_| "no JSON")?;
            let id = data["prediction_id"].as_str().ok_or("no id")?.to_owned();
            *ledger.lock().unwrap().entry(id).or_default() += 1;
            Ok::<_, &str>("stored")
        }
    };
    let setup = HubSetup::validator(address, keys(MINERS)).unwrap();
    let setup = setup.authorize(|_| Admission::accept()).on("prediction", store).configure(|config| {
        config.per_address_connections = 2 * MINERS;
        config.handshakes = Rate::UNLIMITED;
        config.per_address.handshakes = Rate::UNLIMITED;
        config.per_address.messages = Rate::UNLIMITED;
        config.reconnect_window = Duration::from_secs(2);
    });
    // The port of the hub before it may be busy for a moment.
    for _ in 0..100 {
        match Hub::start(setup.clone()) {
            Ok(hub) => return hub,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    panic!("the port stays busy");
}

fn miner(address: SocketAddr, n: u32) -> Miner {
    let settings = Settings { reconnect_base_interval: 1.0, ..Settings::default() };
    let setup = Setup::miner(&format!("ws://{address}/ws"), keys(n)).unwrap().settings(&settings).unwrap();
    Miner::start(setup.validator(keys(MINERS).hotkey())).unwrap()
}

async fn connected(hub: &Hub<Validator>) {
    while hub.health().connections < MINERS as usize {
        Timer::after(Duration::from_millis(20)).await;
    }
}

async fn all_predict(miners: &[Miner], round: u32) {
    let mut receipts = Vec::new();
    for (n, miner) in miners.iter().enumerate() {
        let data = format!(r#"{{"prediction_id":"{round}-{n}","home_score":1,"away_score":0}}"#);
        receipts.push(miner.predict(data).await.unwrap());
    }
    for receipt in receipts {
        let outcome = receipt.settled().await.outcome;
        assert!(matches!(outcome, Outcome::Delivered { path: Path::WebSocket | Path::Http }), "{outcome:?}");
    }
}

/// Faults 4 and 9: what was queued dies with the original's connection, and its miners come back together.
#[test]
fn u9_a_thousand_miners_survive_a_killed_hub() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let most = getrlimit(Resource::Nofile).maximum;
        let _ = setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most });
    }
    let ledger = Ledger::default();
    let all = async {
        let first = hub("127.0.0.1:0", &ledger);
        let address = first.address();
        let miners: Vec<Miner> = (0..MINERS).map(|n| miner(address, n)).collect();
        connected(&first).await;
        all_predict(&miners, 1).await;
        let sent = first.publish("game_update", r#"{"games":[]}"#, Publish::DEFAULT).unwrap();
        assert_eq!((sent.reached, sent.dropped), (MINERS, 0));

        // No drain, no word: the process is gone.
        drop(first);
        let second = hub(&address.to_string(), &ledger);
        all_predict(&miners, 2).await;
        connected(&second).await;
        all_predict(&miners, 3).await;

        let ledger = ledger.lock().unwrap();
        assert_eq!(ledger.len(), 3 * MINERS as usize, "nothing is lost");
        assert!(ledger.values().all(|times| *times == 1), "nothing is doubled");
        let health = second.health();
        assert_eq!((health.connections, health.sessions, health.held), (MINERS as usize, MINERS as usize, 0));
    };
    let late = async {
        Timer::after(LIMIT).await;
        panic!("it takes too long");
    };
    smol::block_on(all.or(late));
}
