//! The gate of one hold: how many wait at it, and whether it is closed, sealed or open.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::Method;
use tokio::sync::Notify;

use crate::proxy::admission::Latch;
use crate::proxy::clock;
use crate::table::{Hold, HoldLimits, Service};

/// Why a gate is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A change was published after which nothing is held.
    Released,
    /// Too many requests waited.
    Requests,
    /// Their heads were too large together.
    Bytes,
    /// Its time was over.
    Time,
    /// The process stops.
    Stopping,
    /// The flip that would have ended it could not be made.
    Store,
}

impl Ended {
    const ALL: [Self; 6] =
        [Self::Released, Self::Requests, Self::Bytes, Self::Time, Self::Stopping, Self::Store];
}

/// One hold of one service.
#[derive(Debug)]
pub struct Gate {
    hold: Hold,
    limits: Arc<HoldLimits>,
    /// When it was closed.
    pub since: Instant,
    latch: Latch,
    waiting: AtomicUsize,
    bytes: AtomicU64,
    /// All that have waited here so far.
    came: AtomicU64,
    /// When it was first seen open.
    open_since: OnceLock<Instant>,
    /// Notified when it opens.
    pub(super) opened: Notify,
    /// Whom to tell when it opens by itself.
    alert: OnceLock<Arc<Notify>>,
}

impl Gate {
    fn new(hold: Hold, limits: Arc<HoldLimits>) -> Self {
        Self {
            hold,
            limits,
            since: clock::now(),
            latch: Latch::new(),
            waiting: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            came: AtomicU64::new(0),
            open_since: OnceLock::new(),
            opened: Notify::new(),
            alert: OnceLock::new(),
        }
    }

    /// Which hold it is.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.hold
    }

    /// What it is bounded by.
    #[must_use]
    pub fn limits(&self) -> &HoldLimits {
        &self.limits
    }

    /// When its time is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.since + self.hold.timeout
    }

    /// How many requests wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        // Relaxed, here and below: the numbers alone matter, they order nothing else.
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many have waited, those included that still do.
    #[must_use]
    pub fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }

    /// Why it is open, if it is.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        Ended::ALL.get(usize::try_from(self.latch.reason()?).ok()?).copied()
    }

    /// How much longer those who have waited here wait for room too, where the limits of their service or version leave them none
    /// at once: as long again as the hold might have lasted, from its end on. None while it is closed.
    #[must_use]
    pub fn patience(&self) -> Duration {
        if self.ended().is_none() {
            return Duration::ZERO;
        }
        let until = *self.open_since.get_or_init(clock::now) + self.hold.timeout;
        until.saturating_duration_since(clock::now())
    }

    /// True when somebody who comes now may wait behind those who have waited here and still do: as many again as may wait here.
    #[must_use]
    pub fn has_room_behind(&self) -> bool {
        let HoldLimits { requests, bytes, .. } = *self.limits;
        let is_full = self.waiting() >= requests.saturating_mul(2)
            || self.bytes.load(Ordering::Relaxed) >= bytes.saturating_mul(2);
        self.waiting() > 0 && !is_full && !self.patience().is_zero()
    }

    /// From now on it is opened by [`Gate::open`] alone; false when it is open already, and somebody may have passed.
    #[must_use]
    pub fn seal(&self) -> bool {
        self.latch.seal()
    }

    /// Opens it, unless it is open, and wakes everybody. After the change that releases the service, or instead of it.
    pub fn open(&self, why: Ended) {
        self.latch.open(why as u64);
        self.opened.notify_waiters();
    }

    /// Opens it because of a bound, unless it is sealed or open, and tells control.
    pub fn burst(&self, why: Ended) {
        if self.latch.burst(why as u64) {
            self.opened.notify_waiters();
            self.alert.get().inspect(|alert| alert.notify_one());
        }
    }

    /// Tells `alert` when it opens by itself, or has opened.
    pub fn watch(&self, alert: &Arc<Notify>) {
        // Set once: a gate has one control.
        let _ = self.alert.set(Arc::clone(alert));
        if self.ended().is_some() {
            alert.notify_one();
        }
    }

    /// True when the proxy itself answers for the service here.
    pub(super) fn answers(&self, method: &Method, path: &str) -> bool {
        matches!(*method, Method::GET | Method::HEAD)
            && self.limits.answer.iter().any(|answered| **answered == *path)
    }

    /// Counts a request whose head has so many bytes, which may be one too many.
    pub(super) fn enter(self: &Arc<Self>, bytes: u64) -> Ticket {
        self.came.fetch_add(1, Ordering::Relaxed);
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
        let all = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if waiting > self.limits.requests {
            self.burst(Ended::Requests);
        } else if all > self.limits.bytes {
            self.burst(Ended::Bytes);
        }
        Ticket { gate: Arc::clone(self), bytes }
    }
}

