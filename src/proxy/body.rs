//! The two bodies of an exchange: what a client sends, and what it is answered with.

mod again;
mod kept;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::connection::http1::Wire;
use super::connection::http2::Upload;
use super::forward::{Call, Exchange};
use super::mirror::Watched;
use super::pipe::{Pipe, Pipes};
use super::tunnel::Tunnel;
use crate::metrics::Reason;

pub use again::Again;
pub use kept::Kept;

/// A request's body, as it comes from the client.
#[derive(Debug)]
pub enum Incoming {
    /// There is none.
    None,
    /// From an HTTP/1.1 connection.
    Http1(Rc<Wire>),
    /// From a stream of an HTTP/2 connection.
    Http2(Upload),
    /// Sent again. Boxed: rare.
    Again(Box<Again>),
    /// Kept while it is sent. Boxed: rare.
    Kept(Box<Kept>),
}

/// Why a request's body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The client went away.
    #[error("the client went away")]
    Gone,
    /// What came is no body.
    #[error("malformed body")]
    Malformed,
}

impl Incoming {
    /// Ready when something of it has come: its client waits for nothing. Over HTTP/2 nobody is woken for that.
    pub fn poll_come(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::None => Poll::Ready(()),
            Self::Http1(wire) => wire.poll_come(cx),
            Self::Again(again) => again.poll_come(cx),
            Self::Kept(kept) => kept.poll_come(cx),
            Self::Http2(upload) => {
                if upload.has_come() {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            }
        }
    }

    /// Bytes of what is left, in a pipe; `Ready(None)` where they are to be taken as frames.
    pub fn poll_pipe(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Pipe, Broken>>> {
        match self {
            Self::Http1(wire) => wire.poll_pipe(cx),
            Self::Again(again) => again.poll_pipe(cx),
            Self::Kept(kept) => kept.poll_pipe(cx),
            Self::None | Self::Http2(_) => Poll::Ready(None),
        }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::None => Poll::Ready(None),
            Self::Http1(wire) => wire.poll_upload(cx),
            Self::Http2(upload) => upload.poll_frame(cx),
            Self::Again(again) => again.poll_frame(cx),
            Self::Kept(kept) => kept.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Http1(wire) => wire.upload().is_end(),
            Self::Http2(upload) => upload.is_end(),
            Self::Again(again) => again.is_end(),
            Self::Kept(kept) => kept.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let remaining = match self {
            Self::None => Some(0),
            Self::Http1(wire) => wire.upload().remaining(),
            Self::Http2(upload) => upload.remaining(),
            Self::Again(again) => again.remaining(),
            Self::Kept(kept) => kept.remaining(),
        };
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer's body.
#[derive(Debug)]
pub enum Source {
    /// All of it is here.
    Full(Bytes),
    /// From an endpoint, as it comes.
    Stream(Flow),
    /// None: the connection, or the stream, is a tunnel from here on.
    Tunnel(Box<Tunnel>),
}

/// Something of an answer's body.
#[derive(Debug)]
pub enum Part {
    /// Bytes, or trailers.
    Frame(Frame<Bytes>),
    /// Bytes that the kernel holds.
    Piped(Pipe),
}

/// An answer's body on its way from an endpoint. Boxed: most bodies are whole.
#[derive(Debug)]
pub enum Flow {
    /// Over a connection of its own.
    Http1(Box<Exchange>),
    /// As a stream of a shared connection.
    Http2(Box<Call>),
    /// Either, while somebody looks at what passes. Boxed: rare.
    Watched(Box<Watched>),
}

impl Flow {
    /// The next part, in a pipe where that is worth one of `pipes`; meanwhile the request's body goes on.
    pub fn poll_part(
        &mut self,
        pipes: Option<&Rc<Pipes>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Part, Reason>>> {
        match self {
            Self::Http1(exchange) => exchange.poll_part(pipes, cx),
            Self::Http2(call) => call.poll_frame(cx).map_ok(Part::Frame),
            Self::Watched(watched) => watched.poll_part(pipes, cx),
        }
    }

    /// Sends more of the request while nobody asks for the answer.
    pub fn push(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Http1(exchange) => exchange.push(cx),
            Self::Http2(call) => call.push(cx),
            Self::Watched(watched) => watched.flow_mut().push(cx),
        }
    }

    /// Ready when it has to end, although its client still has to take what there is of it.
    pub fn poll_cut(&self, cx: &Context<'_>) -> Poll<Reason> {
        match self {
            Self::Http1(exchange) => exchange.poll_cut(cx),
            Self::Http2(call) => call.poll_cut(cx),
            Self::Watched(watched) => watched.flow().poll_cut(cx),
        }
    }

    /// Gives it up, for this reason.
    pub fn give_up(&mut self, reason: Reason) {
        match self {
            Self::Http1(exchange) => exchange.give_up(reason),
            Self::Http2(call) => call.give_up(reason),
            Self::Watched(watched) => watched.flow_mut().give_up(reason),
        }
    }

    /// True when the last byte was handed on.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Http1(exchange) => exchange.is_over(),
            Self::Http2(call) => call.is_over(),
            Self::Watched(watched) => watched.flow().is_over(),
        }
    }

    /// How many bytes are left, if that is known.
    #[must_use]
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Http1(exchange) => exchange.remaining(),
            Self::Http2(call) => call.remaining(),
            Self::Watched(watched) => watched.flow().remaining(),
        }
    }
}
