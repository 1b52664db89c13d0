//! Whether versions are ready for traffic: what the gate is told, and a way to wait for it.

use super::Health;
use crate::control::{Failed, Handle};
use crate::release::gate::EndpointHealth;
use crate::release::{self, Command, Readiness};
use crate::table::{EndpointAddr, ServiceName, Table, VersionName};

impl Health {
    /// What the gate is told about the endpoints that `command` may give traffic to.
    pub(in crate::control) fn facts(
        &self,
        command: &Command,
        table: &Table,
        forced: bool,
    ) -> release::Health {
        let mut services = command.moves(table);
        services.sort();
        services.dedup();
        let endpoints = services.into_iter().flat_map(|service| self.endpoints(service)).collect();
        release::Health { forced, endpoints }
    }

    /// What is known of the endpoints of a service.
    fn endpoints(&self, service: &ServiceName) -> Vec<EndpointHealth> {
        let pools = self.lock();
        let subjects = pools.get(service).into_iter().flatten().flat_map(|pool| pool.subjects.values());
        let told = subjects.filter_map(|subject| {
            let known = subject.known();
            Some(EndpointHealth {
                service: service.clone(),
                version: subject.upstream.version.clone(),
                endpoint: subject.address.clone(),
                protocol: subject.check.as_ref()?.protocol,
                is_well: known.is_well(),
                last: known.last.map(|answer| (answer.said, answer.at)),
            })
        });
        told.collect()
    }
}

/// What one waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthy {
    /// As many endpoints of the version are well as it needs to get traffic.
    Version,
    /// This endpoint of it is well.
    Endpoint(EndpointAddr),
}

impl Handle {
    /// How ready a version is for traffic; `None` when there is no such version.
    #[must_use]
    pub fn readiness(&self, service: &ServiceName, version: &VersionName) -> Option<Readiness> {
        let state = self.state();
        let present = state.table.service(service)?;
        let health = release::Health { forced: false, endpoints: self.health.endpoints(service) };
        Some(health.readiness(present, present.version(version)?))
    }

    /// Waits until what one waits for is found well: at once where nothing is checked. Cancel-safe; it has no time limit of
    /// its own.
    ///
    /// # Errors
    /// [`Failed::Refused`] when there is no such version or endpoint any more, or it is drained, [`Failed::Closed`] when the proxy
    /// shuts down, [`Failed::LeftBehind`] when another process takes its place.
    pub async fn wait_healthy(
        &self,
        service: &ServiceName,
        version: &VersionName,
        healthy: &Healthy,
    ) -> Result<Readiness, Failed> {
        let (mut found, mut seen) = (self.health.subscribe(), self.seen.clone());
        loop {
            found.mark_unchanged();
            if seen.borrow_and_update().is_past {
                return Err(Failed::LeftBehind);
            }
            let unknown = || no_version(self, service, version);
            let readiness = self.readiness(service, version).ok_or_else(unknown)?;
            let is_healthy = match healthy {
                Healthy::Version => readiness.is_ready(),
                Healthy::Endpoint(endpoint) => {
                    self.check_serves(service, version, endpoint)?;
                    !readiness.unwell.iter().any(|unwell| unwell.endpoint == *endpoint)
                }
            };
            if is_healthy {
                return Ok(readiness);
            }
            tokio::select! {
                // It is there for as long as we are.
                _ = found.changed() => {}
                changed = seen.changed() => changed.map_err(|_| Failed::Closed)?,
            }
        }
    }
}

impl Handle {
    /// Refuses what is never found well: an endpoint that is gone, or is to get nothing.
    fn check_serves(
        &self,
        service: &ServiceName,
        version: &VersionName,
        endpoint: &EndpointAddr,
    ) -> Result<(), Failed> {
        let state = self.state();
        let present = state.table.service(service).and_then(|present| present.version(version));
        let Some(present) = present else { return Err(no_version(self, service, version)) };
        if present.serving().any(|serving| serving == endpoint) {
            return Ok(());
        }
        let (service, version, endpoint) = (service.clone(), version.clone(), endpoint.clone());
        Err(match present.endpoints.contains(&endpoint) {
            true => release::Refused::Draining { service, version, endpoint }.into(),
            false => release::Refused::UnknownEndpoint { service, version, endpoint }.into(),
        })
    }
}

fn no_version(handle: &Handle, service: &ServiceName, version: &VersionName) -> Failed {
    use release::Refused;
    match handle.state().table.service(service) {
        None => Refused::UnknownService { service: service.clone() }.into(),
        Some(present) => {
            let known = present.versions.iter().map(|version| version.name.clone()).collect();
            Refused::UnknownVersion { service: service.clone(), version: version.clone().into(), known }
                .into()
        }
    }
}
