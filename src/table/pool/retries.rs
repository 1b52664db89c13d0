//! When a request is tried again, and how often.

use std::time::Duration;

use crate::table::BasisPoints;

/// When a request is tried again with another endpoint of its version. Whatever is said here, one of which the endpoint
/// may have seen something is tried again only if it may run twice: an idempotent one, of whose body nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RetryRules {
    /// Most attempts after the first; 0: none. Default 1.
    pub attempts: u32,
    /// After which failures; by default all but [`Failing::GatewayError`].
    pub on: Vec<Failing>,
    /// Answers with which it is tried again, each 400 to 599; by default none.
    pub statuses: Vec<u16>,
    /// How many attempts may be made again, of so many requests; default 20 %.
    pub budget: BasisPoints,
    /// How many may be in any case, a second; default 10.
    pub min_per_second: u32,
    /// How long one attempt of a request that may run twice may take until its answer's head; `None`: as long as any.
    pub per_try_timeout: Option<Duration>,
}

/// A sort of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failing {
    /// There was no connection to be had, or a new one took nothing, so that nothing was sent.
    Connect,
    /// The endpoint said that it had not looked at the request (HTTP/2: `REFUSED_STREAM`, `GOAWAY`).
    Refused,
    /// The connection ended before the answer, or what came was not an answer.
    Reset,
    /// An attempt took longer than [`RetryRules::per_try_timeout`].
    Timeout,
    /// The answer was 502, 503 or 504.
    GatewayError,
}

impl Failing {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Connect, Self::Refused, Self::Reset, Self::Timeout, Self::GatewayError];

    /// The word for it.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::GatewayError => "gateway_error",
        }
    }
}

impl RetryRules {
    /// True when an answer with this status is a reason to try again.
    #[must_use]
    pub fn repeats(&self, status: u16) -> bool {
        let is_gateway = (502..=504).contains(&status) && self.on.contains(&Failing::GatewayError);
        is_gateway || self.statuses.contains(&status)
    }

    /// True when some status is a reason to try again.
    #[must_use]
    pub fn looks_at_status(&self) -> bool {
        self.on.contains(&Failing::GatewayError) || !self.statuses.is_empty()
    }
}

impl Default for RetryRules {
    fn default() -> Self {
        let on = vec![Failing::Connect, Failing::Refused, Failing::Reset, Failing::Timeout];
        let budget = BasisPoints::new(2_000).unwrap_or(BasisPoints::NONE);
        Self { attempts: 1, on, statuses: Vec::new(), budget, min_per_second: 10, per_try_timeout: None }
    }
}
