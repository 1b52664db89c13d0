//! The store's own thread: a slow sync blocks it and nobody else.

use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::{Answer, HistoryQuery, Store, StoreError};
use crate::release::Change;

/// Calls that wait for the store at most; more wait in their callers.
const WAITING: usize = 64;

type Call = Box<dyn FnOnce(&mut dyn Store) + Send>;

/// A store on a thread of its own; calls are made one after the other, in the order they come.
#[derive(Debug)]
pub struct Keeper {
    calls: mpsc::Sender<Call>,
    /// Ends when the store is closed.
    closed: oneshot::Receiver<()>,
}

impl Keeper {
    /// Gives `store` a thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(mut store: Box<dyn Store>) -> std::io::Result<Self> {
        let (calls, mut waiting) = mpsc::channel::<Call>(WAITING);
        let (closing, closed) = oneshot::channel();
        thread::Builder::new().name("store".to_owned()).spawn(move || {
            while let Some(call) = waiting.blocking_recv() {
                call(&mut *store);
            }
            drop(store);
            drop(closing);
        })?;
        Ok(Self { calls, closed })
    }

    /// One whose store is somewhere else: everything fails.
    #[must_use]
    pub fn gone() -> Self {
        Self { calls: mpsc::channel(1).0, closed: oneshot::channel().1 }
    }

    /// Has the store do `call`. When this is dropped early the call is made nevertheless.
    ///
    /// # Errors
    /// The call's own, or [`StoreError::Io`] when the store's thread has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.tell(move |store| {
            // Nobody waits any more: nothing to do about it.
            let _ = reply.send(call(store));
        })
        .await;
        answer
            .await
            .unwrap_or_else(|_| Err(StoreError::Io("its thread has ended; restart switchback".to_owned())))
    }

    /// Has the store do `call` some time, and does not wait for it; waits only while too many calls wait already.
    pub async fn tell(&self, call: impl FnOnce(&mut dyn Store) + Send + 'static) {
        // An ended thread drops the call, and with it whatever somebody waits for.
        let _ = self.calls.send(Box::new(call)).await;
    }

    /// [`Store::append`].
    ///
    /// # Errors
    /// As there.
    pub async fn append(&self, change: Arc<Change>, answer: Option<Answer>) -> Result<(), StoreError> {
        self.ask(move |store| store.append(&change, answer.as_ref())).await
    }

    /// The newest change.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub async fn newest(&self) -> Result<Option<Change>, StoreError> {
        let query = HistoryQuery { before: None, limit: 1, service: None };
        Ok(self.ask(move |store| store.history(&query)).await?.pop())
    }

    /// Closes the store; returns when it is closed and somebody else may open it.
    pub async fn close(self) {
        drop(self.calls);
        // It never sends: it ends.
        let _ = self.closed.await;
    }
}
