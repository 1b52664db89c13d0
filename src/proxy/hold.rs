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
//!
//! They all come at once then, where they would have come one by one. So a place in the line is kept until there is room for its
//! request, where the service has limits on that (`in_flight`, `circuit`): who has waited waits for it too and is not refused,
//! nor are those that come meanwhile, behind him; for [so long](Gate::patience) and [so many](Gate::has_room_behind).

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
use super::quota::{Quota, Waiting};
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
    /// Set while it waits until fewer requests of its service are in flight.
    room: Option<Waiting>,
}

impl Place {
    /// How much longer its request waits for room, rather than be refused; for as long it keeps its place.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.ticket.as_ref().map_or(Duration::ZERO, |ticket| ticket.gate.patience())
    }

    /// Its request is in flight now.
    pub fn goes_on(&mut self) {
        self.room = None;
    }

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

/// A service, and where its requests wait.
#[derive(Debug, Clone, Copy)]
pub struct Held<'s> {
    /// The service.
    pub service: &'s Service,
    /// Where they wait while it is held.
    pub gates: Option<&'s Gates>,
    /// The same, and where they waited when it was held last, while some still have to go on.
    pub last: Option<&'s Gates>,
}

impl<'s> Held<'s> {
    /// A gate that is closed for a request which `writes`, or does not.
    fn closed(self, writes: bool) -> Option<&'s Arc<Gate>> {
        self.gates?.all().iter().find(|gate| gate.hold().scope.holds(writes) && gate.ended().is_none())
    }

    /// A gate that is open, and where somebody who comes now may wait behind those who still do.
    fn behind(self) -> Option<&'s Arc<Gate>> {
        self.last?.all().iter().find(|gate| gate.has_room_behind())
    }
}

/// Looks whether a request may go on.
///
/// `writes` says whether it may change something. Not to be called for a service that is not held when nobody waits.
pub fn look(
    worker: &Rc<Worker>,
    held: Held<'_>,
    (head, path, writes): (&Parts, &str, bool),
    place: &mut Option<Box<Place>>,
) -> Way {
    let service = held.service;
    if place.as_ref().is_some_and(|place| place.service != service.name) {
        // A change has led it elsewhere.
        *place = None;
    }
    let closed = held.closed(writes);
    let number = place.as_ref().map(|place| place.number);
    match closed {
        Some(gate) if gate.answers(&head.method, path) => Way::Answered,
        None if worker.lines.is_first((&service.name, writes), number.unwrap_or(u64::MAX)) => Way::Free,
        None if !may_wait(place.as_deref(), held) => Way::Free,
        Some(_) | None => Way::Held,
    }
}

/// True when a request may wait for room that is not held, because it was, or stands behind others that were.
pub fn may_wait(place: Option<&Place>, held: Held<'_>) -> bool {
    match place {
        Some(place) => !place.patience().is_zero(),
        None => held.behind().is_some(),
    }
}

/// Gives a request a place that has to wait, or a new ticket; it waits until fewer are in flight, where the service is `full`.
pub fn queue(
    worker: &Rc<Worker>,
    held: Held<'_>,
    (head, writes): (&Parts, bool),
    full: Option<&Arc<Quota>>,
    place: &mut Option<Box<Place>>,
) {
    let place = place.get_or_insert_with(|| {
        let (worker, service) = (Rc::clone(worker), held.service.name.clone());
        let number = worker.lines.join((&service, writes));
        Box::new(Place { worker, service, writes, number, ticket: None, room: None })
    });
    let is_counted =
        |gate: &Arc<Gate>| place.ticket.as_ref().is_some_and(|ticket| Arc::ptr_eq(&ticket.gate, gate));
    // Who has waited at one that is open stays there.
    let gate = held.closed(writes).or_else(|| held.behind().filter(|_| place.ticket.is_none()));
    if let Some(gate) = gate.filter(|gate| !is_counted(gate)) {
        place.ticket = Some(gate.enter(size(head)));
    }
    // Not one for another: to end with it wakes somebody.
    let room = place.room.take().filter(|room| full.is_some_and(|full| room.is_for(full)));
    place.room = room.or_else(|| full.map(Waiting::for_place));
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
    if let Some(room) = &place.room {
        turn.alarm.set(gate.patience());
        let mut room = pin!(room.wait());
        poll_fn(|cx| if turn.alarm.poll(cx).is_ready() { Poll::Ready(()) } else { room.as_mut().poll(cx) })
            .await;
        turn.alarm.clear();
        return;
    }
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
