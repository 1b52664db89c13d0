//! WHERE traffic goes: the whole routing state as one immutable value.
//!
//! Pure: no clock, no randomness, no I/O. A request's coin comes in as an argument.

pub mod calendar;
pub mod discovery;
pub mod drain;
pub mod duration;
pub mod field;
pub mod fnv;
pub mod glob;
pub mod hold;
pub mod latency;
pub mod limits;
pub mod matcher;
pub mod mirror;
pub mod name;
pub mod page;
pub mod pin;
pub mod pool;
pub mod rules;
pub mod service;
pub mod shield;
pub mod split;
pub mod sticky;
pub mod supervise;
pub mod targeting;
pub mod template;
#[cfg(test)]
mod tests;
pub mod transport;
pub mod upgrades;

use std::sync::Arc;

pub use discovery::{Discovery, Source};
pub use drain::DrainRules;
pub use field::{FieldOp, Side};
pub use glob::Glob;
pub use hold::{Hold, HoldLimits, HoldScope, Holder, Holds, LONGEST_HOLD};
pub use limits::{Rate, RateBy, ServiceLimits};
pub use matcher::{HostPattern, Route, RouteKey, Routed, Router};
pub use mirror::{Compare, MirrorRules};
pub use name::{BasisPoints, EndpointAddr, Epoch, Invalid, ServiceName, VersionName, VersionRef, ZoneName};
pub use page::{ErrorPage, On, Page};
pub use pin::{Avoided, Pin, Pinnable};
pub use pool::balance::{Balance, HashKey, Hashing, Policy, SlowStart};
pub use pool::traits::{EndpointWeight, PoolTraits, Traits, TraitsEdit, ZoneEdit};
pub use pool::warmup::Warmup;
pub use pool::{
    CircuitRules, Deviation, Failing, HealthCheck, HedgeRules, HttpProbe, KeepaliveRules, LONGEST_QUEUE,
    Least, OutlierRules, PoolRules, Probe, RetryRules,
};
pub use rules::{Edits, OwnAnswer, PathRewrite, RouteRules, Rules, SentHost};
pub use service::{AssignedBy, Service, ServiceSpec, Timeouts, VersionSpec};
pub use shield::ShieldRules;
pub use split::Split;
pub use sticky::{Sticky, StickyBy, StickyKey, StickyRules};
pub use supervise::{Slowness, SuperviseMode, SuperviseRules, Tolerance, Watch};
pub use targeting::{Aims, Condition, Conditions, Matching, Shown, TargetRule, Targeting};
pub use template::{Part, Placeholder, Template};
pub use transport::{Identity, Protocol, ProxyHeader, UpstreamTls};
pub use upgrades::UpgradeName;

/// Routes, services, splits and pools at one epoch. Never edited: every change makes a new one that shares what stayed.
#[derive(Debug, Clone, Default)]
pub struct Table {
    epoch: Epoch,
    /// Sorted by name; a service's index is its handle within this table.
    services: Vec<Arc<Service>>,
    router: Arc<Router>,
}

/// Two services claim the same route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("services `{first}` and `{second}` both have the route {route}")]
pub struct RouteTaken {
    /// The route, as `host/path`.
    pub route: String,
    /// The service that has it, first by name.
    pub first: ServiceName,
    /// The other one.
    pub second: ServiceName,
}

impl Table {
    /// A table of these services.
    ///
    /// Cost: O(routes); a table that differs only in splits or pools is made by [`Table::with`] instead.
    ///
    /// # Errors
    /// [`RouteTaken`] when two services have a route with the same host, path and headers.
    pub fn build(epoch: Epoch, mut services: Vec<Arc<Service>>) -> Result<Self, RouteTaken> {
        services.sort_by(|a, b| a.name.cmp(&b.name));
        let all = || {
            let indexed = services.iter().enumerate();
            indexed.flat_map(|(index, service)| service.routes.iter().map(move |route| (route, index)))
        };
        let mut sorted: Vec<_> = all().collect();
        sorted.sort();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let [first, second] = [pair[0].1, pair[1].1].map(|index| services[index].name.clone());
            return Err(RouteTaken { route: pair[0].0.to_string(), first, second });
        }
        let indexed = services.iter().enumerate();
        let places = indexed.flat_map(|(service, spec)| {
            spec.routes
                .iter()
                .enumerate()
                .map(move |(index, route)| (route, Routed { service, route: index }))
        });
        let router = Arc::new(Router::new(places));
        Ok(Self { epoch, services, router })
    }

    /// This table at `epoch` with some services replaced, by index; their routes must be the ones they had.
    ///
    /// Cost: one pointer copy a service, no matter how many routes.
    #[must_use]
    pub fn with(&self, epoch: Epoch, changed: impl IntoIterator<Item = (usize, Arc<Service>)>) -> Self {
        let mut next = Self { epoch, ..self.clone() };
        for (index, service) in changed {
            debug_assert_eq!(next.services[index].routes, service.routes);
            next.services[index] = service;
        }
        next
    }

    /// The number of this table.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// All services, sorted by name.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The index of the service with this name.
    #[must_use]
    pub fn index(&self, name: &ServiceName) -> Option<usize> {
        self.services.binary_search_by(|service| service.name.cmp(name)).ok()
    }

    /// The service with this name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.index(name).map(|index| &self.services[index])
    }

    /// False when some requests may be for another service than by `other`.
    #[must_use]
    pub fn routes_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.router, &other.router)
    }

    /// The service that a request is for, and the most specific route that leads it there; by index.
    pub fn route(&self, key: &impl RouteKey) -> Option<Routed> {
        self.router.route(key)
    }
}
