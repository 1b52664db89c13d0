//! A copy on its way: sent, answered, compared, forgotten.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout_at};

use super::digest::{Digest, Sum, Watched};
use super::exchange::{Answered, Broken, Message};
use super::flight::Flight;
use super::place::Place;
use super::{Source, are_welcome};
use crate::proxy::body::Flow;
use crate::proxy::clock::{self, TICK};
use crate::proxy::descriptors;
use crate::proxy::fields::Note;
use crate::proxy::head::Answer;
use crate::proxy::media;
use crate::proxy::upstream::Seat;
use crate::proxy::worker::Worker;
use crate::table::Compare;

/// How many looks, of one tick or two, an exclusive flip, behind which users wait, waits for a copy that changes nothing: about half a second.
/// Most have their answer by then.
const PATIENCE: u32 = 2;

/// A copy that is counted in.
pub(super) struct Copy {
    pub(super) flight: Flight,
    pub(super) _place: Place,
    pub(super) seat: Rc<Seat>,
    pub(super) message: Message,
    pub(super) expected: Expected,
    pub(super) timeout: Duration,
    /// True when it changes nothing.
    pub(super) only_reads: bool,
}

/// What the request itself was answered.
pub(super) struct Expected {
    status: u16,
    compare: Compare,
    body: Body,
    /// How long a body may be that is compared.
    most: u64,
}

/// Its body, as far as that is compared.
enum Body {
    Untold,
    Known(Digest),
    /// Told when it has passed.
    Coming(oneshot::Receiver<Digest>),
}

impl Expected {
    /// By this answer, whose body is watched from now on if it is compared.
    pub(super) fn of(answer: &mut Answer, compare: Compare, most: u64) -> Self {
        let body = if compare == Compare::Body { Self::watch(answer, most) } else { Body::Untold };
        Self { status: answer.status.as_u16(), compare, body, most }
    }

    fn watch(answer: &mut Answer, most: u64) -> Body {
        let content = answer.headers.first(Note::ContentType).unwrap_or_default();
        if media::is_events(content) {
            return Body::Untold;
        }
        match std::mem::replace(&mut answer.source, Source::Full(bytes::Bytes::new())) {
            Source::Full(bytes) => {
                let mut sum = Sum::new(most);
                let body = if sum.add(&bytes) { Body::Known(sum.digest()) } else { Body::Untold };
                answer.source = Source::Full(bytes);
                body
            }
            Source::Stream(flow) if flow.remaining().is_none_or(|left| left <= most) => {
                let (watched, told) = Watched::new(flow, most);
                answer.source = Source::Stream(Flow::Watched(Box::new(watched)));
                Body::Coming(told)
            }
            other => {
                answer.source = other;
                Body::Untold
            }
        }
    }

    /// How much of the copy's body is read to be compared, if it is.
    fn reads(&self) -> Option<u64> {
        (!matches!(self.body, Body::Untold)).then_some(self.most)
    }

    /// Whether the copy was answered otherwise, as far as that is compared; `None` while that hangs on what is to come of the answer.
    fn differs_at_once(&self, answered: &Result<Answered, Broken>) -> Option<bool> {
        match (answered, &self.body) {
            _ if self.compare == Compare::None => Some(false),
            (Err(Broken), _) => Some(true),
            (Ok(answered), _) if answered.status != self.status => Some(true),
            // Not all there, or too long.
            (Ok(Answered { body: None, .. }), _) | (Ok(_), Body::Untold) => Some(false),
            (Ok(Answered { body: Some(body), .. }), Body::Known(expected)) => Some(*body != Ok(*expected)),
            (Ok(_), Body::Coming(_)) => None,
        }
    }

    /// The same, once that has come, if it does by then.
    async fn differs_later(self, answered: Result<Answered, Broken>, end: Instant) -> bool {
        let (Body::Coming(told), Ok(Answered { body: Some(body), .. })) = (self.body, answered) else {
            return false;
        };
        let told = timeout_at(end, told).await;
        told.is_ok_and(|told| told.is_ok_and(|expected| body != Ok(expected)))
    }
}

impl Copy {
    /// Sends it, while its user has his answer.
    pub(super) fn send(self, worker: Rc<Worker>) {
        // Dropped with the worker's runtime, if that ends before.
        spawn_local(async move { self.run(&worker).await });
    }

    async fn run(self, worker: &Worker) {
        let Self { flight, _place, seat, message, expected, timeout, only_reads } = self;
        let Some(_descriptor) = descriptors::for_copy() else { return };
        let end = Instant::from_std(clock::now()) + timeout;
        let is_sent = Cell::new(false);
        let exchange = message.exchange(&seat.endpoint, expected.reads(), end, &is_sent);
        let answered = tokio::select! {
            answered = exchange => Some(answered),
            () = unwanted(worker, &flight, only_reads) => None,
        };
        if !is_sent.get() {
            return;
        }
        let local = flight.local();
        local.shard().cells().mirror();
        let Some(answered) = answered else { return };
        let Some(differs) = expected.differs_at_once(&answered) else {
            // The version is done with it, and its user is not.
            drop(flight);
            if expected.differs_later(answered, end).await {
                local.shard().cells().differ();
            }
            return;
        };
        if differs {
            local.shard().cells().differ();
        }
    }
}

/// Ready when the copy is not to go on: what is short is for users, and none of them waits for long for a copy that changes nothing.
async fn unwanted(worker: &Worker, flight: &Flight, only_reads: bool) {
    let mut patience = PATIENCE;
    loop {
        flight.alarm.set(TICK);
        poll_fn(|cx| if flight.is_cut() { Poll::Ready(()) } else { flight.alarm.poll(cx) }).await;
        if flight.is_cut() || !are_welcome(worker) || !descriptors::are_plenty() {
            return;
        }
        if only_reads && flight.is_waited_for(worker) {
            match patience.checked_sub(1) {
                Some(left) => patience = left,
                None => return,
            }
        }
    }
}
