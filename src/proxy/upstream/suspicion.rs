//! What the workers notice about an endpoint that fails, and how control hears of it.
//!
//! A failure is rare and writes to what all workers share; an answer that is good writes nothing, unless there were
//! failures just before. So the streaks are the process's, to the attempt, and the usual request pays one load.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::suspects::{Member, Suspect, Suspects};
use crate::metrics::bump;
use crate::table::OutlierRules;
use crate::table::pool::outliers::Cause;

/// What an attempt says about its endpoint, as far as ejection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A good answer.
    Good,
    /// Another answer 5xx.
    Error,
    /// 502, 503 or 504.
    Gateway,
    /// No answer.
    Nothing,
}

impl Heard {
    /// True when it is one more of the row that `cause` is about.
    fn counts_for(self, cause: Cause) -> bool {
        match cause {
            Cause::Errors => self != Self::Good,
            Cause::GatewayErrors => self == Self::Gateway,
            Cause::LocalErrors => self == Self::Nothing,
            Cause::SuccessRate | Cause::Latency => false,
        }
    }
}

/// What is looked for in the endpoints of one tenure.
#[derive(Debug, Clone)]
pub struct Suspicion {
    limits: [u32; 3],
    is_measured: bool,
    suspects: Arc<Suspects>,
}

impl Suspicion {
    /// By these rules.
    #[must_use]
    pub fn new(rules: &OutlierRules, suspects: &Arc<Suspects>) -> Self {
        let limits =
            [rules.consecutive_errors, rules.consecutive_gateway_errors, rules.consecutive_local_errors]
                .map(u32::from);
        let is_measured = rules.success_rate.is_some() || rules.latency.is_some();
        let suspects = Arc::clone(suspects);
        Self { limits, is_measured, suspects }
    }
}

/// How one endpoint's attempts went lately, on all workers.
#[derive(Debug)]
pub struct Conduct {
    member: Member,
    /// What is looked for, if anything; locked when that changes, and for a failure.
    suspicion: Mutex<Option<Suspicion>>,
    rows: [AtomicU32; 3],
    /// Control was told and has not looked yet.
    is_told: AtomicBool,
    /// What each worker counts, for as long as it does.
    tallies: Mutex<Vec<Weak<Tally>>>,
}

/// The part of it that every attempt looks at.
#[derive(Debug, Default)]
pub struct Watched {
    /// Anything is looked for.
    pub(super) is_watched: AtomicBool,
    /// Rates and latencies too.
    pub(super) is_measured: AtomicBool,
    /// The last that was heard was a good answer: no row, and nothing to be heard again. False until there was one.
    pub(super) is_good: AtomicBool,
}

/// One worker's attempts with one endpoint, where rates and latencies are compared. Single writer.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally {
    good: AtomicU64,
    bad: AtomicU64,
    timed: AtomicU64,
    micros: AtomicU64,
}

/// Sums of tallies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    /// Good answers.
    pub good: u64,
    /// Everything else.
    pub bad: u64,
    /// Those of the good ones of which is known how long they took, and those that another outran.
    pub timed: u64,
    /// How long those took, all together.
    pub micros: u64,
}

impl Sums {
    /// What has come since `before`; of less than then nothing: a worker has forgotten its own.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let less = |of: fn(&Self) -> u64| of(&self).checked_sub(of(&before));
        let since = || {
            let (good, bad) = (less(|sums| sums.good)?, less(|sums| sums.bad)?);
            Some(Self { good, bad, timed: less(|sums| sums.timed)?, micros: less(|sums| sums.micros)? })
        };
        since().unwrap_or_default()
    }
}

impl Tally {
    /// One more attempt, which took so long if that is known.
    pub fn record(&self, heard: Heard, took: Option<Duration>) {
        bump(if heard == Heard::Good { &self.good } else { &self.bad }, 1);
        took.into_iter().for_each(|took| self.time(took));
    }

