//! All figures of a comparison that is under way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::text::rfc3339;
use crate::release::verdict::{CONFIDENCE, Metric, Report, Tolerance, Why};

/// What supervision has counted, and what it makes of that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Verdict {
    /// `collecting`, `healthy`, `suspect`, `breached`, `held`.
    #[schema(example = "suspect")]
    pub state: String,
    /// Why it is suspect, breached or held: `guard_errors`, `guard_latency`, `fuse`, `error_rate`, `client_error_share`,
    /// `latency_p75`, `latency_p95`, `latency_p99`, `pool_down`, `inherited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "guard_errors")]
    pub why: Option<String>,
    /// When counting began.
    #[schema(example = "2026-11-28T22:10:00.000Z")]
    pub began: String,
    /// When it came to stand where it stands.
    #[schema(example = "2026-11-28T22:10:00.130Z")]
    pub since: String,
    /// For how many seconds it counted.
    pub seconds: f64,
    /// The candidate's weight when nothing is wrong, in basis points.
    pub target: u16,
    /// The weight that it shall have now.
    pub weight: u16,
    /// The version that serves as the measure.
    pub baseline: VersionFigures,
    /// The version that is tried.
    pub candidate: VersionFigures,
    /// What was proven, and what has to be.
    pub evidence: Evidence,
    /// By how much the candidate is worse.
    pub difference: Difference,
    /// How many more failures of the candidate alone would prove it worse; absent without a coin to compare by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_failures: Option<u64>,
    /// The share of failures, by what the baseline did before, above which it becomes suspect.
    #[schema(example = 0.004)]
    pub guard_bound: f64,
    /// So many failures in a row make it suspect at once.
    pub fuse: u32,
    /// How often it became suspect.
    pub suspicions: u32,
    /// The last time that it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<Suspicion>,
    /// True: the baseline fails as well, which is no reason to revert.
    pub common_mode: bool,
    /// True: too few clients have come for a comparison, and clients stay with a version; then only suspicion is left.
    pub too_few_clients: bool,
    /// About how many have come; absent where each request has a coin of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<u64>,
    /// What the candidate's endpoints did.
    #[serde(default)]
    pub endpoints: Vec<EndpointFigures>,
    /// Failures of endpoints that were ejected for them; they count nowhere else.
    pub ejected_failures: u64,
    /// What the candidate's failures were, as far as that was counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(example = json!({"5xx": 6}))]
    pub failures: BTreeMap<String, u64>,
    /// How many requests of users failed, as far as that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_failures: Option<u64>,
}

/// What one of the two versions did since counting began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VersionFigures {
    /// Its label.
    #[schema(example = "green")]
    pub version: String,
    /// First attempts that were decided.
    pub requests: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How many of the failed count in no comparison: where clients stay with a version, those of a client that had met another one
    /// just before.
    #[serde(default, skip_serializing_if = "is_none")]
    pub failed_again: u64,
    /// How many were answered with a 4xx that the version may be to blame for.
    pub client_errors: u64,
    /// How many were compared by their speed.
    pub measured: u64,
    /// How many of these were slow: slower than the baseline used to be, the candidate with what is tolerated on top.
    pub slow: Quantiles<u64>,
    /// How many are out and are slow already.
    pub out: Quantiles<u64>,
    /// How many answers are overdue; they count as failures when a revert is decided. Of the baseline only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdue: Option<u64>,
    /// From so many seconds on an answer is slow; absent before that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_from_seconds: Option<Quantiles<f64>>,
    /// How many seconds its answers took until their first byte; absent before there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<Quantiles<f64>>,
}

/// At the quantiles 75 %, 95 % and 99 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Quantiles<T> {
    /// 75 %.
    pub p75: T,
    /// 95 %.
    pub p95: T,
    /// 99 %.
    pub p99: T,
}

/// Natural logarithms of odds against 1; null: none yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Evidence {
    /// That the candidate is worse than tolerated, by all metrics: what reverts.
    pub log_e: Option<f64>,
    /// The same of each metric.
    #[schema(example = json!({"error_rate": 9.4, "client_error_share": -0.7}))]
    pub by_metric: BTreeMap<String, Option<f64>>,
    /// That it is worse than the baseline was before: what raises suspicion.
    pub guard: Option<f64>,
    /// That it is within tolerance: what makes it healthy.
    pub clean: Option<f64>,
    /// What makes it suspect.
    #[schema(example = 4.6)]
    pub suspect_at: f64,
    /// What reverts it.
    #[schema(example = 9.2)]
    pub reverts_at: f64,
    /// What makes it healthy.
    #[schema(example = 3.0)]
    pub healthy_at: f64,
}

