//! When stable answers in the place of another version that has failed.

use super::name::BasisPoints;

/// What stable answers for the other versions of its service. Whatever is said here, a request of which a version may have seen
/// something is sent to stable only if it may run twice: an idempotent one, whose body is there again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ShieldRules {
    /// Answers that are failures too: from the first status to the last of each range, within 400 to 599. Default 500 to 599.
    pub statuses: Vec<(u16, u16)>,
    /// How much of a request's body is kept so that it can be sent once more, in bytes; default 64 KiB.
    pub body: u64,
    /// How many requests of others stable may get, of so many of its own; default 20 %.
    pub budget: BasisPoints,
    /// How many it may get in any case, a second; default 10.
    pub min_per_second: u32,
}

impl ShieldRules {
    /// True when an answer with this status is a failure.
    #[must_use]
    pub fn takes(&self, status: u16) -> bool {
        self.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl Default for ShieldRules {
    fn default() -> Self {
        let budget = BasisPoints::new(2_000).unwrap_or(BasisPoints::NONE);
        Self { statuses: vec![(500, 599)], body: 64 << 10, budget, min_per_second: 10 }
    }
}
