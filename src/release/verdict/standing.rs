//! Where a stage stands, and why: the words.

/// What is thought of the candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// There is too little evidence either way.
    Collecting,
    /// It was shown to be within tolerance.
    Healthy,
    /// It leans back to the baseline until there is a proof, or none.
    Suspect,
    /// It was proven to be worse: reverted.
    Breached,
    /// It was suspect again and again, without a proof: the operator decides.
    Held,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Collecting, Self::Healthy, Self::Suspect, Self::Breached, Self::Held];

    /// How it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Collecting => "collecting",
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Breached => "breached",
            Self::Held => "held",
        }
    }
}

/// What the versions are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Failures.
    ErrorRate,
    /// Answers that say the client is wrong.
    ClientErrorShare,
    /// Answers slower than three quarters of the baseline's.
    LatencyP75,
    /// Answers slower than 95 % of the baseline's.
    LatencyP95,
    /// Answers slower than 99 % of the baseline's.
    LatencyP99,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ErrorRate, Self::ClientErrorShare, Self::LatencyP75, Self::LatencyP95, Self::LatencyP99];

    /// How it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ErrorRate => "error_rate",
            Self::ClientErrorShare => "client_error_share",
            Self::LatencyP75 => "latency_p75",
            Self::LatencyP95 => "latency_p95",
            Self::LatencyP99 => "latency_p99",
        }
    }

    /// Which of p75, p95 and p99 it is, if it is about speed.
    #[must_use]
    pub fn quantile(self) -> Option<usize> {
        match self {
            Self::ErrorRate | Self::ClientErrorShare => None,
            Self::LatencyP75 => Some(0),
            Self::LatencyP95 => Some(1),
            Self::LatencyP99 => Some(2),
        }
    }
}

/// What a guard looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GuardOf {
    /// The candidate fails more often than the baseline did.
    Errors,
    /// The candidate is slower than the baseline was.
    Latency,
}

/// Why a stage is suspect, held or breached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Why {
    /// A guard, by what the baseline did before.
    Guard(GuardOf),
    /// So many bad answers in a row.
    Fuse,
    /// The comparison of the versions.
    Metric(Metric),
    /// No endpoint of the candidate could be reached.
    PoolDown,
    /// It was suspect to who judged before: an earlier process, or one of another pool.
    Inherited,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Guard(GuardOf::Errors),
        Self::Guard(GuardOf::Latency),
        Self::Fuse,
        Self::Metric(Metric::ErrorRate),
        Self::Metric(Metric::ClientErrorShare),
        Self::Metric(Metric::LatencyP75),
        Self::Metric(Metric::LatencyP95),
        Self::Metric(Metric::LatencyP99),
        Self::PoolDown,
        Self::Inherited,
    ];

    /// How it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Guard(GuardOf::Errors) => "guard_errors",
            Self::Guard(GuardOf::Latency) => "guard_latency",
            Self::Fuse => "fuse",
            Self::Metric(metric) => metric.name(),
            Self::PoolDown => "pool_down",
            Self::Inherited => "inherited",
        }
    }
}
