//! Laws that hold after every step of any sequence of commands.

mod holds;
mod out;
mod pins;
mod ramps;
mod retire;
mod rules;
mod trials;

use std::sync::Arc;

use proptest::prelude::*;

use super::world::*;
use crate::release::{
    Act, Change, Command, Effects, Event, Phase, RampOrder, Refused, Scopes, ServiceRecord, State,
};
use crate::table::{
    BasisPoints, Epoch, HoldScope, Holder, Holds, Service, ServiceName, ServiceSpec, VersionSpec,
};

const SERVICES: [&str; 3] = ["a", "b", "c"];
const VERSIONS: [&str; 4] = ["v1", "v2", "v3", "v4"];

/// What a script may say; an undo becomes a command when the history is known.
#[derive(Debug, Clone)]
enum Line {
    Do(Command),
    File(Vec<ServiceSpec>),
    /// So many epochs back.
    Undo(u64),
    /// Nothing is left on a version, or something is.
    Left(Event),
    /// In the trial that is under way, or in one that is over.
    Act(&'static str, Act, bool),
    /// A step is that of the ramp under way, or one that was taken.
    Ramp(&'static str, RampOrder, bool),
    Restart,
}

fn any_service() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&SERVICES[..])
}

fn any_version() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&VERSIONS[..])
}

fn any_reference() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&["v1", "v2", "v3", "v4", "@stable", "@candidate"][..])
}

fn any_pool() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::btree_set(9001u16..9004, 0..3).prop_map(|ports| ports.into_iter().collect())
}

fn any_holder() -> impl Strategy<Value = Holder> {
    prop::sample::select(&Holder::ALL[..])
}

fn any_edit() -> impl Strategy<Value = Command> {
    let points = prop::sample::select(&["0", "0.01", "5", "50", "99.99", "100"][..]);
    let named = prop::collection::vec((any_reference(), points), 1..3);
    let rest = prop::option::weighted(0.8, any_reference());
    prop_oneof![
        3 => (any_service(), any_reference(), trials::any_wish()).prop_map(|(s, to, wish)| flip_with(s, to, wish)),
        2 => any_service().prop_map(revert),
        3 => (any_service(), named, rest, trials::any_wish())
            .prop_map(|(service, named, rest, wish)| weights_with(service, &named, rest, wish)),
        2 => (any_service(), rules::any_rules()).prop_map(|(service, rules)| set_rules(service, &rules)),
        1 => (any_service(), any_holder(), prop::sample::select(&[HoldScope::All, HoldScope::Writes][..]))
            .prop_map(|(service, holder, scope)| hold_by(service, holder, scope)),
        1 => (any_service(), any_holder()).prop_map(|(service, holder)| release_by(service, holder)),
        1 => (any_service(), any_version(), trials::any_wish()).prop_map(|(s, to, wish)| switch_with(s, to, wish)),
        2 => (any_service(), any_version(), any_pool()).prop_map(|(s, v, ports)| put(s, pool(v, &ports))),
        1 => (any_service(), any_version()).prop_map(|(service, version)| remove(service, version)),
        1 => (any_service(), any_reference(), 9001u16..9004).prop_map(|(s, v, port)| add_endpoint(s, v, port)),
        1 => (any_service(), any_reference(), 9001u16..9004).prop_map(|(s, v, port)| remove_endpoint(s, v, port)),
        1 => (any_service(), any_reference(), 9001u16..9004).prop_map(|(s, v, port)| drain_endpoint(s, v, port)),
    ]
}

/// Some of the services, each with some of the versions.
fn any_file() -> impl Strategy<Value = Vec<ServiceSpec>> {
    let versions = prop::collection::btree_map(any_version(), any_pool(), 1..4);
    let service = (versions, any::<prop::sample::Index>(), trials::any_rules(), retire::any_users());
    prop::collection::btree_map(any_service(), service, 1..4).prop_map(|services| {
        let of_file = services.into_iter().map(|(name, (versions, stable, rules, sticky))| {
            // A file's versions have endpoints: an empty pool becomes one of a port.
            let ports = |ports: Vec<u16>| if ports.is_empty() { vec![9009] } else { ports };
            let versions: Vec<_> = versions.into_iter().map(|(name, pool)| (name, ports(pool))).collect();
            let stable = stable.get(&versions).0;
            let versions: Vec<_> = versions.iter().map(|(name, ports)| (*name, &ports[..])).collect();
            ServiceSpec { supervise: rules, sticky, ..spec(name, stable, &versions) }
        });
        of_file.collect()
    })
}

