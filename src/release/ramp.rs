//! A ramp: a flip in steps. The weight of one version rises by a plan; each step is an ordinary change of weights, and gated.
//!
//! While a ramp is under way a revert takes all of it back. Whoever moves the traffic otherwise ends it; supervision that leans back
//! only suspends it. When a step is due, by a clock that nobody sets, is control's to know: what stands here outlives a process.

mod interrupts;
mod others;
mod steps;

use std::time::Duration;

pub use interrupts::Interrupts;
pub use steps::Steps;

use super::deployment::Previous;
use super::draft::{Draft, Item};
#[cfg(doc)]
use super::retire::{LASTS, QUIET};
use super::{Actor, Refused, Supervise, Suspicion, Timestamp, Trial};
use crate::table::{BasisPoints, Epoch, Service, ServiceName, VersionName, VersionRef};

/// A ramp under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramp {
    /// The epoch of the change that began it; names it.
    pub begun: Epoch,
    /// The version whose weight rises.
    pub to: VersionName,
    /// What an abort and a revert bring back.
    pub before: Previous,
    /// The weights of the version, step by step.
    pub steps: Steps,
    /// How long a step lasts; `None`: until somebody promotes.
    pub every: Option<Duration>,
    /// The step that is reached, from 0 on; never the last one, for then it is over.
    pub step: usize,
    /// When the next one is due by the calendar; `None`: not by time.
    pub until: Option<Timestamp>,
    /// How much of the step was left when `until` was written, or when it was frozen.
    pub lasts: Duration,
    /// True: it stays where it is until somebody resumes or promotes.
    pub is_frozen: bool,
    /// Whether its steps are supervised, and after the last one for how long.
    pub supervise: Supervise,
    /// Who began it: its steps are theirs.
    pub actor: Actor,
    /// Why; may be empty.
    pub reason: String,
}

/// A ramp that is over: the last one of its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramped {
    /// The epoch of the change that began it.
    pub begun: Epoch,
    /// The version whose weight rose.
    pub to: VersionName,
    /// The weight of the last step that it had reached.
    pub reached: BasisPoints,
    /// How it ended.
    pub how: RampEnd,
    /// The epoch of the change that ended it.
    pub epoch: Epoch,
}

/// How a ramp ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RampEnd {
    /// The last step was reached.
    Finished,
    /// Somebody took all of it back.
    Aborted,
    /// Supervision took the traffic back.
    Reverted,
    /// Something else moved the traffic, or took away what it needs.
    Superseded,
}

/// What is wanted of a ramp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RampOrder {
    /// It begins, with its first step.
    Begin {
        /// The version whose weight rises.
        to: VersionRef,
        /// How; those that the version has already are left out.
        steps: Steps,
        /// How long each lasts; `None`: until somebody promotes.
        every: Option<Duration>,
        /// Whether that is supervised.
        supervise: Supervise,
    },
    /// The time of a step is over.
    Step {
        /// The ramp's [`Ramp::begun`].
        begun: Epoch,
        /// The step whose time it was.
        from: usize,
    },
    /// The next step, now, or the last one; who was frozen goes on from there.
    Promote {
        /// True: all the way.
        full: bool,
    },
    /// The split as it was before.
    Abort,
    /// No further step.
    Freeze {
        /// What is left of the present one, by a clock that nobody sets; `None`: by the calendar.
        left: Option<Duration>,
    },
    /// On with what was left of the step.
    Resume,
    /// Nobody new comes to the version that is tried; who is there stays until nobody of them comes any more.
    Retire {
        /// For how long nobody may have come, for it to be over; `None`: as it is, or [`QUIET`].
        quiet: Option<Duration>,
        /// How long it takes at most, from now on; `None`: as it is, or [`LASTS`].
        lasts: Option<Duration>,
    },
    /// Nobody has come for so long, or the time is over.
    Retired {
        /// The retirement's [`Retirement::begun`](super::Retirement::begun).
        begun: Epoch,
    },
}

impl RampEnd {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Finished, Self::Aborted, Self::Reverted, Self::Superseded];

    /// Its token.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Aborted => "aborted",
            Self::Reverted => "reverted",
            Self::Superseded => "superseded",
        }
    }
}

impl Ramp {
    /// The weight of the step that is reached.
    #[must_use]
    pub fn weight(&self) -> BasisPoints {
        self.steps.all()[self.step]
    }

    /// The weight of the next step.
    #[must_use]
    pub fn next(&self) -> BasisPoints {
        self.steps.all()[self.steps.last().min(self.step + 1)]
    }

    /// How much of the step is left by the calendar, and never more than there was; `None`: the next one is not due by time.
    #[must_use]
    pub fn left(&self, at: Timestamp) -> Option<Duration> {
        let until = self.until?;
        Some(Duration::from_millis(until.0.saturating_sub(at.0)).min(self.lasts))
    }

