//! Whole stages in a simulated world: what is found, how soon, and what never is.

use std::cell::Cell;

use super::super::*;
use super::world::{Answer, BASELINE, CANDIDATE, Dice, TICK, World, promptly};

/// The guard's bound after 100,000 requests of which 0.1 % failed.
fn usual_bound() -> f64 {
    guard_rate(100_000, 100, Settings::default().errors)
}

fn stage(weight: f64) -> Supervisor {
    Supervisor::new(weight, usual_bound(), Settings::default())
}

const USUAL: f64 = 0.001;

fn median(mut values: Vec<u64>) -> f64 {
    values.sort_unstable();
    values[values.len() / 2] as f64
}

/// 100 requests a tick, 100,000 in all, decided at once. A third of the stages at each weight and share of failures; in half of
/// them the candidate is exactly as bad as tolerated.
#[test]
fn what_is_within_tolerance_is_never_reverted() {
    for seed in 0..200_usize {
        let mut dice = Dice::new(seed as u64);
        let w = [0.01, 0.05, 0.5, 1.0][seed % 4];
        let (failure, before) = [(0.0, 0), (0.001, 100), (0.01, 1000)][seed / 4 % 3];
        let Tolerance { rho, delta } = Settings::default().errors;
        let failures = if seed % 2 == 0 { [failure; 2] } else { [failure, rho * failure + delta] };
        let mut stage =
            Supervisor::new(w, guard_rate(100_000, before, Tolerance { rho, delta }), Settings::default());
        for _ in 0..1000 {
            let mut group = Group { w: stage.weight(), ..Group::default() };
            for _ in 0..100 {
                let version = usize::from(dice.chance(group.w));
                let (bad, slow) = (dice.chance(failures[version]), dice.roll());
                group.decided[version] += 1;
                group.bad[version] += u64::from(bad);
                group.client_errors[version] += u64::from(!bad && dice.chance(0.03));
                for (count, share) in group.slow[version].iter_mut().zip([0.25, 0.05, 0.01]) {
                    *count += u64::from(slow < share);
                }
            }
            (group.guard_bad, group.guard_decided) = (group.bad[CANDIDATE], group.decided[CANDIDATE]);
            group.measured = group.decided;
            let live = group.decided[BASELINE] - group.bad[BASELINE];
            let standing = stage.tick(TICK, &[group], None, live);
            assert_ne!(standing, Standing::Breached, "seed {seed}, w {w}, {failures:?}: {:?}", stage.why());
        }
    }
}

/// Of the table of detection: share, failures of the candidate, requests a tick; failed requests and seconds until it is reverted, medians.
const DETECTION: [(f64, f64, u64, f64, f64); 12] = [
    (0.01, 1.0, 10, 4.0, 0.37),
    (0.01, 0.1, 10, 6.0, 5.0),
    (0.05, 1.0, 10, 6.0, 0.13),
    (0.05, 0.1, 10, 7.0, 1.3),
    (0.05, 0.05, 100, 9.0, 0.33),
    (0.5, 1.0, 10, 16.0, 0.07),
    (0.5, 0.1, 10, 11.0, 0.79),
    (0.5, 0.05, 100, 17.0, 0.19),
    (1.0, 1.0, 10, 28.0, 0.1),
    (1.0, 0.1, 10, 14.0, 0.85),
    (1.0, 0.05, 100, 24.0, 0.24),
    (1.0, 0.01, 100, 51.0, 2.8),
];

#[test]
fn a_bad_version_is_reverted_after_as_many_failures_as_the_table_says() {
    for (w, failure, rate, failed, seconds) in DETECTION {
        let runs = (1..=41).map(|seed| {
            let failures = [USUAL, failure];
            let mut world =
                World::new(seed, rate, stage(w), |dice, version, _| promptly(dice, failures[version]));
            assert_eq!(world.run(6000), Standing::Breached, "w {w}, {failure}, seed {seed}");
            assert_eq!(world.stage.why(), Some(Why::Metric(Metric::ErrorRate)));
            (world.failed_in_all(), world.tick)
        });
        let (failures, ticks): (Vec<_>, Vec<_>) = runs.unzip();
        let (got_failed, got_seconds) = (median(failures), median(ticks) * TICK);
        for (got, expected) in [(got_failed, failed), (got_seconds, seconds)] {
            assert!((got / expected - 1.0).abs() <= 0.3, "w {w}, {failure}: {got}, not {expected}");
        }
    }
}

