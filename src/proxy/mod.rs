//! DATA PLANE, one worker's view. This file is one request, top to bottom.
//!
//! ```text
//! accept → head parsed (hyper) → gate → route → admitted: coin, permit → endpoint → head and body forwarded both ways
//!        → outcome recorded, permit ended
//! ```

/// The atomics of the admission protocol; the loom model puts its own in their place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}

// In reading order: what a request passes, what that stands on, what it runs in.

pub mod gate;

pub mod live;

pub mod admission;

pub mod permit;

pub mod forward;

pub mod body;

pub mod headers;

pub mod error;

pub mod upstream;

pub mod connection;

pub mod listener;

pub mod worker;

pub mod crew;

pub mod clock;

use std::convert::Infallible;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;

use body::{Body, Source};
use connection::Client;
use forward::{Coding, Exchange, Failure, Outgoing};
use gate::Asked;
use headers::{BodyLength, Origin};
use permit::Permit;
use upstream::{Endpoint, Stream};

use crate::metrics::{Kind, Reason};
use crate::table::{EndpointAddr, Timeouts};

/// Answers one request.
///
/// # Errors
/// Never: what goes wrong becomes an answer.
pub async fn serve(client: Rc<Client>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let turn = client.begin();
    let (head, body) = request.into_parts();
    let mut epoch = None;
    let answer = match Asked::of(&head) {
        Ok(asked) => match admit(&client, &asked, &body) {
            Ok(admitted) => {
                epoch = Some(admitted.permit.epoch);
                forward(&client, &head, &asked, body, admitted).await
            }
            Err(reason) => refuse(&client, reason),
        },
        Err(reason) => refuse(&client, reason),
    };
    let mut response = answer.unwrap_or_else(|reason| error::answer(reason, &head.headers).map(Source::Full));
    if let Some(epoch) = epoch.filter(|_| client.settings.epoch_header) {
        response.headers_mut().insert(error::EPOCH, HeaderValue::from(epoch.0));
    }
    Ok(response.map(|source| Body::new(source, turn)))
}

/// Without a version there is nobody else to count it on.
fn refuse<T>(client: &Client, reason: Reason) -> Result<T, Reason> {
    client.worker.refused(reason);
    Err(reason)
}

/// A request that is counted in on the version it was assigned to.
struct Admitted {
    permit: Permit,
    endpoints: Arc<[EndpointAddr]>,
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
        let service = &table.services()[index];
        let version = service.assign(coin).ok_or(Reason::NoEndpoint)?;
        let local = worker.local(snapshot.upstream(index, version));
        if let Ok(permit) = Permit::admit(&local, worker.view.live(), table.epoch(), kind) {
            let endpoints = Arc::clone(&service.versions[version].endpoints);
            return Ok(Admitted { permit, endpoints, timeouts: service.timeouts });
        }
    }
}

/// Sends the request to the version's endpoints: once more, to another one, when nothing of it was sent; or over a fresh
/// connection, when a kept one was closed and the request may be repeated.
async fn forward(
    client: &Rc<Client>,
    head: &Parts,
    asked: &Asked<'_>,
    body: Incoming,
    admitted: Admitted,
) -> Result<Response<Source>, Reason> {
    let Admitted { mut permit, endpoints, timeouts } = admitted;
    let (length, mut outgoing) = outgoing(&head.headers, body, asked.expects_continue);
    let has_body = !matches!(outgoing, Outgoing::Nothing);
    let mut may_reuse = true;
    for is_last in [false, true] {
        let local = permit.local();
        let Some(endpoint) = local.pick(&endpoints, &client.worker.clock) else {
            return fail(permit, Reason::NoEndpoint);
        };
        let stream = match open(&endpoint, may_reuse, timeouts).await {
            Ok(stream) => stream,
            Err(reason) if is_last || endpoints.len() < 2 => return fail(permit, reason),
            Err(reason) => {
                permit.attempt_failed(reason);
                continue;
            }
        };
        let encoded = encode(client, head, asked, length, &endpoint);
        let mut exchange = Exchange::new(client, permit, endpoint, stream, (encoded, outgoing), timeouts);
        let failure = match poll_fn(|cx| exchange.poll_head(cx, &head.method)).await {
            Ok(answer) => {
                let mut response = Response::new(exchange.answer(&answer));
                (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
                return Ok(response);
            }
            Err(failure) => failure,
        };
        let (Some(kept), left) = exchange.into_parts() else { return Err(Reason::Internal) };
        (permit, outgoing) = (kept, left);
        match failure {
            Failure::Because(reason) => return fail(permit, reason),
            // A body that was begun, or a request that must not run twice, is not repeated (RFC 9110 §9.2.2).
            Failure::Stale if is_last || has_body || !head.method.is_idempotent() => {
                return fail(permit, Reason::UpstreamClosed);
            }
            Failure::Stale => may_reuse = false,
        }
    }
    fail(permit, Reason::Internal)
}

fn fail<T>(permit: Permit, reason: Reason) -> Result<T, Reason> {
    permit.failed(reason);
    Err(reason)
}

/// A kept connection if there is a good one, else a new one in time; true when it was kept.
async fn open(endpoint: &Endpoint, may_reuse: bool, timeouts: Timeouts) -> Result<(Stream, bool), Reason> {
    if let Some(stream) = endpoint.reuse().filter(|_| may_reuse) {
        return Ok((stream, true));
    }
    match tokio::time::timeout(timeouts.connect, Stream::connect(&endpoint.address)).await {
        Ok(Ok(stream)) => Ok((stream, false)),
        Ok(Err(_)) => Err(Reason::ConnectFailed),
        Err(_) => Err(Reason::ConnectTimeout),
    }
}

/// How the request's body is delimited, and the body itself if there is one.
fn outgoing(headers: &HeaderMap, body: Incoming, expects_continue: bool) -> (BodyLength, Outgoing) {
    let announced = headers.contains_key(CONTENT_LENGTH);
    if body.is_end_stream() && !headers.contains_key(TRANSFER_ENCODING) {
        let length = if announced { BodyLength::Known(0) } else { BodyLength::None };
        return (length, Outgoing::Nothing);
    }
    let (length, coding) = match body.size_hint().exact() {
        Some(length) => (BodyLength::Known(length), Coding::Plain),
        None => (BodyLength::Unknown, Coding::Chunked),
    };
    let state = if expects_continue { Outgoing::Held } else { Outgoing::Open };
    (length, state(body, coding))
}

/// The request's head as the endpoint gets it.
fn encode(
    client: &Client,
    head: &Parts,
    asked: &Asked<'_>,
    length: BodyLength,
    endpoint: &Endpoint,
) -> Vec<u8> {
    let own;
    let host = if asked.authority.is_empty() {
        own = endpoint.address.to_string();
        own.as_bytes()
    } else {
        asked.authority.as_bytes()
    };
    let origin = Origin {
        client: client.address_text.as_deref(),
        is_trusted: client.is_trusted,
        scheme: "http",
        host,
        via: &client.settings.via,
    };
    let mut out = client.worker.take_buffer();
    headers::write_request(&mut out, &head.method, asked.target, &head.headers, length, origin);
    out
}
