//! A copy in flight: counted in on its version as a request is, by the same protocol, and in nothing else.

use std::rc::Rc;

use crate::metrics::{Cells, Kind};
use crate::proxy::admission::{Class, Superseded};
use crate::proxy::clock::{self, Alarm};
use crate::proxy::upstream::flights::Ask;
use crate::proxy::upstream::{Local, Seat};
use crate::proxy::worker::Worker;
use crate::table::{Epoch, Holder};

/// Counts until it is dropped.
pub(super) struct Flight {
    local: Rc<Local>,
    /// Its key among what the worker has in flight.
    key: usize,
    /// What wakes who sends it, when it is to end.
    pub(super) alarm: Rc<Alarm>,
}

impl Flight {
    /// Counts a copy in, unless the snapshot it was chosen from is no longer the published one.
    pub(super) fn admit(
        local: &Rc<Local>,
        worker: &Worker,
        chosen_under: Epoch,
        seat: &Rc<Seat>,
    ) -> Result<Self, Superseded> {
        local.shard().of(Class::Copy).admit(worker.view.live().published(), chosen_under.0)?;
        local.shard().cells().enter(Kind::Mirror);
        let key = local.flights().enter(local.id(), Kind::Mirror, clock::now());
        let alarm = Rc::new(worker.clock.alarm());
        // Told of, and not counted there: who chooses endpoints for users does not see it.
        local.flights().goes_to(key, seat, &alarm);
        Ok(Self { local: Rc::clone(local), key, alarm })
    }

    /// True when it has to end.
    pub(super) fn is_cut(&self) -> bool {
        self.local.flights().ask(self.key) == Ask::Cut
    }

    /// True while an exclusive flip of its service waits for it.
    pub(super) fn is_waited_for(&self, worker: &Worker) -> bool {
        let snapshot = worker.view.newest();
        let service = snapshot.table.service(&self.local.upstream().service);
        service.is_some_and(|service| service.holds.of(Holder::Exclusive).is_some())
    }

    /// The worker's part of the version it counts on.
    pub(super) fn local(&self) -> Rc<Local> {
        Rc::clone(&self.local)
    }

    fn cells(&self) -> &Cells {
        self.local.shard().cells()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.cells().leave(Kind::Mirror);
        self.local.flights().leave(self.key);
        // Last, as of a request.
        self.local.shard().end(Class::Copy, || self.local.upstream());
    }
}
