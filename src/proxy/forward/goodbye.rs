//! How an exchange ends before its time, because its version is left.

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;

use super::Exchange;
use crate::metrics::Reason;
use crate::proxy::bounds::Bounds;
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

/// What is still to be said to its client before it ends.
pub(super) fn last_words(farewell: &mut Farewell, permit: Option<&Permit>) -> Option<Frame<Bytes>> {
    let retry = permit.and_then(|permit| permit.local().retry());
    farewell.last_words(retry).map(Frame::data)
}

impl Exchange {
    pub(super) fn is_cut(&self) -> Option<Reason> {
        is_cut(&self.bounds, self.now(), self.permit.as_ref())
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
