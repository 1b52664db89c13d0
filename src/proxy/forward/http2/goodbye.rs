//! How a call ends before its time, because its version is left.

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;

use super::{Call, status};
use crate::metrics::Reason;
use crate::proxy::outgoing::Waiting;
use crate::proxy::permit::Permit;
use crate::proxy::upstream::flights::Ask;

impl Call {
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

    /// Ends the answer in its own words, where nothing is torn by it; what the endpoint still has to say is reset.
    pub(super) fn say_goodbye(&mut self) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        let retry = self.permit.as_ref().and_then(|permit| permit.local().flights().retry());
        if let Some(words) = self.farewell.last_words(retry) {
            return Poll::Ready(Some(Ok(Frame::data(words))));
        }
        self.turn.alarm.clear();
        (self.send, self.answer, self.waiting) = (None, None, Waiting::Sent);
        if let Some(permit) = self.permit.take() {
            permit.said_goodbye();
        }
        Poll::Ready(self.takes_status.then(|| Ok(Frame::trailers(status::leaving()))))
    }
}
