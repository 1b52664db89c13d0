//! The readiness gate: a version gets traffic that it did not have only when enough of its endpoints are well.
//!
//! What is well is told with the order, so that the decision is pure and a plan says what the change would. A way back is never
//! barred: a revert, an abort or an undo only notes what it found; the end of a retirement, which has time, waits. The file says what exists: what has no version any more goes to another,
//! which has to be well, as long as anybody of the first is. Supervision takes traffic
//! back to a baseline of which anybody is well, and to any that has proven to answer; it gives it to the candidate again like anybody,
//! unless the baseline is not ready either.

use std::fmt;

use super::draft::Draft;
use super::{Command, Refused, Timestamp};
use crate::table::{
    BasisPoints, EndpointAddr, Protocol, Service, ServiceName, Table, VersionName, VersionSpec,
};

/// What is known of the health of endpoints when an order is given; of those that are not named nothing is.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// True when the order is to be carried out whatever is known.
    pub forced: bool,
    /// The endpoints that are looked after, of the services that the order is about.
    pub endpoints: Vec<EndpointHealth>,
}

/// What is known of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// The endpoint.
    pub endpoint: EndpointAddr,
    /// What its version speaks: what is known holds for that.
    pub protocol: Protocol,
    /// True when it was found well, and gets requests.
    pub is_well: bool,
    /// What its last check said, and when, once there was one.
    pub last: Option<(String, Timestamp)>,
}

/// How ready a version is to get traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// How many of its endpoints are well.
    pub well: usize,
    /// How many it has, without those that are drained.
    pub endpoints: usize,
    /// How many have to be well; 0 when they are not checked.
    pub least: usize,
    /// The others.
    pub unwell: Vec<NotWell>,
}

/// An endpoint that is not well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotWell {
    /// The endpoint.
    pub endpoint: EndpointAddr,
    /// What its last check said, and when; `None`: it was not checked yet.
    pub last: Option<(String, Timestamp)>,
}

impl Health {
    /// How ready `version` of `service` is. Without checks every endpoint is taken for well.
    #[must_use]
    pub fn readiness(&self, service: &Service, version: &VersionSpec) -> Readiness {
        let serving: Vec<_> = version.serving().collect();
        let endpoints = serving.len();
        let Some(rules) = &service.pool(version).health else {
            return Readiness { well: endpoints, endpoints, least: 0, unwell: Vec::new() };
        };
        let of_version = self
            .endpoints
            .iter()
            .filter(|known| known.service == service.name && known.version == version.name)
            .filter(|known| known.protocol == version.protocol);
        let known: Vec<_> = of_version.collect();
        let unwell = serving.into_iter().filter_map(|endpoint| {
            let known = known.iter().find(|known| known.endpoint == *endpoint);
            let last = || known.and_then(|known| known.last.clone());
            (!known.is_some_and(|known| known.is_well))
                .then(|| NotWell { endpoint: endpoint.clone(), last: last() })
        });
        let unwell: Vec<_> = unwell.collect();
        Readiness {
            well: endpoints - unwell.len(),
            endpoints,
            least: rules.min_healthy.of(endpoints),
            unwell,
        }
    }
}

impl Readiness {
    /// True when enough endpoints are well.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.well >= self.least
    }
}

/// The most endpoints that are named one by one.
const MOST: usize = 3;

impl fmt::Display for Readiness {
    /// `0 of 2 endpoints healthy, 1 needed (10.0.0.1:80: status 503; 10.0.0.2:80: not checked yet)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { well, endpoints, least, unwell } = self;
        let plural = if *endpoints == 1 { "" } else { "s" };
        write!(f, "{well} of {endpoints} endpoint{plural} healthy, {least} needed")?;
        for (index, NotWell { endpoint, last }) in unwell.iter().take(MOST).enumerate() {
            let before = if index == 0 { " (" } else { "; " };
            let said = last.as_ref().map_or("not checked yet", |(said, _)| said);
            write!(f, "{before}{endpoint}: {said}")?;
        }
        match unwell.len() {
            0 => Ok(()),
            few if few <= MOST => f.write_str(")"),
            many => write!(f, "; and {} more)", many - MOST),
        }
    }
}

/// Why a file is refused that takes a version away from those who go there; by a rule alone where its weight is 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Bereft {
    /// It leaves the version nothing to send them to.
    #[error("the file leaves version `{version}` of service `{service}` without endpoints, and {}", who(*weight))]
    LeftEmpty {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// Its weight.
        weight: BasisPoints,
    },
    /// It has the version no more, and who would get them is not ready for it.
    #[error(
        "the file has no version `{gone}` of service `{service}` any more, and {}; `{heir}`, which would get that, is not ready: {readiness}",
        who(*weight)
    )]
    NoHeir {
        /// The service.
        service: ServiceName,
        /// The version that the file has no more.
        gone: VersionName,
        /// Its weight.
        weight: BasisPoints,
        /// The version that would get that.
        heir: VersionName,
        /// How many of its endpoints are well, and what the checks of the others said.
        readiness: Box<Readiness>,
    },
}

/// Who goes to a version of this weight.
fn who(weight: BasisPoints) -> String {
    match weight {
        BasisPoints::NONE => "a targeting rule leads there".to_owned(),
        weight => format!("it carries {weight} of the traffic"),
    }
}

