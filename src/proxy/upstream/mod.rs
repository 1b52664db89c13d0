//! A version's tenure: the handle that lives as long as the version is in the table, or still has work.

pub mod local;

pub mod budget;

pub mod flights;

pub mod leaving;

pub mod roll;

pub mod pool;

pub mod rest;

pub mod census;

pub mod room;

pub mod seat;

mod seats;

pub mod vitals;

mod roster;

mod suspects;
pub mod suspicion;

pub mod balance;

pub mod warmups;

pub mod target;

pub mod stream;

pub mod names;

pub mod eyeballs;

pub mod tls;

pub mod http2;

pub mod far;

pub mod dial;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use dial::{Allowance, Dial, Dialed, NotConnected};
pub use far::Far;
use tokio::sync::Notify;

pub use local::{Local, Locals};
pub use pool::{Endpoint, Opened, Past, Patience};
pub use roll::{Remaining, Roll};
pub use room::{Circuit, NoPlace, Place, Seek, Wish};
use roster::Roster;
pub use seat::{Seat, Verdict};
pub use seats::Picked;
pub use stream::Stream;
pub use suspects::{Member, Suspect, Suspects};
pub use suspicion::{Heard, Suspicion};
pub use target::Target;
pub use vitals::{Standing, Vitals};

use super::admission::{Class, Counts, in_flight};
use super::descriptors::Share;
use crate::metrics::{Cells, Checks, Kind, Tenure};
use crate::table::{ServiceName, VersionName};

/// One version's time in the table: its counts and its metrics, a shard a worker.
///
/// A version that is removed and comes again gets a new tenure.
#[derive(Debug)]
pub struct Upstream {
    /// Unique in this process, for ever.
    pub id: u64,
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// The descriptors of its connections.
    pub share: Arc<Share>,
    slot: Slot,
    /// True once it is in the table no more.
    left: AtomicBool,
    /// Made at the worker's first request: a version without traffic costs nothing.
    shards: Box<[OnceLock<Arc<Shard>>]>,
    /// Who is to be told when a worker has nothing left of it; from its first drain on.
    watcher: OnceLock<Arc<Notify>>,
    /// How its endpoints fare. Locked when a pool changes or is looked at, never for a request.
    roster: Mutex<Roster>,
    /// What is taken of the version's limits, if it has had any.
    circuit: OnceLock<Box<Circuit>>,
    /// How its endpoints' checks went, once there were some.
    checks: OnceLock<Box<Checks>>,
}

/// One worker's part; 128 bytes apart so that no two workers write to the same pair of cache lines.
///
/// Of many versions none stays in a processor's cache, so what a usual request counts is in the first pair.
#[derive(Debug, Default)]
#[repr(C, align(128))]
pub struct Shard {
    /// Requests in flight of [`Class::Read`].
    pub counts: Counts,
    /// True while somebody waits for the last of it.
    is_watched: AtomicBool,
    /// How often an endpoint of the version came to stand differently; written by control, for this worker to read.
    revision: AtomicU32,
    /// Metrics.
    cells: Cells,
    /// Requests in flight of the other classes, in their order.
    others: [Counts; 4],
}

impl Shard {
    /// Requests in flight of a class.
    pub fn of(&self, class: Class) -> &Counts {
        match class {
            Class::Read => &self.counts,
            Class::Write => &self.others[0],
            Class::LastingRead => &self.others[1],
            Class::LastingWrite => &self.others[2],
            Class::Copy => &self.others[3],
        }
    }

    /// This worker's metric cells of the version.
    pub fn cells(&self) -> &Cells {
        &self.cells
    }

    /// Rises whenever one of the version's endpoints comes to stand differently, or to be looked at differently; read it
    /// before their [`Vitals`].
    #[must_use]
    pub fn revision(&self) -> u32 {
        // Pairs with `Upstream::revise`.
        self.revision.load(Ordering::Acquire)
    }

    fn is_empty(&self) -> bool {
        Class::ALL.into_iter().all(|class| self.of(class).admitted() == self.of(class).ended())
    }

    /// Counts one request out, as its last word. `upstream` is asked for only when somebody watches: hardly ever.
    pub fn end<'u>(&self, class: Class, upstream: impl FnOnce() -> &'u Upstream) {
        self.of(class).end();
        // Relaxed, and without a fence before it: who watches also looks now and then, and this only makes him look at
        // once. Pairs with `Upstream::watch`.
        if self.is_watched.load(Ordering::Relaxed) && self.is_empty() {
            upstream().watcher.get().inspect(|watcher| watcher.notify_one());
        }
    }
}

impl Upstream {
    /// The tenure of `version` on `workers` workers.
    #[must_use]
    pub fn open(service: ServiceName, version: VersionName, workers: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only uniqueness matters.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (share, shards) = (Arc::default(), (0..workers).map(|_| OnceLock::new()).collect());
        let (slot, left, watcher) = (Slot::take(), AtomicBool::new(false), OnceLock::new());
        let (roster, circuit, checks) = (Mutex::default(), OnceLock::new(), OnceLock::new());
        Self { id, service, version, share, slot, left, shards, watcher, roster, circuit, checks }
    }

