//! How what was gathered of a request is written.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{Outgoing, Rest};
use crate::proxy::http1;
use crate::proxy::pipe;
use crate::proxy::upstream::Stream;

impl Outgoing {
    /// Gives up the rest: the endpoint closed its ear. It may have answered already (413, say), so that is still read.
    pub(super) fn cut(&mut self) {
        (self.is_sent, self.is_cut) = (true, true);
        self.rest = Rest::Nothing;
        (self.out, self.frame, self.pipe) = (Vec::new(), Bytes::new(), None);
    }

    /// True when the endpoint had closed its ear before anything of it could be written.
    pub fn is_unsent(&self) -> bool {
        self.is_cut && !self.is_begun
    }

    /// Writes what was gathered; `moved` when something was written.
    pub(super) fn flush(
        &mut self,
        stream: &mut Stream,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut written = 0;
        while written < self.out.len() {
            match Pin::new(&mut *stream).poll_write(cx, &self.out[written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(length)) => written += length,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.out.drain(..written);
                    return Poll::Pending;
                }
            }
            *moved = true;
        }
        self.out.clear();
        loop {
            if !self.frame.is_empty() {
                match ready!(Pin::new(&mut *stream).poll_write(cx, &self.frame))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    length => http1::pass_over(&mut self.frame, length),
                }
            } else if self.pipe.is_some() {
                ready!(pipe::poll_drain(&mut self.pipe, &mut self.frame, stream, cx))?;
            } else {
                // Under TLS what was taken may still be here.
                return Pin::new(stream).poll_flush(cx);
            }
            *moved = true;
        }
    }
}
