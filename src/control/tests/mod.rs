//! The promises of control, against the store in memory with its faults, and against SQLite over restarts.

mod custody;
mod drains;
mod holds;
mod ramps;
mod rollouts;

use std::path::Path;
use std::thread::{self, JoinHandle};

use futures_util::poll;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;
use crate::release::{ActorKind, Interrupts, Supervise};
use crate::store::HistoryQuery;
use crate::store::memory::{Fault, Memory};
use crate::store::sqlite::Sqlite;
use crate::table::{
    DrainRules, Epoch, HoldLimits, HostPattern, PoolTraits, Protocol, Route, ServiceLimits, ServiceName,
    Timeouts, VersionName, VersionSpec,
};

/// A failure guard: whatever is waited for comes in milliseconds.
const GUARD: Duration = Duration::from_secs(20);

/// A running control.
struct World {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl World {
    fn start(store: impl Store + 'static, services: Vec<ServiceSpec>) -> Self {
        let (control, handle) = open(Box::new(store), services, 2, file()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(control.run(async { drop(stopped.await) }));
        });
        Self { handle, stop: Some(stop), thread: Some(thread) }
    }

    async fn order(&self, command: Command) -> Result<Done, Failed> {
        self.handle.change(wanted(Asked::Command(command))).await
    }

    async fn flip(&self, to: &str) -> Result<Done, Failed> {
        self.order(flip(to)).await
    }

    fn epoch(&self) -> Epoch {
        let (state, live) = (self.handle.state().table.epoch(), self.handle.live());
        assert_eq!((live.epoch(), live.snapshot().table.epoch()), (state, state));
        state
    }

    /// Who carries `shop`, as the workers see it.
    fn split(&self) -> String {
        self.handle.live().snapshot().table.service(&shop()).unwrap().split.to_string()
    }

    fn upstream(&self, name: &str) -> Arc<Upstream> {
        let all = self.handle.tenures().tenures();
        all.into_iter().find(|upstream| upstream.version == version(name)).unwrap()
    }

    /// One request on `upstream`, by worker 1.
    fn admit(&self, upstream: &Upstream) {
        let live = self.handle.live();
        upstream.shard(1).counts.admit(live.published(), live.epoch().0).unwrap();
    }

    fn leaving(&self) -> Vec<VersionName> {
        self.handle.state().deployment(&shop()).unwrap().phase.leaving().to_vec()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        self.thread.take().unwrap().join().unwrap();
    }
}

fn file() -> Actor {
    Actor { kind: ActorKind::File, name: "switchback.toml".to_owned() }
}

fn shop() -> ServiceName {
    "shop".parse().unwrap()
}

fn version(name: &str) -> VersionName {
    name.parse().unwrap()
}

fn spec(name: &str) -> ServiceSpec {
    let pool = |name, port| VersionSpec {
        name: version(name),
        endpoints: Arc::new([format!("127.0.0.1:{port}").parse().unwrap()]),
        protocol: Protocol::Http1,
        tls: None,
        proxy_header: None,
        draining: Arc::default(),
        traits: PoolTraits::default(),
        pool: None,
    };
    ServiceSpec {
        name: name.parse().unwrap(),
        routes: Arc::new([Route {
            host: HostPattern::Exact(name.into()),
            path: "/".into(),
            headers: Vec::new(),
        }]),
        versions: vec![pool("blue", 9001), pool("green", 9101)],
        discovering: Vec::new(),
        stable: version("blue"),
        weights: vec![(version("blue"), 10_000)],
        timeouts: Timeouts::default(),
        rules: None,
        limits: ServiceLimits::default(),
        drain: DrainRules::default(),
        hold: HoldLimits::standard(),
        pool: Arc::default(),
        supervise: None,
        sticky: None,
        targeting: Default::default(),
        shield: None,
        upgrades: Default::default(),
        mirror: None,
    }
}

