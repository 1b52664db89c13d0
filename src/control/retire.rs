//! Retirements end by themselves: control looks whether anybody has come to their versions, and ends them as an ordinary change of who
//! began them, when nobody has for long enough, or their whole time is over.
//!
//! Both go by a clock that nobody sets; by the calendar only what a process finds when it begins and [nobody tells](super::terms). What it
//! did not see itself it does not count as quiet: a process begins to listen when it begins.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::custody::Custody;
use super::handle::{Handle, Wanted};
use super::terms::End;
use super::{Control, Failed, clock};
use crate::release::{Command, RampOrder, Retired, State, Timestamp};
use crate::table::duration::text;
use crate::table::{Epoch, ServiceName, VersionName};

/// How long after a retirement could not be ended that is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks whether anybody has come: a part of the time in which nobody may, within these bounds.
const PART: u32 = 10;
const SOONEST: Duration = Duration::from_millis(10);
const LATEST: Duration = Duration::from_secs(5);

/// When retirements are over, and what is in the way of that. Locked for a look.
#[derive(Debug, Default)]
pub struct Retirements {
    clocks: Mutex<BTreeMap<ServiceName, Clock>>,
}

#[derive(Debug, Clone)]
struct Clock {
    begun: Epoch,
    version: VersionName,
    quiet: Duration,
    /// As it is written: a clock goes on while that is the same.
    until: Timestamp,
    due: Instant,
    /// When somebody was there last, as far as was looked, and how many had come until then.
    last: (Instant, u64),
    look: Instant,
    /// Why it was not ended the last time.
    hindrance: Option<String>,
}

/// How a retirement goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetirementClock {
    /// How much of its whole time is left.
    pub left: Duration,
    /// For how long nobody has come.
    pub quiet: Duration,
    /// Why it is not over although it should be; that is tried again.
    pub hindrance: Option<String>,
}

impl Retirements {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Clock>> {
        self.clocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what the state says of these services. `found` is the calendar's time where another process may have begun their
    /// retirements; `None`: what is new was published just now.
    pub(super) fn follow<'s>(
        &self,
        state: &State,
        services: impl Iterator<Item = &'s ServiceName>,
        now: Instant,
        found: Option<Timestamp>,
    ) {
        let mut clocks = self.lock();
        for name in services {
            let Some(retirement) = state.deployment(name).and_then(|it| it.retirement.as_ref()) else {
                clocks.remove(name);
                continue;
            };
            let (begun, quiet, until) = (retirement.begun, retirement.quiet, retirement.until);
            let known = clocks.get(name).filter(|clock| clock.begun == begun);
            let due = known.filter(|clock| clock.until == until).map(|clock| clock.due);
            let left = || found.map_or(retirement.lasts, |at| retirement.left(at));
            let due = due.unwrap_or_else(|| now + left());
            let (version, hindrance) = (retirement.version.clone(), None);
            // Nobody has been seen yet, so whoever comes first is news.
            let last = known.map_or((now, 0), |clock| clock.last);
            let clock = Clock { begun, version, quiet, until, due, last, look: now, hindrance };
            clocks.insert(name.clone(), clock);
        }
    }

    /// When they are over at the latest.
    pub(super) fn ends(&self) -> Vec<(ServiceName, End)> {
        self.lock().iter().map(|(name, clock)| (name.clone(), (clock.until, clock.due))).collect()
    }

    /// The retirement of a service is over then at the latest, if that is the one.
    pub(super) fn go_on(&self, service: &ServiceName, (until, due): End) {
        if let Some(clock) = self.lock().get_mut(service).filter(|clock| clock.until == until) {
            clock.due = due;
        }
    }

    fn next(&self) -> Option<Instant> {
        self.lock().values().map(|clock| clock.look).min()
    }

    /// How the retirement of a service goes on, if there is one.
    #[must_use]
    pub fn clock(&self, service: &ServiceName) -> Option<RetirementClock> {
        let now = clock::instant();
        let clocks = self.lock();
        let clock = clocks.get(service)?;
        let left = clock.due.saturating_duration_since(now);
        let quiet = now.saturating_duration_since(clock.last.0);
        Some(RetirementClock { left, quiet, hindrance: clock.hindrance.clone() })
    }

