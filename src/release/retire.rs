//! A retirement: who is on a version stays there until nobody of them comes any more, and nobody new comes.
//!
//! Who is known by a cookie that the proxy has minted is assigned by the weights as they were; who has none is new, and gets an id that
//! belongs elsewhere by these too, so that nobody who came meanwhile is ever moved. When nobody has come for a time, or the whole time is
//! over, the others have everything, by an ordinary change; then the version drains. Where each request has a coin of its own there are
//! no such users: the others have everything at once, and what is in flight is only not told to go.

mod barred;

use std::time::Duration;

pub use barred::Barred;

use super::deployment::{Deployment, Previous};
use super::draft::{Draft, Item};
use super::history::{Actor, Standing, Timestamp};
use super::overlay::carrier;
use super::ramp::RampEnd;
use super::{Refused, trial::Trial};
use crate::table::{
    BasisPoints, Epoch, Service, ServiceName, ServiceSpec, Split, StickyRules, Targeting, VersionName,
};

/// For how long nobody may have come unless something else is said: as long as sessions on the web are mostly kept without a request.
pub const QUIET: Duration = Duration::from_mins(30);
/// How long a retirement takes at most unless something else is said.
pub const LASTS: Duration = Duration::from_hours(24);

/// A retirement under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    /// The epoch of the change that began it; names it.
    pub begun: Epoch,
    /// The version that nobody new comes to.
    pub version: VersionName,
    /// The weights, without rules, by which those stay who are known, and by which nobody new belongs to the version.
    pub split: Split,
    /// By what those are known: the [fingerprint](StickyRules::fingerprint) of the service's rules.
    pub users: u64,
    /// For how long nobody may have come to it, for it to be over.
    pub quiet: Duration,
    /// When it is over in any case, by the calendar.
    pub until: Timestamp,
    /// How long that was when `until` was written.
    pub lasts: Duration,
    /// Who began it: its end is theirs.
    pub actor: Actor,
    /// Why; may be empty.
    pub reason: String,
}

/// A retirement that is over: the last one of its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// The epoch of the change that began it.
    pub begun: Epoch,
    /// The version.
    pub version: VersionName,
    /// How it ended.
    pub how: RampEnd,
    /// The epoch of the change that ended it; `begun` where there were no users to wait for.
    pub epoch: Epoch,
}

impl Retirement {
    /// How much of its time is left by the calendar, and never more than there was.
    #[must_use]
    pub fn left(&self, at: Timestamp) -> Duration {
        Duration::from_millis(self.until.0.saturating_sub(at.0)).min(self.lasts)
    }

    /// False when only rules have sent anybody to the version: whom they sent is not known by a cookie.
    fn is_shared(&self) -> bool {
        self.split.weight(&self.version) > BasisPoints::NONE
    }

    /// What the others have without it, with what is left of these rules.
    fn others(&self, stable: &VersionName, rules: &Targeting) -> Split {
        let split = self.split.giving(&self.version, BasisPoints::NONE, stable);
        split.targeting(rules.without(&self.version))
    }

    /// True when it is told by `rules` who is new, and who is not is known by the same keys as when it began.
    fn knows(&self, rules: Option<&StickyRules>) -> bool {
        rules.is_some_and(|rules| rules.by.mints() && rules.fingerprint() == self.users)
    }

    fn start(&mut self, now: Timestamp, lasts: Duration) {
        let millis = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        (self.lasts, self.until) = (lasts, Timestamp(now.0.saturating_add(millis)));
    }

    /// True while the service stands as it was then, or as supervision leans back from that, and knows who is new.
    fn holds(&self, service: &Service, trial: Option<&Trial>) -> bool {
        let mut needed = self.split.shares().map(|(version, _)| version);
        needed.all(|version| service.version(version).is_some())
            && self.knows(service.sticky.as_ref().map(|sticky| &sticky.rules))
            && (service.split.weighs_as(&self.split)
                || trial.is_some_and(|trial| trial.asked.weighs_as(&self.split)))
    }

