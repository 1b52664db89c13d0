//! A rollout's hook: a command that deals with each endpoint that is safe to stop, while the rollout waits for it.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::admin::api::{Rollout, RolloutStep};

/// How long a hook that is not wanted any more may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs the command for one endpoint after the other, once for each. Dropped, it kills what runs.
#[derive(Debug)]
pub(super) struct Hook<'h> {
    command: &'h str,
    /// The steps that it was run for.
    dealt: BTreeSet<usize>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    endpoint: String,
    child: Child,
}

/// What has come of a run: the endpoint, and why it failed if it has.
pub(super) type Ended = (String, Result<(), String>);

impl<'h> Hook<'h> {
    pub(super) fn new(command: &'h str) -> Self {
        Self { command, dealt: BTreeSet::new(), running: None }
    }

    /// Starts the next run if none is under way; gives one that has ended.
    pub(super) fn work(&mut self, rollout: &Rollout) -> Option<Ended> {
        if let Some(running) = &mut self.running {
            let ended = running.child.try_wait().transpose()?;
            let endpoint = self.running.take()?.endpoint;
            return Some(match ended {
                Ok(status) if status.success() => (endpoint, Ok(())),
                Ok(status) => (endpoint, Err(status.to_string())),
                Err(error) => (endpoint, Err(error.to_string())),
            });
        }
        let mut waiting = rollout.steps.iter().enumerate().filter(|(_, step)| step.awaits_confirmation);
        let (index, step) = waiting.find(|(index, _)| !self.dealt.contains(index))?;
        self.dealt.insert(index);
        let endpoint = step.out.clone().unwrap_or_default();
        match self.command(rollout, index, step).spawn() {
            Ok(child) => {
                self.running = Some(Running { endpoint, child });
                None
            }
            Err(error) => Some((endpoint, Err(error.to_string()))),
        }
    }

    /// In a process group of its own, so that all of it can be ended.
    fn command(&self, rollout: &Rollout, index: usize, step: &RolloutStep) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", self.command]).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr()));
        command
            .env("SWITCHBACK_SERVICE", &rollout.service)
            .env("SWITCHBACK_FROM", &rollout.from)
            .env("SWITCHBACK_TO", &rollout.to)
            .env("SWITCHBACK_ENDPOINT", step.out.as_deref().unwrap_or(""))
            .env("SWITCHBACK_REPLACEMENT", step.into.as_deref().unwrap_or(""))
            .env("SWITCHBACK_STEP", (index + 1).to_string())
            .env("SWITCHBACK_STEPS", rollout.steps.len().to_string());
        command
    }

    /// Ends the run that is under way, with all its processes; gives its endpoint.
    pub(super) async fn end(&mut self) -> Option<String> {
        let running = self.running.as_mut()?;
        running.signal(Signal::TERM);
        let late = Instant::now() + GRACE;
        while matches!(running.child.try_wait(), Ok(None)) && Instant::now() < late {
            sleep(PAUSE).await;
        }
        if matches!(running.child.try_wait(), Ok(None)) {
            running.kill();
        }
        self.running.take().map(|running| running.endpoint)
    }
}

impl Drop for Hook<'_> {
    fn drop(&mut self) {
        if let Some(running) = &mut self.running {
            running.kill();
        }
    }
}

impl Running {
    /// The group is there for as long as its first process was not waited for.
    fn signal(&self, signal: Signal) {
        // It may have ended just now.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        // Nobody survives that.
        let _ = self.child.wait();
    }
}

/// When somebody ends this command: its hook is in another process group, and would not hear of it.
pub(super) async fn interrupted() {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
