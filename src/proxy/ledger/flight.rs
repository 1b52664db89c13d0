//! What a worker has in flight on one version, by when it was begun.
//!
//! The worker alone writes, whoever judges reads at any moment. A place that is used again for later requests is closed
//! first, and who reads looks at its number before and after: the counts of two times are never mixed. What is left in
//! a place counts as older before that, so nothing that is out is missed; for an instant it may be counted twice.
//!
//! This file is compiled a second time by `tests/loom_flight.rs` with loom's atomics, which tries every interleaving the
//! memory model allows, beside variants that are wrong and must fail.

use super::atomic::{AtomicU64, Ordering};

/// How long the requests begun together are told apart from those begun later, in microseconds.
pub(super) const EPOCH: u64 = 25_000;
/// How many such groups there are; what was begun before them is one more.
const EPOCHS: usize = 64;
/// How far back requests are told apart by when they were begun, in microseconds.
pub const LATELY: u64 = EPOCH * EPOCHS as u64;

/// What is in flight, by when it was begun.
pub(super) struct Flight<const PLACES: usize = EPOCHS> {
    places: [Begun; PLACES],
    older: Counts,
}

#[derive(Default)]
struct Begun {
    /// Which epoch it is, plus 1; 0: none, or another in a moment.
    number: AtomicU64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One more. Nobody else writes it; who sees it sees all that was written before.
pub(super) fn bump(cell: &AtomicU64) {
    // Pairs with the loads of who reads.
    cell.store(cell.load(Ordering::Relaxed) + 1, Ordering::Release);
}

impl Counts {
    /// What was begun, and what of it has ended: never more.
    fn read(&self) -> (u64, u64) {
        // In this order, and pairing with `bump`: who sees an end sees the beginning.
        let ended = self.ended.load(Ordering::Acquire);
        (self.begun.load(Ordering::Acquire), ended)
    }
}

impl Begun {
    /// The middle of the epoch with its counts, unless there is none, or it is just becoming another.
    fn read(&self) -> Option<(u64, u64, u64)> {
        let number = self.number.load(Ordering::Acquire);
        let (begun, ended) = self.counts.read();
        // Pairs with the stores in `begin_anew`: who has seen a count of the next epoch sees that this one is over.
        let is_same = self.number.load(Ordering::Acquire) == number;
        let epoch = number.checked_sub(1).filter(|_| is_same)?;
        Some((epoch * EPOCH + EPOCH / 2, begun, ended))
    }

    /// What is counted from here on is of this epoch.
    fn begin_anew(&self, number: u64, older: &Counts) {
        let own = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let left = own(&self.counts.begun) - own(&self.counts.ended);
        // Release, all of them, and in this order: who sees one sees those before it.
        older.begun.store(own(&older.begun) + left, Ordering::Release);
        self.number.store(0, Ordering::Release);
        self.counts.begun.store(0, Ordering::Release);
        self.counts.ended.store(0, Ordering::Release);
        self.number.store(number, Ordering::Release);
    }
}

impl<const PLACES: usize> Default for Flight<PLACES> {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| Begun::default()), older: Counts::default() }
    }
}

impl<const PLACES: usize> Flight<PLACES> {
    /// The place of what was begun then, and the number that it has as long as it is that.
    fn place(&self, at: u64) -> (&Begun, u64) {
        let epoch = at / EPOCH;
        let index = usize::try_from(epoch % PLACES as u64).unwrap_or(0);
        (&self.places[index], epoch + 1)
    }

    /// A request was begun so many microseconds after the ledger.
    pub(super) fn began(&self, at: u64) {
        let (place, number) = self.place(at);
        if place.number.load(Ordering::Relaxed) != number {
            place.begin_anew(number, &self.older);
        }
        bump(&place.counts.begun);
    }

    /// A request that was begun then is in flight no more.
    pub(super) fn ended(&self, begun: u64) {
        let (place, number) = self.place(begun);
        let is_there = place.number.load(Ordering::Relaxed) == number;
        bump(if is_there { &place.counts.ended } else { &self.older.ended });
    }

    /// Tells the middle of each epoch lately, with what was begun in it and what of that has ended; what was begun
    /// before all these and has not ended.
    pub(super) fn look(&self, tell: impl FnMut((u64, u64, u64))) -> u64 {
        self.places.iter().filter_map(Begun::read).for_each(tell);
        // After the places: what has left one is here.
        let (begun, ended) = self.older.read();
        begun - ended
    }
}
