//! What the process takes from the machine: threads, file descriptors, and where its log goes.

use std::io::{self, IsTerminal};
use std::thread;

use anyhow::{Error, Result, bail};
use futures_util::future::OptionFuture;
use rustix::io::Errno;
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tracing::{Level, warn};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::diary;
use super::settings::most_connections;
use crate::control::Control;
use crate::control::health::Prober;
use crate::proxy::descriptors;

/// A proxy needs two descriptors a request: as many as the system lets it have.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit on open files stays where it is");
    }
}

/// Counts the descriptors that the process has for itself, all but so many that are `to_come`, and says so when what is left is too
/// little for as many clients as are `configured`.
///
/// # Errors
/// When nobody could.
pub(super) fn check_room(to_come: usize, configured: usize) -> Result<()> {
    descriptors::count_others(to_come);
    let most = most_connections();
    if most == 0 {
        bail!(
            "none of {} file descriptors is left for clients once the workers have theirs: raise the limit on open files (LimitNOFILE=, ulimit -n), or start fewer workers (--workers)",
            descriptors::limit().unwrap_or(0)
        );
    }
    if most < configured {
        warn!(
            accepted = most,
            configured,
            open_files = descriptors::limit(),
            "fewer clients than [limits] connections are accepted: raise the limit on open files (LimitNOFILE=, ulimit -n), or lower that"
        );
    }
    Ok(())
}

/// Why so many workers cannot be started, and what to do about it.
pub(super) fn no_workers(workers: usize, error: io::Error) -> Error {
    let hint = remedy(&error).map_or(String::new(), |hint| format!("; {hint}, or start fewer (--workers)"));
    Error::new(error).context(format!("cannot start {workers} workers{hint}"))
}

/// What to do about an error that says that the machine gives no more of something.
pub(super) fn remedy(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => Some("raise the limit on open files (LimitNOFILE=, ulimit -n)"),
        Errno::NFILE => Some("raise the machine's limit on open files (sysctl fs.file-max)"),
        Errno::AGAIN => Some("raise the limit on processes and threads (TasksMax=, pids.max, ulimit -u)"),
        Errno::NOMEM => Some("give it more memory"),
        _ => None,
    }
}

/// Logs to standard error until what is returned is dropped; `SWITCHBACK_LOG` sets the least level (`debug`, `info`, `warn`, `error`), `info` by default.
///
/// Of the libraries in use only errors, up to `info`: what they warn of is a client's doing, and each client could have a line
/// written for every frame.
///
/// # Errors
/// When there is no thread to be had.
pub(super) fn start_log() -> io::Result<diary::Open> {
    let open = diary::open()?;
    let wanted = std::env::var("SWITCHBACK_LOG").ok().filter(|level| !level.is_empty());
    let known = wanted.as_ref().and_then(|level| level.parse().ok());
    let level = known.unwrap_or(Level::INFO);
    let others = if level > Level::INFO { LevelFilter::from_level(level) } else { LevelFilter::ERROR };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(|| diary::Entry)
        // What cannot be written is the diary's to count; the library would write about that, and panic.
        .log_internal_errors(false)
        .with_target(false)
        .finish()
        .with(Targets::new().with_target(env!("CARGO_CRATE_NAME"), level).with_default(others))
        .init();
    if let (Some(wanted), None) = (wanted, known) {
        warn!(wanted, "SWITCHBACK_LOG is none of error, warn, info, debug and trace; info is taken");
    }
    Ok(open)
}

/// Control on a thread that does nothing else: a busy admin socket never delays a fence. The receiver says when it ended.
pub(super) fn on_own_thread(mut control: Control) -> Result<(oneshot::Sender<()>, oneshot::Receiver<()>)> {
    let (stop, stopped) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("control".to_owned()).spawn(move || {
        // Dropped with the thread, also when it panics.
        let _end = end;
        let prober = control.prober();
        runtime.block_on(LocalSet::new().run_until(async {
            // Beside control, not within it: what a look at an endpoint wakes is not control.
            let probing = spawn_local(async { OptionFuture::from(prober.map(Prober::run)).await });
            tokio::select! {
                () = control.run(async { drop(stopped.await) }) => {}
                _ = probing => {}
            }
        }));
    })?;
    Ok((stop, ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_does_not_give_is_told_with_who_does() {
        let said = |errno: Errno| remedy(&errno.into()).unwrap_or_default();
        assert!(said(Errno::MFILE).contains("LimitNOFILE") && said(Errno::NFILE).contains("fs.file-max"));
        assert!(said(Errno::AGAIN).contains("TasksMax"));
        assert_eq!(remedy(&Errno::NOENT.into()), None);
    }
}
