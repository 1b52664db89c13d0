//! What `GET /v1/services` and its like say: where each service stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    AlsoUsedBy, Change, EndpointHealth, Mirror, Predecessor, Remaining, Rule, Shield, Standing, Sticky,
};
use crate::control::Handle;
use crate::control::health::Health;
use crate::metrics::Kind;
use crate::proxy::upstream::{self, Upstream};
use crate::release::{Previous, State};
use crate::table::{self, EndpointAddr, ServiceName, Split, Traits, VersionName, VersionSpec};

/// All services.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// The table's epoch.
    pub epoch: u64,
    /// Sorted by name.
    pub services: Vec<Service>,
}

/// One service: where its traffic goes, and what is in flight.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where it stands.
    #[serde(flatten)]
    pub standing: Standing,
    /// The routes that lead to it.
    pub routes: Vec<Route>,
    /// Every version, with weight or without.
    pub versions: Vec<Version>,
    /// By what its users stay with a version; absent when each request has a coin of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// What stable answers for the others when they fail; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shield: Option<Shield>,
    /// The protocols that its requests may change to beside WebSocket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(example = json!(["spdy/3.1"]))]
    pub upgrades: Vec<String>,
    /// Which version gets copies of its requests; absent when there is no mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// How many requests wait, while it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_requests: Option<u64>,
    /// Its last changes, newest first; only when one service is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
}

/// Host + path prefix (+ headers) that lead to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// `shop.example.com`, `*.example.com`, or `*` for any.
    pub host: String,
    /// Raw path prefix.
    pub path: String,
    /// Headers that must have exactly these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

impl From<&table::Route> for Route {
    fn from(route: &table::Route) -> Self {
        let headers = route.headers.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Self { host: route.host.to_string(), path: route.path.to_string(), headers: headers.collect() }
    }
}

/// A split that can be gone back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviousSplit {
    /// The version that carried the service.
    pub stable: String,
    /// The weights, in basis points.
    #[schema(example = json!({"blue": 10000}))]
    pub weights: BTreeMap<String, u16>,
    /// The targeting rules, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// After an exclusive flip: which requests are never with two versions, `all` or `writes`. A revert would not see to that: an
    /// exclusive flip to `stable` does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<String>,
}

impl From<&Previous> for PreviousSplit {
    fn from(previous: &Previous) -> Self {
        let exclusive = previous.exclusive.map(|scope| scope.token().to_owned());
        let (weights, rules) = (weights(&previous.split), Rule::all_of(&previous.split));
        Self { stable: previous.stable.to_string(), weights, rules, exclusive }
    }
}

/// A split as a map of basis points; versions without weight are left out.
#[must_use]
pub fn weights(split: &Split) -> BTreeMap<String, u16> {
    split.shares().map(|(version, weight)| (version.to_string(), weight.points())).collect()
}

/// One release of a service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// Its label.
    pub name: String,
    /// Its weight in basis points, 0 to 10,000.
    pub weight: u16,
    /// True while a targeting rule leads to it: it gets requests, whatever its weight.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub targeted: bool,
    /// True while copies of requests may come to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mirrored: bool,
    /// What its endpoints speak.
    pub protocol: Protocol,
    /// Its pool.
    pub endpoints: Vec<Endpoint>,
    /// What is in flight on it: over all workers, with what it had before it was removed and came again, and with what processes
    /// before this one have.
    pub in_flight: InFlight,
    /// Who else uses an address of its pool; looked for where it has no weight and nothing in flight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_used_by: Vec<AlsoUsedBy>,
}

/// What the endpoints of a version speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1 in clear text.
    #[default]
    Http1,
    /// HTTP/1.1 over TLS.
    Https,
    /// HTTP/2 in clear text, by prior knowledge.
    H2c,
    /// HTTP/2 over TLS.
    H2,
}

impl From<table::Protocol> for Protocol {
    fn from(protocol: table::Protocol) -> Self {
        match protocol {
            table::Protocol::Http1 => Self::Http1,
            table::Protocol::Https => Self::Https,
            table::Protocol::H2c => Self::H2c,
            table::Protocol::H2 => Self::H2,
        }
    }
}

impl From<Protocol> for table::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http1 => Self::Http1,
            Protocol::Https => Self::Https,
            Protocol::H2c => Self::H2c,
            Protocol::H2 => Self::H2,
        }
    }
}

/// One address of a version's pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// `host:port`, `[v6]:port` or `unix:/path`.
    #[schema(example = "127.0.0.1:9001")]
    pub address: String,
    /// True when it gets no new requests.
    #[serde(default)]
    pub draining: bool,
    /// True when it was discovered and nobody has put it there: it goes when it is found no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discovered: bool,
    /// How it fares; absent when it is not looked after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<EndpointHealth>,
    /// How much it takes in relation to the others, 1 to 1,000.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schema(minimum = 1, maximum = 1000, default = 1)]
    pub weight: u16,
    /// The zone it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// The weight of an endpoint of which nothing is said.
fn one() -> u16 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(weight: &u16) -> bool {
    *weight == one()
}

/// Requests, streams and tunnels that are not over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct InFlight {
    /// All of them; never fewer than there are.
    pub total: u64,
    /// By kind (request, upload, stream, sse, websocket, grpc, tunnel, mirror); kinds without any are left out.
    #[schema(example = json!({"request": 3}))]
    pub by_kind: BTreeMap<String, u64>,
}

