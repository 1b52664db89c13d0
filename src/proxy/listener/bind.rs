//! A listener's sockets: bound, or taken over from whoever has bound them, and shared out over the workers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::ListenAddr;
use crate::proxy::upstream::stream::tune;

/// Length of the kernel's queue of connections that wait to be accepted; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 4096;

/// One worker's socket of a listener, not yet on its runtime.
#[derive(Debug)]
pub enum Accepting {
    /// TCP, bound with `SO_REUSEPORT` beside its sisters.
    Tcp(std::net::TcpListener),
    /// A Unix socket, shared by all workers.
    Unix(std::os::unix::net::UnixListener),
}

impl Accepting {
    fn of(socket: Socket, address: &ListenAddr) -> Self {
        match address {
            ListenAddr::Tcp(_) => Self::Tcp(socket.into()),
            ListenAddr::Unix(_) => Self::Unix(OwnedFd::from(socket).into()),
        }
    }
}

/// A listener's sockets, not yet served.
#[derive(Debug)]
pub struct Sockets {
    /// Where they are really bound.
    pub real: ListenAddr,
    /// A handle of each, for a successor: what is queued for one of them is only accepted from it.
    pub handles: Vec<OwnedFd>,
    /// What each worker accepts on: at least one.
    pub shares: Vec<Vec<Accepting>>,
}

/// Binds `address` for `workers` workers, one socket for each.
///
/// # Errors
/// The address is in use, by whomever, or may not be bound.
pub fn bind(address: &ListenAddr, workers: usize) -> io::Result<Sockets> {
    match address {
        ListenAddr::Tcp(address) => {
            let (bound, sockets) = bind_tcp(*address, workers)?;
            share(&ListenAddr::Tcp(bound), sockets, workers)
        }
        ListenAddr::Unix(path) => share(address, vec![bind_unix(path)?], workers),
    }
}

/// Shares `sockets`, all bound to `real`, out over `workers` workers: no socket is left without one, which would lose what
/// the kernel queues for it, and no worker without a socket. One that would be gets its own beside the others where the
/// kernel allows it (`SO_REUSEPORT`), else it accepts on another's too.
///
/// # Errors
/// When there is no socket at all, or no file descriptor for another.
pub fn share(real: &ListenAddr, mut sockets: Vec<Socket>, workers: usize) -> io::Result<Sockets> {
    if sockets.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    while sockets.len() < workers
        && let Some(another) = beside(real)
    {
        sockets.push(another);
    }
    if let ListenAddr::Tcp(_) = real {
        // Ours are already; whoever has bound the others may not have thought of it.
        sockets.iter().try_for_each(|socket| tune(&SockRef::from(socket)))?;
    }
    let count = sockets.len();
    let accepting = |index: usize| Ok(Accepting::of(sockets[index].try_clone()?, real));
    let share = |worker| {
        let own = (worker..count).step_by(workers);
        let first = if worker < count { None } else { Some(worker % count) };
        own.chain(first).map(accepting).collect()
    };
    let shares = (0..workers).map(share).collect::<io::Result<_>>()?;
    let handles = sockets.into_iter().map(OwnedFd::from).collect();
    Ok(Sockets { real: real.clone(), handles, shares })
}

/// One more socket for an address that is listened on.
fn beside(real: &ListenAddr) -> Option<Socket> {
    let ListenAddr::Tcp(address) = real else { return None };
    let socket = tcp_socket(*address, true).ok()?;
    socket.listen(BACKLOG).ok().map(|()| socket)
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<Socket>)> {
    // A stranger's socket with SO_REUSEPORT would share the port with us without a word. The first one is bound and listens without
    // the option, so that the kernel says when somebody is there, or wants to be at this very moment; its sisters come to it then.
    let first = tcp_socket(address, false)?;
    first.listen(BACKLOG)?;
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..workers {
        let socket = tcp_socket(bound, true)?;
        socket.listen(BACKLOG)?;
        sockets.push(socket);
    }
    Ok((bound, sockets))
}

fn tcp_socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 too, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    tune(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket that a dead process left behind is taken over; a live one is not.
fn bind_unix(path: &Path) -> io::Result<Socket> {
    use std::os::unix::net;
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        // Without waiting: an owner that is alive may be too busy to accept.
        let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?;
        match probe.connect(&SockAddr::unix(path)?) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Ok(()) | Err(_) => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let listener = net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(OwnedFd::from(listener).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn address(socket: &Socket) -> ListenAddr {
        ListenAddr::Tcp(socket.local_addr().unwrap().as_socket().unwrap())
    }

    fn counts(sockets: &Sockets) -> Vec<usize> {
        sockets.shares.iter().map(Vec::len).collect()
    }

    #[test]
    fn no_socket_is_left_without_a_worker() {
        let (_, given) = bind_tcp("127.0.0.1:0".parse().unwrap(), 5).unwrap();
        let sockets = share(&address(&given[0]), given, 2).unwrap();
        assert_eq!((counts(&sockets), sockets.handles.len()), (vec![3, 2], 5));
    }

    #[test]
    fn a_worker_without_a_socket_gets_one_beside_the_others() {
        let (_, given) = bind_tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let sockets = share(&address(&given[0]), given, 3).unwrap();
        assert_eq!((counts(&sockets), sockets.handles.len()), (vec![1, 1, 1], 3));
    }

    #[test]
    fn a_socket_that_allows_no_other_is_shared() {
        let given: Socket = TcpListener::bind("127.0.0.1:0").unwrap().into();
        let sockets = share(&address(&given), vec![given], 3).unwrap();
        assert_eq!((counts(&sockets), sockets.handles.len()), (vec![1, 1, 1], 1));
    }
}
