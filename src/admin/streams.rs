//! Room for event streams: they stay open, and must not take the connections that an operator needs, nor anybody those of others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::api::Problem;
use super::caller::Caller;
use super::server::CONNECTIONS;

/// On the socket.
pub(super) const LOCAL: usize = CONNECTIONS / 4;
/// Over TCP.
const REMOTE: usize = CONNECTIONS / 2;
/// Of those, one's who is known.
const SHARE: usize = REMOTE / 4;

/// Those that are open.
pub(super) struct Streams {
    local: Arc<Semaphore>,
    remote: Arc<Semaphore>,
    /// What is left of the share of each who has some.
    shares: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

/// A stream's place, until it is dropped.
pub(super) struct Place {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

impl Default for Streams {
    fn default() -> Self {
        let [local, remote] = [LOCAL, REMOTE].map(|most| Arc::new(Semaphore::new(most)));
        Self { local, remote, shares: Mutex::default() }
    }
}

impl Streams {
    /// One more for this one.
    ///
    /// # Errors
    /// 429 when he has his share, 503 when there are too many of all.
    pub(super) fn open(&self, caller: &Caller) -> Result<Place, Box<Problem>> {
        let too_many = |status, detail: String| Problem::new(status, "too_many_streams", detail);
        let (all, own) = if caller.is_remote() {
            let name = caller.own_name();
            let own = self.share(name).try_acquire_owned().map_err(|_| {
                too_many(
                    429,
                    format!("`{name}` has {SHARE} event streams over TCP already, and gets no more"),
                )
            })?;
            (&self.remote, Some(own))
        } else {
            (&self.local, None)
        };
        let all = Arc::clone(all).try_acquire_owned();
        let all = all.map_err(|_| too_many(503, "too many event streams are open".to_owned()))?;
        Ok(Place { _all: all, _own: own })
    }

    fn share(&self, name: &str) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        shares.retain(|_, share| share.strong_count() > 0);
        if let Some(share) = shares.get(name).and_then(Weak::upgrade) {
            return share;
        }
        let share = Arc::new(Semaphore::new(SHARE));
        shares.insert(name.to_owned(), Arc::downgrade(&share));
        share
    }
}
