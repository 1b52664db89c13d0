//! Room for so many at a time, over all workers; who finds none waits in the order of arrival.
//!
//! An exact limit is shared by its nature, as a service's [quota](crate::proxy::quota) is. Shared out over the workers it
//! would refuse requests on one while another has room, and a limit below the number of workers could not be shared out at
//! all. Only requests of versions that have such a limit come here.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::Upstream;
use crate::table::CircuitRules;

/// What a version's circuit has of its own: the rest is its endpoints'.
#[derive(Debug, Default)]
pub struct Circuit {
    requests: OnceLock<Arc<Room>>,
    pending: AtomicU32,
}

/// Room for so many.
#[derive(Debug)]
pub struct Room {
    free: Semaphore,
    /// How many it has room for now; changed under the lock.
    size: AtomicUsize,
    /// How many places more are taken than there should be, because it was made smaller: they are not given back.
    owed: AtomicUsize,
    resizing: Mutex<()>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Room>);

/// There is no room, and none has become free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Upstream {
    /// Gives those who wait for a place as much room as these rules do, where there is one already.
    pub fn resize(&self, rules: &CircuitRules, shares_connections: bool) {
        if let Some(circuit) = self.circuit.get() {
            Room::fit(&circuit.requests, rules.requests);
        }
        let each = rules.at_endpoint(shares_connections);
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.vitals.values().for_each(|vitals| Room::fit(vitals.places(), each));
    }
}

impl Circuit {
    /// Room for the version's requests.
    pub fn requests(&self, size: NonZeroU32) -> &Arc<Room> {
        Room::of(&self.requests, size)
    }

    /// A place in `room`, at once or within `limit`; while no more than `most` of the version wait for any room.
    ///
    /// Cancel-safe: whoever is dropped does not wait any more.
    ///
    /// # Errors
    /// [`Full`].
    pub async fn enter(&self, room: &Arc<Room>, most: u32, limit: Duration) -> Result<Place, Full> {
        if let Some(place) = room.try_enter() {
            return Ok(place);
        }
        let _waiting = Waiting::of(&self.pending, most).ok_or(Full)?;
        tokio::time::timeout(limit, room.enter()).await.unwrap_or(Err(Full))
    }

    /// How many wait.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }
}

/// One who waits, counted until dropped.
struct Waiting<'c>(&'c AtomicU32);

