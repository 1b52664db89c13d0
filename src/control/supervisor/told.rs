//! What is told of trials: how they stand, and how they ended.

use tokio::sync::watch;

use crate::release::verdict::{Report, Standing};
use crate::release::{Actor, ActorKind, Change, ChangeKind};
use crate::table::{Epoch, ServiceName, VersionName};

/// How a trial has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The epoch of the change that began it.
    pub stage: Epoch,
    /// How.
    pub how: How,
    /// The epoch of the change that ended it.
    pub epoch: Epoch,
    /// Why, in a sentence.
    pub said: String,
}

/// How a trial ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Its time was over.
    Finished,
    /// Supervision took the traffic back.
    Reverted,
    /// Somebody else moved it.
    Superseded,
}

impl Ended {
    /// The end that `change` put to the trial of this stage; `said` is what supervision had to say.
    pub(super) fn by(change: Option<&Change>, stage: Epoch, present: Epoch, said: String) -> Self {
        let is_ours = |change: &&Change| change.actor.kind == ActorKind::Supervisor;
        let how = match change.filter(is_ours).map(|change| change.kind) {
            Some(ChangeKind::Revert) => How::Reverted,
            Some(ChangeKind::Supervision) => How::Finished,
            _ => How::Superseded,
        };
        let epoch = change.map_or(present, |change| change.epoch);
        let said = match (how, change) {
            (How::Reverted | How::Finished, Some(change)) => change.reason.clone(),
            (_, Some(Change { kind, actor: Actor { name, .. }, .. })) => {
                format!("a later change ({}, by {name}) moved the traffic", kind.token())
            }
            (_, None) => said,
        };
        Self { stage, how, epoch, said }
    }
}

/// How a trial stands.
#[derive(Debug, Clone)]
pub struct Stands {
    /// All there is to tell of it.
    pub report: Report,
    /// Why supervision could not do what it wanted, the last time.
    pub hindrance: Option<String>,
}

/// A trial stands otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerdictNotice {
    /// The service.
    pub service: ServiceName,
    /// The epoch of the change that began the trial.
    pub stage: Epoch,
    /// The version that serves as the measure.
    pub baseline: VersionName,
    /// The version that is tried.
    pub candidate: VersionName,
    /// How it stood.
    pub before: Standing,
    /// How it stands.
    pub standing: Standing,
    /// Why, in a sentence with numbers.
    pub said: String,
}

/// Told whenever a trial has ended.
pub(super) type Bell = watch::Sender<()>;
