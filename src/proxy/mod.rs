//! DATA PLANE

/// The atomics of the admission protocol; the loom model puts its own in their place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}
pub mod admission;
pub mod live;
pub mod permit;
pub mod clock;
pub mod headers;
pub mod upstream;
