//! Who signs, and whether it was signed: sr25519 keys and their addresses, as Substrate and Bittensor use them.
//!
//! ```text
//! hotkey file, seed ──▶ Keypair ── sign(message) ──▶ 64 bytes ──▶ Hotkey::verify
//!                          └────── hotkey() ──▶ Hotkey ◀── SS58 ──▶ "5Grw…"
//! SS58: base58(format, 32 bytes of key, first 2 bytes of BLAKE2b-512("SS58PRE", format, key))
//! ```
//!
//! Invariants: a nonce is used once in a process; no secret is printed, and the library wipes it when it is dropped; no text costs more than its bounded
//! length; an address is read in every format of one byte and written in 42, so two addresses are one key or none.

use blake2::{Blake2b512, Digest as _};
use bowline::wire::bettensor::{Stamp, Unsigned};
use bowline::wire::timestamp::Timestamp;
use core::convert::Infallible;
use core::fmt;
use core::str::FromStr;
use core::sync::atomic::{AtomicU64, Ordering};
use schnorrkel::{ExpansionMode, MiniSecretKey, PublicKey, Signature};
use serde::Deserialize;
use std::borrow::Cow;
use std::time::SystemTime;

/// What every signature of Substrate is made for.
const CONTEXT: &[u8] = b"substrate";

/// Bittensor's format, that of every chain without one of its own.
const FORMAT: u8 = 42;

/// The largest format that is written in one byte.
const LAST_FORMAT: u8 = 63;

/// Format, key, checksum.
const ADDRESS: usize = 1 + 32 + 2;

/// No address is longer: 35 bytes take at most 48 digits.
const LONGEST_ADDRESS: usize = 48;

/// The longest hotkey file; a real one has half a kilobyte.
const LONGEST_FILE: usize = 16 * 1024;

/// The public key of a miner or validator.
///
/// ```
/// use bowline_transport::Hotkey;
/// let alice: Hotkey = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY".parse()?;
/// assert_eq!(alice.to_string(), "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
/// assert_eq!(alice, "15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5".parse()?, "the same key in another format");
/// assert!(!alice.verify(b"anything", &[0; 64]));
/// # Ok::<(), bowline_transport::KeyError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hotkey([u8; 32]);

impl Hotkey {
    /// A key from its bytes; one that is no point of the curve verifies nothing.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this key signed `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let (Ok(key), Ok(signature)) = (PublicKey::from_bytes(&self.0), Signature::from_bytes(signature)) else {
            return false;
        };
        key.verify_simple(CONTEXT, message, &signature).is_ok()
    }
}

impl FromStr for Hotkey {
    type Err = KeyError;

    fn from_str(address: &str) -> Result<Self, KeyError> {
        if address.len() > LONGEST_ADDRESS {
            return Err(KeyError::Address);
        }
        let mut bytes = [0; ADDRESS];
        let length = bs58::decode(address).onto(&mut bytes).map_err(|_| KeyError::Address)?;
        let [format, rest @ .., first, second] = bytes;
        if length != ADDRESS || format > LAST_FORMAT {
            return Err(KeyError::Address);
        }
        let key: [u8; 32] = rest;
        if checksum(format, &key) != [first, second] {
            return Err(KeyError::Checksum);
        }
        Ok(Self(key))
    }
}

impl fmt::Display for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; ADDRESS];
        let (format, rest) = bytes.split_at_mut(1);
        let (key, check) = rest.split_at_mut(32);
        format.copy_from_slice(&[FORMAT]);
        key.copy_from_slice(&self.0);
        check.copy_from_slice(&checksum(FORMAT, &self.0));
        let mut text = [0; LONGEST_ADDRESS];
        let length = bs58::encode(bytes).onto(&mut text[..]).map_err(|_| fmt::Error)?;
        f.pad(text.get(..length).and_then(|text| core::str::from_utf8(text).ok()).ok_or(fmt::Error)?)
    }
}

impl fmt::Debug for Hotkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hotkey({self})")
    }
}

fn checksum(format: u8, key: &[u8; 32]) -> [u8; 2] {
    let digest = Blake2b512::new().chain_update(b"SS58PRE").chain_update([format]).chain_update(key).finalize();
    let mut first = digest.iter().copied();
    [first.next().unwrap_or_default(), first.next().unwrap_or_default()]
}

