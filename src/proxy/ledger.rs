//! What the workers count for supervision, and nothing else: which version a request's coin chose, how its first attempt ended,
//! and how long the head of its answer took.
//!
//! A ledger is one comparison's; a [`Page`] of it is one worker's, who alone writes it, plainly. What is made of it is decided
//! elsewhere. Requests of a service that nobody watches know nothing of all this.

mod endpoints;
mod entry;
mod flight;
mod out;
mod page;
mod quiet;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use entry::{Drawn, Entry, is_failure};
pub use flight::LATELY;
pub use out::SLOWLY;
pub use page::{Counted, GENERATIONS, Page, Sums};

use quiet::{Bad, Quiet, Slot};

use super::{atomic, clock};
use crate::table::{Service, SuperviseRules, VersionName, Watch};

/// Which of the two versions that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that serves as the measure.
    Baseline,
    /// The one that is tried.
    Candidate,
}

/// The quantiles of the baseline's speed at which the two are compared.
pub const QUANTILES: usize = 3;

/// The first bucket that is slow: for each side, at each quantile.
pub type Slow = [[u16; QUANTILES]; 2];

/// One comparison's counts.
#[derive(Debug)]
pub struct Ledger {
    /// Who is compared; its generation is that at which the ledger was opened.
    pub watch: Watch,
    shared: Arc<Shared>,
    pages: Box<[OnceLock<Arc<Page>>]>,
}

/// What all workers read, and write only when something fails.
pub(super) struct Shared {
    begun: Instant,
    /// The newest generation that any request was counted for.
    newest: AtomicU32,
    /// Since when it is known what is slow, in microseconds since the beginning, and what.
    slow: OnceLock<(u64, Slow)>,
    /// How many answers of an endpoint come before its speed counts.
    grace: u32,
    /// For how long who has not answered once may be getting warm, in microseconds.
    patience: u64,
    /// Since when it matters whether the baseline still answers; microseconds since the beginning.
    mark: AtomicU64,
    /// So many failures of the candidate in a row blow the fuse; 0: there is none.
    fuse: AtomicU8,
    in_a_row: AtomicU32,
    is_blown: AtomicBool,
    /// What which clients have asked the candidate for, or met with it, and in which second; made with the first of it.
    clients: OnceLock<Box<[AtomicU32]>>,
    /// What each client counts for, where the coin is the client's; `None` where nobody stays with a version.
    quiet: Option<Quiet>,
}

/// A client counts as one of so many.
const CLIENTS: usize = 1 << 16;
/// How many bad answers of each kind to one client in a second count.
const MOST_A_SECOND: u32 = 2;
/// So many bits of a client's word count those: two for each kind. The rest are the second.
const MET: u32 = 12;
/// The place among them of what is in flight, after the kinds of what is bad.
const ASKED: usize = Bad::KINDS;
const _: () = assert!(2 * (ASKED + 1) == MET as usize, "each has its place");

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("begun", &self.begun).finish_non_exhaustive()
    }
}

/// How long an endpoint of the candidate may take that is not warm yet: half of the time in which nobody's speed counts.
///
/// What never answers after a flip is suspect then, and proven once speed counts. No longer than 10 s: it has to be known for how
/// long somebody is out.
#[must_use]
pub fn patience(rules: &SuperviseRules) -> Duration {
    (rules.warmup.0 / 2).min(Duration::from_secs(10))
}

/// How the requests of one version are counted: a part of a lane.
#[derive(Debug, Clone)]
pub struct Counting {
    /// Where.
    pub ledger: Arc<Ledger>,
    /// Under which weights the coin is thrown.
    generation: u32,
    side: Side,
}

