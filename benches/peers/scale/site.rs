//! The proxy that a point of a curve is measured on.

use std::{env, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use super::flips::Admin;
use crate::{
    START_TIMEOUT,
    args::Args,
    certificate, client,
    process::{Process, Scratch, free_addresses},
};

/// What is run.
#[derive(Clone)]
pub(super) struct Plan {
    /// The services' part of the configuration.
    pub(super) services: String,
    /// How many hosts are asked for.
    pub(super) hosts: usize,
    pub(super) connections: u16,
    pub(super) workers: usize,
    /// The CPUs of the proxy, as `taskset` takes them.
    pub(super) cpus: String,
    /// Flips a second.
    pub(super) flips: u32,
    /// True for rounds that are long enough for flips.
    pub(super) is_long: bool,
}

/// A running proxy.
pub(super) struct Site {
    pub(super) process: Process,
    pub(super) listen: SocketAddr,
    pub(super) tls: SocketAddr,
    pub(super) socket: PathBuf,
    /// Where its certificate is.
    pub(super) dir: PathBuf,
}

impl Site {
    pub(super) fn start(plan: &Plan, args: &Args, scratch: &Scratch) -> Result<Self> {
        let dir = scratch.subdirectory("site-")?;
        certificate::write(&dir)?;
        let [listen, tls] = free_addresses()?;
        let text = format!(
            "[admin]\nsocket = \"{dir}/admin.sock\"\n[state]\ndir = \"{dir}/state\"\n\
             [limits]\nconnections_per_client = 0\nidle = \"10m\"\nhead = \"10m\"\nping = \"10m\"\n\
             [[listeners]]\nlisten = \"{listen}\"\n\
             [[listeners]]\nlisten = \"{tls}\"\n\
             tls = {{ certificates = [{{ cert = \"shop.pem\", key = \"shop.key\" }}] }}\n{services}",
            dir = dir.display(),
            services = plan.services
        );
        fs::write(dir.join("switchback.toml"), text)?;
        let program =
            env::var_os("SWITCHBACK_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_switchback").into());
        // The outer `taskset` knows one CPU only.
        let argv = vec![
            "taskset".into(),
            "--cpu-list".into(),
            plan.cpus.clone().into(),
            program,
            "run".into(),
            "--config".into(),
            dir.join("switchback.toml").into(),
            "--workers".into(),
            plan.workers.to_string().into(),
        ];
        let mut process =
            Process::start(&argv, args.cpus.proxy, dir.join("output")).context("did not start")?;
        let answers = || client::get(listen, "/1k").is_ok_and(|length| length == 1 << 10);
        process.wait_until(START_TIMEOUT, answers).context("did not serve")?;
        let socket = dir.join("admin.sock");
        Ok(Self { process, listen, tls, socket, dir })
    }

    /// CPU time so far: of the workers' threads, and of all.
    pub(super) fn cpu_time(&self) -> (Duration, Duration) {
        let tasks =
            fs::read_dir(format!("/proc/{}/task", self.process.pid())).into_iter().flatten().flatten();
        let (mut workers, mut all) = (Duration::ZERO, Duration::ZERO);
        for task in tasks {
            let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let ran = read("schedstat").split(' ').next().and_then(|ran| ran.parse().ok()).unwrap_or(0);
            let ran = Duration::from_nanos(ran);
            all += ran;
            if read("comm").starts_with("worker-") {
                workers += ran;
            }
        }
        (workers, all)
    }

    pub(super) fn epoch(&self) -> Result<u64> {
        let (_, status) = Admin::connect(&self.socket)?.call("GET", "/v1/status", "")?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        status["epoch"].as_u64().context("no epoch")
    }
}
