//! A comparison under way as it is written.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Weights, ruled, rules, weights};
use crate::release::{Timestamp, Trial};
use crate::table::{BasisPoints, Epoch, HoldScope, Invalid, VersionName};

/// A [`Trial`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TrialForm {
    stage: u64,
    generation: u32,
    baseline: String,
    candidate: String,
    asked: Weights,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    /// Records of earlier builds do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stable: Option<String>,
    #[serde(default, skip_serializing_if = "is_not")]
    suspect: bool,
    acts: bool,
    #[serde(default, skip_serializing_if = "is_not")]
    by_file: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exclusive: Option<ScopeForm>,
    until_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lasts_ms: Option<u64>,
}

/// A [`HoldScope`] as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ScopeForm {
    All,
    Writes,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's")]
fn is_not(said: &bool) -> bool {
    !said
}

impl From<HoldScope> for ScopeForm {
    fn from(scope: HoldScope) -> Self {
        match scope {
            HoldScope::All => Self::All,
            HoldScope::Writes => Self::Writes,
        }
    }
}

impl From<ScopeForm> for HoldScope {
    fn from(form: ScopeForm) -> Self {
        match form {
            ScopeForm::All => Self::All,
            ScopeForm::Writes => Self::Writes,
        }
    }
}

impl From<&Trial> for TrialForm {
    fn from(trial: &Trial) -> Self {
        Self {
            stage: trial.stage.0,
            generation: trial.generation,
            baseline: trial.baseline.to_string(),
            candidate: trial.candidate.to_string(),
            asked: weights(&trial.asked),
            rules: rules(&trial.asked),
            stable: Some(trial.stable.to_string()),
            suspect: trial.is_suspect,
            acts: trial.acts,
            by_file: trial.by_file,
            exclusive: trial.exclusive.map(ScopeForm::from),
            until_ms: trial.until.map(|until| until.0),
            lasts_ms: trial.lasts.and_then(|lasts| u64::try_from(lasts.as_millis()).ok()),
        }
    }
}

impl TryFrom<TrialForm> for Trial {
    type Error = Invalid;
    fn try_from(form: TrialForm) -> Result<Self, Invalid> {
        let (baseline, candidate): (VersionName, VersionName) =
            (form.baseline.parse()?, form.candidate.parse()?);
        let asked = ruled(form.asked, &form.rules)?;
        let is_flip = asked.weight(&baseline) == BasisPoints::NONE;
        let stable = form.stable.map(|stable| stable.parse()).transpose()?;
        Ok(Self {
            stage: Epoch(form.stage),
            generation: form.generation,
            stable: stable.unwrap_or_else(|| if is_flip { candidate.clone() } else { baseline.clone() }),
            baseline,
            candidate,
            asked,
            is_suspect: form.suspect,
            acts: form.acts,
            by_file: form.by_file,
            exclusive: form.exclusive.map(HoldScope::from),
            until: form.until_ms.map(Timestamp),
            lasts: form.lasts_ms.map(Duration::from_millis),
        })
    }
}
