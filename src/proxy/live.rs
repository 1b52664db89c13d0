//! The published snapshot: the table joined with the live handles of its versions. The only place that knows arc-swap.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::admission::Published;
use super::quota::Quota;
use super::upstream::Upstream;
use crate::table::{Epoch, Service, ServiceLimits, Table, VersionSpec};

/// One table with the tenures of its versions; never edited.
#[derive(Debug)]
pub struct Snapshot {
    /// Where traffic goes.
    pub table: Arc<Table>,
    /// By service index, then version index, as in the table.
    upstreams: Vec<Arc<[Arc<Upstream>]>>,
    /// By service index: what is left of its limits, if it has any.
    quotas: Vec<Option<Arc<Quota>>>,
}

impl Snapshot {
    /// Joins `table` with its tenures: those of `before` go on where service and version are still there,
    /// `open` makes the new ones.
    pub fn join(
        table: Arc<Table>,
        before: Option<&Self>,
        mut open: impl FnMut(&Service, &VersionSpec) -> Arc<Upstream>,
    ) -> Self {
        let join = |(index, service): (usize, &Arc<Service>)| {
            // Most services are the same value in the same place: no lookup for those.
            let unmoved = before
                .filter(|old| old.table.services().get(index).is_some_and(|same| Arc::ptr_eq(same, service)));
            if let Some(old) = unmoved {
                return Arc::clone(&old.upstreams[index]);
            }
            let old = before.and_then(|old| Some(&old.upstreams[old.table.index(&service.name)?]));
            let tenure = |version: &VersionSpec| {
                let kept = old.and_then(|old| old.iter().find(|upstream| upstream.version == version.name));
                kept.map_or_else(|| open(service, version), Arc::clone)
            };
            service.versions.iter().map(tenure).collect()
        };
        let upstreams = table.services().iter().enumerate().map(join).collect();
        let quota = |service: &Arc<Service>| {
            // Most services have none: no lookup for those.
            let is_limited = service.limits != ServiceLimits::default();
            let old = before.filter(|_| is_limited);
            let old = old.and_then(|old| old.quota(old.table.index(&service.name)?));
            Quota::of(service.limits, old)
        };
        let quotas = table.services().iter().map(quota).collect();
        Self { table, upstreams, quotas }
    }

    /// What is left of a service's limits, by the table's index; `None` when it has none.
    #[must_use]
    pub fn quota(&self, service: usize) -> Option<&Arc<Quota>> {
        self.quotas[service].as_ref()
    }

    /// The tenure of a version, by the table's indices.
    #[must_use]
    pub fn upstream(&self, service: usize, version: usize) -> &Arc<Upstream> {
        &self.upstreams[service][version]
    }

    /// All tenures.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.upstreams.iter().flat_map(|versions| versions.iter())
    }
}

/// What every worker serves from and control publishes to.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    published: Published,
}

impl Live {
    /// Serves `first` from the start.
    #[must_use]
    pub fn new(first: Snapshot) -> Self {
        let published = Published::new(first.table.epoch().0);
        Self { snapshot: ArcSwap::from_pointee(first), published }
    }

    /// Publishes `next`: when this returns, no request is admitted under an older epoch on any worker (G1).
    ///
    /// One caller at a time: control.
    pub fn publish(&self, next: Arc<Snapshot>) {
        let epoch = next.table.epoch().0;
        self.snapshot.store(next);
        self.published.publish(epoch);
    }

    /// The present snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The present epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.published.epoch())
    }

    /// The epoch that admission is checked against.
    #[must_use]
    pub fn published(&self) -> &Published {
        &self.published
    }
}

/// One worker's view of what is published: refreshed when the epoch moved, else one load a request.
///
/// Holds its snapshot by an `Rc` of its own, so that a request's clone writes nothing that another worker reads.
#[derive(Debug)]
#[expect(
    clippy::redundant_allocation,
    reason = "the inner count is the process's, the outer one this worker's"
)]
pub struct View {
    live: Arc<Live>,
    current: RefCell<Rc<Arc<Snapshot>>>,
}

impl View {
    /// A view of `live`.
    #[must_use]
    pub fn of(live: Arc<Live>) -> Self {
        let current = RefCell::new(Rc::new(live.snapshot()));
        Self { live, current }
    }

    /// The newest snapshot.
    ///
    /// It may be one change newer than [`Live::epoch`] for an instant.
    #[must_use]
    pub fn newest(&self) -> Rc<Arc<Snapshot>> {
        let mut current = self.current.borrow_mut();
        if current.table.epoch() < self.live.epoch() {
            *current = Rc::new(self.live.snapshot());
        }
        Rc::clone(&current)
    }

    /// What is published.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }
}
