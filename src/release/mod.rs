//! WHEN traffic moves: one function, [`step`], from a state and an event to the next state and what to do about it.
//!
//! Pure: no clock, no randomness, no I/O; refused events change nothing. The whole deployment logic can be read here:
//!
//! ```text
//!              weights on several versions
//!    Steady ───────────────────────────────▶ Canary
//!      ▲  ▲ ◀─────────────────────────────────  │
//!      │  │      all weight on one version      │ a version loses its last weight
//!      │  └──────────────┐                      ▼
//!      └── Drained ── Draining { leaving } ◀── flip, revert, weights, undo
//! ```

pub mod deployment;
mod draft;
mod finish;
pub mod history;
mod overlay;

use std::sync::Arc;

pub use deployment::{Deployment, Edit, Phase, Previous};
use draft::Draft;
pub use history::{Actor, ActorKind, Change, ChangeKind, ServiceRecord, Timestamp};

use crate::table::{
    BasisPoints, EndpointAddr, Epoch, Invalid, RouteTaken, ServiceName, ServiceSpec, Table, VersionName,
    VersionRef, VersionSpec,
};

/// Everything that decides where traffic goes and what may be done about it next.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Where traffic goes.
    pub table: Arc<Table>,
    /// How each service came to be where it is; in the order of the table's services.
    pub deployments: Vec<Arc<Deployment>>,
}

impl State {
    /// The state before the file is read, at the epoch that the store remembers.
    ///
    /// # Panics
    /// Never: a table without routes has no conflict.
    #[must_use]
    pub fn at(epoch: Epoch) -> Self {
        let table = Table::build(epoch, Vec::new()).unwrap_or_default();
        Self { table: Arc::new(table), deployments: Vec::new() }
    }

    /// The deployment of the service with this name.
    #[must_use]
    pub fn deployment(&self, service: &ServiceName) -> Option<&Deployment> {
        self.table.index(service).map(|index| &*self.deployments[index])
    }
}

/// Something that happened, or that somebody wants.
#[derive(Debug, Clone)]
pub enum Event {
    /// Somebody wants a change.
    Order(Order),
    /// Nothing is left on a version that had been left.
    Drained {
        /// The service.
        service: ServiceName,
        /// The version that is now safe to stop.
        version: VersionName,
    },
}

/// A wanted change: what, who, why, and on what understanding.
#[derive(Debug, Clone)]
pub struct Order {
    /// What.
    pub command: Command,
    /// Who.
    pub actor: Actor,
    /// Why, in the actor's words; may be empty.
    pub reason: String,
    /// Refuse unless these services are at these epochs (`If-Match`).
    pub expected: Vec<(ServiceName, Epoch)>,
}

/// The edits that a change is made of.
#[derive(Debug, Clone)]
pub enum Command {
    /// All new requests of a service to one version.
    Flip {
        /// The service.
        service: ServiceName,
        /// The version that gets everything.
        to: VersionRef,
    },
    /// The split as it was before the last flip, ramp or weight change.
    Revert {
        /// The service.
        service: ServiceName,
    },
    /// New weights.
    SetWeights {
        /// The service.
        service: ServiceName,
        /// The weights; versions that are not named get 0, or the rest.
        weights: Vec<(VersionRef, BasisPoints)>,
        /// Who gets what is missing to 100 %; `None` refuses weights that do not sum.
        rest: Option<VersionRef>,
    },
    /// A version comes, or its pool is replaced.
    PutVersion {
        /// The service.
        service: ServiceName,
        /// The version as it shall be.
        version: VersionSpec,
    },
    /// A version without weight goes.
    RemoveVersion {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
    },
    /// An endpoint joins a pool.
    PutEndpoint {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionRef,
        /// The endpoint.
        endpoint: EndpointAddr,
    },
    /// An endpoint leaves a pool.
    RemoveEndpoint {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionRef,
        /// The endpoint.
        endpoint: EndpointAddr,
    },
    /// Several edits as one change with one epoch: all or none.
    Batch(Vec<Command>),
    /// Every service that changed since `to` goes back to where it was then.
    Undo {
        /// The epoch to go back to.
        to: Epoch,
        /// What the store remembers of that epoch, one record a service that existed.
        records: Vec<ServiceRecord>,
    },
    /// The file was read: these services exist, and no others.
    Configure {
        /// The services of the file.
        services: Vec<ServiceSpec>,
        /// At start: what the store remembers, newest record of each service. Empty on a reload.
        records: Vec<ServiceRecord>,
    },
}

