//! A byte stream to an endpoint or from a client: TCP or a Unix socket.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::FutureExt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::poll_proceed;
use tokio::time::timeout;
use tokio_rustls::client;
use tokio_rustls::server::TlsStream;

/// An open connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// From a client over TCP, not on the runtime for as long as nobody has to wait for it: many ask once, are answered, and
    /// are gone, and the kernel need not watch those. Nothing is left when the runtime would not have it, nor of any that was closed
    /// before its time.
    Fresh(Option<std::net::TcpStream>),
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

/// How many bytes a TLS record has at most (RFC 8446 §5.1); a part of one cannot be read.
const RECORD: usize = 1 << 14;

/// How much is read at a time of a connection that is not on the runtime: more than most heads have.
const FIRST: usize = 4096;

/// Has the kernel ask on a quiet TCP connection whether the other side is there, and send small parts at once (without
/// Nagle's algorithm). A connection that comes to a listener takes over what the listener has at that moment.
///
/// # Errors
/// When the socket is already gone.
pub fn tune(socket: &SockRef<'_>) -> io::Result<()> {
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_nodelay(true)
}

impl Stream {
    /// A TCP connection that we have opened; see [`tune`].
    ///
    /// # Errors
    /// When the socket is already gone.
    pub fn opened(tcp: TcpStream) -> io::Result<Self> {
        tune(&SockRef::from(&tcp))?;
        Ok(Self::Tcp(tcp))
    }

    /// A TCP connection that a client has opened, which does not block; see [`tune`].
    #[must_use]
    pub fn accepted(tcp: std::net::TcpStream) -> Self {
        Self::Fresh(Some(tcp))
    }

