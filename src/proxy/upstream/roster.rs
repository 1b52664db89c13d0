//! A tenure's endpoints, and how each of them fares.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::Upstream;
use super::suspicion::Suspicion;
use super::vitals::{Standing, Vitals};
use crate::table::EndpointAddr;

/// How a tenure's endpoints fare, and what is looked for in them.
#[derive(Debug, Default)]
pub(super) struct Roster {
    vitals: HashMap<EndpointAddr, Arc<Vitals>>,
    /// The rooms of endpoints that went, as long as anybody may be in them: who comes back has the same one.
    left: HashMap<EndpointAddr, Weak<u64>>,
    suspicion: Option<Suspicion>,
}

impl Upstream {
    /// How the endpoint at `address` fares in this version; the same one as long as the tenure lasts.
    #[must_use]
    pub fn vitals(self: &Arc<Self>, address: &EndpointAddr) -> Arc<Vitals> {
        let mut roster = self.roster();
        if let Some(known) = roster.vitals.get(address) {
            return Arc::clone(known);
        }
        let room = roster.left.remove(address).and_then(|room| room.upgrade());
        let vitals = Arc::new(Vitals::new(self, address.clone(), room));
        vitals.watch(roster.suspicion.as_ref());
        roster.vitals.insert(address.clone(), Arc::clone(&vitals));
        vitals
    }

    /// How the endpoint at `address` fares in this version, if anybody has looked at it.
    #[must_use]
    pub fn known_vitals(&self, address: &EndpointAddr) -> Option<Arc<Vitals>> {
        self.roster().vitals.get(address).cloned()
    }

    /// The same of several endpoints.
    #[must_use]
    pub fn all_known_vitals<'a>(
        &self,
        addresses: impl Iterator<Item = &'a EndpointAddr>,
    ) -> Vec<(&'a EndpointAddr, Option<Arc<Vitals>>)> {
        let roster = self.roster();
        addresses.map(|address| (address, roster.vitals.get(address).cloned())).collect()
    }

    /// How the endpoint at `address` stands in this version, as far as anybody knows.
    #[must_use]
    pub fn standing(&self, address: &EndpointAddr) -> Standing {
        self.known_vitals(address).map_or_else(Standing::default, |vitals| vitals.standing())
    }

    /// From now on this is looked for in all of its endpoints.
    pub fn suspect(&self, suspicion: Option<Suspicion>) {
        let mut roster = self.roster();
        roster.vitals.values().for_each(|vitals| vitals.watch(suspicion.as_ref()));
        roster.suspicion = suspicion;
    }

    /// The endpoint at `address` joins a pool that serves already. Call before that is published.
    pub fn arrive(self: &Arc<Self>, address: &EndpointAddr, at: Instant) {
        self.vitals(address).arrive(at);
    }

    /// Forgets how endpoints fare that are not in `pool` any more; not where requests are that they still have.
    pub fn forget_all_but(&self, pool: &[EndpointAddr]) {
        let known: HashSet<_> = pool.iter().collect();
        let Roster { vitals, left, .. } = &mut *self.roster();
        let gone = vitals.extract_if(|address, _| !known.contains(address));
        left.extend(gone.map(|(address, vitals)| (address, Arc::downgrade(vitals.room()))));
        left.retain(|_, room| room.strong_count() > 0);
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
