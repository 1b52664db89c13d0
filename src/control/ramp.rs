//! Ramps go on by themselves: control takes each step when its time is over, as an ordinary change of who began the ramp.
//!
//! When that is is kept on a clock that nobody sets; by the calendar, which alone outlives a process, only what a process finds
//! when it begins and [nobody tells](super::terms). What stands in a step's way is told, and the step is tried again each second; none
//! is skipped for that, and none is taken twice: it names the step that it goes on from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::custody::Custody;
use super::handle::{Handle, Notice, Wanted};
use super::supervisor::Verdicts;
use super::terms::End;
use super::{Control, Failed, clock};
use crate::release::verdict::Standing;
use crate::release::{
    Change, Command, Deployment, Interrupts, Ramp, RampOrder, Ramped, Refused, State, Suspicion, Timestamp,
};
use crate::table::{Epoch, ServiceName};

/// How long after a step could not be taken it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// When the next steps are due, and what is in their way. Locked for a look.
#[derive(Debug, Default)]
pub struct Ramps {
    clocks: Mutex<BTreeMap<ServiceName, Clock>>,
}

/// The step of a ramp that is due by time.
#[derive(Debug, Clone)]
struct Clock {
    begun: Epoch,
    from: usize,
    /// As it is written: a clock goes on while that is the same.
    until: Timestamp,
    due: Instant,
    /// Why it was not taken the last time, and when it is tried again.
    hindrance: Option<(String, Instant)>,
}

impl Clock {
    fn wake(&self) -> Instant {
        self.hindrance.as_ref().map_or(self.due, |(_, again)| *again)
    }
}

/// A ramp stands otherwise than before, or something is in its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RampNotice {
    /// The service.
    pub service: ServiceName,
    /// How it goes on, or how it has ended.
    pub ramp: Result<Ramp, Ramped>,
    /// What supervision has against its version, as it is kept: then no step is due.
    pub suspicion: Option<Suspicion>,
    /// Why its next step, which is due, cannot be taken; it is tried again.
    pub hindrance: Option<String>,
}

impl Ramps {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Clock>> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the state says of these services. `found` is the calendar's time where somebody else may have begun their
    /// steps; `None`: what is new was published just now, and has all of its time from then, however long the store took to keep it.
    pub(super) fn follow<'s>(
        &self,
        state: &State,
        services: impl Iterator<Item = &'s ServiceName>,
        now: Instant,
        found: Option<Timestamp>,
    ) {
        let mut clocks = self.lock();
        for name in services {
            let known = state.table.service(name).zip(state.deployment(name));
            let ramp = known.and_then(|(service, deployment)| {
                deployment.ramp.as_ref().filter(|_| deployment.suspicion(service).is_none())
            });
            let Some((ramp, until)) = ramp.and_then(|ramp| Some((ramp, ramp.until?))) else {
                clocks.remove(name);
                continue;
            };
            let goes_on =
                |clock: &Clock| (clock.begun, clock.from, clock.until) == (ramp.begun, ramp.step, until);
            if !clocks.get(name).is_some_and(goes_on) {
                let left = found.and_then(|at| ramp.left(at)).unwrap_or(ramp.lasts);
                let (begun, from, due) = (ramp.begun, ramp.step, now + left);
                clocks.insert(name.clone(), Clock { begun, from, until, due, hindrance: None });
            }
        }
    }

    /// When the steps are over.
    pub(super) fn ends(&self) -> Vec<(ServiceName, End)> {
        self.lock().iter().map(|(name, clock)| (name.clone(), (clock.until, clock.due))).collect()
    }

    /// The present step of a service is over then, if that is the one.
    pub(super) fn go_on(&self, service: &ServiceName, (until, due): End) {
        if let Some(clock) = self.lock().get_mut(service).filter(|clock| clock.until == until) {
            clock.due = due;
        }
    }

    /// When something is to be done.
    pub(super) fn next(&self) -> Option<Instant> {
        self.lock().values().map(Clock::wake).min()
    }

    /// The steps to be taken now.
    fn due(&self, now: Instant) -> Vec<(ServiceName, Epoch, usize)> {
        let clocks = self.lock();
        let due = clocks.iter().filter(|(_, clock)| clock.wake() <= now);
        due.map(|(name, clock)| (name.clone(), clock.begun, clock.from)).collect()
    }

    /// This step could not be taken; true when why is news.
    fn hindered(
        &self,
        (name, begun, from): &(ServiceName, Epoch, usize),
        why: String,
        again: Instant,
    ) -> bool {
        let mut clocks = self.lock();
        let of_it = |clock: &&mut Clock| (clock.begun, clock.from) == (*begun, *from);
        let Some(clock) = clocks.get_mut(name).filter(of_it) else { return false };
        let is_news = clock.hindrance.as_ref().is_none_or(|(before, _)| *before != why);
        clock.hindrance = Some((why, again));
        is_news
    }

    /// How long it is until the next step of a service's ramp, and what is in its way once it is due; `None`: not by time.
    #[must_use]
    pub fn left(&self, service: &ServiceName) -> Option<(Duration, Option<String>)> {
        let now = clock::instant();
        let clocks = self.lock();
        let clock = clocks.get(service)?;
        let why = clock.hindrance.as_ref().map(|(why, _)| why.clone());
        Some((clock.due.saturating_duration_since(now), why))
    }
}

