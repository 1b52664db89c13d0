//! Where the coin is a client's and not a request's: what few clients do, and what may all be one's, decides nothing.

use super::standing::Metric;
use super::{Supervisor, is_coin};

/// So many clients are enough to compare versions by, where the coin is the client's: by 50 nothing can be told, by 1,000 it can.
pub const ENOUGH_CLIENTS: u64 = 300;

impl Supervisor {
    /// So many clients have come. As long as they are fewer than [`ENOUGH_CLIENTS`] the comparison decides nothing, and only
    /// what the baseline did before raises suspicion.
    pub fn has_clients(&mut self, clients: u64) {
        self.has_few_clients = clients < ENOUGH_CLIENTS;
    }

    /// True while too few clients have come to compare versions by, and there is a coin to compare them by.
    #[must_use]
    pub fn has_few_clients(&self) -> bool {
        self.has_few_clients && is_coin(self.weight)
    }

    /// What is out and counts as bad for this metric.
    pub(super) fn out_of(&self, metric: Metric) -> [u64; 2] {
        let [baseline, candidate] = self.stalled.bad_of(metric);
        [baseline, if self.settings.by_client { 0 } else { candidate }]
    }

    /// What of the candidate is out and slow for its guards, by each quantile.
    pub(super) fn out_of_guards(&self) -> [f64; 3] {
        // Where a coin decides the comparison knows of them, and is the better judge.
        let is_compared = is_coin(self.stalled.w) && !self.settings.by_client;
        if is_compared { [0.0; 3] } else { self.stalled.suspicious }
    }

    /// The evidence of all metrics, as far as it decides anything.
    pub(super) fn decisive(&self) -> f64 {
        if self.has_few_clients { f64::NEG_INFINITY } else { self.evidence.total }
    }
}
