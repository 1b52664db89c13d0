//! How many attempts after the first a worker may make for one version: a share of its requests, and a few in any case. As many
//! requests of others that failed may come to it, by another such count.
//!
//! Without it every request to a version that fails would be two, when it can bear that least.
//!
//! Each worker has its own, made of its own requests; of the few in any case it has its part. Nothing is shared, and a
//! request that goes well does not touch it: what came in meanwhile is read off its counters when something has failed.

use std::cell::Cell;

use crate::table::{BasisPoints, RetryRules, ShieldRules};

/// One attempt; a request brings as many parts of it as the share has basis points.
const ATTEMPT: i64 = 10_000;
/// How long a request counts, in ticks: 10 s, as linkerd has it.
const WINDOW: u64 = 100;
const TICKS_A_SECOND: u64 = 10;

/// How much there is of it.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Of the requests.
    share: BasisPoints,
    /// In any case, over all workers.
    per_second: u32,
}

impl From<&RetryRules> for Allowance {
    fn from(rules: &RetryRules) -> Self {
        Self { share: rules.budget, per_second: rules.min_per_second }
    }
}

impl From<&ShieldRules> for Allowance {
    fn from(rules: &ShieldRules) -> Self {
        Self { share: rules.budget, per_second: rules.min_per_second }
    }
}

/// One worker's budget for one version.
#[derive(Debug)]
pub struct Budget(Cell<State>);

#[derive(Debug, Clone, Copy)]
struct State {
    /// What the requests of the window have brought, less what was taken; less than nothing when that came out of the
    /// reserve, so that no more is made in all than the larger of the two allows.
    share: i64,
    /// What is left of those in any case: at most a second's.
    reserve: i64,
    /// How many requests there had been, and the tick, when this was so.
    requests: u64,
    tick: u64,
}

impl Budget {
    /// That of a version which has had so many requests at this tick.
    #[must_use]
    pub fn new(requests: u64, tick: u64) -> Self {
        // Above any reserve: a second's is there at first.
        Self(Cell::new(State { share: 0, reserve: i64::MAX, requests, tick }))
    }

    /// Takes one attempt, if there is one, on one of so many workers; there have been so many requests at this tick.
    #[must_use]
    pub fn take(&self, rules: impl Into<Allowance>, workers: usize, requests: u64, tick: u64) -> bool {
        let rules = rules.into();
        let state = self.at(rules, workers, requests, tick);
        let may = state.has_one();
        self.0.set(if may { state.less(rules, workers) } else { state });
        may
    }

    /// True when there is one to take.
    #[must_use]
    pub fn has_one(&self, rules: impl Into<Allowance>, workers: usize, requests: u64, tick: u64) -> bool {
        self.at(rules.into(), workers, requests, tick).has_one()
    }

    /// Takes one whether there is one or not.
    pub fn charge(&self, rules: impl Into<Allowance>, workers: usize, requests: u64, tick: u64) {
        let rules = rules.into();
        self.0.set(self.at(rules, workers, requests, tick).less(rules, workers));
    }

    fn at(&self, rules: Allowance, workers: usize, requests: u64, tick: u64) -> State {
        let before = self.0.get();
        let elapsed = tick.saturating_sub(before.tick);
        let fresh = requests.saturating_sub(before.requests).saturating_mul(u64::from(rules.share.points()));
        let (kept, fresh) = if elapsed < WINDOW {
            (before.share.saturating_mul(signed(WINDOW - elapsed)) / signed(WINDOW), signed(fresh))
        } else {
            // Nobody knows when they came: as many as came in a window on average.
            (0, signed(fresh / elapsed * WINDOW))
        };
        let per_second = signed(u64::from(rules.per_second)).saturating_mul(ATTEMPT);
        let workers = signed(workers.max(1) as u64);
        let brought = signed(elapsed).saturating_mul(per_second) / signed(TICKS_A_SECOND) / workers;
        let reserve = before.reserve.saturating_add(brought).min(most(rules, workers));
        State { share: kept.saturating_add(fresh), reserve, requests, tick }
    }
}

impl State {
    fn has_one(self) -> bool {
        self.share >= ATTEMPT || self.reserve >= ATTEMPT
    }

