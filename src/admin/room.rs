//! Room for connections: whoever says nothing makes way for whoever comes.
//!
//! A listener serves so many connections at once. Without this, as many that send nothing would keep everybody else out
//! until their time for a head is over, and a proxy that is well would seem dead.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The connections of one listener.
pub(super) struct Room {
    size: usize,
    /// Those that there are, to be waited for.
    pub(super) connections: JoinSet<()>,
    silent: Arc<Silent>,
    comers: u64,
}

/// The connections that have not sent a head yet, the oldest first.
type Silent = Mutex<BTreeMap<u64, CancellationToken>>;

impl Room {
    /// Room for `size` connections.
    pub(super) fn of(size: usize) -> Self {
        Self { size, connections: JoinSet::new(), silent: Arc::default(), comers: 0 }
    }

    /// True when there is a place, or one that can be made.
    pub(super) fn is_open(&self) -> bool {
        self.connections.len() < self.size || !lock(&self.silent).is_empty()
    }

    /// Ends the oldest connection that has said nothing, if there is no place else; false when there is no such one.
    /// Cancel-safe.
    pub(super) async fn make(&mut self) -> bool {
        if self.connections.len() < self.size {
            return true;
        }
        let Some((_, leave)) = lock(&self.silent).pop_first() else { return false };
        leave.cancel();
        // That one, or another that has ended by itself.
        self.connections.join_next().await;
        true
    }

    /// Takes in a connection: `converse` makes it, given what is to be told when its head has come.
    pub(super) fn enter<F>(&mut self, converse: impl FnOnce(Voice) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let leave = CancellationToken::new();
        self.comers += 1;
        lock(&self.silent).insert(self.comers, leave.clone());
        let conversation = converse(Voice(Arc::new(Entry { of: Arc::clone(&self.silent), id: self.comers })));
        self.connections.spawn(async move {
            tokio::select! {
                () = leave.cancelled() => {}
                () = conversation => {}
            }
        });
    }
}

/// A connection's word that it is not silent.
#[derive(Clone)]
pub(super) struct Voice(Arc<Entry>);

struct Entry {
    of: Arc<Silent>,
    id: u64,
}

impl Voice {
    /// A head has come: it is not ended for others any more.
    pub(super) fn speak(&self) {
        lock(&self.0.of).remove(&self.0.id);
    }
}

/// With the connection.
impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.of).remove(&self.id);
    }
}

fn lock(silent: &Silent) -> std::sync::MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
    silent.lock().unwrap_or_else(PoisonError::into_inner)
}
