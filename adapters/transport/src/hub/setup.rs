//! What a hub is told before it starts: where, on which wire, whom to let in, and who handles what.

use super::message::{Message, Work};
use super::native::{Call, Caller};
use super::request::Paths;
use super::wire::HubWire;
use crate::channel::Security;
use crate::http::{Bytes, Limits, Target};
use crate::setup::{SetupError, resolve};
use bowline::ConfigError;
use bowline::hub::HubConfig;
use core::fmt;
use core::future::{IntoFuture, Ready, ready};
use core::net::SocketAddr;
use core::pin::Pin;
use core::time::Duration;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the application says about a peer that is who it says it is. It is a future of itself, so a closure may answer at
/// once or later.
///
/// ```
/// use bowline_transport::hub::Admission;
/// use core::time::Duration;
/// let known = Admission::accept();
/// let elsewhere = Admission::Refuse("banned until Monday".into());
/// let not_synced_yet = Admission::Later(Duration::from_secs(5));
/// assert_ne!(known, elsewhere);
/// # let _ = not_synced_yet;
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    /// It may come in.
    Accept {
        /// Where it takes messages by HTTP, if anywhere: they are posted to `/ws/messages` below this.
        receiver: Option<Target>,
    },
    /// It may not, and is told this. Of the reason, a close frame carries 120 bytes.
    Refuse(Cow<'static, str>),
    /// Nobody can say yet: it is told to come back after this.
    Later(Duration),
}

impl Admission {
    /// It may come in; it takes no messages by HTTP.
    #[must_use]
    pub const fn accept() -> Self {
        Self::Accept { receiver: None }
    }
}

impl IntoFuture for Admission {
    type Output = Self;
    type IntoFuture = Ready<Self>;

    fn into_future(self) -> Ready<Self> {
        ready(self)
    }
}

pub(super) type Deciding = Pin<Box<dyn Future<Output = Admission> + Send>>;
pub(super) type Authorize<P> = Arc<dyn Fn(P) -> Deciding + Send + Sync>;
pub(super) type Handler<W> =
    Arc<dyn Fn(Message<<W as HubWire>::Peer>) -> Work<<W as HubWire>::Confirmation> + Send + Sync>;

/// The longest page, in bytes.
const LONGEST_PAGE: usize = 1 << 20;

/// Something of the application's that is served as it is.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) path: &'static str,
    /// The type of its content.
    pub(super) kind: &'static str,
    pub(super) body: Bytes,
}

/// Everything a hub is told before it starts.
///
/// ```
/// use bowline_transport::Keypair;
/// use bowline_transport::hub::{Admission, HubSetup};
/// let keys = Keypair::from_seed_hex(&"07".repeat(32))?;
/// let setup = HubSetup::validator("127.0.0.1:0", keys)?
///     .authorize(|_hotkey| Admission::accept())
///     .on("prediction", |message| async move {
///         match message.data().len() {
///             0..1000 => Ok("stored"),
///             _ => Err("too long"),
///         }
///     })
///     .configure(|config| config.sessions = 256);
/// # let _ = setup;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct HubSetup<W: HubWire> {
    pub(super) config: HubConfig,
    pub(super) listen: SocketAddr,
    pub(super) wire: W,
    pub(super) websocket: bool,
    pub(super) authorize: Option<Authorize<W::Peer>>,
    pub(super) native: Option<Call>,
    pub(super) handlers: BTreeMap<String, Handler<W>>,
    pub(super) at_once: usize,
    pub(super) identity: Option<String>,
    pub(super) epoch: Option<u32>,
    pub(super) seed: Option<u64>,
    pub(super) security: Security,
    pub(super) pages: Vec<Page>,
    pub(super) http_limits: Limits,
}

impl<W: HubWire> HubSetup<W> {
    /// The wire, for the checks of [`HubConformance`](crate::conformance::HubConformance).
    #[must_use]
    pub const fn wire(&self) -> &W {
        &self.wire
    }

    /// A hub that speaks this wire with these settings, listening on `address`; port 0 lets the system choose.
    ///
    /// # Errors
    /// The address makes no sense, or its name is unknown.
    pub fn with(address: &str, wire: W, config: HubConfig) -> Result<Self, SetupError> {
        Ok(Self {
            config,
            listen: resolve(address)?,
            wire,
            websocket: true,
            authorize: None,
            native: None,
            handlers: BTreeMap::new(),
            at_once: 256,
            identity: None,
            epoch: None,
            seed: None,
            security: Security::default(),
            pages: Vec::new(),
            http_limits: Limits::DEFAULT,
        })
    }

    /// Who decides who may come in. It is asked only about who is who it says it is, at most 64 times at once, and
    /// has ten seconds (`hello`) to answer. It is asked for every connection, and for a request if it has said nothing
    /// about that peer for a minute: as many of those at once again, and refused then, the peer is dismissed. A hub
    /// without it does not start.
    #[must_use]
    pub fn authorize<F, A>(mut self, decide: F) -> Self
    where
        F: Fn(W::Peer) -> A + Send + Sync + 'static,
        A: IntoFuture<Output = Admission> + 'static,
        A::IntoFuture: Send,
    {
        self.authorize = Some(Arc::new(move |peer| Box::pin(decide(peer).into_future())));
        self
    }

