//! Attempts beside one another: another endpoint is asked too when the first has not answered after a while.
//!
//! The first answer counts. The others are dropped where they are: a connection is closed, a stream of a shared one is reset.
//! The request is counted in on its version once, for as long as any of them lasts; with each endpoint it is counted, and
//! listed, for as long as it is tried there.

use std::cell::Cell;
use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

use super::attempt::{Headed, Request, attempt};
use super::tries::Tries;
use crate::metrics::{Hedge, Kind, Reason};
use crate::proxy::choice::Chooser;
use crate::proxy::clock::{self, Alarm};
use crate::proxy::connection::Turn;
use crate::proxy::forward::Failure;
use crate::proxy::ledger::Entry;
use crate::proxy::outgoing::Upload;
use crate::proxy::permit::Permit;
use crate::proxy::upstream::flights::Ask;
use crate::proxy::upstream::{Local, Place, Seat};
use crate::table::HedgeRules;

/// One attempt of several.
struct Contender {
    /// True for those that were begun beside the first one, whichever the permit tells of by now.
    is_hedge: bool,
    since: Instant,
    seat: Rc<Seat>,
    turn: Turn,
    listing: Rc<Listing>,
}

/// Where an attempt is listed, and what cuts it.
struct Listing {
    flight: Cell<usize>,
    /// Rung when something is asked of it.
    bell: Rc<Alarm>,
    /// What counts it where it is tried, unless the permit does.
    beside: Cell<Option<Beside>>,
    /// Where it is noted when it goes out: of the first one alone, whatever is tried beside it.
    entry: Option<Rc<Entry>>,
}

/// An attempt that is in flight besides the one that its permit tells of.
struct Beside {
    local: Rc<Local>,
    flight: usize,
    seat: Rc<Seat>,
    since: Instant,
    /// Its place with the endpoint, where those are limited.
    place: Option<Place>,
}

impl Beside {
    fn new(local: &Rc<Local>, seat: &Rc<Seat>, bell: &Rc<Alarm>, place: Option<Place>) -> Self {
        let since = clock::now();
        let flight = local.flights().enter(local.id(), Kind::Request, since);
        seat.enter();
        local.flights().goes_to(flight, seat, bell);
        Self { local: Rc::clone(local), flight, seat: Rc::clone(seat), since, place }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.local.flights().leave(self.flight);
        self.seat.leave();
    }
}

impl Contender {
    /// The one that the permit tells of.
    fn of_permit(seat: &Rc<Seat>, turn: &Turn, permit: &Permit) -> Self {
        let bell = Rc::new(turn.client.worker.clock.alarm());
        permit.is_woken_by(&bell);
        let (flight, beside) = (Cell::new(permit.flight()), Cell::new(None));
        let listing = Listing { flight, bell, beside, entry: permit.entry.clone() };
        let (since, listing) = (permit.tried_since(), Rc::new(listing));
        Self { is_hedge: false, since, seat: Rc::clone(seat), turn: turn.clone(), listing }
    }

    /// One beside it.
    fn beside(local: &Rc<Local>, seat: Rc<Seat>, turn: Turn, place: Option<Place>) -> Self {
        let bell = Rc::new(turn.client.worker.clock.alarm());
        let beside = Beside::new(local, &seat, &bell, place);
        let since = beside.since;
        let (flight, beside) = (Cell::new(beside.flight), Cell::new(Some(beside)));
        let listing = Listing { flight, bell, beside, entry: None };
        Self { is_hedge: true, since, seat, turn, listing: Rc::new(listing) }
    }

    fn again(&self) -> Self {
        let Self { is_hedge, since, seat, turn, listing } = self;
        let (seat, turn, listing) = (Rc::clone(seat), turn.clone(), Rc::clone(listing));
        Self { is_hedge: *is_hedge, since: *since, seat, turn, listing }
    }

    /// The endpoint hears that it took longer than another one.
    fn lost_to(&self, winner: &Self) {
        if self.since <= winner.since {
            self.seat.outrun(self.since);
        } else {
            self.seat.given_up(self.since);
        }
    }
}

/// How one of them ended.
type Ended = (Result<Headed, Failure>, Contender);