/// A hotkey that can sign.
///
/// ```
/// use bowline_transport::Keypair;
/// let keys = Keypair::from_seed_hex("0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a")?;
/// assert_eq!(keys.hotkey().to_string(), "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
/// let signature = keys.sign(b"a prediction");
/// assert!(keys.hotkey().verify(b"a prediction", &signature));
/// assert_eq!(format!("{keys:?}"), "Keypair(5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY)");
/// # Ok::<(), bowline_transport::KeyError>(())
/// ```
#[derive(Clone)]
pub struct Keypair {
    keys: schnorrkel::Keypair,
    /// Of the public half; it is in every frame.
    address: String,
}

impl Keypair {
    /// The keys that grow from a seed of 32 bytes, in 64 hexadecimal digits, with `0x` before them or without.
    ///
    /// # Errors
    /// It is no seed.
    pub fn from_seed_hex(seed: &str) -> Result<Self, KeyError> {
        let digits = seed.strip_prefix("0x").unwrap_or(seed);
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(KeyError::Seed);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            let pair = core::str::from_utf8(pair).map_err(|_| KeyError::Seed)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| KeyError::Seed)?;
        }
        let seed = MiniSecretKey::from_bytes(&bytes).map_err(|_| KeyError::Seed)?;
        let keys = seed.expand_to_keypair(ExpansionMode::Ed25519);
        let address = Hotkey(keys.public.to_bytes()).to_string();
        Ok(Self { keys, address })
    }

    /// The keys in the text of an unencrypted hotkey file, as Bittensor keeps it under `wallets/…/hotkeys/…`: a JSON
    /// object with `secretSeed`; if it has `ss58Address`, too, the two must fit.
    ///
    /// ```
    /// use bowline_transport::{KeyError, Keypair};
    /// let file = r#"{"secretSeed": "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a",
    ///     "ss58Address": "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"}"#;
    /// assert!(Keypair::from_hotkey_file(file).is_ok());
    /// let of_bob = file.replace("5Grw", "5Bob");
    /// assert_eq!(Keypair::from_hotkey_file(&of_bob).unwrap_err(), KeyError::Checksum);
    /// ```
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_hotkey_file(text: &str) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct File<'a> {
            #[serde(borrow)]
            secret_seed: Option<Cow<'a, str>>,
            #[serde(borrow)]
            ss58_address: Option<Cow<'a, str>>,
        }
        if text.len() > LONGEST_FILE {
            return Err(KeyError::File);
        }
        // The library's word could quote what is in the file.
        let file: File<'_> = serde_json::from_str(text).map_err(|_| KeyError::File)?;
        let keys = Self::from_seed_hex(&file.secret_seed.ok_or(KeyError::Seed)?)?;
        match file.ss58_address {
            Some(address) if address.parse::<Hotkey>()? != keys.hotkey() => Err(KeyError::Mismatch),
            Some(_) | None => Ok(keys),
        }
    }

    /// The public half.
    #[must_use]
    pub fn hotkey(&self) -> Hotkey {
        Hotkey(self.keys.public.to_bytes())
    }

    /// A signature over `message`; another one every time.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.keys.sign_simple(CONTEXT, message).to_bytes()
    }

    /// Its address.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// A frame of this moment: signed, with the time and a nonce that this process never used.
    ///
    /// ```
    /// use bowline::wire::bettensor::{self, Frame, Unsigned};
    /// use bowline_transport::Keypair;
    /// let keys = Keypair::from_seed_hex(&"07".repeat(32))?;
    /// let frame = keys.seal(Unsigned::heartbeat);
    /// assert_ne!(frame, keys.seal(Unsigned::heartbeat), "another moment, another frame");
    /// let Ok(Frame::Envelope(beat)) = bettensor::decode(frame.as_bytes()) else { unreachable!() };
    /// let said = beat.signing_string().unwrap();
    /// assert!(keys.hotkey().verify(said.as_bytes(), &beat.seal.unwrap().signature));
    /// # Ok::<(), bowline_transport::KeyError>(())
    /// ```
    #[must_use]
    pub fn seal(&self, unsigned: impl FnOnce(Stamp<'_>) -> Unsigned) -> String {
        match self.try_seal(|stamp| Ok::<_, Infallible>(unsigned(stamp))) {
            Ok(frame) => frame,
            Err(never) => match never {},
        }
    }

    /// The same for what may not be signed: data without a canonical form.
    ///
    /// # Errors
    /// As `unsigned` says.
    pub fn try_seal<E>(&self, unsigned: impl FnOnce(Stamp<'_>) -> Result<Unsigned, E>) -> Result<String, E> {
        let (timestamp, nonce) = moment();
        let unsigned = unsigned(Stamp { sender: &self.address, timestamp, nonce: &nonce })?;
        let signature = self.sign(unsigned.signing_string().as_bytes());
        Ok(unsigned.signed(&signature))
    }
}

impl fmt::Debug for Keypair {
    /// The public half alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({})", self.address)
    }
}

