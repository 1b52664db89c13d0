//! The admin socket's file: private from the first instant, taken over from the dead, never from the living.

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Type};
use tokio::net::UnixListener;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A bound admin socket; a file that it has made goes when this is dropped, unless [`Socket::take_file`] was called.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    file: Option<SocketFile>,
    /// The file, which somebody else has made and goes by, is ours once it is taken.
    is_heir: bool,
}

/// The file of a socket that is bound; it goes when this is dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// (device, inode) of our file: one that a successor has put in its place is left alone.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> Option<Self> {
        let identity = identity(&fs::symlink_metadata(path).ok()?);
        Some(Self { path: path.to_owned(), identity })
    }

    /// Leaves it where it is: another process serves the socket.
    pub fn leave(mut self) {
        self.identity = (0, 0);
    }
}

/// Why the admin socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A living process answers there.
    #[error("another process serves this socket: {0}; stop that one, or set another admin.socket")]
    Served(PathBuf),
    /// A file, a directory or a link stands where the socket shall be.
    #[error(
        "cannot make the admin socket {0}: something that is not a socket is there; move it away or set admin.socket"
    )]
    NotASocket(PathBuf),
    /// Somebody has bound it, and left it open to others.
    #[error(
        "the admin socket {path} is open to others than its owner (mode {mode:03o}), and whoever connects may do everything; set SocketMode=0600 in the service manager's unit"
    )]
    Open {
        /// It.
        path: PathBuf,
        /// Who may what.
        mode: u32,
    },
    /// The system refused.
    #[error("cannot {doing} for the admin socket: {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl Socket {
    /// Binds `path`, mode 0600; makes its directory, mode 0700, when it is missing. Needs a tokio runtime.
    ///
    /// A socket that nobody listens on any more is taken over.
    ///
    /// # Errors
    /// [`BindError`] names the path and what is wrong with it.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |doing| move |source| BindError::Io { doing, path: path.to_owned(), source };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.map_err(failed("make the directory"))?;
        }
        make_way(path)?;
        let listener = listen(path).map_err(failed("bind"))?;
        let identity = identity(&fs::symlink_metadata(path).map_err(failed("read"))?);
        let listener = UnixListener::from_std(listener).map_err(failed("listen"))?;
        let file = Some(SocketFile { path: path.to_owned(), identity });
        Ok(Self { listener, path: path.to_owned(), file, is_heir: false })
    }

    /// Serves a socket that somebody has bound to `path`; its file can be taken if `is_ours`, and stays until then.
    ///
    /// # Errors
    /// [`BindError`] when it cannot be listened on; [`BindError::Open`] when others than its owner may connect to somebody else's.
    pub fn adopt(socket: OwnedFd, path: &Path, is_ours: bool) -> Result<Self, BindError> {
        if !is_ours {
            check_private(path)?;
        }
        let failed = |source| BindError::Io { doing: "listen", path: path.to_owned(), source };
        let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), file: None, is_heir: is_ours })
    }

    /// A second handle of it, for another process.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.listener.as_fd().try_clone_to_owned()
    }

    /// Its file, if it is ours: it stays when the socket is dropped, and goes when what is returned is.
    pub fn take_file(&mut self) -> Option<SocketFile> {
        if std::mem::take(&mut self.is_heir) {
            self.file = SocketFile::at(&self.path);
        }
        self.file.take()
    }

    /// Where it is bound.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|there| identity(&there) == self.identity);
        if ours {
            // Best effort: a socket left behind is taken over by the next process.
            fs::remove_file(&self.path).ok();
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Refused, not mended: who has connected since it was bound would be heard.
fn check_private(path: &Path) -> Result<(), BindError> {
    let there = match fs::symlink_metadata(path) {
        // Nobody finds it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there.map_err(|source| BindError::Io { doing: "look", path: path.to_owned(), source })?,
    };
    let mode = there.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(BindError::Open { path: path.to_owned(), mode }) }
}

/// Removes a socket whose process is dead.
fn make_way(path: &Path) -> Result<(), BindError> {
    let failed = |doing| move |source| BindError::Io { doing, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look")(error)),
        Ok(there) if !there.file_type().is_socket() => return Err(BindError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    // Without waiting: an owner that is alive may be too busy to accept.
    let probe = || {
        let probe = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
        probe.set_nonblocking(true)?;
        probe.connect(&SockAddr::unix(path)?)
    };
    match probe() {
        Ok(()) => Err(BindError::Served(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(BindError::Served(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove a dead process's socket"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look who listens")(error)),
    }
}

/// Before `listen` a connection is refused, so nobody can slip in before the mode is set.
fn listen(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(OwnedFd::from(socket).into())
}