    fn over(&self, how: RampEnd, epoch: Epoch) -> Retired {
        Retired { begun: self.begun, version: self.version.clone(), how, epoch }
    }
}

/// What is remembered of a service as far as the file lets it stand: where it does not know any more who was there, the others have everything.
pub(super) fn as_far_as_known(spec: &ServiceSpec, standing: &Standing) -> Standing {
    let mut standing = standing.clone();
    let rules = spec.sticky.as_deref();
    if let Some(retirement) = standing.retirement.take_if(|retirement| !retirement.knows(rules)) {
        standing.split = retirement.others(&standing.stable, standing.split.rules());
    }
    standing
}

impl Draft<'_> {
    /// Nobody new comes to the version that is tried. What is said of a retirement under way holds from now on.
    pub(super) fn retire(
        &mut self,
        name: &ServiceName,
        quiet: Option<Duration>,
        lasts: Option<Duration>,
    ) -> Result<(), Refused> {
        let now = self.now;
        if let Some(retirement) = &mut self.entry(name)?.deployment.retirement {
            retirement.quiet = quiet.unwrap_or(retirement.quiet);
            if let Some(lasts) = lasts {
                retirement.start(now, lasts);
            }
            return Ok(());
        }
        let version = self.whom_to_retire(name)?;
        self.check_not_suspect(name)?;
        let (begun, actor, reason) = (self.epoch, self.actor.clone(), self.reason.clone());
        self.end_ramp(name, RampEnd::Superseded)?;
        self.send_away(name, &version)?;
        let service = &self.entry(name)?.service;
        let split = service.split.clone().targeting(Targeting::default());
        let (until, lasts) = (now, lasts.unwrap_or(LASTS));
        let (quiet, rules) =
            (quiet.unwrap_or(QUIET), service.sticky.as_ref().map(|sticky| sticky.rules.clone()));
        let users = rules.as_ref().map_or(0, |rules| rules.fingerprint());
        let mut retirement = Retirement { begun, version, split, users, quiet, until, lasts, actor, reason };
        retirement.start(now, lasts);
        match rules.map(|rules| rules.by.clone()).filter(|_| retirement.is_shared()) {
            Some(by) if by.mints() => self.entry(name)?.deployment.retirement = Some(retirement),
            Some(by) => {
                let (service, stable) = (name.clone(), service.stable.clone());
                return Err(Barred::NobodyIsNew { service, version: retirement.version, by, stable }.into());
            }
            None => {
                self.lasting.insert(name.clone(), lasts);
                self.leave_to_others(name, &retirement)?;
            }
        }
        Ok(())
    }

    /// Nobody has come for so long, or the time is over.
    pub(super) fn end_of_retirement(&mut self, name: &ServiceName, begun: Epoch) -> Result<(), Refused> {
        let retirement = self.entry(name)?.deployment.retirement.clone();
        let retirement = retirement.filter(|retirement| retirement.begun == begun);
        let retirement = retirement.ok_or_else(|| Refused::NoRamp { service: name.clone() })?;
        self.leave_to_others(name, &retirement)
    }

    /// The others have everything, and have to be ready for it: nobody hurries. No step to take back; where only rules led to the
    /// version none was made, and the one before it is still the last.
    fn leave_to_others(&mut self, name: &ServiceName, retirement: &Retirement) -> Result<(), Refused> {
        let Item { service, .. } = self.entry(name)?;
        let split = retirement.others(&service.stable, service.split.rules());
        self.set_split(name, split)?;
        let epoch = self.epoch;
        let deployment = &mut self.entry(name)?.deployment;
        deployment.retirement = None;
        deployment.previous.take_if(|_| retirement.is_shared());
        deployment.retired = Some(retirement.over(RampEnd::Finished, epoch));
        Ok(())
    }

    /// The version that is tried against stable; who ramps up to be stable is none.
    fn whom_to_retire(&mut self, name: &ServiceName) -> Result<VersionName, Refused> {
        let Item { service, deployment, .. } = self.entry(name)?;
        let is_tried = deployment.ramp.as_ref().is_none_or(|ramp| ramp.to != service.stable);
        let candidate = deployment.candidate(service).filter(|_| is_tried).cloned();
        let stable = service.stable.clone();
        candidate.ok_or_else(|| Barred::Nothing { service: name.clone(), stable }.into())
    }

    /// A retirement that is under way is over.
    pub(super) fn end_retirement(&mut self, name: &ServiceName, how: RampEnd) -> Result<(), Refused> {
        let epoch = self.epoch;
        let deployment = &mut self.entry(name)?.deployment;
        let Some(retirement) = deployment.retirement.take() else { return Ok(()) };
        deployment.retired = Some(retirement.over(how, epoch));
        if how == RampEnd::Superseded {
            self.notes.push(is_over(name, &retirement));
        }
        Ok(())
    }

    pub(super) fn check_not_retiring(&mut self, name: &ServiceName) -> Result<(), Refused> {
        match &self.entry(name)?.deployment.retirement {
            Some(retirement) => {
                Err(Barred::Retiring { service: name.clone(), version: retirement.version.clone() }.into())
            }
            None => Ok(()),
        }
    }
}

