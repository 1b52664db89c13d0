//! Rolling upgrades on the wire, and whether endpoints are ready.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{AlsoUsedBy, Measure, text};
use crate::control;
use crate::control::rollout::RolloutState;
use crate::release::State;

/// A rolling upgrade: one endpoint after the other goes, and another one comes in its place.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartRollout {
    /// The version whose endpoints go: its label or `@stable` (the default).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "blue")]
    pub from: Option<String>,
    /// The version whose endpoints come; by default the same. Where it is another one, the weight follows the endpoints: with k of
    /// n endpoints in service it has k/n of what both have together.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "green")]
    pub to: Option<String>,
    /// Which endpoints; by default each of `from` with one of `to`, in their order, in one version each in its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replace: Vec<Replace>,
    /// So many at a time; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// True: the new endpoint comes before the old one goes.
    pub surge: bool,
    /// So many endpoints serve at any time, such as `8` or `80%`; by default as many as the plan leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "80%")]
    pub min_capacity: Option<String>,
    /// How long an endpoint may take until nothing is left on it; by default as long as the service's `drain.deadline`, and 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "10m")]
    pub drain_timeout: Option<String>,
    /// How long a new endpoint may take until it serves, or until it is confirmed that an old one was dealt with, and the store, or an
    /// exclusive flip, until a change can be made; 5 min by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "5m")]
    pub ready_timeout: Option<String>,
    /// How long a new endpoint has to stay well before the next one goes; 0 s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "10s")]
    pub settle: Option<String>,
    /// True: it goes on only when somebody confirms of each endpoint that was safe to stop that it was dealt with.
    pub confirm: bool,
    /// What is done when something goes wrong: `reverse` (the default: everything is taken back, as far as the old endpoints still answer) or
    /// `stop` (only what is under way).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "reverse")]
    pub on_failure: Option<String>,
    /// Why, for the history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One endpoint goes, one comes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// The endpoint that goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10.0.0.1:9001")]
    pub out: Option<String>,
    /// The endpoint that comes; the same address: the machine is restarted in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "10.0.1.1:9001")]
    pub into: Option<String>,
}

/// An endpoint that was safe to stop was dealt with.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Proceed {
    /// Which.
    #[schema(example = "10.0.0.1:9001")]
    pub endpoint: String,
}

/// A rolling upgrade as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rollout {
    /// The service.
    pub service: String,
    /// The version whose endpoints go.
    pub from: String,
    /// The version whose endpoints come.
    pub to: String,
    /// `running`, `reversing`, `done` (every old endpoint is safe to stop that nobody else uses and is not in `serving_again`, unless there is a `measure`), `reversed`, `stopped`, or `interrupted`: the process
    /// that did it has ended, and nothing goes on by itself.
    #[schema(example = "running")]
    pub state: String,
    /// In order.
    pub steps: Vec<RolloutStep>,
    /// So many at a time.
    pub batch: usize,
    /// True: the new endpoint comes before the old one goes.
    pub surge: bool,
    /// So many endpoints have to serve.
    pub min_serving: usize,
    /// So many serve.
    pub serving: usize,
    /// The fewest that have served since it began.
    pub least_serving: usize,
    /// Present where it is done and supervision may give traffic back to the old endpoints by itself: do not stop them then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure: Option<Measure>,
    /// The old endpoints that get requests again since it was done: do not stop them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub serving_again: Vec<String>,
    /// Why it ended early.
    #[serde(default)]
    pub why: Option<String>,
    /// Why its next change cannot be made yet, and is tried again: the store refuses it, an exclusive flip is under way, or
    /// supervision suspects the new version.
    #[serde(default)]
    pub hindrance: Option<String>,
    /// True when that was because something took too long.
    #[serde(default)]
    pub timed_out: bool,
    /// When it began, in UTC.
    #[schema(format = DateTime)]
    pub began: String,
    /// True when nothing was done: this is the plan.
    #[serde(default)]
    pub dry_run: bool,
}

