//! What is remembered: every change with its epoch, who, why and when, and each service as it stood after it.

use std::collections::BTreeMap;

use super::deployment::{Discovered, Edit, Previous};
use super::digest::FileDigest;
use super::ramp::{Ramp, RampOrder, Ramped};
use super::retire::{Retired, Retirement};
use super::trial::{Act, Trial};
use super::{Command, Deployment};
use crate::table::{Epoch, Service, ServiceName, Split, VersionName};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp(pub u64);

/// Who asked for a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// What sort of actor.
    pub kind: ActorKind,
    /// Who exactly: `uid=0 gid=0 pid=4711`, a file's path.
    pub name: String,
}

/// The sorts of actors, as in the label `actor` of `switchback_changes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ActorKind {
    /// A person, through the command line.
    Operator,
    /// A program, through the API.
    Controller,
    /// switchback's own supervision.
    Supervisor,
    /// The configuration file.
    File,
}

impl ActorKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Controller, Self::Supervisor, Self::File];

    /// The contract's token for it.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Controller => "controller",
            Self::Supervisor => "supervisor",
            Self::File => "file",
        }
    }
}

/// The sorts of changes, as in the label `kind` of `switchback_changes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// All to one version.
    Flip,
    /// Back to the split before.
    Revert,
    /// New weights.
    Weights,
    /// New targeting rules.
    Rules,
    /// A ramp has begun, or come to its next step.
    Ramp,
    /// A ramp was taken back.
    Abort,
    /// A ramp stays where it is.
    Freeze,
    /// A ramp goes on.
    Resume,
    /// Nobody new comes to a version, or nobody at all any more.
    Retire,
    /// A version came or its pool was replaced, or it went.
    Versions,
    /// An endpoint came or went.
    Endpoints,
    /// New requests wait.
    Hold,
    /// They go on.
    Release,
    /// Several edits at once.
    Batch,
    /// Back to an epoch.
    Undo,
    /// The file was read.
    Configure,
    /// A comparison is over, and traffic stays where it is.
    Supervision,
}

impl ChangeKind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Flip,
        Self::Revert,
        Self::Weights,
        Self::Rules,
        Self::Ramp,
        Self::Abort,
        Self::Freeze,
        Self::Resume,
        Self::Retire,
        Self::Versions,
        Self::Endpoints,
        Self::Hold,
        Self::Release,
        Self::Batch,
        Self::Undo,
        Self::Configure,
        Self::Supervision,
    ];

    /// The sort of change that `command` makes.
    #[must_use]
    pub fn of(command: &Command) -> Self {
        match command {
            Command::Flip { .. } | Command::Switch { .. } => Self::Flip,
            Command::Revert { .. } => Self::Revert,
            Command::SetWeights { .. } => Self::Weights,
            Command::SetRules { .. } => Self::Rules,
            Command::Ramp { order, .. } => match order {
                RampOrder::Begin { .. } | RampOrder::Step { .. } | RampOrder::Promote { .. } => Self::Ramp,
                RampOrder::Abort => Self::Abort,
                RampOrder::Freeze { .. } => Self::Freeze,
                RampOrder::Resume => Self::Resume,
                RampOrder::Retire { .. } | RampOrder::Retired { .. } => Self::Retire,
            },
            Command::PutVersion { .. } | Command::RemoveVersion { .. } => Self::Versions,
            Command::PutEndpoint { .. }
            | Command::RemoveEndpoint { .. }
            | Command::DrainEndpoint { .. }
            | Command::EndDrain { .. }
            | Command::Discover { .. } => Self::Endpoints,
            Command::Hold { .. } => Self::Hold,
            Command::Release { .. } => Self::Release,
            Command::Batch(_) => Self::Batch,
            Command::Undo { .. } => Self::Undo,
            Command::Configure { .. } => Self::Configure,
            Command::Supervise { act, .. } => match act {
                Act::Lean(_) | Act::Restore => Self::Weights,
                Act::Convict => Self::Revert,
                Act::Acquit => Self::Supervision,
            },
        }
    }

    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Flip => "flip",
            Self::Revert => "revert",
            Self::Weights => "weights",
            Self::Rules => "rules",
            Self::Ramp => "ramp",
            Self::Abort => "abort",
            Self::Freeze => "freeze",
            Self::Resume => "resume",
            Self::Retire => "retire",
            Self::Versions => "versions",
            Self::Endpoints => "endpoints",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Batch => "batch",
            Self::Undo => "undo",
            Self::Configure => "configure",
            Self::Supervision => "supervision",
        }
    }
}

