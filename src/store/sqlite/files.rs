//! The files that were opened are still those that the next start will find, and nobody else has written to them: SQLite itself
//! writes on into a file that was deleted, replaced or cut short, and what it says is durable would be gone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::StoreError;

/// The store's files by name, each as it was left; `None` was not there.
#[derive(Debug)]
pub(super) struct Files([(PathBuf, Option<Look>); 2]);

/// What tells a file, and what is in it, from another: without opening it, for a process that closes a file has given up
/// SQLite's locks on it (sqlite.org/howtocorrupt.html, §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    /// When it was last written to: seconds, nanoseconds.
    written: (i64, i64),
}

impl Files {
    /// The database at `path` and its log, which must be open, and nobody else's.
    pub(super) fn of(path: &Path) -> Self {
        Self([path.to_owned(), log_of(path)].map(|path| (path.clone(), Look::at(&path))))
    }

    /// Takes for ours what was written just now.
    pub(super) fn look(&mut self) {
        for (path, left) in &mut self.0 {
            if let (Some(now), Some(left)) = (Look::at(path), left)
                && now.is_of_same_file(*left)
            {
                *left = now;
            }
        }
    }

    /// # Errors
    /// [`StoreError::Io`] names the file that is no longer as it was left. Costs two system calls.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.0.iter().try_for_each(|(path, left)| {
            let (now, path) = (Look::at(path), path.display());
            let lost = match (left, now) {
                (_, None) => format!(
                    "{path} is gone: put it back, or move the rest of the store away too and restart, to begin with the weights of the file"
                ),
                (Some(left), Some(now)) if now == *left => return Ok(()),
                (Some(left), Some(now)) if now.is_of_same_file(*left) => {
                    format!("another program has written to {path}: restart, to begin from what is there")
                }
                (_, Some(_)) => format!(
                    "another file stands in the place of {path}: put the one of before back, or restart, to begin from what is there"
                ),
            };
            Err(StoreError::Io(lost))
        })
    }
}

impl Look {
    fn at(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.len(),
            written: (file.mtime(), file.mtime_nsec()),
        })
    }

    fn is_of_same_file(self, other: Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The log of the database at `path`.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}
