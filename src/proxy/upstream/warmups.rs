//! The workers as they are asked to make a version ready for traffic that is about to come.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::Upstream;
use crate::table::Warmup;

/// Warm-ups that wait for a worker at most; what is beyond is left out.
const WAITING: usize = 64;

/// The workers that can be asked.
#[derive(Debug, Default)]
pub struct Warmups(Mutex<Vec<mpsc::Sender<WarmUp>>>);

/// Make this version ready.
#[derive(Debug)]
pub struct WarmUp {
    /// The version's tenure.
    pub upstream: Arc<Upstream>,
    /// How.
    pub rules: Warmup,
    /// Dropped when it is done, or is not to be done any more.
    pub done: oneshot::Sender<()>,
}

impl Warmups {
    /// One more worker; it does what comes.
    pub fn join(&self) -> mpsc::Receiver<WarmUp> {
        let (ask, asked) = mpsc::channel(WAITING);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(ask);
        asked
    }

    /// Has all workers make this version ready, and waits until they have. They go on when this is dropped.
    pub async fn warm_up(&self, upstream: &Arc<Upstream>, rules: Warmup) {
        let workers = {
            let mut workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            workers.retain(|worker| !worker.is_closed());
            workers.clone()
        };
        let ask = |worker: &mpsc::Sender<WarmUp>| {
            let (done, ended) = oneshot::channel();
            // A worker that is so far behind has other worries.
            let _ = worker.try_send(WarmUp { upstream: Arc::clone(upstream), rules, done });
            ended
        };
        // All are asked before one is waited for.
        let asked: Vec<_> = workers.iter().map(ask).collect();
        join_all(asked).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_when_every_worker_has_done_it_or_is_gone() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let warmups = Warmups::default();
            let upstream = Arc::new(Upstream::open("shop".parse().unwrap(), "blue".parse().unwrap(), 1));
            warmups.warm_up(&upstream, Warmup::default()).await;
            let (mut one, other) = (warmups.join(), warmups.join());
            let work = async {
                let asked = one.recv().await.unwrap();
                drop(other);
                asked.upstream.id
            };
            let (id, ()) = tokio::join!(work, warmups.warm_up(&upstream, Warmup::default()));
            assert_eq!(id, upstream.id);
        });
    }
}
