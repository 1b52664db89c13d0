//! What makes a bet fair, whatever the rates: this is the proof that a revert is right.

use proptest::prelude::*;

use super::super::*;

/// By how much a bet grows in the mean when one request comes, after some history.
fn growth(bet: impl Fn(Counts) -> f64, before: f64, w: f64, failures: [f64; 2]) -> f64 {
    let [a, b] = failures;
    let after = |bad: [u64; 2]| (bet(Counts { decided: 1, bad }) - before).exp();
    w * b * after([0, 1])
        + (1.0 - w) * a * after([1, 0])
        + (w * (1.0 - b) + (1.0 - w) * (1.0 - a)) * after([0, 0])
}

/// Some history of a pair, of the given number of bad answers.
fn pair(tolerance: Tolerance, w: f64, bad: [u64; 2], good: u64) -> PairDetector {
    let mut pair = PairDetector::new(tolerance);
    pair.inject(MASS_START);
    pair.update(0.0, w, Counts { decided: good + bad[0] + bad[1], bad });
    pair
}

fn tolerances() -> impl Strategy<Value = Tolerance> {
    (1.0..3.0_f64, 0.0..0.05_f64).prop_map(|(rho, delta)| Tolerance { rho, delta })
}

proptest! {
    /// The evidence does not grow in the mean while the candidate is within its tolerance, at any weight, rate and history.
    #[test]
    fn a_candidate_within_tolerance_gains_no_evidence(
        tolerance in tolerances(), w in 0.001..0.999_f64, a in 0.0..=1.0_f64, within in 0.0..=1.0_f64,
        bad in [0..20_u64, 0..20_u64], good in 0..2000_u64,
    ) {
        let b = (within * (tolerance.rho * a + tolerance.delta)).min(1.0);
        let before = pair(tolerance, w, bad, good);
        let bet = |counts| before.clone().update(0.0, w, counts);
        let growth = growth(bet, before.log_e(), w, [a, b]);
        prop_assert!(growth <= 1.0 + 1e-9, "{growth}");
    }

    /// And it does in a fresh bet when the candidate is clearly worse.
    #[test]
    fn a_worse_candidate_gains_evidence(w in 0.001..0.999_f64, a in 0.0..0.3_f64, more in 0.01..0.5_f64) {
        let tolerance = Settings::default().errors;
        let b = (tolerance.rho * a + tolerance.delta + more).min(1.0);
        let before = pair(tolerance, w, [0, 0], 0);
        let bet = |counts| before.clone().update(0.0, w, counts);
        prop_assert!(growth(bet, before.log_e(), w, [a, b]) > 1.0);
    }

    /// A candidate that is worse than tolerated, or just as bad, is not shown to be within tolerance.
    #[test]
    fn a_candidate_beyond_tolerance_is_not_found_healthy(
        tolerance in tolerances(), w in 0.001..0.999_f64, a in 0.0..=0.3_f64, beyond in 0.0..=0.5_f64,
        bad in [0..20_u64, 0..20_u64], good in 0..2000_u64,
    ) {
        let b = tolerance.rho * a + tolerance.delta + beyond;
        prop_assume!(b <= 1.0);
        let mut before = CleanTest::new(tolerance);
        before.update(w, Counts { decided: good + bad[0] + bad[1], bad });
        let bet = |counts| before.clone().update(w, counts);
        let growth = growth(bet, before.log_e(), w, [a, b]);
        prop_assert!(growth <= 1.0 + 1e-9, "{growth}");
    }

    #[test]
    fn a_guard_gains_nothing_up_to_its_bound(
        p0 in 0.002..0.5_f64, within in 0.0..=1.0_f64, bad in 0..20_u64, good in 0..2000_u64,
    ) {
        let mut before = GuardDetector::new(p0);
        before.inject(MASS_START);
        before.update(0.0, good + bad, bad);
        let after = |bad: u64| {
            let mut guard = before.clone();
            // Time starts bets too; none passes.
            (guard.update(0.0, 1, bad) - before.log_e()).exp()
        };
        let p = within * p0;
        prop_assert!(p * after(1) + (1.0 - p) * after(0) <= 1.0 + 1e-9);
    }

    /// Neither the order within a tick nor how it is cut matters.
    #[test]
    fn only_counts_matter(w in 0.01..0.99_f64, first in [0..9_u64, 0..9_u64], second in [0..9_u64, 0..9_u64], good in [0..99_u64, 0..99_u64]) {
        let counts = |bad: [u64; 2], good: u64| Counts { decided: good + bad[0] + bad[1], bad };
        let mut apart = pair(Settings::default().errors, w, first, good[0]);
        let apart = apart.update(0.0, w, counts(second, good[1]));
        let whole = pair(Settings::default().errors, w, [first[0] + second[0], first[1] + second[1]], good[0] + good[1]);
        prop_assert!((apart - whole.log_e()).abs() < 1e-9);
        let late = pair(Settings::default().errors, w, first, good[0] + good[1]).log_e_with(w, second);
        prop_assert!((late - whole.log_e()).abs() < 1e-9);
    }

    #[test]
    fn every_time_is_in_its_bucket(micros in prop_oneof![0..1_000_000_u64, any::<u64>()]) {
        let bucket = bucket_index(micros);
        prop_assert!(bucket_low(bucket) <= micros);
        if bucket < BUCKETS - 1 {
            prop_assert!(micros < bucket_low(bucket + 1));
            let width = bucket_low(bucket + 1) - bucket_low(bucket);
            prop_assert!(bucket == 0 || width * 16 <= bucket_low(bucket));
        }
    }

    /// An endpoint that has all the bad answers out of many is found, whatever the numbers; one among alike ones is not.
    #[test]
    fn large_numbers_of_an_endpoint_are_no_trouble(bad in 20..200_000_u64, good in 0..1_000_000_u64) {
        let well = EndpointCounts { decided: bad + good, bad: 0 };
        let worst = EndpointCounts { decided: bad + good, bad };
        prop_assert_eq!(endpoint_fault(&[well, worst, well]), Some(1));
        prop_assert_eq!(endpoint_fault(&[worst, worst, worst]), None);
    }
}