/// One step of a rolling upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RolloutStep {
    /// The endpoint that goes.
    #[serde(default)]
    pub out: Option<String>,
    /// The endpoint that comes.
    #[serde(default)]
    pub into: Option<String>,
    /// `pending`, `draining`, `safe` (to stop), `shared` (nothing of the version is left, but others use the address), `warming`, `serving`, `done`; on the way back `restored` (the old one serves), `kept` (it does
    /// not answer any more, the new one serves) or `lost` (neither does).
    #[schema(example = "safe")]
    pub state: String,
    /// True while it waits for a word that the old endpoint was dealt with (`POST …/rollout/proceed`).
    #[serde(default)]
    pub awaits_confirmation: bool,
    /// Who else uses the address of the old endpoint, as it was when nothing of the version was left there: not safe to stop then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_used_by: Vec<AlsoUsedBy>,
}

/// The old endpoints of a rollout that is done and can get traffic, since they drain no more: those that do, or who may
/// give it to them. What has drained gets nothing, whoever has the traffic.
fn returned(told: &control::rollout::Told, state: &State) -> Option<(Option<Measure>, Vec<String>)> {
    let name = told.service.parse().ok().filter(|_| told.state == RolloutState::Done)?;
    let service = state.table.service(&name)?;
    let from = service.versions.iter().find(|version| version.name.as_str() == told.from)?;
    let serving: Vec<_> = from.serving().map(ToString::to_string).collect();
    let replaced = told.steps.iter().filter(|step| told.from != told.to || step.out != step.into);
    let open = replaced.filter_map(|step| step.out.clone()).filter(|out| serving.contains(out));
    let open: Vec<_> = open.collect();
    let carries = service.split.leads_to(&from.name);
    let measure = || Measure::present(state, &name, &told.from).filter(|_| !open.is_empty());
    Some(if carries { (None, open) } else { (measure(), Vec::new()) })
}

fn users(step: &control::rollout::ToldStep) -> Vec<AlsoUsedBy> {
    let address = step.out.clone().unwrap_or_default();
    let user = |(service, version): &(String, String)| AlsoUsedBy {
        service: service.clone(),
        version: version.clone(),
        address: address.clone(),
    };
    step.also_used_by.iter().map(user).collect()
}

impl Rollout {
    /// A rollout, and what is made of it by a comparison that is under way in this state.
    #[must_use]
    pub fn of(told: &control::rollout::Told, state: &State) -> Self {
        let (measure, serving_again) = returned(told, state).unwrap_or_default();
        let step = |step: &control::rollout::ToldStep| RolloutStep {
            out: step.out.clone(),
            into: step.into.clone(),
            state: step.state.token().to_owned(),
            awaits_confirmation: step.awaits_confirmation,
            also_used_by: users(step),
        };
        Self {
            service: told.service.clone(),
            from: told.from.clone(),
            to: told.to.clone(),
            state: told.state.token().to_owned(),
            steps: told.steps.iter().map(step).collect(),
            batch: told.batch,
            surge: told.surge,
            min_serving: told.min_serving,
            serving: told.serving,
            least_serving: told.least_serving,
            measure,
            serving_again,
            why: told.why.clone(),
            hindrance: told.hindrance.clone(),
            timed_out: told.timed_out,
            began: text::rfc3339(told.began),
            dry_run: false,
        }
    }
}

/// Whether the endpoints of a version can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ready {
    /// True when all of them accept a connection and nothing is known against them.
    pub ready: bool,
    /// Each of the pool that is not draining.
    pub endpoints: Vec<EndpointReady>,
}

/// Whether one endpoint can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointReady {
    /// `host:port`, `[v6]:port` or `unix:/path`.
    #[schema(example = "127.0.0.1:9001")]
    pub endpoint: String,
    /// True when it can.
    pub ready: bool,
    /// Why not.
    #[serde(default)]
    pub why: Option<String>,
}
