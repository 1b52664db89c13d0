//! The gate of one hold: what it is bounded by, and whether it is closed, sealed or open.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use http::Method;
use tokio::sync::Notify;

use super::line::{Line, Spot};
use crate::proxy::admission::Latch;
use crate::proxy::clock;
use crate::table::{Hold, HoldLimits, HoldScope, Service};

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
    /// Where those stand that it holds.
    line: Arc<Line>,
    /// All that it has held so far.
    came: AtomicU64,
    /// Whom to tell when it opens by itself.
    alert: OnceLock<Arc<Notify>>,
}

impl Gate {
    fn new(hold: Hold, limits: Arc<HoldLimits>, line: Arc<Line>) -> Self {
        let (held, _) = line.held_by(hold.scope);
        Self {
            hold,
            limits,
            since: clock::now(),
            latch: Latch::new(),
            line,
            came: AtomicU64::new(held as u64),
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

    /// How many have waited, those included that still do.
    #[must_use]
    pub fn came(&self) -> u64 {
        // Relaxed: the number alone matters, it orders nothing else.
        self.came.load(Ordering::Relaxed)
    }

    /// Why it is open, if it is.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        Ended::ALL.get(usize::try_from(self.latch.reason()?).ok()?).copied()
    }

    /// From now on it is opened by [`Gate::open`] alone; false when it is open already, and somebody may have passed.
    #[must_use]
    pub fn seal(&self) -> bool {
        self.latch.seal()
    }

    /// Opens it, unless it is open, and lets everybody go on. After the change that releases the service, or instead of it.
    pub fn open(&self, why: Ended) {
        self.grant_time();
        self.latch.open(why as u64);
        self.line.call();
    }

    /// Opens it because of a bound, unless it is sealed or open, and tells control.
    pub fn burst(&self, why: Ended) {
        self.grant_time();
        if self.latch.burst(why as u64) {
            self.line.call();
            self.alert.get().inspect(|alert| alert.notify_one());
        }
    }

    /// It is about to open, and those who have waited wait for room too, where the limits of their service or version leave them none
    /// at once: as long again as the hold might have lasted, from its end on. Before anybody can see that it has ended.
    pub fn grant_time(&self) {
        if self.ended().is_none() {
            self.line.waits_for(self.hold.timeout);
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

    /// Somebody has come to stand in the line, who may be one too many.
    fn holds_one_more(&self) {
        self.came.fetch_add(1, Ordering::Relaxed);
        let (waiting, bytes) = self.line.held_by(self.hold.scope);
        if waiting > self.limits.requests {
            self.burst(Ended::Requests);
        } else if bytes > self.limits.bytes {
            self.burst(Ended::Bytes);
        }
    }
}

/// The gates of a service, one a hold, and the line of those who wait at them or have waited there.
#[derive(Debug, Clone)]
pub struct Gates {
    all: Vec<Arc<Gate>>,
    line: Arc<Line>,
    limits: Arc<HoldLimits>,
}

impl Gates {
    /// Those of a service that is held, or was when `before` was there: with the same line, and the same gate for the same hold. Also of
    /// any other one, `if_moved`.
    #[must_use]
    pub fn of(service: &Service, before: Option<&Self>, if_moved: bool) -> Option<Self> {
        if service.holds.are_none() && before.is_none() && !if_moved {
            return None;
        }
        let line = before.map(|before| Arc::clone(&before.line)).unwrap_or_default();
        let limits = &service.hold_limits;
        let gate = |hold: Hold| {
            let same = before.into_iter().flat_map(|before| &before.all).find(|gate| gate.hold == hold);
            let new = || Arc::new(Gate::new(hold, Arc::clone(limits), Arc::clone(&line)));
            same.map_or_else(new, Arc::clone)
        };
        let all = service.holds.iter().map(gate).collect();
        Some(Self { all, line, limits: Arc::clone(limits) })
    }

    /// All of them, that of the operator first; none while the service is not held.
    #[must_use]
    pub fn all(&self) -> &[Arc<Gate>] {
        &self.all
    }

    /// Where its requests stand.
    #[must_use]
    pub fn line(&self) -> &Arc<Line> {
        &self.line
    }

    /// True when nothing is held and nobody waits any more: what most requests look at, and nothing else.
    #[must_use]
    pub fn are_idle(&self) -> bool {
        self.all.is_empty() && self.line.length() == 0
    }

    /// One that is closed for a request which `writes`, or does not.
    #[must_use]
    pub fn closed(&self, writes: bool) -> Option<&Arc<Gate>> {
        self.all.iter().find(|gate| gate.hold.scope.holds(writes) && gate.ended().is_none())
    }

    /// True when as many stand in the line as may: twice as many as may wait at a gate, so that others can come behind them.
    pub(super) fn are_full(&self) -> bool {
        let HoldLimits { requests, bytes, .. } = *self.limits;
        let (count, all) = self.line.held_by(HoldScope::All);
        count >= requests.saturating_mul(2) || all >= bytes.saturating_mul(2)
    }

    /// A request comes to stand in the line, whose head has so many bytes.
    pub(super) fn join(&self, writes: bool, bytes: u64) -> Spot {
        let spot = self.line.join(writes, bytes);
        let closed = |gate: &&Arc<Gate>| gate.hold.scope.holds(writes) && gate.ended().is_none();
        self.all.iter().filter(closed).for_each(|gate| gate.holds_one_more());
        spot
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::*;

    fn gate(requests: usize, bytes: u64) -> Arc<Gate> {
        let limits = Arc::new(HoldLimits { requests, bytes, ..HoldLimits::default() });
        let hold = Hold {
            holder: crate::table::Holder::Operator,
            since: crate::table::Epoch(1),
            scope: HoldScope::All,
            timeout: Duration::from_secs(10),
        };
        Arc::new(Gate::new(hold, limits, Arc::default()))
    }

    /// A write that comes, with a head of so many bytes.
    fn enter(gate: &Gate, bytes: u64) -> Spot {
        let spot = gate.line.join(true, bytes);
        gate.holds_one_more();
        spot
    }

    #[test]
    fn a_bound_opens_the_gate_for_good() {
        let requests = gate(2, 1_000);
        let spots = [enter(&requests, 400), enter(&requests, 400)];
        assert_eq!((requests.ended(), requests.line.patience()), (None, Duration::ZERO));
        enter(&requests, 100);
        assert_eq!(requests.ended(), Some(Ended::Requests));
        assert!(requests.line.patience() > Duration::from_secs(9));
        spots.into_iter().for_each(|spot| requests.line.leave(spot));
        assert_eq!((requests.ended(), requests.came()), (Some(Ended::Requests), 3));
        requests.open(Ended::Released);
        assert_eq!(requests.ended(), Some(Ended::Requests), "the first reason stays");
        let bytes = gate(2, 1_000);
        for _ in 0..2 {
            enter(&bytes, 600);
        }
        assert_eq!(bytes.ended(), Some(Ended::Bytes));
        assert!(!bytes.seal());
    }

    #[test]
    fn those_who_wait_already_count_for_the_hold_that_follows() {
        let first = gate(2, 1_000);
        for _ in 0..2 {
            enter(&first, 1);
        }
        let next = Gate::new(first.hold, Arc::clone(&first.limits), Arc::clone(&first.line));
        assert_eq!((next.came(), next.ended()), (2, None));
        enter(&next, 1);
        assert_eq!((next.came(), next.ended()), (3, Some(Ended::Requests)));
    }

    #[test]
    fn a_sealed_gate_is_opened_by_whoever_sealed_it_alone() {
        let gate = gate(1, 1_000);
        assert!(gate.seal());
        gate.burst(Ended::Time);
        for _ in 0..2 {
            enter(&gate, 1);
        }
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