impl<'c> Waiting<'c> {
    fn of(pending: &'c AtomicU32, most: u32) -> Option<Self> {
        // Relaxed: the count alone matters, it orders nothing else.
        let before = pending.fetch_add(1, Ordering::Relaxed);
        let waiting = Self(pending);
        (before < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Room {
    /// The room in `cell`, of this size from now on.
    pub fn of(cell: &OnceLock<Arc<Self>>, size: NonZeroU32) -> &Arc<Self> {
        let size = places(Some(size));
        let room = cell.get_or_init(|| Arc::new(Self::new(size)));
        room.resize(size);
        room
    }

    /// The room in `cell`, if it is there, is of this size from now on; without one, of any.
    fn fit(cell: &OnceLock<Arc<Self>>, size: Option<NonZeroU32>) {
        cell.get().inspect(|room| room.resize(places(size)));
    }

    fn new(size: usize) -> Self {
        let (free, size) = (Semaphore::new(size), AtomicUsize::new(size));
        Self { free, size, owed: AtomicUsize::new(0), resizing: Mutex::default() }
    }

    fn resize(&self, size: usize) {
        // Relaxed: whoever sees the old size a moment longer acts by the old table.
        if self.size.load(Ordering::Relaxed) == size {
            return;
        }
        let _alone = self.resizing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.size.swap(size, Ordering::Relaxed);
        if size < before {
            let gone = self.free.forget_permits(before - size);
            self.owed.fetch_add(before - size - gone, Ordering::Relaxed);
        }
        // What is still taken of an earlier, larger size is not added a second time.
        let more = size.saturating_sub(before);
        let owed = self
            .owed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| Some(owed.saturating_sub(more)));
        self.free.add_permits(more.saturating_sub(owed.unwrap_or(0)));
    }

    /// A place, if there is one and nobody waits for it.
    #[must_use]
    pub fn try_enter(self: &Arc<Self>) -> Option<Place> {
        self.free.try_acquire().ok()?.forget();
        Some(Place(Arc::clone(self)))
    }

    /// A place when it is one's turn.
    async fn enter(self: &Arc<Self>) -> Result<Place, Full> {
        // It is never closed.
        self.free.acquire().await.map_err(|_| Full)?.forget();
        Ok(Place(Arc::clone(self)))
    }

    fn leave(&self) {
        let is_owed =
            self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| owed.checked_sub(1));
        if is_owed.is_err() {
            self.free.add_permits(1);
        }
    }
}

/// How many places that are.
fn places(size: Option<NonZeroU32>) -> usize {
    let size = size.and_then(|size| usize::try_from(size.get()).ok());
    size.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(size: u32) -> NonZeroU32 {
        NonZeroU32::new(size).unwrap()
    }

    #[test]
    fn it_has_room_for_so_many_and_for_another_when_one_has_left() {
        let cell = OnceLock::new();
        let room = Room::of(&cell, size(2));
        let (first, _second) = (room.try_enter().unwrap(), room.try_enter().unwrap());
        assert!(room.try_enter().is_none());
        drop(first);
        assert!(room.try_enter().is_some());
    }

    #[test]
    fn another_size_counts_those_who_are_there() {
        let cell = OnceLock::new();
        let mut places: Vec<_> = (0..4).map(|_| Room::of(&cell, size(4)).try_enter().unwrap()).collect();
        assert!(Room::of(&cell, size(2)).try_enter().is_none());
        places.truncate(2);
        assert!(Room::of(&cell, size(2)).try_enter().is_none(), "two are there");
        let third = Room::of(&cell, size(3)).try_enter().unwrap();
        assert!(Room::of(&cell, size(3)).try_enter().is_none());
        drop((places, third));
        let free = std::iter::from_fn(|| Room::of(&cell, size(3)).try_enter()).take(10).collect::<Vec<_>>();
        assert_eq!(free.len(), 3);
    }

    #[test]
    fn a_smaller_room_that_grows_again_has_no_more_than_its_size() {
        let cell = OnceLock::new();
        let places: Vec<_> = (0..4).map(|_| Room::of(&cell, size(4)).try_enter().unwrap()).collect();
        Room::of(&cell, size(1));
        assert!(Room::of(&cell, size(4)).try_enter().is_none(), "four are there");
        drop(places);
        let free = std::iter::from_fn(|| Room::of(&cell, size(4)).try_enter()).take(10).collect::<Vec<_>>();
        assert_eq!(free.len(), 4);
    }

    #[test]
    fn those_who_wait_enter_in_their_order_and_no_more_wait_than_may() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let circuit = Circuit::default();
            let room = circuit.requests(size(1));
            let long = Duration::from_secs(30);
            let held = room.try_enter().unwrap();
            let order = std::cell::RefCell::new(Vec::new());
            let wait = async |number: u32| {
                let place = circuit.enter(room, 2, long).await;
                order.borrow_mut().push((number, place.is_ok()));
            };
            let let_go = async {
                tokio::task::yield_now().await;
                assert_eq!(circuit.pending(), 2);
                drop(held);
            };
            tokio::join!(wait(1), wait(2), wait(3), let_go);
            assert_eq!(*order.borrow(), [(3, false), (1, true), (2, true)]);
            assert_eq!(circuit.pending(), 0);
            let _held = room.try_enter().unwrap();
            assert_eq!(circuit.enter(room, 1, Duration::ZERO).await.err(), Some(Full), "not in time");
            assert_eq!(circuit.pending(), 0);
        });
    }
}
