//! Room for connections: whoever keeps us waiting makes way for whoever comes.
//!
//! A listener serves so many connections at once. Without this, as many that send no head, or no body behind it, or take
//! nothing of their answer, would keep everybody else out until their time for that is over, and a proxy that is well would
//! seem dead. And nobody who is known has more than a share of it: what we are asked to wait for may take a day.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The connections of one listener.
pub(super) struct Room {
    size: usize,
    /// Those that there are, to be waited for.
    pub(super) connections: JoinSet<()>,
    line: Arc<Line>,
}

/// The connections whose clients are waited for, and whose they are.
#[derive(Default)]
struct Line {
    waited: Mutex<Waited>,
    /// Told when there is one more.
    longer: Notify,
}

#[derive(Default)]
struct Waited {
    last: u64,
    /// Each by a number, the one that is waited for longest first, and before all of those whoever is not welcome.
    leave: BTreeMap<u64, CancellationToken>,
    /// How many connections each has who is known.
    shares: BTreeMap<Arc<str>, usize>,
}

/// Added to the numbers of those who may be welcome.
const WELCOME: u64 = 1 << 63;

impl Room {
    /// Room for `size` connections.
    pub(super) fn of(size: usize) -> Self {
        Self { size, connections: JoinSet::new(), line: Arc::default() }
    }

    /// True when there is a place, or one that can be made.
    pub(super) fn is_open(&self) -> bool {
        self.connections.len() < self.size || !self.line.lock().leave.is_empty()
    }

    /// Until that may have changed: a connection has ended, or its client is waited for. Cancel-safe.
    pub(super) async fn changes(&mut self) {
        tokio::select! {
            Some(_) = self.connections.join_next() => {}
            () = self.line.longer.notified() => {}
        }
    }

    /// Ends the connection whose client is waited for longest, if there is no place else; false when there is no such one.
    /// Cancel-safe.
    pub(super) async fn make(&mut self) -> bool {
        if self.connections.len() < self.size {
            return true;
        }
        let Some((_, leave)) = self.line.lock().leave.pop_first() else { return false };
        leave.cancel();
        // That one, or another that has ended by itself.
        self.connections.join_next().await;
        true
    }

    /// Until all have ended: whoever is waited for after `patience` is ended, and who waits for an answer has it before. Cancel-safe.
    pub(super) async fn close(&mut self, patience: Duration) {
        let all = async { while self.connections.join_next().await.is_some() {} };
        if tokio::time::timeout(patience, all).await.is_ok() {
            return;
        }
        while !self.connections.is_empty() {
            std::mem::take(&mut self.line.lock().leave).into_values().for_each(|leave| leave.cancel());
            self.changes().await;
        }
    }

    /// Takes in a connection, whose client is waited for from the beginning: `converse` makes it, given what is to be told
    /// when that changes.
    pub(super) fn enter<F>(&mut self, converse: impl FnOnce(Guest) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let leave = CancellationToken::new();
        let (line, leave_it, at) = (Arc::clone(&self.line), leave.clone(), AtomicU64::new(0));
        let place = Place { line, leave: leave_it, at, owner: Mutex::default() };
        let guest = Guest(Arc::new(place));
        guest.is_waited_for();
        let conversation = converse(guest);
        self.connections.spawn(async move {
            tokio::select! {
                () = leave.cancelled() => {}
                () = conversation => {}
            }
        });
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Waited> {
        self.waited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection, as the room knows it.
#[derive(Clone)]
pub(super) struct Guest(Arc<Place>);

struct Place {
    line: Arc<Line>,
    leave: CancellationToken,
    /// Its number in the line, or 0. Written while that is locked.
    at: AtomicU64,
    /// Whose it is, once that is known. Locked while the line is.
    owner: Mutex<Option<Arc<str>>>,
}

impl Guest {
    /// The client has to do something, from now on if it had not before: the connection may be ended for others.
    pub(super) fn is_waited_for(&self) {
        self.stand(WELCOME);
    }

    /// It has acted, and shown that it is nobody's guest: what it still waits for is the first to be ended for others.
    pub(super) fn is_unwelcome(&self) {
        self.stand(0);
    }

    fn stand(&self, behind: u64) {
        let Place { line, leave, at, .. } = &*self.0;
        let mut waited = line.lock();
        // Relaxed: behind the lock.
        if at.load(Ordering::Relaxed) == 0 {
            waited.last += 1;
            let number = behind + waited.last;
            at.store(number, Ordering::Relaxed);
            waited.leave.insert(number, leave.clone());
            line.longer.notify_one();
        }
    }

    /// It is this one's from now on; false when he has `share` connections already.
    pub(super) fn belongs_to(&self, name: &str, share: usize) -> bool {
        let mut waited = self.0.line.lock();
        let mut owner = self.0.owner();
        if owner.as_deref() == Some(name) {
            return true;
        }
        if waited.shares.get(name).is_some_and(|count| *count >= share) {
            return false;
        }
        waited.take_from(owner.take());
        let name = Arc::<str>::from(name);
        *waited.shares.entry(Arc::clone(&name)).or_default() += 1;
        *owner = Some(name);
        true
    }

    /// It has done so: it is not ended for others any more.
    pub(super) fn has_acted(&self) {
        self.0.go();
    }
}

impl Waited {
    /// This one has a connection less.
    fn take_from(&mut self, owner: Option<Arc<str>>) {
        let Some(owner) = owner else { return };
        if let Entry::Occupied(mut share) = self.shares.entry(owner) {
            *share.get_mut() -= 1;
            if *share.get() == 0 {
                share.remove();
            }
        }
    }
}

impl Place {
    fn owner(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn go(&self) {
        let mut waited = self.line.lock();
        waited.leave.remove(&self.at.swap(0, Ordering::Relaxed));
    }
}

/// With the connection.
impl Drop for Place {
    fn drop(&mut self) {
        self.go();
        let mut waited = self.line.lock();
        waited.take_from(self.owner().take());
    }
}
