//! Copies of requests for a version that does not serve them.

use std::time::Duration;

use http::Method;

use super::name::{BasisPoints, VersionName};

/// What says that a request is a copy, and of which service's requests: of a stranger it is taken out like what else he says of who is
/// asking.
pub const MARK: &str = "switchback-mirrored";

/// Which requests of a service are copied, to where, and what is made of the answers. They are thrown away: users see nothing of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MirrorRules {
    /// The version that gets the copies, as long as it gets no requests.
    pub to: VersionName,
    /// How many of the requests that may be copied are, by a coin of their own; default 100 %.
    pub share: BasisPoints,
    /// Requests with these methods may be; default GET, HEAD and OPTIONS.
    pub methods: Vec<Method>,
    /// Those with a body of at most so many bytes; default 64 KiB.
    pub body: u64,
    /// What of the two answers is compared.
    pub compare: Compare,
    /// How many copies there are at a time, on each worker; default 16.
    pub concurrency: u32,
    /// How long one may take in all; default 5 s.
    pub timeout: Duration,
}

/// What of the answers to a request and to its copy is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Compare {
    /// Nothing.
    None,
    /// Their statuses.
    #[default]
    Status,
    /// Their statuses, and their bodies as far as both are short enough.
    Body,
}

impl Compare {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Status, Self::Body];

    /// The token for it.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Status => "status",
            Self::Body => "body",
        }
    }
}

impl MirrorRules {
    /// The mirror that leads to `to`, as by default.
    #[must_use]
    pub fn to(to: VersionName) -> Self {
        Self {
            to,
            share: BasisPoints::ALL,
            methods: vec![Method::GET, Method::HEAD, Method::OPTIONS],
            body: 64 << 10,
            compare: Compare::default(),
            concurrency: 16,
            timeout: Duration::from_secs(5),
        }
    }

    /// True when the coin of a request, 32 bits of it, says that it is copied.
    #[must_use]
    pub fn takes(&self, coin: u32) -> bool {
        u64::from(coin) * u64::from(BasisPoints::ALL.points()) < u64::from(self.share.points()) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_all_coins_is_copied() {
        let mirror = |points| MirrorRules {
            share: BasisPoints::new(points).unwrap(),
            ..MirrorRules::to("green".parse().unwrap())
        };
        assert!(mirror(10_000).takes(u32::MAX) && !mirror(0).takes(0));
        let half = 1 << 31;
        assert!(mirror(5_000).takes(half - 1) && !mirror(5_000).takes(half));
    }
}
