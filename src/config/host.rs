//! Where a program of this user keeps its socket and its state, when the file does not say.

use std::path::PathBuf;

/// The user and the directories that the operating system gives them.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Running as root.
    pub root: bool,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$XDG_STATE_HOME`, by default `$HOME/.local/state`.
    pub state_home: Option<PathBuf>,
}

impl Host {
    /// This process's user.
    #[must_use]
    pub fn of_process() -> Self {
        // Relative paths in these variables are invalid and to be ignored (XDG base directory specification).
        let dir = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home_state = || Some(dir("HOME")?.join(".local/state"));
        Self {
            root: rustix::process::geteuid().is_root(),
            runtime_dir: dir("XDG_RUNTIME_DIR"),
            state_home: dir("XDG_STATE_HOME").or_else(home_state),
        }
    }

    /// The admin socket: as root `/run/switchback/admin.sock`, else below `$XDG_RUNTIME_DIR`, if there is one.
    #[must_use]
    pub fn admin_socket(&self) -> Option<PathBuf> {
        let run = if self.root { Some("/run".into()) } else { self.runtime_dir.clone() };
        Some(run?.join("switchback/admin.sock"))
    }

    /// The state: as root `/var/lib/switchback`, else below `$XDG_STATE_HOME`, if there is one.
    #[must_use]
    pub fn state_dir(&self) -> Option<PathBuf> {
        let lib = if self.root { Some("/var/lib".into()) } else { self.state_home.clone() };
        Some(lib?.join("switchback"))
    }
}
