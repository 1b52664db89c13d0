//! How a stage turns from one standing to the next, beyond what the reference's scenarios show.

use super::super::*;

const P0: f64 = 0.004;

fn stage(weight: f64, settings: Settings) -> Supervisor {
    Supervisor::new(weight, P0, settings)
}

/// What was decided under one weight: so many of each version, so many bad ones.
fn group(w: f64, decided: [u64; 2], bad: [u64; 2]) -> Group {
    let guard_decided = decided[1];
    Group { w, decided, bad, guard_bad: bad[1], guard_decided, measured: decided, ..Group::default() }
}

/// Ticks until it stands elsewhere.
fn until_it_turns(stage: &mut Supervisor, group: Group, live: u64) -> Standing {
    let before = stage.standing();
    (0..100_000).map(|_| stage.tick(0.01, &[group], None, live)).find(|now| *now != before).unwrap_or(before)
}

#[test]
fn without_leaning_back_the_guard_reverts_what_has_everything() {
    let keeps = Settings { leans_back: false, ..Settings::default() };
    let failing = group(1.0, [0, 100], [0, 2]);
    let mut stage = stage(1.0, keeps);
    assert_eq!(until_it_turns(&mut stage, failing, 0), Standing::Suspect);
    assert!((stage.weight() - 1.0).abs() < 1e-12, "it keeps what it has");
    let suspicion = stage.guard_log_e();
    assert!(suspicion >= 100_f64.ln() && suspicion < 1e4_f64.ln());
    assert_eq!(until_it_turns(&mut stage, failing, 0), Standing::Breached);
    assert_eq!(stage.why(), Some(Why::Guard(GuardOf::Errors)));
    assert!(stage.guard_log_e() >= 1e4_f64.ln());
}

#[test]
fn without_leaning_back_a_suspicion_ends_when_the_guard_is_sure() {
    let keeps = Settings { leans_back: false, ..Settings::default() };
    let mut stage = stage(1.0, keeps);
    assert!(stage.fuse_blown());
    let well = group(1.0, [0, 100], [0, 0]);
    assert_eq!(until_it_turns(&mut stage, well, 0), Standing::Collecting);
    assert!((stage.elapsed() - 30.0).abs() < 0.02, "{}", stage.elapsed());
}

#[test]
fn a_canary_has_a_coin_and_is_never_reverted_by_its_guard() {
    let keeps = Settings { leans_back: false, ..Settings::default() };
    let mut stage = stage(0.5, keeps);
    assert!(stage.fuse_blown());
    assert!((stage.weight() - 0.1).abs() < 1e-12, "users see both versions anyway");
    let guard = stage.guard_log_e();
    for _ in 0..1000 {
        assert_eq!(stage.tick(0.01, &[group(0.1, [9, 1], [9, 1])], None, 3), Standing::Suspect);
    }
    assert!(stage.has_common_mode());
    assert!(stage.guard_log_e() == guard, "the guard has said what it had to say");
}

#[test]
fn a_small_canary_never_gets_more_by_being_suspect() {
    let mut stage = stage(0.02, Settings::default());
    assert!(stage.fuse_blown());
    assert!(!stage.fuse_blown(), "it is suspect already");
    assert!((stage.weight() - 0.02).abs() < 1e-12);
}

#[test]
fn a_spent_budget_needs_less_evidence_but_evidence() {
    let frugal = Settings { bad_budget: 5, ..Settings::default() };
    let failing = group(0.5, [10, 10], [0, 1]);
    let run = |settings, group| {
        let mut stage = stage(0.5, settings);
        for _ in 0..400 {
            if stage.tick(0.01, &[group], None, 10) == Standing::Breached {
                break;
            }
        }
        stage
    };
    let rich = Settings { bad_budget: 1000, ..Settings::default() };
    let runs = [Settings::default(), rich, frugal].map(|settings| run(settings, failing));
    runs.iter().for_each(|run| assert_eq!(run.why(), Some(Why::Metric(Metric::ErrorRate))));
    let [usual, rich, soon] = runs.map(|run| run.counts().bad[1]);
    assert_eq!(usual, rich, "it is not spent");
    assert!(soon >= 5 && soon < usual, "{soon} of {usual}");
    // Both fail: the budget is a matter of what is not tolerated.
    let both = run(frugal, group(0.5, [10, 10], [1, 1]));
    assert_ne!(both.standing(), Standing::Breached);
    assert!((both.needed_log_e() - 1e4_f64.ln()).abs() < 1e-9);
    // Nobody knows what is tolerated.
    let mut alone = stage(1.0, frugal);
    alone.tick(0.01, &[group(1.0, [0, 100], [0, 100])], None, 0);
    assert!((alone.needed_log_e() - 1e4_f64.ln()).abs() < 1e-9);
}

