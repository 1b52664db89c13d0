//! What a change is asked with and answered with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Rule, Standing, TrialEnd};
use crate::release::{Effects, Out, State};
use crate::table::{ServiceName, Split};

/// All new requests of a service to one version.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Flip {
    /// The version that gets everything: its label, `@stable` or `@candidate`.
    #[schema(example = "green")]
    pub to: String,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True: two versions never serve at the same time. New requests wait until nothing is left on the others; "writes":
    /// only those wait, and are waited for, that are not GET, HEAD or OPTIONS, or that change the protocol. Not in a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<Value>,
    /// With `exclusive`: what is done about streams, event streams, WebSockets, tunnels and gRPC calls of the others.
    /// `refuse` (the default): the flip is refused if there are event streams, WebSockets or tunnels, and waits for the rest;
    /// `close`: event streams, WebSockets and gRPC streams are told to go at once, in their protocol's own words, and cut when they
    /// have not gone after 5 s, as tunnels are, which cannot be told;
    /// `ignore`: it does not wait for any of these, and then two versions do serve at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "refuse")]
    pub streams: Option<String>,
    /// With `exclusive`: for how long requests may wait, `500ms`, `10s`, at most `10m`; else as the service's `hold` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10s")]
    pub hold_timeout: Option<String>,
    /// True: also when too few of the version's endpoints are well; it is noted in the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Whether the version is compared with the one before, and taken back by itself when it is worse: true, for how long, `10m`,
    /// or false; left out: as the service's `supervise` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervise: Option<Value>,
    /// False: refused (409 `ramping`, `retiring`, `rollout_underway`) while a ramp, a retirement or a rollout between versions of the
    /// service is under way, which a flip ends otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt: Option<bool>,
}

/// Back to the split before the last flip or weight change.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Revert {
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// New requests wait.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// Which of them: `all` (the default), or `writes`: those that are not GET, HEAD or OPTIONS, or that change the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "all")]
    pub scope: Option<String>,
    /// For how long at most, `500ms`, `10s`, up to `10m`; else as the service's `hold` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10s")]
    pub timeout: Option<String>,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Requests that wait go on.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Every service back to where it was at an epoch.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The epoch to go back to.
    pub to_epoch: u64,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A version as it shall be.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutVersion {
    /// Its pool: `host:port`, `[v6]:port` or `unix:/path`.
    #[schema(example = json!(["127.0.0.1:9101"]))]
    pub endpoints: Vec<String>,
    /// What they speak; `http1` when absent.
    #[serde(default)]
    #[schema(example = "http1")]
    pub protocol: Option<String>,
}

/// What is said of an endpoint; what is absent stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutEndpoint {
    /// How much it takes in relation to the others of its pool, 1 to 1,000; of a new one 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 2, minimum = 1, maximum = 1000)]
    pub weight: Option<u64>,
    /// The zone it stands in, an empty string: in none; of a new one none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "a")]
    pub zone: Option<String>,
}

/// Basis points by version: 0 to 10,000, together 10,000 unless `rest` takes what is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(value_type = BTreeMap<String, u64>, example = json!({"green": 500, "blue": 9500}))]
pub struct Weights(pub BTreeMap<String, u64>);

impl<'de> Deserialize<'de> for Weights {
    /// A version named twice is an error, not the last one winning.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Weights;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of basis points by version, such as {\"green\": 500, \"blue\": 9500}")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Weights, A::Error> {
                let mut weights = BTreeMap::new();
                while let Some((version, points)) = map.next_entry::<String, u64>()? {
                    if weights.insert(version.clone(), points).is_some() {
                        return Err(serde::de::Error::custom(format!("version `{version}` is named twice")));
                    }
                }
                Ok(Weights(weights))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// Who gets what the named weights leave over: a version's label, `@stable` or `@candidate`.
pub type Rest = Option<String>;

/// Several edits, over one service or many, as one change with one epoch: all or none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The edits, in order.
    pub changes: Vec<Edit>,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True: also where too few endpoints are well; it is noted in the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// One edit of one service: exactly one of `flip`, `revert`, `weights`, `rules`, `put_version`, `remove_version`,
/// `put_endpoint`, `remove_endpoint`, `drain_endpoint`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The service.
    pub service: String,
    /// Refuse the whole change unless this service is at this epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub if_epoch: Option<u64>,
    /// Everything to one version; a `reason` belongs to the whole change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flip: Option<Flip>,
    /// Back to the split before; an empty object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revert: Option<Revert>,
    /// New weights in basis points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// With `weights`: who gets the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest: Rest,
    /// With `weights`: whether what comes of them is supervised, as in a flip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervise: Option<Value>,
    /// The targeting rules, all of them, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<Rule>>,
    /// A version comes, or its pool is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put_version: Option<VersionEdit>,
    /// A version without weight goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_version: Option<String>,
    /// An endpoint joins a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put_endpoint: Option<EndpointEdit>,
    /// An endpoint leaves a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove_endpoint: Option<EndpointEdit>,
    /// An endpoint gets no new requests and stays in its pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_endpoint: Option<EndpointEdit>,
}

