//! What is told of trials: how they stand, and how they ended.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::release::verdict::{Report, Standing};
use crate::release::{Actor, ActorKind, Change, ChangeKind, ServiceRecord, Trial};
use crate::table::{Epoch, ServiceName, Split, VersionName};

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
    /// Supervision took the traffic back, or somebody else made at once the way back that it was on.
    Reverted,
    /// Somebody else moved it.
    Superseded,
}

/// The trials that are under way, by service, as far as is known.
pub(super) type Underway = BTreeMap<ServiceName, Epoch>;

/// The trials that `change` has ended; `underway` is what there was before it, and is what there is after it. `made` tells what was
/// proven in a trial of this stage when a revert has made supervision's way back.
pub(super) fn ended(
    change: &Change,
    underway: &mut Underway,
    made: impl Fn(&ServiceRecord, Epoch) -> Option<String>,
) -> Vec<(ServiceName, Ended)> {
    let mut over = Vec::new();
    for record in &change.services {
        let trial = record.standing.as_ref().and_then(|standing| standing.trial.as_ref());
        let before = match trial {
            Some(trial) => underway.insert(record.service.clone(), trial.stage),
            None => underway.remove(&record.service),
        };
        if let Some(stage) = before.filter(|before| trial.is_none_or(|trial| trial.stage != *before)) {
            let proven = made(record, stage).filter(|_| change.kind == ChangeKind::Revert);
            over.push((record.service.clone(), Ended::by(change, stage, trial, proven)));
        }
    }
    over
}

/// True when `record` has all of the service with the baseline of an exclusive trial, as supervision's way back leaves it.
pub(super) fn is_way_back(record: &ServiceRecord, trial: &Trial) -> bool {
    let is_back = |split: &Split| *split == Split::all_to(trial.baseline.clone());
    trial.exclusive.is_some() && record.standing.as_ref().is_some_and(|standing| is_back(&standing.split))
}

impl Ended {
    /// The end that `change` has put to the trial of this stage.
    pub(super) fn by(change: &Change, stage: Epoch, next: Option<&Trial>, proven: Option<String>) -> Self {
        let Change { epoch, kind, actor: Actor { kind: who, name }, reason, .. } = change;
        let (how, said) = match (who, kind, proven) {
            (ActorKind::Supervisor, ChangeKind::Revert, _) => (How::Reverted, Some(reason.clone())),
            (ActorKind::Supervisor, ChangeKind::Supervision, _) => (How::Finished, Some(reason.clone())),
            (_, _, Some(proven)) => (How::Reverted, Some(format!("{proven} It was made at once by {name}."))),
            _ => (How::Superseded, None),
        };
        let is_of_pools = matches!(kind, ChangeKind::Versions | ChangeKind::Endpoints);
        let said = said.unwrap_or_else(|| match next.filter(|_| is_of_pools) {
            Some(Trial { candidate, .. }) => format!(
                "a later change ({}, by {name}) replaced {candidate}'s pool: it is compared anew",
                kind.token()
            ),
            None => format!("a later change ({}, by {name}) ended the comparison", kind.token()),
        });
        Self { stage, how, epoch: *epoch, said }
    }

    /// The trial of this stage is over by some change up to `epoch`, and nobody has seen by which.
    pub(super) fn unseen(stage: Epoch, epoch: Epoch) -> Self {
        let said = "later changes ended the comparison".to_owned();
        Self { stage, how: How::Superseded, epoch, said }
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

/// A trial stands otherwise than before, or something is in supervision's way.
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
    /// Why supervision cannot do what it wants; it is tried again. That is news by itself: it stands as before then.
    pub hindrance: Option<String>,
}

/// As of which epoch all is known of how trials have ended.
pub(super) type Known = watch::Sender<Epoch>;
