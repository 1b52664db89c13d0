//! How long an exchange waits for whom.

use std::task::{Context, Poll};
use std::time::Duration;

use super::{EXPECT_PATIENCE, Exchange, Failure};
use crate::metrics::Reason;
use crate::proxy::outgoing::Waiting;

impl Exchange {
    /// Ready when nothing has moved for too long: an error, unless something can be done about it.
    pub(super) fn poll_late(
        &mut self,
        cx: &Context<'_>,
        before: Waiting,
        moved: bool,
    ) -> Poll<Result<(), Failure>> {
        let limit = self.limit(before);
        if !self.is_late(cx, limit, moved) {
            return Poll::Pending;
        }
        let reason = match self.waiting {
            _ if self.bounds.is_over(self.now()) => Reason::Deadline,
            Waiting::Continue => {
                self.outgoing.let_go();
                return Poll::Ready(Ok(()));
            }
            Waiting::Client => Reason::RequestTimeout,
            Waiting::Endpoint | Waiting::Sent => Reason::ResponseTimeout,
        };
        Poll::Ready(Err(Failure::Because(reason)))
    }

    pub(super) fn now(&self) -> u64 {
        self.turn.client.worker.clock.ticks()
    }

    /// How long nothing may move before the answer's head, for one who waited for `before` until now.
    fn limit(&mut self, before: Waiting) -> Duration {
        match self.waiting {
            Waiting::Sent => self.timeouts.response,
            Waiting::Continue => EXPECT_PATIENCE,
            Waiting::Endpoint => self.timeouts.progress,
            Waiting::Client => {
                let (taken, now) = (self.outgoing.taken(), self.now());
                self.bounds.patience(before == Waiting::Client, taken, self.timeouts.progress, now)
            }
        }
    }

    /// True when nothing has moved for `limit`. Armed only while both sides wait, so a slow reader is not held against
    /// the other side.
    pub(super) fn is_late(&self, cx: &Context<'_>, limit: Duration, progressed: bool) -> bool {
        let limit = self.bounds.at_most(limit, self.now());
        if progressed {
            self.turn.alarm.set(limit);
        } else {
            self.turn.alarm.set_once(limit);
        }
        let late = self.turn.alarm.poll(cx).is_ready();
        if late {
            self.turn.alarm.clear();
        }
        late
    }
}
