//! Where rollouts are, in files: one a service while one is under way. A process that finds some says where they were.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use tracing::warn;

use super::told::{RolloutState, Told};
use crate::table::ServiceName;

/// The files' directory.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
}

impl Journal {
    /// The files in `dir`, and what they tell of rollouts that were not ended.
    pub(super) fn open(dir: PathBuf) -> (Self, BTreeMap<ServiceName, Told>) {
        let mut left = BTreeMap::new();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let read = fs::read(entry.path()).map_err(io::Error::other);
            let told = read.and_then(|bytes| Ok(serde_json::from_slice::<Told>(&bytes)?));
            match told {
                Ok(told) => {
                    if let Ok(service) = told.service.parse() {
                        warn!(
                            service = told.service,
                            "a rollout was interrupted by the end of its process, and does not go on by itself"
                        );
                        left.insert(service, Told { state: RolloutState::Interrupted, ..told });
                    }
                }
                // A file that was being written when the process ended is beside the one that counts.
                Err(error) if entry.path().extension().is_none_or(|end| end != "new") => {
                    warn!(file = %entry.path().display(), %error, "what a rollout has left cannot be read");
                }
                Err(_) => {}
            }
        }
        (Self { dir }, left)
    }

    /// Keeps where it is, while it is under way; forgets it once it is over.
    pub(super) fn keep(&self, told: &Told) {
        let kept = if told.state.is_underway() { self.write(told) } else { self.forget(told) };
        if let Err(error) = kept {
            warn!(service = told.service, %error, "where a rollout is cannot be kept");
        }
    }

    fn write(&self, told: &Told) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let (file, beside) = (self.file(told), self.dir.join(format!("{}.new", told.service)));
        let mut written = fs::File::create(&beside)?;
        written.write_all(&serde_json::to_vec(told)?)?;
        if told.news == 0 {
            // That there is one has to be known; how far it was is worth less than a disk's time for each step.
            written.sync_all()?;
        }
        fs::rename(beside, file)
    }

    fn forget(&self, told: &Told) -> io::Result<()> {
        match fs::remove_file(self.file(told)) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
            _ => Ok(()),
        }
    }

    fn file(&self, told: &Told) -> PathBuf {
        self.dir.join(format!("{}.json", told.service))
    }
}
