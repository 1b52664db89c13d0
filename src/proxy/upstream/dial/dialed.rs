//! A connection that no request uses, within its bounds.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::descriptors::Taken;
use crate::proxy::upstream::Stream;

/// As much is read of one answer, with all that comes before it: twice as much as anybody looks at.
const MOST_ANSWER: usize = 128 * 1024;

/// A connection that no request uses, which counts among the descriptors that are taken.
///
/// After what is said on it [`MOST_ANSWER`] is read at most. Who speaks HTTP/1.1 for us passes over interim answers (1xx) as long as
/// there are any, and all else on the thread would wait for whoever sends them without end.
#[derive(Debug)]
pub struct Dialed {
    stream: Stream,
    /// As much may still be read until something else is said.
    left: usize,
    _taken: Taken,
}

impl Dialed {
    pub(super) fn new(stream: Stream, taken: Taken) -> Self {
        Self { stream, left: MOST_ANSWER, _taken: taken }
    }
}

impl AsyncRead for Dialed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(Err(io::Error::other("the answer does not end within 128 KiB")));
        }
        let most = buf.remaining().min(this.left);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        this.left -= read;
        Poll::Ready(Ok(()))
    }
}

/// What is asked is short: its parts are put together.
impl AsyncWrite for Dialed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.left = MOST_ANSWER;
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
