//! What the collector is told when somebody asks for the metrics.

use std::sync::Arc;

use super::cells::Cells;
use super::checks::Checks;
use super::handshake::Handshake;
use super::reason::Reason;
use super::supervision::Compared;
use crate::table::{ServiceName, Table, VersionName};

/// Where the collector gets its inputs from; asked once for each scrape, on the scraper's thread.
pub trait Source: Send + Sync {
    /// Everything at this moment.
    fn inputs(&self) -> Inputs;
}

impl<F: Fn() -> Inputs + Send + Sync> Source for F {
    fn inputs(&self) -> Inputs {
        self()
    }
}

/// One version's time in the table, as far as its metrics go.
pub trait Tenure: Send + Sync {
    /// Unique in this process.
    fn id(&self) -> u64;
    /// The service.
    fn service(&self) -> &ServiceName;
    /// The version.
    fn version(&self) -> &VersionName;
    /// How many requests wait because of its limits.
    fn pending(&self) -> u64;
    /// Shows the cells of each worker that has had a request.
    fn each_cells(&self, see: &mut dyn FnMut(&Cells));
    /// How its endpoints' checks went, if there were any.
    fn checks(&self) -> Option<&Checks>;
}

/// Everything at one moment.
pub struct Inputs {
    /// Epochs and weights.
    pub table: Arc<Table>,
    /// Every tenure whose series are shown: those of the table, and for a while those that are gone.
    ///
    /// Tenures of the same service and version are added up, so one of them may only be left out with all of them.
    pub tenures: Vec<Arc<dyn Tenure>>,
    /// What control counted, by service.
    pub operations: Vec<(ServiceName, Operations)>,
    /// How reading the configuration again has gone.
    pub reloads: Reloads,
    /// What each worker counted that belongs to no version.
    pub edges: Vec<Edge>,
    /// Answers of services that no version was asked for: their limits', and those of holds.
    pub refusals: Vec<(ServiceName, Reason, u64)>,
    /// The certificates that are presented to clients.
    pub certificates: Vec<Certificate>,
    /// How many requests wait, of every service.
    pub held: Vec<(ServiceName, u64)>,
    /// Lines of the access log that were lost.
    pub log_dropped: u64,
    /// How lookups of endpoints' and webhooks' names ended.
    pub lookups: Vec<Lookups>,
    /// Every endpoint of the table.
    pub endpoints: Vec<EndpointState>,
    /// How deliveries to webhooks went.
    pub deliveries: Vec<Deliveries>,
    /// How looking for endpoints went.
    pub finds: Vec<Finds>,
    /// Versions that are compared, or were.
    pub compared: Vec<Compared>,
}

/// How reading the configuration again has gone so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reloads {
    /// What was read is in force.
    pub applied: u64,
    /// What was read is not used.
    pub failed: u64,
    /// The last time was one of those that failed.
    pub is_failed: bool,
}

/// How one endpoint stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointState {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// Its address, as it is configured.
    pub endpoint: String,
    /// True when it gets requests, as far as its health goes.
    pub is_up: bool,
}

/// How looking for the endpoints of a version has gone so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finds {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// How often another list was found.
    pub found: u64,
    /// How often a list could not be used.
    pub failed: u64,
}

/// How the deliveries to one webhook have gone so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deliveries {
    /// Its name.
    pub webhook: String,
    /// Events that it has taken.
    pub delivered: u64,
    /// Those that were given up after the last attempt.
    pub failed: u64,
    /// Those that were never tried: too many waited.
    pub dropped: u64,
    /// Those that wait now.
    pub waiting: u64,
}

/// How the lookups of one name have ended so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookups {
    /// The name, as it is configured.
    pub host: String,
    /// Those that found addresses.
    pub found: u64,
    /// Those that did not: there is no such name, or no name server answered.
    pub failed: u64,
}

/// What control counted of one service.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    /// (kind, actor, how many); name those that never happened too, so that their first one is seen as a rise.
    pub changes: Vec<(&'static str, &'static str, u64)>,
    /// How long publishing took.
    pub fence: Buckets,
    /// How long versions took to drain.
    pub drain: Buckets,
}

/// A histogram as it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Buckets {
    /// (upper bound in seconds, how many were at most so long), ascending, without +Inf.
    pub cumulative: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// All of them together, in seconds.
    pub sum: f64,
}

/// What one worker counted that belongs to no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Open client connections.
    pub connections: u64,
    /// Open streams of HTTP/2 clients.
    pub streams: u64,
    /// How much of its time it works, in per mille.
    pub busy: u64,
    /// Client connections that it has accepted for others.
    pub passed_on: u64,
    /// Client connections ever accepted.
    pub accepted: u64,
    /// Answers without a service, in the order of [`Reason::ALL`].
    pub refused: [u64; Reason::ALL.len()],
    /// TLS handshakes, in the order of [`Handshake::ALL`].
    pub handshakes: [u64; Handshake::ALL.len()],
    /// Requests that were sent on to https.
    pub redirected: u64,
    /// Redirects that routes gave by themselves.
    pub redirects: u64,
    /// Fixed answers that routes gave by themselves.
    pub fixed: u64,
    /// Health checks that were answered for services that were held.
    pub checked: u64,
    /// Requests that were answered because they could go through no more proxies.
    pub ended: u64,
}

impl Default for Edge {
    fn default() -> Self {
        Self {
            connections: 0,
            streams: 0,
            busy: 0,
            passed_on: 0,
            accepted: 0,
            refused: [0; Reason::ALL.len()],
            handshakes: [0; Handshake::ALL.len()],
            redirected: 0,
            redirects: 0,
            fixed: 0,
            checked: 0,
            ended: 0,
        }
    }
}

/// A certificate that a listener presents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The listener's address, as it is configured.
    pub listener: String,
    /// The certificate's file, as it is configured.
    pub file: String,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
}