/// One atomic edit of the table, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The table's number after it.
    pub epoch: Epoch,
    /// When.
    pub at: Timestamp,
    /// What sort.
    pub kind: ChangeKind,
    /// Who.
    pub actor: Actor,
    /// Why; may be empty.
    pub reason: String,
    /// What it did, in one line for people.
    pub summary: String,
    /// Every service it touched, as it stands after it.
    pub services: Vec<ServiceRecord>,
}

/// What the store remembers of one service at one epoch: all that the file does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// The service.
    pub service: ServiceName,
    /// The epoch of the change that left it so.
    pub epoch: Epoch,
    /// Who carries it, with what weights, and the way back; `None` when the file no longer has the service.
    pub standing: Option<Standing>,
}

/// Where a service's traffic goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The version that carries the service.
    pub stable: VersionName,
    /// The weights and the targeting rules.
    pub split: Split,
    /// The way back.
    pub previous: Option<Previous>,
    /// The comparison under way.
    pub trial: Option<Trial>,
    /// The ramp under way.
    pub ramp: Option<Ramp>,
    /// How the last one has ended.
    pub ramped: Option<Ramped>,
    /// The retirement under way.
    pub retirement: Option<Retirement>,
    /// How the last one has ended.
    pub retired: Option<Retired>,
    /// The version for which the mirror is over.
    pub mirror_over: Option<VersionName>,
    /// What the API changed about the file's versions.
    pub edits: BTreeMap<VersionName, Edit>,
    /// What was found of their endpoints.
    pub discovered: Discovered,
    /// A digest of what the file said, so that an edited file is noticed over a restart.
    pub file_digest: FileDigest,
}

impl ServiceRecord {
    /// True when `other` says nothing else, but for the form in which another build has kept what the file said.
    pub(super) fn says_as(&self, other: &Self) -> bool {
        let (Some(this), Some(that)) = (&self.standing, &other.standing) else {
            return self.standing == other.standing;
        };
        let Standing { stable, split, previous, trial, ramp, ramped, .. } = this;
        let Standing { retirement, retired, mirror_over, edits, discovered, file_digest, .. } = this;
        file_digest.agrees(that.file_digest)
            && (retirement, retired, mirror_over) == (&that.retirement, &that.retired, &that.mirror_over)
            && (stable, split, previous, trial) == (&that.stable, &that.split, &that.previous, &that.trial)
            && (ramp, ramped, edits, discovered) == (&that.ramp, &that.ramped, &that.edits, &that.discovered)
    }

    /// The record of a service as it stands.
    #[must_use]
    pub fn of(service: &Service, deployment: &Deployment) -> Self {
        let standing = Standing {
            stable: service.stable.clone(),
            split: service.split.clone(),
            previous: deployment.previous.clone(),
            trial: deployment.trial.clone(),
            ramp: deployment.ramp.clone(),
            ramped: deployment.ramped.clone(),
            retirement: deployment.retirement.clone(),
            retired: deployment.retired.clone(),
            mirror_over: deployment.mirror_over.clone(),
            edits: deployment.edits.clone(),
            discovered: deployment.discovered.clone(),
            file_digest: deployment.file_digest,
        };
        Self { service: service.name.clone(), epoch: service.epoch, standing: Some(standing) }
    }
}
