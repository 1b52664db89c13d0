//! On which CPUs the workers run, and so how many they are.

use std::fmt::Write as _;
use std::thread;

use anyhow::{Result, bail};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::config::CpuAffinity;

/// How many workers there are, and which CPU each of them stays on: they take these in turn; none, and they stay nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cores {
    pub(super) workers: usize,
    cpus: Vec<usize>,
}

impl Cores {
    /// As many workers as asked for, or else as there are CPUs for them: of the list, or as many as may run at a time by the
    /// process's affinity mask and its control group's quota.
    ///
    /// # Errors
    /// When the process may not run on one of the list, or pin a thread at all.
    pub(super) fn of(wanted: &CpuAffinity, workers: Option<usize>) -> Result<Self> {
        let at_a_time = || thread::available_parallelism().map_or(1, usize::from);
        let cpus = match wanted {
            CpuAffinity::Off => Vec::new(),
            CpuAffinity::Auto => allowed()?,
            CpuAffinity::Cpus(cpus) => {
                among(cpus, &allowed()?)?;
                cpus.clone()
            }
        };
        let workers = workers.unwrap_or_else(|| match wanted {
            CpuAffinity::Off | CpuAffinity::Auto => at_a_time(),
            CpuAffinity::Cpus(cpus) => cpus.len(),
        });
        Ok(Self { workers, cpus })
    }

    /// Each worker's CPU; nothing when they are not pinned.
    pub(super) fn pins(&self) -> Vec<usize> {
        self.cpus.iter().copied().cycle().take(self.workers).collect()
    }
}

/// The CPUs that this process may run on, lowest first.
fn allowed() -> Result<Vec<usize>> {
    let own = sched_getaffinity(None)?;
    // What a worker will do, done here to nobody's harm: a sandbox may forbid it.
    if let Err(error) = sched_setaffinity(None, &own) {
        let what =
            if error == Errno::PERM { "this process may not pin its threads" } else { "cannot pin a thread" };
        bail!(
            "{what}: {error}; leave proxy.cpu_affinity and --cpu-affinity out, or allow sched_setaffinity(2)"
        );
    }
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| own.is_set(*cpu)).collect())
}

fn among(cpus: &[usize], allowed: &[usize]) -> Result<()> {
    let strange: Vec<_> = cpus.iter().copied().filter(|cpu| !allowed.contains(cpu)).collect();
    if strange.is_empty() {
        return Ok(());
    }
    bail!(
        "cannot pin workers to CPU {}: this process may run on CPU {} only (of those that exist; taskset and cpusets allow \
         fewer); name some of these in proxy.cpu_affinity or --cpu-affinity",
        listed(&strange),
        listed(allowed)
    );
}

/// `0-3,8`, of ascending numbers.
fn listed(cpus: &[usize]) -> String {
    let mut text = String::new();
    for run in cpus.chunk_by(|a, b| *b == a + 1) {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to text does not fail.
        let _ = match run {
            [first, .., last] => write!(text, "{comma}{first}-{last}"),
            [one] => write!(text, "{comma}{one}"),
            [] => Ok(()),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_listed_as_taskset_does() {
        assert_eq!(listed(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
        assert_eq!(listed(&[7]), "7");
    }

    #[test]
    fn workers_take_the_cpus_in_turn() {
        let cores = Cores { workers: 5, cpus: vec![2, 0] };
        assert_eq!(cores.pins(), [2, 0, 2, 0, 2]);
        assert!(Cores { workers: 5, cpus: vec![] }.pins().is_empty());
    }

    #[test]
    fn who_is_not_allowed_is_told_who_is() {
        let why = among(&[0, 9, 1], &[0, 1, 2, 4]).unwrap_err().to_string();
        assert!(
            why.starts_with("cannot pin workers to CPU 9: this process may run on CPU 0-2,4 only"),
            "{why}"
        );
        assert!(among(&[4, 0], &[0, 1, 2, 4]).is_ok());
    }
}
