//! What the process listens on besides its clients' listeners, bound or inherited, and all of it as a successor gets it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;

use super::activation::{ADMIN, ADMIN_TCP, METRICS};
use crate::admin;
use crate::proxy::crew::Crew;
use crate::proxy::inherited::{Given, Inherited, Keeper, name, role_name};
use crate::proxy::listener::ListenAddr;

/// A listening socket for a successor.
#[derive(Debug)]
pub(super) struct Handle {
    /// How it is called.
    pub(super) name: String,
    /// True when a service manager keeps its file.
    pub(super) is_kept: bool,
    /// It.
    pub(super) fd: OwnedFd,
}

/// The admin socket.
pub(super) fn admin_socket(path: &Path, inherited: &mut Inherited) -> Result<(admin::Socket, Handle)> {
    let address = ListenAddr::Unix(path.to_owned());
    let (socket, is_kept) = match one(inherited, &address, ADMIN)? {
        Some(Given { address: ListenAddr::Unix(at), keeper, socket, .. }) => {
            let is_ours = keeper == Keeper::Us;
            (admin::Socket::adopt(socket.into(), &at, is_ours)?, !is_ours)
        }
        Some(given) => bail!("the inherited socket `{ADMIN}` ({}) is no Unix socket", given.address),
        None => (admin::Socket::bind(path)?, false),
    };
    let fd = socket.handle()?;
    Ok((socket, Handle { name: called(&address, ADMIN, is_kept), is_kept, fd }))
}

/// The metrics listener.
pub(super) fn metrics_socket(listen: SocketAddr, inherited: &mut Inherited) -> Result<(TcpListener, Handle)> {
    tcp(listen, METRICS, inherited)
        .with_context(|| format!("cannot listen on {listen} for metrics; choose another [metrics] listen"))
}

/// The admin API's over TCP.
pub(super) fn remote_socket(listen: SocketAddr, inherited: &mut Inherited) -> Result<(TcpListener, Handle)> {
    tcp(listen, ADMIN_TCP, inherited).with_context(|| {
        format!("cannot listen on {listen} for the admin API; choose another [admin] listen")
    })
}

fn tcp(listen: SocketAddr, role: &str, inherited: &mut Inherited) -> Result<(TcpListener, Handle)> {
    let address = ListenAddr::Tcp(listen);
    let (listener, is_kept) = match one(inherited, &address, role)? {
        Some(Given { address: ListenAddr::Tcp(_), keeper, socket, .. }) => {
            (std::net::TcpListener::from(socket), keeper == Keeper::Giver)
        }
        Some(given) => bail!("the inherited socket `{role}` ({}) is no TCP socket", given.address),
        None => (bind(listen)?, false),
    };
    let fd = listener.try_clone()?.into();
    let listener = TcpListener::from_std(listener)?;
    Ok((listener, Handle { name: called(&address, role, is_kept), is_kept, fd }))
}

fn bind(listen: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A service manager's has its name, whatever its address is; ours has its address for one.
fn called(address: &ListenAddr, role: &str, is_kept: bool) -> String {
    if is_kept { role.to_owned() } else { role_name(role, address) }
}

fn one(inherited: &mut Inherited, address: &ListenAddr, role: &str) -> Result<Option<Given>> {
    let mut given = inherited.take_role(role, address);
    if given.len() > 1 {
        bail!("{} inherited sockets are for `{role}`, which takes one", given.len());
    }
    Ok(given.pop())
}

/// Everything that is listened on, for a successor.
///
/// # Errors
/// When there are no file descriptors left.
pub(super) fn handles<'h>(crew: &Crew, own: impl Iterator<Item = &'h Handle>) -> io::Result<Vec<Handle>> {
    let mut all = Vec::new();
    for (asked, open) in crew.listeners() {
        for fd in &open.handles {
            all.push(Handle { name: name(asked), is_kept: open.is_kept(), fd: fd.try_clone()? });
        }
    }
    for Handle { name, is_kept, fd } in own {
        all.push(Handle { name: name.clone(), is_kept: *is_kept, fd: fd.try_clone()? });
    }
    Ok(all)
}
