//! An endpoint as one version sees it on one worker: where it is, how it fares, and how much of the version it has.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::pool::Endpoint;
use super::vitals::Vitals;

/// One endpoint in one version's pool. As long as the pool has it, it is the same one.
#[derive(Debug)]
pub struct Seat {
    /// The endpoint, which other versions may share.
    pub endpoint: Rc<Endpoint>,
    /// How it fares in this version, as the whole process knows.
    pub vitals: Arc<Vitals>,
    in_flight: Cell<u32>,
}

impl Seat {
    /// With nothing in flight.
    #[must_use]
    pub fn new(endpoint: Rc<Endpoint>, vitals: Arc<Vitals>) -> Self {
        Self { endpoint, vitals, in_flight: Cell::new(0) }
    }

    /// What this worker has with it, of this version.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// One more.
    pub fn enter(&self) {
        self.in_flight.set(self.in_flight.get() + 1);
    }

    /// One less.
    pub fn leave(&self) {
        self.in_flight.set(self.in_flight.get() - 1);
    }
}
