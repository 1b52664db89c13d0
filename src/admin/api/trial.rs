//! A comparison that is under way, and how one has ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::service::weights;
use super::{Rule, Verdict, text};
use crate::control::supervisor;
use crate::release;

/// One version is compared with another, and supervision may move traffic between the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trial {
    /// The epoch of the change that began it; names it.
    pub stage: u64,
    /// The version that serves as the measure: keep it running.
    #[schema(example = "blue")]
    pub baseline: String,
    /// The version that is tried.
    #[schema(example = "green")]
    pub candidate: String,
    /// The weights that were asked for, in basis points; while it is suspect supervision leans away from them.
    #[schema(example = json!({"green": 10000}))]
    pub weights: BTreeMap<String, u16>,
    /// The targeting rules that were asked for; while it leans those that lead to the candidate are passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// True while most traffic is kept away from the candidate.
    pub leaning: bool,
    /// False: supervision only tells, and never moves traffic.
    pub acts: bool,
    /// True after an exclusive flip: supervision does not lean back, and goes back without two versions at the same time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exclusive: bool,
    /// When it ends by itself; absent: with the next change of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-11-28T22:10:00.000Z")]
    pub until: Option<String>,
}

impl Trial {
    /// The comparison that is under way in a service with this split.
    #[must_use]
    pub fn of(trial: &release::Trial, split: &crate::table::Split) -> Self {
        Self {
            stage: trial.stage.0,
            baseline: trial.baseline.to_string(),
            candidate: trial.candidate.to_string(),
            weights: weights(&trial.asked),
            rules: Rule::all_of(&trial.asked),
            leaning: trial.leans(split),
            acts: trial.acts,
            exclusive: trial.exclusive.is_some(),
            until: trial.until.map(|until| text::rfc3339(until.0)),
        }
    }
}

/// What supervision knows of a service. No comparison, or too little to tell, is never `healthy`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Supervision {
    /// The service.
    pub service: String,
    /// How the candidate stands: `collecting`, `healthy`, `suspect`, `breached`, `held`; `none`: nobody is compared.
    #[schema(example = "collecting")]
    pub state: String,
    /// The comparison under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// All its figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// How it stands, in a sentence with numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<String>,
    /// Why supervision could not do what it wanted, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hindrance: Option<String>,
    /// How the last one has ended, since this process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<TrialEnd>,
}

/// How a comparison has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrialEnd {
    /// The epoch of the change that began it.
    pub stage: u64,
    /// How.
    pub how: TrialEnded,
    /// The epoch of the change that ended it.
    pub epoch: u64,
    /// Why, in a sentence with numbers.
    pub said: String,
}

/// How a comparison ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrialEnded {
    /// Its time was over, and nothing was proven against the candidate.
    Finished,
    /// The candidate was worse, and supervision took the traffic back; or a revert made at once the exclusive way back that it was on.
    Reverted,
    /// A later change ended it first: mostly one that moved the traffic.
    Superseded,
}

impl From<&supervisor::Ended> for TrialEnd {
    fn from(ended: &supervisor::Ended) -> Self {
        let how = match ended.how {
            supervisor::How::Finished => TrialEnded::Finished,
            supervisor::How::Reverted => TrialEnded::Reverted,
            supervisor::How::Superseded => TrialEnded::Superseded,
        };
        Self { stage: ended.stage.0, how, epoch: ended.epoch.0, said: ended.said.clone() }
    }
}
