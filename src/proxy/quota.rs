//! What a service has left of its limits, over all workers.
//!
//! The one place where a request writes what another worker's request writes: an exact limit is shared by its nature. Only
//! requests of services that have such a limit come here; `in_flight` and a `rate` of the whole service are an atomic each,
//! a `rate` by client is a short lock on one of [`SHARDS`] tables.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota as Pace, RateLimiter};

use crate::metrics::Reason;
use crate::table::{Rate, RateBy, ServiceLimits};

/// Tables of clients; each is locked for as long as it takes to look one up.
const SHARDS: usize = 64;
/// Most clients whose rate is remembered, of one service. Beyond that somebody is forgotten for each new one, which only
/// those notice who would have been refused.
const MOST_CLIENTS: usize = 64 * 1024;

/// The limits of one service as they stand.
#[derive(Debug)]
pub struct Quota {
    limits: ServiceLimits,
    in_flight: Arc<AtomicU32>,
    pace: Option<Arc<Limiter>>,
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
        let in_flight = before.map(|before| Arc::clone(&before.in_flight)).unwrap_or_default();
        let same = before.filter(|before| before.limits.rate == limits.rate);
        let pace = match same {
            Some(same) => same.pace.clone(),
            None => limits.rate.and_then(Limiter::of).map(Arc::new),
        };
        Some(Arc::new(Self { limits, in_flight, pace }))
    }

    /// Counts one request in, once: it may have a slot already, of this quota or of the one before. `client` is asked for only if
    /// it matters.
    ///
    /// # Errors
    /// The reason why it may not pass, and how long it should wait, if that is known.
    pub fn enter(
        self: &Arc<Self>,
        before: Option<Slot>,
        client: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<Slot, NotNow> {
        let mut pace = self.pace.as_deref();
        if let Some(before) = before {
            if Arc::ptr_eq(&before.quota, self) {
                return Ok(before);
            }
            let passed = before.quota.pace.as_deref();
            pace = pace.filter(|pace| passed.is_none_or(|passed| !std::ptr::eq(*pace, passed)));
        }
        // Counted out again by the slot, also when the rate says no.
        let slot = Slot { quota: Arc::clone(self), is_counted: self.limits.in_flight.is_some() };
        if let Some(most) = self.limits.in_flight {
            // Relaxed: the count alone matters, it orders nothing else.
            if self.in_flight.fetch_add(1, Ordering::Relaxed) >= most.get() {
                return Err(NotNow { reason: Reason::Concurrency, wait: None });
            }
        }
        let passed = match pace {
            None => Ok(()),
            Some(Limiter::Service(pace)) => {
                pace.check().map_err(|not| not.wait_time_from(pace.clock().now()))
            }
            Some(Limiter::Client(pace)) => {
                let checked = pace.check_key(&network(client()));
                checked.map_err(|not| not.wait_time_from(pace.clock().now()))
            }
        };
        passed.map(|()| slot).map_err(|wait| NotNow { reason: Reason::Rate, wait: Some(wait) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_counted {
            self.quota.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Limiter {
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
    match address {
        None => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        Some(IpAddr::V4(v4)) => IpAddr::V4(v4),
        Some(IpAddr::V6(v6)) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
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
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn rate(by: RateBy) -> ServiceLimits {
        let [requests, burst] = [1, 3].map(|n| NonZeroU32::new(n).unwrap());
        let rate = Rate { requests, per: Duration::from_hours(1), burst, by };
        ServiceLimits { rate: Some(rate), ..ServiceLimits::default() }
    }

    fn few(most: u32) -> ServiceLimits {
        ServiceLimits { in_flight: NonZeroU32::new(most), ..ServiceLimits::default() }
    }

    #[test]
    fn no_more_are_in_flight_than_may_be() {
        let quota = Quota::of(few(2), None).unwrap();
        let enter = || quota.enter(None, || None);
        let (first, second) = (enter().unwrap(), enter().unwrap());
        assert_eq!(enter().unwrap_err().reason, Reason::Concurrency);
        drop(first);
        let third = enter().unwrap();
        assert_eq!(enter().unwrap_err().reason, Reason::Concurrency);
        // Another limit over the same requests.
        let other = Quota::of(few(3), Some(&quota)).unwrap();
        let fourth = other.enter(None, || None).unwrap();
        assert_eq!(other.enter(None, || None).unwrap_err().reason, Reason::Concurrency);
        drop((second, third, fourth));
        assert_eq!(other.in_flight.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_limit_is_exact_over_many_workers() {
        let quota = Quota::of(few(10), None).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let slot = quota.enter(None, || None);
                        assert!(quota.in_flight.load(Ordering::Relaxed) <= 10 + 4);
                        drop(slot);
                    }
                });
            }
        });
        assert_eq!(quota.in_flight.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_burst_passes_and_then_no_more() {
        let quota = Quota::of(rate(RateBy::Service), None).unwrap();
        for _ in 0..3 {
            quota.enter(None, || unreachable!("nobody asks who it is")).unwrap();
        }
        let refused = quota.enter(None, || None).unwrap_err();
        assert_eq!(refused.reason, Reason::Rate);
        let wait = refused.wait.unwrap();
        assert!(wait > Duration::from_mins(59) && wait <= Duration::from_hours(1), "{wait:?}");
        let same = Quota::of(rate(RateBy::Service), Some(&quota)).unwrap();
        assert_eq!(same.enter(None, || None).unwrap_err().reason, Reason::Rate, "a reload forgives nothing");
    }

    #[test]
    fn a_rate_stays_as_it_stands_when_another_limit_changes() {
        let quota = Quota::of(rate(RateBy::Service), None).unwrap();
        let [first, second, _third] = [(); 3].map(|()| quota.enter(None, || None).unwrap());
        let limits = ServiceLimits { in_flight: NonZeroU32::new(2), ..rate(RateBy::Service) };
        let other = Quota::of(limits, Some(&quota)).unwrap();
        assert_eq!(other.enter(None, || None).unwrap_err().reason, Reason::Rate);
        // Who has passed it passes it once, and is in flight once.
        let first = other.enter(Some(first), || None).unwrap();
        let second = other.enter(Some(second), || None).unwrap();
        assert_eq!(other.enter(None, || None).unwrap_err().reason, Reason::Concurrency);
        drop((first, second));
        let faster = Rate { requests: NonZeroU32::new(2).unwrap(), ..limits.rate.unwrap() };
        let faster = Quota::of(ServiceLimits { rate: Some(faster), ..limits }, Some(&other)).unwrap();
        faster.enter(None, || None).unwrap();
    }

    #[test]
    fn clients_are_limited_one_by_one_and_ipv6_ones_by_their_network() {
        let quota = Quota::of(rate(RateBy::Client), None).unwrap();
        let ask = |address: &str| quota.enter(None, || Some(address.parse().unwrap())).is_ok();
        let thrice = |address: &str| (0..3).all(|_| ask(address));
        assert!(thrice("192.0.2.1") && !ask("192.0.2.1") && thrice("192.0.2.2"));
        assert!(thrice("2001:db8::1") && !ask("2001:db8::2:3:4:5") && ask("2001:db8:0:1::1"));
    }

    #[test]
    fn many_clients_cost_no_more_than_some() {
        let clients = Clients::default();
        for n in 0..200_000u32 {
            let judged: Result<(), ()> =
                clients.measure_and_replace(&IpAddr::V4(n.into()), |_| Ok(((), Nanos::from(1))));
            judged.unwrap();
        }
        let known: usize = clients.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!((MOST_CLIENTS / 2..=MOST_CLIENTS).contains(&known), "{known}");
    }
}
