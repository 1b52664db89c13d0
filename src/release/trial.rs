//! A trial: one version is compared with another, and supervision may move traffic between the two.
//!
//! A trial begins with a flip or new weights of a service that is supervised, and begins anew with the next ones. While it
//! lasts supervision may lean back and come back, revert, or end it; what it wants is refused once the trial that it was about
//! is over. Who judges, and by what, is in [`super::verdict`].

use std::time::Duration;

use super::deployment::Deployment;
use super::draft::{Draft, Item};
use super::overlay::{own, serves};
use super::ramp::RampEnd;
use super::{Refused, Timestamp};
use crate::table::{
    BasisPoints, EndpointAddr, Epoch, HoldScope, Holder, Service, ServiceName, Split, SuperviseMode,
    SuperviseRules, VersionName, Watch,
};

/// A comparison under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// The epoch of the change that began it.
    pub stage: Epoch,
    /// How often supervision has moved weights since then.
    pub generation: u32,
    /// The version that serves as the measure.
    pub baseline: VersionName,
    /// The version that is tried.
    pub candidate: VersionName,
    /// The weights and rules that were asked for, from which supervision leans back.
    pub asked: Split,
    /// The version that carried the service then: while it leans back that is the baseline.
    pub stable: VersionName,
    /// True while the candidate is suspect, also where it has so little that leaning back takes nothing away.
    pub is_suspect: bool,
    /// False: it only tells.
    pub acts: bool,
    /// True when it is the file that wants it: what the file says no more ends it.
    pub by_file: bool,
    /// Of an exclusive flip: which requests are never with two versions. Supervision does not lean back then, and goes back as it came.
    pub exclusive: Option<HoldScope>,
    /// When it ends by itself; `None`: with the next change of weights.
    pub until: Option<Timestamp>,
    /// How long that is from its beginning, for who finds another calendar; not known of one that an older process began.
    pub lasts: Option<Duration>,
}

/// What supervision has against a candidate, for which nobody gives that more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    /// The candidate.
    pub version: VersionName,
    /// True while most traffic is kept away from it.
    pub leans: bool,
}

/// Whether what a flip or new weights bring about is supervised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Supervise {
    /// As the service's rules say.
    #[default]
    AsConfigured,
    /// For this long, or for as long as the rules say.
    For(Option<Duration>),
    /// No.
    No,
}

/// What supervision wants done in a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Most traffic goes to the baseline, and this to the candidate.
    Lean(BasisPoints),
    /// The weights as they were asked for.
    Restore,
    /// All traffic to the baseline, and the trial is over.
    Convict,
    /// The trial is over, and the weights stay.
    Acquit,
}

impl Trial {
    /// True while most traffic is kept away from the candidate.
    #[must_use]
    pub fn leans(&self, split: &Split) -> bool {
        *split != self.asked
    }

    /// True while supervision has something against the candidate; one that only tells has nothing.
    #[must_use]
    pub fn is_suspected(&self, split: &Split) -> bool {
        // A record of an earlier build tells it by the weights alone.
        self.acts && (self.is_suspect || !self.asked.weighs_as(split))
    }

    /// What supervision has against the candidate, as it is kept; `is_known`: it has something by what it knows now.
    #[must_use]
    pub fn suspicion(&self, split: &Split, is_known: bool) -> Option<Suspicion> {
        let is_suspected = self.acts && is_known || self.is_suspected(split);
        is_suspected.then(|| Suspicion { version: self.candidate.clone(), leans: self.leans(split) })
    }

    /// True of the version to which supervision may give all traffic by itself.
    #[must_use]
    pub fn may_go_back_to(&self, version: &VersionName) -> bool {
        self.acts && self.baseline == *version
    }

    fn is_over(&self, service: &Service) -> bool {
        let known = |version| service.version(version).is_some();
        let of_it = |version: &VersionName| *version == self.baseline || *version == self.candidate;
        !known(&self.baseline)
            || !known(&self.candidate)
            || service.split.shares().any(|(version, _)| !of_it(version))
    }
}

