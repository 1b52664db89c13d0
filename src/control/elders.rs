//! The processes before this one that still have work, as they have told last.
//!
//! They accept nothing any more. Until an elder is quiet it may still begin requests of connections that it has, by the
//! table of its time; so no change is acknowledged, and nothing is drained, before all of them are. From then on what is
//! left there only becomes less: an old answer is never too low.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::proxy::upstream::roll::{Remaining, add_up};
use crate::table::{ServiceName, VersionName};

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

/// A version that is being left, and of which nobody has told yet that it is drained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untold {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// How long ago it was left.
    pub age: Duration,
}

/// All of them. Written by who talks with them, read by control and the API.
#[derive(Debug, Default)]
pub struct Elders {
    all: watch::Sender<Vec<Elder>>,
    /// What they do not tell any more, and nobody has taken over yet.
    untold: Mutex<Vec<Untold>>,
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

    /// Whoever decides here tells from now on when these are drained, and no elder. Call before that elder is [set](Self::set).
    pub fn leave_to_tell(&self, untold: impl IntoIterator<Item = Untold>) {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).extend(untold);
    }

    /// What is to be told here and was not taken yet.
    #[must_use]
    pub fn take_untold(&self) -> Vec<Untold> {
        std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One has ended, and with it all that it had.
    pub fn remove(&self, pid: u32) {
        self.all.send_if_modified(|all| {
            let before = all.len();
            all.retain(|elder| elder.pid != pid);
            all.len() != before
        });
    }

    /// Another process counts what they have.
    pub fn clear(&self) {
        self.all.send_replace(Vec::new());
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

    /// What is left with them on this version.
    #[must_use]
    pub fn left(&self, service: &ServiceName, version: &VersionName) -> Vec<Remaining> {
        let all = self.all.borrow();
        let left = all.iter().flat_map(Elder::left).filter(|left| left.is_of(service, version));
        add_up(left.map(|left| left.work.clone()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Kind;

    fn elder(pid: u32, is_quiet: bool, count: u64) -> Elder {
        let (service, version) = ("shop".parse().unwrap(), "blue".parse().unwrap());
        let work = Remaining { kind: Kind::Websocket, endpoint: None, count, oldest: Duration::ZERO };
        let left = if count > 0 { vec![Left { service, version, work }] } else { Vec::new() };
        let (generation, told) = (Some(u64::from(pid)), Some(Told { connections: count, left }));
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
}
