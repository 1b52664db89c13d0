//! What `GET /v1/events` tells as it happens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Change, HealthState, Ramp, Ramped, Rollout, RolloutStep, ramp};
use crate::control::Notice;

/// One server-sent event: its name is `type`, its data this object as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The stream begins: everything after this epoch will be told.
    Hello {
        /// The table's epoch.
        epoch: u64,
    },
    /// A change was published.
    Changed {
        /// The change.
        change: Change,
    },
    /// A version that was left has nothing in flight any more: it is safe to stop, unless others use its addresses or a
    /// comparison may give it its traffic back, as `GET …/versions/{version}/drain` tells.
    Drained {
        /// The service.
        service: String,
        /// The version.
        version: String,
        /// From the change that left it to its last request's end.
        seconds: f64,
    },
    /// An endpoint stands otherwise than before.
    Health {
        /// The service.
        service: String,
        /// The version.
        version: String,
        /// The endpoint.
        endpoint: String,
        /// How it stands now.
        state: HealthState,
        /// How it stood.
        before: HealthState,
        /// What made the difference: what its last check said.
        said: String,
    },
    /// A ramp has begun, come to its next step, stopped or gone on, or ended; or something is in its way.
    Ramp {
        /// The service.
        service: String,
        /// `ramping`; `waiting`: the next step is due and cannot be taken; `frozen`; `suspended`: supervision suspects the
        /// version; or how it ended: `finished`, `aborted`, `reverted`, `superseded`.
        state: String,
        /// How it stands, while it is under way.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ramp: Option<Ramp>,
        /// How it has ended.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Ramped>,
    },
    /// The file was read and refused; what it said before stays.
    ReloadFailed {
        /// Every error, one a line.
        errors: String,
    },
    /// A rolling upgrade has come a step further, or to its end.
    Rollout {
        /// All of it, as it stands.
        rollout: Box<Rollout>,
        /// The step that this is about, from 1; absent when it is about the whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<usize>,
        /// That step: `safe` says that its `out` may be stopped.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        now: Option<RolloutStep>,
    },
    /// A comparison of two versions stands otherwise than before, or something is in supervision's way.
    Verdict {
        /// The service.
        service: String,
        /// The epoch of the change that began the comparison.
        stage: u64,
        /// The version that serves as the measure.
        baseline: String,
        /// The version that is tried.
        candidate: String,
        /// How it stands: collecting, healthy, suspect, breached, held.
        state: String,
        /// How it stood.
        before: String,
        /// Why, in a sentence with numbers.
        said: String,
        /// Why supervision cannot do what it wants, which it tries again; then it stands as before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hindrance: Option<String>,
    },
    /// This listener was too slow and missed events: read the state again.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Event {
    /// The event's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Changed { .. } => "changed",
            Self::Drained { .. } => "drained",
            Self::Health { .. } => "health",
            Self::Ramp { .. } => "ramp",
            Self::ReloadFailed { .. } => "reload_failed",
            Self::Rollout { .. } => "rollout",
            Self::Verdict { .. } => "verdict",
            Self::Lagged { .. } => "lagged",
        }
    }

    /// The services that it is about; none when it is about the proxy itself.
    #[must_use]
    pub fn services(&self) -> Vec<&str> {
        match self {
            Self::Changed { change } => change.services.keys().map(String::as_str).collect(),
            Self::Drained { service, .. }
            | Self::Health { service, .. }
            | Self::Ramp { service, .. }
            | Self::Verdict { service, .. } => vec![service],
            Self::Rollout { rollout, .. } => vec![&rollout.service],
            Self::Hello { .. } | Self::ReloadFailed { .. } | Self::Lagged { .. } => Vec::new(),
        }
    }

    /// The one thing that it is about: a service, or `service/version`.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        match (self, &self.services()[..]) {
            (Self::Drained { service, version, .. }, _) => Some(format!("{service}/{version}")),
            (Self::Health { service, version, endpoint, .. }, _) => {
                Some(format!("{service}/{version}/{endpoint}"))
            }
            (_, [service]) => Some((*service).to_owned()),
            _ => None,
        }
    }
}

impl From<&Notice> for Event {
    fn from(notice: &Notice) -> Self {
        match notice {
            Notice::Changed(change) => Self::Changed { change: (&**change).into() },
            Notice::Drained { service, version, seconds } => Self::Drained {
                service: service.to_string(),
                version: version.to_string(),
                seconds: *seconds,
            },
            Notice::Health { service, version, endpoint, before, state, said } => Self::Health {
                service: service.to_string(),
                version: version.to_string(),
                endpoint: endpoint.to_string(),
                state: (*state).into(),
                before: (*before).into(),
                said: said.clone(),
            },
            Notice::Ramp(news) => {
                let (state, ramp, ended) = ramp::told(news);
                Self::Ramp { service: news.service.to_string(), state: state.to_owned(), ramp, ended }
            }
            Notice::ReloadFailed { errors } => Self::ReloadFailed { errors: errors.clone() },
            Notice::Rollout(news) => {
                let rollout = Box::new(Rollout::of(&news.told, &news.state));
                let now = news.step.and_then(|step| rollout.steps.get(step).cloned());
                Self::Rollout { rollout, step: news.step.map(|step| step + 1), now }
            }
            Notice::Verdict(news) => Self::Verdict {
                service: news.service.to_string(),
                stage: news.stage.0,
                baseline: news.baseline.to_string(),
                candidate: news.candidate.to_string(),
                state: news.standing.name().to_owned(),
                before: news.before.name().to_owned(),
                said: news.said.clone(),
                hindrance: news.hindrance.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use utoipa::PartialSchema;

    use super::*;
    use crate::release::EVENTS;

    #[test]
    fn every_event_that_happens_can_be_asked_for_by_its_name() {
        let schema = serde_json::to_value(Event::schema()).unwrap();
        let variants = schema["oneOf"].as_array().unwrap();
        let names = variants.iter().map(|variant| variant["properties"]["type"]["enum"][0].as_str().unwrap());
        let happen: Vec<_> = names.filter(|name| !["hello", "lagged"].contains(name)).collect();
        assert_eq!(happen, EVENTS);
    }
}
