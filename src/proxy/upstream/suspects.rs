//! How control hears of endpoints whose requests fail.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::table::pool::outliers::Cause;
use crate::table::{EndpointAddr, ServiceName, VersionName};

/// An endpoint in one tenure of a version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The service.
    pub service: ServiceName,
    /// The version.
    pub version: VersionName,
    /// The tenure, [`super::Upstream::id`].
    pub tenure: u64,
    /// The endpoint.
    pub address: EndpointAddr,
}

/// One that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// Who.
    pub member: Member,
    /// What it did.
    pub cause: Cause,
}

/// Endpoints that have failed so often that control should look at them: each at most once at a time.
#[derive(Debug, Default)]
pub struct Suspects {
    list: Mutex<VecDeque<Suspect>>,
    bell: Notify,
}

impl Suspects {
    pub(super) fn tell(&self, suspect: Suspect) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push_back(suspect);
        self.bell.notify_one();
    }

    /// The first of those that have come, `most` of them at most, as soon as there are any. Cancel-safe.
    pub async fn come(&self, most: usize) -> Vec<Suspect> {
        loop {
            let some = self.take(most);
            if !some.is_empty() {
                return some;
            }
            self.bell.notified().await;
        }
    }

    fn take(&self, most: usize) -> Vec<Suspect> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let count = list.len().min(most);
        list.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn no_more_come_than_are_wanted_and_the_others_come_next() {
        let suspects = Suspects::default();
        let member = |port: u16| Member {
            service: "shop".parse().unwrap(),
            version: "blue".parse().unwrap(),
            tenure: 1,
            address: format!("127.0.0.1:{port}").parse().unwrap(),
        };
        (1..=5).for_each(|port| suspects.tell(Suspect { member: member(port), cause: Cause::Errors }));
        let come = || suspects.come(2).now_or_never().map_or(0, |come| come.len());
        assert_eq!([come(), come(), come(), come()], [2, 2, 1, 0]);
    }
}
