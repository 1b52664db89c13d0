//! Discovery: endpoints that are found by DNS or in a file, beside those that the file and the API name.
//!
//! What is found is an ordinary change: it has an epoch, stands in the history, and is there again after a restart, before
//! anybody has answered. It is nobody's edit: what the API does to the pool lies over it. What was found last stays until
//! something else is found: nobody who does not answer, answers with nothing, or cannot be read takes an endpoint away.
//! Who drains and is not found for a minute drains no more.

mod list;
mod lists;
mod marks;
mod source;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep;
use tracing::{info, warn};

use super::tenures::STAY;
use super::{Failed, Handle, Wanted, clock};
use crate::metrics::Finds;
use crate::release::{Actor, ActorKind, Command};
use crate::table::{Discovery, EndpointAddr, ServiceName, VersionName};
use lists::Lists;
use marks::Marks;
use source::Spring;

/// The most endpoints that one version has by discovery.
const MOST: usize = 4096;
/// When a change that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// How often something was found, and was not.
#[derive(Debug, Default)]
struct Counts {
    found: AtomicU64,
    failed: AtomicU64,
}

/// How looking for endpoints has gone, for whoever shows the metrics.
#[derive(Debug, Clone, Default)]
pub struct Figures(Arc<Mutex<ByVersion>>);

type ByVersion = BTreeMap<(ServiceName, VersionName), Shown>;

#[derive(Debug, Default)]
struct Shown {
    counts: Arc<Counts>,
    /// Since when nobody looks for it.
    gone: Option<Instant>,
}

impl Shown {
    fn is_over(&self, now: Instant) -> bool {
        self.gone.is_some_and(|gone| now.saturating_duration_since(gone) >= STAY)
    }
}

impl Figures {
    /// By service and version; of those that nobody looks for any more for as long as their versions are shown.
    #[must_use]
    pub fn finds(&self) -> Vec<Finds> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::instant();
        let told =
            |((service, version), Shown { counts, .. }): (&(ServiceName, VersionName), &Shown)| Finds {
                service: service.clone(),
                version: version.clone(),
                // Relaxed: only read to be shown.
                found: counts.found.load(Ordering::Relaxed),
                failed: counts.failed.load(Ordering::Relaxed),
            };
        all.iter().filter(|(_, shown)| !shown.is_over(now)).map(told).collect()
    }
}

/// Looks for endpoints. Belongs to one thread's runtime; ends when dropped.
#[derive(Debug)]
pub struct Finders {
    handle: Handle,
    running: RefCell<Vec<Finder>>,
    lists: RefCell<Lists>,
    figures: Figures,
}

/// One version's.
#[derive(Debug)]
struct Finder {
    of: Discovery,
    task: JoinHandle<()>,
}

impl Drop for Finder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Finders {
    /// Looks for these from now on. To be called within a local runtime.
    #[must_use]
    pub fn start(handle: Handle, wanted: &[Discovery]) -> Self {
        let (running, lists) = (RefCell::default(), RefCell::new(Lists::new()));
        let this = Self { handle, running, lists, figures: Figures::default() };
        this.follow(wanted);
        this
    }

    /// How it has gone.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.figures.clone()
    }

    /// Looks for these from now on, and for no others; files are read again. What was found for a version that nobody looks for any more is forgotten.
    pub fn follow(&self, wanted: &[Discovery]) {
        self.lists.borrow_mut().follow(wanted);
        let mut running = self.running.borrow_mut();
        running.retain(|finder| wanted.contains(&finder.of) && !finder.task.is_finished());
        let mut figures = self.figures.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = |of: &Discovery| (of.service.clone(), of.version.clone());
        let now = clock::instant();
        figures.retain(|_, shown| !shown.is_over(now));
        for (known, shown) in &mut *figures {
            let is_wanted = wanted.iter().any(|of| name(of) == *known);
            shown.gone = if is_wanted { None } else { shown.gone.or(Some(now)) };
        }
        for of in wanted {
            if !running.iter().any(|finder| finder.of == *of) {
                let counts = Arc::clone(&figures.entry(name(of)).or_default().counts);
                let task =
                    spawn_local(find(of.clone(), self.handle.clone(), counts, self.lists.borrow().looks()));
                running.push(Finder { of: of.clone(), task });
            }
        }
        drop(figures);
        let stale = self.stale(wanted);
        if !stale.is_empty() {
            spawn_local(forget(stale, self.handle.clone()));
        }
    }

    /// The versions that have something found that nobody looks for.
    fn stale(&self, wanted: &[Discovery]) -> Vec<(ServiceName, VersionName)> {
        let state = self.handle.state();
        let found =
            state.table.services().iter().zip(&state.deployments).flat_map(|(service, deployment)| {
                deployment.discovered.keys().map(|version| (service.name.clone(), version.clone()))
            });
        let is_wanted = |(service, version): &(ServiceName, VersionName)| {
            wanted.iter().any(|of| of.service == *service && of.version == *version)
        };
        found.filter(|name| !is_wanted(name)).collect()
    }
}