impl Bereft {
    /// A stable token for machines, as in `type` of the problem details.
    #[must_use]
    pub fn token(&self) -> &'static str {
        match self {
            Self::LeftEmpty { .. } => "left_empty",
            Self::NoHeir { .. } => "no_heir",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        let rules = |service| format!("`switchback rules {service}` shows the rules");
        let flip = |service| format!("`switchback flip {service} --to OTHER`");
        match self {
            Self::LeftEmpty { service, weight: BasisPoints::NONE, .. } => {
                format!("give it endpoints again, or take the rule away first: {}", rules(service))
            }
            Self::LeftEmpty { service, .. } => {
                format!("give it endpoints again, or move its traffic away first: {}", flip(service))
            }
            Self::NoHeir { service, gone, weight: BasisPoints::NONE, .. } => {
                format!("leave `{gone}` in the file while a rule leads there: {}", rules(service))
            }
            Self::NoHeir { service, gone, .. } => {
                let flip = flip(service);
                format!(
                    "leave `{gone}` in the file until its traffic is with a version that is ready: {flip}"
                )
            }
        }
    }
}

impl Command {
    /// The services of `table` whose versions it may give traffic to.
    #[must_use]
    pub fn moves(&self, table: &Table) -> Vec<&ServiceName> {
        match self {
            Self::Flip { service, .. }
            | Self::Revert { service }
            | Self::SetWeights { service, .. }
            | Self::SetRules { service, .. }
            | Self::Ramp { service, .. }
            | Self::Switch { service, .. }
            | Self::Supervise { service, .. } => vec![service],
            Self::Batch(commands) => commands.iter().flat_map(|command| command.moves(table)).collect(),
            // Not gated, but what is not well is noted. What has not changed since then is not touched.
            Self::Undo { to, records, .. } => {
                let touched = records.iter().map(|record| &record.service);
                touched.filter(|name| table.service(name).is_some_and(|now| now.epoch > *to)).collect()
            }
            Self::Configure { services, .. } => services.iter().map(|service| &service.name).collect(),
            Self::PutVersion { .. }
            | Self::RemoveVersion { .. }
            | Self::PutEndpoint { .. }
            | Self::RemoveEndpoint { .. }
            | Self::DrainEndpoint { .. }
            | Self::EndDrain { .. }
            | Self::Discover { .. }
            | Self::Hold { .. }
            | Self::Release { .. } => Vec::new(),
        }
    }
}

impl Draft<'_> {
    /// Refuses to give traffic to a version that is not ready for it.
    ///
    /// # Errors
    /// [`Refused::NotReady`], unless the order is forced, or the way back; [`Bereft::NoHeir`] of a file.
    pub(super) fn gate(&mut self, health: &Health) -> Result<(), Refused> {
        if self.configured {
            return self.gate_file(health);
        }
        for (name, item) in &self.services {
            // Who had traffic until now, and is ready for it.
            let serves_now = |before: &Service, but: &VersionName| {
                let others = before.split.versions().filter(|version| *version != but);
                let mut others = others.filter_map(|version| before.version(version));
                others.any(|spec| health.readiness(before, spec).is_ready())
            };
            let before = self.base.table.service(name);
            let had = |version| before.map_or(BasisPoints::NONE, |before| before.split.weight(version));
            let was_led_to = |version| before.is_some_and(|before| before.split.leads_to(version));
            let split = &item.service.split;
            let raised = split.versions().filter(|of| split.weight(of) > had(of) || !was_led_to(of));
            for spec in raised.filter_map(|version| item.service.version(version)) {
                let readiness = health.readiness(&item.service, spec);
                if readiness.is_ready() {
                    continue;
                }
                let (service, version) = (name.clone(), spec.name.clone());
                let is_better = self.by_supervision.contains(name)
                    && readiness.well > 0
                    && (item.leaves_suspect || before.is_some_and(|before| !serves_now(before, &spec.name)));
                if self.ways_back.contains(name) || item.is_undone || is_better {
                    self.notes.push(format!("`{version}` of `{service}`: {readiness}"));
                } else if health.forced {
                    let Readiness { well, endpoints, .. } = readiness;
                    self.notes.push(format!("forced to `{version}` of `{service}`: {readiness}"));
                    self.forced
                        .push(format!("{service}: forced, {well} of {endpoints} of {version} healthy"));
                } else {
                    return Err(Refused::NotReady { service, version, readiness: Box::new(readiness) });
                }
            }
        }
        Ok(())
    }

    /// Refuses a file that takes traffic from who answers to who is not ready for it, whether it came by weight or by a rule.
    fn gate_file(&self, health: &Health) -> Result<(), Refused> {
        for (name, item) in &self.services {
            let (before, after) = (self.base.table.service(name), &item.service);
            // At a start nobody serves yet.
            let Some(before) = before else { continue };
            let answers = |version: &VersionName| {
                before.version(version).is_some_and(|spec| health.readiness(before, spec).well > 0)
            };
            let is_taken = |version: &&VersionName| !after.split.leads_to(version) && answers(version);
            for gone in before.split.versions().filter(is_taken) {
                // Whom a rule led there goes by the weights, whether these are new or not.
                let is_targeted = before.split.rules().leads_to(gone);
                let heirs = after.split.shares();
                let heirs = heirs.filter(|(to, now)| is_targeted || *now > before.split.weight(to));
                for heir in heirs.filter_map(|(version, _)| after.version(version)) {
                    let readiness = health.readiness(after, heir);
                    if readiness.endpoints == 0 || !readiness.is_ready() {
                        let (service, heir, weight) =
                            (name.clone(), heir.name.clone(), before.split.weight(gone));
                        let (gone, readiness) = (gone.clone(), Box::new(readiness));
                        return Err(Bereft::NoHeir { service, gone, weight, heir, readiness }.into());
                    }
                }
            }
        }
        Ok(())
    }
}
