//! One version's counters of health checks and of endpoints that were left alone, written by control alone.

use std::sync::atomic::{AtomicU64, Ordering};

use super::cells::{Histogram, bump};
use crate::table::pool::outliers::Cause;

/// How the checks of one version's endpoints went. Single writer.
#[derive(Debug, Default)]
pub struct Checks {
    well: AtomicU64,
    unwell: AtomicU64,
    /// In the order of [`Cause::ALL`].
    ejected: [AtomicU64; Cause::ALL.len()],
    pub(super) durations: Histogram,
}

impl Checks {
    /// Counts a check and how long it took, in microseconds.
    pub fn record(&self, is_well: bool, micros: u64) {
        bump(if is_well { &self.well } else { &self.unwell }, 1);
        self.durations.observe(micros);
    }

    /// Counts an ejection.
    pub fn ejected(&self, cause: Cause) {
        bump(&self.ejected[cause as usize], 1);
    }

    /// Ejections by cause, in the order of [`Cause::ALL`].
    pub(super) fn ejections(&self) -> [u64; Cause::ALL.len()] {
        Cause::ALL.map(|cause| self.ejected[cause as usize].load(Ordering::Relaxed))
    }

    /// Those that found an endpoint well, and those that did not.
    pub(super) fn results(&self) -> [u64; 2] {
        // Relaxed, as with all cells: read a little late.
        [&self.well, &self.unwell].map(|cell| cell.load(Ordering::Relaxed))
    }
}
