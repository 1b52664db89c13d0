//! DATA PLANE, one worker's view. This file is one request, top to bottom.
//!
//! ```text
//! accept → head parsed → gate → route → admitted: coin, permit → endpoint → head and body forwarded both ways
//!        → outcome recorded, permit ended
//! ```

/// The atomics of the admission protocol; the loom model puts its own in their place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}

// In reading order: what a request passes, what that stands on, what it runs in.

pub mod gate;

pub mod admission;
pub mod live;

pub mod permit;

pub mod forward;

pub mod outgoing;

pub mod body;

pub mod headers;

pub mod deferred;

pub mod upgrade;

pub mod tunnel;

pub mod error;

pub mod upstream;

pub mod connection;

pub mod http1;

pub mod listener;

pub mod entrance;

pub mod tls;

pub mod worker;

pub mod crew;

pub mod clock;

use std::future::poll_fn;
use std::rc::Rc;

use http::header::STRICT_TRANSPORT_SECURITY;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body::Body as _;

use body::{Incoming, Source};
use connection::{Client, Turn};
use forward::{Call, Exchange, Failure};
use gate::Asked;
use outgoing::{Outgoing, Upload};
use permit::Permit;
use upstream::{Endpoint, Opened};

use crate::metrics::{Kind, Reason};
use crate::table::{Epoch, Timeouts};

/// Answers one request; what goes wrong becomes an answer too.
pub async fn serve(turn: Turn, request: Request<Incoming>) -> Response<Source> {
    let (head, body) = request.into_parts();
    let client = &turn.client;
    let mut epoch = None;
    let answer = respond(&turn, &head, body, &mut epoch).await;
    let mut response = answer.unwrap_or_else(|reason| error::answer(reason, &head.headers).map(Source::Full));
    if let Some(epoch) = epoch.filter(|_| client.settings.epoch_header) {
        response.headers_mut().insert(error::EPOCH, HeaderValue::from(epoch.0));
    }
    if let Some(policy) = &client.arrival.entrance.hsts {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, policy.clone());
    }
    response
}

/// The answer of whoever the request is for; also the epoch under which it was admitted.
async fn respond(
    turn: &Turn,
    head: &Parts,
    body: Incoming,
    epoch: &mut Option<Epoch>,
) -> Result<Response<Source>, Reason> {
    let client = &turn.client;
    // Without a version there is nobody else to count it on.
    let refused = |reason| {
        client.worker.refused(reason);
        reason
    };
    let asked = Asked::of(head).map_err(refused)?;
    if let Some(elsewhere) = at_the_door(client, &asked).map_err(refused)? {
        return Ok(elsewhere);
    }
    let admitted = admit(client, &asked, &body).map_err(refused)?;
    *epoch = Some(admitted.permit.epoch);
    forward(turn, head, &asked, body, admitted).await
}

/// What the listener itself has to say to a request: `Some` answer, or nothing.
fn at_the_door(client: &Client, asked: &Asked<'_>) -> Result<Option<Response<Source>>, Reason> {
    let arrival = &client.arrival;
    arrival.check_host(asked)?;
    let Some(redirect) = &arrival.entrance.redirect else { return Ok(None) };
    let answer = redirect.answer(asked)?;
    if answer.is_some() {
        client.worker.redirected();
    }
    Ok(answer.map(|answer| answer.map(Source::Full)))
}

/// A request that is counted in on the version it was assigned to.
struct Admitted {
    permit: Permit,
    timeouts: Timeouts,
}

/// Routes the request and assigns it by its coin, under one epoch; again when a change came in between (G1).
fn admit(client: &Client, asked: &Asked<'_>, body: &Incoming) -> Result<Admitted, Reason> {
    let worker = &client.worker;
    let coin = worker.coin();
    let kind = if body.is_end_stream() { Kind::Request } else { Kind::Upload };
    loop {
        let snapshot = worker.view.newest();
        let table = &snapshot.table;
        let index = table.route(asked).ok_or(Reason::NoRoute)?;
        let lane = snapshot.assign(index, coin).ok_or(Reason::NoEndpoint)?;
        let local = worker.local(lane);
        if let Ok(permit) = Permit::admit(&local, worker.view.live(), table.epoch(), kind) {
            local.follow(&lane.target);
            return Ok(Admitted { permit, timeouts: lane.timeouts });
        }
    }
}

/// Most fields of a request as an endpoint gets it: those of the client and ours.
const MOST_FIELDS: usize = 16 * 1024;

/// Sends the request to the version's endpoints: to another one when the first does not accept, and over a fresh
/// connection when a kept one had been closed and the request may be repeated.
async fn forward(
    turn: &Turn,
    head: &Parts,
    asked: &Asked<'_>,
    body: Incoming,
    admitted: Admitted,
) -> Result<Response<Source>, Reason> {
    let Admitted { mut permit, timeouts } = admitted;
    let client = &turn.client;
    let mut upload = Upload::of(head, body, asked);
    // A body that was begun, or a request that must not run twice, is not repeated (RFC 9110 §9.2.2).
    let has_body = !upload.is_empty();
    let may_repeat = !has_body && head.method.is_idempotent();
    let pick = |permit: &Permit, not: Option<&Rc<Endpoint>>| permit.local().pick(not, &client.worker.clock);
    let Some(mut endpoint) = pick(&permit, None) else { return permit.fail(Reason::NoEndpoint) };
    let (mut may_switch, mut may_reuse) = (permit.local().has_several(), true);
    loop {
        let opened = match endpoint.open(may_reuse, timeouts.connect).await {
            Ok(opened) => opened,
            Err(reason) => match pick(&permit, Some(&endpoint)).filter(|_| may_switch) {
                None => return permit.fail(reason),
                Some(other) => {
                    permit.attempt_failed(reason);
                    (endpoint, may_switch, may_reuse) = (other, false, true);
                    continue;
                }
            },
        };
        let outgoing = Outgoing::new(client, head, asked, &mut upload, &endpoint);
        let (kept, failure) = match opened {
            Opened::Own(stream, is_kept) => {
                let way = (stream, is_kept);
                let mut exchange = Exchange::new(turn, permit, &endpoint, way, outgoing, timeouts);
                match poll_fn(|cx| exchange.poll_head(cx, head)).await {
                    Ok(answer) => return Ok(exchange.answer(answer, upload)),
                    Err(failure) => (exchange.into_permit(), failure),
                }
            }
            Opened::Shared(ticket) => {
                let (written, rest) = outgoing.into_parts();
                let request = forward::http2::request(&written, MOST_FIELDS, endpoint.scheme());
                client.worker.give_back(written);
                let mut call = match request {
                    Ok(request) => Call::new(turn, permit, ticket, (request, rest), timeouts),
                    Err(reason) => return permit.fail(reason),
                };
                match poll_fn(|cx| call.poll_head(cx, head)).await {
                    Ok(answer) => return Ok(call.answer(answer)),
                    Err(failure) => {
                        let (permit, rest) = call.into_parts();
                        upload.give_back(rest);
                        (permit, failure)
                    }
                }
            }
        };
        permit = kept.ok_or(Reason::Internal)?;
        let is_whole = !has_body || !upload.is_empty();
        match failure {
            Failure::Because(reason) => return permit.fail(reason),
            Failure::Refused if is_whole && may_reuse => may_reuse = false,
            Failure::Stale if may_repeat => may_reuse = false,
            Failure::Stale | Failure::Refused => return permit.fail(Reason::UpstreamClosed),
        }
    }
}