fn specs() -> Vec<ServiceSpec> {
    vec![spec("shop")]
}

fn flip(to: &str) -> Command {
    Command::Flip {
        service: shop(),
        to: version(to).into(),
        supervise: Supervise::AsConfigured,
        interrupts: Interrupts::Yes,
    }
}

fn wanted(command: Asked) -> Wanted {
    let operator = Actor { kind: ActorKind::Operator, name: "uid=0".to_owned() };
    let render = |state: &State, _: &Effects, _: &[ServiceName]| format!("epoch {}", state.table.epoch());
    Wanted { command, render, ..Wanted::plain(flip("blue"), operator, String::new()) }
}

fn keyed(command: Command, key: &str, fingerprint: &str) -> Wanted {
    Wanted { idempotency: Some((key.to_owned(), fingerprint.to_owned())), ..wanted(Asked::Command(command)) }
}

fn sqlite(dir: &Path) -> Sqlite {
    Sqlite::open(dir, 100).unwrap()
}

async fn guarded<T>(future: impl Future<Output = T>) -> T {
    timeout(GUARD, future).await.unwrap()
}

async fn drained(notices: &mut broadcast::Receiver<Notice>) -> (VersionName, f64) {
    loop {
        if let Notice::Drained { version, seconds, .. } = guarded(notices.recv()).await.unwrap() {
            return (version, seconds);
        }
    }
}

#[tokio::test]
async fn an_unsaved_flip_changes_nothing() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    let (state, kept, snapshot) = (world.handle.state(), memory.changes(), world.handle.live().snapshot());
    memory.fail(1, Fault::BeforeKeeping);
    let failed = world.flip("green").await.unwrap_err();
    assert!(matches!(&failed, Failed::Store(_)), "{failed}");
    assert!(failed.to_string().starts_with("nothing has changed: the state store failed: "), "{failed}");
    assert!(Arc::ptr_eq(&world.handle.state(), &state));
    assert!(Arc::ptr_eq(&world.handle.live().snapshot(), &snapshot));
    assert_eq!((world.epoch(), world.split()), (Epoch(1), "blue 100 %".to_owned()));
    assert_eq!(memory.changes(), kept);

    world.flip("green").await.unwrap();
    assert_eq!((world.epoch(), world.split()), (Epoch(2), "green 100 %".to_owned()));
}

#[tokio::test]
async fn nothing_is_published_before_it_is_kept() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    memory.pause();
    let mut change = pin!(world.flip("green"));
    assert!(poll!(change.as_mut()).is_pending());
    memory.await_paused_append();
    assert_eq!((world.epoch(), world.split()), (Epoch(1), "blue 100 %".to_owned()));
    memory.resume();
    let done = guarded(change).await.unwrap();
    assert_eq!((world.epoch(), done.state.table.epoch()), (Epoch(2), Epoch(2)));
}

#[tokio::test]
async fn what_is_acknowledged_is_published_and_kept() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    let mut notices = world.handle.subscribe();
    for (to, epoch) in ["green", "blue", "green"].into_iter().zip(2..) {
        let done = world.flip(to).await.unwrap();
        assert_eq!((world.epoch(), world.split()), (Epoch(epoch), format!("{to} 100 %")));
        assert_eq!(memory.changes().last(), done.effects.change.as_ref());
        assert_eq!(done.body, format!("epoch {epoch}"));
        let Notice::Changed(change) = notices.try_recv().unwrap() else { panic!("a change is told at once") };
        assert_eq!(Some(&*change), done.effects.change.as_ref());
        assert_eq!(drained(&mut notices).await.0, version(if to == "green" { "blue" } else { "green" }));
    }
}

#[tokio::test]
async fn a_change_that_was_kept_although_the_store_failed_counts() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    memory.fail(1, Fault::AfterKeeping);
    world.flip("green").await.unwrap();
    assert_eq!((world.epoch(), world.split()), (Epoch(2), "green 100 %".to_owned()));
    world.flip("blue").await.unwrap();
    assert_eq!(memory.changes().len(), 3);
}

