//! How what was gathered of a request is written.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::io::AsyncWrite;

use super::{Coding, Outgoing, Rest};
use crate::proxy::body::{Again, Incoming};
use crate::proxy::http1::{self, Chunks, Decoded, Decoder};
use crate::proxy::pipe;
use crate::proxy::upstream::Stream;

impl Outgoing {
    /// Gives up the rest: the endpoint closed its ear. It may have answered already (413, say), so that is still read.
    pub(super) fn cut(&mut self) {
        (self.is_begun, self.is_sent, self.is_cut) = (true, true, true);
        self.rest = Rest::Nothing;
        (self.out, self.frame, self.pipe) = (Vec::new(), Bytes::new(), None);
    }

    /// True while nothing of it was written.
    pub fn is_unsent(&self) -> bool {
        !self.is_begun
    }

    /// True when the endpoint had closed its ear before anything of it could be written: it may go elsewhere.
    pub fn is_turned_away(&self) -> bool {
        self.is_cut && self.is_unsent()
    }

    /// The body, if nothing of it was taken, or nothing of the request was sent.
    pub fn into_untouched(mut self) -> Rest {
        let is_gathered = self.out.len() > self.head_length || !self.frame.is_empty() || self.pipe.is_some();
        if !self.is_unsent() || !is_gathered {
            return if self.taken == 0 { self.rest } else { Rest::Nothing };
        }
        let mut gathered = Bytes::from(self.out.split_off(self.head_length));
        let (coding, mut decoder) = match self.announced {
            Some(_) => (Coding::Plain, Decoder::UntilClose),
            None => (Coding::Chunked, Decoder::Chunked(Chunks::Size)),
        };
        let mut frames = VecDeque::new();
        // As it was encoded here.
        loop {
            match decoder.decode(&mut gathered) {
                Ok(Decoded::Data(data)) => frames.push_back(Frame::data(data)),
                Ok(Decoded::Trailers(trailers)) => frames.push_back(Frame::trailers(trailers)),
                Ok(Decoded::End | Decoded::More) | Err(_) => break,
            }
        }
        frames.extend(Some(self.frame).filter(|frame| !frame.is_empty()).map(Frame::data));
        let rest = match self.rest {
            Rest::Open(rest, _) | Rest::Held(rest, _) => rest,
            Rest::Nothing => Incoming::None,
        };
        Rest::Open(Incoming::Again(Box::new(Again::new(frames, self.pipe, rest))), coding)
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