/// Before this tick everything is well.
const OUTAGE: u64 = 100;

#[test]
fn an_outage_of_both_is_suspicious_and_never_a_reason_to_revert() {
    for w in [0.05, 0.5, 1.0] {
        for failure in [0.05, 0.5, 1.0] {
            for seed in 1..=10 {
                let mut world = World::new(seed, 10, stage(w), |dice, _, tick| {
                    promptly(dice, if tick < OUTAGE { USUAL } else { failure })
                });
                let standing = world.run(OUTAGE + 400);
                let is_plain = failure > 0.1;
                assert_ne!(standing, Standing::Breached, "w {w}, {failure}, seed {seed}");
                assert!(standing == Standing::Suspect || !is_plain, "w {w}, {failure}, seed {seed}");
                assert!(world.stage.has_common_mode() || !is_plain, "w {w}, {failure}, seed {seed}");
            }
        }
    }
}

/// The candidate fails fast, the baseline's failures take 3.5 s: for a while only the candidate has any.
fn slow_to_fail(failure: f64) -> impl FnMut(&mut Dice, usize, u64) -> Answer {
    move |dice, version, tick| {
        let mut answer = promptly(dice, if tick < OUTAGE { USUAL } else { failure });
        if answer.bad && tick >= OUTAGE {
            answer.after = if version == BASELINE { 350 } else { 1 };
        }
        answer
    }
}

/// How many of 20 stages are reverted, at each weight.
fn reverted(failure: f64, prepare: impl Fn(&mut LatencyHist)) -> usize {
    let weights = [0.05, 0.5, 1.0];
    let stages = weights.into_iter().flat_map(|w| (1..=20).map(move |seed| (w, seed)));
    let is_reverted = |(w, seed): &(f64, u64)| {
        let mut world = World::new(*seed, 10, stage(*w), slow_to_fail(failure));
        prepare(&mut world.history);
        world.run(OUTAGE + 450) == Standing::Breached
    };
    stages.filter(is_reverted).count()
}

#[test]
fn overdue_answers_of_the_baseline_count_before_a_candidate_that_fails_faster_is_reverted() {
    // The reference has 0.5 % with everything on the candidate.
    assert!(reverted(0.5, |_| {}) <= 1);
    // Without knowing what is overdue most would be: the test would see it.
    assert!(reverted(0.5, |history| *history = LatencyHist::default()) >= 30);
}

#[test]
fn a_baseline_that_answers_nothing_well_proves_nothing() {
    // Nothing is known to be overdue: this is the gate of liveness alone.
    assert_eq!(reverted(1.0, |history| *history = LatencyHist::default()), 0);
}

#[test]
fn one_bad_endpoint_is_found_and_the_version_stays() {
    let mut found = 0;
    for seed in 1..=20 {
        let is_ejected = Cell::new(false);
        let soon = Settings { suspect_hold: 3.0, ..Settings::default() };
        let stage = Supervisor::new(0.1, usual_bound(), soon);
        let mut world = World::new(seed, 10, stage, |dice: &mut Dice, version, _| {
            let endpoint = dice.one_of(4);
            let is_bad = version == CANDIDATE && endpoint == 2 && !is_ejected.get();
            let answer = promptly(dice, if is_bad { 1.0 } else { USUAL });
            Answer { endpoint, ..answer }
        });
        assert_eq!(world.run(1000), Standing::Breached, "seed {seed}");
        match endpoint_fault(&world.endpoints) {
            Some(2) => {}
            None => continue,
            Some(other) => panic!("seed {seed}: endpoint {other}"),
        }
        found += 1;
        let failures = world.stage.counts().bad[CANDIDATE];
        world.stage.start_again();
        is_ejected.set(true);
        assert_eq!(world.stage.standing(), Standing::Suspect);
        assert_eq!((world.stage.ejected_failures(), world.stage.counts()), (failures, Group::default()));
        assert!((world.stage.weight() - 0.1).abs() < 1e-9);
        assert_eq!(world.run(600), Standing::Collecting, "seed {seed}: {:?}", world.stage.why());
        assert!((world.stage.weight() - 0.1).abs() < 1e-9);
    }
    assert!(found >= 18, "{found} of 20");
}

