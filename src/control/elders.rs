//! The processes before this one that still have work, as they have told last.
//!
//! They accept nothing any more. Until an elder is quiet it may still begin requests of connections that it has, by the
//! table of its time; so no change is acknowledged, and nothing is drained, before all of them are. From then on what is
//! left there only becomes less: an old answer is never too low. What may be tried again goes by the pools of now, as soon as an
//! elder has heard of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::traffic::is_led_to;
use super::{Handle, clock};
use crate::proxy::upstream::roll::{Remaining, add_up};
use crate::table::{EndpointAddr, ServiceName, VersionName};

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Elder {
    /// The process.
    pub pid: u32,
    /// Which generation it is of, where that is known.
    pub generation: Option<u64>,
    /// Its program's version, where that is known.
    pub program: Option<String>,
    /// No new requests can begin there.
    pub is_quiet: bool,
    /// What it has, once it has told.
    pub told: Option<Told>,
}

/// What one has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Client connections that are open there.
    pub connections: u64,
    /// What is left there.
    pub left: Vec<Left>,
    /// The pools that it goes by: what is left on these versions is tried with no other endpoint any more.
    pub pools: Vec<Pool>,
}

/// The endpoints that a version's requests go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// Those that are not drained.
    pub endpoints: BTreeSet<EndpointAddr>,
}

/// What is left on a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// How much of what, and where.
    pub work: Remaining,
}

impl Elder {
    /// True when it may still try a request of this version there.
    fn may_come(&self, service: &ServiceName, version: &VersionName, address: &EndpointAddr) -> bool {
        let mut pools = self.told.iter().flat_map(|told| &told.pools);
        let pool = pools.find(|pool| pool.is_of(service, version));
        pool.is_none_or(|pool| pool.endpoints.contains(address))
    }

    fn has(&self, service: &ServiceName, version: &VersionName) -> bool {
        !self.is_quiet || self.told.is_none() || self.left().any(|left| left.is_of(service, version))
    }

    /// What it has told to have.
    pub fn left(&self) -> impl Iterator<Item = &Left> {
        self.told.iter().flat_map(|told| &told.left)
    }
}

impl Left {
    fn is_of(&self, service: &ServiceName, version: &VersionName) -> bool {
        self.service == *service && self.version == *version
    }
}

impl Pool {
    fn is_of(&self, service: &ServiceName, version: &VersionName) -> bool {
        self.service == *service && self.version == *version
    }
}

/// A version that is being left, and of which nobody has told yet that it is drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untold {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// How long ago it was left.
    pub age: Duration,
    /// For how long yet what lasts there is left alone.
    pub alone: Duration,
}

/// A version that gets no new requests: what elders have of it is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// For how long it is left alone, before it is seen out as the service's rules say.
    pub alone: Duration,
}

/// Until when what elders have of a version is left alone.
type Alone = BTreeMap<(ServiceName, VersionName), Instant>;

/// All of them. Written by who talks with them, read by control and the API.
#[derive(Debug, Default)]
pub struct Elders {
    all: watch::Sender<Vec<Elder>>,
    /// What they do not tell any more, and nobody has taken over yet.
    untold: Mutex<Vec<Untold>>,
    /// The versions that were left so that what lasts there stays for a time, while they are left.
    alone: Mutex<Alone>,
}

impl Elders {
    /// One has told something.
    pub fn set(&self, elder: Elder) {
        self.all.send_if_modified(|all| {
            let known = all.iter_mut().find(|known| known.pid == elder.pid);
            match known {
                Some(known) if *known == elder => return false,
                Some(known) => *known = elder,
                None => all.push(elder),
            }
            true
        });
    }

