//! Why an order was refused, in words for people and tokens for machines.

use super::gate::{Bereft, Readiness};
use super::retire::Barred;
use super::targeting::Misaimed;
use crate::table::{
    BasisPoints, EndpointAddr, Epoch, Invalid, RouteTaken, ServiceName, VersionName, VersionRef,
};

/// Why an order was refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No service of this name.
    #[error("no service `{service}`")]
    UnknownService {
        /// The name asked for.
        service: ServiceName,
    },
    /// The service has no such version.
    #[error("{}", missing(service, version, known))]
    UnknownVersion {
        /// The service.
        service: ServiceName,
        /// The version asked for.
        version: VersionRef,
        /// The versions it has.
        known: Vec<VersionName>,
    },
    /// A version without endpoints cannot carry traffic.
    #[error("version `{version}` of service `{service}` has no endpoints")]
    EmptyVersion {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
    },
    /// There is no split to put back.
    #[error("nothing to revert in `{service}`: no flip or weight change is left to take back")]
    NothingToRevert {
        /// The service.
        service: ServiceName,
    },
    /// A ramp of the service is under way.
    #[error("a ramp of `{service}` to `{to}` is under way")]
    Ramping {
        /// The service.
        service: ServiceName,
        /// Where it goes.
        to: VersionName,
    },
    /// No ramp of the service is under way, or another one.
    #[error("no ramp of `{service}` is under way")]
    NoRamp {
        /// The service.
        service: ServiceName,
    },
    /// The version has as much as the ramp would give it.
    #[error("nothing to ramp: `{version}` of `{service}` has {weight} already, and no step is above that")]
    NothingToRamp {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// Its weight.
        weight: BasisPoints,
    },
    /// Supervision has something against a version of the service: nobody gives it more by a ramp.
    #[error("supervision suspects `{version}` of `{service}`")]
    Suspect {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
    },
    /// A retirement is in the way, or something is in its way.
    #[error(transparent)]
    Retire(#[from] Barred),
    /// A ramp is no edit of a batch.
    #[error("a ramp of `{service}` stands alone, not in a batch")]
    RampInBatch {
        /// The service.
        service: ServiceName,
    },
    /// The weights are not a split.
    #[error("service `{service}`: {why}")]
    BadWeights {
        /// The service.
        service: ServiceName,
        /// What is wrong with them.
        why: Invalid,
    },
    /// A targeting rule is in the way, or cannot be one.
    #[error(transparent)]
    Rules(#[from] Misaimed),
    /// A version that carries traffic cannot be taken away.
    #[error("version `{version}` of service `{service}` carries {weight} of the traffic")]
    VersionInUse {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// Its weight.
        weight: BasisPoints,
    },
    /// Copies of requests come to the version: it cannot be taken away, nor left empty.
    #[error("the mirror of service `{service}` leads to version `{version}`")]
    Mirrored {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
    },
    /// The pool has no such endpoint.
    #[error("version `{version}` of service `{service}` has no endpoint {endpoint}")]
    UnknownEndpoint {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// The endpoint asked for.
        endpoint: EndpointAddr,
    },
    /// The endpoint is drained: it is to get nothing.
    #[error("{endpoint} of version `{version}` of service `{service}` is drained")]
    Draining {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// The endpoint.
        endpoint: EndpointAddr,
    },
    /// The last endpoint of a version that carries traffic cannot be taken away.
    #[error(
        "{endpoint} is the last endpoint of version `{version}` of service `{service}`, which carries {weight} of the traffic"
    )]
    LastEndpoint {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// The endpoint.
        endpoint: EndpointAddr,
        /// The version's weight.
        weight: BasisPoints,
    },
    /// The version that supervision may give the traffic back to cannot be left without an endpoint that serves.
    #[error(
        "supervision compares `{candidate}` of service `{service}` with `{version}`, and may give the traffic back to that: an endpoint of it has to serve"
    )]
    Measure {
        /// The service.
        service: ServiceName,
        /// The version that serves as the measure.
        version: VersionName,
        /// The version that is compared with it.
        candidate: VersionName,
    },
    /// Too few endpoints of a version are well for it to get more traffic.
    #[error("`{version}` of `{service}` is not ready for traffic: {readiness}")]
    NotReady {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// How many are well, and what the checks of the others said.
        readiness: Box<Readiness>,
    },
    /// The file takes a version away from its traffic.
    #[error(transparent)]
    File(#[from] Bereft),
    /// An endpoint that was found cannot be taken away: it would be found again.
    #[error("{endpoint} of version `{version}` of service `{service}` was discovered")]
    Discovered {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// The endpoint.
        endpoint: EndpointAddr,
    },
    /// Somebody else changed the service in between.
    #[error("service `{service}` is at epoch {present}, not {expected}")]
    Conflict {
        /// The service.
        service: ServiceName,
        /// The epoch the order was made for.
        expected: Epoch,
        /// The epoch of its last change.
        present: Epoch,
    },
    /// The epoch is in the future, or older than the history.
    #[error("cannot go back to epoch {to}: the history reaches from {oldest} to {newest}")]
    UnknownEpoch {
        /// The epoch asked for.
        to: Epoch,
        /// The oldest one known.
        oldest: Epoch,
        /// The present one.
        newest: Epoch,
    },
    /// What the old epoch needs is no longer there.
    #[error(
        "cannot go back to epoch {to}: then `{service}` sent traffic to `{version}`, which is gone or empty"
    )]
    Gone {
        /// The epoch asked for.
        to: Epoch,
        /// The service.
        service: ServiceName,
        /// The version that is missing now.
        version: VersionName,
    },
    /// Two services with the same route.
    #[error(transparent)]
    RouteTaken(#[from] RouteTaken),
    /// Nothing is compared there, or something else by now.
    #[error("the trial of `{service}` is over")]
    NoTrial {
        /// The service.
        service: ServiceName,
    },
    /// A change with nothing in it.
    #[error("the change is empty")]
    EmptyChange,
    /// One edit of a batch was refused, and so all of it.
    #[error("{why}")]
    Edit {
        /// Which one, from 0 on.
        index: usize,
        /// Why.
        why: Box<Self>,
    },
}

