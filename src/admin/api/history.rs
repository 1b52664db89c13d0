//! Past changes as they are told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Rule, text, weights};
use crate::release::{self, Scopes};

/// Past changes, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The changes.
    pub changes: Vec<Change>,
    /// Give this as `before` to read on; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_before: Option<u64>,
}

/// One atomic edit of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The table's epoch after it.
    pub epoch: u64,
    /// When, in UTC.
    #[schema(example = "2026-01-02T03:04:05.678Z", format = DateTime)]
    pub at: String,
    /// flip, revert, weights, rules, ramp, abort, freeze, resume, retire, versions, endpoints, hold, release, batch, undo, configure or supervision.
    #[schema(example = "flip")]
    pub kind: String,
    /// Who.
    pub actor: Actor,
    /// Why, in the actor's words; may be empty.
    pub reason: String,
    /// What it did, in one line.
    pub summary: String,
    /// Every service it touched, as it was left; null when the file no longer had it.
    #[schema(value_type = BTreeMap<String, Was>)]
    pub services: BTreeMap<String, Option<Was>>,
}

/// Who asked for a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Actor {
    /// operator, controller, supervisor or file.
    #[schema(example = "operator")]
    pub kind: String,
    /// Who exactly.
    #[schema(example = "uid=0 gid=0 pid=4711")]
    pub name: String,
}

/// Where a change left a service's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Was {
    /// The version that carried it.
    pub stable: String,
    /// Basis points by version.
    pub weights: BTreeMap<String, u16>,
    /// The targeting rules, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
}

impl Change {
    /// What somebody of these scopes is told of it: the services that may be looked at; `None` when there is none of those.
    #[must_use]
    pub fn seen_by(mut self, scopes: &Scopes) -> Option<Self> {
        let all = self.services.len();
        self.services.retain(|service, _| scopes.read(service));
        if self.services.len() < all {
            // It names others; the reason is whoever made it his own words.
            self.summary = format!("{} of several services, told of those that may be looked at", self.kind);
        }
        (scopes.read_all() || !self.services.is_empty()).then_some(self)
    }
}

impl From<&release::Change> for Change {
    fn from(change: &release::Change) -> Self {
        let was = |standing: &release::history::Standing| Was {
            stable: standing.stable.to_string(),
            weights: weights(&standing.split),
            rules: Rule::all_of(&standing.split),
        };
        let services = change.services.iter();
        let services = services.map(|record| (record.service.to_string(), record.standing.as_ref().map(was)));
        Self {
            epoch: change.epoch.0,
            at: text::rfc3339(change.at.0),
            kind: change.kind.token().to_owned(),
            actor: Actor { kind: change.actor.kind.token().to_owned(), name: change.actor.name.clone() },
            reason: change.reason.clone(),
            summary: change.summary.clone(),
            services: services.collect(),
        }
    }
}
