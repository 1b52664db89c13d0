//! The proxies: how each is configured and started.

mod caddy;
mod envoy;
mod h2o;
mod haproxy;
mod nginx;
mod pingora;
mod relay;
mod sozu;
mod switchback;
mod traefik;

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    START_TIMEOUT, certificate, client,
    origin::Origin,
    process::{Argv, Process, Scratch, find_program, free_addresses},
    scenario::{Load, MANY_SERVICES, Protocol, Targets, Upstream},
};
use haproxy::Haproxy;
use nginx::Nginx;
use switchback::Switchback;

/// A proxy that can be put between the load and the origin.
///
/// Another one needs a file with this trait, a name in [`NAMES`] and a line in [`all`].
pub(crate) trait Peer {
    /// As on the command line and in the tables.
    fn name(&self) -> &str;

    /// What it would need for this load and has not, if anything.
    fn lacks(&self, _: &Load) -> Option<&'static str> {
        None
    }

    /// The binary, when it is there.
    fn program(&self) -> Option<PathBuf>;

    /// What to do when the binary is not there.
    fn install_hint(&self) -> &'static str;

    /// Arguments that make it print its version.
    fn version_arguments(&self) -> &'static [&'static str];

    /// Writes what [`Peer::arguments`] refer to.
    fn configure(&self, place: &Place) -> io::Result<()>;

    /// Command line after the program; it stays in the foreground.
    fn arguments(&self, place: &Place) -> Argv;
}

/// Where a peer lives, and between whom.
pub(crate) struct Place {
    /// Its own directory.
    pub(crate) dir: PathBuf,
    /// HTTP/1.1 in clear text.
    pub(crate) listen: SocketAddr,
    /// HTTP/2 in clear text.
    pub(crate) h2c: SocketAddr,
    /// Both under TLS, with the certificate in `shop.pem`, `shop.key` and `shop.both`.
    pub(crate) tls: SocketAddr,
    pub(crate) origin: SocketAddr,
    /// In its place, to be chosen from by what is in flight; empty where there is nothing to choose.
    pub(crate) pool: Vec<SocketAddr>,
    /// What the origin speaks.
    pub(crate) speaks: Upstream,
}

/// What a peer stands before.
pub(crate) struct Servers {
    origin: SocketAddr,
    pool: Vec<SocketAddr>,
    speaks: Upstream,
}

impl Servers {
    /// The origin as most loads need it.
    pub(crate) fn plain(origin: &Origin) -> Self {
        Self { origin: origin.address, pool: Vec::new(), speaks: Upstream::Http1 }
    }

    /// What this load is for.
    pub(crate) fn of(origin: &Origin, load: &Load) -> Self {
        let plain = Self::plain(origin);
        match (load.targets, load.upstream) {
            (Targets::Balancers, _) => Self { pool: origin.pool.clone(), ..plain },
            (_, Upstream::Grpc) => Self { origin: origin.grpc, speaks: Upstream::Grpc, ..plain },
            _ => plain,
        }
    }
}

/// What all of this is about.
pub(crate) const SWITCHBACK: &str = Switchback::NAME;

/// The relay, which is no proxy.
pub(crate) const RELAY: &str = relay::NAME;

/// The names of [`all`].
pub(crate) const NAMES: [&str; 10] = [
    Switchback::NAME,
    nginx::NAME,
    haproxy::NAME,
    h2o::NAME,
    envoy::NAME,
    traefik::NAME,
    caddy::NAME,
    sozu::NAME,
    pingora::NAME,
    RELAY,
];

/// Those that need no installing.
pub(crate) const OURS: [&str; 2] = [Switchback::NAME, RELAY];

/// Every peer, in the order of the tables. The first is the one that the others are compared with.
pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(Switchback::with_services(1)),
        Box::new(Nginx),
        Box::new(Haproxy),
        Box::new(h2o::H2o),
        Box::new(envoy::Envoy),
        Box::new(traefik::Traefik),
        Box::new(caddy::Caddy),
        Box::new(sozu::Sozu),
        Box::new(pingora::Pingora),
        Box::new(relay::Relay),
    ]
}

/// switchback by what it has measured, beside itself by what is in flight.
pub(crate) fn switchback_by_ewma() -> Box<dyn Peer> {
    Box::new(Switchback::by("ewma"))
}

/// switchback with one service and with many; the first is the one that the other is compared with.
pub(crate) fn switchback_sizes() -> Vec<Box<dyn Peer>> {
    [1, MANY_SERVICES].map(|services| Box::new(Switchback::with_services(services)) as Box<dyn Peer>).into()
}

/// A peer that serves.
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) listen: SocketAddr,
    h2c: SocketAddr,
    pub(crate) tls: SocketAddr,
}

impl Running {
    /// Where it takes this load.
    pub(crate) fn address(&self, load: &Load) -> SocketAddr {
        match load.protocol {
            _ if load.tls => self.tls,
            Protocol::Http1 | Protocol::WebSocket => self.listen,
            Protocol::Http2 { .. } => self.h2c,
        }
    }
}

/// Starts a peer on this CPU, behind `wrapper` when that is not empty, and waits for its first answer.
///
/// # Errors
/// When it is not installed, with what to do about it; when it ends or does not answer, with its last lines.
pub(crate) fn start(
    peer: &dyn Peer,
    servers: &Servers,
    cpu: usize,
    scratch: &Scratch,
    wrapper: Argv,
) -> Result<Running> {
    let program = program(peer)?;
    let dir = scratch.subdirectory("peer-")?;
    certificate::write(&dir)?;
    let [listen, h2c, tls] = free_addresses()?;
    let Servers { origin, ref pool, speaks } = *servers;
    let place = Place { dir, listen, h2c, tls, origin, pool: pool.clone(), speaks };
    peer.configure(&place)?;
    let mut argv = wrapper;
    argv.push(program.into());
    argv.extend(peer.arguments(&place));
    let mut process = Process::start(&argv, cpu, place.dir.join("output")).context("did not start")?;
    let answers = || match speaks {
        Upstream::Http1 => client::get(place.listen, "/1k").is_ok_and(|length| length == 1 << 10),
        // The client that asks knows nothing of gRPC; calls that fail later fail the round.
        Upstream::Grpc => TcpStream::connect(place.h2c).is_ok(),
    };
    process.wait_until(START_TIMEOUT, answers).context("did not serve")?;
    Ok(Running { process, listen: place.listen, h2c: place.h2c, tls: place.tls })
}

/// The version a peer prints; empty when it prints none.
pub(crate) fn version(peer: &dyn Peer) -> Result<String> {
    let output = Command::new(program(peer)?).args(peer.version_arguments()).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let words = text.split(|c: char| c.is_whitespace() || c == '/');
    let mut words = words.map(|word| word.trim_start_matches('v'));
    let version = words.find(|word| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit()));
    Ok(version.unwrap_or_default().to_owned())
}

fn program(peer: &dyn Peer) -> Result<PathBuf> {
    let Some(program) = peer.program() else { bail!("not installed: {}", peer.install_hint()) };
    Ok(program)
}

fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    fs::write(dir.join(name), text)
}
