//! What one worker has in flight: on which version, as what, since when, with which endpoint, and whether it was told to
//! go.
//!
//! One slab for all versions, that this worker alone touches: to enter and to leave costs a request a few nanoseconds in
//! memory that is warm whichever version it is for, and nobody looks through it but who wants to know what is left, or
//! ends it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Instant;

use slab::Slab;

use super::leaving::Cuts;
use super::roll::{Remaining, add_up};
use super::seat::Seat;
use crate::metrics::Kind;
use crate::proxy::clock::Alarm;
use crate::table::EndpointAddr;

/// One worker's requests, streams and tunnels.
#[derive(Debug, Default)]
pub struct Flights {
    list: RefCell<Slab<Flight>>,
}

/// Those of one version, or of one endpoint of it.
#[derive(Debug, Clone, Copy)]
pub struct Part<'f> {
    all: &'f Flights,
    of: u64,
    at: Option<&'f EndpointAddr>,
}

/// What is asked of something in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ask {
    /// Nothing.
    #[default]
    Stay,
    /// To end in its protocol's own words, where nothing is torn by it.
    Go,
    /// To end.
    Cut,
}

/// One of them.
#[derive(Debug)]
struct Flight {
    /// The id of the tenure that it is on.
    on: u64,
    kind: Kind,
    since: Instant,
    /// The endpoint that was tried last, and what wakes whoever polls.
    way: Option<(Rc<Seat>, Rc<Alarm>)>,
    /// True when its protocol has words for an end before its time.
    has_words: bool,
    ask: Ask,
}

impl Flight {
    fn remaining(&self, endpoint: Option<EndpointAddr>, now: Instant) -> Remaining {
        let oldest = now.saturating_duration_since(self.since);
        Remaining { kind: self.kind, endpoint, count: 1, oldest }
    }

    fn asked(&mut self, ask: Ask) {
        self.ask = ask;
        self.way.iter().for_each(|(_, alarm)| alarm.wake());
    }

    fn is_at(&self, endpoint: &EndpointAddr) -> bool {
        self.way.as_ref().is_some_and(|(seat, _)| seat.endpoint.address == *endpoint)
    }

    /// True while it may be tried elsewhere too: it has no answer yet, as far as is known.
    fn may_move(&self) -> bool {
        !self.kind.is_answered() && !self.has_words
    }

    fn is_to_be_told(&self) -> bool {
        self.has_words && self.ask == Ask::Stay
    }
}

impl Flights {
    /// One more, on the tenure with the id `on`; by its key it is known until it [leaves](Self::leave).
    pub fn enter(&self, on: u64, kind: Kind, since: Instant) -> usize {
        let flight = Flight { on, kind, since, way: None, has_words: false, ask: Ask::Stay };
        self.list.borrow_mut().insert(flight)
    }

    /// It is work of another kind now.
    pub fn becomes(&self, key: usize, kind: Kind) {
        if let Some(flight) = self.list.borrow_mut().get_mut(key) {
            flight.kind = kind;
        }
    }

    /// It is tried with this endpoint; `alarm` is polled by whoever waits for it.
    pub fn goes_to(&self, key: usize, seat: &Rc<Seat>, alarm: &Rc<Alarm>) {
        if let Some(flight) = self.list.borrow_mut().get_mut(key) {
            flight.way = Some((Rc::clone(seat), Rc::clone(alarm)));
        }
    }

    /// It can be told to go.
    pub fn has_words(&self, key: usize) {
        if let Some(flight) = self.list.borrow_mut().get_mut(key) {
            flight.has_words = true;
        }
    }

    /// What is asked of it.
    #[must_use]
    pub fn ask(&self, key: usize) -> Ask {
        self.list.borrow().get(key).map_or(Ask::Stay, |flight| flight.ask)
    }

    /// It is over.
    pub fn leave(&self, key: usize) {
        let gone = self.list.borrow_mut().try_remove(key);
        drop(gone);
    }

