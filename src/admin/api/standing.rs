//! Where a service's traffic goes, as every answer tells it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PreviousSplit, Ramp, Ramped, Retired, Retirement, Rule, Trial, weights};
use crate::control::Handle;
use crate::release::{self, State};
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
    /// The targeting rules, in order: the first that fits decides, and the weights share who is left. Without those that are passed over while
    /// supervision leans back: all stand in `supervision`, by whose order they are numbered then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Versions that get no new requests and still have work, or may have some with a process before this one.
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
    /// The weight of one version rises, step by step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<Ramp>,
    /// How the last ramp has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramped: Option<Ramped>,
    /// Nobody new comes to one version, and who is there stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retirement: Option<Retirement>,
    /// How the last retirement has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<Retired>,
}

/// Where a service stands in a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// One version has everything and nothing is leaving.
    Steady,
    /// Several versions share the new requests.
    Canary,
    /// Versions without weight still have requests in flight.
    Draining,
    /// One version has everything and is compared with the one before: that one is kept, so that traffic can go back.
    Supervising,
    /// The weight of one version rises, step by step.
    Ramping,
    /// The same, and it stays where it is.
    Frozen,
    /// Nobody new comes to one version, and who is there stays.
    Retiring,
    /// New requests wait, whatever else there is.
    Holding,
}

impl Phase {
    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Canary => "canary",
            Self::Draining => "draining",
            Self::Supervising => "supervising",
            Self::Ramping => "ramping",
            Self::Frozen => "frozen",
            Self::Retiring => "retiring",
            Self::Holding => "holding",
        }
    }
}

impl Phase {
    /// Where a service stands.
    #[must_use]
    pub fn of(service: &table::Service, deployment: &release::Deployment) -> Self {
        let is_flip = deployment.trial.as_ref().is_some_and(|trial| trial.asked.is_whole());
        match &deployment.phase {
            _ if !service.holds.are_none() => Self::Holding,
            _ if deployment.ramp.as_ref().is_some_and(|ramp| ramp.is_frozen) => Self::Frozen,
            _ if deployment.ramp.is_some() => Self::Ramping,
            _ if deployment.retirement.is_some() => Self::Retiring,
            _ if is_flip => Self::Supervising,
            release::Phase::Steady => Self::Steady,
            release::Phase::Canary => Self::Canary,
            release::Phase::Draining { .. } => Self::Draining,
        }
    }
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
            candidate: deployment.candidate(service).map(ToString::to_string),
            weights: weights(&service.split),
            rules: Rule::all_of(&service.split),
            leaving: deployment.phase.leaving().iter().map(ToString::to_string).collect(),
            previous: deployment.previous.as_ref().map(PreviousSplit::from),
            hold: service.holds.iter().next().map(Holding::from),
            holds: service.holds.iter().map(Holding::from).collect(),
            supervision: deployment.trial.as_ref().map(|trial| Trial::of(trial, &service.split)),
            ramp: deployment.ramp.as_ref().map(|ramp| Ramp::of(ramp, deployment.suspicion(service).as_ref())),
            ramped: deployment.ramped.as_ref().map(Ramped::from),
            retirement: deployment.retirement.as_ref().map(Retirement::from),
            retired: deployment.retired.as_ref().map(Retired::from),
        })
    }

    /// The targeting rules as they were set: also those that are passed over while supervision leans back.
    #[must_use]
    pub fn rules_asked(&self) -> &[Rule] {
        let leaning = self.supervision.as_ref().filter(|trial| trial.leaning);
        leaning.map_or(&self.rules, |trial| &trial.rules)
    }

    /// With these versions leaving too.
    pub fn leave(&mut self, versions: impl IntoIterator<Item = String>) {
        self.leaving.extend(versions);
        self.leaving.sort();
        self.leaving.dedup();
        if !self.leaving.is_empty() && matches!(self.phase, Phase::Steady | Phase::Canary) {
            self.phase = Phase::Draining;
        }
    }

    /// With what is known of the clocks of the ramp and the retirement, and of the version that ramps.
    pub fn look_at_clocks(&mut self, name: &str, control: &Handle) {
        // A name that we wrote ourselves.
        let Ok(name) = name.parse() else { return };
        let (left, suspicion) = (control.ramps().left(&name), control.suspicion(&name));
        self.ramp = self.ramp.take().map(|ramp| ramp.suspected(suspicion.as_ref()).with_clock(left));
        self.retirement = self.retirement.take().map(|it| it.with_clock(control.retirements().clock(&name)));
    }
}
