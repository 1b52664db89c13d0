//! How a client takes what it is answered: as fast as it likes, within limits.

use std::io;
use std::task::{Context, Poll};

use super::{Stage, Wire};
use crate::metrics::Reason;
use crate::proxy::clock::span;

impl Wire {
    /// Writes everything that waits; a client that takes none of it for too long, or too little, has stalled.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.out.borrow_mut();
        if out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut stream = self.stream.borrow_mut();
        match out.poll_write(&mut stream, cx, |bytes| self.on_taken(bytes)) {
            Poll::Ready(written) => {
                self.on_taken(0);
                out.give_back(&self.client.worker);
                Poll::Ready(written)
            }
            Poll::Pending => self.poll_stall(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        }
    }

    /// The client has taken so many bytes.
    fn on_taken(&self, bytes: usize) {
        if self.is_stalled.replace(false) {
            self.watch.clear();
        }
        let mut debt = self.debt.get();
        if !debt.is_settled() {
            debt.took(&self.client.settings(), bytes, self.client.worker.clock.ticks());
            self.debt.set(debt);
        }
    }

    /// Ready when the client was waited for long enough.
    fn poll_stall(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_stalled.replace(true) {
            let now = self.client.worker.clock.ticks();
            let mut debt = self.debt.get();
            let left = debt.wait(&self.client.settings(), now);
            self.debt.set(debt);
            // Before the answer the request's own limits hold.
            let is_bound = self.stage.get() == Stage::Answering;
            self.watch.set(if is_bound { left.min(span(self.due.get().saturating_sub(now))) } else { left });
        }
        self.watch.poll(cx)
    }

    /// Why an answer ended that could not be written.
    pub(super) fn blame(&self, error: &io::Error) -> Reason {
        if error.kind() != io::ErrorKind::TimedOut {
            Reason::ClientGone
        } else if self.client.worker.clock.ticks() >= self.due.get() {
            Reason::Deadline
        } else {
            Reason::ClientStalled
        }
    }

    /// The request at hand is over at this tick.
    pub(in super::super) fn is_due(&self, tick: u64) {
        self.due.set(tick);
    }

    /// Forgets what the client was behind with, if all of it was taken.
    pub(super) fn forgive(&self) {
        if self.out.borrow().is_empty() {
            self.debt.take();
        }
    }
}
