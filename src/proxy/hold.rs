//! The hold gate: where the requests of a held service wait, bounded, and how they go on.
//!
//! A [`Gate`] is one hold of one service, shared by all workers and control: it is closed, sealed or
//! open. Each holder has its own. It is in the [snapshot](super::live) for as long as the table says that the service is held. Open it stays, and then
//! it lets everybody pass, under the split there is: so a hold ends in time also when its end cannot be published, because
//! the store is lost. Whoever wants to be sure that nobody has passed, *seals* it first; that fails when it is open.
//!
//! Those who wait stand in the one [`Line`] of their service, over all workers and all of its holds, in the order in which they came.
//! Only the first of it looks whether it may go on: it does, and then calls the next one. While writes alone are held, the first
//! of the reads is the first.
//!
//! They all come at once then, where they would have come one by one. So a [`Place`] in the line is kept until there is room for its
//! request, where the service has limits on that (`in_flight`, `circuit`): who has waited waits for it too and is not refused,
//! nor are those that come meanwhile, behind him; as long again as the hold might have lasted, and as many again. So at most one of a
//! line asks for room, and nobody does before it.
//!
//! A reload may lead some of them to another service. Then all look, and those go to the end of the line there, which each service
//! has from then on, as they get there; their rate was asked when they came, and they are as patient as before.

mod gate;
mod line;

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::head::Parts;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

pub use gate::{Ended, Gate, Gates};
pub use line::Line;
use line::{NEWCOMER, Spot};

use super::connection::Turn;
use super::quota::{Quota, Waiting};
use super::{clock, error};
use crate::metrics::Reason;

/// How much later than control a worker ends a hold whose time is over: control says so in the history, if it can.
const GRACE: Duration = Duration::from_millis(200);

/// A request's place in the line of its service; it is the next one's turn when this is dropped.
#[derive(Debug)]
pub struct Place {
    line: Arc<Line>,
    spot: Spot,
    /// The gate that holds it, if one does.
    gate: Option<Arc<Gate>>,
    /// Set while it waits until fewer requests of its service are in flight.
    room: Option<Waiting>,
}

impl Place {
    /// How much longer its request waits for room, rather than be refused; for as long it keeps its place.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.line.patience()
    }

    /// Its request is in flight now.
    pub fn goes_on(&mut self) {
        self.room = None;
    }

    /// A change has led its request to the service of these gates: it stands there now, behind those who do, and waits for room as long as
    /// it would have where it came from.
    fn move_to(&mut self, gates: &Gates, head: &Parts) {
        let held = self.gate.as_ref().map_or(Duration::ZERO, |gate| gate.hold().timeout);
        gates.line().waits_for(held.max(self.patience()));
        *self = Self::at_the_end(gates, self.spot.0, head);
    }

    fn at_the_end(gates: &Gates, writes: bool, head: &Parts) -> Self {
        let (line, spot) = (Arc::clone(gates.line()), gates.join(writes, size(head)));
        Self { line, spot, gate: None, room: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.leave(self.spot);
    }
}

/// What becomes of a request at the gates of its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It goes on.
    Free,
    /// It waits at its place, then looks again.
    Held,
    /// It would have to wait, and too many do: it is refused, unless there is no limit that they wait for.
    Full,
    /// It is a health check, which the proxy answers.
    Answered,
}

/// Looks whether a request may go on, at the gates of its service, if that has any.
///
/// `writes` says whether it may change something. Not to be called where the [gates are idle](Gates::are_idle).
pub fn look(
    gates: Option<&Gates>,
    (head, path, writes): (&Parts, &str, bool),
    place: &mut Option<Box<Place>>,
) -> Way {
    let Some(gates) = gates else {
        *place = None;
        return Way::Free;
    };
    // A change may have led it elsewhere.
    let moved = place.as_mut().filter(|place| !Arc::ptr_eq(gates.line(), &place.line));
    moved.into_iter().for_each(|place| place.move_to(gates, head));
    let (line, closed) = (gates.line(), gates.closed(writes));
    if closed.is_some_and(|gate| gate.answers(&head.method, path)) {
        return Way::Answered;
    }
    let spot = place.as_ref().map_or((writes, NEWCOMER), |place| place.spot);
    let is_free = closed.is_none() && line.is_turn(spot, |writes| gates.closed(writes).is_some());
    let Some(place) = place else {
        return match closed {
            Some(_) => Way::Held,
            // Nobody waits in vain any longer.
            None if is_free || line.patience().is_zero() => Way::Free,
            None if gates.are_full() => Way::Full,
            None => Way::Held,
        };
    };
    place.gate = closed.cloned();
    if is_free { Way::Free } else { Way::Held }
}

/// Gives a request a place in the line, if it has none; it waits until fewer are in flight, where the service is `full`.
pub fn queue(
    gates: &Gates,
    (head, writes): (&Parts, bool),
    full: Option<&Arc<Quota>>,
    place: &mut Option<Box<Place>>,
) {
    let place = place.get_or_insert_with(|| Box::new(Place::at_the_end(gates, writes, head)));
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

/// Waits until this request is to look again.
///
/// Cancel-safe: the place is given up when the request is dropped. Nothing of the request's body is read meanwhile.
///
/// # Errors
/// [`Reason::ClientGone`] when that was noticed here, because nobody reads from the client.
pub async fn wait(turn: &Turn, place: Option<&Place>) -> Result<(), Reason> {
    let Some(place) = place else { return Ok(()) };
    turn.unless_left(called(turn, place)).await
}

async fn called(turn: &Turn, place: &Place) {
    match (&place.gate, &place.room) {
        (Some(gate), _) => turn.alarm.set(gate.deadline().saturating_duration_since(clock::now()) + GRACE),
        (None, Some(_)) => turn.alarm.set(place.patience()),
        (None, None) => turn.alarm.clear(),
    }
    let room = async {
        match &place.room {
            Some(room) => room.wait().await,
            None => pending().await,
        }
    };
    let mut room = pin!(room);
    poll_fn(|cx| {
        if place.line.poll_called(place.spot, cx).is_ready() || room.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let has_rung = turn.alarm.poll(cx).is_ready();
        let Some(gate) = &place.gate else { return if has_rung { Poll::Ready(()) } else { Poll::Pending } };
        // Opening, either of these calls the first, who may be this one.
        if has_rung {
            // From now on it waits for whoever has sealed it.
            turn.alarm.clear();
            gate.burst(Ended::Time);
        }
        if turn.client.worker.is_stopping.get() {
            gate.burst(Ended::Stopping);
        }
        Poll::Pending
    })
    .await;
    turn.alarm.clear();
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
