//! A rolling upgrade as a plan: which endpoint goes, which comes in its place, how many at a time, and what has to serve
//! meanwhile. From the plan and where a service stands follow the changes; who waits for what in between is control's.

use crate::table::{
    BasisPoints, EndpointAddr, Service, ServiceName, TraitsEdit, VersionName, VersionRef, VersionSpec,
};

use super::{Command, Deployment, Supervise};

/// One endpoint goes and one comes. Where a pool grows or shrinks one of them is missing; where both are the same, a
/// machine is restarted in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Goes.
    pub out: Option<EndpointAddr>,
    /// Comes.
    pub into: Option<EndpointAddr>,
}

impl Move {
    /// True for a machine that is restarted.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        self.out.is_some() && self.out == self.into
    }
}

/// The endpoints that get requests, of the versions that a rollout is about: well, not draining, and of a version with weight.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Serving {
    /// Of the version whose endpoints go.
    pub from: Vec<EndpointAddr>,
    /// Of the version whose endpoints come; empty where that is the same one.
    pub to: Vec<EndpointAddr>,
}

impl Serving {
    /// So many.
    #[must_use]
    pub fn count(&self) -> usize {
        self.from.len() + self.to.len()
    }

    /// True when one less serves once the old endpoint has gone: one that is down does not serve anyhow.
    #[must_use]
    pub fn goes(&self, step: &Move) -> bool {
        step.out.as_ref().is_some_and(|out| self.from.contains(out))
    }

    /// True when one more serves once the new endpoint has come: one that serves already does not come.
    #[must_use]
    pub fn comes(&self, step: &Move) -> bool {
        step.into.as_ref().is_some_and(|into| !self.to.contains(into))
    }
}

/// Which way the weights go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the new version, which never gets less than it has.
    Forward,
    /// To the old version, until the new one has what it had at the beginning.
    Back {
        /// What the new version had.
        begun: BasisPoints,
        /// True when nothing of the rollout is left in service.
        is_over: bool,
    },
}

/// A rolling upgrade of one service. Where `from` and `to` are different versions, the weight follows the endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The service.
    pub service: ServiceName,
    /// The version whose endpoints go.
    pub from: VersionName,
    /// The version whose endpoints come; may be the same.
    pub to: VersionName,
    /// In this order.
    pub moves: Vec<Move>,
    /// So many at a time.
    pub batch: usize,
    /// True when an endpoint comes before the other one goes.
    pub surge: bool,
    /// So many endpoints serve at any time.
    pub min_serving: usize,
}

/// Why a rollout cannot begin. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPlanned {
    /// There is nothing in it.
    #[error("there is nothing to replace")]
    Nothing,
    /// An endpoint stands in it twice.
    #[error("endpoint {0} is named twice")]
    Twice(EndpointAddr),
    /// The endpoint that is to go does not serve.
    #[error("endpoint {endpoint} does not serve in version `{version}`")]
    NotServing {
        /// Which.
        endpoint: EndpointAddr,
        /// Where.
        version: VersionName,
    },
    /// The endpoint that is to come serves in its place already.
    #[error("endpoint {endpoint} serves in version `{version}` already")]
    Serving {
        /// Which.
        endpoint: EndpointAddr,
        /// Where.
        version: VersionName,
    },
    /// The version that is to be left has no traffic.
    #[error("version `{0}` carries no traffic: there is nothing to move from it")]
    NoTraffic(VersionName),
    /// A ramp moves the same weights.
    #[error("a ramp to `{0}` is under way, which moves the weights")]
    Ramping(VersionName),
    /// Nobody new comes to a version: that is by the same weights.
    #[error("`{0}` is retiring, which goes by the weights")]
    Retiring(VersionName),
    /// A targeting rule leads to the version that is to be left: it would never be empty.
    #[error("a targeting rule leads to `{0}`")]
    Targeted(VersionName),
    /// Less would serve than has to.
    #[error("{left} of {serving} endpoints would serve, and at least {least} have to")]
    Capacity {
        /// So many serve now.
        serving: usize,
        /// So many would at some time.
        left: usize,
        /// So many have to.
        least: usize,
    },
    /// The endpoint that is to go would be found again.
    #[error("endpoint {endpoint} of version `{version}` was discovered: no other can take its place")]
    Discovered {
        /// Which.
        endpoint: EndpointAddr,
        /// Where.
        version: VersionName,
    },
    /// Nobody would know when a machine has been restarted.
    #[error("endpoint {0} is restarted in its place: somebody has to say when that is done")]
    NobodyConfirms(EndpointAddr),
}

