//! How an exchange ends.

use std::rc::Rc;
use std::task::Poll;

use super::Exchange;
use crate::metrics::Reason;
use crate::proxy::http1::Head;
use crate::proxy::outgoing::Rest;
use crate::proxy::permit::Permit;

impl Exchange {
    /// True when the answer's last byte was handed on.
    pub fn is_over(&self) -> bool {
        self.permit.is_none()
    }

    /// How many bytes of the answer's body are left, if that is known.
    pub fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    /// The permit, until the exchange is over.
    pub fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// It is of the request that this permit is of.
    pub fn adopt(&mut self, permit: Permit) {
        self.record = permit.record().map(Rc::clone);
        self.permit = Some(permit);
    }

    /// What is left after a [`Failure`](super::Failure): the permit, and the request's body if nothing of it was taken.
    pub fn into_parts(mut self: Box<Self>) -> (Option<Permit>, Rest) {
        self.turn.alarm.clear();
        (self.permit.take(), self.outgoing.into_untouched())
    }

    /// Nobody wants the answer with this head: what is left of the request. The connection is kept if all of the answer
    /// has come.
    pub fn discard(mut self: Box<Self>, head: &Head) -> Option<Permit> {
        self.turn.alarm.clear();
        let permit = self.permit.take();
        let length = head.body.remaining().and_then(|length| usize::try_from(length).ok());
        if let Some(length) = length.filter(|length| *length <= self.input.len()) {
            drop(self.input.split_to(length));
            self.keep_alive = head.keep_alive;
            self.finish();
        }
        permit
    }

    /// The connection is for this client alone, if the endpoint takes who asks on it for this client.
    pub(super) fn bind(&mut self, head: &Head) {
        if head.authenticates_connection() {
            let owner = self.turn.client.arrival.peer.owner();
            self.past.iter_mut().for_each(|past| past.belongs_to(owner));
        }
    }

    /// Gives the connection back if its next answer can only be the next request's, and ends the permit.
    pub(super) fn finish(&mut self) {
        self.turn.alarm.clear();
        let clean = self.keep_alive && self.outgoing.is_whole() && self.input.is_empty();
        if let (Some(stream), Some(past)) = (self.stream.take().filter(|_| clean), self.past.take()) {
            let worker = &self.turn.client.worker;
            self.endpoint.keep(stream, past, self.turn.client.settings().pool_size, &worker.clock);
        }
        if let Some(permit) = self.permit.take() {
            permit.complete();
        }
    }

    /// Ends it before its time, for a reason that is the client's.
    pub fn give_up(&mut self, reason: Reason) {
        let _: Poll<Option<Result<(), Reason>>> = self.break_off(reason);
    }

    pub(super) fn break_off<T>(&mut self, reason: Reason) -> Poll<Option<Result<T, Reason>>> {
        self.stream = None;
        self.turn.alarm.clear();
        if let Some(permit) = self.permit.take() {
            permit.failed(reason);
        }
        Poll::Ready(Some(Err(reason)))
    }
}
