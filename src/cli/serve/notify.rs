//! What a service manager is told (sd_notify(3)): nothing when nobody asked.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{sleep, timeout};
use tracing::warn;

use crate::proxy::crew::Pulse;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}

/// It serves, or serves by a new configuration.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again; [`ready`] says when that is over.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot tell the service manager"),
    }
}

/// It winds down.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing what is in flight")]);
}

/// Another process is the service now.
pub(super) fn main_process(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Says that it is alive, as often as is asked for, for as long as every worker says so too.
pub(super) async fn watchdog(pulse: Pulse) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| *limit > Duration::ZERO) else { return };
    loop {
        if timeout(limit / 4, pulse.echo()).await.is_ok() {
            tell(&[NotifyState::Watchdog]);
        } else {
            warn!("a worker does not answer; the watchdog is not told that all is well");
        }
        sleep(limit / 4).await;
    }
}