#[tokio::test]
async fn a_doubtful_change_takes_effect_once_the_store_says_that_it_was_kept() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    let mut notices = world.handle.subscribe();
    memory.fail(1, Fault::KeptThenDown);
    let failed = world.handle.change(keyed(flip("green"), "key", "f")).await.unwrap_err();
    assert!(matches!(&failed, Failed::Store(StoreError::InDoubt(_))), "{failed}");
    assert_eq!((world.epoch(), world.split()), (Epoch(1), "blue 100 %".to_owned()));
    memory.come_up();
    let Notice::Changed(change) = guarded(notices.recv()).await.unwrap() else {
        panic!("asked again by itself")
    };
    assert_eq!((change.epoch, world.split()), (Epoch(2), "green 100 %".to_owned()));
    let again = world.handle.change(keyed(flip("green"), "key", "f")).await.unwrap();
    assert!(again.replayed);
    assert_eq!(world.epoch(), Epoch(2));
}

#[tokio::test]
async fn a_store_that_is_down_refuses_changes_and_takes_them_when_it_is_back() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    memory.go_down();
    for _ in 0..3 {
        assert!(matches!(world.flip("green").await, Err(Failed::Store(_))));
        assert_eq!((world.epoch(), world.split()), (Epoch(1), "blue 100 %".to_owned()));
    }
    memory.come_up();
    let done = world.flip("green").await.unwrap();
    assert_eq!((done.state.table.epoch(), world.epoch()), (Epoch(2), Epoch(2)));
}

#[tokio::test]
async fn a_refused_order_changes_nothing() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    assert!(matches!(world.flip("red").await, Err(Failed::Refused(Refused::UnknownVersion { .. }))));
    let stale = Wanted { expected: vec![(shop(), Epoch(7))], ..wanted(Asked::Command(flip("green"))) };
    assert!(matches!(world.handle.change(stale).await, Err(Failed::Refused(Refused::Conflict { .. }))));
    assert_eq!((world.epoch(), memory.changes().len()), (Epoch(1), 1));
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_keeps_nothing() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    let done =
        world.handle.change(Wanted { dry_run: true, ..keyed(flip("green"), "key", "f") }).await.unwrap();
    assert_eq!(done.state.table.service(&shop()).unwrap().split.to_string(), "green 100 %");
    assert_eq!(done.effects.left, [(shop(), version("blue"))]);
    assert_eq!((world.epoch(), memory.changes().len()), (Epoch(1), 1));
    assert!(!world.handle.change(keyed(flip("green"), "key", "f")).await.unwrap().replayed);
}

#[tokio::test]
async fn an_answer_is_given_again_over_a_restart_without_a_second_change() {
    let dir = TempDir::new().unwrap();
    let world = World::start(sqlite(dir.path()), specs());
    let first = world.handle.change(keyed(flip("green"), "key", "f")).await.unwrap();
    assert!(!first.replayed);
    world.flip("blue").await.unwrap();
    drop(world);

    let world = World::start(sqlite(dir.path()), specs());
    let again = world.handle.change(keyed(flip("green"), "key", "f")).await.unwrap();
    assert_eq!((again.replayed, again.body), (true, first.body));
    let other = world.handle.change(keyed(flip("green"), "key", "g")).await;
    assert!(matches!(other, Err(Failed::KeyReused(key)) if key == "key"));
    assert_eq!((world.epoch(), world.split()), (Epoch(3), "blue 100 %".to_owned()));
}

#[tokio::test]
async fn an_order_that_changed_nothing_changes_nothing_later_either() {
    let world = World::start(Memory::default(), specs());
    let first = world.handle.change(keyed(flip("blue"), "key", "f")).await.unwrap();
    assert_eq!(first.effects.change, None);
    world.flip("green").await.unwrap();
    assert!(world.handle.change(keyed(flip("blue"), "key", "f")).await.unwrap().replayed);
    assert_eq!(world.split(), "green 100 %");
}

