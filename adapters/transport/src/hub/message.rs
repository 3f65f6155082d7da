//! What the application sees of a peer's message, and what it says to it.
//!
//! ```text
//!  handler(Message) ─▶ Ok(confirmation) · Err(text) · panic        for the types that have one
//!  Delivery { Message } ─▶ confirm · reject · retry · dropped       for the others, if somebody reads them
//! ```

use super::Hub;
use super::wire::HubWire;
use crate::http::Bytes;
use bowline::hub::SessionId;
use bowline::{ContentKey, DeliveryId, Instant, MessageId, Seq};
use core::ops::Deref;
use core::pin::Pin;
use core::time::Duration;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Weak;

/// What comes of a handler.
pub(super) type Work<C> = Pin<Box<dyn Future<Output = Result<C, String>> + Send>>;

/// A peer's message.
///
/// ```
/// use bowline_transport::hub::Message;
/// use serde::Deserialize;
/// #[derive(Deserialize)]
/// struct Prediction { home_score: u32 }
/// fn home_score<P>(message: &Message<P>) -> Option<u32> {
///     message.json::<Prediction>().ok().map(|prediction| prediction.home_score)
/// }
/// # let _ = home_score::<u32>;
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message<P> {
    pub(super) peer: P,
    pub(super) kind: Cow<'static, str>,
    pub(super) data: Bytes,
    pub(super) maybe_dup: bool,
}

impl<P> Message<P> {
    /// Whose it is.
    #[must_use]
    pub const fn peer(&self) -> &P {
        &self.peer
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its data, as it came.
    #[must_use]
    pub const fn data(&self) -> &Bytes {
        &self.data
    }

    /// Its data as a type of the application's.
    ///
    /// # Errors
    /// It is something else.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.data)
    }

    /// An earlier run of this hub may have handled it (rule S12).
    #[must_use]
    pub const fn maybe_dup(&self) -> bool {
        self.maybe_dup
    }
}

/// By what a message is confirmed.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) id: Box<str>,
    pub(super) content: ContentKey,
}

/// Names a message at the application, until its end.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) session: SessionId,
    pub(super) delivery: DeliveryId,
    /// The id under which the machine knows it, and by what it is confirmed, if it has an id.
    pub(super) id: Option<(MessageId, Name)>,
    /// Its number, if it has one.
    pub(super) seq: Option<Seq>,
    pub(super) bytes: u32,
    pub(super) arrived: Instant,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Verdict<C> {
    Confirmed(C),
    Rejected(String),
    Retry(Duration),
}

/// A message of a type that no handler was named for; it should end with [`confirm`](Self::confirm),
/// [`reject`](Self::reject) or [`retry`](Self::retry). Dropped without one of them it is given back, and comes again when
/// the peer sends it again.
///
/// ```
/// # use bowline_transport::hub::{Delivery, HubWire};
/// fn handle<W: HubWire<Confirmation = ()>>(delivery: Delivery<W>) {
///     if delivery.kind() == "odds" {
///         delivery.confirm(());
///     } else {
///         delivery.reject("what is that?");
///     }
/// }
/// ```
#[must_use = "a message that is dropped is given back"]
#[derive(Debug)]
pub struct Delivery<W: HubWire> {
    pub(super) message: Message<W::Peer>,
    pub(super) ticket: Option<Ticket>,
    pub(super) hub: Weak<Hub<W>>,
}

impl<W: HubWire> Delivery<W> {
    /// Processed. False: it came too late.
    pub fn confirm(mut self, confirmation: impl Into<W::Confirmation>) -> bool {
        self.end(Verdict::Confirmed(confirmation.into()))
    }

    /// It can never be processed. False: it came too late.
    pub fn reject(mut self, why: impl Into<String>) -> bool {
        self.end(Verdict::Rejected(why.into()))
    }

    /// Not now: it comes again when the peer sends it again, and not before this time has passed (rule S16). Zero is taken
    /// for a second. False: it came too late.
    pub fn retry(mut self, after: Duration) -> bool {
        self.end(Verdict::Retry(after))
    }

    fn end(&mut self, verdict: Verdict<W::Confirmation>) -> bool {
        match (self.ticket.take(), self.hub.upgrade()) {
            (Some(ticket), Some(hub)) => hub.end(ticket, verdict),
            _ => false,
        }
    }
}

impl<W: HubWire> Deref for Delivery<W> {
    type Target = Message<W::Peer>;

    fn deref(&self) -> &Message<W::Peer> {
        &self.message
    }
}

impl<W: HubWire> Drop for Delivery<W> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.end(Verdict::Retry(Duration::ZERO));
        }
    }
}