#[test]
fn quantiles_are_edges_of_buckets() {
    let mut histogram = LatencyHist::default();
    assert_eq!(histogram.quantile(0.5), None);
    (1..=100).for_each(|millis| histogram.record(millis * 1000));
    let mut twice = histogram.clone();
    twice.merge(&histogram);
    assert_eq!(twice.count(), 200);
    for (share, exact) in [(0.5, 50_000), (0.75, 75_000), (0.99, 99_000)] {
        let got = histogram.quantile(share).unwrap();
        assert_eq!(bucket_low(bucket_index(got)), got);
        assert!(exact <= got && got * 16 <= exact * 17, "{got} for {exact}");
        assert_eq!(twice.quantile(share), Some(got));
    }
    histogram = LatencyHist::default();
    histogram.record(u64::MAX);
    assert_eq!(histogram.quantile(0.5), Some(1 << 27));
}

#[test]
fn the_estimate_compares_what_one_coin_shared() {
    // All of the failures are of a time when the candidate had everything.
    let alone = Segment { w: 1.0, decided: [0, 100], bad: [0, 100] };
    let coin = Segment { w: 0.1, decided: [900, 100], bad: [9, 3] };
    assert_eq!(excess_estimate(&[alone]), None);
    assert!((excess_estimate(&[alone, coin]).unwrap() - 0.02).abs() < 1e-12);
    assert_eq!(excess_interval(&[alone], 0.95), Interval { low: -1.0, high: 1.0 });
    let Interval { low, high } = excess_interval(&[alone, coin], 0.95);
    assert_eq!(excess_interval(&[coin], 0.95), Interval { low, high });
    assert!(low < 0.02 && 0.02 < high && high < 0.2, "{low} {high}");
}

#[test]
fn an_endpoint_with_most_but_not_almost_all_of_the_bad_answers_is_not_the_one() {
    let with = |bad| EndpointCounts { decided: 1000, bad };
    assert_eq!(endpoint_fault(&[with(5), with(80), with(5), with(10)]), Some(1));
    assert_eq!(endpoint_fault(&[with(5), with(79), with(5), with(11)]), None, "the others are bad too");
}
