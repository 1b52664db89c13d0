//! How many connections the whole process has open to an endpoint, where that is limited.
//!
//! Connections belong to a worker, the limit to all of them. So a worker that needs one, when all are open and some of them
//! idle elsewhere, asks the others to close one that they do not use.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tokio::sync::Notify;

use super::pool::Destination;

/// The open connections to one endpoint.
#[derive(Debug, Default)]
pub struct Census {
    open: AtomicU32,
    /// How many wait for one to close.
    waiting: AtomicU32,
    /// Told when one has closed.
    closed: Notify,
    /// Told when somebody waits, or when nobody needs to listen any more.
    called: Notify,
}

/// One open connection, counted until dropped: it goes where the connection goes, and is dropped behind it.
#[derive(Debug)]
pub struct Counted(Arc<Census>);

/// Locked when a worker names an endpoint whose connections are limited, never on the request path.
static ALL: LazyLock<Mutex<HashMap<Destination, Weak<Census>>>> = LazyLock::new(Mutex::default);

impl Census {
    /// That of an endpoint, the same one for all workers.
    #[must_use]
    pub fn shared(there: &Destination) -> Arc<Self> {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(there).and_then(Weak::upgrade) {
            return known;
        }
        all.retain(|_, census| census.strong_count() > 0);
        let made = Arc::<Self>::default();
        all.insert(there.clone(), Arc::downgrade(&made));
        made
    }

    /// Counts one more connection when there are fewer than `most`, which may take until another one has closed.
    ///
    /// Cancel-safe.
    pub async fn admit(self: &Arc<Self>, most: NonZeroU32) -> Counted {
        let mut waiting = None;
        loop {
            // Before the look, so that one which closes in between is not missed.
            let mut closed = pin!(self.closed.notified());
            closed.as_mut().enable();
            // Relaxed, here and below: the counts alone matter, they order nothing else.
            let admitted = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < most.get()).then_some(open + 1)
            });
            if admitted.is_ok() {
                return Counted(Arc::clone(self));
            }
            waiting.get_or_insert_with(|| Waiting::of(self));
            self.call();
            closed.await;
        }
    }

    /// True when there are as many as there may be.
    #[must_use]
    pub fn is_full(&self, most: NonZeroU32) -> bool {
        self.open.load(Ordering::Relaxed) >= most.get()
    }

    /// True when a connection that has no request should make room for another worker's.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Calls those who [listen](Self::listen).
    pub fn call(&self) {
        self.called.notify_waiters();
    }

    /// Calls `answer` whenever somebody waits, until it says that there will be no more.
    pub async fn listen(&self, mut answer: impl FnMut() -> ControlFlow<()>) {
        loop {
            // Before the look, so that a call in between is not missed.
            let mut called = pin!(self.called.notified());
            called.as_mut().enable();
            if answer().is_break() {
                return;
            }
            called.await;
        }
    }
}

/// One who waits, counted until dropped.
struct Waiting<'c>(&'c AtomicU32);

impl<'c> Waiting<'c> {
    fn of(census: &'c Census) -> Self {
        census.waiting.fetch_add(1, Ordering::Relaxed);
        Self(&census.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        // When nobody waits it is kept for the next, who then looks once more for nothing.
        self.0.closed.notify_one();
    }
}
