//! How a version's pool is worked: what all of its endpoints have in common, and what is said of each.

pub mod balance;
pub mod traits;
pub mod warmup;

mod circuit;
pub mod health;
mod hedge;
mod keepalive;
pub mod outliers;
mod retries;

use std::sync::Arc;

use balance::Balance;
use warmup::Warmup;

pub use circuit::{CircuitRules, LONGEST_QUEUE};
pub use health::{HealthCheck, HttpProbe, Least, Probe};
pub use hedge::HedgeRules;
pub use keepalive::KeepaliveRules;
pub use outliers::{Deviation, OutlierRules};
pub use retries::{Failing, RetryRules};

/// How a pool is worked. A service says it for all of its versions, those that the API adds too; a version of the file may
/// say it again for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct PoolRules {
    /// When a request is tried again.
    pub retries: RetryRules,
    /// When it is sent to a second endpoint; `None`: never.
    pub hedge: Option<HedgeRules>,
    /// How much may be asked of it at a time.
    pub circuit: CircuitRules,
    /// How long its connections are used.
    pub keepalive: KeepaliveRules,
    /// How its endpoints are checked, if they are.
    pub health: Option<Arc<HealthCheck>>,
    /// Which of them are left alone for a time.
    pub outliers: OutlierRules,
    /// Which of its endpoints a request goes to.
    pub balance: Balance,
    /// What is done before a version gets traffic that had none; default `None`: nothing.
    pub warmup: Option<Warmup>,
}

impl PoolRules {
    /// True when a request that goes well has nothing to look at in them.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        let retries = &self.retries;
        let is_retried = retries.per_try_timeout.is_some() || retries.looks_at_status();
        !is_retried && self.hedge.is_none() && !self.circuit.limits()
    }
}
