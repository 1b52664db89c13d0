//! What a worker does about the versions that are left: it answers what is still there, and sees it out.
//!
//! Nothing is ended from here: an exchange is told to go, and ends itself where nothing is torn by it.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use super::clock;
use super::upstream::flights::Part;
use super::upstream::leaving::{Departure, EndpointDeparture, Leaving, Pace, Plan};
use super::upstream::roll::{Inquiry, Places, Remaining, add_up};
use super::upstream::{Local, Upstream};
use super::worker::Worker;
use crate::table::EndpointAddr;

/// How often it is looked whether something has joined those that can be told to go.
const LOOK: Duration = Duration::from_millis(500);

/// How long a version that was left keeps its idle connections: one that comes back meanwhile, as by a revert or by flips one
/// after the other, is warm. What is told to be safe to stop loses them soon enough not to wait for them.
const WARM: Duration = Duration::from_secs(1);

/// Answers what is left on versions, for as long as the worker runs.
pub(super) async fn answer(worker: Rc<Worker>, mut inquiries: mpsc::Receiver<Inquiry>) {
    while let Some(inquiry) = inquiries.recv().await {
        match inquiry {
            Inquiry::Left(asked) => asked.answer(|tenures| left(&worker, tenures)),
            Inquiry::At(asked) => asked.answer(|(tenures, at)| left_at(&worker, tenures, at)),
            Inquiry::With(asked) => asked.answer(|endpoints| places(&worker, endpoints)),
        }
    }
}

/// What is left on these tenures.
fn left(worker: &Worker, of: &[Arc<Upstream>]) -> Vec<Remaining> {
    let parts = refreshed(worker, of);
    add_up(parts.flat_map(|local| local.left().remaining(clock::now())))
}

/// What of these tenures is with this endpoint, or may come to it.
fn left_at(worker: &Worker, of: &[Arc<Upstream>], at: &EndpointAddr) -> Vec<Remaining> {
    let parts = refreshed(worker, of);
    add_up(parts.flat_map(|local| local.left().remaining_at(at, local.leads_to(at), clock::now())))
}

/// Which tenures have something with these endpoints, or that may come to them.
fn places(worker: &Worker, endpoints: &BTreeSet<EndpointAddr>) -> Places {
    let locals = worker.locals();
    locals.iter().filter(|local| local.upstream().in_flight() > 0).for_each(|local| worker.refresh(local));
    let (there, movable) = (worker.flights().with(endpoints), worker.flights().movable());
    let moving = locals.iter().filter(|local| movable.contains(&local.id()));
    let coming = moving.flat_map(|local| {
        let ways = endpoints.iter().filter(|endpoint| local.leads_to(endpoint));
        ways.map(|endpoint| (local.id(), endpoint.clone()))
    });
    there.into_iter().chain(coming).collect()
}

/// The worker's parts of these tenures; from here on nothing of them goes to an endpoint that the newest table does not name.
/// One that is in no table any more keeps its endpoints, for what is left on it.
fn refreshed(worker: &Worker, of: &[Arc<Upstream>]) -> impl Iterator<Item = Rc<Local>> {
    let parts = of.iter().filter_map(|upstream| worker.known(upstream));
    parts.inspect(|local| worker.refresh(local))
}

/// Sees out what is left on the versions that are left, for as long as the worker runs.
pub(super) async fn see_out(worker: Rc<Worker>, mut leaving: watch::Receiver<Leaving>) {
    let mut usher =
        Usher { worker, guests: HashMap::new(), at: HashMap::new(), warm: HashMap::new(), all: None };
    let mut wake = None;
    loop {
        let is_news = tokio::select! {
            changed = leaving.changed() => {
                if changed.is_err() {
                    return;
                }
                true
            }
            // A version that is back may have requests already, which are not to be seen out by an older list.
            () = until(wake) => leaving.has_changed().unwrap_or(false),
        };
        if is_news {
            usher.follow(&leaving.borrow_and_update());
        }
        wake = usher.work(clock::now());
    }
}

