//! Endpoints that get no new requests, while their version goes on: what lasts on them is seen out as on a version that is
//! left, by the same rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::elders::Pool;
use super::{Control, clock};
use crate::proxy::live::Snapshot;
use crate::proxy::upstream::Upstream;
use crate::proxy::upstream::leaving::{EndpointDeparture, Plan};
use crate::release::{Out, State};
use crate::table::{EndpointAddr, Service};

/// How long after the last of it is cut an endpoint is not thought of any more.
const KEPT: Duration = Duration::from_secs(60);

/// Who is seen out.
#[derive(Debug, Default)]
pub(super) struct Endpoints(Vec<EndpointDeparture>);

impl Endpoints {
    /// Takes over that these are `out`. True when there is something new to tell the workers.
    fn follow(&mut self, out: &[Out], after: &Snapshot, now: Instant) -> bool {
        let count = self.0.len();
        self.0.retain(|departure| now < departure.plan.cut() + KEPT && !serves(after, departure));
        let mut is_other = self.0.len() != count;
        for Out { service, version, endpoint } in out {
            let (Some(upstream), Some(spec)) = (after.tenure(service, version), after.table.service(service))
            else {
                continue;
            };
            let plan = Plan::of(now, spec.drain);
            let departure =
                EndpointDeparture { upstream: upstream.clone(), endpoint: endpoint.clone(), plan };
            if !self.0.iter().any(|known| is_same(known, &departure)) {
                self.0.push(departure);
                is_other = true;
            }
        }
        is_other
    }
}

fn is_same(one: &EndpointDeparture, other: &EndpointDeparture) -> bool {
    one.upstream.id == other.upstream.id && one.endpoint == other.endpoint
}

/// True when it gets new requests again.
fn serves(snapshot: &Snapshot, departure: &EndpointDeparture) -> bool {
    let service = snapshot.table.service(&departure.upstream.service);
    let version = service.and_then(|service| service.version(&departure.upstream.version));
    version.is_some_and(|version| version.serving().any(|serving| *serving == departure.endpoint))
}

impl Control {
    /// Sees out what lasts on endpoints that serve no more, and spares it on those that serve again.
    pub(super) fn see_out_endpoints(&mut self, out: &[Out], after: &Snapshot, now: Instant) {
        if self.endpoints.follow(out, after, now) {
            self.live.departures.set_endpoints(self.endpoints.0.clone());
        }
    }

    /// Another process says which endpoints these versions have now: those that are none of them drain here too. Nothing begins
    /// here any more, so the table's number is nobody's but this process's own.
    pub(super) fn go_by(&mut self, pools: &[Pool]) {
        let (mut changed, mut out) = (BTreeMap::<usize, Service>::new(), Vec::new());
        for Pool { service, version, endpoints } in pools {
            let present = self.state.table.index(service);
            let Some((index, present)) = present.map(|index| (index, &self.state.table.services()[index]))
            else {
                continue;
            };
            let Some(spec) = present.version(version) else { continue };
            let drain = spec.endpoints.iter().filter(|endpoint| !endpoints.contains(endpoint));
            let drain: Arc<[EndpointAddr]> = drain.cloned().collect();
            if drain == spec.draining {
                continue;
            }
            let named = |endpoint: &EndpointAddr| {
                let (service, version) = (service.clone(), version.clone());
                Out { service, version, endpoint: endpoint.clone() }
            };
            out.extend(spec.serving().filter(|endpoint| drain.contains(endpoint)).map(named));
            let next = changed.entry(index).or_insert_with(|| Service::clone(present));
            next.versions
                .iter_mut()
                .filter(|spec| spec.name == *version)
                .for_each(|spec| spec.draining = drain.clone());
        }
        if changed.is_empty() {
            return;
        }
        let epoch = self.state.table.epoch().next();
        let changed = changed.into_iter().map(|(index, service)| (index, Arc::new(service)));
        let table = Arc::new(self.state.table.with(epoch, changed));
        let (before, workers) = (self.live.snapshot(), self.workers);
        let after = Arc::new(Snapshot::join(Arc::clone(&table), Some(&before), |service, version| {
            Arc::new(Upstream::open(service.name.clone(), version.name.clone(), workers))
        }));
        self.live.publish(Arc::clone(&after));
        self.see_out_endpoints(&out, &after, clock::instant());
        self.state = Arc::new(State { table, ..(*self.state).clone() });
        self.show();
    }
}
