//! What a node is told before it starts.

use crate::channel::Security;
use crate::http::{Limits, Target, TargetError};
use crate::wire::{Gonka, Wire};
use bowline::wire::{KeyedHash, gonka};
use bowline::{Config, ConfigError, GONKA_API_NODE, GONKA_ML_NODE, Origin, Role};
use core::fmt;
use core::hash::{BuildHasher, Hasher};
use core::net::SocketAddr;
use core::time::Duration;
use std::hash::RandomState;
use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::time::SystemTime;

/// Everything a node is told before it starts; both adapters take it.
///
/// ```
/// use bowline_transport::Setup;
/// let ml_node = Setup::ml_node("127.0.0.1:0")?.fallback("http://127.0.0.1:9100/v1/poc-batches")?;
/// let api_node = Setup::api_node("ws://127.0.0.1:8080")?.callbacks("127.0.0.1:0")?;
/// # let _ = (ml_node, api_node);
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Setup<W: Wire = Gonka> {
    pub(crate) config: Config,
    pub(crate) wire: W,
    pub(crate) url: Option<Target>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) fallback: Option<Target>,
    pub(crate) drain: Duration,
    pub(crate) security: Security,
    pub(crate) http_limits: Limits,
    identity: Option<String>,
    epoch: Option<u32>,
    seed: Option<u64>,
}

impl Setup {
    /// Gonka's receiver: it dials the ML node at `url` (`ws://host:port`, `wss://…`, `http://…`, `https://…` or a bare
    /// `host:port`; without a path it is `/api/v1/pow/ws`).
    ///
    /// # Errors
    /// The URL makes no sense.
    pub fn api_node(url: &str) -> Result<Self, SetupError> {
        let url = Target::websocket(url, gonka::PATH)?;
        Ok(Self { url: Some(url), ..Self::with(GONKA_API_NODE, Gonka::API_NODE) })
    }

    /// Gonka's sender: it accepts one client at `/api/v1/pow/ws` on `address`; port 0 lets the system choose.
    ///
    /// # Errors
    /// The address makes no sense, or its name is unknown.
    pub fn ml_node(address: &str) -> Result<Self, SetupError> {
        Self::acceptor(address, GONKA_ML_NODE, Gonka::ML_NODE)
    }
}

impl<W: Wire> Setup<W> {
    /// A protocol of one's own, from the side that dials `url`: `ws://host:port/path`, `wss://…`, `http://…`, `https://…` or
    /// a bare `host:port`. `config` is [`Config::DEFAULT`] or a change of it; the role is set here, and there is no HTTP
    /// without a [`fallback`](Self::fallback).
    ///
    /// ```
    /// use bowline::Config;
    /// use bowline_transport::{Gonka, Setup};
    /// let setup = Setup::dialer("ws://gateway:9000/device", Config::DEFAULT, Gonka::API_NODE)?;
    /// assert_eq!(setup.role(), bowline::Role::Dialer);
    /// # Ok::<(), bowline_transport::SetupError>(())
    /// ```
    ///
    /// # Errors
    /// The URL makes no sense.
    pub fn dialer(url: &str, config: Config, wire: W) -> Result<Self, SetupError> {
        let url = Target::websocket(url, "/")?;
        Ok(Self { url: Some(url), ..Self::without_http(Role::Dialer, config, wire) })
    }

    /// A protocol of one's own, from the side that one peer at a time dials, at the path of [`Wire::routes`] on `address`;
    /// port 0 lets the system choose. As [`dialer`](Self::dialer) otherwise.
    ///
    /// # Errors
    /// The address makes no sense, or its name is unknown.
    pub fn acceptor(address: &str, config: Config, wire: W) -> Result<Self, SetupError> {
        Ok(Self { listen: Some(resolve(address)?), ..Self::without_http(Role::Acceptor, config, wire) })
    }

    /// Where messages are posted when there is no WebSocket, or no answer on it. Gonka's appends `/generated` or
    /// `/validated`.
    ///
    /// # Errors
    /// The URL makes no sense.
    pub fn fallback(mut self, url: &str) -> Result<Self, SetupError> {
        self.fallback = Some(Target::http(url)?);
        self.config.route.http = true;
        Ok(self)
    }

    /// For a dialer that receives: serves the callbacks on `address`, at the same time as the WebSocket; port 0 lets the
    /// system choose.
    ///
    /// # Errors
    /// The address makes no sense, or its name is unknown.
    pub fn callbacks(mut self, address: &str) -> Result<Self, SetupError> {
        self.listen = Some(resolve(address)?);
        Ok(self)
    }

