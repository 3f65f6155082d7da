//! Bowline for threads: one thread turns a session, every call of the application's may block.
//!
//! ```text
//! application ──▶ Node ──▶ session's thread: turn, then wait for socket, listener, time or a call
//!                            ├── a thread per attempt to connect        (10 s at most)
//!                            ├── a thread per request of ours           (10 s at most, 4 at once)
//!                            └── a thread per connection to our listener (64 at most)
//! ```
//!
//! With the feature `tls`, `wss://` and `https://` are encrypted, and `Setup::tls` says whom to trust and what to show.
//!
//! ```no_run
//! use bowline_blocking::{Kind, Node, Setup};
//! use std::time::Duration;
//!
//! // Gonka's sender: accepts its API node at /api/v1/pow/ws, posts when there is none.
//! let node = Node::start(Setup::ml_node("0.0.0.0:8080")?.fallback("http://api:9100/v1/poc-batches")?)?;
//! let receipt = node.send(Kind::Generated, r#"{"nonces":[3,13],"dist":[0.5,0.6],"node_id":3}"#)?;
//! println!("{:?}", receipt.wait());
//!
//! // Gonka's receiver: dials the ML node and serves the callbacks.
//! let api = Node::start(Setup::api_node("ws://ml:8080")?.callbacks("0.0.0.0:9100")?)?;
//! for batch in api.messages() {
//!     println!("{}", String::from_utf8_lossy(batch.json()));
//!     batch.complete(); // only now is it acknowledged
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod io;
mod turn;

pub use bowline::wire::gonka::Kind;
pub use bowline_transport::{Message, Receipt, Refused, SendError, Settlement, Setup, SetupError, Status};
#[cfg(feature = "tls")]
pub use bowline_transport::{Tls, TlsError};

use bowline::{Event, Policy};
use bowline_transport::http::Bytes;
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A session and the thread that turns it.
///
/// Dropped, it accepts nothing more and finishes in the background what it has accepted, for [`Setup::drain`] at most.
///
/// ```
/// use bowline::{Outcome, Path};
/// use bowline_blocking::{Kind, Node, Setup};
/// use core::time::Duration;
///
/// let ml_node = Node::start(Setup::ml_node("127.0.0.1:0")?)?;
/// let api_node = Node::start(Setup::api_node(&ml_node.address().unwrap().to_string())?)?;
///
/// let receipt = ml_node.send(Kind::Generated, r#"{"nonces":[3],"dist":[0.5],"node_id":3}"#)?;
/// let batch = api_node.receive().unwrap();
/// assert_eq!(&batch.json()[..], br#"{"nonces":[3],"dist":[0.5],"node_id":3}"#);
/// assert_eq!(receipt.try_settled(), None, "received is not done");
/// assert!(batch.complete());
/// assert_eq!(receipt.wait().outcome, Outcome::Delivered { path: Path::WebSocket });
///
/// let last = ml_node.close(Duration::from_secs(1));
/// assert_eq!((last.backlog, last.stats.delivered_websocket), (0, 1));
/// # drop(api_node);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Node {
    shared: Arc<bowline_transport::Node>,
    address: Option<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    /// Starts: listens, dials, as the setup says.
    ///
    /// # Errors
    /// A setting makes no sense, or the system refuses a socket or a thread.
    pub fn start(setup: Setup) -> Result<Self, SetupError> {
        let (shared, address, thread) = turn::start(&setup)?;
        Ok(Self { shared, address, thread: Some(thread) })
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
    pub fn send(&self, kind: Kind, json: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.shared.send_blocking(kind, json, Policy::DEFAULT)
    }

    /// Accepts a batch with a life of its own, waiting for room.
    ///
    /// # Errors
    /// Why it can never be accepted, and the batch.
    pub fn send_with(&self, kind: Kind, json: impl Into<Bytes>, policy: Policy) -> Result<Receipt, SendError> {
        self.shared.send_blocking(kind, json, policy)
    }

    /// Accepts a batch, or hands it back at once.
    ///
    /// # Errors
    /// Why not, and the batch.
    pub fn try_send(&self, kind: Kind, json: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.shared.try_send(kind, json, Policy::DEFAULT)
    }

    /// The next batch; `None`: the session has ended.
    #[must_use]
    pub fn receive(&self) -> Option<Message> {
        self.shared.messages().recv_blocking().ok()
    }

    /// All batches, until the session ends. Several threads may take from it; each batch goes to one of them.
    pub fn messages(&self) -> impl Iterator<Item = Message> + Send + 'static {
        let messages = self.shared.messages().clone();
        core::iter::from_fn(move || messages.recv_blocking().ok())
    }

    /// What happens, until the session ends. If nobody reads, the oldest of 256 are dropped.
    pub fn events(&self) -> impl Iterator<Item = Event> + Send + 'static {
        let events = self.shared.events().clone();
        core::iter::from_fn(move || events.recv_blocking().ok())
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
    /// Batches that nobody has taken are given back.
    #[must_use = "the status tells what was abandoned"]
    pub fn close(mut self, drain: Duration) -> Status {
        self.shared.close(drain);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; the status is what is known.
            let _ = thread.join();
        }
        self.shared.status()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.shared.dropped();
        }
    }
}