impl Handle {
    /// What supervision has against the version that a service tries.
    #[must_use]
    pub fn suspicion(&self, service: &ServiceName) -> Option<Suspicion> {
        suspicion(&self.state(), &self.verdicts, service)
    }

    /// When the next steps of ramps are due.
    #[must_use]
    pub fn ramps(&self) -> &Arc<Ramps> {
        &self.ramps
    }

    /// How the ramp that began at this epoch has ended; waits for it. `None`: the service is gone, or others have ended since. Cancel-safe.
    ///
    /// # Errors
    /// [`Failed::Closed`] when the proxy shuts down first; [`Failed::LeftBehind`] when another process takes its place.
    pub async fn ramped(&self, service: &ServiceName, begun: Epoch) -> Result<Option<Ramped>, Failed> {
        let over = self.once(service, |deployment| {
            let is_over = deployment.ramp.as_ref().is_none_or(|ramp| ramp.begun != begun);
            is_over.then(|| deployment.ramped.clone().filter(|ramped| ramped.begun == begun))
        });
        over.await.map(Option::flatten)
    }

    /// What `look` makes of a service's deployment, once it makes anything of it; `None`: the service is gone. Cancel-safe.
    ///
    /// # Errors
    /// [`Failed::Closed`] when the proxy shuts down first; [`Failed::LeftBehind`] when another process takes its place.
    pub(super) async fn once<T>(
        &self,
        service: &ServiceName,
        look: impl Fn(&Deployment) -> Option<T>,
    ) -> Result<Option<T>, Failed> {
        let mut seen = self.seen.clone();
        loop {
            {
                let seen = seen.borrow_and_update();
                if seen.is_past {
                    return Err(Failed::LeftBehind);
                }
                let Some(deployment) = seen.state.deployment(service) else { return Ok(None) };
                if let Some(made) = look(deployment) {
                    return Ok(Some(made));
                }
            }
            seen.changed().await.map_err(|_| Failed::Closed)?;
        }
    }
}

/// What supervision has against the version that a service tries: by what it knows, and after a restart, when nobody judges for
/// a moment, by what is kept.
fn suspicion(state: &State, verdicts: &Verdicts, name: &ServiceName) -> Option<Suspicion> {
    let (service, deployment) = state.table.service(name).zip(state.deployment(name))?;
    let trial = deployment.trial.as_ref()?;
    let is_known = match verdicts.standing_of(name, trial.stage) {
        Some(Standing::Suspect | Standing::Breached | Standing::Held) => true,
        Some(Standing::Collecting | Standing::Healthy) | None => false,
    };
    trial.suspicion(&service.split, is_known)
}

impl Control {
    /// Takes over the ramps and retirements of the present state.
    pub(super) fn follow_ramps(&self) {
        let all = self.state.table.services().iter().map(|service| &service.name);
        self.ramps.follow(&self.state, all.clone(), clock::instant(), Some(clock::now()));
        self.retirements.follow(&self.state, all, clock::instant(), Some(clock::now()));
    }

    /// When a step is due; none while another process may have the store.
    pub(super) fn next_ramp(&self) -> Option<Instant> {
        self.ramps.next().filter(|_| self.custody == Custody::Ours)
    }

    /// Takes the steps that are due.
    pub(super) async fn step_ramps(&mut self) {
        if self.custody != Custody::Ours {
            return;
        }
        for due in self.ramps.due(clock::instant()) {
            let Some(why) = self.try_step(&due).await else { continue };
            if self.ramps.hindered(&due, why, clock::instant() + AGAIN) {
                self.tell_ramp(&due.0);
            }
        }
    }

