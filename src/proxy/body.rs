//! The two bodies of an exchange: what a client sends, and what it is answered with.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::connection::http1::Wire;
use super::connection::http2::Upload;
use super::forward::Exchange;
use super::tunnel::Tunnel;

/// A request's body, as it comes from the client.
#[derive(Debug)]
pub enum Incoming {
    /// There is none.
    None,
    /// From an HTTP/1.1 connection.
    Http1(Rc<Wire>),
    /// From a stream of an HTTP/2 connection.
    Http2(Upload),
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

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::None => Poll::Ready(None),
            Self::Http1(wire) => wire.poll_upload(cx),
            Self::Http2(upload) => upload.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Http1(wire) => wire.upload().is_end(),
            Self::Http2(upload) => upload.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let remaining = match self {
            Self::None => Some(0),
            Self::Http1(wire) => wire.upload().remaining(),
            Self::Http2(upload) => upload.remaining(),
        };
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer's body.
#[derive(Debug)]
pub enum Source {
    /// All of it is here.
    Full(Bytes),
    /// From an endpoint, as it comes. Boxed: most bodies are whole.
    Stream(Box<Exchange>),
    /// None: the connection, or the stream, is a tunnel from here on.
    Tunnel(Box<Tunnel>),
}
