//! The two nodes, the two proxies between them, and the application that receives.
//!
//! ```text
//!  ML node ◀── WebSocket proxy ◀── API node dials        API node ─▶ four workers ─▶ ledger
//!     └─ POST ─▶ callback proxy ─▶ API node's callbacks
//! ```
//!
//! Decided here: who is started and ended in which order, and that none of it takes longer than it may.

use super::Args;
use super::batches::{self, Batches};
use super::ledger::Ledger;
use super::scale::Scale;
use crate::node::Node;
use bowline::{Event, Path};
use bowline_cli::proxy::Proxy;
use bowline_transport::{Message, Setup, SetupError, Status};
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Batches that the application works on at once.
const WORKERS: usize = 4;

/// For the end of both nodes and of the application, besides what they may take to finish.
const ENDING: Duration = Duration::from_secs(10);

/// For the first connection. Without one the demo begins all the same.
const SETTLING: Duration = Duration::from_secs(2);

/// Which node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    /// The sender.
    MlNode,
    /// The receiver.
    ApiNode,
}

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct World {
    /// The sender.
    pub(crate) ml_node: Node,
    /// The receiver.
    pub(crate) api_node: Node,
    /// Before the sender's WebSocket.
    pub(crate) websocket: Proxy,
    /// Before the receiver's callbacks.
    pub(crate) callbacks: Proxy,
    /// What both nodes tell.
    pub(crate) events: mpsc::Receiver<(Who, Event)>,
    workers: Vec<JoinHandle<()>>,
}

/// How the nodes stood at the end.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// The sender.
    pub(crate) ml_node: Status,
    /// The receiver.
    pub(crate) api_node: Status,
    /// Everything ended in time.
    pub(crate) in_time: bool,
}

impl World {
    /// Starts everything.
    pub(crate) fn start(args: &Args, batches: &Arc<Batches>, ledger: &Arc<Ledger>) -> Result<Self, SetupError> {
        let scale = args.time_scale;
        // Each node needs the other's address; the sender needs it only when it has something to post.
        let callbacks = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let ml_node = Setup::ml_node("127.0.0.1:0")?
            .fallback(&format!("http://{}/v1/poc-batches", callbacks.addr()))?
            .configure(|config| scale.apply(config))
            .identity("demo ML node")
            .seed(args.seed);
        let ml_node = Node::start(args.adapter(), ml_node)?;
        let websocket = Proxy::start(address(&ml_node)?)?;
        let api_node = Setup::api_node(&format!("ws://{}", websocket.addr()))?
            .callbacks("127.0.0.1:0")?
            .configure(|config| scale.apply(config))
            .identity("demo API node")
            .seed(args.seed);
        let api_node = Node::start(args.adapter(), api_node)?;
        callbacks.set_upstream(address(&api_node)?);

        let (tell, events) = mpsc::channel();
        for (who, node) in [(Who::MlNode, &ml_node), (Who::ApiNode, &api_node)] {
            let (told, tell) = (node.events(), tell.clone());
            // Ends with the session, or with whoever listens.
            thread::Builder::new()
                .name("demo events".into())
                .spawn(move || told.map(|told| (who, told.event)).try_for_each(|event| tell.send(event)))?;
        }
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            let (messages, batches, ledger) = (api_node.messages(), Arc::clone(batches), Arc::clone(ledger));
            workers.push(
                thread::Builder::new()
                    .name("demo worker".into())
                    .spawn(move || messages.for_each(|message| work(message, &batches, &ledger, scale)))?,
            );
        }
        let world = Self { ml_node, api_node, websocket, callbacks, events, workers };
        world.settle_in();
        Ok(world)
    }

    /// Waits a moment for the first connection, so that the first batch finds one.
    fn settle_in(&self) {
        let until = Instant::now() + SETTLING;
        while self.ml_node.status().path != Path::WebSocket && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        // What they told of that is old news; a moment later it has all come.
        while self.events.recv_timeout(Duration::from_millis(10)).is_ok() {}
    }

    /// Ends the sender, then the receiver, then the application, then the proxies.
    pub(crate) fn end(self, drain: Duration) -> Ended {
        let Self { ml_node, api_node, websocket, callbacks, events: _, workers } = self;
        let (mut ended_ml, mut ended_api) = (ml_node.status(), api_node.status());
        let (tell, told) = mpsc::channel();
        // On a thread of its own, as whatever may hang here must not keep the ledger from being shown.
        let ending = thread::Builder::new().name("demo end".into()).spawn(move || {
            let _ = tell.send((Who::MlNode, ml_node.close(drain)));
            let status = api_node.close(drain);
            for worker in workers {
                let _ = worker.join();
            }
            let _ = tell.send((Who::ApiNode, status));
        });
        let mut ends = 0;
        while ending.is_ok() && ends < 2 {
            let Ok((who, status)) = told.recv_timeout(drain + ENDING) else { break };
            match who {
                Who::MlNode => ended_ml = status,
                Who::ApiNode => ended_api = status,
            }
            ends += 1;
        }
        drop((websocket, callbacks));
        Ended { ml_node: ended_ml, api_node: ended_api, in_time: ends == 2 }
    }
}

fn address(node: &Node) -> io::Result<SocketAddr> {
    node.address().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// The application: looks at a batch, works on it, and says that it is done, or hands it back.
fn work(message: Message, batches: &Batches, ledger: &Ledger, scale: Scale) {
    let Some(height) = batches::height(message.json()) else {
        message.reject();
        return;
    };
    let as_sent = batches::number(height).is_some_and(|number| {
        let sent = batches.batch(number);
        sent.json.as_bytes() == &message.json()[..] && sent.kind == message.kind()
    });
    let first = ledger.delivered(height, message.maybe_dup(), as_sent);
    let work = batches.work(height);
    thread::sleep(scale.of(work.takes));
    if first && work.back && message.path() == Path::WebSocket {
        ledger.returned(height);
        message.retry(Duration::ZERO);
    } else {
        ledger.processed(height);
        message.complete();
    }
}