    /// Takes the step; why not, if it cannot be taken.
    async fn try_step(&mut self, (service, begun, from): &(ServiceName, Epoch, usize)) -> Option<String> {
        let Some(ramp) = self.state.deployment(service).and_then(|deployment| deployment.ramp.clone()) else {
            self.follow_ramps();
            return None;
        };
        // As for every change that is acknowledged.
        if !self.elders.all().iter().all(|elder| elder.is_quiet) {
            return Some("a process before this one may still send requests the old way".to_owned());
        }
        let (step, steps) = (from + 2, ramp.steps.all().len());
        let why = if ramp.reason.is_empty() { String::new() } else { format!(" ({})", ramp.reason) };
        let order = RampOrder::Step { begun: *begun, from: *from };
        let command = Command::Ramp { service: service.clone(), order };
        let wanted = Wanted::plain(command, ramp.actor, format!("ramp, step {step} of {steps}{why}"));
        // What is said of a step that was taken meanwhile, because a store had not said that it had kept it, is not heard.
        Box::pin(self.change(wanted)).await.err().map(|failed| failed.to_string())
    }

    /// What is wanted of a ramp with what control alone knows: how much of a step is left that is frozen.
    ///
    /// # Errors
    /// [`Refused::Suspect`], also of what could not be kept: that traffic leans back may be refused.
    pub(super) fn ramp_asked_for(&self, command: Command) -> Result<Command, Failed> {
        let Command::Ramp { service, order } = command else { return Ok(command) };
        let gives_more =
            matches!(order, RampOrder::Begin { .. } | RampOrder::Step { .. } | RampOrder::Promote { .. });
        let suspicion = suspicion(&self.state, &self.verdicts, &service).filter(|_| gives_more);
        if let Some(Suspicion { version, .. }) = suspicion {
            return Err(Refused::Suspect { service, version }.into());
        }
        let order = match order {
            RampOrder::Freeze { left: None } => {
                let left = self.ramps.left(&service).map(|(left, _)| left);
                RampOrder::Freeze { left }
            }
            order => order,
        };
        Ok(Command::Ramp { service, order })
    }

    /// That no rollout between versions is under way which `command` would neither end nor go beside.
    ///
    /// # Errors
    /// [`Failed::RollingOut`]: two would move the same weights.
    pub(super) fn check_no_rollout(&self, command: &Command) -> Result<(), Failed> {
        let service = match command {
            Command::Flip { service, interrupts: Interrupts::No, .. }
            | Command::Ramp { service, order: RampOrder::Begin { .. } | RampOrder::Retire { .. } } => service,
            Command::Batch(all) => return all.iter().try_for_each(|command| self.check_no_rollout(command)),
            _ => return Ok(()),
        };
        let rollout = self.rollouts.told(service).filter(|told| told.state.is_underway());
        if rollout.is_some_and(|told| told.from != told.to) { Err(Failed::RollingOut) } else { Ok(()) }
    }

    /// Tells how ramps go on, or ended, by this change.
    pub(super) fn tell_ramps(&self, before: &State, change: &Change) {
        for name in change.services.iter().map(|record| &record.service) {
            let of = |state: &State| {
                let deployment = state.deployment(name)?;
                let suspicion = deployment.suspicion(state.table.service(name)?);
                let suspicion = suspicion.filter(|_| deployment.ramp.is_some());
                Some((deployment.ramp.clone(), deployment.ramped.clone(), suspicion))
            };
            if of(before).unwrap_or_default() != of(&self.state).unwrap_or_default() {
                self.tell_ramp(name);
            }
        }
    }

    fn tell_ramp(&self, service: &ServiceName) {
        let known = self.state.table.service(service).zip(self.state.deployment(service));
        let Some((present, deployment)) = known else { return };
        let ramp = match (&deployment.ramp, &deployment.ramped) {
            (Some(ramp), _) => Ok(ramp.clone()),
            (None, Some(ramped)) => Err(ramped.clone()),
            (None, None) => return,
        };
        let suspicion = deployment.suspicion(present);
        let hindrance = self.ramps.left(service).and_then(|(_, why)| why);
        self.tell(Notice::Ramp(Arc::new(RampNotice {
            service: service.clone(),
            ramp,
            suspicion,
            hindrance,
        })));
    }
}