impl Counting {
    /// How those of `version` are counted, if they are: in the ledger there was `before`, as long as the comparison is the same.
    #[must_use]
    pub fn of(service: &Service, version: &VersionName, ledger: Option<&Arc<Ledger>>) -> Option<Self> {
        let watch = service.watch.as_ref()?;
        let side = match version {
            name if *name == watch.baseline => Side::Baseline,
            name if Some(name) == watch.candidate.as_ref() => Side::Candidate,
            _ => return None,
        };
        Some(Self { ledger: Arc::clone(ledger?), generation: watch.generation, side })
    }
}

impl Ledger {
    /// The ledger of a service on `workers` workers, if it is watched: that of `before` as long as the comparison is the same.
    #[must_use]
    pub fn of(service: &Service, before: Option<&Arc<Self>>, workers: usize) -> Option<Arc<Self>> {
        let watch = service.watch.as_ref()?;
        let same = before.filter(|before| before.watch.goes_on(watch));
        let same = same.filter(|before| before.is_by_client() == is_by_client(service, watch));
        Some(same.map_or_else(|| Arc::new(Self::open(service, watch.clone(), workers)), Arc::clone))
    }

    fn open(service: &Service, watch: Watch, workers: usize) -> Self {
        let rules = service.supervise.clone().unwrap_or_default();
        let shared = Shared {
            begun: clock::now(),
            newest: AtomicU32::new(watch.generation),
            slow: OnceLock::new(),
            grace: rules.warmup.1,
            patience: u64::try_from(patience(&rules).as_micros()).unwrap_or(u64::MAX),
            mark: AtomicU64::new(u64::MAX),
            fuse: AtomicU8::new(0),
            in_a_row: AtomicU32::new(0),
            is_blown: AtomicBool::new(false),
            clients: OnceLock::new(),
            quiet: is_by_client(service, &watch).then(|| Quiet::new(rules.sticky_quiet)),
        };
        let pages = (0..workers).map(|_| OnceLock::new()).collect();
        Self { watch, shared: Arc::new(shared), pages }
    }

    fn page(&self, worker: usize) -> &Arc<Page> {
        self.pages[worker].get_or_init(|| Arc::new(Page::new(Arc::clone(&self.shared))))
    }

    /// True when the coin may be a client's, and not a request's: then each client counts but once.
    #[must_use]
    pub fn is_by_client(&self) -> bool {
        self.shared.quiet.is_some()
    }

    /// About how many clients came so far; `None` where nobody stays with a version. Requests with a coin of their own are
    /// clients of their own.
    #[must_use]
    pub fn clients(&self) -> Option<u64> {
        let pages = self.pages.iter().filter_map(OnceLock::get);
        self.is_by_client().then(|| quiet::count(pages.filter_map(|page| page.clients())))
    }

    /// When it was opened.
    #[must_use]
    pub fn begun(&self) -> Instant {
        self.shared.begun
    }

    /// What all workers have counted so far.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        self.pages.iter().filter_map(OnceLock::get).for_each(|page| page.add_to(&mut sums));
        sums
    }

    /// How many first attempts have been decided so far, of all: whether it is worth to look at the rest.
    #[must_use]
    pub fn decided(&self) -> u64 {
        self.pages.iter().filter_map(OnceLock::get).map(|page| page.all_decided()).sum()
    }

    /// What the endpoints of one side have done: id, decided and failed, by id. Of more than a thousand not all are told apart.
    #[must_use]
    pub fn endpoints(&self, side: Side) -> Vec<(u64, u64, u64)> {
        let mut all: Vec<(u64, u64, u64)> = Vec::new();
        let pages = self.pages.iter().filter_map(OnceLock::get);
        pages.for_each(|page| page.each_endpoint(side, |endpoint| all.push(endpoint)));
        all.sort_unstable();
        all.dedup_by(|more, sum| {
            let is_same = more.0 == sum.0;
            if is_same {
                (sum.1, sum.2) = (sum.1 + more.1, sum.2 + more.2);
            }
            is_same
        });
        all
    }

    /// An answer to what is asked from now on is slow from these buckets on; the first word stays.
    ///
    /// What was asked before counts neither way: of that only the slow ones are still out.
    pub fn set_slow(&self, slow: Slow) {
        self.shared.slow.get_or_init(|| (micros(self.shared.begun, clock::now()), slow));
    }

    /// What is slow, once that is known.
    #[must_use]
    pub fn slow(&self) -> Option<&Slow> {
        self.shared.slow.get().map(|(_, slow)| slow)
    }

    /// Since when that is known, in microseconds since the ledger's beginning.
    #[must_use]
    pub fn slow_since(&self) -> Option<u64> {
        self.shared.slow.get().map(|(since, _)| *since)
    }

    /// From now on it matters whether the baseline answers what it is asked.
    pub fn mark(&self) {
        self.shared.mark.store(micros(self.shared.begun, clock::now()), Ordering::Relaxed);
    }

    /// So many failures of the candidate in a row blow the fuse.
    pub fn arm(&self, length: u8) {
        self.shared.in_a_row.store(0, Ordering::Relaxed);
        self.shared.is_blown.store(false, Ordering::Relaxed);
        self.shared.fuse.store(length, Ordering::Relaxed);
    }

    /// True once, when the fuse has blown.
    #[must_use]
    pub fn has_blown(&self) -> bool {
        self.shared.is_blown.swap(false, Ordering::Relaxed)
    }
}

