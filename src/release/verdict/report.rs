//! All that there is to tell of a stage, as a plain value: for the API, the history, and people.

use super::counts::Group;
use super::endpoint::EndpointCounts;
use super::estats::Tolerance;
use super::interval::{Interval, Segment, excess_estimate, excess_interval};
use super::latency::{LatencyHist, QUANTILES, bucket_low};
use super::standing::{GuardOf, Metric, Standing, Why};
use super::{Settings, Supervisor};
use crate::release::Timestamp;
use crate::table::{EndpointAddr, VersionName};

/// How sure the interval is, at any time that one looks.
pub const CONFIDENCE: f64 = 0.95;

/// What a stage does not know of itself.
#[derive(Debug, Clone)]
pub struct About<'a> {
    /// The version that serves as the measure.
    pub baseline: &'a VersionName,
    /// The version that is tried.
    pub candidate: &'a VersionName,
    /// When the stage began.
    pub began: Timestamp,
    /// False: supervision only tells.
    pub acts: bool,
    /// How long the answers of the baseline, and the candidate, took.
    pub took: [&'a LatencyHist; 2],
    /// The buckets from which on answers of the baseline, and the candidate, are slow, once that is known.
    pub slow_from: Option<[[usize; 3]; 2]>,
    /// What the candidate's endpoints did.
    pub endpoints: Vec<(EndpointAddr, EndpointCounts)>,
    /// What the candidate's failures were, as far as that was counted: `5xx`, `timeout`.
    pub kinds: Vec<(&'static str, u64)>,
    /// How many requests of users failed; `None`: that was not counted.
    pub user_failures: Option<u64>,
    /// How many clients have come, where the coin is the client's.
    pub clients: Option<u64>,
}

/// How a stage stands, with all its figures. Of each pair the first is the baseline's, the second the candidate's.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The version that serves as the measure.
    pub baseline: VersionName,
    /// The version that is tried.
    pub candidate: VersionName,
    /// What is thought of it.
    pub standing: Standing,
    /// Why it is suspect, held or breached.
    pub why: Option<Why>,
    /// When the stage began.
    pub began: Timestamp,
    /// When it came to stand where it stands.
    pub since: Timestamp,
    /// How many seconds it has lasted, or had until it was breached.
    pub seconds: f64,
    /// False: supervision only tells.
    pub acts: bool,
    /// The candidate's share when nothing is wrong, 0 to 1.
    pub target: f64,
    /// The share that it shall have now.
    pub weight: f64,
    /// What was counted, of all weights.
    pub counts: Group,
    /// Requests that are out for longer than the threshold of each of p75, p95 and p99.
    pub out: [[u64; 3]; 2],
    /// Answers of the baseline that are overdue.
    pub overdue: u64,
    /// p75, p95 and p99 of each version in seconds; `None` without answers.
    pub quantiles: [Option<[f64; 3]>; 2],
    /// From so many seconds on an answer is slow.
    pub slow_from: Option<[[f64; 3]; 2]>,
    /// The evidence of all metrics, as a logarithm.
    pub log_e: f64,
    /// The evidence of each, in the order of [`Metric::ALL`].
    pub log_e_of: [f64; 5],
    /// The guards' evidence.
    pub guard_log_e: f64,
    /// The evidence that the candidate is within tolerance.
    pub clean_log_e: f64,
    /// The evidence that makes it suspect, breached, and healthy, as logarithms.
    pub needed: Needed,
    /// Which comparison the difference is of: what the stage is suspect or breached for, else errors.
    pub metric: Metric,
    /// By how much the candidate's share is larger, as the coin shows it; `None` before it has shown anything.
    pub excess: Option<f64>,
    /// Where that is with [`CONFIDENCE`], whenever one looks.
    pub interval: Interval,
    /// What it was made with.
    pub settings: Settings,
    /// The share of failures that the guard tolerates.
    pub guard_bound: f64,
    /// So many bad answers in a row blow the fuse.
    pub fuse_len: u32,
    /// How often it became suspect.
    pub suspects: u32,
    /// What made it suspect the last time, and so many seconds after the beginning.
    pub trigger: Option<(Why, f64)>,
    /// How many more failures of the candidate alone would prove it worse.
    pub needed_failures: Option<f64>,
    /// True when the baseline fails as well.
    pub common_mode: bool,
    /// True when too few clients come for the comparison to say anything.
    pub too_few_clients: bool,
    /// How many have come, where the coin is the client's.
    pub clients: Option<u64>,
    /// What the candidate's endpoints did.
    pub endpoints: Vec<(EndpointAddr, EndpointCounts)>,
    /// Failures of endpoints that were ejected, which are in no other figure.
    pub ejected_failures: u64,
    /// What the candidate's failures were, as far as that was counted.
    pub kinds: Vec<(&'static str, u64)>,
    /// How many requests of users failed.
    pub user_failures: Option<u64>,
}

/// The evidence that makes a candidate something, as logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Needed {
    /// Suspect.
    pub suspect: f64,
    /// Breached.
    pub breach: f64,
    /// Healthy.
    pub healthy: f64,
}

