//! The proxies: how each is configured and started.

mod haproxy;
mod nginx;
mod relay;
mod switchback;

use std::{fs, io, net::SocketAddr, path::Path, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};

use crate::{
    START_TIMEOUT, certificate, client,
    process::{Argv, Process, Scratch, find_program, free_address},
    scenario::{Load, MANY_SERVICES, Protocol},
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
}

/// The relay, which is no proxy.
pub(crate) const RELAY: &str = relay::NAME;

/// The names of [`all`].
pub(crate) const NAMES: [&str; 4] = [Switchback::NAME, nginx::NAME, haproxy::NAME, RELAY];

/// Every peer, in the order of the tables. The first is the one that the others are compared with.
pub(crate) fn all() -> Vec<Box<dyn Peer>> {
    vec![Box::new(Switchback::with_services(1)), Box::new(Nginx), Box::new(Haproxy), Box::new(relay::Relay)]
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
            Protocol::Http1 => self.listen,
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
    origin: SocketAddr,
    pool: &[SocketAddr],
    cpu: usize,
    scratch: &Scratch,
    wrapper: Argv,
) -> Result<Running> {
    let program = program(peer)?;
    let dir = scratch.subdirectory("peer-")?;
    certificate::write(&dir)?;
    let [listen, h2c, tls] = [free_address()?, free_address()?, free_address()?];
    let place = Place { dir, listen, h2c, tls, origin, pool: pool.to_vec() };
    peer.configure(&place)?;
    let mut argv = wrapper;
    argv.push(program.into());
    argv.extend(peer.arguments(&place));
    let mut process = Process::start(&argv, cpu, place.dir.join("output")).context("did not start")?;
    let answers = || client::get(place.listen, "/1k").is_ok_and(|length| length == 1 << 10);
    process.wait_until(START_TIMEOUT, answers).context("did not serve")?;
    Ok(Running { process, listen: place.listen, h2c: place.h2c, tls: place.tls })
}

/// The version a peer prints; empty when it prints none.
pub(crate) fn version(peer: &dyn Peer) -> Result<String> {
    let output = Command::new(program(peer)?).args(peer.version_arguments()).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let mut words = text.split(|c: char| c.is_whitespace() || c == '/');
    let version = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Ok(version.unwrap_or_default().to_owned())
}

fn program(peer: &dyn Peer) -> Result<PathBuf> {
    let Some(program) = peer.program() else { bail!("not installed: {}", peer.install_hint()) };
    Ok(program)
}

fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    fs::write(dir.join(name), text)
}
