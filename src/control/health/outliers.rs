//! Which endpoints differ from the others of their pool: by how many of their requests fail, and by how long they take.
//!
//! Pure: sums of one interval in, indices out.

use crate::proxy::upstream::suspicion::Sums;
use crate::table::Deviation;

/// Those whose share of good answers is below the mean by `factor` standard deviations (as Envoy has it).
pub(super) fn by_success_rate(pool: &[Sums], rules: Deviation) -> Vec<usize> {
    let rate = |sums: &Sums| ratio(sums.good, sums.good + sums.bad);
    let known: Vec<_> =
        enough(pool, rules, |sums| sums.good + sums.bad).map(|(at, sums)| (at, rate(sums))).collect();
    if known.len() < usize::from(rules.min_hosts) {
        return Vec::new();
    }
    let count = ratio(known.len() as u64, 1);
    let mean = known.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = known.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    // And by more than rounding.
    let least = mean - (variance.sqrt() * f64::from(rules.factor) / 1_000.0).max(1e-9);
    known.into_iter().filter(|(_, rate)| *rate < least).map(|(at, _)| at).collect()
}

/// By how many microseconds at least one has to be slower than the others: where all answer at once, a busy moment is many
/// times as long.
const LEAST_MICROS: f64 = 5_000.0;

/// Those whose good answers take `factor` times as long, on average, as the median of the others', and a little more.
pub(super) fn by_latency(pool: &[Sums], rules: Deviation) -> Vec<usize> {
    let mean = |sums: &Sums| ratio(sums.micros, sums.timed);
    let known: Vec<_> = enough(pool, rules, |sums| sums.timed).map(|(at, sums)| (at, mean(sums))).collect();
    if known.is_empty() || known.len() < usize::from(rules.min_hosts) {
        return Vec::new();
    }
    let mut sorted: Vec<_> = known.iter().map(|(_, mean)| *mean).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = (sorted.len() - 1) / 2;
    let is_slow = |(_, own): &(usize, f64)| {
        // The others are all of them without one of its value: where that is before the middle, they move up.
        let median = if *own <= sorted[middle] { sorted.get(middle + 1) } else { sorted.get(middle) };
        let median = median.copied().unwrap_or(f64::INFINITY);
        *own > (median * f64::from(rules.factor) / 1_000.0).max(median + LEAST_MICROS)
    };
    known.iter().filter(|one| is_slow(one)).map(|(at, _)| *at).collect()
}

/// Those of which enough is known.
fn enough(
    pool: &[Sums],
    rules: Deviation,
    requests: impl Fn(&Sums) -> u64,
) -> impl Iterator<Item = (usize, &Sums)> {
    pool.iter().enumerate().filter(move |(_, sums)| requests(sums) >= u64::from(rules.min_requests))
}

#[expect(clippy::cast_precision_loss, reason = "counts of one interval")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Deviation = Deviation { factor: 1_900, min_hosts: 5, min_requests: 100 };
    const LATENCY: Deviation = Deviation { factor: 3_000, min_hosts: 3, min_requests: 100 };

    fn rates(bad: &[u64]) -> Vec<Sums> {
        bad.iter().map(|bad| Sums { good: 1_000 - bad, bad: *bad, ..Sums::default() }).collect()
    }

    fn latencies(millis: &[u64]) -> Vec<Sums> {
        millis
            .iter()
            .map(|millis| Sums { good: 100, bad: 0, timed: 100, micros: millis * 1_000 * 100 })
            .collect()
    }

    #[test]
    fn the_one_that_fails_among_many_is_found() {
        assert_eq!(by_success_rate(&rates(&[1, 2, 0, 1, 300, 3, 1]), RATE), [4]);
        assert_eq!(by_success_rate(&rates(&[1, 2, 0, 300]), RATE), [0_usize; 0], "too few");
        let mut quiet = rates(&[1, 2, 0, 1, 300, 3, 1]);
        quiet[4] = Sums { good: 10, bad: 80, ..Sums::default() };
        assert_eq!(by_success_rate(&quiet, RATE), [0_usize; 0], "too little is known of it");
    }

    #[test]
    fn the_one_that_is_slow_among_several_is_found() {
        assert_eq!(by_latency(&latencies(&[10, 12, 50, 9]), LATENCY), [2]);
        assert_eq!(by_latency(&latencies(&[10, 12, 29, 9]), LATENCY), [0_usize; 0]);
        assert_eq!(by_latency(&latencies(&[10, 1_000]), LATENCY), [0_usize; 0], "too few");
        assert_eq!(by_latency(&latencies(&[1, 1, 5, 1]), LATENCY), [0_usize; 0], "a busy moment");
        assert_eq!(by_latency(&latencies(&[1, 1, 7, 1]), LATENCY), [2]);
    }

    proptest! {
        /// A fault that hits all alike ejects nobody.
        #[test]
        fn where_all_are_alike_nobody_is_found(bad in 0u64..1_000, millis in 1u64..10_000, count in 1usize..40) {
            prop_assert!(by_success_rate(&rates(&vec![bad; count]), RATE).is_empty());
            prop_assert!(by_latency(&latencies(&vec![millis; count]), LATENCY).is_empty());
        }

        /// The median of the others is what it is when one looks at each by itself.
        #[test]
        fn the_slow_are_those_that_are_slow_beside_the_others(millis in proptest::collection::vec(1u64..100, 1..30)) {
            let rules = Deviation { min_hosts: 1, ..LATENCY };
            let is_slow = |at: &usize| {
                let own = millis[*at];
                let mut others = millis.clone();
                others.remove(*at);
                others.sort_unstable();
                others.get(others.len() / 2).is_some_and(|median| own > (3 * median).max(median + 5))
            };
            let slow: Vec<_> = (0..millis.len()).filter(is_slow).collect();
            prop_assert_eq!(by_latency(&latencies(&millis), rules), slow);
        }

        /// By the mean and the median, never all of them.
        #[test]
        fn somebody_is_always_left(bad in proptest::collection::vec(0u64..1_000, 1..30)) {
            prop_assert!(by_success_rate(&rates(&bad), RATE).len() < bad.len());
            prop_assert!(by_latency(&latencies(&bad), LATENCY).len() < bad.len());
        }
    }
}
