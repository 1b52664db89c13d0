//! One worker's counters of one version: plain loads and stores, read by the collector at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::kind::Kind;
use super::reason::Reason;
use super::retry::{Hedge, Retry};
use std::sync::{LazyLock, OnceLock};

/// Adds to a counter that only this thread writes: no locked instruction.
pub fn bump(cell: &AtomicU64, by: u64) {
    // Single writer; the collector reads with Relaxed and may see the sum a little late.
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// How one request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The status, or 499.
    pub code: u16,
    /// Set when the proxy made the answer or gave up.
    pub reason: Option<Reason>,
    /// From admission to the last byte from the version, in microseconds.
    pub micros: u64,
}

/// The status codes that have a cell of their own, ascending; others are counted in their class's cell (`4xx`).
const CODES: [u16; 72] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307,
    308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421,
    422, 423, 424, 425, 426, 428, 429, 431, 444, 451, 460, 494, 499, 500, 501, 502, 503, 504, 505, 506, 507,
    508, 510, 511, 520, 521, 522, 523, 524, 530,
];

/// The classes of the codes without a cell of their own.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// How many cells: one a code, one a class.
pub(super) const SLOTS: usize = CODES.len() + CLASSES.len();

/// The label of every cell: a code, or the class of those without a cell of their own.
pub(super) fn code_labels() -> &'static [String; SLOTS] {
    static LABELS: LazyLock<[String; SLOTS]> = LazyLock::new(|| {
        std::array::from_fn(|slot| match CODES.get(slot) {
            Some(code) => code.to_string(),
            None => CLASSES[slot - CODES.len()].to_owned(),
        })
    });
    &LABELS
}

/// Upper bounds of the duration histogram's buckets in microseconds: 0.5 ms to 60 s, at most a factor of 1.67 apart.
pub(super) const BOUNDS: [u64; 26] = [
    500, 750, 1_000, 1_500, 2_500, 4_000, 6_000, 10_000, 15_000, 25_000, 40_000, 60_000, 100_000, 150_000,
    250_000, 400_000, 600_000, 1_000_000, 1_500_000, 2_500_000, 4_000_000, 6_000_000, 10_000_000, 15_000_000,
    30_000_000, 60_000_000,
];

/// Durations in buckets.
#[derive(Debug)]
#[repr(C)]
pub struct Histogram {
    sum_micros: AtomicU64,
    /// One more than the bounds: the last is above all of them.
    buckets: [AtomicU64; BOUNDS.len() + 1],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: zeros(), sum_micros: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts one duration. Single writer.
    pub fn observe(&self, micros: u64) {
        bump(&self.buckets[BOUNDS.partition_point(|bound| *bound < micros)], 1);
        bump(&self.sum_micros, micros);
    }

    /// Adds these counts to `buckets` (one more than the bounds) and gives the sum in microseconds.
    pub(super) fn add_to(&self, buckets: &mut [u64]) -> u64 {
        for (total, cell) in buckets.iter_mut().zip(&self.buckets) {
            *total += cell.load(Ordering::Relaxed);
        }
        self.sum_micros.load(Ordering::Relaxed)
    }
}

/// How requests ended, and how long they took.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Tally {
    /// Answers with status 200: most of the world.
    ok: AtomicU64,
    pub(super) durations: Histogram,
    /// By status code, in the order of [`code_labels`]; that of 200 stays 0.
    codes: [AtomicU64; SLOTS],
    /// Those that the proxy answered or gave up on, by reason; in the order of [`Reason::ALL`].
    reasons: [AtomicU64; Reason::ALL.len()],
}

/// Where [`CODES`] has 200.
const OK: usize = 4;

impl Default for Tally {
    fn default() -> Self {
        let ok = AtomicU64::new(0);
        Self { ok, durations: Histogram::default(), codes: zeros(), reasons: zeros() }
    }
}

impl Tally {
    fn record(&self, outcome: Outcome) {
        match outcome.reason {
            Some(reason) => bump(&self.reasons[reason as usize], 1),
            None => self.count(outcome.code),
        }
        self.durations.observe(outcome.micros);
    }

    fn count(&self, code: u16) {
        if code == CODES[OK] {
            return bump(&self.ok, 1);
        }
        let class = usize::from((code / 100).clamp(1, 5) - 1);
        let slot = CODES.binary_search(&code).unwrap_or(CODES.len() + class);
        bump(&self.codes[slot], 1);
    }

