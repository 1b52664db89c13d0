//! A rollout as it is told: to whoever asks, and to the file from which another process tells it.

use serde::{Deserialize, Serialize};

use super::{Back, Order};
use crate::release::Timestamp;

/// How a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// Under way.
    Running,
    /// On its way back.
    Reversing,
    /// Everything is replaced, and every old endpoint is safe to stop that nobody else uses, unless supervision may go back to them.
    Done,
    /// It went back, as far as the old endpoints still answer.
    Reversed,
    /// It ended early; what was done by then stays.
    Stopped,
    /// The process that did it has ended. Nothing goes on by itself.
    Interrupted,
}

impl RolloutState {
    /// True while something is still done.
    #[must_use]
    pub fn is_underway(self) -> bool {
        matches!(self, Self::Running | Self::Reversing)
    }

    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Reversing => "reversing",
            Self::Done => "done",
            Self::Reversed => "reversed",
            Self::Stopped => "stopped",
            Self::Interrupted => "interrupted",
        }
    }
}

/// How one move stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Nothing was done about it.
    Pending,
    /// The old endpoint gets nothing new, and has something left.
    Draining,
    /// The old endpoint is safe to stop.
    Safe,
    /// Nothing of its version is left on the old endpoint, but others use its address: it is not safe to stop.
    Shared,
    /// The new endpoint is waited for.
    Warming,
    /// The new endpoint serves.
    Serving,
    /// The old endpoint is safe to stop, unless others use it, and the new one serves.
    Done,
    /// The old endpoint serves again.
    Restored,
    /// The old endpoint does not answer any more, and the new one goes on.
    Kept,
    /// Neither of them serves.
    Lost,
}

impl StepState {
    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Draining => "draining",
            Self::Safe => "safe",
            Self::Shared => "shared",
            Self::Warming => "warming",
            Self::Serving => "serving",
            Self::Done => "done",
            Self::Restored => "restored",
            Self::Kept => "kept",
            Self::Lost => "lost",
        }
    }
}

/// One move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldStep {
    /// The endpoint that goes.
    pub out: Option<String>,
    /// The endpoint that comes.
    pub into: Option<String>,
    /// How it stands.
    pub state: StepState,
    /// True while it goes on only when somebody confirms that the old endpoint was dealt with.
    pub awaits_confirmation: bool,
    /// The services and versions that use the old endpoint's address as well, as they were found when nothing else was left.
    #[serde(default)]
    pub also_used_by: Vec<(String, String)>,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The service.
    pub service: String,
    /// The version whose endpoints go.
    pub from: String,
    /// The version whose endpoints come.
    pub to: String,
    /// How it stands.
    pub state: RolloutState,
    /// In order.
    pub steps: Vec<ToldStep>,
    /// So many at a time.
    pub batch: usize,
    /// True when an endpoint comes before the other one goes.
    pub surge: bool,
    /// So many have to serve.
    pub min_serving: usize,
    /// So many served when this was told.
    pub serving: usize,
    /// The fewest that have served since it began.
    pub least_serving: usize,
    /// True when it goes back all the way if something goes wrong.
    pub reverses: bool,
    /// Why it ended early.
    pub why: Option<String>,
    /// Why its next change cannot be made yet: the store refuses it, an exclusive flip is under way, or supervision suspects the
    /// new version.
    #[serde(default)]
    pub hindrance: Option<String>,
    /// True when that was because something took too long.
    pub timed_out: bool,
    /// When it began, in milliseconds since 1970.
    pub began: u64,
    /// Counts what is told, so that news are known as such.
    pub news: u64,
}

impl Told {
    pub(super) fn of(order: &Order, serving: usize, now: Timestamp) -> Self {
        let plan = &order.plan;
        let steps = plan.moves.iter().map(|step| ToldStep {
            out: step.out.as_ref().map(ToString::to_string),
            into: step.into.as_ref().map(ToString::to_string),
            state: StepState::Pending,
            awaits_confirmation: false,
            also_used_by: Vec::new(),
        });
        Self {
            service: plan.service.to_string(),
            from: plan.from.to_string(),
            to: plan.to.to_string(),
            state: RolloutState::Running,
            steps: steps.collect(),
            batch: plan.batch,
            surge: plan.surge,
            min_serving: plan.min_serving,
            serving,
            least_serving: serving,
            reverses: order.on_failure == Back::All,
            why: None,
            hindrance: None,
            timed_out: false,
            began: now.0,
            news: 0,
        }
    }
}
