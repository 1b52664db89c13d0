//! Which endpoints serve, of the versions that a rollout is about.

use crate::control::Handle;
use crate::control::traffic::is_led_to;
use crate::proxy::live::Snapshot;
use crate::release::rollout::{Plan, Serving};
use crate::table::{EndpointAddr, ServiceName, VersionName};

/// The endpoints that get requests now: of versions with traffic, not draining, and not found unwell.
pub(super) fn serving(handle: &Handle, plan: &Plan) -> Serving {
    let (state, snapshot) = (handle.state(), handle.live().snapshot());
    let of = |version: &VersionName| {
        if !is_led_to(&state, &plan.service, version) {
            return Vec::new();
        }
        let spec = state.table.service(&plan.service).and_then(|service| service.version(version));
        let serving = spec.into_iter().flat_map(|spec| spec.serving());
        serving.filter(|endpoint| is_well(&snapshot, &plan.service, version, endpoint)).cloned().collect()
    };
    Serving { from: of(&plan.from), to: if plan.is_between() { of(&plan.to) } else { Vec::new() } }
}

/// True when its checks and its requests say nothing against it.
pub(super) fn is_well(
    snapshot: &Snapshot,
    service: &ServiceName,
    version: &VersionName,
    endpoint: &EndpointAddr,
) -> bool {
    let upstream = snapshot.tenure(service, version);
    upstream.is_some_and(|upstream| upstream.vitals(endpoint).standing().serves())
}
