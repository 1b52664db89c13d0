//! The files that list endpoints, watched together: one watch for all of them, however many there are.

use std::path::PathBuf;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tracing::warn;

use crate::control::reload::{Trigger, Watch, Watched, watch as watch_files};
use crate::table::{Discovery, Source};

/// Says when lists are to be read again.
#[derive(Debug)]
pub(super) struct Lists {
    looks: watch::Sender<()>,
    watch: Option<Watch>,
    task: Option<JoinHandle<()>>,
}

impl Drop for Lists {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Lists {
    pub(super) fn new() -> Self {
        Self { looks: watch::Sender::default(), watch: None, task: None }
    }

    /// When to read.
    pub(super) fn looks(&self) -> watch::Receiver<()> {
        self.looks.subscribe()
    }

    /// Watches the lists among `wanted`, and has all of them read again. Blocks on the file system.
    pub(super) fn follow(&mut self, wanted: &[Discovery]) {
        let mut files: Vec<PathBuf> = wanted.iter().filter_map(path).collect();
        files.sort_unstable();
        files.dedup();
        match &self.watch {
            _ if files.is_empty() => self.stop(),
            Some(watch) => watch.follow(files),
            None => self.start(files),
        }
        // Before they are read, so that no change falls in between; what changed while it was followed is no news to it.
        self.looks.send_replace(());
    }

    fn start(&mut self, named: Vec<PathBuf>) {
        let (trigger, mut changes) = Trigger::new();
        match watch_files(Watched { named, ..Watched::default() }, trigger) {
            Ok(watch) => self.watch = Some(watch),
            Err(why) => {
                warn!(%why, "lists of endpoints are not watched; they are read from time to time and at each reload");
                return;
            }
        }
        let looks = self.looks.clone();
        self.task = Some(spawn_local(async move {
            while changes.recv().await.is_some() {
                looks.send_replace(());
            }
        }));
    }

    fn stop(&mut self) {
        self.watch = None;
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

fn path(of: &Discovery) -> Option<PathBuf> {
    match &of.source {
        Source::File(path) => Some(path.to_path_buf()),
        Source::Dns { .. } | Source::Srv { .. } => None,
    }
}
