//! An answer's body that goes through the kernel alone.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::Exchange;
use crate::metrics::Reason;
use crate::proxy::body::Part;
use crate::proxy::pipe::{self, Pipe, Pipes, WORTH};
use crate::proxy::upstream::Stream;

impl Exchange {
    /// How much is read at once of what begins with a head.
    pub(super) fn first_read(&self) -> usize {
        if self.turn.takes_pipes() { self.endpoint.bulk.first_read() } else { usize::MAX }
    }

    /// A pipe for what comes next of the body, if it is worth one.
    pub(super) fn pipe(&self, pipes: Option<&Rc<Pipes>>) -> Option<Pipe> {
        let pipes = pipes?;
        let is_worth = self.decoder.remaining().is_some_and(|left| left >= WORTH);
        let is_plain = self.stream.as_ref().is_some_and(Stream::is_plain);
        if is_worth && is_plain { pipes.take() } else { None }
    }

    /// Reads once, into the pipe if there is one; there is none any more if the kernel did not want it.
    pub(super) fn receive_into(
        &mut self,
        pipe: &mut Option<Pipe>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if let (Some(into), Some(stream), Some(left)) =
            (&mut *pipe, &mut self.stream, self.decoder.remaining())
        {
            match ready!(into.poll_fill(stream, left, cx)) {
                Err(error) if pipe::is_refusal(&error) => *pipe = None,
                filled => return Poll::Ready(filled),
            }
        }
        self.receive(usize::MAX, cx)
    }

    /// Hands on what the pipe holds; the rest is as with bytes that are read.
    pub(super) fn hand_on(&mut self, pipe: Pipe) -> Poll<Option<Result<Part, Reason>>> {
        self.turn.alarm.clear();
        self.decoder.pass(pipe.held() as u64);
        if !self.bounds.take(pipe.held()) {
            return self.break_off(Reason::ResponseTooLarge);
        }
        self.record.as_ref().inspect(|record| record.sent(pipe.held()));
        if self.decoder.is_end() {
            self.finish();
        }
        Poll::Ready(Some(Ok(Part::Piped(pipe))))
    }
}
