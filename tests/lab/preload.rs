//! A library that stands before the C library's own in the proxy's process: a calendar that can be set, a disk that fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiled library.
pub struct Preload(PathBuf);

impl Preload {
    /// Compiles C's `source` in `dir`.
    pub fn compile(dir: &Path, source: &str) -> Self {
        let (file, library) = (dir.join("preload.c"), dir.join("preload.so"));
        fs::write(&file, source).unwrap();
        let cc = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &file])
            .output()
            .unwrap();
        assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
        Self(library)
    }

    /// The variable that has a process take it, as `env` is given it.
    pub fn variable(&self) -> String {
        format!("LD_PRELOAD={}", self.0.display())
    }
}
