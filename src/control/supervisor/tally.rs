//! What supervision has done since the process started, and how trials stand, for the metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::case::Fresh;
use crate::metrics::supervision::{CAUSES, Compared, OUTCOMES, Stands};
use crate::release::Trial;
use crate::release::verdict::Report;
use crate::table::{ServiceName, Table, VersionName};

/// Service, candidate and baseline.
pub(super) type Pair = (ServiceName, VersionName, VersionName);

/// What there was of two versions that were compared.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) requests: [[u64; OUTCOMES.len()]; 2],
    /// Answers told of as good, by side, that have failed since: so many good ones are told of no more.
    broken: [u64; 2],
    pub(super) suspects: [u64; CAUSES.len()],
    pub(super) reverts: [u64; CAUSES.len()],
    ejections: u64,
    last_revert: Option<(u64, f64)>,
}

/// All of them. A pair goes when one of its versions is gone.
#[derive(Debug, Default)]
pub(super) struct Tallies(Mutex<BTreeMap<Pair, Tally>>);

impl Tally {
    /// So much more was decided.
    pub(super) fn add(&mut self, fresh: &Fresh) {
        for (side, (requests, broken)) in self.requests.iter_mut().zip(&mut self.broken).enumerate() {
            for counted in fresh.iter().map(|sides| &sides[side]) {
                *broken += counted.broken;
                let bad = counted.failed.saturating_sub(counted.broken) + counted.client_errors;
                let good = counted.decided.saturating_sub(bad);
                // A counter goes up only.
                let told = good.min(*broken);
                *broken -= told;
                let counts = [good - told, counted.failed, counted.client_errors];
                requests.iter_mut().zip(counts).for_each(|(sum, more)| *sum += more);
            }
        }
    }

    /// The candidate has become suspect, by this cause.
    pub(super) fn suspected(&mut self, cause: &str) {
        count(&mut self.suspects, cause);
    }

    /// Its traffic was taken back.
    pub(super) fn reverted(&mut self, report: &Report) {
        count(&mut self.reverts, report.why.map_or("", |why| why.name()));
        self.last_revert = Some((report.counts.bad[1] + report.ejected_failures, report.seconds));
    }

    /// One of its endpoints was drained.
    pub(super) fn ejected(&mut self) {
        self.ejections += 1;
    }
}

fn count(counts: &mut [u64; CAUSES.len()], cause: &str) {
    if let Some(index) = CAUSES.iter().position(|known| *known == cause) {
        counts[index] += 1;
    }
}

impl Tallies {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Pair, Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down something about a trial.
    pub(super) fn note(&self, service: &ServiceName, trial: &Trial, note: impl FnOnce(&mut Tally)) {
        let pair = (service.clone(), trial.candidate.clone(), trial.baseline.clone());
        note(self.lock().entry(pair).or_default());
    }

    /// All that is to be shown; `standing` is how the trials under way stand.
    pub(super) fn compared(&self, table: &Table, mut standing: BTreeMap<Pair, Stands>) -> Vec<Compared> {
        let mut tallies = self.lock();
        tallies.retain(|(service, candidate, baseline), _| {
            let service = table.service(service);
            service.is_some_and(|service| [candidate, baseline].iter().all(|v| service.version(v).is_some()))
        });
        let compared = tallies.iter().map(|(pair, tally)| {
            let (service, candidate, baseline) = pair;
            Compared {
                service: service.clone(),
                candidate: candidate.clone(),
                baseline: baseline.clone(),
                stands: standing.remove(pair),
                requests: tally.requests,
                suspects: tally.suspects,
                reverts: tally.reverts,
                ejections: tally.ejections,
                last_revert: tally.last_revert,
            }
        });
        compared.collect()
    }
}
