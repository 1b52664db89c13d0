//! How much evidence a revert needs: less once the candidate has spent its budget of failures (supervision.md §5).

use super::{BUDGET_EVIDENCE, Metric, Settings, Supervisor, Tolerance};

impl Supervisor {
    /// The evidence that a revert needs, as a logarithm.
    pub(super) fn needed(&self) -> f64 {
        let needed = -self.settings.alpha.ln();
        if self.is_budget_spent() { needed.min(BUDGET_EVIDENCE.ln()) } else { needed }
    }

    /// Without a baseline the tolerated share is no number, and no number of failures is too much.
    fn is_budget_spent(&self) -> bool {
        let Settings { bad_budget, errors: Tolerance { rho, delta }, .. } = self.settings;
        if bad_budget == 0 {
            return false;
        }
        let [decided, bad] = self.totals.sum().compared(Metric::ErrorRate);
        let tolerated = rho * bad[0] as f64 / decided[0] as f64 + delta;
        bad[1] as f64 - decided[1] as f64 * tolerated >= bad_budget as f64
    }
}
