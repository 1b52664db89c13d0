//! A connection that no request uses, within its bounds.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::descriptors::Taken;
use crate::proxy::upstream::Stream;

/// As much is read of one answer, with all that comes before it: twice as much as anybody looks at.
const MOST_ANSWER: usize = 128 * 1024;

/// A connection that no request uses, which counts among the descriptors that are taken.
///
/// For each thing that is asked on it [`MOST_ANSWER`] is read at most. Who speaks HTTP for us passes over interim answers (1xx) as long
/// as there are any, and all else on the thread would wait for whoever sends them without end.
#[derive(Debug)]
pub struct Dialed {
    stream: Stream,
    allowance: Allowance,
    _taken: Taken,
}

/// How much may still be read until something else is asked. Not until something is written: HTTP/2 answers by itself to PINGs, of
/// which there may be any number.
#[derive(Debug, Clone)]
pub struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    /// Something else is asked.
    pub fn renew(&self) {
        self.0.store(MOST_ANSWER, Ordering::Relaxed);
    }
}

impl Dialed {
    pub(super) fn new(stream: Stream, taken: Taken) -> Self {
        let allowance = Allowance(Arc::new(AtomicUsize::new(MOST_ANSWER)));
        Self { stream, allowance, _taken: taken }
    }

    /// What is to be renewed with the next thing that is asked, if there is one.
    pub fn allowance(&self) -> Allowance {
        self.allowance.clone()
    }
}

impl AsyncRead for Dialed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Relaxed: one task asks and reads.
        let left = this.allowance.0.load(Ordering::Relaxed);
        if left == 0 {
            return Poll::Ready(Err(io::Error::other("the answer does not end within 128 KiB")));
        }
        let most = buf.remaining().min(left);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        this.allowance.0.store(left - read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

/// What is asked is short: its parts are put together.
impl AsyncWrite for Dialed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