impl Draft<'_> {
    /// Supervision moves traffic between the versions that it compares.
    pub(super) fn supervise(&mut self, name: &ServiceName, stage: Epoch, act: Act) -> Result<(), Refused> {
        let trial = self.entry(name)?.deployment.trial.clone().filter(|trial| trial.stage == stage);
        let trial = trial.ok_or_else(|| Refused::NoTrial { service: name.clone() })?;
        let split = match act {
            // Two versions would serve at once.
            Act::Lean(_) if trial.exclusive.is_some() => return Ok(()),
            // To lean back never gives the candidate more than was asked for.
            Act::Lean(share) => {
                let share = share.min(trial.asked.weight(&trial.candidate));
                let split = Split::of_two(&trial.candidate, share, &trial.baseline);
                Some(split.targeting(trial.asked.rules().without(&trial.candidate)))
            }
            Act::Restore => Some(trial.asked.clone()),
            Act::Convict => Some(Split::all_to(trial.baseline.clone())),
            Act::Acquit => None,
        };
        if act == Act::Convict {
            self.end_ramp(name, RampEnd::Reverted)?;
            let rules = self.entry(name)?.rules();
            self.note_gone(name, &rules, &format!("supervision goes back to `{}`", trial.baseline));
        }
        let Item { service, deployment, .. } = self.entry(name)?;
        let is_suspect = matches!(act, Act::Lean(_));
        let is_so = trial.is_suspect == is_suspect && split.as_ref() == Some(&service.split);
        if matches!(act, Act::Lean(_) | Act::Restore) && is_so {
            // It was ordered twice: the coin is the same one.
            return Ok(());
        }
        let previous = deployment.previous.clone();
        let has_coin = service.split.weight(&trial.baseline) > BasisPoints::NONE;
        if let Some(split) = split {
            self.set_split(name, split)?;
        }
        if act == Act::Convict && has_coin {
            // That the baseline answers is a part of the proof.
            self.ways_back.insert(name.clone());
        }
        if act == Act::Convict && trial.exclusive.is_some() {
            // Its way back was an exclusive one.
            self.release(name, Holder::Exclusive)?;
        }
        let Item { service, deployment, leaves_suspect, .. } = self.entry(name)?;
        *leaves_suspect = matches!(act, Act::Lean(_) | Act::Convict);
        // Who is suspect carries no service: `@stable` is not where it is tried.
        match act {
            Act::Lean(_) => service.stable.clone_from(&trial.baseline),
            Act::Restore => service.stable.clone_from(&trial.stable),
            Act::Convict | Act::Acquit => {}
        }
        // Leaning back is no step that an operator takes back: the way back stays the operator's own.
        deployment.previous = if act == Act::Convict { None } else { previous };
        deployment.trial = match act {
            Act::Lean(_) | Act::Restore => {
                Some(Trial { generation: trial.generation + 1, is_suspect, ..trial })
            }
            Act::Convict | Act::Acquit => None,
        };
        let now = self.now;
        if let Some(ramp) = self.entry(name)?.deployment.ramp.as_mut().filter(|_| act == Act::Restore) {
            ramp.take_up(now);
        }
        self.by_supervision.insert(name.clone());
        Ok(())
    }
}

impl Item {
    /// The trial after a step that was not supervision's own: the same, a new one, or none. Notes what was asked for in vain.
    pub(super) fn settle_trial(
        &mut self,
        base: Option<(&Service, &Deployment)>,
        wish: Option<Supervise>,
        is_way_back: bool,
        (now, epoch): (Timestamp, Epoch),
    ) -> Option<String> {
        let before = self.before.as_ref().and_then(|before| before.standing.as_ref());
        let has_moved = before.is_none_or(|before| !before.split.weighs_as(&self.service.split));
        let under_way = before.and_then(|before| before.trial.as_ref());
        let leans = before.zip(under_way).is_some_and(|(before, trial)| trial.leans(&before.split));
        // Weights to which supervision had gone by itself become the operator's own by being asked for.
        let takes_over = leans && (wish.is_some() || is_way_back);
        let note;
        if has_moved || takes_over || wish.is_some_and(|wish| wish != Supervise::AsConfigured) {
            let before = (base.map(|(service, _)| &service.stable), leans);
            let begun = self.begin(before, wish.unwrap_or_default(), is_way_back, (now, epoch));
            let is_in_vain = begun.is_none() && matches!(wish, Some(Supervise::For(_)));
            note = is_in_vain.then(|| {
                let name = &self.service.name;
                format!(
                    "`{name}` is not supervised: that compares two versions, of which one was there before"
                )
            });
            self.deployment.trial = begun;
        } else {
            self.deployment.trial = under_way.cloned();
            self.settle_rules(leans);
            if base.is_some_and(|(_, before)| self.is_replaced(before))
                && let Some(trial) = &mut self.deployment.trial
            {
                // What was held against those that are gone is not held against these.
                (trial.stage, trial.generation) = (epoch, 0);
                trial.is_suspect = trial.leans(&self.service.split);
            }
            let told = self.settle_mode(now);
            note = self.pass_over(epoch).or(told);
        }
        let over = self.deployment.trial.take_if(|trial| trial.is_over(&self.service));
        note.or_else(|| {
            let over = over?;
            let is_gone = |version: &VersionName| self.service.version(version).is_none();
            let gone = [over.baseline, over.candidate].into_iter().find(is_gone)?;
            Some(format!("`{}` is not supervised any more: `{gone}` is gone", self.service.name))
        })
    }

