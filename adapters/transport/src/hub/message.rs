//! What the application sees of a miner's message, and what it says to it.
//!
//! ```text
//!  handler(Message) ─▶ Ok(Confirmation) · Err(text) · panic        for the types that have one
//!  Delivery { Message } ─▶ confirm · reject · retry · dropped       for the others, if somebody reads them
//! ```

use super::Hub;
use crate::http::Bytes;
use crate::keys::Hotkey;
use bowline::hub::SessionId;
use bowline::{DeliveryId, Instant, MessageId};
use core::ops::Deref;
use core::pin::Pin;
use serde::Deserialize;
use std::borrow::Cow;
use std::sync::Weak;

/// What comes of a handler.
pub(super) type Work = Pin<Box<dyn Future<Output = Result<Confirmation, String>> + Send>>;

/// A miner's message.
///
/// ```
/// use bowline_transport::hub::Message;
/// use serde::Deserialize;
/// #[derive(Deserialize)]
/// struct Prediction { home_score: u32 }
/// fn home_score(message: &Message) -> Option<u32> {
///     message.json::<Prediction>().ok().map(|prediction| prediction.home_score)
/// }
/// # let _ = home_score;
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    pub(super) hotkey: Hotkey,
    pub(super) kind: Cow<'static, str>,
    pub(super) data: Bytes,
    pub(super) maybe_dup: bool,
}

impl Message {
    /// Who signed it.
    #[must_use]
    pub const fn hotkey(&self) -> Hotkey {
        self.hotkey
    }

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its data, a JSON object as it came.
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

/// What the confirmation of a message says.
///
/// ```
/// use bowline_transport::hub::Confirmation;
/// let confirmation = Confirmation::new("stored").miner_stats(r#"{"rank":0.5}"#);
/// assert_eq!(confirmation.message, "stored");
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Confirmation {
    /// For people.
    pub message: Cow<'static, str>,
    /// The miner's statistics, a JSON object; left out if it is no JSON that can be signed.
    pub miner_stats: Option<String>,
}

impl Confirmation {
    /// With these words.
    #[must_use]
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), miner_stats: None }
    }

    /// With statistics.
    #[must_use]
    pub fn miner_stats(mut self, json: impl Into<String>) -> Self {
        self.miner_stats = Some(json.into());
        self
    }
}

impl From<()> for Confirmation {
    fn from((): ()) -> Self {
        Self::new("Prediction received")
    }
}

impl From<&'static str> for Confirmation {
    fn from(message: &'static str) -> Self {
        Self::new(message)
    }
}

impl From<String> for Confirmation {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

/// Names a message at the application, until its end.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) session: SessionId,
    pub(super) delivery: DeliveryId,
    /// The id it is confirmed by, if it has one.
    pub(super) id: Option<(MessageId, Box<str>)>,
    pub(super) bytes: usize,
    pub(super) arrived: Instant,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Verdict {
    Confirmed(Confirmation),
    Rejected(String),
    Retry,
}

/// A message of a type that no handler was named for; it should end with [`confirm`](Self::confirm),
/// [`reject`](Self::reject) or [`retry`](Self::retry). Dropped without one of them it is given back, and comes again when
/// the miner sends it again.
///
/// ```
/// # use bowline_transport::hub::Delivery;
/// fn handle(delivery: Delivery) {
///     if delivery.kind() == "odds" {
///         delivery.confirm("noted");
///     } else {
///         delivery.reject("what is that?");
///     }
/// }
/// # let _ = handle;
/// ```
#[must_use = "a message that is dropped is given back"]
#[derive(Debug)]
pub struct Delivery {
    pub(super) message: Message,
    pub(super) ticket: Option<Ticket>,
    pub(super) hub: Weak<Hub>,
}

impl Delivery {
    /// Processed. False: it came too late.
    pub fn confirm(mut self, confirmation: impl Into<Confirmation>) -> bool {
        self.end(Verdict::Confirmed(confirmation.into()))
    }

    /// It can never be processed. False: it came too late.
    pub fn reject(mut self, why: impl Into<String>) -> bool {
        self.end(Verdict::Rejected(why.into()))
    }

    /// Not now. False: it came too late.
    pub fn retry(mut self) -> bool {
        self.end(Verdict::Retry)
    }

    fn end(&mut self, verdict: Verdict) -> bool {
        match (self.ticket.take(), self.hub.upgrade()) {
            (Some(ticket), Some(hub)) => hub.complete(vec![(ticket, verdict)]),
            _ => false,
        }
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.end(Verdict::Retry);
        }
    }
}
