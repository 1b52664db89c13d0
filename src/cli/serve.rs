//! `switchback run`: the only place where the rooms are wired together.
//!
//! Threads: one a worker (data plane), one for control, one for the store, one that watches the files, and this one,
//! which serves the admin API and takes signals.

pub(super) mod activation;
mod affinity;
mod diary;
mod elders;
mod ending;
mod entrances;
mod files;
mod heir;
mod legacy;
mod log;
mod machine;
mod memory;
mod notify;
mod orphans;
mod reload;
mod remote;
mod settings;
mod signals;
mod sockets;
mod succession;
mod talk;
mod upgrade;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, oneshot, watch as channel};
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use activation::{Predecessor, Started};
use affinity::Cores;
use elders::Elders;
use entrances::Entrances;
pub(super) use files::configuration;
use files::{load, watched};
use heir::OwnProgram;
use log::Log;
use machine::{check_room, no_workers, on_own_thread, raise_file_limit, remedy, start_log};
use settings::{memory_limit, settings, taken_out, trusted};
use signals::{Asked, Signals};
use succession::Succession;
use upgrade::{Outcome, Successor};

use super::args::Run;
use super::scrape;
use crate::admin::{self, App, Readiness, Status, UpgradeOrder, api};
use crate::config::{self, Config};
use crate::control::discovery::Finders;
use crate::control::reload::{Trigger, Watch, watch};
use crate::control::{self, Handle};
use crate::proxy::crew::{self, Crew};
use crate::proxy::inherited::Given;
use crate::proxy::listener::ListenAddr;
use crate::proxy::pressure::MemoryLimit;
use crate::proxy::upstream::names;
use crate::release::{Actor, ActorKind};
use crate::webhooks::Webhooks;

/// After how long a reload that the store refused is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// When it cannot start; nothing is left behind then.
pub(super) fn run(args: Run) -> Result<()> {
    // Before anything is opened: descriptors are taken by their numbers.
    let started = activation::take()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    // Before anything is written.
    runtime.block_on(async { signals::outlive_full_files() })?;
    let _diary = start_log()?;
    let line = started.predecessor.as_ref().and_then(|before| before.line.try_clone().ok());
    let ran = run_from(&runtime, started, args);
    // With all that still runs there: whoever waits for this one's end is not told before.
    drop(runtime);
    if let (Err(why), Some(line)) = (&ran, line) {
        Predecessor::fail(&line, format!("{why:#}"));
    }
    ran
}

fn run_from(runtime: &LocalRuntime, started: Started, args: Run) -> Result<()> {
    let program = OwnProgram::find()?;
    let file = configuration(args.config)?;
    // Before the first reading: what changes in between is noticed.
    let (trigger, reloads) = Trigger::new();
    let watching = watch(watched(&file), trigger.clone())
        .inspect_err(|error| warn!(%error, "the configuration is not watched; SIGHUP reloads it"))
        .ok();
    let config = load(&file, watching.as_ref())?;
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    let affinity = args.cpu_affinity.as_ref().unwrap_or(&config.proxy.cpu_affinity);
    let cores = Cores::of(affinity, args.workers.map(usize::from))?;
    raise_file_limit();
    runtime.block_on(async {
        let signals = Signals::take()?;
        let start = Start { file, watching, config, cores, program };
        let (process, upgrades) = Process::start(start, started).await?;
        process.live(signals, trigger, reloads, upgrades).await
    })
}

/// What a process starts from.
struct Start {
    file: PathBuf,
    watching: Option<Watch>,
    config: Config,
    cores: Cores,
    program: OwnProgram,
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
    /// Cancelled when nobody is accepted there any more.
    admin_closed: CancellationToken,
    admin: Vec<JoinHandle<()>>,
    app: Arc<App>,
    /// The admin API over TCP, where it is served so.
    remote: Option<remote::Remote>,
    /// Where the admin API is served.
    admin_path: PathBuf,
    /// Its file, if it is ours.
    admin_file: Option<admin::socket::SocketFile>,
    /// How much memory may be used, for who looks at it.
    memory: channel::Sender<MemoryLimit>,
    /// Says that it is alive.
    watchdog: JoinHandle<()>,
    /// What a successor is started from.
    program: OwnProgram,
    /// 1 is the first process, each upgrade adds one.
    generation: u64,
    /// The admin socket and the metrics listener, for a successor.
    own: Vec<sockets::Handle>,
    /// The processes before this one that still have work.
    elders: Elders,
    /// Who is told by HTTP what happens.
    webhooks: Webhooks,
    /// Who looks for endpoints.
    finders: Finders,
    /// True while a process that starts has the store.
    is_lent: Rc<Cell<bool>>,
    /// That it has been taken over from, for whoever is told by nobody.
    trace: Option<orphans::Trace>,
}

