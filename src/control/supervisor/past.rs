//! What a version did lately: the measure for what comes after it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::release::verdict::LatencyHist;

/// How long a share of errors is remembered.
const MEMORY: Duration = Duration::from_mins(10);
/// In parts of this length.
const SLOT: Duration = Duration::from_secs(10);
/// So many answers say how long answers take.
const ENOUGH: u64 = 200;

/// One version's recent past.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// When each part began, what was decided in it, and what of that failed; the oldest first.
    slots: VecDeque<(Instant, u64, u64)>,
    /// How long answers took since `turned`, and in the time as long before it.
    took: [LatencyHist; 2],
    turned: Option<Instant>,
}

impl Past {
    /// So much more was decided and has failed.
    pub(super) fn add(&mut self, now: Instant, decided: u64, failed: u64) {
        while self.slots.front().is_some_and(|(begun, ..)| now.saturating_duration_since(*begun) > MEMORY) {
            self.slots.pop_front();
        }
        match self.slots.back_mut() {
            Some((begun, all, bad)) if now.saturating_duration_since(*begun) < SLOT => {
                (*all, *bad) = (*all + decided, *bad + failed);
            }
            _ if decided > 0 => self.slots.push_back((now, decided, failed)),
            _ => {}
        }
    }

    /// The buckets of so many more answers.
    pub(super) fn took(&mut self, now: Instant, more: impl Iterator<Item = u64>) {
        if now.saturating_duration_since(*self.turned.get_or_insert(now)) > MEMORY {
            self.turned = Some(now);
            self.took.swap(0, 1);
            self.took[0] = LatencyHist::default();
        }
        self.took[0].0.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }

    /// What was decided in the last ten minutes, and what of that failed.
    pub(super) fn rate(&self, now: Instant) -> (u64, u64) {
        let lately = self.slots.iter().filter(|(begun, ..)| now.saturating_duration_since(*begun) <= MEMORY);
        lately.fold((0, 0), |(all, bad), (_, decided, failed)| (all + decided, bad + failed))
    }

    /// How long answers took in the last ten to twenty minutes.
    pub(super) fn history(&self) -> LatencyHist {
        let mut history = self.took[0].clone();
        history.merge(&self.took[1]);
        history
    }
}

/// How long the baseline's answers took before the trial.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// The first bytes of those that were watched.
    pub(super) watched: LatencyHist,
    /// All of all requests that it ever had, by the metrics: the bounds of their buckets.
    pub(super) ever: LatencyHist,
}

impl Times {
    /// What is known, with what its answers took `in_trial`; nothing until that is known from many, of which the first ones to come
    /// are the fast ones. Where nobody watched and nobody asks it any more, the metrics have to do: then only what is much slower shows.
    pub(super) fn known(&self, in_trial: &[u64]) -> Cow<'_, LatencyHist> {
        if self.watched.count() >= ENOUGH {
            return Cow::Borrowed(&self.watched);
        }
        let mut all: LatencyHist = in_trial.iter().copied().collect();
        all.merge(&self.watched);
        if all.count() >= ENOUGH {
            Cow::Owned(all)
        } else if self.ever.count() >= ENOUGH {
            Cow::Borrowed(&self.ever)
        } else {
            Cow::Owned(LatencyHist::default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::clock;
    use crate::release::verdict::BUCKETS;

    #[test]
    fn what_was_watched_goes_before_what_the_trial_shows_and_that_before_the_metrics() {
        let many = |micros: u64, count: u64| {
            let mut times = LatencyHist::default();
            (0..count).for_each(|_| times.record(micros));
            times
        };
        let known = |watched: u64, in_trial: u64, ever: u64| {
            let times = Times { watched: many(1_000, watched), ever: many(4_000, ever) };
            let known = times.known(&many(2_000, in_trial).0).quantile(0.99);
            known.map(|micros| micros / 1_000)
        };
        assert_eq!(known(ENOUGH, ENOUGH, ENOUGH), Some(1));
        assert_eq!(known(0, ENOUGH, ENOUGH), Some(2));
        assert_eq!(known(10, 10, ENOUGH), Some(4));
        assert_eq!(known(10, 10, ENOUGH - 1), None);
    }

    #[test]
    fn errors_are_remembered_for_ten_minutes_and_times_for_twenty_at_most() {
        let (mut past, start) = (Past::default(), clock::instant());
        let at = |minutes: u64| start + Duration::from_mins(minutes);
        let one = || (0..BUCKETS).map(|bucket| u64::from(bucket == 7));
        past.add(at(0), 100, 10);
        past.took(at(0), one());
        past.add(at(0) + Duration::from_secs(5), 100, 0);
        assert_eq!(past.slots.len(), 1, "one part of ten seconds");
        past.add(at(8), 50, 1);
        assert_eq!(past.rate(at(9)), (250, 11));
        assert_eq!(past.rate(at(11)), (50, 1));
        past.took(at(11), one());
        assert_eq!(past.history().count(), 2);
        past.took(at(22), one());
        assert_eq!(past.history().count(), 2, "the first is forgotten");
        past.add(at(30), 0, 0);
        assert_eq!((past.rate(at(30)), past.slots.len()), ((0, 0), 0));
    }
}
