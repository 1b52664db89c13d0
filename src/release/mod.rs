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
//!                         └── Drained ──▶ Canary, where several versions have weight
//! ```
//!
//! A ramp goes through weights that rise, by itself; it lies over these phases, as a trial does, and ends with the next act on the
//! split that is not its own. So does a retirement, which leaves the weights as they are, for those who are there.
//!
//! Apart from all that a service is held or not: a hold lies over any of these, and everything else can be changed
//! meanwhile.

pub mod deployment;
pub mod digest;
mod draft;
pub mod events;
mod finish;
pub mod gate;
pub mod history;
mod holds;
mod mirror;
mod overlay;
mod pins;
mod pools;
pub mod ramp;
mod refused;
pub mod retire;
pub mod rollout;
pub mod scope;
mod summary;
mod targeting;
#[cfg(test)]
mod tests;
pub mod trial;
mod undo;
pub mod verdict;

use std::sync::Arc;
use std::time::Duration;

pub use deployment::{Deployment, Discovered, Edit, Phase, Previous};
pub use digest::FileDigest;
use draft::Draft;
pub use events::EVENTS;
pub use gate::{Bereft, Health, Readiness};
pub use history::{Actor, ActorKind, Change, ChangeKind, ServiceRecord, Timestamp};
pub use ramp::{Interrupts, Ramp, RampEnd, RampOrder, Ramped, Steps};
pub use refused::Refused;
pub use retire::{Retired, Retirement};
pub use scope::{Beyond, Scope, Scopes};
pub use targeting::Misaimed;
pub use trial::{Act, Supervise, Suspicion, Trial};