    /// The step's time begins now, with so much of it left.
    fn start(&mut self, now: Timestamp, left: Option<Duration>) {
        self.lasts = left.unwrap_or_default();
        let millis = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        self.until = left.map(|left| Timestamp(now.0.saturating_add(millis(left))));
    }

    /// No further step, with so much of this one left.
    fn freeze(&mut self, left: Duration) {
        (self.is_frozen, self.until, self.lasts) = (true, None, left.min(self.lasts));
    }

    /// On with what was left of the step.
    fn resume(&mut self, now: Timestamp) {
        self.is_frozen = false;
        self.start(now, self.every.map(|_| self.lasts));
    }

    /// After an undo to when it stood as `then`, in the same step: frozen with what was left of that, or not. `None`: it had another one.
    pub(super) fn undone_to(mut self, then: &Self, now: Timestamp) -> Option<Self> {
        match (self.is_frozen, then.is_frozen) {
            (false, true) => self.freeze(then.lasts),
            (true, false) => self.resume(now),
            (true, true) | (false, false) => {}
        }
        ((then.begun, then.step) == (self.begun, self.step)).then_some(self)
    }

    /// Supervision keeps nothing away from it any more: the step's time begins anew.
    pub(super) fn take_up(&mut self, now: Timestamp) {
        self.start(now, self.every);
        self.until.take_if(|_| self.is_frozen);
    }

    /// True while the service stands as the ramp has it, or as supervision leans back from that, and can go back.
    fn holds(&self, service: &Service, trial: Option<&Trial>) -> bool {
        let mut needed = self.before.split.shares().map(|(version, _)| version).chain([&self.to]);
        let split = self.split();
        needed.all(|version| service.version(version).is_some())
            && (service.split.weighs_as(&split) || trial.is_some_and(|trial| trial.asked.weighs_as(&split)))
    }

    fn over(&self, how: RampEnd, epoch: Epoch) -> Ramped {
        Ramped { begun: self.begun, to: self.to.clone(), reached: self.weight(), how, epoch }
    }
}