    /// The tenures by their ids that have something with one of these endpoints, and with which.
    #[must_use]
    pub fn with(&self, endpoints: &BTreeSet<EndpointAddr>) -> BTreeSet<(u64, EndpointAddr)> {
        let list = self.list.borrow();
        let places =
            list.iter().filter_map(|(_, flight)| Some((flight.on, &flight.way.as_ref()?.0.endpoint)));
        let found = places.filter(|(_, endpoint)| endpoints.contains(&endpoint.address));
        found.map(|(on, endpoint)| (on, endpoint.address.clone())).collect()
    }

    /// The tenures by their ids that have something that may be tried with another endpoint yet.
    #[must_use]
    pub fn movable(&self) -> BTreeSet<u64> {
        let list = self.list.borrow();
        list.iter().filter(|(_, flight)| flight.may_move()).map(|(_, flight)| flight.on).collect()
    }

    /// Those on the tenure with this id.
    #[must_use]
    pub fn of(&self, id: u64) -> Part<'_> {
        Part { all: self, of: id, at: None }
    }
}

impl<'f> Part<'f> {
    /// Those of them that are with this endpoint.
    #[must_use]
    pub fn at(self, endpoint: &'f EndpointAddr) -> Self {
        Self { at: Some(endpoint), ..self }
    }

    fn has(&self, flight: &Flight) -> bool {
        flight.on == self.of && self.at.is_none_or(|at| flight.is_at(at))
    }

    /// True when nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all.list.borrow().iter().any(|(_, flight)| self.has(flight))
    }

    /// All of them at this moment, those of a kind with an endpoint together.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Vec<Remaining> {
        let list = self.all.list.borrow();
        let mine = list.iter().map(|(_, flight)| flight).filter(|flight| self.has(flight));
        let endpoint = |flight: &Flight| Some(flight.way.as_ref()?.0.endpoint.address.clone());
        add_up(mine.map(|flight| flight.remaining(endpoint(flight), now)))
    }

    /// Those of them that are with this endpoint, and, where it `may_come` to that, those that may be tried there yet.
    #[must_use]
    pub fn remaining_at(&self, endpoint: &EndpointAddr, may_come: bool, now: Instant) -> Vec<Remaining> {
        let list = self.all.list.borrow();
        let mine = list.iter().map(|(_, flight)| flight).filter(|flight| self.has(flight));
        let there = mine.filter(|flight| flight.is_at(endpoint) || (may_come && flight.may_move()));
        add_up(there.map(|flight| flight.remaining(Some(endpoint.clone()), now)))
    }

    /// How many can be told to go and were not.
    #[must_use]
    pub fn untold(&self) -> usize {
        let mut count = 0;
        self.each(|flight| count += usize::from(flight.is_to_be_told()));
        count
    }

    /// Tells so many of them to go, the oldest first.
    pub fn tell(&self, count: usize) {
        let mut list = self.all.list.borrow_mut();
        let mine = list.iter_mut().map(|(_, flight)| flight).filter(|flight| self.has(flight));
        let mut untold: Vec<_> = mine.filter(|flight| flight.is_to_be_told()).collect();
        let count = count.min(untold.len());
        if count > 0 && count < untold.len() {
            untold.select_nth_unstable_by_key(count - 1, |flight| flight.since);
        }
        untold.truncate(count);
        untold.into_iter().for_each(|flight| flight.asked(Ask::Go));
    }

    /// Cuts all of them, or those that were told to go and those that cannot be told otherwise.
    pub fn cut(&self, cuts: Cuts) {
        self.each(|flight| {
            let is_meant = match flight.ask {
                Ask::Stay => cuts == Cuts::All || flight.kind == Kind::Tunnel,
                Ask::Go => true,
                Ask::Cut => false,
            };
            if is_meant {
                flight.asked(Ask::Cut);
            }
        });
    }

    /// The version is back: of all that have not gone yet nothing is asked any more.
    pub fn spare(&self) {
        self.each(|flight| flight.ask = Ask::Stay);
    }

    fn each(&self, mut see: impl FnMut(&mut Flight)) {
        let mut list = self.all.list.borrow_mut();
        list.iter_mut().map(|(_, flight)| flight).filter(|flight| self.has(flight)).for_each(&mut see);
    }
}