fn missing(service: &ServiceName, version: &VersionRef, known: &[VersionName]) -> String {
    match version {
        VersionRef::Candidate => {
            format!(
                "service `{service}` has no candidate: one version has all the traffic; it has {}",
                list(known)
            )
        }
        VersionRef::Name(_) | VersionRef::Stable => {
            format!("service `{service}` has no version `{version}`; it has {}", list(known))
        }
    }
}

fn list(names: &[VersionName]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() { "none".to_owned() } else { quoted.join(", ") }
}

impl Refused {
    /// A stable token for machines, as in `type` of the problem details.
    #[must_use]
    pub fn token(&self) -> &'static str {
        match self {
            Self::UnknownService { .. } => "unknown_service",
            Self::UnknownVersion { .. } => "unknown_version",
            Self::EmptyVersion { .. } => "empty_version",
            Self::NothingToRevert { .. } => "nothing_to_revert",
            Self::Ramping { .. } => "ramping",
            Self::NoRamp { .. } => "no_ramp",
            Self::NothingToRamp { .. } => "nothing_to_ramp",
            Self::Suspect { .. } => "suspect",
            Self::Retire(why) => why.token(),
            Self::RampInBatch { .. } => "ramp_in_batch",
            Self::BadWeights { .. } => "bad_weights",
            Self::Rules(why) => why.token(),
            Self::VersionInUse { .. } => "version_in_use",
            Self::Mirrored { .. } => "mirrored",
            Self::UnknownEndpoint { .. } => "unknown_endpoint",
            Self::Draining { .. } => "draining",
            Self::LastEndpoint { .. } => "last_endpoint",
            Self::Measure { .. } => "measure",
            Self::NotReady { .. } => "not_ready",
            Self::File(why) => why.token(),
            Self::Discovered { .. } => "discovered",
            Self::Conflict { .. } => "conflict",
            Self::UnknownEpoch { .. } => "unknown_epoch",
            Self::Gone { .. } => "gone",
            Self::RouteTaken(_) => "route_taken",
            Self::NoTrial { .. } => "no_trial",
            Self::EmptyChange => "empty_change",
            Self::Edit { why, .. } => why.token(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownService { .. } => "`switchback status` lists the services".to_owned(),
            Self::UnknownVersion { version: VersionRef::Candidate, .. } => "name the version".to_owned(),
            Self::UnknownVersion { service, .. } => {
                format!(
                    "add it to the file or with `switchback versions add {service} VERSION --endpoint HOST:PORT`"
                )
            }
            Self::EmptyVersion { service, version } => {
                format!("`switchback endpoints add {service}/{version} HOST:PORT`, then try again")
            }
            Self::NothingToRevert { .. } => {
                "`switchback history` shows the changes; `switchback undo --to EPOCH` goes further back"
                    .to_owned()
            }
            Self::Ramping { service, .. } => {
                format!(
                    "`switchback abort {service}` takes it back, `switchback promote {service} --full` brings it to its end; then try again"
                )
            }
            Self::NoRamp { service } => format!(
                "`switchback revert {service}` takes back what one that is over has moved, `switchback ramp {service} --to VERSION` begins one"
            ),
            Self::NothingToRamp { service, .. } => format!("`switchback status {service}` shows the weights"),
            Self::Suspect { service, .. } => format!(
                "wait until that is over (`switchback status {service}`), or take it back: `switchback revert {service}`"
            ),
            Self::Retire(why) => why.hint(),
            Self::RampInBatch { .. } => "ask for it by itself".to_owned(),
            Self::BadWeights { .. } => {
                "name every version that shall get traffic; the sum must be 100 %".to_owned()
            }
            Self::Rules(why) => why.hint(),
            Self::Mirrored { service, .. } => {
                format!("take `mirror` of `{service}` out of the file first, or name another version there")
            }
            Self::VersionInUse { service, .. } => {
                format!("move its traffic away first: `switchback flip {service} --to OTHER`")
            }
            Self::UnknownEndpoint { service, .. } => {
                format!("`switchback status {service}` lists the endpoints")
            }
            Self::Draining { service, version, endpoint } => {
                format!("`switchback endpoints add {service}/{version} {endpoint}` has it serve again")
            }
            Self::LastEndpoint { service, .. } => {
                format!(
                    "add another endpoint first, or move the traffic away: `switchback flip {service} --to OTHER`"
                )
            }
            Self::Measure { service, candidate, .. } => {
                format!(
                    "add another endpoint first, or end the comparison: `switchback flip {service} --to {candidate} --no-supervise`"
                )
            }
            Self::NotReady { service, .. } => {
                format!("`switchback status {service}` shows the checks; `--force` does it anyway")
            }
            Self::File(why) => why.hint(),
            Self::Discovered { service, version, endpoint } => {
                format!(
                    "take it out where it was found, or let it be: `switchback endpoints drain {service}/{version} {endpoint}`"
                )
            }
            Self::Conflict { .. } => "read the service again and decide anew".to_owned(),
            Self::UnknownEpoch { .. } => "`switchback history` lists the epochs".to_owned(),
            Self::Gone { service, version, .. } => {
                format!("put `{version}` of `{service}` back first, or undo to a later epoch")
            }
            Self::RouteTaken(_) => "give one of them another host, path or header".to_owned(),
            Self::NoTrial { .. } => "flip with `--supervise` to begin one".to_owned(),
            Self::EmptyChange => "name at least one edit".to_owned(),
            Self::Edit { why, .. } => why.hint(),
        }
    }
}
