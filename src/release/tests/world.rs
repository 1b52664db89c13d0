//! Names, services and states in one line each.

use std::sync::Arc;
use std::time::Duration;

use crate::release::{
    Act, Actor, ActorKind, Command, Effects, Event, Interrupts, Order, RampOrder, Refused, ServiceRecord,
    State, Steps, Supervise, Timestamp, step,
};
use crate::table::{
    BasisPoints, Conditions, DrainRules, EndpointAddr, Epoch, HoldLimits, HoldScope, Holder, PoolTraits,
    Protocol, Route, ServiceLimits, ServiceName, ServiceSpec, Split, Timeouts, TraitsEdit, VersionName,
    VersionRef, VersionSpec,
};

pub(super) fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

pub(super) fn version(name: &str) -> VersionName {
    name.parse().unwrap()
}

pub(super) fn reference(name: &str) -> VersionRef {
    name.parse().unwrap()
}

pub(super) fn weight(text: &str) -> BasisPoints {
    text.parse().unwrap()
}

pub(super) fn endpoint(port: u16) -> EndpointAddr {
    format!("127.0.0.1:{port}").parse().unwrap()
}

/// A version with an endpoint on each of these ports.
pub(super) fn pool(name: &str, ports: &[u16]) -> VersionSpec {
    let endpoints = ports.iter().copied().map(endpoint).collect();
    VersionSpec {
        name: version(name),
        endpoints,
        protocol: Protocol::default(),
        tls: None,
        proxy_header: None,
        draining: Arc::default(),
        traits: PoolTraits::default(),
        pool: None,
    }
}

/// A service of the file, all of it on `stable`, with one route of its own.
pub(super) fn spec(name: &str, stable: &str, versions: &[(&str, &[u16])]) -> ServiceSpec {
    let route =
        Route { host: format!("{name}.example.com").parse().unwrap(), path: "/".into(), headers: vec![] };
    ServiceSpec {
        name: service(name),
        routes: Arc::new([route]),
        versions: versions.iter().map(|(name, ports)| pool(name, ports)).collect(),
        discovering: Vec::new(),
        stable: version(stable),
        weights: vec![(version(stable), 10_000)],
        timeouts: Timeouts::default(),
        rules: None,
        limits: ServiceLimits::default(),
        drain: DrainRules::default(),
        hold: HoldLimits::standard(),
        pool: Arc::default(),
        supervise: None,
        sticky: None,
        targeting: Default::default(),
        shield: None,
        upgrades: Arc::default(),
        mirror: None,
    }
}

/// The file that most tests start from: `shop` (blue, green, and hollow without endpoints) and `cart` (one, two).
pub(super) fn the_file() -> Vec<ServiceSpec> {
    vec![
        spec("shop", "blue", &[("blue", &[9001, 9002]), ("green", &[9101]), ("hollow", &[])]),
        spec("cart", "one", &[("one", &[9201]), ("two", &[9301])]),
    ]
}

pub(super) fn flip(name: &str, to: &str) -> Command {
    flip_with(name, to, Supervise::AsConfigured)
}

/// A flip that ends nothing that is under way.
pub(super) fn flip_aside(name: &str, to: &str) -> Command {
    let (service, to, interrupts) = (service(name), reference(to), Interrupts::No);
    Command::Flip { service, to, supervise: Supervise::AsConfigured, interrupts }
}

pub(super) fn flip_with(name: &str, to: &str, supervise: Supervise) -> Command {
    Command::Flip { service: service(name), to: reference(to), supervise, interrupts: Interrupts::Yes }
}

pub(super) fn revert(name: &str) -> Command {
    Command::Revert { service: service(name) }
}

/// `weights("shop", &[("green", "5")], Some("@stable"))`, as on the command line.
pub(super) fn weights(name: &str, weights: &[(&str, &str)], rest: Option<&str>) -> Command {
    weights_with(name, weights, rest, Supervise::AsConfigured)
}

pub(super) fn weights_with(
    name: &str,
    weights: &[(&str, &str)],
    rest: Option<&str>,
    supervise: Supervise,
) -> Command {
    let weights = weights.iter().map(|(name, points)| (reference(name), weight(points))).collect();
    Command::SetWeights { service: service(name), weights, rest: rest.map(reference), supervise }
}

/// `set_rules("shop", &["header x-beta=yes -> green"])`.
pub(super) fn set_rules(name: &str, rules: &[&str]) -> Command {
    let rules = rules.iter().map(|rule| Conditions::read_rule(rule).unwrap()).collect();
    Command::SetRules { service: service(name), rules }
}

/// The rules that hold, as people type them.
pub(super) fn rules(state: &State, name: &str) -> Vec<String> {
    split(state, name).rules().rules().iter().map(ToString::to_string).collect()
}

pub(super) fn ramp(name: &str, order: RampOrder) -> Command {
    Command::Ramp { service: service(name), order }
}

