//! Where the endpoints of a version are found, beside those that the file and the API name.

use std::path::Path;
use std::sync::Arc;

use super::name::{ServiceName, VersionName};

/// Somewhere endpoints are listed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// Each address of a name is an endpoint, on this port.
    Dns {
        /// The name.
        host: Arc<str>,
        /// The port of all of them.
        port: u16,
    },
    /// The service records of a name (RFC 2782): host and port of each, of those with the best priority.
    Srv {
        /// The name, such as `_http._tcp.shop.internal`.
        name: Arc<str>,
    },
    /// A file that lists them, JSON or TOML by its ending.
    File(Arc<Path>),
}

impl Source {
    /// How it is called in the history and the log: the file's word, so that a list is its path alone.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Dns { host, port } => format!("dns {host}:{port}"),
            Self::Srv { name } => format!("srv {name}"),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// The endpoints of this version are to be found there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Discovery {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// Where.
    pub source: Source,
}
