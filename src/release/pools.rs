//! Edits of a draft's versions and their pools.

use std::sync::Arc;

use super::Refused;
use super::deployment::{Deployment, Edit};
use super::draft::{Draft, Item};
use super::mirror::mirrored;
use super::overlay::{effective, own, serves};
use super::targeting::Misaimed;
use crate::table::{
    BasisPoints, EndpointAddr, Service, ServiceName, TraitsEdit, VersionName, VersionRef, VersionSpec,
};

impl Draft<'_> {
    pub(super) fn put_version(&mut self, name: &ServiceName, version: VersionSpec) -> Result<(), Refused> {
        let Item { service, deployment, .. } = self.entry(name)?;
        let mut version = version;
        let found = deployment.discovered.get(&version.name).cloned().unwrap_or_default();
        if let Some(present) = service.version(&version.name) {
            // Said of an endpoint, not of the list: who stays keeps it. Those that were found stay, and drained if they are.
            let stay: Vec<_> = version.endpoints.iter().chain(&*found).cloned().collect();
            version.traits = present.traits.within(&stay);
            let draining = present.draining.iter().filter(|endpoint| found.contains(endpoint));
            version.draining = draining.cloned().collect();
            if *present == version {
                return Ok(());
            }
            if present.endpoints == version.endpoints {
                version.endpoints = Arc::clone(&present.endpoints);
            }
        }
        let serves =
            version.endpoints.iter().chain(&*found).any(|endpoint| !version.draining.contains(endpoint));
        if !serves && service.split.leads_to(&version.name) {
            return Err(in_use(service, &version.name));
        }
        if !serves && deployment.mirrors_to(service, &version.name) {
            return Err(mirrored(name, &version.name));
        }
        self.edit(name, version.name.clone(), Some(version), None)
    }

    pub(super) fn remove_version(
        &mut self,
        name: &ServiceName,
        version: &VersionName,
    ) -> Result<(), Refused> {
        self.resolve(name, &version.clone().into())?;
        let Item { service, deployment, .. } = self.entry(name)?;
        if service.split.leads_to(version) {
            return Err(in_use(service, version));
        }
        if deployment.mirrors_to(service, version) {
            return Err(mirrored(name, version));
        }
        self.edit(name, version.clone(), None, None)
    }

    /// Adds the endpoint to the pool; one that is there and draining serves again. What is said of it is from now on so.
    ///
    /// One that was found is from now on in the pool for its own sake, unless this only ends its drain.
    pub(super) fn put_endpoint(
        &mut self,
        name: &ServiceName,
        version: &VersionRef,
        endpoint: EndpointAddr,
        said: TraitsEdit,
    ) -> Result<(), Refused> {
        let mut version = self.version(name, version)?;
        let traits = version.traits.with(&endpoint, said.over(version.traits.of(&endpoint)));
        let is_serving = version.serving().any(|serving| *serving == endpoint);
        if traits == version.traits
            && is_serving
            && self.entry(name)?.deployment.owns(&version.name, &endpoint)
        {
            return Ok(());
        }
        let is_drained = version.draining.contains(&endpoint);
        version.traits = traits;
        version.draining = without(&version.draining, &endpoint);
        if !version.endpoints.contains(&endpoint) {
            version.endpoints = version.endpoints.iter().chain([&endpoint]).cloned().collect();
        }
        let kept = Some(&endpoint).filter(|_| !is_drained);
        self.edit(name, version.name.clone(), Some(version), kept)
    }

    pub(super) fn remove_endpoint(
        &mut self,
        name: &ServiceName,
        version: &VersionRef,
        endpoint: &EndpointAddr,
    ) -> Result<(), Refused> {
        let mut version = self.with_endpoint(name, version, endpoint)?;
        if self.entry(name)?.deployment.has_found(&version.name, endpoint) {
            let (service, endpoint) = (name.clone(), endpoint.clone());
            return Err(Refused::Discovered { service, version: version.name, endpoint });
        }
        version.endpoints = without(&version.endpoints, endpoint);
        version.draining = without(&version.draining, endpoint);
        version.traits = version.traits.within(&version.endpoints);
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

    /// Ends the drain of an endpoint that is in the pool, or was found once and may be again; it is not put there.
    pub(super) fn end_drain(
        &mut self,
        name: &ServiceName,
        version: &VersionRef,
        endpoint: &EndpointAddr,
    ) -> Result<(), Refused> {
        let mut version = self.version(name, version)?;
        if !version.draining.contains(endpoint) {
            return Ok(());
        }
        version.draining = without(&version.draining, endpoint);
        self.edit(name, version.name.clone(), Some(version), None)
    }

    /// What was found takes the place of what was found before; a version with weight keeps an endpoint that serves.
    pub(super) fn discover(
        &mut self,
        name: &ServiceName,
        version: &VersionName,
        endpoints: Option<Vec<EndpointAddr>>,
    ) -> Result<(), Refused> {
        self.resolve(name, &version.clone().into())?;
        let epoch = self.epoch;
        let Item { service, deployment, .. } = self.entry(name)?;
        if deployment.discovered.get(version).map(|found| &found[..]) == endpoints.as_deref() {
            return Ok(());
        }
        match endpoints {
            Some(found) => deployment.discovered.insert(version.clone(), found.into()),
            None => deployment.discovered.remove(version),
        };
        let versions = effective(&deployment.spec, &deployment.edits, &deployment.discovered);
        if !serves(&versions, version) && service.split.leads_to(version) {
            // Whoever comes to an address that drained when it was there last is another one, and somebody has to serve.
            let before = service.version(version).map(|spec| Arc::clone(&spec.endpoints)).unwrap_or_default();
            let mut spec = versions.into_iter().find(|spec| spec.name == *version);
            if let Some(spec) = &mut spec {
                spec.draining = spec.draining.iter().filter(|of| before.contains(of)).cloned().collect();
            }
            return match spec.filter(|spec| spec.serving().next().is_some()) {
                Some(spec) => self.edit(name, version.clone(), Some(spec), None),
                None => Err(Refused::EmptyVersion { service: name.clone(), version: version.clone() }),
            };
        }
        let (stable, split, holds) = (service.stable.clone(), service.split.clone(), service.holds);
        *service = Service::new(&deployment.spec, versions, stable, split, epoch).holding(holds);
        Ok(())
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
        let Item { service, deployment, .. } = self.entry(name)?;
        if version.serving().next().is_none() && deployment.mirrors_to(service, &version.name) {
            return Err(mirrored(name, &version.name));
        }
        let split = &service.split;
        let weight = split.weight(&version.name);
        if version.serving().next().is_none() && split.leads_to(&version.name) {
            let (service, endpoint) = (name.clone(), endpoint.clone());
            if weight == BasisPoints::NONE {
                return Err(Misaimed::Targeted { service, version: version.name }.into());
            }
            return Err(Refused::LastEndpoint { service, version: version.name, endpoint, weight });
        }
        self.edit(name, version.name.clone(), Some(version), None)
    }

    /// Puts `version` in place of what the service had under that name, or takes it away; `put` is in it for its own sake.
    fn edit(
        &mut self,
        name: &ServiceName,
        version: VersionName,
        new: Option<VersionSpec>,
        put: Option<&EndpointAddr>,
    ) -> Result<(), Refused> {
        let epoch = self.epoch;
        let Item { service, deployment, .. } = self.entry(name)?;
        let over = deployment.spec.versions.iter().find(|file| file.name == version).cloned();
        let new = new.map(|new| without_found(new, deployment, put));
        match (new, over) {
            (Some(new), over) if over.as_ref() == Some(&new) => {
                deployment.edits.remove(&version);
            }
            (Some(new), over) => {
                deployment.edits.insert(version, Edit::Is { version: new, over });
            }
            (None, Some(over)) => {
                deployment.edits.insert(version, Edit::Removed { over });
            }
            (None, None) => {
                deployment.edits.remove(&version);
            }
        }
        let versions = effective(&deployment.spec, &deployment.edits, &deployment.discovered);
        let (stable, split, holds) = (service.stable.clone(), service.split.clone(), service.holds);
        *service = Service::new(&deployment.spec, versions, stable, split, epoch).holding(holds);
        Ok(())
    }
}