#[test]
fn a_bad_version_is_not_taken_for_a_bad_endpoint() {
    let mistaken = (1..=200).filter(|seed| {
        let mut world = World::new(*seed, 10, stage(0.1), |dice: &mut Dice, version, _| {
            let endpoint = dice.one_of(2);
            let answer = promptly(dice, if version == CANDIDATE { 1.0 } else { USUAL });
            Answer { endpoint, ..answer }
        });
        assert_eq!(world.run(1000), Standing::Breached, "seed {seed}");
        endpoint_fault(&world.endpoints[..2]).is_some()
    });
    assert!(mistaken.count() <= 4);
}

/// When a candidate that has everything becomes suspect, in seconds: 4 requests a tick, and 40 slow ones at once every so many ticks.
fn suspected(guard_pace: Option<f64>, every: u32) -> Option<f64> {
    let settings = Settings { guard_pace, ..Settings::default() };
    let mut stage = Supervisor::new(1.0, usual_bound(), settings);
    let ticks = (1..=60_000).find(|tick| {
        let slow = if tick % every == 0 { 40 } else { 0 };
        let (measured, slow) = ([0, 4 + slow], [[0; 3], [slow, slow, 0]]);
        let guard_decided = measured[1];
        let group = Group { w: 1.0, decided: measured, guard_decided, measured, slow, ..Group::default() };
        stage.tick(TICK, &[group], None, 0) == Standing::Suspect
    });
    ticks.map(|ticks: u32| f64::from(ticks) * TICK)
}

#[test]
fn long_polls_that_all_came_together_and_come_again_together_are_not_suspicious() {
    let pace = Some(10.0);
    for every in [200, 600, 3000] {
        assert_eq!(suspected(pace, every), None, "{every}");
    }
    // Were each of them evidence they would be: the test would see it.
    assert_eq!(suspected(None, 200), Some(2.0));
    // Who is slow all the time is found.
    assert!(suspected(pace, 1).is_some_and(|seconds| seconds < 1.0), "{:?}", suspected(pace, 1));
    assert!(suspected(pace, 2).is_some_and(|seconds| seconds < 3.0), "{:?}", suspected(pace, 2));
}

/// Of a second in which 50 of 146 requests are slow, and 49 of these are beyond what one client counts for.
#[test]
fn slow_ones_beyond_what_one_client_counts_for_are_not_suspicious_and_do_not_speak_for_it() {
    let second = |slow: u64, beyond: u64| {
        let (measured, slow) = ([0, 96 + slow], [[0; 3], [slow; 3]]);
        // As their own guard sees them they are all alike.
        let guard_decided = 100;
        let slow_beyond = [beyond; 3];
        Group { w: 1.0, decided: measured, guard_decided, measured, slow, slow_beyond, ..Group::default() }
    };
    let evidence = |group: Group| {
        let mut stage = Supervisor::new(1.0, usual_bound(), Settings::default());
        for _ in 0..60 {
            stage.tick(1.0, &[group], None, 0);
        }
        (stage.standing(), stage.guard_log_e())
    };
    assert_eq!(evidence(second(50, 0)).0, Standing::Suspect);
    assert_eq!(evidence(second(50, 49)), evidence(second(1, 0)));
    assert_eq!(evidence(second(50, 49)).0, Standing::Collecting);
}
