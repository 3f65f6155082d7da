//! TLS by rustls: whom we trust, what we show, and records over a socket that need not block.
//!
//! ```text
//! PEM ─▶ Tls ─▶ Client, Server (checked) ─▶ Encrypted over a socket
//!
//!  read:  decrypted bytes? ─ no ─▶ push what waits ─▶ read the socket once ─▶ decrypt ─▶ again
//!  write: push what waits, all of it ─▶ encrypt at most one record ─▶ push what goes
//! ```
//!
//! Decided here: TLS 1.2 and 1.3, `http/1.1` alone, no early data; without roots of their own, dialers trust Mozilla's.
//! A certificate is checked against the host of the URL, a name or an address. Revocation is not looked up.
//!
//! Invariants: a read goes on while writes cannot, or two peers with full buffers would wait for each other; a write takes
//! nothing while older records wait, so at most one record is buffered, and progress is seen by who counts bytes; the end
//! of the socket without the peer's `close_notify` is an error, never an orderly end; an error of TLS is told to the peer.
//!
//! Memory of an idle connection besides the socket: see [`Tls`].

use bowline::TlsFault;
use core::fmt;
use core::mem;
use rustls::client::ClientConnection;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ServerConnection, WebPkiClientVerifier};
use rustls::{ClientConfig, Connection, RootCertStore, ServerConfig};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

/// The only protocol inside.
const HTTP: &[u8] = b"http/1.1";

/// So many bytes are encrypted before the socket has to take them: one record of the longest kind.
const RECORD: usize = 16 * 1024;

/// An error of the library, whose type is not part of this crate's surface.
type LibraryError = Box<dyn core::error::Error + Send + Sync>;

/// A certificate, the ones that vouch for it, and its key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Whom to trust and what to show, for [`Setup::tls`](crate::Setup::tls). All of it is PEM; whatever else a PEM text
/// holds is passed over.
///
/// A dialer needs none of it for a peer with a public certificate: `wss://` or `https://` in the URL is enough. A listener
/// speaks TLS, and nothing else, once it has a [`server`](Self::server) certificate.
///
/// An idle connection takes about 8 KiB at either end (measured with rustls 0.23; the same after megabytes went through),
/// a busy one up to 16 KiB more for what it writes and twice that for what it reads, a handshake up to 64 KiB.
///
/// ```
/// use bowline_transport::{Setup, Tls, TlsError};
/// assert!(matches!(Tls::new().roots("no certificate"), Err(TlsError::Empty { .. })));
/// // The public roots are enough for this one:
/// let api_node = Setup::api_node("wss://ml-node.example")?;
/// # let _ = api_node;
/// # Ok::<(), bowline_transport::SetupError>(())
/// ```
#[derive(Debug, Default)]
pub struct Tls {
    roots: Option<RootCertStore>,
    identity: Option<Identity>,
    server: Option<Identity>,
    client_roots: Option<RootCertStore>,
}

impl Tls {
    /// Dials with trust in the public roots, shows no certificate, and listens without TLS.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whom we dial must have a certificate that one of these vouches for, and no longer one of the public roots.
    ///
    /// # Errors
    /// There is no certificate, or one that makes no sense.
    pub fn roots(self, pem: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        Ok(Self { roots: Some(roots("roots", pem.as_ref())?), ..self })
    }

    /// What we show to whom we dial, if asked: a client certificate, those that vouch for it, and its key.
    ///
    /// # Errors
    /// There is no certificate or no key, or one that makes no sense.
    pub fn identity(self, certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        Ok(Self { identity: Some(identity("identity", certificates.as_ref(), key.as_ref())?), ..self })
    }

    /// What our listener shows: its certificate, those that vouch for it, and its key.
    ///
    /// # Errors
    /// There is no certificate or no key, or one that makes no sense.
    pub fn server(self, certificates: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        Ok(Self { server: Some(identity("server", certificates.as_ref(), key.as_ref())?), ..self })
    }

