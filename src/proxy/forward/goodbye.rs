//! How an exchange ends before its time, because its version is left.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::{Exchange, Failure};
use crate::metrics::Reason;
use crate::proxy::bounds::Bounds;
use crate::proxy::clock::Alarm;
use crate::proxy::connection::Turn;
use crate::proxy::farewell::Farewell;
use crate::proxy::permit::Permit;
use crate::proxy::upstream::flights::Ask;

/// What is asked of an exchange that has this permit.
pub(super) fn ask(permit: Option<&Permit>) -> Ask {
    permit.map_or(Ask::Stay, Permit::ask)
}

/// Why it has to end at this tick, whatever it is at.
pub(super) fn is_cut(bounds: &Bounds, now: u64, permit: Option<&Permit>) -> Option<Reason> {
    if bounds.is_over(now) {
        return Some(Reason::Deadline);
    }
    (ask(permit) == Ask::Cut).then_some(Reason::DrainDeadline)
}

/// Ready with why it has to end; else who polls is woken when something is asked of it.
pub(super) fn poll_cut(cut: Option<Reason>, alarm: &Alarm, cx: &Context<'_>) -> Poll<Reason> {
    match cut {
        Some(reason) => Poll::Ready(reason),
        None => {
            let _ = alarm.poll(cx);
            Poll::Pending
        }
    }
}

/// As [`Exchange::poll_cut`], of a request that has no way yet.
pub fn poll_cut_before(
    turn: &Turn,
    bounds: &Bounds,
    permit: Option<&Permit>,
    cx: &Context<'_>,
) -> Poll<Failure> {
    let cut = is_cut(bounds, turn.client.worker.clock.ticks(), permit);
    poll_cut(cut, &turn.alarm, cx).map(Failure::Because)
}

/// What is still to be said to its client before it ends.
pub(super) fn last_words(farewell: &mut Farewell, permit: Option<&Permit>) -> Option<Frame<Bytes>> {
    let retry = permit.and_then(|permit| permit.local().retry());
    farewell.last_words(retry).map(Frame::data)
}

impl Exchange {
    pub(super) fn is_cut(&self) -> Option<Reason> {
        is_cut(&self.bounds, self.now(), self.permit.as_ref())
    }

    /// Ready when it has to end, although its client still has to take what there is of it; else who waits for the client
    /// is woken when that comes to be.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<Reason> {
        poll_cut(self.is_cut(), &self.turn.alarm, cx)
    }

    pub(super) fn ask(&self) -> Ask {
        ask(self.permit.as_ref())
    }

    /// Ends the answer in its own words, where nothing is torn by it.
    pub(super) fn say_goodbye(&mut self) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if let Some(words) = last_words(&mut self.farewell, self.permit.as_ref()) {
            return Poll::Ready(Some(Ok(words)));
        }
        self.stream = None;
        self.turn.alarm.clear();
        if let Some(permit) = self.permit.take() {
            permit.said_goodbye();
        }
        Poll::Ready(None)
    }
}
