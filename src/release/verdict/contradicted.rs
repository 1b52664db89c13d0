//! What a conviction does not rest on: that a candidate is slower which in all of its stage is not.

use super::standing::Metric;
use super::{Segment, Supervisor, combine, excess_estimate, is_coin};

impl Supervisor {
    /// The evidence without that of speed where the candidate is not the slower one in all, and the metric with the largest part in it.
    ///
    /// A process that stands still for a moment makes all slow that are with it then: they are no independent coins, and bets that
    /// began just before pay on each other's pauses. Over a stage such pauses even out. It is never more than all of the evidence.
    pub(super) fn uncontradicted(&self) -> (f64, Metric) {
        let is_contradicted = |metric| {
            let is_speed = matches!(metric, Metric::LatencyP75 | Metric::LatencyP95 | Metric::LatencyP99);
            is_speed && self.excess(metric).is_some_and(|excess| excess <= 0.0)
        };
        let of = Metric::ALL
            .map(|metric| if is_contradicted(metric) { f64::NEG_INFINITY } else { self.log_e_of(metric) });
        let (total, leading) = combine(&self.settings.omega, &of);
        (total, Metric::ALL[leading])
    }

    /// By how much the candidate is worse by this metric, with those that are out and known to be bad.
    fn excess(&self, metric: Metric) -> Option<f64> {
        let (w, bad) = (self.stalled.w, self.out_of(metric));
        let mut segments: Vec<_> = self.totals.segments(metric).collect();
        match segments.iter_mut().find(|segment| segment.w == w) {
            Some(Segment { decided, bad: known, .. }) => {
                for (side, more) in bad.into_iter().enumerate() {
                    (decided[side], known[side]) = (decided[side] + more, known[side] + more);
                }
            }
            None if is_coin(w) => segments.push(Segment { w, decided: bad, bad }),
            None => {}
        }
        excess_estimate(&segments)
    }
}
