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
    /// The tick since which it is waited for, if it is.
    since: Option<u64>,
    /// How many ticks it may owe.
    most: u64,
    /// Bytes a second that it has to take; 0: one now and then is enough.
    pace: u64,
}

impl Debt {
    /// None yet, of a client under these settings.
    #[must_use]
    pub fn none(settings: &Settings) -> Self {
        Self::of(settings.progress, settings.min_drain_rate)
    }

    fn of(limit: Duration, pace: u64) -> Self {
        Self { owed: 0, since: None, most: Clock::ticks_in(limit), pace }
    }

    /// Nothing is owed any more.
    pub fn forgive(&mut self) {
        (self.owed, self.since) = (0, None);
    }

    /// The client is waited for, from now on if it was not before: how long still.
    pub fn wait(&mut self, now: u64) -> Duration {
        let waited = now - *self.since.get_or_insert(now);
        let owed = self.owed / self.pace.max(1);
        span(self.most.saturating_sub(owed).saturating_sub(waited))
    }

    /// The client took so many bytes, and is not waited for until [`wait`](Self::wait) says so.
    pub fn took(&mut self, bytes: usize, now: u64) {
        if self.is_settled() {
            return;
        }
        let waited = self.since.take().map_or(0, |since| now - since);
        let paid = if self.pace == 0 { u64::MAX } else { per_tick(bytes) };
        self.owed = self.owed.saturating_add(waited.saturating_mul(self.pace)).saturating_sub(paid);
    }

    /// True when nothing is owed and nobody waits: taking makes no difference.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.owed == 0 && self.since.is_none()
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

    /// How many ticks a client is borne that takes `bytes` every `every` ticks and is waited for in between.
    fn borne(pace: u64, bytes: usize, every: u64) -> Option<u64> {
        let mut debt = Debt::of(STALL, pace);
        let mut now = 0;
        while now < 1_000_000 {
            let left = Clock::ticks_in(debt.wait(now));
            if left <= every {
                return Some(now + left);
            }
            now += every;
            debt.took(bytes, now);
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
        let mut debt = Debt::of(STALL, 100);
        debt.wait(0);
        debt.took(1 << 30, 0);
        assert!(debt.is_settled());
        assert_eq!(debt.wait(1), STALL);
    }

    #[test]
    fn time_in_which_nobody_waits_is_free() {
        let mut debt = Debt::of(STALL, 100);
        debt.wait(0);
        debt.took(1, 100);
        let left = debt.wait(5_000);
        assert_eq!(left, Duration::from_millis(20_100), "10 s were waited");
        debt.forgive();
        assert_eq!(debt.wait(6_000), STALL);
    }
}
