//! Rolling upgrades: one machine after the other, each said to be safe before anybody stops it.
//!
//! A rollout is a task beside control, as an operator would be who never sleeps: it waits, and asks for ordinary changes, each
//! in the history with who began it. It is in this process alone and does not outlive it; where it was is kept in a
//! [file](journal), so that the next process says so instead of going on by itself.

mod capacity;
mod job;
mod journal;
mod reverse;
pub mod told;
mod wait;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::spawn_local;
use tracing::error;

use super::{Handle, clock};
use crate::release::Actor;
use crate::release::rollout::{NotPlanned, Plan};
use crate::table::{EndpointAddr, ServiceName};
use journal::Journal;
pub use told::{RolloutState, StepState, Told, ToldStep};
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
    /// How long one may take until it serves, or until somebody confirms that it is done.
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
    told: watch::Sender<Told>,
    wish: watch::Sender<Wish>,
    confirmed: Mutex<BTreeSet<EndpointAddr>>,
    /// By move: whether the new endpoint was in its pool before.
    was_there: Vec<bool>,
    /// What the two versions had after our last change, in basis points.
    weights: Mutex<Option<(u16, u16)>>,
    /// Rung with each confirmation.
    came: Notify,
}

/// All rollouts: the last one of each service.
#[derive(Debug)]
pub struct Rollouts {
    jobs: Mutex<BTreeMap<ServiceName, Arc<Job>>>,
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
        Self { jobs: Mutex::default(), left: Mutex::default(), orders, waiting, journal: Mutex::default() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rollouts {
    /// True while one is under way.
    #[must_use]
    pub fn are_underway(&self) -> bool {
        lock(&self.jobs).values().any(|job| job.told.borrow().state.is_underway())
    }

    /// The last rollout of a service as it stands, also one that another process has left.
    #[must_use]
    pub fn told(&self, service: &ServiceName) -> Option<Told> {
        let job = lock(&self.jobs).get(service).map(|job| job.told.borrow().clone());
        job.or_else(|| lock(&self.left).get(service).cloned())
    }

    /// Begins a rollout; it goes on by itself.
    ///
    /// # Errors
    /// [`NotBegun`]; nothing has changed.
    pub fn begin(&self, order: Order, handle: &Handle) -> Result<Told, NotBegun> {
        let service = order.plan.service.clone();
        let mut jobs = lock(&self.jobs);
        if jobs.get(&service).is_some_and(|job| job.told.borrow().state.is_underway()) {
            return Err(NotBegun::Underway(service));
        }
        let told = Self::plan(&order, handle)?;
        let was_there = was_there(&order.plan, handle);
        let job = Arc::new(Job {
            order,
            was_there,
            weights: Mutex::default(),
            told: watch::Sender::new(told.clone()),
            wish: watch::Sender::new(Wish::Go),
            confirmed: Mutex::default(),
            came: Notify::new(),
        });
        self.orders.try_send(Arc::clone(&job)).map_err(|_| NotBegun::Closed)?;
        jobs.insert(service.clone(), job);
        drop(jobs);
        lock(&self.left).remove(&service);
        Ok(told)
    }

    /// What would be done.
    ///
    /// # Errors
    /// [`NotBegun`], if it could not be begun.
    pub fn plan(order: &Order, handle: &Handle) -> Result<Told, NotBegun> {
        let state = handle.state();
        let service = state.table.service(&order.plan.service);
        let service = service.ok_or_else(|| NotBegun::None(order.plan.service.clone()))?;
        let serving = capacity::serving(handle, &order.plan);
        order.plan.check(service, serving, order.confirm)?;
        Ok(Told::of(order, serving, clock::now()))
    }

    /// Ends one that is under way, and goes back so far.
    ///
    /// # Errors
    /// [`NotBegun::None`].
    pub fn end(&self, service: &ServiceName, back: Back) -> Result<Told, NotBegun> {
        let job = self.job(service)?;
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

    /// Somebody has done what was to be done with an endpoint that was safe to stop.
    ///
    /// # Errors
    /// [`NotBegun::NotAwaited`] when it is not waited for.
    pub fn confirm(&self, service: &ServiceName, endpoint: &EndpointAddr) -> Result<Told, NotBegun> {
        let job = self.job(service)?;
        if !job.awaits(endpoint) {
            return Err(NotBegun::NotAwaited { service: service.clone(), endpoint: endpoint.clone() });
        }
        lock(&job.confirmed).insert(endpoint.clone());
        job.came.notify_one();
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

fn was_there(plan: &Plan, handle: &Handle) -> Vec<bool> {
    let state = handle.state();
    let to = state.table.service(&plan.service).and_then(|service| service.version(&plan.to));
    let is_there = |endpoint: &EndpointAddr| to.is_some_and(|to| to.endpoints.contains(endpoint));
    plan.moves.iter().map(|step| step.into.as_ref().is_some_and(is_there)).collect()
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
