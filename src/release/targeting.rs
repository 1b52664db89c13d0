//! Targeting rules of a service: set whole, in order, and kept true through everything else that moves traffic.
//!
//! Rules are a part of the split. Weights, the steps of a ramp, and a freeze leave them as they are; whatever is about all of a
//! service's requests takes them away: a flip, and supervision that goes back. A revert and an undo put back what there was
//! then; an abort and a retirement send everybody away from one version, and take those away that lead there. While supervision
//! suspects its candidate, rules that lead there are passed over, and are there again when it comes back. Other weights meanwhile are
//! the end of them.

use super::deployment::Previous;
use super::draft::{Draft, Item};
use super::history::Standing;
use super::overlay::serves;
use super::retire::Barred;
use super::{Refused, Trial};
use crate::table::{
    Conditions, Epoch, Invalid, Service, ServiceName, Split, TargetRule, Targeting, VersionName, VersionRef,
};

/// Of so many rules a note tells which they are.
const MOST_TOLD: usize = 8;

/// Why rules are refused, or what they bar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misaimed {
    /// There are too many of them.
    #[error("service `{service}`: {why}")]
    TooMany {
        /// The service.
        service: ServiceName,
        /// How many.
        why: Invalid,
    },
    /// A version that only rules lead to cannot be taken away, nor left empty.
    #[error("a targeting rule of service `{service}` leads to version `{version}`")]
    Targeted {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
    },
}

impl Misaimed {
    /// A stable token for machines, as in `type` of the problem details.
    #[must_use]
    pub fn token(&self) -> &'static str {
        match self {
            Self::TooMany { .. } => "bad_rules",
            Self::Targeted { .. } => "targeted",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::TooMany { .. } => "leave out those that you can do without".to_owned(),
            Self::Targeted { service, .. } => {
                format!("take the rule away first: `switchback rules {service}` shows them")
            }
        }
    }
}