    /// Those that are over, and why, by how many have come to a version until now and whether anybody is there.
    fn over(
        &self,
        now: Instant,
        seen: impl Fn(&ServiceName, &VersionName) -> (u64, bool),
    ) -> Vec<(ServiceName, Epoch, String)> {
        let mut over = Vec::new();
        for (name, clock) in self.lock().iter_mut().filter(|(_, clock)| clock.look <= now) {
            let (came, is_there) = seen(name, &clock.version);
            if is_there || came != clock.last.1 {
                clock.last = (now, came);
            }
            let quiet_at = clock.last.0 + clock.quiet;
            let ends = clock.due.min(quiet_at);
            if ends <= now {
                let why = if quiet_at <= now {
                    format!("retired: nobody has come for {}", text(clock.quiet))
                } else {
                    "retired: its time is over".to_owned()
                };
                clock.look = now + AGAIN;
                over.push((name.clone(), clock.begun, why));
            } else {
                clock.look = ends.min(now + (clock.quiet / PART).clamp(SOONEST, LATEST));
                // Somebody has come meanwhile: it should not be over any more.
                clock.hindrance = None;
            }
        }
        over
    }

    /// This one could not be ended; true when why is news.
    fn hindered(&self, service: &ServiceName, begun: Epoch, why: String) -> bool {
        let mut clocks = self.lock();
        let Some(clock) = clocks.get_mut(service).filter(|clock| clock.begun == begun) else { return false };
        let is_news = clock.hindrance.as_ref() != Some(&why);
        clock.hindrance = Some(why);
        is_news
    }
}

impl Handle {
    /// When retirements are over.
    #[must_use]
    pub fn retirements(&self) -> &Arc<Retirements> {
        &self.retirements
    }

    /// How the retirement that began at this epoch has ended; waits for it. `None`: the service is gone, or others have ended since.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Failed::Closed`] when the proxy shuts down first; [`Failed::LeftBehind`] when another process takes its place.
    pub async fn retired(&self, service: &ServiceName, begun: Epoch) -> Result<Option<Retired>, Failed> {
        let over = self.once(service, |deployment| {
            let is_over = deployment.retirement.as_ref().is_none_or(|retirement| retirement.begun != begun);
            is_over.then(|| deployment.retired.clone().filter(|retired| retired.begun == begun))
        });
        over.await.map(Option::flatten)
    }
}

impl Control {
    /// When a retirement is to be looked at; none while another process may have the store.
    pub(super) fn next_retirement(&self) -> Option<Instant> {
        self.retirements.next().filter(|_| self.custody == Custody::Ours)
    }

    /// Ends the retirements that are over.
    pub(super) async fn end_retirements(&mut self) {
        if self.custody != Custody::Ours {
            return;
        }
        let snapshot = self.live.snapshot();
        let is_held = |service: &ServiceName| {
            let service = self.state.table.service(service);
            service.is_some_and(|service| !service.holds.are_none())
        };
        let over = self.retirements.over(clock::instant(), |service, version| {
            let Some(tenure) = snapshot.tenure(service, version) else { return (0, false) };
            // Who waits in a hold, or for room behind one, has come, and nobody knows yet to whom. Before the others: he keeps his
            // place until he is one of them.
            let waits = is_held(service) || snapshot.waiting(service) > 0;
            // Then who has come: who comes in between is counted with the next look.
            let came = tenure.admitted();
            (came, waits || tenure.in_flight() > 0 || self.elders.may_have(service, version))
        });
        for (service, begun, why) in over {
            let Some(why) = self.try_retire(&service, begun, why).await else { continue };
            if self.retirements.hindered(&service, begun, why.clone()) {
                warn!(%service, why, "a retirement cannot be ended yet");
            }
        }
    }

    /// Ends a retirement; why not, if that cannot be.
    async fn try_retire(&mut self, service: &ServiceName, begun: Epoch, why: String) -> Option<String> {
        let retirement = self.state.deployment(service)?.retirement.clone()?;
        // As for every change that is acknowledged.
        if !self.elders.all().iter().all(|elder| elder.is_quiet) {
            return Some("a process before this one may still send requests the old way".to_owned());
        }
        let command = Command::Ramp { service: service.clone(), order: RampOrder::Retired { begun } };
        let reason =
            if retirement.reason.is_empty() { why } else { format!("{why} ({})", retirement.reason) };
        let wanted = Wanted::plain(command, retirement.actor, reason);
        // What is said of one that was ended meanwhile, because a store had not said that it had kept it, is not heard.
        Box::pin(self.change(wanted)).await.err().map(|failed| failed.to_string())
    }
}
