//! Another process takes the place of this one.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which program, and how long it may take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upgrade {
    /// The absolute path of the program; by default the one that this process was started from, as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// How long it may take until it is ready, from `1s` to `10m`; `30s` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "30s")]
    pub timeout: Option<String>,
}

/// Another process serves now, and the one that answers finishes what it has in flight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Upgraded {
    /// The process that serves now.
    pub pid: u32,
    /// How many processes there have been in a row, with it.
    pub generation: u64,
    /// Its program's version.
    pub version: String,
    /// The epoch that it has begun with.
    pub epoch: u64,
    /// How long it took.
    pub seconds: f64,
    /// The process that served before.
    pub predecessor: u32,
}

/// An older process that still has work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Predecessor {
    /// The process.
    pub pid: u32,
    /// Which one in the row it is; null when that is not known: it was left behind by one that has crashed or ended.
    #[serde(default)]
    pub generation: Option<u64>,
    /// Its program's version; null when that is not known.
    #[serde(default)]
    pub version: Option<String>,
    /// False for the first seconds, in which it may still begin requests on connections that it has.
    pub quiet: bool,
    /// Client connections that are open there; null when that is not known, or not yet.
    #[serde(default)]
    pub connections: Option<u64>,
    /// What is in flight there; null when that is not known, or not yet: it may be anything.
    #[serde(default)]
    pub in_flight: Option<u64>,
}
