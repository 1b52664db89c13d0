//! How a call ends before its time, because its version is left.

use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::super::goodbye;
use super::{Call, status};
use crate::metrics::Reason;
use crate::proxy::outgoing::Waiting;
use crate::proxy::upstream::flights::Ask;

impl Call {
    pub(super) fn is_cut(&self) -> Option<Reason> {
        goodbye::is_cut(&self.bounds, self.now(), self.permit.as_ref())
    }

    /// As [`Exchange::poll_cut`](super::super::Exchange::poll_cut).
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<Reason> {
        goodbye::poll_cut(self.is_cut(), &self.turn.alarm, cx)
    }

    pub(super) fn ask(&self) -> Ask {
        goodbye::ask(self.permit.as_ref())
    }

    /// Ends the answer in its own words, where nothing is torn by it; what the endpoint still has to say is reset.
    pub(super) fn say_goodbye(&mut self) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if let Some(words) = goodbye::last_words(&mut self.farewell, self.permit.as_ref()) {
            return Poll::Ready(Some(Ok(words)));
        }
        self.turn.alarm.clear();
        (self.send, self.answer, self.waiting) = (None, None, Waiting::Sent);
        if let Some(permit) = self.permit.take() {
            permit.said_goodbye();
        }
        Poll::Ready(self.takes_status.then(|| Ok(Frame::trailers(status::leaving()))))
    }
}
