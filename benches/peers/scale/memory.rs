//! What a client connection takes of resident memory: one that waits, and one with a request in flight.

use std::{
    any::Any,
    fs,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use http::Request;
use rustls::{
    ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::ServerName, pki_types::pem::PemObject,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    backend::Backend,
    site::{Plan, Site},
};
use crate::{
    args::Args,
    certificate,
    process::Scratch,
    report::{Spread, table},
};

/// Connections that wait.
const IDLE: u32 = 10_000;
/// Connections with something in flight, each of which has one to the endpoint too.
const ACTIVE: u32 = 2_000;
/// Requests before the first reading, so that what is allocated once is not charged to a connection.
const WARM_UP: u32 = 200;

pub(super) struct Table {
    pub(super) rows: Vec<(Kind, Result<Spread>)>,
}

/// What speaks on a connection, and what it does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    wire: Wire,
    does: Does,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Http1,
    Http1Tls,
    H2c,
    H2Tls,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    /// One request was answered, and no other has come.
    Wait,
    /// A request is in flight.
    Ask,
    /// A WebSocket is open.
    Talk,
}

impl Kind {
    fn connections(self) -> u32 {
        if self.does == Does::Wait { IDLE } else { ACTIVE }
    }
}

const KINDS: [Kind; 9] = [
    Kind { name: "h1, idle", wire: Wire::Http1, does: Does::Wait },
    Kind { name: "h1, active", wire: Wire::Http1, does: Does::Ask },
    Kind { name: "h1 TLS, idle", wire: Wire::Http1Tls, does: Does::Wait },
    Kind { name: "h1 TLS, active", wire: Wire::Http1Tls, does: Does::Ask },
    Kind { name: "h2c, idle", wire: Wire::H2c, does: Does::Wait },
    Kind { name: "h2c, active", wire: Wire::H2c, does: Does::Ask },
    Kind { name: "h2 TLS, idle", wire: Wire::H2Tls, does: Does::Wait },
    Kind { name: "h2 TLS, active", wire: Wire::H2Tls, does: Does::Ask },
    Kind { name: "WebSocket", wire: Wire::Http1, does: Does::Talk },
];

pub(super) fn measure(args: &Args, scratch: &Scratch, backend: &Backend) -> Result<Table> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let plan = Plan {
        services: backend.services(1, 1, 1),
        hosts: 1,
        connections: 1,
        workers: 1,
        cpus: args.cpus.proxy.to_string(),
        flips: 0,
        is_long: false,
    };
    let rows = KINDS.map(|kind| {
        let growths = (0..args.rounds.min(3)).map(|_| {
            let site = Site::start(&plan, args, scratch)?;
            runtime.block_on(growth(&site, kind, backend))
        });
        let growths = growths.collect::<Result<Vec<_>>>();
        (kind, growths.and_then(|all| Spread::of(all.into_iter()).context("there has to be a round")))
    });
    Ok(Table { rows: rows.into() })
}

/// Growth of resident memory for each connection, in bytes.
async fn growth(site: &Site, kind: Kind, backend: &Backend) -> Result<f64> {
    let connector = connector(site, kind.wire)?;
    for _ in 0..WARM_UP {
        drop(open(site, Kind { does: Does::Wait, ..kind }, &connector).await?);
    }
    settle().await;
    let (before, held) = (site.process.resident(), backend.held.load(Ordering::Relaxed));
    let (mut all, count) = (Vec::new(), kind.connections());
    for number in 0..count {
        all.push(open(site, kind, &connector).await.with_context(|| format!("connection {number}"))?);
    }
    let since = Instant::now();
    while kind.does != Does::Wait && backend.held.load(Ordering::Relaxed) < held + u64::from(count) {
        ensure!(since.elapsed() < Duration::from_secs(20), "not every request has arrived");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    settle().await;
    let after = site.process.resident();
    Ok(after.saturating_sub(before) as f64 / f64::from(count))
}

/// Leaves the proxy the time to free what it no longer needs: for some of it a second, and then it looks.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(3)).await;
}

fn connector(site: &Site, wire: Wire) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(site.dir.join("shop.pem"))?)?)?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let protocol = if wire == Wire::H2Tls { "h2" } else { "http/1.1" };
    config.alpn_protocols = vec![protocol.into()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Opens one; it lives until it is dropped.
async fn open(site: &Site, kind: Kind, connector: &TlsConnector) -> Result<Box<dyn Any>> {
    let secure = matches!(kind.wire, Wire::Http1Tls | Wire::H2Tls);
    let tcp = TcpStream::connect(if secure { site.tls } else { site.listen }).await?;
    tcp.set_nodelay(true)?;
    match kind.wire {
        Wire::Http1 => http1(tcp, kind.does).await,
        Wire::H2c => http2(tcp, kind.does).await,
        Wire::Http1Tls => http1(handshake(connector, tcp).await?, kind.does).await,
        Wire::H2Tls => http2(handshake(connector, tcp).await?, kind.does).await,
    }
}

async fn handshake(connector: &TlsConnector, tcp: TcpStream) -> Result<TlsStream<TcpStream>> {
    Ok(connector.connect(ServerName::try_from(certificate::NAME)?, tcp).await?)
}

async fn http1(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    does: Does,
) -> Result<Box<dyn Any>> {
    let (path, more, until) = match does {
        Does::Wait => ("/1k", "", "xxxxxxxx"),
        Does::Ask => ("/held", "", ""),
        Does::Talk => (
            "/ws",
            "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "\r\n\r\n",
        ),
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: s00000.example.com\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut received = Vec::new();
    let least = if does == Does::Wait { 1024 } else { 0 };
    while !until.is_empty() && (received.len() < least || !received.ends_with(until.as_bytes())) {
        ensure!(stream.read_buf(&mut received).await? > 0, "closed: {}", String::from_utf8_lossy(&received));
    }
    ensure!(
        received.starts_with(b"HTTP/1.1 200") || received.starts_with(b"HTTP/1.1 101") || does == Does::Ask
    );
    Ok(Box::new(stream))
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    does: Does,
) -> Result<Box<dyn Any>> {
    let (send, connection) = h2::client::handshake(stream).await?;
    let running = Running(tokio::spawn(async move { connection.await.ok() }).abort_handle());
    let mut send = send.ready().await?;
    let path = if does == Does::Wait { "/1k" } else { "/held" };
    let request = Request::get(format!("http://s00000.example.com{path}")).body(())?;
    let (answer, _) = send.send_request(request, true)?;
    if does == Does::Ask {
        return Ok(Box::new((send, answer, running)));
    }
    let mut body = answer.await?.into_body();
    let mut length = 0;
    while let Some(part) = body.data().await {
        let part = part?;
        length += part.len();
        body.flow_control().release_capacity(part.len())?;
    }
    ensure!(length == 1024, "{length} bytes");
    Ok(Box::new((send, running)))
}

/// A connection's task, which ends with it.
struct Running(tokio::task::AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Table {
    pub(super) fn text(&self) -> String {
        let rows = self.rows.iter().map(|(kind, growth)| {
            let growth =
                growth.as_ref().map_or_else(|error| format!("{error:#}"), |bytes| format!("{bytes:.0}"));
            vec![kind.name.to_owned(), growth]
        });
        let head = format!(
            "## memory: resident bytes for each of {IDLE} idle, or {ACTIVE} active client connections\n\n"
        );
        head + &table(&["connection", "bytes"], rows)
    }
}