/// As [`attempt`], of a request without a body, at `seat` first, which `permit` tells of already.
///
/// # Errors
/// As there, when all have failed: the last one's, of which the permit then tells.
pub(super) async fn hedged(
    request: &Request<'_>,
    seat: &Rc<Seat>,
    mut permit: Permit,
    upload: &Upload,
    tries: &mut Tries,
    hedge: HedgeRules,
) -> Result<Headed, (Option<Permit>, Failure)> {
    let chooser = Chooser { turn: request.turn, head: request.head, asked: request.asked };
    let local = Rc::clone(permit.local());
    let mut running = FuturesUnordered::new();
    let mut begun = vec![Contender::of_permit(seat, request.turn, &permit)];
    running.push(run(*request, &local, begun[0].again(), upload.again(), tries.may_reuse()));
    let mut left = hedge.max;
    loop {
        let (ended, contender) = tokio::select! {
            biased;
            Some(ended) = running.next() => ended,
            () = sleep(hedge.after), if left > 0 => {
                left -= 1;
                match tries.beside(&permit, seat, chooser) {
                    None => left = 0,
                    Some((other, place)) => {
                        let beside = Contender::beside(&local, other, request.turn.beside(), place);
                        running.push(run(*request, &local, beside.again(), upload.again(), true));
                        begun.push(beside);
                    }
                }
                continue;
            }
        };
        begun.retain(|other| !Rc::ptr_eq(&other.listing, &contender.listing));
        let beside = contender.listing.beside.take();
        match ended {
            Ok(mut headed) => {
                let lost = begun.iter().filter(|other| other.is_hedge);
                lost.for_each(|_| permit.hedged(Hedge::Lost));
                begun.iter().for_each(|other| other.lost_to(&contender));
                if contender.is_hedge {
                    permit.hedged(Hedge::Won);
                }
                // The others end here, before the permit does.
                drop((running, begun));
                tells_of(&mut permit, &contender, beside);
                headed.adopt(permit);
                return Ok(headed);
            }
            Err(failure) => {
                if contender.is_hedge {
                    permit.hedged(Hedge::Failed);
                }
                let Some(next) = begun.first() else {
                    tells_of(&mut permit, &contender, beside);
                    return Err((Some(permit), failure));
                };
                // A kept connection that was closed says nothing about its endpoint.
                if !matches!(failure, Failure::Stale | Failure::Unsent) {
                    tries.failed_at(&contender.seat);
                    let since = beside.as_ref().map(|beside| beside.since);
                    permit.one_failed(&contender.seat, since, failure.reason());
                }
                if beside.is_none() {
                    // The permit tells of one that goes on.
                    let beside = next.listing.beside.take();
                    next.listing.flight.set(permit.flight());
                    tells_of(&mut permit, next, beside);
                    permit.is_woken_by(&next.listing.bell);
                }
            }
        }
    }
}

/// The permit tells of this attempt from here on.
fn tells_of(permit: &mut Permit, contender: &Contender, beside: Option<Beside>) {
    let Contender { seat, turn, .. } = contender;
    match beside {
        Some(mut beside) => {
            permit.goes_on_with(seat, &turn.alarm, beside.since);
            if let Some(place) = beside.place.take() {
                permit.places.get_or_insert_default().endpoint = Some(place);
            }
        }
        None => permit.is_woken_by(&turn.alarm),
    }
    if let Some(record) = permit.record() {
        record.goes_on_with(&seat.endpoint);
    }
}

/// Runs one; it ends when its version or its endpoint is left and its time is over.
fn run<'r>(
    request: Request<'r>,
    local: &Rc<Local>,
    contender: Contender,
    mut upload: Upload,
    may_reuse: bool,
) -> LocalBoxFuture<'r, Ended> {
    let local = Rc::clone(local);
    Box::pin(async move {
        let entry = contender.listing.entry.as_deref();
        let request = Request { turn: &contender.turn, entry, ..request };
        let ended = {
            let mut attempt = pin!(attempt(&request, &contender.seat, &local, None, &mut upload, may_reuse));
            poll_fn(|cx| {
                let listing = &contender.listing;
                if local.flights().ask(listing.flight.get()) == Ask::Cut {
                    return Poll::Ready(Err((None, Failure::Because(Reason::DrainDeadline))));
                }
                // It never rings by itself.
                let _: Poll<()> = listing.bell.poll(cx);
                attempt.as_mut().poll(cx)
            })
            .await
        };
        (ended.map_err(|(_, failure)| failure), contender)
    })
}