async fn until(wake: Option<Instant>) {
    match wake {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

struct Usher {
    worker: Rc<Worker>,
    /// By the id of the tenure.
    guests: HashMap<u64, Guests>,
    /// By tenure and endpoint.
    at: HashMap<(u64, EndpointAddr), Guests>,
    /// Versions that were left a moment ago, by the id of the tenure.
    warm: HashMap<u64, Warm>,
    all: Option<Plan>,
}

/// A version that still has its idle connections.
struct Warm {
    local: Rc<Local>,
    /// The tick at which it was left.
    left: u64,
    until: Instant,
}

impl Warm {
    /// Closes its idle connections, unless it had requests since it was left: then it is back.
    fn cool(&self) {
        if self.local.last_used() <= self.left {
            self.local.leave();
        }
    }
}

/// What is left on one version, or on one endpoint of it.
struct Guests {
    /// `None` once nothing is: nothing can come either.
    local: Option<Rc<Local>>,
    endpoint: Option<EndpointAddr>,
    plan: Plan,
    pace: Pace,
}

impl Usher {
    /// Takes over the newest list. Who is on it for the first time loses its idle connections, a little later.
    fn follow(&mut self, leaving: &Leaving) {
        self.all = leaving.all;
        let mut before = std::mem::take(&mut self.guests);
        let departures = leaving.versions.iter().chain(leaving.hurried.iter());
        let departures: HashMap<_, _> =
            departures.map(|departure| (departure.upstream.id, departure)).collect();
        for (id, Departure { upstream, plan }) in departures {
            let guests = match before.remove(&id) {
                Some(same) if same.plan == *plan => Some(same),
                other => {
                    other.iter().for_each(Guests::spare);
                    self.welcome(upstream, *plan)
                }
            };
            self.guests.extend(guests.map(|guests| (id, guests)));
        }
        self.follow_endpoints(leaving);
        for (id, guests) in before {
            if leaving.all == Some(guests.plan) {
                self.guests.insert(id, guests);
            } else {
                // It is back.
                guests.spare();
            }
        }
    }

    fn follow_endpoints(&mut self, leaving: &Leaving) {
        let mut before = std::mem::take(&mut self.at);
        for EndpointDeparture { upstream, endpoint, plan } in &*leaving.endpoints {
            let key = (upstream.id, endpoint.clone());
            let guests = match before.remove(&key) {
                Some(same) if same.plan == *plan => Some(same),
                other => {
                    other.iter().for_each(Guests::spare);
                    let local = self.worker.known(upstream);
                    local
                        .map(|local| Guests { endpoint: Some(endpoint.clone()), ..self.guests(local, *plan) })
                }
            };
            self.at.extend(guests.map(|guests| (key, guests)));
        }
        before.values().for_each(Guests::spare);
    }

    fn welcome(&mut self, upstream: &Arc<Upstream>, plan: Plan) -> Option<Guests> {
        let local = self.worker.known(upstream)?;
        let warm =
            || Warm { local: Rc::clone(&local), left: self.worker.clock.ticks(), until: clock::now() + WARM };
        // Left again: as before, so that what comes and goes without a request does not stay for good.
        self.warm
            .entry(upstream.id)
            .and_modify(|warm| warm.left = self.worker.clock.ticks())
            .or_insert_with(warm);
        Some(self.guests(local, plan))
    }

    fn guests(&self, local: Rc<Local>, plan: Plan) -> Guests {
        let pace = Pace::of(&plan, self.worker.id, local.upstream().workers());
        local.set_retry(plan.rules.retry);
        Guests { local: Some(local), endpoint: None, plan, pace }
    }

    /// Tells whose time has come; `Some` when there is to be looked again.
    fn work(&mut self, now: Instant) -> Option<Instant> {
        if let Some(plan) = self.all {
            for local in self.worker.locals() {
                let id = local.id();
                let is_seen = |guests: &Guests| guests.plan == plan && guests.local.is_some();
                if !local.left().is_empty() && !self.guests.get(&id).is_some_and(is_seen) {
                    let guests = self.guests(local, plan);
                    self.guests.insert(id, guests);
                }
            }
        }
        let cooled = self.warm.extract_if(|_, warm| warm.until <= now);
        cooled.for_each(|(_, warm)| warm.cool());
        let cooling = self.warm.values().map(|warm| warm.until).min();
        let all = self.guests.values_mut().chain(self.at.values_mut());
        let next = all.filter_map(|guests| guests.work(now)).min();
        // New requests may come while the process ends.
        let look = self.all.map(|_| now + LOOK);
        next.into_iter().chain(look).chain(cooling).min()
    }
}

impl Guests {
    /// Of those that have not gone yet nothing is asked any more.
    fn spare(&self) {
        self.local.iter().for_each(|local| self.of(local).spare());
    }

    fn of<'g>(&'g self, local: &'g Local) -> Part<'g> {
        match &self.endpoint {
            Some(endpoint) => local.left().at(endpoint),
            None => local.left(),
        }
    }

    fn work(&mut self, now: Instant) -> Option<Instant> {
        let local = Rc::clone(self.local.as_ref()?);
        let endpoint = self.endpoint.clone();
        let flights = endpoint.as_ref().map_or(local.left(), |endpoint| local.left().at(endpoint));
        if flights.is_empty() {
            // A request that was counted in before may still have been on its way to an endpoint.
            if self.endpoint.is_some() && now < self.plan.end() {
                return Some((now + LOOK).min(self.plan.end()));
            }
            self.local = None;
            return None;
        }
        if now >= self.plan.cut() {
            flights.cut(self.plan.cuts);
            // Who has words only now.
            flights.tell(flights.untold());
            return Some(now + LOOK);
        }
        let later = |due: Instant| Some(due.min(self.plan.cut()));
        if now < self.plan.begin() {
            return later(self.plan.begin());
        }
        let untold = flights.untold();
        if now >= self.plan.end() {
            flights.tell(untold);
            return later(now + LOOK);
        }
        let (mut told, mut due) = (0, self.pace.due(untold));
        while told < untold && due <= now {
            self.pace.told(due, now);
            told += 1;
            due = self.pace.due(untold - told);
        }
        flights.tell(told);
        later(if told < untold { due.min(now + LOOK) } else { now + LOOK })
    }
}
