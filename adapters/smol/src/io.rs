//! A socket for HTTP's futures, plain or encrypted, that becomes the node's when it is a WebSocket.
//!
//! ```text
//! poll ─▶ Channel ─ WouldBlock ─▶ reactor: until the socket can be read, or written if the channel wants to, or both
//! ```
//!
//! Invariants: one registration per socket; whoever is told to wait is woken.

use bowline_transport::Channel;
use core::pin::Pin;
use core::task::{Context, Poll};
use smol::Async;
use smol::io::{AsyncRead, AsyncWrite};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

/// A socket as smol's reactor knows it.
pub(crate) type Socket = Arc<Async<TcpStream>>;

/// The socket below the reactor's registration: it is non-blocking already.
pub(crate) struct NonBlocking(pub(crate) Socket);

impl Read for NonBlocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.get_ref().read(buffer)
    }
}

impl Write for NonBlocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.get_ref().write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.get_ref().write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a call waits for, besides what the channel itself wants to write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Readable,
    Writable,
}

/// A connection that is not a WebSocket yet.
pub(crate) struct Io {
    pub(crate) channel: Channel<NonBlocking>,
    socket: Socket,
}

impl Io {
    pub(crate) fn new(
        socket: Socket,
        secure: impl FnOnce(NonBlocking) -> io::Result<Channel<NonBlocking>>,
    ) -> io::Result<Self> {
        Ok(Self { channel: secure(NonBlocking(Arc::clone(&socket)))?, socket })
    }

    /// Until whom we dialled is known to be who it should be.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        core::future::poll_fn(|cx| self.poll(cx, Until::Readable, Channel::handshake)).await
    }

    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        until: Until,
        mut call: impl FnMut(&mut Channel<NonBlocking>) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match call(&mut self.channel) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
            let write = until == Until::Writable || self.channel.wants_write();
            let writable = write && self.socket.poll_writable(cx)?.is_ready();
            let readable = until == Until::Readable && self.socket.poll_readable(cx)?.is_ready();
            if !writable && !readable {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll(cx, Until::Readable, |channel| channel.read(buffer))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll(cx, Until::Writable, |channel| channel.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll(cx, Until::Writable, |channel| channel.write_vectored(pieces))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll(cx, Until::Writable, Write::flush)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll(cx, Until::Writable, |channel| {
            channel.close()?;
            match channel.socket().0.get_ref().shutdown(Shutdown::Write) {
                Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
                done => done,
            }
        })
    }
}
