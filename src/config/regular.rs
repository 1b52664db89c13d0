//! Files that are read as often as the configuration is: regular ones, and nothing else.
//!
//! Whoever opens a pipe waits for somebody who writes into it, and the thread that reads the configuration again is the one
//! that everything else of the operator's goes through.

use std::fs::File;
use std::io;
use std::path::Path;

/// Opens the regular file that `path` leads to.
///
/// # Errors
/// When there is none, it is something else, or it is not ours to read.
pub(super) fn open(path: &Path) -> io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        File::open(path)
    } else {
        Err(io::Error::other("it is not a file"))
    }
}
