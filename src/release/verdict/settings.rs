//! What supervision tolerates, how sure it wants to be, and how it moves.

use super::estats::Tolerance;
use super::standing::Metric;

/// The settings of one stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// False reverts a stage of an hour: it reverts when the evidence reaches 1/alpha.
    pub alpha: f64,
    /// False suspicions a stage.
    pub alpha_suspect: f64,
    /// How unsure `healthy` may be.
    pub alpha_clean: f64,
    /// The candidate's share while it is suspect, 0 to 1; it never gets more than it had.
    pub suspect_weight: f64,
    /// A suspicion lasts at least so many seconds,
    pub suspect_hold: f64,
    /// and each further one so many times as long,
    pub suspect_hold_factor: f64,
    /// and until the candidate has answered so often.
    pub suspect_min_b: u64,
    /// After so many suspicions without a proof it is left to the operator.
    pub max_suspects: u32,
    /// Before a revert the baseline must have answered so many requests well that started during the suspicion.
    pub live_min: u64,
    /// Of errors.
    pub errors: Tolerance,
    /// Of client errors.
    pub client_errors: Tolerance,
    /// How much each metric weighs, in the order of [`Metric::ALL`]. The sum is 1.
    pub omega: [f64; 5],
    /// How much each guard weighs: errors, and the three of latency. The sum is 1.
    pub guard_omega: [f64; 4],
    /// So many requests a second count at most where slow ones raise suspicion, and one at once; `None`: all of them.
    pub guard_pace: Option<f64>,
    /// False: a candidate that has everything keeps it when it is suspect, and its guard alone reverts it, at 1/alpha. Then a
    /// fault that would have hit both versions reverts too.
    pub leans_back: bool,
    /// When the candidate has given so many bad answers more than tolerated, evidence of 20 is enough; 0: never.
    pub bad_budget: u64,
    /// True: the coin may be a client's, and not a request's. Then what is still out tells nothing: it may all be one client's.
    pub by_client: bool,
}

impl Settings {
    /// What of the candidate is tolerated by this metric.
    #[must_use]
    pub fn tolerance(&self, metric: Metric) -> Tolerance {
        match metric {
            Metric::ErrorRate => self.errors,
            Metric::ClientErrorShare => self.client_errors,
            // The thresholds of slow have it in them.
            Metric::LatencyP75 | Metric::LatencyP95 | Metric::LatencyP99 => {
                Tolerance { rho: 1.0, delta: 0.0 }
            }
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            alpha: 1e-4,
            alpha_suspect: 1e-2,
            alpha_clean: 0.05,
            suspect_weight: 0.1,
            suspect_hold: 30.0,
            suspect_hold_factor: 4.0,
            suspect_min_b: 50,
            max_suspects: 4,
            live_min: 3,
            errors: Tolerance { rho: 1.5, delta: 0.002 },
            client_errors: Tolerance { rho: 1.5, delta: 0.02 },
            omega: [0.6, 0.1, 0.1, 0.1, 0.1],
            guard_omega: [0.7, 0.1, 0.1, 0.1],
            guard_pace: None,
            leans_back: true,
            bad_budget: 0,
            by_client: false,
        }
    }
}
