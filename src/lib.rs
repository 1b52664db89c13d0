//! switchback.
pub mod table;
pub mod release;
pub mod proxy;
pub mod control;
pub mod store;
pub mod config;
pub mod metrics;
