//! Comparisons of two versions, as people see them.

use insta::assert_snapshot;

use super::{NOW, canary, picture};
use crate::admin::api::{Supervision, Trial, TrialEnd, TrialEnded, Verdict};
use crate::cli::Style;
use crate::cli::render::status;
use crate::release::Timestamp;
use crate::release::verdict::{
    About, EndpointCounts, Group, LatencyHist, Report, Settings, Stalled, Standing, Supervisor,
    latency_thresholds,
};

/// Decided with the candidate at 25 %, one tick.
fn tick(stage: &mut Supervisor, decided: [u64; 2], bad: [u64; 2], stalled: Option<Stalled>) -> Standing {
    let [_, guard_decided] = decided;
    let group = Group {
        w: stage.weight(),
        decided,
        bad,
        guard_bad: bad[1],
        guard_decided,
        measured: decided,
        client_errors: [decided[0] / 50, 0],
        ..Group::default()
    };
    stage.tick(0.01, &[group], stalled.as_ref(), decided[0] - bad[0])
}

fn supervision(stage: &Supervisor, acts: bool) -> Supervision {
    let took = [1000, 3000].map(|unit| {
        let mut took = LatencyHist::default();
        (0..400).for_each(|step| took.record(step * unit / 4));
        took
    });
    let thresholds = latency_thresholds(&took[0], crate::release::verdict::LatencyTolerance::default());
    let endpoint = |number: u64, bad| {
        let address = format!("10.0.0.{number}:8080").parse().unwrap();
        (address, EndpointCounts { decided: 40, bad })
    };
    let about = About {
        baseline: &"v41".parse().unwrap(),
        candidate: &"v42".parse().unwrap(),
        began: Timestamp(NOW - 72_000),
        acts,
        took: [&took[0], &took[1]],
        slow_from: thresholds.map(|all| [all.map(|of| of.baseline), all.map(|of| of.candidate)]),
        endpoints: vec![endpoint(7, 2), endpoint(8, 0), endpoint(9, 1)],
        kinds: Vec::new(),
        user_failures: None,
        clients: None,
    };
    let report = Report::of(stage, about);
    let trial = Trial {
        rules: Vec::new(),
        stage: 42,
        baseline: "v41".to_owned(),
        candidate: "v42".to_owned(),
        weights: super::weights(&[("v41", 7_500), ("v42", 2_500)]),
        leaning: stage.weight() < stage.target(),
        acts,
        exclusive: false,
        until: None,
    };
    Supervision {
        service: "cart".to_owned(),
        state: report.standing.name().to_owned(),
        trial: Some(trial),
        verdict: Some(Verdict::from(&report)),
        said: Some(report.sentence()),
        hindrance: None,
        ended: None,
    }
}

fn stage() -> Supervisor {
    Supervisor::new(0.25, 0.004, Settings::default())
}

fn shown(supervision: Supervision) -> String {
    let mut picture = picture(vec![canary()]);
    picture.supervision = Some(supervision);
    status(&picture, Style::PLAIN)
}

#[test]
fn a_healthy_comparison_is_a_few_lines() {
    let mut stage = stage();
    while stage.standing() != Standing::Healthy {
        tick(&mut stage, [1500, 500], [2, 0], None);
    }
    assert_snapshot!(shown(supervision(&stage, true)));
}

#[test]
fn a_suspicion_says_why_and_what_is_lacking() {
    let mut stage = stage();
    tick(&mut stage, [75, 25], [0, 0], None);
    while stage.standing() != Standing::Suspect {
        tick(&mut stage, [7, 3], [1, 1], None);
    }
    let out = Stalled { w: 0.1, missing: 4, ..Stalled::default() };
    for _ in 0..5 {
        tick(&mut stage, [9, 1], [2, 1], Some(out));
    }
    let mut supervision = supervision(&stage, true);
    supervision.hindrance = Some("the store is\x1b[2J lost".to_owned());
    assert_snapshot!(shown(supervision));
}

#[test]
fn what_only_tells_takes_nothing_away() {
    let mut stage = stage();
    while stage.standing() != Standing::Breached {
        tick(&mut stage, [75, 25], [0, 5], None);
    }
    assert_snapshot!(shown(supervision(&stage, false)));
}

#[test]
fn one_that_has_just_begun_says_so() {
    assert_snapshot!(shown(supervision(&stage(), true)));
}

#[test]
fn the_end_of_the_last_one_stays_until_something_else_is_done() {
    let mut ended = supervision(&stage(), true);
    let end = TrialEnd {
        stage: 41,
        how: TrialEnded::Reverted,
        epoch: 42,
        said: "reverted v42 -> v41 after 0.13 s: error_rate.".to_owned(),
    };
    (ended.trial, ended.verdict, ended.ended) = (None, None, Some(end.clone()));
    let text = shown(ended.clone());
    assert!(text.contains("  trial: reverted v42 -> v41 after 0.13 s: error_rate."), "{text}");
    ended.ended = Some(TrialEnd { epoch: 41, ..end });
    let text = shown(ended);
    assert!(!text.contains("trial"), "{text}");
}

#[test]
fn where_all_services_are_shown_one_says_that_there_is_a_comparison() {
    let mut service = canary();
    service.standing.supervision = supervision(&stage(), true).trial;
    let text = status(&picture(vec![service]), Style::PLAIN);
    assert!(text.contains("\n  trial: v42 against v41\n"), "{text}");
}
