//! One worker's page of a ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::endpoints::Endpoints;
use super::flight::bump;
use super::out::Out;
use super::quiet::{Bad, Clients, Slot};
use super::{QUANTILES, Shared, Side, clock, micros};
use crate::table::latency::BUCKETS;

/// Weights that are told apart; supervision moves them less often than that before the oldest request is long forgotten.
pub const GENERATIONS: usize = 8;

/// One worker's counts. Only its worker writes: a load and a store, with nothing locked.
pub struct Page {
    pub(super) shared: Arc<Shared>,
    groups: [[Group; 2]; GENERATIONS],
    /// How long heads took, by side.
    took: [Box<[AtomicU64]>; 2],
    /// What is in flight.
    pub(super) out: Out,
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
    /// Those of the slow that do not count where one client must not decide alone.
    slow_beyond: [AtomicU64; QUANTILES],
    /// Those of them that say nothing new of their client: of the failed, the client's errors, and the slow.
    failed_again: AtomicU64,
    client_errors_again: AtomicU64,
    slow_again: [AtomicU64; QUANTILES],
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
    /// The same of a longer time and [less precisely](super::SLOWLY): all of the baseline, and what of the candidate is with endpoints that are
    /// not warm, which is not among the others.
    pub slowly: [Vec<(u64, u64, u64)>; 2],
    /// Those of the candidate's in both that do not count where one client must not decide alone.
    pub beyond: [Vec<(u64, u64, u64)>; 2],
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
    /// Those of the slow that do not count where one client must not decide alone; of the candidate.
    pub slow_beyond: [u64; QUANTILES],
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
        Self {
            failed: self.failed.saturating_sub(before.failed),
            client_errors: self.client_errors.saturating_sub(before.client_errors),
            slow: each_less(self.slow, before.slow),
        }
    }
}

fn each_less(now: [u64; QUANTILES], before: [u64; QUANTILES]) -> [u64; QUANTILES] {
    std::array::from_fn(|index| now[index].saturating_sub(before[index]))
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
        Self {
            decided: self.decided.saturating_sub(before.decided),
            failed: self.failed.saturating_sub(before.failed),
            capped: self.capped.saturating_sub(before.capped),
            broken: self.broken.saturating_sub(before.broken),
            client_errors: self.client_errors.saturating_sub(before.client_errors),
            measured: self.measured.saturating_sub(before.measured),
            slow: each_less(self.slow, before.slow),
            slow_beyond: each_less(self.slow_beyond, before.slow_beyond),
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
            beyond: [Vec::new(), Vec::new()],
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
    /// Whom it was answered, as one of many.
    pub(super) client: u16,
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
            took: [(); 2].map(|()| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect()),
            out: Out::default(),
            alive: AtomicU64::new(0),
            endpoints: Default::default(),
        }
    }

    /// Who came, where that matters.
    pub(super) fn clients(&self) -> Option<&Clients> {
        self.clients.as_ref()
    }

    /// The baseline gave a good answer to what was asked after the mark.
    pub(super) fn is_alive(&self) {
        bump(&self.alive);
    }

    /// How long a head took.
    pub(super) fn took(&self, side: Side, bucket: usize) {
        bump(&self.took[side as usize][bucket]);
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
        let Decided { side, generation, outcome, is_capped, bucket, slot, .. } = *decided;
        let Some(group) = self.group(side, generation) else { return };
        bump(&group.decided);
        if let Some((bucket, slow)) = bucket.zip(self.shared.slow_from(side)) {
            bump(&group.measured);
            let reached = slow.into_iter().take_while(|from| bucket >= usize::from(*from));
            reached.enumerate().for_each(|(quantile, _)| self.was_slow(group, quantile, decided));
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

    /// It was slow, at this quantile.
    fn was_slow(&self, group: &Group, quantile: usize, decided: &Decided) {
        let (shared, bad) = (&self.shared, Bad::Slow(quantile));
        bump(&group.slow[quantile]);
        let now = || micros(shared.begun, clock::now());
        if decided.side == Side::Candidate && !shared.counts_for(decided.client, bad, now()) {
            bump(&group.slow_beyond[quantile]);
        }
        if shared.is_repeated(decided.slot, bad) {
            bump(&group.slow_again[quantile]);
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
                let (slow, beyond) = (&mut sum.slow_beyond, &group.slow_beyond);
                slow.iter_mut().zip(beyond).for_each(|(sum, beyond)| *sum += read(beyond));
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
        for (sums, took) in sums.took.iter_mut().zip(&self.took) {
            sums.iter_mut().zip(took).for_each(|(sum, bucket)| *sum += read(bucket));
        }
        self.out.add_to(sums);
        sums.alive += read(&self.alive);
    }
}
