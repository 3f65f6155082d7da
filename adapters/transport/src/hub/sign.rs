//! What a hub says, signed: every frame with a timestamp, a nonce and a signature of its own.

use crate::keys::Keypair;
use bowline::wire::bettensor::{self, Kind, Stamp, Unsigned};
use bowline::wire::canonical::Uncanonical;
use core::time::Duration;
use std::borrow::Cow;
use tungstenite::Utf8Bytes;

pub(super) struct Signer {
    keys: Keypair,
    address: String,
    welcome: String,
}

impl Signer {
    pub(super) fn new(keys: Keypair, window: Duration) -> Self {
        let address = keys.hotkey().to_string();
        let window = window.as_secs();
        let welcome =
            format!(r#"{{"message":"Connection established","reconnect_window":{window},"status":"success"}}"#);
        Self { keys, address, welcome }
    }

    /// The validator's own name.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn message(&self, kind: &str, data: &str) -> Result<Utf8Bytes, Uncanonical> {
        self.signed(|stamp| Unsigned::message(stamp, &Kind::parse(Cow::Borrowed(kind)), data))
    }

    pub(super) fn welcome(&self) -> Utf8Bytes {
        self.signed(|stamp| Unsigned::message(stamp, &Kind::Welcome, &self.welcome)).unwrap_or_default()
    }

    /// Without the statistics if they cannot be signed.
    pub(super) fn confirmation(&self, id: &str, success: bool, message: &str, stats: Option<&str>) -> Utf8Bytes {
        let confirmation = |miner_stats| bettensor::Confirmation {
            prediction_id: id.into(),
            success,
            message: message.into(),
            miner_stats,
        };
        self.signed(|stamp| Unsigned::confirmation(stamp, &confirmation(stats)))
            .or_else(|_| self.signed(|stamp| Unsigned::confirmation(stamp, &confirmation(None))))
            .unwrap_or_default()
    }

    pub(super) fn heartbeat_ack(&self) -> Utf8Bytes {
        self.sign(Unsigned::heartbeat_ack)
    }

    pub(super) fn error(&self, message: &str) -> Utf8Bytes {
        self.sign(|stamp| Unsigned::error(stamp, message))
    }

    fn sign(&self, write: impl FnOnce(Stamp<'_>) -> Unsigned) -> Utf8Bytes {
        self.keys.seal(write).into()
    }

    fn signed(&self, write: impl FnOnce(Stamp<'_>) -> Result<Unsigned, Uncanonical>) -> Result<Utf8Bytes, Uncanonical> {
        self.keys.try_seal(write).map(Into::into)
    }
}
