//! How the process ends: told to, or because another has taken its place.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::elders;
use super::log::Log;
use super::orphans::Trace;
use super::remote::Remote;
use super::signals::Signals;
use super::talk::{Left, Line, Pool, Told};
use super::upgrade::Successor;
use super::{Process, notify};
use crate::admin::Readiness;
use crate::config;
use crate::control::Handle;
use crate::control::elders::Untold;
use crate::proxy::commons::Commons;
use crate::proxy::worker::{Farewell, Queue, WorkerStats};
use crate::table::DrainRules;

/// How long the access log may take to be written to its end.
const LOG_PATIENCE: Duration = Duration::from_secs(2);
/// How long webhooks may take for what still waits, once nothing else is to be done.
const WEBHOOK_PATIENCE: Duration = Duration::from_secs(2);
/// How long the new process may take to ask for the first time, before whoever wanted it is answered.
const HEARING: Duration = Duration::from_secs(5);
/// How long the store may take to close.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

impl Process {
    /// Finishes what is in flight, for as long as the deadline says; a second signal ends it at once.
    pub(super) async fn wind_down(self, mut signals: Signals) -> Result<()> {
        // Memory is looked at until the end.
        let Self { config, crew, log, handle, status, elders, webhooks, memory: _memory, .. } = self;
        status.set_readiness(Readiness::Stopping);
        notify::stopping();
        let deadline = config.shutdown.deadline;
        info!(deadline_seconds = deadline.as_secs_f64(), "winding down");
        let farewell = Farewell { spread: config.shutdown.spread, queue: Queue::Ours };
        let end = async {
            sleep(config.shutdown.lame_duck).await;
            elders.end().await;
            say_goodbye(&handle, &config.shutdown);
            if timeout(deadline, crew.stop(farewell)).await.is_err() {
                warn!("the deadline has come; what is still in flight is cut");
            }
        };
        tokio::select! {
            () = end => {}
            () = signals.stop() => warn!("told twice; what is still in flight is cut"),
        }
        drop((self.own, self.admin_file));
        webhooks.finish(sleep(WEBHOOK_PATIENCE)).await;
        let last = Last { log, stop_admin: self.stop_admin, admin: self.admin, remote: self.remote };
        last.end(self.stop_control, self.control, &mut signals).await;
        info!("stopped");
        Ok(())
    }

    /// Another process serves: nothing is accepted any more, and what is in flight is finished.
    pub(super) async fn retire(self, to: Successor, mut signals: Signals) -> Result<()> {
        let Successor { heir, ready, untold, asked } = to;
        let Self { config, crew, log, handle, webhooks, finders, memory: _memory, watching, .. } = self;
        // From now on the other process says that it is alive.
        self.watchdog.abort();
        notify::main_process(ready.pid);
        drop((watching, self.own));
        drop(finders);
        // What happens from now on the other process tells; what has happened has as long as this one has work.
        let (at_work, ended) = oneshot::channel::<()>();
        let telling = spawn_local(webhooks.finish(async {
            drop(ended.await);
            sleep(WEBHOOK_PATIENCE).await;
        }));
        if let Some(file) = self.admin_file {
            file.leave();
        }
        let deadline = config.upgrade.deadline;
        info!(
            deadline_seconds = deadline.as_secs_f64(),
            to = ready.pid,
            "handed over; finishing what is in flight"
        );
        if let Some(trace) = self.trace {
            spawn_local(tell_quiet(trace, Arc::clone(crew.commons()), crew.size()));
        }
        let (heard, has_heard) = oneshot::channel();
        let has_to_tell = !untold.is_empty();
        let here = Here {
            generation: self.generation,
            workers: crew.size(),
            commons: Arc::clone(crew.commons()),
            stats: crew.stats().cloned().collect(),
            handle,
            untold,
            heard: Some(heard),
        };
        let ending = here.handle.clone();
        let farewell = Farewell { spread: config.upgrade.spread, queue: Queue::Successors };
        let mut end = std::pin::pin!(crew.stop(farewell));
        let (told_to_end, to_end) = oneshot::channel();
        // Until the process ends, also while it winds down: the other one takes the line's end for ours.
        let line = heir.line();
        line.hold();
        spawn_local(here.answer(line, told_to_end));
        let (over, is_over) = oneshot::channel::<()>();
        let answering = spawn_local(async move {
            // One that does not ask serves nevertheless, and does not have to before this one ends, unless there is something to hear.
            tokio::select! {
                _ = timeout(HEARING, has_heard) => {}
                _ = is_over, if !has_to_tell => {}
            }
            asked.answer();
        });
        let told = async {
            tokio::select! {
                Ok(()) = to_end => {}
                () = signals.stop() => {}
            }
        };
        let ended = tokio::select! {
            () = &mut end => true,
            () = sleep(deadline) => false,
            () = told => {
                info!(deadline_seconds = config.shutdown.deadline.as_secs_f64(), "winding down");
                say_goodbye(&ending, &config.shutdown);
                tokio::select! {
                    ended = timeout(config.shutdown.deadline, end) => ended.is_ok(),
                    () = signals.stop() => false,
                }
            }
        };
        if !ended {
            warn!("the deadline has come, or it was told twice; what is still in flight is cut");
        }
        drop((at_work, over));
        drop((answering.await, telling.await));
        let last = Last { log, stop_admin: self.stop_admin, admin: self.admin, remote: self.remote };
        last.end(self.stop_control, self.control, &mut signals).await;
        info!("stopped, {} serves", ready.pid);
        Ok(())
    }
}

