//! A worker's thread: where it runs, and what it is given.

use std::rc::Rc;
use std::sync::Arc;

use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot};

use super::{Order, Worker, WorkerStats, obey};
use crate::proxy::commons::Commons;
use crate::proxy::live::Live;
use crate::proxy::posts::Passed;
use crate::proxy::settings::Settings;

/// Most orders that wait for a worker.
const ORDERS: usize = 64;

/// Where a worker stands.
#[derive(Debug)]
pub struct Seat {
    /// 0, 1, 2, …
    pub id: usize,
    /// The CPU that it stays on.
    pub cpu: Option<usize>,
    /// What other workers pass on to it.
    pub passed: mpsc::Receiver<Passed>,
}

/// Starts a worker on a thread of its own, and waits until it has all that it needs. It ends when it is told to stop and nothing
/// is left, or when the sender is gone; the receiver says when.
///
/// # Errors
/// When there is no thread or no runtime to be had.
pub fn start(
    Seat { id, cpu, passed }: Seat,
    live: Arc<Live>,
    settings: Settings,
    stats: Arc<WorkerStats>,
    commons: Arc<Commons>,
) -> std::io::Result<(mpsc::Sender<Order>, oneshot::Receiver<()>)> {
    let (orders, inbox) = mpsc::channel(ORDERS);
    let (end, ended) = oneshot::channel();
    // Before it runs: what is asked of it until then is done when it does.
    let warm_ups = live.warmups.join();
    let runtime = move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
    };
    let (stands, standing) = std::sync::mpsc::channel();
    let run = move || {
        // Dropped with the thread, also when it panics.
        let _end = end;
        // Before anything is allocated, so that it lies near that CPU.
        cpu.into_iter().for_each(|cpu| stay_on(id, cpu));
        match runtime() {
            Ok(runtime) => {
                drop(stands);
                let worker = Worker::new(id, live, settings, stats).sharing(commons);
                runtime.block_on(obey(Rc::new(worker), inbox, passed, warm_ups));
            }
            // Whoever starts it waits for that.
            Err(error) => drop(stands.send(error)),
        }
    };
    std::thread::Builder::new().name(format!("worker-{id}")).spawn(run)?;
    // Who has a runtime, and is where it stays, says so by its end of the channel.
    standing.recv().map_or(Ok((orders, ended)), Err)
}

/// Keeps this thread, which is worker `id`'s, on that CPU. That the CPU is allowed was known a moment ago.
fn stay_on(id: usize, cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    if let Err(error) = sched_setaffinity(None, &cpus) {
        tracing::error!(%error, worker = id, cpu, "is not pinned, and runs wherever it is put");
    }
}
