//! How one service came to be where it is: its phase, the way back, and what was edited over the file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::digest::FileDigest;
use super::overlay::own;
use super::ramp::{Ramp, Ramped};
use super::retire::{Retired, Retirement};
use super::trial::{Suspicion, Trial};
use crate::table::{
    EndpointAddr, HoldScope, Service, ServiceSpec, Split, VersionName, VersionRef, VersionSpec,
};

/// A service's history as far as it decides what may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// What the file says of it.
    pub spec: Arc<ServiceSpec>,
    /// A digest of `spec`, so that an edited file is noticed over a restart.
    pub file_digest: FileDigest,
    /// What the API changed about the file's versions and pools.
    pub edits: BTreeMap<VersionName, Edit>,
    /// Endpoints that were found where the file says to look for them, by version; what was found last stays.
    pub discovered: Discovered,
    /// Where it stands.
    pub phase: Phase,
    /// The way back.
    pub previous: Option<Previous>,
    /// The comparison under way.
    pub trial: Option<Trial>,
    /// The ramp under way.
    pub ramp: Option<Ramp>,
    /// How the last one has ended.
    pub ramped: Option<Ramped>,
    /// The retirement under way.
    pub retirement: Option<Retirement>,
    /// How the last one has ended.
    pub retired: Option<Retired>,
    /// The version for which the mirror is over.
    pub mirror_over: Option<VersionName>,
}

impl Deployment {
    /// The version that is tried against stable in this service: the one that ramps or is retired, else as [`Service::candidate`] has it.
    #[must_use]
    pub fn candidate<'s>(&'s self, service: &'s Service) -> Option<&'s VersionName> {
        let rising = self.ramp.as_ref().map(|ramp| &ramp.to);
        let named = rising.or(self.retirement.as_ref().map(|retirement| &retirement.version));
        named.filter(|to| **to != service.stable).or_else(|| service.candidate())
    }

    /// The version of this service that `reference` names, if there is one now.
    #[must_use]
    pub fn resolve<'s>(&'s self, service: &'s Service, reference: &VersionRef) -> Option<&'s VersionName> {
        match reference {
            VersionRef::Candidate => self.candidate(service),
            VersionRef::Name(_) | VersionRef::Stable => service.resolve(reference),
        }
    }

    /// What supervision has against the version that it tries in this service, as it is kept.
    #[must_use]
    pub fn suspicion(&self, service: &Service) -> Option<Suspicion> {
        self.trial.as_ref()?.suspicion(&service.split, false)
    }

    /// True when the endpoint was found, whoever else names it: taken away, it would go on serving.
    #[must_use]
    pub fn has_found(&self, version: &VersionName, endpoint: &EndpointAddr) -> bool {
        self.discovered.get(version).is_some_and(|found| found.contains(endpoint))
    }

    /// The endpoints that are in the pool only because they were found: they go when they are found no more.
    #[must_use]
    pub fn only_found(&self, version: &VersionName) -> BTreeSet<EndpointAddr> {
        let Some(found) = self.discovered.get(version) else { return BTreeSet::new() };
        let mut only: BTreeSet<_> = found.iter().cloned().collect();
        let own = own(&self.spec, &self.edits).into_iter().filter(|spec| spec.name == *version);
        own.for_each(|spec| only.retain(|endpoint| !spec.endpoints.contains(endpoint)));
        only
    }

    /// True when the endpoint is in the pool for its own sake, found or not.
    #[must_use]
    pub fn owns(&self, version: &VersionName, endpoint: &EndpointAddr) -> bool {
        let own = own(&self.spec, &self.edits);
        own.iter().any(|spec| spec.name == *version && spec.endpoints.contains(endpoint))
    }
}

/// Endpoints that were found, by version. They join the version's own and are nobody's edit.
pub type Discovered = BTreeMap<VersionName, Arc<[EndpointAddr]>>;

/// The split before the last flip, ramp or weight change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// Who carried the service.
    pub stable: VersionName,
    /// The weights and the targeting rules.
    pub split: Split,
    /// Where an exclusive flip has left it: which requests are never with two versions. Who goes back does so exclusively or
    /// reverts.
    pub exclusive: Option<HoldScope>,
}

/// One version's difference from the file, made through the API.
///
/// It lasts until the file's own definition of that version changes: then the file says what exists. What drains and exists
/// still drains on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The version is this, in place of what the file said (`None`: it is not in the file).
    Is {
        /// The version as it is.
        version: VersionSpec,
        /// The file's definition that this replaces.
        over: Option<VersionSpec>,
    },
    /// The version is not there, though the file said this.
    Removed {
        /// The file's definition that was taken away.
        over: VersionSpec,
    },
}

impl Edit {
    /// True while the file says what it said when the edit was made.
    ///
    /// Whatever it says of TLS: that is never edited, and a renewed certificate takes no edit back.
    pub(super) fn holds_over(&self, file: Option<&VersionSpec>) -> bool {
        let over = match self {
            Self::Is { over, .. } => over.as_ref(),
            Self::Removed { over } => Some(over),
        };
        let same = |over: &VersionSpec, file: &VersionSpec| {
            let VersionSpec { name, endpoints, protocol, traits, .. } = over;
            (name, endpoints, protocol, traits) == (&file.name, &file.endpoints, &file.protocol, &file.traits)
        };
        match (over, file) {
            (Some(over), Some(file)) => same(over, file),
            (over, file) => over.is_none() && file.is_none(),
        }
    }
}

/// Where a service stands in a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Phase {
    /// One version has everything and nothing is leaving.
    #[default]
    Steady,
    /// Several versions share the new requests.
    Canary,
    /// Versions without weight still have requests in flight.
    Draining {
        /// Those versions, by name.
        leaving: Vec<VersionName>,
    },
}

impl Phase {
    /// The contract's token for it.
    #[must_use]
    pub fn token(&self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Canary => "canary",
            Self::Draining { .. } => "draining",
        }
    }

    /// The versions that are leaving.
    #[must_use]
    pub fn leaving(&self) -> &[VersionName] {
        match self {
            Self::Draining { leaving } => leaving,
            Self::Steady | Self::Canary => &[],
        }
    }

    /// The phase of a service with this split while `leaving` still have work.
    #[must_use]
    pub fn of(split: &Split, mut leaving: Vec<VersionName>) -> Self {
        leaving.sort();
        leaving.dedup();
        match (leaving.is_empty(), split.is_whole()) {
            (false, _) => Self::Draining { leaving },
            (true, true) => Self::Steady,
            (true, false) => Self::Canary,
        }
    }

    /// This phase once nothing is left on `version`.
    #[must_use]
    pub fn without(&self, version: &VersionName, split: &Split) -> Self {
        let leaving = self.leaving().iter().filter(|name| *name != version);
        Self::of(split, leaving.cloned().collect())
    }

    /// This phase while something is left on `version`; one that gets new requests does not leave.
    #[must_use]
    pub fn with(&self, version: &VersionName, split: &Split) -> Self {
        let leaves = !split.leads_to(version);
        let leaving = self.leaving().iter().chain(leaves.then_some(version));
        Self::of(split, leaving.cloned().collect())
    }
}
