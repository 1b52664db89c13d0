//! What one request may take besides the limits on pauses: time in all, bytes of its answer, and the pace of its body.

use std::time::Duration;

use http::Version;

use super::clock::{Clock, TICK, span};
use super::connection::Client;
use super::fields::Note;
use super::head::Parts;
use super::media;
use crate::table::{ServiceLimits, Timeouts};

/// The bounds of one request, over all of its attempts.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The tick at which it has to be over.
    deadline: u64,
    /// How many bytes of the answer's body may still come.
    answer: u64,
    /// Bytes a second that the client has to send; 0: as it likes.
    pace: u64,
    /// How many ticks its body has been waited for, up to the tick `looked`.
    waited: u64,
    looked: u64,
}

impl Bounds {
    /// Those of a request with this head that begins now.
    #[must_use]
    pub fn new(client: &Client, head: &Parts, timeouts: Timeouts, limits: ServiceLimits) -> Self {
        let now = client.worker.clock.ticks();
        let total = timeouts.total.map_or(u64::MAX, Clock::ticks_in);
        let pace = if is_call(head) { 0 } else { client.settings().min_body_rate };
        let answer = limits.response_body.unwrap_or(u64::MAX);
        Self { deadline: now.saturating_add(total), answer, pace, waited: 0, looked: now }
    }

    /// The tick at which all of its time is over; `u64::MAX`: never.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        self.deadline
    }

    /// True when all of its time is over.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        now >= self.deadline
    }

    /// `limit`, or what is left of all of its time if that is less.
    #[must_use]
    pub fn at_most(&self, limit: Duration, now: u64) -> Duration {
        if self.deadline == u64::MAX { limit } else { limit.min(span(self.deadline.saturating_sub(now))) }
    }

    /// Counts `bytes` of the answer's body; false when they are too many.
    pub fn take(&mut self, bytes: usize) -> bool {
        match self.answer.checked_sub(bytes as u64) {
            Some(left) => self.answer = left,
            None => return false,
        }
        true
    }

    /// False for an answer that is known to become too large.
    #[must_use]
    pub fn fits(&self, length: Option<u64>) -> bool {
        length.is_none_or(|length| length <= self.answer)
    }

    /// How long the client may still take for more, when `taken` bytes of its body have come and it has been waited for
    /// since the last look if `is_awaited`: never longer than `limit`, which is also what it may take in all before its
    /// pace matters.
    #[must_use]
    pub fn patience(&mut self, is_awaited: bool, taken: u64, limit: Duration, now: u64) -> Duration {
        if self.pace == 0 {
            return limit;
        }
        self.waited += if is_awaited { now - self.looked } else { 0 };
        self.looked = now;
        let earned = taken.saturating_mul(1000 / u64::try_from(TICK.as_millis()).unwrap_or(1)) / self.pace;
        let granted = Clock::ticks_in(limit).saturating_add(earned);
        limit.min(span(granted.saturating_sub(self.waited)))
    }
}

/// True for a gRPC call, whose messages come when there is something to say; there are none over HTTP/1.1.
fn is_call(head: &Parts) -> bool {
    let content = head.headers.first(Note::ContentType).unwrap_or_default();
    head.version == Version::HTTP_2 && media::is_grpc(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRESS: Duration = Duration::from_secs(30);

    fn bounds(pace: u64) -> Bounds {
        Bounds { deadline: u64::MAX, answer: 10, pace, waited: 0, looked: 0 }
    }

    #[test]
    fn a_byte_now_and_then_buys_no_time() {
        let mut bounds = bounds(100);
        assert_eq!(bounds.patience(true, 0, PROGRESS, 0), PROGRESS);
        // One byte every 29 seconds.
        assert_eq!(bounds.patience(true, 1, PROGRESS, 290), Duration::from_secs(1));
        assert_eq!(bounds.patience(true, 2, PROGRESS, 580), Duration::ZERO);
    }

    #[test]
    fn who_sends_enough_may_go_on_for_ever() {
        let mut bounds = bounds(100);
        for second in 0..10_000 {
            let left = bounds.patience(true, second * 100, PROGRESS, second * 10);
            assert_eq!(left, PROGRESS, "after {second} s");
        }
    }

    #[test]
    fn only_time_that_the_client_is_waited_for_counts() {
        let mut bounds = bounds(100);
        for second in 0..1000 {
            assert_eq!(bounds.patience(false, 0, PROGRESS, second * 10), PROGRESS);
        }
    }

    #[test]
    fn an_answer_is_counted_to_its_bound() {
        let mut bounds = bounds(0);
        assert!(bounds.fits(None) && bounds.fits(Some(10)) && !bounds.fits(Some(11)));
        assert!(bounds.take(4) && bounds.take(6) && !bounds.take(1));
    }

    #[test]
    fn all_of_a_requests_time_ends_at_once() {
        let bounds = Bounds { deadline: 50, ..bounds(0) };
        assert_eq!(bounds.at_most(PROGRESS, 20), Duration::from_secs(3));
        assert!(!bounds.is_over(49) && bounds.is_over(50));
        assert_eq!(bounds.at_most(PROGRESS, 70), Duration::ZERO);
    }
}