impl Draft<'_> {
    /// These rules in the place of those that there are. No step to take back: a revert is about flips, ramps and weights.
    pub(super) fn set_rules(
        &mut self,
        name: &ServiceName,
        rules: Vec<(Conditions, VersionRef)>,
    ) -> Result<(), Refused> {
        let named = rules.into_iter().map(|(when, to)| Ok(TargetRule { when, to: self.resolve(name, &to)? }));
        let rules = named.collect::<Result<_, Refused>>()?;
        let rules = Targeting::new(rules).map_err(|why| Misaimed::TooMany { service: name.clone(), why })?;
        let epoch = self.epoch;
        let item = self.entry(name)?;
        let Item { service, deployment, .. } = &*item;
        let is_empty = |version: &VersionName| !serves(&service.versions, version);
        let new = rules.rules().iter().map(|rule| &rule.to).filter(|to| !service.split.leads_to(to));
        if let Some(version) = new.into_iter().find(|to| is_empty(to)).cloned() {
            return Err(Refused::EmptyVersion { service: name.clone(), version });
        }
        if let Some(retirement) = &deployment.retirement
            && rules.leads_to(&retirement.version)
        {
            let (service, version) = (name.clone(), retirement.version.clone());
            return Err(Barred::Retiring { service, version }.into());
        }
        item.rules_asked = Some(rules.clone());
        item.aim(rules, epoch);
        Ok(())
    }

    /// The rules for other weights: those that hold. Who asks for the weights from which supervision leans back has those again that it
    /// passes over; any others are the end of them. Tells of both.
    pub(super) fn rules_with(&mut self, name: &ServiceName, weights: &Split) -> Result<Targeting, Refused> {
        let item = self.entry(name)?;
        let (asked, hold) = (item.rules(), item.service.split.rules().clone());
        let trial = item.deployment.trial.as_ref();
        if trial.is_some_and(|trial| trial.asked.weighs_as(weights)) {
            self.note_again(name, &hold, &asked);
            return Ok(asked);
        }
        let why = "supervision has passed over what led there, and other weights are asked for";
        self.note_gone(name, &asked.beyond(&hold), why);
        Ok(hold)
    }

    /// Nobody goes to `version` by a rule any more.
    pub(super) fn send_away(&mut self, name: &ServiceName, version: &VersionName) -> Result<(), Refused> {
        let epoch = self.epoch;
        let item = self.entry(name)?;
        let (rules, kept) = (item.rules(), item.rules().without(version));
        item.rules_asked = Some(kept.clone());
        item.aim(item.service.split.rules().without(version), epoch);
        self.note_gone(name, &rules.beyond(&kept), &format!("nobody goes to `{version}`"));
        Ok(())
    }

    /// Tells of rules that are taken away by something else.
    pub(super) fn note_gone(&mut self, name: &ServiceName, gone: &Targeting, why: &str) {
        self.notes.extend(told(name, gone, ["is taken away", "are taken away"], why));
    }

    /// Tells of rules that hold from now on, and did not before.
    pub(super) fn note_again(&mut self, name: &ServiceName, before: &Targeting, now: &Targeting) {
        self.notes.extend(told(name, &now.beyond(before), ["holds again", "hold again"], ""));
    }

    /// A flip is about everybody.
    pub(super) fn note_flip(&mut self, name: &ServiceName) -> Result<(), Refused> {
        let rules = self.entry(name)?.rules();
        self.note_gone(name, &rules, "a flip is of all requests");
        Ok(())
    }

    /// Tells of rules of before that lead nowhere any more.
    pub(super) fn note_lost(&mut self, name: &ServiceName, before: &Targeting, now: &Targeting) {
        self.note_gone(name, &before.beyond(now), "what it led to is gone or empty");
    }

    /// A split of before without rules that lead to a version which is gone or empty by now, unless they do so already. Tells of them.
    pub(super) fn without_the_lost(&mut self, name: &ServiceName, split: Split) -> Result<Split, Refused> {
        let service = &self.entry(name)?.service;
        let is_there = |version: &VersionName| {
            let is_led_to = service.split.leads_to(version) && service.version(version).is_some();
            is_led_to || serves(&service.versions, version)
        };
        let rules = split.rules().to_those(is_there);
        self.note_lost(name, split.rules(), &rules);
        Ok(split.targeting(rules))
    }

    /// A ramp has come to its end, and some are not where it led everybody.
    pub(super) fn note_elsewhere(&mut self, name: &ServiceName, to: &VersionName) -> Result<(), Refused> {
        let service = &self.entry(name)?.service;
        if let Some(rule) = service.split.rules().rules().iter().find(|rule| rule.to != *to) {
            let note = format!(
                "targeting rules of `{name}` still lead to `{}`: `switchback rules {name}` shows them",
                rule.to
            );
            self.notes.push(note);
        }
        Ok(())
    }
}

/// `a targeting rule of shop is taken away: why (header x-beta=yes -> green)`; `None` where there are none.
pub(super) fn told(name: &ServiceName, rules: &Targeting, what: [&str; 2], why: &str) -> Option<String> {
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let listed = rules.first(MOST_TOLD);
    match rules.rules().len() {
        0 => None,
        1 => Some(format!("a targeting rule of `{name}` {}{why} ({listed})", what[0])),
        many => Some(format!("{many} targeting rules of `{name}` {}{why} ({listed})", what[1])),
    }
}

impl Previous {
    /// No rule of it leads to a version that is gone; gives those that did.
    fn settle_rules(&mut self, service: &Service) -> Targeting {
        let rules = self.split.rules().to_those(|version| service.version(version).is_some());
        let lost = self.split.rules().beyond(&rules);
        if !lost.is_empty() {
            self.split = self.split.clone().targeting(rules);
        }
        lost
    }
}

