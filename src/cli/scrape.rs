//! What `/metrics` is made of: control's figures, the versions' cells and the workers' own, brought together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::admin::Metrics;
use crate::control::{Durations, Handle, ServiceFigures, discovery};
use crate::metrics::{
    Buckets, Cells, Certificate, Checks, Edge, EndpointState, Exposition, Inputs, Operations, Reason, Tenure,
};
use crate::proxy::upstream::{Upstream, names};
use crate::proxy::worker::WorkerStats;
use crate::release::{ActorKind, ChangeKind};
use crate::table::{ServiceName, VersionName};
use crate::webhooks;

/// The certificates that are presented now; replaced on a reload.
pub(super) type Certificates = Arc<Mutex<Vec<Certificate>>>;

/// The text of `/metrics` of this process.
pub(super) fn of(
    handle: &Handle,
    workers: Vec<Arc<WorkerStats>>,
    certificates: Certificates,
    log_dropped: Arc<AtomicU64>,
    (webhooks, finders): (webhooks::Figures, discovery::Figures),
) -> Metrics {
    let handle = handle.clone();
    let exposition = Exposition::of(move || Inputs {
        table: Arc::clone(&handle.state().table),
        tenures: handle
            .tenures()
            .tenures()
            .into_iter()
            .map(|upstream| Arc::new(Seen(upstream)) as _)
            .collect(),
        operations: handle.figures().services().iter().map(operations).collect(),
        reloads: handle.figures().reloads(),
        held: held(&handle),
        edges: workers.iter().map(|stats| edge(stats)).collect(),
        refusals: refusals(&workers),
        certificates: certificates.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        log_dropped: log_dropped.load(Ordering::Relaxed),
        lookups: names::lookups(),
        endpoints: endpoints(&handle),
        deliveries: webhooks.deliveries(),
        finds: finders.finds(),
        compared: handle.verdicts().compared(&handle),
    });
    Arc::new(move || exposition.render())
}

/// How many requests wait, of every service.
fn held(handle: &Handle) -> Vec<(ServiceName, u64)> {
    let snapshot = handle.live().snapshot();
    let services = snapshot.table.services().iter().map(|service| &service.name);
    services.map(|name| (name.clone(), snapshot.waiting(name) as u64)).collect()
}

/// How every endpoint of the table stands.
fn endpoints(handle: &Handle) -> Vec<EndpointState> {
    let snapshot = handle.live().snapshot();
    let mut all = Vec::new();
    for (index, service) in snapshot.table.services().iter().enumerate() {
        for (position, version) in service.versions.iter().enumerate() {
            let upstream = snapshot.upstream(index, position);
            all.extend(version.endpoints.iter().map(|address| EndpointState {
                service: service.name.clone(),
                version: version.name.clone(),
                endpoint: address.to_string(),
                is_up: upstream.standing(address).serves(),
            }));
        }
    }
    all
}

struct Seen(Arc<Upstream>);

impl Tenure for Seen {
    fn id(&self) -> u64 {
        self.0.id
    }

    fn service(&self) -> &ServiceName {
        &self.0.service
    }

    fn version(&self) -> &VersionName {
        &self.0.version
    }

    fn pending(&self) -> u64 {
        self.0.pending()
    }

    fn each_cells(&self, see: &mut dyn FnMut(&Cells)) {
        self.0.cells().for_each(see);
    }

    fn checks(&self) -> Option<&Checks> {
        self.0.known_checks()
    }
}

/// Every kind of change by everybody, also those that never happened: their first one is then seen as a rise.
fn operations((service, figures): (&ServiceName, &ServiceFigures)) -> (ServiceName, Operations) {
    let kinds = ChangeKind::ALL.into_iter().flat_map(|kind| ActorKind::ALL.map(|actor| (kind, actor)));
    let changes = kinds.map(|(kind, actor)| {
        let count = figures.changes.get(&(kind, actor)).copied().unwrap_or(0);
        (kind.token(), actor.token(), count)
    });
    let operations = Operations {
        changes: changes.collect(),
        fence: buckets(&figures.fence),
        drain: buckets(&figures.drain),
    };
    (service.clone(), operations)
}

fn buckets(durations: &Durations) -> Buckets {
    Buckets { cumulative: durations.buckets().collect(), count: durations.count(), sum: durations.sum() }
}

/// What all workers together have refused, by service.
fn refusals(workers: &[Arc<WorkerStats>]) -> Vec<(ServiceName, Reason, u64)> {
    let mut sums = BTreeMap::<_, u64>::new();
    for (service, refused) in workers.iter().flat_map(|stats| stats.refusals()) {
        refused
            .into_iter()
            .for_each(|(reason, count)| *sums.entry((service.clone(), reason)).or_default() += count);
    }
    sums.into_iter().map(|((service, reason), count)| (service, reason, count)).collect()
}

fn edge(stats: &WorkerStats) -> Edge {
    Edge {
        connections: stats.connections.load(Ordering::Relaxed),
        streams: stats.streams.load(Ordering::Relaxed),
        busy: stats.busy.load(Ordering::Relaxed),
        passed_on: stats.passed_on.load(Ordering::Relaxed),
        accepted: stats.accepted.load(Ordering::Relaxed),
        refused: std::array::from_fn(|reason| stats.refused[reason].load(Ordering::Relaxed)),
        handshakes: std::array::from_fn(|ended| stats.handshakes[ended].load(Ordering::Relaxed)),
        redirected: stats.redirected.load(Ordering::Relaxed),
        redirects: stats.redirects.load(Ordering::Relaxed),
        fixed: stats.fixed.load(Ordering::Relaxed),
        checked: stats.checked.load(Ordering::Relaxed),
        ended: stats.ended.load(Ordering::Relaxed),
    }
}
