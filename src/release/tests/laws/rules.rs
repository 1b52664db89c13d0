//! Laws of targeting rules.

use proptest::prelude::*;

use crate::release::{Act, Command, Deployment, RampOrder, State};
use crate::table::{Service, ServiceName, Targeting};

const RULES: [&str; 6] = [
    "header x-beta=yes -> v1",
    "header x-beta=yes -> v2",
    "cookie beta -> v3",
    "client 10.0.0.0/8 -> v4",
    "query preview and host *.test -> @stable",
    "header x-team^=qa -> @candidate",
];

pub(super) fn any_rules() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(&RULES[..]), 0..4)
}

/// A rule never leads to a version that is not there, or serves nothing; nobody new comes to who is retired by one.
pub(super) fn check_standing(service: &Service, deployment: &Deployment) {
    let rules = service.split.rules();
    for rule in rules.rules() {
        let serves = service.version(&rule.to).is_some_and(|version| version.serving().next().is_some());
        assert!(serves, "`{rule}` of {} leads nowhere", service.name);
    }
    assert_eq!(service.aims.is_some(), !rules.is_empty(), "what is compiled is what is there");
    let aims = service.aims.iter().flat_map(|aims| aims.rules());
    assert!(aims.eq(rules.rules()));
    let asked = deployment.trial.as_ref().map_or(rules, |trial| trial.asked.rules()).rules();
    let named = (1..)
        .zip(asked)
        .filter(|(number, rule)| service.aims.as_ref().is_some_and(|aims| aims.rule(*number) == Some(*rule)));
    assert_eq!(named.count(), rules.rules().len(), "each has its number in the list that was set");
    if let Some(retirement) = &deployment.retirement {
        assert!(!rules.leads_to(&retirement.version), "{} is retiring", retirement.version);
    }
    if let Some(way_back) = &deployment.previous {
        let gone = way_back.split.rules().rules().iter().find(|rule| service.version(&rule.to).is_none());
        assert!(gone.is_none(), "the way back has a rule to a version that is gone");
    }
    if let Some(trial) = &deployment.trial {
        let kept = trial.asked.rules().without(&trial.candidate);
        if trial.is_suspected(&service.split) {
            assert_eq!(*rules, kept, "while it is suspect only rules to the candidate are passed over");
        } else {
            let is_left = !trial.acts && *rules == kept;
            assert!(rules == trial.asked.rules() || is_left, "who suspects nobody passes over nothing");
        }
    }
}

/// True when a weight is another one: rules that come back with the same weights are no step.
pub(super) fn has_moved(before: &State, next: &State, name: &ServiceName) -> bool {
    let [was, is] = [before, next].map(|state| &state.table.service(name).unwrap().split);
    !was.weighs_as(is)
}

/// Whoever moves everybody takes the rules away; whoever moves weights, or stays, leaves them.
pub(super) fn check_step(before: &State, command: &Command, next: &State) {
    let of = |state: &State, service: &_| -> Option<(Targeting, bool)> {
        let (service, deployment) = (state.table.service(service)?, state.deployment(service)?);
        let leans = deployment.trial.as_ref().is_some_and(|trial| trial.leans(&service.split));
        Some((service.split.rules().clone(), leans))
    };
    match command {
        Command::Flip { service, .. }
        | Command::Switch { service, .. }
        | Command::Supervise { service, act: Act::Convict, .. } => {
            assert!(of(next, service).unwrap().0.is_empty(), "all of it goes to one version");
        }
        Command::SetWeights { service, .. }
        | Command::Hold { service, .. }
        | Command::Release { service, .. }
        | Command::Supervise { service, act: Act::Acquit, .. }
        | Command::Ramp {
            service,
            order:
                RampOrder::Begin { .. }
                | RampOrder::Step { .. }
                | RampOrder::Promote { .. }
                | RampOrder::Freeze { .. }
                | RampOrder::Resume,
        } => {
            let (was, now) = (of(before, service).unwrap(), of(next, service).unwrap());
            // What supervision has passed over comes back with what it leaned back from.
            if !was.1 && !now.1 {
                assert_eq!(was.0, now.0, "{command:?}");
            }
        }
        Command::SetRules { service, .. } => {
            let weights = |state: &State| state.table.service(service).unwrap().split.clone();
            assert!(weights(before).weighs_as(&weights(next)), "rules move no weight");
            let deployments = [before, next].map(|state| state.deployment(service).unwrap());
            let [was, now] = deployments.map(|of| {
                let stage = of.trial.as_ref().map(|trial| (trial.stage, trial.generation));
                (stage, of.ramp.clone(), of.ramped.clone(), of.retirement.clone(), of.retired.clone())
            });
            assert_eq!(was, now, "rules begin nothing, and end nothing");
        }
        Command::Ramp { .. }
        | Command::Revert { .. }
        | Command::PutVersion { .. }
        | Command::RemoveVersion { .. }
        | Command::PutEndpoint { .. }
        | Command::RemoveEndpoint { .. }
        | Command::DrainEndpoint { .. }
        | Command::EndDrain { .. }
        | Command::Discover { .. }
        | Command::Supervise { .. }
        | Command::Batch(_)
        | Command::Undo { .. }
        | Command::Configure { .. } => {}
    }
}
