//! A ramp as it is written.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ActorForm, PreviousForm, actor_kind};
use crate::release::{Actor, Previous, Ramp, RampEnd, Ramped, Steps, Supervise, Timestamp};
use crate::table::{BasisPoints, Epoch, Invalid};

/// A [`Ramp`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RampForm {
    begun: u64,
    to: String,
    before: PreviousForm,
    steps: Vec<u16>,
    every_ms: Option<u64>,
    step: usize,
    until_ms: Option<u64>,
    lasts_ms: u64,
    frozen: bool,
    supervise: SuperviseForm,
    actor: ActorForm,
    reason: String,
}

/// A [`Ramped`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RampedForm {
    begun: u64,
    to: String,
    reached: u16,
    how: String,
    epoch: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SuperviseForm {
    AsConfigured,
    For { ms: Option<u64> },
    No,
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl From<&Ramp> for RampForm {
    fn from(ramp: &Ramp) -> Self {
        let Actor { kind, name } = &ramp.actor;
        Self {
            begun: ramp.begun.0,
            to: ramp.to.to_string(),
            before: (&ramp.before).into(),
            steps: ramp.steps.all().iter().map(|step| step.points()).collect(),
            every_ms: ramp.every.map(millis),
            step: ramp.step,
            until_ms: ramp.until.map(|until| until.0),
            lasts_ms: millis(ramp.lasts),
            frozen: ramp.is_frozen,
            supervise: match ramp.supervise {
                Supervise::AsConfigured => SuperviseForm::AsConfigured,
                Supervise::For(period) => SuperviseForm::For { ms: period.map(millis) },
                Supervise::No => SuperviseForm::No,
            },
            actor: ActorForm { kind: kind.token().to_owned(), name: name.clone() },
            reason: ramp.reason.clone(),
        }
    }
}

impl TryFrom<RampForm> for Ramp {
    type Error = Invalid;
    fn try_from(form: RampForm) -> Result<Self, Invalid> {
        let steps = form.steps.into_iter().map(|points| BasisPoints::new(points.into()));
        let steps = Steps::new(steps.collect::<Result<_, _>>()?)?;
        if form.step >= steps.all().len() - 1 {
            return Err(Invalid(format!("a ramp has no step {} under way", form.step)));
        }
        Ok(Self {
            begun: Epoch(form.begun),
            to: form.to.parse()?,
            before: Previous::try_from(form.before)?,
            steps,
            every: form.every_ms.map(Duration::from_millis),
            step: form.step,
            until: form.until_ms.map(Timestamp),
            lasts: Duration::from_millis(form.lasts_ms),
            is_frozen: form.frozen,
            supervise: match form.supervise {
                SuperviseForm::AsConfigured => Supervise::AsConfigured,
                SuperviseForm::For { ms } => Supervise::For(ms.map(Duration::from_millis)),
                SuperviseForm::No => Supervise::No,
            },
            actor: Actor { kind: actor_kind(&form.actor.kind)?, name: form.actor.name },
            reason: form.reason,
        })
    }
}

impl From<&Ramped> for RampedForm {
    fn from(ramped: &Ramped) -> Self {
        Self {
            begun: ramped.begun.0,
            to: ramped.to.to_string(),
            reached: ramped.reached.points(),
            how: ramped.how.token().to_owned(),
            epoch: ramped.epoch.0,
        }
    }
}

impl TryFrom<RampedForm> for Ramped {
    type Error = Invalid;
    fn try_from(form: RampedForm) -> Result<Self, Invalid> {
        Ok(Self {
            begun: Epoch(form.begun),
            to: form.to.parse()?,
            reached: BasisPoints::new(form.reached.into())?,
            how: end(&form.how)?,
            epoch: Epoch(form.epoch),
        })
    }
}

/// The end with this token.
pub(super) fn end(token: &str) -> Result<RampEnd, Invalid> {
    let how = RampEnd::ALL.into_iter().find(|how| how.token() == token);
    how.ok_or_else(|| Invalid(format!("`{token}` is no end of a ramp")))
}
