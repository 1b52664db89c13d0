//! What is told of a stage: the figures, and the sentences, which were reviewed.

use std::fmt::Write as _;

use super::super::*;
use crate::release::Timestamp;

const SHARE: f64 = 0.05;

/// Decided under one weight; all are measured, and the candidate's failures all count for its guard.
fn group(w: f64, decided: [u64; 2], bad: [u64; 2]) -> Group {
    let guard_decided = decided[1];
    Group { w, decided, bad, guard_bad: bad[1], guard_decided, measured: decided, ..Group::default() }
}

fn slow(group: Group, slow: [[u64; 3]; 2]) -> Group {
    Group { slow, ..group }
}

fn stage(weight: f64) -> Supervisor {
    Supervisor::new(weight, guard_rate(100_000, 100, Settings::default().errors), Settings::default())
}

/// So many ticks, or until it is breached.
fn ticks(stage: &mut Supervisor, times: usize, groups: &[Group], stalled: Option<Stalled>) {
    for _ in 0..times {
        let live = groups.iter().map(|group| group.decided[0] - group.bad[0]).sum();
        if stage.tick(0.01, groups, stalled.as_ref(), live) == Standing::Breached {
            return;
        }
    }
}

/// What the baseline and the candidate took: up to 100 ms, and up to 300 ms.
fn took() -> [LatencyHist; 2] {
    [1, 3].map(|times| {
        let mut took = LatencyHist::default();
        (2..=200).for_each(|half| took.record(half * times * 500));
        took.record(times * 1000);
        took
    })
}

