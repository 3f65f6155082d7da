//! Bowline for threads: one thread turns a session, every call of the application's may block.
//!
//! ```text
//! application ──▶ Node ──▶ session's thread: turn, then wait for socket, listener, time or a call
//!                            ├── a thread per attempt to connect        (10 s at most)
//!                            ├── a thread per request of ours           (10 s at most, 4 at once)
//!                            └── a thread per connection to our listener (64 at most)
//! ```
//!
//! A protocol of one's own is a [`Wire`] with a [`Setup::dialer`] or [`Setup::acceptor`]; all calls
//! are the same, and what came in is [`Message::content`].
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
pub use bowline::wire::{aivillage, native};
pub use bowline_transport::{
    Excerpt, Explanation, Gonka, Mail, Message, Native, News, NodeEvent, PathReport, Receipt, Refused, Reply,
    SendError, Settlement, Setup, SetupError, Status, Village,
};

#[cfg(feature = "bettensor")]
pub use bowline_transport::{Bettensor, Complaints, Hotkey, KeyError, Keypair, Settings};
#[cfg(feature = "tls")]
pub use bowline_transport::{Tls, TlsError};

use bowline::Policy;
use bowline::wire::native::{Refusal, Since};
use bowline_transport::Wire;
use bowline_transport::http::Bytes;
use core::borrow::Borrow;
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
pub struct Node<W: Wire = Gonka> {
    shared: Arc<bowline_transport::Node<W>>,
    address: Option<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

impl<W: Wire> Node<W> {
    /// Starts: listens, dials, as the setup says.
    ///
    /// # Errors
    /// A setting makes no sense, or the system refuses a socket or a thread.
    pub fn start(setup: Setup<W>) -> Result<Self, SetupError> {
        let (shared, address, thread) = turn::start(&setup)?;
        Ok(Self { shared, address, thread: Some(thread) })
    }

    /// Where it listens, if it does.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Accepts a message of this kind, waiting for room; its end comes with the receipt. Of Gonka's it is a batch, of a
    /// miner's the data of its own type, of a native client's any JSON, of a wire of one's own whatever that takes, as
    /// JSON.
    ///
    /// # Errors
    /// Why it can never be accepted, and the message.
    pub fn send(&self, kind: impl Borrow<W::Kind>, body: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.shared.send_blocking(kind.borrow(), body, Policy::DEFAULT)
    }

    /// Accepts a message with a life of its own, waiting for room.
    ///
    /// # Errors
    /// Why it can never be accepted, and the message.
    pub fn send_with(
        &self,
        kind: impl Borrow<W::Kind>,
        body: impl Into<Bytes>,
        policy: Policy,
    ) -> Result<Receipt, SendError> {
        self.shared.send_blocking(kind.borrow(), body, policy)
    }

    /// Accepts a message, or hands it back at once.
    ///
    /// # Errors
    /// Why not, and the message.
    pub fn try_send(&self, kind: impl Borrow<W::Kind>, body: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.shared.try_send(kind.borrow(), body, Policy::DEFAULT)
    }

    /// The next message; `None`: the session has ended.
    #[must_use]
    pub fn receive(&self) -> Option<Message<W>> {
        self.shared.messages().recv_blocking().ok()
    }

    /// All messages, until the session ends. Several threads may take from it; each message goes to one of them.
    pub fn messages(&self) -> impl Iterator<Item = Message<W>> + Send + 'static {
        let messages = self.shared.messages().clone();
        core::iter::from_fn(move || messages.recv_blocking().ok())
    }

    /// What happens, until the session ends. If nobody reads, the oldest of 256 are dropped.
    pub fn events(&self) -> impl Iterator<Item = NodeEvent> + Send + 'static {
        let events = self.shared.events().clone();
        core::iter::from_fn(move || events.recv_blocking().ok())
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Tries now: a waiting attempt begins at once on either path, also after a failure, and what was learned is void. For a
    /// network that has changed, for new credentials, and for a user who does not want to wait.
    pub fn retry_now(&self) {
        self.shared.retry_now();
    }

    /// Tells the session whether the peer has data to send from now on, such as whether proof of compute runs at an ML node.
    /// If it has, a connection that brings no word of the peer's for the profile's limit (Gonka's API node: 60 s) is closed
    /// and dialled again; if it has not, an idle connection stays. Before the first call the first data of the session
    /// decides (rule L10). Profiles without such a limit ignore the call.
    pub fn expect_data(&self, yes: bool) {
        self.shared.expect_data(yes);
    }

