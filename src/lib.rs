//! switchback.
pub mod table;
pub mod release;
