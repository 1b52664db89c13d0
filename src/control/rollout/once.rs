//! A rollout that is asked for twice with the same key begins once: the answer is kept where those of changes are, before
//! anything is done, and so it is known after a restart too.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Begun, Job, NotBegun, Order, Rollouts, lock};
use crate::control::handle::Request;
use crate::control::{Failed, Handle};
use crate::store::{Answer, StoreError};

/// Whether the answer to the call that began a rollout is kept.
#[derive(Debug, Clone)]
pub(super) enum Kept {
    /// Nothing is done yet.
    NotYet,
    Yes,
    /// It is not, and nothing was done.
    No(Failed),
}

impl Rollouts {
    /// Begins a rollout; it goes on by itself.
    ///
    /// When dropped early it may begin nevertheless; an idempotency key tells.
    ///
    /// # Errors
    /// [`NotBegun`]; nothing has changed.
    pub async fn begin(&self, order: Order, handle: &Handle) -> Result<Begun, NotBegun> {
        let known = lock(&self.jobs).get(&order.plan.service).map_or(Ok(None), |job| job.replay(&order))?;
        if known.is_none()
            && let Some((key, fingerprint)) = &order.idempotency
            && let Some(kept) = handle.answer(key.clone()).await?
        {
            return replayed(kept, fingerprint);
        }
        let (job, begun) = self.enter(order, handle)?;
        job.kept().await?;
        Ok(begun)
    }

    /// It was not begun.
    pub(super) fn forget(&self, job: &Arc<Job>) {
        let service = &job.order.plan.service;
        let mut jobs = lock(&self.jobs);
        if jobs.get(service).is_some_and(|known| Arc::ptr_eq(known, job)) {
            jobs.remove(service);
        }
    }
}

/// The answer that was given to this key before.
fn replayed(kept: Answer, fingerprint: &str) -> Result<Begun, NotBegun> {
    if kept.fingerprint != fingerprint {
        return Err(Failed::KeyReused(kept.key).into());
    }
    let unreadable = |why| Failed::Store(StoreError::Corrupt(format!("the answer to `{}`: {why}", kept.key)));
    let told = serde_json::from_str(&kept.body).map_err(unreadable)?;
    Ok(Begun { told, replayed: true })
}

impl Job {
    /// Has the answer kept to the call that wants it; false when that cannot be: then nothing is done.
    pub(super) async fn keep_answer(&self, handle: &Handle) -> bool {
        let done = match &self.order.idempotency {
            None => Ok(()),
            Some((key, fingerprint)) => {
                let body = serde_json::to_string(&self.first).unwrap_or_default();
                handle.remember(Answer { key: key.clone(), fingerprint: fingerprint.clone(), body }).await
            }
        };
        let is_kept = done.is_ok();
        self.kept.send_replace(done.map_or_else(Kept::No, |()| Kept::Yes));
        is_kept
    }

    /// Waits until that is done.
    ///
    /// # Errors
    /// Why it cannot be.
    async fn kept(&self) -> Result<(), Failed> {
        let mut kept = self.kept.subscribe();
        match kept.wait_for(|kept| !matches!(kept, Kept::NotYet)).await.as_deref() {
            Ok(Kept::Yes) => Ok(()),
            Ok(Kept::No(failed)) => Err(failed.clone()),
            Ok(Kept::NotYet) | Err(_) => Err(Failed::Closed),
        }
    }
}

impl Handle {
    /// The answer that is kept under this key.
    async fn answer(&self, key: String) -> Result<Option<Answer>, Failed> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Answer(key, reply)).await.map_err(|_| Failed::Closed)?;
        answer.await.map_err(|_| Failed::Closed)?
    }

    /// Keeps an answer.
    async fn remember(&self, answer: Answer) -> Result<(), Failed> {
        let (reply, done) = oneshot::channel();
        self.requests.send(Request::Remember(answer, reply)).await.map_err(|_| Failed::Closed)?;
        done.await.map_err(|_| Failed::Closed)?
    }
}
