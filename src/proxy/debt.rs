//! What a client owes that is slow in taking its answer.
//!
//! Each tick that it is waited for raises its debt, each byte that it takes lowers it, never below nothing: what was taken
//! fast earns no time to take nothing. Only time in which there is something that it could take counts, so that an
//! endpoint's pauses are not held against it.

use std::time::Duration;

use super::clock::{Clock, TICK, span};
use super::settings::Settings;

/// One client's debt, in ticks that were waited times the bytes a second that are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Debt {
    owed: u64,
    /// The tick since which it is waited for, or [`NEVER`].
    since: u64,
}

const NEVER: u64 = u64::MAX;

impl Default for Debt {
    fn default() -> Self {
        Self { owed: 0, since: NEVER }
    }
}

impl Debt {
    /// The client is waited for, from now on if it was not before: how long still.
    pub fn wait(&mut self, settings: &Settings, now: u64) -> Duration {
        if self.since == NEVER {
            self.since = now;
        }
        let owed = self.owed / settings.min_drain_rate.max(1);
        let left = Clock::ticks_in(settings.progress).saturating_sub(owed);
        span(left.saturating_sub(now - self.since))
    }

    /// The client took so many bytes, and is not waited for until [`wait`](Self::wait) says so.
    pub fn took(&mut self, settings: &Settings, bytes: usize, now: u64) {
        if self.is_settled() {
            return;
        }
        let waited = if self.since == NEVER { 0 } else { now - self.since };
        self.since = NEVER;
        // Where no pace is asked for, one byte pays for everything.
        let (pace, paid) = match settings.min_drain_rate {
            0 => (0, u64::MAX),
            pace => (pace, per_tick(bytes)),
        };
        self.owed = self.owed.saturating_add(waited.saturating_mul(pace)).saturating_sub(paid);
    }

    /// True when nothing is owed and nobody waits: taking makes no difference.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.owed == 0 && self.since == NEVER
    }
}

/// How many bytes a second it would be to take so many in each tick.
fn per_tick(bytes: usize) -> u64 {
    (bytes as u64).saturating_mul(1000) / u64::try_from(TICK.as_millis()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(30);

    fn asking(pace: u64) -> Settings {
        Settings { progress: STALL, min_drain_rate: pace, ..Settings::default() }
    }

    /// How many ticks a client is borne that takes `bytes` every `every` ticks and is waited for in between.
    fn borne(pace: u64, bytes: usize, every: u64) -> Option<u64> {
        let (mut debt, settings) = (Debt::default(), asking(pace));
        let mut now = 0;
        while now < 1_000_000 {
            let left = Clock::ticks_in(debt.wait(&settings, now));
            if left <= every {
                return Some(now + left);
            }
            now += every;
            debt.took(&settings, bytes, now);
        }
        None
    }

    #[test]
    fn who_takes_nothing_is_borne_for_the_limit() {
        assert_eq!(borne(100, 0, 7), Some(300));
        assert_eq!(borne(0, 1, 300), Some(300));
    }

    #[test]
    fn a_byte_now_and_then_buys_next_to_nothing() {
        // A byte a second, of a hundred that are asked for.
        assert_eq!(borne(100, 1, 10), Some(303));
        assert_eq!(borne(100, 50, 10), Some(590));
    }

    #[test]
    fn who_takes_enough_is_borne_for_ever() {
        assert_eq!(borne(100, 100, 10), None);
        assert_eq!(borne(100, 2_900, 290), None, "in bursts");
        assert_eq!(borne(0, 1, 299), None, "nothing is asked for");
    }

    #[test]
    fn what_was_taken_fast_earns_no_time() {
        let (mut debt, settings) = (Debt::default(), asking(100));
        debt.wait(&settings, 0);
        debt.took(&settings, 1 << 30, 0);
        assert!(debt.is_settled());
        assert_eq!(debt.wait(&settings, 1), STALL);
    }

    #[test]
    fn time_in_which_nobody_waits_is_free() {
        let (mut debt, settings) = (Debt::default(), asking(100));
        debt.wait(&settings, 0);
        debt.took(&settings, 1, 100);
        let left = debt.wait(&settings, 5_000);
        assert_eq!(left, Duration::from_millis(20_100), "10 s were waited");
    }
}