fn any_line() -> impl Strategy<Value = Line> {
    prop_oneof![
        12 => any_edit().prop_map(Line::Do),
        2 => prop::collection::vec(any_edit(), 0..4).prop_map(|edits| Line::Do(Command::Batch(edits))),
        1 => any_file().prop_map(Line::File),
        1 => (0u64..6).prop_map(Line::Undo),
        2 => (any_service(), any_version()).prop_map(|(service, version)| Line::Left(drained(service, version))),
        1 => (any_service(), any_version()).prop_map(|(service, version)| Line::Left(remains(service, version))),
        4 => (any_service(), trials::any_act(), prop::bool::weighted(0.1)).prop_map(|(s, act, late)| Line::Act(s, act, late)),
        8 => (any_service(), ramps::any_order(), prop::bool::weighted(0.1)).prop_map(|(s, order, late)| Line::Ramp(s, order, late)),
        1 => Just(Line::Restart),
    ]
}

/// The present state with all that the store and the disk hold.
struct World {
    state: State,
    file: Vec<ServiceSpec>,
    history: Vec<Change>,
}

impl World {
    fn starting_with(file: Vec<ServiceSpec>) -> Self {
        let mut world = Self { state: State::at(Epoch(0)), file: file.clone(), history: Vec::new() };
        world.keep(run(&world.state, configure(file)).unwrap());
        world
    }

    fn keep(&mut self, (next, effects): (State, Effects)) {
        self.state = next;
        self.history.extend(effects.change);
    }

    /// The newest record of each service at `epoch`, as the store gives them.
    fn records_at(&self, epoch: Epoch) -> Vec<ServiceRecord> {
        let until = self.history.iter().filter(|change| change.epoch <= epoch);
        let mut newest: Vec<ServiceRecord> = Vec::new();
        for record in until.flat_map(|change| &change.services) {
            newest.retain(|older| older.service != record.service);
            newest.push(record.clone());
        }
        newest
    }

    /// The state that a new process comes to from the store and the file.
    fn restarted(&self) -> (State, Effects) {
        let epoch = self.history.last().map_or(Epoch(0), |change| change.epoch);
        let records = self.records_at(epoch);
        run(&State::at(epoch), Command::Configure { services: self.file.clone(), records }).unwrap()
    }

    /// Plays one line and checks every law about it.
    fn play(&mut self, line: Line) {
        let before = self.state.clone();
        let command = match line {
            Line::Do(command) => command,
            Line::File(file) => {
                self.file.clone_from(&file);
                configure(file)
            }
            Line::Undo(back) => {
                let to = Epoch(before.table.epoch().0.saturating_sub(back).max(1));
                Command::Undo { to, records: self.records_at(to), scopes: Scopes::all() }
            }
            Line::Left(event) => {
                let (next, effects) =
                    crate::release::step(&self.state, event, crate::release::Timestamp(2)).unwrap();
                assert_eq!(effects, Effects::default());
                assert!(Arc::ptr_eq(&before.table, &next.table), "what is left, or not, moves nothing");
                self.state = next;
                return;
            }
            Line::Act(name, act, is_late) => {
                let trial =
                    before.deployment(&service(name)).and_then(|deployment| deployment.trial.as_ref());
                let stage = trial.map_or(before.table.epoch(), |trial| trial.stage);
                supervise(name, if is_late { Epoch(stage.0 - 1) } else { stage }, act)
            }
            Line::Ramp(name, order, is_late) => ramps::command(&before, name, order, is_late),
            Line::Restart => {
                self.state = self.restarted().0;
                return;
            }
        };
        let result = run(&before, command.clone());
        check_command(self, &command, &result);
        if let Ok((next, effects)) = result {
            check_step(&before, &command, &next, &effects);
            self.keep((next, effects));
        }
        check_standing(&self.state);
        check_restart(self);
    }
}

