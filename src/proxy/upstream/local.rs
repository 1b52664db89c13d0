//! One worker's part of its versions: their counters, and the endpoints they name.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::balance::Asking;
use super::budget::Budget;
use super::flights::{Flights, Part};
use super::pool::{Endpoint, Pools};
use super::seat::Seat;
use super::seats::Seats;
use super::target::Target;
use super::{Shard, Upstream};
use crate::proxy::admission::Class;
use crate::proxy::clock::Clock;
use crate::table::{PoolRules, ZoneName};

/// What one worker has of one version's tenure. Nothing in it is shared with another worker but the shard.
///
/// What a usual request reads comes first, in two or three cache lines.
#[derive(Debug)]
#[repr(C)]
pub struct Local {
    shard: Arc<Shard>,
    /// [`Upstream::id`].
    id: u64,
    /// Not looked into for a usual request.
    upstream: Arc<Upstream>,
    /// What the worker has in flight, on all versions.
    flights: Rc<Flights>,
    /// The tick of the last request, for the sweep.
    used: Cell<u64>,
    seats: RefCell<Seats>,
    /// Where the proxy stands.
    zone: Rc<RefCell<Option<ZoneName>>>,
    pools: Rc<Pools>,
    /// What is left for attempts after the first.
    budget: Budget,
    /// What event streams are told last.
    retry: Cell<Option<Duration>>,
}

/// A worker's parts of all versions that it has had requests for, by [`Upstream::slot`].
#[derive(Debug)]
pub struct Locals {
    worker: usize,
    pools: Rc<Pools>,
    flights: Rc<Flights>,
    zone: Rc<RefCell<Option<ZoneName>>>,
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
        let (zone, slots, cursor) = (Rc::default(), RefCell::default(), Cell::new(0));
        Self { worker, pools, flights, zone, slots, cursor }
    }

    /// The proxy stands in this zone from now on.
    pub fn stand_in(&self, zone: Option<&ZoneName>) {
        if self.zone.borrow().as_ref() != zone {
            *self.zone.borrow_mut() = zone.cloned();
            self.all().iter().for_each(|local| local.seats.borrow_mut().reconsider());
        }
    }

    /// This worker's part of a version; `slot` is its [`Upstream::slot`], which the caller has at hand.
    #[must_use]
    pub fn of(&self, upstream: &Arc<Upstream>, slot: u32) -> Rc<Local> {
        let slot = slot as usize;
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
        let local = slots.get(upstream.slot() as usize)?.as_ref()?;
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
        let shard = Arc::clone(upstream.shard(locals.worker));
        Self {
            budget: Budget::new(requests(&shard), locals.pools.ticks()),
            shard,
            id: upstream.id,
            flights: Rc::clone(&locals.flights),
            retry: Cell::new(None),
            seats: RefCell::new(Seats::none()),
            used: Cell::new(0),
            upstream,
            pools: Rc::clone(&locals.pools),
            zone: Rc::clone(&locals.zone),
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
        self.flights.of(self.id)
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

    /// The id of the version's tenure.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The version's tenure.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Takes over the endpoints of `target`, which is the newest table's.
    pub fn follow(&self, target: &Arc<Target>) {
        let mut seats = self.seats.borrow_mut();
        if !(seats.are_named() && seats.are_of(target)) {
            seats.follow(target, &self.upstream, &self.pools);
        }
    }

    /// As [`Self::follow`], for somebody who has no request: endpoints that were left stay left.
    pub fn refresh(&self, target: &Arc<Target>) {
        let mut seats = self.seats.borrow_mut();
        if !seats.are_of(target) {
            let were_named = seats.are_named();
            seats.follow(target, &self.upstream, &self.pools);
            if !were_named {
                seats.unname();
            }
        }
    }

    /// The endpoint for a request; `None` when there is none that may be used.
    pub fn pick(&self, clock: &Clock, asking: Asking<'_>) -> Option<Rc<Seat>> {
        self.used.set(clock.ticks());
        let state = (self.shard.revision(), clock.ticks());
        let (seat, is_panic) = self.seats.borrow_mut().choose(state, &self.zone, asking)?;
        if is_panic {
            self.shard.cells().panicked();
        }
        Some(seat)
    }

    /// True while the pool has this endpoint.
    #[must_use]
    pub fn names(&self, seat: &Rc<Seat>) -> bool {
        self.seats.borrow().have(seat)
    }

    /// The tick of its last request.
    pub fn last_used(&self) -> u64 {
        self.used.get()
    }

    /// Its endpoints that get requests; the next sweep takes it for used.
    pub fn serving(&self, clock: &Clock) -> Vec<Rc<Endpoint>> {
        self.used.set(clock.ticks());
        self.seats.borrow().serving()
    }

    /// How the pool is worked.
    pub fn rules(&self) -> Ref<'_, PoolRules> {
        Ref::map(self.seats.borrow(), Seats::rules)
    }

    /// How the pool is worked, if there is something in it that every request has to look at.
    #[must_use]
    pub fn special(&self) -> Option<Rc<PoolRules>> {
        self.seats.borrow().special()
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
        self.seats.borrow_mut().unname();
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
        self.seats.get_mut().unname();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::clock;
    use crate::proxy::upstream::Standing;

    fn list(addresses: &[&str]) -> Arc<Target> {
        let endpoints = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let mut target = Target::default();
        target.endpoints = endpoints;
        Arc::new(target)
    }

    fn part(locals: &Locals, upstream: &Arc<Upstream>) -> Rc<Local> {
        locals.of(upstream, upstream.slot())
    }

    fn anybody() -> Asking<'static> {
        Asking { tried: &[], lot: &|| 0, key: &|_| None, now: &clock::now }
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
            Rc::clone(&local.pick(&clock, anybody()).unwrap().endpoint)
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
            local.pick(&clock, anybody()).unwrap();
            local
        });
        drop(part(&locals, &unused));
        drop(part(&locals, &empty));
        part(&locals, &empty).pick(&clock, anybody());
        gone.leave();
        empty.leave();
        locals.sweep(clock.ticks());
        let known = |upstream: &Arc<Upstream>| locals.known(upstream).is_some();
        assert_eq!([&used, &unused, &gone, &empty].map(known), [true, false, true, false]);
        assert!(!held[1].seats.borrow().are_named());
    }

    #[test]
    fn a_choice_among_those_that_do_not_serve_is_counted() {
        let (locals, clock) = (Locals::new(0, Rc::default()), Clock::default());
        let blue = upstream("blue");
        let local = part(&locals, &blue);
        local.follow(&list(&["127.0.0.1:1", "127.0.0.1:2"]));
        let vitals = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| blue.vitals(&address.parse().unwrap()));
        let chosen = || local.pick(&clock, anybody()).unwrap().endpoint.address.to_string();
        vitals[0].set_standing(Standing::Down, clock::now());
        assert!((0..10).all(|_| chosen() == "127.0.0.1:2"));
        assert_eq!(local.shard().cells().panics(), 0);
        vitals[1].set_standing(Standing::Ejected, clock::now());
        chosen();
        assert_eq!(local.shard().cells().panics(), 1);
        vitals[0].set_standing(Standing::Up, clock::now());
        assert!((0..10).all(|_| chosen() == "127.0.0.1:1"));
        assert_eq!(local.shard().cells().panics(), 1);
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
