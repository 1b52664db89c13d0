//! What holds of trials, whatever was done.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::weight;
use crate::release::{Act, Command, Deployment, Effects, Previous, Refused, State, Supervise, Trial};
use crate::table::{
    BasisPoints, Epoch, Service, ServiceName, Split, SuperviseMode, SuperviseRules, VersionName, Watch,
};

pub(super) fn any_wish() -> impl Strategy<Value = Supervise> {
    let period = prop::option::of(Just(Duration::from_secs(60)));
    prop_oneof![
        4 => Just(Supervise::AsConfigured),
        2 => period.prop_map(Supervise::For),
        1 => Just(Supervise::No),
    ]
}

pub(super) fn any_act() -> impl Strategy<Value = Act> {
    let share = prop::sample::select(&["0.01", "5", "10", "50"][..]);
    prop_oneof![
        3 => share.prop_map(|share| Act::Lean(weight(share))),
        1 => Just(Act::Restore),
        1 => Just(Act::Convict),
        1 => Just(Act::Acquit),
    ]
}

/// Of two services one is supervised.
pub(super) fn any_rules() -> impl Strategy<Value = Option<Arc<SuperviseRules>>> {
    let modes = [SuperviseMode::Off, SuperviseMode::Alert, SuperviseMode::On, SuperviseMode::On];
    let mode = prop::sample::select(modes.to_vec());
    prop::option::of(mode.prop_map(|mode| Arc::new(SuperviseRules { mode, ..SuperviseRules::default() })))
}

fn trial<'s>(state: &'s State, name: &ServiceName) -> Option<&'s Trial> {
    state.deployment(name).and_then(|deployment| deployment.trial.as_ref())
}

fn is_of(split: &Split, trial: &Trial) -> bool {
    let of_it = |version: &VersionName| [&trial.baseline, &trial.candidate].contains(&version);
    split.shares().all(|(version, _)| of_it(version))
}

/// A trial is between two versions that are there, and nobody gets more of the candidate than was asked for.
pub(super) fn check_trial(state: &State, service: &Service, deployment: &Deployment) {
    let mode = service.supervise.as_ref().map(|rules| rules.mode).filter(|mode| *mode != SuperviseMode::Off);
    let Some(trial) = &deployment.trial else {
        let baseline = service.stable.clone();
        let rest = Watch { stage: Epoch(0), generation: 0, baseline, candidate: None };
        assert_eq!(service.watch, mode.is_some().then_some(rest));
        return;
    };
    assert_ne!(trial.baseline, trial.candidate);
    for version in [&trial.baseline, &trial.candidate] {
        assert!(service.version(version).is_some(), "{version} is gone");
    }
    assert!(is_of(&trial.asked, trial) && is_of(&service.split, trial), "{trial:?} in {}", service.split);
    let (has, asked) = (service.split.weight(&trial.candidate), trial.asked.weight(&trial.candidate));
    assert!(BasisPoints::NONE < has && has <= asked, "{trial:?} with {has}");
    assert!(Epoch(0) < trial.stage && trial.stage <= state.table.epoch());
    if let Some(mode) = mode {
        assert_eq!(trial.acts, mode == SuperviseMode::On);
    }
    let Trial { stage, generation, baseline, candidate, .. } = trial.clone();
    assert_eq!(service.watch, Some(Watch { stage, generation, baseline, candidate: Some(candidate) }));
}

