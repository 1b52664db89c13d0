//! What is known of answers that have not ended: who is slow already, and what is presumed against a conviction.

use std::time::Instant;

use super::case::age;
use super::convert::ratio;
use super::inquiry::Inquiry;
use crate::proxy::ledger::{Counted, GENERATIONS, LATELY, Ledger, QUANTILES, Side, Sums};
use crate::release::verdict::{
    Cohort, LatencyTolerance, Stalled, bucket_low, latency_thresholds, missing_answers,
};

impl Inquiry {
    /// What is slow, by what the baseline did before.
    pub(super) fn learn(&self, ledger: &Ledger, sums: &Sums) {
        let part = f64::from(self.rules.latency.part) / 1e3;
        let least = u64::try_from(self.rules.latency.least.as_micros()).unwrap_or(u64::MAX);
        let history = self.times.known(&sums.took[Side::Baseline as usize]);
        let Some(thresholds) = latency_thresholds(&history, LatencyTolerance { share: part, least }) else {
            return;
        };
        let narrow = |bucket: usize| u16::try_from(bucket).unwrap_or(u16::MAX);
        ledger
            .set_slow([thresholds.map(|of| narrow(of.baseline)), thresholds.map(|of| narrow(of.candidate))]);
    }

    /// What is in flight and known to be late.
    pub(super) fn stalled(&self, ledger: &Ledger, sums: &Sums, now: Instant) -> Stalled {
        let clock = u64::try_from(age(ledger.begun(), now).as_micros()).unwrap_or(u64::MAX);
        let lately = |side: Side| {
            sums.flights[side as usize].iter().map(move |(begun, started, finished)| Cohort {
                started: *started,
                finished: *finished,
                age: clock.saturating_sub(*begun),
            })
        };
        // What was begun before had another coin, or none: under this one it would be proof of nothing.
        let weighed = u64::try_from(age(self.weighed, now).as_micros()).unwrap_or(u64::MAX);
        let mut slow = [[0; QUANTILES]; 2];
        if let Some(thresholds) = ledger.slow() {
            for (side, slow) in [Side::Baseline, Side::Candidate].into_iter().zip(&mut slow) {
                for (count, from) in slow.iter_mut().zip(thresholds[side as usize]) {
                    let from = bucket_low(usize::from(from));
                    let late = lately(side).filter(|cohort| (from..=weighed).contains(&cohort.age));
                    *count = late.map(|cohort| cohort.started.saturating_sub(cohort.finished)).sum();
                }
            }
        }
        // Of these it is known that they are out for as long as that at least.
        let older = Cohort { started: sums.older[Side::Baseline as usize], finished: 0, age: LATELY };
        let cohorts: Vec<_> = lately(Side::Baseline).chain([older]).collect();
        let known = self.times.known(&sums.took[Side::Baseline as usize]);
        let breaking = breaking(&self.shares, sums);
        Stalled { w: ratio(self.share), missing: missing_answers(&known, &cohorts), breaking, slow }
    }
}

/// How many of the baseline's answers that are still coming are presumed to break off: as many as have to for the candidate's to
/// be no evidence, if so many are still coming.
///
/// What both versions need may break off the answers of one at once, and leave those of the other hanging for a while. Failures
/// of the candidate that came that way count against it when the baseline's share of them has had the time to come.
fn breaking(shares: &[Option<f64>; GENERATIONS], sums: &Sums) -> u64 {
    let due = |(w, [baseline, candidate]): (f64, &[Counted; 2])| {
        let share = (1.0 - w) / w * candidate.broken as f64;
        if 0.0 < w && w < 1.0 { (share - baseline.broken as f64).max(0.0) } else { 0.0 }
    };
    let due: f64 = shares.iter().zip(&sums.groups).filter_map(|(w, sides)| Some(due(((*w)?, sides)))).sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not below 0, and it saturates"
    )]
    let due = due.ceil() as u64;
    due.min(sums.open[Side::Baseline as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_baseline_are_presumed_to_break_off_as_the_candidates_do_while_they_may() {
        let sums = |open, [blue, green]: [u64; 2]| {
            let mut sums = Sums { open: [open, 7], ..Sums::default() };
            sums.groups[1] = [blue, green].map(|broken| Counted { broken, ..Counted::default() });
            sums
        };
        let at = |w, sums: &Sums| {
            let mut shares = [None; GENERATIONS];
            shares[1] = w;
            breaking(&shares, sums)
        };
        assert_eq!(at(Some(0.1), &sums(1_000, [0, 0])), 0);
        assert_eq!(at(Some(0.1), &sums(1_000, [0, 3])), 27);
        assert_eq!(at(Some(0.1), &sums(1_000, [20, 3])), 7, "so many have");
        assert_eq!(at(Some(0.1), &sums(1_000, [40, 3])), 0);
        assert_eq!(at(Some(0.1), &sums(5, [0, 3])), 5, "there are no more");
        for none in [Some(0.0), Some(1.0), None] {
            assert_eq!(at(none, &sums(1_000, [0, 3])), 0, "no coin was thrown");
        }
    }
}
