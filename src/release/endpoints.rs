//! The edits of a pool: endpoints that come, go, or get nothing new.

use std::sync::Arc;

use super::Refused;
use super::draft::Draft;
use crate::table::{BasisPoints, EndpointAddr, ServiceName, VersionRef, VersionSpec};

impl Draft<'_> {
    /// Adds the endpoint to the pool; one that is there and draining serves again.
    pub(super) fn put_endpoint(
        &mut self,
        name: &ServiceName,
        version: &VersionRef,
        endpoint: EndpointAddr,
    ) -> Result<(), Refused> {
        let mut version = self.version(name, version)?;
        if version.serving().any(|serving| *serving == endpoint) {
            return Ok(());
        }
        version.draining = without(&version.draining, &endpoint);
        if !version.endpoints.contains(&endpoint) {
            version.endpoints = version.endpoints.iter().cloned().chain([endpoint]).collect();
        }
        self.edit(name, version.name.clone(), Some(version))
    }

    pub(super) fn remove_endpoint(
        &mut self,
        name: &ServiceName,
        version: &VersionRef,
        endpoint: &EndpointAddr,
    ) -> Result<(), Refused> {
        let mut version = self.with_endpoint(name, version, endpoint)?;
        version.endpoints = without(&version.endpoints, endpoint);
        version.draining = without(&version.draining, endpoint);
        self.serving_less(name, version, endpoint)
    }

    pub(super) fn drain_endpoint(
        &mut self,
        name: &ServiceName,
        version: &VersionRef,
        endpoint: &EndpointAddr,
    ) -> Result<(), Refused> {
        let mut version = self.with_endpoint(name, version, endpoint)?;
        if version.draining.contains(endpoint) {
            return Ok(());
        }
        version.draining = version.draining.iter().chain([endpoint]).cloned().collect();
        self.serving_less(name, version, endpoint)
    }

    /// The version, which has this endpoint.
    fn with_endpoint(
        &mut self,
        name: &ServiceName,
        version: &VersionRef,
        endpoint: &EndpointAddr,
    ) -> Result<VersionSpec, Refused> {
        let version = self.version(name, version)?;
        if version.endpoints.contains(endpoint) {
            return Ok(version);
        }
        let (service, endpoint) = (name.clone(), endpoint.clone());
        Err(Refused::UnknownEndpoint { service, version: version.name, endpoint })
    }

    /// Takes over `version`, in which `endpoint` serves no more; the last one of a version with weight has to.
    fn serving_less(
        &mut self,
        name: &ServiceName,
        version: VersionSpec,
        endpoint: &EndpointAddr,
    ) -> Result<(), Refused> {
        let weight = self.entry(name)?.service.split.weight(&version.name);
        if version.serving().next().is_none() && weight > BasisPoints::NONE {
            let (service, endpoint) = (name.clone(), endpoint.clone());
            return Err(Refused::LastEndpoint { service, version: version.name, endpoint, weight });
        }
        self.edit(name, version.name.clone(), Some(version))
    }
}

fn without(list: &Arc<[EndpointAddr]>, endpoint: &EndpointAddr) -> Arc<[EndpointAddr]> {
    if list.contains(endpoint) {
        return list.iter().filter(|other| *other != endpoint).cloned().collect();
    }
    Arc::clone(list)
}
