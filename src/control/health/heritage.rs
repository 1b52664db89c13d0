//! What a process knows of endpoints that get no requests, for the one that takes its place: that one is to send them none
//! either, before it has found out for itself.

use std::time::{Duration, Instant};

use super::judge::{Task, member};
use super::watched::may_eject;
use super::{Answer, Health, clock};
use crate::proxy::live::Snapshot;
use crate::proxy::upstream::Standing;
use crate::release::Timestamp;
use crate::table::pool::outliers::Cause;
use crate::table::{EndpointAddr, ServiceName, VersionName};

/// The most endpoints that are told of; of the others the next process finds out by itself.
const MOST: usize = 20_000;

/// An endpoint that gets no requests, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidelined {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// The endpoint.
    pub endpoint: EndpointAddr,
    /// What its checks make of it.
    pub state: Standing,
    /// Since when it gets none.
    pub since: Timestamp,
    /// What its last check said that was not good.
    pub last_failure: Option<Answer>,
    /// Why it is left alone, and until when, while it is.
    pub ejection: Option<Ejected>,
}

/// Why it is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejected {
    /// Why.
    pub cause: Cause,
    /// That in words.
    pub said: String,
    /// Until when, by the calendar.
    pub until: Timestamp,
    /// How long that is, by a clock that nobody sets; `None`: an older build does not tell.
    pub left: Option<Duration>,
    /// Which one in a row it is.
    pub count: u32,
}

impl Health {
    /// The endpoints that get no requests.
    #[must_use]
    pub fn sidelined(&self) -> Vec<Sidelined> {
        let (pools, now) = (self.lock(), clock::instant());
        let subjects = pools.values().flatten().flat_map(|pool| pool.subjects.values());
        let told =
            subjects.filter_map(|subject| subject.known().told(&subject.upstream, &subject.address, now));
        told.take(MOST).collect()
    }

    /// They get none here either, as far as they are in `snapshot` and looked after; how many. To be called before anything is
    /// served.
    pub fn inherit(&self, snapshot: &Snapshot, all: Vec<Sidelined>) -> usize {
        let (now, at) = (clock::instant(), clock::now());
        let taken = all.into_iter().filter_map(|told| self.take_over(snapshot, told, now, at));
        taken.filter(|standing| !standing.serves()).count()
    }

    /// How the endpoint stands then.
    fn take_over(
        &self,
        snapshot: &Snapshot,
        told: Sidelined,
        now: Instant,
        at: Timestamp,
    ) -> Option<Standing> {
        let upstream = snapshot.tenure(&told.service, &told.version)?;
        let service = snapshot.table.service(&told.service)?;
        let version = service.version(&told.version)?;
        if !version.endpoints.contains(&told.endpoint) {
            return None;
        }
        let rules = Some(&service.pool(version).outliers);
        let rules = rules.filter(|rules| may_eject(rules, version) && told.ejection.is_some());
        let member = member(upstream, &told.endpoint);
        let subject = match rules {
            Some(_) => self.subject_of(upstream, &told.endpoint),
            None => self.known_subject(&member)?,
        };
        if let Some(end) = subject.inherit(told, rules, now, at) {
            self.tell_judge(Task::Await(end, member));
        }
        Some(subject.known().standing)
    }
}