/// Now, and a nonce that this process never used: milliseconds as the originals write them, counted on by a microsecond
/// where two fall together.
pub(crate) fn moment() -> (Timestamp, String) {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    let next = |last: u64| now.max(last.saturating_add(1));
    let mut last = LAST.load(Ordering::Relaxed);
    while let Err(seen) = LAST.compare_exchange_weak(last, next(last), Ordering::Relaxed, Ordering::Relaxed) {
        last = seen;
    }
    let nonce = next(last);
    let timestamp = Timestamp::from_unix_micros(i64::try_from(now).unwrap_or(i64::MAX));
    (timestamp, format!("{}.{:03}", nonce / 1000, nonce % 1000))
}

/// Why a key was not read. It never quotes what it was read from.
///
/// ```
/// use bowline_transport::{KeyError, Keypair};
/// assert_eq!(Keypair::from_seed_hex("0xe5be").unwrap_err(), KeyError::Seed);
/// assert_eq!(KeyError::Seed.to_string(), "the seed must be 64 hexadecimal digits");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KeyError {
    /// Not the base58 text of a format of one byte, a key and a checksum.
    Address,
    /// The address was mistyped.
    Checksum,
    /// There is no seed, or it is not 32 bytes in hexadecimal digits.
    Seed,
    /// Not a JSON object with the fields of a hotkey file, or over 16 KiB; an encrypted file is none either.
    File,
    /// The address in the file is not that of its seed.
    Mismatch,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "no SS58 address of a 32-byte key",
            Self::Checksum => "the checksum of the SS58 address is wrong",
            Self::Seed => "the seed must be 64 hexadecimal digits",
            Self::File => "no unencrypted hotkey file",
            Self::Mismatch => "the hotkey file's address is not that of its seed",
        })
    }
}