    /// Whoever connects to our listener must show a certificate that one of these vouches for.
    ///
    /// # Errors
    /// There is no certificate, or one that makes no sense.
    pub fn client_roots(self, pem: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        Ok(Self { client_roots: Some(roots("client_roots", pem.as_ref())?), ..self })
    }

    pub(crate) fn client(&self) -> Result<Client, TlsError> {
        let public = || webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
        let roots = self.roots.clone().unwrap_or_else(public);
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.map_err(failed("roots"))?.with_root_certificates(roots);
        let mut config = match &self.identity {
            Some((certificates, key)) => {
                config.with_client_auth_cert(certificates.clone(), key.clone_key()).map_err(failed("identity"))?
            }
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Client(Arc::new(config)))
    }

    pub(crate) fn listener(&self) -> Result<Option<Server>, TlsError> {
        let Some((certificates, key)) = &self.server else {
            let unused = TlsError::Empty { setting: "server", what: "certificate, which client_roots need" };
            return if self.client_roots.is_some() { Err(unused) } else { Ok(None) };
        };
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.map_err(failed("server"))?;
        let config = match &self.client_roots {
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider()).build();
                config.with_client_cert_verifier(verifier.map_err(failed("client_roots"))?)
            }
            None => config.with_no_client_auth(),
        };
        let mut config = config.with_single_cert(certificates.clone(), key.clone_key()).map_err(failed("server"))?;
        config.alpn_protocols = vec![HTTP.to_vec()];
        Ok(Some(Server(Arc::new(config))))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(setting: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(none) if none.is_empty() => Err(TlsError::Empty { setting, what: "certificate" }),
        found => found.map_err(|error| TlsError::Pem { setting, source: error.into() }),
    }
}

fn roots(setting: &'static str, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, pem)? {
        roots.add(certificate).map_err(failed(setting))?;
    }
    Ok(roots)
}

fn identity(setting: &'static str, chain: &[u8], key: &[u8]) -> Result<Identity, TlsError> {
    let chain = certificates(setting, chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::Empty { setting, what: "private key" },
        error => TlsError::Pem { setting, source: error.into() },
    })?;
    Ok((chain, key))
}

fn failed<E: Into<LibraryError>>(setting: &'static str) -> impl FnOnce(E) -> TlsError {
    move |error| TlsError::Refused { setting, source: error.into() }
}

/// Whether a certificate can be checked against this host of a URL.
pub(crate) fn check_name(host: &str) -> Result<(), TlsError> {
    ServerName::try_from(host).map(drop).map_err(|_| TlsError::Name { host: host.to_owned() })
}

/// Why settings of TLS make no sense.
///
/// ```
/// use bowline_transport::{Tls, TlsError};
/// let error = Tls::new().server("", "").unwrap_err();
/// assert!(matches!(error, TlsError::Empty { setting: "server", .. }));
/// assert_eq!(error.to_string(), "server: there is no certificate");
/// ```
#[derive(Debug)]
pub enum TlsError {
    /// There is nothing of the kind in the PEM text.
    Empty {
        /// The method of [`Tls`].
        setting: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// It is no PEM.
    Pem {
        /// The method of [`Tls`].
        setting: &'static str,
        /// What is wrong.
        source: LibraryError,
    },
    /// A certificate or key is of no use, or they do not belong together.
    Refused {
        /// The method of [`Tls`].
        setting: &'static str,
        /// What is wrong.
        source: LibraryError,
    },
    /// No certificate can be for this host of a URL.
    Name {
        /// The host.
        host: String,
    },
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { setting, what } => write!(f, "{setting}: there is no {what}"),
            Self::Pem { setting, source } => write!(f, "{setting}: not PEM: {source}"),
            Self::Refused { setting, source } => write!(f, "{setting}: {source}"),
            Self::Name { host } => write!(f, "no certificate can be for the host {host:?}"),
        }
    }
}