    /// Begins to close, for a node that others hold too: accepts nothing more and finishes what is under way, for `drain` at
    /// most. Whoever waits for messages or events is told of the end.
    pub fn begin_close(&self, drain: Duration) {
        self.shared.close(drain);
    }

    /// Accepts nothing more, finishes what is under way for `drain` at most, closes, and says how it stood at the end.
    /// Messages that nobody has taken are given back.
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

/// A miner of Bettensor: the same session on that wire. See [`Setup::miner`].
///
/// ```no_run
/// use bowline_blocking::{Keypair, Miner, Setup};
///
/// let keys = Keypair::from_hotkey_file(&std::fs::read_to_string("hotkey")?)?;
/// let miner = Miner::start(Setup::miner("ws://validator:8091", keys)?)?;
/// let receipt = miner.predict(r#"{"prediction_id":"game-1_17","game_id":"game-1","home_score":3,"away_score":1}"#)?;
/// println!("{:?}, {:?}", receipt.wait().outcome, receipt.reply());
/// for update in miner.messages() {
///     println!("{}: {}", update.kind(), String::from_utf8_lossy(update.data()));
///     update.complete();
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(feature = "bettensor")]
pub type Miner = Node<Bettensor>;

#[cfg(feature = "bettensor")]
impl Node<Bettensor> {
    /// Accepts a prediction, waiting for room; its confirmation is its end, and its words are the receipt's
    /// [`reply`](Receipt::reply).
    ///
    /// # Errors
    /// Why it can never be accepted, and the data. It must be an object with a `prediction_id` that no prediction under
    /// way has.
    pub fn predict(&self, data: impl Into<Bytes>) -> Result<Receipt, SendError> {
        self.send("prediction", data)
    }

    /// What the validator found wrong with us: its `error` frames and refusals.
    #[must_use]
    pub fn complaints(&self) -> Complaints {
        self.shared.complaints()
    }
}

/// A viewer of AI Village: the same session on that wire. See [`Setup::viewer`].
///
/// ```no_run
/// use bowline_blocking::{Setup, Viewer};
///
/// let viewer = Viewer::start(Setup::viewer("ws://village:8000")?)?;
/// for message in viewer.messages() {
///     println!("{:?}", message.content().event());
///     message.complete();
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Viewer = Node<Village>;

/// A client of a native hub: numbered messages both ways, resumed after every cut, and topics. See [`Setup::client`].
///
/// ```no_run
/// use bowline_blocking::{Client, Mail, Setup};
///
/// let client = Client::start(Setup::client("ws://hub:9000", "sensor-7")?.topic("training.*", None)?)?;
/// let receipt = client.send("load", r#"{"percent":40}"#)?;
/// println!("{:?}", receipt.wait().outcome);
/// for message in client.messages() {
///     match message.content() {
///         Mail::Message { kind, data } => println!("{kind}: {}", String::from_utf8_lossy(data)),
///         Mail::Event { topic, kind, .. } => println!("{topic} has {kind}"),
///         Mail::Missed { topic, from, to } => println!("{topic}: {} to {to} are lost", from.offset),
///         Mail::Denied { topic } => println!("no {topic} for us"),
///     }
///     message.complete(); // of a message, the hub is told; of the rest nobody
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Client = Node<Native>;

impl Node<Native> {
    /// Subscribes to the topics of this filter, 1 to 64 bytes, from `since` on or from now on; also on every later
    /// connection, from where the last one ended. False: it is no filter, or there are 64 already.
    pub fn subscribe(&self, filter: &str, since: Option<Since>) -> bool {
        self.shared.subscribe(filter, since)
    }

    /// Ends this subscription. False: there is none.
    pub fn unsubscribe(&self, filter: &str) -> bool {
        self.shared.unsubscribe(filter)
    }

    /// Shows the hub this from now on, at once if there is a connection; at most 4 KiB. False: it is longer.
    pub fn reauthenticate(&self, auth: impl Into<String>) -> bool {
        self.shared.reauthenticate(auth)
    }

    /// Why the hub has refused us, if that was its last word.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.shared.refusal()
    }
}

impl<W: Wire> Drop for Node<W> {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.shared.dropped();
        }
    }
}
