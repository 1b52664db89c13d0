//! How long a call waits for whom.

use std::task::Context;
use std::time::Duration;

use super::{Call, EXPECT_PATIENCE};
use crate::proxy::outgoing::Waiting;

impl Call {
    /// How long nothing may move before the answer's head; a gRPC stream may be silent for long in either direction.
    pub(super) fn limit(&mut self, before: Waiting) -> Duration {
        match self.waiting {
            Waiting::Continue => EXPECT_PATIENCE,
            Waiting::Sent | Waiting::Client if self.is_grpc => self.timeouts.stream,
            Waiting::Sent => self.timeouts.response,
            Waiting::Endpoint => self.timeouts.progress,
            Waiting::Client => {
                let (taken, now) = (self.taken, self.now());
                self.bounds.patience(before == Waiting::Client, taken, self.timeouts.progress, now)
            }
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.turn.client.worker.clock.ticks()
    }

    /// True when nothing has moved for `limit`; armed only while both sides wait.
    pub(super) fn is_late(&self, cx: &Context<'_>, limit: Duration, moved: bool) -> bool {
        let (alarm, limit) = (&self.turn.alarm, self.bounds.at_most(limit, self.now()));
        if moved {
            alarm.set(limit);
        } else {
            alarm.set_once(limit);
        }
        let late = alarm.poll(cx).is_ready();
        if late {
            alarm.clear();
        }
        late
    }
}
