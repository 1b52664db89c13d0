//! One worker's part of its versions: their counters, the endpoints they name, and whose turn it is.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::budget::Budget;
use super::flights::{Flights, Part};
use super::pool::{Destination, Pools};
use super::seat::Seat;
use super::target::Target;
use super::{Shard, Upstream};
use crate::proxy::admission::Class;
use crate::proxy::clock::Clock;
use crate::table::{EndpointAddr, PoolRules};

/// What one worker has of one version's tenure. Nothing in it is shared with another worker but the shard.
#[derive(Debug)]
pub struct Local {
    shard: Arc<Shard>,
    /// What the worker has in flight, on all versions.
    flights: Rc<Flights>,
    /// What event streams are told last.
    retry: Cell<Option<Duration>>,
    pool: RefCell<Pool>,
    next: Cell<usize>,
    /// What is left for attempts after the first.
    budget: Budget,
    /// The tick of the last request, for the sweep.
    used: Cell<u64>,
    upstream: Arc<Upstream>,
    pools: Rc<Pools>,
}

#[derive(Debug)]
struct Pool {
    /// What `seats` was made from: while it is the same, nothing has to be compared.
    target: Target,
    /// Many pools are small, and of ten thousand a list elsewhere would be another cache miss.
    seats: SmallVec<[Rc<Seat>; 2]>,
    /// The rules of `target`, if there is something in them that every request has to look at.
    special: Option<Rc<PoolRules>>,
    /// True while the endpoints are named for this version.
    is_named: bool,
}

/// A worker's parts of all versions that it has had requests for, by [`Upstream::slot`].
#[derive(Debug)]
pub struct Locals {
    worker: usize,
    pools: Rc<Pools>,
    flights: Rc<Flights>,
    slots: RefCell<Vec<Option<Rc<Local>>>>,
    /// Where the next sweep goes on.
    cursor: Cell<usize>,
}

/// How many versions one sweep looks at: a fraction of a millisecond, and thirty thousand versions within eight sweeps.
const STEP: usize = 4096;

impl Locals {
    /// Nothing yet, of worker `worker`.
    #[must_use]
    pub fn new(worker: usize, clock: Rc<Clock>) -> Self {
        let (pools, flights) = (Rc::new(Pools::new(clock)), Rc::default());
        Self { worker, pools, flights, slots: RefCell::default(), cursor: Cell::new(0) }
    }

    /// This worker's part of a version; `slot` is its [`Upstream::slot`], which the caller has at hand.
    #[must_use]
    pub fn of(&self, upstream: &Arc<Upstream>, slot: usize) -> Rc<Local> {
        let mut slots = self.slots.borrow_mut();
        if let Some(Some(local)) = slots.get(slot) {
            return Rc::clone(local);
        }
        let local = Rc::new(Local::new(Arc::clone(upstream), self));
        let length = slots.len().max(slot + 1);
        slots.resize(length, None);
        slots[slot] = Some(Rc::clone(&local));
        local
    }

    /// This worker's part of a version, if it has one.
    #[must_use]
    pub fn known(&self, upstream: &Arc<Upstream>) -> Option<Rc<Local>> {
        let slots = self.slots.borrow();
        let local = slots.get(upstream.slot())?.as_ref()?;
        Arc::ptr_eq(local.upstream(), upstream).then(|| Rc::clone(local))
    }

    /// All parts that there are.
    pub fn all(&self) -> Vec<Rc<Local>> {
        self.slots.borrow().iter().flatten().cloned().collect()
    }

    /// Closes connections idle since before `oldest`, and those of versions that left the table; forgets the parts
    /// that nobody holds and nobody used since then: they are made again when they are needed.
    ///
    /// Its cost grows with the idle connections alone: of the versions it looks at no more than a few thousand.
    pub fn sweep(&self, oldest: u64) {
        self.pools.sweep(oldest);
        let mut slots = self.slots.borrow_mut();
        let from = self.cursor.get().min(slots.len());
        let upto = slots.len().min(from + STEP);
        self.cursor.set(if upto == slots.len() { 0 } else { upto });
        for slot in &mut slots[from..upto] {
            if slot.as_ref().is_some_and(|local| local.is_to_forget(oldest)) {
                *slot = None;
            }
        }
    }
}

