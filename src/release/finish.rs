//! A draft becomes the next state: what really changed gets the epoch, a record and a line of history.

use std::sync::Arc;

use super::deployment::Phase;
use super::draft::{Draft, Item};
use super::history::{Actor, Change, ChangeKind, ServiceRecord, Timestamp};
use super::{Effects, Refused, State};
use crate::table::{BasisPoints, Epoch, Table};

impl Draft<'_> {
    /// The next state, if the draft differs from the base; else the base and no change.
    pub(super) fn finish(
        mut self,
        kind: ChangeKind,
        actor: Actor,
        reason: String,
        now: Timestamp,
    ) -> Result<(State, Effects), Refused> {
        let mut effects = Effects { notes: std::mem::take(&mut self.notes), ..Effects::default() };
        let mut records = std::mem::take(&mut self.dropped);
        records.extend(self.settle(&mut effects));
        let epoch = if records.is_empty() { self.base.table.epoch() } else { self.epoch };
        let next = self.build(epoch)?;
        if !records.is_empty() {
            let summary = summarise(&records);
            effects.change = Some(Change { epoch, at: now, kind, actor, reason, summary, services: records });
        }
        Ok((next, effects))
    }

    /// Gives every service that really changed its epoch and phase, and says which versions left or returned.
    fn settle(&mut self, effects: &mut Effects) -> Vec<ServiceRecord> {
        let mut records = Vec::new();
        for (name, Item { service, deployment, before }) in &mut self.services {
            if let Some(index) = self.base.table.index(name) {
                let (old, phase) =
                    (&self.base.table.services()[index].split, &self.base.deployments[index].phase);
                let (returned, leaving): (Vec<_>, Vec<_>) = phase
                    .leaving()
                    .iter()
                    .partition(|version| service.split.weight(version) > BasisPoints::NONE);
                let left = old.shares().map(|(version, _)| version);
                let left: Vec<_> =
                    left.filter(|version| service.split.weight(version) == BasisPoints::NONE).collect();
                deployment.phase =
                    Phase::of(&service.split, left.iter().chain(&leaving).copied().cloned().collect());
                effects.left.extend(left.into_iter().map(|version| (name.clone(), version.clone())));
                effects.returned.extend(returned.into_iter().map(|version| (name.clone(), version.clone())));
            }
            let after = ServiceRecord::of(service, deployment);
            let same = before.as_ref().is_some_and(|before| before.standing == after.standing);
            if !same {
                service.epoch = self.epoch;
                records.push(ServiceRecord { epoch: self.epoch, ..after });
            } else if let Some(before) = before {
                service.epoch = before.epoch;
            }
        }
        for record in self.base.table.services().iter().filter(|_| self.configured) {
            if !self.services.contains_key(&record.name) {
                let left = record.split.shares().map(|(version, _)| (record.name.clone(), version.clone()));
                effects.left.extend(left);
            }
        }
        records
    }

    fn build(self, epoch: Epoch) -> Result<State, Refused> {
        if self.configured {
            // The map is sorted by name, and so are the table's services: the two lists stay parallel.
            let items = self.services.into_values();
            let (services, deployments) =
                items.map(|item| (Arc::new(item.service), Arc::new(item.deployment))).unzip();
            return Ok(State { table: Arc::new(Table::build(epoch, services)?), deployments });
        }
        let mut next = self.base.clone();
        let mut changed = Vec::with_capacity(self.services.len());
        for (name, item) in self.services {
            if let Some(index) = self.base.table.index(&name) {
                next.deployments[index] = Arc::new(item.deployment);
                changed.push((index, Arc::new(item.service)));
            }
        }
        next.table = Arc::new(self.base.table.with(epoch, changed));
        Ok(next)
    }
}

/// `shop: blue 95 %, green 5 %; cart: dropped`.
fn summarise(records: &[ServiceRecord]) -> String {
    const MOST: usize = 8;
    let line = |record: &ServiceRecord| match &record.standing {
        Some(standing) => format!("{}: {}", record.service, standing.split),
        None => format!("{}: dropped", record.service),
    };
    let mut lines: Vec<_> = records.iter().take(MOST).map(line).collect();
    if records.len() > MOST {
        lines.push(format!("and {} more", records.len() - MOST));
    }
    lines.join("; ")
}
