//! What a ramp is asked with, and how it stands.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema, openapi::RefOr};

use super::text;
use crate::control::RampNotice;
use crate::release::{self, Suspicion};
use crate::table::BasisPoints;

/// The weight of one version rises, step by step.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRamp {
    /// The version that gets more: its label, `@stable` or `@candidate`.
    #[schema(example = "green")]
    pub to: String,
    /// Its weights, rising: numbers are basis points as everywhere, text is per cent (`"5"`, `"0.25%"`). By default 1, 5, 25, 50, 100 %.
    /// Those that are not above what the version has are left out; the others share the rest as they did before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<RampStep>>, example = json!([100, 500, 2_500, 5_000, 10_000]))]
    pub steps: Option<Vec<Value>>,
    /// How long each step lasts, `500ms`, `30s`, `5m`, at most `24h`; left out: until `promote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "2m")]
    pub every: Option<String>,
    /// Whether the version is compared with the one before from the first step on, and taken back by itself when it is worse: true,
    /// for how long after the last step, `10m`, or false; left out: as the service's `supervise` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supervise: Option<Value>,
    /// True: the first step also when too few of the version's endpoints are well; it is noted in the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Why, for the history; of each step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The forms of a step, for the document; the handler reads them, and says which one is wrong.
struct RampStep;

impl PartialSchema for RampStep {
    fn schema() -> RefOr<Schema> {
        let points = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(10_000));
        let percent = ObjectBuilder::new().schema_type(Type::String).examples(["5", "0.25%"]);
        let forms = OneOfBuilder::new().item(points.description(Some("basis points")));
        forms.item(percent.description(Some("per cent"))).into()
    }
}

impl ToSchema for RampStep {}

/// A ramp goes to its next step at once.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// True: to its last step.
    #[serde(default)]
    pub full: bool,
    /// True: also when too few of the version's endpoints are well; it is noted in the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A ramp is taken back, stays where it is, or goes on.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SteerRamp {
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A ramp under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ramp {
    /// The epoch of the change that began it; names it.
    pub begun: u64,
    /// The version whose weight rises.
    #[schema(example = "green")]
    pub to: String,
    /// Its weights, in basis points.
    #[schema(example = json!([100, 500, 2_500, 5_000, 10_000]))]
    pub steps: Vec<u16>,
    /// The step that it has come to, from 1.
    pub step: usize,
    /// How long each step lasts, in milliseconds; absent: until `promote`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// True: it stays at this step until `resume` or `promote`.
    pub frozen: bool,
    /// When the next step is due, by the calendar of when that was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-11-28T22:10:00.000Z")]
    pub until: Option<String>,
    /// How much of the step is left, in milliseconds; only of a service that is read, and while time decides. Of a frozen one what is
    /// kept for `resume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// Why the next step does not come by time, or is due and cannot be taken: that is tried each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// How the last ramp of a service has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ramped {
    /// The epoch of the change that began it.
    pub begun: u64,
    /// The version whose weight rose.
    pub to: String,
    /// The weight of the last step that it had come to, in basis points.
    pub reached: u16,
    /// How.
    pub how: RampEnded,
    /// The epoch of the change that ended it.
    pub epoch: u64,
}

/// How a ramp or a retirement ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RampEnded {
    /// The last step was reached; nobody came any more.
    Finished,
    /// An abort or a revert took all of it back.
    Aborted,
    /// Supervision took the traffic back.
    Reverted,
    /// Something else moved the traffic, or took away a version that it needs.
    Superseded,
}

impl Ramp {
    /// A ramp whose version supervision has this against.
    #[must_use]
    pub fn of(ramp: &release::Ramp, suspicion: Option<&Suspicion>) -> Self {
        let waits = if ramp.is_frozen {
            Some("it is frozen: `resume` or `promote` goes on".to_owned())
        } else {
            ramp.every.is_none().then(|| "the next step is taken by `promote`".to_owned())
        };
        let told = Self {
            begun: ramp.begun.0,
            to: ramp.to.to_string(),
            steps: ramp.steps.all().iter().map(|step| step.points()).collect(),
            step: ramp.step + 1,
            every_ms: ramp.every.map(millis),
            frozen: ramp.is_frozen,
            until: ramp.until.map(|until| text::rfc3339(until.0)),
            left_ms: (ramp.is_frozen && ramp.every.is_some()).then(|| millis(ramp.lasts)),
            waits,
        };
        told.suspected(suspicion)
    }

    /// With what supervision has against its version: for that no step is taken, by nobody.
    #[must_use]
    pub fn suspected(mut self, suspicion: Option<&Suspicion>) -> Self {
        if let Some(Suspicion { version, leans }) = suspicion {
            let frozen = if self.frozen { "it is frozen, and " } else { "" };
            let away = if *leans { ", and keeps traffic away from it" } else { "" };
            self.waits = Some(format!("{frozen}supervision suspects `{version}`{away}"));
        }
        self
    }

    /// The weight of the step that it has come to, in basis points.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.steps.get(self.step.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// That of the next one.
    #[must_use]
    pub fn next(&self) -> u16 {
        self.steps.get(self.step).copied().unwrap_or_default()
    }

    /// True when it goes by this plan, of a version that had the weight `had`, in basis points; no steps are those that a ramp has
    /// of which nothing else is said.
    #[must_use]
    pub fn goes_by(&self, steps: &[BasisPoints], every: Option<Duration>, had: u16) -> bool {
        let standard = release::Steps::default();
        let steps = if steps.is_empty() { standard.all() } else { steps };
        let above = steps.iter().map(|step| step.points()).filter(|points| *points > had);
        above.eq(self.steps.iter().copied()) && every.map(millis) == self.every_ms
    }

    /// With what is known of the clock: how much is left, and why a step that is due is not taken.
    #[must_use]
    pub fn with_clock(mut self, known: Option<(Duration, Option<String>)>) -> Self {
        if let Some((left, why)) = known {
            self.left_ms = u64::try_from(left.as_millis()).ok();
            self.waits = self.waits.or(why);
        }
        self
    }
}

impl From<&release::Ramped> for Ramped {
    fn from(ramped: &release::Ramped) -> Self {
        let (begun, epoch, how) = (ramped.begun.0, ramped.epoch.0, ramped.how.into());
        Self { begun, to: ramped.to.to_string(), reached: ramped.reached.points(), how, epoch }
    }
}

impl From<release::RampEnd> for RampEnded {
    fn from(how: release::RampEnd) -> Self {
        match how {
            release::RampEnd::Finished => Self::Finished,
            release::RampEnd::Aborted => Self::Aborted,
            release::RampEnd::Reverted => Self::Reverted,
            release::RampEnd::Superseded => Self::Superseded,
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How a ramp stands, in a word: `ramping`, `waiting`, `frozen`, `suspended`; or how it ended.
pub(super) fn told(notice: &RampNotice) -> (&'static str, Option<Ramp>, Option<Ramped>) {
    match &notice.ramp {
        Ok(ramp) => {
            let state = match (ramp.is_frozen, notice.suspicion.is_some(), &notice.hindrance) {
                (true, ..) => "frozen",
                (false, true, _) => "suspended",
                (false, false, Some(_)) => "waiting",
                (false, false, None) => "ramping",
            };
            let mut ramp = Ramp::of(ramp, notice.suspicion.as_ref());
            ramp.waits = ramp.waits.or_else(|| notice.hindrance.clone());
            (state, Some(ramp), None)
        }
        Err(ramped) => (ramped.how.token(), None, Some(ramped.into())),
    }
}
