//! A comparison under way as it is written.

use serde::{Deserialize, Serialize};

use super::{Weights, split, weights};
use crate::release::{Timestamp, Trial};
use crate::table::{Epoch, Invalid};

/// A [`Trial`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrialForm {
    stage: u64,
    generation: u32,
    baseline: String,
    candidate: String,
    asked: Weights,
    acts: bool,
    until_ms: Option<u64>,
}

impl From<&Trial> for TrialForm {
    fn from(trial: &Trial) -> Self {
        Self {
            stage: trial.stage.0,
            generation: trial.generation,
            baseline: trial.baseline.to_string(),
            candidate: trial.candidate.to_string(),
            asked: weights(&trial.asked),
            acts: trial.acts,
            until_ms: trial.until.map(|until| until.0),
        }
    }
}

impl TryFrom<TrialForm> for Trial {
    type Error = Invalid;
    fn try_from(form: TrialForm) -> Result<Self, Invalid> {
        Ok(Self {
            stage: Epoch(form.stage),
            generation: form.generation,
            baseline: form.baseline.parse()?,
            candidate: form.candidate.parse()?,
            asked: split(form.asked)?,
            acts: form.acts,
            until: form.until_ms.map(Timestamp),
        })
    }
}
