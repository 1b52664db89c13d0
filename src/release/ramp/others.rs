//! What a ramp leaves to the other versions.

use std::cmp::Reverse;

use super::Ramp;
use crate::table::{BasisPoints, Split, VersionName};

impl Ramp {
    /// The weights of the step that is reached: of the rest each of the others has what it had of theirs before, to a point or two, and
    /// never more than at the step before: none that was emptied has any again.
    #[must_use]
    pub fn split(&self) -> Split {
        let points = |weight: BasisPoints| u64::from(weight.points());
        let others = || self.before.split.shares().filter(|(version, _)| **version != self.to);
        let mut others: Vec<_> = others().map(|(version, had)| (version, points(had), points(had))).collect();
        for step in &self.steps.all()[..=self.step] {
            self.share_out(points(BasisPoints::ALL) - points(*step), &mut others);
        }
        let shares = others.into_iter().map(|(version, _, now)| (version.clone(), BasisPoints::new(now)));
        let shares = shares.map(|(version, now)| (version, now.unwrap_or_default()));
        let weights: Vec<_> = shares.chain([(self.to.clone(), self.weight())]).collect();
        Split::new(weights).unwrap_or_else(|_| Split::all_to(self.to.clone()))
    }

    /// So many points for the others, each with what it had before the ramp, and with what it has until now.
    fn share_out(&self, rest: u64, others: &mut [(&VersionName, u64, u64)]) {
        let all: u64 = others.iter().map(|(_, had, _)| had).sum();
        // What rounding leaves goes to the largest remainders; among equals first to whoever carries the service.
        others.sort_by_key(|(version, had, _)| Reverse((had * rest % all, **version == self.before.stable)));
        let mut left = rest - others.iter().map(|(_, had, _)| had * rest / all).sum::<u64>();
        let mut shares: Vec<_> = others.iter().map(|(_, had, _)| had * rest / all).collect();
        // A point each, and then wherever there is room: together they had as many.
        for most in [1, rest] {
            for (share, (_, _, now)) in shares.iter_mut().zip(others.iter()) {
                let more = left.min(most).min(now.saturating_sub(*share));
                (*share, left) = (*share + more, left - more);
            }
        }
        others.iter_mut().zip(shares).for_each(|((_, _, now), share)| *now = share);
    }
}
