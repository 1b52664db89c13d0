//! Laws of the endpoints that a step takes out.

use std::collections::BTreeSet;

use crate::release::{Effects, Out, State};
use crate::table::{EndpointAddr, ServiceName, VersionName};

/// Out: served and does not, of a version that is there before and after.
pub(super) fn check(before: &State, next: &State, effects: &Effects) {
    let serving = |state: &State| -> BTreeSet<(ServiceName, VersionName, EndpointAddr)> {
        let all = state.table.services().iter().flat_map(|service| {
            let versions = service.versions.iter();
            versions.flat_map(|spec| {
                spec.serving().map(|at| (service.name.clone(), spec.name.clone(), at.clone()))
            })
        });
        all.collect()
    };
    let is_there = |service: &_, version: &_| {
        next.table.service(service).is_some_and(|service| service.version(version).is_some())
    };
    let (before, next) = (serving(before), serving(next));
    let out = before.difference(&next).filter(|(service, version, _)| is_there(service, version));
    let told =
        effects.out.iter().cloned().map(|Out { service, version, endpoint }| (service, version, endpoint));
    assert_eq!(told.collect::<BTreeSet<_>>(), out.cloned().collect());
}
