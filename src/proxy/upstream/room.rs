//! Room for so many at a time, over all workers; who finds none waits in the order of arrival.
//!
//! An exact limit is shared by its nature, as a service's [quota](crate::proxy::quota) is. Shared out over the workers it
//! would refuse requests on one while another has room, and a limit below the number of workers could not be shared out at
//! all. Only requests of versions that have such a limit come here.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Upstream;

/// What is taken of a version's limits, and who waits for more.
#[derive(Debug, Default)]
pub struct Circuit {
    /// All that the version has at once, in one room.
    pub requests: Arc<Rooms>,
    /// What its endpoints have, each in its [room](super::Seat::room).
    pub endpoints: Arc<Rooms>,
    pending: AtomicU32,
}

/// Several rooms, and the one line of those who wait for a place in any of them.
///
/// A place that becomes free is handed to the first whom it suits. So nobody is overtaken, and a place is free only while
/// it suits nobody who waits: who comes and finds one may take it.
#[derive(Debug, Default)]
pub struct Rooms(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    /// How many places of each room; none of those that are not here.
    places: HashMap<u64, u32, ahash::RandomState>,
    /// Who waits, by the number that he came with.
    line: BTreeMap<u64, Waiter>,
    next: u64,
}

#[derive(Debug)]
struct Waiter {
    wish: Wish,
    place: oneshot::Sender<Place>,
}

/// What somebody waits for.
#[derive(Debug)]
pub struct Wish {
    /// A place in one of these.
    pub rooms: Vec<u64>,
    /// How many each has room for; `None`: any number.
    pub size: Option<NonZeroU32>,
}

/// One who looks for a place.
pub trait Seek {
    /// What he finds besides the place.
    type Found;

    /// Takes over what has changed since he looked last.
    fn refresh(&mut self);

    /// Chooses one of the rooms that have a place, which is to be asked of each with the size that it has.
    ///
    /// # Errors
    /// What he waits for, when none has.
    fn choose(
        &mut self,
        has_place: &dyn Fn(u64, Option<NonZeroU32>) -> bool,
    ) -> Result<(u64, Self::Found), Wish>;
}

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    rooms: Arc<Rooms>,
    room: u64,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// None has become free in time, or too many wait already.
    Full,
    /// There is no room that would do.
    Nowhere,
}

impl Upstream {
    /// Who waits for a place looks anew: by other limits, or among other endpoints. Call after they are there to be seen.
    pub fn look_anew(&self) {
        self.circuit.get().inspect(|circuit| circuit.look_anew());
    }
}

impl Circuit {
    /// A place in one of `rooms`, at once or within `limit`; while no more than `most` of the version wait for any room, if it counts
    /// among those.
    ///
    /// Cancel-safe: whoever is dropped does not wait any more.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub async fn enter<S: Seek>(
        &self,
        rooms: &Arc<Rooms>,
        mut seeker: S,
        most: Option<u32>,
        limit: Duration,
    ) -> Result<(S::Found, Place), NoPlace> {
        if let Some(found) = rooms.try_enter(&mut seeker) {
            return Ok(found);
        }
        let waiting = most.map(|most| Waiting::of(&self.pending, most).ok_or(NoPlace::Full));
        let _waiting = waiting.transpose()?;
        tokio::time::timeout(limit, rooms.enter(seeker)).await.unwrap_or(Err(NoPlace::Full))
    }

    /// How many wait.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    /// Everybody who waits looks anew.
    fn look_anew(&self) {
        self.requests.look_anew();
        self.endpoints.look_anew();
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

impl Rooms {
    /// A place that is free, if there is one.
    pub fn try_enter<S: Seek>(self: &Arc<Self>, seeker: &mut S) -> Option<(S::Found, Place)> {
        self.find(&mut self.taken(), seeker).ok()
    }

    /// A place when it is one's turn.
    async fn enter<S: Seek>(self: &Arc<Self>, mut seeker: S) -> Result<(S::Found, Place), NoPlace> {
        let mut turn = Turn { rooms: self, number: None };
        loop {
            let handed = match turn.look(&mut seeker) {
                Ok(found) => return Ok(found),
                Err(handed) => handed.ok_or(NoPlace::Nowhere)?.await,
            };
            seeker.refresh();
            // What does not suit any more is the next one's.
            if let Ok(place) = handed
                && let Ok((_, found)) = seeker.choose(&|room, _| room == place.room)
            {
                return Ok((found, place));
            }
        }
    }

    fn find<S: Seek>(self: &Arc<Self>, taken: &mut Taken, seeker: &mut S) -> Result<(S::Found, Place), Wish> {
        let (room, found) = seeker.choose(&|room, size| taken.has_place(room, size))?;
        taken.enter(room);
        Ok((found, Place { rooms: Arc::clone(self), room }))
    }

    /// Everybody who waits looks anew, and keeps his number.
    fn look_anew(&self) {
        let line = std::mem::take(&mut self.taken().line);
        // Which wakes them, when nothing is locked.
        drop(line);
    }

    fn leave(self: &Arc<Self>, room: u64) {
        let next = self.taken().leave(room);
        if let Some(next) = next {
            // Whoever has gone meanwhile gives it back at once.
            drop(next.send(Place { rooms: Arc::clone(self), room }));
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number in the line, until dropped.
struct Turn<'r> {
    rooms: &'r Arc<Rooms>,
    number: Option<u64>,
}

impl Turn<'_> {
    /// A place that is free; else where one is handed to who waits for it from now on, if he may go anywhere.
    fn look<S: Seek>(
        &mut self,
        seeker: &mut S,
    ) -> Result<(S::Found, Place), Option<oneshot::Receiver<Place>>> {
        let mut taken = self.rooms.taken();
        let wish = match self.rooms.find(&mut taken, seeker) {
            Ok(found) => return Ok(found),
            Err(wish) if wish.rooms.is_empty() => return Err(None),
            Err(wish) => wish,
        };
        let number = *self.number.get_or_insert_with(|| {
            taken.next += 1;
            taken.next
        });
        let (place, handed) = oneshot::channel();
        taken.line.insert(number, Waiter { wish, place });
        Err(Some(handed))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.rooms.taken().line.remove(&number);
        }
    }
}

impl Taken {
    fn has_place(&self, room: u64, size: Option<NonZeroU32>) -> bool {
        let taken = self.places.get(&room).copied().unwrap_or(0);
        size.is_none_or(|size| taken < size.get())
    }

    fn enter(&mut self, room: u64) {
        *self.places.entry(room).or_default() += 1;
    }

    /// One place fewer; and to whom it goes, if it suits anybody.
    fn leave(&mut self, room: u64) -> Option<oneshot::Sender<Place>> {
        if let Entry::Occupied(mut places) = self.places.entry(room) {
            *places.get_mut() -= 1;
            if *places.get() == 0 {
                places.remove();
            }
        }
        let suits = |wish: &Wish| wish.rooms.contains(&room) && self.has_place(room, wish.size);
        let number = self.line.iter().find(|(_, waiter)| suits(&waiter.wish)).map(|(number, _)| *number);
        let waiter = self.line.remove(&number?)?;
        self.enter(room);
        Some(waiter.place)
    }
}

impl Place {
    /// True when it is in this room.
    #[must_use]
    pub fn is_in(&self, room: u64) -> bool {
        self.room == room
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.rooms.leave(self.room);
    }
}

#[cfg(test)]
mod tests;
