//! Rolling upgrades: one machine after the other, each said to be safe before anybody stops it.
//!
//! A rollout is a task beside control, as an operator would be who never sleeps: it waits, and asks for ordinary changes, each
//! in the history with who began it. It is in this process alone and does not outlive it; where it was is kept in a
//! [file](journal), so that the next process says so instead of going on by itself.

mod capacity;
mod change;
mod end;
mod heed;
mod job;
mod journal;
mod once;
mod reverse;
pub mod told;
mod uncertain;
mod wait;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_local;
use tracing::error;

use super::{Failed, Handle, clock};
use crate::release::rollout::{NotPlanned, Plan, Serving};
use crate::release::{Actor, State, check_expected};
use crate::table::{BasisPoints, EndpointAddr, Epoch, ServiceName, Traits, VersionName};
use journal::Journal;
use once::Kept;
pub use told::{RolloutState, StepState, Told, ToldStep};
use uncertain::Weights;
pub use wait::answers;

/// Rollouts that wait to be begun.
const ORDERS: usize = 64;

/// A wanted rollout.
#[derive(Debug, Clone)]
pub struct Order {
    /// What.
    pub plan: Plan,
    /// How long an endpoint may take until nothing is left on it.
    pub drain_timeout: Duration,
    /// How long one may take until it serves, or until somebody confirms that it is done, and what a change has to
    /// wait for: a store that refuses it, an exclusive flip.
    pub ready_timeout: Duration,
    /// How long a new endpoint has to serve before the next one goes.
    pub settle: Duration,
    /// Somebody says of each endpoint that was safe to stop when it is done.
    pub confirm: bool,
    /// What is done when something goes wrong.
    pub on_failure: Back,
    /// Who wants it.
    pub actor: Actor,
    /// Why; may be empty.
    pub reason: String,
    /// Refuse unless these services are at these epochs.
    pub expected: Vec<(ServiceName, Epoch)>,
    /// The caller's idempotency key with a digest of what is asked.
    pub idempotency: Option<(String, String)>,
}

/// A rollout that was begun, now or by the same call before.
#[derive(Debug, Clone)]
pub struct Begun {
    /// As it stood then.
    pub told: Told,
    /// True when this is the answer given to the same key before.
    pub replayed: bool,
}

/// How far a rollout that ends early goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// What is under way is taken back, what is done stays.
    Batch,
    /// All of it is taken back, as far as the old endpoints still answer.
    All,
}

/// Why a rollout was not begun, or is not to be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotBegun {
    /// It cannot be done.
    #[error(transparent)]
    NotPlanned(#[from] NotPlanned),
    /// One at a time.
    #[error("a rollout of `{0}` is under way")]
    Underway(ServiceName),
    /// There is nothing of that name.
    #[error("no service `{0}`")]
    NoService(ServiceName),
    /// There is none.
    #[error("no rollout of `{0}` is under way")]
    None(ServiceName),
    /// It does not wait for anybody's word about this endpoint.
    #[error("the rollout of `{service}` does not wait for a word about {endpoint}")]
    NotAwaited {
        /// The service.
        service: ServiceName,
        /// The endpoint.
        endpoint: EndpointAddr,
    },
    /// It was asked for on another understanding, or another process is about to take this one's place.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// Nobody does rollouts here.
    #[error("the proxy is shutting down")]
    Closed,
}

/// What somebody wants of a rollout that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Go,
    End(Back),
}

/// A rollout, under way or over.
#[derive(Debug)]
struct Job {
    order: Order,
    /// As it stood at the beginning.
    first: Told,
    told: watch::Sender<Told>,
    wish: watch::Sender<Wish>,
    /// Why somebody wants it to end, where that was said.
    ended_for: Mutex<Option<String>>,
    /// The old endpoints that somebody has dealt with, and when he said so.
    confirmed: Mutex<BTreeMap<EndpointAddr, Instant>>,
    /// By move.
    before: Vec<Before>,
    /// What the new version had at the beginning.
    begun: BasisPoints,
    /// The table's epoch at the beginning.
    since: Epoch,
    /// What the two versions had after our last change.
    weights: Mutex<Weights>,
    /// What they have if the store has kept a change of ours of which it has not said so.
    uncertain: Mutex<Option<Weights>>,
    /// Rung with each confirmation.
    came: Notify,
    /// Whether the answer to the call that began it is kept.
    kept: watch::Sender<Kept>,
}

