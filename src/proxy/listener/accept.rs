//! A socket that is accepted on, and what comes of it: for this worker, or on its way to another one.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::bind::Accepting;
use crate::proxy::upstream::Stream;

/// A client's connection.
pub(super) struct Accepted {
    pub(super) stream: Stream,
    /// The client's address, where it has one.
    pub(super) from: Option<SocketAddr>,
    /// The address that it has connected to, where the connection need not be asked for it.
    pub(super) to: Option<SocketAddr>,
}

/// A connection as it was accepted, on the runtime of the worker that did.
pub(super) enum Fresh {
    Tcp(TcpStream, Ends),
    Unix(UnixStream),
}

/// Where a connection comes from, and where it goes to if the listener knows.
type Ends = (SocketAddr, Option<SocketAddr>);

/// A connection on no worker's runtime.
#[derive(Debug)]
pub struct Away(Socket);

#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpStream, Ends),
    Unix(std::os::unix::net::UnixStream),
}

impl Fresh {
    /// To be served on this worker.
    pub(super) fn stay(self) -> Accepted {
        match self {
            Self::Tcp(tcp, (from, to)) => Accepted { stream: Stream::Tcp(tcp), from: Some(from), to },
            Self::Unix(unix) => Accepted { stream: Stream::Unix(unix), from: None, to: None },
        }
    }

    /// To be served on another worker.
    pub(super) fn leave(self) -> io::Result<Away> {
        Ok(Away(match self {
            Self::Tcp(tcp, ends) => Socket::Tcp(tcp.into_std()?, ends),
            Self::Unix(unix) => Socket::Unix(unix.into_std()?),
        }))
    }
}

impl Away {
    /// To be served on this worker.
    pub(super) fn adopt(self) -> io::Result<Accepted> {
        let fresh = match self.0 {
            Socket::Tcp(tcp, ends) => Fresh::Tcp(TcpStream::from_std(tcp)?, ends),
            Socket::Unix(unix) => Fresh::Unix(UnixStream::from_std(unix)?),
        };
        Ok(fresh.stay())
    }
}

/// A socket on the worker's runtime.
pub(super) enum Listener {
    /// With its address, unless that is all addresses of the machine.
    Tcp(TcpListener, Option<SocketAddr>),
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn of(accepting: Accepting) -> io::Result<Self> {
        match accepting {
            Accepting::Tcp(listener) => {
                // Nagle's algorithm is off for all that is accepted here: on Linux they take it over from the listener.
                SockRef::from(&listener).set_tcp_nodelay(true)?;
                let to = listener.local_addr().ok().filter(|to| !to.ip().is_unspecified());
                Ok(Self::Tcp(TcpListener::from_std(listener)?, to))
            }
            Accepting::Unix(listener) => UnixListener::from_std(listener).map(Self::Unix),
        }
    }

    /// The next one. Cancel-safe; polled, because the futures that the runtime has for it cost twice as much.
    pub(super) async fn accept(&self) -> io::Result<Fresh> {
        poll_fn(|cx| match self {
            Self::Tcp(listener, to) => {
                listener.poll_accept(cx).map_ok(|(tcp, from)| Fresh::Tcp(tcp, (from, *to)))
            }
            Self::Unix(listener) => listener.poll_accept(cx).map_ok(|(unix, _)| Fresh::Unix(unix)),
        })
        .await
    }

    /// Takes all that the kernel has queued, as the kernel tells it and not as the runtime has heard, and closes.
    pub(super) fn last(self, mut take: impl FnMut(Fresh)) {
        let accept: Box<dyn Fn() -> io::Result<Fresh>> = match self {
            Self::Tcp(listener, to) => {
                let Ok(listener) = listener.into_std() else { return };
                Box::new(move || {
                    let (tcp, from) = listener.accept()?;
                    tcp.set_nonblocking(true)?;
                    Ok(Fresh::Tcp(TcpStream::from_std(tcp)?, (from, to)))
                })
            }
            Self::Unix(listener) => {
                let Ok(listener) = listener.into_std() else { return };
                Box::new(move || {
                    let unix = listener.accept()?.0;
                    unix.set_nonblocking(true)?;
                    Ok(Fresh::Unix(UnixStream::from_std(unix)?))
                })
            }
        };
        loop {
            match accept() {
                Ok(fresh) => take(fresh),
                Err(error) if is_clients(&error) => {}
                // Nobody is left, or there is no descriptor for them.
                Err(_) => return,
            }
        }
    }
}

/// Errors of one connection that was gone before it was accepted (accept(2)).
pub(super) fn is_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | NotConnected | InvalidInput)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_without_delay(fresh: Fresh) -> bool {
        let Accepted { stream: Stream::Tcp(tcp), .. } = fresh.stay() else { panic!("a TCP connection") };
        tcp.nodelay().unwrap()
    }

    fn listener(address: &str) -> (Listener, SocketAddr) {
        let socket = std::net::TcpListener::bind(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        (Listener::of(Accepting::Tcp(socket)).unwrap(), address)
    }

    #[tokio::test]
    async fn what_is_accepted_is_without_nagles_delay() {
        let (listener, address) = listener("127.0.0.1:0");
        let Listener::Tcp(socket, _) = &listener else { panic!("a TCP socket") };
        assert!(SockRef::from(socket).tcp_nodelay().unwrap(), "nobody sets it for each connection");
        let _clients = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
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
            let Accepted { stream, from, to } = listener.accept().await.unwrap().stay();
            assert_eq!(from.map(|from| from.port()), Some(client.local_addr().unwrap().port()));
            assert_eq!(to.is_some(), is_known, "{on}");
            assert!(to.is_none_or(|to| Some(to) == stream.local_address()), "{on}: {to:?}");
        }
    }
}
