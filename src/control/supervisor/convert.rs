//! What is counted and configured, as the verdict takes it.

use super::overdue::MOMENT;
use crate::proxy::ledger::{Counted, Side, Sums};
use crate::release::Trial;
use crate::release::verdict::{Again, EndpointCounts, Group, Settings, Tolerance};
use crate::table::{self, BasisPoints, SuperviseRules};

/// What the candidate did that none of these endpoints did, if there was anything: those that are gone, or were too many to be told
/// apart, and what reached none.
pub(super) fn elsewhere(endpoints: &[EndpointCounts], sums: &Sums) -> Option<EndpointCounts> {
    let candidate = sums.groups.iter().map(|sides| &sides[Side::Candidate as usize]);
    let (decided, bad) = candidate.fold((0, 0), |(all, bad), of| (all + of.decided, bad + of.failed));
    let rest = endpoints.iter().fold(EndpointCounts { decided, bad }, |rest, of| EndpointCounts {
        decided: rest.decided.saturating_sub(of.decided),
        bad: rest.bad.saturating_sub(of.bad),
    });
    (rest.decided > 0).then_some(rest)
}

/// What was counted under one weight.
pub(super) fn group(w: f64, baseline: &Counted, candidate: &Counted) -> Group {
    let both = |of: fn(&Counted) -> u64| [of(baseline), of(candidate)];
    Group {
        w,
        decided: both(|counted| counted.decided),
        bad: both(|counted| counted.failed),
        guard_bad: candidate.capped,
        guard_decided: candidate.decided.saturating_sub(candidate.failed.saturating_sub(candidate.capped)),
        measured: both(|counted| counted.measured),
        client_errors: both(|counted| counted.client_errors),
        slow: [baseline.slow, candidate.slow],
        slow_beyond: candidate.slow_beyond,
        again: Again {
            bad: both(|counted| counted.again.failed),
            client_errors: both(|counted| counted.again.client_errors),
            slow: [baseline.again.slow, candidate.again.slow],
        },
    }
}

/// A share as a number from 0 to 1.
pub(super) fn ratio(share: BasisPoints) -> f64 {
    f64::from(share.points()) / f64::from(BasisPoints::ALL.points())
}

/// And back.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 10,000")]
pub(super) fn points(ratio: f64) -> BasisPoints {
    let points = (ratio.clamp(0.0, 1.0) * f64::from(BasisPoints::ALL.points())).round() as u64;
    BasisPoints::new(points).unwrap_or(BasisPoints::ALL)
}

/// The rules of a service, in this trial.
pub(super) fn settings(rules: &SuperviseRules, trial: &Trial) -> Settings {
    let tolerance = |of: table::Tolerance| Tolerance {
        rho: f64::from(of.ratio) / 1e3,
        delta: f64::from(of.excess) / 1e6,
    };
    let leans_back = rules.probe && trial.exclusive.is_none();
    Settings {
        alpha: f64::from(rules.alpha) / 1e9,
        suspect_weight: ratio(rules.suspect_weight),
        suspect_hold: rules.suspect_hold.as_secs_f64(),
        errors: tolerance(rules.errors),
        client_errors: tolerance(rules.client_errors),
        leans_back,
        bad_budget: rules.bad_budget,
        // Where suspicion leads to a coin, it may be quick.
        guard_pace: (!leans_back).then_some(1e6 / MOMENT as f64),
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::verdict::endpoint_fault;

    /// What the version did in all, in two generations.
    fn sums(decided: u64, failed: u64) -> Sums {
        let mut sums = Sums::default();
        sums.groups[0][1] = Counted { decided: decided - 1, failed, ..Counted::default() };
        sums.groups[3][1] = Counted { decided: 1, ..Counted::default() };
        sums
    }

    #[test]
    fn an_endpoint_is_not_to_blame_for_what_others_did_of_which_nothing_is_known() {
        let known = |bad| [EndpointCounts { decided: 10, bad }, EndpointCounts { decided: 30, bad: 0 }];
        let fault = |bad, sums: &Sums| {
            let mut counts = known(bad).to_vec();
            counts.extend(elsewhere(&counts, sums));
            endpoint_fault(&counts)
        };
        assert_eq!(elsewhere(&known(9), &sums(40, 9)), None);
        assert_eq!(fault(9, &sums(40, 9)), Some(0));
        // As many again, by endpoints that are gone or were one too many.
        assert_eq!(fault(9, &sums(80, 20)), None);
        // These alone: the last one is nobody.
        assert_eq!(fault(0, &sums(50, 10)), Some(2));
        // Counters are read while they are written.
        assert_eq!(elsewhere(&known(9), &sums(30, 5)), None);
    }
}
