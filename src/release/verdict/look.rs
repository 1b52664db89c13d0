//! What can be asked of a stage.

use super::standing::{Metric, Standing, Why};
use super::{COMMON_LEAST, Group, Stalled, Supervisor, Suspicion, Totals};
use super::{Settings, combine, fuse_len, is_coin};

/// More bad answers than this are not looked for.
const MOST_NEEDED: u64 = 1 << 20;

impl Supervisor {
    /// What is thought of the candidate.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The share that the candidate shall have now, 0 to 1.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// The share that it has when nothing is wrong.
    #[must_use]
    pub fn target(&self) -> f64 {
        self.target
    }

    /// Why it is suspect, held or breached; `None` when it is not.
    #[must_use]
    pub fn why(&self) -> Option<Why> {
        self.why
    }

    /// How often it became suspect.
    #[must_use]
    pub fn suspects(&self) -> u32 {
        self.suspects
    }

    /// How the last suspicion began, also when it is over.
    #[must_use]
    pub fn suspicion(&self) -> Option<&Suspicion> {
        self.suspicion.as_ref()
    }

    /// The evidence of all metrics, as a logarithm, as of the last tick; minus infinity before the first.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        self.evidence.total
    }

    /// The evidence of one metric, the same way.
    #[must_use]
    pub fn log_e_of(&self, metric: Metric) -> f64 {
        self.evidence.of[metric as usize]
    }

    /// The evidence that it is within tolerance, as a logarithm.
    #[must_use]
    pub fn clean_log_e(&self) -> f64 {
        self.clean.log_e()
    }

    /// The guards' evidence, as a logarithm; it stands still during a suspicion that has a coin.
    #[must_use]
    pub fn guard_log_e(&self) -> f64 {
        self.evidence.guard
    }

    /// The share of failures that the guard tolerates.
    #[must_use]
    pub fn guard_bound(&self) -> f64 {
        self.p0
    }

    /// So many bad answers in a row make it suspect.
    #[must_use]
    pub fn fuse_len(&self) -> u32 {
        fuse_len(self.p0)
    }

    /// What it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The evidence that a revert needs now, as a logarithm.
    #[must_use]
    pub fn needed_log_e(&self) -> f64 {
        self.needed()
    }

    /// How many more failures of the candidate alone would prove it worse, when the baseline has none; a whole number. `None` without
    /// a coin, and when no number of them would.
    #[must_use]
    pub fn needed_failures(&self) -> Option<f64> {
        if !is_coin(self.weight) || self.has_few_clients {
            return None;
        }
        let is_enough = |failures: u64| {
            let mut of = self.evidence.of;
            let [baseline, _] = self.stalled.bad_of(Metric::ErrorRate);
            of[0] = self.pairs[0].log_e_with(self.weight, [baseline, failures]);
            combine(&self.settings.omega, &of).0 >= self.needed()
        };
        let mut enough = 1;
        while enough < MOST_NEEDED && !is_enough(enough) {
            enough *= 2;
        }
        let (mut less, mut more) = (0, enough);
        while less < more {
            let middle = less.midpoint(more);
            if is_enough(middle) {
                more = middle;
            } else {
                less = middle + 1;
            }
        }
        is_enough(more).then_some(more as f64)
    }

    /// True when the baseline, too, fails during this suspicion more often than the guard tolerates: then it is not the candidate. Its
    /// overdue answers count as failures.
    #[must_use]
    pub fn has_common_mode(&self) -> bool {
        let is_suspect = matches!(self.standing, Standing::Suspect | Standing::Held);
        let Some(suspicion) = self.suspicion.filter(|_| is_suspect) else { return false };
        let [decided, bad] = suspicion.baseline.map(|count| count + self.stalled.missing);
        bad >= COMMON_LEAST && bad as f64 > self.p0 * decided as f64
    }

    /// What the stage has counted, since it began or an endpoint was ejected.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// All weights together.
    #[must_use]
    pub fn counts(&self) -> Group {
        self.totals.sum()
    }

    /// Failures of the candidate that are in the sums no more, because they were an ejected endpoint's.
    #[must_use]
    pub fn ejected_failures(&self) -> u64 {
        self.ejected_bad
    }

    /// What was out and bad at the last tick.
    #[must_use]
    pub fn stalled(&self) -> &Stalled {
        &self.stalled
    }

    /// How many seconds after the stage's beginning it came to stand where it stands.
    #[must_use]
    pub fn turned(&self) -> f64 {
        self.turned
    }

    /// Seconds since the stage began, by its ticks; it stands still after a breach.
    #[must_use]
    pub fn elapsed(&self) -> f64 {
        self.elapsed
    }
}
