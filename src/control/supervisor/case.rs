//! One service that is supervised: what it counts, and the trial that is under way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inquiry::Inquiry;
use super::orders::Wanted;
use super::past::{Past, Times};
use super::shown::Shown;
use crate::control::terms::End;
use crate::proxy::ledger::{Counted, GENERATIONS, Ledger, Side, Sums};
use crate::proxy::live::Snapshot;
use crate::release::verdict::{LatencyHist, Report, bucket_index};
use crate::release::{Deployment, Timestamp};
use crate::table::{Epoch, Service, ServiceName, VersionName};

/// How often services are looked at in which nobody is tried.
pub(super) const REST: Duration = Duration::from_secs(10);
/// The longest time that anybody can ask for.
const LONGEST: Duration = Duration::from_hours(365 * 24);
/// How often trials are looked at in which nothing is decided: what hangs may be all that there is.
const STILL: Duration = Duration::from_millis(200);

/// One supervised service.
#[derive(Debug)]
pub(super) struct Case {
    ledger: Arc<Ledger>,
    /// What of the ledger is taken into account.
    seen: Sums,
    /// When that was, if it was since the trial began.
    looked: Option<Instant>,
    /// What came with the last look.
    pub(super) fresh: Fresh,
    /// What versions did lately.
    pasts: BTreeMap<VersionName, Past>,
    /// The trial, while there is one.
    pub(super) inquiry: Option<Inquiry>,
    /// When the last trial ends that ends by itself, as it is written and on the clock that nobody sets.
    ends: Option<End>,
    /// The difference between its versions, as it was shown last.
    pub(super) shown: Shown,
}

/// What came to a ledger between two looks, by generation and side.
pub(super) type Fresh = [[Counted; 2]; GENERATIONS];

impl Case {
    /// A service that is watched from now on.
    pub(super) fn new(ledger: Arc<Ledger>) -> Self {
        let (seen, looked, fresh, pasts, shown) = Default::default();
        Self { ledger, seen, looked, fresh, pasts, inquiry: None, ends: None, shown }
    }

    /// The epoch at which the trial began, if there is one.
    pub(super) fn stage(&self) -> Option<Epoch> {
        self.inquiry.as_ref().map(|inquiry| inquiry.trial.stage)
    }

    /// When its trial is over, if that ends by itself.
    pub(super) fn end(&self) -> Option<End> {
        self.inquiry.as_ref().and(self.ends)
    }

    /// Its trial is over then, if that is the one that it finds.
    pub(super) fn go_on(&mut self, end: End) {
        self.ends = Some(end);
    }

