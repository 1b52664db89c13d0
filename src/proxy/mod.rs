//! DATA PLANE, one worker's view. This file is one request, top to bottom.
//!
//! ```text
//! accept → (TLS) → head parsed → gate → route → (held) → admitted: rule, pin or coin, permit → endpoint → head and body forwarded both ways
//!        → (failed, and shielded: admitted once more, to stable) → (mirrored: a copy admitted beside it) → outcome recorded, permit ended
//! ```

/// The atomics of the admission protocol; the loom model puts its own in their place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}

// What a request passes, in order.
pub mod gate;
pub mod hops;

mod baggage;

mod entry;
pub mod hold;
pub mod quota;

pub mod admission;
pub mod permit;

mod attempts;
mod choice;
pub mod forward;
pub mod mirror;
pub mod outgoing;
mod shield;
pub mod sticky;
mod targeting;

pub mod body;
pub mod bounds;
pub mod debt;
pub mod pipe;

pub mod farewell;
pub mod tunnel;
pub mod upgrade;
pub mod websocket;

// What goes along with it.
pub mod story;
pub mod trailers;

pub mod answer;
pub mod error;
pub mod fields;
pub mod forwarded;
pub mod head;
pub mod headers;
pub mod identity;
pub mod journal;
pub mod ledger;
pub mod media;
pub mod rewrite;

// Where it comes from, and where it goes.
pub mod connection;
pub mod deferred;
pub mod entrance;
pub mod http1;
pub mod inherited;
pub mod listener;
pub mod peer;
pub mod proxy_protocol;
pub mod tls;
pub mod upstream;

// What all of that runs in.
pub mod live;
pub mod settings;
pub mod worker;

pub mod clock;
pub mod commons;
pub mod crew;
pub mod descriptors;
pub mod posts;
pub mod pressure;
mod usher;
mod warmer;

use http::HeaderValue;
use http::header::STRICT_TRANSPORT_SECURITY;

use attempts::forward;
use body::Incoming;
use connection::{Client, Turn};
use entry::{Admitted, Entry, admit};
use fields::Note;
use gate::Asked;
use head::{Answer, Parts};
use outgoing::Upload;
use story::Story;

use crate::metrics::Reason;

/// Answers one request; what goes wrong becomes an answer too.
pub async fn serve(turn: Turn, mut head: Box<Parts>, body: Incoming) -> Answer {
    let client = &turn.client;
    let mut story = Story::begin(client, &head);
    let answer = respond(&turn, &mut head, body, &mut story).await;
    let mut answer = answer.unwrap_or_else(|reason| story.failed(client, reason, &head));
    story.finish(client, &head, &mut answer);
    if let Some(epoch) = story.epoch.filter(|_| client.settings().epoch_header) {
        answer.headers.insert(error::EPOCH, HeaderValue::from(epoch.0));
    }
    if let Some(policy) = &client.arrival.entrance.hsts {
        answer.headers.insert(STRICT_TRANSPORT_SECURITY, policy.clone());
    }
    answer
}

/// The answer of whoever the request is for.
async fn respond(turn: &Turn, head: &mut Parts, body: Incoming, story: &mut Story) -> Result<Answer, Reason> {
    let client = &turn.client;
    if head.headers.has_underscores() {
        client.settings().underscores.clean(&mut head.headers)?;
    }
    let is_trusted = client.arrival.peer.is_trusted();
    gate::disown(&mut head.headers, is_trusted, &client.settings().subject_headers);
    let mut asked = Asked::of(head)?;
    if let Some(elsewhere) = at_the_door(client, &asked)? {
        story.record.as_ref().inspect(|record| record.answered_by_itself("redirect"));
        return Ok(elsewhere);
    }
    let hops = hops::left(head)?;
    if hops == Some(0) {
        return story.ends_here(client, head);
    }
    if head.headers.has(Note::Baggage) {
        story.pin = baggage::take(client, &mut head.headers);
        asked = Asked::of(head)?;
    }
    let mut place = None;
    let mut admitted = loop {
        match admit(client, head, &asked, &body, story, &mut place)? {
            Entry::Admitted(admitted) => break admitted,
            Entry::OwnAnswer => return story.answer(client, head, &asked),
            Entry::Check => return Ok(story.checked(client)),
            Entry::Held => {
                head.detach();
                asked = Asked::of(head)?;
                // Boxed: hardly any request waits, and all would have its size.
                Box::pin(story.wait(client, hold::wait(turn, place.as_deref()))).await?;
            }
        }
    };
    if let Some(place) = place {
        attempts::stay_in_line(&mut admitted.permit, place);
    }
    if let Some(offer) = admitted.offer.take() {
        head.extensions.insert(offer);
        asked = Asked::of(head)?;
    }
    if story.is_marked() || hops.is_some() {
        story.mark(head, hops);
        asked = Asked::of(head)?;
    }
    if admitted.is_attended {
        // Boxed: few are, and all would have its size.
        return Box::pin(mirror::serve(turn, (head, &asked), body, admitted, story)).await;
    }
    let Admitted { permit, terms, .. } = admitted;
    let rewritten = story.rewritten(client, head, &asked);
    let asked = rewritten.as_ref().map_or(asked, |rewritten| rewritten.asked(&asked));
    let head = rewritten.as_ref().map_or(&*head, |rewritten| &rewritten.head);
    let mut upload = Upload::of(head, body, &asked, terms.limits.request_body);
    forward(turn, (head, &asked), &mut upload, permit, &terms, story.record.as_deref(), None).await
}

/// What the listener itself has to say to a request: `Some` answer, or nothing.
fn at_the_door(client: &Client, asked: &Asked<'_>) -> Result<Option<Answer>, Reason> {
    let arrival = &client.arrival;
    arrival.check_host(asked)?;
    let Some(redirect) = &arrival.entrance.redirect else { return Ok(None) };
    let answer = redirect.answer(asked)?;
    if answer.is_some() {
        client.worker.redirected();
    }
    Ok(answer.map(Answer::from))
}
