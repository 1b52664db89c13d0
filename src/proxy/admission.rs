//! The admission protocol: how a request and a change agree on who came first.
//!
//! A request counts itself in on its version, *then* looks whether the epoch it chose under is still the published one.
//! A change publishes its epoch, *then* reads the counts. Between the two steps of either side stands a sequentially
//! consistent fence, so at least one of them sees the other: the request takes the new table, or the change counts the
//! request. From this follow the fence (G1), kill-safety (G3) and the exclusive flip.
//!
//! This file is compiled a second time by `tests/loom_admission.rs` with loom's atomics, which tries every interleaving
//! the memory model allows, beside variants that are wrong and must fail.

use super::atomic::{AtomicU64, Ordering, fence};

/// The epoch that requests are admitted under. One a process; written by control, read by every worker.
#[derive(Debug)]
pub struct Published(AtomicU64);

impl Published {
    /// Nothing but `epoch` is published at first.
    pub fn new(epoch: u64) -> Self {
        Self(AtomicU64::new(epoch))
    }

    /// Publishes `epoch`: when this returns, no request is admitted under an older one.
    ///
    /// Counts read after this, by the same thread, contain every request admitted before.
    pub fn publish(&self, epoch: u64) {
        // Pairs with the load in `Counts::admit`.
        self.0.store(epoch, Ordering::Release);
        // Pairs with the fence in `Counts::admit`.
        fence(Ordering::SeqCst);
    }

    /// The present epoch.
    pub fn epoch(&self) -> u64 {
        // Pairs with the store in `publish`.
        self.0.load(Ordering::Acquire)
    }
}

/// What a request in flight is to a flip that waits for it. Each class is counted apart, so that no request pays for what
/// only others are asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It changes nothing, and ends soon.
    Read,
    /// It may change something, and ends soon.
    Write,
    /// A stream, an event stream or the like that was asked for by a [`Class::Read`].
    LastingRead,
    /// The same, or a tunnel, through which something may be changed.
    LastingWrite,
    /// The copy of a request that another version serves.
    Copy,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Read, Self::Write, Self::LastingRead, Self::LastingWrite, Self::Copy];

    /// The class of a request that `writes`, or does not.
    pub fn of(writes: bool) -> Self {
        if writes { Self::Write } else { Self::Read }
    }

    /// True when it may change something; a copy may.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::LastingWrite | Self::Copy)
    }

    /// True when nobody knows how long it will take.
    pub fn is_lasting(self) -> bool {
        matches!(self, Self::LastingRead | Self::LastingWrite)
    }

    /// The same as lasting work.
    pub fn lasting(self) -> Self {
        match self {
            Self::Read | Self::LastingRead => Self::LastingRead,
            Self::Write | Self::LastingWrite => Self::LastingWrite,
            Self::Copy => Self::Copy,
        }
    }
}

/// A newer epoch was published between choosing and counting in; choose again from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superseded;

/// One worker's requests on one version. Only that worker writes; anybody reads.
#[derive(Debug)]
pub struct Counts {
    admitted: AtomicU64,
    ended: AtomicU64,
}

impl Counts {
    /// Nothing in flight.
    pub fn new() -> Self {
        Self { admitted: AtomicU64::new(0), ended: AtomicU64::new(0) }
    }

    /// Counts one request in, unless an epoch newer than `chosen_under` is published.
    ///
    /// Lock-free: one store to this worker's own cache line, a fence and one load.
    ///
    /// # Errors
    /// [`Superseded`] when a newer epoch was published; the request is then not counted.
    pub fn admit(&self, published: &Published, chosen_under: u64) -> Result<(), Superseded> {
        // Single writer: a plain load and store make an increment. Read by `in_flight`.
        self.admitted.store(self.admitted.load(Ordering::Relaxed) + 1, Ordering::Release);
        // Pairs with the fence in `Published::publish`.
        fence(Ordering::SeqCst);
        // A snapshot is visible an instant before its epoch is published: newer is as good as equal.
        if published.epoch() <= chosen_under {
            return Ok(());
        }
        self.end();
        Err(Superseded)
    }

    /// Takes one request over that is counted in `from`, which must be the same worker's: it is in flight all the time.
    pub fn take_over(&self, from: &Self) {
        // Pairs with `admitted`; no fence, because it was admitted before. Counted in here first: whoever sees its end there
        // (the store in `end` is a release) sees it here.
        self.admitted.store(self.admitted.load(Ordering::Relaxed) + 1, Ordering::Release);
        from.end();
    }

    /// Counts one request out. Call exactly once for each admitted one.
    pub fn end(&self) {
        // Release: whoever sees the request ended also sees that it had been admitted. Read by `in_flight`.
        self.ended.store(self.ended.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Requests that have ended. Sum these over all shards *before* any [`Counts::admitted`].
    pub fn ended(&self) -> u64 {
        // Pairs with the store in `end`.
        self.ended.load(Ordering::Acquire)
    }

    /// Requests that were ever counted in.
    pub fn admitted(&self) -> u64 {
        // Pairs with the store in `admit`.
        self.admitted.load(Ordering::Acquire)
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self::new()
    }
}

/// What requests wait behind while their service is held: closed, sealed or open. Once open, it is open for good.
///
/// A flip that must not overlap with anything *seals* it when nothing is in flight any more. That succeeds only if it has
/// never been open, so nobody has passed since the hold was published; and from then on nobody passes before the flip.
#[derive(Debug)]
pub struct Latch(AtomicU64);

const CLOSED: u64 = 0;
const SEALED: u64 = 1;
const OPEN: u64 = 2;

impl Latch {
    /// Closed.
    pub fn new() -> Self {
        Self(AtomicU64::new(CLOSED))
    }

    /// From now on it is opened by [`Latch::open`] alone; false when it is open.
    pub fn seal(&self) -> bool {
        self.turn(CLOSED, SEALED)
    }

    /// Opens it unless it is sealed or open, for the reason with this number; true when it did.
    pub fn burst(&self, why: u64) -> bool {
        self.turn(CLOSED, OPEN + why)
    }

    /// Opens it unless it is open. For whoever seals it.
    pub fn open(&self, why: u64) {
        // Nobody else turns it from closed to sealed, so it is neither only if it is open.
        let _ = self.turn(CLOSED, OPEN + why) || self.turn(SEALED, OPEN + why);
    }

    /// The reason for which it is open, if it is.
    pub fn reason(&self) -> Option<u64> {
        // Pairs with `turn`: who sees it open sees all that was published before.
        self.0.load(Ordering::Acquire).checked_sub(OPEN)
    }

    /// One object has one order: of two who would turn it the same way, one does.
    fn turn(&self, from: u64, to: u64) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Default for Latch {
    fn default() -> Self {
        Self::new()
    }
}

/// Requests in flight over all workers' counts: never fewer than there are, because ends are read before admissions.
pub fn in_flight<'c>(shards: impl Iterator<Item = &'c Counts> + Clone) -> u64 {
    let ended: u64 = shards.clone().map(Counts::ended).sum();
    let admitted: u64 = shards.map(Counts::admitted).sum();
    admitted - ended
}
