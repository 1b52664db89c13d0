//! What supervision tells: how candidates stand, by what evidence, and what it has done.

use super::family::Family;
use super::inputs::Inputs;
use super::names;
use crate::table::{ServiceName, VersionName};

/// What can make a candidate suspect, as the label `cause`, or have its traffic taken back, as `reason`.
pub const CAUSES: [&str; 10] = [
    "guard_errors",
    "guard_latency",
    "fuse",
    "error_rate",
    "client_error_share",
    "latency_p75",
    "latency_p95",
    "latency_p99",
    "pool_down",
    "inherited",
];
/// What first attempts came to, as the label `outcome`.
pub const OUTCOMES: [&str; 3] = ["ok", "failed", "client_error"];
/// How a candidate can stand, as the label `state`.
pub const STATES: [&str; 5] = ["collecting", "healthy", "suspect", "breached", "held"];

/// Two versions of a service that are compared, or were.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The service.
    pub service: ServiceName,
    /// The version that is tried.
    pub candidate: VersionName,
    /// The version that serves as the measure.
    pub baseline: VersionName,
    /// While they are compared: how it stands.
    pub stands: Option<Stands>,
    /// What first attempts came to: of the baseline, of the candidate; in the order of [`OUTCOMES`].
    pub requests: [[u64; OUTCOMES.len()]; 2],
    /// How often the candidate became suspect, in the order of [`CAUSES`].
    pub suspects: [u64; CAUSES.len()],
    /// How often its traffic was taken back, in the same order.
    pub reverts: [u64; CAUSES.len()],
    /// Endpoints of the candidate that were drained because they alone were bad.
    pub ejections: u64,
    /// The last time its traffic was taken back: how many of its first attempts had failed, and after how many seconds.
    pub last_revert: Option<(u64, f64)>,
}

/// How a comparison stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Stands {
    /// The word for it.
    pub state: &'static str,
    /// The evidence that it is worse, as natural logarithms: of each metric, and of all as `total`.
    pub log_e: Vec<(&'static str, f64)>,
    /// By how much more of its first attempts fail: not below, estimated, not above; 95 %, whenever it is looked at.
    pub excess: Option<[f64; 3]>,
    /// True when the baseline fails too.
    pub common_mode: bool,
    /// True while supervision cannot do what it wants.
    pub is_hindered: bool,
}

pub(super) fn families(inputs: &Inputs) -> [Family; 11] {
    let mut state = Family::of(&names::SUPERVISION_STATE);
    let mut log_e = Family::of(&names::SUPERVISION_LOG_E);
    let mut excess = Family::of(&names::SUPERVISION_EXCESS);
    let mut common = Family::of(&names::SUPERVISION_COMMON_MODE);
    let mut hindered = Family::of(&names::SUPERVISION_HINDERED);
    let mut requests = Family::of(&names::SUPERVISION_REQUESTS);
    let mut suspects = Family::of(&names::SUPERVISION_SUSPECTS);
    let mut reverts = Family::of(&names::SUPERVISION_REVERTS);
    let mut ejections = Family::of(&names::SUPERVISION_EJECTIONS);
    let mut failed = Family::of(&names::SUPERVISION_LAST_FAILED);
    let mut seconds = Family::of(&names::SUPERVISION_LAST_SECONDS);
    for compared in &inputs.compared {
        let pair = [compared.service.as_str(), compared.candidate.as_str(), compared.baseline.as_str()];
        let [service, candidate, baseline] = pair;
        let with = |label| [service, candidate, baseline, label];
        let stands = compared.stands.as_ref();
        for name in STATES {
            state.count(&with(name), u64::from(stands.is_some_and(|stands| stands.state == name)));
        }
        common.count(&pair, u64::from(stands.is_some_and(|stands| stands.common_mode)));
        hindered.count(&pair, u64::from(stands.is_some_and(|stands| stands.is_hindered)));
        for (metric, value) in stands.into_iter().flat_map(|stands| &stands.log_e) {
            log_e.value(&with(metric), *value);
        }
        if let Some(bounds) = stands.and_then(|stands| stands.excess) {
            for (bound, value) in ["low", "estimate", "high"].into_iter().zip(bounds) {
                excess.value(&with(bound), value);
            }
        }
        for (version, counts) in [baseline, candidate].into_iter().zip(&compared.requests) {
            for (outcome, count) in OUTCOMES.into_iter().zip(counts) {
                requests.count(&[service, candidate, baseline, version, outcome], *count);
            }
        }
        for (index, cause) in CAUSES.into_iter().enumerate() {
            suspects.count(&with(cause), compared.suspects[index]);
            reverts.count(&with(cause), compared.reverts[index]);
        }
        ejections.count(&pair, compared.ejections);
        if let Some((count, after)) = compared.last_revert {
            failed.count(&pair, count);
            seconds.value(&pair, after);
        }
    }
    [state, log_e, excess, common, hindered, requests, suspects, reverts, ejections, failed, seconds]
}