/// Tells whoever has no line to this process when it begins nothing more.
async fn tell_quiet(trace: Trace, commons: Arc<Commons>, workers: usize) {
    commons.all_shut(workers).await;
    if let Err(error) = trace.quiet() {
        warn!(%error, "whoever comes after a crash of the new process waits with changes until this one has ended");
    }
    // It stays until the process ends.
    std::future::pending().await
}

/// Tells WebSockets, event streams and gRPC streams of all versions to go, each in its protocol's own words, evenly over the
/// time that connections without a request have too.
fn say_goodbye(handle: &Handle, shutdown: &config::Shutdown) {
    let config::Shutdown { spread, deadline, .. } = *shutdown;
    // What is left at the deadline is cut with the process, which says so; not a moment before by the workers.
    let cut = deadline + LAST_PATIENCE;
    let rules =
        DrainRules { patience: Duration::ZERO, spread: spread.min(deadline), deadline: cut, retry: None };
    handle.live().departures.end(rules);
}

/// What is ended last.
struct Last {
    log: Log,
    stop_admin: CancellationToken,
    admin: Vec<JoinHandle<()>>,
    remote: Option<Remote>,
}

impl Last {
    async fn end(
        self,
        stop_control: oneshot::Sender<()>,
        control: oneshot::Receiver<()>,
        signals: &mut Signals,
    ) {
        if timeout(LOG_PATIENCE, self.log.finish()).await.is_err() {
            warn!("the access log did not come to its end; its last lines may be lost");
        }
        self.stop_admin.cancel();
        for task in self.admin {
            drop(task.await);
        }
        if let Some(remote) = self.remote {
            remote.ended().await;
        }
        drop(stop_control);
        // Every acknowledged change is on disk already: a store that hangs may be left.
        tokio::select! {
            ended = timeout(LAST_PATIENCE, control) => if ended.is_err() {
                warn!("the store does not close; left as it is");
            },
            () = signals.stop() => {}
        }
    }
}

/// What a process that was taken over from tells about itself.
struct Here {
    generation: u64,
    workers: usize,
    commons: Arc<Commons>,
    stats: Vec<Arc<WorkerStats>>,
    handle: Handle,
    /// What the other one has not heard yet that it is to tell.
    untold: Vec<Untold>,
    /// To be told when it has.
    heard: Option<oneshot::Sender<()>>,
}

impl Here {
    /// Answers what the other process asks, until that tells it `to_end` and asks no more.
    async fn answer(mut self, mut line: Line, to_end: oneshot::Sender<()>) {
        let (mut to_end, mut has_told) = (Some(to_end), false);
        loop {
            match line.hear().await {
                Ok(Some(Told::Ask { leaving, alone_ms, unsure, pools })) => {
                    // Before it was told what is here, it cannot say what of it leaves, and says so unless its build is an older one.
                    if std::mem::replace(&mut has_told, true) && !unsure {
                        self.handle.follow(elders::leaving(leaving, alone_ms)).await;
                    }
                    // What begins here goes by the table of its time.
                    let pools = if self.is_quiet() { pools } else { Vec::new() };
                    self.handle.go_by(elders::known(pools.clone())).await;
                    if line.tell(&Told::Left(self.left(pools).await)).await.is_err() {
                        break;
                    }
                    let _ = self.heard.take().map(|heard| heard.send(()));
                }
                Ok(Some(Told::End)) => {
                    // It winds down already when nobody waits for this.
                    let _ = to_end.take().map(|to_end| to_end.send(()));
                }
                Ok(Some(_) | None) | Err(_) => break,
            }
        }
        // Whoever comes after it knows nothing of this process: its table must not be gone by any more.
        self.commons.begin_no_more();
        if to_end.is_some() {
            // It is said when it is so.
            self.commons.all_shut(self.workers).await;
            warn!(
                "the process that has taken over is gone; nothing more is begun, what is in flight is finished"
            );
            // Nobody is told that it is over.
            std::future::pending().await
        }
    }

    /// True when no new requests can begin here.
    fn is_quiet(&self) -> bool {
        self.commons.shut() >= self.workers
    }

    async fn left(&mut self, pools: Vec<Pool>) -> Left {
        // First: what is counted afterwards can only become less.
        let quiet = self.is_quiet();
        if quiet {
            self.handle.health().end_judging();
        }
        let (work, pools) = elders::left(&self.handle, pools).await;
        Left {
            pid: std::process::id(),
            generation: self.generation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            quiet,
            connections: self.stats.iter().map(|stats| stats.connections.load(Ordering::Relaxed)).sum(),
            work,
            pools,
            untold: std::mem::take(&mut self.untold).into_iter().map(Into::into).collect(),
        }
    }
}
