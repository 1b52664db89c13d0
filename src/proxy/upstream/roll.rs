//! The roll of the workers: whoever wants to know what is left on a version asks each of them.
//!
//! Counts can be read at any time ([`Upstream::in_flight`]); since when and with which endpoint only the worker knows
//! that does the work. A busy one answers late, never wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Upstream;
use crate::metrics::Kind;
use crate::table::EndpointAddr;

/// Inquiries that wait for a worker at most; more wait in whoever asks.
const INQUIRIES: usize = 64;
/// How long a worker may take for its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is left of one kind with one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remaining {
    /// What sort of work.
    pub kind: Kind,
    /// Where it is done; `None` while that is not decided.
    pub endpoint: Option<EndpointAddr>,
    /// How many.
    pub count: u64,
    /// How long the oldest of them has been in flight.
    pub oldest: Duration,
}

/// Those of the same kind and endpoint together, in order.
#[must_use]
pub fn add_up(parts: impl IntoIterator<Item = Remaining>) -> Vec<Remaining> {
    let mut sums: BTreeMap<(Kind, Option<EndpointAddr>), (u64, Duration)> = BTreeMap::new();
    for Remaining { kind, endpoint, count, oldest } in parts {
        let sum = sums.entry((kind, endpoint)).or_default();
        *sum = (sum.0 + count, sum.1.max(oldest));
    }
    let remaining = |((kind, endpoint), (count, oldest))| Remaining { kind, endpoint, count, oldest };
    sums.into_iter().map(remaining).collect()
}

/// The workers that answer.
#[derive(Debug, Default)]
pub struct Roll(Mutex<Vec<mpsc::Sender<Inquiry>>>);

/// What is asked of a worker.
#[derive(Debug)]
pub enum Inquiry {
    /// What is left on these tenures?
    Left(Question<Tenures, Vec<Remaining>>),
    /// What of these tenures is with this endpoint, or may come to it?
    At(Question<(Tenures, EndpointAddr), Vec<Remaining>>),
    /// Which tenures have something with these endpoints, or that may come to them?
    With(Question<Arc<BTreeSet<EndpointAddr>>, Places>),
}

/// The tenures that are asked about.
pub type Tenures = Arc<[Arc<Upstream>]>;

/// The ids of tenures that have something in flight, and with which endpoint that is or may yet be.
pub type Places = BTreeSet<(u64, EndpointAddr)>;

/// A question, and where its answer goes.
#[derive(Debug)]
pub struct Question<Q, A> {
    about: Q,
    reply: oneshot::Sender<A>,
}

impl<Q, A> Question<Q, A> {
    /// Answers with what `say` says of it.
    pub fn answer(self, say: impl FnOnce(&Q) -> A) {
        // Who asked may have lost patience.
        drop(self.reply.send(say(&self.about)));
    }
}

impl Roll {
    /// One more worker; it answers what comes.
    pub fn join(&self) -> mpsc::Receiver<Inquiry> {
        let (ask, inquiries) = mpsc::channel(INQUIRIES);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ask);
        inquiries
    }

    /// What is left on all of these tenures together; `None` when a worker does not answer in time.
    ///
    /// Each worker takes over what is published before it answers: of a change that was acknowledged before the call,
    /// no request goes the old way after the answer. Cancel-safe.
    pub async fn call(&self, of: impl Into<Tenures>) -> Option<Vec<Remaining>> {
        self.call_within(of.into(), PATIENCE).await
    }

    async fn call_within(&self, of: Tenures, patience: Duration) -> Option<Vec<Remaining>> {
        let answers = self.ask(of, Inquiry::Left, patience).await?;
        Some(add_up(answers.into_iter().flatten()))
    }

    /// What these tenures have left with this endpoint, and what may come to it yet: where a tenure's pool has it, whatever
    /// waits for an endpoint, or may be tried again or beside. `None` when a worker does not answer in time.
    ///
    /// As [`Roll::call`]: what is not told does not come there after the answer, unless a later change gives it traffic.
    /// Cancel-safe.
    pub async fn call_at(&self, of: impl Into<Tenures>, endpoint: EndpointAddr) -> Option<Vec<Remaining>> {
        let answers = self.ask((of.into(), endpoint), Inquiry::At, PATIENCE).await?;
        Some(add_up(answers.into_iter().flatten()))
    }

    /// Which tenures have something with these endpoints, or that may come to them yet; `None` when a worker does not answer in
    /// time.
    ///
    /// As [`Roll::call_at`]. Cancel-safe.
    pub async fn places(&self, endpoints: BTreeSet<EndpointAddr>) -> Option<Places> {
        let answers = self.ask(Arc::new(endpoints), Inquiry::With, PATIENCE).await?;
        Some(answers.into_iter().flatten().collect())
    }

    /// The answers of all workers; `None` when one of them is late.
    async fn ask<Q: Clone, A: Default>(
        &self,
        about: Q,
        inquiry: impl Fn(Question<Q, A>) -> Inquiry,
        patience: Duration,
    ) -> Option<Vec<A>> {
        let workers = {
            let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            workers.retain(|worker| !worker.is_closed());
            workers.clone()
        };
        let answers = workers.iter().map(|worker| async {
            let (reply, answer) = oneshot::channel();
            let inquiry = inquiry(Question { about: about.clone(), reply });
            // One that has ended has nothing left.
            match worker.send(inquiry).await {
                Ok(()) => answer.await.unwrap_or_default(),
                Err(_) => A::default(),
            }
        });
        timeout(patience, join_all(answers)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(kind: Kind, endpoint: Option<&str>, count: u64, seconds: u64) -> Remaining {
        let endpoint = endpoint.map(|text| text.parse().unwrap());
        Remaining { kind, endpoint, count, oldest: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_workers_answers_are_added_up_and_one_that_has_ended_has_nothing_left() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let roll = Roll::default();
            assert_eq!(roll.call([]).await, Some(Vec::new()), "no workers");
            let (mut one, mut other) = (roll.join(), roll.join());
            drop(roll.join());
            let parts = [
                vec![left(Kind::Sse, Some("[::1]:1"), 2, 9), left(Kind::Request, None, 1, 1)],
                vec![left(Kind::Sse, Some("[::1]:1"), 1, 4), left(Kind::Sse, Some("[::1]:2"), 1, 3)],
            ];
            let [first, second] = parts;
            let upstream = Upstream::open("shop".parse().unwrap(), "blue".parse().unwrap(), 1);
            let answering = async {
                for (worker, told) in [(&mut one, &first), (&mut other, &second)] {
                    let Some(Inquiry::Left(asked)) = worker.recv().await else { panic!("nothing was asked") };
                    asked.answer(|_| told.clone());
                }
            };
            let (all, ()) = tokio::join!(roll.call([Arc::new(upstream)]), answering);
            let expected = [
                left(Kind::Request, None, 1, 1),
                left(Kind::Sse, Some("[::1]:1"), 3, 9),
                left(Kind::Sse, Some("[::1]:2"), 1, 3),
            ];
            assert_eq!(all.unwrap(), expected);
        });
    }

    #[test]
    fn a_worker_that_does_not_answer_is_not_taken_for_one_without_work() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let roll = Roll::default();
            let _silent = roll.join();
            assert_eq!(roll.call_within(Arc::new([]), Duration::from_millis(5)).await, None);
        });
    }
}
