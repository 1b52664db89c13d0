//! A request's place on a connection.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason as Code, SendStream, StreamId};
use http::Request;

use super::{Connection, Risk};

/// A request's place on a connection.
#[derive(Debug)]
pub struct Ticket {
    pub(super) connection: Rc<Connection>,
    /// True when the connection had been there before.
    pub is_reused: bool,
    /// For which the connection is its own; none, when it is not.
    pub(super) risk: Risk,
    /// The request, once it was sent.
    pub(super) stream: Cell<Option<StreamId>>,
    /// How many bytes had gone out on the connection by then.
    pub(super) sent: Cell<u64>,
    /// True when it was not given up.
    pub(super) is_answered: Cell<bool>,
}

impl Ticket {
    /// Sends a request's head.
    ///
    /// # Errors
    /// When the connection takes no more requests; nothing of it was sent then.
    pub fn send(
        &self,
        request: Request<()>,
        is_end: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let state = &self.connection.state;
        let sent = self.connection.send.clone().send_request(request, is_end);
        let sent = sent.inspect_err(|_| state.end())?;
        self.stream.set(Some(sent.0.stream_id()));
        self.sent.set(state.io.sent());
        state.newest.set(self.stream.get());
        Ok(sent)
    }

    /// How large a head the endpoint says that it takes.
    #[must_use]
    pub fn most_head(&self) -> Option<usize> {
        self.connection.most_head.and_then(|most| usize::try_from(most).ok())
    }

    /// True when trailers put nobody else at risk.
    #[must_use]
    pub fn takes_trailers(&self) -> bool {
        self.risk != Risk::None || self.connection.most_head.is_some()
    }

    /// The risk for which the request has the connection for itself.
    #[must_use]
    pub fn risk(&self) -> Risk {
        self.risk
    }

    /// True when the endpoint has ended the connection with an error, and this request may be why: the last that it was sent.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        let Some(end) = self.connection.end_of() else { return false };
        let is_error = end.is_remote() && end.is_go_away() && end.reason() != Some(Code::NO_ERROR);
        is_error && self.connection.state.newest.get() == self.stream.get()
    }

    /// True while nothing of the request can have gone out, since nothing has.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.sent.get() == self.connection.state.io.sent()
    }

    /// True when nothing of the request has gone out on its connection, which has failed; and nothing will: with what was gathered
    /// there the connection is closed at once. An endpoint that has only ended its own side might read on.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        let (state, is_unsent) = (&self.connection.state, self.is_unsent());
        if is_unsent {
            state.io.close();
            // Its task has no socket any more that would wake it.
            state.pulse.wake();
        }
        is_unsent
    }

    /// True when the connection has only just been taken for a request, after so long without one that the endpoint may have closed it
    /// for that.
    #[must_use]
    pub fn may_be_stale(&self) -> bool {
        let state = &self.connection.state;
        let rest = state.rest.get();
        self.is_reused && rest.was_long() && rest.is_just_over(state.clock.ticks())
    }

    /// True when the endpoint takes WebSockets as streams of this connection (RFC 8441 §3).
    #[must_use]
    pub fn takes_websockets(&self) -> bool {
        self.connection.send.is_extended_connect_protocol_enabled()
    }

    /// The endpoint takes no more requests on this connection.
    pub fn retire(&self) {
        self.connection.state.end();
    }

    /// The request has its whole answer, or the endpoint has ended it: not we.
    pub fn answered(&self) {
        self.is_answered.set(true);
    }

    /// The endpoint did not answer in time: it is asked whether it is there before the connection is used again.
    pub fn doubt(&self) {
        let state = &self.connection.state;
        if !state.is_doubted.replace(true) {
            state.pulse.set(Duration::ZERO);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let state = &self.connection.state;
        state.streams.set(state.streams.get() - 1);
        state.used.set(state.clock.ticks());
        if self.stream.get().is_some() {
            let count = if self.is_answered.get() { &state.answered } else { &state.given_up };
            count.set(count.get() + 1);
        }
        if self.risk != Risk::None {
            state.is_taken.set(false);
            state.queue.taken.set(state.queue.taken.get() - 1);
            if self.connection.is_over() {
                // Another one may be taken now.
                state.queue.dismiss();
            }
        }
        if state.streams.get() == 0 && state.is_tired() {
            state.end();
        }
        self.connection.serve();
    }
}
