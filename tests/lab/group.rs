//! Control groups, whose limits a test sets.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A control group of its own for a test; removed when dropped, after those below it and after the processes in it have ended.
pub struct Group {
    folder: PathBuf,
    controller: &'static str,
}

impl Group {
    /// One with this controller, `memory` or `pids`. `None` when nobody lets us make one.
    pub fn with(controller: &'static str) -> Option<Self> {
        let [v1, v2] = [Path::new("/sys/fs/cgroup").join(controller), PathBuf::from("/sys/fs/cgroup")];
        [v1, v2].into_iter().filter(|root| root.is_dir()).find_map(|root| Self::make(&root, controller))
    }

    /// One in this one.
    pub fn below(&self) -> Option<Self> {
        Self::make(&self.folder, self.controller)
    }

    fn make(above: &Path, controller: &'static str) -> Option<Self> {
        // Of version 2 alone; where it is there already nobody minds.
        let _ = fs::write(above.join("cgroup.subtree_control"), format!("+{controller}"));
        let group = Self { folder: tempfile::Builder::new().tempdir_in(above).ok()?.keep(), controller };
        group.folder.join(group.limit_name()).is_file().then_some(group)
    }

    fn limit_name(&self) -> &'static str {
        let v1 = "memory.limit_in_bytes";
        match self.controller {
            "memory" if self.folder.join(v1).is_file() => v1,
            "memory" => "memory.max",
            _ => "pids.max",
        }
    }

    /// Limits it to so many bytes, or processes.
    pub fn limit(&self, to: &str) {
        fs::write(self.folder.join(self.limit_name()), to).unwrap();
    }

    /// What goes before a command for that to run in it.
    pub fn enter(&self) -> [String; 4] {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.folder.display());
        ["sh".to_owned(), "-c".to_owned(), enter, "sh".to_owned()]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let since = Instant::now();
        // Those that have ended are in it for a moment yet.
        while fs::remove_dir(&self.folder).is_err() && since.elapsed() < super::PATIENCE {
            std::thread::yield_now();
        }
    }
}
