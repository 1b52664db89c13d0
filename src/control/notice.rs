//! What control tells whoever listens.

use std::sync::Arc;

use super::ramp::RampNotice;
use super::rollout::Told;
use super::supervisor::VerdictNotice;
use crate::proxy::upstream::Standing;
use crate::release::{Change, State};
use crate::table::{EndpointAddr, ServiceName, VersionName};

/// What control tells whoever listens (`GET /v1/events`).
#[derive(Debug, Clone)]
pub enum Notice {
    /// A change was published.
    Changed(Arc<Change>),
    /// A version that was left has nothing in flight any more.
    Drained {
        /// The service.
        service: ServiceName,
        /// The version that is safe to stop.
        version: VersionName,
        /// From the change that left it to its last request's end, in seconds.
        seconds: f64,
    },
    /// An endpoint stands otherwise than before.
    Health {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// The endpoint.
        endpoint: EndpointAddr,
        /// How it stood.
        before: Standing,
        /// How it stands.
        state: Standing,
        /// What made the difference.
        said: String,
    },
    /// A ramp stands otherwise than before, or something is in its way.
    Ramp(Arc<RampNotice>),
    /// The file was read and refused; what it said before stays.
    ReloadFailed {
        /// Every error, one a line.
        errors: String,
    },
    /// A rollout has come a step further, or to its end.
    Rollout(Arc<RolloutNotice>),
    /// A comparison of two versions stands otherwise than before.
    Verdict(Arc<VerdictNotice>),
}

/// News of a rollout.
#[derive(Debug, Clone)]
pub struct RolloutNotice {
    /// All of it, as it stands.
    pub told: Told,
    /// The step that they are about; `None`: about the whole.
    pub step: Option<usize>,
    /// Where traffic went then.
    pub state: Arc<State>,
}
