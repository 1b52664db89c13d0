//! A version's tenure: the handle that lives as long as the version is in the table, or still has work.

pub mod pool;
pub mod stream;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub use pool::{Endpoint, Local};
pub use stream::Stream;

use super::admission::{Counts, in_flight};
use crate::metrics::{Cells, Tenure};
use crate::table::{ServiceName, VersionName};

/// One version's time in the table: its counts and its metrics, a shard a worker.
///
/// A version that is removed and comes again gets a new tenure.
#[derive(Debug)]
pub struct Upstream {
    /// Unique in this process; the key of the workers' own parts.
    pub id: u64,
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    shards: Box<[Shard]>,
}

/// One worker's part; 128 bytes apart so that no two workers write to the same pair of cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Shard {
    /// Requests in flight.
    pub counts: Counts,
    /// Metrics, made at the first request: a version without traffic costs nothing.
    cells: OnceLock<Box<Cells>>,
}

impl Shard {
    /// This worker's metric cells of the version.
    pub fn cells(&self) -> &Cells {
        self.cells.get_or_init(Box::default)
    }
}

impl Upstream {
    /// The tenure of `version` on `workers` workers.
    #[must_use]
    pub fn open(service: ServiceName, version: VersionName, workers: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Relaxed: only uniqueness matters.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let shards = (0..workers).map(|_| Shard::default()).collect();
        Self { id, service, version, shards }
    }

    /// One worker's part.
    #[must_use]
    pub fn shard(&self, worker: usize) -> &Shard {
        &self.shards[worker]
    }

    /// Requests, streams and tunnels in flight on all workers; never fewer than there are.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        in_flight(self.shards.iter().map(|shard| &shard.counts))
    }

    /// The metric cells of the workers that have had a request.
    pub fn cells(&self) -> impl Iterator<Item = &Cells> {
        self.shards.iter().filter_map(|shard| shard.cells.get()).map(|cells| &**cells)
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
    fn each_cells(&self, see: &mut dyn FnMut(&Cells)) {
        self.cells().for_each(see);
    }
}
