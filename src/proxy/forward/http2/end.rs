//! How a call ends.

use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use h2::Reason as Code;
use http::HeaderMap;
use http_body::Frame;

use super::{Call, status};
use crate::metrics::Reason;
use crate::proxy::forward::Failure;
use crate::proxy::outgoing::{Rest, Waiting};
use crate::proxy::permit::Permit;

impl Call {
    /// What an error before the answer says about the request.
    pub(super) fn failure(&self, error: &h2::Error) -> Failure {
        let is_refused = error.is_reset() && error.reason() == Some(Code::REFUSED_STREAM);
        // h2 ends with the GOAWAY only what is above its last stream: the endpoint has not looked at it (RFC 9113 §6.8).
        if error.is_remote() && error.is_go_away() {
            self.ticket.retire();
        }
        self.broke_off(error);
        if !is_refused && !self.ticket.is_unsent() && self.ticket.is_suspect() {
            return Failure::Suspect(self.ticket.risk());
        }
        if error.is_remote() && (is_refused || error.is_go_away()) {
            return Failure::Refused;
        }
        if error.is_library() {
            return Failure::Because(Reason::UpstreamProtocol);
        }
        // A stream alone that is reset leaves the others their connection, and with it what was gathered there.
        if error.is_io() && self.ticket.withdraw() {
            return Failure::unsent(self.ticket.is_reused);
        }
        if !self.ticket.is_reused || error.is_reset() || !self.interims.are_none() {
            return Failure::Because(Reason::UpstreamClosed);
        }
        if self.ticket.may_be_stale() { Failure::Stale } else { Failure::Broken }
    }

    /// One that the endpoint has ended is none that was given up.
    pub(super) fn broke_off(&self, error: &h2::Error) {
        if error.is_remote() {
            self.ticket.answered();
        }
    }

    /// A gRPC call's status, in its trailers or beside its head.
    pub(super) fn told_status(&mut self, fields: &HeaderMap) {
        let status = fields.get("grpc-status").filter(|_| self.is_grpc);
        if let Some((permit, status)) = self.permit.as_ref().zip(status) {
            permit.grpc_status(Some(status));
            self.owes_status = false;
        }
    }

    /// The permit, until the call is over.
    pub fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// The endpoint has taken too long: is it there at all?
    pub fn doubt(&self) {
        self.ticket.doubt();
    }

    /// It is of the request that this permit is of.
    pub fn adopt(&mut self, permit: Permit) {
        self.record = permit.record().map(Rc::clone);
        self.permit = Some(permit);
    }

    /// The whole answer has come; a request that has not gone out whole is of no use any more.
    pub(super) fn finish(&mut self) {
        self.turn.alarm.clear();
        (self.send, self.answer, self.waiting) = (None, None, Waiting::Sent);
        self.rest = Rest::Nothing;
        self.ticket.answered();
        if let Some(permit) = self.permit.take() {
            if self.owes_status {
                permit.grpc_status(None);
            }
            permit.complete();
        }
    }

    /// Ends it before its time, for a reason that is the client's.
    pub fn give_up(&mut self, reason: Reason) {
        let _ = self.break_off(reason);
    }

    /// Ends the answer before its time. A gRPC client is told so in its own terms, as it would be had its own connection
    /// broken off; everybody else sees a body that is not whole.
    pub(super) fn break_off(&mut self, reason: Reason) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        self.turn.alarm.clear();
        (self.send, self.answer, self.waiting) = (None, None, Waiting::Sent);
        if let Some(permit) = self.permit.take() {
            permit.failed(reason);
        }
        let status = status::of(reason).filter(|_| self.takes_status);
        Poll::Ready(Some(match status {
            Some(status) => Ok(Frame::trailers(status::trailers(status, reason))),
            None => Err(reason),
        }))
    }
}
