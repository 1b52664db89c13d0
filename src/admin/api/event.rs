//! What `GET /v1/events` tells as it happens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Change, HealthState};
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
    /// A version that was left has nothing in flight any more: it is safe to stop.
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
    /// The file was read and refused; what it said before stays.
    ReloadFailed {
        /// Every error, one a line.
        errors: String,
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
            Self::ReloadFailed { .. } => "reload_failed",
            Self::Lagged { .. } => "lagged",
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
            Notice::ReloadFailed { errors } => Self::ReloadFailed { errors: errors.clone() },
        }
    }
}