    /// Whoever decides here tells from now on when these are drained, and no elder, and leaves alone what is left alone there. Call
    /// before that elder is [set](Self::set).
    pub fn leave_to_tell(&self, untold: Vec<Untold>) {
        let now = clock::instant();
        let alone = untold.iter().filter(|untold| !untold.alone.is_zero());
        alone.for_each(|left| self.leave_alone(&left.service, &left.version, now + left.alone));
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).extend(untold);
    }

    /// What is to be told here and was not taken yet.
    #[must_use]
    pub fn take_untold(&self) -> Vec<Untold> {
        std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn alone(&self) -> MutexGuard<'_, Alone> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This version is left, and what they have of it is left alone until then. Call before it is seen that it is left.
    pub(super) fn leave_alone(&self, service: &ServiceName, version: &VersionName, until: Instant) {
        self.alone().insert((service.clone(), version.clone()), until);
    }

    /// For how long yet.
    pub(super) fn alone_for(&self, service: &ServiceName, version: &VersionName, now: Instant) -> Duration {
        let alone = self.alone();
        let until = alone.get(&(service.clone(), version.clone()));
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// The same is over where it `is_back`, and where it was until before now. Call after that is seen.
    pub(super) fn alone_no_more(&self, now: Instant, is_back: impl Fn(&ServiceName, &VersionName) -> bool) {
        self.alone().retain(|(service, version), until| *until > now && !is_back(service, version));
    }

    /// One has ended, and with it all that it had.
    pub fn remove(&self, pid: u32) {
        self.all.send_if_modified(|all| {
            let before = all.len();
            all.retain(|elder| elder.pid != pid);
            all.len() != before
        });
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Elder> {
        let mut all = self.all.borrow().clone();
        all.sort_by_key(|elder| elder.generation);
        all
    }

    /// What they tell, as it changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Vec<Elder>> {
        self.all.subscribe()
    }

    /// True when it is known what leaves of what this one has: it has told that, and the process before this one has told what is left
    /// alone.
    #[must_use]
    pub fn is_known(&self, pid: u32) -> bool {
        let all = self.all.borrow();
        let newest = all.iter().max_by_key(|elder| elder.generation);
        let mut asked = newest.into_iter().chain(all.iter().filter(|elder| elder.pid == pid));
        asked.all(|elder| elder.told.is_some())
    }

    /// What is left with them on this version.
    #[must_use]
    pub fn left(&self, service: &ServiceName, version: &VersionName) -> Vec<Remaining> {
        let all = self.all.borrow();
        let left = all.iter().flat_map(Elder::left).filter(|left| left.is_of(service, version));
        add_up(left.map(|left| left.work.clone()))
    }

    /// What is left with them on this version with this address, and what may come to it yet.
    #[must_use]
    pub fn left_at(
        &self,
        service: &ServiceName,
        version: &VersionName,
        address: &EndpointAddr,
    ) -> Vec<Remaining> {
        let all = self.all.borrow();
        let there = all.iter().flat_map(|elder| {
            let may_come = elder.may_come(service, version, address);
            let left = elder.left().filter(|left| left.is_of(service, version)).map(|left| &left.work);
            left.filter(move |work| {
                work.endpoint.as_ref() == Some(address) || (may_come && !work.kind.is_answered())
            })
        });
        add_up(there.map(|work| Remaining { endpoint: Some(address.clone()), ..work.clone() }))
    }

    /// One is about to hear that these are the pools: until it has answered it may go by those of before, or by these.
    pub fn may_go_by(&self, pid: u32, pools: &[Pool]) {
        self.all.send_if_modified(|all| {
            let told =
                all.iter_mut().filter(|elder| elder.pid == pid).filter_map(|elder| elder.told.as_mut());
            for known in told.flat_map(|told| &mut told.pools) {
                let wider = pools.iter().filter(|pool| pool.is_of(&known.service, &known.version));
                wider.for_each(|pool| known.endpoints.extend(pool.endpoints.iter().cloned()));
            }
            // Nobody waits for less to be known.
            false
        });
    }

    /// True when one of them has something left on this version, or may still begin something.
    #[must_use]
    pub fn may_have(&self, service: &ServiceName, version: &VersionName) -> bool {
        self.all.borrow().iter().any(|elder| elder.has(service, version))
    }

    /// True when none of them begins new requests any more, and what they tell is all that they have.
    #[must_use]
    pub fn are_quiet(&self) -> bool {
        self.all.borrow().iter().all(|elder| elder.is_quiet && elder.told.is_some())
    }

    /// Waits until none of them begins new requests any more. Cancel-safe.
    pub async fn quiet(&self) {
        let is_quiet = |all: &Vec<Elder>| all.iter().all(|elder| elder.is_quiet);
        // It is there for as long as we are.
        let _ = self.subscribe().wait_for(is_quiet).await;
    }
}

impl Handle {
    /// The versions that get no new requests, of those that elders have something left on.
    #[must_use]
    pub fn leaving_elsewhere(&self) -> Vec<Leaving> {
        let (state, now) = (self.state(), clock::instant());
        let is_left = |(service, version): &(ServiceName, VersionName)| !is_led_to(&state, service, version);
        let left = self.left_elsewhere().into_iter().filter(is_left).map(|(service, version)| {
            let alone = self.elders.alone_for(&service, &version, now);
            Leaving { service, version, alone }
        });
        left.collect()
    }

    /// The pools of the versions that elders have something left on, as they are now. One that is gone has none.
    #[must_use]
    pub fn pools_elsewhere(&self) -> Vec<Pool> {
        let state = self.state();
        let pools = self.left_elsewhere().into_iter().filter_map(|(service, version)| {
            let spec = state.table.service(&service)?.version(&version)?;
            Some(Pool { endpoints: spec.serving().cloned().collect(), service, version })
        });
        pools.collect()
    }

    fn left_elsewhere(&self) -> BTreeSet<(ServiceName, VersionName)> {
        let told = self.elders.all().into_iter().filter_map(|elder| elder.told);
        told.flat_map(|told| told.left).map(|left| (left.service, left.version)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Kind;

    fn elder(pid: u32, is_quiet: bool, count: u64) -> Elder {
        let (service, version) = ("shop".parse().unwrap(), "blue".parse().unwrap());
        let work = Remaining { kind: Kind::Websocket, endpoint: None, count, oldest: Duration::ZERO };
        let left = if count > 0 { vec![Left { service, version, work }] } else { Vec::new() };
        let (generation, pools) = (Some(u64::from(pid)), Vec::new());
        let told = Some(Told { connections: count, left, pools });
        Elder { pid, generation, program: None, is_quiet, told }
    }

    #[test]
    fn what_is_left_counts_over_all_of_them_until_they_are_gone() {
        let (elders, shop) = (Elders::default(), "shop".parse().unwrap());
        let (blue, green) = ("blue".parse().unwrap(), "green".parse().unwrap());
        elders.set(elder(2, true, 3));
        elders.set(elder(1, false, 1));
        assert!(elders.may_have(&shop, &green), "one may still begin something");
        elders.set(elder(1, true, 1));
        assert!(!elders.may_have(&shop, &green) && elders.may_have(&shop, &blue));
        assert_eq!(elders.left(&shop, &blue)[0].count, 4);
        assert_eq!(elders.all().iter().map(|elder| elder.pid).collect::<Vec<_>>(), [1, 2]);
        elders.set(Elder { told: None, ..elder(2, true, 0) });
        assert!(elders.may_have(&shop, &green) && !elders.are_quiet(), "it has not told");
        elders.remove(2);
        elders.set(elder(1, true, 0));
        assert!(!elders.may_have(&shop, &blue) && elders.left(&shop, &blue).is_empty());
    }

    #[test]
    fn what_may_be_tried_again_comes_to_any_endpoint_that_is_not_known_to_be_out() {
        let (elders, shop, blue) = (Elders::default(), "shop".parse().unwrap(), "blue".parse().unwrap());
        let [here, there]: [EndpointAddr; 2] = ["[::1]:1", "[::1]:2"].map(|text| text.parse().unwrap());
        let pool = |endpoints: &[&EndpointAddr]| {
            let endpoints = endpoints.iter().copied().cloned().collect();
            vec![Pool { service: ServiceName::clone(&shop), version: VersionName::clone(&blue), endpoints }]
        };
        let has = |kind, pools| {
            let work = Remaining { kind, endpoint: Some(here.clone()), count: 1, oldest: Duration::ZERO };
            let left = vec![Left { service: shop.clone(), version: blue.clone(), work }];
            let told = Some(Told { connections: 1, left, pools });
            elders.set(Elder { pid: 1, generation: Some(1), program: None, is_quiet: true, told });
        };
        let count = |at| elders.left_at(&shop, &blue, at).iter().map(|left| left.count).sum::<u64>();
        has(Kind::Request, Vec::new());
        assert_eq!((count(&here), count(&there)), (1, 1), "it has not said by which pool it goes");
        has(Kind::Websocket, Vec::new());
        assert_eq!((count(&here), count(&there)), (1, 0), "it stays where it is");
        has(Kind::Request, pool(&[&here]));
        assert_eq!((count(&here), count(&there)), (1, 0));
        elders.may_go_by(1, &pool(&[&there]));
        assert_eq!((count(&here), count(&there)), (1, 1), "it may have heard of it");
    }
}
