//! `switchback run`: the only place where the rooms are wired together.
//!
//! Threads: one a worker (data plane), one for control, one for the store, one that watches the files, and this one,
//! which serves the admin API and takes signals.

mod entrances;
mod files;
mod log;
mod memory;
mod settings;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use entrances::Entrances;
pub(super) use files::configuration;
use files::{load, watched};
use log::Log;
use settings::{memory_limit, settings};

use super::args::Run;
use super::scrape;
use crate::admin::{self, App, Readiness, Status, api};
use crate::config::{self, Config};
use crate::control::reload::{Trigger, Watch, watch};
use crate::control::{self, Control, Failed, Handle};
use crate::proxy::crew::{self, Crew};
use crate::proxy::inherited::Inherited;
use crate::proxy::listener::ListenAddr;
use crate::proxy::pressure::MemoryLimit;
use crate::proxy::upstream::names;
use crate::proxy::worker::{Farewell, Queue};
use crate::release::{Actor, ActorKind};
use crate::store::sqlite::Sqlite;

/// After how long a reload that the store refused is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// How long the access log may take to be written to its end.
const LOG_PATIENCE: Duration = Duration::from_secs(2);
/// How long the store may take to close.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// When it cannot start; nothing is left behind then.
pub(super) fn run(args: Run) -> Result<()> {
    start_log();
    let file = configuration(args.config)?;
    // Before the first reading: what changes in between is noticed.
    let (trigger, reloads) = Trigger::new();
    let watching = watch(watched(&file), trigger.clone())
        .inspect_err(|error| warn!(%error, "the configuration is not watched; SIGHUP reloads it"))
        .ok();
    let config = load(&file, watching.as_ref())?;
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    let workers = args.workers.map_or_else(cores, usize::from);
    raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let signals = Signals::take()?;
        let process = Process::start(file, watching, config, workers).await?;
        process.live(signals, trigger, reloads).await
    })
}

/// Everything that runs.
struct Process {
    file: PathBuf,
    watching: Option<Watch>,
    config: Config,
    entrances: Entrances,
    certificates: scrape::Certificates,
    crew: Crew,
    log: Log,
    handle: Handle,
    status: Arc<Status>,
    /// Ends control; it says when it has ended.
    stop_control: oneshot::Sender<()>,
    control: oneshot::Receiver<()>,
    stop_admin: CancellationToken,
    admin: Vec<JoinHandle<()>>,
    /// How much memory may be used, for who looks at it.
    memory: channel::Sender<MemoryLimit>,
}

