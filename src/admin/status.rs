//! What the process tells about itself: filled in by the wiring, read by the API.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderName;
use ipnet::IpNet;
use tokio::time::Instant;

use super::api;
use crate::control::elders::Elder;
use crate::table::Epoch;

/// Shared between the wiring, which knows, and the API, which tells.
#[derive(Debug)]
pub struct Status {
    started: Instant,
    workers: usize,
    cpus: Vec<usize>,
    generation: u64,
    changing: Mutex<Changing>,
}

#[derive(Debug)]
struct Changing {
    readiness: Readiness,
    listeners: Vec<api::Listener>,
    admin: Option<api::Listener>,
    taken_out: TakenOut,
    trusted: Vec<IpNet>,
}

/// What the proxy takes out of every request before it looks at it.
#[derive(Debug, Clone, Default)]
pub struct TakenOut {
    /// What becomes of fields with an underscore in their name.
    pub underscores: Underscores,
    /// The fields in which listeners tell whose certificate was verified: nobody else does.
    pub subjects: Arc<[HeaderName]>,
}

/// What becomes of a request's fields with an underscore in their name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underscores {
    /// They are taken out.
    #[default]
    Drop,
    /// They pass.
    Allow,
    /// The request is refused.
    Reject,
}

/// May a load balancer in front send traffic here?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet: listeners or state are still missing.
    Starting,
    /// Yes.
    Ready,
    /// No more: it winds down.
    Stopping,
}

impl Readiness {
    pub(super) fn token(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
        }
    }
}

impl Status {
    /// A process that starts now, with so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self::of(workers, 1)
    }

    /// The same, of a process that is not the first in a row.
    #[must_use]
    pub fn of(workers: usize, generation: u64) -> Self {
        let (readiness, taken_out) = (Readiness::Starting, TakenOut::default());
        let (listeners, trusted) = (Vec::new(), Vec::new());
        let changing = Changing { readiness, listeners, admin: None, taken_out, trusted };
        Self {
            started: Instant::now(),
            workers,
            cpus: Vec::new(),
            generation,
            changing: Mutex::new(changing),
        }
    }

    /// Each worker stays on one of these CPUs.
    #[must_use]
    pub fn pinned(self, cpus: Vec<usize>) -> Self {
        Self { cpus, ..self }
    }

    /// From now on `/readyz` says this.
    pub fn set_readiness(&self, readiness: Readiness) {
        self.changing().readiness = readiness;
    }

    /// The listening sockets, in the order of the configuration, and that of the admin API over TCP.
    pub fn set_listeners(&self, listeners: Vec<api::Listener>, admin: Option<api::Listener>) {
        let mut changing = self.changing();
        (changing.listeners, changing.admin) = (listeners, admin);
    }

    /// What the workers take out from now on, and the networks whom any listener trusts.
    pub fn set_belief(&self, taken_out: TakenOut, trusted: Vec<IpNet>) {
        let mut changing = self.changing();
        (changing.taken_out, changing.trusted) = (taken_out, trusted);
    }

    pub(super) fn taken_out(&self) -> TakenOut {
        self.changing().taken_out.clone()
    }

    /// True when any listener believes who comes from there.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.changing().trusted.iter().any(|net| net.contains(&address))
    }

    pub(super) fn readiness(&self) -> Readiness {
        self.changing().readiness
    }

    pub(super) fn told(&self, epoch: Epoch, elders: &[Elder]) -> api::Status {
        let changing = self.changing();
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: epoch.0,
            uptime_seconds: self.started.elapsed().as_secs(),
            pid: std::process::id(),
            workers: self.workers,
            cpus: self.cpus.clone(),
            listeners: changing.listeners.clone(),
            admin: changing.admin.clone(),
            ready: changing.readiness == Readiness::Ready,
            generation: self.generation,
            predecessors: elders.iter().map(predecessor).collect(),
        }
    }

    fn changing(&self) -> std::sync::MutexGuard<'_, Changing> {
        // Plain values: whole even if a holder panicked.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn predecessor(elder: &Elder) -> api::Predecessor {
    api::Predecessor {
        pid: elder.pid,
        generation: elder.generation,
        version: elder.program.clone(),
        quiet: elder.is_quiet,
        connections: elder.told.as_ref().map(|told| told.connections),
        in_flight: elder.told.as_ref().map(|told| told.left.iter().map(|left| left.work.count).sum()),
    }
}