/// The candidate's share less the baseline's, from what one coin shared among both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// The share of what.
    #[schema(example = "error_rate")]
    pub metric: String,
    /// About so much; absent before both have answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<f64>,
    /// Not below this.
    #[schema(example = 0.18)]
    pub low: f64,
    /// Not above this.
    #[schema(example = 1.0)]
    pub high: f64,
    /// How sure that is, at any time that one looks.
    #[schema(example = 0.95)]
    pub confidence: f64,
    /// What the candidate's share may be.
    pub tolerated: Tolerated,
}

/// So many times the baseline's share, and so much on top.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tolerated {
    /// Times.
    #[schema(example = 1.5)]
    pub times: f64,
    /// On top.
    #[schema(example = 0.002)]
    pub plus: f64,
}

/// What made it suspect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Suspicion {
    /// As in `why`.
    #[schema(example = "guard_errors")]
    pub why: String,
    /// So many seconds after counting began.
    pub after_seconds: f64,
}

/// What one endpoint of the candidate did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointFigures {
    /// Its address.
    #[schema(example = "10.0.0.7:8080")]
    pub address: String,
    /// First attempts that were decided.
    pub requests: u64,
    /// How many of them failed.
    pub failed: u64,
}

impl From<&Report> for Verdict {
    fn from(report: &Report) -> Self {
        let endpoints = report.endpoints.iter().map(|(address, counts)| EndpointFigures {
            address: address.to_string(),
            requests: counts.decided,
            failed: counts.bad,
        });
        let kinds = report.kinds.iter().filter(|(_, count)| *count > 0);
        Self {
            state: report.standing.name().to_owned(),
            why: report.why.map(name),
            began: rfc3339(report.began.0),
            since: rfc3339(report.since.0),
            seconds: report.seconds,
            target: points(report.target),
            weight: points(report.weight),
            baseline: VersionFigures { overdue: Some(report.overdue), ..VersionFigures::of(report, 0) },
            candidate: VersionFigures::of(report, 1),
            evidence: Evidence::of(report),
            difference: Difference::of(report),
            needed_failures: report.needed_failures.map(whole),
            guard_bound: report.guard_bound,
            fuse: report.fuse_len,
            suspicions: report.suspects,
            suspicion: report.trigger.map(|(why, after_seconds)| Suspicion { why: name(why), after_seconds }),
            common_mode: report.common_mode,
            too_few_clients: report.too_few_clients,
            clients: report.clients,
            endpoints: endpoints.collect(),
            ejected_failures: report.ejected_failures,
            failures: kinds.map(|(kind, count)| ((*kind).to_owned(), *count)).collect(),
            user_failures: report.user_failures,
        }
    }
}

impl VersionFigures {
    /// Of the baseline (0) or the candidate (1).
    fn of(report: &Report, side: usize) -> Self {
        let version = if side == 0 { &report.baseline } else { &report.candidate };
        let counts = &report.counts;
        Self {
            version: version.to_string(),
            requests: counts.decided[side],
            failed: counts.bad[side],
            failed_again: counts.again.bad[side],
            client_errors: counts.client_errors[side],
            measured: counts.measured[side],
            slow: counts.slow[side].into(),
            out: report.out[side].into(),
            overdue: None,
            slow_from_seconds: report.slow_from.map(|from| from[side].into()),
            seconds: report.quantiles[side].map(Quantiles::from),
        }
    }
}

impl<T> From<[T; 3]> for Quantiles<T> {
    fn from([p75, p95, p99]: [T; 3]) -> Self {
        Self { p75, p95, p99 }
    }
}

impl Evidence {
    fn of(report: &Report) -> Self {
        // Minus infinity is no number in JSON.
        let known = |log_e: f64| log_e.is_finite().then_some(log_e);
        let metrics = Metric::ALL.into_iter().zip(report.log_e_of);
        Self {
            log_e: known(report.log_e),
            by_metric: metrics.map(|(metric, log_e)| (metric.name().to_owned(), known(log_e))).collect(),
            guard: known(report.guard_log_e),
            clean: known(report.clean_log_e),
            suspect_at: report.needed.suspect,
            reverts_at: report.needed.breach,
            healthy_at: report.needed.healthy,
        }
    }
}