impl Process {
    /// Everything that can fail comes first, the first accepted connection last.
    async fn start(file: PathBuf, watching: Option<Watch>, config: Config, workers: usize) -> Result<Self> {
        let entrances = Entrances::of(&config, None)?;
        let socket = admin::Socket::bind(&config.admin.socket)?;
        let metrics = match &config.metrics {
            Some(metrics) => Some(bind_metrics(metrics.listen).await?),
            None => None,
        };
        let bound = crew::bind(&addresses(&config), &mut Inherited::default(), None, workers)
            .map_err(cannot_listen)?;
        let log = Log::open(&config)?;
        let store = Box::new(Sqlite::open(&config.state.dir, config.state.history)?);
        names::ask(&config.proxy.name_servers);
        let (control, handle) = control::open(store, config.services.clone(), workers, actor(&file))
            .with_context(|| format!("cannot start from the state in {}", config.state.dir.display()))?;
        let (stop_control, control) = on_own_thread(control)?;
        let settings = settings(&config, &entrances, workers, &log);
        let mut crew = Crew::start(workers, handle.live(), &settings)?;
        crew.follow(&addresses(&config), bound, &settings).await;

        let (memory, limit) = channel::channel(memory_limit(&config));
        spawn_local(memory::look(Arc::clone(crew.commons()), limit));
        let status = Arc::new(Status::new(workers));
        let certificates = scrape::Certificates::default();
        let stats = crew.stats().cloned().collect();
        let text = scrape::of(&handle, stats, Arc::clone(&certificates), Arc::clone(&log.dropped));
        let app = App::new(handle.clone(), Arc::clone(&status), text);
        let stop_admin = CancellationToken::new();
        let mut admin =
            vec![spawn_local(admin::serve(socket, Arc::clone(&app), stop_admin.clone().cancelled_owned()))];
        admin.extend(metrics.map(|metrics| {
            spawn_local(admin::serve_metrics(metrics, app, stop_admin.clone().cancelled_owned()))
        }));
        let process = Self {
            file,
            watching,
            config,
            entrances,
            certificates,
            crew,
            log,
            handle,
            status,
            stop_control,
            control,
            stop_admin,
            admin,
            memory,
        };
        process.show_listeners();
        process.status.set_readiness(Readiness::Ready);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            epoch = process.handle.live().epoch().0,
            workers,
            services = process.config.services.len(),
            admin = %process.config.admin.socket.display(),
            "ready"
        );
        Ok(process)
    }

    /// Serves until it is told to stop.
    async fn live(
        mut self,
        mut signals: Signals,
        trigger: Trigger,
        mut reloads: mpsc::Receiver<()>,
    ) -> Result<()> {
        loop {
            tokio::select! {
                _ = reloads.recv() => tokio::select! {
                    () = self.reload(&trigger) => {}
                    // A store that hangs does not keep it from stopping.
                    () = signals.stop() => return self.wind_down(signals).await,
                },
                signal = signals.next() => match signal {
                    Told::Reload => {
                        // First, and whatever becomes of the configuration: the file may have been moved away.
                        self.log.reopen();
                        trigger.pull();
                    }
                    Told::Stop => return self.wind_down(signals).await,
                },
                () = self.crew.failed() => return Err(anyhow!("a worker has failed; the log says why")),
                _ = &mut self.control => return Err(anyhow!("control has failed; the log says why")),
            }
        }
    }

    /// Reads the file again: all of it takes effect, or nothing.
    async fn reload(&mut self, trigger: &Trigger) {
        match self.try_reload().await {
            Ok(()) => {
                info!(epoch = self.handle.live().epoch().0, file = %self.file.display(), "configuration read")
            }
            Err(error) => {
                let errors = format!("{error:#}");
                if matches!(error.downcast_ref(), Some(Failed::Store(_))) {
                    // Not the file's fault, and perhaps kept after all: it is read again until that is settled.
                    error!(
                        "the configuration is not in force yet, the store has failed; trying again:\n{errors}"
                    );
                    let trigger = trigger.clone();
                    spawn_local(async move {
                        sleep(TRY_AGAIN).await;
                        trigger.pull();
                    });
                } else {
                    error!("the configuration is not used, everything stays as it was:\n{errors}");
                }
                self.handle.reload_failed(errors);
            }
        }
    }

    async fn try_reload(&mut self) -> Result<()> {
        let config = load(&self.file, self.watching.as_ref())?;
        config.warnings.iter().for_each(|warning| warn!("{warning}"));
        let entrances = Entrances::of(&config, Some(&self.entrances))?;
        let wanted = addresses(&config);
        let bound = crew::bind(&wanted, &mut Inherited::default(), Some(&self.crew), self.crew.size());
        let bound = bound.map_err(cannot_listen)?;
        let log = self.log.prepare(&config)?;
        names::ask(&config.proxy.name_servers);
        self.handle.reload(config.services.clone(), actor(&self.file)).await?;
        self.log.follow(log);
        let settings = settings(&config, &entrances, self.crew.size(), &self.log);
        self.crew.follow(&wanted, bound, &settings).await;
        let fixed = |config: &Config| {
            (config.admin.socket.clone(), config.metrics.as_ref().map(|m| m.listen), config.state.dir.clone())
        };
        if fixed(&config) != fixed(&self.config) {
            warn!("changes of [admin], [metrics] and [state] take effect at the next start");
        }
        self.memory.send_replace(memory_limit(&config));
        (self.config, self.entrances) = (config, entrances);
        self.show_listeners();
        Ok(())
    }

    fn show_listeners(&self) {
        let listeners = self.crew.listeners().iter();
        let listeners = listeners
            .map(|(listen, open)| api::Listener { listen: listen.to_string(), bound: open.real.to_string() });
        self.status.set_listeners(listeners.collect());
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = self.entrances.certificates();
    }

    /// Finishes what is in flight, for as long as the deadline says; a second signal ends it at once.
    async fn wind_down(self, mut signals: Signals) -> Result<()> {
        // Memory is looked at until the end.
        let Self {
            config, crew, log, status, stop_control, control, stop_admin, admin, memory: _memory, ..
        } = self;
        status.set_readiness(Readiness::Stopping);
        let deadline = config.shutdown.deadline;
        info!(deadline_seconds = deadline.as_secs_f64(), "winding down");
        let farewell = Farewell { spread: config.shutdown.spread, queue: Queue::Ours };
        let end = async {
            sleep(config.shutdown.lame_duck).await;
            if timeout(deadline, crew.stop(farewell)).await.is_err() {
                warn!("the deadline has come; what is still in flight is cut");
            }
        };
        tokio::select! {
            () = end => {}
            () = signals.stop() => warn!("told twice; what is still in flight is cut"),
        }
        if timeout(LOG_PATIENCE, log.finish()).await.is_err() {
            warn!("the access log did not come to its end; its last lines may be lost");
        }
        stop_admin.cancel();
        for task in admin {
            drop(task.await);
        }
        drop(stop_control);
        // Every acknowledged change is on disk already: a store that hangs may be left.
        tokio::select! {
            ended = timeout(LAST_PATIENCE, control) => if ended.is_err() {
                warn!("the store does not close; left as it is");
            },
            () = signals.stop() => {}
        }
        info!("stopped");
        Ok(())
    }
}