    /// Adds these counts to `codes`, in the order of [`code_labels`], and `reasons`.
    pub(super) fn add_to(&self, codes: &mut [u64; SLOTS], reasons: &mut [u64; Reason::ALL.len()]) {
        codes[OK] += self.ok.load(Ordering::Relaxed);
        for (total, cell) in codes.iter_mut().zip(&self.codes).chain(reasons.iter_mut().zip(&self.reasons)) {
            *total += cell.load(Ordering::Relaxed);
        }
    }
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

/// Ever entered and ever left.
#[derive(Debug, Default)]
struct Flow {
    entered: AtomicU64,
    left: AtomicU64,
}

/// One worker's counters of one version.
///
/// In the order in which they are hot: with ten thousand services no line of these is in a processor's cache when it is
/// needed, and each costs 0.1 µs. What the version did and what users saw is nearly always the same, and counted once.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Cells {
    /// In flight of the kind [`Kind::Request`].
    requests: Flow,
    /// What the version did and users saw.
    both: Tally,
    /// The other kinds in flight, in the order of [`Kind::ALL`].
    kinds: [Flow; Kind::ALL.len()],
    /// What the version did and users did not see: attempts that another one made good, and what it did in another version's place.
    unseen: OnceLock<Box<Tally>>,
    /// What the version did last with requests that another version has then answered.
    covered: OnceLock<Box<Tally>>,
    /// What users saw of what it did in another version's place, since that one had them.
    seen: OnceLock<Box<Tally>>,
    /// Requests that it has failed and another version has answered.
    shielded: AtomicU64,
    /// Requests for which endpoints were used that do not serve, because too few do.
    panics: AtomicU64,
    /// Status of gRPC calls, in the order of [`GRPC`].
    grpc: OnceLock<Box<[AtomicU64; GRPC.len()]>>,
    /// Those that were ended in words, because the version was left; in the order of [`Kind::ALL`].
    dismissed: OnceLock<Box<[AtomicU64; Kind::ALL.len()]>>,
    /// What became of attempts after the first; in the order of [`Retry::ALL`].
    retries: OnceLock<Box<[AtomicU64; Retry::ALL.len()]>>,
    /// What became of attempts beside another; in the order of [`Hedge::ALL`].
    hedges: OnceLock<Box<[AtomicU64; Hedge::ALL.len()]>>,
    /// Copies of other versions' requests that it was sent, and those that it answered otherwise.
    mirrored: AtomicU64,
    differences: AtomicU64,
}

/// gRPC statuses that are the server's doing: unknown, deadline exceeded, resource exhausted, internal, unavailable, data loss.
pub const GRPC_FAILURES: [usize; 6] = [2, 4, 8, 13, 14, 15];

/// The status of a gRPC call by its number; the last is for all others.
pub(super) const GRPC: [&str; 18] =
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "other"];

impl Cells {
    /// Counts a request: what the version did, and the user saw.
    pub fn record(&self, outcome: Outcome) {
        self.both.record(outcome);
    }

    /// How many requests have ended, and how many of them with a 5xx, the proxy's own included; not those that another version has failed
    /// before.
    #[must_use]
    pub fn decided_and_failed(&self) -> (u64, u64) {
        let (mut codes, mut reasons) = ([0; SLOTS], [0; Reason::ALL.len()]);
        self.ended().for_each(|tally| tally.add_to(&mut codes, &mut reasons));
        let of_codes = codes.iter().enumerate().map(|(slot, count)| {
            let is_bad = CODES.get(slot).map_or(slot + 1 == SLOTS, |code| *code >= 500);
            (*count, is_bad)
        });
        let of_reasons =
            Reason::ALL.iter().zip(reasons).map(|(reason, count)| (count, reason.status() >= 500));
        of_codes
            .chain(of_reasons)
            .fold((0, 0), |(all, bad), (count, is_bad)| (all + count, if is_bad { bad + count } else { bad }))
    }

    /// How many requests took how long at most, in microseconds; those beyond the last bound are left out.
    pub fn took(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut counts = [0; BOUNDS.len() + 1];
        for tally in self.ended() {
            tally.durations.add_to(&mut counts);
        }
        BOUNDS.into_iter().zip(counts)
    }

    /// Its own requests, each as it has left the version.
    fn ended(&self) -> impl Iterator<Item = &Tally> {
        std::iter::once(&self.both).chain(self.covered.get().map(|covered| &**covered))
    }

    /// Counts an attempt of the version's that the user does not see, because another one is made.
    pub fn record_unseen(&self, outcome: Outcome) {
        self.unseen.get_or_init(Box::default).record(outcome);
    }

    /// Counts what became here of a request that another version answers.
    pub fn record_covered(&self, outcome: Outcome) {
        self.covered.get_or_init(Box::default).record(outcome);
    }

