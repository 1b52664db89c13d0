//! switchback.
pub mod config;
pub mod control;
pub mod metrics;
pub mod proxy;
pub mod release;
pub mod store;
pub mod table;
