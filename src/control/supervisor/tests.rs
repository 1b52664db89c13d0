//! What is counted of trials, and when.

use super::*;
use crate::release::Timestamp;
use crate::release::verdict::{About, LatencyHist, Metric, Settings, Supervisor, Why};
use crate::table::{Split, VersionName};

fn trial() -> Trial {
    let [baseline, candidate]: [VersionName; 2] = ["blue", "green"].map(|name| name.parse().unwrap());
    Trial {
        stage: Epoch(7),
        generation: 0,
        asked: Split::all_to(candidate.clone()),
        stable: candidate.clone(),
        baseline,
        candidate,
        is_suspect: false,
        acts: true,
        by_file: true,
        exclusive: None,
        until: None,
        lasts: None,
    }
}

fn report(trial: &Trial) -> Report {
    let took = LatencyHist::default();
    let stage = Supervisor::new(1.0, 0.01, Settings::default());
    let about = About {
        baseline: &trial.baseline,
        candidate: &trial.candidate,
        began: Timestamp(0),
        acts: true,
        took: [&took, &took],
        slow_from: None,
        endpoints: Vec::new(),
        kinds: Vec::new(),
        user_failures: None,
        clients: None,
    };
    Report { why: Some(Why::Metric(Metric::ErrorRate)), ..Report::of(&stage, about) }
}

/// A store can say late that it has kept a revert, and somebody else can be faster.
#[test]
fn a_revert_is_counted_when_it_has_happened_and_by_whom() {
    let shop: ServiceName = "shop".parse().unwrap();
    let (trial, verdicts) = (trial(), Verdicts::default());
    let reverts = || {
        let mut sum = 0;
        verdicts.tallies.note(&shop, &trial, |tally| sum = tally.reverts.iter().sum::<u64>());
        sum
    };
    let end = |how| {
        let report = report(&trial);
        verdicts.proven.lock().unwrap().insert(shop.clone(), (trial.clone(), report));
        let ended = Ended { stage: trial.stage, how, epoch: Epoch(8), said: String::new() };
        verdicts.end(vec![(shop.clone(), ended)], Epoch(8));
        reverts()
    };
    assert_eq!(end(How::Superseded), 0);
    assert_eq!(end(How::Reverted), 1);
    let ended = Ended { stage: trial.stage, how: How::Reverted, epoch: Epoch(9), said: String::new() };
    verdicts.end(vec![(shop.clone(), ended)], Epoch(9));
    assert_eq!(reverts(), 1, "nothing was proven since then");
}

/// The metrics list the words that the verdict has; neither room knows the other.
#[test]
fn whatever_makes_a_candidate_suspect_or_worse_is_counted_by_its_name() {
    use crate::metrics::supervision::{CAUSES, STATES};
    assert_eq!(Why::ALL.map(Why::name), CAUSES);
    assert_eq!(Standing::ALL.map(Standing::name), STATES);
    let (trial, mut tally) = (trial(), Tally::default());
    for why in Why::ALL {
        tally.suspected(why.name());
        tally.reverted(&Report { why: Some(why), ..report(&trial) });
    }
    assert_eq!((tally.suspects, tally.reverts), ([1; CAUSES.len()], [1; CAUSES.len()]));
}

/// A counter goes up only: what was told of as good and is not makes good ones untold that come later.
#[test]
fn an_answer_that_broke_off_is_told_of_as_one_failure() {
    use crate::proxy::ledger::Counted;
    let mut tally = Tally::default();
    let mut look = |decided, failed, broken| {
        let mut fresh = case::Fresh::default();
        fresh[0][1] = Counted { decided, failed, broken, ..Counted::default() };
        tally.add(&fresh);
        tally.requests[1]
    };
    assert_eq!(look(5, 1, 0), [4, 1, 0]);
    assert_eq!(look(0, 3, 3), [4, 4, 0]);
    assert_eq!(look(1, 0, 0), [4, 4, 0]);
    assert_eq!(look(4, 1, 1), [5, 5, 0], "ten in all");
}