impl core::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::wire::bettensor::{self, Envelope, Frame};
    use serde_json::Value;

    const VECTORS: &str = include_str!("../../../tests/vectors/bettensor.jsonl");
    /// The public development key `//Alice`.
    const SEED: &str = "e5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";
    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    /// Who signed a frame, over what, and whether that holds.
    fn holds(frame: &str) -> bool {
        let (sender, said, signature) = match bettensor::decode(frame.as_bytes()).unwrap() {
            Frame::Auth(auth) => (auth.hotkey.to_string(), auth.signing_string(), auth.seal.signature),
            Frame::Envelope(envelope @ Envelope { seal: Some(_), .. }) => {
                let said = envelope.signing_string();
                (envelope.sender.to_string(), said, envelope.seal.unwrap().signature)
            }
            other => panic!("unsigned: {other:?}"),
        };
        sender.parse::<Hotkey>().unwrap().verify(said.unwrap().as_bytes(), &signature)
    }

    #[test]
    fn every_recorded_signature_is_judged_as_the_original_did() {
        let (mut valid, mut invalid) = (0, 0);
        for line in VECTORS.lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let Some(expected) = row["signature_valid"].as_bool() else { continue };
            // Through the raw text: numbers must keep their spelling.
            let at = line.find("\"json\": ").unwrap() + 8;
            let mut json = serde_json::Deserializer::from_str(&line[at..]).into_iter::<serde::de::IgnoredAny>();
            json.next().unwrap().unwrap();
            let frame = &line[at..at + json.byte_offset()];
            assert_eq!(holds(frame), expected, "{frame}");
            *(if expected { &mut valid } else { &mut invalid }) += 1;
            if expected {
                let signature = row["json"]["signature"].as_str().unwrap();
                let last = if signature.ends_with('0') { "1" } else { "0" };
                let spoiled = frame.replace(signature, &[&signature[..127], last].concat());
                assert!(!holds(&spoiled), "one digit is another: {spoiled}");
            }
        }
        assert!(valid >= 14 && invalid >= 1, "{valid} and {invalid}");
    }

    #[test]
    fn what_we_sign_holds_and_only_for_that_message_and_key() {
        let alice = Keypair::from_seed_hex(SEED).unwrap();
        let other = Keypair::from_seed_hex(&"07".repeat(32)).unwrap();
        let signature = alice.sign(b"17");
        assert!(alice.hotkey().verify(b"17", &signature));
        assert!(!alice.hotkey().verify(b"18", &signature));
        assert!(!other.hotkey().verify(b"17", &signature));
        assert_ne!(signature, alice.sign(b"17"), "signatures are randomized");
        assert!(!Hotkey::from_bytes([0xff; 32]).verify(b"17", &signature), "no point of the curve");
    }

    #[test]
    fn addresses_of_one_byte_formats_are_read_and_nothing_else() {
        let alice: Hotkey = ALICE.parse().unwrap();
        assert_eq!(Keypair::from_seed_hex(SEED).unwrap().hotkey(), alice);
        for format in 0..=255_u8 {
            let mut bytes = vec![format];
            bytes.extend(alice.as_bytes());
            bytes.extend(checksum(format, alice.as_bytes()));
            let mut text = [0; 64];
            let length = bs58::encode(bytes).onto(&mut text[..]).unwrap();
            let read = core::str::from_utf8(&text[..length]).unwrap().parse();
            assert_eq!(read, if format <= 63 { Ok(alice) } else { Err(KeyError::Address) }, "{format}");
        }
        let long = "1".repeat(1_000_000);
        for (text, why) in [
            ("", KeyError::Address),
            ("5", KeyError::Address),
            (&ALICE[..47], KeyError::Address),
            (&long, KeyError::Address),
            ("0GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", KeyError::Address),
            (" 5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY", KeyError::Address),
            ("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQZ", KeyError::Checksum),
            ("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKuQtY", KeyError::Checksum),
        ] {
            assert_eq!(text.parse::<Hotkey>(), Err(why), "{}", &text[..text.len().min(60)]);
        }
        for key in [[0; 32], [0xff; 32]] {
            let key = Hotkey::from_bytes(key);
            assert_eq!(key.to_string().parse(), Ok(key));
        }
    }

    #[test]
    fn a_hotkey_file_is_read_and_no_secret_is_printed() {
        let file = |seed: &str, address: &str| {
            format!(
                r#"{{"accountId": "0x00", "secretPhrase": "bottom", "secretSeed": {seed}, "ss58Address": {address}}}"#
            )
        };
        let seed = format!("\"0x{SEED}\"");
        let keys = Keypair::from_hotkey_file(&file(&seed, &format!("\"{ALICE}\""))).unwrap();
        assert_eq!(keys.hotkey().to_string(), ALICE);
        assert!(Keypair::from_hotkey_file(&file(&seed, "null")).is_ok());
        for (text, why) in [
            (file("null", "null"), KeyError::Seed),
            (file("\"0x17\"", "null"), KeyError::Seed),
            (file(&format!("\"0x{}\"", "é".repeat(32)), "null"), KeyError::Seed),
            (file(&seed, "\"5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty\""), KeyError::Mismatch),
            (file(&seed, "\"5F\""), KeyError::Address),
            (file("17", "null"), KeyError::File),
            ("$NACL…".into(), KeyError::File),
            ("{}".into(), KeyError::Seed),
            (format!("{}{}", file(&seed, "null"), " ".repeat(LONGEST_FILE)), KeyError::File),
        ] {
            assert_eq!(Keypair::from_hotkey_file(&text).unwrap_err(), why, "{text:.80}");
            assert!(!why.to_string().contains("17"));
        }
        assert_eq!(format!("{keys:?}"), format!("Keypair({ALICE})"));
    }
}