/// True when clients of the service stay with a version, and two are compared.
fn is_by_client(service: &Service, watch: &Watch) -> bool {
    service.sticky.is_some() && watch.candidate.is_some()
}

impl Shared {
    /// From which buckets on an answer of this side is slow, once that is known.
    fn slow_from(&self, side: Side) -> Option<[u16; QUANTILES]> {
        self.slow.get().map(|(_, slow)| slow[side as usize])
    }

    /// True for what was begun since it is known what is slow.
    fn compares(&self, begun: u64) -> bool {
        self.slow.get().is_some_and(|(since, _)| begun >= *since)
    }

    /// True when what this client meets now says nothing new, because it has met the same just before.
    fn is_repeated(&self, client: Option<Slot>, bad: Bad) -> bool {
        let known = self.quiet.as_ref().zip(client);
        known.is_some_and(|(quiet, client)| quiet.is_repeated(client, bad, micros(self.begun, clock::now())))
    }

    /// The candidate did something bad to this client: true when it counts, because the client has not met more of the kind just now.
    fn counts_for(&self, client: u16, bad: Bad, now: u64) -> bool {
        self.is_one_of_few(client, bad.index(), now)
    }

    /// This client asks the candidate for something: true when it counts while nothing has come of it, because it is not the
    /// client's third in this second. Most clients have no more, so what is written here is seldom another worker's.
    fn counts_while_out(&self, client: u16, now: u64) -> bool {
        self.is_one_of_few(client, ASKED, now)
    }

    fn is_one_of_few(&self, client: u16, kind: usize, now: u64) -> bool {
        let clients = self.clients.get_or_init(|| (0..CLIENTS).map(|_| AtomicU32::new(0)).collect());
        let slot = &clients[usize::from(client)];
        // It comes round after some days, and is the same only for who was last here in that very second.
        let second = u32::try_from(now / 1_000_000 % (1 << (u32::BITS - MET))).unwrap_or(0);
        let before = slot.load(Ordering::Relaxed);
        let met = if before >> MET == second { before % (1 << MET) } else { 0 };
        let place = 2 * kind;
        if (met >> place) % 4 >= MOST_A_SECOND {
            return false;
        }
        // Two workers at once may both count: it is a bound on what one client does, not a sum.
        slot.store(second << MET | (met + (1 << place)), Ordering::Relaxed);
        true
    }

    fn candidate_failed(&self) {
        let length = u32::from(self.fuse.load(Ordering::Relaxed));
        let failures = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        if length > 0 && failures == length {
            self.is_blown.store(true, Ordering::Relaxed);
        }
    }

    fn candidate_answered(&self) {
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
    }
}

fn micros(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