impl core::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Empty { .. } | Self::Name { .. } => None,
            Self::Pem { source, .. } | Self::Refused { source, .. } => Some(source.as_ref()),
        }
    }
}

/// How we dial.
#[derive(Clone, Debug)]
pub(crate) struct Client(Arc<ClientConfig>);

impl Client {
    pub(crate) fn dial<S: Read + Write>(&self, socket: S, host: &str) -> io::Result<Encrypted<S>> {
        let name = ServerName::try_from(host.to_owned()).map_err(broken)?;
        let connection = ClientConnection::new(Arc::clone(&self.0), name).map_err(broken)?;
        Ok(Encrypted::new(connection.into(), socket))
    }
}

/// How we accept.
#[derive(Clone, Debug)]
pub(crate) struct Server(Arc<ServerConfig>);

impl Server {
    pub(crate) fn accept<S: Read + Write>(&self, socket: S) -> io::Result<Encrypted<S>> {
        let connection = ServerConnection::new(Arc::clone(&self.0)).map_err(broken)?;
        Ok(Encrypted::new(connection.into(), socket))
    }
}

fn broken(error: impl Into<LibraryError>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// What went wrong with TLS, if that is what this error says.
pub(crate) fn fault(error: &io::Error) -> Option<TlsFault> {
    use rustls::AlertDescription as Alert;
    use rustls::{CertificateError as Certificate, Error};
    Some(match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(certificate) => match certificate {
            Certificate::Expired | Certificate::ExpiredContext { .. } => TlsFault::Expired,
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => TlsFault::NotYetValid,
            Certificate::UnknownIssuer => TlsFault::UnknownIssuer,
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => TlsFault::WrongName,
            _ => TlsFault::Other,
        },
        Error::InvalidMessage(_) => TlsFault::NotTls,
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired,
        ) => TlsFault::Refused,
        _ => TlsFault::Other,
    })
}

/// TLS over a socket. Dropped, it says that no more will come, if the socket takes that and all that lies before it.
#[derive(Debug)]
pub(crate) struct Encrypted<S: Read + Write> {
    connection: Box<Connection>,
    socket: S,
    /// `close_notify` is on its way.
    closed: bool,
}

impl<S: Read + Write> Encrypted<S> {
    fn new(mut connection: Connection, socket: S) -> Self {
        connection.set_buffer_limit(Some(RECORD));
        Self { connection: Box::new(connection), socket, closed: false }
    }

    pub(crate) fn handshake(&mut self) -> io::Result<()> {
        while self.connection.is_handshaking() {
            if self.pull()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        self.push()
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    pub(crate) fn close(&mut self) -> io::Result<()> {
        if !mem::replace(&mut self.closed, true) {
            self.connection.send_close_notify();
        }
        self.push()
    }

    pub(crate) const fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Reads the socket once, and says how many bytes came.
    fn pull(&mut self) -> io::Result<usize> {
        // What the peer waits for may lie here. If it no longer reads, what it said last is still to be read.
        let _ = self.push();
        let read = loop {
            match self.connection.read_tls(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if let Err(error) = self.connection.process_new_packets() {
            // An alert.
            let _ = self.push();
            return Err(broken(error));
        }
        Ok(read)
    }

    /// Gives the socket all that is encrypted.
    fn push(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn write_with(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<usize>) -> io::Result<usize> {
        self.push()?;
        let written = write(&mut self.connection.writer())?;
        match self.push() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(written),
        }
    }
}

impl<S: Read + Write> Read for Encrypted<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.pull()?,
                // Nothing: the peer said that it has ended. An end that it did not announce is an error.
                read => return read,
            };
        }
    }
}

impl<S: Read + Write> Write for Encrypted<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_with(|writer| writer.write(bytes))
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_with(|writer| writer.write_vectored(pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()?;
        self.socket.flush()
    }
}

impl<S: Read + Write> Drop for Encrypted<S> {
    fn drop(&mut self) {
        if !self.connection.is_handshaking() {
            let _ = self.close();
        }
    }
}