#[tokio::test]
async fn the_same_key_at_once_is_one_change() {
    let world = World::start(Memory::default(), specs());
    let ask = || world.handle.change(keyed(flip("green"), "key", "f"));
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    let replays = [one, two, three].into_iter().filter(|done| done.as_ref().unwrap().replayed).count();
    assert_eq!((replays, world.epoch()), (2, Epoch(2)));
}

#[tokio::test]
async fn acknowledged_changes_survive_and_lie_over_the_file() {
    let dir = TempDir::new().unwrap();
    let world = World::start(sqlite(dir.path()), vec![spec("shop"), spec("cart")]);
    world.flip("green").await.unwrap();
    drop(world);

    let world = World::start(sqlite(dir.path()), vec![spec("shop"), spec("cart")]);
    assert_eq!(
        (world.epoch(), world.split()),
        (Epoch(2), "green 100 %".to_owned()),
        "no change by the restart"
    );
    drop(world);

    let world = World::start(sqlite(dir.path()), specs());
    assert_eq!((world.epoch(), world.split()), (Epoch(3), "green 100 %".to_owned()), "`cart` was dropped");
    let query = HistoryQuery { before: None, limit: 10, service: Some("cart".parse().unwrap()) };
    let epochs: Vec<_> =
        world.handle.history(query).await.unwrap().iter().map(|change| change.epoch.0).collect();
    assert_eq!(epochs, [3, 1]);
}

#[tokio::test]
async fn an_undo_goes_back_and_an_unknown_epoch_is_refused() {
    let world = World::start(Memory::remembering(3), specs());
    for to in ["green", "blue", "green"] {
        world.flip(to).await.unwrap();
    }
    let undo = |to| world.handle.change(wanted(Asked::UndoTo(Epoch(to))));
    undo(3).await.unwrap();
    assert_eq!((world.epoch(), world.split()), (Epoch(5), "blue 100 %".to_owned()));
    for to in [2, 6] {
        let refused = undo(to).await.unwrap_err();
        let unknown = Refused::UnknownEpoch { to: Epoch(to), oldest: Epoch(3), newest: Epoch(5) };
        assert!(matches!(&refused, Failed::Refused(why) if *why == unknown), "{refused}");
    }
}

#[tokio::test]
async fn a_reload_that_says_the_same_is_no_change() {
    let memory = Memory::default();
    let world = World::start(memory.clone(), specs());
    let state = world.handle.state();
    let done = world.handle.reload(specs(), file()).await.unwrap();
    assert_eq!((done.effects.change, memory.changes().len()), (None, 1));
    assert!(Arc::ptr_eq(&world.handle.state(), &state));
}

#[tokio::test]
async fn changes_are_counted_by_kind_and_actor_and_fences_are_timed() {
    let world = World::start(Memory::default(), specs());
    world.flip("green").await.unwrap();
    world.order(Command::Revert { service: shop() }).await.unwrap();
    let figures = world.handle.figures().services();
    let figures = &figures[&shop()];
    let changes: Vec<_> =
        figures.changes.iter().map(|((kind, actor), n)| (kind.token(), actor.token(), *n)).collect();
    assert_eq!(changes, [("flip", "operator", 1), ("revert", "operator", 1), ("configure", "file", 1)]);
    assert_eq!(figures.fence.count(), 2);
}

#[tokio::test]
async fn after_shutdown_changes_are_refused_and_the_store_is_free() {
    let dir = TempDir::new().unwrap();
    let world = World::start(sqlite(dir.path()), specs());
    let handle = world.handle.clone();
    drop(world);
    assert!(matches!(handle.change(wanted(Asked::Command(flip("green")))).await, Err(Failed::Closed)));
    drop(sqlite(dir.path()));
}
