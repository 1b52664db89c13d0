//! Times to the first byte as counts: a histogram, what counts as slow, and which answers are overdue.
//!
//! 16 buckets an octave from 64 µs to 134 s, so a bucket is at most 6.25 % wide; found by shift and mask.

pub use crate::table::latency::{BUCKETS, bucket as bucket_index, floor as bucket_low};

/// The quantiles at which versions are compared.
pub const QUANTILES: [f64; 3] = [0.75, 0.95, 0.99];
/// With fewer answers of the baseline nothing is called slow.
pub(super) const LEAST_SAMPLES: u64 = 200;

/// How many answers took how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyHist(pub [u64; BUCKETS]);

impl Default for LatencyHist {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl FromIterator<u64> for LatencyHist {
    /// From the counts of its buckets; what is missing is 0.
    fn from_iter<I: IntoIterator<Item = u64>>(counts: I) -> Self {
        let mut histogram = Self::default();
        histogram.0.iter_mut().zip(counts).for_each(|(bucket, count)| *bucket = count);
        histogram
    }
}

impl LatencyHist {
    /// One more answer, after so many microseconds.
    pub fn record(&mut self, micros: u64) {
        self.0[bucket_index(micros)] += 1;
    }

    /// Counts those of `other` too.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }

    /// How many answers there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The first edge of a bucket, in microseconds, below which at least this share of the answers is; `None` without answers.
    /// At most 6.25 % above the quantile, up to 134 s.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<u64> {
        (self.count() > 0).then(|| bucket_low(self.edge(share)))
    }

    /// The first bucket whose lower edge is at or above the quantile.
    fn edge(&self, share: f64) -> usize {
        let needed = share * self.count() as f64;
        let mut below = 0;
        let reached = self.0[..BUCKETS - 1].iter().position(|count| {
            below += count;
            below as f64 >= needed
        });
        reached.map_or(BUCKETS - 1, |bucket| bucket + 1)
    }
}

/// How much slower than the baseline the candidate may be at a quantile: what is larger of the two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyTolerance {
    /// As a share of the baseline's time.
    pub share: f64,
    /// In microseconds.
    pub least: u64,
}

impl Default for LatencyTolerance {
    fn default() -> Self {
        Self { share: 0.25, least: 5000 }
    }
}

/// The buckets from which on an answer is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencyThreshold {
    /// Of the baseline.
    pub baseline: usize,
    /// Of the candidate.
    pub candidate: usize,
}

/// What counts as slow at each of [`QUANTILES`], by what the baseline did in the past; `None` with too little of that.
#[must_use]
pub fn latency_thresholds(
    baseline: &LatencyHist,
    tolerance: LatencyTolerance,
) -> Option<[LatencyThreshold; 3]> {
    (baseline.count() >= LEAST_SAMPLES).then(|| {
        QUANTILES.map(|quantile| {
            let edge = baseline.edge(quantile);
            let low = bucket_low(edge);
            let wanted = ((1.0 + tolerance.share) * low as f64).max((low + tolerance.least) as f64);
            let candidate = (edge..BUCKETS - 1).find(|bucket| bucket_low(*bucket) as f64 >= wanted);
            LatencyThreshold { baseline: edge, candidate: candidate.unwrap_or(BUCKETS - 1) }
        })
    })
}

/// First attempts on the baseline that started at about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cohort {
    /// How many started.
    pub started: u64,
    /// How many of them were answered.
    pub finished: u64,
    /// Their age in microseconds, from the middle of the time in which they started.
    pub age: u64,
}

/// How many answers of the baseline are overdue, by what its `history` says of its answers.
///
/// They are presumed to be bad before a candidate is reverted: where a fault of both makes one fail fast and the other hang,
/// only one of them has failures for a while.
#[must_use]
pub fn missing_answers(history: &LatencyHist, cohorts: &[Cohort]) -> u64 {
    let total = history.count();
    if total == 0 {
        return 0;
    }
    let mut faster = [0; BUCKETS];
    for bucket in 1..BUCKETS {
        faster[bucket] = faster[bucket - 1] + history.0[bucket - 1];
    }
    let due =
        |cohort: &Cohort| cohort.started as f64 * (faster[bucket_index(cohort.age)] as f64 / total as f64);
    let expected: f64 = cohorts.iter().map(due).sum();
    let seen: u64 = cohorts.iter().map(|cohort| cohort.finished).sum();
    // A float's cast saturates: below 0 it is 0.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, and casts saturate")]
    let missing = (expected - seen as f64 - 1e-9).ceil() as u64;
    missing
}
