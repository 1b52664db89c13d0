//! Disks that can be full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A disk of its own for a test; unmounted when dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` when nobody lets us mount one.
    pub fn at(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path).output();
        mount.ok().filter(|done| done.status.success()).map(|_| Self(path.to_owned()))
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        // It is meant to fail.
        let _ = fs::write(&ballast, vec![1; 4 << 20]);
        ballast
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}
