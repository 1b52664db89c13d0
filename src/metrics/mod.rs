//! Counters: sharded cells that a worker alone writes, gathered into Prometheus' form when somebody asks.
//!
//! This room knows only the table. What it shows belongs to the data plane and to control: they implement [`Tenure`]
//! and fill [`Inputs`], and whoever wires the process hands an [`Exposition`] its [`Source`]. So nothing here imports
//! the rooms that import this one.

mod cells;
mod checks;
mod collector;
mod family;
mod handshake;
mod inputs;
mod kind;
pub mod names;
mod process;
mod reason;
mod retry;
mod sums;
pub mod supervision;

pub use cells::{Cells, GRPC_FAILURES, Histogram, Outcome, bump};
pub use checks::Checks;
pub use collector::Exposition;
pub use handshake::Handshake;
pub use inputs::{
    Buckets, Certificate, Deliveries, Edge, EndpointState, Finds, Inputs, Lookups, Operations, Reloads,
    Source, Tenure,
};
pub use kind::Kind;
pub use reason::Reason;
pub use retry::{Hedge, Retry};
