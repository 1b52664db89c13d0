//! Which versions are being left, and how what is left on them ends. Control says so, every worker follows.
//!
//! It is a state and not a message: a worker that was busy follows the newest list, and a version that comes back is
//! simply not on it any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::Upstream;
use crate::proxy::clock;
use crate::table::{DrainRules, EndpointAddr};

/// How long those that are told to go at once may take, before they are cut.
const AT_ONCE: Duration = Duration::from_secs(10);

/// How long who is told to go may take while a hold waits for it, and a WebSocket's client for its own Close anywhere: less than a
/// hold lasts by default, or one that has stopped reading would bar an exclusive flip.
pub const ANSWER: Duration = Duration::from_secs(5);

/// When what ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// When it was left.
    pub since: Instant,
    /// How long from then.
    pub rules: DrainRules,
    /// Whom the deadline is for.
    pub cuts: Cuts,
}

/// Who is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cuts {
    /// Whatever there is.
    All,
    /// Who was told to go and has not gone, and tunnels, which cannot be told and have no end of their own.
    Told,
}

impl Plan {
    /// By these rules, of what is left since then.
    #[must_use]
    pub fn of(since: Instant, rules: DrainRules) -> Self {
        Self { since, rules, cuts: Cuts::All }
    }

    /// Everything that lasts is told to go at once, and cut a little later.
    #[must_use]
    pub fn at_once(since: Instant) -> Self {
        let rules =
            DrainRules { patience: Duration::ZERO, spread: Duration::ZERO, deadline: AT_ONCE, retry: None };
        Self::of(since, rules)
    }

    /// Whatever has words for an early end is told to go at once, and cut after [`ANSWER`], and so are tunnels; all else is waited
    /// for.
    #[must_use]
    pub fn of_words(since: Instant, retry: Option<Duration>) -> Self {
        let rules = DrainRules { patience: Duration::ZERO, spread: Duration::ZERO, deadline: ANSWER, retry };
        Self { since, rules, cuts: Cuts::Told }
    }

    /// When the first one is told to go.
    #[must_use]
    pub fn begin(&self) -> Instant {
        self.since + self.rules.patience
    }

    /// When all have been told.
    #[must_use]
    pub fn end(&self) -> Instant {
        self.begin() + self.rules.spread
    }

    /// When what is left is cut.
    #[must_use]
    pub fn cut(&self) -> Instant {
        self.since + self.rules.deadline
    }
}

/// One version's tenure that is being left.
#[derive(Debug, Clone)]
pub struct Departure {
    /// Which.
    pub upstream: Arc<Upstream>,
    /// How.
    pub plan: Plan,
}

/// One endpoint of a version that is being left, while the version goes on.
#[derive(Debug, Clone)]
pub struct EndpointDeparture {
    /// The version's tenure.
    pub upstream: Arc<Upstream>,
    /// Which endpoint.
    pub endpoint: EndpointAddr,
    /// How.
    pub plan: Plan,
}

/// Everything that is being left.
#[derive(Debug, Clone, Default)]
pub struct Leaving {
    /// Each tenure once.
    pub versions: Arc<[Departure]>,
    /// Endpoints that are being left, each once a tenure.
    pub endpoints: Arc<[EndpointDeparture]>,
    /// Those that are not to be waited for, whether they are being left or not; their plan goes before.
    pub hurried: Arc<[Departure]>,
    /// For every version, also those that carry traffic: the process ends.
    pub all: Option<Plan>,
}

/// Who is being left, for the workers to follow.
#[derive(Debug)]
pub struct Departures(watch::Sender<Leaving>);

impl Default for Departures {
    fn default() -> Self {
        Self(watch::Sender::new(Leaving::default()))
    }
}

impl Departures {
    /// These are being left, and no others. Call after the change was published that leaves one, and before that which
    /// brings one back.
    pub fn set(&self, versions: impl Into<Arc<[Departure]>>) {
        let versions = versions.into();
        self.0.send_modify(|leaving| leaving.versions = versions);
    }

    /// These endpoints are being left, and no others. Call after the change was published.
    pub fn set_endpoints(&self, endpoints: impl Into<Arc<[EndpointDeparture]>>) {
        let endpoints = endpoints.into();
        self.0.send_modify(|leaving| leaving.endpoints = endpoints);
    }

