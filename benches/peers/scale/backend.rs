//! The server behind the proxy: on every address of the loopback network, so that there can be any number of endpoints.

use std::{
    fmt::Write,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::Result;
use memchr::memmem;
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::{Builder, LocalOptions},
    task::spawn_local,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Serves for as long as this program runs, on a thread of its own.
pub(super) struct Backend {
    port: u16,
    /// Requests that wait for good, and open WebSockets.
    pub(super) held: Arc<AtomicU64>,
}

impl Backend {
    pub(super) fn start(cpu: usize) -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let held = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&held);
        thread::spawn(move || -> Result<()> {
            let mut cpus = CpuSet::new();
            cpus.set(cpu);
            sched_setaffinity(None, &cpus)?;
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                loop {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    let held = Arc::clone(&counted);
                    // A proxy that goes away is no news.
                    spawn_local(async move { serve(stream, &held).await.ok() });
                }
            })
        });
        Ok(Self { port, held })
    }

    /// Configuration of services with so many routes each, and so many endpoints for each of their two versions. Routes are `s00000.example.com` and on; a
    /// single one takes any host.
    pub(super) fn services(&self, services: usize, routes: usize, endpoints: usize) -> String {
        let pool = |first: usize| (first..first + endpoints).map(|number| self.address(number)).collect();
        let (blue, green): (Vec<_>, Vec<_>) = (pool(0), pool(endpoints));
        let mut text = String::new();
        for service in 0..services {
            let hosts =
                (0..routes).map(|route| format!(r#"{{ host = "s{:05}.example.com" }}"#, service + route));
            let hosts: Vec<_> =
                if (services, routes) == (1, 1) { vec!["{}".to_owned()] } else { hosts.collect() };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "[services.s{service:05}]\nroutes = [{}]\nstable = \"blue\"\n\
                 versions.blue.endpoints = {blue:?}\nversions.green.endpoints = {green:?}\n",
                hosts.join(", ")
            );
        }
        text
    }

    fn address(&self, number: usize) -> String {
        format!("127.1.{}.{}:{}", number / 250, number % 250 + 1, self.port)
    }
}

/// 1 KiB for everybody; `/held` is never answered, and WebSockets stay silent.
async fn serve(mut stream: TcpStream, held: &AtomicU64) -> std::io::Result<()> {
    let mut received = Vec::new();
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
        let mut answers = Vec::new();
        while let Some(end) = memmem::find(&received, b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..end + 4).collect();
            if head.starts_with(b"GET /held") {
                return hold(stream, held).await;
            }
            if let Some(key) = key(&head) {
                let accept = derive_accept_key(key.as_bytes());
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                     sec-websocket-accept: {accept}\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await?;
                return hold(stream, held).await;
            }
            answers.extend_from_slice(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 1024\r\n\r\n",
            );
            answers.resize(answers.len() + 1024, b'x');
        }
        stream.write_all(&answers).await?;
    }
}

/// Until the other side closes.
async fn hold(mut stream: TcpStream, held: &AtomicU64) -> std::io::Result<()> {
    held.fetch_add(1, Ordering::Relaxed);
    while stream.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}

fn key(head: &[u8]) -> Option<String> {
    let head = std::str::from_utf8(head).ok()?;
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut keys = fields.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    keys.next().map(|(_, key)| key.to_owned())
}
