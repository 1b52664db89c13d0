//! How an exchange ends before its time, because its version is left.

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;

use super::Exchange;
use crate::metrics::Reason;
use crate::proxy::permit::Permit;
use crate::proxy::upstream::flights::Ask;

impl Exchange {
    /// Why it has to end now, whatever it is at.
    pub(super) fn is_cut(&self) -> Option<Reason> {
        if self.bounds.is_over(self.now()) {
            return Some(Reason::Deadline);
        }
        (self.ask() == Ask::Cut).then_some(Reason::DrainDeadline)
    }

    pub(super) fn ask(&self) -> Ask {
        self.permit.as_ref().map_or(Ask::Stay, Permit::ask)
    }

    /// Ends the answer in its own words, where nothing is torn by it.
    pub(super) fn say_goodbye(&mut self) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let retry = self.permit.as_ref().and_then(|permit| permit.local().flights().retry());
        if let Some(words) = self.farewell.last_words(retry) {
            return Poll::Ready(Some(Ok(Frame::data(words))));
        }
        self.stream = None;
        self.turn.alarm.clear();
        if let Some(permit) = self.permit.take() {
            permit.said_goodbye();
        }
        Poll::Ready(None)
    }
}