    fn less(self, rules: Allowance, workers: usize) -> Self {
        let most = most(rules, signed(workers.max(1) as u64));
        let (share, reserve) = (self.share - ATTEMPT, (self.reserve - ATTEMPT).max(0));
        Self { share: share.max(-most), reserve, ..self }
    }
}

/// The largest reserve of one of so many workers: a second's, and at least one attempt if there is a reserve.
fn most(rules: Allowance, workers: i64) -> i64 {
    match signed(u64::from(rules.per_second)) {
        0 => 0,
        least => (least * ATTEMPT / workers).max(ATTEMPT),
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::clock::TICK;

    #[test]
    fn a_second_has_as_many_ticks() {
        assert_eq!(u128::from(TICKS_A_SECOND) * TICK.as_millis(), 1000);
    }

    fn rules(percent: u64, min_per_second: u32) -> RetryRules {
        let budget = BasisPoints::new(percent * 100).unwrap();
        RetryRules { budget, min_per_second, ..RetryRules::default() }
    }

    /// How many of `requests` at once are tried again when all fail.
    fn at_once(rules: &RetryRules, workers: usize, requests: u64) -> usize {
        let budget = Budget::new(0, 0);
        (1..=requests).filter(|request| budget.take(rules, workers, *request, 0)).count()
    }

    #[test]
    fn a_share_of_many_requests_and_a_few_of_few() {
        assert_eq!(at_once(&rules(20, 10), 1, 1000), 200);
        assert_eq!(at_once(&rules(20, 10), 1, 10), 10);
        assert_eq!(at_once(&rules(20, 0), 1, 10), 2);
        assert_eq!(at_once(&rules(0, 10), 1, 1000), 10);
        assert_eq!(at_once(&rules(0, 0), 1, 1000), 0);
        assert_eq!(at_once(&rules(100, 0), 1, 1000), 1000);
        // Its part of the few, and at least one.
        assert_eq!(at_once(&rules(0, 10), 2, 1000), 5);
        assert_eq!(at_once(&rules(0, 10), 64, 1000), 1);
    }

    #[test]
    fn the_few_come_back_every_second_and_the_share_with_the_requests() {
        let (rules, budget) = (rules(0, 10), Budget::new(0, 0));
        let take = |tick| (0..100).filter(|_| budget.take(&rules, 1, 0, tick)).count();
        assert_eq!([0, 0, 1, 2, 7, 1000].map(take), [10, 0, 1, 1, 5, 10]);
    }

    #[test]
    fn what_was_not_taken_of_the_share_is_forgotten_after_a_while() {
        let (rules, budget) = (rules(20, 0), Budget::new(0, 0));
        assert!(!budget.take(&rules, 1, 0, 0));
        // A thousand requests in a hundred seconds are a hundred in the window.
        let taken = (0..100).filter(|_| budget.take(&rules, 1, 1000, 1000)).count();
        assert_eq!(taken, 20);
    }

    #[test]
    fn what_was_made_for_nothing_is_missing_later() {
        let (rules, budget) = (rules(20, 10), Budget::new(0, 0));
        (0..10).for_each(|_| budget.charge(&rules, 1, 0, 0));
        assert!(!budget.take(&rules, 1, 50, 0));
        assert!(budget.take(&rules, 1, 60, 0));
    }

    proptest! {
        /// Whatever fails when: never more than the share of all requests, or what every second brings.
        #[test]
        fn no_more_than_the_larger_of_the_two(
            percent in 0u64..=100,
            min in 0u32..100,
            workers in 1usize..8,
            steps in prop::collection::vec((0u64..50, 0u64..20, 0usize..30), 1..200),
        ) {
            let (rules, budget) = (rules(percent, min), Budget::new(0, 0));
            let (mut requests, mut tick, mut taken) = (0, 0, 0);
            for (more, ticks, failures) in steps {
                requests += more;
                tick += ticks;
                taken += (0..failures).filter(|_| budget.take(&rules, workers, requests, tick)).count() as u64;
            }
            let share = requests * percent / 100;
            let few = u64::from(min) * (tick + TICKS_A_SECOND) / TICKS_A_SECOND / workers as u64 + 1;
            prop_assert!(taken <= share + few, "{taken} > {share} + {few}");
        }
    }
}
