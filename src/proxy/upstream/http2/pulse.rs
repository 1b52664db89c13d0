//! Asks an endpoint whether it is still there.

use std::task::{Context, Poll};
use std::time::Duration;

use h2::{Ping, PingPong};

use super::State;

/// After how long without an answer an endpoint is asked whether it is there. gRPC servers take pings that come more
/// often than every five minutes for an attack; on suspicion one is sent at once.
pub(super) const PULSE: Duration = Duration::from_secs(310);
const PULSE_PATIENCE: Duration = Duration::from_secs(10);

/// Asks an endpoint whether it is still there.
pub(super) struct Pulse {
    pings: Option<PingPong>,
    asked: bool,
}

impl Pulse {
    pub(super) fn new(pings: Option<PingPong>) -> Self {
        Self { pings, asked: false }
    }

    /// Ready when the endpoint did not answer in time.
    pub(super) fn poll(&mut self, state: &State, cx: &mut Context<'_>) -> Poll<()> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        if self.asked && pings.poll_pong(cx).is_ready() {
            self.asked = false;
            state.is_doubted.set(false);
            state.pulse.set(PULSE);
        }
        while state.pulse.poll(cx).is_ready() {
            if self.asked {
                return Poll::Ready(());
            }
            let is_waited_for = state.streams.get() > 0 || state.is_doubted.get();
            if !is_waited_for {
                state.pulse.set(PULSE);
                continue;
            }
            if pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.asked = true;
            state.pulse.set(PULSE_PATIENCE);
            // Its answer has to know whom to wake, and the ping has to go out.
            drop(pings.poll_pong(cx));
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