/// Why a version that gets requests cannot be taken away.
fn in_use(service: &Service, version: &VersionName) -> Refused {
    let (weight, service, version) = (service.split.weight(version), service.name.clone(), version.clone());
    if weight == BasisPoints::NONE {
        return Misaimed::Targeted { service, version }.into();
    }
    Refused::VersionInUse { service, version, weight }
}

/// The version without what was found: that is nobody's edit, but for `put`.
fn without_found(version: VersionSpec, deployment: &Deployment, put: Option<&EndpointAddr>) -> VersionSpec {
    let Some(found) = deployment.discovered.get(&version.name) else { return version };
    let before = own(&deployment.spec, &deployment.edits);
    let before = before.iter().find(|spec| spec.name == version.name);
    let is_own = |endpoint: &&EndpointAddr| {
        Some(*endpoint) == put
            || !found.contains(endpoint)
            || before.is_some_and(|spec| spec.endpoints.contains(endpoint))
    };
    if version.endpoints.iter().all(|endpoint| is_own(&endpoint)) {
        return version;
    }
    VersionSpec { endpoints: version.endpoints.iter().filter(is_own).cloned().collect(), ..version }
}

fn without(list: &Arc<[EndpointAddr]>, endpoint: &EndpointAddr) -> Arc<[EndpointAddr]> {
    if list.contains(endpoint) {
        return list.iter().filter(|other| *other != endpoint).cloned().collect();
    }
    Arc::clone(list)
}
