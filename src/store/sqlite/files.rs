//! The files that were opened are still those that the next start will find: SQLite itself writes on into a file that
//! was deleted or replaced, and what it says is durable would be gone.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::StoreError;

/// The store's files by name, each as it was when it was opened: (device, inode); `None` is not looked at.
#[derive(Debug)]
pub(super) struct Files(Vec<(PathBuf, Option<(u64, u64)>)>);

impl Files {
    /// The database at `path` and its log, which must be open.
    pub(super) fn of(path: &Path) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Self([path.to_owned(), log.into()].map(|path| (path.clone(), identity(&path))).into())
    }

    /// # Errors
    /// [`StoreError::Io`] names the file that is no longer there. Costs two system calls.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let lost = self.0.iter().find(|(path, opened)| opened.is_some() && identity(path) != *opened);
        lost.map_or(Ok(()), |(path, _)| {
            Err(StoreError::Io(format!(
                "{} is gone, or another file stands in its place: put it back, or restart to begin from what is there",
                path.display()
            )))
        })
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