/// A trial goes on while nobody but supervision moves weights; another one begins with the present change.
pub(super) fn check_step(before: &State, command: &Command, next: &State) {
    for now in next.table.services() {
        let was = before.table.service(&now.name);
        let (old, new) = (trial(before, &now.name), trial(next, &now.name));
        let by_supervision = matches!(command, Command::Supervise { service, .. } if *service == now.name);
        let has_moved = was.is_none_or(|was| !was.split.weighs_as(&now.split));
        match (old, new) {
            (Some(old), Some(new)) if old.stage == new.stage => {
                assert!(by_supervision || !has_moved, "{command:?} moved {old:?}");
                let Trial { is_suspect, acts, by_file, generation, .. } = *new;
                // Rules come and go meanwhile.
                let asked = old.asked.clone().targeting(new.asked.rules().clone());
                assert_eq!(*new, Trial { is_suspect, acts, by_file, generation, asked, ..old.clone() });
                let is_as_before = (generation, is_suspect) == (old.generation, old.is_suspect);
                assert!(by_supervision || is_as_before);
                let by_configuration = matches!(command, Command::Configure { .. });
                assert!((acts, by_file) == (old.acts, old.by_file) || by_configuration);
            }
            (Some(old), Some(new))
                if !has_moved && new.asked.weighs_as(&old.asked) && new.leans(&now.split) =>
            {
                // Most of its traffic is elsewhere: others have taken the candidate's place meanwhile.
                let Trial { acts, by_file, .. } = *new;
                let stage = next.table.epoch();
                let asked = new.asked.clone();
                assert_eq!(*new, Trial { stage, generation: 0, acts, by_file, asked, ..old.clone() });
                let pool = |service: &Service| service.version(&new.candidate).unwrap().endpoints.clone();
                assert_ne!(pool(was.unwrap()), pool(now), "{command:?}");
            }
            (_, Some(new)) => {
                assert!(!by_supervision, "supervision began {new:?}");
                let (stage, asked) = (next.table.epoch(), now.split.clone());
                let is_suspect = false;
                assert_eq!(*new, Trial { stage, asked, generation: 0, is_suspect, ..new.clone() });
            }
            (_, None) => {}
        }
    }
}

type Outcome = Result<(State, Effects), Refused>;

/// What supervision does in its own trial, and that it does nothing in another.
pub(super) fn check_act(before: &State, (name, stage, act): (&ServiceName, Epoch, Act), outcome: &Outcome) {
    let service = |state: &State| Arc::clone(state.table.service(name).unwrap());
    let Some(trial) = trial(before, name).filter(|trial| trial.stage == stage) else {
        let refused = outcome.as_ref().unwrap_err();
        let unknown = before.table.service(name).is_none();
        assert_eq!(matches!(refused, Refused::UnknownService { .. }), unknown);
        assert_eq!(matches!(refused, Refused::NoTrial { .. }), !unknown);
        return;
    };
    let (next, _) = match outcome {
        Ok(next) => next,
        // The version that would get something has nobody left.
        Err(Refused::EmptyVersion { version, .. }) => {
            assert!([&trial.baseline, &trial.candidate].contains(&version));
            return;
        }
        Err(other) => panic!("{other:?}"),
    };
    let (was, now) = (service(before), service(next));
    let way_back = |state: &State| state.deployment(name).unwrap().previous.clone();
    let after = self::trial(next, name);
    match act {
        Act::Lean(_) | Act::Restore => {
            // An order that moves nothing is none.
            let is_suspect = matches!(act, Act::Lean(_)) && trial.exclusive.is_none();
            let is_news = now.split != was.split || is_suspect != trial.is_suspect;
            let generation = trial.generation + u32::from(is_news);
            assert_eq!(after.unwrap(), &Trial { generation, is_suspect, ..trial.clone() });
            if trial.exclusive.is_some() {
                assert_eq!(now.split, was.split, "two versions serve at once");
                return;
            }
            assert_eq!(way_back(next), way_back(before));
            if is_news {
                assert_eq!(&now.stable, if is_suspect { &trial.baseline } else { &trial.stable });
            }
            assert!(act != Act::Restore || now.split == trial.asked);
        }
        Act::Convict => {
            assert_eq!((&now.split, &now.stable), (&Split::all_to(trial.baseline.clone()), &trial.baseline));
            assert_eq!((after, way_back(next)), (None, None));
        }
        Act::Acquit => {
            assert_eq!((&now.split, &now.stable, after), (&was.split, &was.stable, None));
            let leads_here = |way: &Previous| (&way.split, &way.stable) == (&now.split, &now.stable);
            assert_eq!(way_back(next), way_back(before).filter(|way| !leads_here(way)));
        }
    }
}