    /// An answer took so long, or would have taken longer.
    pub fn time(&self, took: Duration) {
        bump(&self.timed, 1);
        bump(&self.micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Conduct {
    /// Of an endpoint of a tenure; nothing is looked for yet.
    #[must_use]
    pub fn new(member: Member) -> Self {
        Self {
            member,
            suspicion: Mutex::default(),
            rows: Default::default(),
            is_told: AtomicBool::new(false),
            tallies: Mutex::default(),
        }
    }

    /// From now on this is looked for.
    pub(super) fn watch(&self, watched: &Watched, suspicion: Option<&Suspicion>) {
        *self.suspicion.lock().unwrap_or_else(PoisonError::into_inner) = suspicion.cloned();
        // Relaxed, as all of this: an attempt that sees it a little late is heard in the old way.
        watched
            .is_measured
            .store(suspicion.is_some_and(|suspicion| suspicion.is_measured), Ordering::Relaxed);
        watched.is_watched.store(suspicion.is_some(), Ordering::Relaxed);
    }

    /// Takes over what an attempt said that is not good, or that ends a row.
    #[cold]
    pub(super) fn hear(&self, watched: &Watched, heard: Heard) {
        let mut told = None;
        for (cause, row) in Cause::ROWS.into_iter().zip(&self.rows) {
            if !heard.counts_for(cause) {
                row.store(0, Ordering::Relaxed);
                continue;
            }
            let length = row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if told.is_none() && self.is_over(cause, length) {
                told = Some(cause);
            }
        }
        watched.is_good.store(heard == Heard::Good, Ordering::Relaxed);
        if let Some(cause) = told {
            self.tell(cause);
        }
    }

    /// True when a row is so long that control should look.
    fn is_over(&self, cause: Cause, length: u32) -> bool {
        let suspicion = self.suspicion.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = suspicion.as_ref().map_or(0, |suspicion| suspicion.limits[cause as usize]);
        limit > 0 && length >= limit
    }

    /// Tells control, unless it has been told and has not looked.
    fn tell(&self, cause: Cause) {
        let suspicion = self.suspicion.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suspicion) = &*suspicion else { return };
        if !self.is_told.swap(true, Ordering::Relaxed) {
            suspicion.suspects.tell(Suspect { member: self.member.clone(), cause });
        }
    }

    /// Control has looked: what happens from now on is told again.
    pub(super) fn looked(&self) {
        self.is_told.store(false, Ordering::Relaxed);
    }

    /// Nothing of before counts any more.
    pub(super) fn forgive(&self, watched: &Watched) {
        self.rows.iter().for_each(|row| row.store(0, Ordering::Relaxed));
        watched.is_good.store(false, Ordering::Relaxed);
        self.looked();
    }

    /// How long the row of this sort is.
    pub(super) fn row(&self, cause: Cause) -> u32 {
        self.rows.get(cause as usize).map_or(0, |row| row.load(Ordering::Relaxed))
    }

    /// A worker's own tally.
    pub(super) fn tally(&self) -> Arc<Tally> {
        let tally = Arc::<Tally>::default();
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.retain(|tally| tally.strong_count() > 0);
        tallies.push(Arc::downgrade(&tally));
        tally
    }

    /// All workers' tallies together. A worker that forgets the endpoint takes its own away.
    pub(super) fn sums(&self) -> Sums {
        let tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.iter().filter_map(Weak::upgrade).fold(Sums::default(), |sums, tally| Sums {
            good: sums.good + tally.good.load(Ordering::Relaxed),
            bad: sums.bad + tally.bad.load(Ordering::Relaxed),
            timed: sums.timed + tally.timed.load(Ordering::Relaxed),
            micros: sums.micros + tally.micros.load(Ordering::Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn watched(rules: &OutlierRules) -> (Conduct, Watched, Arc<Suspects>) {
        let (suspects, watched) = (Arc::default(), Watched::default());
        let conduct = Conduct::new(Member {
            tenure: 7,
            service: "shop".parse().unwrap(),
            version: "blue".parse().unwrap(),
            address: "127.0.0.1:1".parse().unwrap(),
        });
        let suspicion = (!rules.are_never()).then(|| Suspicion::new(rules, &suspects));
        conduct.watch(&watched, suspicion.as_ref());
        (conduct, watched, suspects)
    }

    fn told(suspects: &Suspects) -> Vec<Cause> {
        let come = suspects.come(9).now_or_never().unwrap_or_default();
        come.into_iter().map(|suspect| suspect.cause).collect()
    }

    #[test]
    fn a_row_is_told_once_until_control_has_looked() {
        let rules = OutlierRules { consecutive_errors: 3, ..OutlierRules::never() };
        let (conduct, watched, suspects) = watched(&rules);
        for heard in [Heard::Error, Heard::Gateway] {
            conduct.hear(&watched, heard);
        }
        assert_eq!(told(&suspects), []);
        conduct.hear(&watched, Heard::Nothing);
        conduct.hear(&watched, Heard::Error);
        assert_eq!(told(&suspects), [Cause::Errors]);
        assert_eq!(conduct.row(Cause::Errors), 4);
        conduct.hear(&watched, Heard::Error);
        assert_eq!(told(&suspects), []);
        conduct.looked();
        conduct.hear(&watched, Heard::Error);
        assert_eq!(told(&suspects), [Cause::Errors]);
    }

    #[test]
    fn each_row_is_of_its_own_sort_and_ends_with_anything_else() {
        let rules = OutlierRules {
            consecutive_gateway_errors: 2,
            consecutive_local_errors: 2,
            ..OutlierRules::never()
        };
        let (conduct, watched, suspects) = watched(&rules);
        for heard in
            [Heard::Gateway, Heard::Nothing, Heard::Gateway, Heard::Good, Heard::Gateway, Heard::Error]
        {
            conduct.hear(&watched, heard);
        }
        assert_eq!(told(&suspects), []);
        for heard in [Heard::Nothing, Heard::Nothing] {
            conduct.hear(&watched, heard);
        }
        assert_eq!(told(&suspects), [Cause::LocalErrors]);
        assert!(!watched.is_good.load(Ordering::Relaxed));
        conduct.hear(&watched, Heard::Good);
        assert!(watched.is_good.load(Ordering::Relaxed));
    }

    #[test]
    fn what_is_not_looked_for_is_not_told() {
        let (conduct, watched, suspects) = watched(&OutlierRules::never());
        (0..100).for_each(|_| conduct.hear(&watched, Heard::Nothing));
        assert_eq!(told(&suspects), []);
        assert!(!watched.is_watched.load(Ordering::Relaxed));
    }
}
