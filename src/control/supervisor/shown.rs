//! How a trial stands, for the metrics.
//!
//! An interval costs thousands of logarithms, and there may be a thousand trials: nobody who scrapes waits for all of them, and
//! neither do trials.

use crate::metrics::supervision::Stands;
use crate::release::verdict::{CONFIDENCE, Metric, Segment, Supervisor, excess_estimate, excess_interval};

/// So many intervals are made anew while somebody waits. The others are made by and by, for who comes next.
pub(super) const AT_ONCE: usize = 4;

/// The difference between two versions as it was shown last.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The scrape that it was made for.
    scrape: u64,
    /// What it was made of.
    segments: Vec<Segment>,
    /// Not below, estimated, not above.
    excess: Option<[f64; 3]>,
}

impl Shown {
    /// The scrape that it was made for; 0: none.
    pub(super) fn scrape(&self) -> u64 {
        self.scrape
    }

    /// Makes it anew, unless nothing has come to it.
    pub(super) fn make(&mut self, stage: &Supervisor, scrape: u64) {
        self.scrape = scrape;
        let segments: Vec<Segment> = stage.totals().segments(Metric::ErrorRate).collect();
        if segments != self.segments {
            self.excess = excess_estimate(&segments).map(|estimate| {
                let interval = excess_interval(&segments, CONFIDENCE);
                [interval.low, estimate, interval.high]
            });
            self.segments = segments;
        }
    }

    /// How the trial stands, with the difference as it was last made.
    pub(super) fn stands(&self, stage: &Supervisor, is_hindered: bool) -> Stands {
        let metrics = Metric::ALL.into_iter().map(|metric| (metric.name(), stage.log_e_of(metric)));
        Stands {
            state: stage.standing().name(),
            log_e: metrics.chain([("total", stage.log_e())]).collect(),
            excess: self.excess,
            common_mode: stage.has_common_mode(),
            is_hindered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::verdict::{Group, Settings};

    fn stage() -> Supervisor {
        Supervisor::new(0.5, 0.01, Settings::default())
    }

    fn count(stage: &mut Supervisor, bad: u64) {
        let group = Group { w: 0.5, decided: [500, 500], bad: [0, bad], ..Group::default() };
        stage.tick(0.01, &[group], None, 0);
    }

    #[test]
    fn a_difference_is_as_old_as_the_scrape_that_it_was_made_for() {
        let (mut stage, mut shown) = (stage(), Shown::default());
        assert_eq!((shown.scrape(), shown.stands(&stage, false).excess), (0, None), "nothing was shown yet");
        count(&mut stage, 50);
        shown.make(&stage, 1);
        let [low, estimate, high] = shown.stands(&stage, false).excess.unwrap();
        assert!(
            low <= estimate && estimate <= high && (estimate - 0.1).abs() < 1e-9,
            "{low} {estimate} {high}"
        );
        assert_eq!(shown.scrape(), 1);
        count(&mut stage, 150);
        let old = shown.stands(&stage, false);
        assert_eq!(old.excess, Some([low, estimate, high]));
        // Evidence is always the newest.
        assert_eq!(old.log_e.last().unwrap().1.to_bits(), stage.log_e().to_bits());
        shown.make(&stage, 2);
        let [_, estimate, _] = shown.stands(&stage, false).excess.unwrap();
        assert!((estimate - 0.2).abs() < 1e-9, "{estimate}");
    }
}
