//! The hold gate: where the requests of a held service wait, bounded, and how they go on.
//!
//! A [`Gate`] is one hold of one service, shared by all workers and control: it counts who waits, and it is closed, sealed or
//! open. Each holder has its own, and a request waits at one after the other. It is in the [snapshot](super::live) for as long as the table says that the service is held. Open it stays, and then
//! it lets everybody pass, under the split there is: so a hold ends in time also when its end cannot be published, because
//! the store is lost. Whoever wants to be sure that nobody has passed, *seals* it first; that fails when it is open.
//!
//! On its worker a request has a [`Place`] in the service's line of reads or of writes, and only the first of a line waits for
//! the gate: it goes on, and then wakes the next one. So the reads of one worker, and its writes, go on in the order in which
//! they came, also before those that come later and are not held any more.

mod gate;
mod line;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::head::Parts;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

use gate::Ticket;
pub use gate::{Ended, Gate, Gates};
pub use line::Lines;
use line::Which;

use super::clock::{Alarm, TICK};
use super::connection::Turn;
use super::worker::Worker;
use super::{clock, error};
use crate::metrics::Reason;
use crate::table::{Service, ServiceName};

/// How much later than control a worker ends a hold whose time is over: control says so in the history, if it can.
const GRACE: Duration = Duration::from_millis(200);

/// A request's place in a line of its service; it is the next one's turn when this is dropped.
#[derive(Debug)]
pub struct Place {
    worker: Rc<Worker>,
    service: ServiceName,
    writes: bool,
    number: u64,
    /// The gate that it waits at; none when it only waits for those before it.
    ticket: Option<Ticket>,
}

impl Place {
    /// The line that it is in.
    fn line(&self) -> Which<'_> {
        (&self.service, self.writes)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.worker.lines.leave(self.line(), self.number);
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

/// Looks whether a request may go on that is for `service`, whose gates these are, and gives it a place if it has to wait.
///
/// `writes` says whether it may change something. Not to be called for a service without gates when nobody waits.
pub fn look(
    worker: &Rc<Worker>,
    (service, gates): (&Service, Option<&Gates>),
    (head, path, writes): (&Parts, &str, bool),
    place: &mut Option<Box<Place>>,
) -> Way {
    if place.as_ref().is_some_and(|place| place.service != service.name) {
        // A change has led it elsewhere.
        *place = None;
    }
    let closed = gates.and_then(|gates| gates.closed(writes));
    let number = place.as_ref().map(|place| place.number);
    match closed {
        Some(gate) if gate.answers(&head.method, path) => return Way::Answered,
        None if worker.lines.is_first((&service.name, writes), number.unwrap_or(u64::MAX)) => {
            return Way::Free;
        }
        Some(_) | None => {}
    }
    let place = place.get_or_insert_with(|| {
        let (worker, service) = (Rc::clone(worker), service.name.clone());
        let number = worker.lines.join((&service, writes));
        Box::new(Place { worker, service, writes, number, ticket: None })
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
    poll_fn(|cx| lines.poll_first(place.line(), place.number, cx)).await;
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
