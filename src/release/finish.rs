//! A draft becomes the next state: what really changed gets the epoch, a record and a line of history.

use std::sync::Arc;

use super::deployment::{Deployment, Phase};
use super::draft::{Draft, Item};
use super::history::{Actor, Change, ChangeKind, ServiceRecord, Timestamp};
use super::overlay::serves;
use super::summary::{describe, summarise};
use super::{Effects, Out, Refused, State};
use crate::table::{EndpointAddr, Epoch, Service, ServiceName, Table, VersionName, VersionSpec};

/// What became of the services that a draft touched.
#[derive(Default)]
struct Settled {
    records: Vec<ServiceRecord>,
    /// What happened to each of them, for people.
    lines: Vec<String>,
}

impl Draft<'_> {
    /// The next state, if the draft differs from the base; else the base and no change.
    pub(super) fn finish(
        mut self,
        kind: ChangeKind,
        actor: Actor,
        reason: String,
        now: Timestamp,
    ) -> Result<(State, Effects), Refused> {
        let mut effects = Effects::default();
        let Settled { records, mut lines } = self.settle(now, &mut effects)?;
        lines.append(&mut self.forced);
        effects.notes = std::mem::take(&mut self.notes);
        effects.lasting = std::mem::take(&mut self.lasting).into_iter().collect();
        let epoch = if records.is_empty() { self.base.table.epoch() } else { self.epoch };
        let next = self.build(epoch)?;
        if !records.is_empty() {
            let summary = summarise(lines);
            effects.change = Some(Change { epoch, at: now, kind, actor, reason, summary, services: records });
        }
        Ok((next, effects))
    }

    /// Gives every service that really changed its epoch and phase, and says which versions left or returned.
    fn settle(&mut self, now: Timestamp, effects: &mut Effects) -> Result<Settled, Refused> {
        let mut settled = Settled::default();
        for record in std::mem::take(&mut self.dropped) {
            settled.lines.push(format!("{}: dropped", record.service));
            settled.records.push(record);
        }
        for (name, item) in &mut self.services {
            let base = self.base.table.index(name);
            let base =
                base.map(|index| (&*self.base.table.services()[index], &*self.base.deployments[index]));
            if !self.by_supervision.contains(name) {
                let (wish, is_way_back) = (self.wishes.get(name).copied(), self.ways_back.contains(name));
                self.notes.extend(item.settle_trial(base, wish, is_way_back, (now, self.epoch)));
            }
            self.notes.extend(item.settle_ramp(self.epoch));
            self.notes.extend(item.settle_retirement(self.epoch));
            if let Some((service, _)) = base {
                let may_be_left = self.configured || item.is_tried_since(self.epoch);
                self.notes.extend(item.check_measure(service, may_be_left)?);
            }
            self.notes.extend(item.settle_way_back(base));
            self.notes.extend(item.settle_rules_of_way_back());
            self.notes.extend(item.settle_mirror());
            item.service.watch = item.watch();
            item.number_rules();
            item.settle_pins();
            if let Some((service, deployment)) = base {
                item.settle_phase(name, service, deployment, effects);
            }
            let after = ServiceRecord::of(&item.service, &item.deployment);
            let before = item.before.as_ref();
            // A hold is in the table and in the history, and in no record: nothing begins held.
            let held = base.map(|(service, _)| service.holds).unwrap_or_default();
            let held_as_before = item.service.holds == held;
            let same = before.filter(|before| held_as_before && before.says_as(&after));
            if let Some(same) = same {
                item.service.epoch = same.epoch;
                if same.standing != after.standing {
                    effects.restated.push(ServiceRecord { epoch: same.epoch, ..after });
                }
                continue;
            }
            item.service.epoch = self.epoch;
            let now = (&item.service, &item.deployment);
            settled.lines.push(describe(base.map(|(service, _)| service), before, now));
            settled.records.push(ServiceRecord { epoch: self.epoch, ..after });
        }
        let gone = self
            .base
            .table
            .services()
            .iter()
            .filter(|service| self.configured && !self.services.contains_key(&service.name));
        for service in gone {
            effects
                .left
                .extend(service.split.versions().map(|version| (service.name.clone(), version.clone())));
        }
        Ok(settled)
    }

    fn build(self, epoch: Epoch) -> Result<State, Refused> {
        let mut next = self.base.clone();
        if self.configured {
            // The map is sorted by name, and so are the table's services: the two lists stay parallel.
            let items = self.services.into_values().map(|item| item.share(self.base));
            let (services, deployments) = items.unzip();
            return Ok(State { table: Arc::new(Table::build(epoch, services)?), deployments });
        }
        let mut changed = Vec::with_capacity(self.services.len());
        for (name, item) in self.services {
            if let Some(index) = self.base.table.index(&name) {
                let (service, deployment) = item.share(self.base);
                next.deployments[index] = deployment;
                changed.push((index, service));
            }
        }
        next.table = Arc::new(self.base.table.with(epoch, changed));
        Ok(next)
    }
}

