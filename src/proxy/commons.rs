//! What all workers share besides the snapshot: how many connections each client has, how tight memory is, and how they
//! reach each other.
//!
//! Written when a connection comes or goes and when memory is looked at, never for a request on an open connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::posts::Posts;
use super::pressure::Pressure;
use super::quota::network;

/// Tables of clients; each is locked for as long as it takes to look one up.
const SHARDS: usize = 64;

/// One a process.
#[derive(Debug)]
pub struct Commons {
    hasher: ahash::RandomState,
    guests: Box<[Shard]>,
    pressure: AtomicU8,
    /// Client connections of all workers.
    connections: AtomicUsize,
    /// Workers that begin no requests any more, for good.
    shut: AtomicUsize,
    /// There is one more of them.
    shutting: Notify,
    /// They shall begin none from now on.
    closing: CancellationToken,
    /// Where each worker is reached by the others.
    pub posts: Posts,
}

/// How many connections each client has.
type Shard = Mutex<HashMap<IpAddr, usize, ahash::RandomState>>;

impl Default for Commons {
    fn default() -> Self {
        let guests = (0..SHARDS).map(|_| Shard::default()).collect();
        Self {
            hasher: ahash::RandomState::default(),
            guests,
            pressure: AtomicU8::default(),
            connections: AtomicUsize::default(),
            shut: AtomicUsize::default(),
            shutting: Notify::new(),
            closing: CancellationToken::new(),
            posts: Posts::default(),
        }
    }
}

/// One connection of a client, counted until it is dropped.
#[derive(Debug)]
pub struct Guest {
    commons: Arc<Commons>,
    network: IpAddr,
}

impl Commons {
    /// What workers with these posts share.
    #[must_use]
    pub fn of(posts: Posts) -> Self {
        Self { posts, ..Self::default() }
    }

    /// Counts a connection of `address` (IPv6: of its network of 64 bits) in, unless there are `most` of it already.
    #[must_use]
    pub fn let_in(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Guest> {
        let network = network(Some(address));
        let mut guests = self.shard(network).lock().unwrap_or_else(PoisonError::into_inner);
        let count = guests.entry(network).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        drop(guests);
        Some(Guest { commons: Arc::clone(self), network })
    }

    fn shard(&self, network: IpAddr) -> &Shard {
        &self.guests[usize::try_from(self.hasher.hash_one(network)).unwrap_or(0) % SHARDS]
    }

    /// True while there are fewer client connections than `most`: a look, which another worker may make untrue.
    #[must_use]
    pub fn has_room(&self, most: usize) -> bool {
        self.connections.load(Ordering::Relaxed) < most
    }

    /// Counts one more client connection in, unless there are `most`: true when it is counted.
    #[must_use]
    pub fn enter(&self, most: usize) -> bool {
        // Relaxed: it is a count, and nothing else is told by it.
        let enter = |open: usize| (open < most).then(|| open + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).is_ok()
    }

    /// Counts one fewer.
    pub fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// How tight memory is.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        // Relaxed: nothing else is told by it, and a little late is early enough.
        Pressure::from(self.pressure.load(Ordering::Relaxed))
    }

    /// How many workers begin no requests any more.
    #[must_use]
    pub fn shut(&self) -> usize {
        // With `shut_one`: who sees the count sees what was admitted before.
        self.shut.load(Ordering::Acquire)
    }

    /// One more worker begins no requests any more.
    pub fn shut_one(&self) {
        self.shut.fetch_add(1, Ordering::Release);
        self.shutting.notify_waiters();
    }

    /// Waits until so many workers begin no requests any more. Cancel-safe.
    pub async fn all_shut(&self, workers: usize) {
        loop {
            let one_more = self.shutting.notified();
            if self.shut() >= workers {
                return;
            }
            one_more.await;
        }
    }

    /// Workers that have stopped accepting begin no more requests, without the time that clients have otherwise.
    pub fn begin_no_more(&self) {
        self.closing.cancel();
    }

    /// Resolves when that is so.
    pub async fn closing(&self) {
        self.closing.cancelled().await;
    }

    /// Tells all workers how tight memory is.
    pub fn set_pressure(&self, pressure: Pressure) {
        self.pressure.store(pressure as u8, Ordering::Relaxed);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.commons.shard(self.network).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = guests.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                guests.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_no_more_connections_than_it_may_and_leaves_nothing_behind() {
        let commons = Arc::new(Commons::default());
        let come = |address: &str| commons.let_in(address.parse().unwrap(), 2);
        let (first, second) = (come("192.0.2.1"), come("192.0.2.1"));
        assert!(first.is_some() && second.is_some() && come("192.0.2.1").is_none());
        let other = come("192.0.2.2");
        assert!(other.is_some());
        drop(first);
        assert!(come("192.0.2.1").is_some());
        let (third, fourth) = (come("2001:db8::1"), come("2001:db8::2"));
        assert!(third.is_some() && fourth.is_some() && come("2001:db8::3").is_none());
        drop((second, other, third, fourth));
        assert!(commons.guests.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
