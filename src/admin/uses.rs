//! Who else uses the addresses of what is drained: it is not safe to stop then.

use std::collections::BTreeSet;

use super::api::{self, AlsoUsedBy, Drain, Service, VersionLeft};
use super::drain::look;
use crate::control::{Handle, Uses};
use crate::table::{EndpointAddr, ServiceName, VersionName};

/// The uses of these addresses by others than this version.
pub(super) async fn of_others(
    control: &Handle,
    service: &ServiceName,
    version: &VersionName,
    addresses: BTreeSet<EndpointAddr>,
) -> Vec<AlsoUsedBy> {
    by_others(&control.uses(addresses.clone()).await, service, version, &addresses)
}

/// Says of the versions that have nothing who else uses their addresses.
pub(super) async fn told(control: &Handle, services: &mut [Service]) {
    let is_empty = |version: &&mut api::Version| version.weight == 0 && version.in_flight.total == 0;
    let mut empty = Vec::new();
    for service in services {
        for version in service.versions.iter_mut().filter(is_empty) {
            // Names that we wrote ourselves.
            if let (Ok(of), Ok(name)) = (service.name.parse(), version.name.parse()) {
                let pool = pool(control, &of, &name);
                empty.push((of, name, pool, version));
            }
        }
    }
    let uses = control.uses(empty.iter().flat_map(|(_, _, pool, _)| pool).cloned().collect()).await;
    for (service, name, pool, version) in empty {
        version.also_used_by = by_others(&uses, &service, &name, &pool);
    }
}

/// The versions that are drained, and whose addresses others use.
pub(super) async fn shared(control: &Handle) -> Vec<VersionLeft> {
    let state = control.state();
    let weightless = state.table.services().iter().flat_map(|service| {
        let left = service.versions.iter().map(|spec| &spec.name);
        left.filter(|name| !service.split.leads_to(name)).map(|name| (&service.name, name))
    });
    let pools: Vec<_> =
        weightless.map(|(service, name)| (service, name, pool(control, service, name))).collect();
    let all = pools.iter().flat_map(|(_, _, pool)| pool).cloned().collect();
    let (uses, mut shared) = (control.uses(all).await, Vec::new());
    for (service, version, pool) in &pools {
        let also_used_by = by_others(&uses, service, version, pool);
        if also_used_by.is_empty() {
            continue;
        }
        let (drain, _) = look(control, service, version).await;
        if drain.drained {
            let drain = Drain { also_used_by, ..drain };
            shared.push(VersionLeft { service: service.to_string(), version: version.to_string(), drain });
        }
    }
    shared
}

/// The addresses of a version; none of one that was removed.
pub(super) fn pool(control: &Handle, service: &ServiceName, version: &VersionName) -> BTreeSet<EndpointAddr> {
    let state = control.state();
    let spec = state.table.service(service).and_then(|service| service.version(version));
    spec.iter().flat_map(|spec| spec.endpoints.iter()).cloned().collect()
}

fn by_others(
    uses: &Uses,
    service: &ServiceName,
    version: &VersionName,
    addresses: &BTreeSet<EndpointAddr>,
) -> Vec<AlsoUsedBy> {
    uses.by_others(service, version, addresses).into_iter().map(Into::into).collect()
}
