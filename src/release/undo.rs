//! An undo: every service that has changed since an epoch goes back to where it was then.

use super::deployment::{Deployment, Previous};
use super::draft::Draft;
use super::history::{ServiceRecord, Standing};
use super::overlay::{restore, serves};
use super::retire::undo_retirement;
use super::targeting::told;
use super::{Refused, Scopes};
use crate::table::{Epoch, VersionName};

impl Draft<'_> {
    /// Every service that has changed since goes back to where it was then.
    pub(super) fn undo(
        &mut self,
        to: Epoch,
        records: &[ServiceRecord],
        scopes: &Scopes,
    ) -> Result<(), Refused> {
        let changed = self.base.table.services().iter().filter(|service| service.epoch > to);
        for name in changed.map(|service| &service.name) {
            let then = records.iter().find(|record| record.service == *name);
            let Some(standing) = then.and_then(|record| record.standing.as_ref()) else {
                if scopes.read(name.as_str()) {
                    self.notes.push(format!("`{name}` did not exist at epoch {to}; it stays as it is"));
                }
                continue;
            };
            let (epoch, now) = (self.epoch, self.now);
            let item = self.entry(name)?;
            // What is to be found is not where traffic goes.
            let standing = &Standing { discovered: item.deployment.discovered.clone(), ..standing.clone() };
            let gone = |version| Refused::Gone { to, service: name.clone(), version };
            // Nobody is sent where nobody serves, unless he is already.
            let before = &item.service;
            let is_so = |version: &VersionName| {
                let is_more = standing.split.weight(version) > before.split.weight(version);
                before.split.leads_to(version) && !is_more && !serves(&before.versions, version)
            };
            let restored = restore(&item.deployment.spec, standing, epoch, is_so);
            let (service, mut deployment) = restored.map_err(gone)?;
            let lost = standing.split.rules().beyond(service.split.rules());
            // A ramp that is over is not taken up; one goes on that has not moved since, and is not moved by this.
            let is_same = service.split.weighs_as(&item.service.split);
            let ramps = deployment.ramp.take().zip(item.deployment.ramp.take()).filter(|_| is_same);
            deployment.ramp = ramps.and_then(|(then, ramp)| ramp.undone_to(&then, now));
            item.deployment.ramp.clone_from(&deployment.ramp);
            deployment.ramped.clone_from(&item.deployment.ramped);
            // Nor do copies come again to what has had traffic since.
            deployment.mirror_over.clone_from(&item.deployment.mirror_over);
            let retires = undo_retirement(&mut deployment, &item.deployment, (epoch, now));
            let present = (&item.service.split, &item.service.stable, &item.deployment.edits);
            let stage = |deployment: &Deployment| deployment.trial.as_ref().map(|trial| trial.stage);
            let is_other = stage(&deployment) != stage(&item.deployment);
            // Where supervision leans back to is not where it stays.
            let leans = item.deployment.trial.as_ref().is_some_and(|trial| trial.leans(&item.service.split));
            // What leads nowhere any more does not come back.
            let leads = |to: &VersionName| service.split.leads_to(to) || serves(&service.versions, to);
            let asked = standing.rules().to_those(leads);
            let is_elsewhere =
                (&service.split, &service.stable, &deployment.edits) != present || asked != item.rules();
            if is_elsewhere || retires || is_other && leans {
                // What was tried then and still is goes on; anything else that was is over. Rules alone move nothing.
                let is_moved = !is_same || is_other;
                let (stable, split) = (item.service.stable.clone(), item.service.split.clone());
                let is_step = is_moved || retires || stable != service.stable;
                // Undoing is itself a step that can be reverted.
                let here = is_step.then_some(Previous { stable, split, exclusive: None });
                deployment.previous = here.or_else(|| item.deployment.previous.clone());
                let holds = item.service.holds;
                (item.service, item.deployment) = (service.holding(holds), deployment);
                item.is_undone = true;
                if is_moved {
                    self.ways_back.insert(name.clone());
                    let passed_over = standing.rules().beyond(standing.split.rules());
                    self.note_gone(name, &passed_over, "supervision passed over then what led there");
                } else {
                    item.rules_asked = Some(asked);
                }
            }
            if scopes.read(name.as_str()) {
                let what = ["does not come back", "do not come back"];
                self.notes.extend(told(name, &lost, what, "what it led to is gone or empty"));
            }
        }
        let stood = records.iter().filter(|record| record.standing.is_some()).map(|record| &record.service);
        let told = stood.filter(|name| scopes.read(name.as_str()));
        for name in told.filter(|name| self.base.table.service(name).is_none()) {
            self.notes.push(format!("`{name}` is no longer in the file; it does not come back"));
        }
        Ok(())
    }
}
