//! What the process was started with: sockets that a service manager, or the process before this one, has bound for it.
//!
//! Both use the same protocol (sd_listen_fds(3)). A process that is to take another's place gets some more descriptors, which
//! do not listen: a line to its predecessor, the log, and lines to older processes that still have work.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};

use super::talk::{Hello, PROTOCOL, Told};
use crate::proxy::inherited::{Inherited, Keeper};
use crate::proxy::listener::ListenAddr;

/// The line to the process whose place is taken.
pub(super) const LINE: &str = "switchback.line";
/// Where it logs to.
pub(super) const LOG: &str = "switchback.log";
/// The line to an older process that still has work.
pub(super) const ELDER: &str = "switchback.elder";
/// A service manager's socket for the admin API.
pub(super) const ADMIN: &str = "admin";
/// A service manager's socket for the admin API over TCP.
pub(super) const ADMIN_TCP: &str = "admin_tcp";
/// A service manager's socket for the metrics.
pub(super) const METRICS: &str = "metrics";

/// How long the predecessor may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the process was started with.
#[derive(Default)]
pub(super) struct Started {
    /// Listening sockets.
    pub(super) sockets: Inherited,
    /// Whose place it takes, if anybody's.
    pub(super) predecessor: Option<Predecessor>,
}

/// The process whose place this one takes.
pub(super) struct Predecessor {
    /// What it said first.
    pub(super) hello: Hello,
    /// The line to it.
    pub(super) line: UnixStream,
    /// Where it logs to; until this process is ready its own log goes through the predecessor, which keeps the last words.
    pub(super) log: Option<OwnedFd>,
    /// Lines to older processes that still have work, in the order of [`Hello::elders`].
    pub(super) elders: Vec<UnixStream>,
}

impl Predecessor {
    /// Says why this process cannot take its place. Best effort: it sees that this one ends.
    pub(super) fn fail(line: &UnixStream, reason: String) {
        if let Ok(mut text) = serde_json::to_vec(&Told::Failed { reason }) {
            text.push(b'\n');
            drop((&mut &*line).write_all(&text));
        }
    }
}

/// The word that a process is started with which gets listening sockets: it says which process it is, and becomes the program
/// that follows. No command of an operator's.
pub(super) const BECOME: &str = "become-successor";

/// The program and its arguments, when `words` are those of such a process.
pub(in crate::cli) fn program_to_become(words: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let mut words = words.skip(1);
    (words.next()? == BECOME).then(|| words.collect())
}

/// Becomes `command`, with the process's number as those want it whose listening sockets come with it.
///
/// # Errors
/// When the program cannot be started; else it does not return.
pub(in crate::cli) fn become_program(command: &[OsString]) -> Result<Infallible> {
    let (program, arguments) = command.split_first().context("no program")?;
    let pid = std::process::id().to_string();
    let mut command = Command::new(program);
    command.args(arguments).env("LISTEN_PID", &pid);
    if std::env::var_os("WATCHDOG_PID").is_some() {
        command.env("WATCHDOG_PID", pid);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", Path::new(program).display()))
}

/// Takes what came with the process; to be called once, before anything is opened.
///
/// # Errors
/// When the environment promises what is not there, or something else than listening sockets.
pub(super) fn take() -> Result<Started> {
    check()?;
    let given = sd_listen_fds::get().context("LISTEN_PID and LISTEN_FDS are not as sd_listen_fds(3) says")?;
    let mut sockets = Vec::new();
    let (mut line, mut log, mut elders) = (None, None, Vec::new());
    for (name, fd) in given {
        let (name, fd) = (name.unwrap_or_default(), fd.into_std());
        fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        match name.as_str() {
            LINE => line = Some(UnixStream::from(fd)),
            LOG => log = Some(fd),
            ELDER => elders.push(UnixStream::from(fd)),
            _ => sockets.push((name, fd)),
        }
    }
    let predecessor = line.map(|line| {
        let hello = hello(&line).context("the process before this one does not say who it is")?;
        anyhow::Ok(Predecessor { hello, line, log, elders })
    });
    let predecessor = predecessor.transpose()?;
    let kept = |name: &str| {
        predecessor.as_ref().is_none_or(|before| before.hello.kept.iter().any(|kept| kept == name))
    };
    let sockets = Inherited::of(sockets, |name| if kept(name) { Keeper::Giver } else { Keeper::Us })?;
    Ok(Started { sockets, predecessor })
}

/// Descriptors are taken by their numbers: all of them have to be there.
fn check() -> Result<()> {
    let ours = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let count =
        std::env::var("LISTEN_FDS").ok().filter(|_| ours).and_then(|count| count.parse().ok()).unwrap_or(0);
    for number in (3..).take(count) {
        if fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_err() {
            bail!("LISTEN_FDS promises {count} descriptors from 3 on, and {number} is not open");
        }
    }
    Ok(())
}

fn hello(line: &UnixStream) -> Result<Hello> {
    line.set_read_timeout(Some(PATIENCE))?;
    // One byte at a time: what comes behind the line is not for here. It is short.
    let mut text = String::new();
    BufReader::with_capacity(1, line).read_line(&mut text)?;
    line.set_read_timeout(None)?;
    match serde_json::from_str(&text)? {
        Told::Hello(hello) if hello.protocol == PROTOCOL => Ok(hello),
        Told::Hello(hello) => {
            bail!("it speaks protocol {}, and this program {PROTOCOL}: restart instead", hello.protocol)
        }
        other => bail!("it says {other:?} first"),
    }
}

/// Everything that came with the process and that nobody wants.
///
/// # Errors
/// Names the first, when it came from a service manager: it would take connections that nobody serves.
pub(super) fn all_taken(sockets: &Inherited, is_upgrade: bool) -> Result<()> {
    let Some(given) = sockets.rest().next().filter(|_| !is_upgrade) else { return Ok(()) };
    let (name, address) = (&given.name, &given.address);
    let hint = match address {
        ListenAddr::Tcp(tcp) => format!("listen = \"{tcp}\" for one of [[listeners]], [metrics] or [admin]"),
        ListenAddr::Unix(_) => format!("listen = \"{address}\" for one of [[listeners]], or [admin] socket"),
    };
    bail!(
        "no listener is configured for the inherited socket `{name}` ({address}); set {hint}, name it `{ADMIN}`, `{ADMIN_TCP}` or `{METRICS}` if it is for those, or take it out of the service manager's unit"
    )
}
