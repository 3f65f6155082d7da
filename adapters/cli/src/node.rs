//! A node of either adapter.
//!
//! Decided here: nothing. smol's futures are waited for on the calling thread, so that callers are the same for both.

use bowline_smol::Kind;
use bowline_transport::NodeEvent;
use bowline_transport::http::Bytes;
use bowline_transport::{Bettensor, Complaints, Gonka, Message, Receipt, SendError, Setup, SetupError, Status, Wire};
use core::net::SocketAddr;
use core::time::Duration;
use smol::stream;

/// What turns a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Adapter {
    /// Tasks on smol's executor.
    Smol,
    /// Threads.
    Blocking,
}

impl Adapter {
    /// Its name, as the argument has it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Smol => "smol",
            Self::Blocking => "blocking",
        }
    }
}

/// A running node.
#[derive(Debug)]
pub(crate) enum Node<W: Wire = Gonka> {
    /// Under smol.
    Smol(bowline_smol::Node<W>),
    /// On threads.
    Blocking(bowline_blocking::Node<W>),
}

impl<W: Wire> Node<W> {
    /// Starts one.
    pub(crate) fn start(adapter: Adapter, setup: Setup<W>) -> Result<Self, SetupError> {
        Ok(match adapter {
            Adapter::Smol => Self::Smol(bowline_smol::Node::start(setup)?),
            Adapter::Blocking => Self::Blocking(bowline_blocking::Node::start(setup)?),
        })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Smol(node) => node.address(),
            Self::Blocking(node) => node.address(),
        }
    }

    /// Where it stands.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Smol(node) => node.status(),
            Self::Blocking(node) => node.status(),
        }
    }

    /// The batches that come in, for one of several threads.
    pub(crate) fn messages(&self) -> Box<dyn Iterator<Item = Message<W>> + Send> {
        match self {
            Self::Smol(node) => Box::new(stream::block_on(node.messages())),
            Self::Blocking(node) => Box::new(node.messages()),
        }
    }

    /// What happens, until the session ends.
    pub(crate) fn events(&self) -> Box<dyn Iterator<Item = NodeEvent> + Send> {
        match self {
            Self::Smol(node) => Box::new(stream::block_on(node.events())),
            Self::Blocking(node) => Box::new(node.events()),
        }
    }

    /// Whether the peer has data to send from now on.
    pub(crate) fn expect_data(&self, yes: bool) {
        match self {
            Self::Smol(node) => node.expect_data(yes),
            Self::Blocking(node) => node.expect_data(yes),
        }
    }

    /// Accepts nothing more and finishes what is under way, for so long at most.
    pub(crate) fn begin_close(&self, drain: Duration) {
        match self {
            Self::Smol(node) => node.begin_close(drain),
            Self::Blocking(node) => node.begin_close(drain),
        }
    }

    /// Finishes what is under way, for so long at most, and closes.
    pub(crate) fn close(self, drain: Duration) -> Status {
        match self {
            Self::Smol(node) => smol::block_on(node.close(drain)),
            Self::Blocking(node) => node.close(drain),
        }
    }
}

impl Node {
    /// Accepts a batch, or hands it back.
    pub(crate) fn try_send(&self, kind: Kind, json: &str) -> Result<Receipt, SendError> {
        match self {
            Self::Smol(node) => node.try_send(kind, json.to_owned()),
            Self::Blocking(node) => node.try_send(kind, json.to_owned()),
        }
    }

    /// Accepts a batch, waiting for room.
    pub(crate) fn send(&self, kind: Kind, json: impl Into<Bytes>) -> Result<Receipt, SendError> {
        match self {
            Self::Smol(node) => smol::block_on(node.send(kind, json)),
            Self::Blocking(node) => node.send(kind, json),
        }
    }
}

impl Node<Bettensor> {
    /// Accepts a message of this type, waiting for room.
    pub(crate) fn send(&self, kind: &str, json: impl Into<Bytes>) -> Result<Receipt, SendError> {
        match self {
            Self::Smol(node) => smol::block_on(node.send(kind, json)),
            Self::Blocking(node) => node.send(kind, json),
        }
    }

    /// What the validator found wrong with us.
    pub(crate) fn complaints(&self) -> Complaints {
        match self {
            Self::Smol(node) => node.complaints(),
            Self::Blocking(node) => node.complaints(),
        }
    }
}
