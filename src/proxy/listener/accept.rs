//! A socket that is accepted on, and what comes of it: for this worker, or on its way to another one.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::task::{Context, Poll, ready};

use rustix::net::{SocketFlags, accept_with, acceptfrom_with};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;

use super::bind::Accepting;
use crate::proxy::upstream::Stream;
use crate::proxy::upstream::stream::tune;

/// A client's connection.
pub(super) struct Accepted {
    pub(super) stream: Stream,
    /// The client's address, where it has one.
    pub(super) from: Option<SocketAddr>,
    /// The address that it has connected to, where the connection need not be asked for it.
    pub(super) to: Option<SocketAddr>,
}

/// A connection as it was accepted: on no worker's runtime yet.
#[derive(Debug)]
pub enum Fresh {
    /// Where it comes from, and where it goes to if the listener knows.
    Tcp(std::net::TcpStream, SocketAddr, Option<SocketAddr>),
    /// From this machine.
    Unix(std::os::unix::net::UnixStream),
}

impl Fresh {
    /// To be served on the worker that calls it.
    pub(super) fn stay(self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Tcp(tcp, from, to) => Accepted { stream: Stream::accepted(tcp), from: Some(from), to },
            Self::Unix(unix) => {
                Accepted { stream: Stream::Unix(UnixStream::from_std(unix)?), from: None, to: None }
            }
        })
    }
}

impl AsFd for Fresh {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp, ..) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        }
    }
}

/// A socket on the worker's runtime.
///
/// What it accepts is not put on the runtime, as the runtime's own listeners would: a connection that asks once and is
/// answered at once never need be there.
pub(super) struct Listener {
    socket: AsyncFd<Accepting>,
    /// Its address, unless that is all addresses of the machine.
    to: Option<SocketAddr>,
    /// True until nobody was queued once: who is may have come before the socket was [tuned](tune).
    has_elders: Cell<bool>,
}

impl Listener {
    pub(super) fn of(accepting: Accepting) -> io::Result<Self> {
        let mut to = None;
        if let Accepting::Tcp(listener) = &accepting {
            to = listener.local_addr().ok().filter(|to| !to.ip().is_unspecified());
        }
        #[expect(
            deprecated,
            reason = "what came for it has to be vouched for; these sockets keep their descriptor"
        )]
        let socket = AsyncFd::with_interest(accepting, Interest::READABLE)?;
        Ok(Self { socket, to, has_elders: Cell::new(true) })
    }

    /// The next one. Cancel-safe; polled, because the futures that the runtime has for it cost twice as much.
    pub(super) async fn accept(&self) -> io::Result<Fresh> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Fresh>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            match ready.try_io(|socket| accept(socket.get_ref(), self.to)) {
                Ok(accepted) => return Poll::Ready(accepted.and_then(|fresh| self.tuned(fresh))),
                Err(_nobody) => self.has_elders.set(false),
            }
        }
    }

    /// The options of a connection that may have come before its listener had them: without them, an answer that goes out
    /// in two parts waits for the client's delayed acknowledgement.
    fn tuned(&self, fresh: Fresh) -> io::Result<Fresh> {
        if let (Fresh::Tcp(tcp, ..), true) = (&fresh, self.has_elders.get()) {
            tune(&SockRef::from(tcp))?;
        }
        Ok(fresh)
    }

    /// Takes all that the kernel has queued, as the kernel tells it and not as the runtime has heard, and closes.
    pub(super) fn last(self, mut take: impl FnMut(Fresh)) {
        loop {
            match accept(self.socket.get_ref(), self.to).and_then(|fresh| self.tuned(fresh)) {
                Ok(fresh) => take(fresh),
                Err(error) if is_clients(&error) => {}
                // Nobody is left, or there is no descriptor for them.
                Err(_) => return,
            }
        }
    }
}

/// The next connection that the kernel has, to `to` if that is known.
fn accept(socket: &Accepting, to: Option<SocketAddr>) -> io::Result<Fresh> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    match socket {
        Accepting::Tcp(listener) => {
            let (socket, from) = acceptfrom_with(listener, flags)?;
            // As if it had gone before it was accepted; no kernel does so.
            let from = from.and_then(|from| from.try_into().ok()).ok_or(io::ErrorKind::NotConnected)?;
            Ok(Fresh::Tcp(socket.into(), from, to))
        }
        Accepting::Unix(listener) => Ok(Fresh::Unix(accept_with(listener, flags)?.into())),
    }
}

impl AsFd for Accepting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

impl AsRawFd for Accepting {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Errors of one connection that was gone before it was accepted (accept(2)).
pub(super) fn is_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | NotConnected | InvalidInput)
}

#[cfg(test)]
mod tests {
    use super::super::ListenAddr;
    use super::super::bind::{Sockets, bind, share};
    use super::*;

    fn is_without_delay(fresh: Fresh) -> bool {
        let Fresh::Tcp(tcp, ..) = fresh else { panic!("a TCP connection") };
        tcp.nodelay().unwrap()
    }

    fn listener(address: &str) -> (Listener, SocketAddr) {
        let sockets = bind(&ListenAddr::Tcp(address.parse().unwrap()), 1).unwrap();
        let ListenAddr::Tcp(address) = sockets.real else { panic!("a TCP address") };
        (on(sockets), address)
    }

    /// The only socket's listener.
    fn on(sockets: Sockets) -> Listener {
        Listener::of(sockets.shares.into_iter().flatten().next().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn what_is_accepted_is_without_nagles_delay() {
        let (listener, address) = listener("127.0.0.1:0");
        let is_set = SockRef::from(listener.socket.get_ref()).tcp_nodelay().unwrap();
        assert!(is_set, "nobody sets it for each connection");
        let _clients = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
        assert!(is_without_delay(listener.accept().await.unwrap()));
        let mut last = Vec::new();
        listener.last(|fresh| last.push(is_without_delay(fresh)));
        assert_eq!(last, [true]);
    }

    #[tokio::test]
    async fn whoever_came_before_the_socket_was_ours_is_without_it_too() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let _elders = [(); 3].map(|()| std::net::TcpStream::connect(address).unwrap());
        let listener = on(share(&ListenAddr::Tcp(address), vec![socket.into()], 1).unwrap());
        assert!(is_without_delay(listener.accept().await.unwrap()));
        assert!(is_without_delay(listener.accept().await.unwrap()));
        let mut last = Vec::new();
        listener.last(|fresh| last.push(is_without_delay(fresh)));
        assert_eq!(last, [true]);
    }

    #[tokio::test]
    async fn only_a_listener_on_all_addresses_does_not_know_where_its_clients_came_to() {
        for (on, is_known) in [("127.0.0.1:0", true), ("0.0.0.0:0", false), ("[::]:0", false)] {
            let (listener, address) = listener(on);
            let client = std::net::TcpStream::connect(("127.0.0.1", address.port())).unwrap();
            let Accepted { stream, from, to } = listener.accept().await.unwrap().stay().unwrap();
            assert_eq!(from.map(|from| from.port()), Some(client.local_addr().unwrap().port()));
            assert_eq!(to.is_some(), is_known, "{on}");
            assert!(to.is_none_or(|to| Some(to) == stream.local_address()), "{on}: {to:?}");
        }
    }
}
