//! Asks a quiet client whether it is still there.

use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};

use super::Frames;
use crate::proxy::clock::{Alarm, Clock, span};
use crate::proxy::deferred::Deferred;

/// More than what asking takes: when so much was sent meanwhile, the question may still be behind it.
const A_QUESTION: u64 = 1_024;

/// What is known of a client's being there. Whatever moves is a sign of life: a ping can be behind megabytes that a slow
/// line takes minutes for.
pub(super) struct Pulse {
    alarm: Alarm,
    /// How long it may be quiet before it is asked, as it is set now; it has half as long to answer.
    quiet: Duration,
    pings: Option<PingPong>,
    /// How much had been sent when the client was asked.
    asked: Option<u64>,
    /// How much had been sent when that was last looked at.
    sent: u64,
    /// The tick of the last sign of life.
    lively: u64,
}

impl Pulse {
    pub(super) fn new(alarm: Alarm, quiet: Duration, pings: Option<PingPong>) -> Self {
        alarm.set(quiet);
        Self { alarm, quiet, pings, asked: None, sent: 0, lively: 0 }
    }

    /// Ready when the client did not answer in time; `now` in ticks. Where `quiet` is set anew, the time begins anew.
    pub(super) fn poll(
        &mut self,
        quiet: Duration,
        io: &Deferred<Frames>,
        now: u64,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.quiet != quiet {
            (self.quiet, self.lively) = (quiet, now);
            self.alarm.set(quiet);
        }
        if io.was_heard() {
            (self.asked, self.lively) = (None, now);
        }
        if io.sent() != self.sent {
            (self.sent, self.lively) = (io.sent(), now);
        }
        while self.alarm.poll(cx).is_ready() {
            let Some(pings) = &mut self.pings else { return Poll::Pending };
            let left = (self.lively + Clock::ticks_in(self.quiet)).saturating_sub(now);
            match self.asked {
                None if left > 0 => self.alarm.set(span(left)),
                None => {
                    // Takes the answer to an earlier one off, which need not have been waited for.
                    drop(pings.poll_pong(cx));
                    if pings.send_ping(Ping::opaque()).is_err() {
                        return Poll::Ready(());
                    }
                    cx.waker().wake_by_ref();
                    self.asked = Some(self.sent);
                    self.alarm.set(self.quiet / 2);
                }
                Some(before) if self.sent - before > A_QUESTION => {
                    self.asked = Some(self.sent);
                    self.alarm.set(self.quiet / 2);
                }
                Some(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}
