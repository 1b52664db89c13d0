//! The signals that are taken.

use std::io;

use futures_util::FutureExt as _;
use rustix::process;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// Has a write fail that would make a file larger than it may be (`ulimit -f`, LimitFSIZE=), as one to a full disk does: by itself
/// the signal ends the process. It is taken and not ignored: what a program ignores those that it starts ignore too (execve(2)).
///
/// # Errors
/// When it cannot be taken.
pub(super) fn outlive_full_files() -> io::Result<()> {
    // Taken until the process ends, whoever listens.
    signal(SignalKind::from_raw(libc::SIGXFSZ)).map(drop)
}

/// All of them.
pub(super) struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// Takes them from now on.
    pub(super) fn take() -> anyhow::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one. Cancel-safe.
    pub(super) async fn next(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.hang_up.recv() => return Asked::Reload,
                _ = self.user1.recv() => return Asked::Reopen,
                _ = self.terminate.recv() => return Asked::Stop,
                _ = self.interrupt.recv() => return Asked::Stop,
                _ = self.quit.recv() => return Asked::Stop,
                // Other proxies do something by it: it must not end this one with all that is in flight.
                _ = self.user2.recv() => warn!("SIGUSR2 asks for nothing here; `switchback upgrade` is how another program takes over"),
            }
        }
    }

    /// Those that have come and wait still, for the process that has taken over.
    pub(super) fn unheard(&mut self) -> impl Iterator<Item = process::Signal> {
        let waits = |signal: &mut Signal| signal.recv().now_or_never().is_some();
        let hang_up = waits(&mut self.hang_up).then_some(process::Signal::HUP);
        let user1 = waits(&mut self.user1).then_some(process::Signal::USR1);
        hang_up.into_iter().chain(user1)
    }

    /// The next one that says stop; the others wait. Cancel-safe.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// The log is to be opened anew, and the configuration read again.
    Reload,
    /// The log is to be opened anew: its file has been moved away.
    Reopen,
    /// It is to end.
    Stop,
}