    /// True when the change at this epoch has begun the trial.
    pub(super) fn is_tried_since(&self, epoch: Epoch) -> bool {
        self.deployment.trial.as_ref().is_some_and(|trial| trial.stage == epoch)
    }

    /// Keeps supervision's way back open: an endpoint of the measure has to serve. One that `may_be_left` (the file says so,
    /// or a rollout has taken out its last one with the traffic) is noted.
    ///
    /// # Errors
    /// [`Refused::Measure`].
    pub(super) fn check_measure(&self, base: &Service, may_be_left: bool) -> Result<Option<String>, Refused> {
        let trial = self.deployment.trial.as_ref().filter(|trial| trial.acts);
        let is_lost = |of: &VersionName| serves(&base.versions, of) && !serves(&self.service.versions, of);
        let Some(trial) = trial.filter(|trial| is_lost(&trial.baseline)) else { return Ok(None) };
        let (service, version) = (self.service.name.clone(), trial.baseline.clone());
        if may_be_left {
            return Ok(Some(format!(
                "supervision cannot give the traffic of `{service}` back to `{version}` while no endpoint of it serves"
            )));
        }
        Err(Refused::Measure { service, version, candidate: trial.candidate.clone() })
    }

    /// True when somebody has put a pool of others in the place of the candidate's. What is found comes and goes.
    fn is_replaced(&self, before: &Deployment) -> bool {
        let Some(trial) = &self.deployment.trial else { return false };
        let pool = |of: &Deployment| -> Vec<EndpointAddr> {
            let all = own(&of.spec, &of.edits).into_iter();
            all.filter(|version| version.name == trial.candidate)
                .flat_map(|version| version.serving().cloned().collect::<Vec<_>>())
                .collect()
        };
        if before.edits == self.deployment.edits && before.spec.versions == self.deployment.spec.versions {
            return false;
        }
        let (old, new) = (pool(before), pool(&self.deployment));
        !old.is_empty() && !new.is_empty() && !new.iter().any(|endpoint| old.contains(endpoint))
    }

    /// What the file says now of how the service is supervised holds for the trial under way too. Notes when it ends that, or what
    /// supervision has done in it so far and does no more.
    fn settle_mode(&mut self, now: Timestamp) -> Option<String> {
        let Self { service, deployment, .. } = self;
        let (trial, name, split) = (deployment.trial.as_mut()?, &service.name, &service.split);
        let was_suspected = trial.is_suspected(split);
        let is_passed_over = trial.asked.rules() != split.rules();
        match configured(service.supervise.as_deref()) {
            Some(mode) => (trial.acts, trial.by_file) = (mode == SuperviseMode::On, true),
            // Only a change has asked for it.
            None if !trial.by_file => {}
            None => {
                let lost =
                    if is_passed_over { ", without the targeting rules that were passed over" } else { "" };
                deployment.trial = None;
                return Some(format!(
                    "`{name}` is not supervised any more: the file says so; it stays at {split}{lost}"
                ));
            }
        }
        let is_freed = was_suspected && !trial.acts;
        if let Some(ramp) = deployment.ramp.as_mut().filter(|_| is_freed) {
            ramp.take_up(now);
        }
        let is_left = is_freed && trial.leans(split);
        is_left.then(|| {
            let still = if is_passed_over {
                ", and targeting rules are passed over until they are set anew"
            } else {
                ""
            };
            format!(
                "supervision of `{name}` only tells from now on: the file says so; it stays at {split}{still}"
            )
        })
    }