/// `begin_ramp("shop", "green", &["1", "50", "100"])`, a minute each.
pub(super) fn begin_ramp(name: &str, to: &str, steps: &[&str]) -> Command {
    let steps = Steps::new(steps.iter().map(|step| weight(step)).collect()).unwrap();
    let every = Some(Duration::from_secs(60));
    ramp(name, RampOrder::Begin { to: reference(to), steps, every, supervise: Supervise::AsConfigured })
}

/// The time of the step is over that the ramp of this service has come to.
pub(super) fn due(state: &State, name: &str) -> Command {
    let ramp = state.deployment(&service(name)).and_then(|deployment| deployment.ramp.as_ref());
    let (begun, from) = ramp.map_or((Epoch(0), 0), |ramp| (ramp.begun, ramp.step));
    self::ramp(name, RampOrder::Step { begun, from })
}

/// What supervision wants in the trial of this stage.
pub(super) fn supervise(name: &str, stage: Epoch, act: Act) -> Command {
    Command::Supervise { service: service(name), stage, act }
}

pub(super) fn hold(name: &str, scope: HoldScope) -> Command {
    hold_by(name, Holder::Operator, scope)
}

pub(super) fn hold_by(name: &str, holder: Holder, scope: HoldScope) -> Command {
    Command::Hold { service: service(name), holder, scope, timeout: None }
}

pub(super) fn release(name: &str) -> Command {
    release_by(name, Holder::Operator)
}

pub(super) fn release_by(name: &str, holder: Holder) -> Command {
    Command::Release { service: service(name), holder }
}

pub(super) fn switch(name: &str, to: &str) -> Command {
    switch_with(name, to, Supervise::AsConfigured)
}

pub(super) fn switch_with(name: &str, to: &str, supervise: Supervise) -> Command {
    Command::Switch { service: service(name), to: version(to), scope: HoldScope::All, supervise }
}

pub(super) fn put(name: &str, version: VersionSpec) -> Command {
    Command::PutVersion { service: service(name), version }
}

pub(super) fn remove(name: &str, gone: &str) -> Command {
    Command::RemoveVersion { service: service(name), version: version(gone) }
}

pub(super) fn add_endpoint(name: &str, version: &str, port: u16) -> Command {
    put_endpoint_with(name, version, port, TraitsEdit::default())
}

pub(super) fn put_endpoint_with(name: &str, version: &str, port: u16, traits: TraitsEdit) -> Command {
    let (service, version, endpoint) = (service(name), reference(version), endpoint(port));
    Command::PutEndpoint { service, version, endpoint, traits }
}

pub(super) fn remove_endpoint(name: &str, version: &str, port: u16) -> Command {
    Command::RemoveEndpoint { service: service(name), version: reference(version), endpoint: endpoint(port) }
}

pub(super) fn drain_endpoint(name: &str, version: &str, port: u16) -> Command {
    Command::DrainEndpoint { service: service(name), version: reference(version), endpoint: endpoint(port) }
}

pub(super) fn end_drain(name: &str, version: &str, port: u16) -> Command {
    Command::EndDrain { service: service(name), version: reference(version), endpoint: endpoint(port) }
}

pub(super) fn configure(services: Vec<ServiceSpec>) -> Command {
    Command::Configure { services, records: Vec::new() }
}

pub(super) fn order(command: Command) -> Event {
    let actor = Actor { kind: ActorKind::Operator, name: "uid=0".to_owned() };
    Event::Order(Order {
        command,
        actor,
        reason: "because".to_owned(),
        expected: Vec::new(),
        health: crate::release::Health::default(),
    })
}

pub(super) fn drained(name: &str, gone: &str) -> Event {
    Event::Drained { service: service(name), version: version(gone) }
}

pub(super) fn remains(name: &str, left: &str) -> Event {
    Event::Remains { service: service(name), version: version(left) }
}

pub(super) fn run(state: &State, command: Command) -> Result<(State, Effects), Refused> {
    step(state, order(command), Timestamp(1))
}

/// The state after these commands, none of which may be refused.
pub(super) fn after(state: &State, commands: impl IntoIterator<Item = Command>) -> State {
    commands.into_iter().fold(state.clone(), |state, command| run(&state, command).unwrap().0)
}

/// A fresh start with this file.
pub(super) fn start(file: Vec<ServiceSpec>) -> State {
    after(&State::at(Epoch(0)), [configure(file)])
}

/// What the store would give at the next start.
pub(super) fn records(state: &State) -> Vec<ServiceRecord> {
    let services = state.table.services().iter().zip(&state.deployments);
    services.map(|(service, deployment)| ServiceRecord::of(service, deployment)).collect()
}

pub(super) fn split(state: &State, name: &str) -> Split {
    state.table.service(&service(name)).unwrap().split.clone()
}

pub(super) fn stable(state: &State, name: &str) -> String {
    state.table.service(&service(name)).unwrap().stable.to_string()
}
