//! `GET /v1/events`: what happens, as it happens.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::api::{Event, Problem};
use super::call::Call;
use super::openapi::ReadResponses;
use super::streams::Place;
use crate::control::Notice;
use crate::release::Scopes;

/// A comment line after so much silence shows that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Server-sent events: changes and drains of the services that the caller may look at, as they happen, until the proxy stops, or over TCP
/// until the caller may not what he might. A listener that is too slow is told by
/// `lagged`.
#[utoipa::path(get, path = "/v1/events", tag = "proxy",
    responses((status = 200, body = Event, description = "one a `data` line; its `type` is the event's name",
        content_type = "text/event-stream"), ReadResponses))]
pub(super) async fn events(call: Call) -> Result<Response, Box<Problem>> {
    let place = call.app.streams.open(&call.caller)?;
    // Subscribed before the epoch is read: nothing falls between the two.
    let notices = call.app.control.subscribe();
    let hello = Event::Hello { epoch: call.app.control.live().epoch().0 };
    let events = stream::iter([hello]).chain(follow(notices, place));
    let (caller, closing) = (call.caller, call.app.closing.clone());
    let scopes = caller.scopes().clone();
    let events = events.filter_map(move |event| std::future::ready(seen_by(event, &scopes)));
    // Who may not look any more is told nothing more.
    let events = events.take_until(async move {
        tokio::select! {
            () = closing.cancelled() => {}
            () = caller.until_gone() => {}
        }
    });
    let events = events.map(|event| Ok::<_, Infallible>(line(&event)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// What somebody of these scopes is told of it.
fn seen_by(event: Event, scopes: &Scopes) -> Option<Event> {
    if scopes.read_all() {
        return Some(event);
    }
    match event {
        Event::Changed { change } => change.seen_by(scopes).map(|change| Event::Changed { change }),
        // It quotes the file.
        Event::ReloadFailed { .. } => None,
        event => event.services().iter().all(|service| scopes.read(service)).then_some(event),
    }
}

fn follow(notices: Receiver<Notice>, place: Place) -> impl Stream<Item = Event> {
    stream::unfold((notices, place), |(mut notices, place)| async {
        let event = match notices.recv().await {
            Ok(notice) => Event::from(&notice),
            Err(RecvError::Lagged(missed)) => Event::Lagged { missed },
            Err(RecvError::Closed) => return None,
        };
        Some((event, (notices, place)))
    })
}

fn line(event: &Event) -> sse::Event {
    let text = serde_json::to_string(event).unwrap_or_default();
    let line = sse::Event::default().event(event.name()).data(text);
    match event {
        Event::Changed { change } => line.id(change.epoch.to_string()),
        Event::Hello { .. }
        | Event::Drained { .. }
        | Event::Health { .. }
        | Event::Ramp { .. }
        | Event::ReloadFailed { .. }
        | Event::Rollout { .. }
        | Event::Verdict { .. }
        | Event::Lagged { .. } => line,
    }
}
