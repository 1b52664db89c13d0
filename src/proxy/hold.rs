//! The hold gate: where the requests of a held service wait, bounded, and how they go on.
//!
//! A [`Gate`] is one hold of one service, shared by all workers and control: it counts who waits, and it is closed, sealed or
//! open. It is in the [snapshot](super::live) for as long as the table says that the service is held. Open it stays, and then
//! it lets everybody pass, under the split there is: so a hold ends in time also when its end cannot be published, because
//! the store is lost. Whoever wants to be sure that nobody has passed, *seals* it first; that fails when it is open.
//!
//! On its worker a request has a [`Place`] in the service's line, and only the first of a line waits for the gate: it goes
//! on, and then wakes the next one. So those of one worker go on in the order in which they came, also before those that come
//! later and are not held any more.

mod line;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::head::Parts;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response};
use tokio::sync::Notify;

pub use line::Lines;

use super::admission::Latch;
use super::clock::{Alarm, TICK};
use super::connection::Turn;
use super::worker::Worker;
use super::{clock, error};
use crate::metrics::Reason;
use crate::table::{Hold, HoldLimits, Service, ServiceName};

/// How much later than control a worker ends a hold whose time is over: control says so in the history, if it can.
const GRACE: Duration = Duration::from_millis(200);

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
    opened: Notify,
    /// Whom to tell when it opens by itself.
    alert: OnceLock<Arc<Notify>>,
}

impl Gate {
    /// The gate of a service that is held: that of `before`, if it is the same hold.
    #[must_use]
    pub fn of(service: &Service, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let hold = service.hold?;
        let same = before.filter(|before| before.hold == hold);
        Some(same.map_or_else(|| Arc::new(Self::new(hold, Arc::clone(&service.hold_limits))), Arc::clone))
    }

    fn new(hold: Hold, limits: Arc<HoldLimits>) -> Self {
        Self {
            hold,
            limits,
            since: clock::now(),
            latch: Latch::new(),
            waiting: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            came: AtomicU64::new(0),
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
    fn answers(&self, method: &Method, path: &str) -> bool {
        matches!(*method, Method::GET | Method::HEAD)
            && self.limits.answer.iter().any(|answered| **answered == *path)
    }

    fn enter(self: &Arc<Self>, bytes: u64) -> Ticket {
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

/// One request that is counted at a gate until this is dropped.
#[derive(Debug)]
struct Ticket {
    gate: Arc<Gate>,
    bytes: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gate.waiting.fetch_sub(1, Ordering::Relaxed);
        self.gate.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A request's place in the line of its service; it is the next one's turn when this is dropped.
#[derive(Debug)]
pub struct Place {
    worker: Rc<Worker>,
    service: ServiceName,
    number: u64,
    /// The gate that it waits at; none when it only waits for those before it.
    ticket: Option<Ticket>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.lines.leave(&self.service, self.number);
    }
}

/// What becomes of a request at the gate of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It goes on.
    Free,
    /// It waits at its place, then looks again.
    Held,
    /// It is a health check, which the proxy answers.
    Answered,
}

/// Looks whether a request may go on that is for `service`, whose gate this is, and gives it a place if it has to wait.
///
/// `writes` says whether it may change something. Not to be called for a service without a gate when nobody waits.
pub fn look(
    worker: &Rc<Worker>,
    (service, gate): (&Service, Option<&Arc<Gate>>),
    (head, path, writes): (&Parts, &str, bool),
    place: &mut Option<Box<Place>>,
) -> Way {
    if place.as_ref().is_some_and(|place| place.service != service.name) {
        // A change has led it elsewhere.
        *place = None;
    }
    let closed = gate.filter(|gate| gate.hold.scope.holds(writes) && gate.ended().is_none());
    let number = place.as_ref().map(|place| place.number);
    match closed {
        Some(gate) if gate.answers(&head.method, path) => return Way::Answered,
        Some(_) => {}
        // A read that was never held waits for no write.
        None if number.is_none() && gate.is_some_and(|gate| !gate.hold.scope.holds(writes)) => {
            return Way::Free;
        }
        None if worker.lines.is_first(&service.name, number.unwrap_or(u64::MAX)) => return Way::Free,
        None => {}
    }
    let place = place.get_or_insert_with(|| {
        let (worker, service) = (Rc::clone(worker), service.name.clone());
        let number = worker.lines.join(&service);
        Box::new(Place { worker, service, number, ticket: None })
    });
    let is_counted =
        place.ticket.as_ref().zip(closed).is_some_and(|(ticket, gate)| Arc::ptr_eq(&ticket.gate, gate));
    if let Some(gate) = closed.filter(|_| !is_counted) {
        place.ticket = Some(gate.enter(size(head)));
    }
    Way::Held
}

/// About what a head takes of memory.
fn size(head: &Parts) -> u64 {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    (target + fields.sum::<usize>()) as u64
}

/// Waits until it is this request's turn to look again.
///
/// Cancel-safe: the place is given up when the request is dropped. Nothing of the request's body is read meanwhile.
///
/// # Errors
/// [`Reason::ClientGone`] when that was noticed here, because nobody reads from the client.
pub async fn wait(turn: &Turn, place: Option<&Place>) -> Result<(), Reason> {
    let Some(place) = place else { return Ok(()) };
    let scout = turn.is_unread().then(|| place.worker.clock.alarm());
    let mut turns = pin!(turns(turn, place));
    poll_fn(|cx| match turns.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending => poll_left(turn, scout.as_ref(), cx).map(|()| Err(Reason::ClientGone)),
    })
    .await
}

async fn turns(turn: &Turn, place: &Place) {
    let lines = &place.worker.lines;
    poll_fn(|cx| lines.poll_first(&place.service, place.number, cx)).await;
    let Some(Ticket { gate, .. }) = &place.ticket else { return };
    let mut opened = pin!(gate.opened.notified());
    // From here on no opening is missed.
    opened.as_mut().enable();
    let left = gate.deadline().saturating_duration_since(clock::now());
    turn.alarm.set(left + GRACE);
    poll_fn(|cx| {
        if gate.ended().is_some() {
            return Poll::Ready(());
        }
        if turn.alarm.poll(cx).is_ready() {
            // From now on it waits for whoever has sealed it.
            turn.alarm.clear();
            gate.burst(Ended::Time);
        }
        if place.worker.is_stopping.get() {
            gate.burst(Ended::Stopping);
        }
        opened.as_mut().poll(cx)
    })
    .await;
    turn.alarm.clear();
}

/// Ready when the client is seen to be gone; looks at every tick, if there is an alarm for that.
fn poll_left(turn: &Turn, scout: Option<&Alarm>, cx: &Context<'_>) -> Poll<()> {
    let Some(scout) = scout else { return Poll::Pending };
    loop {
        if turn.has_left() {
            return Poll::Ready(());
        }
        scout.set_once(TICK);
        ready!(scout.poll(cx));
        scout.clear();
    }
}

/// The answer to a health check of a service that is held.
#[must_use]
pub fn answer() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(b"held\n"));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(error::REASON, HeaderValue::from_static("held"));
    response
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn gate(requests: usize, bytes: u64) -> Arc<Gate> {
        let limits = Arc::new(HoldLimits { requests, bytes, ..HoldLimits::default() });
        let hold = Hold { scope: crate::table::HoldScope::All, timeout: Duration::from_secs(10) };
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
