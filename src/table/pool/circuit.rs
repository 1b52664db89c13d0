//! How much of a version's pool may be used at a time.

use std::num::NonZeroU32;
use std::time::Duration;

/// How much may be asked of a version at a time, and who waits when that is not enough. All numbers are of the whole
/// process, over all workers, and exact, but for connections of HTTP/2; nothing is limited by default.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CircuitRules {
    /// Most requests in flight.
    pub requests: Option<NonZeroU32>,
    /// Most requests in flight with one endpoint.
    pub endpoint_requests: Option<NonZeroU32>,
    /// Most connections to one endpoint, those without a request too. Over HTTP/1.1 also the most requests with it; over
    /// HTTP/2 each worker has its part of them, and at least one.
    pub connections: Option<NonZeroU32>,
    /// Most requests that wait for one of these; default 1,024.
    pub pending: u32,
    /// How long they wait; default 1 s.
    pub queue_timeout: Duration,
}

/// The longest that a request may wait.
pub const LONGEST_QUEUE: Duration = Duration::from_mins(1);

impl CircuitRules {
    /// True when something is limited.
    #[must_use]
    pub fn limits(&self) -> bool {
        [self.requests, self.endpoint_requests, self.connections].iter().any(Option::is_some)
    }

    /// Most requests with one endpoint at a time, which takes one or several on each connection.
    #[must_use]
    pub fn at_endpoint(&self, shares_connections: bool) -> Option<NonZeroU32> {
        let connections = self.connections.filter(|_| !shares_connections);
        [self.endpoint_requests, connections].into_iter().flatten().min()
    }
}

impl Default for CircuitRules {
    fn default() -> Self {
        let (requests, endpoint_requests, connections) = (None, None, None);
        let (pending, queue_timeout) = (1_024, Duration::from_secs(1));
        Self { requests, endpoint_requests, connections, pending, queue_timeout }
    }
}
