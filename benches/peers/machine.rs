//! How much of a CPU the rest of the machine took away during a round.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::process::Process;

/// A round counts only when other processes used less of the proxy's CPU than this.
pub(crate) const MOST_OTHERS: f64 = 0.08;
/// A round counts only when the hypervisor gave less of the proxy's CPU to other guests than this.
pub(crate) const MOST_STEAL: f64 = 0.05;

/// Taken at the start of a round.
pub(crate) struct Watch {
    cpu: usize,
    began: Instant,
    proxy: Duration,
    ticks: Ticks,
}

/// What became of the proxy's CPU between the start and the end of a round.
pub(crate) struct Usage {
    /// CPU time of the proxy.
    pub(crate) proxy: Duration,
    /// The proxy's share of its CPU; 1 when saturated.
    pub(crate) busy: f64,
    /// The share of everybody else.
    pub(crate) others: f64,
    /// The share taken by the hypervisor.
    pub(crate) steal: f64,
}

impl Watch {
    pub(crate) fn start(cpu: usize, proxy: &Process) -> Result<Self> {
        Ok(Self { cpu, ticks: Ticks::read(cpu)?, proxy: proxy.cpu_time(), began: Instant::now() })
    }

    pub(crate) fn stop(self, proxy: &Process) -> Result<Usage> {
        let wall = self.began.elapsed();
        let used = proxy.cpu_time().saturating_sub(self.proxy);
        let ticks = Ticks::read(self.cpu)?;
        let total = (ticks.total - self.ticks.total).max(1) as f64;
        let busy = used.as_secs_f64() / wall.as_secs_f64();
        let all = (ticks.busy - self.ticks.busy) as f64 / total;
        let steal = (ticks.steal - self.ticks.steal) as f64 / total;
        Ok(Usage { proxy: used, busy, others: (all - busy).max(0.0), steal })
    }
}

/// One CPU's line of `/proc/stat`. In ticks of unknown length: only ratios are used.
struct Ticks {
    busy: u64,
    steal: u64,
    total: u64,
}

impl Ticks {
    fn read(cpu: usize) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let name = format!("cpu{cpu}");
        let line =
            stat.lines().map(str::split_ascii_whitespace).find(|line| line.clone().next() == Some(&name));
        let line = line.with_context(|| format!("this machine has no CPU {cpu}"))?;
        let ticks: Vec<u64> = line.skip(1).map_while(|field| field.parse().ok()).collect();
        let &[user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks.as_slice() else {
            anyhow::bail!("/proc/stat has fewer fields than expected: {}", ticks.len());
        };
        let busy = user + nice + system + irq + softirq;
        Ok(Self { busy, steal, total: busy + idle + iowait + steal })
    }
}

/// Model and number of CPUs, and the kernel: for the head of a report.
pub(crate) fn describe() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cpus} × {model}, Linux {}", kernel.trim())
}