impl Report {
    /// Of this stage. Costs an [`excess_interval`].
    #[must_use]
    pub fn of(stage: &Supervisor, about: About<'_>) -> Self {
        let metric = metric(stage);
        let segments: Vec<Segment> = stage.totals().segments(metric).collect();
        let settings = *stage.settings();
        let breach = stage.needed_log_e();
        let stalled = stage.stalled();
        let seconds = |micros: u64| micros as f64 / 1e6;
        Self {
            baseline: about.baseline.clone(),
            candidate: about.candidate.clone(),
            standing: stage.standing(),
            why: stage.why(),
            began: about.began,
            since: later(about.began, stage.turned()),
            seconds: stage.elapsed(),
            acts: about.acts,
            target: stage.target(),
            weight: stage.weight(),
            counts: stage.counts(),
            out: stalled.slow,
            overdue: stalled.missing,
            quantiles: about.took.map(|took| {
                let [p75, p95, p99] = QUANTILES.map(|quantile| took.quantile(quantile).map(seconds));
                Some([p75?, p95?, p99?])
            }),
            slow_from: about
                .slow_from
                .map(|of| of.map(|from| from.map(|bucket| seconds(bucket_low(bucket))))),
            log_e: stage.log_e(),
            log_e_of: Metric::ALL.map(|metric| stage.log_e_of(metric)),
            guard_log_e: stage.guard_log_e(),
            clean_log_e: stage.clean_log_e(),
            needed: Needed {
                suspect: breach.min(-settings.alpha_suspect.ln()),
                breach,
                healthy: -settings.alpha_clean.ln(),
            },
            metric,
            excess: excess_estimate(&segments),
            interval: excess_interval(&segments, CONFIDENCE),
            settings,
            guard_bound: stage.guard_bound(),
            fuse_len: stage.fuse_len(),
            suspects: stage.suspects(),
            trigger: stage.suspicion().map(|suspicion| (suspicion.why, suspicion.at)),
            needed_failures: stage.needed_failures(),
            common_mode: stage.has_common_mode(),
            too_few_clients: stage.has_few_clients(),
            clients: about.clients,
            endpoints: about.endpoints,
            ejected_failures: stage.ejected_failures(),
            kinds: about.kinds,
            user_failures: about.user_failures,
        }
    }

    /// What of the candidate is tolerated by the metric that the difference is of.
    #[must_use]
    pub fn tolerance(&self) -> Tolerance {
        self.settings.tolerance(self.metric)
    }

    /// What was decided for its metric, and what of that was bad, with what is out and will be.
    pub(super) fn shares(&self, metric: Metric) -> [(u64, u64); 2] {
        let (decided, bad) = (self.counts.of(metric), self.counts.bad_of(metric));
        let out = self.out_of(metric);
        [0, 1].map(|side| (decided[side] + out[side], bad[side] + out[side]))
    }

    /// How many that are out are slow already.
    pub(super) fn out_of(&self, metric: Metric) -> [u64; 2] {
        metric.quantile().map_or([0, 0], |quantile| self.out.map(|of| of[quantile]))
    }
}

/// What the comparison that is told of is by: what the stage is suspect or breached for, else errors.
fn metric(stage: &Supervisor) -> Metric {
    let latencies = [Metric::LatencyP75, Metric::LatencyP95, Metric::LatencyP99];
    match stage.why() {
        Some(Why::Metric(metric)) => metric,
        Some(Why::Guard(GuardOf::Latency)) => {
            latencies.into_iter().fold(Metric::LatencyP75, |most, metric| {
                if stage.log_e_of(metric) > stage.log_e_of(most) { metric } else { most }
            })
        }
        Some(Why::Guard(GuardOf::Errors) | Why::Fuse | Why::PoolDown | Why::Inherited) | None => {
            Metric::ErrorRate
        }
    }
}

/// So many seconds after `began`.
fn later(began: Timestamp, seconds: f64) -> Timestamp {
    let millis = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default().as_millis();
    Timestamp(began.0.saturating_add(u64::try_from(millis).unwrap_or(u64::MAX)))
}
