//! Where a version's requests go: its endpoints, and how they are spoken to.

use std::sync::Arc;

use super::tls::Connector;
use crate::table::{EndpointAddr, Protocol, UpstreamTls, VersionSpec};

/// A version's pool as a request needs it. Comparing two of the same version reads nothing that they point to.
#[derive(Debug, Clone)]
pub struct Target {
    /// The pool.
    pub endpoints: Arc<[EndpointAddr]>,
    /// What the endpoints speak.
    pub protocol: Protocol,
    /// How they are verified.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Made with the table and not by the first request, and alive as long as the table says so.
    connector: Option<Arc<Connector>>,
}

impl Target {
    /// The pool of `version`.
    #[must_use]
    pub fn of(version: &VersionSpec) -> Self {
        let VersionSpec { name: _, endpoints, protocol, tls } = version;
        let connector = protocol.is_tls().then(|| Connector::shared(tls.as_ref(), protocol.is_http2()));
        Self { endpoints: Arc::clone(endpoints), protocol: *protocol, tls: tls.clone(), connector }
    }

    /// No endpoints.
    #[must_use]
    pub fn none() -> Self {
        Self { endpoints: Arc::new([]), protocol: Protocol::default(), tls: None, connector: None }
    }

    /// True when nothing has changed.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let connector = |target: &Self| target.connector.as_ref().map(Arc::as_ptr);
        Arc::ptr_eq(&self.endpoints, &other.endpoints)
            && self.protocol == other.protocol
            && connector(self) == connector(other)
    }
}
