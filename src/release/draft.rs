//! A change in the making: edits are applied to a copy, and only a draft that is whole becomes the next state.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::deployment::{Deployment, Previous};
use super::gate::Bereft;
use super::history::{Actor, ServiceRecord, Standing, Timestamp};
use super::overlay::{carrier, initial, is_usable, restore, still_holding, until_found, without_the_gone};
use super::ramp::RampEnd;
use super::{Command, Refused, State, Supervise};
use crate::table::{
    BasisPoints, Epoch, HoldScope, Holder, Service, ServiceName, ServiceSpec, Split, Targeting, VersionName,
    VersionRef, VersionSpec,
};

/// The services as they will be.
pub(super) struct Draft<'s> {
    pub(super) base: &'s State,
    pub(super) epoch: Epoch,
    /// When, and by whom and why.
    pub(super) now: Timestamp,
    pub(super) actor: Actor,
    pub(super) reason: String,
    /// The services touched so far; all of them when the file was read.
    pub(super) services: BTreeMap<ServiceName, Item>,
    /// True when the file was read: services that are not here are gone.
    pub(super) configured: bool,
    pub(super) notes: Vec<String>,
    pub(super) dropped: Vec<ServiceRecord>,
    /// What is wanted of supervision, where a flip or weights say so.
    pub(super) wishes: BTreeMap<ServiceName, Supervise>,
    /// The services in which supervision itself acts.
    pub(super) by_supervision: BTreeSet<ServiceName>,
    /// The services that go back to where they were.
    pub(super) ways_back: BTreeSet<ServiceName>,
    /// The services whose lasting work on what they leave is not told to go before this long.
    pub(super) lasting: BTreeMap<ServiceName, Duration>,
    /// What was done although endpoints are not well.
    pub(super) forced: Vec<String>,
}

/// A service in the making.
pub(super) struct Item {
    pub(super) service: Service,
    pub(super) deployment: Deployment,
    /// What was remembered of it before.
    pub(super) before: Option<ServiceRecord>,
    /// Which requests were with nobody else when everything went to one version just now, if any.
    pub(super) exclusive: Option<HoldScope>,
    /// True when supervision takes traffic away from the candidate.
    pub(super) leaves_suspect: bool,
    /// The version to which a ramp gives more just now.
    pub(super) rising: Option<VersionName>,
    /// The targeting rules that are wanted just now, whether supervision lets all of them hold or not.
    pub(super) rules_asked: Option<Targeting>,
    /// True when an undo has brought it back: nobody's health bars that.
    pub(super) is_undone: bool,
}

impl Item {
    fn of(service: Service, deployment: Deployment, before: Option<ServiceRecord>) -> Self {
        let (exclusive, rising, rules_asked, leaves_suspect, is_undone) = Default::default();
        Self { service, deployment, before, exclusive, leaves_suspect, rising, rules_asked, is_undone }
    }
}

impl<'s> Draft<'s> {
    pub(super) fn of(base: &'s State, (now, actor, reason): (Timestamp, &Actor, &str)) -> Self {
        let epoch = base.table.epoch().next();
        Self {
            base,
            epoch,
            now,
            actor: actor.clone(),
            reason: reason.to_owned(),
            services: BTreeMap::new(),
            configured: false,
            notes: Vec::new(),
            dropped: Vec::new(),
            wishes: BTreeMap::new(),
            by_supervision: BTreeSet::new(),
            ways_back: BTreeSet::new(),
            lasting: BTreeMap::new(),
            forced: Vec::new(),
        }
    }