impl Local {
    fn new(upstream: Arc<Upstream>, locals: &Locals) -> Self {
        let seats = SmallVec::new();
        let pool = Pool { target: Target::none(), seats, special: None, is_named: true };
        let shard = Arc::clone(upstream.shard(locals.worker));
        Self {
            budget: Budget::new(requests(&shard), locals.pools.ticks()),
            shard,
            flights: Rc::clone(&locals.flights),
            retry: Cell::new(None),
            pool: RefCell::new(pool),
            next: Cell::new(0),
            used: Cell::new(0),
            upstream,
            pools: Rc::clone(&locals.pools),
        }
    }

    /// This worker's counters of the version.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// What this worker has in flight, on all versions.
    #[must_use]
    pub fn flights(&self) -> &Flights {
        &self.flights
    }

    /// What this worker has in flight on this version.
    #[must_use]
    pub fn left(&self) -> Part<'_> {
        self.flights.of(self.upstream.id)
    }

    /// What event streams are told last, when they are told to go.
    #[must_use]
    pub fn retry(&self) -> Option<Duration> {
        self.retry.get()
    }

    /// Event streams are told this last.
    pub fn set_retry(&self, retry: Option<Duration>) {
        self.retry.set(retry);
    }

    /// The version's tenure.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Takes over the endpoints of `target`, which is the newest table's.
    pub fn follow(&self, target: &Target) {
        let mut pool = self.pool.borrow_mut();
        if !(pool.is_named && pool.target.is_same(target)) {
            pool.follow(target, &self.upstream, &self.pools);
        }
    }

    /// As [`Self::follow`], for somebody who has no request: endpoints that were left stay left.
    pub fn refresh(&self, target: &Target) {
        let mut pool = self.pool.borrow_mut();
        if !pool.target.is_same(target) {
            let was_named = pool.is_named;
            pool.follow(target, &self.upstream, &self.pools);
            if !was_named {
                pool.unname();
            }
        }
    }

    /// The next endpoint in turn that is none of `tried`; `None` when none is left.
    pub fn pick(&self, tried: &[Rc<Seat>], clock: &Clock) -> Option<Rc<Seat>> {
        self.used.set(clock.ticks());
        let pool = self.pool.borrow();
        let count = pool.seats.len();
        let first = self.next.get();
        let is_free = |seat: &Rc<Seat>| !tried.iter().any(|tried| Rc::ptr_eq(tried, seat));
        let turn =
            (first..first + count).map(|turn| turn % count).find(|turn| is_free(&pool.seats[*turn]))?;
        self.next.set(turn + 1);
        pool.seats.get(turn).cloned()
    }

    /// How the pool is worked.
    pub fn rules(&self) -> Ref<'_, PoolRules> {
        Ref::map(self.pool.borrow(), |pool| &*pool.target.pool)
    }

    /// How the pool is worked, if there is something in it that every request has to look at.
    #[must_use]
    pub fn special(&self) -> Option<Rc<PoolRules>> {
        self.pool.borrow().special.clone()
    }

    /// Takes one attempt after the first out of the budget; false when there is none.
    #[must_use]
    pub fn may_try_again(&self, clock: &Clock) -> bool {
        let (rules, workers) = (self.rules(), self.upstream.workers());
        self.budget.take(&rules.retries, workers, requests(&self.shard), clock.ticks())
    }

    /// Takes one out of the budget that was made for nothing, whether or not there is one.
    pub fn charge(&self, clock: &Clock) {
        let (rules, workers) = (self.rules(), self.upstream.workers());
        self.budget.charge(&rules.retries, workers, requests(&self.shard), clock.ticks());
    }

    /// Its endpoints' idle connections are closed, but for those that another version names too; what is in flight
    /// goes on, and is not kept when it ends. The next request names them again.
    pub fn leave(&self) {
        self.pool.borrow_mut().unname();
    }

    /// True when nobody needs it any more; a version that left the table leaves its endpoints here. What is in flight
    /// holds it, so that it can be asked what that is.
    fn is_to_forget(self: &Rc<Self>, oldest: u64) -> bool {
        let has_left = self.upstream.has_left();
        if has_left {
            self.leave();
        }
        (has_left || self.used.get() < oldest) && Rc::strong_count(self) == 1
    }
}

/// Requests that a worker ever had for a version.
fn requests(shard: &Shard) -> u64 {
    [Class::Read, Class::Write].map(|class| shard.of(class).admitted()).iter().sum()
}

impl Drop for Local {
    fn drop(&mut self) {
        self.pool.get_mut().unname();
    }
}

