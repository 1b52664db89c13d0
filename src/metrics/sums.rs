//! The cells of all workers and tenures added up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::cells::{BOUNDS, Cells, GRPC, Histogram, SLOTS, Tally};
use super::checks::Checks;
use super::inputs::{Buckets, Tenure};
use super::kind::Kind;
use super::reason::Reason;
use super::retry::{Hedge, Retry};
use crate::table::pool::outliers::Cause;
use crate::table::{ServiceName, VersionName};

/// Requests by status code, and by the reason where the proxy gave up.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    pub(super) codes: [u64; SLOTS],
    pub(super) reasons: [u64; Reason::ALL.len()],
}

impl Default for Requests {
    fn default() -> Self {
        Self { codes: [0; SLOTS], reasons: [0; Reason::ALL.len()] }
    }
}

impl Requests {
    fn add(&mut self, tally: &Tally) {
        tally.add_to(&mut self.codes, &mut self.reasons);
    }
}

/// Durations in the buckets of [`BOUNDS`], not cumulative.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Durations {
    counts: [u64; BOUNDS.len() + 1],
    micros: u64,
}

impl Durations {
    fn add(&mut self, histogram: &Histogram) {
        self.micros += histogram.add_to(&mut self.counts);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(total, count)| *total += count);
        self.micros += other.micros;
    }

    /// In the form in which they are exposed.
    pub(super) fn buckets(&self) -> Buckets {
        let cumulative = BOUNDS.iter().zip(self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((seconds(*bound), *sum))
        });
        Buckets {
            cumulative: cumulative.collect(),
            count: self.counts.iter().sum(),
            sum: seconds(self.micros),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "exact below 285 years")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// One version, over all workers and tenures.
#[derive(Debug, Clone, Default)]
pub(super) struct VersionSum {
    pub(super) upstream: Requests,
    pub(super) client: Requests,
    pub(super) upstream_seconds: Durations,
    pub(super) client_seconds: Durations,
    /// In the order of [`Kind::ALL`].
    pub(super) in_flight: [u64; Kind::ALL.len()],
    /// Those that were ended in words; in the order of [`Kind::ALL`].
    pub(super) dismissed: [u64; Kind::ALL.len()],
    /// Requests that wait because of its limits.
    pub(super) pending: u64,
    /// Attempts after the first; in the order of [`Retry::ALL`].
    pub(super) retries: [u64; Retry::ALL.len()],
    /// Attempts beside another; in the order of [`Hedge::ALL`].
    pub(super) hedges: [u64; Hedge::ALL.len()],
    /// Choices among all endpoints because too few serve.
    pub(super) panics: u64,
    /// Requests that it has failed and another version has answered.
    pub(super) shielded: u64,
    /// Copies of others' requests, and those that it answered otherwise.
    pub(super) mirrored: u64,
    pub(super) differences: u64,
    /// Status of gRPC calls, if there were any; in the order of [`GRPC`].
    pub(super) grpc: Option<[u64; GRPC.len()]>,
    /// Health checks of its endpoints, if there were any.
    pub(super) checks: Option<ChecksSum>,
}

/// Health checks: those that found an endpoint well, those that did not, and how long they took.
#[derive(Debug, Clone, Default)]
pub(super) struct ChecksSum {
    pub(super) results: [u64; 2],
    pub(super) seconds: Durations,
    /// In the order of [`Cause::ALL`].
    pub(super) ejections: [u64; Cause::ALL.len()],
}

impl ChecksSum {
    fn add(&mut self, checks: &Checks) {
        self.results.iter_mut().zip(checks.results()).for_each(|(total, count)| *total += count);
        self.seconds.add(&checks.durations);
        self.ejections.iter_mut().zip(checks.ejections()).for_each(|(total, count)| *total += count);
    }
}

impl VersionSum {
    fn add(&mut self, cells: &Cells) {
        for tally in cells.upstream() {
            self.upstream.add(tally);
            self.upstream_seconds.add(&tally.durations);
        }
        cells.add_grpc(&mut self.grpc);
        self.panics += cells.panics();
        self.shielded += cells.shielded();
        self.mirrored += cells.mirrored();
        self.differences += cells.differences();
        for tally in cells.client() {
            self.client.add(tally);
            self.client_seconds.add(&tally.durations);
        }
        for (total, kind) in self.in_flight.iter_mut().zip(Kind::ALL) {
            *total += cells.in_flight(kind);
        }
        for (total, kind) in self.dismissed.iter_mut().zip(Kind::ALL) {
            *total += cells.dismissed(kind);
        }
        for (total, retry) in self.retries.iter_mut().zip(Retry::ALL) {
            *total += cells.retries(retry);
        }
        for (total, hedge) in self.hedges.iter_mut().zip(Hedge::ALL) {
            *total += cells.hedges(hedge);
        }
    }
}

/// Every version that is shown, by service and version.
pub(super) type Versions = BTreeMap<(ServiceName, VersionName), VersionSum>;

/// Adds up the tenures; a version without traffic is there too, with nothing but zeros.
pub(super) fn versions(tenures: &[Arc<dyn Tenure>]) -> Versions {
    let mut versions = Versions::new();
    for tenure in tenures {
        let sum = versions.entry((tenure.service().clone(), tenure.version().clone())).or_default();
        sum.pending += tenure.pending();
        tenure.each_cells(&mut |cells| sum.add(cells));
        tenure.checks().into_iter().for_each(|checks| sum.checks.get_or_insert_default().add(checks));
    }
    versions
}

/// What users waited for, by service: a counter that goes on when the versions it was counted on are gone.
///
/// Prometheus takes a counter that falls for one that started again, and would see all that is left as new.
#[derive(Default)]
pub(super) struct Waits {
    /// The tenures of the scrape before. What leaves them is read a last time, and then let go.
    shown: HashMap<u64, Arc<dyn Tenure>>,
    gone: BTreeMap<ServiceName, Durations>,
}

impl Waits {
    /// Each shown service's durations.
    pub(super) fn by_service(
        &mut self,
        tenures: &[Arc<dyn Tenure>],
        versions: &Versions,
    ) -> BTreeMap<ServiceName, Durations> {
        let present = tenures.iter().map(|tenure| (tenure.id(), Arc::clone(tenure))).collect();
        let before = std::mem::replace(&mut self.shown, present);
        for (id, tenure) in before {
            if !self.shown.contains_key(&id) {
                let gone = self.gone.entry(tenure.service().clone()).or_default();
                tenure.each_cells(&mut |cells| cells.client().for_each(|tally| gone.add(&tally.durations)));
            }
        }
        let services: HashSet<_> = versions.keys().map(|(service, _)| service).collect();
        self.gone.retain(|service, _| services.contains(service));
        let mut waits = self.gone.clone();
        for ((service, _), sum) in versions {
            waits.entry(service.clone()).or_default().merge(&sum.client_seconds);
        }
        waits
    }
}
