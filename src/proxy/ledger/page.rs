//! One worker's page of a ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::endpoints::Endpoints;
use super::flight::{EPOCH, Flight, bump};
use super::quiet::{Bad, Clients, Slot};
use super::{QUANTILES, Shared, Side};
use crate::table::latency::BUCKETS;

/// Weights that are told apart; supervision moves them less often than that before the oldest request is long forgotten.
pub const GENERATIONS: usize = 8;

/// So many times as coarsely is it known for how long the slow ones are out, and so many times as long.
const COARSE: u64 = 16;
/// How far from the middle of its group such a one was begun at most, in microseconds.
pub const SLOWLY: u64 = EPOCH * COARSE / 2;

/// One worker's counts. Only its worker writes: a load and a store, with nothing locked.
pub struct Page {
    pub(super) shared: Arc<Shared>,
    groups: [[Group; 2]; GENERATIONS],
    sides: [OfSide; 2],
    /// Good answers of the baseline to what was asked after the mark.
    alive: AtomicU64,
    endpoints: [Endpoints; 2],
    /// Where the coin may be a client's.
    clients: Option<Clients>,
}

/// What became of requests with the same weights and version.
#[derive(Default)]
struct Group {
    decided: AtomicU64,
    failed: AtomicU64,
    /// Those of the failed that count where one client must not decide alone.
    capped: AtomicU64,
    /// Those of the failed that were decided to be good before.
    broken: AtomicU64,
    client_errors: AtomicU64,
    measured: AtomicU64,
    slow: [AtomicU64; QUANTILES],
    /// Those of them that say nothing new of their client: of the failed, the client's errors, and the slow.
    failed_again: AtomicU64,
    client_errors_again: AtomicU64,
    slow_again: [AtomicU64; QUANTILES],
}

struct OfSide {
    /// How long heads took.
    took: Box<[AtomicU64]>,
    flight: Flight,
    /// The same of a longer time, of the baseline; what is in flight to endpoints that are not warm, of the candidate, and only there.
    slowly: Flight,
    /// Good answers of which something was still to come, and those of which nothing is any more.
    opened: AtomicU64,
    closed: AtomicU64,
}

/// What was counted, of all workers.
#[derive(Debug, Clone)]
pub struct Sums {
    /// By generation modulo their number, and side.
    pub groups: [[Counted; 2]; GENERATIONS],
    /// How long heads took, by side and bucket.
    pub took: [Box<[u64]>; 2],
    /// What was begun lately and what of it has ended, with the time at which it was begun in microseconds since the ledger's beginning.
    pub flights: [Vec<(u64, u64, u64)>; 2],
    /// The same of a longer time and [less precisely](SLOWLY): all of the baseline, and what of the candidate is with endpoints that are
    /// not warm, which is not among the others.
    pub slowly: [Vec<(u64, u64, u64)>; 2],
    /// What was begun longer ago than [`LATELY`](super::LATELY) and has not ended.
    pub older: [u64; 2],
    /// Good answers of which something is still to come, by side.
    pub open: [u64; 2],
    /// Good answers of the baseline to what was asked after the mark.
    pub alive: u64,
}

/// What became of requests with the same weights and version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// First attempts whose end is known.
    pub decided: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those of them that count where one client must not decide alone.
    pub capped: u64,
    /// Those of the failed that were decided to be good before: of these the decision came earlier.
    pub broken: u64,
    /// Those that were answered with a 4xx which the version may be to blame for.
    pub client_errors: u64,
    /// Those whose speed was compared.
    pub measured: u64,
    /// Those of them that were slow, at each quantile.
    pub slow: [u64; QUANTILES],
    /// Those of the bad ones whose client had met the same just before, where the coin is the client's.
    pub again: Again,
}

/// What says nothing new of its client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Again {
    /// Of the failed.
    pub failed: u64,
    /// Of the client's errors.
    pub client_errors: u64,
    /// Of the slow, at each quantile.
    pub slow: [u64; QUANTILES],
}

impl Again {
    fn less(&self, before: &Self) -> Self {
        let mut slow = self.slow;
        slow.iter_mut().zip(before.slow).for_each(|(slow, before)| *slow = slow.saturating_sub(before));
        Self {
            failed: self.failed.saturating_sub(before.failed),
            client_errors: self.client_errors.saturating_sub(before.client_errors),
            slow,
        }
    }
}

impl Sums {
    /// How many first attempts have been decided.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.groups.iter().flatten().map(|counted| counted.decided).sum()
    }

    /// True when any request is in flight.
    #[must_use]
    pub fn has_out(&self) -> bool {
        let is_out = |(_, begun, ended): &(u64, u64, u64)| begun > ended;
        self.flights.iter().chain(&self.slowly).flatten().any(is_out)
            || self.older.iter().any(|older| *older > 0)
    }
}

