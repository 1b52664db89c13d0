//! Sockets that clients connect to: one a worker, all on the same address; the kernel shares out the connections.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use super::connection;
use super::entrance::Arrival;
use super::upstream::Stream;
use super::worker::Worker;

/// Length of the kernel's queue of connections that wait to be accepted; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 4096;
/// Pause when the process is out of file descriptors or memory.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Where clients connect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddr {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl ListenAddr {
    /// The port of an address that has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(address) => Some(address.port()),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One worker's socket of a listener, not yet on its runtime.
#[derive(Debug)]
pub enum Accepting {
    /// TCP, bound with `SO_REUSEPORT` beside its sisters.
    Tcp(std::net::TcpListener),
    /// A Unix socket, shared by all workers.
    Unix(std::os::unix::net::UnixListener),
}

/// Binds `address` for `workers` workers; also says where it is really bound.
///
/// # Errors
/// The address is in use, by whomever, or may not be bound.
pub fn bind(address: &ListenAddr, workers: usize) -> io::Result<(ListenAddr, Vec<Accepting>)> {
    match address {
        ListenAddr::Tcp(address) => {
            let (bound, sockets) = bind_tcp(*address, workers)?;
            Ok((ListenAddr::Tcp(bound), sockets.into_iter().map(Accepting::Tcp).collect()))
        }
        ListenAddr::Unix(path) => {
            let socket = bind_unix(path)?;
            let sockets: io::Result<Vec<_>> = (0..workers).map(|_| socket.try_clone()).collect();
            Ok((ListenAddr::Unix(path.clone()), sockets?.into_iter().map(Accepting::Unix).collect()))
        }
    }
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    // A stranger's socket with SO_REUSEPORT would share the port with us without a word: without the option the
    // kernel says that somebody is there.
    drop(tcp_socket(address, false)?);
    let mut bound = address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = tcp_socket(bound, true)?;
        socket.listen(BACKLOG)?;
        let listener = std::net::TcpListener::from(socket);
        bound = listener.local_addr()?;
        sockets.push(listener);
    }
    Ok((bound, sockets))
}

fn tcp_socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if !shared {
        socket.listen(1)?;
    }
    Ok(socket)
}

/// A socket that a dead process left behind is taken over; a live one is not.
fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net;
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        match net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let listener = net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A socket on the worker's runtime.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn of(accepting: Accepting) -> io::Result<Self> {
        match accepting {
            Accepting::Tcp(listener) => TcpListener::from_std(listener).map(Self::Tcp),
            Accepting::Unix(listener) => UnixListener::from_std(listener).map(Self::Unix),
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (tcp, peer) = listener.accept().await?;
                Ok((Stream::tcp(tcp)?, Some(peer.ip().to_canonical())))
            }
            Self::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

/// Accepts on `socket` until `closed`, then takes what the kernel has already queued.
pub async fn run(
    worker: Rc<Worker>,
    address: ListenAddr,
    socket: Accepting,
    closed: impl Future<Output = ()>,
) {
    let listener = match Listener::of(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot listen"),
    };
    let mut closed = std::pin::pin!(closed);
    loop {
        tokio::select! {
            biased;
            () = &mut closed => break,
            accepted = next(&worker, &listener) => take(&worker, &address, accepted).await,
        }
    }
    while let Some(accepted @ Ok(_)) = listener.accept().now_or_never() {
        take(&worker, &address, accepted).await;
    }
}

/// The next connection, once there is room for it; until then it waits in the kernel's queue.
async fn next(worker: &Worker, listener: &Listener) -> io::Result<(Stream, Option<IpAddr>)> {
    loop {
        let vacancy = worker.vacancy.notified();
        if worker.connections.get() < worker.settings().connections {
            return listener.accept().await;
        }
        vacancy.await;
    }
}

async fn take(worker: &Rc<Worker>, listener: &ListenAddr, accepted: io::Result<(Stream, Option<IpAddr>)>) {
    let (stream, address) = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            if !is_clients(&error) {
                tracing::warn!(%error, worker = worker.id, "cannot accept; trying again");
                tokio::time::sleep(BACK_OFF).await;
            }
            return;
        }
    };
    let settings = worker.settings();
    let (is_trusted, entrance) = (settings.trusts(listener, address), settings.entrance(listener));
    let worker = Rc::clone(worker);
    worker.opened();
    tokio::task::spawn_local(async move {
        // Counted out even when a request panics.
        let opened = Opened(Rc::clone(&worker));
        let secured = match &entrance.tls {
            None => Some((stream, None)),
            // Boxed: a clear-text connection's task shall not be the larger for it.
            Some(tls) => Box::pin(tls.accept(stream, &worker)).await.map(|(stream, how)| (stream, Some(how))),
        };
        if let Some((stream, secured)) = secured {
            let arrival = Arrival { address, is_trusted, entrance, secured };
            connection::run(stream, arrival, worker).await;
        }
        drop(opened);
    });
}

/// Errors of one connection that was gone before it was accepted (accept(2)).
fn is_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | NotConnected | InvalidInput)
}

/// An open connection, for the count.
struct Opened(Rc<Worker>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.closed();
    }
}