    /// Whom to trust and what to show where a URL begins with `wss://` or `https://`, and whether the listener speaks TLS.
    ///
    /// # Errors
    /// A certificate and its key do not belong together, or client certificates are asked for without a server's.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: &crate::Tls) -> Result<Self, SetupError> {
        self.security = Security { client: Some(tls.client()?), server: tls.listener()? };
        Ok(self)
    }

    /// Changes the session's settings; see [`Config`] for the meaning and default of each.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes what a request to our listener may take before it is answered or a WebSocket; see [`Limits`] for the meaning of
    /// each. Default: [`Wire::limits`].
    #[must_use]
    pub fn http_limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.http_limits);
        self
    }

    /// Names the sender, so that its ids tell whose they are. Default: drawn anew for every node.
    #[must_use]
    pub fn identity(mut self, name: impl Into<String>) -> Self {
        self.identity = Some(name.into());
        self
    }

    /// Counts the starts of this identity (26 bits; rule I3). Default: seconds since 2025, which grow by themselves for two
    /// years and then begin anew.
    #[must_use]
    pub const fn epoch(mut self, epoch: u32) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// The seed of every random delay. Default: from the system.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long a node that is dropped goes on in the background to finish what it accepted. Default 10 s.
    #[must_use]
    pub const fn drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }

    /// Where to listen, if at all.
    #[must_use]
    pub const fn listen_on(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// Who makes the connection.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.config.link.role
    }

    fn without_http(role: Role, mut config: Config, wire: W) -> Self {
        config.link.role = role;
        config.route.http = false;
        Self::with(config, wire)
    }

    pub(crate) fn with(config: Config, wire: W) -> Self {
        Self {
            config,
            http_limits: wire.limits(),
            wire,
            url: None,
            listen: None,
            fallback: None,
            drain: Duration::from_secs(10),
            security: Security::default(),
            identity: None,
            epoch: None,
            seed: None,
        }
    }

    pub(crate) fn origin(&self) -> Origin {
        origin(self.identity.as_deref(), self.epoch)
    }

    pub(crate) fn seed_or_random(&self) -> u64 {
        self.seed.unwrap_or_else(random)
    }
}

/// A sender's name and the count of its starts, or what stands for them.
pub(crate) fn origin(identity: Option<&str>, epoch: Option<u32>) -> Origin {
    let identity = match identity {
        // Not secret and the same in every run: it names the sender.
        Some(name) => {
            let low = KeyedHash::new(*b"bowline identity").content("identity", name).bits() & u128::from(u64::MAX);
            u64::try_from(low).unwrap_or_default()
        }
        None => random(),
    };
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    let seconds = SystemTime::now().duration_since(since).unwrap_or_default().as_secs();
    let epoch = epoch.unwrap_or(u32::try_from(seconds & 0x03ff_ffff).unwrap_or_default());
    Origin::new(identity, epoch)
}

/// A key for hashes that nobody outside can foresee.
pub(crate) fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    let (low, high) = key.split_at_mut(8);
    low.copy_from_slice(&random().to_le_bytes());
    high.copy_from_slice(&random().to_le_bytes());
    key
}

/// 64 bits of the system's entropy: what the standard library keys its hash maps with.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A listener on this address, for the adapters.
///
/// ```
/// let listener = bowline_transport::listen("127.0.0.1:0".parse()?)?;
/// let taken = bowline_transport::listen(listener.local_addr()?).unwrap_err();
/// assert!(taken.to_string().contains(&listener.local_addr()?.to_string()), "{taken}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The system refuses it, such as one that is in use: the error names the address.
pub fn listen(address: SocketAddr) -> Result<TcpListener, SetupError> {
    TcpListener::bind(address).map_err(|source| SetupError::Listen { address, source })
}

pub(crate) fn resolve(address: &str) -> Result<SocketAddr, SetupError> {
    let unknown = |source| SetupError::Address { address: address.to_owned(), source };
    let mut found = address.to_socket_addrs().map_err(unknown)?;
    found.next().ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))
}

/// Why a node cannot start.
///
/// ```
/// use bowline_transport::Setup;
/// let error = Setup::api_node("ftp://ml").unwrap_err();
/// assert!(error.to_string().starts_with("bad URL"));
/// ```
#[derive(Debug)]
pub enum SetupError {
    /// A URL makes no sense.
    Url(TargetError),
    /// A setting makes no sense.
    Config(ConfigError),
    /// An address to listen on makes no sense.
    Address {
        /// As it was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not let us listen there.
    Listen {
        /// The address, with the port that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Settings that are no JSON, or a variable of the environment that is not what it should be.
    Settings(String),
    /// A certificate or key makes no sense.
    #[cfg(feature = "tls")]
    Tls(crate::TlsError),
    /// The system refused a socket or a thread.
    Io(io::Error),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(error) => write!(f, "bad URL: {error}"),
            Self::Config(error) => write!(f, "bad setting: {error}"),
            Self::Address { address, source } => write!(f, "bad address {address:?}: {source}"),
            Self::Listen { address, source } => write!(f, "cannot listen on {address}: {source}"),
            Self::Settings(why) => write!(f, "bad settings: {why}"),
            #[cfg(feature = "tls")]
            Self::Tls(error) => write!(f, "bad TLS setting: {error}"),
            Self::Io(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl core::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Url(error) => Some(error),
            Self::Config(error) => Some(error),
            #[cfg(feature = "tls")]
            Self::Tls(error) => Some(error),
            Self::Address { source, .. } | Self::Listen { source, .. } | Self::Io(source) => Some(source),
            Self::Settings(_) => None,
        }
    }
}

impl From<TargetError> for SetupError {
    fn from(error: TargetError) -> Self {
        Self::Url(error)
    }
}

impl From<ConfigError> for SetupError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

#[cfg(feature = "tls")]
impl From<crate::TlsError> for SetupError {
    fn from(error: crate::TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<io::Error> for SetupError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