impl Counted {
    /// What came since there was `before`.
    #[must_use]
    pub fn less(&self, before: &Self) -> Self {
        let mut slow = self.slow;
        slow.iter_mut().zip(before.slow).for_each(|(slow, before)| *slow = slow.saturating_sub(before));
        Self {
            decided: self.decided.saturating_sub(before.decided),
            failed: self.failed.saturating_sub(before.failed),
            capped: self.capped.saturating_sub(before.capped),
            broken: self.broken.saturating_sub(before.broken),
            client_errors: self.client_errors.saturating_sub(before.client_errors),
            measured: self.measured.saturating_sub(before.measured),
            slow,
            again: self.again.less(&before.again),
        }
    }
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            groups: [[Counted::default(); 2]; GENERATIONS],
            took: [vec![0; BUCKETS].into(), vec![0; BUCKETS].into()],
            flights: [Vec::new(), Vec::new()],
            slowly: [Vec::new(), Vec::new()],
            older: [0; 2],
            open: [0; 2],
            alive: 0,
        }
    }
}

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

impl Default for OfSide {
    fn default() -> Self {
        let (flight, slowly, opened, closed) = Default::default();
        Self { took: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), flight, slowly, opened, closed }
    }
}

/// How a first attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Good,
    /// A 4xx that the version may be to blame for.
    ClientError,
    Failed,
    /// The client did not wait for what was slow already.
    GivenUp,
}

/// What is known of an attempt when it is counted.
pub(super) struct Decided {
    pub(super) side: Side,
    pub(super) generation: u32,
    pub(super) outcome: Outcome,
    /// Whether a failure counts where one client must not decide alone.
    pub(super) is_capped: bool,
    /// The bucket of how long its head took, if it may be compared.
    pub(super) bucket: Option<usize>,
    /// Whose coin it was, if a client's.
    pub(super) slot: Option<Slot>,
}

impl Group {
    fn failed(&self, is_capped: bool, is_repeated: bool) {
        // What is a part of another comes after it, and is read before it: it is never more.
        bump(&self.failed);
        if !is_capped {
            bump(&self.capped);
        }
        if is_repeated {
            bump(&self.failed_again);
        }
    }
}

