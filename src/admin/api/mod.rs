//! The wire types of the admin API: the contract in serde, apart from the heart, so that a rename inside changes nothing
//! outside. Requests refuse members they do not know; answers may gain members.

mod change;
mod drain;
mod event;
mod explain;
mod health;
mod history;
mod mirror;
mod problem;
mod ramp;
mod retire;
mod rollout;
mod rules;
mod service;
mod shield;
mod standing;
mod sticky;
pub mod text;
mod trial;
mod upgrade;
mod verdict;

pub use crate::release::Steps;
pub use change::{
    Batch, ChangeAnswer, Edit, EndpointEdit, Flip, Hold, Leaving, Move, PutEndpoint, PutVersion, Reached,
    Release, Rest, Revert, Undo, VersionEdit, Weights,
};
pub use drain::{
    AlsoUsedBy, Drain, Drains, EndpointDrain, EndpointLeft, Measure, Remaining, VersionKept, VersionLeft,
    seconds,
};
pub use event::Event;
pub use explain::{Chance, Decided, Explain, Explained, Fate, Lines, Pinned, Reason};
pub use health::{CheckAnswer, Ejection, EndpointHealth, HealthState, Unhealthy, VersionHealth};
pub use history::{Actor, Change, History, Was};
pub use mirror::{Copied, Mirror, Mirroring, NotCopied};
pub use problem::{Left, Problem};
pub use ramp::{Promote, Ramp, RampEnded, Ramped, StartRamp, SteerRamp};
pub use retire::{Retire, Retired, Retirement};
pub use rollout::{EndpointReady, Proceed, Ready, Replace, Rollout, RolloutStep, StartRollout};
pub use rules::Rule;
pub use service::{
    Endpoint, InFlight, Listener, PreviousSplit, Protocol, Route, Service, Services, Status, Version, weights,
};
pub use shield::Shield;
pub use standing::{Holding, Phase, Standing};
pub use sticky::Sticky;
pub use trial::{Supervision, Trial, TrialEnd, TrialEnded};
pub use upgrade::{Predecessor, Upgrade, Upgraded};
pub use verdict::{
    Difference, EndpointFigures, Evidence, Quantiles, Suspicion, Tolerated, Verdict, VersionFigures,
};