impl Pool {
    /// Takes over the new pool; endpoints that stay keep their connections, those that nobody else names lose them.
    fn follow(&mut self, target: &Target, upstream: &Upstream, pools: &Rc<Pools>) {
        let Target { endpoints: list, protocol, proxy_header, tls, .. } = target;
        let seat = |address: &EndpointAddr| {
            let (address, tls) = (address.clone(), tls.clone());
            let vitals = upstream.vitals(&address);
            let there = Destination { address, protocol: *protocol, proxy_header: *proxy_header, tls };
            let endpoint = pools.name(there);
            let same = |seat: &&Rc<Seat>| Rc::ptr_eq(&seat.endpoint, &endpoint);
            let known = self.seats.iter().find(same).map(Rc::clone);
            known.unwrap_or_else(|| Rc::new(Seat::new(endpoint, vitals)))
        };
        // First named, then unnamed: what stays is never without a name.
        let seats = list.iter().map(seat).collect();
        self.unname();
        self.special = (!target.pool.is_usual()).then(|| Rc::new((*target.pool).clone()));
        (self.seats, self.target, self.is_named) = (seats, target.clone(), true);
    }

    fn unname(&mut self) {
        if std::mem::replace(&mut self.is_named, false) {
            self.seats.iter().for_each(|seat| seat.endpoint.unname());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(addresses: &[&str]) -> Target {
        let endpoints = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let mut target = Target::none();
        target.endpoints = endpoints;
        target
    }

    fn part(locals: &Locals, upstream: &Arc<Upstream>) -> Rc<Local> {
        locals.of(upstream, upstream.slot())
    }

    fn upstream(version: &str) -> Arc<Upstream> {
        Arc::new(Upstream::open("shop".parse().unwrap(), version.parse().unwrap(), 1))
    }

    #[test]
    fn versions_that_list_the_same_address_get_the_same_endpoint() {
        let (locals, clock) = (Locals::new(0, Rc::default()), Clock::default());
        let pick = |upstream: &Arc<Upstream>, addresses: &[&str]| {
            let local = part(&locals, upstream);
            local.follow(&list(addresses));
            Rc::clone(&local.pick(&[], &clock).unwrap().endpoint)
        };
        let (blue, green) = (upstream("blue"), upstream("green"));
        let shared = pick(&blue, &["127.0.0.1:1"]);
        assert!(Rc::ptr_eq(&shared, &pick(&green, &["127.0.0.1:1"])));
        assert!(!Rc::ptr_eq(&shared, &pick(&green, &["127.0.0.1:2"])));
    }

    #[test]
    fn every_part_is_found_again_and_is_the_versions_own() {
        let locals = Locals::new(0, Rc::default());
        let upstreams: Vec<_> = (0..100).map(|number| upstream(&format!("v{number}"))).collect();
        let parts: Vec<_> = upstreams.iter().map(|upstream| part(&locals, upstream)).collect();
        for (upstream, made) in upstreams.iter().zip(&parts) {
            assert!(Rc::ptr_eq(&part(&locals, upstream), made));
            assert!(Arc::ptr_eq(made.upstream(), upstream));
        }
    }

    #[test]
    fn what_is_not_used_is_forgotten_and_what_left_at_once_unless_it_has_work() {
        let (locals, clock) = (Locals::new(0, Rc::default()), Clock::default());
        clock.advance(Duration::from_secs(1));
        let (used, unused, gone, empty) =
            (upstream("used"), upstream("unused"), upstream("gone"), upstream("empty"));
        let held = [&used, &gone].map(|upstream| {
            let local = part(&locals, upstream);
            local.follow(&list(&["127.0.0.1:1"]));
            local.pick(&[], &clock).unwrap();
            local
        });
        drop(part(&locals, &unused));
        drop(part(&locals, &empty));
        part(&locals, &empty).pick(&[], &clock);
        gone.leave();
        empty.leave();
        locals.sweep(clock.ticks());
        let known = |upstream: &Arc<Upstream>| locals.known(upstream).is_some();
        assert_eq!([&used, &unused, &gone, &empty].map(known), [true, false, true, false]);
        assert!(!held[1].pool.borrow().is_named);
    }

    #[test]
    fn a_slot_is_used_again_when_nobody_has_the_tenure_any_more() {
        let locals = Locals::new(0, Rc::default());
        let first = upstream("first");
        let held = part(&locals, &first);
        drop(first);
        assert_ne!(
            upstream("second").slot(),
            held.upstream().slot(),
            "a part holds the tenure, and its slot"
        );
    }
}
