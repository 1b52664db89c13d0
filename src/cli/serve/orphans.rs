//! Older processes that nobody has a line to: the one that took over from them is gone, and another was started.
//!
//! A process that has handed over may have work for an hour. Before it gives the store away it takes a lock in the state
//! directory, which the kernel takes back in any case. Whoever starts, and finds one held by a process that it was not told of,
//! knows that there is work that it can't see: nothing is called drained until the lock is free. The lock's file says whether
//! that process may still begin something, by the table of its time: no change is acknowledged until it is empty.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::warn;

use super::talk::Older;
use crate::control::Handle;
use crate::control::elders::Elder;

const PREFIX: &str = "older-";
const SUFFIX: &str = ".lock";
/// Between two looks at whether one has ended.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks while somebody may wait for what is seen.
const SOON: Duration = Duration::from_millis(20);
/// What the file of one says that may still begin something. To take it away needs no room on the disk.
const BEGINS: &[u8] = b"begins\n";

/// By this it is known that this process is an older one; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Trace {
    path: PathBuf,
    file: File,
}

/// This process may be an older one from now on.
///
/// # Errors
/// When there is no lock to be had: then it is not known to who is started after a crash of its successor.
pub(super) fn enter(dir: &Path) -> io::Result<Trace> {
    let path = dir.join(format!("{PREFIX}{}{SUFFIX}", std::process::id()));
    let mut file = File::create(&path)?;
    if let Err(error) = file.write_all(BEGINS) {
        // The lock needs no room; and by what comes of a crash this process begins nothing more, a moment later.
        warn!(%error, "should the new process crash, who comes after it does not wait until this one begins nothing more");
    }
    file.try_lock().map_err(io::Error::from)?;
    Ok(Trace { path, file })
}

impl Trace {
    /// It begins nothing more.
    ///
    /// # Errors
    /// When that cannot be told.
    pub(super) fn quiet(&self) -> io::Result<()> {
        self.file.set_len(0)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // One that stays is free, and wiped away by the next who looks.
        let _ = fs::remove_file(&self.path);
    }
}

/// Counts those in that are none of the `known`, until each has ended.
pub(super) fn meet(dir: &Path, known: &[Older], handle: &Handle) {
    let is_known = |pid: u32| known.iter().any(|older| older.pid == pid);
    for (pid, path) in traces(dir) {
        if !is_known(pid) && is_held(&path) {
            warn!(
                pid,
                "an older process has work that this one cannot see: nothing is drained before it ends"
            );
            handle.elders().set(mute(pid, is_quiet(&path)));
            spawn_local(see_out(pid, path, handle.clone()));
        }
    }
}

/// One of which nothing is known but that it is there, and whether it may begin something.
fn mute(pid: u32, is_quiet: bool) -> Elder {
    Elder { pid, generation: None, program: None, is_quiet, told: None }
}

async fn see_out(pid: u32, path: PathBuf, handle: Handle) {
    while is_held(&path) {
        let is_quiet = is_quiet(&path);
        handle.elders().set(mute(pid, is_quiet));
        sleep(if is_quiet { LOOK } else { SOON }).await;
    }
    handle.elders().remove(pid);
}

fn traces(dir: &Path) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let pid = |name: &str| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok();
    entries.filter_map(|entry| Some((pid(entry.file_name().to_str()?)?, entry.path()))).collect()
}

/// True when its process begins nothing more.
fn is_quiet(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() == 0)
}

/// True while its process lives; the trace of one that does not is wiped away.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => true,
        Ok(()) | Err(TryLockError::Error(_)) => {
            let _ = fs::remove_file(path);
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_there_for_as_long_as_its_process() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("older-x.lock"), "").unwrap();
        fs::write(dir.path().join("older-7.lock"), "").unwrap();
        let trace = enter(dir.path()).unwrap();
        let mut found: Vec<_> = traces(dir.path());
        found.sort();
        let held: Vec<_> = found.iter().map(|(pid, path)| (*pid, is_held(path))).collect();
        let mut expected = vec![(7, false), (std::process::id(), true)];
        expected.sort_unstable();
        assert_eq!(held, expected);
        assert_eq!(traces(dir.path()).len(), 1, "the dead one's is gone");
        assert!(!is_quiet(&trace.path));
        trace.quiet().unwrap();
        assert!(is_quiet(&trace.path) && is_held(&trace.path));
        drop(trace);
        assert_eq!(traces(dir.path()), [], "it goes on as before");
    }
}