async fn forget(stale: Vec<(ServiceName, VersionName)>, handle: Handle) {
    for (service, version) in stale {
        let source = "the file".to_owned();
        let command =
            Command::Discover { service: service.clone(), version: version.clone(), endpoints: None };
        if let Err(why) = apply(&handle, command, source).await {
            warn!(%service, %version, %why, "endpoints that were discovered stay, although nobody looks for them any more");
        }
    }
}

/// Looks for one version's endpoints for as long as it runs.
async fn find(of: Discovery, handle: Handle, counts: Arc<Counts>, looks: watch::Receiver<()>) {
    let Discovery { service, version, source } = &of;
    let name = source.name();
    let mut spring = Spring::of(source, looks);
    let mut is_failing = false;
    let mut pending = None;
    let mut marks = Marks::default();
    loop {
        marks.look(
            handle.state().table.service(service).and_then(|known| known.version(version)),
            clock::instant(),
        );
        let found = tokio::select! {
            found = spring.next() => found,
            () = clock::until(marks.next()) => {
                for endpoint in marks.over(clock::instant()) {
                    end_drain(&of, &handle, endpoint, &name).await;
                }
                continue;
            }
            // What could not be taken over is tried again until there is something else.
            () = sleep(AGAIN), if pending.is_some() => {
                if let Some(again) = pending.take() {
                    pending = take_over(&of, &handle, again, &name).await;
                }
                continue;
            }
        };
        let found = match found {
            Ok(found) if found.is_empty() => Err("it lists no endpoints".to_owned()),
            Ok(found) if found.len() > MOST => {
                Err(format!("it lists {} endpoints, and at most {MOST} are taken", found.len()))
            }
            other => other,
        };
        match found {
            Ok(found) => {
                counts.found.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut is_failing) {
                    info!(%service, %version, source = name, "endpoints are found again");
                }
                pending = take_over(&of, &handle, Pending { found, why: None }, &name).await;
            }
            Err(why) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(%service, %version, source = name, why, "no endpoints are found; those that were found last stay");
                }
            }
        }
    }
}

/// What was found and is not taken over yet.
struct Pending {
    found: Vec<EndpointAddr>,
    /// Why, once it was tried.
    why: Option<String>,
}

/// Makes the change; gives it back when the store, another process or the service as it is now is in the way.
async fn take_over(of: &Discovery, handle: &Handle, pending: Pending, name: &str) -> Option<Pending> {
    let Discovery { service, version, .. } = of;
    let endpoints = Some(pending.found.clone());
    let command = Command::Discover { service: service.clone(), version: version.clone(), endpoints };
    let failed = apply(handle, command, name.to_owned()).await.err()?;
    let why = failed.to_string();
    if pending.why.as_ref() != Some(&why) {
        warn!(%service, %version, why, "what was discovered is not taken over yet; trying again");
    }
    Some(Pending { why: Some(why), ..pending })
}

/// Who has this address next serves again; not while a rollout goes on, which may have drained it and waits for it.
async fn end_drain(of: &Discovery, handle: &Handle, endpoint: EndpointAddr, name: &str) {
    let Discovery { service, version, .. } = of;
    if handle.rollouts().told(service).is_some_and(|told| told.state.is_underway()) {
        return;
    }
    let command = Command::EndDrain {
        service: service.clone(),
        version: version.clone().into(),
        endpoint: endpoint.clone(),
    };
    if let Err(why) = apply(handle, command, name.to_owned()).await {
        warn!(%service, %version, %endpoint, %why, "the drain of an endpoint that is not found any more does not end yet");
    }
}

async fn apply(handle: &Handle, command: Command, name: String) -> Result<(), Failed> {
    // The file says to look there.
    let file = Actor { kind: ActorKind::File, name };
    handle.change(Wanted::plain(command, file, "discovery".to_owned())).await.map(drop)
}
