//! Control's own metrics: changes, fences and drains of each service, and how reloads went.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock;
use super::tenures::STAY;
use crate::metrics::Reloads;
use crate::release::{ActorKind, Change, ChangeKind};
use crate::table::{ServiceName, Table};

/// Upper bounds of the fence histogram in seconds: 1 µs to 10 ms.
pub const FENCE_BOUNDS: [f64; 12] =
    [1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 1e-2];

/// Upper bounds of the drain histogram in seconds: 5 ms to 4 h.
pub const DRAIN_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 7_200.0, 14_400.0];

/// What control counts, by service and of reloads. Written by control, read by the collector.
#[derive(Debug, Default)]
pub struct Figures {
    services: Mutex<BTreeMap<ServiceName, ServiceFigures>>,
    reloads: Mutex<Reloads>,
}

/// What control counts of one service.
#[derive(Debug, Clone)]
pub struct ServiceFigures {
    /// Changes by kind and actor; those that never happened are not there.
    pub changes: BTreeMap<(ChangeKind, ActorKind), u64>,
    /// How long the publishing of a change took.
    pub fence: Durations,
    /// How long versions took to drain.
    pub drain: Durations,
    /// Since when the service is no longer in the table.
    gone: Option<Instant>,
}

impl Default for ServiceFigures {
    fn default() -> Self {
        let [fence, drain] = [FENCE_BOUNDS.as_slice(), DRAIN_BOUNDS.as_slice()].map(Durations::new);
        Self { changes: BTreeMap::new(), fence, drain, gone: None }
    }
}

/// Durations in fixed buckets.
#[derive(Debug, Clone, PartialEq)]
pub struct Durations {
    bounds: &'static [f64],
    /// One more than the bounds: the last is above all of them.
    counts: Vec<u64>,
    sum: f64,
}

impl Durations {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn observe(&mut self, seconds: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < seconds)] += 1;
        self.sum += seconds;
    }

    /// (upper bound in seconds, how many were at most so long), ascending, without +Inf: that is [`Durations::count`].
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        self.bounds.iter().copied().zip(sums)
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together, in seconds.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

impl Figures {
    /// The figures of every service of the table, and of those that are gone for less than five minutes.
    #[must_use]
    pub fn services(&self) -> BTreeMap<ServiceName, ServiceFigures> {
        self.services_at(clock::instant())
    }

    fn services_at(&self, now: Instant) -> BTreeMap<ServiceName, ServiceFigures> {
        let mut services = self.lock();
        forget(&mut services, now);
        services.clone()
    }

    /// `change` was published, which took `fence` (`None`: not by a step from the one before); the table is now this one.
    pub(super) fn on_change(&self, change: &Change, table: &Table, fence: Option<Duration>, now: Instant) {
        let mut services = self.lock();
        for record in &change.services {
            let figures = services.entry(record.service.clone()).or_default();
            *figures.changes.entry((change.kind, change.actor.kind)).or_default() += 1;
            fence.iter().for_each(|fence| figures.fence.observe(fence.as_secs_f64()));
            figures.gone = table.index(&record.service).is_none().then_some(now);
        }
        forget(&mut services, now);
    }

    /// The services of the first table: their figures are there from 0 on.
    pub(super) fn show(&self, table: &Table) {
        let mut services = self.lock();
        for service in table.services() {
            services.entry(service.name.clone()).or_default();
        }
    }

    /// A version of `service` drained.
    pub(super) fn on_drained(&self, service: &ServiceName, seconds: f64) {
        // A service whose figures are gone does not come back for its last drain.
        if let Some(figures) = self.lock().get_mut(service) {
            figures.drain.observe(seconds);
        }
    }

    /// The file was read while running, and is in force or not.
    pub(super) fn on_reload(&self, is_applied: bool) {
        let mut reloads = self.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        *(if is_applied { &mut reloads.applied } else { &mut reloads.failed }) += 1;
        reloads.is_failed = !is_applied;
    }

    /// How reading the file again has gone so far.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        *self.reloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, ServiceFigures>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(services: &mut BTreeMap<ServiceName, ServiceFigures>, now: Instant) {
    let is_over = |gone: Instant| now.saturating_duration_since(gone) >= STAY;
    services.retain(|_, figures| !figures.gone.is_some_and(is_over));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounds_belong_below() {
        let mut durations = Durations::new(&DRAIN_BOUNDS);
        for seconds in [0.001, 0.005, 0.006, 1e9] {
            durations.observe(seconds);
        }
        let buckets: Vec<_> = durations.buckets().collect();
        assert_eq!(buckets[..2], [(0.005, 2), (0.01, 3)]);
        assert_eq!(buckets.last(), Some(&(14_400.0, 3)));
        assert_eq!(durations.count(), 4);
    }
}
