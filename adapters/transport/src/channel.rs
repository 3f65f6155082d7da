//! A connected socket, plain or encrypted: whoever reads, writes and waits need not know which.
//!
//! ```text
//! Security::dial(socket, target) ──▶ Channel ──handshake()──▶ read, write, flush ──▶ close()
//! Security::accept(socket) ────────▶   │        (by the first read)
//!                                      └── WouldBlock: wait for the socket; if wants_write() also until it can be written
//! ```
//!
//! Decided here: that a URL's scheme chooses for the dialer and the settings for the listener. Invariant: what has been
//! decrypted is handed out before the socket is asked for more, so whoever reads until `WouldBlock` may wait for the
//! socket.

use crate::http::Target;
use crate::setup::SetupError;
#[cfg(feature = "tls")]
use crate::tls::{Client, Encrypted, Server};
use std::io::{self, IoSlice, Read, Write};

/// What a node encrypts with; from [`Setup`](crate::Setup), by way of [`Node::security`](crate::Node::security).
///
/// ```
/// use bowline_transport::{Node, Setup, http::Target};
/// let node = Node::new(&Setup::ml_node("127.0.0.1:0")?, || ())?;
/// let socket = std::io::Cursor::new(Vec::new()); // stands for a connected one
/// let mut channel = node.security().dial(socket, &Target::http("http://api:9100")?)?;
/// channel.handshake()?;
/// assert!(!channel.wants_write(), "plain");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, Debug)]
pub struct Security {
    #[cfg(feature = "tls")]
    pub(crate) client: Option<Client>,
    #[cfg(feature = "tls")]
    pub(crate) server: Option<Server>,
}

impl Security {
    /// With all that these targets need.
    #[cfg_attr(not(feature = "tls"), expect(clippy::unnecessary_wraps, reason = "with TLS it can fail"))]
    pub(crate) fn for_targets(self, targets: [Option<&Target>; 2]) -> Result<Self, SetupError> {
        #[cfg(feature = "tls")]
        for target in targets.into_iter().flatten().filter(|target| target.is_tls()) {
            crate::tls::check_name(target.host())?;
            if self.client.is_none() {
                return self.for_any_target()?.for_targets(targets);
            }
        }
        #[cfg(not(feature = "tls"))]
        let _ = targets;
        Ok(self)
    }

    /// With what targets that are not known yet may need.
    #[cfg(feature = "tls")]
    pub(crate) fn for_any_target(self) -> Result<Self, SetupError> {
        let client = match self.client {
            Some(client) => client,
            None => crate::tls::Tls::new().client()?,
        };
        Ok(Self { client: Some(client), ..self })
    }

    /// What was just connected to `target`; encrypted if its URL says so.
    ///
    /// # Errors
    /// It cannot be encrypted; nothing was sent.
    pub fn dial<S: Read + Write>(&self, socket: S, target: &Target) -> io::Result<Channel<S>> {
        if !target.is_tls() {
            return Ok(Channel::plain(socket));
        }
        #[cfg(feature = "tls")]
        if let Some(client) = &self.client {
            return Ok(Channel(Inner::Encrypted(client.dial(socket, target.host())?)));
        }
        // In vain: a setup without it is refused.
        Err(io::ErrorKind::Unsupported.into())
    }

    /// What was just accepted; encrypted if we have a certificate for that.
    ///
    /// # Errors
    /// It cannot be encrypted; nothing was sent.
    pub fn accept<S: Read + Write>(&self, socket: S) -> io::Result<Channel<S>> {
        #[cfg(feature = "tls")]
        if let Some(server) = &self.server {
            return Ok(Channel(Inner::Encrypted(server.accept(socket)?)));
        }
        Ok(Channel::plain(socket))
    }
}

/// A connected socket, plain or encrypted. Over one that never blocks it never blocks; over one that does, so does it.
///
/// ```
/// use bowline_transport::Channel;
/// use std::io::{Read as _, Write as _};
/// let mut channel = Channel::plain(std::io::Cursor::new(b"heard".to_vec()));
/// let mut heard = String::new();
/// channel.read_to_string(&mut heard)?;
/// assert_eq!(heard, "heard");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Channel<S: Read + Write>(Inner<S>);

#[derive(Debug)]
enum Inner<S: Read + Write> {
    Plain(S),
    #[cfg(feature = "tls")]
    Encrypted(Encrypted<S>),
}

impl<S: Read + Write> Channel<S> {
    /// Not encrypted.
    pub const fn plain(socket: S) -> Self {
        Self(Inner::Plain(socket))
    }

    /// Goes on with the handshake, and says `Ok` once it is done. For a dialer: before this, nothing it wrote would be
    /// sent. A listener's is done by its first read.
    ///
    /// # Errors
    /// `WouldBlock` until then; else why the peer is not trusted, does not trust us, or speaks no TLS.
    pub fn handshake(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(_) => Ok(()),
            #[cfg(feature = "tls")]
            Inner::Encrypted(encrypted) => encrypted.handshake(),
        }
    }

    /// Whether something waits until the socket can be written, also when the last call was to read.
    pub fn wants_write(&self) -> bool {
        match &self.0 {
            Inner::Plain(_) => false,
            #[cfg(feature = "tls")]
            Inner::Encrypted(encrypted) => encrypted.wants_write(),
        }
    }

    /// Tells the peer that nothing more will be written; ending the socket's own half is the caller's.
    ///
    /// # Errors
    /// The socket's; after `WouldBlock` it is to be called again.
    pub fn close(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(_) => Ok(()),
            #[cfg(feature = "tls")]
            Inner::Encrypted(encrypted) => encrypted.close(),
        }
    }

    /// The socket, to look at and to set options of.
    pub const fn socket(&mut self) -> &mut S {
        match &mut self.0 {
            Inner::Plain(socket) => socket,
            #[cfg(feature = "tls")]
            Inner::Encrypted(encrypted) => encrypted.socket(),
        }
    }

    /// The socket of a plain one; `None`: it is encrypted, and the socket alone would be of no use.
    pub fn into_plain(self) -> Option<S> {
        match self.0 {
            Inner::Plain(socket) => Some(socket),
            #[cfg(feature = "tls")]
            Inner::Encrypted(_) => None,
        }
    }
}

impl<S: Read + Write> Read for Channel<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(socket) => socket.read(buffer),
            #[cfg(feature = "tls")]
            Inner::Encrypted(encrypted) => encrypted.read(buffer),
        }
    }
}

impl<S: Read + Write> Write for Channel<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(socket) => socket.write(bytes),
            #[cfg(feature = "tls")]
            Inner::Encrypted(encrypted) => encrypted.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.0 {
            Inner::Plain(socket) => socket.write_vectored(pieces),
            #[cfg(feature = "tls")]
            Inner::Encrypted(encrypted) => encrypted.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Inner::Plain(socket) => socket.flush(),
            #[cfg(feature = "tls")]
            Inner::Encrypted(encrypted) => encrypted.flush(),
        }
    }
}