impl Difference {
    fn of(report: &Report) -> Self {
        let Tolerance { rho, delta } = report.tolerance();
        Self {
            metric: report.metric.name().to_owned(),
            estimate: report.excess,
            low: report.interval.low,
            high: report.interval.high,
            confidence: CONFIDENCE,
            tolerated: Tolerated { times: rho, plus: delta },
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

fn name(why: Why) -> String {
    why.name().to_owned()
}

/// Basis points of a share.
fn points(share: f64) -> u16 {
    u16::try_from(whole(share.clamp(0.0, 1.0) * 1e4)).unwrap_or(u16::MAX)
}

/// To the nearest whole number; not below 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::Timestamp;
    use crate::release::verdict::{
        About, EndpointCounts, Group, LatencyHist, Settings, Standing, Supervisor,
    };

    fn verdict(stage: &Supervisor) -> serde_json::Value {
        let none = LatencyHist::default();
        let about = About {
            baseline: &"blue".parse().unwrap(),
            candidate: &"green".parse().unwrap(),
            began: Timestamp(1_767_323_045_000),
            acts: true,
            took: [&none, &none],
            slow_from: None,
            endpoints: vec![("10.0.0.7:80".parse().unwrap(), EndpointCounts { decided: 6, bad: 6 })],
            kinds: vec![("5xx", 6), ("timeout", 0)],
            user_failures: Some(6),
            clients: None,
        };
        let verdict = Verdict::from(&Report::of(stage, about));
        let json = serde_json::to_value(&verdict).unwrap();
        // A client reads what the server wrote.
        assert_eq!(serde_json::from_value::<Verdict>(json.clone()).unwrap(), verdict);
        json
    }

    #[test]
    fn a_breach_has_all_its_figures_on_the_wire() {
        let mut stage = Supervisor::new(0.05, 0.004, Settings::default());
        let group = Group {
            w: 0.05,
            decided: [19, 1],
            bad: [0, 1],
            guard_bad: 1,
            guard_decided: 1,
            client_errors: [2, 0],
            measured: [18, 1],
            slow: [[3, 2, 1], [1, 0, 0]],
            ..Group::default()
        };
        let ticks = (1..100).find(|_| stage.tick(0.01, &[group], None, 19) == Standing::Breached).unwrap();
        let json = verdict(&stage);
        assert_eq!((&json["state"], &json["why"]), (&"breached".into(), &"error_rate".into()));
        assert_eq!((&json["target"], &json["weight"]), (&500.into(), &0.into()));
        assert_eq!(json["began"], "2026-01-02T03:04:05.000Z");
        assert_eq!(json["since"], format!("2026-01-02T03:04:05.{:03}Z", ticks * 10));
        let (baseline, candidate) = (&json["baseline"], &json["candidate"]);
        assert_eq!((&baseline["version"], &candidate["version"]), (&"blue".into(), &"green".into()));
        assert_eq!((&baseline["requests"], &candidate["requests"]), (&(19 * ticks).into(), &ticks.into()));
        assert_eq!((&baseline["failed"], &candidate["failed"]), (&0.into(), &ticks.into()));
        assert_eq!(
            (&baseline["client_errors"], &baseline["measured"]),
            (&(2 * ticks).into(), &(18 * ticks).into())
        );
        assert_eq!(baseline["slow"], serde_json::json!({"p75": 3 * ticks, "p95": 2 * ticks, "p99": ticks}));
        assert_eq!((&baseline["overdue"], candidate.get("overdue")), (&0.into(), None));
        assert_eq!((baseline.get("seconds"), baseline.get("slow_from_seconds")), (None, None));
        let (evidence, difference) = (&json["evidence"], &json["difference"]);
        assert!(evidence["log_e"].as_f64() >= evidence["reverts_at"].as_f64(), "{evidence}");
        assert_eq!(evidence["by_metric"].as_object().unwrap().len(), 5);
        assert_eq!((&difference["metric"], &difference["estimate"]), (&"error_rate".into(), &1.0.into()));
        assert_eq!(difference["tolerated"], serde_json::json!({"times": 1.5, "plus": 0.002}));
        assert_eq!((&json["suspicions"], &json["suspicion"]["why"]), (&1.into(), &"guard_errors".into()));
        assert_eq!(json["failures"], serde_json::json!({"5xx": 6}));
        let endpoint = serde_json::json!([{"address": "10.0.0.7:80", "requests": 6, "failed": 6}]);
        assert_eq!((&json["endpoints"], &json["user_failures"]), (&endpoint, &6.into()));
    }

    #[test]
    fn no_evidence_is_null_and_not_a_number() {
        let json = verdict(&Supervisor::new(1.0, 0.004, Settings::default()));
        assert_eq!(json["evidence"]["log_e"], serde_json::Value::Null);
        assert_eq!(json["evidence"]["by_metric"]["latency_p99"], serde_json::Value::Null);
        assert_eq!((json.get("needed_failures"), json["difference"].get("estimate")), (None, None));
    }
}
