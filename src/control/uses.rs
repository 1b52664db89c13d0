//! Who uses an address. What is drained is a version or an endpoint of it; what is stopped is a process behind an address,
//! which may be in the pools of others too.
//!
//! Addresses are the same when they are written the same way.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Handle;
use super::elders::Elder;
use crate::proxy::upstream::roll::{Places, Remaining, add_up};
use crate::release::State;
use crate::table::{EndpointAddr, ServiceName, VersionName, VersionSpec};

/// A version that has traffic on an address or may get it back by itself, or has work left there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Use {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// Where.
    pub address: EndpointAddr,
}

/// All uses of some addresses.
#[derive(Debug, Default)]
pub struct Uses(BTreeMap<EndpointAddr, BTreeSet<(ServiceName, VersionName)>>);

impl Uses {
    /// Those of `addresses` by others than this version.
    #[must_use]
    pub fn by_others<'a>(
        &self,
        service: &ServiceName,
        version: &VersionName,
        addresses: impl IntoIterator<Item = &'a EndpointAddr>,
    ) -> Vec<Use> {
        let known = addresses.into_iter().filter_map(|address| Some((address, self.0.get(address)?)));
        let all = known.flat_map(|(address, users)| users.iter().map(move |user| (address, user)));
        let others = all.filter(|(_, (of, name))| (of, name) != (service, version));
        let named = others.map(|(address, (service, version))| Use {
            service: service.clone(),
            version: version.clone(),
            address: address.clone(),
        });
        named.collect()
    }

    fn note(&mut self, address: &EndpointAddr, service: &ServiceName, version: &VersionName) {
        self.0.entry(address.clone()).or_default().insert((service.clone(), version.clone()));
    }
}

impl Handle {
    /// Who uses these addresses now: versions that may send something there, also because supervision may give them their
    /// traffic back, and those that have something left there, on any worker or in a process before this one. Cancel-safe.
    ///
    /// A change that comes later may begin another use.
    pub async fn uses(&self, addresses: BTreeSet<EndpointAddr>) -> Uses {
        let mut uses = Uses::default();
        if addresses.is_empty() {
            return uses;
        }
        let told = self.live().roll.places(addresses.clone()).await;
        self.note_traffic(&mut uses, &self.state(), &addresses, told.is_some());
        self.note_work(&mut uses, &told.unwrap_or_default());
        // One that has not told yet keeps everything from being called drained.
        for left in self.elders().all().iter().flat_map(Elder::left) {
            if let Some(address) = left.work.endpoint.as_ref().filter(|address| addresses.contains(address)) {
                uses.note(address, &left.service, &left.version);
            }
        }
        uses
    }

    /// What a version has left with this address, and what may come to it yet because it may be tried there; all of its tenures
    /// together, on any worker or in a process before this one. `None` when a worker does not answer in time. Cancel-safe.
    pub async fn remaining_at(
        &self,
        service: &ServiceName,
        version: &VersionName,
        address: &EndpointAddr,
    ) -> Option<Vec<Remaining>> {
        let tenures = self.tenures().of_version(service, version);
        let here = self.live().roll.call_at(tenures, address.clone()).await?;
        Some(add_up(here.into_iter().chain(self.elders().left_at(service, version, address))))
    }

    /// Those with weight or that may get some by themselves, or with work that may come to an address yet. Where the workers
    /// have not told what they have, it may be on an endpoint that drains.
    fn note_traffic(
        &self,
        uses: &mut Uses,
        state: &State,
        addresses: &BTreeSet<EndpointAddr>,
        is_told: bool,
    ) {
        for service in state.table.services() {
            let trial = state.deployment(&service.name).and_then(|deployment| deployment.trial.as_ref());
            for spec in &service.versions {
                let mut used = used(spec, is_told).filter(|address| addresses.contains(address)).peekable();
                let has_traffic = || {
                    let has_weight = service.split.leads_to(&spec.name) || service.mirrors_to(&spec.name);
                    let may_get_some = trial.is_some_and(|trial| trial.may_go_back_to(&spec.name));
                    has_weight || may_get_some || self.has_work(&service.name, &spec.name)
                };
                if used.peek().is_some() && has_traffic() {
                    used.for_each(|address| uses.note(address, &service.name, &spec.name));
                }
            }
        }
    }

    fn has_work(&self, service: &ServiceName, version: &VersionName) -> bool {
        let tenures = self.tenures().of_version(service, version);
        tenures.iter().any(|tenure| tenure.in_flight() > 0)
            || !self.elders().left(service, version).is_empty()
    }

    fn note_work(&self, uses: &mut Uses, places: &Places) {
        if places.is_empty() {
            return;
        }
        let tenures = self.tenures().tenures();
        let tenures: HashMap<_, _> = tenures.iter().map(|tenure| (tenure.id, tenure)).collect();
        for (id, address) in places {
            // One that is shown no more has nothing left.
            if let Some(tenure) = tenures.get(id) {
                uses.note(address, &tenure.service, &tenure.version);
            }
        }
    }
}

fn used(spec: &VersionSpec, is_told: bool) -> impl Iterator<Item = &EndpointAddr> {
    spec.endpoints.iter().filter(move |address| !is_told || !spec.draining.contains(address))
}
