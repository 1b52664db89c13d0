//! What is in flight on one worker's part of a version: as what, since when, with which endpoint, and whether it was told
//! to go.
//!
//! A slab that this worker alone touches: to enter and to leave costs a request a few nanoseconds, and nobody looks at
//! it but who wants to know what is left, or ends it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::pool::Endpoint;
use super::roll::{Remaining, add_up};
use crate::metrics::Kind;
use crate::proxy::clock::Alarm;

/// One worker's requests, streams and tunnels on one version.
#[derive(Debug, Default)]
pub struct Flights {
    list: RefCell<Slab<Flight>>,
    /// What event streams are told last.
    retry: Cell<Option<Duration>>,
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
    kind: Kind,
    since: Instant,
    /// The one that was tried last, and what wakes whoever polls.
    way: Option<(Rc<Endpoint>, Rc<Alarm>)>,
    /// True when its protocol has words for an end before its time.
    has_words: bool,
    ask: Ask,
}

impl Flight {
    fn asked(&mut self, ask: Ask) {
        self.ask = ask;
        self.way.iter().for_each(|(_, alarm)| alarm.wake());
    }

    fn is_to_be_told(&self) -> bool {
        self.has_words && self.ask == Ask::Stay
    }
}

impl Flights {
    /// One more; by its key it is known until it [leaves](Self::leave).
    pub fn enter(&self, kind: Kind, since: Instant) -> usize {
        let flight = Flight { kind, since, way: None, has_words: false, ask: Ask::Stay };
        self.list.borrow_mut().insert(flight)
    }

    /// It is work of another kind now.
    pub fn becomes(&self, key: usize, kind: Kind) {
        if let Some(flight) = self.list.borrow_mut().get_mut(key) {
            flight.kind = kind;
        }
    }

    /// It is tried with this endpoint; `alarm` is polled by whoever waits for it.
    pub fn goes_to(&self, key: usize, endpoint: &Rc<Endpoint>, alarm: &Rc<Alarm>) {
        if let Some(flight) = self.list.borrow_mut().get_mut(key) {
            flight.way = Some((Rc::clone(endpoint), Rc::clone(alarm)));
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

    /// True when nothing is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// All of them at this moment, those of a kind with an endpoint together.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Vec<Remaining> {
        let list = self.list.borrow();
        add_up(list.iter().map(|(_, flight)| Remaining {
            kind: flight.kind,
            endpoint: flight.way.as_ref().map(|(endpoint, _)| endpoint.address.clone()),
            count: 1,
            oldest: now.saturating_duration_since(flight.since),
        }))
    }

    /// How many can be told to go and were not.
    #[must_use]
    pub fn untold(&self) -> usize {
        self.list.borrow().iter().filter(|(_, flight)| flight.is_to_be_told()).count()
    }

    /// Tells so many of them to go, the oldest first.
    pub fn tell(&self, count: usize) {
        let mut list = self.list.borrow_mut();
        let mut untold: Vec<_> =
            list.iter_mut().map(|(_, flight)| flight).filter(|f| f.is_to_be_told()).collect();
        let count = count.min(untold.len());
        if count > 0 && count < untold.len() {
            untold.select_nth_unstable_by_key(count - 1, |flight| flight.since);
        }
        untold.truncate(count);
        untold.into_iter().for_each(|flight| flight.asked(Ask::Go));
    }

    /// Cuts all of them.
    pub fn cut(&self) {
        let mut list = self.list.borrow_mut();
        list.iter_mut()
            .filter(|(_, flight)| flight.ask != Ask::Cut)
            .for_each(|(_, flight)| flight.asked(Ask::Cut));
    }

    /// The version is back: of all that have not gone yet nothing is asked any more.
    pub fn spare(&self) {
        self.list.borrow_mut().iter_mut().for_each(|(_, flight)| flight.ask = Ask::Stay);
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
}