/// The endpoints of a version that served in `old` and do not any more.
fn out(name: &ServiceName, old: &Service, new: &VersionSpec) -> Vec<Out> {
    let served = old.version(&new.name).into_iter().flat_map(VersionSpec::serving);
    let out = served.filter(|endpoint| !new.serving().any(|serving| serving == *endpoint));
    let named = |endpoint: &EndpointAddr| {
        let (service, version) = (name.clone(), new.name.clone());
        Out { service, version, endpoint: endpoint.clone() }
    };
    out.map(named).collect()
}

impl Item {
    /// Keeps the way back true: it leads to another split than the present one, over versions that exist.
    ///
    /// Gives a note when it is lost.
    fn settle_way_back(&mut self, base: Option<(&Service, &Deployment)>) -> Option<String> {
        let Self { service, deployment, .. } = self;
        // Edits that moved nothing in the end (a batch there and back) are no step to take back.
        // So is a retirement, which leads elsewhere than what was before it.
        if let Some((old, before)) = base.filter(|_| deployment.retirement.is_none())
            && (&old.split, &old.stable) == (&service.split, &service.stable)
        {
            deployment.previous.clone_from(&before.previous);
        }
        // To where supervision went by itself is no step, and once that is what is asked for it is none to take back.
        let asked = deployment.trial.as_ref().map_or(&service.split, |trial| &trial.asked);
        let here = (asked, &service.stable);
        deployment.previous.take_if(|way_back| (&way_back.split, &way_back.stable) == here);
        let way_back = deployment.previous.as_ref()?;
        let name = &service.name;
        let needs = || way_back.split.shares().map(|(version, _)| version);
        let gone = needs().find(|version| service.version(version).is_none()).cloned();
        if let Some(gone) = gone {
            let note = format!(
                "`{name}` cannot be reverted any more: its split before needs `{gone}`, which is gone"
            );
            deployment.previous = None;
            return Some(note);
        }
        // Its endpoints may come again, and with them the way back.
        let served = |version: &VersionName| base.is_some_and(|(old, _)| serves(&old.versions, version));
        let empty = needs().find(|version| served(version) && !serves(&service.versions, version))?;
        Some(format!("`{name}` cannot be reverted while no endpoint of `{empty}` serves"))
    }

    /// The phase after the step from `old`, whether it moved weights, and which versions left or returned by it, or which of their
    /// endpoints are out.
    fn settle_phase(
        &mut self,
        name: &ServiceName,
        old: &Service,
        before: &Deployment,
        effects: &mut Effects,
    ) {
        let split = &self.service.split;
        let is_served = |version: &&VersionName| split.leads_to(version);
        let was_served = |version: &&VersionName| old.split.leads_to(version);
        let leaving = before.phase.leaving().iter().filter(|version| !is_served(version));
        let left: Vec<_> = old.split.versions().filter(|version| !is_served(version)).collect();
        let returned = split.versions().filter(|version| !was_served(version));
        self.deployment.phase = Phase::of(split, left.iter().copied().chain(leaving).cloned().collect());
        let named = |version: &VersionName| (name.clone(), version.clone());
        if !split.weighs_as(&old.split) {
            effects.moved.push((name.clone(), old.split.clone()));
        }
        effects.left.extend(left.into_iter().map(named));
        effects.returned.extend(returned.map(named));
        effects.out.extend(self.service.versions.iter().flat_map(|new| out(name, old, new)));
    }

    /// The finished service: the base's own value where nothing is different, so that nobody looks at it again.
    fn share(self, base: &State) -> (Arc<Service>, Arc<Deployment>) {
        let Self { service, deployment, .. } = self;
        let Some(index) = base.table.index(&service.name) else {
            return (Arc::new(service), Arc::new(deployment));
        };
        let (old_service, old_deployment) = (&base.table.services()[index], &base.deployments[index]);
        let service = if **old_service == service { Arc::clone(old_service) } else { Arc::new(service) };
        let same = **old_deployment == deployment;
        (service, if same { Arc::clone(old_deployment) } else { Arc::new(deployment) })
    }
}
