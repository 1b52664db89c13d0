//! One attempt at an endpoint, up to the head of its answer.

use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::proxy::head::{Answer, Parts};
use h2::RecvStream;
use http::Response;
use tokio::time::{Sleep, sleep};

use crate::metrics::Reason;
use crate::proxy::bounds::Bounds;
use crate::proxy::connection::Turn;
use crate::proxy::forward::{Call, Exchange, Failure, http2, poll_cut_before};
use crate::proxy::gate::Asked;
use crate::proxy::http1::Head;
use crate::proxy::journal::Record;
use crate::proxy::ledger::Entry;
use crate::proxy::outgoing::{Outgoing, Upload};
use crate::proxy::permit::Permit;
use crate::proxy::upstream::http2::Risk;
use crate::proxy::upstream::{Local, Opened, Patience, Seat};
use crate::table::Timeouts;

/// What all attempts at a request have in common.
#[derive(Clone, Copy)]
pub(super) struct Request<'r> {
    pub(super) turn: &'r Turn,
    pub(super) head: &'r Parts,
    pub(super) asked: &'r Asked<'r>,
    pub(super) timeouts: Timeouts,
    pub(super) bounds: Bounds,
    /// How many bytes its body may have.
    pub(super) most: u64,
    /// How long one attempt may take, if that is bounded by itself.
    pub(super) limit: Option<Duration>,
    pub(super) record: Option<&'r Record>,
    /// Where it is noted that it goes out, when whoever waits for the attempt has the permit.
    pub(super) entry: Option<&'r Entry>,
}

/// The head of an answer, and the way on which the rest of it comes. Boxed from its beginning: it goes through several hands.
pub(super) enum Headed {
    Own(Box<Exchange>, Head),
    Shared(Box<Call>, Response<RecvStream>),
}

impl Headed {
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Own(_, head) => head.status.as_u16(),
            Self::Shared(_, response) => response.status().as_u16(),
        }
    }

    pub(super) fn permit(&self) -> Option<&Permit> {
        match self {
            Self::Own(exchange, _) => exchange.permit(),
            Self::Shared(call, _) => call.permit(),
        }
    }

    /// It is the answer to the request that this permit is of.
    pub(super) fn adopt(&mut self, permit: Permit) {
        match self {
            Self::Own(exchange, _) => exchange.adopt(permit),
            Self::Shared(call, _) => call.adopt(permit),
        }
    }

    /// The answer to the request `asked`, of which `upload` was the body.
    pub(super) fn answer(self, upload: &mut Upload, asked: &Parts) -> Answer {
        match self {
            Self::Own(exchange, head) => exchange.answer(head, upload),
            Self::Shared(call, response) => call.answer(response, upload, asked),
        }
    }

    /// Nobody wants this answer: what is left of the request.
    pub(super) fn discard(self) -> Option<Permit> {
        match self {
            Self::Own(exchange, head) => exchange.discard(&head),
            Self::Shared(call, _) => call.into_parts().0,
        }
    }
}

/// Sends the request to the endpoint of `seat`, over a kept connection if there is one and it `may_reuse` one, and waits
/// for the head of the answer. Without a permit whoever waits for it has it, and gives it to what comes of this.
///
/// Cancel-safe: dropped, it ends what it has begun, and the permit with it.
///
/// # Errors
/// The permit, and the failure. The body is back in `upload` if nothing of it was taken.
pub(super) async fn attempt(
    request: &Request<'_>,
    seat: &Rc<Seat>,
    local: &Local,
    permit: Option<Permit>,
    upload: &mut Upload,
    may_reuse: bool,
) -> Result<Headed, (Option<Permit>, Failure)> {
    let Request { turn, head, asked, timeouts, bounds, most, limit, record, entry } = *request;
    let (client, endpoint) = (&turn.client, &seat.endpoint);
    record.inspect(|record| record.attempt(endpoint));
    let mut end = limit.map(|limit| Box::pin(sleep(limit)));
    let risk = match endpoint.shares_connections() {
        true => Risk::of(head, asked.target, upload),
        false => Risk::None,
    };
    let opened = {
        let patience = patience(request);
        let mut opened = pin!(endpoint.open((may_reuse, risk), patience, &client.arrival.peer, local));
        poll_fn(|cx| match opened.as_mut().poll(cx) {
            Poll::Ready(opened) => Poll::Ready(opened.map_err(Failure::Unconnected)),
            Poll::Pending => poll_cut_before(turn, &bounds, permit.as_ref(), cx).map(Err),
        })
        .await
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(failure) => return Err((permit, failure)),
    };
    match &permit {
        Some(permit) => permit.is_sent(),
        None => drop(entry.inspect(|entry| entry.sent())),
    }
    let outgoing = Outgoing::new(client, head, asked, upload, endpoint);
    match opened {
        Opened::Own(stream, past) => {
            record.inspect(|record| record.connected(endpoint, past.is_kept()));
            let way = (stream, past);
            let exchange = Exchange::new(turn, permit, endpoint, way, outgoing, timeouts, bounds);
            let mut exchange = Box::new(exchange);
            match poll_fn(|cx| in_time(exchange.poll_head(cx, head), &mut end, cx)).await {
                Ok(answer) => Ok(Headed::Own(exchange, answer)),
                Err(failure) => {
                    // Boxed: rare.
                    let is_stale =
                        matches!(failure, Failure::Broken) && Box::pin(exchange.was_crossed()).await;
                    let (permit, rest) = exchange.into_parts();
                    upload.give_back(rest);
                    Err((permit, if is_stale { Failure::Stale } else { failure }))
                }
            }
        }
        Opened::Shared(ticket) => {
            record.inspect(|record| record.connected(endpoint, ticket.is_reused));
            let (written, rest, upgrade) = outgoing.into_parts();
            let what = http2::request(&written, endpoint.scheme(), &client.worker.lexicon);
            client.worker.give_back(written);
            let what = match what {
                Ok(what) => (what, upgrade, rest, most),
                Err(reason) => return Err((permit, Failure::Because(reason))),
            };
            let mut call = Box::new(Call::new(turn, permit, ticket, what, timeouts, bounds));
            match poll_fn(|cx| in_time(call.poll_head(cx, head), &mut end, cx)).await {
                Ok(answer) => Ok(Headed::Shared(call, answer)),
                Err(failure) => {
                    if matches!(failure, Failure::Late) {
                        call.doubt();
                    }
                    let (permit, rest) = call.into_parts();
                    upload.give_back(rest);
                    Err((permit, failure))
                }
            }
        }
    }
}

/// How long it may take to get a way to an endpoint.
fn patience(request: &Request<'_>) -> Patience {
    let Request { turn, timeouts, bounds, limit, .. } = *request;
    let limit = limit.unwrap_or(Duration::MAX);
    let response = timeouts.response.min(limit);
    let room = bounds.at_most(response, turn.client.worker.clock.ticks());
    let reason = if room < response { Reason::Deadline } else { Reason::ResponseTimeout };
    Patience { connect: timeouts.connect.min(limit), room: (room, reason) }
}

/// `answer`, or [`Failure::Late`] when the attempt has taken as long as it may.
fn in_time<T>(
    answer: Poll<Result<T, Failure>>,
    end: &mut Option<Pin<Box<Sleep>>>,
    cx: &mut Context<'_>,
) -> Poll<Result<T, Failure>> {
    match (answer, end) {
        (Poll::Pending, Some(end)) => end.as_mut().poll(cx).map(|()| Err(Failure::Late)),
        (answer, _) => answer,
    }
}
