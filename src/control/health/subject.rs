//! One endpoint in one version's tenure, as its health is known: how it is checked, what was found, how it stands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::course::Course;
use super::heritage::{self, Sidelined};
use super::probe::Check;
use crate::control::clock;
use crate::proxy::upstream::{Standing, Upstream, Vitals};
use crate::release::Timestamp;
use crate::table::pool::outliers::Cause;
use crate::table::{EndpointAddr, OutlierRules};

/// An endpoint whose health is looked after.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) upstream: Arc<Upstream>,
    pub(super) address: EndpointAddr,
    pub(super) vitals: Arc<Vitals>,
    /// How it is checked, if it is.
    pub(super) check: Option<Check>,
    /// True once nobody looks after it any more: it is in the pool no more, or checked in another way.
    is_over: AtomicBool,
    known: Mutex<Known>,
}

/// What is known of an endpoint's health.
#[derive(Debug, Clone)]
pub struct Known {
    course: Course,
    /// How it stands.
    pub standing: Standing,
    /// Since when.
    pub since: Timestamp,
    /// What its last check said, once there was one.
    pub last: Option<Answer>,
    /// When that was, whatever was done to the calendar since.
    pub looked: Option<Instant>,
    /// What the last one said that was not good; kept when it is well again.
    pub last_failure: Option<Answer>,
    /// Why it is left alone, and until when, while it is.
    pub ejection: Option<Ejection>,
    /// How many ejections there were in a row, and when the last one ended.
    ejections: (u32, Option<Instant>),
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// True when it was good.
    pub is_well: bool,
    /// What it was, in words.
    pub said: String,
    /// When.
    pub at: Timestamp,
}

/// An endpoint is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Why.
    pub cause: Cause,
    /// That in words.
    pub said: String,
    /// Until when, by the calendar.
    pub until: Timestamp,
    ends: Instant,
    /// How long that is, from its beginning on.
    lasts: Duration,
}

/// An endpoint stands otherwise than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turned {
    pub(super) from: Standing,
    pub(super) to: Standing,
}

impl Known {
    /// Nothing but where its checks begin.
    pub(super) fn new(course: Course, now: Timestamp) -> Self {
        let (last, last_failure, ejection) = (None, None, None);
        Self {
            course,
            standing: course.state(),
            since: now,
            last,
            looked: None,
            last_failure,
            ejection,
            ejections: (0, None),
        }
    }

    /// The same of an endpoint that is not checked any more; `None` when that leaves nothing.
    pub(super) fn without_checks(mut self) -> Option<Self> {
        self.course = Course::UNCHECKED;
        self.ejection.is_some().then_some(self)
    }

    /// What another process is told of it; `None` when it gets requests.
    pub(super) fn told(
        &self,
        upstream: &Upstream,
        address: &EndpointAddr,
        now: Instant,
    ) -> Option<Sidelined> {
        if self.standing.serves() {
            return None;
        }
        let ejection = self.ejection.as_ref().map(|ejection| heritage::Ejected {
            cause: ejection.cause,
            said: ejection.said.clone(),
            until: ejection.until,
            left: Some(ejection.ends.saturating_duration_since(now)),
            count: self.ejections.0,
        });
        Some(Sidelined {
            service: upstream.service.clone(),
            version: upstream.version.clone(),
            endpoint: address.clone(),
            state: self.course.state(),
            since: self.since,
            last_failure: self.last_failure.clone(),
            ejection,
        })
    }