impl Standing {
    /// The rules that were asked for: also those that supervision passed over then.
    pub(super) fn rules(&self) -> &Targeting {
        let suspecting = self.trial.as_ref().filter(|trial| trial.is_suspected(&self.split));
        suspecting.map_or(&self.split, |trial| &trial.asked).rules()
    }
}

impl Item {
    /// The rules as they were asked for: also those that are passed over while supervision leans back.
    pub(super) fn rules(&self) -> Targeting {
        let asked = self.leaning().map_or(&self.service.split, |trial| &trial.asked).rules();
        self.rules_asked.as_ref().unwrap_or(asked).clone()
    }

    /// The trial in which supervision leans back, unless the weights have been moved since.
    fn leaning(&self) -> Option<&Trial> {
        let before = &self.before.as_ref()?.standing.as_ref()?.split;
        let trial = self.deployment.trial.as_ref().filter(|trial| trial.leans(before));
        trial.filter(|_| before.weighs_as(&self.service.split))
    }

    /// The same weights with these rules.
    pub(super) fn aim(&mut self, rules: Targeting, epoch: Epoch) {
        let Self { service, deployment, .. } = self;
        if *service.split.rules() == rules {
            return;
        }
        let (versions, holds) = (std::mem::take(&mut service.versions), service.holds);
        let (stable, split) = (service.stable.clone(), service.split.clone().targeting(rules));
        *service = Service::new(&deployment.spec, versions, stable, split, epoch).holding(holds);
    }

    /// A rule has one number, also while others before it are passed over.
    pub(super) fn number_rules(&mut self) {
        let Self { service, deployment, .. } = self;
        let asked = deployment.trial.as_ref().map_or(&service.split, |trial| &trial.asked).rules().clone();
        service.number_rules(&asked);
    }

    /// No rule of the way back leads to a version that is gone. Notes which did.
    pub(super) fn settle_rules_of_way_back(&mut self) -> Option<String> {
        let Self { service, deployment, .. } = self;
        if let Some(ramp) = &mut deployment.ramp {
            ramp.before.settle_rules(service);
        }
        let lost = deployment.previous.as_mut()?.settle_rules(service);
        let what = ["does not come back by a revert any more", "do not come back by a revert any more"];
        told(&service.name, &lost, what, "what it led to is gone")
    }

    /// What a trial that goes on has been asked for, by the rules that there are now; none leads to a version that is gone or empty.
    ///
    /// `leant`: it leaned back before, and then they are those that were asked for, not those that hold.
    pub(super) fn settle_rules(&mut self, leant: bool) {
        let Self { service, deployment, rules_asked, .. } = self;
        let is_there =
            |version: &VersionName| service.split.leads_to(version) || serves(&service.versions, version);
        let Some(trial) = &mut deployment.trial else { return };
        let rules = match rules_asked {
            Some(asked) => asked.clone(),
            None if leant => trial.asked.rules().clone(),
            None => service.split.rules().clone(),
        };
        trial.asked = trial.asked.clone().targeting(rules.to_those(is_there));
    }

    /// While supervision suspects its candidate, rules that lead there are passed over, whenever they were set. Notes which are so
    /// just now.
    pub(super) fn pass_over(&mut self, epoch: Epoch) -> Option<String> {
        let trial = self.deployment.trial.as_ref()?;
        let (asked, candidate) = (trial.asked.rules().clone(), trial.candidate.clone());
        let is_asked = self.rules_asked.is_some();
        if !trial.is_suspected(&self.service.split) {
            // Those that an end of the suspicion has not brought back stay passed over until they are asked for.
            if is_asked {
                self.aim(asked, epoch);
            }
            return None;
        }
        let kept = asked.without(&candidate);
        let is_news = kept != asked && (is_asked || kept != *self.service.split.rules());
        self.aim(kept, epoch);
        is_news.then(|| {
            let name = &self.service.name;
            format!("supervision suspects `{candidate}` of `{name}`: rules that lead there are passed over until it does so no more")
        })
    }
}
