//! Listening sockets that came with the process instead of being bound by it: from a service manager (sd_listen_fds(3)),
//! or from the process before this one.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use socket2::{Socket, Type};

use super::listener::ListenAddr;

/// What came with the process and nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Given>);

/// One listening socket.
#[derive(Debug)]
pub struct Given {
    /// As its giver calls it; may be empty.
    pub name: String,
    /// Where it is bound.
    pub address: ListenAddr,
    /// Whose is its file, when it has one.
    pub keeper: Keeper,
    /// The socket; it does not block.
    pub socket: Socket,
}

/// Who removes the file of a Unix socket in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// This process.
    Us,
    /// Whoever gave the socket: it goes on when the process has ended.
    Giver,
}

/// What came with the process is of no use to it.
#[derive(Debug, thiserror::Error)]
#[error("the inherited descriptor {number} (`{name}`) is not a listening stream socket{}; see sd_listen_fds(3)", why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
pub struct NotListening {
    /// Which one: 3 is the first.
    pub number: usize,
    /// As its giver calls it.
    pub name: String,
    /// What the system says about it.
    pub why: Option<io::Error>,
}

impl Given {
    /// Nobody wants it: its file goes with it, if that is ours.
    pub fn forget(&self) {
        if self.keeper == Keeper::Us {
            SocketFile::of(&self.address).iter().for_each(SocketFile::remove);
        }
    }
}

impl Inherited {
    /// These sockets, each with its name, in the order in which they came.
    ///
    /// # Errors
    /// [`NotListening`] for the first that is none.
    pub fn of(
        sockets: impl IntoIterator<Item = (String, OwnedFd)>,
        keeper: impl Fn(&str) -> Keeper,
    ) -> Result<Self, NotListening> {
        let given = sockets.into_iter().enumerate().map(|(index, (name, fd))| {
            let refused = |why| NotListening { number: index + 3, name: name.clone(), why };
            let (address, socket) =
                look(fd).map_err(|why| refused(Some(why)))?.ok_or_else(|| refused(None))?;
            let keeper = keeper(&name);
            Ok(Given { name, address, keeper, socket })
        });
        given.collect::<Result<_, _>>().map(Self)
    }

    /// Takes those that are called like `address`, see [`name`], or are bound to it.
    pub fn take(&mut self, address: &ListenAddr) -> Vec<Given> {
        let name = name(address);
        self.0.extract_if(.., |given| given.name == name || given.address == *address).collect()
    }

    /// Takes those with this name.
    pub fn take_named(&mut self, name: &str) -> Vec<Given> {
        self.0.extract_if(.., |given| given.name == name).collect()
    }

    /// Those that nobody has taken.
    pub fn rest(&self) -> impl Iterator<Item = &Given> {
        self.0.iter()
    }
}

/// What a socket for `address` is called: names are separated by colons, so that one in a name is written as `%3A`.
#[must_use]
pub fn name(address: &ListenAddr) -> String {
    address.to_string().replace('%', "%25").replace(':', "%3A")
}

/// Where `fd` listens; `None` when it does not.
fn look(fd: OwnedFd) -> io::Result<Option<(ListenAddr, Socket)>> {
    let socket = Socket::from(fd);
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Ok(None);
    }
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?;
    let path = || local.as_pathname().map(|path| ListenAddr::Unix(path.to_owned()));
    let address = local.as_socket().map(ListenAddr::Tcp).or_else(path);
    Ok(address.map(|address| (address, socket)))
}

/// A Unix socket's file, recognised by more than its path: a successor's in its place is left alone.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// The file of a socket that is bound to `address`, if it has one.
    #[must_use]
    pub fn of(address: &ListenAddr) -> Option<Self> {
        let ListenAddr::Unix(path) = address else { return None };
        Some(Self { path: path.clone(), identity: identity(path)? })
    }

    /// Nobody is to find a socket that nobody serves. It may be gone already.
    pub fn remove(&self) {
        if identity(&self.path) == Some(self.identity) {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn identity(path: &std::path::Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    fn listener() -> (ListenAddr, OwnedFd) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (ListenAddr::Tcp(listener.local_addr().unwrap()), listener.into())
    }

    #[test]
    fn a_socket_is_found_by_its_address_or_its_name() {
        let [(first, one), (second, two)] = [listener(), listener()];
        let asked = ListenAddr::Tcp("127.0.0.1:0".parse().unwrap());
        let sockets = [("web".to_owned(), one), ("127.0.0.1%3A0".to_owned(), two)];
        let mut inherited = Inherited::of(sockets, |_| Keeper::Giver).unwrap();
        assert_eq!(inherited.take(&asked)[0].address, second);
        assert_eq!(inherited.rest().map(|given| given.name.as_str()).collect::<Vec<_>>(), ["web"]);
        assert_eq!(inherited.take(&first).len(), 1);
        assert!(inherited.take_named("web").is_empty() && inherited.rest().next().is_none());
    }

    #[test]
    fn what_does_not_listen_is_told_by_its_number_and_name() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sockets = [("web".to_owned(), listener().1), ("dns".to_owned(), udp.into())];
        let refused = Inherited::of(sockets, |_| Keeper::Us).unwrap_err();
        assert_eq!((refused.number, refused.name.as_str()), (4, "dns"));
    }
}
