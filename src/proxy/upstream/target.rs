//! Where a version's requests go: its endpoints, and how they are spoken to.

use std::sync::Arc;

use super::names::Name;
use super::tls::Connector;
use crate::table::{
    EndpointAddr, PoolRules, PoolTraits, Protocol, ProxyHeader, Service, UpstreamTls, VersionSpec,
};

/// A version's pool as a request needs it.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// The pool, without those that are drained.
    pub endpoints: Arc<[EndpointAddr]>,
    /// How it is worked.
    pub pool: Arc<PoolRules>,
    /// What is said of its endpoints.
    pub traits: PoolTraits,
    /// What the endpoints speak.
    pub protocol: Protocol,
    /// What comes first on a connection.
    pub proxy_header: Option<ProxyHeader>,
    /// How they are verified.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Made with the table and not by the first request, and alive as long as the table says so.
    connector: Option<Arc<Connector>>,
    /// Being resolved for as long as the table has them.
    #[expect(dead_code, reason = "held, not read: a name is resolved while somebody holds it")]
    names: Arc<[Arc<Name>]>,
}

impl Target {
    /// The pool of `version` of `service`.
    #[must_use]
    pub fn of(service: &Service, version: &VersionSpec) -> Self {
        let VersionSpec { name: _, endpoints, protocol, tls, proxy_header, draining, traits, pool: _ } =
            version;
        let connector = protocol.is_tls().then(|| Connector::shared(tls.as_ref(), protocol.is_http2()));
        let name = |endpoint: &EndpointAddr| match endpoint {
            EndpointAddr::Named { host, .. } => Some(Name::shared(host)),
            EndpointAddr::Tcp(_) | EndpointAddr::Unix(_) => None,
        };
        let names = endpoints.iter().filter_map(name).collect();
        let serving = match draining.is_empty() {
            true => Arc::clone(endpoints),
            false => version.serving().cloned().collect(),
        };
        let (endpoints, tls) = (serving, tls.clone());
        let (pool, traits) = (Arc::clone(service.pool(version)), traits.clone());
        Self {
            endpoints,
            pool,
            traits,
            protocol: *protocol,
            proxy_header: *proxy_header,
            tls,
            connector,
            names,
        }
    }

    /// True when nothing has changed.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let connector = |target: &Self| target.connector.as_ref().map(Arc::as_ptr);
        Arc::ptr_eq(&self.endpoints, &other.endpoints)
            && Arc::ptr_eq(&self.pool, &other.pool)
            && self.traits.is_same(&other.traits)
            && (self.protocol, self.proxy_header) == (other.protocol, other.proxy_header)
            && connector(self) == connector(other)
    }
}
