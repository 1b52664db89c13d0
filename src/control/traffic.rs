//! Where traffic may go in a state.

use crate::release::State;
use crate::table::{BasisPoints, ServiceName, VersionName};

/// True when new requests may go to `version`, by its weight or by a targeting rule; false when it is not there.
pub(super) fn is_led_to(state: &State, service: &ServiceName, version: &VersionName) -> bool {
    state.table.service(service).is_some_and(|service| service.split.leads_to(version))
}

/// True while copies of requests may go to `version`.
pub(super) fn is_mirrored(state: &State, service: &ServiceName, version: &VersionName) -> bool {
    state.table.service(service).is_some_and(|service| service.mirrors_to(version))
}

/// What `version` carries; nothing when it is not there.
pub(super) fn weight(state: &State, service: &ServiceName, version: &VersionName) -> BasisPoints {
    state.table.service(service).map_or(BasisPoints::NONE, |service| service.split.weight(version))
}