impl NotPlanned {
    /// A stable token for machines.
    #[must_use]
    pub fn token(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing_to_replace",
            Self::Twice(_) => "named_twice",
            Self::NotServing { .. } => "not_serving",
            Self::Serving { .. } => "serving",
            Self::NoTraffic(_) => "no_traffic",
            Self::Ramping(_) => "ramping",
            Self::Retiring(_) => "retiring",
            Self::Targeted(_) => "targeted",
            Self::Capacity { .. } => "capacity",
            Self::Discovered { .. } => "discovered",
            Self::NobodyConfirms(_) => "nobody_confirms",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Nothing => "name endpoints: `--replace OLD=NEW`",
            Self::Twice(_) => "name each endpoint once",
            Self::NotServing { .. } | Self::Serving { .. } => {
                "`switchback status SERVICE` lists the endpoints"
            }
            Self::NoTraffic(_) => "`switchback status SERVICE` shows the weights",
            Self::Ramping(_) => {
                "`switchback abort SERVICE` takes it back, `switchback promote SERVICE --full` brings it to its end"
            }
            Self::Retiring(_) => "`switchback abort SERVICE` sends everybody back at once",
            Self::Targeted(_) => "take the rule away first: `switchback rules SERVICE` shows them",
            Self::Capacity { .. } => {
                "replace fewer at a time (`--batch`), let new ones come first (`--surge`), or ask for less (`--min-capacity`)"
            }
            Self::Discovered { .. } => {
                "replace it where it was found; or restart it in its place (without `=NEW`), or go to another version (`--to`)"
            }
            Self::NobodyConfirms(_) => {
                "give a `--hook COMMAND` that restarts it, or `--confirm` each yourself"
            }
        }
    }
}

