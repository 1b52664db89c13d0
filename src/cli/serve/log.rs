//! The access log of this process: its writer is started, turned to another file and ended as the configuration says.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Result;
use tracing::warn;

use super::machine::remedy;
use crate::config::{self, Config, LogTarget};
use crate::proxy::journal::writer::Output;
use crate::proxy::journal::{Options, Target, Writer};

/// The writer, while there is an access log.
pub(super) struct Log {
    writer: Option<Writer>,
    /// Lines that were lost since the process started.
    pub(super) dropped: Arc<AtomicU64>,
}

/// What a configuration wants, opened: nothing of it can fail any more.
pub(super) enum Prepared {
    /// No log.
    Off,
    /// A writer of its own.
    Fresh(Writer),
    /// The writer that is there, turned to this.
    Turned(Target, Output),
}

impl Log {
    /// Opens the log that `config` asks for.
    ///
    /// # Errors
    /// When its file cannot be opened.
    pub(super) fn open(config: &Config) -> Result<Self> {
        let mut log = Self { writer: None, dropped: Arc::default() };
        let prepared = log.prepare(config)?;
        log.follow(prepared);
        Ok(log)
    }

    /// Opens what `config` asks for; nothing changes yet.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(super) fn prepare(&self, config: &Config) -> Result<Prepared> {
        let Some(wanted) = &config.access_log else { return Ok(Prepared::Off) };
        let target = match &wanted.target {
            LogTarget::Stdout => Target::Stdout,
            LogTarget::File(path) => Target::File(path.clone()),
        };
        let why = |error: io::Error| {
            let hint = remedy(&error).unwrap_or("name another [access_log] path");
            let what = format!("cannot open the access log {}; {hint}", name(&target).display());
            anyhow::Error::new(error).context(what)
        };
        match &self.writer {
            Some(_) => Ok(Prepared::Turned(target.clone(), target.open().map_err(why)?)),
            None => {
                let writer = Writer::start(target.clone(), Arc::clone(&self.dropped)).map_err(why)?;
                Ok(Prepared::Fresh(writer))
            }
        }
    }

    /// Puts what was prepared in force. A writer that is not wanted any more ends with its last line.
    pub(super) fn follow(&mut self, prepared: Prepared) {
        match (prepared, &mut self.writer) {
            (Prepared::Off, writer) => *writer = None,
            (Prepared::Fresh(fresh), writer) => *writer = Some(fresh),
            (Prepared::Turned(target, output), Some(writer)) => writer.turn_to(target, output),
            (Prepared::Turned(..), None) => {}
        }
    }

    /// Opens the file anew, as after it was moved away.
    pub(super) fn reopen(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = writer.reopen() {
            warn!(%error, file = %name(writer.target()).display(), "the access log is not opened anew");
        }
    }

    /// What the workers need of it.
    pub(super) fn options(&self, wanted: Option<&config::AccessLog>) -> Option<Options> {
        let (wanted, writer) = (wanted?, self.writer.as_ref()?);
        let headers = wanted.headers.iter().filter_map(|name| name.parse().ok());
        Some(Options {
            pipe: writer.pipe(),
            sample: wanted.sample,
            errors: wanted.errors,
            query: wanted.query,
            headers: headers.collect(),
        })
    }

    /// Waits until all is written; the workers have to be gone.
    pub(super) async fn finish(self) {
        if let Some(writer) = self.writer {
            writer.finish().await;
        }
    }
}

fn name(target: &Target) -> PathBuf {
    match target {
        Target::Stdout => "standard output".into(),
        Target::File(path) => path.clone(),
    }
}
