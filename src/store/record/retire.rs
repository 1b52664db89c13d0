//! A retirement as it is written.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ramp::{end, millis};
use super::{ActorForm, Weights, actor_kind, split, weights};
use crate::release::{Actor, Retired, Retirement, Timestamp};
use crate::table::{BasisPoints, Epoch, Invalid};

/// A [`Retirement`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RetirementForm {
    begun: u64,
    version: String,
    weights: Weights,
    users: u64,
    quiet_ms: u64,
    until_ms: u64,
    lasts_ms: u64,
    actor: ActorForm,
    reason: String,
}

/// A [`Retired`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RetiredForm {
    begun: u64,
    version: String,
    how: String,
    epoch: u64,
}

impl From<&Retirement> for RetirementForm {
    fn from(retirement: &Retirement) -> Self {
        let Actor { kind, name } = &retirement.actor;
        Self {
            begun: retirement.begun.0,
            version: retirement.version.to_string(),
            weights: weights(&retirement.split),
            users: retirement.users,
            quiet_ms: millis(retirement.quiet),
            until_ms: retirement.until.0,
            lasts_ms: millis(retirement.lasts),
            actor: ActorForm { kind: kind.token().to_owned(), name: name.clone() },
            reason: retirement.reason.clone(),
        }
    }
}

impl TryFrom<RetirementForm> for Retirement {
    type Error = Invalid;
    fn try_from(form: RetirementForm) -> Result<Self, Invalid> {
        let (version, split) = (form.version.parse()?, split(form.weights)?);
        if split.is_whole() || split.weight(&version) == BasisPoints::NONE {
            return Err(Invalid(format!("`{version}` with {split} is no retirement")));
        }
        Ok(Self {
            begun: Epoch(form.begun),
            version,
            split,
            users: form.users,
            quiet: Duration::from_millis(form.quiet_ms),
            until: Timestamp(form.until_ms),
            lasts: Duration::from_millis(form.lasts_ms),
            actor: Actor { kind: actor_kind(&form.actor.kind)?, name: form.actor.name },
            reason: form.reason,
        })
    }
}

impl From<&Retired> for RetiredForm {
    fn from(retired: &Retired) -> Self {
        let (begun, epoch) = (retired.begun.0, retired.epoch.0);
        Self { begun, version: retired.version.to_string(), how: retired.how.token().to_owned(), epoch }
    }
}

impl TryFrom<RetiredForm> for Retired {
    type Error = Invalid;
    fn try_from(form: RetiredForm) -> Result<Self, Invalid> {
        let (begun, epoch) = (Epoch(form.begun), Epoch(form.epoch));
        Ok(Self { begun, version: form.version.parse()?, how: end(&form.how)?, epoch })
    }
}