use crate::table::{
    BasisPoints, Conditions, EndpointAddr, Epoch, HoldScope, Holder, ServiceName, ServiceSpec, Split, Table,
    TraitsEdit, VersionName, VersionRef, VersionSpec,
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
    /// Something is left on a version that was left before this process had the table: a process before it has that.
    Remains {
        /// The service.
        service: ServiceName,
        /// The version.
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
    /// What is known of the endpoints that it may give traffic to.
    pub health: Health,
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
        /// Whether that is supervised.
        supervise: Supervise,
        /// Whether it ends what moves the traffic already.
        interrupts: Interrupts,
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
        /// Whether what comes of it is supervised.
        supervise: Supervise,
    },
    /// New targeting rules, in the place of those that there are.
    SetRules {
        /// The service.
        service: ServiceName,
        /// The rules, in order, each with the version it leads to.
        rules: Vec<(Conditions, VersionRef)>,
    },
    /// A ramp begins, or something is done with the one that is under way, or its version is retired. Stands alone, not in a batch.
    Ramp {
        /// The service.
        service: ServiceName,
        /// What.
        order: RampOrder,
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
    /// An endpoint joins a pool, or something is said of one that is there.
    PutEndpoint {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionRef,
        /// The endpoint.
        endpoint: EndpointAddr,
        /// What is said of it.
        traits: TraitsEdit,
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
    /// New requests of a service wait; so they do after an undo, whatever it goes back to.
    Hold {
        /// The service.
        service: ServiceName,
        /// Who holds them.
        holder: Holder,
        /// Which of them.
        scope: HoldScope,
        /// For how long at most, from now on; `None`: as the holder's hold there is, or as the service's limits say.
        timeout: Option<Duration>,
    },
    /// They go on, unless somebody else holds them.
    Release {
        /// The service.
        service: ServiceName,
        /// Whose hold ends.
        holder: Holder,
    },
    /// The end of an exclusive flip: everything to one version and not held for that any more, at once.
    Switch {
        /// The service.
        service: ServiceName,
        /// The version that gets everything.
        to: VersionName,
        /// Which requests are never with two versions.
        scope: HoldScope,
        /// Whether that is supervised.
        supervise: Supervise,
    },
    /// An endpoint gets no new requests and stays in its pool, until it is put there again.
    DrainEndpoint {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionRef,
        /// The endpoint.
        endpoint: EndpointAddr,
    },
    /// An endpoint drains no more, and is in its pool as it was: for its own sake, as one that was found, or not at all.
    EndDrain {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionRef,
        /// The endpoint.
        endpoint: EndpointAddr,
    },
    /// These endpoints were found where the file says to look for a version's, and no others.
    Discover {
        /// The service.
        service: ServiceName,
        /// The version.
        version: VersionName,
        /// The endpoints; `None`: nobody looks for them any more.
        endpoints: Option<Vec<EndpointAddr>>,
    },
    /// Supervision acts in a trial.
    Supervise {
        /// The service.
        service: ServiceName,
        /// The trial's [`Trial::stage`]: of another one nothing is known.
        stage: Epoch,
        /// What it does.
        act: Act,
    },
    /// Several edits as one change with one epoch: all or none.
    Batch(Vec<Command>),
    /// Every service that changed since `to` goes back to where it was then.
    Undo {
        /// The epoch to go back to.
        to: Epoch,
        /// What the store remembers of that epoch, one record a service that existed.
        records: Vec<ServiceRecord>,
        /// Whoever asks: notes tell of services that may be looked at, and no others.
        scopes: Scopes,
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
    /// Records of which nothing is different, in this build's form: to be persisted in the place of those of another build at the
    /// same epochs. Only at a start.
    pub restated: Vec<ServiceRecord>,
    /// Versions that lost their last weight, or are gone: no new requests; their drain starts.
    pub left: Vec<(ServiceName, VersionName)>,
    /// Versions that had no weight and carry some: a drain of theirs, which may also have ended, is cancelled.
    pub returned: Vec<(ServiceName, VersionName)>,
    /// Services of which nothing that lasts on the versions that were left is told to go before this long.
    pub lasting: Vec<(ServiceName, Duration)>,
    /// Endpoints that got new requests and get none any more, of versions that are still there.
    pub out: Vec<Out>,
    /// Services whose weights are others now, with the split that they had.
    pub moved: Vec<(ServiceName, Split)>,
    /// Things the operator should know that are no reason to refuse.
    pub notes: Vec<String>,
}

/// An endpoint that its version sends nothing new to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// The endpoint.
    pub endpoint: EndpointAddr,
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
            let mut draft = Draft::of(state, (now, &order.actor, &order.reason));
            let kind = ChangeKind::of(&order.command);
            draft.apply(order.command)?;
            draft.gate(&order.health)?;
            draft.finish(kind, order.actor, order.reason, now)
        }
        Event::Drained { service, version } => Ok((
            with_phase(state, &service, |phase, split| phase.without(&version, split)),
            Effects::default(),
        )),
        Event::Remains { service, version } => {
            Ok((with_phase(state, &service, |phase, split| phase.with(&version, split)), Effects::default()))
        }
    }
}

/// Whether these services are at these epochs.
///
/// # Errors
/// [`Refused::Conflict`], or [`Refused::UnknownService`].
pub fn check_expected(state: &State, expected: &[(ServiceName, Epoch)]) -> Result<(), Refused> {
    for (name, expected) in expected {
        let unknown = || Refused::UnknownService { service: name.clone() };
        let present = state.table.service(name).ok_or_else(unknown)?.epoch;
        if present != *expected {
            return Err(Refused::Conflict { service: name.clone(), expected: *expected, present });
        }
    }
    Ok(())
}

/// A drain that ended, or that another process has begun, changes the phase and not the table: no epoch, nothing to persist.
fn with_phase(state: &State, service: &ServiceName, after: impl Fn(&Phase, &Split) -> Phase) -> State {
    let mut next = state.clone();
    if let Some(index) = state.table.index(service) {
        let split = &state.table.services()[index].split;
        let deployment = Arc::make_mut(&mut next.deployments[index]);
        deployment.phase = after(&deployment.phase, split);
    }
    next
}
