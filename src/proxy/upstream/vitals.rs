//! How an endpoint of a version fares, as the whole process knows: what its checks and its requests say.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use super::Upstream;
use super::suspects::Member;
use super::suspicion::{Conduct, Heard, Sums, Suspicion, Tally, Watched};
use crate::proxy::clock;
use crate::table::EndpointAddr;
use crate::table::pool::outliers::Cause;

/// Whether an endpoint gets new requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Standing {
    /// It was not checked yet, or is never: it counts as well.
    #[default]
    Unchecked,
    /// It came while others serve, and was not found well yet.
    Arriving,
    /// Its checks find it well.
    Up,
    /// Its checks find it unwell.
    Down,
    /// Its requests went badly, and it is left alone for a time.
    Ejected,
}

impl Standing {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Unchecked, Self::Arriving, Self::Up, Self::Down, Self::Ejected];

    /// The word for it.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Unchecked => "unchecked",
            Self::Arriving => "arriving",
            Self::Up => "up",
            Self::Down => "down",
            Self::Ejected => "ejected",
        }
    }

    /// True when it gets new requests.
    #[must_use]
    pub fn serves(self) -> bool {
        matches!(self, Self::Unchecked | Self::Up)
    }
}

/// What is looked for in the attempts with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Watching {
    /// Nothing.
    #[default]
    Nothing,
    /// How they end.
    Ends,
    /// How long they take, too.
    Times,
}

/// What is known of one endpoint in one tenure of a version. Its standing is written by control and read by the workers, its
/// conduct the other way round.
#[derive(Debug)]
pub struct Vitals {
    id: u64,
    /// The number of the room in which its requests are counted, if they are: shared with those that it had before it went and came
    /// back, as long as one of them has requests.
    room: Arc<u64>,
    standing: AtomicU8,
    /// Since when it serves, in milliseconds from [`START`] on, plus one; 0: from the pool's beginning.
    since: AtomicU64,
    watched: Watched,
    conduct: Conduct,
    /// Whose endpoint it is: its workers are told when it stands differently.
    of: Weak<Upstream>,
}

impl Vitals {
    /// A number that no other endpoint of this process has, or ever had: what is counted under it is nobody else's.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The number of the room in which its requests are counted; no other endpoint of this process has it, or ever had.
    pub(super) fn room(&self) -> &Arc<u64> {
        &self.room
    }

    /// Of an endpoint of a tenure, of which nothing is known yet but the `room` that it had before, if it has requests there.
    #[must_use]
    pub fn new(upstream: &Arc<Upstream>, address: EndpointAddr, room: Option<Arc<u64>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: it only has to differ.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            room: room.unwrap_or_else(|| Arc::new(id)),
            standing: AtomicU8::default(),
            since: AtomicU64::new(0),
            watched: Watched::default(),
            conduct: Conduct::new(Member {
                service: upstream.service.clone(),
                version: upstream.version.clone(),
                tenure: upstream.id,
                address,
            }),
            of: Arc::downgrade(upstream),
        }
    }

    /// Whether it gets new requests.
    #[must_use]
    pub fn standing(&self) -> Standing {
        // Relaxed: whoever needs the newest has read the tenure's revision before, which orders it.
        Standing::ALL.get(usize::from(self.standing.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// It stands like this from now on, which is `at`; the workers see it with their next choice.
    pub fn set_standing(&self, standing: Standing, at: Instant) {
        let before = self.standing();
        if before != standing {
            if standing.serves() && !before.serves() {
                self.set_since(at);
            }
            self.standing.store(standing as u8, Ordering::Relaxed);
            // After the standing was written: who sees the new revision sees that too.
            self.of.upgrade().inspect(|upstream| upstream.revise());
        }
    }

    /// It has just come to a pool that serves.
    pub(super) fn arrive(&self, at: Instant) {
        self.set_since(at);
        self.of.upgrade().inspect(|upstream| upstream.revise());
    }

    /// Since when it serves; `None`: as long as its pool.
    #[must_use]
    pub fn since(&self) -> Option<Instant> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        START.checked_add(Duration::from_millis(since))
    }

    fn set_since(&self, at: Instant) {
        let since = at.saturating_duration_since(*START).as_millis();
        self.since.store(u64::try_from(since).unwrap_or(u64::MAX - 1) + 1, Ordering::Relaxed);
    }

    /// An attempt with it ended so; true when how long it took matters too.
    ///
    /// A load, where nothing is looked for and where all is well.
    pub fn hear(&self, heard: Heard) -> bool {
        if !self.watched.is_watched.load(Ordering::Relaxed) {
            return false;
        }
        if heard != Heard::Good || !self.watched.is_good.load(Ordering::Relaxed) {
            self.conduct.hear(&self.watched, heard);
        }
        self.is_measured()
    }

    /// What is looked for in its attempts.
    #[must_use]
    pub fn watching(&self) -> Watching {
        match (self.watched.is_watched.load(Ordering::Relaxed), self.is_measured()) {
            (false, _) => Watching::Nothing,
            (true, false) => Watching::Ends,
            (true, true) => Watching::Times,
        }
    }

    fn is_measured(&self) -> bool {
        self.watched.is_measured.load(Ordering::Relaxed)
    }

    /// Where a worker counts its attempts, if how long they take matters.
    #[must_use]
    pub fn tally(&self) -> Arc<Tally> {
        self.conduct.tally()
    }

    /// All workers' tallies together.
    #[must_use]
    pub fn sums(&self) -> Sums {
        self.conduct.sums()
    }

    /// From now on this is looked for; the workers see it with their next choice.
    pub fn watch(&self, suspicion: Option<&Suspicion>) {
        let before = self.watching();
        self.conduct.watch(&self.watched, suspicion);
        if self.watching() != before {
            self.of.upgrade().inspect(|upstream| upstream.revise());
        }
    }

    /// How many attempts in a row have failed so.
    #[must_use]
    pub fn row(&self, cause: Cause) -> u32 {
        self.conduct.row(cause)
    }

    /// True when the last that was heard of it was a good answer; it is not when nothing was.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.watched.is_good.load(Ordering::Relaxed)
    }

    /// Control has looked at it: what happens from now on is told again.
    pub fn looked(&self) {
        self.conduct.looked();
    }

    /// Nothing of before counts any more.
    pub fn forgive(&self) {
        self.conduct.forgive(&self.watched);
    }
}

/// What times are told from.
static START: LazyLock<Instant> = LazyLock::new(clock::now);
