//! What is left on a version, an endpoint, or the whole proxy, and whether that may be stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{InFlight, Trial};
use crate::control::Use;
use crate::proxy::upstream;
use crate::release::State;
use crate::table::{EndpointAddr, ServiceName};

/// So many of one kind are left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Remaining {
    /// request, upload, stream, sse, websocket, grpc, tunnel or mirror.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// For how long the oldest of them has been in flight; null when a worker was too busy to say.
    #[serde(default)]
    pub oldest_seconds: Option<f64>,
}

/// What is left with one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointLeft {
    /// `host:port`, `[v6]:port` or `unix:/path`.
    #[schema(example = "127.0.0.1:9001")]
    pub endpoint: String,
    /// By kind.
    pub remaining: Vec<Remaining>,
}

/// May this version be stopped?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Drain {
    /// True only when the version has no weight, no targeting rule and no mirror leads to it, nothing is left on it on any worker, and nothing can arrive.
    pub drained: bool,
    /// Its weight in basis points: a version with weight never drains.
    pub weight: u16,
    /// What is left, by kind.
    pub remaining: Vec<Remaining>,
    /// The same by endpoint; what waits for an endpoint is in none.
    #[serde(default)]
    pub endpoints: Vec<EndpointLeft>,
    /// True while a targeting rule leads to it: it never drains then, whatever its weight.
    #[serde(default, skip_serializing_if = "is_false")]
    pub targeted: bool,
    /// True while copies of requests may come to it: it never drains then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mirrored: bool,
    /// True while it is retiring: nobody new comes to it, and who is there may still come.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retiring: bool,
    /// Who else uses an address of its pool; looked for once it is drained, and absent when nobody does. As long as somebody does, what is there is not safe
    /// to stop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_used_by: Vec<AlsoUsedBy>,
    /// Present while supervision may give it traffic back by itself: do not stop it then, also when it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
}

/// Another version, of this service or another one, that has traffic on an address, or work left there, or to which supervision
/// may give traffic back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlsoUsedBy {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// `host:port`, `[v6]:port` or `unix:/path`.
    #[schema(example = "127.0.0.1:9001")]
    pub address: String,
}

impl From<Use> for AlsoUsedBy {
    fn from(of: Use) -> Self {
        let (service, version) = (of.service.to_string(), of.version.to_string());
        Self { service, version, address: of.address.to_string() }
    }
}

/// A version is what another is compared with, and traffic may go back to it by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Measure {
    /// The version that is compared with it.
    #[schema(example = "green")]
    pub candidate: String,
    /// Until when; absent: until the next change of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-11-28T22:10:00.000Z")]
    pub until: Option<String>,
}

impl Measure {
    /// What the comparison that is under way in a service makes of `version`.
    #[must_use]
    pub fn present(state: &State, service: &ServiceName, version: &str) -> Option<Self> {
        let trial = state.deployment(service)?.trial.as_ref()?;
        Self::of(&Trial::of(trial, &state.table.service(service)?.split), version)
    }

    /// What this comparison makes of `version`.
    #[must_use]
    pub fn of(trial: &Trial, version: &str) -> Option<Self> {
        let is_measure = trial.acts && trial.baseline == version;
        is_measure.then(|| Self { candidate: trial.candidate.clone(), until: trial.until.clone() })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// May this endpoint of a version be stopped?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointDrain {
    /// True only when it gets no new requests of this version, nothing is left on it on any worker, and nothing can arrive.
    pub drained: bool,
    /// True while it is in the version's pool.
    pub in_pool: bool,
    /// True while it is in the pool and gets no new requests.
    pub draining: bool,
    /// True while copies of requests may come to it, with its version.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mirrored: bool,
    /// What is left, by kind; with what is elsewhere, or waits, and may come to it yet: the requests of a version that was left or removed are
    /// tried again with any endpoint of its pool that does not drain.
    pub remaining: Vec<Remaining>,
    /// Who else uses the address; looked for once it is drained, and absent when nobody does. As long as somebody does, what is there is not safe to stop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_used_by: Vec<AlsoUsedBy>,
    /// Present while supervision may give it traffic back by itself, with its version: do not stop it then, also when it is drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
}

impl EndpointDrain {
    /// True when what is there may be stopped.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.drained && self.also_used_by.is_empty() && self.measure.is_none()
    }
}

/// Everything that gets no new requests and is not over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Drains {
    /// True when nothing is left on any version that gets no new requests. False while the proxy itself stops: that it
    /// has ended says the rest.
    pub drained: bool,
    /// True while the proxy winds down; then every version is here that has anything left.
    pub stopping: bool,
    /// By service and version.
    pub versions: Vec<VersionLeft>,
    /// The versions that are drained and yet not safe to stop: others use addresses of theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<VersionLeft>,
    /// Versions without traffic that copies of requests may come to: not to be stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrored: Vec<VersionLeft>,
    /// Versions without traffic to which supervision may give it back by itself: not to be stopped, drained or not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<VersionKept>,
}

/// A version that has no traffic and may get it back by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionKept {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// Why.
    #[serde(flatten)]
    pub measure: Measure,
}

/// A version with what is left on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VersionLeft {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// What is left.
    #[serde(flatten)]
    pub drain: Drain,
}

impl Drain {
    /// The answer for a version with this weight, to which a rule leads or not, and a mirror or not. `in_flight` was read last; `told` is what the workers said before.
    #[must_use]
    pub fn of(
        (weight, targeted, mirrored): (u16, bool, bool),
        drains: bool,
        in_flight: &InFlight,
        told: Option<&[upstream::Remaining]>,
    ) -> Self {
        let drained = weight == 0 && !targeted && !mirrored && in_flight.total == 0 && !drains;
        let told = told.filter(|_| in_flight.total > 0).unwrap_or_default();
        let oldest =
            |kind: &str| told.iter().filter(|left| left.kind.token() == kind).map(|left| left.oldest).max();
        let remaining = in_flight.by_kind.iter();
        let remaining = remaining.map(|(kind, count)| Remaining {
            oldest_seconds: oldest(kind).map(seconds),
            kind: kind.clone(),
            count: *count,
        });
        let (remaining, endpoints) = (remaining.collect(), by_endpoint(told));
        let (retiring, also_used_by, measure) = Default::default();
        Self { drained, weight, remaining, endpoints, targeted, mirrored, retiring, also_used_by, measure }
    }
}

impl From<&upstream::Remaining> for Remaining {
    fn from(left: &upstream::Remaining) -> Self {
        let oldest_seconds = Some(seconds(left.oldest));
        Self { kind: left.kind.token().to_owned(), count: left.count, oldest_seconds }
    }
}

/// In thousandths of a second.
#[must_use]
pub fn seconds(age: Duration) -> f64 {
    (age.as_secs_f64() * 1e3).round() / 1e3
}

fn by_endpoint(told: &[upstream::Remaining]) -> Vec<EndpointLeft> {
    let mut endpoints: BTreeMap<&EndpointAddr, Vec<Remaining>> = BTreeMap::new();
    for left in told {
        if let Some(endpoint) = &left.endpoint {
            endpoints.entry(endpoint).or_default().push(left.into());
        }
    }
    let left = |(endpoint, remaining): (&EndpointAddr, _)| EndpointLeft {
        endpoint: endpoint.to_string(),
        remaining,
    };
    endpoints.into_iter().map(left).collect()
}
