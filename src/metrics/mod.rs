//! Counters: sharded cells that a worker alone writes, gathered into Prometheus' form when somebody asks.

mod cells;
pub mod names;

pub use cells::{Cells, Histogram, Kind, Outcome, Reason, bump};