    /// Applies one command.
    pub(super) fn apply(&mut self, command: Command) -> Result<(), Refused> {
        match command {
            Command::Flip { service, to, supervise, interrupts } => {
                self.check_interrupts(&service, interrupts)?;
                self.flip(&service, &to, supervise)
            }
            Command::Revert { service } => self.revert(&service),
            Command::SetWeights { service, weights, rest, supervise } => {
                self.wishes.insert(service.clone(), supervise);
                self.set_weights(&service, weights, rest.as_ref())
            }
            Command::SetRules { service, rules } => self.set_rules(&service, rules),
            Command::Ramp { service, order } => self.ramp(&service, order),
            Command::PutVersion { service, version } => self.put_version(&service, version),
            Command::RemoveVersion { service, version } => self.remove_version(&service, &version),
            Command::PutEndpoint { service, version, endpoint, traits } => {
                self.put_endpoint(&service, &version, endpoint, traits)
            }
            Command::RemoveEndpoint { service, version, endpoint } => {
                self.remove_endpoint(&service, &version, &endpoint)
            }
            Command::Hold { service, holder, scope, timeout } => self.hold(&service, holder, scope, timeout),
            Command::Release { service, holder } => self.release(&service, holder),
            Command::Switch { service, to, scope, supervise } => {
                self.release(&service, Holder::Exclusive)?;
                self.entry(&service)?.exclusive = Some(scope);
                self.flip(&service, &to.into(), supervise)
            }
            Command::DrainEndpoint { service, version, endpoint } => {
                self.drain_endpoint(&service, &version, &endpoint)
            }
            Command::EndDrain { service, version, endpoint } => self.end_drain(&service, &version, &endpoint),
            Command::Discover { service, version, endpoints } => self.discover(&service, &version, endpoints),
            Command::Supervise { service, stage, act } => self.supervise(&service, stage, act),
            Command::Batch(commands) if commands.is_empty() => Err(Refused::EmptyChange),
            Command::Batch(commands) => commands.into_iter().enumerate().try_for_each(|(index, command)| {
                let applied = match command {
                    Command::Ramp { service, .. } => Err(Refused::RampInBatch { service }),
                    command => self.apply(command),
                };
                applied.map_err(|why| Refused::Edit { index, why: Box::new(why) })
            }),
            Command::Undo { to, records, scopes } => self.undo(to, &records, &scopes),
            Command::Configure { services, records } => self.configure(services, &records),
        }
    }

    fn flip(&mut self, name: &ServiceName, to: &VersionRef, supervise: Supervise) -> Result<(), Refused> {
        self.wishes.insert(name.clone(), supervise);
        let version = self.resolve(name, to)?;
        self.end_ramp(name, RampEnd::Superseded)?;
        self.note_flip(name)?;
        self.set_split(name, Split::all_to(version))
    }

    /// The split as it was before, with the rules of then.
    fn revert(&mut self, name: &ServiceName) -> Result<(), Refused> {
        let before = self.entry(name)?.rules();
        let previous = self.way_back(name)?;
        self.go_back(name, previous)?;
        let now = self.entry(name)?.service.split.rules().clone();
        self.note_gone(name, &before.beyond(&now), "a revert brings back those of before");
        self.note_again(name, &before, &now);
        Ok(())
    }

    /// Where a revert leads.
    pub(super) fn way_back(&mut self, name: &ServiceName) -> Result<Previous, Refused> {
        let nothing = || Refused::NothingToRevert { service: name.clone() };
        self.entry(name)?.deployment.previous.clone().ok_or_else(nothing)
    }

    /// All of it goes back to this; what is under way is over.
    pub(super) fn go_back(&mut self, name: &ServiceName, previous: Previous) -> Result<(), Refused> {
        self.end_ramp(name, RampEnd::Aborted)?;
        self.set_split(name, previous.split)?;
        self.ways_back.insert(name.clone());
        let Item { service, deployment, .. } = self.entry(name)?;
        deployment.previous = None;
        if service.split.weight(&previous.stable) > BasisPoints::NONE {
            service.stable = previous.stable;
        }
        Ok(())
    }

