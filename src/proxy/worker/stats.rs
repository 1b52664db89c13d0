//! What one worker counts for itself.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use crate::metrics::{Handshake, Reason};
use crate::table::ServiceName;

/// How often each service refused a request by itself, and why.
type Refusals = BTreeMap<ServiceName, BTreeMap<Reason, u64>>;

/// What one worker counts that belongs to no version. Written by it alone, read by the collector.
#[derive(Debug)]
pub struct WorkerStats {
    /// Open client connections, with those on their way to it from [another worker](super::posts), which counts them.
    pub connections: AtomicU64,
    /// Streams of its HTTP/2 connections, as of its last tick.
    pub streams: AtomicU64,
    /// How much of its thread's time it has worked in about the last second, in per mille.
    pub busy: AtomicU64,
    /// Connections that it has accepted for other workers.
    pub passed_on: AtomicU64,
    /// Client connections ever accepted.
    pub accepted: AtomicU64,
    /// Answers without a service, by reason, in the order of [`Reason::ALL`].
    pub refused: [AtomicU64; Reason::ALL.len()],
    /// Answers of services without a version. Behind a lock that the collector alone asks for besides: they are rare, and
    /// who has a million of them a second has them for nothing.
    by_service: Mutex<Refusals>,
    /// TLS handshakes by how they ended, in the order of [`Handshake::ALL`].
    pub handshakes: [AtomicU64; Handshake::ALL.len()],
    /// Requests that were sent on to https.
    pub redirected: AtomicU64,
    /// Redirects that routes gave by themselves.
    pub redirects: AtomicU64,
    /// Fixed answers that routes gave by themselves.
    pub fixed: AtomicU64,
    /// Health checks that were answered for services that were held.
    pub checked: AtomicU64,
    /// Requests that were answered because they could go through no more proxies.
    pub ended: AtomicU64,
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self {
            connections: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            passed_on: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            by_service: Mutex::default(),
            handshakes: [const { AtomicU64::new(0) }; Handshake::ALL.len()],
            redirected: AtomicU64::new(0),
            redirects: AtomicU64::new(0),
            fixed: AtomicU64::new(0),
            checked: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        }
    }
}

impl WorkerStats {
    /// Counts an answer of `service` that no version was asked for.
    pub(super) fn refused_by(&self, service: &ServiceName, reason: Reason) {
        let mut all = self.by_service.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(service.clone()).or_default().entry(reason).or_default() += 1;
    }

    /// How often each service refused a request by itself, and why.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        self.by_service.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