    /// True when it was found well, and gets requests.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.standing == Standing::Up
    }

    /// What has turned, now that something else is known.
    fn settle(&mut self, at: Timestamp) -> Option<Turned> {
        let from = self.standing;
        let to = if self.ejection.is_some() { Standing::Ejected } else { self.course.state() };
        if to == from {
            return None;
        }
        (self.standing, self.since) = (to, at);
        Some(Turned { from, to })
    }

    /// How many ejections in a row this one is: each interval without one takes one off.
    fn next_ejection(&self, rules: &OutlierRules, now: Instant) -> u32 {
        let (count, ended) = self.ejections;
        let quiet = ended.map_or(Duration::ZERO, |ended| now.saturating_duration_since(ended));
        let over = quiet.as_nanos() / rules.interval.as_nanos().max(1);
        count.saturating_sub(u32::try_from(over).unwrap_or(u32::MAX)) + 1
    }
}

impl Subject {
    /// The endpoint at `address` of a tenure, of which so much is known. From now on it stands so.
    pub(super) fn new(
        upstream: &Arc<Upstream>,
        address: &EndpointAddr,
        check: Option<Check>,
        known: Known,
    ) -> Self {
        let vitals = upstream.vitals(address);
        vitals.set_standing(known.standing, clock::instant());
        let (upstream, address) = (Arc::clone(upstream), address.clone());
        Self { upstream, address, vitals, check, is_over: AtomicBool::new(false), known: Mutex::new(known) }
    }

    /// What is known of it.
    pub(super) fn known(&self) -> Known {
        self.lock().clone()
    }

    /// Nobody looks after it any more. What is known goes on with whoever follows.
    pub(super) fn end(&self) -> Known {
        // Pairs with `is_over`. The lock orders both: what is found later is not believed.
        let known = self.lock();
        self.is_over.store(true, Ordering::Relaxed);
        known.clone()
    }

    /// As [`Self::end`], and it counts as it did before anything was known.
    pub(super) fn forget(&self) {
        self.end();
        self.vitals.set_standing(Standing::Unchecked, clock::instant());
        self.vitals.forgive();
    }

    /// True once nobody looks after it any more.
    pub(super) fn is_over(&self) -> bool {
        // Pairs with `end`.
        self.is_over.load(Ordering::Relaxed)
    }

    /// Takes over what a check has found; what has turned by it.
    pub(super) fn found(&self, answer: Answer) -> Option<Turned> {
        let rules = &self.check.as_ref()?.rules;
        let mut known = self.lock();
        if self.is_over() {
            return None;
        }
        known.course = known.course.after(answer.is_well, rules.rise, rules.fall);
        if !answer.is_well {
            known.last_failure = Some(answer.clone());
        }
        let at = answer.at;
        (known.last, known.looked) = (Some(answer), Some(clock::instant()));
        self.publish(known.settle(at))
    }

    /// It stands as another process has found it, as far as nothing is known here; when its ejection ends.
    pub(super) fn inherit(
        &self,
        told: Sidelined,
        rules: Option<&OutlierRules>,
        now: Instant,
        at: Timestamp,
    ) -> Option<Instant> {
        let mut known = self.lock();
        if self.is_over() || known.last.is_some() || known.ejection.is_some() {
            return None;
        }
        if self.check.is_some() && told.state != Standing::Ejected {
            known.course = Course::found(told.state);
            known.last_failure = told.last_failure;
        }
        if let (Some(ejection), Some(rules)) = (told.ejection, rules) {
            // By the calendar only where nobody tells; never for longer than here.
            let by_calendar = || Duration::from_millis(ejection.until.0.saturating_sub(at.0));
            let left = ejection.left.unwrap_or_else(by_calendar);
            let (lasts, left) = (rules.lasts(ejection.count), left.min(rules.lasts(u32::MAX)));
            let ends = now + left;
            known.ejections = (ejection.count, Some(ends));
            let (cause, said, until) = (ejection.cause, ejection.said, ejection.until);
            known.ejection = Some(Ejection { cause, said, until, ends, lasts });
        }
        self.publish(known.settle(told.since));
        known.ejection.as_ref().map(|ejection| ejection.ends)
    }

