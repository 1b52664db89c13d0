//! One bad endpoint, or a bad version?

/// What one endpoint of the candidate did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndpointCounts {
    /// First attempts that were decided.
    pub decided: u64,
    /// How many of them were bad.
    pub bad: u64,
}

/// An endpoint at fault has at least so many bad answers,
const LEAST_BAD: u64 = 3;
/// and at least this share of all of them,
const SHARE: f64 = 0.8;
/// and alike endpoints would differ so much at most so often.
const LARGEST_CHANCE: f64 = 0.01;

/// The endpoint that alone is at fault, when there is one: almost all bad answers are from it, and by chance they would not be.
///
/// Of a single endpoint nothing can be said. Two or three need about eight bad answers, four five.
#[must_use]
pub fn endpoint_fault(endpoints: &[EndpointCounts]) -> Option<usize> {
    let bad: u64 = endpoints.iter().map(|endpoint| endpoint.bad).sum();
    let decided: u64 = endpoints.iter().map(|endpoint| endpoint.decided).sum();
    let worst = (0..endpoints.len()).rev().max_by_key(|index| endpoints[*index].bad)?;
    let most = endpoints[worst];
    let is_concentrated = bad >= LEAST_BAD && most.bad as f64 >= SHARE * bad as f64;
    // Counters are read while they are written.
    if endpoints.len() < 2 || !is_concentrated || most.decided < most.bad || most.decided >= decided {
        return None;
    }
    let share = most.decided as f64 / decided as f64;
    let chance = endpoints.len() as f64 * at_least(most.bad, bad, share);
    (chance <= LARGEST_CHANCE).then_some(worst)
}

/// The probability of `least` or more of `n`, each with probability `p` between 0 and 1.
fn at_least(least: u64, n: u64, p: f64) -> f64 {
    let odds = (p / (1.0 - p)).ln();
    // The logarithm of each term from the one before: no power or factorial overflows.
    let mut term = n as f64 * (-p).ln_1p();
    let mut tail = 0.0;
    for x in 0..=n {
        if x >= least {
            tail += term.exp();
        }
        term += ((n - x) as f64 / (x + 1) as f64).ln() + odds;
    }
    tail
}