impl InFlight {
    /// What is in flight on one tenure.
    #[must_use]
    pub fn on(upstream: &Upstream) -> Self {
        let total = upstream.in_flight();
        let count = |kind: Kind| (kind, upstream.cells().map(|cells| cells.in_flight(kind)).sum::<u64>());
        let mut by_kind: BTreeMap<_, _> = Kind::ALL.into_iter().map(count).collect();
        // The kinds are counted a little later than the total: a request without one yet is an ordinary request.
        let known: u64 = by_kind.values().sum();
        *by_kind.entry(Kind::Request).or_default() += total.saturating_sub(known);
        let some = by_kind.into_iter().filter(|(_, count)| *count > 0);
        Self { total, by_kind: some.map(|(kind, count)| (kind.token().to_owned(), count)).collect() }
    }

    /// What is in flight on all tenures of a version, those included that were removed and are not over, and on those of
    /// the processes before this one.
    #[must_use]
    pub fn left(control: &Handle, service: &ServiceName, version: &VersionName) -> Self {
        let tenures = control.tenures().of_version(service, version);
        let mut here = tenures.iter().map(|tenure| Self::on(tenure)).fold(Self::default(), |mut sum, one| {
            sum.total += one.total;
            one.by_kind.into_iter().for_each(|(kind, count)| *sum.by_kind.entry(kind).or_default() += count);
            sum
        });
        here.add(&control.elders().left(service, version));
        here
    }

    /// With what is in flight elsewhere.
    fn add(&mut self, others: &[upstream::Remaining]) {
        for other in others {
            self.total += other.count;
            *self.by_kind.entry(other.kind.token().to_owned()).or_default() += other.count;
        }
    }

    /// As a list.
    #[must_use]
    pub fn remaining(self) -> Vec<Remaining> {
        let oldest_seconds = None;
        self.by_kind.into_iter().map(|(kind, count)| Remaining { kind, count, oldest_seconds }).collect()
    }
}

/// The proxy itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// The table's epoch.
    pub epoch: u64,
    /// Since the process started.
    pub uptime_seconds: u64,
    /// The process.
    pub pid: u32,
    /// How many workers serve.
    pub workers: usize,
    /// The CPU that each worker is pinned to, in their order; none when they are not.
    #[serde(default)]
    pub cpus: Vec<usize>,
    /// Where clients are accepted.
    pub listeners: Vec<Listener>,
    /// Where this API is served over TCP; absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Listener>,
    /// True when it serves; false while it starts or winds down.
    pub ready: bool,
    /// How many processes there have been in a row, with this one: each upgrade is one more.
    #[serde(default)]
    pub generation: u64,
    /// Older ones that still have work.
    #[serde(default)]
    pub predecessors: Vec<Predecessor>,
}

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listener {
    /// As configured.
    pub listen: String,
    /// As bound: the port that port 0 became.
    pub bound: String,
}

fn endpoint(spec: &VersionSpec, found: BTreeSet<EndpointAddr>) -> impl Fn(&EndpointAddr) -> Endpoint {
    move |at| {
        let Traits { weight, zone } = spec.traits.of(at);
        Endpoint {
            address: at.to_string(),
            draining: spec.draining.contains(at),
            discovered: found.contains(at),
            weight: weight.number(),
            zone: zone.map(|zone| zone.to_string()),
            health: None,
        }
    }
}

impl Services {
    /// All services of `state`.
    #[must_use]
    pub fn of(state: &State, control: &Handle) -> Self {
        let names = state.table.services().iter().map(|service| &service.name);
        let services = names.filter_map(|name| Service::of(state, control, name)).collect();
        Self { epoch: state.table.epoch().0, services }
    }
}

impl Service {
    /// With what is known of the clocks of its ramp and its retirement, and of the version that ramps.
    #[must_use]
    pub fn with_clocks(mut self, control: &Handle) -> Self {
        self.standing.look_at_clocks(&self.name, control);
        self
    }

    /// With what is known of its endpoints' health.
    #[must_use]
    pub fn with_health(mut self, health: &Health) -> Self {
        for version in &mut self.versions {
            let (Ok(service), Ok(name)) = (self.name.parse(), version.name.parse()) else { continue };
            let known = health.of(&service, &name);
            for endpoint in &mut version.endpoints {
                endpoint.health = EndpointHealth::of(&known, &endpoint.address);
            }
        }
        self
    }

    /// The service of this name, if there is one.
    #[must_use]
    pub fn of(state: &State, control: &Handle, name: &ServiceName) -> Option<Self> {
        let (service, deployment) = (state.table.service(name)?, state.deployment(name)?);
        let version = |spec: &VersionSpec| Version {
            name: spec.name.to_string(),
            weight: service.split.weight(&spec.name).points(),
            targeted: service.split.rules().leads_to(&spec.name),
            mirrored: service.mirrors_to(&spec.name),
            protocol: spec.protocol.into(),
            endpoints: spec.endpoints.iter().map(endpoint(spec, deployment.only_found(&spec.name))).collect(),
            in_flight: InFlight::left(control, name, &spec.name),
            also_used_by: Vec::new(),
        };
        let mut standing = Standing::of(state, name)?;
        // The state knows only of what the processes before this one have told.
        let weightless = service.versions.iter().filter(|spec| !service.split.leads_to(&spec.name));
        let leaving = weightless.filter(|spec| control.is_draining(name, &spec.name));
        standing.leave(leaving.map(|spec| spec.name.to_string()));
        Some(Self {
            name: name.to_string(),
            standing,
            routes: service.routes.iter().map(Route::from).collect(),
            versions: service.versions.iter().map(version).collect(),
            sticky: Sticky::of(service),
            shield: Shield::of(service, control),
            upgrades: service.upgrades.iter().map(ToString::to_string).collect(),
            mirror: Mirror::of(service, control),
            held_requests: (!service.holds.are_none())
                .then(|| control.live().snapshot().waiting(name) as u64),
            changes: None,
        })
    }
}
