//! How long a connection had been without a request, and what an endpoint may have done with it meanwhile.

use std::time::Duration;

use crate::proxy::clock::Clock;

/// How long the news that a connection was closed may be under way: what ends later than this after its request was sent had
/// that in hand.
pub const CROSSING: Duration = Duration::from_millis(200);

/// How long a connection is without a request at least before an endpoint closes it for that. Of the servers that are known the
/// most impatient by default is gunicorn, after two seconds.
const IMPATIENT: Duration = Duration::from_secs(1);

/// The time without a request before one was sent, in ticks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rest {
    from: u64,
    until: u64,
}

impl Rest {
    /// From the end of the last request to the beginning of the next.
    #[must_use]
    pub fn new(from: u64, until: u64) -> Self {
        Self { from, until }
    }

    /// True while a close that the request has crossed may show.
    #[must_use]
    pub fn is_just_over(self, now: u64) -> bool {
        now.saturating_sub(self.until) <= Clock::ticks_in(CROSSING)
    }

    /// True when it was long enough for an endpoint to close the connection for it.
    #[must_use]
    pub fn was_long(self) -> bool {
        self.until.saturating_sub(self.from) >= Clock::ticks_in(IMPATIENT)
    }
}
