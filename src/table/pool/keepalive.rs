//! How long connections to endpoints are used.

use std::num::NonZeroU32;
use std::time::Duration;

/// How long an HTTP/1.1 connection to an endpoint of a version is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeepaliveRules {
    /// How long it may be without a request; `None`: as the process says.
    pub idle: Option<Duration>,
    /// After how long it takes no more requests; default 1 h.
    pub lifetime: Duration,
    /// How many requests it takes; default any number.
    pub requests: Option<NonZeroU32>,
}

impl Default for KeepaliveRules {
    fn default() -> Self {
        Self { idle: None, lifetime: Duration::from_hours(1), requests: None }
    }
}
