//! Attempts beside one another: another endpoint is asked too when the first has not answered after a while.
//!
//! The first answer counts. The others are dropped where they are: a connection is closed, a stream of a shared one is reset.
//! The request is counted in on its version once, for as long as any of them lasts; with each endpoint it is counted, and
//! listed, for as long as it is tried there.

use std::future::poll_fn;
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
use crate::proxy::outgoing::Upload;
use crate::proxy::permit::Permit;
use crate::proxy::upstream::flights::Ask;
use crate::proxy::upstream::{Local, Place, Seat};
use crate::table::{HedgeRules, PoolRules};

/// One attempt of several.
struct Contender {
    seat: Rc<Seat>,
    turn: Turn,
    /// What counts it where it is tried, unless the permit does.
    beside: Option<Beside>,
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
    fn new(local: &Rc<Local>, seat: &Rc<Seat>, alarm: &Rc<Alarm>, place: Option<Place>) -> Self {
        let since = clock::now();
        let flight = local.flights().enter(local.upstream().id, Kind::Request, since);
        seat.enter();
        local.flights().goes_to(flight, seat, alarm);
        Self { local: Rc::clone(local), flight, seat: Rc::clone(seat), since, place }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.local.flights().leave(self.flight);
        self.seat.leave();
    }
}

/// How one of them ended.
type Ended = (Result<Headed, Failure>, Contender);

/// As [`attempt`], of a request without a body, at `seat` first, which `permit` tells of already.
///
/// # Errors
/// As there, when all have failed: the last one's.
pub(super) async fn hedged(
    request: &Request<'_>,
    seat: &Rc<Seat>,
    mut permit: Permit,
    upload: &Upload,
    tries: &mut Tries,
    (rules, hedge): (&PoolRules, HedgeRules),
) -> Result<Headed, (Option<Permit>, Failure)> {
    let chooser = Chooser { turn: request.turn, head: request.head, asked: request.asked };
    let first = Contender { seat: Rc::clone(seat), turn: request.turn.clone(), beside: None };
    let local = Rc::clone(permit.local());
    let mut running = FuturesUnordered::new();
    running.push(run(*request, &local, first, upload.again(), tries.may_reuse()));
    let (mut left, mut is_first_there) = (hedge.max, true);
    loop {
        let ended = tokio::select! {
            biased;
            reason = cut(&permit) => return Err((Some(permit), Failure::Because(reason))),
            Some(ended) = running.next() => ended,
            () = sleep(hedge.after), if left > 0 => {
                left -= 1;
                match tries.beside(&permit, seat, &rules.circuit, chooser) {
                    None => left = 0,
                    Some((other, place)) => {
                        let turn = request.turn.beside();
                        let beside = Some(Beside::new(&local, &other, &turn.alarm, place));
                        let contender = Contender { seat: other, turn, beside };
                        running.push(run(*request, &local, contender, upload.again(), true));
                    }
                }
                continue;
            }
        };
        let (ended, contender) = ended;
        is_first_there &= contender.beside.is_some();
        match ended {
            Ok(mut headed) => {
                let lost = running.len() - usize::from(is_first_there);
                (0..lost).for_each(|_| permit.hedged(Hedge::Lost));
                // The others end here, before the permit does.
                drop(running);
                if contender.beside.is_some() {
                    permit.hedged(Hedge::Won);
                }
                take_over(&mut permit, contender);
                headed.adopt(permit);
                return Ok(headed);
            }
            Err(failure) => {
                if contender.beside.is_some() {
                    permit.hedged(Hedge::Failed);
                }
                if running.is_empty() {
                    take_over(&mut permit, contender);
                    return Err((Some(permit), failure));
                }
                failed_beside(&permit, &failure, &contender);
            }
        }
    }
}

/// The permit tells of this attempt from here on.
fn take_over(permit: &mut Permit, contender: Contender) {
    let Contender { seat, turn, beside } = contender;
    if let Some(mut beside) = beside {
        permit.goes_on_with(&seat, &turn.alarm, beside.since);
        if let Some(place) = beside.place.take() {
            permit.places.get_or_insert_default().endpoint = Some(place);
        }
    }
    if let Some(record) = permit.record() {
        record.goes_on_with(&seat.endpoint);
    }
}

/// One has failed while another goes on.
fn failed_beside(permit: &Permit, failure: &Failure, contender: &Contender) {
    // A kept connection that was closed says nothing about its endpoint.
    if !matches!(failure, Failure::Stale) {
        let since = contender.beside.as_ref().map(|beside| beside.since);
        permit.beside_failed(&contender.seat, since, failure.reason());
    }
}

/// Ends when the request has to, because its version is left.
async fn cut(permit: &Permit) -> Reason {
    poll_fn(|_| match permit.ask() {
        Ask::Cut => Poll::Ready(Reason::DrainDeadline),
        Ask::Stay | Ask::Go => Poll::Pending,
    })
    .await
}

fn run<'r>(
    request: Request<'r>,
    local: &Rc<Local>,
    contender: Contender,
    mut upload: Upload,
    may_reuse: bool,
) -> LocalBoxFuture<'r, Ended> {
    let local = Rc::clone(local);
    Box::pin(async move {
        let request = Request { turn: &contender.turn, ..request };
        let ended = attempt(&request, &contender.seat, &local, None, &mut upload, may_reuse).await;
        (ended.map_err(|(_, failure)| failure), contender)
    })
}
