//! What the endpoints of one version did, on one worker.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Most versions have no more endpoints than this.
const FEW: usize = 16;
/// So many more are told apart where that is not enough,
const MANY: usize = 1 << 10;
/// each of them looked for in so many places.
const PLACES: usize = 8;

/// The counts of each endpoint. One that finds no place any more is counted with its version alone.
#[derive(Default)]
pub(super) struct Endpoints {
    few: [OfEndpoint; FEW],
    /// Made when it is needed.
    many: OnceLock<Box<[OfEndpoint]>>,
}

#[derive(Default)]
struct OfEndpoint {
    /// 0: the place is free. Written once.
    id: AtomicU64,
    decided: AtomicU32,
    failed: AtomicU32,
    /// When it was asked for the first time, and 1; 0: it was not.
    asked: AtomicU64,
}

impl Endpoints {
    /// One more answer of the endpoint, or one that was not; how many there were before, and [`u32::MAX`] if that is not known.
    pub(super) fn count(&self, id: u64, has_failed: bool) -> u32 {
        self.place(id).map_or(u32::MAX, |place| place.count(has_failed))
    }

    /// An answer of the endpoint that was counted as good has failed.
    pub(super) fn broke_off(&self, id: u64) {
        if let Some(place) = self.place(id) {
            bump(&place.failed);
        }
    }

    /// For how long the endpoint is asked and has not answered once; it is asked now.
    pub(super) fn silence(&self, id: u64, now: u64) -> u64 {
        self.place(id).map_or(0, |place| place.silence(now))
    }

    /// How many answers of the endpoint there were; [`u32::MAX`] if that is not known.
    pub(super) fn met(&self, id: u64) -> u32 {
        self.place(id).map_or(u32::MAX, |place| place.decided.load(Ordering::Relaxed))
    }

    /// Tells id, decided and failed of each endpoint.
    pub(super) fn each(&self, tell: impl FnMut((u64, u64, u64))) {
        let many = self.many.get().into_iter().flatten();
        self.few.iter().chain(many).filter_map(OfEndpoint::read).for_each(tell);
    }

    fn place(&self, id: u64) -> Option<&OfEndpoint> {
        let few = self.few.iter().find(|place| place.is_for(id));
        let place = few.or_else(|| {
            let many = self.many.get_or_init(|| (0..MANY).map(|_| OfEndpoint::default()).collect());
            // Ids are given one after the other.
            let first = usize::try_from(id % MANY as u64).unwrap_or(0);
            let places = (0..PLACES).map(|next| &many[(first + next) % MANY]);
            places.into_iter().find(|place| place.is_for(id))
        })?;
        // Its counts come after it, and pair with the loads in `read`.
        place.id.store(id, Ordering::Relaxed);
        Some(place)
    }
}

impl OfEndpoint {
    fn is_for(&self, id: u64) -> bool {
        matches!(self.id.load(Ordering::Relaxed), known if known == id || known == 0)
    }

    fn silence(&self, now: u64) -> u64 {
        let known = self.asked.load(Ordering::Relaxed);
        let first = if known == 0 { now + 1 } else { known };
        // Its worker alone reads it.
        self.asked.store(first, Ordering::Relaxed);
        let has_answered = self.decided.load(Ordering::Relaxed) > 0;
        if has_answered { 0 } else { (now + 1).saturating_sub(first) }
    }

    fn count(&self, has_failed: bool) -> u32 {
        let before = self.decided.load(Ordering::Relaxed);
        bump(&self.decided);
        if has_failed {
            bump(&self.failed);
        }
        before
    }

    fn read(&self) -> Option<(u64, u64, u64)> {
        // Parts before what they are a part of: failed is never more.
        let failed = self.failed.load(Ordering::Acquire);
        let decided = self.decided.load(Ordering::Acquire);
        let id = self.id.load(Ordering::Acquire);
        (id != 0).then(|| (id, u64::from(decided), u64::from(failed)))
    }
}

fn bump(cell: &AtomicU32) {
    cell.store(cell.load(Ordering::Relaxed).saturating_add(1), Ordering::Release);
}
