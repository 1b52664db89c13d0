//! The body of an answer as hyper takes it: nothing, some bytes, or a stream from the endpoint.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::connection::Turn;
use super::forward::Exchange;
use crate::metrics::Reason;

/// An answer's body. It ends the request's turn on its connection when it is dropped.
#[derive(Debug)]
pub struct Body {
    source: Source,
    _turn: Turn,
}

/// Where a body's bytes come from.
#[derive(Debug)]
pub enum Source {
    /// All of it is here.
    Full(Bytes),
    /// None, though its length is told.
    Unsent(u64),
    /// From an endpoint, as it comes. Boxed: most bodies are whole, and hyper moves this around.
    Stream(Box<Exchange>),
}

/// The endpoint's body broke off; hyper then closes the client's connection so that it shows.
#[derive(Debug, thiserror::Error)]
#[error("the response broke off: {}", .0.token())]
pub struct BrokenOff(pub Reason);

impl Body {
    /// A body of `source`, in this turn.
    #[must_use]
    pub fn new(source: Source, turn: Turn) -> Self {
        Self { source, _turn: turn }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match &mut self.get_mut().source {
            Source::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Unsent(_) => Poll::Ready(None),
            Source::Stream(exchange) => exchange.poll_frame(cx).map_err(BrokenOff),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_empty(),
            // Else hyper would drop the length.
            Source::Unsent(_) => false,
            Source::Stream(exchange) => exchange.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Unsent(length) => SizeHint::with_exact(*length),
            Source::Stream(exchange) => {
                exchange.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}