    /// Takes over what the table and the deployment say now; `ledger` is the published one.
    pub(super) fn follow(
        &mut self,
        ledger: &Arc<Ledger>,
        (service, deployment): (&Service, &Deployment),
        snapshot: &Snapshot,
        (now, at): (Instant, Timestamp),
    ) {
        if !Arc::ptr_eq(&self.ledger, ledger) {
            self.take(now);
            (self.ledger, self.seen) = (Arc::clone(ledger), Sums::default());
            self.inquiry = None;
            self.pasts.retain(|version, _| service.version(version).is_some());
        }
        // The state may be a moment older or newer than the snapshot: then the next notice brings both.
        let trial = deployment.trial.as_ref().filter(|trial| trial.stage == ledger.watch.stage);
        let Some(trial) = trial else {
            self.inquiry = None;
            return;
        };
        self.ends = trial.until.map(|until| match self.ends {
            Some(known) if known.0 == until => known,
            _ => (until, now + left(until, trial.lasts, at)),
        });
        if self.inquiry.is_none() {
            let past = self.pasts.entry(trial.baseline.clone()).or_default();
            let (rate, watched) = (past.rate(now), past.history());
            let times = Times { watched, ever: ever_took(snapshot, &service.name, &trial.baseline) };
            // Nobody has watched it: all that its version ever did is told by its metrics.
            let rate = if rate.0 > 0 { rate } else { ever(snapshot, &service.name, &trial.baseline) };
            (self.shown, self.looked) = (Shown::default(), None);
            self.inquiry = Some(Inquiry::open(trial, service, &self.ledger, rate, times, now));
        }
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.follow(trial, service, self.ends.map(|(_, ends)| ends), now);
        }
    }

    /// What has come since the last look goes into the versions' pasts, and is returned.
    fn take(&mut self, now: Instant) -> Fresh {
        let sums = self.ledger.sums();
        let mut fresh = Fresh::default();
        for (generation, fresh) in fresh.iter_mut().enumerate() {
            for (side, fresh) in fresh.iter_mut().enumerate() {
                *fresh = sums.groups[generation][side].less(&self.seen.groups[generation][side]);
            }
        }
        let watch = &self.ledger.watch;
        let sides = [(Side::Baseline, Some(&watch.baseline)), (Side::Candidate, watch.candidate.as_ref())];
        for (side, version) in sides.into_iter().filter_map(|(side, version)| Some((side as usize, version?)))
        {
            let past = self.pasts.entry(version.clone()).or_default();
            let sum = |of: fn(&Counted) -> u64| fresh.iter().map(|sides| of(&sides[side])).sum();
            past.add(now, sum(|counted| counted.decided), sum(|counted| counted.failed));
            let before = &self.seen.took[side];
            past.took(
                now,
                sums.took[side].iter().zip(before).map(|(now, before)| now.saturating_sub(*before)),
            );
        }
        (self.seen, self.looked) = (sums, Some(now));
        fresh
    }

    /// All there is to tell of the trial, while there is one.
    pub(super) fn report(&self, now: (Instant, Timestamp), snapshot: &Snapshot) -> Option<Report> {
        let inquiry = self.inquiry.as_ref()?;
        Some(inquiry.report(&self.ledger, &self.seen, now, snapshot))
    }

    /// Makes the difference that is shown anew for this scrape, if it is not.
    pub(super) fn show(&mut self, scrape: u64) {
        if let Some(inquiry) = self.inquiry.as_ref().filter(|_| self.shown.scrape() < scrape) {
            self.shown.make(&inquiry.supervisor, scrape);
        }
    }

    /// True when a look now would find what the last one has found. Of a thousand trials most have nothing new in ten milliseconds.
    pub(super) fn is_still(&self, now: Instant) -> bool {
        let Some(looked) = self.looked.map(|looked| age(looked, now)) else { return false };
        match &self.inquiry {
            None => looked < REST,
            Some(inquiry) => {
                looked < STILL
                    && inquiry.is_calm(now)
                    && !self.seen.has_out()
                    && self.ledger.decided() == self.seen.decided()
            }
        }
    }

    /// Looks at what has come; what supervision wants done about it.
    pub(super) fn tick(&mut self, now: Instant, snapshot: &Snapshot) -> Option<Wanted> {
        let alive = self.seen.alive;
        self.fresh = self.take(now);
        let inquiry = self.inquiry.as_mut()?;
        inquiry.tick(&self.ledger, &self.seen, &self.fresh, self.seen.alive - alive, now, snapshot)
    }
}

/// What a version has done since it is in the table, and what of that failed, as the metrics tell.
fn ever(snapshot: &Snapshot, service: &ServiceName, version: &VersionName) -> (u64, u64) {
    let cells = snapshot.tenure(service, version).into_iter().flat_map(|tenure| tenure.cells());
    cells
        .map(|cells| cells.decided_and_failed())
        .fold((0, 0), |(all, bad), (more, worse)| (all + more, bad + worse))
}

/// How long all of its requests took, by the metrics.
fn ever_took(snapshot: &Snapshot, service: &ServiceName, version: &VersionName) -> LatencyHist {
    let cells = snapshot.tenure(service, version).into_iter().flat_map(|tenure| tenure.cells());
    let mut took = LatencyHist::default();
    // Each as long as its bucket has it at most.
    cells.flat_map(|cells| cells.took()).for_each(|(micros, count)| took.0[bucket_index(micros)] += count);
    took
}

/// How much is left until then where nobody tells: by the calendar, which alone outlives a process, and never more than it lasts in all.
fn left(until: Timestamp, lasts: Option<Duration>, at: Timestamp) -> Duration {
    let left = Duration::from_millis(until.0.saturating_sub(at.0));
    left.min(lasts.unwrap_or(LONGEST))
}

/// Since so long an inquiry lasts.
pub(super) fn age(since: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(since)
}
