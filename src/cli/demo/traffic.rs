//! The clients: real HTTP/1.1 through the proxy, on connections that are kept alive from the first request to the last.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::LocalOptions;
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::VERSIONS;
use super::log::{Log, Sample, Seen};
use super::origin::VERSION_HEADER;

/// Connections.
pub(super) const CLIENTS: u32 = 16;
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(40);
/// How long a request may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Running clients; they finish their requests and end when dropped.
pub(super) struct Traffic {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    /// Requests a second, all clients together.
    pub(super) const RATE: u128 = CLIENTS as u128 * 1000 / PACE.as_millis();

    /// Starts the clients; each request is written to `log` when it has ended.
    ///
    /// # Errors
    /// When a thread is not to be had.
    pub(super) fn start(proxy: SocketAddr, log: Log) -> std::io::Result<Self> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("clients".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            let Ok(runtime) = runtime else { return };
            let clients = (0..CLIENTS).map(|number| client(number, proxy, &log, &stopped));
            runtime.block_on(futures_util::future::join_all(clients));
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn client(number: u32, proxy: SocketAddr, log: &Log, stop: &CancellationToken) {
    let mut pace = interval_at(Instant::now() + PACE * number / CLIENTS, PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = pace.tick() => (),
        }
        let began = Instant::now();
        let asked = timeout(PATIENCE, ask(&mut connection, proxy)).await;
        let seen = match asked.context("no answer in time").flatten() {
            Ok(seen) => seen,
            Err(why) => {
                connection = None;
                Seen::Failed(format!("{why:#}"))
            }
        };
        log.push(Sample { began, ended: Instant::now(), seen });
    }
}

type Connection = SendRequest<Empty<Bytes>>;

/// One request. A connection is made for the first one only: to lose it later is a failure.
async fn ask(connection: &mut Option<Connection>, proxy: SocketAddr) -> anyhow::Result<Seen> {
    let sender = match connection {
        Some(sender) => sender,
        none => none.insert(connect(proxy).await.context("cannot connect")?),
    };
    sender.ready().await.context("the connection was lost")?;
    let request = Request::get("/").header(HOST, "shop.example.com").body(Empty::new())?;
    let (head, body) = sender.send_request(request).await.context("no answer")?.into_parts();
    let body = body.collect().await.context("half an answer")?.to_bytes();
    let named = head.headers.get(VERSION_HEADER).and_then(|value| value.to_str().ok());
    let Some(version) = VERSIONS.into_iter().find(|version| Some(*version) == named) else {
        bail!("no version answered: {} {}", head.status, String::from_utf8_lossy(&body).trim());
    };
    anyhow::ensure!(
        body.starts_with(version.as_bytes()) && body.ends_with(b"\n"),
        "an answer in {version}'s name that is not its own"
    );
    Ok(Seen::Answer { version, status: head.status.as_u16() })
}

async fn connect(proxy: SocketAddr) -> anyhow::Result<Connection> {
    let stream = TcpStream::connect(proxy).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    spawn_local(async move { connection.await.ok() });
    Ok(sender)
}
