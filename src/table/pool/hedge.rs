//! When a request is sent to a second endpoint before the first has answered.

use std::time::Duration;

/// A request that changes nothing and has no body goes to another endpoint of its version too when there is no answer after
/// a while; the first answer counts, and the other attempt is ended. Off by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HedgeRules {
    /// After how long without an answer, and again after as long.
    pub after: Duration,
    /// To how many others, at most; default 1.
    pub max: u32,
}
