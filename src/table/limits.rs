//! What a service may be asked for at a time; a request beyond that is refused without reaching a version.

use std::num::NonZeroU32;
use std::time::Duration;

/// The limits of one service; `None` is no limit, and the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ServiceLimits {
    /// Requests in flight.
    pub in_flight: Option<NonZeroU32>,
    /// Requests a time.
    pub rate: Option<Rate>,
    /// Bytes of a request's body.
    pub request_body: Option<u64>,
    /// Bytes of an answer's body.
    pub response_body: Option<u64>,
}

/// So many requests in such a time, evenly, and at most `burst` at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many.
    pub requests: NonZeroU32,
    /// In what time.
    pub per: Duration,
    /// How many at once after a pause.
    pub burst: NonZeroU32,
    /// Whose requests are counted together.
    pub by: RateBy,
}

/// Whose requests count together for a [`Rate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RateBy {
    /// All of the service's.
    #[default]
    Service,
    /// Those of one client address, or of one IPv6 network of 64 bits; clients without one count together.
    Client,
}
