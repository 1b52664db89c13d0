//! A version that is about to get traffic and had none is made ready first, if its rules say so.
//!
//! This happens before control hears of the change, so it holds up nobody else's, and the fence is as it was. What is
//! asked for is stepped once for that, to see who would be brought from cold. It is only ever a hint: a change that is
//! refused has opened some connections that nobody needs, and they are closed as idle ones are.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::clock;
use super::handle::{Asked, Handle, Wanted};
use super::traffic::is_led_to;
use crate::release::{Command, Event, Order, State, step};
use crate::table::{Service, ServiceName, VersionName, Warmup};

/// How long a change waits for it at most; it goes on alongside.
const PATIENCE: Duration = Duration::from_secs(1);

impl Handle {
    /// Makes those versions ready that `wanted` would give requests and that get none.
    pub(super) async fn warm_up(&self, wanted: &Wanted) {
        let Asked::Command(command) = &wanted.command else { return };
        let state = self.state();
        let is_warmed = |service: &&ServiceName| {
            state.table.service(service).is_some_and(|service| rules(service).next().is_some())
        };
        if wanted.dry_run || !moved(command).iter().any(is_warmed) {
            return;
        }
        let Wanted { actor, reason, expected, force, .. } = wanted.clone();
        let health = self.health.facts(command, &state.table, force);
        let order = Order { command: command.clone(), actor, reason, expected, health };
        let Ok((next, _)) = step(&state, Event::Order(order), clock::now()) else { return };
        let (snapshot, warmups) = (self.live.snapshot(), &self.live.warmups);
        let warming = cold(&state, &next).into_iter().map(|(service, version, rules)| {
            let upstream = snapshot.tenure(&service, &version).cloned();
            async move {
                if let Some(upstream) = upstream {
                    let patience = PATIENCE.min(rules.duration);
                    // Late or not, the change is made.
                    let _ = timeout(patience, warmups.warm_up(&upstream, rules)).await;
                }
            }
        });
        join_all(warming).await;
    }
}

/// The services whose traffic `command` may move to another version.
fn moved(command: &Command) -> Vec<&ServiceName> {
    if let Command::Batch(commands) = command {
        return commands.iter().flat_map(moved).collect();
    }
    let (Command::Flip { service, .. }
    | Command::Revert { service }
    | Command::SetWeights { service, .. }
    | Command::SetRules { service, .. }
    | Command::Ramp { service, .. }
    | Command::Switch { service, .. }) = command
    else {
        return Vec::new();
    };
    vec![service]
}

/// The versions that are warmed up, with how.
fn rules(service: &Service) -> impl Iterator<Item = (&VersionName, Warmup)> {
    service.versions.iter().filter_map(|version| Some((&version.name, service.pool(version).warmup?)))
}

/// The versions that are warmed up, get requests in `next`, and get none now.
fn cold(now: &State, next: &State) -> Vec<(ServiceName, VersionName, Warmup)> {
    let all = next
        .table
        .services()
        .iter()
        .flat_map(|service| rules(service).map(move |(version, rules)| (&service.name, version, rules)));
    let comes = |service: &ServiceName, version: &VersionName| {
        !is_led_to(now, service, version) && is_led_to(next, service, version)
    };
    let cold = all.filter(|(service, version, _)| comes(service, version));
    cold.map(|(service, version, rules)| (service.clone(), version.clone(), rules)).collect()
}
