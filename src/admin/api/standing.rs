//! Where a service's traffic goes, as every answer tells it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Phase, PreviousSplit, Trial, weights};
use crate::release::State;
use crate::table::{self, ServiceName};

/// Where a service's traffic goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Standing {
    /// The epoch of the last change of this service: its `ETag`.
    pub epoch: u64,
    /// Where it stands in a deployment.
    pub phase: Phase,
    /// The version that carries it.
    pub stable: String,
    /// The version tried against it, if any.
    pub candidate: Option<String>,
    /// Basis points by version; versions without weight are left out.
    #[schema(example = json!({"green": 500, "blue": 9500}))]
    pub weights: BTreeMap<String, u16>,
    /// Versions that get no new requests and still have work.
    pub leaving: Vec<String>,
    /// What a revert would put back.
    pub previous: Option<PreviousSplit>,
    /// Its new requests wait; of two holds the operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Holding>,
    /// Every hold, the operator's first: a request waits for as long as one of them holds it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Holding>,
    /// One version is compared with another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervision: Option<Trial>,
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holding {
    /// Whose it is: operator, until it is released, or exclusive, for as long as an exclusive flip or supervision's exclusive way
    /// back takes.
    #[serde(default)]
    #[schema(example = "operator")]
    pub by: String,
    /// Which requests wait: all or writes.
    #[schema(example = "all")]
    pub scope: String,
    /// For how long at most, from its beginning on, in milliseconds.
    pub timeout_ms: u64,
}

impl From<table::Hold> for Holding {
    fn from(table::Hold { holder, scope, timeout, .. }: table::Hold) -> Self {
        Self {
            by: holder.token().to_owned(),
            scope: scope.token().to_owned(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl Standing {
    /// The standing of the service of this name, if there is one.
    #[must_use]
    pub fn of(state: &State, name: &ServiceName) -> Option<Self> {
        let (service, deployment) = (state.table.service(name)?, state.deployment(name)?);
        Some(Self {
            epoch: service.epoch.0,
            phase: Phase::of(service, deployment),
            stable: service.stable.to_string(),
            candidate: service.candidate().map(ToString::to_string),
            weights: weights(&service.split),
            leaving: deployment.phase.leaving().iter().map(ToString::to_string).collect(),
            previous: deployment.previous.as_ref().map(PreviousSplit::from),
            hold: service.holds.iter().next().map(Holding::from),
            holds: service.holds.iter().map(Holding::from).collect(),
            supervision: deployment.trial.as_ref().map(|trial| Trial::of(trial, &service.split)),
        })
    }
}
