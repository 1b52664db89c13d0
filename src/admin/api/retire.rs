//! What a retirement is asked with, and how it stands.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{RampEnded, text, weights};
use crate::control::RetirementClock;
use crate::release;

/// Nobody new comes to the version that is tried; who is there stays until nobody of them comes any more.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retire {
    /// For how long nobody may have come to it, for it to be over: `500ms`, `30m` (the default), at most a year. Said of one under way it
    /// holds from then on. Where each request has a coin of its own nothing is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "30m")]
    pub quiet: Option<String>,
    /// How long it takes at most, from now on: `1h`, `24h` (the default), at most a year. Where each request has a coin of its own: for how
    /// long what lasts there is left alone, before it is seen out as the service's `drain` says.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    #[schema(example = "24h")]
    pub lasts: Option<String>,
    /// True: also when too few endpoints of the others are well. Only where each request has a coin of its own: else the end waits for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Retire {
    /// How long it takes at most unless something else is said.
    pub const LASTS: Duration = release::retire::LASTS;
}

/// A retirement under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Retirement {
    /// The epoch of the change that began it; names it.
    pub begun: u64,
    /// The version that nobody new comes to.
    #[schema(example = "green")]
    pub version: String,
    /// By which those stay who are known, in basis points by version; who is new is shared by the others in proportion.
    #[schema(example = json!({"green": 2_500, "blue": 7_500}))]
    pub weights: BTreeMap<String, u16>,
    /// For how long nobody may have come, for it to be over, in milliseconds.
    pub quiet_ms: u64,
    /// When it is over in any case, by the calendar of when that was decided.
    #[schema(example = "2026-11-28T22:10:00.000Z")]
    pub until: String,
    /// How much of that is left, in milliseconds; only of a service that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// For how long nobody has come, as far as this process has seen, in milliseconds; only of a service that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_for_ms: Option<u64>,
    /// Why it is not over although it should be, such as others that are not ready for what it has: that is tried again each second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// How the last retirement of a service has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Retired {
    /// The epoch of the change that began it.
    pub begun: u64,
    /// The version.
    pub version: String,
    /// How: finished, aborted (everybody was sent back at once), reverted (by supervision) or superseded.
    pub how: RampEnded,
    /// The epoch of the change that ended it: the same where there were no users to wait for.
    pub epoch: u64,
}

impl Retirement {
    /// With what is known of its clock.
    #[must_use]
    pub fn with_clock(self, known: Option<RetirementClock>) -> Self {
        let Some(RetirementClock { left, quiet, hindrance }) = known else { return self };
        let (left_ms, quiet_for_ms) = (Some(millis(left)), Some(millis(quiet)));
        Self { left_ms, quiet_for_ms, waits: hindrance, ..self }
    }
}

impl From<&release::Retirement> for Retirement {
    fn from(retirement: &release::Retirement) -> Self {
        Self {
            begun: retirement.begun.0,
            version: retirement.version.to_string(),
            weights: weights(&retirement.split),
            quiet_ms: millis(retirement.quiet),
            until: text::rfc3339(retirement.until.0),
            left_ms: None,
            quiet_for_ms: None,
            waits: None,
        }
    }
}

impl From<&release::Retired> for Retired {
    fn from(retired: &release::Retired) -> Self {
        let (begun, epoch) = (retired.begun.0, retired.epoch.0);
        Self { begun, version: retired.version.to_string(), how: retired.how.into(), epoch }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
