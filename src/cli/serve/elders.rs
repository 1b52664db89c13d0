//! The talk with the processes before this one that still have work: what is left there, and what of it leaves.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::talk::{Left, Line, Older, Pool, Told, Untold, Work};
use crate::control::Handle;
use crate::control::elders::{self, Elder};
use crate::metrics::Kind;
use crate::proxy::upstream::Remaining;
use crate::table::{ServiceName, VersionName};

/// Between two questions while somebody waits for the answer: for it to be quiet, or for a version to be empty.
const SOON: Duration = Duration::from_millis(20);
/// Between two questions otherwise.
const SELDOM: Duration = Duration::from_millis(500);
/// How long one may take to hear that it is to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// All of them.
pub(super) struct Elders {
    all: Vec<Conversation>,
    /// Tells them to wind down.
    ending: CancellationToken,
}

struct Conversation {
    with: Older,
    line: Arc<Mutex<Line>>,
    task: JoinHandle<()>,
}

/// The lines to them, in nobody's use: for a successor, or until this is dropped.
pub(super) struct Paused(#[expect(dead_code, reason = "held")] Vec<OwnedMutexGuard<Line>>);

impl Elders {
    /// Nobody.
    pub(super) fn none() -> Self {
        Self { all: Vec::new(), ending: CancellationToken::new() }
    }

    /// Talks with one more. Until it has told more, it may have anything.
    pub(super) fn add(&mut self, with: Older, line: Line, handle: &Handle) {
        let pid = with.pid;
        handle.elders().set(unknown(with.clone()));
        let line = Arc::new(Mutex::new(line));
        let task = spawn_local(talk(pid, Arc::clone(&line), handle.clone(), self.ending.clone()));
        self.all.push(Conversation { with, line, task });
    }

    /// How many of them live.
    pub(super) fn count(&mut self) -> usize {
        self.all.retain(|one| !one.task.is_finished());
        self.all.len()
    }

    /// Who they are, with a handle of each line: for a process that may come to talk with them, and does not yet.
    pub(super) async fn handles(&mut self) -> std::io::Result<Vec<(Older, OwnedFd)>> {
        self.all.retain(|one| !one.task.is_finished());
        let mut handles = Vec::new();
        for Conversation { with, line, .. } in &self.all {
            handles.push((with.clone(), line.lock().await.handle()?));
        }
        Ok(handles)
    }

    /// Says nothing to them until what is returned is dropped.
    pub(super) async fn pause(&self) -> Paused {
        let mut paused = Vec::new();
        for one in &self.all {
            paused.push(Arc::clone(&one.line).lock_owned().await);
        }
        Paused(paused)
    }

    /// Another process talks with them from now on. What they have told stays until nobody is answered here any more.
    pub(super) fn leave(self) {
        self.all.iter().for_each(|one| one.task.abort());
    }

    /// Tells them to wind down too. They go on by the table of their time until this process has ended, and no longer.
    pub(super) async fn end(self) {
        self.ending.cancel();
        for Conversation { line, mut task, .. } in self.all {
            if timeout(PATIENCE, &mut task).await.is_err() {
                // Whoever asks one that does not answer has the line.
                task.abort();
                let _ = task.await;
                // It hears this once it goes on, or ends by its deadline.
                let _ = timeout(PATIENCE, async { line.lock().await.tell(&Told::End).await }).await;
            }
            // Its end says that somebody else may decide from now on.
            line.lock().await.hold();
        }
    }
}

/// One that has told nothing yet.
pub(super) fn unknown(Older { pid, generation, version }: Older) -> Elder {
    let (generation, program) = (Some(generation), Some(version));
    Elder { pid, generation, program, is_quiet: false, told: None }
}

/// Talks with one until it has ended.
async fn talk(pid: u32, line: Arc<Mutex<Line>>, mut handle: Handle, ending: CancellationToken) {
    loop {
        // One that does not answer still has what it had: only its end ends that.
        let pools = handle.pools_elsewhere();
        handle.elders().may_go_by(pid, &pools);
        let pools: Vec<_> = pools.into_iter().map(Pool::from).collect();
        let Ok(Some(left)) = ask(pid, &line, &handle, pools.clone()).await else { break };
        let is_settled = left.quiet && left.pools == pools && handle.leaving_elsewhere().is_empty();
        let pause = if is_settled { SELDOM } else { SOON };
        let (elder, untold) = heard(left);
        handle.elders().leave_to_tell(untold);
        handle.elders().set(elder);
        tokio::select! {
            () = sleep(pause) => {}
            () = handle.changed() => {}
            () = ending.cancelled() => {
                let _ = line.lock().await.tell(&Told::End).await;
                return;
            }
        }
    }
    info!(pid, "the process that was taken over from has ended");
    handle.elders().remove(pid);
}

async fn ask(
    pid: u32,
    line: &Mutex<Line>,
    handle: &Handle,
    pools: Vec<Pool>,
) -> std::io::Result<Option<Left>> {
    let mut line = line.lock().await;
    let unsure = !handle.elders().is_known(pid);
    let leaving = handle.leaving_elsewhere();
    let alone_ms = leaving.iter().map(|left| millis(left.alone)).collect();
    let leaving = leaving.iter().map(|left| (left.service.to_string(), left.version.to_string())).collect();
    line.tell(&Told::Ask { leaving, alone_ms, unsure, pools }).await?;
    match line.hear().await? {
        Some(Told::Left(left)) => Ok(Some(left)),
        Some(other) => Err(std::io::Error::other(format!("unexpected: {other:?}"))),
        None => Ok(None),
    }
}

impl From<elders::Untold> for Untold {
    fn from(elders::Untold { service, version, age, alone }: elders::Untold) -> Self {
        let (service, version) = (service.to_string(), version.to_string());
        Self { service, version, age_ms: millis(age), alone_ms: millis(alone) }
    }
}

/// The versions that another process says are left, as this program knows them.
pub(super) fn leaving(names: Vec<(String, String)>, alone_ms: Vec<u64>) -> Vec<elders::Leaving> {
    let alone = alone_ms.into_iter().chain(std::iter::repeat(0)).map(Duration::from_millis);
    let known = names.into_iter().zip(alone).filter_map(|((service, version), alone)| {
        Some(elders::Leaving { service: service.parse().ok()?, version: version.parse().ok()?, alone })
    });
    known.collect()
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What one has told of itself, and what is told here from now on.
fn heard(left: Left) -> (Elder, Vec<elders::Untold>) {
    let Left { pid, generation, version, quiet, connections, work, pools, untold } = left;
    // Names that this program does not take are of a newer one, which is no elder.
    let left = work.into_iter().filter_map(|work| {
        let Work { service, version, kind, endpoint, count, oldest_ms } = work;
        let kind = Kind::ALL.into_iter().find(|known| known.token() == kind).unwrap_or(Kind::Request);
        let (endpoint, oldest) =
            (endpoint.and_then(|endpoint| endpoint.parse().ok()), Duration::from_millis(oldest_ms));
        let work = Remaining { kind, endpoint, count, oldest };
        Some(elders::Left { service: service.parse().ok()?, version: version.parse().ok()?, work })
    });
    let told = Some(elders::Told { connections, left: left.collect(), pools: known(pools) });
    let (generation, program) = (Some(generation), Some(version));
    let untold = untold.into_iter().filter_map(|Untold { service, version, age_ms, alone_ms }| {
        let [age, alone] = [age_ms, alone_ms].map(Duration::from_millis);
        Some(elders::Untold { service: service.parse().ok()?, version: version.parse().ok()?, age, alone })
    });
    (Elder { pid, generation, program, is_quiet: quiet, told }, untold.collect())
}

impl From<elders::Pool> for Pool {
    fn from(elders::Pool { service, version, endpoints }: elders::Pool) -> Self {
        let endpoints = endpoints.iter().map(ToString::to_string).collect();
        Self { service: service.to_string(), version: version.to_string(), endpoints }
    }
}

/// Those whose names this program takes: the others are no pools of its own.
pub(super) fn known(pools: Vec<Pool>) -> Vec<elders::Pool> {
    let known = pools.into_iter().filter_map(|Pool { service, version, endpoints }| {
        let (service, version) = (service.parse().ok()?, version.parse().ok()?);
        let endpoints = endpoints.iter().filter_map(|endpoint| endpoint.parse().ok()).collect();
        Some(elders::Pool { service, version, endpoints })
    });
    known.collect()
}

/// What is left here, for the process that has taken over, and by which of these `pools` all of it goes.
pub(super) async fn left(handle: &Handle, mut pools: Vec<Pool>) -> (Vec<Work>, Vec<Pool>) {
    let mut names: Vec<_> = handle
        .tenures()
        .tenures()
        .iter()
        .filter(|upstream| upstream.in_flight() > 0)
        .map(|upstream| (upstream.service.clone(), upstream.version.clone()))
        .collect();
    names.sort();
    names.dedup();
    let mut all = Vec::new();
    for (service, version) in names {
        let told = handle.remaining_here(&service, &version).await;
        if told.is_none() || has_past(handle, &service, &version) {
            pools.retain(|pool| pool.service != service.as_str() || pool.version != version.as_str());
        }
        let told = told.unwrap_or_default();
        let known: u64 = told.iter().map(|one| one.count).sum();
        // The counts are what holds; a worker that is busy, or ends, does not say of what they are.
        let total: u64 =
            handle.tenures().of_version(&service, &version).iter().map(|one| one.in_flight()).sum();
        let rest = Remaining {
            kind: Kind::Request,
            endpoint: None,
            count: total.saturating_sub(known),
            oldest: Duration::ZERO,
        };
        let work = told.into_iter().chain((rest.count > 0).then_some(rest)).map(|one| Work {
            service: service.to_string(),
            version: version.to_string(),
            kind: one.kind.token().to_owned(),
            endpoint: one.endpoint.map(|endpoint| endpoint.to_string()),
            count: one.count,
            oldest_ms: millis(one.oldest),
        });
        all.extend(work);
    }
    (all, pools)
}

/// True when something is left on a tenure of the version that is gone: that goes by the pool that it had.
fn has_past(handle: &Handle, service: &ServiceName, version: &VersionName) -> bool {
    let snapshot = handle.live().snapshot();
    let present = snapshot.tenure(service, version).map(|tenure| tenure.id);
    let mut tenures = handle.tenures().of_version(service, version).into_iter();
    tenures.any(|tenure| Some(tenure.id) != present && tenure.in_flight() > 0)
}
