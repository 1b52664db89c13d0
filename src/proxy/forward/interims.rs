//! How much an endpoint may say before it answers.

use http::HeaderMap;

use crate::proxy::fields::{LIST_OVERHEAD, list_size_of};
use crate::proxy::http1::MAX_HEAD;

/// Bytes of interim answers (1xx) that may come at once, as lists of fields (RFC 9113 §6.5.2), and more of them for each tick:
/// an upload's progress may be told some hundred times a second, and for as long as it lasts.
const AT_ONCE: u64 = 2 * MAX_HEAD as u64;
const A_TICK: u64 = 4 * 1024;

/// The interim answers of one exchange.
#[derive(Debug, Default)]
pub(super) struct Interims {
    /// Bytes for which no time has passed yet.
    ahead: u64,
    /// The tick of the last one.
    at: u64,
}

impl Interims {
    /// One more, with these fields, comes at tick `now`: false when it is one too many.
    #[must_use]
    pub(super) fn take(&mut self, fields: &HeaderMap, now: u64) -> bool {
        let earned = A_TICK.saturating_mul(now - self.at);
        let size = (LIST_OVERHEAD + list_size_of(fields)) as u64;
        (self.ahead, self.at) = (self.ahead.saturating_sub(earned) + size, now);
        self.ahead <= AT_ONCE
    }

    /// True while there were none.
    pub(super) fn are_none(&self) -> bool {
        self.ahead == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many with `length` bytes of a field pass when `a_tick` of them come in each tick, and all of 100,000 might.
    fn pass(length: usize, a_tick: u64) -> u64 {
        let fields = HeaderMap::from_iter([(http::header::LINK, "x".repeat(length).parse().unwrap())]);
        let mut interims = Interims::default();
        (0..100_000).find(|count| !interims.take(&fields, 7 + count / a_tick)).unwrap_or(100_000)
    }

    #[test]
    fn they_are_bounded_by_their_pace_and_not_by_their_number() {
        assert_eq!(pass(20, 40), 100_000, "400 a second");
        assert!((1_000..2_000).contains(&pass(20, u64::MAX)), "at once");
        assert_eq!(pass(4_000, 1), 100_000);
        assert!(pass(4_000, 2) < 100);
        assert_eq!(pass(MAX_HEAD, u64::MAX), 1);
    }
}