#[test]
fn a_pool_that_is_down_needs_no_evidence() {
    let mut stage = stage(1.0, Settings::default());
    assert!(stage.pool_down());
    assert!(!stage.pool_down());
    assert_eq!((stage.standing(), stage.why()), (Standing::Breached, Some(Why::PoolDown)));
    assert!(stage.weight() == 0.0);
    stage.start_again();
    assert_eq!(stage.standing(), Standing::Breached, "an ejected endpoint changes nothing about it");
}

#[test]
fn the_failures_still_needed_are_what_it_takes() {
    let mut stage = stage(0.05, Settings::default());
    stage.tick(0.01, &[group(0.05, [95, 5], [0, 0])], None, 0);
    assert_eq!(stage.standing(), Standing::Collecting);
    let needed = stage.needed_failures().unwrap();
    let mut failures = 0.0;
    while stage.log_e() < stage.needed_log_e() {
        stage.tick(0.0, &[group(0.05, [0, 1], [0, 1])], None, 0);
        failures += 1.0;
    }
    // A suspicion on the way starts more bets, which saves one.
    assert!(failures <= needed && needed <= failures + 1.0, "{needed}, not {failures}");
    assert_eq!(stage.needed_failures(), Some(0.0));
    assert_eq!(Supervisor::new(1.0, P0, Settings::default()).needed_failures(), None, "no coin");
}

#[test]
fn answers_that_are_overdue_make_a_fault_common() {
    let mut stage = stage(0.1, Settings::default());
    stage.fuse_blown();
    let failing = group(0.1, [9, 1], [0, 1]);
    stage.tick(0.01, &[failing], None, 9);
    assert!(!stage.has_common_mode());
    stage.tick(0.01, &[failing], Some(&Stalled { w: 0.1, missing: 5, ..Stalled::default() }), 9);
    assert!(stage.has_common_mode());
    stage.tick(0.01, &[], None, 0);
    assert!(!stage.has_common_mode(), "they came");
}

#[test]
fn the_sums_of_a_stage_are_kept_by_weight() {
    let mut stage = stage(0.5, Settings::default());
    let mut slow = group(0.5, [50, 50], [1, 2]);
    slow.slow = [[5, 3, 1], [6, 4, 2]];
    stage.tick(0.01, &[group(1.0, [0, 7], [0, 3]), slow], None, 0);
    stage.tick(0.01, &[slow], None, 0);
    let of = |metric| stage.totals().segments(metric).collect::<Vec<_>>();
    let expected = |bad| vec![Segment { w: 0.5, decided: [100, 100], bad }];
    assert_eq!(of(Metric::ErrorRate), expected([2, 4]), "only where there was a coin");
    assert_eq!(of(Metric::LatencyP95), expected([6, 8]));
    let sum = stage.counts();
    assert_eq!((sum.decided, sum.bad, sum.guard_bad), ([100, 107], [2, 7], 7));
    assert_eq!(sum.slow, [[10, 6, 2], [12, 8, 4]]);
}

#[test]
fn more_weights_than_are_kept_apart_still_count() {
    let mut stage = stage(0.5, Settings::default());
    for tenth in 1..=9 {
        stage.tick(0.01, &[group(f64::from(tenth) / 10.0, [1, 1], [0, 0])], None, 0);
    }
    assert_eq!(stage.counts().decided, [9, 9]);
    assert_eq!(stage.totals().segments(Metric::ErrorRate).count(), 8);
}

/// Of each version so many were measured, and so many slow.
fn speed(w: f64, measured: [u64; 2], slow: [u64; 2]) -> Group {
    Group { slow: slow.map(|slow| [slow; 3]), ..group(w, measured, [0, 0]) }
}

#[test]
fn who_is_the_faster_one_in_all_is_not_reverted_for_a_pause() {
    let pauses = speed(0.5, [200, 200], [150, 0]);
    let own = speed(0.5, [0, 60], [0, 60]);
    let mut stage = stage(0.5, Settings::default());
    // The baseline has stood still often, and then the candidate does.
    let well = speed(0.5, [200, 200], [0, 0]);
    for now in [[pauses].repeat(10), [well].repeat(120)].concat() {
        stage.tick(1.0, &[now], None, 9);
    }
    let stood = [(); 3].map(|()| stage.tick(0.01, &[own], None, 9));
    assert!(stage.log_e() >= stage.needed_log_e(), "{}", stage.log_e());
    assert_eq!(stood[2], Standing::Suspect);
    // It goes on, and is the slower one in all.
    assert_eq!((0..40).map(|_| stage.tick(0.01, &[own], None, 9)).last(), Some(Standing::Breached));
}
