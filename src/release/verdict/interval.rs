//! By how much the candidate is worse, for people: an estimate, and an interval that holds whenever it is looked at.

use super::estats::{Capital, Counts, Stakes, Tolerance, is_coin};

/// What was decided under one weight.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Segment {
    /// The probability with which the coin chose the candidate.
    pub w: f64,
    /// How many were decided: of the baseline, of the candidate.
    pub decided: [u64; 2],
    /// How many of them were bad, or slow, or whatever is looked at.
    pub bad: [u64; 2],
}

/// Where the candidate's share less the baseline's is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Not below; -1 when nothing is known.
    pub low: f64,
    /// Not above; 1 when nothing is known.
    pub high: f64,
}

/// So often each end is bisected, to 10^-18.
const BISECTIONS: usize = 60;
/// The ends themselves are not tried: a difference of 1 leaves nothing to bet.
const MARGIN: f64 = 1e-9;

impl Interval {
    const WIDEST: Self = Self { low: -1.0, high: 1.0 };
}

/// The interval of the difference that holds at all times with this confidence (0.95), from a stage's sums: all differences that
/// the bets do not refute. Says `-1 .. 1` without a coin.
///
/// Costs some 10,000 logarithms a segment: it is for when somebody asks.
#[must_use]
pub fn excess_interval(segments: &[Segment], confidence: f64) -> Interval {
    let refuted = (2.0 / (1.0 - confidence)).ln();
    let is_more = |d: f64| log_e(segments, d, Stakes::that_it_is_worse) >= refuted;
    let is_less = |d: f64| log_e(segments, d, Stakes::that_it_is_no_worse) >= refuted;
    let Interval { low, high } = Interval::WIDEST;
    let (least, most) = (low + MARGIN, high - MARGIN);
    Interval {
        low: if is_more(least) { edge(least, most, is_more) } else { low },
        high: if is_less(most) { edge(most, least, is_less) } else { high },
    }
}

/// The evidence against a difference of at most `d`, or at least `d`.
fn log_e(segments: &[Segment], d: f64, stakes: fn(f64, Tolerance) -> Stakes) -> f64 {
    let tolerance = Tolerance { rho: 1.0, delta: d };
    let coins = segments.iter().filter(|segment| is_coin(segment.w));
    let capital = coins.fold(Capital::whole(), |capital, segment| {
        let counts = Counts { decided: segment.decided[0] + segment.decided[1], bad: segment.bad };
        capital.with(&stakes(segment.w, tolerance), counts)
    });
    capital.log_e()
}

/// The last difference on the way from `refuted` to `kept` that is refuted.
fn edge(mut refuted: f64, mut kept: f64, is_refuted: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (refuted + kept);
        if is_refuted(middle) {
            refuted = middle;
        } else {
            kept = middle;
        }
    }
    refuted
}

/// The difference as the coins show it: each segment's own, weighted by what it says (Mantel and Haenszel). `None` before both
/// versions have decided something under one coin.
///
/// What the candidate did while it had everything is not compared with what the baseline did at other times.
#[must_use]
pub fn excess_estimate(segments: &[Segment]) -> Option<f64> {
    let (mut sum, mut weight) = (0.0, 0.0);
    for Segment { decided, bad, .. } in segments {
        let [a, b] = decided.map(|count| count as f64);
        let [bad_a, bad_b] = bad.map(|count| count as f64);
        if a + b > 0.0 {
            sum += (bad_b * a - bad_a * b) / (a + b);
            weight += a * b / (a + b);
        }
    }
    (weight > 0.0).then(|| sum / weight)
}