    /// Lets native peers in, on the same port (PROTOCOL.md, section 8): whom, says `decide`, as for
    /// [`authorize`](Self::authorize). Without it there are none.
    #[must_use]
    pub fn native<F, A>(mut self, decide: F) -> Self
    where
        F: Fn(Caller) -> A + Send + Sync + 'static,
        A: IntoFuture<Output = Admission> + 'static,
        A::IntoFuture: Send,
    {
        self.config.native.get_or_insert(bowline::NATIVE_PEER);
        self.native = Some(Arc::new(move |caller| Box::pin(decide(caller).into_future())));
        self
    }

    /// Who handles messages of this type. It says what the peer is to be told, or the error; if it panics, that
    /// is an error too. It must not block its thread. A later handler of the same type replaces an earlier one.
    #[must_use]
    pub fn on<F, R, C, E>(mut self, kind: &str, handle: F) -> Self
    where
        F: Fn(Message<W::Peer>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<C, E>> + Send + 'static,
        C: Into<W::Confirmation>,
        E: fmt::Display,
    {
        let handler: Handler<W> = Arc::new(move |message| {
            let work = handle(message);
            Box::pin(async move { work.await.map(Into::into).map_err(|why| why.to_string()) })
        });
        self.handlers.insert(kind.to_owned(), handler);
        self
    }

    /// Shows these bytes to whoever asks for this path by GET on the hub's port: a dashboard for browsers, say, that finds
    /// the hub where it came from. `kind` is the type of the content; browsers are told to believe it (`nosniff`). A page's
    /// policy (`Content-Security-Policy`) belongs into its own `<meta>`. A request counts as one of its address (U8); it
    /// must be read within 10 s, so this is for pages, not for films.
    ///
    /// A page is for everybody who reaches the port; who may see what its WebSocket tells is for
    /// [`authorize`](Self::authorize) to say. The hub does not look at `Origin`: pages from elsewhere may connect, too.
    ///
    /// ```
    /// use bowline_transport::hub::HubSetup;
    /// let setup = HubSetup::village("127.0.0.1:0")?.page("/", "text/html; charset=utf-8", "<!doctype html><p>Hello")?;
    /// assert!(setup.page("/health", "text/plain", "fine").is_err(), "that is the hub's own");
    /// # Ok::<(), bowline_transport::SetupError>(())
    /// ```
    ///
    /// # Errors
    /// The path does not begin with `/`, has other signs than visible ASCII without `?` and `#`, or means something
    /// already; the type is no visible ASCII; there is more than 1 MiB.
    pub fn page(mut self, path: &'static str, kind: &'static str, body: impl Into<Bytes>) -> Result<Self, SetupError> {
        let body = body.into();
        let visible = |byte: u8| byte.is_ascii_graphic();
        let why = if !path.starts_with('/') || !path.bytes().all(|byte| visible(byte) && !matches!(byte, b'?' | b'#')) {
            "not a path"
        } else if Paths::knows(&self.wire.routes(), path) || self.pages.iter().any(|page| page.path == path) {
            "the path means something already"
        } else if kind.is_empty() || !kind.bytes().all(|byte| visible(byte) || byte == b' ') {
            "not a type of content"
        } else if body.len() > LONGEST_PAGE {
            "longer than 1 MiB"
        } else {
            self.pages.push(Page { path, kind, body });
            return Ok(self);
        };
        Err(ConfigError { field: "page", why }.into())
    }

    /// So many messages may be at the handlers at once, and of one peer at most an eighth of them. Default 256.
    #[must_use]
    pub const fn handle_at_once(mut self, messages: usize) -> Self {
        self.at_once = if messages == 0 { 1 } else { messages };
        self
    }

    /// Whether peers may connect by WebSocket; without it the hub lives on HTTP alone. Default true.
    #[must_use]
    pub const fn enabled(mut self, websocket: bool) -> Self {
        self.websocket = websocket;
        self
    }

    /// Changes the settings; see [`HubConfig`] for the meaning and default of each.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut HubConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes what a request may take before it is answered or a WebSocket; see [`Limits`] for the meaning and default of
    /// each. How long a body may be follows from the wire.
    #[must_use]
    pub fn http_limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.http_limits);
        self
    }

    /// Names the hub as a sender, so that its ids tell whose they are. Default: drawn anew for every hub.
    #[must_use]
    pub fn identity(mut self, name: impl Into<String>) -> Self {
        self.identity = Some(name.into());
        self
    }

    /// Counts the starts of this identity (26 bits; rule I3). Default: seconds since 2025.
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

    /// With which certificate to listen, whom to trust where a peer's receiver has an `https://` address, and whether peers
    /// must show certificates.
    ///
    /// # Errors
    /// A certificate and its key do not belong together, or client certificates are asked for without a server's.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: &crate::Tls) -> Result<Self, SetupError> {
        self.security = Security { client: Some(tls.client()?), server: tls.listener()? };
        Ok(self)
    }

    /// Where to listen.
    #[must_use]
    pub const fn listen_on(&self) -> SocketAddr {
        self.listen
    }

    pub(super) fn decider(&self) -> Result<Authorize<W::Peer>, SetupError> {
        let missing = ConfigError { field: "authorize", why: "nobody could say who may come in" };
        self.authorize.clone().ok_or_else(|| missing.into())
    }
}

impl<W: HubWire> fmt::Debug for HubSetup<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubSetup").field("listen", &self.listen).field("wire", &self.wire).finish_non_exhaustive()
    }
}
