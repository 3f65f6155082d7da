//! A protocol of one's own, both ends: a thermometer dials a gateway, the line is cut, and no reading is lost or stored
//! twice. The protocol is `wire.rs`.
//!
//! ```text
//! device ── R <id> 4 20.5 ──▶ relay, cut once ──▶ gateway ── stored ─▶ A <id> ──▶ device: delivered
//! ```
//!
//! `cargo run -p bowline-smol --example device`

mod wire;

use bowline::{BackoffConfig, Config, Event, Outcome};
use bowline_smol::{Node, Setup};
use core::error::Error;
use core::net::SocketAddr;
use core::time::Duration;
use smol::channel::{self, Receiver};
use smol::net::{TcpListener, TcpStream};
use smol::stream::StreamExt as _;
use smol::{future, io};
use wire::{Reading, Thermometer};

/// A line between device and gateway that breaks whenever it is told to.
async fn relay(line: TcpListener, gateway: SocketAddr, cuts: Receiver<()>) -> io::Result<()> {
    loop {
        let (device, _) = line.accept().await?;
        let gateway = TcpStream::connect(gateway).await?;
        let up = io::copy(device.clone(), gateway.clone());
        let down = io::copy(gateway, device);
        let cut = async { cuts.recv().await.map_err(io::Error::other).map(|()| 0) };
        // What ends first ends the other, and drops both sockets.
        let _ = future::or(cut, future::or(up, down)).await;
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut config = Config::DEFAULT;
    config.link.backoff = BackoffConfig::range(Duration::from_millis(50), Duration::from_millis(100));

    let gateway = Node::start(Setup::acceptor("127.0.0.1:0", config, Thermometer)?)?;
    let line = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/device", line.local_addr()?);
    let (cut, cuts) = channel::bounded(1);
    let _relay = smol::spawn(relay(line, gateway.address().ok_or("not listening")?, cuts));
    let device = Node::start(Setup::dialer(&url, config, Thermometer)?)?;
    let mut events = device.events();

    let readings: Vec<Reading> = (0..10).map(|n| Reading { sensor: 4, celsius: 20.0 + f64::from(n) / 4.0 }).collect();
    let mut receipts = Vec::new();
    for reading in &readings {
        receipts.push(device.send((), serde_json::to_vec(reading)?).await?);
    }

    // Three are stored, two are being stored while the line is cut; what the gateway says of them, the device cannot hear.
    let (mut stored, mut storing) = (Vec::new(), Vec::new());
    for n in 0..5 {
        let message = gateway.receive().await.ok_or("the gateway has ended")?;
        stored.push(message.content().clone());
        if n < 3 {
            message.complete();
        } else {
            storing.push(message);
        }
    }
    cut.send(()).await?;
    while !matches!(events.next().await.ok_or("the device has ended")?.event, Event::Down { .. }) {}
    for message in storing {
        message.complete();
    }
    while stored.len() < readings.len() {
        let message = gateway.receive().await.ok_or("the gateway has ended")?;
        stored.push(message.content().clone());
        message.complete();
    }
    for receipt in receipts {
        let outcome = receipt.settled().await.outcome;
        assert!(matches!(outcome, Outcome::Delivered { .. }), "{outcome:?}");
    }
    assert_eq!(stored, readings, "each once, in order");

    let sent = device.close(Duration::from_secs(1)).await.stats;
    let took = gateway.close(Duration::from_secs(1)).await.stats;
    assert_eq!((sent.accepted, took.delivered), (10, 10));
    println!("10 readings, {} frames, {} copies recognised, none lost", sent.frames, took.duplicates);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    smol::block_on(async {
        let late = async {
            smol::Timer::after(Duration::from_secs(30)).await;
            Err("nothing moves".into())
        };
        future::or(run(), late).await
    })
}