/// What must be true of any state.
fn check_standing(state: &State) {
    for (service, deployment) in state.table.services().iter().zip(&state.deployments) {
        let sum: u32 = service.split.shares().map(|(_, weight)| u32::from(weight.points())).sum();
        assert_eq!(sum, 10_000, "{}", service.name);
        for (version, _) in service.split.shares() {
            let pool = service.version(version).map(|version| version.endpoints.len());
            assert!(pool > Some(0), "{version} of {} has weight and {pool:?} endpoints", service.name);
        }
        assert_ne!(service.split.weight(&service.stable), BasisPoints::NONE, "stable carries nothing");
        for leaving in deployment.phase.leaving() {
            assert!(!service.split.leads_to(leaving), "{leaving} gets requests and is leaving");
        }
        let expected = Phase::of(&service.split, deployment.phase.leaving().to_vec());
        assert_eq!(deployment.phase, expected);
        for coin in [0, 1, u32::MAX / 3, u32::MAX / 2, u32::MAX] {
            let assigned: &VersionSpec = &service.versions[service.assign(coin).unwrap()];
            assert_ne!(service.split.weight(&assigned.name), BasisPoints::NONE);
        }
        if let Some(way_back) = &deployment.previous {
            for (version, _) in way_back.split.shares() {
                assert!(service.version(version).is_some(), "the way back leads to {version}, which is gone");
            }
            // Where supervision keeps most traffic away from is where it leads away from.
            let asked = deployment.trial.as_ref().map_or(&service.split, |trial| &trial.asked);
            assert_ne!((&way_back.split, &way_back.stable), (asked, &service.stable), "leads nowhere");
        }
        rules::check_standing(service, deployment);
        trials::check_trial(state, service, deployment);
        ramps::check_standing(service, deployment);
        retire::check_standing(service, deployment);
        pins::check_standing(service, deployment);
    }
}

/// What must be true of any accepted step.
fn check_step(before: &State, command: &Command, next: &State, effects: &Effects) {
    let touched: Vec<_> = effects.change.iter().flat_map(|change| &change.services).collect();
    match &effects.change {
        None => {
            assert_eq!(next.table.epoch(), before.table.epoch(), "no change, no epoch");
            assert_eq!(next.table.services(), before.table.services());
            assert_eq!(next.deployments, before.deployments);
        }
        Some(change) => {
            assert_eq!(next.table.epoch(), before.table.epoch().next());
            assert_eq!(change.epoch, next.table.epoch());
            assert!(!touched.is_empty());
        }
    }
    for (service, deployment) in next.table.services().iter().zip(&next.deployments) {
        let record = touched.iter().find(|record| record.service == service.name);
        if let Some(record) = record {
            assert_eq!(**record, ServiceRecord::of(service, deployment));
            assert_eq!(service.epoch, next.table.epoch());
            continue;
        }
        // Not changed: the very same values, so that nobody looks at them again.
        let same = before.table.service(&service.name).is_some_and(|same| Arc::ptr_eq(same, service));
        assert!(same, "{} was copied by {command:?}", service.name);
        let index = before.table.index(&service.name).unwrap();
        assert!(Arc::ptr_eq(&before.deployments[index], deployment));
    }
    check_left_and_returned(before, next, effects);
    out::check(before, next, effects);
    rules::check_step(before, command, next);
    trials::check_step(before, command, next);
    ramps::check_step(before, command, next);
    retire::check_step(before, command, next);
    holds::check(before, command, next);
}

/// Left: got requests, by weight or by a rule, and gets none. Returned: got none and gets some.
fn check_left_and_returned(before: &State, next: &State, effects: &Effects) {
    let (mut left, mut returned) = (Vec::new(), Vec::new());
    for service in before.table.services() {
        let now = |version| next.table.service(&service.name).is_some_and(|now| now.split.leads_to(version));
        let name = |version: &_| (service.name.clone(), crate::table::VersionName::clone(version));
        left.extend(service.split.versions().filter(|version| !now(version)).map(name));
        let then = |version| service.split.leads_to(version);
        let served = next.table.service(&service.name).into_iter().flat_map(|now| now.split.versions());
        returned.extend(served.filter(|version| !then(version)).map(name));
    }
    let sorted = |list: &Vec<_>| {
        let mut list: Vec<(ServiceName, _)> = list.clone();
        list.sort();
        list
    };
    assert_eq!(sorted(&effects.left), sorted(&left));
    assert_eq!(sorted(&effects.returned), sorted(&returned));
}