/// A report of the stage, by somebody who knows all but what `change` takes away.
fn told(stage: &Supervisor, change: impl FnOnce(&mut About<'_>)) -> Report {
    report(stage, &took(), change)
}

fn report(stage: &Supervisor, took: &[LatencyHist; 2], change: impl FnOnce(&mut About<'_>)) -> Report {
    let thresholds = latency_thresholds(&took[0], LatencyTolerance::default());
    let (baseline, candidate) = ("blue".parse().unwrap(), "green".parse().unwrap());
    let mut about = About {
        baseline: &baseline,
        candidate: &candidate,
        began: Timestamp(1_000_000),
        acts: true,
        took: [&took[0], &took[1]],
        slow_from: thresholds.map(|all| [all.map(|of| of.baseline), all.map(|of| of.candidate)]),
        endpoints: Vec::new(),
        kinds: Vec::new(),
        user_failures: None,
        clients: None,
    };
    change(&mut about);
    Report::of(stage, about)
}

fn endpoint(number: u8, bad: u64) -> (crate::table::EndpointAddr, EndpointCounts) {
    (format!("10.0.0.{number}:8080").parse().unwrap(), EndpointCounts { decided: 10, bad })
}

fn with_endpoints(about: &mut About<'_>) {
    about.endpoints = vec![endpoint(7, 2), endpoint(8, 2), endpoint(9, 2)];
    about.kinds = vec![("5xx", 6), ("timeout", 0)];
    about.user_failures = Some(6);
}

/// The example of the specification: a canary of 5 %, and everything that the candidate gets fails.
fn reverted() -> Supervisor {
    let mut stage = stage(SHARE);
    ticks(&mut stage, 1, &[group(SHARE, [5, 0], [0, 0])], None);
    ticks(&mut stage, 20, &[group(SHARE, [19, 1], [0, 1])], None);
    stage
}

#[test]
fn a_revert_is_told_with_all_that_it_was_decided_by() {
    let stage = reverted();
    let report = told(&stage, with_endpoints);
    let failed = report.counts.bad[1];
    assert_eq!((report.standing, report.why), (Standing::Breached, Some(Why::Metric(Metric::ErrorRate))));
    assert_eq!(report.counts.decided, [5 + 19 * failed, failed]);
    assert_eq!(report.since.0, report.began.0 + 10 * (failed + 1), "in milliseconds");
    assert!(report.log_e >= report.needed.breach && report.log_e_of[0] > report.log_e_of[1]);
    assert!((report.needed.breach - 1e4_f64.ln()).abs() < 1e-9);
    assert!((report.needed.suspect - 1e2_f64.ln()).abs() < 1e-9);
    assert!((report.needed.healthy - 20_f64.ln()).abs() < 1e-9);
    assert_eq!((report.target, report.weight, report.suspects), (SHARE, 0.0, 1));
    assert_eq!(report.excess, Some(1.0));
    let Interval { low, high } = report.interval;
    assert!(low > 0.1 && high == 1.0, "{low} {high}");
    let Some((Why::Guard(GuardOf::Errors), at)) = report.trigger else { panic!("{:?}", report.trigger) };
    assert!(at > 0.0 && at < report.seconds);
    let [Some(blue), Some(green)] = report.quantiles else { panic!("{:?}", report.quantiles) };
    assert!((blue[0] - 0.075).abs() < 0.005 && (green[0] - 0.225).abs() < 0.015, "{blue:?} {green:?}");
    let [from_blue, from_green] = report.slow_from.unwrap();
    assert_eq!(from_blue, blue);
    assert!((from_green[0] / from_blue[0] - 1.25).abs() < 0.07, "{from_green:?}");
    assert_eq!(report.endpoints.len(), 3);
}

#[test]
fn without_any_answer_nothing_is_claimed() {
    let report = report(&stage(1.0), &Default::default(), |_| {});
    assert_eq!((report.quantiles, report.slow_from, report.excess), ([None, None], None, None));
    assert_eq!(report.interval, Interval { low: -1.0, high: 1.0 });
    assert_eq!(report.needed_failures, None);
    assert_eq!((report.seconds, report.since), (0.0, report.began));
}

#[test]
fn what_is_slow_and_still_out_counts_in_what_is_told() {
    let mut stage = stage(SHARE);
    let out = Stalled { w: SHARE, slow: [[0, 0, 0], [3, 2, 1]], ..Stalled::default() };
    ticks(&mut stage, 1, &[slow(group(SHARE, [19, 1], [0, 0]), [[4, 1, 0], [1, 0, 0]])], Some(out));
    let report = told(&stage, |_| {});
    assert_eq!(report.shares(Metric::LatencyP75), [(19, 4), (1 + 3, 1 + 3)]);
    assert_eq!(report.shares(Metric::LatencyP99), [(19, 0), (1 + 1, 1)]);
    assert_eq!(report.shares(Metric::ErrorRate), [(19, 0), (1, 0)]);
}

/// One stage that is about to be told of.
type Case = (&'static str, Supervisor, fn(&mut About<'_>));

fn plain(_: &mut About<'_>) {}

/// Those that end with a revert.
fn reverts() -> Vec<Case> {
    let mut flip = stage(1.0);
    ticks(&mut flip, 1, &[group(1.0, [0, 5], [0, 0])], None);
    flip.fuse_blown();
    ticks(&mut flip, 2, &[group(1.0, [0, 5], [0, 5]), group(0.1, [9, 1], [0, 1])], None);
    ticks(&mut flip, 20, &[group(0.1, [9, 1], [0, 1])], None);
    let mut hangs = stage(SHARE);
    for out in 0..20 {
        let out = Stalled { w: SHARE, slow: [[0; 3], [out, out.saturating_sub(2), 0]], ..Stalled::default() };
        ticks(&mut hangs, 1, &[slow(group(SHARE, [19, 0], [0, 0]), [[4, 1, 0], [0; 3]])], Some(out));
    }
    let mut slower = stage(0.2);
    ticks(&mut slower, 50, &[slow(group(0.2, [80, 20], [0, 0]), [[20, 4, 1], [12, 6, 2]])], None);
    let mut not_found = stage(SHARE);
    let missing = Group { client_errors: [1, 1], ..group(SHARE, [19, 1], [0, 0]) };
    ticks(&mut not_found, 50, &[missing], None);
    let keeps = Settings { leans_back: false, ..Settings::default() };
    let mut guarded = Supervisor::new(1.0, 0.004, keeps);
    ticks(&mut guarded, 50, &[group(1.0, [0, 10], [0, 1])], None);
    let mut down = stage(1.0);
    ticks(&mut down, 300, &[group(1.0, [0, 10], [0, 0])], None);
    down.pool_down();
    let many: fn(&mut About<'_>) =
        |about| about.endpoints = (1..=10).map(|number| endpoint(number, 1)).collect();
    vec![
        ("a canary that fails", reverted(), with_endpoints),
        ("as above, where supervision only tells", reverted(), |about| about.acts = false),
        ("a failing flip", flip, many),
        ("a canary that hangs", hangs, plain),
        ("as above, before anything is known to be slow", reverted_slow(), |about| about.slow_from = None),
        ("a slower canary", slower, plain),
        ("a canary that finds nothing", not_found, plain),
        ("a flip that keeps everything until it is reverted", guarded, plain),
        ("a pool that is down", down, |about| about.user_failures = Some(0)),
    ]
}

fn reverted_slow() -> Supervisor {
    let mut slower = stage(0.5);
    ticks(&mut slower, 50, &[slow(group(0.5, [20, 20], [0, 0]), [[5, 1, 0], [20, 0, 0]])], None);
    slower
}

/// Those that go on.
fn others() -> Vec<Case> {
    let mut begun = stage(SHARE);
    ticks(&mut begun, 30, &[group(SHARE, [19, 1], [0, 0])], None);
    let mut healthy = stage(SHARE);
    for _ in 0..90 {
        healthy.tick(1.0, &[group(SHARE, [950, 50], [1, 0])], None, 0);
    }
    let mut suspect = stage(SHARE);
    ticks(&mut suspect, 2, &[group(SHARE, [19, 1], [0, 1])], None);
    let mut outage = stage(1.0);
    ticks(&mut outage, 2, &[group(1.0, [0, 10], [0, 8])], None);
    let overdue = Stalled { w: 0.1, missing: 4, ..Stalled::default() };
    ticks(&mut outage, 5, &[group(0.1, [9, 1], [7, 1])], Some(overdue));
    let mut slow_flip = stage(1.0);
    ticks(&mut slow_flip, 3, &[slow(group(1.0, [0, 20], [0, 0]), [[0; 3], [15, 9, 6]])], None);
    let once = Settings { max_suspects: 1, suspect_hold: 1.0, ..Settings::default() };
    let mut held = Supervisor::new(0.5, 0.004, once);
    held.fuse_blown();
    for _ in 0..200 {
        held.tick(1.0, &[group(0.1, [90, 10], [9, 1])], None, 81);
    }
    vec![
        ("nothing yet", stage(SHARE), plain),
        ("a quiet canary", begun, plain),
        ("too few clients", few_clients(), |about| about.clients = Some(41)),
        ("clients that fail again and again", one_that_hammers(), |about| about.clients = Some(5_000)),
        ("a healthy canary", healthy, plain),
        ("a suspect canary", suspect, plain),
        ("an outage of both", outage, plain),
        ("as above, where supervision only tells", outage_told(), |about| about.acts = false),
        ("a slow flip", slow_flip, plain),
        ("held", held, plain),
    ]
}

fn few_clients() -> Supervisor {
    let mut stage = stage(SHARE);
    stage.has_clients(41);
    stage
}

fn one_that_hammers() -> Supervisor {
    let mut stage = stage(SHARE);
    stage.has_clients(5_000);
    let again = Again { bad: [3, 49], ..Again::default() };
    ticks(&mut stage, 1, &[Group { again, ..group(SHARE, [950, 50], [4, 50]) }], None);
    stage
}

fn outage_told() -> Supervisor {
    let mut outage = stage(0.5);
    ticks(&mut outage, 10, &[group(0.5, [5, 5], [4, 4])], None);
    outage
}

#[test]
fn every_stage_has_a_sentence() {
    let mut all = String::new();
    for (name, stage, change) in reverts().into_iter().chain(others()) {
        writeln!(all, "== {name}\n{}", told(&stage, change).sentence()).unwrap();
    }
    insta::assert_snapshot!(all);
}
