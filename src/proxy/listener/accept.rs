//! A socket that is accepted on, and what comes of it: for this worker, or on its way to another one.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::bind::Accepting;
use crate::proxy::upstream::Stream;

/// A client's connection, and its address where it has one.
pub(super) type Accepted = (Stream, Option<SocketAddr>);

/// A connection as it was accepted, on the runtime of the worker that did.
pub(super) enum Fresh {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// A connection on no worker's runtime.
#[derive(Debug)]
pub struct Away(Socket);

#[derive(Debug)]
enum Socket {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

impl Fresh {
    /// To be served on this worker.
    pub(super) fn stay(self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(tcp, from) => Ok((Stream::tcp(tcp)?, Some(from))),
            Self::Unix(unix) => Ok((Stream::Unix(unix), None)),
        }
    }

    /// To be served on another worker.
    pub(super) fn leave(self) -> io::Result<Away> {
        Ok(Away(match self {
            Self::Tcp(tcp, from) => Socket::Tcp(tcp.into_std()?, from),
            Self::Unix(unix) => Socket::Unix(unix.into_std()?),
        }))
    }
}

impl Away {
    /// To be served on this worker.
    pub(super) fn adopt(self) -> io::Result<Accepted> {
        match self.0 {
            Socket::Tcp(tcp, from) => Fresh::Tcp(TcpStream::from_std(tcp)?, from).stay(),
            Socket::Unix(unix) => Fresh::Unix(UnixStream::from_std(unix)?).stay(),
        }
    }
}

/// A socket on the worker's runtime.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) fn of(accepting: Accepting) -> io::Result<Self> {
        match accepting {
            Accepting::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            Accepting::Unix(listener) => UnixListener::from_std(listener).map(Self::Unix),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Fresh> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(tcp, from)| Fresh::Tcp(tcp, from)),
            Self::Unix(listener) => listener.accept().await.map(|(unix, _)| Fresh::Unix(unix)),
        }
    }

    /// Takes all that the kernel has queued, as the kernel tells it and not as the runtime has heard, and closes.
    pub(super) fn last(self, mut take: impl FnMut(Fresh)) {
        let accept: Box<dyn Fn() -> io::Result<Fresh>> = match self {
            Self::Tcp(listener) => {
                let Ok(listener) = listener.into_std() else { return };
                Box::new(move || {
                    let (tcp, from) = listener.accept()?;
                    tcp.set_nonblocking(true)?;
                    Ok(Fresh::Tcp(TcpStream::from_std(tcp)?, from))
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
        let Ok((Stream::Tcp(tcp), Some(_))) = fresh.stay() else { panic!("a TCP connection") };
        tcp.nodelay().unwrap()
    }

    #[tokio::test]
    async fn what_is_accepted_is_without_nagles_delay() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener::of(Accepting::Tcp(socket)).unwrap();
        let _clients = [(); 2].map(|()| std::net::TcpStream::connect(address).unwrap());
        assert!(is_without_delay(listener.accept().await.unwrap()));
        let mut last = Vec::new();
        listener.last(|fresh| last.push(is_without_delay(fresh)));
        assert_eq!(last, [true]);
    }
}
