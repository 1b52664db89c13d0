//! Bytes on their way to a client: gathered so that a small answer is one `send`, never copied when they are many.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::Frame;
use tokio::io::AsyncWrite;

use super::answer::Framing;
use crate::proxy::http1;
use crate::proxy::upstream::Stream;
use crate::proxy::worker::Worker;

/// How much is gathered before it is written; also the largest part that is copied for it.
const BATCH: usize = 16 * 1024;

/// What follows the data of a chunk.
const CHUNK_END: &[u8] = b"\r\n";

/// What waits to be written: `text` from `at` on, then `frame`, then `tail`.
#[derive(Debug, Default)]
pub(super) struct Out {
    text: Vec<u8>,
    at: usize,
    frame: Bytes,
    tail: &'static [u8],
}

impl Out {
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.frame.is_empty() && self.tail.is_empty()
    }

    /// True when it is to be written before more is added.
    pub(super) fn is_full(&self) -> bool {
        !self.frame.is_empty() || !self.tail.is_empty() || self.text.len() >= BATCH
    }

    /// Where to append, unless it is [full](Self::is_full) of something else.
    pub(super) fn text(&mut self, worker: &Worker) -> &mut Vec<u8> {
        if self.text.capacity() == 0 {
            self.text = worker.take_buffer();
        }
        &mut self.text
    }

    /// Adds bytes: few behind what is there, many without a copy.
    pub(super) fn push(&mut self, data: Bytes) {
        if self.text.len() + data.len() <= BATCH {
            self.text.extend_from_slice(&data);
        } else {
            self.frame = data;
        }
    }

    /// Adds a part of a body in its framing; true when it was the last.
    pub(super) fn add(&mut self, frame: Frame<Bytes>, framing: Framing, worker: &Worker) -> bool {
        let text = self.text(worker);
        match frame.into_data() {
            // A chunk of length 0 would end the body.
            Ok(data) if data.is_empty() => false,
            Ok(data) if !framing.is_chunked => {
                self.push(data);
                false
            }
            Ok(data) if text.len() + data.len() <= BATCH => {
                http1::encode_chunk(text, &data);
                false
            }
            Ok(data) => {
                http1::encode_size(text, data.len());
                (self.frame, self.tail) = (data, CHUNK_END);
                false
            }
            Err(frame) => {
                if framing.is_chunked {
                    http1::encode_end(text, frame.trailers_ref().filter(|_| framing.has_trailers));
                }
                true
            }
        }
    }

    /// Writes all of it; `moved` is called when something went.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        moved: impl Fn(),
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let text = &self.text[self.at..];
            let written = if self.frame.is_empty() && self.tail.is_empty() {
                // A `send` is cheaper than a `writev` of one.
                ready!(Pin::new(&mut *stream).poll_write(cx, text))?
            } else {
                let parts = [IoSlice::new(text), IoSlice::new(&self.frame), IoSlice::new(self.tail)];
                let from = usize::from(text.is_empty());
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &parts[from..]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
            moved();
        }
        Pin::new(stream).poll_flush(cx)
    }

    fn advance(&mut self, written: usize) {
        let of_text = written.min(self.text.len() - self.at);
        self.at += of_text;
        if self.at == self.text.len() {
            (self.at, _) = (0, self.text.clear());
        }
        let of_frame = (written - of_text).min(self.frame.len());
        self.frame.advance(of_frame);
        self.tail = &self.tail[written - of_text - of_frame..];
    }

    /// Leaves the emptied buffer to the worker's next request.
    pub(super) fn give_back(&mut self, worker: &Worker) {
        if self.text.is_empty() {
            worker.give_back(std::mem::take(&mut self.text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_taken_off_the_front_in_order() {
        let mut out =
            Out { text: b"head".to_vec(), at: 0, frame: Bytes::from_static(b"body"), tail: CHUNK_END };
        for (written, left) in [(3, "dbody\r\n"), (2, "ody\r\n"), (4, "\n"), (1, "")] {
            out.advance(written);
            let rest = [&out.text[out.at..], &out.frame, out.tail].concat();
            assert_eq!(rest, left.as_bytes());
        }
        assert!(out.is_empty());
    }
}