    /// True when nobody is woken by what happens on it, since nobody has had to wait for it so far.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        matches!(self, Self::Fresh(_))
    }

    /// Puts it on the runtime of the worker that calls it, unless it is there.
    ///
    /// # Errors
    /// When the kernel watches no more sockets (`fs.epoll.max_user_watches`), or has no memory for it.
    pub fn settle(&mut self) -> io::Result<()> {
        if let Self::Fresh(fresh) = self {
            let tcp = fresh.take().ok_or(io::ErrorKind::NotConnected)?;
            *self = Self::Tcp(TcpStream::from_std(tcp)?);
        }
        Ok(())
    }

    /// What `attempt` does with a fresh connection. When that has to be waited for, it is settled, and there is nothing.
    fn poll_fresh<R>(
        &mut self,
        cx: &mut Context<'_>,
        attempt: impl FnOnce(&std::net::TcpStream) -> io::Result<R>,
    ) -> Poll<io::Result<Option<R>>> {
        let Self::Fresh(fresh) = self else { return Poll::Ready(Ok(None)) };
        let tcp = fresh.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        // As the runtime has it of its own: whoever always has more must let others have their turn.
        let turn = ready!(poll_proceed(cx));
        let done = attempt(tcp);
        if done.as_ref().is_err_and(would_block) {
            return Poll::Ready(self.settle().map(|()| None));
        }
        turn.made_progress();
        Poll::Ready(done.map(Some))
    }

    /// True when there is something to read, be it the end: by the kernel, the reactor may not know yet. Under TLS it need not be for
    /// the application.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        let socket = match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
            Self::Fresh(Some(tcp)) => tcp.as_fd(),
            Self::Fresh(None) => return true,
            Self::Tls(tls) => return tls.get_ref().0.is_readable(),
            Self::Secured(tls) => return tls.get_ref().0.is_readable(),
        };
        let mut polled = [PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// True when it is a Unix socket, or over one.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp(_) | Self::Fresh(_) => false,
            Self::Tls(tls) => tls.get_ref().0.is_unix(),
            Self::Secured(tls) => tls.get_ref().0.is_unix(),
        }
    }

    /// True when its bytes are the socket's own.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Fresh(_) | Self::Unix(_))
    }

    /// True when nothing that can be read was sent by a write of so many bytes that has failed. Under TLS all but the last of
    /// several records may have been.
    #[must_use]
    pub fn fails_whole(&self, bytes: usize) -> bool {
        self.is_plain() || bytes <= RECORD
    }

    /// Ready with what `read` has done with the socket, which was not for want of bytes; of a [plain](Self::is_plain) one.
    pub fn poll_reading<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.settle()?;
        loop {
            let done = match &*self {
                Self::Tcp(tcp) => {
                    ready!(tcp.poll_read_ready(cx))?;
                    tcp.try_io(Interest::READABLE, || read(tcp.as_fd()))
                }
                Self::Unix(unix) => {
                    ready!(unix.poll_read_ready(cx))?;
                    unix.try_io(Interest::READABLE, || read(unix.as_fd()))
                }
                Self::Fresh(_) | Self::Secured(_) | Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
            };
            if !done.as_ref().is_err_and(would_block) {
                return Poll::Ready(done);
            }
        }
    }

    /// Ready with what `write` has done with the socket, which was not for want of room; of a [plain](Self::is_plain) one.
    pub fn poll_writing<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        self.settle()?;
        loop {
            let done = match &*self {
                Self::Tcp(tcp) => {
                    ready!(tcp.poll_write_ready(cx))?;
                    tcp.try_io(Interest::WRITABLE, || write(tcp.as_fd()))
                }
                Self::Unix(unix) => {
                    ready!(unix.poll_write_ready(cx))?;
                    unix.try_io(Interest::WRITABLE, || write(unix.as_fd()))
                }
                Self::Fresh(_) | Self::Secured(_) | Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
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
            Self::Fresh(tcp) => tcp.as_ref()?.local_addr().ok(),
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
            Self::Fresh(tcp) => {
                let _ = tcp.as_ref().map(|tcp| SockRef::from(tcp).set_linger(Some(Duration::ZERO)));
            }
            Self::Unix(_) => {}
            Self::Tls(tls) => tls.get_ref().0.reset_on_close(),
            Self::Secured(tls) => tls.get_ref().0.reset_on_close(),
        }
    }

    /// Takes what has come and says a `last` word, as far as that goes at once. Closing is then no reset, which could overtake
    /// the word; all of it is best effort. Nothing is said under TLS.
    pub fn dismiss(&mut self, last: &[u8]) {
        let mut forgotten = [0; FIRST];
        match self {
            Self::Tcp(tcp) => drop((tcp.try_read(&mut forgotten), tcp.try_write(last))),
            Self::Fresh(Some(tcp)) => drop((tcp.read(&mut forgotten), tcp.write(last))),
            Self::Unix(unix) => drop((unix.try_read(&mut forgotten), unix.try_write(last))),
            Self::Fresh(None) | Self::Tls(_) | Self::Secured(_) => {}
        }
    }

    /// True when the peer sends nothing more, or is gone, also if what it sent before has not been read; as far as the
    /// reactor knows, without a system call; of a fresh connection it knows from the next turn on.
    #[must_use]
    pub fn has_left(&mut self) -> bool {
        if self.settle().is_err() {
            return true;
        }
        let ready = match self {
            Self::Fresh(_) => return true,
            Self::Tcp(tcp) => tcp.ready(Interest::READABLE).now_or_never(),
            Self::Unix(unix) => unix.ready(Interest::READABLE).now_or_never(),
            Self::Tls(tls) => return tls.get_mut().0.has_left(),
            Self::Secured(tls) => return tls.get_mut().0.has_left(),
        };
        ready.is_some_and(|ready| ready.map_or(true, |ready| ready.is_read_closed()))
    }

    /// True when a reset has come, or comes within `limit`, after the end of what the peer sends. Never so of a Unix socket.
    pub async fn is_reset_within(&self, limit: Duration) -> bool {
        match self {
            Self::Tcp(tcp) => timeout(limit, tcp.ready(Interest::ERROR)).await.is_ok(),
            Self::Unix(_) | Self::Fresh(_) => false,
            Self::Tls(tls) => Box::pin(tls.get_ref().0.is_reset_within(limit)).await,
            Self::Secured(tls) => Box::pin(tls.get_ref().0.is_reset_within(limit)).await,
        }
    }

    /// True when something has come that nobody will read, so that closing would be a reset; as far as the reactor knows: no
    /// system call unless something has happened on the socket, or it is fresh. It may be read by asking.
    #[must_use]
    pub fn has_unread(&mut self) -> bool {
        let read = match self {
            Self::Tcp(tcp) => tcp.try_read(&mut [0]),
            Self::Fresh(tcp) => tcp.as_ref().map_or(Ok(0), |mut tcp| tcp.read(&mut [0])),
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
            Self::Fresh(_) | Self::Tls(_) => return false,
        };
        read.is_err_and(|error| would_block(&error))
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let most = buf.remaining().min(FIRST);
        if let Some(read) = ready!(this.poll_fresh(cx, |mut tcp| tcp.read(buf.initialize_unfilled_to(most))))?
        {
            buf.advance(read);
            return Poll::Ready(Ok(()));
        }
        match this {
            Self::Fresh(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Secured(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(written) = ready!(this.poll_fresh(cx, |mut tcp| tcp.write(bytes)))? {
            return Poll::Ready(Ok(written));
        }
        match this {
            Self::Fresh(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
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
        let this = self.get_mut();
        if let Some(written) = ready!(this.poll_fresh(cx, |mut tcp| tcp.write_vectored(parts)))? {
            return Poll::Ready(Ok(written));
        }
        match this {
            Self::Fresh(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
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
            Self::Tcp(_) | Self::Fresh(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Secured(tls) => Pin::new(tls).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Fresh(Some(tcp)) => Poll::Ready(tcp.shutdown(Shutdown::Write)),
            Self::Fresh(None) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Secured(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