/// What an undo makes of the retirements of then, of which `restored` tells, and of now: one that has gone on since goes on, and one that
/// is taken up has its time anew. True when that is another one.
pub(super) fn undo_retirement(
    restored: &mut Deployment,
    present: &Deployment,
    (epoch, now): (Epoch, Timestamp),
) -> bool {
    restored.retired.clone_from(&present.retired);
    let begun = |deployment: &Deployment| deployment.retirement.as_ref().map(|retirement| retirement.begun);
    if begun(restored) == begun(present) {
        restored.retirement.clone_from(&present.retirement);
        return false;
    }
    if let Some(retirement) = &mut restored.retirement {
        // Of the one that had its epoch the end is told.
        retirement.begun = epoch;
        retirement.start(now, retirement.lasts);
    }
    true
}

impl Item {
    /// Ends a retirement that no longer stands, and notes that; has who is new go elsewhere while there is one. Where nobody has asked
    /// for its end the others have everything: nobody new comes to the version by it.
    ///
    /// While one is under way the way back leads to where it ends.
    pub(super) fn settle_retirement(&mut self, epoch: Epoch) -> Option<String> {
        let Self { service, deployment, before, .. } = self;
        let trial = deployment.trial.as_ref();
        let fallen = deployment.retirement.take_if(|retirement| !retirement.holds(service, trial));
        if let Some(Retirement { version, .. }) = &fallen
            && service.split.shares().any(|(other, _)| other != version)
        {
            let split = service.split.giving(version, BasisPoints::NONE, &service.stable);
            let (versions, holds) = (std::mem::take(&mut service.versions), service.holds);
            let (stable, epoch) = (carrier(&service.stable, &split), service.epoch);
            *service = Service::new(&deployment.spec, versions, stable, split, epoch).holding(holds);
            // It would lean back to the version.
            deployment.trial = None;
        }
        let retirement = deployment.retirement.as_ref();
        if let Some(retirement) = retirement {
            let stable = service.stable.clone();
            let split = retirement.others(&stable, service.split.rules());
            deployment.previous = Some(Previous { stable, split, exclusive: None });
        }
        service.turn_away(retirement.map(|retirement| (&retirement.version, &retirement.split)));
        let standing = before.as_ref().and_then(|before| before.standing.as_ref());
        let was = fallen.as_ref().or_else(|| standing?.retirement.as_ref())?;
        let is = |begun: Option<Epoch>| begun == Some(was.begun);
        let is_told = is(deployment.retired.as_ref().map(|retired| retired.begun));
        if is_told || is(retirement.map(|retirement| retirement.begun)) {
            return None;
        }
        deployment.retired = Some(was.over(RampEnd::Superseded, epoch));
        Some(is_over(&service.name, was))
    }
}

fn is_over(name: &ServiceName, retirement: &Retirement) -> String {
    format!("the retirement of `{}` of `{name}` is over", retirement.version)
}
