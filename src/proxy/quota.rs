//! What a service has left of its limits, over all workers.
//!
//! Here a request writes what another worker's request writes: an exact limit is shared by its nature. Only requests of
//! services that have such a limit come here; `in_flight` and a `rate` of the whole service are an atomic each,
//! a `rate` by client is a short lock on one of [`SHARDS`] tables.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota as Pace, RateLimiter};
use tokio::sync::Notify;

use crate::metrics::Reason;
use crate::table::{Rate, RateBy, ServiceLimits, sticky};

/// Tables of clients; each is locked for as long as it takes to look one up.
const SHARDS: usize = 64;
/// Most clients whose rate is remembered, of one service. Beyond that somebody is forgotten for each new one, which only
/// those notice who would have been refused.
const MOST_CLIENTS: usize = 64 * 1024;

/// The limits of one service as they stand.
#[derive(Debug)]
pub struct Quota {
    limits: ServiceLimits,
    room: Arc<Room>,
    pace: Option<Arc<Limiter>>,
}

/// How many are in flight, and who waits until there are fewer.
#[derive(Debug, Default)]
struct Room {
    taken: AtomicU32,
    waiting: AtomicU32,
    /// Notified when somebody has left and somebody waits.
    left: Notify,
}

#[derive(Debug)]
enum Limiter {
    Service(RateLimiter<NotKeyed, InMemoryState, DefaultClock>),
    Client(RateLimiter<IpAddr, Clients, DefaultClock>),
}

/// A request that is counted against its service's quota until this is dropped.
#[derive(Debug)]
pub struct Slot {
    quota: Arc<Quota>,
    /// Whether it counts in flight.
    is_counted: bool,
}

/// One who waits until fewer requests are in flight, counted until dropped. That nobody comes before him is his
/// [line](super::hold::Line)'s doing.
#[derive(Debug)]
pub struct Waiting(Arc<Quota>);

/// Who asks to be counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comer {
    /// Somebody who comes just now.
    New,
    /// Somebody who has waited, and whose rate was asked when he came.
    Waited,
}

/// Why a request may not pass now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotNow {
    /// The limit that it met.
    pub reason: Reason,
    /// After how long it may, unless others come first.
    pub wait: Option<Duration>,
}

impl Quota {
    /// What `limits` leave to enforce, if anything: each as it stood in `before`, whatever has become of the others.
    #[must_use]
    pub fn of(limits: ServiceLimits, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        if limits.in_flight.is_none() && limits.rate.is_none() {
            return None;
        }
        if let Some(same) = before.filter(|before| before.limits == limits) {
            return Some(Arc::clone(same));
        }
        // Those in flight still count when the limit is another one.
        let room = before.map(|before| Arc::clone(&before.room)).unwrap_or_default();
        let same = before.filter(|before| before.limits.rate == limits.rate);
        let pace = match same {
            Some(same) => same.pace.clone(),
            None => limits.rate.and_then(Limiter::of).map(Arc::new),
        };
        Some(Arc::new(Self { limits, room, pace }))
    }

    /// Counts one request in, once: it may have a slot already, of this quota or of the one before, and keeps its place.
    /// `client` is asked for only if it matters.
    ///
    /// # Errors
    /// The reason why it may not pass, and how long it should wait, if that is known.
    pub fn enter(
        self: &Arc<Self>,
        before: Option<Slot>,
        comer: Comer,
        client: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<Slot, NotNow> {
        let mut pace = self.pace.as_deref().filter(|_| comer == Comer::New);
        let mut has_place = false;
        if let Some(mut before) = before {
            if Arc::ptr_eq(&before.quota, self) {
                return Ok(before);
            }
            let passed = before.quota.pace.as_deref();
            pace = pace.filter(|pace| passed.is_none_or(|passed| !std::ptr::eq(*pace, passed)));
            // Kept, also where fewer may have one now: it is in flight, and was there before whoever waits.
            has_place = Arc::ptr_eq(&before.quota.room, &self.room) && std::mem::take(&mut before.is_counted);
        }
        if let Some(most) = self.limits.in_flight
            && !has_place
            && !self.room.take(most.get())
        {
            return Err(NotNow { reason: Reason::Concurrency, wait: None });
        }
        // Counted out again by the slot when the rate says no.
        let slot = Slot { quota: Arc::clone(self), is_counted: has_place || self.limits.in_flight.is_some() };
        pace.map_or(Ok(()), |pace| pace.pass(client)).map(|()| slot)
    }

    /// Asks for the rate alone, for a request that will wait before it is counted in.
    ///
    /// # Errors
    /// As [`Quota::enter`].
    pub fn pass(&self, client: impl FnOnce() -> Option<IpAddr>) -> Result<(), NotNow> {
        self.pace.as_deref().map_or(Ok(()), |pace| pace.pass(client))
    }

    /// Who waits tries again: by other limits. Call after they are there to be seen.
    pub fn look_anew(&self) {
        self.room.left.notify_waiters();
    }
}

impl Room {
    /// Takes a place, of so many; false when there is none.
    fn take(&self, most: u32) -> bool {
        // SeqCst, here and below: of who leaves and who begins to wait, one sees the other.
        let more = |taken| (taken < most).then(|| taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::Relaxed, more).is_ok()
    }

    fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.left.notify_one();
        }
    }
}

impl Waiting {
    /// Begins to wait for a place.
    #[must_use]
    pub fn for_place(quota: &Arc<Quota>) -> Self {
        quota.room.waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(quota))
    }

    /// True when it is a place of this quota that it waits for.
    #[must_use]
    pub fn is_for(&self, quota: &Arc<Quota>) -> bool {
        Arc::ptr_eq(&self.0, quota)
    }

    /// Waits until there may be a place. Cancel-safe.
    pub async fn wait(&self) {
        let Quota { limits, room, .. } = &*self.0;
        let mut left = pin!(room.left.notified());
        // From here on nobody leaves unnoticed.
        left.as_mut().enable();
        if limits.in_flight.is_some_and(|most| room.taken.load(Ordering::SeqCst) >= most.get()) {
            left.await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.0.room.waiting.fetch_sub(1, Ordering::SeqCst) > 1 {
            // There may be more places, or this one was woken and does not take his.
            self.0.room.left.notify_one();
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_counted {
            self.quota.room.leave();
        }
    }
}

impl Limiter {
    fn pass(&self, client: impl FnOnce() -> Option<IpAddr>) -> Result<(), NotNow> {
        let passed = match self {
            Self::Service(pace) => pace.check().map_err(|not| not.wait_time_from(pace.clock().now())),
            Self::Client(pace) => {
                let checked = pace.check_key(&network(client()));
                checked.map_err(|not| not.wait_time_from(pace.clock().now()))
            }
        };
        passed.map_err(|wait| NotNow { reason: Reason::Rate, wait: Some(wait) })
    }

    /// `None` when the rate is beyond what can be told apart: one request a nanosecond.
    fn of(rate: Rate) -> Option<Self> {
        let pace = Pace::with_period(rate.per / rate.requests.get())?.allow_burst(rate.burst);
        Some(match rate.by {
            RateBy::Service => Self::Service(RateLimiter::direct(pace)),
            RateBy::Client => {
                Self::Client(RateLimiter::new(pace, Clients::default(), DefaultClock::default()))
            }
        })
    }
}

/// Whose requests count together: an address, or for IPv6 the 64 bits that one client usually has all addresses of.
#[must_use]
pub fn network(address: Option<IpAddr>) -> IpAddr {
    address.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), sticky::network)
}

/// When each client may ask again, for at most [`MOST_CLIENTS`] of them.
#[derive(Debug)]
struct Clients {
    hasher: ahash::RandomState,
    shards: Box<[Shard]>,
}

type Shard = Mutex<HashMap<IpAddr, Nanos, ahash::RandomState>>;

impl Default for Clients {
    fn default() -> Self {
        Self {
            hasher: ahash::RandomState::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
        }
    }
}

impl StateStore for Clients {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, key: &IpAddr, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let at = usize::try_from(self.hasher.hash_one(key)).unwrap_or(0) % SHARDS;
        let mut clients = self.shards[at].lock().unwrap_or_else(PoisonError::into_inner);
        let (verdict, next) = judge(clients.get(key).copied())?;
        if clients.len() >= MOST_CLIENTS / SHARDS && !clients.contains_key(key) {
            let somebody = clients.keys().next().copied();
            somebody.and_then(|somebody| clients.remove(&somebody));
        }
        clients.insert(*key, next);
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests;
