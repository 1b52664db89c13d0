//! What the process takes from the machine: processors, file descriptors, and where its log goes.

use std::io::IsTerminal;
use std::thread;

use tracing::warn;

/// How many threads run at the same time.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A proxy needs two descriptors a request: as many as the system lets it have.
pub(super) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit on open files stays where it is");
    }
}

/// Logs to standard error; `SWITCHBACK_LOG` sets the least level (`debug`, `info`, `warn`, `error`), `info` by default.
pub(super) fn start_log() {
    let level = std::env::var("SWITCHBACK_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(tracing::Level::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}
