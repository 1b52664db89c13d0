//! How fast an endpoint answers: a moving average that follows every peak at once and forgets it slowly (peak EWMA, as in
//! Finagle and linkerd).

use std::cell::{Cell, OnceCell};
use std::time::{Duration, Instant};

/// What a failure counts as at least: one that fails fast must not look fast.
const FAILURE: Duration = Duration::from_secs(1);

/// One worker's measurements of one endpoint.
#[derive(Debug, Default)]
pub struct Pace {
    /// In seconds; 0: nothing is measured.
    decay: Cell<f64>,
    /// Elsewhere: most are never measured.
    last: OnceCell<Box<Cell<Last>>>,
}

/// The last state, if there is one: seconds, and when that was.
type Last = Option<(f64, Instant)>;

impl Pace {
    /// Measures from now on with this decay; `None`: not at all.
    pub fn measure(&self, decay: Option<Duration>) {
        self.decay.set(decay.map_or(0.0, |decay| decay.as_secs_f64()));
        if let Some(last) = self.last.get().filter(|_| decay.is_none()) {
            last.set(None);
        }
    }

    /// True when it wants to know how long answers take.
    #[must_use]
    pub fn is_measured(&self) -> bool {
        self.decay.get() > 0.0
    }

    /// A request that was sent at `since` was answered, at `now`; or failed, by the endpoint's doing.
    pub fn observe(&self, since: Instant, now: Instant, has_failed: bool) {
        if !self.is_measured() {
            return;
        }
        let took = now.saturating_duration_since(since);
        let took = if has_failed { took.max(FAILURE) } else { took }.as_secs_f64();
        let known = self.decayed(now).map_or(took, |(before, part)| {
            if took > before { took } else { before * part + took * (1.0 - part) }
        });
        self.last.get_or_init(Box::default).set(Some((known, now)));
    }

    /// A request that was sent at `since` was given up at `now`, before it was answered: an answer would have taken longer.
    pub fn outlast(&self, since: Instant, now: Instant) {
        let lasted = now.saturating_duration_since(since).as_secs_f64();
        if self.is_measured() && self.decayed(now).is_none_or(|(before, part)| lasted > before * part) {
            self.last.get_or_init(Box::default).set(Some((lasted, now)));
        }
    }

    /// How long one more would take with so many before it: in no unit, to be compared.
    pub(super) fn cost(&self, in_flight: u32, now: Instant) -> f64 {
        match self.decayed(now) {
            // What is not seen for long is worth another look.
            Some((seconds, part)) => seconds * part * (f64::from(in_flight) + 1.0),
            // Never answered: one is sent there, and until that one is back nobody else.
            None => FAILURE.as_secs_f64() * f64::from(in_flight),
        }
    }

    fn last(&self) -> Last {
        self.last.get().and_then(|last| last.get())
    }

    /// What was measured last, and how much of it counts now.
    fn decayed(&self, now: Instant) -> Option<(f64, f64)> {
        let (seconds, at) = self.last()?;
        let age = now.saturating_duration_since(at).as_secs_f64();
        Some((seconds, (-age / self.decay.get()).exp()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::clock;

    const DECAY: Duration = Duration::from_secs(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_peak_counts_at_once_and_is_forgotten_slowly() {
        let (pace, start) = (Pace::default(), clock::now());
        pace.measure(Some(DECAY));
        let cost = |pace: &Pace, at| pace.cost(0, start + at);
        pace.observe(start, start + ms(10), false);
        assert!((cost(&pace, ms(10)) - 0.010).abs() < 1e-9);
        pace.observe(start, start + ms(500), false);
        assert!((cost(&pace, ms(500)) - 0.5).abs() < 1e-9, "the peak");
        pace.observe(start + ms(500), start + ms(510), false);
        assert!(cost(&pace, ms(510)) > 0.49, "one fast answer does not make good for it");
        let later = ms(510) + DECAY;
        assert!((cost(&pace, later) / cost(&pace, ms(510)) - (-1f64).exp()).abs() < 1e-9);
    }

    #[test]
    fn more_in_flight_costs_more_and_who_is_unknown_is_tried_once() {
        let (pace, now) = (Pace::default(), clock::now());
        pace.measure(Some(DECAY));
        assert!(pace.cost(0, now) <= 0.0 && pace.cost(1, now) >= 1.0);
        pace.observe(now, now + ms(10), false);
        assert!((pace.cost(3, now + ms(10)) - 0.040).abs() < 1e-9);
    }

    #[test]
    fn who_is_given_up_is_slower_than_that_and_never_faster() {
        let (pace, start) = (Pace::default(), clock::now());
        pace.outlast(start, start + ms(100));
        pace.measure(Some(DECAY));
        assert!(pace.last().is_none(), "nobody asks");
        pace.outlast(start, start + ms(100));
        assert!((pace.cost(0, start + ms(100)) - 0.1).abs() < 1e-9);
        pace.outlast(start + ms(90), start + ms(100));
        assert!((pace.cost(0, start + ms(100)) - 0.1).abs() < 1e-9, "a short one says nothing");
        pace.outlast(start, start + ms(300));
        assert!((pace.cost(0, start + ms(300)) - 0.3).abs() < 1e-9);
    }

    #[test]
    fn a_fast_failure_is_slow() {
        let (pace, now) = (Pace::default(), clock::now());
        pace.measure(Some(DECAY));
        pace.observe(now, now + ms(1), true);
        assert!(pace.cost(0, now + ms(1)) >= 1.0);
    }

    #[test]
    fn nothing_is_kept_where_nobody_asks() {
        let (pace, now) = (Pace::default(), clock::now());
        pace.observe(now, now + ms(10), false);
        pace.measure(Some(DECAY));
        assert!(pace.last().is_none());
        pace.observe(now, now + ms(10), false);
        pace.measure(None);
        pace.measure(Some(DECAY));
        assert!(pace.last().is_none(), "of another time");
    }
}
