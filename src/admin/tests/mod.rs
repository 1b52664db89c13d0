//! The admin API as a client on its socket sees it.

mod calls;
mod contract;
mod remote;
mod sockets;
mod waits;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::{App, Socket, Status, serve};
use crate::control::{self, Handle};
use crate::release::{Actor, ActorKind};
use crate::store::memory::Memory;
use crate::table::{
    DrainRules, HoldLimits, PoolTraits, ServiceLimits, ServiceSpec, SuperviseRules, Timeouts, VersionSpec,
};

/// `shop` (blue, green, and empty without endpoints) and `cart` (v1, v2), all to the first, behind an admin socket.
pub(crate) struct World {
    pub(crate) control: Handle,
    store: Memory,
    status: Arc<Status>,
    pub(crate) socket: PathBuf,
    _tasks: JoinSet<()>,
    _dir: TempDir,
}

pub(crate) struct Reply {
    status: u16,
    head: String,
    pub(crate) json: Value,
    text: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

fn spec(service: &str, versions: &[(&str, &[&str])]) -> ServiceSpec {
    let version = |(name, endpoints): &(&str, &[&str])| VersionSpec {
        name: name.parse().unwrap(),
        endpoints: endpoints.iter().map(|at| at.parse().unwrap()).collect(),
        protocol: crate::table::Protocol::Http1,
        tls: None,
        proxy_header: None,
        draining: Arc::default(),
        traits: PoolTraits::default(),
        pool: None,
    };
    let first: crate::table::VersionName = versions[0].0.parse().unwrap();
    let route = crate::table::Route {
        host: format!("{service}.example.com").parse().unwrap(),
        path: "/".into(),
        headers: Vec::new(),
    };
    ServiceSpec {
        name: service.parse().unwrap(),
        routes: [route].into(),
        versions: versions.iter().map(version).collect(),
        discovering: Vec::new(),
        stable: first.clone(),
        weights: vec![(first, 10_000)],
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
        upgrades: Arc::default(),
        mirror: None,
    }
}

/// `cart` and `shop`.
fn the_file() -> ([ServiceSpec; 2], Actor) {
    let shop = spec("shop", &[("blue", &["127.0.0.1:9001"]), ("green", &["127.0.0.1:9101"]), ("empty", &[])]);
    let cart = spec("cart", &[("v1", &["127.0.0.1:9201"]), ("v2", &["127.0.0.1:9202"])]);
    ([cart, shop], Actor { kind: ActorKind::File, name: "switchback.toml".to_owned() })
}

/// One call, the last of its connection; of an event stream what has come with its head.
async fn send_over<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &str,
) -> Reply {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    headers.iter().for_each(|line| head.push_str(&format!("{line}\r\n")));
    let call = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(call.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while stream.read_buf(&mut answer).await.unwrap() > 0 {
        let text = String::from_utf8_lossy(&answer);
        if text.split_once("\r\n\r\n").is_some_and(|(head, _)| head.contains("text/event-stream")) {
            break;
        }
    }
    let answer = String::from_utf8(answer).unwrap();
    let (head, text) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {target}: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let json = serde_json::from_str(text).unwrap_or(Value::Null);
    Reply { status, head: head.to_owned(), json, text: text.to_owned() }
}

impl World {
    pub(crate) fn new() -> Self {
        let (services, file) = the_file();
        let store = Memory::default();
        let (task, control) = control::open(Box::new(store.clone()), services.into(), 1, file).unwrap();
        let (status, dir) = (Arc::new(Status::new(2)), tempfile::tempdir().unwrap());
        let path = dir.path().join("run/admin.sock");
        let app = App::new(control.clone(), Arc::clone(&status), Arc::new(|| "a_metric 1\n".to_owned()));
        let mut tasks = JoinSet::new();
        tasks.spawn(task.run(std::future::pending()));
        tasks.spawn(serve(Socket::bind(&path).unwrap(), app, std::future::pending()));
        Self { control, store, status, socket: path, _tasks: tasks, _dir: dir }
    }

    /// The file says from now on how `shop` is supervised.
    pub(crate) async fn supervise_shop(&self, rules: SuperviseRules) {
        let ([cart, mut shop], file) = the_file();
        shop.supervise = Some(Arc::new(rules));
        self.control.reload(vec![cart, shop], file).await.unwrap();
    }

    pub(crate) fn lose_the_store(&self) {
        self.store.go_down();
    }

    /// Returns when the next change hangs with the store.
    pub(crate) async fn store_hangs(&self) {
        self.store.pause();
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.await_paused_append()).await.unwrap();
    }

    pub(crate) fn store_goes_on(&self) {
        self.store.resume();
    }

    async fn send(&self, method: &str, target: &str, headers: &[&str], body: &str) -> Reply {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        send_over(stream, method, target, headers, body).await
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.send("GET", target, &[], "").await
    }

    async fn post(&self, target: &str, body: &str) -> Reply {
        self.send("POST", target, &[], body).await
    }

    async fn put(&self, target: &str, body: &str) -> Reply {
        self.send("PUT", target, &[], body).await
    }

    /// One request in flight on this version, until [`World::leave`].
    pub(crate) fn enter(&self, service: &str, version: &str) -> Arc<crate::proxy::upstream::Upstream> {
        let (live, snapshot) = (self.control.live(), self.control.live().snapshot());
        let found =
            snapshot.upstreams().find(|u| u.service.as_str() == service && u.version.as_str() == version);
        let upstream = Arc::clone(found.unwrap());
        upstream.shard(0).counts.admit(live.published(), snapshot.table.epoch().0).unwrap();
        upstream
    }
}
