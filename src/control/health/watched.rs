//! What the workers look for in the endpoints of a service, and which of its pools are compared.

use std::sync::Arc;

use super::judge::{Task, member};
use super::{Health, Pool, clock};
use crate::proxy::live::Snapshot;
use crate::proxy::upstream::{Suspicion, Upstream};
use crate::table::{OutlierRules, ServiceName, VersionSpec};

/// What the log and the events say where nobody is ejected any more.
const NOBODY: &str = "nobody is ejected here any more";

/// A version whose endpoints are watched.
struct Watched<'s> {
    upstream: &'s Arc<Upstream>,
    version: &'s VersionSpec,
    rules: &'s OutlierRules,
}

impl Watched<'_> {
    fn is_compared(&self) -> bool {
        may_eject(self.rules, self.version)
            && (self.rules.success_rate.is_some() || self.rules.latency.is_some())
    }
}

/// True when an endpoint of the version is ever ejected; one alone never is.
pub(super) fn may_eject(rules: &OutlierRules, version: &VersionSpec) -> bool {
    !rules.are_never() && version.serving().nth(1).is_some()
}

impl Health {
    /// Has the workers look for what `after` says, and the judge compare the pools that are to be compared.
    pub(super) fn watch(&self, name: &ServiceName, before: Option<&Snapshot>, after: &Snapshot) {
        let compared = |snapshot| watched(snapshot, name).filter(Watched::is_compared);
        let old: Vec<_> = before.into_iter().flat_map(compared).map(|old| old.upstream.id).collect();
        let mut new = Vec::new();
        for watched in watched(after, name) {
            let is_watched = may_eject(watched.rules, watched.version);
            watched.upstream.suspect(is_watched.then(|| Suspicion::new(watched.rules, &self.suspects)));
            if watched.is_compared() {
                new.push(watched.upstream.id);
                if !old.contains(&watched.upstream.id) {
                    self.tell_judge(Task::Compare(Arc::clone(watched.upstream)));
                }
            }
        }
        let gone = old.into_iter().filter(|old| !new.contains(old));
        gone.for_each(|tenure| self.tell_judge(Task::Leave(tenure)));
    }

    /// Ends the ejections in these pools that the rules of `after` do not have any more, and shortens those that are too long.
    pub(super) fn pardon<'p>(&self, pools: impl Iterator<Item = &'p Pool>, after: &Snapshot) {
        let (now, at) = (clock::instant(), clock::now());
        for Pool { upstream, subjects } in pools {
            let service = after.table.service(&upstream.service);
            let present = service.and_then(|service| Some((service, service.version(&upstream.version)?)));
            let Some((service, version)) = present else { continue };
            let rules = Some(&service.pool(version).outliers).filter(|rules| may_eject(rules, version));
            for subject in subjects.values() {
                if let Some(rules) = rules {
                    let end = subject.shorten(rules);
                    let member = |end| Task::Await(end, member(upstream, &subject.address));
                    end.map(member).into_iter().for_each(|task| self.tell_judge(task));
                } else if let Some(turned) = subject.pardon(now, at) {
                    self.tell(subject, turned, NOBODY.to_owned());
                }
            }
        }
    }

    /// Nobody judges any more: the proxy is stopping.
    pub(super) fn tell_judge(&self, task: Task) {
        let _ = self.tasks.send(task);
    }
}

/// The versions of a service.
fn watched<'s>(snapshot: &'s Snapshot, name: &ServiceName) -> impl Iterator<Item = Watched<'s>> {
    let index = snapshot.table.index(name);
    index.into_iter().flat_map(move |index| {
        let service = &snapshot.table.services()[index];
        service.versions.iter().enumerate().map(move |(position, version)| {
            let upstream = snapshot.upstream(index, position);
            Watched { upstream, version, rules: &service.pool(version).outliers }
        })
    })
}