impl Plan {
    /// True when endpoints go from one version to another.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.from != self.to
    }

    /// The moves without names in both pools: each serving endpoint of `from` with one of `to`, in order; in one version
    /// each in its place.
    #[must_use]
    pub fn pairs(from: &VersionSpec, to: &VersionSpec) -> Vec<Move> {
        let goes: Vec<_> = from.serving().cloned().collect();
        let comes: Vec<_> = to.serving().cloned().collect();
        let of = |index: usize| Move { out: goes.get(index).cloned(), into: comes.get(index).cloned() };
        (0..goes.len().max(comes.len())).map(of).collect()
    }

    /// Whether it can begin on a service as it stands; these serve now.
    ///
    /// # Errors
    /// [`NotPlanned`].
    pub fn check(
        &self,
        (service, deployment): (&Service, &Deployment),
        serving: &Serving,
        confirms: bool,
    ) -> Result<(), NotPlanned> {
        let serves = |version: &VersionName, endpoint: &EndpointAddr| {
            service.version(version).is_some_and(|spec| spec.serving().any(|other| other == endpoint))
        };
        if self.moves.is_empty() {
            return Err(NotPlanned::Nothing);
        }
        if let Some(ramp) = deployment.ramp.as_ref().filter(|_| self.is_between()) {
            return Err(NotPlanned::Ramping(ramp.to.clone()));
        }
        if let Some(retirement) = deployment.retirement.as_ref().filter(|_| self.is_between()) {
            return Err(NotPlanned::Retiring(retirement.version.clone()));
        }
        if self.is_between() && service.split.rules().leads_to(&self.from) {
            return Err(NotPlanned::Targeted(self.from.clone()));
        }
        if self.is_between() && service.split.weight(&self.from) == BasisPoints::NONE {
            return Err(NotPlanned::NoTraffic(self.from.clone()));
        }
        for (index, step) in self.moves.iter().enumerate() {
            if let Some(endpoint) = self.moves[..index].iter().find_map(|earlier| self.clash(earlier, step)) {
                return Err(NotPlanned::Twice(endpoint.clone()));
            }
            if let Some(out) = step.out.as_ref().filter(|out| !serves(&self.from, out)) {
                return Err(NotPlanned::NotServing { endpoint: out.clone(), version: self.from.clone() });
            }
            let comes = step.into.as_ref().filter(|_| !self.is_between() && !step.is_in_place());
            if let Some(into) = comes.filter(|into| serves(&self.to, into)) {
                return Err(NotPlanned::Serving { endpoint: into.clone(), version: self.to.clone() });
            }
            if let Some(out) = step.out.as_ref().filter(|_| step.is_in_place() && !confirms) {
                return Err(NotPlanned::NobodyConfirms(out.clone()));
            }
        }
        self.check_removable(&self.moves, deployment)?;
        let left = self.least(serving);
        if left < self.min_serving.max(1) {
            let (serving, least) = (serving.count(), self.min_serving.max(1));
            return Err(NotPlanned::Capacity { serving, left, least });
        }
        Ok(())
    }

    /// Whether the old endpoints of these moves can leave their pool, where they have to.
    ///
    /// # Errors
    /// [`NotPlanned::Discovered`].
    pub fn check_removable(&self, moves: &[Move], deployment: &Deployment) -> Result<(), NotPlanned> {
        let mut gone = moves.iter().filter(|step| !self.is_between() && !step.is_in_place());
        match gone.find_map(|step| step.out.as_ref().filter(|out| deployment.has_found(&self.from, out))) {
            Some(out) => Err(NotPlanned::Discovered { endpoint: out.clone(), version: self.from.clone() }),
            None => Ok(()),
        }
    }

    /// The endpoint that two moves do not agree about.
    fn clash<'m>(&self, one: &Move, other: &'m Move) -> Option<&'m EndpointAddr> {
        let is = |endpoint: &&EndpointAddr, place: &Option<EndpointAddr>| place.as_ref() == Some(*endpoint);
        let out =
            other.out.as_ref().filter(|out| is(out, &one.out) || (!self.is_between() && is(out, &one.into)));
        let into = other.into.as_ref();
        out.or(into.filter(|into| is(into, &one.into) || (!self.is_between() && is(into, &one.out))))
    }

    /// How many serve at least, if all goes as planned and these do now.
    #[must_use]
    pub fn least(&self, serving: &Serving) -> usize {
        let (mut now, mut least) = (serving.count(), serving.count());
        for batch in self.moves.chunks(self.batch.max(1)) {
            let out = batch.iter().filter(|step| serving.goes(step)).count();
            // One that is restarted in its place cannot come before it goes.
            let (first, then): (Vec<_>, Vec<_>) = batch
                .iter()
                .filter(|step| serving.comes(step))
                .partition(|step| self.surge && !step.is_in_place());
            now = (now + first.len()).saturating_sub(out);
            least = least.min(now);
            now += then.len();
        }
        least
    }

    /// The weights when `old` endpoints of `from` and `new` ones of `to` serve; `None` when they are so already.
    ///
    /// What both have together is shared by the number of endpoints.
    #[must_use]
    pub fn weights(&self, service: &Service, old: usize, new: usize, way: Way) -> Option<Command> {
        let weight = |version: &VersionName| u64::from(service.split.weight(version).points());
        let (from, to) = (weight(&self.from), weight(&self.to));
        let all = (old + new) as u64;
        if !self.is_between() || all == 0 {
            return None;
        }
        let share = ((from + to) * new as u64 + all / 2) / all;
        let share = match way {
            Way::Forward => share.max(to),
            Way::Back { begun, is_over } => {
                let begun = u64::from(begun.points()).min(from + to);
                // What was taken from it meanwhile it does not get back.
                if is_over { begun.min(to) } else { share.max(begun).min(to) }
            }
        };
        if share == to {
            return None;
        }
        let others = service.split.shares().filter(|(name, _)| **name != self.from && **name != self.to);
        let mut weights: Vec<_> = others.map(|(name, weight)| (name.clone().into(), weight)).collect();
        let points = |points| BasisPoints::new(points).unwrap_or_default();
        weights.push((self.from.clone().into(), points(from + to - share)));
        weights.push((self.to.clone().into(), points(share)));
        let (service, supervise) = (self.service.clone(), Supervise::AsConfigured);
        Some(Command::SetWeights { service, weights, rest: None, supervise })
    }

    /// What the two versions have after this command; `None`: as before.
    #[must_use]
    pub fn weights_by(&self, command: &Command) -> Option<(BasisPoints, BasisPoints)> {
        match command {
            Command::Batch(commands) => commands.iter().find_map(|command| self.weights_by(command)),
            Command::SetWeights { weights, .. } => {
                let of = |version: &VersionName| {
                    let reference = VersionRef::from(version.clone());
                    let set = weights.iter().find(|(name, _)| *name == reference);
                    set.map_or(BasisPoints::NONE, |(_, weight)| *weight)
                };
                Some((of(&self.from), of(&self.to)))
            }
            _ => None,
        }
    }

    /// This endpoint of the version that is left gets nothing new.
    #[must_use]
    pub fn drain(&self, version: &VersionName, endpoint: &EndpointAddr) -> Command {
        let (service, version, endpoint) = (self.service.clone(), version.clone().into(), endpoint.clone());
        Command::DrainEndpoint { service, version, endpoint }
    }

    /// This endpoint serves, for the first time or again; this is said of it.
    #[must_use]
    pub fn put(&self, version: &VersionName, endpoint: &EndpointAddr, traits: TraitsEdit) -> Command {
        let (service, version, endpoint) = (self.service.clone(), version.clone().into(), endpoint.clone());
        Command::PutEndpoint { service, version, endpoint, traits }
    }

    /// This endpoint of a pool serves again, or would, once it is found again.
    #[must_use]
    pub fn end_drain(&self, version: &VersionName, endpoint: &EndpointAddr) -> Command {
        let (service, version, endpoint) = (self.service.clone(), version.clone().into(), endpoint.clone());
        Command::EndDrain { service, version, endpoint }
    }

    /// This endpoint is not thought of any more.
    #[must_use]
    pub fn remove(&self, version: &VersionName, endpoint: &EndpointAddr) -> Command {
        let (service, version, endpoint) = (self.service.clone(), version.clone().into(), endpoint.clone());
        Command::RemoveEndpoint { service, version, endpoint }
    }
}
