//! What the commands take that are about the process itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::words::duration;

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file [./switchback.toml, then /etc/switchback/switchback.toml].
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Worker threads [one a CPU].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
}

/// `upgrade`.
#[derive(Debug, Args)]
pub struct Upgrade {
    /// The program [the one that runs, as it is installed now].
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// How long it may take until it is ready: 500ms, 30s, 5m.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
}

/// What a process is started as that gets listening sockets: it says which process it is, and becomes the program.
#[derive(Debug, Args)]
pub struct Become {
    /// The program and its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<std::ffi::OsString>,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
