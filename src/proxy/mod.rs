//! DATA PLANE, one worker's view. This file is one request, top to bottom.
//!
//! ```text
//! accept → (TLS) → head parsed → gate → route → (held) → admitted: coin, permit → endpoint → head and body forwarded both ways
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

pub mod hold;

pub mod quota;

pub mod permit;

mod attempts;

pub mod forward;

pub mod outgoing;

pub mod bounds;

pub mod debt;

pub mod body;

pub mod story;

pub mod identity;

pub mod rewrite;

pub mod answer;

pub mod journal;

pub mod headers;

pub mod deferred;

pub mod upgrade;

pub mod tunnel;

pub mod websocket;

pub mod farewell;

pub mod forwarded;

pub mod peer;

pub mod error;

pub mod upstream;

pub mod connection;

pub mod http1;

pub mod listener;

pub mod inherited;

pub mod proxy_protocol;

pub mod entrance;

pub mod tls;

pub mod settings;

pub mod worker;

mod usher;

pub mod commons;

pub mod pressure;

pub mod crew;

pub mod clock;

use http::header::STRICT_TRANSPORT_SECURITY;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use http_body::Body as _;

use admission::Class;
use attempts::forward;
use body::{Incoming, Source};
use connection::{Client, Turn};
use gate::Asked;
use hold::{Place, Way};
use permit::Permit;
use pressure::Pressure;
use quota::Slot;
use story::Story;

use crate::metrics::{Kind, Reason};
use crate::table::{ServiceLimits, Timeouts};

/// Answers one request; what goes wrong becomes an answer too.
pub async fn serve(turn: Turn, request: Request<Incoming>) -> Response<Source> {
    let (mut head, body) = request.into_parts();
    let client = &turn.client;
    let mut story = Story::begin(client, &mut head);
    let answer = respond(&turn, &mut head, body, &mut story).await;
    let mut response = answer.unwrap_or_else(|reason| story.failed(client, reason, &head));
    story.finish(client, &head, &mut response);
    if let Some(epoch) = story.epoch.filter(|_| client.settings.epoch_header) {
        response.headers_mut().insert(error::EPOCH, HeaderValue::from(epoch.0));
    }
    if let Some(policy) = &client.arrival.entrance.hsts {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, policy.clone());
    }
    response
}

/// The answer of whoever the request is for.
async fn respond(
    turn: &Turn,
    head: &mut Parts,
    body: Incoming,
    story: &mut Story,
) -> Result<Response<Source>, Reason> {
    let client = &turn.client;
    // Without a version there is nobody else to count it on.
    let refused = |reason| {
        client.worker.refused(reason);
        reason
    };
    client.settings.underscores.clean(&mut head.headers).map_err(refused)?;
    let head = &*head;
    let asked = Asked::of(head).map_err(refused)?;
    if let Some(elsewhere) = at_the_door(client, &asked).map_err(refused)? {
        story.record.as_ref().inspect(|record| record.answered_by_itself("redirect"));
        return Ok(elsewhere);
    }
    let mut place = None;
    let admitted = loop {
        match admit(client, head, &asked, &body, story, &mut place).map_err(refused)? {
            Entry::Admitted(admitted) => break admitted,
            Entry::OwnAnswer => return story.answer(client, head, &asked).map_err(refused),
            Entry::Check => return Ok(story.checked(client)),
            // Boxed: hardly any request waits, and all would have its size.
            Entry::Held => Box::pin(hold::wait(turn, place.as_deref())).await.map_err(refused)?,
        }
    };
    // It is the next one's turn.
    drop(place);
    let rewritten = story.rewritten(client, head, &asked);
    let asked = rewritten.as_ref().map_or(asked, |rewritten| rewritten.asked(&asked));
    let head = rewritten.as_ref().map_or(head, |rewritten| &rewritten.head);
    forward(turn, head, &asked, body, admitted, story.record.as_deref()).await
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
    limits: ServiceLimits,
}

/// How far a request has come.
#[expect(
    clippy::large_enum_variant,
    reason = "moved once and kept nowhere; a box would be an allocation a request"
)]
enum Entry {
    Admitted(Admitted),
    /// Its route answers by itself.
    OwnAnswer,
    /// Its service is held, and it only asks whether that is well.
    Check,
    /// Its service is held, and it has a place in the line.
    Held,
}

/// Routes the request and assigns it by its coin, under one epoch; again when a change came in between (G1).
fn admit(
    client: &Client,
    head: &Parts,
    asked: &Asked<'_>,
    body: &Incoming,
    story: &mut Story,
    place: &mut Option<Box<Place>>,
) -> Result<Entry, Reason> {
    let worker = &client.worker;
    if worker.commons.pressure() == Pressure::Critical {
        return Err(Reason::Overload);
    }
    let mut slot: Option<Slot> = None;
    let coin = worker.coin();
    let kind = if body.is_end_stream() { Kind::Request } else { Kind::Upload };
    let writes = !head.method.is_safe() || asked.upgrade.is_some();
    loop {
        let snapshot = worker.view.newest();
        let table = &snapshot.table;
        let routed = table.route(asked).ok_or(Reason::NoRoute)?;
        if story.take(&snapshot, routed) {
            return Ok(Entry::OwnAnswer);
        }
        let lane = snapshot.assign(routed.service, coin).ok_or(Reason::NoEndpoint)?;
        if lane.hold.is_some() || !worker.lines.are_empty() {
            let held = (&*table.services()[routed.service], lane.hold.as_ref());
            match hold::look(worker, held, (head, asked.raw_path(), writes), place) {
                Way::Free => {}
                Way::Held => return Ok(Entry::Held),
                Way::Answered => return Ok(Entry::Check),
            }
        }
        let limits = lane.limits;
        if body.size_hint().exact().zip(limits.request_body).is_some_and(|(length, most)| length > most) {
            return Err(Reason::RequestTooLarge);
        }
        if let Some(quota) = &lane.quota {
            // Once a request, also when a change came in between.
            slot = match slot.filter(|slot| slot.is_of(quota)) {
                None => {
                    let entered = quota.enter(|| client.arrival.peer.client(&head.headers));
                    Some(entered.map_err(|not_now| story.not_now(not_now))?)
                }
                same => same,
            };
        }
        let local = worker.local(lane);
        if let Ok(mut permit) =
            Permit::admit(&local, worker.view.live(), table.epoch(), (kind, Class::of(writes)))
        {
            permit.slot = slot;
            local.follow(&lane.target);
            story.assigned(lane, &mut permit);
            return Ok(Entry::Admitted(Admitted { permit, timeouts: lane.timeouts, limits }));
        }
    }
}