    /// Counts a request that another version had failed: what this one did, and what the user saw, who has waited since that one had it.
    pub fn record_in_place(&self, outcome: Outcome, seen: Outcome) {
        self.record_unseen(outcome);
        self.seen.get_or_init(Box::default).record(seen);
    }

    /// Counts a request that it has failed and another version has answered.
    pub fn shield(&self) {
        bump(&self.shielded, 1);
    }

    /// How many there were.
    #[must_use]
    pub fn shielded(&self) -> u64 {
        self.shielded.load(Ordering::Relaxed)
    }

    /// Counts a copy of another version's request that it was sent.
    pub fn mirror(&self) {
        bump(&self.mirrored, 1);
    }

    /// How many there were.
    #[must_use]
    pub fn mirrored(&self) -> u64 {
        self.mirrored.load(Ordering::Relaxed)
    }

    /// Counts a copy that it answered otherwise than that version did the request.
    pub fn differ(&self) {
        bump(&self.differences, 1);
    }

    /// How many there were.
    #[must_use]
    pub fn differences(&self) -> u64 {
        self.differences.load(Ordering::Relaxed)
    }

    /// Counts a choice among all endpoints because too few serve.
    pub fn panicked(&self) {
        bump(&self.panics, 1);
    }

    /// How many there were.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Counts the status of a gRPC call; `None` is no number, or none was told.
    pub fn record_grpc(&self, code: Option<usize>) {
        let cells = self.grpc.get_or_init(|| Box::new(zeros()));
        let last = GRPC.len() - 1;
        bump(&cells[code.unwrap_or(last).min(last)], 1);
    }

    /// Adds the status of gRPC calls to `totals`; `None` when there were none.
    pub(super) fn add_grpc(&self, totals: &mut Option<[u64; GRPC.len()]>) {
        if let Some(cells) = self.grpc.get() {
            let totals = totals.get_or_insert_default();
            totals.iter_mut().zip(&**cells).for_each(|(total, cell)| *total += cell.load(Ordering::Relaxed));
        }
    }

    /// Counts one that was ended in its protocol's own words, because the version was left.
    pub fn dismiss(&self, kind: Kind) {
        bump(&self.dismissed.get_or_init(|| Box::new(zeros()))[kind as usize], 1);
    }

    /// How many of `kind` were ended so.
    pub(super) fn dismissed(&self, kind: Kind) -> u64 {
        self.dismissed.get().map_or(0, |cells| cells[kind as usize].load(Ordering::Relaxed))
    }

    /// Counts what became of an attempt after the first.
    pub fn retry(&self, retry: Retry) {
        bump(&self.retries.get_or_init(|| Box::new(zeros()))[retry as usize], 1);
    }

    /// Of how many attempts after the first this became.
    pub(super) fn retries(&self, retry: Retry) -> u64 {
        self.retries.get().map_or(0, |cells| cells[retry as usize].load(Ordering::Relaxed))
    }

    /// Counts what became of an attempt beside another.
    pub fn hedge(&self, hedge: Hedge) {
        bump(&self.hedges.get_or_init(|| Box::new(zeros()))[hedge as usize], 1);
    }

    /// Of how many attempts beside another this became.
    pub(super) fn hedges(&self, hedge: Hedge) -> u64 {
        self.hedges.get().map_or(0, |cells| cells[hedge as usize].load(Ordering::Relaxed))
    }

    /// What the version did, in parts to be added up.
    pub(super) fn upstream(&self) -> impl Iterator<Item = &Tally> {
        self.ended().chain(self.unseen.get().map(|unseen| &**unseen))
    }

    /// What users saw.
    pub(super) fn client(&self) -> impl Iterator<Item = &Tally> {
        std::iter::once(&self.both).chain(self.seen.get().map(|seen| &**seen))
    }

    /// One more of this kind in flight.
    pub fn enter(&self, kind: Kind) {
        bump(&self.flow(kind).entered, 1);
    }

    /// One less.
    pub fn leave(&self, kind: Kind) {
        bump(&self.flow(kind).left, 1);
    }

    fn flow(&self, kind: Kind) -> &Flow {
        if kind == Kind::Request { &self.requests } else { &self.kinds[kind as usize] }
    }

    /// How many of `kind` are in flight here.
    #[must_use]
    pub fn in_flight(&self, kind: Kind) -> u64 {
        let flow = self.flow(kind);
        let left = flow.left.load(Ordering::Relaxed);
        flow.entered.load(Ordering::Relaxed).saturating_sub(left)
    }
}
