//! The health of endpoints: what is known of each, who looks after it, and what the workers are told.
//!
//! What is looked after follows the table: [`Health::follow`] is called by control just before a snapshot is published, so that
//! an endpoint that comes gets no request before it was found well. A [`Prober`] looks, on control's thread; what it finds
//! goes through a course of rises and falls to the endpoint's [`Vitals`](crate::proxy::upstream::Vitals), which the
//! workers read. What the workers see of an endpoint's requests goes the other way, to the judge, who leaves those alone
//! for a time that fail where others do not. None of this is in the store: a process that starts finds out by itself, and one
//! that takes another's place is told who gets no requests.

mod course;
mod heritage;
mod judge;
mod outliers;
mod probe;
mod prober;
mod ready;
mod subject;
mod watched;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use heritage::{Ejected, Sidelined};
pub use prober::Prober;
pub use ready::Healthy;
pub use subject::{Answer, Ejection, Known};

use super::clock;
use super::handle::Notice;
use crate::proxy::live::Snapshot;
use crate::proxy::upstream::{Member, Standing, Suspects, Upstream};
use crate::table::{EndpointAddr, HealthCheck, ServiceName, VersionName, VersionSpec};
use course::Course;
use judge::Task;
use probe::{Check, Found, Unwell};
use subject::{Subject, Turned};

/// The health of all endpoints that are looked after. Written on control's thread, read by whoever asks; no request comes by
/// here.
#[derive(Debug)]
pub struct Health {
    pools: Mutex<BTreeMap<ServiceName, Vec<Pool>>>,
    /// Those that are to be looked at from now on; no more than the table has.
    fresh: mpsc::UnboundedSender<Arc<Subject>>,
    /// Those that the workers have seen fail.
    suspects: Arc<Suspects>,
    /// What the judge is told; no more than changes bring.
    tasks: mpsc::UnboundedSender<Task>,
    /// Told whenever an endpoint stands otherwise than before.
    turned: watch::Sender<()>,
    notices: broadcast::Sender<Notice>,
    /// Cancelled when nobody is looked at any more, and when nobody is judged: another process does.
    pub(super) looking: CancellationToken,
    pub(super) judging: CancellationToken,
}

/// Where those come out that are to be looked at, and what the judge is told.
#[derive(Debug)]
pub(super) struct Fresh(mpsc::UnboundedReceiver<Arc<Subject>>, mpsc::UnboundedReceiver<Task>);

/// The endpoints of one version that are looked after: all of them where they are checked, else those that were ejected.
#[derive(Debug)]
struct Pool {
    upstream: Arc<Upstream>,
    subjects: HashMap<EndpointAddr, Arc<Subject>>,
}

/// A version as its endpoints are looked after.
#[derive(Clone, Copy)]
struct Ward<'s> {
    upstream: &'s Arc<Upstream>,
    version: &'s VersionSpec,
    rules: Option<&'s Arc<HealthCheck>>,
    /// What it was like before; at the start everything counts as having been there.
    was: Option<&'s VersionSpec>,
    is_start: bool,
}

impl Health {
    /// Nothing is known yet; those that are to be looked at come out of the other end.
    pub(super) fn new(notices: broadcast::Sender<Notice>) -> (Arc<Self>, Fresh) {
        let (fresh, subjects) = mpsc::unbounded_channel();
        let (tasks, told) = mpsc::unbounded_channel();
        let (suspects, turned) = (Arc::default(), watch::Sender::default());
        let (pools, looking, judging) = Default::default();
        let health = Self { pools, fresh, suspects, tasks, turned, notices, looking, judging };
        (Arc::new(health), Fresh(subjects, told))
    }

    /// What is known of the endpoints of a version; those that nobody looks after are not there.
    #[must_use]
    pub fn of(&self, service: &ServiceName, version: &VersionName) -> HashMap<EndpointAddr, Known> {
        let pools = self.lock();
        let pool =
            pools.get(service).and_then(|pools| pools.iter().find(|pool| pool.upstream.version == *version));
        let subjects = pool.into_iter().flat_map(|pool| &pool.subjects);
        subjects.map(|(address, subject)| (address.clone(), subject.known())).collect()
    }