/// Why it serves no more.
enum End {
    /// It was told to.
    Stopped,
    /// Another process serves.
    Replaced(Box<Successor>),
}

/// The tasks that answer operators, and whoever asks for the metrics.
fn serve_admin(
    socket: admin::Socket,
    metrics: Option<tokio::net::TcpListener>,
    app: &Arc<App>,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let socket = spawn_local(admin::serve(socket, Arc::clone(app), stop.clone().cancelled_owned()));
    let metrics = metrics.map(|listener| {
        spawn_local(admin::serve_metrics(listener, Arc::clone(app), stop.clone().cancelled_owned()))
    });
    std::iter::once(socket).chain(metrics).collect()
}

impl Process {
    /// Everything that can fail comes first, the first accepted connection last.
    async fn start(start: Start, started: Started) -> Result<(Self, mpsc::Receiver<UpgradeOrder>)> {
        let Start { file, watching, config, cores, program } = start;
        let (workers, pins) = (cores.workers, cores.pins());
        let Started { sockets: mut inherited, predecessor } = started;
        let entrances = Entrances::of(&config, None)?;
        // First: of two that start at once the one that does not get it takes no socket away that the other has made.
        let claim = Succession::claim(predecessor.as_ref(), &config.state)?;
        let (mut socket, handle) = sockets::admin_socket(&config.admin.socket, &mut inherited)?;
        let (admin_path, mut own) = (socket.path().to_owned(), vec![handle]);
        let metrics = config.metrics.as_ref().map(|of| sockets::metrics_socket(of.listen, &mut inherited));
        let (metrics, handle) = metrics.transpose()?.unzip();
        own.extend(handle);
        let remote = remote::prepare(config.admin.remote.as_ref(), None, &mut inherited)?;
        let bound = crew::bind(&addresses(&config), &mut inherited, None, workers).map_err(cannot_listen)?;
        activation::all_taken(&inherited, predecessor.is_some())?;
        let log = Log::open(&config)?;
        let mut succession = Succession::begin(predecessor, &config.state.dir).await?;
        let generation = succession.generation();
        let store = succession.store(claim, &config.state)?;
        names::ask(&config.proxy.name_servers);
        let (control, handle) = control::open(store, config.services.clone(), workers, actor(&file))
            .with_context(|| format!("cannot start from the state in {}", config.state.dir.display()))?;
        // Before anybody looks at them.
        legacy::take(&handle, succession.legacy());
        let (stop_control, control) = on_own_thread(control)?;
        succession.meet(&handle, &config.state.dir);
        let settings = || settings(&config, &entrances, &log);
        let crew = Crew::start(workers, &pins, handle.live(), &settings());
        let mut crew = crew.map_err(|error| no_workers(workers, error))?;
        check_room(bound.to_spare(), config.limits.connections)?;
        crew.follow(&addresses(&config), bound, &settings()).await;

        let (memory, limit) = channel::channel(memory_limit(&config));
        spawn_local(memory::look(Arc::clone(crew.commons()), limit));
        let watchdog = spawn_local(notify::watchdog(crew.pulse()));
        let status = Arc::new(Status::of(workers, generation).pinned(pins));
        let certificates = scrape::Certificates::default();
        let stats = crew.stats().cloned().collect();
        operate(&handle, &config);
        let webhooks = Webhooks::start(&config.webhooks, handle.subscribe());
        let finders = Finders::start(handle.clone(), &config.discoveries);
        let figures = (webhooks.figures(), finders.figures());
        let text = scrape::of(&handle, stats, Arc::clone(&certificates), Arc::clone(&log.dropped), figures);
        let (upgrading, upgrades) = mpsc::channel(1);
        let app = App::with(handle.clone(), Arc::clone(&status), text, upgrading);
        let (stop_admin, admin_closed) = (CancellationToken::new(), app.closing());
        // Nothing can fail any more: until now a socket that was taken over was its giver's.
        let admin_file = socket.take_file();
        let admin = serve_admin(socket, metrics, &app, &stop_admin);
        let (remote, _) = remote::follow(None, remote, &app, &stop_admin);
        inherited.rest().for_each(Given::forget);
        let mut process = Self {
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
            admin_closed,
            admin,
            app,
            remote,
            admin_path,
            admin_file,
            memory,
            watchdog,
            program,
            generation,
            own,
            elders: Elders::none(),
            webhooks,
            finders,
            is_lent: Rc::default(),
            trace: None,
        };
        process.announce(succession).await;
        Ok((process, upgrades))
    }

