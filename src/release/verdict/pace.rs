//! How fast suspicion of slowness may grow.

/// Lets so many requests a second count, and one at once.
///
/// Many who ask at the same moment (all who had waited in a hold) ask again at the same moment if their answers take equally long.
/// They are no independent requests: were each of them evidence, a version that answers them as slowly as the other would be suspect.
/// Of a moment in which there are too many each counts in part, which keeps the share that is slow.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// `None`: all of them count.
    a_second: Option<f64>,
    /// How many may count now, 1 at most.
    room: f64,
}

impl Pace {
    pub(super) fn new(a_second: Option<f64>) -> Self {
        Self { a_second, room: 1.0 }
    }

    /// As what part of one each of these counts, which came in the last `dt` seconds.
    pub(super) fn part(&mut self, dt: f64, requests: u64) -> f64 {
        let Some(a_second) = self.a_second else { return 1.0 };
        let (room, requests) = ((self.room + a_second * dt).min(1.0), requests as f64);
        self.room = (room - requests).max(0.0);
        if requests > room { room / requests } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_counts_as_one_request_and_few_requests_as_what_they_are() {
        let mut pace = Pace::new(Some(10.0));
        assert_eq!([pace.part(0.0, 40), pace.part(0.0, 3)], [1.0 / 40.0, 0.0]);
        assert_eq!(pace.part(0.05, 4), 0.125);
        assert_eq!([pace.part(60.0, 1), pace.part(0.1, 1)], [1.0; 2], "what did not count is not saved");
        assert_eq!(pace.part(0.0, 1), 0.0);
        assert_eq!(Pace::new(None).part(0.0, 40), 1.0);
    }
}