/// The gates of a service that is held: one a hold, one at least.
#[derive(Debug, Clone)]
pub struct Gates(Vec<Arc<Gate>>);

impl Gates {
    /// Those of a service, if it is held: those of `before` where it is the same hold.
    #[must_use]
    pub fn of(service: &Service, before: Option<&Self>) -> Option<Self> {
        let gate = |hold: Hold| {
            let same = before.into_iter().flat_map(|before| &before.0).find(|gate| gate.hold == hold);
            same.map_or_else(|| Arc::new(Gate::new(hold, Arc::clone(&service.hold_limits))), Arc::clone)
        };
        (!service.holds.are_none()).then(|| Self(service.holds.iter().map(gate).collect()))
    }

    /// All of them, that of the operator first.
    #[must_use]
    pub fn all(&self) -> &[Arc<Gate>] {
        &self.0
    }

    /// These of `now`, and those of `before` at which somebody waits.
    #[must_use]
    pub fn last(now: Option<&Self>, before: Option<&Self>) -> Option<Self> {
        let mut all = now.map_or_else(Vec::new, |now| now.0.clone());
        for gate in before.into_iter().flat_map(|before| &before.0).filter(|gate| gate.waiting() > 0) {
            if !all.iter().any(|known| Arc::ptr_eq(known, gate)) {
                all.push(Arc::clone(gate));
            }
        }
        (!all.is_empty()).then_some(Self(all))
    }
}

/// One request that is counted at a gate until this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) gate: Arc<Gate>,
    bytes: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gate.waiting.fetch_sub(1, Ordering::Relaxed);
        self.gate.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn gate(requests: usize, bytes: u64) -> Arc<Gate> {
        let limits = Arc::new(HoldLimits { requests, bytes, ..HoldLimits::default() });
        let hold = Hold {
            holder: crate::table::Holder::Operator,
            since: crate::table::Epoch(1),
            scope: crate::table::HoldScope::All,
            timeout: Duration::from_secs(10),
        };
        Arc::new(Gate::new(hold, limits))
    }

    #[test]
    fn a_bound_opens_the_gate_for_good() {
        let requests = gate(2, 1_000);
        let tickets = [requests.enter(400), requests.enter(400)];
        assert_eq!((requests.ended(), requests.waiting()), (None, 2));
        let third = requests.enter(100);
        assert_eq!(requests.ended(), Some(Ended::Requests));
        drop((tickets, third));
        assert_eq!((requests.ended(), requests.waiting(), requests.came()), (Some(Ended::Requests), 0, 3));
        requests.open(Ended::Released);
        assert_eq!(requests.ended(), Some(Ended::Requests), "the first reason stays");
        let bytes = gate(2, 1_000);
        let _tickets = [bytes.enter(600), bytes.enter(600)];
        assert_eq!(bytes.ended(), Some(Ended::Bytes));
        assert!(!bytes.seal());
    }

    #[test]
    fn a_sealed_gate_is_opened_by_whoever_sealed_it_alone() {
        let gate = gate(1, 1_000);
        assert!(gate.seal());
        gate.burst(Ended::Time);
        let _tickets = [gate.enter(1), gate.enter(1)];
        assert_eq!(gate.ended(), None);
        gate.open(Ended::Store);
        assert_eq!(gate.ended(), Some(Ended::Store));
    }

    #[test]
    fn control_is_told_when_it_opens_by_itself_also_if_it_looks_late() {
        for is_late in [false, true] {
            let (gate, alert) = (gate(1, 1), Arc::new(Notify::new()));
            if is_late {
                gate.burst(Ended::Time);
            }
            gate.watch(&alert);
            gate.burst(Ended::Time);
            let mut told = pin!(alert.notified());
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(told.as_mut().poll(cx).is_ready());
        }
    }
}
