//! A worker's part in making versions ready for traffic: it opens connections to their endpoints.
//!
//! It happens beside the requests, in a task of its own for each version, and nobody depends on it.

use std::rc::Rc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::upstream::Endpoint;
use super::upstream::warmups::WarmUp;
use super::worker::Worker;

/// Endpoints to which a connection is being opened at a time, for one version.
const AT_A_TIME: usize = 16;

/// Does what is asked, for as long as the worker runs.
pub(super) async fn warm(worker: Rc<Worker>, mut asked: mpsc::Receiver<WarmUp>) {
    while let Some(warm_up) = asked.recv().await {
        spawn_local(warm_up_one(Rc::clone(&worker), warm_up));
    }
}

async fn warm_up_one(worker: Rc<Worker>, WarmUp { upstream, rules, done }: WarmUp) {
    let snapshot = worker.view.newest();
    let Some(lane) = snapshot.lane(&upstream) else { return };
    let local = worker.local(lane);
    local.follow(&lane.target);
    let (limit, connections) =
        (lane.terms.timeouts.connect, rules.connections.min(worker.settings().pool_size));
    // Not to hold the table for so long.
    drop(snapshot);
    let mut endpoints = local.serving(&worker.clock).into_iter();
    let opening = async {
        let mut open = FuturesUnordered::new();
        let warm = |endpoint: Rc<Endpoint>| {
            let local = Rc::clone(&local);
            async move { endpoint.warm(connections, limit, &local).await }
        };
        open.extend(endpoints.by_ref().take(AT_A_TIME).map(warm));
        while open.next().await.is_some() {
            open.extend(endpoints.next().map(warm));
        }
    };
    // What is not open by then is opened by the requests.
    let _ = timeout(rules.duration, opening).await;
    drop(done);
}
