//! What a stage has counted: the figures of one tick, and their sums.

use super::estats::{Counts, is_coin};
use super::interval::Segment;
use super::standing::Metric;

/// First attempts that were decided since the last tick, of those that were assigned under one weight.
///
/// Of each pair the first is the baseline's, the second the candidate's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Group {
    /// The probability with which the coin gave them to the candidate.
    pub w: f64,
    /// How many were decided.
    pub decided: [u64; 2],
    /// How many of them failed.
    pub bad: [u64; 2],
    /// The candidate's failures for the guard: of one client only so many a second.
    pub guard_bad: u64,
    /// First attempts on the candidate by which it may become suspect: all, less the failures that do not count in `guard_bad`.
    pub guard_decided: u64,
    /// Those whose speed was compared.
    pub measured: [u64; 2],
    /// How many were answered with a client's error.
    pub client_errors: [u64; 2],
    /// How many were slow, by the threshold of each of p75, p95 and p99.
    pub slow: [[u64; 3]; 2],
    /// Those of the candidate's slow ones by which it may not become suspect: of one client only so many a second are meant.
    pub slow_beyond: [u64; 3],
    /// Those of the bad ones whose client had met the same just before, where the coin is the client's: they are no throw of it.
    pub again: Again,
}

/// What is bad, and counts in no comparison.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Again {
    /// Of those that failed.
    pub bad: [u64; 2],
    /// Of those that were answered with a client's error.
    pub client_errors: [u64; 2],
    /// Of the slow, by the threshold of each of p75, p95 and p99.
    pub slow: [[u64; 3]; 2],
}

impl Group {
    /// What counts for this metric.
    pub(super) fn of(&self, metric: Metric) -> [u64; 2] {
        match metric {
            Metric::ErrorRate | Metric::ClientErrorShare => self.decided,
            Metric::LatencyP75 | Metric::LatencyP95 | Metric::LatencyP99 => self.measured,
        }
    }

    /// What counts as bad for this metric.
    pub(super) fn bad_of(&self, metric: Metric) -> [u64; 2] {
        let slow = |quantile: usize| [self.slow[0][quantile], self.slow[1][quantile]];
        match metric {
            Metric::ErrorRate => self.bad,
            Metric::ClientErrorShare => self.client_errors,
            Metric::LatencyP75 => slow(0),
            Metric::LatencyP95 => slow(1),
            Metric::LatencyP99 => slow(2),
        }
    }

    /// What counts as bad for this metric and says nothing new.
    pub(super) fn again_of(&self, metric: Metric) -> [u64; 2] {
        let slow = |quantile: usize| self.again.slow.map(|of| of[quantile]);
        match metric {
            Metric::ErrorRate => self.again.bad,
            Metric::ClientErrorShare => self.again.client_errors,
            Metric::LatencyP75 => slow(0),
            Metric::LatencyP95 => slow(1),
            Metric::LatencyP99 => slow(2),
        }
    }

    /// What the comparison by this metric rests on: decided, and bad.
    pub(super) fn compared(&self, metric: Metric) -> [[u64; 2]; 2] {
        let again = self.again_of(metric);
        let less = |of: [u64; 2]| [0, 1].map(|side| of[side].saturating_sub(again[side]));
        [less(self.of(metric)), less(self.bad_of(metric))]
    }

    /// What the guard of speed rests on at this quantile: measured, and slow.
    pub(super) fn guarded(&self, quantile: usize) -> [u64; 2] {
        let beyond = self.slow_beyond[quantile];
        [self.measured[1], self.slow[1][quantile]].map(|all| all.saturating_sub(beyond))
    }

    /// For this metric's detector.
    pub(super) fn counts(&self, metric: Metric) -> Counts {
        let [decided, bad] = self.compared(metric);
        Counts { decided: decided.iter().sum(), bad }
    }

    /// For the proof of the contrary, in whose favour failures of the baseline are: of the candidate's all count.
    pub(super) fn clean_counts(&self) -> Counts {
        let [[decided, _], [bad, _]] = self.compared(Metric::ErrorRate);
        Counts { decided: decided + self.decided[1], bad: [bad, self.bad[1]] }
    }

    fn add(&mut self, more: &Self) {
        let add = |sums: &mut [u64; 2], more: [u64; 2]| {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        };
        add(&mut self.decided, more.decided);
        add(&mut self.bad, more.bad);
        self.guard_bad += more.guard_bad;
        self.guard_decided += more.guard_decided;
        add(&mut self.measured, more.measured);
        add(&mut self.client_errors, more.client_errors);
        add(&mut self.again.bad, more.again.bad);
        add(&mut self.again.client_errors, more.again.client_errors);
        self.slow_beyond.iter_mut().zip(more.slow_beyond).for_each(|(sum, more)| *sum += more);
        let slow = [(&mut self.slow, more.slow), (&mut self.again.slow, more.again.slow)];
        for (sums, more) in slow.into_iter().flat_map(|(sums, more)| sums.iter_mut().zip(more)) {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
    }
}

/// Requests that are still out and of which something bad is known, or presumed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stalled {
    /// The weight now.
    pub w: f64,
    /// Answers of the baseline that are overdue, presumed to be failures: [`missing_answers`](super::latency::missing_answers).
    pub missing: u64,
    /// Answers of the baseline that are coming, and are presumed to break off.
    pub breaking: u64,
    /// How many are out for longer than the threshold of each of p75, p95 and p99, of each version.
    pub slow: [[u64; 3]; 2],
    /// As how many of the candidate's they raise suspicion.
    pub suspicious: [f64; 3],
}

impl Stalled {
    /// What counts as bad for this metric, and will be decided later.
    pub(super) fn bad_of(&self, metric: Metric) -> [u64; 2] {
        let slow = |quantile: usize| [self.slow[0][quantile], self.slow[1][quantile]];
        match metric {
            Metric::ErrorRate => [self.missing + self.breaking, 0],
            Metric::ClientErrorShare => [0, 0],
            Metric::LatencyP75 => slow(0),
            Metric::LatencyP95 => slow(1),
            Metric::LatencyP99 => slow(2),
        }
    }
}

/// As many weights as the data plane keeps apart.
const WEIGHTS: usize = 8;

/// The sums of a stage, one group a weight.
///
/// A stage has two weights of its own, and late answers of the one before. Should there ever be more than eight, the
/// others count for the sums, but not for the interval.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    groups: [Group; WEIGHTS],
    len: usize,
    others: Group,
}

impl Totals {
    pub(super) fn add(&mut self, group: &Group) {
        let known = self.groups[..self.len].iter().position(|known| known.w == group.w);
        let sums = match known {
            Some(index) => &mut self.groups[index],
            None if self.len < WEIGHTS => {
                self.len += 1;
                let new = &mut self.groups[self.len - 1];
                new.w = group.w;
                new
            }
            None => &mut self.others,
        };
        sums.add(group);
    }

    /// All weights together; its `w` says nothing.
    #[must_use]
    pub fn sum(&self) -> Group {
        let mut sum = self.others;
        self.groups[..self.len].iter().for_each(|group| sum.add(group));
        sum
    }

    /// What the comparison by this metric rests on: the sums under each coin.
    pub fn segments(&self, metric: Metric) -> impl Iterator<Item = Segment> {
        let coins = self.groups[..self.len].iter().filter(|group| is_coin(group.w));
        coins.map(move |group| {
            let [decided, bad] = group.compared(metric);
            Segment { w: group.w, decided, bad }
        })
    }
}