    /// The trial that the present split is, if it is one and anybody wants it watched.
    fn begin(
        &self,
        (stable_before, leans): (Option<&VersionName>, bool),
        wish: Supervise,
        is_way_back: bool,
        (now, epoch): (Timestamp, Epoch),
    ) -> Option<Trial> {
        let Self { service, deployment, .. } = self;
        let rules = service.supervise.as_deref();
        let (mode, period) = asked(rules, wish)?;
        let old = deployment.trial.as_ref();
        let shares: Vec<_> = service.split.shares().map(|(version, _)| version).collect();
        let (baseline, candidate) = match shares[..] {
            [first, second] => {
                let other = |than: &VersionName| if than == first { second } else { first };
                let stays = old.map(|old| &old.baseline).filter(|baseline| shares.contains(baseline));
                // Who ramps is who is tried, though it was the measure until then.
                let measure = self.rising.as_ref().map(other);
                let baseline = measure.or(stays).unwrap_or(&service.stable);
                (baseline, other(baseline))
            }
            [only] if !is_way_back && old.is_none_or(|old| old.baseline != *only) => {
                // While most traffic is kept away from its candidate, the old baseline is who was there before.
                let stays = old.filter(|old| leans || old.candidate == *only).map(|old| &old.baseline);
                (stays.or(stable_before).filter(|before| *before != only)?, only)
            }
            _ => return None,
        };
        let is_flip = shares.len() == 1;
        // The time is that after the last step of a ramp.
        let may_end = deployment.ramp.is_none();
        let lasts = period.filter(|_| may_end && (is_flip || matches!(wish, Supervise::For(Some(_)))));
        let until = lasts.map(|period| {
            let period = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
            Timestamp(now.0.saturating_add(period))
        });
        let (baseline, candidate) = (baseline.clone(), candidate.clone());
        let (asked, stable) = (service.split.clone(), service.stable.clone());
        let acts = mode == SuperviseMode::On;
        let by_file = configured(rules).is_some();
        // To ask for supervision once more makes a flip no less exclusive.
        let stays = old.filter(|old| old.asked == asked).and_then(|old| old.exclusive);
        let exclusive = self.exclusive.or(stays);
        let (stage, generation, is_suspect) = (epoch, 0, false);
        Some(Trial {
            stage,
            generation,
            baseline,
            candidate,
            asked,
            stable,
            is_suspect,
            acts,
            by_file,
            exclusive,
            until,
            lasts,
        })
    }

    /// Whose answers the workers count.
    pub(super) fn watch(&self) -> Option<Watch> {
        let Self { service, deployment, .. } = self;
        if let Some(Trial { stage, generation, baseline, candidate, .. }) = &deployment.trial {
            let (baseline, candidate) = (baseline.clone(), Some(candidate.clone()));
            return Some(Watch { stage: *stage, generation: *generation, baseline, candidate });
        }
        let is_supervised = configured(service.supervise.as_deref()).is_some();
        let baseline = service.stable.clone();
        is_supervised.then_some(Watch { stage: Epoch(0), generation: 0, baseline, candidate: None })
    }
}

/// How a change is supervised, and for how long if it ends by itself; `None`: not at all.
fn asked(rules: Option<&SuperviseRules>, wish: Supervise) -> Option<(SuperviseMode, Option<Duration>)> {
    let configured = configured(rules);
    let period = rules.map_or_else(|| SuperviseRules::default().keep_old, |rules| rules.keep_old);
    match wish {
        Supervise::No => None,
        Supervise::AsConfigured => configured.map(|mode| (mode, Some(period))),
        Supervise::For(wanted) => {
            Some((configured.unwrap_or(SuperviseMode::On), Some(wanted.unwrap_or(period))))
        }
    }
}

fn configured(rules: Option<&SuperviseRules>) -> Option<SuperviseMode> {
    rules.map(|rules| rules.mode).filter(|mode| *mode != SuperviseMode::Off)
}
