//! Which endpoint of a pool a request goes to.

use std::sync::Arc;
use std::time::Duration;

use crate::table::BasisPoints;

/// How one of a pool's endpoints is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Balance {
    /// By what; default [`Policy::P2c`].
    pub policy: Policy,
    /// When a smaller share of the pool serves than this, all of it is used, well or not (Envoy's panic threshold). At 0
    /// nobody who does not serve is ever used. Default 0.01 %: when none serves.
    pub panic_threshold: BasisPoints,
    /// Whether endpoints in the proxy's own zone come first, as long as enough of them serve; default true.
    pub zone_preference: bool,
    /// How an endpoint that comes, or comes back, gets its share; default `None`: at once.
    pub slow_start: Option<SlowStart>,
}

impl Default for Balance {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            panic_threshold: BasisPoints::LEAST,
            zone_preference: true,
            slow_start: None,
        }
    }
}

/// By what an endpoint is chosen. Each goes by the endpoints' weights.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// Of two that are drawn by lot, the one with less in flight for its weight.
    #[default]
    P2c,
    /// In turn, evenly interleaved.
    RoundRobin,
    /// By lot.
    Random,
    /// Always the same for the same key, while the pool is the same.
    Hash(Hashing),
    /// Of two that are drawn by lot, the one that will be sooner done, by what was measured (peak EWMA).
    Ewma {
        /// After how long a measurement counts for 37 % (1/e) of what it did; default 10 s.
        decay: Duration,
    },
}

impl Policy {
    /// The default of [`Policy::Ewma`].
    pub const DECAY: Duration = Duration::from_secs(10);
}

/// A consistent hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hashing {
    /// Of what.
    pub key: HashKey,
    /// How much more than its fair part of what is in flight an endpoint takes, in hundredths, from 100 on; what is beyond
    /// goes to the next one of the key. `None`: any amount. Default 125.
    pub bound: Option<u32>,
}

impl Hashing {
    /// The default of `bound`.
    pub const BOUND: u32 = 125;
}

/// What of a request is hashed. A request without it is sent as by [`Policy::P2c`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// A header field's value, by its name in lower case.
    Header(Arc<str>),
    /// A cookie's value, by its name.
    Cookie(Arc<str>),
    /// The client's address.
    Client,
    /// The path, without the query.
    Path,
}

/// How an endpoint's weight grows from its arrival on (Envoy's formula): after t of `duration` it is
/// (t / duration) ^ (1 / curve) of its own, and at least `floor` of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlowStart {
    /// How long it takes.
    pub duration: Duration,
    /// 100 is a straight line, more begins steeper; in hundredths. Default 100.
    pub curve: u32,
    /// The least share of its weight; default 10 %.
    pub floor: BasisPoints,
}

impl SlowStart {
    /// A straight line from 10 % on.
    #[must_use]
    pub fn over(duration: Duration) -> Self {
        Self { duration, curve: 100, floor: BasisPoints::TENTH }
    }
}
