//! Taking the place of another process, as seen by the one that takes it.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::stdio::dup2_stderr;
use tracing::warn;

use super::activation::Predecessor;
use super::elders::{Elders, unknown};
use super::orphans;
use super::talk::{Hello, Legacy, Line, Older, Ready, Told};
use crate::config;
use crate::control::Handle;
use crate::store::StoreError;
use crate::store::sqlite::{Claim, Sqlite};

/// How long the kernel may take to close what a process had whose end was heard: connections in the thousands come before its lock
/// on the store.
const CLOSING: Duration = Duration::from_secs(10);

/// Whose place is taken, if anybody's.
pub(super) struct Succession(Option<Taken>);

struct Taken {
    hello: Hello,
    line: Line,
    log: Option<OwnedFd>,
    /// What it knows and the store does not.
    legacy: Legacy,
    /// How long the store may still be locked.
    closing: Duration,
    elders: Vec<std::os::unix::net::UnixStream>,
}

impl Succession {
    /// What is nobody else's while this process lives; `None` where a predecessor has it yet.
    pub(super) fn claim(
        predecessor: Option<&Predecessor>,
        state: &config::StateDir,
    ) -> Result<Option<Claim>, StoreError> {
        predecessor.is_none().then(|| Claim::of(&state.dir, Duration::ZERO)).transpose()
    }

    /// Says that everything is prepared, and returns when the store in `state` may be opened.
    ///
    /// # Errors
    /// When the predecessor's state is elsewhere, or it does not want it any more. One that has died meanwhile is survived: its
    /// place is free.
    pub(super) async fn begin(predecessor: Option<Predecessor>, state: &Path) -> Result<Self> {
        let Some(Predecessor { hello, line, log, elders }) = predecessor else { return Ok(Self(None)) };
        if let Some(theirs) = hello.state.as_deref().map(Path::new).filter(|theirs| !is_same(theirs, state)) {
            bail!(
                "the process before this one keeps its state in {}, and [state] dir is {} now: what was decided would be forgotten; put \
                 the old one back, or stop the proxy, move the directory, and start it again",
                theirs.display(),
                state.display()
            );
        }
        let (line, legacy) = (Line::over(line)?, Legacy::default());
        let mut taken = Taken { hello, line, log, legacy, closing: Duration::ZERO, elders };
        // One that has died hears nothing, and then says nothing.
        let _ = taken.line.tell(&Told::Prepared).await;
        match taken.line.hear().await {
            Ok(Some(Told::Yours(legacy))) => Ok(Self(Some(Taken { legacy, ..taken }))),
            Ok(None) | Err(_) => {
                // First: what it was to pass on nobody reads any more.
                taken.speak();
                warn!(pid = taken.hello.pid, "the process before this one has died; serving in its place");
                Ok(Self(Some(Taken { closing: CLOSING, ..taken })))
            }
            Ok(Some(other)) => {
                bail!("the process before this one says {other:?} instead of giving the store")
            }
        }
    }

    /// Which process in the row this one is.
    pub(super) fn generation(&self) -> u64 {
        self.0.as_ref().map_or(1, |taken| taken.hello.generation + 1)
    }

    /// Opens the store, which was claimed before, or is to be had from the predecessor.
    pub(super) fn store(
        &self,
        claim: Option<Claim>,
        state: &config::StateDir,
    ) -> Result<Box<Sqlite>, StoreError> {
        let closing = self.0.as_ref().map_or(Duration::ZERO, |taken| taken.closing);
        let claim = claim.map_or_else(|| Claim::of(&state.dir, closing), Ok)?;
        Ok(Box::new(claim.open(state.history)?))
    }

    /// What the predecessor knows and the store does not; to be taken once.
    pub(super) fn legacy(&mut self) -> Legacy {
        self.0.as_mut().map(|taken| std::mem::take(&mut taken.legacy)).unwrap_or_default()
    }

    /// Counts what the older processes have before anybody asks; they are talked with from [`Succession::end`] on.
    /// Nobody talks with those of whom only the state directory tells.
    pub(super) fn meet(&self, handle: &Handle, state: &Path) {
        let told = self.0.iter().flat_map(|taken| taken.hello.elders.iter().cloned().chain([taken.older()]));
        let told: Vec<_> = told.collect();
        orphans::meet(state, &told, handle);
        told.into_iter().for_each(|older| handle.elders().set(unknown(older)));
    }

    /// Says that this process serves, and logs by itself.
    pub(super) async fn end(self, elders: &mut Elders, handle: &Handle, generation: u64) {
        let Some(mut taken) = self.0 else { return };
        let (pid, epoch) = (std::process::id(), handle.live().epoch().0);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        // One that has died is found out by the questions that follow.
        let _ = taken.line.tell(&Told::Ready(Ready { pid, generation, version, epoch })).await;
        taken.speak();
        let older = taken.older();
        for (with, line) in taken.hello.elders.into_iter().zip(taken.elders) {
            match Line::over(line) {
                Ok(line) => elders.add(with, line, handle),
                Err(error) => warn!(%error, pid = with.pid, "cannot talk with an older process"),
            }
        }
        elders.add(older, taken.line, handle);
    }
}

/// True when both are the same directory. One that is not there yet is no other's.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || fs::canonicalize(one).ok().is_some_and(|one| fs::canonicalize(other).ok() == Some(one))
}

impl Taken {
    fn older(&self) -> Older {
        let Hello { pid, generation, version, .. } = self.hello.clone();
        Older { pid, generation, version }
    }

    /// Logs to where the predecessor logs, and no more through it.
    fn speak(&mut self) {
        if let Some(log) = self.log.take()
            && let Err(error) = dup2_stderr(log)
        {
            warn!(%error, "cannot log by itself");
        }
    }
}
