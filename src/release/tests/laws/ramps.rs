//! Laws of ramps, whatever is done meanwhile.

use proptest::prelude::*;

use super::{Command, Effects, State, any_reference, due, ramp, service, weight};
use crate::release::{Act, Deployment, Previous, RampEnd, RampOrder, Refused, Steps};
use crate::table::Service;
use std::time::Duration;

/// What is wanted of a ramp; the step that is due by [`RampOrder::Step`] is another one in a tenth of all cases.
pub(super) fn any_order() -> impl Strategy<Value = RampOrder> {
    let points = prop::sample::subsequence(vec!["0.01", "1", "5", "25", "50", "99.99", "100"], 1..6);
    let steps = points.prop_map(|all| Steps::new(all.iter().map(|step| weight(step)).collect()).unwrap());
    let every = prop::option::of(Just(Duration::from_secs(60)));
    let begin = (any_reference(), steps, every, super::trials::any_wish());
    prop_oneof![
        4 => begin.prop_map(|(to, steps, every, supervise)| {
            RampOrder::Begin { to: to.parse().unwrap(), steps, every, supervise }
        }),
        6 => Just(RampOrder::Step { begun: crate::table::Epoch(0), from: 0 }),
        2 => any::<bool>().prop_map(|full| RampOrder::Promote { full }),
        1 => Just(RampOrder::Abort),
        1 => Just(RampOrder::Freeze { left: None }),
        1 => Just(RampOrder::Resume),
        3 => Just(RampOrder::Retire { quiet: None, lasts: None }),
        2 => Just(RampOrder::Retired { begun: crate::table::Epoch(0) }),
    ]
}

/// The order; a step is that of the ramp under way, or another one.
pub(super) fn command(before: &State, name: &str, order: RampOrder, is_late: bool) -> Command {
    let retirement = before.deployment(&service(name)).and_then(|deployment| deployment.retirement.as_ref());
    match (order, due(before, name)) {
        (RampOrder::Retired { begun }, _) => {
            let begun = retirement.filter(|_| !is_late).map_or(begun, |retirement| retirement.begun);
            ramp(name, RampOrder::Retired { begun })
        }
        (RampOrder::Step { .. }, Command::Ramp { service, order: RampOrder::Step { begun, from } }) => {
            let from = if is_late { from + 1 } else { from };
            Command::Ramp { service, order: RampOrder::Step { begun, from } }
        }
        (order, _) => ramp(name, order),
    }
}

/// The weights are its own, or those that supervision leans back to; and it can be taken back as a whole.
pub(super) fn check_standing(service: &Service, deployment: &Deployment) {
    let Some(ramp) = &deployment.ramp else { return };
    assert!(ramp.step + 1 < ramp.steps.all().len(), "{ramp:?}");
    assert_eq!(deployment.previous.as_ref(), Some(&ramp.before));
    let leans = deployment.trial.as_ref().is_some_and(|trial| trial.leans(&service.split));
    assert!(leans || service.split.weighs_as(&ramp.split()));
    let has = service.split.weight(&ramp.to);
    assert!(if leans { has <= ramp.weight() } else { has == ramp.weight() }, "{ramp:?} with {has}");
    assert!(!(ramp.is_frozen && ramp.until.is_some()) && ramp.until.is_some() <= ramp.every.is_some());
    assert!(ramp.lasts <= ramp.every.unwrap_or_default());
}

/// It rises by its own steps alone, one at a time, and whatever ends it is told as what it was.
pub(super) fn check_step(before: &State, command: &Command, next: &State) {
    for now in next.table.services() {
        let Some(was) = before.deployment(&now.name) else { continue };
        let is = next.deployment(&now.name).unwrap();
        let order = match command {
            Command::Ramp { service, order } if *service == now.name => Some(order),
            _ => None,
        };
        let Some(old) = &was.ramp else {
            assert!(is.ramp.is_none() || matches!(order, Some(RampOrder::Begin { .. })), "{command:?}");
            continue;
        };
        match &is.ramp {
            Some(new) => {
                // But for rules that lead to a version which is gone.
                let rules = old.before.split.rules().to_those(|version| now.version(version).is_some());
                let split = old.before.split.clone().targeting(rules);
                let way_back = &Previous { split, ..old.before.clone() };
                assert_eq!(
                    (new.begun, &new.to, &new.before, &new.steps),
                    (old.begun, &old.to, way_back, &old.steps)
                );
                assert!(new.weight() >= old.weight());
                match order {
                    Some(RampOrder::Step { begun, from }) => {
                        assert_eq!((*begun, *from, new.step), (old.begun, old.step, old.step + 1));
                        assert!(!old.is_frozen);
                        assert_eq!(was.suspicion(before.table.service(&now.name).unwrap()), None);
                    }
                    Some(RampOrder::Promote { full: false }) => assert_eq!(new.step, old.step + 1),
                    _ => assert_eq!(new.step, old.step, "{command:?}"),
                }
                let may_stop = order.is_some() || matches!(command, Command::Undo { .. });
                assert!(new.is_frozen == old.is_frozen || may_stop, "{command:?}");
            }
            None => {
                let ramped = is.ramped.as_ref().unwrap();
                assert_eq!((ramped.begun, ramped.epoch), (old.begun, next.table.epoch()));
                let how = match (order, command) {
                    (Some(RampOrder::Step { .. } | RampOrder::Promote { .. }), _) => RampEnd::Finished,
                    (Some(RampOrder::Abort), _) | (_, Command::Revert { .. }) => RampEnd::Aborted,
                    (_, Command::Supervise { act: Act::Convict, .. }) => RampEnd::Reverted,
                    // One of its edits may be a revert.
                    (_, Command::Batch(_)) => ramped.how,
                    _ => RampEnd::Superseded,
                };
                assert_eq!(ramped.how, how, "{command:?}");
                match how {
                    RampEnd::Finished => {
                        assert_eq!(Some(&ramped.reached), old.steps.all().last());
                        assert_eq!(now.split.weight(&old.to), ramped.reached);
                        assert!(is.previous.as_ref().unwrap().split.weighs_as(&old.before.split));
                    }
                    RampEnd::Aborted if !matches!(command, Command::Batch(_)) => {
                        assert!(now.split.weighs_as(&old.before.split));
                        assert_eq!(now.stable, old.before.stable);
                        let mut rules = now.split.rules().rules().iter();
                        assert!(rules.all(|rule| old.before.split.rules().rules().contains(rule)));
                        let is_abort = matches!(order, Some(RampOrder::Abort));
                        assert!(!is_abort || !now.split.rules().leads_to(&old.to), "everybody is sent back");
                    }
                    RampEnd::Aborted | RampEnd::Reverted | RampEnd::Superseded => {}
                }
            }
        }
    }
}

/// A ramp begins from where the service is, and never gives its version less.
pub(super) fn check_order(before: &State, command: &Command, result: &Result<(State, Effects), Refused>) {
    let (Command::Ramp { service, order: RampOrder::Begin { .. } }, Ok((next, _))) = (command, result) else {
        return;
    };
    let (was, now) = (before.table.service(service).unwrap(), next.table.service(service).unwrap());
    let deployment = next.deployment(service).unwrap();
    let previous = deployment.previous.as_ref().unwrap();
    assert_eq!((&previous.split, &previous.stable), (&was.split, &was.stable));
    let to = deployment.ramp.as_ref().map(|ramp| &ramp.to);
    let to = to.or(deployment.ramped.as_ref().map(|ramped| &ramped.to)).unwrap();
    assert!(now.split.weight(to) > was.split.weight(to));
}
