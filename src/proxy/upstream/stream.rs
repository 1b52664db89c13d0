//! A byte stream to an endpoint or from a client: TCP or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client;
use tokio_rustls::server::TlsStream;

/// An open connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
    /// To an endpoint, under TLS over one of the others.
    Secured(Box<client::TlsStream<Stream>>),
    /// From a client, under TLS over one of the others.
    Tls(Box<TlsStream<Stream>>),
}

/// After how long without a byte the kernel asks whether the other side is still there, and how often until it gives up: a
/// machine that went without a word is noticed within two minutes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_mins(1), Duration::from_secs(15), 4);

/// Has the kernel ask on a quiet connection whether the other side is there. What a listener accepts does as the listener.
///
/// # Errors
/// When the socket is already gone.
pub fn keep_alive(socket: &SockRef<'_>) -> io::Result<()> {
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    socket.set_tcp_keepalive(&keepalive)
}

impl Stream {
    /// A TCP connection that we have opened, with Nagle's algorithm off; see [`keep_alive`].
    ///
    /// # Errors
    /// When the socket is already gone.
    pub fn opened(tcp: TcpStream) -> io::Result<Self> {
        keep_alive(&SockRef::from(&tcp))?;
        tcp.set_nodelay(true)?;
        Ok(Self::Tcp(tcp))
    }

    /// True when its bytes are the socket's own.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Unix(_))
    }

    /// Ready with what `read` has done with the socket, which was not for want of bytes; of a [plain](Self::is_plain) one.
    pub fn poll_reading<R>(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let done = match self {
                Self::Tcp(tcp) => {
                    ready!(tcp.poll_read_ready(cx))?;
                    tcp.try_io(Interest::READABLE, || read(tcp.as_fd()))
                }
                Self::Unix(unix) => {
                    ready!(unix.poll_read_ready(cx))?;
                    unix.try_io(Interest::READABLE, || read(unix.as_fd()))
                }
                Self::Secured(_) | Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            if !done.as_ref().is_err_and(would_block) {
                return Poll::Ready(done);
            }
        }
    }

    /// Ready with what `write` has done with the socket, which was not for want of room; of a [plain](Self::is_plain) one.
    pub fn poll_writing<R>(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let done = match self {
                Self::Tcp(tcp) => {
                    ready!(tcp.poll_write_ready(cx))?;
                    tcp.try_io(Interest::WRITABLE, || write(tcp.as_fd()))
                }
                Self::Unix(unix) => {
                    ready!(unix.poll_write_ready(cx))?;
                    unix.try_io(Interest::WRITABLE, || write(unix.as_fd()))
                }
                Self::Secured(_) | Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            if !done.as_ref().is_err_and(would_block) {
                return Poll::Ready(done);
            }
        }
    }

    /// The address on our side.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok(),
            Self::Unix(_) => None,
            Self::Tls(tls) => tls.get_ref().0.local_address(),
            Self::Secured(tls) => tls.get_ref().0.local_address(),
        }
    }

    /// Closing it will be seen as a reset, not as an end.
    pub fn reset_on_close(&self) {
        match self {
            // It may be gone already.
            Self::Tcp(tcp) => drop(tcp.set_zero_linger()),
            Self::Unix(_) => {}
            Self::Tls(tls) => tls.get_ref().0.reset_on_close(),
            Self::Secured(tls) => tls.get_ref().0.reset_on_close(),
        }
    }

    /// True when the peer sends nothing more, or is gone, also if what it sent before has not been read; as far as the
    /// reactor knows, without a system call.
    #[must_use]
    pub fn has_left(&self) -> bool {
        let ready = match self {
            Self::Tcp(tcp) => tcp.ready(Interest::READABLE).now_or_never(),
            Self::Unix(unix) => unix.ready(Interest::READABLE).now_or_never(),
            Self::Tls(tls) => return tls.get_ref().0.has_left(),
            Self::Secured(tls) => return tls.get_ref().0.has_left(),
        };
        ready.is_some_and(|ready| ready.map_or(true, |ready| ready.is_read_closed()))
    }

    /// True when something has come that nobody will read, so that closing would be a reset; as far as the reactor knows: no
    /// system call unless something has happened on the socket. It may be read by asking.
    #[must_use]
    pub fn has_unread(&mut self) -> bool {
        let read = match self {
            Self::Tcp(tcp) => tcp.try_read(&mut [0]),
            Self::Unix(unix) => unix.try_read(&mut [0]),
            Self::Tls(tls) => return tls.get_mut().0.has_unread(),
            Self::Secured(tls) => return tls.get_mut().0.has_unread(),
        };
        read.is_ok_and(|read| read > 0)
    }

    /// True while nothing has arrived and the peer has not closed, as far as the reactor knows: no system call
    /// unless something has happened on the socket. Under TLS what is not for the application may have arrived.
    #[must_use]
    pub fn is_quiet(&mut self) -> bool {
        let read = match self {
            Self::Tcp(tcp) => tcp.try_read(&mut [0]),
            Self::Unix(unix) => unix.try_read(&mut [0]),
            Self::Secured(tls) => {
                // Whoever takes it polls again, with a waker.
                let mut cx = Context::from_waker(Waker::noop());
                return Pin::new(tls).poll_read(&mut cx, &mut ReadBuf::new(&mut [0])).is_pending();
            }
            // A client's connection is never kept for another.
            Self::Tls(_) => return false,
        };
        read.is_err_and(|error| would_block(&error))
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Secured(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, bytes),
            Self::Secured(tls) => Pin::new(tls).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = parts {
            // rustls writes a single record so too, and a `send` is cheaper than a `writev` of one.
            return self.poll_write(cx, only);
        }
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, parts),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, parts),
            Self::Secured(tls) => Pin::new(tls).poll_write_vectored(cx, parts),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Secured(tls) => Pin::new(tls).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Secured(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_nobody_has_read_is_known_and_an_end_is_not_taken_for_it() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut ours = Stream::Unix(ours);
        assert!(!ours.has_unread());
        theirs.write_all(b"xy").await.unwrap();
        poll_fn(|cx| ours.poll_reading(cx, |_| Ok(()))).await.unwrap();
        assert!(ours.has_unread() && ours.has_unread());
        assert!(!ours.has_unread(), "both bytes are read by asking");
        drop(theirs);
        poll_fn(|cx| ours.poll_reading(cx, |_| Ok(()))).await.unwrap();
        assert!(!ours.has_unread());
    }
}