    /// Ends what lasts on these at once or by another plan of their own, and on no others any more, whoever gets traffic;
    /// an exclusive flip does not wait for streams.
    pub fn hurry(&self, versions: impl Into<Arc<[Departure]>>) {
        let versions = versions.into();
        self.0.send_modify(|leaving| leaving.hurried = versions);
    }

    /// Ends what lasts on every version by these rules, from now on, because the process ends.
    pub fn end(&self, rules: DrainRules) {
        let plan = Plan::of(clock::now(), rules);
        self.0.send_modify(|leaving| leaving.all = Some(plan));
    }

    /// Follows it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Leaving> {
        let mut leaving = self.0.subscribe();
        leaving.mark_changed();
        leaving
    }
}

/// When the next of several is due, so that they come evenly over the time that there is, however many there are.
#[derive(Debug)]
pub struct Pace {
    begin: Instant,
    end: Instant,
    /// From 0 to 1: how far between two of another one's it begins.
    phase: f64,
    last: Option<Instant>,
}

/// Who is later than this does not make good for it by a rush.
const LATE: Duration = Duration::from_millis(250);

impl Pace {
    /// The pace of `plan` for the worker of this number out of so many: theirs come between each other's.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a few workers")]
    pub fn of(plan: &Plan, worker: usize, workers: usize) -> Self {
        let phase = (worker as f64 + 0.5) / workers.max(1) as f64;
        Self { begin: plan.begin(), end: plan.end(), phase, last: None }
    }

    /// When the next one is due, of so many that are left; never before they begin.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52")]
    pub fn due(&self, left: usize) -> Instant {
        let (from, part) = match self.last {
            None => (self.begin, self.phase / left.max(1) as f64),
            Some(last) => (last, 1.0 / (left.max(1) as f64 + 1.0 - self.phase)),
        };
        from + self.end.saturating_duration_since(from).mul_f64(part.min(1.0))
    }

    /// One was told that was due then.
    pub fn told(&mut self, due: Instant, now: Instant) {
        let is_late = now.saturating_duration_since(due) > LATE;
        self.last = Some(if is_late { now } else { due });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(patience: u64, spread: u64) -> Plan {
        let [patience, spread] = [patience, spread].map(Duration::from_secs);
        Plan::of(clock::now(), DrainRules { patience, spread, ..DrainRules::default() })
    }

    /// When `count` are due, in milliseconds, if each is told when it is due.
    fn dues(plan: &Plan, worker: usize, workers: usize, count: usize) -> Vec<u128> {
        let mut pace = Pace::of(plan, worker, workers);
        let mut due = |left| {
            let due = pace.due(left);
            pace.told(due, due);
            (due - plan.since).as_millis()
        };
        (1..=count).rev().map(&mut due).collect()
    }

    #[test]
    fn they_come_evenly_and_the_workers_between_each_other() {
        let plan = plan(10, 4);
        assert_eq!(dues(&plan, 0, 1, 4), [10_500, 11_500, 12_500, 13_500]);
        let mut both = [dues(&plan, 0, 2, 4), dues(&plan, 1, 2, 4)].concat();
        both.sort_unstable();
        assert_eq!(both, [10_250, 10_750, 11_250, 11_750, 12_250, 12_750, 13_250, 13_750]);
    }

    #[test]
    fn those_that_come_later_or_leave_by_themselves_change_the_pace_and_not_the_end() {
        let plan = plan(0, 10);
        let mut pace = Pace::of(&plan, 0, 1);
        let mut tell = |left| {
            let due = pace.due(left);
            pace.told(due, due);
            (due - plan.since).as_millis()
        };
        assert_eq!([tell(10), tell(9)], [500, 1_500]);
        // Six of the eight leave, and then three join.
        assert_eq!([tell(2), tell(4)], [4_900, 6_033]);
        assert_eq!([tell(3), tell(2), tell(1)].map(|due| due < 10_000), [true; 3]);
    }

    #[test]
    fn who_is_late_makes_no_rush_and_behind_the_end_all_are_due() {
        let plan = plan(0, 10);
        let mut pace = Pace::of(&plan, 0, 1);
        let late = plan.since + Duration::from_secs(5);
        pace.told(pace.due(10), late);
        assert!(pace.due(9) > late);
        pace.told(plan.end(), plan.end());
        assert_eq!(pace.due(3), plan.end());
    }
}
