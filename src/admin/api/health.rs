//! How endpoints fare, by their checks and their requests.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::text::rfc3339;
use super::{Endpoint, Service};
use crate::control::{Handle, health};
use crate::proxy::upstream::Standing;
use crate::release::gate::NotWell;
use crate::release::{Readiness, State};
use crate::table::{EndpointAddr, ServiceName, VersionName};

/// Whether an endpoint gets new requests, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// Its checks have not answered yet: it counts as well.
    Unchecked,
    /// It came while others served, and was not found well yet.
    Arriving,
    /// Its checks find it well.
    Up,
    /// Its checks find it unwell.
    Down,
    /// Its requests went badly, and it is left alone for a time.
    Ejected,
}

impl HealthState {
    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Arriving => "arriving",
            Self::Up => "up",
            Self::Down => "down",
            Self::Ejected => "ejected",
        }
    }
}

impl From<Standing> for HealthState {
    fn from(standing: Standing) -> Self {
        match standing {
            Standing::Unchecked => Self::Unchecked,
            Standing::Arriving => Self::Arriving,
            Standing::Up => Self::Up,
            Standing::Down => Self::Down,
            Standing::Ejected => Self::Ejected,
        }
    }
}

/// How an endpoint fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointHealth {
    /// Whether it gets new requests, as far as its health goes.
    pub state: HealthState,
    /// Since when.
    #[schema(example = "2026-01-02T03:04:05.678Z")]
    pub since: String,
    /// What its last check said.
    pub last: Option<CheckAnswer>,
    /// What the last one said that was not good; it stays when the endpoint is well again.
    pub last_failure: Option<CheckAnswer>,
    /// Why it is left alone, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
}

/// Why an endpoint is left alone, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ejection {
    /// errors, gateway_errors, local_errors, success_rate or latency.
    pub cause: String,
    /// That in words.
    #[schema(example = "5 failures in a row")]
    pub said: String,
    /// Until when.
    pub until: String,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckAnswer {
    /// True when it was good.
    pub well: bool,
    /// What it was.
    #[schema(example = "status 503")]
    pub said: String,
    /// When.
    pub at: String,
}

impl From<&health::Answer> for CheckAnswer {
    fn from(answer: &health::Answer) -> Self {
        Self { well: answer.is_well, said: answer.said.clone(), at: rfc3339(answer.at.0) }
    }
}

impl From<&health::Known> for EndpointHealth {
    fn from(known: &health::Known) -> Self {
        Self {
            state: known.standing.into(),
            since: rfc3339(known.since.0),
            last: known.last.as_ref().map(CheckAnswer::from),
            last_failure: known.last_failure.as_ref().map(CheckAnswer::from),
            ejection: known.ejection.as_ref().map(|ejection| Ejection {
                cause: ejection.cause.token().to_owned(),
                said: ejection.said.clone(),
                until: rfc3339(ejection.until.0),
            }),
        }
    }
}

impl EndpointHealth {
    /// That of the endpoint at `address`, if it is looked after.
    pub(super) fn of(known: &HashMap<EndpointAddr, health::Known>, address: &str) -> Option<Self> {
        // An address that we wrote ourselves.
        known.get(&address.parse().ok()?).map(Self::from)
    }
}

/// Whether a version is ready for traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionHealth {
    /// True when enough of its endpoints are well.
    pub healthy: bool,
    /// How many of its endpoints are well, those left out that are drained; all of them, when they are not checked.
    pub well: usize,
    /// How many have to be, so that it gets traffic; 0 when they are not checked.
    pub needed: usize,
    /// Every endpoint of its pool.
    pub endpoints: Vec<Endpoint>,
}

/// An endpoint that is not well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unhealthy {
    /// The endpoint.
    pub endpoint: String,
    /// What its last check said; absent when there was none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
}

impl Unhealthy {
    /// The endpoints that keep a version from being ready.
    #[must_use]
    pub fn all(readiness: &Readiness) -> Vec<Self> {
        let one = |NotWell { endpoint, last }: &NotWell| Self {
            endpoint: endpoint.to_string(),
            said: last.as_ref().map(|(said, _)| said.clone()),
            at: last.as_ref().map(|(_, at)| rfc3339(at.0)),
        };
        readiness.unwell.iter().map(one).collect()
    }
}

impl VersionHealth {
    /// That of a version, if there is one.
    #[must_use]
    pub fn of(state: &State, control: &Handle, service: &ServiceName, version: &VersionName) -> Option<Self> {
        let readiness = control.readiness(service, version)?;
        let told = Service::of(state, control, service)?.with_health(control.health());
        let version = told.versions.into_iter().find(|told| told.name == version.as_str())?;
        let Readiness { well, least, .. } = readiness;
        Some(Self { healthy: readiness.is_ready(), well, needed: least, endpoints: version.endpoints })
    }
}
