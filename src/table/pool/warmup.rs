//! How a version is made ready for traffic that comes all at once.

use std::time::Duration;

/// Connections that are opened beforehand when a version gets weight and had none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Warmup {
    /// To each endpoint from each worker; default 4.
    pub connections: usize,
    /// How long it may take; default 10 s.
    pub duration: Duration,
}

impl Warmup {
    /// The most connections.
    pub const MOST: usize = 64;
}

impl Default for Warmup {
    fn default() -> Self {
        Self { connections: 4, duration: Duration::from_secs(10) }
    }
}