/// A version with its label, for a batch.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VersionEdit {
    /// Its label.
    pub version: String,
    /// Its pool.
    pub endpoints: Vec<String>,
    /// What they speak; `http1` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// An endpoint of a version, for a batch.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointEdit {
    /// The version: its label, `@stable` or `@candidate`.
    pub version: String,
    /// The address.
    pub endpoint: String,
    /// With `put_endpoint`: how much it takes in relation to the others, 1 to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub weight: Option<u64>,
    /// With `put_endpoint`: the zone it stands in, an empty string: in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// What became of a change.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangeAnswer {
    /// The table's epoch after it.
    pub epoch: u64,
    /// False when everything was so already: then there is no new epoch.
    pub changed: bool,
    /// What changed in one line, as the history tells it; empty when nothing did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// How far it has come.
    pub state: Reached,
    /// True when nothing was done: this is the plan.
    pub dry_run: bool,
    /// Every service it was about, as it stands after it.
    pub services: BTreeMap<String, Standing>,
    /// Versions of those services that get no new requests and were not empty when this was written.
    pub leaving: Vec<Leaving>,
    /// Endpoints that get no new requests by this change, of versions that are still there; something may be left on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub out: Vec<EndpointOut>,
    /// Things to know that are no reason to refuse.
    pub notes: Vec<String>,
    /// Which weights it moves. Whom other targeting rules move is not known before he comes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<Move>,
    /// With `wait=finished`: how the comparisons that it began have ended, by service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub trials: BTreeMap<String, TrialEnd>,
}

/// How far a change has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// Durable, and no request is admitted under an older epoch any more.
    Fenced,
    /// And nothing is left on the versions and endpoints that it took the traffic from.
    Drained,
    /// And supervision has nothing to say against it: the comparisons that it began are over.
    Finished,
}

/// A version that gets no new requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct Leaving {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
}

/// An endpoint that gets no new requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointOut {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// The endpoint: `host:port`, `[v6]:port` or `unix:/path`.
    pub endpoint: String,
}

impl From<&Out> for EndpointOut {
    fn from(Out { service, version, endpoint }: &Out) -> Self {
        let (service, version) = (service.to_string(), version.to_string());
        Self { service, version, endpoint: endpoint.to_string() }
    }
}

/// A version whose weight is another by a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Move {
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// Its weight before, in basis points.
    pub from: u16,
    /// Its weight after it.
    pub to: u16,
}

impl ChangeAnswer {
    /// The answer to a change that left `state` and had these effects.
    #[must_use]
    pub fn of(state: &State, effects: &Effects) -> Self {
        let moved = effects.moved.iter();
        let moved = moved.filter_map(|(name, before)| Some((name, before, state.table.service(name)?)));
        let mut answer = Self {
            epoch: state.table.epoch().0,
            changed: effects.change.is_some(),
            summary: effects.change.as_ref().map(|change| change.summary.clone()).unwrap_or_default(),
            state: Reached::Fenced,
            dry_run: false,
            services: BTreeMap::new(),
            leaving: Vec::new(),
            out: effects.out.iter().map(Into::into).collect(),
            notes: effects.notes.clone(),
            moves: moved.flat_map(|(name, before, now)| Move::between(name, before, &now.split)).collect(),
            trials: BTreeMap::new(),
        };
        let records = effects.change.iter().flat_map(|change| &change.services);
        records.for_each(|record| answer.add(state, &record.service));
        answer
    }

    /// Adds a service that the change was about, as it stands in `state`.
    pub fn add(&mut self, state: &State, name: &ServiceName) {
        let Some(standing) = Standing::of(state, name) else { return };
        let leaving = standing.leaving.iter().cloned();
        self.leaving.extend(leaving.map(|version| Leaving { service: name.to_string(), version }));
        self.leaving.sort();
        self.leaving.dedup();
        self.services.insert(name.to_string(), standing);
    }
}

impl Move {
    /// The weights of `service` that differ between two splits.
    #[must_use]
    pub fn between(service: &ServiceName, from: &Split, to: &Split) -> Vec<Self> {
        let versions: BTreeSet<_> = from.shares().chain(to.shares()).map(|(version, _)| version).collect();
        let moves = versions.into_iter().map(|version| Self {
            service: service.to_string(),
            version: version.to_string(),
            from: from.weight(version).points(),
            to: to.weight(version).points(),
        });
        moves.filter(|step| step.from != step.to).collect()
    }
}