    /// It serves: everybody who waits for that is told.
    async fn announce(&mut self, succession: Succession) {
        self.show();
        self.status.set_readiness(Readiness::Ready);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            epoch = self.handle.live().epoch().0,
            workers = self.crew.size(),
            services = self.config.services.len(),
            admin = %self.admin_path.display(),
            generation = self.generation,
            "ready"
        );
        notify::ready(&self.summary());
        succession.end(&mut self.elders, &self.handle, self.generation).await;
    }

    /// What a service manager shows.
    fn summary(&self) -> String {
        format!(
            "generation {}, epoch {}, {} services",
            self.generation,
            self.handle.live().epoch().0,
            self.config.services.len()
        )
    }

    /// Serves until it is told to stop, or until another process has taken over, and finishes what it has then.
    async fn live(
        mut self,
        mut signals: Signals,
        trigger: Trigger,
        mut reloads: mpsc::Receiver<()>,
        mut upgrades: mpsc::Receiver<UpgradeOrder>,
    ) -> Result<()> {
        let end = self.serve(&mut signals, &trigger, &mut reloads, &mut upgrades).await?;
        // Who asks for another process from now on hears that it is too late.
        drop(upgrades);
        match end {
            End::Stopped => self.wind_down(signals).await,
            End::Replaced(successor) => self.retire(*successor, signals).await,
        }
    }

    async fn serve(
        &mut self,
        signals: &mut Signals,
        trigger: &Trigger,
        reloads: &mut mpsc::Receiver<()>,
        upgrades: &mut mpsc::Receiver<UpgradeOrder>,
    ) -> Result<End> {
        loop {
            tokio::select! {
                _ = reloads.recv() => tokio::select! {
                    () = self.reload(trigger) => {}
                    // A store that hangs does not keep it from stopping.
                    () = signals.stop() => return Ok(End::Stopped),
                },
                signal = signals.next() => match signal {
                    Asked::Reopen => self.log.reopen(),
                    Asked::Reload => {
                        self.log.reopen();
                        trigger.pull();
                    }
                    Asked::Stop => return Ok(End::Stopped),
                },
                Some(order) = upgrades.recv() => match self.upgrade(order, signals).await {
                    Outcome::Succeeded(successor) => return Ok(End::Replaced(successor)),
                    Outcome::Stopped => return Ok(End::Stopped),
                    Outcome::Failed => {}
                },
                () = self.crew.failed() => return Err(anyhow!("a worker has failed; the log says why")),
                _ = &mut self.control => return Err(anyhow!("control has failed; the log says why")),
            }
        }
    }

    /// Tells the API what is in force now.
    fn show(&self) {
        self.status.set_belief(taken_out(&self.config, &self.entrances), trusted(&self.config));
        let listeners = self.crew.listeners().iter();
        let listeners = listeners
            .map(|(listen, open)| api::Listener { listen: listen.to_string(), bound: open.real.to_string() });
        self.status.set_listeners(listeners.collect(), self.remote.as_ref().map(remote::Remote::told));
        let shown = self.remote.iter().flat_map(remote::Remote::certificates);
        let shown = self.entrances.certificates().into_iter().chain(shown).collect();
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

fn cannot_listen(error: crew::CannotListen) -> anyhow::Error {
    let hint = remedy(&error.why).unwrap_or_else(|| error.hint());
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

/// Those who work the switch by themselves: rollouts, and supervision.
fn operate(handle: &Handle, config: &Config) {
    spawn_local(control::rollout::run(handle.clone(), config.state.dir.join("rollouts")));
    spawn_local(control::supervisor::run(handle.clone()));
}

fn addresses(config: &Config) -> Vec<ListenAddr> {
    config.listeners.iter().map(address).collect()
}