    /// It is left alone from now on; until when, and what has turned by it.
    pub(super) fn eject(
        &self,
        cause: Cause,
        said: &str,
        rules: &OutlierRules,
        (now, at): (Instant, Timestamp),
    ) -> (Instant, Option<Turned>) {
        let mut known = self.lock();
        let count = known.next_ejection(rules, now);
        let lasts = rules.lasts(count);
        let ends = now + lasts;
        let until = Timestamp(at.0.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)));
        known.ejections = (count, Some(ends));
        known.ejection = Some(Ejection { cause, said: said.to_owned(), until, ends, lasts });
        let turned = if self.is_over() { None } else { self.publish(known.settle(at)) };
        (ends, turned)
    }

    /// It is left alone for no longer than `rules` say now; until when, if that is sooner than it was.
    pub(super) fn shorten(&self, rules: &OutlierRules) -> Option<Instant> {
        let mut known = self.lock();
        let lasts = rules.lasts(known.ejections.0);
        let ejection = known.ejection.as_mut().filter(|ejection| lasts < ejection.lasts)?;
        let less = ejection.lasts - lasts;
        let millis = u64::try_from(less.as_millis()).unwrap_or(u64::MAX);
        ejection.until = Timestamp(ejection.until.0.saturating_sub(millis));
        ejection.ends = ejection.ends.checked_sub(less)?;
        ejection.lasts = lasts;
        let ends = ejection.ends;
        known.ejections.1 = Some(ends);
        Some(ends)
    }

    /// It gets requests again, whatever its time; what has turned by it.
    pub(super) fn pardon(&self, now: Instant, at: Timestamp) -> Option<Turned> {
        let mut known = self.lock();
        if self.is_over() || known.ejection.take().is_none() {
            return None;
        }
        known.ejections.1 = Some(now);
        self.vitals.forgive();
        self.publish(known.settle(at))
    }

    /// It gets requests again if its time is over, as far as its checks go; what has turned by it.
    pub(super) fn readmit(&self, now: Instant, at: Timestamp) -> Option<Turned> {
        let mut known = self.lock();
        if self.is_over() || known.ejection.as_ref().is_none_or(|ejection| ejection.ends > now) {
            return None;
        }
        known.ejection = None;
        self.vitals.forgive();
        self.publish(known.settle(at))
    }

    /// The workers are told.
    fn publish(&self, turned: Option<Turned>) -> Option<Turned> {
        turned.inspect(|turned| self.vitals.set_standing(turned.to, clock::instant()))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Plain values: whole even if a holder panicked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        let upstream = Arc::new(Upstream::open("shop".parse().unwrap(), "blue".parse().unwrap(), 1));
        let known = Known::new(Course::UNCHECKED, Timestamp(0));
        Subject::new(&upstream, &"127.0.0.1:1".parse().unwrap(), None, known)
    }

    #[test]
    fn ejections_in_a_row_grow_and_quiet_times_shorten_them_again() {
        let (subject, rules, start) = (subject(), OutlierRules::default(), clock::instant());
        let eject = |now: Instant| {
            let (ends, turned) = subject.eject(Cause::Errors, "5 errors", &rules, (now, Timestamp(0)));
            assert_eq!(turned.map(|turned| turned.to), Some(Standing::Ejected));
            assert_eq!(subject.vitals.standing(), Standing::Ejected);
            assert_eq!(subject.readmit(ends - Duration::from_millis(1), Timestamp(0)), None, "too early");
            assert!(subject.readmit(ends, Timestamp(0)).is_some());
            assert_eq!(subject.vitals.standing(), Standing::Unchecked);
            (ends, (ends - now).as_secs())
        };
        let (ends, first) = eject(start);
        let (ends, second) = eject(ends + Duration::from_secs(1));
        // Two intervals take two off.
        let (ends, third) = eject(ends + Duration::from_secs(20));
        let (_, fourth) = eject(ends + Duration::from_hours(1));
        assert_eq!([first, second, third, fourth], [30, 60, 30, 30]);
    }
}
