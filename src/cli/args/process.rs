//! What the commands take that are about the process itself.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::words::duration;
use crate::config::CpuAffinity;

/// `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file [./switchback.toml, then /etc/switchback/switchback.toml].
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Worker threads [as many as may run at a time, by the CPU affinity mask and the control group's quota].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Which CPU each worker stays on: auto, off, or a list such as 0,1 or 0-3 [proxy.cpu_affinity of the file].
    #[arg(long, value_name = "CPUS")]
    pub cpu_affinity: Option<CpuAffinity>,
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

/// `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Manual {
    /// Write a page for each command into this folder, `switchback-flip.1` and so on [print switchback(1)].
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
