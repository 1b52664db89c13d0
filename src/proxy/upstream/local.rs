//! One worker's part of its versions: their counters, and the endpoints they name.

use std::cell::{Cell, Ref, RefCell};
use std::hint::black_box;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::balance::Asking;
use super::budget::Budget;
use super::flights::{Flights, Part};
use super::pool::{Endpoint, Pools};
use super::seat::Seat;
use super::seats::{Picked, Seats};
use super::target::Target;
use super::{Shard, Upstream};
use crate::proxy::admission::Class;
use crate::proxy::clock::Clock;
use crate::proxy::mirror::Places;
use crate::table::{EndpointAddr, PoolRules, ShieldRules, ZoneName};

/// What one worker has of one version's tenure. Nothing in it is shared with another worker but the shard.
///
/// What a usual request reads comes first, in two or three cache lines.
#[derive(Debug)]
#[repr(C)]
pub struct Local {
    shard: Arc<Shard>,
    /// [`Upstream::id`].
    id: u64,
    /// What the worker has in flight, on all versions.
    flights: Rc<Flights>,
    /// The tick of the last request, for the sweep.
    used: Cell<u64>,
    seats: RefCell<Seats>,
    upstream: Arc<Upstream>,
    /// Where the proxy stands.
    zone: Rc<RefCell<Option<ZoneName>>>,
    pools: Rc<Pools>,
    /// What is left for attempts after the first.
    budget: Budget,
    /// What is left for requests that another version has failed, and how many of those have come.
    shield: Budget,
    stood_in: Cell<u64>,
    /// What event streams are told last.
    retry: Cell<Option<Duration>>,
    /// The copies of requests that it has for the version.
    copies: Places,
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

    /// All that this worker has in flight.
    #[must_use]
    pub fn flights(&self) -> &Flights {
        &self.flights
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
            shield: Budget::new(requests(&shard), locals.pools.ticks()),
            stood_in: Cell::new(0),
            shard,
            id: upstream.id,
            flights: Rc::clone(&locals.flights),
            retry: Cell::new(None),
            copies: Places::default(),
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

    /// Has the processor fetch what a request needs next, all of it at once: with thousands of versions it is far away, and
    /// the fence that a request is counted in with would wait for one after the other.
    pub fn fetch(&self) {
        black_box(self.shard.of(Class::Read).admitted());
        self.seats.borrow().touch();
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

    /// The copies of requests that the worker has for the version.
    #[must_use]
    pub fn copies(&self) -> &Places {
        &self.copies
    }

    /// The endpoint for a copy, by lot; whom users' requests go to next is as it was.
    #[must_use]
    pub fn seat_for_copy(&self, lot: u64) -> Option<Rc<Seat>> {
        self.seats.borrow().by_lot(lot)
    }

    /// The endpoint for a request; `None` when there is none that may be used.
    pub fn pick(&self, clock: &Clock, asking: Asking<'_>) -> Option<Picked> {
        self.used.set(clock.ticks());
        let state = (self.shard.revision(), clock.ticks());
        self.seats.borrow_mut().choose(state, &self.zone, asking)
    }

    /// The endpoints from which the last one was picked that suit, by their [`Seat::room`].
    pub fn picked_from(&self, suits: impl Fn(&Seat) -> bool) -> Vec<u64> {
        let seats = self.seats.borrow();
        seats.chosen_from().filter(|seat| suits(seat)).map(|seat| seat.room()).collect()
    }

    /// True while the pool has an endpoint with this address: what is in flight may come to it.
    #[must_use]
    pub fn leads_to(&self, address: &EndpointAddr) -> bool {
        self.seats.borrow().lead_to(address)
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

    /// Most requests with one of its endpoints at a time, if that is limited.
    #[must_use]
    pub fn most_at_endpoint(&self) -> Option<NonZeroU32> {
        self.seats.borrow().most_at_endpoint()
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

    /// True when the budget for requests that another version has failed has one more.
    #[must_use]
    pub fn may_stand_in(&self, rules: &ShieldRules, clock: &Clock) -> bool {
        self.shield.has_one(rules, self.upstream.workers(), self.own(), clock.ticks())
    }

    /// Takes such a request, which was counted in, out of that budget.
    pub fn stands_in(&self, rules: &ShieldRules, clock: &Clock) {
        self.stood_in.set(self.stood_in.get() + 1);
        self.shield.charge(rules, self.upstream.workers(), self.own(), clock.ticks());
    }

    /// Requests that it ever had of its own: those of others bring nothing for more of them.
    fn own(&self) -> u64 {
        requests(&self.shard).saturating_sub(self.stood_in.get())
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

impl Picked {
    /// The endpoint, for a request of the version of `local`; that it was chosen like this is counted.
    #[must_use]
    pub fn counted(self, local: &Local) -> Rc<Seat> {
        if self.is_panic {
            local.shard.cells().panicked();
        }
        self.seat
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
mod tests;
