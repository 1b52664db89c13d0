//! How a version's endpoints are checked, and how many of them have to be well for it to get traffic.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::table::{BasisPoints, Protocol};

/// How each endpoint of a pool is asked, again and again, whether it is well.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HealthCheck {
    /// What is asked, and what is a good answer.
    pub probe: Probe,
    /// What is spoken; `None`: as requests do.
    pub protocol: Option<Protocol>,
    /// Where, on the endpoint's own host; `None`: where requests go. A Unix socket has no other.
    pub port: Option<u16>,
    /// Whether a connection serves several checks; default true.
    pub reuse: bool,
    /// From the beginning of one check to that of the next; default 5 s.
    pub interval: Duration,
    /// By how much of that each is earlier or later; default 10 %.
    pub jitter: BasisPoints,
    /// Until the answer has to be there; never longer than the interval, default 1 s.
    pub timeout: Duration,
    /// After so many good answers in a row an endpoint that was down is up; default 2.
    pub rise: u16,
    /// After so many bad ones in a row one that was up is down; default 3.
    pub fall: u16,
    /// With fewer well endpoints a version gets no traffic that it did not have; default 1.
    pub min_healthy: Least,
}

/// What an endpoint is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Probe {
    /// A request.
    Http(HttpProbe),
    /// The health of this gRPC service (`grpc.health.v1`); empty: of the whole server.
    Grpc(Arc<str>),
    /// Whether it accepts a connection; over TLS, whether it is who it should be.
    Tcp,
}

impl Probe {
    /// The word for its kind.
    #[must_use]
    pub fn token(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Grpc(_) => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// A request and what its answer has to be like.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpProbe {
    /// Default GET.
    pub method: Method,
    /// With its query; default `/`.
    pub path: Arc<str>,
    /// The Host; `None`: the endpoint's own address.
    pub host: Option<HeaderValue>,
    /// Further fields.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Good statuses, from the first to the last of each range; default 200 to 299.
    pub status: Vec<(u16, u16)>,
    /// What the beginning of the body has to contain.
    pub body: Option<Arc<str>>,
}

impl Default for HttpProbe {
    fn default() -> Self {
        let (method, path, status) = (Method::GET, "/".into(), vec![(200, 299)]);
        Self { method, path, host: None, headers: Vec::new(), status, body: None }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            probe: Probe::Http(HttpProbe::default()),
            protocol: None,
            port: None,
            reuse: true,
            interval: Duration::from_secs(5),
            jitter: BasisPoints::new(1_000).unwrap_or_default(),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            min_healthy: Least::Count(1),
        }
    }
}

/// A lower bound on how many of a pool's endpoints are well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Least {
    /// So many.
    Count(usize),
    /// This share of them, rounded up.
    Share(BasisPoints),
}

impl Least {
    /// How many of `endpoints` that is.
    #[must_use]
    pub fn of(self, endpoints: usize) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Share(share) => (endpoints * usize::from(share.points())).div_ceil(10_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_endpoints_is_rounded_up() {
        let share = |percent: u64| Least::Share(BasisPoints::new(percent * 100).unwrap());
        assert_eq!([0, 1, 2, 3, 4].map(|endpoints| share(50).of(endpoints)), [0, 1, 1, 2, 2]);
        assert_eq!([share(0).of(7), share(1).of(7), share(100).of(7)], [0, 1, 7]);
        assert_eq!(Least::Count(3).of(2), 3);
    }
}