/// What has to be done about a step, in this order: persist, publish, close, report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// The change to persist and then publish; `None` when the table is what it was.
    pub change: Option<Change>,
    /// Versions that lost their last weight, or are gone: no new requests; their drain starts.
    pub left: Vec<(ServiceName, VersionName)>,
    /// Versions that were draining and carry weight again: their drain is cancelled.
    pub returned: Vec<(ServiceName, VersionName)>,
    /// Things the operator should know that are no reason to refuse.
    pub notes: Vec<String>,
}

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
    #[error("service `{service}` has no version `{version}`; it has {}", list(known))]
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
    #[error("nothing to revert in `{service}`: its split is the one before the last flip or weight change")]
    NothingToRevert {
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
    #[error("cannot go back to epoch {to}: then `{service}` sent traffic to `{version}`, which is gone")]
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
    /// A change with nothing in it.
    #[error("the change is empty")]
    EmptyChange,
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
            Self::BadWeights { .. } => "bad_weights",
            Self::VersionInUse { .. } => "version_in_use",
            Self::UnknownEndpoint { .. } => "unknown_endpoint",
            Self::LastEndpoint { .. } => "last_endpoint",
            Self::Conflict { .. } => "conflict",
            Self::UnknownEpoch { .. } => "unknown_epoch",
            Self::Gone { .. } => "gone",
            Self::RouteTaken(_) => "route_taken",
            Self::EmptyChange => "empty_change",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownService { .. } => "`switchback status` lists the services".to_owned(),
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
            Self::BadWeights { .. } => {
                "name every version that shall get traffic; the sum must be 100 %".to_owned()
            }
            Self::VersionInUse { service, .. } => {
                format!("move its traffic away first: `switchback flip {service} --to OTHER`")
            }
            Self::UnknownEndpoint { service, .. } => {
                format!("`switchback status {service}` lists the endpoints")
            }
            Self::LastEndpoint { service, .. } => {
                format!(
                    "add another endpoint first, or move the traffic away: `switchback flip {service} --to OTHER`"
                )
            }
            Self::Conflict { .. } => "read the service again and decide anew".to_owned(),
            Self::UnknownEpoch { .. } => "`switchback history` lists the epochs".to_owned(),
            Self::Gone { service, version, .. } => {
                format!("put `{version}` of `{service}` back first, or undo to a later epoch")
            }
            Self::RouteTaken(_) => "give one of them another host, path or header".to_owned(),
            Self::EmptyChange => "name at least one edit".to_owned(),
        }
    }
}

/// The next state and what to do about it.
///
/// Total and deterministic: the same state, event and time always give the same answer.
///
/// # Errors
/// [`Refused`] says why the event changes nothing.
pub fn step(state: &State, event: Event, now: Timestamp) -> Result<(State, Effects), Refused> {
    match event {
        Event::Order(order) => {
            check_expected(state, &order.expected)?;
            let mut draft = Draft::of(state);
            let kind = ChangeKind::of(&order.command);
            draft.apply(order.command)?;
            draft.finish(kind, order.actor, order.reason, now)
        }
        Event::Drained { service, version } => Ok(on_drained(state, &service, &version)),
    }
}

fn check_expected(state: &State, expected: &[(ServiceName, Epoch)]) -> Result<(), Refused> {
    for (name, expected) in expected {
        let unknown = || Refused::UnknownService { service: name.clone() };
        let present = state.table.service(name).ok_or_else(unknown)?.epoch;
        if present != *expected {
            return Err(Refused::Conflict { service: name.clone(), expected: *expected, present });
        }
    }
    Ok(())
}

/// A drain that ended changes the phase, not the table: no epoch, nothing to persist.
fn on_drained(state: &State, service: &ServiceName, version: &VersionName) -> (State, Effects) {
    let mut next = state.clone();
    if let Some(index) = state.table.index(service) {
        let split = &state.table.services()[index].split;
        let deployment = Arc::make_mut(&mut next.deployments[index]);
        deployment.phase = deployment.phase.without(version, split);
    }
    (next, Effects::default())
}
