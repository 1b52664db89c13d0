//! The judge: from the clients' history alone, did the switch keep its promises?

use std::time::Duration;

use tokio::time::Instant;

use super::log::{Sample, Seen};

/// A change of the split, as the operator knows of it.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// From here on it may be in force.
    pub(super) asked: Instant,
    /// From here on it is in force for every request that begins.
    pub(super) acknowledged: Instant,
    /// The versions that have weight under it.
    pub(super) carriers: &'static [&'static str],
}

impl Change {
    /// How long the acknowledgement took.
    pub(super) fn took(&self) -> Duration {
        self.acknowledged.duration_since(self.asked)
    }
}

/// What the history says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Verdict {
    /// Requests sent; each has ended one way or the other.
    pub(super) sent: usize,
    /// Requests that failed for a client, and were not the faulty version's own errors: the reasons.
    pub(super) failed: Vec<String>,
    /// Errors of the faulty version's own.
    pub(super) own_errors: usize,
    /// Requests that began after some change was acknowledged.
    pub(super) after: usize,
    /// Requests answered by a version that no split gave them: not one acknowledged before they began,
    /// nor any later one asked for before they ended.
    pub(super) strays: usize,
    /// The longest that a request took.
    pub(super) slowest: Duration,
}

impl Verdict {
    /// Every promise was kept, and there was something to keep it on.
    pub(super) fn holds(&self) -> bool {
        self.sent > 0 && self.after > 0 && self.failed.is_empty() && self.strays == 0
    }
}

/// Judges `samples`; `changes` in their order, the first one being the split before all traffic. `faulty` may err.
pub(super) fn judge(samples: &[Sample], changes: &[Change], faulty: &str) -> Verdict {
    let first = changes.get(1).map(|change| change.acknowledged);
    let mut verdict = Verdict { sent: samples.len(), ..Verdict::default() };
    for sample in samples {
        verdict.slowest = verdict.slowest.max(sample.ended.duration_since(sample.began));
        verdict.after += usize::from(first.is_some_and(|first| sample.began > first));
        match &sample.seen {
            Seen::Failed(why) => verdict.failed.push(why.clone()),
            Seen::Answer { status: 200, .. } => {}
            Seen::Answer { version, status: 500.. } if *version == faulty => verdict.own_errors += 1,
            Seen::Answer { version, status } => verdict.failed.push(format!("{version} answered {status}")),
        }
        let is_stray = |version| !permitted(sample, changes).any(|change| change.carriers.contains(&version));
        verdict.strays += usize::from(sample.version().is_some_and(is_stray));
    }
    verdict
}

/// The splits that a request may have been admitted under: what was asked for before it ended, and was not yet
/// known to be replaced when it began.
fn permitted<'c>(sample: &Sample, changes: &'c [Change]) -> impl Iterator<Item = &'c Change> {
    let next = changes.iter().skip(1).map(Some).chain([None]);
    let (began, ended) = (sample.began, sample.ended);
    changes.iter().zip(next).filter_map(move |(change, next)| {
        let is_over = next.is_some_and(|next| next.acknowledged < began);
        (change.asked <= ended && !is_over).then_some(change)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_millis(ms)
    }

    fn sample(began: u64, ended: u64, version: &'static str, status: u16) -> Sample {
        Sample { began: at(began), ended: at(ended), seen: Seen::Answer { version, status } }
    }

    /// Blue, then from 100 (acknowledged at 110) green alone.
    fn flip() -> Vec<Change> {
        let change = |asked, acknowledged, carriers| Change {
            asked: at(asked),
            acknowledged: at(acknowledged),
            carriers,
        };
        vec![change(0, 0, &["blue"]), change(100, 110, &["green"])]
    }

    fn strays(samples: &[Sample]) -> usize {
        judge(samples, &flip(), "v3").strays
    }

    #[test]
    fn the_old_version_after_the_acknowledgement_is_a_stray() {
        assert_eq!(strays(&[sample(111, 115, "blue", 200)]), 1);
        assert_eq!(strays(&[sample(105, 115, "blue", 200)]), 0, "it began before");
        assert_eq!(strays(&[sample(90, 300, "blue", 200)]), 0, "however long it took");
    }

    #[test]
    fn the_new_version_before_anybody_asked_for_it_is_a_stray() {
        assert_eq!(strays(&[sample(80, 99, "green", 200)]), 1);
        assert_eq!(strays(&[sample(80, 101, "green", 200)]), 0);
        assert_eq!(strays(&[sample(200, 201, "v3", 200)]), 1, "as is one that never carried anything");
    }

    #[test]
    fn only_the_faulty_version_may_err() {
        let failed = |sample| judge(&[sample], &flip(), "v3").failed.len();
        assert_eq!(failed(sample(1, 2, "blue", 500)), 1);
        assert_eq!(failed(sample(1, 2, "v3", 500)), 0);
        assert_eq!(failed(sample(1, 2, "v3", 404)), 1);
        assert_eq!(failed(Sample { seen: Seen::Failed("cut".into()), ..sample(1, 2, "blue", 0) }), 1);
    }

    #[test]
    fn no_traffic_proves_nothing() {
        assert!(!judge(&[], &flip(), "v3").holds());
        assert!(judge(&[sample(120, 125, "green", 200)], &flip(), "v3").holds());
        assert!(!judge(&[sample(50, 55, "blue", 200)], &flip(), "v3").holds(), "nothing came after the flip");
    }
}
