//! Endpoints that get no new requests, while their version goes on: what lasts on them is seen out as on a version that is
//! left, by the same rules.

use std::time::{Duration, Instant};

use super::Control;
use crate::proxy::live::Snapshot;
use crate::proxy::upstream::leaving::{EndpointDeparture, Plan};
use crate::release::Out;

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
            let plan = Plan { since: now, rules: spec.drain };
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
}