    /// How its endpoints' checks went.
    #[must_use]
    pub fn checks(&self) -> &Checks {
        self.checks.get_or_init(Box::default)
    }

    /// The same, if there were any.
    #[must_use]
    pub fn known_checks(&self) -> Option<&Checks> {
        self.checks.get().map(|checks| &**checks)
    }

    /// An endpoint stands differently, or is looked at differently: what is known of it is written already.
    fn revise(&self) {
        // Pairs with the fence in `shard`: who makes a part that is not seen here sees what was written before.
        fence(Ordering::SeqCst);
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            // Pairs with `Shard::revision`.
            shard.revision.fetch_add(1, Ordering::Release);
        }
        self.look_anew();
    }

    /// What is taken of the version's limits.
    pub fn circuit(&self) -> &Circuit {
        self.circuit.get_or_init(Box::default)
    }

    /// How many requests wait because of its limits.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.circuit.get().map_or(0, |circuit| u64::from(circuit.pending()))
    }

    /// Tells `watcher` from now on whenever a worker has nothing left of it; the first watcher stays the only one.
    ///
    /// Look at [`Upstream::in_flight`] after this, and again now and then: what ends in this very moment, or on a worker
    /// that had not had a request yet, is not told.
    pub fn watch(&self, watcher: &Arc<Notify>) {
        self.watcher.get_or_init(|| Arc::clone(watcher));
        self.set_watched(true);
    }

    /// Nobody is told any more.
    pub fn unwatch(&self) {
        self.set_watched(false);
    }

    fn set_watched(&self, is_watched: bool) {
        let shards = self.shards.iter().filter_map(OnceLock::get);
        // Pairs with `Shard::end`.
        shards.for_each(|shard| shard.is_watched.store(is_watched, Ordering::Relaxed));
    }

    /// One worker's part.
    ///
    /// The worker makes it before it counts its first request in, so whoever is sure to see the request
    /// ([`Counts::admit`]) is sure to see the part.
    #[must_use]
    pub fn shard(&self, worker: usize) -> &Arc<Shard> {
        let shard = self.shards[worker].get_or_init(Arc::default);
        // Pairs with the fence in `revise`.
        fence(Ordering::SeqCst);
        shard
    }

    /// A small number that no other living tenure has: the place of the workers' own parts.
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.slot.0
    }

    /// How many workers serve it.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shards.len()
    }

    /// It is in the table no more: the workers close its idle connections. Call after the change was published.
    pub fn leave(&self) {
        // Pairs with `has_left`; nothing else hangs on it.
        self.left.store(true, Ordering::Relaxed);
    }

    /// True once it is in the table no more.
    #[must_use]
    pub fn has_left(&self) -> bool {
        // Pairs with `leave`; to see it a sweep later does no harm.
        self.left.load(Ordering::Relaxed)
    }

    /// Requests, streams and tunnels in flight on all workers; never fewer than there are.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.in_flight_of(|_| true)
    }

    /// Those in flight of some classes; never fewer than there are. One that becomes lasting work is at no time in neither.
    #[must_use]
    pub fn in_flight_of(&self, which: impl Fn(Class) -> bool + Copy) -> u64 {
        let shards = self.shards.iter().filter_map(OnceLock::get);
        let counts = shards.flat_map(move |shard| {
            Class::ALL.into_iter().filter(move |class| which(*class)).map(move |class| shard.of(class))
        });
        in_flight(counts)
    }

    /// How many have ever come, on all workers.
    #[must_use]
    pub fn admitted(&self) -> u64 {
        let shards = self.shards.iter().filter_map(OnceLock::get);
        shards.flat_map(|shard| Class::ALL.map(|class| shard.of(class).admitted())).sum()
    }

    /// Those in flight of one kind.
    #[must_use]
    pub fn in_flight_by(&self, kind: Kind) -> u64 {
        self.cells().map(|cells| cells.in_flight(kind)).sum()
    }

    /// The metric cells of the workers that have had a request.
    pub fn cells(&self) -> impl Iterator<Item = &Cells> {
        self.shards.iter().filter_map(OnceLock::get).map(|shard| shard.cells())
    }
}

impl Tenure for Upstream {
    fn id(&self) -> u64 {
        self.id
    }
    fn service(&self) -> &ServiceName {
        &self.service
    }
    fn version(&self) -> &VersionName {
        &self.version
    }
    fn pending(&self) -> u64 {
        self.pending()
    }
    fn each_cells(&self, see: &mut dyn FnMut(&Cells)) {
        self.cells().for_each(see);
    }
    fn checks(&self) -> Option<&Checks> {
        self.known_checks()
    }
}

/// A number that is free again when it is dropped.
#[derive(Debug)]
struct Slot(u32);

#[derive(Debug)]
struct Slots {
    next: u32,
    free: Vec<u32>,
}

/// Locked when a tenure begins and when it is forgotten, never on the request path.
static SLOTS: Mutex<Slots> = Mutex::new(Slots { next: 0, free: Vec::new() });

impl Slot {
    fn take() -> Self {
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = slots.next;
        Self(slots.free.pop().unwrap_or_else(|| {
            slots.next += 1;
            fresh
        }))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        SLOTS.lock().unwrap_or_else(PoisonError::into_inner).free.push(self.0);
    }
}