/// The signals that are taken.
struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn take() -> Result<Self> {
        let [hang_up, terminate, interrupt] =
            [SignalKind::hangup(), SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        Ok(Self { hang_up: hang_up?, terminate: terminate?, interrupt: interrupt? })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hang_up.recv() => Told::Reload,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
        }
    }

    /// The next one that says stop.
    async fn stop(&mut self) {
        while self.next().await != Told::Stop {}
    }
}

/// What a signal asks for.
#[derive(PartialEq, Eq)]
enum Told {
    Reload,
    Stop,
}

/// Control on a thread that does nothing else: a busy admin socket never delays a fence. The receiver says when it ended.
fn on_own_thread(control: Control) -> Result<(oneshot::Sender<()>, oneshot::Receiver<()>)> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new().name("control".to_owned()).spawn(move || {
        // Dropped with the thread, also when it panics.
        let _end = end;
        runtime.block_on(control.run(async { drop(stopped.await) }));
    })?;
    Ok((stop, ended))
}

async fn bind_metrics(listen: std::net::SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} for metrics; choose another [metrics] listen"))
}

fn cannot_listen(error: crew::CannotListen) -> anyhow::Error {
    let hint = error.hint();
    anyhow::Error::new(error.why).context(format!("cannot listen on {}; {hint}", error.address))
}

fn actor(file: &Path) -> Actor {
    Actor { kind: ActorKind::File, name: file.display().to_string() }
}

fn address(listener: &config::Listener) -> ListenAddr {
    match &listener.listen {
        config::ListenAddr::Tcp(address) => ListenAddr::Tcp(*address),
        config::ListenAddr::Unix(path) => ListenAddr::Unix(path.clone()),
    }
}

fn addresses(config: &Config) -> Vec<ListenAddr> {
    config.listeners.iter().map(address).collect()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A proxy needs two descriptors a request: as many as the system lets it have.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit on open files stays where it is");
    }
}

/// Logs to standard error; `SWITCHBACK_LOG` sets the least level (`debug`, `info`, `warn`, `error`), `info` by default.
fn start_log() {
    let level = std::env::var("SWITCHBACK_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}
