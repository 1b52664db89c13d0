//! Child processes: started on one CPU, measured through `/proc`, ended when dropped.

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    fs::{self, File, Permissions},
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A program with its arguments.
pub(crate) type Argv = Vec<OsString>;

/// One running process, with the workers that it started.
///
/// Dropping it ends all of them. When the benchmark itself is killed, the kernel sends them SIGTERM (`setpriv`).
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `argv` on this CPU; both its output streams go to `log`.
    pub(crate) fn start(argv: &Argv, cpu: usize, log: PathBuf) -> Result<Self> {
        let output = File::create(&log)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "--cpu-list", &cpu.to_string()])
            .args(argv)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start `setpriv`")?;
        Ok(Self { child, log })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` is true.
    ///
    /// # Errors
    /// When the process ends first, or is not ready in time: with the end of its output.
    pub(crate) fn wait_until(&mut self, within: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended with {status}: {}", self.last_words());
            }
            if ready() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("no answer within {} s: {}", within.as_secs(), self.last_words());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the process to end by itself. False when it is still running after this time.
    pub(crate) fn wait_for_end(&mut self, within: Duration) -> Result<bool> {
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }

    /// Run time on a CPU so far, of all threads and of child processes.
    ///
    /// A thread that ended is no longer in it.
    pub(crate) fn cpu_time(&self) -> Duration {
        let threads = self.family().into_iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")));
        threads
            .flatten()
            .flatten()
            .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse().ok())
            .map(Duration::from_nanos)
            .sum()
    }

    /// Resident memory in bytes, child processes included.
    pub(crate) fn resident(&self) -> u64 {
        let sizes = self.family().into_iter().filter_map(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        });
        sizes.sum::<u64>() * 1024
    }

    /// Open file descriptors, child processes included.
    pub(crate) fn open_files(&self) -> usize {
        let counts = self
            .family()
            .into_iter()
            .filter_map(|pid| Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()));
        counts.sum()
    }

    /// Asks the process to end (SIGTERM), and after this time ends it and its workers (SIGKILL).
    pub(crate) fn stop(&mut self, within: Duration) {
        let family = self.family();
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // A process that has just ended by itself needs no signal.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        if matches!(self.wait_for_end(within), Ok(true)) {
            return;
        }
        for pid in family.into_iter().rev().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// The process and its descendants; itself first.
    fn family(&self) -> Vec<i32> {
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for (pid, parent) in all_processes() {
            children.entry(parent).or_default().push(pid);
        }
        let mut family = vec![Pid::from_child(&self.child).as_raw_nonzero().get()];
        let mut next = 0;
        while let Some(pid) = family.get(next) {
            family.extend(children.remove(pid).unwrap_or_default());
            next += 1;
        }
        family
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            "it printed nothing".to_owned()
        } else {
            lines[lines.len().saturating_sub(3)..].join("; ")
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(3));
    }
}

/// Every process of this machine with its parent.
fn all_processes() -> impl Iterator<Item = (i32, i32)> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // The name in brackets may hold anything: what follows its last bracket is `state parent ...`.
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent))
    })
}

/// The directory of one run: configurations, logs, sockets. Deleted when dropped.
pub(crate) struct Scratch {
    dir: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Result<Self> {
        let dir = TempDir::with_prefix("peers-")?;
        // A proxy started by root runs its workers as somebody else; they have to reach their directories.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        Ok(Self { dir })
    }

    /// A new directory; the name is a prefix.
    pub(crate) fn subdirectory(&self, name: &str) -> io::Result<PathBuf> {
        let path = tempfile::Builder::new().prefix(name).tempdir_in(self.dir.path())?.keep();
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        Ok(path)
    }
}

/// Addresses on loopback that nobody listens on, each another one: all are held until the last is found.
pub(crate) fn free_addresses<const COUNT: usize>() -> io::Result<[SocketAddr; COUNT]> {
    let held = [(); COUNT].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); COUNT];
    for (address, listener) in addresses.iter_mut().zip(&held) {
        *address = listener.as_ref().map_err(|error| error.kind())?.local_addr()?;
    }
    Ok(addresses)
}

/// Finds a program where `benches/install` puts it, else as a shell would, and in the directories of system programs, which
/// a user's `PATH` may lack.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    installed()
        .into_iter()
        .chain(env::split_paths(&path))
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|file| is_program(file))
}

/// As in `benches/install`.
fn installed() -> Option<PathBuf> {
    let directory = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || directory("XDG_CACHE_HOME").or_else(|| Some(directory("HOME")?.join(".cache")));
    let peers = directory("PEERS_DIR").or_else(|| Some(cache()?.join("switchback-peers")));
    Some(peers?.join("bin"))
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}
