//! Whether a kept connection was closed before its request came, or because of it.
//!
//! Whoever closes a connection that is idle has no request on it in hand. A TCP stack says so when one comes all the same: it
//! answers with a reset, behind the end that it has sent already. Whoever has read the request and then closes sends the end alone.
//! A reset without an end is either: closed with the request unread, or by force. Of a Unix socket it is always the first, since
//! there the end is known at once and nothing can be sent any more. Of what nothing could be sent it is certain.

use std::io;

use super::{Exchange, Failure};
use crate::metrics::Reason;
use crate::proxy::upstream::rest::CROSSING;
use crate::proxy::upstream::{Past, Stream};

impl Exchange {
    /// What the connection's `end` before the answer is, as far as is known at once.
    pub(super) fn cut_off(&mut self, end: &io::Result<usize>) -> Failure {
        if self.outgoing.is_unsent() {
            return Failure::unsent(self.is_kept());
        }
        if !self.is_kept() || !self.input.is_empty() || !self.interims.are_none() {
            return Failure::Because(Reason::UpstreamClosed);
        }
        self.was_reset = end.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
        Failure::Broken
    }

    /// Whether what comes can be the answer, where the endpoint takes nothing of the request. On a new connection it is its word all
    /// the same (RFC 9112 §9.5): that it is full, say. On one that was kept it answers something else.
    ///
    /// # Errors
    /// [`Failure::Unsent`] when it cannot be.
    pub(super) fn can_be_answered(&self) -> Result<(), Failure> {
        if self.outgoing.is_turned_away() && self.is_kept() { Err(Failure::Unsent) } else { Ok(()) }
    }

    /// True when the endpoint takes nothing of the request, and has said nothing before that.
    pub(super) fn is_past_answering(&self) -> bool {
        self.outgoing.is_turned_away() && !self.stream.as_ref().is_some_and(Stream::is_readable)
    }

    fn is_kept(&self) -> bool {
        self.past.as_ref().is_some_and(Past::is_kept)
    }

    /// True when the connection, which has [broken](Failure::Broken), had been closed before the endpoint has read the request.
    ///
    /// Waits for as long as the endpoint's reset may be behind its end: less than a round trip. Opening the connection took one at
    /// least; twice as long, and no longer than the news of a close may be under way.
    pub async fn was_crossed(&self) -> bool {
        let Some((stream, past)) = self.stream.as_ref().zip(self.past.as_ref()) else { return false };
        match past.rest().filter(|rest| rest.is_just_over(self.now())) {
            None => false,
            Some(rest) if self.was_reset => stream.is_unix() || rest.was_long(),
            Some(_) => stream.is_reset_within((past.opening() * 2).min(CROSSING)).await,
        }
    }
}