impl Draft<'_> {
    /// Begins a ramp, or does something with the one that is under way.
    pub(super) fn ramp(&mut self, name: &ServiceName, order: RampOrder) -> Result<(), Refused> {
        match order {
            RampOrder::Begin { to, steps, every, supervise } => {
                self.begin_ramp(name, &to, &steps, every, supervise)
            }
            RampOrder::Step { begun, from } => {
                let ramp = self.present(name)?;
                if (ramp.begun, ramp.step, ramp.is_frozen) != (begun, from, false) {
                    return Err(Refused::NoRamp { service: name.clone() });
                }
                self.check_not_suspect(name)?;
                self.enter(name, ramp, from + 1)
            }
            RampOrder::Promote { full } => {
                let ramp = self.present(name)?;
                self.check_not_suspect(name)?;
                let step = if full { ramp.steps.last() } else { ramp.step + 1 };
                self.enter(name, ramp, step)
            }
            RampOrder::Abort => {
                let from = match &self.entry(name)?.deployment.retirement {
                    Some(retirement) => retirement.version.clone(),
                    None => self.present(name)?.to,
                };
                // Rules are no part of the ramp: those that lead elsewhere stay as they are by now.
                let (rules, back) = (self.entry(name)?.rules(), self.way_back(name)?);
                self.go_back(name, Previous { split: back.split.targeting(rules), ..back })?;
                self.send_away(name, &from)
            }
            RampOrder::Retire { quiet, lasts } => self.retire(name, quiet, lasts),
            RampOrder::Retired { begun } => self.end_of_retirement(name, begun),
            RampOrder::Freeze { left } => {
                let (mut ramp, now) = (self.present(name)?, self.now);
                if !ramp.is_frozen {
                    ramp.freeze(left.or_else(|| ramp.left(now)).unwrap_or_default());
                    self.entry(name)?.deployment.ramp = Some(ramp);
                }
                Ok(())
            }
            RampOrder::Resume => {
                let (mut ramp, now) = (self.present(name)?, self.now);
                if ramp.is_frozen {
                    ramp.resume(now);
                    self.entry(name)?.deployment.ramp = Some(ramp);
                }
                Ok(())
            }
        }
    }

    fn begin_ramp(
        &mut self,
        name: &ServiceName,
        to: &VersionRef,
        steps: &Steps,
        every: Option<Duration>,
        supervise: Supervise,
    ) -> Result<(), Refused> {
        let to = self.resolve(name, to)?;
        let (begun, actor, reason) = (self.epoch, self.actor.clone(), self.reason.clone());
        self.check_interrupts(name, Interrupts::No)?;
        let Item { service, .. } = self.entry(name)?;
        let before =
            Previous { stable: service.stable.clone(), split: service.split.clone(), exclusive: None };
        let weight = service.split.weight(&to);
        self.check_not_suspect(name)?;
        let Some(rising) = steps.above(weight) else {
            return Err(Refused::NothingToRamp { service: name.clone(), version: to, weight });
        };
        if rising != *steps {
            self.notes.push(format!("`{to}` of `{name}` has {weight} already: lower steps are left out"));
        }
        let (step, until, lasts, is_frozen) = (0, None, Duration::ZERO, false);
        let ramp = Ramp {
            begun,
            to,
            before,
            steps: rising,
            every,
            step,
            until,
            lasts,
            is_frozen,
            supervise,
            actor,
            reason,
        };
        self.enter(name, ramp, 0)
    }

    /// The ramp comes to this step, and to its end when that is the last one.
    fn enter(&mut self, name: &ServiceName, mut ramp: Ramp, step: usize) -> Result<(), Refused> {
        let (epoch, now) = (self.epoch, self.now);
        self.wishes.insert(name.clone(), ramp.supervise);
        (ramp.step, ramp.is_frozen) = (step, false);
        ramp.start(now, ramp.every);
        // It goes on as it was asked for, also where supervision has leaned back from that and only tells by now.
        let item = self.entry(name)?;
        let (rules, hold) = (item.rules(), item.service.split.rules().clone());
        self.note_again(name, &hold, &rules);
        self.set_split(name, ramp.split().targeting(rules))?;
        if step == ramp.steps.last() {
            self.note_elsewhere(name, &ramp.to)?;
        }
        let Item { deployment, rising, .. } = self.entry(name)?;
        *rising = Some(ramp.to.clone());
        // All of the ramp is one step back.
        deployment.previous = Some(ramp.before.clone());
        let is_over = step == ramp.steps.last();
        if is_over {
            deployment.ramped = Some(ramp.over(RampEnd::Finished, epoch));
        }
        deployment.ramp = Some(ramp).filter(|_| !is_over);
        Ok(())
    }

    /// A ramp or a retirement that is under way is over.
    pub(super) fn end_ramp(&mut self, name: &ServiceName, how: RampEnd) -> Result<(), Refused> {
        let epoch = self.epoch;
        self.end_retirement(name, how)?;
        let Item { deployment, .. } = self.entry(name)?;
        let Some(ramp) = deployment.ramp.take() else { return Ok(()) };
        deployment.ramped = Some(ramp.over(how, epoch));
        if how == RampEnd::Superseded {
            self.notes.push(is_over(name, &ramp));
        }
        Ok(())
    }

    fn present(&mut self, name: &ServiceName) -> Result<Ramp, Refused> {
        self.check_not_retiring(name)?;
        let none = || Refused::NoRamp { service: name.clone() };
        self.entry(name)?.deployment.ramp.clone().ok_or_else(none)
    }

    pub(super) fn check_not_suspect(&mut self, name: &ServiceName) -> Result<(), Refused> {
        let Item { service, deployment, .. } = self.entry(name)?;
        match deployment.suspicion(service) {
            Some(Suspicion { version, .. }) => Err(Refused::Suspect { service: name.clone(), version }),
            None => Ok(()),
        }
    }
}

impl Item {
    /// Ends a ramp that no longer stands: the file has dropped what it needs, or its weights are others by now. Notes that.
    ///
    /// While one is under way it is the way back.
    pub(super) fn settle_ramp(&mut self, epoch: Epoch) -> Option<String> {
        let Self { service, deployment, before, .. } = self;
        deployment.ramp.take_if(|ramp| !ramp.holds(service, deployment.trial.as_ref()));
        if let Some(ramp) = &deployment.ramp {
            deployment.previous = Some(ramp.before.clone());
        }
        let was = before.as_ref()?.standing.as_ref()?.ramp.as_ref()?;
        let is = |begun: Option<Epoch>| begun == Some(was.begun);
        let is_told = is(deployment.ramped.as_ref().map(|ramped| ramped.begun));
        if is_told || is(deployment.ramp.as_ref().map(|ramp| ramp.begun)) {
            return None;
        }
        deployment.ramped = Some(was.over(RampEnd::Superseded, epoch));
        Some(is_over(&service.name, was))
    }
}

fn is_over(name: &ServiceName, ramp: &Ramp) -> String {
    let (to, weight) = (&ramp.to, ramp.weight());
    let (step, steps) = (ramp.step + 1, ramp.steps.all().len());
    format!("the ramp of `{name}` to `{to}` is over; it had come to {weight} (step {step} of {steps})")
}