/// How the endpoints of a move were before anything was done; `None`: not in their pool.
#[derive(Debug)]
struct Before {
    /// The old one.
    out: Option<Place>,
    /// The new one.
    into: Option<Place>,
}

/// An endpoint's place in a pool.
#[derive(Debug)]
struct Place {
    /// True when somebody had drained it.
    drained: bool,
    /// True when it was discovered, and nobody had put it there.
    is_found: bool,
    /// What was said of it.
    traits: Traits,
}

/// All rollouts: the last one of each service.
#[derive(Debug)]
pub struct Rollouts {
    jobs: Mutex<BTreeMap<ServiceName, Arc<Job>>>,
    /// True while the store is with another process; written and read under the lock of `jobs`.
    is_lent: AtomicBool,
    /// Where those were that another process began, and did not end.
    left: Mutex<BTreeMap<ServiceName, Told>>,
    orders: mpsc::Sender<Arc<Job>>,
    waiting: Mutex<Option<mpsc::Receiver<Arc<Job>>>>,
    journal: Mutex<Option<Journal>>,
}

impl Default for Rollouts {
    fn default() -> Self {
        let (orders, waiting) = mpsc::channel(ORDERS);
        let waiting = Mutex::new(Some(waiting));
        Self {
            jobs: Mutex::default(),
            is_lent: AtomicBool::new(false),
            left: Mutex::default(),
            orders,
            waiting,
            journal: Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rollouts {
    /// The store goes to another process: none begins any more. False, and nothing is done, while one is under way.
    pub(super) fn lend(&self) -> bool {
        let jobs = lock(&self.jobs);
        let is_free = !jobs.values().any(|job| job.told.borrow().state.is_underway());
        // Relaxed: the lock orders it.
        self.is_lent.fetch_or(is_free, Ordering::Relaxed);
        is_free
    }

    /// It is back.
    pub(super) fn take_back(&self) {
        let _jobs = lock(&self.jobs);
        self.is_lent.store(false, Ordering::Relaxed);
    }

    /// The last rollout of a service as it stands, also one that another process has left.
    #[must_use]
    pub fn told(&self, service: &ServiceName) -> Option<Told> {
        let job = lock(&self.jobs).get(service).map(|job| job.told.borrow().clone());
        job.or_else(|| lock(&self.left).get(service).cloned())
    }

    /// Has a rollout begun, unless it is by the same call: then that one.
    fn enter(&self, order: Order, handle: &Handle) -> Result<(Arc<Job>, Begun), NotBegun> {
        let service = order.plan.service.clone();
        let mut jobs = lock(&self.jobs);
        if let Some(job) = jobs.get(&service)
            && let Some(told) = job.replay(&order)?
        {
            return Ok((Arc::clone(job), Begun { told, replayed: true }));
        }
        if jobs.get(&service).is_some_and(|job| job.told.borrow().state.is_underway()) {
            return Err(NotBegun::Underway(service));
        }
        // Relaxed: the lock orders it.
        if self.is_lent.load(Ordering::Relaxed) {
            return Err(Failed::Lent.into());
        }
        let told = Self::plan(&order, handle)?;
        let state = handle.state();
        let (before, weights) = (before(&order.plan, &state), change::weights(&state, &order.plan));
        let job = Arc::new(Job {
            order,
            before,
            begun: weights.1,
            since: state.table.epoch(),
            weights: Mutex::new(weights),
            uncertain: Mutex::default(),
            first: told.clone(),
            told: watch::Sender::new(told.clone()),
            wish: watch::Sender::new(Wish::Go),
            ended_for: Mutex::default(),
            confirmed: Mutex::default(),
            came: Notify::new(),
            kept: watch::Sender::new(Kept::NotYet),
        });
        self.orders.try_send(Arc::clone(&job)).map_err(|_| NotBegun::Closed)?;
        if let Some(former) = jobs.insert(service.clone(), Arc::clone(&job)) {
            // Should this one not be begun.
            lock(&self.left).insert(service, former.told.borrow().clone());
        }
        Ok((job, Begun { told, replayed: false }))
    }

    /// What would be done.
    ///
    /// # Errors
    /// [`NotBegun`], if it could not be begun.
    pub fn plan(order: &Order, handle: &Handle) -> Result<Told, NotBegun> {
        let state = handle.state();
        let name = &order.plan.service;
        let service = state.table.service(name).zip(state.deployment(name));
        let (service, deployment) = service.ok_or_else(|| NotBegun::NoService(order.plan.service.clone()))?;
        check_expected(&state, &order.expected).map_err(Failed::from)?;
        let serving = capacity::serving(handle, &order.plan);
        order.plan.check((service, deployment), &serving, order.confirm)?;
        Ok(Told::of(order, serving.count(), clock::now()))
    }

    /// Which endpoints serve now, of the versions that a plan is about.
    #[must_use]
    pub fn serving(plan: &Plan, handle: &Handle) -> Serving {
        capacity::serving(handle, plan)
    }

    /// Ends one that is under way, and goes back so far; the reason is told as why it has ended.
    ///
    /// # Errors
    /// [`NotBegun::None`].
    pub fn end(&self, service: &ServiceName, back: Back, why: Option<String>) -> Result<Told, NotBegun> {
        let job = self.job(service)?;
        *lock(&job.ended_for) = why;
        job.wish.send_replace(Wish::End(back));
        Ok(job.told.borrow().clone())
    }

    /// What it ends with when nobody says how far to go back.
    ///
    /// # Errors
    /// [`NotBegun::None`].
    pub fn on_failure(&self, service: &ServiceName) -> Result<Back, NotBegun> {
        Ok(self.job(service)?.order.on_failure)
    }

    /// Somebody has done what was to be done with an endpoint that was safe to stop; saying so again changes nothing.
    ///
    /// # Errors
    /// [`NotBegun::NotAwaited`] when it is not waited for.
    pub fn confirm(
        &self,
        service: &ServiceName,
        endpoint: &EndpointAddr,
        handle: &Handle,
    ) -> Result<Told, NotBegun> {
        let job = self.job(service)?;
        if let Some(index) = job.awaiting(endpoint) {
            lock(&job.confirmed).insert(endpoint.clone(), clock::instant());
            job.set(handle, index, StepState::Safe, false);
            job.came.notify_one();
        } else if job.confirmed_at(endpoint).is_none() {
            return Err(NotBegun::NotAwaited { service: service.clone(), endpoint: endpoint.clone() });
        }
        Ok(job.told.borrow().clone())
    }

    fn job(&self, service: &ServiceName) -> Result<Arc<Job>, NotBegun> {
        let job = lock(&self.jobs).get(service).filter(|job| job.told.borrow().state.is_underway()).cloned();
        job.ok_or_else(|| NotBegun::None(service.clone()))
    }

    fn take_orders(&self) -> Option<mpsc::Receiver<Arc<Job>>> {
        lock(&self.waiting).take()
    }

    fn keep(&self, told: &Told) {
        if let Some(journal) = &*lock(&self.journal) {
            journal.keep(told);
        }
    }
}

impl Job {
    /// The answer to the call that began it, if this is the same call once more.
    fn replay(&self, order: &Order) -> Result<Option<Told>, Failed> {
        match (&self.order.idempotency, &order.idempotency) {
            (Some((known, of)), Some((key, digest))) if known == key => {
                if of == digest {
                    Ok(Some(self.first.clone()))
                } else {
                    Err(Failed::KeyReused(key.clone()))
                }
            }
            _ => Ok(None),
        }
    }
}

fn before(plan: &Plan, state: &State) -> Vec<Before> {
    let place = |version: &VersionName, endpoint: Option<&EndpointAddr>| {
        let spec = state.table.service(&plan.service)?.version(version)?;
        let endpoint = endpoint.filter(|endpoint| spec.endpoints.contains(endpoint))?;
        let found = state.deployment(&plan.service)?.only_found(version);
        Some(Place {
            drained: spec.draining.contains(endpoint),
            is_found: found.contains(endpoint),
            traits: spec.traits.of(endpoint),
        })
    };
    let of = plan.moves.iter().map(|step| Before {
        out: place(&plan.from, step.out.as_ref()),
        into: place(&plan.to, step.into.as_ref()),
    });
    of.collect()
}

/// Does rollouts for as long as it runs; what a process before this one has left is told from the files in `dir`.
pub async fn run(handle: Handle, dir: PathBuf) {
    let rollouts = Arc::clone(handle.rollouts());
    let Some(mut orders) = rollouts.take_orders() else {
        error!("rollouts are done already");
        return;
    };
    let (journal, left) = Journal::open(dir);
    *lock(&rollouts.left) = left;
    *lock(&rollouts.journal) = Some(journal);
    while let Some(job) = orders.recv().await {
        spawn_local(job::run(job, handle.clone()));
    }
}