    fn set_weights(
        &mut self,
        name: &ServiceName,
        weights: Vec<(VersionRef, BasisPoints)>,
        rest: Option<&VersionRef>,
    ) -> Result<(), Refused> {
        let named = weights.into_iter().map(|(version, weight)| Ok((self.resolve(name, &version)?, weight)));
        let mut weights: Vec<_> = named.collect::<Result<_, Refused>>()?;
        if let Some(rest) = rest {
            let rest = self.resolve(name, rest)?;
            let given: u64 = weights.iter().map(|(_, weight)| u64::from(weight.points())).sum();
            let missing = u64::from(BasisPoints::ALL.points()).saturating_sub(given);
            if !weights.iter().any(|(version, _)| *version == rest) {
                weights.push((rest, BasisPoints::new(missing).unwrap_or_default()));
            }
        }
        let split = Split::new(weights).map_err(|why| Refused::BadWeights { service: name.clone(), why })?;
        self.end_ramp(name, RampEnd::Superseded)?;
        let rules = self.rules_with(name, &split)?;
        let (epoch, item) = (self.epoch, self.entry(name)?);
        let is_same = split.weighs_as(&item.service.split);
        if is_same && rules != *item.service.split.rules() {
            // Weights to which supervision leans back are asked for: no step, but its rules are not passed over any more.
            item.aim(rules, epoch);
            return Ok(());
        }
        self.set_split(name, split.targeting(rules))
    }

    /// The file says what exists; what it does not say stays: the store's records at start, the present on a reload.
    fn configure(&mut self, specs: Vec<ServiceSpec>, records: &[ServiceRecord]) -> Result<(), Refused> {
        let base = self.base.table.services().iter().zip(&self.base.deployments);
        let mut remembered: BTreeMap<_, _> =
            records.iter().map(|record| (&record.service, record.clone())).collect();
        remembered.extend(
            base.map(|(service, deployment)| (&service.name, ServiceRecord::of(service, deployment))),
        );
        for spec in specs {
            let before = remembered.remove(&spec.name).filter(|record| record.standing.is_some());
            let name = spec.name.clone();
            let mut item = self.lay_over(Arc::new(spec), before)?;
            item.service.holds =
                self.base.table.service(&name).map(|present| present.holds).unwrap_or_default();
            self.services.insert(name, item);
        }
        let gone = remembered.into_values().filter(|record| record.standing.is_some());
        let epoch = self.epoch;
        self.dropped.extend(gone.map(|record| ServiceRecord { epoch, standing: None, ..record }));
        for record in &self.dropped {
            self.notes.push(format!("service `{}` is no longer in the file; dropped", record.service));
        }
        self.configured = true;
        Ok(())
    }

    /// A service of the file with what is remembered of it laid over.
    fn lay_over(&mut self, spec: Arc<ServiceSpec>, before: Option<ServiceRecord>) -> Result<Item, Refused> {
        let bad = |why| Refused::BadWeights { service: spec.name.clone(), why };
        let Some((epoch, standing)) = before.as_ref().and_then(|r| Some((r.epoch, r.standing.as_ref()?)))
        else {
            let (service, deployment) = initial(&spec, self.epoch).map_err(bad)?;
            return Ok(Item::of(service, deployment, before));
        };
        let index = self.base.table.index(&spec.name);
        let present =
            index.map(|index| (&*self.base.table.services()[index], &*self.base.deployments[index]));
        let discovered = until_found(&spec, standing, present);
        let standing = &Standing { discovered, ..standing.clone() };
        let (kept, overruled) = still_holding(&spec, &standing.edits, &standing.discovered);
        for version in overruled {
            let name = &spec.name;
            let but = if kept.contains_key(&version) { ", but for what drains" } else { "" };
            self.notes.push(format!(
                "the file's `{version}` of `{name}` changed; the API's edits of it are dropped{but}"
            ));
        }
        let (service, deployment) = match restore(&spec, standing, epoch, |_| true) {
            Ok(restored) => restored,
            Err(gone) => {
                let (service, deployment) = without_the_gone(&spec, standing, epoch).map_err(bad)?;
                let (name, split) = (&spec.name, &service.split);
                self.notes
                    .push(format!("version `{gone}` of `{name}` carried traffic and is gone: now {split}"));
                (service, deployment)
            }
        };
        // A list that came out empty is a slip, as it is in the first weights. At a start somebody has to serve.
        let is_left_empty = |version: &&VersionName| {
            service.version(version).is_some() && !is_usable(&spec, &service.versions, version)
        };
        if let Some(version) = standing.split.versions().find(is_left_empty).filter(|_| present.is_some()) {
            let (service, weight) = (spec.name.clone(), standing.split.weight(version));
            return Err(Bereft::LeftEmpty { service, version: version.clone(), weight }.into());
        }
        self.note_lost(&spec.name, standing.split.rules(), service.split.rules());
        if present.is_some_and(|(_, present)| present.spec.targeting != spec.targeting) {
            let (name, rules) = (&spec.name, service.split.rules());
            self.notes
                .push(format!("the file's rules of `{name}` are only its first ones; it stays at {rules}"));
        }
        if present.is_some_and(|(_, present)| present.spec.weights != spec.weights) {
            let (name, split) = (&spec.name, &service.split);
            self.notes
                .push(format!("the file's weights of `{name}` are only its first ones; it stays at {split}"));
        }
        Ok(Item::of(service, deployment, before))
    }

