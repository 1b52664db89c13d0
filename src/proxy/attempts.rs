//! A request's attempts at the endpoints of its version.

use std::future::poll_fn;
use std::rc::Rc;
use std::slice;

use http::Response;
use http::request::Parts;

use super::body::{Incoming, Source};
use super::bounds::Bounds;
use super::connection::Turn;
use super::entry::Admitted;
use super::forward::{Call, Exchange, Failure, http2};
use super::gate::Asked;
use super::journal::Record;
use super::outgoing::{Outgoing, Upload};
use super::permit::Permit;
use super::upstream::{Opened, Seat};
use crate::metrics::Reason;

/// Sends the request to the version's endpoints: to another one when the first does not accept, and over a fresh
/// connection when a kept one had been closed and the request may be repeated.
pub(super) async fn forward(
    turn: &Turn,
    head: &Parts,
    asked: &Asked<'_>,
    body: Incoming,
    admitted: Admitted,
    record: Option<&Record>,
) -> Result<Response<Source>, Reason> {
    let Admitted { mut permit, timeouts, limits } = admitted;
    let client = &turn.client;
    let bounds = Bounds::new(client, &head.headers, timeouts, limits);
    turn.is_due(bounds.deadline());
    let mut upload = Upload::of(head, body, asked, limits.request_body);
    let most = limits.request_body.unwrap_or(u64::MAX);
    // A body that was begun, or a request that must not run twice, is not repeated (RFC 9110 §9.2.2).
    let has_body = !upload.is_empty();
    let may_repeat = !has_body && (head.method.is_idempotent() || asked.upgrade.is_some());
    let pick = |permit: &Permit, tried: &[Rc<Seat>]| permit.local().pick(tried, &client.worker.clock);
    let Some(mut seat) = pick(&permit, &[]) else { return permit.fail(Reason::NoEndpoint) };
    let (mut may_switch, mut may_reuse) = (true, true);
    loop {
        let endpoint = Rc::clone(&seat.endpoint);
        record.inspect(|record| record.attempt(&endpoint));
        permit.goes_to(&seat, &turn.alarm);
        let opened = match endpoint.open(may_reuse, timeouts.connect, &client.arrival.peer).await {
            Ok(opened) => opened,
            Err(reason) => match pick(&permit, slice::from_ref(&seat)).filter(|_| may_switch) {
                None => return permit.fail(reason),
                Some(other) => {
                    permit.attempt_failed(reason);
                    (seat, may_switch, may_reuse) = (other, false, true);
                    continue;
                }
            },
        };
        let outgoing = Outgoing::new(client, head, asked, &mut upload, &endpoint);
        let (kept, failure) = match opened {
            Opened::Own(stream, is_kept) => {
                record.inspect(|record| record.connected(is_kept));
                let way = (stream, is_kept);
                let mut exchange = Exchange::new(turn, permit, &endpoint, way, outgoing, timeouts, bounds);
                match poll_fn(|cx| exchange.poll_head(cx, head)).await {
                    Ok(answer) => return Ok(exchange.answer(answer, upload)),
                    Err(failure) => (exchange.into_permit(), failure),
                }
            }
            Opened::Shared(ticket) => {
                record.inspect(|record| record.connected(true));
                let (written, rest, upgrade) = outgoing.into_parts();
                let request = http2::request(&written, endpoint.scheme());
                client.worker.give_back(written);
                let mut call = match request {
                    Ok(request) => {
                        let what = (request, upgrade, rest, most);
                        Call::new(turn, permit, ticket, what, timeouts, bounds)
                    }
                    Err(reason) => return permit.fail(reason),
                };
                match poll_fn(|cx| call.poll_head(cx, head)).await {
                    Ok(answer) => return Ok(call.answer(answer, upload, head)),
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
