//! Where clients connect, as the file says it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::table::Invalid;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddr {
    /// `0.0.0.0:8080`, `[::]:8080`; port 0 is any free one.
    Tcp(SocketAddr),
    /// `unix:/run/switchback/http.sock`.
    Unix(PathBuf),
}

impl FromStr for ListenAddr {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let unix = text.strip_prefix("unix:").map(PathBuf::from).filter(|path| path.is_absolute());
        let tcp = text.parse().map(Self::Tcp).ok();
        unix.map(Self::Unix).or(tcp).ok_or_else(|| {
            Invalid(format!(
                "`{}` is not an address to listen on: expected ip:port, [v6]:port or unix:/path",
                text.escape_default()
            ))
        })
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
