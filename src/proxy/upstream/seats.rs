//! A version's seats on one worker: the endpoints that it names there, and whom of them a request goes to.

use std::cell::RefCell;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Upstream;
use super::balance::{Asking, Board, Choice, Pool};
use super::pool::{Destination, Endpoint, Pools};
use super::seat::Seat;
use super::target::Target;
use crate::table::{EndpointAddr, PoolRules, Traits, ZoneName};

/// The seats of one version. Of ten thousand none stays in a processor's cache, so what a usual request reads comes first.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Seats {
    /// What `all` was made from: while it is the same one, nothing has to be compared.
    target: Arc<Target>,
    /// The rules of `target`, if there is something in them that every request has to look at.
    special: Option<Rc<PoolRules>>,
    /// True while the endpoints are named for this version.
    is_named: bool,
    /// Many pools are small, and a list elsewhere would be another cache miss.
    all: SmallVec<[Rc<Seat>; 2]>,
    board: Board,
    /// What is said of each; empty when nothing is said of any.
    traits: Vec<Traits>,
}

/// Whom a request goes to.
#[derive(Debug)]
pub struct Picked {
    /// The endpoint.
    pub seat: Rc<Seat>,
    /// True when it is one of all, well or not, because too few serve.
    pub is_panic: bool,
}

impl Seats {
    /// None yet.
    pub(super) fn none() -> Self {
        Self {
            target: Arc::default(),
            special: None,
            is_named: true,
            all: SmallVec::new(),
            board: Board::default(),
            traits: Vec::new(),
        }
    }

    /// True when they are those of `target`, named or not.
    pub(super) fn are_of(&self, target: &Arc<Target>) -> bool {
        Arc::ptr_eq(&self.target, target)
    }

    /// True while the endpoints are named for this version.
    pub(super) fn are_named(&self) -> bool {
        self.is_named
    }

    /// True when one of them is at this address.
    pub(super) fn lead_to(&self, address: &EndpointAddr) -> bool {
        self.all.iter().any(|seat| seat.endpoint.address == *address)
    }

    /// Reads the only one, so that it is near when it is chosen.
    pub(super) fn touch(&self) {
        if let [only] = &*self.all {
            black_box(only.in_flight());
        }
    }

    /// How they are worked.
    pub(super) fn rules(&self) -> &PoolRules {
        &self.target.pool
    }

    /// The same, if there is something in it that every request has to look at.
    pub(super) fn special(&self) -> Option<Rc<PoolRules>> {
        self.special.clone()
    }

    /// Most requests with one of them at a time, if that is limited.
    pub(super) fn most_at_endpoint(&self) -> Option<NonZeroU32> {
        self.target.pool.circuit.at_endpoint(self.target.protocol.is_http2())
    }

    /// The endpoints of those that serve.
    pub(super) fn serving(&self) -> Vec<Rc<Endpoint>> {
        let serving = self.all.iter().filter(|seat| seat.vitals.standing().serves());
        serving.map(|seat| Rc::clone(&seat.endpoint)).collect()
    }

    /// One of those that serve.
    pub(super) fn by_lot(&self, lot: u64) -> Option<Rc<Seat>> {
        let serving: SmallVec<[_; 8]> =
            self.all.iter().filter(|seat| seat.vitals.standing().serves()).collect();
        let index = lot.checked_rem(serving.len() as u64).and_then(|index| usize::try_from(index).ok())?;
        serving.get(index).map(|seat| Rc::clone(seat))
    }

    /// Takes over the new pool; endpoints that stay keep their connections, those that nobody else names lose them.
    pub(super) fn follow(&mut self, target: &Arc<Target>, upstream: &Arc<Upstream>, pools: &Rc<Pools>) {
        let Target { endpoints: list, protocol, proxy_header, tls, traits, .. } = &**target;
        let seat = |address: &EndpointAddr| {
            let (address, tls) = (address.clone(), tls.clone());
            let vitals = upstream.vitals(&address);
            let there = Destination { address, protocol: *protocol, proxy_header: *proxy_header, tls };
            let endpoint = pools.name(there);
            // One that went and came again has new ones.
            let same = |seat: &&Rc<Seat>| {
                Rc::ptr_eq(&seat.endpoint, &endpoint) && Arc::ptr_eq(&seat.vitals, &vitals)
            };
            let known = self.all.iter().find(same).map(Rc::clone);
            known.unwrap_or_else(|| Rc::new(Seat::new(endpoint, vitals)))
        };
        // First named, then unnamed: what stays is never without a name.
        let seats = list.iter().map(seat).collect();
        self.unname();
        let said = list.iter().filter(|_| !traits.are_none()).map(|address| traits.of(address));
        self.traits = said.collect();
        self.board.forget();
        self.special = (!target.pool.is_usual()).then(|| Rc::new((*target.pool).clone()));
        (self.all, self.target, self.is_named) = (seats, Arc::clone(target), true);
    }

    /// The endpoints are named no more for this version; the next request names them again.
    pub(super) fn unname(&mut self) {
        if std::mem::replace(&mut self.is_named, false) {
            self.all.iter().for_each(|seat| seat.endpoint.unname());
        }
    }

    /// What it goes by has changed besides.
    pub(super) fn reconsider(&mut self) {
        self.board.expire();
    }

    /// Whom a request goes to; `None` when there is nobody.
    pub(super) fn choose(
        &mut self,
        (revision, tick): (u32, u64),
        zone: &RefCell<Option<ZoneName>>,
        asking: Asking<'_>,
    ) -> Option<Picked> {
        if !self.board.is_current(revision, tick) {
            let (balance, zone) = (&self.target.pool.balance, zone.borrow());
            let pool = Pool { seats: &self.all, traits: &self.traits, balance, zone: zone.as_ref() };
            self.board.make(pool, revision, tick, (asking.now)());
        }
        let Choice { seat, is_panic } = self.board.choose(&self.all, asking)?;
        Some(Picked { seat: Rc::clone(&self.all[seat]), is_panic })
    }

    /// All of whom one was chosen last, or might have been if it suited.
    pub(super) fn chosen_from(&self) -> impl Iterator<Item = &Rc<Seat>> {
        self.board.chosen_from(self.all.len()).into_iter().map(|seat| &self.all[seat])
    }
}
