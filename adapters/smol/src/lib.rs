//! Bowline under smol: a task turns a session, calls of the application's are futures.
//!
//! ```text
//! application ──▶ Node ──▶ session's task: turn, then race socket, time and calls
//!                            ├── a task per attempt to connect
//!                            ├── a task per request of ours           (4 at once)
//!                            └── a task for the listener, and one per connection to it (64 at most)
//! ```
//!
//! Every future of this crate may be dropped at any await: what was accepted stays accepted, and what was not taken
//! stays where it was.
//!
//! With the feature `tls`, `wss://` and `https://` are encrypted, and `Setup::tls` says whom to trust and what to show.
//!
//! ```no_run
//! use bowline_smol::{Kind, Node, Setup};
//!
//! smol::block_on(async {
//!     // Gonka's sender: accepts its API node at /api/v1/pow/ws, posts when there is none.
//!     let node = Node::start(Setup::ml_node("0.0.0.0:8080")?.fallback("http://api:9100/v1/poc-batches")?)?;
//!     let receipt = node.send(Kind::Generated, r#"{"nonces":[3,13],"dist":[0.5,0.6],"node_id":3}"#).await?;
//!     println!("{:?}", receipt.settled().await);
//!
//!     // Gonka's receiver: dials the ML node and serves the callbacks.
//!     let api = Node::start(Setup::api_node("ws://ml:8080")?.callbacks("0.0.0.0:9100")?)?;
//!     while let Some(batch) = api.receive().await {
//!         println!("{}", String::from_utf8_lossy(batch.json()));
//!         batch.complete(); // only now is it acknowledged
//!     }
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod io;
mod turn;

pub use bowline::wire::gonka::Kind;
pub use bowline_transport::{Message, Receipt, Refused, SendError, Settlement, Setup, SetupError, Status};
#[cfg(feature = "tls")]
pub use bowline_transport::{Tls, TlsError};

use bowline::{Event, Policy};
use bowline_transport::http::Bytes;
use core::net::SocketAddr;
use core::time::Duration;
use smol::Task;
use smol::stream::Stream;
use std::sync::Arc;

/// A session and the task that turns it, on smol's global executor.
///
/// Dropped, it accepts nothing more and finishes in the background what it has accepted, for [`Setup::drain`] at most.
///
/// ```
/// use bowline::{Outcome, Path};
/// use bowline_smol::{Kind, Node, Setup};
/// use core::time::Duration;
///
/// # smol::block_on(async {
/// let ml_node = Node::start(Setup::ml_node("127.0.0.1:0")?)?;
/// let api_node = Node::start(Setup::api_node(&ml_node.address().unwrap().to_string())?)?;
///
/// let receipt = ml_node.send(Kind::Generated, r#"{"nonces":[3],"dist":[0.5],"node_id":3}"#).await?;
/// let batch = api_node.receive().await.unwrap();
/// assert_eq!(&batch.json()[..], br#"{"nonces":[3],"dist":[0.5],"node_id":3}"#);
/// assert_eq!(receipt.try_settled(), None, "received is not done");
/// assert!(batch.complete());
/// assert_eq!(receipt.settled().await.outcome, Outcome::Delivered { path: Path::WebSocket });
///
/// let last = ml_node.close(Duration::from_secs(1)).await;
/// assert_eq!((last.backlog, last.stats.delivered_websocket), (0, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Node {
    shared: Arc<bowline_transport::Node>,
    address: Option<SocketAddr>,
    task: Option<Task<()>>,
}

impl Node {
    /// Starts: listens, dials, as the setup says.
    ///
    /// # Errors
    /// A setting makes no sense, or the system refuses a socket.
    pub fn start(setup: Setup) -> Result<Self, SetupError> {
        let (shared, address, task) = turn::start(&setup)?;
        Ok(Self { shared, address, task: Some(task) })
    }

    /// Where it listens, if it does.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Accepts a batch, waiting for room; its end comes with the receipt.
    ///
    /// # Errors
    /// Why it can never be accepted, and the batch.
    pub async fn send(&self, kind: Kind, json: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.shared.send(kind, json, Policy::DEFAULT).await
    }

    /// Accepts a batch with a life of its own, waiting for room.
    ///
    /// # Errors
    /// Why it can never be accepted, and the batch.
    pub async fn send_with(&self, kind: Kind, json: impl Into<Bytes>, policy: Policy) -> Result<Receipt, SendError> {
        self.shared.send(kind, json, policy).await
    }

    /// Accepts a batch, or hands it back at once.
    ///
    /// # Errors
    /// Why not, and the batch.
    pub fn try_send(&self, kind: Kind, json: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.shared.try_send(kind, json, Policy::DEFAULT)
    }

    /// The next batch; `None`: the session has ended.
    pub async fn receive(&self) -> Option<Message> {
        self.shared.messages().recv().await.ok()
    }

    /// All batches, until the session ends. Several tasks may take from it; each batch goes to one of them.
    pub fn messages(&self) -> impl Stream<Item = Message> + Send + Unpin + 'static {
        Box::pin(self.shared.messages().clone())
    }

    /// What happens, until the session ends. If nobody reads, the oldest of 256 are dropped.
    pub fn events(&self) -> impl Stream<Item = Event> + Send + Unpin + 'static {
        Box::pin(self.shared.events().clone())
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// The network changed: try again now.
    pub fn network_changed(&self) {
        self.shared.network_changed();
    }

    /// Begins to close, for a node that others hold too: accepts nothing more and finishes what is under way, for `drain` at
    /// most. Whoever waits for batches or events is told of the end.
    pub fn begin_close(&self, drain: Duration) {
        self.shared.close(drain);
    }

    /// Accepts nothing more, finishes what is under way for `drain` at most, closes, and says how it stood at the end.
    /// Batches that nobody has taken are given back. Cancelled, it goes on in the background.
    pub async fn close(mut self, drain: Duration) -> Status {
        self.shared.close(drain);
        if let Some(task) = self.task.take() {
            // Dropped while it waits, a task would be cancelled; this one finishes by itself.
            let done = Detach(Some(task));
            done.wait().await;
        }
        self.shared.status()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.shared.dropped();
            task.detach();
        }
    }
}

/// A task that goes on when whoever waits for it is cancelled.
struct Detach(Option<Task<()>>);

impl Detach {
    async fn wait(mut self) {
        if let Some(task) = &mut self.0 {
            task.await;
            self.0 = None;
        }
    }
}

impl Drop for Detach {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}
