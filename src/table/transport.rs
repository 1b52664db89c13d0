//! What is spoken to a version's endpoints, and how they prove who they are.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::name::Invalid;

/// What an endpoint of a version speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Protocol {
    /// HTTP/1.1 in clear text.
    #[default]
    Http1,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 in clear text, by prior knowledge.
    H2c,
    /// HTTP/2 over TLS.
    H2,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Http1, Self::Https, Self::H2c, Self::H2];

    /// The word for it.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Https => "https",
            Self::H2c => "h2c",
            Self::H2 => "h2",
        }
    }

    /// True over TLS.
    #[must_use]
    pub fn is_tls(self) -> bool {
        match self {
            Self::Http1 | Self::H2c => false,
            Self::Https | Self::H2 => true,
        }
    }

    /// True for HTTP/2.
    #[must_use]
    pub fn is_http2(self) -> bool {
        match self {
            Self::Http1 | Self::Https => false,
            Self::H2c | Self::H2 => true,
        }
    }
}

/// The PROXY header that comes first on a connection to an endpoint, and says whose requests it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyHeader {
    /// Version 1: a line of text.
    V1,
    /// Version 2: binary.
    V2,
}

impl FromStr for Protocol {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let named = Self::ALL.into_iter().find(|protocol| protocol.token() == text);
        named.ok_or_else(|| {
            let text = text.escape_default();
            Invalid(format!("`{text}` is not a protocol: expected http1, https, h2c or h2"))
        })
    }
}

/// How a version's endpoints are verified, and what is shown to them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    /// The name in their certificates; `None`: each endpoint's own host.
    pub server_name: Option<Arc<str>>,
    /// The name in the certificates of those that are given by address, as they are found by this name.
    pub found_by: Option<Arc<str>>,
    /// False: whoever answers is believed.
    pub verify: bool,
    /// The authorities that sign their certificates, as PEM; `None`: the system's.
    pub authorities: Option<Arc<[u8]>>,
    /// The certificate that is shown to them.
    pub identity: Option<Identity>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { server_name: None, found_by: None, verify: true, authorities: None, identity: None }
    }
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The chain, as PEM.
    pub certificate: Arc<[u8]>,
    /// The key, as PEM; it is never shown.
    pub key: Arc<[u8]>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No part of the key.
        write!(f, "Identity({} bytes)", self.certificate.len())
    }
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server_name, found_by, verify, authorities, identity } = self;
        // They are long.
        let authorities = authorities.as_ref().map(|pem| pem.len());
        f.debug_struct("UpstreamTls")
            .field("server_name", server_name)
            .field("found_by", found_by)
            .field("verify", verify)
            .field("authorities", &authorities)
            .field("identity", identity)
            .finish()
    }
}
