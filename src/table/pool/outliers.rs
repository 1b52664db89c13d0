//! Which endpoints of a pool are left alone for a time because their requests go worse than those of the others.

use std::time::Duration;

use crate::table::BasisPoints;

/// When an endpoint is ejected, and for how long. Only ever one that has others beside it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutlierRules {
    /// After so many failures in a row: answers 5xx, or none; 0: never. Default 5.
    pub consecutive_errors: u16,
    /// After so many answers 502, 503 or 504 in a row; 0: never. Default 5.
    pub consecutive_gateway_errors: u16,
    /// After so many attempts in a row without an answer (no connection, not in time, broken off); 0: never. Default 5.
    pub consecutive_local_errors: u16,
    /// When far more of its requests fail than of the others'; default never.
    pub success_rate: Option<Deviation>,
    /// When its answers take far longer than the others'; default never.
    pub latency: Option<Deviation>,
    /// How often rates and latencies are compared, and after how long without an ejection the next one is shorter again;
    /// default 10 s.
    pub interval: Duration,
    /// How long the first ejection lasts; each further one so much longer. Default 30 s.
    pub base_ejection: Duration,
    /// How long one lasts at most; default 300 s.
    pub max_ejection: Duration,
    /// This share of a pool is ejected at most, but one endpoint may always be; default 10 %.
    pub max_ejected: BasisPoints,
}

/// By how much an endpoint has to differ from the others, and of how many of them and how many requests enough is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Deviation {
    /// In thousandths: of the standard deviation of success rates, or of the others' median latency.
    pub factor: u32,
    /// So many endpoints have to have enough requests.
    pub min_hosts: u16,
    /// What is enough, in one interval.
    pub min_requests: u32,
}

impl Default for OutlierRules {
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            consecutive_gateway_errors: 5,
            consecutive_local_errors: 5,
            success_rate: None,
            latency: None,
            interval: Duration::from_secs(10),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: BasisPoints::new(1_000).unwrap_or_default(),
        }
    }
}

impl OutlierRules {
    /// No endpoint is ever ejected.
    #[must_use]
    pub fn never() -> Self {
        let (consecutive_errors, consecutive_gateway_errors, consecutive_local_errors) = (0, 0, 0);
        Self { consecutive_errors, consecutive_gateway_errors, consecutive_local_errors, ..Self::default() }
    }

    /// True when no endpoint is ever ejected by them.
    #[must_use]
    pub fn are_never(&self) -> bool {
        let rows = [self.consecutive_errors, self.consecutive_gateway_errors, self.consecutive_local_errors];
        rows == [0; 3] && self.success_rate.is_none() && self.latency.is_none()
    }

    /// How many of `endpoints` may be ejected at a time.
    #[must_use]
    pub fn most(&self, endpoints: usize) -> usize {
        match endpoints {
            0 | 1 => 0,
            several => (several * usize::from(self.max_ejected.points()) / 10_000).clamp(1, several - 1),
        }
    }

    /// How long the `count`th ejection in a row lasts.
    #[must_use]
    pub fn lasts(&self, count: u32) -> Duration {
        self.base_ejection.saturating_mul(count).min(self.max_ejection.max(self.base_ejection))
    }
}

/// Why an endpoint is ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Failures of any sort in a row.
    Errors,
    /// Answers 502, 503 or 504 in a row.
    GatewayErrors,
    /// Attempts without an answer in a row.
    LocalErrors,
    /// Far more of its requests fail than of the others'.
    SuccessRate,
    /// Its answers take far longer than the others'.
    Latency,
}

impl Cause {
    /// All of them, in order: each one's place is its number.
    pub const ALL: [Self; 5] =
        [Self::Errors, Self::GatewayErrors, Self::LocalErrors, Self::SuccessRate, Self::Latency];
    /// Those that are about a row, the first of them all.
    pub const ROWS: [Self; 3] = [Self::Errors, Self::GatewayErrors, Self::LocalErrors];

    /// The token for it.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::GatewayErrors => "gateway_errors",
            Self::LocalErrors => "local_errors",
            Self::SuccessRate => "success_rate",
            Self::Latency => "latency",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_counted_by_their_place() {
        assert_eq!(Cause::ALL.map(|cause| cause as usize), [0, 1, 2, 3, 4]);
        assert_eq!(Cause::ALL[..3], Cause::ROWS);
    }

    #[test]
    fn a_pool_is_never_emptied_and_one_of_several_may_always_go() {
        let rules = OutlierRules::default();
        assert_eq!([0, 1, 2, 9, 10, 19, 20, 100].map(|n| rules.most(n)), [0, 0, 1, 1, 1, 1, 2, 10]);
        let all = OutlierRules { max_ejected: BasisPoints::ALL, ..rules };
        assert_eq!([1, 2, 3].map(|n| all.most(n)), [0, 1, 2]);
    }

    #[test]
    fn each_ejection_is_longer_than_the_one_before_up_to_a_bound() {
        let rules = OutlierRules::default();
        assert_eq!([1, 2, 3, 10, 11, 99].map(|n| rules.lasts(n).as_secs()), [30, 60, 90, 300, 300, 300]);
    }
}
