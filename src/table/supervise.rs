//! Supervision: how a candidate is compared with its baseline, and what the workers need to know of that.

use std::time::Duration;

use super::name::{BasisPoints, Epoch, VersionName};

/// How the candidates of one service are supervised. Whole numbers, so that two rules are the same or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SuperviseRules {
    /// What supervision does about what it finds.
    pub mode: SuperviseMode,
    /// False reverts that are accepted in an hour of supervision, in billionths; default 100,000 (1e-4).
    pub alpha: u32,
    /// How much worse than the baseline's the candidate's share of errors may be; default 1.5 times + 0.2 %.
    pub errors: Tolerance,
    /// The same of answers with 4xx; default 1.5 times + 2 %.
    pub client_errors: Tolerance,
    /// How much slower than the baseline the candidate may answer; default 25 %, or 5 ms where that is more.
    pub latency: Slowness,
    /// The candidate's share while it is suspect; default 10 %.
    pub suspect_weight: BasisPoints,
    /// How long a first suspicion lasts at least; each further one four times as long. Default 30 s.
    pub suspect_hold: Duration,
    /// False: users never see the old version again after a flip without proof; then suspicion alone reverts. Default true.
    pub probe: bool,
    /// How long a flip is supervised; default 10 min.
    pub keep_old: Duration,
    /// How many bad answers more than tolerated are enough when evidence is weak; 0 (default): evidence alone decides.
    pub bad_budget: u64,
    /// How long, and for how many answers of each endpoint, speed does not count at first; default 10 s and 20.
    pub warmup: (Duration, u32),
    /// Of a client that stays with a version: after how long without another one a failure of its counts again; default 60 s.
    pub sticky_quiet: Duration,
}

/// What supervision does about what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuperviseMode {
    /// Nobody is compared, unless a change asks for it.
    Off,
    /// It tells, and never moves traffic.
    Alert,
    /// It leans back on suspicion and reverts on proof.
    On,
}

/// `p_candidate <= ratio × p_baseline + excess` is tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tolerance {
    /// Thousandths.
    pub ratio: u32,
    /// Millionths.
    pub excess: u32,
}

/// By what part, or by how much, whichever is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slowness {
    /// Thousandths.
    pub part: u32,
    /// At least this.
    pub least: Duration,
}

impl Default for SuperviseRules {
    fn default() -> Self {
        Self {
            mode: SuperviseMode::On,
            alpha: 100_000,
            errors: Tolerance { ratio: 1500, excess: 2000 },
            client_errors: Tolerance { ratio: 1500, excess: 20_000 },
            latency: Slowness { part: 250, least: Duration::from_millis(5) },
            suspect_weight: BasisPoints::TENTH,
            suspect_hold: Duration::from_secs(30),
            probe: true,
            keep_old: Duration::from_mins(10),
            bad_budget: 0,
            warmup: (Duration::from_secs(10), 20),
            sticky_quiet: Duration::from_mins(1),
        }
    }
}

/// Whose answers are counted in a service. Whenever one of these changes but the generation, counting begins anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The epoch at which the comparison began; 0 while nobody is compared.
    pub stage: Epoch,
    /// How often supervision itself has moved weights since then.
    pub generation: u32,
    /// The version that serves as the measure.
    pub baseline: VersionName,
    /// The version that is tried; `None`: what the baseline is like is learned for the next one.
    pub candidate: Option<VersionName>,
}

impl Watch {
    /// True when what is counted for the one belongs to the other.
    #[must_use]
    pub fn goes_on(&self, other: &Self) -> bool {
        (self.stage, &self.baseline, &self.candidate) == (other.stage, &other.baseline, &other.candidate)
    }
}