    /// Looks after the endpoints that these services have in `after`, which is about to be published in the place of `before`.
    ///
    /// At the start (`before` is `None`) endpoints count as well until they are checked; those that come later do not.
    pub(super) fn follow<'s>(
        &self,
        services: impl Iterator<Item = &'s ServiceName>,
        before: Option<&Snapshot>,
        after: &Snapshot,
    ) {
        let mut pools = self.lock();
        for name in services {
            let old = pools.remove(name).unwrap_or_default();
            let new = self.pools(name, &old, before, after);
            for pool in &old {
                let now = new.iter().find(|new| Arc::ptr_eq(&new.upstream, &pool.upstream));
                let is_gone =
                    |address: &EndpointAddr| !now.is_some_and(|now| now.subjects.contains_key(address));
                let gone = pool.subjects.iter().filter(|(address, _)| is_gone(address));
                gone.for_each(|(_, subject)| subject.forget());
            }
            if !new.is_empty() {
                pools.insert(name.clone(), new);
            }
            self.pardon(pools.get(name).into_iter().flatten(), after);
            self.watch(name, before, after);
        }
    }

    /// The pools of a service in which somebody is looked after now; what was known of their endpoints goes on.
    fn pools(
        &self,
        name: &ServiceName,
        old: &[Pool],
        before: Option<&Snapshot>,
        after: &Snapshot,
    ) -> Vec<Pool> {
        let Some(index) = after.table.index(name) else { return Vec::new() };
        let service = &after.table.services()[index];
        let pool = |(position, version): (usize, &VersionSpec)| {
            let upstream = after.upstream(index, position);
            let known = old.iter().find(|pool| Arc::ptr_eq(&pool.upstream, upstream));
            let rules = service.pool(version).health.as_ref();
            if known.is_none() && rules.is_none() {
                return None;
            }
            if rules.is_some() {
                // Its series are there from 0 on.
                let _ = upstream.checks();
            }
            let was = before.and_then(|before| {
                before.lane(upstream)?;
                before.table.service(name)?.version(&version.name)
            });
            let ward = Ward { upstream, version, rules, was, is_start: before.is_none() };
            let subject = |address: &EndpointAddr| {
                let known = known.and_then(|known| known.subjects.get(address));
                Some((address.clone(), self.subject(ward, known, address)?))
            };
            let subjects: HashMap<_, _> = version.endpoints.iter().filter_map(subject).collect();
            (!subjects.is_empty()).then(|| Pool { upstream: Arc::clone(upstream), subjects })
        };
        service.versions.iter().enumerate().filter_map(pool).collect()
    }

    /// The endpoint as it is known, if it is looked after as before; else anew, or not at all.
    fn subject(
        &self,
        ward: Ward<'_>,
        known: Option<&Arc<Subject>>,
        address: &EndpointAddr,
    ) -> Option<Arc<Subject>> {
        let Some(rules) = ward.rules else {
            let known = known?;
            if known.check.is_none() {
                return Some(Arc::clone(known));
            }
            let ejected = known.end().without_checks()?;
            return Some(Arc::new(Subject::new(ward.upstream, address, None, ejected)));
        };
        let is_same = |known: &&Arc<Subject>| {
            known.check.as_ref().is_some_and(|check| check.is_as(rules, ward.version))
        };
        if let Some(same) = known.filter(is_same) {
            return Some(Arc::clone(same));
        }
        let was_there = || ward.is_start || ward.was.is_some_and(|was| was.endpoints.contains(address));
        let known = known.map_or_else(
            || Known::new(if was_there() { Course::UNCHECKED } else { Course::ARRIVING }, clock::now()),
            |known| known.end(),
        );
        let check = Check::new(rules, ward.version, address);
        let subject = Arc::new(Subject::new(ward.upstream, address, Some(check), known));
        // Nobody looks any more: the proxy is stopping.
        let _ = self.fresh.send(Arc::clone(&subject));
        Some(subject)
    }

    /// Another process looks from now on: what is known here stays.
    pub(super) fn end_looking(&self) {
        self.looking.cancel();
    }

    /// No new requests can begin here: there is nobody to be judged.
    pub fn end_judging(&self) {
        self.judging.cancel();
    }

    /// Closes the connections of the last checks.
    fn close_checks(&self) {
        let pools = self.lock();
        let subjects = pools.values().flatten().flat_map(|pool| pool.subjects.values());
        subjects.filter_map(|subject| subject.check.as_ref()).for_each(Check::close);
    }

    /// The endpoint of a tenure, which is looked after from now on.
    fn subject_of(&self, upstream: &Arc<Upstream>, address: &EndpointAddr) -> Arc<Subject> {
        let mut pools = self.lock();
        let pools = pools.entry(upstream.service.clone()).or_default();
        let at = pools.iter().position(|pool| Arc::ptr_eq(&pool.upstream, upstream)).unwrap_or_else(|| {
            pools.push(Pool { upstream: Arc::clone(upstream), subjects: HashMap::new() });
            pools.len() - 1
        });
        let anew = || {
            let known = Known::new(Course::UNCHECKED, clock::now());
            Arc::new(Subject::new(upstream, address, None, known))
        };
        Arc::clone(pools[at].subjects.entry(address.clone()).or_insert_with(anew))
    }

    /// The endpoint of a tenure, if it is looked after.
    fn known_subject(&self, member: &Member) -> Option<Arc<Subject>> {
        let pools = self.lock();
        let mut pools = pools.get(&member.service)?.iter();
        pools.find(|pool| pool.upstream.id == member.tenure)?.subjects.get(&member.address).map(Arc::clone)
    }

    /// A look at an endpoint has ended.
    fn on_found(&self, subject: &Subject, found: &Found, took: Duration) {
        if let Err(Unwell::NotConnected(why)) = found
            && why.is_ours()
        {
            // Looked at again when it is due.
            return warn!(endpoint = %subject.address, %why, "an endpoint could not be checked");
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        subject.upstream.checks().record(found.is_ok(), micros);
        let said = match found {
            Ok(said) => said.to_string(),
            Err(unwell) => unwell.to_string(),
        };
        let answer = Answer { is_well: found.is_ok(), said: said.clone(), at: clock::now() };
        if let Some(turned) = subject.found(answer) {
            self.tell(subject, turned, said);
        }
    }

    fn tell(&self, subject: &Subject, Turned { from, to }: Turned, said: String) {
        let Subject { upstream, address, .. } = subject;
        let (service, version) = (upstream.service.clone(), upstream.version.clone());
        let (before, state) = (from.token(), to.token());
        if matches!(to, Standing::Down | Standing::Ejected) {
            warn!(%service, %version, endpoint = %address, before, state, said, "health");
        } else {
            info!(%service, %version, endpoint = %address, before, state, said, "health");
        }
        self.turned.send_replace(());
        let endpoint = address.clone();
        // Nobody listens: nobody to tell.
        let _ =
            self.notices.send(Notice::Health { service, version, endpoint, before: from, state: to, said });
    }

    /// Told whenever an endpoint stands otherwise than before.
    fn subscribe(&self) -> watch::Receiver<()> {
        self.turned.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Vec<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
