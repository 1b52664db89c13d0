//! Bodies that go through the kernel alone.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::Wire;
use crate::proxy::body::Broken;
use crate::proxy::pipe::{self, Pipe, Pipes, WORTH};

impl Wire {
    /// True when a body could go to it, or come from it, in a pipe.
    pub(in super::super) fn is_plain(&self) -> bool {
        self.stream.borrow().is_plain()
    }

    /// Where its bodies can go through: nothing under TLS.
    pub(super) fn pipes(&self) -> Option<&Rc<Pipes>> {
        self.is_plain().then_some(&self.client.worker.pipes)
    }

    /// Bytes of what is left of the body of the request at hand, in a pipe; `Ready(None)` where it is not worth one, or
    /// something of it was read before.
    pub fn poll_pipe(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Pipe, Broken>>> {
        let mut body = self.body.get();
        let Some(left) = body.remaining().filter(|left| *left >= WORTH && self.input.borrow().is_empty())
        else {
            return Poll::Ready(None);
        };
        let Some(mut pipe) = self.pipes().and_then(Pipes::take) else { return Poll::Ready(None) };
        self.go_on();
        match ready!(pipe.poll_fill(&mut self.stream.borrow_mut(), left, cx)) {
            Ok(filled @ 1..) => {
                body.pass(filled as u64);
                self.body.set(body);
                Poll::Ready(Some(Ok(pipe)))
            }
            Err(error) if pipe::is_refusal(&error) => Poll::Ready(None),
            Ok(0) | Err(_) => Poll::Ready(Some(Err(Broken::Gone))),
        }
    }
}