/// What must be true of one sort of command.
fn check_command(world: &World, command: &Command, result: &Result<(State, Effects), Refused>) {
    let before = &world.state;
    ramps::check_order(before, command, result);
    match (command, result) {
        (Command::Flip { service, .. }, Ok((next, effects))) => {
            let now = next.table.service(service).unwrap();
            assert!(now.split.is_whole());
            assert_eq!(now.split.heaviest(), &now.stable);
            if effects.change.is_some() {
                check_way_back(before, next, service);
            }
        }
        (Command::SetWeights { service, .. }, Ok((next, _))) if rules::has_moved(before, next, service) => {
            check_way_back(before, next, service);
        }
        (Command::Supervise { service, stage, act }, result) => {
            trials::check_act(before, (service, *stage, *act), result);
        }
        (Command::Undo { to, records, .. }, Ok((next, _))) => {
            for record in records {
                let (Some(now), Some(then)) = (next.table.service(&record.service), &record.standing) else {
                    continue;
                };
                let moved = before.table.service(&record.service).is_some_and(|service| service.epoch > *to);
                // Of users who are known no more the others have everything.
                if moved && then.retirement.is_none() {
                    let there =
                        |version: &_| now.version(version).is_some_and(|of| of.serving().next().is_some());
                    let rules = then.split.rules().to_those(there);
                    let split = then.split.clone().targeting(rules);
                    assert_eq!((&now.split, &now.stable), (&split, &then.stable));
                }
            }
        }
        (Command::Switch { service, to, .. }, Ok((next, _))) => {
            let now = next.table.service(service).unwrap();
            assert_eq!((now.split.is_whole(), now.split.heaviest(), &now.stable), (true, to, to));
        }
        (Command::Batch(commands), result) => check_batch(before, commands, result),
        _ => {}
    }
}

/// Reverting once restores split and stable, and twice is refused.
fn check_way_back(before: &State, next: &State, name: &ServiceName) {
    let (was, is) = (before.table.service(name).unwrap(), next.table.service(name).unwrap());
    let trial = before.deployment(name).unwrap().trial.as_ref();
    // Moved nothing, or only back what supervision had moved: the way back is the one from before that.
    if was.split == is.split || trial.is_some_and(|trial| trial.asked == is.split) {
        return;
    }
    let back = run(next, revert(name.as_str())).unwrap().0;
    let (was, is) = (before.table.service(name).unwrap(), back.table.service(name).unwrap());
    assert_eq!((&was.split, &was.stable), (&is.split, &is.stable));
    assert_eq!(is.versions, was.versions);
    let twice = run(&back, revert(name.as_str())).unwrap_err();
    assert_eq!(twice, Refused::NothingToRevert { service: name.clone() });
}

/// A batch is its edits one after the other, or the first one's refusal; either way in one step.
fn check_batch(before: &State, commands: &[Command], batch: &Result<(State, Effects), Refused>) {
    if commands.is_empty() {
        assert_eq!(batch.as_ref().unwrap_err(), &Refused::EmptyChange);
        return;
    }
    // A revert in a batch goes back to the state before the batch, so it may differ from one that stands alone.
    if commands.iter().any(|command| matches!(command, Command::Revert { .. })) {
        return;
    }
    let edits = commands.iter().cloned().enumerate();
    let one_by_one =
        edits.into_iter().try_fold(before.clone(), |state, (index, edit)| match run(&state, edit) {
            Ok((next, _)) => Ok(next),
            Err(why) => Err(Refused::Edit { index, why: Box::new(why) }),
        });
    match (batch, one_by_one) {
        // Whether supervision can go back is a matter of what a batch leaves, not of what is so in between.
        (Err(Refused::Measure { .. }), _) => {}
        (_, Err(Refused::Edit { why, .. })) if matches!(*why, Refused::Measure { .. }) => {}
        (Err(refused), Err(alone)) => assert_eq!(*refused, alone),
        (Ok((next, _)), Ok(alone)) => {
            for (service, alone) in next.table.services().iter().zip(alone.table.services()) {
                assert_eq!((&service.split, &service.versions), (&alone.split, &alone.versions));
                assert_eq!((&service.stable, holds::held(service)), (&alone.stable, holds::held(alone)));
            }
        }
        (batch, alone) => panic!("batch {batch:?}, one by one {alone:?}"),
    }
}

/// A restart with the same file is no change, and leads to the same table.
fn check_restart(world: &World) {
    let (state, effects) = world.restarted();
    assert_eq!(effects.change, None, "a restart is no change; {:?}", world.history.last());
    assert_eq!(state.table.epoch(), world.state.table.epoch());
    // But that nothing is held.
    let present =
        world.state.table.services().iter().map(|service| Service::clone(service).holding(Holds::default()));
    let restarted = state.table.services().iter().map(|service| Service::clone(service));
    assert_eq!(restarted.collect::<Vec<_>>(), present.collect::<Vec<_>>());
    assert_eq!(records(&state), records(&world.state));
}

proptest! {
    #[test]
    fn hold_for_any_script(file in any_file(), script in prop::collection::vec(any_line(), 1..24)) {
        let mut world = World::starting_with(file);
        for line in script {
            world.play(line);
        }
    }
}