    /// Moves the weights, remembers the way back, and keeps `stable` on a version that has weight.
    pub(super) fn set_split(&mut self, name: &ServiceName, split: Split) -> Result<(), Refused> {
        let epoch = self.epoch;
        let before = self.base.table.service(name).cloned();
        let split = self.without_the_lost(name, split)?;
        let Item { service, deployment, exclusive, rules_asked, .. } = self.entry(name)?;
        for (version, _) in split.shares() {
            match service.version(version) {
                Some(spec) if spec.serving().next().is_none() => {
                    return Err(Refused::EmptyVersion { service: name.clone(), version: version.clone() });
                }
                Some(_) => {}
                None => return Err(unknown(service, &version.clone().into())),
            }
        }
        if split == service.split {
            return Ok(());
        }
        *rules_asked = None;
        // Who insists on the weights from which supervision leans back takes nothing of their own back.
        let insisted = deployment.trial.as_ref().filter(|trial| trial.asked == split);
        let stable = carrier(insisted.map_or(&service.stable, |trial| &trial.stable), &split);
        if let Some(before) = before.filter(|_| insisted.is_none()) {
            let (stable, split) = (before.stable.clone(), before.split.clone());
            deployment.previous = Some(Previous { stable, split, exclusive: *exclusive });
        }
        let (versions, holds) = (std::mem::take(&mut service.versions), service.holds);
        *service = Service::new(&deployment.spec, versions, stable, split, epoch).holding(holds);
        // What goes elsewhere after a way back is none any more.
        self.ways_back.remove(name);
        Ok(())
    }

    /// The service to edit, copied from the base on first touch.
    pub(super) fn entry(&mut self, name: &ServiceName) -> Result<&mut Item, Refused> {
        match self.services.entry(name.clone()) {
            Entry::Occupied(present) => Ok(present.into_mut()),
            Entry::Vacant(vacant) => {
                let unknown = || Refused::UnknownService { service: name.clone() };
                let index = self.base.table.index(name).ok_or_else(unknown)?;
                let service = Service::clone(&self.base.table.services()[index]);
                let deployment = Deployment::clone(&self.base.deployments[index]);
                let before = Some(ServiceRecord::of(&service, &deployment));
                Ok(vacant.insert(Item::of(service, deployment, before)))
            }
        }
    }

    pub(super) fn resolve(
        &mut self,
        name: &ServiceName,
        version: &VersionRef,
    ) -> Result<VersionName, Refused> {
        let Item { service, deployment, .. } = self.entry(name)?;
        deployment.resolve(service, version).cloned().ok_or_else(|| unknown(service, version))
    }

    pub(super) fn version(
        &mut self,
        name: &ServiceName,
        version: &VersionRef,
    ) -> Result<VersionSpec, Refused> {
        let version_name = self.resolve(name, version)?;
        let Item { service, .. } = self.entry(name)?;
        service.version(&version_name).cloned().ok_or_else(|| unknown(service, version))
    }
}

fn unknown(service: &Service, version: &VersionRef) -> Refused {
    let known = service.versions.iter().map(|version| version.name.clone()).collect();
    Refused::UnknownVersion { service: service.name.clone(), version: version.clone(), known }
}