impl Page {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let clients = shared.quiet.is_some().then(Clients::new);
        Self {
            shared,
            clients,
            groups: Default::default(),
            sides: Default::default(),
            alive: AtomicU64::new(0),
            endpoints: Default::default(),
        }
    }

    /// Who came, where that matters.
    pub(super) fn clients(&self) -> Option<&Clients> {
        self.clients.as_ref()
    }

    /// A request was begun so long after the ledger.
    pub(super) fn began(&self, side: Side, at: u64, is_cold: bool) {
        let of = &self.sides[side as usize];
        if !is_cold {
            of.flight.began(at);
        }
        if is_cold || side == Side::Baseline {
            of.slowly.began(at / COARSE);
        }
    }

    /// What was begun then and is in flight has met an endpoint that is not warm.
    pub(super) fn grows_cold(&self, side: Side, begun: u64) {
        self.began(side, begun, true);
        self.sides[side as usize].flight.ended(begun);
    }

    /// A request that was begun then is in flight no more, as far as this is concerned.
    pub(super) fn ended(&self, side: Side, begun: u64, is_cold: bool) {
        let of = &self.sides[side as usize];
        if !is_cold {
            of.flight.ended(begun);
        }
        if is_cold || side == Side::Baseline {
            of.slowly.ended(begun / COARSE);
        }
    }

    /// The baseline gave a good answer to what was asked after the mark.
    pub(super) fn is_alive(&self) {
        bump(&self.alive);
    }

    /// How long a head took.
    pub(super) fn took(&self, side: Side, bucket: usize) {
        bump(&self.sides[side as usize].took[bucket]);
    }

    /// A good answer has begun to come.
    pub(super) fn opened(&self, side: Side) {
        bump(&self.sides[side as usize].opened);
    }

    /// Nothing more comes of one.
    pub(super) fn closed(&self, side: Side) {
        bump(&self.sides[side as usize].closed);
    }

    /// The counts of these weights, unless they are long gone: their place is another's then.
    fn group(&self, side: Side, generation: u32) -> Option<&Group> {
        let newest = self.shared.newest.load(Ordering::Relaxed);
        let is_there = (newest.saturating_sub(generation) as usize) < GENERATIONS;
        is_there.then(|| &self.groups[generation as usize % GENERATIONS][side as usize])
    }

    /// What was decided to be good has failed.
    pub(super) fn broke_off(&self, side: Side, generation: u32, is_capped: bool, slot: Option<Slot>) {
        if let Some(group) = self.group(side, generation) {
            group.failed(is_capped, self.shared.is_repeated(slot, Bad::Failed));
            bump(&group.broken);
        }
    }

    /// The end of a first attempt is known.
    pub(super) fn decided(&self, decided: &Decided) {
        let Decided { side, generation, outcome, is_capped, bucket, slot } = *decided;
        let Some(group) = self.group(side, generation) else { return };
        bump(&group.decided);
        if let Some((bucket, slow)) = bucket.zip(self.shared.slow_from(side)) {
            bump(&group.measured);
            for (quantile, from) in slow.into_iter().enumerate() {
                if bucket >= usize::from(from) {
                    bump(&group.slow[quantile]);
                    if self.shared.is_repeated(slot, Bad::Slow(quantile)) {
                        bump(&group.slow_again[quantile]);
                    }
                }
            }
        }
        match outcome {
            Outcome::Good | Outcome::GivenUp => {}
            Outcome::ClientError => {
                bump(&group.client_errors);
                if self.shared.is_repeated(slot, Bad::ClientError) {
                    bump(&group.client_errors_again);
                }
            }
            Outcome::Failed => group.failed(is_capped, self.shared.is_repeated(slot, Bad::Failed)),
        }
    }

    /// For how long an endpoint is asked and has not answered once.
    pub(super) fn silence(&self, side: Side, id: u64, now: u64) -> u64 {
        self.endpoints[side as usize].silence(id, now)
    }

    /// How many answers of an endpoint there were.
    pub(super) fn met(&self, side: Side, id: u64) -> u32 {
        self.endpoints[side as usize].met(id)
    }

    /// One more answer of an endpoint, or one that was not; how many there were before.
    pub(super) fn of_endpoint(&self, side: Side, id: u64, has_failed: bool) -> u32 {
        self.endpoints[side as usize].count(id, has_failed)
    }

    /// An answer of an endpoint that counts as good has failed.
    pub(super) fn endpoint_broke_off(&self, side: Side, id: u64) {
        self.endpoints[side as usize].broke_off(id);
    }

    /// Tells what the endpoints of one side have done: id, decided and failed.
    pub(super) fn each_endpoint(&self, side: Side, tell: impl FnMut((u64, u64, u64))) {
        self.endpoints[side as usize].each(tell);
    }

    /// How many first attempts were decided.
    pub(super) fn all_decided(&self) -> u64 {
        self.groups.iter().flatten().map(|group| group.decided.load(Ordering::Acquire)).sum()
    }

    pub(super) fn add_to(&self, sums: &mut Sums) {
        // Pairs with `bump`.
        let read = |cell: &AtomicU64| cell.load(Ordering::Acquire);
        for (groups, sums) in self.groups.iter().zip(&mut sums.groups) {
            for (group, sum) in groups.iter().zip(sums) {
                // Parts before what they are a part of.
                let (slow, slow_again) = (&mut sum.again.slow, &group.slow_again);
                slow.iter_mut().zip(slow_again).for_each(|(sum, again)| *sum += read(again));
                sum.again.client_errors += read(&group.client_errors_again);
                sum.again.failed += read(&group.failed_again);
                sum.capped += read(&group.capped);
                sum.broken += read(&group.broken);
                sum.failed += read(&group.failed);
                sum.client_errors += read(&group.client_errors);
                sum.slow.iter_mut().zip(&group.slow).for_each(|(sum, slow)| *sum += read(slow));
                sum.measured += read(&group.measured);
                sum.decided += read(&group.decided);
            }
        }
        let flights = sums.flights.iter_mut().zip(&mut sums.older);
        for ((side, took), (flights, older)) in self.sides.iter().zip(&mut sums.took).zip(flights) {
            took.iter_mut().zip(&side.took).for_each(|(sum, bucket)| *sum += read(bucket));
            *older += side.flight.look(|epoch| flights.push(epoch));
        }
        for (index, (side, epochs)) in self.sides.iter().zip(&mut sums.slowly).enumerate() {
            let tell = |(middle, begun, ended)| epochs.push((middle * COARSE, begun, ended));
            let older = side.slowly.look(tell);
            // The baseline's are among the older ones already.
            sums.older[index] += if index == Side::Candidate as usize { older } else { 0 };
        }
        for (side, open) in self.sides.iter().zip(&mut sums.open) {
            let closed = read(&side.closed);
            *open += read(&side.opened) - closed;
        }
        sums.alive += read(&self.alive);
    }
}
