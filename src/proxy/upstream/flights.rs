//! What is in flight on one worker's part of a version: as what, since when, with which endpoint.
//!
//! A slab that this worker alone touches: to enter and to leave costs a request a few nanoseconds, and nobody looks at
//! it but who wants to know what is left.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use slab::Slab;

use super::pool::Endpoint;
use super::roll::{Remaining, add_up};
use crate::metrics::Kind;

/// One worker's requests, streams and tunnels on one version.
#[derive(Debug, Default)]
pub struct Flights(RefCell<Slab<Flight>>);

/// One of them.
#[derive(Debug)]
struct Flight {
    kind: Kind,
    since: Instant,
    /// The one that was tried last.
    endpoint: Option<Rc<Endpoint>>,
}

impl Flights {
    /// One more; by its key it is known until it [leaves](Self::leave).
    pub fn enter(&self, kind: Kind, since: Instant) -> usize {
        self.0.borrow_mut().insert(Flight { kind, since, endpoint: None })
    }

    /// It is work of another kind now.
    pub fn becomes(&self, key: usize, kind: Kind) {
        if let Some(flight) = self.0.borrow_mut().get_mut(key) {
            flight.kind = kind;
        }
    }

    /// It is tried with this endpoint.
    pub fn goes_to(&self, key: usize, endpoint: &Rc<Endpoint>) {
        if let Some(flight) = self.0.borrow_mut().get_mut(key) {
            flight.endpoint = Some(Rc::clone(endpoint));
        }
    }

    /// It is over.
    pub fn leave(&self, key: usize) {
        let gone = self.0.borrow_mut().try_remove(key);
        drop(gone);
    }

    /// All of them at this moment, those of a kind with an endpoint together.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Vec<Remaining> {
        let flights = self.0.borrow();
        add_up(flights.iter().map(|(_, flight)| Remaining {
            kind: flight.kind,
            endpoint: flight.endpoint.as_ref().map(|endpoint| endpoint.address.clone()),
            count: 1,
            oldest: now.saturating_duration_since(flight.since),
        }))
    }
}
